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
from readers.mintpy import read_ifgram_stack, read_rate, write_mintpy_stack, write_mintpy_timeseries
from readers.opera import read_displacement
from readers.rasters import PairFiles, read_layer, whole_pairs
from readers.stack import assemble, check_stack, order_pairs, parse_dates, scene_geometry

__all__ = [
    "read_displacement",
    "read_geotiff_pairs",
    "read_rate",
    "read_stack",
    "write_mintpy_stack",
    "write_mintpy_timeseries",
]

_RECOGNISED = (
    "MintPy ifgramStack.h5, a LiCSAR GEOC folder or frame, a folder of HyP3 products, or a .zarr or .nc of this "
    "project (other GeoTIFFs, also GMTSAR's .grd with a CRS: read_geotiff_pairs)"
)


def read_stack(path: str | Path, **options) -> xr.Dataset:
    """Read an interferogram stack, recognising its format.

    Recognised: MintPy ``ifgramStack.h5`` (geometry from geometryGeo.h5 beside it) or a folder that holds it;
    a LiCSAR frame (GEOC, ``interferograms`` or the folder around them); a folder of HyP3 products (GAMMA or
    burst, clipped to their common overlap); this project's own zarr or netCDF.

    A stored phase of exactly 0 is no data, whatever the coherence says, and so is a connected component <= 0
    (`readers.stack.apply_zero_rule`); attribute ``zero_share`` is the share of such zeros over at most five
    pairs. Own files have NaN, so there 0 is a value. A void in another layer leaves the phase as it is and is
    reported. Pairs are sorted by date. Small stacks come as numpy arrays, large ones (above 512 MiB) as dask
    arrays that read by rows.

    Parameters
    ----------
    path : path
    **options
        Passed to the reader: ``lazy`` (bool), ``zero`` ("value" keeps zeros), ``looks`` and ``incomplete``
        ("skip" leaves out pairs with a file missing or damaged; LiCSAR, HyP3), ``phase_name`` and
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
    return _read_own(regular_tree(path), xr.open_zarr)


def _read_netcdf(path: Path) -> xr.Dataset:
    return _read_own(path, xr.open_dataset, chunks={}, engine="h5netcdf", phony_dims="sort")


def _read_own(path: Path, opener, **options) -> xr.Dataset:
    """Read coordinates and maps at once: what cannot be decoded of them is met here, not in a computation."""
    with damage_named(path):
        data = opener(path, decode_coords="all", **options)
        data = data.assign_coords({name: coordinate.load() for name, coordinate in data.coords.items()})
        maps = {name: layer.load() for name, layer in data.data_vars.items() if layer.dims == ("y", "x")}
    return check_stack(data.assign(maps), path)


# --- loose GeoTIFFs ------------------------------------------------------------------------------

_LONG = re.compile(r"(?<!\d)(\d{8})[-_](\d{8})(?!\d)")
_SHORT = re.compile(r"(?<!\d)(\d{6})[-_](\d{6})(?!\d)")


def _pair_dates(path) -> tuple[str, str]:
    """Dates in a file name as two strings yyyymmdd; two-digit years below 70 are 20xx."""
    name = Path(path).name
    if re.search(r"(^|[_-])(los_disp|vert_disp|displacement)([_.-]|$)", name):
        raise ValueError(
            f"{path}: a displacement by its name, no phase: io.read_displacement reads such a series"
        )
    found = _LONG.search(name)
    if found:
        return found.groups()
    found = _SHORT.search(name)
    if found:
        return tuple(("20" if int(d[:2]) < 70 else "19") + d for d in found.groups())
    raise ValueError(
        f"{path}: no dates in the name; expected yyyymmdd-yyyymmdd, yyyymmdd_yyyymmdd or yymmdd-yymmdd, the "
        "reference date first (times of day and days of the year, yyyyddd, are not read: rename the files)"
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
    zero: str = "nodata",
    incomplete: str = "error",
    lazy: bool | None = None,
    block_mb: float = 128,
) -> xr.Dataset:
    """Read loose GeoTIFFs, one per interferogram, as a stack; the dates are taken from the file names.

    Parameters
    ----------
    unwrapped, coherence : lists of paths
        Unwrapped phase in rad, and coherence 0-1 (float) or 0-255 (byte), one grid for all. Names hold
        yyyymmdd-yyyymmdd, yyyymmdd_yyyymmdd or yymmdd-yymmdd, reference date first; coherence is matched by date.
        Files that state another unit than rad are refused.
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
    zero, incomplete, lazy, block_mb
        As in `read_stack`.
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
    files = [(unwrapped[k],) for k in order]
    if coherence is not None:
        matched = _match(coherence, [names[k] for k in order])
        files = [(*f, c) for f, c in zip(files, matched, strict=True)]
    kept, grid = whole_pairs(files, incomplete)
    order = order[kept]
    layers = list(zip(*(files[k] for k in kept), strict=True))
    gamma = layers[1] if coherence is not None else None
    source = PairFiles(layers[0], gamma, None, grid, sign=1.0 if positive == "away" else -1.0, zero=zero)
    if perpendicular_baseline is not None:
        perpendicular_baseline = [perpendicular_baseline.get(names[k], np.nan) for k in order]
    geometry = scene_geometry(grid, incidence_angle_deg, heading_deg)
    if height is not None:
        geometry["height"] = read_layer(height, grid)
    return assemble(
        source.read(lazy=lazy, block_mb=block_mb),
        (reference[order], secondary[order], perpendicular_baseline),
        grid,
        source=str(unwrapped[0].parent),
        wavelength_m=wavelength_m,
        geometry=geometry,
        sensor=sensor,
        heading_deg=heading_deg,
        looks=looks,
        skipped_pairs=[f[0].name for k, f in enumerate(files) if k not in kept] or None,
        zero_share=source.zero_share(),
    )


def _match(coherence, names) -> tuple:
    by_date = {}
    for path in map(Path, coherence):
        dates = _pair_dates(path)
        if dates in by_date:
            raise ValueError(f"coherence of {'-'.join(dates)} is given twice: {by_date[dates]} and {path}")
        by_date[dates] = path
    return tuple(by_date.get(n, Path(f"no coherence file for pair {'-'.join(n)}")) for n in names)
