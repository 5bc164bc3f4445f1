"""Fractions from daily reflector heights of GNSS-IR: real ground beside the twin; part of `thaw`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from .areas import Weighting, noise_inflation
from .fractions import fraction

BY_WINDOW = ["fraction_mean", "fraction_mean_std", "cv_year", "cv_year_lower", "cv_year_upper"]
BY_WINDOW += ["cv_noise", "n_years"]


def fractions_of_heights(path: str | Path, windows: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """Fractions by window and year of a file of daily reflector heights (m), July to September.

    Errors that last over days, as soil moisture gives them, are found in means of eight days and widen the sds.
    """
    heights = pd.read_csv(path, skipinitialspace=True)
    when = pd.to_datetime((heights["year"] * 1000 + heights["doy"]).astype(str), format="%Y%j").to_numpy()
    surface = xr.DataArray(-1000 * heights["rh (m)"].to_numpy(), {"time": when}, "time")
    error = xr.DataArray(1000 * heights["uncertainty (m)"].to_numpy(), {"time": when}, "time")
    summer = surface["time"].dt.month.isin([7, 8, 9])
    surface, error = surface[summer], error[summer]
    octad = surface["time"].dt.floor("8D")
    days = surface.groupby(octad)
    means, n = days.mean().rename(floor="time"), days.count().rename(floor="time")
    sd = np.sqrt((error**2).groupby(octad).mean().rename(floor="time") / n)
    factor = max(float(noise_inflation(means, sd)), 1.0)
    found = fraction(surface, error, windows, edge_days=8, weighting=Weighting(noise_factor=factor))
    columns = ["fraction", "fraction_noise", *BY_WINDOW]
    return found[columns].to_dataframe().reset_index()[["window", "year", *columns]]
