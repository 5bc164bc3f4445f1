"""Plain tables of daily flow: delimiters, headers, units, dates and the columns that qualify a value.

A table may say in a column or above its header what a value is (unit, parameter, station, quality or ice mark). What it
says is obeyed, or refused where it is not known: a value is never taken for m3/s against the file's own word.
"""

from __future__ import annotations

import io
import re
from datetime import date as calendar_date
from pathlib import Path

import numpy as np
import pandas as pd

CUBIC_FOOT_M3 = 0.028316846592  # exact: 0.3048 ** 3
#: factor to m3/s; for depths over the basin, to m3/s per km2 of drainage area
UNITS = {
    "m3/s": 1.0,
    "l/s": 1e-3,
    "m3/day": 1 / 86400.0,
    "ML/day": 1e3 / 86400.0,
    "ft3/s": CUBIC_FOOT_M3,
    "mm/day": 1e3 / 86400.0,
    "l/s/km2": 1e-3,
}
PER_AREA = ("mm/day", "l/s/km2")
_SPELT = {
    "m3/s": "m3/s m3s m3s-1 m3sec-1 m3/sec m3persec m3pers cms cumec cumecs cubicmeters/second cubicmetrespersecond",
    "l/s": "l/s ls ls-1 lps liters/second litrespersecond",
    "m3/day": "m3/day m3/d m3d m3day m3d-1 m3day-1 m3perday m3perd",
    "ML/day": "ml ml/d ml/day mld mlday ml/dia megalitre megalitres megalitres/day",
    "ft3/s": "ft3/s ft3s ft3s-1 cfs cusec cusecs ft3/sec cubicfeet/second cubicfeetpersecond",
    "mm/day": "mm/day mm/d mm mmd mmday mmd-1 mmday-1 mmperday",
    "l/s/km2": "l/s/km2 lskm2 ls-1km-2 l/skm2",
}
_UNIT = {word: unit for unit, words in _SPELT.items() for word in words.split()}
_FLOW = re.compile(r"q|qmean|qobs|flows?|discharges?|streamflow|runoff|releases?|value|流量")
_PARAMETER = re.compile(r"flow|discharge|流量|00060|\bq\b", re.IGNORECASE)
_DATES = ("date", "time", "datetime", "day", "yyyy-mm-dd", "日期", "dt", "timestamp")
_QUALIFIERS = {
    "unit": re.compile(r"units?|unit[ _]of[ _]measure|unit[ _]name|einheit"),
    "parameter": re.compile(r"param|parameter|variable|parameter[ _](type[ _])?name|parameter_cd"),
    "station": re.compile(
        r"station|site|gauge|station[_ ](number|id|no|name)|site[_ ](no|id)|gauge[_ ]id|id"
    ),
    "symbol": re.compile(r"symbol|sym|flags?|quality|qualifier|qualifiers|ice|approval.*|grade|remarks?"),
}
_NOT_A_UNIT = re.compile(r"(mean|avg|daily|obs|observed|natural|sim|raw|qc|data|total|max|min|\d+)?")


def unit_named(text: str) -> str | None:
    """Unit of flow that a text spells ("ft^3/s", "m³ s⁻¹", "Q_m3_per_day"), else None."""
    low = text.strip().lower().translate(str.maketrans("³²⁻¹", "32-1"))
    return _UNIT.get(re.sub(r"[\s^*·._()\[\]]", "", low).replace("per", "/")) or _UNIT.get(
        re.sub(r"[\W_]", "", low)
    )


def unit_of_column(path: Path, name: str) -> str | None:
    """Unit that the name of a flow column states; None where it states none.

    Raises
    ------
    ValueError
        The name states a unit that is not known.
    """
    bracket = re.search(r"[(\[{](.+?)[)\]}]", name)
    words = [w for w in re.split(r"[\s_()\[\]]+", name.lower()) if w]
    rest = [w for w in words if not (_FLOW.fullmatch(w) or _NOT_A_UNIT.fullmatch(w))]
    stated = bracket.group(1) if bracket else " ".join(rest)
    for text in dict.fromkeys((stated, "".join(rest), name, *rest)):
        if unit := unit_named(text):
            return unit
    if bracket or "/" in stated or re.search(r"(^| )per |(^| )(gpm|mgd|af|acft|kaf)\b", stated):
        raise ValueError(
            f"{path}: column {name!r} states the unit {stated!r}, which is not known; {_give_units()}"
        )
    return None


