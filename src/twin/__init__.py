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
    _write(part, int(seed), size, p, on)
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
    differ = [
        f"{key}: {before!r} there, {after!r} asked" for key, before, after in _differences(found, request)
    ]
    raise ValueError(
        f"{folder} holds another twin ({'; '.join(differ)}); remove it (rm -r {folder}) to simulate anew"
    )


def _differences(found: dict, asked: dict, prefix: str = ""):
    for key in sorted(set(found) | set(asked)):
        one, two = found.get(key), asked.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            yield from _differences(one, two, f"{prefix}{key}.")
        elif one != two:
            yield f"{prefix}{key}", one, two


def _write(folder: Path, seed: int, size: str, p: Physics, on: Switches) -> None:
    weather = sky.weather(seed, p, on)
    table = ground.table(weather, p, nodes=size)
    base = motion.basis(weather, table, p, on)
    fields = terrain.master(seed, p)
    fields["darkening"] = drivers.darkening(fields, on)
    if not on.mining:
        fields["pit"], fields["heap"] = 0 * fields["pit"], 0 * fields["heap"]
    networks = {
        name: radar.network(sensor, sky.stream(seed, f"calendar {name}"), size)
        for name, sensor in radar.SENSORS.items()
    }
    for name, net in networks.items():
        _sensor(folder / name, net, fields, base, seed, size, p, on)
    _climate(folder / "climate", weather, seed, p, on)
    rivers = _rivers(folder / "discharge", weather, seed, p, on)
    layers = drivers.observed_layers(drivers.true_layers(fields, p), seed, on)
    (folder / "drivers").mkdir()
    for name, (unit, long_name, crs, cell, _) in drivers.LAYERS.items():
        write.driver(folder / "drivers" / f"{name}.tif", layers[name], unit, long_name, crs, cell)
    write.areas(folder / "areas" / "areas.geojson", terrain.zones())
    write.truth(folder / "truth.zarr", _truth(networks, fields, base, rivers, seed, size, p, on))


def _sensor(
    folder: Path, net: radar.Network, fields, base, seed: int, size: str, p: Physics, on: Switches
) -> None:
    """Simulate and write one stack."""
    sensor = net.sensor
    grid = sensor.geometry(size)
    here = terrain.scene(fields, grid)
    surface = radar.surface(sensor, here, grid.x[None, :])
    pix = motion.pixels(here, base, p, on)
    up, east, north = motion.displacement(pix, base, net.dates)
    los = surface.los
    moved = los[2] * up + los[0] * east + los[1] * north
    flat = surface.fields
    if sensor.name == "alos2":
        years = (net.dates - net.dates[0]).days.to_numpy() / 365.25
        moved = moved + on.alos2_bias_mm_yr * years[:, None] * (1 - flat["reference"])
    draw = radar.Raster(grid, sky.stream(seed, f"radar {sensor.name}"))
    delay = radar.delays(net, draw, surface, p) if on.noise else None
    reference = int(np.argmax(flat["reference"] * flat["rock"] - 0.01 * np.abs(flat["scatter"])))
    if sensor.frame:
        out = write.Licsar(folder, net, grid, surface.incidence, los, flat["elevation"])
    else:
        out = write.Mintpy(folder, net, grid, surface.incidence, flat["elevation"], surface.shadow, reference)
    observed = radar.observe(
        net,
        surface,
        moved.astype("f4"),
        delay,
        draw,
        p,
        noise=on.noise,
        keep=None if sensor.frame else reference,
    )
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


