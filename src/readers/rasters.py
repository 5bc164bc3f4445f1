"""Many small GeoTIFFs as one array: headers checked for every file, values read by rows."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows
import rioxarray
import xarray as xr
from dask.base import tokenize

from readers.damage import damage_named, regular_file
from readers.stack import (
    Grid,
    as_layers,
    check_coherence,
    delayed_strips,
    finish_block,
    sampled,
    strip_rows,
    within_rows,
)

log = logging.getLogger(__name__)

RADIANS = ("", "rad", "radian", "radians")
METRES = ("m", "meter", "meters", "metre", "metres")
# usual fill values, outermost first; a largest value may also be a saturated one and must stand further off
_FILLS = {-99999: 0.1, -32768: 0.1, -32767: 0.1, -9999: 0.1, 65535: 5, 32767: 5}
EAGER_MB = 512  # a stack below this is read at once into memory
_NO_CRS = (
    "has no coordinate reference system: geocode it (or the file is truncated); a GMTSAR .grd in lon/lat needs "
    "`gdal_translate -a_srs EPSG:4326 unwrap_ll.grd yyyymmdd_yyyymmdd.tif`"
)


@dataclasses.dataclass(frozen=True)
class Header:
    """What has to agree between the files of one stack."""

    path: Path
    grid: Grid
    nodata: float | None
    block_rows: int
    units: str
    tags: dict


def _open(path):
    path = regular_file(path)
    # by its name, not by its content: GDAL would follow a VRT in a .tif's place to any file or address
    driver = "GTiff" if path.suffix.lower() in (".tif", ".tiff") else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(path, driver=driver)
    except rasterio.errors.RasterioError as error:
        raise ValueError(
            f"{path}: cannot be read as a GeoTIFF (truncated or not a raster): {error}"
        ) from None


def _header(dataset, path) -> Header:
    if dataset.count != 1:
        raise ValueError(
            f"{path}: has {dataset.count} bands, expected one; take it out with gdal_translate -b"
        )
    if dataset.crs is None:
        raise ValueError(f"{path}: {_NO_CRS}")
    t = dataset.transform
    if not np.isfinite(tuple(t)).all():
        raise ValueError(f"{path}: the grid's transform {tuple(t)[:6]} is not finite")
    if t.b or t.d or t.e >= 0 or t.a <= 0:
        raise ValueError(
            f"{path}: grid is rotated or not north-up (transform {tuple(t)[:6]}): warp it (rio warp)"
        )
    grid = Grid(dataset.crs, t, dataset.width, dataset.height)
    tags = dataset.tags()
    stated = dataset.units[0] or tags.get("DATA_UNITS") or ""
    return Header(Path(path), grid, dataset.nodata, dataset.block_shapes[0][0], stated.strip(), tags)


def header(path) -> Header:
    """Grid, nodata value and type of one raster."""
    with _open(path) as dataset:
        return _header(dataset, path)


def _aligned(file: Grid, target: Grid, path) -> tuple[int, int]:
    """Row and column of ``target``'s corner in ``file``; errors if the two do not share one lattice."""
    if file.crs != target.crs:
        raise ValueError(f"{path}: CRS {_name(file.crs)} differs from the stack's {_name(target.crs)}")
    pixel = (file.transform.a / target.transform.a, file.transform.e / target.transform.e)
    # a ratio this far from 1 moves the last pixel by 1 % of a pixel
    if max(abs(p - 1) for p in pixel) * max(file.width, file.height) > 0.01:
        raise ValueError(
            f"{path}: pixel size {file.transform.a:.8g} x {-file.transform.e:.8g} differs from the stack's "
            f"{target.transform.a:.8g} x {-target.transform.e:.8g} (mixed grids)"
        )
    row, column = file.offset(target)
    if abs(row - round(row)) > 0.01 or abs(column - round(column)) > 0.01:
        raise ValueError(
            f"{path}: grid is shifted by a fraction of a pixel ({row:.3f} rows, {column:.3f} columns) "
            "from the stack's (mixed grids)"
        )
    return round(row), round(column)


