"""Network corrections against planted truth: loops, unwrapping, reference, delay, fading bias."""

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers the .rio accessor
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import network, timefunc
from helpers.network import graph
from helpers.network.fading import season_design
from inversion.phase_noise import phase_variance

WAVELENGTH = 0.0555
TO_MM = timefunc.mm_per_radian(WAVELENGTH)
LOOKS = 41


def make_stack(ground, days, pairs, *, coherence=0.6, noise=None, height=None, **attrs):
    """Interferograms (pair, y, x) of a displacement history (date, y, x) in mm, toward positive."""
    ground = np.asarray(ground, float)
    first, second = np.array(pairs).T
    phase = -(ground[second] - ground[first]) / TO_MM
    if noise is not None:
        phase = phase + noise.normal(0, np.sqrt(phase_variance(coherence, LOOKS, debias=False)), phase.shape)
    days = pd.DatetimeIndex(days)
    shape = ground.shape[1:]
    data = {
        "unwrapped_phase": (("pair", "y", "x"), phase.astype("f4")),
        "coherence": (("pair", "y", "x"), np.full(phase.shape, coherence, "f4")),
    }
    if height is not None:
        data["height"] = (("y", "x"), height)
    stack = xr.Dataset(
        data,
        coords={
            "reference": ("pair", days[first]),
            "secondary": ("pair", days[second]),
            "perpendicular_baseline": ("pair", np.zeros(len(pairs))),
            "y": 38.2 - 0.005 * np.arange(shape[0]),
            "x": 99.0 + 0.005 * np.arange(shape[1]),
        },
        attrs={"wavelength_m": WAVELENGTH, "looks": LOOKS, "band": "C"} | attrs,
    )
    return stack.rio.write_crs(4326)


def every_twelve_days(n, depth=4):
    """Dates and pairs of a network in which each date is joined to the next `depth`."""
    days = pd.date_range("2016-01-06", periods=n, freq="12D")
    return days, [(i, j) for i in range(n) for j in range(i + 1, min(i + depth, n - 1) + 1)]


def turbulence(rng, shape, sd, slope=8 / 3):
    """Random field with a power-law spectrum."""
    k = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
    k[0, 0] = np.inf
    field = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * k ** (-slope / 2)).real
    return field / field.std() * sd


def walk(rng, n, shape, step=3.0):
    """A displacement history that is random in time and place: no correction may touch it by its shape."""
    return rng.normal(0, step, (n, *shape)).cumsum(axis=0)


# --- the graph -----------------------------------------------------------------------------------


def test_incidence_times_history_is_every_pair():
    """A d gives d(secondary) - d(reference) whatever the order of the pairs."""
    rng = np.random.default_rng(0)
    days, pairs = every_twelve_days(9)
    history = walk(rng, 9, (1, 1))
    stack = make_stack(history, days, pairs).isel(pair=rng.permutation(len(pairs)))
    np.testing.assert_allclose(
        graph.incidence(stack) @ history[:, 0, 0], -TO_MM * stack["unwrapped_phase"][:, 0, 0], atol=1e-5
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_triplets_are_all_the_triangles_of_the_network(depth):
    """Their number is what combinatorics says, and each closes on a consistent phase."""
    days, pairs = every_twelve_days(12, depth)
    stack = make_stack(walk(np.random.default_rng(1), 12, (2, 2)), days, pairs)
    found = graph.triplets(stack)
    want = sum(1 for i in range(12) for j in range(i + 1, 12) for k in range(j + 1, 12) if k - i <= depth)
    assert len(found) == want
    assert np.abs(network.closure(stack)["closure_phase"]).max() < 1e-4 if want else True


def test_loops_reach_every_pair_that_is_in_one():
    """A square without diagonals is one loop of four; a bridge is in none."""
    days = pd.date_range("2016-01-01", periods=6, freq="12D")
    stack = make_stack(
        walk(np.random.default_rng(2), 6, (1, 1)), days, [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4), (4, 5)]
    )
    ((pairs, signs),) = graph.loops(stack)
    assert sorted(pairs) == [0, 1, 2, 3]
    assert abs((signs * stack["unwrapped_phase"].values[pairs, 0, 0]).sum()) < 1e-5
    assert network.correct_unwrapping(stack)["unverifiable"].values.tolist() == [False] * 4 + [True] * 2


def test_components_are_numbered_from_the_first_date():
    """Two summers without a link are parts 0 and 1."""
    days = pd.to_datetime(["2016-07-01", "2016-07-13", "2016-07-25", "2017-07-02", "2017-07-14"])
    stack = make_stack(np.zeros((5, 1, 1)), days, [(3, 4), (0, 2), (0, 1)])
    assert network.components(stack).tolist() == [0, 0, 0, 1, 1]


# --- closure and unwrapping ----------------------------------------------------------------------


def test_closure_counts_the_turns_left_over():
    """One turn added to one pair appears, with its sign, in its triplets and nowhere else; NaN stays NaN."""
    days, pairs = every_twelve_days(8, 3)
    stack = make_stack(walk(np.random.default_rng(3), 8, (3, 4)), days, pairs)
    stack["unwrapped_phase"][5] += 2 * np.pi
    stack["unwrapped_phase"][2, 1, 1] = np.nan
    found = network.closure(stack)
    turns = found["ambiguity"].isel(y=0, x=0).values
    member = {k: np.stack([found[f"pair_{n}"] for n in ("12", "23", "13")], 1) for k in (0,)}[0]
    expected = np.where((member[:, :2] == 5).any(axis=1), 1, np.where(member[:, 2] == 5, -1, 0))
    np.testing.assert_array_equal(turns, expected)
    np.testing.assert_array_equal(np.isnan(found["closure_phase"][:, 1, 1]), (member == 2).any(axis=1))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.integers(4, 16), st.integers(1, 5), st.floats(0, 0.7))
