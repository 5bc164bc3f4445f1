"""Posterior of the joined record: a piecewise constant rate, an annual term, offsets and rate errors of sensors.

Observation i of sensor s, at time t_i: y_i = g(t_i) + o_s + b_s (t_i - t_s0) + d(t_i) + e_i, with g the ground's model,
o_s the offset, b_s the rate error, d the ground's deviation and e_i the noise. Parameters, in this order: the rate on
each piece, seasonal coefficients at the knots, an offset and a rate error of each sensor. All pixels share the design;
only weights and data differ, so the work is a few matrix products.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag

from helpers.timefunc import annual, years

SMALLEST_DRIFT_MM_YR = 0.01  # a sensor's rate error is never smaller: its contribution stays computable
LONGEST_YR = 1.0  # longest piece of constant rate
PIXELS_AT_ONCE = 512


@dataclass(frozen=True)
class GroundPrior:
    """What is known of the ground beforehand; the first rate has five times the sd of a change."""

    rate_change_std_mm_yr: float = 15.0  # of a jump of the rate at a knot
    rate_walk_mm_yr: float = 3.0  # random walk of the rate: per square root of a year
    seasonal_std_mm: float = 30.0  # of the annual coefficients
    seasonal_change_std_mm: float = 10.0  # of their change from knot to knot


@dataclass(frozen=True)
class SharedErrors:
    """Errors that are the same for all pixels."""

    covariances: list  # per sensor an (n, n) matrix in mm2, or None where dates are independent
    deviation: float  # mm, sd of the ground about the model
    inflation: np.ndarray  # (obs,) factor on the variance of the deviation


@dataclass(frozen=True)
class PiecewiseRateModel:
    """Rows of the design for one set of dates, and the precision of the prior."""

    observed: np.ndarray  # (obs, parameter): ground + offset + rate error of the sensor
    ground: np.ndarray  # (time, parameter): ground alone
    rates: np.ndarray  # (epoch, parameter): least-squares slope of each epoch
    prior: np.ndarray  # (parameter, parameter) precision
    sensor: np.ndarray  # (obs,) number of the sensor
    at: np.ndarray  # (obs,) place of the observation on the time axis
    n_ground: int
    reference: int  # place of the date where displacement is 0

    @property
    def n_sensors(self) -> int:
        """Number of sensors."""
        return int(self.sensor.max()) + 1

    @property
    def same_day(self) -> list[tuple[int, int]]:
        """Pairs of observations of one day."""
        days = [np.flatnonzero(self.at == day) for day in np.unique(self.at)]
        return [pair for day in days for pair in itertools.combinations(day, 2)]


def days_to_years(dates) -> np.ndarray:
    """Days as years since 1970, the origin of the annual term here."""
    return years(np.asarray(dates, "datetime64[D]"), since="1970-01-01")


def _segments(knots):
    """Borders of the pieces of constant rate: the knots, and no piece longer than LONGEST_YR."""
    counts = np.maximum(1, np.ceil(np.diff(knots) / LONGEST_YR - 1e-9).astype(int))
    pieces = [
        np.linspace(a, b, n + 1)[1:] for (a, b), n in zip(itertools.pairwise(knots), counts, strict=True)
    ]
    borders = np.concatenate([knots[:1], *pieces])
    return borders, np.isin(np.arange(borders.size), np.cumsum([0, *counts]))


def _slope_weights(start, end, borders):
    """Share of each piece's rate in the least-squares slope of the path over an epoch: (pieces,), sum 1.

    The slope of a continuous path weighs the rate at t by 6 (t - start) (end - t) / (end - start)^3.
    """
    u = np.clip((borders - start) / (end - start), 0, 1)
    return np.diff(3 * u**2 - 2 * u**3)


def _walk(first_std, step_std):
    """Precision of a random walk: first value ~ N(0, first_std^2), steps ~ N(0, step_std^2)."""
    n = step_std.size + 1
    # P = D' diag(1 / sd^2) D, D x = (x_1, x_2 - x_1, ...)
    difference = np.eye(n) - np.eye(n, k=-1)
    return difference.T @ np.diag(1.0 / np.concatenate([[first_std], step_std]) ** 2) @ difference


def piecewise_rate_model(dates, times, knots, reference, ground: GroundPrior) -> PiecewiseRateModel:
    """Design and prior for the sensors' dates, the times of the record and the knots."""
    t_obs, t_out, t_knot = (days_to_years(d) for d in (np.concatenate(dates), times, knots))
    borders, is_knot = _segments(t_knot)
    middle = (borders[1:] + borders[:-1]) / 2
    jump = np.where(is_knot[1:-1], ground.rate_change_std_mm_yr, 0.0)
    # var(rate_k+1 - rate_k) = walk^2 (distance of the middles) + jump^2 at a knot
    steps = np.hypot(ground.rate_walk_mm_yr * np.sqrt(np.diff(middle)), jump)
    rate_prior = _walk(5.0 * ground.rate_change_std_mm_yr, steps)
    node_steps = np.full(t_knot.size - 1, max(ground.seasonal_change_std_mm, 1e-6))
    node_prior = _walk(ground.seasonal_std_mm, node_steps)
    n_sensors, n_ground = len(dates), len(rate_prior) + 2 * len(node_prior)
    prior = block_diag(rate_prior, node_prior, node_prior, np.zeros((2 * n_sensors,) * 2))

    def rows(t):
        """Integral of the rate from the first border; annual wave whose size runs linearly between knots."""
        ramp = np.clip(np.minimum(t[:, None], borders[1:]) - borders[:-1], 0, None)
        hats = np.stack([np.interp(t, t_knot, row) for row in np.eye(t_knot.size)], axis=1)
        return np.concatenate([ramp, *(hats * wave[:, None] for wave in annual(t).T)], axis=1)

    sensor = np.repeat(np.arange(n_sensors), [len(d) for d in dates])
    since = t_obs - np.array([days_to_years(d)[0] for d in dates])[sensor]
    own = np.eye(n_sensors)[sensor]
    epochs = np.stack([_slope_weights(a, b, borders) for a, b in itertools.pairwise(t_knot)])
    observed = np.concatenate([rows(t_obs), own, own * since[:, None]], axis=1)
    path, rates = (np.pad(m, ((0, 0), (0, len(prior) - m.shape[1]))) for m in (rows(t_out), epochs))
    at = np.searchsorted(times, np.concatenate(dates))
    return PiecewiseRateModel(observed, path, rates, prior, sensor, at, n_ground, reference)


