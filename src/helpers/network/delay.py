"""Atmospheric and ionospheric delay: a ramp and a phase-height term per date."""

import logging

import numpy as np
import scipy.optimize
import xarray as xr

from helpers import timefunc
from helpers.network.graph import dates, incidence
from helpers.network.motion import fit_motion, level_columns, rate_and_season
from helpers.network.pixels import sample, subtract_fields, values_at
from inversion import phase_noise

log = logging.getLogger(__name__)

STABLE_RATE_STD = 1.0  # mm/yr, rate of stable ground across half the scene, or per km of height


def correct_delay(
    stack: xr.Dataset, ramp: int = 1, height: bool = True, *, mask: xr.DataArray | None = None
) -> xr.Dataset:
    """Remove a ramp and a phase-height term per date.

    The coefficients of each pair are fitted robustly (Huber) on stable ground, then solved for dates through the
    network, so that the correction closes every loop. Motion that follows place or height cannot be distinguished
    from a delay that does. Without a mask of stable ground the correction therefore contains neither rate nor season.
    With a mask it contains the season, and of the rate the share that is delay rather than motion of the stable
    ground: small for many dates, which average delay out, large for few dates or an ionosphere. At L band the surface
    is quadratic whatever ``ramp`` is, for the ionosphere.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x), referenced. Needs ``height`` (y, x) for the phase-height term.
    ramp : {0, 1, 2}
        Polynomial order in place: none, plane, quadratic.
    height : bool
        Fit the phase-height term; skipped, with an attribute saying so, where the heights are unknown.
    mask : DataArray of bool (y, x), optional
        True on stable ground, used for the fit; see `stable_ground`. Default: all pixels, less their rate
        and season.

    Returns
    -------
    Dataset
        As ``stack``, with ``delay_coefficient`` (time, term) in rad per unit (unit: half the scene's size for
        places, km for height), ``delay_coefficient_std``, ``delay_std`` (time) in mm: sd of the
        correction, rms over the scene, relative to the reference pixel. Attribute ``delay_rate_std`` (mm/yr): sd of
        the error of the rate by residual delay or by motion that the correction removed, likewise.

    Notes
    -----
    The standard deviations come from the variogram of the residuals at short lags. Where the relief is as smooth
    as turbulence they are too small: by 1.3 to 1.8 in simulated scenes of 60 x 80 pixels.
    """
    if ramp not in (0, 1, 2):
        raise ValueError(f"ramp={ramp!r}: choose 0, 1 or 2")
    # at L band the ionosphere is 18 times that of C band
    order = 2 if stack.attrs.get("band") == "L" else ramp
    heights = known_height(stack)
    with_height = height and bool(heights.notnull().any())
    basis = delay_basis(stack, order, with_height)
    index = sample(stack, mask) if basis.sizes["term"] else np.zeros(0, int)
    if with_height and not mostly_known(heights, index):
        with_height, basis = False, basis.drop_sel(term="height")
    days = dates(stack)
    out = stack.copy()
    out.attrs["delay_terms"] = ", ".join(basis["term"].values.tolist()) or "none"
    if height and not with_height:
        out.attrs["delay_height_term"] = "not fitted: no height on half of the pixels of the fit"
    elif with_height and (n_void := int(heights.isnull().sum())):
        out.attrs["delay_height_term"] = f"left out at {n_void} pixels without height"
    if basis.sizes["term"] == 0:
        return out
    pairs, pair_cov = _pair_coefficients(stack, basis, index, mask is None)
    coefficient, covariance = _to_dates(stack, pairs, pair_cov)
    coefficient, rate_variance = _without_motion(stack, coefficient, mask is None)

    field = relative_to_reference(basis, stack)
    per_pair = incidence(stack) @ coefficient
    out["unwrapped_phase"] = subtract_fields(stack["unwrapped_phase"], per_pair, np.nan_to_num(field.values))
    flat = field.values.reshape(field.sizes["term"], -1)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    second_moment = flat @ flat.T / flat.shape[1]
    to_mm = timefunc.mm_per_radian(stack.attrs["wavelength_m"])
    # Var(f' c) = f' C f, averaged over the scene: tr(C <f f'>)
    std = np.sqrt(np.einsum("dij,ij->d", covariance, second_moment)) * to_mm
    out.attrs["delay_rate_std"] = float(np.sqrt(rate_variance @ np.diag(second_moment)))
    out = out.assign_coords(time=("time", days), term=basis["term"])
    return out.assign(
        delay_coefficient=(("time", "term"), coefficient, {"units": "rad", "long_name": "delay per unit"}),
        delay_coefficient_std=(("time", "term"), np.sqrt(np.einsum("dii->di", covariance)), {"units": "rad"}),
        delay_std=("time", std, {"units": "mm", "long_name": "sd of the delay correction"}),
    )


def known_height(stack: xr.Dataset) -> xr.DataArray:
    """Height (y, x) in m, NaN where the value is the declared no-data value; all NaN where the stack has none."""
    if "height" not in stack:
        return xr.full_like(stack["unwrapped_phase"].isel(pair=0, drop=True), np.nan, chunks=None)
    return stack["height"].transpose("y", "x").where(stack["height"] != stack["height"].rio.nodata).load()


