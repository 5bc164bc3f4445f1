"""Readers and writers of interferogram stacks: formats to the letter, signs, zeros, and what is refused.

LiCSAR and HyP3 folders are built here to the letter of their documentation; MintPy and loose GeoTIFFs are also
read from real files where DATA_MIRROR has them.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine, from_origin

from helpers import io, sbas
from readers.insar import write_mintpy_stack
from readers.stack import apply_zero_rule

SHAPE = (6, 8)
DEGREES = from_origin(99.0, 38.2, 0.005, 0.005)
METRES = from_origin(500_000.0, 4_230_000.0, 80.0, 80.0)
DATES = ("20200604", "20200616", "20200628")
PAIRS = ((0, 1), (1, 2), (0, 2))
THETA = np.radians(39.0)
HEADING = -169.5  # descending


def write_tif(path, values, transform=DEGREES, crs="EPSG:4326", nodata=0, **tags):
    """Write one band as GeoTIFF."""
    values = np.asarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": values.dtype,
        "crs": crs,
    }
    with rasterio.open(path, "w", transform=transform, nodata=nodata, **profile) as file:
        file.write(values, 1)
        if tags:
            file.update_tags(**tags)
    return path


def moved(transform, columns, rows):
    """Shift the corner of a grid by columns and rows."""
    t = transform
    return Affine(t.a, t.b, t.c + columns * t.a, t.d, t.e, t.f + rows * t.e)


def true_phase(k, shape=SHAPE):
    """Phase of pair k, 0 where a processor has masked it: at (0, 0), and at (2, 3) where it left the coherence."""
    phase = (np.arange(np.prod(shape), dtype="f4").reshape(shape) + 1) * (k + 1) * 0.1
    phase[2, 3] = 0
    phase[0, 0] = 0
    return phase


def true_coherence(shape=SHAPE):
    """Coherence 0.6, none where there is no data."""
    coherence = np.full(shape, 0.6, "f4")
    coherence[0, 0] = 0
    return coherence


def los_vector():
    """Unit vector to a satellite that flies south and looks right."""
    side = np.radians(HEADING - 90)
    return np.sin(THETA) * np.sin(side), np.sin(THETA) * np.cos(side), np.cos(THETA)


def licsar(folder, *, byte=True, columns=4, beside=False, names=None, encoding="utf-8"):
    """Build a LiCSAR GEOC folder of three pairs."""
    geoc = folder / "GEOC"
    for k, (i, j) in enumerate(PAIRS):
        name = names[k] if names else f"{DATES[i]}_{DATES[j]}"
        write_tif(geoc / name / f"{name}.geo.unw.tif", true_phase(k))
        coherence = np.round(true_coherence() * 255).astype("u1") if byte else true_coherence()
        write_tif(geoc / name / f"{name}.geo.cc.tif", coherence)
    place = folder if beside else geoc
    for letter, value in zip("ENU", los_vector(), strict=True):
        write_tif(place / f"021D_04972_131213.geo.{letter}.tif", np.full(SHAPE, value, "f4"))
    write_tif(place / "021D_04972_131213.geo.hgt.tif", np.full(SHAPE, 4000, "f4"))
    bperp = (0.0, 50.0, -20.0)
    if columns == 4:
        rows = [f"{DATES[0]} {d} {b:.1f} {12 * k}" for k, (d, b) in enumerate(zip(DATES, bperp, strict=True))]
    else:
        rows = [f"{k} {DATES[0]} {DATES[k]} {bperp[k]} {12 * k} 0 {12 * k} 0.0 {bperp[k]}" for k in (1, 2)]
    (place / "baselines").write_text("\n".join(rows) + "\n")
    text = f"master={DATES[0]}\r\ncenter_time=23:18:41\r\nheading={HEADING}\r\navg_incidence_angle=39.0\r\n"
    (place / "metadata.txt").write_bytes(text.encode(encoding))
    return folder


def hyp3(folder, *, kind="gamma", shift=(0, 0), flat=False):
    """Build a folder of HyP3 products; the second is cut by `shift` rows and columns at the upper left."""
    for k, (i, j) in enumerate(PAIRS):
        name = {
            "gamma": f"S1AA_{DATES[i]}T135156_{DATES[j]}T135157_VVP012_INT80_G_ueF_F8B{k}",
            "burst": f"S1_136231_IW2_{DATES[i]}_{DATES[j]}_VV_INT80_12E{k}",
            "multi": f"S1_136_000000s1n00-136231s2n02-000000s3n00_IW_{DATES[i]}_{DATES[j]}_VV_INT80_12E{k}",
        }[kind]
        row, column = shift if k == 1 else (0, 0)
        transform = moved(METRES, column, row)
        cut = (slice(row, None), slice(column, None))
        place = folder if flat else folder / name
        east, north, up = los_vector()
        layers = {
            "unw_phase": true_phase(k),
            "corr": true_coherence(),
            "lv_theta": np.full(SHAPE, np.arcsin(up), "f4"),
            "lv_phi": np.full(SHAPE, np.arctan2(north, east), "f4"),
            "dem": np.full(SHAPE, 4000, "f4"),
        }
        if kind == "multi":
            layers["conncomp"] = (true_coherence() > 0).astype("f4")
        for layer, values in layers.items():
            write_tif(place / f"{name}_{layer}.tif", values[cut].astype("f4"), transform, "EPSG:32647")
        text = f"Reference Granule: S1A\nBaseline: {10.5 * (k + 1)}\nHeading: {HEADING}\n"
        text += "Range looks: 20\nAzimuth looks: 4\nSlant range center: 853000\n"
        (place / f"{name}.txt").write_text(text)
    return folder


def mintpy(folder, *, geometry=True, **changes):
    """Build a MintPy ifgramStack.h5; `changes` replace attributes (None removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    attrs = {
        "FILE_TYPE": "ifgramStack", "WIDTH": SHAPE[1], "LENGTH": SHAPE[0], "WAVELENGTH": 0.2384, "EPSG": 4326,
        "X_FIRST": 99.0, "Y_FIRST": 38.2, "X_STEP": 0.005, "Y_STEP": -0.005, "X_UNIT": "degrees", "UNIT": "radian",
        "ORBIT_DIRECTION": "DESCENDING", "HEADING": HEADING, "ANTENNA_SIDE": -1, "PLATFORM": "Alos2", "ALOOKS": 16,
        "RLOOKS": 8, "REF_Y": 2, "REF_X": 3,
    } | changes  # fmt: skip
    attrs = {k: str(v) for k, v in attrs.items() if v is not None}
    with h5py.File(folder / "ifgramStack.h5", "w") as file:
        file["unwrapPhase"] = np.array([true_phase(k) for k in range(3)])
        file["coherence"] = np.array([true_coherence()] * 3)
        file["date"] = np.array([[DATES[i], DATES[j]] for i, j in PAIRS], "S8")
        file["bperp"] = np.array([1, 2, 3], "f4")
        file["dropIfgram"] = np.ones(3, bool)
        file.attrs.update(attrs)
    if geometry:
        with h5py.File(folder / "geometryGeo.h5", "w") as file:
            file["incidenceAngle"] = np.full(SHAPE, 39.0, "f4")
            file["azimuthAngle"] = np.full(SHAPE, 90 - HEADING - 360, "f4")
            file["height"] = np.full(SHAPE, 4000, "f4")
            file["slantRangeDistance"] = np.full(SHAPE, 740_000, "f4")
            file.attrs.update(attrs | {"FILE_TYPE": "geometry"})
    return folder / "ifgramStack.h5"


def loose(folder, names=None, **keywords):
    """Write loose GeoTIFF pairs; return lists of phase and coherence files."""
    names = names or [f"{DATES[i]}-{DATES[j]}" for i, j in PAIRS]
    phase = [write_tif(folder / f"crop_{n}_unw.tif", true_phase(k), **keywords) for k, n in enumerate(names)]
    coherence = [write_tif(folder / f"crop_{n}_cc.tif", true_coherence()) for n in names]
    return phase, coherence


def assert_true(stack, zero=np.nan):
    """Hold the stack to the phase, coherence, dates and geometry every builder writes; `zero`: pixel (2, 3)."""
    order = [0, 2, 1]  # sorted by reference, then secondary date
    for k, pair in enumerate(order):
        expected = true_phase(pair)
        expected[0, 0], expected[2, 3] = np.nan, zero
        np.testing.assert_array_equal(stack["unwrapped_phase"][k], expected)
    assert stack["unwrapped_phase"].dtype == np.float32
    assert np.isnan(stack["coherence"].values[:, 0, 0]).all()
    assert np.nanmax(np.abs(stack["coherence"] - 0.6)) < 0.002
    days = pd.to_datetime(DATES)
    assert list(pd.to_datetime(stack["reference"].values)) == [days[0], days[0], days[1]]
    assert list(pd.to_datetime(stack["secondary"].values)) == [days[1], days[2], days[2]]
    east, north, up = los_vector()
    for name, value in (("los_east", east), ("los_north", north), ("los_up", up), ("incidence_angle", 39.0)):
        np.testing.assert_allclose(stack[name], value, rtol=2e-5, err_msg=name)
    assert stack.attrs["orbit_direction"] == "descending"
    assert float(stack["height"][1, 1]) == 4000


# --- each format ---------------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [True, False])
@pytest.mark.parametrize("beside", [True, False])
def test_licsar_frame_is_read_to_the_letter(tmp_path, byte, beside):
    """Byte or float coherence, frame files in GEOC or beside: the same stack, cell centres half a pixel in."""
    stack = io.read_stack(licsar(tmp_path, byte=byte, beside=beside))
    assert_true(stack)
    assert float(stack["x"][0]) == pytest.approx(99.0025)
    assert float(stack["y"][0]) == pytest.approx(38.1975)
    assert stack.rio.crs.to_epsg() == 4326
    assert stack.attrs["wavelength_m"] == pytest.approx(0.0554658, abs=1e-7)
    assert stack.attrs["looks"] == pytest.approx(80 / 1.94) and "looks_assumed" in stack.attrs
    xr.testing.assert_identical(stack, io.read_stack(tmp_path / "GEOC"))


@pytest.mark.parametrize("columns", [4, 9])
def test_licsar_baselines_of_both_forms_give_the_same_pairs(tmp_path, columns):
    """The per-date file of 4 or 9 columns gives B(secondary) - B(reference)."""
    stack = io.read_stack(licsar(tmp_path, columns=columns))
    np.testing.assert_allclose(stack["perpendicular_baseline"], [50, -20, -70])


def test_licsar_looks_given_are_not_called_assumed(tmp_path):
    """The keyword looks replaces the assumption."""
    stack = io.read_stack(licsar(tmp_path), looks=30)
    assert stack.attrs["looks"] == 30 and "looks_assumed" not in stack.attrs


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-8"])
def test_licsar_metadata_survives_encodings(tmp_path, encoding):
    """A byte-order mark, latin-1 or CRLF in metadata.txt change nothing."""
    assert io.read_stack(licsar(tmp_path, encoding=encoding)).attrs["heading_deg"] == HEADING


@pytest.mark.parametrize("kind", ["gamma", "burst", "multi"])
@pytest.mark.parametrize("flat", [True, False])
def test_hyp3_products_are_read_to_the_letter(tmp_path, kind, flat):
    """GAMMA, burst and multi-burst names; look vector from elevation and angle from east."""
    stack = io.read_stack(hyp3(tmp_path, kind=kind, flat=flat))
    assert_true(stack)
    assert stack.rio.crs.to_epsg() == 32647
    assert stack.attrs["looks"] == pytest.approx(80 / 1.94)
    np.testing.assert_allclose(stack["perpendicular_baseline"], [10.5, 31.5, 21.0])
    assert ("component" in stack) == (kind == "multi")


def test_hyp3_products_of_different_extent_are_clipped_to_their_overlap(tmp_path):
    """Every pair covers the common pixels only, each at its own place."""
    whole, cut = io.read_stack(hyp3(tmp_path / "a")), io.read_stack(hyp3(tmp_path / "b", shift=(2, 3)))
    xr.testing.assert_allclose(cut, whole.isel(y=slice(2, None), x=slice(3, None)))


def test_mintpy_stack_takes_the_geometry_beside_it(tmp_path):
    """Corner becomes centre, azimuth becomes a look vector, looks are ALOOKS x RLOOKS / 1.94."""
    stack = io.read_stack(mintpy(tmp_path))
    assert_true(stack, zero=0)  # the declared reference pixel
    assert float(stack["x"][0]) == pytest.approx(99.0025)
    assert stack.attrs["looks"] == pytest.approx(16 * 8 / 1.94)
    assert stack.attrs["slant_range_m"] == 740_000
    assert io.read_stack(mintpy(tmp_path / "b", NCORRLOOKS=33)).attrs["looks"] == 33
    np.testing.assert_allclose(stack["perpendicular_baseline"], [1, 3, 2])


def test_mintpy_pairs_marked_dropped_are_not_read(tmp_path):
    """In dropIfgram True means keep."""
    path = mintpy(tmp_path)
    with h5py.File(path, "r+") as file:
        file["dropIfgram"][2] = False
    stack = io.read_stack(path)
    assert stack.sizes["pair"] == 2
    np.testing.assert_allclose(stack["perpendicular_baseline"], [1, 2])


def test_loose_geotiffs_are_dated_by_their_names(tmp_path):
    """Eight or six digits, - or _ between; coherence is matched by date, whatever the order."""
    keywords = {"wavelength_m": 0.0555, "incidence_angle_deg": 39.0, "heading_deg": HEADING, "looks": 8}
    dem = write_tif(tmp_path / "dem.tif", np.full(SHAPE, 4000, "i2"))
    stacks = []
    for folder, mark, cut in (("a", "-", 0), ("b", "_", 0), ("c", "-", 2)):
        phase, coherence = loose(
            tmp_path / folder, [f"{DATES[i][cut:]}{mark}{DATES[j][cut:]}" for i, j in PAIRS]
        )
        stacks.append(io.read_geotiff_pairs(phase[::-1], coherence, height=dem, **keywords))
    for stack in stacks:
        assert_true(stack)
    flipped = io.read_geotiff_pairs(phase, coherence, positive="toward", **keywords)
    np.testing.assert_array_equal(flipped["unwrapped_phase"], -stacks[0]["unwrapped_phase"])


@pytest.mark.parametrize("kind", ["zarr", "nc"])
def test_own_files_come_back_as_they_were(tmp_path, kind):
    """A stack written as zarr or netCDF is read back identical, dask-backed."""
    stack = io.read_stack(licsar(tmp_path / "raw"))
    path = tmp_path / f"stack.{kind}"
    stack.to_zarr(path) if kind == "zarr" else stack.to_netcdf(path, engine="h5netcdf")
    again = io.read_stack(path)
    assert isinstance(again["unwrapped_phase"].data, da.Array)
    xr.testing.assert_equal(again.drop_vars("spatial_ref"), stack.drop_vars("spatial_ref"))
    assert again.rio.crs == stack.rio.crs and again.rio.transform() == stack.rio.transform()


@pytest.mark.parametrize("build", [licsar, hyp3, mintpy])
def test_lazy_reading_gives_the_same_numbers(tmp_path, build):
    """dask-backed and in memory are the same stack; blocks hold all pairs and some rows."""
    path = build(tmp_path)
    now, later = io.read_stack(path, lazy=False), io.read_stack(path, lazy=True, block_mb=1e-4)
    assert isinstance(now["unwrapped_phase"].data, np.ndarray)
    assert later["unwrapped_phase"].chunks[0] == (3,)
    assert build is not mintpy or len(later["coherence"].chunks[1]) > 1
    xr.testing.assert_identical(now, later.compute())


# --- zeros ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodata", [0, None, -9999])
def test_a_column_of_zeros_is_no_data_with_and_without_coherence(tmp_path, nodata):
    """A 4x4 GeoTIFF with one column of zeros: 0.25 no data whatever the coherence and the declared nodata say."""
    phase = np.arange(1, 17, dtype="f4").reshape(4, 4)
    phase[:, 1] = 0
    raw = write_tif(tmp_path / "20200604_20200616_unw.tif", phase, nodata=nodata)
    with rasterio.open(raw) as file:
        assert (file.read(1) == 0).mean() == 0.25
    gamma = write_tif(tmp_path / "20200604_20200616_cc.tif", np.full((4, 4), 0.9, "f4"))
    for coherence in (None, [gamma]):
        stack = io.read_geotiff_pairs([raw], coherence, wavelength_m=0.0555)
        assert float(stack["unwrapped_phase"].isnull().mean()) == 0.25 == stack.attrs["zero_share"]
        kept = io.read_geotiff_pairs([raw], coherence, wavelength_m=0.0555, zero="value")
        assert (kept["unwrapped_phase"][0] == phase).all()


def test_a_zero_of_mintpy_is_a_value_at_its_reference_pixel_only(tmp_path):
    """REF_Y, REF_X undeclared, elsewhere, or not 0 in every pair: the zero is no data there too."""
    changes = {
        "none": {"REF_Y": None},
        "elsewhere": {"REF_Y": 3},
        "damaged": {"REF_X": "x"},
        "far": {"REF_X": 99},
    }
    for name, attrs in changes.items():
        stack = io.read_stack(mintpy(tmp_path / name, **attrs))
        assert stack["unwrapped_phase"][:, 2, 3].isnull().all(), name
    with h5py.File(mintpy(tmp_path / "some"), "r+") as file:
        file["unwrapPhase"][1, 2, 3] = 0.5
    values = io.read_stack(tmp_path / "some")["unwrapped_phase"][:, 2, 3].values
    np.testing.assert_array_equal(values, [np.nan, np.nan, 0.5])
    assert (io.read_stack(tmp_path / "some", zero="value")["unwrapped_phase"] == 0).sum() == 3 + 2
    assert io.read_stack(tmp_path / "some").attrs["zero_share"] == pytest.approx((3 + 2) / (3 * 48))


def test_a_component_of_zero_or_less_is_no_data(tmp_path):
    """MintPy's connectComponent and HyP3's conncomp: a phase outside every component is not kept."""
    path = mintpy(tmp_path / "m")
    labels = np.ones((3, *SHAPE), "i2")
    labels[:, 4, 4], labels[:, 5, 5] = 0, -1
    edit_h5(path, "connectComponent", labels, exists=False)
    hyp3(tmp_path / "h", kind="multi")
    for file in (tmp_path / "h").glob("*/*_conncomp.tif"):
        write_tif(file, labels[0].astype("f4"), METRES, "EPSG:32647", nodata=None)
    for stack in (io.read_stack(path), io.read_stack(tmp_path / "h")):
        phase = stack["unwrapped_phase"].values
        assert np.isnan(phase[:, [4, 5], [4, 5]]).all() and np.isnan(phase[0, 3:]).sum() == 2


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, -0.0, 1.5, np.nan, np.inf]), st.sampled_from([-1, 0, 1])), min_size=1
    ),
    st.booleans(),
    st.sampled_from(["nodata", "value"]),
)
def test_the_zero_rule_pixel_by_pixel(items, with_component, zero):
    """Every finite non-zero phase in a component survives as it is; nothing else but a zero called a value does."""
    phase, component = (np.array(v, float)[None, None] for v in zip(*items, strict=True))
    out = phase.copy()
    apply_zero_rule(out, component.copy() if with_component else None, zero=zero)
    kept = np.isfinite(phase) & ((phase != 0) | (zero == "value")) & ((component > 0) | (not with_component))
    np.testing.assert_array_equal(out, np.where(kept, phase, np.nan))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.permutations(range(3)))
