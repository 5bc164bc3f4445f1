"""HyP3 products (ASF): GAMMA, burst and multi-burst interferograms in one folder."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from readers.damage import regular_file
from readers.rasters import PairFiles, read_layer, whole_pairs
from readers.stack import assemble, geometry_from_los, order_pairs, parse_dates

log = logging.getLogger(__name__)

WAVELENGTH_M = 0.055465763  # of Sentinel-1, as ASF and JPL state it
_SUFFIXES = ("_unw_phase_clipped.tif", "_unw_phase.tif")  # as ASF's tutorial cuts products, and as delivered
_NAMES = (
    re.compile(r"^S1[A-D]{2}_(\d{8})T\d{6}_(\d{8})T\d{6}_"),  # GAMMA
    re.compile(r"^S1_\d+_IW\d_(\d{8})_(\d{8})_"),  # one burst
    re.compile(r"^S1_\d{3}_.+_IW_(\d{8})_(\d{8})_"),  # several bursts
)


def is_hyp3(folder: Path) -> bool:
    """Whether the folder, or folders in it, hold HyP3 unwrapped phase."""
    return bool(_phase_files(folder))


def _phase_files(folder: Path) -> list[Path]:
    """Phase file of each product; the clipped one where every product has one, else as delivered."""
    clipped, whole = ({*folder.glob(f"*{s}"), *folder.glob(f"*/*{s}")} for s in _SUFFIXES)
    products = [{_stem(p) for p in files} for files in (clipped, whole)]
    return sorted(clipped if products[0] >= products[1] else whole)


def _stem(phase: Path) -> str:
    return phase.name.removesuffix(_SUFFIXES[0]).removesuffix(_SUFFIXES[1])


def read_hyp3(folder, *, looks=None, incomplete="error", sensor="Sentinel-1", zero="nodata", **lazy):
    """Read a folder of HyP3 products as an interferogram stack, clipped to their common overlap.

    Parameters
    ----------
    folder : path
        Holds one folder per product, or the files themselves, as delivered or clipped (``*_clipped.tif``).
    looks : float, optional
        Effective number of looks; default range looks x azimuth looks / 1.94 from the products' text files.
    incomplete, zero, lazy, block_mb
        As in `readers.rasters.whole_pairs`, `readers.stack.apply_zero_rule`, `readers.rasters.PairFiles.read`.
    """
    phase = _phase_files(Path(folder))
    if not phase:
        raise FileNotFoundError(f"{folder}: no file *{_SUFFIXES[1]}")
    reference, secondary = (parse_dates(d, folder) for d in zip(*map(_dates_in, phase), strict=True))
    order = order_pairs(reference, secondary, [str(p) for p in phase])
    kept, grid = whole_pairs(
        [(phase[k], _beside(phase[k], "corr")) for k in order], incomplete, one_grid=False
    )
    skipped = [phase[k].name for k in np.delete(order, kept)]
    order = order[kept]
    phase = tuple(phase[k] for k in order)
    coherence, component = (tuple(_beside(p, layer) for p in phase) for layer in ("corr", "conncomp"))
    component = component if all(p.exists() for p in component) else None
    source = PairFiles(phase, coherence, component, grid, clip=True, zero=zero)
    texts = [_text(p) for p in phase]
    return assemble(
        source.read(**lazy),
        (reference[order], secondary[order], [t.get("Baseline", np.nan) for t in texts]),
        grid,
        source=str(folder),
        wavelength_m=WAVELENGTH_M,
        geometry=_geometry(phase, grid),
        sensor=sensor,
        processor="HyP3",
        skipped_pairs=skipped or None,
        zero_share=source.zero_share(),
        **_attributes(folder, texts, looks),
    )


def _dates_in(path: Path) -> tuple[str, str]:
    for pattern in _NAMES:
        found = pattern.match(path.name)
        if found:
            return found.groups()
    raise ValueError(f"{path}: the name is none of the HyP3 forms (GAMMA, burst, multi-burst)")


def _beside(phase: Path, layer: str) -> Path:
    """Another layer of the product, cut like the phase where there is such a file."""
    clipped = phase.with_name(f"{_stem(phase)}_{layer}_clipped.tif")
    cut = phase.name.endswith(_SUFFIXES[0]) and clipped.exists()
    return clipped if cut else phase.with_name(f"{_stem(phase)}_{layer}.tif")


def _geometry(phase, grid) -> dict:
    """Look vector and height from the first product that has them and covers the overlap."""
    geometry = {}
    with_angles = next(
        (p for p in phase if _beside(p, "lv_theta").exists() and _beside(p, "lv_phi").exists()), None
    )
    if with_angles is None:
        log.warning("%s: no lv_theta, lv_phi in any product: no look vector", phase[0].parent)
    else:
        # lv_theta is the elevation of the look vector, lv_phi its direction from east, anticlockwise
        theta, phi = (read_layer(_beside(with_angles, n), grid) for n in ("lv_theta", "lv_phi"))
        empty = ~np.isfinite(theta) | ~np.isfinite(phi) | ((theta == 0) & (phi == 0))
        if np.nanmax(np.abs(theta), initial=0) > np.pi / 2 + 1e-3:
            raise ValueError(f"{_beside(with_angles, 'lv_theta')}: angles beyond pi/2, expected radians")
        parts = (np.cos(theta) * np.cos(phi), np.cos(theta) * np.sin(phi), np.sin(theta))
        geometry = geometry_from_los(
            *(np.where(empty, 0, p) for p in parts), _beside(with_angles, "lv_theta")
        )
    dem = next((_beside(p, "dem") for p in phase if _beside(p, "dem").exists()), None)
    geometry["height"] = None if dem is None else read_layer(dem, grid)
    return geometry


_KEYS = ("Baseline", "Heading", "Range looks", "Azimuth looks", "Slant range center")


def _text(phase: Path) -> dict:
    """Numbers of the product's own text file; empty if it is not there, without what is no number."""
    path = phase.with_name(f"{_stem(phase)}.txt")
    if not path.exists():
        return {}
    out = {}
    for line in regular_file(path).read_bytes().decode("utf-8-sig", errors="replace").splitlines():
        key, _, value = line.partition(":")
        key = key.split("(")[0].strip()  # "Baseline (m)" in some versions, "Baseline" in others
        if key in _KEYS:
            try:
                out[key] = float(value.split()[0])
            except (ValueError, IndexError):
                log.warning("%s: %s is %r, no number: left out", path, key, value.strip())
    return out


def _attributes(folder, texts, looks) -> dict:
    headings = [t["Heading"] for t in texts if "Heading" in t]
    attrs = {}
    if headings:
        if np.ptp(np.cos(np.radians(headings))) > 1:
            raise ValueError(
                f"{folder}: ascending and descending products are mixed; read each track by itself"
            )
        attrs["heading_deg"] = float((np.median(np.mod(headings, 360)) + 180) % 360 - 180)
    ranges = [t["Slant range center"] for t in texts if 3e5 < t.get("Slant range center", 0) < 3e6]
    if ranges:  # m; a value in another unit is not used
        attrs["slant_range_m"] = float(np.median(ranges))
    numbers = {
        t["Range looks"] * t["Azimuth looks"] for t in texts if {"Range looks", "Azimuth looks"} <= set(t)
    }
    if len(numbers) > 1:
        raise ValueError(f"{folder}: HyP3 products of {sorted(numbers)} looks are mixed; read each by itself")
    if looks is not None:
        attrs["looks"] = float(looks)
    elif numbers:
        attrs["looks"] = numbers.pop() / 1.94
    return attrs
