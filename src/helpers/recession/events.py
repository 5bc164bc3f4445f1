"""Recession events: named, audited rule sets."""

import numpy as np
import pandas as pd
import xarray as xr

from . import _kernels

#: The first day (month-day) of each season class; an event belongs to the season it starts in.
SEASONS = {"spring": "04-01", "summer": "07-01", "autumn": "09-15", "winter": "11-01"}

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

_ENDED_BY = {_kernels.RISE: "rise", _kernels.RECORD_END: "end of record", _kernels.STEEP: "steep drop"}


class _Audit(pd.DataFrame):
    """A table that compares as a whole, so that pandas can compare the attrs that hold it (pd.concat does)."""

    @property
    def _constructor(self):
        return _Audit

    def __eq__(self, other):
        return isinstance(other, pd.DataFrame) and self.equals(other)

    __hash__ = None


def extract_events(
    discharge,
    rule="default",
    *,
    precipitation=None,
    temperature=None,
    snow=None,
    ice=None,
    seasons=None,
    **changes,
):
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
    time, q, coordinate_ice, attrs = _series(discharge)
    settings = _settings(rule, changes)
    seasons = SEASONS if seasons is None else seasons
    ice = coordinate_ice if ice is None else _driver(ice, time, "ice") > 0
    blocked = _blocks(time, q, ice, precipitation, temperature, snow, settings)

    usable = blocked == ""
    level = _smoothed(np.where(usable | (blocked == "rain") | (blocked == "melt"), q, np.nan), settings)
    first, last, why = _kernels.find_runs(
        level, q, usable & np.isfinite(level), settings["rise_tolerance"], settings["min_step_ratio"]
    )
    step = quantum(q)
    high = np.nanquantile(q, 0.9)
    season_of = _season_classes(time, seasons)

    kept, audit = [], []
    for a, z, code in zip(first, last, why, strict=True):
        days = _trim(np.arange(a, z + 1), q, high, settings)
        reason = _rejection(days, a, z, code, q, step, season_of, settings)
        if reason:
            # a smoothed series already ends where the blocked day enters its window
            following = [str(block) for block in blocked[z + 1 : z + 1 + settings["smooth_days"]] if block]
            ended_by = (
                following[0] if code == _kernels.BLOCKED and following else _ENDED_BY.get(code, "missing")
            )
            audit.append((time[a], time[z], z - a + 1, ended_by, reason))
        else:
            kept.append(days)

    rows = np.concatenate(kept) if kept else np.empty(0, int)
    number = np.repeat(np.arange(len(kept)), [len(d) for d in kept])
    events = pd.DataFrame(
        {
            "event": number.astype(int),
            "time": time[rows],
            "q": q[rows],
            "quantum": step[rows],
            "season": np.repeat([str(season_of[d[0]]) for d in kept], [len(d) for d in kept]).astype(object),
        }
    )
    events.attrs = {
        "audit": _Audit(audit, columns=["start", "end", "n_days", "ended_by", "reason"]),
        "rule": rule,
        "settings": settings,
        "n_candidates": len(first),
        **attrs,
    }
    return events


def quantum(q):
    """Rounding step of a record at each of its flows, same unit; 0 where it is not rounded.

    Taken per decade of flow as the smallest step between the different values that occur (three
    significant digits round more coarsely at high flow); a decade with under ten different values
    takes the next lower decade's step.
    """
    q = np.asarray(q, float)
    decade = np.full(q.shape, -999)
    positive = q > 0
    decade[positive] = np.floor(np.log10(q[positive]) + 1e-9).astype(int)
    out = np.zeros(q.shape)
    step = 0.0
    for d in np.unique(decade[positive]):
        # a relative margin, because unit conversion turns equal values into nearly equal ones
        values = np.unique(np.round(q[decade == d] / 10.0**d, 9))
        if values.size >= 10:
            step = float(np.diff(values).min()) * 10.0**d
            # a continuous record has no step: spacings then are as random as the values
            spacing = np.diff(values) * 10.0**d / step
            if np.abs(spacing - np.round(spacing)).max() > 1e-3:
                step = 0.0
        out[decade == d] = step
    return out


