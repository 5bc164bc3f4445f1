"""`make data`: a user's folder is opened input by input, and what is missing or incomplete is said in one line."""

import re
import shutil
from pathlib import Path

import pytest
import xarray as xr

from helpers import io
from helpers.io.check import check, main
from helpers.io.site import (
    SITES,
    Climate,
    Displacement,
    Driver,
    Epoch,
    Gauge,
    Inputs,
    ReferenceArea,
    Sar,
    SiteConfig,
    Stations,
)

DATONG = io.load_site("datong")
SAR = ("s1_desc", "s1_asc", "alos2", "ers", "envisat", "alos1")


@pytest.fixture
def site(quick_twin, tmp_path):
    """The real site over a folder as a user would fill it: files of the formats real data come in."""
    raw = tmp_path / "raw"
    for name in (*SAR, "climate", "drivers", "areas"):
        shutil.copytree(quick_twin / name, raw / name, copy_function=_link)
    shutil.copytree(quick_twin / "discharge" / "mined", raw / "discharge" / "datong")
    shutil.copyfile(quick_twin / "discharge" / "control_grdc.txt", raw / "discharge" / "control.txt")
    made = io.load_site("datong")
    made.raw = raw
    return made


def _link(source, target):
    Path(target).hardlink_to(source)


def _state(site):
    table = check(site).set_index("input")
    return table["state"].to_dict(), table["what"].to_dict()


def _rewrite(path, content=b""):
    path.unlink()  # the file is a hard link: never write through it
    if content is not None:
        path.write_bytes(content)


def test_every_input_of_the_real_site_says_where_it_comes_from():
    """Product, portal, licence and file name stand in the site file for all that has to be ordered."""
    inputs = DATONG.config.inputs
    for key, entry in {**inputs.sar, **inputs.discharge, "climate": inputs.climate}.items():
        for word in ("product", "portal", "order", "licence", "files"):
            assert getattr(entry, word), f"{key} lacks {word}"
    for key, driver in inputs.drivers.items():
        assert driver.product and driver.portal and driver.licence, key


def test_template_explains_every_key():
    """Whatever a site file may hold stands in the template a user copies."""
    template = (SITES / "template.yml").read_text(encoding="utf-8")
    models = [SiteConfig, Inputs, Sar, Displacement, Stations, Gauge, Climate, Driver, ReferenceArea, Epoch]
    absent = {key for model in models for key in model.model_fields if not re.search(rf"\b{key}\b", template)}
    # said elsewhere: data of two sites only, and what the shud forcing needs
    assert absent <= {"active_layer", "gnssir", "height_m", "precipitation", "source"}, absent


def test_a_complete_folder_is_found(site):
    """Every input is opened and described; nothing is missing."""
    states, what = _state(site)
    assert set(states.values()) == {"found"}, {k: what[k] for k, v in states.items() if v != "found"}
    assert set(states) == {f"sar.{n}" for n in SAR} | {
        "discharge.datong",
        "discharge.control",
        "climate",
        "areas",
    } | {f"drivers.{n}" for n in DATONG.config.inputs.drivers}
    assert "pairs of" in what["sar.s1_desc"] and "1983-01-01" in what["discharge.datong"]
    assert io.fetch(site) is site


def test_an_empty_folder_names_all(site):
    """Each missing input is one line: where to put it and where it comes from."""
    shutil.rmtree(site.raw)
    states, what = _state(site)
    assert set(states.values()) == {"missing"}
    assert "s1_desc/GEOC" in what["sar.s1_desc"] and "comet.nerc.ac.uk" in what["sar.s1_desc"]
    assert all("\n" not in line for line in what.values())
    with pytest.raises(
        FileNotFoundError, match=rf"lacks {len(states)} inputs(.|\n)*take them out of that file"
    ):
        io.fetch(site)


def _no_pairs(raw):
    for folder in (raw / "s1_desc" / "GEOC").glob("2*_2*"):
        shutil.rmtree(folder)


def _no_look_vector(raw):
    for path in [*(raw / "s1_desc").rglob("*.geo.[ENU].tif"), *(raw / "s1_desc").rglob("metadata.txt")]:
        path.unlink()


def _one_look_file_lost(raw):
    next((raw / "s1_desc").rglob("*.geo.U.tif")).unlink()


