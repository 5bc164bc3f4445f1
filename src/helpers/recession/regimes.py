"""Did the recession change between periods?  The year is the independent unit, its errors are AR(1)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import special
from statsmodels.stats.multitest import multipletests

from .ar1 import LEVEL, SUMMARY, ar1_regression, summary

MIN_YEARS = 5


def year_values(fits: pd.DataFrame, value: str = "ln_k_ref") -> pd.DataFrame:
    """Median over the events of each calendar year.

    Parameters
    ----------
    fits : pandas.DataFrame
        Columns ``start`` and `value`; ``ln_k_ref`` is made from ``k_ref`` if absent.

    The index of the result is the year; its columns are ``value``, ``n``.
    """
    if value == "ln_k_ref" and value not in fits and "k_ref" in fits:
        fits = fits.assign(ln_k_ref=np.log(fits["k_ref"]))
    if value not in fits or "start" not in fits:
        raise ValueError(f"fits: columns start and {value!r} are needed, found {list(fits.columns)}")
    years, values, n = year_medians(pd.DatetimeIndex(fits["start"]).year, fits[value].to_numpy(float))
    return pd.DataFrame({"value": values, "n": n}, index=pd.Index(years, name="year"))


def year_medians(year, value):
    """Years, the median of the finite values in each, and their number."""
    okay = np.isfinite(value)
    year, value = np.asarray(year)[okay], np.asarray(value, float)[okay]
    order = np.lexsort((value, year))
    years, first, n = np.unique(year[order], return_index=True, return_counts=True)
    value = value[order]  # in order within each year
    return years, 0.5 * (value[first + (n - 1) // 2] + value[first + n // 2]), n


def control_difference(fits, control, value):
    """Yearly values less those of the control basin where both have them, or as they are without a control."""
    years = year_values(fits, value)
    if control is None:
        return years
    other = year_values(control, value)
    common = years.index.intersection(other.index)
    return years.loc[common].assign(value=years.loc[common, "value"] - other.loc[common, "value"])


def regime_test(
    fits: pd.DataFrame,
    periods: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    control: pd.DataFrame | None = None,
    covariates: Sequence[str] | pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Contrast periods of a recession parameter, with years as the independent unit and AR(1) errors.

    Each year gives one value (`year_values`).  The values follow a mean per period, the covariates and a
    year effect with lag-1 correlation rho (years without events leave a gap in it).  The contrast's
    distribution is that of generalised least squares, averaged over rho by its restricted likelihood (a prior
    falling as 1 - rho on 0 to 0.95), so that neither the bias of an estimated rho nor its uncertainty is ignored.

    Parameters
    ----------
    fits : pandas.DataFrame
        One row per event: ``start`` (date) and `value` (or ``k_ref`` for ``ln_k_ref``).
    periods : pandas.DataFrame
        ``label, start, end`` (dates, either end may be missing); they must not overlap.
    value : str
        Column to test: ``ln_k_ref``, ``b``, ``ln_a0`` ...
    control : pandas.DataFrame, optional
        Fits of a basin without the change: the yearly difference from it is tested.
    covariates : list of str or pandas.DataFrame, optional
        Columns of `fits`, averaged by year; or a table by year.  They are centred.

    Returns
    -------
    pandas.DataFrame
        A row per contrast of two periods: ``value, period_a, period_b, difference`` (b minus a), ``lower,
        upper`` (95 %), ``difference_std, p_value`` (two-sided), ``n_years_a, n_years_b, minimal_detectable``
        (difference found with 80 % power at 5 %), ``rho`` and ``note``.  A period with under 5 years gives NaN and
        the note "not testable".

    Raises
    ------
    ValueError
        For missing columns, overlapping periods, or covariates that are constant or missing.
    """
    years = control_difference(fits, control, value)
    extra = _covariates(fits, covariates)
    if extra is not None:
        years = years.loc[years.index.intersection(extra.dropna().index)]
        extra = extra.loc[years.index]

    bounds = period_bounds(periods)
    labels, member = bounds[0], membership(years.index, bounds)
    testable, found = contrasts(years.index.to_numpy(), years["value"].to_numpy(), member, labels, extra)
    rows = []
    for a, b in combinations(labels, 2):
        n_a, n_b = (int(np.sum(member == labels.index(label))) for label in (a, b))
        row = {"value": value, "period_a": a, "period_b": b, "n_years_a": n_a, "n_years_b": n_b}
        if (a, b) in found:
            row |= found[(a, b)] | {"note": ""}
        else:
            short = " and ".join(label for label in (a, b) if label not in testable)
            note = f"not testable: under {MIN_YEARS} years in {short}"
            row |= dict.fromkeys(SUMMARY, np.nan) | {"note": note}
        rows.append(row)
    order = ["value", "period_a", "period_b", "difference", "lower", "upper", "difference_std", "p_value"]
    order += ["n_years_a", "n_years_b", "minimal_detectable", "rho", "note"]
    return pd.DataFrame(rows, columns=order)


