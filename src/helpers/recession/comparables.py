"""Numbers that can be compared between events: k_ref, decorrelated a, storage."""

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.meta_analysis import combine_effects

from .fits import fit

SECONDS_PER_DAY = 86400.0


def to_mm_per_day(
    discharge: xr.DataArray | pd.Series, drainage_area_km2: float | None = None
) -> xr.DataArray | pd.Series:
    """Flow in mm/day over the catchment from m3/s: 86.4 / area(km2) times the flow.

    Parameters
    ----------
    discharge : xarray.DataArray or pandas.Series
        m3/s.
    drainage_area_km2 : float, optional
        Default the attribute of the same name.

    Raises
    ------
    ValueError
        Without a positive area, or where the attribute ``units`` is not m3/s.
    """
    units = discharge.attrs.get("units", "m3/s")
    if units not in ("m3/s", "m3 s-1"):
        raise ValueError(f"to_mm_per_day takes m3/s, found {units!r}")
    area = discharge.attrs.get("drainage_area_km2") if drainage_area_km2 is None else drainage_area_km2
    if area is None or not np.isfinite(area) or area <= 0:
        raise ValueError(f"a positive drainage_area_km2 is needed for mm/day, found {area}")
    out = discharge * (SECONDS_PER_DAY / 1e3 / area)
    out.attrs = {**discharge.attrs, "units": "mm/day", "drainage_area_km2": float(area)}
    return out


def reference_flow(flow: np.ndarray | pd.Series) -> float:
    """Geometric mean of positive flows: the one Q_ref for all periods, from the events of the baseline."""
    q = np.asarray(flow, float)
    q = q[q > 0]
    if q.size == 0:
        raise ValueError("reference_flow: no positive flow")
    return float(np.exp(np.log(q).mean()))


def k_ref(fits: pd.DataFrame, q_ref: float) -> pd.Series:
    """Recession rate at one reference flow, k_ref = a Q_ref^(b-1).

    Parameters
    ----------
    fits : pandas.DataFrame
        Columns ``a`` and ``b`` (from `fit`).
    q_ref : float
        One flow for all periods, in the unit of the fits.

    Returns
    -------
    pandas.Series
        1/day, on the index of `fits`.  It does not depend on the unit of flow, a does
        (Dralle et al. 2015, doi:10.1002/2015GL066007).
    """
    _check_flow(q_ref)
    # ln k_ref = ln a + (b - 1) ln Q_ref, in logs: a can span hundreds of orders of magnitude where b is large
    return pd.Series(
        np.exp(np.log(fits["a"].to_numpy(float)) + (fits["b"].to_numpy(float) - 1) * np.log(q_ref)),
        index=fits.index,
        name="k_ref",
    )


def k_ref_std(fits: pd.DataFrame, q_ref: float) -> pd.Series:
    """Standard deviation of ln k_ref of each fit (the relative one of k_ref), from the fitted line alone."""
    _check_flow(q_ref)
    ln_q = np.log(q_ref)
    # Var(ln k_ref) = Var(ln a) + 2 ln Q_ref Cov(ln a, b) + (ln Q_ref)^2 Var(b)
    var = (fits["a_std"] / fits["a"]) ** 2 + 2 * ln_q * fits["ln_a_b_cov"] + ln_q**2 * fits["b_std"] ** 2
    return np.sqrt(var.clip(lower=0)).rename("ln_k_ref_std")


def decorrelate(fits: pd.DataFrame) -> pd.DataFrame:
    """Rescale a to the flow at which it is uncorrelated with b.

    a0 = a q0^(b-1) with ln q0 = -cov(ln a, b) / var(b), q0 one value for all fits (Dralle et al. 2015,
    doi:10.1002/2015GL066007).

    Parameters
    ----------
    fits : pandas.DataFrame
        Columns ``a``, ``b``.

    Returns
    -------
    pandas.DataFrame
        `fits` with column ``a0`` (1/day) and ``.attrs["q0"]``.
    """
    okay = np.isfinite(fits["a"]) & np.isfinite(fits["b"]) & (fits["a"] > 0)
    ln_a, b = np.log(fits.loc[okay, "a"].to_numpy(float)), fits.loc[okay, "b"].to_numpy(float)
    if b.size < 3 or not b.var() > 0:
        raise ValueError("decorrelate: at least 3 events with different b are needed; use per_event fits")
    # Cov(ln a + (b - 1) ln q0, b) = 0
    q0 = float(np.exp(-np.cov(ln_a, b)[0, 1] / b.var(ddof=1)))
    out = fits.assign(a0=k_ref(fits, q0))
    out.attrs = {**fits.attrs, "q0": q0}
    return out


