"""Named polygons and points of a GeoJSON file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio.warp
import shapely
from rasterio.crs import CRS
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from readers.damage import damage_named, regular_file


def read_areas(path: Path) -> dict[str, BaseGeometry]:
    """Give the features of a GeoJSON by their property ``name``, in lon/lat.

    A ``crs`` member is obeyed. Empty, self-crossing and equally named geometries are errors, as are coordinates that
    cannot be longitude and latitude.
    """
    with damage_named(path, "expected is a GeoJSON of features with a property `name`"):
        content = json.loads(regular_file(path).read_text(encoding="utf-8"))
        features, crs = content["features"], _crs(content)
        areas = {str(f["properties"]["name"]): shape(_in_degrees(f["geometry"], crs)) for f in features}
    for name, area in areas.items():
        if area.is_empty or not np.isfinite(area.bounds).all():
            raise ValueError(f"{path}: the geometry of {name!r} is empty or not finite")
        if not area.is_valid:
            reason = shapely.is_valid_reason(area)
            raise ValueError(
                f"{path}: the outline of {name!r} is not valid ({reason}); redraw it without crossings"
            )
        west, south, east, north = area.bounds
        if not (-180 <= west <= east <= 360 and -90 <= south <= north <= 90):
            raise ValueError(
                f"{path}: {name!r} spans {west:g} to {east:g} and {south:g} to {north:g}, which is no longitude and "
                "latitude; write them in that order and in degrees, or name the `crs`"
            )
    if len(areas) < len(features):
        raise ValueError(f"{path}: two features bear the same `name`; give each its own")
    return areas


def _crs(content: dict) -> CRS | None:
    """Coordinate system that a GeoJSON of before 2016 names; None where it is longitude and latitude."""
    named = (content.get("crs") or {}).get("properties", {}).get("name", "")
    if not named or named.upper().endswith("CRS84"):
        return None
    crs = CRS.from_user_input(named)
    return None if crs.to_epsg() == 4326 else crs


def _in_degrees(geometry: dict, crs: CRS | None) -> dict:
    return geometry if crs is None else rasterio.warp.transform_geom(crs, "EPSG:4326", geometry)
