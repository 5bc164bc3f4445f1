"""Displacement series and rates from networks of interferograms, with what the data leave open said aloud.

`invert` is classical SBAS, SBAS filled by a temporal model (the limit of NSBAS), and the Bayesian inversion with a
stated deviation of the ground from the model, a stated delay per date and a Gaussian rate prior from another sensor.
`summer_to_summer` is the rival that uses late-summer pairs only.

Phase is positive away from the satellite, displacement positive toward it: y = -wavelength / (4 pi) * phase.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from . import _dense, timefunc
from ._noise import LARGEST_COHERENCE, phase_variance, variance_table

__all__ = ["invert", "phase_variance", "summer_to_summer"]

SERIES = ("displacement", "displacement_std", "displacement_model_std", "data_component")
MAPS = (
    "rate",
    "rate_std",
    "peak_to_peak",
    "peak_to_peak_std",
    "temporal_coherence",
    "residual_rms",
    "n_pairs",
)
PRIOR_MAPS = ("rate_unconstrained", "rate_unconstrained_std", "prior_weight", "prior_conflict")
GEOMETRY = ("incidence_angle", "los_east", "los_north", "los_up", "height", "slope_deg")
SMALLEST_DEVIATION_MM = 1e-3
SLANT_RANGE_M = 850e3


@dataclass(frozen=True)
class Problem:
    """All that is the same for every pixel: network, model, noise, and which of the estimators it is."""

    kind: str  # "free" (no model), "limit" (model only interpolates) or "bayes" (deviation_std_mm)
    dates: pd.DatetimeIndex
    first: np.ndarray  # date index of the reference image of each pair
    second: np.ndarray
    mm_per_rad: float
    design: (
        np.ndarray
    )  # (date, parameter): intercept, seasonal and other columns, rate (years from the middle)
    height: np.ndarray | None  # (date,) mm per metre of height error at unit sin(incidence)
    deviation: float | None
    correlation: np.ndarray | None  # (date-1,) of neighbouring dates' deviations
    delay: np.ndarray  # (date,) sd in mm
    table: np.ndarray | None  # phase variance by coherence, rad2; None: unit variance scaled by the residual
    pair_variance: np.ndarray  # (pair,) mm2, added to the phase variance
    with_prior: bool
    seasonal: tuple[int, ...] = ()  # positions of the seasonal columns
    cycle: np.ndarray | None = None  # (day, seasonal column)

    @property
    def n_parameters(self) -> int:
        """Coefficients of the model and of the height error."""
        return self.design.shape[1] + (self.height is not None)

    @property
    def layout(self) -> dict[str, slice]:
        """Rows of the packed result, by name."""
        n, k = len(self.dates), self.n_parameters
        sizes = dict.fromkeys(SERIES, n) | dict.fromkeys(MAPS, 1)
        sizes |= dict.fromkeys(PRIOR_MAPS, 1) if self.with_prior else {}
        sizes |= {"coefficients": k, "covariance": k * k}
        ends = np.cumsum(list(sizes.values()))
        return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def invert(
    stack: xr.Dataset,
    model="linear+annual",
    *,
    weights="coherence",
    deviation_std_mm: float | None = 5.0,
    atmosphere_std_mm=0.0,
    deviation_days: float = 0.0,
    rate_prior=None,
    temperature: xr.DataArray | None = None,
    dem_error: bool = False,
    pair_std_mm=0.0,
) -> xr.Dataset:
    """Invert an interferogram stack for displacement and rate, pixel by pixel.

    Parameters
    ----------
    stack : Dataset
        ``unwrapped_phase`` (pair, y, x) rad, positive away from the satellite, NaN = no data (0 is a value);
        ``coherence`` (pair, y, x); optional ``component`` (0 = invalid, left out); coords ``reference``, ``secondary``;
        attrs ``wavelength_m``, ``looks``. numpy- or dask-backed; the result is of the same kind.
    model : None, str or timefunc.Model
        Temporal model; None is classical SBAS. See `timefunc.NAMES`.
    weights : "coherence" or None
        Inverse variance of distributed scatterers by coherence and looks, or equal variances estimated per pixel from
        the residuals of its own network (without redundancy: estimates as for 1 mm, standard deviations NaN).
    deviation_std_mm : float or None
        Standard deviation of the ground about the model. None: the limit where the model closes what the data leave
        open and weighs nothing elsewhere (Lopez-Quiroz et al. 2009 for vanishing weight, exactly).
    atmosphere_std_mm : float, (time,) array or DataArray
        Standard deviation of the delay per date, shared by that date's pairs; no part of displacement.
    deviation_days : float
        Correlation time of the deviation (AR(1)); 0 is white.
    rate_prior : (mean, std), optional
        mm/yr, floats or (y, x) arrays. std 0 is a hard constraint, inf or NaN is no prior.
    temperature : DataArray, optional
        Observed daily temperature (time) in degC, for "linear+degree_day".
    dem_error : bool
        Estimate a height error from perpendicular baselines together with the model.
    pair_std_mm : float or (pair,)
        Further independent standard deviation of each pair (fading, unwrapping), in mm.

    Returns
    -------
    Dataset
        (time, y, x): ``displacement``, ``displacement_std`` (mm, relative to the first date, toward the satellite),
        ``displacement_model_std`` (of displacement minus model, without the datum), ``filled``, ``data_component``;
        (y, x): ``rate``, ``rate_std`` (mm/yr), ``peak_to_peak``, ``peak_to_peak_std``, ``temporal_coherence``,
        ``residual_rms`` (mm), ``n_pairs``; with a prior ``rate_unconstrained``, ``rate_unconstrained_std``,
        ``prior_weight``, ``prior_conflict`` (z); ``coefficients`` and ``coefficients_covariance`` (parameter, ...).

    Raises
    ------
    ValueError
        What is missing or contradictory, by name: reversed or repeated pairs, no looks for coherence weights, a prior
        without a model or without ``deviation_std_mm``, a grid that differs from the stack's.
    """
    form = timefunc.parse(model, temperature)
    _check_options(form, weights, deviation_std_mm, deviation_days, rate_prior, dem_error)
    dates, first, second = network_of(stack)
    problem = Problem(
        kind="free" if form is None else "limit" if deviation_std_mm is None else "bayes",
        dates=dates,
        first=first,
        second=second,
        mm_per_rad=-1000 * _attribute(stack, "wavelength_m") / (4 * np.pi),
        design=_centred_design(form or timefunc.Model.named("linear"), dates),
        height=_height_column(stack, first, second, len(dates)) if dem_error else None,
        deviation=None if deviation_std_mm is None else max(float(deviation_std_mm), SMALLEST_DEVIATION_MM),
        correlation=_correlation(dates, deviation_days) if form is not None else None,
        delay=_per_date(atmosphere_std_mm, dates),
        table=variance_table(_looks(stack)) if weights == "coherence" else None,
        pair_variance=np.broadcast_to(np.asarray(pair_std_mm, float) ** 2, len(first)).copy(),
        with_prior=rate_prior is not None,
        **_seasonal_columns(form, dates),
    )
    arrays = _arrays(stack, weights, rate_prior)
    return _dataset(stack, problem, form, _run(problem, arrays), rate_prior)


# -- what goes in ------------------------------------------------------------------------------------------------


def _check_options(form, weights, deviation, days, prior, dem_error):
    if weights not in ("coherence", None):
        raise ValueError(f"weights must be 'coherence' or None, not {weights!r}")
    if deviation is not None and not deviation >= 0:
        raise ValueError(f"deviation_std_mm must be None or >= 0, not {deviation}")
    if not days >= 0:
        raise ValueError(f"deviation_days must be >= 0, not {days}")
    if form is None and dem_error:
        raise ValueError("dem_error needs a model: without one any height error is also a displacement")
    if form is None and prior is not None:
        raise ValueError("rate_prior needs a model: classical SBAS (model=None) has no rate to constrain")
    if deviation is None and prior is not None:
        raise ValueError("rate_prior needs deviation_std_mm: interpolation only (None) cannot weigh a prior")
    if deviation is None and days > 0:
        raise ValueError("deviation_days needs deviation_std_mm: interpolation only (None) has no deviation")


def network_of(stack: xr.Dataset) -> tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]:
    """Sorted dates of a stack and the date index of every pair's reference and secondary image."""
    if "unwrapped_phase" not in stack:
        raise ValueError(
            f"stack has no variable 'unwrapped_phase'; it has {sorted(map(str, stack.data_vars))}"
        )
    if set(stack["unwrapped_phase"].dims) != {"pair", "y", "x"}:
        raise ValueError(f"unwrapped_phase must have dims (pair, y, x), not {stack['unwrapped_phase'].dims}")
    for name in ("reference", "secondary"):
        if name not in stack.coords:
            raise ValueError(f"stack has no coordinate {name!r} (pair), the dates of its pairs")
    reference, secondary = (pd.DatetimeIndex(stack[name].values) for name in ("reference", "secondary"))
    if not len(reference):
        raise ValueError("stack has no pairs")
    label = [f"{a.date()}_{b.date()}" for a, b in zip(reference, secondary, strict=True)]
    wrong = np.flatnonzero(reference >= secondary)
    if len(wrong):
        raise ValueError(
            f"pair {label[wrong[0]]} is reversed: reference must be earlier ({len(wrong)} such pairs)"
        )
    repeated = pd.Index(label).duplicated()
    if repeated.any():
        raise ValueError(f"pair {np.array(label)[repeated][0]} occurs more than once; keep one")
    dates = reference.union(secondary).unique()
    return dates, dates.get_indexer(reference), dates.get_indexer(secondary)


