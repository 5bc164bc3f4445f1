"""Speed and memory of the inversion beside its peers; `python bench/bench_sbas.py` rewrites data/bench/sbas.csv.

Ours runs on three synthetic stacks, from memory and from zarr to zarr, against the least a pseudo-inverse could do:
read the input once and multiply it by a ready inverse. Peers run on a fixed crop of 2000 pixels, start-up taken off
(2000 pixels less a few). Rounds are interleaved and the best one counts. Ratios are of processor seconds over all
threads, which other users of the machine disturb least; elapsed seconds stand beside them.

Peers come from PyPI into an environment of their own, build/bench-venv; `--no-peers` leaves them out, and `S`, `M` or
`L` takes these stacks only. The largest needs 10 GiB of memory and 8 GB of disk, and is left out where it has not got
them. A quarter of an hour on a machine that is otherwise idle.

The first row leaves statistics of the residuals, components and standard deviations of the series out, which the
bound has not got either; the second has all of them.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pandas as pd
import xarray as xr

from helpers import io, sbas
from readers import mintpy

TABLE = io.ROOT / "data" / "bench" / "sbas.csv"
ENVIRONMENT = io.ROOT / "build" / "bench-venv"
PEERS = ["mintpy==1.6.4", "insar-rs==0.3.0", "dolphin==0.42.9"]
CAP_SECONDS = 600
THREADS = 2
WAVELENGTH_M, LOOKS, DELAY_MM = 0.0555, 20.0, 5.0
STACKS = {"S": (200, 60), "M": (500, 120), "L": (1000, 120)}  # pixels along a side, dates
CROP = {"S": (slice(100, 110), slice(0, 200)), "M": (slice(250, 254), slice(0, 500))}
FEW = {"S": (slice(100, 101), slice(0, 20)), "M": (slice(250, 251), slice(0, 20))}
PRIOR = (-5.0, 3.0)

# what is timed: gaps in the stack or not, options of sbas.invert
RATE = "weighted, gaps, linear + annual, rate prior: displacement, rate and its std"
ALL = "the same with every std and statistic"
FILES = "the same, zarr to zarr"
BOUND, COPY = "read once and multiply", "read and write alone"
PLAIN = "classical, unweighted, no gaps: displacement, rate and its std"
WORK = {
    RATE: (True, {"rate_prior": PRIOR, "series_std": False, "statistics": False}),
    ALL: (True, {"rate_prior": PRIOR}),
    PLAIN: (False, {"model": None, "weights": None, "series_std": False, "statistics": False}),
}


# -- stacks ------------------------------------------------------------------------------------------------------


def network(dates, depth):
    """Index pairs of every date with the next ones; half a depth is every other date."""
    pairs = [(i, i + lag) for lag in range(1, int(depth) + 1) for i in range(dates - lag)]
    if depth % 1:
        pairs += [(i, i + int(depth) + 1) for i in range(0, dates - int(depth) - 1, 2)]
    return np.array(sorted(pairs)).T


def make_stack(side, dates, depth=None, seed=1):
    """Stack without gaps (pair, y, x): rate, annual wave, delay of 5 mm a date, noise of its coherence."""
    rng = np.random.default_rng(seed)
    first, second = network(dates, depth or (3.5 if dates == 60 else 4))
    t = np.arange(dates) * 12 / 365.25
    rate, size = rng.normal(-5, 5, (2, side, side)).astype("f4")
    ground = rate * t[:, None, None] + size * np.sin(2 * np.pi * t)[:, None, None]
    ground = (ground + DELAY_MM * rng.standard_normal(ground.shape)).astype("f4")
    per_mm = -4e-3 * np.pi / WAVELENGTH_M
    phase = np.empty((len(first), side, side), "f4")
    coherence = np.empty_like(phase)
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        g = (0.75 * np.exp(-(j - i) / 8) + 0.15) * rng.uniform(0.7, 1.1, (side, side))
        noise = np.sqrt(sbas.phase_variance(g, LOOKS)) * rng.standard_normal((side, side))
        phase[k], coherence[k] = per_mm * (ground[j] - ground[i]) + noise, g
    return dressed(phase, coherence, dates, side, depth)


def dressed(phase, coherence, dates, side, depth=None):
    """Stack of the two arrays (pair, y, x) in the data model."""
    days = pd.date_range("2017-01-05", periods=dates, freq="12D")
    first, second = network(dates, depth or (3.5 if dates == 60 else 4))
    return xr.Dataset(
        {
            "unwrapped_phase": (("pair", "y", "x"), phase),
            "coherence": (("pair", "y", "x"), coherence),
            "incidence_angle": (("y", "x"), np.full((side, side), 38.0, "f4")),
        },
        coords={
            "reference": ("pair", days[first]),
            "secondary": ("pair", days[second]),
            "perpendicular_baseline": ("pair", np.zeros(len(first))),
            "y": 38.0 - 1e-3 * np.arange(side),
            "x": 99.0 + 1e-3 * np.arange(side),
        },
        attrs={"wavelength_m": WAVELENGTH_M, "looks": LOOKS, "sensor": "s1_desc"},
    ).rio.write_crs("EPSG:4326")


def with_gaps(stack, seed=2):
    """About a fifth of the values lost, more in winter; 15 % of the pixels lose four winter dates of every year."""
    rng = np.random.default_rng(seed)
    out = stack.copy()
    phase = stack["unwrapped_phase"].values.copy()
    days, first, second = sbas.network_of(stack)
    winter = np.isin(days.month, (12, 1, 2, 3))
    gone = np.isin(np.arange(len(days)), [k for y in np.unique(days.year) for k in lost_dates(days, y)])
    share = rng.uniform(0, 0.32, phase.shape[1:])
    cut = rng.random(phase.shape[1:]) < 0.15
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        lost = rng.random(share.shape) < share * (1.6 if winter[i] or winter[j] else 0.9)
        lost |= cut & (gone[i] or gone[j])
        phase[k][lost] = np.nan
    out["unwrapped_phase"] = stack["unwrapped_phase"].copy(data=phase)
    return out


def lost_dates(days, year):
    """Four dates from the first of January on."""
    return np.flatnonzero(days.year == year)[:4]


def tiled(stack, times):
    """The stack repeated along y and x."""
    parts = {
        name: (v.dims, np.tile(v.values, (1,) * (v.ndim - 2) + (times, times)))
        for name, v in stack.data_vars.items()
    }
    coords = {c: stack[c] for c in ("reference", "secondary", "perpendicular_baseline", "spatial_ref")}
    coords |= {c: stack[c][0].item() + np.diff(stack[c])[0] * np.arange(times * stack[c].size) for c in "yx"}
    return xr.Dataset(parts, coords, stack.attrs)


def save(stack, path):
    """To zarr as the notebooks keep stacks: blocks of rows of about 32 MB that hold every pair."""
    rows = max(1, 32_000_000 // (4 * stack.sizes["pair"] * stack.sizes["x"]))
    stack.chunk({"pair": -1, "y": rows, "x": -1}).to_zarr(path, mode="w", zarr_format=2, consolidated=True)


# -- clocks ------------------------------------------------------------------------------------------------------


def interleaved(calls, rounds, at_least=0.3):
    """Best (processor, elapsed) seconds of each call over rounds that run them in turn, short ones many times."""
    best = dict.fromkeys(calls, (np.inf, np.inf))
    for _ in range(rounds):
        for name, call in calls.items():
            start, times = (time.process_time(), time.perf_counter()), 0
            while times == 0 or time.perf_counter() - start[1] < at_least:
                call()
                times += 1
            spent = (time.process_time() - start[0]) / times, (time.perf_counter() - start[1]) / times
            best[name] = tuple(map(min, best[name], spent))
    return best


def bound(stack, weighted):
    """Read the input once and apply a ready pseudo-inverse in float32, in two threads of one BLAS thread each."""
    days, first, second = sbas.network_of(stack)
    incidence = np.zeros((len(first), len(days)), "f4")
    incidence[np.arange(len(first)), first], incidence[np.arange(len(first)), second] = -1, 1
    inverse = np.linalg.pinv(incidence[:, 1:])
    phase, coherence = (stack[n].values.reshape(len(first), -1) for n in ("unwrapped_phase", "coherence"))
    out = np.empty((len(days) - 1, phase.shape[1]), "f4")
    step = 4096

    def part(start):
        buffer = np.empty((phase.shape[0], step), "f4")
        for column in range(start, min(start + 16 * step, phase.shape[1]), step):
            end = min(column + step, phase.shape[1])
            if weighted:
                np.copyto(buffer[:, : end - column], coherence[:, column:end])
            np.matmul(inverse, phase[:, column:end], out=out[:, column:end])

    def call():
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(part, range(0, phase.shape[1], 16 * step)))

    return call


def least_squares(stack):
    """Weighted least squares by numpy, pixel by pixel (minimum norm where a network is broken)."""
    design, y, w = dense(stack)

    def call():
        for pixel in range(y.shape[1]):
            seen = w[:, pixel] > 0
            root = np.sqrt(w[seen, pixel])
            np.linalg.lstsq(design[seen] * root[:, None], y[seen, pixel] * root, rcond=None)

    return call


def batched(stack, lot=250):
    """Weighted normal equations of many pixels at once by numpy, with a trace of damping for broken networks."""
    design, y, w = dense(stack)
    damping = 1e-6 * np.eye(design.shape[1])

    def call():
        for start in range(0, y.shape[1], lot):
            here = slice(start, start + lot)
            normal = np.matmul(design.T * w[:, here].T[:, None], design) + damping
            np.linalg.solve(normal, ((w * y)[:, here].T @ design)[..., None])

    return call


def dense(stack):
    """Design matrix, phases and weights (0 where missing) of every pixel, in float64."""
    days, first, second = sbas.network_of(stack)
    design = np.zeros((len(first), len(days)))
    design[np.arange(len(first)), first], design[np.arange(len(first)), second] = -1, 1
    y = stack["unwrapped_phase"].values.reshape(len(first), -1).astype(float)
    coherence = stack["coherence"].values.reshape(len(first), -1)
    w = np.where(np.isfinite(y), 1 / sbas.phase_variance(coherence, LOOKS), 0.0)
    return design[:, 1:], np.nan_to_num(y), w


# -- ours, each stack in a process of its own --------------------------------------------------------------------


def peak_gib():
    """Peak resident memory of this process; what the system counts for a child includes its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compile_first():
    """Compile what is timed, so that compilation is not."""
    small = make_stack(8, 60)
    for gaps, options in WORK.values():
        sbas.invert(with_gaps(small) if gaps else small, **options)


