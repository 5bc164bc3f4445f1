"""Freezing and thawing ground: one-dimensional heat conduction with latent heat in soil columns.

The surface moves because water expands on freezing and ice lenses grow. Nothing here knows degree days
or sinusoids: the shape of the seasonal curve follows from weather, snow, layers and the zero curtain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
import xarray as xr

from .physics import Physics
from .weather import REFERENCE_HEIGHT_M, snow_depth

DAY_S = 86400.0
LATENT = 334e6  # J/m3 of water
HEAT = {"mineral": 2.0e6, "peat": 2.5e6, "water": 4.18e6, "ice": 1.93e6}  # J/m3/K
CONDUCTIVITY = {"mineral": 2.7, "peat": 0.25, "water": 0.57, "ice": 2.2, "air": 0.10}  # W/m/K
FROST_BASE_M = 3.0  # below it the ground is gravel and rock that freezing does not lift
#: nodes of elevation (m), ice and wetness (0-1) by size of the twin
NODES = {
    "quick": ([3550.0, 3700, 3850, 4050, 4350, 4800], np.linspace(0, 1, 4), np.linspace(0, 1, 3)),
    "full": (
        [3550.0, 3650, 3750, 3850, 3950, 4100, 4250, 4400, 4600, 4850],
        np.linspace(0, 1, 6),
        np.linspace(0, 1, 4),
    ),
}
_BLOCK = 48


@dataclass(frozen=True)
class Table:
    """Columns on a grid of (elevation, ice, wetness), to be interpolated to pixels.

    ``motion`` (disturbed, column, day): vertical position of the surface in mm, 0 when frozen through, negative
    when thawed. ``thaw_depth`` (disturbed, column, year): deepest thaw in m.
    """

    elevation: np.ndarray
    ice: np.ndarray
    wetness: np.ndarray
    motion: np.ndarray
    thaw_depth: np.ndarray
    base_temperature: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of nodes."""
        return len(self.elevation), len(self.ice), len(self.wetness)

    def weights(self, elevation, ice, wetness) -> tuple[np.ndarray, np.ndarray]:
        """Trilinear interpolation: column numbers and weights, each (pixel, 8)."""
        nodes, values = (self.elevation, self.ice, self.wetness), (elevation, ice, wetness)
        parts = [_bracket(n, np.ravel(v)) for n, v in zip(nodes, values, strict=True)]
        _, ni, nw = self.shape
        columns, weights = [], []
        for i in range(8):
            bits = (i >> 2) & 1, (i >> 1) & 1, i & 1
            index = [low + bit for (low, _), bit in zip(parts, bits, strict=True)]
            share = [frac if bit else 1 - frac for (_, frac), bit in zip(parts, bits, strict=True)]
            columns.append((index[0] * ni + index[1]) * nw + index[2])
            weights.append(share[0] * share[1] * share[2])
        return np.stack(columns, 1), np.stack(weights, 1)


