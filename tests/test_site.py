"""Sites and derived files: what is read is validated, what is written is whole."""

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from helpers import io
from helpers.io import answers, runnable
from helpers.io.site import NEEDS, SITES, Site, SiteConfig


@pytest.fixture
def site(tmp_path):
    """A site whose folders lie in a temporary place."""
    made = Site("somewhere", SiteConfig(title="somewhere", kind="real"))
    made.raw, made.derived, made.results, made.figures, made.executed = (
        tmp_path / n for n in ("raw", "derived", "results", "figures", "build")
    )
    made.read_from = [made.derived]
    made.notebook = "05_thaw_scaling"
    return made


@pytest.mark.parametrize("path", sorted(SITES.glob("*.yml")), ids=lambda p: p.stem)
def test_every_site_file_is_valid(path):
    """Each committed site file loads and names itself."""
    assert io.load_site(path.stem).name == path.stem


def test_unknown_site_lists_the_known():
    """A name that is no site gets the names that are."""
    with pytest.raises(FileNotFoundError, match=r"datong_twin.*heihe"):
        io.load_site("atlantis")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("title: a\nkind: real\ngauge: 3\n", "unknown key `gauge`; valid keys here: epochs"),
        (
            "title: a\nkind: real\ninputs: {sar: {s1: {role: main, band: C, path: p, lookz: 3}}}\n",
            "lookz.*looks",
        ),
        ("title: a\nkind: imaginary\n", "kind"),
        ("title: a\nkind: real\ninputs: {sar: {s1: {role: main, band: C}}}\n", "exactly one of `path`"),
        (
            "title: a\nkind: real\ninputs: {sar: {s1: {role: main, band: C, unwrapped: '*.tif'}}}\n",
            "wavelength_m",
        ),
        ("title: a\nkind: real\nreference_area: {name: n}\n", "exactly one of `polygon`"),
        (
            "title: a\nkind: real\nmine: {area_km2: 3, pit_area_km2: 4, pit_volume_m3: 5, source: s}\n",
            "cannot be below `pit_area_km2`",
        ),
        ("- a\n- b\n", "holds no keys"),
        ("title: [unclosed\n", "not readable as YAML"),
        ("title: !!python/object/apply:os.system ['true']\nkind: real\n", "not readable as YAML"),
        ("", "holds no keys"),
    ],
)
def test_wrong_site_file_names_file_and_key(tmp_path, text, told):
    """A wrong key or value names the file, the key and the valid ones."""
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=told) as caught:
        io.load_site(path)
    assert str(path) in str(caught.value)


def test_site_names_cannot_leave_the_tree(tmp_path):
    """A site's name becomes a folder's: nothing but letters, digits and _."""
    path = tmp_path / "..evil.yml"
    path.write_text("title: a\nkind: real\n")
    with pytest.raises(ValueError, match="letters, digits"):
        io.load_site(path)


def test_quick_touches_nothing_but_build():
    """Everything a quick run writes lies below build/quick."""
    site = io.load_site("datong_twin", "quick")
    for folder in (site.raw, site.derived, site.results, site.figures, site.executed):
        assert folder.is_relative_to(io.ROOT / "build" / "quick")


def test_other_sites_never_write_the_committed_folders():
    """Only the default site at full size writes figures/ and data/results/ themselves."""
    default, other = io.load_site("datong_twin"), io.load_site("heihe")
    assert default.figures == io.ROOT / "figures" and other.figures == default.figures / "heihe"
    assert other.results == default.results / "heihe"


def test_what_if_writes_apart_and_reads_through(tmp_path):
    """A what-if run writes its own files and still finds those it did not make."""
    usual = io.load_site("heihe", "quick")
    changed = io.load_site("heihe", "quick", out=tmp_path)
    assert changed.derived.is_relative_to(tmp_path) and changed.figures.is_relative_to(tmp_path)
    assert changed.read_from == [changed.derived, usual.derived]


def test_missing_inputs_are_all_named(site):
    """What only the user can supply is listed with its place, key and source."""
    config = SiteConfig.model_validate(
        {
            "title": "t",
            "kind": "real",
            "inputs": {
                "sar": {"s1": {"role": "main", "band": "C", "path": "GEOC", "source": "the LiCS portal"}},
                "discharge": {"g": {"role": "target", "path": "q.csv", "drainage_area_km2": 10}},
            },
        }
    )
    site.config = config
    with pytest.raises(FileNotFoundError, match=r"lacks 2 inputs(.|\n)*sar.s1: put GEOC below.*LiCS portal"):
        io.fetch(site)


