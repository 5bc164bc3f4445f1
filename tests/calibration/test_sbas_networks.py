"""Tier 2: intervals of rate and series under the twin's full physics, seed by seed, and what the misses are due to.

Every seed draws weather, soil, calendar, orbits and pixels anew. A pixel has unwrapping errors, fading, height error,
delay and a season that is no sine. Noise parameters are estimated from the data as the notebooks do: delay and pairs by
each network, the ground's deviation by the main sensor's gapped network for all. Marked slow; the table
data/calibration/sbas_tier2.csv is appended seed by seed, so a run that was stopped goes on where it was.
`python tests/calibration/test_sbas_networks.py 10`
adds ten seeds and says what the table shows (about 6 s of processor time each).

What it shows: of all pixels, intervals of the rate hold the truth in 96 to 98 %, those of the series in 93 to 95 %.
Where the rate misses, whole turns that are left come first at C band and decorrelation or delay second; at L band it
is delay. The series of Sentinel-1 misses mostly by form, a season that is no sine; that of Envisat by turns, delay
and form alike; that of ALOS-2 by delay and form. Fading, height error and steps cause next to none.
"""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import twin
from helpers import constrained, io, network, sbas

TABLE = io.ROOT / "data" / "calibration" / "sbas_tier2.csv"
SEEDS = range(20_001, 20_201)
PIXELS = 150
NORMAL = 1.959964
# a whole turn of a whole interferogram is the reference's to remove; columns have none
TWIN = {"frame_offset_share": 0.0}
CASES = {  # sensor, share of winter pixels lost; all weighted by coherence
    "gapped": ("s1_desc", 0.8),
    "connected": ("s1_desc", 0.0),
    "few dates": ("envisat", 0.8),
    "L band": ("alos2", 0.8),
}
# sources of error that can be switched off, all else equal
SWITCHES = {
    "delay": {"columns_delay_mm": 0.0},
    "height": {"dem_error_m": 0.0},
    "fading": {"fading_mm_12d": 0.0},
}
CAUSES = ("unwrapping", "fading", "height", "delay", "form", "transient", "noise")


def prepared(raw):
    """A stack of columns corrected as notebook 02 does, and the options of its inversion."""
    stack = network.correct_unwrapping(raw, coherent=False)
    unwrapping = network.unwrapping_std(stack)
    fading = network.fading(stack, smooth_pixels=0)
    stack = network.correct_fading(stack, fading)
    to_mm = stack.attrs["wavelength_m"] / (4 * np.pi) * 1000
    stack["pair_std"] = np.hypot(unwrapping, stack["fading_std"].fillna(0) * to_mm)
    stack["atmosphere_std"] = network.atmosphere(stack)
    return stack


def ground_of(stack, seed):
    """The ground's deviation from rate and wave (mm, days), by restricted likelihood of a few pixels."""
    noise = constrained.ground_noise(stack, np.random.default_rng(seed), classes=1, pixels=12)
    found = constrained.noise_of(noise, 0)
    return {name: found[name] for name in ("deviation_std_mm", "deviation_days")}


def options_of(stack, ground):
    """Options of the inversion; a height error where baselines are long, as in notebook 02."""
    return {
        "atmosphere_std_mm": stack["atmosphere_std"],
        "pair_std_mm": stack["pair_std"].values,
        "dem_error": network.height_matters(stack),
        **ground,
    }


def errors(found, rate, displacement):
    """Error of rate and series less the given truth, (y,) and (time, y), in float64."""
    return {
        "rate": found["rate"].values[:, 0].astype(float) - rate,
        "displacement": found["displacement"].values[..., 0].astype(float) - displacement,
    }


def by_source(raw, stack, truth, options, draw):
    """What each source adds to the errors: the inversion is linear in the phases, with weights and gaps held.

    Turns that are left are known from the truth; delay, height error and fading from the twin with each switched off;
    the form from its noise-free phases. The rest is decorrelation.
    """

    def invert(phase):
        field = stack["unwrapped_phase"]
        return sbas.invert(
            stack.assign(unwrapped_phase=field.copy(data=phase).where(field.notnull())), **options
        )

    sensor, phase = raw.attrs["sensor"], raw["unwrapped_phase"].values
    turns = truth[f"cycles_{sensor}"].values + stack["unwrapping_cycles"].values
    out = {"unwrapping": errors(invert((2 * np.pi * turns).astype("f4")), 0, 0)}
    for name, change in SWITCHES.items():
        less = draw(**change)[sensor]["unwrapped_phase"].values
        source = phase - less
        if name == "fading":  # less what was taken off
            source = (
                source
                + stack["unwrapped_phase"].values
                - phase
                - 2 * np.pi * stack["unwrapping_cycles"].values
            )
        out[name] = errors(invert(source.astype("f4")), 0, 0)
    still = draw(noise=False)[sensor]["unwrapped_phase"].values
    out["form"] = errors(invert(still), *truths(truth, sensor))
    return out


