"""What errors of the rating do to a recession number, found by adding more of them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from scipy import signal


def rating_error(rng: np.random.Generator, days: int, std: float, memory: float) -> np.ndarray:
    """Daily errors of ln Q of a rating that drifts: AR(1) with standard deviation `std`, lag-1 correlation `memory`."""
    return std * signal.lfilter([np.sqrt(1 - memory**2)], [1, -memory], rng.normal(size=days))


def noise_extrapolation(
    estimate: Callable,
    discharge: xr.DataArray | pd.Series,
    *,
    std: float = 0.04,
    memory: float = 0.97,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate a number without the errors of flow, by adding more errors and extrapolating back (SIMEX).

    Errors of variance lambda std^2 are added for lambda = 0.5, 1, 1.5 and 2, ten times each, and the number is
    estimated from each; the line through the means is followed to lambda = -1, where errors of that size would be
    absent (Cook and Stefanski 1994, doi:10.1080/01621459.1994.10476871).  The size of the errors must be known or
    assumed: the result is a bound for that assumption.  What is not error of flow (direct runoff, recharge during
    recession) stays in the number.

    Parameters
    ----------
    estimate : callable
        Discharge -> float, or an array of floats.
    discharge : xarray.DataArray or pandas.Series
        Daily flow.
    std, memory : float
        Of the error of ln Q that is assumed to be in the record, and of what is added.
    seed : int
        Of the errors.

    Returns
    -------
    pandas.DataFrame
        A row per number: ``as_measured, bias`` (of the assumed error), ``corrected``, ``corrected_std`` (of the
        extrapolation, from the scatter of the draws; not the sampling error of the number itself).
    """
    rng = np.random.default_rng(seed)
    measured = np.atleast_1d(np.asarray(estimate(discharge), float))
    added, numbers = [], []
    for step in (0.5, 1.0, 1.5, 2.0):
        for _ in range(10):
            error = rating_error(rng, discharge.size, std * np.sqrt(step), memory)
            added.append(step)
            numbers.append(np.atleast_1d(estimate(discharge * np.exp(error))))
    added, numbers = np.array(added), np.array(numbers, float)
    # theta(lambda) = theta(0) + slope lambda, followed to lambda = -1; it starts at what was measured, exactly
    slope = added @ (numbers - measured) / (added @ added)
    residual = numbers - measured - added[:, None] * slope
    slope_std = np.sqrt((residual**2).sum(axis=0) / (len(added) - 1) / (added @ added))
    return pd.DataFrame(
        {"as_measured": measured, "bias": slope, "corrected": measured - slope, "corrected_std": slope_std}
    )
