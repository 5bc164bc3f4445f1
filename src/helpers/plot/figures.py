"""Pictures: one style, print widths, units on every bar, the same bytes every time."""

from __future__ import annotations

import io
import json
from functools import cache
from importlib.resources import files

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from cartopy.mpl.ticker import LatitudeFormatter, LongitudeFormatter
from cmcrameri import cm
from matplotlib.backends.backend_agg import FigureCanvasAgg
from shapely.geometry.base import BaseGeometry

from helpers import timefunc
from helpers.io.site import Site, is_live

WIDTH_IN = {"single": 3.5, "double": 7.2}
#: one colour per period, sensor and zone, the same in every figure (Okabe-Ito, safe for colour-blind readers)
COLOURS = {
    "before": "#0072B2",
    "during": "#D55E00",
    "after": "#CC79A7",
    "ers": "#56B4E9",
    "envisat": "#0072B2",
    "alos1": "#E69F00",
    "alos2": "#D55E00",
    "s1_desc": "#009E73",
    "s1_asc": "#CC79A7",
    "mined": "#D55E00",
    "near_mine": "#E69F00",
    "control": "#0072B2",
    "truth": "#000000",
}

#: what a key of a site file is called in a figure
NAMES = {
    "s1": "Sentinel-1",
    "s1_desc": "Sentinel-1 desc.",
    "s1_asc": "Sentinel-1 asc.",
    "alos1": "ALOS-1",
    "alos2": "ALOS-2",
    "ers": "ERS",
    "envisat": "ENVISAT",
    "reference": "reference area",
    "north_east_dark": "dark zone, north-east",
}
NO_DATA = "0.68"  # darker than the middle of a diverging map, so that "none" and "zero" differ

mpl.style.use(str(files("helpers") / "compendium.mplstyle"))


def figure(
    rows: int = 1, columns: int = 1, *, width: str = "double", height_in: float = 3.2, **keywords
) -> tuple:
    """Make a figure at print width; arguments go on to `matplotlib.pyplot.subplots`."""
    return plt.subplots(rows, columns, figsize=(WIDTH_IN[width], height_in), **keywords)


def named(key: str) -> str:
    """Give what a sensor, a zone or an area of a site file is called in a figure."""
    return NAMES.get(key, key.replace("_", " "))


def save(fig: mpl.figure.Figure, site: Site, name: str) -> None:
    """Save a figure as PNG into the site's figure folder, note it as an output, and show it in a notebook.

    No time stamp or software version goes into the file, so two runs give the same bytes. Its every label goes
    in as text (PNG keyword Description), for whoever cannot see the picture and for the spelling test.
    """
    path = site.figures / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    fig.set_dpi(mpl.rcParams["savefig.dpi"])  # laid out once, at the size it is drawn
    told = {"Software": None, "Description": "\n".join(labels(fig))}
    fig.set_layout_engine("none")
    fig.savefig(part, format="png", metadata=told)
    part.replace(path)
    plt.close(fig)
    site.record(path)
    _show(path.read_bytes())


def labels(fig: mpl.figure.Figure) -> list[str]:
    """Give every text a figure shows, once each, in the order it is drawn."""
    fig.draw_without_rendering()  # tick labels get their text when drawn
    texts = (text.get_text().strip() for text in fig.findobj(mpl.text.Text) if text.get_visible())
    return list(dict.fromkeys(text for text in texts if text))


def _show(picture: bytes, width_px: int = 792) -> None:
    """Put a picture below the running cell, by hand and in the executed copy alike."""
    from IPython import get_ipython
    from IPython.display import Image, display

    if hasattr(get_ipython(), "kernel"):
        display(Image(picture, width=width_px))