def _attribute(stack, name):
    value = stack.attrs.get(name)
    if value is None or not np.isfinite(float(value)) or float(value) <= 0:
        raise ValueError(f"stack attribute {name!r} must be a positive number, found {value!r}")
    return float(value)


def _looks(stack):
    if "looks" not in stack.attrs:
        raise ValueError(
            "weights='coherence' needs the attribute 'looks' (effective number): set it, or weights=None"
        )
    return _attribute(stack, "looks")


def _centred_design(form, dates):
    """Design matrix with time counted from the middle: the intercept absorbs it, and the numbers stay well scaled."""
    design = form.design(dates)
    design[:, -1] -= design[[0, -1], -1].mean()
    if len(dates) > 1 and np.linalg.matrix_rank(design) < min(design.shape):
        raise ValueError(
            f"model {form.name!r}: columns {form.parameters} are linearly dependent on the stack's dates"
        )
    return design


def _seasonal_columns(form, dates):
    if form is None or not form.seasonal:
        return {}
    return {"seasonal": tuple(form.parameters.index(c) for c in form.seasonal), "cycle": form.cycle(dates)}


def _height_column(stack, first, second, n):
    """Displacement per metre of height error at each date, times sin(incidence); first date zero (mm/m)."""
    if "perpendicular_baseline" not in stack.coords:
        raise ValueError("dem_error needs the coordinate 'perpendicular_baseline' (pair)")
    if "incidence_angle" not in stack:
        raise ValueError("dem_error needs the variable 'incidence_angle' (y, x)")
    baseline = np.asarray(stack["perpendicular_baseline"].values, float)
    incidence = np.zeros((len(first), n))
    incidence[np.arange(len(first)), first] = -1
    incidence[np.arange(len(first)), second] = 1
    per_date = np.linalg.lstsq(incidence, baseline, rcond=None)[0]
    if not np.isfinite(per_date).all() or np.ptp(per_date) == 0:
        raise ValueError("dem_error: perpendicular baselines are missing or all equal")
    slant = float(stack.attrs.get("slant_range_m", SLANT_RANGE_M))
    return -1000 * (per_date - per_date[0]) / slant


