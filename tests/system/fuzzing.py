"""Hostile inputs for every reader, each read in a process of its own that has a time limit and tells what it did.

`Bench` keeps one folder per format with sound files, spoils one of them, has the worker read the folder, judges what
came of it and puts the file back. The judgement:

refused   ValueError or FileNotFoundError, whose message names the file or the folder
late      zarr and netCDF of this project are opened as they are and read block by block: a damaged block is met when
          its values are wanted, with the library's own error
accepted  a result that keeps the data model; a file that was cut short may be accepted only if nothing is lost by it
crash     the process died or did not end with h5py, rasterio or another library on top of the stack: counted apart,
          and listed
failure   anything else: another exception, a message without the file, a broken result, no answer in time, a crash in
          this project's own code, or an act no reader has: writing, starting a process, a connection, unpickling
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import spoil

SECONDS = 60  # a sound input takes some hundredths
MEMORY_BYTES = 6 * 2**30  # of address space; a header that claims terabytes must not bring the machine down
LAZY = ("own zarr", "own netcdf", "derived zarr")
STATED = (ValueError, FileNotFoundError)
LIBRARIES = ("h5py", "rasterio", "zarr", "numcodecs", "h5netcdf", "netCDF4", "pyproj", "pandas", "yaml")
# what no reader does; `open` is looked at for its mode
ACTS = set(
    "os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty subprocess.Popen pty.spawn socket.connect "
    "socket.bind pickle.find_class os.remove os.rename os.rmdir os.mkdir os.link os.symlink os.chmod os.chown "
    "os.truncate shutil.rmtree shutil.move shutil.copyfile".split()
)


# --- the worker ----------------------------------------------------------------------------------------------------


def serve(connection, report: str) -> None:
    """Read what is asked for until the connection ends; ``report`` receives the stack of a crash."""
    acts, armed = [], [False]

    def hook(event, arguments):
        if not armed[0]:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            writing = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            writing = writing or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if writing and os.fsdecode(arguments[0]) != os.devnull:
                acts.append(f"open for writing: {arguments[0]}")
        elif event == "pickle.find_class" and str(arguments[0]).split(".")[0] in (
            "dask",
            "numpy",
            "helpers",
            "readers",
            "inversion",
        ):
            pass  # dask names the parts of its graphs so
        elif event in ACTS:
            acts.append(f"{event}{arguments!r:.200}")

    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    faulthandler.enable(Path(report).open("w"))
    sys.addaudithook(hook)
    while True:
        try:
            kind, folder, rehearsal = connection.recv()
        except EOFError:
            return
        acts.clear()
        armed[0] = not rehearsal  # a first, sound input lets libraries load what they load late
        try:
            answer = ("accepted", *(READERS | BAD_READERS)[kind](Path(folder)))
        except Late as error:
            answer = ("late", str(error), "")
        except STATED as error:
            answer = ("refused", type(error).__name__, str(error))
        except BaseException as error:
            answer = ("raised", repr(error), "".join(traceback.format_exception(error)[-6:]))
        armed[0] = False
        connection.send((answer, list(acts)))


class Late(Exception):
    """A library's error while values are read that a reader left on the disk."""


def _loaded(data):
    try:
        return data.load()
    except Exception as error:
        raise Late(repr(error)) from error


def _stack(path, **options):
    from helpers import io

    return _summary(io.read_stack(path, **options))


def _loose(folder):
    from helpers import io

    names = sorted(folder.iterdir())
    phase, coherence = ([p for p in names if p.name.endswith(end)] for end in ("unw.tif", "cc.tif"))
    return _summary(
        io.read_geotiff_pairs(
            phase,
            coherence,
            wavelength_m=0.0555,
            incidence_angle_deg=39.0,
            heading_deg=-169.5,
            looks=8,
            height=folder / "dem.tif",
        )
    )


