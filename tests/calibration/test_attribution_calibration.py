"""Are drivers ranked as in truth, and is albedo claimed where it acts and only there? Whole twins, seed by seed.

Marked slow: about 20 s of processor time a scene, two at a time. The table data/calibration/attribution.csv is
appended scene by scene, so a run that was stopped goes on where it was;
`python tests/calibration/test_attribution_calibration.py
10` adds ten scenes and says what they show. What holds the ranking back is in attribution_limits.csv: the same ranking
from the noise-free rate, from drivers without error, and from both.

A scene is raw inputs, every correction, the inversion of descending Sentinel-1 with the rate of ALOS-2 as its prior,
and the models of notebook 08 at quick size. The smooth surface and the moved maps were chosen on seeds 5001 to 5012;
seeds below 3061 had been seen by earlier rules.
"""

import logging
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_merge_calibration import corrected, inverted

import twin
from helpers import attribution, io, space

TABLE = io.ROOT / "data" / "calibration" / "attribution.csv"
LIMITS = TABLE.with_name("attribution_limits.csv")
SENSORS = ("s1_desc", "alos2")  # all that the rate after mining needs here
SCENES = [(seed, seed % 3 == 0) for seed in range(3061, 3181)]
QUIET = [scene for scene in SCENES if scene[0] > 3120 and not scene[1]]  # whose limits are asked for
GROUPS = {
    "climate": ["elevation", "lst", "precipitation"],
    "terrain": ["slope_deg", "radiation_index", "northness", "eastness"],
    "vegetation and moisture": ["ndvi", "soil_moisture"],
    "ground ice": ["ground_ice"],
    "distance to mine": ["distance_to_mine"],
    "albedo": ["albedo", "albedo_change"],
}
COLUMNS = [column for columns in GROUPS.values() for column in columns] + ["coherence"]
KINDS = ("observed", "true_rate", "true_drivers", "true_both")
TRUE = [f"true_{name}" for name in ("ice", "permafrost", "rock", "wetness", "elevation")]
TIE = 0.1  # of the target's variance, in which importance is measured


def observed(seed, albedo_effect):
    """Rate after mining, its sd and the drivers of one twin as maps, and the true importance."""
    site = io.load_site("datong_twin", "quick")
    for sensor in set(site.sensors) - set(SENSORS):
        site.config.inputs.sar.pop(sensor)
    kept = {sensor: twin.radar.SENSORS[sensor] for sensor in SENSORS}
    with tempfile.TemporaryDirectory() as folder, patch.dict(twin.radar.SENSORS, kept, clear=True):
        site.raw = Path(folder) / "raw"
        twin.simulate(site.raw, seed=seed, size="quick", albedo_effect=albedo_effect)
        stacks = corrected(site, io.read_areas(site))
        main = stacks["s1_desc"]
        maps = io.read_drivers(site, main).merge(io.terrain(main["height"]), compat="override")
        areas = io.areas_on_grid(site, main)
        truth = io.read_truth(site)[["importance", "rate_up", *TRUE]].load()
    alos2 = inverted(stacks["alos2"])
    there = space.resample(alos2[["rate", "rate_std", "los_up"]], main)
    scale = main["los_up"] / there["los_up"]
    prior_std = np.hypot(np.hypot(there["rate_std"], alos2.attrs["reference_rate_std"]), 2.0) * scale
    series = inverted(main, (there["rate"] * scale, prior_std))
    tilt, aspect = np.sin(np.radians(maps["slope_deg"])), np.radians(maps["aspect_deg"])
    maps["northness"], maps["eastness"] = np.cos(aspect) * tilt, np.sin(aspect) * tilt
    maps["distance_to_mine"], maps["coherence"] = areas["distance_to_mine"], series["temporal_coherence"]
    maps["rate"], maps["rate_std"] = (series[k] / main["los_up"] for k in ("rate", "rate_std"))
    dug = (areas["pits"] | areas["heaps"]).astype(float).rolling(
        y=3, x=3, center=True, min_periods=1
    ).max() > 0
    off_limits = dug | areas["reference"] | (maps["slope_deg"] > 10)
    return maps.where(~off_limits), truth, io.cell_size_m(areas)


