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

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special, stats

from . import season as dd
from .areas import bare
from .fractions import check_drop, correlation_with_full, fraction_of_drops, labels
from .season import LAGS_DAYS, POWERS

MIN_FRACTION = 0.2  # below it the noise of one date grows more than fivefold
MAX_CV = 0.33  # above it the interval of a ratio is as long as the ratio
MIN_YEARS = 4  # fewer years do not tell a variance between years


def fit_degree_days(
    fractions: xr.Dataset,
    temperature: xr.DataArray,
    *,
    powers: Sequence[float] = POWERS,
    lags_days: Sequence[int] = LAGS_DAYS,
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
    limits, full = _limits(fractions)
    heat, years = dd.Heat.of(temperature).area_mean, fractions["year"].values
    part, whole = _area_means(fractions)
    spread = fractions["cv_total"].values
    power, lag = dd.choose(part, whole, spread, limits, full, heat, years, powers, lags_days)
    form = dd.share(limits, full, heat, years, power, lag).values
    error = dd.left_out_error(part, whole, form)
    constant = dd.left_out_error(part, whole, np.ones_like(form))
    n = fractions["n_years"].values
    total = (
        error * (n - 1) / np.where(n > 0, n, 1)
    )  # the left-out error also holds that of a mean of n - 1 years
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


def _limits(fractions):
    """Calendar limits of all windows, and which of them is the full season."""
    limits = zip(
        fractions["window_start"].values.tolist(), fractions["window_end"].values.tolist(), strict=True
    )
    return list(limits), list(fractions["window"].values).index("full")


def _area_means(fractions):
    """(year, window) area means of the drop and of the full drop, NaN where the window was not seen."""
    whole = np.broadcast_to(fractions["full_mean"].values[:, None], fractions["fraction"].T.shape)
    part = fractions["fraction"].transpose("year", "window").values * whole
    return part, np.where(np.isfinite(part), whole, np.nan)


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
        (Fieller), hence is not symmetric. Its sources in mm: std_noise (measurement), std_year (years
        differ), std_estimation (mean fraction known from few noisy years), std_pixel (pixels differ).
        pixel_slope of the window, of "joint" by pixel, for `shrink`.
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
    out = _with_interval(bare(estimate), level).assign_coords(estimate.coords)
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
    alone=False,
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
    years, outer = drop["year"].values, {k: c for k, c in drop.coords.items() if "year" not in c.dims}
    f = fractions.sel(window=drop["window"].values)
    if temperature is not None:
        heat = dd.Heat.of(temperature)
        fit = fit_degree_days(fractions, heat) if fit is None else fit
        curve = float(fit["power"]), float(fit["lag_days"])
        limits, full = _limits(fractions)
        at = [list(fractions["window"].values).index(w) for w in drop["window"].values]
        form = dd.share(limits, full, heat, years, *curve).isel(window=at)
        fit = bare(fit.isel(window=at))
    drop, std, names = bare(drop), bare(std), f["window"].values
    given, f = f, bare(f)
    known = xr.DataArray(names == "full", dims="window")
    dated = method != "constant"
    spread = fit if dated else f
    terms = {
        "year": (spread["cv_year"] ** 2).where(~known, 0.0),
        "estimation": (f["fraction_mean_std"] / f["fraction_mean"]) ** 2,
        "pixel": xr.zeros_like(f["cv_pixel"]) if area_mean else f["cv_pixel"].fillna(0) ** 2,
        "total": (spread["cv_total"] ** 2).where(~known, 0.0),
        "lasting": xr.zeros_like(f["cv_pixel"]) if area_mean else f["lasting_std"].fillna(0) ** 2,
        "freedom": (f["n_years"] - (2 if dated else 1)).clip(1),
    }
    if dated:
        lasting = f["weighting_std"] / f["fraction_mean"]
        total = np.maximum(spread["cv_total"], f["cv_noise"])
        terms["estimation"] = total**2 / f["n_years"] + lasting**2
    terms["estimation"] = terms["estimation"].where(~known, 0.0)
    refused, reason = _refuse(f, names, terms, spread["cv_year"], level, min_fraction, max_cv)
    drop = drop.where(~refused)
    if method == "joint":
        divisor = fit["kappa"] * form
        index = dd.season(limits[full], heat, years, *curve)
        past = dd.season(limits[full], heat.area_mean, fractions["year"].values, *curve).values
        terms["slope"] = f["pixel_slope"]
        estimate = _joint(drop, std, divisor, index, terms, _coefficient_cv(fractions, past), given, alone)
    else:
        divisor = fit["kappa"] * form if dated else f["fraction_mean"]
        relative = terms["year"]
        if temperature is not None and not dated:
            # that of single years is in cv_year already; what lasts over all the years given is not
            lasting = form.mean([d for d in form.dims if d != "window"]) / fit["mean"] - 1
            relative = relative + lasting**2
        estimate = xr.Dataset(
            {
                "value": drop / divisor,
                "noise": (std**2 + terms["lasting"]) / divisor**2,
                "relative_year": relative,
                "relative_estimation": terms["estimation"],
                "relative_pixel": terms["pixel"],
                "relative_total": terms["total"],
                "freedom": terms["freedom"],
                "pixel_slope": f["pixel_slope"],
                "weight_own": 1 / divisor,
            }
        )
    estimate.attrs = {"power": curve[0], "lag_days": curve[1]} if dated else {}
    kept = {k: c for k, c in outer.items() if set(c.dims) <= set(estimate.dims)}
    window = {"window": names}
    return (
        estimate.assign_coords(kept | {"year": years}),
        refused.assign_coords(window),
        reason.assign_coords(window),
    )


def _refuse(f, names, terms, cv_year, level, min_fraction, max_cv):
    t = stats.t.ppf(0.5 + level / 2, np.maximum(terms["freedom"].values, 1))
    normal = stats.norm.ppf(0.5 + level / 2)
    spread, pixel, mean = (
        v.mean([d for d in v.dims if d != "window"])
        for v in (terms["year"] + terms["estimation"], terms["pixel"], f["fraction_mean"])
    )
    reasons = []
    for i, name in enumerate(names.tolist()):
        value, cv, years = float(mean[i]), float(cv_year[i]), int(f["n_years"][i])
        if name == "full":
            text = ""
        elif years < MIN_YEARS:
            text = f"{years} calibration years, {MIN_YEARS} needed"
        elif not value >= min_fraction:
            text = f"fraction {value:.2f} below {min_fraction:.2f}"
        elif not cv <= max_cv:
            text = f"fraction changes by {100 * cv:.0f} % from year to year, above {100 * max_cv:.0f} %"
        elif float(spread[i]) * t[i] ** 2 + float(pixel[i]) * normal**2 >= 1:
            text = "the fraction is too uncertain: the interval of a ratio has no upper end"
        else:
            text = ""
        reasons.append(text)
    reason = xr.DataArray(reasons, dims="window")
    return reason != "", reason


def _coefficient_cv(fractions, index):
    """Interannual variance of the full drop per unit of thaw index, noise removed, relative to the mean."""
    value, noise = fractions["full_mean"].values, fractions["full_mean_std"].values ** 2
    seen = np.isfinite(value) & np.isfinite(index)
    value, noise, index = value[seen], noise[seen], index[seen]
    free = max(value.size - 1, 1)
    total = np.sum(np.square(value - value.sum() / index.sum() * index)) / free
    return float(_positive(total - noise.mean(), total * np.sqrt(2 / free)) / value.mean() ** 2)


def _positive(variance, sd):
    """Expectation of a variance known with a normal error, given that it is not negative.

    An estimate cut off at zero would call a spread that noise hides absent, and the interval too short.
    """
    sd = np.maximum(sd, 1e-12)
    z = variance / sd
    return np.maximum(variance + sd * np.exp(-(z**2) / 2 - special.log_ndtr(z)) / np.sqrt(2 * np.pi), 0)


def _joint(drop, std, divisor, index, terms, spread, given, alone):
    """One coefficient per pixel, years departing from it: a two-level normal model in closed form.

    With `alone` every window is taken by itself, as if it were the only one.
    """

    def over(values):
        return values if alone else values.sum("window")

    form = divisor * index  # mm of drop per unit coefficient
    seen = drop.notnull() & form.notnull() & (form > 0)
    used = seen if alone else seen.any("window")
    axes = [d for d in seen.dims if not alone or d != "window"]
    # one number for the weights: a pixel's own would make them follow its noise
    prior = (drop * form).where(seen).sum(axes) / np.square(form).where(seen).sum(axes)
    weight = (1 / (std**2 + np.square(prior * form) * (terms["year"] + 1e-6))).where(seen, 0.0)
    gain = weight * form / over(weight * form**2).where(used)
    own = over(gain * drop.fillna(0)).where(used)
    noise = np.square(gain * std) if alone else _quadratic(gain * std.where(seen, 0.0), given)
    share = gain * form
    misfit = np.square(over(share * np.sqrt(terms["year"])))  # windows of a year err together
    inner = noise + misfit * prior**2
    between = max(spread, _own_change(own, inner, prior)) * prior**2
    level_weight = (1 / (inner + between)).where(used, 0.0)
    level_sum = level_weight.sum("year")
    level_weight = level_weight / level_sum.where(level_sum > 0)
    mean = (level_weight * own.fillna(0)).sum("year").where(level_sum > 0)
    keep = (between / (inner + between)).where(used, 0.0)
    value = mean + keep * (own.fillna(mean) - mean)
    posterior = (keep * inner.fillna(0)).where(used, between) + (1 - keep) ** 2 / level_sum
    # Calibration error and a pixel's own fraction are the same in all years: they do not average out.
    steady = (level_weight * share.fillna(0)).sum("year")
    lasting = np.square((level_weight * gain.fillna(0) * np.sqrt(terms["lasting"])).sum("year"))
    by_year = ((misfit * prior**2).fillna(0) / inner).where(used, 1.0)  # share of it that weather brings
    own_weight = keep + (1 - keep) * level_weight
    return xr.Dataset(
        {
            "value": value * index,
            "noise": (posterior + over(lasting)) * index**2,
            "noise_year": posterior * by_year * index**2,
            "relative_year": 0 * value,
            "relative_estimation": np.square(over(steady * np.sqrt(terms["estimation"]))) + 0 * value,
            "relative_pixel": np.square(over(steady * np.sqrt(terms["pixel"]))) + 0 * value,
            "relative_total": over(steady * terms["total"]) + 0 * value,
            "freedom": terms["freedom"] if alone else terms["freedom"].min(),
            "pixel_slope": over(steady * terms["slope"]),
            "weight_own": own_weight * index * over(gain.fillna(0)),
        }
    )


def _own_change(own, inner, prior):
    """Relative variance of the coefficients between the years given, without noise, pooled over places.

    It may be more than in the calibration years, for example where mining begins.
    """
    weight = (1 / inner**2).where(own.notnull(), 0.0)
    n = own.notnull().sum("year")
    mean = (own / inner).sum("year") / (1 / inner).where(own.notnull()).sum("year")
    excess = np.square(own - mean) - inner * ((n - 1) / n.where(n > 1))
    expected = prior**2 * ((n - 1) / n.where(n > 1))
    found = (weight * excess).sum() / (weight * expected).where(n > 1).sum()
    return max(float(found), 0.0) if np.isfinite(found) else 0.0


def _quadratic(parts, given):
    """Variance of a sum over windows whose noises are correlated as `noise_correlation` says."""
    if "noise_correlation" not in given or parts.sizes["window"] == 1:
        return np.square(parts).sum("window")
    matrix = bare(given["noise_correlation"].sel(window_2=given["window"].values))
    return (xr.dot(parts, matrix, dim="window") * parts.rename(window="window_2")).sum("window_2").clip(0)


def _with_interval(estimate, level, extra_noise=0.0):
    """Standard deviation and interval from noise and relative errors (quadratic of a ratio)."""
    value = estimate["value"]
    noise = (estimate["noise"] + extra_noise).clip(0)
    of_years = estimate.get("noise_year", 0.0)
    relative = estimate["relative_year"] + estimate["relative_estimation"] + estimate["relative_pixel"]
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
            "std_noise": np.sqrt((noise - of_years).clip(0)) + 0 * value,
            "std_year": np.sqrt(of_years + square * estimate["relative_year"]),
            "std_estimation": abs(value) * np.sqrt(estimate["relative_estimation"]),
            "std_pixel": abs(value) * np.sqrt(estimate["relative_pixel"]),
            "pixel_slope": estimate["pixel_slope"],
            "degrees_of_freedom": freedom.where(value.notnull()),
        }
    )


