"""The inversion: exact against dense algebra, honest where data are missing, right where known tools are wrong."""

import dense_sbas
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from helpers import sbas, timefunc

WAVELENGTH_M = 0.0555
MM_PER_RAD = -1000 * WAVELENGTH_M / (4 * np.pi)


def pairs_of(n, depth, long_step=0, long_length=30):
    """Every date with the next ``depth``; every ``long_step``-th also with the one ``long_length`` later."""
    pairs = [(i, j) for i in range(n) for j in range(i + 1, min(n, i + 1 + depth))]
    if long_step:
        pairs += [(i, i + long_length) for i in range(0, n - long_length, long_step)]
    return np.array(pairs).T


def make_stack(displacement, dates, pairs, *, coherence=None, noise_rad=0.0, missing=0.0, looks=20.0, seed=0):
    """Stack of the pairs of a known (time, y, x) displacement in mm; Gaussian noise, random gaps."""
    rng = np.random.default_rng(seed)
    first, second = pairs
    phase = (displacement[second] - displacement[first]) / MM_PER_RAD
    phase = phase + noise_rad * rng.standard_normal(phase.shape)
    phase[rng.random(phase.shape) < missing] = np.nan
    if coherence is None:
        coherence = rng.uniform(0.2, 0.95, phase.shape)
    ny, nx = phase.shape[1:]
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase.astype("float32")),
            "coherence": (("pair", "y", "x"), np.broadcast_to(coherence, phase.shape).astype("float32")),
            "incidence_angle": (("y", "x"), np.full((ny, nx), 38.0)),
        },
        coords={
            "reference": ("pair", dates[first]),
            "secondary": ("pair", dates[second]),
            "perpendicular_baseline": ("pair", rng.normal(0, 60, len(first))),
            "y": np.arange(ny) * -100.0,
            "x": np.arange(nx) * 100.0,
        },
        attrs={"wavelength_m": WAVELENGTH_M, "looks": looks, "sensor": "s1_desc"},
    )


def curve(dates, rate=-8.0, annual=(10.0, 4.0)):
    """Displacement since the first date of a rate and an annual cycle, mm (time, 1, 1)."""
    t = timefunc.years(dates)
    d = rate * t + annual[0] * np.sin(2 * np.pi * t) + annual[1] * np.cos(2 * np.pi * t)
    return (d - d[0])[:, None, None]


def example(n=30, nx=8, seed=0, **options):
    """A rough little stack: trend, season, 1 mm of rubbish, noise, many gaps."""
    dates = pd.date_range("2017-01-05", periods=n, freq="12D")
    rng = np.random.default_rng(seed)
    truth = curve(dates) + rng.normal(0, 1, (n, 1, nx))
    pairs = options.pop("pairs", pairs_of(n, 4))
    return make_stack(truth, dates, pairs, seed=seed, **({"noise_rad": 0.3, "missing": 0.5} | options))


DELAY = np.linspace(0.5, 4, 30)
MODES = {
    "default": {},
    "classical": {"model": None},
    "classical, delay": {"model": None, "atmosphere_std_mm": DELAY},
    "classical, unweighted": {"model": None, "weights": None},
    "interpolation": {"deviation_std_mm": None},
    "interpolation, unweighted": {"deviation_std_mm": None, "weights": None, "atmosphere_std_mm": 2.0},
    "interpolation, height": {"deviation_std_mm": None, "dem_error": True, "atmosphere_std_mm": DELAY},
    "linear": {"model": "linear", "deviation_std_mm": 1.0},
    "semiannual": {"model": "linear+annual+semiannual"},
    "unweighted": {"weights": None},
    "delay": {"atmosphere_std_mm": DELAY},
    "height, delay": {"dem_error": True, "atmosphere_std_mm": DELAY},
    "correlated": {"deviation_days": 30.0},
    "correlated, height": {"deviation_days": 30.0, "dem_error": True},
    "correlated, delay": {"deviation_days": 30.0, "atmosphere_std_mm": DELAY},
    "everything": {
        "deviation_days": 30.0,
        "atmosphere_std_mm": DELAY,
        "dem_error": True,
        "rate_prior": (-5.0, 2.0),
    },
    "prior": {"rate_prior": (-5.0, 2.0)},
    "hard prior": {"rate_prior": (-5.0, 0.0)},
    "no prior": {"rate_prior": (-5.0, np.inf)},
}


@pytest.mark.parametrize("network", ["short", "short and long"])
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_dense_least_squares(mode, network):
    """Every mode returns what plain dense algebra does to 1e-6: estimates, standard deviations, gaps, statistics."""
    stack = example(nx=6) if network == "short" else example(nx=6, pairs=pairs_of(30, 3, 1, 25), missing=0.4)
    found = sbas.invert(stack, **MODES[mode])
    expected = dense_sbas.invert(stack, **MODES[mode])
    for name, value in expected.items():
        ours = found[name].values.reshape(value.shape).astype(float)
        # float32 results of float32 phases: 1e-6 of the value, and of the series' size where the value is near zero
        scale = np.nanmax(np.abs(value)) if np.isfinite(value).any() else 1.0
        np.testing.assert_allclose(ours, value, rtol=1e-6, atol=2e-7 * scale, err_msg=name)


