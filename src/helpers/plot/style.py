"""The look of every figure: print widths, colours, names; and the one way to save one."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

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
#: what a reader does not see: colours that differ by fewer levels, in fewer pixels than a small marker has
COLOUR_STEP, PIXEL_SHARE = 8, 5e-5

mpl.rcdefaults()  # not a user's matplotlibrc: it would change type, or ask for TeX
mpl.style.use(str(files("helpers") / "compendium.mplstyle"))


def figure(
    rows: int = 1, columns: int = 1, *, width: str = "double", height_in: float = 3.2, **keywords
) -> tuple:
    """Make a figure at print width; arguments go on to `matplotlib.pyplot.subplots`."""
    return plt.subplots(rows, columns, figsize=(WIDTH_IN[width], height_in), **keywords)


def named(key: str) -> str:
    """Give what a sensor, a zone or an area of a site file is called in a figure."""
    return NAMES.get(key, key.replace("_", " "))


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


def save(fig: mpl.figure.Figure, site: Site, name: str) -> None:
    """Save a figure as PNG into the site's figure folder, note it as an output, and show it in a notebook.

    No time stamp or software version goes into the file, so two runs give the same bytes. Its every label goes
    in as text (PNG keyword Description), for whoever cannot see the picture and for the spelling test. The
    committed figure of the default site stays as it is where a reader could not tell the two apart
    (`same_picture`); remove the file to have it drawn anew.
    """
    path = site.record(site.figures / f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.set_dpi(mpl.rcParams["savefig.dpi"])  # laid out once, at the size it is drawn
    described = {"Software": None, "Description": "\n".join(labels(fig))}
    fig.set_layout_engine("none")
    picture = io.BytesIO()
    fig.savefig(picture, format="png", metadata=described)
    plt.close(fig)
    if not (site.keeps_committed and same_picture(path, picture)):
        part = path.with_name(path.name + ".part")
        part.write_bytes(picture.getvalue())
        part.replace(path)
    show(path.read_bytes())


def same_picture(old: Path, new: io.BytesIO) -> bool:
    """Say whether two PNG files have the same size and labels and differ in next to no pixel.

    Another processor rounds otherwise: colours move by a level, a line's edge by a hundredth of a pixel. A
    pixel differs if a channel does by more than `COLOUR_STEP` of 255; `PIXEL_SHARE` of them may.
    """
    try:
        with Image.open(old) as a, Image.open(new) as b:
            if a.size != b.size or a.text.get("Description") != b.text.get("Description"):
                return False
            before, after = (np.asarray(image.convert("RGB"), dtype="int16") for image in (a, b))
    except (OSError, SyntaxError):  # none there, or damaged: Pillow calls a broken PNG a syntax error
        return False
    differs = np.abs(before - after).max(axis=-1) > COLOUR_STEP
    return float(differs.mean()) < PIXEL_SHARE


def labels(fig: mpl.figure.Figure) -> list[str]:
    """Give every text a figure shows, once each, in the order it is drawn."""
    fig.draw_without_rendering()  # tick labels get their text when drawn
    texts = (text.get_text().strip() for text in fig.findobj(mpl.text.Text) if text.get_visible())
    return list(dict.fromkeys(text for text in texts if text))


def show(picture: bytes, width_px: int = 792) -> None:
    """Put a picture below the running cell, by hand and in the executed copy alike."""
    from IPython import get_ipython
    from IPython.display import Image, display

    if hasattr(get_ipython(), "kernel"):
        display(Image(picture, width=width_px))
