"""Recession on records as they come: gaps, leap days, dry rivers, short records, other climates; its cross-checks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recession import PERIODS, drain, points, record, yearly

from helpers import recession


def fits_of(q, **changes):
    return recession.fit(recession.derivative(recession.extract_events(q, **changes)))


# ---- published numbers ----------------------------------------------------------------------------------

# median event of synthetic 30 years, by TOSSH and its ETS variant (fraction 0.1, semilog): a, b true and found
PUBLISHED = [
    ("brutsaert_nieber", 0.05, 1.5, 0.04998, 1.4995),
    ("brutsaert_nieber", 0.02, 2.0, 0.0200, 1.9992),
    ("brutsaert_nieber", 0.05, 1.0, 0.0500, 1.0000),
    ("backward", 0.05, 1.5, 0.0519, 1.5215),
    ("backward", 0.02, 2.0, 0.0203, 2.0389),
    ("backward", 0.05, 1.0, 0.0513, 1.0000),
    ("exponential", 0.05, 1.5, 0.04997, 1.4992),
    ("exponential", 0.02, 2.0, 0.0200, 1.9990),
    ("exponential", 0.05, 1.0, 0.0500, 1.0000),
]


@pytest.mark.parametrize(("scheme", "a", "b", "found_a", "found_b"), PUBLISHED)
def test_median_event_is_that_of_published_tools(scheme, a, b, found_a, found_b):
    """The rule and schemes of TOSSH give its numbers, biases included, on 30 years of the same kind."""
    events = recession.extract_events(record(a, b, years=30), "tossh2021")
    options = {"fraction": 0.1, "gamma": "semilog"} if scheme == "exponential" else {}
    fits = recession.fit(recession.derivative(events, scheme, **options))
    assert np.exp(np.log(fits["a"]).median()) == pytest.approx(found_a, rel=0.006)
    assert fits["b"].median() == pytest.approx(found_b, rel=0.006)


def test_cloud_collapses_as_far_as_published():
    """With ln a of events varying by 0.7, the published cloud slope for a true 1.5 is 1.12; ours is below 1.3 too."""
    p = points(record(spread=0.7, years=30), "brutsaert_nieber")
    assert recession.fit(p, "cloud_ols")["b"].iloc[0] == pytest.approx(1.12, abs=0.15)


# ---- properties -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(-2, 2), st.sampled_from(sorted(recession.RULES)))
def test_a_shift_of_the_calendar_changes_nothing(cycles, rule):
    """Moved by whole calendar cycles (28 years), the events and fits are the same."""
    q = record(years=3, spread=0.3, noise=0.01, digits=2)
    later = q.set_axis(q.index + pd.DateOffset(years=28 * cycles))
    one, other = (recession.extract_events(x, rule) for x in (q, later))
    assert one["q"].tolist() == other["q"].tolist() and one["season"].tolist() == other["season"].tolist()
    assert (other["time"] == one["time"] + pd.DateOffset(years=28 * cycles)).all()
    fits, moved = (recession.fit(recession.derivative(x)) for x in (one, other))
    np.testing.assert_allclose(moved[["a", "b"]], fits[["a", "b"]], rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.0, 0.3), st.sampled_from(sorted(recession.RULES)))
def test_no_missing_or_ice_day_is_inside_an_event(seed, share, rule):
    """Whatever days are missing or icy, events hold none, and no difference is taken across one."""
    rng = np.random.default_rng(seed)
    q = record(years=2, noise=0.02, seed=seed % 50)
    hole, ice = rng.random((2, q.size)) < share
    q[hole] = np.nan
    if q.notna().sum() < 10:
        return
    events = recession.extract_events(q, rule, ice=ice)
    rows = q.index.get_indexer(events["time"])
    assert events["q"].notna().all() and not (hole | ice)[rows].any()
    for _, event in events.groupby("event"):
        days = q.index.get_indexer(event["time"])
        assert not (hole | ice)[days[0] : days[-1] + 1].any()


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False))
def test_fits_do_not_depend_on_the_order_of_events(random):
    """Shuffled whole events give the same fit of each, and the same pooled b."""
    p = points(record(years=2, spread=0.3), "exponential")
    order = p["event"].unique().tolist()
    random.shuffle(order)
    mixed = pd.concat([p[p["event"] == e] for e in order])
    for method in ("per_event", "shared_b"):
        one, other = (recession.fit(x, method).set_index("event").sort_index() for x in (p, mixed))
        np.testing.assert_allclose(other[["a", "b", "b_std"]], one[["a", "b", "b_std"]], rtol=1e-8)


# ---- records as they come -------------------------------------------------------------------------------


def test_a_river_that_runs_dry():
    """Zero flow ends an event where it counts as missing, is never fitted, and does not spoil the reference flow."""
    q = record(years=6)
    q[q < q.quantile(0.3)] = 0.0
    for rule in recession.RULES:
        fits = recession.fit(recession.derivative(recession.extract_events(q, rule)))
        fits = fits[fits["n"] >= 3]
        assert len(fits) > 10 and np.isfinite(fits[["a", "b"]]).all().all() and (fits["q_min"] > 0).all()
    assert recession.reference_flow(q) > 0
    assert fits_of(q)["b"].median() == pytest.approx(1.5, rel=0.05)


def test_leap_days_are_days():
    """An event across 29 February is one; where the file has none that day it is two, with no step of two days."""
    fall = pd.Series(drain(8.0, 0.05, 1.5, 40), pd.date_range("2004-02-10", periods=40, name="time"))
    q = pd.concat([pd.Series([1.0, 2.0], pd.date_range("2004-02-08", periods=2)), fall]).asfreq("D")
    assert recession.extract_events(q, min_days_winter=None)["event"].nunique() == 1
    q["2004-02-29"] = np.nan
    events = recession.extract_events(q, min_days_winter=None)
    assert events["event"].nunique() == 2
    p = recession.derivative(events, "brutsaert_nieber")
    np.testing.assert_allclose(-p["dqdt"], 0.05 * p["q_mid"] ** 1.5, rtol=0.01)


def test_missing_years_and_months_only_take_their_own_events():
    """With two years and every February missing, the other events stay, and the years are counted as they are."""
    q = record(years=12, spread=0.3)
    holed = q.copy()
    holed[holed.index.year.isin([1995, 1996]) | (holed.index.month == 2)] = np.nan
    whole, left = fits_of(q), fits_of(holed)
    calm = left[~left["start"].dt.month.isin([1, 2, 3])]
    same = whole.set_index("start").loc[calm["start"]]
    assert len(calm) > 40
    assert np.mean(np.isclose(same["b"], calm["b"].to_numpy(), rtol=1e-9)) > 0.95
    periods = PERIODS.assign(start=["1990-01-01", "1996-01-01"], end=["1995-12-31", None])
    row = recession.regime_test(left.assign(k_ref=recession.k_ref(left, 1.0)), periods).iloc[0]
    assert (row["n_years_a"], row["n_years_b"]) == (5, 5) and np.isfinite(row["difference"])


def test_three_years_are_not_testable_anywhere():
    """A record of three years has events and fits, and every test of change says NaN, not a number."""
    q = record(years=3)
    fits = fits_of(q).assign(k_ref=lambda f: recession.k_ref(f, 1.0))
    periods = PERIODS.assign(start=[None, "1991-06-01"], end=["1991-05-31", None])
    assert len(fits) > 20
    row = recession.regime_test(fits, periods).iloc[0]
    assert np.isnan(row["difference"]) and "not testable" in row["note"]
    assert np.isnan(recession.trend_test(fits)["slope"])
    assert recession.change_year(fits).empty
    assert recession.block_bootstrap(fits, periods)[["difference", "lower", "upper"]].isna().all().all()
    assert recession.period_means(fits, periods)[["lower", "upper"]].isna().all().all()
    assert recession.multiverse(q, 1.0, periods)["difference"].isna().all()
    lags = recession.lagged_correlation(*(pd.Series([1.0, 2.0, 1.5], range(3)) for _ in range(2)))
    assert lags["correlation"].isna().all()


def test_seasons_of_the_southern_hemisphere():
    """Where January is the warmer month the classes move by half a year: January is summer, July winter."""
    days = pd.date_range("2001-01-01", periods=730)
    warmth = pd.Series(10 * np.cos(2 * np.pi * (days.day_of_year - 15) / 365), days)
    south, north = recession.season_classes(warmth), recession.season_classes(-warmth)
    assert north == recession.season_classes(None)
    assert {name: int(south[name][:2]) for name in south} == {
        "spring": 10,
        "summer": 1,
        "autumn": 3,
        "winter": 5,
    }
    events = recession.extract_events(record(years=4), seasons=south)
    month = events.groupby("event")["time"].first().dt.month
    season = events.groupby("event")["season"].first()
    assert set(season[month == 2]) == {"summer"} and set(season[month == 7]) == {"winter"}


def test_a_wet_climate_says_that_rain_ends_its_events():
    """Rain every other day leaves no event and the audit says why; without the driver events are found."""
    q = record(years=3)
    rain = np.where(np.arange(q.size) % 2, 8.0, 0.0)
    events = recession.extract_events(q, precipitation=rain)
    assert events.empty and events.attrs["n_candidates"] == len(events.attrs["audit"]["reason"])
    assert len(recession.extract_events(q)) > 100
    with pytest.raises(ValueError, match="none has falling flow"):
        recession.fit(recession.derivative(events))


def test_antecedent_rain_decays_and_leaves_the_day_itself_out():
    """A single rain of 10 mm counts 9 mm the next day, 8.1 mm the day after, and nothing on its own day."""
    p = pd.Series([0.0, 10.0, np.nan, 0.0], pd.date_range("2001-01-01", periods=4))
    np.testing.assert_allclose(recession.antecedent_precipitation(p), [0, 0, 9.0, 8.1])
    with pytest.raises(ValueError, match="decay"):
        recession.antecedent_precipitation(p, decay=1.0)


# ---- cross-checks ---------------------------------------------------------------------------------------


def test_bootstrap_centres_on_the_difference_of_period_means():
    """Independent years: the interval is about that of the t test, and holds a large step."""
    fits = yearly(np.random.default_rng(0), shift=-0.6, rho=0.0)
    boot = recession.block_bootstrap(fits, PERIODS).iloc[0]
    model = recession.regime_test(fits, PERIODS).iloc[0]
    assert boot["lower"] < -0.6 < boot["upper"] < 0
    assert boot["difference"] == pytest.approx(model["difference"], abs=0.05)
    assert 0.5 < (boot["upper"] - boot["lower"]) / (model["upper"] - model["lower"]) < 1.1
    again = recession.block_bootstrap(fits, PERIODS).iloc[0]
    assert boot["lower"] == again["lower"], "the same seed gives the same interval"


def test_period_means_hold_the_mean_and_widen_in_short_periods():
    """The mean of each period is inside its interval; nine years know it less well than twenty."""
    table = recession.period_means(yearly(np.random.default_rng(2), shift=-0.5), PERIODS).set_index("label")
    assert (table["lower"] < table["mean"]).all() and (table["mean"] < table["upper"]).all()
    width = table["upper"] - table["lower"]
    assert width["after"] > width["before"] and table["n_years"].tolist() == [20, 9]
    assert table.loc["after", "lower"] < -0.5 < table.loc["after", "upper"]


def test_a_leading_series_is_found_at_its_lag_and_nowhere_by_chance():
    """A series that follows by two years peaks at +2 beyond the limit; unrelated series rarely cross it."""
    rng = np.random.default_rng(5)
    years = np.arange(1980, 2020)
    first = pd.Series(rng.normal(size=40), years)
    second = pd.Series(np.r_[0, 0, first.to_numpy()[:-2]] + 0.3 * rng.normal(size=40), years)
    found = recession.lagged_correlation(first, second)
    assert found["correlation"].idxmax() == 2 and found.loc[2, "correlation"] > found.loc[2, "limit"]
    crossed = 0
    for _ in range(200):
        table = recession.lagged_correlation(*(pd.Series(rng.normal(size=40), years) for _ in range(2)))
        crossed += (table["correlation"].abs() > table["limit"]).any()
    assert crossed / 200 <= 0.09


def test_slope_on_a_measured_series():
    """ln k_ref that falls by 0.05 per unit of thaw depth is found with that slope inside its interval."""
    rng = np.random.default_rng(6)
    fits = yearly(rng, sd=0.1)
    depth = pd.Series(50 + 5 * rng.normal(size=29), range(1990, 2019))
    fits["ln_k_ref"] -= 0.05 * depth.loc[fits["start"].dt.year].to_numpy()
    row = recession.trend_test(fits, against=depth)
    assert row["lower"] < -0.05 < row["upper"] < 0 and row["n_years"] == 29
    short = recession.trend_test(fits, against=depth.iloc[:4])
    assert np.isnan(short["slope"]) and short["n_years"] == 4


# ---- noise, thickness -----------------------------------------------------------------------------------


def test_rating_error_has_the_size_and_memory_it_says():
    """Sd and lag-1 correlation of the error are those asked for."""
    error = recession.rating_error(np.random.default_rng(0), 200_000, 0.04, 0.9)
    assert error.std() == pytest.approx(0.04, rel=0.03)
    assert np.corrcoef(error[1:], error[:-1])[0, 1] == pytest.approx(0.9, abs=0.01)


def test_extrapolation_takes_the_errors_own_bias_off():
    """The variance of ln Q, raised by the error by exactly its own variance, comes back without it."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=20_000)
    q = pd.Series(np.exp(truth + recession.rating_error(rng, truth.size, 0.3, 0.5)))
    found = recession.noise_extrapolation(lambda x: np.var(np.log(x)), q, std=0.3, memory=0.5).iloc[0]
    assert found["as_measured"] == pytest.approx(np.var(truth) + 0.09, abs=0.02)
    assert found["bias"] == pytest.approx(0.09, abs=4 * found["corrected_std"] + 0.005)
    assert abs(found["corrected"] - np.var(truth)) < 0.25 * (found["as_measured"] - np.var(truth))


