"""What thaw-season scaling must hold: known fractions, honest intervals, refusals with reasons.

The ground below thaws by five different curves; only one of them is a form that an estimator has.
"""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from helpers import io, thaw

WINDOWS = {
    "full": ("05-20", "09-27"),
    "early": ("05-25", "07-15"),
    "middle": ("06-20", "08-29"),
    "long": ("06-10", "09-20"),
    "late": ("09-05", "09-25"),
}
SHAPES = ("stefan", "ice_rich", "linear", "logistic", "two_layers")


def weather(years, rng, warming=0.0):
    """Daily air temperature of a cold plateau with warm and cold, early and late years."""
    time = pd.date_range(f"{years[0]}-01-01", f"{years[-1]}-12-31")
    year, doy = time.year.to_numpy(), time.day_of_year.to_numpy()
    level = dict(zip(years, rng.normal(0, 0.6, len(years)), strict=True))
    phase = dict(zip(years, rng.normal(0, 5, len(years)), strict=True))
    base = np.array([level[y] for y in year]) - 5 + warming * (year - years[0])
    season = 13.5 * np.cos(2 * np.pi * (doy - 200 - np.array([phase[y] for y in year])) / 365.25)
    noise = signal.lfilter([1], [1, -0.75], rng.normal(0, 1.7, len(time)))
    return xr.DataArray(base + season + noise, {"time": time}, name="temperature_2m")


def curve(shape, air, year, rng):
    """Share of the season's thaw on every day of a year (position 0 is 1 January), 0 before and 1 at its end."""
    first = (pd.Timestamp(f"{year}-01-01") - pd.Timestamp(air.time.values[0])).days
    total = np.cumsum(np.clip(air.values[first : first + 365], 0, None))
    day = np.arange(1, total.size + 1)
    if shape == "stefan":
        g = np.sqrt(total)
    elif shape == "ice_rich":
        g = np.concatenate([np.zeros(15), total[:-15]]) ** 0.9
    elif shape == "linear":
        g = np.clip(day - day[np.argmax(total > 20)], 0, 135)
    elif shape == "logistic":
        g = 1 / (1 + np.exp(-(day - rng.normal(200, 5)) / 18))
    else:
        g = 0.6 * np.sqrt(total / total[-1]) + 0.4 * np.clip((total - 300) / 500, 0, 1)
    return np.minimum(g / g[269], 1.0)


def day(year, month_day):
    return (pd.Timestamp(f"{year}-{month_day}") - pd.Timestamp(f"{year}-01-01")).days


def ground(shape, seed, years, *, side=6, noise_mm=3.0, warming=0.0):
    """Displacement on Sentinel-1 like dates, its sd, the air and the true full drop."""
    rng = np.random.default_rng(seed)
    air = weather(years, rng, warming)
    size = 30 + 12 * rng.random((side, side))
    times, series, truth = [], [], []
    for year in years:
        daily = curve(shape, air, year, rng)
        size_y = size * (1 + 0.1 * rng.normal())
        days = np.arange(day(year, "05-08") + rng.integers(0, 12), day(year, "10-10"), 12)
        times.append(np.datetime64(f"{year}-01-01") + days.astype("timedelta64[D]"))
        series.append(-daily[days, None, None] * size_y)
        first, last = (daily[day(year, e)] for e in WINDOWS["full"])
        truth.append(size_y * (last - first))
    coords = {"time": np.concatenate(times).astype("datetime64[ns]")}
    clean = xr.DataArray(np.concatenate(series), coords, ("time", "y", "x"))
    noisy = clean + rng.normal(0, noise_mm, clean.shape)
    truth = xr.DataArray(np.array(truth), {"year": list(years)}, ("year", "y", "x"))
    return noisy, xr.full_like(noisy, noise_mm), air, truth


def test_fraction_of_known_curve():
    """Without noise the fractions are those of the curve, for each year and on average."""
    d, std, air, _ = ground("linear", 1, range(2015, 2023), noise_mm=0.0)
    out = thaw.fraction(d, std + 1e-6, WINDOWS)
    for year in (2015, 2020):
        daily = curve("linear", air, year, None)
        at = [daily[day(year, e)] for e in (*WINDOWS["middle"], *WINDOWS["full"])]
        expected = (at[1] - at[0]) / (at[3] - at[2])
        assert float(out.fraction.sel(window="middle", year=year)) == pytest.approx(expected, abs=0.03)
    assert float(out.fraction_mean.sel(window="full")) == pytest.approx(1)
    assert float(out.cv_year.sel(window="full")) == pytest.approx(0, abs=1e-9)


def test_ratio_of_means_is_not_biased_by_noise_in_the_season():
    """Noise as large as the drop moves the mean of ratios, not the ratio of means."""
    values = []
    for seed in range(12):
        d, std, _, _ = ground("stefan", 100 + seed, range(2015, 2023), side=5, noise_mm=15.0)
        clean = ground("stefan", 100 + seed, range(2015, 2023), side=5, noise_mm=0.0)[0]
        noisy = thaw.fraction(d, std, WINDOWS).fraction_mean.sel(window="middle")
        exact = thaw.fraction(clean, std, WINDOWS).fraction_mean.sel(window="middle")
        values.append(float(noisy / exact - 1))
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error + 0.005


