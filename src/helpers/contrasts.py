"""From maps to statements: what the mean of a zone, a contrast of epochs or a date of change may claim.

Rates are mm/yr, positive up; distances are metres on any grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from helpers import space
from helpers.timefunc import annual, years

CHANGE_STD_MM_YR = 15.0  # prior sd of a change of rate
LEVEL = 0.95  # of all intervals
Z = stats.norm.ppf(0.5 + LEVEL / 2)
POWER = 0.8  # with which a minimum detectable change is found


def alternative_references(unfit: xr.DataArray, *, n: int = 10, size: int = 5) -> list[dict]:
    """Places that could have been the reference: the least unfit patches of a scene, apart from one another.

    Every patch's rate less the declared reference's is a draw of the same error, so the sd over the places, of one
    sensor's rates, measures what the choice of the reference is worth (real differences of motion included).

    Parameters
    ----------
    unfit : DataArray (y, x)
        Smaller is better; NaN is excluded. A patch needs all of its size x size cells.
    n, size : int
        Number of places, cells along a patch. Centres are an eighth of the scene apart, at least size + 1 cells.

    Returns a list of slices for ``isel`` (y, x), best first; fewer than n where the scene has no more.
    """
    values = unfit.transpose("y", "x").rolling(y=size, x=size, center=True, min_periods=size**2).mean().values
    spacing = max(size + 1, min(values.shape) // 8)
    places = []
    for flat in np.argsort(values, axis=None):
        row, column = (int(v) for v in np.unravel_index(flat, values.shape))
        if len(places) == n or not np.isfinite(values[row, column]):
            break
        if all(max(abs(row - a), abs(column - b)) >= spacing for a, b in places):
            places.append((row, column))
    half = size // 2
    return [{"y": slice(r - half, r - half + size), "x": slice(c - half, c - half + size)} for r, c in places]


def contrast(before: float, after: float, errors: dict) -> dict:
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
    dict: difference, std, lower, upper, minimal_detectable (found with power 0.8 at 5 %), share_<name> of the variance.
    """
    variance = {k: float(np.sum(np.square(v))) for k, v in errors.items()}
    total = sum(variance.values())
    std = np.sqrt(total)
    difference = float(after - before)
    out = dict(difference=difference, std=std, lower=difference - Z * std, upper=difference + Z * std)
    out["minimal_detectable"] = (Z + stats.norm.ppf(POWER)) * std
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
    each sensor's scene shares, through its contribution to the rate. *geometry*: horizontal motion read as vertical.
    *sampling*: rms over starting years of the thinning experiment's zone differences, by contribution.

    Parameters
    ----------
    epochs : Dataset (label, y, x)
        From `join`: rate, rate_std, geometry_std, sensor_contribution (label, sensor, y, x), sensor_reference_std
        (sensor).
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
        sensor_contribution (zone, label, sensor), sampling_error (zone, sensor, start).
    """
    labels, names = [str(v) for v in epochs["label"].values], [str(v) for v in zones["zone"].values]
    best = labels[int(epochs["rate_std"].where(quiet).median(("y", "x")).argmin("label"))]
    masks = [inside for _, inside in space.zone_masks(zones)]
    lengths, scales, tables, covariances, without = [], [], [], [], []
    for label in labels:
        field = epochs.sel(label=label)
        known = [m & np.isfinite(field["rate"] * field["rate_std"]).values for m in masks]
        still = (field["rate"] if label == best else field["rate"] - epochs["rate"].sel(label=best)).where(
            quiet
        )

        def errors(still, field=field, known=known, stated=label == best):
            length = space.correlation_length(still)
            scale = 1.0 if stated else space.error_scale(still, field["rate_std"], length)
            return length, scale, scale**2 * space.zone_covariance(field["rate_std"], known, length)

        length, scale, covariance = errors(still)
        parts = (
            [covariance] * 9
            if label == best
            else [errors(part)[2] for part in space.all_but_one_block(still)]
        )
        fit = space.zone_mean(field["rate"], scale * field["rate_std"], zones, length_m=length)
        geometry = space.zone_mean(field["geometry_std"], field["geometry_std"], zones, length_m=length)[
            "std"
        ]
        tables.append(fit.assign(geometry_std=geometry).loc[names])
        for found, value in zip(
            (lengths, scales, covariances, without), (length, scale, covariance, parts), strict=True
        ):
            found.append(value)
    columns = {"rate": "mean"} | {k: k for k in ("geometry_std", "n_pixels", "n_effective")}
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
    out["sensor_contribution"] = (
        epochs["sensor_contribution"].where(zones).mean(("y", "x")).reset_coords(drop=True)
    )
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


def zone_contrast(
    rates: xr.Dataset, zone: str, epoch: str, since: str | None = None, minus: str | None = None
) -> dict:
    """Rate of a zone in an epoch, since another epoch and/or less another zone, with its error budget.

    The fit error is widened by the uncertainty of its variance, see `space.widening`.

    Parameters
    ----------
    rates : Dataset
        From `zone_rates`.
    since, minus : str, optional
        Epoch and zone that are subtracted. Less a zone, errors common to the scene (the reference) cancel.

    Returns a dict: what `contrast` gives, and <name>_std of fit, reference, geometry and sampling.
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
        "fit": np.sqrt(fit) * space.widening(fit, fit_variance("fit_covariance_without")),
        "geometry": float(np.sqrt(sum(r["geometry_std"] ** 2 for _, r in at))),
    }
    weight = sum(sign * r["sensor_contribution"] for sign, r in at)
    own["reference"] = float(np.sqrt(((weight * rates["sensor_reference_std"]) ** 2).sum()))
    own["sampling"] = 0.0
    if "sampling_error" in rates:
        moved = sum(sign * r["sensor_contribution"] * r["sampling_error"] for sign, r in at)
        own["sampling"] = float(np.sqrt((moved**2).mean("start").sum()))
    return contrast(0.0, value, own) | {f"{k}_std": v for k, v in own.items()}