def test_the_order_of_pairs_in_a_file_does_not_matter(tmp_path, order):
    """Unsorted pairs come out sorted, each with its own phase and baseline."""
    path = mintpy(tmp_path)
    with h5py.File(path, "r+") as file:
        for name in ("unwrapPhase", "coherence", "date", "bperp"):
            file[name][...] = file[name][...][list(order)]
    stack = io.read_stack(path)
    assert_true(stack, zero=0)
    np.testing.assert_allclose(stack["perpendicular_baseline"], [1, 3, 2])


# --- malformed input -----------------------------------------------------------------------------


def edit_h5(path, name=None, values=None, exists=True, **attrs):
    """Replace (or add) a dataset or attributes of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        if name:
            if exists:
                del file[name]
            if values is not None:
                file[name] = values
        for key, value in attrs.items():
            file.attrs[key] = value
    return path


def truncate(path, keep=0.6):
    """Cut a file short."""
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * keep)])


def second(folder, layer="unw"):
    """Name the second pair's file of a LiCSAR folder."""
    return next((folder / "GEOC").glob(f"{DATES[0]}_{DATES[2]}/*.{layer}.tif"))


def bad_licsar(change):
    """Build a LiCSAR folder, change it, and give it to read."""

    def build(folder):
        licsar(folder)
        change(folder)
        return io.read_stack, (folder,), {}

    return build


