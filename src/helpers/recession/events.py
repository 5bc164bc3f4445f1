"""Recession events: named, audited rule sets."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy import signal

from . import kernels

#: The first day (month-day) of each season class; an event belongs to the season it starts in.
SEASONS = {"spring": "04-01", "summer": "07-01", "autumn": "09-15", "winter": "11-01"}

#: Why a day belongs to no event.
BLOCKS = ("", "rain", "melt", "ice", "zero", "missing")
RAIN, MELT, ICE, ZERO, MISSING = 1, 2, 3, 4, 5

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
    | {
        "min_run_days": 7,
        "drop_open": True,
        "drop_first_days": 1,
        "min_days": 6,
        "zero_is_missing": False,
    },
    "vogel_kroll1992": _BASE
    | {"smooth": "trailing", "min_run_days": 10, "drop_first_fraction": 0.3, "min_step_ratio": 0.7},
    "brutsaert2008": _BASE
    | {
        "drop_first_days": 3,
        "drop_first_days_high": 4,
        "drop_last_days": 2,
        "drop_steepening": True,
    },
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


class Limits(NamedTuple):
    """The numbers of a rule set, as the compiled loop takes them (-1: none)."""

    min_run_days: int
    drop_open: bool
    drop_first_days: int
    drop_first_days_high: int
    drop_first_fraction: float
    drop_last_days: int
    drop_steepening: bool
    min_days: int
    min_days_winter: int
    min_range: float
    min_drop_quanta: float


class Record(NamedTuple):
    """A checked daily record: what all rule sets share."""

    time: pd.DatetimeIndex
    flow: np.ndarray
    step: np.ndarray
    season: np.ndarray
    seasons: list
    high_flow: float
    attrs: dict


class _Audit(pd.DataFrame):
    """A table that compares as a whole, so that pandas can compare the attrs that hold it (pd.concat does)."""

    @property
    def _constructor(self):
        return _Audit

    def __eq__(self, other):
        return isinstance(other, pd.DataFrame) and self.equals(other)

    __hash__ = None


def extract_events(
    discharge: xr.DataArray | pd.Series,
    rule: str = "default",
    *,
    precipitation: xr.DataArray | pd.Series | None = None,
    temperature: xr.DataArray | pd.Series | None = None,
    snow: xr.DataArray | pd.Series | None = None,
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
        Daily mm and degC, on the days of `discharge` (xarray and pandas objects are aligned by date).
        A day with ``max_precipitation_mm`` or more, or on which snow melts, belongs to no event.
    snow : array-like, optional
        Snow on the ground (any positive number).  Without it a degree-day store is kept from
        precipitation and temperature (`degree_day_snow`); temperature alone is an error.
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
        flow) and ``season``.  ``.attrs["audit"]`` lists every rejected candidate: start, end, n_days,
        ended_by and reason; ``.attrs`` also holds rule, settings, n_candidates and units.

    Raises
    ------
    ValueError
        For an unknown rule or setting, an incomplete calendar, negative or no flow.
    """
    settings = _settings(rule, changes)
    record, marked = read_record(discharge, seasons)
    drivers = {"precipitation": precipitation, "temperature": temperature, "snow": snow}
    ice = marked if ice is None else _driver(ice, record.time, "ice") > 0
    blocked = _blocks(record.time, record.flow, ice, drivers, settings)
    rows, number, (first, last, why, reasons) = find_events(record, blocked, settings)

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
    refused = reasons > 0
    events.attrs = {
        "audit": _audit(record, blocked, first, last, why, reasons, settings),
        "rule": rule,
        "settings": settings,
        "n_candidates": len(first),
        "n_rejected": int(refused.sum()),
        **record.attrs,
    }
    return events


def read_record(discharge, seasons=None):
    """Check a daily record and find its rounding steps and season classes; also its ice marks."""
    time, flow, ice, attrs = _series(discharge)
    return make_record(time, flow, _season_classes(time, SEASONS if seasons is None else seasons), attrs), ice


def make_record(time, flow, classes, attrs):
    """A `Record` of checked flow."""
    names, season = classes
    finite = flow[np.isfinite(flow)]
    high = float(np.partition(finite, int(0.9 * finite.size))[int(0.9 * finite.size)])
    return Record(time, flow, quantum(flow), season, names, high, attrs)


