"""From maps to statements: what the mean of a zone, a contrast of epochs or a date of change may claim.

Everything here is offered by `helpers.merge`. Rates are mm/yr, positive up; distances are metres on any grid.
"""

from __future__ import annotations

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


def correlation_length(field: xr.DataArray, *, max_lag_m=None) -> float:
    """Length l (m) of exp(-h / l) that fits the spatial correlation of a field's deviations from its mean.

    Missing values are left out pair by pair. The mean is that of the field, so l is limited by about a quarter of
    its extent; a field without correlation gives a length below the pixel.
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
    rho = product[use] / np.round(pairs[use]) / centred[seen].var()
    weight = np.sqrt(pairs[use])
    step = min(_cell_m(field))

    def misfit(parameters):
        share, length = parameters
        return weight * (share * np.exp(-lag[use] / np.exp(length)) - rho)

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
    field: xr.DataArray, std: xr.DataArray, zones: xr.DataArray, *, length_m: float, common_std=0.0
):
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
    lag = _lags(field)
    correlation = np.exp(-lag / max(length_m, 1e-9))
    rows = {}
    for name, inside in _masks(zones):
        use = inside & np.isfinite(field).values & np.isfinite(std).values
        n = int(use.sum())
        if n == 0:
            rows[name] = dict(
                mean=np.nan, std=np.nan, std_independent=np.nan, n_pixels=0, n_effective=0.0, spread=np.nan
            )
            continue
        s = np.where(use, std.values, 0.0).astype(float)
        total = float((signal.fftconvolve(s, s[::-1, ::-1]) * correlation).sum())
        square = float((s**2).sum())
        own = np.sqrt(max(total, square)) / n
        value = field.values[use].astype(float)
        rows[name] = dict(
            mean=value.mean(), std=float(np.hypot(own, common_std)), std_independent=own, n_pixels=n,
            n_effective=square / n / own**2 if own > 0 else float(n), spread=value.std(),
        )  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("zone")


def _masks(zones: xr.DataArray):
    if "zone" in zones.dims:
        return [
            (str(z), zones.sel(zone=z).transpose("y", "x").values.astype(bool)) for z in zones.zone.values
        ]
    values = zones.transpose("y", "x").values
    labels = [v for v in pd.unique(values.ravel()) if not (pd.isna(v) or v == "")]
    return [(str(label), values == label) for label in sorted(labels, key=str)]


def contrast(before, after, errors: dict, *, level=0.95, power=0.8) -> dict:
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
):
    """Rates of zones by epoch with the four errors that do not average out alike.

    *fit*: noise and deviation, correlated in space over the length found on quiet ground (of the field less that of
    the best known epoch, so that real differences between places do not lengthen it; for that epoch they do).
    *reference*: what each sensor's scene shares, through the sensor's share in the rate. *geometry*: horizontal motion
    read as vertical. *sampling*: rms over starting years of the thinning experiment's zone differences, by share.

    Parameters
    ----------
    epochs : Dataset (label, y, x)
        rate, rate_std, geometry_std, sensor_share (label, sensor, y, x), sensor_reference_std (sensor): from `join`.
    zones : DataArray of bool (zone, y, x)
    quiet : DataArray of bool (y, x)
        Ground where the rate changed little, for the correlation length.
    thinning : Dataset, optional
        zone_difference (sensor, start, zone) in mm/yr, see `thin`; sensors that are not in it have no such error.

    Returns
    -------
    Dataset (zone, label)
        rate, rate_std and its parts fit_std, reference_std, geometry_std, sampling_std; n_pixels, n_effective;
        length_m (label); sensor_share (zone, label, sensor) and sampling_error (zone, sensor, start), which
        `zone_contrast` needs.
    """
    labels, names = [str(v) for v in epochs["label"].values], [str(v) for v in zones["zone"].values]
    best = labels[int(epochs["rate_std"].where(quiet).median(("y", "x")).argmin("label"))]
    lengths, tables = [], []
    for label in labels:
        field = epochs.sel(label=label)
        still = field["rate"] if label == best else field["rate"] - epochs["rate"].sel(label=best)
        length = correlation_length(still.where(quiet))
        lengths.append(length)
        fit = zone_mean(field["rate"], field["rate_std"], zones, length_m=length)
        geometry = zone_mean(field["geometry_std"], field["geometry_std"], zones, length_m=length)["std"]
        tables.append(fit.assign(geometry_std=geometry).loc[names])
    out = xr.Dataset(
        {
            new: (("label", "zone"), np.stack([t[old].to_numpy(float) for t in tables]))
            for new, old in (
                ("rate", "mean"),
                ("fit_std", "std"),
                ("geometry_std", "geometry_std"),
                ("n_pixels", "n_pixels"),
                ("n_effective", "n_effective"),
            )
        },
        coords={"label": labels, "zone": names, "length_m": ("label", lengths)},
    )
    out["sensor_share"] = epochs["sensor_share"].where(zones).mean(("y", "x")).reset_coords(drop=True)
    out["sensor_reference_std"] = epochs["sensor_reference_std"]
    if thinning is not None:
        error = thinning["zone_difference"].sel(zone=names).reset_coords(drop=True)
        out["sampling_error"] = error.reindex(sensor=out["sensor"].values)
    parts = [zone_contrast(out, z, e) for e in labels for z in names]
    for name in ("reference", "sampling"):
        value = np.array([p[f"{name}_std"] for p in parts]).reshape(len(labels), len(names))
        out[f"{name}_std"] = (("label", "zone"), value)
    out["rate_std"] = np.sqrt(sum(out[f"{k}_std"] ** 2 for k in ("fit", "reference", "geometry", "sampling")))
    return out.transpose("zone", "label", ...)


def zone_contrast(
    rates: xr.Dataset, zone: str, epoch: str, since: str | None = None, minus: str | None = None
) -> dict:
    """Rate of a zone in an epoch, since another epoch and/or less another zone, with its error budget.

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
    terms = {
        (z, e): 1 if (z == zone) == (e == epoch) else -1
        for z in (zone, minus)
        if z
        for e in (epoch, since)
        if e
    }
    at = [(sign, rates.sel(zone=z, label=e)) for (z, e), sign in terms.items()]
    value = sum(sign * float(r["rate"]) for sign, r in at)
    own = {k: float(np.sqrt(sum(r[f"{k}_std"] ** 2 for _, r in at))) for k in ("fit", "geometry")}
    share = sum(sign * r["sensor_share"] for sign, r in at)
    own["reference"] = float(np.sqrt(((share * rates["sensor_reference_std"]) ** 2).sum()))
    own["sampling"] = 0.0
    if "sampling_error" in rates:
        moved = sum(sign * r["sensor_share"] * r["sampling_error"] for sign, r in at)
        own["sampling"] = float(np.sqrt((moved**2).mean("start").sum()))
    return contrast(0.0, value, own) | {f"{k}_std": v for k, v in own.items()}


