"""Readers of daily discharge, all to one data model: m3/s, complete daily calendar, NaN = missing.

Each ``_read_<format>`` gives a table (date, flow, ice) and what the file says of its station; the rest
(units, calendar, checks) is common.
"""

from __future__ import annotations

import calendar
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from readers.damage import damage_named, regular_file

FORMATS = ("csv", "caravan", "grdc", "usgs", "wsc", "yearbook", "matrix")

CUBIC_FOOT_M3 = 0.028316846592  # exact: 0.3048 ** 3

#: Factor to m3/s; None needs the drainage area.
UNITS = {
    "m3/s": 1.0,
    "l/s": 1e-3,
    "m3/day": 1 / 86400.0,
    "ft3/s": CUBIC_FOOT_M3,
    "mm/day": None,
}
_UNIT_NAMES = {
    "m3/s": ("m3s", "m3_s", "m3/s", "m3 s-1", "m3s-1", "m³/s", "cms", "cumecs"),
    "l/s": ("l/s", "ls-1"),
    "m3/day": ("m3d", "m3_d", "m3/d", "m3/day", "m3_day"),
    "ft3/s": ("cfs", "ft3/s", "ft3s", "ft3_s"),
    "mm/day": ("mmd", "mm_d", "mm/d", "mm/day", "mm_day", "mm d-1"),
}
_DATE_NAMES = ("date", "time", "datetime", "day", "yyyy-mm-dd", "日期", "dt")
_FLOW_NAMES = ("q", "flow", "discharge", "streamflow", "value", "流量")
_MISSING = (-99.0, -99.9, -999.0, -9999.0, -99999.0)
# text in place of a value: the gauge was out of order, affected, or not yet worked up
_USGS_TEXT = {
    "ice",
    "eqp",
    "bkw",
    "dis",
    "***",
    "ssn",
    "rat",
    "mnt",
    "zfl",
    "fld",
    "pr",
    "tst",
    "dry",
    "ukn",
    "--",
}
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
) -> xr.DataArray:
    """Read one gauge's daily discharge.

    Parameters
    ----------
    path : str or Path
        A file, or for yearbook tables a folder with one CSV per year.
    format : str, optional
        ``csv`` (a date column, or Year, Month, Day, and one flow column), ``caravan``, ``grdc``, ``usgs``
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
    units : {"m3/s", "l/s", "m3/day", "ft3/s", "mm/day"}, optional
        Of a CSV or matrix; without it what the column's name says, else m3/s (``attrs["units_assumed"]``).

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
    options = {"column": column, "date_column": date_column, "date_format": date_format, "station": station}
    with damage_named(path, f"read as {format}; give format= if it is another"):
        table, found = _READERS[format](path, options)
    area = drainage_area_km2 if drainage_area_km2 is not None else found.get("drainage_area_km2")
    found |= {"drainage_area_km2": _area(path, area), "source_format": format}
    return _data_array(path, table, found, units)


def _text(path: Path) -> str:
    """Decode a file: UTF-8, then GB18030 (which holds GBK), then latin-1."""
    raw = regular_file(path).read_bytes()
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
    if "GRDC" in start and head[0].startswith("#"):
        return "grdc"
    if "agency_cd" in start or "_00060" in start:
        return "usgs"
    if re.search(r'ID"?,"?PARAM', start):
        return "wsc"
    if "streamflow" in first.lower().split(",") and "date" in first.lower().split(","):
        return "caravan"
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


def _data_array(path: Path, table: pd.DataFrame, found: dict, units: str | None) -> xr.DataArray:
    """Unit, calendar and checks that are common to all formats."""
    table = table.dropna(subset=["date"]).sort_values("date", kind="stable")
    flow = table["flow"].astype(float).replace(list(_MISSING), np.nan)
    if not np.isfinite(flow).any():
        raise ValueError(f"{path}: no value of discharge in {len(table)} rows")
    if (flow < 0).any() or np.isinf(flow).any():
        bad = table.loc[(flow < 0) | np.isinf(flow), ["date", "flow"]].iloc[0]
        raise ValueError(
            f"{path}: flow {bad['flow']} on {bad['date']:%Y-%m-%d} is neither a discharge nor a known missing mark "
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
    if UNITS[unit] is not None:
        return UNITS[unit]
    if not np.isfinite(area):
        raise ValueError(f"{path}: flow is in {unit}; give drainage_area_km2 to turn it into m3/s")
    return area * 1e3 / 86400.0


def _area(path: Path, area) -> float:
    if area is None:
        return float("nan")
    if not np.isfinite(area) or area <= 0:
        raise ValueError(f"{path}: drainage_area_km2 must be positive, found {area}")
    return float(area)


def _numbers(path: Path, values: pd.Series, text_allowed=()) -> pd.Series:
    """Values as numbers; blank is NaN, other text is an error that names it."""
    text = values.astype("string").str.strip().fillna("")
    number = pd.to_numeric(text.replace("", pd.NA), errors="coerce").astype(float)
    low = text.str.lower()
    odd = number.isna() & ~low.isin({"", "na", "nan", "null", "--", *text_allowed})
    if odd.any():
        raise ValueError(
            f"{path}: {text[odd].iloc[0]!r} in the flow column is not a number (row {int(odd.argmax()) + 1})"
        )
    return number


def _dates(path: Path, values: pd.Series, date_format: str | None) -> pd.Series:
    """Dates: ISO, or numbers in another order where one of them shows which is the day."""
    text = values.astype("string").str.strip()
    if date_format is None:
        parts = text.str.extract(r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})")
        if parts[0].notna().all():
            first, second = parts[0].astype(int).max(), parts[1].astype(int).max()
            year = "%Y" if parts[2].str.len().max() == 4 else "%y"
            sep = text.iloc[0][len(parts[0].iloc[0])]
            if (first > 12) == (second > 12):
                raise ValueError(
                    f"{path}: day and month cannot be told apart in {text.iloc[0]!r}; give date_format="
                )
            date_format = sep.join(["%d", "%m", year] if first > 12 else ["%m", "%d", year])
    try:
        return pd.to_datetime(text, format=date_format or "ISO8601").dt.tz_localize(None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: a date cannot be read ({error}); give date_format=") from None


def _pick(path: Path, table: pd.DataFrame, wanted, names, what: str) -> str:
    """A column by name, position, or as the only one whose name fits."""
    if isinstance(wanted, int):
        if not -len(table.columns) <= wanted < len(table.columns):
            raise ValueError(f"{path}: no column number {wanted}, there are {len(table.columns)}")
        return table.columns[wanted]
    if wanted is not None:
        if wanted not in table:
            raise ValueError(f"{path}: no column {wanted!r}, found {list(table.columns)}")
        return wanted
    fits = [c for c in table if names(str(c).strip().lower())]
    if len(fits) == 1:
        return fits[0]
    raise ValueError(
        f"{path}: {len(fits)} columns may hold the {what}, found {list(table.columns)}; name one"
    )


def _unit_of(name: str) -> str | None:
    """Unit that a column's name states."""
    low = name.lower()
    for unit, spellings in _UNIT_NAMES.items():
        if any(re.search(rf"(^|[^a-z0-9]){re.escape(s)}($|[^a-z0-9])", low) for s in spellings):
            return unit
    return None


