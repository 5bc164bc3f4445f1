"""Climate tables, polygons and rasters of others: stated units, calendars and coordinate systems are obeyed."""

import json

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


def raster(path, *bands, scale=1.0, offset=0.0, nodata=None, step=-0.01):
    """Write bands (y, x) as a GeoTIFF in lon/lat; a positive step is a south-up grid."""
    bands = np.array(bands)
    transform = rasterio.Affine(0.01, 0, 99, 0, step, 38)
    size = dict(zip(("count", "height", "width"), bands.shape, strict=True))
    profile = {"driver": "GTiff", "dtype": bands.dtype, "crs": "EPSG:4326", "nodata": nodata}
    with rasterio.open(path, "w", transform=transform, **profile, **size) as file:
        file.write(bands)
        file.scales, file.offsets = [scale] * len(bands), [offset] * len(bands)
    return path


def test_declared_scale_and_offset_are_applied(tmp_path):
    """Bytes 140 to 250 of scale 0.008 and offset -1 are a vegetation index of 0.12 to 1; the mark 255 is none."""
    stored = np.array([[140, 200], [250, 255]], np.uint8)
    read = read_raster(raster(tmp_path / "ndvi.tif", stored, scale=0.008, offset=-1.0, nodata=255))
    np.testing.assert_allclose(read, [[0.12, 0.6], [1.0, np.nan]], atol=1e-6)
    assert (read.attrs["scale_factor"], read.attrs["add_offset"]) == (1, 0)
    with pytest.raises(ValueError, match=r"zero.tif: declares scale 0"):
        read_raster(raster(tmp_path / "zero.tif", stored, scale=0.0))


@pytest.mark.parametrize(
    ("kind", "fill"), [("f4", -3.4028235e38), ("f4", -9999), ("i2", -32768), ("i2", -9999), ("f8", 1e36)]
)
def test_undeclared_fill_values_are_no_data(tmp_path, caplog, kind, fill):
    """They are found before the scale is applied, and counted; a second one beside them as well."""
    stored = np.array([[fill, -1900, 0], [9800, 4000, fill]]).astype(kind)
    read = read_raster(raster(tmp_path / "f.tif", stored, scale=0.5))
    np.testing.assert_allclose(read, [[np.nan, -950, 0], [4900, 2000, np.nan]])
    assert "f.tif: 2 of 6 cells hold" in caplog.text
    both = raster(tmp_path / "b.tif", np.array([[-32768, -9999], [10, 20]], "i2"))
    np.testing.assert_allclose(read_raster(both), [[np.nan, np.nan], [10, 20]])


def test_a_low_value_among_others_is_no_fill(tmp_path, caplog):
    """-9999 at the lower end of values that reach it, or above others, is a value; so is a field of it alone."""
    for name, values in (
        ("end", [-9999, -9990, -5000, 0]),
        ("mid", [-12000, -9999, 0, 1]),
        ("all", [-9999] * 4),
    ):
        read = read_raster(raster(tmp_path / f"{name}.tif", np.reshape(values, (2, 2)).astype("f4")))
        np.testing.assert_array_equal(read.values.ravel(), values)
    assert not caplog.text


def test_a_raster_is_one_band_north_up(tmp_path):
    """Two bands and a grid that runs from south to north are refused with what helps."""
    values = np.ones((2, 3), "f4")
    with pytest.raises(ValueError, match=r"two.tif: has 2 bands, expected one.*gdal_translate -b"):
        read_raster(raster(tmp_path / "two.tif", values, values))
    with pytest.raises(ValueError, match=r"up.tif: grid is rotated or not north-up.*gdalwarp"):
        read_raster(raster(tmp_path / "up.tif", values, step=0.01))
