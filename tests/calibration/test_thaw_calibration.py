"""Do the intervals of thaw-season scaling hold, over seeds that no development has seen?

Columns of the twin: heat conduction in layered ground, observed by Sentinel-1 with every error drawn pixel by pixel.
Pixels and years of a seed share their weather, so a seed counts once: `single` is one prediction drawn from those of a
seed, and its mean over seeds is judged by the exact binomial interval; `hits / n` uses all of them. Whole scenes, with
delay alike over many kilometres, are the second test: there the change of the fraction from year to year is the matter.

Marked slow: about 4 s a seed and 10 s a scene, of one processor. The tables data/calibration/thaw_*.csv are
appended seed by seed, so a run that was stopped goes on where it was;
`python tests/calibration/test_thaw_calibration.py 50 5` adds 50 seeds and 5 scenes.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import twin
from helpers import io, network, sbas, thaw
from twin import motion, pixels, radar, weather
from twin.physics import Switches, physics

FOLDER = io.ROOT / "data" / "calibration"
SEEDS = range(8401, 8601)
SCENES = range(7301, 7331)
PIXELS = 40
# cycles that a whole frame is off cancel in the reference, which columns do not have
CONSTANTS = {"frame_offset_share": 0.0}
HIDDEN = 2  # years of a seed that are hidden in turn, drawn anew for each seed
LEARN, PAST = range(2016, 2024), range(1997, 2011)
METHODS = ("constant", "degree_day", "joint", "shrunk")
SHORT = ["early", "mid", "june_august", "june_september"]
WINDOWS = {"full": ("05-10", "10-08")} | {w: motion.WINDOWS[w] for w in SHORT}
DROPS = {"max_gap_days": 40, "outside_days": 8}


def append(name, rows):
    """Add rows to a table of data/calibration."""
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    style = {"index": False, "float_format": "%.4g", "lineterminator": "\n"}
    pd.DataFrame(rows).to_csv(path, mode="a", header=not path.exists(), **style)


def done(name, key="seed"):
    """Seeds that a table has."""
    path = FOLDER / name
    return set(pd.read_csv(path)[key]) if path.exists() else set()


def of_summers(stack, atmosphere_mm):
    """Position through each season from that season's own pairs, corrected as in 02: mm up, and its sd by date."""
    stack = network.correct_unwrapping(stack)
    stack = network.correct_fading(stack, network.fading(stack))
    first, second = (pd.DatetimeIndex(stack[k].values) for k in ("reference", "secondary"))
    inside = (first.year == second.year) & (first.month > 4) & (second.month < 11)
    runs = [
        sbas.invert(stack.isel(pair=np.flatnonzero(inside & (first.year == y))), None)
        for y in np.unique(first.year[inside])
    ]
    run = xr.concat([r[["displacement", "displacement_std"]] for r in runs], "time")
    return run["displacement"] / stack["los_up"], np.hypot(run["displacement_std"], atmosphere_mm) / stack[
        "los_up"
    ]


def true_ground(seed):
    """The ground that `twin.columns` gives this seed, to be asked for its position on any day."""
    p, on = physics(**CONSTANTS), Switches()
    sky, table = pixels._soil(seed, True, tuple(p[k] for k in (*pixels.WEATHER, *pixels.GROUND)))
    base = motion.basis(sky, table, p, on)
    return motion.pixels(pixels._ground(PIXELS, weather.stream(seed, "columns ground")), base, p, on), base


def true_drops(ground, years, rate):
    """Drop (year, window, y, x) of the noise-free ground without the epoch's rate (y, x), mm."""
    pix, base = ground
    values = []
    for year in years:
        ends = [[f"{year}-{e}" for e in limits] for limits in WINDOWS.values()]
        up = np.stack([motion.displacement(pix, base, e)[0] for e in ends])
        span = np.array([(pd.Timestamp(b) - pd.Timestamp(a)).days / 365.25 for a, b in ends])
        values.append(up[:, 0] - up[:, 1] + span[:, None] * rate.values[:, 0])
    dims = ("year", "window", "y")
    return xr.DataArray(np.array(values), {"year": list(years), "window": list(WINDOWS)}, dims).expand_dims(
        "x", -1
    )


def mean_of(values, std):
    """Area mean of independent pixels, and its sd."""
    n = values.notnull().sum(("y", "x"))
    return values.mean(("y", "x")), np.sqrt(np.square(std).where(values.notnull()).sum(("y", "x"))) / n


