"""One vertical record of several sensors.

Series are mm along the line of sight, positive toward the satellite; the record is mm positive up. Every sensor has
its own offset, and the ground one rate that may change. A gap without any sensor is bridged by the prior alone, and
the posterior sd grows across it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from helpers.merge import posterior
from helpers.merge.geometry import east_on_grid, require
from helpers.merge.posterior import GroundPrior, SharedErrors, days_to_years
from helpers.space import resample, track_name
from helpers.timefunc import DAYS_PER_YEAR, annual

FLOOR_MM = 0.01  # a series is never taken as better known than this: weights stay finite
PRIOR = GroundPrior()
GAP_DAYS = 92  # spacing of the record's dates in gaps


def _variance(track, t, extra):
    """Per-date variance of the series (LOS, mm2) that is independent from date to date, and the rate error (mm/yr).

    The error common to the dates (the first date's) and the one that grows with time (`rate_std`) are parameters of the
    join. Where the first date's sd is 0 the datum's variance is taken as half the median of the others. What
    independent dates (and `extra`, the ground's deviation, vertical mm2) explain of `rate_std` is taken off it.
    """
    variance = track.displacement_std.astype("f8") ** 2
    drift = track["rate_std"] if "rate_std" in track else xr.zeros_like(variance.isel(time=0, drop=True))
    since = xr.DataArray(t - t[0], dims="time")
    # var(t) = independent + (rate_std (t - t0))^2; at least 5 % of it counts as independent
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
        # var(rate) that independent dates explain: sum_i w_i^2 (v + extra los_up^2), w the weights of the rate
        explained = (_rate_weights(t) ** 2).sum() * (rest.mean("time") + extra * track.los_up**2)
        drift = np.sqrt(np.maximum(drift**2 - explained, 0.0))
    return rest, drift


def _rate_weights(t):
    """Weights (date,) of the least-squares rate at times t (yr), fitted with an offset and an annual wave."""
    return np.linalg.pinv(np.column_stack([np.ones_like(t), t - t.mean(), annual(t)]))[1]


def _covariance(track, number):
    """Covariance (time, time) of the series from that of its steps; row i is the step that ends at date i."""
    steps = np.asarray(track["increment_cov"].values, float)
    n = track.sizes["time"]
    if steps.shape != (n, n) or not np.isfinite(steps[1:, 1:]).all():
        name = f"{track_name(track, number)}: increment_cov"
        raise ValueError(f"{name} must be finite and ({n}, {n}), one row a date; found {steps.shape}")
    # the series is L steps, its covariance L C L'
    summed = np.tril(np.ones((n, n)))[:, 1:]
    return summed @ steps[1:, 1:] @ summed.T + FLOOR_MM**2 * np.eye(n)


def _check_tracks(tracks):
    """Names of the tracks, once they are usable."""
    if not tracks:
        raise ValueError("join: the list of tracks is empty")
    names = []
    for i, track in enumerate(tracks):
        require(track, ["displacement", "los_up"], i)
        name = track_name(track, i)
        if "displacement_std" not in track and "increment_cov" not in track:
            raise ValueError(f"{name}: neither displacement_std nor increment_cov: the join cannot weigh it")
        dates = track.time.values
        if dates.size == 0 or (np.diff(dates) <= np.timedelta64(0)).any():
            raise ValueError(f"{name}: its dates are empty, unsorted or repeated; ds.sortby('time') sorts")
        shared = float(track.attrs.get("reference_rate_std", 0.0))
        if not 0 <= shared < np.inf:
            raise ValueError(
                f"{name}: reference_rate_std is {shared:g}; give a number of mm/yr or leave it out"
            )
        if name in names:
            raise ValueError(f"two tracks are called {name!r}; give each its own attr 'sensor'")
        names.append(name)
    return names


def _knots(knots, first, last):
    """Sorted knots (days); the record's ends are added where the data reach beyond the outer knots."""
    knots = np.asarray(pd.DatetimeIndex(knots).values, "datetime64[D]")
    if (np.diff(knots) <= np.timedelta64(0)).any():
        raise ValueError(f"join: knots must increase strictly, got {', '.join(map(str, knots))}")
    beyond = ((first, not knots.size or first < knots[0]), (last, not knots.size or last > knots[-1]))
    return np.union1d(knots, np.array([day for day, added in beyond if added], "datetime64[D]"))


def join(
    tracks: Sequence[xr.Dataset],
    *,
    knots: Sequence,
    like: xr.Dataset | xr.DataArray | None = None,
    east: xr.Dataset | xr.DataArray | None = None,
    max_slope_deg: float = 10.0,
    deviation_std_mm: float = 5.0,
    deviation_days: float = 0.0,
    prior: GroundPrior = PRIOR,
) -> xr.Dataset:
    """Join the series of several sensors into one vertical record.

    Each sensor sees ground + its own offset + its own rate error + noise, divided by los_up. The ground's rate is
    constant over pieces of at most a year, a random walk from piece to piece, and may jump at the knots; the annual
    term runs linearly between knots; a deviation is independent from date to date. Only this prior links sensors that
    do not overlap: across a gap the posterior sd opens, and ``data_weight`` of an epoch without data is near 0.

    Parameters
    ----------
    tracks : list of Dataset
        displacement and displacement_std (time, y, x) in mm along the line of sight, or displacement with increment_cov
        (time, time2), the covariance of the steps (row i ends at date i, first row unused); los_up (and los_east with
        `east`); optional slope_deg, rate_std (y, x; mm/yr, error of the sensor's rate). attrs sensor and, where known,
        reference_rate_std (mm/yr): a rate error the sensor's whole scene shares.
    knots : dates
        Where the rate may change; epochs are the intervals between them. Data beyond the outer knots add an epoch.
    like : Dataset or DataArray, optional
        Grid of the result; the first track's by default.
    east : Dataset (east, east_std) or DataArray, optional
        East rate (mm/yr) removed before projecting; its sd enters each sensor's rate error.
    max_slope_deg : float
        Pixels steeper than this in any track's slope_deg are masked, unless `east` is known there.
    deviation_std_mm, deviation_days : float
        Sd of the ground about the model and its correlation time, which inflates the deviation's variance until
        independent dates give a sensor's rate the error that correlated ones do.
    prior : GroundPrior

    Returns
    -------
    Dataset
        displacement_up, displacement_up_std (time, y, x) in mm since the first date (the sd with reference errors);
        offset, offset_std (sensor, y, x) in mm; rate, rate_std (epoch, y, x) in mm/yr, the least-squares slope over
        the epoch, and reference_rate_std, the part rate_std leaves out because the scene shares it; sensor_contribution
        (epoch, sensor, y, x): change of the rate per mm/yr added to a sensor; data_weight (epoch, y, x) = 1 - posterior
        variance / variance the prior leaves when the other epochs are known: 0 where the rate is only a prior.
        Coordinates observed (time), epoch = "start/end". Lazy where the tracks are lazy.
    """
    tracks = list(tracks)
    names = _check_tracks(tracks)
    like = tracks[0] if like is None else like
    covariances = [_covariance(t, i) if "increment_cov" in t else None for i, t in enumerate(tracks)]
    keep = ("displacement", "displacement_std", "los_up", "los_east", "slope_deg", "rate_std")
    tracks = [resample(t[[v for v in keep if v in t]], like) for t in tracks]
    dates = [t.time.values.astype("datetime64[D]") for t in tracks]
    observed = np.unique(np.concatenate(dates))
    knots = _knots(knots, observed[0], observed[-1])
    times = _times(observed, knots)
    first = int(np.searchsorted(times, observed[0]))
    model = posterior.piecewise_rate_model(dates, times, knots, first, prior)
    inflation = [_inflation(d, deviation_days) for d in dates]
    noise = [deviation_std_mm**2 * f for f in inflation]
    y, variance, drift, common = _observations(tracks, dates, covariances, noise, like, (east, max_slope_deg))
    inflation = np.repeat(inflation, [len(d) for d in dates])
    errors = SharedErrors(covariances, float(deviation_std_mm), inflation)
    result = _pixelwise(y, variance, np.hypot(drift, common), model, errors)
    out = _described(result, model, common)
    out = out.assign_coords(
        time=times.astype("datetime64[ns]"), sensor=names, observed=("time", np.isin(times, observed)),
        epoch=[f"{a}/{b}" for a, b in itertools.pairwise(knots)],
    )  # fmt: skip
    out = out.assign_coords({k: like[k] for k in ("spatial_ref",) if k in like.coords})
    mask = f"slope_deg <= {max_slope_deg:g}" + ("" if east is None else " or east rate known")
    used = {"deviation_std_mm": errors.deviation, "rate_walk_mm_yr": float(prior.rate_walk_mm_yr)}
    return out.assign_attrs(mask=mask, **used)


def _times(observed, knots):
    """Dates of the record: the observed ones, and one every GAP_DAYS inside longer gaps."""
    steps = np.timedelta64(GAP_DAYS, "D")
    gaps = [np.arange(a + steps, b, steps) for a, b in itertools.pairwise(observed) if b - a > steps]
    times = np.union1d(observed, np.concatenate([observed[:0], *gaps]))
    return times[(times >= knots[0]) & (times <= knots[-1])]


def _pixelwise(y, variance, drift, model, errors):
    """`pixel_posteriors` on labelled, possibly lazy arrays."""
    sizes = {"time": len(model.ground), "sensor": model.n_sensors, "epoch": len(model.rates)}
    return xr.apply_ufunc(
        posterior.pixel_posteriors, y, variance, drift, dask="parallelized",
        input_core_dims=[["obs"], ["obs"], ["sensor"]],
        output_core_dims=[["time"]] * 2 + [["sensor"]] * 2 + [["epoch"]] * 2 + [["epoch", "sensor"]],
        kwargs=dict(model=model, errors=errors),
        output_dtypes=[float] * 7, dask_gufunc_kwargs={"output_sizes": sizes, "allow_rechunk": True},
    )  # fmt: skip


def _described(result, model, common):
    """Posterior as a Dataset, with what data and what the common reference give to the rates of the epochs."""
    k = model.n_ground
    # prior variance of an epoch's rate when the other epochs are known: 1 / diag((R P^-1 R')^-1)
    joint = model.rates[:, :k] @ np.linalg.inv(model.prior[:k, :k]) @ model.rates[:, :k].T
    alone = xr.DataArray(1.0 / np.diag(np.linalg.inv(joint)), dims="epoch")
    keys = "displacement_up displacement_up_std offset offset_std rate rate_std sensor_contribution".split()
    out = xr.Dataset(dict(zip(keys, (r.transpose(*r.dims[2:], "y", "x") for r in result), strict=True)))
    out["data_weight"] = (1.0 - out.rate_std**2 / alone).clip(0.0, 1.0)
    # reference errors of different sensors are independent: var = sum_s (c_s std_s)^2
    out["reference_rate_std"] = np.sqrt(((out.sensor_contribution * common) ** 2).sum("sensor", skipna=False))
    out["rate_std"] = np.sqrt(np.maximum(out.rate_std**2 - out.reference_rate_std**2, 0.0))
    for v in out:
        unit = "1" if v in ("data_weight", "sensor_contribution") else "mm yr-1" if "rate" in v else "mm"
        out[v].attrs = {"units": unit, "long_name": v.replace("_", " ")}
    return out


def _inflation(dates, deviation_days):
    """Variance of a white deviation over that of an AR(1) one for the same error of the sensor's rate.

    With w the weights of the rate and R_ij = exp(-|t_i - t_j| / deviation_days): f = w' R w / w' w.
    """
    if deviation_days <= 0 or len(dates) < 2:
        return 1.0
    t = days_to_years(dates)
    weight = _rate_weights(t)
    correlation = np.exp(-np.abs(t[:, None] - t) * DAYS_PER_YEAR / deviation_days)
    return float(weight @ correlation @ weight / (weight @ weight))


def _observations(tracks, dates, covariances, noise, like, horizontal):
    """Vertical observations, their variance (obs, y, x), each sensor's rate error and its shared one (sensor, y, x)."""
    east, max_slope_deg = horizontal
    east_rate, east_std = east_on_grid(east, like)
    usable = xr.ones_like(tracks[0].los_up, dtype=bool)
    for slope in (t.slope_deg for t in tracks if "slope_deg" in t):
        usable = usable & (slope <= max_slope_deg)
    usable = usable if east is None else usable | np.isfinite(east_rate)
    # up = (los - los_east E (t - t0)) / los_up; var(up) = var(los) / los_up^2
    values, variances, drifts, references = [], [], [], []
    for track, days, cov, extra in zip(tracks, dates, covariances, noise, strict=True):
        t, y, up = days_to_years(days), track.displacement.astype("f8"), track.los_up
        if cov is None:
            variance, drift = _variance(track, t, extra)
        else:
            # the datum is free: marginal variances are those about the mean of the series
            centred = np.eye(t.size) - 1.0 / t.size
            marginal = np.maximum(np.diag(centred @ cov @ centred), FLOOR_MM**2)
            variance = xr.zeros_like(y) + xr.DataArray(marginal, dims="time")
            drift = xr.zeros_like(y.isel(time=0, drop=True))
            # a covariance is common to the scene: it is read as vertical at the mean incidence
            cov /= float(up.mean()) ** 2
        if east is not None:
            require(track, ["los_east"], 0)
            y = y - track.los_east * east_rate * xr.DataArray(t - t[0], dims="time")
            drift = np.hypot(drift, track.los_east * east_std)
        for found, part in ((values, y.where(usable) / up), (variances, variance / up**2)):
            part = part.drop_vars("time", errors="ignore").rename(time="obs")
            found.append(part.transpose("obs", "y", "x"))
        references.append(float(track.attrs.get("reference_rate_std", 0.0)) / up)
        drifts.append((drift / up).transpose("y", "x"))

    def together(arrays, dim):
        arrays = [a.reset_coords(drop=True).assign_coords(y=like.y, x=like.x) for a in arrays]
        joined = xr.concat(arrays, dim, coords="minimal", compat="override", join="override")
        return joined.chunk({dim: -1}) if joined.chunks else joined

    y, variance = together(values, "obs"), together(variances, "obs")
    return y, variance, together(drifts, "sensor").fillna(0.0), together(references, "sensor").fillna(0.0)
