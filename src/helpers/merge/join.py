"""Merge sensors: geometry, one joined record, and what a comparison of epochs may claim.

Line-of-sight values are mm (or mm/yr) positive toward the satellite, vertical ones positive up.
``decompose`` and ``project_up`` treat rates, ``join`` treats series: every sensor has its own offset
and the ground one rate that may change, so a gap without any sensor is bridged by the prior alone and
the posterior sd says so. ``thin`` asks what another sensor's calendar would have seen. The rest
(``zone_mean``, ``zone_contrast``, ``equivalence``, ``change_point``) turns maps into statements with an error budget.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr

from helpers.merge.record import YEAR, build, solve_block, years
from helpers.space import resample, track_name

LOS = ("los_east", "los_north", "los_up")
FLOOR_MM = 0.01  # a series is never taken as better known than this: weights stay finite


# ------------------------------------------------------------------------------------------ grids


def _require(track: xr.Dataset, names, number: int) -> None:
    missing = [n for n in names if n not in track]
    if missing:
        raise ValueError(
            f"{track_name(track, number)}: no variable {', '.join(missing)} "
            f"(found {', '.join(map(str, track.data_vars))}); "
            "a track needs them on (y, x)"
        )


# --------------------------------------------------------------------------------------- geometry
def decompose(tracks: Sequence[xr.Dataset], *, north_std_mm_yr: float | xr.DataArray = 3.0) -> xr.Dataset:
    """East and up rates from line-of-sight rates of two or more directions.

    Weighted least squares per pixel for (east, up), north neglected: r = los_east E + los_up U.

    Parameters
    ----------
    tracks : list of Dataset
        Each with rate, rate_std (mm/yr, toward the satellite), los_east, los_north, los_up on (y, x), any grids.
    north_std_mm_yr : float or DataArray (y, x)
        Assumed sd of the neglected north rate; stored as `north_std`.

    Returns
    -------
    Dataset (y, x) on the first track's grid
        up, up_std, east, east_std, north_std (mm/yr) and north_leak_up, north_leak_east: mm/yr of error per
        mm/yr of neglected north motion. up_std and east_std hold observation noise only; add
        ``north_leak * north_std`` in quadrature for the whole. NaN where fewer than two tracks see the pixel.

    Raises
    ------
    ValueError
        Fewer than two tracks, a missing variable, or grids that do not overlap.
    """
    tracks = list(tracks)
    if len(tracks) < 2:
        raise ValueError(
            f"decompose: {len(tracks)} track(s); two directions are needed (one: use project_up)"
        )
    names = ["rate", "rate_std", *LOS]
    for i, track in enumerate(tracks):
        _require(track, names, i)
    on_grid = [resample(t[names], tracks[0]) for t in tracks]
    ee = eu = uu = er = ur = en = un = n = 0.0
    for t in on_grid:
        seen = np.isfinite(t.rate) & np.isfinite(t.rate_std) & np.isfinite(t.los_up)
        w = xr.where(seen, 1.0 / np.maximum(t.rate_std, 1e-6) ** 2, 0.0)
        e, north, u, rate = (v.where(seen, 0.0) for v in (t.los_east, t.los_north, t.los_up, t.rate))
        ee, eu, uu = ee + w * e * e, eu + w * e * u, uu + w * u * u
        er, ur = er + w * e * rate, ur + w * u * rate
        en, un = en + w * e * north, un + w * u * north
        n = n + seen
    det = ee * uu - eu**2
    # two looks from the same side leave E and U inseparable: no number is better than one of 1e6 mm/yr
    det = det.where((n >= 2) & (det > 1e-8 * ee * uu))
    east_std, up_std = np.sqrt(uu / det), np.sqrt(ee / det)
    north_std = xr.full_like(det, 1.0).where(np.isfinite(det)) * north_std_mm_yr
    out = {
        "up": (ee * ur - eu * er) / det, "up_std": up_std,
        "east": (uu * er - eu * ur) / det, "east_std": east_std,
        "north_std": north_std,
        "north_leak_up": (ee * un - eu * en) / det, "north_leak_east": (uu * en - eu * un) / det,
    }  # fmt: skip
    out = xr.Dataset(out).transpose("y", "x")
    for v in out:
        out[v].attrs = {
            "units": "1" if "leak" in v else "mm yr-1",
            "long_name": v.replace("_", " ") + " rate",
        }
    out.attrs["tracks"] = ", ".join(track_name(t, i) for i, t in enumerate(tracks))
    return out


def project_up(
    track: xr.Dataset,
    *,
    east: xr.Dataset | xr.DataArray | None = None,
    horizontal_std_mm_yr: float | xr.DataArray = 0.0,
) -> xr.Dataset:
    """Vertical rate of one track, taking horizontal motion as known or as an error.

    Parameters
    ----------
    track : Dataset with rate, rate_std, los_* on (y, x)
    east : Dataset (east, east_std) or DataArray, optional
        East rate in mm/yr that is subtracted first (its sd is propagated).
    horizontal_std_mm_yr : float or DataArray
        Sd of the unknown horizontal rate in each of east (unless given) and north.

    Returns
    -------
    Dataset (y, x): up, up_std in mm/yr.
    """
    _require(track, ["rate", "rate_std", *LOS], 0)
    value, std = _east_on(east, track)
    unknown = (track.los_north * horizontal_std_mm_yr) ** 2
    unknown = unknown + (track.los_east * (horizontal_std_mm_yr if east is None else std)) ** 2
    out = xr.Dataset(
        {
            "up": (track.rate - track.los_east * value) / track.los_up,
            "up_std": np.sqrt(track.rate_std**2 + unknown) / np.abs(track.los_up),
        }
    )
    for v in out:
        out[v].attrs = {"units": "mm yr-1", "long_name": v.replace("_", " ") + " rate"}
    return out.assign_attrs(sensor=track_name(track, 0))


def _east_on(east, like):
    """East rate and its sd on the grid of `like`; zeros where none is given."""
    if east is None:
        return 0.0, 0.0
    data = east if isinstance(east, xr.Dataset) else east.to_dataset(name="east")
    data = resample(data[[v for v in ("east", "east_std") if v in data]], like)
    return data["east"], data["east_std"] if "east_std" in data else xr.zeros_like(data["east"])


# ------------------------------------------------------------------------------------ joined record
def _variance(track: xr.Dataset, t: np.ndarray, extra: float):
    """Per-date variance of the series (LOS, mm2) that is independent from date to date, and the rate error (mm/yr).

    A series carries one error common to its dates (the first date's) and, where the track has `rate_std`, one that
    grows with time; both are parameters of the join, so only the rest may count as independent. Where the first
    date's sd is 0 the datum's variance is taken as half the median of the others and given back to the first date.
    `rate_std` is the whole error of the sensor's rate: what independent dates (and `extra`, the ground's deviation,
    vertical mm2) explain of it is taken off, so that nothing counts twice.
    """
    variance = track.displacement_std.astype("f8") ** 2
    drift = track["rate_std"] if "rate_std" in track else xr.zeros_like(variance.isel(time=0, drop=True))
    since = xr.DataArray(t - t[0], dims="time")
    rest = np.maximum(variance - (drift * since) ** 2, 0.05 * variance)
    if t.size > 1:
        later = rest.isel(time=slice(1, None))
        later = later.where(later.notnull().any("time"), 1.0)  # no data: any number, the pixel stays NaN
        datum = 0.5 * (later.chunk({"time": -1}) if later.chunks else later).median("time")
        is_datum = variance.isel(time=0, drop=True) == 0
        first = since == 0
        rest = xr.where(is_datum & ~first, np.maximum(rest - datum, 0.1 * rest), rest)
        rest = xr.where(is_datum & first, datum, rest)
    rest = np.maximum(rest, FLOOR_MM**2)
    if "rate_std" in track:
        explained = (_rate_weights(t) ** 2).sum() * (rest.mean("time") + extra * track.los_up**2)
        drift = np.sqrt(np.maximum(drift**2 - explained, 0.0))
    return rest, drift


def _rate_weights(t: np.ndarray) -> np.ndarray:
    """Weights (date,) of the least-squares rate at times t (yr), fitted with an offset and an annual wave."""
    columns = [np.ones_like(t), t - t.mean(), np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)]
    return np.linalg.pinv(np.column_stack(columns))[1]


def _increment_covariance(track: xr.Dataset, number: int) -> np.ndarray:
    """Covariance (time, time) of the series from that of its steps; row i is the step that ends at date i."""
    steps = np.asarray(track["increment_cov"].values, float)
    n = track.sizes["time"]
    if steps.shape != (n, n) or not np.isfinite(steps[1:, 1:]).all():
        raise ValueError(
            f"{track_name(track, number)}: increment_cov must be finite and ({n}, {n}), one row a date; "
            f"found {steps.shape}"
        )
    steps = steps.copy()
    steps[0], steps[:, 0] = 0.0, 0.0
    summed = np.tril(np.ones((n, n)))
    return summed @ steps @ summed.T + FLOOR_MM**2 * np.eye(n)


def _check_tracks(tracks) -> list[str]:
    if not tracks:
        raise ValueError("join: the list of tracks is empty")
    names = []
    for i, track in enumerate(tracks):
        _require(track, ["displacement", "los_up"], i)
        name = track_name(track, i)
        if "displacement_std" not in track and "increment_cov" not in track:
            raise ValueError(f"{name}: neither displacement_std nor increment_cov: the join cannot weigh it")
        dates = track.time.values
        if dates.size == 0 or (np.diff(dates) <= np.timedelta64(0)).any():
            raise ValueError(
                f"{name}: its dates are empty, unsorted or repeated; sort them (ds.sortby('time')) first"
            )
        if name in names:
            raise ValueError(f"two tracks are called {name!r}; give each its own attr 'sensor'")
        names.append(name)
    return names


def _knots(knots, first, last) -> np.ndarray:
    """Sorted knots (days); the record's ends are added where the data reach beyond the outer knots."""
    knots = np.asarray(pd.DatetimeIndex(knots).values, "datetime64[D]")
    if (np.diff(knots) <= np.timedelta64(0)).any():
        raise ValueError(f"join: knots must increase strictly, got {', '.join(map(str, knots))}")
    ends = [d for d, outside in ((first, knots.size == 0 or first < knots[0]),) if outside]
    tail = [d for d, outside in ((last, knots.size == 0 or last > knots[-1]),) if outside]
    return np.concatenate([np.array(ends, "datetime64[D]"), knots, np.array(tail, "datetime64[D]")])