def mostly_known(heights: xr.DataArray, index: np.ndarray) -> bool:
    """Whether at least half of the pixels (flat indices) have a height: with fewer, the ramps would suffer."""
    return bool(np.isfinite(heights.values.ravel()[index]).mean() >= 0.5)


def delay_basis(stack: xr.Dataset, order: int, with_height: bool) -> xr.DataArray:
    """Columns (term, y, x): place from -1 to 1 across the longer side, height in km about its median."""
    x, y = stack["x"].values, stack["y"].values
    # a degree of longitude is cos(latitude) of a degree of latitude
    if stack.rio.crs is None and np.abs(y).max() > 90:
        raise ValueError(
            "the grid has no coordinate system and its y are no latitudes: stack.rio.write_crs(...) first"
        )
    ratio = np.cos(np.radians(y.mean())) if stack.rio.crs is None or stack.rio.crs.is_geographic else 1.0
    u, v = (x - x.mean()) * ratio, y - y.mean()
    half = max(np.ptp(u), np.ptp(v), 1e-12) / 2
    u, v = np.meshgrid(u / half, v / half)
    columns = {}
    if order >= 1:
        columns |= {"east": u, "north": v}
    if order >= 2:
        columns |= {"east2": u**2, "north2": v**2, "east_north": u * v}
    if with_height:
        h = known_height(stack).values.astype(float) / 1000
        columns["height"] = h - np.nanmedian(h)
    values = np.array(list(columns.values())).reshape(-1, y.size, x.size)
    return xr.DataArray(
        values, dims=("term", "y", "x"), coords={"term": list(columns), "y": stack["y"], "x": stack["x"]}
    )


def _without_motion(stack, coefficient, season_too: bool):
    """Remove from date coefficients (time, term) what is more likely motion of the ground than delay.

    Also gives the variance (mm2/yr2, by term) of the error that is left in the rate. Without a mask of stable ground
    (season_too) rate and season are removed whole, and the variance is that which the scatter of dates gives a rate,
    V_d = s^2 sum_t F_t^2. Else the rate keeps the share of delay, w = V_d / (V_d + V_g) with V_g the variance of the
    ground's rate, and the posterior variance is w V_g.
    """
    columns, fit = rate_and_season(stack)
    if columns.shape[1] == 0:
        log.warning(
            "%d dates are too few to tell delay from a rate: what follows place or height goes", len(fit.T)
        )
        return coefficient, np.full(coefficient.shape[1], STABLE_RATE_STD**2)
    motion = fit @ coefficient
    design = np.concatenate([columns, level_columns(stack)], axis=1)
    scatter = coefficient - design @ (np.linalg.pinv(design) @ coefficient)
    variance = (scatter**2).sum(axis=0) / max(len(scatter) - design.shape[1], 1)
    to_mm = timefunc.mm_per_radian(stack.attrs["wavelength_m"])
    by_delay = variance * (fit[0] ** 2).sum() * to_mm**2
    if season_too:
        return coefficient - columns @ motion, by_delay
    share = by_delay / (by_delay + STABLE_RATE_STD**2)
    return coefficient - columns[:, :1] * ((1 - share) * motion[0]), share * STABLE_RATE_STD**2


def relative_to_reference(basis: xr.DataArray, stack: xr.Dataset) -> xr.DataArray:
    """Basis relative to the reference pixel (else to its mean), where the correction must be zero."""
    if {"reference_y", "reference_x"} <= set(stack.attrs):
        at = basis.sel(y=stack.attrs["reference_y"], x=stack.attrs["reference_x"], method="nearest")
        # a void at the reference: the height of the nearest pixel that has one
        apart = (basis["y"] - at["y"]) ** 2 + (basis["x"] - at["x"]) ** 2
        near = basis.isel(apart.where(basis.notnull().all("term")).argmin(("y", "x")))
        at = at.fillna(near.drop_vars(("y", "x")))
    else:
        at = basis.mean(("y", "x"))
    return (basis - at).drop_vars(("y", "x"), errors="ignore").transpose("term", "y", "x")


def _pair_coefficients(stack, basis, index, less_motion):
    """Robust fit per pair: coefficients (pair, term) and covariance (pair, term, term)."""
    phase = values_at(stack["unwrapped_phase"], index)
    if less_motion:
        phase = fit_motion(stack, phase)[1]
    columns = np.concatenate([np.ones((1, index.size)), values_at(basis, index)]).T
    usable = np.isfinite(columns).all(axis=1)
    phase, columns, index = phase[:, usable], columns[usable], index[usable]
    weight = np.ones_like(phase)
    if "coherence" in stack and "looks" in stack.attrs:
        noise = phase_noise.phase_variance(values_at(stack["coherence"], index), stack.attrs["looks"])
        weight = 1 / (noise + 0.5)  # plus the variance of turbulence, about (0.7 rad)^2
    n, k = phase.shape[0], columns.shape[1]
    coefficient, scale = np.full((n, k - 1), np.nan), np.full(n, np.nan)
    residual = np.full(phase.shape, np.nan)
    for p in range(n):
        good = np.isfinite(phase[p])
        if good.sum() < 5 * k:
            continue
        beta = _huber(columns[good], phase[p, good], weight[p, good])
        residual[p] = phase[p] - columns @ beta
        scale[p] = 1.4826 * np.median(np.abs(residual[p, good]))
        coefficient[p] = beta[1:]
    unit_residual = residual / np.where(scale > 0, scale, np.nan)[:, None]  # without noise there is none
    unit = _unit_covariance(columns, unit_residual, index, stack.sizes["x"])[1:, 1:]
    return coefficient, scale[:, None, None] ** 2 * unit


