"""Grids and the errors on them: cell size, excluded ground, resampling, zone means, correlation, block jackknife.

Distances are metres on any grid. Fields have dims (y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (registers the .rio accessor)
import xarray as xr
from rasterio.features import geometry_mask
from rasterio.warp import transform, transform_geom
from scipy import optimize, signal, stats
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

METRES_PER_DEGREE = 111_195.0  # of latitude, on a sphere of 6371 km


def step_of(coordinate: xr.DataArray) -> float:
    """Spacing of a regular coordinate; inf for a single value."""
    values = coordinate.values
    return abs(float(values[-1] - values[0])) / (values.size - 1) if values.size > 1 else np.inf


def cell_size_m(grid: xr.DataArray | xr.Dataset) -> tuple[float, float]:
    """Height and width of a cell in metres; on a lon/lat grid at its middle latitude."""
    dy, dx = step_of(grid.y), step_of(grid.x)
    if grid.rio.crs is not None and grid.rio.crs.is_geographic:
        return dy * METRES_PER_DEGREE, dx * METRES_PER_DEGREE * float(np.cos(np.deg2rad(grid.y.mean())))
    return dy, dx


def latitude_of(grid: xr.DataArray | xr.Dataset) -> float:
    """Latitude of the grid's centre; a grid without a coordinate system is refused."""
    if grid.rio.crs is None:
        raise ValueError(
            "the grid has no coordinate system, so its latitude is unknown; set it with rio.write_crs"
        )
    return float(transform(grid.rio.crs, "EPSG:4326", [float(grid.x.mean())], [float(grid.y.mean())])[1][0])


