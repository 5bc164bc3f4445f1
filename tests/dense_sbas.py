"""The inversion of one pixel by plain dense linear algebra: slow, short, and the reference of the fast kernel.

Nothing here is clever on purpose: every unknown is written out (ground, delay, model, height error), rows are stacked,
one singular value decomposition gives solution and covariance, and what the rows do not determine is NaN.
"""

from __future__ import annotations

import numpy as np

from helpers import sbas, timefunc


def components(first, second, n):
    """Component number of every date, counted from the first date on; (n,) int."""
    label = np.arange(n)
    for a, b in zip(first, second, strict=True):
        label[label == max(label[a], label[b])] = min(label[a], label[b])
    return np.unique(label, return_inverse=True)[1]


def _least_squares(rows, values):
    """Minimum-norm solution, its covariance for unit row variance, and the projector on what is determined."""
    scale = np.linalg.norm(rows, axis=0)
    scale[scale == 0] = 1.0
    u, s, vt = np.linalg.svd(rows / scale, full_matrices=False)
    keep = s > s[0] * 1e-11
    half = vt[keep].T / s[keep] / scale[:, None]
    projector = (vt[keep].T / scale[:, None]) @ (vt[keep] * scale)
    return half @ (u[:, keep].T @ values), half @ half.T, projector


def invert_pixel(
    y,
    variance,
    first,
    second,
    design,
    *,
    deviation=None,
    correlation=None,
    delay=None,
    height=None,
    prior=None,
    unit_variance=False,
):
    """Invert one pixel.

    y, variance : (pair,) mm, mm2, finite. first, second : date index per pair. design : (date, parameter), intercept
    first, rate last, or None. deviation : sd of ground about the model or None (interpolation only). correlation :
    (date-1,) AR(1) correlation of neighbours or None. delay : (date,) sd of delay or None. height : (date,) column of
    the height error or None. prior : (mean, std) of the rate. unit_variance : variance is 1 and scaled by residuals.
    """
    n = len(design) if design is not None else None
    out = {}
    label = components(first, second, n)
    out["data_component"] = label
    out["n_pairs"] = len(y)
    delay = np.zeros(n) if delay is None else np.asarray(delay, float)
    free = _free(y, variance, first, second, n)
    if unit_variance:
        freedom = len(y) - (n - label.max() - 1)
        scatter = np.sum((y - free["fit"]) ** 2) / freedom if freedom > 0 else np.nan
    out["unit_variance"] = scatter if unit_variance else 1.0
    if deviation is None:
        found = _interpolate(free, label, design, delay, height, out["unit_variance"])
    else:
        if unit_variance:
            floor = (1e-3 * deviation) ** 2
            variance = np.full(len(y), max(scatter, floor) if np.isfinite(scatter) else 1.0)
        found = _bayes(y, variance, first, second, design, deviation, correlation, delay, height, prior)
        if unit_variance and not np.isfinite(scatter):
            found |= {k: np.full_like(v, np.nan) for k, v in found.items() if k.endswith("_std")}
    return out | found


def _incidence(first, second, n):
    a = np.zeros((len(first), n))
    a[np.arange(len(first)), first] = -1
    a[np.arange(len(first)), second] = 1
    return a


def _free(y, variance, first, second, n):
    """Classical SBAS: minimum-norm displacement, as a linear map of the pairs."""
    a = _incidence(first, second, n)
    w = 1 / np.sqrt(variance)
    pinv = np.linalg.pinv(a * w[:, None], rcond=1e-11) * w
    return {"map": pinv, "variance": variance, "x": pinv @ y, "fit": a @ (pinv @ y)}


