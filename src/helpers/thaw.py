"""From the part of a thaw season that was seen to the whole: fractions, scaling, validation.

The thaw-season drop is the surface lowering between two dates of one year, in mm and **positive
when the ground sinks**. A sensor that sees only a window of the season sees the fraction F of the
drop; dividing by F scales noise, F's change from year to year and F's spread between pixels alike.
Each of the three is estimated, carried to the result and reported by itself. Windows for which the
division says nothing are refused, with the reason.

Arrays carry the dims named in each docstring plus any trailing dims (y and x, or zone): area means
take the same road as pixels.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import xarray as xr
from scipy import optimize, stats

FULL_SEASON = ("05-20", "09-30")  # calendar limits of "full" unless `windows` has its own
MIN_FRACTION = 0.2  # below it the noise of one date grows more than fivefold
MAX_CV = 0.33  # above it the interval of a ratio is as long as the ratio
MIN_YEARS = 4  # fewer years do not tell a variance between years
POWERS = tuple(np.round(np.arange(0.3, 1.31, 0.1), 1))
LAGS_DAYS = (0, 5, 10, 15, 20, 30, 40)


# ---------------------------------------------------------------------------------------------
# Drops in windows
# ---------------------------------------------------------------------------------------------
def drops(
    displacement: xr.DataArray,
    std: xr.DataArray | float,
    windows: dict[str, tuple[str, str]],
    *,
    edge_days: float = 0.0,
    max_gap_days: float = 36.0,
    date_covariance: xr.DataArray | None = None,
) -> xr.Dataset:
    """Surface lowering inside windows of the calendar, year by year.

    Parameters
    ----------
    displacement : (time, ...) DataArray
        Millimetres, positive up or toward the satellite; remove the multi-annual rate first.
    std : (time, ...) DataArray or float
        Standard deviation in mm, taken as independent between dates.
    windows : dict
        Name to ("mm-dd", "mm-dd"); "full" is the whole season, `FULL_SEASON` if absent.
    edge_days : float
        0 interpolates between the two dates around a limit of a window. Above 0 a local line
        through the dates within that distance is used: right for daily, noisy series.
    max_gap_days : float
        Two dates farther apart do not say what lies between them: NaN.
    date_covariance : (time, time_2) DataArray, optional
        Covariance between dates in mm2, the same for all pixels, instead of `std`.

    Returns
    -------
    Dataset
        drop, drop_std (year, window, ...) in mm, positive = sinking; noise_correlation
        (window, window_2), from the dates that windows share; coords window_start, window_end.

    Raises
    ------
    ValueError
        Without a time dimension, with unsorted or double dates, or with a window that is not
        ("mm-dd", "mm-dd") in calendar order.
    """
    limits = _check_windows(windows)
    _check_time(displacement)
    trailing = [d for d in displacement.dims if d != "time"]
    data = displacement.transpose("time", *trailing)
    std = (xr.zeros_like(data, dtype=float) + std).transpose("time", *trailing)
    values = data.values.reshape(data.sizes["time"], -1).astype(float)
    sigma2 = np.square(std.values.reshape(values.shape).astype(float))
    if np.any(sigma2[np.isfinite(values)] < 0) or np.any(np.isnan(sigma2[np.isfinite(values)])):
        raise ValueError("std: NaN where displacement has a value; give every datum its standard deviation")
    times = pd.DatetimeIndex(data["time"].values)
    years = np.unique(times.year)
    shape = (years.size, len(limits), values.shape[1])
    drop, variance = np.full(shape, np.nan), np.full(shape, np.nan)
    pair_sum = np.zeros((len(limits),) * 2)
    for i, year in enumerate(years):
        rows = np.flatnonzero(times.year == year)
        days = (times[rows] - pd.Timestamp(f"{year}-01-01")).days.to_numpy(float)
        edges = np.array([[_day_of_year(year, e) for e in limit] for limit in limits.values()])
        weights = _edge_weights(days, edges.ravel(), np.isfinite(values[rows]), edge_days, max_gap_days)
        step = weights.reshape(*edges.shape, *weights.shape[1:])
        step = step[:, 1] - step[:, 0]  # (window, date, pixel)
        drop[i] = -np.einsum("wtp,tp->wp", step, np.nan_to_num(values[rows]))
        if date_covariance is None:
            spread = step * np.nan_to_num(sigma2[rows])
        else:
            block = date_covariance.transpose("time", ...).values[np.ix_(rows, rows)]
            spread = np.einsum("tu,wup->wtp", block, step)
        variance[i] = np.einsum("wtp,wtp->wp", step, spread)
        seen = np.isfinite(variance[i]).all(axis=0)
        pair_sum += np.einsum("wtp,vtp->wv", step[..., seen], spread[..., seen])
    scale_ = np.sqrt(np.clip(np.diag(pair_sum), 1e-300, None))
    out = xr.Dataset(
        {
            "drop": (("year", "window", *trailing), drop.reshape(*shape[:2], *data.shape[1:])),
            "drop_std": (
                ("year", "window", *trailing),
                np.sqrt(np.clip(variance, 0, None)).reshape(*shape[:2], *data.shape[1:]),
            ),
            "noise_correlation": (("window", "window_2"), pair_sum / np.outer(scale_, scale_)),
        },
        coords={
            "year": years,
            "window": list(limits),
            "window_2": list(limits),
            "window_start": ("window", [a for a, _ in limits.values()]),
            "window_end": ("window", [b for _, b in limits.values()]),
            **{k: c for k, c in data.coords.items() if "time" not in c.dims},
        },
    )
    for name, long_name in (("drop", "thaw-season drop, positive = sinking"), ("drop_std", "its sd")):
        out[name].attrs = {"units": "mm", "long_name": long_name}
    return out


def fraction(
    displacement: xr.DataArray, std: xr.DataArray | float, windows: dict[str, tuple[str, str]], **options
) -> xr.Dataset:
    """Fraction of the full thaw-season drop that falls into each window, year by year.

    `drops` followed by `fraction_of_drops`; keywords go to the one that knows them. Give it the
    displacement of unconstrained summer interferograms: a fitted sinusoid has the same fractions
    every year by construction.

    Parameters
    ----------
    displacement, std : (time, y, x) DataArrays
        Millimetres; see `drops`.
    windows : dict
        Name to ("mm-dd", "mm-dd"), plus "full".

    Returns
    -------
    Dataset
        drop, drop_std (year, window, y, x) in mm; fraction (window, year); fraction_mean,
        cv_year, cv_noise, cv_pixel (window) and the rest of `fraction_of_drops`.
    """
    own = {k: options.pop(k) for k in ("edge_days", "max_gap_days", "date_covariance") if k in options}
    seen = drops(displacement, std, windows, **own)
    options.setdefault("noise_correlation", seen["noise_correlation"])
    return seen.merge(fraction_of_drops(seen["drop"], seen["drop_std"], **options))


def fraction_of_drops(
    drop: xr.DataArray,
    std: xr.DataArray,
    *,
    noise_correlation: xr.DataArray | None = None,
    effective_pixels: float | None = None,
    classes: xr.DataArray | None = None,
    draws: int = 500,
    rng: np.random.Generator | None = None,
) -> xr.Dataset:
    """Ratio of means, its change between years with the noise removed, its spread between pixels.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        Drop and its sd in mm; the window "full" is the whole season.
    noise_correlation : (window, window_2) DataArray, optional
        Correlation of the noise of two windows; without it only "full" with itself is correlated.
    effective_pixels : float, optional
        Independent samples in the area mean: its size over 2 pi times the squared correlation
        length of the error. All pixels if None, which is right only for errors white in space.
    classes : (...) DataArray, optional
        Labels such as elevation band or surface class; adds fraction_class (window, year, class).
    draws, rng
        Bootstrap over years (not pixels: they share the weather).

    Returns
    -------
    Dataset
        fraction, fraction_noise (window, year): ratio of area means and its noise sd.
        fraction_mean (window): ratio of the sums over years, so that noise in the denominator
        does not bias it; fraction_mean_std by the delta method, fraction_mean_boot_std by bootstrap.
        cv_year: interannual sd over mean, noise removed; cv_noise: what noise alone gives one year;
        cv_total: both. cv_pixel: spread between pixels of one year, noise removed. n_years (window).
        full_mean, full_mean_std (year): area mean of the full drop and its noise in mm.
    """
    _check_drop(drop, std)
    space = [d for d in drop.dims if d not in ("year", "window")]
    correlation = _correlation_with_full(drop, noise_correlation)
    full, full_std = drop.sel(window="full", drop=True), std.sel(window="full", drop=True)
    both = drop.notnull() & full.notnull()
    part, whole = drop.where(both).mean(space), full.where(both).mean(space)
    count = both.sum(space)
    samples = count if effective_pixels is None else np.minimum(count, effective_pixels)
    samples = samples.where(samples > 0)
    var_part = np.square(std).where(both).mean(space) / samples
    var_whole = np.square(full_std).where(both).mean(space) / samples
    cov = correlation * np.sqrt(var_part * var_whole)
    ratio = part / whole
    noise = var_part + ratio**2 * var_whole - 2 * ratio * cov

    seen = part.notnull()
    n_years = seen.sum("year")
    mean = part.sum("year") / whole.where(seen).sum("year")
    size = whole.where(seen).mean("year")
    total = np.square(part - mean * whole).sum("year") / (n_years - 1).where(n_years > 1) / size**2
    noise_mean = (var_part + mean**2 * var_whole - 2 * mean * cov).mean("year") / size**2
    out = xr.Dataset(
        {
            "fraction": ratio.transpose("window", "year"),
            "fraction_noise": (np.sqrt(noise.clip(0)) / abs(whole)).transpose("window", "year"),
            "fraction_mean": mean,
            "fraction_mean_std": np.sqrt(total / n_years),
            "fraction_mean_boot_std": _bootstrap_years(part, whole, draws, rng),
            "cv_year": np.sqrt((total - noise_mean).clip(0)) / abs(mean),
            "cv_noise": np.sqrt(noise_mean.clip(0)) / abs(mean),
            "cv_total": np.sqrt(total) / abs(mean),
            "cv_pixel": _pixel_cv(drop, std, ratio, correlation),
            "n_years": n_years,
            "full_mean": full.mean(space),
            "full_mean_std": np.sqrt(np.square(full_std).mean(space) / samples.sel(window="full", drop=True)),
        }
    )
    if classes is not None:
        out["fraction_class"] = _by_class(drop.where(both), full.where(both), classes, space)
    return out.drop_vars("window_2", errors="ignore")


def _by_class(drop, full, classes, space):
    labels = [v for v in pd.unique(classes.values.ravel()) if v == v and v != ""]
    parts = [(drop.where(classes == v).mean(space) / full.where(classes == v).mean(space)) for v in labels]
    return xr.concat(parts, pd.Index(labels, name="class")).transpose("window", "year", "class")


def _bootstrap_years(part, whole, draws, rng):
    """Sd of the ratio of sums when years are drawn with replacement, for n - 1 degrees of freedom."""
    rng = np.random.default_rng(0) if rng is None else rng
    n = part.sizes["year"]
    counts = xr.DataArray(rng.multinomial(n, np.full(n, 1 / n), draws), dims=("draw", "year"))
    top = (counts * part.fillna(0)).sum("year")
    bottom = (counts * whole.where(part.notnull()).fillna(0)).sum("year")
    return (top / bottom.where(bottom != 0)).std("draw") * np.sqrt(n / max(n - 1, 1))


def _pixel_cv(drop, std, ratio, correlation):
    """Relative spread of the fraction between the pixels of one year, noise removed."""
    space = [d for d in drop.dims if d not in ("year", "window")]
    full, full_std = drop.sel(window="full", drop=True), std.sel(window="full", drop=True)
    misfit = np.square(drop - ratio * full)
    noise = std**2 + (ratio * full_std) ** 2 - 2 * ratio * correlation * std * full_std
    seen = misfit.notnull()
    signal = ((full**2 - full_std**2) * ratio**2).where(seen).sum([*space, "year"])
    return np.sqrt(((misfit - noise).sum([*space, "year"]) / signal.where(signal > 0)).clip(0))


# ---------------------------------------------------------------------------------------------
# Degree days
# ---------------------------------------------------------------------------------------------
def thaw_index(
    temperature: xr.DataArray, years, dates: list[str], *, power: float = 0.5, lag_days: float = 0
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
    total, start = _cumulative(temperature)
    years = np.atleast_1d(years)
    index, first = _day_index(total, start, years, dates, lag_days)
    coords = {"year": years, "date": list(dates)}
    before = total.isel(time=xr.DataArray(np.maximum(first - 1, 0), dims="year")).drop_vars("time")
    before = before.where(xr.DataArray(first > 0, dims="year"), 0.0)
    sums = total.isel(time=xr.DataArray(index, dims=("year", "date"))).drop_vars("time") - before
    return np.power(sums.clip(0), power).assign_coords(coords).transpose("year", "date", ...)


def _day_index(total, start, years, dates, lag_days):
    """Positions in a daily series: (year, date) less the lag, and 1 January of each year."""
    first = np.array([(pd.Timestamp(f"{y}-01-01") - start).days for y in years])
    days = np.array([[_day_of_year(y, d) for d in dates] for y in years])
    index = np.maximum(first[:, None] + np.round(days - lag_days).astype(int), first[:, None])
    short = (first < 0) | (index.max(axis=1) >= total.sizes["time"])
    if short.any():
        raise ValueError(
            f"temperature: does not cover the years {list(years[short])}; extend it or leave those years out"
        )
    return index, first


def fit_degree_days(
    fractions: xr.Dataset, temperature: xr.DataArray, *, powers=POWERS, lags_days=LAGS_DAYS
) -> xr.Dataset:
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
    air = temperature.mean([d for d in temperature.dims if d != "time"])
    years, windows = fractions["year"].values, fractions[["window_start", "window_end"]]
    part, whole = (v.transpose("year", "window").values for v in _area_means(fractions, 1.0))
    weight = (1 / fractions["cv_total"].where(fractions["cv_total"] > 0) ** 2).values
    weight[(fractions["window"] == "full").values | ~np.isfinite(weight)] = 0
    best = (np.inf,)
    for lag in lags_days:
        sums = _degree_day_fraction(windows, air, years, 1.0, lag, share=False)
        for power in powers:
            rise = [np.power(edge, power) for edge in sums]
            form = (rise[1] - rise[0]) / (rise[3] - rise[2])
            error = _left_out_numpy(part, whole, form)
            value = np.nansum(weight * error) / max(np.count_nonzero(weight * np.isfinite(error)), 1)
            if 0 < value < best[0]:
                best = value, float(power), float(lag)
    if len(best) == 1:
        raise ValueError("temperature: no degree days of thaw inside the windows; is it in degrees Celsius?")
    _, power, lag = best
    form = _degree_day_fraction(windows, air, years, power, lag)
    error = _left_out_error(fractions, form)
    constant = _left_out_error(fractions, xr.ones_like(form))
    n = fractions["n_years"]
    noise = fractions["cv_noise"] ** 2
    total = error * (n - 1) / n  # the left-out error also holds that of a mean of n - 1 years
    return xr.Dataset(
        {
            "power": power,
            "lag_days": lag,
            "kappa": _ratio_of_means(fractions, form),
            "cv_year": np.sqrt((total - noise).clip(0)),
            "cv_total": np.sqrt(total),
            "mean": _mean_form(fractions, form),
            "gain": 1 - error / constant.where(constant > 0),
        }
    )


def _area_means(fractions, form):
    part = fractions["fraction"] * fractions["full_mean"] * (form * 0 + 1)  # NaN where the form is unknown
    return part, fractions["full_mean"].where(part.notnull())


def _ratio_of_means(fractions, form):
    part, whole = _area_means(fractions, form)
    return part.sum("year") / (form * whole).sum("year")


def _mean_form(fractions, form):
    _, whole = _area_means(fractions, form)
    return (form * whole).sum("year") / whole.sum("year")


def _left_out_error(fractions, form):
    """Mean squared error of the fraction of a left-out year over the squared mean fraction."""
    part, whole = (v.transpose("year", "window").values for v in _area_means(fractions, form))
    error = _left_out_numpy(part, whole, form.transpose("year", "window").values)
    return xr.DataArray(error, dims="window", coords={"window": fractions["window"].values})


def _left_out_numpy(part, whole, form):
    part = np.where(np.isfinite(form), part, np.nan)
    whole = np.where(np.isfinite(part), whole, np.nan)
    curve = form * whole
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (np.nansum(part, axis=0) - part) / (np.nansum(curve, axis=0) - curve)
        mean = np.nansum(part, axis=0) / np.count_nonzero(np.isfinite(part), axis=0)
        total = np.nansum(np.square((part - kappa * curve) / mean), axis=0)
        return total / np.count_nonzero(np.isfinite(part), axis=0)


def _degree_day_fraction(windows, temperature, years, power, lag, share=True):
    """(year, window, ...) share of the full season's thaw index inside each window.

    With ``share=False`` the four index arrays (start, end, full start, full end) themselves.
    """
    starts, ends = windows["window_start"].values, windows["window_end"].values
    names = windows["window"].values
    full = int(np.flatnonzero(names == "full")[0])
    dates = sorted({*starts, *ends})
    index = thaw_index(temperature, years, dates, power=power, lag_days=lag)
    at = {d: i for i, d in enumerate(dates)}
    first, last = (index.isel(date=[at[d] for d in edge]) for edge in (starts, ends))
    if not share:
        values = first.values, last.values
        return *values, values[0][:, full : full + 1], values[1][:, full : full + 1]
    inside = (last.drop_vars("date") - first.drop_vars("date")).rename(date="window")
    whole = inside.isel(window=full)
    return (inside / whole.where(whole > 0)).assign_coords(window=names).transpose("year", "window", ...)


def _full_index(windows, temperature, years, power, lag):
    at = windows.sel(window="full")
    dates = [str(at["window_start"].values), str(at["window_end"].values)]
    index = thaw_index(temperature, years, dates, power=power, lag_days=lag)
    return index.isel(date=1, drop=True) - index.isel(date=0, drop=True)


# ---------------------------------------------------------------------------------------------
# Scaling
# ---------------------------------------------------------------------------------------------
def scale(
    drop: xr.DataArray,
    std: xr.DataArray,
    fraction: xr.Dataset,
    *,
    method: str = "constant",
    temperature: xr.DataArray | None = None,
    area_mean: bool = False,
    level: float = 0.95,
    min_fraction: float = MIN_FRACTION,
    max_cv: float = MAX_CV,
) -> xr.Dataset:
    """Full-season drop from the drops in windows, with what each source adds to the interval.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        Drop in windows of any years and its sd, mm, positive = sinking; windows of `fraction`.
    fraction : Dataset
        From `fraction`, `fraction_of_drops` or `hierarchical`; needs window_start and window_end
        for the methods with temperature.
    method : {"constant", "degree_day", "joint"}
        "constant" divides by the mean fraction; with `temperature` its interval also holds the
        drift of the fraction which the degree days of each year imply. "degree_day" divides by the
        degree-day fraction of the year. "joint" fits one thaw coefficient per pixel to all windows
        of all years given, without a division by a small number, and lets each year depart from
        it as far as the calibration years do.
    temperature : (time, ...) DataArray, optional
        Daily, degrees Celsius, complete in the years of `drop` and of `fraction`.
    area_mean : bool
        The trailing dims are areas, not pixels: the spread between pixels is left out.
    level : float
        Of the interval.
    min_fraction, max_cv : float
        A window is refused below or above.

    Returns
    -------
    Dataset
        full_season, full_season_std, full_season_lower, full_season_upper in mm, with dims
        (year, window, ...), for "joint" (year, ...). The interval solves the quadratic of a ratio
        (Fieller), hence is not symmetric. std_noise, std_year, std_pixel: the three sources in mm.
        refused (bool) and reason (str) by window. degrees_of_freedom. For "degree_day" and
        "joint" power and lag_days.

    Raises
    ------
    ValueError
        Unknown method or window, or a method that needs temperature without it.
    """
    estimate, refused, reason = _estimate(
        drop, std, fraction, method, temperature, area_mean, level, min_fraction, max_cv
    )
    out = _with_interval(estimate, level)
    names = {"value": "full_season", "std": "full_season_std"}
    names |= {"lower": "full_season_lower", "upper": "full_season_upper"}
    out = out.rename(names)
    for name in ("full_season", "full_season_std", "full_season_lower", "full_season_upper"):
        out[name].attrs = {"units": "mm", "long_name": "full thaw-season drop, positive = sinking"}
    out["refused"], out["reason"] = refused, reason
    out.attrs = {"method": method, **{k: float(v) for k, v in estimate.attrs.items()}}
    return out.drop_vars(("weight_own",), errors="ignore")


def _estimate(
    drop,
    std,
    fractions,
    method,
    temperature,
    area_mean,
    level,
    min_fraction=MIN_FRACTION,
    max_cv=MAX_CV,
    fit=None,
):
    """Value, noise variance and relative variances of the full-season drop."""
    if method not in ("constant", "degree_day", "joint"):
        raise ValueError(f"method: {method!r}; use 'constant', 'degree_day' or 'joint'")
    if method != "constant" and temperature is None:
        raise ValueError(f"method {method!r} needs `temperature`: daily degrees Celsius")
    unknown = set(drop["window"].values) - set(fractions["window"].values)
    if unknown:
        raise ValueError(
            f"windows {sorted(unknown)} of drop are not in fraction: {list(fractions['window'].values)}"
        )
    f = fractions.sel(window=drop["window"].values)
    if fit is None and temperature is not None:
        fit = fit_degree_days(fractions, temperature)
    divisor, cv_year, cv_total, curve = _divisor(f, fractions, drop, method, temperature, fit)
    known = f["window"] == "full"
    terms = xr.Dataset(
        {
            "year": (cv_year**2).where(~known, 0.0),
            "estimation": ((f["fraction_mean_std"] / f["fraction_mean"]) ** 2).where(~known, 0.0),
            "pixel": xr.zeros_like(f["cv_pixel"]) if area_mean else f["cv_pixel"].fillna(0) ** 2,
            "total": (cv_total**2).where(~known, 0.0),
            "freedom": (f["n_years"] - (1 if method == "constant" else 2)).clip(1),
        }
    )
    if method != "constant":
        terms["estimation"] = (cv_total**2 / f["n_years"]).where(~known, 0.0)
    if method == "constant" and temperature is not None:
        terms["drift"] = _drift(f, fractions, temperature, drop["year"].values, fit)
    refused, reason = _refuse(f, terms, cv_year, level, min_fraction, max_cv)
    if method == "joint":
        index = _full_index(fractions, temperature, drop["year"].values, *curve)
        spread = _coefficient_cv(
            fractions, _full_index(fractions, temperature, fractions["year"].values, *curve)
        )
        estimate = _joint(drop.where(~refused), std, divisor, index, terms, spread, fractions)
    else:
        relative = terms["year"] + terms["estimation"] + terms.get("drift", 0.0)
        estimate = xr.Dataset(
            {
                "value": drop / divisor,
                "noise": np.square(std / divisor),
                "relative_year": relative,
                "relative_pixel": terms["pixel"],
                "relative_total": terms["total"],
                "freedom": terms["freedom"],
                "weight_own": 1 / divisor,
            }
        ).where(~refused)
    estimate.attrs = {} if curve is None else {"power": curve[0], "lag_days": curve[1]}
    return estimate, refused, reason


def _divisor(f, fractions, drop, method, temperature, fit):
    if method == "constant":
        return f["fraction_mean"], f["cv_year"], f["cv_total"], None
    power, lag = float(fit["power"]), float(fit["lag_days"])
    form = _degree_day_fraction(fractions, temperature, drop["year"].values, power, lag)
    fit_, form = fit.sel(window=f["window"]), form.sel(window=f["window"])
    return fit_["kappa"] * form, fit_["cv_year"], fit_["cv_total"], (power, lag)


def _drift(f, fractions, temperature, years, fit):
    """Squared relative change of the fraction which the degree days of each year imply."""
    air = temperature.mean([d for d in temperature.dims if d != "time"])
    form = _degree_day_fraction(fractions, air, years, float(fit["power"]), float(fit["lag_days"]))
    lasting = form.mean("year") / fit["mean"] - 1  # that of single years is in cv_year already
    return np.square(lasting).sel(window=f["window"])


def _refuse(f, terms, cv_year, level, min_fraction, max_cv):
    t = stats.t.ppf(0.5 + level / 2, np.maximum(terms["freedom"].values, 1))
    spread, mean = (
        v.mean([d for d in v.dims if d != "window"])
        for v in (terms["year"] + terms["estimation"], f["fraction_mean"])
    )
    reasons = []
    for i, name in enumerate(f["window"].values):
        value, cv, years = float(mean[i]), float(cv_year[i]), int(f["n_years"][i])
        if name == "full":
            text = ""
        elif years < MIN_YEARS:
            text = f"{years} calibration years, {MIN_YEARS} needed"
        elif not value >= min_fraction:
            text = f"fraction {value:.2f} below {min_fraction:.2f}"
        elif not cv <= max_cv:
            text = f"fraction changes by {100 * cv:.0f} % from year to year, above {100 * max_cv:.0f} %"
        elif float(spread[i]) * t[i] ** 2 >= 1:
            text = "interval of the ratio is unbounded"
        else:
            text = ""
        reasons.append(text)
    reason = xr.DataArray(reasons, dims="window", coords={"window": f["window"].values})
    return reason != "", reason


def _coefficient_cv(fractions, index):
    """Interannual spread of the full drop per unit of thaw index, noise removed, relative."""
    index = index.mean([d for d in index.dims if d != "year"])
    value, noise = fractions["full_mean"], fractions["full_mean_std"] ** 2
    seen = value.notnull() & index.notnull()
    mean = value.where(seen).sum() / index.where(seen).sum()
    n = int(seen.sum())
    variance = np.square(value - mean * index).where(seen).sum() / max(n - 1, 1) - noise.where(seen).mean()
    return float(variance.clip(0) / np.square(value.where(seen).mean()))


def _joint(drop, std, divisor, index, terms, spread, fractions):
    """One coefficient per pixel, years departing from it: a two-level normal model in closed form."""
    form = divisor * index  # mm of drop per unit coefficient
    seen = drop.notnull() & form.notnull() & (form > 0)
    prior = (drop * form).where(seen).sum() / np.square(form).where(seen).sum()  # one number for the weights
    weight = (1 / (std**2 + np.square(prior * form) * (terms["year"] + 1e-6))).where(seen, 0.0)
    gain = weight * form / (weight * form**2).sum("window").where(seen.any("window"))
    own = (gain * drop.fillna(0)).sum("window", min_count=1).where(seen.any("window"))
    noise = _quadratic(gain * std.where(seen, 0.0), fractions)
    share = gain * form
    misfit = np.square((share * np.sqrt(terms["year"])).sum("window"))  # windows of a year err together
    spread_abs = spread * prior**2
    inner = noise + misfit * prior**2
    level_weight = (1 / (inner + spread_abs)).where(own.notnull(), 0.0)
    level_sum = level_weight.sum("year")
    mean = (level_weight * own.fillna(0)).sum("year") / level_sum.where(level_sum > 0)
    keep = (spread_abs / (inner + spread_abs)).where(own.notnull(), 0.0)
    value = mean + keep * (own.fillna(mean) - mean)
    posterior = keep * inner.fillna(0) + (1 - keep) ** 2 / level_sum.where(level_sum > 0)
    posterior = posterior.where(own.notnull(), spread_abs + 1 / level_sum.where(level_sum > 0))
    # Calibration error and a pixel's own fraction are the same in all years: they do not average out.
    steady = share.where(seen).mean("year")
    common = np.square((steady * np.sqrt(terms["estimation"])).sum("window"))
    pixel = np.square((steady * np.sqrt(terms["pixel"])).sum("window"))
    own_weight = keep + (1 - keep) * level_weight / level_sum.where(level_sum > 0)
    return xr.Dataset(
        {
            "value": value * index,
            "noise": posterior * index**2,
            "relative_year": common + 0 * value,
            "relative_pixel": pixel + 0 * value,
            "relative_total": (steady * terms["total"]).sum("window") + 0 * value,
            "freedom": terms["freedom"].min(),
            "weight_own": own_weight * index * gain.sum("window"),
        }
    )


def _quadratic(parts, fractions):
    """Variance of a sum over windows whose noises are correlated as `noise_correlation` says."""
    if "noise_correlation" not in fractions:
        return np.square(parts).sum("window")
    names = parts["window"].values
    matrix = fractions["noise_correlation"].sel(window=names, window_2=names)
    return (xr.dot(parts, matrix, dim="window") * parts.rename(window="window_2")).sum("window_2").clip(0)


def _with_interval(estimate, level, extra_noise=0.0):
    """Standard deviation and interval from noise and relative errors (quadratic of a ratio)."""
    value = estimate["value"]
    noise = (estimate["noise"] + extra_noise).clip(0)
    relative = estimate["relative_year"] + estimate["relative_pixel"]
    square = value**2
    variance = noise + square * relative
    # Satterthwaite: only the variance between years was estimated from few years.
    uncertain = (square * estimate["relative_total"]) ** 2
    freedom = estimate["freedom"] * variance**2 / uncertain.where(uncertain > 0)
    freedom = freedom.fillna(1e6).clip(1, 1e6)
    t = xr.apply_ufunc(lambda v: _student(v, level), freedom)
    bounded = (1 - relative * t**2).where(relative * t**2 < 1)
    root = np.sqrt((relative * square + noise * bounded).clip(0)) * t
    return xr.Dataset(
        {
            "value": value,
            "std": np.sqrt(variance),
            "lower": (value - root) / bounded,
            "upper": (value + root) / bounded,
            "std_noise": np.sqrt(noise) + 0 * value,
            "std_year": abs(value) * np.sqrt(estimate["relative_year"]),
            "std_pixel": abs(value) * np.sqrt(estimate["relative_pixel"]),
            "degrees_of_freedom": freedom.where(value.notnull()),
        }
    )


def _student(freedom, level):
    grid = np.geomspace(1, 1e6, 400)
    return np.interp(np.log(freedom), np.log(grid), stats.t.ppf(0.5 + level / 2, grid))


def shrink(scaled: xr.Dataset, *, classes: xr.DataArray | None = None) -> xr.Dataset:
    """Draw noisy pixels toward the mean of their class in the same year.

    A prior from other years would assume that nothing changed; the neighbours of the same year do
    not. Only what is independent between pixels (noise, own fraction) is shrunk: the error that a
    whole year shares stays as large as it was.

    Parameters
    ----------
    scaled : Dataset
        From `scale`.
    classes : (...) DataArray, optional
        Labels of the areas whose pixels resemble each other; the whole area if None.

    Returns
    -------
    Dataset
        shrunk, shrunk_std in mm and weight (share of the pixel's own value), dims as full_season.
        The unshrunk values stay the reference.
    """
    value, common = scaled["full_season"], scaled["std_year"]
    noise = scaled["std_noise"] ** 2 + scaled["std_pixel"] ** 2
    space = [d for d in value.dims if d not in ("year", "window")]
    groups = [xr.ones_like(value.isel({d: 0 for d in value.dims if d not in space}), dtype=bool)]
    if classes is not None:
        groups = [classes == v for v in pd.unique(classes.values.ravel()) if v == v and v != ""]
    shrunk, std, weight = (xr.full_like(value, np.nan) for _ in range(3))
    for inside in groups:
        v, e = value.where(inside), noise.where(inside)
        n = v.notnull().sum(space)
        # Weights from the class-wide noise: a pixel's std_pixel grows with its own value.
        level = e.mean(space)
        mean = v.mean(space)
        between = (np.square(v - mean).sum(space) / (n - 1).where(n > 1) - level).clip(0)
        w = (between / (between + e)).where(inside)
        shrunk = (mean + w * (v - mean)).where(inside, shrunk)
        std = np.sqrt(w * e + (1 - w) ** 2 * (between + level) / n.where(n > 0) + common**2).where(
            inside, std
        )
        weight = w.where(inside, weight)
    return xr.Dataset({"shrunk": shrunk, "shrunk_std": std, "weight": weight}).where(value.notnull())


# ---------------------------------------------------------------------------------------------
# Hierarchical model
# ---------------------------------------------------------------------------------------------
def hierarchical(
    fractions: xr.Dataset, height: xr.DataArray, *, bands: int = 4, effective_pixels: float | None = None
) -> xr.Dataset:
    """Fractions as a field: a mean, a slope with height, years and cells that depart from it.

    ln F of a height band and year = mu + beta (height - mean) + alpha_year + u + noise, with normal
    alpha and u and known noise, by restricted maximum likelihood for each window. The prediction
    for an unseen year carries the variance of alpha.

    Parameters
    ----------
    fractions : Dataset
        From `fraction`: drop, drop_std (year, window, ...), noise_correlation.
    height : (...) DataArray
        Metres.
    bands : int
        Height bands of equal pixel number.
    effective_pixels : float, optional
        Independent samples in the whole area, shared out over the bands.

    Returns
    -------
    Dataset
        `fractions` with fraction_mean and fraction_mean_std (window, ...) as fields, cv_year and
        cv_pixel replaced, and slope_per_km, slope_per_km_std (window). Can be given to `scale`.
    """
    edges = np.nanquantile(height.values, np.linspace(0, 1, bands + 1))
    band = xr.DataArray(np.digitize(height, edges[1:-1]), height.coords, height.dims).where(height.notnull())
    kilometres = (height - height.mean()) / 1000
    share = None if effective_pixels is None else max(effective_pixels / bands, 1.0)
    drop, std = fractions["drop"], fractions["drop_std"]
    cells = [
        fraction_of_drops(
            drop.where(band == b), std.where(band == b), draws=2, effective_pixels=share,
            noise_correlation=fractions.get("noise_correlation"),
        ).assign(z=kilometres.where(band == b).mean())
        for b in range(bands)
    ]  # fmt: skip
    cells = xr.concat(cells, "band")
    out = fractions.copy()
    mean, error, slope, slope_std, cv = [], [], [], [], []
    for name in fractions["window"].values:
        cell = cells.sel(window=name)
        beta, covariance, year_var = _fit_mixed(cell, known=name == "full")
        mean.append(np.exp(beta[0] + beta[1] * kilometres))
        variance = covariance[0, 0] + 2 * covariance[0, 1] * kilometres + covariance[1, 1] * kilometres**2
        error.append(mean[-1] * np.sqrt(variance.clip(0)))
        slope.append(beta[1])
        slope_std.append(np.sqrt(covariance[1, 1]))
        cv.append(np.sqrt(year_var))
    windows = pd.Index(fractions["window"].values, name="window")
    out["fraction_mean"] = xr.concat(mean, windows)
    out["fraction_mean_std"] = xr.concat(error, windows)
    out["cv_year"] = ("window", cv)
    out["slope_per_km"], out["slope_per_km_std"] = ("window", slope), ("window", slope_std)
    relative = fractions["fraction"] / fractions["fraction_mean"]
    correlation = _correlation_with_full(drop, fractions.get("noise_correlation"))
    out["cv_pixel"] = _pixel_cv(
        drop, std, (out["fraction_mean"] * relative).transpose("window", "year", ...), correlation
    )
    return out


def _fit_mixed(cell, known):
    """Restricted maximum likelihood of ln F with years and cells as random effects."""
    if known:
        return np.zeros(2), np.zeros((2, 2)), 0.0
    table = cell[["fraction", "fraction_noise"]].to_dataframe().reset_index()
    table["z"] = table["band"].map(dict(enumerate(cell["z"].values)))
    table = table[(table["fraction"] > 0) & np.isfinite(table["fraction_noise"])]
    if len(table) < 6:
        return np.full(2, np.nan), np.full((2, 2), np.nan), np.nan
    y = np.log(table["fraction"].to_numpy())
    noise = np.square(table["fraction_noise"] / table["fraction"]).to_numpy()
    design = np.column_stack([np.ones(len(y)), table["z"]])
    same_year = np.equal.outer(table["year"].to_numpy(), table["year"].to_numpy())

    def solve(log_variances):
        year_var, cell_var = np.exp(log_variances)
        inverse = np.linalg.inv(year_var * same_year + np.diag(noise + cell_var))
        normal = design.T @ inverse @ design
        beta = np.linalg.solve(normal, design.T @ inverse @ y)
        residual = y - design @ beta
        likelihood = (
            residual @ inverse @ residual - np.linalg.slogdet(inverse)[1] + np.linalg.slogdet(normal)[1]
        )
        return likelihood, beta, np.linalg.inv(normal)

    start = np.log([max(y.var(), 1e-6)] * 2)
    found = optimize.minimize(lambda v: solve(np.clip(v, -18, 4))[0], start, method="Nelder-Mead")
    log_variances = np.clip(found.x, -18, 4)
    _, beta, covariance = solve(log_variances)
    return beta, covariance, float(np.exp(log_variances[0]))


# ---------------------------------------------------------------------------------------------
# Validation
# ---------------------------------------------------------------------------------------------
def leave_one_year_out(
    drop: xr.DataArray,
    std: xr.DataArray,
    *,
    methods=("constant", "degree_day", "joint"),
    temperature: xr.DataArray | None = None,
    noise_correlation: xr.DataArray | None = None,
    effective_pixels: float | None = None,
    area_mean: bool = False,
    level: float = 0.95,
) -> pd.DataFrame:
    """Hide one year's full season, predict it from a window, compare.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        As from `drops`, with "full" and, for temperature, coords window_start and window_end.
    methods : sequence of str
        As in `scale`. Each window is used alone, "joint" with the same window of all years: that
        is what an old mission offers.
    temperature : (time, ...) DataArray, optional
        Daily, degrees Celsius.
    noise_correlation, effective_pixels, area_mean, level
        As in `fraction_of_drops` and `scale`.

    Returns
    -------
    DataFrame
        year, window, method, the trailing dims (y, x), predicted, lower, upper, observed in mm and
        predicted_std. The limits are for the **observed** drop: they hold its noise too, less what
        both share. Refused windows give no rows; attrs["refused"] lists (year, window, method, reason).
    """
    _check_drop(drop, std)
    rho = _correlation_with_full(drop, noise_correlation)
    observed, observed_std = drop.sel(window="full", drop=True), std.sel(window="full", drop=True)
    tables, refusals = [], []
    for year, method in itertools.product(drop["year"].values, methods):
        others = drop["year"] != year
        train = fraction_of_drops(
            drop.sel(year=others), std.sel(year=others), draws=2,
            noise_correlation=noise_correlation, effective_pixels=effective_pixels,
        )  # fmt: skip
        air = None if method == "constant" else temperature
        fit = None if air is None else fit_degree_days(train, air)
        for window in (w for w in drop["window"].values if w != "full"):
            seen = drop.sel(window=[window])
            seen_std = std.sel(window=[window])
            if method != "joint":
                seen, seen_std = seen.sel(year=[year]), seen_std.sel(year=[year])
            estimate, refused, reason = _estimate(
                seen, seen_std, train, method, air, area_mean, level, fit=fit
            )
            if bool(refused[0]):
                refusals.append((year, window, method, str(reason.values[0])))
                continue
            estimate = (
                estimate.sel(year=year).squeeze("window", drop=True)
                if method != "joint"
                else estimate.sel(year=year)
            )
            end, end_std = observed.sel(year=year), observed_std.sel(year=year)
            shared = (
                estimate["weight_own"] * rho.sel(window=window) * std.sel(window=window, year=year) * end_std
            )
            table = _with_interval(estimate, level, end_std**2 - 2 * shared)
            table = table[["value", "std", "lower", "upper"]].assign(observed=end).reset_coords(drop=True)
            table = (
                table.to_dataframe().reset_index()
                if table.dims
                else table.to_array().to_pandas().to_frame().T
            )
            tables.append(table.assign(year=year, window=window, method=method))
    columns = [d for d in drop.dims if d not in ("year", "window")]
    order = ["year", "window", "method", *columns, "predicted", "predicted_std", "lower", "upper", "observed"]
    if tables:
        out = pd.concat(tables, ignore_index=True).rename(
            columns={"value": "predicted", "std": "predicted_std"}
        )
        out = out.dropna(subset=["predicted", "observed"]).reset_index(drop=True)[order]
    else:
        out = pd.DataFrame(columns=order)
    out.attrs["refused"] = refusals
    return out


def score(table: pd.DataFrame, by=("window", "method")) -> pd.DataFrame:
    """Bias, error and coverage of predictions.

    Parameters
    ----------
    table : DataFrame
        From `leave_one_year_out`, of one or many areas.
    by : sequence of str
        Columns to group by.

    Returns
    -------
    DataFrame
        n, bias_mm, rmse_mm, crps_mm (of a normal predictive distribution), cover_68, cover_95.
    """

    def one(group):
        error = group["predicted"] - group["observed"]
        sd = (group["upper"] - group["lower"]) / (2 * stats.norm.ppf(0.975))
        z = -error / sd
        crps = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
        inside = (group["observed"] >= group["lower"]) & (group["observed"] <= group["upper"])
        return pd.Series(
            {
                "n": len(group),
                "bias_mm": error.mean(),
                "rmse_mm": np.sqrt((error**2).mean()),
                "crps_mm": crps.mean(),
                "cover_68": (abs(z) <= stats.norm.ppf(0.84)).mean(),
                "cover_95": inside.mean(),
            }
        )

    return table.groupby(list(by), sort=True).apply(one, include_groups=False).reset_index()


# ---------------------------------------------------------------------------------------------
# Checks and small parts
# ---------------------------------------------------------------------------------------------
def _check_windows(windows):
    limits = {k: tuple(v) for k, v in windows.items()}
    limits.setdefault("full", FULL_SEASON)
    for name, limit in limits.items():
        if len(limit) != 2 or not all(re.fullmatch(r"\d\d-\d\d", str(e)) for e in limit):
            raise ValueError(f"window {name!r}: {limit}; give ('mm-dd', 'mm-dd')")
        if _day_of_year(2001, limit[0]) >= _day_of_year(2001, limit[1]):
            raise ValueError(f"window {name!r}: {limit} does not end after it starts within a year")
    return limits


def _check_time(displacement):
    if "time" not in displacement.dims:
        raise ValueError(f"displacement: dims {displacement.dims}; it needs 'time'")
    times = displacement["time"].values
    if times.size < 2 or np.any(np.diff(times) <= np.timedelta64(0)):
        raise ValueError(
            "displacement: needs at least two dates, sorted and without doubles; use sortby('time')"
        )


def _check_drop(drop, std):
    for name, array in (("drop", drop), ("std", std)):
        if not {"year", "window"} <= set(array.dims):
            raise ValueError(f"{name}: dims {array.dims}; it needs 'year' and 'window'")
    if "full" not in drop["window"].values:
        raise ValueError(f"drop: windows {list(drop['window'].values)} without 'full', the whole season")


def _correlation_with_full(drop, matrix):
    names = drop["window"].values
    if matrix is None:
        return xr.DataArray((names == "full").astype(float), dims="window", coords={"window": names})
    return matrix.sel(window=names, window_2="full", drop=True).drop_vars("window_2", errors="ignore")


def _day_of_year(year, month_day):
    try:
        return float((pd.Timestamp(f"{year}-{month_day}") - pd.Timestamp(f"{year}-01-01")).days)
    except ValueError as error:
        raise ValueError(f"'{month_day}' is not a 'mm-dd' date of {year}") from error


def _edge_weights(days, targets, valid, edge_days, max_gap):
    """(edge, date, pixel) weights that turn dates into the value at each edge; NaN where unknown."""
    n, pixels = valid.shape
    out = np.full((targets.size, n, pixels), np.nan)
    column = np.arange(pixels)
    for e, target in enumerate(targets):
        if edge_days > 0:
            kernel = np.clip(1 - abs(days - target) / edge_days, 0, None)[:, None] * valid
            step = (days - target)[:, None]
            s0, s1, s2 = (np.sum(kernel * step**k, axis=0) for k in range(3))
            bounded = np.any((step <= 0) & (kernel > 0), axis=0) & np.any((step >= 0) & (kernel > 0), axis=0)
            spread = np.where(bounded, s2 * s0 - s1**2, np.nan)
            line = kernel * (s2 - s1 * step) / np.where(spread > 1e-9, spread, np.nan)
            single = kernel / np.where(bounded & (s0 > 0), s0, np.nan)
            out[e] = np.where(spread > 1e-9, line, single)
            continue
        before, after = valid & (days <= target)[:, None], valid & (days >= target)[:, None]
        known = before.any(axis=0) & after.any(axis=0)
        i, j = n - 1 - np.argmax(before[::-1], axis=0), np.argmax(after, axis=0)
        gap = days[j] - days[i]
        known &= gap <= max_gap
        right = np.where(gap > 0, (target - days[i]) / np.where(gap > 0, gap, 1), 0.0)
        out[e] = 0.0
        out[e, i, column] += 1 - right
        out[e, j, column] += right
        out[e][:, ~known] = np.nan
    return out


def _cumulative(temperature):
    """Running sum of positive degrees and the first day; checks units, gaps and calendar."""
    if "time" not in temperature.dims:
        raise ValueError(f"temperature: dims {temperature.dims}; it needs 'time'")
    times = pd.DatetimeIndex(temperature["time"].values)
    if times.size < 2 or np.any(np.diff(times) != pd.Timedelta(days=1)):
        raise ValueError("temperature: needs a complete daily calendar; reindex to daily and fill the gaps")
    if bool(temperature.isnull().any()):
        raise ValueError("temperature: has NaN; fill the gaps before (degree days are sums)")
    if float(temperature.max()) > 100:
        raise ValueError("temperature: values above 100; give degrees Celsius, not kelvin")
    return temperature.clip(0).cumsum("time"), times[0].normalize()
