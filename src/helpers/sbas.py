"""Displacement series and rates from networks of interferograms, with the uncertainty of every estimate.

`invert` is classical SBAS, SBAS filled by a temporal model (the limit of NSBAS), and the Bayesian inversion with a
stated deviation of the ground from the model, a stated delay per date and a Gaussian rate prior from another sensor.
`summer_to_summer` is the alternative estimator that uses late-summer pairs only. Here stacks and their attributes are
read and checked; the package `inversion` solves plain arrays.

Phase is positive away from the satellite, displacement positive toward it: y = -wavelength / (4 pi) * phase.
"""

import logging
from dataclasses import dataclass

import numba
import numpy as np
import pandas as pd
import xarray as xr

from inversion.phase_noise import phase_variance, variance_table
from inversion.plan import Network, Plan, interpolation_plan, posterior_plan
from inversion.solve import MAPS, PRIOR_MAPS, SERIES, STATISTICS, empty_series, invert_block, layout

from . import timefunc
from .network.graph import SLANT_RANGE_M

__all__ = ["invert", "phase_variance", "summer_to_summer"]

log = logging.getLogger(__name__)

GEOMETRY = ("incidence_angle", "los_east", "los_north", "los_up", "height", "slope_deg")
SMALLEST_DEVIATION_MM = 1e-3
BLOCK_BYTES = 48 * 2**20  # of phase: bounds the memory of a task


@dataclass(frozen=True)
class Problem:
    """All that is the same for every pixel, and the layout of what comes out."""

    dates: pd.DatetimeIndex
    plan: Plan
    parameters: tuple[str, ...]  # without the intercept, which depends on the datum
    with_prior: bool
    seasonal: tuple[int, ...] = ()  # positions of the seasonal columns among the parameters
    cycle: np.ndarray | None = None  # (day, seasonal column)

    @property
    def layout(self) -> dict[str, slice]:
        """Rows of the packed result, by name."""
        return layout(self.plan, self.with_prior)