def test_prior_weight_and_conflict_are_the_closed_form():
    """With S the unconstrained variance: weight S/(S+s2), rate v + w (prior - v), variance S s2/(S+s2), z in sd."""
    stack = example()
    mean, std = -5.0, 2.0
    out = sbas.invert(stack, rate_prior=(mean, std))
    free = sbas.invert(stack)
    s = free["rate_std"] ** 2
    xr.testing.assert_allclose(out["rate_unconstrained"], free["rate"], rtol=1e-6)
    np.testing.assert_allclose(out["prior_weight"], s / (s + std**2), rtol=1e-5)
    np.testing.assert_allclose(
        out["rate"], free["rate"] + s / (s + std**2) * (mean - free["rate"]), rtol=1e-5
    )
    np.testing.assert_allclose(out["rate_std"], np.sqrt(s * std**2 / (s + std**2)), rtol=1e-5)
    np.testing.assert_allclose(out["prior_conflict"], (mean - free["rate"]) / np.sqrt(s + std**2), rtol=1e-5)


def test_biased_prior_passes_by_its_weight():
    """A prior off by beta moves the rate by weight times beta, and no more."""
    stack = example()
    right, wrong = (sbas.invert(stack, rate_prior=(mean, 2.0)) for mean in (-8.0, -4.0))
    np.testing.assert_allclose(wrong["rate"] - right["rate"], 4 * right["prior_weight"], rtol=1e-4)


def test_hard_prior_is_the_limit_of_a_tight_one():
    """std 0: rate is the prior, its std 0, its weight 1, and the series that of a vanishing std."""
    stack = example()
    hard, tight = (sbas.invert(stack, rate_prior=(-5.0, std)) for std in (0.0, 1e-5))
    assert (hard["rate"] == -5).all() and (hard["rate_std"] == 0).all() and (hard["prior_weight"] == 1).all()
    np.testing.assert_allclose(hard["displacement"], tight["displacement"], atol=1e-3)
    np.testing.assert_allclose(hard["displacement_std"], tight["displacement_std"], rtol=1e-4)


def test_infinite_or_missing_prior_is_none():
    """std inf, or NaN in a map, leaves a pixel as without prior: weight 0, no conflict."""
    stack = example()
    std = np.full((1, 8), np.inf)
    std[0, 0] = np.nan
    out, free = sbas.invert(stack, rate_prior=(np.full((1, 8), -5.0), std)), sbas.invert(stack)
    xr.testing.assert_equal(out["rate"], free["rate"])
    xr.testing.assert_equal(out["displacement_std"], free["displacement_std"])
    assert (out["prior_weight"] == 0).all() and out["prior_conflict"].isnull().all()


def test_prior_maps_act_per_pixel():
    """Arrays (y, x) give every pixel its own prior."""
    stack = example()
    mean, std = np.linspace(-9, -2, 8)[None], np.linspace(0, 3, 8)[None]
    both = sbas.invert(stack, rate_prior=(mean, std))
    one = sbas.invert(stack.isel(x=[5]), rate_prior=(mean[0, 5], std[0, 5]))
    xr.testing.assert_equal(both.isel(x=[5]), one)


def test_prior_determines_what_data_leave_open():
    """Three dates cannot hold rate, sine and cosine: NaN; with a prior they are solved, the rate is the prior's."""
    dates = pd.date_range("2020-06-01", periods=3, freq="12D")
    stack = make_stack(curve(dates), dates, np.array([[0, 0, 1], [1, 2, 2]]), coherence=0.8)
    free, out = sbas.invert(stack), sbas.invert(stack, rate_prior=(-8.0, 2.0))
    for name in ("rate", "rate_std", "displacement", "displacement_std", "peak_to_peak"):
        assert free[name].isnull().all(), name
    assert out["rate_unconstrained"].isnull().all() and out["prior_conflict"].isnull().all()
    assert out["prior_weight"] == 1 and out["rate_std"] == 2 and out["rate"].item() == pytest.approx(-8)
    np.testing.assert_allclose(out["displacement"], curve(dates), atol=0.01)


# -- gaps ---------------------------------------------------------------------------------------------------------


def winterless(years=4, lost=(2018, 2019)):
    """Dates every 12 days, pairs of depth 3, without the pairs that touch two whole winters."""
    dates = pd.date_range("2017-01-05", periods=int(years * 30.4), freq="12D")
    first, second = pairs_of(len(dates), 3)
    winter = [(dates >= f"{y}-11-01") & (dates < f"{y + 1}-04-15") for y in lost]
    gone = np.logical_or.reduce(winter)
    keep = ~(gone[first] | gone[second])
    return dates, np.array([first[keep], second[keep]])


