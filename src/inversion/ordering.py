"""Order and pattern of the elimination, worked out once per network and used for every pixel.

The normal matrix of an interferogram network is that of a graph: dates are nodes, pairs are edges. Short pairs only
make a band, which elimination in order of time keeps; long summer-to-summer pairs break it, and an order of least
degree then keeps the fill small. The pattern does not depend on which pairs a pixel lacks.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Pattern(NamedTuple):
    """Lower-triangular factor by columns. Positions count in the order of elimination; the last node is the datum."""

    order: np.ndarray  # (node,) node eliminated at each position
    position: np.ndarray  # (node,) the inverse
    start: np.ndarray  # (node + 1,) first entry of each column
    row: np.ndarray  # (entry,) position of the entry's row
    update: np.ndarray  # (update,) entry that the product of two entries (a < b) of one column is added to
    update_start: np.ndarray  # (node + 1,) first update of each column

    def entry(self, first, second) -> np.ndarray:
        """Entry that belongs to each pair of nodes."""
        low, high = np.sort(np.stack([self.position[first], self.position[second]]), axis=0)
        column = np.repeat(np.arange(len(self.order)), np.diff(self.start))
        place = {edge: at for at, edge in enumerate(zip(column, self.row, strict=True))}
        return np.array([place[edge] for edge in zip(low, high, strict=True)], dtype=np.int64)


def pattern(n: int, first, second, natural) -> Pattern:
    """Elimination pattern of a graph of ``n`` nodes.

    ``natural`` is an order known to be good for short edges; its last node is the datum and stays last. The order of
    least degree replaces it where that needs fewer than two thirds of the operations. Several inversions of one
    network share it: the last few are kept.
    """
    return _pattern(n, *(np.asarray(nodes, dtype=np.int64).tobytes() for nodes in (first, second, natural)))


@lru_cache(maxsize=16)
def _pattern(n: int, first: bytes, second: bytes, natural: bytes) -> Pattern:
    first, second, natural = (
        np.frombuffer(nodes, dtype=np.int64).copy() for nodes in (first, second, natural)
    )
    best = _fill(natural, first, second)
    if max((len(column) for column in best), default=0) > 6:
        other = _least_degree(n, first, second, natural[-1])
        columns = _fill(other, first, second)
        if _work(columns) < 2 / 3 * _work(best):
            natural, best = other, columns
    start = np.cumsum([0] + [len(column) for column in best])
    row = np.array([r for column in best for r in column], dtype=np.int64)
    place = {(c, r): start[c] + i for c, column in enumerate(best) for i, r in enumerate(column)}
    updates = [[place[a, b] for i, a in enumerate(column) for b in column[i + 1 :]] for column in best]
    return Pattern(
        natural,
        np.argsort(natural),
        start.astype(np.int64),
        row,
        np.array([u for column in updates for u in column], dtype=np.int64),
        np.cumsum([0] + [len(column) for column in updates]).astype(np.int64),
    )


def _work(columns) -> int:
    return sum(len(column) ** 2 for column in columns)


def _fill(order, first, second) -> list[list[int]]:
    """Rows of every column of the factor, by position: each column passes its rows on to its first one."""
    position = np.argsort(order)
    columns = [set() for _ in order]
    for a, b in zip(position[first], position[second], strict=True):
        columns[min(a, b)].add(int(max(a, b)))
    for column in columns:
        if column:
            parent = min(column)
            columns[parent] |= column - {parent}
    return [sorted(column) for column in columns]


def _least_degree(n, first, second, last) -> np.ndarray:
    """Greedy order: always the node with fewest neighbours left; ties by number, ``last`` at the end."""
    near = [set() for _ in range(n)]
    for a, b in zip(np.asarray(first).tolist(), np.asarray(second).tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    left, order = set(range(n)) - {int(last)}, []
    while left:
        node = min(left, key=lambda i: (len(near[i]), i))
        left.remove(node)
        order.append(node)
        for neighbour in near[node]:
            near[neighbour] |= near[node]
            near[neighbour] -= {neighbour, node}
    return np.array([*order, int(last)], dtype=np.int64)