def _unit_covariance(design, residual, index, width, sample: int = 400) -> np.ndarray:
    """Covariance of least-squares coefficients for residuals of unit size with their variogram in space.

    Turbulence is correlated over the whole scene: pixels are not independent. For contrasts, which slopes are,
    minus the variogram g serves as covariance: Cov(b) = -X+ g X+', X+ the pseudo-inverse of the design.
    """
    at = np.unique(np.linspace(0, index.size - 1, min(sample, index.size)).astype(int))
    row, column = np.divmod(index[at], width)
    distance = np.hypot(row[:, None] - row, column[:, None] - column)
    values = residual[:, at]
    valid = np.isfinite(values).astype(np.float32)
    filled = np.where(valid > 0, values, 0).astype(np.float32)
    count = valid.T @ valid
    square = (filled**2).T @ valid
    # sum over pairs of (r_i - r_j)^2 / 2
    gamma = 0.5 * (square + square.T) - filled.T @ filled
    near = (distance > 0) & (distance <= distance.max() / 3) & (count > 0)
    if not near.any():
        return np.zeros((design.shape[1],) * 2)
    variogram = _power_law(distance[near], (gamma[near] / count[near]), count[near])(distance)
    gain = np.linalg.pinv(design[at])
    covariance = -gain @ variogram @ gain.T
    covariance = 0.5 * (covariance + covariance.T)
    # a fitted variogram need not be conditionally negative definite: keep the covariance non-negative
    value, vector = np.linalg.eigh(covariance)
    return (vector * np.maximum(value, 0)) @ vector.T


def _power_law(distance, gamma, count):
    """Fit a nugget and a power law, g(h) = n + s h^p, to the short lags of a variogram cloud.

    Turbulence is self-similar, so the law extends to long lags, which the regression itself has reduced.
    """
    edges = np.quantile(distance, np.linspace(0, 1, 16))
    bins = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, 14)
    weight = np.bincount(bins, count, 15)
    used = weight > 0
    lag, value = (np.bincount(bins, count * v, 15)[used] / weight[used] for v in (distance, gamma))
    best = None
    for power in np.arange(0.1, 1.95, 0.1):
        rows = np.stack([np.ones_like(lag), lag**power], axis=1) / value[:, None]
        fit, misfit = scipy.optimize.nnls(rows, np.ones_like(lag))
        if best is None or misfit < best[0]:
            best = misfit, power, fit
    _, power, (nugget, slope) = best
    return lambda h: np.where(h > 0, nugget + slope * h**power, 0.0)


def _huber(design, values, weight, iterations: int = 6):
    """Coefficients of Huber regression with prior weights, by iteratively reweighted least squares.

    w <- w0 min(1, 1.345 s / (sqrt(w0) |r|)), s = 1.4826 median(sqrt(w0) |r|)
    """
    w = weight
    for _ in range(iterations):
        normal = design.T @ (design * w[:, None])
        beta = np.linalg.solve(
            normal + 1e-12 * np.trace(normal) * np.eye(len(normal)), design.T @ (w * values)
        )
        scaled = np.abs(values - design @ beta) * np.sqrt(weight)
        scale = max(1.4826 * np.median(scaled), 1e-6)
        w = weight * np.minimum(1, 1.345 * scale / np.maximum(scaled, 1e-12))
    return beta


def _to_dates(stack, pairs, covariance):
    """Weighted least squares from pair to date coefficients: (date, term) and covariance (date, term, term)."""
    a = incidence(stack)
    n_date, n_term = a.shape[1], pairs.shape[1]
    good = np.isfinite(pairs).all(axis=1)
    if not good.any():
        raise ValueError(f"no pair has {5 * (n_term + 1)} usable pixels for the delay fit: widen the mask")
    cov = np.zeros((n_date, n_term, n_term))
    # one weight for all terms, so that all terms of a pair come from one network
    size = np.array([np.trace(c) for c in covariance[good]])
    w = 1 / np.maximum(size, 1e-3 * np.median(size) or size.max() or 1.0)
    normal = a[good].T @ (a[good] * w[:, None])
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    gain = inverse @ (a[good] * w[:, None]).T
    out = gain @ pairs[good]
    for d in range(n_date):
        # pairs of one date share its turbulence: the variance of the date is half their mean, whatever their number
        part = np.abs(gain[d])
        if part.sum() > 0:
            cov[d] = np.tensordot(part / part.sum(), covariance[good], axes=1) / 2
    return out, cov