def test_interannual_spread_has_the_noise_removed():
    """Equal curves each year: what differs between years is noise and must not count as change."""
    rng = np.random.default_rng(5)
    years = np.arange(2000, 2060)
    names = ["full", "w"]
    true = xr.DataArray([40.0, 16.0], {"window": names}, "window")
    noise = rng.normal(0, 8, (years.size, 2, 4, 4))
    drop = true + xr.DataArray(noise, {"year": years, "window": names}, ("year", "window", "y", "x"))
    out = thaw.fraction_of_drops(drop, xr.full_like(drop, 8.0)).sel(window="w")
    assert float(out.cv_total) > 0.1
    assert float(out.cv_year) < 0.5 * float(out.cv_total)
    assert float(out.cv_pixel) < 0.15
    assert float(out.cv_noise) == pytest.approx(float(out.cv_total), rel=0.35)


def test_delta_method_and_bootstrap_agree():
    """The two errors of a mean fraction tell the same where years are many."""
    d, std, _, _ = ground("stefan", 3, range(1990, 2015), side=3)
    out = thaw.fraction(d, std, WINDOWS, draws=400, rng=np.random.default_rng(0)).sel(
        window=["early", "middle"]
    )
    np.testing.assert_allclose(out.fraction_mean_boot_std, out.fraction_mean_std, rtol=0.4)


def test_weak_and_variable_windows_are_refused_with_the_reason():
    """A window with a small fraction, too few years or a variable fraction gives no number."""
    d, std, _, _ = ground("stefan", 2, range(2015, 2023))
    fractions = thaw.fraction(d, std, WINDOWS)
    out = thaw.scale(fractions["drop"], fractions["drop_std"], fractions)
    assert bool(out.refused.sel(window="late")) and "below 0.20" in str(out.reason.sel(window="late").item())
    assert bool(out.full_season.sel(window="late").isnull().all())
    assert not bool(out.refused.sel(window="middle")) and out.reason.sel(window="middle").item() == ""
    few = thaw.fraction(d.sel(time=slice("2015", "2017")), 3.0, WINDOWS)
    reason = thaw.scale(few["drop"], few["drop_std"], few).reason.sel(window="middle").item()
    assert "3 calibration years" in reason
    variable = fractions.assign(cv_year=xr.full_like(fractions["cv_year"], 0.5))
    reason = thaw.scale(fractions["drop"], fractions["drop_std"], variable).reason.sel(window="middle").item()
    assert "from year to year" in reason


@pytest.mark.parametrize("method", ["constant", "degree_day", "joint"])
@pytest.mark.parametrize("shape", SHAPES)
def test_noise_free_scaling_finds_the_season(shape, method):
    """Whatever the curve, scaling a middle window errs by no more than its own sd allows."""
    d, std, air, truth = ground(shape, 11, range(2015, 2023), noise_mm=0.3)
    fractions = thaw.fraction(d, std, WINDOWS)
    seen = fractions[["drop", "drop_std"]].sel(window=["middle"])
    out = thaw.scale(seen["drop"], seen["drop_std"], fractions, method=method, temperature=air)
    z = (out.full_season - truth) / out.full_season_std
    assert float(abs(z).max()) < 5
    assert abs(float((out.full_season - truth).mean())) < 2.0  # mm, of 36


def coverage(method, seeds, *, transfer=False, area=False):
    """Hits of the 95 % interval, one (area) or one random pixel per year: independent draws."""
    hits, n = 0, 0
    for seed in seeds:
        shape = SHAPES[seed % len(SHAPES)]
        years = range(2008, 2024) if transfer else range(2015, 2024)
        d, std, air, truth = ground(shape, seed, years, side=4, warming=0.045 if transfer else 0.0)
        learn = slice("2016", "2023")
        old = slice(2008, 2011) if transfer else slice(2015, 2015)
        fractions = thaw.fraction(d.sel(time=learn), std.sel(time=learn), WINDOWS, draws=0)
        when = slice(str(old.start), str(old.stop))
        past = thaw.drops(d.sel(time=when), std.sel(time=when), WINDOWS).sel(window=["middle"])
        drop, sd = past["drop"], past["drop_std"]
        if area:
            drop, sd, truth = drop.mean(["y", "x"]), sd.mean(["y", "x"]) / 4, truth.mean(["y", "x"])
        air_ = air if method != "constant" or transfer else None
        out = thaw.scale(drop, sd, fractions, method=method, temperature=air_, area_mean=area).squeeze()
        true = truth.sel(year=old).squeeze()
        if not area:
            pick = dict(zip(("y", "x"), np.random.default_rng(seed).integers(0, 4, 2), strict=True))
            out, true = out.isel(pick), true.isel(pick)
        inside = (out.full_season_lower <= true) & (true <= out.full_season_upper)
        valid = out.full_season.notnull()
        hits += int(inside.where(valid, False).sum())
        n += int(valid.sum())
    return hits, n