def limits(values: np.ndarray, percent: float = 2.0, center: float | None = None) -> tuple[float, float]:
    """Give colour limits that leave out ``percent`` at either end, symmetric about ``center`` if given."""
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return (-1.0, 1.0) if center is not None else (0.0, 1.0)
    low, high = np.percentile(finite, [percent, 100 - percent])
    if center is not None:
        reach = max(abs(low - center), abs(high - center)) or 1.0
        return center - reach, center + reach
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def show_map(
    ax: mpl.axes.Axes,
    field: xr.DataArray,
    *,
    label: str,
    center: float | None = None,
    cmap: mpl.colors.Colormap | str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    log: bool = False,
    colorbar: bool = True,
    outlines: dict | None = None,
    title: str = "",
) -> mpl.collections.QuadMesh:
    """Draw a field (y, x) with its colour bar; no data is grey.

    Parameters
    ----------
    label : str
        Quantity and unit, as it stands at the colour bar.
    center : float, optional
        Middle of a diverging map (0 for rates); without it the map is sequential.
    log : bool
        Colours by the logarithm, for what spans powers of ten; give ``vmin`` and ``vmax`` above 0.
    outlines : dict, optional
        Name to lon/lat polygon (`io.read_areas`), drawn as thin lines.
    """
    low, high = limits(field.values, center=center)
    low, high = low if vmin is None else vmin, high if vmax is None else vmax
    cmap = cmap or (cm.vik_r if center is not None else cm.batlow)
    ax.set_facecolor(NO_DATA)
    x, y = _edges(field["x"].values), _edges(field["y"].values)
    norm = (mpl.colors.LogNorm if log else mpl.colors.Normalize)(low, high)
    mesh = ax.pcolormesh(x, y, field.values, cmap=cmap, norm=norm, rasterized=True)
    degrees = field.rio.crs is not None and field.rio.crs.is_geographic if hasattr(field, "rio") else False
    ax.set_aspect(1 / np.cos(np.deg2rad(float(field["y"].mean()))) if degrees else "equal")
    ax.set_anchor("N")  # where its neighbours are taller, the titles stay in line
    if degrees:
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        ax.xaxis.set_major_formatter(LongitudeFormatter(number_format="g"))
        ax.yaxis.set_major_formatter(LatitudeFormatter(number_format="g"))
    for name, polygon in (outlines or {}).items():
        draw_outline(ax, polygon, name)
    ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))  # an outline may reach beyond the map
    if colorbar:
        beyond = _extend(field.values, low, high)
        # an inset is as high as the map itself, whatever room the layout gives
        bar = ax.figure.colorbar(mesh, cax=ax.inset_axes([1.03, 0.0, 0.04, 1.0]), label=label, extend=beyond)
        bar.outline.set_linewidth(0.5)
        if log:
            bar.ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            bar.ax.yaxis.set_major_formatter("{x:g}")
            bar.minorticks_off()
    if title:
        ax.set_title(title)
    return mesh


def _extend(values, low, high) -> str:
    with np.errstate(invalid="ignore"):
        under, over = bool((values < low).any()), bool((values > high).any())
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((under, over), "neither")


def _edges(centres: np.ndarray) -> np.ndarray:
    step = centres[1] - centres[0] if centres.size > 1 else 1.0
    return np.append(centres - step / 2, centres[-1] + step / 2)


OUTLINE = {
    "pits": {"color": "#D55E00", "lw": 0.9},
    "heaps": {"color": "#E69F00", "lw": 0.7},
    "reference": {"color": "#009E73", "lw": 1.2},
    "basin": {"color": "white", "lw": 1.0},
    "study_area": {"color": "black", "lw": 0.8, "ls": "--"},
    "north_east_dark": {"color": "#CC79A7", "lw": 1.0},
}


def draw_outline(ax: mpl.axes.Axes, geometry: BaseGeometry, name: str, **keywords) -> None:
    """Draw a polygon's outline in the line style of its name (pits, heaps, reference, basin, ...)."""
    style = {"color": "0.2", "lw": 0.7, **OUTLINE.get(name, {}), **keywords}
    polygons = getattr(geometry, "geoms", [geometry])
    for i, polygon in enumerate(polygons):
        if polygon.geom_type == "Polygon":
            ax.plot(*polygon.exterior.xy, label=named(name) if i == 0 else None, **style)