def _student(freedom, level):
    grid = np.geomspace(1, 1e6, 400)
    return np.interp(np.log(freedom), np.log(grid), stats.t.ppf(0.5 + level / 2, grid))


def shrink(scaled: xr.Dataset, *, classes: xr.DataArray | None = None) -> xr.Dataset:
    """Draw noisy pixels toward the mean of their class in the same year.

    A prior from other years would assume that nothing changed; the neighbours of the same year do
    not. Only how far pixels of a class differ, in proportion to their mean, is asked of all years given.
    What is independent between pixels (noise, own fraction) is shrunk; the error that a whole year
    shares keeps its proportion.

    Parameters
    ----------
    scaled : Dataset
        From `scale`; its pixel_slope puts right differences between pixels that the window shows too small.
    classes : (...) DataArray, optional
        Labels of the areas whose pixels resemble each other; the whole area if None.

    Returns
    -------
    Dataset
        shrunk, shrunk_std in mm and weight (of the pixel's own value), dims as full_season. The sd is the
        posterior one, with what is not known of the weight in it (Morris 1983, doi:10.1080/01621459.1983.10477920).
        The unshrunk values stay the reference. The sd is that of a pixel drawn from its class: where heights or
        surfaces of a class sink differently, its parts are biased toward each other and the sd does not say so.
    """
    value, common = scaled["full_season"], np.hypot(scaled["std_year"], scaled["std_estimation"])
    noise = scaled["std_noise"] ** 2 + scaled["std_pixel"] ** 2
    slope = scaled["pixel_slope"]
    space = [d for d in value.dims if d not in ("year", "window")]
    groups = [xr.ones_like(value.isel({d: 0 for d in value.dims if d not in space}), dtype=bool)]
    if classes is not None:
        groups = [classes == v for v in labels(classes)]
    shrunk, std, weight = (xr.full_like(value, np.nan) for _ in range(3))
    for inside in groups:
        v, e = value.where(inside), noise.where(inside)
        n = v.notnull().sum(space)
        # Weights from the class-wide noise: a pixel's std_pixel grows with its own value.
        level = e.mean(space)
        mean = v.mean(space)
        # Pixels differ in proportion to the mean, alike in every year: one number is better known.
        size = _known_mean(mean, level / n + np.square(common.where(inside)).mean(space))
        size = np.maximum(size**2, level / n)
        between, rise = _class_spread(v, level, size, space)
        w = (between / (between + e)).where(e > 0, 1.0).where(inside)
        inner = mean + w * (v - mean) / slope
        shrunk = inner.where(inside, shrunk)
        of_weight = np.square(rise * w * (1 - w) * (v - mean) / slope)
        of_mean = (1 - w) ** 2 * (between + level) / n.where(n > 0)
        # What the year shares goes with the shrunken value: the pixel's own square holds its noise too.
        shared = np.square(inner) * np.square(common.where(inside)).mean(space) / np.square(v).mean(space)
        std = np.sqrt(w * e / slope**2 + of_weight + of_mean + shared).where(inside, std)
        weight = (w / slope).where(inside, weight)
    return (
        xr.Dataset({"shrunk": shrunk, "shrunk_std": std, "weight": weight})
        .where(value.notnull())
        .transpose(*value.dims)
    )