def test_a_consistent_stack_is_returned_unchanged(seed, n, depth, lost):
    """Whatever the network and the gaps: no loop is open, so not one value is touched."""
    rng = np.random.default_rng(seed)
    days, pairs = every_twelve_days(n, depth)
    keep = sorted(rng.choice(len(pairs), size=max(1, int(0.8 * len(pairs))), replace=False))
    stack = make_stack(walk(rng, n, (4, 5), 30.0), days, [pairs[k] for k in keep])
    gone = rng.random(stack["unwrapped_phase"].shape) < lost
    stack["unwrapped_phase"] = stack["unwrapped_phase"].where(~gone)
    fixed = network.correct_unwrapping(stack)
    np.testing.assert_array_equal(fixed["unwrapped_phase"], stack["unwrapped_phase"])
    flag = fixed["unwrapping_flag"].values
    assert set(np.unique(flag)) <= {0, 2, 4}
    np.testing.assert_array_equal(flag == 4, gone)


def planted_errors(rng, shape, share=0.1):
    """Patches of one turn in some of the pairs, (pair, y, x)."""
    turns = np.zeros(shape, int)
    row, column = np.mgrid[: shape[1], : shape[2]]
    for k in range(shape[0]):
        if rng.random() < share:
            y, x, r = rng.integers(shape[1]), rng.integers(shape[2]), rng.integers(2, 6)
            turns[k][(row - y) ** 2 + (column - x) ** 2 <= r**2] = rng.choice([-1, 1])
    return turns


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("coherence", [0.3, 0.6])
def test_planted_turns_are_mended_in_noise(depth, coherence):
    """Patches of one turn in looped pairs go; pairs that were right stay, decorrelation noise or not."""
    rng = np.random.default_rng(depth)
    days, pairs = every_twelve_days(40, depth)
    clean = make_stack(walk(rng, 40, (30, 40)), days, pairs, coherence=coherence, noise=rng)
    turns = planted_errors(rng, clean["unwrapped_phase"].shape)
    # a pair at the end of the network is in one triplet with another such pair: no majority there
    turns[[k for k, (i, j) in enumerate(pairs) if i < depth or j >= 40 - depth]] = 0
    broken = clean.assign(unwrapped_phase=clean["unwrapped_phase"] + 2 * np.pi * turns.astype("f4"))
    fixed = network.correct_unwrapping(broken)
    wrong = turns != 0
    assert wrong.sum() > 150
    assert (fixed["unwrapping_cycles"].values[wrong] == -turns[wrong]).mean() > 0.99
    assert (fixed["unwrapping_cycles"].values[~wrong] != 0).mean() < 1e-5
    healed = fixed["unwrapping_cycles"].values == -turns
    assert np.abs(fixed["unwrapped_phase"] - clean["unwrapped_phase"]).values[healed].max() < 1e-3


def test_low_coherence_noise_is_not_taken_for_turns():
    """At coherence 0.2 closures beyond half a turn are common; hardly a value is touched all the same."""
    rng = np.random.default_rng(8)
    days, pairs = every_twelve_days(30, 3)
    stack = make_stack(walk(rng, 30, (30, 40)), days, pairs, coherence=0.2, noise=rng)
    assert (np.abs(network.closure(stack)["closure_phase"]) > np.pi).mean() > 1e-4
    assert (network.correct_unwrapping(stack)["unwrapping_cycles"] != 0).mean() < 5e-5


def test_open_closures_are_counted_where_they_are():
    """A turn in one corner opens its triplet there and nowhere else, whole or by blocks; no data is not closed."""
    days = pd.date_range("2016-01-01", periods=3, freq="12D")
    stack = make_stack(walk(np.random.default_rng(4), 3, (6, 8)), days, [(0, 1), (1, 2), (0, 2)])
    stack["unwrapped_phase"][1, :3, :3] += 2 * np.pi
    stack["unwrapped_phase"][0, 5, :] = np.nan
    bins = np.linspace(-10, 10, 21)
    for one in (stack, stack.chunk(y=2)):
        density, counts = network.closure_histogram(one, bins)
        assert (density * np.diff(bins)).sum() == pytest.approx(1)
        assert counts["open"].sum() == 9 and counts["open"][:3, :3].min() == 1
        assert counts["closures"].sum() == 40 and counts["open"][5].isnull().all()


def test_without_a_majority_nothing_is_shifted_and_the_pairs_are_marked():
    """One triplet, one turn: any of the three may be wrong. A pair in no loop is unverifiable."""
    days = pd.date_range("2016-01-01", periods=4, freq="12D")
    stack = make_stack(walk(np.random.default_rng(4), 4, (5, 6)), days, [(0, 1), (1, 2), (0, 2), (2, 3)])
    stack["unwrapped_phase"][1, :3, :3] += 2 * np.pi
    fixed = network.correct_unwrapping(stack)
    assert not fixed["unwrapping_cycles"].any()
    names = fixed["unwrapping_flag"].attrs["flag_meanings"].split()
    assert [names[v] for v in fixed["unwrapping_flag"][:, 2, 2].values] == ["open"] * 3 + ["unverifiable"]
    assert [names[v] for v in fixed["unwrapping_flag"][:, 4, 4].values] == ["closed"] * 3 + ["unverifiable"]
    assert fixed["unverifiable"].values.tolist() == [False, False, False, True]


def test_dask_and_numpy_mend_alike():
    """Blocks share a halo: the result does not depend on them, and stays lazy."""
    rng = np.random.default_rng(5)
    days, pairs = every_twelve_days(20, 3)
    clean = make_stack(walk(rng, 20, (20, 30)), days, pairs, coherence=0.3, noise=rng)
    turns = planted_errors(rng, clean["unwrapped_phase"].shape)
    stack = clean.assign(unwrapped_phase=clean["unwrapped_phase"] + 2 * np.pi * turns.astype("f4"))
    lazy = network.correct_unwrapping(stack.chunk({"pair": 10, "y": 7, "x": 11}))
    assert lazy["unwrapped_phase"].chunks is not None
    xr.testing.assert_identical(network.correct_unwrapping(stack), lazy.compute())


