"""Merge sensors: viewing geometry, one joined record of all sensors, and their calendars compared."""

from helpers.merge.geometry import LOS, decompose, geometry_error, horizontal_std, project_up
from helpers.merge.join import join
from helpers.merge.posterior import GroundPrior
from helpers.merge.thinning import thin, thinning_error

__all__ = ["LOS", "GroundPrior", "decompose", "geometry_error", "horizontal_std", "join"]
__all__ += ["project_up", "thin", "thinning_error"]
