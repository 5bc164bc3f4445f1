"""Many analyses at once: every defensible choice on one gauge, or one choice on many gauges."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
import xarray as xr

from . import kernels
from .comparables import shrunk_slopes
from .derivatives import SCHEMES
from .events import (
    _blocks,
    _driver,
    _settings,
    check_flow,
    find_events,
    make_record,
    read_record,
)
from .regimes import contrasts, membership, period_bounds, year_statistic

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
    """The 480 choices of extraction x derivative x per-event line, as a table.

    Returns
    -------
    pandas.DataFrame
        ``rule, changes, scheme, options, line``; 20 x 6 x 4 rows.
    """
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
    control_q_ref: float | None = None,
    seasons: dict | None = None,
    season: str | Sequence[str] | None = None,
    ice: xr.DataArray | pd.Series | None = None,
    control_ice: xr.DataArray | pd.Series | None = None,
    precipitation: xr.DataArray | pd.Series | None = None,
    temperature: xr.DataArray | pd.Series | None = None,
    snow: xr.DataArray | pd.Series | None = None,
    year_start_month: int = 1,
    min_range: float = 1.0,
) -> pd.DataFrame:
    """Contrast of the first and last testable period under every specification.

    Parameters
    ----------
    discharge : xarray.DataArray or pandas.Series
        As `extract_events` takes it.
    q_ref : float
        Reference flow, one for all specifications, in the unit of `discharge`.
    periods : pandas.DataFrame
        ``label, start, end``, as `regime_test` takes them.
    control : DataArray or Series, optional
        A second gauge, analysed in the same way at `control_q_ref` (default: `q_ref`, for flows per area); the
        yearly difference to it is contrasted.
    season : str or list of str, optional
        Only events of these classes.
    ice, precipitation, temperature, snow, seasons, control_ice
        As in `extract_events`; climate drivers serve both gauges.
    min_range : float
        Events whose fitted flows span less than this ratio are left out: their b is not identified.

    Returns
    -------
    pandas.DataFrame
        `specifications` plus ``n_events``, ``b`` (median over events), ``ln_k_ref`` (median), ``period_a,
        period_b, difference, lower, upper, p_value, n_years_a, n_years_b, difference_b, lower_b, upper_b`` (of
        year medians of ln k_ref and of b, with the memory of `regime_test`).
    """
    drivers = {"precipitation": precipitation, "temperature": temperature, "snow": snow}
    gauges = [(discharge, ice, q_ref)]
    if control is not None:
        gauges.append((control, control_ice, q_ref if control_q_ref is None else control_q_ref))
    fitted = [_all_fits(*gauge, drivers, seasons, season, min_range, year_start_month) for gauge in gauges]
    table = specifications()
    bounds = period_bounds(periods)
    rows = []
    for k in range(len(table)):
        year, ln_k, b = fitted[0][k]
        row = {"n_events": len(b), "b": np.median(b) if len(b) else np.nan}
        row["ln_k_ref"] = np.median(ln_k) if len(b) else np.nan
        for suffix, value in (("", ln_k), ("_b", b)):
            years, values, _ = year_statistic(year, value, "median")
            if control is not None:
                other_year, other_ln_k, other_b = fitted[1][k]
                other, base, _ = year_statistic(other_year, other_b if suffix else other_ln_k, "median")
                years, i, j = np.intersect1d(years, other, return_indices=True)
                values = values[i] - base[j]
            row |= _first_last(years, values, bounds, year_start_month, suffix)
        rows.append(row)
    return pd.concat([table, pd.DataFrame(rows)], axis=1)


def _first_last(years, values, bounds, year_start_month, suffix):
    """Contrast of the last against the first testable period."""
    labels, member = bounds[0], membership(years, bounds, year_start_month)
    testable, model_rows = contrasts(years, values, member, labels, None, 0.95)
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


def _all_fits(discharge, ice, q_ref, drivers, seasons, season, min_range, year_start_month):
    """Year, ln k_ref and b of every event, for each specification in order."""
    record, marked = read_record(discharge, seasons)
    ice = marked if ice is None else _driver(ice, record.time, "ice") > 0
    year = np.asarray(record.time.year + ((record.time.month >= year_start_month) & (year_start_month > 1)))
    wanted = None
    if season is not None:
        wanted = [record.seasons.index(s) for s in ([season] if isinstance(season, str) else season)]
    out = []
    for rule, changes in EXTRACTIONS:
        settings = _settings(rule, changes)
        blocked = _blocks(record.time, record.flow, ice, drivers, settings)
        rows, number, _ = find_events(record, blocked, settings)
        if wanted is not None and len(rows):
            first_row = np.r_[True, number[1:] != number[:-1]]
            keep = np.isin(record.season[rows][first_row], wanted)[number]
            rows, number = rows[keep], number[keep]
        first = _starts(number)
        starts = year[rows[first[:-1]]]
        for scheme, options in DERIVATIVES:
            q_mid, dqdt, weight = _derivative(record, rows, first, scheme, options)
            lines = kernels.log_lines(q_mid, dqdt, weight, first)
            good = np.isfinite(lines[:, 1]) & (lines[:, 5] >= 3) & (lines[:, 7] >= min_range * lines[:, 6])
            for name in LINES:
                line = _line(name, lines, good, q_mid, dqdt, weight, first)
                ln_k = line[:, 0] + line[:, 1] * (np.log(q_ref) - line[:, 2]) - np.log(q_ref)
                out.append((starts[good], ln_k[good], line[good, 1]))
    return out


def _line(name, lines, good, q_mid, dqdt, weight, first):
    """One kind of per-event line from the least-squares ones."""
    if name == "theil_sen":
        return kernels.other_lines(lines, q_mid, dqdt, weight, first, kernels.THEIL_SEN)
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


def _derivative(record, rows, first, scheme, options):
    """One derivative scheme on the rows of a record."""
    t, q = rows.astype(float), record.flow[rows]
    weight = np.ones(len(rows))
    if scheme == "variable_step":
        q_mid, dqdt = kernels.variable_steps(t, q, first, 3.0 * record.step[rows])
    elif scheme == "exponential":
        semilog = options["gamma"] == "semilog"
        q_mid, dqdt, weight = kernels.exponential_steps(t, q, first, options["fraction"], semilog)
    else:
        q_mid, dqdt = kernels.differences(t, q, first, SCHEMES.index(scheme))
    return q_mid, dqdt, weight


def per_event_fits(
    discharge: xr.DataArray | pd.Series,
    rule: str = "default",
    scheme: str = "exponential",
    *,
    fraction: float = 0.2,
    gamma: str | float = "nonlinear",
    **changes,
) -> pd.DataFrame:
    """Events, derivative and per-event lines of many gauges.

    Parameters
    ----------
    discharge : xarray.DataArray
        (station, time), daily, any unit.
    rule, scheme, fraction, gamma, changes
        As in `extract_events` and `derivative`; ``integrated`` is not offered here.

    Returns
    -------
    pandas.DataFrame
        ``station, event, start, a, b, n`` (event numbers start at 0 in each station).
    """
    if "station" not in discharge.dims or "time" not in discharge.dims:
        raise ValueError(f"per_event_fits takes (station, time), found {discharge.dims}")
    if scheme not in SCHEMES[:-1]:
        raise ValueError(f"unknown scheme {scheme!r} for many gauges; known: {', '.join(SCHEMES[:-1])}")
    settings = _settings(rule, changes)
    parts = []
    names = discharge["station"].values
    discharge = discharge.transpose("station", "time")
    first_station, _ = read_record(discharge.isel(station=0, drop=True))  # checks the calendar, once
    time, classes = first_station.time, (first_station.seasons, first_station.season)
    ice = np.zeros(discharge.shape, bool)
    if "ice" in discharge.coords:
        ice[:] = discharge["ice"].values
    no_drivers = dict.fromkeys(("precipitation", "temperature", "snow"))
    for k in range(len(names)):
        flow = check_flow(discharge.values[k].astype(float), time)
        record = make_record(time, flow, classes, {})
        blocked = _blocks(time, flow, ice[k], no_drivers, settings)
        rows, number, _ = find_events(record, blocked, settings)
        first = _starts(number)
        q_mid, dqdt, weight = _derivative(record, rows, first, scheme, {"fraction": fraction, "gamma": gamma})
        lines = kernels.log_lines(q_mid, dqdt, weight, first)
        parts.append(
            (np.full(len(lines), k), np.arange(len(lines)), record.time.values[rows[first[:-1]]], lines)
        )
    station, event, start, lines = (np.concatenate(p) for p in zip(*parts, strict=True))
    with np.errstate(over="ignore"):
        a = np.exp(lines[:, 0] - lines[:, 1] * lines[:, 2])
    return pd.DataFrame(
        {
            "station": names[station],
            "event": event,
            "start": start,
            "a": a,
            "b": lines[:, 1],
            "n": lines[:, 5],
        }
    ).astype({"n": int})