def judged(seed, kind, table, rng):
    """Rows of one seed: hits and errors by level, window and method."""
    rows = []
    for (level, window, method), part in table.groupby(["level", "window", "method"]):
        inside = (part["lower"] <= part["observed"]) & (part["observed"] <= part["upper"])
        score = thaw.score(part, by=("window",)).iloc[0]
        row = {"seed": seed, "kind": kind, "level": level, "window": window, "method": method, "n": len(part)}
        row |= {"hits": int(inside.sum()), "single": int(inside.iloc[rng.integers(len(part))])}
        row |= {k: score[k] for k in ("cover_68", "bias_mm", "rmse_mm", "crps_mm")}
        rows.append(row)
    return rows


def columns_of(seed):
    """Left-out years, transfer to 1997-2010 and the interannual change of fractions of one seed."""
    rng = np.random.default_rng(seed)
    data = twin.columns(PIXELS, seed=seed, sensors=["s1_desc"], size="full", **CONSTANTS)
    truth, air, p = data["truth"], data["temperature"], physics(**CONSTANTS)
    rate = truth["rate_up"].load()
    up, std = of_summers(data["s1_desc"], p.columns_delay_mm)
    t = (up["time"] - up["time"][0]) / np.timedelta64(1, "D") / 365.25
    seen = thaw.drops(up - rate.sel(epoch="after", drop=True) * t, std, WINDOWS, **DROPS)
    high = (truth["elevation"] > truth["elevation"].median()).rename("high")
    ground = true_ground(seed)
    hidden = np.sort(rng.choice(seen["year"].values, HIDDEN, replace=False)).tolist()
    rows = [judged(seed, "left out", left_out(seen, air, high, hidden), rng)]
    exact = true_drops(ground, LEARN, rate.sel(epoch="after", drop=True))
    learn = seen.sel(year=list(LEARN))
    options = {"noise_correlation": learn["noise_correlation"]}
    fractions = thaw.fraction_of_drops(learn["drop"], learn["drop_std"], **options, draws=0)
    epoch = xr.DataArray(
        [["before", "during_observed"][y > 2002] for y in PAST], {"year": list(PAST)}, "year"
    )
    past = xr.concat(
        [true_drops(ground, [y], rate.sel(epoch=e)) for y, e in zip(PAST, epoch.values, strict=True)], "year"
    )
    noise = np.sqrt(2) * p.columns_delay_mm
    observed = past + noise * rng.standard_normal(past.shape)
    rows.append(judged(seed, "transfer", transfer(observed, noise, past, fractions, air, high), rng))
    append("thaw_columns.csv", rows[0] + rows[1])
    of_truth = thaw.fraction_of_drops(exact, xr.full_like(exact, 1e-3), draws=0)
    append("thaw_cv_columns.csv", interannual(seed, fractions, of_truth))


def left_out(seen, air, high, hidden):
    """Predictions of hidden years of pixels, low and high, and of the area mean; shrunk toward those of like height."""
    options = {"temperature": air, "noise_correlation": seen["noise_correlation"], "years": hidden}
    drop, std = seen["drop"], seen["drop_std"]
    table = thaw.leave_one_year_out(drop, std, methods=METHODS, classes=high, **options)
    table["level"] = np.where(high.isel(x=0).to_series().reindex(table["y"]), "high", "low")
    area = thaw.leave_one_year_out(drop, std, areas=mean_of(drop, std), area_mean=True, **options)
    return pd.concat([table, area.assign(level="area")])


def transfer(observed, noise, past, fractions, air, high):
    """Full seasons of 1997-2010 from windows with noise, by the fractions of 2016-2023, against the truth."""
    tables = []
    std = xr.full_like(observed, noise)
    for level in ("pixel", "area"):
        value, sd = (observed, std) if level == "pixel" else mean_of(observed, std)
        true = (past if level == "pixel" else past.mean(("y", "x"))).sel(window="full", drop=True)
        for method, windows in (
            ("constant", SHORT),
            ("degree_day", SHORT),
            *(("joint", [w]) for w in SHORT[2:]),
        ):
            given = value.sel(window=windows), sd.sel(window=windows), fractions
            run = thaw.scale(*given, method=method, temperature=air, area_mean=level == "area")
            tables.append(
                _flat(run, true, high).assign(window=windows[0])
                if method == "joint"
                else _flat(run, true, high)
            )
            tables[-1]["method"] = method
            if (method, level) == ("degree_day", "pixel"):
                small = thaw.empirical_bayes(run, classes=high)
                half = small["shrunk_std"] * xr.apply_ufunc(
                    lambda v: stats.t.ppf(0.975, v), run["degrees_of_freedom"]
                )
                limits = {"lower": small["shrunk"] - half, "upper": small["shrunk"] + half}
                limits = {f"full_season_{k}": v for k, v in limits.items()}
                tables.append(_flat(small.rename(shrunk="full_season").assign(limits), true, high))
                tables[-1]["method"] = "shrunk"
    names = {"full_season": "predicted", "full_season_lower": "lower", "full_season_upper": "upper"}
    return pd.concat(tables).rename(columns=names)