def mask_of(geometry: BaseGeometry, like: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Rasterise a lon/lat polygon onto a grid (cells whose centre it holds); longitudes may run past 180 or to 360."""
    if np.unique(np.sign(np.diff(like.x.values))).size > 1:
        raise ValueError("longitudes of the grid jump (180 to -180): write them increasing, beyond 180")
    turns = (-360, 0, 360) if like.rio.crs is not None and like.rio.crs.is_geographic else (0,)
    turned = [translate(geometry, turn).__geo_interface__ for turn in turns]
    geometries = [transform_geom("EPSG:4326", like.rio.crs, g) for g in turned]
    inside = geometry_mask(geometries, like.rio.shape, like.rio.transform(), invert=True)
    return xr.DataArray(inside, coords={"y": like["y"], "x": like["x"]}, dims=("y", "x"))


def touched(polygons: Sequence[BaseGeometry], grid: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Excluded ground: cells that hold part of a lon/lat polygon, their centre within half a cell of it."""
    half = 0.5 * max(cell_size_m(grid)) / METRES_PER_DEGREE
    nothing = xr.DataArray(np.zeros(grid.rio.shape, bool), coords={"y": grid.y, "x": grid.x}, dims=("y", "x"))
    return sum((mask_of(p.buffer(half), grid) for p in polygons), nothing)


def lags(field: xr.DataArray) -> np.ndarray:
    """Distances (m) between all pairs of cells, in the layout of a full autocorrelation."""
    (ny, nx), (dy, dx) = (field.sizes["y"], field.sizes["x"]), cell_size_m(field)
    up, across = np.arange(-ny + 1, ny), np.arange(-nx + 1, nx)
    return np.hypot((up * (dy if ny > 1 else 0.0))[:, None], (across * (dx if nx > 1 else 0.0))[None])


def track_name(track: xr.Dataset, number: int) -> str:
    """Name of a track in messages: its sensor, else its place in the list."""
    return str(track.attrs.get("sensor", f"track {number}"))


def resample(track: xr.Dataset, like: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Bring a track onto the grid of another, once.

    Same grid: returned as it is. A finer grid is averaged by area over the cells of `like`, NaN where less than half of
    a cell has data (means of the standard deviations: errors of neighbours are taken as fully correlated); else
    interpolated linearly; another coordinate system is reprojected bilinearly. NaN stays NaN.

    Parameters
    ----------
    track : Dataset with dims (..., y, x)
    like : Dataset or DataArray giving x, y and, if it has one, the coordinate system

    Returns
    -------
    Dataset on the grid of `like`; lazy where `track` is lazy and shares its coordinate system.

    Raises
    ------
    ValueError
        The grids do not overlap.
    """
    if all(track[d].size == like[d].size and np.allclose(track[d], like[d], rtol=0, atol=1e-6) for d in "yx"):
        return track.assign_coords(x=like.x, y=like.y)
    crs, target = track.rio.crs, like.rio.crs
    if crs is not None and target is not None and crs != target:
        spatial = track[[v for v in track.data_vars if {"y", "x"} <= set(track[v].dims)]]
        template = like if isinstance(like, xr.DataArray) else next(a for a in like.values() if "y" in a.dims)
        template = template.isel({d: 0 for d in template.dims if d not in ("y", "x")}, drop=True)
        moved = {}
        try:
            for n, a in spatial.drop_attrs(deep=False).items():
                moved[n] = a.astype("f8").rio.reproject_match(template, resampling=1, nodata=np.nan)
        except Exception as error:  # rasterio raises its own types when nothing overlaps
            who = track_name(track, 0)
            raise ValueError(f"{who}: cannot be reprojected from {crs} to {target}: {error}") from error
        if not any(bool(a.notnull().any()) for a in moved.values()):
            who = track_name(track, 0)
            raise ValueError(f"{who}: its grid ({crs}) does not overlap the target grid ({target})")
        return xr.Dataset(moved).assign_coords(x=like.x, y=like.y).assign_attrs(track.attrs)
    for d in "yx":
        low, high = float(track[d].min()), float(track[d].max())
        if low > float(like[d].max()) or high < float(like[d].min()):
            raise ValueError(
                f"{track_name(track, 0)}: its grid does not overlap the target grid along {d}: "
                f"{low:g}..{high:g} against {float(like[d].min()):g}..{float(like[d].max()):g}; "
                "check the coordinate systems (spatial_ref)"
            )
    if any(1.5 < step_of(like[d]) / step_of(track[d]) < np.inf for d in "yx"):
        shares = [_shares(track[d], like[d]) for d in "yx"]
        # mean of a coarse cell = sum_k share_k v_k / sum_k share_k over the fine cells k with data
        spatial = track[[v for v in track.data_vars if {"y", "x"} <= set(track[v].dims)]]
        total, seen = (
            f.map(lambda a: xr.dot(a, *shares, dim=("y", "x")).rename(to_y="y", to_x="x").transpose(*a.dims))
            for f in (spatial.fillna(0.0), spatial.notnull().astype("f8"))
        )
        return (
            (total / seen.where(seen >= 0.5 - 1e-9))
            .assign_coords(y=like.y, x=like.x)
            .assign_attrs(track.attrs)
        )
    seen = track.notnull().astype("f4").interp(x=like.x, y=like.y, method="linear")
    filled = track.fillna(0.0).interp(x=like.x, y=like.y, method="linear")
    return (filled / seen.where(seen > 0.5)).assign_attrs(track.attrs)


def _shares(fine, coarse):
    """Share of each coarse cell (to_y or to_x) that each fine one covers along an axis; its cells have equal steps."""
    d, (half, width) = fine.name, (step_of(fine) / 2, step_of(coarse))
    width = width if np.isfinite(width) else 2 * half
    at, to = fine.values[None], coarse.values[:, None]
    common = np.minimum(at + half, to + width / 2) - np.maximum(at - half, to - width / 2)
    shares = xr.DataArray(np.clip(common, 0, None) / width, coords={d: fine}, dims=("to_" + d, d))
    return shares.where(shares.sum(d) > 0.99, 0.0)  # beyond the fine grid's edge a cell is not known


def correlation_length(field: xr.DataArray) -> float:
    """Length l (m) of exp(-h / l) that fits the spatial correlation of a field's deviations from its mean.

    Missing values are left out pair by pair. The mean is that of the field; what it takes from the correlation at all
    lags is part of the fit. A field without correlation gives a length below the pixel.
    """
    values = np.asarray(field.transpose("y", "x").values, float)
    seen = np.isfinite(values)
    if seen.sum() < 30:
        return float("nan")
    centred = np.where(seen, values - values[seen].mean(), 0.0)
    pairs = signal.fftconvolve(seen.astype(float), seen[::-1, ::-1].astype(float))
    product = signal.fftconvolve(centred, centred[::-1, ::-1])
    lag = lags(field)
    limit = 0.35 * min(n * step for n, step in zip(values.shape, cell_size_m(field), strict=True))
    use = (pairs > 20) & (lag > 0) & (lag <= limit)
    if not use.any():
        return float("nan")
    count = np.round(pairs)
    rho = product[use] / count[use] / centred[seen].var()
    weight = np.sqrt(count[use])
    step = min(cell_size_m(field))

    # rho(h) = sill exp(-h / l) for h > 0 and 1 at h = 0, less what the field's own mean took off all pairs
    def misfit(parameters):
        sill, length = parameters
        model = sill * np.exp(-lag / np.exp(length))
        shared = (count * np.where(lag > 0, model, 1.0)).sum() / seen.sum() ** 2
        return weight * ((model[use] - shared) / (1 - shared) - rho)

    bounds = ([0, np.log(step / 10)], [1, np.log(10 * limit)])
    fit = optimize.least_squares(misfit, [0.8, np.log(3 * step)], bounds=bounds)
    sill, length = fit.x[0], float(np.exp(fit.x[1]))
    # a nugget averages out like independent pixels: keep the area under the correlation, sill * l^2
    return float(max(np.sqrt(sill) * length, step / 10))


def zone_mean(
    field: xr.DataArray, std: xr.DataArray, zones: xr.DataArray, *, length_m: float
) -> pd.DataFrame:
    """Mean of each zone with the sd its correlated pixels leave it.

    Var(mean) = sum_ij s_i s_j exp(-h_ij / l) / M^2, summed exactly over all pairs of pixels.

    Parameters
    ----------
    field, std : DataArray (y, x)
    zones : DataArray (y, x) of labels (strings or numbers; "" and NaN belong to none), or bool (y, x) with dim zone
    length_m : float
        Correlation length l of the errors in metres (on a lon/lat grid too).

    Returns
    -------
    DataFrame indexed by zone: mean, std (without what the whole scene shares), n_pixels, n_effective.
    """
    masks = {name: inside & np.isfinite(field * std).values for name, inside in zone_masks(zones)}
    own = np.sqrt(np.diag(zone_covariance(std, list(masks.values()), length_m)))
    rows = {}
    for (name, use), error in zip(masks.items(), own, strict=True):
        n = int(use.sum())
        square = float((std.values[use].astype(float) ** 2).sum())
        effective = square / n / error**2 if error > 0 else float(n)
        mean = field.values[use].astype(float).mean() if n else np.nan
        rows[name] = dict(mean=mean, std=float(error), n_pixels=n, n_effective=effective)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("zone")


def zone_covariance(std: xr.DataArray, masks: list, length_m: float) -> np.ndarray:
    """Covariance (zone, zone) of the mean errors of zones: sum_ij s_i s_j exp(-h_ij / l) / (M N); NaN if empty."""
    correlation = np.exp(-lags(std) / max(length_m, 1e-9))
    s = np.nan_to_num(std.transpose("y", "x").values.astype(float))
    counts = [m.sum() for m in masks]
    means = [np.where(m, s, 0.0) / n if n else s * np.nan for m, n in zip(masks, counts, strict=True)]
    ny, nx = s.shape
    middle = (slice(ny - 1, 2 * ny - 1), slice(nx - 1, 2 * nx - 1))
    # sum_j exp(-h_ij / l) s_j is the convolution of the errors with the correlation
    smoothed = [signal.fftconvolve(np.nan_to_num(v), correlation)[middle] for v in means]
    out = np.array([[(a * b).sum() for b in smoothed] for a in means])
    # rounding of the transform must not make a mean better known than independent pixels would
    alone = np.array([(v**2).sum() for v in means])
    out[np.diag_indices(len(means))] = np.maximum(np.diag(out), alone)
    return (out + out.T) / 2


def zone_masks(zones: xr.DataArray) -> list:
    """Name and bool (y, x) array of each zone, sorted by name."""
    if "zone" in zones.dims:
        values = zones.transpose("zone", "y", "x").values.astype(bool)
        return [(str(z), inside) for z, inside in zip(zones.zone.values, values, strict=True)]
    values = zones.transpose("y", "x").values
    labels = [v for v in pd.unique(values.ravel()) if not (pd.isna(v) or v == "")]
    return [(str(label), values == label) for label in sorted(labels, key=str)]


def all_but_one_block(field: xr.DataArray) -> list:
    """The field without one of nine blocks in turn, see `blocks`."""
    block = blocks(np.isfinite(field).values, 3)
    return [field.where(field.copy(data=block != b)) for b in range(9)]


def blocks(seen: np.ndarray, side: int) -> np.ndarray:
    """Number of the block of every cell: equal parts (thirds for 3) of the cells seen by row, times those by column."""
    cuts = np.arange(1, side) / side
    seen_at = zip(np.nonzero(seen), seen.shape, strict=True)
    row, column = (np.searchsorted(np.quantile(at, cuts), np.arange(n)) for at, n in seen_at)
    return side * row[:, None] + column


def block_interval(statistic: Callable[..., float], *fields: xr.DataArray) -> tuple[float, float, float]:
    """Statistic of maps of one scene, with its 95 % interval by the jackknife over ninths of the ground.

    Neighbours share their errors, so pixels are not counted: each block is left out in turn. What is alike across the
    borders of blocks makes their variance too small, and by twice as much for blocks of half the side: twice the one
    less the other is without that bias (Politis and Romano 1995, doi:10.1111/j.1467-9892.1995.tb00223.x). The larger of
    it and the plain one is taken, with Student's t of the blocks less one. Where errors fall to 1/e over a tenth of a
    block, limits hold in 94 % of draws, those of shares, which are skewed, in 90 %; over a third in 91 and 80 %. What
    the whole scene has in common (its weather, its reference) is not in it.

    `statistic` takes the values of each field (y, x) where all have data, as 1-D arrays, and gives a number. Returns
    value, lower and upper; the limits are NaN where fewer than three blocks have data.
    """
    seen = np.logical_and.reduce([np.isfinite(f.values) for f in fields])
    if not seen.any():
        return np.nan, np.nan, np.nan
    values = [f.values[seen] for f in fields]

    def variance(side):
        """Variance by the jackknife over blocks, and the number of blocks."""
        block = blocks(seen, side)[seen]
        filled = np.unique(block)
        if filled.size < 2:
            return np.nan, filled.size
        without = [statistic(*(v[block != b] for v in values)) for b in filled]
        return (filled.size - 1) * np.var(without), filled.size

    value, (large, number) = float(statistic(*values)), variance(3)
    if number < 3:
        return value, np.nan, np.nan
    half = stats.t.ppf(0.975, number - 1) * np.sqrt(max(large, 2 * large - variance(6)[0]))
    return value, float(value - half), float(value + half)


def error_scale(field: xr.DataArray, std: xr.DataArray, length_m: float) -> float:
    """Size of errors found in a field that should be flat, over their stated sd.

    The variance about the field's mean misses what all of its pixels share, a known part for errors of one
    correlation length: it is added back. Real differences between places count as errors.
    """
    seen = np.isfinite(field * std)
    stated = float((std.where(seen) ** 2).mean())
    inside, ones = [seen.transpose("y", "x").values], xr.ones_like(std)
    shared = float(zone_covariance(ones, inside, length_m)[0, 0])
    return float(np.sqrt(field.where(seen).var() / (1 - min(shared, 0.9)) / stated))


def widening(variance: float, without: Sequence[float]) -> float:
    """Factor on an sd for the uncertainty of its own variance, so that 1.96 of it hold 95 %.

    The variance of the logarithm by the jackknife over blocks is that of a chi square of 2 / variance degrees of
    freedom, and the error over its sd is Student's t of as many. Few blocks cannot tell less than 3, which also
    stands where a block less leaves too little ground.

    `variance` is found from all blocks, `without` without one of them in turn.
    """
    logs = np.log(np.asarray(without, float) / variance)
    variance_of_log = (len(logs) - 1) * float(np.var(logs))  # jackknife: (n - 1) / n sum (log_i - mean)^2
    freedom = np.inf if variance_of_log == 0 else np.fmax(2 / variance_of_log, 3.0)
    return float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))


def spatial_blocks(x_m: np.ndarray, y_m: np.ndarray, size_m: float) -> np.ndarray:
    """Integer label of the square block of side `size_m` (metres) that holds each pixel."""
    column, row = (np.floor((np.asarray(v) - np.min(v)) / size_m).astype(int) for v in (x_m, y_m))
    return np.unique(row * (column.max() + 1) + column, return_inverse=True)[1]


def draw_by_block(blocks: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
    """Sorted positions of about `n` pixels, the same share of every block."""
    blocks, rng = np.asarray(blocks), np.random.default_rng(seed)
    if n >= len(blocks):
        return np.arange(len(blocks))
    members = (np.flatnonzero(blocks == b) for b in np.unique(blocks))
    drawn = [rng.choice(m, max(1, round(n / len(blocks) * len(m))), replace=False) for m in members]
    return np.sort(np.concatenate(drawn))


def residual_range(residual: np.ndarray, x_m: np.ndarray, y_m: np.ndarray, *, seed: int = 0) -> float:
    """Distance (m) where the exponential variogram of residuals reaches 95 % of its sill, to half the extent."""
    rng, classes = np.random.default_rng(seed), 15
    residual, place = np.asarray(residual, float), np.column_stack([x_m, y_m]).astype(float)
    extent = 0.5 * np.hypot(*np.ptp(place, axis=0))
    first, second = rng.integers(0, len(residual), (2, 200_000))
    lag = np.hypot(*(place[first] - place[second]).T)
    keep = (lag > 0) & (lag < extent)
    edges = np.linspace(0, extent, classes + 1)
    at = np.digitize(lag[keep], edges) - 1
    count = np.bincount(at, minlength=classes)[:classes]
    used = count > 30
    # gamma(h) = mean of (r_i - r_j)^2 / 2 over the pairs of a class of distance h
    half_square = 0.5 * np.square(residual[first] - residual[second])[keep]
    gamma = np.bincount(at, half_square, minlength=classes)[:classes][used] / count[used]
    middle = (0.5 * (edges[1:] + edges[:-1]))[used]

    def model(h, nugget, sill, length):
        return nugget + sill * (1 - np.exp(-h / length))

    start, top = (0.3 * gamma[-1], 0.7 * gamma[-1], 0.2 * extent), 2 * gamma.max() + 1e-12
    bounds = ((0, 0, edges[1] / 10), (top, top, extent))
    try:
        found, _ = optimize.curve_fit(model, middle, gamma, start, np.sqrt(1 / count[used]), bounds=bounds)
    except RuntimeError:  # no curve: the data do not rule out correlation over the whole window
        return float(extent)
    if found[1] < 0.1 * (found[0] + found[1]):  # hardly anything but nugget: the length means nothing
        return float(edges[1])
    return float(np.clip(3 * found[2], edges[1], extent))  # 1 - exp(-3) = 0.95
