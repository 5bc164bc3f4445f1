"""Functional forms: what a model of the ground may look like, and how large its season is."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import timefunc

DATES = pd.date_range("2017-01-05", periods=80, freq="12D")


def climate(start="2016-01-01", end="2020-12-31", mean=-3.0, amplitude=14.0, weather=0.0):
    time = pd.date_range(start, end)
    noise = np.random.default_rng(4).normal(0, 1, len(time)) * weather
    values = mean - amplitude * np.cos(2 * np.pi * (time.day_of_year - 20) / 365.25) + noise
    return xr.DataArray(np.asarray(values), {"time": time}, ["time"], attrs={"units": "degC"})


@pytest.mark.parametrize(
    ("name", "columns"), [("linear", 2), ("linear+annual", 4), ("linear+annual+semiannual", 6)]
)
def test_intercept_first_rate_last(name, columns):
    """Every model has an intercept and a rate in mm per year of 365.25 days."""
    model = timefunc.Model.named(name)
    design = model.design(DATES)
    assert design.shape == (80, columns) and (design[:, 0] == 1).all()
    assert model.parameters[0] == "intercept" and model.parameters[-1] == "rate"
    np.testing.assert_allclose(np.diff(design[:, -1]), 12 / 365.25)


@given(amplitude=st.floats(1, 50), day=st.integers(1, 360))
@settings(max_examples=30, deadline=None)
def test_annual_cycle_is_found_at_any_phase(amplitude, day):
    """Any cosine of one year lies in the span of the annual columns; its range is twice the amplitude."""
    design = timefunc.Model.named("linear+annual").design(DATES)
    truth = amplitude * np.cos(2 * np.pi * (timefunc.years(DATES) - day / 365.25)) - 7 * timefunc.years(DATES)
    coefficients = np.linalg.lstsq(design, truth, rcond=None)[0]
    assert coefficients[-1] == pytest.approx(-7, abs=1e-8)
    size, _ = timefunc.peak_to_peak(coefficients[1:3], np.zeros((2, 2)), None)
    assert size == pytest.approx(2 * amplitude, rel=1e-8)


def test_user_columns():
    """A user's column is fitted beside the others; what cannot be one is refused by name."""
    model = timefunc.Model.named("linear").add("step", lambda d: (d >= "2018-06-01").astype(float))
    assert model.parameters == ("intercept", "step", "rate")
    assert set(model.design(DATES)[:, 1]) == {0.0, 1.0}
    with pytest.raises(ValueError, match="rate"):
        timefunc.Model("wrong", {"rate": lambda d: np.ones(len(d))})
    with pytest.raises(ValueError, match="hole"):
        timefunc.Model("wrong", {"hole": lambda d: np.full(len(d), np.nan)}).design(DATES)
    with pytest.raises(ValueError, match="one finite number per date"):
        timefunc.Model("wrong", {"short": lambda d: np.ones(3)}).design(DATES)
    with pytest.raises(ValueError, match="season"):
        timefunc.Model("wrong", {}, ("season",))
    with pytest.raises(ValueError, match="quadratic"):
        timefunc.parse("quadratic")


# -- size of the season ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [False, True])
def test_positive_bias_of_noise_is_removed(table):
    """Over draws the raw range is too large, the reported one is unbiased within its Monte-Carlo error."""
    rng = np.random.default_rng(0)
    truth, covariance = np.array([3.0, 4.0]), np.array([[2.0, 0.5], [0.5, 1.5]])
    drawn = truth[:, None] + np.linalg.cholesky(covariance) @ rng.standard_normal((2, 20_000))
    days = pd.date_range("2018-01-01", "2018-12-31", freq="2D")
    cycle = timefunc.Model.named("linear+annual").design(days)[:, 1:3] if table else None
    size, std = timefunc.peak_to_peak(drawn, np.broadcast_to(covariance[..., None], (2, 2, 20_000)), cycle)
    raw = 2 * np.hypot(*drawn)
    assert raw.mean() > 10.25
    assert size.mean() == pytest.approx(10, abs=0.1)
    assert np.mean(np.abs(size - 10) < 1.96 * np.sqrt(4 * 2.0)) > 0.93
    assert np.nanmedian(std) == pytest.approx(size.std(), rel=0.1)


def test_noise_is_not_called_a_season():
    """Below two standard deviations the std is NaN: nine in ten draws of pure noise, and none of a clear season."""
    rng = np.random.default_rng(1)
    covariance = np.broadcast_to(np.eye(2)[..., None], (2, 2, 5000))
    noise = rng.standard_normal((2, 5000))
    size, std = timefunc.peak_to_peak(noise, covariance, None)
    assert np.isnan(std).mean() > 0.9
    assert size.mean() < 2 * np.hypot(*noise).mean() * 0.7
    assert np.isfinite(timefunc.peak_to_peak(noise + 10, covariance, None)[1]).all()


def test_table_and_closed_form_agree():
    """The range from a table of the year and from the two coefficients of a wave agree within the table's step."""
    rng = np.random.default_rng(2)
    coefficients, covariance = rng.normal(0, 20, (2, 50)), np.broadcast_to(np.eye(2)[..., None], (2, 2, 50))
    cycle = timefunc.Model.named("linear+annual").design(pd.date_range("2018-01-01", "2018-12-31"))[:, 1:3]
    wave, table = (timefunc.peak_to_peak(coefficients, covariance, c) for c in (None, cycle))
    np.testing.assert_allclose(wave[0], table[0], rtol=1e-2, atol=0.05)