def _flat(run, true, high):
    run = run[["full_season", "full_season_lower", "full_season_upper"]].assign(observed=true)
    space = "y" in run["full_season"].dims
    run = run.assign(level=xr.where(high, "high", "low") if space else "area")
    return (
        run.drop_vars(["window_start", "window_end"], errors="ignore").to_dataframe().reset_index().dropna()
    )


def interannual(seed, fractions, of_truth):
    """Rows of fraction_mean and cv_year with their errors, and both of the noise-free ground in the same years."""
    rows = []
    for window in SHORT:
        at, true = fractions.sel(window=window), of_truth.sel(window=window)
        row = {"seed": seed, "window": window}
        row |= {k: float(at[k]) for k in ("fraction_mean", "fraction_mean_std", "weighting_std", "n_years")}
        row |= {k: float(at[k]) for k in ("cv_year", "cv_year_lower", "cv_year_upper", "cv_noise")}
        rows.append(row | {"fraction_truth": float(true["fraction_mean"]), "truth": float(true["cv_total"])})
    return rows


def scene_of(seed):
    """Interannual change of fractions of one whole scene, from raw inputs, with delay alike over kilometres."""
    site = io.load_site("datong_twin", "quick")
    with tempfile.TemporaryDirectory() as folder:
        site.raw = Path(folder)
        only = {
            site.main_sensor: radar.SENSORS[site.main_sensor]
        }  # each sensor draws from a stream of its own
        with mock.patch.dict(radar.SENSORS, only, clear=True):
            twin.simulate(site.raw, seed=seed, size="quick")
        polygons = io.read_areas(site)
        stack = network.correct_unwrapping(io.read_sensor(site, site.main_sensor).load())
        stack = network.reference(stack, io.mask_of(polygons["reference"], stack))
        stack = network.correct_delay(stack, mask=network.stable_ground(stack))
        truth = io.read_truth(site)[["displacement_up", "rate_up"]].load()
        off_limits = sum(io.mask_of(polygons[k], stack) for k in ("pits", "heaps", "reference")).astype(bool)
    ground = ~off_limits & (io.terrain(stack["height"])["slope_deg"] < 15)
    up, std = of_summers(stack, network.atmosphere(stack))
    t = (up["time"] - up["time"][0]) / np.timedelta64(1, "D") / 365.25
    trend = (truth["rate_up"].sel(epoch="after", drop=True) * t).where(ground)
    curve, real = up - trend, truth["displacement_up"].sel(time=up["time"]) - trend
    seen, exact = thaw.drops(curve, std, WINDOWS, **DROPS), thaw.drops(real, 1e-3, WINDOWS, **DROPS)
    height = (stack["height"] - stack["height"].mean()) / stack["height"].std()
    cell_m = float(np.mean(io.cell_size_m(stack)))
    weighting = thaw.Weighting("others", height.expand_dims("term"), 6000 / cell_m)
    area = thaw.area_curve(curve, std, seen["drop"].sel(window="full"), weighting)
    factor = float(thaw.noise_inflation(area["mean"], area["mean_std"]))
    options = {"weighting": dataclasses.replace(weighting, noise_factor=factor), "draws": 0}
    options["noise_correlation"] = seen["noise_correlation"]
    fractions = thaw.fraction_of_drops(seen["drop"], seen["drop_std"], **options)
    of_truth = thaw.fraction_of_drops(exact["drop"], exact["drop_std"], draws=0)
    append("thaw_cv_scenes.csv", interannual(seed, fractions, of_truth))


def extend(name, seeds, make):
    """Add seeds that a table does not have; give the table."""
    for seed in seeds:
        if seed not in done(name):
            make(seed)
    return pd.read_csv(FOLDER / name)


