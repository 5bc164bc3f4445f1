"""Climate tables, polygons and rasters of others: stated units, calendars and coordinate systems are obeyed."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from readers.areas import read_areas
from readers.climate import read_climate


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
