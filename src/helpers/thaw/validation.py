"""Scaled seasons against observed ones: a year left out, predicted and scored; part of `thaw`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .areas import PLAIN_MEAN, Weighting, without_coords
from .degree_days import Heat, fit_degree_days
from .fractions import check_drop, correlation_with_full, fraction_of_drops
from .scaling import Calibration, estimate_season, student, with_interval
from .shrinkage import empirical_bayes

SCORES = ["n", "bias_mm", "rmse_mm", "crps_mm", "cover_68", "cover_95"]


def leave_one_year_out(
    drop: xr.DataArray,
    std: xr.DataArray,
    *,
    methods: Sequence[str] = ("constant", "degree_day", "joint"),
    temperature: xr.DataArray | None = None,
    noise_correlation: xr.DataArray | None = None,
    weighting: Weighting = PLAIN_MEAN,
    classes: xr.DataArray | None = None,
    areas: tuple[xr.DataArray, xr.DataArray] | None = None,
    area_mean: bool = False,
    years: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Hide one year's full season, predict it from a window, compare.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        As from `drops`, with "full" and, for temperature, coords window_start and window_end.
    methods : sequence of str
        As in `scale`, and "shrunk": degree_day, then `empirical_bayes` over the trailing dims. Each window is used
        alone, "joint" and "shrunk" with the same window of all years: that is what an old mission offers.
    temperature : (time, ...) DataArray, optional
        Daily, degrees Celsius.
    noise_correlation, weighting, area_mean
        As in `fraction_of_drops` and `scale`.
    classes : (...) DataArray, optional
        As in `empirical_bayes`, for "shrunk".
    areas : (drop, std), optional
        Predict these, for example zone means, with the fractions of `drop`; give area_mean=True then.
    years : sequence of int, optional
        Hide only these, one at a time; all of them if None.

    Returns
    -------
    DataFrame
        year, window, method, the trailing dims (y, x), predicted, predicted_std, lower, upper, observed in mm. The
        limits are for the **observed** drop: they hold its noise too, less what both share. Refused windows and
        unbounded intervals give no rows; attrs["refused"] lists (year, window, method, reason).
    """
    check_drop(drop, std)
    dated = [m for m in methods if m != "constant"]
    if dated and temperature is None:
        raise ValueError(f"methods {dated} need `temperature`: daily degrees Celsius")
    heat = Heat.of(temperature) if dated else None
    windows = [w for w in drop["window"].values if w != "full"]
    rho = without_coords(correlation_with_full(drop, noise_correlation).sel(window=windows))
    options = {"noise_correlation": noise_correlation, "weighting": weighting, "draws": 0}
    target, target_std = (drop, std) if areas is None else areas
    dims = [d for d in target.dims if d not in ("year", "window")]
    trailing = {d: target[d] for d in dims if d in target.coords} | {"window": windows}
    tables, refusals = [], []
    for year in target["year"].values if years is None else years:
        others = drop["year"] != year
        train = fraction_of_drops(drop.sel(year=others), std.sel(year=others), **options)
        fit = fit_degree_days(train, heat) if dated else None
        hidden, hidden_std = (without_coords(v.sel(year=year, window="full")) for v in (target, target_std))
        shared = rho * hidden_std * without_coords(target_std.sel(year=year, window=windows))
        for method in methods:
            base = "degree_day" if method == "shrunk" else method
            calibration = Calibration.of(train, base, None if method == "constant" else heat, fit)
            # a hidden year beside the others, or alone
            seen = list(target["year"].values) if method in ("joint", "shrunk") else [year]
            given = (v.sel(window=windows, year=seen) for v in (target, target_std))
            estimate, reason = estimate_season(*given, calibration, area_mean=area_mean, separate=True)
            refusals += [
                (int(year), w, method, t) for w, t in zip(windows, reason.values.tolist(), strict=True) if t
            ]
            estimate, at = without_coords(estimate), {"year": seen.index(year)}
            if method == "shrunk":
                table = _shrunk(estimate, at, hidden_std**2, shared, classes)
            else:
                # var(predicted - observed) = var(predicted) + s^2 - 2 w cov, w the weight of the year's own drop
                estimate = estimate.isel(at)
                extra = hidden_std**2 - 2 * estimate["weight_own"] * shared
                table = with_interval(estimate, extra)[["value", "std", "lower", "upper"]]
            table = table.assign(observed=hidden).assign_coords(trailing)
            tables.append(table.to_dataframe().reset_index().assign(year=year, method=method))
    out = pd.concat(tables, ignore_index=True).rename(columns={"value": "predicted", "std": "predicted_std"})
    order = ["year", "window", "method", *dims, "predicted", "predicted_std", "lower", "upper", "observed"]
    out = out.dropna(subset=["predicted", "observed", "lower", "upper"])[order]
    out = out.sort_values(["year", "window", "method"], kind="stable", ignore_index=True)
    out.attrs["refused"] = refusals
    return out


def _shrunk(estimate, at, hidden_variance, shared, classes):
    """Value and interval of shrunk predictions of an observed season; how pixels differ, all years say."""
    plain = with_interval(estimate).rename(value="full_season")
    small = empirical_bayes(plain, classes=None if classes is None else without_coords(classes)).isel(at)
    extra = hidden_variance - 2 * small["weight"] * estimate["weight_own"].isel(at) * shared
    std = np.sqrt((small["shrunk_std"] ** 2 + extra).clip(0))
    value, half = small["shrunk"], std * student(plain["degrees_of_freedom"].isel(at))
    return xr.Dataset({"value": value, "std": std, "lower": value - half, "upper": value + half})


def score(table: pd.DataFrame, by: Sequence[str] = ("window", "method")) -> pd.DataFrame:
    """Bias, error, CRPS (of a normal distribution) and coverage of predictions of `leave_one_year_out`, by columns."""
    if table.empty:
        return pd.DataFrame(columns=[*by, *SCORES])

    def one(group):
        error = group["predicted"] - group["observed"]
        sd = (group["upper"] - group["lower"]) / (2 * stats.norm.ppf(0.975))
        # CRPS = sd [z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)], z = (observed - predicted) / sd
        z = -error / sd
        crps = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
        inside = (group["observed"] >= group["lower"]) & (group["observed"] <= group["upper"])
        narrow = abs(z) <= stats.norm.ppf(0.84)
        rmse = np.sqrt((error**2).mean())
        return pd.Series([len(group), error.mean(), rmse, crps.mean(), narrow.mean(), inside.mean()], SCORES)

    return table.groupby(list(by), sort=True).apply(one, include_groups=False).reset_index()


def rmse_interval(
    predicted: pd.DataFrame, rng: np.random.Generator, draws: int = 2000
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """95 % limits (window, method) of the rms error when left-out years are drawn anew; none from one or two years."""
    square = np.square(predicted["predicted"] - predicted["observed"])
    by_year = square.groupby([predicted[k] for k in ("window", "method", "year")])
    total, count = (v.unstack("year", fill_value=0) for v in (by_year.sum(), by_year.size()))
    n = total.shape[1]
    drawn = rng.multinomial(n, np.full(n, 1 / n), draws).T
    with np.errstate(invalid="ignore"):
        error = np.sqrt((total.to_numpy() @ drawn) / (count.to_numpy() @ drawn))
    limits = np.nanquantile(error, [0.025, 0.975], axis=1)
    limits[:, (count > 0).sum(axis=1) < 3] = np.nan
    return tuple(pd.Series(v, total.index).unstack("method") for v in limits)
