"""Recession events: named, audited rule sets."""

from collections import namedtuple

import numpy as np
import pandas as pd
import xarray as xr

from . import kernels
from .record import BLOCKS, ICE, MISSING, ZERO, blocked_days, read_record

_BASE = {
    "smooth": "none",  # series in which a fall is looked for: none | centred | trailing mean
    "smooth_days": 3,
    "rise_tolerance": 0.0,  # fraction of the lowest value so far
    "min_step_ratio": 0.0,  # Q[i+1] >= ratio * Q[i], else the event ends
    "min_run_days": 0,  # length of the fall before days are dropped
    "drop_open": False,  # falls that touch the record's first or last day
    "drop_first_days": 0,
    "drop_first_days_high": None,  # the same after a flow above the 90th percentile
    "drop_first_fraction": 0.0,
    "drop_last_days": 0,
    "drop_steepening": False,  # a day whose drop exceeds the day before's
    "min_days": 3,  # days left
    "min_days_winter": None,
    "min_range": 1.0,  # largest over smallest flow of the event
    "min_drop_quanta": 0.0,  # whole drop of the event, in steps of the record's rounding
    "zero_is_missing": True,
    "exclude_ice": True,
    "max_precipitation_mm": 1.0,
    "melt_temperature_c": 0.0,
}

#: The named rule sets; every entry can be changed by keyword in `extract_events`.
RULES = {
    "default": _BASE
    | {
        "smooth": "centred",
        "rise_tolerance": 0.02,
        "drop_first_days": 2,
        "min_days": 6,
        "min_days_winter": 10,
        "min_range": 1.3,
        "min_drop_quanta": 3.0,
    },
    "tossh2021": _BASE | {"min_run_days": 7, "drop_open": True, "drop_first_days": 1, "min_days": 6},
    "gnann2020": _BASE
    | {"min_run_days": 7, "drop_open": True, "drop_first_days": 1, "min_days": 6, "zero_is_missing": False},
    "vogel_kroll1992": _BASE
    | {"smooth": "trailing", "min_run_days": 10, "drop_first_fraction": 0.3, "min_step_ratio": 0.7},
    "brutsaert2008": _BASE
    | {"drop_first_days": 3, "drop_first_days_high": 4, "drop_last_days": 2, "drop_steepening": True},
}

#: Why a candidate is refused, by the code of `kernels.select`.
REASONS = (
    "",
    "open at the record's start",
    "open at the record's end",
    "falls for under {min_run_days} days",
    "no day left",
    "under {min_days} days left",
    "under {min_days_winter} days left",
    "range below {min_range}",
    "drop below {min_drop_quanta:g} rounding steps",
)
_ENDED_BY = {kernels.RISE: "rise", kernels.RECORD_END: "end of record", kernels.STEEP: "steep drop"}


_INTEGERS = "min_run_days drop_first_days drop_first_days_high drop_last_days min_days min_days_winter"
_NUMBERS = "drop_first_fraction min_range min_drop_quanta high_flow"
_TYPES = dict.fromkeys(_INTEGERS.split(), int) | dict.fromkeys(_NUMBERS.split(), float)
_TYPES |= {"drop_open": bool, "drop_steepening": bool}
#: The numbers of a rule set, as the compiled loop takes them (-1: none).
Limits = namedtuple("Limits", list(_TYPES))


