"""MintPy's HDF5 files: reading ifgramStack.h5 and velocity.h5, writing stacks and series its commands read."""

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
    as_layers,
    assemble,
    delayed_strips,
    finish_block,
    geometry_from_los,
    los_from_angles,
    map_variables,
    order_pairs,
    parse_dates,
    sampled,
    strip_rows,
    with_grid_mapping,
    within_rows,
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
    datasets: dict
    pairs: tuple
    zero: str
    reference: tuple | None

    def __call__(self, start: int, stop: int) -> np.ndarray:
        with _open(self.path) as handle:
            pairs = np.array(self.pairs)
            width = handle[self.datasets["phase"]].shape[2]
            out = np.empty((len(self.datasets), pairs.size, stop - start, width), np.float32)
            ordered = np.sort(pairs)  # HDF5 reads increasing indices only
            back = np.searchsorted(ordered, pairs)
            for layer, name in enumerate(self.datasets.values()):
                out[layer] = handle[name][ordered, start:stop, :][back]
        at = within_rows(self.reference, start, stop)
        finish_block(out, tuple(self.datasets), self.path, zero=self.zero, reference=at)
        return out

    def zero_share(self) -> float:
        """Share of exact zeros among the phases as stored, over at most five pairs."""
        with _open(self.path) as handle:
            stored = handle[self.datasets["phase"]]
            return float(np.mean([np.mean(stored[self.pairs[k]] == 0) for k in sampled(len(self.pairs))]))


def _survey(handle, phase_name: str, path) -> tuple[dict, dict]:
    """Datasets of each layer, and per pair ``date``, ``dropIfgram``, ``bperp``: sizes before any values.

    A damaged header may claim any size.
    """
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
    datasets = {"phase": phase_name, "coherence": "coherence", "component": "connectComponent"}
    datasets = {layer: name for layer, name in datasets.items() if _has(handle, name)}
    expected = dict.fromkeys(datasets.values(), shape)
    expected |= {"date": (shape[0], 2), "dropIfgram": shape[:1], "bperp": shape[:1]}
    for name, size in expected.items():
        if _has(handle, name) and handle[name].shape != size:
            raise ValueError(f"{path}: {name} has shape {handle[name].shape}, {phase_name} {shape}")
    per_pair = {name: handle[name][:] for name in ("date", "dropIfgram", "bperp") if _has(handle, name)}
    return datasets, per_pair


def read_ifgram_stack(
    path,
    *,
    geometry=None,
    phase_name: str = "unwrapPhase",
    sensor=None,
    zero="nodata",
    lazy=None,
    block_mb=128,
):
    """Read MintPy's ifgramStack.h5 as an interferogram stack.

    Pairs with ``dropIfgram`` False are not read. Geometry is taken from geometryGeo.h5 beside the stack. The
    pixel that REF_Y and REF_X declare becomes attributes ``declared_reference_y`` and ``_x``.

    Parameters
    ----------
    geometry : path, optional
        Another geometry file.
    phase_name : str
        Dataset to read, e.g. ``unwrapPhase_bridging_phaseClosure``.
    sensor : str, optional
        Default: attribute PLATFORM.
    zero, lazy, block_mb
        As in `readers.stack.apply_zero_rule` and `readers.rasters.PairFiles.read`.
    """
    path = Path(path)
    with _open(path) as handle:
        attrs = _attributes(handle)
        datasets, per_pair = _survey(handle, phase_name, path)
        shape = handle[phase_name].shape
    index = np.flatnonzero(per_pair.get("dropIfgram", np.ones(shape[0], bool)))
    if index.size == 0:
        raise ValueError(f"{path}: dropIfgram is False for every interferogram (True means keep)")
    if index.size < shape[0]:
        log.info("%s: %d of %d interferograms are marked dropped", path, shape[0] - index.size, shape[0])
    reference, secondary = (parse_dates(per_pair["date"][index, k], path) for k in (0, 1))
    order = order_pairs(reference, secondary, path)
    index, reference, secondary = index[order], reference[order], secondary[order]

    grid = _grid(attrs, shape, path)
    at = _declared_reference(attrs, grid, path)
    read = _Blocks(path, datasets, tuple(index.tolist()), zero, at)
    if lazy is None:
        lazy = 4 * len(datasets) * index.size * shape[1] * shape[2] > 512 * 2**20
    if lazy:
        rows = strip_rows(index.size, shape[2], shape[1], len(datasets), block_mb)
        token = tokenize(str(path), path.stat().st_mtime_ns, read.pairs, phase_name, zero)
        data = delayed_strips(read, len(datasets), index.size, shape[1], shape[2], rows, token)
    else:
        data = read(0, shape[1])
    where = Path(geometry or path.with_name(_GEOMETRY))
    layers_yx = _read_geometry(where, grid) if geometry or where.exists() else {}
    if not layers_yx:
        log.warning("%s: no %s beside it: the stack has no look vector", path, _GEOMETRY)
    bperp = per_pair["bperp"][index].astype(float) if "bperp" in per_pair else None
    return assemble(
        as_layers(data, tuple(datasets)),
        (reference, secondary, bperp),
        grid,
        source=str(path),
        wavelength_m=_need(attrs, "WAVELENGTH", path),
        slant_range_m=layers_yx.pop("slant_range_m", None),
        geometry=layers_yx,
        zero_share=read.zero_share(),
        **_sensor_attributes(attrs, grid, at, path) | ({"sensor": sensor} if sensor else {}),
    )


