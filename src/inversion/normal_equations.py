"""From the pairs of a block of pixels to their normal equations, to what they join, and back to residuals.

A pair of the dates a < b with phase p has y = c p = x_b - x_a + noise, c = -1000 lambda / (4 pi) mm/rad, and the
weight w = 1 / variance: A'WA has the edge weight w between a and b, A'Wy gets -w y at a and +w y at b.
"""

from math import factorial

import numpy as np

from .phase_noise import LARGEST_COHERENCE
from .workspace import inner, put

# single precision, so that loops over lanes stay in it
PI, ZERO, HALF, ONE, TWO = np.float32([np.pi, 0, 0.5, 1, 2])
LARGEST = np.float32(LARGEST_COHERENCE)
S3, S5, S7, S9, S11 = np.float32([(-1) ** (n // 2) / factorial(n) for n in range(3, 12, 2)])
C2, C4, C6, C8, C10, C12 = np.float32([(-1) ** (n // 2) / factorial(n) for n in range(2, 13, 2)])


@inner
def assemble(plan, w):
    """Edges and right-hand side of the normal equations from the pairs; their number and what they join.

    The loops over lanes are kept apart so that each is turned into vector instructions.
    """
    edge, rhs, joined, single, bin_ = w.edge, w.x, w.joined, w.single, w.bin
    scale, count, y = w.scale, w.count, w.weighted
    weight, part, table, found, halves = single[0], single[1], plan.variance, w.found, w.halves
    edge[:] = 0.0
    rhs[:, 0] = 0.0
    joined[:] = False
    count[:] = 0.0
    lanes = y.shape[0]
    mm_per_rad, pair_variance, unit = plan.mm_per_rad, plan.pair_variance, plan.unit
    entry, first, second, link_entry = plan.entry, plan.first, plan.second, plan.date_entry
    bins = np.float32(table.shape[0] - 1)
    for pair in range(first.shape[0]):
        row, link = w.phase[pair], joined[link_entry[pair]]
        for i in range(lanes):
            link[i] = np.isfinite(row[i])
            weight[i] = ONE if np.isfinite(row[i]) else ZERO
        for i in range(lanes):
            count[i] += weight[i]
        if not unit:
            seen, add = w.coherence[pair], pair_variance[pair]
            for i in range(lanes):
                place = bins * min(seen[i] if seen[i] > ZERO else ZERO, LARGEST)  # NaN too
                bin_[i] = np.uint32(place)
                part[i] = place - np.float32(bin_[i])
            for i in range(lanes):  # by itself: no vector instruction for it
                found[i] = table[bin_[i]]
            for i in range(lanes):
                # 1 / (variance of the phase by coherence, between two bins + variance of the pair)
                weight[i] /= halves[2 * i] + part[i] * halves[2 * i + 1] + add
        own, early, late = edge[entry[pair]], rhs[first[pair], 0], rhs[second[pair], 0]
        for i in range(lanes):
            own_weight = scale[i] * weight[i]
            own[i] += own_weight
            y[i] = own_weight * (mm_per_rad * row[i]) if weight[i] > ZERO else 0.0
        for i in range(lanes):
            early[i] -= y[i]
            late[i] += y[i]


@inner
def label_components(graph, joined, label, number, sets):
    """Number the dates that pairs join: 0 with the first date, then by date. ``label`` is (position, lane)."""
    n, lanes = label.shape
    # where a column joins two later dates, elimination joins these two: the fill carries what is joined
    for j in range(n):
        u = graph.update_start[j]
        for a in range(graph.start[j], graph.start[j + 1]):
            for b in range(a + 1, graph.start[j + 1]):
                t = graph.update[u]
                u += 1
                for i in range(lanes):
                    joined[t, i] |= joined[a, i] & joined[b, i]
    # backward: a date has the label of a later date that it is joined to, else a new one
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
    # other orders than that of time: number anew by the first date
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
def residuals(plan, w):
    """Sum of squared residuals r = c p - (x_b - x_a) (mm2), and of their phasors exp(i r / c).

    The phasors are in single precision, from series of sine and cosine at half the angle: good to 1e-6.
    """
    phase, x, square = w.phase, w.x, w.square
    half, up, along = w.single[0], w.single[1], w.single[2]
    square[:] = 0.0
    up[:] = 0.0
    along[:] = 0.0
    cycles = 1.0 / (2 * np.pi * plan.mm_per_rad)
    for pair in range(phase.shape[0]):
        row = phase[pair]
        early, late = x[plan.first[pair], 0], x[plan.second[pair], 0]
        for i in range(row.shape[0]):
            r = plan.mm_per_rad * row[i] - (late[i] - early[i]) if np.isfinite(row[i]) else 0.0
            square[i] += r * r
            half[i] = r * cycles
        for i in range(row.shape[0]):
            h = PI * (half[i] - np.floor(half[i] + HALF))  # within +-pi/2
            q = h * h
            s = h + h * q * (S3 + q * (S5 + q * (S7 + q * (S9 + q * S11))))
            c = ONE + q * (C2 + q * (C4 + q * (C6 + q * (C8 + q * (C10 + q * C12)))))
            # cos 2h = 1 - 2 sin2 h, sin 2h = 2 sin h cos h
            along[i] += ONE - TWO * s * s if np.isfinite(row[i]) else ZERO
            up[i] += TWO * s * c
    for i in range(square.shape[0]):
        w.cosine[i], w.sine[i] = along[i], up[i]


@inner
def write_statistics(plan, column, w, out):
    """Mean resultant length |sum exp(i r / c)| / count and rms of the residuals, and the components."""
    n = plan.design.shape[0]
    count, square, cosine, sine = w.count, w.square, w.cosine, w.sine
    lanes = count.shape[0]
    where = plan.dates.position
    put(out.values, out.n_pairs, column, count)
    if not plan.statistics:
        return
    for i in range(lanes):
        there = count[i] > 0
        cosine[i] = np.sqrt(cosine[i] ** 2 + sine[i] ** 2) / count[i] if there else np.nan
        square[i] = np.sqrt(square[i] / count[i]) if there else np.nan
    put(out.values, out.temporal_coherence, column, cosine)
    put(out.values, out.residual_rms, column, square)
    for date in range(n):
        j = where[date]
        target = out.values[out.data_component + date, column : column + lanes]
        for i in range(target.shape[0]):
            target[i] = w.label[j, i] if count[i] > 0 else -1