def _correlation(dates, days):
    if days == 0:
        return None
    gaps = np.diff(dates.values) / np.timedelta64(1, "D")
    return np.exp(-gaps / days)


def _per_date(value, dates):
    """Standard deviation per date from a float, an array in date order, or a DataArray with those times."""
    if isinstance(value, xr.DataArray) and "time" in value.dims:
        missing = dates.difference(pd.DatetimeIndex(value["time"].values))
        if len(missing):
            raise ValueError(
                f"atmosphere_std_mm misses {missing[0].date()} and {len(missing) - 1} more dates"
            )
        value = value.sel(time=dates).values
    value = np.asarray(value, float)
    if value.ndim > 1 or (value.ndim == 1 and value.size != len(dates)):
        raise ValueError(
            f"atmosphere_std_mm must be a float or ({len(dates)},), one per date, not {value.shape}"
        )
    if not (np.isfinite(value).all() and (value >= 0).all()):
        raise ValueError("atmosphere_std_mm must be finite and >= 0")
    return np.broadcast_to(value, len(dates)).copy()


def _arrays(stack, weights, prior):
    """Phase, coherence (pair, y, x) and the prior's mean and std (y, x), each numpy or dask, or None."""
    phase = stack["unwrapped_phase"].transpose("pair", "y", "x")
    if "component" in stack:
        phase = phase.where(stack["component"].transpose("pair", "y", "x") != 0)
    coherence = None
    if weights == "coherence":
        if "coherence" not in stack:
            raise ValueError("weights='coherence' needs the variable 'coherence'; give it or weights=None")
        coherence = stack["coherence"].transpose("pair", "y", "x").data
    maps = [None, None]
    if prior is not None:
        if len(prior) != 2:
            raise ValueError("rate_prior must be (mean, std) in mm/yr")
        maps = [_on_grid(value, stack, name) for value, name in zip(prior, ("mean", "std"), strict=True)]
        if not isinstance(prior[1], xr.DataArray) and np.any(np.asarray(prior[1]) < 0):
            raise ValueError("rate_prior: std must not be negative")
    return [phase.data, coherence, *maps]


