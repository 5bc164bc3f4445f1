"""Driver layers as satellites and maps would give them, and the true importance of each group."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from .ground import Table
from .motion import cold_factor, moisture_factor
from .physics import Physics, Switches
from .terrain import MASTER, random_field
from .weather import stream


class Layer(NamedTuple):
    """A driver as its product gives it; `error` is the sd of its error, `bounds` the range of its values."""

    unit: str
    long_name: str
    crs: str
    cell_m: int
    error: float
    bounds: tuple[float, float] = (-np.inf, np.inf)


_UTM, _DEGREES = "EPSG:32647", "EPSG:4326"
LAYERS = {
    "elevation": Layer("m", "height above sea level", _DEGREES, 200, 5.0),
    "lst": Layer("degC", "mean land surface temperature of the thaw season", _UTM, 1000, 0.7),
    "precipitation": Layer("mm yr-1", "annual precipitation", _UTM, 1000, 25.0),
    "snow_cover": Layer("1", "share of the year with snow on the ground", _UTM, 500, 0.04, (0, 1)),
    "ndvi": Layer(
        "1", "normalised difference vegetation index of July and August", _DEGREES, 200, 0.03, (-0.1, 1)
    ),
    "soil_moisture": Layer("m3 m-3", "soil moisture of the upper 0.5 m", _UTM, 500, 0.03, (0.02, 0.6)),
    "ground_ice": Layer(
        "1", "ground ice index of the permafrost map, 0 none to 1 rich", _UTM, 500, 0.10, (0, 1)
    ),
    "albedo": Layer("1", "surface albedo of the thaw season after 2015", _UTM, 500, 0.01, (0.02, 0.6)),
    "albedo_change": Layer("1", "albedo after 2015 less albedo before 2003", _UTM, 500, 0.008),
}
GROUPS = ("climate", "terrain", "vegetation and moisture", "ground ice", "distance to mine", "albedo")


def darkening(fields: dict[str, np.ndarray], on: Switches) -> np.ndarray:
    """Change of albedo, after less before: dust near the mine and changes that have nothing to do with it."""
    dust = -0.08 * np.exp(-fields["distance"] / 3.0) * on.mining
    return dust + 0.02 * fields["darkening_noise"]


def true_layers(fields: dict[str, np.ndarray], p: Physics) -> dict[str, np.ndarray]:
    """Noise-free layers on the grid of `fields` (which hold ``darkening``)."""
    z, wet, rock = fields["elevation"], fields["wetness"], fields["rock"]
    albedo = 0.19 + 0.025 * fields["albedo_noise"] + fields["darkening"]
    albedo = albedo - 0.07 * fields["north_east"] - 0.02 * (wet - 0.5)
    return {
        "elevation": z,
        "lst": 11.5 - p.lapse_c_km * (z - 4000) / 1000 - 1.5 * (wet - 0.5) + 6 * (0.19 - albedo),
        "precipitation": p.precipitation_mm_yr * (1 + 0.25 * (z - 4000) / 1000),
        "snow_cover": np.clip(0.30 + 0.35 * (z - 4000) / 1000, 0.02, 0.95),
        "ndvi": fields["vegetation"],
        "soil_moisture": 0.12 + 0.30 * wet * (1 - 0.7 * rock),
        "ground_ice": fields["ice"] * fields["permafrost"] * (1 - rock),
        "albedo": np.clip(albedo, 0.03, 0.5),
        "albedo_change": fields["darkening"],
    }


def observed_layers(layers: dict[str, np.ndarray], seed: int, on: Switches) -> dict[str, np.ndarray]:
    """The layers with the errors of their products, half of the variance smooth over kilometres."""
    rng = stream(seed, "driver errors")
    out = {}
    for name, value in layers.items():
        error = 0.0
        layer = LAYERS[name]
        if on.noise:
            smooth = random_field(rng, value.shape, MASTER.cell_km, length_km=1.5)
            error = layer.error * np.sqrt(0.5) * (smooth + rng.normal(size=value.shape))
        out[name] = np.clip(value + error, *layer.bounds)
    return out


def generator(
    x: dict[str, np.ndarray], table: Table, trend: np.ndarray, strength, p: Physics, on: Switches
) -> np.ndarray:
    """Noise-free vertical rate after mining (mm/yr) of pixels described by their true drivers.

    Parameters
    ----------
    x : dict
        elevation, ice (index incl. permafrost and rock: 0 none), wetness, distance, darkening; (pixel,).
    trend : ndarray, (2, column)
        Rate of the undisturbed columns, and of what mining adds, mm/yr: the interpolation table.
    strength : tuple of float
        Rate per unit of the climate, mining and albedo courses.
    """
    column, weight = table.weights(x["elevation"], x["ice"], x["wetness"])
    share = weight * (1 - x["rock"])[:, None]
    near = np.exp(-x["distance"] / p.disturbed_reach_km)
    rate = (trend[0][column] * share).sum(1) + near * (trend[1][column] * share).sum(1)
    thermal = x["ice"] * x["permafrost"] * (1 - x["rock"]) * cold_factor(x["elevation"], p)
    wet = thermal * moisture_factor(x["wetness"], p)
    rate = rate + strength[0] * p.climate_rate_mm_yr * wet
    rate = rate + strength[1] * p.mining_rate_mm_yr * wet * np.exp(-x["distance"] / p.mining_reach_km)
    if on.albedo_effect:
        rate = rate + strength[2] * p.albedo_rate_mm_yr * wet * np.clip(-x["darkening"], 0, None) / 0.08
    return rate


#: which inputs of the generator each group of drivers describes
_INPUTS = {
    "climate": ("elevation",),
    "terrain": (),
    "vegetation and moisture": ("wetness",),
    "ground ice": ("ice", "permafrost", "rock"),
    "distance to mine": ("distance",),
    "albedo": ("darkening",),
}


_PERMUTATIONS = 20


def importance(x, table, trend, strength, seed: int, p: Physics, on: Switches) -> xr.DataArray:
    """True grouped permutation importance: loss of R2 of the generator when a group is shuffled over the pixels."""
    rng = stream(seed, "importance")
    whole = generator(x, table, trend, strength, p, on)
    out = []
    for group in GROUPS:
        names = _INPUTS[group]
        loss = []
        for _ in range(_PERMUTATIONS if names else 1):
            order = rng.permutation(whole.size)
            mixed = {name: value[order] if name in names else value for name, value in x.items()}
            again = generator(mixed, table, trend, strength, p, on)
            loss.append(np.mean((again - whole) ** 2) / np.var(whole))
        out.append(np.mean(loss))
    return xr.DataArray(
        np.array(out), {"group": list(GROUPS)}, "group", attrs={"long_name": "loss of R2", "units": "1"}
    )
