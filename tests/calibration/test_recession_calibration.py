"""Size, power and coverage of the recession analysis, over seeds that no development has seen.

Marked slow. The tables data/calibration/recession_{size_power,bootstrap,twin,b,noise}.csv are appended row by row, so
a run that was stopped goes on where it was.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from helpers import io, recession

pytestmark = pytest.mark.slow
FOLDER = io.ROOT / "data" / "calibration"
DRAWS = 1000
SEEDS = range(5000, 5200)
STEP = np.log(0.7)
PERIODS = pd.DataFrame(
    {
        "label": ["before", "during", "after"],
        "start": [None, "2003-01-01", "2015-01-01"],
        "end": ["2002-12-31", "2014-12-31", None],
    }
)


def table(name, keys):
    """A table's rows so far, and a function that appends one unless its key is there."""
    path = FOLDER / name
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=keys)
    done = set(map(tuple, rows[keys].astype(str).to_numpy()))

    def add(key, make):
        if tuple(map(str, key)) not in done:
            row = pd.DataFrame([dict(zip(keys, key, strict=True)) | make()])
            path.parent.mkdir(parents=True, exist_ok=True)
            row.to_csv(
                path,
                mode="a",
                header=not path.exists(),
                index=False,
                float_format="%.6g",
                lineterminator="\n",
            )

    return path, add


def exact(hits, n):
    """Exact binomial 95 % interval of a fraction."""
    return stats.binomtest(int(hits), int(n)).proportion_ci(0.95, method="exact")


def year_values(rng, before, after, rho, icc, events=10, sd=0.35):
    """Events of ln k_ref by year: a year effect of memory rho, and the events about it."""
    n = before + after
    effect = np.empty(n)
    effect[0] = rng.normal()
    for i in range(1, n):
        effect[i] = rho * effect[i - 1] + np.sqrt(1 - rho**2) * rng.normal()
    value = np.sqrt(icc) * effect[:, None] + np.sqrt(1 - icc) * rng.normal(size=(n, events))
    year = np.repeat(np.arange(2003 - before, 2003 + after), events)
    start = pd.to_datetime({"year": year, "month": 8, "day": 1})
    return pd.DataFrame({"start": start, "ln_k_ref": sd * value.ravel()}), year >= 2003


def size_and_power(before, after, rho, icc, control):
    """Rejections of a true null and of a step to 0.7, and the interval's coverage."""
    rng = np.random.default_rng([before, after, int(10 * rho), int(10 * icc), control])
    two = PERIODS.iloc[:2].assign(end=["2002-12-31", None])
    null = found = inside = 0
    for _ in range(DRAWS):
        fits, late = year_values(rng, before, after, rho, icc)
        other = year_values(rng, before, after, rho, icc)[0] if control else None
        row = recession.regime_test(fits, two, control=other).iloc[0]
        null += row["p_value"] < 0.05
        row = recession.regime_test(
            fits.assign(ln_k_ref=fits["ln_k_ref"] + STEP * late), two, control=other
        ).iloc[0]
        found += row["p_value"] < 0.05
        inside += row["lower"] < STEP < row["upper"]
    out = {"draws": DRAWS}
    for name, hits in (("size", null), ("power", found), ("coverage", inside)):
        low, high = exact(hits, DRAWS)
        out |= {name: hits / DRAWS, f"{name}_lower": low, f"{name}_upper": high}
    return out


def test_size_and_power_of_the_regime_test():
    """At 20 + 9 years, AR(1) 0.3 and ICC 0.3: size at most 0.08, power at least 0.75; other cases are published."""
    keys = ["years_before", "years_after", "rho", "icc", "control"]
    path, add = table("recession_size_power.csv", keys)
    for before, after in ((20, 9), (15, 15), (9, 9), (7, 6), (5, 5)):
        for rho, icc in ((0.0, 0.0), (0.0, 0.3), (0.3, 0.3), (0.6, 0.3)):
            add((before, after, rho, icc, 0), lambda c=(before, after, rho, icc, 0): size_and_power(*c))
    add((20, 9, 0.3, 0.3, 1), lambda: size_and_power(20, 9, 0.3, 0.3, 1))
    rows = pd.read_csv(path).set_index(keys)
    main = rows.loc[(20, 9, 0.3, 0.3, 0)]
    assert main["size_lower"] <= 0.08 and main["size"] <= 0.08 + 0.01
    assert main["power_upper"] >= 0.75