def _on_grid(value, stack, name):
    shape = (stack.sizes["y"], stack.sizes["x"])
    if isinstance(value, xr.DataArray):
        for axis in set(value.dims) & {"y", "x"}:
            if axis in value.coords and axis in stack.coords and not np.array_equal(value[axis], stack[axis]):
                raise ValueError(
                    f"rate_prior {name}: its {axis} differs from the stack's; interpolate it to the stack"
                )
        value = value.transpose(*[d for d in ("y", "x") if d in value.dims]).data
    if np.ndim(value) not in (0, 2) or (np.ndim(value) == 2 and np.shape(value) != shape):
        raise ValueError(f"rate_prior {name} must be a number or (y, x) = {shape}, not {np.shape(value)}")
    return np.full(shape, float(value)) if np.ndim(value) == 0 else value


# -- solving -----------------------------------------------------------------------------------------------------


def _run(problem: Problem, arrays):
    """Packed result (row, y, x), numpy or dask as the phase is."""
    if not hasattr(arrays[0], "dask"):
        return _solve_block(*[None if a is None else np.asarray(a) for a in arrays], problem=problem)
    import dask.array as da

    phase = arrays[0].rechunk({0: -1, 1: "auto", 2: "auto"})
    lined = [phase]
    for a in arrays[1:]:
        if a is None:
            lined.append(None)
        elif np.ndim(a) == 3:
            lined.append(da.asarray(a).rechunk(phase.chunks))
        else:
            lined.append(da.asarray(a)[None].rechunk({0: 1, 1: phase.chunks[1], 2: phase.chunks[2]}))
    present = [a is not None for a in lined]

    def block(*blocks):
        given = iter(blocks)
        return _solve_block(*[next(given) if there else None for there in present], problem=problem)

    rows = max(part.stop for part in problem.layout.values())
    return da.map_blocks(
        block,
        *[a for a in lined if a is not None],
        chunks=((rows,), *phase.chunks[1:]),
        dtype="float32",
        meta=np.empty((0, 0, 0), "float32"),
    )


def _solve_block(phase, coherence, mean, std, *, problem):
    shape = phase.shape[1:]
    flat = [
        None if a is None else np.ascontiguousarray(a, "float32").reshape(len(phase), -1)
        for a in (phase, coherence)
    ]
    prior = [None if a is None else np.asarray(a, float).reshape(-1) for a in (mean, std)]
    out = _solve(*flat, *prior, problem)
    _seasonal(out, problem)
    return out.reshape(-1, *shape)