def join(
    tracks: Sequence[xr.Dataset],
    *,
    knots: Sequence,
    like: xr.Dataset | xr.DataArray | None = None,
    east: xr.Dataset | xr.DataArray | None = None,
    max_slope_deg: float = 10.0,
    deviation_std_mm: float = 5.0,
    deviation_days: float = 0.0,
    rate_walk_mm_yr: float = 3.0,
    rate_change_std_mm_yr: float = 15.0,
    harmonics: int = 1,
    seasonal_std_mm: float = 30.0,
    seasonal_change_std_mm: float = 10.0,
    times: Sequence | None = None,
    gap_days: int = 92,
    segment_yr: float = 1.0,
) -> xr.Dataset:
    """Join the series of several sensors into one vertical record.

    Each sensor sees ground + its own offset + its own rate error + noise, divided by los_up. The ground is
    the integral of a rate that is constant over pieces of at most `segment_yr` years, wanders from piece to piece
    as a random walk, may jump at the knots, plus an annual wave whose size runs linearly between knots, plus a
    deviation that is free from date to date. Nothing links sensors that do not overlap except this prior:
    across a gap the posterior sd opens, and ``data_weight`` of an epoch without data is near 0.

    Parameters
    ----------
    tracks : list of Dataset
        displacement and displacement_std (time, y, x) in mm along the line of sight, or displacement with
        increment_cov (time, time2) (covariance of the steps between successive dates, row i the step ending at
        date i, first row unused); los_up (and los_east with `east`); optional slope_deg (y, x); optional rate_std
        (y, x) mm/yr: error of the sensor's rate; what its dates do not explain is kept as a rate error. attrs sensor
        and, where known, reference_rate_std (mm/yr): a rate error the sensor's whole scene shares.
    knots : dates
        Where the rate may change; epochs are the intervals between them. Data beyond the outer knots add an epoch.
    like : Dataset or DataArray, optional
        Grid of the result; the first track's by default.
    east : Dataset (east, east_std) or DataArray, optional
        East rate (mm/yr) removed before projecting; its sd enters each sensor's rate error.
    max_slope_deg : float
        Pixels steeper than this in any track's slope_deg are masked, unless `east` is known there: downslope
        creep is horizontal and would be read as subsidence.
    deviation_std_mm, deviation_days : float
        Sd of the ground about the model and its correlation time. The latter inflates the deviation's variance
        until independent dates give a sensor's rate the error that correlated ones do.
    rate_walk_mm_yr, rate_change_std_mm_yr : float
        Random walk of the rate: mm/yr per square root of a year, and the sd of a jump at a knot.
    harmonics, seasonal_std_mm, seasonal_change_std_mm : int, float
        Number of seasonal harmonics, prior sd of their coefficients and of the change from knot to knot.
    times : dates, optional
        Where the record is wanted beside the observed dates; by default every `gap_days` inside longer gaps.

    Returns
    -------
    Dataset
        displacement_up, displacement_up_std (time, y, x) in mm since the first date (the sd holds the sensors'
        reference errors too: no joined curve is free of them); offset, offset_std (sensor, y, x) in mm; rate,
        rate_std (epoch, y, x) in mm/yr, the least-squares slope over the epoch, and reference_rate_std (epoch, y, x),
        the part rate_std leaves out because the scene shares it; sensor_share (epoch, sensor, y, x): how far the rate
        moves per mm/yr added to a sensor; data_weight (epoch, y, x) = 1 - posterior variance / variance the prior
        leaves when the other epochs are known: 0 where the rate is only a prior. Coordinates observed (time),
        epoch = "start/end". Lazy where the tracks are lazy.

    Raises
    ------
    ValueError
        Empty list, missing variables, unsorted or repeated dates, unsorted knots, grids without overlap.
    """
    tracks = list(tracks)
    names = _check_tracks(tracks)
    like = tracks[0] if like is None else like
    covariances = [
        _increment_covariance(t, i) if "increment_cov" in t else None for i, t in enumerate(tracks)
    ]
    keep = ("displacement", "displacement_std", "los_up", "los_east", "slope_deg", "rate_std")
    tracks = [resample(t[[v for v in keep if v in t]], like) for t in tracks]
    dates = [t.time.values.astype("datetime64[D]") for t in tracks]
    observed = np.unique(np.concatenate(dates))
    knots = _knots(knots, observed[0], observed[-1])
    if times is None:
        steps = np.timedelta64(int(gap_days), "D")
        gaps = [np.arange(a + steps, b, steps) for a, b in itertools.pairwise(observed) if b - a > steps]
        times = np.concatenate(gaps) if gaps else observed[:0]
    times = np.union1d(observed, np.asarray(times, "datetime64[D]"))
    times = times[(times >= knots[0]) & (times <= knots[-1])]
    options = dict(
        segment_yr=segment_yr, rate_change_std=rate_change_std_mm_yr, rate_walk=rate_walk_mm_yr,
        rate_std_first=5.0 * rate_change_std_mm_yr, harmonics=harmonics, seasonal_std=seasonal_std_mm,
        seasonal_change_std=seasonal_change_std_mm,
    )  # fmt: skip
    model = build(dates, times, knots, int(np.searchsorted(times, observed[0])), options)
    inflation = [_inflation(d, deviation_days) for d in dates]
    noise = [deviation_std_mm**2 * f for f in inflation]
    y, variance, drift, common = _observations(tracks, dates, covariances, noise, like, east, max_slope_deg)
    inflation = np.repeat(inflation, [len(d) for d in dates])
    core = [["obs"], ["obs"], ["sensor"]]
    outputs = [["time"]] * 2 + [["sensor"]] * 2 + [["epoch"]] * 2 + [["epoch", "sensor"]]
    sizes = {"time": times.size, "sensor": len(tracks), "epoch": knots.size - 1}
    result = xr.apply_ufunc(
        solve_block, y, variance, np.hypot(drift, common), dask="parallelized",
        input_core_dims=core, output_core_dims=outputs,
        kwargs=dict(model=model, covariances=covariances, deviation=float(deviation_std_mm), inflation=inflation),
        output_dtypes=[float] * 7, dask_gufunc_kwargs={"output_sizes": sizes, "allow_rechunk": True},
    )  # fmt: skip
    k = model.n_ground
    joint = model.rates[:, :k] @ np.linalg.inv(model.prior[:k, :k]) @ model.rates[:, :k].T
    alone = xr.DataArray(1.0 / np.diag(np.linalg.inv(joint)), dims="epoch")
    keys = [
        "displacement_up",
        "displacement_up_std",
        "offset",
        "offset_std",
        "rate",
        "rate_std",
        "sensor_share",
    ]
    out = xr.Dataset(dict(zip(keys, (r.transpose(*r.dims[2:], "y", "x") for r in result), strict=True)))
    out["data_weight"] = (1.0 - out.rate_std**2 / alone).clip(0.0, 1.0)
    out["reference_rate_std"] = np.sqrt(((out.sensor_share * common) ** 2).sum("sensor", skipna=False))
    out["rate_std"] = np.sqrt(np.maximum(out.rate_std**2 - out.reference_rate_std**2, 0.0))
    out = out.assign_coords(
        time=times.astype("datetime64[ns]"),
        sensor=names,
        epoch=[f"{a}/{b}" for a, b in itertools.pairwise(knots)],
        observed=("time", np.isin(times, observed)),
    )
    if "spatial_ref" in like.coords:
        out = out.assign_coords(spatial_ref=like.spatial_ref)
    for v in out:
        unit = "1" if v in ("data_weight", "sensor_share") else "mm yr-1" if "rate" in v else "mm"
        out[v].attrs = {"units": unit, "long_name": v.replace("_", " ")}
    mask = f"slope_deg <= {max_slope_deg:g}" + ("" if east is None else " or east rate known")
    return out.assign_attrs(
        mask=mask, deviation_std_mm=float(deviation_std_mm), rate_walk_mm_yr=float(rate_walk_mm_yr)
    )


