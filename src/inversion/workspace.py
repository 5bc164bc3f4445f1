"""How the kernels are compiled, and the memory they work in: every array is (row, lane), a lane is a pixel.

The innermost loop always runs over the lanes, so that it becomes vector instructions. A kernel allocates nothing:
`workspace` gives the scratch memory of one block of lanes, `Output` the rows that are filled.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np
from numba import njit

OPTIONS = {"nogil": True, "cache": True, "fastmath": {"contract", "nsz", "arcp"}, "error_model": "numpy"}
OPTIONS |= {"_nrt": False}  # no reference counts: a fraction of the compile time
outer = njit(**OPTIONS)
inner = njit(**OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Work(NamedTuple):
    """Scratch memory; N unknowns, n dates, k columns of the model, m of them in the small dense system."""

    edge: np.ndarray  # (entry, lane) weights of the graph's edges, then minus the factor L
    excess: np.ndarray  # (N, lane) excess of the diagonal over the sum of the edges
    inverse: np.ndarray  # (N, lane) 1 / D, then the diagonal of the inverse
    x: np.ndarray  # (N, 1 + k, lane): right-hand side, border
    gram: np.ndarray  # (1 + k, 1 + k, lane) x' D^-1 x
    joined: np.ndarray  # (entry, lane) do pairs join the two dates?
    label: np.ndarray  # (n, lane) component of each date
    number: np.ndarray  # (n, lane) the same while they are renumbered
    sets: np.ndarray  # (lane,) number of components
    mean: np.ndarray  # (n, k, lane) of a component's dates: slot 0 displacement, then columns
    size: np.ndarray  # (n, lane) dates of a component
    matrix: np.ndarray  # (m, m, lane) normal matrix of the coefficients, its factor, or its inverse
    cov: np.ndarray  # (m, m, lane) covariance of the coefficients
    root: np.ndarray  # (m, m, lane) upper-triangular root of their covariance
    value: np.ndarray  # (m, lane) coefficients
    pivot: np.ndarray  # (m, lane) D of the small factor
    good: np.ndarray  # (lane,) leading pivots that are not noise
    column: np.ndarray  # (longest column, lane)
    half: np.ndarray  # (m, m, lane)
    inner_root: np.ndarray  # (m, m, lane)
    single: np.ndarray  # (3, lane) single precision
    bin: np.ndarray  # (lane,) of coherence
    found: np.ndarray  # (lane,) entry of the table of variances
    halves: np.ndarray  # (2 lane,) the same memory: the two singles in it
    phase: np.ndarray  # (pair, lane)
    coherence: np.ndarray
    # from here on (lane,)
    scale: np.ndarray  # factor on the weights
    count: np.ndarray  # pairs with data
    square: np.ndarray  # sum of squared residuals, mm2
    cosine: np.ndarray  # sums of the residual phasors
    sine: np.ndarray
    weighted: np.ndarray  # weight times displacement of the pair at hand
    unit: np.ndarray  # unit variance
    share: np.ndarray  # entry of the factor at hand
    free: np.ndarray  # rate without the prior
    free_std: np.ndarray
    weight: np.ndarray  # weight of the prior
    conflict: np.ndarray  # prior minus free rate, in standard deviations
    at_date: np.ndarray  # displacement of the date at hand
    variance: np.ndarray  # its variance
    part: np.ndarray  # one term of the variance
    no_data: np.ndarray  # NaN where a pixel has no data, else 0
    unfitted: np.ndarray  # NaN where the model is not determined, else 0
    unknown: np.ndarray  # NaN where no variance can be propagated, else 0


LANES = Work._fields[Work._fields.index("scale") :]


def workspace(plan, lanes: int) -> Work:
    """Scratch memory for ``lanes`` pixels."""
    size, pairs = plan.unknowns.order.shape[0], plan.first.shape[0]
    n, k = plan.design.shape
    m = k - 1 if plan.interpolate else k  # the intercept needs no column where components are centred
    shapes = dict.fromkeys(("matrix", "cov", "root", "half", "inner_root"), (m, m)) | dict.fromkeys(LANES, ())
    shapes |= {"edge": (max(plan.unknowns.row.shape[0], 1),), "excess": (size,), "inverse": (size,)}
    shapes |= {"x": (size, 1 + k), "gram": (1 + k, 1 + k), "mean": (n, k), "size": (n,), "value": (m,)}
    shapes |= {"pivot": (m,), "column": (size,), "found": ()}
    arrays = {name: np.empty((*shape, lanes)) for name, shape in shapes.items()}
    arrays |= {name: np.empty((n, lanes), np.int32) for name in ("label", "number")}
    arrays["joined"] = np.empty((max(plan.dates.row.shape[0], 1), lanes), np.bool_)
    arrays |= {"sets": np.empty(lanes, np.int32), "good": np.empty(lanes, np.int64)}
    arrays |= {"single": np.empty((3, lanes), np.float32), "bin": np.empty(lanes, np.uint32)}
    arrays["phase"] = np.empty((pairs, lanes), np.float32)
    arrays["coherence"] = np.empty((0 if plan.unit else pairs, lanes), np.float32)
    return Work(halves=arrays["found"].view(np.float32), **arrays)


class Data(NamedTuple):
    """What differs from pixel to pixel."""

    phase: np.ndarray  # (pair, pixel) rad, NaN without data
    coherence: np.ndarray  # (pair, pixel), or (0, 0) for equal weights
    prior_mean: np.ndarray  # (pixel,) mm/yr, or (0,) without a prior
    prior_std: np.ndarray


# the packed result (row, pixel), and the first row of every quantity in it
Output = namedtuple(
    "Output",
    "values displacement displacement_std displacement_model_std data_component rate rate_std temporal_coherence "
    "residual_rms n_pairs rate_unconstrained rate_unconstrained_std prior_weight prior_conflict coefficients "
    "covariance",
)


@inner
def put(out, row, column, value):
    """Write one row of lanes, those that are pixels."""
    target = out[row, column : column + value.shape[0]]
    for i in range(target.shape[0]):
        target[i] = value[i]


@inner
def put_root(out, row, column, value):
    """Write the square root of one row of lanes."""
    target = out[row, column : column + value.shape[0]]
    for i in range(target.shape[0]):
        target[i] = np.sqrt(np.float32(value[i]))


@inner
def load(values, column, block):
    """Copy a block of pixels, zeros beyond the last one: rows lie far apart, and come sooner in a loop of their own."""
    block[:] = 0.0
    for pair in range(block.shape[0]):
        row, target = values[pair, column : column + block.shape[1]], block[pair]
        for i in range(row.shape[0]):
            target[i] = row[i]
