"""What the kernels need beyond the data: model, noise and prior as matrices over the network's dates, arrays only."""

from typing import NamedTuple

import numpy as np

from . import ordering
from .ordering import Pattern


class Network(NamedTuple):
    """Pairs, model and noise of a stack; n dates, k columns of the model."""

    first: np.ndarray  # (pair,) date index of the earlier image
    second: np.ndarray
    design: np.ndarray  # (n, k) intercept first, rate last
    height: int  # column of the height error, or -1
    delay: np.ndarray  # (n,) mm, standard deviation of the delay per date
    noise: dict  # fields unit, mm_per_rad, variance and pair_variance of `Plan`


class Plan(NamedTuple):
    """What is the same for every pixel; n dates, k border columns (rate last), N unknowns."""

    interpolate: bool  # the model only closes gaps; else it is a prior with a stated deviation
    unit: bool  # equal weights, scaled by the residual
    free: bool  # no model: NaN where data do not join the first date
    spread: bool  # standard deviations of the series wanted
    statistics: bool  # statistics of the residuals and components wanted
    mm_per_rad: float
    variance: np.ndarray  # (bin,) mm2 by coherence, and the step to the next bin: two singles in a double
    pair_variance: np.ndarray  # (pair,) mm2
    smallest_unit: float  # mm2, lower bound of the estimated unit variance
    dates: Pattern  # graph of dates joined by pairs
    date_entry: np.ndarray  # (pair,)
    unknowns: Pattern  # graph of the unknowns (the same, or delay and ground apart)
    entry: np.ndarray  # (pair,)
    excess: np.ndarray  # (N,) prior: excess of the diagonal
    couple: np.ndarray  # (entry,) prior: edges
    border: np.ndarray  # (N, k) prior: unknowns against coefficients
    corner: np.ndarray  # (k, k) prior: coefficients
    scale: np.ndarray  # (k or k - 1,) size of the border's pivots with perfect data
    first: np.ndarray  # (pair,) position of the unknown that is the reference image's
    second: np.ndarray
    ground: np.ndarray  # (n,) position of the unknown behind displacement
    share: np.ndarray  # (n,) factor of that unknown
    shift: np.ndarray  # (2, n, k) coefficients in displacement, and in displacement minus model
    extra: np.ndarray  # (2, n) mm2 added to their variance
    design: np.ndarray  # (n, k)
    delay: np.ndarray  # (n,) mm2
    height: int  # column of the height error, or -1


def interpolation_plan(network: Network, *, free: bool) -> Plan:
    """Plan of classical SBAS (``free``) and of the limit in which the model only closes gaps."""
    n, k = network.design.shape
    dates = ordering.pattern(n, network.first, network.second, np.arange(n)[::-1])
    centred = network.design - network.design.mean(axis=0)
    unused = {"excess": np.zeros(n), "couple": np.zeros(len(dates.row)), "border": np.zeros((n, k))}
    unused |= {"corner": np.eye(k), "scale": (centred**2).sum(axis=0)[1:]}
    unused |= {"share": np.ones(n), "shift": np.zeros((2, n, k)), "extra": np.zeros((2, n))}
    return _in_order(
        network, dates, dates, dates.position, unused,
        interpolate=True, free=free, delay=network.delay**2, smallest_unit=0.0,
    )  # fmt: skip


def posterior_plan(network: Network, deviation: float, correlation: np.ndarray | None) -> Plan:
    """Plan of the Bayesian inversion: ground d = B p + deviation, and a delay of its own per date.

    White deviation: the unknown is x = d + delay with sd tau = sqrt(sigma_d2 + sigma_a2) about the model, and the
    ground is read off it as B p + w (x - B p), w = sigma_d2 / tau2. Correlated deviation (``correlation`` from each
    date to the next) with delay needs both as unknowns.
    """
    n, k = network.design.shape
    nodes, chain = np.arange(n), np.column_stack([np.arange(n - 1), np.arange(1, n)])
    if correlation is None:
        rows, precision, given = _white(network, deviation)
        edges = np.empty((0, 2), int)
    else:
        rows, precision, given = _correlated(network, deviation, correlation)
        apart = len(precision) > n
        edges = np.vstack([np.column_stack([nodes, nodes + n]), chain + n]) if apart else chain
    given["shift"][0] -= given["shift"][0, 0].copy()  # displacement counts from the first date
    given["extra"][0, 1:] += given["extra"][0, 0]
    size = rows.shape[1] - k
    full = rows.T @ precision @ rows  # normal matrix of (unknowns, coefficients) without data
    prior, border, corner = full[:size, :size], full[:size, size:], full[size:, size:]
    first, second = network.first, network.second
    dates = unknowns = ordering.pattern(n, first, second, nodes[::-1])
    if len(edges):
        natural = nodes[::-1] if size == n else np.stack([nodes, nodes + n], axis=1)[::-1].ravel()
        ends = np.append(first, edges[:, 0]), np.append(second, edges[:, 1])
        unknowns = ordering.pattern(size, *ends, natural)
    couple = np.zeros(len(unknowns.row))
    if len(edges):
        couple[unknowns.entry(*edges.T)] = -prior[edges[:, 0], edges[:, 1]]
    excess = prior.sum(axis=1)
    excess[excess < 1e-13 * np.diag(prior)] = 0.0
    given |= {"excess": excess[unknowns.order], "couple": couple, "border": border[unknowns.order]}
    given |= {"corner": (corner + corner.T) / 2, "scale": np.diag(corner)}
    return _in_order(
        network, dates, unknowns, unknowns.position[nodes + size - n], given,
        interpolate=False, free=False, delay=np.zeros(n), smallest_unit=(1e-3 * deviation) ** 2,
    )  # fmt: skip


