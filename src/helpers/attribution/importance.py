"""Importance of groups of drivers: permuted, conditional, left out, and by impurity."""

from __future__ import annotations

import itertools

import numpy as np
from numpy import ndarray
from pandas import DataFrame
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from .models import BlockedModel, block_folds, checked, draw_blocks, fitted

BOOTSTRAP_DRAWS = 500
REPEATS = 2  # permutations of a group in a fold


def grouped_importance(
    model: BlockedModel, drivers: DataFrame, target: ndarray, groups: dict[str, list[str]], blocks: ndarray, *,
    conditional: bool = False,
) -> DataFrame:  # fmt: skip
    """Loss of held-out R2 when the columns of a group are permuted together.

    Columns that say nearly the same hide each other when permuted one by one; a group is permuted as a whole, over
    the whole scene, and the loss is counted on held-out pixels. The block bootstrap scores the held-out blocks
    again and refits nothing: the interval is that of the scoring, given the models.

    Parameters
    ----------
    model, drivers, target, blocks
        From `fit_forest` or `fit_smooth` and what it was fitted to; its fold models, weights and seed are used.
    groups : dict
        Name to columns; columns in no group are never permuted.
    conditional : bool
        Permute only among pixels whose other drivers predict the same values of the group (leaves of a tree), so
        that a group gets no credit for what the others say already.

    Returns
    -------
    DataFrame
        group, importance (share of the target's variance), lower, upper (95 %), rank, rank_probability (share of
        the draws with it). attrs["ranks"]: {group: [probability of rank 1, 2, ...]}; attrs["draws"]: {group: values}.
    """
    data = x, y, _, _ = checked(drivers, target, model.weight, blocks)
    columns = groups_at(drivers, groups)
    rng = np.random.default_rng(model.seed)
    base = np.empty(len(y))
    permuted = {g: np.zeros(len(y)) for g in columns}
    # importance of group G: sum w (e_G^2 - e^2) / sum w (y - mean)^2, e_G the held-out residual with G permuted
    for train, test, estimator in model.folds:
        base[test] = np.square(y[test] - estimator.predict(x[test]))
        for name, at in columns.items():
            strata = _strata(x, at, train, model.seed) if conditional else np.zeros(len(x), int)
            for _ in range(REPEATS):
                donor = permute_within(strata, rng)[test]  # of the scene: a fold is too alike
                shuffled = x[test].copy()
                shuffled[:, at] = x[np.ix_(donor, at)]
                permuted[name][test] += np.square(y[test] - estimator.predict(shuffled)) / REPEATS
    return _importance_table(permuted, base, data, rng)


def drop_column(
    model: BlockedModel, drivers: DataFrame, target: ndarray, groups: dict, blocks: ndarray, *, trees: int
) -> DataFrame:
    """As `grouped_importance`, for forests of `trees` trees refitted without a group: what only that group knows."""
    x, y, w, b = checked(drivers, target, model.weight, blocks)
    columns, forest = groups_at(drivers, groups), clone(model.estimator).set_params(n_estimators=trees)
    errors = {None: np.empty(len(y)), **{g: np.empty(len(y)) for g in groups}}
    for train, test in block_folds(b, 0):
        for name, error in errors.items():
            keep = np.setdiff1d(np.arange(x.shape[1]), columns.get(name, []))
            part = fitted(forest, x[np.ix_(train, keep)], y[train], w[train])
            error[test] = np.square(y[test] - part.predict(x[np.ix_(test, keep)]))
    whole = errors.pop(None)
    return _importance_table(errors, whole, (x, y, w, b), np.random.default_rng(0))


def impurity_importance(
    model: BlockedModel | RandomForestRegressor, drivers: DataFrame, groups: dict
) -> DataFrame:
    """Impurity importance summed over groups, for comparison only: in-sample, and misled by noise."""
    at = groups_at(drivers, groups)
    values = [model.feature_importances_[at[g]].sum() for g in groups]
    return DataFrame({"group": list(groups), "importance": values})


def groups_at(drivers, groups):
    """Positions of the columns of each group."""
    if not groups:
        raise ValueError("groups: is empty; give {name: [columns]}")
    missing = [c for c in itertools.chain(*groups.values()) if c not in drivers.columns]
    if missing:
        raise ValueError(f"groups: {missing} are no drivers; there are {list(drivers.columns)}")
    return {g: [drivers.columns.get_loc(c) for c in columns] for g, columns in groups.items()}


def _strata(x, at, train, seed):
    """Leaf of each pixel in a tree, grown on `train`, that predicts the group's columns from all others."""
    others = np.setdiff1d(np.arange(x.shape[1]), at)
    if not others.size:
        return np.zeros(len(x), int)
    wanted = x[np.ix_(train, at)]
    spread = wanted.std(axis=0)
    tree = DecisionTreeRegressor(min_samples_leaf=max(15, len(train) // 60), random_state=seed)
    tree.fit(x[np.ix_(train, others)], wanted / np.where(spread > 0, spread, 1))
    return tree.apply(x[:, others])


def permute_within(strata, rng):
    """Random order that keeps every position inside its stratum."""
    order = np.argsort(strata, kind="stable")
    out = np.empty(len(strata), int)
    out[order] = np.lexsort((rng.random(len(strata)), strata))
    return out


def _importance_table(errors, base, data, rng):
    """Table of `grouped_importance` from the squared errors of each group and of the model as it is (pixel,)."""
    _, y, w, blocks = data
    names, loss = list(errors), np.column_stack([error - base for error in errors.values()])
    point, boot = _bootstrap_blocks(loss, y, w, blocks, rng)
    k = len(names)
    # rank probability of a group: share of the draws in which it has that rank
    order = np.argsort(-point, kind="stable")
    rank = np.argsort(order) + 1
    drawn = (-boot).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1
    probability = np.array([[np.mean(drawn[:, i] == r) for r in range(1, k + 1)] for i in range(k)])
    low, high = np.quantile(boot, (0.025, 0.975), axis=0)
    columns = {"group": names, "importance": point, "lower": low, "upper": high, "rank": rank}
    table = DataFrame(columns | {"rank_probability": probability[np.arange(k), rank - 1]})
    table.attrs["ranks"] = {n: list(map(float, p)) for n, p in zip(names, probability, strict=True)}
    table.attrs["draws"] = {n: list(map(float, b)) for n, b in zip(names, boot.T, strict=True)}
    return table


def _bootstrap_blocks(loss, y, w, blocks, rng):
    """Weighted loss over weighted variance, for all pixels and for blocks drawn with replacement."""
    labels = np.unique(blocks, return_inverse=True)[1]
    centred = np.square(y - np.average(y, weights=w))
    total = np.column_stack([np.bincount(labels, w * column) for column in loss.T])
    variance = np.bincount(labels, w * centred)
    # block bootstrap: sum_b n_b loss_b / sum_b n_b variance_b, n_b how often block b is drawn
    counts = draw_blocks(labels, BOOTSTRAP_DRAWS, rng)
    return total.sum(axis=0) / variance.sum(), (counts @ total) / (counts @ variance)[:, None]
