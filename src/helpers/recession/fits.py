"""Estimates of a and b from recession points."""

import warnings

import numpy as np
import pandas as pd
from scipy import optimize
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.regression.quantile_regression import QuantReg
from statsmodels.tools.sm_exceptions import IterationLimitWarning

from . import kernels

#: Names of the methods.
METHODS = ("per_event", "cloud_ols", "binned", "quantile", "lower_envelope", "nls", "shared_b", "mixed")


def fit(points: pd.DataFrame, method: str = "per_event", *, b: float | None = None) -> pd.DataFrame:
    """Fit -dQ/dt = a Q^b to recession points.

    Parameters
    ----------
    points : pandas.DataFrame
        ``event``, ``time``, ``q_mid``, ``dqdt`` and, if any, ``weight`` (from `derivative`).
    method : str
        ``per_event``: one line per event.  ``shared_b``: b common to all, a by event.  The others
        give one row, event -1: ``cloud_ols`` all points; ``binned`` means of bins of ln Q (after Kirchner
        2009); ``quantile`` median regression; ``lower_envelope`` a line below which 5 % of the points lie;
        ``nls`` least squares of dQ/dt itself; ``mixed`` random a and b by
        event around their means (REML).
    b : float, optional
        A fixed b for ``per_event`` (a at a common b).

    Returns
    -------
    pandas.DataFrame
        ``event, start, a, b, a_std, b_std, n`` in the units of the input, plus ``ln_a_b_cov`` (for k_ref_std),
        ``q_min, q_max`` and ``season`` where given.  Standard deviations are of the line, within the event,
        for independent errors of flow: exact for the integrated scheme, too wide for differences (by 1.7 to 3) and
        for exponential windows (by 1.2 to 1.4), all too narrow where the rating drifts;
        those of pooled methods allow correlation inside events (``shared_b`` by the jackknife over events), and yet are
        too narrow for a claim (data/calibration/recession_b.csv).  b of an event with q_max/q_min
        below about 1.3 is not identified, which its b_std shows.  With ``mixed``, attrs hold the
        between-event sd of ln a at the center and of b.

    Raises
    ------
    ValueError
        For an unknown method, missing columns or no usable point.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    points = _usable(points)
    if method == "per_event":
        fits = _per_event(points, b)
    elif method == "shared_b":
        fits = _shared_b(points)
    else:
        x, y = np.log(points["q_mid"].to_numpy(float)), np.log(-points["dqdt"].to_numpy(float))
        event = points["event"].to_numpy()
        extra = {}
        if method == "mixed":
            value, slope, center, cov, extra = _mixed(x, y, event)
        elif method == "cloud_ols":
            value, slope, center, cov = _ols(x, y, event)
        else:
            (line, draws), center = _RESAMPLED[method], x.mean()
            value, slope = line(x - center, y)
            cov = _bootstrap_cov(x - center, y, event, line, draws)
        fits = _table([-1], [points["time"].min()], [[value, slope, center, *cov]], [len(points)])
        fits["q_min"], fits["q_max"] = points["q_mid"].min(), points["q_mid"].max()
        fits.attrs = extra
    kept = ("units", "station", "drainage_area_km2", "scheme")
    fits.attrs |= {k: v for k, v in points.attrs.items() if k in kept} | {"method": method}
    return fits


def _usable(points):
    missing = {"event", "time", "q_mid", "dqdt"} - set(points.columns)
    if missing:
        raise ValueError(f"points: columns {sorted(missing)} missing, found {list(points.columns)}")
    okay = (points["dqdt"] < 0) & (points["q_mid"] > 0)
    if not okay.any():
        raise ValueError("points: none has falling flow (dqdt < 0, q_mid > 0); loosen the rule set")
    return points[okay]  # with its attrs


def _table(event, start, lines, n):
    """The result table from lines (value at center, b, center, var value, var b, cov)."""
    value, b, center, var_value, var_b, cov = np.atleast_2d(np.asarray(lines, float)).T
    # ln a = value - b center; Var(ln a) = Var(value) - 2 center Cov + center^2 Var(b)
    with np.errstate(over="ignore"):  # an event whose b is not identified may have any a
        a = np.exp(value - b * center)
    ln_a_var = var_value - 2 * center * cov + center**2 * var_b
    return pd.DataFrame(
        {
            "event": event,
            "start": pd.DatetimeIndex(start),
            "a": a,
            "b": b,
            "a_std": a * np.sqrt(np.maximum(ln_a_var, 0.0)),
            "b_std": np.sqrt(var_b),
            "n": np.asarray(n, int),
            "ln_a_b_cov": cov - center * var_b,
        }
    )


def _groups(points):
    """Rows sorted by event, with the first row of each (plus the end)."""
    order = np.argsort(points["event"].to_numpy(), kind="stable")
    number = points["event"].to_numpy()[order]
    first = np.r_[0, np.flatnonzero(np.diff(number)) + 1, len(number)].astype(np.int64)
    return order, number[first[:-1]], first


def _per_event(points, b):
    order, number, first = _groups(points)
    q = points["q_mid"].to_numpy(float)[order]
    rate = points["dqdt"].to_numpy(float)[order]
    weight = points["weight"].to_numpy(float)[order] if "weight" in points else np.ones(q.size)
    start = points["time"].to_numpy()[order][first[:-1]]
    if "b_std" in points and b is None:  # the integrated scheme has fitted the curve itself
        columns = ["a", "b", "a_std", "b_std", "ln_a_b_cov"]
        fits = pd.DataFrame(
            {"event": number, "start": pd.DatetimeIndex(start), "n": np.diff(first)}
            | {c: points[c].to_numpy()[order][first[:-1]] for c in columns}
        )[["event", "start", "a", "b", "a_std", "b_std", "n", "ln_a_b_cov"]]
        fits["q_min"] = np.minimum.reduceat(q, first[:-1])
        fits["q_max"] = np.maximum.reduceat(q, first[:-1])
    else:
        lines = kernels.log_lines(q, rate, weight, first)
        if b is not None:
            lines = _at_fixed_b(lines, q, rate, weight, first, b)
        zero = np.where(np.isfinite(lines[:, 3]), 0.0, np.nan)
        fits = _table(
            number, start, np.c_[lines[:, :3], lines[:, 3] ** 2, lines[:, 4] ** 2, zero], lines[:, 5]
        )
        fits["q_min"], fits["q_max"] = lines[:, 6], lines[:, 7]
    if "season" in points:
        fits["season"] = points["season"].to_numpy()[order][first[:-1]]
    return fits


def _at_fixed_b(lines, q, rate, weight, first, b):
    """Lines of the given slope through each event's weighted mean."""
    k = np.repeat(np.arange(len(first) - 1), np.diff(first))
    x, y = np.log(q), np.log(-rate)
    sw = np.bincount(k, weight)
    center, level = np.bincount(k, weight * x) / sw, np.bincount(k, weight * y) / sw
    residual = y - level[k] - b * (x - center[k])
    n = np.diff(first)
    out = lines.copy()
    out[:, 0], out[:, 1], out[:, 2], out[:, 4] = level, b, center, 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        out[:, 3] = np.sqrt(np.bincount(k, weight * residual**2) / (n - 1) / sw)
    return out


