"""The explorer: a map beside the series of one of its pixels, which a click changes."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers import timefunc
from helpers.io.run import is_live
from helpers.plot.intervals import year_axis
from helpers.plot.maps import show_map
from helpers.plot.style import WIDTH_IN, limits, show

_SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def series_of(
    data: xr.Dataset,
    *,
    variable: str = "displacement",
    truth: xr.Dataset | None = None,
    prior: tuple[xr.DataArray, xr.DataArray] | None = None,
) -> dict[str, xr.DataArray | tuple[xr.DataArray, xr.DataArray]]:
    """Collect what `explore` shows of a derived series: estimate with its sd, fitted model, prior and truth.

    Parameters
    ----------
    data : Dataset
        A derived series (time, y, x) in mm: ``variable``, its ``<variable>_std`` and, where `sbas.invert` made it,
        ``coefficients`` (parameter, y, x) with the attribute ``model``, from which the model's curve is drawn.
    truth : Dataset, optional
        `io.read_truth` of the twin: its displacement, seen along the line of sight unless ``variable`` is vertical
        (``..._up``), from the first date of the series on.
    prior : (mean, std) of DataArray (y, x), optional
        Prior rate and its sd, mm/yr: a line through the origin of the series that opens with time.
    """
    estimate = data[variable]
    out = {"estimate": (estimate, data[f"{variable}_std"])}
    t = xr.DataArray(timefunc.years(data["time"].values), coords={"time": data["time"]}, dims="time")
    if data.attrs.get("model") in timefunc.NAMES[:3] and "coefficients" in data:
        form = timefunc.parse(data.attrs["model"])
        design = xr.DataArray(
            form.design(data["time"].values),
            coords={"time": data["time"], "parameter": list(form.parameters)},
            dims=("time", "parameter"),
        )
        # the parameters that were fitted; the first date is the datum of the series
        out["model"] = (design - design[0]).dot(data["coefficients"], dim="parameter")
    if prior is not None:
        out["prior rate"] = tuple(part.chunk() * (t - t[0]) for part in prior)
    if truth is not None:
        out["truth"] = _as_seen(truth, data, vertical=variable.endswith("_up"))
    return out


def _as_seen(truth: xr.Dataset, data: xr.Dataset, vertical: bool) -> xr.DataArray:
    """Truth (time, y, x) on the grid and in the direction of a derived series, 0 at its first date."""
    here = truth.sel(y=data["y"], x=data["x"], method="nearest").assign_coords(y=data["y"], x=data["x"])
    directions = ("up",) if vertical else ("east", "north", "up")
    parts = [here[f"displacement_{d}"] * (1 if vertical else data[f"los_{d}"]) for d in directions]
    seen = sum(parts[1:], parts[0]).sel(time=slice(data["time"][0], data["time"][-1]))
    return seen - seen.isel(time=0, drop=True)


def explore(
    field: xr.DataArray,
    series: dict[str, xr.DataArray | tuple[xr.DataArray, xr.DataArray]],
    *,
    label: str,
    series_label: str,
    center: float | None = 0.0,
    outlines: dict | None = None,
) -> mpl.figure.Figure:
    """Show a map beside the series of one of its pixels; a click on the map shows another pixel.

    By hand in JupyterLab the figure answers clicks (ipympl); in a batch run it is a static picture of the
    pixel with the largest value among the middle 96 %.

    Parameters
    ----------
    field : DataArray (y, x)
        The map.
    series : dict of str to DataArray or (DataArray, DataArray)
        Series (time, y, x) by name, alone or with their standard deviation (a band of 95 %); `series_of` makes one
        of any derived series.
    label, series_label : str
        Quantity and unit of the map and of the series.
    outlines : dict, optional
        As for `show_map`.
    """
    fig = mpl.figure.Figure(figsize=(WIDTH_IN["double"], 2.9))
    canvas = _live_canvas(fig) if is_live() else FigureCanvasAgg(fig)
    ax, right = fig.subplots(1, 2, width_ratios=[1, 1.15])
    show_map(ax, field, label=label, center=center, outlines=outlines)
    (mark,) = ax.plot([], [], "o", mfc="none", mec="black", ms=7, mew=1.4)

    def draw(x, y):
        right.clear()
        for (name, entry), colour in zip(series.items(), _SERIES_COLOURS, strict=False):
            _draw_series(right, name, entry, colour, x, y)
        right.set(xlabel="year", ylabel=series_label, title=f"pixel at {y:.3f}, {x:.3f}")
        year_axis(right)
        right.legend()
        mark.set_data([x], [y])
        fig.canvas.draw_idle()

    def clicked(event):
        if event.inaxes is ax and event.xdata is not None:
            nearest = field.sel(x=event.xdata, y=event.ydata, method="nearest")
            draw(float(nearest["x"]), float(nearest["y"]))

    # the start: the largest value within the colours, for what lies beyond them is mostly noise
    low, high = limits(field.values, center=center)
    inside = np.abs(field).where((field >= low) & (field <= high))
    start = inside.stack(pixel=("y", "x")).idxmax("pixel").item()
    draw(float(start[1]), float(start[0]))
    fig.canvas.mpl_connect("button_press_event", clicked)
    fig._click = clicked  # keeps the reaction alive as long as the figure
    if is_live():
        canvas.manager.show()
    else:
        picture = io.BytesIO()
        fig.savefig(picture, format="png", metadata={"Software": None})
        show(picture.getvalue())
    return fig


def _draw_series(ax, name, entry, colour, x, y) -> None:
    """Draw one series at a place; a model is dotted, the truth black and dashed whatever its turn."""
    value, std = (
        None if part is None else part.sel(x=x, y=y, method="nearest").compute()
        for part in (entry if isinstance(entry, tuple) else (entry, None))
    )
    style = {"color": "black", "ls": "--", "zorder": 3} if name == "truth" else {"color": colour}
    style |= {"ls": ":", "zorder": 3} if name == "model" else {}
    ax.plot(value["time"], value, label=name, **style)
    if std is not None:
        ax.fill_between(
            value["time"], value - 1.96 * std, value + 1.96 * std, color=style["color"], alpha=0.2, lw=0
        )


def _live_canvas(fig):
    """Give a figure a canvas that answers in the browser, and leave all other figures static."""
    from ipympl.backend_nbagg import Canvas, FigureManager

    canvas = Canvas(fig)
    canvas.header_visible, canvas.toolbar_position = False, "right"
    FigureManager(canvas, 0)
    return canvas