@pytest.mark.parametrize("deviation", [5.0, None])
@pytest.mark.parametrize("weights", ["coherence", None])
def test_recovers_truth_in_the_models_span_through_lost_winters(deviation, weights):
    """Noise-free rate + annual, two winters lost: displacement to 0.1 mm and rate to 0.05 mm/yr, gaps included."""
    dates, pairs = winterless()
    truth = curve(dates, rate=-12.0, annual=(-15.0, 8.0))
    every = np.unique(pairs)
    kept = dates[every]
    lookup = np.full(len(dates), -1)
    lookup[every] = np.arange(len(every))
    stack = make_stack(truth[every] - truth[every[0]], kept, lookup[pairs])
    out = sbas.invert(stack, deviation_std_mm=deviation, weights=weights)
    assert out["filled"].any() and out["data_component"].max() == 2
    assert np.abs(out["displacement"] - (truth[every] - truth[every[0]])).max() < 0.1
    assert np.abs(out["rate"] + 12).max() < 0.05
    assert np.abs(out["peak_to_peak"] - 2 * np.hypot(15, 8)).max() < 0.1


def test_dates_without_any_pair_of_a_pixel_are_filled_and_open():
    """A pixel that loses a winter: those dates are filled, components are numbered by date, the sd opens there."""
    dates = pd.date_range("2017-01-05", periods=92, freq="12D")
    pairs = pairs_of(92, 3)
    winter = (dates >= "2018-11-01") & (dates < "2019-04-15")
    stack = make_stack(np.tile(curve(dates), (1, 1, 2)), dates, pairs, coherence=0.7)
    touched = winter[pairs[0]] | winter[pairs[1]]
    stack["unwrapped_phase"][touched, 0, 1] = np.nan
    out = sbas.invert(stack).isel(y=0)
    full, gapped = out.isel(x=0), out.isel(x=1)
    assert not full["filled"].any() and (full["data_component"] == 0).all()
    after = int(np.flatnonzero(winter)[-1]) + 1
    assert (gapped["data_component"][: np.argmax(winter)] == 0).all()
    assert gapped["filled"][winter].all() and gapped["filled"][after:].all()
    own = gapped["data_component"].values
    assert np.all(np.diff(own[winter]) == 1) and len(set(own[after:])) == 1
    assert (gapped["displacement_model_std"][winter] > 3 * full["displacement_model_std"][winter]).all()
    assert (gapped["n_pairs"] == (~touched).sum()) and full["n_pairs"] == len(touched)


def test_vanishing_weight_leaves_connected_data_alone():
    """Interpolation only: where data join all dates the series is that of classical SBAS, whatever the model."""
    stack = example(missing=0.0)
    plain = sbas.invert(stack, model=None)
    filled = sbas.invert(stack, "linear", deviation_std_mm=None)
    xr.testing.assert_equal(plain["displacement"], filled["displacement"])
    xr.testing.assert_equal(plain["rate"], filled["rate"])
    assert filled["displacement_model_std"].isnull().all()


def test_interpolation_is_the_limit_of_a_loose_model():
    """deviation_std_mm None is where a growing deviation leads (1e4 mm, still well conditioned: nothing cancels)."""
    stack = example(missing=0.3)
    limit, loose = sbas.invert(stack, deviation_std_mm=None), sbas.invert(stack, deviation_std_mm=1e4)
    np.testing.assert_allclose(limit["displacement"], loose["displacement"], atol=2e-3)


def test_interpolation_gives_no_sigma_for_filled_dates():
    """displacement_std propagates data noise only, and is NaN exactly where dates are filled."""
    out = sbas.invert(example(missing=0.75), deviation_std_mm=None)
    assert out["filled"].any()
    assert (out["displacement_std"].isnull() == out["filled"]).all() and out["displacement"].notnull().all()


def test_classical_sbas_says_nothing_beyond_the_first_component():
    """model None: NaN where a date is not joined to the first, no rate where the network falls apart."""
    out = sbas.invert(example(missing=0.75), model=None)
    broken = out["filled"].any("time")
    assert broken.any() and (out["displacement"].isnull() == out["filled"]).all()
    assert (out["rate"].isnull() == broken).all() and out["peak_to_peak"].isnull().all()


