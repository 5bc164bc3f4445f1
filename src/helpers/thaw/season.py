"""Displacement through each thaw season, and the subsidence inside windows of the calendar; part of `thaw`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from helpers import sbas, space
from helpers.timefunc import DAYS_PER_YEAR, annual, mm_per_radian

from .degree_days import day_of_year

FULL_SEASON = ("05-20", "09-30")  # calendar limits of "full" unless `windows` has its own


def season_series(stack: xr.Dataset, like: xr.Dataset) -> xr.Dataset:
    """Displacement through each thaw season from the pairs inside that season alone, without a temporal model.

    Parameters
    ----------
    stack : Dataset
        Corrected pairs with atmosphere_std (time) and los_up (y, x).
    like : Dataset
        The grid to resample to.

    Returns
    -------
    Dataset
        up, std (time, y, x) in mm, positive up.
    """
    first, second = (pd.DatetimeIndex(stack[k].values) for k in ("reference", "secondary"))
    inside = first.year == second.year
    inside &= (first.strftime("%m-%d") >= "04-20") & (second.strftime("%m-%d") <= "10-31")
    pairs = [np.flatnonzero(inside & (first.year == year)) for year in np.unique(first[inside].year)]
    runs = [sbas.invert(stack.isel(pair=p), None)[["displacement", "displacement_std"]] for p in pairs]
    run = xr.concat(runs, "time")
    std = np.hypot(run["displacement_std"], stack["atmosphere_std"].sel(time=run["time"]))
    up = xr.Dataset({"up": run["displacement"], "std": std}) / stack["los_up"]
    return space.resample(up.transpose("time", "y", "x"), like)


def _of_epoch(record, dates):
    """Rate and sd of the epoch that each date lies in, by position; of the last epoch after all ends."""
    ends = [np.datetime64(str(e).split("/")[1]) for e in record["epoch"].values]
    at = [next((i for i, end in enumerate(ends) if t <= end), -1) for t in dates.values]
    at = xr.DataArray(at, dims=dates.dims)
    rates = (record[v].isel(epoch=at) for v in ("rate", "rate_std"))
    return [v.drop_vars(["epoch", "label"], errors="ignore").assign_coords(dates.coords) for v in rates]


def without_rate(
    series: xr.Dataset, record: xr.Dataset, stable: xr.DataArray, ground: xr.DataArray
) -> xr.Dataset:
    """Series less the mean of stable ground on each date and less the rate of the epoch since the season's start.

    Parameters
    ----------
    series : Dataset
        From `season_series`.
    record : Dataset
        rate, rate_std (epoch, y, x) in mm/yr; coordinate epoch is "start/end".
    stable, ground : (y, x) bool DataArrays
        Zero of each date, and the pixels to keep beside it.
    """
    time = series["time"]
    start = time.dt.floor("D").groupby("time.year").first().sel(year=time.dt.year)
    years = (time - start) / np.timedelta64(1, "D") / DAYS_PER_YEAR
    rate, rate_std = _of_epoch(record, time)
    up = series["up"] - series["up"].where(stable).mean(("y", "x")) - rate * years
    out = xr.Dataset({"up": up.where(ground | stable), "std": np.hypot(series["std"], rate_std * years)})
    return out.drop_vars("year", errors="ignore")


def season_in_delay(stack: xr.Dataset, windows: dict, stable: xr.DataArray) -> xr.DataArray:
    """Subsidence (window, y, x) in mm up that the annual part of the delay correction removed.

    The delay is sum_k c_k(t) x_k(y, x) with x = east, north, height. Of each coefficient the annual term of
    c_k(t) = a + b t + s sin(2 pi t) + c cos(2 pi t) is taken; its change over a window is
    s [sin(2 pi t2) - sin(2 pi t1)] + c [cos(2 pi t2) - cos(2 pi t1)].
    """
    coords = {"window": list(windows), "y": stable["y"], "x": stable["x"]}
    removed = xr.DataArray(0.0, coords, tuple(coords))
    if "delay_coefficient" not in stack:
        return removed
    coefficient = stack["delay_coefficient"].transpose(..., "term")
    dates = coefficient[coefficient.dims[0]].values
    t = (dates - dates[0]) / np.timedelta64(1, "D") / DAYS_PER_YEAR
    design = np.column_stack([np.ones_like(t), t, annual(t)])
    fitted = np.linalg.lstsq(design, coefficient.values, rcond=None)[0][2:]
    edges = np.array([[day_of_year(2001, e) / DAYS_PER_YEAR for e in limit] for limit in windows.values()])
    t = edges - (pd.Timestamp(dates[0]).day_of_year - 1) / DAYS_PER_YEAR
    step = (annual(t[:, 1]) - annual(t[:, 0])) @ fitted
    u = (stack["x"] - stack["x"].mean()) * np.cos(np.radians(float(stack["y"].mean())))
    v = stack["y"] - stack["y"].mean()
    half = max(float(u.max() - u.min()), float(v.max() - v.min())) / 2
    columns = {"east": u / half, "north": v / half, "height": stack["height"] / 1000}
    to_mm = mm_per_radian(stack.attrs["wavelength_m"]) / stack["los_up"]
    for k, term in enumerate(stack["term"].values):
        if term in columns:
            removed = removed + xr.DataArray(step[:, k], {"window": list(windows)}) * columns[term] * to_mm
    return (removed - removed.where(stable).mean(("y", "x"))).transpose("window", "y", "x")


def season_rate(
    record: xr.Dataset, years: Sequence[int], season: tuple[str, str], zones: xr.DataArray | None = None
) -> list[xr.DataArray]:
    """Subsidence (mm) that the epoch's rate adds in a season of each year, and its sd; of zones their means.

    The sd of a zone is the mean sd of its pixels, because neighbours share the rate's errors.
    """
    length = (day_of_year(2001, season[1]) - day_of_year(2001, season[0])) / DAYS_PER_YEAR
    middle = xr.DataArray([np.datetime64(f"{y}-08-01") for y in years], {"year": years}, "year")
    out = [sign * length * v for v, sign in zip(_of_epoch(record, middle), (-1, 1), strict=True)]
    if zones is None:
        return out
    return [xr.concat([v.where(z).mean(("y", "x")) for z in zones], zones["zone"]) for v in out]


def drops(
    displacement: xr.DataArray,
    std: xr.DataArray | float,
    windows: dict[str, tuple[str, str]],
    *,
    edge_days: float = 0.0,
    max_gap_days: float = 36.0,
    outside_days: float = 0.0,
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
        0 interpolates between the two dates around a limit of a window. Above 0 a local line through the dates
        within that distance is used: right for daily, noisy series.
    max_gap_days : float
        Two dates farther apart do not say what lies between them: NaN.
    outside_days : float
        A limit up to this long before the first or after the last date takes that date's value.

    Returns
    -------
    Dataset
        drop, drop_std (year, window, ...) in mm, positive = subsidence; noise_correlation (window, window_2), from
        the dates that windows share; coords window_start, window_end.
    """
    limits = _check_windows(windows)
    _check_time(displacement)
    data = displacement.transpose("time", ...)
    std = xr.zeros_like(data, dtype=float) + std
    check_std(data, std)
    std = std.transpose(*data.dims)
    values = data.values.reshape(data.sizes["time"], -1).astype(float)
    sigma2 = np.square(std.values.reshape(values.shape))
    if np.any(np.isnan(sigma2[np.isfinite(values)])):
        raise ValueError("std: NaN where displacement has a value; give every datum its standard deviation")
    times = pd.DatetimeIndex(data["time"].values)
    years = np.unique(times.year)
    drop = np.full((years.size, len(limits), values.shape[1]), np.nan)
    variance, pair_sum = drop.copy(), np.zeros((len(limits),) * 2)
    for i, year in enumerate(years):
        rows = np.flatnonzero(times.year == year)
        days = (times[rows] - pd.Timestamp(f"{year}-01-01")).days.to_numpy(float)
        edges = np.array([[day_of_year(year, e) for e in limit] for limit in limits.values()])
        spacing = edge_days, max_gap_days, outside_days
        weights = _edge_weights(days, edges.ravel(), np.isfinite(values[rows]), *spacing)
        step = weights.reshape(*edges.shape, *weights.shape[1:])
        step = step[:, 1] - step[:, 0]  # (window, date, pixel)
        # drop_w = -sum_t step_wt d_t; var = sum_t step_wt^2 sigma_t^2; cov(w, v) = sum_t step_wt step_vt sigma_t^2
        drop[i] = -np.einsum("wtp,tp->wp", step, np.nan_to_num(values[rows]))
        weighted = step * np.nan_to_num(sigma2[rows])
        variance[i] = np.einsum("wtp,wtp->wp", step, weighted)
        seen = np.isfinite(variance[i]).all(axis=0)
        pair_sum += np.einsum("wtp,vtp->wv", step[..., seen], weighted[..., seen])
    root = np.sqrt(np.clip(np.diag(pair_sum), 1e-300, None))
    coords = {"year": years, "window": list(limits), "window_2": list(limits)}
    for name, ends in zip(("window_start", "window_end"), zip(*limits.values(), strict=True), strict=True):
        coords[name] = "window", list(ends)
    coords |= {k: c for k, c in data.coords.items() if "time" not in c.dims}
    out = xr.Dataset({"noise_correlation": (("window", "window_2"), pair_sum / np.outer(root, root))}, coords)
    named = {"drop": (drop, "thaw-season drop, positive = sinking")}
    named["drop_std"] = np.sqrt(np.clip(variance, 0, None)), "its sd"
    for name, (array, what) in named.items():
        shaped = array.reshape(*array.shape[:2], *data.shape[1:])
        out[name] = ("year", "window", *data.dims[1:]), shaped, {"units": "mm", "long_name": what}
    return out