@pytest.mark.parametrize("method", ["constant", "degree_day", "joint"])
def test_interval_covers_a_left_out_year(method):
    """The 95 % interval of a year not used in the fractions covers 90-98 %, within counting error."""
    hits, n = coverage(method, range(1000, 1050))
    low, high = stats.binomtest(hits, n).proportion_ci(0.99)
    assert n >= 40
    assert low <= 0.98 and high >= 0.90, f"{method}: {hits} of {n}"


def test_leave_one_year_out_is_scored_against_the_observed():
    """Rows for every year, window and method; the interval holds the noise of the observation."""
    rows = []
    for seed in range(5):
        d, std, air, _ = ground(SHAPES[seed], 300 + seed, range(2015, 2023), side=2)
        seen = thaw.drops(d, std, WINDOWS)
        table = thaw.leave_one_year_out(
            seen["drop"], seen["drop_std"], temperature=air, noise_correlation=seen["noise_correlation"]
        )
        rows.append(table[(table.x == 1) & (table.y == 1)])
        assert set(table.method) == {"constant", "degree_day", "joint"}
        assert list(table.columns[:5]) == ["year", "window", "method", "y", "x"]
        assert "late" in {window for _, window, _, _ in table.attrs["refused"]}
    table = pd.concat(rows)
    summary = thaw.score(table).set_index(["window", "method"])
    assert (summary.loc["middle", "n"] == 40).all()
    for method in ("constant", "degree_day", "joint"):
        hits = round(summary.loc[("middle", method), "cover_95"] * 40)
        # years of one seed share the fractions: allow for half as many independent draws
        low, high = stats.binomtest(hits // 2, 20).proportion_ci(0.99)
        assert low <= 0.98 and high >= 0.90, summary
    assert (summary["rmse_mm"] > 0).all() and (summary["crps_mm"] < summary["rmse_mm"]).all()


def test_nothing_predicted_is_scored_as_nothing():
    """Where every window was refused the table of scores is empty and has its columns."""
    d, std, *_ = ground(SHAPES[0], 300, range(2015, 2019), side=1)
    seen = thaw.drops(d, std, {k: WINDOWS[k] for k in ("full", "late")})
    table = thaw.leave_one_year_out(seen["drop"], seen["drop_std"], methods=("constant",))
    scores = thaw.score(table)
    assert table.empty and scores.empty and {"window", "method", "rmse_mm", "cover_95"} <= set(scores)


def test_degree_days_follow_years_a_constant_cannot():
    """For areas, where noise is small, degree days beat the constant if the ground follows them."""
    gain = []
    for seed in range(8):
        d, std, air, _ = ground("stefan", 500 + seed, range(2013, 2023), side=4, noise_mm=1.0)
        fit = thaw.fit_degree_days(thaw.fraction(d, std, WINDOWS), air)
        gain.append(float(fit["gain"].sel(window="early")))
    assert np.median(gain) > 0.3


def test_leaving_years_out_chooses_the_power_of_the_ground():
    """Ground that follows degree days to the 0.9 with a lag is told from a Stefan ground."""
    chosen = {}
    for shape in ("stefan", "ice_rich"):
        d, std, air, _ = ground(shape, 21, range(2005, 2024), noise_mm=0.3)
        fit = thaw.fit_degree_days(thaw.fraction(d, std, WINDOWS), air)
        chosen[shape] = float(fit["power"]) + float(fit["lag_days"]) / 40
    assert chosen["ice_rich"] > chosen["stefan"] + 0.25


def test_joint_is_tighter_than_one_window_and_still_right():
    """One coefficient per pixel from all years is less noisy than each year's division."""
    d, std, air, truth = ground("stefan", 8, range(2015, 2023), noise_mm=6.0)
    fractions = thaw.fraction(d, std, WINDOWS)
    seen = fractions[["drop", "drop_std"]].sel(window=["early", "middle"])
    single = thaw.scale(seen["drop"], seen["drop_std"], fractions, method="degree_day", temperature=air)
    joint = thaw.scale(seen["drop"], seen["drop_std"], fractions, method="joint", temperature=air)
    rmse = [
        float(np.sqrt(np.square(v.full_season - truth).mean())) for v in (single.sel(window="middle"), joint)
    ]
    assert rmse[1] < rmse[0]
    inside = (joint.full_season_lower < truth) & (truth < joint.full_season_upper)
    assert float(inside.mean()) > 0.85


def test_shrinkage_lowers_the_error_and_keeps_the_common_part():
    """Neighbours of the same year help a noisy pixel; what the year shares is not averaged away."""
    d, std, _, truth = ground("stefan", 9, range(2015, 2023), noise_mm=8.0)
    fractions = thaw.fraction(d, std, WINDOWS)
    out = thaw.scale(fractions["drop"], fractions["drop_std"], fractions)
    small = thaw.empirical_bayes(out)
    before = float(np.square(out.full_season - truth).sel(window="middle").mean())
    after = float(np.square(small.shrunk - truth).sel(window="middle").mean())
    assert after < before
    floor = out.std_year.sel(window="middle") * (1 - 1e-9)
    assert bool((small.shrunk_std.sel(window="middle") >= floor).all())


@pytest.mark.parametrize(("noise_mm", "years", "slope"), [(8, 1, 1.0), (8, 8, 0.7), (3, 2, 1.3)])
def test_shrunken_intervals_hold_the_truth_neither_too_rarely_nor_too_often(noise_mm, years, slope):
    """20 normal pixels of sd 5 mm, 300 times, seen with more or less noise than that: intervals of 95 % and of 68 %."""
    rng, inside = np.random.default_rng(8), []
    for _ in range(300):
        truth = xr.DataArray(rng.normal(30, 5, (1, 20)) + np.zeros((years, 1)), dims=("year", "y"))
        seen = 30 + slope * (truth - 30) + rng.normal(0, noise_mm, (years, 20))
        parts = {"std_noise": noise_mm, "std_year": 0.0, "std_estimation": 0.0, "std_pixel": 0.0}
        scaled = xr.Dataset({k: xr.full_like(seen, v) for k, v in parts.items()})
        small = thaw.empirical_bayes(scaled.assign(full_season=seen, pixel_slope=slope))
        z = abs((small["shrunk"] - truth) / small["shrunk_std"])
        inside.append([(z < 1.96).mean(), (z < 1).mean()])
    wide, narrow = np.mean(inside, axis=0)
    assert 0.93 < wide < 0.96
    assert 0.65 < narrow < 0.71


def test_slope_of_pixels_is_found_through_the_noise_of_both_drops():
    """Pixels that sink more show less of it in the window; noise as large as their differences does not flatten it."""
    rng = np.random.default_rng(5)
    pattern = rng.normal(40, 6, 900)
    part = 20 + 0.5 * 0.8 * (pattern - 40)
    drop = np.stack([pattern, part])[None] + rng.normal(0, 6, (8, 2, 900))
    coords = {"year": np.arange(2016, 2024), "window": ["full", "june"]}
    drop = xr.DataArray(drop, coords, ("year", "window", "y"))
    found = thaw.fraction_of_drops(drop, xr.full_like(drop, 6.0), draws=0)["pixel_slope"]
    assert abs(float(found.sel(window="june")) - 0.8) < 0.05
    assert float(found.sel(window="full")) == pytest.approx(1)


def test_hierarchical_finds_the_slope_with_height():
    """A fraction that falls with height is found, and scaling by the field removes the tilt."""
    rng = np.random.default_rng(4)
    years, side = np.arange(2014, 2024), 12
    height = xr.DataArray(3800 + 700 * rng.random((side, side)), dims=("y", "x"))
    share = 0.5 * np.exp(-0.4 * (height - 4150) / 1000)
    yearly = xr.DataArray(np.exp(rng.normal(0, 0.08, years.size)), {"year": years}, "year")
    full = xr.full_like(yearly * share, 40.0)
    exact = xr.concat([full, full * share * yearly], pd.Index(["full", "w"], name="window"))
    exact = exact.transpose("year", "window", "y", "x")
    drop = exact + rng.normal(0, 3, exact.shape)
    drop = drop.assign_coords(
        window_start=("window", ["05-20", "06-20"]), window_end=("window", ["09-30", "08-29"])
    )
    std = xr.full_like(drop, 3.0)
    base = thaw.fraction_of_drops(drop, std).assign(drop=drop, drop_std=std)
    field = thaw.hierarchical(base, height)
    at = field.sel(window="w")
    assert float(at.slope_per_km) == pytest.approx(-0.4, abs=3 * float(at.slope_per_km_std) + 0.02)
    assert 0.03 < float(at.cv_year) < 0.16
    flat, tilted = (thaw.scale(drop, std, f).full_season.sel(window="w") for f in (base, field))
    trend = [np.polyfit(height.values.ravel(), v.mean("year").values.ravel(), 1)[0] for v in (flat, tilted)]
    assert abs(trend[1]) < 0.3 * abs(trend[0])


def waves(rng, side, dates, sd_mm):
    """Delay of dates (time, y, x) mm, most of it over long ways, of given sd."""
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    k[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=(dates, side, side))) * k**-1.8).real
    return sd_mm * field / field.std(axis=(1, 2), keepdims=True)


