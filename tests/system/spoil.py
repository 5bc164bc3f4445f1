"""Ways to spoil a file: bytes lost, flipped or moved, and changes in the terms of each format."""

import json
import re
import warnings
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import Affine

HTML = b"<html><head><title>404 Not Found</title></head><body>not here</body></html>\n"
VRT = b"""<VRTDataset rasterXSize="8" rasterYSize="6"><SRS>EPSG:4326</SRS>
<GeoTransform>99,0.005,0,38.2,0,-0.005</GeoTransform>
<VRTRasterBand dataType="Float32" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">/etc/passwd</SourceFilename>
<ImageOffset>0</ImageOffset><PixelOffset>4</PixelOffset><LineOffset>32</LineOffset></VRTRasterBand></VRTDataset>"""
WRONG_TYPES = (
    b"", b"\0" * 64, HTML, VRT, b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"PK\x03\x04" + b"\0" * 60,
    b"\x89HDF\r\n\x1a\n", b"II*\0\x08\0\0\0\0\0", b"CDF\x01" + b"\0" * 28, b"{}", b"[]", b"null",
    b"\xff\xfe" + "date,q\n".encode("utf-16-le"), b"\x80\x04cos\nsystem\n(S'touch spoilt'\ntR.",
    b"a" * 100_000, b"," * 5000, b"\n" * 5000, b'"' * 999, b"[" * 4000,
)  # fmt: skip
TOKENS = (
    "nan", "NaN", "inf", "-inf", "1e999", "-1", "0", "", " ", "-9999", "9" * 20, "1e-320", "0x10", "1_0",
    "true", "null", "None", "\u0661\u0662", "\uff11\uff12", "\u00b2", "\0", "\u202e", "\ufeff", "'", '"', '"a\nb"',
    "a;b", "=1+1", "{}", "{{02_sbas:rate}}", "%s", "../../../etc/passwd", "/etc/passwd", "/vsicurl/http://127.0.0.1/x",
    "..", "~", "CON", "2001-02-30", "0000-00-00", "99999-01-01", "20010101", "1/2/3", "2001-01-01T25:00",
    "1677-09-20", "2262-04-12", "!!python/object/apply:os.system ['touch spoilt']", "!!python/name:os.system",
    "*anchor", "&a [*a]", "<<: *a", "[" * 300, "9" * 5000, "\u00e9" * 999,
)  # fmt: skip
HEAD = "title: t\nkind: real\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
SITE_FILES = (
    BOMB, HEAD + "physics: &p {a: *p}\n", HEAD + "epochs: " + "[" * 3000, "title: " + "{a: " * 3000,
    HEAD + "seed: " + "9" * 6000, HEAD + "seed: " + ":".join(["59"] * 4000), HEAD + "seed: -5", HEAD + "seed: .nan",
    "!!python/object/apply:os.system ['touch spoilt']\n", HEAD + "kind: twin\n", HEAD + "? [x]\n: y\n",
    "title: !!python/object/new:subprocess.Popen [['touch', 'spoilt']]\nkind: real\n",
    HEAD + "epochs:\n- {label: a, start: 2003-13-45, end: null, source: s}\n",
    HEAD + "inputs: {sar: {../../../evil: {role: main, band: C, path: p}}}\n",
    HEAD + "inputs: {sar: {/tmp/evil: {role: main, band: C, path: p}}}\n",
    HEAD + 'inputs: {sar: {"a\\0b": {role: main, band: C, path: p}}}\n',
    HEAD + 'inputs: {sar: {"s1\\n": {role: main, band: C, path: p}}}\n',
    HEAD + "inputs: {sar: {s1: {role: main, band: C, path: ../../../../etc}}}\n",
    HEAD + "inputs: {sar: {s1: {role: main, band: C, path: a/../../b}}}\n",
    HEAD + "inputs: {sar: {s1: {role: main, band: C, path: /etc}}}\n",
    HEAD + "inputs: {sar: {s1: {role: main, band: C, unwrapped: /**/*, wavelength_m: 0.05}}}\n",
    HEAD + "inputs: {areas: /etc/passwd}\n", HEAD + "inputs: {climate: {path: ../x.nc}}\n",
    HEAD + "inputs: {discharge: {../g: {role: target, path: q.csv, drainage_area_km2: 1}}}\n",
    HEAD + "inputs: {discharge: {g: {role: target, path: q.csv, drainage_area_km2: .nan}}}\n",
    HEAD + "inputs: {drivers: {a/b: {path: a.tif, group: g, unit: u, long_name: l}}}\n",
    "title: t\nkind: twin\nphysics: {a: .inf}\n", "%YAML 9.9\n---\ntitle: t\n", "--- a\n--- b\n",
    "? [a, b]\n: c\n", "? {a: b}\n: c\n", "\t- a\n", "title: 'unclosed\n", HEAD + "seed: !!binary x\n",
    HEAD + "seed: !!set {a, b}\n", HEAD + "seed: !!timestamp x\n", HEAD + "thaw_season: [05-01, 10-31]\n",
)  # fmt: skip


