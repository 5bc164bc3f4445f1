"""Stable ground: the pixels that move least, found from the stack itself."""

import logging

import numpy as np
import xarray as xr

from helpers import timefunc
from helpers.network.delay import delay_basis, known_height, mostly_known, relative_to_reference
from helpers.network.graph import dates
from helpers.network.motion import fit_motion
from helpers.network.pixels import by_blocks, values_at

log = logging.getLogger(__name__)

MAX_DELAY_MM = 10.0  # most that delay makes of rate or season, rms over the scene, averaged over many dates


def stable_ground(stack: xr.Dataset, *, share: float = 0.4, max_motion_mm: float = np.inf) -> xr.DataArray:
    """Find the pixels that move least: a mask for `correct_delay` from the data alone.

    Rate and annual term are fitted per pixel. What a plane and the height, both zero at the reference, explain of
    them may be delay; it is fitted to the stable pixels themselves (least trimmed squares) and subtracted, up to the
    size that delay can have. The pixels with the least residual motion are stable.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x).
    share : float
        Share of the valid pixels to call stable; a share larger than the truth includes moving ground.
    max_motion_mm : float
        Largest motion of a stable pixel: three years of rate (or the span, if shorter) and the seasonal
        amplitude, added in squares.

    Returns
    -------
    DataArray of bool (y, x)
        Attribute ``covers``: extent of the stable pixels (5 to 95 %) as a share of the scene's, the smaller of
        the two directions. A ramp fitted to a corner is poorly known elsewhere. ``enough``: above 5 % of the pixels
        and 60 % of the extent, sufficient for the fit of a delay. Empty, with a warning, for less than five dates.
    """
    shape = (stack.sizes["y"], stack.sizes["x"])
    often = stack["unwrapped_phase"].notnull().mean("pair").values >= 0.25
    index = np.flatnonzero(often)
    days = dates(stack)
    parameters = _motion_of(stack, often)[:3]
    out = np.zeros(shape, bool)
    if len(parameters) == 0 or index.size == 0:
        log.warning("no stable ground found: %d dates (5 needed), %d pixels with data", len(days), index.size)
        return _marked(out, stack, 0.0)
    span = float(np.ptp(timefunc.years(days)))
    parameters[0] *= min(span, 3.0)  # rate over the span and seasonal swing, both in mm
    with_height = mostly_known(known_height(stack), index)
    columns = values_at(relative_to_reference(delay_basis(stack, 1, with_height), stack), index).T
    if not {"reference_y", "reference_x"} <= set(stack.attrs):
        columns = np.concatenate([np.ones((index.size, 1)), columns], axis=1)
    usable = np.isfinite(columns).all(axis=1)
    motion = np.full(index.size, np.inf)
    motion[usable] = _trimmed(columns[usable], parameters[:, usable].T, share)
    limit = min(np.quantile(motion[usable], share), max_motion_mm)
    out.ravel()[index[motion <= limit]] = True
    row, column = np.nonzero(out)
    at = zip((row, column), shape, strict=True)
    covers = float(min(1.0, *(np.ptp(np.quantile(k, [0.05, 0.95])) / (0.9 * (n - 1)) for k, n in at)))
    return _marked(out, stack, covers)


def _marked(out, stack, covers: float) -> xr.DataArray:
    """Mask with its attributes."""
    attrs = {"covers": covers, "enough": bool(out.mean() > 0.05 and covers > 0.6)}
    coords = {"y": stack["y"], "x": stack["x"]}
    return xr.DataArray(out, dims=("y", "x"), coords=coords, name="stable", attrs=attrs)


def stable_on(stable: xr.DataArray, stack: xr.Dataset) -> xr.DataArray | None:
    """Stable ground of one stack on the grid of another, or None where it is too little for a fit."""
    if not stable.attrs["enough"]:
        return None
    step = abs(float(stable["x"][1] - stable["x"][0]))
    return stable.reindex(y=stack["y"], x=stack["x"], method="nearest", tolerance=step, fill_value=False)


def _motion_of(stack, often) -> np.ndarray:
    """Rate and season in mm (parameter, pixel) of the pixels marked (y, x), by blocks where the stack is lazy."""
    to_mm = -timefunc.mm_per_radian(stack.attrs["wavelength_m"])
    parts, start = [], 0
    for rows, _ in by_blocks(stack["unwrapped_phase"].transpose("pair", "y", "x")):
        here = often[start : (start := start + rows.sizes["y"])]
        parts.append(fit_motion(stack, to_mm * rows.values[:, here].astype(float))[0])
    return np.concatenate(parts, axis=1)


def _trimmed(design, values, share, iterations: int = 30) -> np.ndarray:
    """Size of the residual of each row after least trimmed squares on the ``share`` of smallest ones.

    Each column of the fit is scaled down to an rms of `MAX_DELAY_MM` over all rows: more cannot be delay.
    """
    size = np.sqrt((values**2).sum(axis=1))
    kept = None
    for _ in range(iterations):
        best = size <= np.quantile(size, share)
        if kept is not None and np.array_equal(best, kept):
            break
        kept = best
        fitted = design @ np.linalg.lstsq(design[best], values[best], rcond=None)[0]
        fitted *= np.minimum(1, MAX_DELAY_MM / np.maximum(np.sqrt(np.mean(fitted**2, axis=0)), 1e-9))
        size = np.sqrt(((values - fitted) ** 2).sum(axis=1))
    return size
