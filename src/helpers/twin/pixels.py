"""Independent pixels without rasters, for calibration over hundreds of seeds."""

from __future__ import annotations


def columns(n: int, *, seed: int, winter_loss: float = 0.6, **constants: float) -> dict:
    """To come."""
    raise NotImplementedError
