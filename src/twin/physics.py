"""Every constant of the twin: name, default, unit and source, so that a reviewer can ask "what if".

Sources marked *assumption* are choices of this project; the others name a publication or a definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd


class Constant(NamedTuple):
    """A default with its unit, its source and one line on what it does."""

    default: float
    unit: str
    source: str
    meaning: str


_A = "assumption"

WEATHER: dict[str, Constant] = {
    "mean_air_c": Constant(-5.0, "degC", _A, "mean annual air temperature at 4000 m in 2016"),
    "lapse_c_km": Constant(6.0, "degC/km", _A, "decrease of air temperature with height"),
    "warming_c_yr": Constant(0.033, "degC/yr", "Qilian stations 1960-2014, 0.33 degC per decade", "trend"),
    "seasonal_c": Constant(13.5, "degC", _A, "amplitude of the annual cycle"),
    "warmest_doy": Constant(200.0, "day of year", _A, "day of the annual maximum"),
    "year_sd_c": Constant(0.5, "degC", _A, "year-to-year sd of the annual mean"),
    "phase_sd_days": Constant(5.0, "day", _A, "year-to-year sd of the season's timing"),
    "daily_sd_c": Constant(2.6, "degC", _A, "sd of daily weather"),
    "daily_ar1": Constant(0.75, "1", _A, "day-to-day correlation of weather"),
    "bad_year_probability": Constant(0.12, "1", _A, "chance of a hot summer, June to August"),
    "bad_year_c": Constant(1.2, "degC", _A, "excess of a hot summer"),
    "precipitation_mm_yr": Constant(480.0, "mm/yr", _A, "annual precipitation of the mined basin"),
    "storm_per_day": Constant(0.30, "1/day", _A, "Poisson rate of storms in June to September"),
    "snow_loss": Constant(0.45, "1", _A, "share of snowfall lost to sublimation and wind"),
    "melt_mm_c_day": Constant(3.0, "mm/degC/day", _A, "degree-day factor of snow"),
}
GROUND: dict[str, Constant] = {
    "n_thaw": Constant(1.50, "1", _A, "surface to air ratio of thaw degree days (strong radiation)"),
    "n_freeze": Constant(0.66, "1", _A, "surface to air ratio of freeze degree days, without snow"),
    "snow_conductivity": Constant(0.18, "W/m/K", _A, "of settled thin snow"),
    "snow_density": Constant(200.0, "kg/m3", _A, "of settled thin snow"),
    "snow_depth_max_m": Constant(0.12, "m", _A, "wind keeps the plateau's snow thin"),
    "geothermal_flux": Constant(0.05, "W/m2", _A, "heat flow from below"),
    "freezing_range_c": Constant(0.25, "degC", _A, "soil water freezes between minus this and 0"),
    "peat_min_m": Constant(0.08, "m", _A, "organic layer on dry ground"),
    "peat_gain_m": Constant(0.25, "m", _A, "extra organic layer on the wettest ground"),
    "peat_porosity": Constant(0.80, "1", _A, ""),
    "silt_porosity": Constant(0.45, "1", _A, "mineral soil to 3 m (0.44 in Liu et al. 2012)"),
    "deep_porosity": Constant(0.18, "1", _A, "gravel and weathered rock below 3 m"),
    "saturation_dry": Constant(0.55, "1", _A, "of the driest ground"),
    "saturation_gain": Constant(0.45, "1", _A, "extra saturation of the wettest ground"),
    "ice_layer_top_m": Constant(0.75, "m", _A, "top of the ice-rich layer"),
    "ice_layer_base_m": Constant(2.40, "m", _A, "base of the ice-rich layer"),
    "excess_ice": Constant(0.30, "1", _A, "extra ice content there at ice index 1"),
    "permafrost_limit_wet_m": Constant(3620.0, "m", "borehole survey of the Datong source", "wet ground"),
    "permafrost_limit_dry_m": Constant(3710.0, "m", "borehole survey of the Datong source", "moist meadow"),
    "water_expansion": Constant(0.0875, "1", "0.997/0.9168 - 1, densities of water and ice", "on freezing"),
    "pore_efficiency": Constant(0.50, "1", _A, "share of pore expansion that lifts the surface, saturated"),
    "lens_strain": Constant(0.022, "1", _A, "seasonal ice lenses at the base of the active layer, index 1"),
    "disturbed_n_thaw": Constant(1.12, "1", _A, "factor on n_thaw where mining has stripped or dusted"),
    "disturbed_efficiency": Constant(1.75, "1", _A, "factor on frost strain where mining has ponded water"),
    "disturbed_reach_km": Constant(4.0, "km", _A, "e-folding distance of that disturbance"),
    "local_sd": Constant(0.10, "1", _A, "sd of ln(seasonal drop) between neighbours"),
    "drop_growth_mm_yr": Constant(0.0, "mm/yr", "0 or 1.7 (Chen 2022, 10.1029/2021GL097586)", "from 2003 on"),
}
MOTION: dict[str, Constant] = {
    "climate_rate_mm_yr": Constant(1.5, "mm/yr", _A, "loss of ground ice by warming, ice index 1"),
    "mining_rate_mm_yr": Constant(
        12.0, "mm/yr", _A, "loss of ground ice by mining, ice index 1, at the pits"
    ),
    "mining_reach_km": Constant(2.5, "km", _A, "e-folding distance of that loss"),
    "restoration_drop": Constant(0.30, "1", _A, "share by which the rate falls after August 2020"),
    "loss_season_share": Constant(0.5, "1", _A, "share of the yearly loss that falls in the thaw season"),
    "moisture_effect": Constant(0.4, "1", _A, "relative increase of the loss from dry to wet ground"),
    "cold_effect": Constant(0.55, "1", _A, "relative decrease of the loss per km above the permafrost limit"),
    "transient_mm": Constant(-8.0, "mm", _A, "step in August 2016"),
    "transient_share": Constant(0.05, "1", _A, "share of pixels with that step"),
    "creep_mm_yr": Constant(
        15.0, "mm/yr", "8-17 on Tibetan slopes (Reinosch 2020)", "fastest downslope creep"
    ),
    "creep_slope_deg": Constant(12.0, "deg", _A, "slope from which the ground creeps"),
    "creep_thaw_share": Constant(0.6, "1", _A, "share of creep that falls in the thaw season"),
    "albedo_rate_mm_yr": Constant(
        6.0, "mm/yr", _A, "loss per 0.08 of darkening, ice index 1 (if switched on)"
    ),
}
RADAR: dict[str, Constant] = {
    "coherence_0_c": Constant(0.75, "1", _A, "C band, at zero time"),
    "coherence_inf_c": Constant(0.15, "1", _A, "C band, after years"),
    "coherence_tau_c": Constant(35.0, "day", _A, "C band, decay"),
    "coherence_0_l": Constant(0.85, "1", _A, "L band, at zero time"),
    "coherence_inf_l": Constant(0.45, "1", _A, "L band, after years"),
    "coherence_tau_l": Constant(300.0, "day", _A, "L band, decay"),
    "winter_factor_c": Constant(0.50, "1", _A, "C band, both dates frozen"),
    "spanning_factor_c": Constant(0.35, "1", _A, "C band, one date frozen"),
    "winter_factor_l": Constant(0.85, "1", _A, "L band, any date frozen"),
    "winter_loss": Constant(0.80, "1", _A, "share of C-band pixels lost in winter pairs (+-0.2 by pair)"),
    "coherence_floor": Constant(0.14, "1", _A, "true coherence below which a pixel is not unwrapped"),
    "turbulence_mm": Constant(7.0, "mm", _A, "sd of the turbulent delay of a date over the scene"),
    "stratified_annual_mm_km": Constant(8.0, "mm/km", _A, "annual cycle of delay against height"),
    "stratified_random_mm_km": Constant(5.0, "mm/km", _A, "sd by date of delay against height"),
    "ionosphere_mm": Constant(10.0, "mm", _A, "L band, size of the quadratic delay of a date"),
    "fading_mm_12d": Constant(
        -0.2, "mm", _A, "false motion of a 12-day pair on meadow, thawed season, C band"
    ),
    "dem_error_m": Constant(5.0, "m", _A, "sd of the elevation model"),
    "unwrap_share": Constant(0.02, "1", _A, "share of pixels 2 pi off, in patches of 1-3 km, C band"),
    "unwrap_share_winter": Constant(0.10, "1", _A, "the same in winter pairs"),
    "unwrap_share_l": Constant(0.005, "1", _A, "the same at L band"),
    "frame_offset_share": Constant(0.10, "1", _A, "share of LiCSAR pairs off by whole cycles everywhere"),
    "columns_delay_mm": Constant(5.0, "mm", _A, "twin.columns: sd by date and pixel of the delay left over"),
}
OBSERVED: dict[str, Constant] = {
    "observed_bias_c": Constant(0.8, "degC", _A, "reanalysis minus truth"),
    "observed_lapse_c_km": Constant(6.5, "degC/km", _A, "lapse rate the product uses"),
    "observed_noise_c": Constant(0.9, "degC", _A, "daily error"),
    "observed_height_m": Constant(3800.0, "m", _A, "height of the product's cell"),
}
WATER: dict[str, Constant] = {
    "basin_km2": Constant(4600.0, "km2", _A, "mined basin"),
    "control_km2": Constant(4589.0, "km2", "as Zhamashike, the upper Heihe next door", "control basin"),
    "recession_b": Constant(1.6, "1", _A, "exponent of the store before mining"),
    "recession_k_ref": Constant(1 / 30, "1/day", _A, "a Q^(b-1) at q_ref before mining"),
    "q_ref_mm_day": Constant(0.6, "mm/day", _A, "flow at which k_ref is given"),
    "mining_ln_k": Constant(-0.30, "1", _A, "change of ln k_ref of the mined basin, before to after"),
    "mining_b": Constant(0.10, "1", _A, "change of b of the mined basin, before to after"),
    "control_ln_k": Constant(-0.10, "1", _A, "change of ln k_ref of both basins by climate"),
    "event_sd": Constant(0.35, "1", _A, "sd of ln a between events"),
    "event_icc": Constant(0.30, "1", _A, "share of that variance common to a year"),
    "event_ar1": Constant(0.30, "1", _A, "correlation of the years' common part"),
    "quick_share": Constant(0.12, "1", _A, "share of effective rain that bypasses the store"),
    "rating_sd": Constant(0.04, "1", _A, "error of the rating curve"),
    "rating_ar1": Constant(0.97, "1", _A, "its day-to-day correlation"),
    "frozen_to_bed_c": Constant(-22.0, "degC", _A, "monthly mean air below which the gauge reports no flow"),
    "evaporation_mm_c_day": Constant(0.18, "mm/degC/day", _A, "potential, times the mean temperature + 5"),
}
CONSTANTS = WEATHER | GROUND | MOTION | RADAR | OBSERVED | WATER


@dataclass(frozen=True)
class Switches:
    """What is on in this twin; the arguments of ``simulate`` that are not constants."""

    mining: bool = True
    warming: bool = True
    transient: bool = True
    albedo_effect: bool = False
    alos2_bias_mm_yr: float = 0.0
    noise: bool = True


class Physics(dict):
    """The constants of one run, readable as attributes (``p.lapse_c_km``)."""

    def __getattr__(self, name: str) -> float:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


def physics(**changes: float) -> Physics:
    """Defaults with `changes` applied.

    Raises
    ------
    ValueError
        For an unknown name (the message lists the valid ones) or a value that is no finite number.
    """
    unknown = sorted(set(changes) - set(CONSTANTS))
    if unknown:
        raise ValueError(
            f"twin: unknown constant {', '.join(unknown)}; valid ones are {', '.join(sorted(CONSTANTS))}"
        )
    values = {name: constant.default for name, constant in CONSTANTS.items()}
    for name, value in changes.items():
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError(f"twin: {name} = {value!r} is not a finite number ({CONSTANTS[name].unit})")
        values[name] = number
    return Physics(values)


def constants() -> pd.DataFrame:
    """Table of every constant: name (index), default, unit, source, meaning."""
    table = pd.DataFrame.from_dict(CONSTANTS, orient="index", columns=list(Constant._fields))
    return table.rename_axis("name")