def test_pixel_without_data_is_nan():
    """No pair at all: NaN, zero pairs, component -1; its neighbours do not notice."""
    stack = example()
    stack["unwrapped_phase"][:, 0, 3] = np.nan
    for options in ({}, {"model": None}, {"deviation_std_mm": None}, {"rate_prior": (-5.0, 1.0)}):
        out = sbas.invert(stack, **options).isel(y=0)
        empty = out.isel(x=3)
        for name in (
            "displacement",
            "displacement_std",
            "rate",
            "rate_std",
            "temporal_coherence",
            "residual_rms",
        ):
            assert empty[name].isnull().all(), name
        assert empty["n_pairs"] == 0 and (empty["data_component"] == -1).all()
        others = [0, 1, 2, 4, 5, 6, 7]
        alone = sbas.invert(stack.isel(x=others), **options).isel(y=0)
        xr.testing.assert_equal(out.isel(x=others), alone)


def test_first_date_is_zero_without_error():
    """The datum: displacement 0 and std 0 in every mode."""
    for options in MODES.values():
        out = sbas.invert(example(), **options).isel(time=0)
        assert (out["displacement"] == 0).all() and (out["displacement_std"] == 0).all()


# -- one result, however it is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"model": None}, {"rate_prior": (-5.0, 2.0), "deviation_days": 20.0}]
)
def test_dask_equals_numpy(options):
    """Chunked input gives a lazy result, equal to the last bit."""
    stack = example(nx=37)
    lazy = sbas.invert(stack.chunk({"pair": 11, "x": 10}), **options)
    assert all(
        hasattr(lazy[name].data, "dask") for name in ("displacement", "rate", "filled", "peak_to_peak")
    )
    xr.testing.assert_identical(lazy.compute(), sbas.invert(stack, **options))


def test_result_does_not_depend_on_threads(monkeypatch):
    """One thread, two and three, and a pixel alone, give the same bits."""
    stack, out = example(nx=700, n=12), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(sbas.numba, "get_num_threads", lambda threads=threads: threads)
        out.append(sbas.invert(stack))
    alone = sbas.invert(stack.isel(x=[650]))
    for result in out:
        xr.testing.assert_identical(result, out[0])
        xr.testing.assert_identical(result.isel(x=[650]), alone)


@pytest.mark.parametrize("options", [{"model": None}, {"deviation_std_mm": None}])
def test_complete_unweighted_pixels_share_a_factor(options):
    """Pixels with every pair and equal weights take a short cut: same bits as beside a pixel that lacks one."""
    whole = example(nx=90, missing=0.0)
    holed = whole.copy(deep=True)
    holed["unwrapped_phase"][5, 0, ::9] = np.nan
    keep = np.arange(90) % 9 != 0
    a, b = (sbas.invert(stack, weights=None, **options).isel(x=keep) for stack in (whole, holed))
    xr.testing.assert_identical(a, b)
    expected = dense_sbas.invert(whole.isel(x=keep), weights=None, **options)
    np.testing.assert_allclose(a["displacement"][:, 0], expected["displacement"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(a["rate_std"][0], expected["rate_std"], rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"rate_prior": (-5.0, 3.0)},
        {"weights": None},
        {"model": None, "weights": None},
        {"deviation_std_mm": None, "weights": None},
        {"deviation_std_mm": None},
    ],
)
@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_estimates_do_not_depend_on_statistics(options, missing):
    """Series, rates and their standard deviations are the same where statistics are left out."""
    stack = example(missing=missing)
    whole, lean = (sbas.invert(stack, statistics=wanted, **options) for wanted in (True, False))
    gone = {*sbas.STATISTICS, "filled", "peak_to_peak", "peak_to_peak_std"}
    assert set(whole.data_vars) - set(lean.data_vars) == gone
    for name, values in lean.data_vars.items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_order_of_pairs_does_not_matter():
    """Shuffled pairs give the same result to rounding."""
    stack = example()
    shuffled = stack.isel(pair=np.random.default_rng(1).permutation(stack.sizes["pair"]))
    a, b = sbas.invert(stack), sbas.invert(shuffled)
    np.testing.assert_allclose(a["displacement"], b["displacement"], atol=1e-5)
    np.testing.assert_allclose(a["rate_std"], b["rate_std"], rtol=1e-6)


def test_units_signs_and_attributes():
    """Phase away from the satellite is displacement away: negative; CF units; what later notebooks read is there."""
    dates = pd.date_range("2020-01-01", periods=3, freq="12D")
    stack = make_stack(np.zeros((3, 1, 1)), dates, np.array([[0, 1], [1, 2]]))
    stack["unwrapped_phase"][:] = 2 * np.pi
    out = sbas.invert(stack, model=None, weights=None)
    np.testing.assert_allclose(out["displacement"].squeeze(), [0, -27.75, -55.5], rtol=1e-6)
    assert out["displacement"].dtype == "float32" and out["displacement"].dims == ("time", "y", "x")
    assert out["displacement"].attrs["units"] == "mm" and out["rate"].attrs["units"] == "mm yr-1"
    assert {"rate_start", "rate_end", "sensor", "wavelength_m", "model"} <= set(out.attrs)
    assert (out.attrs["rate_start"], out.attrs["rate_end"]) == ("2020-01-01", "2020-01-25")


