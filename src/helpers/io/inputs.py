"""The inputs of a site as data: stacks, climate, drivers on the common grid, named areas."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  registers the .rio accessor
import shapely
import xarray as xr
from rasterio.enums import Resampling
from rasterio.features import geometry_mask
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from helpers.io.site import Site
from readers.damage import damage_named, regular_file
from readers.discharge import read_discharge
from readers.insar import read_geotiff_pairs, read_stack
from readers.rasters import read_raster

METRES_PER_DEGREE = 111_195.0  # mean length of a degree of latitude on a sphere of 6371 km


def read_sensor(site: Site, sensor: str) -> xr.Dataset:
    """Read one SAR stack of a site, as the site file says (data model: pair, y, x)."""
    sar = site.config.inputs.sar[sensor]
    if sar.path is not None:
        keywords = {} if sar.looks is None else {"looks": sar.looks}
        keywords |= {} if sar.incomplete == "error" else {"incomplete": sar.incomplete}
        stack = read_stack(site.raw / sar.path, **keywords)
    else:
        stack = read_geotiff_pairs(
            sorted(site.raw.glob(sar.unwrapped)),
            sorted(site.raw.glob(sar.coherence)) if sar.coherence else None,
            wavelength_m=sar.wavelength_m,
            incidence_angle_deg=sar.incidence_angle_deg,
            heading_deg=sar.heading_deg,
            looks=sar.looks,
            positive=sar.positive,
            incomplete=sar.incomplete,
        )
    if sar.baselines:
        stack = _with_gamma_baselines(stack, sorted(site.raw.glob(sar.baselines)))
    if sar.dem:
        dem = read_raster(site.raw / sar.dem)
        with damage_named(site.raw / sar.dem, "its grid cannot be brought onto the stack's"):
            height = dem.rio.reproject_match(stack, resampling=Resampling.average)
        if np.isinf(height).any():
            raise ValueError(
                f"{site.raw / sar.dem}: holds infinite heights; write no data as NaN, or name its value"
            )
        stack = stack.assign(height=(("y", "x"), height.values, {"units": "m", "long_name": "height"}))
    stack.attrs.update(sensor=sensor, band=sar.band)
    return stack


def _with_gamma_baselines(stack: xr.Dataset, files: list[Path]) -> xr.Dataset:
    """Take the perpendicular baseline of each pair as the mean of GAMMA's table of it over the scene."""
    metres = {}
    for path in files:
        dates = re.search(r"(\d{8})-(\d{8})", path.name)
        text = regular_file(path).read_text(encoding="utf-8", errors="replace")
        rows = [line.split() for line in text.splitlines() if re.match(r"\s*\d+\s+\d+\s+[-\d.]+", line)]
        try:
            values = [float(row[7]) for row in rows]
        except (IndexError, ValueError):
            values = []
        if not dates or not values or not np.isfinite(values).all():
            raise ValueError(
                f"{path}: no table of perpendicular baselines (columns line, range, ..., bperp, blen)"
            )
        metres[dates.groups()] = float(np.mean(values))
    days = [
        tuple(pd.Timestamp(d).strftime("%Y%m%d") for d in pair)
        for pair in zip(stack["reference"].values, stack["secondary"].values, strict=True)
    ]
    values = [metres.get(pair, np.nan) for pair in days]
    return stack.assign_coords(perpendicular_baseline=("pair", values, {"units": "m"}))


def read_areas(site: Site) -> dict[str, BaseGeometry]:
    """Give the named polygons (and the gauge's point) of a site, in lon/lat."""
    if site.config.inputs.areas is None:
        return {}
    path = site.raw / site.config.inputs.areas
    with damage_named(path, "expected is a GeoJSON of features with a property `name`"):
        features = json.loads(regular_file(path).read_text(encoding="utf-8"))["features"]
        areas = {str(f["properties"]["name"]): shape(f["geometry"]) for f in features}
    for name, area in areas.items():
        if area.is_empty or not np.isfinite(area.bounds).all():
            raise ValueError(f"{path}: the geometry of {name!r} is empty or not finite")
    if len(areas) < len(features):
        raise ValueError(f"{path}: two features bear the same `name`; give each its own")
    return areas


