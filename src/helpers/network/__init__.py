"""Interferogram networks: loops, unwrapping errors, reference, delay, fading bias.

Apply in this order: `correct_unwrapping`, `reference`, `correct_delay`, `correct_fading`, then `helpers.sbas.invert`.
"""

from helpers.network.atmosphere import atmosphere
from helpers.network.closure import (
    closure,
    closure_histogram,
    correct_unwrapping,
    open_share,
    unwrapping_std,
    unwrapping_summary,
)
from helpers.network.delay import correct_delay
from helpers.network.fading import correct_fading, fading
from helpers.network.graph import (
    SLANT_RANGE_M,
    components,
    date_baselines,
    dates,
    height_matters,
    incidence,
    loops,
    pair_index,
    prune,
    triplets,
)
from helpers.network.pixels import thinned
from helpers.network.reference import reference, reference_rate_std
from helpers.network.stable import stable_ground, stable_on

__all__ = [
    "SLANT_RANGE_M",
    "atmosphere",
    "closure",
    "closure_histogram",
    "components",
    "correct_delay",
    "correct_fading",
    "correct_unwrapping",
    "date_baselines",
    "dates",
    "fading",
    "height_matters",
    "incidence",
    "loops",
    "open_share",
    "pair_index",
    "prune",
    "reference",
    "reference_rate_std",
    "stable_ground",
    "stable_on",
    "thinned",
    "triplets",
    "unwrapping_std",
    "unwrapping_summary",
]