def year_axis(ax: mpl.axes.Axes, start: str | None = None, end: str | None = None) -> None:
    """Put whole years on a time axis, months where it is shorter than three years; ``start``, ``end`` limit it."""
    if start is not None:
        ax.set_xlim(np.datetime64(start), np.datetime64(end))
    years = np.ptp(ax.get_xlim()) / 365.25
    if years < 3:
        locator = mpl.dates.MonthLocator(interval=max(1, round(12 * years / 6)))
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(mpl.dates.ConciseDateFormatter(locator))
    else:
        ax.xaxis.set_major_locator(mpl.dates.YearLocator(int(np.ceil(years / 7))))
        ax.xaxis.set_major_formatter(mpl.dates.DateFormatter("%Y"))


def shade_epoch(ax: mpl.axes.Axes, epochs: pd.DataFrame, label: str = "during", **keywords) -> None:
    """Shade one period of the site's epochs on a time axis."""
    for row in epochs[epochs["label"] == label].itertuples():
        ax.axvspan(row.start, row.end, color=COLOURS.get(label, "0.8"), alpha=0.10, lw=0, **keywords)


@cache
def natural_earth() -> dict:
    """Coast and border lines committed with the package, so that drawing needs no network."""
    return json.loads((files("helpers") / "natural_earth.json").read_text(encoding="utf-8"))


def locator(ax: mpl.axes.Axes, lon: float, lat: float) -> None:
    """Fill a cartopy axis with coasts and borders around a place, and mark the place."""
    import cartopy.crs as ccrs

    near = 75 < lon < 130 and 15 < lat < 52
    lines, reach = (natural_earth()["asia"], 20.0) if near else (natural_earth()["world"], 40.0)
    plate = ccrs.PlateCarree()
    # the extent comes first: cartopy re-projects every line for the view it has
    ax.set_extent([lon - reach, lon + reach, max(lat - 0.7 * reach, -85), min(lat + 0.7 * reach, 85)], plate)
    for kind, style in (("coast", {"lw": 0.6, "color": "0.1"}), ("border", {"lw": 0.4, "color": "0.5"})):
        for line in lines[kind]:
            ax.plot(*np.array(line).T, transform=plate, **style)
    if near:
        ax.fill(*np.array(natural_earth()["lake"]).T, color="#56B4E9", transform=plate, lw=0)
        for country, place in {"China": (104, 33), "Mongolia": (103, 46.3), "India": (83, 25.5)}.items():
            ax.text(*place, country, fontsize=6, color="0.35", ha="center", transform=plate, clip_on=True)
    steps = np.array([-0.5, 0.0, 0.5]) * reach
    east, north = (np.unique(10 * np.round((middle + steps) / 10)) for middle in (lon, lat))
    ax.set_xticks(east, crs=plate)
    ax.set_yticks(north, crs=plate)
    ax.xaxis.set_major_formatter(LongitudeFormatter())
    ax.yaxis.set_major_formatter(LatitudeFormatter())
    ax.plot(lon, lat, marker="*", ms=7, color="#D55E00", mec="black", mew=0.4, transform=plate)


def scale_bar(ax: mpl.axes.Axes, length_km: float) -> None:
    """Draw a scale bar on a lon/lat axis, lower left."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    degrees = length_km / (111.195 * np.cos(np.deg2rad((y0 + y1) / 2)))
    x, y = x0 + 0.04 * (x1 - x0), y0 + 0.05 * (y1 - y0)
    ax.plot([x, x + degrees], [y, y], color="black", lw=2.5, solid_capstyle="butt")
    ax.text(x + degrees / 2, y + 0.015 * (y1 - y0), f"{length_km:g} km", ha="center", va="bottom", fontsize=7)


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

    def show(x, y):
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
            show(float(nearest["x"]), float(nearest["y"]))

    # the start: the largest value within the colours, for what lies beyond them is mostly noise
    low, high = limits(field.values, center=center)
    inside = np.abs(field).where((field >= low) & (field <= high))
    start = inside.stack(pixel=("y", "x")).idxmax("pixel").item()
    show(float(start[1]), float(start[0]))
    fig.canvas.mpl_connect("button_press_event", clicked)
    fig._click = clicked  # keeps the reaction alive as long as the figure
    if is_live():
        canvas.manager.show()
    else:
        picture = io.BytesIO()
        fig.savefig(picture, format="png", metadata={"Software": None})
        _show(picture.getvalue())
    return fig


_SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


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