def _bracket(nodes: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.clip(np.searchsorted(nodes, values, side="right") - 1, 0, len(nodes) - 2)
    return low, np.clip((values - nodes[low]) / (nodes[low + 1] - nodes[low]), 0, 1)


def cells() -> np.ndarray:
    """Thickness of the cells (m): 10 cm to 1.8 m, then growing, 12 m in all."""
    fine = np.full(18, 0.10)
    coarse = 0.10 * 1.30 ** np.arange(1, 13)
    return np.concatenate([fine, coarse])


def layers(ice: np.ndarray, wetness: np.ndarray, p: Physics) -> dict[str, np.ndarray]:
    """Material of each cell and column, arrays (cell, column).

    Returns
    -------
    dict
        heat_frozen, heat_thawed (J/m3/K), latent (J/m3), conductivity_frozen, conductivity_thawed (W/m/K) and
        strain (m of lift per m of cell when it freezes).
    """
    dz = cells()
    z = (np.cumsum(dz) - dz / 2)[:, None]
    wet, ice = np.asarray(wetness)[None, :], np.asarray(ice)[None, :]
    peat = z < p.peat_min_m + p.peat_gain_m * wet
    deep = z > FROST_BASE_M
    porosity = np.where(peat, p.peat_porosity, np.where(deep, p.deep_porosity, p.silt_porosity))
    saturation = np.clip(p.saturation_dry + p.saturation_gain * wet + 0.15 * (z / FROST_BASE_M), 0, 1)
    edge = 0.15
    rich = 0.5 * (np.tanh((z - p.ice_layer_top_m) / edge) - np.tanh((z - p.ice_layer_base_m) / edge))
    porosity = porosity + p.excess_ice * ice * rich * (1 - porosity)
    saturation = saturation + (1 - saturation) * rich * ice
    water = porosity * saturation
    solid = np.where(peat, CONDUCTIVITY["peat"], CONDUCTIVITY["mineral"])

    def mix(phase: str) -> np.ndarray:
        parts = (1 - porosity) * np.log(solid) + water * np.log(CONDUCTIVITY[phase])
        return np.exp(parts + (porosity - water) * np.log(CONDUCTIVITY["air"]))

    body = (1 - porosity) * np.where(peat, HEAT["peat"], HEAT["mineral"])
    # water in soil short of saturation freezes into air: only the nearly saturated part lifts the surface
    filled = np.clip((saturation - 0.6) / 0.4, 0, 1)
    strain = p.pore_efficiency * p.water_expansion * water * filled + p.lens_strain * ice * rich
    return {
        "heat_frozen": body + water * HEAT["ice"],
        "heat_thawed": body + water * HEAT["water"],
        "latent": np.maximum(water, 0.02) * LATENT,
        "conductivity_frozen": mix("ice"),
        "conductivity_thawed": mix("water"),
        "strain": np.where(deep, 0.0, strain),
    }


@numba.njit(cache=True, fastmath=True)
def _flux(gf, gu, liquid, liquid_below, t, t_below, q_below):
    """Heat flow (W/m2, down) out of the base of every cell but the lowest; flat arrays."""
    for k in range(q_below.size):
        q_below[k] = (gf[k] + gu[k] * (liquid[k] + liquid_below[k])) * (t[k] - t_below[k])


class State(NamedTuple):
    """Enthalpy (MJ/m3), temperature (degC) and liquid share of every cell; flat arrays."""

    h: np.ndarray
    t: np.ndarray
    liquid: np.ndarray


class Capacity(NamedTuple):
    """Latent heat of a cell, the inverse of it and of both heat capacities, dt / dz of a step; flat arrays."""

    latent: np.ndarray
    i_latent: np.ndarray
    i_frozen: np.ndarray
    i_thawed: np.ndarray
    rate: np.ndarray


class Surface(NamedTuple):
    """Air (day), its lapse, n-factors, resistance of snow (day, column), temperature at the start (column)."""

    air: np.ndarray
    lapse: np.ndarray
    n_thaw: np.ndarray
    n_freeze: np.ndarray
    resistance: np.ndarray
    start: np.ndarray


class Soil(NamedTuple):
    """Material (cell, column): heat capacities, latent heat, conductivities, frozen and thawed; lift (mm)."""

    cf: np.ndarray
    cu: np.ndarray
    lat: np.ndarray
    kf: np.ndarray
    ku: np.ndarray
    lift: np.ndarray


@numba.njit(cache=True, fastmath=True)
def _store(state, q, q_below, capacity, dtf):
    """Add the heat that stays in every cell; temperature and liquid share follow from enthalpy."""
    h, t, liquid = state
    latent, i_latent, i_frozen, i_thawed, rate = capacity
    zero, one = np.float32(0), np.float32(1)
    for k in range(h.size):
        # enthalpy: dh = dt (q_in - q_out) / dz; between 0 and the latent heat the cell stays at the freezing range
        e = h[k] + rate[k] * (q[k] - q_below[k])
        part = min(max(e, zero), latent[k])
        frozen = min(e, zero)
        share = part * i_latent[k]
        h[k] = e
        liquid[k] = share
        t[k] = dtf * (share - one) + frozen * i_frozen[k] + (e - part - frozen) * i_thawed[k]


@numba.njit(cache=True, fastmath=True)
def conduct(surface, soil, dz, flux, dtf, steps):
    """March one block of columns through all days; explicit in enthalpy, so energy is kept to rounding.

    Enthalpy (MJ/m3) is 0 where the last water freezes (at -dtf) and ``lat`` where the last ice melts (at 0 degC).
    All arrays float32: `surface` a Surface, `soil` a Soil, `dz` (cell) m. Returns motion and front (column, day)
    and the temperature of the lowest cell (column, day). Inside, arrays are flat (cell by cell), and neighbours are
    views taken once: only so does the compiler use vector instructions.
    """
    air, lapse, n_thaw, n_freeze, resistance, start = surface
    cf, cu, lat, kf, ku, lift = soil
    days = air.size
    n, w = cf.shape
    motion = np.empty((w, days), np.float32)
    front = np.empty((w, days), np.float32)
    base = np.empty((w, days), np.float32)
    h, t, liquid = np.empty(n * w, np.float32), np.empty(n * w, np.float32), np.empty(n * w, np.float32)
    q = np.zeros((n + 1) * w, np.float32)
    gf, gu = np.zeros((n - 1) * w, np.float32), np.zeros((n - 1) * w, np.float32)
    rate = np.empty(n * w, np.float32)
    latent, i_frozen, i_thawed = np.empty_like(h), np.empty_like(h), np.empty_like(h)
    for i in range(n):
        for j in range(w):
            k = i * w + j
            latent[k], i_frozen[k], i_thawed[k] = lat[i, j], 1 / cf[i, j], 1 / cu[i, j]
            rate[k] = DAY_S * 1e-6 / steps / dz[i]
            warm = start[j] >= -dtf
            h[k] = lat[i, j] + max(start[j], 0) * cu[i, j] if warm else (start[j] + dtf) * cf[i, j]
            liquid[k] = 1.0 if warm else 0.0
            t[k] = max(start[j], 0) if warm else start[j]
            if i < n - 1:
                gf[k] = 2 / (dz[i] / kf[i, j] + dz[i + 1] / kf[i + 1, j])
                gu[k] = 0.5 * (2 / (dz[i] / ku[i, j] + dz[i + 1] / ku[i + 1, j]) - gf[k])
    capacity = Capacity(latent, np.float32(1) / latent, i_frozen, i_thawed, rate)
    state = State(h, t, liquid)
    q[n * w :] = -flux
    q_top, q_all, q_below, q_inner = q[:w], q[: n * w], q[w:], q[w : n * w]
    above, below = slice(0, (n - 1) * w), slice(w, n * w)
    t_above, t_below, l_above, l_below = t[above], t[below], liquid[above], liquid[below]
    g0, ts = np.zeros(w, np.float32), np.zeros(w, np.float32)
    for day in range(days):
        for j in range(w):
            ta = air[day] + lapse[j]
            ts[j] = ta * n_thaw[j] if ta > 0 else ta * n_freeze[j]
            k0 = kf[0, j] + (ku[0, j] - kf[0, j]) * liquid[j]
            g0[j] = 1 / (0.5 * dz[0] / k0 + resistance[day, j])
        for _ in range(steps):
            for j in range(w):
                q_top[j] = g0[j] * (ts[j] - t[j])
            _flux(gf, gu, l_above, l_below, t_above, t_below, q_inner)
            _store(state, q_all, q_below, capacity, dtf)
        for j in range(w):
            move, depth, thawed = 0.0, 0.0, True
            for i in range(n):
                share = liquid[i * w + j]
                move -= lift[i, j] * share
                if thawed:
                    depth += dz[i] * share
                    thawed = share > 0.5
            motion[j, day] = move
            front[j, day] = depth
            base[j, day] = t[(n - 1) * w + j]
    return motion, front, base


def table(weather: xr.Dataset, p: Physics, *, nodes: str = "quick") -> Table:
    """Run the columns: every node of (elevation, ice, wetness), undisturbed and disturbed by mining.

    Parameters
    ----------
    weather : Dataset
        temperature, precipitation (time) at 4000 m.
    nodes : {"quick", "full"}
        144 or 480 columns.
    """
    elevation, ice, wetness = (np.asarray(v) for v in NODES[nodes])
    one = [np.ravel(g) for g in np.meshgrid(elevation, ice, wetness, indexing="ij")]
    z, w, s = (np.concatenate([g, g]) for g in one)
    disturbed = np.repeat([False, True], len(one[0]))
    soil, dz = layers(w, s, p), cells()
    lift = 1000 * dz[:, None] * soil["strain"] * np.where(disturbed, p.disturbed_efficiency, 1.0)
    above = _surface(weather, elevation, z, s, disturbed, p)
    steps, single = _steps(dz, soil), np.float32
    scales = {"heat_frozen": 1e-6, "heat_thawed": 1e-6, "latent": 1e-6, "conductivity_frozen": 1}
    material = [soil[name] * scale for name, scale in (scales | {"conductivity_thawed": 1}).items()] + [lift]
    ends, parts = (single(p.geothermal_flux), single(p.freezing_range_c), steps), []
    for first in range(0, len(z), _BLOCK):
        block = slice(first, first + _BLOCK)
        here = Surface(above.air, *(np.ascontiguousarray(v[..., block], single) for v in above[1:]))
        stuff = Soil(*(np.ascontiguousarray(m[:, block], single) for m in material))
        parts.append(conduct(here, stuff, dz.astype(single), *ends))
    motion, front, base = (np.concatenate(part) for part in zip(*parts, strict=True))
    year = weather.time.dt.year.to_numpy()
    starts = np.flatnonzero(np.diff(year, prepend=year[0] - 1))
    two = (2, len(one[0]), -1)
    deepest = np.maximum.reduceat(front, starts, axis=1).reshape(two)
    mean_base = np.add.reduceat(base, starts, axis=1).reshape(two) / 365.25
    return Table(elevation, ice, wetness, motion.reshape(two), deepest, mean_base)


def _surface(weather, elevation, z, wetness, disturbed, p: Physics) -> Surface:
    """What reaches the ground: air at each column's height, n-factors, snow by level, temperature at the start."""
    air = weather.temperature.to_numpy()
    lapse = -p.lapse_c_km * (z - REFERENCE_HEIGHT_M) / 1000
    by_level = air[:, None] - p.lapse_c_km * (elevation[None, :] - REFERENCE_HEIGHT_M) / 1000
    depth, _ = snow_depth(by_level, weather.precipitation.to_numpy()[:, None], p)
    resistance = (depth / p.snow_conductivity)[:, np.searchsorted(elevation, z)]
    limit = p.permafrost_limit_dry_m + (p.permafrost_limit_wet_m - p.permafrost_limit_dry_m) * wetness
    n_thaw = p.n_thaw * np.where(disturbed, p.disturbed_n_thaw, 1.0)
    n_freeze = np.full(len(z), p.n_freeze, np.float32)
    return Surface(air.astype(np.float32), lapse, n_thaw, n_freeze, resistance, -0.0032 * (z - limit))


def _steps(dz: np.ndarray, soil: dict[str, np.ndarray]) -> int:
    """Steps per day that keep the explicit scheme stable, with a margin."""
    g = np.zeros((len(dz) + 1, soil["latent"].shape[1]))
    for kind in ("frozen", "thawed"):
        k = soil[f"conductivity_{kind}"]
        inner = 2 / (dz[:-1, None] / k[:-1] + dz[1:, None] / k[1:])
        g[1:-1] = np.maximum(g[1:-1], inner)
        g[0] = np.maximum(g[0], 2 * k[0] / dz[0])
    heat = np.minimum(soil["heat_frozen"], soil["heat_thawed"]) * dz[:, None]
    return int(np.ceil(DAY_S / np.min(0.9 * heat / (g[:-1] + g[1:]))))
