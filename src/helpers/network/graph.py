"""The network as a graph: dates are nodes, interferograms are edges."""

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.sparse.csgraph
import xarray as xr

SLANT_RANGE_M = 850e3  # assumed where the stack has no attribute slant_range_m
HEIGHT_ERROR_M = 5.0  # sd of the elevation model assumed by `height_matters`
HEIGHT_EFFECT_MM = 1.0  # sd over dates above which an elevation error is worth a parameter


def pair_days(stack: xr.Dataset) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """Day of the reference and of the secondary image of each pair (pair,): times of one day are one acquisition."""
    for name in ("reference", "secondary"):
        if stack[name].dtype.kind != "M":
            raise ValueError(f"{name} must hold dates (datetime64, no time zone), not {stack[name].dtype}")
    return tuple(pd.DatetimeIndex(stack[name].values).normalize() for name in ("reference", "secondary"))


def dates(stack: xr.Dataset) -> pd.DatetimeIndex:
    """All acquisition dates (days) of a stack, sorted."""
    return pd.DatetimeIndex(np.union1d(*pair_days(stack)))


def pair_index(stack: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Index of the reference and of the secondary date of each pair in `dates`; shape (pair,) each."""
    days = dates(stack)
    return tuple(days.get_indexer(ends) for ends in pair_days(stack))


def pair_length_days(stack: xr.Dataset) -> np.ndarray:
    """Temporal baseline of each pair in days, shape (pair,)."""
    first, second = pair_days(stack)
    return (second.values - first.values) / np.timedelta64(1, "D")


def incidence(stack: xr.Dataset) -> np.ndarray:
    """Incidence matrix, shape (pair, date): -1 at the reference date, +1 at the secondary date."""
    first, second = pair_index(stack)
    out = np.zeros((first.size, dates(stack).size))
    rows = np.arange(first.size)
    out[rows, first], out[rows, second] = -1, 1
    return out


def date_baselines(stack: xr.Dataset) -> np.ndarray:
    """Perpendicular baseline of each date (m), least squares with minimum norm; unknown pairs count as zero."""
    baseline = np.nan_to_num(np.asarray(stack["perpendicular_baseline"].values, float))
    return np.linalg.lstsq(incidence(stack), baseline, rcond=None)[0]


def height_matters(stack: xr.Dataset) -> bool:
    """Whether an error of the elevation model changes the displacement of dates by more than a millimetre (sd).

    Then `helpers.sbas.invert` should estimate it (``dem_error``): unmodelled, it biases the rate where baselines
    drift. False where baselines or incidence angles are not known.
    """
    if "perpendicular_baseline" not in stack.coords or "incidence_angle" not in stack:
        return False
    if not np.isfinite(np.asarray(stack["perpendicular_baseline"].values, float)).all():
        return False
    sine = np.sin(np.deg2rad(float(stack["incidence_angle"].mean())))
    slant_m = float(stack.attrs.get("slant_range_m", SLANT_RANGE_M))
    # d = B_perp dh / (R sin theta)
    effect = 1000 * HEIGHT_ERROR_M * date_baselines(stack).std() / (slant_m * sine)
    return bool(effect > HEIGHT_EFFECT_MM)


def components(stack: xr.Dataset) -> np.ndarray:
    """Number of the connected part each date belongs to, 0 for the part of the first date; shape (date,)."""
    first, second = pair_index(stack)
    n = dates(stack).size
    graph = scipy.sparse.coo_array((np.ones(first.size), (first, second)), shape=(n, n))
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    # numbered in the order in which the parts begin
    _, start, inverse = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[inverse]


def triplets(stack: xr.Dataset) -> np.ndarray:
    """All triplets of pairs that close: indices of the pairs (1-2, 2-3, 1-3), shape (triplet, 3)."""
    first, second = pair_index(stack)
    number = {ends: k for k, ends in enumerate(zip(first, second, strict=True))}
    found = ((k, a, b, c) for (a, b), k in number.items() for c in second[first == b])
    out = [(k, number[b, c], number[a, c]) for k, a, b, c in found if (a, c) in number]
    return np.array(sorted(out), dtype=np.int64).reshape(-1, 3)


def loops(stack: xr.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every triplet, and the shortest loop through each pair that is in no triplet but in some loop.

    Each as indices of its pairs and signs (+1 or -1) such that the signed sum of a consistent phase is 0.
    """
    found = [(t, np.array([1, 1, -1])) for t in triplets(stack)]
    first, second = pair_index(stack)
    covered = np.zeros(first.size, bool)
    for pairs, _ in found:
        covered[pairs] = True
    for k in range(first.size):
        loop = None if covered[k] else _shortest_loop(first, second, k)
        if loop is not None:
            found.append(loop)
            covered[loop[0]] = True
    return found


def _shortest_loop(first, second, k):
    """Pairs and signs of the shortest loop through pair k: the pair backwards, then the way round it; or None."""
    n, other = 1 + max(first.max(), second.max()), np.flatnonzero(np.arange(first.size) != k)
    start, end = np.r_[first[other], second[other]], np.r_[second[other], first[other]]
    # an entry is the number of the pair plus one, negative against the direction of the pair
    graph = scipy.sparse.csr_array((np.r_[other + 1, -other - 1], (start, end)), (n, n))
    before = scipy.sparse.csgraph.breadth_first_order(graph, first[k])[1]
    if before[second[k]] < 0:
        return None
    way, node = [], second[k]
    while node != first[k]:
        way.append(graph[before[node], node])
        node = before[node]
    way = np.array(way[::-1])
    return np.r_[k, np.abs(way) - 1], np.r_[-1, np.sign(way)]


def prune(stack: xr.Dataset, *, min_valid: float) -> tuple[xr.Dataset, pd.DataFrame]:
    """Drop pairs with fewer valid pixels than the share ``min_valid`` of the best pair's number.

    Gives the stack that stays and a row per dropped pair: reference, secondary, valid (share).
    """
    valid = stack["unwrapped_phase"].notnull().sum(("y", "x")).values.astype(float)
    valid /= max(valid.max(), 1)
    keep = valid >= min_valid
    if not keep.any():
        raise ValueError(f"no pair has a valid share of {min_valid:.2f} (at most {valid.max():.2f})")
    lost = {name: stack[name].values[~keep] for name in ("reference", "secondary")}
    return stack.isel(pair=np.flatnonzero(keep)), pd.DataFrame(lost | {"valid": valid[~keep]})
