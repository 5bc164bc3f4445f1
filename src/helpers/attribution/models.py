"""Models that explain a map, scored on spatial blocks they were not trained on.

A row is a pixel, a column a driver. Neighbours share errors, so a random split overstates the skill of any model.
Forests are seeded, grown on all cores and asked on one, where sums have one order: equal input, equal output.
"""

from __future__ import annotations

from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
import sklearn
from numpy import ndarray
from pandas import DataFrame
from scipy import optimize
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_validate

from helpers import space

FOLDS = 5


@dataclass(frozen=True)
class BlockedModel:
    """A model of all pixels, the models of its blocked folds (train, test, estimator), its weights and its seed."""

    estimator: BaseEstimator
    folds: list[tuple]
    weight: ndarray
    seed: int

    def predict(self, x: ndarray) -> ndarray:
        """Prediction at x (pixel, driver) by the model of all pixels."""
        return self.estimator.predict(x)

    @property
    def feature_importances_(self) -> ndarray:
        """Share of impurity of each driver (forests only)."""
        return self.estimator.feature_importances_

    def held_out(self, drivers: DataFrame) -> ndarray:
        """Prediction of every pixel by the model of the fold that did not see its block."""
        x = drivers.to_numpy(float)
        out = np.full(len(x), np.nan)
        for _, test, estimator in self.folds:
            out[test] = estimator.predict(x[test])
        return out


def fit_forest(
    drivers: DataFrame, target: ndarray, weight: ndarray, blocks: ndarray, *,
    random_split: bool = True, trees: int = 300, leaf: int = 3, seed: int = 0,
) -> tuple[BlockedModel, DataFrame]:  # fmt: skip
    """Random forest of all pixels, and how well it predicts in a random split and in unseen blocks.

    Every split may choose among all drivers: otherwise a proxy takes the credit of a driver that is not on offer.

    Parameters
    ----------
    drivers : DataFrame
        A row per pixel, a numeric column per driver, without NaN.
    target, weight : (n,) array
        What is explained and 1 / sd**2 of it, of scores too; equal weights if None.
    blocks : (n,) array
        Label of each pixel's spatial block, at least as long as the range of `space.residual_range`.
    random_split : bool
        False leaves the random split out (NaN) and saves a third of the time.
    trees, leaf, seed
        Trees, pixels in a leaf, seed of everything random.

    Returns
    -------
    model : BlockedModel
    scores : DataFrame
        fold, r2_random, r2_blocked; attrs r2_random and r2_blocked pool the held-out pixels.
    """
    data = checked(drivers, target, weight, blocks)
    forest = RandomForestRegressor(
        trees, min_samples_leaf=leaf, max_features=1.0, max_samples=0.7, random_state=seed, n_jobs=1
    )
    return _scored(forest, data, random_split, seed)


def fit_smooth(
    drivers: DataFrame, target: ndarray, weight: ndarray, blocks: ndarray, *, seed: int = 0
) -> tuple[BlockedModel, DataFrame]:
    """Gaussian process of all pixels, and how well it predicts in unseen blocks: the alternative to `fit_forest`.

    A forest is a step function that cuts one driver at a time and flattens weak drivers; a smooth surface with a
    length scale per driver extrapolates where data are sparse. Parameters and returns as in `fit_forest`.
    """
    data = checked(drivers, target, weight, blocks)
    return _scored(Smooth(weighted=weight is not None, seed=seed), data, False, seed)