def extract_events(
    discharge: xr.DataArray | pd.Series,
    rule: str = "default",
    *,
    precipitation: xr.DataArray | pd.Series | None = None,
    temperature: xr.DataArray | pd.Series | None = None,
    ice: xr.DataArray | pd.Series | None = None,
    seasons: dict | None = None,
    **changes,
) -> pd.DataFrame:
    """Find recession events by a named rule set.

    Parameters
    ----------
    discharge : xarray.DataArray or pandas.Series
        Daily flow on a complete calendar (dim ``time``), any unit, NaN = missing.  A boolean coordinate
        ``ice`` marks days whose flow is ice-affected.
    rule : {"default", "tossh2021", "gnann2020", "vogel_kroll1992", "brutsaert2008"}
        ``default`` is made for cold regions: falls are looked for in the centred 3-day mean (only there;
        the flows returned are the raw ones), a rise up to 2 % of the lowest day is kept, the first two
        days are dropped, at least 6 days (winter 10) with Qmax/Qmin >= 1.3 and a drop of at least three
        rounding steps must be left.  ``tossh2021`` and ``gnann2020`` take strictly falling runs of at
        least seven days that do not touch the record's ends, less their first day; in ``tossh2021`` zero
        flow counts as missing.  ``vogel_kroll1992`` and ``brutsaert2008`` are rules after, not exactly
        as in, Vogel and Kroll (1992) and Brutsaert (2008, doi:10.1029/2007WR006518).
    precipitation, temperature : array-like, optional
        Daily mm and degC, on the days of `discharge` (xarray and pandas objects are aligned by calendar day);
        a day on which a given driver is unknown belongs to no event.
        A day with ``max_precipitation_mm`` or more, or on which snow melts (`degree_day_snow`; it needs both),
        belongs to no event.
    ice : array-like of bool, optional
        Overrides the coordinate.
    seasons : dict, optional
        First month-day of each class; default `SEASONS`.
    **changes
        Entries of the rule set to change, e.g. ``min_days=8``; see `RULES`.

    Returns
    -------
    pandas.DataFrame
        ``event`` (0, 1, ...), ``time``, ``q`` (raw flow), ``quantum`` (rounding step of the record at that
        flow) and ``season``.  ``.attrs["audit"]`` lists every rejected candidate in columns (a dict of lists:
        start, end, n_days, ended_by, reason); ``.attrs`` also holds rule, settings, n_candidates and units.

    Raises
    ------
    ValueError
        For an unknown rule or setting, an incomplete calendar, negative or no flow.
    """
    settings = rule_settings(rule, changes)
    record = read_record(discharge, seasons, ice)
    blocked = blocked_days(record, (precipitation, temperature), settings)
    rows, number, runs, reasons = find_events(record, blocked, settings)

    starts = np.flatnonzero(np.diff(number, prepend=-1))
    season = record.season[rows[starts]][number]  # of the event's first day, on all its days
    events = pd.DataFrame(
        {
            "event": number,
            "time": record.time[rows],
            "q": record.flow[rows],
            "quantum": record.step[rows],
            "season": pd.Categorical.from_codes(season, record.seasons).astype(object),
        }
    )
    events.attrs = {
        "audit": _audit(record, blocked, runs, reasons, settings),
        "rule": rule,
        "settings": settings,
        "n_candidates": len(reasons),
        "n_rejected": int(np.sum(reasons > 0)),
        **record.attrs,
    }
    return events


def find_events(record, blocked, settings):
    """Days and event numbers by a rule set; every candidate as (first day, last day, why it ended), and its reason."""
    q = record.flow
    # rain and melt end an event, but their flow is measured and may enter a smoothed neighbour
    level = _smoothed(np.where(np.isin(blocked, (MISSING, ZERO, ICE)), np.nan, q), settings)
    usable = (blocked == 0) & np.isfinite(level)
    tolerance, step_ratio = float(settings["rise_tolerance"]), float(settings["min_step_ratio"])
    runs = kernels.find_runs(level, q, usable, tolerance, step_ratio)
    numbers = (settings | {"high_flow": record.high_flow}).items()
    limits = Limits(**{k: _TYPES[k](-1 if v is None else v) for k, v in numbers if k in _TYPES})
    winter = record.season == (record.seasons.index("winter") if "winter" in record.seasons else -1)
    rows, number, reasons = kernels.select(q, record.step, winter, runs, limits)
    return rows, number, runs, reasons


def _audit(record, blocked, runs, reasons, settings):
    """Every refused candidate and why, as lists of one entry each."""
    first, last, why = runs
    refused = np.flatnonzero(reasons)
    texts = [text.format(**settings) for text in REASONS]
    ended_by = []
    for k in refused:
        # a smoothed series already ends where the blocked day enters its window
        after = blocked[last[k] + 1 : last[k] + 1 + settings["smooth_days"]]
        after = after[after > 0]
        known = why[k] == kernels.BLOCKED and after.size
        ended_by.append(BLOCKS[after[0]] if known else _ENDED_BY.get(why[k], "missing"))
    return {
        "start": record.time[first[refused]].strftime("%Y-%m-%d").tolist(),
        "end": record.time[last[refused]].strftime("%Y-%m-%d").tolist(),
        "n_days": (last[refused] - first[refused] + 1).tolist(),
        "ended_by": ended_by,
        "reason": [texts[code] for code in reasons[refused]],
    }


def rule_settings(rule, changes):
    """The settings of a named rule with some of them changed, checked."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
    unknown = set(changes) - set(RULES[rule])
    if unknown:
        raise ValueError(f"unknown setting {', '.join(sorted(unknown))}; known: {', '.join(RULES[rule])}")
    settings = RULES[rule] | changes
    if settings["smooth"] not in ("none", "centred", "trailing"):
        raise ValueError(f"smooth must be none, centred or trailing, found {settings['smooth']!r}")
    return settings


def _smoothed(q, settings):
    """The series in which a fall is looked for; a mean with a missing day is missing."""
    if settings["smooth"] == "none":
        return q
    w = int(settings["smooth_days"])
    total = np.full(q.size, np.nan)
    if q.size >= w:
        # sums of w neighbours, not differences of running sums: equal days must give equal means
        sums = np.sum(np.lib.stride_tricks.sliding_window_view(q, w), axis=1)
        start = w // 2 if settings["smooth"] == "centred" else w - 1
        total[start : start + sums.size] = sums / w
    return total
