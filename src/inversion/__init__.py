"""The engine of the inversion: arrays in, arrays out (plan, sparse elimination, phase noise)."""
