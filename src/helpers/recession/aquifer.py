"""What recession says of the store that drains: volume, drainage time, saturated thickness."""

import numpy as np
import pandas as pd

from .regimes import stationary_blocks

#: What theory expects of a (and of k_ref, at any one flow): its exponent b, and the powers of the saturated
#: thickness D and of the drainable porosity in it, for a horizontal aquifer drained by channels (Boussinesq).  Early
#: time after Polubarinova-Kochina; conductivity that grows upward as z^n after Rupp and Selker, here n = 1;
#: linearised as in Lyon et al. (2009, doi:10.5194/hess-13-595-2009).
THEORY = pd.DataFrame(
    {
        "regime": ["early", "late", "late, conductivity falls with depth", "late, linearised"],
        "b": [3.0, 1.5, 5 / 3, 1.0],
        "thickness_power": [-3.0, 0.0, -1 / 3, 1.0],
        "porosity_power": [-1.0, -1.0, -1.0, -1.0],
    }
)


def storage(a: float | np.ndarray, b: float | np.ndarray, q: float | np.ndarray) -> float | np.ndarray:
    """Drainable storage above zero flow, S = Q^(2-b) / (a (2-b)), b < 2 (unit of Q times day).

    With Q in mm/day the result is mm over the catchment; NaN where b >= 2 (the integral diverges).
    """
    a, b, q = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float), np.asarray(q, float))
    finite = b < 2
    gap = np.where(finite, 2 - b, np.nan)
    return q**gap / (a * gap)


def drainage_time(points: pd.DataFrame) -> dict:
    """Drainage time from the tail of tau = Q / (-dQ/dt), after Cooper et al. (2023).

    Late in a recession tau = Q^(1-b)/a is Pareto distributed above a threshold tau_0 with density exponent
    alpha, and b = 1 + 1/alpha; the mean of the tail is tau_0 (2 - b) / (3 - 2 b)
    (doi:10.1029/2022WR033154).  tau_0 minimises the Kolmogorov-Smirnov distance of the tail to the law.

    Parameters
    ----------
    points : pandas.DataFrame
        ``q_mid``, ``dqdt``, ``event`` (from `derivative`).

    Returns
    -------
    dict
        ``b, b_std`` (of independent events), ``tau`` (days; NaN from b = 3/2, where the mean is infinite), ``tau_0``,
        ``n``, ``n_events``, ``distance``.
    """
    tau = (points["q_mid"] / -points["dqdt"]).to_numpy(float)
    event = points["event"].to_numpy()
    okay = np.isfinite(tau) & (tau > 0)
    tau, event = tau[okay], event[okay]
    if tau.size < 50:
        raise ValueError(f"drainage_time needs at least 50 points, found {tau.size}")
    order = np.argsort(tau)
    tau, event = tau[order], event[order]
    logs = np.log(tau)
    best = (np.inf, 0)
    for start in np.unique(np.linspace(0, tau.size - 50, 200).astype(int)):
        tail = logs[start:] - logs[start]
        rate = 1 / tail.mean() if tail.mean() > 0 else np.inf
        # P(tau > x) = (x / tau_0)^-(alpha - 1): ln(tau / tau_0) is exponential with rate alpha - 1
        empirical = np.arange(tail.size) / tail.size
        distance = np.abs(1 - np.exp(-rate * tail) - empirical).max()
        best = min(best, (distance, start))
    distance, start = best
    tail, members = logs[start:] - logs[start], event[start:]
    exponent = 1 / tail.mean()  # of the survival function: alpha - 1
    b = 1 + 1 / (exponent + 1)
    sums = pd.Series(tail - tail.mean()).groupby(members).sum()
    # b = 1 + m / (1 + m) with m the mean log excess, so db = dm / (1 + m)^2
    b_std = np.sqrt((sums**2).sum()) / tail.size / (1 + tail.mean()) ** 2
    tau_0 = tau[start]
    mean_tau = tau_0 * (2 - b) / (3 - 2 * b) if b < 1.499 else np.nan
    found = {"b": b, "b_std": b_std, "tau": mean_tau, "tau_0": tau_0, "distance": distance}
    return {name: float(x) for name, x in found.items()} | {"n": int(tail.size), "n_events": len(sums)}


def thickness_factor(ln_k_change: float | np.ndarray, power: float) -> float | np.ndarray:
    """Factor by which the saturated thickness must have changed, if it alone changed k_ref: exp(change / power).

    `power` is that of the thickness in a (`THEORY`); with 0 no change of thickness can do it: NaN.
    """
    ln_k_change = np.asarray(ln_k_change, float)
    return np.exp(ln_k_change / power) if power else np.full_like(ln_k_change, np.nan)


def low_flow_trend(yearly: pd.Series, *, seed: int = 0) -> tuple[float, float]:
    """Slope of the lower quartile of yearly flow (the baseflow trend of Cooper et al. 2023) and its sd.

    Parameters
    ----------
    yearly : pandas.Series
        Flow by year, any unit; at least ten years.
    seed : int
        Of the stationary bootstrap of years that gives the sd.

    Returns
    -------
    tuple of float
        Slope and its standard deviation, unit per year.
    """
    yearly = yearly.dropna()
    if len(yearly) < 10:
        raise ValueError(f"low_flow_trend needs ten years, found {len(yearly)}")
    t, y = yearly.index.to_numpy(float), yearly.to_numpy(float)
    place = stationary_blocks(np.random.default_rng(seed), len(y), 400)
    slopes = [_quantile_slope(t[rows], y[rows], 0.25) for rows in place]
    return _quantile_slope(t, y, 0.25), float(np.nanstd(slopes, ddof=1))


def _quantile_slope(x, y, quantile):
    """Slope of the quantile regression line, which runs through two of the points: all pairs are tried."""
    i, j = np.triu_indices(len(x), 1)
    apart = x[i] != x[j]
    i, j = i[apart], j[apart]
    if i.size == 0:
        return np.nan
    slope = (y[j] - y[i]) / (x[j] - x[i])
    residual = y - (y[i] - slope * x[i])[:, None] - slope[:, None] * x
    cost = np.sum(residual * (quantile - (residual < 0)), axis=1)
    return float(slope[np.argmin(cost)])


def thickness_trend(
    flow_trend: np.ndarray | float,
    tau: np.ndarray | float,
    b: np.ndarray | float,
    porosity: np.ndarray | float,
) -> np.ndarray:
    """Trend of the drained layer's thickness from the trend of baseflow: tau / (phi (4 - 2 b)) dQ/dt.

    Cooper et al. (2023, doi:10.1029/2022WR033154), with N + 1 = 4 - 2 b.

    Parameters
    ----------
    flow_trend : float or array
        Trend of baseflow, length per day per year (cm/day/yr gives cm/yr).
    tau, b, porosity : float or array
        Drainage time (days), exponent (below 2), drainable porosity.
    """
    flow_trend, tau, b, porosity = np.broadcast_arrays(flow_trend, tau, b, porosity)
    return np.where(b < 2, tau * flow_trend / (porosity * np.where(b < 2, 4 - 2 * b, 1.0)), np.nan)
