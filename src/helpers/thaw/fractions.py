"""The fraction of the full season's subsidence that falls into a window, and how it varies; part of `thaw`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import optimize, stats

from .areas import OTHER_FORMS, PLAIN_MEAN, ROOT, Weighting, area_weights, without_coords
from .season import check_std, drops

SLOPE_STD = 0.3  # of a slope between pixels not yet seen: as far as the fraction of a usable window changes


def fraction(
    displacement: xr.DataArray, std: xr.DataArray | float, windows: dict, *, edge_days: float = 0.0, **options
) -> xr.Dataset:
    """Fraction of the full thaw-season drop that falls into each window: `drops`, then `fraction_of_drops`.

    Give it the displacement of unconstrained summer interferograms: a fitted sinusoid has the same fractions every
    year by construction.

    Parameters
    ----------
    displacement, std, windows, edge_days
        As in `drops`: (time, y, x) in mm, and name to ("mm-dd", "mm-dd").
    **options
        Of `fraction_of_drops`.

    Returns
    -------
    Dataset
        drop, drop_std (year, window, y, x) in mm, and what `fraction_of_drops` gives.
    """
    seen = drops(displacement, std, windows, edge_days=edge_days)
    options.setdefault("noise_correlation", seen["noise_correlation"])
    return seen.merge(fraction_of_drops(seen["drop"], seen["drop_std"], **options))


def fraction_of_drops(
    drop: xr.DataArray,
    std: xr.DataArray,
    *,
    noise_correlation: xr.DataArray | None = None,
    weighting: Weighting = PLAIN_MEAN,
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
    weighting : Weighting
        How pixels make up the area's drop.
    draws, rng
        Bootstrap over years (not pixels: they share the weather); none with 0 draws.

    Returns
    -------
    Dataset
        fraction, fraction_noise (window, year): ratio of area means and its noise sd.
        fraction_mean (window): ratio of the sums over years, not biased by noise in the denominator.
        weighting_std: change of that, noise apart, when the pattern itself, or the pattern and its square, takes the
        place of its root: a slope does not weigh pixels alike, and ground that sinks more need not sink at the same
        time. fraction_mean_std: that and the delta method's; fraction_mean_boot_std: of the years alone.
        cv_year: interannual sd over mean, noise removed (Paule and Mandel), with its 95 % interval
        cv_year_lower and cv_year_upper (Viechtbauer 2007, doi:10.1002/sim.2514, known noise, normal years).
        cv_noise: what noise alone gives one year; cv_total: both.
        cv_pixel, lasting_std: lasting spread between pixels in proportion to their drop, and in mm; without noise.
        pixel_slope: how much of the difference between pixels in their full drops the scaled drops of the window
        show; below 1 where ground that sinks more does so later. n_years (window).
        full_mean, full_mean_std (year): area mean of the full drop and its noise in mm.
    """
    check_drop(drop, std)
    coords = {k: c for k, c in drop.coords.items() if set(c.dims) <= {"year", "window"}}
    correlation = without_coords(correlation_with_full(drop, noise_correlation))
    at = list(drop["window"].values).index("full")
    drop, std = without_coords(drop), without_coords(std)  # aligning labels takes longer than the sums
    part, whole, var_part, var_whole, weighting_std = _area_drops(drop, std, at, weighting)
    cov = correlation * np.sqrt(var_part * var_whole)

    def noise_of(fraction):
        # F = drop_window / drop_full, delta method: var F = [var_w + F^2 var_f - 2 F cov_wf] / drop_full^2
        return (var_part + fraction**2 * var_whole - 2 * fraction * cov).clip(0)

    ratio, seen = part / whole, part.notnull()
    n_years = seen.sum("year")
    mean = part.sum("year") / whole.where(seen).sum("year")
    cv_pixel, lasting_std = _lasting_spread(drop, ratio, at, weighting.nuisance)
    # variance components: total s^2 = tau^2 (years) + noise, each in units of the mean full drop
    size = whole.where(seen).mean("year")
    total = np.square(part - mean * whole).sum("year") / (n_years - 1).where(n_years > 1) / size**2
    noise_year = noise_of(mean) / size**2
    noise_mean = noise_year.mean("year")
    between = np.sqrt(_between_years((part - mean * whole) / size, noise_year)) / abs(mean)
    # years alike beyond their noise are luck: the noise is known
    variance_mean = np.maximum(total, noise_mean) / n_years + weighting_std**2
    variables = {
        "fraction": ratio.transpose("window", "year"),
        "fraction_noise": (np.sqrt(noise_of(ratio)) / abs(whole)).transpose("window", "year"),
        "fraction_mean": mean,
        "fraction_mean_std": np.sqrt(variance_mean),
        "weighting_std": weighting_std,
        **dict(zip(("cv_year", "cv_year_lower", "cv_year_upper"), between, strict=True)),
        "cv_noise": np.sqrt(noise_mean.clip(0)) / abs(mean),
        "cv_total": np.sqrt(total) / abs(mean),
        "cv_pixel": cv_pixel,
        "lasting_std": lasting_std,
        "pixel_slope": _pixel_slope(drop / mean, drop.isel(window=at), weighting.nuisance),
        "n_years": n_years,
        "full_mean": whole.isel(window=at),
        "full_mean_std": np.sqrt(var_whole.isel(window=at)),
    }
    if draws:
        variables["fraction_mean_boot_std"] = _bootstrap_years(part, whole, draws, rng)
    return xr.Dataset(variables).assign_coords(coords)


