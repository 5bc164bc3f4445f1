"""Independent pixels without rasters, for calibration over hundreds of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import rioxarray  # noqa: F401  (the .rio accessor)
import xarray as xr

from . import ground, motion, radar
from . import weather as sky
from .physics import GROUND, WEATHER, Physics, Switches, physics


def columns(
    n: int,
    *,
    seed: int,
    winter_loss: float = 0.6,
    sensors: Sequence[str] | None = None,
    size: str = "quick",
    mining: bool = True,
    warming: bool = True,
    transient: bool = True,
    albedo_effect: bool = False,
    alos2_bias_mm_yr: float = 0.0,
    noise: bool = True,
    **constants_changed: float,
) -> dict:
    """Stacks of `n` pixels that share weather, calendars and orbits, and nothing else.

    Ground, mining and coherence vary from pixel to pixel as over the twin's permafrost meadow; all errors are drawn
    pixel by pixel. Delays are white between pixels, of sd ``columns_delay_mm`` by date: what correction leaves over.

    Parameters
    ----------
    n : int
        Number of pixels, along y.
    seed : int
        Same seed, same numbers.
    winter_loss : float
        Probability that a pixel is lost in a C-band pair with a frozen date.
    sensors : sequence of str, optional
        Only these, to save time.
    size : {"quick", "full"}
        Calendar of Sentinel-1: thinned, or every 12 days.
    mining, warming, transient, albedo_effect, alos2_bias_mm_yr, noise
        As in ``simulate``.
    **constants_changed : float
        Any name of ``constants()``.

    Returns
    -------
    dict
        sensor -> stack Dataset (pair, y, x=1) in the data model; "truth" -> Dataset with, for each sensor,
        displacement_<sensor> (time_<sensor>, y, x; LOS mm since the first date), rate_<sensor> (mm/yr) and
        cycles_<sensor> (pair_<sensor>, y, x; unwrapping errors), rate_late_summer, drop (year, y, x; mm), fraction,
        rate_up (epoch, y, x), transient; "temperature" -> observed daily air temperature (degC, attr height_m).
    """
    p = physics(winter_loss=winter_loss, **constants_changed)
    on = Switches(mining, warming, transient, albedo_effect, float(alos2_bias_mm_yr), noise)
    names = list(radar.SENSORS) if sensors is None else list(sensors)
    unknown = sorted(set(names) - set(radar.SENSORS))
    if unknown:
        raise ValueError(
            f"twin.columns: unknown sensor {', '.join(unknown)}; valid are {', '.join(radar.SENSORS)}"
        )
    weather, table = _soil(int(seed), on.warming, tuple(p[name] for name in (*WEATHER, *GROUND)))
    base = motion.basis(weather, table, p, on)
    fields = _ground(n, sky.stream(seed, "columns ground"))
    pix = motion.pixels(fields, base, p, on)
    y, x = 38.1 - 1e-4 * np.arange(n), np.array([99.2])
    truth = xr.Dataset(coords={"y": y, "x": x})
    out = {}
    for name in names:
        net = radar.network(radar.SENSORS[name], sky.stream(seed, f"calendar {name}"), size)
        stack = _stack(net, fields, pix, base, _Draw(seed, p, on))
        truth[f"cycles_{name}"] = (f"pair_{name}", "y", "x"), stack["cycles"].values
        out[name] = stack.drop_vars("cycles").assign_coords(y=y, x=x).rio.write_crs("EPSG:4326")
        _true_motion(truth, net, fields, pix, base)
    years = np.arange(1997, 2024)
    drop, share = motion.seasonal(pix, base, years)
    truth = truth.assign_coords(year=years, window=list(motion.WINDOWS), epoch=list(motion.EPOCHS))
    truth["drop"] = ("year", "y", "x"), drop[..., None], {"units": "mm"}
    truth["fraction"] = ("year", "window", "y", "x"), share[..., None], {"units": "1"}
    rates = np.array(motion.epoch_rates(pix, base))[..., None]
    truth["rate_up"] = ("epoch", "y", "x"), rates, {"units": "mm yr-1"}
    truth["transient"] = ("y", "x"), (pix.transient & on.transient)[:, None]
    for name in ("elevation", "ice", "wetness", "distance"):
        truth[name] = ("y", "x"), fields[name][:, None]
    out["truth"] = truth
    out["temperature"] = sky.observed_climate(weather, seed, p, on).temperature_2m
    return out


@lru_cache(maxsize=2)
def _soil(seed: int, warming: bool, values: tuple[float, ...]) -> tuple[xr.Dataset, ground.Table]:
    """Weather and columns of a seed, kept because calibration asks for the same ones with other radars."""
    p = Physics(zip((*WEATHER, *GROUND), values, strict=True))
    weather = sky.weather(seed, p, Switches(warming=warming))
    return weather, ground.table(weather, p)


def _ground(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Fields of `n` pixels of permafrost meadow, none of them rock, pit or reference."""
    zero = np.zeros(n)
    wetness = rng.beta(1.6, 1.6, n)
    ice = np.clip(rng.beta(2.0, 1.6, n) + 0.3 * (wetness - 0.5), 0, 1)
    out = {
        "elevation": rng.uniform(3780, 4350, n),
        "wetness": wetness,
        "ice": ice,
        "distance": rng.gamma(1.3, 4.0, n),
        "permafrost": np.ones(n),
        "vegetation": np.clip(0.35 + 0.35 * wetness + 0.05 * rng.normal(size=n), 0.02, 0.9),
        "slope_east": 0.03 * rng.normal(size=n),
        "slope_north": 0.03 * rng.normal(size=n),
    }
    for name in ("local", "scatter", "hardy", "dem_error", "patch"):
        out[name] = rng.normal(size=n)
    out["darkening"] = -0.08 * np.exp(-out["distance"] / 3.0) + 0.02 * rng.normal(size=n)
    return out | {name: zero for name in ("rock", "pit", "heap", "reference", "extreme")}