def keep(name, folder):
    """Make a stack once, with its gaps, for the processes that time it."""
    stack = make_stack(*STACKS["M" if name == "L" else name])
    for label, part in (("full", stack), ("gaps", with_gaps(stack))):
        np.save(folder / f"{label}.npy", part["unwrapped_phase"].values)
    np.save(folder / "coherence.npy", stack["coherence"].values)


def kept(name, folder, gaps):
    """The stack that `keep` made; L is M four times."""
    side, dates = STACKS["M" if name == "L" else name]
    arrays = [np.load(Path(folder) / f"{part}.npy") for part in ("gaps" if gaps else "full", "coherence")]
    stack = dressed(*arrays, dates, side)
    return tiled(stack, 2) if name == "L" else stack


def from_memory(name, folder, gaps, rounds):
    """Seconds of every work on one stack held in memory, of the bound, and the peak memory with the input."""
    compile_first()
    stack = kept(name, folder, gaps)
    works = {work: options for work, (holes, options) in WORK.items() if holes == gaps}
    calls = {work: (lambda o=options: sbas.invert(stack, **o)) for work, options in works.items()}
    return interleaved(calls | {BOUND: bound(stack, gaps)}, rounds) | {"peak": peak_gib()}


def from_files(folder, rounds):
    """Seconds of one stack from zarr to zarr and of reading it and writing as much; the peak memory of the former."""
    compile_first()
    source, target = Path(folder) / "stack.zarr", Path(folder) / "out.zarr"

    def ours():
        shutil.rmtree(target, ignore_errors=True)
        write(sbas.invert(xr.open_zarr(source), **WORK[ALL][1]), target)

    ours()
    peak = peak_gib()
    result = xr.open_zarr(target).load()
    chunks = xr.open_zarr(target)["rate"].chunksizes

    def copy():
        stack = xr.open_zarr(source)
        for part in ("unwrapped_phase", "coherence"):
            stack[part].data.map_blocks(lambda b: b[:1, :1, :1], chunks=(1, 1, 1)).compute()
        shutil.rmtree(Path(folder) / "copy.zarr", ignore_errors=True)
        write(result.chunk(chunks), Path(folder) / "copy.zarr")

    return interleaved({FILES: ours, COPY: copy}, rounds) | {"peak": peak}


