"""Recession: exact power laws come back, known traps are shown, rules are exact, and tests keep their size."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers import recession
from helpers.recession.record import degree_day_snow, quantum

PERIODS = pd.DataFrame(
    {"label": ["before", "after"], "start": ["1990-01-01", "2010-01-01"], "end": ["2009-12-31", "2018-12-31"]}
)


def drain(x0, a, b, days):
    """Exact daily values of -dx/dt = a x^b from x0."""
    t = np.arange(days)
    if abs(b - 1) < 1e-12:
        return x0 * np.exp(-a * t)
    return (x0 ** (1 - b) + a * (b - 1) * t) ** (1 / (1 - b))


def record(a=0.05, b=1.5, *, years=12, spread=0.0, noise=0.0, digits=None, seed=0):
    """Daily flow: pulses of rain on a store that drains as a power law; ln a may vary between events."""
    rng = np.random.default_rng(seed)
    parts, x, total = [], 1.0, 365 * years
    while sum(map(len, parts)) < total:
        x += rng.exponential(3.0)
        # a rising limb of one day, so that events are told apart whatever the pulse
        q = drain(x, a * np.exp(spread * rng.normal()), b, int(rng.integers(8, 40)))
        parts.append(q)
        x = q[-1]
    q = np.concatenate(parts)[:total] * np.exp(noise * rng.normal(size=total))
    if digits is not None:
        q = np.round(q, digits)
    return pd.Series(q, pd.date_range("1990-01-01", periods=total, name="time"))


def series(values, start="2001-07-01"):
    return pd.Series(np.asarray(values, float), pd.date_range(start, periods=len(values), name="time"))


def points(q, scheme="exponential", rule="tossh2021", **changes):
    events = recession.extract_events(q, rule, **changes)
    if scheme == "variable_step":
        events["quantum"] = 1e-4
    return recession.derivative(events, scheme)


def yearly(rng, *, before=20, after=9, shift=0.0, rho=0.3, icc=0.3, sd=0.35, events=10):
    """Events of ln k_ref with a year effect of memory rho and share icc of the variance."""
    n = before + after
    effect = np.empty(n)
    effect[0] = rng.normal()
    for i in range(1, n):
        effect[i] = rho * effect[i - 1] + np.sqrt(1 - rho**2) * rng.normal()
    year = np.repeat(np.arange(2010 - before, 2010 + after), events)
    value = sd * (np.sqrt(icc) * np.repeat(effect, events) + np.sqrt(1 - icc) * rng.normal(size=n * events))
    start = pd.to_datetime({"year": year, "month": 8, "day": 1})
    return pd.DataFrame({"start": start, "ln_k_ref": value + shift * (year >= 2010)})


# ---- exact power laws -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(0.05, 1.5), (0.02, 2.0), (0.05, 1.0), (0.03, 0.7), (0.01, 2.8)])
@pytest.mark.parametrize(
    "scheme", ["brutsaert_nieber", "central", "variable_step", "exponential", "integrated"]
)
def test_exact_power_law_is_recovered(a, b, scheme):
    """Without noise the median event gives a and b within 1 %, by every unbiased scheme."""
    fits = recession.fit(points(record(a, b), scheme, rule="default"))
    assert len(fits) > 50
    assert np.exp(np.log(fits["a"]).median()) == pytest.approx(a, rel=0.01)
    assert fits["b"].median() == pytest.approx(b, rel=0.01)


@pytest.mark.parametrize("method", ["cloud_ols", "binned", "quantile", "nls", "shared_b", "mixed"])
def test_pooled_methods_agree_where_events_do(method):
    """With one a for all events the pooled estimates are within 2 % in b and 5 % in a (4 % where events differ)."""
    fits = recession.fit(points(record(years=6), "brutsaert_nieber"), method)
    assert fits["b"].iloc[0] == pytest.approx(1.5, rel=0.02)
    assert np.exp(np.log(fits["a"]).median()) == pytest.approx(0.05, rel=0.05)
    assert (fits["b_std"] >= 0).all()


def test_lower_envelope_leaves_its_share_below():
    """The envelope leaves one point in twenty below it."""
    p = points(record(spread=0.5), "brutsaert_nieber")
    line = recession.fit(p, "lower_envelope").iloc[0]
    below = np.mean(-p["dqdt"] < line["a"] * p["q_mid"] ** line["b"])
    assert below == pytest.approx(0.05, abs=0.01)


def test_integrated_curve_states_its_uncertainty():
    """Fitted to noisy curves, the errors of b and ln k_ref divided by their stated sd follow Student's t."""
    rng = np.random.default_rng(3)
    rows = []
    for event in range(2000):
        q = drain(5.0, 0.05, 1.5, 30) * np.exp(0.01 * rng.normal(size=30))
        rows.append(pd.DataFrame({"event": event, "time": pd.date_range("2001-01-01", periods=30), "q": q}))
    fits = recession.fit(recession.derivative(pd.concat(rows), "integrated"))
    ln_k = np.log(recession.k_ref(fits, 3.0)) - np.log(0.05 * 3.0**0.5)
    for z in ((fits["b"] - 1.5) / fits["b_std"], ln_k / recession.k_ref_std(fits, 3.0)):
        assert abs(z.mean()) < 0.1
        assert z.std() == pytest.approx(np.sqrt(27 / 25), abs=0.06)  # 30 days less three parameters


