"""Which drivers explain a map, with an uncertainty: models scored where they were not trained.

Thin over scikit-learn. A row is a pixel, a column a driver; `blocks` labels the spatial block of
each pixel. Every score here is taken on blocks the model has not seen, because neighbours that
share errors make a random split flatter any model. Importance says what a prediction leans on,
never what causes it. All forests are seeded, grown on all cores and asked on one: equal input, equal output.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.spatial import cKDTree
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.tree import DecisionTreeRegressor


# ---------------------------------------------------------------------------------------------
# Models and blocks
# ---------------------------------------------------------------------------------------------
def fit_forest(
    drivers: pd.DataFrame,
    target: np.ndarray,
    weight: np.ndarray,
    blocks: np.ndarray,
    *,
    random_split: bool = True,
    trees: int = 300,
    leaf: int = 3,
    folds: int = 5,
    seed: int = 0,
) -> tuple[RandomForestRegressor, pd.DataFrame]:
    """Random forest of all pixels, and how well it predicts at random and in unseen blocks.

    Every split may choose among all drivers: where only some are offered, a proxy stands in for the driver
    that is not on offer and takes its credit.

    Parameters
    ----------
    drivers : DataFrame
        A row per pixel, a numeric column per driver, without NaN.
    target : (n,) array
        What is explained, for example a rate in mm/yr.
    weight : (n,) array or None
        1 / sd**2 of the target; all equal if None. Scores are weighted too.
    blocks : (n,) array
        Label of each pixel's spatial block, at least as long as the range of `residual_range`.
    trees, leaf, folds, seed
        Trees, pixels in a leaf, folds, and the seed of everything random.
    random_split : bool
        False leaves the comparison with a random split out (NaN) and saves a third of the time.

    Returns
    -------
    model : RandomForestRegressor
        Fitted to all pixels. ``model.fold_models_`` holds (train, test, model) of each blocked fold, to
        spare `grouped_importance` the refits.
    scores : DataFrame
        fold, r2_random, r2_blocked; attrs r2_random and r2_blocked pool the held-out pixels.

    Raises
    ------
    ValueError
        NaN, unequal lengths, a constant target or fewer blocks than folds.
    """
    data = _check(drivers, target, weight, blocks, folds)
    model = RandomForestRegressor(
        trees, min_samples_leaf=leaf, max_features=1.0, max_samples=0.7, random_state=seed, n_jobs=1
    )
    return _scored(model, *data, random_split, folds, seed)


def fit_smooth(
    drivers: pd.DataFrame,
    target: np.ndarray,
    weight: np.ndarray,
    blocks: np.ndarray,
    *,
    random_split: bool = False,
    pixels: int = 200,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Smooth, pd.DataFrame]:
    """Gaussian process of all pixels, and how well it predicts in unseen blocks: the rival of `fit_forest`.

    A forest is a step function that cuts one driver at a time: it flattens weak drivers, gives the first cut's
    driver the credit of the others and has nothing to say of the combinations a permutation makes. A smooth
    surface whose reach is learned driver by driver carries on where the ground is sparse.

    Parameters and returns as in `fit_forest`; `pixels` as in `Smooth`.
    """
    data = _check(drivers, target, weight, blocks, folds)
    return _scored(Smooth(pixels, weight is not None, seed), *data, random_split, folds, seed)


class Smooth(RegressorMixin, BaseEstimator):
    """Gaussian process with a length scale for each driver, by scikit-learn.

    Drivers and target are standardised; the noise is the known variance of each pixel plus a common one that is
    learned with the lengths by marginal likelihood. A driver that says nothing gets a long length.

    Parameters
    ----------
    pixels : int
        Training pixels, drawn at random, that lengths and noise are learned from; the surface takes all.
    weighted : bool
        Whether the weights of `fit` are 1 / sd**2 of the target and their inverse is known noise; a pixel of
        weight 0 is left out.
    seed : int
        Of the draw.
    """

    def __init__(self, pixels: int = 200, weighted: bool = True, seed: int = 0) -> None:
        self.pixels, self.weighted, self.seed = pixels, weighted, seed

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> Smooth:
        """Learn lengths and noise, then the surface; x (pixel, driver), y and weight (pixel,)."""
        w = np.ones(len(y)) if sample_weight is None else sample_weight
        x, y, w = x[w > 0], y[w > 0], w[w > 0]
        self.middle_, self.spread_ = x.mean(axis=0), np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1)
        self.level_, self.scale_ = np.average(y, weights=w), np.std(y)
        z, v = (x - self.middle_) / self.spread_, (y - self.level_) / self.scale_
        known = 1 / (w * self.scale_**2) if self.weighted else np.full(len(y), 1e-8)
        kernel = ConstantKernel(3.0, (0.1, 100)) * RBF(np.full(x.shape[1], 3.0), (0.3, 300))
        kernel += WhiteKernel(0.05, (1e-4, 1))
        some = np.random.default_rng(self.seed).permutation(len(y))[: self.pixels]
        part = GaussianProcessRegressor(kernel, alpha=known[some], optimizer=None).fit(z[some], v[some])

        def loss(theta):
            return tuple(-value for value in part.log_marginal_likelihood(theta, eval_gradient=True))

        best = optimize.minimize(
            loss, kernel.theta, jac=True, bounds=kernel.bounds, options={"maxiter": 30}
        )  # bounded, so L-BFGS-B
        kernel = kernel.clone_with_theta(best.x)
        self.process_ = GaussianProcessRegressor(kernel, alpha=known, optimizer=None).fit(z, v)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Mean of the process at x (pixel, driver)."""
        return self.process_.predict((x - self.middle_) / self.spread_) * self.scale_ + self.level_


