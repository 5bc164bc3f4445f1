"""Four real products through the readers, held against raw counts and published facts, not against our own reading."""

import re
import shutil

import h5py
import numpy as np
import pytest
import rasterio

from helpers import io
from helpers.io.check import check
from readers.originals import fetch_file

HYP3_NAME = "S1AA_20201030T131820_20201111T131820_VVP012_INT80_G_ueF_EBD2"


def raw(path):
    """Values of a raster as stored."""
    with rasterio.open(path) as file:
        return file.read(1)


@pytest.mark.parametrize("given", ["", "interferograms"])
def test_the_licsar_frame_of_fernandina(mirror, given):
    """Portal layout: 10 pairs; no data exactly where the file holds 0; look vector from metadata.txt, assumed."""
    frame = mirror / "licsar_fernandina" / "106A_09048_000909"
    stack = io.read_stack(frame / given)
    assert dict(stack.sizes) == {"pair": 10, "y": 300, "x": 340}
    assert np.unique([stack["reference"], stack["secondary"]]).size == 7
    stored = {p.name[:17]: raw(p) for p in frame.glob("interferograms/*/*.geo.unw.tif")}
    for name, phase in zip(sorted(stored), stack["unwrapped_phase"].values, strict=True):
        np.testing.assert_array_equal(phase, np.where(stored[name] == 0, np.nan, stored[name]))
    coherent = sum(
        (raw(p) > 0) & (stored[p.name[:17]] == 0) for p in frame.glob("interferograms/*/*.geo.cc.tif")
    )
    assert coherent.sum() > 0  # the false zeros: coherence is no mask
    # metadata.txt: heading -12.019061, avg_incidence_angle 41.6437, centre_range_m 901242.4791
    assert float(stack["los_up"].mean()) == pytest.approx(np.cos(np.radians(41.6437)), abs=1e-6)
    east = -np.sin(np.radians(41.6437)) * np.cos(np.radians(12.019061))
    assert float(stack["los_east"].mean()) == pytest.approx(east, abs=1e-6)
    assert stack.attrs["slant_range_m"] == 901242.4791 and "los_assumed" in stack.attrs
    assert stack.attrs["orbit_direction"] == "ascending" and "height" not in stack
    rows = (line.split() for line in (frame / "metadata/baselines").read_text().splitlines())
    bperp = {row[1]: float(row[2]) for row in rows}
    assert float(stack["perpendicular_baseline"][0]) == bperp["20240118"] - bperp["20240106"]


def test_the_hyp3_phase_of_adak_and_its_wider_mask(mirror, tmp_path):
    """718 x 2314 phase, 88.9 % declared no data; a layer of 2315 columns is aligned, as is one of 2313."""
    folder = mirror / "hyp3_unw_adak"
    phase = raw(folder / "test_unw_phase.tif")
    shutil.copy(folder / "test_unw_phase.tif", tmp_path / f"{HYP3_NAME}_unw_phase.tif")
    with rasterio.open(folder / "test_water_mask.tif") as file:
        land, profile = file.read(1), file.profile | {"dtype": "float32", "nodata": None}
    assert land.shape == (718, 2315)
    for columns in (2315, 2313):
        with rasterio.open(tmp_path / f"{HYP3_NAME}_corr.tif", "w", **profile | {"width": columns}) as file:
            file.write(0.2 + 0.5 * land[:, :columns].astype("f4"), 1)
        stack = io.read_stack(tmp_path)
        values = stack["unwrapped_phase"].values[0]
        np.testing.assert_array_equal(values, np.where(phase == 0, np.nan, phase))
        assert np.isnan(values).mean() == pytest.approx(0.8887, abs=1e-4) == stack.attrs["zero_share"]
        gamma = np.nan_to_num(stack["coherence"].values[0, :, :2313])
        np.testing.assert_allclose(gamma, 0.2 + 0.5 * land[:, :2313], atol=1e-6)
    names = [tmp_path / "20201030_20201111_unw.tif", tmp_path / "20201030_20201111_mask.tif"]
    for name, kind in zip(names, ("unw_phase", "water_mask"), strict=True):
        shutil.copy(folder / f"test_{kind}.tif", name)
    assert io.read_geotiff_pairs(names[:1], names[1:], wavelength_m=0.0555).sizes["x"] == 2314