def _summary(stack):
    """What is wrong with a stack by the data model (a list of complaints), and its values as bytes."""
    stack, wrong = _loaded(stack), []
    phase = stack["unwrapped_phase"]
    if phase.dims != ("pair", "y", "x") or phase.dtype.kind != "f" or 0 in phase.shape:
        wrong.append(f"phase {phase.dims} {phase.dtype} {phase.shape}")
    if np.isinf(phase.values).any():
        wrong.append("infinite phase")
    if "coherence" in stack:
        gamma = stack["coherence"].values
        if gamma.shape != phase.shape or np.nanmin(gamma, initial=0) < 0 or np.nanmax(gamma, initial=0) > 1:
            wrong.append("coherence outside 0-1")
    for name in ("x", "y"):
        steps = np.diff(stack[name].values)
        if not np.isfinite(stack[name].values).all() or not ((steps > 0).all() or (steps < 0).all()):
            wrong.append(f"{name} is no axis")
    if not (stack["reference"].values < stack["secondary"].values).all():
        wrong.append("reversed pair")
    if not 0.024 <= stack.attrs["wavelength_m"] <= 0.3 or not stack.attrs.get("looks", 1) >= 1:
        wrong.append(f"attributes {stack.attrs}")
    if np.isinf(stack["perpendicular_baseline"].values).any():
        wrong.append("infinite baseline")
    for name in ("incidence_angle", "los_east", "los_north", "los_up", "height"):
        if name in stack and np.isinf(stack[name].values).any():
            wrong.append(f"infinite {name}")
    names = sorted(map(str, stack.variables))
    return wrong, b"".join(np.ascontiguousarray(stack[n].values).tobytes() for n in names)


def _discharge(path):
    from helpers import io

    q = io.read_discharge(path, drainage_area_km2=1000.0)
    values, wrong = q.values, []
    if np.isinf(values).any() or (values[np.isfinite(values)] < 0).any() or not np.isfinite(values).any():
        wrong.append("flow is infinite, negative or absent")
    if not (np.diff(q["time"].values) == np.timedelta64(1, "D")).all():
        wrong.append("calendar is not complete")
    return wrong, values.tobytes() + q["time"].values.tobytes()


def _site(folder, **inputs):
    """Give a site whose raw and derived folder is the one under test."""
    from helpers.io.site import Site, SiteConfig

    site = Site("fuzzed", SiteConfig.model_validate({"title": "t", "kind": "real", "inputs": inputs}))
    site.raw, site.derived, site.read_from, site.notebook = folder, folder, [folder], "01_ingest"
    return site


def _climate(file, form):
    def read(folder):
        from helpers import io

        data = io.read_climate(_site(folder, climate={"path": file, "format": form})).load()
        wrong = [f"infinite {n}" for n in data.data_vars if np.isinf(data[n].values.astype(float)).any()]
        wrong += (
            []
            if data.indexes["time"].is_unique and data.indexes["time"].is_monotonic_increasing
            else ["time"]
        )
        return wrong, b"".join(data[n].values.tobytes() for n in sorted(map(str, data.variables)))

    return read


def _areas(folder):
    from helpers import io

    areas = io.read_areas(_site(folder, areas="areas.geojson"))
    wrong = [f"{n} is empty" for n, g in areas.items() if not np.isfinite(g.bounds).all()]
    return wrong, repr(sorted((n, g.wkt) for n, g in areas.items())).encode()


def _drivers(folder):
    import xarray as xr

    from helpers import io

    driver = {"path": "albedo.tif", "group": "albedo", "unit": "1", "long_name": "albedo"}
    y, x = 38.2 - 0.005 * (np.arange(6) + 0.5), 99 + 0.005 * (np.arange(8) + 0.5)
    grid = xr.Dataset({"height": (("y", "x"), np.zeros((6, 8)))}, {"y": y, "x": x}).rio.write_crs(4326)
    data = io.read_drivers(_site(folder, drivers={"albedo": driver}), grid)
    return [] if data["albedo"].shape == (6, 8) else ["shape"], data["albedo"].values.tobytes()


def _sensor(folder):
    from helpers import io

    sar = {"role": "main", "band": "C", "unwrapped": "*unw.tif", "coherence": "*cc.tif", "dem": "dem.tif"}
    sar |= {"wavelength_m": 0.0555, "baselines": "*_bperp.par", "looks": 8}
    return _summary(io.read_sensor(_site(folder, sar={"s1": sar}), "s1"))


def _derived(name):
    def read(folder):
        from helpers import io

        data = io.read(_site(folder), name)
        if isinstance(data, pd.DataFrame):
            return [], data.to_csv().encode()
        data = _loaded(data)
        return [], b"".join(
            np.ascontiguousarray(data[n].values).tobytes() for n in sorted(map(str, data.variables))
        )

    return read


