"""Maps: a field with its colour bar and outlines, and where on Earth it lies."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import matplotlib as mpl
import numpy as np
import xarray as xr
from cartopy.mpl.ticker import LatitudeFormatter, LongitudeFormatter
from cmcrameri import cm
from shapely.geometry.base import BaseGeometry

from helpers.plot.style import NO_DATA, limits, named

OUTLINE = {
    "pits": {"color": "#D55E00", "lw": 0.9},
    "heaps": {"color": "#E69F00", "lw": 0.7},
    "reference": {"color": "#009E73", "lw": 1.2},
    "basin": {"color": "white", "lw": 1.0},
    "study_area": {"color": "black", "lw": 0.8, "ls": "--"},
    "north_east_dark": {"color": "#CC79A7", "lw": 1.0},
}


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


def draw_outline(ax: mpl.axes.Axes, geometry: BaseGeometry, name: str, **keywords) -> None:
    """Draw a polygon's outline in the line style of its name (pits, heaps, reference, basin, ...)."""
    style = {"color": "0.2", "lw": 0.7, **OUTLINE.get(name, {}), **keywords}
    polygons = getattr(geometry, "geoms", [geometry])
    for i, polygon in enumerate(polygons):
        if polygon.geom_type == "Polygon":
            ax.plot(*polygon.exterior.xy, label=named(name) if i == 0 else None, **style)


def scale_bar(ax: mpl.axes.Axes, length_km: float) -> None:
    """Draw a scale bar on a lon/lat axis, lower left."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    degrees = length_km / (111.195 * np.cos(np.deg2rad((y0 + y1) / 2)))
    x, y = x0 + 0.04 * (x1 - x0), y0 + 0.05 * (y1 - y0)
    ax.plot([x, x + degrees], [y, y], color="black", lw=2.5, solid_capstyle="butt")
    ax.text(x + degrees / 2, y + 0.015 * (y1 - y0), f"{length_km:g} km", ha="center", va="bottom", fontsize=7)


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
