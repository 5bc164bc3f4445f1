"""Tables of results: one row per number that a figure, a text or RC1.md quotes."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd

from helpers.io.site import Site
from readers.damage import damage_named, regular_file

RESULT_COLUMNS = ["name", "value", "lower", "upper", "unit", "truth", "method"]
Z_95 = 1.96  # half-width of a 95 % interval in standard deviations, errors taken as Gaussian


class Results:
    """The numbers of a notebook, with 95 % limits and, on the twin, the truth.

    Parameters
    ----------
    site : Site
        A site whose notebook has begun (`Site.start`).
    notebook : str
        Stem of the notebook and of the table in ``site.results``.
    """

    def __init__(self, site: Site, notebook: str) -> None:
        self.site, self.notebook, self.rows = site, notebook, []

    def add(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        std: float | None = None,
        lower: float | None = None,
        upper: float | None = None,
        truth: float | None = None,
        method: str = "",
    ) -> None:
        """Add one number: its 95 % limits are given, or value -+ 1.96 std.

        Raises
        ------
        ValueError
            The name stands already, std and limits are both given, or the value lies outside its limits.
        """  # fmt: skip
        if name in (row["name"] for row in self.rows):
            raise ValueError(f"results of {self.notebook}: {name!r} is used twice")
        if std is not None:
            if lower is not None or upper is not None:
                raise ValueError(f"results of {self.notebook}: {name!r} has both std and limits; give one")
            lower, upper = value - Z_95 * std, value + Z_95 * std
        row = dict(name=name, value=value, lower=lower, upper=upper, unit=unit, truth=truth, method=method)
        if _number(lower) > value or _number(upper) < value:
            raise ValueError(f"results of {self.notebook}: {name!r} lies outside its own interval: {row}")
        self.rows.append(row)

    def add_table(
        self, table: pd.DataFrame, name: str, value: str, *, method: str = "", **columns: str
    ) -> None:
        """Add a row per row of a table.

        Parameters
        ----------
        table : DataFrame
        name, method : str
            Patterns filled from the row's columns and index levels: ``"rate_{epoch}_{zone}"``.
        value : str
            Column of the value.
        **columns : str
            ``unit`` as it is; std, lower, upper, truth: columns, ignored where the table has none of that name.
        """
        unit = columns.pop("unit")
        kept = {key: column for key, column in columns.items() if column in table}
        named = table.reset_index() if any(table.index.names) else table
        for row in named.to_dict("records"):
            numbers = {key: row[column] for key, column in kept.items()}
            self.add(name.format(**row), row[value], unit=unit, method=method.format(**row), **numbers)

    def write(self) -> pd.DataFrame:
        """Write the table beside the others, at once or not at all, with the digits that mean something.

        The committed table of the default site stays as it is where every number is within its tolerance
        (`tolerances`): the last digits of a table are those of the processor that made it. Remove the file to have
        it written anew.
        """
        table = pd.DataFrame([_rounded(row) for row in self.rows], columns=RESULT_COLUMNS)
        path = self.site.results / f"{self.notebook}.csv"
        self.site.record(path)
        if self.site.keeps_committed and path.is_file() and same_numbers(_read(path), table):
            return table
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n")
        part.replace(path)
        return table


def _number(value) -> float:
    return math.nan if value is None or isinstance(value, str) else float(value)


def _rounded(row: dict) -> dict:
    """Round a row: three digits of the interval's half-width, four of a number without interval, counts not at all.

    Decimals with an interval: 2 - floor(log10((upper - lower) / 2)), up to two more where the value would
    otherwise lose its second digit.
    """
    value = _number(row["value"])
    if not math.isfinite(value):
        return row
    half = (_number(row["upper"]) - _number(row["lower"])) / 2
    second = 1 - math.floor(math.log10(abs(value))) if value else 0
    if math.isfinite(half) and half > 0:
        decimals = 2 - math.floor(math.log10(half))
        decimals = max(decimals, min(second, decimals + 2))
    else:
        decimals = second + 2 if value else 4
    numbers = {key: _number(row[key]) for key in ("value", "lower", "upper", "truth")}
    return row | {k: v if _is_count(v) else round(v, decimals) for k, v in numbers.items()}


def _is_count(value: float) -> bool:
    return not math.isfinite(value) or value == round(value)


def tolerances(table: pd.DataFrame) -> pd.Series:
    """Say how far each number of a results table may move: other processors round otherwise.

    A quarter of the 95 % interval, where there is none 2 % of the value; what is known to move more has its own.
    """
    name, size = table["name"], table["value"].abs()
    quarter = (table["upper"] - table["lower"]) / 4
    out = quarter.where(quarter > 0, 0.02 * size + 1e-6)
    # forests take another split for a rounding: bootstrap shares of ranks move a little
    out = out.where(~name.str.startswith("rank_probability_"), out.clip(lower=0.1))
    # R2 is one less a ratio: near zero a share of its value says nothing of what rounding moves
    out = out.where(~name.str.startswith("r2_"), out.clip(lower=0.01))
    # the likelihood of the ground's noise is climbed to a few per cent, from whatever path rounding gives
    return out.where(~name.str.startswith(("deviation_", "delay_factor_")), out.clip(lower=0.1 * size))


def same_numbers(old: pd.DataFrame, new: pd.DataFrame) -> bool:
    """Say whether two results tables tell the same: equal rows and words, numbers within the tolerance of the old.

    Counts (whole numbers without an interval) have no tolerance.
    """
    words = [table[["name", "unit"]].fillna("").astype(str) for table in (old, new)]
    if len(old) != len(new) or not (words[0] == words[1]).all(axis=None):
        return False
    if not all(map(_same_text, old["method"].fillna(""), new["method"].fillna(""))):
        return False
    old_value, new_value = old["value"].astype(float), new["value"].astype(float)
    exact = old["lower"].isna() & (old_value % 1 == 0) & (new_value % 1 == 0)
    allowed = tolerances(old).where(~exact, 0.0).fillna(0.0)
    columns = [
        (old[key].astype(float), new[key].astype(float)) for key in ("value", "lower", "upper", "truth")
    ]
    return all(((a - b).abs() <= allowed).where(a.notna() | b.notna(), True).all() for a, b in columns)


_NUMERAL = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def _same_text(old: str, new: str) -> bool:
    """Words equal, and each number among them within 2 % or two units of its last decimal."""
    if _NUMERAL.split(old) != _NUMERAL.split(new):
        return False
    pairs = zip(_NUMERAL.findall(old), _NUMERAL.findall(new), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.02, abs_tol=_last_digits(a)) for a, b in pairs)


def _last_digits(numeral: str) -> float:
    return 2.001 * 10.0 ** -len(numeral.partition(".")[2]) if "." in numeral else 0.0


def _read(path: Path) -> pd.DataFrame:
    with damage_named(path, "remove it and run its notebook again"):
        table = pd.read_csv(regular_file(path), dtype={"unit": str, "method": str, "name": str})
        if list(table.columns) != RESULT_COLUMNS:
            raise ValueError(f"its columns are {', '.join(table.columns)}")
        return table


def read_results(folder: Path) -> pd.DataFrame:
    """Read every results table of a folder into one, with the column ``notebook``."""
    tables = []
    for path in sorted(folder.glob("[0-9][0-9]_*.csv")):
        tables.append(_read(path).assign(notebook=path.stem))
    if not tables:
        raise FileNotFoundError(f"{folder} holds no results table; run `make all` or `make quick` first")
    return pd.concat(tables, ignore_index=True)
