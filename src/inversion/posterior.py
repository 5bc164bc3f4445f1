"""Posterior of series and coefficients: ground = model + deviation, a delay per date, and a Gaussian rate prior.

Data y = A x + e with weights W, prior x = B p + deviation with precision P; the coefficients p are free. The joint
normal matrix of (x, p) is [[A'WA + P, -PB], [-B'P, B'PB]]. Elimination of x leaves the Schur complement
S p = s with S = B'PB - (PB)'(A'WA + P)^-1 PB, and x given p follows by back substitution. The rate is the last
coefficient: its pivot d in S = LDL' is the information the data have of it alone, so a rate prior enters there.
"""

import numpy as np

from .elimination import (
    eliminate,
    invert_diagonal,
    small_back,
    small_factor,
    small_root,
    small_solve,
    substitute,
)
from .normal_equations import assemble, label_components, residuals, write_statistics
from .workspace import inner, load, outer, put, put_root


@inner
def add_prior(plan, w):
    """Precision P of the unknowns before the data, as edges and excess, and the border -P B to the coefficients."""
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
def constrain(w, data, column, out):
    """Rate from data and prior, the last row of the border; its pivot d is the information the data have of it alone.

    With the free rate r = y / d, its variance 1 / d, and the prior m, sigma: weight v = 1 / (1 + sigma2 d), variance
    sigma2 v, rate sigma2 v y + v m, and the conflict z = (m - r) / sqrt(1 / d + sigma2).
    """
    mean, std, pixels = data.prior_mean, data.prior_std, data.phase.shape[1]
    k = w.pivot.shape[0]
    lanes = w.pivot.shape[1]
    count, free, free_std, weight, conflict = w.count, w.free, w.free_std, w.weight, w.conflict
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
        put(out.values, out.rate_unconstrained, column, free)
        put(out.values, out.rate_unconstrained_std, column, free_std)
        put(out.values, out.prior_weight, column, weight)
        put(out.values, out.prior_conflict, column, conflict)


@inner
def multiply_root(row, root):
    """Row (k, lane) times the upper-triangular root, in place."""
    for c in range(row.shape[0] - 1, -1, -1):
        for i in range(row.shape[1]):
            row[c, i] *= root[c, c, i]
        for r in range(c):
            for i in range(row.shape[1]):
                row[c, i] += row[r, i] * root[r, c, i]


@inner
def coefficient_equations(plan, w):
    """Schur complement S = corner - K' N^-1 K into ``matrix`` and its right-hand side s = -K' N^-1 A'Wy."""
    k, lanes = plan.design.shape[1], w.sets.shape[0]
    for c in range(k):
        for i in range(lanes):
            w.value[c, i] = -w.gram[1 + c, 0, i]
        for d in range(c + 1):
            for i in range(lanes):
                w.matrix[c, d, i] = plan.corner[c, d] - w.gram[1 + c, 1 + d, i]


@inner
def add_model_variance(shift, share, root, x, part, variance):
    """Add what the coefficients' covariance R R' does to the variance of displacement at a date.

    Given p, x has the variance (N^-1)_jj and the slope -N^-1 K, K the border, so that
    Var(d) = w2 (N^-1)_jj + |(shift - w N^-1 K) R|2 + extra; ``x`` holds row j of N^-1 K R.
    """
    lanes = variance.shape[0]
    for c in range(root.shape[0]):
        f = shift[c]
        for i in range(lanes):
            part[i] = f * root[c, c, i] - share * x[1 + c, i]
        for r in range(c):
            f = shift[r]
            if f != 0:
                for i in range(lanes):
                    part[i] += f * root[r, c, i]
        for i in range(lanes):
            variance[i] += part[i] * part[i]


