"""The numbers of the last run against the expected ones; `make all` and `make quick` end with this."""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import io

HERE = Path(__file__).parent
SIZE = os.environ.get("COMPENDIUM_RESULTS", "quick")


def _expected(size):
    path = HERE / f"expected_{size}.csv"
    return (
        pd.read_csv(path)
        if path.is_file()
        else pd.DataFrame(columns=["notebook", "name", "value", "tolerance"])
    )


@pytest.fixture(scope="module")
def results():
    return io.read_results(io.load_site(io.DEFAULT_SITE, SIZE).results).set_index(["notebook", "name"])


@pytest.mark.results
@pytest.mark.parametrize(
    "row", list(_expected(SIZE).itertuples(index=False)), ids=lambda r: f"{r.notebook}:{r.name}"
)
def test_number_is_as_expected(row, results):
    """Each number of the run lies within its own tolerance of the committed one."""
    assert (row.notebook, row.name) in results.index, f"{row.notebook} no longer gives {row.name}"
    value = results.loc[(row.notebook, row.name), "value"]
    if np.isnan(row.value):
        assert np.isnan(value), f"was not testable, is now {value}"
    else:
        assert value == pytest.approx(row.value, abs=row.tolerance, rel=0)


@pytest.mark.results
def test_no_number_is_unexpected(results):
    """A new number enters the expected table on purpose (`make expected`)."""
    known = set(_expected(SIZE)[["notebook", "name"]].itertuples(index=False, name=None))
    assert set(results.index) <= known, (
        f"not in expected_{SIZE}.csv: {sorted(set(results.index) - known)[:10]}"
    )


def write_expected(size: str) -> None:
    """Write the expected table: a quarter of the 95 % interval as tolerance, else 2 % (other CPUs round otherwise)."""
    table = io.read_results(io.load_site(io.DEFAULT_SITE, size).results)
    quarter = (table["upper"] - table["lower"]) / 4
    table["tolerance"] = quarter.where(quarter > 0, 0.02 * table["value"].abs() + 1e-6)
    # forests take another split for a rounding: bootstrap shares of ranks move a little
    ranks = table["name"].str.startswith("rank_probability_")
    table.loc[ranks, "tolerance"] = table.loc[ranks, "tolerance"].clip(lower=0.1)
    # the likelihood of the ground's noise is climbed to a few per cent, from whatever path rounding gives
    climbed = table["name"].str.startswith(("deviation_", "delay_factor_"))
    table.loc[climbed, "tolerance"] = table.loc[climbed, "tolerance"].clip(lower=0.1 * table["value"].abs())
    columns = ["notebook", "name", "value", "tolerance"]
    path = HERE / f"expected_{size}.csv"
    table[columns].to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    write_expected(sys.argv[1])