def _coherence_lost(raw):
    next((raw / "s1_asc").rglob("*.geo.cc.tif")).unlink()


def _truncated(raw):
    path = raw / "ers" / "ifgramStack.h5"
    _rewrite(path, path.read_bytes()[:5000])


def _geometry_lost(raw):
    (raw / "alos2" / "geometryGeo.h5").unlink()


def _temperature_lost(raw):
    path = raw / "climate" / "climate.nc"
    with xr.open_dataset(path) as data:
        data = data.load().drop_vars("temperature_2m")
    path.unlink()
    data.to_netcdf(path)


def _year_with_letters(raw):
    path = raw / "discharge" / "datong" / "1990.csv"
    _rewrite(path, path.read_bytes().replace(b"\n1,", b"\n1,abc", 1))


def _monthly_grdc(raw):
    path = raw / "discharge" / "control.txt"
    lines = [line for line in path.read_bytes().split(b"\n") if not line[:4].isdigit()]
    _rewrite(path, b"\n".join(lines))


def _no_crs(raw):
    import rioxarray

    path = raw / "drivers" / "ndvi.tif"
    with rioxarray.open_rasterio(path) as raster:
        raster = raster.load()
    path.unlink()
    raster.drop_vars("spatial_ref").rio.to_raster(path)


def _elsewhere(raw):
    import rioxarray

    path = raw / "drivers" / "albedo.tif"
    with rioxarray.open_rasterio(path) as raster:
        raster = raster.load()
    path.unlink()
    raster.assign_coords(x=raster.x + 500_000).rio.to_raster(path)


def _no_reference(raw):
    path = raw / "areas" / "areas.geojson"
    _rewrite(path, path.read_bytes().replace(b'"reference"', b'"somewhere"'))


def _not_json(raw):
    _rewrite(raw / "areas" / "areas.geojson", b"name,x,y\n")


@pytest.mark.parametrize(
    ("harm", "key", "told"),
    [
        (_no_pairs, "sar.s1_desc", "LiCSAR GEOC folder"),
        (_no_look_vector, "sar.s1_desc", "no los_up; 04"),
        (_one_look_file_lost, "sar.s1_desc", r"geo\.U\.tif is missing"),
        (_coherence_lost, "sar.s1_asc", r"geo\.cc\.tif: missing; download it"),
        (_truncated, "sar.ers", "truncated"),
        (_geometry_lost, "sar.alos2", "geometryGeo.h5|los_up"),
        (_temperature_lost, "climate", "no temperature_2m"),
        (_year_with_letters, "discharge.datong", r"1990\.csv"),
        (_monthly_grdc, "discharge.control", "no daily rows|no rows|GRDC"),
        (_no_crs, "drivers.ndvi", "no coordinate reference system"),
        (_elsewhere, "drivers.albedo", "does not overlap the main stack"),
        (_no_reference, "areas", "no polygon named 'reference'"),
        (_not_json, "areas", "a GeoJSON of features"),
    ],
    ids=lambda v: v.__name__.strip("_") if callable(v) else None,
)
def test_incomplete_input_is_said_in_one_line(site, harm, key, told):
    """What is there but cannot be used is incomplete, with file and remedy; the rest is still looked at."""
    harm(site.raw)
    # the main stack and the harmed one suffice
    inputs = site.config.inputs
    sar = {n: s for n, s in inputs.sar.items() if n == "s1_desc" or key == f"sar.{n}"}
    site.config = site.config.model_copy(update={"inputs": inputs.model_copy(update={"sar": sar})})
    states, what = _state(site)
    assert states[key] == "incomplete" and re.search(told, what[key]), what[key]
    assert "\n" not in what[key]
    assert states["discharge.control" if key != "discharge.control" else "climate"] == "found"


def test_make_data_fails_where_inputs_are_missing(capsys, tmp_path, monkeypatch):
    """The command prints every line and ends with an error status, so that a script can tell."""
    monkeypatch.setattr("helpers.io.check.load_site", lambda name, size: _moved(name, size, tmp_path))
    assert main("datong") == 1
    said = capsys.readouterr().out
    assert "missing    sar.alos2" in said and "take their keys out of data/sites/datong.yml" in said


def _moved(name, size, folder):
    site = io.load_site(name, size)
    site.raw = folder
    return site