def long_delay(seed, change=0.0, sd_mm=6.0):
    """A scene with delay alike over long ways, and a fraction that changes from year to year by `change`."""
    rng = np.random.default_rng(seed)
    side, years = 40, range(2015, 2024)
    size = 20 + 30 * signal.convolve(rng.random((side, side)), np.full((5, 5), 0.04), mode="same")
    times, series = [], []
    for year in years:
        days = np.arange(day(year, "05-08"), day(year, "10-10"), 12)
        share = np.clip((days - 135) / 135, 0, 1) ** np.exp(change * rng.normal())
        times.append(np.datetime64(f"{year}-01-01") + days.astype("timedelta64[D]"))
        series.append(-share[:, None, None] * size)
    coords = {"time": np.concatenate(times).astype("datetime64[ns]")}
    clean = xr.DataArray(np.concatenate(series), coords, ("time", "y", "x"))
    return clean + waves(rng, side, len(clean), sd_mm), xr.full_like(clean, sd_mm), clean


def area_noise(d, std, smooth_cells):
    """Fractions of a scene with the noise of its area read off the dates."""
    seen = thaw.drops(d, std, WINDOWS)
    weighting = thaw.Weighting("others", smooth_cells=smooth_cells)
    area = thaw.area_curve(d, std, seen["drop"].sel(window="full"), weighting)
    factor = float(thaw.noise_inflation(area["mean"], area["mean_std"]))
    weighting = dataclasses.replace(weighting, noise_factor=factor)
    options = {"weighting": weighting, "noise_correlation": seen["noise_correlation"], "draws": 0}
    return thaw.fraction_of_drops(seen["drop"], seen["drop_std"], **options), area


