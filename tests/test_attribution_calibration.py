"""Are drivers ranked as in truth, and is albedo claimed where it acts and only there? Whole twins, seed by seed.

Marked slow: about 30 s a scene. The table data/calibration/attribution.csv is appended scene by scene, so a run that
was stopped goes on where it was; `python tests/test_attribution_calibration.py 10` adds ten scenes and says what they
show.

A scene is raw inputs, every correction, the inversion of descending Sentinel-1 with the rate of ALOS-2 as its prior,
and the models of notebook 08 at quick size. The smooth surface and the moved maps were chosen on seeds 5001 to 5012;
seeds below 3061 had been seen by earlier rules.
"""

import logging
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_merge_calibration import corrected, inverted

from helpers import attribution, io, merge, twin

TABLE = io.ROOT / "data" / "calibration" / "attribution.csv"
SENSORS = ("s1_desc", "alos2")  # all that the rate after mining needs here
SCENES = [(seed, seed % 3 == 0) for seed in range(3061, 3121)]
GROUPS = {
    "climate": ["elevation", "lst", "precipitation"],
    "terrain": ["slope_deg", "radiation_index", "northness", "eastness"],
    "vegetation and moisture": ["ndvi", "soil_moisture"],
    "ground ice": ["ground_ice"],
    "distance to mine": ["distance_to_mine"],
    "albedo": ["albedo", "albedo_change"],
}
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
        importance = io.read_truth(site)["importance"].to_series()
    alos2 = inverted(stacks["alos2"])
    there = merge.resample(alos2[["rate", "rate_std", "los_up"]], main)
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
    return maps.where(~off_limits), importance, io.cell_size_m(areas)


def scene(seed, albedo_effect):
    """What notebook 08 says of one twin: a row of the table."""
    return judged(
        pd.DataFrame([{"seed": seed, "albedo_effect": albedo_effect} | said(*observed(seed, albedo_effect))])
    )


def said(maps, truth, cell_m):
    """Models, ranking and answer on albedo from the maps of one twin, with the true importance."""
    cell_y_m, cell_x_m = cell_m
    columns = [c for names in GROUPS.values() for c in names] + ["coherence"]
    values = (
        maps[[*columns, "rate", "rate_std"]]
        .transpose("y", "x")
        .to_array()
        .values.reshape(len(columns) + 2, -1)
    )
    use = np.isfinite(values).all(axis=0)
    frame = pd.DataFrame(dict(zip(columns, values[:-2, use], strict=True)))
    rate, sd = values[-2:, use]
    weight = 1 / np.maximum(sd, 0.5 * np.median(sd)) ** 2
    row, column = (v.ravel()[use] for v in np.indices(maps["rate"].transpose("y", "x").shape))
    x_m, y_m = column * cell_x_m, row * cell_y_m
    side_m, range_m = attribution.block_side(frame, rate, weight, x_m, y_m)
    blocks = attribution.spatial_blocks(x_m, y_m, side_m)
    drawn = attribution.draw_by_block(blocks, 1000)
    data = {
        "drivers": frame.iloc[drawn].reset_index(drop=True),
        "target": rate[drawn],
        "blocks": blocks[drawn],
    }
    weight = weight[drawn]
    model, scores = attribution.fit_forest(**data, weight=weight, random_split=False, trees=33)
    smooth, smooth_scores = attribution.fit_smooth(**data, weight=weight)
    ranked = {
        kind: attribution.grouped_importance(
            m, **data, weight=weight, groups=GROUPS, forests=m.fold_models_, repeats=2
        )
        for kind, m in (("forest", model), ("smooth", smooth))
    }
    r2 = {"forest": scores.attrs["r2_blocked"], "smooth": smooth_scores.attrs["r2_blocked"]}
    found = ranked[max(r2, key=r2.get)]  # the model that predicts unseen blocks better ranks
    impurity = attribution.impurity_importance(model, data["drivers"], GROUPS).set_index("group")[
        "importance"
    ]
    # errors of residuals are taken as independent between blocks as long as sixteen of them allow
    quarters = attribution.spatial_blocks(x_m, y_m, min(np.ptp(x_m), np.ptp(y_m)) / 4)
    rich = data["drivers"]["ground_ice"].to_numpy() > 0.5
    effect = attribution.partial_effect(
        model,
        **data,
        weight=weight,
        name="albedo_change",
        without=["albedo", "albedo_change", "lst"],
        error_blocks=quarters[drawn],
        place=np.column_stack([x_m, y_m])[drawn],
        rows={"rich": rich, "poor": ~rich},
    )
    local = attribution.accumulated_local_effects(model, data["drivers"], "albedo_change", rows=rich, bins=8)
    out = {"pixels": len(drawn), "range_m": range_m, "local_rich": local.attrs["span"][0]}
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
        out |= {f"{kind}_{g.replace(' ', '_')}": of[g] for g in GROUPS}
    return out


def judged(table):
    """Add whether the true ranking is recovered: by permutation, with close truths kept apart, by impurity."""
    return table.assign(
        recovered=recovered(table),
        recovered_strict=recovered(table, relative=True),
        recovered_by_forest=recovered(table, "forest"),
        recovered_by_impurity=recovered(table, "impurity"),
    )


def extend(scenes):
    """Add scenes that the table does not have; give the table."""
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame()
    done = set(zip(table["seed"], table["albedo_effect"], strict=True)) if len(table) else set()
    for seed, albedo_effect in scenes:
        if (seed, albedo_effect) in done:
            continue
        table = pd.concat([table, scene(seed, albedo_effect)], ignore_index=True)
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        part = TABLE.with_suffix(".part")
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
        part.replace(TABLE)
    return table


def recovered(table, kind="importance", tie=TIE, relative=False):
    """Whether every pair of groups that are no tie in truth stands in the true order (a value per scene)."""
    names = [c.removeprefix("truth_") for c in table if c.startswith("truth_")]
    truth, found = (table[[f"{k}_{n}" for n in names]].to_numpy() for k in ("truth", kind))
    gap = truth[:, :, None] - truth[:, None, :]
    limit = tie * (truth[:, :, None] if relative else np.ones_like(gap))
    wrong = (gap > limit) & (found[:, :, None] <= found[:, None, :])
    return ~wrong.any(axis=(1, 2))


def score(table):
    """Share of scenes with its exact 95 % interval: ranking recovered, albedo claimed, interval of its effect."""
    acts, without = table[table["albedo_effect"]], table[~table["albedo_effect"]]
    cases = {
        "ranking recovered": without["recovered"],
        "ranking recovered, ties within 10 % of each other": without["recovered_strict"],
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
    ties fewer scenes are right (counted, not asserted): the importance of climate is known to about what parts it from
    that of vegetation. There the surface must be nearer than the forest.
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


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    more = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    have = len(pd.read_csv(TABLE)) if TABLE.exists() else 0
    sys.stdout.write(score(extend(SCENES[: have + more])).round(3).to_string() + "\n")
