"""Speed of the recession analysis: `python tests/bench_recession.py` rewrites data/bench/recession.csv.

Processor seconds of one thread, after compilation, best of three. Peers are timed where they can be imported, in the
environment the script runs in; none of them fits a and b, each gives one recession constant.
"""

import importlib
import os
import platform
import time

import numpy as np
import pandas as pd
import xarray as xr

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


def peers(flow):
    """Callables of packages that give a recession constant of one gauge, where installed."""
    found = {}
    try:
        baseflow = importlib.import_module("baseflow")

        def constant():
            strict = baseflow.comparision.strict_baseflow(flow)
            return baseflow.recession_coefficient(flow, strict)

        found["peer baseflow 0.1: one linear constant"] = constant
    except ImportError:
        pass
    try:
        signatures = importlib.import_module("hydrosignatures")
        found["peer hydrosignatures 0.19: one master curve"] = lambda: signatures.baseflow_recession(flow)
    except ImportError:
        pass
    return found


def main():
    """Time everything and write the table."""
    days = pd.date_range("1990-01-01", periods=365 * YEARS, name="time")
    flows = np.stack([record(seed) for seed in range(GAUGES)])
    many = xr.DataArray(flows, {"station": np.arange(GAUGES), "time": days}, ("station", "time"))
    one = pd.Series(flows[0], days)
    recession.per_event_fits(many.isel(station=slice(2)))
    recession.multiverse(one, 1.0, PERIODS)
    events = len(recession.per_event_fits(many))
    rows = [
        (
            f"{GAUGES} gauges x {YEARS} years: events, derivative, lines ({events} events)",
            best(lambda: recession.per_event_fits(many), 1),
        ),
        (
            "480 specifications of one gauge with their contrasts",
            best(lambda: recession.multiverse(one, 1.0, PERIODS)),
        ),
        (
            "one gauge, table by table",
            best(lambda: recession.fit(recession.derivative(recession.extract_events(one)))),
        ),
        ("one regime test", best(lambda: recession.regime_test(yearly(), PERIODS))),
        *((name, best(call)) for name, call in peers(flows[0]).items()),
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