def scene(seed, albedo_effect):
    """What notebook 08 says of one twin: a row of the table."""
    maps, truth, cell_m = observed(seed, albedo_effect)
    found = said(maps, truth["importance"].to_series(), cell_m)
    return judged(pd.DataFrame([{"seed": seed, "albedo_effect": albedo_effect} | found]))


def sampled(maps, cell_m):
    """Pixels drawn by block, a row each: all maps, place, weight, block and long block; range of the residuals."""
    cell_y_m, cell_x_m = cell_m
    values = maps.transpose("y", "x").to_array().values.reshape(len(maps), -1)
    use = np.isfinite(values).all(axis=0)
    table = pd.DataFrame(dict(zip(maps, values[:, use], strict=True)))
    table["weight"] = 1 / np.maximum(table["rate_std"], 0.5 * np.median(table["rate_std"])) ** 2
    row, column = (v.ravel()[use] for v in np.indices(maps["rate"].transpose("y", "x").shape))
    x_m, y_m = column * cell_x_m, row * cell_y_m
    parts = table[COLUMNS], table["rate"].to_numpy(), table["weight"].to_numpy()
    side_m, range_m = attribution.block_side(*parts, np.column_stack([x_m, y_m]))
    # errors of residuals are taken as independent between blocks as long as sixteen of them allow
    long_m = min(np.ptp(x_m), np.ptp(y_m)) / 4
    table = table.assign(x_m=x_m, y_m=y_m, block=space.spatial_blocks(x_m, y_m, side_m))
    table["long_block"] = space.spatial_blocks(x_m, y_m, long_m)
    drawn = space.draw_by_block(table["block"].to_numpy(), 1000)
    return table.iloc[drawn].reset_index(drop=True), range_m


def limits(seed, albedo_effect):
    """Ranking of one twin by the surface from the noise-free rate, from drivers without error, and from both."""
    return limited(seed, *observed(seed, albedo_effect))


def limited(seed, maps, truth, cell_m):
    """Row of the table of limits from the maps and the truth of one twin."""
    flat = {name: truth[name].transpose("y", "x").values for name in TRUE}
    flat["rate"] = truth["rate_up"].sel(epoch="after").transpose("y", "x").values
    maps = maps[[*COLUMNS, "rate", "rate_std"]].assign(
        {f"{k}_here": (("y", "x"), v) for k, v in flat.items()}
    )
    table, _ = sampled(maps, cell_m)
    ice = table["true_ice_here"] * table["true_permafrost_here"] * (1 - table["true_rock_here"])
    exact = table[COLUMNS].assign(
        ground_ice=ice, elevation=table["true_elevation_here"], soil_moisture=table["true_wetness_here"]
    )
    out, blocks = {"seed": seed}, table["block"].to_numpy()
    for kind, drivers, target, weight in (
        ("observed", table[COLUMNS], "rate", table["weight"]),
        ("true_rate", table[COLUMNS], "rate_here", None),
        ("true_drivers", exact, "rate", table["weight"]),
        ("true_both", exact, "rate_here", None),
    ):
        data = {"drivers": drivers, "target": table[target].to_numpy(), "blocks": blocks, "weight": weight}
        surface, _ = attribution.fit_smooth(**data)
        data.pop("weight")
        found = attribution.grouped_importance(surface, **data, groups=GROUPS)
        out |= named(kind, found.set_index("group")["importance"])
    row = pd.DataFrame([out | named("truth", truth["importance"].to_series())])
    return row.assign(**{f"recovered_{kind}": recovered(row, kind, relative=True)[0] for kind in KINDS})


def named(kind, values):
    """Values of groups under names of columns."""
    return {f"{kind}_{g.replace(' ', '_')}": values[g] for g in GROUPS}


