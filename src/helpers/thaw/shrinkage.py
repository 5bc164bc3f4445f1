"""Empirical-Bayes shrinkage of the scaled seasons of noisy pixels; part of `thaw`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr


def empirical_bayes(scaled: xr.Dataset, *, classes: xr.DataArray | None = None) -> xr.Dataset:
    """Empirical-Bayes estimate of noisy pixels: shrunk toward the mean of their class in the same year.

    Only how far pixels of a class differ, in proportion to their mean, is asked of all years given. What is
    independent between pixels (noise, own fraction) is shrunk; the error that a year shares keeps its proportion.

    Parameters
    ----------
    scaled : Dataset
        From `scale`; its pixel_slope puts right differences between pixels that the window shows too small.
    classes : (...) DataArray, optional
        Labels of the areas whose pixels resemble each other; the whole area if None.

    Returns
    -------
    Dataset
        shrunk, shrunk_std in mm and weight (of the pixel's own value), dims as full_season. The sd is the posterior
        one of a pixel drawn from its class, with what is not known of the weight in it (Morris 1983,
        doi:10.1080/01621459.1983.10477920); parts of a class that sink differently are biased toward each other.
    """
    value, common = scaled["full_season"], np.hypot(scaled["std_year"], scaled["std_estimation"])
    noise = scaled["std_noise"] ** 2 + scaled["std_pixel"] ** 2
    slope = scaled["pixel_slope"]
    space = [d for d in value.dims if d not in ("year", "window")]
    groups = [xr.ones_like(value.isel({d: 0 for d in value.dims if d not in space}), dtype=bool)]
    if classes is not None:
        groups = [classes == v for v in pd.unique(classes.values.ravel()) if v == v and v != ""]
    out = xr.Dataset({k: xr.full_like(value, np.nan) for k in ("shrunk", "shrunk_std", "weight")})
    for inside in groups:
        v, e = value.where(inside), noise.where(inside)
        n, mean = v.notnull().sum(space), v.mean(space)
        level = e.mean(space)  # of the class, because a pixel's std_pixel grows with its own value
        of_year = np.square(common.where(inside)).mean(space)
        # pixels differ in proportion to the mean, alike in every year: one number is better known
        size = np.maximum(_known_mean(mean, level / n + of_year) ** 2, level / n)
        between, rise = _class_spread(v, level, size, space)
        # posterior of a normal pixel about its class mean m: m + w (v - m), w = tau^2 / (tau^2 + noise)
        w = (between / (between + e)).where(e > 0, 1.0).where(inside)
        inner = mean + w * (v - mean) / slope
        of_weight = np.square(rise * w * (1 - w) * (v - mean) / slope)
        of_mean = (1 - w) ** 2 * (between + level) / n.where(n > 0)
        # what the year shares goes with the shrunken value: the pixel's own square holds its noise too
        shared = np.square(inner) * of_year / np.square(v).mean(space)
        std = np.sqrt(w * e / slope**2 + of_weight + of_mean + shared)
        out = xr.Dataset({"shrunk": inner, "shrunk_std": std, "weight": w / slope}).where(inside, out)
    return out.where(value.notnull()).transpose(*value.dims)


def _known_mean(mean, noise):
    """Means of years, shrunk to that of all years as far as their noise accounts for how they differ."""
    if "year" not in mean.dims:
        return mean
    every = mean.mean("year")
    change = np.square(mean - every).sum("year") / (mean.count("year") - 1).clip(1)
    keep = (1 - noise.mean("year") / change.where(change > 0)).clip(0).fillna(0.0)
    return every + keep * (mean - every)


def _class_spread(v, level, size, space, nodes=400):
    """Variance between pixels of a class beyond their noise, and the relative sd of its odds to the noise.

    Posterior moments, flat before, of the share u that real differences have in the scatter of a class, which is
    chi-square about noise plus differences.
    """
    free = (v.notnull().sum(space) - 1).clip(0)
    square = np.square(v - v.mean(space)).sum(space)
    years = [d for d in v.dims if d == "year"]
    unit = size * (level.sum(years) / size.sum(years))
    # u = tau^2 / (noise + tau^2); ln L(u) = -1/2 sum_years [(n - 1) ln total + square / total]
    u = xr.DataArray((np.arange(nodes) + 0.5) / nodes, dims="node")
    total = level + unit * u / (1 - u)
    fit = -0.5 * (free * np.log(total) + square / total).fillna(0).sum(years)
    chance = np.exp(fit - fit.max("node"))
    chance = chance / chance.sum("node")
    share = (chance * u).sum("node")
    sd = np.sqrt((chance * np.square(u - share)).sum("node"))
    return unit * share / (1 - share), sd / (share * (1 - share))
