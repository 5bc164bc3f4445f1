"""The network as a graph: dates are nodes, interferograms are edges."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.sparse
import scipy.sparse.csgraph
import xarray as xr

SLANT_RANGE_M = 850e3  # assumed where the stack has no attribute slant_range_m


def dates(stack: xr.Dataset) -> pd.DatetimeIndex:
    """All acquisition dates of a stack, sorted."""
    return pd.DatetimeIndex(np.union1d(stack["reference"].values, stack["secondary"].values))


def pair_index(stack: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Index of the reference and of the secondary date of each pair in `dates`; shape (pair,) each."""
    days = dates(stack)
    return days.get_indexer(stack["reference"].values), days.get_indexer(stack["secondary"].values)


def pair_length_days(stack: xr.Dataset) -> np.ndarray:
    """Temporal baseline of each pair in days, shape (pair,)."""
    return (stack["secondary"].values - stack["reference"].values) / np.timedelta64(1, "D")


def incidence(stack: xr.Dataset) -> np.ndarray:
    """Incidence matrix, shape (pair, date): -1 at the reference date, +1 at the secondary date."""
    first, second = pair_index(stack)
    out = np.zeros((first.size, dates(stack).size))
    rows = np.arange(first.size)
    out[rows, first], out[rows, second] = -1, 1
    return out


def height_matters(stack: xr.Dataset, *, height_error_m: float = 5.0, least_mm: float = 1.0) -> bool:
    """Say whether an error of the elevation model moves dates by more than ``least_mm`` (sd over dates).

    Then `helpers.sbas.invert` should estimate it (``dem_error``): unmodelled, it is taken for motion, which drifting
    baselines turn into a rate. False where baselines or incidence angles are not known.
    """
    if "perpendicular_baseline" not in stack.coords or "incidence_angle" not in stack:
        return False
    baseline = np.asarray(stack["perpendicular_baseline"].values, float)
    if not np.isfinite(baseline).all():
        return False
    at_date = np.linalg.lstsq(incidence(stack), baseline, rcond=None)[0]
    sine = np.sin(np.deg2rad(float(stack["incidence_angle"].mean())))
    slant_m = float(stack.attrs.get("slant_range_m", SLANT_RANGE_M))
    return bool(1000 * height_error_m * at_date.std() / (slant_m * sine) > least_mm)


def thinned(stack: xr.Dataset, pixels: int = 50_000) -> xr.Dataset:
    """Every nth row and column of a stack, so many that about ``pixels`` stay: enough for what is said of a scene."""
    every = max(1, round(np.sqrt(stack.sizes["y"] * stack.sizes["x"] / pixels)))
    return stack.isel(y=slice(None, None, every), x=slice(None, None, every))


def by_blocks(
    stack: xr.Dataset | xr.DataArray, dim: str = "y", *, halo: int = 0, size: int | None = None
) -> Iterator[tuple[xr.Dataset | xr.DataArray, slice]]:
    """Go through a stack by blocks of rows (or columns), each in memory for as long as it is looked at.

    Parameters
    ----------
    dim : {"y", "x"}
        Dimension to cut.
    halo : int
        Rows of the neighbours to give along.
    size : int, optional
        Own rows of a block. Default: those of the stack's own blocks, at least twice the halo; all where the stack
        is in memory.

    Yields
    ------
    part : Dataset or DataArray
        Own rows and the neighbours'.
    own : slice
        The own rows of the part.
    """
    length = stack.sizes[dim]
    size = size or (max(2 * halo, *stack.chunksizes[dim]) if stack.chunks else length)
    for start in range(0, length, size):
        first = max(start - halo, 0)
        part = stack.isel({dim: slice(first, start + size + halo)}).load()
        yield part, slice(start - first, min(start + size, length) - first)


def adjacency_depth(stack: xr.Dataset) -> int:
    """Largest number of steps in the list of dates that a pair spans."""
    first, second = pair_index(stack)
    return int((second - first).max())


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
    number = {(a, b): k for k, (a, b) in enumerate(zip(first, second, strict=True))}
    after: dict[int, list] = {}
    for a, b in number:
        after.setdefault(a, []).append(b)
    out = [
        (number[a, b], number[b, c], number[a, c])
        for a, b in number
        for c in after.get(b, ())
        if (a, c) in number
    ]
    return np.array(sorted(out), dtype=np.int64).reshape(-1, 3)