def find_events(record, blocked, settings):
    """Days and event numbers by a rule set, and every candidate (first, last, why it ended, reason)."""
    q = record.flow
    # rain and melt end an event, but their flow is measured and may enter a smoothed neighbour
    level = _smoothed(np.where(np.isin(blocked, (MISSING, ZERO, ICE)), np.nan, q), settings)
    usable = (blocked == 0) & np.isfinite(level)
    first, last, why = kernels.find_runs(
        level, q, usable, float(settings["rise_tolerance"]), float(settings["min_step_ratio"])
    )
    high = settings["drop_first_days_high"]
    long = settings["min_days_winter"]
    limits = Limits(
        int(settings["min_run_days"]),
        bool(settings["drop_open"]),
        int(settings["drop_first_days"]),
        -1 if high is None else int(high),
        float(settings["drop_first_fraction"]),
        int(settings["drop_last_days"]),
        bool(settings["drop_steepening"]),
        int(settings["min_days"]),
        -1 if long is None else int(long),
        float(settings["min_range"]),
        float(settings["min_drop_quanta"]),
    )
    winter = record.season == (record.seasons.index("winter") if "winter" in record.seasons else -1)
    rows, number, reasons = kernels.select(q, first, last, why, record.step, winter, record.high_flow, limits)
    return rows, number, (first, last, why, reasons)


def _audit(record, blocked, first, last, why, reasons, settings):
    """Every refused candidate and why."""
    refused = np.flatnonzero(reasons)
    texts = [text.format(**settings) for text in REASONS]
    ended_by = []
    for k in refused:
        # a smoothed series already ends where the blocked day enters its window
        after = blocked[last[k] + 1 : last[k] + 1 + settings["smooth_days"]]
        after = after[after > 0]
        ended_by.append(
            BLOCKS[after[0]] if why[k] == kernels.BLOCKED and after.size else _ENDED_BY.get(why[k], "missing")
        )
    return _Audit(
        {
            "start": record.time[first[refused]],
            "end": record.time[last[refused]],
            "n_days": last[refused] - first[refused] + 1,
            "ended_by": ended_by,
            "reason": [texts[code] for code in reasons[refused]],
        }
    )


def quantum(q: np.ndarray) -> np.ndarray:
    """Rounding step of a record at each of its flows, same unit; 0 where it is not rounded.

    Taken per decade of flow as the smallest step between the different values that occur (three
    significant digits round more coarsely at high flow); a decade with under ten different values
    takes the next lower decade's step.
    """
    return kernels.rounding_steps(np.ascontiguousarray(q, dtype=float))


def degree_day_snow(
    precipitation: xr.DataArray | pd.Series,
    temperature: xr.DataArray | pd.Series,
    *,
    melt_mm_per_c_day: float = 3.0,
) -> pd.Series:
    """Snow store (mm water) from a degree-day balance: P falls as snow below 0 degC, melts above it.

    Only to tell days with melt from days without; missing precipitation counts as none.
    """
    p = np.nan_to_num(np.asarray(precipitation, float))
    t = np.asarray(temperature, float)
    store = np.zeros(p.size)
    held = 0.0
    for i in range(p.size):
        held = max(held + (p[i] if t[i] < 0 else 0.0) - melt_mm_per_c_day * max(t[i], 0.0), 0.0)
        store[i] = held
    return store


def antecedent_precipitation(
    precipitation: pd.Series | np.ndarray, *, decay: float = 0.9
) -> pd.Series | np.ndarray:
    """Antecedent precipitation index (mm) of each day: the rain of the days before, each day counting less.

    API(t) = decay (API(t-1) + P(t-1)); the day's own rain is not in it.

    Parameters
    ----------
    precipitation : pandas.Series or array-like
        Daily mm; missing counts as none.
    decay : float
        Share of the index that is left a day later, 0.8 to 0.98 in use.

    Returns
    -------
    pandas.Series or numpy.ndarray
        As the input.
    """
    if not 0 < decay < 1:
        raise ValueError(f"decay must lie between 0 and 1, found {decay}")
    p = np.nan_to_num(np.asarray(precipitation, float))
    index = signal.lfilter([0.0, decay], [1.0, -decay], p)
    return pd.Series(index, precipitation.index) if isinstance(precipitation, pd.Series) else index


def season_classes(temperature: pd.Series | None = None) -> dict:
    """First month-day of each season class: `SEASONS`, half a year later where January is warmer than July.

    Parameters
    ----------
    temperature : pandas.Series, optional
        Daily air temperature with dates; without it the northern classes.
    """
    if temperature is None:
        return dict(SEASONS)
    by_month = temperature.groupby(temperature.index.month).mean()
    if not by_month.get(1, -np.inf) > by_month.get(7, np.inf):
        return dict(SEASONS)
    return {name: f"{(int(day[:2]) + 5) % 12 + 1:02d}{day[2:]}" for name, day in SEASONS.items()}


