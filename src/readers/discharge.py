"""Readers of daily discharge, all to one data model: m3/s, complete daily calendar, NaN = missing.

Each ``_read_<format>`` gives a table (date, flow, ice) and what the file says of its station; the rest
(units, calendar, checks) is common.
"""

from __future__ import annotations

import calendar
import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from readers.damage import damage_named, regular_file
from readers.flow_tables import PER_AREA, UNITS, dates, frame, numbers, one_station, pick, read_plain

FORMATS = ("csv", "caravan", "camels_us", "grdc", "usgs", "wsc", "yearbook", "matrix")
_MISSING = (-99.0, -99.9, -999.0, -9999.0, -99999.0)
# text in place of a value: the gauge was out of order, affected, or not yet worked up
_USGS_TEXT = set("ice eqp bkw dis *** ssn rat mnt zfl fld pr tst dry ukn --".split())
_DRY, _FROZEN_TO_BED = "河干", "连底冻"
_YEARBOOK_MISSING = {"", "-", "—", "――", "/", "缺测", "缺", "停测"}
_YEARBOOK_DOUBT = "@※!+*()（）?△√"  # inserted, doubtful, estimated, revised: the number stands
_ICE_MARKS = ("冰", "冻", "I", "B", "|", "凌")


def read_discharge(
    path: str | Path,
    *,
    format: str | None = None,
    drainage_area_km2: float | None = None,
    column: str | int | None = None,
    date_column: str | int | None = None,
    date_format: str | None = None,
    station: str | None = None,
    units: str | None = None,
    to_daily: bool = False,
) -> xr.DataArray:
    """Read one gauge's daily discharge.

    Parameters
    ----------
    path : str or Path
        A file, or for yearbook tables a folder with one CSV per year.
    format : str, optional
        ``csv`` (a date column, or Year, Month, Day, and one flow column; columns of unit, parameter, station and
        symbol are obeyed), ``caravan``, ``camels_us`` (GAGE yyyy mm dd flow flag, ft3/s), ``grdc``, ``usgs``
        (RDB or the CSV of dataRetrieval), ``wsc`` (Water Survey of Canada), ``yearbook`` (the Chinese table
        of daily mean discharge, 31 days by 12 months, one CSV a year, UTF-8 or GBK) or ``matrix`` (day of
        year by year, 366 rows in a leap year).  Recognised from the content if not given.
    drainage_area_km2 : float, optional
        Overrides the file's; needed where flow is in mm/day.
    column, date_column : str or int, optional
        Flow and date column of a CSV or USGS file, by name or position, where they are not plain.
    date_format : str, optional
        Of a CSV's dates; without it ISO dates, and others where day and month can be told apart.
    station : str, optional
        The one to take from a file that holds several.
    units : {"m3/s", "l/s", "m3/day", "ML/day", "ft3/s", "mm/day", "l/s/km2"}, optional
        Of a CSV or matrix; without it what the column's name, a unit column or a header line says, else m3/s
        (``attrs["units_assumed"]``).
    to_daily : bool
        Average values closer than a day; a day of which less than 80 % are there is missing.

    Returns
    -------
    xarray.DataArray
        ``discharge`` (time) in m3/s, every day from first to last, NaN = missing; coordinate ``ice`` (bool)
        where the file marks ice; attrs ``station``, ``drainage_area_km2`` (NaN if unknown), ``source_format``.

    Raises
    ------
    FileNotFoundError
        If the path, or any CSV in a folder, is missing.
    ValueError
        For an unknown format, unit or mark, negative flow, days that do not exist, the same day with two
        values, several candidate columns or stations; the message names the file and what to do.

    Notes
    -----
    Missing marks (blank, -99, -999, -9999 ...) become NaN.  河干 (dry) is flow 0; 连底冻 (frozen to the bed)
    is flow 0 with the ice mark.  Text of the USGS in place of a number (Ice, Eqp, ***) is NaN.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of discharge data")
    if format is not None and format not in FORMATS:
        raise ValueError(f"{path}: unknown discharge format {format!r}; known: {', '.join(FORMATS)}")
    if units is not None and units not in UNITS:
        raise ValueError(f"{path}: unknown unit {units!r}; known: {', '.join(UNITS)}")
    if format is None:
        format = {True: "yearbook", False: "caravan" if path.suffix == ".nc" else None}[path.is_dir()]
        format = format or _recognise(path, _text(path))
    options = dict(
        column=column, date_column=date_column, date_format=date_format, station=station, units=units
    )
    with damage_named(path, f"read as {format}; give format= if it is another"):
        table, found = _READERS[format](path, options)
    area = drainage_area_km2 if drainage_area_km2 is not None else found.get("drainage_area_km2")
    found |= {"drainage_area_km2": _area(path, area), "source_format": format}
    table = table.dropna(subset=["date"]).sort_values("date", kind="stable")
    table = _daily(path, table, to_daily)
    return _data_array(path, table, found, units)


def _text(path: Path) -> str:
    """Decode a file: UTF-8, then GB18030 (which holds GBK), then latin-1."""
    raw = regular_file(path).read_bytes()
    if raw[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise ValueError(f"{path}: a spreadsheet or archive, not text; save the sheet of daily flow as CSV")
    if not raw.strip():
        raise ValueError(f"{path}: the file is empty")
    # GRDC writes km² and m³ in latin-1, bytes that may also pass for GBK
    encodings = ("utf-8-sig", "latin-1") if b"GRDC" in raw[:4000] else ("utf-8-sig", "gb18030", "latin-1")
    for encoding in encodings:
        try:
            return raw.decode(encoding).lstrip("\ufeff")
        except UnicodeDecodeError:
            continue
    raise ValueError(f"{path}: cannot be decoded as text")


def _recognise(path: Path, text: str) -> str:
    head = [line.strip().lstrip("\ufeff") for line in text.splitlines()[:60] if line.strip()]
    start = "\n".join(head)
    first = head[0].replace('"', "")
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise ValueError(f"{path}: a spreadsheet; save the sheet of daily flow as CSV")
    if "GRDC" in start and head[0].startswith("#"):
        return "grdc"
    if "agency_cd" in start or "_00060" in start:
        return "usgs"
    if re.search(r'ID"?,"?PARAM', start):
        if "Date" not in start:
            raise ValueError(
                f"{path}: Water Survey of Canada with a column a month; get the table with a Date column"
            )
        return "wsc"
    # two columns named so may be m3/s as well: Caravan has the basin's climate beside them
    names = first.lower().split(",")
    if {"date", "streamflow"} <= set(names) and any(
        n.endswith(("_sum", "_mean", "_min", "_max")) for n in names
    ):
        return "caravan"
    if re.match(r"\d{8}\s+\d{4}\s+\d{1,2}\s+\d{1,2}\s+-?\d", first):
        return "camels_us"
    if any(_month_columns(line.split(",")) for line in head):
        return "yearbook"
    cells = [c.strip() for c in first.split(",")]
    if len(cells) >= 2 and all(re.fullmatch(r"(1[89]|20)\d\d", c) for c in cells[1:]):
        return "matrix"
    if "," in first or ";" in first or "\t" in first:
        return "csv"
    raise ValueError(
        f"{path}: format not recognised from its first line {first[:80]!r}; give format= one of {FORMATS}"
    )


def _daily(path: Path, table: pd.DataFrame, to_daily: bool) -> pd.DataFrame:
    """Missing marks as NaN, fill values refused, and one value a day: closer ones averaged on request."""
    flow = table["flow"].astype(float).replace(list(_MISSING), np.nan)
    table = table.assign(flow=flow)
    top, count = flow.max(), int((flow == flow.max()).sum())
    below = flow[flow < top].max()
    nines = top >= 999 and set(f"{top:g}".replace(".", "")) == {"9"}
    if (nines and top > 3 * below) or (count >= 3 and top > 20 * below):
        raise ValueError(
            f"{path}: {top:g} stands {count} times and the next smaller flow is {below:g}: a fill value; set it blank"
        )
    steps = table["date"].drop_duplicates().diff().dropna()
    if len(steps) > 2 and steps.median() > pd.Timedelta(days=27):
        raise ValueError(
            f"{path}: a value every {steps.median().days} days: monthly flow; daily values are needed"
        )
    if len(steps) < 3 or steps.median() > pd.Timedelta(hours=12):
        return table
    if not to_daily:
        raise ValueError(
            f"{path}: a value every {steps.median()}; give to_daily: true to average them to days"
        )
    expected = pd.Timedelta(days=1) / steps.median()
    days = table.groupby(table["date"].dt.normalize())
    mean = days["flow"].mean().where(days["flow"].count() >= 0.8 * expected)
    out = pd.DataFrame({"date": mean.index, "flow": mean.to_numpy()})
    return out.assign(ice=days["ice"].any().to_numpy()) if "ice" in table else out


def _data_array(path: Path, table: pd.DataFrame, found: dict, units: str | None) -> xr.DataArray:
    """Unit, calendar and checks that are common to all formats."""
    flow = table["flow"]
    if not np.isfinite(flow).any():
        raise ValueError(f"{path}: no value of discharge in {len(table)} rows")
    if (flow < 0).any() or np.isinf(flow).any():
        bad = table.loc[(flow < 0) | np.isinf(flow), ["date", "flow"]].iloc[0]
        raise ValueError(
            f"{path}: flow {bad['flow']:g} on {bad['date']:%Y-%m-%d} is neither a discharge nor a known missing mark "
            f"{_MISSING}; mend the file or set it blank"
        )
    unit = units or found.pop("units", None)
    found.pop("units", None)
    if unit is None:
        unit, found["units_assumed"] = "m3/s", "true"
    table = table.assign(flow=flow * _factor(path, unit, found["drainage_area_km2"]))
    table["date"] = table["date"].dt.normalize()
    table = table.drop_duplicates(["date", "flow"])
    twice = table["date"].duplicated(keep=False)
    if twice.any():
        # a missing mark beside a value is not a contradiction
        table = table[~(twice & table["flow"].isna())]
        twice = table["date"].duplicated(keep=False)
    if twice.any():
        day = table.loc[twice, "date"].iloc[0]
        values = table.loc[table["date"] == day, "flow"].tolist()
        raise ValueError(
            f"{path}: {day:%Y-%m-%d} has {len(values)} values {values} m3/s; several stations or statistics?"
        )
    table = table.set_index("date")
    calendar_days = pd.date_range(table.index[0], table.index[-1], freq="D", name="time")
    out = xr.DataArray(
        table["flow"].reindex(calendar_days).to_numpy(float),
        coords={"time": calendar_days},
        dims="time",
        name="discharge",
        attrs={
            "units": "m3/s",
            "long_name": "daily mean discharge",
            "station": str(found.pop("station", path.stem)),
        }
        | found,
    )
    if "ice" in table:
        ice = table["ice"].reindex(calendar_days).fillna(False).to_numpy(bool)
        out = out.assign_coords(ice=("time", ice, {"long_name": "flow affected by ice"}))
    return out


def _factor(path: Path, unit: str, area: float) -> float:
    if unit not in PER_AREA:
        return UNITS[unit]
    if not np.isfinite(area):
        raise ValueError(f"{path}: flow is in {unit}; give drainage_area_km2 to turn it into m3/s")
    return area * UNITS[unit]


def _area(path: Path, area) -> float:
    if area is None:
        return float("nan")
    if not np.isfinite(area) or area <= 0:
        raise ValueError(f"{path}: drainage_area_km2 must be positive, found {area}")
    return float(area)


def _read_csv(path: Path, options: dict):
    return read_plain(path, _text(path), options)


def _read_camels_us(path: Path, options: dict):
    """Read ``GAGE yyyy mm dd flow flag`` in ft3/s."""
    names = ["station", "year", "month", "day", "flow", "flag"]
    table = frame(_text(path), sep=r"\s+", header=None, names=names)
    table, site = one_station(path, table, "station", sorted(table["station"].unique()), options["station"])
    date = pd.to_datetime(table[["year", "month", "day"]].astype(int))
    return pd.DataFrame({"date": date, "flow": numbers(path, table["flow"])}), {
        "units": "ft3/s",
        "station": site,
    }


def _read_caravan(path: Path, options: dict):
    """Read ``streamflow`` in mm/day of Caravan's CSV or netCDF of one gauge."""
    if path.suffix == ".nc":
        with xr.open_dataset(regular_file(path)) as data:
            if "date" not in data.variables or "streamflow" not in data.variables:
                raise ValueError(
                    f"{path}: a Caravan file has date and streamflow, found {list(data.variables)}"
                )
            if data["streamflow"].dims != ("date",):
                raise ValueError(f"{path}: streamflow lies on {data['streamflow'].dims}, expected (date)")
            one = data["streamflow"].to_series()
        out = pd.DataFrame({"date": pd.to_datetime(one.index), "flow": one.to_numpy(float)})
        return out, {"units": "mm/day"}
    table = frame(_text(path))
    for needed in ("date", "streamflow"):
        if needed not in table:
            raise ValueError(
                f"{path}: a Caravan file has columns date and streamflow, found {list(table.columns)}"
            )
    date = dates(path, table["date"], options["date_format"])
    return pd.DataFrame({"date": date, "flow": numbers(path, table["streamflow"])}), {"units": "mm/day"}


