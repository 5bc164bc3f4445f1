"""Degree days of thaw, and the fraction of a season's thaw they put into a window; part of `thaw`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd
import xarray as xr

POWERS = tuple(np.round(np.arange(0.3, 1.31, 0.1), 1))
LAGS_DAYS = (0, 5, 10, 15, 20, 30, 40)


@dataclass(frozen=True)
class Heat:
    """Sum of positive degrees (time, ...) up to each day from `start` on, that day not in it."""

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
            raise ValueError("temperature: needs a complete daily calendar; reindex to daily and fill gaps")
        if bool(temperature.isnull().any()):
            raise ValueError("temperature: has NaN; fill the gaps before (degree days are sums)")
        if float(temperature.max()) > 100:
            raise ValueError("temperature: values above 100; give degrees Celsius, not kelvin")
        daily = temperature.drop_vars([c for c in temperature.coords if "time" in temperature[c].dims])
        total = daily.astype(float).clip(0).cumsum("time").transpose("time", ...)
        return cls(total.pad(time=(1, 0), constant_values=0.0), times[0].normalize())

    @cached_property
    def area_mean(self) -> Heat:
        """Heat without trailing dims."""
        return Heat(self.total.mean([d for d in self.total.dims if d != "time"]), self.start)

    def index(self, years, limits, power: float, lag_days: float) -> xr.DataArray:
        """(year, window, ...) rise of the thaw index between the limits of each window, ("mm-dd", "mm-dd").

        I(t) = [sum over days from 1 January to t - lag of max(T, 0)]^p; p = 0.5 is the Stefan form.
        """
        first = np.array([(pd.Timestamp(f"{y}-01-01") - self.start).days for y in years])[:, None, None]
        days = np.array([[[day_of_year(y, e) for e in limit] for limit in limits] for y in years])
        last = np.maximum(first + np.round(days - lag_days).astype(int), first) + 1
        short = ((first < 0) | (last >= self.total.sizes["time"])).any(axis=(1, 2))
        if short.any():
            missing = [int(y) for y in np.asarray(years)[short]]
            raise ValueError(f"temperature: does not cover {missing}; extend it or leave those years out")
        sums = np.power(np.clip(self.total.values[last] - self.total.values[first], 0, None), power)
        return xr.DataArray(sums[:, :, 1] - sums[:, :, 0], dims=("year", "window", *self.total.dims[1:]))

    def fraction(self, years, fractions: xr.Dataset, curve: tuple[float, float]) -> xr.DataArray:
        """(year, window, ...) thaw index of each window of `fractions` over that of the full season, no coords."""
        inside = self.index(years, window_limits(fractions), *curve)
        whole = inside.isel(window=list(fractions["window"].values).index("full"))
        return (inside / whole.where(whole > 0)).transpose("year", "window", ...)


@cache
def day_of_year(year, month_day) -> float:
    """Days since 1 January of a "mm-dd" date."""
    try:
        return float((pd.Timestamp(f"{year}-{month_day}") - pd.Timestamp(f"{year}-01-01")).days)
    except ValueError as error:
        raise ValueError(f"'{month_day}' is not a 'mm-dd' date of {year}") from error


def window_limits(fractions: xr.Dataset) -> list[tuple[str, str]]:
    """Calendar limits of the windows."""
    return list(zip(*(fractions[f"window_{k}"].values.tolist() for k in ("start", "end")), strict=True))


def _left_out_error(part, whole, form):
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
    """Choose power and lag of the degree-day curve: least left-out error in units of each window's interannual spread.

    Parameters
    ----------
    fractions : Dataset
        From `fraction` or `fraction_of_drops` with coords window_start, window_end.
    temperature : (time, ...) DataArray
        Daily, degrees Celsius. The choice uses the mean over trailing dims.

    Returns
    -------
    Dataset
        power, lag_days; by window kappa, observed over degree-day fraction, which takes up a constant bias of the
        temperature; cv_year, cv_total, relative error for an unseen year with and without the observation noise
        removed; mean, degree-day fraction over the calibration years; gain, 1 - squared error over that of a constant.
    """
    heat, years = Heat.of(temperature).area_mean, fractions["year"].values
    whole = np.broadcast_to(fractions["full_mean"].values[:, None], fractions["fraction"].T.shape)
    part = fractions["fraction"].transpose("year", "window").values * whole
    whole = np.where(np.isfinite(part), whole, np.nan)
    spread = fractions["cv_total"].values
    weight = np.where(np.isfinite(spread) & (spread > 0), spread, np.inf) ** -2.0
    weight[fractions["window"].values == "full"] = 0

    def misfit(curve):
        error = _left_out_error(part, whole, heat.fraction(years, fractions, curve).values)
        used = (weight > 0) & np.isfinite(error)
        return np.mean((weight * error)[used]) if used.any() else np.inf

    curves = [(float(power), float(lag)) for lag, power in itertools.product(LAGS_DAYS, POWERS)]
    misfits = [misfit(curve) for curve in curves]
    if not np.isfinite(min(misfits)):
        raise ValueError("temperature: no degree days of thaw in the windows; is it in degrees Celsius?")
    power, lag = curves[np.argmin(misfits)]
    form = heat.fraction(years, fractions, (power, lag)).values
    error, constant = (_left_out_error(part, whole, v) for v in (form, np.ones_like(form)))
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