def mask_of(geometry: BaseGeometry, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Rasterise a lon/lat polygon onto a grid (cells whose centre it holds)."""
    from rasterio.warp import transform_geom

    crs = like.rio.crs
    geometry = transform_geom("EPSG:4326", crs, geometry.__geo_interface__)
    inside = geometry_mask([geometry], like.rio.shape, like.rio.transform(), invert=True)
    return xr.DataArray(inside, coords={"y": like["y"], "x": like["x"]}, dims=("y", "x"))


def cell_size_m(grid: xr.DataArray | xr.Dataset) -> tuple[float, float]:
    """Height and width of a cell of a grid in metres (for lon/lat: at the grid's middle latitude)."""
    dx, dy = (abs(step) for step in grid.rio.resolution())
    if grid.rio.crs is not None and grid.rio.crs.is_geographic:
        latitude = float(grid["y"].mean())
        return dy * METRES_PER_DEGREE, dx * METRES_PER_DEGREE * float(np.cos(np.deg2rad(latitude)))
    return dy, dx


def terrain(height: xr.DataArray) -> xr.Dataset:
    """Slope (deg), aspect (deg clockwise from north, downslope) and potential-radiation index of a relief.

    The index is the cosine of the angle between the surface and the mid-summer noon sun at the grid's
    latitude: a flat surface has the cosine of the zenith angle.
    """
    size_y, size_x = cell_size_m(height)
    down_y = np.sign(float(height["y"][0] - height["y"][-1]))  # rows run north to south: +1
    dz_dy, dz_dx = np.gradient(height.values, size_y, size_x)
    north, east = -dz_dy * down_y, dz_dx
    slope = np.arctan(np.hypot(north, east))
    aspect = np.arctan2(-east, -north)
    latitude = float(height["y"].mean()) if height.rio.crs.is_geographic else 38.0
    zenith = np.deg2rad(latitude - 23.44)
    sun = np.cos(zenith) * np.cos(slope) + np.sin(zenith) * np.sin(slope) * np.cos(aspect - np.pi)
    out = xr.Dataset(
        {
            "slope_deg": (("y", "x"), np.rad2deg(slope), {"units": "degree", "long_name": "slope"}),
            "aspect_deg": (("y", "x"), np.rad2deg(aspect) % 360, {"units": "degree", "long_name": "aspect"}),
            "radiation_index": (("y", "x"), sun, {"units": "1", "long_name": "noon radiation index"}),
        },
        coords={"y": height["y"], "x": height["x"]},
    )
    return out.rio.write_crs(height.rio.crs)


def areas_on_grid(site: Site, grid: xr.Dataset) -> xr.Dataset:
    """Rasterise every named area of a site and the distance (km) to the nearest pit or heap."""
    areas = {name: g for name, g in read_areas(site).items() if g.geom_type != "Point"}
    out = xr.Dataset({name: mask_of(geometry, grid) for name, geometry in areas.items()})
    if mine := [areas[name] for name in ("pits", "heaps") if name in areas]:
        away = _distance_km(mine, grid).astype("float32")
        attrs = {"units": "km", "long_name": "distance to the nearest pit or heap"}
        out["distance_to_mine"] = (("y", "x"), away, attrs)
    return out.rio.write_crs(grid.rio.crs)


def _distance_km(geometries: list[BaseGeometry], grid: xr.Dataset) -> np.ndarray:
    """Distance of every cell centre to the outlines themselves, not to the cells that stand for them."""
    from rasterio.warp import transform

    x, y = np.meshgrid(grid["x"].values, grid["y"].values)
    lon, lat = (np.array(v) for v in transform(grid.rio.crs, "EPSG:4326", x.ravel(), y.ravel()))
    metres = METRES_PER_DEGREE * np.array([np.cos(np.deg2rad(lat.mean())), 1.0])
    outlines = shapely.transform(shapely.union_all(geometries), lambda lonlat: lonlat * metres)
    away = shapely.distance(shapely.points(np.column_stack([lon, lat]) * metres), outlines)
    return away.reshape(x.shape) / 1000.0


def read_drivers(site: Site, grid: xr.Dataset) -> xr.Dataset:
    """Resample each driver once, from its own projection and resolution, onto the common grid."""
    out = {}
    for name, driver in site.config.inputs.drivers.items():
        band = read_raster(site.raw / driver.path)
        # averaging makes no sense onto a finer grid
        coarser = np.prod(cell_size_m(band)) >= np.prod(cell_size_m(grid))
        method = "bilinear" if driver.resampling == "average" and coarser else driver.resampling
        with damage_named(site.raw / driver.path, "its grid cannot be brought onto the site's"):
            column = band.rio.reproject_match(grid, resampling=Resampling[method])
        attrs = {"units": driver.unit, "long_name": driver.long_name, "group": driver.group}
        out[name] = (("y", "x"), column.values.astype("float32"), attrs)
    return xr.Dataset(out, coords={"y": grid["y"], "x": grid["x"]}).rio.write_crs(grid.rio.crs)


def read_gauges(site: Site) -> xr.Dataset:
    """Read the daily discharge of every gauge of a site: ``discharge``, ``ice`` (station, time)."""
    series = []
    for name, gauge in site.config.inputs.discharge.items():
        flow = read_discharge(
            site.raw / gauge.path, format=gauge.format, drainage_area_km2=gauge.drainage_area_km2
        )
        ice = flow["ice"].values if "ice" in flow.coords else np.zeros(flow.sizes["time"], bool)
        one = xr.Dataset(
            {"discharge": ("time", flow.values), "ice": ("time", ice)}, coords={"time": flow["time"].values}
        )
        series.append(one.expand_dims(station=[name]))
    out = xr.concat(series, "station", join="outer", fill_value={"ice": False, "discharge": np.nan})
    out["discharge"].attrs = {"units": "m3 s-1", "long_name": "daily mean discharge"}
    gauges = site.config.inputs.discharge.values()
    out = out.assign_coords(
        drainage_area_km2=("station", [g.drainage_area_km2 for g in gauges], {"units": "km2"}),
        role=("station", [g.role for g in gauges]),
        gauge_name=("station", [g.name or n for n, g in site.config.inputs.discharge.items()]),
    )
    return out


def read_climate(site: Site) -> xr.Dataset:
    """Read the daily climate of a site: temperature_2m (degC) and precipitation (mm/day), on (time).

    Formats: CF netCDF; the forcing table of the SHUD model (days since the date in line 1); CSV with
    a ``date`` column and any of ``temperature_degc``, ``precipitation_mm``. Days are sorted; a day given
    twice, infinite values, kelvins and negative precipitation are errors.
    """
    climate = site.config.inputs.climate
    path = regular_file(site.raw / climate.path)
    with damage_named(path, f"`inputs.climate` says that its format is {climate.format}"):
        out = _CLIMATE_READERS[climate.format](path)
    if climate.precipitation:
        gauge = site.raw / climate.precipitation
        with damage_named(gauge, "expected are columns Year, Month, Day and mm/day"):
            out["precipitation"] = _station_precipitation(gauge).reindex(time=out["time"])
    out = _checked_climate(out, path)
    if climate.height_m is not None:
        out.attrs["height_m"] = climate.height_m
    return out


def _climate_netcdf(path: Path) -> xr.Dataset:
    with xr.open_dataset(path) as data:
        if "time" not in data.dims:
            raise ValueError(f"it has no dimension time, only {list(data.dims)}")
        return data.drop_dims(set(data.dims) - {"time"}).load()


def _climate_shud(path: Path) -> xr.Dataset:
    with path.open(encoding="utf-8") as lines:
        start = next(lines).split()[2]
    table = pd.read_csv(path, sep="\t", skiprows=1)
    time = pd.to_datetime(start, format="%Y%m%d") + pd.to_timedelta(table["Time_Day"], unit="D")
    names = {"temperature_2m": "Temp", "precipitation": "Prcp"}
    return xr.Dataset({new: ("time", table[old].values) for new, old in names.items()}, {"time": time.values})


def _climate_csv(path: Path) -> xr.Dataset:
    table = pd.read_csv(path)
    names = {"temperature_degc": "temperature_2m", "precipitation_mm": "precipitation"}
    found = {new: ("time", table[old].values) for old, new in names.items() if old in table}
    if not found:
        raise ValueError(f"no column among {', '.join(names)}; found {', '.join(table.columns)}")
    return xr.Dataset(found, {"time": pd.to_datetime(table["date"], format="%Y-%m-%d").values})


_CLIMATE_READERS = {"netcdf": _climate_netcdf, "shud": _climate_shud, "csv": _climate_csv}
#: unit, and what a day can have anywhere on earth
_CLIMATE_UNITS = {"temperature_2m": ("degC", -95.0, 65.0), "precipitation": ("mm day-1", 0.0, 2000.0)}


def _checked_climate(data: xr.Dataset, path: Path) -> xr.Dataset:
    """Hold a climate to the data model: known variables on sorted days, in their units."""
    names = [name for name in _CLIMATE_UNITS if name in data]
    if not names or "time" not in data.indexes or not isinstance(data.indexes["time"], pd.DatetimeIndex):
        raise ValueError(
            f"{path}: needs a calendar `time` and any of {', '.join(_CLIMATE_UNITS)}; it has {list(data.variables)}"
        )
    time = data.indexes["time"]
    if time.hasnans or not time.is_unique:
        raise ValueError(
            f"{path}: days are missing or given twice: {time[time.duplicated() | time.isna()][:3]}"
        )
    for name in names:
        unit, low, high = _CLIMATE_UNITS[name]
        if data[name].dims != ("time",) or data[name].dtype.kind not in "fiu":
            raise ValueError(
                f"{path}: {name} is {data[name].dtype} {data[name].dims}, expected numbers on (time)"
            )
        outside = (data[name] < low) | (data[name] > high)
        if outside.any():
            raise ValueError(
                f"{path}: {name} is {float(data[name][outside][0]):g} on a day, expected {low:g} to {high:g} {unit}"
            )
        data[name].attrs.setdefault("units", unit)
    return data.sortby("time")


def _station_precipitation(path: Path) -> xr.DataArray:
    table = pd.read_csv(regular_file(path))
    if list(table.columns[:3]) != ["Year", "Month", "Day"]:
        raise ValueError(f"columns must begin with Year, Month, Day; found {', '.join(table.columns)}")
    when = pd.to_datetime(table[["Year", "Month", "Day"]])
    values = pd.to_numeric(table.iloc[:, 3], errors="coerce").where(lambda v: v.between(0, 500))
    return xr.DataArray(values.values, coords={"time": when.values}, dims="time")
