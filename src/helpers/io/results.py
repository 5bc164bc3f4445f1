"""Tables of results: one row per number that a figure, a text or RC1.md quotes."""

from __future__ import annotations

import math
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
        if _number(row, "lower") > value or _number(row, "upper") < value:
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
        """Write the table beside the others, at once or not at all."""
        return write_results(self.site, self.notebook, self.rows)


def write_results(site: Site, notebook: str, rows: list[dict]) -> pd.DataFrame:
    """Write the numbers of a notebook: a row each, with 95 % limits and, on the twin, the truth.

    Parameters
    ----------
    rows : list of dict
        Keys name, value, lower, upper, unit, truth, method; lower, upper and truth may be absent.
        Names are unique within a table.

    Raises
    ------
    ValueError
        An unknown key, a missing name, value or unit, a name used twice, or limits on the wrong side.
    """
    for row in rows:
        unknown, missing = set(row) - set(RESULT_COLUMNS), {"name", "value", "unit"} - set(row)
        if unknown or missing:
            raise ValueError(f"results of {notebook}: row {row.get('name')!r} has {unknown=}, {missing=}")
        if _number(row, "lower") > row["value"] or _number(row, "upper") < row["value"]:
            raise ValueError(f"results of {notebook}: {row['name']!r} lies outside its own interval: {row}")
    table = pd.DataFrame(rows).reindex(columns=RESULT_COLUMNS)
    if table["name"].duplicated().any():
        twice = sorted(table.loc[table["name"].duplicated(), "name"])
        raise ValueError(f"results of {notebook}: names used twice: {', '.join(twice)}")
    path = site.results / f"{notebook}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
    part.replace(path)
    site.record(path)
    return table


def _number(row: dict, key: str) -> float:
    value = row.get(key)
    return math.nan if value is None or isinstance(value, str) else float(value)


def read_results(folder: Path) -> pd.DataFrame:
    """Read every results table of a folder into one, with the column ``notebook``."""
    tables = []
    for path in sorted(folder.glob("[0-9][0-9]_*.csv")):
        with damage_named(path, "run its notebook again"):
            table = pd.read_csv(regular_file(path))
            if list(table.columns) != RESULT_COLUMNS:
                raise ValueError(f"its columns are {', '.join(table.columns)}")
            tables.append(table.assign(notebook=path.stem))
    if not tables:
        raise FileNotFoundError(f"{folder} holds no results table; run `make all` or `make quick` first")
    return pd.concat(tables, ignore_index=True)
