"""Functional forms of surface displacement in time: what a model of the ground may look like.

A :class:`Model` is a list of columns, each a function of the date. Intercept and rate (the coefficient of time
in years) are always there; seasonal columns, degree-day shapes and a user's own come between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr

DAYS_PER_YEAR = 365.25
NAMES = ("linear", "linear+annual", "linear+annual+semiannual", "linear+degree_day")

Column = Callable[[pd.DatetimeIndex], np.ndarray]


def years(dates: Sequence | np.ndarray, since: str = "2000-01-01") -> np.ndarray:
    """Decimal years since a date (365.25 days each), float64, one per date."""
    return np.asarray((pd.DatetimeIndex(dates) - pd.Timestamp(since)) / pd.Timedelta(days=DAYS_PER_YEAR))


def annual(t: np.ndarray) -> np.ndarray:
    """Columns of the annual term at times in years: sin(2 pi t) and cos(2 pi t), (date, 2)."""
    return np.column_stack([np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)])


def linear_annual_rate(series: xr.DataArray) -> xr.DataArray:
    """Rate (per year) of complete series (time, y, x) by least squares with an offset and an annual term."""
    t = (series.time.values - series.time.values[0]) / np.timedelta64(1, "D") / DAYS_PER_YEAR
    # series = rate t + offset + a sin(2 pi t) + b cos(2 pi t): the first row of the pseudoinverse gives the rate
    weights = np.linalg.pinv(np.column_stack([t, np.ones_like(t), annual(t)]))[0]
    return xr.zeros_like(series[0], dtype=float).drop_vars("time") + np.tensordot(weights, series.values, 1)


def mm_per_radian(wavelength_m: float) -> float:
    """Line-of-sight displacement per phase (mm/rad): 1000 lambda / (4 pi)."""
    return 1000 * wavelength_m / (4 * np.pi)


def _wave(kind: Callable, cycles_per_year: int) -> Column:
    return lambda dates: kind(2 * np.pi * cycles_per_year * years(dates))


@dataclass(frozen=True)
class Model:
    """Displacement in time: intercept + rate * t + further columns.

    Parameters
    ----------
    name : str
        Written to the attribute ``model`` of what is estimated with it.
    columns : mapping of str to function
        Further columns: function of a ``DatetimeIndex``, returns one float per date. Intercept and rate must not be
        among them: both are always fitted.
    seasonal : tuple of str
        Those columns whose sum is the seasonal cycle, from which ``peak_to_peak`` is computed.

    Examples
    --------
    >>> step = Model.named("linear+annual").add("step_2016", lambda d: (d >= "2016-07-01").astype(float))
    >>> step.parameters
    ('intercept', 'annual_sin', 'annual_cos', 'step_2016', 'rate')
    """

    name: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    seasonal: tuple[str, ...] = ()

    def __post_init__(self):
        reserved = {"intercept", "rate"} & set(self.columns)
        if reserved:
            raise ValueError(
                f"model {self.name!r}: {sorted(reserved)} are fitted always and cannot be given as columns"
            )
        unknown = set(self.seasonal) - set(self.columns)
        if unknown:
            raise ValueError(f"model {self.name!r}: seasonal names {sorted(unknown)} that are no columns")

    @classmethod
    def named(cls, name: str, temperature: xr.DataArray | None = None) -> Model:
        """One of ``NAMES``; ``"linear+degree_day"`` needs the observed daily temperature (see `degree_day_shape`)."""
        annual = {"annual_sin": _wave(np.sin, 1), "annual_cos": _wave(np.cos, 1)}
        semiannual = {"semiannual_sin": _wave(np.sin, 2), "semiannual_cos": _wave(np.cos, 2)}
        if name == "linear":
            return cls(name)
        if name == "linear+annual":
            return cls(name, annual, tuple(annual))
        if name == "linear+annual+semiannual":
            return cls(name, annual | semiannual, tuple(annual | semiannual))
        if name == "linear+degree_day":
            if temperature is None:
                raise ValueError(
                    "model 'linear+degree_day' needs temperature=, a daily DataArray (time) in degC"
                )
            return cls(name, {"degree_day": degree_day_shape(temperature)}, ("degree_day",))
        raise ValueError(f"model {name!r} is unknown; known: {', '.join(NAMES)}, None, or a timefunc.Model")

    def add(self, name: str, column: Column, *, seasonal: bool = False) -> Model:
        """The same model with one more column."""
        return Model(
            f"{self.name}+{name}",
            dict(self.columns) | {name: column},
            (*self.seasonal, name) if seasonal else self.seasonal,
        )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the coefficients in the order of `design`: intercept first, rate last."""
        return ("intercept", *self.columns, "rate")

    def design(self, dates) -> np.ndarray:
        """Value of every column on every date, (date, parameter) float64; rate column in years since 2000."""
        dates = pd.DatetimeIndex(dates)
        extra = [self._evaluate(name, dates) for name in self.columns]
        return np.column_stack([np.ones(len(dates)), *extra, years(dates)])

    def cycle(self, dates) -> np.ndarray | None:
        """Seasonal columns over one typical year, (day, seasonal column): the year in the middle of ``dates``.

        None for one annual wave, whose range needs no table.
        """
        dates = pd.DatetimeIndex(dates)
        if self.seasonal == ("annual_sin", "annual_cos"):
            return None
        if self.seasonal == ("degree_day",):
            return np.array([[0.0], [-1.0]])  # the column's mean seasonal range is 1 by construction
        middle = (dates[0] + (dates[-1] - dates[0]) / 2).year
        days = pd.date_range(f"{middle}-01-01", f"{middle}-12-31", freq="5D")
        return np.column_stack([self._evaluate(name, days) for name in self.seasonal])

    def _evaluate(self, name: str, dates: pd.DatetimeIndex) -> np.ndarray:
        value = np.asarray(self.columns[name](dates), dtype="float64")
        if value.shape != (len(dates),) or not np.isfinite(value).all():
            raise ValueError(
                f"model {self.name!r}: column {name!r} must return one finite number per date; "
                f"got shape {value.shape} for {len(dates)} dates, {np.count_nonzero(~np.isfinite(value))} not finite"
            )
        return value


