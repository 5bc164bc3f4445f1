"""From maps to statements: what the mean of a zone, a contrast of epochs or a date of change may claim.

Everything here is offered by `helpers.merge`. Rates are mm/yr, positive up; distances are metres on any grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from scipy import optimize, signal, stats

from helpers._record import years

METRES_PER_DEGREE = 111_195.0  # of latitude, on a sphere of 6371 km


def step_of(coordinate: xr.DataArray) -> float:
    """Spacing of a regular coordinate; inf for a single value."""
    values = coordinate.values
    return abs(float(values[-1] - values[0])) / (values.size - 1) if values.size > 1 else np.inf


def correlation_length(field: xr.DataArray, *, max_lag_m: float | None = None) -> float:
    """Length l (m) of exp(-h / l) that fits the spatial correlation of a field's deviations from its mean.

    Missing values are left out pair by pair. The mean is that of the field; what it takes from the correlation at all
    lags is part of the fit. A field without correlation gives a length below the pixel.
    """
    values = np.asarray(field.transpose("y", "x").values, float)
    seen = np.isfinite(values)
    if seen.sum() < 30:
        return float("nan")
    centred = np.where(seen, values - values[seen].mean(), 0.0)
    pairs = signal.fftconvolve(seen.astype(float), seen[::-1, ::-1].astype(float))
    product = signal.fftconvolve(centred, centred[::-1, ::-1])
    lag = _lags(field)
    limit = max_lag_m or 0.35 * min(n * step for n, step in zip(values.shape, _cell_m(field), strict=True))
    use = (pairs > 20) & (lag > 0) & (lag <= limit)
    if not use.any():
        return float("nan")
    count = np.round(pairs)
    rho = product[use] / count[use] / centred[seen].var()
    weight = np.sqrt(count[use])
    step = min(_cell_m(field))

    def misfit(parameters):
        share, length = parameters
        model = share * np.exp(-lag / np.exp(length))
        # the field's own mean was taken off, and with it what all pairs share on average
        shared = (count * np.where(lag > 0, model, 1.0)).sum() / seen.sum() ** 2
        return weight * ((model[use] - shared) / (1 - shared) - rho)

    fit = optimize.least_squares(
        misfit, [0.8, np.log(3 * step)], bounds=([0, np.log(step / 10)], [1, np.log(10 * limit)])
    )
    share, length = fit.x[0], float(np.exp(fit.x[1]))
    # a nugget averages out like independent pixels: keep the area under the correlation, share * l^2
    return float(max(np.sqrt(share) * length, step / 10))


def _cell_m(field: xr.DataArray) -> tuple[float, float]:
    """Height and width of a cell in metres, whatever the coordinate system."""
    dy, dx = step_of(field.y), step_of(field.x)
    if field.rio.crs is not None and field.rio.crs.is_geographic:
        return dy * METRES_PER_DEGREE, dx * METRES_PER_DEGREE * float(np.cos(np.deg2rad(field.y.mean())))
    return dy, dx


def _lags(field: xr.DataArray) -> np.ndarray:
    """Distances (m) between all pairs of cells, in the layout of a full autocorrelation."""
    (ny, nx), (dy, dx) = (field.sizes["y"], field.sizes["x"]), _cell_m(field)
    up, across = np.arange(-ny + 1, ny), np.arange(-nx + 1, nx)
    return np.hypot((up * (dy if ny > 1 else 0.0))[:, None], (across * (dx if nx > 1 else 0.0))[None])


def alternative_references(
    unfit: xr.DataArray, *, n: int = 10, size: int = 5, spacing: int | None = None
) -> list[dict]:
    """Places that could have been the reference: the least unfit patches of a scene, apart from one another.

    Every patch's rate less the declared reference's is a draw of the same error, so the sd over the places, of one
    sensor's rates, measures what the choice of the reference is worth (real differences of motion included).

    Parameters
    ----------
    unfit : DataArray (y, x)
        Smaller is better; NaN is out of the question. A patch needs all of its size x size cells.
    n, size, spacing : int
        Number of places, cells along a patch, least distance of centres in cells (an eighth of the scene, at least
        size + 1).

    Returns
    -------
    list of dict: slices for ``isel`` (y, x), best first; fewer than n where the scene has no more.
    """
    values = unfit.transpose("y", "x").rolling(y=size, x=size, center=True, min_periods=size**2).mean().values
    spacing = spacing or max(size + 1, min(values.shape) // 8)
    places = []
    for flat in np.argsort(values, axis=None):
        row, column = (int(v) for v in np.unravel_index(flat, values.shape))
        if len(places) == n or not np.isfinite(values[row, column]):
            break
        if all(max(abs(row - a), abs(column - b)) >= spacing for a, b in places):
            places.append((row, column))
    half = size // 2
    return [{"y": slice(r - half, r - half + size), "x": slice(c - half, c - half + size)} for r, c in places]


def zone_mean(
    field: xr.DataArray, std: xr.DataArray, zones: xr.DataArray, *, length_m: float, common_std: float = 0.0
) -> pd.DataFrame:
    """Mean of each zone with the sd its correlated pixels leave it.

    Var(mean) = common_std^2 + sum_ij s_i s_j exp(-h_ij / l) / M^2, summed exactly over all pairs of pixels.

    Parameters
    ----------
    field, std : DataArray (y, x)
    zones : DataArray (y, x) of labels (strings or numbers; "" and NaN belong to none), or bool (y, x) with dim zone
    length_m : float
        Correlation length l of the errors in metres (on a lon/lat grid too).
    common_std : float
        Sd of what the whole scene shares (the reference), in the units of the field.

    Returns
    -------
    DataFrame indexed by zone: mean, std, std_independent (without the common part), n_pixels, n_effective, spread
    (sd between pixels).
    """
    masks = {name: inside & np.isfinite(field * std).values for name, inside in _masks(zones)}
    own = np.sqrt(np.diag(_covariance(std, list(masks.values()), length_m)))
    rows = {}
    for (name, use), error in zip(masks.items(), own, strict=True):
        n = int(use.sum())
        value, square = field.values[use].astype(float), float((std.values[use].astype(float) ** 2).sum())
        rows[name] = dict(
            mean=value.mean() if n else np.nan, std=float(np.hypot(error, common_std)), std_independent=error,
            n_pixels=n, n_effective=square / n / error**2 if error > 0 else float(n),
            spread=value.std() if n else np.nan,
        )  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("zone")


def _covariance(std: xr.DataArray, masks: list, length_m: float) -> np.ndarray:
    """Covariance (zone, zone) of the mean errors of zones: sum_ij s_i s_j exp(-h_ij / l) / (M N); NaN if empty."""
    correlation = np.exp(-_lags(std) / max(length_m, 1e-9))
    s = np.nan_to_num(std.transpose("y", "x").values.astype(float))
    counts = [m.sum() for m in masks]
    means = [
        np.where(m, s, 0.0) / n if n else np.full(s.shape, np.nan) for m, n in zip(masks, counts, strict=True)
    ]
    ny, nx = s.shape
    middle = (slice(ny - 1, 2 * ny - 1), slice(nx - 1, 2 * nx - 1))
    spread = [signal.fftconvolve(np.nan_to_num(v), correlation)[middle] for v in means]
    out = np.array([[(a * b).sum() for b in spread] for a in means])
    # rounding of the transform must not make a mean better known than independent pixels would
    alone = np.array([(v**2).sum() for v in means])
    out[np.diag_indices(len(means))] = np.maximum(np.diag(out), alone)
    return (out + out.T) / 2


def _masks(zones: xr.DataArray):
    if "zone" in zones.dims:
        return [
            (str(z), zones.sel(zone=z).transpose("y", "x").values.astype(bool)) for z in zones.zone.values
        ]
    values = zones.transpose("y", "x").values
    labels = [v for v in pd.unique(values.ravel()) if not (pd.isna(v) or v == "")]
    return [(str(label), values == label) for label in sorted(labels, key=str)]


def contrast(before: float, after: float, errors: dict, *, level: float = 0.95, power: float = 0.8) -> dict:
    """Difference of two epochs (after - before) with its whole error budget.

    Parameters
    ----------
    before, after : float
        Rates (mm/yr) of the two epochs.
    errors : dict
        name -> (sd before, sd after) or one sd of the difference; independent of each other. Name at least fit,
        reference, geometry and sampling: an error left out is an error taken as 0.

    Returns
    -------
    dict: difference, std, lower, upper, minimal_detectable (found with the stated power), share_<name> of the variance.
    """
    variance = {k: float(np.sum(np.square(v))) for k, v in errors.items()}
    total = sum(variance.values())
    std = np.sqrt(total)
    z = stats.norm.ppf(0.5 + level / 2)
    difference = float(after - before)
    out = dict(difference=difference, std=std, lower=difference - z * std, upper=difference + z * std)
    out["minimal_detectable"] = (z + stats.norm.ppf(power)) * std
    return out | {f"share_{k}": v / total if total > 0 else np.nan for k, v in variance.items()}


def zone_rates(
    epochs: xr.Dataset, zones: xr.DataArray, *, quiet: xr.DataArray, thinning: xr.Dataset | None = None
) -> xr.Dataset:
    """Rates of zones by epoch with the four errors that do not average out alike.

    *fit*: noise, delay and deviation. Their correlation length and their size are those of the field less that of the
    best known epoch on quiet ground, where nothing else should be left: a stated sd is only their pattern. Both are
    found again with one of nine blocks of that ground left out in turn, and the error is widened by how far the
    zone's own error then moves (`zone_contrast`). Of the best known epoch itself the stated size is kept, since its
    field holds real differences between places (its length does so too, and errs on the long side). *reference*: what
    each sensor's scene shares, through the sensor's share in the rate. *geometry*: horizontal motion read as vertical.
    *sampling*: rms over starting years of the thinning experiment's zone differences, by share.

    Parameters
    ----------
    epochs : Dataset (label, y, x)
        rate, rate_std, geometry_std, sensor_share (label, sensor, y, x), sensor_reference_std (sensor): from `join`.
    zones : DataArray of bool (zone, y, x)
    quiet : DataArray of bool (y, x)
        Ground where the rate changed little, for size and correlation of the errors.
    thinning : Dataset, optional
        zone_difference (sensor, start, zone) in mm/yr, see `thin`; sensors that are not in it have no such error.

    Returns
    -------
    Dataset (zone, label)
        rate, rate_std and its parts fit_std, reference_std, geometry_std, sampling_std; n_pixels, n_effective;
        length_m and scale (label), the latter found over stated sd; and what `zone_contrast` needs: fit_covariance
        (label, zone, other), the same without one block of quiet ground as fit_covariance_without (block, ...),
        sensor_share (zone, label, sensor), sampling_error (zone, sensor, start).
    """
    labels, names = [str(v) for v in epochs["label"].values], [str(v) for v in zones["zone"].values]
    best = labels[int(epochs["rate_std"].where(quiet).median(("y", "x")).argmin("label"))]
    masks = [inside for _, inside in _masks(zones)]
    lengths, scales, tables, covariances, without = [], [], [], [], []
    for label in labels:
        field = epochs.sel(label=label)
        known = [m & np.isfinite(field["rate"] * field["rate_std"]).values for m in masks]
        still = (field["rate"] if label == best else field["rate"] - epochs["rate"].sel(label=best)).where(
            quiet
        )

        def errors(still, field=field, known=known, stated=label == best):
            length = correlation_length(still)
            scale = 1.0 if stated else error_scale(still, field["rate_std"], length)
            return length, scale, scale**2 * _covariance(field["rate_std"], known, length)

        length, scale, covariance = errors(still)
        parts = [covariance] * 9 if label == best else [errors(part)[2] for part in _all_but_one(still)]
        fit = zone_mean(field["rate"], scale * field["rate_std"], zones, length_m=length)
        geometry = zone_mean(field["geometry_std"], field["geometry_std"], zones, length_m=length)["std"]
        tables.append(fit.assign(geometry_std=geometry).loc[names])
        for found, value in zip(
            (lengths, scales, covariances, without), (length, scale, covariance, parts), strict=True
        ):
            found.append(value)
    columns = {
        "rate": "mean",
        **{k: k for k in ("geometry_std", "n_pixels", "n_effective")},
    }
    out = xr.Dataset(
        {
            new: (("label", "zone"), np.stack([t[old].to_numpy(float) for t in tables]))
            for new, old in columns.items()
        },
        coords={"label": labels, "zone": names, "length_m": ("label", lengths), "scale": ("label", scales)},
    )
    out["fit_covariance"] = (("label", "zone", "other"), np.stack(covariances))
    out["fit_covariance_without"] = (("block", "label", "zone", "other"), np.stack(without, axis=1))
    out = out.assign_coords(other=names)
    out["sensor_share"] = epochs["sensor_share"].where(zones).mean(("y", "x")).reset_coords(drop=True)
    out["sensor_reference_std"] = epochs["sensor_reference_std"]
    if thinning is not None:
        error = thinning["zone_difference"].sel(zone=names).reset_coords(drop=True)
        out["sampling_error"] = error.reindex(sensor=out["sensor"].values)
    parts = [zone_contrast(out, z, e) for e in labels for z in names]
    for name in ("fit", "reference", "sampling"):
        value = np.array([p[f"{name}_std"] for p in parts]).reshape(len(labels), len(names))
        out[f"{name}_std"] = (("label", "zone"), value)
    out["rate_std"] = np.sqrt(sum(out[f"{k}_std"] ** 2 for k in ("fit", "reference", "geometry", "sampling")))
    return out.transpose("zone", "label", ...)


def _all_but_one(field: xr.DataArray):
    """The field without one of nine blocks in turn, see `_blocks`."""
    block = _blocks(np.isfinite(field).values, 3)
    return [field.where(field.copy(data=block != b)) for b in range(9)]


def _blocks(seen: np.ndarray, side: int) -> np.ndarray:
    """Number of the block of every cell: equal parts (thirds for 3) of the cells seen by row, times those by column."""
    cuts = np.arange(1, side) / side
    parts = [
        np.searchsorted(np.quantile(at, cuts), np.arange(n))
        for at, n in zip(np.nonzero(seen), seen.shape, strict=True)
    ]
    return side * parts[0][:, None] + parts[1]


def block_interval(statistic: Callable[..., float], *fields: xr.DataArray) -> tuple[float, float, float]:
    """Statistic of maps of one scene, with its 95 % interval by the jackknife over ninths of the ground.

    Neighbours share their errors, so pixels are not counted: each block is left out in turn. What is alike across the
    borders of blocks makes their variance too small, and by twice as much for blocks of half the side: twice the one
    less the other is without that bias (Politis and Romano 1995, doi:10.1111/j.1467-9892.1995.tb00223.x). The larger of
    it and the plain one is taken, with Student's t of the blocks less one. Where errors fall to 1/e over a tenth of a
    block, limits hold in 94 % of draws, those of shares, which are skewed, in 90 %; over a third in 91 and 80 %. What
    the whole scene has in common (its weather, its reference) is not in it.

    Parameters
    ----------
    statistic : callable
        Takes the values of each field where all have data, 1-D arrays of equal length; gives a number.
    *fields : DataArray (y, x)
        NaN where there is no data.

    Returns
    -------
    value, lower, upper : float
        Limits are NaN where fewer than three blocks have data.
    """
    seen = np.logical_and.reduce([np.isfinite(f.values) for f in fields])
    if not seen.any():
        return np.nan, np.nan, np.nan
    values = [f.values[seen] for f in fields]

    def variance(side):
        """Variance by the jackknife over blocks, and the number of blocks."""
        block = _blocks(seen, side)[seen]
        filled = np.unique(block)
        without = (
            [statistic(*(v[block != b] for v in values)) for b in filled] if filled.size > 1 else [np.nan]
        )
        return (filled.size - 1) * np.var(without), filled.size

    value, (large, number) = float(statistic(*values)), variance(3)
    if number < 3:
        return value, np.nan, np.nan
    half = stats.t.ppf(0.975, number - 1) * np.sqrt(max(large, 2 * large - variance(6)[0]))
    return value, float(value - half), float(value + half)


def error_scale(field: xr.DataArray, std: xr.DataArray, length_m: float) -> float:
    """Size of errors found in a field that should be flat, over their stated sd.

    The variance about the field's mean misses what all of its pixels share, a known part for errors of one
    correlation length: it is added back. Real differences between places count as errors.
    """
    seen = np.isfinite(field * std)
    stated = float((std.where(seen) ** 2).mean())
    inside, ones = [seen.transpose("y", "x").values], xr.ones_like(std)
    shared = float(_covariance(ones, inside, length_m)[0, 0])
    return float(np.sqrt(field.where(seen).var() / (1 - min(shared, 0.9)) / stated))


def widening(variance: float, without: Sequence[float]) -> float:
    """Factor on an sd for the uncertainty of its own variance, so that 1.96 of it hold 95 %.

    The variance of the logarithm by the jackknife over blocks is that of a chi square of 2 / variance degrees of
    freedom, and the error over its sd is Student's t of as many. Few blocks cannot tell less than 3, which also
    stands where a block less leaves too little ground.

    Parameters
    ----------
    variance : float
        Found from all blocks.
    without : sequence of float
        Found without one of the blocks in turn.
    """
    logs = np.log(np.asarray(without, float) / variance)
    spread = (len(logs) - 1) * float(np.var(logs))
    freedom = np.inf if spread == 0 else np.fmax(2 / spread, 3.0)
    return float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))


def zone_contrast(
    rates: xr.Dataset, zone: str, epoch: str, since: str | None = None, minus: str | None = None
) -> dict:
    """Rate of a zone in an epoch, since another epoch and/or less another zone, with its error budget.

    The fit error is widened by the uncertainty of its variance, see `widening`.

    Parameters
    ----------
    rates : Dataset
        From `zone_rates`.
    zone, epoch : str
    since : str, optional
        Epoch that is subtracted.
    minus : str, optional
        Zone that is subtracted: what all zones of a scene share (the reference) cancels.

    Returns
    -------
    dict: what `contrast` gives, and <name>_std of fit, reference, geometry and sampling.
    """
    signs = {z: 1.0 if z == zone else -1.0 for z in (zone, minus) if z}
    terms = {
        (z, e): sign * (1 if e == epoch else -1) for z, sign in signs.items() for e in (epoch, since) if e
    }
    at = [(sign, rates.sel(zone=z, label=e)) for (z, e), sign in terms.items()]
    value = sum(sign * float(r["rate"]) for sign, r in at)
    v = np.array(list(signs.values()))
    chosen = {"zone": list(signs), "other": list(signs)}

    def fit_variance(name):
        """Variance of the contrast by one covariance, or by each of several."""
        parts = rates[name].sel(label=[e for e in (epoch, since) if e], **chosen)
        return v @ parts.sum("label", skipna=False).transpose(..., "zone", "other").values @ v

    fit = float(fit_variance("fit_covariance"))
    own = {
        "fit": np.sqrt(fit) * widening(fit, fit_variance("fit_covariance_without")),
        "geometry": float(np.sqrt(sum(r["geometry_std"] ** 2 for _, r in at))),
    }
    share = sum(sign * r["sensor_share"] for sign, r in at)
    own["reference"] = float(np.sqrt(((share * rates["sensor_reference_std"]) ** 2).sum()))
    own["sampling"] = 0.0
    if "sampling_error" in rates:
        moved = sum(sign * r["sensor_share"] * r["sampling_error"] for sign, r in at)
        own["sampling"] = float(np.sqrt((moved**2).mean("start").sum()))
    return contrast(0.0, value, own) | {f"{k}_std": v for k, v in own.items()}


def equivalence(value: float, std: float, margin: float, *, level: float = 0.95) -> dict:
    """Two one-sided tests: is |value| below the margin, and what margin could be claimed?

    Returns
    -------
    dict: equivalent (bool), p_value (of |true value| >= margin), claimable: the smallest margin that `level` allows.
    """
    if margin <= 0:
        raise ValueError(f"equivalence: the margin must be positive, got {margin}")
    p = max(stats.norm.sf((margin - value) / std), stats.norm.sf((margin + value) / std))
    claimable = abs(value) + stats.norm.ppf(level) * std
    return dict(equivalent=bool(p < 1 - level), p_value=float(p), claimable=float(claimable))


def pool_seasons(drops: pd.DataFrame, shared: dict) -> pd.DataFrame:
    """Mean seasonal drop of each zone and epoch over its sensors and years.

    Scaling gives one coefficient to all years of an old mission, so that share of its error does not average out.
    Sensors of an epoch are weighted by their variance, which is never smaller than the scatter between years says.

    Parameters
    ----------
    drops : DataFrame
        A row per zone, epoch, sensor and year: drop, std in mm, signed (positive = sinking).
    shared : dict
        sensor -> share of the error's variance that all of its years have in common, 0 to 1.

    Returns
    -------
    DataFrame indexed by zone and epoch: drop, std (mm), years.
    """

    def pooled(part):
        means = part.groupby("sensor").agg(
            drop=("drop", "mean"), std=("std", "mean"), n=("drop", "size"), scatter=("drop", "std")
        )
        common = means.index.map(shared).to_numpy(float)
        variance = means["std"] ** 2 * (common + (1 - common) / means["n"])
        variance = np.maximum(variance, means["scatter"].fillna(0) ** 2 / means["n"])
        mean, std = np.average(means["drop"], weights=1 / variance), np.sqrt(1 / (1 / variance).sum())
        return pd.Series({"drop": mean, "std": std, "years": part["year"].nunique()})

    return drops.groupby(["zone", "epoch"])[["sensor", "year", "drop", "std"]].apply(pooled)


def change_point(
    series: pd.DataFrame,
    candidates: Sequence,
    *,
    rate_error: dict[str, float] | None = None,
    level: float = 0.95,
    harmonics: int = 1,
    change_std_mm_yr: float = 15.0,
) -> pd.DataFrame:
    """When did the rate change? A posterior over dates, and the same test at every date for placebos to answer.

    Generalised least squares of value = offset(sensor) + rate t + change max(t - date, 0) + annual wave. The size of a
    sensor's errors is its scatter about a line and wave of its own where three degrees of freedom are left (else the
    median of the others'); std gives their pattern. All dates are equally likely beforehand, the change is
    N(0, change_std_mm_yr^2), offsets, rate, wave and the scale of all errors are integrated out.

    Parameters
    ----------
    series : DataFrame
        Columns date, value, std, and sensor (one offset each).
    candidates : dates
        Dates tried, evenly spaced; those with fewer than three dates on either side get NaN.
    rate_error : dict, optional
        sensor -> sd of an error of its rate that its scatter does not show (`series_errors`).
    level : float
        Of the interval of the date: equal tails of the posterior. It says where a change was, given that there was one.

    Returns
    -------
    DataFrame
        date, change, change_std (in value's unit per year), gain (fall of chi2 against no change), z, posterior (sum
        1); attrs best (most probable date), median, lower, upper, level.
    """
    series = series[np.isfinite(series["value"])]
    t = years(pd.DatetimeIndex(series["date"]).values.astype("datetime64[D]"))
    names = series["sensor"].to_numpy() if "sensor" in series else np.zeros(t.size)
    order = pd.unique(names)
    sensor = (names[:, None] == order).astype(float)
    waves = [f(2 * np.pi * k * t) for k in range(1, harmonics + 1) for f in (np.sin, np.cos)]
    base = np.column_stack([sensor, t - t.mean(), *waves])
    if t.size < base.shape[1] + 3:
        raise ValueError(f"change_point: {t.size} dates for {base.shape[1]} parameters; needs three more")
    std = series["std"].to_numpy(float)
    own = [s > 0 for s in sensor.T]
    found = np.array(
        [_scatter(base[i][:, sensor.shape[1] :], series["value"].to_numpy()[i], std[i]) for i in own]
    )
    found = np.where(np.isfinite(found), found, np.nanmedian(found) if np.isfinite(found).any() else 1.0)
    weight = 1.0 / (std * (sensor @ found))
    # a rate error is common to a sensor's dates; whitening makes all errors independent of sd 1
    drift = [
        (rate_error or {}).get(n, 0.0) * s * (t - t[s > 0].mean())
        for n, s in zip(order, sensor.T, strict=True)
    ]
    drift = np.column_stack(drift) * weight[:, None]
    whiten = np.linalg.inv(np.linalg.cholesky(np.eye(t.size) + drift @ drift.T)) * weight
    y = whiten @ series["value"].to_numpy(float)

    def fit(*columns):
        scaled = whiten @ np.column_stack([base, *columns])
        solution = np.linalg.lstsq(scaled, y, rcond=None)[0]
        return solution, float(((y - scaled @ solution) ** 2).sum()), scaled

    free = t.size - base.shape[1]
    none = fit()[1]
    scale = max(1.0, none / free)
    dates, rows = pd.DatetimeIndex(candidates), []
    for date, when in zip(dates, years(dates.values.astype("datetime64[D]")), strict=True):
        row = dict(date=date) | dict.fromkeys(("change", "change_std", "gain", "z", "posterior"), np.nan)
        if min((t < when).sum(), (t > when).sum()) >= 3:
            solution, chi2, scaled = fit(np.clip(t - when, 0, None))
            spread = np.sqrt(np.linalg.pinv(scaled.T @ scaled)[-1, -1] * scale)
            row |= dict(
                change=solution[-1], change_std=spread, gain=(none - chi2) / scale, z=solution[-1] / spread
            )
            # the change's prior is one more observation: 0 with sd change_std
            prior = np.eye(scaled.shape[1])[-1:] / change_std_mm_yr
            widened = np.vstack([scaled, prior])
            left = np.append(y, 0.0) - widened @ np.linalg.lstsq(widened, np.append(y, 0.0), rcond=None)[0]
            row["posterior"] = -0.5 * (np.linalg.slogdet(widened.T @ widened)[1] + free * np.log(left @ left))
        rows.append(row)
    out = pd.DataFrame(rows)
    if out["posterior"].notna().any():
        probability = np.exp(out["posterior"] - out["posterior"].max())
        out["posterior"] = probability / probability.sum()
        cumulative = out["posterior"].fillna(0).cumsum()
        tail, half = (
            (1 - level) / 2,
            np.median(np.diff(dates)) / 2,
        )  # a candidate stands for the dates around it
        out.attrs = dict(
            best=out["date"][out["posterior"].idxmax()],
            median=out["date"][(cumulative >= 0.5).idxmax()],
            lower=out["date"][(cumulative >= tail).idxmax()] - half,
            upper=out["date"][(cumulative >= 1 - tail - 1e-9).idxmax()] + half,
            level=level,
        )
    return out


def series_errors(rates: xr.Dataset, zone: str, minus: str) -> dict:
    """Sd of the rate error of each sensor's series of a zone less another, as quiet ground shows it.

    The fit error of the epoch the sensor serves most, over the root of its share: what independent sensors would have.

    Parameters
    ----------
    rates : Dataset
        From `zone_rates`.
    zone, minus : str

    Returns
    -------
    dict: sensor -> mm/yr.
    """
    share = rates["sensor_share"].sel(zone=zone).clip(min=0.01)
    out = {}
    for sensor in rates["sensor"].values:
        own = share.sel(sensor=sensor)
        label = str(own["label"].values[int(own.argmax("label"))])
        fit = zone_contrast(rates, zone, label, minus=minus)["fit_std"]
        out[str(sensor)] = fit / float(np.sqrt(own.sel(label=label).clip(max=1.0)))
    return out


def _scatter(columns, value, std) -> float:
    """Size of a sensor's errors over their stated sd: the scatter about its own line and wave; NaN below 3 dof."""
    scaled = np.column_stack([np.ones(value.size), columns]) / std[:, None]
    free = value.size - scaled.shape[1]
    if free < 3:
        return np.nan
    left = value / std - scaled @ np.linalg.lstsq(scaled, value / std, rcond=None)[0]
    return float(np.sqrt(left @ left / free))
