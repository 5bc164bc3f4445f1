"""Pictures: one style, print widths, units on every bar, the same bytes every time."""

import matplotlib as mpl
import matplotlib.pyplot as plt

from helpers.plot.explorer import explore, series_of
from helpers.plot.intervals import year_axis
from helpers.plot.maps import OUTLINE, draw_outline, locator, scale_bar, show_map
from helpers.plot.style import COLOURS, NAMES, NO_DATA, WIDTH_IN, figure, limits, named, save

__all__ = [
    "COLOURS",
    "NAMES",
    "NO_DATA",
    "OUTLINE",
    "WIDTH_IN",
    "draw_outline",
    "explore",
    "figure",
    "limits",
    "locator",
    "mpl",
    "named",
    "plt",
    "save",
    "scale_bar",
    "series_of",
    "show_map",
    "year_axis",
]
