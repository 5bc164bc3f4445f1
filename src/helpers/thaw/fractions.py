"""Drops of the surface inside windows of the thaw season, and the fractions they are of the whole; part of `thaw`."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import xarray as xr
from scipy import optimize, stats

from .areas import OTHER_FORMS, ROOT, area_weights, bare, mean_of_others
from .season import day_of_year

SLOPE_STD = 0.3  # of a slope between pixels not yet seen: as far as the fraction of a usable window changes
FULL_SEASON = ("05-20", "09-30")  # calendar limits of "full" unless `windows` has its own


def drops(
    displacement: xr.DataArray,
    std: xr.DataArray | float,
    windows: dict[str, tuple[str, str]],
    *,
    edge_days: float = 0.0,
    max_gap_days: float = 36.0,
    outside_days: float = 0.0,
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
    outside_days : float
        A limit up to this long before the first or after the last date takes that date's value.
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
        edges = np.array([[day_of_year(year, e) for e in limit] for limit in limits.values()])
        weights = _edge_weights(
            days, edges.ravel(), np.isfinite(values[rows]), edge_days, max_gap_days, outside_days
        )
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
    own = {
        k: options.pop(k)
        for k in ("edge_days", "max_gap_days", "outside_days", "date_covariance")
        if k in options
    }
    seen = drops(displacement, std, windows, **own)
    options.setdefault("noise_correlation", seen["noise_correlation"])
    return seen.merge(fraction_of_drops(seen["drop"], seen["drop_std"], **options))


def fraction_of_drops(
    drop: xr.DataArray,
    std: xr.DataArray,
    *,
    noise_correlation: xr.DataArray | None = None,
    pattern: xr.DataArray | str | None = None,
    nuisance: xr.DataArray | None = None,
    smooth_cells: float = 0.0,
    noise_factor: float = 1.0,
    draws: int = 500,
    rng: np.random.Generator | None = None,
) -> xr.Dataset:
    """Ratio of means, its change between years with the noise removed, its spread between pixels.

    For an elevation band or a surface class give drops that are NaN outside it.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        Drop and its sd in mm; the window "full" is the whole season.
    noise_correlation : (window, window_2) DataArray, optional
        Correlation of the noise of two windows; without it only "full" with itself is correlated.
    pattern : "others" or (...) DataArray, optional
        Expected size of the drop: "others" is the mean full drop of the other years, so that no noise is
        on both sides. The area's drop is then the slope of the drops against the root of the pattern (times
        its mean): what is common to the scene, such as the error of the reference, cancels. Without it the
        area's drop is the plain mean.
    nuisance : (term, ...) DataArray, optional
        Fields fitted beside the pattern, for example height and place, which delay may follow.
    smooth_cells : float
        Cosines of the (y, x) grid down to this wavelength (cells) are fitted beside the pattern: delay is
        mostly longer than the pattern of thaw, so that what is left of it averages away. 0 fits none.
    noise_factor : float
        Sd of the area's value over that of pixels with independent errors. Errors of neighbours are
        alike; `scatter` of `area_curve` tells how much without a model of how.
    draws, rng
        Bootstrap over years (not pixels: they share the weather); none with 0 draws.

    Returns
    -------
    Dataset
        fraction, fraction_noise (window, year): ratio of area means and its noise sd.
        fraction_mean (window): ratio of the sums over years, so that noise in the denominator
        does not bias it. A slope weighs pixels by the contrast of their pattern, not alike, and ground that
        sinks more need not sink at the same time: weighting_std is what the mean changes, noise apart, when the
        pattern itself takes the place of its root, or the pattern and its square, which allow for a fraction that
        changes with the drop. It returns every year. fraction_mean_std is that and the delta method's in squares;
        fraction_mean_boot_std, by bootstrap, has the years alone.
        cv_year: interannual sd over mean, noise removed (Paule and Mandel), with its 95 % interval
        cv_year_lower and cv_year_upper (Viechtbauer 2007, doi:10.1002/sim.2514, known noise, normal
        years): lower 0 means that it cannot be told from zero, and upper is its limit.
        cv_noise: what noise alone gives one year; cv_total: both.
        cv_pixel: lasting spread between pixels, in proportion to their drop, and
        lasting_std: lasting misfit in mm that is not; both without noise.
        pixel_slope: how much of the difference between pixels in their full drops the scaled drops of the
        window show; below 1 where ground that sinks more does so later. n_years (window).
        full_mean, full_mean_std (year): area mean of the full drop and its noise in mm.
    """
    check_drop(drop, std)
    coords = {k: c for k, c in drop.coords.items() if set(c.dims) <= {"year", "window"}}
    correlation = bare(correlation_with_full(drop, noise_correlation))
    at = list(drop["window"].values).index("full")
    drop, std = bare(drop), bare(std)  # without labels: aligning them takes longer than the sums
    space = [d for d in drop.dims if d not in ("year", "window")]
    full, full_std = drop.isel(window=at), std.isel(window=at)
    both = drop.notnull() & full.notnull()
    if isinstance(pattern, str):
        pattern = mean_of_others(full, pattern)
    elif pattern is not None:
        pattern = bare(pattern).expand_dims(year=drop.sizes["year"])
    weights = area_weights(both, pattern, nuisance, smooth_cells, (ROOT, *OTHER_FORMS))
    sums = [(weights * v.fillna(0)).sum(space).where(weights.notnull().all(space)) for v in (drop, full)]
    weighting = _of_weighting(*sums)
    weights, part, whole = (v.isel(form=0) for v in (weights, *sums))
    var_part, var_whole = (noise_factor**2 * np.square(weights * v).sum(space) for v in (std, full_std))
    var_part, var_whole = (v.where(part.notnull()) for v in (var_part, var_whole))
    cov = correlation * np.sqrt(var_part * var_whole)
    ratio = part / whole
    noise = var_part + ratio**2 * var_whole - 2 * ratio * cov

    pixel = _lasting_spread(drop, ratio, at, nuisance)
    seen = part.notnull()
    n_years = seen.sum("year")
    mean = part.sum("year") / whole.where(seen).sum("year")
    slope = _pixel_slope(drop / mean, full, nuisance)
    size = whole.where(seen).mean("year")
    total = np.square(part - mean * whole).sum("year") / (n_years - 1).where(n_years > 1) / size**2
    noise_year = (var_part + mean**2 * var_whole - 2 * mean * cov).clip(0) / size**2
    noise_mean = noise_year.mean("year")
    apart = (part - mean * whole) / size
    between = np.sqrt(_between_years(apart, noise_year)) / abs(mean)
    out = xr.Dataset(
        {
            "fraction": ratio.transpose("window", "year"),
            "fraction_noise": (np.sqrt(noise.clip(0)) / abs(whole)).transpose("window", "year"),
            "fraction_mean": mean,
            # years alike beyond their noise are luck: the noise is known
            "fraction_mean_std": np.sqrt(np.maximum(total, noise_mean) / n_years + weighting**2),
            "weighting_std": weighting,
            "cv_year": between[0],
            "cv_year_lower": between[1],
            "cv_year_upper": between[2],
            "cv_noise": np.sqrt(noise_mean.clip(0)) / abs(mean),
            "cv_total": np.sqrt(total) / abs(mean),
            "cv_pixel": pixel[0],
            "lasting_std": pixel[1],
            "pixel_slope": slope,
            "n_years": n_years,
            "full_mean": whole.isel(window=at),
            "full_mean_std": np.sqrt(var_whole.isel(window=at)),
        }
    )
    if draws:
        out["fraction_mean_boot_std"] = _bootstrap_years(part, whole, draws, rng)
    return out.assign_coords(coords)


def _between_years(apart, noise):
    """(estimate | lower | upper, window) variance between years from departures of known noise variance.

    The weighted sum of squares Q about the weighted mean falls as the variance between years that it
    supposes grows; it equals n - 1 at the estimate and the quantiles of chi-square at the limits. Where
    years differ less than their noise lets expect, the upper limit is not led to zero by that luck: its level
    is divided by the probability of so small a Q without any change (Read 2002, doi:10.1088/0954-3899/28/10/313).
    """
    out = np.full((3, apart.sizes["window"]), np.nan)
    pairs = (v.transpose("window", "year").values for v in (apart, noise))
    for i, (z, v) in enumerate(zip(*pairs, strict=True)):
        known = np.isfinite(z) & np.isfinite(v)
        z, v, free = z[known], v[known], int(known.sum()) - 1
        if free < 1:
            continue

        def excess(tau2, target, z=z, v=v):
            weight = 1 / (tau2 + v + 1e-12)
            return np.sum(weight * np.square(z - np.sum(weight * z) / weight.sum())) - target

        top = 1e4 * (np.var(z) + v.max()) + 1e-12
        luck = stats.chi2.cdf(excess(0.0, 0.0), free)
        for k, target in enumerate((free, *stats.chi2.ppf([0.975, 0.025 * luck], free))):
            above = excess(0.0, target) > 0
            out[k, i] = optimize.brentq(excess, 0.0, top, args=(target,), xtol=1e-9) if above else 0.0
    return xr.DataArray(out, dims=("limit", "window"))


def _of_weighting(part, whole):
    """(window) change of the ratio of sums when pixels weigh otherwise, less what noise makes of it (jackknife)."""
    whole = whole.where(part.notnull())
    ratio = part.sum("year") / whole.sum("year")
    without = (part.sum("year") - part.fillna(0)) / (whole.sum("year") - whole.fillna(0))
    change, changes = ratio - ratio.isel(form=0), without - without.isel(form=0)
    n = part.notnull().sum("year")
    noise = np.square(changes - changes.mean("year")).where(part.notnull()).sum("year") * (n - 1) / n
    return np.sqrt((change**2 - noise).clip(0).fillna(0).max("form"))


def _bootstrap_years(part, whole, draws, rng):
    """Sd of the ratio of sums when years are drawn with replacement, for n - 1 degrees of freedom."""
    rng = np.random.default_rng(0) if rng is None else rng
    n = part.sizes["year"]
    counts = xr.DataArray(rng.multinomial(n, np.full(n, 1 / n), draws), dims=("draw", "year"))
    top = (counts * part.fillna(0)).sum("year")
    bottom = (counts * whole.where(part.notnull()).fillna(0)).sum("year")
    return (top / bottom.where(bottom != 0)).std("draw") * np.sqrt(n / max(n - 1, 1))


def _lasting_spread(drop, ratio, at, nuisance=None):
    """What lasts at a pixel from year to year: relative spread of its fraction, and a misfit in mm.

    Products of a pixel's misfits in different years: their noises are independent, so none has to be
    known, let alone removed. Their part in proportion to the squared drop is a fraction of its own, the
    rest an error that returns every season.
    """
    space = [d for d in drop.dims if d not in ("year", "window")]
    share = ratio * drop.isel(window=at)
    misfit = drop - share
    seen = misfit.notnull()
    for field in (
        nuisance if nuisance is not None else ()
    ):  # what follows height and place may be delay of every season
        field = bare(field)
        field = field - (field * seen).sum(space) / seen.sum(space)
        power = np.square(field.where(seen)).sum(space)
        slope = (misfit * field).sum(space) / power.where(power > 1e-9)
        misfit = misfit - (misfit.mean(space) + slope.fillna(0) * field)
    size, error = (_cross_years(v.where(seen)) for v in (share, misfit))
    around = size - size.mean(space)
    power = np.square(around).sum(space)
    relative = (around * error).sum(space) / power.where(power > 0)
    scatter = np.square(error - error.mean(space) - relative * around).mean(space) / power.where(power > 0)
    relative = relative.where(
        relative > 3 * np.sqrt(scatter), 0.0
    )  # neighbours are alike: ask for more than two
    left = (error - relative * size).mean(space).clip(0).fillna(0)
    return np.sqrt(relative), np.sqrt(left)


def _pixel_slope(scaled, full, nuisance=None):
    """(window) slope of pixels' scaled drops on their full drops; 1 is expected, with sd `SLOPE_STD`.

    Products of different years, as above: noise does not flatten it. Its own sd is a jackknife's over years.
    """
    space = [d for d in full.dims if d != "year"]
    seen = scaled.notnull() & full.notnull()
    scaled, full = (_without(v.where(seen), space, nuisance) for v in (scaled, full))
    apart = xr.DataArray(1 - np.eye(seen.sizes["year"]), dims=("year", "year_2"))

    def products(a, b):
        """Sum over pairs of years, and without those of each year."""
        pairs = xr.dot(a.fillna(0), b.fillna(0).rename(year="year_2"), dim=space) * apart
        of_year = pairs.sum("year_2") + pairs.sum("year").rename(year_2="year")
        return pairs.sum(("year", "year_2")), pairs.sum(("year", "year_2")) - of_year

    (both, fewer_both), (own, fewer_own) = products(scaled, full), products(full, full)
    n = seen.any(space).sum("year")
    fewer = (fewer_both / fewer_own.where(fewer_own > 0)).where(seen.any(space))
    variance = np.square(fewer - fewer.mean("year")).sum("year") * (n - 1) / n.where(n > 2)
    change = (both / own.where(own > 0) - 1) / (1 + variance / SLOPE_STD**2)
    return 1 + change.fillna(0.0).clip(-2 * SLOPE_STD, 2 * SLOPE_STD)


def _without(field, space, nuisance):
    """Field (year, ...) less its mean and what of it follows each nuisance."""
    field = field - field.mean(space)
    for other in nuisance if nuisance is not None else ():
        other = bare(other).where(field.notnull())
        other = other - other.mean(space)
        power = np.square(other).sum(space)
        field = field - (field * other).sum(space) / power.where(power > 1e-9) * other
    return field


def _cross_years(field):
    """Mean product of a pixel's values in two different years."""
    n = field.notnull().sum("year")
    return (np.square(field.sum("year")) - np.square(field).sum("year")) / (n * (n - 1)).where(n > 1)