def _give_units() -> str:
    return f"give units: one of {', '.join(UNITS)}"


def numbers(path: Path, values: pd.Series, text_allowed=()) -> pd.Series:
    """Values as numbers; blank is NaN, other text is an error that names it."""
    text = values.astype("string").str.strip().fillna("")
    number = pd.to_numeric(text.replace("", pd.NA), errors="coerce").astype(float)
    odd = number.isna() & ~text.str.lower().isin({"", "na", "nan", "null", "none", "--", *text_allowed})
    if odd.any():
        row = int(odd.argmax()) + 1
        raise ValueError(f"{path}: {text[odd].iloc[0]!r} in the flow column is not a number (row {row})")
    return number


def dates(path: Path, values: pd.Series, date_format: str | None) -> pd.Series:
    """Dates: ISO, or numbers in another order where one of them shows which is the day; never in the future."""
    text = values.astype("string").str.strip()
    if date_format is None:
        parts = text.str.extract(r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})")
        if parts[0].notna().all():
            first, second = parts[0].astype(int).max(), parts[1].astype(int).max()
            year = "%Y" if parts[2].str.len().max() == 4 else "%y"
            sep = text.iloc[0][len(parts[0].iloc[0])]
            if (first > 12) == (second > 12):
                found = repr(text.iloc[0])
                raise ValueError(f"{path}: day and month cannot be told apart in {found}; give date_format")
            date_format = sep.join(["%d", "%m", year] if first > 12 else ["%m", "%d", year])
    try:
        out = pd.to_datetime(text, format=date_format or "ISO8601").dt.tz_localize(None)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: a date cannot be read ({error}); give date_format") from None
    today = pd.Timestamp(calendar_date.today())
    if "%y" in (date_format or "") and out.max() > today:
        # two digits: the century that leaves no day in the future, if the days then follow one another
        out = out.where(out <= today, out - pd.DateOffset(years=100))
        if not out.is_monotonic_increasing:
            raise ValueError(
                f"{path}: the century of {text.iloc[0]!r} is not clear; write years of four digits"
            )
    if out.max() > today:
        raise ValueError(
            f"{path}: {out.max():%Y-%m-%d} lies in the future; check the dates or give date_format"
        )
    return out


def pick(path: Path, table: pd.DataFrame, wanted, fits, what: str) -> str:
    """Find a column by name, by position, or as the only one whose name fits."""
    if isinstance(wanted, int):
        if not -len(table.columns) <= wanted < len(table.columns):
            raise ValueError(f"{path}: no column number {wanted}, there are {len(table.columns)}")
        return table.columns[wanted]
    if wanted is not None:
        if wanted not in table:
            raise ValueError(f"{path}: no column {wanted!r}, found {list(table.columns)}")
        return wanted
    found = [c for c in table if fits(str(c).strip().lower())]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{path}: {len(found)} columns may hold the {what}, found {list(table.columns)}; name one (column, date_column)"
    )


def frame(text: str, **options) -> pd.DataFrame:
    """Table of text cells without the empty rows and columns that spreadsheets leave behind."""
    options = dict(dtype=str, keep_default_na=False, skipinitialspace=True, index_col=False) | options
    table = pd.read_csv(io.StringIO(text), **options)
    table = table.rename(columns=lambda c: str(c).strip().lstrip("\ufeff"))
    empty = table.apply(lambda cells: cells.str.strip().eq(""))
    unnamed = [c == "" or str(c).startswith("Unnamed:") for c in table.columns]
    keep = ~(empty.all().to_numpy() & unnamed) if len(table) else np.ones(len(unnamed), bool)
    return table.loc[~empty.all(axis=1), keep].reset_index(drop=True)


def _header(lines: list[str], date_column) -> int:
    """Number of the line that names the columns: the first that has a date's name among two cells or more."""
    for number, line in enumerate(lines[:60]):
        cells = [c.strip().strip('"').lower() for c in re.split(r"[,;\t]", line)]
        if len(cells) > 1 and (any(c in _DATES for c in cells) or {"year", "month", "day"} <= set(cells)):
            return number
        if isinstance(date_column, str) and date_column.lower() in cells:
            return number
    return 0


