"""MintPy's HDF5 files: reading ifgramStack.h5, writing stacks and time series its commands read."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import pandas as pd
import rasterio.crs
import xarray as xr
from dask.base import tokenize
from rasterio.transform import from_origin

from readers.damage import damage_named, regular_file
from readers.stack import (
    Grid,
    apply_zero_rule,
    assemble,
    delayed_strips,
    geometry_from_los,
    los_from_angles,
    order_pairs,
    parse_dates,
    strip_rows,
)

log = logging.getLogger(__name__)

_GEOMETRY = "geometryGeo.h5"


@contextlib.contextmanager
def _open(path):
    # h5py meets damage anywhere in a file, and raises OSError, KeyError, RuntimeError, TypeError or UnicodeDecodeError
    with damage_named(path), h5py.File(regular_file(path), "r") as handle:
        yield handle


def _has(handle, name: str) -> bool:
    return name in handle and isinstance(handle[name], h5py.Dataset)


def _attributes(handle) -> dict:
    return {k: v.decode() if isinstance(v, bytes) else str(v) for k, v in handle.attrs.items()}


def _need(attrs: dict, key: str, path) -> float:
    if key not in attrs:
        raise ValueError(f"{path}: attribute {key} is missing")
    try:
        return float(attrs[key])
    except ValueError:
        raise ValueError(f"{path}: attribute {key}={attrs[key]!r} is not a number") from None


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """Reads rows of chosen pairs; keeps only the path, so that any worker can open the file itself."""

    path: Path
    phase: str
    pairs: tuple
    coherence: bool
    component: bool
    zero_is_nodata: bool

    def __call__(self, start: int, stop: int) -> np.ndarray:
        with _open(self.path) as handle:
            names = [self.phase, *(["coherence"] * self.coherence), *(["connectComponent"] * self.component)]
            pairs = np.array(self.pairs)
            out = np.empty((len(names), pairs.size, stop - start, handle[self.phase].shape[2]), np.float32)
            ordered = np.sort(pairs)  # HDF5 reads increasing indices only
            back = np.searchsorted(ordered, pairs)
            for layer, name in enumerate(names):
                try:
                    values = handle[name][ordered, start:stop, :]
                except OSError as error:
                    raise ValueError(f"{self.path}: {name} cannot be read (truncated?): {error}") from None
                out[layer] = values[back]
        coherence = component = None
        if self.coherence:
            coherence = out[1]
            coherence[~np.isfinite(coherence)] = 0
            if coherence.size and (coherence.min() < -1e-4 or coherence.max() > 1.001):
                raise ValueError(
                    f"{self.path}: coherence runs from {coherence.min():.3g} to {coherence.max():.3g}, expected 0-1"
                )
        if self.component:
            component = out[-1]
        apply_zero_rule(out[0], coherence, component, self.zero_is_nodata)
        return out


def read_ifgram_stack(
    path, *, geometry=None, phase_name: str = "unwrapPhase", sensor=None, lazy=None, block_mb: float = 128
):
    """Read MintPy's ifgramStack.h5 as an interferogram stack.

    Pairs with ``dropIfgram`` False are not read. Geometry is taken from geometryGeo.h5 beside the stack.

    Parameters
    ----------
    path : path
    geometry : path, optional
        Another geometry file.
    phase_name : str
        Dataset to read, e.g. ``unwrapPhase_bridging_phaseClosure``.
    sensor : str, optional
        Default: attribute PLATFORM.
    lazy, block_mb
        As in `readers.rasters.PairFiles.read`.

    Returns
    -------
    Dataset with dims (pair, y, x)
    """
    path = Path(path)
    with _open(path) as handle:
        attrs = _attributes(handle)
        kind = attrs.get("FILE_TYPE", "ifgramStack")
        if kind != "ifgramStack":
            raise ValueError(f"{path}: FILE_TYPE is {kind}, expected ifgramStack")
        for name in ("date", phase_name):
            if not _has(handle, name):
                raise ValueError(f"{path}: dataset {name} is missing; it holds {', '.join(sorted(handle))}")
        units = attrs.get("UNIT", "radian").lower()
        if units not in ("radian", "radians", "rad"):
            raise ValueError(f"{path}: UNIT is {units}, expected radian")
        shape = handle[phase_name].shape
        if len(shape) != 3 or 0 in shape:
            raise ValueError(f"{path}: {phase_name} has shape {shape}, expected (pair, row, column)")
        if handle["date"].shape != (shape[0], 2):
            raise ValueError(f"{path}: date has shape {handle['date'].shape} for {shape[0]} interferograms")
        date = handle["date"][:]
        # sizes are compared before values are read: a damaged header may claim any size
        for name in ("dropIfgram", "bperp"):
            if _has(handle, name) and handle[name].shape != shape[:1]:
                raise ValueError(
                    f"{path}: {name} has shape {handle[name].shape} for {shape[0]} interferograms"
                )
        keep = handle["dropIfgram"][:].astype(bool) if _has(handle, "dropIfgram") else np.ones(shape[0], bool)
        bperp = handle["bperp"][:].astype(float) if _has(handle, "bperp") else None
        layers = {name: _has(handle, name) for name in ("coherence", "connectComponent")}
        for name, there in layers.items():
            if there and handle[name].shape != shape:
                raise ValueError(f"{path}: {name} has shape {handle[name].shape}, {phase_name} {shape}")
    index = np.flatnonzero(keep)
    if index.size == 0:
        raise ValueError(f"{path}: dropIfgram is False for every interferogram (True means keep)")
    if index.size < shape[0]:
        log.info(
            "%s: %d of %d interferograms are marked dropped and not read",
            path,
            shape[0] - index.size,
            shape[0],
        )
    reference, secondary = parse_dates(date[index, 0], path), parse_dates(date[index, 1], path)
    order = order_pairs(reference, secondary, path)
    index, reference, secondary = index[order], reference[order], secondary[order]

    grid = _grid(attrs, shape, path)
    nodata = attrs.get("NO_DATA_VALUE", "0")
    read = _Blocks(
        path,
        phase_name,
        tuple(index.tolist()),
        layers["coherence"],
        layers["connectComponent"],
        _is_zero(nodata),
    )
    n_layers = 1 + sum(layers.values())
    if lazy is None:
        lazy = 4 * n_layers * index.size * shape[1] * shape[2] > 512 * 2**20
    if lazy:
        rows = strip_rows(index.size, shape[2], shape[1], n_layers, block_mb)
        token = tokenize(str(path), path.stat().st_mtime_ns, read.pairs, phase_name)
        data = delayed_strips(read, n_layers, index.size, shape[1], shape[2], rows, token)
    else:
        data = read(0, shape[1])
    where = geometry or path.with_name(_GEOMETRY)
    layers_yx = _read_geometry(Path(where), grid) if geometry or Path(where).exists() else {}
    if not layers_yx:
        log.warning("%s: no %s beside it: the stack has no look vector", path, _GEOMETRY)
    return assemble(
        data[0],
        reference,
        secondary,
        grid,
        source=str(path),
        wavelength_m=_need(attrs, "WAVELENGTH", path),
        coherence=data[1] if layers["coherence"] else None,
        component=data[-1].astype(np.int16) if layers["connectComponent"] else None,
        perpendicular_baseline=None if bperp is None else bperp[index],
        slant_range_m=layers_yx.pop("slant_range_m", None),
        geometry=layers_yx,
        sensor=sensor or attrs.get("PLATFORM"),
        processor=attrs.get("PROCESSOR"),
        heading_deg=_need(attrs, "HEADING", path) if "HEADING" in attrs else None,
        orbit_direction=_direction(attrs),
        antenna_side={"-1": "right", "1": "left"}.get(attrs.get("ANTENNA_SIDE")),
        looks=_looks(attrs, path),
    )


def _direction(attrs) -> str | None:
    word = attrs.get("ORBIT_DIRECTION", "").lower()
    return next((name for name in ("ascending", "descending") if word and name.startswith(word[:3])), None)


def _is_zero(nodata: str) -> bool:
    try:
        return float(nodata) == 0
    except ValueError:  # "none"
        return False


def _looks(attrs, path) -> float | None:
    if "NCORRLOOKS" in attrs:
        return _need(attrs, "NCORRLOOKS", path)
    if {"ALOOKS", "RLOOKS"} <= set(attrs):
        return _need(attrs, "ALOOKS", path) * _need(attrs, "RLOOKS", path) / 1.94
    return None


def _grid(attrs, shape, path) -> Grid:
    if "X_FIRST" not in attrs or "Y_FIRST" not in attrs:
        raise ValueError(f"{path}: no X_FIRST, Y_FIRST: the stack is in radar coordinates; geocode it first")
    # X_FIRST, Y_FIRST are the outer corner of the first pixel
    step_x, step_y = _need(attrs, "X_STEP", path), _need(attrs, "Y_STEP", path)
    if step_x <= 0 or step_y >= 0:
        raise ValueError(
            f"{path}: X_STEP {step_x}, Y_STEP {step_y}: expected a north-up grid (Y_STEP negative)"
        )
    for key, size in (("LENGTH", shape[1]), ("WIDTH", shape[2])):
        if key in attrs and _need(attrs, key, path) != size:
            raise ValueError(f"{path}: attribute {key}={attrs[key]} but the data have {size}")
    corner = from_origin(_need(attrs, "X_FIRST", path), _need(attrs, "Y_FIRST", path), step_x, -step_y)
    if not np.isfinite(tuple(corner)).all():
        raise ValueError(f"{path}: the grid's corner or step is not finite: {tuple(corner)[:6]}")
    with damage_named(path, "EPSG or UTM_ZONE must name a projection"):
        return Grid(_crs(attrs, path), corner, shape[2], shape[1])


def _crs(attrs, path) -> rasterio.crs.CRS:
    if "EPSG" in attrs:
        return rasterio.crs.CRS.from_epsg(int(float(attrs["EPSG"])))
    if "UTM_ZONE" in attrs:
        zone = attrs["UTM_ZONE"].strip().upper()
        return rasterio.crs.CRS.from_epsg((32700 if zone.endswith("S") else 32600) + int(zone.rstrip("NS")))
    if attrs.get("X_UNIT", "degrees").lower().startswith("deg"):
        return rasterio.crs.CRS.from_epsg(4326)
    raise ValueError(
        f"{path}: X_UNIT is {attrs['X_UNIT']} but neither EPSG nor UTM_ZONE names the projection"
    )


def _read_geometry(path: Path, grid: Grid) -> dict:
    with _open(path) as handle:
        attrs = _attributes(handle)
        names = ("height", "incidenceAngle", "azimuthAngle", "slantRangeDistance")
        names = [name for name in names if _has(handle, name)]
        for name in names:
            if handle[name].shape != (grid.height, grid.width):
                raise ValueError(
                    f"{path}: {name} has shape {handle[name].shape}, the stack {(grid.height, grid.width)}"
                )
        layers = {name: handle[name][:] for name in names}
    if "X_FIRST" in attrs:
        theirs = _grid(attrs, (0, grid.height, grid.width), path)
        row, column = grid.offset(theirs)
        if max(abs(row), abs(column)) > 0.01 or theirs.crs != grid.crs:
            raise ValueError(
                f"{path}: lies {row:.2f} rows and {column:.2f} columns off the stack (mixed grids)"
            )
    out = {"height": layers.get("height")}
    if "slantRangeDistance" in layers:
        seen = layers["slantRangeDistance"][layers["slantRangeDistance"] > 0]
        out["slant_range_m"] = float(np.median(seen)) if seen.size else None
    if "incidenceAngle" in layers:
        incidence = layers["incidenceAngle"].astype(float)
        empty = ~np.isfinite(incidence) | (incidence == 0)
        out["incidence_angle"] = np.where(empty, np.nan, incidence)
        if "azimuthAngle" in layers:
            parts = los_from_angles(incidence, layers["azimuthAngle"].astype(float))
            out |= geometry_from_los(*(np.where(empty, 0, p) for p in parts), path)
    return out


# --- writing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _replacing(path):
    """An HDF5 file written beside ``path`` and renamed when complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        part = Path(temporary.name)
    try:
        with h5py.File(part, "w") as handle:
            yield handle
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _grid_attributes(data) -> dict:
    transform = data.rio.transform()
    crs = data.rio.crs
    if crs is None:
        raise ValueError("the data carry no CRS: write one with .rio.write_crs")
    out = {
        "WIDTH": data.sizes["x"],
        "LENGTH": data.sizes["y"],
        "X_FIRST": repr(float(transform.c)),
        "Y_FIRST": repr(float(transform.f)),
        "X_STEP": repr(float(transform.a)),
        "Y_STEP": repr(float(transform.e)),
        "X_UNIT": "degrees" if crs.is_geographic else "meters",
        "Y_UNIT": "degrees" if crs.is_geographic else "meters",
    }
    epsg = crs.to_epsg()
    if epsg:
        out["EPSG"] = epsg
        if 32601 <= epsg <= 32660 or 32701 <= epsg <= 32760:
            out["UTM_ZONE"] = f"{epsg % 100}{'N' if epsg < 32700 else 'S'}"
    return out


