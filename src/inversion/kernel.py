"""The numba kernel of `sbas.invert`: many pixels side by side, one elimination.

Unknowns are values per date, so that the weighted normal matrix of a pixel is sparse (`_graph`). It is always that of
a graph plus a non-negative excess on the diagonal; eliminated from edges and excess instead of from diagonals, all is
addition of positive numbers, nothing cancels, and a set of dates without tie to the rest ends in a pivot that is
exactly zero. The temporal model is a dense border, removed by its Schur complement; the diagonal of the inverse comes
from the same factor (Takahashi's recurrences). Arrays are (row, lane): a lane is a pixel, and the innermost loop.
"""

from __future__ import annotations

from math import factorial
from typing import NamedTuple

import numpy as np
from numba import njit

from .ordering import Pattern
from .phase_noise import LARGEST_COHERENCE

OPTIONS = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}
OPTIONS |= {
    "_nrt": False
}  # all memory comes from outside: no reference counts, a fraction of the compile time
outer = njit(**OPTIONS)
inner = njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)
TINY_PIVOT = 3e-13
# single precision, so that loops over lanes stay in it
PI, ZERO, HALF, ONE, TWO = np.float32([np.pi, 0, 0.5, 1, 2])
LARGEST = np.float32(LARGEST_COHERENCE)
S3, S5, S7, S9, S11 = np.float32([(-1) ** (n // 2) / factorial(n) for n in range(3, 12, 2)])
C2, C4, C6, C8, C10, C12 = np.float32([(-1) ** (n // 2) / factorial(n) for n in range(2, 13, 2)])


class Plan(NamedTuple):
    """What the kernel needs beyond the data; n dates, k border columns (rate last), N unknowns, see `sbas`."""

    interpolate: bool  # the model only closes gaps; else it is a prior with a stated deviation
    unit: bool  # equal weights, scaled by the residual
    free: bool  # no model: NaN where data do not join the first date
    spread: bool  # standard deviations of the series wanted
    statistics: bool  # statistics of the residuals and components wanted
    mm_per_rad: float
    variance: np.ndarray  # (bin,) mm2 by coherence, and the step to the next bin: two singles in a double
    pair_variance: np.ndarray  # (pair,) mm2
    smallest_unit: float  # mm2, lower bound of the estimated unit variance
    dates: Pattern  # graph of dates joined by pairs
    date_entry: np.ndarray  # (pair,)
    unknowns: Pattern  # graph of the unknowns (the same, or delay and ground apart)
    entry: np.ndarray  # (pair,)
    excess: np.ndarray  # (N,) prior: excess of the diagonal
    couple: np.ndarray  # (entry,) prior: edges
    border: np.ndarray  # (N, k) prior: unknowns against coefficients
    corner: np.ndarray  # (k, k) prior: coefficients
    scale: np.ndarray  # (k or k - 1,) size of the border's pivots with perfect data
    first: np.ndarray  # (pair,) position of the unknown that is the reference image's
    second: np.ndarray
    ground: np.ndarray  # (n,) position of the unknown behind displacement
    share: np.ndarray  # (n,) factor of that unknown
    shift: np.ndarray  # (2, n, k) coefficients in displacement, and in displacement minus model
    extra: np.ndarray  # (2, n) mm2 added to their variance
    design: np.ndarray  # (n, k)
    delay: np.ndarray  # (n,) mm2
    height: int  # column of the height error, or -1


@inner
def components(graph, joined, label, number, sets):
    """Number the dates that pairs join: 0 with the first date, then by date. ``label`` is (position, lane)."""
    n, lanes = label.shape
    for j in range(n):
        u = graph.update_start[j]
        for a in range(graph.start[j], graph.start[j + 1]):
            for b in range(a + 1, graph.start[j + 1]):
                t = graph.update[u]
                u += 1
                for i in range(lanes):
                    joined[t, i] |= joined[a, i] & joined[b, i]
    sets[:] = 0
    by_date = True
    for j in range(n - 1, -1, -1):
        by_date &= graph.order[j] == n - 1 - j
        for i in range(lanes):
            label[j, i] = sets[i]
        for a in range(graph.start[j + 1] - 1, graph.start[j] - 1, -1):
            own, other, link = label[j], label[graph.row[a]], joined[a]
            for i in range(lanes):
                mine, its = own[i], other[i]  # fetched before the choice: a loop without branches
                own[i] = its if link[i] else mine
        for i in range(lanes):
            sets[i] += 1 if label[j, i] == sets[i] else 0
    if by_date:
        return
    number[:] = -1
    sets[:] = 0
    for date in range(n):
        j = graph.position[date]
        for i in range(lanes):
            root = label[j, i]
            if number[root, i] < 0:
                number[root, i] = sets[i]
                sets[i] += 1
    for j in range(n):
        for i in range(lanes):
            label[j, i] = number[label[j, i], i]


@inner
def eliminate(graph, edge, excess, inverse, x, columns, gram, share):
    """Factor, solve forward, and add up x' D^-1 x, but for its first element.

    Afterwards ``edge`` holds minus L, ``inverse`` 1 / D.
    """
    n = graph.order.shape[0]
    lanes = inverse.shape[1]
    gram[:] = 0.0
    for j in range(n):
        inv = inverse[j]
        for i in range(lanes):
            inv[i] = excess[j, i]
        for a in range(graph.start[j], graph.start[j + 1]):
            for i in range(lanes):
                inv[i] += edge[a, i]
        for i in range(lanes):
            inv[i] = 1.0 / inv[i] if inv[i] > 0 and j < n - 1 else 0.0
        u = graph.update_start[j]
        for a in range(graph.start[j], graph.start[j + 1]):
            r, factor = graph.row[a], edge[a]
            for i in range(lanes):
                factor[i] *= inv[i]
                excess[r, i] += factor[i] * excess[j, i]
            for b in range(a + 1, graph.start[j + 1]):
                t = graph.update[u]
                u += 1
                for i in range(lanes):
                    edge[t, i] += factor[i] * edge[b, i]
            for c in range(columns):
                for i in range(lanes):
                    x[r, c, i] += factor[i] * x[j, c, i]
        for c in range(1, columns):
            for i in range(lanes):
                share[i] = x[j, c, i] * inv[i]
            for d in range(c + 1):
                for i in range(lanes):
                    gram[c, d, i] += share[i] * x[j, d, i]


@inner
def substitute(graph, edge, inverse, x, columns):
    """Solve backward, in place."""
    lanes = inverse.shape[1]
    for j in range(graph.order.shape[0] - 1, -1, -1):
        for c in range(columns):
            for i in range(lanes):
                x[j, c, i] *= inverse[j, i]
        for a in range(graph.start[j], graph.start[j + 1]):
            r = graph.row[a]
            for c in range(columns):
                for i in range(lanes):
                    x[j, c, i] += edge[a, i] * x[r, c, i]


@inner
def invert_diagonal(graph, edge, inverse, z):
    """Diagonal of the inverse into ``inverse``; overwrites the factor with the inverse's entries on its pattern."""
    lanes = inverse.shape[1]
    n = graph.order.shape[0]
    for j in range(n - 1, -1, -1):
        s = graph.start[j]
        m = graph.start[j + 1] - s
        for a in range(m):
            for i in range(lanes):
                z[a, i] = 0.0
        u = graph.update_start[j]
        for a in range(m):
            r = graph.row[s + a]
            for i in range(lanes):
                z[a, i] += edge[s + a, i] * inverse[r, i]
            for b in range(a + 1, m):
                t = graph.update[u]
                u += 1
                for i in range(lanes):
                    z[a, i] += edge[s + b, i] * edge[t, i]
                for i in range(lanes):
                    z[b, i] += edge[s + a, i] * edge[t, i]
        for a in range(m):
            for i in range(lanes):
                inverse[j, i] += edge[s + a, i] * z[a, i]
            for i in range(lanes):
                edge[s + a, i] = z[a, i]


@inner
def small_factor(matrix, scale, pivot, good):
    """LDL' of (k, k, lane) in place (lower triangle); ``good`` counts the leading pivots that are not noise."""
    k, lanes = matrix.shape[0], matrix.shape[2]
    good[:] = 0
    for j in range(k):
        for i in range(lanes):
            d = matrix[j, j, i]
            ok = d > TINY_PIVOT * scale[j] and good[i] == j
            good[i] += 1 if ok else 0
            pivot[j, i] = d if ok else 0.0
        for r in range(k - 1, j, -1):
            for i in range(lanes):
                share = matrix[r, j, i] / pivot[j, i] if pivot[j, i] > 0 else 0.0
                for c in range(j + 1, r + 1):
                    matrix[r, c, i] -= share * matrix[c, j, i]
        for r in range(j + 1, k):
            for i in range(lanes):
                matrix[r, j, i] = matrix[r, j, i] / pivot[j, i] if pivot[j, i] > 0 else 0.0


@inner
def small_solve(factor, value):
    """Forward substitution of (k, lane), in place."""
    for r in range(factor.shape[0]):
        for c in range(r):
            for i in range(value.shape[1]):
                value[r, i] -= factor[r, c, i] * value[c, i]


@inner
def small_back(factor, value):
    """Backward substitution of (k, lane), in place; pivots are already divided out."""
    for r in range(factor.shape[0] - 1, -1, -1):
        for c in range(r + 1, factor.shape[0]):
            for i in range(value.shape[1]):
                value[r, i] -= factor[c, r, i] * value[c, i]


@inner
def small_root(factor, inverse_pivot, root):
    """Upper-triangular root with root root' = inverse of the factored matrix."""
    k, lanes = root.shape[0], root.shape[2]
    root[:] = 0.0
    for c in range(k):
        for i in range(lanes):
            root[c, c, i] = np.sqrt(inverse_pivot[c, i])
        for r in range(c - 1, -1, -1):
            for m in range(r + 1, c + 1):
                for i in range(lanes):
                    root[r, c, i] -= factor[m, r, i] * root[m, c, i]


@inner
def residuals(plan, phase, x, square, cosine, sine, single):
    """Sum of squared residuals (mm2) and of their phasors.

    The phasors are in single precision, from series of sine and cosine at half the angle: good to 1e-6.
    """
    half, up, along = single[0], single[1], single[2]
    square[:] = 0.0
    up[:] = 0.0
    along[:] = 0.0
    turn = 1.0 / (2 * np.pi * plan.mm_per_rad)
    for pair in range(phase.shape[0]):
        row = phase[pair]
        early, late = x[plan.first[pair], 0], x[plan.second[pair], 0]
        for i in range(row.shape[0]):
            r = plan.mm_per_rad * row[i] - (late[i] - early[i]) if np.isfinite(row[i]) else 0.0
            square[i] += r * r
            half[i] = r * turn
        for i in range(row.shape[0]):
            h = PI * (half[i] - np.floor(half[i] + HALF))  # within +-pi/2
            q = h * h
            s = h + h * q * (S3 + q * (S5 + q * (S7 + q * (S9 + q * S11))))
            c = ONE + q * (C2 + q * (C4 + q * (C6 + q * (C8 + q * (C10 + q * C12)))))
            along[i] += ONE - TWO * s * s if np.isfinite(row[i]) else ZERO
            up[i] += TWO * s * c
    for i in range(square.shape[0]):
        cosine[i], sine[i] = along[i], up[i]


class Work(NamedTuple):
    """Scratch memory of one block of lanes."""

    edge: np.ndarray
    excess: np.ndarray
    inverse: np.ndarray
    x: np.ndarray  # (N, 1 + k, lane): right-hand side, border
    gram: np.ndarray
    joined: np.ndarray
    label: np.ndarray
    number: np.ndarray
    sets: np.ndarray
    mean: np.ndarray  # (n, k, lane) of a component's dates: slot 0 displacement, then columns
    size: np.ndarray
    matrix: np.ndarray
    cov: np.ndarray
    root: np.ndarray
    value: np.ndarray  # (k, lane)
    pivot: np.ndarray
    good: np.ndarray
    lane: np.ndarray  # (16, lane)
    column: np.ndarray  # (longest column, lane)
    half: np.ndarray  # (k, k, lane)
    inner_root: np.ndarray
    single: np.ndarray  # (3, lane)
    bin: np.ndarray
    found: np.ndarray
    halves: np.ndarray  # (2 lane,) the same memory in single precision
    phase: np.ndarray  # (pair, lane)
    coherence: np.ndarray


def workspace(plan, lanes):
    """Scratch memory for ``lanes`` pixels."""
    unknowns = plan.unknowns.order.shape[0]
    n, k = plan.design.shape
    m = k - 1 if plan.interpolate else k  # the intercept needs no column where components are centred
    found = np.empty(lanes)
    return Work(
        np.empty((max(plan.unknowns.row.shape[0], 1), lanes)),
        np.empty((unknowns, lanes)),
        np.empty((unknowns, lanes)),
        np.empty((unknowns, 1 + k, lanes)),
        np.empty((1 + k, 1 + k, lanes)),
        np.empty((max(plan.dates.row.shape[0], 1), lanes), np.bool_),
        np.empty((n, lanes), np.int32),
        np.empty((n, lanes), np.int32),
        np.empty(lanes, np.int32),
        np.empty((n, k, lanes)),
        np.empty((n, lanes)),
        np.empty((m, m, lanes)),
        np.empty((m, m, lanes)),
        np.empty((m, m, lanes)),
        np.empty((m, lanes)),
        np.empty((m, lanes)),
        np.empty(lanes, np.int64),
        np.empty((16, lanes)),
        np.empty((unknowns, lanes)),
        np.empty((m, m, lanes)),
        np.empty((m, m, lanes)),
        np.empty((3, lanes), np.float32),
        np.empty(lanes, np.uint32),
        found,
        found.view(np.float32),
        np.empty((plan.first.shape[0], lanes), np.float32),
        np.empty((0 if plan.unit else plan.first.shape[0], lanes), np.float32),
    )


@inner
def put(out, row, column, value):
    """Write one row of lanes, those that are pixels."""
    target = out[row, column : column + value.shape[0]]
    for i in range(target.shape[0]):
        target[i] = value[i]


@inner
def put_root(out, row, column, value):
    """Write the square root of one row of lanes."""
    target = out[row, column : column + value.shape[0]]
    for i in range(target.shape[0]):
        target[i] = np.sqrt(np.float32(value[i]))


@inner
def load(values, column, block):
    """Copy a block of pixels, zeros beyond the last one: rows lie far apart, and come sooner in a loop of their own."""
    block[:] = 0.0
    for pair in range(block.shape[0]):
        row, target = values[pair, column : column + block.shape[1]], block[pair]
        for i in range(row.shape[0]):
            target[i] = row[i]


@inner
def assemble(plan, work):
    """Edges and right-hand side of the normal equations from the pairs; their number and what they join.

    The loops over lanes are kept apart so that each is turned into vector instructions.
    """
    edge, rhs, joined, single, bin_ = work.edge, work.x, work.joined, work.single, work.bin
    scale, count, y = work.lane[0], work.lane[1], work.lane[5]
    w, part, table, found, halves = single[0], single[1], plan.variance, work.found, work.halves
    edge[:] = 0.0
    rhs[:, 0] = 0.0
    joined[:] = False
    count[:] = 0.0
    lanes = y.shape[0]
    mm_per_rad, pair_variance, unit = plan.mm_per_rad, plan.pair_variance, plan.unit
    entry, first, second, link_entry = plan.entry, plan.first, plan.second, plan.date_entry
    bins = np.float32(table.shape[0] - 1)
    for pair in range(first.shape[0]):
        row, link = work.phase[pair], joined[link_entry[pair]]
        for i in range(lanes):
            link[i] = np.isfinite(row[i])
            w[i] = ONE if np.isfinite(row[i]) else ZERO
        for i in range(lanes):
            count[i] += w[i]
        if not unit:
            seen, add = work.coherence[pair], pair_variance[pair]
            for i in range(lanes):
                at = bins * min(seen[i] if seen[i] > ZERO else ZERO, LARGEST)  # NaN too
                bin_[i] = np.uint32(at)
                part[i] = at - np.float32(bin_[i])
            for i in range(lanes):  # by itself: no vector instruction for it
                found[i] = table[bin_[i]]
            for i in range(lanes):
                w[i] /= halves[2 * i] + part[i] * halves[2 * i + 1] + add
        own, early, late = edge[entry[pair]], rhs[first[pair], 0], rhs[second[pair], 0]
        for i in range(lanes):
            weight = scale[i] * w[i]
            own[i] += weight
            y[i] = weight * (mm_per_rad * row[i]) if w[i] > ZERO else 0.0
        for i in range(lanes):
            early[i] -= y[i]
            late[i] += y[i]


@inner
def centre_columns(plan, w):
    """Columns of the model less their mean over each component, into the border; their Gram matrices."""
    n, k = plan.design.shape
    lanes = w.size.shape[1]
    most = 0
    for i in range(lanes):
        most = max(most, w.sets[i])
    for s in range(most):
        for i in range(lanes):
            w.size[s, i] = 0.0
        for c in range(1, k):
            for i in range(lanes):
                w.mean[s, c, i] = 0.0
    for date in range(n):
        j = plan.ground[date]
        for i in range(lanes):
            w.size[w.label[j, i], i] += 1.0
        for c in range(1, k):
            for i in range(lanes):
                w.mean[w.label[j, i], c, i] += plan.design[date, c]
    for s in range(most):
        for c in range(1, k):
            for i in range(lanes):
                w.mean[s, c, i] /= max(w.size[s, i], 1.0)
    w.matrix[:] = 0.0
    w.cov[:] = 0.0
    for date in range(n):
        j = plan.ground[date]
        for c in range(1, k):
            for i in range(lanes):
                w.x[j, c, i] = plan.design[date, c] - w.mean[w.label[j, i], c, i]
            for d in range(1, c + 1):
                for i in range(lanes):
                    w.matrix[c - 1, d - 1, i] += w.x[j, c, i] * w.x[j, d, i]
                if plan.delay[date] > 0:
                    for i in range(lanes):
                        w.cov[c - 1, d - 1, i] += w.x[j, c, i] * w.x[j, d, i] * plan.delay[date]


@inner
def solve_centred(plan, w):
    """Coefficients of the centred columns, and their sampling covariance per unit variance in ``cov`` and ``root``.

    ``matrix`` comes in as the Gram matrix and goes out as its inverse; data part in ``root``, delay part in ``cov``.
    """
    m, lanes = w.pivot.shape
    root, half = w.inner_root, w.half
    small_factor(w.matrix, plan.scale, w.pivot, w.good)
    for c in range(m):
        for i in range(lanes):
            w.pivot[c, i] = 1.0 / w.pivot[c, i] if w.pivot[c, i] > 0 else 0.0
    small_root(w.matrix, w.pivot, root)
    for a in range(m):
        for b in range(m):
            for i in range(lanes):
                w.matrix[a, b, i] = 0.0
                for c in range(m):
                    w.matrix[a, b, i] += root[a, c, i] * root[b, c, i]
    for a in range(m):
        for i in range(lanes):
            w.value[a, i] = 0.0
            for b in range(m):
                w.value[a, i] += w.matrix[a, b, i] * w.gram[b + 1, 0, i]
    for a in range(m):
        for b in range(m):
            for i in range(lanes):
                half[a, b, i] = 0.0
                root[a, b, i] = 0.0
                for c in range(m):
                    half[a, b, i] += w.matrix[a, c, i] * w.gram[max(b, c) + 1, min(b, c) + 1, i]
                    root[a, b, i] += w.matrix[a, c, i] * w.cov[max(b, c), min(b, c), i]
    for a in range(m):
        for b in range(m):
            for i in range(lanes):
                w.root[a, b, i] = 0.0
                w.cov[a, b, i] = 0.0
                for c in range(m):
                    w.root[a, b, i] += half[a, c, i] * w.matrix[c, b, i]
                    w.cov[a, b, i] += root[a, c, i] * w.matrix[c, b, i]


@inner
def place_components(plan, most, w):
    """Level of the model over each component, less that of the data, into slot 0 of ``mean``."""
    n, k = plan.design.shape
    lanes = w.sets.shape[0]
    for s in range(most):
        for i in range(lanes):
            w.mean[s, 0, i] = 0.0
    for date in range(n):
        j = plan.ground[date]
        for i in range(lanes):
            w.mean[w.label[j, i], 0, i] += w.x[j, 0, i]
    for s in range(most):
        for i in range(lanes):
            w.mean[s, 0, i] = -w.mean[s, 0, i] / max(w.size[s, i], 1.0)
        for c in range(1, k):
            for i in range(lanes):
                w.mean[s, 0, i] += w.mean[s, c, i] * w.value[c - 1, i]


@inner
def spread_height(plan, date, b, w, unit, variance):
    """Add what the height error, ``b`` times in displacement, does to the variance of a date."""
    j, start, z = plan.ground[date], plan.ground[0], plan.height - 1
    for i in range(unit.shape[0]):
        variance[i] += b * b * (w.root[z, z, i] * unit[i] + w.cov[z, z, i])
        for c in range(w.value.shape[0]):
            now = (plan.design[date, c + 1] - w.mean[0, c + 1, i]) * plan.delay[date]
            then = (plan.design[0, c + 1] - w.mean[0, c + 1, i]) * plan.delay[0]
            both = (w.x[j, c + 1, i] - w.x[start, c + 1, i]) * unit[i] + now - then
            variance[i] -= 2 * b * w.matrix[z, c, i] * both
        variance[i] = 0.0 if variance[i] < 0 else variance[i]


@inner
def close_gaps(plan, column, w, out, rows):
    """Displacement with the model between components, NaN where there is no model, and its sampling variance."""
    n, k = plan.design.shape
    m = k - 1
    count, unit = w.lane[1], w.lane[7]
    lanes = count.shape[0]
    most = 0
    for i in range(lanes):
        most = max(most, w.sets[i])
    if most > 1:
        place_components(plan, most, w)
    z = plan.height - 1
    value, variance, none, unfit = w.lane[11], w.lane[12], w.lane[13], w.lane[14]
    for i in range(lanes):
        none[i] = 0.0 if count[i] > 0 else np.nan
        unfit[i] = 0.0 if w.good[i] == m and not plan.free else np.nan
    for date in range(n):
        j = plan.ground[date]
        b = plan.design[date, plan.height] - plan.design[0, plan.height]
        for i in range(lanes):
            value[i] = w.x[j, 0, i] + none[i]
        if most > 1:
            for i in range(lanes):
                own = w.label[j, i]
                value[i] += w.mean[own, 0, i] - w.mean[0, 0, i] + unfit[i] if own > 0 else 0.0
        if z >= 0:
            for i in range(lanes):
                value[i] -= b * w.value[z, i] + unfit[i]
        put(out, rows[0] + date, column, value if date > 0 else none)
        if not plan.spread:
            continue
        delay = plan.delay[date] + plan.delay[0]
        for i in range(lanes):
            variance[i] = w.inverse[j, i] * unit[i] + delay + none[i]
        if z >= 0:
            spread_height(plan, date, b, w, unit, variance)
            for i in range(lanes):
                variance[i] += unfit[i]
        if most > 1:
            for i in range(lanes):
                variance[i] = variance[i] if w.label[j, i] == 0 else np.nan
        if date == 0:
            for i in range(lanes):
                variance[i] *= 0.0
        put_root(out, rows[1] + date, column, variance)
    for a in range(m):
        for b in range(m):
            for i in range(lanes):
                good = w.good[i] == m and count[i] > 0 and (not plan.free or w.sets[i] == 1)
                w.cov[a, b, i] = w.root[a, b, i] * unit[i] + w.cov[a, b, i] if good else np.nan
                w.value[a, i] = w.value[a, i] if good else np.nan
            put(out, rows[14] + a * m + b, column, w.cov[a, b])
        put(out, rows[13] + a, column, w.value[a])
    put(out, rows[4], column, w.value[m - 1])
    put_root(out, rows[5], column, w.cov[m - 1, m - 1])


@inner
def finish(plan, column, w, out, rows):
    """Statistics of the residuals, and the components."""
    n = plan.design.shape[0]
    count, square, cosine, sine = w.lane[1], w.lane[2], w.lane[3], w.lane[4]
    lanes = count.shape[0]
    where = plan.dates.position
    put(out, rows[8], column, count)
    if not plan.statistics:
        return
    for i in range(lanes):
        there = count[i] > 0
        cosine[i] = np.sqrt(cosine[i] ** 2 + sine[i] ** 2) / count[i] if there else np.nan
        square[i] = np.sqrt(square[i] / count[i]) if there else np.nan
    put(out, rows[6], column, cosine)
    put(out, rows[7], column, square)
    for date in range(n):
        j = where[date]
        target = out[rows[3] + date, column : column + lanes]
        for i in range(target.shape[0]):
            target[i] = w.label[j, i] if count[i] > 0 else -1


@inner
def add_prior(plan, w):
    """What is known of the unknowns before the data, and their tie to the coefficients."""
    lanes, k = w.sets.shape[0], plan.design.shape[1]
    for e in range(plan.couple.shape[0]):
        if plan.couple[e] > 0:
            for i in range(lanes):
                w.edge[e, i] += plan.couple[e]
    for j in range(plan.excess.shape[0]):
        for i in range(lanes):
            w.excess[j, i] = plan.excess[j]
        for c in range(k):
            for i in range(lanes):
                w.x[j, 1 + c, i] = plan.border[j, c]


@inner
def constrain(w, mean, std, column, pixels, out, rows):
    """Rate from data and prior, the last row of the border; its pivot is the information the data have of it alone."""
    k = w.pivot.shape[0]
    lanes = w.pivot.shape[1]
    count, free, free_std, weight, conflict = w.lane[1], w.lane[5], w.lane[6], w.lane[8], w.lane[9]
    for i in range(lanes):
        d, y = w.pivot[k - 1, i], w.value[k - 1, i]
        known = count[i] > 0 and w.good[i] == k
        rate = y / d if known else np.nan
        variance = 1.0 / d if known else np.nan
        free[i], free_std[i], weight[i], conflict[i] = rate, np.sqrt(variance), 0.0, np.nan
        sigma = np.inf
        if mean.shape[0] > 0 and column + i < pixels:
            sigma = std[column + i]
            if not (np.isfinite(sigma) and np.isfinite(mean[column + i])):
                sigma = np.inf
        if sigma < np.inf:
            prior = mean[column + i]
            conflict[i] = (prior - rate) / np.sqrt(variance + sigma * sigma)
            weight[i] = 1.0 / (1.0 + sigma * sigma * d)
            variance = sigma * sigma * weight[i]
            rate = variance * y + weight[i] * prior
        known = count[i] > 0 and w.good[i] >= k - 1
        weight[i] = weight[i] if known else np.nan
        w.value[k - 1, i] = rate if known else np.nan
        w.pivot[k - 1, i] = variance if known else np.nan
    if mean.shape[0] > 0:
        put(out, rows[9], column, free)
        put(out, rows[10], column, free_std)
        put(out, rows[11], column, weight)
        put(out, rows[12], column, conflict)


@inner
def turn(row, root):
    """Row (k, lane) times the upper-triangular root, in place."""
    for c in range(row.shape[0] - 1, -1, -1):
        for i in range(row.shape[1]):
            row[c, i] *= root[c, c, i]
        for r in range(c):
            for i in range(row.shape[1]):
                row[c, i] += row[r, i] * root[r, c, i]


@inner
def report(plan, column, w, out, rows):
    """Series with both standard deviations, coefficients with covariance."""
    n, k = plan.design.shape
    count = w.lane[1]
    lanes = count.shape[0]
    value, variance, part, unknown = w.lane[11], w.lane[12], w.lane[13], w.lane[8]
    for i in range(lanes):  # with equal weights and no redundancy there is no variance to propagate
        lost = plan.unit and count[i] - (n - w.sets[i]) <= 0
        unknown[i] = np.nan if lost else w.value[k - 1, i] * 0.0
    for date in range(n):
        j, share = plan.ground[date], plan.share[date]
        for i in range(lanes):
            value[i] = share * w.x[j, 0, i]
        for c in range(k):
            f = plan.shift[0, date, c]
            if f != 0:
                for i in range(lanes):
                    value[i] += f * w.value[c, i]
        if date == 0:
            for i in range(lanes):
                value[i] = 0.0 if w.value[k - 1, i] == w.value[k - 1, i] else np.nan
        put(out, rows[0] + date, column, value)
        if not plan.spread:
            continue
        for which in range(2):
            for i in range(lanes):
                variance[i] = share * share * w.inverse[j, i] + plan.extra[which, date] + unknown[i]
            for c in range(k):
                f = plan.shift[which, date, c]
                for i in range(lanes):
                    part[i] = f * w.root[c, c, i] - share * w.x[j, 1 + c, i]
                for r in range(c):
                    f = plan.shift[which, date, r]
                    if f != 0:
                        for i in range(lanes):
                            part[i] += f * w.root[r, c, i]
                for i in range(lanes):
                    variance[i] += part[i] * part[i]
            if date == 0 and which == 0:
                for i in range(lanes):
                    variance[i] *= 0.0
            put_root(out, rows[1 + which] + date, column, variance)
    for a in range(1, k):
        put(out, rows[13] + a - 1, column, w.value[a])
        for b in range(1, k):
            for i in range(lanes):
                variance[i] = unknown[i]
            for c in range(max(a, b), k):
                for i in range(lanes):
                    variance[i] += w.root[a, c, i] * w.root[b, c, i]
            put(out, rows[14] + (a - 1) * (k - 1) + b - 1, column, variance)
    put(out, rows[4], column, w.value[k - 1])
    for i in range(lanes):
        variance[i] = np.sqrt(w.pivot[k - 1, i]) + unknown[i]
    put(out, rows[5], column, variance)


@inner
def factor_complete(plan, f):
    """Factor, diagonal of the inverse (in ``size``) and border of a pixel that has every pair, in one lane.

    True where that is of use: equal weights, a connected network, no height error.
    """
    if not plan.unit or plan.height > 0:
        return False
    f.edge[:] = 0.0
    f.joined[:] = False
    for pair in range(plan.first.shape[0]):
        f.edge[plan.entry[pair], 0] += 1.0
        f.joined[plan.date_entry[pair], 0] = True
    components(plan.dates, f.joined, f.label, f.number, f.sets)
    if f.sets[0] > 1:
        return False
    f.x[:, 0] = 0.0
    f.excess[:] = 0.0
    centre_columns(plan, f)
    eliminate(plan.unknowns, f.edge, f.excess, f.inverse, f.x, plan.design.shape[1], f.gram, f.lane[10])
    solve_centred(plan, f)
    return True


@inner
def solve_complete(plan, f, diagonal, w):
    """Solve a block with the one factor ``f`` all its pixels share; False if a pixel lacks a pair.

    The operations are those of the general way in the same order, with numbers in the place of lanes. The sum of
    squared residuals is that of the phases less what the solution explains.
    """
    graph = plan.unknowns
    x, lanes = w.x, w.sets.shape[0]
    y, square = w.lane[5], w.lane[2]
    n, k = plan.design.shape
    for j in range(n):
        for i in range(lanes):
            x[j, 0, i] = 0.0
    square[:] = 0.0
    mm_per_rad, first, second = plan.mm_per_rad, plan.first, plan.second
    for pair in range(first.shape[0]):
        row = w.phase[pair]
        early, late = x[first[pair], 0], x[second[pair], 0]
        for i in range(row.shape[0]):
            y[i] = mm_per_rad * row[i]
            square[i] += y[i] * y[i]
        for i in range(row.shape[0]):
            early[i] -= y[i]
        for i in range(row.shape[0]):
            late[i] += y[i]
        if pair % 16 == 0 or pair == first.shape[0] - 1:
            for i in range(lanes):
                if not np.isfinite(square[i]):
                    return False
    w.gram[:] = 0.0
    for j in range(n):
        own = x[j, 0]
        for i in range(lanes):
            square[i] -= own[i] * own[i] * f.inverse[j, 0]
        for a in range(graph.start[j], graph.start[j + 1]):
            share, other = f.edge[a, 0], x[graph.row[a], 0]
            for i in range(lanes):
                other[i] += share * own[i]
        for c in range(1, k):
            share, total = f.x[j, c, 0] * f.inverse[j, 0], w.gram[c, 0]
            for i in range(lanes):
                total[i] += share * own[i]
    for j in range(n - 1, -1, -1):
        own = x[j, 0]
        for i in range(lanes):
            own[i] *= f.inverse[j, 0]
        for a in range(graph.start[j], graph.start[j + 1]):
            share, other = f.edge[a, 0], x[graph.row[a], 0]
            for i in range(lanes):
                own[i] += share * other[i]
        for i in range(lanes):
            w.inverse[j, i] = diagonal[j, 0]
            w.label[j, i] = 0
    for a in range(k - 1):
        for i in range(lanes):
            w.value[a, i] = 0.0
        for b in range(k - 1):
            for i in range(lanes):
                w.value[a, i] += f.matrix[a, b, 0] * w.gram[b + 1, 0, i]
                w.root[a, b, i] = f.root[a, b, 0]
                w.cov[a, b, i] = f.cov[a, b, 0]
    for i in range(lanes):
        square[i] = max(square[i], 0.0)
        w.lane[1, i] = first.shape[0]
        w.good[i] = f.good[0]
        w.sets[i] = 1
        w.size[0, i] = n
        for c in range(k):
            w.mean[0, c, i] = f.mean[0, c, 0]
    return True


@outer
def solve_interpolation(plan, w, f, phase, coherence, begin, end, out, rows):
    """Displacement from data alone; the model, if there is one, closes what they leave open.

    Inverts the pixels ``begin`` to ``end`` of (pair, pixel) arrays into the packed ``out`` (row, pixel).
    """
    n, k = plan.design.shape
    lanes = w.sets.shape[0]
    shared = factor_complete(plan, f)
    diagonal = f.size
    if shared:
        for j in range(n):
            diagonal[j, 0] = f.inverse[j, 0]
        for e in range(f.edge.shape[0]):
            w.edge[e, 0] = f.edge[e, 0]
        invert_diagonal(plan.unknowns, w.edge, diagonal, f.column)
    for column in range(begin, end, lanes):
        scale, count, square, cosine, sine = w.lane[0], w.lane[1], w.lane[2], w.lane[3], w.lane[4]
        load(phase, column, w.phase)
        load(coherence, column, w.coherence)
        done = shared and solve_complete(plan, f, diagonal, w)
        if not done:
            scale[:] = 1.0
            assemble(plan, w)
            components(plan.dates, w.joined, w.label, w.number, w.sets)
            w.excess[:] = 0.0
            centre_columns(plan, w)
            eliminate(plan.unknowns, w.edge, w.excess, w.inverse, w.x, k, w.gram, w.lane[10])
            solve_centred(plan, w)
            substitute(plan.unknowns, w.edge, w.inverse, w.x, k if plan.height > 0 else 1)
        if plan.statistics or (plan.unit and not done):
            residuals(plan, w.phase, w.x, square, cosine, sine, w.single)
        unit = w.lane[7]
        for i in range(lanes):
            freedom = count[i] - (n - w.sets[i])
            unit[i] = 1.0 if not plan.unit else square[i] / freedom if freedom > 0 else np.nan
        if plan.spread and not done:
            invert_diagonal(plan.unknowns, w.edge, w.inverse, w.column)
        close_gaps(plan, column, w, out, rows)
        finish(plan, column, w, out, rows)


@outer
def solve_posterior(plan, w, phase, coherence, mean, std, begin, end, out, rows):
    """Posterior of series and coefficients under the stated deviation, delay and rate prior.

    Inverts the pixels ``begin`` to ``end`` of (pair, pixel) arrays into the packed ``out`` (row, pixel).
    """
    lanes = w.sets.shape[0]
    for column in range(begin, end, lanes):
        k = plan.design.shape[1]
        scale, count, square, cosine, sine = w.lane[0], w.lane[1], w.lane[2], w.lane[3], w.lane[4]
        load(phase, column, w.phase)
        load(coherence, column, w.coherence)
        scale[:] = 1.0
        for step in range(2 if plan.unit else 1):
            # equal weights: first the network by itself, for the variance of its residuals
            alone = plan.unit and step == 0
            assemble(plan, w)
            if step == 0 and (plan.unit or plan.statistics):
                components(plan.dates, w.joined, w.label, w.number, w.sets)
            if alone:
                w.excess[:] = 0.0
            else:
                add_prior(plan, w)
            eliminate(
                plan.unknowns, w.edge, w.excess, w.inverse, w.x, 1 if alone else 1 + k, w.gram, w.lane[10]
            )
            if alone:
                substitute(plan.unknowns, w.edge, w.inverse, w.x, 2 - k // k)
                residuals(plan, w.phase, w.x, square, cosine, sine, w.single)
                for i in range(lanes):
                    freedom = count[i] - (plan.design.shape[0] - w.sets[i])
                    scale[i] = 1.0 / max(square[i] / freedom, plan.smallest_unit) if freedom > 0 else 1.0
        for c in range(k):
            for i in range(lanes):
                w.value[c, i] = -w.gram[1 + c, 0, i]
            for d in range(c + 1):
                for i in range(lanes):
                    w.matrix[c, d, i] = plan.corner[c, d] - w.gram[1 + c, 1 + d, i]
        small_factor(w.matrix, plan.scale, w.pivot, w.good)
        small_solve(w.matrix, w.value)
        for c in range(k - 1):
            for i in range(lanes):
                w.pivot[c, i] = 1.0 / w.pivot[c, i] if w.pivot[c, i] > 0 else 0.0
                w.value[c, i] *= w.pivot[c, i]
        constrain(w, mean, std, column, phase.shape[1], out, rows)
        small_back(w.matrix, w.value)
        small_root(w.matrix, w.pivot, w.root)
        for j in range(w.x.shape[0]):
            for c in range(k):
                for i in range(lanes):
                    w.x[j, 0, i] -= w.x[j, 1 + c, i] * w.value[c, i]
            if plan.spread:
                turn(w.x[j, 1:], w.root)
        substitute(plan.unknowns, w.edge, w.inverse, w.x, 1 + k if plan.spread else 1)
        if plan.statistics:
            residuals(plan, w.phase, w.x, square, cosine, sine, w.single)
        if plan.spread:
            invert_diagonal(plan.unknowns, w.edge, w.inverse, w.column)
        report(plan, column, w, out, rows)
        finish(plan, column, w, out, rows)