def by_case(table):
    """Coverage by case: all predictions with the sd over seeds, and one a seed with its exact binomial interval."""
    rows = []
    for key, part in table.groupby(["kind", "level", "window", "method"]):
        singles = stats.binomtest(int(part["single"].sum()), len(part)).proportion_ci()
        share = part["hits"] / part["n"]
        row = dict(zip(("kind", "level", "window", "method"), key, strict=True), seeds=len(part))
        row |= {"coverage": share.mean(), "error": share.sem(), "low": singles.low, "high": singles.high}
        row |= {"cover_68": part["cover_68"].mean(), "bias_mm": part["bias_mm"].mean()}
        rows.append(
            row | {"rmse_mm": np.sqrt((part["rmse_mm"] ** 2).mean()), "crps_mm": part["crps_mm"].mean()}
        )
    return pd.DataFrame(rows)


def holds(table):
    """How often intervals hold: that of fraction_mean the ratio of means of the noise-free ground in the same
    years, that of cv_year the change in the same years, and the one over all seeds' years."""
    rows = []
    half = table["fraction_mean_std"] * stats.t.ppf(0.975, table["n_years"] - 1)
    table = table.assign(mean_held=abs(table["fraction_mean"] - table["fraction_truth"]) <= half)
    for window, part in table.groupby("window"):
        population = np.sqrt((part["truth"] ** 2).mean())
        row = {
            "window": window,
            "seeds": len(part),
            "population": population,
            "cv_year": part["cv_year"].median(),
        }
        row["offset"] = (part["fraction_mean"] / part["fraction_truth"] - 1).mean()
        inside = {"mean": part["mean_held"]}
        for name, true in (("same_years", part["truth"]), ("all_years", population)):
            inside[name] = (part["cv_year_lower"] <= true) & (true <= part["cv_year_upper"])
        for name, held in inside.items():
            hits = int(held.sum())
            exact = stats.binomtest(hits, len(part)).proportion_ci()
            row |= {name: hits / len(part), f"{name}_low": exact.low, f"{name}_high": exact.high}
        rows.append(row | {"upper": part["cv_year_upper"].median(), "cv_noise": part["cv_noise"].median()})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def cases():
    """Coverage of every case; missing seeds are added to the table first."""
    extend("thaw_cv_columns.csv", SEEDS, columns_of)
    return by_case(pd.read_csv(FOLDER / "thaw_columns.csv"))


@pytest.mark.slow
def test_intervals_hold_left_out_years_and_the_climate_before(cases):
    """No 95 % interval covers less than 90 %, by kind, level, window and method, judged by one prediction a seed."""
    missed = cases[(cases["high"] < 0.90) | (cases["coverage"] + 2 * cases["error"] < 0.90)]
    assert missed.empty, missed.round(3).to_string()


@pytest.mark.slow
def test_intervals_are_no_wider_than_they_need_be(cases):
    """No 95 % interval covers more than 98 %, judged likewise."""
    missed = cases[cases["low"] > 0.98]
    assert missed.empty, missed.round(3).to_string()


@pytest.mark.slow
def test_fractions_and_their_change_lie_in_their_intervals():
    """Intervals of fraction_mean and of cv_year hold those of the noise-free ground, in columns and whole scenes."""
    for name, seeds, make in (
        ("thaw_cv_columns.csv", SEEDS, columns_of),
        ("thaw_cv_scenes.csv", SCENES, scene_of),
    ):
        found = holds(extend(name, seeds, make))
        kept = (found["same_years_high"] >= 0.95) & (found["all_years_high"] >= 0.90)
        assert (kept & (found["mean_high"] >= 0.95)).all(), found.round(3).to_string()


if __name__ == "__main__":
    columns, scenes = [int(v) for v in sys.argv[1:]] + [10, 0][len(sys.argv) - 1 :]
    extend("thaw_cv_scenes.csv", SCENES[: len(done("thaw_cv_scenes.csv")) + scenes], scene_of)
    extend("thaw_cv_columns.csv", SEEDS[: len(done("thaw_cv_columns.csv")) + columns], columns_of)
    for found in (
        by_case(pd.read_csv(FOLDER / "thaw_columns.csv")),
        holds(pd.read_csv(FOLDER / "thaw_cv_columns.csv")),
        holds(pd.read_csv(FOLDER / "thaw_cv_scenes.csv")),
    ):
        sys.stdout.write(found.round(3).to_string() + "\n")
