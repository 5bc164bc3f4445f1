"""Pictures: same bytes twice, limits that keep the centre, a click that shows another pixel."""

import matplotlib as mpl
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
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
    path = plot.save(fig, site, name)
    mpl.pyplot.close(fig)
    return path


def test_same_picture_same_bytes(field, site):
    """Nothing of the time or the software gets into a figure."""
    assert draw(field, site, "05_a").read_bytes() == draw(field, site, "05_b").read_bytes()
    assert site.outputs == [site.figures / "05_a.png", site.figures / "05_b.png"]


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
    assert plot.save(fig, site, "01_locator").stat().st_size > 1000
    mpl.pyplot.close(fig)


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
