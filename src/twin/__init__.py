"""A basin whose truth is known, delivered in the formats real data come in.

``simulate`` writes raw inputs of a whole site; ``columns`` gives independent pixels for calibration. The ground is
heat conduction with latent heat in soil columns (`ground`), motion is linear in the columns (`motion`), six radars
look at it (`radar`), two rivers drain it (`water`), maps describe it (`drivers`). Every constant: ``constants()``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (the .rio accessor)
import xarray as xr
from scipy.ndimage import maximum_filter

from . import drivers, ground, motion, radar, terrain, water, write
from . import weather as sky
from .physics import Physics, Switches, constants, physics
from .pixels import columns

__all__ = ["columns", "constants", "simulate"]
_MAIN_GRID = {"quick": terrain.Grid(5), "full": terrain.Grid(2)}


class _Request(NamedTuple):
    """Which twin: seed, size, constants and switches."""

    seed: int
    size: str
    p: Physics
    on: Switches


def simulate(
    folder: str | Path,
    *,
    seed: int = 1,
    size: str = "quick",
    mining: bool = True,
    warming: bool = True,
    transient: bool = True,
    albedo_effect: bool = False,
    alos2_bias_mm_yr: float = 0.0,
    noise: bool = True,
    **constants_changed: float,
) -> None:
    """Write a twin into `folder`: raw inputs in real formats and ``truth.zarr``, which only scoring may open.

    Parameters
    ----------
    folder : path
        Written beside (``folder.part``) and renamed. A complete twin of the same parameters is left as it is.
    seed : int
        Same seed, same bytes.
    size : {"quick", "full"}
        80 x 60 cells of 500 m with a thinned Sentinel-1 calendar, or 200 x 150 cells of 200 m.
    mining, warming, transient, albedo_effect, noise : bool
        Switches. Without noise the radars are perfect (no losses, delays or decorrelation noise).
    alos2_bias_mm_yr : float
        Error of the ALOS-2 line-of-sight rate outside the reference area.
    **constants_changed : float
        Any name of ``constants()``.

    Raises
    ------
    ValueError
        Unknown constant or size, or a folder that holds another twin or other files.
    """
    if size not in _MAIN_GRID:
        raise ValueError(f"twin.simulate: size {size!r} is not one of {', '.join(_MAIN_GRID)}")
    p = physics(**constants_changed)
    on = Switches(mining, warming, transient, albedo_effect, float(alos2_bias_mm_yr), noise)
    folder = Path(folder)
    request = {"seed": int(seed), "size": size, "switches": asdict(on), "physics": dict(p)}
    if _complete(folder, request):
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write(part, _Request(int(seed), size, p, on))
    (part / "twin.json").write_text(json.dumps(request, indent=1) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    part.rename(folder)


def _complete(folder: Path, request: dict) -> bool:
    """True if the folder already holds what is asked for."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    stamp = folder / "twin.json"
    if not (stamp.exists() and (folder / "truth.zarr").exists()):
        raise ValueError(
            f"{folder} holds files that are no complete twin; remove it (rm -r {folder}) or choose another"
        )
    found = json.loads(stamp.read_text(encoding="utf-8"))
    if found == request:
        return True
    differ = "; ".join(
        f"{key}: {one!r} there, {two!r} asked" for key, one, two in _differences(found, request)
    )
    raise ValueError(f"{folder} holds another twin ({differ}); remove it (rm -r {folder}) to simulate anew")


def _differences(found: dict, asked: dict, prefix: str = ""):
    for key in sorted(set(found) | set(asked)):
        one, two = found.get(key), asked.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            yield from _differences(one, two, f"{prefix}{key}.")
        elif one != two:
            yield f"{prefix}{key}", one, two


def _write(folder: Path, request: _Request) -> None:
    seed, size, p, on = request.seed, request.size, request.p, request.on
    weather = sky.weather(seed, p, on)
    table = ground.table(weather, p, nodes=size)
    base = motion.basis(weather, table, p, on)
    fields = terrain.master(seed, p)
    fields["darkening"] = drivers.darkening(fields, on)
    if not on.mining:
        fields["pit"], fields["heap"] = 0 * fields["pit"], 0 * fields["heap"]
    calendar = {name: sky.stream(seed, f"calendar {name}") for name in radar.SENSORS}
    networks = {name: radar.network(s, calendar[name], size) for name, s in radar.SENSORS.items()}
    for name, net in networks.items():
        _sensor(folder / name, net, fields, base, request)
    _climate(folder / "climate", weather, seed, p, on)
    rivers = _rivers(folder / "discharge", weather, seed, p, on)
    layers = drivers.observed_layers(drivers.true_layers(fields, p), seed, on)
    (folder / "drivers").mkdir()
    for name, layer in drivers.LAYERS.items():
        write.driver(folder / "drivers" / f"{name}.tif", layers[name], layer)
    write.areas(folder / "areas" / "areas.geojson", terrain.zones())
    write.truth(folder / "truth.zarr", _truth(networks, fields, base, rivers, request))