def test_semiannual_cycle_of_the_middle_year():
    """A model with more than one wave has its range from a table over one year."""
    model = timefunc.Model.named("linear+annual+semiannual")
    cycle = model.cycle(DATES)
    assert cycle.shape == (74, 4) or cycle.shape == (73, 4)
    coefficients = np.array([10.0, 0.0, 3.0, 2.0])
    curve = model.design(pd.date_range("2018-01-01", "2018-12-31"))[:, 1:5] @ coefficients
    size, _ = timefunc.peak_to_peak(coefficients, np.zeros((4, 4)), cycle)
    assert size == pytest.approx(np.ptp(curve), rel=5e-3)


# -- degree days ------------------------------------------------------------------------------------------------------


def test_degree_days_of_a_step_climate():
    """150 days at +4 and the rest at -6: 600 degC d of thaw, freezing counted from the onset of cold."""
    time = pd.date_range("2018-01-01", "2018-12-31")
    warm = (time >= "2018-05-01") & (time < "2018-09-28")
    table = timefunc.degree_days(xr.DataArray(np.where(warm, 4.0, -6.0), {"time": time}, ["time"]))
    assert table["thaw"].max() == pytest.approx(600)
    assert table["freeze"].loc["2018-12-31"] == pytest.approx(6 * (~warm & (time > "2018-06-01")).sum())
    assert table["thaw"].loc["2018-04-30"] == 0 and table["thaw_total"].loc["2018-12-31"] == pytest.approx(
        600
    )


def test_cold_spell_in_spring_does_not_end_the_thaw():
    """Six frosty days in May leave the thaw season running."""
    series = climate().to_series()
    spell = series.copy()
    spell.loc["2018-06-01":"2018-06-06"] = -1.0
    table = timefunc.degree_days(spell.to_xarray())
    assert table["thaw"].loc["2018-06-07"] > 0 and table["freeze"].loc["2018-06-10"] == 0


def test_degree_day_shape_sinks_in_summer_and_comes_back():
    """Zero before thaw, lowest at freeze onset, back at zero in spring; mean seasonal range one."""
    column = timefunc.degree_day_shape(climate(weather=2.0))
    days = pd.date_range("2017-01-01", "2020-12-31")
    shape = pd.Series(column(days), index=days)
    ranges = shape.groupby(days.year).agg(lambda s: s.max() - s.min())
    assert ranges.mean() == pytest.approx(1, abs=0.03) and ranges.std() > 0
    lowest = shape.groupby(days.year).idxmin()
    falls_below_zero = 20 + 365.25 * np.arccos(-3 / 14) / (
        2 * np.pi
    )  # of the undisturbed climate, second half
    falls_below_zero = 40 + 365.25 - falls_below_zero
    assert all(abs(day.day_of_year - falls_below_zero) <= 15 for day in lowest)
    assert (shape[days.month == 4] == 0).all() and (shape <= 0).all()


def test_degree_day_shape_follows_the_year():
    """A warm summer sinks deeper by the square root of its degree days."""
    series = climate().to_series()
    warm = series + np.where(series.index.year == 2018, 3.0, 0.0)
    days = pd.date_range("2017-01-01", "2019-12-31")
    lowest = pd.Series(timefunc.degree_day_shape(warm.to_xarray())(days), days).groupby(days.year).min()
    thaw = timefunc.degree_days(warm.to_xarray())["thaw"]
    expected = np.sqrt(thaw.loc["2018"].max() / thaw.loc["2017"].max())
    assert lowest[2018] / lowest[2017] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        (climate() + 273.15, "kelvin"),
        (climate(start="2017-03-01"), "2017-01-01"),
        (climate(end="2018-06-01"), "cover"),
        (climate().where(climate()["time.month"] != 7), "misses more than"),
        (climate(mean=-30.0), "no whole year with a thaw season"),
        (climate().expand_dims(station=2), "one dim time"),
        (xr.concat([climate(), climate().isel(time=[5])], "time"), "repeats"),
    ],
)
def test_bad_temperature_is_named(temperature, message):
    """Kelvin, gaps, too short a record, no thaw, wrong dims: a ValueError that says which."""
    with pytest.raises(ValueError, match=message):
        timefunc.Model.named("linear+degree_day", temperature).design(DATES)


def test_hourly_temperature_is_averaged_to_days():
    """The same degree days from six-hourly values as from their daily means."""
    daily = climate()
    step = np.array([-3.0, 1.0, 4.0, -2.0])
    time = (daily["time"].values[:, None] + np.arange(4) * np.timedelta64(6, "h")).ravel()
    fine = xr.DataArray((daily.values[:, None] + step).ravel(), {"time": time}, ["time"])
    pd.testing.assert_frame_equal(timefunc.degree_days(fine), timefunc.degree_days(daily))


def test_short_gaps_of_temperature_are_interpolated():
    """A week without data changes the shape by less than a percent."""
    whole = climate()
    holed = whole.where(
        ~((whole["time"] > np.datetime64("2018-07-01")) & (whole["time"] < np.datetime64("2018-07-08")))
    )
    a, b = (timefunc.degree_day_shape(t)(DATES) for t in (whole, holed))
    np.testing.assert_allclose(a, b, atol=0.01)


def test_one_cycle_is_half_a_wavelength():
    """A phase of 2 pi is lambda / 2 in the line of sight."""
    assert 2 * np.pi * timefunc.mm_per_radian(0.056) == pytest.approx(28.0)
