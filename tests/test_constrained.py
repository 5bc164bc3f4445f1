"""What the constrained inversion needs: noise of the ground, a borrowed rate, and the score of unseen pairs."""

import numpy as np
import pandas as pd
import pytest
import test_sbas
import xarray as xr
from scipy import stats

from helpers import constrained, sbas, timefunc

DATES = pd.date_range("2016-01-10", "2019-12-31", freq="12D")
DAYS = 90.0
DELAY_MM = 3.0


def ground(rng, n, deviation, days, season):
    """Rate, annual wave and an AR(1) deviation, (date, pixel) mm."""
    t = timefunc.years(DATES)
    gap = np.abs(np.subtract.outer(DATES.values, DATES.values)) / np.timedelta64(1, "D")
    strays = np.linalg.cholesky(np.exp(-gap / days) + 1e-9 * np.eye(len(t))) @ rng.standard_normal(
        (len(t), n)
    )
    return -5 * t[:, None] + season * np.sin(2 * np.pi * t)[:, None] + deviation * strays


def observed(rng, moved, told_delay=DELAY_MM):
    """Short pairs and pairs of about a year of a displacement (date, pixel), with delay and noise of its coherence."""
    pairs = test_sbas.pairs_of(len(DATES), 3, 1, 30)
    apparent = moved + DELAY_MM * rng.standard_normal(moved.shape)
    stack = test_sbas.make_stack(apparent[:, None], DATES, pairs, coherence=0.6)
    true = sbas.phase_variance(np.array(0.6), stack.attrs["looks"])
    shape = stack["unwrapped_phase"].shape
    stack["unwrapped_phase"] += np.sqrt(true) * rng.standard_normal(shape).astype("float32")
    stack["atmosphere_std"] = ("time", np.full(len(DATES), told_delay))
    stack["pair_std"] = ("pair", np.zeros(len(pairs[0])))
    return stack.assign_coords(time=DATES)


@pytest.fixture(scope="module")
def quiet_and_loud():
    """110 pixels that move and stray little, 110 that do both; the last ten of these also step."""
    rng = np.random.default_rng(11)
    moved = np.hstack([ground(rng, 110, 3.0, DAYS, 2.0), ground(rng, 110, 5.0, DAYS, 25.0)])
    moved[DATES >= "2018-01-01", -10:] -= 60
    stack = observed(rng, moved, told_delay=DELAY_MM / 1.2)
    return stack, constrained.ground_noise(stack, np.random.default_rng(0), classes=2, pixels=20)


def test_ground_noise_is_found_by_class(quiet_and_loud):
    """Deviation within 15 %, correlation time within a factor of two, the delay that was told too small put right."""
    _, noise = quiet_and_loud
    assert (noise["class"].values[0, :110] == 0).mean() > 0.95
    assert noise["deviation_std_mm"].values[0] == pytest.approx(3.0, rel=0.15)
    assert 0.5 < noise["deviation_days"].values[0] / DAYS < 2
    assert noise["delay_factor"].values[0] == pytest.approx(1.2, rel=0.08)


def test_restless_pixels_form_a_class(quiet_and_loud):
    """Pixels with a step stray more than their class and get a noise of their own that is larger."""
    _, noise = quiet_and_loud
    stepped = np.arange(220) >= 210
    assert (noise["class"].values[0] == 2)[stepped].all()
    assert (noise["restlessness"].values[0] > 3)[~stepped].mean() < 0.1
    assert noise["deviation_std_mm"].values[2] > 2 * noise["deviation_std_mm"].values[1]


