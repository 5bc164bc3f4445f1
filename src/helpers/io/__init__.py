"""Everything that touches the disk: sites and their inputs, readers, writers, derived files, results."""

from helpers.io.fetch import fetch, registry
from helpers.io.inputs import (
    areas_on_grid,
    cell_size_m,
    mask_of,
    read_areas,
    read_climate,
    read_drivers,
    read_gauges,
    read_sensor,
    read_series,
    read_stations,
    terrain,
)
from helpers.io.results import Results, read_results
from helpers.io.run import MissingInput, progress
from helpers.io.site import DEFAULT_SITE, ROOT, Site, load_site
from helpers.io.store import exists, in_memory, read, read_truth, write, write_and_reopen
from readers.discharge import read_discharge
from readers.insar import (
    read_displacement,
    read_geotiff_pairs,
    read_rate,
    read_stack,
    write_mintpy_timeseries,
)
from readers.stations import read_gnss, read_ground_temperature

__all__ = [
    "DEFAULT_SITE",
    "ROOT",
    "MissingInput",
    "Results",
    "Site",
    "areas_on_grid",
    "cell_size_m",
    "exists",
    "fetch",
    "in_memory",
    "load_site",
    "mask_of",
    "progress",
    "read",
    "read_areas",
    "read_climate",
    "read_discharge",
    "read_displacement",
    "read_drivers",
    "read_gauges",
    "read_geotiff_pairs",
    "read_gnss",
    "read_ground_temperature",
    "read_rate",
    "read_results",
    "read_sensor",
    "read_series",
    "read_stack",
    "read_stations",
    "read_truth",
    "registry",
    "terrain",
    "write",
    "write_and_reopen",
    "write_mintpy_timeseries",
]