def _known_mean(mean, noise):
    """Means of years, drawn to that of all years as far as their noise accounts for how they differ."""
    if "year" not in mean.dims:
        return mean
    every = mean.mean("year")
    change = np.square(mean - every).sum("year") / (mean.count("year") - 1).clip(1)
    keep = (1 - noise.mean("year") / change.where(change > 0)).clip(0).fillna(0.0)
    return every + keep * (mean - every)


def _class_spread(v, level, size, space, nodes=400):
    """Variance between pixels of a class beyond their noise, and the relative sd of its odds to the noise.

    Posterior moments of the share u that real differences have in the scatter of a class, flat before: the scatter
    is chi-square about noise plus differences.
    """
    n = v.notnull().sum(space)
    free = (n - 1).clip(0)
    square = np.square(v - v.mean(space)).sum(space)
    years = [d for d in v.dims if d == "year"]
    unit = size * (level.sum(years) / size.sum(years))
    u = xr.DataArray((np.arange(nodes) + 0.5) / nodes, dims="share")
    total = level + unit * u / (1 - u)
    fit = -0.5 * (free * np.log(total) + square / total).fillna(0).sum(years)
    chance = np.exp(fit - fit.max("share"))
    chance = chance / chance.sum("share")
    share = (chance * u).sum("share")
    sd = np.sqrt((chance * np.square(u - share)).sum("share"))
    return unit * share / (1 - share), sd / (share * (1 - share))