def _sensor_attributes(attrs: dict, grid: Grid, reference, path) -> dict:
    """What the file says of sensor, orbit, looks and reference, in the names of the data model."""
    out = {
        "sensor": attrs.get("PLATFORM"),
        "processor": attrs.get("PROCESSOR"),
        "heading_deg": _need(attrs, "HEADING", path) if "HEADING" in attrs else None,
        "orbit_direction": _direction(attrs),
        "antenna_side": {"-1": "right", "1": "left"}.get(attrs.get("ANTENNA_SIDE")),
        "looks": _looks(attrs, path),
    }
    if reference is not None:
        row, column = reference
        out |= {"declared_reference_y": float(grid.y[row]), "declared_reference_x": float(grid.x[column])}
    return out


def _declared_reference(attrs: dict, grid: Grid, path) -> tuple[int, int] | None:
    """Row and column that REF_Y and REF_X declare, None where they do not or name no pixel.

    Geocoding may move REF_Y and REF_X by one; REF_LAT and REF_LON then say which pixel it is.
    """
    if not {"REF_Y", "REF_X"} <= set(attrs):
        return None
    try:
        at = np.array([int(float(attrs[k])) for k in ("REF_Y", "REF_X")])
        if grid.crs.is_geographic and {"REF_LAT", "REF_LON"} <= set(attrs):
            t, lat, lon = grid.transform, float(attrs["REF_LAT"]), float(attrs["REF_LON"])
            named = np.floor([(lat - t.f) / t.e, (lon - t.c) / t.a]).astype(int)
            at = named if np.abs(named - at).max() <= 1 else at
        if (at >= 0).all() and at[0] < grid.height and at[1] < grid.width:
            return int(at[0]), int(at[1])
    except (ValueError, OverflowError):
        pass
    log.warning("%s: REF_Y=%s, REF_X=%s name no pixel", path, attrs["REF_Y"], attrs["REF_X"])
    return None


def read_rate(path: str | Path) -> xr.Dataset:
    """Read MintPy's velocity.h5 as a rate with its standard deviation.

    An exact 0 is no data but at the declared reference pixel, as in the stacks.

    ``velocity`` and ``velocityStd`` in m/year, positive toward the satellite, become ``rate`` and ``rate_std``
    (y, x) in mm/yr, with attributes ``rate_start`` and ``rate_end``; geometryGeo.h5 beside the file gives the
    look vector.
    """
    path = Path(path)
    with _open(path) as handle:
        attrs = _attributes(handle)
        if attrs.get("FILE_TYPE") != "velocity" or not _has(handle, "velocity"):
            raise ValueError(f"{path}: FILE_TYPE is {attrs.get('FILE_TYPE')}, expected velocity")
        names = [name for name in ("velocity", "velocityStd") if _has(handle, name)]
        for name in names:
            unit = _attributes(handle[name]).get("UNIT", attrs.get("UNIT"))
            if unit not in ("m/year", "m/yr"):
                raise ValueError(f"{path}: {name} is in {unit}, expected m/year")
        values = {name: handle[name][:].astype(float) * 1000 for name in names}  # m -> mm
    shape = values["velocity"].shape
    if len(shape) != 2 or any(v.shape != shape for v in values.values()):
        raise ValueError(f"{path}: velocity has shape {shape}, expected (row, column), velocityStd the same")
    grid = _grid(attrs, (1, *shape), path)
    reference = _declared_reference(attrs, grid, path)
    rate, std = values["velocity"], values.get("velocityStd", np.full(shape, np.nan))
    if "velocityStd" not in values:
        log.warning("%s: no velocityStd: rate_std is NaN", path)
    if (std < 0).any():
        raise ValueError(f"{path}: velocityStd is negative")
    apply_zero_rule(rate, reference=reference)
    std[np.isnan(rate)] = np.nan
    units = {"units": "mm yr-1", "positive_direction": "toward satellite"}
    out = {
        "rate": (("y", "x"), rate, units | {"long_name": "line-of-sight rate"}),
        "rate_std": (("y", "x"), std, {"units": "mm yr-1", "long_name": "standard deviation of the rate"}),
    }
    if (where := path.with_name(_GEOMETRY)).exists():
        out |= map_variables({n: v for n, v in _read_geometry(where, grid).items() if np.ndim(v) == 2})
    said = _sensor_attributes(attrs, grid, reference, path) | {
        "wavelength_m": _need(attrs, "WAVELENGTH", path)
    }
    for name, key in (("rate_start", "START_DATE"), ("rate_end", "END_DATE")):
        said[name] = str(parse_dates([attrs[key]], path)[0])[:10] if key in attrs else None
    said = {k: v for k, v in said.items() if v is not None}
    return with_grid_mapping(xr.Dataset(out, {"y": grid.y, "x": grid.x}, said).rio.write_crs(grid.crs))


