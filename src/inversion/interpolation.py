"""Displacement from data alone; the temporal model only closes what they leave open.

This is the limit of a vanishing weight of the model. The dates that a pixel's pairs join form components; within one
the displacement x is the weighted least-squares solution, its level free. With c(.) the deviation from the mean over
a component, the coefficients minimise sum |c(x) - c(B) p|^2, an ordinary least-squares fit, and the model then gives
the level of every component relative to the first. Classical SBAS is the same with NaN beyond the first component.
"""

import numpy as np

from .elimination import eliminate, invert_diagonal, small_factor, small_root, substitute
from .normal_equations import assemble, label_components, residuals, write_statistics
from .workspace import inner, load, outer, put, put_root


@inner
def add_products(x, c, delay, matrix, cov):
    """Add the products of column ``c`` with those before it, at one date, to the Gram matrices."""
    for d in range(1, c + 1):
        for i in range(x.shape[1]):
            matrix[c - 1, d - 1, i] += x[c, i] * x[d, i]
        if delay > 0:
            for i in range(x.shape[1]):
                cov[c - 1, d - 1, i] += x[c, i] * x[d, i] * delay


@inner
def centre_columns(plan, w):
    """Columns of the model less their mean over each component, c(B), into the border; their Gram matrices.

    ``matrix`` is c(B)' c(B), ``cov`` the same weighted by the variance of the delay, c(B)' D c(B).
    """
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
        j, delay = plan.ground[date], plan.delay[date]
        for c in range(1, k):
            for i in range(lanes):
                w.x[j, c, i] = plan.design[date, c] - w.mean[w.label[j, i], c, i]
            add_products(w.x[j], c, delay, w.matrix, w.cov)


@inner
def solve_centred(plan, w):
    """Coefficients of the centred columns, and their sampling covariance per unit variance in ``cov`` and ``root``.

    ``matrix`` comes in as G = c(B)' c(B) and goes out as G^-1. p = G^-1 c(B)' x; data part of its covariance
    G^-1 c(B)' N^-1 c(B) G^-1 in ``root``, delay part G^-1 c(B)' D c(B) G^-1 in ``cov``.
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
    """Level of the model over each component, less that of the data, into slot 0 of ``mean``: mean(B) p - mean(x)."""
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
    """Add what the height error h, ``b`` times in displacement, does to the variance of a date.

    Var(x - b h) = Var(x) + b2 Var(h) - 2 b Cov(x, h), where h is row z of G^-1 c(B)' x.
    """
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
def close_gaps(plan, column, w, out):
    """Displacement with the model between components, NaN where there is no model, and its sampling variance.

    Var(d) = s2 (N^-1)_jj + delay_j + delay_0, with s2 the unit variance; NaN beyond the first component.
    """
    n, k = plan.design.shape
    m = k - 1
    count, unit = w.count, w.unit
    lanes = count.shape[0]
    most = 0
    for i in range(lanes):
        most = max(most, w.sets[i])
    if most > 1:
        place_components(plan, most, w)
    z = plan.height - 1
    value, variance, no_data, unfit = w.at_date, w.variance, w.no_data, w.unfitted
    for i in range(lanes):
        no_data[i] = 0.0 if count[i] > 0 else np.nan
        unfit[i] = 0.0 if w.good[i] == m and not plan.free else np.nan
    for date in range(n):
        j = plan.ground[date]
        b = plan.design[date, plan.height] - plan.design[0, plan.height]
        for i in range(lanes):
            value[i] = w.x[j, 0, i] + no_data[i]
        if most > 1:
            for i in range(lanes):
                own = w.label[j, i]
                value[i] += w.mean[own, 0, i] - w.mean[0, 0, i] + unfit[i] if own > 0 else 0.0
        if z >= 0:
            for i in range(lanes):
                value[i] -= b * w.value[z, i] + unfit[i]
        put(out.values, out.displacement + date, column, value if date > 0 else no_data)
        if not plan.spread:
            continue
        delay = plan.delay[date] + plan.delay[0]
        for i in range(lanes):
            variance[i] = w.inverse[j, i] * unit[i] + delay + no_data[i]
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
        put_root(out.values, out.displacement_std + date, column, variance)
    for a in range(m):
        for b in range(m):
            for i in range(lanes):
                good = w.good[i] == m and count[i] > 0 and (not plan.free or w.sets[i] == 1)
                w.cov[a, b, i] = w.root[a, b, i] * unit[i] + w.cov[a, b, i] if good else np.nan
                w.value[a, i] = w.value[a, i] if good else np.nan
            put(out.values, out.covariance + a * m + b, column, w.cov[a, b])
        put(out.values, out.coefficients + a, column, w.value[a])
    put(out.values, out.rate, column, w.value[m - 1])
    put_root(out.values, out.rate_std, column, w.cov[m - 1, m - 1])


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
    label_components(plan.dates, f.joined, f.label, f.number, f.sets)
    if f.sets[0] > 1:
        return False
    f.x[:, 0] = 0.0
    f.excess[:] = 0.0
    centre_columns(plan, f)
    eliminate(plan.unknowns, f, plan.design.shape[1])
    solve_centred(plan, f)
    return True


@inner
def explain_complete(plan, w):
    """Right-hand side A'y and the sum of squares y'y of complete pixels; False if a pixel lacks a pair."""
    x, lanes = w.x, w.sets.shape[0]
    y, square = w.weighted, w.square
    n = plan.design.shape[0]
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
    return True


@inner
def solve_complete(plan, f, diagonal, w):
    """Solve a block with the one factor ``f`` all its pixels share; False if a pixel lacks a pair.

    The operations are those of the general way in the same order, with numbers in the place of lanes. The sum of
    squared residuals is that of the phases less what the solution explains: y'y - z' D^-1 z.
    """
    graph = plan.unknowns
    if not explain_complete(plan, w):
        return False
    x, square, lanes = w.x, w.square, w.sets.shape[0]
    n, k = plan.design.shape
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
        w.count[i] = plan.first.shape[0]
        w.good[i] = f.good[0]
        w.sets[i] = 1
        w.size[0, i] = n
        for c in range(k):
            w.mean[0, c, i] = f.mean[0, c, 0]
    return True


@outer
def solve_interpolation(plan, w, f, data, begin, end, out):
    """Displacement from data alone; the model, if there is one, closes what they leave open.

    Inverts the pixels ``begin`` to ``end`` of ``data`` into ``out``; ``f`` is the workspace of a single lane, for the
    factor that all complete pixels share.
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
        scale, count, square = w.scale, w.count, w.square
        load(data.phase, column, w.phase)
        load(data.coherence, column, w.coherence)
        done = shared and solve_complete(plan, f, diagonal, w)
        if not done:
            scale[:] = 1.0
            assemble(plan, w)
            label_components(plan.dates, w.joined, w.label, w.number, w.sets)
            w.excess[:] = 0.0
            centre_columns(plan, w)
            eliminate(plan.unknowns, w, k)
            solve_centred(plan, w)
            substitute(plan.unknowns, w, k if plan.height > 0 else 1)
        if plan.statistics or (plan.unit and not done):
            residuals(plan, w)
        unit = w.unit
        for i in range(lanes):
            freedom = count[i] - (n - w.sets[i])
            unit[i] = 1.0 if not plan.unit else square[i] / freedom if freedom > 0 else np.nan
        if plan.spread and not done:
            invert_diagonal(plan.unknowns, w.edge, w.inverse, w.column)
        close_gaps(plan, column, w, out)
        write_statistics(plan, column, w, out)
