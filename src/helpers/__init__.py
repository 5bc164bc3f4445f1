"""Thin helpers of the Datong permafrost compendium: the science the notebooks share.

``io`` reads and writes, ``plot`` draws, ``twin`` simulates; the other modules
(`network`, `timefunc`, `sbas`, `merge`, `thaw`, `recession`, `attribution`) are methods
that take and return xarray objects or pandas tables and never touch the disk.
"""