def _read_grdc(path: Path, options: dict):
    lines = _text(path).splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))

    def field(pattern):
        match = re.search(rf"^#\s*{pattern}[^:\n]*:[^\S\n]*(\S.*?)[^\S\n]*$", header, re.MULTILINE)
        return match.group(1) if match else None

    unit = field("Unit of measure") or ""
    if not re.match(r"m.?/s", unit):
        raise ValueError(f"{path}: GRDC unit {unit!r}, expected m3/s")
    body = [line for line in lines if re.match(r"\d{4}-\d{2}-\d{2};", line)]
    if not body or body[0][8:10] == "00":
        raise ValueError(f"{path}: no daily rows (YYYY-MM-DD;hh:mm;value); monthly GRDC files are not read")
    cells = [line.split(";") for line in body]
    out = pd.DataFrame(
        {
            "date": dates(path, pd.Series([c[0] for c in cells]), "%Y-%m-%d"),
            "flow": numbers(path, pd.Series([c[2] for c in cells])),
        }
    )
    found = {"units": "m3/s", "station": field("GRDC-No") or path.stem}
    name = " ".join(x for x in (field("River"), field("Station")) if x)
    found |= {"station_name": name} if name else {}
    area = field("Catchment area")
    if area and float(area) > 0:
        found["drainage_area_km2"] = float(area)
    return out, found