def hierarchical(fractions: xr.Dataset, height: xr.DataArray, *, bands: int = 4, **options) -> xr.Dataset:
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
    **options
        pattern, nuisance, smooth_cells and noise_factor of `fraction_of_drops`, for each band.

    Returns
    -------
    Dataset
        `fractions` with fraction_mean and fraction_mean_std (window, ...) as fields, cv_year and
        cv_pixel replaced, and slope_per_km, slope_per_km_std (window). Can be given to `scale`.
    """
    edges = np.nanquantile(height.values, np.linspace(0, 1, bands + 1))
    band = xr.DataArray(np.digitize(height, edges[1:-1]), height.coords, height.dims).where(height.notnull())
    kilometres = (height - height.mean()) / 1000
    drop, std = fractions["drop"], fractions["drop_std"]
    cells = [
        fraction_of_drops(
            drop.where(band == b), std.where(band == b), draws=0,
            noise_correlation=fractions.get("noise_correlation"), **options,
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
        weighting = float(fractions["weighting_std"].sel(window=name))
        error.append(np.hypot(mean[-1] * np.sqrt(variance.clip(0)), weighting))
        slope.append(beta[1])
        slope_std.append(np.sqrt(covariance[1, 1]))
        cv.append(np.sqrt(year_var))
    windows = pd.Index(fractions["window"].values, name="window")
    out["fraction_mean"] = xr.concat(mean, windows)
    out["fraction_mean_std"] = xr.concat(error, windows)
    out["cv_year"] = ("window", cv)
    out = out.drop_vars(["cv_year_lower", "cv_year_upper"])
    out["slope_per_km"], out["slope_per_km_std"] = ("window", slope), ("window", slope_std)
    relative = fractions["fraction"] / fractions["fraction_mean"]
    ratio = (out["fraction_mean"] * relative).transpose("window", "year", ...)
    at = list(fractions["window"].values).index("full")
    out["cv_pixel"], out["lasting_std"] = _lasting_spread(*map(bare, (drop, ratio)), at)
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


def _check_windows(windows):
    limits = {k: tuple(v) for k, v in windows.items()}
    limits.setdefault("full", FULL_SEASON)
    for name, limit in limits.items():
        if len(limit) != 2 or not all(re.fullmatch(r"\d\d-\d\d", str(e)) for e in limit):
            raise ValueError(f"window {name!r}: {limit}; give ('mm-dd', 'mm-dd')")
        if day_of_year(2001, limit[0]) >= day_of_year(2001, limit[1]):
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


def check_drop(drop, std):
    """Refuse subsidence without the dims year and window, or with unequal ones."""
    for name, array in (("drop", drop), ("std", std)):
        if not {"year", "window"} <= set(array.dims):
            raise ValueError(f"{name}: dims {array.dims}; it needs 'year' and 'window'")
    if "full" not in drop["window"].values:
        raise ValueError(f"drop: windows {list(drop['window'].values)} without 'full', the whole season")


def correlation_with_full(drop, matrix):
    """Correlation of the noise of each window with that of the full season."""
    names = drop["window"].values
    if matrix is None:
        return xr.DataArray((names == "full").astype(float), dims="window", coords={"window": names})
    return matrix.sel(window=names, window_2="full", drop=True).drop_vars("window_2", errors="ignore")


def labels(classes):
    """Names of the classes that occur."""
    return [v for v in pd.unique(classes.values.ravel()) if v == v and v != ""]


def _edge_weights(days, targets, valid, edge_days, max_gap, outside=0.0):
    """(edge, date, pixel) weights that turn dates into the value at each edge; NaN where unknown."""
    n, pixels = valid.shape
    out = np.full((targets.size, n, pixels), np.nan)
    column = np.arange(pixels)
    targets = np.clip(
        targets, np.minimum(targets + outside, days.min()), np.maximum(targets - outside, days.max())
    )
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
