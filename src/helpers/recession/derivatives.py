"""dQ/dt of recession events by published schemes."""

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import optimize

from . import kernels

#: Names of the schemes.
SCHEMES = ("brutsaert_nieber", "backward", "central", "variable_step", "exponential", "integrated")


def derivative(
    events: pd.DataFrame, scheme: str = "exponential", *, fraction: float = 0.2, gamma: str = "nonlinear"
) -> pd.DataFrame:
    """Rate of change of flow along each event.

    Parameters
    ----------
    events : pandas.DataFrame
        ``event``, ``time``, ``q`` (from `extract_events`); the days of an event in order.
    scheme : str
        ``brutsaert_nieber``: Q[i+1] - Q[i] at the mean of the two (Brutsaert and Nieber 1977,
        doi:10.1029/WR013i003p00637).  ``backward``: the same difference at Q[i+1] (biased, kept to
        compare).  ``central``: (Q[i+1] - Q[i-1])/2 at Q[i].  ``variable_step``: back until the drop
        reaches three rounding steps (column ``quantum``), at the mean flow of the days crossed (Rupp and Selker 2006,
        doi:10.1016/j.advwatres.2005.03.019).  ``exponential``: straight lines over windows of
        1 + ceil(fraction N exp(-1/(gamma t))) days from day t = 1, 2, ... of an event of N days
        (Roques et al. 2017, doi:10.1016/j.advwatres.2017.07.013).  ``integrated``: no derivative; the
        solution Q(t) of -dQ/dt = a Q^b is fitted to each event and gives both columns.
    fraction : float
        Window growth of the exponential scheme; 0.2 as published first, 0.1 in TOSSH.
    gamma : {"nonlinear", "semilog"}
        Decay rate of the event from an exponential plus a constant, or from ln Q through its first day.

    Returns
    -------
    pandas.DataFrame
        ``event``, ``time``, ``q``, ``q_mid`` (unit of q), ``dqdt`` (per day, negative), ``weight`` (R2 of
        the local line for ``exponential``, else 1) and ``season`` where given.  Days where the scheme has
        no value, or flow does not fall, are left out; ``.attrs`` counts them (n_not_falling).
        ``integrated`` adds ``a, b, a_std, b_std, ln_a_b_cov`` of the curve.

    Raises
    ------
    ValueError
        For an unknown scheme, missing columns, or events whose days are not in order.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    if gamma not in ("nonlinear", "semilog"):
        raise ValueError(f"gamma must be 'nonlinear' or 'semilog', found {gamma!r}")
    t, q, first = _flat(events)
    extra = {}
    if scheme == "integrated":
        q_mid, dqdt, extra = _integrated(t, q, first)
        weight = np.ones(q.size)
    else:
        if scheme == "variable_step" and "quantum" not in events:
            raise ValueError("variable_step needs the rounding step of the flow: column quantum")
        step = events["quantum"].to_numpy(float) if "quantum" in events else np.zeros(q.size)
        q_mid, dqdt, weight = rates((t, q, first), step, scheme, fraction, gamma)

    points = events[["event", "time", "q", *(["season"] if "season" in events else [])]].copy()
    points["q_mid"], points["dqdt"], points["weight"] = q_mid, dqdt, weight
    for name, values in extra.items():
        points[name] = values
    falling = (dqdt < 0) & (q_mid > 0) & (weight > 0)
    points = points[falling].reset_index(drop=True)
    points.attrs = {k: v for k, v in events.attrs.items() if k in ("units", "station", "drainage_area_km2")}
    points.attrs |= {"scheme": scheme, "n_not_falling": int(np.sum(np.isfinite(dqdt) & ~falling))}
    return points


def _flat(events):
    """Days since the first, flow and the first row of each event (plus the end), checked."""
    missing = {"event", "time", "q"} - set(events.columns)
    if missing:
        raise ValueError(f"events: columns {sorted(missing)} missing, found {list(events.columns)}")
    t = events["time"].to_numpy("datetime64[s]").astype(float) / 86400.0
    q = events["q"].to_numpy(float)
    number = events["event"].to_numpy()
    new = np.flatnonzero(number[1:] != number[:-1]) + 1
    first = np.r_[0, new, len(number)] if len(number) else np.array([0])
    if len(np.unique(number)) != len(first) - 1:
        raise ValueError("events: the rows of an event must stand together; sort by event and time")
    inside = np.setdiff1d(np.arange(1, len(number)), new)
    if inside.size and not (t[inside] > t[inside - 1]).all():
        raise ValueError(
            "events: the days of an event must be in order and occur once; sort by event and time"
        )
    return t - (t[0] if t.size else 0.0), q, first.astype(np.int64)


def rates(flat, step, scheme, fraction=0.2, gamma="nonlinear"):
    """q_mid, dQ/dt and weight of each day of flat events (t, q, first row of each) by a differencing scheme."""
    weight = np.ones(len(flat[1]))
    if scheme == "variable_step":
        return *kernels.variable_steps(*flat, 3.0 * step), weight
    if scheme == "exponential":
        return kernels.exponential_steps(*flat, float(fraction), gamma == "semilog")
    return *kernels.differences(*flat, SCHEMES.index(scheme)), weight


def _integrated(t, q, first):
    """q_mid and dqdt on each event's fitted curve, and the curve's parameters by row."""
    out = np.full((len(q), 7), np.nan)
    for low, high in pairwise(first):
        out[low:high] = _fitted_curve(t[low:high] - t[low], q[low:high])
    names = ("a", "b", "a_std", "b_std", "ln_a_b_cov")
    return out[:, 0], out[:, 1], dict(zip(names, out[:, 2:].T, strict=True))


def _ln_curve(t, x0, k, b):
    """Ln x of dx/dt = -e^k x^b from ln x0: x0 + ln(1 + u z) / u, u = 1 - b, z = -e^(k - u x0) t (b = 1: x0 + z)."""
    u = 1.0 - b
    z = -np.exp(np.clip(k - u * x0, -50.0, 50.0)) * t
    if abs(u) * np.abs(z).max() < 1e-8:
        return x0 + z
    # where b < 1 the store runs empty at u z = -1: ln x falls without bound
    return x0 + np.log(np.maximum(1.0 + u * z, 1e-12)) / u


def _fitted_curve(t, q):
    """Least squares in ln Q of Q(t) = [Q0^(1-b) + a (b-1) t]^(1/(1-b)); columns q_mid, dqdt, a, b and their errors.

    Flow is taken in units of its geometric mean e^c, so that ln a = k + (1 - b) c with k and b nearly uncorrelated.
    """
    n = len(q)
    fall = np.log(q[0] / q[-1]) / t[-1] if n >= 4 and (q > 0).all() else 0.0
    if not fall > 0:
        return np.nan
    center = np.log(q).mean()
    y = np.log(q) - center
    found = optimize.least_squares(
        lambda p: _ln_curve(t, *p) - y,
        [y[0], np.log(fall), 1.0],
        bounds=([-np.inf, -50.0, -50.0], [np.inf, 50.0, 50.0]),
        **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-12),
    )
    _, k, b = found.x
    # Cov = s^2 (J' J)^-1, s^2 = RSS / (n - 3)
    cov = np.linalg.inv(found.jac.T @ found.jac + 1e-14 * np.eye(3)) * 2 * found.cost / (n - 3)
    a = np.exp(k + (1 - b) * center)
    ln_a_var = cov[1, 1] - 2 * center * cov[1, 2] + center**2 * cov[2, 2]
    q_mid = np.exp(center + _ln_curve(t, *found.x))
    errors = a * np.sqrt(max(ln_a_var, 0)), np.sqrt(cov[2, 2]), cov[1, 2] - center * cov[2, 2]
    constants = np.broadcast_to([a, b, *errors], (n, 5))
    return np.c_[q_mid, -a * q_mid**b, constants]