def contrasts(years, values, member, labels, extra=None):
    """Labels of the periods that can be tested, and the summary of each of their contrasts."""
    testable = [x for k, x in enumerate(labels) if np.sum(member == k) >= MIN_YEARS]
    if len(testable) < 2:
        return testable, {}
    use = np.isin(member, [labels.index(x) for x in testable])
    design = np.stack([member[use] == labels.index(x) for x in testable], axis=1).astype(float)
    if extra is not None:
        centred = extra[use] - extra[use].mean()
        if (centred.std() == 0).any():
            constant = list(extra.columns[centred.std() == 0])
            raise ValueError(f"covariates: constant in the years tested: {constant}")
        design = np.c_[design, centred.to_numpy(float)]
    model = ar1_regression(np.asarray(years, float)[use], values[use], design)
    found = {}
    for i, j in combinations(range(len(testable)), 2):
        contrast = np.zeros(design.shape[1])
        contrast[i], contrast[j] = -1.0, 1.0
        found[(testable[i], testable[j])] = summary(model, contrast)
    return testable, found


def adjust_p_values(contrasts: pd.DataFrame, confirmatory: pd.Series) -> pd.DataFrame:
    """Add ``p_holm`` over the confirmatory tests and ``p_bh`` (Benjamini-Hochberg) over all others."""
    out = contrasts.assign(p_holm=np.nan, p_bh=np.nan)
    for column, part, method in (("p_holm", confirmatory, "holm"), ("p_bh", ~confirmatory, "fdr_bh")):
        part = part & out["p_value"].notna()
        if part.any():
            out.loc[part, column] = multipletests(out.loc[part, "p_value"], method=method)[1]
    return out


def trend_test(
    fits: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    against: pd.Series | None = None,
    control: pd.DataFrame | None = None,
) -> pd.Series:
    """Linear trend of the yearly values, with the AR(1) errors of `regime_test`.

    Parameters
    ----------
    against : pandas.Series, optional
        By year: the slope is that on this series (say, measured thaw depth) instead of on time.
    value, control
        As in `regime_test`.

    Returns
    -------
    pandas.Series
        ``value, n_years, slope`` (per year, or per unit of `against`), ``lower, upper, slope_std, p_value,
        minimal_detectable, rho``; all NaN with under 5 years.
    """
    years = control_difference(fits, control, value)
    if against is not None:
        years = years.loc[years.index.intersection(against.dropna().index)]
    t = years.index.to_numpy(float)
    x = t if against is None else against.loc[years.index].to_numpy(float)
    result = dict.fromkeys(SUMMARY, np.nan)
    if len(t) >= MIN_YEARS and np.ptp(x) > 0:
        model = ar1_regression(t, years["value"].to_numpy(), np.c_[np.ones_like(t), x - x.mean()])
        result = summary(model, np.array([0.0, 1.0]))
    result = {"value": value, "n_years": len(t)} | result
    return pd.Series(result).rename({"difference": "slope", "difference_std": "slope_std"})