def _radar_attributes(data) -> dict:
    a = data.attrs
    if "wavelength_m" not in a:
        raise ValueError("attribute wavelength_m is missing: MintPy needs it")
    # geocoded files still carry ALOOKS and RLOOKS, which MintPy needs for its weights
    looks = float(a.get("looks", np.nan))
    out = {
        "WAVELENGTH": repr(float(a["wavelength_m"])),
        "PROCESSOR": str(a.get("processor", "unknown")),
        "PLATFORM": str(a.get("sensor", "unknown")),
        "ANTENNA_SIDE": 1 if a.get("antenna_side") == "left" else -1,
    }
    if np.isfinite(looks):
        out |= {"ALOOKS": 1, "RLOOKS": max(1, round(looks * 1.94)), "NCORRLOOKS": repr(looks)}
    if "heading_deg" in a:
        out["HEADING"] = repr(float(a["heading_deg"]))
    if "orbit_direction" in a:
        out["ORBIT_DIRECTION"] = a["orbit_direction"].upper()
    return out


def _reference_pixel(data, reference_pixel, zero) -> tuple[int, int]:
    """Row and column of the reference: given, from the attributes of `network.reference`, or the zero pixel."""
    if reference_pixel is None and {"reference_y", "reference_x"} <= set(data.attrs):
        reference_pixel = (
            int(np.argmin(np.abs(data["y"].values - data.attrs["reference_y"]))),
            int(np.argmin(np.abs(data["x"].values - data.attrs["reference_x"]))),
        )
    if reference_pixel is None:
        candidates = np.argwhere(zero)
        if len(candidates) == 0:
            raise ValueError(
                "no reference pixel: pass reference_pixel=(row, column), MintPy needs REF_Y and REF_X"
            )
        reference_pixel = tuple(int(v) for v in candidates[0])
    row, column = reference_pixel
    if not (0 <= row < data.sizes["y"] and 0 <= column < data.sizes["x"]):
        raise ValueError(f"reference pixel {row, column} is outside {data.sizes['y']} x {data.sizes['x']}")
    return row, column


