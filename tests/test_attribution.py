"""What attribution must hold: known rankings found, no effect where there is none, no flattery."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from helpers import attribution, space
from helpers.attribution import effects, importance

SIDE, SPACING_M = 28, 500.0
GROUPS = {
    "climate": ["elevation", "temperature"],
    "ice": ["ice"],
    "mine": ["distance"],
    "albedo": ["albedo"],
}
FAST = {"trees": 30, "leaf": 5}


def smooth(rng, cells, side=SIDE):
    field = gaussian_filter(rng.normal(size=(side, side)), cells, mode="wrap")
    return ((field - field.mean()) / field.std()).ravel()


def scene(seed, *, ice=1.0, mine=0.6, climate=0.3, albedo=0.0, noise=0.3):
    """Correlated drivers and a target whose parts are known; albedo is darkened by the mine's dust."""
    rng = np.random.default_rng(seed)
    y_m, x_m = (v.ravel() * SPACING_M for v in np.mgrid[:SIDE, :SIDE])
    elevation = smooth(rng, 3)
    table = pd.DataFrame(
        {
            "elevation": elevation,
            "temperature": -elevation + 0.2 * smooth(rng, 1),
            "ice": 0.4 * elevation + 0.9 * smooth(rng, 2),
            "distance": np.hypot(x_m - rng.choice(x_m), y_m - rng.choice(y_m)) / 1000,
        }
    )
    table["albedo"] = 0.5 * smooth(rng, 2) - np.exp(-table["distance"] / 3)
    parts = {
        "climate": -climate * elevation,
        "ice": -ice * np.tanh(table["ice"]),
        "mine": -3 * mine * np.exp(-table["distance"] / 3),
        "albedo": albedo * table["albedo"] * (table["ice"] > 0),
    }
    target = sum(parts.values()) + noise * rng.normal(size=len(table))
    blocks = space.spatial_blocks(x_m, y_m, 3500)
    return table, np.asarray(target), blocks, (x_m, y_m)


def test_known_ranking_of_correlated_drivers():
    """Ice over mine over climate, although ice and climate are correlated; albedo does nothing."""
    right = 0
    for seed in range(3):
        x, y, blocks, _ = scene(seed, ice=1.2, mine=0.9, climate=0.15)
        model, _ = attribution.fit_forest(x, y, None, blocks, **FAST)
        out = attribution.grouped_importance(model, x, y, GROUPS, blocks).set_index("group")
        right += out["importance"].idxmax() == "ice"
        assert out.loc["ice", "lower"] > out.loc["albedo", "upper"]
        assert out["rank_probability"].between(0, 1).all()
        np.testing.assert_allclose([sum(p) for p in out.attrs["ranks"].values()], 1)
    assert right == 3


def test_a_smooth_surface_does_not_flatten_weak_drivers():
    """Where parts add up, permuting one costs twice its variance: the surface finds that, the forest less of it."""
    short = {"forest": [], "smooth": []}
    for seed in range(3):
        x, y, blocks, _ = scene(seed, ice=1.2, mine=0.9, climate=0.5, noise=0.1)
        truth = 2 * np.var(0.5 * x["elevation"]) / np.var(y)
        for kind, fit in (("forest", attribution.fit_forest), ("smooth", attribution.fit_smooth)):
            model, scores = fit(x, y, None, blocks, **(FAST if kind == "forest" else {}))
            out = attribution.grouped_importance(model, x, y, GROUPS, blocks).set_index("group")
            short[kind].append(out.loc["climate", "importance"] / truth)
            assert scores.attrs["r2_blocked"] > 0.7
    assert np.mean(short["smooth"]) == pytest.approx(1, abs=0.15)
    assert np.mean(short["forest"]) < np.mean(short["smooth"]) - 0.15


def test_known_noise_of_a_smooth_surface():
    """Pixels ruined by noise, with the sd to say so, count less; a pixel of weight 0 does not count at all."""
    x, y, blocks, _ = scene(5, noise=0.05)
    rng = np.random.default_rng(0)
    sd = np.where(rng.random(len(y)) < 0.5, 0.1, 4.0)
    noisy = y + sd * rng.normal(size=len(y))
    error = {}
    for name, weight in (
        ("plain", None),
        ("weighted", 1 / sd**2),
        ("without", np.where(sd > 1, 0, 1 / sd**2)),
    ):
        model, _ = attribution.fit_smooth(x, noisy, weight, blocks)
        error[name] = np.mean((model.predict(x.to_numpy()) - y) ** 2)
    assert error["weighted"] < 0.5 * error["plain"] and error["without"] < 0.5 * error["plain"]


