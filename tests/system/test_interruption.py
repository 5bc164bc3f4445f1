"""Killed, started twice, edited while it runs: what `make` does.

The fast tests run the Makefile with a stand-in for papermill that takes half a second a notebook. The slow one,
`make test MARK=slow ARGS=tests/system/test_interruption.py`,
runs `make quick` twice on copies of this checkout: once without
a network, once killed more than twenty times; both must give the same bytes. It continues where it was stopped.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = [p.stem for p in sorted((ROOT / "notebooks").glob("*.ipynb"))]
TABLE = ROOT / "data" / "calibration" / "interruption.csv"

# called as: python -c '... papermill ...' ... -p size quick notebooks/NN.ipynb build/quick/NN.ipynb.part.ipynb
STAND_IN = """#!/usr/bin/env bash
set -eu
[[ "$2" = *papermill* ]] || exit 0
source="${@: -2:1}"; target="${@: -1}"; name=$(basename "$source" .ipynb); run=$(dirname "$target")
echo "begin $name" >> runs.txt
mkdir -p "$run/derived/$name.zarr"
sleep "${SECONDS_EACH:-0.5}"
if rm "unlucky $name" 2> /dev/null; then echo "RuntimeError: Kernel died before replying to kernel_info"; exit 1; fi
if grep -q few "$source"; then cp "$source" "$target"; echo "MissingInput: $name: too few; nothing done."; exit 1; fi
if grep -q broken "$source"; then echo "ValueError: broken"; exit 1; fi
echo data > "$run/derived/$name.nc"; echo chunk > "$run/derived/$name.zarr/0"
printf '%s\\n' "$run/derived/$name.nc" "$run/derived/$name.zarr/0" > "$run/$name.outputs"
cp "$source" "$target"
echo "end $name" >> runs.txt
"""


@pytest.fixture
def checkout(tmp_path):
    """Copy what make looks at, with a stand-in for Python."""
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    shutil.copytree(ROOT / "data" / "sites", tmp_path / "data" / "sites")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name in NOTEBOOKS:
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text("{}")
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def start(folder, *arguments, **environment):
    """Start make in a session of its own; its words go to a pipe."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.Popen(
        ["make", f"PYTHON={folder}/python", *arguments],
        cwd=folder, env=clean | environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def make(folder, *arguments, seconds=120, **environment):
    """Run make to its end; give its exit status and words."""
    process = start(folder, *arguments, **environment)
    words, _ = process.communicate(timeout=seconds)
    return process.returncode, words


def runs(folder):
    """Notebooks that ended since the last call, in order."""
    log = folder / "runs.txt"
    ended = re.findall(r"^end (\w+)$", log.read_text(), re.M) if log.exists() else []
    log.unlink(missing_ok=True)
    return ended


def wait_for(condition, seconds=30):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def begun(folder, name):
    """Say whether a notebook has begun."""
    log = folder / "runs.txt"
    return log.exists() and f"begin {name}\n" in log.read_text()


def test_two_makes_at_once_do_the_work_once(checkout):
    """Two that start together both succeed, one says that it waits, and no notebook runs twice."""
    both = [start(checkout, "quick") for _ in range(2)]
    words = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], words
    assert "another make is at work on it, waiting" in "".join(words)
    assert sorted(runs(checkout)) == NOTEBOOKS


def test_kernel_that_dies_before_it_began_is_started_anew(checkout):
    """Two kernels may choose one port: the one that lost runs again; what fails for a reason of its own does not."""
    (checkout / f"unlucky {NOTEBOOKS[6]}").touch()
    status, words = make(checkout, "quick")
    begun = re.findall(r"^begin (\w+)$", (checkout / "runs.txt").read_text(), re.M)
    assert status == 0 and sorted(runs(checkout)) == NOTEBOOKS, words
    assert sorted(begun) == sorted([*NOTEBOOKS, NOTEBOOKS[6]])
    (checkout / "notebooks" / f"{NOTEBOOKS[7]}.ipynb").write_text("broken")
    status, words = make(checkout, "quick")
    assert status != 0 and "ValueError: broken" in words
    assert (checkout / "runs.txt").read_text().split() == ["begin", NOTEBOOKS[7]]


