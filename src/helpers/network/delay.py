"""Atmospheric and ionospheric delay: what depends on place and height is removed, what is left is measured."""

from __future__ import annotations

import dask.array as da
import numpy as np
import scipy.optimize
import xarray as xr

from helpers.network.graph import by_blocks, components, dates, incidence
from helpers.network.reference import DAYS_PER_YEAR
from inversion import phase_noise

MAX_SAMPLE = 3000  # pixels are enough for a handful of coefficients


def correct_delay(
    stack: xr.Dataset,
    ramp: int = 1,
    height: bool = True,
    *,
    mask: xr.DataArray | None = None,
    ionosphere: bool | None = None,
    stable_rate_std_mm_yr: float = 1.0,
) -> xr.Dataset:
    """Remove a ramp and a phase-height term per date.

    The coefficients of each pair are fitted robustly (Huber) outside deforming ground, then solved for dates
    through the network, so that the correction closes every loop and deformation of one pair cannot enter
    alone. A motion that follows place or height cannot be told from a delay that does. So without a mask of
    stable ground the correction holds neither rate nor season. With a mask it holds the season; of the rate it
    holds the share that is delay rather than motion of the stable ground: many dates average delay out, and
    then a rate of the coefficients is the ground's; few dates, or an ionosphere, do not.

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
    ionosphere : bool, optional
        Quadratic surface whatever ``ramp`` is; default True at L band, where the ionosphere is 18 times
        that of C band.
    stable_rate_std_mm_yr : float
        Sd of the rate that stable ground itself may have across half the scene, or per km of height.

    Returns
    -------
    Dataset
        As ``stack``, with ``delay_coefficient`` (time, term) in rad per unit (unit: half the scene's size for
        places, km for height), ``delay_coefficient_std``, ``delay_std`` (time) in mm: sd of the
        correction, rms over the scene, relative to the reference pixel. Attribute ``delay_rate_std`` (mm/yr): sd of
        the rate that delay may still hold, or the correction have taken from the ground, likewise.

    Notes
    -----
    The standard deviations come from the variogram of the residuals at short lags. Where the relief is as smooth
    as turbulence they are too small: by 1.3 to 1.8 in simulated scenes of 60 x 80 pixels.
    """
    if ramp not in (0, 1, 2):
        raise ValueError(f"ramp={ramp!r}: choose 0, 1 or 2")
    if ionosphere is None:
        ionosphere = stack.attrs.get("band") == "L"
    with_height = height and "height" in stack
    basis = _basis(stack, 2 if ionosphere else ramp, with_height)
    days = dates(stack)
    out = stack.copy()
    out.attrs["delay_terms"] = ", ".join(basis["term"].values.tolist()) or "none"
    if height and not with_height:
        out.attrs["delay_height_term"] = "not fitted: the stack has no height"
    if basis.sizes["term"] == 0:
        return out
    pairs, pair_cov = _pair_coefficients(stack, basis, mask)
    coefficient, covariance = _to_dates(stack, pairs, pair_cov)
    coefficient, rate_variance = _without_ground(stack, coefficient, mask is None, stable_rate_std_mm_yr)

    field = _relative(basis, stack)
    per_pair = incidence(stack) @ coefficient
    phase = stack["unwrapped_phase"]
    out["unwrapped_phase"] = phase.copy(
        data=_subtract(phase.transpose("pair", "y", "x").data, per_pair, field.values)
    )
    flat = field.values.reshape(field.sizes["term"], -1)
    flat = flat[:, np.isfinite(flat).all(axis=0)]
    second_moment = flat @ flat.T / flat.shape[1]
    to_mm = stack.attrs["wavelength_m"] / (4 * np.pi) * 1000
    std = np.sqrt(np.einsum("dij,ij->d", covariance, second_moment)) * to_mm
    out.attrs["delay_rate_std"] = float(np.sqrt(rate_variance @ np.diag(second_moment)))
    out = out.assign_coords(time=("time", days), term=basis["term"])
    return out.assign(
        delay_coefficient=(("time", "term"), coefficient, {"units": "rad", "long_name": "delay per unit"}),
        delay_coefficient_std=(("time", "term"), np.sqrt(np.einsum("dii->di", covariance)), {"units": "rad"}),
        delay_std=("time", std, {"units": "mm", "long_name": "sd of the delay correction"}),
    )