def test_a_constant_of_a_whole_interferogram_is_left_to_the_reference():
    """Unwrapping leaves each pair a constant of its own; a patch of one turn is found all the same."""
    rng = np.random.default_rng(20)
    days, pairs = every_twelve_days(12, 3)
    clean = make_stack(walk(rng, 12, (20, 30)), days, pairs)
    constant = rng.uniform(-20, 20, (len(pairs), 1, 1)).astype("f4")
    broken = clean.assign(unwrapped_phase=clean["unwrapped_phase"] + constant)
    broken["unwrapped_phase"][10, 3:8, 4:9] += 2 * np.pi
    fixed = network.correct_unwrapping(broken)
    np.testing.assert_allclose(fixed["unwrapped_phase"], clean["unwrapped_phase"] + constant, atol=1e-4)


def test_a_network_without_loops_passes_through():
    """A chain of pairs has no loop: nothing is changed, everything is unverifiable."""
    days, pairs = every_twelve_days(6, 1)
    stack = make_stack(walk(np.random.default_rng(6), 6, (3, 3)), days, pairs)
    fixed = network.correct_unwrapping(stack)
    np.testing.assert_array_equal(fixed["unwrapped_phase"], stack["unwrapped_phase"])
    assert bool((fixed["unwrapping_flag"] == 2).all()) and bool(fixed["unverifiable"].all())
    assert network.closure(stack).sizes["triplet"] == 0


# --- pruning -------------------------------------------------------------------------------------


def test_pruning_drops_pairs_with_few_values_and_reports_them():
    """Each pair below the share is a row of the report; where none reaches it, an error."""
    days, pairs = every_twelve_days(6, 2)
    stack = make_stack(walk(np.random.default_rng(7), 6, (4, 4)), days, pairs)
    stack["unwrapped_phase"][2, :3] = np.nan
    kept, report = network.prune(stack, min_valid=0.5)
    assert report["valid"].tolist() == [0.25] and report["reference"][0] == stack["reference"].values[2]
    assert report["secondary"][0] == stack["secondary"].values[2]
    xr.testing.assert_identical(kept, stack.isel(pair=[0, 1, *range(3, len(pairs))]))
    with pytest.raises(ValueError, match="no pair has"):
        network.prune(stack * np.nan, min_valid=0.5)


# --- reference -----------------------------------------------------------------------------------


def referenced(rng, n_pixels=(7, 7), shape=(40, 50), n=40):
    """A noisy stack with an offset per date, and a square mask in it."""
    days, pairs = every_twelve_days(n, 3)
    offsets = rng.normal(0, 20, (n, 1, 1))
    stack = make_stack(np.zeros((n, *shape)) + offsets, days, pairs, noise=rng)
    mask = xr.zeros_like(stack["unwrapped_phase"][0], dtype=bool)
    mask[10 : 10 + n_pixels[0], 20 : 20 + n_pixels[1]] = True
    return stack, mask


def test_reference_takes_the_offset_of_every_date_away():
    """What is common to the scene is gone; the pixel named in the attributes is in the area."""
    stack, mask = referenced(np.random.default_rng(9))
    out = network.reference(stack, mask, name="terrace")
    assert np.abs(out["unwrapped_phase"].mean(("y", "x"))).max() < 0.15
    assert out.attrs["reference_area"] == "terrace"
    assert bool(mask.sel(y=out.attrs["reference_y"], x=out.attrs["reference_x"]))


def test_the_reference_error_is_what_it_says():
    """reference_std against the scatter of the median of white noise over many pairs: within 15 %."""
    stack, mask = referenced(np.random.default_rng(10), n=120)
    out = network.reference(stack, mask)
    error = out["unwrapped_phase"].mean(("y", "x")).values  # 2000 pixels: nearly free of noise
    assert error.std() == pytest.approx(float(np.sqrt((out["reference_std"] ** 2).mean())), rel=0.15)
    assert out.attrs["reference_std"] == pytest.approx(error.std() * TO_MM, rel=0.15)


def test_correlated_noise_makes_the_reference_less_certain():
    """The same scatter, smooth in space, has fewer independent pixels."""
    rng = np.random.default_rng(11)
    days, pairs = every_twelve_days(30, 2)
    smooth = np.array([turbulence(rng, (40, 50), 5) for _ in days])
    rough = rng.normal(0, smooth.std(), smooth.shape)
    area = (99.05, 38.0, 99.1, 38.1)
    std = [
        network.reference(make_stack(g, days, pairs), area).attrs["reference_std"] for g in (smooth, rough)
    ]
    assert std[0] > 2 * std[1]


def test_reference_rate_error_is_the_slope_error_of_date_errors():
    """White date errors of 2 mm: the sd of a least-squares slope, by simulation."""
    rng = np.random.default_rng(12)
    days, pairs = every_twelve_days(60, 3)
    stack = make_stack(np.zeros((60, 1, 1)), days, pairs)
    std_rad = np.sqrt(2) * 2 / TO_MM
    stack["reference_std"] = ("pair", np.full(len(pairs), std_rad))
    years = np.arange(60) * 12 / 365.25
    slopes = [np.polyfit(years, rng.normal(0, 2, 60), 1)[0] for _ in range(2000)]
    assert network.reference_rate_std(stack) == pytest.approx(np.std(slopes), rel=0.06)
    both = network.reference_rate_std(stack, np.full(60, 2.0))
    assert both == pytest.approx(np.sqrt(2) * np.std(slopes), rel=0.06)


