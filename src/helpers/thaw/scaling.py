"""The full season's subsidence from that in windows, with every source of its error; part of `thaw`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import special, stats

from .areas import without_coords
from .degree_days import Heat, fit_degree_days, window_limits
from .fractions import check_drop

MIN_FRACTION = 0.2  # below it the noise of one date grows more than fivefold
MAX_CV = 0.33  # above it the interval of a ratio is as long as the ratio
MIN_YEARS = 4  # fewer years do not tell a variance between years
QUANTILE = 0.5 + 0.95 / 2  # upper limit of an interval of 95 %


@dataclass(frozen=True)
class Calibration:
    """What the calibration years say of the windows, for one method of scaling."""

    fractions: xr.Dataset
    method: str
    heat: Heat | None
    degree_days: xr.Dataset | None

    @classmethod
    def of(cls, fractions, method: str, temperature=None, degree_days=None) -> Calibration:
        """Check the method and its needs; fit the degree days unless given."""
        if method not in ("constant", "degree_day", "joint"):
            raise ValueError(f"method: {method!r}; use 'constant', 'degree_day' or 'joint'")
        if temperature is None:
            if method != "constant":
                raise ValueError(f"method {method!r} needs `temperature`: daily degrees Celsius")
            return cls(fractions, method, None, None)
        heat = Heat.of(temperature)
        return cls(fractions, method, heat, degree_days or fit_degree_days(fractions, heat))

    @property
    def dated(self) -> bool:
        """The method takes the fraction of each year from its temperature."""
        return self.method != "constant"

    @property
    def curve(self) -> tuple[float, float]:
        """Power and lag of the degree-day curve."""
        return float(self.degree_days["power"]), float(self.degree_days["lag_days"])

    def of_windows(self, names, data=None) -> xr.Dataset:
        """Fractions, or other data, of these windows, without labels."""
        return without_coords((self.fractions if data is None else data).sel(window=names))

    def thaw_fraction(self, names, years) -> xr.DataArray:
        """(year, window, ...) degree-day fraction."""
        form = self.heat.fraction(years, self.fractions, self.curve)
        return self.of_windows(names, form.assign_coords(window=self.fractions["window"].values))

    def season_index(self, years, heat=None) -> xr.DataArray:
        """(year, ...) thaw index of the full season."""
        full = window_limits(self.fractions.sel(window=["full"]))
        return (heat or self.heat).index(years, full, *self.curve).isel(window=0)

    def divisor(self, names, years) -> xr.DataArray:
        """Fraction by which a drop is divided: the mean one, or kappa * degree-day fraction of the year."""
        if not self.dated:
            return self.of_windows(names)["fraction_mean"]
        return self.of_windows(names, self.degree_days["kappa"]) * self.thaw_fraction(names, years)

    def relative_variances(self, names, *, area_mean: bool) -> xr.Dataset:
        """Variances of the fraction over its square, by source; that of the full season with itself is 0.

        year: of an unseen year; estimation: of the mean fraction; pixel: between pixels; total: with noise, for the
        degrees of freedom; lasting: mm2, a pixel's error of every season.
        """
        f, unknown = self.of_windows(names), xr.DataArray(np.asarray(names) != "full", dims="window")
        estimation, spread = (f["fraction_mean_std"] / f["fraction_mean"]) ** 2, f
        if self.dated:
            spread = self.of_windows(names, self.degree_days)
            total = np.maximum(spread["cv_total"], f["cv_noise"])
            estimation = total**2 / f["n_years"] + (f["weighting_std"] / f["fraction_mean"]) ** 2
        of_years = {
            "year": spread["cv_year"] ** 2,
            "total": spread["cv_total"] ** 2,
            "estimation": estimation,
        }
        pixel = {"pixel": f["cv_pixel"].fillna(0) ** 2, "lasting": f["lasting_std"].fillna(0) ** 2}
        out = xr.Dataset({k: v.where(unknown, 0.0) for k, v in of_years.items()})
        out = out.assign({k: xr.zeros_like(v) if area_mean else v for k, v in pixel.items()})
        freedom = (f["n_years"] - (2 if self.dated else 1)).clip(1)
        return out.assign(freedom=freedom, cv_year=spread["cv_year"], pixel_slope=f["pixel_slope"])

    def drift(self, names, years) -> xr.DataArray:
        """Relative change of the mean degree-day fraction from the calibration years to the years given."""
        form, mean = self.thaw_fraction(names, years), self.of_windows(names, self.degree_days["mean"])
        return form.mean([d for d in form.dims if d != "window"]) / mean - 1

    def coefficient_variance(self) -> float:
        """Interannual variance of the full drop per unit of thaw index, noise removed, over the squared mean."""
        index = self.season_index(self.fractions["year"].values, self.heat.area_mean).values
        value, noise = (self.fractions[k].values for k in ("full_mean", "full_mean_std"))
        seen = np.isfinite(value) & np.isfinite(index)
        value, noise, index = value[seen], noise[seen] ** 2, index[seen]
        free = max(value.size - 1, 1)
        total = np.sum(np.square(value - value.sum() / index.sum() * index)) / free
        return float(_positive(total - noise.mean(), total * np.sqrt(2 / free)) / value.mean() ** 2)


def scale(
    drop: xr.DataArray,
    std: xr.DataArray,
    fraction: xr.Dataset,
    *,
    method: str = "constant",
    temperature: xr.DataArray | None = None,
    area_mean: bool = False,
) -> xr.Dataset:
    """Full-season drop from the drops in windows, with what each source adds to the interval.

    Parameters
    ----------
    drop, std : (year, window, ...) DataArrays
        Drop in windows of any years and its sd, mm, positive = subsidence; windows of `fraction`.
    fraction : Dataset
        From `fraction`, `fraction_of_drops` or `hierarchical`.
    method : {"constant", "degree_day", "joint"}
        "constant" divides by the mean fraction; with `temperature` its interval also holds the drift of the fraction
        which the degree days imply. "degree_day" divides by the degree-day fraction of the year. "joint" fits one
        thaw coefficient per pixel to all windows of all years given, and lets each year depart from it as far as
        the calibration years do.
    temperature : (time, ...) DataArray, optional
        Daily, degrees Celsius, complete in the years of `drop` and of `fraction`.
    area_mean : bool
        The trailing dims are areas, not pixels: the spread between pixels is left out.

    Returns
    -------
    Dataset
        full_season, full_season_std, full_season_lower, full_season_upper (year, window, ...) in mm, for "joint"
        (year, ...). The 95 % interval solves the quadratic of a ratio (Fieller). Its sources in mm: std_noise
        (measurement), std_year (years differ), std_estimation (mean fraction known from few noisy years), std_pixel
        (pixels differ). pixel_slope, for `empirical_bayes`; degrees_of_freedom; refused and reason by window.
        Attributes power and lag_days of the methods with temperature.
    """
    check_drop(drop, std, whole=False)
    calibration = Calibration.of(fraction, method, temperature)
    estimate, reason = estimate_season(drop, std, calibration, area_mean=area_mean)
    out = with_interval(without_coords(estimate)).assign_coords(estimate.coords)
    names = {"value": "full_season"} | {k: f"full_season_{k}" for k in ("std", "lower", "upper")}
    out = out.rename(names)
    for name in names.values():
        out[name].attrs = {"units": "mm", "long_name": "full thaw-season drop, positive = sinking"}
    curve = zip(("power", "lag_days"), calibration.curve, strict=True) if calibration.dated else ()
    return out.assign(refused=reason != "", reason=reason).assign_attrs(method=method, **dict(curve))


def add_rate(scaled: xr.Dataset, rate: xr.DataArray, rate_std: xr.DataArray) -> xr.Dataset:
    """Scaled seasons with the epoch's rate over the season (mm) added again, its sd in the limits and as std_rate."""
    value, std = scaled["full_season"] + rate, np.hypot(scaled["full_season_std"], rate_std)
    out = scaled.assign(full_season=value, full_season_std=std, std_rate=rate_std)
    for name, sign in (("full_season_lower", -1), ("full_season_upper", 1)):
        out[name] = value + sign * np.hypot(scaled["full_season"] - scaled[name], 1.96 * rate_std)
    return out