def _results(folder):
    from helpers import io

    return [], io.read_results(folder).to_csv().encode()


def _site_file(folder):
    """A site file that is accepted must keep what it reads below its raw folder, and what it writes in its own."""
    from helpers import io

    site = io.load_site(folder / "mine.yml")
    inputs, wrong = site.config.inputs, []
    paths = [p for s in inputs.sar.values() for p in (s.path, s.unwrapped, s.coherence, s.baselines, s.dem)]
    paths += [g.path for g in inputs.discharge.values()] + [d.path for d in inputs.drivers.values()]
    paths += [inputs.areas, inputs.active_layer, inputs.gnssir]
    paths += [inputs.climate.path, inputs.climate.precipitation] if inputs.climate else []
    for path in filter(None, paths):
        if not Path(os.path.normpath(site.raw / path)).is_relative_to(site.raw) or "\0" in path:
            wrong.append(f"reads {path!r}")
    for name in (*inputs.sar, *inputs.discharge, *inputs.drivers):
        if Path(os.path.normpath(site.derived / f"01_{name}.zarr")).parent != site.derived or "\0" in name:
            wrong.append(f"writes {name!r}")
    for place in (site.raw, site.derived, site.results, site.figures, site.executed):
        if not Path(os.path.normpath(place)).is_relative_to(io.ROOT):
            wrong.append(f"works in {place}")
    return wrong, site.config.model_dump_json().encode()


READERS = {
    "licsar": _stack,
    "hyp3": _stack,
    "mintpy": lambda folder: _stack(folder / "ifgramStack.h5"),
    "own zarr": lambda folder: _stack(folder / "stack.zarr"),
    "own netcdf": lambda folder: _stack(folder / "stack.nc"),
    "loose geotiff": _loose,
    "sensor, gamma baselines, dem": _sensor,
    "discharge csv": lambda folder: _discharge(folder / "g.csv"),
    "discharge caravan csv": lambda folder: _discharge(folder / "c.csv"),
    "discharge caravan netcdf": lambda folder: _discharge(folder / "c.nc"),
    "discharge grdc": lambda folder: _discharge(folder / "g.txt"),
    "discharge usgs": lambda folder: _discharge(folder / "g.rdb"),
    "discharge wsc": lambda folder: _discharge(folder / "w.csv"),
    "discharge yearbook": _discharge,
    "discharge matrix": lambda folder: _discharge(folder / "m.csv"),
    "climate netcdf": _climate("climate.nc", "netcdf"),
    "climate csv": _climate("climate.csv", "csv"),
    "climate shud": _climate("forcing.csv", "shud"),
    "areas": _areas,
    "drivers": _drivers,
    "derived zarr": _derived("02_a.zarr"),
    "derived netcdf": _derived("02_a.nc"),
    "derived csv": _derived("02_a.csv"),
    "results": _results,
    "site file": _site_file,
}

KEYS = {kind: k for k, kind in enumerate(sorted(READERS))}  # part of the seed of an input


def _bad(deed):
    """A reader that reads a sound file and misbehaves on any other: the bench must notice."""

    def read(folder):
        if (folder / "a.txt").read_bytes() != b"sound":
            deed(folder)
        return [], b"sound"

    return read


def _unnamed(folder):
    raise ValueError("something is wrong")


BAD_READERS = {
    "bad: writes": _bad(lambda folder: (folder.parent / "mine").write_text("x")),
    "bad: unpickles": _bad(lambda folder: pickle.loads(b"cos\ngetcwd\n(tR.")),
    "bad: raises": _bad(lambda folder: {}["key"]),
    "bad: names no file": _bad(_unnamed),
    "bad: calls": _bad(lambda folder: os.system("true")),
    "bad: dies": _bad(lambda folder: os.abort()),
    "bad: waits": _bad(lambda folder: time.sleep(1000)),
}


# --- sound inputs --------------------------------------------------------------------------------------------------


