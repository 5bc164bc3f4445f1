"""What is there of a site's raw inputs: each is opened by its reader, and the answer is one line an input."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from helpers.io.fetch import missing_inputs, obtain
from helpers.io.inputs import (
    mask_of,
    read_areas,
    read_climate,
    read_gauge,
    read_sensor,
    read_series,
    read_stations,
)
from helpers.io.run import say
from helpers.io.site import Site, load_site
from readers.rasters import read_raster

#: areas that notebooks look for, and what is left out without them
USED_AREAS = {
    "study_area": "the outline on the map and the albedo tests inside and outside",
    "mined": "the mined zone of 04-07",
    "near_mine": "the zone around the mine",
    "control": "the control zone",
    "pits": "the distance to the mine",
}


def check(site: Site) -> pd.DataFrame:
    """Open every input the site file names and say what it holds, or what is wrong with it.

    Returns
    -------
    pandas.DataFrame
        Columns ``input`` (key in the site file), ``state`` (found, incomplete or missing) and ``what``.
    """
    inputs = site.config.inputs
    rows = {
        key: ("missing", f"put {path} below {site.raw}; {how}") for key, path, how in missing_inputs(site)
    }
    grids: dict[str, xr.Dataset] = {}
    steps: dict[str, Callable[[], str]] = {}
    for name in sorted(inputs.sar, key=lambda n: inputs.sar[n].role != "main"):
        steps[f"sar.{name}"] = lambda name=name: _stack(site, name, grids)
    for name in inputs.displacement:
        steps[f"displacement.{name}"] = lambda name=name: _series(site, name)
    for key in ("gnss", "ground_temperature"):
        if getattr(inputs, key):
            steps[key] = lambda key=key: _stations(site, key)
    if inputs.areas:
        steps["areas"] = lambda: _areas(site, grids)
    for name, gauge in inputs.discharge.items():
        steps[f"discharge.{name}"] = lambda gauge=gauge: _discharge(site, gauge)
    if inputs.climate:
        steps["climate"] = lambda: _climate(site)
    for name, driver in inputs.drivers.items():
        steps[f"drivers.{name}"] = lambda driver=driver: _driver(site, driver, grids)
    for key in ("active_layer", "gnssir"):
        if path := getattr(inputs, key):
            steps[key] = lambda path=path: f"{len(pd.read_csv(site.raw / path))} rows"
    for key, step in steps.items():
        if key not in rows:
            try:
                rows[key] = ("found", step())
            except (OSError, ValueError, KeyError) as error:
                rows[key] = ("incomplete", " ".join(str(error).split()))
    return pd.DataFrame([(key, *rows[key]) for key in steps], columns=["input", "state", "what"])


def _stack(site: Site, name: str, grids: dict) -> str:
    stack = read_sensor(site, name)
    dates = np.unique(np.concatenate([stack["reference"].values, stack["secondary"].values]))
    main = next(iter(grids.values()), stack)
    grids[name] = stack
    _overlap(stack.rio.bounds(), main.rio.transform_bounds(stack.rio.crs), f"the {name} stack")
    if place := site.config.reference_area:
        _sees_reference(site, stack, place, name)
    for variable, without in (
        ("los_up", "04 cannot turn the rate into a vertical one"),
        ("coherence", "02 cannot"),
    ):
        if variable not in stack:
            raise ValueError(
                f"{site.raw / (site.config.inputs.sar[name].path or '')}: no {variable}; {without}"
            )
    size = f"{stack.sizes['y']} x {stack.sizes['x']} cells"
    notes = [
        n
        for n, bad in (
            ("looks assumed", "looks_assumed" in stack.attrs),
            ("look vector assumed", "los_assumed" in stack.attrs),
            ("no heights", "height" not in stack),
        )
        if bad
    ]
    said = (
        f"{stack.sizes['pair']} pairs of {len(dates)} scenes, {_day(dates[0])} to {_day(dates[-1])}, {size}"
    )
    if (zeros := stack.attrs.get("zero_share")) is not None:
        notes.append(f"{zeros:.1%} of the phase exactly 0 (no data)")
    return ", ".join([said, *notes])


def _sees_reference(site, stack, place, name) -> None:
    if place.polygon:
        if site.config.inputs.areas and not any(site.raw.glob(site.config.inputs.areas)):
            return  # said already: the areas are missing
        polygons = read_areas(site)
        if place.polygon in polygons and not mask_of(polygons[place.polygon], stack).any():
            raise ValueError(
                f"the {name} stack does not see the reference area {place.polygon!r}; choose another"
            )


def _overlap(bounds, others, what: str) -> None:
    west, south, east, north = bounds
    if west >= others[2] or east <= others[0] or south >= others[3] or north <= others[1]:
        raise ValueError(f"{what} does not overlap the main stack; get the one of the same place")


def _series(site: Site, name: str) -> str:
    series = read_series(site, name)
    time, zeros = series["time"].values, series.attrs["zero_share"]
    said = f"{time.size} dates, {_day(time[0])} to {_day(time[-1])}, {series.sizes['y']} x {series.sizes['x']} cells"
    notes = [f"{zeros:.1%} exactly 0 (no data)"] + ([] if "los_up" in series else ["no look vector"])
    return ", ".join([said, *notes])


def _stations(site: Site, key: str) -> str:
    records = read_stations(site, key)
    values = records["up" if key == "gnss" else key]
    time, days = values["time"].values, values.notnull().any(set(values.dims) - {"station", "time"})
    each = ", ".join(f"{s} {int(n)}" for s, n in zip(days["station"].values, days.sum("time"), strict=True))
    return f"{days.sizes['station']} stations, {_day(time[0])} to {_day(time[-1])}; days with data: {each}"


def _discharge(site: Site, gauge) -> str:
    flow = read_gauge(site, gauge)
    time = flow["time"].values
    return f"{int(flow.notnull().sum())} of {flow.size} days, {_day(time[0])} to {_day(time[-1])}"


def _climate(site: Site) -> str:
    climate = read_climate(site)
    lacking = [name for name in ("temperature_2m", "precipitation") if name not in climate]
    if "temperature_2m" in lacking and site.config.inputs.sar:
        raise ValueError(
            f"{site.raw / site.config.inputs.climate.path}: no temperature_2m (degC), which 03 and 05 need"
        )
    time = climate["time"].values
    said = f"{', '.join(map(str, climate.data_vars))}, {_day(time[0])} to {_day(time[-1])}"
    return said + (f"; without {', '.join(lacking)}" if lacking else "")


def _driver(site: Site, driver, grids: dict) -> str:
    path = site.raw / driver.path
    raster = read_raster(path)
    if grids:
        main = next(iter(grids.values()))
        _overlap(raster.rio.bounds(), main.rio.transform_bounds(raster.rio.crs), f"{path}:")
    step, low, high = abs(raster.rio.resolution()[0]), float(raster.min()), float(raster.max())
    size = f"{raster.rio.height} x {raster.rio.width} cells of {step:.4g}, {raster.rio.crs}"
    return f"{size}, {low:.4g} to {high:.4g} {driver.unit}"


def _areas(site: Site, grids: dict) -> str:
    areas = read_areas(site)
    place = site.config.reference_area
    if place and place.polygon and place.polygon not in areas:
        path = site.raw / site.config.inputs.areas
        raise ValueError(f"{path}: no polygon named {place.polygon!r}, the reference area of the site file")
    lacking = [f"{name} ({what})" for name, what in USED_AREAS.items() if name not in areas]
    if grids:
        main = next(iter(grids.values()))
        cells = {n: int(mask_of(a, main).sum()) for n, a in areas.items() if a.geom_type != "Point"}
        named = [f"{name} ({cells[name]} cells)" if name in cells else name for name in areas]
        if cells and not any(cells.values()):
            west, south, east, north = main.rio.transform_bounds("EPSG:4326")
            raise ValueError(
                f"{site.raw / site.config.inputs.areas}: no area lies in the scene ({west:.3f} to {east:.3f} E, "
                f"{south:.3f} to {north:.3f} N); are longitude and latitude swapped?"
            )
    else:
        named = list(areas)
    return ", ".join(named) + (f"; left out without {'; '.join(lacking)}" if lacking else "")


def _day(date) -> str:
    return str(np.datetime_as_string(date, "D"))


def main(name: str, size: str = "full") -> int:
    """Get what can be got of a site, print what is there, and return 1 where something is missing."""
    site = load_site(name, size)
    say(site)
    obtain(site)
    table = check(site)
    for row in table.itertuples():
        say(f"{row.state:10s} {row.input}: {row.what}")
    bad = int((table["state"] != "found").sum())
    if bad:
        say(
            f"{bad} of {len(table)} inputs are missing or incomplete. Supply them, or take their keys out of "
            f"data/sites/{name}.yml: the notebooks then run without them."
        )
    else:
        say(f"all {len(table)} inputs are there; next: make all SITE={name}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