class Smooth(RegressorMixin, BaseEstimator):
    """Gaussian process with a length scale for each driver, by scikit-learn.

    Thin over GaussianProcessRegressor, whose `alpha` cannot follow the pixels of a fold: drivers and target are
    standardised (the target about its weighted mean); the noise is the known variance of each pixel (if `weighted`,
    1 / weight; weight 0 leaves a pixel out) plus a common one. Lengths and noise are learned by marginal likelihood
    from `pixels` pixels drawn at random; the surface takes all.
    """

    def __init__(self, pixels: int = 200, weighted: bool = True, seed: int = 0) -> None:
        self.pixels, self.weighted, self.seed = pixels, weighted, seed

    def fit(self, x: ndarray, y: ndarray, sample_weight: ndarray | None = None) -> Smooth:
        """Learn lengths and noise, then the surface; x (pixel, driver), y and weight (pixel,)."""
        w = np.ones(len(y)) if sample_weight is None else sample_weight
        x, y, w = x[w > 0], y[w > 0], w[w > 0]
        self.middle_, self.spread_ = x.mean(axis=0), np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1)
        self.level_, self.scale_ = np.average(y, weights=w), np.std(y)
        z, v = (x - self.middle_) / self.spread_, (y - self.level_) / self.scale_
        known = 1 / (w * self.scale_**2) if self.weighted else np.full(len(y), 1e-8)
        # k(z, z') = c exp(-sum_j (z_j - z'_j)^2 / (2 l_j^2)) + noise + known variance of the pixel
        kernel = ConstantKernel(3.0, (0.1, 100)) * RBF(np.full(x.shape[1], 3.0), (0.3, 300))
        kernel += WhiteKernel(0.05, (1e-4, 1))
        some = np.random.default_rng(self.seed).permutation(len(y))[: self.pixels]
        part = GaussianProcessRegressor(kernel, alpha=known[some], optimizer=None).fit(z[some], v[some])

        def loss(theta):
            return tuple(-value for value in part.log_marginal_likelihood(theta, eval_gradient=True))

        best = optimize.minimize(loss, kernel.theta, jac=True, bounds=kernel.bounds, options={"maxiter": 30})
        kernel = kernel.clone_with_theta(best.x)
        self.process_ = GaussianProcessRegressor(kernel, alpha=known, optimizer=None).fit(z, v)
        return self

    def predict(self, x: ndarray) -> ndarray:
        """Mean of the process at x (pixel, driver)."""
        return self.process_.predict((x - self.middle_) / self.spread_) * self.scale_ + self.level_


def _scored(estimator, data, random_split, seed):
    """Fit a model to all pixels and to each fold; it, and R2 in a random split and in unseen blocks."""
    x, y, w, b = data
    scores, pooled, folds = {"fold": range(FOLDS)}, {}, []
    for name, blocks in (("r2_random", None), ("r2_blocked", b)):
        if blocks is None and not random_split:
            scores[name], pooled[name] = [np.nan] * FOLDS, np.nan
            continue
        folds, scores[name] = cross_validated(estimator, x, y, w, blocks, seed)
        predicted = np.empty(len(y))
        for _, test, part in folds:
            predicted[test] = part.predict(x[test])
        pooled[name] = float(r2_score(y, predicted, sample_weight=w))
    table = DataFrame(scores)
    table.attrs = pooled
    return BlockedModel(fitted(estimator, x, y, w), folds, w, seed), table


def cross_validated(estimator, x, y, w, blocks, seed):
    """(train, test, model) and weighted R2 of each fold, of whole blocks or, if None, of pixels at random."""
    splitter = (KFold if blocks is None else GroupKFold)(FOLDS, shuffle=True, random_state=seed)
    jobs = -1 if "n_jobs" in estimator.get_params() else 1  # linear algebra has threads of its own
    params = {"sample_weight": w} | ({} if blocks is None else {"groups": blocks})
    with sklearn.config_context(enable_metadata_routing=True), joblib.parallel_config("threading"):
        asked = clone(estimator).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        out = cross_validate(
            asked, x, y, cv=splitter, params=params, n_jobs=jobs, return_estimator=True, return_indices=True
        )
    at = out["indices"]
    return list(zip(at["train"], at["test"], out["estimator"], strict=True)), out["test_score"]


def fitted(estimator, x, y, w):
    """A fresh model of the kind; a forest's prediction stays on one core, where sums have one order."""
    fresh = clone(estimator)
    if "n_jobs" not in fresh.get_params():
        return fresh.fit(x, y, w)
    return fresh.set_params(n_jobs=-1).fit(x, y, w).set_params(n_jobs=1)


def block_side(
    drivers: DataFrame, target: ndarray, weight: ndarray, place: ndarray, *, seed: int = 0
) -> tuple[float, float]:
    """Side of the blocks a target needs and range (m) of the residuals of a small forest on blocks of 3 km.

    The side is that range, at least 2 km and at most a quarter of the shorter extent of `place` (n, 2), metres.
    """
    blocks = space.spatial_blocks(*place.T, 3000.0)
    use = space.draw_by_block(blocks, 1000, seed=seed)
    y, w = np.asarray(target, float)[use], None if weight is None else np.asarray(weight, float)[use]
    part = drivers.iloc[use].reset_index(drop=True)
    model, _ = fit_forest(part, y, w, blocks[use], random_split=False, trees=15, seed=seed)
    found = space.residual_range(y - model.held_out(part), *place[use].T, seed=seed)
    return float(min(max(found, 2000.0), quarter_extent(place))), found