def build(kind: str, folder: Path) -> None:
    """Write a sound input of a kind into an empty folder."""
    import xarray as xr
    from test_discharge_io import yearbook
    from test_insar_io import SHAPE, hyp3, licsar, loose, mintpy, write_tif

    from helpers import io

    days = pd.date_range("2001-01-01", periods=40)
    if kind in BAD_READERS:
        (folder / "a.txt").write_bytes(b"sound")
    elif kind == "licsar":
        licsar(folder)
    elif kind == "hyp3":
        hyp3(folder, kind="multi", flat=True)
    elif kind == "mintpy":
        mintpy(folder)
    elif kind.startswith("own"):
        stack = io.read_stack(licsar(folder / "raw"))
        if kind == "own zarr":
            stack.to_zarr(folder / "stack.zarr", zarr_format=2, consolidated=True)
        else:
            stack.to_netcdf(folder / "stack.nc", engine="h5netcdf")
        shutil.rmtree(folder / "raw")
    elif kind in ("loose geotiff", "sensor, gamma baselines, dem"):
        loose(folder)
        write_tif(folder / "dem.tif", np.full(SHAPE, 4000, "f4"), nodata=None)
        if kind.startswith("sensor"):
            rows = "".join(f"{i:6d} {i + 1:6d} 1.0 2.0 3.0 4.0 5.0 {10.5 + i} 11.0\n" for i in range(9))
            for path in list(folder.glob("*unw.tif")):
                (folder / path.name.replace("_unw.tif", "_bperp.par")).write_text("line  col bperp\n" + rows)
    elif kind == "discharge csv":
        rows = "".join(f"{d:%Y-%m-%d},{1 + k / 7:.3f},{int(k < 9)}\n" for k, d in enumerate(days))
        (folder / "g.csv").write_text("date,flow_m3s,ice\n" + rows)
    elif kind == "discharge caravan csv":
        rows = "".join(f"{d:%Y-%m-%d},1.5,{1 + k / 7:.3f}\n" for k, d in enumerate(days))
        (folder / "c.csv").write_text("date,total_precipitation_sum,streamflow\n" + rows)
    elif kind == "discharge caravan netcdf":
        flow = xr.Dataset({"streamflow": ("date", np.linspace(1, 5, 40))}, {"date": days})
        flow.to_netcdf(folder / "c.nc", engine="h5netcdf")
    elif kind == "discharge grdc":
        head = "# GRDC-No.: 1234567\n# River: RIO\n# Catchment area (km2): 1910.0\n# Unit of measure: m3/s\n# DATA\n"
        rows = "".join(f"{d:%Y-%m-%d};--:--;  {1 + k / 7:.3f}\n" for k, d in enumerate(days))
        (folder / "g.txt").write_text(head + "YYYY-MM-DD;hh:mm; Value\n" + rows)
    elif kind == "discharge usgs":
        head = (
            "# note\nagency_cd\tsite_no\tdatetime\t1_00060_00003\t1_00060_00003_cd\n5s\t15s\t20d\t14n\t10s\n"
        )
        rows = "".join(f"USGS\t0123\t{d:%Y-%m-%d}\t{10 + k}\tA\n" for k, d in enumerate(days))
        (folder / "g.rdb").write_text(head + rows)
    elif kind == "discharge wsc":
        rows = "".join(f"03NE011,1,{d:%Y/%m/%d},{1 + k / 7:.2f},B\n" for k, d in enumerate(days))
        (folder / "w.csv").write_text("Daily\n ID,PARAM,Date,Value,SYM\n".replace(" ID", "ID") + rows)
    elif kind == "discharge yearbook":
        for year in (2003, 2004):
            (folder / f"{year}.csv").write_text(yearbook(year), encoding="utf-8")
    elif kind == "discharge matrix":
        rows = "".join(f"{d},{d},{d if d <= 365 else ''}\n" for d in range(1, 367))
        (folder / "m.csv").write_text(",2000,2001\n" + rows)
    elif kind.startswith("climate"):
        temperature, rain = np.sin(np.arange(40.0)), np.arange(40.0)
        if kind == "climate netcdf":
            names = {"temperature_2m": ("time", temperature), "precipitation": ("time", rain)}
            xr.Dataset(names, {"time": days}).to_netcdf(folder / "climate.nc", engine="h5netcdf")
        elif kind == "climate csv":
            table = {"date": days, "temperature_degc": temperature, "precipitation_mm": rain}
            pd.DataFrame(table).to_csv(folder / "climate.csv", index=False)
        else:
            rows = "".join(f"{k}\t{rain[k]}\t{temperature[k]}\n" for k in range(40))
            (folder / "forcing.csv").write_text(
                "40\t6\t20010101\t20010209\t86400\nTime_Day\tPrcp\tTemp\n" + rows
            )
    elif kind == "areas":
        ring = [[99.0, 38.0], [99.1, 38.0], [99.1, 38.1], [99.0, 38.0]]
        shapes = {
            "pits": {"type": "Polygon", "coordinates": [ring]},
            "gauge": {"type": "Point", "coordinates": [99, 38]},
        }
        features = [{"type": "Feature", "properties": {"name": n}, "geometry": g} for n, g in shapes.items()]
        (folder / "areas.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    elif kind == "drivers":
        write_tif(folder / "albedo.tif", np.linspace(0.1, 0.3, 48, dtype="f4").reshape(SHAPE))
    elif kind.startswith("derived"):
        from helpers.io.site import Site, SiteConfig

        site = Site("fuzzed", SiteConfig(title="t", kind="real"))
        site.derived, site.notebook = folder, "02_sbas"
        cube = xr.Dataset(
            {"rate": (("y", "x"), np.linspace(-9, 3, 48).reshape(SHAPE))},
            {"y": np.arange(6.0), "x": np.arange(8.0)},
        )
        table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
        name = {"derived zarr": "02_a.zarr", "derived netcdf": "02_a.nc", "derived csv": "02_a.csv"}[kind]
        io.write(table if name.endswith("csv") else cube, site, name)
    elif kind == "results":
        (folder / "02_sbas.csv").write_text(
            "name,value,lower,upper,unit,truth,method\nrate,-7,-9,-5,mm/yr,-6.5,m\n"
        )
    elif kind == "site file":
        shutil.copy(io.ROOT / "data" / "sites" / "datong_twin.yml", folder / "mine.yml")
    else:
        raise KeyError(kind)


@dataclass
class Outcome:
    """One spoilt input and what became of it."""

    kind: str
    seed: tuple
    change: str
    verdict: str
    detail: str = ""


@dataclass
class Bench:
    """A folder of sound inputs and a worker that reads them spoilt."""

    folder: Path
    outcomes: list = field(default_factory=list)

    def __post_init__(self):
        self.worker, self.sound, self.answers = None, {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.report = self.folder / "stack_of_a_crash.txt"
        self.worker = context.Process(target=serve, args=(other, str(self.report)), daemon=True)
        self.worker.start()
        other.close()
        self.warm = set()

    def _stop(self):
        if self.worker is not None:
            self.worker.kill()
            self.worker.join()
            self.connection.close()
            self.worker = None

    def _ask(self, kind, seconds=SECONDS, rehearsal=False):
        """The worker's answer, or how it failed to give one."""
        self.connection.send((kind, str(self.folder / kind.replace(" ", "_")), rehearsal))
        try:
            if self.connection.poll(seconds):
                return self.connection.recv()
            how = f"no answer in {seconds} s"
            os.kill(self.worker.pid, signal.SIGABRT)  # makes it tell where it is
        except (EOFError, ConnectionResetError):
            how = "the process died"
        self.worker.join(10)
        frames = self.report.read_text().split("Current thread")[-1]
        top = next((line for line in frames.splitlines() if line.strip().startswith("File")), "")
        outside = any(f"/{name}" in top for name in LIBRARIES)
        verdict = (
            "crash" if outside else "own crash",
            f"{how}, exit {self.worker.exitcode}: {top.split('site-packages/')[-1].strip()}",
            frames[:2000],
        )
        self._stop()
        return verdict, []

    def _prepare(self, kind):
        place = self.folder / kind.replace(" ", "_")
        if kind not in self.sound:
            place.mkdir()
            build(kind, place)
            self.sound[kind] = {p: p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}
        if self.worker is None:
            self._start()
        if kind not in self.warm:
            answer, _ = self._ask(kind, 300, rehearsal=True)
            assert answer[0] == "accepted" and not answer[1], f"the sound {kind} is not read: {answer}"
            self.answers[kind] = answer[2]
            self.warm.add(kind)
        return place

    def _restore(self, kind, place):
        """Put the sound files back, whatever stands there now."""
        for path in sorted(place.rglob("*"), reverse=True):
            if path not in self.sound[kind] and (path.is_symlink() or not path.is_dir()):
                path.unlink()
        for path, data in self.sound[kind].items():
            if path.is_symlink() or (path.exists() and not path.is_file()):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            if not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def run(self, kind: str, seed: int, number: int, seconds: float = SECONDS) -> Outcome:
        """Spoil one input, have it read, judge."""
        place = self._prepare(kind)
        rng = np.random.default_rng([seed, number, KEYS.get(kind, 99)])
        files = list(self.sound[kind])
        path = spoil.one_of(files, rng)
        lossy, change = self._spoil(kind, place, path, rng)
        answer, acts = self._ask(kind, seconds)
        verdict, detail = self._judge(kind, place, lossy, answer, acts)
        self._restore(kind, place)
        self.outcomes.append(
            Outcome(kind, (seed, number), f"{path.relative_to(place)}: {change}", verdict, detail)
        )
        return self.outcomes[-1]

    def _spoil(self, kind, place, path, rng):
        """Change one file; the first value says whether what is lost must be noticed (a binary file cut short)."""
        data, dice = self.sound[kind][path], rng.random()
        text = path.suffix in (".csv", ".txt", ".rdb", ".geojson", ".yml", ".par", "") and b"\0" not in data
        if dice < 0.05:
            where = spoil.one_of(spoil.PLACES, rng)
            self._misplace(path, where, data)
            return False, where
        if dice < 0.30 and path.suffix in (".h5", ".nc"):
            return False, spoil.spoil_hdf5(path, rng)
        if dice < 0.30 and "zarr" in kind:
            return False, spoil.spoil_zarr(next(place.glob("*.zarr")), rng)
        if dice < 0.30 and path.suffix == ".tif":
            return False, spoil.spoil_geotiff(path, rng)
        if dice < 0.30 and kind == "site file":
            path.write_bytes(spoil.hostile_site(data, rng))
            return False, "a hostile site file"
        change = spoil.one_of(spoil.TEXT if text else spoil.BYTES, rng)
        # a new file, as a download gives: HDF5 takes one that is open in the process as it was when it was opened
        path.unlink()
        path.write_bytes(change(data, rng))
        return change is spoil.cut and path.suffix in (".tif", ".h5", ".nc"), change.__name__

    def _misplace(self, path, where, data):
        path.unlink()
        if where == "folder":
            path.mkdir()
        elif where == "dangling link":
            path.symlink_to(path.with_name("nowhere"))
        elif where == "link loop":
            path.symlink_to(path.name)
        elif where == "link to a device":
            path.symlink_to("/dev/null")
        elif where == "pipe":
            os.mkfifo(path)
        elif where == "elsewhere":  # a link to a sound file beyond the site's folder: reading it is allowed
            other = self.folder / "elsewhere"
            other.write_bytes(data)
            path.symlink_to(other)

    def _judge(self, kind, place, lossy, answer, acts):
        verdict, first, second = answer
        acts = list(acts) + [str(p) for p in (place / "spoilt", Path("spoilt")) if p.exists()]
        if acts:
            return "failure", f"it acted: {acts[:3]}"
        if verdict == "refused":
            named = str(place) in second or any(p.name in second for p in self.sound[kind])
            return (
                ("refused", second)
                if named
                else ("failure", f"{first} without the file's name: {second[:500]}")
            )
        if verdict == "accepted":
            if first:
                return "failure", f"accepted, but {first}"
            if lossy and second != self.answers[kind]:
                return "failure", "a file cut short was read with other values"
            return "accepted", ""
        if verdict == "late":
            return ("late", first) if kind in LAZY else ("failure", f"late: {first}")
        if verdict == "crash":
            return "crash", f"{first}\n{second}"
        return "failure", f"{verdict}: {first}\n{second}"


def fuzz(kinds, seed: int, count: int, start: int = 0) -> list[Outcome]:
    """Read ``count`` spoilt inputs of each kind."""
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder)) as bench:
        for kind in kinds:
            for number in range(start, start + count):
                bench.run(kind, seed, number)
        return bench.outcomes


VERDICTS = ("refused", "late", "accepted", "crash", "failure")


def counts(outcomes: list[Outcome]) -> pd.DataFrame:
    """Number of inputs per reader and verdict, with their sum."""
    verdicts = pd.crosstab([o.kind for o in outcomes], [o.verdict for o in outcomes])
    table = verdicts.reindex(columns=VERDICTS, fill_value=0).rename_axis(index="reader", columns=None)
    return table.assign(inputs=table.sum(axis=1)).reset_index()