def _area_drops(drop, std, at, weighting):
    """Drop of the area by window and in the full season over the same pixels, noise variances, weighting_std."""
    space = [d for d in drop.dims if d not in ("year", "window")]
    full, full_std = drop.isel(window=at), std.isel(window=at)
    both = drop.notnull() & full.notnull()
    weights = area_weights(both, weighting.sizes(full), weighting, (ROOT, *OTHER_FORMS))
    sums = [(weights * v.fillna(0)).sum(space).where(weights.notnull().all(space)) for v in (drop, full)]
    part, whole, weights = (v.isel(form=0) for v in (*sums, weights))
    factor = weighting.noise_factor**2
    variances = [(factor * np.square(weights * v).sum(space)).where(part.notnull()) for v in (std, full_std)]
    return part, whole, *variances, _of_weighting(*sums)


def _between_years(apart, noise):
    """(estimate | lower | upper, window) variance between years from departures of known noise variance.

    Q about the weighted mean falls as the variance that it supposes grows; it equals n - 1 at the estimate and the
    quantiles of chi-square at the limits. Where years differ less than their noise lets expect, the level of the
    upper limit is divided by the probability of so small a Q (Read 2002, doi:10.1088/0954-3899/28/10/313).
    """

    def excess(tau2, target, z, v):
        # Q(tau^2) = sum w (z - sum w z / sum w)^2 with w = 1 / (tau^2 + v)
        weight = 1 / (tau2 + v + 1e-12)
        return np.sum(weight * np.square(z - np.sum(weight * z) / weight.sum())) - target

    def solve(z, v):
        known = np.isfinite(z) & np.isfinite(v)
        z, v, free = z[known], v[known], int(known.sum()) - 1
        if free < 1:
            return np.full(3, np.nan)
        top = 1e4 * (np.var(z) + v.max()) + 1e-12
        luck = stats.chi2.cdf(excess(0.0, 0.0, z, v), free)
        given = [(target, z, v) for target in (free, *stats.chi2.ppf([0.975, 0.025 * luck], free))]
        above = [excess(0.0, *g) > 0 for g in given]
        roots = (
            optimize.brentq(excess, 0.0, top, g, 1e-9) if a else 0.0
            for a, g in zip(above, given, strict=True)
        )
        return np.array(list(roots))

    return xr.apply_ufunc(
        solve, apart, noise, input_core_dims=[["year"]] * 2, output_core_dims=[["limit"]], vectorize=True
    ).transpose("limit", ...)


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
    n = part.sizes["year"]
    counts = (np.random.default_rng(0) if rng is None else rng).multinomial(n, np.full(n, 1 / n), draws)
    whole, counts = whole.where(part.notnull()), xr.DataArray(counts, dims=("draw", "year"))
    top, bottom = ((counts * v.fillna(0)).sum("year") for v in (part, whole))
    return (top / bottom.where(bottom != 0)).std("draw") * np.sqrt(n / max(n - 1, 1))


