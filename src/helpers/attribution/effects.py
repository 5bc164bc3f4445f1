"""What a prediction or a target does along one driver, and where a model may be applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from pandas import DataFrame
from scipy import stats
from scipy.spatial import cKDTree
from sklearn.base import clone

from .models import BlockedModel, block_folds, checked, draw_blocks, fitted


def accumulated_local_effects(
    model: BlockedModel,
    drivers: DataFrame,
    name: str,
    *,
    rows: ndarray | None = None,
    bins: int = 12,
    forests: list = (),
) -> DataFrame:
    """What the prediction does along one driver, the others staying as they are (ALE).

    Differences of the prediction across narrow bins, summed: unlike partial dependence it never
    asks for combinations of correlated drivers that do not exist (Apley and Zhu 2020).

    Parameters
    ----------
    rows : (n,) bool array, optional
        Only these pixels, for example the ice-rich ones: the effect within a stratum, in `bins` of equal number.
    forests : list of (forest, count)
        From `bootstrap_forests`; without them lower and upper are NaN.

    Returns
    -------
    DataFrame
        value (bin limits), effect (mean 0), lower, upper (95 %), n; attrs["span"]: (effect of the 90th less that of
        the 10th percentile, lower, upper).
    """
    if name not in drivers.columns:
        raise ValueError(f"name: {name!r} is no driver; there are {list(drivers.columns)}")
    x = drivers.to_numpy(float)
    keep = np.ones(len(x), bool) if rows is None else np.asarray(rows, bool)
    column = drivers.columns.get_loc(name)
    edges = np.unique(np.quantile(x[keep, column], np.linspace(0, 1, bins + 1)))
    if edges.size < 2:
        raise ValueError(f"driver {name!r} is constant in the rows asked for; it can have no effect")
    at = np.clip(np.searchsorted(edges, x[keep, column], side="left") - 1, 0, edges.size - 2)
    difference = _local_difference(model, x[keep], column, edges, at)
    effect, n = _accumulate(difference, at, np.ones(len(at)), edges.size - 1)
    low, high = np.quantile(x[keep, column], (0.1, 0.9))
    curves = []
    for forest, count in forests:
        if count[keep].sum():
            local = _local_difference(forest, x[keep], column, edges, at)
            curves.append(_accumulate(local, at, count[keep], edges.size - 1)[0])
    span = [float(np.interp(high, edges, c)) - float(np.interp(low, edges, c)) for c in (effect, *curves)]
    band, limits = np.full((2, edges.size), np.nan), np.full(2, np.nan)
    if len(curves) > 1:  # few refits: normal limits around the fitted curve
        band = effect + 1.96 * np.outer((-1, 1), np.std(curves, axis=0, ddof=1))
        limits = span[0] + 1.96 * np.std(span[1:], ddof=1) * np.array([-1, 1])
    columns = {"value": edges, "effect": effect, "lower": band[0], "upper": band[1], "n": np.append(n, 0)}
    table = DataFrame(columns)
    table.attrs["span"] = (span[0], float(limits[0]), float(limits[1]))
    return table


def _local_difference(model, x, column, edges, at):
    low, high = x.copy(), x.copy()
    low[:, column], high[:, column] = edges[at], edges[at + 1]
    return model.predict(high) - model.predict(low)


def _accumulate(difference, at, weight, bins):
    """Sum of the mean difference per bin, centred on the pixels; and the pixels in each bin."""
    # ALE(z_k) = sum_{j<=k} mean_{i in bin j} [f(z_j, x_i) - f(z_{j-1}, x_i)], less its mean over the pixels
    n = np.bincount(at, weight, minlength=bins)
    step = np.bincount(at, weight * difference, minlength=bins) / np.where(n > 0, n, 1)
    curve = np.concatenate([[0.0], np.cumsum(step)])
    middle = 0.5 * (curve[1:] + curve[:-1])
    return curve - np.sum(middle * n) / n.sum(), n.astype(int)


def bootstrap_forests(
    model: BlockedModel, drivers: DataFrame, target: ndarray, blocks: ndarray, *, refits: int, trees: int
) -> list[tuple]:
    """Forests of blocks drawn with replacement: (forest, times each pixel was drawn), for intervals of effects."""
    x, y, w, b = checked(drivers, target, model.weight, blocks, folds=2)
    labels = np.unique(b, return_inverse=True)[1]
    out = []
    for i, count in enumerate(draw_blocks(labels, refits, np.random.default_rng(model.seed))):
        times = count[labels]
        forest = clone(model.estimator).set_params(n_estimators=trees, random_state=model.seed + i)
        out.append((fitted(forest, x[times > 0], y[times > 0], (w * times)[times > 0]), times))
    return out


def applicability(
    train: DataFrame, new: DataFrame, blocks: ndarray, *, importance: ndarray | None = None
) -> tuple[ndarray, ndarray]:
    """Where a model may be applied: dissimilarity (n,) of new pixels to the training pixels, and a bool (n,).

    Distance to the nearest training pixel, drivers standardised and weighted by importance, over
    the mean distance among training pixels. The limit is the upper whisker (third quartile plus 1.5
    interquartile ranges) of training pixels against the folds that leave their block out.
    """
    scale = train.std().replace(0, np.nan)
    weight = 1.0 if importance is None else np.clip(np.asarray(importance, float), 0, None)
    a, b = (((t[train.columns] - train.mean()) / scale).fillna(0).to_numpy() * weight for t in (train, new))
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(a), (2, 20_000))
    mean = np.linalg.norm(a[i] - a[j], axis=1).mean()
    own = np.empty(len(a))
    for rest, held in block_folds(np.asarray(blocks), 0):
        own[held] = cKDTree(a[rest]).query(a[held])[0] / mean
    # dissimilarity index: distance to the nearest training pixel over the mean distance among training pixels
    quartiles = np.quantile(own, (0.25, 0.75))
    value = cKDTree(a).query(b)[0] / mean
    return value, value <= quartiles[1] + 1.5 * (quartiles[1] - quartiles[0])


@dataclass(frozen=True)
class Ground:
    """Places and parts of the pixels for the inference of `partial_effect`.

    `error_blocks` (n,): blocks whose errors are taken as independent; they must be longer than either residual is
    alike, or the interval is too narrow (None: the blocks of the folds). `place` (n, 2): metres, for the null of moved
    maps. `parts`: name to (n,) bool, parts of the ground; "all" if None.
    """

    error_blocks: ndarray | None = None
    place: ndarray | None = None
    parts: dict[str, ndarray] | None = None


def partial_effect(
    model: BlockedModel, drivers: DataFrame, target: ndarray, blocks: ndarray, name: str, without: list[str],
    ground: Ground | None = None,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Slope of a target along one driver among pixels that all other drivers make alike.

    Two forests that see neither `without` nor the block they predict say what the other drivers expect of the
    target and of the driver; the residual of the one is regressed on that of the other (Robinson 1988,
    10.2307/1912705). A proxy has nothing left to explain with.

    Parameters
    ----------
    model, drivers, target, blocks
        As in `grouped_importance`; the model gives the kind of forest, refitted with 30 trees.
    name, without
        The driver, and the drivers that forests must not see: it, and what speaks for it or follows from it.
    ground : Ground, optional
        With places the slope is also judged against 199 moved maps: the residual of the driver, mirrored and shifted
        round the scene, is as smooth as before and has lost its place.

    Returns
    -------
    dict
        Part -> effect (target per unit of the driver), std, lower, upper (95 %, Student's t with the effective
        number of blocks less one), blocks (that number), n (pixels), p_value (two-sided: share of moved maps whose
        slope over its std is as large; NaN without places). NaN limits below 4 effective blocks.
    """
    _, y, w, b = checked(drivers, target, model.weight, blocks)
    if name not in without or not set(without) <= set(drivers.columns):
        raise ValueError(f"without: {without} must hold {name!r} and drivers of {list(drivers.columns)}")
    ground = ground or Ground()
    blind, both = drivers.drop(columns=without), np.column_stack([y, drivers[name].to_numpy(float)])
    left = _residuals(model, blind.to_numpy(float), both, w, b)
    parts = {"all": np.ones(len(y), bool)} if ground.parts is None else ground.parts
    at = b if ground.error_blocks is None else np.asarray(ground.error_blocks)
    moved = [] if ground.place is None else list(moved_maps(left[:, 1], ground.place, model.seed))
    out = {}
    for part, use in parts.items():
        own, *null = (clustered_slope(left[use, 0], x[use], w[use], at[use]) for x in (left[:, 1], *moved))
        reached = sum(abs(v["effect"] / v["std"]) >= abs(own["effect"] / own["std"]) for v in null)
        out[part] = own | {"p_value": (1 + reached) / (1 + len(null)) if null else np.nan}
    return out


