"""Fill a text with the run's own numbers: no number of RC1.md is typed by hand.

A placeholder ``{{05_thaw_scaling:cv_mid}}`` becomes the value with its 95 % interval and unit;
``{{05_thaw_scaling:cv_mid|value}}`` the bare value, ``|interval`` the interval, ``|truth`` the twin's truth;
``{{07_recession:min_days|parameter}}`` a choice, as it stands in the notebook's cell of parameters.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from functools import cache
from pathlib import Path

import pandas as pd

from helpers.io.results import read_results
from helpers.io.site import ROOT

_PLACEHOLDER = re.compile(r"\{\{(\w+):([\w.+-]+)(?:\|(\w+))?\}\}")


def fill(template: str, results: pd.DataFrame) -> str:
    """Replace every placeholder of a text by the number it names.

    Parameters
    ----------
    template : str
        Text with placeholders ``{{notebook:name}}`` or ``{{notebook:name|part}}``.
    results : pandas.DataFrame
        As `io.read_results` gives it.

    Raises
    ------
    KeyError
        A placeholder names a number that the results do not hold; every such one is listed.
    """
    table = results.set_index(["notebook", "name"])
    unknown = [m.group(0) for m in _PLACEHOLDER.finditer(template) if not _known(m, table)]
    if unknown:
        raise KeyError(f"no such number in the results: {', '.join(sorted(set(unknown)))}")
    return _PLACEHOLDER.sub(lambda m: _number(m, table), template)


def _known(placeholder: re.Match, table: pd.DataFrame) -> bool:
    notebook, name, part = placeholder.groups()
    return name in parameters(notebook) if part == "parameter" else (notebook, name) in table.index


def _number(placeholder: re.Match, table: pd.DataFrame) -> str:
    notebook, name, part = placeholder.groups()
    if part == "parameter":
        return str(parameters(notebook)[name])
    return _written(table.loc[(notebook, name)], part or "all")


@cache
def parameters(notebook: str) -> dict:
    """Give the parameters of a notebook as its tagged cell sets them; none where there is no such notebook."""
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.is_file() else []
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    return {node.target.id: ast.literal_eval(node.value) for text in tagged for node in ast.parse(text).body}


def _written(row: pd.Series, part: str) -> str:
    unit = "" if row["unit"] in ("1", 1) else f" {'days' if row['unit'] == 'day' else row['unit']}"
    unit = unit.replace(" yr-1", "/yr")
    width = row["upper"] - row["lower"]
    value, lower, upper, truth = (_short(row[k], width) for k in ("value", "lower", "upper", "truth"))
    interval = f"[{lower}, {upper}]" if pd.notna(row["lower"]) else ""
    forms = {
        "value": value,
        "interval": interval,
        "truth": truth + unit,
        "all": " ".join(filter(None, [value, interval])) + unit,
    }
    if part not in forms:
        raise KeyError(f"a placeholder asks for {part!r}; it can be {', '.join(forms)}")
    return forms[part]


def _short(value: float, width: float) -> str:
    """Write a number to a hundredth of its interval's size, or with three digits where it has none."""
    if pd.isna(value):
        return "not testable"
    if width > 0:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(width)))}f}"
    else:
        text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def main(template: str, results: str, target: str) -> None:
    """Write ``target`` from a template and a folder of results tables, whole or not at all."""
    text = fill(Path(template).read_text(encoding="utf-8"), read_results(Path(results)))
    part = Path(target + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
