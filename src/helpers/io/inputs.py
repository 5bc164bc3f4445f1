"""The inputs of a site as data: stacks, climate, drivers on the common grid, named areas."""

from __future__ import annotations

import numpy as np
import rioxarray  # noqa: F401  registers the .rio accessor
import shapely
import xarray as xr
from rasterio.enums import Resampling
from shapely.geometry.base import BaseGeometry

from helpers.io.site import Gauge, Site
from helpers.space import METRES_PER_DEGREE, cell_size_m, latitude_of, mask_of
from readers.areas import read_areas as named_polygons
from readers.climate import read_climate as climate_of_file
from readers.damage import damage_named
from readers.discharge import read_discharge
from readers.gamma import with_gamma_baselines
from readers.insar import read_displacement, read_geotiff_pairs, read_stack
from readers.rasters import read_raster
from readers.stations import read_gnss, read_ground_temperature


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
        stack = with_gamma_baselines(stack, sorted(site.raw.glob(sar.baselines)))
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


def read_series(site: Site, name: str) -> xr.Dataset:
    """Read one displacement series of a site (time, y, x), with its look vector where the site file names it."""
    series = site.config.inputs.displacement[name]
    los = None if series.los is None else site.raw / series.los
    return read_displacement(site.raw / series.path, los=los)


def read_stations(site: Site, key: str) -> xr.Dataset:
    """Read the daily records of the stations a site names under ``gnss`` or ``ground_temperature``."""
    reader = {"gnss": read_gnss, "ground_temperature": read_ground_temperature}[key]
    return reader(site.raw / getattr(site.config.inputs, key).path)


def read_areas(site: Site) -> dict[str, BaseGeometry]:
    """Give the named polygons (and the gauge's point) of a site, in lon/lat."""
    if site.config.inputs.areas is None:
        return {}
    return named_polygons(site.raw / site.config.inputs.areas)


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
    zenith = np.deg2rad(latitude_of(height) - 23.44)
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


def read_gauge(site: Site, gauge: Gauge) -> xr.DataArray:
    """Read the daily discharge of one gauge, with all that the site file says of its table."""
    keys = "format drainage_area_km2 column date_column date_format station units to_daily"
    return read_discharge(site.raw / gauge.path, **{key: getattr(gauge, key) for key in keys.split()})


def read_gauges(site: Site) -> xr.Dataset:
    """Read the daily discharge of every gauge of a site: ``discharge``, ``ice`` (station, time)."""
    series = []
    for name, gauge in site.config.inputs.discharge.items():
        flow = read_gauge(site, gauge)
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
    """Read the daily climate of a site (`readers.climate`), with the height it stands for where it is known."""
    climate = site.config.inputs.climate
    gauge = site.raw / climate.precipitation if climate.precipitation else None
    out = climate_of_file(site.raw / climate.path, climate.format, gauge)
    if climate.height_m is not None:
        out.attrs["height_m"] = climate.height_m
    return out