def quarter_extent(place: ndarray) -> float:
    """Quarter of the shorter extent of places (n, 2): longer blocks leave too few of them."""
    return np.ptp(place, axis=0).min() / 4


@dataclass(frozen=True)
class Comparison:
    """Forest and smooth surface of one target on the same blocks, and the sample they were fitted to.

    `better` predicts unseen blocks better and ranks the drivers. `scores` has fold, r2_random, r2_blocked (forest)
    and r2_smooth (surface in unseen blocks), attrs pool the pixels; `rows` are positions in the table drawn from;
    `quarter_m` is a quarter of the shorter extent.
    """

    drivers: DataFrame
    target: ndarray
    blocks: ndarray
    forest: BlockedModel
    better: BlockedModel
    better_name: str
    scores: DataFrame
    rows: ndarray
    side_m: float
    range_m: float
    quarter_m: float


def compare_models(
    drivers: DataFrame, target: ndarray, std: ndarray, place: ndarray, *, pixels: int, trees: int, seed: int
) -> Comparison:
    """Draw a sample of `pixels` by block and fit forest and smooth surface to it.

    Pixels without target or std are left out; a std below half its median counts as that; `place` (n, 2) in metres.
    """
    use = np.flatnonzero(np.isfinite(target) & np.isfinite(std) & (std > 0))
    y, sd, at = target[use], std[use], place[use]
    weight = 1 / np.maximum(sd, 0.5 * np.median(sd)) ** 2
    side_m, range_m = block_side(drivers.iloc[use], y, weight, at, seed=seed)
    blocks = space.spatial_blocks(*at.T, side_m)
    drawn = space.draw_by_block(blocks, pixels, seed=seed)
    sample, b = drivers.iloc[use[drawn]].reset_index(drop=True), blocks[drawn]
    forest, scores = fit_forest(sample, y[drawn], weight[drawn], b, trees=trees, seed=seed)
    smooth, own = fit_smooth(sample, y[drawn], weight[drawn], b, seed=seed)
    scores["r2_smooth"], scores.attrs["r2_smooth"] = own["r2_blocked"], own.attrs["r2_blocked"]
    surface = scores.attrs["r2_smooth"] > scores.attrs["r2_blocked"]
    better = (smooth, "smooth surface") if surface else (forest, "forest")
    extent = side_m, range_m, quarter_extent(at)
    return Comparison(sample, y[drawn], b, forest, *better, scores, use[drawn], *extent)


def checked(drivers, target, weight, blocks, folds=FOLDS):
    """Arrays x (pixel, driver), y, w and b of a sample, or a ValueError that names what is wrong."""
    if not isinstance(drivers, DataFrame):
        raise ValueError(f"drivers: {type(drivers).__name__}; give a DataFrame with a row per pixel")
    if drivers.columns.duplicated().any():
        raise ValueError(f"drivers: columns twice: {list(drivers.columns[drivers.columns.duplicated()])}")
    if words := [c for c in drivers.columns if not pd.api.types.is_numeric_dtype(drivers[c])]:
        raise ValueError(f"drivers: columns {words} are not numeric; encode classes as numbers")
    x, y, b = drivers.to_numpy(float), np.asarray(target, float), np.asarray(blocks)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, float)
    for name, array in (("target", y), ("weight", w), ("blocks", b)):
        if array.shape != (len(x),):
            raise ValueError(f"{name}: shape {array.shape}, drivers have {len(x)} rows")
    if holes := list(drivers.columns[~np.isfinite(x).all(axis=0)]):
        raise ValueError(f"drivers: NaN in columns {holes}; drop those pixels or the columns")
    if lost := np.count_nonzero(~np.isfinite(y)):
        raise ValueError(f"target: {lost} of {len(y)} pixels are NaN; drop them")
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError("weight: must be finite, not negative and not all 0; 1 / sd**2")
    if np.ptp(y) == 0:
        raise ValueError("target: is constant; there is nothing to explain")
    if np.unique(b).size < folds:
        raise ValueError(f"blocks: {np.unique(b).size} blocks for {folds} folds; use smaller blocks")
    return x, y, w, b


def block_folds(blocks, seed):
    """(train, test) of each fold of whole blocks."""
    return GroupKFold(FOLDS, shuffle=True, random_state=seed).split(blocks, groups=blocks)


def draw_blocks(labels, draws, rng):
    """How often each block (draw, block) stands in a bootstrap sample of as many blocks."""
    return rng.multinomial(n := labels.max() + 1, np.full(n, 1 / n), draws)