def _inflation(dates, deviation_days: float) -> float:
    """Variance of a white deviation over that of an AR(1) one for the same error of the sensor's rate."""
    if deviation_days <= 0 or len(dates) < 2:
        return 1.0
    t = years(dates)
    weight = _rate_weights(t)
    correlation = np.exp(-np.abs(t[:, None] - t) * YEAR / deviation_days)
    return float(weight @ correlation @ weight / (weight @ weight))


def _observations(tracks, dates, covariances, noise, like, east, max_slope_deg):
    """Vertical observations, their variance (obs, y, x) and each sensor's rate error (sensor, y, x)."""
    east_rate, east_std = _east_on(east, like)
    usable = xr.ones_like(tracks[0].los_up, dtype=bool)
    for slope in (t.slope_deg for t in tracks if "slope_deg" in t):
        usable = usable & (slope <= max_slope_deg)
    usable = usable if east is None else usable | np.isfinite(east_rate)
    values, variances, drifts, references = [], [], [], []
    for track, days, cov, extra in zip(tracks, dates, covariances, noise, strict=True):
        t = years(days)
        y = track.displacement.astype("f8")
        if cov is None:
            variance, drift = _variance(track, t, extra)
        else:
            centred = np.eye(t.size) - 1.0 / t.size
            marginal = np.maximum(np.diag(centred @ cov @ centred), FLOOR_MM**2)
            variance = xr.zeros_like(y) + xr.DataArray(marginal, dims="time")
            drift = xr.zeros_like(y.isel(time=0, drop=True))
            # a covariance is common to the scene: it is read as vertical at the mean incidence
            cov /= float(track.los_up.mean()) ** 2
        if east is not None:
            _require(track, ["los_east"], 0)
            y = y - track.los_east * east_rate * xr.DataArray(t - t[0], dims="time")
            drift = np.hypot(drift, track.los_east * east_std)
        y = y.where(usable)
        up = np.abs(track.los_up)
        values.append((y / track.los_up).drop_vars("time").rename(time="obs").transpose("obs", "y", "x"))
        spread = (variance / up**2).drop_vars("time", errors="ignore").rename(time="obs")
        variances.append(spread.transpose("obs", "y", "x"))
        references.append(float(track.attrs.get("reference_rate_std", 0.0)) / up)
        drifts.append((drift / up).transpose("y", "x"))

    def together(arrays, dim):
        arrays = [a.reset_coords(drop=True).assign_coords(y=like.y, x=like.x) for a in arrays]
        joined = xr.concat(arrays, dim, coords="minimal", compat="override", join="override")
        return joined.chunk({dim: -1}) if joined.chunks else joined

    y, variance = together(values, "obs"), together(variances, "obs")
    return y, variance, together(drifts, "sensor").fillna(0.0), together(references, "sensor").fillna(0.0)


