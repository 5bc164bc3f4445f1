"""Raw files of the twin in the formats real data come in."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import rasterio
import shapely
import xarray as xr
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject, transform_bounds

from .drivers import Layer
from .radar import Network, Surface
from .terrain import MASTER, Grid, to_degrees

_WGS84 = CRS.from_epsg(4326)
_STAMP = "%Y%m%d"


def geotiff(path: Path, values: np.ndarray, transform: Affine, crs=_WGS84, *, nodata=0, tags=None) -> None:
    """Write one band."""
    height, width = values.shape
    profile = dict(driver="GTiff", height=height, width=width, count=1, dtype=values.dtype, crs=crs)
    profile["transform"] = transform
    if nodata is not None:
        profile["nodata"] = nodata
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
        if tags:
            file.update_tags(1, **tags)
            file.update_tags(**tags)


class _Template:
    """Bytes of an uncompressed GeoTIFF whose raster is replaced: thirty times faster than writing each anew."""

    def __init__(self, path: Path, dtype: str, grid: Grid):
        probe = np.arange(1, grid.shape[0] * grid.shape[1] + 1).reshape(grid.shape).astype(dtype)
        geotiff(path, probe, grid.transform)
        data = path.read_bytes()
        path.unlink()
        if not data.endswith(probe.tobytes()):
            raise RuntimeError("the raster is not at the end of the GeoTIFF this GDAL writes")
        self.head, self.dtype = data[: -probe.nbytes], probe.dtype

    def write(self, path: Path, values: np.ndarray) -> None:
        """Write `values` as GeoTIFF."""
        path.write_bytes(self.head + np.ascontiguousarray(values, self.dtype).tobytes())


class Licsar:
    """A LiCSAR GEOC folder, written pair by pair: float32 phase, byte coherence, 0 = no data."""

    def __init__(self, folder: Path, net: Network, grid: Grid, surface: Surface):
        height = surface.fields["elevation"]
        self.folder, self.net, self.grid = folder / "GEOC", net, grid
        self.folder.mkdir(parents=True)
        frame = net.sensor.frame
        for letter, value in zip("ENU", surface.los, strict=True):
            value = np.broadcast_to(value.reshape(grid.shape), grid.shape)
            geotiff(self.folder / f"{frame}.geo.{letter}.tif", value.astype("f4"), grid.transform)
        geotiff(self.folder / f"{frame}.geo.hgt.tif", height.reshape(grid.shape).astype("f4"), grid.transform)
        self.phase = _Template(self.folder / "probe.tif", "f4", grid)
        self.coherence = _Template(self.folder / "probe.tif", "u1", grid)
        first = net.dates[0]
        lines = [
            f"{first:%Y%m%d} {date:%Y%m%d} {b:.1f} {(date - first).days}"
            for date, b in zip(net.dates, net.baseline, strict=True)
        ]
        (self.folder / "baselines").write_text("\n".join(lines) + "\n")
        descending = net.sensor.orbit == "DESCENDING"
        meta = {
            "master": f"{first:%Y%m%d}",
            "center_time": "23:18:41.000000" if descending else "11:05:12.000000",
            "heading": f"{net.sensor.heading_deg:.2f}",
            "avg_incidence_angle": f"{float(np.mean(surface.incidence)):.4f}",
            "azimuth_resolution": "14.10",
            "range_resolution": "2.33",
            "centre_range_m": f"{net.sensor.range_km * 1000:.1f}",
            "avg_height": f"{float(np.mean(height)):.2f}",
            "applied_DEM": "simulated",
        }
        (self.folder / "metadata.txt").write_text("".join(f"{k}={v}\n" for k, v in meta.items()))

    def pair(self, k: int, phase: np.ndarray, coherence: np.ndarray) -> None:
        """Write pair `k`."""
        i, j = self.net.pairs[k]
        name = f"{self.net.dates[i]:%Y%m%d}_{self.net.dates[j]:%Y%m%d}"
        folder = self.folder / name
        folder.mkdir()
        lost = ~np.isfinite(phase)
        byte = np.where(lost, 0, np.clip(np.round(coherence * 255), 1, 255)).astype("u1")
        self.phase.write(folder / f"{name}.geo.unw.tif", np.where(lost, 0, phase))
        self.coherence.write(folder / f"{name}.geo.cc.tif", byte)

    def close(self) -> None:
        """Nothing is pending."""


class Mintpy:
    """A MintPy ifgramStack.h5 with its geometryGeo.h5; every attribute is text."""

    def __init__(self, folder: Path, net: Network, grid: Grid, surface: Surface, reference: int):
        folder.mkdir(parents=True)
        self.net, self.grid, self.reference = net, grid, reference
        self.file = h5py.File(folder / "ifgramStack.h5", "w")
        row, column = divmod(reference, grid.shape[1])
        place = {"REF_Y": row, "REF_X": column, "REF_LAT": grid.y[row], "REF_LON": grid.x[column]}
        common = self._header()
        self._attributes(self.file, common | {"FILE_TYPE": "ifgramStack", "UNIT": "radian"} | place)
        epoch = [d.strftime(_STAMP) for d in net.dates]
        self.file["date"] = np.array([[epoch[i], epoch[j]] for i, j in net.pairs], dtype="S8")
        self.file["bperp"] = net.pair_baseline.astype("f4")
        self.file["dropIfgram"] = np.ones(len(net.pairs), bool)
        # not lzf: its output depends on memory it does not clear, so equal data give unequal bytes
        kind = {"chunks": (1, *grid.shape), "compression": "gzip", "compression_opts": 1, "shuffle": True}
        shape = (len(net.pairs), *grid.shape)
        self.phase = self.file.create_dataset("unwrapPhase", shape, "f4", **kind)
        self.coherence = self.file.create_dataset("coherence", shape, "f4", **kind)
        self.component = self.file.create_dataset("connectComponent", shape, "i2", **kind)
        with h5py.File(folder / "geometryGeo.h5", "w") as file:
            self._attributes(file, common | {"FILE_TYPE": "geometry"})
            self._geometry(file, surface)

    def _header(self) -> dict:
        """Attributes that both files bear."""
        s, grid, dates = self.net.sensor, self.grid, self.net.dates
        height, looks = (628000.0 if s.name == "alos2" else 693000.0), ((20, 4) if s.band == "C" else (16, 8))
        start, end = (date.strftime(_STAMP) for date in dates[[0, -1]])
        (rows, columns), (west, north), (dx, dy) = grid.shape, grid.corner, grid.step
        return {
            **{"WIDTH": columns, "LENGTH": rows, "WAVELENGTH": s.wavelength_m},
            **{"X_FIRST": west, "Y_FIRST": north, "X_STEP": dx, "Y_STEP": -dy},
            **{"X_UNIT": "degrees", "Y_UNIT": "degrees", "EPSG": 4326},
            **{"ORBIT_DIRECTION": s.orbit, "HEADING": s.heading_deg, "ANTENNA_SIDE": -1},
            **{"PLATFORM": s.platform, "PROCESSOR": "isce", "EARTH_RADIUS": 6371000.0, "HEIGHT": height},
            **{"STARTING_RANGE": (s.range_km - 20) * 1000, "RANGE_PIXEL_SIZE": 7.8},
            **{
                "AZIMUTH_PIXEL_SIZE": 4.05,
                "CENTER_LINE_UTC": 14400.0 if s.orbit == "DESCENDING" else 57600.0,
            },
            **{"NCORRLOOKS": s.looks, "START_DATE": start, "END_DATE": end, "NO_DATA_VALUE": 0},
            **{"ALOOKS": looks[0], "RLOOKS": looks[1]},
        }

    def _geometry(self, file: h5py.File, surface: Surface) -> None:
        """Maps of height, angles (deg) and slant range (m)."""
        s, shape = self.net.sensor, self.grid.shape
        lons, lats = np.meshgrid(self.grid.x, self.grid.y)
        azimuth = (90 - s.heading_deg + 180) % 360 - 180
        middle, here = np.cos(np.radians(s.incidence_deg)), np.cos(np.radians(surface.incidence))
        for name, value in {
            "height": surface.fields["elevation"],
            "incidenceAngle": surface.incidence,
            "azimuthAngle": np.full(shape, azimuth),
            "slantRangeDistance": s.range_km * 1000 * middle / here,
            "latitude": lats,
            "longitude": lons,
        }.items():
            file[name] = np.reshape(value, shape).astype("f4")
        file["shadowMask"] = np.reshape(surface.shadow, shape)
        file["waterMask"] = np.ones(shape, bool)

    @staticmethod
    def _attributes(file: h5py.File, values: dict) -> None:
        for key, value in values.items():
            file.attrs[key] = str(value)

    def pair(self, k: int, phase: np.ndarray, coherence: np.ndarray) -> None:
        """Write pair `k`, referenced to the reference pixel (whose phase is exactly 0 and a value)."""
        lost = ~np.isfinite(phase)
        shape = self.grid.shape
        self.phase[k] = np.where(lost, 0, phase - phase[self.reference]).reshape(shape)
        self.coherence[k] = np.asarray(coherence, "f4").reshape(shape)
        self.component[k] = np.where(lost, 0, 1).reshape(shape)

    def close(self) -> None:
        """Close the stack."""
        self.file.close()


FROZEN_TO_BED, ICE = "连底冻", "冰"


def yearbook(
    folder: Path, discharge: pd.Series, station: str, area_km2: float, ice: pd.Series, bed: pd.Series
) -> None:
    """One yearbook table a year (逐日平均流量表): 31 rows by 12 months and the footer, UTF-8 CSV.

    Parameters
    ----------
    discharge : Series
        Daily flow in m3/s, NaN where missing.
    ice, bed : Series
        True where the value carries the ice mark 冰, and where the table prints 连底冻 (frozen to the bed) instead.
    """
    folder.mkdir(parents=True)
    months = [f"{m}月" for m in range(1, 13)]
    for year, flow in discharge.groupby(discharge.index.year):
        cells = {(d.month, d.day): _cell(v, ice[d], bed[d]) for d, v in flow.items()}
        lines = [
            f"{year}年 {station} 逐日平均流量表,集水面积 {area_km2:.0f} km2,流量 m3/s",
            ",".join(["日", *months]),
        ]
        for day in range(1, 32):
            lines.append(",".join([str(day), *(cells.get((m, day), "") for m in range(1, 13))]))
        lines += _footer(flow, area_km2)
        (folder / f"{year}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value: float, ice: bool, bed: bool) -> str:
    if bed:
        return FROZEN_TO_BED
    if not np.isfinite(value):
        return ""
    return (f"{value:.3g}" if value < 1000 else f"{value:.0f}") + (ICE if ice else "")


def _footer(flow: pd.Series, area_km2: float) -> list[str]:
    month = flow.groupby(flow.index.month)

    def row(label: str, pick) -> str:
        out = []
        for m in range(1, 13):
            values = month.get_group(m).dropna()
            out.append(pick(values) if len(values) else "")
        return ",".join([label, *out])

    mean = flow.mean()
    seconds = 86400 * len(flow)
    volume = mean * seconds / 1e8
    return [
        row("平均", lambda v: f"{v.mean():.3g}"),
        row("最大", lambda v: f"{v.max():.3g}"),
        row("日期", lambda v: str(v.idxmax().day)),
        row("最小", lambda v: f"{v.min():.3g}"),
        row("日期", lambda v: str(v.idxmin().day)),
        f"年统计,最大流量 {flow.max():.3g},最小流量 {flow.min():.3g},平均流量 {mean:.3g},"
        f"径流量 {volume:.3g} 10^8m3,径流模数 {mean / area_km2 * 1000:.3g},"
        f"径流深 {mean * seconds / area_km2 / 1000:.0f} mm",
    ]


_GRDC_HEADER = """\
# Title:                 GRDC STATION DATA FILE
#                        --------------
# Format:                DOS-ASCII
# Field delimiter:       ;
# missing values are indicated by -999.000
#
# GRDC-No.:              9999001
# River:                 SIMULATED
# Station:               {station}
# Country:               CN
# Latitude (DD):       {lat:.4f}
# Longitude (DD):      {lon:.4f}
# Catchment area (km²):      {area:.1f}
# Altitude (m ASL):        3300.00
# Next downstream station:      -
# Remarks:               simulated, no real station
#************************************************************
#
# Data Set Content:      MEAN DAILY DISCHARGE (Q)
#                        --------------------
# Unit of measure:                  m³/s
# Time series:           {first:%Y-%m} - {last:%Y-%m}
# No. of years:          {years}
#************************************************************
# Data lines: {days}
# DATA
YYYY-MM-DD;hh:mm; Value
"""


def grdc(path: Path, discharge: pd.Series, area_km2: float, station: str, lat: float, lon: float) -> None:
    """GRDC station file: latin-1, CRLF, '#' header, missing -999.000."""
    first, last = discharge.index[[0, -1]]
    header = _GRDC_HEADER.format(
        station=station, lat=lat, lon=lon, area=area_km2, first=first, last=last, days=len(discharge),
        years=last.year - first.year + 1,
    ).splitlines()  # fmt: skip
    values = discharge.fillna(-999.0)
    rows = [f"{d:%Y-%m-%d};--:--; {v:10.3f}" for d, v in values.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\r\n".join(header + rows) + "\r\n").encode("latin-1"))


def driver(path: Path, values: np.ndarray, layer: Layer) -> None:
    """Write a master-grid layer as GeoTIFF in its product's projection and cell size."""
    target, cell_m = CRS.from_string(layer.crs), layer.cell_m
    ny, nx = values.shape
    lon_step, lat_step = MASTER.step
    west, north = MASTER.corner
    bounds = (west, north - ny * lat_step, west + nx * lon_step, north)
    if target == _WGS84:
        step = (lon_step * cell_m / 100, lat_step * cell_m / 100)
        transform = from_origin(west, north, *step)
        shape = int(ny * 100 / cell_m), int(nx * 100 / cell_m)
    else:
        left, bottom, right, top = transform_bounds(_WGS84, target, *bounds)
        left, top = np.floor(left / cell_m) * cell_m, np.ceil(top / cell_m) * cell_m
        transform = from_origin(left, top, cell_m, cell_m)
        shape = int(np.ceil((top - bottom) / cell_m)), int(np.ceil((right - left) / cell_m))
    out = np.full(shape, -9999.0, "f4")
    reproject(
        values.astype("f4"),
        out,
        src_transform=MASTER.transform,
        src_crs=_WGS84,
        dst_transform=transform,
        dst_crs=target,
        dst_nodata=-9999.0,
        resampling=Resampling.average,
    )
    tags = {"long_name": layer.long_name, "units": layer.unit}
    geotiff(path, out, transform, target, nodata=-9999.0, tags=tags)


def areas(path: Path, shapes: dict[str, shapely.Geometry]) -> None:
    """Named areas as GeoJSON (longitude, latitude)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = [
        dict(
            type="Feature",
            properties={"name": name},
            geometry=json.loads(shapely.to_geojson(to_degrees(shape))),
        )
        for name, shape in shapes.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def truth(path: Path, data: xr.Dataset) -> None:
    """Write truth.zarr: one chunk in space, 64 dates in time, compressed."""
    encoding = {}
    for name, variable in data.variables.items():
        chunks = tuple(min(64, n) if dim == "time" else n for dim, n in variable.sizes.items())
        if chunks and all(chunks):
            encoding[name] = {"chunks": chunks}
    data.to_zarr(path, mode="w", encoding=encoding, consolidated=True, zarr_format=2)
