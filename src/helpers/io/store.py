"""Derived data, results and truth: written whole or not at all, read with an error that names the remedy."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import dask
import pandas as pd
import xarray as xr
import zarr

from helpers.io.site import Site
from readers.damage import damage_named, regular_file, regular_tree

BLOCK_BYTES = 32_000_000
# stacks and series above this stay on disk and are read by blocks
IN_MEMORY_BYTES = float(os.environ.get("IN_MEMORY_BYTES", 2e9))


def write(obj: xr.Dataset | xr.DataArray | pd.DataFrame, site: Site, name: str) -> Path:
    """Write a derived file of the running notebook: ``.zarr``, ``.nc``, ``.tif`` or ``.csv`` by its ending.

    The file is built beside its place and renamed, so a reader never meets half of one.
    """
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"{name!r}: a derived file lies in {site.derived} itself; give a plain name")
    path = site.derived / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _remove(part)
    if path.suffix == ".zarr":
        # empty chunks are written too: so one that is lost later can be told from one without data
        with _where_the_data_are(obj):
            _in_blocks(_bare(obj)).to_zarr(
                part, mode="w", zarr_format=2, consolidated=True, write_empty_chunks=True
            )
    elif path.suffix == ".nc":
        _bare(obj).to_netcdf(part, engine="h5netcdf", encoding=_compressed(obj))
    elif path.suffix == ".tif":
        obj.rio.to_raster(part, driver="GTiff", compress="deflate")
    elif path.suffix == ".csv":
        obj.to_csv(part, index=False, float_format="%.8g", lineterminator="\n")
    else:
        raise ValueError(f"{name}: a derived file ends in .zarr, .nc, .tif or .csv")
    _swap(part, path)
    return site.record(path)


def _where_the_data_are(data: xr.Dataset | xr.DataArray):
    """Blocks of a cluster are written by its workers; what lies in this process's memory is written from here."""
    return contextlib.nullcontext() if dask.is_dask_collection(data) else dask.config.set(scheduler="threads")


def _bare(obj):
    obj = obj.to_dataset(name=obj.name or "data") if isinstance(obj, xr.DataArray) else obj.copy()
    for variable in obj.variables.values():
        for key in ("chunks", "preferred_chunks", "compressors", "filters", "compressor", "shards"):
            variable.encoding.pop(key, None)
    if "spatial_ref" in obj.variables:
        obj = obj.set_coords("spatial_ref")
        for variable in obj.data_vars.values():
            if {"y", "x"} <= set(variable.dims):
                variable.attrs.pop("grid_mapping", None)
                variable.encoding["grid_mapping"] = "spatial_ref"
    return obj


def _in_blocks(data: xr.Dataset) -> xr.Dataset:
    """Chunk by rows with every pair and date in one block, as an inversion wants it: about 32 MB a block.

    Blocks that come by rows already are joined whole: cut anew, they would wait for their neighbours in memory.
    """
    if "y" not in data.dims:
        return data
    other = [size for dim, size in data.sizes.items() if dim in ("pair", "time")]
    row_bytes = 4 * data.sizes.get("x", 1) * max(other, default=1)
    rows = int(min(data.sizes["y"], max(1, BLOCK_BYTES // row_bytes)))
    given = {v.chunksizes["y"][0] for v in data.variables.values() if "y" in v.chunksizes}
    if len(given) == 1 and rows > (whole := given.pop()):
        rows -= rows % whole
    return data.chunk({**dict.fromkeys(data.dims, -1), "y": rows})


def _compressed(obj) -> dict:
    names = obj.data_vars if isinstance(obj, xr.Dataset) else [obj.name or "data"]
    data = obj if isinstance(obj, xr.Dataset) else obj.to_dataset(name=obj.name or "data")
    return {
        n: {"zlib": True, "complevel": 4} for n in names if data[n].ndim > 0 and data[n].dtype.kind in "fiub"
    }


def _swap(part: Path, path: Path) -> None:
    if path.is_dir():
        # a folder cannot be replaced in one step: the old one steps aside first
        old = path.with_name(path.name + ".old.part")
        _remove(old)
        path.rename(old)
        part.rename(path)
        _remove(old)
    else:
        part.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_and_reopen(data: xr.Dataset, site: Site, name: str) -> xr.Dataset:
    """Write a derived file and give the data on, as blocks of that file if they come so or a cluster is there."""
    write(data, site, name)
    return read(site, name, load=True) if site.client or dask.is_dask_collection(data) else data


def in_memory(data: xr.Dataset) -> xr.Dataset:
    """Load a dataset up to `IN_MEMORY_BYTES`; of a larger one the maps only, its stacks and series stay blocks."""
    if data.nbytes <= IN_MEMORY_BYTES:
        return data.load()
    return data.assign({name: v.load() for name, v in data.data_vars.items() if v.ndim < 3})


def read(site: Site, name: str, *, load: bool = False) -> xr.Dataset | pd.DataFrame:
    """Open a derived file of an earlier notebook (zarr and netCDF as Dataset, CSV as DataFrame).

    Parameters
    ----------
    load : bool
        Into memory, up to `IN_MEMORY_BYTES`. Of larger data, and where a cluster is at work, only the maps come
        there; what has pairs or times as well as pixels stays blocks.

    Raises
    ------
    FileNotFoundError
        The file is not there; the message names the notebook to run first.
    """
    path = next((folder / name for folder in site.read_from if (folder / name).exists()), None)
    if path is None:
        size = " SIZE=quick" if site.size == "quick" else ""
        raise FileNotFoundError(
            f"{site.derived / name} is missing; run the notebook that starts with {name[:2]}_ first "
            f"(`make all SITE={site.name}{size}` runs all in order)"
        )
    regular_tree(path) if path.suffix == ".zarr" else regular_file(path)
    with damage_named(path, f"remove it and run the notebook that starts with {name[:2]}_ again"):
        if path.suffix == ".zarr":
            _check_chunks(path)
            data = _placed(xr.open_zarr(path, consolidated=True, decode_coords="all"))
            data = data.assign_coords({name: coord.load() for name, coord in data.coords.items()})
            if not load:
                return data
            if site.client is None:
                return in_memory(data)
            return data.assign({n: v.load() for n, v in data.data_vars.items() if v.ndim < 3})
        if path.suffix == ".nc":
            with xr.open_dataset(path, engine="h5netcdf", decode_coords="all") as data:
                return _placed(data.load())
        return pd.read_csv(path)


def _check_chunks(path: Path) -> None:
    """Every chunk that was written must be there: zarr itself would give no data in its place."""
    for name, array in zarr.open_group(path, mode="r").arrays():
        if array.nchunks_initialized < array.nchunks:
            raise ValueError(f"{name} has {array.nchunks_initialized} of {array.nchunks} chunks")


def _placed(data: xr.Dataset) -> xr.Dataset:
    return data.set_coords("spatial_ref") if "spatial_ref" in data.data_vars else data


def exists(site: Site, name: str) -> bool:
    """Say whether an earlier notebook has written this derived file."""
    return any((folder / name).exists() for folder in site.read_from)


def read_truth(site: Site) -> xr.Dataset | None:
    """Open the twin's truth, for scoring only; None on a real site."""
    path = site.raw / "truth.zarr"
    return xr.open_zarr(path, decode_coords="all") if site.kind == "twin" and path.exists() else None