def one_of(items, rng):
    """Draw one."""
    return items[int(rng.integers(len(items)))]


def cut(data, rng):
    """Lose the end."""
    return data[: int(rng.integers(0, max(1, len(data))))]


def flip(data, rng):
    """Flip one to sixteen bits, half of the time near the beginning, where headers are."""
    out = bytearray(data)
    reach = min(len(out), 512) if rng.random() < 0.5 else len(out)
    for at in rng.integers(0, max(1, reach), int(rng.integers(1, 17))):
        if out:
            out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def overwrite(data, rng):
    """Overwrite a stretch with zeros, ones or noise."""
    at, size = int(rng.integers(0, max(1, len(data)))), int(rng.integers(1, 65))
    fill = [b"\0" * size, b"\xff" * size, rng.bytes(size)][int(rng.integers(3))]
    return data[:at] + fill + data[at + size :]


def rearrange(data, rng):
    """Repeat or drop a stretch."""
    a, b = sorted(int(v) for v in rng.integers(0, max(1, len(data)), 2))
    return data[:b] + data[a:] if rng.random() < 0.5 else data[:a] + data[b:]


def another_type(data, rng):
    """Put a file of another type, or an empty one, in its place."""
    return one_of(WRONG_TYPES, rng)


def hostile_token(data, rng):
    """Replace a word of a text by one that means trouble; of a binary file, a run of letters."""
    words = list(re.finditer(rb"[^\s,;:\t{}\[\]\"=]+", data))
    if not words:
        return data
    word, token = one_of(words, rng), one_of(TOKENS, rng).encode("utf-8", "surrogatepass")
    return data[: word.start()] + token + data[word.end() :]


def shuffle_lines(data, rng):
    """Repeat, drop or move a line."""
    lines = data.splitlines(keepends=True)
    at, to = (int(v) for v in rng.integers(0, max(1, len(lines)), 2))
    line = lines.pop(at) if lines else b""
    for _ in range(int(rng.integers(0, 3))):
        lines.insert(to, line)
    return b"".join(lines)


def hostile_site(data, rng):
    """A site file written to harm."""
    return one_of(SITE_FILES, rng).encode()


BYTES = (cut, flip, overwrite, rearrange, another_type)
TEXT = (*BYTES, hostile_token, hostile_token, shuffle_lines)
PLACES = ("absent", "folder", "dangling link", "link loop", "link to a device", "pipe", "elsewhere")


def spoil_hdf5(path: Path, rng) -> str:
    """Change an HDF5 file in its own terms: attributes, types, shapes, links that lead elsewhere."""
    with h5py.File(path, "r+", locking=False) as file:
        names = []
        file.visititems(lambda name, thing: names.append(name) if isinstance(thing, h5py.Dataset) else None)
        name = one_of(names, rng)
        dice = rng.random()
        if dice < 0.3:
            return _spoil_attribute(file if rng.random() < 0.6 and len(file.attrs) else file[name], rng)
        old = file[name][()]
        del file[name]
        if dice < 0.6:
            shape = np.shape(old)
            others = [
                np.array(["x"] * 3, "S8"),
                np.float32(3),
                np.zeros(0, "f4"),
                np.zeros((2, *shape), "f4"),
            ]
            others += [np.zeros(shape, kind) for kind in ("i8", "c8", "?")]
            others += [np.full(shape, value) for value in (np.nan, np.inf)]
            file[name] = one_of(others, rng)
            return f"dataset {name}: {file[name].dtype} {file[name].shape}"
        if dice < 0.7:  # claims far more than there is
            shape = ((2**24,), (2**20, 2**20), (2**20, 2**20, 2**10))[min(max(np.ndim(old), 1), 3) - 1]
            file.create_dataset(name, shape, "f4", chunks=(2**20, 1, 1)[: len(shape)])
            return f"dataset {name}: {shape}"
        links = [None, h5py.ExternalLink("/etc/passwd", "/a"), h5py.ExternalLink("nowhere.h5", "/a")]
        links += [h5py.SoftLink(f"/{name}"), h5py.SoftLink("/nowhere")]
        link = one_of(links, rng)
        if link is not None:
            file[name] = link
        elif rng.random() < 0.5:
            file.create_group(name)
        return f"dataset {name}: {link}"


