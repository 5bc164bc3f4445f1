"""Streamflow recession -dQ/dt = a Q^b: events, derivatives, fits, comparable numbers, regime tests.

The order of use is ``extract_events`` -> ``derivative`` -> ``fit`` -> ``k_ref`` (and ``decorrelate``)
-> ``regime_test``.  Flow may be in any unit: a carries it (unit^(1-b) / day^(2-b)), so a is never
compared or averaged over different b; k_ref = a Q_ref^(b-1), in 1/day, can be.
"""

from .aquifer import THEORY, drainage_time, low_flow_trend, storage, thickness_factor, thickness_trend
from .comparables import comparable_fits, decorrelate, k_ref, k_ref_std, reference_flow, shrink, to_mm_per_day
from .derivatives import SCHEMES, derivative
from .events import RULES, extract_events
from .fits import METHODS, fit
from .multiverse import LINES, multiverse
from .noise import noise_extrapolation, rating_error
from .record import antecedent_precipitation, season_classes
from .regimes import (
    adjust_p_values,
    block_bootstrap,
    change_year,
    lagged_correlation,
    period_means,
    placebo_tests,
    regime_test,
    trend_test,
    year_values,
)

# fmt: off
__all__ = [
    "LINES", "METHODS", "RULES", "SCHEMES", "THEORY", "adjust_p_values", "antecedent_precipitation",
    "block_bootstrap", "change_year", "comparable_fits", "decorrelate", "derivative", "drainage_time",
    "extract_events", "fit", "k_ref", "k_ref_std", "lagged_correlation", "low_flow_trend", "multiverse",
    "noise_extrapolation", "period_means", "placebo_tests", "rating_error", "reference_flow", "regime_test",
    "season_classes", "shrink", "storage", "thickness_factor", "thickness_trend", "to_mm_per_day",
    "trend_test", "year_values",
]
# fmt: on
