"""What the constrained inversion must know beyond its phases, and every estimator on the same pixels.

`ground_noise` measures how far the ground departs from rate and season, and the residual delay, by restricted
maximum likelihood in classes of seasonal size. `project_rate`, `align_rate` and `unexplained_std` turn another
sensor's rate into a prior with a stated error. `estimates` gives every estimator on the same pixels, one at a
time; `null_direction` says which combination of rate and annual term short pairs leave unconstrained, and
`held_out_scores` which estimator predicts pairs it has not seen.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import optimize, stats
from scipy.linalg import lapack, solve_triangular
from statsmodels.robust.norms import HuberT
from statsmodels.robust.robust_linear_model import RLM

from . import sbas, timefunc

MODEL = "linear+annual"
# the model by whose coefficients each estimator predicts a pair
FORMS = {
    "linear": "linear", "linear+annual": MODEL, "linear+annual+semiannual": "linear+annual+semiannual",
    "degree day": "linear+degree_day", "no prior": MODEL, "hard prior": MODEL, "soft prior": MODEL,
    "late summer": "linear", "long pairs": MODEL, "joint": MODEL,
}  # fmt: skip
NAMES = ("no model", *FORMS)
LONG = ("late summer", "long pairs", "joint")  # those that use long pairs
WRONG = 0.02  # probability that a pair is unwrapped wrongly
POOR_FIT = 3.0  # mean square of the deviation over the expected one
NOISE = ("deviation_std_mm", "deviation_days", "delay_factor")


def select_pixels(stack: xr.Dataset, pixels: np.ndarray) -> xr.Dataset:
    """Chosen pixels of a stack (pair, y, x), numpy or dask, as a stack of one column (pair, y, x = 1).

    ``pixels`` are positions on the flattened grid or a mask (y, x); ``y`` of the result holds them, for `put_back`.
    """
    pixels = np.asarray(pixels)
    pixels = np.flatnonzero(pixels) if pixels.dtype == bool else pixels
    columns = {}
    for name, field in stack.data_vars.items():
        if {"y", "x"} <= set(field.dims):
            field = field.transpose(..., "y", "x")
            flat = field.data.reshape(*field.shape[:-2], -1)[..., pixels][..., None]
            columns[name] = (field.dims, flat, field.attrs)
        else:
            columns[name] = field.variable
    coords = {n: c.variable for n, c in stack.coords.items() if not {"y", "x"} & set(c.dims)}
    return xr.Dataset(columns, coords | {"y": pixels, "x": [0]}, stack.attrs)


def put_back(parts: list[xr.DataArray], like: xr.Dataset) -> xr.DataArray:
    """Undo `select_pixels`: fields (..., y, x = 1) of several sets of pixels on the grid of ``like``, NaN elsewhere."""
    first, shape = parts[0], parts[0].shape[:-2]
    out = np.full((*shape, like.sizes["y"] * like.sizes["x"]), np.nan, np.float32)
    for part in parts:
        out[..., part["y"].values] = part.values[..., 0]
    coords = {n: c for n, c in first.coords.items() if not {"y", "x"} & set(c.dims)}
    coords |= {n: like[n] for n in ("y", "x", "spatial_ref") if n in like.coords}
    field = out.reshape(*shape, like.sizes["y"], like.sizes["x"])
    return xr.DataArray(field, coords, first.dims, name=first.name, attrs=first.attrs)


def ground_noise(
    stack: xr.Dataset,
    rng: np.random.Generator,
    *,
    mask: xr.DataArray | None = None,
    classes: int = 4,
    pixels: int = 50,
) -> xr.Dataset:
    """How far the ground departs from rate and annual term, in classes of seasonal size.

    Ground that moves more with the season departs more from a sine: one number for a scene is too wide for rock and too
    narrow for wet meadow. In each class of equally many pixels the deviation's standard deviation and correlation time
    (AR(1)) and a factor on the delay's standard deviation maximise the restricted likelihood (Patterson and Thompson
    1971, doi:10.1093/biomet/58.3.545) of the pairs of a few drawn pixels. Pixels whose mean square deviation exceeds
    three times the expected one (a step, a change of rate) form a class of their own.

    ``stack`` is as for `sbas.invert`, with ``atmosphere_std`` (time) and ``pair_std`` (pair) in mm; pixels outside
    ``mask`` (y, x) get class -1; ``pixels`` are drawn in each of ``classes``. Returns (y, x): ``class``, -1 without
    data; ``restlessness`` (that ratio in the first class given); ``rate``, ``rate_std`` of all pairs without prior,
    mm/yr. By class (number): ``seasonal_mm`` (lower edge, NaN for the poorly fitted), ``deviation_std_mm``,
    ``deviation_days``, ``delay_factor``.
    """
    limit = {"deviation_std_mm": None, "series_std": False}
    limit |= {"atmosphere_std_mm": stack["atmosphere_std"], "pair_std_mm": stack["pair_std"].values}
    season = sbas.invert(stack, MODEL, **limit)["peak_to_peak"]
    size = np.ravel(season if mask is None else season.where(mask))
    here = np.flatnonzero(np.isfinite(size))
    if len(here) < classes * 5:
        raise ValueError(f"ground_noise: {len(here)} pixels with data are too few for {classes} classes")
    order = here[np.argsort(size[here], kind="stable")]  # by rank: many pixels may have no season at all
    label = np.full(len(size), -1)
    label[order] = np.arange(len(order)) * classes // len(order)
    edges = [size[label == number].min() for number in range(classes)]
    table, own = [], []
    for number in range(classes):
        members = np.flatnonzero(label == number)
        table.append(_fit_noise(stack, members, pixels, rng))
        own.append(_own_rate(stack, members, table[-1]))
    ratio = put_back([part["restlessness"] for part in own], stack)
    odd = np.flatnonzero(np.ravel(ratio) > POOR_FIT)
    if len(odd) >= pixels // 2:
        label[odd] = classes
        table.append(_fit_noise(stack, odd, pixels, rng))
        own.append(_own_rate(stack, odd, table[-1]))
    out = xr.Dataset({v: put_back([part[v] for part in own], stack) for v in ("rate", "rate_std")})
    out["restlessness"] = ratio
    out["class"] = ("y", "x"), label.reshape(ratio.shape)
    out["seasonal_mm"] = "number", np.array([*edges, np.nan])[: len(table)]
    for name in NOISE:
        out[name] = "number", np.array([row[name] for row in table])
    return out


def noise_of(table: xr.Dataset, number: int) -> dict:
    """Noise of one class of `ground_noise`, as `estimates` takes it."""
    return {name: float(table[name][number]) for name in NOISE}


def _fit_noise(stack, members, pixels, rng) -> dict:
    chosen = rng.choice(members, min(pixels, len(members)), replace=False)
    return dict(zip(NOISE, _Likelihood(select_pixels(stack, np.sort(chosen))).maximum(), strict=True))


def _own_rate(stack, members, noise) -> xr.Dataset:
    """Rate of all pairs without prior, and how much larger the deviation is than expected."""
    part = select_pixels(stack, members)
    _, run = next(estimates(part, (np.nan, np.nan), noise, names=("long pairs",)))
    design = timefunc.parse(MODEL).design(run["time"].values)[:, 1:]
    design = xr.DataArray(design, {"parameter": run["parameter"]}, ("time", "parameter"))
    deviation = run["displacement"] - xr.dot(design, run["coefficients"], dim="parameter")
    deviation = deviation - deviation.mean("time")
    # of the variance of the ground, what the data have left open is not found again
    variance = noise["deviation_std_mm"] ** 2
    expected = variance - (run["displacement_model_std"] ** 2).mean("time")
    ratio = (deviation**2).mean("time") / np.maximum(expected, 0.01 * variance)
    return run[["rate", "rate_std"]].assign(restlessness=ratio).load()


class _Likelihood:
    """Restricted log-likelihood of the pairs of some pixels, by deviation (mm, days) and factor on the delay.

    With the pairs' noise W^-1, incidence A, design H and dates' covariance C = ground + delay, V = W^-1 + A C A':
    2 log L = -log |V| - log |H'A' V^-1 A H| - r' V^-1 r. All is kept in the space of dates, N = A'WA:
    V^-1 = W - W A (C^-1 + N)^-1 A'W and |V| = |W^-1| |C| |C^-1 + N|, from the Cholesky factor of C^-1 + N.
    """

    START = np.log([2.0, 100.0, 1.0])  # mm, days, 1
    STEP = np.diag([0.7, 0.8, 0.25])
    # weak pulls where the pairs say nothing: 100 days, delay as estimated
    SPREAD = np.array([np.inf, 1.0, 0.3])

    def __init__(self, stack: xr.Dataset):
        dates, first, second = sbas.network_of(stack)
        to_mm = -timefunc.mm_per_radian(stack.attrs["wavelength_m"])
        design = timefunc.parse(MODEL).design(dates)[:, 1:]
        design = design - design.mean(axis=0)
        phase = stack["unwrapped_phase"].transpose("pair", "y", "x").values[..., 0] * to_mm
        coherence = stack["coherence"].transpose("pair", "y", "x").values[..., 0]
        variance = sbas.phase_variance(coherence, stack.attrs["looks"]) * to_mm**2
        variance += stack["pair_std"].values[:, None] ** 2
        weight = np.where(np.isfinite(phase), 1 / variance, 0.0)
        weighted = weight * np.nan_to_num(phase)
        incidence = np.zeros((len(first), len(dates)))
        incidence[np.arange(len(first)), second] = 1
        incidence[np.arange(len(first)), first] = -1
        self.delay = stack["atmosphere_std"].sel(time=dates).values
        self.gap = np.abs(np.subtract.outer(dates.values, dates.values)) / np.timedelta64(1, "D")
        self.pixels = []
        for w, wy, y in zip(weight.T, weighted.T, np.nan_to_num(phase).T, strict=True):
            normal = incidence.T @ (w[:, None] * incidence)
            sides = np.column_stack([incidence.T @ wy, normal @ design])
            self.pixels.append((normal, sides, sides.T @ design, wy @ y))

    def __call__(self, deviation: float, days: float, factor: float) -> float:
        """Log-likelihood, without what does not depend on the arguments."""
        ground = deviation**2 * np.exp(-self.gap / days)  # AR(1): sigma2 exp(-|t - t'| / days)
        factored = lapack.dpotrf(ground + np.diag((factor * self.delay) ** 2 + 1e-6), lower=1)[0]
        constant = 2 * np.log(np.diag(factored)).sum()
        precision = lapack.dpotri(factored, lower=1)[0]
        precision += np.tril(precision, -1).T
        total = 0.0
        for normal, sides, projected, square in self.pixels:
            factored = lapack.dpotrf(precision + normal, lower=1)[0]
            half = solve_triangular(factored, sides, lower=True, check_finite=False)
            gram = half.T @ half
            score, information = projected[0] - gram[0, 1:], projected[1:] - gram[1:, 1:]
            sign, size = np.linalg.slogdet(information)
            if sign <= 0:  # a pixel that leaves a coefficient open says nothing here
                continue
            misfit = square - gram[0, 0] - score @ np.linalg.solve(information, score)
            total -= 0.5 * (misfit + 2 * np.log(np.diag(factored)).sum() + constant + size)
        return total

    def maximum(self) -> np.ndarray:
        """Deviation (mm), its correlation time (days) and the factor on the delay."""

        def cost(q):
            if np.any(np.abs(q - self.START) > 5):
                return np.inf
            return 0.5 * np.sum(((q - self.START) / self.SPREAD) ** 2) - self(*np.exp(q))

        simplex = np.vstack([self.START, self.START + self.STEP])
        options = {"xatol": 0.05, "fatol": 0.3, "maxfev": 60, "initial_simplex": simplex}
        return np.exp(optimize.minimize(cost, self.START, method="Nelder-Mead", options=options).x)


def project_rate(rate: xr.Dataset, stack: xr.Dataset, *, east_std_mm_yr: float = 3.0) -> xr.Dataset:
    """Another sensor's rate in the line of sight of ``stack``, as if all motion were vertical.

    ``rate`` has ``rate``, ``rate_std`` (mm/yr), ``los_east``, ``los_up`` (y, x) on the grid of ``stack``;
    ``east_std_mm_yr`` is the standard deviation of the neglected eastward motion. Returns ``rate``, ``fit_std`` and
    ``projection_std`` (y, x), mm/yr.
    """
    factor = stack["los_up"] / rate["los_up"]
    leak = np.abs(stack["los_east"] - rate["los_east"] * factor) * east_std_mm_yr
    fit_std = rate["rate_std"] * factor
    return xr.Dataset({"rate": rate["rate"] * factor, "fit_std": fit_std, "projection_std": leak})


def align_rate(
    rate: xr.DataArray, own: xr.DataArray, mask: xr.DataArray, *, patch_pixels: float = 1.0
) -> xr.Dataset:
    """Plane and offset between two rates (y, x; mm/yr) on stable ground, by Huber's loss, with their covariance.

    ``mask`` (y, x) is the stable ground; ``patch_pixels`` is how many pixels share their errors, 2 pi l^2 of the
    correlation length l: the plane is known as if from one each. Returns ``rate`` aligned, ``std`` (y, x) of the
    plane there, ``plane`` (term) and ``plane_covariance`` (term, term_); the attr ``common_std`` is of the plane's
    mean over the scene, which no averaging over pixels reduces.
    """
    y, x = (np.linspace(-1, 1, rate.sizes[d]) if rate.sizes[d] > 1 else np.zeros(1) for d in ("y", "x"))
    columns = np.stack([np.ones((len(y), len(x))), *np.meshgrid(x, y)], axis=-1)
    difference = (rate - own).transpose("y", "x").values
    both = np.asarray(mask) & np.isfinite(difference)
    if both.sum() < 25:
        raise ValueError(f"align_rate: {both.sum()} pixels of stable ground with both rates; 25 are needed")
    fit = RLM(difference[both], columns[both], M=HuberT()).fit()
    covariance = fit.bcov_scaled * max(patch_pixels, 1.0)
    spread = np.sqrt(np.einsum("yxi,ij,yxj->yx", columns, covariance, columns))
    out = xr.Dataset({"rate": rate - columns @ fit.params, "std": (("y", "x"), spread)})
    out = out.assign(plane=("term", fit.params), plane_covariance=(("term", "term_"), covariance))
    return out.assign_coords(term=["offset", "x", "y"]).assign_attrs(
        common_std=float(covariance[0, 0] ** 0.5)
    )


def unexplained_std(
    rate: np.ndarray,
    std: np.ndarray,
    own: np.ndarray,
    own_std: np.ndarray,
    *,
    assumed: float,
    least: float = 0.3,
) -> float:
    """What a prior errs beyond its stated error, against pixels whose rate is known without it (mm/yr).

    The smallest addition, from ``least`` on, with which 95 % of the pixels known to 1 mm/yr agree within their
    normal quantile: tails count, and so does an offset. It stands for what no budget knows: other dates, other
    ground seen by the other band, motion that is not vertical, unwrapping. ``rate`` and ``std`` are the prior's,
    ``own`` and ``own_std`` those without it, arrays in mm/yr; ``assumed`` is the answer where fewer than 50 pixels
    are known so well.
    """
    rate, std, own, own_std = (np.asarray(a, float).ravel() for a in (rate, std, own, own_std))
    known = np.isfinite(rate) & np.isfinite(std) & np.isfinite(own) & (own_std < 1.0)
    if known.sum() < 50:
        return assumed
    square = (rate - own)[known] ** 2
    stated = (std**2 + own_std**2)[known]
    level, quantile = 0.95, stats.norm.ppf(0.975)

    def agree(extra):
        return np.quantile(square / (stated + extra**2), level) - quantile**2

    if agree(least) <= 0:
        return least
    return float(optimize.brentq(agree, least, np.sqrt(square.max()) + least))


def estimates(
    stack: xr.Dataset,
    prior: tuple,
    noise: dict,
    *,
    temperature: xr.DataArray | None = None,
    short_days: int = 180,
    names: Sequence[str] = NAMES,
    series: bool = True,
) -> Iterator[tuple[str, xr.Dataset]]:
    """Every estimator of ``names`` on the same pixels, one at a time, as (name, Dataset of `sbas.invert`).

    Pairs up to ``short_days`` serve all but "late summer", "long pairs" and "joint". The functional forms stand in
    the limit where the model only closes gaps; the rest weigh the ground's deviation. ``stack`` is as for
    `sbas.invert`, with ``atmosphere_std`` (time) and ``pair_std`` (pair); ``prior`` is mean and std (y, x) in
    mm/yr, NaN for none; ``noise`` that of these pixels from `ground_noise`; ``series=False`` leaves the standard
    deviations of the series out.
    """
    days = (stack["secondary"] - stack["reference"]).values / np.timedelta64(1, "D")
    short = stack.isel(pair=np.flatnonzero(days <= short_days))
    shape = (stack.sizes["y"], stack.sizes["x"])
    mean, std = (np.broadcast_to(np.asarray(p, float), shape) for p in prior)
    there = np.isfinite(mean) & np.isfinite(std)
    soft = np.where(there, mean, 0.0), np.where(there, std, np.inf)
    hard = soft[0], np.where(there, 0.0, np.inf)
    delay = stack["atmosphere_std"] * noise["delay_factor"]
    weigh = {k: noise[k] for k in ("deviation_std_mm", "deviation_days")} | {"series_std": series}
    limit = {"deviation_std_mm": None, "series_std": False, "temperature": temperature}
    how = {
        "no model": (short, None, limit),
        **{name: (short, form, limit) for name, form in list(FORMS.items())[:4]},
        "no prior": (short, MODEL, weigh),
        "hard prior": (short, MODEL, weigh | {"rate_prior": hard}),
        "soft prior": (short, MODEL, weigh | {"rate_prior": soft}),
        "late summer": (stack, None, weigh | {"series_std": False}),
        "long pairs": (stack, MODEL, weigh),
        "joint": (stack, MODEL, weigh | {"rate_prior": soft}),
    }
    for name in names:
        part, model, options = how[name]
        options = options | {"atmosphere_std_mm": delay, "pair_std_mm": part["pair_std"].values}
        if name == "late summer":
            found = sbas.summer_to_summer(part, **options)
            yield name, found.rename(rate_late_summer="rate", rate_late_summer_std="rate_std")
            continue
        result = sbas.invert(part, model, **options)
        if name == "hard prior" or name == "soft prior":  # nothing to constrain, no constrained estimate
            result["rate"], result["rate_std"] = (result[v].where(there) for v in ("rate", "rate_std"))
        yield name, result


def log_score(
    run: xr.Dataset, name: str, pairs: xr.Dataset, noise: dict, *, temperature: xr.DataArray | None = None
) -> np.ndarray:
    """Predictive score: log-density of pairs a run has not seen, (pair, pixel) in 1/mm, NaN without data.

    The prediction is normal: the model's step between the two dates with the covariance of its coefficients, the
    ground's deviation, the delay of both dates and the pair's own noise. With probability 0.02 a pair is anything
    within two cycles (unwrapping), so that a few values do not decide the mean. A proper score: higher is better.
    ``run`` is from `estimates`, ``name`` its name in `FORMS`, ``noise`` that of these pixels from `ground_noise`.
    """
    form = timefunc.parse(FORMS[name], temperature)
    ends = [pd.DatetimeIndex(pairs[c].values) for c in ("reference", "secondary")]
    design = form.design(ends[1]) - form.design(ends[0])
    if name == "late summer":  # its result holds the rate alone
        step, coefficients = design[:, [-1]], run["rate"].values[None, :, 0]
        covariance = run["rate_std"].values[None, None, :, 0] ** 2
    else:
        step = design[:, [form.parameters.index(p) for p in run["parameter"].values]]
        coefficients = run["coefficients"].values[..., 0]
        covariance = run["coefficients_covariance"].values[..., 0]
    mean = step @ coefficients
    variance = np.einsum("ki,ijp,kj->kp", step, covariance, step)
    days = (ends[1] - ends[0]).days.to_numpy()
    # var of the difference of an AR(1) deviation: 2 sigma2 (1 - exp(-t / days))
    departure = 2 * noise["deviation_std_mm"] ** 2 * (1 - np.exp(-days / noise["deviation_days"]))
    delay = sum(pairs["atmosphere_std"].sel(time=e).values ** 2 for e in ends) * noise["delay_factor"] ** 2
    variance += (departure + delay + pairs["pair_std"].values ** 2)[:, None]
    to_mm = -timefunc.mm_per_radian(pairs.attrs["wavelength_m"])
    own = sbas.phase_variance(pairs["coherence"].values[..., 0], pairs.attrs["looks"])
    seen = pairs["unwrapped_phase"].values[..., 0] * to_mm
    density = stats.norm.pdf(seen, mean, np.sqrt(variance + own * to_mm**2))
    return np.log((1 - WRONG) * density + WRONG / (2000 * pairs.attrs["wavelength_m"]))


def held_out_scores(
    stack: xr.Dataset,
    prior: tuple,
    noise: dict,
    *,
    names: Sequence[str],
    short_days: int = 180,
    temperature: xr.DataArray | None = None,
) -> pd.DataFrame:
    """Mean predictive score of every estimator by year of the reference image (``estimator``, ``year``, ``score``).

    Long pairs are held out; the estimators that use long pairs are given those of every other year. Where there are no
    long pairs, the pairs that touch deep winter are held out. The classical inversion predicts nothing.
    """
    days = (stack["secondary"] - stack["reference"]).values / np.timedelta64(1, "D")
    year, long = stack["reference"].dt.year.values, days > short_days
    month = [stack[k].dt.month for k in ("reference", "secondary")]
    held = long if long.any() else np.isin(month, (12, 1, 2)).any(axis=0)
    use_long = [n for n in LONG if n in names]
    folds = [([n for n in names if n in FORMS and n not in use_long], held)]
    folds += [(use_long, held & (year % 2 == k)) for k in (0, 1)]
    rows = []
    for chosen, test in folds:
        train, pairs = stack.isel(pair=np.flatnonzero(~test)), stack.isel(pair=np.flatnonzero(test))
        options = {"temperature": temperature, "short_days": short_days, "names": chosen, "series": False}
        for name, run in estimates(train, prior, noise, **options):
            score = log_score(run, name, pairs, noise, temperature=temperature)
            rows += [(name, y, np.nanmean(score[year[test] == y])) for y in np.unique(year[test])]
    return pd.DataFrame(rows, columns=["estimator", "year", "score"])


def score_gain(scores: pd.DataFrame, reference: str = "soft prior") -> pd.DataFrame:
    """Mean score of each estimator over years, and its gain over ``reference``, paired by year, with 95 % limits.

    ``scores`` are those of `held_out_scores` with the column ``pixels``, by which a class of pixels is weighted.
    """
    scores = scores.dropna()
    weighted = scores.assign(weighted=scores["score"] * scores["pixels"])
    sums = weighted.groupby(["estimator", "year"])[["weighted", "pixels"]].sum()
    by_year = (sums["weighted"] / sums["pixels"]).unstack("estimator")
    out = pd.DataFrame({"score": by_year.mean()}).loc[[n for n in FORMS if n in by_year]]
    gain = by_year.sub(by_year[reference], axis=0)  # years share weather
    half = stats.t.ppf(0.975, len(by_year) - 1) * gain.std() / np.sqrt(len(by_year))
    return out.assign(gain=gain.mean(), half_width=half)


def null_direction(
    runs: dict[str, xr.Dataset], mask: xr.DataArray, dates: Sequence, temperature: xr.DataArray | None = None
) -> xr.Dataset:
    """Combination of rate and annual term that short pairs leave unconstrained, and how far each estimator closes it.

    The direction v is the eigenvector of the largest eigenvalue of the covariance C of rate, annual sine and cosine
    without prior; each estimator's standard deviation along it is sqrt(v' C v). ``runs`` are from `estimates`, on
    the grid, "no prior" among them; the degree-day shape counts by its annual term. Returns ``std`` (estimator, y,
    x), mm/yr of rate and mm of the annual term, and ``correlation`` (y, x), the larger absolute one of rate and
    annual term.
    """
    runs = {n: r for n, r in runs.items() if n in FORMS and "coefficients_covariance" in r}
    unconstrained = _rate_and_annual(runs["no prior"], dates, temperature)
    enough = mask.values & np.isfinite(unconstrained).all(axis=(2, 3))
    direction = np.linalg.eigh(np.where(enough[..., None, None], unconstrained, np.eye(3)))[1][..., -1]
    deviation = np.sqrt(np.diagonal(unconstrained, axis1=2, axis2=3))
    correlation = unconstrained[..., 0, 1:] / (deviation[..., :1] * deviation[..., 1:])
    std = []
    for run in runs.values():
        along = np.einsum("yxi,yxij,yxj->yx", direction, _rate_and_annual(run, dates, temperature), direction)
        std.append(np.sqrt(np.where(enough & (along > 0), along, np.nan)))
    grid = {n: c for n, c in runs["no prior"].coords.items() if n in ("y", "x", "spatial_ref")}
    out = xr.Dataset(coords={"estimator": list(runs)} | grid)
    out["std"] = ("estimator", "y", "x"), np.array(std)
    out["correlation"] = ("y", "x"), np.where(enough, np.abs(correlation).max(axis=-1), np.nan)
    return out


def _rate_and_annual(run, dates, temperature) -> np.ndarray:
    """Covariance of rate (mm/yr) and annual sine and cosine (mm), (y, x, 3, 3)."""
    field = run["coefficients_covariance"].transpose("y", "x", "parameter", "parameter_")
    names = ["rate", "annual_sin", "annual_cos"]
    turn = np.zeros((3, field.sizes["parameter"]))
    for column, name in enumerate(field["parameter"].values):
        if name in names:
            turn[names.index(name), column] = 1
        elif name == "degree_day":
            days = pd.date_range(dates[0], dates[-1], freq="D")
            annual = timefunc.parse(MODEL).design(days)
            shape = timefunc.parse("linear+degree_day", temperature).design(days)[:, 1]
            turn[1:, column] = np.linalg.lstsq(annual, shape, rcond=None)[0][1:3]
    return turn @ field.values @ turn.T


def precision_shares(std: xr.DataArray) -> pd.DataFrame:
    """Where each estimator's precision along the null direction comes from: mean and quartiles over pixels.

    Precisions (1 / variance) add up. What short pairs say with a free semiannual term is *data*; what long pairs and
    prior add is theirs; the rest is *shape*, the assumption of a stiffer form.
    """
    precision = {str(n): 1 / std.sel(estimator=n).values ** 2 for n in std["estimator"].values}
    none = np.zeros(std.shape[1:])
    without = {"joint": "long pairs", "soft prior": "no prior", "hard prior": "no prior"}
    rows = {}
    for name, whole in precision.items():
        parts = {"data": precision["linear+annual+semiannual"]}
        by_pairs = precision["long pairs"] - precision["no prior"]
        parts["long pairs"] = by_pairs if name in ("joint", "long pairs") else none
        parts["prior"] = whole - precision[without[name]] if name in without else none
        parts = {k: np.clip(v / whole, 0, 1) for k, v in parts.items()}
        parts["shape"] = np.clip(1 - sum(parts.values()), 0, 1)
        for source in ("data", "shape", "long pairs", "prior"):
            share = parts[source] / sum(parts.values())
            rows[name, source] = [np.nanmean(share), *np.nanpercentile(share, [25, 75])]
    index = ["mean", "lower quartile", "upper quartile"]
    return pd.DataFrame(rows, index=index).T.rename_axis(["estimator", "source"])


def with_rate_prior(free: xr.Dataset, mean: xr.DataArray, std: xr.DataArray | float) -> xr.Dataset:
    """Rate with a Gaussian prior: weight v = S / (S + sd2), rate r + v (m - r), standard deviation sqrt((1 - v) S).

    ``free`` holds ``rate`` and ``rate_std``, S its variance; the weight is the share of an error of the prior that
    reaches the rate. Returns ``rate``, ``rate_std``, ``weight``.
    """
    variance = free["rate_std"].astype(float) ** 2
    weight = variance / (variance + std**2) if np.isfinite(np.max(std)) else xr.zeros_like(variance)
    rate = free["rate"] + weight * (mean - free["rate"])
    return xr.Dataset({"rate": rate, "rate_std": np.sqrt((1 - weight) * variance), "weight": weight})


def series_inside(run: xr.Dataset, truth: np.ndarray | None) -> xr.Dataset:
    """Add ``inside``, each pixel's share of dates whose 95 % interval holds the truth (time, pixel), if known."""
    if truth is None:
        return run
    error = run["displacement"].values[..., 0] - (truth - truth[0])
    within = np.abs(error) < 1.96 * run["displacement_std"].values[..., 0]
    within = np.where(np.isfinite(error), within, np.nan)
    return run.assign(inside=(("y", "x"), within[1:].mean(axis=0)[:, None]))
