"""Axes of time, and numbers with their intervals."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np


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
