"""One reference area for every pair, with the error it brings."""

import logging

import numpy as np
import rioxarray  # noqa: F401  registers the .rio accessor
import scipy.optimize
import xarray as xr
from rasterio.warp import transform_bounds

from helpers import timefunc
from helpers.network.graph import dates, incidence
from helpers.network.pixels import mask_on
from inversion import phase_noise

log = logging.getLogger(__name__)

MIN_PIXELS = 25  # valid pixels of the reference area that a pair needs


def reference(stack: xr.Dataset, area: xr.DataArray | tuple, *, name: str | None = None) -> xr.Dataset:
    """Refer every pair to one area: subtract the median phase of the area's valid pixels.

    A pair with fewer than `MIN_PIXELS` valid pixels in the area, or without scatter there, becomes no data and stands
    in the attribute ``unreferenced_pairs``. An area where this holds for all pairs, or of which no pair has half of
    the pixels, is refused.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x), `unwrapped_phase` in rad.
    area : DataArray of bool (y, x), or (west, south, east, north) in degrees, or (row, column)
        The reference area. One pixel (row, column) is accepted as it is, for comparison with other software.
    name : str, optional
        Stored as attribute ``reference_area``.

    Returns
    -------
    Dataset
        As ``stack``, with ``reference_std`` (pair), rad: sd of the median, from the scatter in the area and
        its spatial correlation. Attributes ``reference_std`` (mm, rms over pairs), ``reference_rate_std``
        (mm/yr, `reference_rate_std`), ``reference_area``, ``reference_y``, ``reference_x``.
    """
    inside, single = _area_mask(stack, area)
    needed = 1 if single else MIN_PIXELS
    if inside.sum() < needed:
        raise ValueError(
            f"the reference area has {int(inside.sum())} pixels on this grid, needs {needed}: enlarge it"
        )
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = {"y": slice(rows[0], rows[-1] + 1), "x": slice(columns[0], columns[-1] + 1)}
    window = stack["unwrapped_phase"].isel(box).transpose("pair", "y", "x").values.astype(float)
    window[:, ~inside[box["y"], box["x"]]] = np.nan
    count = np.isfinite(window).sum(axis=(1, 2))
    good = count >= needed
    half = max(needed, -(-int(inside.sum()) // 2))
    if count.max() < half:
        raise ValueError(
            f"no pair has {half} valid pixels in the reference area (at most {count.max()}), half of it: choose another"
        )
    std = np.full(count.size, np.nan)
    std[good] = _pixel_std(stack.isel(box), good) if single else _median_std(window[good])
    good &= std != 0  # most pixels equal: zeros of a mask, no phase
    if not good.any():
        raise ValueError(
            "the reference area is without scatter: masked zeros are no phase, choose another area"
        )
    std[~good] = np.nan
    median = np.full(count.size, np.nan)
    median[good] = np.nanmedian(window[good].reshape(good.sum(), -1), axis=1)
    ends = stack["reference"].values[~good], stack["secondary"].values[~good]
    lost = [f"{str(a)[:10]}_{str(b)[:10]}" for a, b in zip(*ends, strict=True)]
    if lost:
        log.warning("%d pairs have fewer than %d valid pixels or no scatter in the area", len(lost), needed)

    phase = stack["unwrapped_phase"]
    shift = xr.DataArray(median.astype(phase.dtype), dims="pair")
    out = stack.assign(
        unwrapped_phase=(phase - shift).assign_attrs(phase.attrs),
        reference_std=("pair", std, {"units": "rad", "long_name": "sd of the reference"}),
    )
    row, column = _central_pixel(inside, window, box)
    to_mm = timefunc.mm_per_radian(stack.attrs["wavelength_m"])
    out.attrs.update(
        reference_area=name or f"{int(inside.sum())} pixels around row {row}, column {column}",
        reference_y=float(stack["y"][row]),
        reference_x=float(stack["x"][column]),
        reference_std=float(np.sqrt(np.nanmean(std**2)) * to_mm) if np.isfinite(std).any() else np.nan,
        unreferenced_pairs=lost,
    )
    out.attrs["reference_rate_std"] = reference_rate_std(out)
    return out


def _area_mask(stack, area) -> tuple[np.ndarray, bool]:
    shape = (stack.sizes["y"], stack.sizes["x"])
    if isinstance(area, xr.DataArray):
        return mask_on(area, stack), False
    area = tuple(area)
    if len(area) == 2:
        row, column = (int(v) for v in area)
        if not (0 <= row < shape[0] and 0 <= column < shape[1]):
            raise ValueError(f"reference pixel {row, column} is outside the stack's {shape}")
        mask = np.zeros(shape, bool)
        mask[row, column] = True
        return mask, True
    if len(area) != 4:
        raise ValueError(f"reference area {area}: give a mask, (west, south, east, north) or (row, column)")
    west, south, east, north = area
    if stack.rio.crs is not None and not stack.rio.crs.is_geographic:
        west, south, east, north = transform_bounds("EPSG:4326", stack.rio.crs, west, south, east, north)
    x, y = stack["x"].values, stack["y"].values
    mask = np.outer((y >= south) & (y <= north), (x >= west) & (x <= east))
    if not mask.any():
        raise ValueError(
            f"reference area {area} (west, south, east, north) lies outside the stack "
            f"({x.min():.4f}, {y.min():.4f}, {x.max():.4f}, {y.max():.4f}, {stack.rio.crs})"
        )
    return mask, False


def _median_std(maps: np.ndarray) -> np.ndarray:
    """Sd of the median of each small map (pair, y, x), pixels correlated in space.

    The lag-one correlation r, of all maps together, gives an exponential correlation length l = -1 / ln r
    pixels; n pixels then count as n / (1 + 2 pi l^2) independent ones.
    """
    flat = maps.reshape(len(maps), -1)
    centred = maps - np.nanmedian(flat, axis=1)[:, None, None]
    scale = 1.4826 * np.nanmedian(np.abs(centred.reshape(flat.shape)), axis=1)
    unit = centred / np.where(scale > 0, scale, np.inf)[:, None, None]
    unit = np.clip(unit, -3, 3)  # an outlier must not determine the correlation
    products = [unit[:, 1:] * unit[:, :-1], unit[:, :, 1:] * unit[:, :, :-1]]
    products = np.concatenate([p[np.isfinite(p)] for p in products])
    variance = np.nanmean(unit**2)
    r = np.clip(products.mean() / variance, 0, 0.95) if products.size and variance > 0 else 0.0
    length = -1 / np.log(r) if r > 0.05 else 0.0
    effective = np.maximum(np.isfinite(flat).sum(axis=1) / (1 + 2 * np.pi * length**2), 1.0)
    # sd of the median of n Gaussian values: sqrt(pi / 2) s / sqrt(n)
    return np.sqrt(np.pi / 2) * scale / np.sqrt(effective)


def _pixel_std(pixel: xr.Dataset, good) -> np.ndarray:
    """Sd of the phase of one pixel from its coherence; NaN where coherence or looks are unknown."""
    if "coherence" not in pixel or "looks" not in pixel.attrs:
        return np.full(good.sum(), np.nan)
    return np.sqrt(phase_noise.phase_variance(pixel["coherence"].values[good, 0, 0], pixel.attrs["looks"]))


def _central_pixel(inside, window, box) -> tuple[int, int]:
    """The pixel of the area valid in the most pairs, nearest to its middle."""
    often = np.isfinite(window).sum(axis=0)
    candidates = np.argwhere((often == often.max()) & inside[box["y"], box["x"]])
    middle = candidates.mean(axis=0)
    row, column = candidates[np.argmin(((candidates - middle) ** 2).sum(axis=1))]
    return int(row + box["y"].start), int(column + box["x"].start)


def _date_variance(stack, pair_variance) -> np.ndarray:
    """Variances of dates (date,), v_pair = v_first + v_second, none negative; 0 where no pair with a value reaches."""
    good = np.isfinite(pair_variance)
    design = np.abs(incidence(stack))[good]
    out = np.zeros(design.shape[1])
    seen = design.any(axis=0)
    if seen.any():
        out[seen] = scipy.optimize.nnls(design[:, seen], pair_variance[good])[0]
    return out


def reference_rate_std(stack: xr.Dataset, atmosphere: xr.DataArray | None = None) -> float:
    """Sd (mm/yr) of the error that the reference gives to every rate of the scene alike.

    Parameters
    ----------
    stack : Dataset
        From `reference`. Attribute ``delay_rate_std`` (`helpers.network.correct_delay`) is added where it is there:
        the ramps' error in the rate, rms over the scene, is shared by wide areas, if not by all.
    atmosphere : array (date,), mm, optional
        Residual delay per date (`helpers.network.atmosphere`): the reference area's own delay is common to the
        whole scene.
    """
    if atmosphere is None and not np.isfinite(stack["reference_std"]).any():
        return float("nan")
    to_mm = timefunc.mm_per_radian(stack.attrs["wavelength_m"])
    variance = _date_variance(stack, (stack["reference_std"].values * to_mm) ** 2)
    if atmosphere is not None:
        variance = variance + np.nan_to_num(np.asarray(atmosphere, float)) ** 2
    years = timefunc.years(dates(stack))
    lever = years - years.mean()
    # slope b = sum l_t d_t / sum l_t^2, so Var(b) = sum l_t^2 v_t / (sum l_t^2)^2
    slope = float(np.sqrt((lever**2 * variance).sum()) / (lever**2).sum())
    return float(np.hypot(slope, stack.attrs.get("delay_rate_std", 0.0)))