def _solve(phase, coherence, mean, std, problem):
    k, layout = problem.n_parameters, problem.layout
    out = np.full((max(part.stop for part in layout.values()), phase.shape[1]), np.nan, "float32")
    for pixel in range(phase.shape[1]):
        here = np.isfinite(phase[:, pixel])
        out[layout["n_pairs"], pixel] = here.sum()
        if not here.any():
            out[layout["data_component"], pixel] = -1
            continue
        y = problem.mm_per_rad * phase[here, pixel].astype(float)
        if problem.table is None:
            variance = np.ones(len(y))
        else:
            gamma = np.clip(np.nan_to_num(coherence[here, pixel].astype(float)), 0, LARGEST_COHERENCE)
            phase_var = np.interp(
                gamma * (len(problem.table) - 1), np.arange(len(problem.table)), problem.table
            )
            variance = phase_var * problem.mm_per_rad**2 + problem.pair_variance[here]
        options = {
            "deviation": problem.deviation if problem.kind == "bayes" else None,
            "correlation": problem.correlation,
            "delay": problem.delay,
            "height": problem.height,
            "unit_variance": problem.table is None,
        }
        network = problem.first[here], problem.second[here], problem.design
        prior = None
        if mean is not None and np.isfinite(mean[pixel]) and np.isfinite(std[pixel]):
            prior = mean[pixel], std[pixel]
            free = _dense.invert_pixel(y, variance, *network, **options)
        found = _dense.invert_pixel(y, variance, *network, prior=prior, **options)
        if mean is not None:
            unc = free if prior else found
            sigma = prior[1] if prior else np.inf
            v = unc["rate_std"] ** 2
            found |= {
                "rate_unconstrained": unc["rate"],
                "rate_unconstrained_std": unc["rate_std"],
                "prior_weight": 0.0 if np.isinf(sigma) else (v / (v + sigma**2) if np.isfinite(v) else 1.0),
                "prior_conflict": (prior[0] - unc["rate"]) / np.sqrt(v + sigma**2) if prior else np.nan,
            }
        if problem.kind == "free":
            other = found["data_component"] != 0
            found["displacement"][other] = np.nan
            if other.any():
                found["rate"] = found["rate_std"] = np.nan
        residual = y - found["fit"]
        found["residual_rms"] = np.sqrt(np.mean(residual**2))
        found["temporal_coherence"] = abs(np.mean(np.exp(1j * residual / problem.mm_per_rad)))
        found["covariance"] = np.asarray(found["covariance"]).reshape(k * k)
        for name, rows in layout.items():
            if name in found:
                out[rows, pixel] = found[name]
    return out


# -- what comes out ----------------------------------------------------------------------------------------------

DESCRIPTION = {
    "displacement": ("mm", "line-of-sight displacement since the first date, positive toward the satellite"),
    "displacement_std": ("mm", "standard deviation of displacement, reference error excluded"),
    "displacement_model_std": (
        "mm",
        "standard deviation of displacement about the fitted model, without the datum",
    ),
    "filled": ("1", "not joined to the first date by the pixel's own pairs"),
    "data_component": ("1", "number of the set of dates joined by data, 0 holds the first date, -1 no data"),
    "rate": ("mm yr-1", "line-of-sight rate, positive toward the satellite"),
    "rate_std": ("mm yr-1", "standard deviation of rate, reference error excluded"),
    "peak_to_peak": ("mm", "seasonal peak-to-peak displacement, bias of noise removed"),
    "peak_to_peak_std": ("mm", "standard deviation of peak_to_peak, NaN below two of them"),
    "temporal_coherence": ("1", "mean resultant length of the phase residuals"),
    "residual_rms": ("mm", "root mean square residual of the pairs"),
    "n_pairs": ("1", "number of pairs used"),
    "rate_unconstrained": ("mm yr-1", "rate without the prior"),
    "rate_unconstrained_std": ("mm yr-1", "standard deviation of the rate without the prior"),
    "prior_weight": ("1", "weight of the prior in rate, 0-1"),
    "prior_conflict": ("1", "prior minus unconstrained rate, in standard deviations of the difference"),
    "dem_error": ("m", "height error estimated from perpendicular baselines"),
    "dem_error_std": ("m", "standard deviation of dem_error"),
    "coefficients": ("mm", "coefficients of the temporal model (rate: mm yr-1, height_error: m)"),
    "coefficients_covariance": ("mm2", "covariance of coefficients, units of the products"),
}


