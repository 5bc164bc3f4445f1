"""The value of an area from its pixels: weights, means, curves, and the noise of single dates; part of `thaw`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

MIN_COVERAGE = 0.3  # of an area, below which it has no mean
ROOT = (0.5,)
OTHER_FORMS = ((1.0,), (1.0, 2.0))


@dataclass(frozen=True)
class Weighting:
    """How pixels make up the value of an area, and what is known of its error.

    Parameters
    ----------
    pattern : "others" or None
        None: the plain mean. "others": slope of the drops against the root of the mean full drop of the other
        years, times its mean. No noise is on both sides, and what is common to the scene cancels.
    nuisance : (term, ...) DataArray, optional
        Fields fitted beside the pattern, for example height, which delay may follow.
    smooth_cells : float
        Cosines of the (y, x) grid down to this wavelength (cells) are fitted too, because delay is mostly longer
        than the pattern of thaw. 0 fits none.
    noise_factor : float
        Sd of the area's value over that of pixels with independent errors, from `noise_inflation`.
    """

    pattern: str | None = None
    nuisance: xr.DataArray | None = None
    smooth_cells: float = 0.0
    noise_factor: float = 1.0

    def sizes(self, full):
        """(year, ...) mean full drop of all years but one, where at least two of them are known."""
        if self.pattern is None:
            return None
        if self.pattern != "others":
            raise ValueError(f"pattern: {self.pattern!r}; use 'others' or None")
        others = full.notnull().sum("year") - full.notnull()
        return (full.sum("year") - full.fillna(0)) / others.where(others > 1)

    def design(self, space, shape):
        """(pixel, column) what is fitted beside the pattern: a constant, nuisance fields, long waves."""
        fields = [np.ones((1, *shape))]
        if self.nuisance is not None:
            fields.append(without_coords(self.nuisance).transpose(..., *space).values)
        if self.smooth_cells:
            fields.append(_long_waves(shape, self.smooth_cells))
        return np.concatenate([field.reshape(-1, int(np.prod(shape))) for field in fields]).T


PLAIN_MEAN = Weighting()


def without_coords(obj):
    """Drop all coordinates: arithmetic by position."""
    return obj.drop_vars(list(obj.coords))


def area_means(values: xr.DataArray, std: xr.DataArray, areas: xr.DataArray) -> xr.Dataset:
    """Mean of drops, or of a displacement, over areas.

    Parameters
    ----------
    values, std : (..., y, x) DataArrays
        mm.
    areas : (zone, y, x) bool DataArray
        Masks.

    Returns
    -------
    Dataset
        mean, mean_std (..., zone) in mm; NaN where less than `MIN_COVERAGE` of an area is seen. The sd is that of
        independent pixels: multiply it by the `noise_inflation` of the zone's displacement.
    """
    parts = []
    for mask in areas:
        inside = values.notnull() & mask.drop_vars("zone", errors="ignore")
        count = inside.sum(("y", "x"))
        count = count.where(count >= max(MIN_COVERAGE * float(mask.sum()), 1))
        error = np.sqrt(np.square(std.where(inside)).sum(("y", "x"))) / count
        parts.append(xr.Dataset({"mean": values.where(inside).sum(("y", "x")) / count, "mean_std": error}))
    return xr.concat(parts, areas["zone"], coords="minimal", compat="override").transpose(..., "zone")


def area_curve(
    displacement: xr.DataArray, std: xr.DataArray, full: xr.DataArray, weighting: Weighting
) -> xr.Dataset:
    """The area of `fraction_of_drops` as a curve through each season.

    Parameters
    ----------
    displacement, std : (time, y, x) DataArrays
        mm, positive up.
    full : (year, y, x) DataArray
        Full drops, mm, from which the weights come.
    weighting : Weighting
        With a pattern.

    Returns
    -------
    Dataset
        mean, mean_std (time) in mm, the sd as if errors were independent between pixels. Only pixels seen on all
        dates of a season take part in it; NaN on dates that few pixels saw.
    """
    up, full = without_coords(displacement).transpose("time", ...), without_coords(full)
    years, space = displacement["time"].dt.year.values, up.dims[1:]
    known = up.notnull()
    count = known.sum(space)
    thin = count < 0.8 * count.max()  # a date that few pixels saw would cost its season most of them
    whole = [(known | thin).isel(time=years == y).all("time") for y in np.unique(years)]
    full = full.where(xr.concat(whole, "year"))
    weights = area_weights(full.notnull().expand_dims(window=1), weighting.sizes(full), weighting)
    year = xr.DataArray(np.searchsorted(np.unique(years), years), dims="time")
    weights = weights.isel(form=0, window=0, year=year)
    mean = (weights * up.fillna(0)).sum(space).where(~thin & weights.notnull().all(space))
    error = np.sqrt(np.square(weights * without_coords(std).fillna(0)).sum(space)).where(mean.notnull())
    return xr.Dataset({"mean": mean, "mean_std": error}).assign_coords(time=displacement["time"])


def noise_inflation(values: xr.DataArray, std: xr.DataArray) -> xr.DataArray:
    """Noise of single dates about a smooth season, over their stated sds.

    Each date is held against the line between its neighbours in the season, less the bend that all years share, a
    cubic of the day of the year. The rest is noise of single dates, with the correlation of neighbouring pixels in
    it. Errors that last over several dates are not seen.

    Parameters
    ----------
    values, std : (time, ...) DataArrays
        Curve and its sd in mm, for example from `area_curve`, or `area_means` of a displacement.

    Returns
    -------
    (...) DataArray
        Factor on the sds; NaN with fewer than 10 inner dates.
    """
    values, std = values.transpose("time", ...), std.transpose("time", ...)
    when = pd.DatetimeIndex(values["time"].values)
    day = (when - when[0]).days.to_numpy(float)
    after = ((day[1:-1] - day[:-2]) / (day[2:] - day[:-2]))[:, None]
    inner = when.year[:-2] == when.year[2:]
    v, e = (a.values.reshape(day.size, -1) for a in (values, std))
    # bend_i = v_i - (1 - a) v_{i-1} - a v_{i+1}, its variance s_i^2 + (1 - a)^2 s_{i-1}^2 + a^2 s_{i+1}^2
    bend = (v[1:-1] - (1 - after) * v[:-2] - after * v[2:])[inner]
    variance = (e[1:-1] ** 2 + ((1 - after) * e[:-2]) ** 2 + (after * e[2:]) ** 2)[inner]
    common = np.vander((when.day_of_year[1:-1][inner].to_numpy() - 200) / 100, 4)
    out = np.full(v.shape[1], np.nan)
    for j in range(v.shape[1]):
        seen = np.isfinite(bend[:, j]) & np.isfinite(variance[:, j])
        if seen.sum() >= 10:
            cubic = common[seen] @ np.linalg.lstsq(common[seen], bend[seen, j], rcond=None)[0]
            freedom = seen.sum() - common.shape[1]
            out[j] = np.sqrt(np.sum((bend[seen, j] - cubic) ** 2) / freedom / np.mean(variance[seen, j]))
    return values.isel(time=0, drop=True).copy(data=out.reshape(values.shape[1:]))


def _long_waves(shape, smooth_cells):
    """(mode, y, x) cosines of a grid with wavelengths of at least `smooth_cells`, without the constant."""
    y, x = (np.pi * (np.arange(n) + 0.5) / n for n in shape)
    i, j = (v.ravel() for v in np.indices([int(2 * n / smooth_cells) + 1 for n in shape]))
    long = np.hypot(i / (2 * shape[0]), j / (2 * shape[1])) <= 1 / smooth_cells
    kept = (v[long & (i + j > 0), None] for v in (i, j))
    rows, columns = (np.cos(n * at) for n, at in zip(kept, (y, x), strict=True))
    return rows[:, :, None] * columns[:, None]


def area_weights(valid, sizes, weighting: Weighting, forms=(ROOT,)):
    """(form, year, window, ...) weights whose sum with a field is the area's value; NaN where there is none.

    A form is the powers of the pattern that are fitted; the value is the mean of what they explain. To the power 1
    ground that sinks most would rule it; to the power 0 all that sinks would count alike against ground that does not.
    """
    space = [d for d in valid.dims if d not in ("year", "window")]
    if sizes is None:
        count = valid.sum(space)
        return (valid / count.where(count > 0)).expand_dims(form=1)
    mask = valid.transpose("year", "window", *space).values
    sizes = sizes.transpose("year", *space).values.reshape(len(mask), -1)
    design = weighting.design(space, mask.shape[2:])
    out = np.full((len(forms), *mask.shape[:2], sizes.shape[1]), np.nan)
    usable = np.isfinite(design).all(axis=1)
    bases = {}  # most years and windows see the same pixels
    for i, j in np.ndindex(*mask.shape[:2]):
        used = mask[i, j].ravel() & usable & np.isfinite(sizes[i])
        if used.sum() <= design.shape[1] + 2:
            continue
        key = used.tobytes()
        if key not in bases:
            bases[key] = np.linalg.qr(design[used])[0]
        unit = np.abs(sizes[i, used]).mean()
        size = sizes[i, used, None] / (unit if unit > 0 else 1.0)
        for k, powers in enumerate(forms):
            # M = I - Q Q' projects the nuisance out of P = |size|^p; w = M P (P' M P)^-1 mean(P), so that sum(w d)
            # is the mean of the part of a field d that P explains
            wanted = np.sign(size) * np.abs(size) ** np.array(powers)
            rest = wanted - bases[key] @ (bases[key].T @ wanted)
            normal = rest.T @ rest
            if np.linalg.eigvalsh(normal)[0] > 1e-9 * np.square(wanted).sum():
                out[k, i, j] = 0.0
                out[k, i, j, used] = rest @ np.linalg.solve(normal, wanted.mean(axis=0))
    return xr.DataArray(out.reshape(len(forms), *mask.shape), dims=("form", "year", "window", *space))
