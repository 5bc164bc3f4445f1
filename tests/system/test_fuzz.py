"""Inputs lie: what every reader and the site file do with damaged, wrong and hostile files.

`make test MARK=slow ARGS=tests/system/test_fuzz.py` reads more than 10,000 spoilt inputs, prints the counts and
appends them to data/calibration/fuzz.csv; a seed that stands there is not repeated.
"""

import os
from pathlib import Path

import fuzzing
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from spoil import BOMB, HEAD, VRT
from test_insar_io import SHAPE, licsar, second, write_tif

from helpers import io
from helpers.io.site import Site, SiteConfig

TABLE = Path(__file__).resolve().parents[2] / "data" / "calibration" / "fuzz.csv"
SEED, EACH = 2027, 420  # of each of the 25 readers: 10,500 inputs


def complain(outcomes):
    """One line per failure, with what repeats it."""
    return "\n".join(
        f"fuzzing.fuzz([{o.kind!r}], {o.seed[0]}, 1, start={o.seed[1]})  {o.change}: {o.detail[:600]}"
        for o in outcomes
        if o.verdict == "failure"
    )


def test_spoilt_inputs_are_refused_or_read_as_they_are():
    """Eight spoilt inputs of every reader: no failure of any kind."""
    outcomes = fuzzing.fuzz(fuzzing.READERS, seed=1, count=8)
    assert len(outcomes) == 8 * len(fuzzing.READERS) >= 200
    assert not complain(outcomes), complain(outcomes)


def test_the_bench_notices_bad_readers(tmp_path):
    """One that writes, unpickles, starts a process, raises at will, names no file, dies or waits is a failure."""
    told = {
        "writes": "for writing",
        "unpickles": "pickle.find_class",
        "raises": "KeyError",
        "calls": "os.system",
    }
    told |= {"names no file": "without the file's name", "dies": "the process died", "waits": "no answer"}
    with fuzzing.Bench(tmp_path) as bench:
        for name, words in told.items():
            outcome = bench.run(
                f"bad: {name}", seed=1, number=3, seconds=2 if name == "waits" else fuzzing.SECONDS
            )
            assert outcome.verdict == "failure" and words in outcome.detail, outcome


@pytest.mark.slow
def test_ten_thousand_spoilt_inputs(capsys, tmp_path):
    """More than 10,000; crashes inside HDF5, GDAL and other libraries are counted apart and listed."""
    done = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=["seed", "reader"])
    wanted = [k for k in fuzzing.READERS if not ((done["seed"] == SEED) & (done["reader"] == k)).any()]
    complaints = []
    with fuzzing.Bench(tmp_path) as bench:
        for kind in wanted:
            outcomes = [bench.run(kind, SEED, number) for number in range(EACH)]
            if told := complain(outcomes):
                complaints.append(told)
                continue
            row = fuzzing.counts(outcomes).assign(seed=SEED)
            crashed = [o for o in outcomes if o.verdict == "crash"]
            row["crashes"] = "; ".join(f"{o.change}: {o.detail.splitlines()[0]}" for o in crashed)
            row.to_csv(TABLE, mode="a", header=not TABLE.is_file(), index=False, lineterminator="\n")
    assert not complaints, "\n".join(complaints)
    table = pd.read_csv(TABLE)
    with capsys.disabled():
        print(table.drop(columns=["seed", "crashes"]).to_string(index=False))  # noqa: T201
        print(table[["inputs", *fuzzing.VERDICTS]].sum().to_string())  # noqa: T201
    assert table["inputs"].sum() >= 10_000 and table["failure"].sum() == 0


