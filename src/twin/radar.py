"""Six radar sensors over the twin: geometry, calendars, pairs, decorrelation, delays, unwrapping.

Sign: displacement is positive toward the satellite, delay is positive away; phase = -4 pi / wavelength x displacement
+ 4 pi / wavelength x delay, so positive phase is motion away from the satellite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import norm

from .physics import Physics
from .terrain import Grid, random_field

LIGHT = 299_792_458.0


@dataclass(frozen=True)
class Sensor:
    """A radar and the track it flies over the twin."""

    name: str
    platform: str
    band: str
    frequency_ghz: float
    incidence_deg: float
    heading_deg: float
    range_km: float
    critical_baseline_m: float
    looks: float
    max_years: float
    max_baseline_m: float
    grid: tuple[int, int]  # (factor, skip) of the master grid at full size
    quick_grid: tuple[int, int]
    frame: str = ""

    @property
    def wavelength_m(self) -> float:
        """Wavelength in m."""
        return LIGHT / (self.frequency_ghz * 1e9)

    @property
    def orbit(self) -> str:
        """ASCENDING or DESCENDING."""
        return "ASCENDING" if abs(self.heading_deg) < 90 else "DESCENDING"

    def geometry(self, size: str) -> Grid:
        """The sensor's own grid."""
        return Grid(*(self.quick_grid if size == "quick" else self.grid))

    def incidence(self, x: np.ndarray) -> np.ndarray:
        """Incidence angle (deg) at longitudes: it grows away from the satellite by 2.5 degrees in 40 km."""
        east = (np.asarray(x) - np.mean([98.972, 99.428])) / 0.456
        return self.incidence_deg + 2.5 * east * (1 if self.orbit == "ASCENDING" else -1)

    def los(self, incidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vector ground to satellite (east, north, up) of a right-looking radar."""
        theta, side = np.radians(incidence), np.radians(self.heading_deg - 90)
        return np.sin(theta) * np.sin(side), np.sin(theta) * np.cos(side), np.cos(theta)


_LICSAR = (880, 5000, 80 / 1.94, 3.1, 300)  # range km, critical baseline m, looks, longest pair: years, m
_MAIN = {"grid": (2, 0), "quick_grid": (5, 0)}
_COARSE = {"grid": (3, 2), "quick_grid": (6, 2)}
SENSORS = {
    s.name: s
    for s in (
        Sensor("ers", "ERS", "C", 5.300, 23.0, -167.5, 853, 1100, 64, 4.0, 700, **_COARSE),
        Sensor("envisat", "Env", "C", 5.331, 22.8, -167.5, 800, 1100, 64, 2.3, 450, **_COARSE),
        Sensor("alos1", "Alos", "L", 1.270, 38.7, -10.2, 850, 6500, 64, 2.1, 2500, (2, 1), (6, 0)),
        Sensor("alos2", "Alos2", "L", 1.2365, 36.3, -169.5, 740, 10000, 64, 3.2, 400, (2, 1), (5, 3)),
        Sensor("s1_desc", "Sen", "C", 5.405, 39.0, -169.5, *_LICSAR, **_MAIN, frame="033D_05235_131313"),
        Sensor("s1_asc", "Sen", "C", 5.405, 39.0, -10.5, *_LICSAR, **_MAIN, frame="128A_05172_131313"),
    )
}


@dataclass(frozen=True)
class Network:
    """Acquisitions and pairs of one sensor; pairs are index pairs, earlier date first."""

    sensor: Sensor
    dates: pd.DatetimeIndex
    baseline: np.ndarray
    pairs: np.ndarray

    @property
    def pair_baseline(self) -> np.ndarray:
        """Perpendicular baseline of each pair (m), second less first."""
        return self.baseline[self.pairs[:, 1]] - self.baseline[self.pairs[:, 0]]

    @property
    def days(self) -> np.ndarray:
        """Temporal baseline of each pair (days)."""
        ordinal = self.dates.to_julian_date().to_numpy()
        return ordinal[self.pairs[:, 1]] - ordinal[self.pairs[:, 0]]


def frozen(dates) -> np.ndarray:
    """True for dates of the snow and frost season, November to mid April."""
    doy = pd.DatetimeIndex(dates).day_of_year.to_numpy()
    return (doy >= 305) | (doy <= 105)


def network(sensor: Sensor, rng: np.random.Generator, size: str) -> Network:
    """Draw the calendar, the orbits and the pairs of one sensor."""
    dates = _calendar(sensor.name, rng, size)
    n = len(dates)
    spread = {"ers": 350, "envisat": 350, "alos1": 250, "alos2": 100}.get(sensor.name, 50)
    baseline = rng.normal(0, spread, n)
    if sensor.name == "alos1":  # the orbit drifted by kilometres and was brought back
        baseline = baseline + 3000 * ((dates.to_julian_date().to_numpy() / 730) % 1.0)
    baseline = np.round(baseline - baseline[0], 1)
    pairs = _summer_chain(dates) if sensor.frame else _small_baselines(sensor, dates, baseline)
    return Network(sensor, dates, baseline, pairs)


def _calendar(name: str, rng: np.random.Generator, size: str) -> pd.DatetimeIndex:
    """Acquisition dates; nothing between May 2011 and October 2014."""
    spans = {
        "ers": ("1997-05-08", "2000-10-20", 35, (140, 290), rng.integers(7, 11)),
        "envisat": ("2003-05-12", "2010-10-15", 35, (140, 290), rng.integers(17, 25)),
        "alos1": ("2007-01-15", "2011-03-15", 46, (130, 300), rng.integers(10, 15)),
        "alos2": ("2014-11-08", "2022-11-20", 14, (0, 366), rng.integers(16, 23)),
    }
    if name in spans:
        start, end, step, season, count = spans[name]
        first = pd.Timestamp(start) + pd.Timedelta(days=int(rng.integers(0, 14)))
        every = pd.date_range(first, end, freq=f"{step}D")
        doy = every.day_of_year.to_numpy()
        every = every[(doy >= season[0]) & (doy <= season[1])]
        weight = np.ones(len(every))
        if name == "alos2":  # summer-heavy archive
            weight = np.where(frozen(every), 0.25, 1.0)
        return _spread(every, int(count), weight, rng)
    first = {"s1_desc": "2015-03-06", "s1_asc": "2017-03-03"}[name]
    every = pd.date_range(first, "2023-12-31", freq="12D")
    number = np.arange(len(every))
    doy = every.day_of_year.to_numpy()
    thaw = (doy >= 135) & (doy <= 290)
    keep = np.ones(len(every), bool)
    if size == "quick":
        keep = thaw | (number % 2 == 0)
        if name == "s1_asc":
            keep = np.where(thaw, number % 2 == 0, number % 4 == 0)
    keep &= rng.random(len(every)) > 0.03
    return every[keep]


def _spread(every: pd.DatetimeIndex, count: int, weight: np.ndarray, rng) -> pd.DatetimeIndex:
    """Pick `count` dates at random, at least one in each year that has any."""
    years = every.year.to_numpy()
    must = [rng.choice(np.flatnonzero(years == y), p=_unit(weight[years == y])) for y in np.unique(years)]
    rest = np.setdiff1d(np.arange(len(every)), must)
    more = max(0, min(count - len(must), len(rest)))
    extra = rng.choice(rest, more, replace=False, p=_unit(weight[rest])) if more else []
    return every[np.sort(np.concatenate([must, extra]).astype(int))]


def _unit(weight: np.ndarray) -> np.ndarray:
    return weight / weight.sum()


def _summer_chain(dates: pd.DatetimeIndex, depth: int = 3) -> np.ndarray:
    """Each date with its next three, and late summers with those one to three years later."""
    n = len(dates)
    pairs = {(i, j) for i in range(n) for j in range(i + 1, min(i + depth + 1, n))}
    year, doy = dates.year.to_numpy(), dates.day_of_year.to_numpy()
    late = np.flatnonzero((doy >= 227) & (doy <= 273))
    for i in late:
        for gap in (1, 2, 3):
            other = late[(year[late] == year[i] + gap) & (np.abs(doy[late] - doy[i]) <= 20)]
            nearest = other[np.argsort(np.abs(doy[other] - doy[i]), kind="stable")][:2]
            pairs |= {(int(i), int(j)) for j in nearest}
    return np.array(sorted(pairs))


def _small_baselines(sensor: Sensor, dates: pd.DatetimeIndex, baseline: np.ndarray) -> np.ndarray:
    """All pairs short in time and space, and the cheapest ones that keep all dates joined."""
    years = dates.to_julian_date().to_numpy() / 365.25
    i, j = np.triu_indices(len(dates), 1)
    dt, db = years[j] - years[i], np.abs(baseline[j] - baseline[i])
    short = (dt <= sensor.max_years) & (db <= sensor.max_baseline_m)
    cost = np.zeros((len(dates), len(dates)))
    cost[i, j] = dt / sensor.max_years + db / sensor.max_baseline_m + 1e-6
    tree = minimum_spanning_tree(cost).nonzero()
    pairs = set(zip(i[short].tolist(), j[short].tolist(), strict=True))
    pairs |= {(int(min(a, b)), int(max(a, b))) for a, b in zip(*tree, strict=True)}
    return np.array(sorted(pairs))


def multilook(coherence: np.ndarray, looks: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Phase noise (rad) and estimated coherence of a multilooked pair of circular Gaussian signals.

    An exact draw from the complex Wishart distribution (Bartlett's decomposition), so noise and the bias and scatter
    of estimated coherence belong together; chi-square variables by the Wilson-Hilferty cube.
    """
    g = np.asarray(coherence, np.float32)
    z = rng.standard_normal((4, *g.shape), dtype=np.float32)
    k1, k2 = np.float32(looks), np.float32(looks - 1)
    t1 = k1 * np.maximum(1 - 1 / (9 * k1) + z[0] / (3 * np.sqrt(k1)), 0.05) ** 3
    t2 = k2 * np.maximum(1 - 1 / (9 * k2) + z[1] / (3 * np.sqrt(k2)), 0.05) ** 3
    rest = np.sqrt(1 - g * g)
    half = np.float32(np.sqrt(0.5))
    re = g * np.sqrt(t1) + rest * half * z[2]
    im = rest * half * z[3]
    power = re * re + im * im
    return np.arctan2(im, re), np.sqrt(power / (power + rest * rest * t2))


class Raster:
    """Spatially correlated draws on a grid."""

    def __init__(self, grid: Grid, rng: np.random.Generator):
        self.grid, self.rng = grid, rng
        ny, nx = grid.shape
        self.y, self.x = np.mgrid[0:ny, 0:nx] * grid.cell_km
        self.pool = [
            random_field(rng, grid.shape, grid.cell_km, length_km=1.5).astype("f4") for _ in range(16)
        ]

    def turbulence(self) -> np.ndarray:
        """One date's turbulent delay, sd 1 over the scene; power law between -8/3 and -11/3."""
        exponent = self.rng.uniform(8 / 3, 11 / 3)
        return random_field(self.rng, self.grid.shape, self.grid.cell_km, exponent=exponent).ravel()

    def smooth(self) -> np.ndarray:
        """One pair's smooth field, sd 1: a shifted copy of one of a pool."""
        ny, nx = self.grid.shape
        field = self.pool[self.rng.integers(len(self.pool))]
        field = np.roll(field, (self.rng.integers(ny), self.rng.integers(nx)), (0, 1))
        return field.ravel() * (1 if self.rng.random() < 0.5 else -1)

    @staticmethod
    def lose(score: np.ndarray, share: float) -> np.ndarray:
        """True for the `share` of pixels with the lowest score."""
        return score < np.quantile(score, share)

    def quadratic(self) -> np.ndarray:
        """A smooth quadratic surface, sd 1 over the scene."""
        x, y = self.x / self.x.max() - 0.5, self.y / self.y.max() - 0.5
        c = self.rng.normal(size=5) * (1, 1, 1.5, 1.5, 1.5)
        field = c[0] * x + c[1] * y + c[2] * x * x + c[3] * y * y + c[4] * x * y
        return ((field - field.mean()) / field.std()).ravel()

    def cycles(self, share: float, weak: np.ndarray) -> np.ndarray:
        """Whole cycles of unwrapping error: discs of 1 to 3 km, placed where coherence is weak."""
        out = np.zeros(self.x.size, np.int8)
        area = self.x.size * self.grid.cell_km**2
        for _ in range(self.rng.poisson(share * area / 3.3)):
            radius, sign = self.rng.uniform(0.5, 1.5), self.rng.choice([-1, 1])
            tries = self.rng.integers(weak.size, size=6)
            centre = tries[np.argmax(weak[tries])]
            near = (self.x - self.x.flat[centre]) ** 2 + (self.y - self.y.flat[centre]) ** 2 < radius**2
            out[near.ravel()] = sign
        return out


class Independent:
    """The same draws for pixels that do not know each other."""

    def __init__(self, n: int, rng: np.random.Generator):
        self.n, self.rng = n, rng

    def turbulence(self) -> np.ndarray:
        """Delay of each pixel, sd 1."""
        return self.rng.standard_normal(self.n)

    smooth = turbulence

    @staticmethod
    def lose(score: np.ndarray, share: float) -> np.ndarray:
        """True with probability `share`; the score of sd 1 decides."""
        return score < norm.ppf(share)

    def cycles(self, share: float, weak: np.ndarray) -> np.ndarray:
        """Each pixel is off by one cycle with probability `share`."""
        sign = self.rng.choice(np.array([-1, 1], np.int8), self.n)
        return sign * (self.rng.random(self.n) < share)


@dataclass(frozen=True)
class Surface:
    """What the radar meets, arrays (pixel,): fields of terrain.scene plus the sensor's geometry."""

    fields: dict[str, np.ndarray]
    incidence: np.ndarray
    los: tuple[np.ndarray, np.ndarray, np.ndarray]
    shadow: np.ndarray


def surface(sensor: Sensor, fields: dict[str, np.ndarray], x: np.ndarray) -> Surface:
    """Geometry of a sensor over pixels at longitudes `x` (any shape, as the fields)."""
    flat = {name: np.ravel(value) for name, value in fields.items()}
    incidence = np.ravel(np.broadcast_to(sensor.incidence(x), fields["elevation"].shape))
    los = sensor.los(incidence)
    facing = flat["slope_east"] * los[0] + flat["slope_north"] * los[1]
    tilt = np.degrees(np.arctan(-facing / np.sin(np.radians(incidence))))  # slope toward the satellite
    shadow = (tilt > incidence - 4) | (tilt < -(90 - incidence))
    return Surface(flat, incidence, los, shadow)


def coherence(net: Network, ground: Surface, p: Physics) -> Iterator[np.ndarray]:
    """True coherence of each pair, (pixel,) float32."""
    f, sensor = ground.fields, net.sensor
    band = sensor.band.lower()
    start, floor, tau = (p[f"coherence_{what}_{band}"] for what in ("0", "inf", "tau"))
    rock = f["rock"]
    variation = np.exp(0.18 * f["scatter"] - 0.15 * (f["wetness"] - 0.5))
    g0 = np.clip((start + (0.93 - start) * rock) * (1 - (1 - rock) * 0.1 * (1 - variation)), 0.05, 0.97)
    g1 = np.clip((floor + (0.55 if band == "c" else 0.3) * rock) * variation, 0.02, 0.9)
    cold = frozen(net.dates)
    broken = np.maximum(f["pit"], f["heap"])
    for (i, j), days, b in zip(net.pairs, net.days, net.pair_baseline, strict=True):
        if band == "l":
            season = p.winter_factor_l if cold[i] or cold[j] else 1.0
        else:
            season = (1.0, p.spanning_factor_c, p.winter_factor_c)[int(cold[i]) + int(cold[j])]
        season = season + (1 - season) * 0.6 * rock  # rock keeps more of its coherence under thin snow
        g = ((g0 - g1) * np.exp(-days / (tau * (1 + 2 * rock))) + g1) * season
        g = g * max(0.0, 1 - abs(b) / sensor.critical_baseline_m)
        if net.dates[j].year >= 2003:
            g = g * (1 - 0.85 * broken)
        yield np.clip(g, 0.01, 0.98).astype("f4")


#: fading of an n-step pair relative to the sum of 12-day steps
A_N = np.array([1.0, 0.494, 0.297, 0.240, 0.220])


def fading_factor(days: np.ndarray) -> np.ndarray:
    """Share of the summed 12-day biases that a longer pair keeps; gone after about 200 days."""
    steps = np.asarray(days, float) / 12.0
    short = np.interp(steps, np.arange(1, 6), A_N)
    return np.where(steps <= 5, short, A_N[-1] * np.exp(-(steps - 5) / 5.0))


def _fading_course(dates: pd.DatetimeIndex, p: Physics) -> np.ndarray:
    """Accumulated false motion (mm) of 12-day steps on meadow; none while frozen."""
    days = pd.date_range(dates[0], dates[-1], freq="D")
    doy = days.day_of_year.to_numpy()
    season = np.clip((doy - 115) / 25, 0, 1) * np.clip((305 - doy) / 25, 0, 1)
    total = np.cumsum(season) * p.fading_mm_12d / 12
    return total[days.get_indexer(dates)]


def delays(net: Network, draw, ground: Surface, p: Physics) -> np.ndarray:
    """Delay of each date (date, pixel) in mm, positive away from the satellite."""
    rng, dates = draw.rng, net.dates
    height = (ground.fields["elevation"] - 4000) / 1000
    doy = dates.day_of_year.to_numpy()
    out = np.empty((len(dates), height.size), "f4")
    for k in range(len(dates)):
        slope = p.stratified_annual_mm_km * np.cos(2 * np.pi * (doy[k] - 205) / 365.25)
        slope += p.stratified_random_mm_km * rng.normal()
        out[k] = p.turbulence_mm * rng.uniform(0.7, 1.3) * draw.turbulence() - slope * height
        if net.sensor.band == "L":
            out[k] += p.ionosphere_mm * rng.uniform(0.5, 1.5) * draw.quadratic()
    return out


def observe(
    net: Network,
    ground: Surface,
    motion: np.ndarray,
    delay: np.ndarray | None,
    draw,
    p: Physics,
    keep: int | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Observe every pair.

    Parameters
    ----------
    motion : ndarray, (date, pixel)
        Displacement toward the satellite in mm.
    delay : ndarray, (date, pixel), or None
        mm, positive away; None observes without any error.
    draw : Raster or Independent
        Spatial character of the errors.
    keep : int, optional
        A pixel never lost (MintPy's reference pixel).

    Yields
    ------
    phase : ndarray, (pixel,) rad, positive away; NaN where lost
    coherence : ndarray, (pixel,) estimated, 0-1
    cycles : ndarray, (pixel,) whole cycles of unwrapping error in phase
    true : ndarray, (pixel,) true coherence
    """
    sensor, f, rng = net.sensor, ground.fields, draw.rng
    per_mm = 4e-3 * np.pi / sensor.wavelength_m
    slant_m = sensor.range_km * 1e3 * np.sin(np.radians(ground.incidence))
    dem = per_mm * 1e3 * p.dem_error_m * f["dem_error"] / slant_m
    meadow = (1 - f["rock"]) * np.clip(f["vegetation"] / 0.5, 0, 1.3)
    fading = _fading_course(net.dates, p) if sensor.band == "C" else np.zeros(len(net.dates))
    share_of = fading_factor(net.days)
    cold = frozen(net.dates)
    hardy = 0.8 * f["hardy"] + 2.2 * f["rock"]
    for k, ((i, j), true) in enumerate(zip(net.pairs, coherence(net, ground, p), strict=True)):
        phase = -per_mm * (motion[j] - motion[i])
        if delay is None:
            yield phase, true, np.zeros(phase.size, np.int8), true
            continue
        winter = bool(cold[i] or cold[j])
        scatter, estimated = multilook(true, sensor.looks, rng)
        phase = phase + scatter + per_mm * (delay[j] - delay[i]) + dem * net.pair_baseline[k]
        phase = phase - per_mm * share_of[k] * (fading[j] - fading[i]) * meadow
        if winter and sensor.band == "C":
            loss = np.clip(p.winter_loss + rng.uniform(-0.2, 0.2), 0, 0.99) if p.winter_loss > 0 else 0.0
            lost = draw.lose(0.6 * draw.smooth() + hardy, loss)
        else:
            lost = true * np.exp(0.2 * draw.smooth()) < p.coherence_floor
        in_c = p.unwrap_share_winter if winter else p.unwrap_share
        share = p.unwrap_share_l if sensor.band == "L" else in_c
        cycles = draw.cycles(share, 1 - true)
        phase = phase + 2 * np.pi * cycles
        if sensor.frame and rng.random() < p.frame_offset_share:
            phase = phase + 2 * np.pi * rng.choice([-1, 1])
        lost |= ground.shadow
        if keep is not None:
            lost[keep] = False
        yield np.where(lost, np.nan, phase).astype("f4"), estimated, cycles, true