def bad_hyp3(change, **options):
    """Build a HyP3 folder, change it, and give it to read."""

    def build(folder):
        hyp3(folder, **options)
        change(folder)
        return io.read_stack, (folder,), {}

    return build


def bad_mintpy(change=lambda path: None, **attrs):
    """Build a MintPy stack, change it, and give it to read."""

    def build(folder):
        path = mintpy(folder, **attrs)
        change(path)
        return io.read_stack, (path,), {}

    return build


def bad_loose(names=None, change=lambda files: files, keywords=None, **tif):
    """Build loose GeoTIFFs, change them, and give them to read."""

    def build(folder):
        files = change(loose(folder, names, **tif))
        return io.read_geotiff_pairs, files, {"wavelength_m": 0.0555} | (keywords or {})

    return build


def shifted(fraction):
    """Rewrite the second pair of a LiCSAR folder on a grid shifted by a part of a pixel."""
    return lambda f: write_tif(second(f), true_phase(2), moved(DEGREES, fraction, 0))


def swap_dates(path):
    """Exchange reference and secondary date of the first pair."""
    dates = [[DATES[1], DATES[0]], [DATES[1], DATES[2]], [DATES[0], DATES[2]]]
    return edit_h5(path, "date", np.array(dates, "S8"))


def repeat_dates(path):
    """Give the first pair twice."""
    return edit_h5(path, "date", np.array([[DATES[0], DATES[1]]] * 2 + [[DATES[1], DATES[2]]], "S8"))