def bootstrap_coverage(before, after, rho, icc):
    """Share of stationary-bootstrap intervals that hold a step of zero."""
    rng = np.random.default_rng([before, after, int(10 * rho), int(10 * icc), 7])
    two = PERIODS.iloc[:2].assign(end=["2002-12-31", None])
    inside = 0
    for k in range(DRAWS):
        fits, _ = year_values(rng, before, after, rho, icc)
        row = recession.block_bootstrap(fits, two, draws=500, seed=k).iloc[0]
        inside += row["lower"] < 0 < row["upper"]
    low, high = exact(inside, DRAWS)
    return {"draws": DRAWS, "coverage": inside / DRAWS, "coverage_lower": low, "coverage_upper": high}


def test_coverage_of_the_stationary_bootstrap_is_known():
    """On records this short it covers less than it says; the table says how much (`regime_test` carries claims)."""
    keys = ["years_before", "years_after", "rho", "icc"]
    path, add = table("recession_bootstrap.csv", keys)
    for case in ((20, 9, 0.0, 0.3), (20, 9, 0.3, 0.3), (20, 9, 0.6, 0.3), (8, 7, 0.3, 0.3)):
        add(case, lambda c=case: bootstrap_coverage(*c))
    rows = pd.read_csv(path).set_index(keys)
    assert rows.loc[(20, 9, 0.3, 0.3), "coverage_lower"] < 0.95, "it covers: say so in block_bootstrap"
    assert (rows["coverage"] > 0.7).all()


def rivers(seed, mining):
    """Both gauges of a twin as the notebook takes them (mm/day), frost, and the true contrast."""
    from twin import water, weather
    from twin.physics import Switches, physics

    p, on = physics(), Switches(mining=mining)
    sky = weather.weather(seed, p, on)
    seen = weather.observed_climate(sky, seed, p, on)
    frost = seen["temperature_2m"].to_series().rolling(10, min_periods=1).mean() < 0
    flows, truth = {}, {}
    for name in water.BASINS:
        data, _ = water.basin(sky, name, seed, p, on)
        q = data["discharge"].assign_attrs(units="m3/s")
        flows[name] = recession.to_mm_per_day(q, data.attrs["drainage_area_km2"])
        year = data["time"].dt.year.values
        truth[name] = {x: data[x].values for x in ("ln_k_ref", "b")} | {
            "before": year < 2003,
            "after": year >= 2015,
        }
    return flows, frost.to_numpy(), truth, p.q_ref_mm_day


def one_twin(seed, mining):
    """Contrasts after - before of one twin with the notebook's settings, beside the truth."""
    flows, frost, truth, q_true = rivers(seed, mining)
    settings = {"drop_first_days": 5, "min_days": 5, "min_days_winter": None, "min_range": 1.1}
    points, fits = {}, {}
    for name, q in flows.items():
        events = recession.extract_events(q, ice=frost, **settings)
        events = events[events["season"].isin(["summer", "autumn"])]
        points[name] = recession.derivative(events)
        if name == "mined":
            q_ref = recession.reference_flow(events.loc[events["time"] < "2003", "q"])
    for name in flows:
        fits[name] = recession.comparable_fits(points[name], q_ref, "2002-12-31")
    true = {}
    for name, t in truth.items():
        db = t["b"][t["after"]].mean() - t["b"][t["before"]].mean()
        dk = t["ln_k_ref"][t["after"]].mean() - t["ln_k_ref"][t["before"]].mean()
        true[name] = {"b_shrunk": db, "ln_k_ref": dk + db * np.log(q_ref / q_true)}
    out = {"events": len(fits["mined"]), "common_b": fits["mined"].attrs["common_b"]}
    for value in ("ln_k_ref", "ln_k_ref_free_b", "b_shrunk"):
        kind = "b_shrunk" if value == "b_shrunk" else "ln_k_ref"
        for design, control in (("", None), ("_control", fits["control"])):
            tests = recession.regime_test(fits["mined"], PERIODS, value=value, control=control)
            row = tests[(tests["period_a"] == "before") & (tests["period_b"] == "after")].iloc[0]
            expected = true["mined"][kind] - (true["control"][kind] if control is not None else 0.0)
            key = value + design
            out |= {
                f"{key}_{x}": row[x]
                for x in ("difference", "lower", "upper", "p_value", "minimal_detectable")
            }
            out[f"{key}_truth"] = expected
    return out