def _check_windows(windows):
    limits = {k: tuple(v) for k, v in windows.items()}
    limits.setdefault("full", FULL_SEASON)
    for name, limit in limits.items():
        if len(limit) != 2 or not all(re.fullmatch(r"\d\d-\d\d", str(e)) for e in limit):
            raise ValueError(f"window {name!r}: {limit}; give ('mm-dd', 'mm-dd')")
        if day_of_year(2001, limit[0]) >= day_of_year(2001, limit[1]):
            raise ValueError(f"window {name!r}: {limit} does not end after it starts within a year")
    return limits


def check_std(values, std):
    """Refuse standard deviations on another grid than the values, or negative ones."""
    if dict(std.sizes) != dict(values.sizes):
        raise ValueError(f"std: {dict(std.sizes)}; the values have {dict(values.sizes)}")
    if bool((std < 0).any()):
        raise ValueError("std: negative values; give standard deviations in mm, without sign")


def _check_time(displacement):
    if "time" not in displacement.dims:
        raise ValueError(f"displacement: dims {displacement.dims}; it needs 'time'")
    times = displacement["time"].values
    if times.size < 2 or np.any(np.diff(times) <= np.timedelta64(0)):
        raise ValueError("displacement: needs two dates or more, sorted, without doubles; use sortby('time')")