def _sensor(folder: Path, net: radar.Network, fields, base, request: _Request) -> None:
    """Simulate and write one stack."""
    sensor, p, on = net.sensor, request.p, request.on
    grid = sensor.geometry(request.size)
    here = terrain.scene(fields, grid)
    surface = radar.surface(sensor, here, grid.x[None, :])
    flat = surface.fields
    moved = motion.line_of_sight(motion.pixels(here, base, p, on), base, net.dates, surface.los)
    if sensor.name == "alos2":
        years = (net.dates - net.dates[0]).days.to_numpy() / 365.25
        moved = moved + on.alos2_bias_mm_yr * years[:, None] * (1 - flat["reference"])
    draw = radar.Raster(grid, sky.stream(request.seed, f"radar {sensor.name}"))
    delay = radar.delays(net, draw, surface, p) if on.noise else None
    reference = int(np.argmax(flat["reference"] * flat["rock"] - 0.01 * np.abs(flat["scatter"])))
    if sensor.frame:
        out, keep = write.Licsar(folder, net, grid, surface), None
    else:
        out, keep = write.Mintpy(folder, net, grid, surface, reference), reference
    observed = radar.observe(net, surface, moved.astype("f4"), delay, draw, p, keep)
    for k, (phase, coherence, _, _) in enumerate(observed):
        out.pair(k, phase, coherence)
    out.close()


def _climate(folder: Path, weather: xr.Dataset, seed: int, p: Physics, on: Switches) -> None:
    folder.mkdir()
    data = sky.observed_climate(weather, seed, p, on)
    start = f"days since {data.time.to_index()[0]:%Y-%m-%d}"
    encoding = {"time": {"units": start, "calendar": "standard", "dtype": "i4"}}
    for name in data.data_vars:
        encoding[name] = {"zlib": True, "_FillValue": np.float32(np.nan)}
    data.to_netcdf(folder / "climate.nc", engine="h5netcdf", encoding=encoding)


def _rivers(folder: Path, weather: xr.Dataset, seed: int, p: Physics, on: Switches) -> dict:
    """Write the gauges' files; basin -> (daily truth, events)."""
    folder.mkdir()
    out = {}
    for name in water.BASINS:
        data, events = water.basin(weather, name, seed, p, on)
        out[name] = data, events
        series = data.discharge.to_series()
        area = data.attrs["drainage_area_km2"]
        if name == "mined":
            month = weather.temperature.to_series().rolling(30, min_periods=30).mean()
            bed = (month < p.frozen_to_bed_c) & on.noise
            write.yearbook(folder / "mined", series, "模拟站", area, data.ice.to_series(), bed)
        else:
            place = terrain.to_degrees(terrain.zones()["control_gauge"])
            write.grdc(folder / "control_grdc.txt", series, area, "SIMULATED CONTROL", place.y, place.x)
    return out


def _truth(networks, fields, base, rivers, request: _Request) -> xr.Dataset:
    """Everything scoring needs, on the main grid."""
    p, on, grid = request.p, request.on, _MAIN_GRID[request.size]
    here = terrain.scene(fields, grid)
    pix = motion.pixels(here, base, p, on)
    dates = pd.DatetimeIndex(np.unique(np.concatenate([net.dates for net in networks.values()])))
    data = xr.Dataset(coords={"time": dates, "y": grid.y, "x": grid.x})
    for name, value in zip(("up", "east", "north"), motion.displacement(pix, base, dates), strict=True):
        data[f"displacement_{name}"] = grid.on_map(np.round(value - value[0], 3), "time")
        data[f"displacement_{name}"].attrs = {"units": "mm", "long_name": f"true displacement {name}"}
    for net in networks.values():
        _true_rates(data, net, radar.surface(net.sensor, here, grid.x[None, :]), pix, base)
    data["rate_up"] = grid.on_map(motion.epoch_rates(pix, base), "epoch")
    years = np.arange(1997, 2024)
    drop, share = motion.seasonal(pix, base, years)
    data["drop"] = grid.on_map(drop, "year")
    text = "true thaw-season subsidence, highest spring to lowest autumn"
    data["drop"].attrs = {"units": "mm", "long_name": text}
    data["fraction"] = grid.on_map(share, "year", "window")
    data["fraction"].attrs = {
        "units": "1",
        "long_name": "share of the drop inside the window; NaN below 2 mm",
    }
    places = "ice wetness rock permafrost distance elevation pit heap reference darkening"
    for name in places.split():
        data[f"true_{name}"] = grid.on_map(here[name])
    data["transient"] = (("y", "x"), pix.transient.reshape(grid.shape) & on.transient)
    data["creep"] = grid.on_map(np.hypot(pix.east, pix.north))
    data["creep"].attrs = {"units": "mm yr-1", "long_name": "horizontal speed of slope creep"}
    limits = {"epoch": motion.EPOCHS, "window": motion.WINDOWS}
    ends = {
        f"{d}_{e}": (d, [v[i] for v in of.values()])
        for d, of in limits.items()
        for i, e in enumerate(("start", "end"))
    }
    data = data.assign_coords(year=years, **{d: list(of) for d, of in limits.items()}, **ends)
    small = _small_truth(here, base, rivers, request)
    return data.merge(small).assign_attrs(seed=request.seed, size=request.size).rio.write_crs("EPSG:4326")


