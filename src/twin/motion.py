"""How every pixel of the twin moves: a few hundred series in time, weighted by what a pixel is made of.

Position of a pixel = sum over basis series of (weight of the pixel) x (series). Rates, seasonal drops and pairs are
linear in position, so every truth is the exact functional of daily motion, taken on the series.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

from .ground import Table
from .physics import Physics, Switches

STEP_DATE = "2016-08-01"
MINING_START, MINING_FULL, RESTORATION = 2003.0, 2010.0, 2020.6
WINDOWS = {
    "early": ("05-25", "07-05"),
    "mid": ("07-05", "08-09"),
    "june_august": ("06-20", "08-29"),
    "july_september": ("07-25", "09-09"),
    "june_september": ("06-10", "09-30"),
    "late": ("08-20", "09-30"),
}
EPOCHS = {
    "before": ("1997-01-01", "2002-12-31"),
    "during": ("2003-01-01", "2014-12-31"),
    "during_observed": ("2003-01-01", "2011-04-30"),
    "after": ("2015-01-01", "2023-12-31"),
}


def decimal_year(time) -> np.ndarray:
    """Years with fraction."""
    index = pd.DatetimeIndex(time)
    return index.year.to_numpy() + (index.day_of_year.to_numpy() - 0.5) / 365.25


def mining_course(time, p: Physics, on: Switches) -> np.ndarray:
    """Strength of mining's effect on the ground, 0 to 1: logistic 2003-2010, plateau, decline after restoration."""
    t = decimal_year(time)
    middle, width = (MINING_START + MINING_FULL) / 2, (MINING_FULL - MINING_START) / 7
    course = 1 / (1 + np.exp(-(t - middle) / width))
    course = np.where(t < MINING_START - 1, 0.0, course)
    fall = p.restoration_drop * np.clip((t - RESTORATION) / 1.5, 0, 1)
    return course * (1 - fall) * on.mining


def warming_course(time, on: Switches) -> np.ndarray:
    """Strength of warming's effect on ground ice: 0.6 in the 1990s rising to 1.1."""
    t = decimal_year(time)
    return np.clip(0.6 + 0.5 * (t - 1995) / 28, 0.4, 1.1) * on.warming


@dataclass(frozen=True)
class Basis:
    """Daily series (basis, day) in mm, float32."""

    time: pd.DatetimeIndex
    series: np.ndarray
    table: Table
    mining: np.ndarray

    @property
    def columns(self) -> int:
        """Number of soil columns in one of the two tables."""
        return self.table.motion.shape[1]

    def at(self, dates) -> np.ndarray:
        """Series at dates, (basis, date)."""
        return self.series[:, self.time.get_indexer(pd.DatetimeIndex(dates))]


NAMES = ("climate", "mining", "step", "creep", "extreme", "albedo")


def basis(weather: xr.Dataset, table: Table, p: Physics, on: Switches) -> Basis:
    """All series: undisturbed columns, extra motion of disturbed columns, growing drop, and the kinematic terms."""
    time = weather.time.to_index()
    mining = mining_course(time, p, on)
    quiet, disturbed = table.motion
    t = decimal_year(time)
    growth = np.clip(t - MINING_START, 0, None)
    # ground ice at the permafrost table melts while the ground above is thawed
    thawed = np.clip(-quiet.mean(0), 0, None)
    thawed = thawed / thawed.mean()
    season = 1 - p.loss_season_share + p.loss_season_share * thawed
    creep_season = 1 - p.creep_thaw_share + p.creep_thaw_share * thawed
    day = 1 / 365.25
    # stripped and ponded ground stays so: the seasonal motion does not follow the restoration
    disturbance = np.maximum.accumulate(mining).astype("f4")
    step = (time >= STEP_DATE).astype(float)
    kinematic = [
        -np.cumsum(warming_course(time, on) * season) * day,
        -np.cumsum(mining * season) * day,
        step * on.transient,
        np.cumsum(creep_season) * day,
        np.cumsum(mining) * day,
        -np.cumsum(mining * season) * day,
    ]
    columns = [quiet, (disturbed - quiet) * disturbance, quiet * growth.astype("f4")]
    series = np.concatenate([*columns, np.array(kinematic, "f4")]).astype("f4")
    return Basis(time, series, table, mining)