def estimate_season(drop, std, calibration: Calibration, *, area_mean: bool, separate: bool = False):
    """Value, noise variance and relative variances of the full-season drop; reason of refusal by window.

    With `separate` the joint method takes every window by itself, as if it were the only one.
    """
    names, years = drop["window"].values, drop["year"].values
    known = list(calibration.fractions["window"].values)
    if unknown := set(names) - set(known):
        raise ValueError(f"windows {sorted(unknown)} of drop are not in fraction: {known}")
    outer = {k: c for k, c in drop.coords.items() if "year" not in c.dims}
    variances = calibration.relative_variances(names, area_mean=area_mean)
    reason = _refusals(calibration.of_windows(names), names, variances)
    drop, std = without_coords(drop).where(reason == ""), without_coords(std)
    divisor = calibration.divisor(names, years)
    if calibration.method == "joint":
        design = xr.Dataset({"divisor": divisor, "index": calibration.season_index(years)})
        matrix = calibration.fractions.get("noise_correlation") if not separate and len(names) > 1 else None
        if matrix is not None:
            matrix = without_coords(matrix.sel(window=names, window_2=names))
        cv2 = calibration.coefficient_variance()
        estimate = _joint(drop, std, design, variances, cv2, matrix, separate)
    else:
        if calibration.heat is not None and not calibration.dated:
            # that of single years is in cv_year already; what lasts over all the years given is not
            variances["year"] = variances["year"] + calibration.drift(names, years) ** 2
        estimate = variances.drop_vars(["lasting", "cv_year"])
        estimate = estimate.rename({k: f"relative_{k}" for k in ("year", "estimation", "pixel", "total")})
        noise = (std**2 + variances["lasting"]) / divisor**2
        estimate = estimate.assign(value=drop / divisor, noise=noise, weight_own=1 / divisor)
    kept = {k: c for k, c in outer.items() if set(c.dims) <= set(estimate.dims)}
    return estimate.assign_coords(kept | {"year": years}), reason.assign_coords(window=names)