def _dataset(stack, problem, form, packed, prior):
    axes = (
        {"y": stack["unwrapped_phase"]["y"], "x": stack["unwrapped_phase"]["x"]}
        if "y" in stack.coords
        else {}
    )
    parts = {name: packed[rows] for name, rows in problem.layout.items()}
    out = xr.Dataset(coords={"time": problem.dates.values} | axes)
    for name in SERIES:
        out[name] = ("time", "y", "x"), parts[name]
    out["data_component"] = out["data_component"].astype("int16")
    out["filled"] = out["data_component"] != 0
    for name in (*MAPS, *(PRIOR_MAPS if prior is not None else ())):
        out[name] = ("y", "x"), parts[name][0]
    out["n_pairs"] = out["n_pairs"].astype("int32")
    if form is not None:
        k, names = (
            problem.n_parameters,
            list(form.parameters) + ["height_error"] * (problem.height is not None),
        )
        out = out.assign_coords(parameter=names, parameter_=names)
        out["coefficients"] = ("parameter", "y", "x"), parts["coefficients"]
        covariance = parts["covariance"].reshape(k, k, *parts["covariance"].shape[1:])
        out["coefficients_covariance"] = ("parameter", "parameter_", "y", "x"), covariance
    if problem.height is not None:
        sine = np.sin(np.deg2rad(stack["incidence_angle"]))
        out["dem_error"] = out["coefficients"].sel(parameter="height_error", drop=True) * sine
        variance = out["coefficients_covariance"].sel(
            parameter="height_error", parameter_="height_error", drop=True
        )
        out["dem_error_std"] = np.sqrt(variance) * sine
    for name in GEOMETRY:
        if name in stack:
            out[name] = stack[name]
    if "spatial_ref" in stack.coords:
        out = out.assign_coords(spatial_ref=stack["spatial_ref"])
    for name, (unit, text) in DESCRIPTION.items():
        if name in out:
            out[name].attrs |= {"units": unit, "long_name": text}
            if "spatial_ref" in out.coords:
                out[name].attrs["grid_mapping"] = "spatial_ref"
    out.attrs = {k: v for k, v in stack.attrs.items() if isinstance(v, str | int | float | np.number)}
    out.attrs |= {
        "Conventions": "CF-1.8",
        "model": "none" if form is None else form.name,
        "rate_start": str(problem.dates[0].date()),
        "rate_end": str(problem.dates[-1].date()),
        "deviation_std_mm": "none" if problem.kind != "bayes" else problem.deviation,
        "positive_direction": "toward_satellite",
    }
    return out


def _seasonal(out, problem):
    """Fill in the seasonal range, from the coefficients of the seasonal columns and their covariance."""
    k, layout = problem.n_parameters, problem.layout
    if not problem.seasonal:
        return
    index = list(problem.seasonal)
    covariance = out[layout["covariance"]].reshape(k, k, -1)
    for start in range(0, out.shape[1], 16384):  # bounds the (day, pixel) table
        part = slice(start, start + 16384)
        size, std = timefunc.peak_to_peak(
            out[layout["coefficients"]][index, part],
            covariance[np.ix_(index, index)][..., part],
            problem.cycle,
        )
        out[layout["peak_to_peak"], part], out[layout["peak_to_peak_std"], part] = size, std


# -- the rival ---------------------------------------------------------------------------------------------------


