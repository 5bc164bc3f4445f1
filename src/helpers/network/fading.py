"""Fading-signal bias: the systematic closure phase of short multilooked pairs, by season and pair length."""

import numpy as np
import pandas as pd
import scipy.ndimage
import scipy.stats
import xarray as xr

from helpers.network.closure import closure
from helpers.network.graph import pair_days, pair_length_days
from helpers.network.pixels import by_blocks, subtract_fields
from helpers.timefunc import DAYS_PER_YEAR, mm_per_radian

SEASONS = {"winter": (12, 1, 2), "spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11)}
# bias of a pair of n steps as a share of the summed biases of its steps, n = 1, 2 ...
# (Maghsoudi et al. 2022, doi:10.1016/j.rse.2022.113022, and the code that goes with it)
_SHARE = {6: (1.0, 0.50, 0.36, 0.299, 0.2476), 12: (1.0, 0.494, 0.297, 0.24, 0.22)}
_UNBIASED_DAYS = 216.0  # pairs this long are taken as free of bias
_LEVEL = 0.05  # for all seasons together
_REACH = 4.0  # sd at which a Gaussian neighbourhood is cut
_TILE = 500  # columns worked on at a time


def fading(stack: xr.Dataset, *, smooth_pixels: float = 2.0) -> xr.Dataset:
    """Estimate the closure-phase bias and its sd by season and pair length.

    Model: one step (the shortest repeat) in season s has the bias delta_s; a pair of n steps has the ratio a_n of the
    summed biases of its steps, a_n from the literature, zero from 216 days on. The non-zero mean of the closure phases
    determines delta_s by least squares. A bias proportional to time closes every loop, so the result depends on the
    a_n. The sd is a jackknife over blocks of time. A seasonal value that is not significant (Student's t with
    years - 1 degrees of freedom, 5 % for all seasons together) is set to zero, others are shrunk by 1 - 1 / z2; pixels
    are shrunk to the scene's value as far as their scatter is noise.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x), unwrapping corrected.
    smooth_pixels : float
        Sd of the Gaussian neighbourhood that shares one estimate: the bias follows land cover, and closures hold no
        delay, only noise of single pixels.

    Returns
    -------
    Dataset
        ``bias``, ``bias_std`` (season, length_days) rad, positive away: scene mean, not shrunk, of a pair of that
        length within the season; ``rate_bias``, ``rate_bias_std`` (length_days) mm/yr, toward: what a chain of such
        pairs adds to a rate; ``delta``, ``delta_std`` (season, y, x) rad per step, shrunk, for `correct_fading`;
        ``scene_delta``, ``scene_delta_std``, ``significant`` (season). Attributes ``step_days``, ``usable``
        (False, with ``reason`` and zero delta, where the stack has no short repeat or too few triplets).
    """
    lengths = pair_length_days(stack)
    step, reason = _step(stack, lengths)
    triplet = closure(stack)
    if reason is None and triplet.sizes["triplet"] < 10 * len(SEASONS):
        reason = f"{triplet.sizes['triplet']} triplets are too few for {len(SEASONS)} seasons"
    if reason is not None:
        return _not_estimated(stack, step, reason)
    pair_design = season_design(stack, step)
    index = [triplet[f"pair_{n}"].values for n in ("12", "23", "13")]
    design = pair_design[index[0]] + pair_design[index[1]] - pair_design[index[2]]
    block = _time_blocks(triplet["second"].values)
    scene, scene_cov, pixel, pixel_std = _estimate(stack, design, block, smooth_pixels)
    scene_std = np.sqrt(np.diag(scene_cov))
    z = np.divide(scene, scene_std, out=np.zeros_like(scene), where=scene_std > 0)
    significant = np.abs(z) >= _threshold(stack, len(SEASONS))
    shrink = np.where(significant, 1 - 1 / np.maximum(z**2, 1), 0.0)
    delta, delta_std = _shrink_to_scene(pixel, pixel_std, scene, scene_std, shrink, significant)
    out = _table(scene, scene_cov, step, stack, significant, (delta, delta_std))
    return out.assign_attrs(step_days=float(step), usable=True)


def _step(stack, lengths):
    """The shortest repeat (days) and, where the model does not apply, the reason."""
    step = float(np.min(lengths))
    if stack.attrs.get("band", "C") != "C":
        return step, f"the shares are known for C band, this is {stack.attrs['band']} band"
    if not (5 <= step <= 7 or 10 <= step <= 14):
        return step, f"the shares are known for steps of 6 and 12 days, the shortest pair has {step:g}"
    return step, None


def bias_ratio(length_days, step: float) -> np.ndarray:
    """Bias of a pair as a share of its steps' summed bias, by its length; 0 from 216 days on."""
    known = _SHARE[6 if step < 9 else 12]
    at = [step * (k + 1) for k in range(len(known))] + [_UNBIASED_DAYS]
    return np.interp(np.asarray(length_days, float), at, [*known, 0.0], right=0.0)


def _threshold(stack, n_seasons) -> float:
    """Smallest z that is significant: a season is seen once a year, and there are several of them."""
    years = np.ptp(stack["secondary"].values) / np.timedelta64(1, "D") / DAYS_PER_YEAR
    return float(scipy.stats.t.ppf(1 - _LEVEL / 2 / n_seasons, max(round(years) - 1, 1)))


def season_design(stack: xr.Dataset, step: float) -> np.ndarray:
    """Bias of each pair per unit delta of each season: (pair, season)."""
    first, second = pair_days(stack)
    day = pd.date_range(first.min(), second.max(), freq="D")
    of_month = {month: k for k, months in enumerate(SEASONS.values()) for month in months}
    number = np.array([of_month.get(m, -1) for m in day.month])
    elapsed = np.array([np.concatenate([[0], np.cumsum(number == k)]) for k in range(len(SEASONS))])
    start, stop = (day.get_indexer(d) for d in (first, second))
    in_season = (elapsed[:, stop] - elapsed[:, start]).T  # days of each pair in each season
    # bias of a pair = a_n sum_s (steps in season s) delta_s
    return bias_ratio(pair_length_days(stack), step)[:, None] * in_season / step


def _time_blocks(middle) -> np.ndarray:
    """Number of the block of time (about half a year, at least six blocks) of each triplet."""
    t = (middle - middle.min()) / np.timedelta64(1, "D")
    n = int(np.clip(np.ptp(t) / (DAYS_PER_YEAR / 2), 6, 20))
    return np.minimum((t / (np.ptp(t) + 1) * n).astype(int), n - 1)


def _sums(values, design, block):
    """Normal matrices and right-hand sides per block: (block, column, season, season), (block, column, season)."""
    k = design.shape[1]
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    normals, sides = [], []
    for b in range(block.max() + 1):
        rows = values[block == b]
        valid = np.isfinite(rows)
        normals.append((valid.T.astype(np.float32) @ outer[block == b].astype(np.float32)).reshape(-1, k, k))
        sides.append(np.where(valid, rows, 0).T.astype(np.float32) @ design[block == b].astype(np.float32))
    return np.array(normals, float), np.array(sides, float)


def _solve(normal, side):
    k = normal.shape[-1]
    trace = np.trace(normal, axis1=-2, axis2=-1)[..., None, None]
    # a season without triplets gets zero, not noise
    return np.linalg.solve(normal + (1e-6 * trace + 1e-9) * np.eye(k), side[..., None])[..., 0]


def _jackknife(normals, sides):
    """Estimate and jackknife covariance over blocks: (column, season), (column, season, season)."""
    total_n, total_s = normals.sum(axis=0), sides.sum(axis=0)
    estimate = _solve(total_n, total_s)
    n = len(normals)
    without = np.array([_solve(total_n - normals[b], total_s - sides[b]) for b in range(n)])
    spread = without - without.mean(axis=0)
    # (n - 1) / n sum_b (e_b - mean e)(e_b - mean e)', e_b the estimate without block b
    return estimate, (n - 1) / n * np.einsum("bcs,bct->cst", spread, spread)


def _estimate(stack, design, block, smooth):
    """Scene value (season,), covariance, values and sd of places (season, pixel)."""
    halo = round(_REACH * smooth)  # as far as a neighbourhood reaches
    sums, bands = [], []
    for rows, own_y in by_blocks(stack[["unwrapped_phase"]], halo=halo):
        tiles = []
        for tile, own_x in by_blocks(rows, "x", halo=halo, size=_TILE):
            places, *of_tile = _places(tile, (own_y, own_x), design, block, smooth)
            tiles.append(places)
            sums.append(of_tile)
        bands.append(np.concatenate(tiles, axis=1))
    pixel = np.concatenate(bands).reshape(-1, design.shape[1])
    count, total, variance, n_seen = (sum(part) for part in zip(*sums, strict=True))
    scene_values = total / np.maximum(count, 1)
    scene_values[count < 30] = np.nan
    scene, scene_cov = _jackknife(*_sums(scene_values[:, None], design, block))
    # the jackknife of one place is itself uncertain: places share its mean
    std = np.sqrt(variance / max(n_seen, 1))
    return scene[0], scene_cov[0], pixel.T, np.repeat(std[:, None], len(pixel), axis=1)


def _places(tile, own, design, block, smooth):
    """Estimates of own places (y, x, season); number and sum of their closures (triplet,), of their variances."""
    triplet = closure(tile)
    phase = triplet["closure_phase"] - 2 * np.pi * triplet["ambiguity"]
    phase = phase.transpose("triplet", "y", "x").values
    inner = phase[:, *own].reshape(len(phase), -1)
    normals, sides = _sums(phase.reshape(len(phase), -1), design, block)
    seen = np.trace(normals.sum(axis=0), axis1=-2, axis2=-1) > 0
    pixel, cov = _jackknife(*(_smoothed(v, phase.shape[1:], smooth) for v in (normals, sides)))
    pixel[~seen] = np.nan
    seen, pixel, cov = (v.reshape(*phase.shape[1:], *v.shape[1:])[own] for v in (seen, pixel, cov))
    variance = np.einsum("css->cs", cov[seen]).sum(axis=0)
    return pixel, np.isfinite(inner).sum(axis=1), np.nansum(inner, axis=1, dtype=float), variance, seen.sum()


def _smoothed(sums, shape, sd):
    """Gaussian neighbourhood sums over space of an array (block, pixel, ...)."""
    if sd == 0:
        return sums
    maps = sums.reshape(sums.shape[0], *shape, -1)
    smooth = scipy.ndimage.gaussian_filter(maps, (0, sd, sd, 0), mode="constant", truncate=_REACH)
    return smooth.reshape(sums.shape)


def _shrink_to_scene(pixel, pixel_std, scene, scene_std, shrink, significant):
    """Empirical-Bayes estimate: pixels are shrunk to the scene value as far as their scatter is noise.

    delta = m + w (delta_pixel - delta_scene), w = t^2 / (t^2 + s^2), t^2 = Var(delta_pixel) - s^2
    """
    mean = (shrink * scene)[:, None]
    noise = np.nanmean(pixel_std**2, axis=1, keepdims=True)
    spread = np.maximum(np.nanvar(pixel, axis=1, keepdims=True) - noise, 0)
    both = spread + pixel_std**2
    weight = np.divide(spread, both, out=np.zeros_like(pixel_std), where=both > 0)
    weight = np.where(significant[:, None], weight, 0)
    delta = mean + weight * (np.where(np.isfinite(pixel), pixel, scene[:, None]) - scene[:, None])
    variance = (1 - weight) * spread + ((1 - weight) * scene_std[:, None]) ** 2 + (weight * pixel_std) ** 2
    std = np.sqrt(np.where(weight > 0, variance, scene_std[:, None] ** 2 + spread))
    seen = np.isfinite(pixel)
    return np.where(seen, delta, mean), np.where(seen, std, np.sqrt(scene_std[:, None] ** 2 + spread))


def _table(scene, cov, step, stack, significant, maps) -> xr.Dataset:
    """Result of `fading`: bias by season and pair length, the rate a chain of such pairs adds, maps per step."""
    lengths = np.unique(np.round(pair_length_days(stack)))
    ratio = bias_ratio(lengths, step)
    steps = ratio * lengths / step
    days = [sum(pd.Timestamp(2001, m, 1).days_in_month for m in months) for months in SEASONS.values()]
    per_year = np.array(days) / step  # steps of each season in a year
    to_mm = -mm_per_radian(stack.attrs["wavelength_m"])
    rate, rate_std = to_mm * per_year @ scene, abs(to_mm) * np.sqrt(per_year @ cov @ per_year)
    std, rad = np.sqrt(np.diag(cov)), {"units": "rad"}
    shape = (len(SEASONS), stack.sizes["y"], stack.sizes["x"])
    delta, delta_std = (v.reshape(shape).astype(np.float32) for v in maps)
    return xr.Dataset(
        {
            "bias": (("season", "length_days"), scene[:, None] * steps, rad),
            "bias_std": (("season", "length_days"), std[:, None] * steps, rad),
            "rate_bias": ("length_days", rate * ratio, {"units": "mm/yr"}),
            "rate_bias_std": ("length_days", rate_std * ratio, {"units": "mm/yr"}),
            "scene_delta": ("season", scene, rad),
            "scene_delta_std": ("season", std, rad),
            "significant": ("season", significant),
            "delta": (("season", "y", "x"), delta, rad),
            "delta_std": (("season", "y", "x"), delta_std, rad),
        },
        coords={"season": list(SEASONS), "length_days": lengths, "y": stack["y"], "x": stack["x"]},
    )


def _not_estimated(stack, step, reason) -> xr.Dataset:
    """Result of `fading` where the model does not apply: no bias known, none to subtract."""
    n, maps = len(SEASONS), np.zeros((len(SEASONS), stack.sizes["y"] * stack.sizes["x"]))
    nothing = np.full(n, np.nan), np.full((n, n), np.nan)
    out = _table(*nothing, step, stack, np.zeros(n, bool), (maps, maps * np.nan))
    return out.assign_attrs(step_days=step, usable=False, reason=reason)


def correct_fading(stack: xr.Dataset, bias: xr.Dataset) -> xr.Dataset:
    """Subtract the fading bias that `fading` found significant on the same grid.

    Adds ``fading_std`` (pair) rad, rms over the scene of the sd of the correction, and the attribute ``fading``, which
    says what was corrected.
    """
    out = stack.copy()
    if not bias.attrs["usable"]:
        out.attrs["fading"] = f"not corrected: {bias.attrs['reason']}"
        return out.assign(fading_std=("pair", np.full(stack.sizes["pair"], np.nan), {"units": "rad"}))
    names = bias["season"].values[bias["significant"].values].tolist()
    out.attrs["fading"] = f"corrected in {', '.join(names)}" if names else "not corrected: not significant"
    design = season_design(stack, bias.attrs["step_days"])
    variance = design**2 @ (bias["delta_std"] ** 2).mean(("y", "x")).values
    out = out.assign(fading_std=("pair", np.sqrt(variance), {"units": "rad"}))
    if names:
        out["unwrapped_phase"] = subtract_fields(stack["unwrapped_phase"], design, bias["delta"].values)
    return out