def _reference_attributes(data, row, column) -> dict:
    out = {"REF_Y": row, "REF_X": column}
    if data.rio.crs.is_geographic:
        out |= {"REF_LAT": repr(float(data["y"][row])), "REF_LON": repr(float(data["x"][column]))}
    return out


def _write_attributes(handle, attrs: dict):
    for key, value in attrs.items():
        handle.attrs[key] = str(value)  # MintPy stores every attribute as text


def _date_text(values) -> np.ndarray:
    return np.array([d.strftime("%Y%m%d") for d in pd.DatetimeIndex(np.ravel(values))], "S8")


def write_mintpy_timeseries(
    series: xr.Dataset,
    path: str | Path,
    *,
    reference_pixel: tuple[int, int] | None = None,
    partial: str = "drop",
) -> None:
    """Write displacement as MintPy's timeseries.h5.

    MintPy knows 0 as no data and fails on a single NaN, so missing values become 0. A pixel that misses
    some dates would turn these zeros into motion: it is dropped whole unless ``partial="zero"``.

    Parameters
    ----------
    series : Dataset
        From `helpers.sbas.invert`: ``displacement`` (time, y, x) in mm, positive toward the satellite,
        attribute ``wavelength_m``.
    path : path
        Written beside, then renamed.
    reference_pixel : (row, column), optional
        Written as REF_Y, REF_X; default from the attributes ``reference_y`` and ``reference_x``, else the
        first pixel that is 0 at every date.
    partial : {"drop", "zero"}
        Pixels with some missing dates.
    """
    if partial not in ("drop", "zero"):
        raise ValueError(f"partial={partial!r}: choose 'drop' or 'zero'")
    displacement = series["displacement"].transpose("time", "y", "x")
    units = displacement.attrs.get("units", "mm")
    if units != "mm":
        raise ValueError(f"displacement is in {units!r}, expected mm")
    meters = np.asarray(displacement.values, np.float64) / 1000
    missing = ~np.isfinite(meters)
    partly = missing.any(axis=0) & ~missing.all(axis=0)
    if partly.any():
        log.info(
            "%s: %d pixels miss some dates: %s",
            path,
            partly.sum(),
            "dropped" if partial == "drop" else "zeroed",
        )
    if partial == "drop":
        missing |= partly
    meters[missing] = 0
    zero = (meters == 0).all(axis=0) & ~missing.any(axis=0)
    row, column = _reference_pixel(series, reference_pixel, zero)
    date = _date_text(series["time"].values)
    if "perpendicular_baseline" in series.coords and series["perpendicular_baseline"].dims == ("time",):
        bperp = series["perpendicular_baseline"].values
    else:
        bperp = np.zeros(date.size)
    attrs = {
        "FILE_TYPE": "timeseries",
        "UNIT": "m",
        "NO_DATA_VALUE": 0,
        "REF_DATE": date[0].decode(),
        "START_DATE": date[0].decode(),
        "END_DATE": date[-1].decode(),
    }
    attrs |= (
        _grid_attributes(displacement)
        | _radar_attributes(series)
        | _reference_attributes(series, row, column)
    )
    with _replacing(path) as handle:
        handle["timeseries"] = (meters - meters[:1]).astype(np.float32)
        handle["date"] = date
        handle["bperp"] = bperp.astype(np.float32)
        _write_attributes(handle, attrs)