def test_no_effect_is_claimed_for_a_driver_that_only_shares_the_dust():
    """Albedo that follows the distance to the mine but moves nothing adds nothing of its own."""
    claims = 0
    for seed in range(4):
        x, y, blocks, _ = scene(50 + seed)
        model, _ = attribution.fit_forest(x, y, None, blocks, **FAST)
        alone = attribution.drop_column(model, x, y, {"albedo": ["albedo"]}, blocks, trees=30)
        given_rest = attribution.grouped_importance(model, x, y, GROUPS, blocks, conditional=True).set_index(
            "group"
        )
        claims += bool(alone["lower"].iloc[0] > 0 and given_rest.loc["albedo", "lower"] > 0)
        assert given_rest.loc["albedo", "importance"] < 0.05
    assert claims <= 1


def test_an_albedo_effect_is_found_where_there_is_ice():
    """An effect confined to ice shows in the local effects there, and not outside."""
    inside, outside = [], []
    for seed in range(3):
        x, y, blocks, _ = scene(80 + seed, albedo=1.0)
        model, _ = attribution.fit_forest(x, y, None, blocks, **FAST)
        args = {"forests": attribution.bootstrap_forests(model, x, y, blocks, refits=6, trees=30)}
        rich = (x["ice"] > 0.3).to_numpy()
        inside.append(
            attribution.accumulated_local_effects(model, x, "albedo", rows=rich, **args).attrs["span"]
        )
        poor = (x["ice"] < -0.3).to_numpy()
        outside.append(
            attribution.accumulated_local_effects(model, x, "albedo", rows=poor, **args).attrs["span"]
        )
    assert np.mean([s[1] > 0 for s in inside]) >= 2 / 3
    assert np.mean([s[0] for s in inside]) > 2.5 * abs(np.mean([s[0] for s in outside]))


def test_random_splits_flatter_and_blocks_do_not():
    """A target of smooth noise is 'explained' by smooth drivers at random, not in unseen blocks."""
    gap = []
    for seed in range(3):
        x, _, _, (x_m, y_m) = scene(seed)
        y = smooth(np.random.default_rng(900 + seed), 3)
        _, scores = attribution.fit_forest(x, y, None, space.spatial_blocks(x_m, y_m, 5000), **FAST)
        assert list(scores.columns) == ["fold", "r2_random", "r2_blocked"]
        gap.append((scores.attrs["r2_random"], scores.attrs["r2_blocked"]))
    random, blocked = np.mean(gap, axis=0)
    assert random > 0.5 and blocked < 0.25


def test_impurity_is_misled_where_held_out_permutation_is_not():
    """Smooth noise columns win impurity in-sample; on held-out blocks they have no importance."""
    x, y, blocks, _ = scene(7, ice=0.8, mine=0.0, climate=0.0, noise=1.0)
    x = x.assign(**{f"junk{i}": smooth(np.random.default_rng(i), 1) for i in range(4)})
    groups = {"ice": ["ice"], "junk": [f"junk{i}" for i in range(4)]}
    model, _ = attribution.fit_forest(x, y, None, blocks, **FAST)
    impure = attribution.impurity_importance(model, x, groups).set_index("group")["importance"]
    held_out = attribution.grouped_importance(model, x, y, groups, blocks).set_index("group")
    assert impure["junk"] > 0.2 * impure["ice"]
    assert held_out.loc["junk", "importance"] < 0.1 * held_out.loc["ice", "importance"]


def test_weights_make_noisy_pixels_count_less():
    """Pixels ruined by noise, with the sd to say so, spoil the forest less when weighted."""
    x, y, blocks, _ = scene(5)
    rng = np.random.default_rng(0)
    sd = np.where(rng.random(len(y)) < 0.5, 0.3, 4.0)
    noisy = y + sd * rng.normal(size=len(y))
    error = {}
    for name, weight in (("plain", None), ("weighted", 1 / sd**2)):
        model, _ = attribution.fit_forest(x, noisy, weight, blocks, **FAST)
        error[name] = np.mean((model.predict(x.to_numpy()) - y) ** 2)
    assert error["weighted"] < 0.8 * error["plain"]


