"""A stack larger than memory: `python bench/bench_scale.py [ROWS ...]` rewrites data/bench/scale.csv.

Strips of a Sentinel-1 frame at LiCSAR resolution (2500 columns, 240 dates, 900 pairs) are simulated block by block as
zarr, inverted zarr to zarr by a child process, checked at some pixels against the inversion in memory, and removed.
Two smaller strips go through every correction of notebook 02 in the same way.
18 MB a row, uncompressed; a whole frame has 2000 rows. Memory must not grow with the rows; what a frame and a
million square kilometres cost follows from the growth of time and bytes, on paper.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from helpers import io, network, sbas
from helpers.io.site import Site, SiteConfig

PLACE = io.ROOT / "build" / "scale"
TABLE = io.ROOT / "data" / "bench" / "scale.csv"
COLUMNS, FRAME_ROWS, DATES, PAIRS = 2500, 2000, 240, 900
BLOCK_ROWS = 3  # all pairs of three rows: 27 MB of phase
KEEP_FREE = 15e9  # bytes of disk
OPTIONS = {"deviation_std_mm": 5.0, "deviation_days": 30.0, "atmosphere_std_mm": 5.0}


def site() -> Site:
    """Give a site whose derived files lie in the bench's own folder."""
    made = Site("scale", SiteConfig(title="scale", kind="real"))
    made.derived, made.read_from = PLACE, [PLACE]
    return made


def pairs_and_dates():
    """Dates twelve days apart, each joined to the next three and, as far as 900 reach, to the fourth."""
    dates = pd.date_range("2016-01-05", periods=DATES, freq="12D")
    pairs = [(i, i + step) for step in (1, 2, 3, 4) for i in range(DATES - step)][:PAIRS]
    return dates, np.array(sorted(pairs))


def block(rows, first, second, day, seed):
    """Phase and coherence of some rows: a rate, a season, delay by date, noise by coherence, winters often lost."""
    rng = np.random.default_rng(seed)
    shape = (rows, COLUMNS)
    years = (day / 365.25).astype("f4")[:, None, None]
    ground = rng.uniform(-20, 5, shape).astype("f4") * years
    ground += rng.uniform(0, 15, shape).astype("f4") * np.sin(2 * np.pi * years)
    ground += rng.normal(0, 5, (day.size, 1, 1)).astype("f4") + 3 * rng.standard_normal(
        (day.size, *shape), "f4"
    )
    winter = np.cos(2 * np.pi * years[:, 0, 0]) > 0.5
    quality = np.where(winter[first] | winter[second], 0.25, 0.6)[:, None, None]
    coherence = np.clip(quality + 0.1 * rng.standard_normal((first.size, *shape), "f4"), 0.02, 0.98)
    coherence = np.round(coherence * 255).astype("f4") / np.float32(255)  # bytes, as LiCSAR stores it
    noise = np.sqrt((1 - coherence**2) / (2 * 40 * coherence**2)) * rng.standard_normal(coherence.shape, "f4")
    phase = (ground[second] - ground[first]) * np.float32(-4 * np.pi / 55.4658) + noise
    phase[coherence < 0.15] = np.nan
    return np.stack([phase, coherence])


def simulate(rows: int) -> None:
    """Write a stack of some rows, a block at a time."""
    dates, pairs = pairs_and_dates()
    day = (dates - dates[0]).days.to_numpy()
    make = dask.delayed(block, pure=False)
    parts = []
    for start in range(0, rows, BLOCK_ROWS):
        high = min(BLOCK_ROWS, rows - start)
        shape = (2, PAIRS, high, COLUMNS)
        parts.append(da.from_delayed(make(high, *pairs.T, day, start), shape, "f4"))
    values = da.concatenate(parts, axis=2)
    dims = ("pair", "y", "x")
    data = {"unwrapped_phase": (dims, values[0], {"units": "rad"}), "coherence": (dims, values[1])}
    coords = {n: ("pair", dates.values[pairs[:, k]]) for k, n in enumerate(("reference", "secondary"))}
    coords |= {"y": 38.0 - 0.001 * np.arange(rows), "x": 98.0 + 0.001 * np.arange(COLUMNS)}
    io.write(xr.Dataset(data, coords, {"wavelength_m": 0.0554658, "looks": 40.0}), site(), "01_scale.zarr")


def invert() -> None:
    """Invert zarr to zarr in this process and say what it took."""
    sbas.invert(
        io.read(site(), "01_scale.zarr").isel(y=slice(0, 1), x=slice(0, 64)).load(), **OPTIONS
    )  # compiles
    start, cpu = time.monotonic(), time.process_time()
    io.write(sbas.invert(io.read(site(), "01_scale.zarr"), **OPTIONS), site(), "02_scale.zarr")
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(spent | {"peak_memory_gib": used.ru_maxrss / 2**20}))