def place_in(file: Grid, target: Grid, path, *, clip: bool) -> tuple[rasterio.windows.Window, int, int]:
    """What of ``file`` lies in ``target``, and at which row and column; grids that do not fit are an error.

    Layers of real products differ by a row or a column: what one lacks at an edge is no data there. With ``clip``
    the file may be larger by any number.
    """
    row, column = _aligned(file, target, path)
    beyond = (row, column, file.height - row - target.height, file.width - column - target.width)
    if min(beyond) < -1 or (max(beyond) > 1 and not clip):
        raise ValueError(
            f"{path}: has {file.height} x {file.width} pixels, its corner {-row} rows and {-column} columns from "
            f"the stack's, which has {target.height} x {target.width} (mixed grids)"
        )
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + target.height, file.height), min(column + target.width, file.width)
    return rasterio.windows.Window(left, top, right - left, bottom - top), top - row, left - column


def read_part(path, grid: Grid, *, clip: bool, rows=None, as_float=False) -> tuple[np.ndarray, Header]:
    """Rows of one raster on ``grid``; cells outside the file are NaN, or 0 in a layer of integers."""
    start, stop = rows or (0, grid.height)
    with _open(path) as dataset:
        head = _header(dataset, path)
        window, top, left = place_in(head.grid, grid, path, clip=clip)
        first, last = max(start, top), max(min(stop, top + window.height), max(start, top))
        window = rasterio.windows.Window(
            window.col_off, window.row_off + first - top, window.width, last - first
        )
        values = _values(dataset, head, window) if last > first else np.zeros((0, window.width), "f4")
    if as_float:
        values = values.astype(float)
    around = ((first - start, stop - last), (left, grid.width - left - window.width))
    if np.any(around):
        values = np.pad(values, around, constant_values=np.nan if values.dtype.kind == "f" else 0)
    return values, head


def fault_of(path: Path, grid: Grid | None, *, clip: bool = False) -> str | None:
    """What is wrong with a file, found from its header and its last row; None where nothing is."""
    if not path.exists():
        return f"{path}: missing; download it"
    if not path.is_file():
        return f"{path}: is no regular file"
    if path.stat().st_size == 0:
        return f"{path}: is empty (0 bytes)"
    try:
        with _open(path) as dataset:
            head = _header(dataset, path)
            if grid is not None:
                place_in(head.grid, grid, path, clip=clip)
            _values(dataset, head, rasterio.windows.Window(0, dataset.height - 1, dataset.width, 1))
    except ValueError as error:
        return str(error)
    return None


def whole_pairs(pairs: list[tuple], incomplete: str, *, one_grid: bool = True) -> tuple[list[int], Grid]:
    """Positions of the pairs whose files are all there, whole and on one grid, and that grid.

    Parameters
    ----------
    pairs : list of tuples of paths
        The phase file of each pair, then its other layers.
    incomplete : {"error", "skip"}
        What to do with a pair that has a file missing, empty, unreadable or on another grid: all are listed.
    one_grid : bool
        True: the grid that most phase files share. False: the common overlap of the phase files.
    """
    if incomplete not in ("error", "skip"):
        raise ValueError(f"incomplete={incomplete!r}: choose 'error' or 'skip'")
    grid = None
    if one_grid:
        grids = Counter(header(p[0]).grid for p in pairs if fault_of(p[0], None) is None)
        grid = grids.most_common(1)[0][0] if grids else None
    faults = [[f for f in (fault_of(path, grid) for path in files) if f] for files in pairs]
    told = [fault for some in faults for fault in some]
    kept = [k for k, some in enumerate(faults) if not some]
    if told and (incomplete == "error" or not kept):
        kind = FileNotFoundError if all(f.endswith(": missing; download it") for f in told) else ValueError
        raise kind(
            "; ".join(told)
            + f" ({len(pairs) - len(kept)} of {len(pairs)} pairs): get these files anew, or pass "
            "incomplete='skip' (in a site file `incomplete: skip`) to leave such pairs out"
        )
    if told:
        log.warning("%d of %d pairs are left out: %s", len(pairs) - len(kept), len(pairs), "; ".join(told))
    return kept, grid or common_overlap([header(pairs[k][0]) for k in kept])


