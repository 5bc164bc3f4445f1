"""Residual delay per date, after the delay correction."""

import numpy as np
import xarray as xr

from helpers import timefunc
from helpers.network.graph import dates, incidence
from helpers.network.motion import fit_motion
from helpers.network.pixels import sample, values_at
from inversion import phase_noise


def atmosphere(stack: xr.Dataset) -> xr.DataArray:
    """Residual delay per date (sd, mm), shared by all pairs of the date.

    Rate and season are fitted per pixel and subtracted. The variance of each pair's residual over the scene, less the
    decorrelation noise that its coherence predicts, is split into variances of its two dates. What all pixels share
    is the error of the reference, `reference_rate_std`, and not included.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x), corrected and referenced.

    Returns
    -------
    DataArray, dims (time,)
        mm in line of sight; attribute ``mean_mm``.
    """
    index = sample(stack)
    to_mm = timefunc.mm_per_radian(stack.attrs["wavelength_m"])
    mm = -to_mm * values_at(stack["unwrapped_phase"], index)
    days = dates(stack)
    a = incidence(stack)
    parameters, residual = fit_motion(stack, mm)
    enough = np.isfinite(residual).sum(axis=1) >= 30
    centre = np.nanmedian(residual[enough], axis=1, keepdims=True)
    variance = np.full(len(residual), np.nan)
    variance[enough] = (1.4826 * np.nanmedian(np.abs(residual[enough] - centre), axis=1)) ** 2
    if "coherence" in stack and "looks" in stack.attrs:
        noise = phase_noise.phase_variance(values_at(stack["coherence"], index), stack.attrs["looks"])
        variance[enough] -= np.nanmedian(np.where(np.isfinite(mm), noise * to_mm**2, np.nan)[enough], axis=1)
    # n / (n - 1 - p): the fitted parameters took their share of the delay with them
    variance = np.maximum(variance, 0) * len(days) / max(len(days) - 1 - len(parameters), 1)
    per_date = _date_variances(np.abs(a), variance)
    attrs = {"units": "mm", "long_name": "sd of the delay left per date"}
    attrs["mean_mm"] = float(np.sqrt(np.mean(per_date)))
    return xr.DataArray(np.sqrt(per_date), {"time": days}, "time", name="atmosphere_std", attrs=attrs)


def _date_variances(joins, variance, prior_pairs: float = 2.0, iterations: int = 200) -> np.ndarray:
    """Variances of dates from variances of pairs, by gamma likelihood with a prior at the mean of the dates.

    Pair ij has the expectation v_i + v_j. Turbulence leaves a scene some ten independent places, so a pair's variance
    is known to 45 %; dates scatter by about 60 % about their mean. The mean m therefore weighs as much as two pairs
    of the date (prior_pairs), and no variance becomes zero. Multiplicative iteration, with A = |incidence|:
    v <- v sqrt((A' (s / e^2) + 2 m / v^2) / (A' (1 / e) + 2 / v)), e = A v, s the variances of pairs.
    """
    good = np.isfinite(variance)
    if not good.any():
        raise ValueError("no pair has 30 valid pixels: the delay cannot be estimated")
    joins, variance = joins[good], variance[good]
    mean = max(variance.mean() / 2, 1e-6)
    of_date = np.full(joins.shape[1], mean)
    for _ in range(iterations):
        expected = joins @ of_date
        above = joins.T @ (variance / expected**2) + prior_pairs * mean / of_date**2
        below = joins.T @ (1 / expected) + prior_pairs / of_date
        of_date = of_date * np.sqrt(above / below)
    return of_date