def _direction(attrs) -> str | None:
    word = attrs.get("ORBIT_DIRECTION", "").lower()
    return next((name for name in ("ascending", "descending") if word and name.startswith(word[:3])), None)


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
    out = {"WIDTH": data.sizes["x"], "LENGTH": data.sizes["y"]}
    corner = {"X_FIRST": "c", "Y_FIRST": "f", "X_STEP": "a", "Y_STEP": "e"}
    out |= {key: repr(float(getattr(transform, part))) for key, part in corner.items()}
    out |= dict.fromkeys(("X_UNIT", "Y_UNIT"), "degrees" if crs.is_geographic else "meters")
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


def _reference_pixel(data, reference_pixel) -> tuple[int, int]:
    """Row and column of the reference: given, as `network.reference` chose it, or as the stack's file declares it."""
    for y, x in (("reference_y", "reference_x"), ("declared_reference_y", "declared_reference_x")):
        if reference_pixel is None and {y, x} <= set(data.attrs):
            away = [np.abs(data[d].values - data.attrs[k]) for d, k in (("x", x), ("y", y))]
            # a series cut to another place does not hold the pixel
            if all(a.min() <= abs(step) for a, step in zip(away, data.rio.resolution(), strict=True)):
                reference_pixel = int(away[1].argmin()), int(away[0].argmin())
    if reference_pixel is None:
        raise ValueError(
            "no reference pixel: pass reference_pixel=(row, column), or reference the stack by network.reference: "
            "MintPy needs REF_Y and REF_X"
        )
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
    """Write displacement as MintPy's timeseries.h5, and its sd beside it as timeseriesDecorStd.h5.

    MintPy knows 0 as no data and fails on a single NaN, so missing values become 0. A pixel that misses
    some dates would turn these zeros into motion: it is dropped whole unless ``partial="zero"``. Dates that
    hold only the prior or the model are left out; a dataset ``filled`` marks single values that do.

    Parameters
    ----------
    series : Dataset
        From `helpers.sbas.invert`: ``displacement`` (time, y, x) in mm, positive toward the satellite,
        attribute ``wavelength_m``; or from `helpers.merge.join`: ``displacement_up``, written without the
        header of a line of sight. ``<name>_std`` and ``filled``, and the coordinate ``observed``, if there.
    path : path
        Written beside, then renamed. The sd goes to the name with DecorStd after "timeseries" (or at its end).
    reference_pixel : (row, column), optional
        Written as REF_Y, REF_X; default from the attributes ``reference_y`` and ``reference_x``, else from
        ``declared_reference_y`` and ``declared_reference_x``.
    partial : {"drop", "zero"}
        Pixels with some missing dates.
    """
    if partial not in ("drop", "zero"):
        raise ValueError(f"partial={partial!r}: choose 'drop' or 'zero'")
    path = Path(path)
    name = "displacement_up" if "displacement_up" in series else "displacement"
    units = series[name].attrs.get("units", "mm")
    if units != "mm":
        raise ValueError(f"{name} is in {units!r}, expected mm")
    row, column = _reference_pixel(series, reference_pixel)
    vertical = name == "displacement_up" or series[name].attrs.get("long_name", "").endswith(" up")
    series = series.isel(time=_with_data(series, name, path)).transpose("time", "y", "x", ...)
    meters = np.asarray(series[name].values, np.float64) / 1000
    missing = ~np.isfinite(meters)
    partly = missing.any(axis=0) & ~missing.all(axis=0)
    if partly.any():
        log.info("%s: %d pixels miss some dates: %s", path, partly.sum(), partial)
    if partial == "drop":
        missing |= partly
    meters[missing] = 0
    datasets = {"timeseries": (meters - meters[:1]).astype(np.float32)}
    datasets["date"] = date = _date_text(series["time"].values)
    bperp = series.coords.get("perpendicular_baseline")
    known = bperp is not None and bperp.dims == ("time",)
    datasets["bperp"] = np.asarray(bperp if known else np.zeros(date.size), np.float32)
    first, last = date[0].decode(), date[-1].decode()
    attrs = {"FILE_TYPE": "timeseries", "UNIT": "m", "NO_DATA_VALUE": 0}
    attrs |= {"REF_DATE": first, "START_DATE": first, "END_DATE": last} | _grid_attributes(series)
    attrs |= _VERTICAL if vertical else _radar_attributes(series)
    attrs |= _reference_attributes(series, row, column)
    if "filled" in series and (filled := series["filled"].values & ~missing).any():
        _write(path, datasets | {"filled": filled}, attrs)
    else:
        _write(path, datasets, attrs)
    if f"{name}_std" in series:
        std = np.where(missing, 0, np.nan_to_num(series[f"{name}_std"].values) / 1000).astype(np.float32)
        stem = path.stem.replace("timeseries", "timeseriesDecorStd", 1)
        stem = stem if stem != path.stem else f"{stem}DecorStd"
        _write(path.with_name(f"{stem}{path.suffix}"), datasets | {"timeseries": std}, attrs)