def said(maps, truth, cell_m):
    """Models, ranking and answer on albedo from the maps of one twin, with the true importance."""
    table, range_m = sampled(maps[[*COLUMNS, "rate", "rate_std"]], cell_m)
    weight = table["weight"].to_numpy()
    data = {
        "drivers": table[COLUMNS],
        "target": table["rate"].to_numpy(),
        "blocks": table["block"].to_numpy(),
    }
    model, scores = attribution.fit_forest(**data, weight=weight, random_split=False, trees=33)
    smooth, smooth_scores = attribution.fit_smooth(**data, weight=weight)
    ranked = {
        kind: attribution.grouped_importance(m, **data, groups=GROUPS)
        for kind, m in (("forest", model), ("smooth", smooth))
    }
    r2 = {"forest": scores.attrs["r2_blocked"], "smooth": smooth_scores.attrs["r2_blocked"]}
    found = ranked[max(r2, key=r2.get)]  # the model that predicts unseen blocks better ranks
    impurity = attribution.impurity_importance(model, data["drivers"], GROUPS).set_index("group")[
        "importance"
    ]
    rich = data["drivers"]["ground_ice"].to_numpy() > 0.5
    effect = attribution.partial_effect(
        model,
        **data,
        name="albedo_change",
        without=["albedo", "albedo_change", "lst"],
        ground=attribution.Ground(
            error_blocks=table["long_block"].to_numpy(),
            place=table[["x_m", "y_m"]].to_numpy(),
            parts={"rich": rich, "poor": ~rich},
        ),
    )
    local = attribution.accumulated_local_effects(model, data["drivers"], "albedo_change", rows=rich, bins=8)
    out = {"pixels": len(table), "range_m": range_m, "local_rich": local.attrs["span"][0]}
    out |= {f"r2_{kind}": value for kind, value in r2.items()}
    for part, value in effect.items():
        out |= {f"{k}_{part}": value[k] for k in ("effect", "std", "lower", "upper", "blocks", "p_value")}
    # the rule: brighter ground sinks less beyond doubt (T4: interval, and maps moved over the scene), and the local
    # effect (T3) points the same way
    beyond = out["lower_rich"] > 0 and out["p_value_rich"] <= 0.05
    out["claimed"] = bool(beyond and out["local_rich"] > 0)
    importance, draws = found.set_index("group")["importance"], pd.DataFrame(found.attrs["draws"])
    sure = [(a, b) for a in GROUPS for b in GROUPS if (draws[a] > draws[b]).mean() > 0.975]
    out |= {"pairs_sure": len(sure), "pairs_sure_wrong": sum(truth[b] - truth[a] > TIE for a, b in sure)}
    forest = ranked["forest"].set_index("group")["importance"]
    kinds = {"importance": importance, "truth": truth, "forest": forest, "impurity": impurity}
    for kind, of in kinds.items():
        out |= named(kind, of)
    return out


def judged(table):
    """Add whether the true ranking is recovered: by permutation, with close truths kept apart, by impurity.

    Detectable are groups whose truth is above all that is found, in the same scene, for groups that do nothing.
    """
    found, truth = (
        table[[f"{k}_{g.replace(' ', '_')}" for g in GROUPS]].to_numpy() for k in ("importance", "truth")
    )
    chance = np.where(truth == 0, found, 0).max(axis=1)
    return table.assign(
        recovered=recovered(table),
        recovered_strict=recovered(table, relative=True),
        recovered_detectable=recovered(table, relative=True, above=chance),
        recovered_by_forest=recovered(table, "forest"),
        recovered_by_impurity=recovered(table, "impurity"),
    )


