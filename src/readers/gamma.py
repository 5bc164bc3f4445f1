"""GAMMA's tables of perpendicular baselines."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from readers.damage import regular_file


def with_gamma_baselines(stack: xr.Dataset, files: list[Path]) -> xr.Dataset:
    """Take the perpendicular baseline of each pair as the mean of GAMMA's table of it over the scene."""
    metres = {}
    for path in files:
        dates = re.search(r"(\d{8})-(\d{8})", path.name)
        text = regular_file(path).read_text(encoding="utf-8", errors="replace")
        rows = [line.split() for line in text.splitlines() if re.match(r"\s*\d+\s+\d+\s+[-\d.]+", line)]
        try:
            values = [float(row[7]) for row in rows]
        except (IndexError, ValueError):
            values = []
        if not dates or not values or not np.isfinite(values).all():
            raise ValueError(
                f"{path}: no table of perpendicular baselines (columns line, range, ..., bperp, blen)"
            )
        metres[dates.groups()] = float(np.mean(values))
    days = [
        tuple(pd.Timestamp(d).strftime("%Y%m%d") for d in pair)
        for pair in zip(stack["reference"].values, stack["secondary"].values, strict=True)
    ]
    values = [metres.get(pair, np.nan) for pair in days]
    return stack.assign_coords(perpendicular_baseline=("pair", values, {"units": "m"}))