def hyp3_file(folder, layer, k=1):
    """Name a layer of the k-th product."""
    return sorted(folder.glob(f"*/*_{layer}.tif"))[k]


def flip_look(folder):
    """Let the look vector point from satellite to ground."""
    for letter, value in zip("ENU", los_vector(), strict=True):
        write_tif(next(folder.glob(f"GEOC/*.geo.{letter}.tif")), np.full(SHAPE, -value, "f4"))


def mirror_east(folder):
    """Let a descending frame see its satellite in the west."""
    write_tif(next(folder.glob("GEOC/*.geo.E.tif")), np.full(SHAPE, -los_vector()[0], "f4"))


BAD = {
    # dates
    "pair reversed in a folder name": (
        lambda f: (
            io.read_stack,
            (licsar(f, names=["20200616_20200604", "20200616_20200628", "20200604_20200628"]),),
            {},
        ),
        "20200616_20200604.*opposite sign",
    ),
    "pair reversed in MintPy": (bad_mintpy(swap_dates), "ifgramStack.h5.*2020-06-16 - 2020-06-04"),
    "pair of a date with itself": (
        bad_loose(["20200604-20200604", *(f"{DATES[i]}-{DATES[j]}" for i, j in PAIRS[1:])]),
        "on or after",
    ),
    "pair given twice in MintPy": (bad_mintpy(repeat_dates), "given twice"),
    "pair given twice as GeoTIFF": (
        bad_loose(["20200604-20200616", "20200604_20200616", "20200604-20200628"]),
        "given twice.*keep one",
    ),
    "impossible date": (
        bad_loose(["20201304-20201305", "20200616-20200628", "20200604-20200628"]),
        "20201304.*yyyymmdd",
    ),
    "no date in a name": (bad_loose(["a", "b", "c"]), "no dates in the name"),
    "date array of the wrong shape": (
        bad_mintpy(lambda p: edit_h5(p, "date", np.array([DATES], "S8"))),
        "date has shape",
    ),
    "coherence given twice": (bad_loose(change=lambda f: (f[0], [*f[1], f[1][0]])), "coherence of .* twice"),
    "coherence of a pair missing": (
        bad_loose(change=lambda f: (f[0], f[1][:-1])),
        "no coherence file for pair 20200604-20200628",
    ),
    # signs and units
    "unknown sign": (bad_loose(keywords={"positive": "up"}), "positive='up'"),
    "look vector to the ground": (bad_licsar(flip_look), "must point from ground to satellite"),
    "look vector mirrored": (bad_licsar(mirror_east), "descending orbit sees the satellite in the east"),
    "look vector not of unit length": (
        bad_licsar(lambda f: write_tif(next(f.glob("GEOC/*.geo.U.tif")), np.full(SHAPE, 5.0, "f4"))),
        "length .* not 1",
    ),
    "heading against orbit direction": (bad_mintpy(HEADING="-10.0"), "heading -10.0 degrees is ascending"),
    "wavelength in cm": (bad_loose(keywords={"wavelength_m": 5.55}), "5.55 m is no SAR band.*give metres"),
    "wavelength missing": (bad_mintpy(WAVELENGTH=None), "WAVELENGTH is missing"),
    "wavelength not a number": (bad_mintpy(WAVELENGTH="C band"), "WAVELENGTH='C band' is not a number"),
    "incidence in radians": (
        bad_loose(keywords={"incidence_angle_deg": 0.68}),
        "incidence angle 0.68 is outside",
    ),
    "phase in metres by its tag": (bad_loose(DATA_UNITS="METRES"), "data are in METRES"),
    "phase in metres in MintPy": (bad_mintpy(UNIT="m"), "UNIT is m, expected radian"),
    "wrapped phase as bytes": (
        bad_licsar(lambda f: write_tif(second(f), np.ones(SHAPE, "u1"))),
        "phase is uint8",
    ),
    "coherence 0-255 as float": (
        bad_licsar(lambda f: write_tif(second(f, "cc"), np.full(SHAPE, 153, "f4"))),
        "geo.cc.tif: coherence runs from 0 to 153",
    ),
    "coherence in percent in MintPy": (
        bad_mintpy(lambda p: edit_h5(p, "coherence", np.full((3, *SHAPE), 60, "f4"))),
        "expected 0-1",
    ),
    "coherence as 16-bit": (
        bad_licsar(lambda f: write_tif(second(f, "cc"), np.ones(SHAPE, "u2"))),
        "coherence is uint16",
    ),
    "HyP3 look angle in degrees": (
        bad_hyp3(
            lambda f: write_tif(hyp3_file(f, "lv_theta", 0), np.full(SHAPE, 51.0, "f4"), METRES, "EPSG:32647")
        ),
        "expected radians",
    ),
    "less than one look": (bad_loose(keywords={"looks": 0.5}), "looks 0.5 must be at least 1"),
    # grids and projections
    "another size": (bad_licsar(lambda f: write_tif(second(f), np.ones((6, 10), "f4"))), "mixed grids"),
    "another extent": (bad_licsar(shifted(2)), "2 columns from the stack's.*mixed grids"),
    "half a pixel off": (bad_licsar(shifted(0.5)), "fraction of a pixel"),
    "another pixel size": (
        bad_licsar(lambda f: write_tif(second(f), true_phase(2), from_origin(99, 38.2, 0.004, 0.005))),
        "pixel size",
    ),
    "another projection": (
        bad_licsar(lambda f: write_tif(second(f), true_phase(2), METRES, "EPSG:32647")),
        "CRS EPSG:32647 differs",
    ),
    "no projection": (
        bad_licsar(lambda f: write_tif(next(f.glob("GEOC/*/*unw.tif")), true_phase(0), crs=None)),
        "no coordinate reference system",
    ),
    "rotated grid": (
        bad_licsar(
            lambda f: write_tif(
                next(f.glob("GEOC/*/*unw.tif")), true_phase(0), Affine(0.005, 0.001, 99, 0.001, -0.005, 38.2)
            )
        ),
        "rotated or not north-up",
    ),
    "two bands": (
        bad_licsar(
            lambda f: rasterio.open(
                second(f),
                "w",
                driver="GTiff",
                height=6,
                width=8,
                count=2,
                dtype="float32",
                crs="EPSG:4326",
                transform=DEGREES,
            ).close()
        ),
        "2 bands, expected one",
    ),
    "HyP3 products of two zones": (
        bad_hyp3(lambda f: write_tif(hyp3_file(f, "unw_phase"), true_phase(1), METRES, "EPSG:32648")),
        "EPSG:3264[78] differs",
    ),
    "HyP3 products that do not overlap": (
        bad_hyp3(
            lambda f: write_tif(hyp3_file(f, "unw_phase"), true_phase(1), moved(METRES, 50, 0), "EPSG:32647")
        ),
        "does not overlap",
    ),
    "geometry of another size": (
        bad_mintpy(lambda p: edit_h5(p.with_name("geometryGeo.h5"), "height", np.ones((5, 5), "f4"))),
        "height has shape",
    ),
    "geometry beside another grid": (
        bad_mintpy(lambda p: edit_h5(p.with_name("geometryGeo.h5"), X_FIRST="99.01")),
        "columns off the stack",
    ),
    "radar coordinates": (bad_mintpy(X_FIRST=None), "radar coordinates; geocode"),
    "attribute WIDTH that lies": (bad_mintpy(WIDTH=99), "WIDTH=99 but the data have 8"),
    "projection not named": (bad_mintpy(EPSG=None, X_UNIT="meters"), "neither EPSG nor UTM_ZONE"),
    # files
    "truncated GeoTIFF": (
        bad_licsar(lambda f: truncate(second(f))),
        r"20200604_20200628.geo.unw.tif: .*truncated",
    ),
    "truncated HDF5": (bad_mintpy(truncate), "ifgramStack.h5: cannot be read"),
    "text in a GeoTIFF's place": (
        bad_licsar(lambda f: second(f).write_text("<html>404</html>")),
        "not a raster",
    ),
    "dataset missing": (bad_mintpy(lambda p: edit_h5(p, "unwrapPhase")), "unwrapPhase is missing"),
    "every pair dropped": (
        bad_mintpy(lambda p: edit_h5(p, "dropIfgram", np.zeros(3, bool))),
        "dropIfgram is False",
    ),
    "not a stack": (bad_mintpy(FILE_TYPE="velocity"), "FILE_TYPE is velocity"),
    "HyP3 name of no known form": (
        bad_hyp3(lambda f: shutil.copy(hyp3_file(f, "unw_phase"), f / "mine_unw_phase.tif")),
        "none of the HyP3 forms",
    ),
    "option of another format": (
        lambda f: (io.read_stack, (mintpy(f),), {"incomplete": "skip"}),
        "unexpected keyword.*incomplete",
    ),
    "unknown suffix": (
        lambda f: (io.read_stack, (write_tif(f / "one.tif", np.ones(SHAPE, "f4")),), {}),
        "not a recognised stack",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_malformed_input_is_refused_with_its_reason(tmp_path, case):
    """The error names the file and what was found."""
    build, message = BAD[case]
    function, arguments, keywords = build(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}"):
        function(*arguments, **keywords)


MISSING = {
    "no such path": lambda f: (io.read_stack, (f / "nowhere",)),
    "empty folder": lambda f: (io.read_stack, (f,)),
    "a folder of something else": lambda f: (
        io.read_stack,
        (write_tif(f / "x" / "a.tif", np.ones(SHAPE, "f4")).parent,),
    ),
    "coherence lost": lambda f: (second(licsar(f), "cc").unlink(), (io.read_stack, (f,)))[1],
    "phase lost": lambda f: (second(licsar(f)).unlink(), (io.read_stack, (f,)))[1],
    "one of three look-vector files lost": lambda f: (
        next(licsar(f).glob("GEOC/*.U.tif")).unlink(),
        (io.read_stack, (f,)),
    )[1],
    "HyP3 coherence lost": lambda f: (hyp3_file(hyp3(f), "corr").unlink(), (io.read_stack, (f,)))[1],
}


@pytest.mark.parametrize("case", list(MISSING))
def test_missing_files_are_named(tmp_path, case):
    """FileNotFoundError, naming what is missing."""
    function, arguments = MISSING[case](tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere|no interferograms here|missing"):
        function(*arguments)


def test_lazy_stacks_are_checked_before_a_value_is_read(tmp_path):
    """A mixed grid is found when the stack is opened, not in the middle of a computation."""
    shifted(0.5)(licsar(tmp_path))
    with pytest.raises(ValueError, match="fraction of a pixel"):
        io.read_stack(tmp_path, lazy=True)


def test_incomplete_pairs_can_be_left_out_and_are_listed(tmp_path):
    """incomplete='skip' reads the rest and names what it left out."""
    second(licsar(tmp_path)).unlink()
    stack = io.read_stack(tmp_path, incomplete="skip")
    assert stack.sizes["pair"] == 2 and stack.attrs["skipped_pairs"] == ["20200604_20200628"]


@pytest.mark.parametrize("lost", ["baselines", "metadata.txt"])
def test_optional_files_may_be_missing(tmp_path, lost):
    """Without baselines they are NaN; without metadata heading is unknown; the phase is the same."""
    next(licsar(tmp_path).rglob(lost)).unlink()
    stack = io.read_stack(tmp_path)
    assert_true(stack)
    assert bool(stack["perpendicular_baseline"].isnull().all()) == (lost == "baselines")


def test_a_date_without_baseline_is_unknown_not_zero(tmp_path):
    """Pairs of a date the baselines file lacks get NaN."""
    licsar(tmp_path)
    (tmp_path / "GEOC/baselines").write_text(f"{DATES[0]} {DATES[0]} 0 0\n{DATES[0]} {DATES[1]} 50 12\n")
    np.testing.assert_array_equal(io.read_stack(tmp_path)["perpendicular_baseline"], [50, np.nan, np.nan])


def test_a_stack_without_geometry_says_so_and_is_read(tmp_path, caplog):
    """No geometryGeo.h5: phase and coherence only, with a warning."""
    stack = io.read_stack(mintpy(tmp_path, geometry=False))
    assert "los_up" not in stack and "no look vector" in caplog.text


def test_own_files_are_held_to_the_data_model(tmp_path):
    """A variable, a unit or the wavelength that is not as it must be is named."""
    stack = io.read_stack(mintpy(tmp_path / "raw"))
    changes = {
        "lacks unwrapped_phase": stack.drop_vars("unwrapped_phase"),
        "is in 'm'": stack.assign(unwrapped_phase=stack["unwrapped_phase"].assign_attrs(units="m")),
        "expected datetime64": stack.assign_coords(reference=("pair", [1, 2, 3])),
        "given twice": stack.isel(pair=[0, 0, 1]),
        "wavelength_m is missing": stack.assign_attrs(wavelength_m=None),
    }
    for k, (message, changed) in enumerate(changes.items()):
        changed.attrs = {k: v for k, v in changed.attrs.items() if v is not None}
        changed.to_zarr(tmp_path / f"{k}.zarr")
        with pytest.raises(ValueError, match=message):
            io.read_stack(tmp_path / f"{k}.zarr")
    with pytest.raises(ValueError, match=r"empty\.zarr: (cannot be read|not an interferogram stack)"):
        (tmp_path / "empty.zarr").mkdir()
        io.read_stack(tmp_path / "empty.zarr")


# --- one layer or value refuses only itself ------------------------------------------------------


@pytest.mark.parametrize("layer", ["hgt", "U", "cc"])
def test_a_void_in_another_layer_leaves_the_phase(tmp_path, layer, caplog):
    """Height 0 declared as nodata, an empty look vector, coherence 0: the phase stays, the count is said."""
    whole = io.read_stack(licsar(tmp_path))["unwrapped_phase"]
    caplog.clear()
    files = list(tmp_path.glob(f"GEOC/**/*.geo.{layer}.tif"))
    files += list(tmp_path.glob("GEOC/*.geo.[EN].tif")) if layer == "U" else []
    for file in files:
        with rasterio.open(file) as opened:
            values = opened.read(1)
        values[3, 2:4] = 0
        write_tif(file, values)
    stack = io.read_stack(tmp_path)
    np.testing.assert_array_equal(stack["unwrapped_phase"], whole)
    said = {
        "hgt": "no height in 2 of 48",
        "U": "no los_up in 2 of 48",
        "cc": "6 of 138 phase values have coherence 0",
    }
    assert said[layer] in caplog.text


BASELINES = {
    "a row of three columns": (
        f"{DATES[0]} {DATES[0]} 0 0\n{DATES[0]} {DATES[1]} 50 12\n{DATES[0]} {DATES[2]} 9\n",
        2,
    ),
    "five columns": ("1 2 3 4 5\n", 3),
    "an empty file": ("", 3),
    "no number": (f"{DATES[0]} {DATES[0]} 0 0\n{DATES[0]} {DATES[1]} 50 12\n{DATES[0]} {DATES[2]} x 24\n", 2),
    "a date of no pair": (
        f"20100101 {DATES[0]} 0 0\n20100101 {DATES[1]} 50 12\n20100101 {DATES[2]} -20 24\n",
        0,
    ),
}


@pytest.mark.parametrize("case", list(BASELINES))
def test_a_bad_baseline_refuses_only_itself(tmp_path, case, caplog):
    """NaN for the pairs of that date, with a warning; the others are as they were."""
    text, unknown = BASELINES[case]
    (licsar(tmp_path) / "GEOC/baselines").write_text(text)
    found = io.read_stack(tmp_path)["perpendicular_baseline"].values
    np.testing.assert_array_equal(found, np.where(np.isnan(found), np.nan, [50, -20, -70]))
    assert np.isnan(found).sum() == unknown and ("baselines" in caplog.text) == bool(unknown)


def test_a_value_of_metadata_that_is_no_number_is_left_out(tmp_path, caplog):
    """Heading south: unknown heading, the frame's name still gives the direction."""
    (licsar(tmp_path) / "GEOC/metadata.txt").write_text("heading=south\n")
    stack = io.read_stack(tmp_path)
    assert "heading_deg" not in stack.attrs and stack.attrs["orbit_direction"] == "descending"
    assert "heading='south' is not a number" in caplog.text


def test_faulty_files_are_listed_at_once_and_can_be_left_out(tmp_path, caplog):
    """Of three pairs one file is empty, one of another size: both are named, and skip reads the third."""
    second(licsar(tmp_path)).write_bytes(b"")
    write_tif(
        tmp_path / f"GEOC/{DATES[1]}_{DATES[2]}/{DATES[1]}_{DATES[2]}.geo.cc.tif", np.ones((6, 12), "u1")
    )
    with pytest.raises(ValueError, match=r"(?s)geo.unw.tif: is empty.*geo.cc.tif: has 6 x 12.*2 of 3 pairs"):
        io.read_stack(tmp_path)
    stack = io.read_stack(tmp_path, incomplete="skip")
    assert stack.sizes["pair"] == 1 and len(stack.attrs["skipped_pairs"]) == 2
    assert "is empty" in caplog.text and "6 x 12" in caplog.text
    assert io.site.Sar(role="main", band="C", path="a", incomplete="skip").incomplete == "skip"


def test_make_data_prints_the_share_of_zeros_and_the_site_file_skips(tmp_path):
    """The key `incomplete` of the site file reaches the reader; 2 of 48 phases of each pair are 0."""
    from helpers.io.check import check

    second(licsar(tmp_path)).write_bytes(b"")
    for incomplete, told in (
        ("error", "is empty"),
        ("skip", "2 pairs of 3 scenes.*4.2% of the phase exactly 0"),
    ):
        sar = {"s1": {"role": "main", "band": "C", "path": "GEOC", "incomplete": incomplete}}
        config = io.site.SiteConfig(title="x", kind="real", inputs={"sar": sar})
        site = io.Site("x", config)
        site.raw = tmp_path
        row = check(site).iloc[0]
        assert row["state"] == {"error": "incomplete", "skip": "found"}[incomplete]
        assert re.search(told, row["what"]), row["what"]


def test_extents_that_differ_by_a_row_or_column_are_aligned(tmp_path):
    """A coherence one column wider or narrower than the phase falls into its place."""
    phase, coherence = loose(tmp_path)
    gamma = np.round(np.random.default_rng(1).uniform(0.2, 0.9, (7, 9)), 3).astype("f4")
    write_tif(coherence[0], gamma, moved(DEGREES, -1, 0))
    write_tif(coherence[1], gamma[:6, :7])
    stack = io.read_geotiff_pairs(phase, coherence, wavelength_m=0.0555)
    found = stack["coherence"].sel(pair=0).values
    seen = np.isfinite(stack["unwrapped_phase"].values)
    np.testing.assert_allclose(found[seen[0]], gamma[:6, 1:][seen[0]])
    narrow = stack["coherence"].values[2]  # of the second file, sorted last
    np.testing.assert_allclose(narrow[:, :7][seen[2][:, :7]], gamma[:6, :7][seen[2][:, :7]])
    assert (narrow[:, 7] == 0).all() and seen[2][:, 7].all()


# --- layouts and names people have ---------------------------------------------------------------


def test_licsar_layouts_give_one_stack(tmp_path):
    """Portal layout at FRAME and at interferograms, and all files flat in one folder: the stack of GEOC."""
    wanted = io.read_stack(licsar(tmp_path / "a"))
    frame, geoc = tmp_path / "021D_04972_131213", tmp_path / "a" / "GEOC"
    flat = tmp_path / "flat"
    (frame / "metadata").mkdir(parents=True)
    flat.mkdir()
    for item in geoc.iterdir():
        if item.is_dir():
            shutil.copytree(item, frame / "interferograms" / item.name)
            for file in item.iterdir():
                shutil.copy(file, flat)
        else:
            shutil.copy(item, frame / "metadata")
            shutil.copy(item, flat)
    for place in (frame, frame / "interferograms", flat):
        xr.testing.assert_identical(io.read_stack(place), wanted)


def test_a_lost_look_vector_is_derived_and_called_assumed(tmp_path):
    """Heading and incidence of metadata.txt give the vector the files had, for a mean incidence."""
    for file in licsar(tmp_path).glob("GEOC/*.geo.[ENU].tif"):
        file.unlink()
    stack = io.read_stack(tmp_path)
    for name, value in zip(("los_east", "los_north", "los_up"), los_vector(), strict=True):
        np.testing.assert_allclose(stack[name], value, atol=1e-6)
    assert "los_assumed" in stack.attrs


def test_clipped_hyp3_products_and_their_slant_range(tmp_path):
    """*_unw_phase_clipped.tif as ASF's tutorial makes them; the text file's range in metres."""
    wanted = io.read_stack(hyp3(tmp_path))
    assert wanted.attrs["slant_range_m"] == 853_000
    for file in tmp_path.glob("*/*.tif"):
        file.rename(file.with_name(f"{file.stem}_clipped.tif"))
    xr.testing.assert_identical(io.read_stack(tmp_path), wanted)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("20200604T135156_20200616T135157", "times of day"),
        ("2020156_2020168", "yyyyddd"),
        ("20200616_20200604", "opposite sign"),
        ("los_disp_20200604_20200616", "a displacement by its name"),
    ],
)
def test_names_that_cannot_be_read_safely_are_refused(tmp_path, name, message):
    """Date-times, days of the year, ARIA's reversed order and displacement: each with its reason."""
    file = write_tif(tmp_path / f"{name}.tif", true_phase(0))
    with pytest.raises(ValueError, match=message):
        io.read_geotiff_pairs([file], wavelength_m=0.0555)


def test_a_grid_of_gmtsar_without_crs_is_told_what_to_do(tmp_path):
    """The message holds the command."""
    file = write_tif(tmp_path / "20200604_20200616.tif", true_phase(0), crs=None)
    with pytest.raises(ValueError, match="gdal_translate -a_srs EPSG:4326"):
        io.read_geotiff_pairs([file], wavelength_m=0.0555)


@pytest.mark.parametrize("metres", [0.019, 1.1, 0.0, -0.05, np.nan])
def test_wavelengths_outside_radar_are_refused(tmp_path, metres):
    """0.02 to 1 m."""
    with pytest.raises(ValueError, match="no SAR band"):
        io.read_geotiff_pairs(loose(tmp_path)[0], wavelength_m=metres)


def test_opera_series_of_two_first_dates_or_no_unit_are_refused(tmp_path):
    """OPERA moves its first date after some years: such files are two series; without a unit nothing is assumed."""
    for name in ("20200604_20200616", "20200604_20200628"):
        write_tif(tmp_path / f"displacement_{name}.tif", true_phase(0), nodata=None, DATA_UNITS="meters")
    series = io.read_displacement(tmp_path)
    np.testing.assert_allclose(series["displacement"][2, 4], true_phase(0)[4] * 1000, rtol=1e-6)
    write_tif(tmp_path / "displacement_20200604_20200628.tif", true_phase(0), nodata=None)
    with pytest.raises(ValueError, match="states no unit, expected metres"):
        io.read_displacement(tmp_path)
    (tmp_path / "displacement_20200604_20200628.tif").rename(tmp_path / "displacement_20200616_20200628.tif")
    with pytest.raises(ValueError, match=r"first dates.*2020-06-04.*2020-06-16"):
        io.read_displacement(tmp_path)


# --- writing MintPy ------------------------------------------------------------------------------


def series(stack, rate_mm_yr=-20.0):
    """Give a displacement series as the inversion does: mm toward, first date 0."""
    days = pd.DatetimeIndex(np.union1d(stack["reference"], stack["secondary"]))
    years = np.asarray((days - days[0]) / np.timedelta64(1, "D")) / 365.25
    ramp = np.linspace(0, 1, stack.sizes["x"])
    values = rate_mm_yr * years[:, None, None] * np.ones((1, stack.sizes["y"], 1)) * ramp
    out = xr.Dataset(
        {"displacement": (("time", "y", "x"), values, {"units": "mm"})},
        coords={"time": days, "y": stack["y"], "x": stack["x"]},
        attrs=stack.attrs,
    )
    return out.rio.write_crs(stack.rio.crs), rate_mm_yr * ramp


def test_written_series_follow_mintpy_to_the_letter(tmp_path):
    """Metres, 8-byte dates, text attributes, corner not centre, REF_Y and REF_X, no NaN."""
    stack = io.read_stack(mintpy(tmp_path))
    data, _ = series(stack)
    data["displacement"][1, 3, 4] = np.nan  # one date missing
    data["displacement"][:, 5, 5] = np.nan  # all missing
    io.write_mintpy_timeseries(data, tmp_path / "timeseries.h5", reference_pixel=(2, 0))
    with h5py.File(tmp_path / "timeseries.h5") as file:
        values = file["timeseries"][:]
        assert values.dtype == np.float32 and np.isfinite(values).all()
        assert (values[:, 3, 4] == 0).all() and (values[:, 5, 5] == 0).all() and (values[0] == 0).all()
        np.testing.assert_allclose(values[:, 1, 7], data["displacement"][:, 1, 7] / 1000, rtol=1e-6)
        assert file["date"].dtype == "S8" and file["date"][0] == b"20200604"
        assert all(isinstance(v, str) for v in file.attrs.values())
        want = {"FILE_TYPE": "timeseries", "UNIT": "m", "REF_Y": "2", "REF_X": "0", "REF_DATE": "20200604"}
        assert {k: file.attrs[k] for k in want} == want
        assert float(file.attrs["X_FIRST"]) == pytest.approx(99.0) and float(file.attrs["Y_STEP"]) < 0
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # nothing half-written


def test_written_stack_is_read_back_identical(tmp_path):
    """stack -> ifgramStack.h5 and geometryGeo.h5 -> stack."""
    stack = io.read_stack(licsar(tmp_path / "raw"))
    write_mintpy_stack(stack, tmp_path / "out" / "ifgramStack.h5", reference_pixel=(1, 1))
    again = io.read_stack(tmp_path / "out")
    for name in stack.data_vars:
        np.testing.assert_allclose(again[name], stack[name], rtol=1e-5, atol=1e-6, err_msg=name)
    for name in ("reference", "secondary", "perpendicular_baseline", "x", "y"):
        np.testing.assert_allclose(again[name].values.astype(float), stack[name].values.astype(float))
    assert again.attrs["looks"] == pytest.approx(stack.attrs["looks"])


def test_a_series_without_a_reference_is_refused_before_any_work(tmp_path):
    """MintPy needs REF_Y and REF_X: neither given nor in the attributes is said before a value is computed."""
    data, _ = series(io.read_stack(mintpy(tmp_path, REF_Y=None)))

    def never(block):
        raise AssertionError("computed")

    data["displacement"] = (
        data["displacement"].chunk().map_blocks(never, template=data["displacement"].chunk())
    )
    with pytest.raises(ValueError, match=r"reference_pixel=.row, column.*network.reference"):
        io.write_mintpy_timeseries(data, tmp_path / "timeseries.h5")
    data["displacement"].attrs["units"] = "m"
    with pytest.raises(ValueError, match="in 'm', expected mm"):
        io.write_mintpy_timeseries(data, tmp_path / "timeseries.h5", reference_pixel=(0, 0))
    assert not (tmp_path / "timeseries.h5").exists()


def test_a_reference_that_a_stack_declares_comes_through_the_inversion(tmp_path):
    """REF_Y=2, REF_X=3 of ifgramStack.h5 stand in the timeseries.h5 made of it, and the sd in the file beside."""
    series_of = sbas.invert(io.read_stack(mintpy(tmp_path)), model=None, weights=None)
    io.write_mintpy_timeseries(series_of, tmp_path / "timeseries.h5")
    with h5py.File(tmp_path / "timeseries.h5") as file, h5py.File(tmp_path / "timeseriesDecorStd.h5") as std:
        assert (file.attrs["REF_Y"], file.attrs["REF_X"]) == ("2", "3") and file.attrs["HEADING"]
        assert std.attrs["FILE_TYPE"] == "timeseries" and std["timeseries"].shape == file["timeseries"].shape
        wanted = series_of["displacement_std"][:, 1, 7] / 1000
        np.testing.assert_allclose(std["timeseries"][:, 1, 7], wanted.fillna(0), rtol=1e-6)


def test_a_vertical_record_has_no_header_of_a_line_of_sight(tmp_path):
    """displacement_up of a joined record: no heading, orbit or wavelength; dates of the prior alone are left out."""
    data, _ = series(io.read_stack(mintpy(tmp_path)))
    up = data.rename(displacement="displacement_up").assign_coords(observed=("time", [True, False, True]))
    renamed = data.copy()
    renamed["displacement"].attrs["long_name"] = "displacement up"
    io.write_mintpy_timeseries(up, tmp_path / "up.h5")
    io.write_mintpy_timeseries(renamed, tmp_path / "renamed.h5")
    for name in ("up", "renamed"):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            assert "vertical" in file.attrs["DISPLACEMENT_DIRECTION"]
            assert not {"HEADING", "ORBIT_DIRECTION", "WAVELENGTH", "ANTENNA_SIDE"} & set(file.attrs)
            days = [b"20200604", b"20200616", b"20200628"]
            assert list(file["date"]) == (days[::2] if name == "up" else days)


def test_dates_that_hold_only_the_prior_are_left_out_and_single_values_marked(tmp_path):
    """`filled` everywhere: no such date; `filled` in one pixel: dataset filled."""
    data, _ = series(io.read_stack(mintpy(tmp_path)))
    filled = np.zeros((3, *SHAPE), bool)
    filled[1], filled[2, 4, 4] = True, True
    data["filled"] = ("time", "y", "x"), filled
    io.write_mintpy_timeseries(data, tmp_path / "timeseries.h5")
    with h5py.File(tmp_path / "timeseries.h5") as file:
        assert list(file["date"]) == [b"20200604", b"20200628"]
        assert np.argwhere(file["filled"][:]).tolist() == [[1, 4, 4]]


def mintpy_command(name):
    """Path of one of MintPy's commands; the test skips where there is none."""
    folders = (os.environ.get("MINTPY_BIN", ""), io.ROOT / "build" / "bench-venv" / "bin", os.environ["PATH"])
    for candidate in (name, f"{name}.py"):
        found = shutil.which(candidate, path=os.pathsep.join(map(str, folders)))
        if found:
            return found
    pytest.skip(
        f"MintPy's command {name} is not in MINTPY_BIN, nor where `make bench` installs it, nor on PATH"
    )


def run(command, *arguments, folder):
    """Run a command in a folder with one thread; its output is shown if it fails."""
    environment = os.environ | {"HOME": str(folder), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [command, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_mintpy_fits_the_velocity_of_the_series_we_write(tmp_path):
    """timeseries2velocity of MintPy 1.6.4 finds the rate that was put in, within float32."""
    command = mintpy_command("timeseries2velocity")
    data, rate = series(io.read_stack(mintpy(tmp_path)))
    io.write_mintpy_timeseries(data, tmp_path / "timeseries.h5", reference_pixel=(0, 0))
    run(command, "timeseries.h5", folder=tmp_path)
    with h5py.File(tmp_path / "velocity.h5") as file:
        found = file["velocity"][:] * 1000
    np.testing.assert_allclose(found[1:], np.tile(rate, (SHAPE[0] - 1, 1)), atol=1e-3)


@pytest.mark.slow
def test_mintpy_inverts_the_stack_we_write(tmp_path):
    """ifgram_inversion of MintPy 1.6.4 gives the displacement the phases were made of, sign and unit included."""
    command = mintpy_command("ifgram_inversion")
    stack = io.read_stack(licsar(tmp_path / "raw"))
    data, _ = series(stack)
    factor = -4 * np.pi / stack.attrs["wavelength_m"] / 1000
    first = data["displacement"].sel(time=stack["reference"].values).values
    last = data["displacement"].sel(time=stack["secondary"].values).values
    stack["unwrapped_phase"][:] = factor * (last - first)
    stack["coherence"][:] = 0.6
    write_mintpy_stack(stack, tmp_path / "inputs" / "ifgramStack.h5", reference_pixel=(0, 0))
    run(command, "inputs/ifgramStack.h5", "-w", "no", folder=tmp_path)
    with h5py.File(tmp_path / "timeseries.h5") as file:
        np.testing.assert_allclose(file["timeseries"][:] * 1000, data["displacement"], atol=1e-4)


# --- the twin ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sensor", ["s1_desc/GEOC", "s1_asc", "alos2", "alos1/ifgramStack.h5", "envisat"])
def test_motion_away_is_positive_phase_in_every_sensor(quick_twin, sensor):
    """The pair that saw most motion differ between pixels: its phase follows the true motion away, slope near 1."""
    stack = io.read_stack(quick_twin / sensor)
    truth = xr.open_zarr(quick_twin / "truth.zarr")
    days = np.union1d(stack["reference"].values, stack["secondary"].values)
    parts = [f"displacement_{name}" for name in ("east", "north", "up")]
    ground = truth[parts].sel(time=days).load().reindex(y=stack["y"], x=stack["x"], method="nearest")
    motion = sum(ground[p].values * stack[f"los_{p.split('_')[1]}"].values for p in parts)
    first, second = (np.searchsorted(days, stack[k].values) for k in ("reference", "secondary"))
    change = motion[second] - motion[first]
    phase = stack["unwrapped_phase"].values
    change[~(np.isfinite(phase) & (np.abs(change) < 150))] = np.nan  # pits move too fast to unwrap
    best = np.nanargmax(np.nanstd(change, axis=(1, 2)) * (np.isfinite(change).mean(axis=(1, 2)) > 0.5))
    seen = np.isfinite(change[best])
    away = -4 * np.pi / stack.attrs["wavelength_m"] * change[best][seen] / 1000
    assert np.polyfit(away, phase[best][seen], 1)[0] == pytest.approx(1, abs=0.35)


# --- real data -----------------------------------------------------------------------------------


def test_real_geotiffs_and_the_real_mintpy_stack_are_the_same(mirror):
    """30 real Sentinel-1 pairs read as GeoTIFF and as MintPy HDF5: equal phase, coherence, grid and gaps."""
    folder = mirror / "sentinel1_mexico"
    loose_files = io.read_geotiff_pairs(
        folder.glob("geotiffs/*_unw.tif"), folder.glob("geotiffs/*_cc.tif"), wavelength_m=0.05550415767769124
    )
    stack = io.read_stack(folder / "mintpy_1.6.4_reference/ifgramStack.h5")
    np.testing.assert_array_equal(loose_files["unwrapped_phase"], stack["unwrapped_phase"])
    np.testing.assert_array_equal(loose_files["coherence"].fillna(0), stack["coherence"].fillna(0))
    np.testing.assert_allclose(loose_files["x"], stack["x"], atol=1e-9)
    complete = stack["unwrapped_phase"].notnull().sum("pair")
    assert [int((complete == 30).sum()), int((complete == 0).sum())] == [5882, 96]
    # phase measured where coherence is 0 is a value: the source has such pixels and they are kept
    assert int((stack["unwrapped_phase"].notnull() & (stack["coherence"] == 0)).sum()) == 241
