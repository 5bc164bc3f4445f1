"""OPERA DISP-S1: a displacement series as one GeoTIFF a date, in metres toward the satellite since the first date."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import rioxarray
import xarray as xr
from rasterio.enums import Resampling

from readers.damage import damage_named, regular_file
from readers.hyp3 import WAVELENGTH_M
from readers.rasters import METRES, PairFiles, header, whole_pairs
from readers.stack import geometry_from_los, map_variables, order_pairs, parse_dates, with_grid_mapping

_NAME = re.compile(r"^displacement_(\d{8})_(\d{8})\.tif$")


def read_displacement(
    folder: str | Path,
    *,
    los: str | Path | None = None,
    incomplete: str = "error",
    zero: str = "nodata",
    **lazy,
) -> xr.Dataset:
    """Read a folder of OPERA DISP-S1 GeoTIFFs as a displacement series.

    A component <= 0 (``connected_component_labels_*`` beside a file) is no data, and an exact 0 but at the
    declared reference pixel; other masks are not applied. The product states no standard deviation.

    Parameters
    ----------
    folder : path
        Holds ``displacement_yyyymmdd_yyyymmdd.tif`` of one first date.
    los : path, optional
        GeoTIFF of three bands, east, north and up part of the unit vector from ground to satellite, on any grid.
    incomplete, zero, lazy, block_mb
        As in `readers.rasters.whole_pairs`, `readers.stack.apply_zero_rule`, `readers.rasters.PairFiles.read`.

    Returns
    -------
    Dataset
        ``displacement`` (time, y, x) in mm, 0 at the first date; ``los_*`` and ``incidence_angle`` with ``los``.
    """
    named = {p: m.groups() for p in sorted(Path(folder).glob("*.tif")) if (m := _NAME.match(p.name))}
    if not named:
        raise FileNotFoundError(f"{folder}: no file displacement_yyyymmdd_yyyymmdd.tif")
    files = np.array(list(named), object)
    first, last = (parse_dates(dates, folder) for dates in zip(*named.values(), strict=True))
    order = order_pairs(first, last, [str(p) for p in files])
    if (first != first[0]).any():
        raise ValueError(
            f"{folder}: first dates {sorted({str(d)[:10] for d in first})}: read each series by itself"
        )
    kept, grid = whole_pairs([(files[k],) for k in order], incomplete)
    files, last = files[order[kept]], last[order[kept]]
    labels = [p.with_name(p.name.replace("displacement", "connected_component_labels")) for p in files]
    declared = [int(v) for v in re.findall(r"\d+", header(files[0]).tags.get("reference_point", ""))]
    inside = len(declared) == 2 and declared[0] < grid.height and declared[1] < grid.width
    component = tuple(labels) if all(p.exists() for p in labels) else None
    reference = tuple(declared) if inside else None
    source = PairFiles(tuple(files), None, component, grid, zero=zero, reference=reference, units=METRES)
    later = source.read(**lazy)["phase"] * 1000  # m -> mm
    start = np.where(np.isnan(later).all(axis=0), np.nan, 0)[None].astype(later.dtype)
    about = {
        "units": "mm",
        "long_name": "line-of-sight displacement",
        "positive_direction": "toward satellite",
    }
    data = {"displacement": (("time", "y", "x"), np.concatenate([start, later]), about)}
    attrs = {"sensor": "Sentinel-1", "processor": "OPERA DISP-S1", "wavelength_m": WAVELENGTH_M}
    attrs |= {"reference_date": str(first[0])[:10], "zero_share": source.zero_share()}
    if inside:
        row, column = declared
        attrs |= {"declared_reference_y": float(grid.y[row]), "declared_reference_x": float(grid.x[column])}
    if los is not None:
        data |= map_variables(_vector(los, grid))
    coords = {"time": np.concatenate([first[:1], last]), "y": grid.y, "x": grid.x}
    return with_grid_mapping(xr.Dataset(data, coords, attrs).rio.write_crs(grid.crs))


def _vector(path, grid) -> dict:
    with damage_named(path), rioxarray.open_rasterio(regular_file(path), masked=True) as bands:
        if bands.sizes["band"] != 3:
            raise ValueError(f"{path}: has {bands.sizes['band']} bands, expected east, north, up")
        shape = (grid.height, grid.width)
        parts = bands.astype(float).rio.reproject(
            grid.crs, transform=grid.transform, shape=shape, resampling=Resampling.bilinear
        )
    return geometry_from_los(*np.nan_to_num(parts.values), path)
