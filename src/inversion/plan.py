"""What the kernel of `sbas.invert` is told: model, noise and prior as matrices over the network's dates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from helpers import timefunc

from . import kernel, ordering
from .phase_noise import variance_table

SLANT_RANGE_M = 850e3  # assumed where the stack has no attribute slant_range_m


def positive_attribute(stack, name):
    """A number above zero from the stack's attributes; a ValueError that names it otherwise."""
    value = stack.attrs.get(name)
    if value is None or not np.isfinite(float(value)) or float(value) <= 0:
        raise ValueError(f"stack attribute {name!r} must be a positive number, found {value!r}")
    return float(value)


def looks_of(stack):
    """Effective number of looks of the stack."""
    if "looks" not in stack.attrs:
        raise ValueError(
            "weights='coherence' needs the attribute 'looks' (effective number): set it, or weights=None"
        )
    return positive_attribute(stack, "looks")


def design_of(stack, form, dates, first, second, dem_error):
    """Names, design matrix (intercept, columns, height error, rate) and position of the height error or -1.

    Time counts from the middle of the series: the intercept absorbs it, and the numbers stay well scaled.
    """
    form = form or timefunc.Model.named("linear")
    design = form.design(dates)
    design[:, -1] -= design[[0, -1], -1].mean()
    names = form.parameters
    if dem_error:
        design = np.insert(design, -1, height_column(stack, first, second, len(dates)), axis=1)
        names = (*names[:-1], "height_error", names[-1])
    scaled = design / np.maximum(np.abs(design).max(axis=0), 1e-300)
    if len(dates) > len(names) and np.linalg.matrix_rank(scaled) < len(names):
        raise ValueError(f"model {form.name!r}: columns {names} are linearly dependent on the stack's dates")
    return names[1:], design, len(names) - 2 if dem_error else -1


def noise_of(stack, weights, pair_std_mm, n_pairs):
    """Fields of the plan that say how well each pair is known."""
    variance = np.broadcast_to(np.asarray(pair_std_mm, float) ** 2, n_pairs).copy()
    if weights is None and variance.any():
        raise ValueError(
            "pair_std_mm needs weights='coherence': equal weights are estimated from the residuals"
        )
    scale = -1000 * positive_attribute(stack, "wavelength_m") / (4 * np.pi)
    table = np.zeros(2) if weights is None else variance_table(looks_of(stack)) * scale**2
    table = np.stack([table, np.append(np.diff(table), 0.0)], axis=1).astype("f4")
    noise = {"variance": table.view("f8")[:, 0], "pair_variance": variance.astype("f4")}
    return noise | {"unit": weights is None, "mm_per_rad": scale}


def height_column(stack, first, second, n):
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


def correlation_of(dates, days):
    """Correlation of the deviation from each date to the next, None for a white one."""
    if days == 0:
        return None
    gaps = np.diff(dates.values) / np.timedelta64(1, "D")
    return np.exp(-gaps / days)


def per_date(value, dates):
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


def interpolation(first, second, design, height, delay, noise, free):
    """Plan of classical SBAS and of the limit in which the model only closes gaps."""
    n, k = design.shape
    dates = ordering.pattern(n, first, second, np.arange(n)[::-1])
    unused = {"excess": np.zeros(n), "couple": np.zeros(len(dates.row)), "border": np.zeros((n, k))}
    unused |= {"corner": np.eye(k), "scale": ((design - design.mean(axis=0)) ** 2).sum(axis=0)[1:]}
    return assemble_plan(
        dates, dates, first, second, dates.position, design, height, noise, unused,
        interpolate=True, free=free, delay=delay**2, smallest_unit=0.0,
        share=np.ones(n), shift=np.zeros((2, n, k)), extra=np.zeros((2, n)),
    )  # fmt: skip


