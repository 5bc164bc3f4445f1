"""Speed of the recession analysis: `python bench/bench_recession.py` rewrites data/bench/recession.csv.

Processor seconds of one thread, after compilation, best of three.  Packages of PyPI that do the nearest thing are timed
in the same run, on the same record, in an environment of their own (build/bench-venv-recession; `--no-peers` leaves
them out).  None of them fits a and b: each gives one recession constant.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import io, recession

YEARS, GAUGES = 30, 1000
PERIODS = pd.DataFrame(
    {"label": ["before", "after"], "start": [None, "2010-01-01"], "end": ["2009-12-31", None]}
)


def record(seed):
    """Thirty years of daily flow, mm/day to two decimals: rain on an exact power-law store, 1 % noise."""
    rng = np.random.default_rng(seed)
    parts, x = [], 1.0
    while sum(map(len, parts)) < 365 * YEARS:
        x += rng.exponential(3.0)
        rate = 0.025 * np.exp(0.35 * rng.normal())
        parts.append((x**-0.5 + rate * np.arange(int(rng.integers(8, 40)))) ** -2)
        x = parts[-1][-1]
    q = np.concatenate(parts)[: 365 * YEARS] * np.exp(0.01 * rng.normal(size=365 * YEARS))
    return np.round(q, 2)


def best(call, repeats=3):
    """Least processor time of some calls."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)
    return min(spent)


ENVIRONMENT = io.ROOT / "build" / "bench-venv-recession"
#: requirement -> what it gives, and the call on the array `flow`
PEERS = {
    "baseflow==0.1.0": (
        "one linear constant",
        "import baseflow; strict = baseflow.comparision.strict_baseflow; "
        "call = lambda: baseflow.recession_coefficient(flow, strict(flow))",
    ),
    "hydrosignatures==0.19.3": (
        "one master curve",
        "import hydrosignatures; call = lambda: hydrosignatures.baseflow_recession(flow)",
    ),
}
_TIMED = """
import json, sys, time
import numpy as np
flow = np.load(sys.argv[1])
exec(sys.argv[2])
spent = []
for _ in range(4):  # the first compiles
    start = time.process_time()
    call()
    spent.append(time.process_time() - start)
print(json.dumps(min(spent[1:])))
"""


def peers(flow):
    """Rows (work, seconds) of the packages that could be installed and run."""
    python = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flow.npy"
        np.save(path, flow)
        for requirement, (gives, call) in PEERS.items():
            subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=False)
            done = subprocess.run(
                [python, "-c", _TIMED, path, call], capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.stderr.write(f"{requirement} left out: {done.stderr.strip().splitlines()[-1]}\n")
            else:
                rows.append(
                    (f"peer {requirement.replace('==', ' ')}, one gauge: {gives}", json.loads(done.stdout))
                )
    return rows


def lines_of(flow):
    """Events, derivative and per-event lines of one gauge, table by table."""
    return recession.fit(recession.derivative(recession.extract_events(flow)))


def main():
    """Time everything and write the table."""
    days = pd.date_range("1990-01-01", periods=365 * YEARS, name="time")
    flows = np.stack([record(seed) for seed in range(GAUGES)])
    one = pd.Series(flows[0], days)
    lines_of(one)
    recession.multiverse(one, 1.0, PERIODS)
    events = sum(len(lines_of(pd.Series(flow, days))) for flow in flows)
    all_gauges = best(lambda: [lines_of(pd.Series(flow, days)) for flow in flows], 1)
    rows = [
        (f"{GAUGES} gauges x {YEARS} years: events, derivative, lines ({events} events)", all_gauges),
        ("the same, by gauge", all_gauges / GAUGES),
        (
            "480 specifications of one gauge with their contrasts",
            best(lambda: recession.multiverse(one, 1.0, PERIODS)),
        ),
        (
            "one gauge, table by table",
            best(lambda: lines_of(one)),
        ),
        ("one regime test", best(lambda: recession.regime_test(yearly(), PERIODS))),
        *([] if "--no-peers" in sys.argv else peers(flows[0])),
    ]
    table = pd.DataFrame(rows, columns=["work", "cpu_seconds"])
    table["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    path = io.ROOT / "data" / "bench" / "recession.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.3g", lineterminator="\n")
    return table


def yearly():
    """Thirty years of ten events."""
    rng = np.random.default_rng(0)
    start = pd.to_datetime({"year": np.repeat(np.arange(1990, 2020), 10), "month": 8, "day": 1})
    return pd.DataFrame({"start": start, "ln_k_ref": rng.normal(size=300)})


if __name__ == "__main__":
    main()