def test_pairs_without_enough_reference_pixels_become_no_data():
    """Too few valid pixels of a pair: that pair is NaN and listed; of all pairs: an error."""
    stack, mask = referenced(np.random.default_rng(13))
    stack["unwrapped_phase"][4] = stack["unwrapped_phase"][4].where(~mask)
    out = network.reference(stack, mask)
    assert (
        bool(out["unwrapped_phase"][4].isnull().all())
        and int(out["unwrapped_phase"].isnull().all(("y", "x")).sum()) == 1
    )
    assert len(out.attrs["unreferenced_pairs"]) == 1
    with pytest.raises(ValueError, match="no pair has 25 valid pixels"):
        network.reference(stack.assign(unwrapped_phase=stack["unwrapped_phase"].where(~mask)), mask)


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ((98.0, 37.0, 98.1, 37.1), "lies outside the stack"),
        ((99.05, 38.1, 99.06, 38.11), "needs 25: enlarge"),
        ((100, 3), "outside the stack's"),
        ((1, 2, 3), "give a mask"),
    ],
)
def test_a_reference_area_that_cannot_be_is_refused(area, message):
    """Outside, too small, of no known form."""
    stack, _ = referenced(np.random.default_rng(14), n=8)
    with pytest.raises(ValueError, match=message):
        network.reference(stack, area)


def test_a_reference_mask_of_another_grid_is_refused():
    """A mask is matched by its coordinates, not by its shape alone."""
    stack, mask = referenced(np.random.default_rng(15), n=8)
    with pytest.raises(ValueError, match="not on the stack's grid"):
        network.reference(stack, mask.assign_coords(x=mask["x"] + 1))


def test_one_pixel_is_accepted_for_comparison_with_other_software():
    """(row, column): exactly that pixel becomes zero; its sd comes from coherence."""
    stack, _ = referenced(np.random.default_rng(16), n=8)
    out = network.reference(stack, (9, 8))
    assert not out["unwrapped_phase"][:, 9, 8].any()
    np.testing.assert_allclose(out["reference_std"], np.sqrt(phase_variance(0.6, LOOKS)), rtol=1e-5)


def test_reference_keeps_dask_lazy():
    """dask in, lazy out, same numbers."""
    stack, mask = referenced(np.random.default_rng(17), n=8)
    lazy = network.reference(stack.chunk({"y": 11}), mask)
    assert lazy["unwrapped_phase"].chunks is not None
    xr.testing.assert_allclose(lazy.compute(), network.reference(stack, mask))


# --- delay ---------------------------------------------------------------------------------------


def delayed_scene(seed, *, n=70, shape=(40, 50), deforming=0.35, noise=True):
    """A stack with stratified delay, ramps, turbulence and, on part of the pixels, rate and season."""
    rng = np.random.default_rng(seed)
    days, pairs = every_twelve_days(n, 3)
    t = np.arange(n) * 12 / 365.25
    height = 4000 + turbulence(rng, shape, 200, 11 / 3)
    field = turbulence(rng, shape, 1, 11 / 3)
    moving = field > np.quantile(field, 1 - deforming)
    season = -25 * (1 - np.cos(2 * np.pi * (t - 0.4))) / 2 - 6 * t
    ground = season[:, None, None] * moving
    v, u = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    gradient = 0.008 * np.sin(2 * np.pi * t) + rng.normal(0, 0.005, n)
    delay = (
        gradient[:, None, None] * (height - 4000)
        + rng.normal(0, 4, (n, 1, 1)) * u
        + rng.normal(0, 4, (n, 1, 1)) * v
    )
    rest = np.array([turbulence(rng, shape, s) for s in rng.uniform(2, 6, n)])
    stack = make_stack(ground + delay + rest, days, pairs, noise=rng if noise else None, height=height)
    at = np.argwhere(~moving)[len(np.argwhere(~moving)) // 2]
    box = xr.zeros_like(stack["unwrapped_phase"][0], dtype=bool).drop_vars(
        ("reference", "secondary", "perpendicular_baseline")
    )
    box[max(at[0] - 4, 0) : at[0] + 5, max(at[1] - 4, 0) : at[1] + 5] = True
    stack = network.reference(stack, box & ~moving)
    stable = xr.DataArray(~moving, dims=("y", "x"), coords={"y": stack["y"], "x": stack["x"]})
    return stack, {"ground": ground, "delay": delay, "rest": rest, "stable": stable, "t": t, "pairs": pairs}


def seasonal_part(history, t):
    """Annual amplitude and rate per pixel of a history (date, y, x)."""
    design = np.stack([np.ones_like(t), t, np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)], axis=1)
    beta = np.linalg.lstsq(design, history.reshape(len(t), -1), rcond=None)[0]
    return np.hypot(beta[2], beta[3]), beta[1]


def removed_history(before, after, n, pairs):
    """What a correction took from each date, mm, first date 0."""
    difference = -TO_MM * (before["unwrapped_phase"] - after["unwrapped_phase"]).values.astype(float)
    matrix = graph.incidence(before)[:, 1:]
    flat = np.linalg.lstsq(matrix, difference.reshape(len(pairs), -1), rcond=None)[0]
    return np.concatenate([np.zeros((1, flat.shape[1])), flat]).reshape(
        n, *before["unwrapped_phase"].shape[1:]
    )