def _outer(u, v):
    """Columns that turn flattened matrices C into the forms u_n C v_n: (parameter^2, n)."""
    return (u[:, :, None] * v[:, None, :]).reshape(len(u), -1).T


def _normal_equations(filled, valid, variance, model, errors):
    """Normal matrices (pixel, parameter, parameter) and right sides: A' V^-1 A + P and A' V^-1 y.

    V is diagonal, variance + inflation deviation^2, or a sensor's covariance with the deviation on its diagonal.
    """
    a = model.observed
    weight = np.where(valid, 1.0 / (variance + errors.deviation**2 * errors.inflation), 0.0)
    w = weight * np.array([cov is None for cov in errors.covariances])[model.sensor]
    normal = (w @ _outer(a, a).T).reshape(len(filled), a.shape[1], a.shape[1]) + model.prior
    right = (w * filled) @ a
    for s, cov in ((s, cov) for s, cov in enumerate(errors.covariances) if cov is not None):
        here = np.flatnonzero(model.sensor == s)
        cov = cov + np.diag(errors.deviation**2 * errors.inflation[here])
        # pixels with the same dates share the factor V^-1 A
        patterns, which = np.unique(valid[:, here], axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            pixels, rows = np.flatnonzero(which.ravel() == i), here[pattern]
            gain = np.linalg.solve(cov[np.ix_(pattern, pattern)], a[rows])
            normal[pixels] += a[rows].T @ gain
            right[pixels] += filled[np.ix_(pixels, rows)] @ gain
    return normal, right


def _path(theta, covariance, filled, precision, model, deviation):
    """Ground at the record's times less that at the reference date, and its variance.

    Given the parameters, the deviation at a date is known from its observations: with p_i = 1 / v_i and s = deviation,
    its mean is sum_i k_i (y_i - A_i theta), k_i = p_i s^2 / (1 + s^2 sum_j p_j), and its variance
    r = s^2 / (1 + s^2 sum_j p_j). With h = G - sum_i k_i A_i the row of a date, the variance of the difference is
    (h - h_ref)' C (h - h_ref) + r + r_ref.
    """
    a, g, at, ref = model.observed, model.ground, model.at, model.reference
    at_date = np.zeros((len(filled), len(g)))
    for s in range(model.n_sensors):  # a sensor's dates are unique, so plain indexing adds
        at_date[:, at[model.sensor == s]] += precision[:, model.sensor == s]
    gain = precision * deviation**2 / (1.0 + deviation**2 * at_date[:, at])
    rest = deviation**2 / (1.0 + deviation**2 * at_date)
    square = covariance.reshape(len(filled), -1)
    level, variance = theta @ g.T, square @ _outer(g, g)
    to_first = g[ref] - gain[:, at == ref] @ a[at == ref]  # h_ref
    first = np.einsum("pij,pj->pi", covariance, to_first)  # C h_ref
    cross = first @ g.T
    update = gain * (filled - theta @ a.T)
    own = gain * (gain * (square @ _outer(a, a)) - 2 * (square @ _outer(g[at], a)))
    back = gain * (first @ a.T)
    for s in range(model.n_sensors):
        here = model.sensor == s
        level[:, at[here]] += update[:, here]
        variance[:, at[here]] += own[:, here]
        cross[:, at[here]] -= back[:, here]
    for i, j in model.same_day:
        variance[:, at[i]] += 2 * gain[:, i] * gain[:, j] * (square @ _outer(a[[i]], a[[j]])[:, 0])
    variance += (to_first * first).sum(1, keepdims=True) - 2 * cross
    variance = np.where(np.arange(len(g)) == ref, 0.0, variance + rest + rest[:, ref : ref + 1])
    return level - level[:, ref : ref + 1], variance


def posterior(y, variance, drift, model: PiecewiseRateModel, errors: SharedErrors) -> list[np.ndarray]:
    """Posterior of a set of pixels: theta = C A' V^-1 y with C = (A' V^-1 A + P)^-1.

    y, variance: (pixel, obs) in mm, mm2, NaN = no data; drift: (pixel, sensor) mm/yr, sd of each sensor's rate error.
    Returns displacement, offset, rate and their sd (pixel, time | sensor | epoch); the contribution.
    """
    n, k = model.n_sensors, model.n_ground
    valid = np.isfinite(y) & np.isfinite(variance)
    filled, variance = np.where(valid, y, 0.0), np.where(valid, variance, 1.0)
    normal, right = _normal_equations(filled, valid, variance, model, errors)
    count = np.stack([valid[:, model.sensor == s].sum(1) for s in range(n)], axis=1)
    o = k + np.arange(n)
    # offsets have a flat prior (so a constant added to a series moves nothing else); a sensor without data needs one
    normal[:, o, o] += np.where(count > 0, 1e-12, 1.0)
    drift_precision = 1.0 / np.maximum(drift, SMALLEST_DRIFT_MM_YR) ** 2
    normal[:, o + n, o + n] += drift_precision
    covariance = np.linalg.inv(normal)
    theta = np.einsum("pij,pj->pi", covariance, right)
    precision = np.where(valid, 1.0 / variance, 0.0)
    displacement, displacement_var = _path(theta, covariance, filled, precision, model, errors.deviation)
    rate = theta @ model.rates.T
    to_rate = model.rates @ covariance
    rate_var = (to_rate * model.rates).sum(axis=2)
    # a series of sensor s that gains b (t - t0) moves the rates by -R C[:, b_s] / drift_s^2 of b
    contribution = -to_rate[:, :, o + n] * drift_precision[:, None]
    offset, offset_var = (np.where(count > 0, v, np.nan) for v in (theta[:, o], covariance[:, o, o]))
    displacement_std, offset_std, rate_std = (
        np.sqrt(np.abs(v)) for v in (displacement_var, offset_var, rate_var)
    )
    out = [displacement, displacement_std, offset, offset_std, rate, rate_std, contribution]
    for v in out:
        v[count.sum(1) == 0] = np.nan
    return out


def pixel_posteriors(y, variance, drift, *, model: PiecewiseRateModel, errors: SharedErrors) -> tuple:
    """`posterior` on arrays (..., obs), PIXELS_AT_ONCE at a time."""
    shape = y.shape[:-1]
    flat = [np.asarray(v, float).reshape(-1, v.shape[-1]) for v in (y, variance, drift)]
    n_epochs, n_sensors = len(model.rates), model.n_sensors
    sizes = [(len(model.ground),)] * 2 + [(n_sensors,)] * 2 + [(n_epochs,)] * 2 + [(n_epochs, n_sensors)]
    out = [np.full((len(flat[0]), *n), np.nan) for n in sizes]
    used = np.flatnonzero(np.isfinite(flat[0]).any(1))
    for start in range(0, used.size, PIXELS_AT_ONCE):
        pixels = used[start : start + PIXELS_AT_ONCE]
        for target, values in zip(out, posterior(*(v[pixels] for v in flat), model, errors), strict=True):
            target[pixels] = values
    return tuple(v.reshape(*shape, *v.shape[1:]) for v in out)