def cold_factor(elevation: np.ndarray, p: Physics) -> np.ndarray:
    """Colder (higher) permafrost loses its ice more slowly."""
    return np.clip(1 - p.cold_effect * (elevation - 3700) / 1000, 0.2, 1.1)


def moisture_factor(wetness: np.ndarray, p: Physics) -> np.ndarray:
    """Wet ground loses its ice somewhat faster."""
    return 1 + p.moisture_effect * (wetness - 0.5)


def loss(ground: dict[str, np.ndarray], p: Physics) -> dict[str, np.ndarray]:
    """Long-term subsidence (mm/yr, positive) at full strength: climate, mining and darkening."""
    icy = ground["ice"] * ground["permafrost"] * (1 - ground["rock"])
    wet = icy * cold_factor(ground["elevation"], p) * moisture_factor(ground["wetness"], p)
    return {
        "climate": p.climate_rate_mm_yr * wet,
        "mining": p.mining_rate_mm_yr * wet * np.exp(-ground["distance"] / p.mining_reach_km),
        "albedo": p.albedo_rate_mm_yr * wet * np.clip(-ground["darkening"], 0, None) / 0.08,
    }


@dataclass(frozen=True)
class Pixels:
    """Weights of pixels: sparse (pixel, basis) for up; horizontal motion is creep alone."""

    up: sparse.csr_matrix
    east: np.ndarray
    north: np.ndarray
    transient: np.ndarray


def pixels(ground: dict[str, np.ndarray], base: Basis, p: Physics, on: Switches) -> Pixels:
    """Weights of every pixel of `ground` (fields of any common shape, see terrain.master)."""
    flat = {name: np.ravel(value) for name, value in ground.items()}
    n, nc = flat["elevation"].size, base.columns
    column, weight = base.table.weights(flat["elevation"], flat["ice"], flat["wetness"])
    weight = weight * ((1 - flat["rock"]) * np.exp(p.local_sd * flat["local"]))[:, None]
    near = np.exp(-flat["distance"] / p.disturbed_reach_km)[:, None]
    blocks = [(column, weight), (column + nc, weight * near)]
    if p.drop_growth_mm_yr:
        mean_drop = _mean_drop(base)
        blocks.append(
            (column + 2 * nc, weight * near * p.drop_growth_mm_yr / np.maximum(mean_drop[column], 5.0))
        )
    rates = loss(flat, p)
    tilt = np.hypot(flat["slope_east"], flat["slope_north"])
    slope = np.degrees(np.arctan(tilt))
    creep = p.creep_mm_yr * np.clip((slope - p.creep_slope_deg) / 8.0, 0, 1) * (1 - flat["reference"])
    with np.errstate(invalid="ignore", divide="ignore"):
        east = np.where(tilt > 0, -flat["slope_east"] / tilt, 0) * creep * np.cos(np.radians(slope))
        north = np.where(tilt > 0, -flat["slope_north"] / tilt, 0) * creep * np.cos(np.radians(slope))
    cut = np.quantile(flat["patch"], 1 - p.transient_share) if n > 1 else np.inf
    transient = (flat["patch"] > cut) & (flat["rock"] < 0.5)
    extreme = flat["pit"] * np.clip(-90 + 40 * flat["extreme"], -170, 75)
    extreme = extreme + flat["heap"] * np.clip(-35 + 50 * flat["extreme"], -170, 75)
    amounts = [
        rates["climate"],
        rates["mining"],
        p.transient_mm * transient,
        -creep * np.sin(np.radians(slope)),
        extreme,
        rates["albedo"] * on.albedo_effect,
    ]
    rows = np.arange(n)
    kin = [(np.full((n, 1), 3 * nc + i), np.asarray(a, float)[:, None]) for i, a in enumerate(amounts)]
    index = np.concatenate([c for c, _ in blocks + kin], 1)
    value = np.concatenate([w for _, w in blocks + kin], 1)
    row = np.repeat(rows, index.shape[1])
    up = sparse.csr_matrix((value.ravel(), (row, index.ravel())), shape=(n, base.series.shape[0]), dtype="f4")
    up.eliminate_zeros()
    return Pixels(up, east, north, transient)