def _scored(model, x, y, w, b, random_split, folds, seed):
    """Fit a model to all pixels and to each fold; it, and R2 at random and in unseen blocks."""
    scores, pooled, fitted = {}, {}, []
    for name, split in (("r2_random", KFold(folds, shuffle=True, random_state=seed)), ("r2_blocked", None)):
        if split and not random_split:
            scores[name], pooled[name] = [np.nan] * folds, np.nan
            continue
        pairs = list(split.split(x)) if split else list(_block_folds(b, folds, seed))
        predicted = np.empty(len(y))
        fitted = [(train, test, _fit(model, x[train], y[train], w[train])) for train, test in pairs]
        for _, test, part in fitted:
            predicted[test] = part.predict(x[test])
        scores[name] = [r2_score(y[test], predicted[test], sample_weight=w[test]) for _, test in pairs]
        pooled[name] = float(r2_score(y, predicted, sample_weight=w))
    table = pd.DataFrame({"fold": range(folds), **scores})
    table.attrs = pooled
    model = _fit(model, x, y, w)
    model.fold_models_ = fitted
    return model, table


def _fit(model, x, y, w):
    """A fresh model of the kind; a forest's prediction stays on one core, where sums have one order."""
    fresh = clone(model)
    if "n_jobs" not in fresh.get_params():
        return fresh.fit(x, y, w)
    return fresh.set_params(n_jobs=-1).fit(x, y, w).set_params(n_jobs=1)


def spatial_blocks(x_m: np.ndarray, y_m: np.ndarray, size_m: float) -> np.ndarray:
    """Integer label of the square block of side `size_m` (metres) that holds each pixel."""
    if not size_m > 0:
        raise ValueError(f"size_m: {size_m}; give metres above 0")
    column = np.floor((np.asarray(x_m) - np.min(x_m)) / size_m).astype(int)
    row = np.floor((np.asarray(y_m) - np.min(y_m)) / size_m).astype(int)
    return np.unique(row * (column.max() + 1) + column, return_inverse=True)[1]


