"""Daily climate of a basin: CF netCDF, the forcing table of the SHUD model, or a plain CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
        Days sorted and stamped at midnight. Stated units are obeyed (kelvins; rain in m, kg m-2 s-1 or mm/h), hours
        averaged or summed to days of which 80 % are there. A day given twice, infinite values, undeclared kelvins,
        negative precipitation, months and an unknown unit are errors.
    """
    with damage_named(regular_file(path), f"`inputs.climate` says that its format is {format}"):
        out = _READERS[format](path)
    if precipitation is not None:
        with damage_named(precipitation, "expected are columns Year, Month, Day and mm/day"):
            rain = _station_precipitation(precipitation)
            days = out["time"].dt.floor("D")
            if not np.isin(days, rain["time"]).any():
                raise ValueError("no day of it lies in the climate's record")
            out["precipitation"] = "time", rain.reindex(time=days.values).values
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
    data = _daily(_in_units(data.sortby("time"), names, path), names, path)
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
        data[name].attrs["units"] = unit
    return data


#: what a stated unit is in degC or mm/day: factor, offset, and whether the value is an amount of its own time step
_STATED = {
    "temperature_2m": {
        **dict.fromkeys(("degc", "c", "celsius", "°c", "deg_c", "degree_celsius"), (1.0, 0.0, False)),
        **dict.fromkeys(("k", "kelvin"), (1.0, -273.15, False)),
    },
    "precipitation": {
        **dict.fromkeys(("mmday-1", "mm/day", "mm/d", "mmd-1", "kgm-2day-1", "kgm-2d-1"), (1.0, 0.0, False)),
        **dict.fromkeys(("mm", "kgm-2"), (1.0, 0.0, True)),
        **dict.fromkeys(("m",), (1000.0, 0.0, True)),
        **dict.fromkeys(("mday-1", "m/day", "m/d"), (1000.0, 0.0, False)),
        **dict.fromkeys(("kgm-2s-1", "mm/s", "mms-1"), (86400.0, 0.0, False)),
        **dict.fromkeys(("mm/h", "mmh-1", "mm/hr", "mmhr-1"), (24.0, 0.0, False)),
    },
}


def _in_units(data: xr.Dataset, names: list[str], path: Path) -> xr.Dataset:
    """Convert by the units the file states; without any, those of the data model are assumed."""
    for name in names:
        stated = str(data[name].attrs.get("units", "")).strip()
        known = _STATED[name]
        key = stated.lower().replace(" ", "").replace("**", "").replace("^", "")
        if stated and key not in known:
            units = ", ".join(dict.fromkeys(known))
            raise ValueError(
                f"{path}: {name} is in {stated!r}, which is not known; write it in one of {units}"
            )
        factor, offset, amount = known.get(key, (1.0, 0.0, name == "precipitation"))
        attrs = data[name].attrs | {"amount": int(amount)}
        converted = data[name] if (factor, offset) == (1.0, 0.0) else data[name] * factor + offset
        data = data.assign({name: converted.assign_attrs(attrs)})
    return data


def _daily(data: xr.Dataset, names: list[str], path: Path) -> xr.Dataset:
    """Stamp days at midnight; hours become days, months are refused."""
    time = data.indexes["time"]
    step = pd.Series(time).diff().median() if len(time) > 2 else pd.Timedelta(days=1)
    if step > pd.Timedelta(days=7):
        raise ValueError(f"{path}: a value every {step.days} days; daily values are needed")
    if step >= pd.Timedelta(hours=18):
        data = data.assign_coords(time=time.normalize())
        if not data.indexes["time"].is_unique:
            raise ValueError(f"{path}: two values on one day; write one a day, or hours")
        for name in names:
            data[name].attrs.pop("amount")
        return data
    enough = 0.8 * (pd.Timedelta(days=1) / step)
    days = data[names].resample(time="D")
    mean, total, count = days.mean(), days.sum(), days.count()
    out = {}
    for name in names:
        amount = data[name].attrs["amount"]
        out[name] = (total if amount else mean)[name].where(count[name] >= enough)
    return xr.Dataset(out, attrs=data.attrs)


def _station_precipitation(path: Path) -> xr.DataArray:
    table = pd.read_csv(regular_file(path))
    if list(table.columns[:3]) != ["Year", "Month", "Day"]:
        raise ValueError(f"columns must begin with Year, Month, Day; found {', '.join(table.columns)}")
    when = pd.to_datetime(table[["Year", "Month", "Day"]])
    values = pd.to_numeric(table.iloc[:, 3], errors="coerce").where(lambda v: v.between(0, 500))
    return xr.DataArray(values.values, coords={"time": when.values}, dims="time")