def _basis(stack, order: int, with_height: bool) -> xr.DataArray:
    """Columns (term, y, x): place from -1 to 1 across the longer side, height in km about its median."""
    x, y = stack["x"].values, stack["y"].values
    # degrees of longitude shrink with latitude; metres do not
    shrink = np.cos(np.radians(y.mean())) if stack.rio.crs is None or stack.rio.crs.is_geographic else 1.0
    u, v = (x - x.mean()) * shrink, y - y.mean()
    half = max(np.ptp(u), np.ptp(v), 1e-12) / 2
    u, v = np.meshgrid(u / half, v / half)
    columns = {}
    if order >= 1:
        columns |= {"east": u, "north": v}
    if order >= 2:
        columns |= {"east2": u**2, "north2": v**2, "east_north": u * v}
    if with_height:
        h = stack["height"].values.astype(float) / 1000
        columns["height"] = h - np.nanmedian(h)
    values = np.array(list(columns.values())).reshape(-1, y.size, x.size)
    return xr.DataArray(
        values, dims=("term", "y", "x"), coords={"term": list(columns), "y": stack["y"], "x": stack["x"]}
    )


def _without_ground(stack, coefficient, season_too: bool, rate_std_mm_yr: float):
    """Take out of date coefficients (time, term) what is more likely motion of the ground than delay.

    Also gives the variance (mm2/yr2, by term) of the error that is left in the rate: all that the scatter of dates
    makes of a rate where none is taken for delay, else the posterior variance of delay's share.
    """
    columns, fit = _projector(stack)
    if columns.shape[1] == 0:
        return coefficient, np.zeros(coefficient.shape[1])
    ground = fit @ coefficient
    part = components(stack)
    level = (part[:, None] == np.arange(part.max() + 1)).astype(float)
    design = np.concatenate([columns, level], axis=1)
    scatter = coefficient - design @ (np.linalg.pinv(design) @ coefficient)
    variance = (scatter**2).sum(axis=0) / max(len(scatter) - design.shape[1], 1)
    to_mm = stack.attrs["wavelength_m"] / (4 * np.pi) * 1000
    # what the scatter of dates makes of a rate, against what the ground may have
    by_delay = variance * (fit[0] ** 2).sum() * to_mm**2
    if season_too:
        return coefficient - columns @ ground, by_delay
    share = by_delay / (by_delay + rate_std_mm_yr**2)
    return coefficient - columns[:, :1] * ((1 - share) * ground[0]), share * rate_std_mm_yr**2


def _relative(basis, stack) -> xr.DataArray:
    """Basis relative to the reference pixel (else to its mean), where the correction must be zero."""
    if {"reference_y", "reference_x"} <= set(stack.attrs):
        at = basis.sel(y=stack.attrs["reference_y"], x=stack.attrs["reference_x"], method="nearest")
        at = at.where(np.isfinite(at), 0)
    else:
        at = basis.mean(("y", "x"))
    return (basis - at).drop_vars(("y", "x"), errors="ignore").transpose("term", "y", "x")


def _subtract(phase, per_pair, field):
    """Phase (pair, y, x) less per_pair (pair, term) times field (term, y, x)."""
    per_pair, field = per_pair.astype(np.float32), field.astype(np.float32)

    def less(phase, field):
        return phase - np.tensordot(per_pair, field, axes=1)

    if isinstance(phase, da.Array):
        phase = phase.rechunk({0: -1})
        field = da.from_array(field, chunks=(-1, *phase.chunks[1:]))
        return da.blockwise(less, "pyx", phase, "pyx", field, "kyx", concatenate=True, dtype=phase.dtype)
    return less(phase, field)


def _sample(stack, mask, limit=MAX_SAMPLE) -> np.ndarray:
    """Flat indices of up to ``limit`` pixels of the mask that have data, evenly spread."""
    valid = stack["unwrapped_phase"].notnull().mean("pair").values.ravel()
    allowed = np.ones(valid.size, bool)
    if mask is not None:
        allowed = np.asarray(mask.values if isinstance(mask, xr.DataArray) else mask, bool).ravel()
        if allowed.size != valid.size:
            raise ValueError(f"mask has {allowed.size} pixels, the stack {valid.size}")
    # pixels that are often missing would make every pair another sample
    index = np.flatnonzero(allowed & (valid >= 0.5 * valid.max()))
    if index.size < 30:
        raise ValueError(f"only {index.size} usable pixels for the delay fit, need 30: widen the mask")
    return index[:: int(np.ceil(index.size / limit))]


def _columns(array, index) -> np.ndarray:
    """Values (pair, sample) at flat pixel indices, read without the rest of the stack where it is lazy."""
    data = array.transpose(..., "y", "x").data
    row, column = np.unravel_index(index, data.shape[-2:])
    if isinstance(data, da.Array):
        return data.vindex[..., row, column].compute() if data.ndim == 2 else _vindex(data, row, column)
    return np.asarray(data[..., row, column], float)