def test_noise_free_delay_is_removed_exactly(monkeypatch):
    """Ramp and phase-height term without anything else: nothing is left, relative to the reference."""
    rng = np.random.default_rng(18)
    days, pairs = every_twelve_days(12, 2)
    height = 4000 + turbulence(rng, (30, 40), 200, 3)
    v, u = np.mgrid[-1:1:30j, -1:1:40j]
    delay = (
        rng.normal(0, 0.02, (12, 1, 1)) * height
        + rng.normal(0, 5, (12, 1, 1)) * u
        + rng.normal(0, 5, (12, 1, 1)) * v
    )
    stack = network.reference(make_stack(delay, days, pairs, height=height), (10, 10))
    everywhere = xr.ones_like(stack["height"], dtype=bool)
    monkeypatch.setattr("helpers.network.delay.STABLE_RATE_STD", 0.0)
    out = network.correct_delay(stack, mask=everywhere)
    assert np.abs(stack["unwrapped_phase"]).max() > 5
    assert np.abs(out["unwrapped_phase"]).max() < 2e-3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_delay_correction_spares_rate_and_season_of_moving_ground(seed):
    """With a mask of stable ground less delay is left everywhere, and its fake season shrinks; the season of
    moving ground, not following height, stays: what is taken from moving ground is what is taken as delay."""
    stack, truth = delayed_scene(seed)
    out = network.correct_delay(stack, mask=truth["stable"])
    taken = removed_history(stack, out, len(truth["t"]), truth["pairs"])
    at = {"y": stack.attrs["reference_y"], "x": stack.attrs["reference_x"]}
    row = int(np.argmin(np.abs(stack["y"].values - at["y"])))
    column = int(np.argmin(np.abs(stack["x"].values - at["x"])))

    def relative(history):
        history = history - history[:, row, column][:, None, None]
        return history - history[0]

    delay = relative(truth["delay"])
    amplitude, _ = seasonal_part(delay, truth["t"])
    amplitude_left, rate_left = seasonal_part(delay - taken, truth["t"])
    assert amplitude_left.mean() < 0.6 * amplitude.mean()
    # turbulence alone leaves a rate of this size: sd 4 mm over 2.3 years of 70 dates is about 0.7 mm/yr
    assert np.abs(rate_left).mean() < 1.5
    # without a mask rate and season, the ground's and the delay's, are left alone
    without = removed_history(stack, network.correct_delay(stack), len(truth["t"]), truth["pairs"])
    amplitude_taken, rate_taken = seasonal_part(without, truth["t"])
    assert amplitude_taken.max() < 0.05 * amplitude.mean() and np.abs(rate_taken).max() < 0.05


@pytest.mark.parametrize("n", [10, 90])
def test_a_rate_of_stable_ground_is_left_where_dates_average_delay_out(n):
    """Ground called stable that sinks by 2 mm/yr per km of height, over three years. Ninety dates with 4 mm/km of
    random delay fix a rate to 0.5: the correction keeps off it. Ten do not: most of it is taken as delay."""
    rng = np.random.default_rng(31)
    days = pd.date_range("2016-01-01", periods=n, freq=f"{1080 // n}D")
    pairs = [(i, j) for i in range(n) for j in range(i + 1, min(i + 3, n - 1) + 1)]
    t = np.asarray((days - days[0]) / np.timedelta64(1, "D")) / 365.25
    height = 4000 + turbulence(rng, (30, 40), 250, 3)
    noise = rng.normal(0, 4, n)
    gradient = noise - np.polyval(np.polyfit(t, noise, 1), t) - 2 * t
    stack = make_stack(gradient[:, None, None] * (height - 4000) / 1000, days, pairs, height=height)
    stack = network.reference(stack, (10, 10))
    out = network.correct_delay(stack, ramp=0, mask=xr.ones_like(stack["height"], dtype=bool))
    kept = out["delay_coefficient"].sel(term="height").values * -TO_MM
    design = np.stack([t, np.ones_like(t), np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)], axis=1)
    taken = (
        np.linalg.lstsq(design, kept, rcond=None)[0][0] / np.linalg.lstsq(design, gradient, rcond=None)[0][0]
    )
    assert taken < 0.35 if n == 90 else taken > 0.6


def test_the_rate_left_in_ramps_has_its_sd():
    """Few dates with ramps on ground that tilts by 1 mm/yr: over draws, the rate's error after the correction is what
    `delay_rate_std` says, with a mask and without, and the reference's error holds it."""
    rng = np.random.default_rng(41)
    n, shape = 16, (12, 16)
    days = pd.date_range("2016-01-01", periods=n, freq="70D")
    pairs = [(i, j) for i in range(n) for j in range(i + 1, min(i + 2, n - 1) + 1)]
    t = np.asarray((days - days[0]) / np.timedelta64(1, "D")) / 365.25
    v, u = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    everywhere = xr.DataArray(np.ones(shape, bool), dims=("y", "x"))
    found = {True: [], False: []}
    for _ in range(60):
        ramp = rng.normal(0, 3, (2, n, 1, 1))
        tilt = rng.normal(0, 1, 2)
        rate = tilt[0] * u + tilt[1] * v * shape[0] / shape[1]
        history = rate * t[:, None, None] + ramp[0] * u + ramp[1] * v * shape[0] / shape[1]
        stack = network.reference(make_stack(history, days, pairs), (6, 8))
        for masked, errors in found.items():
            out = network.correct_delay(stack, height=False, mask=everywhere if masked else None)
            after = history - removed_history(stack, out, n, pairs)
            error = seasonal_part(after - after[:, 6, 8][:, None, None], t)[1].reshape(shape)
            error = error - (rate - rate[6, 8])
            errors.append([(error**2).mean(), out.attrs["delay_rate_std"] ** 2])
            assert network.reference_rate_std(out) >= out.attrs["delay_rate_std"]
    for errors in found.values():
        square, stated = np.mean(errors, axis=0)
        assert np.sqrt(square / stated) == pytest.approx(1, abs=0.2)


def test_height_errors_matter_where_baselines_are_long():
    """Baselines of 350 m turn 5 m of height into 5 mm, those of 20 m into less than 1; unknown ones into nothing."""
    days, pairs = every_twelve_days(12, 2)
    rng = np.random.default_rng(3)
    at_date = rng.normal(0, 1, 12)
    unit = np.array([at_date[j] - at_date[i] for i, j in pairs])
    stack = make_stack(np.zeros((12, 2, 2)), days, pairs).assign(
        incidence_angle=(("y", "x"), np.full((2, 2), 30.0))
    )
    for metres, expected in ((350, True), (20, False), (np.nan, False)):
        there = stack.assign_coords(perpendicular_baseline=("pair", metres * unit))
        assert network.height_matters(there) is expected
    assert not network.height_matters(stack.drop_vars("incidence_angle"))


