"""What the calendar of one sensor does to a rate: imposed on the dense series of another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from helpers import sbas
from helpers.space import resample, track_name
from helpers.timefunc import linear_annual_rate

MAX_DAYS = 12  # a date of a moved calendar is at most this far from the date that stands for it
KNOWN_MM_YR = 10.0  # pixels whose thinned rate has a larger sd are left out


def thin(series: xr.DataArray, stack: xr.Dataset, start: int) -> xr.Dataset:
    """Interferograms of this series on the calendar of another sensor.

    The dates of `stack` move by whole years so that the first falls in the year `start`; each takes the value of the
    nearest date of `series`, and a pair is dropped if either date has none within MAX_DAYS. `series` is (time, y, x) in
    mm toward the satellite, `stack` (pair, y, x) on its grid; returns `stack` with unwrapped_phase (rad, positive away)
    from the series, all else kept.
    """
    if any(series.sizes[d] != stack.sizes[d] for d in "yx"):
        raise ValueError("thin: series and stack are on different grids; resample the stack first")
    shift = int(start) - pd.DatetimeIndex(stack.reference.values).min().year
    available = pd.DatetimeIndex(series.time.values)

    def place(dates):
        moved = pd.DatetimeIndex(dates) + pd.DateOffset(years=shift)
        nearest = available.get_indexer(moved, method="nearest")
        return nearest, np.abs((available[nearest] - moved).days) <= MAX_DAYS

    (first, ok_1), (second, ok_2) = place(stack.reference.values), place(stack.secondary.values)
    keep = np.flatnonzero(ok_1 & ok_2 & (first < second))
    if keep.size == 0:
        span, name = f"{available[0]:%Y-%m-%d}..{available[-1]:%Y-%m-%d}", track_name(stack, 0)
        raise ValueError(f"thin: no pair of {name} moved by {shift} years falls on the series ({span})")
    out = stack.isel(pair=keep)
    ends = {"reference": first[keep], "secondary": second[keep]}
    before, after = (series.isel(time=xr.DataArray(k, dims="pair")).drop_vars("time") for k in ends.values())
    # phase = -4 pi / wavelength displacement: positive is away from the satellite, displacement toward it
    phase = -4 * np.pi / stack.attrs["wavelength_m"] * (after - before) / 1000
    out["unwrapped_phase"] = phase.where(np.isfinite(out.unwrapped_phase)).astype("f4")
    out = out.assign_coords({name: ("pair", available[k].values) for name, k in ends.items()})
    return out.assign_attrs(calendar_of=track_name(stack, 0), shift_years=shift)


def thinning_error(own: xr.Dataset, stack: xr.Dataset, years: Iterable[int], **ground: float) -> xr.DataArray:
    """Rate from thinned pairs less that of the full series over the same years, vertical, mm/yr.

    It includes the noise of the series on the thinned dates; NaN where the thinned rate is poorly known.

    Parameters
    ----------
    own : Dataset
        displacement (time, y, x) in mm toward the satellite and los_up (y, x) of the dense series.
    stack : Dataset (pair, y, x), any grid
        Its calendar, coherence and delay (`atmosphere_std`) are imposed, from each of the starting `years` on.
    **ground : deviation_std_mm and deviation_days of `sbas.invert`.
    """
    delay = float(stack["atmosphere_std"].median())
    on_grid = resample(stack[["unwrapped_phase", "coherence"]], own).assign_attrs(stack.attrs)
    runs = []
    for year in years:
        few = sbas.invert(thin(own["displacement"], on_grid, year), atmosphere_std_mm=delay, **ground)
        span = slice(few.time.values[0], few.time.values[-1])
        full = linear_annual_rate(own["displacement"].sel(time=span))
        error = ((few["rate"] - full) / own["los_up"]).where(few["rate_std"] < KNOWN_MM_YR)
        runs.append(error.drop_vars("time", errors="ignore").expand_dims(start=[year]))
    return xr.concat(runs, "start", coords="minimal", compat="override")
