"""Parts of a stack that fit into memory: blocks, thinned stacks, samples of pixels."""

from collections.abc import Iterator

import dask.array as da
import numpy as np
import xarray as xr

SCENE_PIXELS = 50_000  # enough for statistics of a scene
SAMPLE_PIXELS = 3000  # enough for a handful of coefficients


def thinned(stack: xr.Dataset) -> xr.Dataset:
    """Every nth row and column of a stack, n such that about `SCENE_PIXELS` remain."""
    every = max(1, round(np.sqrt(stack.sizes["y"] * stack.sizes["x"] / SCENE_PIXELS)))
    return stack.isel(y=slice(None, None, every), x=slice(None, None, every))


def by_blocks(stack, dim: str = "y", *, halo: int = 0, size: int | None = None) -> Iterator[tuple]:
    """Iterate by blocks of rows (or columns), one in memory at a time: own rows with halo, and the slice of own rows.

    ``size``, own rows of a block, is by default that of the stack's own blocks, at least twice the halo; all rows where
    the stack is in memory.
    """
    length = stack.sizes[dim]
    size = size or (max(2 * halo, *stack.chunksizes[dim]) if stack.chunks else length)
    for start in range(0, length, size):
        first = max(start - halo, 0)
        part = stack.isel({dim: slice(first, start + size + halo)}).load()
        yield part, slice(start - first, min(start + size, length) - first)


def mask_on(mask: xr.DataArray, stack: xr.Dataset) -> np.ndarray:
    """Mask (y, x) in the stack's order of rows and columns, found by its coordinates where it has them."""
    if isinstance(mask, xr.DataArray):
        mask = mask.transpose("y", "x")
        for dim in {"y", "x"} & set(mask.coords):
            # a quarter of a pixel: grids differ by rounding, not by more
            near = 0.25 * abs(float(np.diff(stack[dim][:2])[0])) if stack.sizes[dim] > 1 else 1e-6
            at = mask.indexes[dim].get_indexer(stack.indexes[dim], method="nearest", tolerance=near)
            if (at < 0).any() or mask.sizes[dim] != stack.sizes[dim]:
                raise ValueError(f"the mask is not on the stack's grid ({dim} differs): resample it first")
            mask = mask.isel({dim: at})
    mask = np.asarray(mask, bool)
    if mask.shape != (stack.sizes["y"], stack.sizes["x"]):
        raise ValueError(f"the mask is not on the stack's grid: {mask.shape}")
    return mask


def sample(stack: xr.Dataset, mask: xr.DataArray | None = None) -> np.ndarray:
    """Flat indices of up to `SAMPLE_PIXELS` pixels of the mask that have data, evenly spread.

    Only pixels valid in at least half as many pairs as the best pixel: others would change the sample from pair
    to pair.
    """
    valid = stack["unwrapped_phase"].notnull().mean("pair").transpose("y", "x").values
    allowed = True if mask is None else mask_on(mask, stack)
    index = np.flatnonzero(allowed & (valid >= 0.5 * valid.max()))
    if index.size < 30:
        raise ValueError(f"only {index.size} usable pixels for the delay fit, need 30: widen the mask")
    return index[:: int(np.ceil(index.size / SAMPLE_PIXELS))]


def values_at(field: xr.DataArray, index: np.ndarray) -> np.ndarray:
    """Values (..., sample) of a field (..., y, x) at flat pixel indices; of a lazy one only those are read."""
    data = field.transpose(..., "y", "x").data
    row, column = np.unravel_index(index, data.shape[-2:])
    if not isinstance(data, da.Array):
        return np.asarray(data[..., row, column], float)
    if data.ndim == 2:
        return data.vindex[row, column].compute()
    return np.asarray(data.vindex[:, row, column].compute(), float).T  # dask puts the pointwise axis first


def subtract_fields(phase: xr.DataArray, per_pair: np.ndarray, fields: np.ndarray) -> xr.DataArray:
    """Phase (pair, y, x) less coefficients (pair, term) times fields (term, y, x), lazy where the phase is."""
    phase = phase.transpose("pair", "y", "x")
    data, per_pair, fields = phase.data, per_pair.astype(np.float32), fields.astype(np.float32)

    def less(phase, fields):
        return phase - np.tensordot(per_pair, fields, axes=1)

    if isinstance(data, da.Array):
        data = data.rechunk({0: -1})
        fields = da.from_array(fields, chunks=(-1, *data.chunks[1:]))
        less_data = da.blockwise(less, "pyx", data, "pyx", fields, "kyx", concatenate=True, dtype=data.dtype)
        return phase.copy(data=less_data)
    return phase.copy(data=less(data, fields))
