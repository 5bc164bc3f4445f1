"""Pictures: same bytes twice, limits that keep the centre, a click that shows another pixel."""

import os
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from cmcrameri import cm
from matplotlib.backend_bases import MouseEvent

from helpers import plot
from helpers.io.site import Site, SiteConfig


@pytest.fixture
def field():
    """A small map in lon/lat with a hole."""
    values = np.arange(12.0).reshape(3, 4) - 5
    values[0, 0] = np.nan
    out = xr.DataArray(
        values, coords={"y": [38.2, 38.1, 38.0], "x": [99.0, 99.1, 99.2, 99.3]}, dims=("y", "x")
    )
    return out.rio.write_crs("EPSG:4326")


@pytest.fixture
def site(tmp_path):
    """A site that draws into a temporary folder."""
    made = Site("somewhere", SiteConfig(title="t", kind="real"))
    made.figures = tmp_path
    return made


def draw(field, site, name):
    fig, ax = plot.figure(width="single", height_in=2.5)
    plot.show_map(ax, field, label="rate (mm/yr)", center=0)
    plot.save(fig, site, name)
    return site.figures / f"{name}.png"


def test_same_picture_same_bytes(field, site):
    """Nothing of the time or the software gets into a figure."""
    assert draw(field, site, "05_a").read_bytes() == draw(field, site, "05_b").read_bytes()
    assert site.outputs == [site.figures / "05_a.png", site.figures / "05_b.png"]


def test_labels_are_kept_with_the_picture(field, site):
    """Every text a reader sees stands in the file too: ticks, colour bar, title."""
    from PIL import Image

    fig, ax = plot.figure(width="single", height_in=2.5)
    plot.show_map(ax, field, label="rate (mm/yr)", center=0, title="a  Rates")
    ax.set_xticks([99.0, 99.2], ["west", "east"])
    plot.save(fig, site, "05_a")
    with Image.open(site.figures / "05_a.png") as image:
        kept = image.text["Description"].split("\n")
    assert {"rate (mm/yr)", "a  Rates", "west", "east"} <= set(kept)


def _line(site, x=1.0, colour="#0072B2", label="rate", dpi=150):
    with mpl.rc_context({"savefig.dpi": dpi}):
        fig, ax = plot.figure(width="single", height_in=2.5)
        ax.plot([0, 1, 2], [0, x, 0], color=colour, lw=1, label=label)
        ax.plot([0, 1, 2], [1, 1, 0.2], "o", ms=3)
        ax.set(xlim=(0, 2), ylim=(0, 2))
        ax.legend()
        plot.save(fig, site, "05_a")
    return (site.figures / "05_a.png").read_bytes()


ROUNDED = [{"x": 1.0001}, {"colour": "#0073B1"}]
CHANGED = [{"x": 1.1}, {"colour": "#0092B2"}, {"label": "trend"}, {"dpi": 200}]


@pytest.mark.parametrize("changes", ROUNDED)
def test_a_committed_picture_stays_where_only_rounding_differs(site, changes):
    """Another processor's last digits leave the committed file alone, and no other."""
    site.keeps_committed = True
    first = _line(site)
    assert _line(site, **changes) == first
    site.keeps_committed = False
    assert _line(site, **changes) != first


