"""Did the recession change between periods?  The year is the unit and its memory is modelled."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

#: Memory of the year effect that is considered (lag-1 correlation).  Negative memory is left out: it would
#: only narrow the intervals.
_RHO = np.linspace(0.0, 0.95, 20)
#: Their weight before the data speak: falls to nothing at full memory.  A flat weight costs power (0.77
#: against 0.83 at 20 + 9 years) for no gain in size there; see data/calibration/recession_size_power.csv.
_PRIOR = 1.0 - _RHO
MIN_YEARS = 5


def year_values(
    fits: pd.DataFrame,
    value: str = "ln_k_ref",
    *,
    statistic: str = "median",
    min_events: int = 1,
    year_start_month: int = 1,
) -> pd.DataFrame:
    """One value a year: the statistic over its events.

    Parameters
    ----------
    fits : pandas.DataFrame
        Columns ``start`` and `value`; ``ln_k_ref`` is made from ``k_ref`` if absent.
    statistic : {"median", "mean", "trimmed"}
        ``trimmed``: mean without the lowest and highest fifth.
    min_events : int
        Years with fewer are left out.
    year_start_month : int
        First month of the year; a year from October is named by its end.

    Returns
    -------
    pandas.DataFrame
        Index year; columns ``value``, ``n``.
    """
    if statistic not in ("median", "mean", "trimmed"):
        raise ValueError(f"statistic must be median, mean or trimmed, found {statistic!r}")
    years, values, n = year_statistic(_years(fits, year_start_month), _values(fits, value), statistic)
    out = pd.DataFrame({"value": values, "n": n}, index=pd.Index(years, name="year"))
    return out[out["n"] >= min_events]


def year_statistic(year, value, statistic="median"):
    """Years, the statistic of the finite values in each, and their number."""
    okay = np.isfinite(value)
    year, value = np.asarray(year)[okay], np.asarray(value, float)[okay]
    order = np.lexsort((value, year))
    years, first, n = np.unique(year[order], return_index=True, return_counts=True)
    value = value[order]
    if statistic == "median":  # values are in order within each year
        return years, 0.5 * (value[first + (n - 1) // 2] + value[first + n // 2]), n
    cut = (0.2 * n).astype(int) if statistic == "trimmed" else np.zeros_like(n)
    total = np.r_[0.0, np.cumsum(value)]
    return years, (total[first + n - cut] - total[first + cut]) / (n - 2 * cut), n


def regime_test(
    fits: pd.DataFrame,
    periods: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    control: pd.DataFrame | None = None,
    covariates: Sequence[str] | pd.DataFrame | None = None,
    statistic: str = "median",
    min_events: int = 1,
    year_start_month: int = 1,
    level: float = 0.95,
) -> pd.DataFrame:
    """Contrast periods of a recession number, with years as the independent unit and AR(1) memory.

    Each year gives one value (`year_values`).  The values follow a mean per period, the covariates and a
    year effect with lag-1 correlation rho (years without events leave a gap in it).  The contrast's
    distribution is that of generalised least squares, averaged over rho by its restricted likelihood (a weight
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
        Fits of a basin without the change: the yearly difference to it is tested.
    covariates : list of str or pandas.DataFrame, optional
        Columns of `fits`, averaged by year; or a table by year.  They are centred.
    statistic, min_events, year_start_month
        See `year_values`.
    level : float
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        A row per contrast of two periods: ``value, period_a, period_b, difference`` (b minus a), ``lower,
        upper, difference_std, p_value`` (two-sided), ``n_years_a, n_years_b, minimal_detectable`` (difference
        found with 80 % power at 5 %), ``rho`` and ``note``.  A period with under 5 years gives NaN and the
        note "not testable".

    Raises
    ------
    ValueError
        For missing columns, overlapping periods, or covariates that are constant or missing.
    """
    if value not in fits and not (value == "ln_k_ref" and "k_ref" in fits):
        raise ValueError(f"fits: no column {value!r}, found {list(fits.columns)}")
    years = less_control(fits, control, value, statistic, min_events, year_start_month)
    extra = _covariates(fits, covariates, year_start_month)
    if extra is not None:
        years = years.loc[years.index.intersection(extra.dropna().index)]
        extra = extra.loc[years.index]

    bounds = period_bounds(periods)
    labels, member = bounds[0], membership(years.index, bounds, year_start_month)
    testable, found = contrasts(
        years.index.to_numpy(), years["value"].to_numpy(), member, labels, extra, level
    )
    rows = []
    for a, b in combinations(labels, 2):
        n_a, n_b = (int(np.sum(member == labels.index(label))) for label in (a, b))
        row = {"value": value, "period_a": a, "period_b": b, "n_years_a": n_a, "n_years_b": n_b}
        if (a, b) in found:
            row |= found[(a, b)] | {"note": ""}
        else:
            short = " and ".join(label for label in (a, b) if label not in testable)
            row |= dict.fromkeys(_SUMMARY, np.nan) | {
                "note": f"not testable: under {MIN_YEARS} years in {short}"
            }
        rows.append(row)
    order = ["value", "period_a", "period_b", "difference", "lower", "upper", "difference_std", "p_value"]
    order += ["n_years_a", "n_years_b", "minimal_detectable", "rho", "note"]
    return pd.DataFrame(rows, columns=order)


def contrasts(years, values, member, labels, extra, level):
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
    model = _ar1_regression(np.asarray(years, float)[use], values[use], design)
    found = {}
    for i, j in combinations(range(len(testable)), 2):
        contrast = np.zeros(design.shape[1])
        contrast[i], contrast[j] = -1.0, 1.0
        found[(testable[i], testable[j])] = _summary(model, contrast, level)
    return testable, found


def trend_test(
    fits: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    against: pd.Series | None = None,
    control: pd.DataFrame | None = None,
    covariates: Sequence[str] | pd.DataFrame | None = None,
    statistic: str = "median",
    min_events: int = 1,
    year_start_month: int = 1,
    level: float = 0.95,
) -> pd.Series:
    """Linear trend of the yearly values, with the same memory model as `regime_test`.

    Parameters
    ----------
    against : pandas.Series, optional
        By year: the slope is that on this series (say, measured thaw depth) instead of on time.
    value, control, covariates, statistic, min_events, year_start_month, level
        As in `regime_test`.

    Returns
    -------
    pandas.Series
        ``value, slope`` (per year, or per unit of `against`), ``lower, upper, slope_std, p_value, n_years,
        minimal_detectable, rho``; all NaN with under 5 years.
    """
    years = less_control(fits, control, value, statistic, min_events, year_start_month)
    extra = _covariates(fits, covariates, year_start_month)
    for table in (extra, against):
        if table is not None:
            years = years.loc[years.index.intersection(table.dropna().index)]
    t = years.index.to_numpy(float)
    x = t if against is None else against.loc[years.index].to_numpy(float)
    result = dict.fromkeys(_SUMMARY, np.nan)
    if len(t) >= MIN_YEARS and np.ptp(x) > 0:
        design = np.c_[np.ones_like(t), x - x.mean()]
        if extra is not None:
            used = extra.loc[years.index]
            design = np.c_[design, (used - used.mean()).to_numpy(float)]
        model = _ar1_regression(t, years["value"].to_numpy(), design)
        result = _summary(model, np.eye(design.shape[1])[1], level)
    result = {"value": value, "n_years": len(t)} | result
    return pd.Series(result).rename({"difference": "slope", "difference_std": "slope_std"})


def change_year(
    fits: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    control: pd.DataFrame | None = None,
    statistic: str = "median",
    min_events: int = 1,
    year_start_month: int = 1,
) -> pd.DataFrame:
    """When a step is most likely, given that there is one.

    Parameters are those of `regime_test`.  Every year that leaves at least five on either side may be the
    first after the step; their weights are the restricted likelihoods of a step there, with AR(1) memory.

    Returns
    -------
    pandas.DataFrame
        Index ``year`` (first of the new level); ``probability`` (sums to 1), ``difference``, ``lower``, ``upper``;
        empty with under ten years.
    """
    years = less_control(fits, control, value, statistic, min_events, year_start_month)
    t, y = years.index.to_numpy(float), years["value"].to_numpy()
    rows = []  # none where under ten years have events
    for k in range(MIN_YEARS, len(t) - MIN_YEARS + 1):
        model = _ar1_regression(t, y, np.c_[np.ones_like(t), np.arange(len(t)) >= k])
        found = _summary(model, np.array([0.0, 1.0]), 0.95)
        rows.append((int(t[k]), model.log_evidence, found["difference"], found["lower"], found["upper"]))
    table = pd.DataFrame(rows, columns=["year", "probability", "difference", "lower", "upper"]).set_index(
        "year"
    )
    table["probability"] = np.exp(table["probability"] - table["probability"].max())
    table["probability"] /= table["probability"].sum()
    return table


def period_means(
    fits: pd.DataFrame,
    periods: pd.DataFrame,
    *,
    value: str = "ln_k_ref",
    statistic: str = "median",
    min_events: int = 1,
    year_start_month: int = 1,
    level: float = 0.95,
) -> pd.DataFrame:
    """Mean of the yearly values in each period, with the interval of the memory model of `regime_test`.

    Returns
    -------
    pandas.DataFrame
        ``label, mean, lower, upper, n_years``; the interval is NaN with under 5 years.
    """
    years = less_control(fits, None, value, statistic, min_events, year_start_month)
    labels, *_ = bounds = period_bounds(periods)
    member = membership(years.index, bounds, year_start_month)
    t, y = years.index.to_numpy(float), years["value"].to_numpy()
    rows = []
    for k, label in enumerate(labels):
        inside = member == k
        row = {"label": label, "mean": np.nan, "lower": np.nan, "upper": np.nan, "n_years": int(inside.sum())}
        if inside.sum() >= MIN_YEARS:
            model = _ar1_regression(t[inside], y[inside], np.ones((inside.sum(), 1)))
            found = _summary(model, np.ones(1), level)
            row |= {"mean": found["difference"], "lower": found["lower"], "upper": found["upper"]}
        elif inside.any():
            row["mean"] = y[inside].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def less_control(fits, control, value, statistic, min_events, year_start_month):
    """Yearly values less those of the control basin where both have them, or as they are without a control."""
    options = {"statistic": statistic, "min_events": min_events, "year_start_month": year_start_month}
    years = year_values(fits, value, **options)
    if control is None:
        return years
    other = year_values(control, value, **options)
    common = years.index.intersection(other.index)
    return years.loc[common].assign(value=years.loc[common, "value"] - other.loc[common, "value"])


def _values(fits, value):
    if value == "ln_k_ref" and value not in fits and "k_ref" in fits:
        return np.log(fits["k_ref"].to_numpy(float))
    if value not in fits or "start" not in fits:
        raise ValueError(f"fits: columns start and {value!r} are needed, found {list(fits.columns)}")
    return fits[value].to_numpy(float)


def _years(fits, year_start_month):
    start = pd.DatetimeIndex(fits["start"])
    return np.asarray(start.year + ((start.month >= year_start_month) & (year_start_month > 1)))


def _covariates(fits, covariates, year_start_month):
    """Covariates by year, or None."""
    if covariates is None:
        return None
    if isinstance(covariates, pd.DataFrame):
        return covariates.astype(float)
    missing = [c for c in covariates if c not in fits]
    if missing:
        raise ValueError(f"covariates: columns {missing} not in fits, found {list(fits.columns)}")
    return fits[list(covariates)].astype(float).groupby(_years(fits, year_start_month)).mean()


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


def membership(years, bounds, year_start_month):
    """Per year, the period that holds its middle (-1: none)."""
    _, start, end = bounds
    first = np.asarray(years, np.int64) - (year_start_month > 1)
    months = (first - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (year_start_month - 1)
    middle = months.astype("datetime64[D]") + 182
    member = np.full(len(first), -1)
    for k in range(len(start)):
        member[(middle >= start[k]) & (middle <= end[k])] = k
    return member


class Model(NamedTuple):
    """A regression with AR(1) errors over the grid of rho (first axis)."""

    weight: np.ndarray
    beta: np.ndarray
    inverse: np.ndarray
    variance: np.ndarray
    df: int
    log_evidence: float


def _ar1_regression(t, y, design):
    """Generalised least squares over a grid of rho: weights, coefficients, their scaled inverse, variance, df."""
    n, p = design.shape
    if n - p < 2 or np.linalg.matrix_rank(design) < p:
        raise ValueError(
            f"{n} years cannot carry {p} coefficients (too few years, or covariates that repeat the periods)"
        )
    # the AR(1) precision is tridiagonal: each year is whitened by the one before, across any gap
    phi = _RHO[:, None] ** np.diff(t)
    innovation = np.sqrt(1 - phi**2)
    data = np.c_[design, y]
    white = np.empty((len(_RHO), n, p + 1))
    white[:, 0] = data[0]
    white[:, 1:] = (data[1:] - phi[:, :, None] * data[:-1]) / innovation[:, :, None]
    x, z = white[:, :, :p], white[:, :, p]
    normal = x.swapaxes(1, 2) @ x
    inverse = np.linalg.inv(normal)
    beta = (inverse @ (x.swapaxes(1, 2) @ z[:, :, None]))[:, :, 0]
    rss = np.maximum(np.sum((z - np.einsum("kni,ki->kn", x, beta)) ** 2, axis=1), 1e-300)
    log_weight = -np.log(innovation).sum(1) - 0.5 * np.linalg.slogdet(normal)[1] - 0.5 * (n - p) * np.log(rss)
    weight = np.exp(log_weight - log_weight.max()) * _PRIOR
    evidence = log_weight.max() + np.log(weight.sum())
    return Model(weight / weight.sum(), beta, inverse, rss / (n - p), n - p, evidence)


_SUMMARY = ("difference", "lower", "upper", "difference_std", "p_value", "minimal_detectable", "rho")


def _summary(model, contrast, level):
    """Location, interval, p value and minimal detectable size of one contrast."""
    weight, beta, inverse, variance, df, _ = model
    center = beta @ contrast
    scale = np.sqrt(variance * np.einsum("i,kij,j->k", contrast, inverse, contrast))
    difference = float(weight @ center)

    spread = np.sqrt(weight @ (scale**2 * df / max(df - 2, 1) + (center - difference) ** 2))
    tail = (1 - level) / 2
    lower, upper, low, median, high, found = _quantiles(
        np.array([tail, 1 - tail, 0.025, 0.5, 0.975, 0.8]), weight, center, scale, df
    )
    p_zero = float(weight @ special.stdtr(df, -center / scale))
    return {
        "difference": difference,
        "lower": lower,
        "upper": upper,
        "difference_std": float(spread),
        "p_value": 2 * min(p_zero, 1 - p_zero),
        # half the 95 % interval, plus the distance that leaves a fifth of the repeats inside it
        "minimal_detectable": (high - low) / 2 + found - median,
        "rho": float(weight @ _RHO),
    }


def _quantiles(probability, weight, center, scale, df):
    """Quantiles of a mixture of t distributions, by Newton steps kept inside a shrinking bracket."""
    edge = special.stdtrit(df, probability)[:, None] * scale + center
    low, high = edge.min(axis=1), edge.max(axis=1)
    x = edge @ weight
    log_norm = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - 0.5 * np.log(df * np.pi)
    for _ in range(60):
        z = (x[:, None] - center) / scale
        error = special.stdtr(df, z) @ weight - probability
        high, low = np.where(error > 0, x, high), np.where(error < 0, x, low)
        density = (np.exp(log_norm - 0.5 * (df + 1) * np.log1p(z**2 / df)) / scale) @ weight
        with np.errstate(divide="ignore", invalid="ignore"):  # far in a tail the density is 0: then bisect
            step = x - error / density
        step = np.where((step > low) & (step < high), step, 0.5 * (low + high))
        if np.all(np.abs(step - x) <= 1e-10 * (high - low + scale.min())) or np.all(np.abs(error) < 1e-12):
            break
        x = step
    return [float(v) for v in x]