def test_the_opera_series_of_new_mexico(mirror):
    """Metres to mm, first date 0, components and zeros no data, the declared reference pixel kept."""
    folder = mirror / "opera_disp_s1_newmexico"
    series = io.read_displacement(folder)
    assert dict(series.sizes) == {"time": 9, "y": 362, "x": 357}
    assert series["displacement"].attrs["units"] == "mm"
    metres = raw(folder / "displacement_20160708_20161223.tif")
    label = raw(folder / "connected_component_labels_20160708_20161223.tif")
    lost = np.isnan(metres) | (label == 0) | (metres == 0)
    lost[258, 142] = False  # tag reference_point
    values = series["displacement"].sel(time="2016-12-23").values
    np.testing.assert_array_equal(np.isnan(values), lost)
    np.testing.assert_allclose(values[~lost], metres[~lost] * 1000, rtol=1e-6)
    assert (series["displacement"][:, 258, 142] == 0).all()
    assert set(np.unique(series["displacement"][0])[:1]) == {0}
    with pytest.raises(ValueError, match=r"displacement_20160708_20160801.tif: a displacement by its name"):
        io.read_geotiff_pairs(sorted(folder.glob("displacement_*.tif")), wavelength_m=0.0555)


def test_a_metre_raster_of_any_name_is_no_phase(mirror, tmp_path):
    """The real file states its unit: refused under a neutral name too."""
    real = mirror / "opera_disp_s1_newmexico" / "displacement_20160708_20160801.tif"
    shutil.copy(real, tmp_path / "20160708_20160801_unw.tif")
    with pytest.raises(ValueError, match="data are in meters, expected unwrapped phase in radians"):
        io.read_geotiff_pairs([tmp_path / "20160708_20160801_unw.tif"], wavelength_m=0.0555)


def test_the_look_vector_of_kilauea(mirror):
    """The README's east -0.65, north -0.12, up 0.75 on the grid of the series."""
    folder = mirror / "opera_disp_s1_kilauea_gnss"
    series = io.read_displacement(folder, los=folder / "hawaii_los_enu.tif")
    for name, value in (("los_east", -0.65), ("los_north", -0.12), ("los_up", 0.75)):
        assert float(series[name].mean()) == pytest.approx(value, abs=0.01)
    assert (
        series.sizes["time"] == 6 and "declared_reference_y" not in series.attrs
    )  # it lies outside the crop


def test_the_velocity_of_cadia(mirror, tmp_path):
    """m/year to mm/yr with sd; NaN stays no data; the reference pixel is 0; another unit is refused."""
    path = mirror / "cadia_mine" / "geo" / "geo_velocity.h5"
    rate = io.read_rate(path)
    with h5py.File(path) as file:
        velocity, std = file["velocity"][:], file["velocityStd"][:]
    np.testing.assert_allclose(rate["rate"], velocity * 1000.0, rtol=1e-6)
    np.testing.assert_allclose(rate["rate_std"], std * 1000.0, rtol=1e-6)
    assert (
        rate["rate"].attrs["units"] == "mm yr-1" and float(rate["rate"][111, 100]) == 0
    )  # of REF_LAT, REF_LON
    assert (rate.attrs["rate_start"], rate.attrs["rate_end"]) == ("2016-09-27", "2018-03-09")
    assert int(rate["rate"].isnull().sum()) == np.isnan(velocity).sum() == 16728
    shutil.copy(path, tmp_path / "velocity.h5")
    with h5py.File(tmp_path / "velocity.h5", "r+") as file:
        file["velocity"].attrs["UNIT"] = "cm/year"
    with pytest.raises(ValueError, match="velocity is in cm/year, expected m/year"):
        io.read_rate(tmp_path / "velocity.h5")