def test_likelihood_is_that_of_the_pairs():
    """In the space of dates as in that of pairs: differences of the dense restricted log-likelihood."""
    rng = np.random.default_rng(3)
    stack = observed(rng, ground(rng, 2, 2.0, DAYS, 5.0))
    stack["unwrapped_phase"][::7] = np.nan
    dates, first, second = sbas.network_of(stack)
    design = timefunc.parse("linear+annual").design(dates)[:, 1:]
    gap = np.abs(np.subtract.outer(dates.values, dates.values)) / np.timedelta64(1, "D")

    def dense(deviation, days, factor):
        total = 0.0
        for pixel in range(2):
            y = stack["unwrapped_phase"].values[:, 0, pixel] * test_sbas.MM_PER_RAD
            seen = np.isfinite(y)
            a = np.zeros((seen.sum(), len(dates)))
            a[np.arange(len(a)), second[seen]], a[np.arange(len(a)), first[seen]] = 1, -1
            coherence = stack["coherence"].values[seen, 0, pixel]
            own = sbas.phase_variance(coherence, stack.attrs["looks"]) * test_sbas.MM_PER_RAD**2
            dated = deviation**2 * np.exp(-gap / days) + (factor * DELAY_MM) ** 2 * np.eye(len(dates))
            inverse = np.linalg.inv(a @ dated @ a.T + np.diag(own))
            h = a @ design
            information = h.T @ inverse @ h
            p = inverse - inverse @ h @ np.linalg.solve(information, h.T @ inverse)
            sizes = -np.linalg.slogdet(inverse)[1] + np.linalg.slogdet(information)[1]
            total -= 0.5 * (y[seen] @ p @ y[seen] + sizes)
        return total

    found = constrained._Likelihood(stack.isel(y=[0]).rename(y="x", x="y").transpose("pair", ..., "y", "x"))
    cases = [(2.0, 90.0, 1.0), (0.5, 20.0, 1.3), (6.0, 300.0, 0.8)]
    for case in cases[1:]:
        assert found(*case) - found(*cases[0]) == pytest.approx(dense(*case) - dense(*cases[0]), abs=1e-4)


def test_ground_without_season_is_classed_too():
    """Seasonal ranges that are all alike (noise taken off, often zero) still make classes of equally many pixels."""
    rng = np.random.default_rng(4)
    noise = constrained.ground_noise(observed(rng, ground(rng, 20, 0.1, DAYS, 0.0)), rng, classes=2, pixels=4)
    assert (noise["class"] == 0).sum() == (noise["class"] == 1).sum() == 10
    assert (noise["deviation_std_mm"] < 1.5).all() and float(noise["seasonal_mm"][0]) == 0


def test_too_few_pixels_for_classes():
    """A ValueError that says how many there are."""
    rng = np.random.default_rng(3)
    with pytest.raises(ValueError, match="3 pixels"):
        constrained.ground_noise(observed(rng, ground(rng, 3, 1.0, DAYS, 5.0)), rng)


def test_selected_pixels_return_to_their_places():
    """Pixels selected in two parts return to their places; what no part holds is NaN; other fields are untouched."""
    stack = test_sbas.example(n=6, nx=5)
    stack["pair_std"] = ("pair", np.arange(stack.sizes["pair"], dtype=float))
    mask = xr.zeros_like(stack["incidence_angle"], bool)
    mask[0, [1, 3]] = True
    parts = [constrained.select_pixels(stack, mask), constrained.select_pixels(stack, np.array([4, 0]))]
    assert parts[0]["pair_std"].dims == ("pair",) and parts[0]["unwrapped_phase"].shape[1:] == (2, 1)
    back = constrained.put_back([p["unwrapped_phase"] for p in parts], stack)
    expected = stack["unwrapped_phase"].where(stack["x"] != stack["x"][2])
    np.testing.assert_array_equal(back.transpose("pair", "y", "x"), expected)


def test_projection_and_its_error():
    """Vertical motion is scaled by the ratio of the vertical components; the error by eastward motion is stated."""
    grid = {"y": [0.0], "x": [0.0, 1.0]}

    def field(*values):
        return xr.DataArray([list(values)], grid, ("y", "x"))

    rate = xr.Dataset({"rate": field(-8.0, 2.0), "rate_std": field(1.0, 1.0)})
    rate = rate.assign(los_up=field(0.8, 0.8), los_east=field(0.6, 0.6))
    stack = xr.Dataset({"los_up": field(0.8, 0.4), "los_east": field(0.6, -0.6)})
    out = constrained.project_rate(rate, stack, east_std_mm_yr=3.0)
    np.testing.assert_allclose(out["rate"], [[-8, 1]])
    np.testing.assert_allclose(out["fit_std"], [[1, 0.5]])
    np.testing.assert_allclose(out["projection_std"], [[0, 0.9 * 3]])