# ------------------------------------------------------------------------------ other calendars
def thin(
    series: xr.DataArray, stack: xr.Dataset, start: int | str | np.datetime64, *, max_days: int = 12
) -> xr.Dataset:
    """Interferograms another sensor would have seen of this series, had it flown on its own calendar.

    The dates of `stack` move by whole years so that the first falls in the year of `start`; each takes the value of
    the nearest date of `series`. Pairs, baselines and coherence are those of `stack`.

    Parameters
    ----------
    series : DataArray (time, y, x), mm toward the satellite
    stack : Dataset (pair, y, x) whose calendar is imposed, on the same grid
    start : year, or a date in it
    max_days : int
        A pair is dropped if either of its dates has no date of the series within this many days.

    Returns
    -------
    Dataset like `stack`: unwrapped_phase from the series (rad, positive away), coherence and geometry kept.

    Raises
    ------
    ValueError
        No pair is left, or the grids differ.
    """
    if any(series.sizes[d] != stack.sizes[d] for d in "yx"):
        raise ValueError("thin: series and stack are on different grids; resample the stack first")
    year = int(start) if isinstance(start, int | np.integer) else pd.Timestamp(start).year
    shift = year - pd.DatetimeIndex(stack.reference.values).min().year
    available = pd.DatetimeIndex(series.time.values)

    def place(dates):
        moved = pd.DatetimeIndex(dates) + pd.DateOffset(years=shift)
        nearest = available.get_indexer(moved, method="nearest")
        return nearest, np.abs((available[nearest] - moved).days) <= max_days

    (first, ok_1), (second, ok_2) = place(stack.reference.values), place(stack.secondary.values)
    keep = np.flatnonzero(ok_1 & ok_2 & (first < second))
    if keep.size == 0:
        raise ValueError(
            f"thin: no pair of {track_name(stack, 0)} moved by {shift} years falls on the series "
            f"({available[0]:%Y-%m-%d}..{available[-1]:%Y-%m-%d})"
        )
    out = stack.isel(pair=keep)
    motion = series.isel(time=xr.DataArray(second[keep], dims="pair")).drop_vars("time") - series.isel(
        time=xr.DataArray(first[keep], dims="pair")
    ).drop_vars("time")
    phase = -4 * np.pi / stack.attrs["wavelength_m"] * motion / 1000
    out["unwrapped_phase"] = phase.where(np.isfinite(out.unwrapped_phase)).astype("f4")
    out = out.assign_coords(
        reference=("pair", available[first[keep]].values), secondary=("pair", available[second[keep]].values)
    )
    return out.assign_attrs(calendar_of=track_name(stack, 0), shift_years=shift)
