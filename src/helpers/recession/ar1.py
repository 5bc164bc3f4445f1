"""Regression on yearly values whose errors are AR(1), averaged over the unknown lag-1 correlation."""

from typing import NamedTuple

import numpy as np
from scipy import special

#: Lag-1 correlation rho of the year effect on its grid.  Negative rho is left out: it would only narrow the intervals.
RHO = np.linspace(0.0, 0.95, 20)
#: Prior weight of rho, falling to zero at full memory.  A flat prior costs power (0.77 against 0.83 at 20 + 9 years)
#: for no gain in size there; see data/calibration/recession_size_power.csv.
PRIOR = 1.0 - RHO
LEVEL = 0.95


class Ar1Regression(NamedTuple):
    """Generalised least squares at each rho of the grid (first axis), with the posterior weight of each rho."""

    weight: np.ndarray
    beta: np.ndarray
    inverse: np.ndarray
    variance: np.ndarray
    df: int
    log_evidence: float


def ar1_regression(t, y, design):
    """Fit y = X beta + u with Corr(u_i, u_j) = rho^|t_i - t_j|, by generalised least squares over the grid of rho.

    Whitened, with phi_i = rho^(t_i - t_{i-1}): z_i = (y_i - phi_i y_{i-1}) / sqrt(1 - phi_i^2), X likewise.
    The weight of a rho is its prior (1 - rho) times the restricted likelihood, with A = X' R^-1 X,
    n years and p coefficients: |R|^(-1/2) |A|^(-1/2) RSS^(-(n - p)/2), |R| = prod (1 - phi_i^2).
    """
    n, p = design.shape
    if n - p < 2 or np.linalg.matrix_rank(design) < p:
        raise ValueError(
            f"{n} years cannot carry {p} coefficients (too few years, or covariates that repeat the periods)"
        )
    phi = RHO[:, None] ** np.diff(t)
    innovation = np.sqrt(1 - phi**2)
    data = np.c_[design, y]
    white = np.empty((len(RHO), n, p + 1))
    white[:, 0] = data[0]
    white[:, 1:] = (data[1:] - phi[:, :, None] * data[:-1]) / innovation[:, :, None]
    x, z = white[:, :, :p], white[:, :, p]
    # beta = A^-1 X' R^-1 y, s^2 = RSS / (n - p), Cov(beta) = s^2 A^-1
    normal = x.swapaxes(1, 2) @ x
    inverse = np.linalg.inv(normal)
    beta = (inverse @ (x.swapaxes(1, 2) @ z[:, :, None]))[:, :, 0]
    rss = np.maximum(np.sum((z - np.einsum("kni,ki->kn", x, beta)) ** 2, axis=1), 1e-300)
    log_weight = -np.log(innovation).sum(1) - 0.5 * np.linalg.slogdet(normal)[1] - 0.5 * (n - p) * np.log(rss)
    weight = np.exp(log_weight - log_weight.max()) * PRIOR
    evidence = log_weight.max() + np.log(weight.sum())
    return Ar1Regression(weight / weight.sum(), beta, inverse, rss / (n - p), n - p, evidence)


#: what `summary` gives
SUMMARY = ("difference", "lower", "upper", "difference_std", "p_value", "minimal_detectable", "rho")


def summary(model, contrast):
    """Estimate, 95 % interval, p value and minimal detectable size of c' beta, a mixture of t over rho."""
    weight, beta, inverse, variance, df, _ = model
    center = beta @ contrast
    scale = np.sqrt(variance * np.einsum("i,kij,j->k", contrast, inverse, contrast))
    difference = float(weight @ center)
    # variance of the mixture: within each rho (t with df) plus between them
    std = np.sqrt(weight @ (scale**2 * df / max(df - 2, 1) + (center - difference) ** 2))
    tail = (1 - LEVEL) / 2
    probability = np.array([tail, 1 - tail, 0.5, 0.8])
    lower, upper, median, found = _quantiles(probability, weight, center, scale, df)
    p_zero = float(weight @ special.stdtr(df, -center / scale))
    return {
        "difference": difference,
        "lower": lower,
        "upper": upper,
        "difference_std": float(std),
        "p_value": 2 * min(p_zero, 1 - p_zero),
        # half the 95 % interval, plus the distance that leaves a fifth of the repeats inside it
        "minimal_detectable": (upper - lower) / 2 + found - median,
        "rho": float(weight @ RHO),
    }


def _quantiles(probability, weight, center, scale, df):
    """Quantiles of a mixture of t distributions, by Newton steps kept inside a shrinking bracket."""
    edge = special.stdtrit(df, probability)[:, None] * scale + center
    low, high = edge.min(axis=1), edge.max(axis=1)
    x = edge @ weight
    # density of t: Gamma((df+1)/2) / (Gamma(df/2) sqrt(df pi)) (1 + z^2/df)^(-(df+1)/2)
    log_norm = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - 0.5 * np.log(df * np.pi)
    for _ in range(60):
        z = (x[:, None] - center) / scale
        error = special.stdtr(df, z) @ weight - probability
        high, low = np.where(error > 0, x, high), np.where(error < 0, x, low)
        density = (np.exp(log_norm - 0.5 * (df + 1) * np.log1p(z**2 / df)) / scale) @ weight
        with np.errstate(divide="ignore", invalid="ignore"):  # far in a tail the density is 0: then bisect
            step = x - error / density
        step = np.where((step > low) & (step < high), step, 0.5 * (low + high))
        if np.all(np.abs(step - x) <= 1e-10 * (high - low + scale.min())) or np.all(np.abs(error) < 1e-12):
            break
        x = step
    return [float(v) for v in x]
