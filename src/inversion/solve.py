"""Drive the kernels: a block of pixels in, packed rows out, in threads that each own their scratch memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from .interpolation import solve_interpolation
from .posterior import solve_posterior
from .workspace import Data, Output, workspace

SERIES = ("displacement", "displacement_std", "displacement_model_std", "data_component")
MAPS = ("rate", "rate_std", "temporal_coherence", "residual_rms", "n_pairs")
PRIOR_MAPS = ("rate_unconstrained", "rate_unconstrained_std", "prior_weight", "prior_conflict")
STATISTICS = ("data_component", "temporal_coherence", "residual_rms")


def drop_outdated_cache() -> None:
    """Remove compiled code older than any module here: numba itself looks only at the file of the function it kept."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.glob("*.py"))
    for index in Path(solve_posterior.stats.cache_path).glob("*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink(missing_ok=True)


drop_outdated_cache()


def empty_series(plan) -> tuple[str, ...]:
    """Series that stay without values."""
    if not plan.spread:
        return "displacement_std", "displacement_model_std"
    return ("displacement_model_std",) if plan.interpolate else ()


def layout(plan, with_prior: bool) -> dict[str, slice]:
    """Rows of the packed result, by name; the intercept is left out, since it depends on the datum."""
    n, k = plan.design.shape[0], plan.design.shape[1] - 1
    sizes = dict.fromkeys(SERIES, n) | dict.fromkeys(MAPS, 1)
    sizes |= dict.fromkeys(empty_series(plan), 0)
    sizes |= dict.fromkeys(STATISTICS if not plan.statistics else (), 0)
    sizes |= dict.fromkeys(PRIOR_MAPS, 1 if with_prior else 0)
    ranges = int(plan.statistics)
    sizes |= {"coefficients": k, "covariance": k * k, "peak_to_peak": ranges, "peak_to_peak_std": ranges}
    ends = np.cumsum(list(sizes.values()))
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def invert_block(plan, phase, coherence=None, prior=None, threads: int = 1) -> np.ndarray:
    """Invert (pair, pixel) arrays in ``threads`` threads of whole lanes; a pixel does not depend on its neighbours.

    Parameters
    ----------
    plan : Plan
    phase, coherence : array (pair, pixel)
        rad, NaN without data; coherence None for equal weights.
    prior : (mean, std) of arrays (pixel,), optional
        mm/yr; std 0 is a hard constraint, inf or NaN is no prior.

    Returns
    -------
    ndarray (row, pixel)
        float32, see `layout`; the rows of the seasonal range are NaN.
    """
    none = np.empty((0, 0), "float32")
    mean, std = (
        (np.empty(0), np.empty(0)) if prior is None else (np.ascontiguousarray(p, float) for p in prior)
    )
    data = Data(
        phase=np.ascontiguousarray(phase, "float32"),
        coherence=none if coherence is None else np.ascontiguousarray(coherence, "float32"),
        prior_mean=mean,
        prior_std=std,
    )
    rows, pixels = layout(plan, prior is not None), phase.shape[1]
    values = np.empty((rows["peak_to_peak_std"].stop, pixels), "float32")
    values[rows["peak_to_peak"].start :] = np.nan
    out = Output(values, **{name: int(rows[name].start) for name in Output._fields[1:]})
    lanes = lanes_of(plan)
    part = lanes * max(1, -(-pixels // (lanes * max(threads, 1) * 4)))

    def solve(begin):
        work, end = workspace(plan, lanes), min(begin + part, pixels)
        if plan.interpolate:
            solve_interpolation(plan, work, workspace(plan, 1), data, begin, end, out)
        else:
            solve_posterior(plan, work, data, begin, end, out)

    if threads == 1:
        for begin in range(0, max(pixels, 1), part):
            solve(begin)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(solve, range(0, pixels, part)))
    return values


def lanes_of(plan, cache_bytes: int = 1_500_000) -> int:
    """Pixels side by side: as many as keep the scratch memory in the second-level cache, but enough for long loops."""
    n, k = plan.design.shape
    size = len(plan.unknowns.order)
    per_lane = 8 * (len(plan.unknowns.row) + size * (3 + k) + len(plan.first)) + 5 * n
    return int(np.clip(cache_bytes // per_lane // 8 * 8, 64, 96))
