"""Merge sensors: viewing geometry, and one joined record of all sensors."""

from helpers.merge.join import LOS, decompose, join, project_up, thin

__all__ = ["LOS", "decompose", "join", "project_up", "thin"]
