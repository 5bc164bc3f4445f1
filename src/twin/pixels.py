"""Independent pixels without rasters, for calibration over hundreds of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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
        out[name] = _stack(name, net, fields, pix, base, truth, seed, p, on)
    years = np.arange(1997, 2024)
    drop, part = motion.seasonal(pix, base, years)
    truth = truth.assign_coords(year=years, window=list(motion.WINDOWS), epoch=list(motion.EPOCHS))
    truth["drop"] = ("year", "y", "x"), drop[..., None], {"units": "mm"}
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(drop[:, None] > 2.0, part / drop[:, None], np.nan)
    truth["fraction"] = ("year", "window", "y", "x"), share[..., None], {"units": "1"}
    rates = [
        motion.project(pix, base, motion.rate_functional(base.time, *span), (0.0, 0.0, 1.0))
        for span in motion.EPOCHS.values()
    ]
    truth["rate_up"] = ("epoch", "y", "x"), np.array(rates)[..., None], {"units": "mm yr-1"}
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


def _stack(name, net, fields, pix, base, truth: xr.Dataset, seed: int, p, on: Switches) -> xr.Dataset:
    """Observe the pixels with one sensor and add its truth."""
    n, m = fields["elevation"].size, len(net.pairs)
    surface = radar.surface(net.sensor, fields, np.full(n, 99.2))
    up, east, north = motion.displacement(pix, base, net.dates)
    los = surface.los
    moved = los[2] * up + los[0] * east + los[1] * north
    years = (net.dates - net.dates[0]).days.to_numpy() / 365.25
    seen = moved + (on.alos2_bias_mm_yr * years[:, None] if name == "alos2" else 0.0)
    rng = sky.stream(seed, f"columns radar {name}")
    draw = radar.Independent(n, rng)
    delay = p.columns_delay_mm * rng.standard_normal((len(net.dates), n))
    phase, coherence = np.empty((m, n), "f4"), np.empty((m, n), "f4")
    cycles = np.empty((m, n), np.int8)
    observed = radar.observe(
        net,
        surface,
        moved.astype("f4") if name != "alos2" else seen.astype("f4"),
        delay,
        draw,
        p,
        noise=on.noise,
    )
    for k, (one, estimated, whole, _) in enumerate(observed):
        phase[k], coherence[k], cycles[k] = one, estimated, whole
    coords = {
        "reference": ("pair", net.dates[net.pairs[:, 0]].to_numpy()),
        "secondary": ("pair", net.dates[net.pairs[:, 1]].to_numpy()),
        "perpendicular_baseline": ("pair", net.pair_baseline, {"units": "m"}),
        "y": truth.y,
        "x": truth.x,
    }
    plane = ("y", "x")
    stack = xr.Dataset(
        {
            "unwrapped_phase": (("pair", *plane), phase[..., None], {"units": "rad", "positive": "away"}),
            "coherence": (("pair", *plane), coherence[..., None], {"units": "1"}),
            "incidence_angle": (plane, surface.incidence[:, None].astype("f4"), {"units": "degree"}),
            "los_east": (plane, los[0][:, None]),
            "los_north": (plane, los[1][:, None]),
            "los_up": (plane, los[2][:, None]),
            "height": (plane, fields["elevation"][:, None], {"units": "m"}),
        },
        coords=coords,
        attrs={
            "sensor": name,
            "band": net.sensor.band,
            "wavelength_m": net.sensor.wavelength_m,
            "heading_deg": net.sensor.heading_deg,
            "orbit_direction": net.sensor.orbit,
            "looks": net.sensor.looks,
        },
    ).rio.write_crs("EPSG:4326")
    time = f"time_{name}"
    truth.coords[time] = (time, net.dates.to_numpy())
    truth[f"displacement_{name}"] = (time, *plane), (moved - moved[0])[..., None], {"units": "mm"}
    truth[f"cycles_{name}"] = (f"pair_{name}", *plane), cycles[..., None]
    functional = motion.rate_functional(base.time, net.dates[0], net.dates[-1])
    attrs = {
        "units": "mm yr-1",
        "rate_start": f"{net.dates[0]:%Y-%m-%d}",
        "rate_end": f"{net.dates[-1]:%Y-%m-%d}",
    }
    truth[f"rate_{name}"] = plane, motion.project(pix, base, functional, los)[:, None], attrs
    if name == "s1_desc":
        span = range(net.dates[0].year, net.dates[-1].year + 1)
        late = motion.late_summer_functional(base.time, span)
        truth["rate_late_summer"] = plane, motion.project(pix, base, late, los)[:, None], {"units": "mm yr-1"}
    return stack
