"""Tier 1: over independent draws from the stated covariance, z-scores have sd 1 and 95 % intervals hold 95 %.

Marked slow because it writes its table, data/calibration/sbas_tier1.csv; it takes about a minute.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import io, sbas, timefunc

pytestmark = pytest.mark.slow
DRAWS = 10_000
DAYS = pd.date_range("2017-01-05", periods=92, freq="12D")
TABLE = io.ROOT / "data" / "calibration" / "sbas_tier1.csv"
PRIOR_STD = 2.5
DELAY = 1.0 + 2.0 * np.random.default_rng(99).random(len(DAYS))

# what the draw contains, and how it is inverted
CASES = {
    "classical": {"model": None, "draw": {"deviation": 0.0}, "missing": 0.1},
    "classical_delay": {
        "model": None,
        "atmosphere_std_mm": DELAY,
        "draw": {"deviation": 0.0},
        "missing": 0.1,
    },
    "classical_unweighted": {"model": None, "weights": None, "draw": {"deviation": 0.0}, "missing": 0.1},
    "interpolation": {"deviation_std_mm": None, "draw": {"deviation": 0.0}},
    "interpolation_height": {
        "deviation_std_mm": None,
        "dem_error": True,
        "draw": {"deviation": 0.0, "height": 5.0},
    },
    "white": {"deviation_std_mm": 5.0},
    "white_delay": {"deviation_std_mm": 5.0, "atmosphere_std_mm": DELAY},
    "white_delay_height": {"atmosphere_std_mm": DELAY, "dem_error": True, "draw": {"height": 5.0}},
    "unweighted": {"weights": None},
    "correlated": {"deviation_days": 30.0},
    "correlated_delay": {"deviation_days": 30.0, "atmosphere_std_mm": DELAY},
    "correlated_delay_prior": {"deviation_days": 30.0, "atmosphere_std_mm": DELAY, "prior": True},
    "white_prior": {"prior": True},
    "semiannual": {"model": "linear+annual+semiannual"},
    "linear_only": {"model": "linear"},
}


def draw(case, n, *, seed, missing=0.35, coherence=None, deviation=5.0, height=0.0):
    """Stack of ``n`` independent pixels and what they really did."""
    import test_sbas

    rng = np.random.default_rng(seed)
    pairs = test_sbas.pairs_of(len(DAYS), 3, 2, 31)
    winter = np.isin(DAYS.month, (12, 1, 2, 3))
    model = timefunc.Model.named(case.get("model", "linear+annual") or "linear")
    design = model.design(DAYS)
    coefficients = rng.normal(0, 15, (design.shape[1], n))
    smooth = design @ coefficients
    ground = smooth + deviation * deviations(rng, n, case.get("deviation_days", 0.0))
    apparent = ground + np.asarray(case.get("atmosphere_std_mm", 0.0) * np.ones(len(DAYS)))[
        :, None
    ] * rng.standard_normal(ground.shape)
    stack = test_sbas.make_stack(apparent[:, None], DAYS, pairs, seed=seed + 1)
    truth_height = height * rng.standard_normal(n)
    if height:
        _, first, second = sbas.network_of(stack)
        baseline = rng.normal(0, 100, len(DAYS))
        stack = stack.assign_coords(perpendicular_baseline=("pair", baseline[second] - baseline[first]))
        column = -(baseline - baseline[0]) / 850 / np.sin(np.deg2rad(38))
        stack["unwrapped_phase"] += (
            np.outer(column[second] - column[first], truth_height) / test_sbas.MM_PER_RAD
        )[:, None]
    gamma = stack["coherence"].values
    noise = np.sqrt(sbas.phase_variance(gamma, stack.attrs["looks"]))
    if case.get("weights", "coherence") is None:
        noise = 0.4
    lost = (
        rng.random(gamma.shape) < missing * (1 + 0.8 * (winter[pairs[0]] | winter[pairs[1]]))[:, None, None]
    )
    stack["unwrapped_phase"] += noise * rng.standard_normal(gamma.shape)
    stack["unwrapped_phase"] = stack["unwrapped_phase"].where(~lost)
    return stack, ground - ground[0], coefficients, truth_height


def deviations(rng, n, days):
    """Unit-variance ground deviations, white or AR(1), (date, draw)."""
    white = rng.standard_normal((len(DAYS), n))
    if days:
        rho = np.exp(-12 / days)
        for i in range(1, len(DAYS)):
            white[i] = rho * white[i - 1] + np.sqrt(1 - rho**2) * white[i]
    return white


def scores(name, case, seed):
    """z-scores by quantity, each over independent draws."""
    options = {key: value for key, value in case.items() if key not in ("draw", "missing", "prior")}
    drawn = case.get("draw", {}) | ({"missing": case["missing"]} if "missing" in case else {})
    stack, truth, coefficients, height = draw(case, DRAWS, seed=seed, **drawn)
    rate = coefficients[-1]
    rng = np.random.default_rng(seed + 2)
    if case.get("prior"):
        options["rate_prior"] = ((rate + PRIOR_STD * rng.standard_normal(DRAWS))[None], PRIOR_STD)
    out = sbas.invert(stack, **options).isel(y=0)
    z = {"rate": (out["rate"] - rate) / out["rate_std"]}
    if case.get("prior"):
        z["rate_unconstrained"] = (out["rate_unconstrained"] - rate) / out["rate_unconstrained_std"]
        z["prior_conflict"] = out["prior_conflict"]
    if options.get("dem_error"):
        z["dem_error"] = (out["dem_error"] - height) / out["dem_error_std"]
    if case.get("model", "linear+annual") == "linear+annual":
        size = 2 * np.hypot(*coefficients[1:3])
        clear = size > 20  # five sd or more: there the flag "below two sd" does not choose the draws
        z["peak_to_peak"] = ((out["peak_to_peak"] - size) / out["peak_to_peak_std"])[clear]
    for date in (1, 20, 50, 91):
        z[f"displacement_{DAYS[date].date()}"] = ((out["displacement"] - truth) / out["displacement_std"])[
            date
        ]
    return {f"{name}/{quantity}": np.asarray(value, float) for quantity, value in z.items()}


def row(name, z):
    """Mean and sd of z and coverage of 95 % intervals, with exact binomial limits."""
    mode, quantity = name.split("/")
    z = z[np.isfinite(z)]
    hit = int((np.abs(z) < 1.959964).sum())
    limits = stats.binomtest(hit, len(z)).proportion_ci(0.95, "exact")
    values = (z.mean(), z.std(), hit / len(z), limits.low, limits.high)
    return mode, quantity, len(z), *(round(float(v), 4) for v in values)


def test_sigma_is_calibrated_over_independent_draws():
    """Every mode, rate and four dates: at least 5000 draws, z sd 0.97-1.03, 95 % intervals hold 93-97 %."""
    rows = [
        row(quantity, z)
        for seed, (name, case) in enumerate(CASES.items())
        for quantity, z in scores(name, case, 1000 * (seed + 1)).items()
    ]
    table = pd.DataFrame(
        rows,
        columns=[
            "mode",
            "quantity",
            "draws",
            "z_mean",
            "z_sd",
            "coverage",
            "coverage_lower",
            "coverage_upper",
        ],
    )
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    part = TABLE.with_suffix(".part")
    table.to_csv(part, index=False)
    part.replace(TABLE)
    assert (table["draws"] >= 5000).all(), table
    wrong = table[~table["z_sd"].between(0.97, 1.03) | ~table["coverage"].between(0.93, 0.97)]
    assert wrong.empty, wrong.to_string()
    assert (table["z_mean"].abs() < 5 / np.sqrt(table["draws"])).all(), table.to_string()