def _refusals(f, names, variances):
    """(window) why a window cannot be scaled; empty where it can."""
    t = stats.t.ppf(QUANTILE, np.maximum(variances["freedom"].values, 1))
    by_window = (variances["year"] + variances["estimation"], variances["pixel"], f["fraction_mean"])
    spread, pixel, mean = (v.mean([d for d in v.dims if d != "window"]).values for v in by_window)
    # the quadratic of a ratio is bounded while t^2 cv^2 < 1, t^2 and z^2 for the terms found from few and many
    bounded = spread * t**2 + pixel * stats.norm.ppf(QUANTILE) ** 2 < 1
    cv, n, reasons = variances["cv_year"].values, f["n_years"].values, []
    change = "fraction changes by {:.0f} % from year to year, above {:.0f} %"
    for i in range(len(names)):
        rules = {
            f"{n[i]:.0f} calibration years, {MIN_YEARS} needed": n[i] >= MIN_YEARS,
            f"fraction {mean[i]:.2f} below {MIN_FRACTION:.2f}": mean[i] >= MIN_FRACTION,
            change.format(100 * cv[i], 100 * MAX_CV): cv[i] <= MAX_CV,
            "the fraction is too uncertain: the interval of a ratio has no upper end": bounded[i],
        }
        broken = [why for why, holds in rules.items() if not holds and names[i] != "full"]
        reasons.append(broken[0] if broken else "")
    return xr.DataArray(reasons, dims="window")


def _positive(variance, sd):
    """Expectation of a variance known with a normal error, given that it is not negative.

    E = v + s phi(v/s) / Phi(v/s). An estimate cut off at zero would call a spread that noise hides absent, and
    the interval too short.
    """
    sd = np.maximum(sd, 1e-12)
    z = variance / sd
    return np.maximum(variance + sd * np.exp(-(z**2) / 2 - special.log_ndtr(z)) / np.sqrt(2 * np.pi), 0)


def _joint(drop, std, design, variances, cv2, correlation, separate):
    """One coefficient per pixel, years departing from it: a two-level normal model in closed form.

    Level 1: drop_yw = c_y form_yw + noise, form = divisor * index. Level 2: c_y = c + N(0, between).
    """

    def over(values):
        return values if separate else values.sum("window")

    index = design["index"]
    form = design["divisor"] * index  # mm of drop per unit coefficient
    seen = drop.notnull() & form.notnull() & (form > 0)
    used = seen if separate else seen.any("window")
    axes = [d for d in seen.dims if not separate or d != "window"]
    # one number for the weights: a pixel's own would make them follow its noise
    prior = (drop * form).where(seen).sum(axes) / np.square(form).where(seen).sum(axes)
    # level 1, weighted least squares: c_y = sum_w k_w form_w drop_w / sum_w k_w form_w^2 = sum_w gain_w drop_w
    weight = (1 / (std**2 + np.square(prior * form) * (variances["year"] + 1e-6))).where(seen, 0.0)
    gain = weight * form / over(weight * form**2).where(used)
    own = over(gain * drop.fillna(0)).where(used)
    noise = np.square(gain * std) if separate else _quadratic(gain * std.where(seen, 0.0), correlation)
    share = gain * form
    misfit = np.square(over(share * np.sqrt(variances["year"])))  # windows of a year err together
    inner = noise + misfit * prior**2
    # level 2: weights l_y = 1 / (inner + between), c = sum l c_y / sum l, and each year shrunk to it,
    # c_y|data = c + keep (c_y - c), keep = between / (inner + between)
    between = max(cv2, _own_change(own, inner, prior)) * prior**2
    level_weight = (1 / (inner + between)).where(used, 0.0)
    level_sum = level_weight.sum("year")
    level_weight = level_weight / level_sum.where(level_sum > 0)
    mean = (level_weight * own.fillna(0)).sum("year").where(level_sum > 0)
    keep = (between / (inner + between)).where(used, 0.0)
    value = mean + keep * (own.fillna(mean) - mean)
    posterior = (keep * inner.fillna(0)).where(used, between) + (1 - keep) ** 2 / level_sum
    # Calibration error and a pixel's own fraction are the same in all years: they do not average out.
    steady = (level_weight * share.fillna(0)).sum("year")
    lasting = np.square((level_weight * gain.fillna(0) * np.sqrt(variances["lasting"])).sum("year"))
    by_year = ((misfit * prior**2).fillna(0) / inner).where(used, 1.0)  # share of it that weather brings
    own_weight = keep + (1 - keep) * level_weight
    of_years = {k: np.square(over(steady * np.sqrt(variances[k]))) for k in ("estimation", "pixel")}
    of_years |= {"year": 0.0, "total": over(steady * variances["total"])}
    return xr.Dataset(
        {f"relative_{k}": v + 0 * value for k, v in of_years.items()}
        | {
            "value": value * index,
            "noise": (posterior + over(lasting)) * index**2,
            "noise_year": posterior * by_year * index**2,
            "freedom": variances["freedom"] if separate else variances["freedom"].min(),
            "pixel_slope": over(steady * variances["pixel_slope"]),
            "weight_own": own_weight * index * over(gain.fillna(0)),
        }
    )