def residual_range(
    residual: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    *,
    classes: int = 15,
    pairs: int = 200_000,
    seed: int = 0,
) -> float:
    """Distance in metres at which residuals stop to resemble each other.

    Exponential variogram through pairs up to half the extent; the range is where it reaches 95 % of
    its sill, at most half the extent and at least the spacing of the first class.
    """
    rng = np.random.default_rng(seed)
    residual, place = np.asarray(residual, float), np.column_stack([x_m, y_m]).astype(float)
    extent = 0.5 * np.hypot(*np.ptp(place, axis=0))
    first, second = rng.integers(0, len(residual), (2, pairs))
    lag = np.hypot(*(place[first] - place[second]).T)
    keep = (lag > 0) & (lag < extent)
    half_square = 0.5 * np.square(residual[first] - residual[second])[keep]
    edges = np.linspace(0, extent, classes + 1)
    at = np.digitize(lag[keep], edges) - 1
    count = np.bincount(at, minlength=classes)[:classes]
    used = count > 30
    total = np.bincount(at, half_square, minlength=classes)[:classes]
    gamma = total[used] / count[used]
    middle = (0.5 * (edges[1:] + edges[:-1]))[used]

    def variogram(h, nugget, sill, length):
        return nugget + sill * (1 - np.exp(-h / length))

    start = (0.3 * gamma[-1], 0.7 * gamma[-1], 0.2 * extent)
    limits = ((0, 0, edges[1] / 10), (2 * gamma.max() + 1e-12, 2 * gamma.max() + 1e-12, extent))
    try:
        found, _ = optimize.curve_fit(
            variogram, middle, gamma, start, np.sqrt(1 / count[used]), bounds=limits
        )
    except RuntimeError:  # no curve: the data do not rule out correlation over the whole window
        return float(extent)
    if found[1] < 0.1 * (found[0] + found[1]):  # hardly anything but nugget: the length means nothing
        return float(edges[1])
    return float(np.clip(3 * found[2], edges[1], extent))


def block_side(
    drivers: pd.DataFrame,
    target: np.ndarray,
    weight: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    *,
    first_m: float = 3000.0,
    pixels: int = 1000,
    trees: int = 15,
    seed: int = 0,
) -> tuple[float, float]:
    """Side of the spatial blocks a target needs, from the residuals of a small forest on first blocks.

    Parameters
    ----------
    drivers, target, weight
        As in `fit_forest`.
    x_m, y_m : (n,) array
        Place of each pixel, metres.
    first_m : float
        Side of the first blocks.
    pixels, trees, seed
        Pixels drawn and trees of the small forest, seed.

    Returns
    -------
    side, range : float
        Metres. The side is the residuals' range, at least 2 km and at most a quarter of the shorter extent.
    """
    blocks = spatial_blocks(x_m, y_m, first_m)
    use = draw_by_block(blocks, pixels, seed=seed)
    y, w = np.asarray(target, float)[use], None if weight is None else np.asarray(weight, float)[use]
    part = drivers.iloc[use].reset_index(drop=True)
    model, _ = fit_forest(part, y, w, blocks[use], random_split=False, trees=trees, seed=seed)
    found = residual_range(y - held_out(model, part), np.asarray(x_m)[use], np.asarray(y_m)[use], seed=seed)
    quarter = min(np.ptp(x_m), np.ptp(y_m)) / 4
    return float(min(max(found, 2000.0), quarter)), found