def summer_to_summer(
    stack: xr.Dataset,
    *,
    window: tuple[str, str] = ("08-15", "09-30"),
    max_years: int = 3,
    max_doy_difference: int = 20,
    temperature: xr.DataArray | None = None,
    max_days: int = 36,
    max_baseline_m: float = 150.0,
    min_coherence: float = 0.0,
    **options,
) -> xr.Dataset:
    """Rate from late summer to late summer, from pairs inside a late-thaw window only.

    The idea is Guan et al. 2024 (doi:10.3390/rs16152809); their thresholds are not known here, so the selection is
    this project's own. Stage 1: both dates in ``window``, and either at most ``max_days`` apart or 1 to ``max_years``
    years apart with days of year within ``max_doy_difference``. Stage 2: of these, pairs whose median coherence
    reaches ``min_coherence``; a maximum spanning tree of the dates is kept whatever its coherence.

    Parameters
    ----------
    stack : Dataset
        As for `invert`.
    window : (str, str)
        First and last day, "mm-dd".
    temperature : DataArray, optional
        Daily temperature, degC: the degree-day shape is then estimated too (its coefficient is poorly known from one
        season; without it warm summers add about 3 mm per year of noise but no trend).
    max_baseline_m : float
        Longest perpendicular baseline, used where the stack has that coordinate.
    **options
        For `invert`: weights, deviation_std_mm, atmosphere_std_mm, deviation_days, rate_prior.

    Returns
    -------
    Dataset
        (y, x): ``rate_late_summer``, ``rate_late_summer_std`` (mm/yr), ``n_pairs``; attr ``pairs_used``.
    """
    keep = _late_summer_pairs(stack, window, max_years, max_doy_difference, max_days, max_baseline_m)
    if not keep.any():
        raise ValueError(f"no pair of the stack lies in the window {window[0]}..{window[1]} at both ends")
    chosen = stack.isel(pair=np.flatnonzero(keep))
    if min_coherence > 0:
        chosen = chosen.isel(pair=_coherent_pairs(chosen, min_coherence))
    model = "linear" if temperature is None else "linear+degree_day"
    found = invert(chosen, model, temperature=temperature, **options)
    out = found[["rate", "rate_std", "n_pairs"]].rename(
        rate="rate_late_summer", rate_std="rate_late_summer_std"
    )
    out = out.drop_vars(["time", "parameter", "parameter_"], errors="ignore")
    for name in GEOMETRY:
        if name in stack:
            out[name] = stack[name]
    out["rate_late_summer"].attrs["long_name"] = "line-of-sight rate from late summer to late summer"
    dates = [pd.DatetimeIndex(chosen[c].values).strftime("%Y%m%d") for c in ("reference", "secondary")]
    out.attrs = found.attrs | {
        "pairs_used": " ".join(f"{a}_{b}" for a, b in zip(*dates, strict=True)),
        "window": "/".join(window),
    }
    return out


def _late_summer_pairs(stack, window, max_years, max_doy_difference, max_days, max_baseline_m):
    network_of(stack)
    reference, secondary = (pd.DatetimeIndex(stack[c].values) for c in ("reference", "secondary"))
    inside = [
        (d.strftime("%m-%d") >= window[0]) & (d.strftime("%m-%d") <= window[1])
        for d in (reference, secondary)
    ]
    days = (secondary - reference).days.to_numpy()
    years = (secondary.year - reference.year).to_numpy()
    doy = np.abs(secondary.dayofyear - reference.dayofyear).to_numpy()
    short = (years == 0) & (days <= max_days)
    long = (years >= 1) & (years <= max_years) & (doy <= max_doy_difference)
    keep = inside[0] & inside[1] & (short | long)
    if "perpendicular_baseline" in stack.coords:
        keep &= ~(np.abs(stack["perpendicular_baseline"].values) > max_baseline_m)
    return keep


def _coherent_pairs(stack, minimum):
    """Positions of coherent pairs, and of the maximum spanning tree that keeps the dates joined."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    dates, first, second = network_of(stack)
    median = np.array([float(np.nanmedian(stack["coherence"].isel(pair=k))) for k in range(len(first))])
    cost = coo_array((2 - np.nan_to_num(median), (first, second)), shape=(len(dates),) * 2).tocsr()
    tree = {tuple(edge) for edge in np.transpose(minimum_spanning_tree(cost).nonzero())}
    in_tree = np.array([(a, b) in tree or (b, a) in tree for a, b in zip(first, second, strict=True)])
    return np.flatnonzero(in_tree | (median >= minimum))