def truths(truth, sensor):
    """True rate (y,) and displacement (time, y)."""
    return truth[f"rate_{sensor}"].values[:, 0], truth[f"displacement_{sensor}"].values[..., 0]


def causes(error, sources, missed, transient):
    """Number of misses by the source that pushed most in the error's direction."""
    names = list(sources)
    push = np.stack([sources[name] for name in names])
    push = np.concatenate([push, (error - push.sum(axis=0))[None]]) * np.sign(error)
    worst = np.array([*names, "noise"])[np.nanargmax(np.where(missed, push, 0.0), axis=0)]
    worst = np.where((worst == "form") & transient, "transient", worst)
    return {f"by_{name}": int((missed & (worst == name)).sum()) for name in CAUSES}


def seed_rows(seed):
    """Rows of the table of one seed."""
    rows, ground = [], None
    for case, (sensor, loss) in CASES.items():

        def draw(sensor=sensor, loss=loss, **change):
            return twin.columns(PIXELS, seed=seed, sensors=[sensor], winter_loss=loss, **TWIN, **change)

        pixels = draw()
        raw, truth = pixels[sensor], pixels["truth"]
        stack = prepared(raw)
        ground = ground or ground_of(stack, seed)
        options = options_of(stack, ground)
        found = sbas.invert(stack, **options)
        error = errors(found, *truths(truth, sensor))
        sources = by_source(raw, stack, truth, options, draw)
        transient = truth["transient"].values[:, 0]
        for quantity, e in error.items():
            std = found[f"{quantity}_std"].values[..., 0]
            parts = {name: s[quantity] for name, s in sources.items()}
            if quantity == "displacement":  # the first date is zero by definition
                e, std, parts = e[1:], std[1:], {name: s[1:] for name, s in parts.items()}
            z = e / std
            seen, missed = np.isfinite(z), np.abs(z) > NORMAL
            one = np.atleast_2d(z)[seed % len(np.atleast_2d(z))]  # one date, its first pixel
            one = one[np.isfinite(one)]
            rows.append(
                {
                    "seed": seed,
                    "case": case,
                    "quantity": quantity,
                    "n": int(seen.sum()),
                    "inside": int((seen & ~missed).sum()),
                    "first": int(abs(one[0]) < NORMAL) if one.size else np.nan,
                    "z_mean": np.mean(z[seen]),
                    "z_sd": np.std(z[seen]),
                    "std_median": np.median(std[np.isfinite(std)]),
                    "deviation_std_mm": options["deviation_std_mm"],
                    "deviation_days": options["deviation_days"],
                    **causes(e, parts, missed & seen, transient),
                }
            )
    return pd.DataFrame(rows)


def extend(seeds):
    """Add seeds that the table does not have; give the table."""
    table = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame({"seed": []})
    for seed in sorted(set(seeds) - set(table["seed"])):
        table = pd.concat([table, seed_rows(seed)], ignore_index=True).astype({"seed": int})
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        part = TABLE.with_suffix(".part")
        table.to_csv(part, index=False, float_format="%.4g", lineterminator="\n")
        part.replace(TABLE)
    return table


def score(table):
    """Coverage by case and quantity: of one pixel a seed with its exact binomial interval, and of all pixels."""
    rows = []
    for key, part in table.groupby(["case", "quantity"]):
        first = part["first"].dropna()
        limits = stats.binomtest(int(first.sum()), len(first)).proportion_ci()
        share = part["inside"] / part["n"]
        misses = part[[f"by_{name}" for name in CAUSES]].sum()
        row = dict(zip(("case", "quantity"), key, strict=True), seeds=len(part))
        row |= {"one_pixel": part["first"].mean(), "one_low": limits.low, "one_high": limits.high}
        row |= {"all_pixels": share.mean(), "all_std": share.sem(), "z_mean": part["z_mean"].mean()}
        rows.append(row | (misses / part["n"].sum()).round(4).to_dict())
    return pd.DataFrame(rows).set_index(["case", "quantity"])


@pytest.mark.slow
def test_intervals_cover_under_the_twins_full_physics():
    """Rate and displacement: 95 % intervals hold the truth in 90-98 %, over 200 seeds and over all their pixels."""
    found = score(extend(SEEDS))
    for (case, quantity), row in found.iterrows():
        name = (
            f"{case}, {quantity}: {row['all_pixels']:.3f} of all pixels, {row['one_pixel']:.3f} of one a seed"
        )
        assert row["seeds"] >= 200, name
        assert row["one_high"] >= 0.90 and row["one_low"] <= 0.98, name
        assert 0.90 - 2 * row["all_std"] <= row["all_pixels"] <= 0.98 + 2 * row["all_std"], name


if __name__ == "__main__":
    more = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    have = pd.read_csv(TABLE)["seed"].nunique() if TABLE.exists() else 0
    sys.stdout.write(score(extend(SEEDS[: have + more])).round(3).to_string() + "\n")