def test_local_effects_of_a_line_are_its_slope():
    """On an additive truth the curve is the driver's own part, mean 0, though others correlate."""
    rng = np.random.default_rng(1)
    a = rng.uniform(-1, 1, 3000)
    x = pd.DataFrame({"a": a, "b": a + 0.1 * rng.normal(size=a.size)})

    class Exact:
        def predict(self, values):
            return 2 * values[:, 0] + values[:, 1] ** 2

    out = attribution.accumulated_local_effects(Exact(), x, "a")
    slope = np.polyfit(out["value"], out["effect"], 1)[0]
    assert slope == pytest.approx(2, abs=1e-6)
    assert out.attrs["span"][0] == pytest.approx(2 * np.ptp(np.quantile(a, (0.1, 0.9))), rel=1e-6)
    inner = 0.5 * (out["effect"].to_numpy()[1:] + out["effect"].to_numpy()[:-1])
    assert np.average(inner, weights=out["n"].to_numpy()[:-1]) == pytest.approx(0, abs=1e-9)


def test_residual_range_orders_smooth_and_rough_fields():
    """The range of white noise is the shortest class; smoother fields have longer ranges."""
    y_m, x_m = (v.ravel() * SPACING_M for v in np.mgrid[:SIDE, :SIDE])
    ranges = [
        np.median([space.residual_range(f(np.random.default_rng(s)), x_m, y_m) for s in range(5)])
        for f in (lambda r: r.normal(size=x_m.size), lambda r: smooth(r, 1.5), lambda r: smooth(r, 4))
    ]
    assert ranges[0] < ranges[1] < ranges[2]


def test_applicability_flags_what_training_never_saw():
    """Pixels far outside the training drivers are outside; the training kind is mostly inside."""
    x, _, blocks, _ = scene(2)
    _, inside = attribution.applicability(x, x + 0.01, blocks)
    _, far = attribution.applicability(x, x + 8 * x.std(), blocks)
    assert inside.mean() > 0.9 and far.mean() < 0.05


def test_a_proxy_has_no_effect_among_pixels_made_alike():
    """Albedo darkened by the mine's dust goes with the rate; among pixels all others make alike it does not."""
    raw, partial = [], []
    for seed in range(6):
        x, y, _, place = scene(20 + seed, mine=1.0)
        blocks = space.spatial_blocks(*place, 2000)
        model, _ = attribution.fit_forest(x, y, None, blocks, random_split=False, **FAST)
        raw.append(np.polyfit(x["albedo"], y, 1)[0])
        out = attribution.partial_effect(model, x, y, blocks, "albedo", ["albedo"])["all"]
        partial.append(out["effect"])
        assert out["lower"] < out["effect"] < out["upper"] and out["n"] == len(y)
    assert np.mean(raw) > 0.4
    assert abs(np.mean(partial)) < 0.1 * np.mean(raw)


def test_partial_effect_finds_the_slope_where_it_acts():
    """An effect confined to ice is found there with its size, and not where there is none."""
    found = []
    for seed in range(4):
        x, y, _, place = scene(40 + seed, albedo=1.0)
        blocks = space.spatial_blocks(*place, 2000)
        model, _ = attribution.fit_forest(x, y, None, blocks, random_split=False, **FAST)
        parts = {"rich": (x["ice"] > 0.3).to_numpy(), "poor": (x["ice"] < -0.3).to_numpy()}
        ground = attribution.Ground(parts=parts)
        out = attribution.partial_effect(model, x, y, blocks, "albedo", ["albedo"], ground)
        found.append((out["rich"]["effect"], out["rich"]["lower"], out["poor"]["effect"]))
    rich, lower, poor = np.mean(found, axis=0)
    assert rich == pytest.approx(1.0, abs=0.25) and lower > 0.5
    assert abs(poor) < 0.25


def test_moved_maps_tell_chance_from_effect():
    """An effect beats every moved map; of two smooth maps that share nothing, few pairs look related."""
    x, y, blocks, place = scene(40, albedo=1.0)
    place = np.column_stack(place)
    model, _ = attribution.fit_forest(x, y, None, blocks, random_split=False, **FAST)
    args = (model, x, y, blocks, "albedo", ["albedo"])
    found = attribution.partial_effect(*args, attribution.Ground(place=place))["all"]
    assert found["p_value"] == pytest.approx(0.005)
    assert np.isnan(attribution.partial_effect(*args)["all"]["p_value"])
    reached = []
    for seed in range(100):
        one, two = (smooth(np.random.default_rng((seed, k)), 3) for k in range(2))
        moved = np.array(list(effects.moved_maps(two, place, seed)))
        assert np.isin(moved, two).all()
        reached.append(np.mean(np.abs(moved @ one) >= abs(two @ one)))
    assert np.mean(np.array(reached) <= 0.05) <= 0.1  # nominal 0.05


