"""Thin helpers of the Datong permafrost compendium: the science the notebooks share.

``io`` reads and writes, ``plot`` draws; the other rooms (`timefunc`, `space`, `network`, `sbas`, `constrained`,
`merge`, `contrasts`, `thaw`, `recession`, `attribution`) are methods that take and return xarray objects or tables and
never touch the disk.
"""