def correct() -> None:
    """Every correction of notebook 02, zarr to zarr in this process, and what it took."""
    start, cpu = time.monotonic(), time.process_time()
    place = site()
    stack = network.correct_unwrapping(io.read(place, "01_scale.zarr"))
    stack = io.write_and_reopen(stack, place, "02_scale_unwrapped.zarr")
    network.closure_histogram(stack, np.linspace(-10, 10, 121))
    here = xr.zeros_like(stack["unwrapped_phase"].isel(pair=0, drop=True), bool).compute()
    here[10:20, 100:120] = True
    stack, _ = network.prune(network.reference(stack, here), min_valid=0.02)
    stack = network.correct_delay(stack, mask=network.stable_ground(stack))
    stack = network.correct_fading(stack, network.fading(stack))
    network.atmosphere(stack)
    io.write(stack, place, "02_scale.zarr")
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(spent | {"peak_memory_gib": used.ru_maxrss / 2**20}))


def size(path: Path) -> int:
    """Bytes of a folder on disk."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def check(rows: int) -> None:
    """What the blocks give is what memory gives, to the bit, at the pixels of one column."""
    at = {"x": [COLUMNS // 3], "y": np.unique(np.linspace(0, rows - 1, 40).astype(int))}
    alone = sbas.invert(io.read(site(), "01_scale.zarr").isel(at).load(), **OPTIONS)
    blocks = io.read(site(), "02_scale.zarr").isel(at).load()
    for name in ("displacement", "displacement_std", "rate", "rate_std"):
        np.testing.assert_array_equal(blocks[name].values, alone[name].values, err_msg=name)


def measure(rows: int, step: str = "invert") -> dict:
    """Simulate, invert (or "correct") in a child process, check, remove."""
    raw = 8 * rows * COLUMNS * PAIRS
    needed = 1.25 * raw  # input 0.88 and output 0.31 of it, compressed
    if shutil.disk_usage(io.ROOT).free - needed < KEEP_FREE:
        raise SystemExit(
            f"{rows} rows need {needed / 1e9:.0f} GB of disk beyond the {KEEP_FREE / 1e9:.0f} GB kept free"
        )
    shutil.rmtree(PLACE, ignore_errors=True)
    try:
        simulate(rows)
        child = subprocess.run(
            [sys.executable, __file__, step],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"IN_MEMORY_BYTES": "0"},  # by blocks, whatever the size
        )
        spent = json.loads(child.stdout.splitlines()[-1])
        if step == "invert":
            check(rows)
        written = size(PLACE / "02_scale.zarr")
        disk = size(PLACE / "01_scale.zarr")
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)
    pixels = rows * COLUMNS
    sizes = {"input_gb": raw / 1e9, "input_on_disk_gb": disk / 1e9, "output_on_disk_gb": written / 1e9}
    rates = {
        "cpu_us_per_pixel": 1e6 * spent["cpu_seconds"] / pixels,
        "pixels_per_s": pixels / spent["seconds"],
        "mb_per_s": raw / 1e6 / spent["seconds"],
    }
    what = f"{rows} rows" + (", corrections of 02" if step == "correct" else "")
    return {"what": what, "measured": True, "pixels": pixels} | sizes | spent | rates


def on_paper(table: pd.DataFrame, what: str, pixels: float, at_once: float) -> dict:
    """Extend the lines through the measured sizes; memory is that of ``at_once`` pixels, the graph of a frame."""

    def line(name, at):
        slope, start = np.polyfit(table["pixels"], table[name], 1)
        return max(start, 0) + slope * at

    names = ("seconds", "cpu_seconds", "input_on_disk_gb", "output_on_disk_gb")
    out = {"what": what, "measured": False, "pixels": pixels} | {name: line(name, pixels) for name in names}
    raw = 8 * PAIRS * pixels
    out |= {"input_gb": raw / 1e9, "peak_memory_gib": line("peak_memory_gib", at_once)}
    out |= {"cpu_us_per_pixel": 1e6 * out["cpu_seconds"] / pixels, "pixels_per_s": pixels / out["seconds"]}
    return out | {"mb_per_s": raw / 1e6 / out["seconds"]}


def write(measured: pd.DataFrame) -> None:
    """Write the table of what was measured, and what follows on paper."""
    frame = FRAME_ROWS * COLUMNS
    paper = []
    for step in ("", ", corrections of 02"):
        lines = measured[measured["what"].str.endswith("rows" + step)]
        paper.append(on_paper(lines, f"a frame ({FRAME_ROWS} rows){step}", frame, frame))
        paper.append(on_paper(lines, f"a million km2 at 100 m, two directions, by frames{step}", 2e8, frame))
    table = pd.concat([measured, pd.DataFrame(paper)], ignore_index=True)
    table["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(TABLE, index=False, float_format="%.4g", lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    if sys.argv[1:] in (["invert"], ["correct"]):
        globals()[sys.argv[1]]()
    else:
        sizes = [int(n) for n in sys.argv[1:]] or [24, 48, 96]
        steps = [(n, "invert") for n in sizes] + [(n, "correct") for n in (48, 192)]
        write(pd.DataFrame([measure(*step) for step in steps]))