def change_year(
    fits: pd.DataFrame, *, value: str = "ln_k_ref", control: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Posterior probability of the year of a change, given that there is one step.

    Parameters are those of `regime_test`.  Every year that leaves at least five on either side may be the
    first after the step; their weights are the restricted likelihoods of a step there, with AR(1) errors.

    Returns
    -------
    pandas.DataFrame
        Index ``year`` (first of the new level); ``probability`` (sums to 1), ``difference``, ``lower``, ``upper``;
        empty with under ten years.
    """
    years = control_difference(fits, control, value)
    t, y = years.index.to_numpy(float), years["value"].to_numpy()
    rows = []  # none where under ten years have events
    for k in range(MIN_YEARS, len(t) - MIN_YEARS + 1):
        model = ar1_regression(t, y, np.c_[np.ones_like(t), np.arange(len(t)) >= k])
        found = summary(model, np.array([0.0, 1.0]))
        rows.append((int(t[k]), model.log_evidence, found["difference"], found["lower"], found["upper"]))
    table = pd.DataFrame(rows, columns=["year", "probability", "difference", "lower", "upper"])
    table = table.set_index("year")
    table["probability"] = np.exp(table["probability"] - table["probability"].max())
    table["probability"] /= table["probability"].sum()
    return table


def placebo_tests(fits: pd.DataFrame) -> pd.DataFrame:
    """`regime_test` of ln k_ref at every date that leaves five years on either side of a record without a change.

    Returns ``year, difference, p_value``.
    """
    rows = []
    for year in np.unique(fits["start"].dt.year)[MIN_YEARS : 1 - MIN_YEARS]:
        halves = pd.DataFrame(
            {"label": ["a", "b"], "start": [None, f"{year}-01-01"], "end": [f"{year - 1}-12-31", None]}
        )
        row = regime_test(fits, halves).iloc[0]
        rows.append((year, row["difference"], row["p_value"]))
    return pd.DataFrame(rows, columns=["year", "difference", "p_value"]).dropna()


def period_means(fits: pd.DataFrame, periods: pd.DataFrame, *, value: str = "ln_k_ref") -> pd.DataFrame:
    """Mean of the yearly values in each period, with the 95 % interval of AR(1) errors.

    Returns ``label, mean, lower, upper, n_years``; the interval is NaN with under 5 years.
    """
    years = year_values(fits, value)
    bounds = period_bounds(periods)
    member = membership(years.index, bounds)
    t, y = years.index.to_numpy(float), years["value"].to_numpy()
    rows = []
    for k, label in enumerate(bounds[0]):
        inside = member == k
        row = {"label": label, "mean": np.nan, "lower": np.nan, "upper": np.nan, "n_years": int(inside.sum())}
        if inside.sum() >= MIN_YEARS:
            found = summary(ar1_regression(t[inside], y[inside], np.ones((inside.sum(), 1))), np.ones(1))
            row |= {"mean": found["difference"], "lower": found["lower"], "upper": found["upper"]}
        elif inside.any():
            row["mean"] = y[inside].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def block_bootstrap(
    fits: pd.DataFrame,
    periods: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    control: pd.DataFrame | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Contrasts of `regime_test` with intervals by the stationary bootstrap, which assumes no model of memory.

    The yearly values less their period's mean are resampled in blocks of consecutive years, of geometric length,
    on a circle (Politis and Romano 1994, doi:10.1080/01621459.1994.10476870), and put back on the means; the interval
    is widened by the ratio of Student's t to the normal.  A few years hold few blocks: where years are correlated, the
    intervals are still too narrow (data/calibration/recession_bootstrap.csv), so it is for comparison.

    Parameters
    ----------
    fits, periods, value, control
        As in `regime_test`.
    draws, seed : int
        Number of resamples and their seed.

    Returns
    -------
    pandas.DataFrame
        ``value, period_a, period_b, difference, lower, upper`` (basic bootstrap interval), NaN with under 5 years.
    """
    years = control_difference(fits, control, value)
    labels, *_ = bounds = period_bounds(periods)
    member = membership(years.index, bounds)
    y, member = years["value"].to_numpy()[member >= 0], member[member >= 0]
    count = np.bincount(member, minlength=len(labels))
    with np.errstate(invalid="ignore", divide="ignore"):  # a period of one year or none is not used
        mean = np.bincount(member, y, minlength=len(labels)) / count
        # e = (y - mean) sqrt(n / (n - 1)): residuals of n years about their own mean are too small by this
        residual = (y - mean[member]) * np.sqrt(count / (count - 1.0))[member]
    place = stationary_blocks(np.random.default_rng(seed), len(y), draws)
    drawn = np.full((len(labels), draws), np.nan)
    for k in np.flatnonzero(count >= MIN_YEARS):
        drawn[k] = residual[place[:, member == k]].mean(axis=1)
    rows, tail = [], (1 - LEVEL) / 2
    for i, j in combinations(range(len(labels)), 2):
        shift = mean[j] - mean[i]
        # t_{n-1} / z with the n years of the shorter period
        stretch = special.stdtrit(max(min(count[i], count[j]) - 1, 1), 1 - tail) / special.ndtri(1 - tail)
        low, high = stretch * np.quantile(drawn[j] - drawn[i], [tail, 1 - tail])
        known = np.isfinite(low)
        rows.append((value, labels[i], labels[j], shift if known else np.nan, shift - high, shift - low))
    return pd.DataFrame(rows, columns=["value", "period_a", "period_b", "difference", "lower", "upper"])


def stationary_blocks(rng, n, draws, mean_block=3.0):
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


def _covariates(fits, covariates):
    """Covariates by year, or None."""
    if covariates is None:
        return None
    if isinstance(covariates, pd.DataFrame):
        return covariates.astype(float)
    missing = [c for c in covariates if c not in fits]
    if missing:
        raise ValueError(f"covariates: columns {missing} not in fits, found {list(fits.columns)}")
    return fits[list(covariates)].astype(float).groupby(pd.DatetimeIndex(fits["start"]).year).mean()


def period_bounds(periods):
    """Labels, first and last day of the periods in order of time, checked."""
    missing = {"label", "start", "end"} - set(periods.columns)
    if missing:
        raise ValueError(f"periods: columns {sorted(missing)} missing, found {list(periods.columns)}")
    start, end = (pd.to_datetime(periods[c]).to_numpy("datetime64[D]").copy() for c in ("start", "end"))
    start[np.isnat(start)], end[np.isnat(end)] = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")
    order = np.argsort(start, kind="stable")
    labels = [str(periods["label"].iloc[i]) for i in order]
    start, end = start[order], end[order]
    if (end < start).any():
        raise ValueError(f"periods: {labels[int(np.argmax(end < start))]} ends before it starts")
    if (start[1:] <= end[:-1]).any():
        k = int(np.argmax(start[1:] <= end[:-1]))
        raise ValueError(f"periods: {labels[k]} and {labels[k + 1]} overlap")
    if len(set(labels)) != len(labels):
        raise ValueError(f"periods: labels are not unique: {labels}")
    return labels, start, end


def membership(years, bounds):
    """Per year, the period that holds its middle (-1: none)."""
    _, start, end = bounds
    middle = (np.asarray(years, np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]") + 182
    member = np.full(len(middle), -1)
    for k in range(len(start)):
        member[(middle >= start[k]) & (middle <= end[k])] = k
    return member


def lagged_correlation(first: pd.Series, second: pd.Series, max_lag: int = 5) -> pd.DataFrame:
    """Correlation of two yearly series at lags, both detrended, and the 95 % limit of unrelated series.

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
    first, second = (_detrended(s.dropna().astype(float)) for s in (first, second))
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
        # Fisher: atanh(r) has the variance 1 / (n - 3)
        rows.append((lag, r, np.tanh(z / np.sqrt(effective - 3)) if known else np.nan, n))
    return pd.DataFrame(rows, columns=["lag", "correlation", "limit", "n"]).set_index("lag")


def _detrended(yearly):
    """A yearly series less its straight line."""
    t = yearly.index.to_numpy(float)
    if len(t) < 3:
        return yearly * np.nan
    return yearly - np.polyval(np.polyfit(t - t.mean(), yearly, 1), t - t.mean())


def _lag_one(yearly):
    """Correlation of consecutive years."""
    both = yearly.index.intersection(yearly.index - 1)
    return float(np.corrcoef(yearly[both], yearly[both + 1])[0, 1]) if len(both) >= 4 else 0.0
