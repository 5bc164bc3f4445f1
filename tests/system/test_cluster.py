"""The heavy steps on a dask cluster: a real scheduler and two worker processes on loopback give what one machine gives.

The slow test runs the notebooks: `make test MARK=slow ARGS=tests/system/test_cluster.py`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_interruption import copy_of_checkout, make

import twin
from helpers import io, sbas
from helpers.io.site import Site, SiteConfig


class Cluster:
    """A scheduler and workers as processes of their own."""

    def __init__(self, folder: Path, workers: int = 2, environment=None):
        self.folder, self.environment = folder, os.environ | (environment or {})
        for name in ("DASK_SCHEDULER_ADDRESS", "DASK_SCHEDULER"):
            self.environment.pop(name, None)
        self.processes = [self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
        self.address = self._said("scheduler", r"(tcp://127\.0\.0\.1:\d+)")
        for k in range(workers):
            options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
            self.processes.append(
                self._start("worker", self.address, "--name", f"w{k}", *options, log=f"w{k}")
            )
        for k in range(workers):
            self._said(f"w{k}", r"(Registered to)")

    def _start(self, kind, *arguments, log=None):
        with (self.folder / f"{log or kind}.log").open("w") as words:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
            return subprocess.Popen(
                command, stdout=words, stderr=words, env=self.environment, cwd=self.folder
            )

    def _said(self, log, pattern):
        for _ in range(1200):
            if found := re.search(pattern, (self.folder / f"{log}.log").read_text()):
                return found.group(1)
            time.sleep(0.1)
        raise TimeoutError((self.folder / f"{log}.log").read_text())

    def kill_worker(self, k):
        """End a worker as a machine that dies does."""
        self.processes[1 + k].send_signal(signal.SIGKILL)

    def tasks_done(self) -> dict:
        """Number of tasks the workers have finished, by name."""
        from distributed import Client

        def count(dask_scheduler):
            every = dask_scheduler.task_prefixes.items()
            return {n: p.state_counts["memory"] + p.state_counts["forgotten"] for n, p in every}

        with Client(self.address) as client:
            return client.run_on_scheduler(count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    """Give two workers and their scheduler."""
    place = tmp_path / "cluster"
    place.mkdir()
    with Cluster(place) as made:
        yield made


def place(folder):
    """Give a site whose derived files lie in a folder."""
    site = Site("s", SiteConfig(title="t", kind="real"))
    site.derived, site.executed, site.read_from = folder, folder, [folder]
    return site


def stack_of(pixels_y, pixels_x):
    """A stack of twin columns, 0.3 of the winters lost, laid out as a map."""
    columns = twin.columns(256, seed=3)
    stack = columns["s1_desc"]
    rng = np.random.default_rng(5)
    which = rng.integers(0, 256, pixels_y * pixels_x)
    maps = {n: stack[n].isel(y=which, x=0) for n in ("unwrapped_phase", "coherence")}
    shape = (stack.sizes["pair"], pixels_y, pixels_x)
    data = {n: (("pair", "y", "x"), v.values.reshape(shape)) for n, v in maps.items()}
    coords = {n: stack[n] for n in ("reference", "secondary", "perpendicular_baseline") if n in stack.coords}
    return xr.Dataset(
        data, coords | {"y": np.arange(pixels_y, 0, -1.0), "x": np.arange(float(pixels_x))}, stack.attrs
    )


@pytest.mark.slow
def test_a_worker_that_dies_changes_nothing(tmp_path, cluster, monkeypatch):
    """Zarr to zarr on two workers, one of them killed when the first blocks are written: the numbers of one machine."""
    monkeypatch.setattr("helpers.io.store.BLOCK_BYTES", 1_000_000)
    monkeypatch.setattr("helpers.sbas.BLOCK_BYTES", 1_000_000)
    site, stack = place(tmp_path), stack_of(200, 300)
    options = {"deviation_days": 30.0, "atmosphere_std_mm": 3.0}
    alone = sbas.invert(stack, **options)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)
    site.start("02_sbas")
    stack = io.write_and_reopen(stack, site, "02_a.zarr")
    result = sbas.invert(stack, **options)
    blocks = result["rate"].data.npartitions
    assert blocks >= 8, f"{blocks} blocks are too few to be killed among"

    def kill():
        part = tmp_path / "02_a_series.zarr.part" / "displacement"
        while len(list(part.glob("[0-9]*"))) < 2:
            time.sleep(0.005)
        cluster.kill_worker(0)
        killed.append(len(list(part.glob("[0-9]*"))))

    killed = []
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    series = io.write_and_reopen(result, site, "02_a_series.zarr").load()
    killer.join(10)
    assert killed and killed[0] < blocks, f"the worker died after all {blocks} blocks were written"
    assert len(site.client.scheduler_info()["workers"]) == 1
    site.finish()
    for name in alone.data_vars:
        np.testing.assert_array_equal(series[name].values, alone[name].values, err_msg=name)


@pytest.mark.slow
def test_the_notebooks_use_the_cluster(tmp_path):
    """`make 03_constrained_sbas SCHEDULER=...`: the workers invert, and every number and picture is the same."""
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    variables = copy_of_checkout(alone)
    status, words = make(alone, "03_constrained_sbas", "SIZE=quick", seconds=3600, **variables)
    assert status == 0, words[-3000:]
    shutil.copytree(alone, shared)  # with 01, whose stamp stays good
    for path in sorted((shared / "build" / "quick").rglob("0[23]_*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    variables["PYTHONPATH"] = str(shared / "src")
    with Cluster(tmp_path, environment=variables) as made:
        address = f"SCHEDULER={made.address}"
        status, words = make(shared, "03_constrained_sbas", "SIZE=quick", address, seconds=3600, **variables)
        assert status == 0 and "01_ingest" not in words, words[-3000:]
        done = made.tasks_done()
    assert done.get("block", 0) >= 20, f"the inversions did not run on the workers: {done}"
    files = [
        {
            p.relative_to(folder): p.read_bytes()
            for part in ("results", "figures", "derived")
            for p in sorted((folder / "build" / "quick" / part).rglob("*"))
            if p.is_file()
        }
        for folder in (alone, shared)
    ]
    assert files[0].keys() == files[1].keys()
    assert not [str(p) for p in files[0] if files[0][p] != files[1][p]]
