"""Pictures: one style, print widths, units on every bar, the same bytes every time."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from cmcrameri import cm

from helpers.io.site import Site

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

mpl.style.use(str(files("helpers") / "compendium.mplstyle"))


def figure(rows: int = 1, columns: int = 1, *, width: str = "double", height_in: float = 3.2, **keywords):
    """Make a figure at print width; arguments go on to `matplotlib.pyplot.subplots`."""
    return plt.subplots(rows, columns, figsize=(WIDTH_IN[width], height_in), **keywords)


def save(fig: mpl.figure.Figure, site: Site, name: str) -> Path:
    """Save a figure as PNG into the site's figure folder and note it as an output of the notebook.

    No time stamp or software version goes into the file, so two runs give the same bytes.
    """
    path = site.figures / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    fig.savefig(part, format="png", metadata={"Software": None})
    part.replace(path)
    return site.record(path)


def limits(values, percent: float = 2.0, center: float | None = None) -> tuple[float, float]:
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
    ax,
    field: xr.DataArray,
    *,
    label: str,
    center: float | None = None,
    cmap=None,
    vmin: float | None = None,
    vmax: float | None = None,
    colorbar: bool = True,
    outlines: dict | None = None,
    title: str = "",
):
    """Draw a field (y, x) with its colour bar; no data is light grey.

    Parameters
    ----------
    label : str
        Quantity and unit, as it stands at the colour bar.
    center : float, optional
        Middle of a diverging map (0 for rates); without it the map is sequential.
    outlines : dict, optional
        Name to lon/lat polygon (`io.read_areas`), drawn as thin lines.
    """
    low, high = limits(field.values, center=center)
    low, high = low if vmin is None else vmin, high if vmax is None else vmax
    cmap = cmap or (cm.vik_r if center is not None else cm.batlow)
    ax.set_facecolor("0.88")
    x, y = _edges(field["x"].values), _edges(field["y"].values)
    mesh = ax.pcolormesh(x, y, field.values, cmap=cmap, vmin=low, vmax=high, rasterized=True)
    degrees = field.rio.crs is not None and field.rio.crs.is_geographic if hasattr(field, "rio") else False
    ax.set_aspect(1 / np.cos(np.deg2rad(float(field["y"].mean()))) if degrees else "equal")
    if degrees:
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        ax.xaxis.set_major_formatter("{x:.1f}°E" if x.mean() > 0 else "{x:.2f}°")
        ax.yaxis.set_major_formatter("{x:.1f}°N" if np.ptp(y) > 0.2 else "{x:.2f}°N")
    for name, polygon in (outlines or {}).items():
        draw_outline(ax, polygon, name)
    if colorbar:
        beyond = _extend(field.values, low, high)
        # an inset is as high as the map itself, whatever room the layout gives
        bar = ax.figure.colorbar(mesh, cax=ax.inset_axes([1.03, 0.0, 0.04, 1.0]), label=label, extend=beyond)
        bar.outline.set_linewidth(0.5)
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


def draw_outline(ax, geometry, name: str, **keywords) -> None:
    """Draw a polygon's outline in the line style of its name (pits, heaps, reference, basin, ...)."""
    style = {"color": "0.2", "lw": 0.7, **OUTLINE.get(name, {}), **keywords}
    polygons = getattr(geometry, "geoms", [geometry])
    for i, polygon in enumerate(polygons):
        if polygon.geom_type == "Polygon":
            ax.plot(*polygon.exterior.xy, label=name.replace("_", " ") if i == 0 else None, **style)


def year_axis(ax, start: str, end: str) -> None:
    """Put whole years on a time axis."""
    ax.set_xlim(np.datetime64(start), np.datetime64(end))
    ax.xaxis.set_major_locator(mpl.dates.AutoDateLocator(minticks=3, maxticks=8))
    ax.xaxis.set_major_formatter(mpl.dates.DateFormatter("%Y"))


