"""Pictures: one style, print widths, units on every bar, the same bytes every time."""

import matplotlib as mpl
import matplotlib.pyplot as plt

from .figures import (
    COLOURS,
    NAMES,
    NO_DATA,
    OUTLINE,
    WIDTH_IN,
    draw_outline,
    explore,
    figure,
    labels,
    limits,
    locator,
    named,
    natural_earth,
    save,
    scale_bar,
    series_of,
    shade_epoch,
    show_map,
    year_axis,
)

__all__ = [
    "COLOURS",
    "NAMES",
    "NO_DATA",
    "OUTLINE",
    "WIDTH_IN",
    "draw_outline",
    "explore",
    "figure",
    "labels",
    "limits",
    "locator",
    "mpl",
    "named",
    "natural_earth",
    "plt",
    "save",
    "scale_bar",
    "series_of",
    "shade_epoch",
    "show_map",
    "year_axis",
]
