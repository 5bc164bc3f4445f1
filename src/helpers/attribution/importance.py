"""Importance of groups of drivers: permuted, conditional, left out, by chance, and by impurity."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from .models import BlockedModel, block_folds, checked, cross_validated, draw_blocks, fitted

BOOTSTRAP_DRAWS = 500


def grouped_importance(
    model: BlockedModel,
    drivers: pd.DataFrame,
    target: np.ndarray,
    groups: dict[str, list[str]],
    blocks: np.ndarray,
    *,
    conditional: bool = False,
    repeats: int = 2,
) -> pd.DataFrame:
    """Loss of held-out R2 when the columns of a group are permuted together.

    Columns that say nearly the same hide each other when permuted one by one; a group is permuted as a whole, over
    the whole scene, and the loss is counted on held-out pixels. The block bootstrap scores the held-out blocks
    again and refits nothing: the interval is that of the scoring, given the models.

    Parameters
    ----------
    model : BlockedModel
        From `fit_forest` or `fit_smooth`, with the models of its folds; its weights and seed are used.
    drivers, target, blocks
        Those the model was fitted to.
    groups : dict
        Name to columns; columns in no group are never permuted.
    conditional : bool
        Permute only among pixels whose other drivers predict the same values of the group (leaves of a tree), so
        that a group gets no credit for what the others say already.
    repeats : int
        Permutations per fold.

    Returns
    -------
    DataFrame
        group, importance (share of the target's variance), lower, upper (95 %), rank (1 = most important),
        rank_probability (share of the draws with that rank).
        attrs["ranks"]: {group: [probability of rank 1, 2, ...]}; attrs["draws"]: {group: values}.
    """
    data = checked(drivers, target, model.weight, blocks)
    return _permuted(model.folds, data, groups_at(drivers, groups), conditional, repeats, model.seed)


def _permuted(folds, data, columns, conditional, repeats, seed):
    """Table of `grouped_importance` from the models of folds."""
    x, y, _, _ = data
    rng = np.random.default_rng(seed)
    base = np.empty(len(y))
    permuted = {g: np.zeros(len(y)) for g in columns}
    # importance of group G: sum w (e_G^2 - e^2) / sum w (y - mean)^2, e_G the held-out residual with G permuted
    for train, test, estimator in folds:
        base[test] = np.square(y[test] - estimator.predict(x[test]))
        for name, at in columns.items():
            strata = _strata(x, at, train, seed) if conditional else np.zeros(len(x), int)
            for _ in range(repeats):
                donor = permute_within(strata, rng)[
                    test
                ]  # from the whole scene: pixels of a fold are too alike
                shuffled = x[test].copy()
                shuffled[:, at] = x[np.ix_(donor, at)]
                permuted[name][test] += np.square(y[test] - estimator.predict(shuffled)) / repeats
    return _importance_table(permuted, base, data, rng)


def drop_column(
    model: BlockedModel,
    drivers: pd.DataFrame,
    target: np.ndarray,
    groups: dict,
    blocks: np.ndarray,
    *,
    trees: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Loss of held-out R2 when a forest of `trees` trees is refitted without a group: what only that group knows.

    Parameters and columns as in `grouped_importance`.
    """
    x, y, w, b = checked(drivers, target, model.weight, blocks)
    columns, forest = groups_at(drivers, groups), clone(model.estimator).set_params(n_estimators=trees)
    errors = {None: np.empty(len(y)), **{g: np.empty(len(y)) for g in groups}}
    for train, test in block_folds(b, seed):
        for name, error in errors.items():
            keep = np.setdiff1d(np.arange(x.shape[1]), columns.get(name, []))
            part = fitted(forest, x[np.ix_(train, keep)], y[train], w[train])
            error[test] = np.square(y[test] - part.predict(x[np.ix_(test, keep)]))
    whole = errors.pop(None)
    return _importance_table(errors, whole, (x, y, w, b), np.random.default_rng(seed))


def null_importances(
    model: BlockedModel,
    drivers: pd.DataFrame,
    target: np.ndarray,
    groups: dict,
    blocks: np.ndarray,
    *,
    trees: int,
    refits: int = 20,
) -> pd.DataFrame:
    """Importances when the target is shuffled by block: how large can chance be?

    Whole blocks change places and values move inside them, which keeps how alike the pixels of a block are.
    Parameters as in `grouped_importance`; `refits` shuffled targets, forests of `trees` trees.

    Returns
    -------
    DataFrame
        group, importance (observed), null_mean, null_95, p_value = (1 + n reached) / (1 + refits).
    """
    x, y, w, b = checked(drivers, target, model.weight, blocks)
    columns, seed = groups_at(drivers, groups), model.seed
    forest, rng = clone(model.estimator).set_params(n_estimators=trees), np.random.default_rng(seed)

    def importance(values):
        folds, _ = cross_validated(forest, x, values, w, b, seed)
        return _permuted(folds, (x, values, w, b), columns, False, 1, seed)["importance"].to_numpy()

    observed = importance(y)
    null = np.array([importance(_shuffle_by_block(y, b, rng)) for _ in range(refits)])
    return pd.DataFrame(
        {
            "group": list(groups),
            "importance": observed,
            "null_mean": null.mean(axis=0),
            "null_95": np.quantile(null, 0.95, axis=0),
            "p_value": (1 + (null >= observed).sum(axis=0)) / (1 + refits),
        }
    )


def impurity_importance(
    model: BlockedModel | RandomForestRegressor, drivers: pd.DataFrame, groups: dict[str, list[str]]
) -> pd.DataFrame:
    """Impurity importance summed over groups, for comparison only: in-sample, and misled by noise."""
    at = groups_at(drivers, groups)
    values = [model.feature_importances_[at[g]].sum() for g in groups]
    return pd.DataFrame({"group": list(groups), "importance": values})


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
    leaf = max(15, len(train) // 60)
    tree = DecisionTreeRegressor(min_samples_leaf=leaf, random_state=seed)
    tree.fit(x[np.ix_(train, others)], wanted / np.where(spread > 0, spread, 1))
    return tree.apply(x[:, others])


def permute_within(strata, rng):
    """Random order that keeps every position inside its stratum."""
    order = np.argsort(strata, kind="stable")
    shuffled = np.lexsort((rng.random(len(strata)), strata))
    out = np.empty(len(strata), int)
    out[order] = shuffled
    return out


def _shuffle_by_block(y, blocks, rng):
    labels = np.unique(blocks, return_inverse=True)[1]
    mean = np.bincount(labels, y) / np.bincount(labels)
    inside = (y - mean[labels])[permute_within(labels, rng)]
    return rng.permutation(mean)[labels] + inside


def _importance_table(errors, base, data, rng):
    """Table of `grouped_importance` from the squared errors of each group and of the model as it is (pixel,)."""
    _, y, w, blocks = data
    names, loss = list(errors), np.column_stack([error - base for error in errors.values()])
    point, boot = _bootstrap_blocks(loss, y, w, blocks, rng)
    k = len(names)
    # rank probability of a group: share of the draws in which it has that rank
    order = np.argsort(-point, kind="stable")
    rank = np.empty(k, int)
    rank[order] = np.arange(1, k + 1)
    drawn = (-boot).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable") + 1
    probability = np.array([[np.mean(drawn[:, i] == r) for r in range(1, k + 1)] for i in range(k)])
    low, high = np.quantile(boot, (0.025, 0.975), axis=0)
    table = pd.DataFrame(
        {
            "group": names,
            "importance": point,
            "lower": low,
            "upper": high,
            "rank": rank,
            "rank_probability": probability[np.arange(k), rank - 1],
        }
    )
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