def _interpolate(free, label, design, delay, height, unit):
    """Limit of vanishing weight of the model: it closes what the pairs leave open, and nothing else."""
    n, m = design.shape
    null = (label[:, None] == np.arange(label.max() + 1)).astype(float)
    full = design if height is None else np.column_stack([design, height])
    # minimise |x + null o - full q| over offsets o and coefficients q
    joint = np.column_stack([full, -null])
    scale = np.linalg.norm(joint, axis=0)
    scale[scale == 0] = 1.0
    u, s, vt = np.linalg.svd(joint / scale, full_matrices=False)
    keep = s > s[0] * 1e-10
    solve = (vt[keep].T / s[keep] / scale[:, None]) @ u[:, keep].T
    projector = (vt[keep].T / scale[:, None]) @ (vt[keep] * scale)
    determined = np.isclose(projector, np.eye(len(projector))).all(axis=1)[: full.shape[1]]
    determined[0] = (
        True  # the intercept shares its null direction with the offsets, and cancels in differences
    )
    k = full.shape[1]
    extra = design[:, :0] if height is None else np.asarray(height)[:, None]
    # displacement = x + null o - extra z, differenced to the first date: a linear map of x
    to_d = np.eye(n) + null @ solve[k:] - extra @ solve[m:k]
    to_d = to_d - to_d[0]
    same = label == label[0]
    ok = determined.all()
    if not ok:
        to_d = np.where(same[:, None], np.eye(n) - np.eye(n)[0], np.nan)
        if height is not None:
            to_d[:] = np.nan
    cov = free["map"] * free["variance"] @ free["map"].T * unit + np.diag(delay**2)
    d_std = (
        np.sqrt(np.diag(to_d @ cov @ to_d.T)) if ok else np.sqrt(np.einsum("ij,jk,ik->i", to_d, cov, to_d))
    )
    coef = solve[:k] @ free["x"] if ok else np.full(k, np.nan)
    coef_cov = solve[:k] @ cov @ solve[:k].T if ok else np.full((k, k), np.nan)
    return {
        "displacement": to_d @ free["x"],
        "displacement_std": np.where(same, d_std, np.nan),
        "displacement_model_std": np.full(n, np.nan),
        "coefficients": coef,
        "covariance": coef_cov,
        "rate": coef[m - 1],
        "rate_std": np.sqrt(coef_cov[m - 1, m - 1]),
        "fit": free["fit"],
    }


def _bayes(y, variance, first, second, design, deviation, correlation, delay, height, prior):
    """Joint least squares of ground d, delay a, coefficients p and height z; prior rows where there is knowledge."""
    n, m = design.shape
    a = _incidence(first, second, n)
    k = 0 if height is None else 1
    extra = np.zeros((n, 0)) if height is None else np.asarray(height, float)[:, None]
    late = delay > 0
    eye = np.eye(n)[:, late]
    zero = np.zeros
    whiten = np.eye(n) / deviation
    if correlation is not None:
        corr = np.eye(n)
        for i in range(n):
            for j in range(i + 1, n):
                corr[i, j] = corr[j, i] = np.prod(correlation[i:j])
        whiten = np.linalg.inv(np.linalg.cholesky(corr)) / deviation
    w = 1 / np.sqrt(variance)[:, None]
    rows = [
        np.hstack([a, a @ eye, zero((len(y), m)), a @ extra]) * w,
        np.hstack([whiten, zero((n, late.sum())), -whiten @ design, zero((n, k))]),
        np.hstack(
            [zero((late.sum(), n)), np.eye(late.sum()) / delay[late][:, None], zero((late.sum(), m + k))]
        ),
    ]
    values = [y * w[:, 0], zero(n), zero(late.sum())]
    rate = n + late.sum() + m - 1
    fixed = 0.0
    size = n + late.sum() + m + k
    if prior is not None and prior[1] == 0:  # a hard constraint: the rate is known
        stacked = np.vstack(rows)
        values = [np.concatenate(values) - stacked[:, rate] * prior[0]]
        stacked[:, rate] = 0
        rows, fixed = [stacked], prior[0]
    elif prior is not None and np.isfinite(prior[1]):
        rows.append(np.eye(size)[rate][None] / prior[1])
        values.append(np.array([prior[0] / prior[1]]))
    theta, cov, projector = _least_squares(np.vstack(rows), np.concatenate(values))
    if prior is not None and prior[1] == 0:
        theta[rate], projector[rate, rate] = fixed, 1.0  # the other rows do not touch it: its column is zero
    pick = np.eye(size)
    to_d = pick[:n] - pick[0]
    about = pick[:n] - np.hstack([zero((n, n + late.sum())), design, zero((n, k))])
    coef = slice(n + late.sum(), size)
    wanted = np.vstack([to_d, pick[n + late.sum() + 1 :]])
    determined = np.allclose(wanted @ projector, wanted, atol=1e-6)
    bad = 1.0 if determined else np.nan
    x = theta[:n] + eye @ theta[n : n + late.sum()] + extra @ theta[n + late.sum() + m :]
    std = lambda t: bad * np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", t, cov, t), 0))  # noqa: E731
    return {
        "displacement": bad * (to_d @ theta),
        "displacement_std": std(to_d),
        "displacement_model_std": std(about),
        "coefficients": bad * theta[coef],
        "covariance": bad * cov[coef, coef],
        "rate": bad * theta[rate],
        "rate_std": bad * np.sqrt(max(cov[rate, rate], 0)),
        "fit": bad * (a @ x),
    }