def _mean_drop(base: Basis) -> np.ndarray:
    quiet = base.table.motion[0]
    year = base.time.year.to_numpy()
    starts = np.flatnonzero(np.diff(year, prepend=0))
    span = np.maximum.reduceat(quiet, starts, axis=1) - np.minimum.reduceat(quiet, starts, axis=1)
    return span[:, 14:20].mean(1)


def creep_row(base: Basis) -> int:
    """Row of the creep series in the basis."""
    return base.series.shape[0] - len(NAMES) + NAMES.index("creep")


def displacement(pix: Pixels, base: Basis, dates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up, east and north (date, pixel) in mm since the first day of the weather."""
    at = base.at(dates)
    creep = at[creep_row(base)][:, None]
    return (pix.up @ at).T, creep * pix.east, creep * pix.north


def line_of_sight(pix: Pixels, base: Basis, dates, los) -> np.ndarray:
    """Displacement toward the satellite (date, pixel) in mm, `los` = (east, north, up)."""
    up, east, north = displacement(pix, base, dates)
    return los[2] * up + los[0] * east + los[1] * north


def epoch_rates(pix: Pixels, base: Basis) -> list[np.ndarray]:
    """Vertical rate (mm/yr) of every pixel in each of EPOCHS."""
    spans = [rate_functional(base.time, *span) for span in EPOCHS.values()]
    return [project(pix, base, span, (0.0, 0.0, 1.0)) for span in spans]


def project(pix: Pixels, base: Basis, functional: np.ndarray, los) -> np.ndarray:
    """Apply a functional of daily motion (day,) and project to a line of sight (east, north, up)."""
    value = base.series @ functional
    creep = value[creep_row(base)]
    return los[2] * (pix.up @ value) + creep * (los[0] * pix.east + los[1] * pix.north)


def rate_functional(time: pd.DatetimeIndex, start, end) -> np.ndarray:
    """Weights over days whose sum with a series is the coefficient of t in the daily fit of linear + annual."""
    inside = np.flatnonzero((time >= pd.Timestamp(start)) & (time <= pd.Timestamp(end)))
    t = (time[inside] - time[inside[0]]).days.to_numpy() / 365.25
    design = np.c_[t - t.mean(), np.ones_like(t), np.sin(2 * np.pi * t), np.cos(2 * np.pi * t)]
    out = np.zeros(len(time))
    out[inside] = np.linalg.pinv(design)[0]
    return out


def late_summer_functional(time: pd.DatetimeIndex, years, window=("08-15", "09-30")) -> np.ndarray:
    """Weights of the least-squares slope through the yearly means of a late-summer window."""
    years = np.asarray(list(years))
    slope = (years - years.mean()) / np.sum((years - years.mean()) ** 2)
    out = np.zeros(len(time))
    for year, weight in zip(years, slope, strict=True):
        inside = (time >= f"{year}-{window[0]}") & (time <= f"{year}-{window[1]}")
        out[inside] = weight / inside.sum()
    return out


def seasonal(pix: Pixels, base: Basis, years) -> tuple[np.ndarray, np.ndarray]:
    """Thaw-season subsidence (year, pixel; mm, positive down) and the fraction of it in each of WINDOWS.

    Subsidence is the highest position of March to June less the lowest of July to November, of the vertical motion.
    The fraction (year, window, pixel) is NaN where the season's subsidence is below 2 mm.
    """
    drop, part = [], []
    for year in years:
        spring = base.at(pd.date_range(f"{year}-03-15", f"{year}-06-30", freq="3D"))
        autumn = base.at(pd.date_range(f"{year}-07-15", f"{year}-11-30", freq="3D"))
        drop.append((pix.up @ spring).max(1) - (pix.up @ autumn).min(1))
        ends = [base.at([f"{year}-{a}", f"{year}-{b}"]) for a, b in WINDOWS.values()]
        part.append([pix.up @ (e[:, 0] - e[:, 1]) for e in ends])
    drop, part = np.array(drop, "f4"), np.array(part, "f4")
    with np.errstate(invalid="ignore", divide="ignore"):
        return drop, np.where(drop[:, None] > 2.0, part / drop[:, None], np.nan)
