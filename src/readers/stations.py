"""Daily records of stations: GNSS positions (tenv3) and soil temperature (RIHMI-WDC Aisori export)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from readers.damage import damage_named, regular_file

_DEPTHS_CM = (2, 5, 10, 15, 20, 40, 60, 80, 120, 160, 240, 320)


def read_gnss(path: str | Path) -> xr.Dataset:
    """Read the daily positions of GNSS stations from tenv3 files of the Nevada Geodetic Laboratory.

    Parameters
    ----------
    path : path
        A folder or a zip archive that holds ``<station>.tenv3``.

    Returns
    -------
    Dataset
        ``east``, ``north``, ``up`` and ``*_std`` (station, time) in mm, each station about its own first day;
        ``longitude`` (-180 to 180) and ``latitude`` (station).
    """
    with damage_named(path, "expected are tenv3 files, in a folder or a zip archive"):
        series = [_tenv3(file) for file in _members(Path(path), ".tenv3")]
        joined = xr.concat(series, "station", join="outer", coords="minimal")
        return joined.sortby("station").sortby("time")


def _members(path: Path, ending: str):
    """Open the files of a folder, or of an archive, whose names end so."""
    if path.is_dir():
        found = [p.open("rb") for p in sorted(path.rglob(f"*{ending}"))]
    else:
        archive = zipfile.ZipFile(regular_file(path))
        found = [archive.open(name) for name in sorted(archive.namelist()) if name.endswith(ending)]
    if not found:
        raise ValueError(f"it holds no file *{ending}")
    return found


def _tenv3(file) -> xr.Dataset:
    with file:
        table = pd.read_csv(file, sep=r"\s+")
    time = pd.to_datetime(table["YYMMMDD"], format="%y%b%d")
    keep = ~time.duplicated()
    out = {}
    for name, whole, part, std in (
        ("east", "_e0(m)", "__east(m)", "sig_e(m)"),
        ("north", "____n0(m)", "_north(m)", "sig_n(m)"),
        ("up", "u0(m)", "____up(m)", "sig_u(m)"),
    ):
        metres = (table[whole] - table[whole].iloc[0]) + (table[part] - table[part].iloc[0])
        about = {"units": "mm", "long_name": f"GNSS position, {name}"}
        out[name] = ("time", 1000 * metres[keep].to_numpy(), about)
        out[f"{name}_std"] = (
            "time",
            1000 * table[std][keep].to_numpy(),
            about | {"long_name": f"its sd, {name}"},
        )
    place = table.iloc[-1]
    longitude = (place["_longitude(deg)"] + 180) % 360 - 180
    one = xr.Dataset(out, {"time": time[keep].to_numpy()}).expand_dims(station=[str(place["site"])])
    where = {"longitude": longitude, "latitude": place["_latitude(deg)"]}
    return one.assign_coords(
        {name: ("station", [value], {"units": "degree"}) for name, value in where.items()}
    )


def read_ground_temperature(path: str | Path) -> xr.Dataset:
    """Read daily soil temperature at twelve depths of the RIHMI-WDC Aisori export.

    Parameters
    ----------
    path : path
        The text, or the zip archive that holds it (``wr*.txt``): station, year, month, day, then temperature (degC)
        and quality at 2 to 320 cm. Quality 9 and 999.9 are no data, as is a value outside -75 to 75 degC;
        rows of days that do not exist (30 February) must be empty.

    Returns
    -------
    Dataset
        ``ground_temperature`` (station, depth, time) in degC, depth in m; stations by their WMO number.
    """
    path = Path(path)
    with damage_named(path, "expected is the Aisori export of daily soil temperature"):
        lines = _members(path, ".txt") if zipfile.is_zipfile(regular_file(path)) else [path.open("rb")]
        data = next(file for file in lines if Path(file.name).name.startswith("wr") or len(lines) == 1)
        with data:
            table = pd.read_csv(data, sep=r"\s+", header=None)
        if table.shape[1] != 4 + 2 * len(_DEPTHS_CM):
            raise ValueError(f"it has {table.shape[1]} columns, expected {4 + 2 * len(_DEPTHS_CM)}")
        dates = table[[1, 2, 3]].set_axis(["year", "month", "day"], axis=1)
        time = pd.to_datetime(dates, errors="coerce")
        value, quality = table.iloc[:, 4::2].to_numpy(float), table.iloc[:, 5::2].to_numpy()
        value[(quality == 9) | (np.abs(value) > 75)] = np.nan
        exists = time.notna().to_numpy()  # the export has empty rows for 30 February
        if np.isfinite(value[~exists]).any():
            raise ValueError(f"a value on a day that does not exist: {dates[~exists].iloc[0].tolist()}")
        value = value[exists]
        index = pd.MultiIndex.from_arrays(
            [table[0][exists].astype(str), time[exists]], names=["station", "time"]
        )
        columns = pd.Index(np.array(_DEPTHS_CM) / 100, name="depth")
        cube = pd.DataFrame(value, index, columns).stack(future_stack=True).to_xarray()
    about = {"units": "degC", "long_name": "soil temperature"}
    cube = cube.transpose("station", "depth", "time").assign_attrs(about)
    cube["depth"].attrs = {"units": "m", "long_name": "depth below the surface"}
    return cube.to_dataset(name="ground_temperature")