def _truth(networks, fields, base, rivers, seed: int, size: str, p: Physics, on: Switches) -> xr.Dataset:
    """Everything scoring needs, on the main grid."""
    grid = _MAIN_GRID[size]
    here = terrain.scene(fields, grid)
    pix = motion.pixels(here, base, p, on)
    shape = grid.shape
    dates = pd.DatetimeIndex(np.unique(np.concatenate([net.dates for net in networks.values()])))
    data = xr.Dataset(coords={"time": dates, "y": grid.y, "x": grid.x})

    def on_map(value, dims=("y", "x"), *lead):
        return dims, np.asarray(value, "f4").reshape(*lead, *shape)

    for name, value in zip(("up", "east", "north"), motion.displacement(pix, base, dates), strict=True):
        value = np.round(value - value[0], 3)
        data[f"displacement_{name}"] = on_map(value, ("time", "y", "x"), len(dates))
        data[f"displacement_{name}"].attrs = {"units": "mm", "long_name": f"true displacement {name}"}
    for name, net in networks.items():
        surface = radar.surface(net.sensor, here, grid.x[None, :])
        functional = motion.rate_functional(base.time, net.dates[0], net.dates[-1])
        data[f"rate_{name}"] = on_map(motion.project(pix, base, functional, surface.los))
        data[f"rate_{name}"].attrs = {
            "units": "mm yr-1",
            "long_name": f"true line-of-sight rate of {name}: t of linear + annual fitted to daily truth",
            "rate_start": f"{net.dates[0]:%Y-%m-%d}",
            "rate_end": f"{net.dates[-1]:%Y-%m-%d}",
        }
        if net.sensor.frame:
            years = range(net.dates[0].year, net.dates[-1].year + 1)
            late = motion.late_summer_functional(base.time, years)
            label = "rate_late_summer" if name == "s1_desc" else f"rate_late_summer_{name}"
            data[label] = on_map(motion.project(pix, base, late, surface.los))
            data[label].attrs = {
                "units": "mm yr-1",
                "long_name": f"true late-summer to late-summer line-of-sight rate of {name}",
                "window": "08-15..09-30",
                "years": f"{years[0]}-{years[-1]}",
            }
    rates = [
        motion.project(pix, base, motion.rate_functional(base.time, *span), (0.0, 0.0, 1.0))
        for span in motion.EPOCHS.values()
    ]
    data["rate_up"] = on_map(rates, ("epoch", "y", "x"), len(rates))
    data = data.assign_coords(
        epoch=list(motion.EPOCHS),
        epoch_start=("epoch", [a for a, _ in motion.EPOCHS.values()]),
        epoch_end=("epoch", [b for _, b in motion.EPOCHS.values()]),
    )
    years = np.arange(1997, 2024)
    drop, part = motion.seasonal(pix, base, years)
    data = data.assign_coords(
        year=years,
        window=list(motion.WINDOWS),
        window_start=("window", [a for a, _ in motion.WINDOWS.values()]),
        window_end=("window", [b for _, b in motion.WINDOWS.values()]),
    )
    data["drop"] = on_map(drop, ("year", "y", "x"), len(years))
    data["drop"].attrs = {
        "units": "mm",
        "long_name": "true thaw-season subsidence, highest spring to lowest autumn",
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(drop[:, None] > 2.0, part / drop[:, None], np.nan)
    data["fraction"] = on_map(share, ("year", "window", "y", "x"), len(years), len(motion.WINDOWS))
    data["fraction"].attrs = {
        "units": "1",
        "long_name": "share of the drop inside the window; NaN below 2 mm",
    }
    for name in (
        "ice",
        "wetness",
        "rock",
        "permafrost",
        "distance",
        "elevation",
        "pit",
        "heap",
        "reference",
        "darkening",
    ):
        data[f"true_{name}"] = on_map(here[name])
    data["transient"] = (("y", "x"), pix.transient.reshape(shape) & on.transient)
    data["creep"] = on_map(np.hypot(pix.east, pix.north))
    data["creep"].attrs = {"units": "mm yr-1", "long_name": "horizontal speed of slope creep"}
    return (
        data.merge(_small_truth(here, base, rivers, seed, p, on))
        .assign_attrs(seed=seed, size=size)
        .rio.write_crs("EPSG:4326")
    )


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


def _small_truth(here, base, rivers: dict, seed: int, p: Physics, on: Switches) -> xr.Dataset:
    """Truth without pixels: importance of driver groups, recession by event and period, daily weather."""
    out = xr.Dataset()
    out["importance"] = importance(here, base, seed, p, on)
    events = pd.concat([table for _, table in rivers.values()], ignore_index=True)
    for name in ("start", "end"):
        out[f"event_{name}"] = ("event", events[name].to_numpy().astype("datetime64[ns]"))
    out["event_k_ref"] = (
        "event",
        events["k_ref"].to_numpy(),
        {"units": "day-1", "q_ref_mm_day": p.q_ref_mm_day},
    )
    out["event_b"] = ("event", events["b"].to_numpy())
    out["event_basin"] = ("event", events["basin"].to_numpy().astype("U8"))
    periods = {"before": (0, 2003), "during": (2003, 2015), "after": (2015, 9999)}
    year = base.time.year.to_numpy()
    k = np.empty((len(water.BASINS), len(periods)))
    b = np.empty_like(k)
    for i, (data, _) in enumerate(rivers.values()):
        for j, (start, end) in enumerate(periods.values()):
            inside = (year >= start) & (year < end)
            k[i, j], b[i, j] = np.exp(data.ln_k_ref.values[inside].mean()), data.b.values[inside].mean()
    note = "what the generator intends; events and years scatter about it"
    out["period_k_ref"] = (
        ("basin", "period"),
        k,
        {"units": "day-1", "q_ref_mm_day": p.q_ref_mm_day, "long_name": note},
    )
    out["period_b"] = (("basin", "period"), b, {"units": "1", "long_name": note})
    out = out.assign_coords(basin=list(water.BASINS), period=list(periods))
    out["mining_course"] = ("day", base.mining.astype("f4"))
    return out.assign_coords(day=("day", base.time.to_numpy()))