def _obey_qualifiers(path: Path, table: pd.DataFrame, above: dict, station) -> tuple[pd.DataFrame, dict]:
    """Rows of discharge of one station, with the unit and station that columns or header lines state."""
    found = {}
    column = {
        k: next((c for c in table if p.fullmatch(str(c).lower())), None) for k, p in _QUALIFIERS.items()
    }
    said = {k: next((v for n, v in above.items() if p.fullmatch(n)), None) for k, p in _QUALIFIERS.items()}
    parameter = (
        table[column["parameter"]]
        if column["parameter"]
        else pd.Series(said["parameter"] or "flow", table.index)
    )
    is_flow = parameter.str.contains(_PARAMETER)
    if not is_flow.any():
        raise ValueError(f"{path}: holds {', '.join(sorted(parameter.unique()))}, no discharge")
    table = table[is_flow].reset_index(drop=True)
    if column["station"]:
        sites = sorted(table[column["station"]].unique())
        table, found["station"] = one_station(path, table, column["station"], sites, station)
    stated = set(table[column["unit"]].str.strip()) - {""} if column["unit"] else {said["unit"] or ""} - {""}
    units = {unit_named(text) for text in stated}
    if len(units) > 1 or None in units:
        raise ValueError(f"{path}: states the unit {', '.join(sorted(stated))}; {_give_units()}")
    return table, found | ({"units": units.pop()} if units else {})


def one_station(path: Path, table: pd.DataFrame, name: str, sites: list, wanted):
    """Rows of one station, and its name; several need `wanted`."""
    if wanted is None and len(sites) == 1:
        return table, sites[0]
    if wanted is None or str(wanted) not in sites:
        raise ValueError(f"{path}: holds stations {', '.join(map(str, sites))}; give station: one of them")
    return table[table[name] == str(wanted)].reset_index(drop=True), str(wanted)


def read_plain(path: Path, text: str, options: dict) -> tuple[pd.DataFrame, dict]:
    """Table with a date column (or year, month, day) and one flow column.

    Returns
    -------
    DataFrame
        date, flow and, where the table marks ice, ice.
    dict
        units and station, as far as the file states them.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    start = _header(lines, options["date_column"])
    cells = [re.split(r"[,;\t:]", line.strip(' ",;\t'), maxsplit=1) for line in lines[:start]]
    above = {c[0].strip(' "').lower(): c[1].strip(' ",;\t') for c in cells if len(c) == 2}
    table = frame("\n".join(lines[start:]), sep=max(",;\t", key=lines[start].count))
    table, found = _obey_qualifiers(path, table, above, options["station"])
    low = {str(c).lower(): c for c in table}
    if options["date_column"] is None and {"year", "month", "day"} <= set(low):
        used = [low["year"], low["month"], low["day"]]
        parts = table[used].astype(int).set_axis(["year", "month", "day"], axis=1)
        try:
            date = pd.to_datetime(parts)
        except ValueError as error:
            raise ValueError(f"{path}: a day that does not exist ({error})") from None
    else:
        used = [pick(path, table, options["date_column"], lambda c: c in _DATES, "date")]
        date = dates(path, table[used[0]], options["date_format"])
    name = _flow_column(path, table, used, options["column"])
    out = pd.DataFrame({"date": date, "flow": numbers(path, table[name])})
    marks = [c for c in table if _QUALIFIERS["symbol"].fullmatch(str(c).lower()) and c != name]
    ice = [
        table[c]
        .str.strip()
        .str.lower()
        .str.fullmatch(r"b|.*\bice\b.*|冰|" + ("1|true|yes" if c.lower() == "ice" else "b"))
        for c in marks
    ]
    if ice and (np.any(ice, axis=0).any() or "ice" in low):
        out["ice"] = np.any(ice, axis=0)
    unit = unit_of_column(path, str(name)) if "units" not in found and options["units"] is None else None
    return out, found if unit is None else found | {"units": unit}


def _flow_column(path: Path, table: pd.DataFrame, used: list, wanted) -> str:
    """Name of the flow column: as told, the only one that is left, or the only one so named."""
    if isinstance(wanted, int):
        return pick(path, table, wanted, None, "discharge")
    qualifies = [c for c in table if any(p.fullmatch(str(c).lower()) for p in _QUALIFIERS.values())]
    rest = table.drop(columns=[*used, *(c for c in qualifies if c != wanted)])
    if wanted is None and len(rest.columns) == 1:
        return rest.columns[0]
    return pick(
        path,
        rest,
        wanted,
        lambda c: bool(_FLOW.fullmatch(re.split(r"[^a-z0-9\u4e00-\u9fff]", c)[0])),
        "discharge",
    )
