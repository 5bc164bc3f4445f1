"""Loop closure: what triplets say about unwrapping, and integer errors mended where the majority is right."""

from __future__ import annotations

import itertools

import dask.array as da
import numba
import numpy as np
import xarray as xr

from helpers.network.graph import by_blocks, loops, triplets

_TURN = 2 * np.pi
FLAGS = {"closed": 0, "corrected": 1, "unverifiable": 2, "open": 3, "no_data": 4}


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
        ``ambiguity``: the nearest whole number of turns. Coordinates ``first``, ``second``, ``third`` (dates)
        and ``pair_12``, ``pair_23``, ``pair_13`` (indices of the pairs). Lazy if the stack is.
    """
    index = triplets(stack)
    phase = stack["unwrapped_phase"]
    one, two, three = (phase.isel(pair=xr.DataArray(index[:, k], dims="triplet")) for k in range(3))
    names = ("reference", "secondary", "perpendicular_baseline")
    one, two, three = (
        v.drop_vars([n for n in v.coords if "pair" in v[n].dims or n in names]) for v in (one, two, three)
    )
    total = (one + two - three).transpose("triplet", "y", "x")
    out = xr.Dataset(
        {
            "closure_phase": total.assign_attrs(units="rad", long_name="closure phase"),
            "ambiguity": (total / np.float32(_TURN))
            .round()
            .assign_attrs(units="1", long_name="turns left over"),
        },
        attrs={k: stack.attrs[k] for k in ("sensor", "band", "wavelength_m") if k in stack.attrs},
    )
    reference, secondary = stack["reference"].values, stack["secondary"].values
    return out.assign_coords(
        first=("triplet", reference[index[:, 0]]),
        second=("triplet", secondary[index[:, 0]]),
        third=("triplet", secondary[index[:, 1]]),
        **{f"pair_{n}": ("triplet", index[:, k]) for k, n in enumerate(("12", "23", "13"))},
    )


def closure_histogram(stack: xr.Dataset, bins: np.ndarray) -> tuple[np.ndarray, xr.Dataset]:
    """How far the triplets of a stack are from closing.

    Parameters
    ----------
    stack : Dataset
        `unwrapped_phase` (pair, y, x), rad.
    bins : (n + 1,) ndarray
        Edges, rad.

    Returns
    -------
    density : (n,) ndarray
        1/rad, of the closure phases in the bins.
    counts : Dataset, dims (y, x)
        ``closures``, number of triplets with data, and ``open``, those of them beyond half a turn; NaN without any.
    """
    counts, parts = np.zeros(len(bins) - 1, int), []
    for rows, _ in by_blocks(stack[["unwrapped_phase"]]):
        phase = closure(rows)["closure_phase"]
        counts += np.histogram(phase.values, bins)[0]
        number = {"closures": phase.notnull().sum("triplet"), "open": (np.abs(phase) > np.pi).sum("triplet")}
        parts.append(xr.Dataset(number).where(number["closures"] > 0))
    density = counts / max(counts.sum(), 1) / np.diff(bins)
    return density, xr.concat(parts, "y")


def closure_rms(stack: xr.Dataset) -> xr.DataArray:
    """Rms closure phase (rad) of the triplets each pair is in; dims (pair,), NaN for a pair in no triplet."""
    index = triplets(stack)
    square = number = 0
    for rows, _ in by_blocks(stack[["unwrapped_phase"]]):
        phase = closure(rows)["closure_phase"].astype(float)
        square, number = square + (phase**2).sum(("y", "x")).values, number + phase.count(("y", "x")).values
    square = np.divide(square, number, out=np.full(len(index), np.nan), where=number > 0)
    total, count = np.zeros(stack.sizes["pair"]), np.zeros(stack.sizes["pair"])
    for column in range(3):
        good = np.isfinite(square)
        np.add.at(total, index[good, column], square[good])
        np.add.at(count, index[good, column], 1)
    rms = np.full(total.size, np.nan)
    rms[count > 0] = np.sqrt(total[count > 0] / count[count > 0])
    return xr.DataArray(rms, dims="pair", attrs={"units": "rad", "long_name": "rms closure phase"})


def correct_unwrapping(stack: xr.Dataset, *, evidence: float = 0.25, coherent: bool = True) -> xr.Dataset:
    """Mend unwrapping errors: whole turns, per pixel, where the loops' majority shows which pair is wrong.

    A pair shifted by one turn leaves one turn in each of its loops. The pair whose shift closes most loops is
    shifted first, and so on (a greedy search for the fewest shifts); a shift is made only if it closes clearly
    more than it opens and no other pair of an open loop explains it as well. Closures that are large by noise
    do not count as whole turns: what counts is the fall of the absolute closure. A consistent stack is returned
    unchanged. Loops are the triplets and, for pairs in no triplet, the shortest loop. A constant that a whole
    interferogram is off by is no concern of pixels: the scene's median closure of a loop, where beyond 0.5 rad,
    is taken off first, and referencing removes the constants.

    Parameters
    ----------
    stack : Dataset
        `unwrapped_phase` (pair, y, x), rad; NaN = no data.
    evidence : float
        Least fall of the absolute closure, in turns per loop of the pair (1 = every loop closes exactly).
    coherent : bool
        Second pass: errors come in patches, so neighbours with the same shift lower the evidence asked for and
        neighbours without it raise it.

    Returns
    -------
    Dataset
        As ``stack``, corrected, with ``unwrapping_turns`` (pair, y, x) int8, turns added, and
        ``unwrapping_flag`` (pair, y, x) int8: closed = confirmed by its loops; corrected; unverifiable = in no
        loop of valid pairs; open = its loops stay open and it is unclear why; no_data. Coordinate ``unverifiable``
        (pair) bool: in no loop of the network.
    """
    table = _loop_table(stack)
    phase = stack["unwrapped_phase"].transpose("pair", "y", "x")
    data = phase.data
    table = (*table, _scene_closure(data, table))
    if isinstance(data, da.Array):
        data = data.rechunk({0: -1})
        halo = {0: 0, 1: int(coherent), 2: int(coherent)}
        options = {"table": table, "evidence": evidence, "coherent": coherent}
        empty = np.empty((0, 0, 0), np.int16)
        code = da.map_overlap(_mend, data, depth=halo, boundary="none", dtype=np.int16, meta=empty, **options)
    else:
        code = _mend(np.asarray(data), table, evidence, coherent)
    turns, flag = (code // 8 - 64).astype(np.int8), (code % 8).astype(np.int8)
    in_loop = np.zeros(phase.sizes["pair"], bool)
    in_loop[table[1]] = True
    dims = ("pair", "y", "x")
    names = " ".join(FLAGS)
    return stack.assign(
        unwrapped_phase=(dims, data + turns.astype(np.float32) * np.float32(_TURN), phase.attrs),
        unwrapping_turns=(dims, turns, {"units": "1", "long_name": "turns added to the phase"}),
        unwrapping_flag=(dims, flag, {"flag_values": list(FLAGS.values()), "flag_meanings": names}),
    ).assign_coords(unverifiable=("pair", ~in_loop))


def unwrapping_std(stack: xr.Dataset) -> xr.DataArray:
    """Sd (mm) that possible errors of one turn give each pair, from what loops confirm and what they cannot.

    A value in no closed loop is as likely wrong as the verifiable values were found to be; in an open loop one
    pair in three is.

    Parameters
    ----------
    stack : Dataset
        From `correct_unwrapping`.

    Returns
    -------
    DataArray, dims (pair,)
        mm, rms over the pair's pixels; for ``pair_std_mm`` of `helpers.sbas.invert`.
    """
    flag = stack["unwrapping_flag"]
    count = {k: (flag == v).sum(("y", "x")).values.astype(float) for k, v in FLAGS.items()}
    verified = count["closed"].sum() + count["corrected"].sum()
    wrong = count["corrected"].sum() / verified if verified else 0.1
    total = np.maximum(sum(count.values()) - count["no_data"], 1)
    probability = (count["unverifiable"] * wrong + count["open"] / 3) / total
    half_wave_mm = stack.attrs["wavelength_m"] / 2 * 1000
    attrs = {"units": "mm", "long_name": "sd by possible unwrapping errors", "wrong_share": float(wrong)}
    return xr.DataArray(np.sqrt(probability) * half_wave_mm, dims="pair", attrs=attrs)


def _loop_table(stack):
    """Loops as flat arrays: start, pair, sign of each loop; start, loop, sign of each pair."""
    found = loops(stack)
    n = stack.sizes["pair"]
    start = np.cumsum([0, *(len(p) for p, _ in found)]).astype(np.int64)
    pair = np.concatenate([p for p, _ in found]).astype(np.int64) if found else np.empty(0, np.int64)
    sign = np.concatenate([s for _, s in found]).astype(np.int64) if found else np.empty(0, np.int64)
    loop = np.repeat(np.arange(len(found)), np.diff(start))
    order = np.argsort(pair, kind="stable")
    back = np.searchsorted(pair[order], np.arange(n + 1))
    return start, pair, sign, back, loop[order], sign[order]


def _scene_closure(data, table, limit: int = 3000) -> np.ndarray:
    """Median closure of each loop over the scene where it is beyond 0.5 rad, else 0."""
    start, pair, sign = table[:3]
    every = int(np.ceil(np.sqrt(data.shape[1] * data.shape[2] / limit)))
    sample = np.asarray(data[:, ::every, ::every]).reshape(data.shape[0], -1)
    out = np.zeros(start.size - 1)
    for j, (a, b) in enumerate(itertools.pairwise(start)):
        total = sign[a:b] @ sample[pair[a:b]]
        total = total[np.isfinite(total)]
        if total.size >= 30:
            out[j] = np.median(total)
    return np.where(np.abs(out) > 0.5, out, 0.0)


def _mend(phase, table, evidence, coherent):
    """Code (pair, y, x) = 8 (turns + 64) + flag of one block of pixels."""
    n, height, width = phase.shape
    columns = np.ascontiguousarray(phase.reshape(n, -1).T)
    support = np.zeros((1, 1, 1), np.int8)
    turns, flag = _mend_pixels(columns, *table, evidence, support)
    if coherent and turns.any():
        support = _neighbours(turns.reshape(height, width, n))
        turns, flag = _mend_pixels(columns, *table, evidence, support.reshape(-1, n, 3))
    code = (turns.astype(np.int16) + 64) * 8 + flag
    return np.ascontiguousarray(code.T).reshape(n, height, width)


def _neighbours(turns):
    """Number of the eight neighbours shifted by -1, not at all, by +1: (y, x, pair, 3)."""
    height, width, n = turns.shape
    out = np.zeros((height, width, n, 3), np.int8)
    padded = np.full((height + 2, width + 2, n), 99, np.int8)
    padded[1:-1, 1:-1] = turns
    for dy in range(3):
        for dx in range(3):
            if dy == dx == 1:
                continue
            other = padded[dy : dy + height, dx : dx + width]
            for k, value in enumerate((-1, 0, 1)):
                out[..., k] += other == value
    return out


@numba.njit(cache=True, nogil=True)
def _mend_pixels(
    phase, start, pair, sign, back, back_loop, back_sign, scene, evidence, support
):  # pragma: no cover
    """Greedy search per pixel. phase (pixel, pair); support (pixel, pair, 3) or (1, 1, 1) for none."""
    n_pixel, n_pair = phase.shape
    n_loop = start.size - 1
    turns = np.zeros((n_pixel, n_pair), np.int8)
    flag = np.zeros((n_pixel, n_pair), np.int8)
    total = np.empty(n_loop)  # closure of each loop, NaN if a pair is missing
    gain = np.empty(n_pair)
    share = np.empty(n_pair)
    direction = np.empty(n_pair, np.int64)
    stamp = np.full(n_pair, -1, np.int64)
    banned = np.zeros(n_pair, np.bool_)
    half = np.pi
    full = 2 * np.pi
    use_support = support.shape[0] == n_pixel and support.shape[2] == 3
    tick = 0
    for p in range(n_pixel):
        broken = 0
        for j in range(n_loop):
            value = -scene[j]
            for m in range(start[j], start[j + 1]):
                value += sign[m] * phase[p, pair[m]]
            total[j] = value
            if abs(value) > half:
                broken += 1
        steps = 0
        banned[:] = False
        while broken > 0 and steps < 4 * n_pair:
            steps += 1
            tick += 1
            best, best_score = -1, 0.0
            for j in range(n_loop):
                if not abs(total[j]) > half:
                    continue
                for m in range(start[j], start[j + 1]):
                    e = pair[m]
                    if stamp[e] == tick:
                        continue
                    stamp[e] = tick
                    up, down, count = 0.0, 0.0, 0
                    for q in range(back[e], back[e + 1]):
                        value = total[back_loop[q]]
                        if np.isnan(value):
                            continue
                        count += 1
                        up += abs(value) - abs(value + full * back_sign[q])
                        down += abs(value) - abs(value - full * back_sign[q])
                    direction[e] = 1 if up > down else -1
                    gain[e] = max(up, down) / full
                    share[e] = gain[e] / count
                    need = evidence + (0.1 if count == 1 else 0.0)
                    if use_support:
                        same = support[p, e, 1 + direction[e]]
                        none = support[p, e, 1]
                        near = same + none + support[p, e, 1 - direction[e]]
                        if near > 0:
                            need += 0.1 - 0.35 * same / near
                    if abs(turns[p, e] + direction[e]) > 60:
                        need = np.inf
                    # a pair asked for more evidence than it has is no candidate, but still a rival
                    if share[e] >= max(need, 0.02) and gain[e] > best_score and not banned[e]:
                        best, best_score = e, gain[e]
            if best < 0:
                break
            # is another pair of the same open loops as good an explanation?
            rival = 0.0
            for q in range(back[best], back[best + 1]):
                j = back_loop[q]
                if not abs(total[j]) > half:
                    continue
                for m in range(start[j], start[j + 1]):
                    e = pair[m]
                    if e != best and gain[e] > rival:
                        rival = gain[e]
            margin = 0.25
            if use_support and support[p, best, 1 + direction[best]] >= 4:
                margin = 0.0
            if best_score - rival < margin:
                banned[best] = True
                continue
            banned[:] = False
            turns[p, best] += direction[best]
            for q in range(back[best], back[best + 1]):
                j = back_loop[q]
                was = abs(total[j]) > half
                total[j] += full * back_sign[q] * direction[best]
                now = abs(total[j]) > half
                broken += int(now) - int(was)
        for e in range(n_pair):
            if np.isnan(phase[p, e]):
                flag[p, e] = 4
                continue
            closed, opened = 0, 0
            for q in range(back[e], back[e + 1]):
                value = total[back_loop[q]]
                if np.isnan(value):
                    continue
                if abs(value) > half:
                    opened += 1
                else:
                    closed += 1
            if closed + opened == 0:
                flag[p, e] = 2
            elif closed == 0 or closed < opened:
                flag[p, e] = 3
            elif turns[p, e] != 0:
                flag[p, e] = 1
    return turns, flag