def _name(crs) -> str:
    return f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else crs.to_string()


def common_overlap(headers: list[Header]) -> Grid:
    """The largest grid inside every file; misaligned grids or no overlap are errors naming a file."""
    first = headers[0].grid
    top, left, bottom, right = 0, 0, first.height, first.width
    for h in headers[1:]:
        row, column = _aligned(first, h.grid, h.path)
        top, left = max(top, row), max(left, column)
        bottom, right = min(bottom, row + h.grid.height), min(right, column + h.grid.width)
        if bottom <= top or right <= left:
            raise ValueError(f"{h.path}: does not overlap the files before it")
    t = first.transform
    corner = type(t)(t.a, 0, t.c + left * t.a, 0, t.e, t.f + top * t.e)
    return Grid(first.crs, corner, right - left, bottom - top)


def read_layer(path, grid: Grid) -> np.ndarray:
    """One raster on ``grid`` as float64 with NaN for no data."""
    values, head = read_part(path, grid, clip=True, as_float=True)
    if head.nodata is not None:
        values[values == head.nodata] = np.nan
    return values


def _values(dataset, head: Header, window) -> np.ndarray:
    if np.dtype(dataset.dtypes[0]).kind not in "fiu":
        raise ValueError(f"{head.path}: values are {dataset.dtypes[0]}, expected real numbers")
    try:
        return dataset.read(1, window=window)
    except (rasterio.errors.RasterioError, MemoryError) as error:
        raise ValueError(f"{head.path}: values cannot be read (truncated file?): {error}") from None


def read_raster(path) -> xr.DataArray:
    """One raster on its own grid, dims (y, x), in the unit its declared scale and offset give, NaN for no data.

    A fill value that the file does not declare becomes NaN as well, with a warning (`_without_fills`).
    """
    with _open(path) as dataset:
        _header(dataset, path)
        if np.dtype(dataset.dtypes[0]).kind not in "fiu":
            raise ValueError(f"{path}: values are {dataset.dtypes[0]}, expected real numbers")
        scale, offset = dataset.scales[0], dataset.offsets[0]
        with damage_named(path):
            band = rioxarray.open_rasterio(dataset, masked=True).squeeze("band", drop=True).load()
    if not np.isfinite((scale, offset)).all() or scale == 0:
        raise ValueError(f"{path}: declares scale {scale} and offset {offset}; set them right (gdal_edit.py)")
    stored = _without_fills(band.values, path)
    if (scale, offset) == (1, 0):
        return band.copy(data=stored)
    attrs = {"scale_factor": 1.0, "add_offset": 0.0}
    return band.copy(
        data=stored * np.asarray(scale, stored.dtype) + np.asarray(offset, stored.dtype)
    ).assign_attrs(attrs)


def _without_fills(stored: np.ndarray, path) -> np.ndarray:
    """Stored values (y, x) of floats, NaN where they are a fill value that the file does not declare.

    Such are finite numbers beyond 1e30, and a mark of `_FILLS` that stands alone outside all other values: the gap
    to the nearest exceeds the mark's share of the range of the others, and 1.
    """
    fill = np.isfinite(stored) & (np.abs(stored) > 1e30)
    for mark, share in _FILLS.items():
        at = stored == mark
        others = stored[np.isfinite(stored) & ~fill & ~at]
        if at.any() and others.size:
            gap = others.min() - mark if mark < 0 else mark - others.max()
            fill |= at & (gap > max(share * np.ptp(others), 1))
    if not fill.any():
        return stored
    marks = ", ".join(f"{v:g}" for v in np.unique(stored[fill])[:3])
    log.warning("%s: %d cells of %s taken as no data; declare it in the file", path, fill.sum(), marks)
    return np.where(fill, np.asarray(np.nan, stored.dtype), stored)