def shade_epoch(ax, epochs, label: str = "during", **keywords) -> None:
    """Shade one period of the site's epochs on a time axis."""
    for row in epochs[epochs["label"] == label].itertuples():
        ax.axvspan(row.start, row.end, color=COLOURS.get(label, "0.8"), alpha=0.10, lw=0, **keywords)


@cache
def natural_earth() -> dict:
    """Coast and border lines committed with the package, so that drawing needs no network."""
    return json.loads((files("helpers") / "natural_earth.json").read_text(encoding="utf-8"))


def locator(ax, lon: float, lat: float) -> None:
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
    ax.plot(lon, lat, marker="*", ms=8, color="#D55E00", mec="black", mew=0.4, transform=plate)


def scale_bar(ax, length_km: float) -> None:
    """Draw a scale bar on a lon/lat axis, lower left."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    degrees = length_km / (111.195 * np.cos(np.deg2rad((y0 + y1) / 2)))
    x, y = x0 + 0.04 * (x1 - x0), y0 + 0.05 * (y1 - y0)
    ax.plot([x, x + degrees], [y, y], color="black", lw=2.5, solid_capstyle="butt")
    ax.text(x + degrees / 2, y + 0.015 * (y1 - y0), f"{length_km:g} km", ha="center", va="bottom", fontsize=7)


def explore(field: xr.DataArray, series: dict, *, label: str, series_label: str, center: float | None = 0.0):
    """Show a map beside the series of one of its pixels; a click on the map shows another pixel.

    By hand in JupyterLab the figure answers clicks (ipympl); under papermill, or with another backend,
    it is a static picture of the pixel with the largest value.

    Parameters
    ----------
    field : DataArray (y, x)
        The map.
    series : dict of str to DataArray or (DataArray, DataArray)
        Series (time, y, x) by name: the estimate with its standard deviation, the truth alone, ...
    label, series_label : str
        Quantity and unit of the map and of the series.

    Returns
    -------
    matplotlib.figure.Figure
    """
    _widget_backend()
    fig, (ax, right) = figure(1, 2, height_in=3.0, width_ratios=[1, 1.2])
    show_map(ax, field, label=label, center=center)
    (mark,) = ax.plot([], [], "o", mfc="none", mec="black", ms=7)

    def show(x, y):
        right.clear()
        for (name, entry), colour in zip(
            series.items(), ("#0072B2", "#D55E00", "#000000", "#009E73"), strict=False
        ):
            value, std = entry if isinstance(entry, tuple) else (entry, None)
            value = value.sel(x=x, y=y, method="nearest").compute()
            dashed = "--" if name == "truth" else "-"
            right.plot(value["time"], value, dashed, color=colour, label=name)
            if std is not None:
                half = 1.96 * std.sel(x=x, y=y, method="nearest").compute()
                right.fill_between(value["time"], value - half, value + half, color=colour, alpha=0.2, lw=0)
        right.set(xlabel="year", ylabel=series_label, title=f"{y:.3f}, {x:.3f}")
        right.legend()
        mark.set_data([x], [y])
        fig.canvas.draw_idle()

    def clicked(event):
        if event.inaxes is ax and event.xdata is not None:
            show(float(event.xdata), float(event.ydata))

    strongest = np.abs(field).where(np.isfinite(field)).stack(pixel=("y", "x")).idxmax("pixel").item()
    show(float(strongest[1]), float(strongest[0]))
    fig.canvas.mpl_connect("button_press_event", clicked)
    fig._click = clicked  # keeps the reaction alive as long as the figure
    return fig


def _widget_backend() -> None:
    """Switch to ipympl in a live notebook; a batch run says MPLBACKEND=agg and stays static."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is not None and os.environ.get("MPLBACKEND", "").lower() != "agg" and hasattr(shell, "kernel"):
        shell.run_line_magic("matplotlib", "widget")
