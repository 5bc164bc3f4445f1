"""Compile what 02 solves with into numba's cache (`python -m helpers.compile_kernels`); `make` does so beside 01."""

import numpy as np
import xarray as xr

from helpers import network, sbas


def main() -> None:
    """Invert two pixels of five dates with and without a model, and look for unwrapping errors in their loops."""
    dates = np.arange("2016-01-01", "2016-03-01", 12, dtype="datetime64[D]").astype("datetime64[ns]")
    first, second = np.array([(i, j) for i in range(5) for j in (i + 1, i + 2) if j < 5]).T
    maps = (("pair", "y", "x"), np.full((len(first), 1, 2), 0.5, "float32"))
    stack = xr.Dataset(
        {"unwrapped_phase": maps, "coherence": maps},
        coords={"reference": ("pair", dates[first]), "secondary": ("pair", dates[second])},
        attrs={"wavelength_m": 0.0555, "looks": 40.0},
    )
    for model in ("linear", None):
        sbas.invert(stack, model)
    network.correct_unwrapping(stack)


if __name__ == "__main__":
    main()