def test_needs_are_answered(site):
    """A site says which of a notebook's needs it lacks."""
    assert site.lacks(("sar", "discharge", "climate", "areas")) == ["sar", "discharge", "climate", "areas"]
    assert "second stack (key sar)" in repr(site)  # in words a user finds in the template
    twin = io.load_site("datong_twin")
    assert twin.lacks(("sar", "tracks", "rate_prior", "discharge", "climate", "drivers", "areas")) == []


def test_a_notebook_without_its_inputs_ends_in_one_exception(site, tmp_path):
    """Opened by hand it raises, shows one line and writes nothing; so it does where its data are too few."""
    with pytest.raises(
        io.MissingInput, match=r"^07_recession: site 'somewhere' has no discharge.*To supply it"
    ) as told:
        site.start("07_recession")
    assert told.value._render_traceback_() == [f"MissingInput: {told.value}"]
    with pytest.raises(io.MissingInput, match="01_ingest: two seasons; nothing done"):
        site.start("01_ingest").leave("two seasons", "Give it more.")
    assert not list(tmp_path.iterdir())


def test_make_learns_what_a_site_cannot_run(tmp_path, capsys):
    """A line and a copy with it for each notebook that lacks something, none for the others."""
    runnable.skip(io.load_site("kuparuk"), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    names = [f"{n}_" for n in ("02", "03", "04", "05", "06", "08")]
    assert [line[:3] for line in lines] == names and all(
        "has no stack of role main" in line for line in lines
    )
    copies = sorted(tmp_path.glob("*.skipped.ipynb"))
    assert [p.name[:3] for p in copies] == names and lines[0] in copies[0].read_text()
    runnable.skip(io.load_site("datong_twin"), tmp_path / "twin")
    assert not capsys.readouterr().out and not list((tmp_path / "twin").iterdir())


@pytest.mark.parametrize("path", sorted((io.ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_needs_are_kept_for_every_notebook(path):
    """Each notebook starts under its own name, which is the key of what it needs."""
    assert path.stem == "01_ingest" or path.stem in NEEDS
    assert f'"{path.stem}"' in path.read_text().replace('\\"', '"').partition("start(")[2]


def test_mirror_is_checked_by_its_hash(mirror, tmp_path, monkeypatch):
    """A mirror's file with another content is refused; the right one arrives whole."""
    from readers.originals import fetch_file

    row = next(io.registry("heihe").itertuples())
    assert hashlib.sha256(fetch_file(row, tmp_path / "raw").read_bytes()).hexdigest() == row.sha256
    false = tmp_path / "mirror" / row.mirror
    false.parent.mkdir(parents=True)
    false.write_text("not the original")
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "mirror"))
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(ValueError, match="sha256"):
        fetch_file(row, tmp_path / "raw")
    assert not list((tmp_path / "raw").rglob("*.*"))


def test_kuparuk_table_is_the_river_of_the_original(mirror, tmp_path):
    """The daily table built from the MATLAB file agrees with a conversion made apart from it."""
    site = io.load_site("kuparuk")
    site.raw = tmp_path
    io.fetch(site)
    ours = pd.read_csv(tmp_path / "daily.csv", parse_dates=["date"]).set_index("date")["q_m3s"]
    theirs = pd.read_csv(mirror / "kuparuk" / "kuparuk_m3s.csv", parse_dates=["date"]).set_index("date")[
        "q_m3s"
    ]
    both = pd.concat([ours, theirs], axis=1, sort=True).dropna()
    assert len(both) == ours.notna().sum() > 13_000
    np.testing.assert_allclose(both.iloc[:, 0], both.iloc[:, 1], rtol=1e-5)
    thickness = pd.read_csv(tmp_path / "active_layer.csv").set_index("year")
    assert thickness.loc[1992, "active_layer_thickness_cm"] == 48 and thickness.loc[1992, "std_cm"] == 8


# --- derived files -----------------------------------------------------------------------------------------
def _cube(chunked=False):
    data = xr.Dataset(
        {"rate": (("y", "x"), np.array([[1.0, np.nan], [3.0, 4.0]]), {"units": "mm/yr"})},
        coords={"y": [1.0, 0.0], "x": [0.0, 1.0]},
    )
    return data.chunk({"y": 1}) if chunked else data


@pytest.mark.parametrize("name", ["05_a.nc", "05_a.zarr"])
def test_what_is_written_is_read_back(site, name):
    """Values, NaN, units and coordinates survive; a second write replaces the first, chunked or not."""
    io.write(_cube(), site, name)
    io.write(_cube(chunked=True) + 1, site, name)
    xr.testing.assert_equal(io.read(site, name).load(), _cube() + 1)
    assert [p.name for p in site.derived.iterdir()] == [name]
    assert site.outputs == [site.derived / name]


@pytest.mark.parametrize("name", ["05_a.nc", "05_a.zarr"])
def test_the_place_on_earth_survives(site, name):
    """The coordinate system is read back, also for variables added after it was set."""
    data = _cube().rio.write_crs("EPSG:4326")
    data["added"] = data["rate"].drop_vars("spatial_ref") * 2
    io.write(data, site, name)
    back = io.read(site, name)
    assert back.rio.crs.to_epsg() == 4326 == back["added"].rio.crs.to_epsg()
    assert set(back.data_vars) == {"rate", "added"}


@pytest.mark.parametrize("name", ["05_a.nc", "05_a.zarr"])
def test_a_failed_write_leaves_the_old_file(site, name):
    """An error halfway through keeps the file there was."""
    import dask.array

    io.write(_cube(), site, name)

    def fail(block):
        raise RuntimeError("the disk is gone")

    bad = xr.Dataset({"rate": (("y", "x"), dask.array.ones((2, 2)).map_blocks(fail, dtype=float))})
    with pytest.raises(RuntimeError, match="the disk is gone"):
        io.write(bad, site, name)
    xr.testing.assert_equal(io.read(site, name).load(), _cube())


def test_same_data_same_bytes(site):
    """netCDF and CSV of the same data are the same bytes."""
    table = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", "y"]})
    for name, data in (("05_a.nc", _cube()), ("05_a.csv", table)):
        first = io.write(data, site, name).read_bytes()
        assert io.write(data, site, name).read_bytes() == first


def test_missing_derived_file_names_the_notebook(site):
    """The error says which notebook to run."""
    with pytest.raises(FileNotFoundError, match="starts with 02_ first"):
        io.read(site, "02_rates.nc")


def test_finish_lists_the_outputs(site):
    """Make learns from a notebook's list which files its stamp stands for."""
    io.write(_cube(), site, "05_a.nc")
    site.finish()
    lines = (site.executed / "05_thaw_scaling.outputs").read_text().splitlines()
    assert len(lines) == 1 and lines[0].endswith("derived/05_a.nc")


# --- results -----------------------------------------------------------------------------------------------
def test_results_have_fixed_columns(site):
    """Columns in order, truth empty where there is none."""
    results = io.Results(site, "05_thaw_scaling")
    results.add("rate", -7.0, lower=-9.0, upper=-5.0, unit="mm/yr", method="m")
    results.write()
    back = io.read_results(site.results)
    assert list(back.columns) == ["name", "value", "lower", "upper", "unit", "truth", "method", "notebook"]
    assert back["truth"].isna().all()


@pytest.mark.parametrize(
    ("numbers", "told"),
    [({"lower": 2, "upper": 3}, "outside its own interval"), ({"std": 1, "lower": 0}, "both std and limits")],
)
def test_wrong_results_are_refused(site, numbers, told):
    """A number outside its interval, or with two kinds of it, does not get in, nor a name used twice."""
    results = io.Results(site, "05_thaw_scaling")
    with pytest.raises(ValueError, match=told):
        results.add("a", 1, unit="1", **numbers)
    results.add("a", 1, unit="1")
    with pytest.raises(ValueError, match="'a' is used twice"):
        results.add("a", 1, unit="1")


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ((1.234567, 1.1, 1.37, 1.3333333), "1.235,1.1,1.37,,1.333"),
        ((0.0026486, -0.0733489, 0.0786461, 0), "0.0026,-0.0733,0.0786,,0"),
        ((0.000012345, -1.0, 1.0, None), "0,-1,1,,"),
        ((-271.2345, -551.04, 27.04, None), "-271,-551,27,,"),
        ((0.01234567, None, None, 0.0199999), "0.01235,,,,0.02"),
        ((123456.7, None, None, None), "123500,,,,"),
        ((123457, None, None, None), "123457,,,,"),
        ((float("nan"), None, None, None), ",,,,"),
    ],
)
def test_results_have_the_digits_that_mean_something(site, given, written):
    """Three digits of the half-width, four without an interval, whole numbers whole, truth like the value."""
    results = io.Results(site, "05_thaw_scaling")
    value, lower, upper, truth = given
    results.add("a", value, lower=lower, upper=upper, truth=truth, unit="")
    results.write()
    assert (site.results / "05_thaw_scaling.csv").read_text().splitlines()[1] == f"a,{written},"