def test_scatter_of_dates_is_the_noise_of_the_area():
    """Delay alike over long ways is read off the dates themselves: the sd of the area's value is right by itself."""
    ratio = []
    for seed in range(6):
        d, std, clean = long_delay(700 + seed)
        _, area = area_noise(d, std, 0.0)
        full = thaw.drops(d, std, WINDOWS)["drop"].sel(window="full")
        real = thaw.area_curve(clean, std, full, thaw.Weighting("others"))["mean"]
        error = (area["mean"] - real).groupby("time.year").map(lambda v: v - v.mean())
        stated = float(thaw.noise_inflation(area["mean"], area["mean_std"])) * area["mean_std"].mean()
        ratio.append(float(stated / np.sqrt((error**2).mean() * 13 / 12)))
    assert np.mean(ratio) == pytest.approx(1, abs=0.1)


def test_long_waves_beside_the_pattern_take_off_delay():
    """Fitting long waves lowers the noise of the fraction several times and leaves its value."""
    d, std, clean = long_delay(720)
    exact = thaw.fraction(clean, 1e-3, WINDOWS, draws=0)["fraction_mean"].sel(window="middle")
    plain, waved = (area_noise(d, std, smooth)[0].sel(window="middle") for smooth in (0.0, 10.0))
    assert float(waved["cv_noise"]) < 0.5 * float(plain["cv_noise"])
    assert abs(float(waved["fraction_mean"] - exact)) < 3 * float(waved["fraction_mean_std"])


def test_area_curve_with_lost_pixels_and_dates():
    """Lost pixels leave their season's curve, an almost empty date is left out, and the noise stays what it was."""
    d, std, _ = long_delay(730)
    full = thaw.drops(d, std, WINDOWS)["drop"].sel(window="full")
    lost = d.copy()
    lost[{"time": 5, "y": slice(0, 4)}] = np.nan
    lost[{"time": 20, "y": slice(0, 30)}] = np.nan
    whole, holed = (thaw.area_curve(v, std, full, thaw.Weighting("others")) for v in (d, lost))
    assert np.flatnonzero(holed["mean"].isnull()).tolist() == [20]
    factors = [float(thaw.noise_inflation(v["mean"], v["mean_std"])) for v in (whole, holed)]
    assert factors[1] == pytest.approx(factors[0], rel=0.2)


@pytest.mark.parametrize(("change", "sd_mm"), [(0.0, 6.0), (0.5, 3.0)])
def test_interval_of_the_change_between_years(change, sd_mm):
    """With long delay: no change is not told from zero, a change of a quarter is found, intervals hold the truth."""
    found, inside = [], []
    for seed in range(7):
        d, std, clean = long_delay(740 + seed, change, sd_mm)
        at = area_noise(d, std, 10.0)[0].sel(window="early")
        true = thaw.fraction(clean, 1e-3, WINDOWS, draws=0)["cv_total"].sel(window="early")
        assert float(at["cv_year_lower"]) <= float(at["cv_year"]) <= float(at["cv_year_upper"])
        found.append(float(at["cv_year_lower"]) > 0)
        inside.append(float(at["cv_year_lower"]) <= float(true) <= float(at["cv_year_upper"]))
    assert np.mean(inside) >= 0.8
    assert np.mean(found) <= 0.2 if change == 0 else np.mean(found) >= 0.5


def test_years_alike_beyond_their_noise_do_not_close_the_interval():
    """A lucky draw, years nearer to each other than noise lets expect, still leaves an upper limit above zero."""
    names, years = ["full", "w"], np.arange(2000, 2009)
    drop = xr.DataArray([40.0, 16.0], {"window": names}, "window") + xr.zeros_like(
        xr.DataArray(np.zeros((9, 3)), {"year": years}, ("year", "x"))
    )
    drop = drop.transpose("year", "window", "x") + np.random.default_rng(1).normal(0, 0.3, (9, 2, 3))
    out = thaw.fraction_of_drops(drop, xr.full_like(drop, 4.0)).sel(window="w")
    assert float(out["cv_year"]) == 0 and float(out["cv_year_upper"]) > 0.02


