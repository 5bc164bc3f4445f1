"""Many small GeoTIFFs as one array: headers checked for every file, values read by rows."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import rasterio
import rasterio.errors
import rasterio.windows
import rioxarray
import xarray as xr
from dask.base import tokenize

from readers.damage import damage_named, regular_file
from readers.stack import Grid, apply_zero_rule, delayed_strips, strip_rows

EAGER_MB = 512  # a stack below this is read at once into memory


@dataclasses.dataclass(frozen=True)
class Header:
    """What has to agree between the files of one stack."""

    path: Path
    grid: Grid
    nodata: float | None
    dtype: str
    block_rows: int
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
        raise ValueError(f"{path}: has {dataset.count} bands, expected one")
    if dataset.crs is None:
        raise ValueError(f"{path}: has no coordinate reference system: geocode it (or the file is truncated)")
    t = dataset.transform
    if not np.isfinite(tuple(t)).all():
        raise ValueError(f"{path}: the grid's transform {tuple(t)[:6]} is not finite")
    if t.b or t.d or t.e >= 0 or t.a <= 0:
        raise ValueError(f"{path}: grid is rotated or not north-up (transform {tuple(t)[:6]})")
    grid = Grid(dataset.crs, t, dataset.width, dataset.height)
    return Header(
        Path(path), grid, dataset.nodata, dataset.dtypes[0], dataset.block_shapes[0][0], dataset.tags()
    )


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


def window_in(file: Grid, target: Grid, path, *, clip: bool) -> rasterio.windows.Window:
    """Where ``target`` lies in ``file``; grids that do not fit are an error naming the file.

    Parameters
    ----------
    clip : bool
        False: the file must have exactly the target's extent. True: it may be larger.
    """
    row, column = _aligned(file, target, path)
    same = row == column == 0 and (file.width, file.height) == (target.width, target.height)
    inside = (
        min(row, column) >= 0 and row + target.height <= file.height and column + target.width <= file.width
    )
    if not inside or not (clip or same):
        raise ValueError(
            f"{path}: has {file.height} x {file.width} pixels, its corner {-row} rows and {-column} columns from "
            f"the stack's, which has {target.height} x {target.width} (mixed grids)"
        )
    return rasterio.windows.Window(column, row, target.width, target.height)


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


def read_layer(path, grid: Grid, *, clip=True, zero_is_nodata=False) -> np.ndarray:
    """One raster on ``grid`` as float64 with NaN for no data."""
    with _open(path) as dataset:
        head = _header(dataset, path)
        values = _values(dataset, head, window_in(head.grid, grid, path, clip=clip)).astype(float)
    if head.nodata is not None:
        values[values == head.nodata] = np.nan
    if zero_is_nodata:
        values[values == 0] = np.nan
    return values


def _values(dataset, head: Header, window) -> np.ndarray:
    if np.dtype(dataset.dtypes[0]).kind not in "fiu":
        raise ValueError(f"{head.path}: values are {dataset.dtypes[0]}, expected real numbers")
    try:
        return dataset.read(1, window=window)
    except (rasterio.errors.RasterioError, MemoryError) as error:
        raise ValueError(f"{head.path}: values cannot be read (truncated file?): {error}") from None


def read_raster(path) -> xr.DataArray:
    """One raster on its own grid, dims (y, x), NaN for no data."""
    with _open(path) as dataset:
        _header(dataset, path)
        if np.dtype(dataset.dtypes[0]).kind not in "fiu":
            raise ValueError(f"{path}: values are {dataset.dtypes[0]}, expected real numbers")
        with damage_named(path):
            return rioxarray.open_rasterio(dataset, masked=True).squeeze("band", drop=True).load()


def _coherence(values: np.ndarray, head: Header) -> np.ndarray:
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if values.dtype.kind != "f":
        raise ValueError(f"{head.path}: coherence is {values.dtype}; expected bytes 0-255 or floats 0-1")
    values = values.astype(np.float32)
    if head.nodata is not None and not np.isnan(head.nodata):
        values[values == np.float32(head.nodata)] = 0
    values[~np.isfinite(values)] = 0
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low < -1e-4 or high > 1 + 1e-3:
        raise ValueError(f"{head.path}: coherence runs from {low:.3g} to {high:.3g}, expected 0-1")
    return np.clip(values, 0, 1)


def _phase(values: np.ndarray, head: Header) -> np.ndarray:
    if values.dtype.kind != "f":
        raise ValueError(f"{head.path}: unwrapped phase is {values.dtype}, expected floating point radians")
    units = head.tags.get("DATA_UNITS", "RADIANS").upper()
    if units not in ("RADIANS", "RADIAN", "RAD"):
        raise ValueError(f"{head.path}: data are in {units}, expected unwrapped phase in radians")
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

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Values of rows start..stop: float32 (layer, pair, row, x), layers phase, coherence, component."""
        layers = 1 + (self.coherence is not None) + (self.component is not None)
        out = np.empty((layers, len(self.phase), stop - start, self.grid.width), np.float32)
        for k, path in enumerate(self.phase):
            values, head = self._read(path, start, stop)
            out[0, k] = _phase(values, head)
            coherence = component = None
            if self.coherence is not None:
                coherence = out[1, k]
                coherence[:] = _coherence(*self._read(self.coherence[k], start, stop))
            if self.component is not None:
                component = out[-1, k]
                component[:] = self._read(self.component[k], start, stop)[0]
                component[~np.isfinite(component)] = 0
            apply_zero_rule(out[0, k], coherence, component, head.nodata == 0)
        if self.sign != 1:
            out[0] *= self.sign
        return out

    def _read(self, path, start, stop):
        with _open(path) as dataset:
            head = _header(dataset, path)
            window = window_in(head.grid, self.grid, path, clip=self.clip)
            rows = rasterio.windows.Window(window.col_off, window.row_off + start, window.width, stop - start)
            return _values(dataset, head, rows), head

    def _all(self):
        return [*self.phase, *(self.coherence or ()), *(self.component or ())]

    def check(self):
        """Compare the header of every file with the grid, reading no values."""
        for path in self._all():
            window_in(header(path).grid, self.grid, path, clip=self.clip)

    def read(self, *, lazy: bool | None = None, block_mb: float = 128):
        """Phase, coherence, component as arrays (pair, y, x): numpy when small, else dask by rows.

        Parameters
        ----------
        lazy : bool, optional
            True: dask; False: numpy; None: numpy below 512 MiB.
        block_mb : float
            Size of a dask block (all pairs x some rows) in MiB.
        """
        layers = 1 + (self.coherence is not None) + (self.component is not None)
        n, grid = len(self.phase), self.grid
        if lazy is None:
            lazy = 4 * layers * n * grid.height * grid.width > EAGER_MB * 2**20
        self.check()
        if lazy:
            rows = strip_rows(
                n, grid.width, grid.height, layers, block_mb, min(header(self.phase[0]).block_rows, 64)
            )
            stamps = [(str(p), Path(p).stat().st_mtime_ns) for p in self._all()]
            token = tokenize(stamps, self.sign, self.clip, grid.transform, grid.width, grid.height)
            data = delayed_strips(self, layers, n, grid.height, grid.width, rows, token)
        else:
            data = self(0, grid.height)
        coherence = data[1] if self.coherence is not None else None
        component = data[-1].astype(np.int16) if self.component is not None else None
        return data[0], coherence, component
