"""LiCSAR frames (COMET): a GEOC folder of geocoded Sentinel-1 interferograms."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from readers.damage import regular_file
from readers.rasters import PairFiles, header, read_layer
from readers.stack import SPEED_OF_LIGHT, assemble, geometry_from_los, order_pairs, parse_dates

log = logging.getLogger(__name__)

_PAIR = re.compile(r"^(\d{8})_(\d{8})$")
_RADAR_FREQUENCY = 5.405e9  # Hz, Sentinel-1
_ASSUMED_LOOKS = 80 / 1.94  # 4 x 20 looks; 1.94 samples per independent one


def is_licsar(folder: Path) -> bool:
    """Whether the folder is, or holds, a GEOC folder."""
    return any(_pair_folders(f) for f in (folder, folder / "GEOC") if f.is_dir())


def _pair_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and _PAIR.match(p.name))


def read_licsar(
    folder, *, looks: float | None = None, incomplete: str = "error", sensor: str = "Sentinel-1", **lazy
):
    """Read a LiCSAR GEOC folder as an interferogram stack.

    The frame's look vector, heights, ``baselines`` and ``metadata.txt`` may lie in GEOC itself or beside it.

    Parameters
    ----------
    folder : path
        GEOC, or the folder that holds it.
    looks : float, optional
        Effective number of looks. LiCSAR does not state it: without it 80/1.94 is assumed and
        the attribute ``looks_assumed`` says so.
    incomplete : {"error", "skip"}
        What to do with a pair folder that lacks its phase or its coherence.
    **lazy
        ``lazy``, ``block_mb``: see `readers.rasters.PairFiles.read`.

    Returns
    -------
    Dataset with dims (pair, y, x)
    """
    folder = Path(folder)
    geoc = folder if _pair_folders(folder) else folder / "GEOC"
    places = [geoc, *([folder] if folder != geoc else [geoc.parent])]
    phase, coherence, skipped = _pair_files(geoc, incomplete)
    names = [_PAIR.match(p.parent.name).groups() for p in phase]
    reference = parse_dates([n[0] for n in names], geoc)
    secondary = parse_dates([n[1] for n in names], geoc)
    order = order_pairs(reference, secondary, [str(p) for p in phase])
    reference, secondary = reference[order], secondary[order]
    phase, coherence = (tuple(files[k] for k in order) for files in (phase, coherence))

    grid = header(phase[0]).grid
    geometry = _geometry(places, grid)
    metadata = _metadata(places)
    values, gamma, _ = PairFiles(phase, coherence, None, grid).read(**lazy)
    frame = next(
        (m[0] for m in (re.search(r"\d{3}[AD]_\d{5}_\d{6}", str(p)) for p in _frame_files(places)) if m), None
    )
    attrs = {"sensor": sensor, "frame": frame, "processor": "LiCSAR", "skipped_pairs": skipped or None}
    if frame:
        attrs["orbit_direction"] = {"A": "ascending", "D": "descending"}[frame[3]]
    if "heading" in metadata:
        attrs["heading_deg"] = _number(metadata, "heading")
    if "incidence_angle" not in geometry and "avg_incidence_angle" in metadata:
        angle = _number(metadata, "avg_incidence_angle")
        geometry["incidence_angle"] = np.full((grid.height, grid.width), angle)
    if "centre_range_m" in metadata:
        attrs["slant_range_m"] = _number(metadata, "centre_range_m")
    attrs["looks"] = _ASSUMED_LOOKS if looks is None else float(looks)
    if looks is None:
        attrs["looks_assumed"] = "80/1.94; LiCSAR states no number of looks, give the keyword looks to set it"
    return assemble(
        values,
        reference,
        secondary,
        grid,
        source=str(geoc),
        wavelength_m=SPEED_OF_LIGHT / _RADAR_FREQUENCY,
        coherence=gamma,
        perpendicular_baseline=_baselines(places, reference, secondary),
        geometry=geometry,
        **attrs,
    )


def _pair_files(geoc: Path, incomplete: str):
    if incomplete not in ("error", "skip"):
        raise ValueError(f"incomplete={incomplete!r}: choose 'error' or 'skip'")
    folders = _pair_folders(geoc)
    if not folders:
        raise FileNotFoundError(f"{geoc}: holds no folder named yyyymmdd_yyyymmdd")
    phase, coherence, skipped = [], [], []
    for folder in folders:
        files = [folder / f"{folder.name}.geo.{layer}.tif" for layer in ("unw", "cc")]
        lacking = [f for f in files if not f.exists()]
        if lacking and incomplete == "error":
            raise FileNotFoundError(
                f"{lacking[0]}: missing; download it, or pass incomplete='skip' to leave such pairs out"
            )
        if lacking:
            skipped.append(folder.name)
            continue
        phase.append(files[0])
        coherence.append(files[1])
    if skipped:
        log.warning("%s: %d pairs without phase or coherence are left out: %s", geoc, len(skipped), skipped)
    if not phase:
        raise FileNotFoundError(f"{geoc}: no pair folder holds both .geo.unw.tif and .geo.cc.tif")
    return phase, coherence, skipped


def _frame_files(places) -> list[Path]:
    return [p for place in places for p in sorted(place.glob("*.geo.*.tif"))] + places


def _find(places, pattern: str) -> Path | None:
    return next((p for place in places for p in sorted(place.glob(pattern))), None)


def _geometry(places, grid) -> dict:
    files = {name: _find(places, f"*.geo.{name}.tif") for name in ("E", "N", "U", "hgt")}
    missing = [name for name in "ENU" if files[name] is None]
    geometry = {}
    if not missing:
        east, north, up = (read_layer(files[n], grid, clip=True, zero_is_nodata=False) for n in "ENU")
        empty = (east == 0) & (north == 0) & (up == 0)
        geometry = geometry_from_los(*(np.where(empty, 0, v) for v in (east, north, up)), files["U"])
    elif len(missing) < 3:
        raise FileNotFoundError(
            f"{places[0]}: *.geo.{missing[0]}.tif is missing beside the other look-vector files; download it"
        )
    else:
        log.warning("%s: no *.geo.{E,N,U}.tif: the stack has no look vector", places[0])
    if files["hgt"] is not None:
        geometry["height"] = read_layer(files["hgt"], grid, clip=True)
    return geometry


def _metadata(places) -> dict:
    path = _find(places, "metadata.txt")
    if path is None:
        return {}
    # portals serve it with or without a byte-order mark, in more than one encoding
    text = regular_file(path).read_bytes().decode("utf-8-sig", errors="replace")
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs} | {"_path": str(path)}


def _number(metadata: dict, key: str) -> float:
    try:
        return float(metadata[key])
    except ValueError:
        raise ValueError(f"{metadata['_path']}: {key}={metadata[key]!r} is not a number") from None


def _baselines(places, reference, secondary) -> np.ndarray | None:
    """Perpendicular baseline of each pair from the per-date file, NaN for dates it lacks."""
    path = _find(places, "baselines")
    if path is None:
        log.warning("%s: no file baselines: perpendicular baselines are unknown", places[0])
        return None
    text = regular_file(path).read_bytes().decode("utf-8-sig", errors="replace")
    rows = [line.split() for line in text.splitlines()]
    rows = [r for r in rows if r]
    widths = {len(r) for r in rows}
    if widths == {4}:
        date, bperp = 1, 2
    elif widths == {9}:
        date, bperp = 2, 3
    else:
        raise ValueError(f"{path}: rows have {sorted(widths)} columns, expected 4 (new form) or 9 (old form)")
    try:
        values = {
            np.datetime64(d, "ns"): float(r[bperp])
            for d, r in zip(_dates(rows, date, path), rows, strict=True)
        }
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    # the rows are relative to one primary scene, which has no row of its own in the old form
    primary = {np.datetime64(d, "ns") for d in _dates(rows, date - 1, path)}
    if len(primary) == 1:
        values.setdefault(primary.pop(), 0.0)
    series = pd.Series(values, dtype=float)
    lacking = pd.DatetimeIndex(np.union1d(reference, secondary)).difference(series.index)
    if len(lacking):
        log.warning("%s: no baseline for %d dates, the first %s", path, len(lacking), lacking[0].date())
    return series.reindex(secondary).to_numpy() - series.reindex(reference).to_numpy()


def _dates(rows, column, path):
    return parse_dates([r[column] for r in rows], path)
