"""Beside the regime test: a bootstrap of years without a model of memory, and correlations at lags."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special

from .regimes import MIN_YEARS, less_control, membership, period_bounds


def block_bootstrap(
    fits: pd.DataFrame,
    periods: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    control: pd.DataFrame | None = None,
    statistic: str = "median",
    min_events: int = 1,
    year_start_month: int = 1,
    level: float = 0.95,
    mean_block: float = 3.0,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Contrasts of `regime_test` with intervals by the stationary bootstrap, which assumes no model of memory.

    The yearly values less their period's mean are resampled in blocks of consecutive years, of geometric length,
    on a circle (Politis and Romano 1994, doi:10.1080/01621459.1994.10476870), and put back on the means; the interval
    is stretched as Student's t is.  A few years hold few blocks: where years remember, the intervals are still too
    narrow (data/calibration/recession_bootstrap.csv), so it is for comparison.

    Parameters
    ----------
    fits, periods, value, control, statistic, min_events, year_start_month, level
        As in `regime_test`.
    mean_block : float
        Mean length of a block in years.
    draws, seed : int
        Number of resamples and their seed.

    Returns
    -------
    pandas.DataFrame
        ``value, period_a, period_b, difference, lower, upper`` (basic bootstrap interval), NaN with under 5 years.
    """
    years = less_control(fits, control, value, statistic, min_events, year_start_month)
    labels, *_ = bounds = period_bounds(periods)
    member = membership(years.index, bounds, year_start_month)
    y, member = years["value"].to_numpy()[member >= 0], member[member >= 0]
    count = np.bincount(member, minlength=len(labels))
    with np.errstate(invalid="ignore", divide="ignore"):  # a period of one year or none is not used
        mean = np.bincount(member, y, minlength=len(labels)) / count
        # residuals of n years about their own mean are too small by this
        residual = (y - mean[member]) * np.sqrt(count / (count - 1.0))[member]
    place = stationary_blocks(np.random.default_rng(seed), len(y), mean_block, draws)
    drawn = np.full((len(labels), draws), np.nan)
    for k in np.flatnonzero(count >= MIN_YEARS):
        drawn[k] = residual[place[:, member == k]].mean(axis=1)
    rows = []
    for i, j in combinations(range(len(labels)), 2):
        shift, tail = mean[j] - mean[i], (1 - level) / 2
        # few years: as wide as Student's t against the normal, with the years of the shorter period
        stretch = special.stdtrit(max(min(count[i], count[j]) - 1, 1), 1 - tail) / special.ndtri(1 - tail)
        low, high = stretch * np.quantile(drawn[j] - drawn[i], [tail, 1 - tail])
        known = np.isfinite(low)
        rows.append((value, labels[i], labels[j], shift if known else np.nan, shift - high, shift - low))
    return pd.DataFrame(rows, columns=["value", "period_a", "period_b", "difference", "lower", "upper"])


def stationary_blocks(rng, n, mean_block, draws):
    """Positions (draws, n) of resampled years: each follows the one before, or is new with chance 1/mean_block."""
    place = np.empty((draws, n), np.int64)
    if n == 0:
        return place
    fresh = rng.integers(n, size=(draws, n))
    new = rng.random((draws, n)) < 1.0 / mean_block
    place[:, 0] = fresh[:, 0]
    for k in range(1, n):
        place[:, k] = np.where(new[:, k], fresh[:, k], (place[:, k - 1] + 1) % n)
    return place


def lagged_correlation(first: pd.Series, second: pd.Series, max_lag: int = 5) -> pd.DataFrame:
    """Correlation of two yearly series at lags, both without their trend, and what chance alone would give.

    Parameters
    ----------
    first, second : pandas.Series
        By year.  A positive lag pairs `first` with later years of `second`: `first` leads.
    max_lag : int
        Largest lag in years.

    Returns
    -------
    pandas.DataFrame
        Index ``lag``; ``correlation``, ``limit`` (95 % of unrelated series stay within it at every lag, by Bonferroni,
        with the effective number of years of two AR(1) series, n (1 - r1 r2) / (1 + r1 r2)), ``n`` (years).  Under 8
        common years: NaN.
    """
    first, second = (_without_trend(s.dropna().astype(float)) for s in (first, second))
    z = special.ndtri(1 - 0.025 / (2 * max_lag + 1))
    memory = np.prod([max(_lag_one(s), 0.0) for s in (first, second)])
    rows = []
    for lag in range(-max_lag, max_lag + 1):
        later = pd.Series(second.to_numpy(), index=second.index - lag)
        years = first.index.intersection(later.index)
        n = len(years)
        effective = n * (1 - memory) / (1 + memory)
        known = n >= 8 and effective > 3
        r = np.corrcoef(first[years], later[years])[0, 1] if known else np.nan
        rows.append((lag, r, np.tanh(z / np.sqrt(effective - 3)) if known else np.nan, n))
    return pd.DataFrame(rows, columns=["lag", "correlation", "limit", "n"]).set_index("lag")


def _without_trend(yearly):
    """A yearly series less its straight line."""
    t = yearly.index.to_numpy(float)
    if len(t) < 3:
        return yearly * np.nan
    return yearly - np.polyval(np.polyfit(t - t.mean(), yearly, 1), t - t.mean())


def _lag_one(yearly):
    """Correlation of consecutive years."""
    both = yearly.index.intersection(yearly.index - 1)
    if len(both) < 4:
        return 0.0
    return float(np.corrcoef(yearly[both], yearly[both + 1])[0, 1])