#: what stands in place of a radar's wavelength, heading and orbit
_VERTICAL = {"DISPLACEMENT_DIRECTION": "vertical, positive up", "PROCESSOR": "unknown", "PLATFORM": "several"}


def _with_data(series, name: str, path) -> np.ndarray:
    """Positions of the dates that hold more than what the prior or the model fills in."""
    held = series[name].notnull()
    if "filled" in series:
        held &= ~series["filled"]
    keep = held.any(("y", "x")).values
    if "observed" in series.coords:
        keep &= series["observed"].values
    if not keep.any():
        raise ValueError(f"{path}: no date holds data, only what the prior fills in")
    if not keep.all():
        log.warning("%s: %d of %d dates hold no data of their own: left out", path, (~keep).sum(), keep.size)
    return np.flatnonzero(keep)


def _write(path, datasets: dict, attrs: dict) -> None:
    with _replacing(path) as handle:
        for name, values in datasets.items():
            handle[name] = values
        _write_attributes(handle, attrs)


def write_mintpy_stack(stack, path, *, reference_pixel=None):
    """Write an interferogram stack as MintPy's ifgramStack.h5, with geometryGeo.h5 beside it.

    NaN becomes 0 in phase and coherence, MintPy's no data. ``reference_pixel`` as in `write_mintpy_timeseries`.
    """
    path = Path(path)
    date = np.stack([_date_text(stack[name].values) for name in ("reference", "secondary")], axis=1)
    attrs = {"FILE_TYPE": "ifgramStack", "UNIT": "radian", "NO_DATA_VALUE": 0}
    attrs |= {"START_DATE": min(date[:, 0]).decode(), "END_DATE": max(date[:, 1]).decode()}
    attrs |= _grid_attributes(stack) | _radar_attributes(stack)
    try:
        attrs |= _reference_attributes(stack, *_reference_pixel(stack, reference_pixel))
    except ValueError:
        if reference_pixel is not None:
            raise
        log.info("%s: written without REF_Y, REF_X: run MintPy's reference_point first", path)
    layers = {"unwrapPhase": "unwrapped_phase", "coherence": "coherence", "connectComponent": "component"}
    with _replacing(path) as handle:
        for name, layer in layers.items():
            if layer in stack:
                values = stack[layer].transpose("pair", "y", "x").fillna(0).data
                _put(handle, name, values, np.int16 if layer == "component" else np.float32)
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
    layers = {"incidenceAngle": stack["incidence_angle"].values}
    if "los_east" in stack:
        # MintPy's azimuth: from north, anticlockwise, of the direction ground to satellite
        layers["azimuthAngle"] = np.degrees(np.arctan2(-stack["los_east"].values, stack["los_north"].values))
    if "height" in stack:
        layers["height"] = stack["height"].values
    skip = ("REF_Y", "REF_X", "REF_LAT", "REF_LON", "UNIT")
    attrs = {k: v for k, v in attrs.items() if k not in skip} | {"FILE_TYPE": "geometry"}
    _write(path, {name: np.nan_to_num(values).astype(np.float32) for name, values in layers.items()}, attrs)