# --- one by one: what the fuzz has found ---------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path):
    """Give a maker of sites whose folders are all one temporary place."""

    def make(**inputs):
        made = Site("s", SiteConfig.model_validate({"title": "t", "kind": "real", "inputs": inputs}))
        made.raw, made.derived, made.read_from = tmp_path, tmp_path, [tmp_path]
        return made

    return make


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "aliases"),
        (HEAD + "seed: 1\nseed: 2\n", "given twice: seed"),
        (HEAD + "epochs: " + "[" * 3000, "not readable as YAML"),
        (HEAD + "seed: " + "9" * 6000, "not readable as YAML"),
        (HEAD + "epochs: [{label: a, start: 2003-13-45, end: null, source: s}]\n", "not readable as YAML"),
        (HEAD + "inputs: {areas: /etc/passwd}\n", "inputs.areas.*leads out of the site's raw folder"),
        (HEAD + "inputs: {climate: {path: a/../../x.nc}}\n", "leads out"),
        (HEAD + "inputs: {sar: {../evil: {role: main, band: C, path: p}}}\n", "inputs.sar.*pattern"),
        (HEAD + "inputs: {discharge: {g: {role: target, path: q, drainage_area_km2: .inf}}}\n", "finite"),
        (
            HEAD + "inputs: {discharge: {g: {role: target, path: q, drainage_area_km2: 0}}}\n",
            "greater than 0",
        ),
        (HEAD + "seed: -5\n", "greater than or equal to 0"),
    ],
)
def test_hostile_site_files(tmp_path, text, told):
    """No growth by aliases, no key behind another, no path or name that leads out of the site's folders."""
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"(?s){told}") as caught:
        io.load_site(path)
    assert str(path) in str(caught.value)


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_no_name_of_an_input_leaves_the_folder(name):
    """Whatever a sensor is called, its derived file lies in the site's own folder, or the name is refused."""
    sar = {name: {"role": "main", "band": "C", "path": "p"}}
    try:
        config = SiteConfig.model_validate({"title": "t", "kind": "real", "inputs": {"sar": sar}})
    except ValueError:
        return
    derived = Site("s", config).derived
    assert Path(os.path.normpath(derived / f"01_{name}.zarr")).parent == derived and name.isprintable()


@given(st.lists(st.sampled_from(["..", "a", "", ".", "*", "**", "/", "~", "b.tif"]), min_size=1, max_size=6))
def test_no_path_of_an_input_leaves_the_raw_folder(parts):
    """Whatever a path is made of, it lies below the raw folder, or is refused."""
    try:
        config = SiteConfig.model_validate(
            {"title": "t", "kind": "real", "inputs": {"areas": "/".join(parts)}}
        )
    except ValueError:
        return
    made = Site("s", config)
    assert Path(os.path.normpath(made.raw / config.inputs.areas)).is_relative_to(made.raw)


@pytest.mark.parametrize("name", ["../05_a.nc", "/tmp/05_a.nc", "sub/05_a.csv", ".05_a.csv"])
def test_derived_files_lie_in_their_folder(site, name):
    """A name that leads elsewhere is refused before anything is written."""
    with pytest.raises(ValueError, match="plain name"):
        io.write(pd.DataFrame({"a": [1]}), site(), name)