def _lasting_spread(drop, ratio, at, nuisance=None):
    """What lasts at a pixel from year to year: relative spread of its fraction, and a misfit in mm.

    Products of a pixel's misfits in different years: their noises are independent, so none has to be known. Their
    part in proportion to the squared drop is a fraction of its own, the rest an error that returns every season.
    """
    space = [d for d in drop.dims if d not in ("year", "window")]
    expected = ratio * drop.isel(window=at)
    misfit = drop - expected
    seen = misfit.notnull()
    for field in nuisance if nuisance is not None else ():  # what follows them may be delay of every season
        field = without_coords(field)
        field = field - (field * seen).sum(space) / seen.sum(space)
        power = np.square(field.where(seen)).sum(space)
        slope = (misfit * field).sum(space) / power.where(power > 1e-9)
        misfit = misfit - (misfit.mean(space) + slope.fillna(0) * field)
    # E[m_y m_z] over years y != z = relative * E[x_y x_z] + lasting variance, m the misfit, x the expected drop
    size, error = (_cross_years(v.where(seen)) for v in (expected, misfit))
    around = size - size.mean(space)
    power = np.square(around).sum(space)
    relative = (around * error).sum(space) / power.where(power > 0)
    variance = np.square(error - error.mean(space) - relative * around).mean(space) / power.where(power > 0)
    relative = relative.where(relative > 3 * np.sqrt(variance), 0.0)  # neighbours are alike: more than two sd
    return np.sqrt(relative), np.sqrt((error - relative * size).mean(space).clip(0).fillna(0))


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
        other = without_coords(other).where(field.notnull())
        other = other - other.mean(space)
        power = np.square(other).sum(space)
        field = field - (field * other).sum(space) / power.where(power > 1e-9) * other
    return field


def _cross_years(field):
    """Mean product of a pixel's values in two different years: [(sum x)^2 - sum x^2] / [n (n - 1)]."""
    n = field.notnull().sum("year")
    return (np.square(field.sum("year")) - np.square(field).sum("year")) / (n * (n - 1)).where(n > 1)


def hierarchical(
    fractions: xr.Dataset, height: xr.DataArray, *, bands: int = 4, weighting: Weighting = PLAIN_MEAN
) -> xr.Dataset:
    """Fractions as a field: a mean, a slope with height, years and cells that depart from it.

    ln F of a height band and year = mu + beta (height - mean) + alpha_year + u + noise, with normal alpha and u and
    known noise, by restricted maximum likelihood for each window.

    Parameters
    ----------
    fractions : Dataset
        From `fraction`: drop, drop_std (year, window, ...), noise_correlation.
    height : (...) DataArray
        Metres.
    bands : int
        Height bands of equal pixel number.
    weighting : Weighting
        As in `fraction_of_drops`, for each band.

    Returns
    -------
    Dataset
        `fractions` with fraction_mean and fraction_mean_std (window, ...) as fields, cv_year and cv_pixel replaced,
        and slope_per_km, slope_per_km_std (window). Can be given to `scale`.
    """
    edges = np.nanquantile(height.values, np.linspace(0, 1, bands + 1))
    band = xr.DataArray(np.digitize(height, edges[1:-1]), height.coords, height.dims).where(height.notnull())
    kilometres = (height - height.mean()) / 1000
    data = fractions["drop"], fractions["drop_std"]
    options = {"noise_correlation": fractions.get("noise_correlation"), "weighting": weighting, "draws": 0}
    cells = [fraction_of_drops(*(v.where(band == b) for v in data), **options) for b in range(bands)]
    cells = [cell.assign(z=kilometres.where(band == b).mean()) for b, cell in enumerate(cells)]
    cells, by_window = xr.concat(cells, "band"), []
    for name in fractions["window"].values:
        beta, covariance, year_var = _fit_mixed(cells.sel(window=name), known=name == "full")
        mean = np.exp(beta[0] + beta[1] * kilometres)
        # variance of beta_0 + beta_1 z
        variance = covariance[0, 0] + 2 * covariance[0, 1] * kilometres + covariance[1, 1] * kilometres**2
        weighting_std = float(fractions["weighting_std"].sel(window=name))
        error = np.hypot(mean * np.sqrt(variance.clip(0)), weighting_std)
        slope = {"slope_per_km": beta[1], "slope_per_km_std": np.sqrt(covariance[1, 1])}
        of_mean = {"fraction_mean": mean, "fraction_mean_std": error, "cv_year": np.sqrt(year_var)}
        by_window.append(xr.Dataset(of_mean | slope))
    by_window = xr.concat(by_window, pd.Index(fractions["window"].values, name="window"), coords="minimal")
    out = fractions.drop_vars(["cv_year_lower", "cv_year_upper"]).assign(by_window.data_vars)
    relative = fractions["fraction"] / fractions["fraction_mean"]
    ratio = (out["fraction_mean"] * relative).transpose("window", "year", ...)
    at = list(fractions["window"].values).index("full")
    out["cv_pixel"], out["lasting_std"] = _lasting_spread(without_coords(data[0]), without_coords(ratio), at)
    return out