def invert(
    stack,
    model="linear+annual",
    *,
    weights="coherence",
    deviation_std_mm=5.0,
    atmosphere_std_mm=0.0,
    deviation_days=0.0,
    rate_prior=None,
    temperature=None,
    dem_error=False,
):
    """What `sbas.invert` must return, by `invert_pixel` on every pixel: name -> (..., pixel)."""
    dates, first, second = sbas.network_of(stack)
    form = timefunc.parse(model, temperature) or timefunc.Model.named("linear")
    design = form.design(dates)
    design[:, -1] -= design[[0, -1], -1].mean()
    mm = -1000 * stack.attrs["wavelength_m"] / (4 * np.pi)
    n = len(dates)
    days = np.diff(dates.values) / np.timedelta64(1, "D")
    options = {
        "deviation": None if model is None else deviation_std_mm,
        "correlation": np.exp(-days / deviation_days) if deviation_days else None,
        "delay": np.broadcast_to(atmosphere_std_mm, n),
        "height": _height(stack, first, second, n) if dem_error else None,
        "unit_variance": weights is None,
    }
    phase = stack["unwrapped_phase"].values.reshape(len(first), -1).astype(float)
    variance = np.ones(phase.shape)
    if weights is not None:
        coherence = stack["coherence"].values.reshape(phase.shape)
        variance = sbas.phase_variance(coherence, stack.attrs["looks"]) * mm**2
    found = []
    for y, v in zip(mm * phase.T, variance.T, strict=True):
        here = np.isfinite(y)
        pixel = invert_pixel(y[here], v[here], first[here], second[here], design, prior=rate_prior, **options)
        residual = y[here] - pixel.pop("fit")
        pixel["residual_rms"] = np.sqrt(np.mean(residual**2))
        pixel["temporal_coherence"] = abs(np.mean(np.exp(1j * residual / mm)))
        if rate_prior is not None:
            free = invert_pixel(y[here], v[here], first[here], second[here], design, **options)
            pixel["rate_unconstrained"], pixel["rate_unconstrained_std"] = free["rate"], free["rate_std"]
        if model is None:
            gap = pixel["data_component"] != 0
            pixel["displacement"][gap] = np.nan
            if gap.any():
                pixel["rate"] = pixel["rate_std"] = np.nan
        pixel["filled"] = pixel["data_component"] != 0
        found.append(pixel)
    unwanted = ("coefficients", "covariance", "unit_variance")
    return {name: np.stack([p[name] for p in found], axis=-1) for name in found[0] if name not in unwanted}


def _height(stack, first, second, n):
    per_date = np.linalg.lstsq(
        _incidence(first, second, n), stack["perpendicular_baseline"].values, rcond=None
    )[0]
    return -(per_date - per_date[0]) / 850