def _read_usgs(path: Path, options: dict):
    text = _text(path)
    tab = "\t" in next(line for line in text.splitlines() if not line.startswith("#"))
    table = frame(text, sep="\t" if tab else ",", comment="#")
    if tab:  # the second header row states field widths
        table = table[~table.iloc[:, 0].str.fullmatch(r"\d+s")].reset_index(drop=True)
    sites = sorted(table["site_no"].unique())
    table, site = one_station(path, table, "site_no", sites, options["station"])
    name = pick(
        path,
        table,
        options["column"],
        lambda c: c.endswith("00060_00003"),
        "daily mean discharge (00060_00003)",
    )
    date = pick(path, table, options["date_column"], lambda c: c in ("date", "datetime"), "date")
    out = pd.DataFrame({"date": dates(path, table[date], options["date_format"])})
    out["flow"] = numbers(path, table[name], _USGS_TEXT | {f"{t}_" for t in _USGS_TEXT})
    code = table.get(f"{name}_cd", pd.Series("", index=table.index))
    ice = table[name].str.strip().str.lower().eq("ice") | code.str.contains(r"\bice\b", case=False)
    if ice.any():
        out["ice"] = ice
    return out, {"units": "ft3/s", "station": site}


def _read_wsc(path: Path, options: dict):
    lines = _text(path).splitlines()
    start = next(i for i, line in enumerate(lines) if "PARAM" in line and "Date" in line)
    table = frame("\n".join(lines[start:]))
    table = table[table["PARAM"].str.strip() == "1"]  # 1 flow, 2 level; disclaimers have none
    if table.empty:
        raise ValueError(f"{path}: no row of discharge (PARAM 1); the file holds water levels only?")
    table, site = one_station(path, table, "ID", sorted(table["ID"].unique()), options["station"])
    name = pick(path, table, options["column"], lambda c: c in ("flow", "value"), "discharge")
    mark = table["SYM"].str.strip().str.upper() if "SYM" in table else pd.Series("", index=table.index)
    out = pd.DataFrame(
        {
            "date": dates(path, table["Date"].str.slice(0, 10).str.replace("/", "-"), "%Y-%m-%d"),
            "flow": numbers(path, table[name]),
            "ice": mark == "B",
        }
    )
    return out, {"units": "m3/s", "station": site}