def test_nothing_is_left_behind_by_a_kill(checkout):
    """Everything killed at once: no stamp for what was not finished, no lock, and the next make goes on from there."""
    process = start(checkout, "quick")
    wait_for(lambda: begun(checkout, NOTEBOOKS[1]))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    stamps = sorted(
        p.stem for p in (checkout / "build" / "quick").glob("??_*.ipynb") if ".part" not in p.name
    )
    assert stamps == NOTEBOOKS[:1]
    assert runs(checkout) == NOTEBOOKS[:1]
    status, words = make(checkout, "quick", "-j2")
    assert status == 0 and "waiting" not in words and sorted(runs(checkout)) == NOTEBOOKS[1:]


def test_a_run_that_outlives_its_make_is_waited_for(checkout):
    """Only make is killed; the notebook goes on by itself, and the next make does not run it at the same time."""
    process = start(checkout, "01_ingest", "SIZE=quick", SECONDS_EACH="2")
    wait_for(lambda: begun(checkout, "01_ingest"))
    os.kill(process.pid, signal.SIGKILL)
    status, words = make(checkout, "01_ingest", "SIZE=quick")
    assert status == 0 and "01_ingest: another make is at work on it, waiting" in words
    log = (checkout / "runs.txt").read_text().split("\n")
    assert log[:2] == ["begin 01_ingest", "end 01_ingest"], log


def test_an_edit_during_a_run_is_not_missed(checkout):
    """What changes after a notebook has begun is newer than its stamp."""
    process = start(checkout, "02_sbas", "SIZE=quick")
    wait_for(lambda: begun(checkout, "02_sbas"))
    (checkout / "src" / "helpers" / "sbas.py").touch()
    assert process.wait(60) == 0 and runs(checkout) == ["01_ingest", "02_sbas"]
    assert make(checkout, "02_sbas", "SIZE=quick")[0] == 0 and runs(checkout) == ["02_sbas"]
    assert make(checkout, "02_sbas", "SIZE=quick")[0] == 0 and runs(checkout) == []


@pytest.mark.parametrize("loss", ["file", "empty", "chunk", "listing"])
def test_a_stamp_is_worth_nothing_without_its_outputs(checkout, loss):
    """A derived file that is gone or empty, a lost chunk or list: that notebook runs again, and what follows it."""
    assert make(checkout, "03_constrained_sbas", "SIZE=quick", SECONDS_EACH="0")[0] == 0
    assert runs(checkout) == NOTEBOOKS[:3]
    folder = checkout / "build" / "quick"
    lost = {"file": "derived/02_sbas.nc", "chunk": "derived/02_sbas.zarr/0", "listing": "02_sbas.outputs"}
    if loss == "empty":
        (folder / "derived/02_sbas.nc").write_bytes(b"")
    else:
        (folder / lost[loss]).unlink()
    assert make(checkout, "03_constrained_sbas", "SIZE=quick", SECONDS_EACH="0")[0] == 0
    assert runs(checkout) == NOTEBOOKS[1:3]


def test_a_notebook_that_fails_leaves_no_stamp(checkout):
    """The error is shown; what came before keeps its stamp, what comes after is not begun."""
    (checkout / "notebooks" / "02_sbas.ipynb").write_text('{"broken": 1}')
    status, words = make(checkout, "quick", SECONDS_EACH="0")
    assert status != 0 and "ValueError: broken" in words and "02_sbas failed" in words
    assert runs(checkout) == ["01_ingest"] and not (checkout / "build/quick/02_sbas.ipynb").exists()


def test_a_failure_stops_an_old_make_too(checkout):
    """Make 3.81 knows no .SHELLFLAGS: without them a failing notebook still leaves no stamp and a status."""
    (checkout / "notebooks" / "02_sbas.ipynb").write_text('{"broken": 1}')
    status, words = make(checkout, "quick", ".SHELLFLAGS=-c", SECONDS_EACH="0")
    assert status != 0 and "02_sbas failed" in words
    assert not (checkout / "build/quick/02_sbas.ipynb").exists()