def _fit_mixed(cell, known):
    """Restricted maximum likelihood of ln F with years and cells as random effects: beta, its covariance, alpha's."""
    if known:
        return np.zeros(2), np.zeros((2, 2)), 0.0
    table = cell[["fraction", "fraction_noise", "z"]].to_dataframe().reset_index()
    table = table[(table["fraction"] > 0) & np.isfinite(table["fraction_noise"])]
    if len(table) < 6:
        return np.full(2, np.nan), np.full((2, 2), np.nan), np.nan
    y = np.log(table["fraction"].to_numpy())
    noise = np.square(table["fraction_noise"] / table["fraction"]).to_numpy()
    design = np.column_stack([np.ones(len(y)), table["z"]])
    same_year = np.equal.outer(table["year"].to_numpy(), table["year"].to_numpy())

    def solve(log_variances):
        year_var, cell_var = np.exp(np.clip(log_variances, -18, 4))
        inverse = np.linalg.inv(year_var * same_year + np.diag(noise + cell_var))
        normal = design.T @ inverse @ design
        beta = np.linalg.solve(normal, design.T @ inverse @ y)
        residual = y - design @ beta
        # -2 ln L = r' V^-1 r + ln |V| + ln |X' V^-1 X|
        misfit = residual @ inverse @ residual - np.linalg.slogdet(inverse)[1]
        return misfit + np.linalg.slogdet(normal)[1], beta, np.linalg.inv(normal), float(year_var)

    start = np.log([max(y.var(), 1e-6)] * 2)
    return solve(optimize.minimize(lambda v: solve(v)[0], start, method="Nelder-Mead").x)[1:]


def check_drop(drop, std, *, whole=True):
    """Refuse a drop without years or windows, one whose sign is clearly reversed, and an sd that is not its own."""
    if not {"year", "window"} <= set(drop.dims):
        raise ValueError(f"drop: dims {drop.dims}; it needs 'year' and 'window'")
    if whole and "full" not in drop["window"].values:
        raise ValueError(f"drop: windows {list(drop['window'].values)} without 'full', the whole season")
    check_std(drop, std)
    in_sd = (without_coords(drop) / without_coords(std)).values
    in_sd = in_sd[np.isfinite(in_sd)]
    if in_sd.size and np.median(in_sd) < -2:
        raise ValueError(
            f"drop: half of the data rise by over {-np.median(in_sd):.1f} sd; subsidence must be positive"
        )


def correlation_with_full(drop, matrix):
    """Correlation of the noise of each window with that of the full season."""
    if matrix is None:
        return (drop["window"] == "full").astype(float)
    return matrix.sel(window=drop["window"].values, window_2="full", drop=True)