def draw_by_block(blocks: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
    """Sorted positions of about `n` pixels, the same share of every block."""
    blocks, rng = np.asarray(blocks), np.random.default_rng(seed)
    if n >= len(blocks):
        return np.arange(len(blocks))
    share = n / len(blocks)
    members = (np.flatnonzero(blocks == b) for b in np.unique(blocks))
    return np.sort(
        np.concatenate([rng.choice(m, max(1, round(share * len(m))), replace=False) for m in members])
    )


def held_out(model: RandomForestRegressor, drivers: pd.DataFrame) -> np.ndarray:
    """Prediction of every pixel by the forest of the fold that did not see its block."""
    x = drivers.to_numpy(float)
    out = np.full(len(x), np.nan)
    for _, test, forest in model.fold_models_:
        out[test] = forest.predict(x[test])
    return out


# ---------------------------------------------------------------------------------------------
# Importance
# ---------------------------------------------------------------------------------------------
def grouped_importance(
    model: RandomForestRegressor,
    drivers: pd.DataFrame,
    target: np.ndarray,
    groups: dict[str, list[str]],
    blocks: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    conditional: bool = False,
    forests: list | None = None,
    repeats: int = 5,
    draws: int = 500,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Loss of held-out R2 when the columns of a group are permuted together.

    Columns that say nearly the same hide each other when permuted one by one; a group is permuted
    as a whole, over the whole scene, and the loss counted on held-out pixels. The model is refitted
    for each fold; the block bootstrap re-scores the held-out blocks and refits nothing, so the
    interval is that of the scoring, given the models.

    Parameters
    ----------
    model : RandomForestRegressor
        From `fit_forest`; cloned.
    drivers, target, weight, blocks
        As in `fit_forest`.
    groups : dict
        Name to columns; columns in no group are never permuted.
    conditional : bool
        Permute only among pixels whose other drivers predict the same values of the group (leaves
        of a tree), so that a group gets no credit for what the others say already.
    forests : list of (train, test, forest), optional
        ``model.fold_models_``, if fitted to this target and these drivers.
    repeats, draws, folds, seed
        Permutations per fold, bootstrap draws, folds, seed.

    Returns
    -------
    DataFrame
        group, importance (share of the target's variance), lower, upper (95 %), rank (1 = most
        important), rank_probability (share of the draws with that rank), prob_positive.
        attrs["ranks"]: {group: [probability of rank 1, 2, ...]}; attrs["draws"]: {group: values}.
    """
    x, y, w, b = _check(drivers, target, weight, blocks, folds)
    columns = _group_columns(drivers, groups)
    rng = np.random.default_rng(seed)
    base = np.empty(len(y))
    permuted = {g: np.zeros(len(y)) for g in groups}
    if forests is None:
        splits = _block_folds(b, folds, seed)
        forests = ((train, test, _fit(model, x[train], y[train], w[train])) for train, test in splits)
    for train, test, forest in forests:
        base[test] = np.square(y[test] - forest.predict(x[test]))
        for name, at in columns.items():
            strata = _strata(x, at, train, seed) if conditional else np.zeros(len(x), int)
            for _ in range(repeats):
                donor = _permute_within(strata, rng)[test]  # anywhere in the scene: a fold alone is too alike
                shuffled = x[test].copy()
                shuffled[:, at] = x[np.ix_(donor, at)]
                permuted[name][test] += np.square(y[test] - forest.predict(shuffled)) / repeats
    return _importance_table(permuted, base, y, w, b, draws, rng)


def drop_column(
    model: RandomForestRegressor,
    drivers: pd.DataFrame,
    target: np.ndarray,
    groups: dict,
    blocks: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    folds: int = 5,
    seed: int = 0,
    draws: int = 500,
) -> pd.DataFrame:
    """Loss of held-out R2 when a forest is refitted without a group: what only that group knows.

    Parameters and columns as in `grouped_importance`.
    """
    x, y, w, b = _check(drivers, target, weight, blocks, folds)
    columns = _group_columns(drivers, groups)
    errors = {None: np.empty(len(y)), **{g: np.empty(len(y)) for g in groups}}
    for train, test in _block_folds(b, folds, seed):
        for name, error in errors.items():
            keep = np.setdiff1d(np.arange(x.shape[1]), columns.get(name, []))
            forest = _fit(model, x[np.ix_(train, keep)], y[train], w[train])
            error[test] = np.square(y[test] - forest.predict(x[np.ix_(test, keep)]))
    whole = errors.pop(None)
    return _importance_table(errors, whole, y, w, b, draws, np.random.default_rng(seed))


def null_importances(
    model: RandomForestRegressor,
    drivers: pd.DataFrame,
    target: np.ndarray,
    groups: dict,
    blocks: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    refits: int = 20,
    folds: int = 5,
    seed: int = 0,
    repeats: int = 2,
) -> pd.DataFrame:
    """Importances when the target is shuffled by block: how large can chance be?

    Whole blocks change places and values move inside them, which keeps how alike the pixels of a
    block are. With the null of each group comes the share of refits that reach what was observed.

    Parameters as in `grouped_importance`; `refits` shuffled targets.

    Returns
    -------
    DataFrame
        group, importance (observed), null_mean, null_95, p_value = (1 + n reached) / (1 + refits).
    """
    _, y, _, b = _check(drivers, target, weight, blocks, folds)
    options = {"weight": weight, "folds": folds, "seed": seed, "repeats": repeats, "draws": 2}
    observed = grouped_importance(model, drivers, target, groups, blocks, **options)["importance"].to_numpy()
    rng = np.random.default_rng(seed)
    null = []
    for _ in range(refits):
        shuffled = _shuffle_by_block(y, b, rng)
        null.append(grouped_importance(model, drivers, shuffled, groups, blocks, **options)["importance"])
    null = np.array(null)
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
    model: RandomForestRegressor, drivers: pd.DataFrame, groups: dict[str, list[str]]
) -> pd.DataFrame:
    """Impurity importance summed over groups, for comparison only: in-sample, and misled by noise."""
    at = _group_columns(drivers, groups)
    values = [model.feature_importances_[at[g]].sum() for g in groups]
    return pd.DataFrame({"group": list(groups), "importance": values})


# ---------------------------------------------------------------------------------------------
# Effects
# ---------------------------------------------------------------------------------------------
def accumulated_local_effects(
    model: RandomForestRegressor,
    drivers: pd.DataFrame,
    name: str,
    *,
    rows: np.ndarray | None = None,
    bins: int = 12,
    blocks: np.ndarray | None = None,
    forests: list | None = None,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """What the prediction does along one driver, the others staying as they are (ALE).

    Differences of the prediction across narrow bins, summed: unlike partial dependence it never
    asks for combinations of correlated drivers that do not exist (Apley and Zhu 2020).

    Parameters
    ----------
    model, drivers
        From `fit_forest`.
    name : str
        Column.
    rows : (n,) bool array, optional
        Only these pixels, for example the ice-rich ones: the effect within a stratum.
    bins : int
        Bins of equal pixel number.
    blocks : (n,) array, optional
        Interval by bootstrap over blocks of the fitted forest's differences: how the pixels vary, not
        how the forest would.
    forests : list of (forest, count), optional
        From `bootstrap_forests`: forests of blocks drawn with replacement and how often each pixel was
        drawn. The interval to trust; without this and `blocks` lower and upper are NaN.

    Returns
    -------
    DataFrame
        value (bin limits), effect (mean 0 over the pixels), lower, upper (95 %), n. attrs["span"]:
        (effect of the 90th less that of the 10th percentile, its lower, its upper).
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
    curves = np.array(_ale_draws(x[keep], column, edges, at, keep, difference, blocks, forests, draws, seed))
    span = [float(np.interp(high, edges, c)) - float(np.interp(low, edges, c)) for c in (effect, *curves)]
    band, limits = np.full((2, edges.size), np.nan), np.full(2, np.nan)
    if forests is not None and len(curves) > 1:  # few refits: normal limits around the fitted curve
        band = effect + 1.96 * np.outer((-1, 1), np.std(curves, axis=0, ddof=1))
        limits = span[0] + 1.96 * np.std(span[1:], ddof=1) * np.array([-1, 1])
    elif len(curves):
        band, limits = np.quantile(curves, (0.025, 0.975), axis=0), np.quantile(span[1:], (0.025, 0.975))
    table = pd.DataFrame({"value": edges, "effect": effect, "lower": band[0], "upper": band[1]})
    table["n"] = np.append(n, 0)
    table.attrs["span"] = (span[0], float(limits[0]), float(limits[1]))
    return table


def _local_difference(model, x, column, edges, at):
    low, high = x.copy(), x.copy()
    low[:, column], high[:, column] = edges[at], edges[at + 1]
    return model.predict(high) - model.predict(low)


def _accumulate(difference, at, weight, bins):
    """Sum of the mean difference per bin, centred on the pixels; and the pixels in each bin."""
    n = np.bincount(at, weight, minlength=bins)
    step = np.bincount(at, weight * difference, minlength=bins) / np.where(n > 0, n, 1)
    curve = np.concatenate([[0.0], np.cumsum(step)])
    middle = 0.5 * (curve[1:] + curve[:-1])
    return curve - np.sum(middle * n) / n.sum(), n.astype(int)


def _ale_draws(x, column, edges, at, keep, difference, blocks, forests, draws, seed):
    """Curves of bootstrap forests, or of blocks drawn again under the fitted forest."""
    bins = edges.size - 1
    if forests is not None:
        used = [(_local_difference(f, x, column, edges, at), count[keep]) for f, count in forests]
    elif blocks is not None:
        labels = np.unique(np.asarray(blocks), return_inverse=True)[1]
        used = [
            (difference, c[labels][keep]) for c in _draw_blocks(labels, draws, np.random.default_rng(seed))
        ]
    else:
        used = []
    return [_accumulate(local, at, count, bins)[0] for local, count in used if count.sum()]


def bootstrap_forests(
    model: RandomForestRegressor,
    drivers: pd.DataFrame,
    target: np.ndarray,
    blocks: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    refits: int = 20,
    trees: int = 30,
    seed: int = 0,
) -> list[tuple]:
    """Forests of blocks drawn with replacement: (forest, times each pixel was drawn), for intervals of effects.

    Parameters as in `fit_forest`; `refits` draws with `trees` trees each.
    """
    x, y, w, b = _check(drivers, target, weight, blocks, 2)
    labels = np.unique(b, return_inverse=True)[1]
    out = []
    for i, count in enumerate(_draw_blocks(labels, refits, np.random.default_rng(seed))):
        times = count[labels]
        forest = clone(model).set_params(n_estimators=trees, random_state=seed + i)
        out.append((_fit(forest, x[times > 0], y[times > 0], (w * times)[times > 0]), times))
    return out


def _draw_blocks(labels, draws, rng):
    n = labels.max() + 1
    return rng.multinomial(n, np.full(n, 1 / n), draws)


def applicability(
    train: pd.DataFrame,
    new: pd.DataFrame,
    blocks: np.ndarray,
    *,
    importance: pd.DataFrame | None = None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the forest may be believed: dissimilarity of new pixels to the training pixels.

    Distance to the nearest training pixel, drivers standardised and weighted by importance, over
    the mean distance among training pixels. The limit is the upper whisker (third quartile plus 1.5
    interquartile ranges) of training pixels against the folds that leave their block out.

    Returns
    -------
    dissimilarity : (n,) array
    inside : (n,) bool array
        Within the area of applicability.
    """
    scale = train.std().replace(0, np.nan)
    weight = (
        np.ones(train.shape[1]) if importance is None else np.clip(np.asarray(importance, float), 0, None)
    )
    a, b = (((t[train.columns] - train.mean()) / scale).fillna(0).to_numpy() * weight for t in (train, new))
    rng = np.random.default_rng(seed)
    i, j = rng.integers(0, len(a), (2, 20_000))
    mean = np.linalg.norm(a[i] - a[j], axis=1).mean()
    own = np.empty(len(a))
    for rest, held in _block_folds(np.asarray(blocks), folds, seed):
        own[held] = cKDTree(a[rest]).query(a[held])[0] / mean
    quartiles = np.quantile(own, (0.25, 0.75))
    value = cKDTree(a).query(b)[0] / mean
    return value, value <= quartiles[1] + 1.5 * (quartiles[1] - quartiles[0])


def partial_effect(
    model: RandomForestRegressor,
    drivers: pd.DataFrame,
    target: np.ndarray,
    blocks: np.ndarray,
    *,
    name: str,
    without: list[str],
    error_blocks: np.ndarray | None = None,
    place: np.ndarray | None = None,
    moves: int = 199,
    rows: dict | None = None,
    weight: np.ndarray | None = None,
    trees: int = 30,
    repeats: int = 3,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Slope of a target along one driver among pixels that all other drivers make alike.

    Two forests that see neither `without` nor the block they predict say what the other drivers expect of the
    target and of the driver; what is left of the one is regressed on what is left of the other (Robinson 1988,
    10.2307/1912705). Matching in all drivers at once: a proxy has nothing left to explain with.

    Parameters
    ----------
    model, drivers, target, blocks, weight
        As in `fit_forest`; the model gives the kind of forest, refitted with `trees` trees.
    name : str
        The driver whose effect is asked for.
    without : list of str
        What the forests must not see: the driver, and what speaks for it or follows from it.
    error_blocks : (n,) array, optional
        Blocks whose errors are taken as independent; they must be longer than either residual is alike, or
        the interval is too narrow. `blocks` if None.
    place : (n, 2) array, optional
        x and y of each pixel, metres. Then the slope is also judged against the null of `moves` maps: what is
        left of the driver, mirrored and shifted round the scene, is as smooth as before and has lost its place.
    rows : dict of (n,) bool arrays, optional
        Parts of the ground by name; "all" if None.
    trees, repeats, folds, seed
        Trees of each forest, splits into folds whose predictions are averaged (one split alone moves the
        slope by about its sd), folds, seed.

    Returns
    -------
    dict
        Part -> effect (target per unit of the driver), std, lower, upper (95 %, Student's t with the effective
        number of blocks less one), blocks (that number), n (pixels), p_value (two-sided: share of moved maps whose
        slope over its std is as large; NaN without `place`). NaN limits below 4 effective blocks.
    """
    _, y, w, b = _check(drivers, target, weight, blocks, folds)
    if name not in without or not set(without) <= set(drivers.columns):
        raise ValueError(
            f"without: {without} must be drivers and hold {name!r}; there are {list(drivers.columns)}"
        )
    blind = drivers.drop(columns=without).to_numpy(float)
    both = np.column_stack([y, drivers[name].to_numpy(float)])
    left = both.copy()
    for split in range(seed, seed + repeats):
        forest = clone(model).set_params(n_estimators=trees, random_state=split)
        for train, test in _block_folds(b, folds, split):
            for k in range(2):
                expected = _fit(forest, blind[train], both[train, k], w[train]).predict(blind[test])
                left[test, k] -= expected / repeats
    parts = {"all": np.ones(len(y), bool)} if rows is None else rows
    at = b if error_blocks is None else np.asarray(error_blocks)
    moved = [] if place is None else list(_moved(left[:, 1], np.asarray(place, float), moves, seed))
    out = {}
    for part, use in parts.items():
        own, *null = (_slope(left[use, 0], x[use], w[use], at[use]) for x in (left[:, 1], *moved))
        reached = sum(abs(v["effect"] / v["std"]) >= abs(own["effect"] / own["std"]) for v in null)
        out[part] = own | {"p_value": (1 + reached) / (1 + len(null)) if null else np.nan}
    return out


def _moved(values, place, moves, seed):
    """Values of a map (pixel,) after it was mirrored and shifted, what leaves on one side entering on the other."""
    rng, tree = np.random.default_rng(seed), cKDTree(place)
    corner, span = place.min(axis=0), np.ptp(place, axis=0)
    for _ in range(moves):
        away = rng.choice((-1, 1), 2) * (place - corner) + rng.random(2) * span
        yield values[tree.query(corner + away % span)[1]]


def _slope(y, x, w, blocks):
    """Weighted slope with an sd that leaves out whole blocks in turn (a jackknife of clusters)."""
    labels = np.unique(blocks, return_inverse=True)[1]
    y, x = y - np.average(y, weights=w), x - np.average(x, weights=w)
    spread = np.bincount(labels, w * x * x)
    effect = np.sum(w * x * y) / spread.sum()
    share = spread / spread.sum()
    score = np.bincount(labels, w * x * (y - effect * x)) / np.maximum(1 - share, 1e-9)
    std, number = float(np.sqrt(np.sum(score**2)) / spread.sum()), 1 / float(np.sum(share**2))
    reach = stats.t.ppf(0.975, number - 1) * std if number >= 4 else np.nan
    out = {"effect": effect, "std": std, "lower": effect - reach, "upper": effect + reach}
    return {k: float(v) for k, v in out.items()} | {"blocks": number, "n": len(y)}


# ---------------------------------------------------------------------------------------------
# Parts
# ---------------------------------------------------------------------------------------------
def _check(drivers, target, weight, blocks, folds):
    if not isinstance(drivers, pd.DataFrame):
        raise ValueError(f"drivers: {type(drivers).__name__}; give a DataFrame with a row per pixel")
    if drivers.columns.duplicated().any():
        raise ValueError(f"drivers: columns twice: {list(drivers.columns[drivers.columns.duplicated()])}")
    words = [c for c in drivers.columns if not pd.api.types.is_numeric_dtype(drivers[c])]
    if words:
        raise ValueError(f"drivers: columns {words} are not numeric; encode classes as numbers")
    x, y, b = drivers.to_numpy(float), np.asarray(target, float), np.asarray(blocks)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, float)
    for name, array in (("target", y), ("weight", w), ("blocks", b)):
        if array.shape != (len(x),):
            raise ValueError(f"{name}: shape {array.shape}, drivers have {len(x)} rows")
    holes = drivers.columns[~np.isfinite(x).all(axis=0)]
    if len(holes):
        raise ValueError(f"drivers: NaN in columns {list(holes)}; drop those pixels or the columns")
    if not np.isfinite(y).all():
        raise ValueError(f"target: {np.count_nonzero(~np.isfinite(y))} of {len(y)} pixels are NaN; drop them")
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError("weight: must be finite, not negative and not all 0; 1 / sd**2")
    if np.ptp(y) == 0:
        raise ValueError("target: is constant; there is nothing to explain")
    if np.unique(b).size < folds:
        raise ValueError(
            f"blocks: {np.unique(b).size} blocks for {folds} folds; use smaller blocks or fewer folds"
        )
    return x, y, w, b


def _group_columns(drivers, groups):
    if not groups:
        raise ValueError("groups: is empty; give {name: [columns]}")
    missing = [c for c in itertools.chain(*groups.values()) if c not in drivers.columns]
    if missing:
        raise ValueError(f"groups: {missing} are no drivers; there are {list(drivers.columns)}")
    return {g: [drivers.columns.get_loc(c) for c in columns] for g, columns in groups.items()}


def _block_folds(blocks, folds, seed):
    return GroupKFold(folds, shuffle=True, random_state=seed).split(blocks, groups=blocks)


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


def _permute_within(strata, rng):
    """Random order that keeps every position inside its stratum."""
    order = np.argsort(strata, kind="stable")
    shuffled = np.lexsort((rng.random(len(strata)), strata))
    out = np.empty(len(strata), int)
    out[order] = shuffled
    return out


def _shuffle_by_block(y, blocks, rng):
    labels = np.unique(blocks, return_inverse=True)[1]
    mean = np.bincount(labels, y) / np.bincount(labels)
    inside = (y - mean[labels])[_permute_within(labels, rng)]
    return rng.permutation(mean)[labels] + inside


def _importance_table(errors, base, y, w, blocks, draws, rng):
    """Table of `grouped_importance` from the squared errors of each group and of the model as it is (pixel,)."""
    names, loss = list(errors), np.column_stack([error - base for error in errors.values()])
    point, boot = _bootstrap_blocks(loss, y, w, blocks, draws, rng)
    k = len(names)
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
            "prob_positive": (boot > 0).mean(axis=0),
        }
    )
    table.attrs["ranks"] = {n: list(map(float, p)) for n, p in zip(names, probability, strict=True)}
    table.attrs["draws"] = {n: list(map(float, b)) for n, b in zip(names, boot.T, strict=True)}
    return table


def _bootstrap_blocks(loss, y, w, blocks, draws, rng):
    """Weighted loss over weighted variance, for all pixels and for blocks drawn with replacement."""
    labels = np.unique(blocks, return_inverse=True)[1]
    centred = np.square(y - np.average(y, weights=w))
    total = np.column_stack([np.bincount(labels, w * column) for column in loss.T])
    variance = np.bincount(labels, w * centred)
    counts = _draw_blocks(labels, draws, rng)
    return total.sum(axis=0) / variance.sum(), (counts @ total) / (counts @ variance)[:, None]
