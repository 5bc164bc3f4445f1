"""Streamflow of the mined and the control basin: a nonlinear store fed by the twin's weather."""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd
import xarray as xr

from .motion import mining_course
from .physics import Physics, Switches
from .weather import REFERENCE_HEIGHT_M, ar1, snow_depth, stream

BASINS = ("mined", "control")
M3S_PER_MM_KM2 = 1 / 86.4


@numba.njit(cache=True)
def _drain(recharge, quick, a, b, q0, steps):
    """Flow (mm/day, daily means) of a store with -dQ/dt = a Q^b - a Q^(b-1) R, and a fast path of 2 days."""
    days = recharge.size
    out = np.empty(days)
    q, fast = q0, 0.0
    dt = 1.0 / steps
    for day in range(days):
        total = 0.0
        for _ in range(steps):
            # exact in the outflow for fixed sensitivity: never negative, stable at any flow
            g = a[day] * q ** (b[day] - 1)
            q = recharge[day] + (q - recharge[day]) * np.exp(-g * dt)
            q = max(q, 1e-4)
            fast += (quick[day] - fast / 2.0) * dt
            total += q + fast / 2.0
        out[day] = total / steps
    return out


def effective(weather: xr.Dataset, mean_height: float, p: Physics) -> tuple:
    """Water that passes the soil (mm/day), air temperature (degC) and rain (mm/day) of a basin."""
    air = weather.temperature.to_numpy() - p.lapse_c_km * (mean_height - REFERENCE_HEIGHT_M) / 1000
    rain_all = weather.precipitation.to_numpy()
    _, melt = snow_depth(air, rain_all, p)
    rain = np.where(air >= 0.5, rain_all, 0.0)
    smooth = pd.Series(air).rolling(5, min_periods=1).mean().to_numpy()
    demand = np.clip(p.evaporation_mm_c_day * (smooth + 5), 0, None)
    out = np.zeros(len(air))
    deficit, capacity = 5.0, 18.0
    for day in range(len(air)):
        deficit = min(deficit + demand[day] * (1 - 0.75 * deficit / capacity), capacity)
        deficit -= rain[day] + melt[day]
        if deficit < 0:
            out[day], deficit = -deficit, 0.0
    return out, air, rain


def basin(weather: xr.Dataset, name: str, seed: int, p: Physics, on: Switches) -> tuple:
    """Daily flow of one basin and its true recession events.

    Returns
    -------
    Dataset
        discharge_true, discharge (m3/s, what the gauge reports), ice (bool), ln_k_ref and b as intended (without the
        scatter of years and events), on daily time.
    DataFrame
        start, end, k_ref (1/day at q_ref), b of each true event: the spells between effective rain.
    """
    rng = stream(seed, f"water {name}")
    mined = name == "mined"
    area = p.basin_km2 if mined else p.control_km2
    passed, air, _ = effective(weather, 4000.0 if mined else 4100.0, p)
    passed = passed * (1.0 if mined else 0.95)
    time = weather.time.to_index()
    years = time.year.to_numpy()
    course = mining_course(time, p, on)
    course = np.maximum.accumulate(course)  # pits stay: water does not follow the restoration
    climate = np.clip((years + time.day_of_year / 365.25 - 1998) / 20, 0, 1) * on.warming
    ln_k = np.log(p.recession_k_ref) + p.control_ln_k * climate.to_numpy() + p.mining_ln_k * course * mined
    b = np.asarray(p.recession_b + p.mining_b * course * mined)
    # a new event, and its own storage-discharge relation, begins with every effective rain after two dry days
    wet = passed > 0.5
    begin = wet & ~np.roll(wet, 1) & ~np.roll(wet, 2)
    begin[0] = True
    event = np.cumsum(begin) - 1
    year = years - years[0]
    common = ar1(rng, year[-1] + 1, p.event_ar1, p.event_sd * np.sqrt(p.event_icc))
    own = rng.normal(0, p.event_sd * np.sqrt(1 - p.event_icc), event[-1] + 1)
    ln_k_event = ln_k + common[year] + own[event]
    a = np.exp(ln_k_event) * p.q_ref_mm_day ** (1 - b)
    flow = _drain(passed * (1 - p.quick_share) + 0.02, passed * p.quick_share, a, b, 0.2, 8)
    truth = flow * area * M3S_PER_MM_KM2
    reported, ice = _gauge(truth, air, rng, p, on)
    first = np.flatnonzero(begin)
    last = np.append(first[1:], len(time)) - 1
    events = pd.DataFrame({"start": time[first], "end": time[last]})
    events = events.assign(k_ref=np.exp(ln_k_event[last]), b=b[last], basin=name)
    data = dict(discharge_true=truth, discharge=reported, ice=ice, ln_k_ref=ln_k, b=b)
    return xr.Dataset(
        {n: ("time", v) for n, v in data.items()}, coords={"time": time}, attrs={"drainage_area_km2": area}
    ), events


def _gauge(truth, air, rng, p: Physics, on: Switches) -> tuple[np.ndarray, np.ndarray]:
    """Rating error, ice, rounding to three digits, missing days."""
    frost = pd.Series(air).rolling(10, min_periods=1).mean().to_numpy()
    ice = frost < -4.0
    if not on.noise:
        return truth.copy(), ice
    error = ar1(rng, truth.size, p.rating_ar1, p.rating_sd) + ice * ar1(rng, truth.size, 0.9, 0.10)
    reported = three_digits(truth * np.exp(error))
    gap = np.zeros(truth.size, bool)
    for start in rng.integers(0, truth.size, 6):
        gap[start : start + rng.integers(2, 15)] = True
    return np.where(gap, np.nan, reported), ice


def three_digits(value: np.ndarray) -> np.ndarray:
    """Round to three significant digits, as yearbooks print."""
    value = np.asarray(value, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.floor(np.log10(np.abs(value)))
    scale = 10.0 ** (2 - np.where(np.isfinite(power), power, 0))
    return np.round(value * scale) / scale