def test_a_link_in_the_place_of_an_output_is_not_followed(site, tmp_path):
    """Writing replaces the link and leaves alone what it points to."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "other.txt").write_text("mine")
    for name in ("05_a.zarr", "05_a.nc", "05_a.csv"):
        for place in (tmp_path / name, tmp_path / f"{name}.part"):
            place.symlink_to(kept, target_is_directory=True)
        data = pd.DataFrame({"a": [1]}) if name.endswith("csv") else xr.Dataset({"a": ("x", [1.0])})
        io.write(data, site(), name)
        assert not (tmp_path / name).is_symlink()
    assert [p.name for p in kept.iterdir()] == ["other.txt"]


def test_a_raster_that_names_other_files_is_not_followed(tmp_path):
    """GDAL's virtual rasters lead to any file or address: in a .tif's place they are refused."""
    path = second(licsar(tmp_path))
    path.write_bytes(VRT)
    with pytest.raises(ValueError, match="cannot be read as a GeoTIFF"):
        io.read_stack(tmp_path)


def test_a_pipe_in_a_files_place_does_not_wait(tmp_path, site):
    """What is no regular file is refused at once, not waited for."""
    path = second(licsar(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no regular file"):
        io.read_stack(tmp_path)
    os.mkfifo(tmp_path / "q.csv")
    with pytest.raises(ValueError, match="is no regular file"):
        io.read_discharge(tmp_path / "q.csv")


@pytest.mark.parametrize("lost", ["rate/0.0", "x/0"])
def test_a_lost_chunk_is_not_read_as_no_data(site, tmp_path, lost):
    """Zarr gives no data for a chunk that is not there; a derived file that lacks one is refused."""
    cube = xr.Dataset(
        {"rate": (("y", "x"), np.full((2, 3), np.nan))}, {"y": [1.0, 0.0], "x": [0.0, 1.0, 2.0]}
    )
    io.write(cube, site(), "05_a.zarr")
    assert io.read(site(), "05_a.zarr").load().equals(cube)
    (tmp_path / "05_a.zarr" / lost).unlink()
    with pytest.raises(ValueError, match=r"0 of 1 chunks.*run the notebook"):
        io.read(site(), "05_a.zarr")


CLIMATE = "date,temperature_degc,precipitation_mm\n2001-01-02,-5,0\n2001-01-01,-7,1.5\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("-7", "266", "temperature_2m is 266.*degC"),
        ("1.5", "-1.5", "precipitation is -1.5"),
        ("2001-01-02", "2001-01-01", "given twice"),
        ("2001-01-02", "2001-02-30", "cannot be read"),
        ("-5", "cold", "expected numbers"),
        ("date,", "day,", "date"),
        ("temperature_degc,precipitation_mm", "t,p", "no column among"),
    ],
)
def test_a_climate_that_cannot_be_is_refused(site, tmp_path, old, new, told):
    """Kelvins, negative rain, a day twice or one that does not exist; days out of order are put in order."""
    (tmp_path / "climate.csv").write_text(CLIMATE)
    made = site(climate={"path": "climate.csv", "format": "csv"})
    assert io.read_climate(made)["temperature_2m"].values.tolist() == [-7, -5]
    (tmp_path / "climate.csv").write_text(CLIMATE.replace(old, new))
    with pytest.raises(ValueError, match=f"climate.csv.*{told}"):
        io.read_climate(made)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"crs": None}, "no coordinate reference"), ({"nodata": 0}, None), ({"values": "complex"}, "complex64")],
)
def test_a_driver_is_one_band_of_real_numbers_somewhere(site, tmp_path, change, told):
    """A raster without a projection, or of complex numbers, is named; a plain one is read."""
    change = dict(change)
    values = np.full(SHAPE, 0.2, "c8" if change.pop("values", None) else "f4")
    write_tif(tmp_path / "a.tif", values, **change)
    made = site(drivers={"a": {"path": "a.tif", "group": "g", "unit": "1", "long_name": "a"}})
    grid = xr.Dataset(
        {"height": (("y", "x"), np.zeros(SHAPE))},
        {"y": 38.1975 - 0.005 * np.arange(6), "x": 99.0025 + 0.005 * np.arange(8)},
    )
    if told is None:
        np.testing.assert_allclose(io.read_drivers(made, grid.rio.write_crs(4326))["a"], 0.2)
    else:
        with pytest.raises(ValueError, match=f"a.tif.*{told}"):
            io.read_drivers(made, grid.rio.write_crs(4326))


def test_a_pipe_in_a_zarr_folder_is_refused(site, tmp_path):
    """Read, it would wait for ever."""
    (tmp_path / "02_a.zarr").mkdir()
    os.mkfifo(tmp_path / "02_a.zarr" / ".zmetadata")
    with pytest.raises(ValueError, match=r"02_a\.zarr/\.zmetadata: is no regular file"):
        io.read(site(), "02_a.zarr")


def test_infinite_heights_are_refused(tmp_path):
    """They would turn into an infinite delay; the file or its folder is named."""
    folder = licsar(tmp_path)
    heights = np.full(SHAPE, 4000, "f4")
    heights[0, 0] = np.inf
    write_tif(folder / "GEOC" / "021D_04972_131213.geo.hgt.tif", heights)
    with pytest.raises(ValueError, match="height holds infinite values"):
        io.read_stack(folder)