# ---- traps ----------------------------------------------------------------------------------------------


def test_point_cloud_collapses_where_events_differ():
    """With ln a varying by sd 0.7 the cloud's b falls below 1.3 for a true 1.5; per-event b does not."""
    p = points(record(spread=0.7, years=30), "brutsaert_nieber")
    assert recession.fit(p, "cloud_ols")["b"].iloc[0] < 1.3
    assert recession.fit(p)["b"].median() == pytest.approx(1.5, rel=0.01)
    assert recession.fit(p, "shared_b")["b"].iloc[0] == pytest.approx(1.5, abs=0.06)
    assert recession.fit(p, "mixed")["b"].iloc[0] == pytest.approx(1.5, abs=0.06)


def test_backward_differences_are_biased():
    """The backward scheme raises a by 2-6 % and b by 1-3 % on exact data, Brutsaert-Nieber neither."""
    q = record(years=30)
    biased, fair = (recession.fit(points(q, s)) for s in ("backward", "brutsaert_nieber"))
    assert 1.02 < np.exp(np.log(biased["a"]).median()) / 0.05 < 1.06
    assert 1.01 < biased["b"].median() / 1.5 < 1.03
    assert np.exp(np.log(fair["a"]).median()) == pytest.approx(0.05, rel=0.005)


def test_choosing_days_by_their_drop_biases_b_under_noise():
    """With 2 % noise a filter on steepening drops moves b by over 0.2; the default rule with windows does not."""
    q = record(years=30, noise=0.02, digits=3)
    chosen = recession.fit(points(q, "brutsaert_nieber", "brutsaert2008"))["b"].median()
    default = recession.fit(points(q, "exponential", "default"))["b"].median()
    assert abs(chosen - 1.5) > 0.2
    assert default == pytest.approx(1.5, abs=0.08)


