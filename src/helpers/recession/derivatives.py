"""dQ/dt of recession events by published schemes."""

import numpy as np
import pandas as pd

from . import kernels

#: Names of the schemes.
SCHEMES = ("brutsaert_nieber", "backward", "central", "variable_step", "exponential", "integrated")


def derivative(
    events: pd.DataFrame,
    scheme: str = "exponential",
    *,
    fraction: float = 0.2,
    gamma: str | float = "nonlinear",
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
    lines = kernels.integrated_lines(t, q, first)
    rows = np.repeat(np.arange(len(lines)), np.diff(first))
    value, b, center, value_std, b_std, _, _, _, cov, ln_q0 = lines[rows].T
    ln_a = value - b * center
    elapsed = t - t[first[:-1]][rows] if t.size else t
    # the fitted flow itself: ln x of the curve with k = value - center at unit flow e^center
    u, x0 = 1.0 - b, ln_q0 - center
    with np.errstate(divide="ignore", invalid="ignore"):
        z = -np.exp(value - center - u * x0) * elapsed
        ln_q = ln_q0 + np.where(np.abs(u * z) < 1e-8, z, np.log1p(u * z) / u)
    q_mid = np.exp(ln_q)
    ln_a_var = value_std**2 - 2 * center * cov + center**2 * b_std**2
    a = np.exp(ln_a)
    parameters = {
        "a": a,
        "b": b,
        "a_std": a * np.sqrt(np.maximum(ln_a_var, 0)),
        "b_std": b_std,
        "ln_a_b_cov": cov - center * b_std**2,
    }
    return q_mid, -a * q_mid**b, parameters
