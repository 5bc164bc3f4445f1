"""In a real browser: a click on the explorer's map changes the plot in JupyterLab; the report opens from disk."""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from helpers import io

websocket = pytest.importorskip("websocket")  # comes with jupyter-server
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 150.0

EXPLORER = """\
import numpy as np
import pandas as pd
import xarray as xr

from helpers import plot, sbas

# four pixels side by side that sink by 0, 10, 20 and 30 mm/yr, each date paired with the next two
dates = pd.date_range("2016-01-01", periods=40, freq="36D")
first = np.r_[np.arange(39), np.arange(38)]
second = np.r_[np.arange(1, 40), np.arange(2, 40)]
years = (dates - dates[0]).days.values / 365.25
sinking = -10.0 * np.arange(4)
coords = {"reference": ("pair", dates[first]), "secondary": ("pair", dates[second])}
coords |= {"y": [38.1, 38.0], "x": [99.0, 99.1, 99.2, 99.3]}
moved = (years[second] - years[first])[:, None, None] * np.broadcast_to(sinking, (2, 4))
stack = xr.Dataset(
    {
        "unwrapped_phase": (("pair", "y", "x"), -4 * np.pi / 55.5 * moved),
        "coherence": (("pair", "y", "x"), np.full(moved.shape, 0.7)),
    },
    coords=coords,
    attrs={"wavelength_m": 0.0555, "looks": 40.0},
)
series = sbas.invert(stack, "linear+annual")
"""
SHOW = """\
choice = plot.series_of(series, prior=(series["rate"] * 0 - 12.0, series["rate"] * 0 + 2.0))
fig = plot.explore(series["rate"], choice, label="rate (mm/yr)", series_label="displacement (mm)")
"""
TELL = """\
print("TITLE", fig.axes[1].get_title(loc="left"), "LAST", round(float(fig.axes[1].lines[0].get_ydata()[-1]), 1))
"""


class Page:
    """One page of a browser, driven through Chromium's DevTools protocol."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=PATIENCE_S, suppress_origin=True)
        self.ids, self.events = itertools.count(1), []

    def call(self, method, **parameters):
        sent = next(self.ids)
        self.socket.send(json.dumps({"id": sent, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def run(self, script):
        """Give the value of a JavaScript expression (a promise is awaited)."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script, what):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.3)
        self.picture("failed")
        raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}")

    def click(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, name):
        """Keep a screenshot where the environment variable SCREENSHOTS names a folder."""
        if folder := os.environ.get("SCREENSHOTS"):
            data = self.call("Page.captureScreenshot", format="png")["data"]
            (Path(folder) / f"lab_{name}.png").write_bytes(base64.b64decode(data))


def _open(browser):
    request = urllib.request.Request(f"http://{browser}/json/new?about:blank", method="PUT")
    page = Page(json.load(urllib.request.urlopen(request))["webSocketDebuggerUrl"])
    page.call("Page.enable")
    return page


def _wait_for(path, process):
    end = time.monotonic() + PATIENCE_S
    while not (path.is_file() and path.read_text()):
        assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.2)
    return path.read_text()


