"""Daily climate of a basin: CF netCDF, the forcing table of the SHUD model, or a plain CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import xarray as xr

from readers.damage import damage_named, regular_file


def read_climate(path: Path, format: str = "netcdf", precipitation: Path | None = None) -> xr.Dataset:
    """Read a daily climate: temperature_2m (degC) and precipitation (mm/day), on (time).

    Parameters
    ----------
    path : Path
    format : {"netcdf", "shud", "csv"}
        CF netCDF; the forcing table of the SHUD model (days since the date in line 1); CSV with a ``date`` column
        and any of ``temperature_degc``, ``precipitation_mm``.
    precipitation : Path, optional
        Gauge file (Year, Month, Day, mm/day) that replaces the precipitation of ``path``.

    Returns
    -------
    xarray.Dataset
        Days sorted; a day given twice, infinite values, kelvins and negative precipitation are errors.
    """
    with damage_named(regular_file(path), f"`inputs.climate` says that its format is {format}"):
        out = _READERS[format](path)
    if precipitation is not None:
        with damage_named(precipitation, "expected are columns Year, Month, Day and mm/day"):
            out["precipitation"] = _station_precipitation(precipitation).reindex(time=out["time"])
    return _checked(out, path)


def _netcdf(path: Path) -> xr.Dataset:
    with xr.open_dataset(path) as data:
        if "time" not in data.dims:
            raise ValueError(f"it has no dimension time, only {list(data.dims)}")
        return data.drop_dims(set(data.dims) - {"time"}).load()


def _shud(path: Path) -> xr.Dataset:
    with path.open(encoding="utf-8") as lines:
        start = next(lines).split()[2]
    table = pd.read_csv(path, sep="\t", skiprows=1)
    time = pd.to_datetime(start, format="%Y%m%d") + pd.to_timedelta(table["Time_Day"], unit="D")
    names = {"temperature_2m": "Temp", "precipitation": "Prcp"}
    return xr.Dataset({new: ("time", table[old].values) for new, old in names.items()}, {"time": time.values})


def _csv(path: Path) -> xr.Dataset:
    table = pd.read_csv(path)
    names = {"temperature_degc": "temperature_2m", "precipitation_mm": "precipitation"}
    found = {new: ("time", table[old].values) for old, new in names.items() if old in table}
    if not found:
        raise ValueError(f"no column among {', '.join(names)}; found {', '.join(table.columns)}")
    return xr.Dataset(found, {"time": pd.to_datetime(table["date"], format="%Y-%m-%d").values})


_READERS = {"netcdf": _netcdf, "shud": _shud, "csv": _csv}
#: unit, and what a day can have anywhere on earth
_UNITS = {"temperature_2m": ("degC", -95.0, 65.0), "precipitation": ("mm day-1", 0.0, 2000.0)}


def _checked(data: xr.Dataset, path: Path) -> xr.Dataset:
    """Hold a climate to the data model: known variables on sorted days, in their units."""
    names = [name for name in _UNITS if name in data]
    if not names or "time" not in data.indexes or not isinstance(data.indexes["time"], pd.DatetimeIndex):
        raise ValueError(
            f"{path}: needs a calendar `time` and any of {', '.join(_UNITS)}; it has {list(data.variables)}"
        )
    time = data.indexes["time"]
    if time.hasnans or not time.is_unique:
        raise ValueError(
            f"{path}: days are missing or given twice: {time[time.duplicated() | time.isna()][:3]}"
        )
    for name in names:
        unit, low, high = _UNITS[name]
        if data[name].dims != ("time",) or data[name].dtype.kind not in "fiu":
            raise ValueError(
                f"{path}: {name} is {data[name].dtype} {data[name].dims}, expected numbers on (time)"
            )
        outside = (data[name] < low) | (data[name] > high)
        if outside.any():
            raise ValueError(
                f"{path}: {name} is {float(data[name][outside][0]):g} on a day, expected {low:g} to {high:g} {unit}"
            )
        data[name].attrs.setdefault("units", unit)
    return data.sortby("time")


def _station_precipitation(path: Path) -> xr.DataArray:
    table = pd.read_csv(regular_file(path))
    if list(table.columns[:3]) != ["Year", "Month", "Day"]:
        raise ValueError(f"columns must begin with Year, Month, Day; found {', '.join(table.columns)}")
    when = pd.to_datetime(table[["Year", "Month", "Day"]])
    values = pd.to_numeric(table.iloc[:, 3], errors="coerce").where(lambda v: v.between(0, 500))
    return xr.DataArray(values.values, coords={"time": when.values}, dims="time")
