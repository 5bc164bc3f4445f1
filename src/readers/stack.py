"""The one form every reader returns: the interferogram stack, checked."""

from __future__ import annotations

import dataclasses
import logging

import dask.array as da
import numpy as np
import pandas as pd
import rasterio.crs
import rasterio.transform
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr

log = logging.getLogger(__name__)

SPEED_OF_LIGHT = 299_792_458.0  # m/s
_BANDS = {"X": (0.02, 0.0375), "C": (0.0375, 0.075), "S": (0.075, 0.15), "L": (0.15, 0.30), "P": (0.30, 1.0)}
_GEOMETRY = {
    "incidence_angle": ("degree", "incidence angle from vertical"),
    "los_east": ("1", "east part of the unit vector from ground to satellite"),
    "los_north": ("1", "north part of the unit vector from ground to satellite"),
    "los_up": ("1", "up part of the unit vector from ground to satellite"),
    "height": ("m", "height"),
}
_PAIR_LAYERS = {
    "coherence": {"units": "1", "long_name": "interferometric coherence"},
    "component": {"long_name": "connected component, 0 = invalid"},
}
_LAYERS = ("coherence", "component", *_GEOMETRY)
_PHASE_ATTRS = {"units": "rad", "long_name": "unwrapped phase", "positive_direction": "away from satellite"}


@dataclasses.dataclass(frozen=True)
class Grid:
    """A north-up raster grid: CRS, corner transform and size in pixels."""

    crs: rasterio.crs.CRS
    transform: rasterio.transform.Affine
    width: int
    height: int

    @property
    def x(self) -> np.ndarray:
        """Cell centres, left to right."""
        return self.transform.c + self.transform.a * (np.arange(self.width) + 0.5)

    @property
    def y(self) -> np.ndarray:
        """Cell centres, top to bottom."""
        return self.transform.f + self.transform.e * (np.arange(self.height) + 0.5)

    def offset(self, other: Grid) -> tuple[float, float]:
        """Row and column of ``other``'s first pixel in this grid (fractions mean misalignment)."""
        return (
            (other.transform.f - self.transform.f) / self.transform.e,
            (other.transform.c - self.transform.c) / self.transform.a,
        )


def band_of(wavelength_m: float, source="the stack") -> str:
    """Letter of the radar band; a wavelength outside 2-100 cm is refused (wrong unit)."""
    for name, (low, high) in _BANDS.items():
        if low <= wavelength_m < high:
            return name
    raise ValueError(
        f"{source}: wavelength {wavelength_m} m is no SAR band (0.02-1 m): give metres, not cm, mm or a frequency"
    )


def parse_dates(values, source) -> np.ndarray:
    """Turn yyyymmdd strings (or bytes) into datetime64[ns]; an impossible date is an error naming the file."""
    text = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    out = []
    for item in text:
        try:
            if len(item) != 8:
                raise ValueError
            out.append(pd.to_datetime(item, format="%Y%m%d"))
        except ValueError:
            raise ValueError(f"{source}: {item!r} is not a date of the form yyyymmdd") from None
    return np.array(out, dtype="datetime64[ns]")


def order_pairs(reference, secondary, source) -> np.ndarray:
    """Indices that sort pairs by date; reversed, empty or repeated pairs are errors.

    ``source`` says where the pairs come from: one name, or one per pair.
    """
    reference = np.asarray(reference, "datetime64[ns]")
    secondary = np.asarray(secondary, "datetime64[ns]")
    names = [str(s) for s in source] if isinstance(source, list | tuple) else [str(source)] * len(reference)
    if len(reference) == 0:
        raise ValueError(f"{source}: no interferogram")
    label = [f"{str(a)[:10]} - {str(b)[:10]}" for a, b in zip(reference, secondary, strict=True)]
    for k in np.flatnonzero(secondary <= reference):
        raise ValueError(
            f"{names[k]}: pair {label[k]} has its reference date on or after its secondary date; "
            "the phase of a reversed pair has the opposite sign: reprocess it or negate and rename the file"
        )
    order = np.lexsort((secondary, reference))
    days = np.stack([reference, secondary])[:, order].astype(int)
    same = np.flatnonzero((np.diff(days) == 0).all(axis=0))
    for k in same:
        first, second = order[k], order[k + 1]
        raise ValueError(f"pair {label[first]} is given twice: {names[first]} and {names[second]}; keep one")
    return order


