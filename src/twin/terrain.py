"""The twin's place: relief, ground ice, wetness, pits and heaps on a 100 m master grid, and its averages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from rasterio.features import rasterize
from rasterio.transform import from_origin
from scipy.ndimage import distance_transform_edt, gaussian_filter

from .physics import Physics
from .weather import stream

WEST, NORTH = 98.972, 38.235
LON_STEP, LAT_STEP = 0.00114, 0.0009  # 100 m at 38.1 N
KM_PER_LON, KM_PER_LAT = 0.1 / LON_STEP, 0.1 / LAT_STEP
NX, NY = 400, 300


@dataclass(frozen=True)
class Grid:
    """A grid whose cells are `factor` x `factor` master cells, starting at master column/row `skip`."""

    factor: int
    skip: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return (NY - self.skip) // self.factor, (NX - self.skip) // self.factor

    @property
    def step(self) -> tuple[float, float]:
        """Cell size (degrees east, degrees north)."""
        return self.factor * LON_STEP, self.factor * LAT_STEP

    @property
    def corner(self) -> tuple[float, float]:
        """Longitude and latitude of the upper-left corner of the upper-left cell."""
        return WEST + self.skip * LON_STEP, NORTH - self.skip * LAT_STEP

    @property
    def transform(self):
        """Affine transform, pixel is area."""
        return from_origin(*self.corner, *self.step)

    @property
    def x(self) -> np.ndarray:
        """Longitudes of cell centres."""
        return self.corner[0] + (np.arange(self.shape[1]) + 0.5) * self.step[0]

    @property
    def y(self) -> np.ndarray:
        """Latitudes of cell centres, falling."""
        return self.corner[1] - (np.arange(self.shape[0]) + 0.5) * self.step[1]

    @property
    def cell_km(self) -> float:
        """Cell size in km."""
        return 0.1 * self.factor

    def on_map(self, values, *lead: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Dims and float32 values of (..., pixel) on this grid, for a Dataset."""
        values = np.asarray(values, "f4")
        return (*lead, "y", "x"), values.reshape(*values.shape[: len(lead)], *self.shape)

    def mean(self, master: np.ndarray) -> np.ndarray:
        """Block average of a master field."""
        ny, nx = self.shape
        part = master[self.skip : self.skip + ny * self.factor, self.skip : self.skip + nx * self.factor]
        return part.reshape(ny, self.factor, nx, self.factor).mean((1, 3))


MASTER = Grid(1)


