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
from helpers.network.graph import components, date_baselines, dates, height_matters, pair_index, prune
from helpers.network.pixels import thinned
from helpers.network.reference import reference, reference_rate_std
from helpers.network.stable import stable_ground, stable_on

__all__ = ["atmosphere", "closure", "closure_histogram", "components", "correct_delay", "correct_fading"]
__all__ += ["correct_unwrapping", "date_baselines", "dates", "fading", "height_matters", "open_share"]
__all__ += ["pair_index", "prune", "reference", "reference_rate_std", "stable_ground", "stable_on", "thinned"]
__all__ += ["unwrapping_std", "unwrapping_summary"]
