"""From the part of a thaw season that was seen to the whole: fractions, scaling, validation.

The thaw-season drop is the surface lowering between two dates of one year, in mm and **positive
for subsidence**. A sensor that sees only a window of the season sees the fraction F of the drop:
F = drop_window / drop_full. Division by F scales noise, the change of F from year to year and its
spread between pixels alike. Each of the three is estimated, propagated to the result and reported
by itself. Windows for which the division says nothing are refused, with the reason.

Arrays carry the dims named in each docstring plus any trailing dims (y and x, or zone): area means
are treated as pixels are.
"""

from .areas import Weighting, area_curve, area_means, noise_inflation
from .degree_days import fit_degree_days
from .fractions import fraction, fraction_of_drops, hierarchical
from .gnssir import fractions_of_heights
from .scaling import MAX_CV, MIN_FRACTION, MIN_YEARS, add_rate, scale
from .season import drops, season_in_delay, season_rate, season_series, without_rate
from .shrinkage import empirical_bayes
from .validation import leave_one_year_out, rmse_interval, score

__all__ = [
    "MAX_CV", "MIN_FRACTION", "MIN_YEARS", "Weighting", "add_rate", "area_curve", "area_means", "drops",
    "empirical_bayes", "fit_degree_days", "fraction", "fraction_of_drops", "fractions_of_heights", "hierarchical",
    "leave_one_year_out", "noise_inflation", "rmse_interval", "scale", "score", "season_in_delay", "season_rate",
    "season_series", "without_rate",
]  # fmt: skip