def _ols(x, y, event):
    """Line at the mean of x, with the covariance that allows any correlation within events (CR1)."""
    center = x.mean()
    design = np.c_[np.ones_like(x), x - center]
    if np.ptp(x) == 0:
        raise ValueError("points: all flows are equal, b is not determined")
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ (design.T @ y)
    residual = y - design @ beta
    codes = np.unique(event, return_inverse=True)[1]
    scores = np.stack([np.bincount(codes, design[:, c] * residual) for c in range(2)], axis=1)
    groups = scores.shape[0]
    # (X'X)^-1 [sum over events of s s'] (X'X)^-1 G / (G - 1), with the score s = X' e of an event
    if groups > 1:
        cov = bread @ (scores.T @ scores) @ bread * groups / (groups - 1)
    else:
        cov = bread * (residual @ residual) / max(len(x) - 2, 1)
    return beta[0], beta[1], center, (cov[0, 0], cov[1, 1], cov[0, 1])


def _binned_line(x, y):
    """Line through means of bins that hold at least 1 % of the range of ln Q and are known to half their mean.

    Bins run from the highest flow down; the line is weighted by the inverse variance of the bins' ln mean.
    """
    order = np.argsort(-x)
    x, rate = x[order], np.exp(y[order])
    width = 0.01 * (x[0] - x[-1])
    bins, i = [], 0
    for j in range(1, len(x) + 1):
        if j - i < 3 or x[i] - x[j - 1] < width:
            continue
        r = rate[i:j]
        error = r.std(ddof=1) / np.sqrt(r.size)
        if error <= 0.5 * r.mean():
            # a floor on the error, or bins that happen to agree would carry the line alone
            bins.append((np.log(np.exp(x[i:j]).mean()), np.log(r.mean()), max(error / r.mean(), 1e-3)))
            i = j
    if len(bins) < 3:
        raise ValueError(f"binned: only {len(bins)} bins of ln Q can be filled; use more points")
    bx, by, error = np.array(bins).T
    slope, value = np.polyfit(bx, by, 1, w=1 / error)
    return value, slope


