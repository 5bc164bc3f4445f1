"""LiCSAR frames (COMET) of geocoded Sentinel-1 interferograms, in the portal's layout or as GEOC folder."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from readers.damage import regular_file
from readers.rasters import PairFiles, read_layer, whole_pairs
from readers.stack import (
    SPEED_OF_LIGHT,
    assemble,
    geometry_from_los,
    order_pairs,
    parse_dates,
    scene_geometry,
)

log = logging.getLogger(__name__)

_PAIR = re.compile(r"^\d{8}_\d{8}$")
_PARTS = (slice(0, 8), slice(9, 17))  # of such a name: reference and secondary date
_RADAR_FREQUENCY = 5.405e9  # Hz, Sentinel-1
_ASSUMED_LOOKS = 80 / 1.94  # 4 x 20 looks; 1.94 samples per independent one


def is_licsar(folder: Path) -> bool:
    """Whether the folder is, or holds, one of a LiCSAR frame's interferograms."""
    return _home(folder) is not None


def _home(folder: Path) -> Path | None:
    """Where the interferograms lie: the folder itself, GEOC, or interferograms (the portal's layout)."""
    places = (folder, folder / "GEOC", folder / "interferograms")
    return next((place for place in places if place.is_dir() and _pairs_in(place)), None)


def _pairs_in(folder: Path) -> dict[str, Path]:
    """Names yyyymmdd_yyyymmdd and where their files lie: a folder each, or all in one."""
    found = {p.name: p for p in folder.iterdir() if p.is_dir() and _PAIR.match(p.name)}
    flat = {p.name[:17]: folder for p in folder.glob("*.geo.unw.tif") if _PAIR.match(p.name[:17])}
    return dict(sorted((flat | found).items()))


def read_licsar(folder, *, looks=None, incomplete="error", sensor="Sentinel-1", zero="nodata", **lazy):
    """Read a LiCSAR frame as an interferogram stack.

    The frame's look vector, heights, ``baselines`` and ``metadata.txt`` may lie beside the pairs (GEOC), around
    them, or in ``metadata`` (the portal's layout). Without look vector it is derived from the heading and the
    incidence angle of metadata.txt, and the attribute ``los_assumed`` says so.

    Parameters
    ----------
    folder : path
        The frame, its GEOC, or its ``interferograms``.
    looks : float, optional
        Effective number of looks. LiCSAR does not state it: without it 80/1.94 is assumed and
        the attribute ``looks_assumed`` says so.
    incomplete, zero, lazy, block_mb
        As in `readers.rasters.whole_pairs`, `readers.stack.apply_zero_rule`, `readers.rasters.PairFiles.read`.
    """
    home = _home(Path(folder))
    if home is None:
        raise FileNotFoundError(f"{folder}: holds no folder named yyyymmdd_yyyymmdd")
    places = [home, home.parent, home / "metadata", home.parent / "metadata"]
    folders = _pairs_in(home)
    names = list(folders)
    files = [[folders[n] / f"{n}.geo.{layer}.tif" for layer in ("unw", "cc")] for n in names]
    reference, secondary = (parse_dates([n[part] for n in names], home) for part in _PARTS)
    order = order_pairs(reference, secondary, [str(f[0]) for f in files])
    kept, grid = whole_pairs([tuple(files[k]) for k in order], incomplete)
    skipped = [names[k] for k in np.delete(order, kept)]
    order = order[kept]
    reference, secondary = reference[order], secondary[order]
    source = PairFiles(*(tuple(files[k][j] for k in order) for j in (0, 1)), None, grid, zero=zero)

    attrs = {"sensor": sensor, "processor": "LiCSAR", "skipped_pairs": skipped or None}
    attrs |= _looks(looks) | _orbit(places, metadata := _metadata(places))
    incidence = _number(metadata, "avg_incidence_angle")
    geometry = _look_vector(places, grid)
    if not geometry:
        geometry = scene_geometry(grid, incidence, attrs.get("heading_deg"))
        if "los_up" in geometry:
            attrs["los_assumed"] = "one vector from heading and avg_incidence_angle of metadata.txt"
        said = attrs.get("los_assumed") if "los_up" in geometry else "the stack has no look vector"
        log.warning("%s: no *.geo.{E,N,U}.tif: %s", home, said)
    heights = _find(places, "*.geo.hgt.tif")
    geometry["height"] = None if heights is None else read_layer(heights, grid)
    return assemble(
        source.read(**lazy),
        (reference, secondary, _baselines(places, reference, secondary)),
        grid,
        source=str(home),
        wavelength_m=SPEED_OF_LIGHT / _RADAR_FREQUENCY,
        geometry=geometry,
        zero_share=source.zero_share(),
        **attrs,
    )