# -- noise ---------------------------------------------------------------------------------------------------------


def test_phase_variance_is_that_of_simulated_speckle():
    """Variance by coherence and looks equals that of simulated multilooked circular Gaussian speckle."""
    rng = np.random.default_rng(2)
    for coherence, looks in ((0.3, 8), (0.6, 3), (0.85, 5)):
        a, b = (rng.standard_normal((2, 40_000, looks, 2)) @ [1, 1j])[:2]
        product = (a * np.conj(coherence * a + np.sqrt(1 - coherence**2) * b)).sum(axis=1)
        simulated = np.mean(np.angle(product) ** 2)
        # fourth moments of the phase are at most 12 times the squared variance: 4 sd of the sample variance
        assert sbas.phase_variance(coherence, looks, debias=False) == pytest.approx(
            simulated, rel=4 * np.sqrt(11 / 4e4)
        )


def test_phase_variance_exceeds_the_cramer_rao_form():
    """At coherence 0.3 and 32 looks the Cramer-Rao sd is 12-17 % low; at 0.9 both agree within 2 %; uniform at 0."""
    cramer_rao = [np.sqrt((1 - g**2) / (64 * g**2)) for g in (0.3, 0.9)]
    exact = np.sqrt(sbas.phase_variance(np.array([0.3, 0.9]), 32, debias=False))
    assert 1.12 < exact[0] / cramer_rao[0] < 1.18
    assert exact[1] / cramer_rao[1] == pytest.approx(1, abs=0.02)
    assert sbas.phase_variance(0.0, 32) == pytest.approx(np.pi**2 / 3)
    assert sbas.phase_variance(np.nan, 32) == pytest.approx(np.pi**2 / 3)


def test_low_coherence_estimates_are_debiased():
    """Mean sample coherence of pure noise at 5 looks is about 0.4: such a pair must weigh as noise."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 20_000, 5, 2)) @ [1, 1j]
    estimate = np.abs((a * b.conj()).sum(1)) / np.sqrt((abs(a) ** 2).sum(1) * (abs(b) ** 2).sum(1))
    assert sbas.phase_variance(estimate.mean() - 0.01, 5) == pytest.approx(np.pi**2 / 3, rel=1e-3)
    assert sbas.phase_variance(estimate.mean(), 5, debias=False) < 2.2


# -- defects of others, one by one (each is a bug found in a released tool) -----------------------------------------


def test_d1_series_std_of_weighted_inversion_is_finite():
    """D1: the weighted inversion's per-date errors exist (a peer returned NaN for all)."""
    out = sbas.invert(example())
    assert out["displacement_std"].notnull().all() and (out["displacement_std"][1:] > 0).all()


def test_d2_degrees_of_freedom_count_data_only():
    """D2: unit variance is estimated over pairs minus unknown increments; over draws its mean is the true variance."""
    dates = pd.date_range("2020-01-01", periods=12, freq="12D")
    truth = np.zeros((12, 1, 4000))
    stack = make_stack(truth, dates, pairs_of(12, 3), noise_rad=0.2, seed=5)
    out = sbas.invert(stack, model=None, weights=None)
    z = (out["displacement"] / out["displacement_std"])[1:]
    truth_std = out["displacement"][-1].std()
    assert np.sqrt((out["displacement_std"][-1] ** 2).mean()) == pytest.approx(float(truth_std), rel=0.05)
    assert np.isfinite(z).all()


def test_d3_gap_at_the_first_date_keeps_its_sign():
    """D3: an isolated first date is filled from the model, with the right sign and size."""
    dates = pd.date_range("2019-01-01", periods=60, freq="12D")
    pairs = pairs_of(60, 3)
    truth = curve(dates)
    stack = make_stack(truth, dates, pairs, coherence=0.8)
    stack["unwrapped_phase"][pairs[0] == 0] = np.nan
    for deviation in (5.0, None):
        out = sbas.invert(stack, deviation_std_mm=deviation)
        assert out["filled"][1:].all() and not out["filled"][0].any()
        np.testing.assert_allclose(out["displacement"], truth, atol=0.05)


def test_d4_vanishing_weight_keeps_rate_through_gaps():
    """D4: no cut-off of small singular values: a 5 mm/yr error of the rate in gapped networks does not occur."""
    dates, pairs = winterless()
    every, index = np.unique(pairs, return_inverse=True)
    truth = curve(dates, rate=-20.0, annual=(0.0, 0.0))[every]
    stack = make_stack(truth - truth[0], dates[every], index.reshape(pairs.shape))
    assert np.abs(sbas.invert(stack, "linear", deviation_std_mm=None)["rate"] + 20).max() < 0.01


