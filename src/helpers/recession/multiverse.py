"""Many analyses at once: every defensible choice on one gauge, or one choice on many gauges."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import xarray as xr

from . import kernels
from .comparables import shrunk_slopes
from .derivatives import rates
from .events import find_events, rule_settings
from .record import blocked_days, read_record
from .regimes import contrasts, membership, period_bounds, year_medians

#: Extraction choices: a name, a rule set and what is changed in it.
EXTRACTIONS = [
    ("tossh2021", {}),
    ("gnann2020", {"min_run_days": 9}),
    ("vogel_kroll1992", {}),
    ("brutsaert2008", {}),
    *[
        ("default", {"rise_tolerance": rise, "drop_first_days": drop, "min_days": least, "min_range": span})
        for rise, drop, (least, span) in product((0.0, 0.02), (2, 4, 6, 8), ((5, 1.1), (8, 1.3)))
    ],
]
#: Derivative choices.
DERIVATIVES = [
    ("brutsaert_nieber", {}),
    ("backward", {}),
    ("central", {}),
    ("variable_step", {}),
    ("exponential", {"fraction": 0.1, "gamma": "semilog"}),
    ("exponential", {"fraction": 0.2, "gamma": "nonlinear"}),
]

#: Per-event lines: b free (by least squares, by the median of slopes), drawn to the mean, or common to all.
LINES = ("least_squares", "theil_sen", "shrunk", "common_b")


def specifications() -> pd.DataFrame:
    """The 480 choices ``rule, changes, scheme, options, line``: 20 extractions x 6 derivatives x 4 lines."""
    rows = [
        (rule, changes, scheme, options, line)
        for (rule, changes), (scheme, options), line in product(EXTRACTIONS, DERIVATIVES, LINES)
    ]
    return pd.DataFrame(rows, columns=["rule", "changes", "scheme", "options", "line"])


def multiverse(
    discharge: xr.DataArray | pd.Series,
    q_ref: float,
    periods: pd.DataFrame,
    *,
    control: xr.DataArray | pd.Series | None = None,
    season: str | Sequence[str] | None = None,
    seasons: dict | None = None,
    min_range: float = 1.0,
) -> pd.DataFrame:
    """Contrast of the first and last testable period under every specification.

    Parameters
    ----------
    discharge : xarray.DataArray or pandas.Series
        As `extract_events` takes it, with its ice marks as a coordinate.
    q_ref : float
        Reference flow, one for all specifications and gauges, in the unit of `discharge`.
    periods : pandas.DataFrame
        ``label, start, end``, as `regime_test` takes them.
    control : DataArray or Series, optional
        A second gauge, analysed in the same way; the yearly difference from it is contrasted.
    season : str or list of str, optional
        Only events of these classes.
    seasons : dict, optional
        First month-day of each class.
    min_range : float
        Events whose fitted flows span less than this ratio are left out: their b is not identified.

    Returns
    -------
    pandas.DataFrame
        `specifications` plus ``n_events``, ``b`` (median over events), ``ln_k_ref`` (median), ``period_a,
        period_b, difference, lower, upper, p_value, n_years_a, n_years_b, difference_b, lower_b, upper_b`` (of
        year medians of ln k_ref and of b, with the memory of `regime_test`).
    """
    gauges = [discharge] if control is None else [discharge, control]
    fitted = [_all_fits(gauge, q_ref, seasons, season, min_range) for gauge in gauges]
    table = specifications()
    bounds = period_bounds(periods)
    rows = []
    for k in range(len(table)):
        year, ln_k, b = fitted[0][k]
        row = {"n_events": len(b), "b": np.median(b) if len(b) else np.nan}
        row["ln_k_ref"] = np.median(ln_k) if len(b) else np.nan
        for suffix, value in (("", ln_k), ("_b", b)):
            years, values, _ = year_medians(year, value)
            if control is not None:
                other_year, other_ln_k, other_b = fitted[1][k]
                other, base, _ = year_medians(other_year, other_b if suffix else other_ln_k)
                years, i, j = np.intersect1d(years, other, return_indices=True)
                values = values[i] - base[j]
            row |= _first_last(years, values, bounds, suffix)
        rows.append(row)
    return pd.concat([table, pd.DataFrame(rows)], axis=1)


def _first_last(years, values, bounds, suffix):
    """Contrast of the last against the first testable period."""
    labels, member = bounds[0], membership(years, bounds)
    testable, model_rows = contrasts(years, values, member, labels)
    if len(testable) < 2:
        empty = {f"difference{suffix}": np.nan, f"lower{suffix}": np.nan, f"upper{suffix}": np.nan}
        return empty if suffix else empty | {"p_value": np.nan, "period_a": "", "period_b": ""}
    found = model_rows[(testable[0], testable[-1])]
    row = {f"{name}{suffix}": found[name] for name in ("difference", "lower", "upper")}
    if not suffix:
        row |= {"p_value": found["p_value"], "period_a": testable[0], "period_b": testable[-1]}
        row |= {
            f"n_years_{x}": int(np.sum(member == labels.index(t)))
            for x, t in zip("ab", (testable[0], testable[-1]), strict=True)
        }
    return row


def _all_fits(discharge, q_ref, seasons, season, min_range):
    """Year, ln k_ref and b of every event, for each specification in order."""
    record = read_record(discharge, seasons)
    wanted = None
    if season is not None:
        wanted = [record.seasons.index(s) for s in ([season] if isinstance(season, str) else season)]
    out = []
    for rule, changes in EXTRACTIONS:
        settings = rule_settings(rule, changes)
        rows, number, *_ = find_events(record, blocked_days(record, (None, None), settings), settings)
        if wanted is not None and len(rows):
            first_row = np.r_[True, number[1:] != number[:-1]]
            keep = np.isin(record.season[rows][first_row], wanted)[number]
            rows, number = rows[keep], number[keep]
        first = _starts(number)
        starts = record.time.year.to_numpy()[rows[first[:-1]]]
        for scheme, options in DERIVATIVES:
            points = rates(
                (rows.astype(float), record.flow[rows], first), record.step[rows], scheme, **options
            )
            lines = kernels.log_lines(*points, first)
            good = np.isfinite(lines[:, 1]) & (lines[:, 5] >= 3) & (lines[:, 7] >= min_range * lines[:, 6])
            for name in LINES:
                line = _line(name, lines, good, points, first)
                # ln k_ref = ln a + (b - 1) ln Q_ref, with ln a = value - b center
                ln_k = line[:, 0] + line[:, 1] * (np.log(q_ref) - line[:, 2]) - np.log(q_ref)
                out.append((starts[good], ln_k[good], line[good, 1]))
    return out


def _line(name, lines, good, points, first):
    """One kind of per-event line from the least-squares ones."""
    q_mid, dqdt, weight = points
    if name == "theil_sen":
        return kernels.theil_sen_lines(lines, q_mid, dqdt, weight, first)
    line = lines.copy()
    if name == "shrunk" and good.sum() >= 3:
        line[good, 1] = shrunk_slopes(lines[good, 1], lines[good, 4])[0]
    elif name == "common_b" and good.any():
        k = np.repeat(np.arange(len(lines)), np.diff(first))
        use = (dqdt < 0) & (q_mid > 0) & (weight > 0) & good[k]
        x = np.log(q_mid[use]) - lines[k[use], 2]
        line[:, 1] = (weight[use] * x) @ np.log(-dqdt[use]) / ((weight[use] * x) @ x)
    return line


def _starts(number):
    """First row of each event, and the end."""
    if not len(number):
        return np.zeros(1, np.int64)
    return np.r_[0, np.flatnonzero(np.diff(number)) + 1, len(number)].astype(np.int64)