def _residuals(model, blind, both, w, b):
    """Columns (pixel, 2) less what forests of unseen blocks expect of them from the drivers `blind`."""
    left, repeats = both.copy(), 3  # one split into folds alone moves the slope by about its sd
    for split in range(model.seed, model.seed + repeats):
        forest = clone(model.estimator).set_params(n_estimators=30, random_state=split)
        for train, test in block_folds(b, split):
            for k in range(2):
                expected = fitted(forest, blind[train], both[train, k], w[train]).predict(blind[test])
                left[test, k] -= expected / repeats
    return left


def moved_maps(values, place, seed, moves=199):
    """Values of a map (pixel,) after it was mirrored and shifted, what leaves on one side entering on the other."""
    rng, tree = np.random.default_rng(seed), cKDTree(place)
    corner, span = place.min(axis=0), np.ptp(place, axis=0)
    for _ in range(moves):
        away = rng.choice((-1, 1), 2) * (place - corner) + rng.random(2) * span
        yield values[tree.query(corner + away % span)[1]]


def clustered_slope(y, x, w, blocks):
    """Weighted slope with an sd that leaves out whole blocks in turn (a jackknife of clusters)."""
    labels = np.unique(blocks, return_inverse=True)[1]
    y, x = y - np.average(y, weights=w), x - np.average(x, weights=w)
    spread = np.bincount(labels, w * x * x)
    # slope = sum w x y / sum w x^2; variance = sum_b (sum_b w x r / (1 - h_b))^2 / (sum w x^2)^2, h_b a block's share
    effect = np.sum(w * x * y) / spread.sum()
    share = spread / spread.sum()
    score = np.bincount(labels, w * x * (y - effect * x)) / np.maximum(1 - share, 1e-9)
    std, number = float(np.sqrt(np.sum(score**2)) / spread.sum()), 1 / float(np.sum(share**2))
    # effective number of blocks: 1 / sum h_b^2
    reach = stats.t.ppf(0.975, number - 1) * std if number >= 4 else np.nan
    out = {"effect": effect, "std": std, "lower": effect - reach, "upper": effect + reach}
    return {k: float(v) for k, v in out.items()} | {"blocks": number, "n": len(y)}