def _vindex(data, row, column):
    # dask puts the pointwise axis first
    return np.asarray(data.vindex[:, row, column].compute(), float).T


def _pair_coefficients(stack, basis, mask):
    """Robust fit per pair: coefficients (pair, term) and covariance (pair, term, term)."""
    index = _sample(stack, mask)
    phase = _columns(stack["unwrapped_phase"], index)
    if mask is None:
        phase = _fit_ground(stack, phase)[1]
    columns = np.concatenate([np.ones((1, index.size)), _columns(basis, index)]).T
    usable = np.isfinite(columns).all(axis=1)
    phase, columns, index = phase[:, usable], columns[usable], index[usable]
    weight = np.ones_like(phase)
    if "coherence" in stack and "looks" in stack.attrs:
        noise = phase_noise.phase_variance(_columns(stack["coherence"], index), stack.attrs["looks"])
        weight = 1 / (noise + 0.5)  # turbulence, about 0.7 rad, keeps coherent pixels from ruling alone
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
    unit = _unit_covariance(columns, residual / scale[:, None], index, stack.sizes["x"])[1:, 1:]
    return coefficient, scale[:, None, None] ** 2 * unit


def _unit_covariance(design, residual, index, width, sample: int = 400) -> np.ndarray:
    """Covariance of least-squares coefficients for residuals of unit size with their variogram in space.

    Turbulence is correlated over the whole scene: pixels are not independent. For contrasts, which slopes are,
    minus the variogram serves as covariance.
    """
    at = np.unique(np.linspace(0, index.size - 1, min(sample, index.size)).astype(int))
    row, column = np.divmod(index[at], width)
    distance = np.hypot(row[:, None] - row, column[:, None] - column)
    values = residual[:, at]
    valid = np.isfinite(values).astype(np.float32)
    filled = np.where(valid > 0, values, 0).astype(np.float32)
    count = valid.T @ valid
    square = (filled**2).T @ valid
    gamma = 0.5 * (square + square.T) - filled.T @ filled  # half the summed squared differences
    near = (distance > 0) & (distance <= distance.max() / 3) & (count > 0)
    variogram = _power_law(distance[near], (gamma[near] / count[near]), count[near])(distance)
    gain = np.linalg.pinv(design[at])
    covariance = -gain @ variogram @ gain.T
    covariance = 0.5 * (covariance + covariance.T)
    # a rough variogram need not be exactly valid: keep the covariance non-negative
    value, vector = np.linalg.eigh(covariance)
    return (vector * np.maximum(value, 0)) @ vector.T