def equivalence(value: float, std: float, margin: float) -> dict:
    """Two one-sided tests (Schuirmann) at 5 %: is |value| below the margin, and what margin could be claimed?

    Returns a dict: equivalent (bool), p_value (of |true value| >= margin), claimable (smallest margin that passes).
    """
    if margin <= 0:
        raise ValueError(f"equivalence: the margin must be positive, got {margin}")
    p = max(stats.norm.sf((margin - value) / std), stats.norm.sf((margin + value) / std))
    claimable = abs(value) + stats.norm.ppf(LEVEL) * std
    return dict(equivalent=bool(p < 1 - LEVEL), p_value=float(p), claimable=float(claimable))


def acceleration(rates: xr.Dataset, zone: str, middle: np.ndarray, minus: str | None = None) -> dict:
    """Slope of the epoch rates against time by generalised least squares, mm/yr per decade.

    Cov = C diag(reference^2) C' + diag(rest of each epoch's budget), C the sensors' contributions (epoch, sensor): a
    reference error is common to the epochs its sensor serves.

    rates, zone and minus are those of `zone_contrast`, `middle` the middle of each epoch in years. Returns a dict:
    value, std, and weights (epoch) with which the rates are summed.
    """
    each = [zone_contrast(rates, zone, str(e), minus=minus) for e in rates["label"].values]
    weight = rates["sensor_contribution"].sel(zone=zone)
    weight = weight - (rates["sensor_contribution"].sel(zone=minus) if minus else 0)
    weight = weight.transpose("label", "sensor").values
    covariance = weight @ np.diag(rates["sensor_reference_std"].values ** 2) @ weight.T
    covariance += np.diag([e["std"] ** 2 - e["reference_std"] ** 2 for e in each])
    design = np.column_stack([np.ones_like(middle), (middle - middle.mean()) / 10])
    of_slope = np.linalg.inv(design.T @ np.linalg.solve(covariance, design))
    slope = of_slope @ design.T @ np.linalg.solve(covariance, [e["difference"] for e in each])
    weights = (of_slope @ design.T @ np.linalg.inv(covariance))[1]
    return {"value": slope[1], "std": np.sqrt(of_slope[1, 1]), "weights": weights}


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

    Returns a DataFrame indexed by zone and epoch: drop, std (mm), years.
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
    series: pd.DataFrame, candidates: Sequence, *, rate_error: dict[str, float] | None = None
) -> pd.DataFrame:
    """Posterior over the date of one change of rate.

    Generalised least squares of value = offset(sensor) + rate t + change max(t - date, 0) + annual term. The size of a
    sensor's errors is its scatter about a line and annual term of its own where three degrees of freedom are left (else
    the median of the others'); std gives their pattern. All dates are equally likely beforehand, the change is
    N(0, CHANGE_STD_MM_YR^2), offsets, rate, annual term and the scale of all errors are integrated out.

    Parameters
    ----------
    series : DataFrame
        Columns date, value, std, and sensor (one offset each).
    candidates : dates
        Dates tried, evenly spaced; those with fewer than three dates on either side get NaN.
    rate_error : dict, optional
        sensor -> sd of an error of its rate that its scatter does not show (`series_errors`).

    Returns
    -------
    DataFrame
        date, change, change_std (in value's unit per year), gain (fall of chi2 against no change), z, posterior (sum
        1); attrs best (most probable date), median, lower, upper: 95 % between equal tails, given that there was one.
    """
    series = series[np.isfinite(series["value"])]
    t = years(pd.DatetimeIndex(series["date"]).values.astype("datetime64[D]"), since="1970-01-01")
    names = series["sensor"].to_numpy() if "sensor" in series else np.zeros(t.size)
    order = pd.unique(names)
    sensor = (names[:, None] == order).astype(float)
    base = np.column_stack([sensor, t - t.mean(), annual(t)])
    if t.size < base.shape[1] + 3:
        raise ValueError(f"change_point: {t.size} dates for {base.shape[1]} parameters; needs three more")
    drift = np.array([(rate_error or {}).get(n, 0.0) for n in order])
    whiten = _whitening(series, t, sensor, base[:, sensor.shape[1] :], drift)
    y = whiten @ series["value"].to_numpy(float)
    free = t.size - base.shape[1]
    none = _residual(whiten @ base, y)[1]
    scale = max(1.0, none / free)
    dates, rows = pd.DatetimeIndex(candidates), []
    for date, when in zip(
        dates, years(dates.values.astype("datetime64[D]"), since="1970-01-01"), strict=True
    ):
        row = dict(date=date) | dict.fromkeys(("change", "change_std", "gain", "z", "posterior"), np.nan)
        if min((t < when).sum(), (t > when).sum()) >= 3:
            scaled = whiten @ np.column_stack([base, np.clip(t - when, 0, None)])
            solution, chi2 = _residual(scaled, y)
            std = np.sqrt(np.linalg.pinv(scaled.T @ scaled)[-1, -1] * scale)
            row |= dict(change=solution[-1], change_std=std, gain=(none - chi2) / scale, z=solution[-1] / std)
            row["posterior"] = _log_evidence(scaled, y, free)
        rows.append(row)
    return _normalised(pd.DataFrame(rows))