@pytest.fixture
def browser(tmp_path):
    """Address of a headless Chromium's DevTools."""
    if CHROMIUM is None:
        pytest.skip("no browser: install chromium to test JupyterLab (apt-get install chromium)")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--remote-debugging-port=0", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--window-size=1400,1000", "--disable-background-networking", "about:blank"]
    with subprocess.Popen([CHROMIUM, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        port = _wait_for(tmp_path / "profile" / "DevToolsActivePort", run).split("\n")[0]
        yield f"127.0.0.1:{port}"
        run.terminate()


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab on loopback that serves a folder with one notebook."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (EXPLORER, SHOW, TELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "explore.ipynb")
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    environment |= {
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "none"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", "--IdentityProvider.token=t", "--LabApp.expose_app_in_browser=True"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "lab.log").open("w") as log:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        runtime = tmp_path / "runtime"
        end = time.monotonic() + PATIENCE_S
        while not list(runtime.glob("jpserver-*.json")):
            assert run.poll() is None and time.monotonic() < end, (tmp_path / "lab.log").read_text()[-2000:]
            time.sleep(0.3)
        port = json.loads(next(runtime.glob("jpserver-*.json")).read_text())["port"]
        yield f"http://127.0.0.1:{port}"
        run.terminate()
        run.wait(30)


def test_a_click_in_jupyterlab_changes_the_plot(lab, browser):
    """The notebook opens and runs; a click on the map draws that pixel, a click beside it does not."""
    page = _open(browser)
    page.call("Page.navigate", url=f"{lab}/lab?token=t&reset")
    page.wait("!!window.jupyterapp", "the lab")
    page.run(
        "window.jupyterapp.restored"
        ".then(() => window.jupyterapp.commands.execute('docmanager:open', {path: 'explore.ipynb'}))"
        ".then(widget => widget.context.ready.then(() => widget.sessionContext.ready)).then(() => true)"
    )
    page.wait("document.querySelectorAll('.jp-Notebook .jp-CodeCell').length == 3", "the cells")

    told = "[...document.querySelectorAll('.jp-OutputArea-output')].map(o => o.innerText).join(' ')"
    for _ in range(
        3
    ):  # on a busy machine the lab may lose its kernel's connection, and with it the queue of cells
        page.run("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        if "TITLE" in (first := page.run(told)):
            break
    page.picture("run")
    assert "TITLE" in first and "Traceback" not in first, first
    canvas = "document.querySelector('.jupyter-matplotlib-canvas-container canvas')"
    page.wait(f"!!{canvas} && {canvas}.width > 100", "the explorer's canvas")
    page.run(f"{canvas}.scrollIntoView({{block: 'center'}})")
    time.sleep(1.0)
    page.picture("before")
    before = page.run(f"{canvas}.toDataURL()")

    box = page.run(
        f"(() => {{ const r = {canvas}.getBoundingClientRect(); return [r.x, r.y, r.width, r.height] }})()"
    )

    def click(across, down):
        page.click(box[0] + across * box[2], box[1] + down * box[3])

    click(0.16, 0.38)  # the map's left half: the second pixel
    page.wait(f"{canvas}.toDataURL() != {json.dumps(before)}", "the plot to change")
    time.sleep(1.0)
    page.picture("after")
    # what the kernel holds: the cell below the clicked one tells it anew
    page.run("window.jupyterapp.commands.execute('notebook:move-cursor-down')")
    page.run("window.jupyterapp.commands.execute('notebook:run-cell')")
    second = page.wait(f"{told} != {json.dumps(first)} && {told}.includes('LAST') && {told}", "the new title")
    assert "99.300" in first and "99.100" in second, (first, second)
    assert float(second.split("LAST")[1]) > float(first.split("LAST")[1]) + 50  # it sinks by 20 mm/yr less


def _written_report(folder):
    """A report of one executed notebook with a picture, an equation and a widget, and of answers that link."""
    from helpers import plot
    from helpers.io import report
    from helpers.io.site import Site, SiteConfig

    site = Site("somewhere", SiteConfig(title="t", kind="real"))
    site.figures, site.results = folder / "figures", folder / "results"
    fig, ax = plot.figure(width="single", height_in=2.0)
    ax.plot([0, 1], label="rate")
    plot.save(fig, site, "05_a")
    png = base64.b64encode((site.figures / "05_a.png").read_bytes()).decode()
    results = io.Results(site, "05_thaw_scaling")
    results.add("cv", 0.1, unit="1", truth=0.2)
    results.write()
    outputs = [nbformat.v4.new_output("display_data", {"image/png": png, "text/plain": "picture"})]
    outputs += [nbformat.v4.new_output("display_data", {"text/html": "<b>table</b>", "text/plain": "table"})]
    cells = [
        nbformat.v4.new_markdown_cell("# 05\n$a = Q^b$, what it *costs*"),
        nbformat.v4.new_code_cell('plot.save(fig, site, "05_a")', outputs=outputs),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "05_thaw_scaling.ipynb")
    (folder / "RC1.md").write_text(
        "# Answers\n[05_a](figures/05_a.png), [preprint](https://doi.org/10.5194/x)\n"
    )
    return report.build(
        "Some & other basin", folder, site.figures, site.results, folder / "RC1.md", folder / "report"
    )


def test_the_report_needs_no_network(tmp_path):
    """Pages hold their pictures and styles; links lead to other pages of the folder, to places on them, or away."""
    index = _written_report(tmp_path)
    for page in index.parent.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:img|script|link|iframe)\b[^>]*?\b(?:src|href)=[\"']?([^\"'> ]+)", text)
        assert all(place.startswith("data:") for place in loaded), loaded
        assert not re.search(r"<script|@import|url\((?!data:)", text)
        for place in re.findall(r"<a\b[^>]*?href=\"([^\"]+)\"", text):
            file, _, anchor = place.partition("#")
            assert file.startswith("http") or (index.parent / file).exists(), place
            assert file or f'id="{anchor}"' in text, place
    text = index.read_text(encoding="utf-8")
    assert "0.2" in text and "<h1>Some &amp; other basin</h1>" in text
    caption = re.search(r"<figcaption>(.*?)</figcaption>", text, re.S).group(1)
    assert "05_a" in caption and "<em>costs</em>" in caption and "# 05" not in caption


def test_the_report_opens_from_disk(browser, tmp_path):
    """A browser shows the picture and asks for nothing but the page itself."""
    page = _open(browser)
    page.call("Network.enable")
    page.call("Page.navigate", url=_written_report(tmp_path).as_uri())
    page.wait("document.readyState == 'complete' && document.images.length == 1", "the report")
    assert page.run("document.images[0].naturalWidth") > 500
    asked = [
        e["params"]["request"]["url"] for e in page.events if e.get("method") == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked), asked
