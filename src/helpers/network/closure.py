"""Loop closure: integer ambiguities of triplets, and the correction of 2 pi unwrapping errors."""

import functools
import itertools
from typing import NamedTuple

import dask.array as da
import numba
import numpy as np
import scipy.ndimage
import xarray as xr

from helpers import space
from helpers.network.graph import loops, triplets
from helpers.network.pixels import by_blocks

CYCLE = 2 * np.pi
FLAGS = {"closed": 0, "corrected": 1, "unverifiable": 2, "open": 3, "no_data": 4}
CLOSED, CORRECTED, UNVERIFIABLE, OPEN, NO_DATA = FLAGS.values()
EVIDENCE = 0.25  # least fall of the absolute closure, in cycles per loop of the pair
MARGIN = 0.25  # cycles by which the best explanation must exceed the next
UNKNOWN_SHARE = 0.1  # share of wrong values assumed where no loop verifies any


def closure(stack: xr.Dataset) -> xr.Dataset:
    """Closure phase and integer ambiguity of every triplet.

    Parameters
    ----------
    stack : Dataset
        `unwrapped_phase` (pair, y, x), rad.

    Returns
    -------
    Dataset, dims (triplet, y, x)
        ``closure_phase`` rad: phase(1-2) + phase(2-3) - phase(1-3), NaN where a pair has no data;
        ``ambiguity``: the nearest integer number of cycles (2 pi). Coordinates ``first``, ``second``, ``third`` (dates)
        and ``pair_12``, ``pair_23``, ``pair_13`` (indices of the pairs). Lazy if the stack is.
    """
    index = triplets(stack)
    phase = stack["unwrapped_phase"]
    phase = phase.drop_vars([name for name, of in phase.coords.items() if "pair" in of.dims])
    one, two, three = (phase.isel(pair=xr.DataArray(index[:, k], dims="triplet")) for k in range(3))
    total = (one + two - three).transpose("triplet", "y", "x").assign_attrs(units="rad")
    number = (total / np.float32(CYCLE)).round().assign_attrs(units="1")
    reference, secondary = stack["reference"].values, stack["secondary"].values
    return xr.Dataset({"closure_phase": total, "ambiguity": number}).assign_coords(
        first=("triplet", reference[index[:, 0]]),
        second=("triplet", secondary[index[:, 0]]),
        third=("triplet", secondary[index[:, 1]]),
        **{f"pair_{n}": ("triplet", index[:, k]) for k, n in enumerate(("12", "23", "13"))},
    )


def closure_histogram(stack: xr.Dataset, bins: np.ndarray) -> tuple[np.ndarray, xr.Dataset]:
    """Distribution of the closure phase, and the number of open triplets per pixel.

    Parameters
    ----------
    stack : Dataset
        `unwrapped_phase` (pair, y, x), rad.
    bins : (n + 1,) ndarray
        Edges, rad; the density has shape (n,), in 1/rad.

    Returns
    -------
    density : ndarray
    counts : Dataset, dims (y, x)
        ``closures``, number of triplets with data, and ``open``, those with |closure| > pi; NaN without any.
    """
    counts, parts = np.zeros(len(bins) - 1, int), []
    for rows, _ in by_blocks(stack[["unwrapped_phase"]]):
        phase = closure(rows)["closure_phase"]
        counts += np.histogram(phase.values, bins)[0]
        number = {"closures": phase.notnull().sum("triplet"), "open": (np.abs(phase) > np.pi).sum("triplet")}
        parts.append(xr.Dataset(number).where(number["closures"] > 0))
    density = counts / max(counts.sum(), 1) / np.diff(bins)
    return density, xr.concat(parts, "y")


def open_share(counts: xr.Dataset) -> tuple[float, float, float]:
    """Share of open triplets with its 95 % interval by a block jackknife; ``counts`` from `closure_histogram`."""
    found = space.block_interval(lambda a, b: a.sum() / b.sum(), counts["open"], counts["closures"])
    return tuple(np.clip(found, 0, 1))