def test_theory_is_consistent_with_itself():
    """b = (2n+3)/(n+2) and D^(-n/(n+2)) at n = 1; a change of k that a thickness gives is given back."""
    theory = recession.THEORY.set_index("regime")
    n = 1
    row = theory.loc["late, conductivity falls with depth"]
    assert row["b"] == pytest.approx((2 * n + 3) / (n + 2)) and row["thickness_power"] == pytest.approx(
        -n / (n + 2)
    )
    assert theory["thickness_power"].apply(np.sign).tolist() == [-1, 0, -1, 1]
    for power in (-3.0, -1 / 3, 1.0):
        assert recession.thickness_factor(power * np.log(1.3), power) == pytest.approx(1.3)
    assert np.isnan(recession.thickness_factor(-0.2, 0.0))


def test_low_flow_trend_is_quantile_regression():
    """The slope is that of the quantile regression, and its sd is about the scatter of repeats."""
    from statsmodels.regression.quantile_regression import QuantReg

    rng = np.random.default_rng(3)
    years = np.arange(1980, 2020)
    slopes, stated = [], []
    for _ in range(40):
        flow = pd.Series(1 + 0.01 * (years - 2000) + 0.1 * rng.normal(size=40), years)
        slope, std = recession.low_flow_trend(flow)
        slopes.append(slope)
        stated.append(std)
    expected = QuantReg(flow.to_numpy(), np.c_[np.ones(40), years - 2000]).fit(q=0.25).params[1]
    assert slope == pytest.approx(expected, abs=1e-4)
    assert np.mean(slopes) == pytest.approx(0.01, abs=4 * np.std(slopes) / np.sqrt(40))
    assert 0.6 < np.mean(stated) / np.std(slopes) < 1.6
    with pytest.raises(ValueError, match="ten years"):
        recession.low_flow_trend(flow.iloc[:9])


