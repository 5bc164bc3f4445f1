"""Motion of the ground as a network sees it: rate and season of pixels, fitted to the history of dates."""

import numpy as np
import xarray as xr

from helpers import timefunc
from helpers.network.graph import components, dates, incidence


def level_columns(stack: xr.Dataset) -> np.ndarray:
    """Level of each connected part of the network (date, part): no pair ties one part to another."""
    part = components(stack)
    return (part[:, None] == np.arange(part.max() + 1)).astype(float)


def rate_and_season(stack: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Columns of rate and season (date, parameter), and the matrix (parameter, date) that fits them to a history.

    Columns t, sin 2 pi t, cos 2 pi t, sin 4 pi t, cos 4 pi t (t in years from the first date), as many as the number
    of dates and the span allow.
    """
    t = timefunc.years(dates(stack))
    t = t - t[0]
    phase = 2 * np.pi * t
    columns = [t] if len(t) >= 5 else []
    if len(t) >= 15 and t[-1] > 0.8:
        columns += [np.sin(phase), np.cos(phase)]
    if len(t) >= 40 and t[-1] > 1.5:
        columns += [np.sin(2 * phase), np.cos(2 * phase)]
    columns = np.array(columns).reshape(len(columns), len(t)).T
    fit = np.linalg.pinv(np.concatenate([columns, level_columns(stack)], axis=1))
    return columns, fit[: columns.shape[1]]


def fit_motion(stack: xr.Dataset, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rate and season per pixel: parameters (parameter, pixel) and residuals of the pairs (pair, pixel).

    Pairs share the delay of their dates, so the fit is made to the history of dates, not to the pairs. Missing pairs
    are replaced by what the fit predicts for them: parameters p solve p = F (y where seen, H p where missing), that is
    (I - F M H) p = F y with M = 1 where missing; F from pairs to parameters, H = A G back to pairs.
    """
    a = incidence(stack)
    columns, fit = rate_and_season(stack)
    values = np.asarray(values, np.float32)
    k = columns.shape[1]
    if k == 0:
        return np.zeros((0, values.shape[1])), values
    from_pairs = fit @ np.linalg.pinv(a.T @ a, hermitian=True) @ a.T
    to_pairs = a @ columns
    missing = ~np.isfinite(values)
    outer = (from_pairs.T[:, :, None] * to_pairs[:, None, :]).reshape(len(a), k * k)
    unseen = (missing.T.astype(np.float32) @ outer.astype(np.float32)).reshape(-1, k, k)
    seen = np.where(missing, np.float32(0), values).T @ from_pairs.T.astype(np.float32)
    # regularised: a parameter that a pixel hardly observes tends to zero
    system = (1 + 1e-3) * np.eye(k) - unseen
    parameters = np.linalg.solve(system, seen.astype(float)[..., None])[..., 0].T
    return parameters, values - (to_pairs.astype(np.float32) @ parameters.astype(np.float32))