def correct_unwrapping(stack: xr.Dataset, *, coherent: bool = True) -> xr.Dataset:
    """Correct unwrapping errors of whole cycles per pixel where most loops of a pair agree on it.

    A pair that is wrong by one cycle leaves one cycle in each of its loops. The pair whose shift closes most loops is
    shifted first, and so on (a greedy search for the fewest shifts). A shift is made only if it closes clearly more
    than it opens and no other pair of an open loop explains it as well. The criterion is the fall of the absolute
    closure, so large closures by noise do not count as whole cycles. A consistent stack is returned unchanged. Loops
    are the triplets and, for pairs in no triplet, the shortest loop. A constant error of a whole interferogram is left
    to `reference`: the scene's median closure of a loop, where beyond 0.5 rad, is subtracted first.

    Parameters
    ----------
    stack : Dataset
        `unwrapped_phase` (pair, y, x), rad; NaN = no data.
    coherent : bool
        Second pass: errors come in patches, so neighbours with the same shift lower the evidence required and
        neighbours without it raise it.

    Returns
    -------
    Dataset
        As ``stack``, corrected, with ``unwrapping_cycles`` (pair, y, x) int8, cycles added, and
        ``unwrapping_flag`` (pair, y, x) int8: closed = confirmed by its loops; corrected; unverifiable = in no
        loop of valid pairs; open = its loops stay open for an unknown reason; no_data. Coordinate ``unverifiable``
        (pair) bool: in no loop of the network.
    """
    phase = stack["unwrapped_phase"].transpose("pair", "y", "x")
    data = phase.data
    table = _loop_table(stack, data)
    correct = functools.partial(_correct_block, table=table, coherent=coherent)
    if isinstance(data, da.Array):
        data = data.rechunk({0: -1})
        halo = {0: 0, 1: int(coherent), 2: int(coherent)}
        empty = np.empty((0, 0, 0), np.int16)
        code = da.map_overlap(correct, data, depth=halo, boundary="none", dtype=np.int16, meta=empty)
    else:
        code = correct(np.asarray(data))
    cycles, flag = (code // 8 - 64).astype(np.int8), (code % 8).astype(np.int8)
    in_loop = np.zeros(phase.sizes["pair"], bool)
    in_loop[table.pair] = True
    dims = ("pair", "y", "x")
    names = " ".join(FLAGS)
    return stack.assign(
        unwrapped_phase=(dims, data + cycles.astype(np.float32) * np.float32(CYCLE), phase.attrs),
        unwrapping_cycles=(dims, cycles, {"units": "1", "long_name": "cycles added to the phase"}),
        unwrapping_flag=(dims, flag, {"flag_values": list(FLAGS.values()), "flag_meanings": names}),
    ).assign_coords(unverifiable=("pair", ~in_loop))


def unwrapping_summary(stack: xr.Dataset) -> tuple[dict[str, float], xr.DataArray]:
    """Result of `correct_unwrapping`: share of the values with data by flag, and of pairs corrected per pixel (%)."""
    seen = stack["unwrapping_flag"] != NO_DATA
    names = ("corrected", "unverifiable", "open")
    shares = {n: float((stack["unwrapping_flag"] == FLAGS[n]).sum() / seen.sum()) for n in names}
    corrected = (stack["unwrapping_cycles"] != 0).sum("pair") / seen.sum("pair").where(seen.any("pair"))
    return shares, 100 * corrected.compute()


def unwrapping_std(stack: xr.Dataset) -> xr.DataArray:
    """Sd (mm) of each pair by possible errors of one cycle that loops cannot exclude.

    A value in no closed loop is wrong with the share found among the verifiable values, one in an open loop with 1/3.
    ``stack`` is from `correct_unwrapping`. Rms over the pair's pixels, (pair,); for ``pair_std_mm`` of
    `helpers.sbas.invert`.
    """
    flag = stack["unwrapping_flag"]
    count = {k: (flag == v).sum(("y", "x")).values.astype(float) for k, v in FLAGS.items()}
    verified = count["closed"].sum() + count["corrected"].sum()
    wrong = count["corrected"].sum() / verified if verified else UNKNOWN_SHARE
    total = np.maximum(sum(count.values()) - count["no_data"], 1)
    probability = (count["unverifiable"] * wrong + count["open"] / 3) / total
    # one cycle of phase is half a wavelength of displacement; sd = sqrt(p) lambda / 2
    half_wave_mm = stack.attrs["wavelength_m"] / 2 * 1000
    attrs = {"units": "mm", "long_name": "sd by possible unwrapping errors", "wrong_share": float(wrong)}
    return xr.DataArray(np.sqrt(probability) * half_wave_mm, dims="pair", attrs=attrs)


class _Loops(NamedTuple):
    """Loops as flat arrays, by loop and by pair."""

    start: np.ndarray  # (loop + 1,) where the pairs of each loop begin in pair and sign
    pair: np.ndarray
    sign: np.ndarray
    pair_start: np.ndarray  # (pair + 1,) where the loops of each pair begin
    pair_loop: np.ndarray
    pair_sign: np.ndarray
    scene: np.ndarray  # (loop,) rad, closure of the scene by constants of whole interferograms


def _loop_table(stack, data) -> _Loops:
    found = loops(stack)
    start = np.cumsum([0, *(len(p) for p, _ in found)]).astype(np.int64)
    pair, sign = (np.concatenate([[], *(loop[k] for loop in found)]).astype(np.int64) for k in range(2))
    loop = np.repeat(np.arange(len(found)), np.diff(start))
    order = np.argsort(pair, kind="stable")
    pair_start = np.searchsorted(pair[order], np.arange(stack.sizes["pair"] + 1))
    scene = _scene_closure(data, start, pair, sign)
    return _Loops(start, pair, sign, pair_start, loop[order], sign[order], scene)


def _scene_closure(data, start, pair, sign, limit: int = 3000) -> np.ndarray:
    """Median closure of each loop over the scene where it is beyond 0.5 rad, else 0."""
    every = int(np.ceil(np.sqrt(data.shape[1] * data.shape[2] / limit)))
    sample = np.asarray(data[:, ::every, ::every]).reshape(data.shape[0], -1)
    out = np.zeros(start.size - 1)
    for j, (a, b) in enumerate(itertools.pairwise(start)):
        total = sign[a:b] @ sample[pair[a:b]]
        total = total[np.isfinite(total)]
        if total.size >= 30:
            out[j] = np.median(total)
    return np.where(np.abs(out) > 0.5, out, 0.0)


def _correct_block(phase, table, coherent):
    """Code (pair, y, x) = 8 (cycles + 64) + flag of one block of pixels."""
    n, height, width = phase.shape
    columns = np.ascontiguousarray(phase.reshape(n, -1).T)
    cycles, flag = _correct_pixels(columns, table, np.zeros((1, n, 3), np.int8))
    if coherent and cycles.any():
        near = _neighbours(cycles.reshape(height, width, n))
        cycles, flag = _correct_pixels(columns, table, near.reshape(-1, n, 3))
    code = (cycles.astype(np.int16) + 64) * 8 + flag
    return np.ascontiguousarray(code.T).reshape(n, height, width)


def _neighbours(cycles):
    """Number of the eight neighbours shifted by -1, not at all, by +1: (y, x, pair, 3)."""
    ring = np.ones((3, 3, 1), np.int8)
    ring[1, 1] = 0
    counts = [
        scipy.ndimage.convolve((cycles == k).astype(np.int8), ring, mode="constant") for k in (-1, 0, 1)
    ]
    return np.stack(counts, axis=-1)


# --- the search, pixel by pixel ------------------------------------------------------------------


@numba.njit(cache=True, nogil=True)
def _correct_pixels(phase, loops, neighbours):  # pragma: no cover
    """Cycles and flags (pixel, pair) of phase (pixel, pair); neighbours (pixel, pair, 3), or (1, pair, 3) of zeros."""
    n_pixel, n_pair = phase.shape
    cycles, flag = np.zeros((n_pixel, n_pair), np.int8), np.zeros((n_pixel, n_pair), np.int8)
    residual = np.empty(loops.scene.size)
    for p in range(n_pixel):
        n_open = _loop_residuals(phase[p], loops, residual)
        if n_open > 0:
            near = neighbours[p if neighbours.shape[0] == n_pixel else 0]
            _search(residual, n_open, cycles[p], loops, near)
        for e in range(n_pair):
            flag[p, e] = NO_DATA if np.isnan(phase[p, e]) else _flag(e, residual, cycles[p, e], loops)
    return cycles, flag


@numba.njit(cache=True, nogil=True)
def _loop_residuals(phase, loops, residual):  # pragma: no cover
    """Closure of each loop, c_j = sum_m s_jm phi_m - scene_j (NaN if a pair is missing); number with |c_j| > pi."""
    n_open = 0
    for j in range(residual.size):
        value = -loops.scene[j]
        for m in range(loops.start[j], loops.start[j + 1]):
            value += loops.sign[m] * phase[loops.pair[m]]
        residual[j] = value
        n_open += abs(value) > np.pi
    return n_open


@numba.njit(cache=True, nogil=True)
def _search(residual, n_open, cycles, loops, near):  # pragma: no cover
    """Shift the best pair by one cycle until all loops close or no pair has the evidence; in place."""
    n_pair = cycles.size
    gain, step = np.empty(n_pair), np.empty(n_pair, np.int64)
    set_aside = np.zeros(n_pair, np.bool_)  # pairs that another pair explains nearly as well
    for _ in range(4 * n_pair):
        best = _best_pair(residual, cycles, loops, near, gain, step, set_aside)
        if best < 0:
            break
        margin = 0.0 if near[best, 1 + step[best]] >= 4 else MARGIN
        if gain[best] - _next_gain(best, residual, loops, gain) < margin:
            set_aside[best] = True
            continue
        set_aside[:] = False
        cycles[best] += step[best]
        for q in range(loops.pair_start[best], loops.pair_start[best + 1]):
            j = loops.pair_loop[q]
            was_open = abs(residual[j]) > np.pi
            residual[j] += CYCLE * loops.pair_sign[q] * step[best]
            n_open += (abs(residual[j]) > np.pi) - was_open
        if n_open <= 0:
            break


@numba.njit(cache=True, nogil=True)
def _best_pair(residual, cycles, loops, near, gain, step, set_aside):  # pragma: no cover
    """Pair of an open loop with the largest gain among those with enough evidence, or -1; fills gain and step."""
    best, best_gain = -1, 0.0
    examined = np.zeros(cycles.size, np.bool_)
    for j in range(residual.size):
        if not abs(residual[j]) > np.pi:
            continue
        for e in loops.pair[loops.start[j] : loops.start[j + 1]]:
            if examined[e]:
                continue
            examined[e] = True
            step[e], gain[e], n_loops = _gain(e, residual, loops)
            # a pair without the evidence is no candidate, but its gain still competes in `_next_gain`
            needed = _needed(n_loops, cycles[e] + step[e], near[e], step[e])
            if gain[e] / n_loops >= needed and gain[e] > best_gain and not set_aside[e]:
                best, best_gain = e, gain[e]
    return best


@numba.njit(cache=True, nogil=True)
def _gain(e, residual, loops):  # pragma: no cover
    """Step of pair e, +1 or -1, that lowers the absolute closures more; by how many cycles; number of its loops.

    gain(step) = sum_j (|c_j| - |c_j + 2 pi s_je step|) / (2 pi)
    """
    up, down, n_loops = 0.0, 0.0, 0
    for q in range(loops.pair_start[e], loops.pair_start[e + 1]):
        value = residual[loops.pair_loop[q]]
        if np.isnan(value):
            continue
        n_loops += 1
        up += abs(value) - abs(value + CYCLE * loops.pair_sign[q])
        down += abs(value) - abs(value - CYCLE * loops.pair_sign[q])
    return (1 if up > down else -1), max(up, down) / CYCLE, n_loops


@numba.njit(cache=True, nogil=True)
def _needed(n_loops, cycles, near, step):  # pragma: no cover
    """Gain per loop required: more for a single loop, less where neighbours are shifted alike, never beyond 60 cycles.

    needed = 0.25 (+ 0.1 for one loop) (+ 0.1 - 0.35 n_same / n_near where neighbours are known)
    """
    if abs(cycles) > 60:
        return np.inf
    needed = EVIDENCE + (0.1 if n_loops == 1 else 0.0)
    same, n_near = near[1 + step], near[0] + near[1] + near[2]
    if n_near > 0:
        needed += 0.1 - 0.35 * same / n_near
    return max(needed, 0.02)


@numba.njit(cache=True, nogil=True)
def _next_gain(best, residual, loops, gain):  # pragma: no cover
    """Largest gain among the other pairs of the open loops of the best pair, at least 0."""
    largest = 0.0
    for j in loops.pair_loop[loops.pair_start[best] : loops.pair_start[best + 1]]:
        if abs(residual[j]) > np.pi:
            for e in loops.pair[loops.start[j] : loops.start[j + 1]]:
                if e != best:
                    largest = max(largest, gain[e])
    return largest


@numba.njit(cache=True, nogil=True)
def _flag(e, residual, cycles, loops):  # pragma: no cover
    """Flag of a valid value: closed where more of its loops close than stay open."""
    n_closed, n_open = 0, 0
    for j in loops.pair_loop[loops.pair_start[e] : loops.pair_start[e + 1]]:
        n_open += abs(residual[j]) > np.pi
        n_closed += abs(residual[j]) <= np.pi
    if n_closed + n_open == 0:
        return UNVERIFIABLE
    if n_closed == 0 or n_closed < n_open:
        return OPEN
    return CORRECTED if cycles != 0 else CLOSED