def sampled(n: int, most: int = 5) -> list[int]:
    """Positions of at most ``most`` pairs, evenly spread: what `zero_share` is counted on."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int)).tolist()


def apply_zero_rule(phase, component=None, *, zero="nodata", reference=None):
    """Set what is no data to NaN, in place.

    Processors mask the unwrapped phase with 0 and leave the coherence as it is: an exact 0 is no data whatever
    the coherence says, and so is a connected component <= 0.

    Parameters
    ----------
    phase, component : ndarray (pair, y, x) or (y, x)
    zero : {"nodata", "value"}
        What a stored 0 means.
    reference : (row, column), optional
        The pixel the file declares as its reference; its 0 is a value where it is 0 in every pair.
    """
    if zero not in ("nodata", "value"):
        raise ValueError(f"zero={zero!r}: choose 'nodata' or 'value'")
    phase[~np.isfinite(phase)] = np.nan
    if zero == "nodata":
        missing = phase == 0
        if reference is not None:
            at = (..., *reference)
            missing[at] &= not (missing[at] | np.isnan(phase[at])).all()
        phase[missing] = np.nan
    if component is not None:
        component[~np.isfinite(component)] = 0
        phase[component <= 0] = np.nan


def within_rows(reference, start: int, stop: int) -> tuple[int, int] | None:
    """Row and column of the reference pixel in a block of rows, None where it lies elsewhere."""
    inside = reference is not None and start <= reference[0] < stop
    return (reference[0] - start, reference[1]) if inside else None


def check_coherence(values: np.ndarray, source) -> np.ndarray:
    """Refuse coherence outside 0-1: another unit, or damage (zarr's compression has no checksum to notice it)."""
    low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    if not (low >= -1e-4 and high <= 1.001):
        raise ValueError(f"{source}: coherence runs from {low:.3g} to {high:.3g}, expected 0-1")
    return values


def finish_block(out, layers: tuple, source, *, zero="nodata", reference=None):
    """Hold a block (layer, pair, y, x) as stored to the data model, in place: the zero rule, then coherence.

    ``layers`` says what the first axis holds: "phase", then "coherence" and "component" where there are such.
    """
    phase = out[0]
    component = out[layers.index("component")] if "component" in layers else None
    apply_zero_rule(phase, component, zero=zero, reference=reference)
    if "coherence" not in layers:
        return
    coherence = out[layers.index("coherence")]
    coherence[~np.isfinite(coherence)] = 0
    check_coherence(coherence, source)
    known, none = np.isfinite(phase), coherence <= 0
    coherence[none & ~known] = np.nan  # no data in both layers is no measurement of zero coherence
    if void := int((none & known).sum()):
        log.warning("%s: %d of %d phase values have coherence 0 or none; kept", source, void, known.sum())


def as_layers(data, layers: tuple) -> dict:
    """Name the layers of a block (layer, pair, y, x); components are whole numbers."""
    out = dict(zip(layers, data, strict=True))
    return out | ({"component": out["component"].astype(np.int16)} if "component" in out else {})


def los_from_angles(incidence_deg, azimuth_deg):
    """Unit vector ground to satellite (east, north, up).

    Incidence in degrees from vertical; azimuth in degrees from north, anticlockwise, of that direction.
    """
    incidence, azimuth = np.radians(incidence_deg), np.radians(azimuth_deg)
    horizontal = np.sin(incidence)
    return -horizontal * np.sin(azimuth), horizontal * np.cos(azimuth), np.cos(incidence)


def scene_geometry(grid: Grid, incidence_deg, heading_deg) -> dict:
    """Geometry layers from scene means: incidence from vertical and flight direction, of a right-looking radar."""
    if incidence_deg is None:
        return {}
    layers = {"incidence_angle": float(incidence_deg)}
    if heading_deg is not None:
        # the satellite is seen 90 degrees to the left of the flight direction
        parts = los_from_angles(incidence_deg, 90.0 - heading_deg)
        layers |= dict(zip(("los_east", "los_north", "los_up"), map(float, parts), strict=True))
    return {name: np.full((grid.height, grid.width), value) for name, value in layers.items()}


def geometry_from_los(east, north, up, source) -> dict:
    """Geometry layers from a unit vector field; anything not of unit length is an error."""
    length = np.sqrt(east**2 + north**2 + up**2)
    seen = np.isfinite(length) & (length > 0)
    if not seen.any():
        log.warning("%s: the line-of-sight vector is empty and left out", source)
        return {}
    if abs(np.median(length[seen]) - 1) > 0.02:
        raise ValueError(
            f"{source}: line-of-sight components have length {np.median(length[seen]):.3f}, not 1: "
            "they must be the east, north, up parts of a unit vector from ground to satellite"
        )
    if np.median(up[seen]) <= 0:
        raise ValueError(
            f"{source}: up component is negative: the vector must point from ground to satellite"
        )
    east, north, up = (np.where(seen, v / np.where(seen, length, 1), np.nan) for v in (east, north, up))
    incidence = np.degrees(np.arccos(np.clip(up, -1, 1)))
    return {"los_east": east, "los_north": north, "los_up": up, "incidence_angle": incidence}


def _check_geometry(geometry: dict, attrs: dict, source) -> None:
    incidence = geometry.get("incidence_angle")
    if incidence is not None and np.isfinite(incidence).any():
        middle = np.nanmedian(incidence)
        if not 5 < middle < 75:
            raise ValueError(
                f"{source}: incidence angle {middle:.2f} is outside 5-75 degrees from vertical "
                "(radians, or an elevation angle?)"
            )
    heading = attrs.get("heading_deg")
    if heading is not None:
        direction = "ascending" if np.cos(np.radians(heading)) > 0 else "descending"
        if attrs.setdefault("orbit_direction", direction) != direction:
            raise ValueError(
                f"{source}: heading {heading:.1f} degrees is {direction}, "
                f"but the orbit direction is given as {attrs['orbit_direction']}"
            )
    east, direction = geometry.get("los_east"), attrs.get("orbit_direction")
    if east is None or direction is None or not np.isfinite(east).any():
        return
    expected = -1 if direction == "ascending" else 1
    seen = np.nanmedian(east)
    if seen * expected < 0 and attrs.get("antenna_side", "right") == "right":
        raise ValueError(
            f"{source}: a right-looking {direction} orbit sees the satellite in the "
            f"{'west' if expected < 0 else 'east'}, but los_east is {seen:+.2f}: "
            "is the vector from satellite to ground?"
        )


def map_variables(geometry: dict) -> dict:
    """Layers of geometry as variables on (y, x) with unit and name."""
    attrs = {name: {"units": unit, "long_name": long} for name, (unit, long) in _GEOMETRY.items()}
    return {n: (("y", "x"), np.asarray(v, np.float32), attrs[n]) for n, v in geometry.items()}


def assemble(layers: dict, pairs: tuple, grid: Grid, *, source, wavelength_m: float, geometry=None, **attrs):
    """Build the interferogram stack from sorted, checked parts.

    Parameters
    ----------
    layers : dict of arrays (pair, y, x), numpy or dask
        ``phase`` in rad, positive away from the satellite; ``coherence`` 0-1, ``component`` where known.
    pairs : (reference, secondary, baseline)
        datetime64 (pair,) twice, and the perpendicular baseline (pair,) in m, or None.
    grid : Grid
    source : str
        Name used in error messages.
    wavelength_m : float
    geometry : dict of arrays (y, x)
        ``incidence_angle`` (degrees from vertical), ``los_east``, ``los_north``, ``los_up``, ``height`` (m).
    **attrs
        sensor, heading_deg, orbit_direction, looks ...; None values are left out.

    Returns
    -------
    Dataset with dims (pair, y, x)
    """
    reference, secondary, baseline = pairs
    phase = layers["phase"]
    geometry = {k: v for k, v in (geometry or {}).items() if v is not None}
    attrs = {k: v for k, v in attrs.items() if v is not None}
    attrs = {"band": band_of(wavelength_m, source), "wavelength_m": float(wavelength_m), **attrs}
    if "looks" in attrs and not attrs["looks"] >= 1:
        raise ValueError(f"{source}: effective number of looks {attrs['looks']} must be at least 1")
    _check_geometry(geometry, attrs, source)
    bperp = np.full(len(reference), np.nan) if baseline is None else np.asarray(baseline, float)
    dims = ("pair", "y", "x")
    data = {"unwrapped_phase": (dims, phase, dict(_PHASE_ATTRS))}
    for name, about in _PAIR_LAYERS.items():
        if layers.get(name) is not None:
            data[name] = (dims, layers[name], dict(about))
    for name, layer in geometry.items():
        if np.shape(layer) != (grid.height, grid.width):
            raise ValueError(f"{source}: {name} has shape {np.shape(layer)}, the phase {phase.shape[1:]}")
        if np.isinf(layer).any():
            raise ValueError(
                f"{source}: {name} holds infinite values; write no data as NaN, or name its value"
            )
        _report_voids(name, layer, phase, source)
    data |= map_variables(geometry)
    stack = xr.Dataset(
        data,
        coords={
            "reference": ("pair", np.asarray(reference, "datetime64[ns]")),
            "secondary": ("pair", np.asarray(secondary, "datetime64[ns]")),
            "perpendicular_baseline": ("pair", bperp, {"units": "m"}),
            "y": grid.y,
            "x": grid.x,
        },
        attrs=attrs,
    )
    return with_grid_mapping(stack.rio.write_crs(grid.crs))


def _report_voids(name: str, layer, phase, source) -> None:
    """Say how many cells lack a layer of geometry (of those with a phase, where it is in memory)."""
    if name in ("los_east", "los_north"):
        return  # they share the voids of los_up
    void = np.isnan(layer)
    if isinstance(phase, np.ndarray):
        void &= np.isfinite(phase).any(axis=0)
    if count := int(void.sum()):
        log.warning("%s: no %s in %d of %d cells; their phase is kept", source, name, count, void.size)


def with_grid_mapping(stack: xr.Dataset) -> xr.Dataset:
    """Write the transform and name the grid mapping on every map, so that each finds its CRS in the file."""
    stack = stack.rio.write_transform()
    for name in stack.data_vars:
        if {"y", "x"} <= set(stack[name].dims):
            stack[name].encoding["grid_mapping"] = "spatial_ref"
    return stack


def check_stack(stack: xr.Dataset, source) -> xr.Dataset:
    """Check a stack read from the project's own files against the data model and sort its pairs."""
    missing = {"unwrapped_phase"} - set(stack.data_vars) | {"reference", "secondary", "x", "y"} - set(
        stack.coords
    )
    if missing:
        raise ValueError(f"{source}: not an interferogram stack, it lacks {', '.join(sorted(missing))}")
    phase = stack["unwrapped_phase"]
    if phase.dims != ("pair", "y", "x") or phase.dtype.kind != "f":
        raise ValueError(
            f"{source}: unwrapped_phase is {phase.dtype} with dims {phase.dims}, expected floats on ('pair', 'y', 'x')"
        )
    if phase.attrs.get("units", "rad") not in ("rad", "radian", "radians"):
        raise ValueError(f"{source}: unwrapped_phase is in {phase.attrs['units']!r}, expected rad")
    for name in ("reference", "secondary"):
        if not np.issubdtype(stack[name].dtype, np.datetime64):
            raise ValueError(f"{source}: coordinate {name} is {stack[name].dtype}, expected datetime64")
    for name in ("x", "y"):
        steps = np.diff(stack[name].values)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(f"{source}: coordinate {name} neither rises nor falls throughout: it is damaged")
    for name in ("wavelength_m", "looks"):
        if not isinstance(stack.attrs.get(name, 1), int | float | np.number):
            raise ValueError(f"{source}: attribute {name} is {stack.attrs[name]!r}, expected a number")
    if "wavelength_m" not in stack.attrs:
        raise ValueError(f"{source}: attribute wavelength_m is missing")
    band_of(stack.attrs["wavelength_m"], source)
    if not stack.attrs.get("looks", 1) >= 1:
        raise ValueError(f"{source}: effective number of looks {stack.attrs['looks']} must be at least 1")
    for name, layer in stack.data_vars.items():
        dims = {"coherence": phase.dims, "component": phase.dims}.get(name, ("y", "x"))
        if name in _LAYERS and (layer.dims != dims or layer.dtype.kind not in "fiu"):
            raise ValueError(f"{source}: {name} is {layer.dtype} {layer.dims}, expected numbers on {dims}")
        if name in _LAYERS and dims == ("y", "x") and bool(np.isinf(layer).any()):
            raise ValueError(f"{source}: {name} has infinite values")
    if "coherence" in stack:
        values = stack["coherence"].data
        held = da.map_blocks(check_coherence, values, source=str(source), dtype=values.dtype)
        stack = stack.assign(coherence=stack["coherence"].copy(data=held))
    if "perpendicular_baseline" not in stack.coords:
        unknown = np.full(stack.sizes["pair"], np.nan)
        stack = stack.assign_coords(perpendicular_baseline=("pair", unknown, {"units": "m"}))
    order = order_pairs(stack["reference"].values, stack["secondary"].values, str(source))
    return stack if np.array_equal(order, np.arange(order.size)) else stack.isel(pair=order)


def strip_rows(n_pair: int, width: int, height: int, layers: int, megabytes: float, multiple: int = 1) -> int:
    """Rows per block such that one block of all pairs stays below ``megabytes``."""
    rows = int(megabytes * 2**20 / (4 * layers * max(n_pair * width, 1)))
    rows = max(multiple, rows // multiple * multiple)
    return min(rows, height)


def delayed_strips(read, layers: int, n_pair: int, height: int, width: int, rows: int, token: str):
    """Dask array (layer, pair, y, x) of float32 from ``read(row_start, row_stop)``."""
    import dask

    task = dask.delayed(read, pure=True, traverse=False)
    strips = []
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        strip = task(start, stop, dask_key_name=f"read-{token}-{start}")
        strips.append(da.from_delayed(strip, (layers, n_pair, stop - start, width), np.float32))
    return da.concatenate(strips, axis=2)