def _coherence(values: np.ndarray, head: Header) -> np.ndarray:
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if values.dtype.kind != "f":
        raise ValueError(f"{head.path}: coherence is {values.dtype}; expected bytes 0-255 or floats 0-1")
    values = values.astype(np.float32)
    if head.nodata is not None and not np.isnan(head.nodata):
        values[values == np.float32(head.nodata)] = 0
    values[~np.isfinite(values)] = 0
    check_coherence(values, head.path)
    return np.clip(values, 0, 1)


def _phase(values: np.ndarray, head: Header) -> np.ndarray:
    if values.dtype.kind != "f":
        raise ValueError(f"{head.path}: unwrapped phase is {values.dtype}, expected floating point radians")
    values = values.astype(np.float32)
    if head.nodata not in (None, 0) and not np.isnan(head.nodata):
        values[values == np.float32(head.nodata)] = np.nan
    return values


@dataclasses.dataclass(frozen=True)
class PairFiles:
    """Phase, coherence and component files of the pairs of one stack, on one grid."""

    phase: tuple
    coherence: tuple | None
    component: tuple | None
    grid: Grid
    clip: bool = False
    sign: float = 1.0
    zero: str = "nodata"
    reference: tuple | None = None
    units: tuple = RADIANS

    @property
    def layers(self) -> dict:
        """The files of each layer there is."""
        every = {"phase": self.phase, "coherence": self.coherence, "component": self.component}
        return {name: files for name, files in every.items() if files is not None}

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Values of rows start..stop: float32 (layer, pair, row, x), layers phase, coherence, component."""
        as_stored = {"phase": _phase, "coherence": _coherence, "component": lambda values, head: values}
        out = np.empty((len(self.layers), len(self.phase), stop - start, self.grid.width), np.float32)
        for layer, (name, files) in enumerate(self.layers.items()):
            for k, path in enumerate(files):
                out[layer, k] = as_stored[name](
                    *read_part(path, self.grid, clip=self.clip, rows=(start, stop))
                )
        at = within_rows(self.reference, start, stop)
        finish_block(out, tuple(self.layers), self.phase[0].parent, zero=self.zero, reference=at)
        if self.sign != 1:
            out[0] *= self.sign
        return out

    def check(self):
        """Compare the header of every file with the grid and the unit with rad, reading no values."""
        for name, files in self.layers.items():
            for path in files:
                head = header(path)
                place_in(head.grid, self.grid, path, clip=self.clip)
                if name == "phase" and head.units.lower() not in self.units:
                    stated = f"data are in {head.units}" if head.units else "states no unit"
                    raise ValueError(
                        f"{path}: {stated}, expected {'unwrapped phase in radians' if '' in self.units else 'metres'} "
                        "(read_stack, read_geotiff_pairs: phase; read_displacement: metres)"
                    )

    def zero_share(self) -> float:
        """Share of exact zeros among the phases as stored, over at most five pairs."""
        files = [self.phase[k] for k in sampled(len(self.phase))]
        return float(np.mean([np.mean(read_part(p, self.grid, clip=self.clip)[0] == 0) for p in files]))

    def read(self, *, lazy: bool | None = None, block_mb: float = 128) -> dict:
        """Layers ``phase``, ``coherence``, ``component`` (pair, y, x): numpy when small, else dask by rows.

        Parameters
        ----------
        lazy : bool, optional
            True: dask; False: numpy; None: numpy below 512 MiB.
        block_mb : float
            Size of a dask block (all pairs x some rows) in MiB.
        """
        layers, n, grid = len(self.layers), len(self.phase), self.grid
        if lazy is None:
            lazy = 4 * layers * n * grid.height * grid.width > EAGER_MB * 2**20
        self.check()
        if lazy:
            rows = strip_rows(
                n, grid.width, grid.height, layers, block_mb, min(header(self.phase[0]).block_rows, 64)
            )
            files = [p for some in self.layers.values() for p in some]
            stamps = [(str(p), Path(p).stat().st_mtime_ns) for p in files]
            token = tokenize(stamps, self.sign, self.clip, self.zero, tuple(grid.transform), grid.y.size)
            data = delayed_strips(self, layers, n, grid.height, grid.width, rows, token)
        else:
            data = self(0, grid.height)
        return as_layers(data, tuple(self.layers))
