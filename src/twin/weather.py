"""Weather of the twin: one daily series at 4000 m that ground, water and the observers share."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd
import xarray as xr
from scipy.signal import lfilter

from .physics import Physics, Switches

REFERENCE_HEIGHT_M = 4000.0
START, END = "1983-01-01", "2023-12-31"


def stream(seed: int, part: str) -> np.random.Generator:
    """Random generator of one part: the same whatever other parts draw."""
    return np.random.default_rng([int(seed), zlib.crc32(part.encode())])


def ar1(rng: np.random.Generator, n: int, rho: float, sd: float) -> np.ndarray:
    """Stationary AR(1) series of `n` values with standard deviation `sd`."""
    noise = rng.normal(0.0, sd * np.sqrt(1 - rho**2), n)
    noise[0] = rng.normal(0.0, sd)
    return lfilter([1.0], [1.0, -rho], noise)


def weather(seed: int, p: Physics, on: Switches) -> xr.Dataset:
    """Daily air temperature (degC, at 4000 m) and precipitation (mm/day) 1983-2023.

    Returns
    -------
    Dataset
        temperature, precipitation (time); the truth, not what is observed.
    """
    rng = stream(seed, "weather")
    time = pd.date_range(START, END, freq="D")
    year, doy = time.year.to_numpy(), time.day_of_year.to_numpy()
    index = year - year[0]
    n = index[-1] + 1
    phase = p.phase_sd_days * rng.normal(size=n)
    level = p.year_sd_c * rng.normal(size=n)
    hot = rng.random(n) < p.bad_year_probability
    summer = np.exp(-0.5 * ((doy - 197) / 25.0) ** 2)
    # winter weather varies more than summer weather (sd 4 against 2.3 degC in the upper Heihe)
    spread = 1.0 + 0.28 * np.cos(2 * np.pi * (doy - 15) / 365.25)
    temperature = (
        p.mean_air_c
        + p.seasonal_c * np.cos(2 * np.pi * (doy - p.warmest_doy - phase[index]) / 365.25)
        + level[index]
        + hot[index] * p.bad_year_c * summer
        + spread * ar1(rng, len(time), p.daily_ar1, p.daily_sd_c)
    )
    if on.warming:
        temperature = temperature + p.warming_c_yr * (year + doy / 365.25 - 2016.5)
    precipitation = _precipitation(rng, doy, p)
    data = {"temperature": ("time", temperature), "precipitation": ("time", precipitation)}
    return xr.Dataset(data, coords={"time": time}, attrs={"height_m": REFERENCE_HEIGHT_M})


def _precipitation(rng: np.random.Generator, doy: np.ndarray, p: Physics) -> np.ndarray:
    """Poisson storms with a monsoon season, scaled so that the mean annual sum is as stated (mm/day)."""
    season = np.exp(-0.5 * ((doy - 205) / 42.0) ** 2)
    rate = p.storm_per_day * (0.18 + 0.95 * season)
    depth = rng.gamma(2.5, 1.0, len(doy)) * (0.45 + 0.75 * season)
    wet = rng.random(len(doy)) < rate
    expected = np.mean(rate * 2.5 * (0.45 + 0.75 * season)) * 365.25
    storms = wet * depth * p.precipitation_mm_yr / expected
    # over thousands of km2 a storm takes more than a calendar day
    return 0.65 * storms + 0.35 * np.roll(storms, 1)


def snow_depth(temperature: np.ndarray, precipitation: np.ndarray, p: Physics) -> tuple:
    """Snow depth (m) and melt (mm/day) by degree days.

    Parameters
    ----------
    temperature, precipitation : ndarray, (time,) or (time, n)
        degC and mm/day.
    """
    temperature = np.asarray(temperature, float)
    fall = np.where(temperature < 0.5, precipitation, 0.0) * (1 - p.snow_loss)
    potential = p.melt_mm_c_day * np.clip(temperature, 0, None)
    cap = p.snow_depth_max_m * p.snow_density  # mm of water
    swe, melt = np.empty_like(temperature), np.empty_like(temperature)
    store = np.zeros(temperature.shape[1:])
    for day in range(len(temperature)):
        store = np.minimum(store + fall[day], cap)
        melt[day] = np.minimum(store, potential[day])
        store = store - melt[day]
        swe[day] = store
    return swe / p.snow_density, melt


def observed_climate(true: xr.Dataset, seed: int, p: Physics, on: Switches) -> xr.Dataset:
    """What a reanalysis would report: biased, at its own height, with its own lapse rate and noise."""
    rng = stream(seed, "observed climate")
    n = true.sizes["time"]
    doy = true.time.dt.dayofyear.to_numpy()
    at_height = true.temperature + p.lapse_c_km * (REFERENCE_HEIGHT_M - p.observed_height_m) / 1000
    error = np.zeros(n)
    rain_error = np.ones(n)
    if on.noise:
        error = p.observed_bias_c + 0.4 * np.cos(2 * np.pi * (doy - 20) / 365.25)
        error = error + ar1(rng, n, 0.5, p.observed_noise_c)
        rain_error = 0.9 * np.exp(rng.normal(0, 0.35, n) - 0.35**2 / 2)
    out = xr.Dataset(coords={"time": true.time})
    out["temperature_2m"] = ("time", np.round(at_height.to_numpy() + error, 2).astype("f4"))
    out["precipitation"] = ("time", np.round(true.precipitation.to_numpy() * rain_error, 2).astype("f4"))
    at = {"height_m": p.observed_height_m}
    place = at | {"lapse_rate_c_km": p.observed_lapse_c_km}
    air = {
        "units": "degC",
        "long_name": "daily mean air temperature at 2 m",
        "standard_name": "air_temperature",
    }
    out.temperature_2m.attrs = air | place | {"cell_methods": "time: mean"}
    rain = {"units": "mm day-1", "long_name": "daily precipitation"}
    out.precipitation.attrs = rain | at | {"cell_methods": "time: sum"}
    out.time.attrs = {"standard_name": "time", "long_name": "day"}
    title = "Daily climate of the simulated basin, as a reanalysis would see it"
    out.attrs = {"Conventions": "CF-1.8", "title": title, "source": "twin"} | place
    return out