def _series(discharge):
    """Time, flow, ice flag and attributes of a DataArray or Series, checked."""
    if isinstance(discharge, pd.Series):
        discharge = xr.DataArray(
            discharge.to_numpy(float), coords={"time": discharge.index}, dims="time", attrs=discharge.attrs
        )
    if not isinstance(discharge, xr.DataArray) or discharge.dims != ("time",):
        raise ValueError(
            "discharge must be a DataArray with the one dimension time (io.read_discharge gives it), "
            f"found {type(discharge).__name__} {getattr(discharge, 'dims', '')}"
        )
    time = pd.DatetimeIndex(discharge["time"].values)
    if len(time) < 2 or not (np.diff(time.values) == np.timedelta64(1, "D")).all():
        raise ValueError(
            "discharge: the calendar is not complete and daily (gaps, duplicates or other steps); "
            "reindex to every day with NaN for the missing ones"
        )
    q = check_flow(discharge.values.astype(float), time)
    ice = np.zeros(len(q), bool)
    if "ice" in discharge.coords:
        ice = discharge["ice"].values.astype(bool)
    keep = ("units", "station", "drainage_area_km2")
    return time, q, ice, {k: discharge.attrs[k] for k in keep if k in discharge.attrs}


def check_flow(q, time):
    """Flow without anything that is no flow."""
    if not np.isfinite(q).any():
        raise ValueError("discharge: no value at all; check the missing mark and the unit")
    if (q < 0).any() or np.isinf(q).any():
        bad = time[(q < 0) | np.isinf(q)][0]
        raise ValueError(
            f"discharge: negative or infinite flow, first on {bad:%Y-%m-%d}; set it to NaN if missing"
        )
    return q


def _settings(rule, changes):
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
    unknown = set(changes) - set(RULES[rule])
    if unknown:
        raise ValueError(f"unknown setting {', '.join(sorted(unknown))}; known: {', '.join(RULES[rule])}")
    settings = RULES[rule] | changes
    if settings["smooth"] not in ("none", "centred", "trailing"):
        raise ValueError(f"smooth must be none, centred or trailing, found {settings['smooth']!r}")
    return settings


def _driver(values, time, name):
    """A driver on the days of the record: aligned by date where it has dates, else by position."""
    if isinstance(values, xr.DataArray):
        values = values.squeeze(drop=True).to_series()
    if isinstance(values, pd.Series):
        return values.reindex(time).to_numpy(float)
    values = np.asarray(values, float)
    if values.shape != (len(time),):
        raise ValueError(
            f"{name}: {values.shape} values for {len(time)} days of discharge; give one a day, or a dated series"
        )
    return values


def _blocks(time, q, ice, drivers, settings):
    """Why a day can belong to no event, as an index into `BLOCKS` (0 where it can)."""
    blocked = np.zeros(len(q), np.int8)
    rain = None
    if drivers["precipitation"] is not None:
        rain = _driver(drivers["precipitation"], time, "precipitation")
        blocked[rain >= settings["max_precipitation_mm"]] = RAIN
    if drivers["temperature"] is not None:
        warm = _driver(drivers["temperature"], time, "temperature")
        if drivers["snow"] is not None:
            lying = _driver(drivers["snow"], time, "snow")
        elif rain is not None:
            lying = np.r_[0.0, degree_day_snow(rain, warm)[:-1]]
        else:
            raise ValueError(
                "temperature alone cannot tell melt from warmth: give precipitation or snow as well"
            )
        blocked[(warm > settings["melt_temperature_c"]) & (lying > 0)] = MELT
    if settings["exclude_ice"]:
        blocked[ice] = ICE
    if settings["zero_is_missing"]:
        blocked[q == 0] = ZERO
    blocked[~np.isfinite(q)] = MISSING
    return blocked


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


def _season_classes(time, seasons):
    """Names of the classes and the class of every day, by month and day."""
    names = sorted(seasons, key=lambda s: seasons[s])
    starts = np.array([int(seasons[s].replace("-", "")) for s in names])
    day = np.asarray(time.month * 100 + time.day)
    # days before the first start of the year are of the last class, begun the year before
    return names, (np.searchsorted(starts, day, side="right") - 1) % len(names)
