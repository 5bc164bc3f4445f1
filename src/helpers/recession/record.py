"""A daily flow record: its checks, rounding steps, season classes, and the days that can belong to no event."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy import signal

from . import kernels

#: The first day (month-day) of each season class; an event belongs to the season it starts in.
SEASONS = {"spring": "04-01", "summer": "07-01", "autumn": "09-15", "winter": "11-01"}

#: Why a day belongs to no event.
BLOCKS = ("", "rain", "melt", "ice", "zero", "missing", "no rain data", "no temperature data")
RAIN, MELT, ICE, ZERO, MISSING, NO_RAIN, NO_TEMPERATURE = range(1, 8)


class Record(NamedTuple):
    """A checked daily record: what all rule sets share."""

    time: pd.DatetimeIndex
    flow: np.ndarray
    step: np.ndarray
    season: np.ndarray
    seasons: list
    high_flow: float
    ice: np.ndarray
    attrs: dict


def read_record(discharge, seasons=None, ice=None):
    """Check a daily record and find its rounding steps and season classes; `ice` overrides its own ice marks."""
    time, flow, marked, attrs = _checked(discharge)
    ice = marked if ice is None else daily(ice, time, "ice") > 0
    names, season = _season_classes(time, SEASONS if seasons is None else seasons)
    finite = flow[np.isfinite(flow)]
    high = float(np.partition(finite, int(0.9 * finite.size))[int(0.9 * finite.size)])
    return Record(time, flow, quantum(flow), season, names, high, ice, attrs)


def _checked(discharge):
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
    ice = discharge["ice"].values.astype(bool) if "ice" in discharge.coords else np.zeros(len(q), bool)
    keep = ("units", "station", "drainage_area_km2")
    return time, q, ice, {k: discharge.attrs[k] for k in keep if k in discharge.attrs}


def quantum(q: np.ndarray) -> np.ndarray:
    """Rounding step of a record at each of its flows, same unit; 0 where it is not rounded.

    Taken per decade of flow as the smallest step between the different values that occur (three
    significant digits round more coarsely at high flow); a decade with under ten different values
    takes the next lower decade's step.
    """
    return kernels.rounding_steps(np.ascontiguousarray(q, dtype=float))


def _season_classes(time, seasons):
    """Names of the classes and the class of every day, by month and day."""
    names = sorted(seasons, key=lambda s: seasons[s])
    starts = np.array([int(seasons[s].replace("-", "")) for s in names])
    day = np.asarray(time.month * 100 + time.day)
    # days before the first start of the year are of the last class, begun the year before
    return names, (np.searchsorted(starts, day, side="right") - 1) % len(names)


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


def daily(values, time, name):
    """A driver on the days of the record: aligned by calendar day where it has dates, else by position."""
    if isinstance(values, xr.DataArray):
        values = values.squeeze(drop=True).to_series()
    if isinstance(values, pd.Series):
        dated = values.set_axis(pd.DatetimeIndex(values.index).floor("D"))
        values = dated.reindex(time.floor("D"))
    values = np.asarray(values, float)
    if values.shape == (len(time),) and np.isnan(values).all():
        raise ValueError(f"{name}: no value on any day of discharge; check its dates, or leave it out")
    if values.shape != (len(time),):
        raise ValueError(
            f"{name}: {values.shape} values for {len(time)} days of discharge; give one a day, or a dated series"
        )
    return values


def blocked_days(record, drivers, settings):
    """Why a day can belong to no event, as an index into `BLOCKS` (0 where it can)."""
    time, q = record.time, record.flow
    blocked = np.zeros(len(q), np.int8)
    rain = None
    precipitation, temperature = drivers
    if precipitation is not None:
        rain = daily(precipitation, time, "precipitation")
        blocked[rain >= settings["max_precipitation_mm"]] = RAIN
        blocked[np.isnan(rain)] = NO_RAIN
    if temperature is not None:
        warm = daily(temperature, time, "temperature")
        if rain is None:
            raise ValueError("temperature alone cannot tell snow melt: give precipitation as well")
        lying = np.r_[0.0, degree_day_snow(rain, warm)[:-1]]
        blocked[(warm > settings["melt_temperature_c"]) & (lying > 0)] = MELT
        blocked[np.isnan(warm) & (blocked == 0)] = NO_TEMPERATURE
    if settings["exclude_ice"]:
        blocked[record.ice] = ICE
    if settings["zero_is_missing"]:
        blocked[q == 0] = ZERO
    blocked[~np.isfinite(q)] = MISSING
    return blocked


def degree_day_snow(precipitation: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Snow store (mm water) of a degree-day balance: P falls as snow below 0 degC and melts by 3 mm/degC/day above.

    S(t) = max(S(t-1) + P [T < 0] - 3 max(T, 0), 0).  Only to tell days with melt from days without; a day
    of unknown precipitation or temperature adds or takes none.
    """
    p, t = (np.nan_to_num(np.asarray(x, float)) for x in (precipitation, temperature))
    store, snow = np.zeros(p.size), 0.0
    for i in range(p.size):
        snow = max(snow + (p[i] if t[i] < 0 else 0.0) - 3.0 * max(t[i], 0.0), 0.0)
        store[i] = snow
    return store


def antecedent_precipitation(
    precipitation: pd.Series | np.ndarray, *, decay: float = 0.9
) -> pd.Series | np.ndarray:
    """Antecedent precipitation index (mm) of each day: the rain of the days before, each day counting less.

    API(t) = decay (API(t-1) + P(t-1)); the day's own rain is not in it.

    Parameters
    ----------
    precipitation : pandas.Series or array-like
        Daily mm (missing counts as none); the index comes back likewise.
    decay : float
        Share of the index that is left a day later, 0.8 to 0.98 in use.
    """
    if not 0 < decay < 1:
        raise ValueError(f"decay must lie between 0 and 1, found {decay}")
    p = np.nan_to_num(np.asarray(precipitation, float))
    index = signal.lfilter([0.0, decay], [1.0, -decay], p)
    return pd.Series(index, precipitation.index) if isinstance(precipitation, pd.Series) else index
