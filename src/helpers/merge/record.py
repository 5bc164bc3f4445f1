"""The posterior behind `merge.join`: a piecewise constant rate, a seasonal wave, offsets and rate errors.

Parameters, in this order: the rate on each piece, seasonal coefficients at the knots, an offset and a rate error of
each sensor. All pixels share the design; only weights and data differ, so the work is a few matrix products.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

YEAR = 365.25  # days
SMALLEST_DRIFT_MM_YR = 0.01  # a sensor's rate error is never taken as smaller: its share stays computable


@dataclass(frozen=True)
class Model:
    """What `join` fits, for one set of dates: rows of the design and the prior precision."""

    observed: np.ndarray  # (obs, parameter): ground + offset + drift of the sensor
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
        order = np.argsort(self.at, kind="stable")
        days = np.split(order, np.flatnonzero(np.diff(self.at[order])) + 1)
        return [pair for day in days for pair in itertools.combinations(day, 2)]


def years(dates) -> np.ndarray:
    """Dates as years since 1970."""
    return np.asarray(dates, "datetime64[D]").astype(float) / YEAR


def _segments(knots: np.ndarray, longest_yr: float):
    """Borders of the pieces of constant rate: the knots, and no piece longer than `longest_yr`."""
    borders, is_knot = [knots[0]], [True]
    for a, b in itertools.pairwise(knots):
        n = max(1, int(np.ceil((b - a) / longest_yr - 1e-9)))
        borders.extend(np.linspace(a, b, n + 1)[1:])
        is_knot.extend([False] * (n - 1) + [True])
    return np.array(borders), np.array(is_knot)


def _overlap(start, end, borders) -> np.ndarray:
    """Years of [start, end] in each piece: (n, pieces)."""
    a, b = np.atleast_1d(start)[:, None], np.atleast_1d(end)[:, None]
    return np.clip(np.minimum(b, borders[1:]) - np.maximum(a, borders[:-1]), 0, None)


def _slope_weights(start, end, borders) -> np.ndarray:
    """Share of each piece's rate in the least-squares slope of the path over an epoch: (pieces,), sum 1.

    The slope of a continuous path weighs the rate at t by 6 (t - start) (end - t) / (end - start)^3.
    """
    u = np.clip((borders - start) / (end - start), 0, 1)
    return np.diff(3 * u**2 - 2 * u**3)


def _seasonal(t, knots, harmonics: int) -> np.ndarray:
    """Annual sine and cosine whose size runs linearly between the knots: (n, 2 * harmonics * knots)."""
    hats = np.stack([np.interp(t, knots, row) for row in np.eye(knots.size)], axis=1)
    waves = [f(2 * np.pi * k * t) for k in range(1, harmonics + 1) for f in (np.sin, np.cos)]
    return np.concatenate([hats * w[:, None] for w in waves], axis=1) if waves else np.empty((t.size, 0))


def _walk(first_std: float, step_std: np.ndarray) -> np.ndarray:
    """Precision of a random walk: first value ~ N(0, first_std), steps ~ N(0, step_std)."""
    n = step_std.size + 1
    difference = np.eye(n) - np.eye(n, k=-1)
    return difference.T @ np.diag(1.0 / np.concatenate([[first_std], step_std]) ** 2) @ difference


def build(dates, times, knots, reference, o) -> Model:
    """Design and prior of `join` for the sensors' dates, the wanted times and the knots; o holds its options."""
    t_obs, t_out, t_knot = years(np.concatenate(dates)), years(times), years(knots)
    borders, is_knot = _segments(t_knot, o["segment_yr"])
    middle = (borders[1:] + borders[:-1]) / 2
    jump = np.where(is_knot[1:-1], o["rate_change_std"], 0.0)
    rate_prior = _walk(o["rate_std_first"], np.hypot(o["rate_walk"] * np.sqrt(np.diff(middle)), jump))
    node_prior = _walk(o["seasonal_std"], np.full(t_knot.size - 1, max(o["seasonal_change_std"], 1e-6)))
    blocks = [rate_prior] + [node_prior] * (2 * o["harmonics"])
    n_ground = sum(b.shape[0] for b in blocks)
    n_sensors = len(dates)
    prior = np.zeros((n_ground + 2 * n_sensors,) * 2)
    k = 0
    for b in blocks:
        prior[k : k + len(b), k : k + len(b)] = b
        k += len(b)

    def rows(t):
        ramp = _overlap(np.full(t.size, borders[0]), t, borders)
        return np.concatenate([ramp, _seasonal(t, t_knot, o["harmonics"])], axis=1)

    sensor = np.repeat(np.arange(n_sensors), [len(d) for d in dates])
    since = t_obs - np.array([years(d)[0] for d in dates])[sensor]
    own = np.eye(n_sensors)[sensor]
    epochs = np.stack([_slope_weights(a, b, borders) for a, b in itertools.pairwise(t_knot)])
    pad = ((0, 0), (0, 2 * n_sensors))
    rates = np.pad(epochs, ((0, 0), (0, n_ground - epochs.shape[1] + 2 * n_sensors)))
    observed = np.concatenate([rows(t_obs), own, own * since[:, None]], axis=1)
    at = np.searchsorted(times, np.concatenate(dates))
    return Model(observed, np.pad(rows(t_out), pad), rates, prior, sensor, at, n_ground, reference)


