"""Fill a text with the run's own numbers: no number of RC1.md is typed by hand.

The text is a jinja2 template. ``{{ "05_thaw_scaling:cv_mid" | number }}`` becomes the value with its 95 % interval
and unit, ``| value`` the bare value, ``| interval`` the interval, ``| truth`` the twin's truth;
``{{ "07_recession:min_days" | parameter }}`` a choice, as it stands in the notebook's cell of parameters.
"""

from __future__ import annotations

import ast
import json
import math
import sys
from functools import cache
from pathlib import Path

import jinja2
import pandas as pd

from helpers.io.results import read_results
from helpers.io.site import ROOT


def fill(template: str, results: pd.DataFrame) -> str:
    """Replace every placeholder of a text by the number it names.

    Parameters
    ----------
    template : str
        Text with placeholders ``{{ "notebook:name" | number }}``.
    results : pandas.DataFrame
        As `io.read_results` gives it.

    Raises
    ------
    KeyError
        A placeholder names a number that the results do not hold; every such one is listed.
    """
    rows = {(row["notebook"], row["name"]): row for row in results.to_dict("records")}
    unknown = set()

    def write(place: str, form) -> str:
        try:
            return form(tuple(place.split(":")))
        except KeyError:
            unknown.add(place)
            return ""

    text = jinja2.Environment(keep_trailing_newline=True, autoescape=False)
    forms = {name: (lambda key, form=form: form(rows[key])) for name, form in _FORMS.items()}
    forms["parameter"] = lambda key: str(parameters(key[0])[key[1]])
    text.filters |= {name: (lambda place, form=form: write(place, form)) for name, form in forms.items()}
    filled = text.from_string(template).render()
    if unknown:
        raise KeyError(f"no such number in the results: {', '.join(sorted(unknown))}")
    return filled


@cache
def parameters(notebook: str) -> dict:
    """Give the parameters of a notebook as its tagged cell sets them; none where there is no such notebook."""
    path = ROOT / "notebooks" / f"{notebook}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.is_file() else []
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    return {node.target.id: ast.literal_eval(node.value) for text in tagged for node in ast.parse(text).body}


def _short(row: dict, key: str) -> str:
    """Write a number to a hundredth of its interval's size, or with three digits where it has none."""
    value, width = row[key], row["upper"] - row["lower"]
    if pd.isna(value):
        return "not testable"
    if width > 0:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(width)))}f}"
    else:
        text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _unit(row: dict) -> str:
    unit = {"1": "", 1: "", "day": " days"}.get(row["unit"], f" {row['unit']}")
    return unit.replace(" yr-1", "/yr")


def _interval(row: dict) -> str:
    return "" if pd.isna(row["lower"]) else f"[{_short(row, 'lower')}, {_short(row, 'upper')}]"


def _full(row: dict) -> str:
    return " ".join(filter(None, [_short(row, "value"), _interval(row)])) + _unit(row)


_FORMS = {
    "number": _full,
    "value": lambda row: _short(row, "value"),
    "interval": _interval,
    "truth": lambda row: _short(row, "truth") + _unit(row),
}

if __name__ == "__main__":
    source, tables, target = map(Path, sys.argv[1:])
    answer = fill(source.read_text(encoding="utf-8"), read_results(tables))
    part = target.with_name(target.name + ".part")
    part.write_text(answer, encoding="utf-8")
    part.replace(target)