def write_mintpy_stack(stack, path, *, reference_pixel=None):
    """Write an interferogram stack as MintPy's ifgramStack.h5, with geometryGeo.h5 beside it.

    NaN becomes 0 in phase and coherence, MintPy's no data.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x), the data model of this project.
    path : path
    reference_pixel : (row, column), optional
        Written as REF_Y, REF_X; `ifgram_inversion` asks for it. Default as in `write_mintpy_timeseries`.
    """
    path = Path(path)
    phase = stack["unwrapped_phase"].transpose("pair", "y", "x")
    values = phase.data if isinstance(phase.data, da.Array) else np.asarray(phase.values)
    date = np.stack([_date_text(stack[name].values) for name in ("reference", "secondary")], axis=1)
    attrs = {
        "FILE_TYPE": "ifgramStack",
        "UNIT": "radian",
        "NO_DATA_VALUE": 0,
        "START_DATE": min(date[:, 0]).decode(),
        "END_DATE": max(date[:, 1]).decode(),
    }
    attrs |= _grid_attributes(phase) | _radar_attributes(stack)
    try:
        zero = np.asarray(((phase == 0) | phase.isnull()).all("pair") & phase.notnull().any("pair"))
        attrs |= _reference_attributes(stack, *_reference_pixel(stack, reference_pixel, zero))
    except ValueError:
        if reference_pixel is not None:
            raise
        log.info("%s: written without REF_Y, REF_X: run MintPy's reference_point first", path)
    with _replacing(path) as handle:
        _put(handle, "unwrapPhase", np.where(np.isfinite(values), values, 0), np.float32)
        if "coherence" in stack:
            coherence = stack["coherence"].transpose("pair", "y", "x").data
            _put(handle, "coherence", np.where(np.isfinite(coherence), coherence, 0), np.float32)
        if "component" in stack:
            _put(handle, "connectComponent", stack["component"].transpose("pair", "y", "x").data, np.int16)
        handle["date"] = date
        handle["bperp"] = np.nan_to_num(stack["perpendicular_baseline"].values).astype(np.float32)
        handle["dropIfgram"] = np.ones(stack.sizes["pair"], bool)  # True means keep
        _write_attributes(handle, attrs)
    if "incidence_angle" in stack:
        _write_geometry(stack, path.with_name(_GEOMETRY), attrs)


def _put(handle, name, values, dtype):
    target = handle.create_dataset(
        name, values.shape, dtype, chunks=True, compression="gzip", compression_opts=1, shuffle=True
    )
    if isinstance(values, da.Array):
        da.store(values.astype(dtype), target, lock=True)
    else:
        target[:] = values.astype(dtype)


def _write_geometry(stack, path, attrs):
    with _replacing(path) as handle:
        handle["incidenceAngle"] = np.nan_to_num(stack["incidence_angle"].values).astype(np.float32)
        if "los_east" in stack:
            # MintPy's azimuth: from north, anticlockwise, of the direction ground to satellite
            azimuth = np.degrees(np.arctan2(-stack["los_east"].values, stack["los_north"].values))
            handle["azimuthAngle"] = np.nan_to_num(azimuth).astype(np.float32)
        if "height" in stack:
            handle["height"] = np.nan_to_num(stack["height"].values).astype(np.float32)
        skip = ("REF_Y", "REF_X", "REF_LAT", "REF_LON", "UNIT")
        _write_attributes(
            handle, {k: v for k, v in attrs.items() if k not in skip} | {"FILE_TYPE": "geometry"}
        )