def test_sd_of_a_slope_counts_blocks_not_pixels():
    """Noise common to a block: the sd over many draws is the stated one, though pixels are many."""
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(16), 25)
    slopes = []
    for _ in range(300):
        x, y = (rng.normal(size=16)[blocks] + 0.1 * rng.normal(size=blocks.size) for _ in range(2))
        slopes.append(effects.clustered_slope(y, x, np.ones(blocks.size), blocks))
    slopes = pd.DataFrame(slopes).dropna()  # few effective blocks give no interval
    assert len(slopes) > 200
    covered = ((slopes["lower"] < 0) & (slopes["upper"] > 0)).mean()
    assert 0.93 < covered < 0.995
    assert slopes["effect"].std() == pytest.approx(slopes["std"].mean(), rel=0.25)


def test_block_side_grows_with_the_range_of_what_is_left():
    """Smooth residuals ask for longer blocks, within a quarter of the scene."""
    x, _, _, (x_m, y_m) = scene(6)
    sides = []
    for cells in (0.5, 3.0):
        y = -np.tanh(x["ice"].to_numpy()) + np.array(
            [smooth(np.random.default_rng(s), cells) for s in range(3)]
        )
        sides.append(np.mean([attribution.block_side(x, v, None, np.column_stack([x_m, y_m]))[0] for v in y]))
    assert 2000 <= sides[0] < sides[1] <= np.ptp(x_m) / 4


def test_same_input_same_output():
    """Two runs give identical numbers to the last bit."""
    x, y, blocks, _ = scene(1)
    runs = []
    for _ in range(2):
        model, scores = attribution.fit_forest(x, y, None, blocks, trees=20)
        table = attribution.grouped_importance(model, x, y, GROUPS, blocks)
        runs.append(np.concatenate([scores.to_numpy().ravel(), table["lower"], table["rank_probability"]]))
    assert np.array_equal(*runs)


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_permutation_stays_within_strata(labels, seed):
    """A conditional permutation moves every value, once, inside its own stratum."""
    labels = np.array(labels)
    order = importance.permute_within(labels, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    assert np.array_equal(labels[order], labels)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(10, 400), seed=st.integers(0, 9))
def test_draw_takes_the_same_share_of_every_block(n, seed):
    """Sampling keeps every block and its weight."""
    blocks = np.repeat(np.arange(8), 60)
    rows = space.draw_by_block(blocks, n, seed=seed)
    counts = np.bincount(blocks[rows], minlength=8)
    assert np.ptp(counts) == 0 and counts[0] == max(1, round(n / 8)) and np.unique(rows).size == rows.size


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y, w, b: (x.assign(ice=np.nan), y, w, b), "NaN in columns"),
        (lambda x, y, w, b: (x.assign(ice="rich"), y, w, b), "not numeric"),
        (lambda x, y, w, b: (x, y[:-1], w, b), "shape"),
        (lambda x, y, w, b: (x, np.where(y > 0, np.nan, y), w, b), "are NaN"),
        (lambda x, y, w, b: (x, y * 0, w, b), "constant"),
        (lambda x, y, w, b: (x, y, -w, b), "weight"),
        (lambda x, y, w, b: (x, y, w, b * 0), "1 blocks for 5 folds"),
        (lambda x, y, w, b: (x.to_numpy(), y, w, b), "DataFrame"),
    ],
)
def test_bad_input(spoil, message):
    """Each kind of bad input is named."""
    x, y, blocks, _ = scene(0)
    with pytest.raises(ValueError, match=message):
        attribution.fit_forest(*spoil(x, y, np.ones(len(y)), blocks), **FAST)


def test_bad_names():
    """Unknown drivers and empty groups are errors that list what there is."""
    x, y, blocks, _ = scene(0)
    model, _ = attribution.fit_forest(x, y, None, blocks, trees=5)
    with pytest.raises(ValueError, match="no drivers"):
        attribution.grouped_importance(model, x, y, {"a": ["snow"]}, blocks)
    with pytest.raises(ValueError, match="empty"):
        attribution.grouped_importance(model, x, y, {}, blocks)
    with pytest.raises(ValueError, match="no driver"):
        attribution.accumulated_local_effects(model, x, "snow")
    with pytest.raises(ValueError, match="must hold 'albedo'"):
        attribution.partial_effect(model, x, y, blocks, "albedo", ["ice"])
    with pytest.raises(ValueError, match="constant"):
        attribution.accumulated_local_effects(model, x.assign(ice=1.0), "ice")