def _frame(text: str, **options) -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skipinitialspace=True, **options)
    return table.rename(columns=lambda c: str(c).strip().lstrip("\ufeff"))


def _read_csv(path: Path, options: dict):
    text = _text(path)
    first = text.splitlines()[0]
    table = _frame(text, sep=max(",;\t", key=first.count), comment="#")
    low = {str(c).lower(): c for c in table}
    if options["date_column"] is None and {"year", "month", "day"} <= set(low):
        parts = table[[low["year"], low["month"], low["day"]]].astype(int)
        parts.columns = ["year", "month", "day"]
        try:
            date = pd.to_datetime(parts)
        except ValueError as error:
            raise ValueError(f"{path}: a day that does not exist ({error})") from None
        used = [low["year"], low["month"], low["day"]]
    else:
        name = _pick(path, table, options["date_column"], lambda c: c in _DATE_NAMES, "date")
        date, used = _dates(path, table[name], options["date_format"]), [name]
    rest = table.drop(columns=used)

    def is_flow(c):
        stem = re.split(r"[^a-z0-9\u4e00-\u9fff]", c)[0]
        return c in _FLOW_NAMES or stem in _FLOW_NAMES

    wanted = options["column"]
    if isinstance(wanted, int):
        wanted = _pick(path, table, wanted, None, "discharge")
    values = [c for c in rest if str(c).lower() not in ("ice", "flag", "quality", "qualifier")]
    if wanted is None and len(values) == 1:
        wanted = values[0]
    name = _pick(path, rest, wanted, is_flow, "discharge")
    out = pd.DataFrame({"date": date, "flow": _numbers(path, table[name])})
    if "ice" in low:
        out["ice"] = table[low["ice"]].str.strip().str.lower().isin(["1", "true", "yes", "ice", "b"])
    unit = _unit_of(str(name))
    return out, {} if unit is None else {"units": unit}


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
    table = _frame(_text(path))
    for needed in ("date", "streamflow"):
        if needed not in table:
            raise ValueError(
                f"{path}: a Caravan file has columns date and streamflow, found {list(table.columns)}"
            )
    date = _dates(path, table["date"], options["date_format"])
    return pd.DataFrame({"date": date, "flow": _numbers(path, table["streamflow"])}), {"units": "mm/day"}