@pytest.mark.parametrize("options", [{}, {"model": None, "weights": None}])
def test_d6_invalid_components_are_censored(options):
    """D6: a 2 pi jump flagged component 0 does not leak into the series."""
    stack = example(missing=0.0, noise_rad=0.0)
    bad = stack.copy(deep=True)
    bad["unwrapped_phase"][7] += 2 * np.pi
    component = np.ones(bad["unwrapped_phase"].shape, "int16")
    component[7] = 0
    bad["component"] = ("pair", "y", "x"), component
    expected = stack.copy(deep=True)
    expected["unwrapped_phase"][7] = np.nan
    xr.testing.assert_equal(
        sbas.invert(bad, **options)["displacement"], sbas.invert(expected, **options)["displacement"]
    )


def test_d7_coherent_pairs_weigh_more():
    """D7: of two contradicting ways between dates, the series follows the coherent one."""
    dates = pd.date_range("2020-01-01", periods=3, freq="12D")
    stack = make_stack(np.zeros((3, 1, 1)), dates, np.array([[0, 1, 0], [1, 2, 2]]))
    stack["unwrapped_phase"][2] = 10.0 / MM_PER_RAD
    stack["coherence"][:] = np.array([0.9, 0.9, 0.2])[:, None, None]
    assert abs(sbas.invert(stack, model=None)["displacement"][-1, 0, 0]) < 0.5


def test_d8_covariance_is_that_of_the_weighted_estimate():
    """D8: displacement_std of the weighted estimate is the inverse weighted normal matrix's, not the unweighted's."""
    stack = example(missing=0.0, nx=1)
    _, first, second = sbas.network_of(stack)
    variance = sbas.phase_variance(stack["coherence"].values.ravel(), 20.0) * MM_PER_RAD**2
    a = np.zeros((len(first), 30))
    a[np.arange(len(first)), first], a[np.arange(len(first)), second] = -1, 1
    expected = np.sqrt(np.diag(np.linalg.inv(a[:, 1:].T @ (a[:, 1:] / variance[:, None]))))
    np.testing.assert_allclose(
        sbas.invert(stack, model=None)["displacement_std"][1:, 0, 0], expected, rtol=1e-5
    )


def test_d9_variances_scale_with_the_square_of_the_wavelength():
    """D9: twice the wavelength, same phases: twice the displacement and twice its std, at every step."""
    stack = example(missing=0.0)
    double = stack.assign_attrs(wavelength_m=2 * WAVELENGTH_M)
    a, b = sbas.invert(stack, model=None), sbas.invert(double, model=None)
    for name in ("displacement", "displacement_std", "rate", "rate_std", "residual_rms"):
        np.testing.assert_allclose(b[name], 2 * a[name], rtol=1e-5)


def test_d10_one_missing_sample_spoils_nothing():
    """D10: one NaN in the stack changes its own pixel by little and all others not at all."""
    stack = example(missing=0.0, noise_rad=0.0)
    holed = stack.copy(deep=True)
    holed["unwrapped_phase"][11, 0, 2] = np.nan
    a, b = sbas.invert(stack), sbas.invert(holed)
    xr.testing.assert_equal(a.drop_isel(x=2), b.drop_isel(x=2))
    assert abs(a["rate"] - b["rate"]).max() < 0.5 and b["rate"].notnull().all()


def test_d11_phase_zero_is_a_value():
    """D11: exact zeros are data: a pixel that does not move is solved as such, from all its pairs."""
    stack = example(missing=0.0)
    stack["unwrapped_phase"][:, 0, 0] = 0.0
    out = sbas.invert(stack).isel(y=0, x=0)
    assert out["n_pairs"] == stack.sizes["pair"]
    assert (out["displacement"] == 0).all() and out["rate"] == 0 and out["displacement_std"][1:].min() > 0


def test_d13_classical_and_degree_day_models_run():
    """D13: the models a peer offers but cannot run: no model at all, and the degree-day shape."""
    dates = pd.date_range("2018-01-05", periods=60, freq="12D")
    temperature = daily_temperature()
    shape = timefunc.Model.named("linear+degree_day", temperature).design(dates)
    truth = (-6 * shape[:, 2] + 30 * shape[:, 1])[:, None, None]
    stack = make_stack(truth - truth[0], dates, pairs_of(60, 4), coherence=0.8)
    out = sbas.invert(stack, "linear+degree_day", temperature=temperature)
    assert out["rate"].item() == pytest.approx(-6, abs=0.01)
    assert out["peak_to_peak"].item() == pytest.approx(30, abs=0.05)
    assert sbas.invert(stack, model=None)["displacement"].notnull().all()


def test_d14_rate_std_uses_the_weights():
    """D14: the rate's std comes from the weighted system: worse coherence at the same noise law means a larger std."""
    low, high = (sbas.invert(example(coherence=g), deviation_std_mm=None)["rate_std"] for g in (0.3, 0.9))
    assert (low > 5 * high).all()


