"""Basins that have less than the default site, and twins of other seeds and physics, run all that they allow.

`make test MARK=slow ARGS=tests/system/test_other_sites.py`:
a minute or two each. The inputs are those of the quick twin, read
as a real basin without its truth.
"""

import json
import shutil

import pytest
import yaml
from test_interruption import ROOT, copy_of_checkout, make

TWIN = yaml.safe_load((ROOT / "data" / "sites" / "datong_twin.yml").read_text(encoding="utf-8"))
STUDY = ("-k", "07_recession", "08_attribution", "SIZE=quick")
BOX = {"name": "a box", "bounds": [99.36, 37.98, 99.40, 38.00]}
HALVES = [
    {"label": "early", "start": None, "end": "2019-06-30", "source": "none"},
    {"label": "late", "start": "2019-07-01", "end": None, "source": "none"},
]
#: what a basin has: stacks, other inputs, what else differs, and the notebooks that then write results
BASINS = {
    "one_stack": (["s1_desc"], "discharge climate drivers areas", {}, "01 02 07"),
    "two_directions": (["s1_desc", "s1_asc"], "discharge climate areas", {}, "01 02 04 05 07"),
    "no_areas": (["s1_desc", "s1_asc"], "discharge", {"reference_area": BOX}, "01 02 04 07"),
    "no_zones": (["s1_desc", "s1_asc"], "climate drivers areas", {"zones": False}, "01 02 04 05 08"),
    "two_halves": (
        ["s1_desc", "s1_asc"],
        "discharge climate drivers areas",
        {"epochs": HALVES, "knots": ["2015-01-01", "2019-07-01", "2024-01-01"], "without": "albedo"},
        "01 02 04 05 06 07 08",
    ),
    "prior_only": (["s1_desc", "alos2"], "climate drivers areas", {}, "01 02 03 04 05 08"),
    "no_climate": (["s1_desc", "ers", "envisat"], "discharge drivers areas", {}, "01 02 04 06 07 08"),
}


def basin(name):
    """The site file of a basin that has less, and whether its areas name zones."""
    stacks, inputs, other, _ = BASINS[name]
    site = {k: v for k, v in TWIN.items() if k != "mine"} | {"kind": "real", "title": name}
    site |= {k: v for k, v in other.items() if k in site}
    site["inputs"] = {k: v for k, v in TWIN["inputs"].items() if k in inputs.split()}
    site["inputs"]["sar"] = {s: TWIN["inputs"]["sar"][s] for s in stacks}
    if "drivers" in site["inputs"] and "without" in other:
        drivers = site["inputs"]["drivers"].items()
        site["inputs"]["drivers"] = {k: v for k, v in drivers if other["without"] not in k}
    return site, other.get("zones", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", BASINS)
def test_a_basin_with_less_runs_what_it_can(name, quick_twin, tmp_path):
    """Notebooks without their inputs say so and write nothing; none fails, and all others write their results."""
    variables = copy_of_checkout(tmp_path)
    site, zones = basin(name)
    (tmp_path / "data" / "sites" / f"{name}.yml").write_text(yaml.safe_dump(site), encoding="utf-8")
    place = tmp_path / "build" / "quick" / name
    without = shutil.ignore_patterns("truth.zarr", "twin.json", "made_by.txt")
    shutil.copytree(quick_twin, place / "raw", ignore=without)
    if not zones:
        path = place / "raw" / "areas" / "areas.geojson"
        drawn = json.loads(path.read_text(encoding="utf-8"))
        kept = [f for f in drawn["features"] if f["properties"]["name"] in ("study_area", "reference")]
        path.write_text(json.dumps(drawn | {"features": kept}), encoding="utf-8")
    status, words = make(tmp_path, *STUDY, f"SITE={name}", seconds=1800, **variables)
    assert status == 0, words[-3000:]
    written = " ".join(sorted(p.stem[:2] for p in (place / "results").glob("*.csv")))
    assert written == BASINS[name][3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "physics"),
    [
        (12, {"mining": False}),
        (16, {"alos2_bias_mm_yr": 4.0}),
        (19, {"mining": False}),
        (22, {"albedo_effect": True}),
    ],
)
def test_another_twin_runs(seed, physics, tmp_path):
    """No check of a notebook stops the study on a seed or a physics it was not written on."""
    variables = copy_of_checkout(tmp_path)
    site = TWIN | {"seed": seed, "physics": physics}
    (tmp_path / "data" / "sites" / "other.yml").write_text(yaml.safe_dump(site), encoding="utf-8")
    status, words = make(tmp_path, *STUDY, "SITE=other", seconds=1800, **variables)
    assert status == 0, words[-3000:]