def write(data, path):
    """To zarr as the notebooks do."""
    for variable in data.variables.values():
        variable.encoding.clear()
    data.to_zarr(path, mode="w", zarr_format=2, consolidated=True)


def growth(rounds):
    """Seconds by the number of dates: 200 x 200 pixels, depth 4."""
    compile_first()
    stacks = {str(dates): with_gaps(make_stack(200, dates, 4)) for dates in (60, 120, 240)}
    return interleaved({n: (lambda s=s: sbas.invert(s, **WORK[ALL][1])) for n, s in stacks.items()}, rounds)


def in_child(*words):
    """Call a function of this script in a fresh process, with two threads and one BLAS thread in each."""
    environment = os.environ | {"NUMBA_NUM_THREADS": str(THREADS), "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"DASK_NUM_WORKERS": str(THREADS)}
    command = [sys.executable, __file__, "--child", json.dumps(words)]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


# -- peers -------------------------------------------------------------------------------------------------------

# Each script gets a folder with crop.npz (or MintPy's files) and does one inversion. dolphin imports GDAL for its
# readers, of which PyPI has no binary; its solver is of JAX alone, so an empty module stands in for GDAL.
SCRIPTS = {
    "MintPy 1.6.4, -w var": """
from mintpy.cli.ifgram_inversion import main
main(["ifgramStack.h5", "-w", "var"])
""",
    "MintPy 1.6.4, -w no": """
from mintpy.cli.ifgram_inversion import main
main(["ifgramStack.h5", "-w", "no"])
""",
    "insar-rs 0.3.0, unweighted": """
import numpy as np, insar_rs
d = np.load("crop.npz")
insar_rs.invert_sbas(d["phase"], d["first"], d["second"], d["days"], float(d["wavelength"]))
""",
    "dolphin 0.42.9, L2 with weights": """
import sys
from unittest.mock import MagicMock
sys.modules |= {"osgeo" + part: MagicMock() for part in ("", ".gdal", ".gdal_array", ".gdalconst", ".osr", "_utils")}
import numpy as np, jax.numpy as jnp
from dolphin.timeseries import get_incidence_matrix, invert_stack
d = np.load("crop.npz")
A = get_incidence_matrix(list(zip(d["first"].tolist(), d["second"].tolist())))
invert_stack(jnp.asarray(A), jnp.asarray(np.nan_to_num(d["phase"])), jnp.asarray(d["weight"]))[0].block_until_ready()
""",
}


def peers_python():
    """Python of the peers' environment, made from PyPI if it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / ".installed").exists():
        venv.create(ENVIRONMENT, with_pip=True)
        for peer in PEERS:
            subprocess.run([python, "-m", "pip", "install", "--quiet", peer], check=False)
        (ENVIRONMENT / ".installed").touch()
    return python


def put_crop(stack, folder):
    """What the peers read: MintPy's files, and the arrays."""
    folder.mkdir()
    mintpy.write_mintpy_stack(stack, folder / "ifgramStack.h5", reference_pixel=(0, 0))
    days, first, second = sbas.network_of(stack)
    phase = stack["unwrapped_phase"].values
    weight = np.where(np.isfinite(phase), 1 / sbas.phase_variance(stack["coherence"].values, LOOKS), 0)
    np.savez(
        folder / "crop.npz",
        phase=phase,
        weight=weight.astype("f4"),
        first=first,
        second=second,
        days=(days - days[0]).days.to_numpy(),
        wavelength=WAVELENGTH_M,
    )


def run(python, script, folder):
    """(processor, elapsed) seconds of a script in a folder; a RuntimeError with its last word if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    try:
        done = subprocess.run([python, "-c", script], timeout=CAP_SECONDS, **options)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"more than {CAP_SECONDS} s") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or "failed").splitlines()[-1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - start


def time_peers(name, kept_in, rounds):
    """(processor, elapsed) seconds per pixel of each peer on one stack's crop, or why there are none."""
    python, found = peers_python(), {}
    for gaps in (True, False):
        stack = kept(name, kept_in, gaps)
        crop = stack.isel(zip_(CROP[name]))
        pixels = crop.sizes["y"] * crop.sizes["x"]
        if gaps:
            calls = {
                "numpy lstsq by pixel, weighted": least_squares(crop),
                "numpy batched, weighted": batched(crop),
            }
            for peer, spent in interleaved(calls, rounds).items():
                found[peer, gaps] = [s / pixels for s in spent]
        with tempfile.TemporaryDirectory() as folder:
            many, few = Path(folder) / "many", Path(folder) / "few"
            put_crop(crop, many)
            put_crop(stack.isel(zip_(FEW[name])), few)
            for peer, script in SCRIPTS.items():
                if gaps == peer.endswith("-w no"):
                    continue
                found[peer, gaps] = marginal(python, script, many, few, rounds, pixels - 20)
    return [[peer, gaps, value] for (peer, gaps), value in found.items()]


def marginal(python, script, many, few, rounds, pixels):
    """Seconds per pixel, start-up taken off; a text where the peer does not run."""
    try:
        spent = np.array([[run(python, script, folder) for folder in (many, few)] for _ in range(rounds)])
    except RuntimeError as error:
        return f"does not run: {error}"
    return ((spent.min(axis=0)[0] - spent.min(axis=0)[1]) / pixels).tolist()


def zip_(place):
    """Rows and columns of a crop, by dimension."""
    return dict(zip(("y", "x"), place, strict=True))


# -- the table ---------------------------------------------------------------------------------------------------


def rows_of(name, folder, with_peers):
    """All rows of one stack."""
    pixels, rounds = STACKS[name][0] ** 2, {"S": 5, "M": 3, "L": 3}[name]
    keep(name, folder)
    own, rows = {}, []
    for gaps in (True, False) if name != "L" else (True,):
        found = in_child("from_memory", name, str(folder), gaps, rounds)
        for work in (w for w in found if w not in (BOUND, "peak")):
            own[work] = found[work][0] / pixels
            rows.append(row(work, name, pixels, found[work], found["peak"], found[BOUND][0]))
    peers = in_child("time_peers", name, str(folder), 2) if with_peers and name in CROP else []
    for peer, gaps, spent in peers:
        if isinstance(spent, str):
            rows.append({"work": peer, "stack": name, "note": spent})
            continue
        ratios = {"times_ours": spent[0] / own[ALL if gaps else PLAIN]}
        if gaps:
            ratios["times_our_rate"] = spent[0] / own[RATE]
        note = (
            {"note": "GDAL, which its solver does not use, is an empty module"}
            if peer.startswith("dolphin")
            else {}
        )
        rows.append(row(peer, name, 2000, [2000 * s for s in spent]) | ratios | note)
    save(kept(name, folder, True), folder / "stack.zarr")
    found = in_child("from_files", str(folder), 2)
    rows.append(row(FILES, name, pixels, found[FILES], found["peak"], found[COPY][0]))
    return rows


def row(work, stack, pixels, spent, peak=np.nan, least=np.nan):
    """One row of the table."""
    return {
        "work": work,
        "stack": stack,
        "pixels": pixels,
        "cpu_seconds": spent[0],
        "seconds": spent[1],
        "cpu_us_per_pixel": 1e6 * spent[0] / pixels,
        "pixels_per_second": pixels / spent[1],
        "times_bound": spent[0] / least,
        "peak_gib": peak,
    }


def main(words):
    """Time everything; the table is written after each stack."""
    names, rows = [n for n in STACKS if n in words] or list(STACKS), []
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    for name in list(names):
        if name == "L" and not room():
            rows.append({"work": ALL, "stack": name, "note": "needs 10 GiB of free memory and 8 GB of disk"})
            names.remove(name)
            continue
        with tempfile.TemporaryDirectory(dir=ENVIRONMENT.parent) as folder:
            rows += rows_of(name, Path(folder), "--no-peers" not in words)
        put_table(rows)
    spent = {(r["work"], r["stack"]): r.get("cpu_seconds") for r in rows}
    if {"M", "L"} <= set(names):
        grown = {work: spent[work, "L"] / spent[work, "M"] for work in (RATE, ALL, FILES)}
        rows += [growth_row(work, "M to L, by pixels", ratio) for work, ratio in grown.items()]
    found = in_child("growth", 3)
    rows.append(growth_row(ALL, "60 to 240 dates", found["240"][0] / found["60"][0]))
    put_table(rows)


def room():
    """Whether memory and disk hold the largest stack."""
    info = Path("/proc/meminfo")
    lines = dict(line.split(":") for line in info.read_text().splitlines()) if info.exists() else {}
    memory = int(lines.get("MemAvailable", "20000000 kB").split()[0]) / 2**20
    return memory > 10 and shutil.disk_usage(ENVIRONMENT.parent).free > 8e9


def put_table(rows):
    """Write the table, with the machine named."""
    table = pd.DataFrame(rows)
    table["machine"] = machine()
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(TABLE, index=False, float_format="%.3g", lineterminator="\n")


def growth_row(work, step, ratio):
    """Exponent of the processor time where the size grows fourfold."""
    return {"work": work, "stack": step, "growth_exponent": np.log(ratio) / np.log(4)}


def machine():
    """Processor, cores, versions, and how busy others kept it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}"
    return f"{platform.machine()} {name}, {os.cpu_count()} cores, {versions}, load {os.getloadavg()[2]:.0f}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        part, *arguments = json.loads(sys.argv[2])
        sys.stdout.write(json.dumps(globals()[part](*arguments)) + "\n")
    else:
        main(sys.argv[1:])