@inner
def write_series(plan, column, w, out):
    """Series d = B p + w (x - B p) = w x + (1 - w) B p since the first date, with both standard deviations.

    ``share`` is w = sigma_d2 / tau2 and ``shift`` what multiplies the coefficients, (1 - w) B less its first row.
    """
    n, k = plan.design.shape
    count = w.count
    lanes = count.shape[0]
    value, unknown = w.at_date, w.unknown
    variance, part = w.variance, w.part
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
        put(out.values, out.displacement + date, column, value)
        if not plan.spread:
            continue
        for which in range(2):
            extra = plan.extra[which, date]  # sigma_d2 sigma_a2 / tau2, of both dates
            for i in range(lanes):
                variance[i] = share * share * w.inverse[j, i] + extra + unknown[i]
            add_model_variance(plan.shift[which, date], share, w.root, w.x[j], part, variance)
            if date == 0 and which == 0:
                for i in range(lanes):
                    variance[i] *= 0.0
            row = out.displacement_std if which == 0 else out.displacement_model_std
            put_root(out.values, row + date, column, variance)


@inner
def write_coefficients(plan, column, w, out):
    """Coefficients without the intercept, their covariance R R', and the rate, whose variance is its inverse pivot."""
    k = plan.design.shape[1]
    lanes = w.sets.shape[0]
    variance, unknown = w.variance, w.unknown
    for a in range(1, k):
        put(out.values, out.coefficients + a - 1, column, w.value[a])
        for b in range(1, k):
            for i in range(lanes):
                variance[i] = unknown[i]
            for c in range(max(a, b), k):
                for i in range(lanes):
                    variance[i] += w.root[a, c, i] * w.root[b, c, i]
            put(out.values, out.covariance + (a - 1) * (k - 1) + b - 1, column, variance)
    put(out.values, out.rate, column, w.value[k - 1])
    for i in range(lanes):
        variance[i] = np.sqrt(w.pivot[k - 1, i]) + unknown[i]
    put(out.values, out.rate_std, column, variance)


@outer
def solve_posterior(plan, w, data, begin, end, out):
    """Posterior of series and coefficients under the stated deviation, delay and rate prior.

    Inverts the pixels ``begin`` to ``end`` of ``data`` into ``out``.
    """
    k, lanes = plan.design.shape[1], w.sets.shape[0]
    for column in range(begin, end, lanes):
        scale, count, square = w.scale, w.count, w.square
        load(data.phase, column, w.phase)
        load(data.coherence, column, w.coherence)
        scale[:] = 1.0
        for step in range(2 if plan.unit else 1):
            # equal weights: first the network by itself, for the variance of its residuals
            alone = plan.unit and step == 0
            assemble(plan, w)
            if step == 0 and (plan.unit or plan.statistics):
                label_components(plan.dates, w.joined, w.label, w.number, w.sets)
            if alone:
                w.excess[:] = 0.0
            else:
                add_prior(plan, w)
            columns = 1 if alone else 1 + k
            eliminate(plan.unknowns, w, columns)
            if alone:
                substitute(plan.unknowns, w, columns)
                residuals(plan, w)
                for i in range(lanes):
                    freedom = count[i] - (plan.design.shape[0] - w.sets[i])
                    scale[i] = 1.0 / max(square[i] / freedom, plan.smallest_unit) if freedom > 0 else 1.0
        coefficient_equations(plan, w)
        small_factor(w.matrix, plan.scale, w.pivot, w.good)
        small_solve(w.matrix, w.value)
        for c in range(k - 1):
            for i in range(lanes):
                w.pivot[c, i] = 1.0 / w.pivot[c, i] if w.pivot[c, i] > 0 else 0.0
                w.value[c, i] *= w.pivot[c, i]
        constrain(w, data, column, out)
        # p = L'^-1 D^-1 z, then x = N^-1 (A'Wy - K p), and N^-1 K R for the variances
        small_back(w.matrix, w.value)
        small_root(w.matrix, w.pivot, w.root)
        for j in range(w.x.shape[0]):
            for c in range(k):
                for i in range(lanes):
                    w.x[j, 0, i] -= w.x[j, 1 + c, i] * w.value[c, i]
            if plan.spread:
                multiply_root(w.x[j, 1:], w.root)
        substitute(plan.unknowns, w, 1 + k if plan.spread else 1)
        if plan.statistics:
            residuals(plan, w)
        if plan.spread:
            invert_diagonal(plan.unknowns, w.edge, w.inverse, w.column)
        write_series(plan, column, w, out)
        write_coefficients(plan, column, w, out)
        write_statistics(plan, column, w, out)