@pytest.mark.parametrize("bend", [0.0, 0.006, -0.003])
def test_fraction_that_changes_with_the_drop_stays_in_the_interval(bend):
    """Ground that sinks more sinks earlier or later: a slope is off the ratio of means, and the interval says so."""
    rng = np.random.default_rng(6)
    field = signal.convolve(rng.random((40, 40)), np.full((5, 5), 0.04), mode="same")
    size = 30 * ((field - field.min()) / np.ptp(field)) ** 1.5 * (1 + 0.1 * rng.normal(size=(9, 1, 1)))
    part = size * (0.35 + bend * size) * (1 + 0.05 * rng.normal(size=(9, 1, 1)))
    drop = xr.DataArray(np.stack([size, part], axis=1), dims=("year", "window", "y", "x"))
    drop = drop.assign_coords(year=range(2015, 2024), window=["full", "w"]) + rng.normal(0, 2, drop.shape)
    std = xr.full_like(drop, 2.0)
    exact = part.sum() / size.sum()
    weighting_ = thaw.Weighting("others", smooth_cells=20.0)
    at = thaw.fraction_of_drops(drop, std, weighting=weighting_, draws=0).sel(window="w")
    error, weighting = float(at["fraction_mean"]) - exact, float(at["weighting_std"])
    assert abs(error) < stats.t.ppf(0.975, 8) * float(at["fraction_mean_std"])
    assert weighting < 0.02 if bend == 0 else weighting > 0.5 * abs(error)


def test_sources_add_up_to_the_interval():
    """Squares of the four parts give that of the sd; every part is there where it should be."""
    d, std, air, _ = ground("logistic", 4, range(2015, 2023), noise_mm=4.0)
    f = thaw.fraction(d, std, WINDOWS)
    seen = f[["drop", "drop_std"]].sel(window=["middle", "long"])
    for method in ("constant", "degree_day", "joint"):
        out = thaw.scale(seen["drop"], seen["drop_std"], f, method=method, temperature=air)
        parts = [out[f"std_{k}"] for k in ("noise", "year", "estimation", "pixel")]
        np.testing.assert_allclose(sum(p**2 for p in parts), out["full_season_std"] ** 2, rtol=1e-6)
        assert all(float(p.max()) > 0 for p in parts[:3])


def test_joint_follows_years_that_change_more_than_those_it_learnt_from():
    """Seasons that grow fourfold within a mission, as where mining begins, stay in the joint interval."""
    d, std, air, truth = ground("stefan", 31, range(2001, 2024), side=5)
    f = thaw.fraction(d.sel(time=slice("2012", None)), std.sel(time=slice("2012", None)), WINDOWS)
    growth = xr.DataArray(np.linspace(0.5, 2.0, 8), {"year": np.arange(2001, 2009)}, "year")
    past = thaw.drops(d.sel(time=slice("2001", "2008")), 3.0, WINDOWS).sel(window=["long"])
    out = thaw.scale(past["drop"] * growth, past["drop_std"] * growth, f, method="joint", temperature=air)
    real = truth.sel(year=slice(2001, 2008)) * growth
    inside = (out["full_season_lower"] < real) & (real < out["full_season_upper"])
    assert float(inside.mean()) > 0.85


@settings(max_examples=8, deadline=None)
@given(factor=st.floats(0.1, 20))
def test_fractions_do_not_depend_on_the_unit(factor):
    """Twice the drop with twice the sd has the same fractions, and its season is twice as large."""
    d, std, _, _ = ground("two_layers", 6, range(2017, 2022), side=2)
    a, b = thaw.fraction(d, std, WINDOWS, draws=2), thaw.fraction(d * factor, std * factor, WINDOWS, draws=2)
    for name in ("fraction_mean", "cv_year", "cv_noise", "cv_pixel"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6, atol=1e-7)
    one, two = (thaw.scale(f["drop"], f["drop_std"], f).full_season_upper for f in (a, b))
    np.testing.assert_allclose(one * factor, two, rtol=1e-6)


def test_fractions_by_class():
    """Each class of pixels has its own fractions; the classes' mean lies around that of the area."""
    d, std, _, _ = ground("stefan", 2, range(2015, 2021), noise_mm=0.1)
    classes = xr.DataArray(np.where(np.arange(6) < 3, "low", "high"), dims="y").broadcast_like(
        d.isel(time=0, drop=True)
    )
    late = xr.where(classes == "high", 0.5, 1.0) * d.where(d.time.dt.dayofyear > 200, 0) + d.where(
        d.time.dt.dayofyear <= 200, 0
    )
    low, high = (
        thaw.fraction(late.where(classes == name), std, WINDOWS)["fraction_mean"] for name in ("low", "high")
    )
    both = thaw.fraction(late, std, WINDOWS)["fraction_mean"]
    assert high.sel(window="middle") < both.sel(window="middle") < low.sel(window="middle")