def test_a_file_system_without_locks_is_said(checkout, tmp_path_factory):
    """Where flock does not exist make says so and does the work."""
    folder = tmp_path_factory.mktemp("site")
    refusal = "import errno, fcntl\n\ndef flock(*_):\n    raise OSError(errno.ENOSYS, 'none')\n\nfcntl.flock = flock\n"
    (folder / "sitecustomize.py").write_text(refusal)
    status, words = make(checkout, "01_ingest", "SIZE=quick", SECONDS_EACH="0", PYTHONPATH=str(folder))
    assert status == 0 and "no file locks here" in words and runs(checkout) == ["01_ingest"]


def test_the_surrounding_shell_does_not_leak_in(checkout):
    """Kernels of a hub, coordinate data of another GDAL and a user's matplotlibrc stay outside."""
    show = 'show:;@echo "[$${PROJ_LIB-}][$${PROJ_DATA-}][$${GDAL_DATA-}][$$JUPYTER_PATH][$$MATPLOTLIBRC]"'
    names = "PROJ_LIB PROJ_DATA GDAL_DATA JUPYTER_PATH MATPLOTLIBRC"
    outside = dict.fromkeys(names.split(), "/elsewhere")
    status, words = make(checkout, f"--eval={show}", "show", "PYTHON=.venv/bin/python", **outside)
    assert status == 0 and "[][][][][]" in words, words


def test_a_notebook_whose_data_are_too_few_is_skipped(checkout):
    """Its one line is shown, its copy is the stamp, what comes after runs; the next make does nothing."""
    (checkout / "notebooks" / "02_sbas.ipynb").write_text('{"few": 1}')
    status, words = make(checkout, "03_constrained_sbas", "SIZE=quick", SECONDS_EACH="0")
    assert status == 0 and "\n02_sbas: too few; nothing done.\n" in words, words
    assert runs(checkout) == ["01_ingest", "03_constrained_sbas"]
    assert (checkout / "build/quick/02_sbas.ipynb").read_text() == '{"few": 1}'
    assert make(checkout, "03_constrained_sbas", "SIZE=quick")[0] == 0 and not runs(checkout)


def test_an_environment_that_was_killed_is_made_anew(checkout):
    """A .venv without its mark of completion, with the one of work in progress, is not trusted."""
    (checkout / "requirements.lock").write_text("")
    (checkout / "pyproject.toml").write_text("")
    bin_folder = checkout / "tools"
    bin_folder.mkdir()
    # a python3 whose venv holds a python that only notes what it is asked
    (bin_folder / "python3").write_text(
        f'#!/bin/bash\nif [ "$1 $2" = "-m venv" ]; then echo "$@" >> venv.txt; mkdir -p .venv/bin; '
        f'printf "#!/bin/bash\\necho \\$@ >> pip.txt\\n" > .venv/bin/python; chmod +x .venv/bin/python; '
        f'else exec {sys.executable} "$@"; fi\n'
    )
    (bin_folder / "python3").chmod(0o755)
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    call = ["make", "env"]
    for left in (None, ".part", "whole"):
        (checkout / "venv.txt").unlink(missing_ok=True)
        if left == ".part":
            (checkout / ".venv" / ".installed").unlink()
            (checkout / ".venv" / ".part").touch()
        subprocess.run(call, cwd=checkout, env=os.environ | environment, check=True, capture_output=True)
        assert (checkout / "venv.txt").exists() == (left != "whole")
        assert (checkout / ".venv" / ".installed").exists() and not (checkout / ".venv" / ".part").exists()


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new(tmp_path):
    """Killed at random moments while it rewrites files, it never leaves a mixture that is read without an error."""
    code = (
        "import sys, numpy as np, xarray as xr\nfrom pathlib import Path\n"
        "from helpers import io\nfrom helpers.io.site import Site, SiteConfig\n"
        "site = Site('s', SiteConfig(title='t', kind='real'))\n"
        "site.derived = Path(sys.argv[1]); site.read_from = [site.derived]\n"
        "for k in range(10**9):\n"
        "    data = xr.Dataset({n: (('y', 'x'), np.full((400, 400), k)) for n in 'abc'})\n"
        "    io.write(data, site, '05_a.zarr'); io.write(data, site, '05_a.nc')\n"
        "    if k == 0: print('ready', flush=True)\n"
    )
    from helpers import io
    from helpers.io.site import Site, SiteConfig

    site = Site("s", SiteConfig(title="t", kind="real"))
    site.derived, site.read_from = tmp_path, [tmp_path]
    rng, seen = np.random.default_rng(3), set()
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.2, 1.0))
        process.kill()
        process.communicate()
        for name in ("05_a.zarr", "05_a.nc"):
            if not io.exists(
                site, name
            ):  # between the two renames of a folder there is none, and make notices
                continue
            data = io.read(site, name).load()
            values = {int(v) for n in "abc" for v in np.unique(data[n])}
            assert len(values) == 1, f"{name} mixes {values}"
            seen |= values
    assert seen