def invert(
    stack: xr.Dataset,
    model: str | timefunc.Model | None = "linear+annual",
    *,
    weights: str | None = "coherence",
    deviation_std_mm: float | None = 5.0,
    atmosphere_std_mm: float | np.ndarray | xr.DataArray = 0.0,
    deviation_days: float = 0.0,
    rate_prior: tuple | None = None,
    temperature: xr.DataArray | None = None,
    dem_error: bool = False,
    pair_std_mm: float | np.ndarray = 0.0,
    series_std: bool = True,
    statistics: bool = True,
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
        Further independent standard deviation of each pair (fading, unwrapping), in mm; for coherence weights. A pair
        without one (NaN) is left out.
    series_std : bool
        False leaves the standard deviations of the series NaN and saves about a third of the time.
    statistics : bool
        False leaves out ``data_component``, ``filled``, ``temporal_coherence``, ``residual_rms`` and the
        peak-to-peak, and saves about a fifth of what time is left, half where no value lacks and weights are equal.

    Returns
    -------
    Dataset
        (time, y, x): ``displacement``, ``displacement_std`` (mm, relative to the first date, toward the satellite),
        ``displacement_model_std`` (of displacement minus model, without the datum), ``filled``, ``data_component``;
        (y, x): ``rate``, ``rate_std`` (mm/yr), ``peak_to_peak``, ``peak_to_peak_std``, ``temporal_coherence``,
        ``residual_rms`` (mm), ``n_pairs``; with a prior ``rate_unconstrained``, ``rate_unconstrained_std``,
        ``prior_weight``, ``prior_conflict`` (z); ``coefficients`` (parameter, y, x) and ``coefficients_covariance``.

    Raises
    ------
    ValueError
        What is missing or contradictory, by name: reversed or repeated pairs, no looks for coherence weights, a prior
        without a model or without ``deviation_std_mm``, a grid that differs from the stack's.
    """
    form = timefunc.parse(model, temperature)
    _check_options(form, weights, deviation_std_mm, deviation_days, rate_prior, dem_error)
    dates, first, second = network_of(stack)
    names, design, height = _design(stack, form, dates, first, second, dem_error)
    noise = _pair_noise(stack, weights, pair_std_mm, len(first))
    stack = _without_unknown_pairs(stack, pair_std_mm)
    network = Network(first, second, design, height, _delay_std(atmosphere_std_mm, dates), noise)
    if form is None or deviation_std_mm is None:
        plan = interpolation_plan(network, free=form is None)
    else:
        gaps = np.diff(dates.values) / np.timedelta64(1, "D")
        correlation = np.exp(-gaps / deviation_days) if deviation_days else None
        plan = posterior_plan(network, max(float(deviation_std_mm), SMALLEST_DEVIATION_MM), correlation)
    plan = plan._replace(spread=series_std, statistics=statistics)
    problem = Problem(dates, plan, names, rate_prior is not None, **_seasonal_columns(form, names, dates))
    arrays = _arrays(stack, weights, rate_prior)
    return _dataset(stack, problem, form, deviation_std_mm, _run(problem, arrays))


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
    reference, secondary = (_days(stack[name]) for name in ("reference", "secondary"))
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


def _days(times):
    """Days of acquisition times: one pass stamped a second apart is one date."""
    days = times.values
    if days.dtype.kind not in "iuf":
        days = pd.DatetimeIndex(days)
        if days.tz is None:
            return days.normalize()
    raise ValueError(
        f"{times.name} must be dates without time zone (datetime64), found {times.values[0]!r}; "
        "numbers like 20160105: pd.to_datetime(values, format='%Y%m%d')"
    )


def _design(stack, form, dates, first, second, dem_error):
    """Names, design matrix (intercept, columns, height error, rate) and position of the height error or -1.

    Time counts from the middle of the series: the intercept absorbs it, and the numbers stay well scaled.
    """
    form = form or timefunc.Model.named("linear")
    design = form.design(dates)
    design[:, -1] -= design[[0, -1], -1].mean()
    names = form.parameters
    if dem_error:
        design = np.insert(design, -1, _height_column(stack, first, second, len(dates)), axis=1)
        names = (*names[:-1], "height_error", names[-1])
    scaled = design / np.maximum(np.abs(design).max(axis=0), 1e-300)
    if len(dates) > len(names) and np.linalg.matrix_rank(scaled) < len(names):
        raise ValueError(f"model {form.name!r}: columns {names} are linearly dependent on the stack's dates")
    return names[1:], design, len(names) - 2 if dem_error else -1


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
    at_date = np.linalg.lstsq(incidence, baseline, rcond=None)[0]
    if not np.isfinite(at_date).all() or np.ptp(at_date) == 0:
        raise ValueError("dem_error: perpendicular baselines are missing or all equal")
    slant = float(stack.attrs.get("slant_range_m", SLANT_RANGE_M))
    return -1000 * (at_date - at_date[0]) / slant


def _pair_noise(stack, weights, pair_std_mm, n_pairs):
    """Fields of the plan that say how well each pair is known: variance by coherence, and of the pair itself (mm2)."""
    variance = np.broadcast_to(np.nan_to_num(np.asarray(pair_std_mm, float)) ** 2, n_pairs).copy()
    if weights is None and variance.any():
        raise ValueError(
            "pair_std_mm needs weights='coherence': equal weights are estimated from the residuals"
        )
    scale = -timefunc.mm_per_radian(_attribute(stack, "wavelength_m", 0.02, 1.0))
    if weights is not None and "looks" not in stack.attrs:
        raise ValueError(
            "weights='coherence' needs the attribute 'looks' (effective number): set it, or weights=None"
        )
    table = np.zeros(2) if weights is None else variance_table(_attribute(stack, "looks")) * scale**2
    table = np.stack([table, np.append(np.diff(table), 0.0)], axis=1).astype("f4")
    noise = {"variance": table.view("f8")[:, 0], "pair_variance": variance.astype("f4")}
    return noise | {"unit": weights is None, "mm_per_rad": scale}


def _without_unknown_pairs(stack, pair_std_mm):
    """Stack in which pairs whose ``pair_std_mm`` is not known (NaN) are no data, with a warning."""
    known = np.broadcast_to(np.isfinite(np.asarray(pair_std_mm, float)), stack.sizes["pair"])
    if known.all():
        return stack
    if not known.any():
        raise ValueError("pair_std_mm is known for no pair")
    log.warning("%d pairs are left out: their pair_std_mm is not a number", (~known).sum())
    return stack.assign(unwrapped_phase=stack["unwrapped_phase"].where(xr.DataArray(known, dims="pair")))


def _attribute(stack, name, least=0.0, most=np.inf):
    """A positive number in a range from the stack's attributes; a ValueError that names it otherwise."""
    value = stack.attrs.get(name)
    number = np.nan if value is None else float(value)
    if not (0 < number < np.inf and least <= number <= most):
        bounds = f" from {least} to {most}" if least else ""
        raise ValueError(f"stack attribute {name!r} must be a positive number{bounds}, found {value!r}")
    return number


def _delay_std(value, dates):
    """Standard deviation per date from a float, an array in date order, or a DataArray with those times."""
    if isinstance(value, xr.DataArray) and "time" in value.dims:
        value = value.assign_coords(time=_days(value["time"]))
        missing = dates.difference(value.indexes["time"])
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


def _seasonal_columns(form, names, dates):
    if form is None or not form.seasonal:
        return {}
    return {"seasonal": tuple(names.index(c) for c in form.seasonal), "cycle": form.cycle(dates)}


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


def _run(problem: Problem, arrays):
    """Packed result (row, y, x), numpy or dask as the phase is."""
    if not hasattr(arrays[0], "dask"):
        given = [None if a is None else np.asarray(a) for a in arrays]
        return _solve(*given, problem=problem, threads=numba.get_num_threads())
    import dask.array as da

    phase = arrays[0].rechunk({0: -1, 1: "auto", 2: "auto"}, block_size_limit=BLOCK_BYTES)

    def line_up(a):
        """Chunks of the phase; a map (y, x) becomes one layer."""
        layers = da.asarray(a) if np.ndim(a) == 3 else da.asarray(a)[None]
        return layers.rechunk({0: -1, 1: phase.chunks[1], 2: phase.chunks[2]})

    lined = [phase, *(line_up(a) for a in arrays[1:] if a is not None)]
    present = [a is not None for a in arrays]

    def block(*blocks):
        given = iter(blocks)
        return _solve(*[next(given) if there else None for there in present], problem=problem)

    rows = max(part.stop for part in problem.layout.values())
    meta = np.empty((0, 0, 0), "float32")
    return da.map_blocks(block, *lined, chunks=((rows,), *phase.chunks[1:]), dtype="float32", meta=meta)


def _solve(phase, coherence, mean, std, *, problem, threads=1):
    """Packed result (row, y, x) of a block (pair, y, x), with the seasonal range; the block's values are checked."""
    if coherence is not None and coherence.size:
        low, high = np.fmin.reduce(coherence, axis=None), np.fmax.reduce(coherence, axis=None)
        if low < 0 or high > 1 + 1e-3:  # rounding is no fault
            raise ValueError(f"coherence must lie within 0-1, found {low:g} to {high:g}")
    if std is not None and np.any(std < 0):
        raise ValueError("rate_prior: std must not be negative")
    lined = [None if a is None else np.reshape(a, (len(phase), -1)) for a in (phase, coherence)]
    prior = None if mean is None else (np.ravel(mean), np.ravel(std))
    out = invert_block(problem.plan, *lined, prior, threads)
    _seasonal_range(out, problem)
    return out.reshape(-1, *phase.shape[1:])


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


def _dataset(stack, problem, form, deviation, packed):
    parts = {name: packed[rows] for name, rows in problem.layout.items()}
    parts |= {name: _nothing(parts["displacement"]) for name in empty_series(problem.plan)}
    parts["n_pairs"] = parts["n_pairs"].astype("int32")
    series, maps = SERIES, (*MAPS, *(PRIOR_MAPS if problem.with_prior else ()))
    if problem.plan.statistics:
        parts["data_component"] = parts["data_component"].astype("int16")
        parts["filled"] = parts["data_component"] != 0
        series, maps = (*series, "filled"), (*maps, "peak_to_peak", "peak_to_peak_std")
    left_out = () if problem.plan.statistics else STATISTICS
    out = {name: (("time", "y", "x"), parts[name]) for name in series if name not in left_out}
    out |= {name: (("y", "x"), parts[name][0]) for name in maps if name not in left_out}
    coords = {"time": problem.dates.values} | {
        c: stack[c] for c in ("y", "x", "spatial_ref") if c in stack.coords
    }
    if form is not None:
        k, names = len(problem.parameters), list(problem.parameters)
        coords |= {"parameter": names, "parameter_": names}
        covariance = parts["covariance"].reshape(k, k, *packed.shape[1:])
        out["coefficients"] = ("parameter", "y", "x"), parts["coefficients"]
        out["coefficients_covariance"] = ("parameter", "parameter_", "y", "x"), covariance
    if problem.plan.height > 0:
        sine, at = np.sin(np.deg2rad(stack["incidence_angle"].data)), problem.parameters.index("height_error")
        out["dem_error"] = ("y", "x"), parts["coefficients"][at] * sine
        out["dem_error_std"] = ("y", "x"), np.sqrt(covariance[at, at]) * sine
    grid = {"grid_mapping": "spatial_ref"} if "spatial_ref" in coords else {}
    for name, value in out.items():
        unit, text = DESCRIPTION[name]
        out[name] = (*value, {"units": unit, "long_name": text} | grid)
    out |= {name: stack[name] for name in GEOMETRY if name in stack}
    attrs = {k: v for k, v in stack.attrs.items() if isinstance(v, str | int | float | np.number)}
    attrs |= {
        "Conventions": "CF-1.8",
        "model": "none" if form is None else form.name,
        "rate_start": str(problem.dates[0].date()),
        "rate_end": str(problem.dates[-1].date()),
        "deviation_std_mm": "none" if form is None or deviation is None else float(deviation),
        "positive_direction": "toward_satellite",
    }
    return xr.Dataset(out, coords, attrs)


def _nothing(like):
    """NaN in an array's shape, which take no memory."""
    if hasattr(like, "dask"):
        return like.map_blocks(_nothing, dtype="float32", meta=like._meta)
    return np.broadcast_to(np.float32(np.nan), like.shape)


def _seasonal_range(out, problem):
    """Fill in the seasonal range, from the coefficients of the seasonal columns and their covariance."""
    k, layout = len(problem.parameters), problem.layout
    if not (problem.seasonal and problem.plan.statistics):
        return
    index = list(problem.seasonal)
    covariance = out[layout["covariance"]].reshape(k, k, -1)
    for start in range(0, out.shape[1], 16384):  # bounds the (day, pixel) table
        part = slice(start, start + 16384)
        own = out[layout["coefficients"]][index, part], covariance[np.ix_(index, index)][..., part]
        size, std = timefunc.peak_to_peak(*own, problem.cycle)
        out[layout["peak_to_peak"], part], out[layout["peak_to_peak_std"], part] = size, std


LONGEST_SEASON_DAYS = 36  # of a pair within one late summer
LONGEST_BASELINE_M = 150.0  # where the stack has perpendicular baselines


def summer_to_summer(
    stack: xr.Dataset,
    *,
    window: tuple[str, str] = ("08-15", "09-30"),
    max_years: int = 3,
    max_doy_difference: int = 20,
    temperature: xr.DataArray | None = None,
    **options,
) -> xr.Dataset:
    """Rate from late summer to late summer, from pairs inside a late-thaw window only.

    The idea is Guan et al. 2024 (doi:10.3390/rs16152809); their thresholds are not known here, so the selection is
    this project's own: both dates in ``window``, and either at most 36 days apart or 1 to ``max_years`` years apart
    with days of year within ``max_doy_difference``; perpendicular baselines, where known, up to 150 m.

    Parameters
    ----------
    stack : Dataset
        As for `invert`.
    window : (str, str)
        First and last day, "mm-dd".
    temperature : DataArray, optional
        Daily temperature, degC: the degree-day shape is then estimated too (its coefficient is poorly known from one
        season; without it warm summers add about 3 mm per year of noise but no trend).
    **options
        For `invert`: weights, deviation_std_mm, atmosphere_std_mm, deviation_days, pair_std_mm (of all pairs of
        ``stack``), rate_prior.

    Returns
    -------
    Dataset
        (y, x): ``rate_late_summer``, ``rate_late_summer_std`` (mm/yr), ``n_pairs``; attr ``pairs_used``.
    """
    kept = np.flatnonzero(_late_summer_pairs(stack, window, max_years, max_doy_difference))
    if not len(kept):
        raise ValueError(f"no pair of the stack lies in the window {window[0]}..{window[1]} at both ends")
    chosen = stack.isel(pair=kept)
    if np.ndim(options.get("pair_std_mm", 0.0)):
        options["pair_std_mm"] = np.asarray(options["pair_std_mm"])[kept]
    model = "linear" if temperature is None else "linear+degree_day"
    found = invert(chosen, model, temperature=temperature, **options)
    out = found[["rate", "rate_std", "n_pairs"]].rename(
        rate="rate_late_summer", rate_std="rate_late_summer_std"
    )
    out = out.drop_vars(["time", "parameter", "parameter_"], errors="ignore")
    out = out.assign({name: stack[name] for name in GEOMETRY if name in stack})
    out["rate_late_summer"].attrs["long_name"] = "line-of-sight rate from late summer to late summer"
    dates = [pd.DatetimeIndex(chosen[c].values).strftime("%Y%m%d") for c in ("reference", "secondary")]
    out.attrs = found.attrs | {
        "pairs_used": " ".join(f"{a}_{b}" for a, b in zip(*dates, strict=True)),
        "window": "/".join(window),
    }
    return out


def _late_summer_pairs(stack, window, max_years, max_doy_difference):
    dates, first, second = network_of(stack)
    reference, secondary = dates[first], dates[second]
    season = (dates.strftime("%m-%d") >= window[0]) & (dates.strftime("%m-%d") <= window[1])
    days, years = (secondary - reference).days.to_numpy(), (secondary.year - reference.year).to_numpy()
    doy = np.abs(secondary.day_of_year - reference.day_of_year).to_numpy()
    short = (years == 0) & (days <= LONGEST_SEASON_DAYS)
    long = (years >= 1) & (years <= max_years) & (doy <= max_doy_difference)
    keep = season[first] & season[second] & (short | long)
    if "perpendicular_baseline" in stack.coords:
        keep &= ~(np.abs(stack["perpendicular_baseline"].values) > LONGEST_BASELINE_M)
    return keep