def posterior(first, second, design, height, delay, noise, deviation, correlation):
    """Plan of the Bayesian inversion: ground = model + deviation, and delay of its own per date.

    White deviation: unknown is x = ground + delay with sd tau about the model, and ground is read off it by the share
    w = (deviation/tau)^2. Correlated deviation with delay needs both as unknowns.
    """
    n, k = design.shape
    about = design.copy()  # ground's model: without the height error, which belongs to the phase
    error = np.zeros((n, k))
    if height > 0:
        about[:, height], error[:, height] = 0.0, design[:, height]
    nodes, chain = np.arange(n), np.column_stack([np.arange(n - 1), np.arange(1, n)])
    shift, extra, share = np.zeros((2, n, k)), np.zeros((2, n)), np.ones(n)
    if correlation is None:
        total = deviation**2 + delay**2
        share = deviation**2 / total
        rows, precision, edges = np.hstack([np.eye(n), -design]), np.diag(1 / total), np.empty((0, 2), int)
        shift[0] = (1 - share)[:, None] * about - share[:, None] * error
        shift[1] = -share[:, None] * design
        extra[:] = share * delay**2
    elif not delay.any():
        rows, precision, edges = np.hstack([np.eye(n), -design]), _markov(correlation) / deviation**2, chain
        shift[0], shift[1] = -error, -design
    else:
        rows = np.block([[np.eye(n), -np.eye(n), -error], [np.zeros((n, n)), np.eye(n), -about]])
        late = np.diag(1 / np.maximum(delay, 1e-4 * deviation) ** 2)
        precision = np.block([[late, 0 * late], [0 * late, _markov(correlation) / deviation**2]])
        edges = np.vstack([np.column_stack([nodes, nodes + n]), chain + n])
        shift[1] = -about
    shift[0] -= shift[0, 0].copy()
    extra[0, 1:] += extra[0, 0]
    size = rows.shape[1] - k
    full = rows.T @ precision @ rows
    prior, border, corner = full[:size, :size], full[:size, size:], full[size:, size:]
    dates = ordering.pattern(n, first, second, nodes[::-1])
    natural = nodes[::-1] if size == n else np.stack([nodes, nodes + n], axis=1)[::-1].ravel()
    unknowns = dates
    if len(edges):
        unknowns = ordering.pattern(
            size, np.append(first, edges[:, 0]), np.append(second, edges[:, 1]), natural
        )
    couple = np.zeros(len(unknowns.row))
    if len(edges):
        couple[unknowns.entry(*edges.T)] = -prior[edges[:, 0], edges[:, 1]]
    excess = prior.sum(axis=1)
    excess[excess < 1e-13 * np.diag(prior)] = 0.0
    given = {
        "excess": excess[unknowns.order],
        "couple": couple,
        "border": border[unknowns.order],
        "corner": (corner + corner.T) / 2,
        "scale": np.diag(corner),
    }
    ground = unknowns.position[nodes + size - n]
    return assemble_plan(
        dates, unknowns, first, second, ground, design, height, noise, given,
        interpolate=False, free=False, delay=np.zeros(n), smallest_unit=(1e-3 * deviation) ** 2,
        share=share, shift=shift, extra=extra,
    )  # fmt: skip


def assemble_plan(dates, unknowns, first, second, ground, design, height, noise, given, **rest):
    """All of it in the order of elimination."""
    position = unknowns.position
    return kernel.Plan(
        **noise,
        **{name: np.ascontiguousarray(value, dtype=float) for name, value in given.items()},
        **rest,
        spread=True,
        statistics=True,
        dates=dates,
        date_entry=dates.entry(first, second),
        unknowns=unknowns,
        entry=unknowns.entry(first, second),
        first=position[first],
        second=position[second],
        ground=ground,
        design=np.ascontiguousarray(design),
        height=height,
    )


def _markov(correlation):
    """Precision of a unit-variance AR(1) at uneven times: tridiagonal."""
    inside = 1 - correlation**2
    precision = np.eye(len(correlation) + 1)
    step = np.arange(len(correlation))
    precision[step, step] += correlation**2 / inside
    precision[step + 1, step + 1] += correlation**2 / inside
    precision[step, step + 1] = precision[step + 1, step] = -correlation / inside
    return precision