def test_true_changes_of_the_twin_are_inside_their_intervals(record_property):
    """Over 200 twins: true changes of k_ref and b inside 95 % in 90-98 %; nothing found where nothing is mined."""
    path, add = table("recession_twin.csv", ["seed", "mining"])
    for seed in SEEDS:
        for mining in (True, False):
            add((seed, mining), lambda s=seed, m=mining: one_twin(s, m))
    rows = pd.read_csv(path)
    for value in (
        "ln_k_ref",
        "ln_k_ref_control",
        "ln_k_ref_free_b",
        "ln_k_ref_free_b_control",
        "b_shrunk",
        "b_shrunk_control",
    ):
        mined = rows[rows["mining"]].dropna(subset=[f"{value}_difference"])
        hits = (mined[f"{value}_lower"] <= mined[f"{value}_truth"]) & (
            mined[f"{value}_truth"] <= mined[f"{value}_upper"]
        )
        low, high = exact(hits.sum(), len(hits))
        bias = (mined[f"{value}_difference"] - mined[f"{value}_truth"]).mean()
        found = (mined[f"{value}_p_value"] < 0.05).mean()
        said = (
            f"{value}: covers {hits.mean():.3f} [{low:.3f}, {high:.3f}], bias {bias:+.3f}, found {found:.2f}"
        )
        record_property(value, said)
        assert high >= 0.90, said
    quiet = rows[~rows["mining"]].dropna(subset=["ln_k_ref_control_p_value"])
    alarms = (quiet["ln_k_ref_control_p_value"] < 0.05).sum()
    assert exact(alarms, len(quiet)).low <= 0.05, f"{alarms} of {len(quiet)} false alarms against the control"


def b_of_twin(seed):
    """B of the mined gauge before and after by four estimators, without rating error, and by extrapolation to none."""
    from twin import water, weather
    from twin.physics import Switches, physics

    p, on = physics(), Switches()
    sky = weather.weather(seed, p, on)
    warmth = weather.observed_climate(sky, seed, p, on)["temperature_2m"].to_series()
    frost = (warmth.rolling(10, min_periods=1).mean() < 0).to_numpy()
    data, _ = water.basin(sky, "mined", seed, p, on)

    def points(q):
        events = recession.extract_events(
            q, ice=frost, drop_first_days=5, min_days=5, min_days_winter=None, min_range=1.1
        )
        return recession.derivative(events[events["season"].isin(["summer", "autumn"])])

    def baseline(q):
        base = points(q)
        base = base[base["time"] < "2003"]
        return recession.fit(base, "shared_b")["b"].iloc[0], recession.fit(base)["b"].median()

    area = data.attrs["drainage_area_km2"]
    flow, exact_flow = (
        recession.to_mm_per_day(data[name].assign_attrs(units="m3/s"), area)
        for name in ("discharge", "discharge_true")
    )
    all_points = points(flow)
    year = data["time"].dt.year.values
    out = {
        "truth_before": data["b"].values[year < 2003].mean(),
        "truth_after": data["b"].values[year >= 2015].mean(),
    }
    for label, inside in (("before", all_points["time"] < "2003"), ("after", all_points["time"] >= "2015")):
        for method in ("shared_b", "mixed"):
            line = recession.fit(all_points[inside], method).iloc[0]
            out |= {f"{method}_{label}": line["b"], f"{method}_{label}_std": line["b_std"]}
        out[f"median_{label}"] = recession.fit(all_points[inside])["b"].median()
    free = baseline(exact_flow)
    found = recession.noise_extrapolation(baseline, flow, std=p.rating_sd, memory=p.rating_ar1)
    for k, name in enumerate(("shared_b", "median")):
        out[f"{name}_exact_flow"] = free[k]
        out[f"{name}_corrected"], out[f"{name}_corrected_std"] = found.loc[k, ["corrected", "corrected_std"]]
    return out