def _read_grdc(path: Path, options: dict):
    lines = _text(path).splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))

    def field(pattern):
        match = re.search(rf"^#\s*{pattern}[^:\n]*:\s*(.+?)\s*$", header, re.MULTILINE)
        return match.group(1) if match else None

    unit = field("Unit of measure") or ""
    if not re.match(r"m.?/s", unit):
        raise ValueError(f"{path}: GRDC unit {unit!r}, expected m3/s")
    body = [line for line in lines if re.match(r"\d{4}-\d{2}-\d{2};", line)]
    if not body:
        raise ValueError(f"{path}: no daily rows (YYYY-MM-DD;hh:mm;value); monthly GRDC files are not read")
    cells = [line.split(";") for line in body]
    out = pd.DataFrame(
        {
            "date": _dates(path, pd.Series([c[0] for c in cells]), "%Y-%m-%d"),
            "flow": _numbers(path, pd.Series([c[2] for c in cells])),
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
    table = _frame(text, sep="\t" if tab else ",", comment="#")
    if tab:  # the second header row states field widths
        table = table[~table.iloc[:, 0].str.fullmatch(r"\d+s")].reset_index(drop=True)
    sites = sorted(table["site_no"].unique())
    table, site = _one_station(path, table, "site_no", sites, options["station"])
    name = _pick(
        path,
        table,
        options["column"],
        lambda c: c.endswith("00060_00003"),
        "daily mean discharge (00060_00003)",
    )
    date = _pick(path, table, options["date_column"], lambda c: c in ("date", "datetime"), "date")
    out = pd.DataFrame({"date": _dates(path, table[date], options["date_format"])})
    out["flow"] = _numbers(path, table[name], _USGS_TEXT | {f"{t}_" for t in _USGS_TEXT})
    code = table.get(f"{name}_cd", pd.Series("", index=table.index))
    ice = table[name].str.strip().str.lower().eq("ice") | code.str.contains(r"\bice\b", case=False)
    if ice.any():
        out["ice"] = ice
    return out, {"units": "ft3/s", "station": site}


def _read_wsc(path: Path, options: dict):
    lines = _text(path).splitlines()
    start = next(i for i, line in enumerate(lines) if "PARAM" in line and "Date" in line)
    table = _frame("\n".join(lines[start:]))
    table = table[table["PARAM"].str.strip() == "1"]  # 1 flow, 2 level; disclaimers have none
    if table.empty:
        raise ValueError(f"{path}: no row of discharge (PARAM 1); the file holds water levels only?")
    table, site = _one_station(path, table, "ID", sorted(table["ID"].unique()), options["station"])
    name = _pick(path, table, options["column"], lambda c: c in ("flow", "value"), "discharge")
    mark = table["SYM"].str.strip().str.upper() if "SYM" in table else pd.Series("", index=table.index)
    out = pd.DataFrame(
        {
            "date": _dates(path, table["Date"].str.slice(0, 10).str.replace("/", "-"), "%Y-%m-%d"),
            "flow": _numbers(path, table[name]),
            "ice": mark == "B",
        }
    )
    return out, {"units": "m3/s", "station": site}


def _one_station(path: Path, table: pd.DataFrame, name: str, sites: list, wanted):
    if wanted is None and len(sites) == 1:
        return table, sites[0]
    if wanted is None or str(wanted) not in sites:
        raise ValueError(f"{path}: holds stations {', '.join(map(str, sites))}; give station= one of them")
    return table[table[name] == str(wanted)], str(wanted)


def _read_matrix(path: Path, options: dict):
    """Day of year by year; row 366 belongs to leap years only."""
    table = _frame(_text(path))
    day = pd.to_numeric(table.iloc[:, 0], errors="coerce")
    if day.isna().any() or not ((day >= 1) & (day <= 366)).all():
        raise ValueError(f"{path}: the first column must be the day of the year, 1 to 366")
    parts = []
    for column in table.columns[1:]:
        if not re.fullmatch(r"(1[89]|20)\d\d", str(column)):
            raise ValueError(f"{path}: column {column!r} is not a year")
        flow = _numbers(path, table[column])
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
    "grdc": _read_grdc,
    "usgs": _read_usgs,
    "wsc": _read_wsc,
    "yearbook": _read_yearbook,
    "matrix": _read_matrix,
}
