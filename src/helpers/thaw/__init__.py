"""From the part of a thaw season that was seen to the whole: fractions, scaling, validation.

The thaw-season drop is the surface lowering between two dates of one year, in mm and **positive
when the ground sinks**. A sensor that sees only a window of the season sees the fraction F of the
drop; dividing by F scales noise, F's change from year to year and F's spread between pixels alike.
Each of the three is estimated, carried to the result and reported by itself. Windows for which the
division says nothing are refused, with the reason.

Arrays carry the dims named in each docstring plus any trailing dims (y and x, or zone): area means
take the same road as pixels.
"""

from .areas import area_curve, area_means, scatter
from .fractions import FULL_SEASON, drops, fraction, fraction_of_drops, hierarchical
from .scaling import (
    MAX_CV,
    MIN_FRACTION,
    MIN_YEARS,
    fit_degree_days,
    leave_one_year_out,
    scale,
    score,
    shrink,
)
from .season import thaw_index

__all__ = [
    "FULL_SEASON",
    "MAX_CV",
    "MIN_FRACTION",
    "MIN_YEARS",
    "area_curve",
    "area_means",
    "drops",
    "fit_degree_days",
    "fraction",
    "fraction_of_drops",
    "hierarchical",
    "leave_one_year_out",
    "scale",
    "scatter",
    "score",
    "shrink",
    "thaw_index",
]