def test_missing_dates_and_gaps_are_not_bridged():
    """A pixel uses its own dates; a gap longer than the limit gives NaN, not a guess."""
    d, std, _, _ = ground("linear", 1, range(2018, 2020), noise_mm=0.0)
    hole = d.copy()
    in_gap = (d.time > np.datetime64("2018-06-01")) & (d.time < np.datetime64("2018-07-25"))
    hole[{"y": 0, "x": 0}] = hole[{"y": 0, "x": 0}].where(~in_gap)
    out = thaw.drops(hole, std, WINDOWS)["drop"]
    assert np.isnan(out.sel(year=2018, window="early").isel(y=0, x=0))
    assert np.isfinite(out.sel(year=2018, window="early").isel(y=1, x=1))
    one = thaw.drops(hole.isel(time=slice(None, None, 2)), std.isel(time=slice(None, None, 2)), WINDOWS)
    assert np.isfinite(one["drop"].sel(window="full")).any()


def test_drop_variance_counts_shared_dates():
    """The sd of a drop is that of the weighted dates."""
    rng = np.random.default_rng(0)
    dates = pd.date_range("2020-05-15", "2020-10-08", freq="12D")
    base = xr.DataArray(np.zeros((dates.size, 1, 4000)), {"time": dates}, ("time", "y", "x"))
    noise = base + rng.normal(0, 4, base.shape)
    out = thaw.drops(noise, 4.0, WINDOWS)
    spread = out["drop"].std(["y", "x"], ddof=1)
    np.testing.assert_allclose(out["drop_std"].mean(["y", "x"]), spread, rtol=0.06)
    both = out["drop"].isel(year=0, y=0).transpose("window", "x").values
    np.testing.assert_allclose(out["noise_correlation"], np.corrcoef(both), atol=0.08)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": {"a": ("09-01", "06-01")}}, "does not end after"),
        ({"windows": {"a": ("June", "July")}}, "mm-dd"),
        ({"windows": {"a": ("02-30", "06-01")}}, "not a 'mm-dd' date"),
        ({"displacement": "reversed"}, "sorted"),
        ({"displacement": "static"}, "needs 'time'"),
    ],
)
def test_bad_input_to_fraction(change, message):
    """Wrong windows or dates are named, with what to do."""
    d, *_ = ground("linear", 1, range(2018, 2020))
    bad = {"reversed": d.isel(time=slice(None, None, -1)), "static": d.isel(time=0)}
    with pytest.raises(ValueError, match=message):
        thaw.fraction(bad.get(change.get("displacement"), d), 3.0, change.get("windows", WINDOWS))


def test_bad_input_to_scale():
    """Unknown methods and windows, kelvin, gaps and uncovered years are errors that say so."""
    d, std, air, _ = ground("linear", 1, range(2016, 2022), side=2)
    f = thaw.fraction(d, std, WINDOWS)
    args = (f["drop"], f["drop_std"], f)
    with pytest.raises(ValueError, match="use 'constant'"):
        thaw.scale(*args, method="magic")
    with pytest.raises(ValueError, match="needs `temperature`"):
        thaw.scale(*args, method="joint")
    with pytest.raises(ValueError, match="not in fraction"):
        thaw.scale(f["drop"].assign_coords(window=list("abcde")), f["drop_std"], f)
    with pytest.raises(ValueError, match="kelvin"):
        thaw.scale(*args, method="joint", temperature=air + 273.15)
    with pytest.raises(ValueError, match="fill the gaps"):
        thaw.scale(*args, method="joint", temperature=air.where(air.time.dt.month != 7))
    with pytest.raises(ValueError, match="daily calendar"):
        thaw.scale(*args, method="joint", temperature=air[::2])
    with pytest.raises(ValueError, match="does not cover"):
        thaw.scale(*args, method="joint", temperature=air.sel(time=slice("2018", None)))
    with pytest.raises(ValueError, match="without 'full'"):
        thaw.fraction_of_drops(f["drop"].sel(window=["early"]), f["drop_std"].sel(window=["early"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda drop, std: (drop, -std), "negative"),
        (lambda drop, std: (drop, std.isel(y=0)), "the values have"),
        (lambda drop, std: (drop, std.isel(year=slice(1, None))), "the values have"),
        (lambda drop, std: (-drop, std), "subsidence must be positive"),
    ],
)
def test_reversed_drops_and_sds_of_another_grid_are_refused(change, message):
    """An sd below zero or of another grid, or subsidence given as negative, gives no fraction, season or score."""
    d, std, *_ = ground("linear", 1, range(2016, 2022), side=2)
    f = thaw.fraction(d, std, WINDOWS, draws=0)
    bad = change(f["drop"], f["drop_std"])
    for call in (thaw.fraction_of_drops, thaw.leave_one_year_out, lambda *bad: thaw.scale(*bad, f)):
        options = {"methods": ("constant",)} if call is thaw.leave_one_year_out else {}
        with pytest.raises(ValueError, match=message):
            call(*bad, **options)