def _write(site, **changes):
    row = {"value": 1.0, "lower": 0.6, "upper": 1.4, "unit": "mm", "method": "12 areas, share 0.40"} | changes
    results = io.Results(site, "05_thaw_scaling")
    results.add("rate", **row)
    results.add("r2_blocked", 0.003 + changes.get("value", 1.0) - 1.0, unit="1")
    results.add("events", 40, unit="1")
    results.write()
    return (site.results / "05_thaw_scaling.csv").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [{"value": 1.009}, {"lower": 0.45}, {"upper": 1.55}, {"method": "12 areas, share 0.41"}],
)
def test_a_committed_table_within_tolerance_stays(site, changes):
    """What another processor's rounding moves does not touch the committed file, and does elsewhere."""
    site.keeps_committed = True
    first = _write(site)
    assert _write(site, **changes) == first
    site.keeps_committed = False
    assert _write(site, **changes) != first


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 1.02},  # the score beside it has a tolerance of 0.01
        {"lower": 0.39},
        {"upper": None, "lower": None},
        {"truth": 1.0},
        {"unit": "cm"},
        {"method": "13 areas, share 0.40"},
        {"method": "12 areas, part 0.40"},
    ],
)
def test_a_committed_table_beyond_tolerance_is_rewritten(site, changes):
    """A number beyond its tolerance, another unit, count or word is written."""
    site.keeps_committed = True
    first = _write(site)
    assert _write(site, **changes) != first


