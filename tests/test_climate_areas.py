"""Climate tables, polygons and rasters of others: stated units, calendars and coordinate systems are obeyed."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

from readers.areas import read_areas
from readers.climate import read_climate
from readers.rasters import read_raster


def climate(path, times, **variables):
    """Write a CF netCDF: name=(values, units)."""
    data = xr.Dataset(
        {n: ("time", np.asarray(v, float), {"units": u} if u else {}) for n, (v, u) in variables.items()}
    )
    data.assign_coords(time=times).to_netcdf(path, engine="h5netcdf")
    return path


DAYS = pd.date_range("2001-01-01", periods=4)


@pytest.mark.parametrize(
    ("value", "unit"),
    [(5.0, "mm/day"), (0.005, "m"), (5 / 86400, "kg m-2 s-1"), (5 / 24, "mm/h"), (5.0, "kg m-2")],
)
def test_rain_is_converted_by_its_unit(tmp_path, value, unit):
    """5 mm a day, however it is written."""
    path = climate(tmp_path / "c.nc", DAYS, precipitation=([value] * 4, unit))
    np.testing.assert_allclose(read_climate(path)["precipitation"], 5.0, rtol=1e-12)


def test_kelvins_by_word_and_unknown_units(tmp_path):
    """Stated kelvins are converted, unstated ones refused, and so is a unit nobody knows."""
    path = climate(tmp_path / "k.nc", DAYS, temperature_2m=([273.15] * 4, "K"))
    np.testing.assert_allclose(read_climate(path)["temperature_2m"], 0, atol=1e-9)
    with pytest.raises(ValueError, match="expected -95 to 65"):
        read_climate(climate(tmp_path / "u.nc", DAYS, temperature_2m=([273.15] * 4, "")))
    with pytest.raises(ValueError, match="'inch'"):
        read_climate(climate(tmp_path / "i.nc", DAYS, precipitation=([1.0] * 4, "inch")))


def test_noon_hours_and_months(tmp_path):
    """Stamps at noon are days; 24 hours of 1 mm are 24 mm, of 3 degC 3 degC; months are refused."""
    noon = climate(tmp_path / "n.nc", DAYS + pd.Timedelta(hours=12), precipitation=([1, 2, 3, 4], "mm"))
    assert list(read_climate(noon).time.values) == list(DAYS.values)
    hours = pd.date_range("2001-01-01", periods=48, freq="h")
    path = climate(
        tmp_path / "h.nc", hours, precipitation=([1.0] * 48, "mm"), temperature_2m=([3.0] * 48, "degC")
    )
    out = read_climate(path)
    np.testing.assert_allclose(out["precipitation"], 24)
    np.testing.assert_allclose(out["temperature_2m"], 3)
    months = pd.date_range("2001-01-01", periods=6, freq="MS")
    with pytest.raises(ValueError, match="daily values"):
        read_climate(climate(tmp_path / "m.nc", months, precipitation=([1.0] * 6, "mm")))


def geojson(path, corners, crs=None):
    """Write one polygon named pit."""
    ring = [*corners, corners[0]]
    feature = {
        "type": "Feature",
        "properties": {"name": "pit"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    content = {"type": "FeatureCollection", "features": [feature]}
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return path


def test_a_declared_crs_is_transformed(tmp_path):
    """A square at 500 km east, 4,200 km north of UTM zone 47 lies on the meridian of 99 E, near 37.9 N."""
    square = [(500e3, 4200e3), (501e3, 4200e3), (501e3, 4201e3), (500e3, 4201e3)]
    area = read_areas(geojson(tmp_path / "a.json", square, "urn:ogc:def:crs:EPSG::32647"))["pit"]
    assert area.bounds[0] == pytest.approx(99.0, abs=1e-6) and 37.9 < area.bounds[1] < 38.0
    with pytest.raises(ValueError, match="no longitude and latitude"):
        read_areas(geojson(tmp_path / "b.json", square))


def test_a_self_crossing_outline_is_named(tmp_path):
    """A bow tie has no inside."""
    with pytest.raises(ValueError, match=r"pit.*Self-intersection"):
        read_areas(geojson(tmp_path / "a.json", [(99, 38), (99.1, 38.1), (99.1, 38), (99, 38.1)]))


def raster(path, values, *, bands=1, step=-0.01, **tags):
    """Write a small GeoTIFF; `tags` are rasterio's scales, offsets and nodata."""
    values = np.asarray(values)
    profile = dict(driver="GTiff", height=2, width=2, count=bands, dtype=values.dtype, crs="EPSG:4326")
    profile["transform"] = rasterio.Affine(0.01, 0, 99, 0, step, 38)
    with rasterio.open(path, "w", **profile, nodata=tags.pop("nodata", None)) as file:
        for band in range(bands):
            file.write(values, band + 1)
        for name, value in tags.items():
            setattr(file, name, (value,))
    return path