def _true_rates(data: xr.Dataset, net: radar.Network, surface, pix, base) -> None:
    """Add the line-of-sight rate of a sensor and, for Sentinel-1, the one from late summer to late summer."""
    name, first, last, grid_shape = (
        net.sensor.name,
        net.dates[0],
        net.dates[-1],
        (data.sizes["y"], data.sizes["x"]),
    )

    def add(label, functional, long_name, **attrs):
        value = np.asarray(motion.project(pix, base, functional, surface.los), "f4").reshape(grid_shape)
        data[label] = ("y", "x"), value, {"units": "mm yr-1", "long_name": long_name, **attrs}

    text = f"true line-of-sight rate of {name}: t of linear + annual fitted to daily truth"
    span = {"rate_start": f"{first:%Y-%m-%d}", "rate_end": f"{last:%Y-%m-%d}"}
    add(f"rate_{name}", motion.rate_functional(base.time, first, last), text, **span)
    if net.sensor.frame:
        years = range(first.year, last.year + 1)
        label = "rate_late_summer" if name == "s1_desc" else f"rate_late_summer_{name}"
        text = f"true late-summer to late-summer line-of-sight rate of {name}"
        window = {"window": "08-15..09-30", "years": f"{years[0]}-{years[-1]}"}
        add(label, motion.late_summer_functional(base.time, years), text, **window)


def importance(
    x: dict[str, np.ndarray], base: motion.Basis, seed: int, p: Physics, on: Switches
) -> xr.DataArray:
    """True importance (group) of the drivers for the vertical rate after mining, where attribution may ask for it.

    Left out are pits and heaps with the cells around them, the reference, and ground steep enough to creep, whose
    rate the drivers do not make: the share a group has depends on the ground it is asked of.

    Parameters
    ----------
    x : dict
        Fields of terrain.scene with ``darkening``, (y, x).
    """
    value = base.series @ motion.rate_functional(base.time, *motion.EPOCHS["after"])
    nc = base.columns
    names = dict(zip(motion.NAMES, value[-len(motion.NAMES) :], strict=True))
    slope = np.degrees(np.arctan(np.hypot(x["slope_east"], x["slope_north"])))
    dug = maximum_filter(x["pit"] + x["heap"], 3)
    usable = (dug < 0.05) & (x["reference"] < 0.5) & (slope <= p.creep_slope_deg)
    x = {name: field[usable] for name, field in x.items()}
    trend = np.stack([value[:nc], value[nc : 2 * nc]])
    strength = (names["climate"], names["mining"], names["albedo"])
    return drivers.importance(x, base.table, trend, strength, seed, p, on)


def _small_truth(here, base, rivers: dict, request: _Request) -> xr.Dataset:
    """Truth without pixels: importance of driver groups, recession by event and period, daily weather."""
    out = xr.Dataset()
    p = request.p
    out["importance"] = importance(here, base, request.seed, p, request.on)
    events = pd.concat([table for _, table in rivers.values()], ignore_index=True)
    unit = {"units": "day-1", "q_ref_mm_day": p.q_ref_mm_day}
    for name in ("start", "end"):
        out[f"event_{name}"] = "event", events[name].to_numpy().astype("datetime64[ns]")
    out["event_k_ref"] = "event", events["k_ref"].to_numpy(), unit
    out["event_b"] = "event", events["b"].to_numpy()
    out["event_basin"] = "event", events["basin"].to_numpy().astype("U8")
    periods = {"before": (0, 2003), "during": (2003, 2015), "after": (2015, 9999)}
    year = base.time.year.to_numpy()
    k = np.empty((len(water.BASINS), len(periods)))
    b = np.empty_like(k)
    for i, (data, _) in enumerate(rivers.values()):
        for j, (start, end) in enumerate(periods.values()):
            inside = (year >= start) & (year < end)
            k[i, j], b[i, j] = np.exp(data.ln_k_ref.values[inside].mean()), data.b.values[inside].mean()
    note = "what the generator intends; events and years scatter about it"
    out["period_k_ref"] = ("basin", "period"), k, unit | {"long_name": note}
    out["period_b"] = (("basin", "period"), b, {"units": "1", "long_name": note})
    out = out.assign_coords(basin=list(water.BASINS), period=list(periods))
    out["mining_course"] = ("day", base.mining.astype("f4"))
    return out.assign_coords(day=("day", base.time.to_numpy()))