def equivalence(value, std, margin, *, level=0.95) -> dict:
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


def change_point(series: pd.DataFrame, candidates, *, level=0.95, harmonics=1) -> pd.DataFrame:
    """When did the rate change? The same test at every candidate date, so that placebo dates tell its false alarms.

    Generalised least squares of value = offset(sensor) + rate t + change max(t - date, 0) + annual wave.
    The residual's scale is estimated from the model without a change where it exceeds the stated std.

    Parameters
    ----------
    series : DataFrame
        Columns date, value, std, and sensor (one offset each).
    candidates : dates
        Dates tried; those with fewer than three dates on either side get NaN.

    Returns
    -------
    DataFrame
        date, change, change_std (in value's unit per year), gain (fall of chi2 against no change), z;
        attrs best, lower, upper (dates whose gain is within the chi2 limit of the best; level), scale.
    """
    t = years(pd.DatetimeIndex(series["date"]).values.astype("datetime64[D]"))
    sensor = pd.get_dummies(series["sensor"]).to_numpy(float) if "sensor" in series else np.ones((t.size, 1))
    waves = [f(2 * np.pi * k * t) for k in range(1, harmonics + 1) for f in (np.sin, np.cos)]
    base = np.column_stack([sensor, t - t.mean(), *waves])
    weight = 1.0 / series["std"].to_numpy(float)
    y = series["value"].to_numpy(float) * weight
    good = np.isfinite(y)
    if good.sum() < base.shape[1] + 3:
        raise ValueError(f"change_point: {good.sum()} dates for {base.shape[1]} parameters; needs three more")

    def fit(design):
        scaled = (design * weight[:, None])[good]
        solution, *_ = np.linalg.lstsq(scaled, y[good], rcond=None)
        residual = y[good] - scaled @ solution
        return solution, float(residual @ residual), scaled

    _, none, _ = fit(base)
    scale = max(1.0, none / (good.sum() - base.shape[1]))
    rows = []
    dates = pd.DatetimeIndex(candidates)
    for date, when in zip(dates, years(dates.values.astype("datetime64[D]")), strict=True):
        row = dict(date=date, change=np.nan, change_std=np.nan, gain=np.nan, z=np.nan)
        if min((t[good] < when).sum(), (t[good] > when).sum()) >= 3:
            solution, chi2, scaled = fit(np.column_stack([base, np.clip(t - when, 0, None)]))
            spread = np.sqrt(np.linalg.pinv(scaled.T @ scaled)[-1, -1] * scale)
            row |= dict(
                change=solution[-1], change_std=spread, gain=(none - chi2) / scale, z=solution[-1] / spread
            )
        rows.append(row)
    out = pd.DataFrame(rows)
    if out.gain.notna().any():
        near = out.gain >= out.gain.max() - stats.chi2.ppf(level, 1)
        out.attrs = dict(
            best=out.date[out.gain.idxmax()],
            lower=out.date[near].min(),
            upper=out.date[near].max(),
            scale=scale,
        )
    return out