def random_field(rng: np.random.Generator, shape: tuple, cell_km: float, **kind: float) -> np.ndarray:
    """Gaussian random field, mean 0 and sd 1 over the grid.

    Parameters
    ----------
    length_km : float
        Gaussian covariance of that length, or
    exponent : float
        power law of the two-dimensional spectrum, k**-exponent.
    """
    ny, nx = shape
    py, px = 2 * ny, 2 * nx  # padded, so that opposite edges are not neighbours
    ky = np.fft.fftfreq(py, cell_km)[:, None]
    kx = np.fft.rfftfreq(px, cell_km)[None, :]
    k2 = kx**2 + ky**2
    if "length_km" in kind:
        amplitude = np.exp(-((np.pi * kind["length_km"]) ** 2) * k2 / 2)
    else:
        k2[0, 0] = np.inf
        amplitude = k2 ** (-kind["exponent"] / 4)
    noise = rng.standard_normal((py, px // 2 + 1)) + 1j * rng.standard_normal((py, px // 2 + 1))
    field = np.fft.irfft2(noise * amplitude, (py, px))[:ny, :nx]
    return (field - field.mean()) / field.std()


def ellipse(x_km: float, y_km: float, a_km: float, b_km: float, angle_deg: float) -> shapely.Polygon:
    """Ellipse in km east and north of the scene's south-west corner; angle anticlockwise from east."""
    turn = np.radians(angle_deg)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    u, v = a_km * np.cos(t), b_km * np.sin(t)
    points = np.c_[x_km + u * np.cos(turn) - v * np.sin(turn), y_km + u * np.sin(turn) + v * np.cos(turn)]
    return shapely.Polygon(points)


def zones() -> dict[str, shapely.Geometry]:
    """The named areas in km east and north of the scene's south-west corner; the same for every seed.

    11 pits of 14 km2 and 19 heaps of 19 km2 in all, as surveys of the Muli mining area count.
    """
    place = np.random.default_rng(11)  # a fixed layout, not part of the seeded twin
    along = np.linspace(0, 1, 11)
    px = 15.5 + 14.0 * along + place.normal(0, 0.25, 11)
    py = 17.6 - 7.0 * along + place.normal(0, 0.35, 11)
    area = place.uniform(0.8, 1.8, 11)
    area *= 14.3 / area.sum()
    pits = shapely.union_all(
        [
            ellipse(x, y, 1.5 * np.sqrt(s / np.pi), np.sqrt(s / np.pi) / 1.5, -27)
            for x, y, s in zip(px, py, area, strict=True)
        ]
    )
    number = np.arange(19)
    side = np.where(number % 2 == 0, 1.25, -1.25)
    hx = np.interp(number / 18, along, px) + 0.45 * side
    hy = np.interp(number / 18, along, py) + side
    size = place.uniform(0.6, 1.4, 19)
    size *= 21.5 / size.sum()
    heaps = shapely.union_all(
        [
            ellipse(x, y, 1.2 * np.sqrt(s / np.pi), np.sqrt(s / np.pi) / 1.2, -27)
            for x, y, s in zip(hx, hy, size, strict=True)
        ]
    ).difference(pits.buffer(0.05))
    dug = shapely.union_all([pits, heaps])
    mined = dug.buffer(1.0).difference(dug)
    near = dug.buffer(4.0).difference(dug.buffer(1.0))
    return {
        "study_area": shapely.Polygon([(0.5, 2), (31, 2), (31, 21), (27.5, 28.5), (0.5, 28.5)]),
        "pits": pits,
        "heaps": heaps,
        "mined": mined,
        "near_mine": near,
        "control": shapely.box(2.0, 16.5, 7.5, 22.0),
        "reference": shapely.box(34.0, 1.5, 38.0, 4.5),
        "north_east_dark": ellipse(36.0, 26.5, 4.2, 2.8, 10),
        "basin": _basin(place, 4600.0, (30.0, 12.0)),
        "control_basin": _basin(place, 4589.0, (120.0, 62.0)),
        "gauge": shapely.Point(73.0, -12.0),
        "control_gauge": shapely.Point(163.0, 38.0),
    }


def _basin(rng: np.random.Generator, area_km2: float, centre: tuple[float, float]) -> shapely.Polygon:
    """A basin outline made here: a lobed ellipse of the stated area."""
    t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    r = 1 + sum(rng.normal(0, 0.09 / k) * np.cos(k * t + rng.uniform(0, 6.3)) for k in range(2, 8))
    shape = shapely.Polygon(
        np.c_[1.6 * r * np.cos(t) + 0.25 * r * np.sin(t), r * np.sin(t) - 0.5 * r * np.cos(t)]
    )
    grow = np.sqrt(area_km2 / shape.area)
    points = shapely.get_coordinates(shape) * grow + np.asarray(centre)
    return shapely.Polygon(points)


def to_degrees(shape: shapely.Geometry) -> shapely.Geometry:
    """From km in the scene to longitude and latitude (flat, as the whole twin is)."""
    south = NORTH - NY * LAT_STEP
    origin, scale = np.array([WEST, south]), np.array([1 / KM_PER_LON, 1 / KM_PER_LAT])
    return shapely.transform(shape, lambda xy: np.round(origin + xy * scale, 6))


def mask(shape: shapely.Geometry, grid: Grid = MASTER) -> np.ndarray:
    """True where a cell's centre lies in the area given in km."""
    return rasterize([to_degrees(shape)], grid.shape, transform=grid.transform, fill=0).astype(bool)


def master(seed: int, p: Physics) -> dict[str, np.ndarray]:
    """All fields on the 100 m grid, rows from north.

    Returns
    -------
    dict
        elevation (m), slope (deg), slope_east, slope_north (rise per m), ice and wetness (0-1), rock, pit, heap,
        reference (share), distance (km to the nearest pit or heap), permafrost (0-1), vegetation, north_east (0-1),
        local (ln of a factor), scatter, hardy, dem_error (sd 1), patch (sd 1).
    """
    rng = stream(seed, "terrain")
    area = zones()
    km = 0.1

    def field(length: float) -> np.ndarray:
        return random_field(rng, (NY, NX), km, length_km=length)

    flat = gaussian_filter(mask(area["reference"].buffer(0.8)).astype(float), 6)
    dark = gaussian_filter(mask(area["north_east_dark"]).astype(float), 5)
    flank, elevation = _relief(rng, field, flat)
    gy, gx = np.gradient(elevation, 100.0)
    slope = np.degrees(np.arctan(np.hypot(gx, gy)))

    pit, heap = mask(area["pits"]), mask(area["heaps"])
    distance = distance_transform_edt(~(pit | heap)) * km
    control = gaussian_filter(mask(area["control"]).astype(float), 10)
    belt = np.exp(-((distance / 4.0) ** 2))

    wet_raw = 0.9 * field(2.5) - 0.10 * (flank - 5) - 0.05 * slope + 0.3 * control + 0.3 * belt
    wetness = 1 / (1 + np.exp(-1.6 * wet_raw))
    rock_raw = 1.1 * (slope - 16) / 6 + 0.6 * (elevation - 4350) / 150
    rock = np.maximum.reduce(
        [1 / (1 + np.exp(-2.0 * rock_raw)), np.clip(1.6 * flat, 0, 1), np.clip(1.3 * dark, 0, 1)]
    )
    limit = p.permafrost_limit_dry_m + (p.permafrost_limit_wet_m - p.permafrost_limit_dry_m) * wetness
    ice_raw = 0.8 * field(2.0) + 1.1 * (wetness - 0.45) + 0.35 * control + 0.55 * belt
    ice = 1 / (1 + np.exp(-2.2 * ice_raw))
    vegetation = np.clip(
        0.35 + 0.35 * wetness - 0.3 * rock - 0.0004 * (elevation - 4000) + 0.05 * field(1.0), 0.02, 0.9
    )
    return {
        "elevation": elevation,
        "slope": slope,
        "slope_east": gx,
        "slope_north": -gy,
        "ice": ice,
        "wetness": wetness,
        "rock": rock,
        "pit": pit.astype(float),
        "heap": heap.astype(float),
        "reference": mask(area["reference"]).astype(float),
        "distance": distance,
        "permafrost": np.clip((elevation - limit) / 60, 0, 1),
        "vegetation": vegetation,
        "north_east": dark,
        "local": field(1.0),
        "scatter": field(1.2),
        "hardy": field(3.0),
        "dem_error": field(0.8),
        "patch": field(1.3) + 1.2 * (ice - 0.5) - 3 * rock,
        "albedo_noise": field(3.0),
        "darkening_noise": field(2.5),
        "extreme": field(0.6),
    }


def _relief(rng: np.random.Generator, field, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the valley's axis (km) and elevation (m): valley floor, ridges on its flanks, flat reference."""
    xx, yy = np.meshgrid((np.arange(NX) + 0.5) * 0.1, (NY - np.arange(NY) - 0.5) * 0.1)
    axis = 21.0 - 0.36 * xx + 1.3 * np.sin(xx / 6.5)
    flank = np.abs(yy - axis)
    floor = 3900 - 4.5 * xx - 14 * np.clip(xx - 30, 0, None)
    ridge = np.clip(1 - np.abs(field(1.6)) / 1.5, 0, 1)
    rough = random_field(rng, (NY, NX), 0.1, exponent=3.6)
    rise = 1 / (1 + np.exp(-(flank - 6.5) / 1.3))
    elevation = floor + 12 * flank + rise * (40 + 430 * ridge + 90 * field(4.0)) + (5 + 40 * rise) * rough
    elevation = elevation * (1 - flat) + 3950 * flat
    return flank, np.clip(elevation, 3600, 4720)


def scene(fields: dict[str, np.ndarray], grid: Grid) -> dict[str, np.ndarray]:
    """Block averages of the master fields on `grid`; the slope of the averaged relief replaces the fine one."""
    out = {name: grid.mean(value) for name, value in fields.items()}
    gy, gx = np.gradient(out["elevation"], 1000 * grid.cell_km)
    out["slope_east"], out["slope_north"] = gx, -gy
    return out