def _spoil_attribute(place, rng) -> str:
    if not len(place.attrs):
        return "nothing"
    key = one_of(list(place.attrs), rng)
    values = [
        np.nan,
        np.inf,
        -1,
        "",
        "no",
        np.arange(5),
        b"\xff\xfe",
        "1e999",
        np.zeros(0),
        "9" * 400,
        h5py.Empty("f"),
    ]
    del place.attrs[key]
    if rng.random() < 0.9:
        place.attrs[key] = one_of(values, rng)
    return f"attribute {key}"


ZARR_LIES = (
    ("dtype", "|O"), ("dtype", "<f4x"), ("dtype", "<i8"), ("dtype", None), ("dtype", [["a", "<f4"]]),
    ("filters", [{"id": "pickle"}]), ("filters", [{"id": "nonsense"}]), ("compressor", {"id": "pickle"}),
    ("compressor", {"id": "lzma"}), ("compressor", None), ("shape", [2**40, 2**20]), ("shape", [-1]),
    ("shape", [3, 6, 9]), ("chunks", [0]), ("chunks", [2**31, 2**31]), ("fill_value", "no"), ("order", "X"),
    ("zarr_format", 9), ("dimension_separator", "/../../"), ("_ARRAY_DIMENSIONS", ["a", "a", "a"]),
    ("_ARRAY_DIMENSIONS", "x"), ("units", "days since never"), ("units", 5), ("calendar", "martian"),
    ("scale_factor", "x"), ("_FillValue", [1, 2]),
)  # fmt: skip


def spoil_zarr(path: Path, rng) -> str:
    """Change zarr's own description of an array: types, codecs, shapes, object arrays of pickles."""
    target = one_of(sorted(p for p in path.rglob(".z*") if p.is_file()), rng)
    content = json.loads(target.read_text())
    spot = content
    if "metadata" in content:
        spot = content["metadata"][one_of(sorted(content["metadata"]), rng)]
    key, value = one_of(ZARR_LIES, rng)
    spot[key] = value
    if value in ("|O", [{"id": "pickle"}], {"id": "pickle"}):
        spot |= {"dtype": "|O", "filters": [{"id": "pickle"}], "compressor": None, "fill_value": None}
        for chunk in (path if "metadata" in content else target.parent).rglob("[0-9]*"):
            chunk.write_bytes(b"cos\nsystem\n(S'touch spoilt'\ntR.")
    target.write_text(json.dumps(content))
    return f"{target.relative_to(path)}: {key} = {value!r}"


RASTER_CHANGES = (
    {"dtype": "uint8"}, {"dtype": "int16"}, {"dtype": "complex64"}, {"dtype": "float64"}, {"count": 3}, {"width": 1},
    {"height": 7}, {"crs": None}, {"crs": "EPSG:32647"}, {"crs": "EPSG:3857"}, {"nodata": np.nan}, {"nodata": -9999},
    {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"transform": Affine.identity()},
    {"transform": Affine(np.nan, 0, 99, 0, -0.005, 38)}, {"transform": Affine(0.005, 0, np.inf, 0, -0.005, 38)},
    {"transform": Affine(1e-300, 0, 99, 0, -1e-300, 38)}, {"transform": Affine(0.005, 0, 99, 0, 0.005, 38)},
)  # fmt: skip


def spoil_geotiff(path: Path, rng) -> str:
    """Write another raster in a GeoTIFF's place: type, size, bands, projection, nodata, a grid of NaN."""
    change = one_of(RASTER_CHANGES, rng)
    with rasterio.open(path) as file:
        profile = file.profile | {"nodata": None} | change
    if np.dtype(profile["dtype"]).kind != "f":
        profile["nodata"] = None
    values = np.ones((profile["count"], profile["height"], profile["width"])).astype(profile["dtype"])
    if rng.random() < 0.3 and values.dtype.kind == "f":
        values *= one_of([np.nan, np.inf, 0, -1, 1e30], rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.write(values)
    return f"raster {change}"
