"""Parity on real Sentinel-1 interferograms (Mexico City, 13 dates, 30 pairs): with numpy, and with MintPy 1.6.4."""

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from helpers import sbas

TOLERANCE_MM = 1e-3


@pytest.fixture(scope="module")
def folder(request):
    mirror = request.getfixturevalue("mirror")
    return mirror / "sentinel1_mexico" / "mintpy_1.6.4_reference"


@pytest.fixture(scope="module")
def stack(folder):
    """The stack as MintPy saw it: minus its reference pixel; 0 is no data only where coherence is 0 or NaN."""
    with h5py.File(folder / "ifgramStack.h5") as file:
        phase, coherence = file["unwrapPhase"][:], file["coherence"][:]
        dates = pd.to_datetime(file["date"][:].astype(str).ravel(), format="%Y%m%d").to_numpy().reshape(-1, 2)
        attrs = {
            name: float(file.attrs[name]) for name in ("WAVELENGTH", "REF_X", "REF_Y", "ALOOKS", "RLOOKS")
        }
    no_data = np.isnan(phase) | ((phase == 0) & ~(coherence > 0))
    phase = np.where(no_data, np.nan, phase)
    phase = phase - phase[:, int(attrs["REF_Y"]), int(attrs["REF_X"])][:, None, None]
    return xr.Dataset(
        {"unwrapped_phase": (("pair", "y", "x"), phase), "coherence": (("pair", "y", "x"), coherence)},
        coords={"reference": ("pair", dates[:, 0]), "secondary": ("pair", dates[:, 1])},
        attrs={"wavelength_m": attrs["WAVELENGTH"], "looks": attrs["ALOOKS"] * attrs["RLOOKS"] / 1.94},
    )


@pytest.fixture(scope="module")
def classical(stack):
    return sbas.invert(stack, model=None, weights=None)


def least_squares(stack):
    """Displacement (time, y, x) by numpy float64, pixel by pixel; NaN where a pixel's pairs do not reach."""
    dates, first, second = sbas.network_of(stack)
    incidence = np.zeros((len(first), len(dates)))
    incidence[np.arange(len(first)), first], incidence[np.arange(len(first)), second] = -1, 1
    incidence = incidence[:, 1:]
    y = stack["unwrapped_phase"].values.reshape(len(first), -1).astype(float)
    y = -1000 * stack.attrs["wavelength_m"] / (4 * np.pi) * y
    out = np.full((len(dates), y.shape[1]), np.nan)
    there = np.isfinite(y)
    patterns, which = np.unique(there, axis=1, return_inverse=True)
    for number, here in enumerate(patterns.T):
        pixels = np.flatnonzero(which == number)
        if not here.any():
            continue
        x, _, rank, _ = np.linalg.lstsq(incidence[here], y[here][:, pixels], rcond=None)
        reached = (
            np.abs(np.eye(len(dates) - 1) - np.linalg.pinv(incidence[here]) @ incidence[here]).max(axis=1)
            < 1e-9
        )
        assert reached.all() == (rank == len(dates) - 1)
        out[1:, pixels] = np.where(reached[:, None], x, np.nan)
        out[0, pixels] = 0
    return out.reshape(len(dates), *stack["unwrapped_phase"].shape[1:])


def test_equals_numpy_least_squares(stack, classical):
    """Full and partial pixels: within 1e-3 mm of float64 lstsq wherever the data determine a date, NaN elsewhere."""
    expected = least_squares(stack)
    np.testing.assert_array_equal(classical["displacement"].isnull(), np.isnan(expected))
    assert np.nanmax(np.abs(classical["displacement"] - expected)) <= TOLERANCE_MM
    partial = (classical["n_pairs"] < 30) & (classical["n_pairs"] > 0)
    assert partial.any() and classical["displacement"].where(partial).notnull().any()


def test_equals_mintpy_without_weights(folder, classical):
    """MintPy `-w no`: series and temporal coherence of all full pixels; the reference pixel stays zero."""
    with h5py.File(folder / "timeseries_w-no.h5") as file:
        series = file["timeseries"][:] * 1000
    with h5py.File(folder / "temporalCoherence_w-no.h5") as file:
        coherence = file["temporalCoherence"][:]
    full = (classical["n_pairs"] == 30).values
    assert full.mean() > 0.9
    assert np.abs(classical["displacement"].values - series)[:, full].max() <= TOLERANCE_MM
    away = full.copy()
    away[9, 8] = False  # MintPy sets its reference pixel apart
    np.testing.assert_allclose(classical["temporal_coherence"].values[away], coherence[away], atol=1e-4)
    assert (classical["displacement"][:, 9, 8] == 0).all() and classical["n_pairs"][9, 8] == 30


def test_phase_variance_reproduces_mintpys_weights(folder, stack):
    """MintPy `-w var` (8 looks, coherence as it is, from 0.05): our variance in plain WLS gives its series.

    To 0.1 mm, because MintPy reads its variance from a coarse table; equal weights are more than 1 mm off.
    """
    with h5py.File(folder / "timeseries_w-var.h5") as file:
        series = file["timeseries"][:] * 1000
    dates, first, second = sbas.network_of(stack)
    incidence = np.zeros((len(first), len(dates)))
    incidence[np.arange(len(first)), first], incidence[np.arange(len(first)), second] = -1, 1
    coherence = np.clip(stack["coherence"].values, 0.05, 0.999)
    weight = 1 / np.sqrt(sbas.phase_variance(coherence, 8, debias=False))
    y = -1000 * stack.attrs["wavelength_m"] / (4 * np.pi) * stack["unwrapped_phase"].values
    full = np.argwhere(np.isfinite(y).all(axis=0))
    unweighted = 0.0
    for row, column in full[:: len(full) // 200]:
        w = weight[:, row, column]
        x = np.linalg.lstsq(incidence[:, 1:] * w[:, None], y[:, row, column] * w, rcond=None)[0]
        np.testing.assert_allclose(x, series[1:, row, column], rtol=0, atol=0.1)
        x = np.linalg.lstsq(incidence[:, 1:], y[:, row, column], rcond=None)[0]
        unweighted = max(unweighted, np.abs(x - series[1:, row, column]).max())
    assert unweighted > 1


def test_velocity_equals_mintpys(folder, classical):
    """The rate of classical SBAS is the least-squares slope of the series, as MintPy's velocity.h5."""
    with h5py.File(folder / "velocity_w-no.h5") as file:
        velocity = file["velocity"][:] * 1000
    full = (classical["n_pairs"] == 30).values
    np.testing.assert_allclose(classical["rate"].values[full], velocity[full], atol=2e-3)


def test_every_mode_solves_real_pixels(stack):
    """The Bayesian default gives finite rate and std wherever there are data for four coefficients."""
    out = sbas.invert(
        stack.assign_attrs(sensor="s1_desc"), "linear", deviation_std_mm=5.0, atmosphere_std_mm=3.0
    )
    some = out["n_pairs"] > 0
    assert (
        out["rate"].where(some, 0).notnull().all() and out["displacement_std"].where(some, 0).notnull().all()
    )