def shrink(fits: pd.DataFrame) -> pd.DataFrame:
    """Draw each event's b towards the mean of all by as much as its error asks for (empirical Bayes).

    The b of a short or flat event is hardly determined, and k_ref away from its own flows then is arbitrary.
    b_i is taken as a draw about a common mean with between-event variance tau^2 (method of moments,
    DerSimonian-Laird) and error b_std; the line keeps its value at the event's own mean flow, where it is best
    known.

    Parameters
    ----------
    fits : pandas.DataFrame
        From `fit` with ``per_event``; an event without b_std takes the mean.

    Returns
    -------
    pandas.DataFrame
        `fits` with a, b, a_std, b_std, ln_a_b_cov of the shrunk lines; ``.attrs["b_mean"]``, ``["b_between_sd"]``.
    """
    b, std = fits["b"].to_numpy(float), fits["b_std"].to_numpy(float)
    cov = fits["ln_a_b_cov"].to_numpy(float)
    new_b, new_var, mean, between = shrunk_slopes(b, std)
    with np.errstate(divide="ignore", invalid="ignore"):
        center = np.where(std > 0, -cov / std**2, np.log(np.sqrt(fits["q_min"] * fits["q_max"])))
        value_var = (fits["a_std"].to_numpy(float) / fits["a"].to_numpy(float)) ** 2 - center**2 * std**2
        # the event's line at its center, through ln a of the unshrunk line
        ln_a = np.log(fits["a"].to_numpy(float)) + (b - new_b) * center
        a = np.exp(ln_a)
    out = fits.assign(
        a=a,
        b=new_b,
        a_std=a * np.sqrt(np.maximum(value_var, 0) + center**2 * new_var),
        b_std=np.sqrt(new_var),
        ln_a_b_cov=-center * new_var,
    )
    out.attrs = {**fits.attrs, "b_mean": mean, "b_between_sd": between}
    return out


def shrunk_slopes(b, std):
    """Shrunk b, its variance, the mean b and the sd between events."""
    okay = np.isfinite(b) & np.isfinite(std)
    if okay.sum() < 3:
        raise ValueError("shrink: at least 3 events with b and b_std are needed")
    # a floor on the error: three days in line by chance are no exact b
    var = np.maximum(std**2, 1e-2 * np.median(std[okay] ** 2) + 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):  # tau^2 below 0 is not used
        found = combine_effects(b[okay], var[okay], method_re="dl")
    between = max(found.tau2, 0.0)
    mean, total = found.mean_effect_fe, found.w_total_fe
    if between > 0:
        mean, total = found.mean_effect_re, found.w_total_re
    # b_i -> mean + B (b_i - mean) with B = tau^2 / (tau^2 + s_i^2); its variance is B s_i^2 + (1 - B)^2 Var(mean)
    own = np.where(okay, var, 0.0)
    shrinkage = np.where(okay, between / (between + np.where(okay, var, 1.0)), 0.0)
    new = mean + shrinkage * (np.where(okay, b, mean) - mean)
    return new, shrinkage * own + (1 - shrinkage) ** 2 / total, float(mean), float(np.sqrt(between))


def comparable_fits(
    points: pd.DataFrame, q_ref: float, baseline_end: str | pd.Timestamp | None = None
) -> pd.DataFrame:
    """Per-event numbers that can be contrasted between periods, side by side.

    Parameters
    ----------
    points : pandas.DataFrame
        From `derivative`.
    q_ref : float
        The one reference flow, in the unit of the points.
    baseline_end : date, optional
        Last day of the baseline, which sets the common b; default all points.

    Returns
    -------
    pandas.DataFrame
        The per-event fits of at least three points, with ``ln_k_ref`` (a at the common b), ``ln_k_ref_free_b`` and
        ``b_shrunk`` (b drawn to the mean, `shrink`), ``ln_a0`` (decorrelated) and ``ln_q`` (middle of the event's
        flows).  ``.attrs``: ``common_b``, ``common_b_std``, ``q0``, ``b_between_sd``.
    """
    free = fit(points)
    free = free[(free["n"] >= 3) & free["b"].notna()].reset_index(drop=True)
    base = points if baseline_end is None else points[points["time"] <= baseline_end]
    shared = fit(base, "shared_b").iloc[0]
    level = fit(points, b=float(shared["b"])).set_index("event").loc[free["event"]].reset_index()
    drawn = shrink(free)
    rescaled = decorrelate(drawn)
    out = free.assign(
        ln_k_ref=np.log(k_ref(level, q_ref)),
        ln_k_ref_free_b=np.log(k_ref(drawn, q_ref)),
        ln_a0=np.log(rescaled["a0"]),
        b_shrunk=drawn["b"],
        ln_q=0.5 * np.log(free["q_min"] * free["q_max"]),
    )
    out.attrs |= {"common_b": float(shared["b"]), "common_b_std": float(shared["b_std"])}
    out.attrs |= {"q0": rescaled.attrs["q0"], "b_between_sd": drawn.attrs["b_between_sd"]}
    return out


def _check_flow(q_ref):
    if np.ndim(q_ref) or not np.isfinite(q_ref) or q_ref <= 0:
        raise ValueError(f"q_ref must be one positive flow in the unit of the fits, found {q_ref}")