def test_d15_d16_partial_pixels_are_solved():
    """D15, D16: pixels that lack pairs, or whole dates, are solved; disconnected networks raise nothing."""
    stack = example(missing=0.6, nx=40)
    out = sbas.invert(stack)
    assert (out["n_pairs"] < stack.sizes["pair"]).all() and out["filled"].any()
    assert out["displacement"].notnull().all() and out["rate_std"].notnull().all()


def test_d17_every_estimate_has_a_std_and_no_date_is_lost():
    """D17: all dates of the stack come out; displacement, rate and season carry a standard deviation."""
    stack = example(missing=0.3)
    out = sbas.invert(stack)
    assert out.sizes["time"] == 30
    assert {"displacement_std", "rate_std", "peak_to_peak_std"} <= set(out)


# -- bad input -----------------------------------------------------------------------------------------------------


def daily_temperature(start="2016-01-01", end="2021-12-31", seed=4):
    """A cold climate: mean -3, amplitude 14 degC, weather."""
    time = pd.date_range(start, end)
    weather = np.random.default_rng(seed).normal(0, 2, len(time))
    celsius = -3 - 14 * np.cos(2 * np.pi * (time.day_of_year - 20) / 365.25) + weather
    return xr.DataArray(celsius, {"time": time}, ["time"])


def numbers(times):
    """Dates as numbers like 20170105."""
    return pd.DatetimeIndex(times.values).strftime("%Y%m%d").astype(int).to_numpy()


def zoned(times):
    """Dates with a time zone."""
    return np.array([pd.Timestamp(t, tz="UTC") for t in times.values], dtype=object)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda s: s.drop_vars("unwrapped_phase"), {}, "unwrapped_phase"),
        (lambda s: s.drop_vars("reference"), {}, "reference"),
        (lambda s: s.drop_vars("coherence"), {}, "coherence"),
        (lambda s: s.drop_attrs(), {}, "wavelength_m|looks"),
        (lambda s: s.assign_coords(reference=s["secondary"], secondary=s["reference"]), {}, "reversed"),
        (lambda s: xr.concat([s, s.isel(pair=[4])], "pair", data_vars="minimal"), {}, "more than once"),
        (lambda s: s.isel(pair=[]), {}, "no pairs"),
        (lambda s: s, {"weights": "equal"}, "weights"),
        (lambda s: s, {"model": "cubic"}, "cubic"),
        (lambda s: s, {"model": "linear+degree_day"}, "temperature"),
        (lambda s: s, {"deviation_std_mm": -1.0}, "deviation_std_mm"),
        (lambda s: s, {"model": None, "rate_prior": (0, 1)}, "model"),
        (lambda s: s, {"deviation_std_mm": None, "rate_prior": (0, 1)}, "deviation_std_mm"),
        (lambda s: s, {"deviation_std_mm": None, "deviation_days": 9.0}, "deviation_days"),
        (lambda s: s, {"model": None, "dem_error": True}, "dem_error"),
        (lambda s: s, {"rate_prior": (0, -1)}, "negative"),
        (lambda s: s, {"rate_prior": (np.zeros((2, 2)), 1)}, "rate_prior"),
        (
            lambda s: s,
            {"rate_prior": (xr.DataArray(np.zeros((1, 8)), {"x": range(8)}, ("y", "x")), 1)},
            "differs",
        ),
        (lambda s: s, {"atmosphere_std_mm": np.ones(3)}, "atmosphere_std_mm"),
        (lambda s: s, {"weights": None, "pair_std_mm": 2.0}, "pair_std_mm"),
        (lambda s: s.assign_coords(reference=("pair", numbers(s["reference"]))), {}, "20170105"),
        (lambda s: s.assign_coords(reference=("pair", zoned(s["reference"]))), {}, "time zone"),
        (lambda s: s.assign(coherence=s["coherence"] * 255), {}, "coherence must lie within 0-1"),
        (lambda s: s.assign(coherence=s["coherence"] - 1), {}, "coherence must lie within 0-1"),
        (lambda s: s.assign_attrs(wavelength_m=5.55), {}, "wavelength_m.*0.02"),
        (lambda s: s.assign_attrs(wavelength_m=0.00555), {}, "wavelength_m.*0.02"),
    ],
)
def test_bad_input_is_named(change, options, message):
    """What is wrong is said by name, as a ValueError."""
    with pytest.raises(ValueError, match=message):
        sbas.invert(change(example()), **options)


def test_times_of_day_do_not_shatter_the_network():
    """Acquisitions stamped to the second, one off from pair to pair, are those of whole days."""
    stack = example()
    later = {
        "reference": stack["reference"] + np.timedelta64(81000, "s"),
        "secondary": stack["secondary"] + np.timedelta64(81001, "s"),
    }
    delay = xr.DataArray(DELAY, {"time": pd.date_range("2017-01-05T22:30", periods=30, freq="12D")}, ["time"])
    found = sbas.invert(stack.assign_coords(later), atmosphere_std_mm=delay)
    assert found.sizes["time"] == 30
    xr.testing.assert_identical(found, sbas.invert(stack, atmosphere_std_mm=DELAY))