def parse(model: str | Model | None, temperature: xr.DataArray | None = None) -> Model | None:
    """A `Model` from what `sbas.invert` accepts: a name, a `Model`, or None."""
    if model is None or isinstance(model, Model):
        return model
    if isinstance(model, str):
        return Model.named(model, temperature)
    raise ValueError(f"model must be None, a name or a timefunc.Model, not {type(model).__name__}")


def degree_days(temperature: xr.DataArray, *, onset_days: int = 5) -> pd.DataFrame:
    """Thawing and freezing degree days since the last onset, from daily temperature.

    Thaw sets in on the first of ``onset_days`` consecutive days above 0 degC, freezing on the first of as many below
    (after Fan et al. 2025, ISPRS J. 222, 167-185). Freezing is looked for from 1 July on, so that a cold spell in
    spring does not end the thaw season.

    Parameters
    ----------
    temperature : DataArray
        Dim ``time``, degC, daily or finer (averaged to days). Up to ten days in a row may be missing.

    Returns
    -------
    DataFrame
        Daily index; ``thaw`` and ``freeze`` in degC d (freeze positive), ``thaw_total``: what the last complete or
        running thaw season reached.
    """
    series = _daily(temperature)
    warm = _run_starts(series > 0, onset_days)
    cold = _run_starts(series < 0, onset_days) & (series.index.month >= 7)
    thaw = freeze = total = 0.0
    frozen, rows = True, np.empty((len(series), 3))
    for day, (value, is_warm, is_cold) in enumerate(zip(series.to_numpy(), warm, cold, strict=True)):
        if frozen and is_warm and series.index[day].month < 10:
            frozen, thaw, freeze, total = False, 0.0, 0.0, 0.0
        elif not frozen and is_cold:
            frozen, freeze, total = True, 0.0, thaw
        if frozen:
            freeze += max(-value, 0.0)
        else:
            thaw += max(value, 0.0)
            total = thaw
        rows[day] = (0.0 if frozen else thaw), freeze if frozen else 0.0, total
    return pd.DataFrame(rows, index=series.index, columns=["thaw", "freeze", "thaw_total"])


def degree_day_shape(temperature: xr.DataArray, *, freeze_ratio: float = 1.0) -> Column:
    """A seasonal column from temperature: sqrt(thawing degree days) down, sqrt(freezing degree days) back up.

    The ground subsides with the square root of the thawing degree days (Liu et al. 2010, doi:10.1029/2009JF001547) and
    heaves with that of the freezing degree days until what thawed is frozen again (Fan et al. 2025). Scaled so that
    the mean seasonal range is one: the coefficient is the mean thaw-season subsidence, positive = down in summer.

    Parameters
    ----------
    temperature : DataArray
        Observed daily temperature (time), degC; must begin before 1 January of the first year asked for.
    freeze_ratio : float
        Heave coefficient over subsidence coefficient.
    """
    table = degree_days(temperature)
    down = np.sqrt(table["thaw_total"]) - freeze_ratio * np.sqrt(table["freeze"])
    seasons = table["thaw"].groupby(table.index.year)
    whole = seasons.size() >= 365
    largest = np.sqrt(seasons.max()[whole])
    if not len(largest) or not largest.mean() > 0:
        raise ValueError(
            f"temperature {table.index[0].date()}..{table.index[-1].date()} holds no whole year with a thaw season: "
            "no degree-day shape can be scaled"
        )
    shape = -down.clip(lower=0.0) / largest.mean()

    def column(dates: pd.DatetimeIndex) -> np.ndarray:
        day = pd.DatetimeIndex(dates).normalize()
        needed = pd.Timestamp(day.min().year, 1, 1)
        if needed < shape.index[0] or day.max() > shape.index[-1]:
            raise ValueError(
                f"temperature covers {shape.index[0].date()}..{shape.index[-1].date()}, but the dates need "
                f"{needed.date()}..{day.max().date()} (degree days are counted from the first 1 January)"
            )
        return shape.reindex(day).to_numpy()

    return column


