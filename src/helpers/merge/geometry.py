"""Viewing geometry: vertical and east rates from line-of-sight rates.

Line-of-sight values are mm/yr positive toward the satellite, vertical ones positive up.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr

from helpers.space import resample, track_name

LOS = ("los_east", "los_north", "los_up")
UNITS = dict.fromkeys(("displacement", "displacement_std"), ("mm",))
UNITS |= dict.fromkeys(("rate", "rate_std"), ("mm yr-1", "mm/yr", "mm a-1", "mm/a", "mm yr^-1", "mm/year"))


def require(track: xr.Dataset, names: Sequence[str], number: int) -> None:
    """Raise a ValueError that names the track and what it lacks, or what has another unit or sign."""
    who = track_name(track, number)
    if missing := [n for n in names if n not in track]:
        found = ", ".join(map(str, track.data_vars))
        raise ValueError(f"{who}: no variable {', '.join(missing)} (found {found})")
    for name in UNITS.keys() & set(track.data_vars):
        if (unit := track[name].attrs.get("units", UNITS[name][0])) not in UNITS[name]:
            raise ValueError(f"{who}: {name} is in {unit!r}, expected {UNITS[name][0]!r}; convert it first")
    if "los_up" in names and bool((track["los_up"] < 0).any()):
        raise ValueError(
            f"{who}: los_up is negative; the look vector points from the ground to the satellite"
        )


def _described(rates: xr.Dataset) -> xr.Dataset:
    """Rates with their units and names."""
    for name, values in rates.items():
        unit = "1" if "leak" in name else "mm yr-1"
        values.attrs = {"units": unit, "long_name": name.replace("_", " ") + " rate"}
    return rates


def decompose(tracks: Sequence[xr.Dataset], *, north_std_mm_yr: float | xr.DataArray = 3.0) -> xr.Dataset:
    """East and up rates from line-of-sight rates of two or more directions.

    Weighted least squares per pixel for (east, up), north neglected: r = los_east E + los_up U.

    Parameters
    ----------
    tracks : list of Dataset
        Each with rate, rate_std (mm/yr, toward the satellite), los_east, los_north, los_up on (y, x), any grids.
    north_std_mm_yr : float or DataArray (y, x)
        Assumed sd of the neglected north rate; stored as `north_std`.

    Returns
    -------
    Dataset (y, x) on the first track's grid
        up, up_std, east, east_std, north_std (mm/yr) and north_leak_up, north_leak_east: error per mm/yr of neglected
        north motion; the sd's leave out ``north_leak * north_std``. NaN where fewer than two tracks see the pixel.
    """
    tracks = list(tracks)
    if len(tracks) < 2:
        raise ValueError(f"decompose: {len(tracks)} track(s); two directions are needed")
    names = ["rate", "rate_std", *LOS]
    for i, track in enumerate(tracks):
        require(track, names, i)
        if bool((track.rate_std == 0).sum() > 0.5 * np.isfinite(track.rate).sum()):
            who = track_name(track, i)
            raise ValueError(
                f"{who}: rate_std is 0 (a rate held by a constraint); tracks are weighed by their sd"
            )
    spans = [t.attrs for t in tracks if {"rate_start", "rate_end"} <= set(t.attrs)]
    if spans and max(str(s["rate_start"]) for s in spans) >= min(str(s["rate_end"]) for s in spans):
        warnings.warn(
            "decompose: the tracks' rates are of disjoint intervals (rate_start, rate_end)", stacklevel=2
        )
    on_grid = [resample(t[names], tracks[0]) for t in tracks]
    # normal equations of r = e E + u U with weights w = 1 / sd^2; sums over tracks are named by their factors:
    # [ee eu; eu uu] (E, U)' = (er, ur)', whose right side gains (en, un)' per mm/yr of north rate
    ee = eu = uu = er = ur = en = un = n = 0.0
    for t in on_grid:
        seen = np.isfinite(t.rate) & np.isfinite(t.rate_std) & np.isfinite(t.los_up)
        w = xr.where(seen, 1.0 / np.maximum(t.rate_std, 1e-6) ** 2, 0.0)
        e, north, u, rate = (v.where(seen, 0.0) for v in (t.los_east, t.los_north, t.los_up, t.rate))
        ee, eu, uu = ee + w * e * e, eu + w * e * u, uu + w * u * u
        er, ur = er + w * e * rate, ur + w * u * rate
        en, un = en + w * e * north, un + w * u * north
        n = n + seen
    det = ee * uu - eu**2
    # two looks from the same side leave E and U inseparable: no number is better than one of 1e6 mm/yr
    det = det.where((n >= 2) & (det > 1e-8 * ee * uu))
    east_std, up_std = np.sqrt(uu / det), np.sqrt(ee / det)
    north_std = xr.full_like(det, 1.0).where(np.isfinite(det)) * north_std_mm_yr
    out = {
        "up": (ee * ur - eu * er) / det, "up_std": up_std,
        "east": (uu * er - eu * ur) / det, "east_std": east_std,
        "north_std": north_std,
        "north_leak_up": (ee * un - eu * en) / det, "north_leak_east": (uu * en - eu * un) / det,
    }  # fmt: skip
    out = _described(xr.Dataset(out).transpose("y", "x"))
    return out.assign_attrs(tracks=", ".join(track_name(t, i) for i, t in enumerate(tracks)))


def project_up(track: xr.Dataset) -> xr.Dataset:
    """Vertical rate of one track, horizontal motion neglected: up = rate / los_up, up_std in mm/yr (y, x)."""
    require(track, ["rate", "rate_std", *LOS], 0)
    out = xr.Dataset({"up": track.rate / track.los_up, "up_std": track.rate_std / np.abs(track.los_up)})
    return _described(out).assign_attrs(sensor=track_name(track, 0))


def east_on_grid(east: xr.Dataset | xr.DataArray | None, like: xr.Dataset | xr.DataArray) -> tuple:
    """East rate and its sd on the grid of `like`; zeros where none is given."""
    if east is None:
        return 0.0, 0.0
    data = east if isinstance(east, xr.Dataset) else east.to_dataset(name="east")
    data = resample(data[[v for v in ("east", "east_std") if v in data]], like)
    return data["east"], data["east_std"] if "east_std" in data else xr.zeros_like(data["east"])


def horizontal_std(rate: xr.DataArray, std: xr.DataArray, otherwise: float) -> float:
    """Sd of the true horizontal rate over some ground, from estimates with known noise.

    The central 95 % of the rates as a normal distribution has them, (q97.5 - q2.5) / 3.92, less the noise in
    quadrature: var(true) = var(estimates) - median(std^2). NaN is left out; `otherwise` stands for 30 pixels or fewer.
    """
    limits = np.nanpercentile(rate, [2.5, 97.5]) if rate.notnull().any() else [0.0, 0.0]
    variance = ((limits[1] - limits[0]) / 3.92) ** 2 - (std.where(rate.notnull()) ** 2).median()
    return float(np.sqrt(max(variance, 0))) if rate.notnull().sum() > 30 else otherwise


def geometry_error(tracks: dict[str, xr.Dataset], contribution: xr.DataArray, unknown: dict) -> xr.DataArray:
    """Sd (mm/yr) of joined vertical rates by horizontal motion that nobody corrected.

    Sensor s reads a rate h along axis d as los_d / los_up h; the joined rate takes the share c_s of it:
    var = sum_d (std_d sum_s c_s los_d,s / los_up,s)^2. Tracks by sensor; `contribution` is the record's
    `sensor_contribution`, `unknown` the std_d (y, x) by name: los_east, los_north.
    """

    def sensitivity(axis):
        return sum(contribution.sel(sensor=s) * (t[axis] / t["los_up"]) for s, t in tracks.items())

    out = np.sqrt(sum((std * sensitivity(axis)) ** 2 for axis, std in unknown.items()))
    return out.transpose("epoch", "y", "x").assign_attrs(
        units="mm yr-1", long_name="error by horizontal motion"
    )