@pytest.mark.parametrize("changes", CHANGED)
def test_a_committed_picture_that_looks_different_is_replaced(site, changes):
    """A line that moved, another colour, label or size is drawn anew, and so is a damaged file."""
    site.keeps_committed = True
    first = _line(site)
    second = _line(site, **changes)
    assert second != first
    (site.figures / "05_a.png").write_bytes(second[: len(second) // 2])
    assert _line(site, **changes) == second


def test_no_data_is_not_the_colour_of_zero():
    """On a diverging map a hole and a zero are told apart, also in grey."""
    zero = mpl.colors.to_rgb(cm.vik_r(0.5))
    hole = mpl.colors.to_rgb(plot.NO_DATA)
    light = np.array([0.2126, 0.7152, 0.0722])
    assert light @ zero - light @ hole > 0.15


def test_progress_shows_by_hand_only(monkeypatch, capsys):
    """A bar in a live kernel, silence in a batch run (make sets MPLBACKEND=agg) and outside a notebook."""
    from types import SimpleNamespace

    import IPython

    from helpers import io
    from helpers.io.run import is_live

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert not is_live() and list(io.progress(range(3), "steps")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert is_live()
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert not is_live()


def derived(field, columns):
    """A series as `sbas.invert` writes it, sinking by the map's rate with an annual wave of 3 mm."""
    from helpers import timefunc

    time = np.arange("2016-01-01", "2018-01-01", 30, dtype="datetime64[D]").astype("datetime64[ns]")
    form = timefunc.parse("linear+annual")
    design = form.design(time)[:, [form.parameters.index(c) for c in columns]]
    values = {"annual_sin": 3 + 0 * field, "annual_cos": 0 * field, "rate": field}
    coefficients = xr.concat([values[c] for c in columns], "parameter").assign_coords(parameter=columns)
    moved = xr.DataArray(design - design[0], coords={"time": time}, dims=("time", "parameter"))
    moved = moved.dot(coefficients.drop_vars("parameter"), dim="parameter")
    los = {f"los_{n}": v + 0 * field for n, v in (("east", 0.6), ("north", -0.1), ("up", 0.8))}
    data = {
        "displacement": moved,
        "displacement_std": 1 + 0 * moved,
        "coefficients": coefficients,
        "rate": field,
    }
    return xr.Dataset(data | los, attrs={"model": "linear+annual"})


def test_any_derived_series_comes_with_model_prior_and_truth(field):
    """The curve of the model is that of the coefficients, the prior opens with time, the truth is seen along LOS."""
    data = derived(field, ["annual_sin", "annual_cos", "rate"])
    time = np.arange("2015-01-01", "2019-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    path = xr.DataArray(np.linspace(0, 40, time.size), coords={"time": time}, dims="time") + 0 * field
    truth = xr.Dataset({f"displacement_{n}": path * k for n, k in (("east", 1), ("north", 0), ("up", -1))})
    shown = plot.series_of(data, truth=truth, prior=(field * 0 - 5, field * 0 + 2))
    assert list(shown) == ["estimate", "model", "prior rate", "truth"]
    xr.testing.assert_allclose(shown["model"].transpose("time", "y", "x"), data["displacement"])
    mean, std = (part.isel(y=1, x=1).compute() for part in shown["prior rate"])
    years = float((data["time"][-1] - data["time"][0]) / np.timedelta64(1, "D")) / 365.25
    assert (mean[0], std[0]) == (0, 0)
    assert float(mean[-1]) == pytest.approx(-5 * years) and float(std[-1]) == pytest.approx(2 * years)
    seen = shown["truth"].isel(y=1, x=1)
    assert seen[0] == 0 and seen["time"][-1] <= data["time"][-1]
    assert float(seen[-1]) == pytest.approx((0.6 - 0.8) * 40 * years / (time.size / 365.25), rel=0.01)


def test_diverging_limits_are_symmetric():
    """A rate map has zero in the middle of its colours."""
    low, high = plot.limits([-1.0, 3.0, np.nan], percent=0, center=0)
    assert (low, high) == (-3, 3)


def test_limits_of_nothing():
    """An empty map still gets limits."""
    assert plot.limits([np.nan, np.nan]) == (0, 1)
    assert plot.limits([2.0, 2.0]) == (1.5, 2.5)


def test_map_is_drawn_where_it_lies(field, site):
    """Cell centres are centres, and north is up."""
    fig, ax = plot.figure()[0], None
    ax = fig.axes[0]
    plot.show_map(ax, field, label="x", center=0)
    assert ax.get_ylim()[0] < ax.get_ylim()[1]
    assert ax.get_xlim() == pytest.approx((98.95, 99.35))
    mpl.pyplot.close(fig)


def test_locator_needs_no_network(monkeypatch, site):
    """The locator draws from lines in the package: cartopy is asked for nothing."""
    import socket

    import cartopy.crs as ccrs

    def refuse(*_):
        raise AssertionError("drawing asked for the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    fig = mpl.pyplot.figure(figsize=(2, 2))
    plot.locator(fig.add_subplot(projection=ccrs.PlateCarree()), 99.2, 38.1)
    plot.locator(fig.add_subplot(projection=ccrs.PlateCarree()), -149.4, 70.3)
    plot.save(fig, site, "01_locator")
    assert (site.figures / "01_locator.png").stat().st_size > 1000


def test_a_click_shows_another_pixel(field):
    """The explorer starts at the strongest pixel and follows a click on the map, not one elsewhere."""
    time = np.array(["2016-01-01", "2017-01-01"], dtype="datetime64[ns]")
    series = field.expand_dims(time=time) * xr.DataArray([0.0, 1.0], coords={"time": time}, dims="time")
    std = xr.ones_like(series)
    fig = plot.explore(field, {"joint": (series, std), "truth": series}, label="rate", series_label="mm")
    ax, right = fig.axes[0], fig.axes[1]
    fig.canvas.draw()
    assert right.lines[0].get_ydata()[-1] == 5  # 6 lies beyond the colours

    def click(at, x, y):
        px, py = at.transData.transform((x, y))
        fig.canvas.callbacks.process(
            "button_press_event", MouseEvent("button_press_event", fig.canvas, px, py, 1)
        )

    click(ax, 99.11, 38.09)
    assert right.lines[0].get_ydata()[-1] == 0 == field.sel(x=99.1, y=38.1)
    before = right.lines[0].get_ydata()[-1]
    click(right, *np.mean([right.get_xlim(), right.get_ylim()], axis=1))
    assert right.lines[0].get_ydata()[-1] == before
    mpl.pyplot.close(fig)


def test_a_users_matplotlibrc_changes_nothing(tmp_path):
    """TeX and another type asked for by the user's own settings do not reach a figure."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    code = "import matplotlib as m; from helpers import plot; print(m.rcParams['text.usetex'], m.rcParams['font.size'])"
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["False", str(mpl.rcParams["font.size"])]