def test_drivers_are_aligned_by_calendar_day_and_unknown_days_are_no_dry_days():
    """Noon stamps change nothing; a driver of part of the record blocks the rest; one of no day is refused."""
    days = pd.date_range("2001-01-01", periods=120)
    q = pd.Series(np.tile(10 * 0.9 ** np.arange(30), 4), days)
    rain = pd.Series(np.where(np.arange(120) % 30 == 0, 5.0, 0.0), days)
    rule = {"min_days": 4, "min_days_winter": None}
    known = recession.extract_events(q, precipitation=rain, **rule)
    noon = recession.extract_events(q, precipitation=rain.set_axis(days + pd.Timedelta(hours=12)), **rule)
    pd.testing.assert_frame_equal(known, noon)
    half = recession.extract_events(q, precipitation=rain.iloc[:53], **rule)
    assert known["time"].max() == days[-2] and half["time"].max() < days[53]
    short = recession.extract_events(q, precipitation=rain.iloc[:33], **rule)
    assert "no rain data" in short.attrs["audit"]["ended_by"]
    mild = pd.Series(5.0, days[:53])
    cold = recession.extract_events(q, precipitation=rain, temperature=mild, **rule)
    assert cold["time"].max() < days[53]
    for wrong in (rain * np.nan, rain.set_axis(days + pd.Timedelta(days=4000))):
        with pytest.raises(ValueError, match="precipitation: no value on any day"):
            recession.extract_events(q, precipitation=wrong)