def loops(stack: xr.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every triplet, and the shortest loop through each pair that is in no triplet but in some loop.

    Returns
    -------
    list of (pairs, signs)
        Indices of the pairs and +1 or -1, such that the signed sum of a consistent phase is 0.
    """
    found = [(t, np.array([1, 1, -1])) for t in triplets(stack)]
    first, second = pair_index(stack)
    covered = np.zeros(first.size, bool)
    for pairs, _ in found:
        covered[pairs] = True
    neighbours: dict[int, list] = {}
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        neighbours.setdefault(a, []).append((b, k, 1))
        neighbours.setdefault(b, []).append((a, k, -1))
    for k in np.flatnonzero(~covered):
        if covered[k]:
            continue
        path = _shortest_path(neighbours, first[k], second[k], without=k)
        if path is not None:
            pairs = np.array([k, *(p for p, _ in path)])
            found.append((pairs, np.array([-1, *(s for _, s in path)])))
            covered[pairs] = True
    return found


def _shortest_path(neighbours, start, end, without):
    """Pairs and directions from one date to another, avoiding one pair; None if there is no way."""
    came = {start: None}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        if node == end:
            break
        for other, pair, sign in neighbours[node]:
            if pair != without and other not in came:
                came[other] = (node, pair, sign)
                queue.append(other)
    if end not in came:
        return None
    path = []
    while came[end] is not None:
        end, pair, sign = came[end]
        path.append((pair, sign))
    return path[::-1]


def prune(
    stack: xr.Dataset,
    *,
    min_coherence: float = 0.0,
    min_valid: float = 0.0,
    max_days: float = np.inf,
    max_baseline_m: float = np.inf,
    max_closure_rms: float = np.inf,
    keep_connected: bool = True,
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Drop poor pairs, and report each with its reasons.

    Parameters
    ----------
    stack : Dataset
        Dims (pair, y, x).
    min_coherence : float
        Least median coherence of a pair over its valid pixels.
    min_valid : float
        Least share of the best pair's number of valid pixels.
    max_days, max_baseline_m : float
        Longest temporal and perpendicular baseline; an unknown baseline passes.
    max_closure_rms : float
        Largest rms (rad) of the triplets a pair is in; a pair in no triplet passes.
    keep_connected : bool
        Keep a failing pair where dropping it would cut the network apart (best coherence first), and say so.

    Returns
    -------
    stack : Dataset
        The pairs that stay.
    report : DataFrame
        A row per failing pair: reference, secondary, reason, dropped (bool).
    """
    table = pair_quality(stack, closures=np.isfinite(max_closure_rms))
    limits = [
        (table["coherence"] < min_coherence, "coherence", "median coherence {:.2f} < {:.2f}", min_coherence),
        (table["valid"] < min_valid, "valid", "valid share {:.2f} < {:.2f}", min_valid),
        (table["days"] > max_days, "days", "{:.0f} days > {:.0f}", max_days),
        (
            table["baseline_m"].abs() > max_baseline_m,
            "baseline_m",
            "baseline {:.0f} m > {:.0f} m",
            max_baseline_m,
        ),
        (
            table["closure_rms"] > max_closure_rms,
            "closure_rms",
            "closure rms {:.2f} rad > {:.2f}",
            max_closure_rms,
        ),
    ]
    reasons = [
        "; ".join(text.format(table[column][k], limit) for fails, column, text, limit in limits if fails[k])
        for k in range(len(table))
    ]
    fails = np.array([bool(r) for r in reasons])
    keep = ~fails
    if keep_connected and fails.any():
        keep |= _needed_to_connect(stack, keep, table["coherence"].fillna(0).to_numpy())
    if not keep.any():
        raise ValueError("no pair passes the limits: " + "; ".join(sorted(set(reasons))[:5]))
    report = pd.DataFrame(
        {
            "reference": stack["reference"].values[fails],
            "secondary": stack["secondary"].values[fails],
            "reason": [
                r + ("; kept, the only link" if k else "") for r, k in zip(reasons, keep, strict=True) if r
            ],
            "dropped": ~keep[fails],
        }
    )
    return stack.isel(pair=np.flatnonzero(keep)), report


def _needed_to_connect(stack, keep, coherence) -> np.ndarray:
    """Failing pairs, best coherence first, that join parts the kept ones leave apart."""
    first, second = pair_index(stack)
    parent = np.arange(dates(stack).size)

    def root(a):
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        return a

    needed = np.zeros(keep.size, bool)
    for k in np.lexsort((-coherence, ~keep)):  # kept ones first
        a, b = root(first[k]), root(second[k])
        if a != b:
            parent[a] = b
            needed[k] = not keep[k]
    return needed


def pair_quality(stack: xr.Dataset, *, closures: bool = True) -> pd.DataFrame:
    """Quality of each pair: days, baseline_m, coherence (median), valid (share of the best), closure_rms (rad)."""
    from helpers.network.closure import closure_rms

    phase = stack["unwrapped_phase"]
    valid = phase.notnull().sum(("y", "x")).values.astype(float)
    unknown = np.full(phase.sizes["pair"], np.nan)
    coherence = unknown
    if "coherence" in stack:
        few = thinned(stack[["unwrapped_phase", "coherence"]]).load()
        coherence = few["coherence"].where(few["unwrapped_phase"].notnull()).median(("y", "x")).values
    return pd.DataFrame(
        {
            "days": pair_length_days(stack),
            "baseline_m": stack["perpendicular_baseline"].values
            if "perpendicular_baseline" in stack.coords
            else unknown,
            "coherence": coherence,
            "valid": valid / max(valid.max(), 1),
            "closure_rms": closure_rms(stack).values if closures else unknown,
        }
    )