def _outer(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Columns that turn flattened matrices C into the forms u_n C v_n: (parameter^2, n)."""
    return (u[:, :, None] * v[:, None, :]).reshape(len(u), -1).T


def solve(y, variance, drift, model: Model, covariances, deviation, inflation):
    """Posterior of a set of pixels.

    y, variance (pixel, obs) mm; drift (pixel, sensor) mm/yr sd of each sensor's own rate error; covariances: per
    sensor an (n, n) matrix or None; deviation mm sd of the ground about the model; inflation (obs,).
    """
    a, k, s_count = model.observed, model.n_ground, model.n_sensors
    valid = np.isfinite(y) & np.isfinite(variance)
    filled = np.where(valid, y, 0.0)
    total = np.where(valid, variance, 1.0) + deviation**2 * inflation
    weight = np.where(valid, 1.0 / total, 0.0)
    diagonal = np.isin(model.sensor, [s for s in range(s_count) if covariances[s] is None])
    w = weight * diagonal
    normal = (w @ _outer(a, a).T).reshape(len(y), a.shape[1], a.shape[1]) + model.prior
    right = (w * filled) @ a
    for s, cov in enumerate(covariances):
        if cov is None:
            continue
        here = np.flatnonzero(model.sensor == s)
        cov = cov + np.diag(deviation**2 * inflation[here])
        patterns, which = np.unique(valid[:, here], axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            pixels, rows = np.flatnonzero(which.ravel() == i), here[pattern]
            if rows.size:
                gain = np.linalg.solve(cov[np.ix_(pattern, pattern)], a[rows])
                normal[pixels] += a[rows].T @ gain
                right[pixels] += filled[np.ix_(pixels, rows)] @ gain
    count = np.stack([valid[:, model.sensor == s].sum(1) for s in range(s_count)], axis=1)
    o = k + np.arange(s_count)
    # offsets have a flat prior (so a constant added to a series moves nothing else); a sensor without data needs one
    normal[:, o, o] += np.where(count > 0, 1e-12, 1.0)
    drift_precision = 1.0 / np.maximum(drift, SMALLEST_DRIFT_MM_YR) ** 2
    normal[:, o + s_count, o + s_count] += drift_precision
    posterior = np.linalg.inv(normal)
    theta = np.einsum("pij,pj->pi", posterior, right)

    # the ground's own deviation on observed dates: what the data say beyond the model
    precision = np.where(valid, 1.0 / np.where(valid, variance, 1.0), 0.0)
    at_date = np.zeros((len(y), len(model.ground)))
    for s in range(s_count):  # a sensor's dates are unique, so plain indexing adds
        at_date[:, model.at[model.sensor == s]] += precision[:, model.sensor == s]
    share = precision * deviation**2 / (1.0 + deviation**2 * at_date[:, model.at])
    rest = deviation**2 / (1.0 + deviation**2 * at_date)
    g, at, r = model.ground, model.at, model.reference
    square = posterior.reshape(len(y), -1)
    level, spread = theta @ g.T, square @ _outer(g, g)
    to_first = g[r] - share[:, at == r] @ a[at == r]
    first = np.einsum("pij,pj->pi", posterior, to_first)
    cross = first @ g.T
    gain = share * (filled - theta @ a.T)
    own = share * (share * (square @ _outer(a, a)) - 2 * (square @ _outer(g[at], a)))
    back = share * (first @ a.T)
    for s in range(s_count):
        here = model.sensor == s
        level[:, at[here]] += gain[:, here]
        spread[:, at[here]] += own[:, here]
        cross[:, at[here]] -= back[:, here]
    for i, j in model.same_day:
        spread[:, at[i]] += 2 * share[:, i] * share[:, j] * (square @ _outer(a[[i]], a[[j]])[:, 0])
    spread += (to_first * first).sum(1, keepdims=True) - 2 * cross
    spread = np.where(np.arange(len(g)) == r, 0.0, spread + rest + rest[:, r : r + 1])
    rate = theta @ model.rates.T
    to_rate = model.rates @ posterior
    rate_var = (to_rate * model.rates).sum(axis=2)
    # a series that gains b (t - t0) moves the rates by this share of b
    moved_by = -to_rate[:, :, o + s_count] * drift_precision[:, None]
    offset = np.where(count > 0, theta[:, o], np.nan)
    offset_std = np.where(count > 0, np.sqrt(np.abs(posterior[:, o, o])), np.nan)
    out = [
        level - level[:, r : r + 1],
        np.sqrt(np.abs(spread)),
        offset,
        offset_std,
        rate,
        np.sqrt(np.abs(rate_var)),
        moved_by,
    ]
    empty = count.sum(1) == 0
    for v in out:
        v[empty] = np.nan
    return out


def solve_block(y, variance, drift, *, model, covariances, deviation, inflation, lot=512):
    """`solve` on arrays (..., obs), a lot of pixels at a time."""
    shape = y.shape[:-1]
    flat = [np.asarray(v, float).reshape(-1, v.shape[-1]) for v in (y, variance, drift)]
    n_epochs, n_sensors = len(model.rates), model.n_sensors
    sizes = [(len(model.ground),)] * 2 + [(n_sensors,)] * 2 + [(n_epochs,)] * 2 + [(n_epochs, n_sensors)]
    out = [np.full((len(flat[0]), *n), np.nan) for n in sizes]
    used = np.flatnonzero(np.isfinite(flat[0]).any(1))
    for start in range(0, used.size, lot):
        pixels = used[start : start + lot]
        for target, values in zip(
            out, solve(*(v[pixels] for v in flat), model, covariances, deviation, inflation), strict=True
        ):
            target[pixels] = values
    return tuple(v.reshape(*shape, *v.shape[1:]) for v in out)