def _models(network):
    """Model of the ground without the height error, which belongs to the phase, and the height error by itself."""
    ground, error = network.design.copy(), np.zeros(network.design.shape)
    if network.height > 0:
        ground[:, network.height], error[:, network.height] = 0.0, network.design[:, network.height]
    return ground, error


def _white(network, deviation):
    """Rows whose squares the prior weighs, their precision, and how the ground is read off the unknowns."""
    n, k = network.design.shape
    ground, error = _models(network)
    total = deviation**2 + network.delay**2  # tau2
    share = deviation**2 / total  # w
    rows, precision = np.hstack([np.eye(n), -network.design]), np.diag(1 / total)
    shift, extra = np.zeros((2, n, k)), np.zeros((2, n))
    shift[0] = (1 - share)[:, None] * ground - share[:, None] * error
    shift[1] = -share[:, None] * network.design
    extra[:] = share * network.delay**2  # sigma_d2 sigma_a2 / tau2
    return rows, precision, {"share": share, "shift": shift, "extra": extra}


def _correlated(network, deviation, correlation):
    """The same for an AR(1) deviation: one unknown per date, or delayed ground and ground apart."""
    n, k = network.design.shape
    ground, error = _models(network)
    shift, own = np.zeros((2, n, k)), ar1_precision(correlation) / deviation**2
    given = {"share": np.ones(n), "shift": shift, "extra": np.zeros((2, n))}
    if not network.delay.any():
        shift[0], shift[1] = -error, -network.design
        return np.hstack([np.eye(n), -network.design]), own, given
    shift[1] = -ground
    rows = np.block([[np.eye(n), -np.eye(n), -error], [np.zeros((n, n)), np.eye(n), -ground]])
    late = np.diag(1 / np.maximum(network.delay, 1e-4 * deviation) ** 2)
    return rows, np.block([[late, 0 * late], [0 * late, own]]), given


def ar1_precision(correlation: np.ndarray) -> np.ndarray:
    """Precision of a unit-variance AR(1) process at uneven times: tridiagonal.

    With r_t = exp(-gap / days) from t to t + 1, the increments e = z_{t+1} - r_t z_t have the variance 1 - r_t2, so
    that P_tt = 1 + r_t2 / (1 - r_t2) + r_{t-1}2 / (1 - r_{t-1}2) and P_{t,t+1} = -r_t / (1 - r_t2).
    """
    inside = 1 - correlation**2
    precision = np.eye(len(correlation) + 1)
    step = np.arange(len(correlation))
    precision[step, step] += correlation**2 / inside
    precision[step + 1, step + 1] += correlation**2 / inside
    precision[step, step + 1] = precision[step + 1, step] = -correlation / inside
    return precision


def _in_order(network, dates, unknowns, ground, given, **rest) -> Plan:
    """All of it in the order of elimination."""
    position, first, second = unknowns.position, network.first, network.second
    return Plan(
        **network.noise, **rest,
        **{name: np.ascontiguousarray(value, dtype=float) for name, value in given.items()},
        spread=True, statistics=True,
        dates=dates, date_entry=dates.entry(first, second),
        unknowns=unknowns, entry=unknowns.entry(first, second),
        first=position[first], second=position[second], ground=ground,
        design=np.ascontiguousarray(network.design), height=network.height,
    )  # fmt: skip