def test_delay_correction_lowers_what_is_left_per_date():
    """The sd of the remaining delay about the scene falls, and `atmosphere` says what it is."""
    stack, truth = delayed_scene(4)
    out = network.correct_delay(stack, mask=truth["stable"])
    taken = removed_history(stack, out, len(truth["t"]), truth["pairs"])
    left = truth["delay"] + truth["rest"] - taken

    def sd(history):
        inside = history[:, truth["stable"].values]
        inside = inside - inside.mean(axis=0)
        return np.sqrt(((inside - inside.mean(axis=1, keepdims=True)) ** 2).mean(axis=1))

    before, after = sd(truth["delay"] + truth["rest"]), sd(left)
    assert np.sqrt((after**2).mean()) < 0.85 * np.sqrt((before**2).mean())
    found = network.atmosphere(out.assign(unwrapped_phase=out["unwrapped_phase"].where(truth["stable"])))
    assert found.attrs["mean_mm"] == pytest.approx(np.sqrt((after**2).mean()), rel=0.15)
    assert np.corrcoef(found, after)[0, 1] > 0.6
    assert float(found.min()) > 0


def test_stable_ground_is_found_without_being_told():
    """Rate and season mark moving ground; hardly a pixel of the mask moves."""
    for seed in (5, 6, 7):
        stack, truth = delayed_scene(seed)
        found = network.stable_ground(stack, share=0.4)
        assert truth["stable"].values[found.values].mean() > 0.97
        assert found.mean() == pytest.approx(0.4, abs=0.02)


def test_a_gradient_of_real_motion_is_not_taken_for_delay():
    """A scene that sinks toward one side by far more than delay could average to: only the side at rest is stable,
    and the mask says how little of the scene it covers."""
    rng = np.random.default_rng(30)
    days, pairs = every_twelve_days(30, 3)
    t = np.arange(30) * 12 / 365.25
    sinking = -200 * t[:, None, None] * np.linspace(0, 1, 50) ** 2 * np.ones((40, 1))
    delay = np.array([turbulence(rng, (40, 50), 4) for _ in days])
    stack = network.reference(make_stack(sinking + delay, days, pairs, noise=rng), (20, 3))
    found = network.stable_ground(stack, share=0.4, max_motion_mm=10)
    assert not found[:, 25:].any() and found[:, :5].mean() > 0.5
    assert found.attrs["covers"] < 0.5
    scene, _ = delayed_scene(5)
    assert network.stable_ground(scene).attrs["covers"] > 0.6


def test_the_ionosphere_is_a_quadratic_surface_at_l_band():
    """At L band the quadratic terms are on by default; at C band they are not."""
    rng = np.random.default_rng(19)
    days, pairs = every_twelve_days(8, 2)
    v, u = np.mgrid[-1:1:30j, -1:1:40j]
    delay = rng.normal(0, 10, (8, 1, 1)) * (u**2 + 0.5 * u * v)
    for band, share in (("L", 0.01), ("C", None)):
        stack = network.reference(make_stack(delay, days, pairs, band=band), (15, 20))
        out = network.correct_delay(stack, height=False, mask=xr.ones_like(stack["coherence"][0], dtype=bool))
        left = float(np.abs(out["unwrapped_phase"]).max() / np.abs(stack["unwrapped_phase"]).max())
        assert left < share if share else left > 0.5


def test_delay_coefficients_carry_their_spread():
    """The error of the phase-height coefficient is of the size its sd says: between it and 2.5 times it."""
    ratio = []
    for seed in range(4):
        stack, truth = delayed_scene(20 + seed, noise=False)
        out = network.correct_delay(stack, mask=truth["stable"])
        term = out["delay_coefficient"].sel(term="height").values * -TO_MM / 1000
        slope = [np.polyfit(stack["height"].values.ravel(), d.ravel(), 1)[0] for d in truth["delay"]]
        error = (term - term.mean()) - (slope - np.mean(slope))
        ratio.append(error.std() / (out["delay_coefficient_std"].sel(term="height").mean() * TO_MM / 1000))
    assert 0.5 < np.mean(ratio) < 2.5


def test_delay_without_heights_says_so_and_wrong_orders_are_refused():
    """No height: ramp only, an attribute tells. ramp=3 is an error; no terms at all changes nothing."""
    stack, truth = delayed_scene(8)
    out = network.correct_delay(stack.drop_vars("height"))
    assert out.attrs["delay_terms"] == "east, north" and "no height" in out.attrs["delay_height_term"]
    assert network.correct_delay(stack, ramp=0, height=False)["unwrapped_phase"].equals(
        stack["unwrapped_phase"]
    )
    with pytest.raises(ValueError, match="choose 0, 1 or 2"):
        network.correct_delay(stack, ramp=3)
    with pytest.raises(ValueError, match="usable pixels for the delay fit"):
        network.correct_delay(stack, mask=truth["stable"] & False)


def test_delay_is_lazy_for_dask():
    """dask in, lazy out, same numbers."""
    stack, truth = delayed_scene(9, n=20)
    lazy = network.correct_delay(stack.chunk({"y": 11}), mask=truth["stable"])
    assert lazy["unwrapped_phase"].chunks is not None
    now = network.correct_delay(stack, mask=truth["stable"])
    np.testing.assert_allclose(lazy["unwrapped_phase"], now["unwrapped_phase"], atol=1e-4)


# --- fading --------------------------------------------------------------------------------------


def fading_scene(seed, delta, n=150, shape=(20, 25)):
    """A noisy stack with a fading bias of delta (season, y, x) rad per step of 12 days."""
    rng = np.random.default_rng(seed)
    days, pairs = every_twelve_days(n, 4)
    stack = make_stack(walk(rng, n, shape), days, pairs, noise=rng)
    bias = np.tensordot(season_design(stack, 12.0), np.broadcast_to(delta, (4, *shape)), 1)
    return stack.assign(unwrapped_phase=stack["unwrapped_phase"] + bias.astype("f4"))


def test_a_two_step_pair_is_short_by_the_literatures_share():
    """Closure of two steps and their long pair is (1 - a1) (delta_1 + delta_2)."""
    days, pairs = every_twelve_days(5, 2)
    stack = make_stack(np.zeros((5, 1, 1)), days, pairs)
    design = season_design(stack, 12.0).sum(axis=1)  # the same bias in all seasons
    first, second, both = graph.triplets(stack)[0]
    assert design[first] == design[second] == 1
    assert design[first] + design[second] - design[both] == pytest.approx((1 - 0.494) * 2)