def degree_day_snow(precipitation, temperature, *, melt_mm_per_c_day=3.0):
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
    q = discharge.values.astype(float)
    if not np.isfinite(q).any():
        raise ValueError("discharge: no value at all; check the missing mark and the unit")
    if (q < 0).any() or np.isinf(q).any():
        bad = time[(q < 0) | np.isinf(q)][0]
        raise ValueError(
            f"discharge: negative or infinite flow, first on {bad:%Y-%m-%d}; set it to NaN if missing"
        )
    ice = np.zeros(len(q), bool)
    if "ice" in discharge.coords:
        ice = discharge["ice"].values.astype(bool)
    keep = ("units", "station", "drainage_area_km2")
    return time, q, ice, {k: discharge.attrs[k] for k in keep if k in discharge.attrs}


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


def _blocks(time, q, ice, precipitation, temperature, snow, settings):
    """Why a day can belong to no event ('' where it can)."""
    blocked = np.full(len(q), "", dtype="U8")
    rain = None
    if precipitation is not None:
        rain = _driver(precipitation, time, "precipitation")
        blocked[rain >= settings["max_precipitation_mm"]] = "rain"
    if temperature is not None:
        warm = _driver(temperature, time, "temperature")
        if snow is not None:
            lying = _driver(snow, time, "snow")
        elif rain is not None:
            lying = np.r_[0.0, degree_day_snow(rain, warm)[:-1]]
        else:
            raise ValueError(
                "temperature alone cannot tell melt from warmth: give precipitation or snow as well"
            )
        blocked[(warm > settings["melt_temperature_c"]) & (lying > 0)] = "melt"
    if settings["exclude_ice"]:
        blocked[ice] = "ice"
    if settings["zero_is_missing"]:
        blocked[q == 0] = "zero"
    blocked[~np.isfinite(q)] = "missing"
    return blocked


def _smoothed(q, settings):
    """The series in which a fall is looked for; a mean with a missing day is missing."""
    if settings["smooth"] == "none":
        return q
    w = int(settings["smooth_days"])
    mean = pd.Series(q).rolling(w, center=settings["smooth"] == "centred", min_periods=w).mean()
    return mean.to_numpy()


def _season_classes(time, seasons):
    """Class of every day by month and day."""
    names = sorted(seasons, key=lambda s: seasons[s])
    starts = np.array([int(seasons[s].replace("-", "")) for s in names])
    day = np.asarray(time.month * 100 + time.day)
    # index -1 (before the first start of the year) is the last class, begun the year before
    return np.array(names)[np.searchsorted(starts, day, side="right") - 1]


def _trim(days, q, high, settings):
    """The days of a run that its rule set keeps."""
    skip = settings["drop_first_days"]
    if settings["drop_first_days_high"] is not None and q[days[0]] > high:
        skip = settings["drop_first_days_high"]
    skip = max(skip, int(settings["drop_first_fraction"] * len(days)))
    kept = days[skip : len(days) - settings["drop_last_days"]]
    if settings["drop_steepening"] and len(kept):
        drop = np.full(len(days), np.nan)
        drop[1:] = q[days[:-1]] - q[days[1:]]
        steeper = np.zeros(len(days), bool)
        steeper[2:] = drop[2:] > drop[1:-1]
        kept = kept[~steeper[kept - days[0]]]
    return kept


def _rejection(days, a, z, code, q, step, season_of, settings):
    """Why a candidate is not an event; '' if it is one."""
    if settings["drop_open"] and a == 0:
        return "open at the record's start"
    if settings["drop_open"] and code == _kernels.RECORD_END:
        return "open at the record's end"
    if z - a + 1 < settings["min_run_days"]:
        return f"falls for under {settings['min_run_days']} days"
    if len(days) == 0:
        return "no day left"
    least = settings["min_days"]
    if settings["min_days_winter"] is not None and season_of[days[0]] == "winter":
        least = settings["min_days_winter"]
    if len(days) < least:
        return f"under {least} days left"
    top, bottom = q[days].max(), q[days].min()
    if top < settings["min_range"] * bottom:
        return f"range below {settings['min_range']}"
    # the whole drop, not each day's: to choose days by their drop would choose by what is to be explained
    if top - bottom < settings["min_drop_quanta"] * step[days].max() * (1 - 1e-9):
        return f"drop below {settings['min_drop_quanta']:g} rounding steps"
    return ""
