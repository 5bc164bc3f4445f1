"""Interferogram networks: loops, unwrapping errors, reference, delay, fading bias.

Apply in this order: `correct_unwrapping`, `reference`, `correct_delay`, `correct_fading`, then `helpers.sbas.invert`.
"""

from helpers.network.closure import (
    closure,
    closure_histogram,
    closure_rms,
    correct_unwrapping,
    unwrapping_std,
)
from helpers.network.delay import atmosphere, correct_delay, stable_ground
from helpers.network.fading import correct_fading, fading
from helpers.network.graph import (
    adjacency_depth,
    by_blocks,
    components,
    dates,
    height_matters,
    incidence,
    loops,
    pair_index,
    pair_length_days,
    prune,
    thinned,
    triplets,
)
from helpers.network.reference import reference, reference_rate_std

__all__ = [
    "adjacency_depth",
    "atmosphere",
    "by_blocks",
    "closure",
    "closure_histogram",
    "closure_rms",
    "components",
    "correct_delay",
    "correct_fading",
    "correct_unwrapping",
    "dates",
    "fading",
    "height_matters",
    "incidence",
    "loops",
    "pair_index",
    "pair_length_days",
    "prune",
    "reference",
    "reference_rate_std",
    "stable_ground",
    "thinned",
    "triplets",
    "unwrapping_std",
]
