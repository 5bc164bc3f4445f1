"""Degree days of thaw and the share of a season's thaw they put into a window; used by `thaw`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

POWERS = tuple(np.round(np.arange(0.3, 1.31, 0.1), 1))
LAGS_DAYS = (0, 5, 10, 15, 20, 30, 40)


@dataclass(frozen=True)
class Heat:
    """Running sum of positive degrees (time, ...) from its first day; the checks are behind it."""

    total: xr.DataArray
    start: pd.Timestamp

    @classmethod
    def of(cls, temperature: xr.DataArray | Heat) -> Heat:
        """Check units, gaps and calendar of a daily temperature in degrees Celsius, then sum it."""
        if isinstance(temperature, Heat):
            return temperature
        if "time" not in temperature.dims:
            raise ValueError(f"temperature: dims {temperature.dims}; it needs 'time'")
        times = pd.DatetimeIndex(temperature["time"].values)
        if times.size < 2 or np.any(np.diff(times) != pd.Timedelta(days=1)):
            raise ValueError(
                "temperature: needs a complete daily calendar; reindex to daily and fill the gaps"
            )
        if bool(temperature.isnull().any()):
            raise ValueError("temperature: has NaN; fill the gaps before (degree days are sums)")
        if float(temperature.max()) > 100:
            raise ValueError("temperature: values above 100; give degrees Celsius, not kelvin")
        bare = temperature.drop_vars([c for c in temperature.coords if "time" in temperature[c].dims])
        return cls(bare.astype(float).clip(0).cumsum("time").transpose("time", ...), times[0].normalize())

    @cached_property
    def area_mean(self) -> Heat:
        """Heat without trailing dims."""
        return Heat(self.total.mean([d for d in self.total.dims if d != "time"]), self.start)

    def index(self, years, dates, power: float = 0.5, lag_days: float = 0) -> xr.DataArray:
        """(year, date, ...) degree days since 1 January up to each "mm-dd" less the lag, to a power."""
        first = np.array([(pd.Timestamp(f"{y}-01-01") - self.start).days for y in years])
        days = np.array([[day_of_year(y, d) for d in dates] for y in years])
        last = np.maximum(first[:, None] + np.round(days - lag_days).astype(int), first[:, None])
        short = (first < 0) | (last.max(axis=1) >= self.total.sizes["time"])
        if short.any():
            missing = [int(y) for y in np.asarray(years)[short]]
            raise ValueError(f"temperature: does not cover {missing}; extend it or leave those years out")
        values = self.total.values
        before = np.where(
            (first > 0).reshape(-1, *[1] * (values.ndim - 1)), values[np.maximum(first - 1, 0)], 0
        )
        sums = np.power(np.clip(values[last] - before[:, None], 0, None), power)
        return xr.DataArray(sums, dims=("year", "date", *self.total.dims[1:]))


def thaw_index(
    temperature: xr.DataArray,
    years: Sequence[int],
    dates: Sequence[str],
    *,
    power: float = 0.5,
    lag_days: float = 0,
) -> xr.DataArray:
    """Degree days of thaw from 1 January to each date, less the lag, raised to a power.

    Parameters
    ----------
    temperature : (time, ...) DataArray
        Daily, degrees Celsius, without gaps in `years`.
    years, dates
        Calendar years and "mm-dd" dates.
    power : float
        0.5 is the Stefan form; above it thaw late in the season reaches more ice.
    lag_days : float
        Delay between the air and the thaw front.

    Returns
    -------
    (year, date, ...) DataArray
        (degC day)^power.
    """
    years = np.atleast_1d(years)
    index = Heat.of(temperature).index(years, dates, power, lag_days)
    return index.assign_coords(year=years, date=list(dates))


def day_of_year(year, month_day) -> float:
    """Days since 1 January of a "mm-dd" date."""
    try:
        return float((pd.Timestamp(f"{year}-{month_day}") - pd.Timestamp(f"{year}-01-01")).days)
    except ValueError as error:
        raise ValueError(f"'{month_day}' is not a 'mm-dd' date of {year}") from error


def share(limits: list[tuple[str, str]], full: int, heat: Heat, years, power, lag) -> xr.DataArray:
    """(year, window, ...) share of the full season's thaw index inside each window, without coords."""
    dates = sorted(set(itertools.chain(*limits)))
    index = heat.index(years, dates, power, lag)
    first, last = (index.isel(date=[dates.index(limit[k]) for limit in limits]) for k in (0, 1))
    inside = (last - first).rename(date="window")
    whole = inside.isel(window=full)
    return (inside / whole.where(whole > 0)).transpose("year", "window", ...)


def season(limit: tuple[str, str], heat: Heat, years, power, lag) -> xr.DataArray:
    """(year, ...) thaw index of the full season."""
    index = heat.index(years, limit, power, lag)
    return index.isel(date=1) - index.isel(date=0)


def choose(part, whole, cv_total, limits, full, heat: Heat, years, powers=POWERS, lags_days=LAGS_DAYS):
    """Power and lag with the least error of a left-out year, relative to the spread of each window.

    part, whole : (year, window) area means of the drop and of the full drop, NaN where unseen.
    """
    weight = np.where(np.isfinite(cv_total) & (cv_total > 0), cv_total, np.inf) ** -2.0
    weight[full] = 0
    dates = sorted(set(itertools.chain(*limits)))
    first, last = (np.array([dates.index(limit[k]) for limit in limits]) for k in (0, 1))
    best = np.inf, 0.5, 0.0
    for lag in lags_days:
        sums = heat.index(years, dates, 1.0, lag).values
        for power in powers:
            rise = np.power(sums, power)
            inside = rise[:, last] - rise[:, first]
            with np.errstate(invalid="ignore", divide="ignore"):
                form = inside / np.where(inside > 0, inside, np.nan)[:, [full]]
            error = left_out_error(part, whole, form)
            used = (weight > 0) & np.isfinite(error)
            value = np.mean((weight * error)[used]) if used.any() else np.inf
            if value < best[0]:
                best = value, float(power), float(lag)
    if not np.isfinite(best[0]):
        raise ValueError("temperature: no degree days of thaw inside the windows; is it in degrees Celsius?")
    return best[1:]


def left_out_error(part, whole, form) -> np.ndarray:
    """(window,) mean squared error of a left-out year, predicted by kappa * form * whole, over the squared mean."""
    part = np.where(np.isfinite(form), part, np.nan)
    whole = np.where(np.isfinite(part), whole, np.nan)
    curve = form * whole
    n = np.count_nonzero(np.isfinite(part), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (np.nansum(part, axis=0) - part) / (np.nansum(curve, axis=0) - curve)
        mean = np.nansum(part, axis=0) / n
        return np.nansum(np.square((part - kappa * curve) / mean), axis=0) / n
