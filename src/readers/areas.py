"""Named polygons and points of a GeoJSON file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from readers.damage import damage_named, regular_file


def read_areas(path: Path) -> dict[str, BaseGeometry]:
    """Give the features of a GeoJSON by their property ``name``, in lon/lat."""
    with damage_named(path, "expected is a GeoJSON of features with a property `name`"):
        features = json.loads(regular_file(path).read_text(encoding="utf-8"))["features"]
        areas = {str(f["properties"]["name"]): shape(f["geometry"]) for f in features}
    for name, area in areas.items():
        if area.is_empty or not np.isfinite(area.bounds).all():
            raise ValueError(f"{path}: the geometry of {name!r} is empty or not finite")
    if len(areas) < len(features):
        raise ValueError(f"{path}: two features bear the same `name`; give each its own")
    return areas
