"""Phase noise of distributed scatterers: from estimated coherence and looks to variance."""

from functools import lru_cache

import numpy as np
from scipy import special

TABLE_SIZE = 1025
LARGEST_COHERENCE = 0.999  # keeps the variance above zero where a file says exactly 1


def phase_variance(coherence: float | np.ndarray, looks: float, *, debias: bool = True) -> np.ndarray:
    """Variance of the interferometric phase of distributed scatterers (rad2).

    The variance of the multilook phase distribution (Hanssen 2001, eq. 4.2.23), integrated numerically: at coherence
    0.3 and 32 looks its root is about 15 % above the Cramer-Rao form. Estimated coherence is too high where coherence
    is low; its mean given the true value (gamma-squared mixture of beta distributions) is inverted first.

    Parameters
    ----------
    coherence : array
        Estimated coherence, 0-1; NaN counts as 0 (nothing known: a uniform phase, variance pi^2/3).
    looks : float
        Effective number of independent looks, above 1.
    debias : bool
        Take the positive bias of the estimate off.

    Returns
    -------
    ndarray
        rad2, linear interpolation in a table of 1025 values.
    """
    table = variance_table(float(looks), debias)
    at = np.clip(np.nan_to_num(np.asarray(coherence, float)), 0, LARGEST_COHERENCE) * (TABLE_SIZE - 1)
    below = np.minimum(at.astype(int), TABLE_SIZE - 2)
    return table[below] + (at - below) * (table[below + 1] - table[below])


@lru_cache(maxsize=32)
def variance_table(looks: float, debias: bool = True) -> np.ndarray:
    """`phase_variance` on ``TABLE_SIZE`` equally spaced estimated coherences from 0 to 1 (read-only)."""
    if not looks > 1:
        raise ValueError(
            f"looks must be above 1, got {looks}: phase variance of distributed scatterers is undefined"
        )
    grid = np.linspace(0, 1, TABLE_SIZE)
    truth = debiased_coherence(grid, looks) if debias else grid
    knots = np.append(np.linspace(0, 0.9, 181), 1 - np.geomspace(0.1, 1e-4, 60)[1:])
    root = np.interp(truth, knots, np.sqrt(_integrated_variance(knots, looks)))
    table = root**2
    table.setflags(write=False)
    return table


def debiased_coherence(estimate, looks: float) -> np.ndarray:
    """True coherence whose mean estimate is ``estimate``; 0 below the mean estimate of noise."""
    truth = np.linspace(0, 0.95, 96)
    mean = np.array([_mean_estimate(g, looks) for g in truth])
    fine = np.linspace(0.95, 1, 51)[1:]
    truth, mean = np.append(truth, fine), np.append(mean, fine + (1 - fine**2) ** 2 / (4 * looks * fine))
    return np.interp(estimate, mean, truth)


def _mean_estimate(coherence: float, looks: float) -> float:
    """Mean sample coherence: given k, its square is Beta(1 + k, L - 1); k is negative binomial (L, 1 - coherence^2)."""
    square = coherence**2
    top = int(looks * square / (1 - square) + 40 * np.sqrt(looks * square) / (1 - square) + 50)
    k = np.arange(top)
    log_weight = special.gammaln(looks + k) - special.gammaln(looks) - special.gammaln(k + 1)
    log_weight += looks * np.log1p(-square) + special.xlogy(k, square)
    log_root = special.gammaln(1.5 + k) + special.gammaln(looks + k)
    log_root -= special.gammaln(1 + k) + special.gammaln(looks + k + 0.5)
    return float(np.exp(log_weight + log_root).sum())


def _integrated_variance(coherence: np.ndarray, looks: float) -> np.ndarray:
    """Second moment of the multilook phase density about zero: Gauss-Legendre over the core and over the tail."""
    coherence = np.atleast_1d(coherence)[:, None]
    core = 8 * np.sqrt((1 - coherence**2) / (2 * looks)) / np.maximum(coherence, 1e-9)
    core = np.minimum(core, np.pi / 2)
    node, weight = np.polynomial.legendre.leggauss(64)
    moments = np.zeros((2, len(coherence)))
    for start, length in ((0.0, core), (core, np.pi - core)):
        phase = start + 0.5 * length * (node + 1)
        mass = 0.5 * length * weight * np.maximum(_phase_density(phase, coherence, looks), 0)
        moments += mass.sum(axis=1), (mass * phase**2).sum(axis=1)
    return moments[1] / moments[0]


def _phase_density(phase, coherence, looks: float) -> np.ndarray:
    """Multilook phase density, the hypergeometric function turned (Euler) into its well-behaved form."""
    beta = coherence * np.cos(phase)
    log_scale = looks * np.log1p(-(coherence**2)) - (looks + 0.5) * np.log1p(-(beta**2))
    ratio = np.exp(special.gammaln(looks + 0.5) - special.gammaln(looks))
    even = special.hyp2f1(0.5 - looks, -0.5, 0.5, beta**2) / (2 * np.pi)
    return np.exp(log_scale) * (ratio * beta / (2 * np.sqrt(np.pi)) + even)