def test_the_gnss_stations_of_kilauea(mirror):
    """Ten stations; the last row of PUHR stands in the archive as read; the mm are those of its two columns."""
    gnss = io.read_gnss(mirror / "opera_disp_s1_kilauea_gnss" / "unr.zip")
    assert gnss.sizes["station"] == 10 and gnss["longitude"].max() < -155.2
    puhr = gnss.sel(station="PUHR").dropna("time")
    assert puhr.sizes["time"] == 386 and float(puhr["up"][0]) == 0
    # rows 2023-09-08 and 2023-09-10 of the file: u0 1104, up 0.089391 and 0.108432 m; sd 0.007173 m
    assert float(puhr["up"].sel(time="2023-09-10")) == pytest.approx(108.432 - 89.391)
    assert float(puhr["up_std"].sel(time="2023-09-10")) == pytest.approx(7.173)


def test_the_soil_temperature_of_yakutia(mirror, tmp_path):
    """Six stations; 999.9 is no data; the empty rows of 30 February go, one with a value is refused."""
    path = mirror / "rihmi_yakutia" / "wr373144a3.zip"
    soil = io.read_ground_temperature(path)["ground_temperature"]
    assert dict(soil.sizes)["station"] == 6 and soil["depth"].values[[0, -1]].tolist() == [0.02, 3.2]
    assert int(soil.sel(station="24959", depth=0.8).notnull().sum()) == 21348 and float(soil.max()) < 75
    row = "24266 1964  2 {} " + "999.9 9 " * 4 + "{} 0 " + "999.9 9 " * 7
    (tmp_path / "wr1.txt").write_text(row.format(1, "-8.5") + "\n" + row.format(30, "999.9") + "\n")
    soil = io.read_ground_temperature(tmp_path / "wr1.txt")["ground_temperature"]
    assert soil.sizes["time"] == 1 and float(soil.sel(depth=0.2).item()) == -8.5
    assert int(soil.notnull().sum()) == 1
    (tmp_path / "wr1.txt").write_text(row.format(30, "-8.5") + "\n")
    with pytest.raises(ValueError, match=r"a value on a day that does not exist: \[1964, 2, 30\]"):
        io.read_ground_temperature(tmp_path / "wr1.txt")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fernandina", r"10 pairs of 7 scenes, .*look vector assumed, no heights, 47.4%"),
        ("kilauea", r"6 dates, 2016-07-11 to 2016-09-21, 400 x 400 .*10 stations"),
        ("yakutia", r"6 stations, 1963-01-01 to 20.*24959 21667"),
    ],
)
def test_sites_on_real_ground_are_found(mirror, tmp_path, name, told):
    """`make data` gets every file of the registry and opens each input; what no notebook can use is said."""
    site = io.load_site(name)
    site.raw = tmp_path
    io.fetch(site)
    table = check(site)
    assert set(table["state"]) == {"found"}
    assert re.search(told, " ".join(table["what"]))
    assert bool(site.cannot_run("02_sbas")) == (name != "fernandina")


def test_a_part_of_an_original_is_not_downloaded(tmp_path, monkeypatch):
    """The mirror holds a crop: without it the message says so, and the whole file put there serves."""
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    row = next(io.registry("fernandina").itertuples())
    with pytest.raises(FileNotFoundError, match=r"part of a file of liyuxuan03/licsar2mintpy.*DATA_MIRROR"):
        fetch_file(row, tmp_path)
    (tmp_path / row.file).parent.mkdir(parents=True)
    (tmp_path / row.file).write_text("the whole one")
    assert fetch_file(row, tmp_path) == tmp_path / row.file
