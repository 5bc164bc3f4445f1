"""Degree days of thaw, and the fraction of a season's thaw they put into a window; used by `thaw`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

POWERS = tuple(np.round(np.arange(0.3, 1.31, 0.1), 1))
LAGS_DAYS = (0, 5, 10, 15, 20, 30, 40)


@dataclass(frozen=True)
class Heat:
    """Running sum of positive degrees (time, ...) from its first day, after the checks of `of`."""

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
        daily = temperature.drop_vars([c for c in temperature.coords if "time" in temperature[c].dims])
        return cls(daily.astype(float).clip(0).cumsum("time").transpose("time", ...), times[0].normalize())

    @cached_property
    def area_mean(self) -> Heat:
        """Heat without trailing dims."""
        return Heat(self.total.mean([d for d in self.total.dims if d != "time"]), self.start)

    def index(self, years, dates, power: float = 0.5, lag_days: float = 0) -> xr.DataArray:
        """(year, date, ...) thaw index: degree days from 1 January to each "mm-dd" less the lag, to a power.

        I(t) = [sum over days from 1 January to t - lag of max(T, 0)]^p; p = 0.5 is the Stefan form.
        """
        first = np.array([(pd.Timestamp(f"{y}-01-01") - self.start).days for y in years])
        days = np.array([[day_of_year(y, d) for d in dates] for y in years])
        last = np.maximum(first[:, None] + np.round(days - lag_days).astype(int), first[:, None])
        short = (first < 0) | (last.max(axis=1) >= self.total.sizes["time"])
        if short.any():
            missing = [int(y) for y in np.asarray(years)[short]]
            raise ValueError(f"temperature: does not cover {missing}; extend it or leave those years out")
        values = self.total.values
        later = (first > 0).reshape(-1, *[1] * (values.ndim - 1))
        before = np.where(later, values[np.maximum(first - 1, 0)], 0)
        sums = np.power(np.clip(values[last] - before[:, None], 0, None), power)
        return xr.DataArray(sums, dims=("year", "date", *self.total.dims[1:]))


def day_of_year(year, month_day) -> float:
    """Days since 1 January of a "mm-dd" date."""
    try:
        return float((pd.Timestamp(f"{year}-{month_day}") - pd.Timestamp(f"{year}-01-01")).days)
    except ValueError as error:
        raise ValueError(f"'{month_day}' is not a 'mm-dd' date of {year}") from error


@dataclass(frozen=True)
class Windows:
    """Calendar limits of windows, and the position of the full season among them."""

    limits: tuple[tuple[str, str], ...]
    full: int

    @classmethod
    def of(cls, fractions: xr.Dataset) -> Windows:
        """Limits from the coordinates window_start and window_end."""
        ends = (fractions[k].values.tolist() for k in ("window_start", "window_end"))
        return cls(tuple(zip(*ends, strict=True)), list(fractions["window"].values).index("full"))

    def _ends(self):
        dates = sorted(set(itertools.chain(*self.limits)))
        return dates, *([dates.index(limit[k]) for limit in self.limits] for k in (0, 1))

    def degree_day_fraction(self, heat: Heat, years, power: float, lag: float) -> xr.DataArray:
        """(year, window, ...) thaw index of each window over that of the full season, without coords."""
        dates, start, end = self._ends()
        index = heat.index(years, dates, power, lag)
        inside = (index.isel(date=end) - index.isel(date=start)).rename(date="window")
        whole = inside.isel(window=self.full)
        return (inside / whole.where(whole > 0)).transpose("year", "window", ...)

    def season_index(self, heat: Heat, years, power: float, lag: float) -> xr.DataArray:
        """(year, ...) thaw index of the full season."""
        index = heat.index(years, self.limits[self.full], power, lag)
        return index.isel(date=1) - index.isel(date=0)

    def choose_curve(self, part, whole, cv_total, heat: Heat, years) -> tuple[float, float]:
        """Power and lag with the least left-out error in units of each window's interannual spread.

        part, whole : (year, window) area means of the drop and of the full drop, NaN where unseen.
        """
        weight = np.where(np.isfinite(cv_total) & (cv_total > 0), cv_total, np.inf) ** -2.0
        weight[self.full] = 0
        dates, start, end = self._ends()
        best = np.inf, 0.5, 0.0
        for lag in LAGS_DAYS:
            sums = heat.index(years, dates, 1.0, lag).values
            for power in POWERS:
                rise = np.power(sums, power)
                inside = rise[:, end] - rise[:, start]
                with np.errstate(invalid="ignore", divide="ignore"):
                    form = inside / np.where(inside > 0, inside, np.nan)[:, [self.full]]
                error = left_out_error(part, whole, form)
                used = (weight > 0) & np.isfinite(error)
                value = np.mean((weight * error)[used]) if used.any() else np.inf
                if value < best[0]:
                    best = value, float(power), float(lag)
        if not np.isfinite(best[0]):
            raise ValueError("temperature: no degree days of thaw in the windows; is it in degrees Celsius?")
        return best[1:]


def left_out_error(part, whole, form) -> np.ndarray:
    """(window,) mean squared error of a left-out year over the squared mean drop.

    Year y is predicted by kappa_y form_y whole_y, kappa_y = sum_{k != y} part_k / sum_{k != y} form_k whole_k.
    """
    part = np.where(np.isfinite(form), part, np.nan)
    whole = np.where(np.isfinite(part), whole, np.nan)
    curve = form * whole
    n = np.count_nonzero(np.isfinite(part), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (np.nansum(part, axis=0) - part) / (np.nansum(curve, axis=0) - curve)
        mean = np.nansum(part, axis=0) / n
        return np.nansum(np.square((part - kappa * curve) / mean), axis=0) / n


def fit_degree_days(fractions: xr.Dataset, temperature: xr.DataArray | Heat) -> xr.Dataset:
    """Choose power and lag of the degree-day curve by leaving years out.

    Parameters
    ----------
    fractions : Dataset
        From `fraction` or `fraction_of_drops` with coords window_start, window_end.
    temperature : (time, ...) DataArray
        Daily, degrees Celsius. The choice uses the mean over trailing dims.

    Returns
    -------
    Dataset
        power, lag_days; kappa (window): observed over degree-day fraction, which takes up a
        constant bias of the temperature; cv_year, cv_total (window): relative error for an unseen
        year with and without the observation noise removed; mean (window): degree-day fraction
        over the calibration years; gain (window): 1 - squared error over that of a constant.
    """
    windows = Windows.of(fractions)
    heat, years = Heat.of(temperature).area_mean, fractions["year"].values
    whole = np.broadcast_to(fractions["full_mean"].values[:, None], fractions["fraction"].T.shape)
    part = fractions["fraction"].transpose("year", "window").values * whole
    whole = np.where(np.isfinite(part), whole, np.nan)
    power, lag = windows.choose_curve(part, whole, fractions["cv_total"].values, heat, years)
    form = windows.degree_day_fraction(heat, years, power, lag).values
    error, constant = (left_out_error(part, whole, v) for v in (form, np.ones_like(form)))
    n = fractions["n_years"].values
    # the left-out error also holds that of a mean of n - 1 years: E = s^2 [1 + 1 / (n - 1)] = s^2 n / (n - 1)
    total = error * (n - 1) / np.where(n > 0, n, 1)
    curve = np.where(np.isfinite(part), form * whole, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "kappa": np.nansum(part, axis=0) / np.nansum(curve, axis=0),
            "cv_year": np.sqrt(np.clip(total - fractions["cv_noise"].values ** 2, 0, None)),
            "cv_total": np.sqrt(total),
            "mean": np.nansum(curve, axis=0) / np.nansum(np.where(np.isfinite(curve), whole, np.nan), axis=0),
            "gain": np.where(constant > 0, 1 - error / constant, np.nan),
        }
    out = xr.Dataset({k: ("window", v) for k, v in values.items()}, {"window": fractions["window"].values})
    return out.assign(power=power, lag_days=lag)