def test_what_makes_b_of_the_twin_too_large(record_property):
    """Over 100 twins: rating error moves b little, direct runoff and recharge raise it in every estimator."""
    path, add = table("recession_b.csv", ["seed"])
    for seed in range(7000, 7100):
        add((seed,), lambda s=seed: b_of_twin(s))
    rows = pd.read_csv(path)
    structure = rows["shared_b_exact_flow"] - rows["truth_before"]
    rating = rows["shared_b_before"] - rows["shared_b_exact_flow"]
    assert structure.mean() > 3 * structure.sem() and structure.mean() > abs(rating.mean())
    # pooled b are biased by the same, and their intervals too narrow: claims on b rest on the years (regime_test)
    for method in ("shared_b", "mixed"):
        change = rows[f"{method}_after"] - rows[f"{method}_before"]
        std = np.hypot(rows[f"{method}_after_std"], rows[f"{method}_before_std"])
        hits = np.abs(change - (rows["truth_after"] - rows["truth_before"])) < 1.96 * std
        low, high = exact(hits.sum(), len(hits))
        record_property(method, f"change of b covered in {hits.mean():.2f} [{low:.2f}, {high:.2f}]")
        assert 0.7 < high and low < 0.95, f"{method}: the change of b is covered in {hits.mean()}"


def noisy_b(scheme, rule, noise, seed):
    """Median b of events from an exact store of b = 1.5 with flow noise, read to three digits."""
    rng = np.random.default_rng([seed, int(1e4 * noise)])
    parts, x = [], 1.0
    while sum(map(len, parts)) < 365 * 30:
        x += rng.exponential(3.0)
        q = (x**-0.5 + 0.025 * np.arange(int(rng.integers(8, 40)))) ** -2
        parts.append(q)
        x = q[-1]
    q = np.concatenate(parts) * np.exp(noise * rng.normal(size=sum(map(len, parts))))
    q = np.round(q, 2)
    events = recession.extract_events(pd.Series(q, pd.date_range("1990-01-01", periods=q.size)), rule)
    fits = recession.fit(recession.derivative(events, scheme))
    return {
        "b_median": fits["b"].median(),
        "b_shrunk_mean": recession.shrink(fits).attrs["b_mean"],
        "events": len(fits),
    }


def test_noise_bias_of_b_is_known():
    """The bias of b by flow noise, scheme and rule, published; the default stays within 0.1 at 2 % noise."""
    path, add = table("recession_noise.csv", ["scheme", "rule", "noise", "seed"])
    for noise in (0.0, 0.01, 0.02, 0.03):
        for rule in ("default", "tossh2021", "brutsaert2008"):
            for scheme in ("brutsaert_nieber", "variable_step", "exponential", "integrated"):
                for seed in range(5):
                    add((scheme, rule, noise, seed), lambda c=(scheme, rule, noise, seed): noisy_b(*c))
    mean = pd.read_csv(path).groupby(["rule", "scheme", "noise"])["b_median"].mean()
    assert abs(mean["default", "exponential", 0.02] - 1.5) < 0.1
    assert abs(mean["brutsaert2008", "brutsaert_nieber", 0.02] - 1.5) > 0.2, (
        "the trap is gone: say so in the docs"
    )