def test_alignment_recovers_the_plane_and_says_how_well():
    """Over 400 draws offset and tilt scatter as the covariance says; a tenth of gross errors does not matter."""
    rng = np.random.default_rng(5)
    y, x = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 30), indexing="ij")
    own = xr.DataArray(rng.normal(0, 3, y.shape), dims=("y", "x"))
    z = []
    for _ in range(400):
        error = rng.normal(0, 1, y.shape)
        error[rng.random(y.shape) < 0.1] += 15
        rate = own + 1.5 - 0.7 * x + 0.4 * y + rng.normal(0, 1, y.shape)
        rate = rate.where(rng.random(y.shape) > 0.1, rate + rng.choice([-15, 15], y.shape))
        out = constrained.align_rate(rate, own, np.ones(y.shape, bool))
        z.append((out["plane"] - [1.5, -0.7, 0.4]) / np.sqrt(np.diag(out["plane_covariance"])))
    assert np.abs(np.mean(z, axis=0)).max() < 0.2
    assert 0.9 < np.std(z, axis=0).min() and np.std(z, axis=0).max() < 1.15
    wide = constrained.align_rate(rate, own, np.ones(y.shape, bool), patch_pixels=25)
    np.testing.assert_allclose(wide["std"], 5 * out["std"])
    assert wide.attrs["common_std"] == pytest.approx(5 * out.attrs["common_std"])
    assert float(out["std"].max()) > 1.5 * out.attrs["common_std"], "the tilt counts at the edges"


def test_alignment_needs_stable_ground():
    """Fewer than 25 pixels: a ValueError that says so."""
    flat = xr.DataArray(np.zeros((5, 6)), dims=("y", "x"))
    with pytest.raises(ValueError, match="stable ground"):
        constrained.align_rate(flat, flat, np.arange(30).reshape(5, 6) < 20)


def test_what_no_budget_knows_is_measured():
    """An error beyond the stated one is found, an offset counts, agreement gives the least, ignorance the assumed."""
    rng = np.random.default_rng(7)
    own, std, own_std = rng.normal(-5, 3, 20000), np.full(20000, 0.8), np.full(20000, 0.4)

    def found(extra, offset=0.0, own_std=own_std):
        seen = own + 0.4 * rng.standard_normal(20000)
        prior = own + offset + np.hypot(0.8, extra) * rng.standard_normal(20000)
        return constrained.unexplained_std(prior, std, seen, own_std, assumed=1.6)

    assert found(1.5) == pytest.approx(1.5, rel=0.03)
    assert found(0.0) == 0.3
    assert found(0.0, offset=4.0) > 2
    assert found(1.5, own_std=np.full(20000, 3.0)) == 1.6


def test_estimates_are_those_of_the_inversion(quiet_and_loud):
    """Each name is the inversion it says; the hard one is the prior itself, and no prior is no estimate."""
    stack, noise = quiet_and_loud
    part = constrained.select_pixels(stack, np.arange(8))
    given = constrained.noise_of(noise, 0)
    mean, std = np.full((8, 1), -4.0), np.full((8, 1), 0.5)
    mean[3] = np.nan
    names = ("linear", "hard prior", "soft prior", "long pairs", "joint")
    runs = dict(constrained.estimates(part, (mean, std), given, names=names))
    assert tuple(runs) == names
    for name in ("hard prior", "soft prior"):
        assert np.isnan(runs[name]["rate"].values[3, 0])
    np.testing.assert_allclose(np.delete(runs["hard prior"]["rate"].values, 3, axis=0), -4, atol=1e-5)
    assert runs["joint"]["rate"].values[3] == pytest.approx(runs["long pairs"]["rate"].values[3], abs=1e-4)
    options = {"deviation_std_mm": given["deviation_std_mm"], "deviation_days": given["deviation_days"]}
    plain = sbas.invert(part, atmosphere_std_mm=DELAY_MM / 1.2 * given["delay_factor"], **options)
    np.testing.assert_allclose(runs["long pairs"]["rate"], plain["rate"], atol=1e-4)
    variance = plain["rate_std"].values[0, 0] ** 2
    weight = variance / (variance + 0.25)
    expected = plain["rate"].values[0, 0] + weight * (-4 - plain["rate"].values[0, 0])
    assert runs["joint"]["rate"].values[0, 0] == pytest.approx(expected, abs=1e-3)


def test_late_summers_take_the_noise_of_their_own_pairs():
    """The standard deviations of all pairs may be given: those of the pairs chosen are used."""
    dates = pd.date_range("2015-01-05", "2021-12-31", freq="12D")
    stack = test_sbas.make_stack(test_sbas.curve(dates), dates, test_sbas.pairs_of(len(dates), 2, 1, 30))
    noise = np.where(np.arange(stack.sizes["pair"]) % 2, 5.0, 0.5)
    used = sbas.summer_to_summer(stack, pair_std_mm=noise)
    names = [
        f"{a:%Y%m%d}_{b:%Y%m%d}"
        for a, b in zip(*(pd.DatetimeIndex(stack[c].values) for c in ("reference", "secondary")), strict=True)
    ]
    kept = np.isin(names, used.attrs["pairs_used"].split())
    alone = sbas.summer_to_summer(stack.isel(pair=np.flatnonzero(kept)), pair_std_mm=noise[kept])
    np.testing.assert_array_equal(used["rate_late_summer_std"], alone["rate_late_summer_std"])