def test_displacement_of_reversed_sign_or_with_a_bad_sd_is_refused():
    """Positive-down displacement is told by its fractions; its sd is held to its grid and sign."""
    d, std, *_ = ground("linear", 1, range(2016, 2022), side=2)
    with pytest.raises(ValueError, match="subsidence must be positive"):
        thaw.fraction(-d, std, WINDOWS)
    with pytest.raises(ValueError, match="negative"):
        thaw.drops(d, -3.0, WINDOWS)
    with pytest.raises(ValueError, match="the values have"):
        thaw.drops(d, std.isel(time=slice(1, None)), WINDOWS)


def test_noise_without_subsidence_is_not_taken_for_a_reversed_sign():
    """Ground that does not move gives drops about zero: half of them negative, and no error."""
    d, std, *_ = ground("linear", 1, range(2016, 2022), side=4)
    still = xr.zeros_like(d) + np.random.default_rng(3).normal(0, 3, d.shape)
    assert np.isfinite(thaw.drops(still, std, WINDOWS)["drop"]).all()
    thaw.fraction(still, std, WINDOWS, draws=0)


def test_all_nan_pixels_stay_nan():
    """A pixel without data gives no season, and the others do not notice."""
    d, std, _, _ = ground("stefan", 2, range(2015, 2022))
    d[{"y": 0, "x": 0}] = np.nan
    f = thaw.fraction(d, std, WINDOWS)
    out = thaw.scale(f["drop"], f["drop_std"], f)["full_season"].sel(window="middle")
    assert np.isnan(out.isel(y=0, x=0)).all() and np.isfinite(out.isel(y=1, x=1)).all()


def test_fractions_at_a_real_tundra_site(mirror):
    """GNSS-IR at Utqiagvik, July-September: most of the lowering comes before mid August, every
    window's fractions stay finite and their spread is larger than their noise explains."""
    table = pd.read_csv(mirror / "gnssir_sg27" / "sg27.csv", skipinitialspace=True)
    time = pd.to_datetime((table["year"] * 1000 + table["doy"]).astype(str), format="%Y%j")
    height = xr.DataArray(-1000 * table["rh (m)"].to_numpy(), {"time": time.to_numpy()})
    sd = xr.DataArray(1000 * table["uncertainty (m)"].to_numpy(), height.coords)
    summer = height.time.dt.month.isin([6, 7, 8, 9, 10])
    windows = {"full": ("07-01", "09-20"), "first": ("07-01", "08-10"), "second": ("08-10", "09-20")}
    out = thaw.fraction(height[summer], sd[summer], windows, edge_days=12)
    assert int(out.n_years.sel(window="full")) >= 8
    assert float(out.full_mean.mean()) > 10  # mm, sinking
    sums = out.fraction.sel(window="first") + out.fraction.sel(window="second")
    np.testing.assert_allclose(sums.dropna("year"), 1, atol=1e-6)


def test_stored_fractions_of_sg27_come_from_the_public_heights(mirror):
    """What is computed from the public heights in the windows of notebook 05 is what is stored beside the code."""
    cells = json.loads((io.ROOT / "notebooks" / "05_thaw_scaling.ipynb").read_text())["cells"]
    source = next(c for c in map("".join, (c["source"] for c in cells)) if "thirds = {" in c)
    names = {}
    exec(source[source.index("thirds = {") : source.index("}") + 1], names)
    fresh = thaw.fractions_of_heights(mirror / "gnssir_sg27" / "sg27.csv", names["thirds"])
    fresh = fresh.set_index(["window", "year"])
    stored = pd.read_csv(io.ROOT / "data" / "calibration" / "sg27_fractions.csv").set_index(
        ["window", "year"]
    )
    pd.testing.assert_frame_equal(
        fresh, stored, rtol=1e-4, atol=1e-6, check_dtype=False, check_index_type=False
    )
    assert (stored["cv_year_lower"] <= stored["cv_year"]).all()


@pytest.mark.slow
def test_coverage_over_many_seeds(tmp_path):
    """Coverage of pixels and areas, left-out years and a warmer climate, over 250 seeds a case."""
    rows = []
    for method in ("constant", "degree_day", "joint"):
        for transfer in (False, True):
            for area in (False, True):
                hits, n = coverage(method, range(20_000, 20_250), transfer=transfer, area=area)
                low, high = stats.binomtest(hits, n).proportion_ci(0.95)
                rows.append({"method": method, "transfer": transfer, "area_mean": area, "hits": hits, "n": n})
                rows[-1] |= {"coverage": round(hits / n, 3), "low": round(low, 3), "high": round(high, 3)}
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "thaw_coverage.csv", index=False)
    assert ((table.low <= 0.98) & (table.high >= 0.90)).all(), table.to_string()