def test_a_depends_on_the_unit_and_k_ref_does_not():
    """Where b varies, a change of unit re-ranks events by a; k_ref and its ranks stay."""
    rng = np.random.default_rng(5)
    b = 1.5 + 0.15 * rng.normal(size=60)
    fits = pd.DataFrame({"a": 0.03 * np.exp(0.2 * rng.normal(size=60)), "b": b})
    other = fits.assign(a=fits["a"] * 30.0 ** (1 - b))
    assert fits["a"].corr(other["a"], method="spearman") < 0.9
    np.testing.assert_allclose(recession.k_ref(other, 30 * 0.6), recession.k_ref(fits, 0.6), rtol=1e-10)


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-3, 1e3), st.sampled_from(["brutsaert_nieber", "central", "exponential", "integrated"]))
def test_k_ref_and_b_do_not_depend_on_the_unit_of_flow(scale, scheme):
    """Any factor on the flow leaves events, b and k_ref as they are and turns a into a scale^(1-b)."""
    q = record(years=2, spread=0.3)
    fits, scaled = (recession.fit(points(x, scheme)) for x in (q, q * scale))
    np.testing.assert_allclose(scaled["b"], fits["b"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(scaled["a"], fits["a"] * scale ** (1 - fits["b"]), rtol=1e-4)
    np.testing.assert_allclose(recession.k_ref(scaled, 2 * scale), recession.k_ref(fits, 2.0), rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 10.0), st.integers(0, 99))
def test_decorrelation_removes_the_correlation_in_any_unit(scale, seed):
    """ln a0 and b are uncorrelated, and q0 scales with the unit so that a0 does not change."""
    rng = np.random.default_rng(seed)
    b = 1.5 + 0.3 * rng.normal(size=40)
    fits = pd.DataFrame({"a": np.exp(-3 - 0.8 * (b - 1.5) + 0.3 * rng.normal(size=40)), "b": b})
    out = recession.decorrelate(fits)
    assert abs(np.corrcoef(np.log(out["a0"]), b)[0, 1]) < 1e-8
    other = recession.decorrelate(fits.assign(a=fits["a"] * scale ** (1 - b)))
    assert other.attrs["q0"] == pytest.approx(out.attrs["q0"] * scale, rel=1e-9)
    np.testing.assert_allclose(other["a0"], out["a0"], rtol=1e-9)


def test_storage_is_the_integral_of_one_over_sensitivity():
    """S(Q) integrates dQ/(a Q^(b-1)); above b = 2 there is no finite store and NaN is given."""
    q = np.linspace(1e-6, 2.0, 400001)
    for b in (0.5, 1.0, 1.6):
        numeric = np.trapezoid(q[1:] ** (1 - b) / 0.04, q[1:]) + recession.storage(0.04, b, q[1])
        assert recession.storage(0.04, b, 2.0) == pytest.approx(numeric, rel=1e-3)
    assert np.isnan(recession.storage(0.04, 2.0, 1.0))


def test_shrinking_keeps_the_line_at_its_own_flows_and_its_errors():
    """Shrunk b is closer to the truth than raw b, the spread between events is found, z has sd 1."""
    rng = np.random.default_rng(9)
    n, tau = 3000, 0.2
    true = 1.6 + tau * rng.normal(size=n)
    std = rng.uniform(0.05, 1.5, n)
    center = rng.normal(0.3, 0.5, n)
    b = true + std * rng.normal(size=n)
    value = -3.0 + 0.3 * rng.normal(size=n)
    fits = pd.DataFrame(
        {
            "a": np.exp(value - b * center),
            "b": b,
            "b_std": std,
            "ln_a_b_cov": -center * std**2,
            "q_min": 1,
            "q_max": 2,
        }
    )
    fits["a_std"] = fits["a"] * np.abs(center) * std
    out = recession.shrink(fits)
    assert out.attrs["b_between_sd"] == pytest.approx(tau, rel=0.15)
    assert out.attrs["b_mean"] == pytest.approx(1.6, abs=0.03)
    assert np.std(out["b"] - true) < 0.5 * np.std(b - true)
    assert ((out["b"] - true) / out["b_std"]).std() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(np.log(out["a"]) + out["b"] * center, value, atol=1e-9)
    at_center = np.exp(center[0])
    assert recession.k_ref(out, at_center)[0] == pytest.approx(recession.k_ref(fits, at_center)[0])


def test_a_at_a_common_b_is_the_level_of_each_event():
    """With b fixed at the truth, a of exact events is exact and has no error."""
    fits = recession.fit(points(record(years=2), "integrated").drop(columns="b_std"), b=1.5)
    np.testing.assert_allclose(fits["a"], 0.05, rtol=1e-6)
    assert (fits["b"] == 1.5).all() and (fits["b_std"] == 0).all()


# ---- rules ----------------------------------------------------------------------------------------------


def spans(events):
    return [(str(g.time.iloc[0])[:10], str(g.time.iloc[-1])[:10]) for _, g in events.groupby("event")]


def test_tossh_keeps_a_fall_of_six_steps_and_drops_its_first_day():
    """Last minus first index >= 6 is kept, 5 is not; the day of the peak is dropped."""
    rise, six = [1.0, 2.0], 9.0 - np.arange(7)
    events = recession.extract_events(series([*rise, *six, 4.0, 4.0]), "tossh2021")
    assert spans(events) == [("2001-07-04", "2001-07-09")]
    events = recession.extract_events(series([*rise, *six[:-1], 9.0, 9.0]), "tossh2021")
    assert len(events) == 0 and "falls for under 7 days" in set(events.attrs["audit"]["reason"])


def test_tossh_falls_must_be_strict_and_closed():
    """An equal day ends a run; runs that touch either end of the record are dropped and audited."""
    fall = 20.0 - np.arange(10)
    flat = series([1.0, *fall[:4], fall[3], *fall[4:8], 30.0, 29.0, 30.0])
    assert len(recession.extract_events(flat, "tossh2021")) == 0
    open_both = recession.extract_events(series([*fall, 30.0, *(29.0 - np.arange(12))]), "tossh2021")
    assert len(open_both) == 0
    assert list(open_both.attrs["audit"]["reason"]) == [
        "open at the record's start",
        "open at the record's end",
    ]
    assert (
        len(
            recession.extract_events(series([*fall, 30.0, *(29.0 - np.arange(12))]), "default", min_range=1.0)
        )
        > 0
    )


def test_missing_days_break_and_zero_flow_breaks_only_in_tossh():
    """NaN breaks a run in both rules; zero is missing in tossh2021 and a value in gnann2020."""
    fall = 8.0 - np.arange(9.0)  # ends 1, 0
    q = series([1.0, *fall, 5.0, 4.0])
    tossh, gnann = (recession.extract_events(q, rule) for rule in ("tossh2021", "gnann2020"))
    assert spans(tossh) == [("2001-07-03", "2001-07-09")]
    assert spans(gnann) == [("2001-07-03", "2001-07-10")]
    q.iloc[5] = np.nan
    for rule in ("tossh2021", "gnann2020"):
        events = recession.extract_events(q, rule)
        assert len(events) == 0 and "missing" in set(events.attrs["audit"]["ended_by"])


def test_vogel_kroll_drops_the_first_third_and_steep_days_end_it():
    """A mean falling for n days loses its first 30 %; a day below 0.7 of the one before ends the event."""
    q = series([1.0, *(50.0 * 0.95 ** np.arange(30)), 60.0, 61.0, 62.0, 63.0])
    events = recession.extract_events(q, "vogel_kroll1992")
    n = events["event"].eq(0).sum()
    falling = pd.Series(q).rolling(3).mean().diff().lt(0).sum() + 1
    assert n == falling - int(0.3 * falling)
    q.iloc[20:31] *= 0.6
    steep = recession.extract_events(q, "vogel_kroll1992", min_run_days=5)
    event = steep.set_index("time")["event"]
    assert event.max() == 1 and (event[: q.index[19]] == 0).all() and (event[q.index[20] :] == 1).all()


def test_brutsaert_drops_head_tail_and_steepening_days():
    """Three days after the peak, two at the end, and a day that falls more than the day before are dropped."""
    fall = 20.0 - np.cumsum([0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.45, 1.0, 0.9, 0.8, 0.7, 0.6])
    q = series([*([30.0, 31.0] * 5), *fall, 40.0, 41.0])
    events = recession.extract_events(q, "brutsaert2008", exclude_ice=True)
    kept = events.loc[events["event"] == events["event"].max(), "time"]
    first = q.index[10] if q.iloc[9] < q.iloc[10] else q.index[9]
    assert kept.iloc[0] == first + pd.Timedelta(days=3 if q[first] <= q.quantile(0.9) else 4)
    assert kept.iloc[-1] == q.index[22] - pd.Timedelta(days=2)
    assert q.index[17] not in set(kept)


def test_default_tolerates_small_rises_but_no_slow_rise():
    """A wiggle of 1 % stays inside an event; a steady rise of 1 % a day is never one."""
    fall = 20.0 * 0.93 ** np.arange(20)
    fall[9] = fall[8] * 1.015
    events = recession.extract_events(series([1.0, 1.0, *fall, 30.0, 30.0]))
    assert events["event"].nunique() == 1 and len(events) >= 15
    assert len(recession.extract_events(series(5.0 * 1.01 ** np.arange(60)))) == 0


def test_default_needs_range_and_longer_winter_events():
    """Qmax/Qmin below 1.3 is refused; eight days are enough in August, not in January."""
    shallow = series([1.0, 5.0, *(10.0 * 0.985 ** np.arange(14)), 20.0, 20.0])
    events = recession.extract_events(shallow)
    assert len(events) == 0 and "range below 1.3" in set(events.attrs["audit"]["reason"])
    q = [1.0, 5.0, *(10.0 * 0.9 ** np.arange(11)), 20.0, 20.0]
    summer, winter = (recession.extract_events(series(q, start)) for start in ("2001-08-01", "2001-01-03"))
    assert summer["season"].unique().tolist() == ["summer"] and winter.empty
    assert "under 10 days left" in set(winter.attrs["audit"]["reason"])


def test_season_classes_wrap_the_year():
    """31 March and 1 November are winter, 15 September autumn."""
    q = record(years=6)
    events = recession.extract_events(q)
    first = events.groupby("event").first()
    month_day = first["time"].dt.strftime("%m-%d")
    assert (first.loc[month_day.between("09-15", "10-31"), "season"] == "autumn").all()
    assert (first.loc[(month_day >= "11-01") | (month_day < "04-01"), "season"] == "winter").all()
    assert (events.groupby("event")["season"].nunique() == 1).all()
    assert set(first["season"]) == {"spring", "summer", "autumn", "winter"}


def test_ice_rain_and_melt_days_belong_to_no_event():
    """Days with ice, rain or melting snow are in no event, under any rule, and the audit says what cut it."""
    q = record(years=3)
    n = len(q)
    rng = np.random.default_rng(2)
    rain = np.where(rng.random(n) < 0.08, 5.0, 0.0)
    cold = 10 * np.sin(2 * np.pi * (np.arange(n) - 100) / 365)
    ice = cold < -6
    flow = xr.DataArray(q.to_numpy(), {"time": q.index}, "time").assign_coords(ice=("time", ice))
    for rule in recession.RULES:
        events = recession.extract_events(flow, rule, precipitation=rain, temperature=cold)
        rows = q.index.get_indexer(events["time"])
        assert len(rows) and not ice[rows].any() and (rain[rows] < 1).all()
        snow = np.r_[0, degree_day_snow(rain, cold)[:-1]]
        assert not ((snow[rows] > 0) & (cold[rows] > 0)).any()
    audit = recession.extract_events(flow, precipitation=rain, temperature=cold).attrs["audit"]
    assert {"rain", "ice"} <= set(audit["ended_by"])


def test_every_candidate_is_kept_or_audited():
    """Events plus audit rows are all candidates, and no rejected run shares its whole span with an event."""
    q = record(noise=0.02, digits=2)
    for rule in recession.RULES:
        events = recession.extract_events(q, rule)
        audit = pd.DataFrame(events.attrs["audit"])
        assert events["event"].nunique() + len(audit) == events.attrs["n_candidates"]
        assert (audit["reason"].str.len() > 0).all()
    both = pd.concat([recession.extract_events(q), recession.extract_events(q * 2)])
    assert len(both) == 2 * len(recession.extract_events(q))


def test_rounding_step_is_found_by_magnitude():
    """Three significant digits have steps 0.01 at 5 and 0.1 at 50, also after a unit change; noise has none."""
    rng = np.random.default_rng(1)
    raw = np.exp(rng.uniform(np.log(1.0), np.log(99), 4000))
    three = np.where(raw < 10, np.round(raw, 2), np.round(raw, 1))
    step = quantum(three)
    np.testing.assert_allclose(step[three < 9.99], 0.01, rtol=1e-6)
    np.testing.assert_allclose(step[three >= 10.1], 0.1, rtol=1e-6)
    assert (quantum(raw) == 0).all()


# ---- schemes --------------------------------------------------------------------------------------------


def test_difference_schemes_are_what_they_say():
    """The three differences, to the last digit, on four days."""
    events = pd.DataFrame(
        {"event": 0, "time": pd.date_range("2001-01-01", periods=4), "q": [8.0, 5.0, 3.0, 2.0]}
    )
    p = recession.derivative(events, "brutsaert_nieber")
    assert p["dqdt"].tolist() == [-3, -2, -1] and p["q_mid"].tolist() == [6.5, 4.0, 2.5]
    p = recession.derivative(events, "backward")
    assert p["dqdt"].tolist() == [-3, -2, -1] and p["q_mid"].tolist() == [5.0, 3.0, 2.0]
    p = recession.derivative(events, "central")
    assert p["dqdt"].tolist() == [-2.5, -1.5] and p["q_mid"].tolist() == [5.0, 3.0]
    p = recession.derivative(events.assign(quantum=2 / 3), "variable_step")
    assert p["dqdt"].tolist() == [-3.0, -2.0, -1.5] and p["q_mid"].tolist() == [6.5, 4.0, 10 / 3]


def test_exponential_windows_lengthen_as_published():
    """Day t of an N-day exponential event is fitted over 1 + ceil(fraction N exp(-1/(gamma t))) steps."""
    n, rate, fraction = 40, 0.08, 0.2
    q = 10 * np.exp(-rate * np.arange(n))
    events = pd.DataFrame({"event": 0, "time": pd.date_range("2001-01-01", periods=n), "q": q})
    p = recession.derivative(events, fraction=fraction, gamma="semilog")
    expected = []
    for t in range(1, n + 1):
        m = 1 + int(np.ceil(fraction * n * np.exp(-1 / (rate * t))))
        if t - 1 + m >= n:
            break
        window = q[t - 1 : t + m]
        expected.append((window.mean(), np.polyfit(np.arange(m + 1), window, 1)[0]))
    np.testing.assert_allclose(p[["q_mid", "dqdt"]], expected, rtol=1e-9)
    assert (p["weight"] <= 1).all()


def test_no_difference_is_taken_across_a_gap_or_between_events():
    """Days that do not follow each other, and the last and first day of two events, give no point."""
    time = pd.to_datetime(
        ["2001-01-01", "2001-01-02", "2001-01-04", "2001-01-05", "2001-02-01", "2001-02-02"]
    )
    events = pd.DataFrame({"event": [0, 0, 0, 0, 1, 1], "time": time, "q": [9.0, 8, 6, 5, 3, 2]})
    assert recession.derivative(events, "brutsaert_nieber")["q_mid"].tolist() == [8.5, 5.5, 2.5]


# ---- regime test ----------------------------------------------------------------------------------------


def test_regime_test_finds_a_known_shift():
    """A large shift is found with its size inside the interval; no shift is not significant."""
    rng = np.random.default_rng(0)
    row = recession.regime_test(yearly(rng, shift=-0.6), PERIODS).iloc[0]
    assert (row["period_a"], row["period_b"]) == ("before", "after")
    assert row["lower"] < -0.6 < row["upper"] < 0 and row["p_value"] < 0.01
    assert row["n_years_a"] == 20 and row["n_years_b"] == 9
    assert row["difference_std"] > 0 and row["minimal_detectable"] > 0
    assert 0 <= row["rho"] < 1


def test_short_period_is_not_testable():
    """Under five years in a period: NaN and the words, while other contrasts are still given."""
    rng = np.random.default_rng(1)
    fits = yearly(rng, after=9)
    three = pd.DataFrame(
        {
            "label": ["a", "b", "c"],
            "start": [None, "2000-01-01", "2015-01-01"],
            "end": ["1999-12-31", "2014-12-31", None],
        }
    )
    table = recession.regime_test(fits, three).set_index(["period_a", "period_b"])
    assert np.isfinite(table.loc[("a", "b"), "difference"])
    for pair in (("a", "c"), ("b", "c")):
        assert table.loc[pair, ["difference", "lower", "upper", "p_value", "minimal_detectable"]].isna().all()
        assert "not testable" in table.loc[pair, "note"]


def test_control_removes_what_both_basins_share():
    """A climate shift common to both basins disappears, a shift of one stays."""
    rng = np.random.default_rng(2)
    common = yearly(rng, rho=0.6, icc=0.8, shift=-0.5)
    own = pd.Series(0.1 * rng.normal(size=len(common)))
    control = common.assign(ln_k_ref=common["ln_k_ref"] + 0.1 * rng.normal(size=len(common)))
    late = (common["start"].dt.year >= 2010).astype(float)
    same = common.assign(ln_k_ref=common["ln_k_ref"] + own)
    changed = same.assign(ln_k_ref=same["ln_k_ref"] - 0.2 * late)
    same, changed = (recession.regime_test(f, PERIODS, control=control).iloc[0] for f in (same, changed))
    assert same["lower"] < 0 < same["upper"] and abs(same["difference"]) < 0.1
    assert changed["lower"] < -0.2 < changed["upper"] < 0


def test_covariate_explains_a_wetter_period():
    """A shift that comes only through a covariate vanishes when the covariate is given."""
    rng = np.random.default_rng(4)
    fits = yearly(rng, sd=0.1)
    wet = rng.normal(size=29) + np.r_[np.zeros(20), np.full(9, 1.0)]
    fits["ln_rain"] = np.repeat(wet, 10)
    fits["ln_k_ref"] += 0.4 * fits["ln_rain"]
    plain = recession.regime_test(fits, PERIODS).iloc[0]
    given_rain = recession.regime_test(fits, PERIODS, covariates=["ln_rain"]).iloc[0]
    by_year = pd.DataFrame({"ln_rain": wet}, index=range(1990, 2019))
    as_table = recession.regime_test(fits, PERIODS, covariates=by_year).iloc[0]
    assert abs(given_rain["difference"]) < 0.12 < abs(plain["difference"])
    assert as_table["difference"] == pytest.approx(given_rain["difference"])


def test_interval_equals_a_t_interval_without_memory(monkeypatch):
    """With memory fixed at none the interval is the textbook two-sample t interval."""
    from helpers.recession import ar1

    monkeypatch.setattr(ar1, "PRIOR", np.r_[1.0, np.zeros(19)])
    fits = yearly(np.random.default_rng(6), events=1)
    row = recession.regime_test(fits, PERIODS).iloc[0]
    y = fits["ln_k_ref"].to_numpy()
    test = stats.ttest_ind(y[20:], y[:20])
    interval = test.confidence_interval(0.95)
    assert row["p_value"] == pytest.approx(test.pvalue, rel=1e-6)
    assert (row["lower"], row["upper"]) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_trend_is_found_and_stated_with_its_interval():
    """A trend of -0.03 a year is inside its interval, and the interval excludes zero."""
    fits = yearly(np.random.default_rng(7), icc=0.1, rho=0.0)
    fits["ln_k_ref"] -= 0.03 * (fits["start"].dt.year - 2000)
    row = recession.trend_test(fits)
    assert row["lower"] < -0.03 < row["upper"] < 0 and row["n_years"] == 29


def test_regime_test_keeps_size_and_power():
    """A quick look at both (60 draws); the full table is the slow test below."""
    rng = np.random.default_rng(8)
    null = [recession.regime_test(yearly(rng), PERIODS)["p_value"].iloc[0] < 0.05 for _ in range(60)]
    found = [
        recession.regime_test(yearly(rng, shift=np.log(0.7)), PERIODS)["p_value"].iloc[0] < 0.05
        for _ in range(60)
    ]
    assert np.mean(null) <= 0.15 and np.mean(found) >= 0.6


def test_step_is_dated_with_its_uncertainty():
    """A large step is dated to the year, a small one is spread over many; probabilities sum to 1."""
    sure = recession.change_year(yearly(np.random.default_rng(10), shift=-1.5))
    vague = recession.change_year(yearly(np.random.default_rng(10), shift=-0.1))
    assert sure["probability"].idxmax() == 2010 and sure.loc[2010, "probability"] > 0.9
    assert vague["probability"].max() < 0.5 and vague["probability"].sum() == pytest.approx(1)
    assert sure.loc[2010, "lower"] < -1.5 < sure.loc[2010, "upper"]


# ---- aquifer ----------------------------------------------------------------------------------------------


def test_drainage_time_of_a_pareto_tail():
    """Points whose tau is Pareto distributed give back its exponent and mean."""
    rng = np.random.default_rng(11)
    b = 1.3
    alpha = 1 / (b - 1)
    tau = 12.0 * (1 - rng.random(4000)) ** (-1 / (alpha - 1))
    p = pd.DataFrame({"event": np.arange(4000) // 8, "q_mid": 1.0, "dqdt": -1 / tau})
    found = recession.drainage_time(p)
    assert found["b"] == pytest.approx(b, abs=4 * found["b_std"]) and found["b_std"] < 0.02
    assert found["tau"] == pytest.approx(tau[tau >= found["tau_0"]].mean(), rel=0.1)
    with pytest.raises(ValueError, match="50 points"):
        recession.drainage_time(p.iloc[:20])


def test_thickness_follows_flow_with_its_units():
    """A linear store (b = 1) of 10 % porosity: tau 20 days and +0.01 cm/day/yr thicken it by 1 cm/yr."""
    assert recession.thickness_trend(0.01, 20.0, 1.0, 0.1) == pytest.approx(1.0)
    assert np.isnan(recession.thickness_trend(0.01, 20.0, 2.0, 0.1))


# ---- many at once -----------------------------------------------------------------------------------------


def theil_sen(p):
    """Per-event lines by the median of slopes and of residuals, from scipy."""
    rows = []
    for event, one in p.groupby("event"):
        line = stats.theilslopes(np.log(-one["dqdt"]), np.log(one["q_mid"]))
        level = np.median(np.log(-one["dqdt"]) - line.slope * np.log(one["q_mid"]))
        rows.append((event, one["time"].min(), np.exp(level), line.slope))
    return pd.DataFrame(rows, columns=["event", "start", "a", "b"])


def test_multiverse_is_the_single_analyses():
    """A row of the multiverse equals the same analysis made step by step, and there are 480."""
    q = record(years=29, spread=0.3, noise=0.005, digits=3)
    table = recession.multiverse(q, 2.0, PERIODS, season=["summer", "autumn"])
    assert len(table) == 480 and len(table[["line", "scheme"]].drop_duplicates()) == 20
    for i in (0, 150, 271, 479):
        row = table.iloc[i]
        p = recession.derivative(
            recession.extract_events(q, row["rule"], **row["changes"]), row["scheme"], **row["options"]
        )
        fits = recession.fit(p[p["season"].isin(["summer", "autumn"])])
        fits = fits[(fits["n"] >= 3) & fits["b"].notna()]
        if row["line"] == "theil_sen":
            fits = theil_sen(p[p["season"].isin(["summer", "autumn"])]).loc[fits.index]
        elif row["line"] == "shrunk":
            fits = recession.shrink(fits)
        elif row["line"] == "common_b":
            b = table.loc[i, "b"]
            fits = recession.fit(p[p["season"].isin(["summer", "autumn"])], b=b).loc[fits.index]
        fits = fits.assign(k_ref=recession.k_ref(fits, 2.0))
        test = recession.regime_test(fits, PERIODS).iloc[0]
        assert row["n_events"] == len(fits)
        for name in ("difference", "lower", "upper"):
            assert row[name] == pytest.approx(test[name], abs=2e-6)


def test_multiverse_takes_a_control():
    """Against itself as control every specification finds no difference."""
    q = record(years=29, spread=0.3)
    table = recession.multiverse(q, 2.0, PERIODS, control=q)
    np.testing.assert_allclose(table["difference"], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recession.extract_events(record(years=1), "tosh"), "unknown rule"),
        (lambda: recession.extract_events(record(years=1), min_length=3), "unknown setting min_length"),
        (lambda: recession.extract_events(record(years=1).iloc[[0, 1, 3]]), "calendar"),
        (lambda: recession.extract_events(-record(years=1)), "negative"),
        (lambda: recession.extract_events(record(years=1) * np.nan), "no value"),
        (lambda: recession.extract_events(record(years=1), precipitation=[1.0]), "precipitation"),
        (lambda: recession.extract_events(record(years=1), temperature=np.zeros(365)), "snow"),
        (lambda: recession.extract_events(np.ones(9)), "DataArray"),
        (lambda: recession.derivative(pd.DataFrame({"event": [0]})), "columns"),
        (lambda: points(record(years=1), "euler"), "unknown scheme"),
        (lambda: recession.fit(points(record(years=1)), "magic"), "unknown method"),
        (lambda: recession.fit(points(record(years=1)).iloc[:0]), "none has falling flow"),
        (lambda: recession.k_ref(pd.DataFrame({"a": [1.0], "b": [1.0]}), 0.0), "q_ref"),
        (lambda: recession.k_ref(pd.DataFrame({"a": [1.0], "b": [1.0]}), [1.0]), "q_ref"),
        (lambda: recession.decorrelate(pd.DataFrame({"a": [1.0, 2], "b": [1.0, 1]})), "different b"),
        (lambda: recession.regime_test(pd.DataFrame({"start": []}), PERIODS), "ln_k_ref"),
        (lambda: recession.regime_test(yearly(np.random.default_rng(0)), PERIODS[["label"]]), "start"),
        (lambda: recession.to_mm_per_day(xr.DataArray([1.0], dims="time")), "drainage_area_km2"),
    ],
)
def test_bad_input_is_refused(call, message):
    """Each refusal says what is wrong."""
    with pytest.raises(ValueError, match=message):
        call()


def test_overlapping_periods_are_refused():
    """Two periods may not share a day."""
    periods = PERIODS.assign(end=["2010-06-01", "2018-12-31"])
    with pytest.raises(ValueError, match="overlap"):
        recession.regime_test(yearly(np.random.default_rng(0)), periods)


def test_rows_of_an_event_must_stand_together_in_order():
    """Shuffled rows would give wrong differences and are refused."""
    events = recession.extract_events(record(years=1), "tossh2021")
    with pytest.raises(ValueError, match="order"):
        recession.derivative(events.iloc[::-1].reset_index(drop=True))
    with pytest.raises(ValueError, match="together"):
        recession.derivative(pd.concat([events.iloc[5:], events.iloc[:5]]))


def test_mm_per_day_is_exact():
    """1 m3/s over 86.4 km2 is 1 mm/day."""
    q = xr.DataArray([1.0, 2.0], dims="time", attrs={"units": "m3/s"})
    out = recession.to_mm_per_day(q, 86.4)
    np.testing.assert_allclose(out, [1.0, 2.0], rtol=1e-15)
    assert out.attrs["units"] == "mm/day"


# ---- real record ----------------------------------------------------------------------------------------


def test_real_gauges_give_plausible_recessions(mirror):
    """Both Heihe gauges: ten or more events a year outside ice, b between 1 and 3, a and b far from independent."""
    from helpers.io import read_discharge

    for name, area in (("Qilian", 2459), ("Zhamashike", 4589)):
        q = read_discharge(mirror / "heihe" / "raw" / f"{name}_runoff_00_14.csv", drainage_area_km2=area)
        events = recession.extract_events(recession.to_mm_per_day(q))
        fits = recession.fit(recession.derivative(events))
        assert len(fits) > 80 and 1.0 < fits["b"].median() < 3.0
        raw = np.log(fits["a"]).std()
        assert np.log(recession.decorrelate(fits)["a0"]).std() < raw