def test_log_score_is_the_density_of_unseen_pairs(quiet_and_loud):
    """By hand for one pair; the noise found predicts better than less or more; an outlier costs a bounded sum."""
    stack, noise = quiet_and_loud
    part = constrained.select_pixels(stack, np.arange(30))
    days = (part["secondary"] - part["reference"]).values / np.timedelta64(1, "D")
    train, test = part.isel(pair=days < 200), part.isel(pair=days >= 200)
    given = constrained.noise_of(noise, 0)
    _, run = next(constrained.estimates(train, (np.nan, np.nan), given, names=("long pairs",)))
    score = constrained.log_score(run, "long pairs", test, given)
    ends = [pd.DatetimeIndex(test[c].values)[:1] for c in ("reference", "secondary")]
    form = timefunc.parse("linear+annual")
    step = (form.design(ends[1]) - form.design(ends[0]))[0, 1:]
    covariance = run["coefficients_covariance"].values[:, :, 0, 0]
    variance = step @ covariance @ step
    gone = 1 - np.exp(-(ends[1] - ends[0]).days[0] / given["deviation_days"])
    variance += 2 * given["deviation_std_mm"] ** 2 * gone
    variance += 2 * (DELAY_MM / 1.2 * given["delay_factor"]) ** 2
    variance += sbas.phase_variance(np.array(0.6), part.attrs["looks"]) * test_sbas.MM_PER_RAD**2
    mean = step @ run["coefficients"].values[:, 0, 0]
    value = float(test["unwrapped_phase"][0, 0, 0]) * test_sbas.MM_PER_RAD
    density = stats.norm.pdf(value, mean, np.sqrt(variance))
    by_hand = np.log(0.98 * density + 0.02 / (2000 * part.attrs["wavelength_m"]))
    assert score[0, 0] == pytest.approx(by_hand, abs=1e-5)
    for factor in (0.4, 2.5):
        other = given | {k: given[k] * factor for k in ("deviation_std_mm", "delay_factor")}
        assert constrained.log_score(run, "long pairs", test, other).mean() < score.mean()
    test["unwrapped_phase"][0, 0, 0] += 300
    assert constrained.log_score(run, "long pairs", test, given)[0, 0] > -9


def test_rate_prior_is_the_product_of_two_normals():
    """Precisions add up; a hard prior is handed on whole, one of infinite width does nothing."""
    free = xr.Dataset({"rate": ("x", [2.0, -1.0]), "rate_std": ("x", [1.0, 3.0])})
    mean = xr.DataArray([0.0, 5.0], dims="x")
    found = constrained.with_rate_prior(free, mean, 2.0)
    precision = 1 / free["rate_std"] ** 2 + 1 / 4
    np.testing.assert_allclose(found["rate_std"], precision**-0.5)
    np.testing.assert_allclose(found["rate"], (free["rate"] / free["rate_std"] ** 2 + mean / 4) / precision)
    np.testing.assert_allclose(constrained.with_rate_prior(free, mean, 0.0)["rate"], mean)
    np.testing.assert_allclose(constrained.with_rate_prior(free, mean, np.inf)["rate"], free["rate"])


def test_shares_of_the_precision_add_up_to_one():
    """Short pairs, long pairs and prior by their own precisions; the rest of a stiffer form is its shape."""
    precision = {"linear": 9.0, "linear+annual+semiannual": 1.0, "no prior": 1.0, "soft prior": 4.0}
    precision |= {"long pairs": 3.0, "joint": 6.0}
    std = np.array(list(precision.values()))[:, None, None] ** -0.5 * np.ones((1, 2, 2))
    std = xr.DataArray(std, {"estimator": list(precision)}, ("estimator", "y", "x"))
    share = constrained.precision_shares(std)["mean"].unstack("source")
    np.testing.assert_allclose(share.sum(axis=1), 1)
    assert share.loc["linear", "shape"] == pytest.approx(8 / 9)
    assert share.loc["soft prior", "prior"] == pytest.approx(3 / 4)
    assert share.loc["joint", "long pairs"] == pytest.approx(2 / 6)
    assert share.loc["joint", "prior"] == pytest.approx(3 / 6)