def _own_change(own, inner, prior):
    """Relative variance of the coefficients between the years given, without noise, pooled over places.

    It may be more than in the calibration years, for example where mining begins.
    """
    weight = (1 / inner**2).where(own.notnull(), 0.0)
    n = own.notnull().sum("year")
    kept = (n - 1) / n.where(n > 1)  # of the variance about a mean of n years
    mean = (own / inner).sum("year") / (1 / inner).where(own.notnull()).sum("year")
    excess = np.square(own - mean) - inner * kept
    found = (weight * excess).sum() / (weight * (prior**2 * kept)).where(n > 1).sum()
    return max(float(found), 0.0) if np.isfinite(found) else 0.0


def _quadratic(parts, correlation):
    """Variance p' R p of a sum over windows, R the correlation of their noise; independent if None."""
    if correlation is None:
        return np.square(parts).sum("window")
    pairs = xr.dot(parts, correlation, dim="window") * parts.rename(window="window_2")
    return pairs.sum("window_2").clip(0)


def with_interval(estimate: xr.Dataset, extra_noise=0.0) -> xr.Dataset:
    """Standard deviation, 95 % interval (quadratic of a ratio) and sources of an estimate of `estimate_season`."""
    value = estimate["value"]
    noise = (estimate["noise"] + extra_noise).clip(0)
    of_years = estimate.get("noise_year", 0.0)
    relative = estimate["relative_year"] + estimate["relative_estimation"] + estimate["relative_pixel"]
    square = value**2
    variance = noise + square * relative
    # Satterthwaite, only the variance between years is from few years: n variance^2 / (value^2 cv_total^2)^2
    uncertain = (square * estimate["relative_total"]) ** 2
    freedom = (estimate["freedom"] * variance**2 / uncertain.where(uncertain > 0)).fillna(1e6).clip(1, 1e6)
    t = student(freedom)
    # Fieller: x with (value - x)^2 = t^2 (noise + relative x^2), i.e. x = (value -+ root) / (1 - relative t^2)
    bounded = (1 - relative * t**2).where(relative * t**2 < 1)
    root = np.sqrt((relative * square + noise * bounded).clip(0)) * t
    return xr.Dataset(
        {
            "value": value,
            "std": np.sqrt(variance),
            "lower": (value - root) / bounded,
            "upper": (value + root) / bounded,
            "std_noise": np.sqrt((noise - of_years).clip(0)) + 0 * value,
            "std_year": np.sqrt(of_years + square * estimate["relative_year"]),
            "std_estimation": abs(value) * np.sqrt(estimate["relative_estimation"]),
            "std_pixel": abs(value) * np.sqrt(estimate["relative_pixel"]),
            "pixel_slope": estimate["pixel_slope"],
            "degrees_of_freedom": freedom.where(value.notnull()),
        }
    )


def student(freedom: xr.DataArray) -> xr.DataArray:
    """97.5 % quantile of Student's t, interpolated in the logarithm of the degrees of freedom."""
    grid = np.geomspace(1, 1e6, 400)
    limits = stats.t.ppf(QUANTILE, grid)
    return xr.apply_ufunc(lambda v: np.interp(np.log(v), np.log(grid), limits), freedom)