def test_declared_scale_and_offset_are_applied(tmp_path):
    """NDVI as bytes 140 to 250 with scale 0.004 and offset -0.08 is 0.48 to 0.92."""
    path = raster(
        tmp_path / "n.tif", np.array([[140, 250], [200, 255]], "u1"), scales=0.004, offsets=-0.08, nodata=255
    )
    np.testing.assert_allclose(read_raster(path), [[0.48, 0.92], [0.72, np.nan]], atol=1e-6)


@pytest.mark.parametrize("fill", [-3.4e38, -9999.0])
def test_an_undeclared_fill_is_masked_and_counted(tmp_path, caplog, fill):
    """A mark far from all other values is no data, with its count; a deep sea floor is not."""
    with caplog.at_level(logging.WARNING):
        out = read_raster(raster(tmp_path / "f.tif", np.array([[1.0, 2.0], [fill, 3.0]], "f4")))
    assert int(out.isnull().sum()) == 1 and "1 cells" in caplog.text
    deep = read_raster(raster(tmp_path / "d.tif", np.array([[-9999.0, -9000.0], [-9998.0, -100.0]], "f4")))
    assert deep.notnull().all()


def test_two_bands_and_south_up_are_refused(tmp_path):
    """A layer has one band, its rows from north to south."""
    with pytest.raises(ValueError, match="2 bands"):
        read_raster(raster(tmp_path / "b.tif", np.ones((2, 2), "f4"), bands=2))
    with pytest.raises(ValueError, match=r"not north-up.*warp it"):
        read_raster(raster(tmp_path / "s.tif", np.ones((2, 2), "f4"), step=0.01))


@pytest.mark.parametrize(
    ("kind", "fill"), [("f4", -3.4028235e38), ("f4", -9999), ("i2", -32768), ("i2", -9999), ("f8", 1e36)]
)
def test_fills_are_found_in_the_values_as_stored(tmp_path, caplog, kind, fill):
    """A range of 11 700 does not hide a mark below it, nor does a scale; two marks in one file are both found."""
    stored = np.array([[fill, -1900], [9800, 4000]]).astype(kind)
    read = read_raster(raster(tmp_path / "f.tif", stored, scales=0.5))
    np.testing.assert_allclose(read, [[np.nan, -950], [4900, 2000]])
    assert (read.attrs["scale_factor"], read.attrs["add_offset"]) == (1, 0)
    assert "f.tif: 1 cells of" in caplog.text
    both = read_raster(raster(tmp_path / "b.tif", np.array([[-32768, -9999], [10, 20]], "i2")))
    np.testing.assert_allclose(both, [[np.nan, np.nan], [10, 20]])


@pytest.mark.parametrize(
    "values", [[-9999, -9990, -5000, 0], [-12000, -9999, 0, 1], [-9999] * 4, [np.inf, 1, 2, 3]]
)
def test_values_that_are_no_fill_stay(tmp_path, caplog, values):
    """-9999 beside values near it, above others or alone; infinity, which the readers of heights refuse by name."""
    read = read_raster(raster(tmp_path / "v.tif", np.reshape(values, (2, 2)).astype("f4")))
    np.testing.assert_array_equal(read.values.ravel(), values)
    assert not caplog.text


def test_a_scale_of_zero_is_refused(tmp_path):
    """It would make every value the same."""
    with pytest.raises(ValueError, match=r"z.tif: declares scale 0"):
        read_raster(raster(tmp_path / "z.tif", np.ones((2, 2), "u1"), scales=0.0))