class _Draw(NamedTuple):
    """What the errors of the radars depend on."""

    seed: int
    p: Physics
    on: Switches


def _stack(net: radar.Network, fields, pix, base, by: _Draw) -> xr.Dataset:
    """Observe the pixels with one sensor; `cycles` (pair, y, x) holds the unwrapping errors."""
    sensor, n, m = net.sensor, fields["elevation"].size, len(net.pairs)
    surface = radar.surface(sensor, fields, np.full(n, 99.2))
    moved = motion.line_of_sight(pix, base, net.dates, surface.los)
    if sensor.name == "alos2":
        years = (net.dates - net.dates[0]).days.to_numpy() / 365.25
        moved = moved + by.on.alos2_bias_mm_yr * years[:, None]
    rng = sky.stream(by.seed, f"columns radar {sensor.name}")
    draw = radar.Independent(n, rng)
    delay = by.p.columns_delay_mm * rng.standard_normal((len(net.dates), n))
    phase, coherence, cycles = np.empty((m, n), "f4"), np.empty((m, n), "f4"), np.empty((m, n), np.int8)
    observed = radar.observe(net, surface, moved.astype("f4"), delay if by.on.noise else None, draw, by.p)
    for k, (one, estimated, whole, _) in enumerate(observed):
        phase[k], coherence[k], cycles[k] = one, estimated, whole
    plane = ("y", "x")
    stack = xr.Dataset(
        {
            "unwrapped_phase": (("pair", *plane), phase[..., None], {"units": "rad", "positive": "away"}),
            "coherence": (("pair", *plane), coherence[..., None], {"units": "1"}),
            "incidence_angle": (plane, surface.incidence[:, None].astype("f4"), {"units": "degree"}),
            **{
                f"los_{d}": (plane, v[:, None])
                for d, v in zip(("east", "north", "up"), surface.los, strict=True)
            },
            "height": (plane, fields["elevation"][:, None], {"units": "m"}),
            "cycles": (("pair", *plane), cycles[..., None]),
        },
        coords={
            "reference": ("pair", net.dates[net.pairs[:, 0]].to_numpy()),
            "secondary": ("pair", net.dates[net.pairs[:, 1]].to_numpy()),
            "perpendicular_baseline": ("pair", net.pair_baseline, {"units": "m"}),
        },
        attrs={
            "sensor": sensor.name,
            "band": sensor.band,
            "wavelength_m": sensor.wavelength_m,
            "heading_deg": sensor.heading_deg,
            "orbit_direction": sensor.orbit,
            "looks": sensor.looks,
        },
    )
    return stack


def _true_motion(truth: xr.Dataset, net: radar.Network, fields, pix, base) -> None:
    """Add what one sensor should have seen: displacement, rate and, for Sentinel-1 descending, late-summer rate."""
    name, first, last, plane = net.sensor.name, net.dates[0], net.dates[-1], ("y", "x")
    los = radar.surface(net.sensor, fields, np.full(fields["elevation"].size, 99.2)).los
    moved = motion.line_of_sight(pix, base, net.dates, los)
    time = f"time_{name}"
    truth.coords[time] = (time, net.dates.to_numpy())
    truth[f"displacement_{name}"] = (time, *plane), (moved - moved[0])[..., None], {"units": "mm"}
    attrs = {"units": "mm yr-1", "rate_start": f"{first:%Y-%m-%d}", "rate_end": f"{last:%Y-%m-%d}"}
    rate = motion.project(pix, base, motion.rate_functional(base.time, first, last), los)
    truth[f"rate_{name}"] = plane, rate[:, None], attrs
    if name == "s1_desc":
        late = motion.late_summer_functional(base.time, range(first.year, last.year + 1))
        truth["rate_late_summer"] = plane, motion.project(pix, base, late, los)[:, None], {"units": "mm yr-1"}