def _edge_weights(days, targets, valid, edge_days, max_gap, outside):
    """(edge, date, pixel) weights that turn dates into the value at each edge; NaN where unknown."""
    first, last = np.minimum(targets + outside, days.min()), np.maximum(targets - outside, days.max())
    targets = np.clip(targets, first, last)
    if edge_days > 0:
        return np.stack([_local_line(days - target, valid, edge_days) for target in targets])
    out, pixel = np.zeros((targets.size, *valid.shape)), np.arange(valid.shape[1])
    for weights, target in zip(out, targets, strict=True):
        before, after = valid & (days <= target)[:, None], valid & (days >= target)[:, None]
        i, j = days.size - 1 - np.argmax(before[::-1], axis=0), np.argmax(after, axis=0)
        gap = days[j] - days[i]
        known = before.any(axis=0) & after.any(axis=0) & (gap <= max_gap)
        # linear between the dates i and j: weight of j is (target - t_i) / (t_j - t_i)
        right = np.where(gap > 0, (target - days[i]) / np.where(gap > 0, gap, 1), 0.0)
        weights[i, pixel] += 1 - right
        weights[j, pixel] += right
        weights[:, ~known] = np.nan
    return out


def _local_line(distance, valid, edge_days):
    """(date, pixel) weights of the value at distance 0 of a line fitted with a triangular kernel.

    With S_k = sum_t w_t h_t^k the weight of a date is w_t (S_2 - S_1 h_t) / (S_0 S_2 - S_1^2).
    """
    kernel = np.clip(1 - abs(distance) / edge_days, 0, None)[:, None] * valid
    step = distance[:, None]
    s0, s1, s2 = (np.sum(kernel * step**k, axis=0) for k in range(3))
    bounded = np.any((step <= 0) & (kernel > 0), axis=0) & np.any((step >= 0) & (kernel > 0), axis=0)
    spread = np.where(bounded, s2 * s0 - s1**2, np.nan)
    line = kernel * (s2 - s1 * step) / np.where(spread > 1e-9, spread, np.nan)
    single = kernel / np.where(bounded & (s0 > 0), s0, np.nan)
    return np.where(spread > 1e-9, line, single)