def test_the_seasonal_bias_is_recovered_with_its_spread():
    """Scene values within their sd by season; the spatial pattern is found; its correction removes most of it."""
    pattern = np.linspace(0, 2, 25)[None, None, :] * np.ones((4, 20, 1))
    truth = np.array([0, 0.02, 0.045, 0.02])[:, None, None] * pattern
    z = []
    for seed in range(5):
        stack = fading_scene(seed, truth)
        found = network.fading(stack)
        z.append((found["scene_delta"] - truth.mean(axis=(1, 2))) / found["scene_delta_std"])
        assert found["significant"].values[1:].all()
        error = (found["delta"] - truth).values
        assert np.sqrt((error**2).mean()) < 0.35 * np.sqrt((truth**2).mean())
    assert 0.5 < np.std(z) < 2.0
    clean = network.correct_fading(stack, found)
    again = network.fading(clean)
    assert np.abs(again["scene_delta"]).max() < 0.15 * np.abs(found["scene_delta"]).max()
    assert float(clean["fading_std"].max()) > 0


def test_without_bias_nothing_is_corrected():
    """What is not significant is reported and left: hardly a season of a stack without bias is touched."""
    touched = 0
    for seed in range(12):
        stack = fading_scene(100 + seed, np.zeros((4, 1, 1)), n=100)
        found = network.fading(stack)
        touched += int(found["significant"].sum())
        if not found["significant"].any():
            fixed = network.correct_fading(stack, found)
            xr.testing.assert_equal(fixed["unwrapped_phase"], stack["unwrapped_phase"])
            assert fixed.attrs["fading"] == "not corrected: not significant"
    # 12 stacks at the 5 % level each: 3 or more have probability 0.02
    assert touched < 3


def test_rate_bias_falls_with_the_length_of_pairs():
    """A chain of 12-day pairs is biased most; 0.2 mm a step are 6 mm/yr; pairs of 216 days are free of it."""
    delta = 0.2 / TO_MM
    found = network.fading(fading_scene(3, np.full((4, 1, 1), delta)))
    rate = found["rate_bias"]
    assert float(rate.sel(length_days=12)) == pytest.approx(-0.2 * 365.25 / 12, rel=0.05)
    np.testing.assert_allclose(rate / rate[0], [1, 0.494, 0.297, 0.24], rtol=1e-6)
    assert float(np.abs(found["bias_std"] / found["bias"]).max()) < 0.2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"band": "L"}, "shares are known for C band"),
        ({}, "6 and 12 days, the shortest pair has 35"),
        ({"few": True}, "triplets are too few"),
    ],
)
def test_where_the_model_does_not_apply_it_says_why(change, reason):
    """L band, 35-day repeats, few triplets: not usable, zero correction, a reason."""
    n = 6 if change.pop("few", False) else 40
    step = "35D" if reason.startswith("6 and 12") else "12D"
    days = pd.date_range("2016-01-01", periods=n, freq=step)
    _, pairs = every_twelve_days(n, 3)
    stack = make_stack(np.zeros((n, 5, 5)), days, pairs, **change)
    found = network.fading(stack)
    assert not found.attrs["usable"] and reason in found.attrs["reason"]
    fixed = network.correct_fading(stack, found)
    assert reason in fixed.attrs["fading"]
    xr.testing.assert_equal(fixed["unwrapped_phase"], stack["unwrapped_phase"])


def test_fading_is_the_same_for_dask():
    """Blocks of rows give the numbers of the whole."""
    stack = fading_scene(4, np.full((4, 1, 1), 0.03), n=60)
    xr.testing.assert_allclose(network.fading(stack.chunk({"y": 7})), network.fading(stack))


# --- the twin ------------------------------------------------------------------------------------


def test_the_chain_of_corrections_nears_the_twins_truth(quick_twin):
    """On a twin no development saw: open triplets fall to a fifth, the delay per date by a fifth, and the rate's
    rms error over pixels that are no pit or heap falls, with an sd that says how large it is."""
    from helpers import io, sbas

    stack = io.read_stack(quick_twin / "s1_desc" / "GEOC")
    truth = xr.open_zarr(quick_twin / "truth.zarr")
    place = truth["true_reference"].load() > 0
    raw = network.reference(stack, place)
    mended = network.reference(network.correct_unwrapping(stack), place)
    opened = [float((np.abs(network.closure(s)["closure_phase"]) > np.pi).sum()) for s in (raw, mended)]
    assert opened[1] < 0.2 * opened[0]
    stable = network.stable_ground(mended, max_motion_mm=10)
    clean = network.correct_delay(mended, mask=stable)
    left = [network.atmosphere(s) for s in (mended, clean)]
    assert left[1].attrs["mean_mm"] < 0.85 * left[0].attrs["mean_mm"]
    ground = ~((truth["true_pit"] > 0) | (truth["true_heap"] > 0)).values
    rms = []
    for data, delay in ((raw, left[0]), (clean, left[1])):
        result = sbas.invert(data, atmosphere_std_mm=delay, deviation_days=30, series_std=False)
        error = (result["rate"] - truth["rate_s1_desc"].load()).values[ground]
        error = error[np.isfinite(error)]
        rms.append(np.sqrt(np.mean(np.clip(error, -20, 20) ** 2)))
    assert rms[1] < 0.95 * rms[0]
    shared = network.reference_rate_std(clean, left[1])
    z = (
        error
        / np.hypot(result["rate_std"].values[ground], shared)[np.isfinite(result["rate"].values[ground])]
    )
    assert np.mean(np.abs(z) < 1.96) > 0.85


# --- real data -----------------------------------------------------------------------------------