def _bootstrap_cov(x, y, event, line, draws):
    """Covariance of (value, slope) of ``line(x, y)`` over resampled events."""
    codes = np.unique(event, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    if len(members) < 2:
        return np.nan, np.nan, np.nan
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(draws):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        estimates.append(line(x[rows], y[rows]))
    cov = np.cov(np.array(estimates).T)
    return cov[0, 0], cov[1, 1], cov[0, 1]


def _median_line(x, y):
    """Median regression y = value + slope x."""
    with warnings.catch_warnings():
        # steps between lines of equal cost are no failure
        warnings.simplefilter("ignore", IterationLimitWarning)
        return QuantReg(y, np.c_[np.ones_like(x), x]).fit(q=0.5, max_iter=500).params


def _envelope_line(x, y, fraction=0.05):
    """A line with the slope of binned low quantiles, lowered until `fraction` of the points lie below."""
    edges = np.quantile(x, np.linspace(0, 1, min(10, max(len(x) // 20, 2)) + 1))
    which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    low = np.array([(x[which == k].mean(), np.quantile(y[which == k], fraction)) for k in np.unique(which)])
    b = np.polyfit(low[:, 0], low[:, 1], 1)[0]
    return np.quantile(y - b * x, fraction), b


def _nls_line(x, y):
    """Least squares of -dQ/dt itself, scaled; starts from the log-log line."""
    start = np.polyfit(x, y, 1)[::-1]
    scale = np.exp(y).max()
    z = np.exp(y) / scale
    result = optimize.least_squares(
        lambda p: np.exp(np.clip(p[0] + p[1] * x, -700, 50)) - z, [start[0] - np.log(scale), start[1]]
    )
    return result.x[0] + np.log(scale), result.x[1]


def _shared_b(points):
    """Event intercepts and one slope: least squares within events, robust to correlation in them."""
    order, number, first = _groups(points)
    x = np.log(points["q_mid"].to_numpy(float)[order])
    y = np.log(-points["dqdt"].to_numpy(float)[order])
    k = np.repeat(np.arange(len(number)), np.diff(first))
    n = np.diff(first)
    mx, my = np.bincount(k, x) / n, np.bincount(k, y) / n
    dx, dy = x - mx[k], y - my[k]
    sxx = dx @ dx
    if not sxx > 0:
        raise ValueError("shared_b: no event has two different flows, b is not determined")
    b = (dx @ dy) / sxx  # sum of (x - mean of event)(y - mean of event) over that of (x - mean of event)^2
    residual = dy - b * dx
    # leave one event out: long events carry most of b, so the sandwich would be too narrow
    events = len(number)
    own_xx, own_xy = np.bincount(k, dx * dx), np.bincount(k, dx * dy)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (dx @ dy - own_xy) / (sxx - own_xx)  # jackknife: Var(b) = (E - 1) Var(b without event)
    var_b = (events - 1) * np.var(without) if events > 1 else np.nan
    within = residual @ residual / max(len(x) - events - 1, 1)
    lines = np.c_[my, np.full(events, b), mx, within / n, np.full(events, var_b), np.zeros(events)]
    fits = _table(number, points["time"].to_numpy()[order][first[:-1]], lines, n)
    fits["q_min"] = np.exp(np.minimum.reduceat(x, first[:-1]))
    fits["q_max"] = np.exp(np.maximum.reduceat(x, first[:-1]))
    if "season" in points:
        fits["season"] = points["season"].to_numpy()[order][first[:-1]]
    return fits


def _mixed(x, y, event):
    """REML of y = (A + u_event) + (B + v_event) (x - center)."""
    if len(np.unique(event)) < 3:
        raise ValueError("mixed needs at least 3 events; use shared_b or per_event")
    center = x.mean()
    design = np.c_[np.ones_like(x), x - center]
    with warnings.catch_warnings():
        # a variance at its lower bound is an answer here (no spread of b), not a failure
        warnings.simplefilter("ignore")
        model = MixedLM(y, design, groups=event, exog_re=design).fit(reml=True, method=["lbfgs", "powell"])
    cov = np.asarray(model.cov_params())[:2, :2]
    if not (np.diag(cov) >= 0).all():  # at a bound the information may not be positive
        cov = np.full((2, 2), np.nan)
    spread = np.sqrt(np.maximum(np.diag(np.asarray(model.cov_re)), 0))
    extra = {"ln_a_event_sd": float(spread[0]), "b_event_sd": float(spread[1])}
    return *np.asarray(model.fe_params), center, (cov[0, 0], cov[1, 1], cov[0, 1]), extra


#: pooled lines whose errors come from resampled events: the line, and the number of resamples
_RESAMPLED = {
    "binned": (_binned_line, 100),
    "quantile": (_median_line, 100),
    "lower_envelope": (_envelope_line, 200),
    "nls": (_nls_line, 200),
}