# --- the whole study, killed ---------------------------------------------------------------------------------------

DENIED = """import socket
def refuse(real):
    def connect(self, address, *rest):
        if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"no network here: {address}")
        return real(self, address, *rest)
    return connect
socket.socket.connect = refuse(socket.socket.connect)
socket.socket.connect_ex = refuse(socket.socket.connect_ex)
"""
LOOPBACK_UP = (
    "import fcntl, os, socket, struct, sys; s = socket.socket(); "
    "fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 0x41)); os.execvp(sys.argv[1], sys.argv[1:])"
)
TRY = "import socket; s = socket.socket(); s.settimeout(3); s.connect(('192.0.2.1', 80))"


def without_network(command, environment, folder):
    """Give command and environment that cannot leave this machine, and say how that is done."""
    space = ["unshare", "-rn", sys.executable, "-c", LOOPBACK_UP]
    if shutil.which("unshare") and subprocess.run([*space, "true"], capture_output=True).returncode == 0:
        command, how = [*space, *command], "a network namespace with loopback only"
        probe = [*space, sys.executable, "-c", TRY]
    else:
        (folder / "denied").mkdir(exist_ok=True)
        (folder / "denied" / "sitecustomize.py").write_text(DENIED)
        path = f"{folder / 'denied'}:{environment.get('PYTHONPATH', '')}"
        environment, how = environment | {"PYTHONPATH": path}, "sockets that refuse what is not loopback"
        probe = [sys.executable, "-c", TRY]
    refused = subprocess.run(probe, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0 and "OSError" in refused.stderr, f"{how} does not deny the network"
    return command, environment, how


def git(*arguments):
    """Ask git about this checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def copy_of_checkout(folder):
    """Copy what is under version control; the copy's own source wins over the installed one."""
    for name in git("ls-files", "-z").split(b"\0"):
        source, target = ROOT / os.fsdecode(name), folder / os.fsdecode(name)
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    python = folder / "python"
    python.write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return {"PYTHONPATH": str(folder / "src"), "DATA_MIRROR": ""}


def fingerprints(folder):
    """Digest of every finished file of a quick run, by its path: what is half-written is called .part."""
    found = {}
    for place in ("raw", "derived", "results", "figures"):
        for path in sorted((folder / "build" / "quick" / place).rglob("*")):
            if path.is_file() and ".part" not in str(path.relative_to(folder)):
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def durations(folder):
    """Seconds each notebook of a run took, from its own last line."""
    log = "".join((folder / "build" / "quick" / f"{n}.ipynb").read_text() for n in NOTEBOOKS)
    found = dict(re.findall(r"(\d\d_\w+): ([\d.]+) s, peak memory", log))
    return {name: float(found[name]) for name in NOTEBOOKS}


STUDY = (
    "07_recession",
    "08_attribution",
    "SIZE=quick",
)  # `make quick` but its last step, the expected numbers


@pytest.mark.slow
def test_the_study_survives_being_killed(capsys):
    """The quick study without a network, and killed three times in each notebook: the same bytes everywhere.

    `make all` runs the same rules with SIZE=full. After every kill each file under its final name is what the
    undisturbed run gives, and no stamp lacks an output. A deleted figure, table or derived file is made again.
    """
    sources = ("Makefile", "notebooks", "src", "data/sites")
    state = git("ls-files", "-s", "--", *sources) + git("diff", "HEAD", "--", *sources)
    place = ROOT / "build" / "robust" / hashlib.sha256(state).hexdigest()[:10]
    whole, killed = place / "whole", place / "killed"
    environments = [copy_of_checkout(folder) for folder in (whole, killed)]
    command = ["make", f"PYTHON={whole}/python", *STUDY]
    command, environment, how = without_network(command, os.environ | environments[0], place)
    done = subprocess.run(command, cwd=whole, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    kills, files = kill_and_compare(whole, killed, environments[1])
    row = {"kills": kills, "files": files, "files_that_differ": 0, "stamps_without_outputs": 0}
    row["network_denied_by"] = how
    pd.DataFrame([row]).to_csv(TABLE, index=False, lineterminator="\n")
    with capsys.disabled():
        print(f"{kills} kills, {files} files, none differs; network denied by {how}")  # noqa: T201
    assert kills >= 20


def kill_and_compare(whole, killed, variables):
    """Run the study in ``killed``, kill it again and again, and hold every file to that of ``whole``."""
    expected, seconds = fingerprints(whole), durations(whole)
    log = killed / "kills.csv"
    kills = log.read_text().splitlines() if log.exists() else []

    rng = np.random.default_rng(len(kills))

    def kill_in(name):
        done = kill_within(killed, variables, name, rng.uniform() * (seconds[name] + 4))
        kills.extend([done] if done else [])
        log.write_text("".join(f"{line}\n" for line in kills))
        wrong = [f for f, digest in fingerprints(killed).items() if expected.get(f) != digest]
        assert not wrong, f"after {done}: {wrong[:5]}"
        without = [n for n in NOTEBOOKS if stamp(killed, n).exists() and lacks(killed, n)]
        assert not without, f"after {done}: {without}"

    for name in NOTEBOOKS:
        while sum(k.startswith(name) for k in kills) < 3 and not stamp(killed, name).exists():
            kill_in(name)
    while len(kills) < 21:  # some notebooks were quicker than their killer
        stamp(killed, NOTEBOOKS[-1]).unlink(missing_ok=True)
        kill_in(NOTEBOOKS[-1])
    status, words = make(killed, *STUDY, seconds=7200, **variables)
    assert status == 0, words[-3000:]
    assert fingerprints(killed) == expected

    for loss in ("figures/07_cloud.png", "results/08_attribution.csv", "derived/06_trajectory.nc"):
        (killed / "build" / "quick" / loss).unlink()
    status, words = make(killed, *STUDY, seconds=7200, **variables)
    assert status == 0 and fingerprints(killed) == expected, words[-3000:]
    return len(kills), len(expected)


def stamp(folder, name):
    """Path of a notebook's executed copy."""
    return folder / "build" / "quick" / f"{name}.ipynb"


def lacks(folder, name):
    """Say whether a notebook's list names a file that is not there."""
    listing = folder / "build" / "quick" / f"{name}.outputs"
    return not listing.exists() or any(not (folder / f).is_file() for f in listing.read_text().splitlines())


def kill_within(folder, variables, name, seconds):
    """Start make and kill all of it some seconds after a notebook has begun; None if it was done before that."""
    with (folder / "words.txt").open("w") as words:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")} | variables
        process = subprocess.Popen(
            ["make", f"PYTHON={folder}/python", *STUDY], cwd=folder, env=clean, start_new_session=True,
            stdout=words, stderr=subprocess.STDOUT,
        )  # fmt: skip
        text = folder / "words.txt"
        wait_for(lambda: process.poll() is not None or f"{name} (" in text.read_text(), 3600)
        time.sleep(seconds)
        during = text.read_text().splitlines()[-1:] or ["?"]
        os.killpg(
            process.pid, signal.SIGKILL
        )  # not yet waited for: the group is there even if make has ended
        process.wait()
        time.sleep(3)  # a kernel notices within a second that its parent is gone, and ends
    assert process.returncode in (0, -signal.SIGKILL), text.read_text()[-3000:]
    return f"{name},{seconds:.1f},{during[0]}" if process.returncode else None