def _power_law(distance, gamma, count):
    """Fit a nugget and a power law to a variogram cloud: turbulence is self-similar, its short lags say the long.

    The long lags themselves are of no use: the regression has taken its share of them.
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


def _huber(design, values, weight, turns: int = 6):
    """Coefficients of Huber regression with prior weights."""
    w = weight
    for _ in range(turns):
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
    out = np.zeros((n_date, n_term))
    cov = np.zeros((n_date, n_term, n_term))
    # one weight for all terms, else the terms of a pair would come from different networks
    size = np.array([np.trace(c) for c in covariance[good]])
    w = 1 / np.maximum(size, 1e-3 * np.median(size))
    normal = a[good].T @ (a[good] * w[:, None])
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    gain = inverse @ (a[good] * w[:, None]).T
    out = gain @ pairs[good]
    for d in range(n_date):
        # pairs of one date share its turbulence: the date's error is that of its pairs' mean, not of their number
        share = np.abs(gain[d])
        if share.sum() > 0:
            cov[d] = np.tensordot(share / share.sum(), covariance[good], axes=1) / 2
    return out, cov


# --- what is left --------------------------------------------------------------------------------


def _ground_columns(days) -> np.ndarray:
    """Rate and season (date, parameter), as many columns as the number of dates and the span allow."""
    t = _years(days)
    turn = 2 * np.pi * t
    columns = [t]
    if len(t) >= 15 and t[-1] > 0.8:
        columns += [np.sin(turn), np.cos(turn)]
    if len(t) >= 40 and t[-1] > 1.5:
        columns += [np.sin(2 * turn), np.cos(2 * turn)]
    if len(t) < 5:
        columns = []
    return np.array(columns).reshape(len(columns), -1).T


def _years(days) -> np.ndarray:
    return np.asarray((days - days[0]) / np.timedelta64(1, "D"), float) / DAYS_PER_YEAR


def _projector(stack) -> tuple[np.ndarray, np.ndarray]:
    """Columns of rate and season (date, parameter), and the matrix (parameter, date) that fits them to a history.

    Each connected part of the network has its own level: nothing says how they hang together.
    """
    columns = _ground_columns(dates(stack))
    part = components(stack)
    level = (part[:, None] == np.arange(part.max() + 1)).astype(float)
    return columns, np.linalg.pinv(np.concatenate([columns, level], axis=1))[: columns.shape[1]]


def _fit_ground(stack, values):
    """Rate and season per pixel: parameters (parameter, pixel) and residuals of the pairs (pair, pixel).

    Pairs share the delay of their dates, so the fit is made to the history of dates, not to the pairs. Missing
    pairs, and with them the gaps, are what the fit says of them: parameters p solve p = F (y where seen, H p
    where missing), F from pairs to parameters, H back.
    """
    a = incidence(stack)
    columns, fit = _projector(stack)
    values = np.asarray(values, np.float32)
    k = columns.shape[1]
    if k == 0:
        return np.zeros((0, values.shape[1])), values
    from_pairs = fit @ np.linalg.pinv(a.T @ a, hermitian=True) @ a.T
    to_pairs = a @ columns
    missing = ~np.isfinite(values)
    outer = (from_pairs.T[:, :, None] * to_pairs[:, None, :]).reshape(len(a), k * k)
    unseen = (missing.T.astype(np.float32) @ outer.astype(np.float32)).reshape(-1, k, k)
    seen = np.where(missing, np.float32(0), values).T @ from_pairs.T.astype(np.float32)
    # a pixel that sees next to nothing of a parameter gets nearly none of it
    system = (1 + 1e-3) * np.eye(k) - unseen
    parameters = np.linalg.solve(system, seen.astype(float)[..., None])[..., 0].T
    return parameters, values - (to_pairs.astype(np.float32) @ parameters.astype(np.float32))


def atmosphere(stack: xr.Dataset, *, mask: xr.DataArray | None = None) -> xr.DataArray:
    """Sd per date (mm) of the delay that is left, shared by all pairs of the date.

    Rate and season are fitted per pixel and taken off; the variance over the scene of what is left of each
    pair, less the decorrelation noise its coherence predicts, is split into variances of its two dates (maximum
    likelihood, drawn to their mean as much as two pairs would). What all pixels share is not in it: that is the
    reference's error, `reference_rate_std`.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x), corrected and referenced.
    mask : DataArray of bool (y, x), optional
        Pixels to use, e.g. stable ground.

    Returns
    -------
    DataArray, dims (time,)
        mm in line of sight; attribute ``mean_mm``.
    """
    index = _sample(stack, mask)
    to_mm = stack.attrs["wavelength_m"] / (4 * np.pi) * 1000
    mm = -to_mm * _columns(stack["unwrapped_phase"], index)
    days = dates(stack)
    a = incidence(stack)
    parameters, residual = _fit_ground(stack, mm)
    enough = np.isfinite(residual).sum(axis=1) >= 30
    centre = np.nanmedian(residual[enough], axis=1, keepdims=True)
    variance = np.full(len(residual), np.nan)
    variance[enough] = (1.4826 * np.nanmedian(np.abs(residual[enough] - centre), axis=1)) ** 2
    if "coherence" in stack and "looks" in stack.attrs:
        noise = (
            phase_noise.phase_variance(_columns(stack["coherence"], index), stack.attrs["looks"]) * to_mm**2
        )
        variance[enough] -= np.nanmedian(np.where(np.isfinite(mm), noise, np.nan)[enough], axis=1)
    # the fitted parameters took their share of the delay with them
    variance = np.maximum(variance, 0) * len(days) / max(len(days) - 1 - len(parameters), 1)
    per_date = _split(np.abs(a), variance)
    return xr.DataArray(
        np.sqrt(per_date),
        dims="time",
        coords={"time": days},
        name="atmosphere_std",
        attrs={
            "units": "mm",
            "long_name": "sd of the delay left per date",
            "mean_mm": float(np.sqrt(np.mean(per_date))),
        },
    )


def _split(joins, variance, pull: float = 2.0, turns: int = 200) -> np.ndarray:
    """Variances of dates from variances of pairs, each known to a share of itself (maximum gamma likelihood).

    Turbulence leaves a scene some ten independent places, so a pair's variance is known to 45 %; dates scatter
    by about 60 % about their mean: the mean weighs as much as two pairs of the date and no variance gets zero.
    """
    good = np.isfinite(variance)
    if not good.any():
        raise ValueError("no pair has 30 valid pixels: the delay cannot be estimated")
    joins, variance = joins[good], variance[good]
    mean = max(variance.mean() / 2, 1e-6)
    dates_variance = np.full(joins.shape[1], mean)
    for _ in range(turns):
        expected = joins @ dates_variance
        above = joins.T @ (variance / expected**2) + pull * mean / dates_variance**2
        below = joins.T @ (1 / expected) + pull / dates_variance
        dates_variance = dates_variance * np.sqrt(above / below)
    return dates_variance


def stable_ground(
    stack: xr.Dataset, *, share: float = 0.4, max_motion_mm: float = np.inf, max_delay_mm: float = 10.0
) -> xr.DataArray:
    """Find the pixels that move least: a mask for `correct_delay` from the data alone.

    Rate and annual term are fitted per pixel. What a plane and the height, both zero at the reference, explain
    of them is or may be delay; it is fitted to the stable pixels themselves (least trimmed squares) and taken
    off, as far as delay can be the reason. The pixels with the least motion left are stable.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x).
    share : float
        Share of the valid pixels to call stable; more than really are, and the mask holds moving ground.
    max_motion_mm : float
        Largest motion of a stable pixel: three years of rate (or the span, if shorter) and the seasonal
        amplitude, added in squares.
    max_delay_mm : float
        Most that delay may make of such motion, rms over the scene: a few mm on average over many dates.

    Returns
    -------
    DataArray of bool (y, x)
        Attribute ``covers``: extent of the stable pixels (5 to 95 %) as a share of the scene's, the smaller of
        the two directions. A ramp fitted to a corner says little of the rest.
    """
    shape = (stack.sizes["y"], stack.sizes["x"])
    often = stack["unwrapped_phase"].notnull().mean("pair").values >= 0.25
    index = np.flatnonzero(often)
    days = dates(stack)
    parameters = _ground_of(stack, often)[:3]
    if len(parameters) == 0:
        raise ValueError(f"{len(days)} dates are too few to find stable ground: give a mask")
    span = float((days[-1] - days[0]) / np.timedelta64(1, "D")) / DAYS_PER_YEAR
    parameters[0] *= min(span, 3.0)  # rate over the span and seasonal swing, both in mm
    columns = _columns(_relative(_basis(stack, 1, "height" in stack), stack), index).T
    if not {"reference_y", "reference_x"} <= set(stack.attrs):
        columns = np.concatenate([np.ones((index.size, 1)), columns], axis=1)
    usable = np.isfinite(columns).all(axis=1)
    motion = np.full(index.size, np.inf)
    motion[usable] = _trimmed(columns[usable], parameters[:, usable].T, share, max_delay_mm)
    out = np.zeros(shape, bool)
    limit = min(np.quantile(motion[usable], share), max_motion_mm)
    out.ravel()[index[motion <= limit]] = True
    row, column = np.nonzero(out)
    spans = [
        np.ptp(np.quantile(at, [0.05, 0.95])) / (0.9 * (n - 1))
        for at, n in zip((row, column), shape, strict=True)
    ]
    return xr.DataArray(
        out,
        dims=("y", "x"),
        coords={"y": stack["y"], "x": stack["x"]},
        name="stable",
        attrs={"covers": float(min(*spans, 1.0))},
    )


def _ground_of(stack, often) -> np.ndarray:
    """Rate and season in mm (parameter, pixel) of the pixels marked (y, x), by blocks where the stack is lazy."""
    to_mm = -stack.attrs["wavelength_m"] / (4 * np.pi) * 1000
    parts, start = [], 0
    for rows, _ in by_blocks(stack["unwrapped_phase"].transpose("pair", "y", "x")):
        here = often[start : (start := start + rows.sizes["y"])]
        parts.append(_fit_ground(stack, to_mm * rows.values[:, here].astype(float))[0])
    return np.concatenate(parts, axis=1)


def _trimmed(design, values, share, limit, turns: int = 30) -> np.ndarray:
    """Size of the residual of each row after least trimmed squares on the ``share`` of smallest ones.

    What the fit explains is kept within ``limit``, rms over all rows: beyond that it is no delay.
    """
    size = np.sqrt((values**2).sum(axis=1))
    kept = None
    for _ in range(turns):
        best = size <= np.quantile(size, share)
        if kept is not None and np.array_equal(best, kept):
            break
        kept = best
        fitted = design @ np.linalg.lstsq(design[best], values[best], rcond=None)[0]
        fitted *= np.minimum(1, limit / np.maximum(np.sqrt(np.mean(fitted**2, axis=0)), 1e-9))
        size = np.sqrt(((values - fitted) ** 2).sum(axis=1))
    return size