def peak_to_peak(
    coefficients: np.ndarray, covariance: np.ndarray, cycle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Size of the seasonal cycle with its positive bias removed, and its standard deviation.

    Noise makes the range of a fitted cycle too large on average; to second order the excess is half the trace of
    curvature times covariance. It is taken off the square, so that pure noise tends to zero.

    Parameters
    ----------
    coefficients : array (s, ...)
        Coefficients of the seasonal columns (mm).
    covariance : array (s, s, ...)
        Their covariance (mm2).
    cycle : array (day, s) or None
        The columns over one year (`Model.cycle`); None: sine and cosine of one wave.

    Returns
    -------
    size, std : arrays (...)
        mm, never negative; std is NaN where the size is below two standard deviations: not distinguished from noise.
    """
    coefficients, covariance = np.asarray(coefficients, float), np.asarray(covariance, float)
    size, std = (
        _wave_range(coefficients, covariance)
        if cycle is None
        else _table_range(coefficients, covariance, cycle)
    )
    return size, np.where(size >= 2 * std, std, np.nan)


def _wave_range(coefficients, covariance):
    sine, cosine = coefficients
    square = sine**2 + cosine**2
    along = sine**2 * covariance[0, 0] + 2 * sine * cosine * covariance[0, 1] + cosine**2 * covariance[1, 1]
    along = np.divide(along, square, out=np.zeros_like(square), where=square > 0)
    across = covariance[0, 0] + covariance[1, 1] - along
    return 2 * np.sqrt(np.maximum(square - across, 0.0)), 2 * np.sqrt(np.maximum(along, 0.0))


def _table_range(coefficients, covariance, cycle):
    curve = np.tensordot(cycle, coefficients, axes=1)
    top, bottom = curve.argmax(axis=0), curve.argmin(axis=0)
    gradient = np.moveaxis(cycle[top] - cycle[bottom], -1, 0)
    raw = (gradient * coefficients).sum(axis=0)
    variance = np.einsum("i...,ij...,j...->...", gradient, covariance, gradient)
    excess = 0.0
    if len(cycle) > 2:  # two rows are a fixed pair of days: linear in the coefficients, no curvature
        slope, bend = _derivatives(cycle)
        for where, sign in ((top, -1.0), (bottom, 1.0)):
            tangent = np.moveaxis(slope[where], -1, 0)
            curvature = np.einsum("...i,i...->...", bend[where], coefficients) * sign
            spread = np.einsum("i...,ij...,j...->...", tangent, covariance, tangent)
            excess = excess + 0.5 * np.divide(spread, curvature, out=np.zeros_like(raw), where=curvature > 0)
    size = np.sqrt(np.maximum(raw**2 - 2 * raw * excess, 0.0))
    return size, np.sqrt(np.maximum(variance, 0.0))


def _derivatives(cycle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second difference of a periodic table, per row."""
    ahead, behind = np.roll(cycle, -1, axis=0), np.roll(cycle, 1, axis=0)
    return (ahead - behind) / 2, ahead - 2 * cycle + behind


def _daily(temperature: xr.DataArray, longest_gap: int = 10) -> pd.Series:
    if "time" not in temperature.dims or temperature.ndim != 1:
        raise ValueError(f"temperature must have the one dim time, not {temperature.dims}")
    series = temperature.to_series().sort_index()
    if series.index.has_duplicates:
        raise ValueError(f"temperature repeats {series.index[series.index.duplicated()][0]}")
    if np.nanmedian(series) > 100:
        raise ValueError("temperature looks like kelvin (median above 100); convert it to degC")
    series = series.dropna()
    series = series.groupby(series.index.normalize()).mean()  # hourly values to days
    gaps = series.index.to_series().diff().dt.days
    if (gaps > longest_gap + 1).any():
        raise ValueError(f"temperature misses more than {longest_gap} days before {gaps.idxmax().date()}")
    return series.asfreq("D").interpolate("time")


def _run_starts(flag: pd.Series, length: int) -> np.ndarray:
    """True on days that begin ``length`` True days in a row."""
    ahead = flag[::-1].rolling(length, min_periods=length).sum()[::-1]
    return (ahead == length).to_numpy()