# --- answers -----------------------------------------------------------------------------------------------
RESULTS = pd.DataFrame(
    {
        "notebook": "03_x",
        "name": ["bias", "cover"],
        "value": [-1.23456, np.nan],
        "lower": [-2.0, np.nan],
        "upper": [0.5, np.nan],
        "unit": ["mm/yr", "1"],
        "truth": [0.0, np.nan],
    }
)


def test_answers_carry_value_interval_and_unit():
    """A placeholder becomes the number of the table, to the digits its interval leaves it."""
    text = answers.fill(
        'a {{ "03_x:bias" | number }} b {{ "03_x:bias" | value }} c {{ "03_x:cover" | number }} '
        'd {{ "03_x:bias" | truth }}{{ "03_x:cover" | interval }}',
        RESULTS,
    )
    assert text == "a −1.23 [−2.00, 0.50] mm/yr b −1.23 c not testable d 0.00 mm/yr"
    table = pd.DataFrame([{"notebook": "a", "name": "b", "unit": "mm yr-1", "truth": -0.001}])
    for value, lower, upper, written in (
        (0.0333333, 0.000844, 0.172, "0.033 [0.001, 0.172] mm/yr, −0.001"),
        (-271.2, -551.0, 27.04, "−271 [−551, 27] mm/yr, 0"),
        (1.23456, np.nan, np.nan, "1.23 mm/yr, −0.001"),
    ):
        row = table.assign(value=value, lower=lower, upper=upper)
        text = answers.fill('{{ "a:b" | number }}, {{ "a:b" | truth }}', row).removesuffix(" mm/yr")
        assert text == written


@given(st.text(alphabet=st.characters(blacklist_characters="{}\r"), max_size=40))
def test_text_without_placeholders_is_untouched(text):
    """Nothing but placeholders changes."""
    assert answers.fill(text, RESULTS) == text


def test_unknown_numbers_are_all_named():
    """Every placeholder without a number is named at once."""
    with pytest.raises(KeyError, match="results: 03_x:gone, 04_y:bias, 07_recession:no"):
        answers.fill(
            '{{ "03_x:gone" | value }} {{ "04_y:bias" | number }}{{ "07_recession:no" | parameter }}', RESULTS
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("drainage_area_km2: 1000", "drainage_area_km2: 0100", "write 0100 in quotes"),
        ("drainage_area_km2: 1000", "drainage_area_km2: 4:20", "write 4:20 in quotes"),
        ("drainage_area_km2: 1000", "drainage_area_km2: 1.0e+9", "drainage_area_km2"),
    ],
)
def test_numbers_that_yaml_reads_otherwise(tmp_path, old, new, message):
    """YAML 1.1 makes 64 of 0100 and 260 of 4:20; an area in m2 is larger than any basin."""
    text = (SITES / "template.yml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.yml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        io.load_site(tmp_path / "mine.yml")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"thaw_season": ["13-45", "09-30"]}, "13-45.*no month and day"),
        ({"thaw_season": ["11-01", "03-31"]}, "crosses New Year"),
        ({"epochs": [{"label": "a", "start": 2003, "end": None, "source": ""}]}, "write 2003-01-01"),
        (
            {"epochs": [{"label": "a", "start": "2010-01-01", "end": "2003-01-01", "source": ""}]},
            "before it starts",
        ),
        ({"reference_area": {"name": "r", "bounds": [99.2, 38.0, 99.1, 38.1]}}, "west, south, east, north"),
        ({"reference_area": {"name": "r", "bounds": [99.1, 38.1, 99.2, 38.0]}}, "west, south, east, north"),
    ],
)
def test_dates_and_corners_that_cannot_be(keys, message):
    """Each slip of a season, an epoch or a box has its sentence."""
    with pytest.raises(ValueError, match=message):
        SiteConfig(title="t", kind="real", **keys)