def leave_one_year_out(
    drop: xr.DataArray,
    std: xr.DataArray,
    *,
    methods: Sequence[str] = ("constant", "degree_day", "joint"),
    temperature: xr.DataArray | None = None,
    noise_correlation: xr.DataArray | None = None,
    pattern: xr.DataArray | str | None = None,
    nuisance: xr.DataArray | None = None,
    smooth_cells: float = 0.0,
    noise_factor: float = 1.0,
    classes: xr.DataArray | None = None,
    areas: tuple[xr.DataArray, xr.DataArray] | None = None,
    area_mean: bool = False,
    years: Sequence[int] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Hide one year's full season, predict it from a window, compare.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        As from `drops`, with "full" and, for temperature, coords window_start and window_end.
    methods : sequence of str
        As in `scale`, and "shrunk": degree_day, then `shrink` over the trailing dims. Each window is used
        alone, "joint" and "shrunk" with the same window of all years: that is what an old mission offers.
    temperature : (time, ...) DataArray, optional
        Daily, degrees Celsius.
    noise_correlation, pattern, nuisance, smooth_cells, noise_factor, area_mean, level
        As in `fraction_of_drops` and `scale`.
    classes : (...) DataArray, optional
        As in `shrink`, for "shrunk".
    areas : (drop, std), optional
        Predict these, for example zone means, with the fractions of `drop`; give area_mean=True then.
    years : sequence of int, optional
        Hide only these, one at a time; all of them if None.

    Returns
    -------
    DataFrame
        year, window, method, the trailing dims (y, x), predicted, lower, upper, observed in mm and
        predicted_std. The limits are for the **observed** drop: they hold its noise too, less what
        both share. Refused windows and unbounded intervals give no rows;
        attrs["refused"] lists (year, window, method, reason).
    """
    check_drop(drop, std)
    dated = [m for m in methods if m != "constant"]
    if dated and temperature is None:
        raise ValueError(f"methods {dated} need `temperature`: daily degrees Celsius")
    heat = dd.Heat.of(temperature) if dated else None
    windows = [w for w in drop["window"].values if w != "full"]
    rho = bare(correlation_with_full(drop, noise_correlation).sel(window=windows))
    options = {"noise_correlation": noise_correlation, "pattern": pattern, "nuisance": nuisance}
    options |= {"smooth_cells": smooth_cells, "noise_factor": noise_factor, "draws": 0}
    learn, learn_std = drop, std
    drop, std = (drop, std) if areas is None else areas
    trailing = {
        k: c for k, c in drop.coords.items() if not {"year", "window"} & set(c.dims) and c.dims == (k,)
    }
    tables, refusals = [], []
    for year in drop["year"].values if years is None else years:
        others = drop["year"] != year
        train = fraction_of_drops(learn.sel(year=others), learn_std.sel(year=others), **options)
        fit = fit_degree_days(train, heat) if dated else None
        hidden, hidden_std = (bare(v.sel(year=year, window="full")) for v in (drop, std))
        shared = rho * hidden_std * bare(std.sel(year=year, window=windows))
        for method in methods:
            estimate, reason = _one_year(drop, std, train, year, windows, method, heat, area_mean, level, fit)
            refusals += [(int(year), w, method, t) for w, t in zip(windows, reason, strict=True) if t]
            at = list(drop["year"].values).index(year) if estimate.sizes["year"] > 1 else 0
            if method == "shrunk":
                table = _shrunk(estimate, level, at, hidden_std**2, shared, classes)
            else:
                estimate = estimate.isel(year=at)
                extra = hidden_std**2 - 2 * estimate["weight_own"] * shared
                table = _with_interval(estimate, level, extra)[["value", "std", "lower", "upper"]]
            table = table.assign(observed=hidden).assign_coords(trailing | {"window": windows})
            tables.append(table.to_dataframe().reset_index().assign(year=year, method=method))
    columns = [d for d in drop.dims if d not in ("year", "window")]
    order = ["year", "window", "method", *columns, "predicted", "predicted_std", "lower", "upper", "observed"]
    out = pd.concat(tables, ignore_index=True).rename(columns={"value": "predicted", "std": "predicted_std"})
    out = out.dropna(subset=["predicted", "observed", "lower", "upper"])[order]
    out = out.sort_values(["year", "window", "method"], kind="stable").reset_index(drop=True)
    out.attrs["refused"] = refusals
    return out


def _shrunk(estimate, level, at, hidden_variance, shared, classes):
    """Value and interval of shrunken predictions of an observed season; how pixels differ, all years say."""
    plain = _with_interval(estimate, level).rename(value="full_season")
    small = shrink(plain, classes=None if classes is None else bare(classes))
    small = small.assign(weight_own=estimate["weight_own"], freedom=plain["degrees_of_freedom"])
    small = small.isel(year=at)
    extra = hidden_variance - 2 * small["weight"] * small["weight_own"] * shared
    std = np.sqrt((small["shrunk_std"] ** 2 + extra).clip(0))
    half = std * xr.apply_ufunc(lambda v: _student(v, level), small["freedom"])
    value = small["shrunk"]
    return xr.Dataset({"value": value, "std": std, "lower": value - half, "upper": value + half})


def _one_year(drop, std, train, year, windows, method, heat, area_mean, level, fit):
    """Estimate of a hidden year from each window alone, beside that of the others where they take part in it.

    Second, the reasons of refused windows.
    """
    every = method in ("joint", "shrunk")
    method = "degree_day" if method == "shrunk" else method
    heat = None if method == "constant" else heat
    seen = {"window": windows, "year": drop["year"].values if every else [year]}
    out, _, reason = _estimate(
        drop.sel(seen), std.sel(seen), train, method, heat, area_mean, level, fit=fit, alone=True
    )
    return bare(out), reason.values.tolist()


def score(table: pd.DataFrame, by: Sequence[str] = ("window", "method")) -> pd.DataFrame:
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
        n, bias_mm, rmse_mm, crps_mm (of a normal predictive distribution), cover_68, cover_95; no rows where
        everything was refused.
    """
    if table.empty:
        return pd.DataFrame(columns=[*by, "n", "bias_mm", "rmse_mm", "crps_mm", "cover_68", "cover_95"])

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
