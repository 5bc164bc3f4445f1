"""Readers of interferogram stacks: one function that recognises the format, one for loose GeoTIFFs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from readers.damage import damage_named, regular_file, regular_tree
from readers.hyp3 import is_hyp3, read_hyp3
from readers.licsar import is_licsar, read_licsar
from readers.mintpy import read_ifgram_stack, write_mintpy_stack, write_mintpy_timeseries
from readers.rasters import PairFiles, header, read_layer
from readers.stack import assemble, check_stack, los_from_angles, order_pairs, parse_dates

__all__ = ["read_geotiff_pairs", "read_stack", "write_mintpy_stack", "write_mintpy_timeseries"]

_RECOGNISED = (
    "MintPy ifgramStack.h5, a LiCSAR GEOC folder, a folder of HyP3 products, "
    "or a .zarr or .nc of this project"
)


def read_stack(path: str | Path, **options) -> xr.Dataset:
    """Read an interferogram stack, recognising its format.

    Recognised: MintPy ``ifgramStack.h5`` (geometry from geometryGeo.h5 beside it) or a folder that holds it;
    a LiCSAR frame (the GEOC folder or the one around it); a folder of HyP3 products (GAMMA or burst, clipped
    to their common overlap); this project's own zarr or netCDF.

    A stored phase of 0 is no data only where coherence is 0 or NaN, the connected component is 0, or the
    file declares nodata 0 and neither is given; otherwise it is a value. Pairs are sorted by date. Small
    stacks come as numpy arrays, large ones (above 512 MiB) as dask arrays that read by rows.

    Parameters
    ----------
    path : path
    **options
        Passed to the reader: ``lazy`` (bool), ``looks`` and ``incomplete`` (LiCSAR), ``phase_name`` and
        ``geometry`` (MintPy), ``sensor``.

    Returns
    -------
    Dataset
        ``unwrapped_phase`` (pair, y, x) rad, positive away from the satellite, NaN = no data; ``coherence``
        0-1; ``incidence_angle``, ``los_east``, ``los_north``, ``los_up``, ``height`` (y, x).

    Raises
    ------
    FileNotFoundError
        The path or a file it needs is missing.
    ValueError
        Unknown format, reversed or repeated pairs, mixed grids, wrong units, unreadable files.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    reader = _reader(path)
    try:
        return reader(path, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise ValueError(f"{path}: {error}, for this format") from None
        raise


def _reader(path: Path):
    if path.suffix == ".zarr":
        return _read_zarr
    if not path.is_dir():
        regular_file(path)
        if path.suffix in (".h5", ".hdf5", ".he5"):
            return read_ifgram_stack
        if path.suffix in (".nc", ".nc4"):
            return _read_netcdf
        raise ValueError(f"{path}: not a recognised stack; expected {_RECOGNISED}")
    if (path / "ifgramStack.h5").exists():
        return lambda folder, **options: read_ifgram_stack(folder / "ifgramStack.h5", **options)
    if is_licsar(path):
        return read_licsar
    if is_hyp3(path):
        return read_hyp3
    found = sorted(p.name for p in path.iterdir())[:5]
    what = f"it holds {', '.join(found)}" if found else "it is empty"
    raise FileNotFoundError(f"{path}: no interferograms here ({what}); expected {_RECOGNISED}")


def _read_zarr(path: Path) -> xr.Dataset:
    regular_tree(path)
    with damage_named(path):
        opened = _with_maps(xr.open_zarr(path, decode_coords="all"))
    return check_stack(opened, path)


def _read_netcdf(path: Path) -> xr.Dataset:
    with damage_named(path):
        opened = _with_maps(
            xr.open_dataset(path, chunks={}, decode_coords="all", engine="h5netcdf", phony_dims="sort")
        )
    return check_stack(opened, path)


def _with_maps(data: xr.Dataset) -> xr.Dataset:
    """Read coordinates and maps at once: what cannot be decoded of them is met here, not in a computation."""
    data = data.assign_coords({name: coordinate.load() for name, coordinate in data.coords.items()})
    return data.assign(
        {name: layer.load() for name, layer in data.data_vars.items() if layer.dims == ("y", "x")}
    )


# --- loose GeoTIFFs ------------------------------------------------------------------------------

_LONG = re.compile(r"(?<!\d)(\d{8})[-_](\d{8})(?!\d)")
_SHORT = re.compile(r"(?<!\d)(\d{6})[-_](\d{6})(?!\d)")


def _pair_dates(path) -> tuple[str, str]:
    """Dates in a file name as two strings yyyymmdd; two-digit years below 70 are 20xx."""
    name = Path(path).name
    found = _LONG.search(name)
    if found:
        return found.groups()
    found = _SHORT.search(name)
    if found:
        return tuple(("20" if int(d[:2]) < 70 else "19") + d for d in found.groups())
    raise ValueError(
        f"{path}: no dates in the name; expected yyyymmdd-yyyymmdd, yyyymmdd_yyyymmdd or yymmdd-yymmdd"
    )


def read_geotiff_pairs(
    unwrapped: Sequence[str | Path],
    coherence: Sequence[str | Path] | None = None,
    *,
    wavelength_m: float,
    incidence_angle_deg: float | None = None,
    heading_deg: float | None = None,
    looks: float | None = None,
    positive: str = "away",
    height: str | Path | None = None,
    perpendicular_baseline: dict | None = None,
    sensor: str | None = None,
    lazy: bool | None = None,
    block_mb: float = 128,
) -> xr.Dataset:
    """Read loose GeoTIFFs, one per interferogram, as a stack; the dates are taken from the file names.

    Parameters
    ----------
    unwrapped, coherence : lists of paths
        Unwrapped phase in rad, and coherence 0-1 (float) or 0-255 (byte), one grid for all. Names hold
        yyyymmdd-yyyymmdd, yyyymmdd_yyyymmdd or yymmdd-yymmdd, reference date first; coherence is matched by date.
    wavelength_m : float
    incidence_angle_deg, heading_deg : float, optional
        Scene means: degrees from vertical, and flight direction from north, clockwise. Right-looking.
    looks : float, optional
        Effective number of looks.
    positive : {"away", "toward"}
        What a positive phase means in the files.
    height : path, optional
        DEM on the same grid, m.
    perpendicular_baseline : dict, optional
        (reference, secondary) as "yyyymmdd" strings -> m; pairs it lacks are NaN.
    sensor : str, optional
    lazy, block_mb
        As in `readers.rasters.PairFiles.read`.

    Returns
    -------
    Dataset with dims (pair, y, x), as `read_stack`
    """
    if positive not in ("away", "toward"):
        raise ValueError(f"positive={positive!r}: choose 'away' or 'toward'")
    unwrapped = [Path(p) for p in unwrapped]
    if not unwrapped:
        raise FileNotFoundError("no unwrapped interferogram: the list of files is empty")
    names = [_pair_dates(p) for p in unwrapped]
    reference = parse_dates([n[0] for n in names], unwrapped[0].parent)
    secondary = parse_dates([n[1] for n in names], unwrapped[0].parent)
    order = order_pairs(reference, secondary, [str(p) for p in unwrapped])
    names = [names[k] for k in order]
    phase = tuple(unwrapped[k] for k in order)
    matched = None if coherence is None else _match(coherence, names)

    grid = header(phase[0]).grid
    files = PairFiles(phase, matched, None, grid, sign=1.0 if positive == "away" else -1.0)
    values, gamma, _ = files.read(lazy=lazy, block_mb=block_mb)
    if perpendicular_baseline is not None:
        perpendicular_baseline = [perpendicular_baseline.get(n, np.nan) for n in names]
    geometry = _scene_geometry(grid, incidence_angle_deg, heading_deg)
    if height is not None:
        geometry["height"] = read_layer(height, grid)
    return assemble(
        values,
        reference[order],
        secondary[order],
        grid,
        source=str(phase[0].parent),
        wavelength_m=wavelength_m,
        coherence=gamma,
        perpendicular_baseline=perpendicular_baseline,
        geometry=geometry,
        sensor=sensor,
        heading_deg=heading_deg,
        looks=looks,
    )


def _match(coherence, names) -> tuple:
    by_date = {}
    for path in map(Path, coherence):
        dates = _pair_dates(path)
        if dates in by_date:
            raise ValueError(f"coherence of {'-'.join(dates)} is given twice: {by_date[dates]} and {path}")
        by_date[dates] = path
    lacking = [n for n in names if n not in by_date]
    if lacking:
        raise FileNotFoundError(
            f"no coherence file for pair {'-'.join(lacking[0])} ({len(lacking)} pairs lack one); "
            f"given are {', '.join(map(str, list(by_date.values())[:3])) or 'none'}"
        )
    return tuple(by_date[n] for n in names)


def _scene_geometry(grid, incidence_deg, heading_deg) -> dict:
    if incidence_deg is None:
        return {}
    shape = (grid.height, grid.width)
    geometry = {"incidence_angle": np.full(shape, float(incidence_deg))}
    if heading_deg is not None:
        # right-looking: the satellite is seen 90 degrees to the left of the flight direction
        parts = los_from_angles(incidence_deg, 90.0 - heading_deg)
        geometry |= {
            name: np.full(shape, float(v))
            for name, v in zip(("los_east", "los_north", "los_up"), parts, strict=True)
        }
    return geometry