def test_real_interferograms_close_and_few_are_mended(mirror):
    """30 Sentinel-1 pairs, 24 triplets: 1.7 % of the pixels round to a turn left over, most of them at 3.2 rad, which
    is noise and no turn: a handful of values is shifted, and no closure grows beyond a turn by it."""
    from helpers import io

    folder = mirror / "sentinel1_mexico"
    stack = network.reference(io.read_stack(folder / "mintpy_1.6.4_reference/ifgramStack.h5"), (9, 8))
    before = network.closure(stack)
    assert before.sizes["triplet"] == 24
    share = float((before["ambiguity"].fillna(0) != 0).any("triplet").mean())
    assert share == pytest.approx(0.017, abs=0.002)
    fixed = network.correct_unwrapping(stack)
    assert int((fixed["unwrapping_cycles"] != 0).sum()) < 20
    after = network.closure(fixed)
    assert int((np.abs(after["closure_phase"]) > 4.7).sum()) <= int(
        (np.abs(before["closure_phase"]) > 4.7).sum()
    )


# --- one layer never deletes another; short, quiet and oddly stamped stacks ----------------------


def test_a_void_of_the_heights_leaves_the_phase():
    """Half of the scene without height keeps its phase, and the count of such pixels is said."""
    stack, _ = delayed_scene(5)[:2]
    height = stack["height"].copy()
    height[:, :20] = np.nan
    out = network.correct_delay(stack.assign(height=height))
    np.testing.assert_array_equal(out["unwrapped_phase"].notnull(), stack["unwrapped_phase"].notnull())
    assert f"{int(height.isnull().sum())} pixels without height" in out.attrs["delay_height_term"]


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("sd", [0.0, 2.0])
def test_few_dates_and_quiet_data_run(n, sd):
    """Two to four dates, with noise or without: no index error, the same pixels have data."""
    rng = np.random.default_rng(n)
    days, pairs = every_twelve_days(n)
    ground = rng.normal(0, sd, (n, 12, 15))
    height = 4000 + 100 * rng.normal(size=(12, 15))
    stack = make_stack(ground, days, pairs, height=height)
    out = network.correct_delay(stack)
    assert out["unwrapped_phase"].notnull().all()
    assert network.stable_ground(stack).shape == (12, 15)
    assert network.atmosphere(out).sizes == {"time": n}


def test_heights_known_in_few_places_cost_only_their_term():
    """Heights on one column, or only where there is no phase: ramps as without heights, and stable ground is found."""
    stack, _ = delayed_scene(3, n=20)
    ramps = network.correct_delay(stack.drop_vars("height"))["unwrapped_phase"]
    for known in (slice(0, 1), slice(0, 0)):
        few = stack.copy(deep=True)
        few["height"] = few["height"].where(few["x"].isin(few["x"][known]))
        out = network.correct_delay(few)
        assert "no height" in out.attrs["delay_height_term"]
        np.testing.assert_allclose(out["unwrapped_phase"], ramps, atol=1e-4)
        assert network.stable_ground(few).mean() > 0.3


def test_a_void_at_the_reference_pixel_moves_nothing():
    """The reference pixel without height: the correction elsewhere stays as it was, to the step to the next pixel."""
    stack, _ = delayed_scene(3, n=20)
    row, column = (int(np.abs(stack[k] - stack.attrs[f"reference_{k}"]).argmin()) for k in "yx")
    void = stack.copy(deep=True)
    void["height"][row, column] = np.nan
    before, after = network.correct_delay(stack), network.correct_delay(void)
    shift = np.abs((after["unwrapped_phase"] - before["unwrapped_phase"]).median(("y", "x")))
    around = stack["height"][row - 1 : row + 2, column - 1 : column + 2] - stack["height"][row, column]
    slope = graph.incidence(stack) @ before["delay_coefficient"].sel(term="height").values
    assert (shift <= 1.05 * np.abs(slope) * float(np.abs(around).max()) / 1000 + 0.01).all()


def test_a_mask_from_the_south_means_the_same_ground():
    """A mask whose rows run from south to north selects the same pixels."""
    stack, _ = delayed_scene(6)[:2]
    mask = xr.zeros_like(stack["height"], bool)
    mask[:15, :25] = True
    one, other = (network.correct_delay(stack, mask=m) for m in (mask, mask.isel(y=slice(None, None, -1))))
    np.testing.assert_array_equal(one["unwrapped_phase"], other["unwrapped_phase"])


def test_times_of_one_day_are_one_acquisition():
    """Acquisition times a second apart from product to product: 20 dates stay 20."""
    days, pairs = every_twelve_days(20)
    stack = make_stack(np.zeros((20, 2, 2)), days, pairs)
    shifted = stack["secondary"].values + np.timedelta64(1, "s")
    assert len(network.dates(stack.assign_coords(secondary=("pair", shifted)))) == 20
    with pytest.raises(ValueError, match="must hold dates"):
        network.dates(stack.assign_coords(secondary=("pair", np.full(len(pairs), 20160105))))


def test_an_area_of_masked_zeros_is_no_reference():
    """Zeros that a mask left have no scatter, and an area of which half is lost is none."""
    rng = np.random.default_rng(3)
    days, pairs = every_twelve_days(6)
    stack = make_stack(walk(rng, 6, (20, 20)), days, pairs)
    zeros, half = (xr.zeros_like(stack["coherence"][0], bool) for _ in range(2))
    zeros[:8, :8] = True
    stack["unwrapped_phase"][:, :8, :8] = 0.0
    with pytest.raises(ValueError, match="without scatter"):
        network.reference(stack, zeros)
    half[10:20, :10] = True
    stack["unwrapped_phase"][:, 10:17, :10] = np.nan
    with pytest.raises(ValueError, match="half of it"):
        network.reference(stack, half)


def test_a_projected_grid_without_its_system_is_refused():
    """Metres without a coordinate system are no latitudes."""
    days, pairs = every_twelve_days(6)
    stack = make_stack(np.zeros((6, 4, 5)), days, pairs).drop_vars("spatial_ref")
    stack = stack.assign_coords(y=4.2e6 - 100.0 * np.arange(4), x=5e5 + 100.0 * np.arange(5))
    with pytest.raises(ValueError, match="no coordinate system"):
        network.correct_delay(stack, height=False)
