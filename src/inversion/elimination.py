"""Sparse elimination of the dates and the small dense system that is left, many pixels side by side.

The weighted normal matrix of a network is that of a graph: with the edge weights w_ab > 0 of the pairs and a
non-negative excess e_a of the diagonal, N_ab = -w_ab and N_aa = e_a + sum_b w_ab. Eliminated from edges and excess
instead of from diagonals, all is addition of positive numbers: nothing cancels, and a set of dates without tie to
the rest ends in a pivot that is exactly zero.
"""

import numpy as np

from .workspace import inner

TINY_PIVOT = 3e-13


@inner
def eliminate(graph, w, columns):
    """Factor N = L D L', solve L z = x forward in place, and add up z' D^-1 z, but for its first element.

    Eliminating j with the pivot d_j = e_j + sum_a w_ja joins its neighbours: w_ab += w_ja w_jb / d_j and
    e_a += w_ja e_j / d_j. Afterwards ``edge`` holds -L_aj = w_ja / d_j, ``inverse`` 1 / d_j (0 for a zero pivot and
    for the datum), and ``gram`` the products that the Schur complement of the border needs.
    """
    edge, excess, inverse, x, gram, share = w.edge, w.excess, w.inverse, w.x, w.gram, w.share
    n = graph.order.shape[0]
    lanes = inverse.shape[1]
    gram[:] = 0.0
    for j in range(n):
        inv = inverse[j]
        for i in range(lanes):
            inv[i] = excess[j, i]  # d_j = e_j + sum_a w_ja
        for a in range(graph.start[j], graph.start[j + 1]):
            for i in range(lanes):
                inv[i] += edge[a, i]
        for i in range(lanes):
            inv[i] = 1.0 / inv[i] if inv[i] > 0 and j < n - 1 else 0.0
        u = graph.update_start[j]
        for a in range(graph.start[j], graph.start[j + 1]):
            r, factor = graph.row[a], edge[a]
            for i in range(lanes):
                factor[i] *= inv[i]  # -L_aj = w_ja / d_j
                excess[r, i] += factor[i] * excess[j, i]  # e_a += w_ja e_j / d_j
            for b in range(a + 1, graph.start[j + 1]):
                t = graph.update[u]
                u += 1
                for i in range(lanes):
                    edge[t, i] += factor[i] * edge[b, i]  # w_ab += w_ja w_jb / d_j
            for c in range(columns):
                for i in range(lanes):
                    x[r, c, i] += factor[i] * x[j, c, i]  # z_a -= L_aj z_j
        for c in range(1, columns):
            for i in range(lanes):
                share[i] = x[j, c, i] * inv[i]
            for d in range(c + 1):
                for i in range(lanes):
                    gram[c, d, i] += share[i] * x[j, d, i]


@inner
def substitute(graph, w, columns):
    """Solve L' x = D^-1 z backward, in place: x_j = z_j / d_j - sum_a L_aj x_a."""
    edge, inverse, x = w.edge, w.inverse, w.x
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
    """Diagonal of Z = N^-1 into ``inverse``, by Takahashi's recurrences; its entries on the pattern replace the factor.

    From the last column backward, with the sums over the pattern of column j only:
    Z_aj = -sum_b Z_ab L_bj and Z_jj = 1 / d_j - sum_a L_aj Z_aj.
    """
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
                z[a, i] += edge[s + a, i] * inverse[r, i]  # -L_aj Z_aa
            for b in range(a + 1, m):
                t = graph.update[u]
                u += 1
                for i in range(lanes):
                    z[a, i] += edge[s + b, i] * edge[t, i]  # -L_bj Z_ab, and the same for b
                for i in range(lanes):
                    z[b, i] += edge[s + a, i] * edge[t, i]
        for a in range(m):
            for i in range(lanes):
                inverse[j, i] += edge[s + a, i] * z[a, i]
            for i in range(lanes):
                edge[s + a, i] = z[a, i]


@inner
def small_factor(matrix, scale, pivot, good):
    """LDL' of (k, k, lane) in place (lower triangle); ``good`` counts the leading pivots that are not noise.

    d_j = S_jj, L_rj = S_rj / d_j, and S_rc -= L_rj S_cj for the columns c that follow.
    """
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
    """Upper-triangular root R with R R' = (L D L')^-1: R = L'^-1 D^-1/2, column by column from its diagonal."""
    k, lanes = root.shape[0], root.shape[2]
    root[:] = 0.0
    for c in range(k):
        for i in range(lanes):
            root[c, c, i] = np.sqrt(inverse_pivot[c, i])
        for r in range(c - 1, -1, -1):
            for m in range(r + 1, c + 1):
                for i in range(lanes):
                    root[r, c, i] -= factor[m, r, i] * root[m, c, i]