def extend(scenes, path=TABLE, make=scene):
    """Add scenes that the table does not have, two at a time; give the table."""
    table = pd.read_csv(path) if path.exists() else pd.DataFrame()
    done = set(table["seed"]) if len(table) else set()
    left = [scene for scene in scenes if scene[0] not in done]
    if not left:
        return table
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(make, *zip(*left, strict=True)):
            table = pd.concat([table, row], ignore_index=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
            part.replace(path)
    return table


def recovered(table, kind="importance", tie=TIE, relative=False, above=None):
    """Whether every pair of groups that are no tie in truth stands in the true order (a value per scene).

    Of a scene only groups whose truth is `above` (scene,) count.
    """
    names = [c.removeprefix("truth_") for c in table if c.startswith("truth_")]
    truth, found = (table[[f"{k}_{n}" for n in names]].to_numpy() for k in ("truth", kind))
    gap = truth[:, :, None] - truth[:, None, :]
    limit = tie * (truth[:, :, None] if relative else np.ones_like(gap))
    wrong = (gap > limit) & (found[:, :, None] <= found[:, None, :])
    if above is not None:
        counts = truth > np.asarray(above)[:, None]
        wrong &= counts[:, :, None] & counts[:, None, :]
    return ~wrong.any(axis=(1, 2))


def score(table):
    """Share of scenes with its exact 95 % interval: ranking recovered, albedo claimed, interval of its effect."""
    acts, without = table[table["albedo_effect"]], table[~table["albedo_effect"]]
    cases = {
        "ranking recovered": without["recovered"],
        "ranking recovered, ties within 10 % of each other": without["recovered_strict"],
        "the same, groups above chance": without["recovered_detectable"],
        "ranking recovered by the forest": without["recovered_by_forest"],
        "ranking recovered by the forest, ties within 10 % of each other": recovered(
            without, "forest", relative=True
        ),
        "ranking recovered by impurity": without["recovered_by_impurity"],
        "ranking recovered, albedo acts": acts["recovered"],
        "albedo claimed, none acts": without["claimed"],
        "albedo claimed, it acts": acts["claimed"],
        "interval holds 0, none acts": (without["lower_rich"] <= 0) & (without["upper_rich"] >= 0),
        "moved maps at 0.05, none acts": without["p_value_rich"] <= 0.05,
    }
    rows = []
    for name, hits in cases.items():
        hits = np.asarray(hits, bool)
        interval = (
            stats.binomtest(int(hits.sum()), len(hits)).proportion_ci() if len(hits) else (np.nan, np.nan)
        )
        rows.append((name, len(hits), hits.mean() if len(hits) else np.nan, *interval))
    return pd.DataFrame(rows, columns=["what", "scenes", "share", "lower", "upper"]).set_index("what")


@pytest.mark.slow
def test_ranking_and_albedo_on_unseen_twins():
    """Ranking recovered with probability 0.9; albedo claimed in at most 5 % of the scenes where it does not act and
    in at least half of those where it does. Judged by whether the exact binomial interval contains the target.

    Ties are truths closer than a tenth of the target's variance. Where only truths within a tenth of each other are
    ties fewer scenes are right (counted, not asserted; why, `test_what_holds_the_ranking_back` asks): the importance of
    climate is known to about what parts it from that of vegetation. There the surface must be nearer than the forest.
    """
    table = extend(SCENES)
    found = score(table)
    assert found.loc["ranking recovered", "upper"] >= 0.9, found.to_string()
    error = {
        k: np.hypot.reduce(table[f"{k}_climate"] - table["truth_climate"]) for k in ("importance", "forest")
    }
    assert error["importance"] < error["forest"], error
    assert found.loc["albedo claimed, none acts", "lower"] <= 0.05, found.to_string()
    assert found.loc["albedo claimed, it acts", "lower"] >= 0.5, found.to_string()
    assert found.loc["interval holds 0, none acts", "upper"] >= 0.95, found.to_string()


@pytest.mark.slow
def test_what_holds_the_ranking_back():
    """Truths within a tenth of each other are ties. Without the errors of the rate, of the driver maps, or of both, the
    ranking is right more often and the importance of ground ice nearer its truth: noise holds it back, not the surface.
    """
    table = extend(QUIET, LIMITS, limits)
    right = {kind: table[f"recovered_{kind}"].mean() for kind in KINDS}
    short = {kind: abs((table[f"{kind}_ground_ice"] - table["truth_ground_ice"]).mean()) for kind in KINDS}
    for kind in ("true_rate", "true_drivers"):
        assert right["observed"] < right[kind] < right["true_both"], right
        assert short["observed"] > short[kind] > short["true_both"], short


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    more = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    have = len(pd.read_csv(TABLE)) if TABLE.exists() else 0
    sys.stdout.write(score(extend(SCENES[: have + more])).round(3).to_string() + "\n")