def _looks(looks) -> dict:
    if looks is not None:
        return {"looks": float(looks)}
    return {
        "looks": _ASSUMED_LOOKS,
        "looks_assumed": "80/1.94; LiCSAR states no looks, the keyword looks does",
    }


def _orbit(places, metadata) -> dict:
    """Frame, orbit direction, heading and slant range, where the names or metadata.txt give them."""
    named = (re.search(r"\d{3}[AD]_\d{5}_\d{6}", str(p)) for p in _frame_files(places))
    frame = next((m[0] for m in named if m), None)
    return {
        "frame": frame,
        "orbit_direction": {"A": "ascending", "D": "descending"}[frame[3]] if frame else None,
        "heading_deg": _number(metadata, "heading"),
        "slant_range_m": _number(metadata, "centre_range_m"),
    }


def _frame_files(places) -> list[Path]:
    return [p for place in places for p in sorted(place.glob("*.geo.*.tif"))] + places


def _find(places, pattern: str) -> Path | None:
    return next((p for place in places for p in sorted(place.glob(pattern))), None)


def _look_vector(places, grid) -> dict:
    files = {name: _find(places, f"*.geo.{name}.tif") for name in "ENU"}
    missing = [name for name in "ENU" if files[name] is None]
    if len(missing) == 3:
        return {}
    if missing:
        raise FileNotFoundError(
            f"{places[0]}: *.geo.{missing[0]}.tif is missing beside the other look-vector files; download it"
        )
    # a single component may be 0 where the vector is not: only all three together are no data
    parts = [np.nan_to_num(read_layer(files[n], grid)) for n in "ENU"]
    return geometry_from_los(*parts, files["U"])


def _metadata(places) -> dict:
    path = _find(places, "metadata.txt")
    if path is None:
        return {}
    # portals serve it with or without a byte-order mark, in more than one encoding
    text = regular_file(path).read_bytes().decode("utf-8-sig", errors="replace")
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs} | {"_path": str(path)}


def _number(metadata: dict, key: str) -> float | None:
    """A number of metadata.txt; a value that is none is left out with a warning."""
    try:
        if np.isfinite(value := float(metadata[key])):
            return value
    except KeyError:
        return None
    except ValueError:
        pass
    log.warning("%s: %s=%r is not a number and is left out", metadata["_path"], key, metadata[key])
    return None


def _baselines(places, reference, secondary) -> np.ndarray | None:
    """Perpendicular baseline of each pair from the per-date file, NaN for dates it lacks."""
    path = _find(places, "baselines")
    if path is None:
        log.warning("%s: no file baselines: perpendicular baselines are unknown", places[0])
        return None
    values, primaries, bad = {}, set(), []
    for line in regular_file(path).read_bytes().decode("utf-8-sig", errors="replace").splitlines():
        row = line.split()
        first = {4: 0, 9: 1}.get(len(row))  # the new form, and the old one with a running number before
        try:
            if first is None:
                raise ValueError(f"{len(row)} columns, expected 4 (new form) or 9 (old form)")
            primary, date = parse_dates(row[first : first + 2], path)
            values[date] = float(row[first + 2])
            primaries.add(primary)
        except ValueError as error:
            bad += [f"{line.strip()!r} ({error})"] if row else []
    if bad:
        log.warning("%s: %d rows are not read, the first %s", path, len(bad), bad[0])
    # the rows are relative to one primary scene, which has no row of its own in the old form
    if len(primaries) == 1:
        values.setdefault(primaries.pop(), 0.0)
    series = pd.Series(values, dtype=float).replace([np.inf, -np.inf], np.nan)
    series.index = pd.DatetimeIndex(series.index)
    lacking = pd.DatetimeIndex(np.union1d(reference, secondary)).difference(series.index)
    if len(lacking):
        log.warning("%s: no baseline for %d dates, the first %s", path, len(lacking), lacking[0].date())
    return series.reindex(secondary).to_numpy() - series.reindex(reference).to_numpy()