def _read_matrix(path: Path, options: dict):
    """Day of year by year; row 366 belongs to leap years only."""
    table = frame(_text(path))
    day = pd.to_numeric(table.iloc[:, 0], errors="coerce")
    if day.isna().any() or not ((day >= 1) & (day <= 366)).all():
        raise ValueError(f"{path}: the first column must be the day of the year, 1 to 366")
    parts = []
    for column in table.columns[1:]:
        if not re.fullmatch(r"(1[89]|20)\d\d", str(column)):
            raise ValueError(f"{path}: column {column!r} is not a year")
        flow = numbers(path, table[column])
        length = 366 if calendar.isleap(int(column)) else 365
        beyond = flow[day > length].notna()
        if beyond.any():
            raise ValueError(f"{path}: {column} is no leap year but has a value on day 366")
        inside = day <= length
        date = pd.Timestamp(f"{column}-01-01") + pd.to_timedelta(day[inside] - 1, unit="D")
        parts.append(pd.DataFrame({"date": date, "flow": flow[inside]}))
    return pd.concat(parts, ignore_index=True), {}


def _read_yearbook(path: Path, options: dict):
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path}: no *.csv in the folder of yearbook tables")
    parts, found, years = [], {}, {}
    for file in files:
        year, table, said = _yearbook_table(file)
        if year in years:
            raise ValueError(f"{file}: the year {year} is already in {years[year].name}")
        years[year] = file
        parts.append(table)
        for key, value in said.items():
            if found.setdefault(key, value) != value:
                raise ValueError(
                    f"{file}: {key} is {value}, other years say {found[key]}; two stations in one folder?"
                )
    return pd.concat(parts, ignore_index=True), {"units": "m3/s", **found}