def test_lazy_values_are_checked_too():
    """A negative standard deviation of the prior and coherence in bytes are refused when computed."""
    stack = example().chunk({"x": 4})
    with pytest.raises(ValueError, match="negative"):
        sbas.invert(stack, rate_prior=(0.0, xr.full_like(stack["incidence_angle"], -1.0))).compute()
    with pytest.raises(ValueError, match="coherence"):
        sbas.invert(stack.assign(coherence=stack["coherence"] * 255)).compute()


# -- summer to summer ----------------------------------------------------------------------------------------------


def summers(rate=-9.0, season=40.0, noise=0.2, nx=300, seed=6):
    """Five years, late-summer dates among others; the season sinks in summer and comes back."""
    dates = pd.date_range("2016-01-09", "2020-12-20", freq="12D")
    t = timefunc.years(dates)
    truth = rate * t + season / 2 * np.cos(2 * np.pi * (t - 0.2))
    n = len(dates)
    pairs = [
        (i, j) for i in range(n) for j in range(i + 1, n) if j <= i + 2 or abs((j - i) % 30.4375 - 0) < 1.6
    ]
    pairs = np.array([p for p in pairs if p[1] - p[0] < 100]).T
    displacement = np.tile((truth - truth[0])[:, None, None], (1, 1, nx))
    return make_stack(displacement, dates, pairs, coherence=0.8, noise_rad=noise, seed=seed), rate


def test_summer_to_summer_finds_the_rate_without_a_form():
    """A strong season, no seasonal model: the late-summer rate is right on average and within its std per pixel."""
    stack, rate = summers()
    stack["unwrapped_phase"][:, 0, 7] = np.nan
    out = sbas.summer_to_summer(stack, deviation_std_mm=1.0)
    assert np.isnan(out["rate_late_summer"][0, 7]) and out["n_pairs"][0, 7] == 0
    good = out.drop_isel(x=7)
    assert good["rate_late_summer"].mean() == pytest.approx(rate, abs=0.5)
    spread = float(good["rate_late_summer"].std())
    assert spread < 1.2 * float(good["rate_late_summer_std"].mean())


def test_summer_to_summer_selects_late_summer_pairs():
    """By window, length, day of year and baseline."""
    stack, _ = summers(nx=2)
    stack["perpendicular_baseline"][:] = 0.0
    out = sbas.summer_to_summer(stack, window=("08-15", "09-30"), max_years=2, max_doy_difference=5)
    for pair in out.attrs["pairs_used"].split():
        a, b = (pd.Timestamp(text) for text in pair.split("_"))
        assert "08-15" <= a.strftime("%m-%d") <= "09-30" and "08-15" <= b.strftime("%m-%d") <= "09-30"
        assert (b - a).days <= 36 if a.year == b.year else b.year - a.year <= 2
        assert a.year == b.year or abs(a.day_of_year - b.day_of_year) <= 5
    far = stack.assign_coords(
        perpendicular_baseline=("pair", np.where(np.arange(stack.sizes["pair"]) % 2, 500.0, 0.0))
    )
    fewer = sbas.summer_to_summer(far).attrs["pairs_used"].split()
    assert len(fewer) < len(sbas.summer_to_summer(stack).attrs["pairs_used"].split())


def test_summer_to_summer_corrects_for_warm_summers():
    """With temperature, year-to-year differences of the thaw are taken out: the rate's noise falls."""
    temperature = daily_temperature("2015-01-01", "2021-12-31")
    factor = xr.DataArray(np.random.default_rng(8).normal(0, 1.5, 7), {"year": range(2015, 2022)}, ["year"])
    temperature = temperature + factor.sel(year=temperature["time.year"]).drop_vars("year")
    stack, _ = summers(nx=40, noise=0.05)
    dates, first, second = sbas.network_of(stack)
    shape = timefunc.Model.named("linear+degree_day", temperature).design(dates)
    truth = -9 * shape[:, 2] + 60 * shape[:, 1]
    clean = (truth[second] - truth[first]) / MM_PER_RAD
    stack["unwrapped_phase"][:] = (clean[:, None, None] + np.zeros(stack["unwrapped_phase"].shape)).astype(
        "float32"
    )
    plain, corrected = sbas.summer_to_summer(stack), sbas.summer_to_summer(stack, temperature=temperature)
    error = [float(np.abs(out["rate_late_summer"] + 9).max()) for out in (plain, corrected)]
    assert error[1] < 0.02 < error[0]


def test_summer_to_summer_without_late_summer_pairs():
    """No pair in the window: a ValueError that names the window."""
    with pytest.raises(ValueError, match="08-15"):
        sbas.summer_to_summer(example(n=5))