def _residual(scaled, y) -> tuple:
    """Least-squares solution and its sum of squares."""
    solution = np.linalg.lstsq(scaled, y, rcond=None)[0]
    return solution, float(((y - scaled @ solution) ** 2).sum())


def _whitening(series, t, sensor, columns, drift) -> np.ndarray:
    """Matrix W that makes all errors independent of sd 1: W' W = (S + sum_s drift_s^2 u_s u_s')^-1.

    S is diagonal (std times the scatter of the sensor), u_s the time since the mean date of sensor s.
    """
    value, std = series["value"].to_numpy(), series["std"].to_numpy(float)
    found = np.array([_scatter(columns[s > 0], value[s > 0], std[s > 0]) for s in sensor.T])
    found = np.where(np.isfinite(found), found, np.nanmedian(found) if np.isfinite(found).any() else 1.0)
    weight = 1.0 / (std * (sensor @ found))
    common = [d * s * (t - t[s > 0].mean()) for d, s in zip(drift, sensor.T, strict=True)]
    common = np.column_stack(common) * weight[:, None]
    return np.linalg.inv(np.linalg.cholesky(np.eye(t.size) + common @ common.T)) * weight


def _log_evidence(scaled, y, free: int) -> float:
    """Log of p(y | date) up to a constant: -1/2 log |X'X| - free/2 log(rss).

    X holds one more row, the prior of the change: an observation of 0 with sd CHANGE_STD_MM_YR.
    """
    prior = np.eye(scaled.shape[1])[-1:] / CHANGE_STD_MM_YR
    widened, target = np.vstack([scaled, prior]), np.append(y, 0.0)
    left = target - widened @ np.linalg.lstsq(widened, target, rcond=None)[0]
    return -0.5 * (np.linalg.slogdet(widened.T @ widened)[1] + free * np.log(left @ left))


def _normalised(out: pd.DataFrame) -> pd.DataFrame:
    """Posterior of sum 1 from its logarithm, with its quantiles as attrs."""
    if out["posterior"].notna().any():
        probability = np.exp(out["posterior"] - out["posterior"].max())
        out["posterior"] = probability / probability.sum()
        cumulative = out["posterior"].fillna(0).cumsum()
        tail, half = (
            (1 - LEVEL) / 2,
            np.median(np.diff(out["date"])) / 2,
        )  # a candidate stands for the dates around it
        out.attrs = dict(
            best=out["date"][out["posterior"].idxmax()],
            median=out["date"][(cumulative >= 0.5).idxmax()],
            lower=out["date"][(cumulative >= tail).idxmax()] - half,
            upper=out["date"][(cumulative >= 1 - tail - 1e-9).idxmax()] + half,
        )
    return out


def series_errors(rates: xr.Dataset, zone: str, minus: str) -> dict:
    """Sd of the rate error of each sensor's series of a zone less another, from the errors on quiet ground.

    The fit error of the epoch to which the sensor contributes most, over the root of its contribution c: independent
    sensors of sd s_i joined by inverse variance have c_i = var / s_i^2.
    rates, zone and minus are those of `zone_contrast`. Returns a dict: sensor -> mm/yr.
    """
    contribution = rates["sensor_contribution"].sel(zone=zone).clip(min=0.01)
    out = {}
    for sensor in rates["sensor"].values:
        own = contribution.sel(sensor=sensor)
        label = str(own["label"].values[int(own.argmax("label"))])
        fit = zone_contrast(rates, zone, label, minus=minus)["fit_std"]
        out[str(sensor)] = fit / float(np.sqrt(own.sel(label=label).clip(max=1.0)))
    return out


def _scatter(columns, value, std) -> float:
    """Errors of a sensor over their stated sd: scatter about its own line and annual term; NaN below 3 dof."""
    scaled = np.column_stack([np.ones(value.size), columns]) / std[:, None]
    free = value.size - scaled.shape[1]
    if free < 3:
        return np.nan
    left = value / std - scaled @ np.linalg.lstsq(scaled, value / std, rcond=None)[0]
    return float(np.sqrt(left @ left / free))