def _month_columns(cells: list[str]) -> list[int] | None:
    """Positions of the twelve months in a header row, else None."""
    names = {**{f"{m}月": m for m in range(1, 13)}, **{f"{m}": m for m in range(1, 13)}}
    names |= {f"{n}月": m for m, n in enumerate("一 二 三 四 五 六 七 八 九 十 十一 十二".split(), 1)}
    names |= {n: m for m, n in enumerate("一 二 三 四 五 六 七 八 九 十 十一 十二".split(), 1)}
    order = [(names.get(re.sub(r"\s", "", c.strip('"'))), i) for i, c in enumerate(cells)]
    hits = [(m, i) for m, i in order if m is not None]
    return [i for _, i in hits] if [m for m, _ in hits] == list(range(1, 13)) else None


def _yearbook_table(file: Path):
    """One year's table: 31 rows by 12 months; what stands above and below is header and statistics."""
    rows = [[c.strip().strip('"') for c in line.split(",")] for line in _text(file).splitlines()]
    head = next((i for i, cells in enumerate(rows) if _month_columns(cells)), None)
    if head is None:
        raise ValueError(f"{file}: no header row with the twelve months")
    columns = _month_columns(rows[head])
    title = " ".join(",".join(cells) for cells in rows[:head])
    match = re.search(r"((?:1[89]|20)\d\d)\s*年?", title) or re.search(r"((?:1[89]|20)\d\d)", file.stem)
    if not match:
        raise ValueError(f"{file}: the year is neither in the table's title nor in the file's name")
    year = int(match.group(1))
    # rows of days stand before the first row of statistics, whose labels are text
    records, seen = [], set()
    for cells in rows[head + 1 :]:
        label = re.sub(r"\s|日$", "", cells[0])
        if not re.fullmatch(r"\d{1,2}", label):
            if seen and label:
                break
            continue
        day = int(label)
        if not 1 <= day <= 31 or day in seen:
            raise ValueError(f"{file}: row {label!r} is no day of the month, or occurs twice")
        seen.add(day)
        for month, i in enumerate(columns, 1):
            cell = cells[i] if i < len(cells) else ""
            flow, ice = _yearbook_cell(file, year, month, day, cell)
            if day <= calendar.monthrange(year, month)[1]:
                records.append((pd.Timestamp(year, month, day), flow, ice))
            elif np.isfinite(flow):
                raise ValueError(
                    f"{file}: {year} has no day {day} in month {month}, but the table has {cell!r} there"
                )
    if len(seen) != 31:
        raise ValueError(f"{file}: {len(seen)} of 31 day rows found")
    table = pd.DataFrame(records, columns=["date", "flow", "ice"])
    found = {}
    area = re.search(r"集水面积\D*?([\d.]+)", title)
    if area:
        found["drainage_area_km2"] = float(area.group(1))
    name = re.search(r"(\S+?站)", re.sub(r"^.*?年", "", title).strip())
    if name:
        found["station"] = name.group(1)
    return year, table, found


def _yearbook_cell(file: Path, year: int, month: int, day: int, cell: str) -> tuple[float, bool]:
    """Flow and ice mark of one cell."""
    text = re.sub(r"\s", "", cell)
    if text in _YEARBOOK_MISSING:
        return np.nan, False
    if text == _DRY:
        return 0.0, False
    if text == _FROZEN_TO_BED:
        return 0.0, True
    ice = any(mark in text for mark in _ICE_MARKS)
    bare = text
    for mark in (*_ICE_MARKS, *_YEARBOOK_DOUBT):
        bare = bare.replace(mark, "")
    if bare == "" and ice:
        return np.nan, True
    try:
        return float(bare), ice
    except ValueError:
        raise ValueError(
            f"{file}: {cell!r} on {year}-{month}-{day} is neither a number nor a known mark"
        ) from None


_READERS = {
    "csv": _read_csv,
    "caravan": _read_caravan,
    "camels_us": _read_camels_us,
    "grdc": _read_grdc,
    "usgs": _read_usgs,
    "wsc": _read_wsc,
    "yearbook": _read_yearbook,
    "matrix": _read_matrix,
}
