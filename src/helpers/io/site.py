"""Sites: what a study area consists of, where its files lie, and how its raw inputs come to be there."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parents[3]
SITES = ROOT / "data" / "sites"
DEFAULT_SITE = "datong_twin"
#: how a need is told to whoever lacks it; the others are keys of the site file
NEEDS = {
    "sar": "stack of role main (key sar)",
    "tracks": "second stack (key sar)",
    "rate_prior": "stack of role rate_prior (key sar)",
}
_TAKEN = ("quick", "try", "report", "raw", "derived", "results", "figures")
_log = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _below_the_raw_folder(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError(
            f"{path!r} leads out of the site's raw folder; name a path below it (a link in it may lead elsewhere)"
        )
    return path


#: a file or a glob below data/raw/<site>
RawPath = Annotated[str, Field(min_length=1), AfterValidator(_below_the_raw_folder)]
#: a key that becomes part of a file's name
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]


class _Input(_Strict):
    """What a user has to know to get an input: every key is optional text, printed when the input is missing."""

    source: str = Field("", description="who made it, for a credit line")
    product: str = Field("", description="name of the product")
    portal: str = Field("", description="where to get it")
    order: str = Field("", description="how to order or choose it")
    licence: str = Field("", description="under what terms")
    files: str = Field("", description="file names expected below the raw folder")

    def how_to_get(self) -> str:
        """Give product, portal, order, licence and expected files in one line."""
        parts = {"": self.product, "from ": self.portal, "how: ": self.order, "licence: ": self.licence}
        parts |= {"files: ": self.files, "source: ": self.source}
        return "; ".join(f"{label}{text.strip()}" for label, text in parts.items() if text)


class Sar(_Input):
    """One sensor and track. Either ``path`` (for `read_stack`) or ``unwrapped`` (for `read_geotiff_pairs`)."""

    role: Literal["main", "ascending", "rate_prior", "historical"]
    band: Literal["C", "L"]
    path: RawPath | None = None
    unwrapped: RawPath | None = Field(
        None, description="glob of the unwrapped GeoTIFFs, below the raw folder"
    )
    coherence: RawPath | None = None
    baselines: RawPath | None = Field(None, description="glob of GAMMA *_bperp.par files")
    dem: RawPath | None = None
    wavelength_m: float | None = None
    incidence_angle_deg: float | None = None
    heading_deg: float | None = None
    looks: float | None = None
    positive: Literal["away", "toward"] = "away"
    incomplete: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _one_source(self):
        if (self.path is None) == (self.unwrapped is None):
            raise ValueError("give exactly one of `path` and `unwrapped`")
        if self.unwrapped is not None and self.wavelength_m is None:
            raise ValueError("`unwrapped` GeoTIFFs carry no wavelength: give `wavelength_m`")
        return self


class Gauge(_Input):
    """One gauge: its daily discharge and its part in the before-after-control-impact design."""

    role: Literal["target", "control"]
    path: RawPath
    format: str | None = None
    drainage_area_km2: float = Field(gt=0)
    channel_km: float | None = Field(
        None, gt=0, description="length of all channels, for thickness from recession"
    )
    conductivity_m_day: float | None = Field(
        None, gt=0, description="saturated hydraulic conductivity, likewise"
    )
    name: str = ""


class Climate(_Input):
    """Daily climate of the basin. ``precipitation`` names a gauge file that replaces the gridded product."""

    path: RawPath
    format: Literal["netcdf", "shud", "csv"] = "netcdf"
    height_m: float | None = None
    precipitation: RawPath | None = None


class Driver(_Input):
    """One raster of a possible environmental control."""

    path: RawPath
    group: str
    unit: str
    long_name: str
    resampling: Literal["average", "bilinear", "nearest"] = "average"


class Inputs(_Strict):
    """All inputs of a site; what is absent is absent from the study."""

    sar: dict[Name, Sar] = {}
    discharge: dict[Name, Gauge] = {}
    climate: Climate | None = None
    drivers: dict[Name, Driver] = {}
    areas: RawPath | None = Field(None, description="GeoJSON of named polygons and the gauge")
    active_layer: RawPath | None = Field(None, description="CSV year, active_layer_thickness_cm, std_cm")
    gnssir: RawPath | None = Field(None, description="daily GNSS-IR reflector heights")


class Epoch(_Strict):
    """A period of the study; an open end is null."""

    label: str
    start: date | None
    end: date | None
    source: str


class ReferenceArea(_Strict):
    """The one reference of every sensor: a named polygon, a pixel (row, column) or a lon/lat box."""

    name: str
    polygon: str | None = None
    pixel: tuple[int, int] | None = None
    bounds: tuple[float, float, float, float] | None = None

    @model_validator(mode="after")
    def _one_place(self):
        if sum(v is not None for v in (self.polygon, self.pixel, self.bounds)) != 1:
            raise ValueError("give exactly one of `polygon`, `pixel`, `bounds`")
        return self


class Mine(_Strict):
    """What an open-cast mine took up, for the water its pits and the ground it opened may hold (07)."""

    area_km2: float = Field(gt=0, description="pits and heaps")
    pit_area_km2: float = Field(gt=0, description="pits alone")
    pit_volume_m3: float = Field(gt=0, description="void of the pits")
    source: str

    @model_validator(mode="after")
    def _pits_are_part(self):
        if self.pit_area_km2 > self.area_km2:
            raise ValueError("`area_km2` counts pits and heaps: it cannot be below `pit_area_km2`")
        return self


MonthDay = Annotated[str, Field(pattern=r"^\d\d-\d\d$")]


class SiteConfig(_Strict):
    """The content of a site file; see data/sites/template.yml for each key with its meaning."""

    title: str
    kind: Literal["twin", "real"]
    seed: int = Field(1, ge=0)
    epochs: list[Epoch] = []
    knots: list[date] = Field([], description="dates at which the rate of the joined record may change")
    reference_area: ReferenceArea | None = None
    permafrost_limit_m: float | None = Field(None, description="lower limit of permafrost, height in m")
    thaw_season: tuple[MonthDay, MonthDay] | None = Field(None, description="first and last day, mm-dd")
    mine: Mine | None = None
    inputs: Inputs = Inputs()
    physics: dict[str, float | int | bool | str] = Field({}, description="keywords of twin.simulate")


class Site:
    """One site at one size: its configuration and the folders it reads and writes.

    Attributes
    ----------
    raw, derived, results, figures, executed : pathlib.Path
        Folders; everything of ``size="quick"`` lies below build/quick.
    epochs : pandas.DataFrame
        Columns label, start, end (Timestamps, NaT where open) and source.
    sensors : list of str
        Names of the SAR stacks, in the order of the site file.
    client : distributed.Client or None
        The cluster a running notebook works with.
    """

    def __init__(self, name: str, config: SiteConfig, size: str = "full", out: str | Path = ""):
        self.name, self.config, self.size = name, config, size
        self.kind, self.seed = config.kind, config.seed
        default = name == DEFAULT_SITE
        if size == "quick":
            base = ROOT / "build" / "quick" if default else ROOT / "build" / "quick" / name
            self.raw, self.derived = base / "raw", base / "derived"
            self.results, self.figures, self.executed = base / "results", base / "figures", base
        else:
            self.raw, self.derived = (ROOT / "data" / part / name for part in ("raw", "derived"))
            self.results, self.figures = ROOT / "data" / "results", ROOT / "figures"
            if not default:
                self.results, self.figures = self.results / name, self.figures / name
            self.executed = ROOT / "build" / name
        self.read_from = [self.derived]
        if out:
            # a what-if writes elsewhere and still reads what it did not change itself
            base = ROOT / out
            self.derived, self.results, self.figures = (
                base / part for part in ("derived", "results", "figures")
            )
            self.executed = base
            self.read_from = [self.derived, *self.read_from]
        self.notebook: str | None = None
        self.outputs: list[Path] = []
        self.client = None
        self._started = time.monotonic()

    @property
    def epochs(self) -> pd.DataFrame:
        """The periods of the study as a table."""
        table = pd.DataFrame([e.model_dump() for e in self.config.epochs])
        if not table.empty:
            table["start"], table["end"] = pd.to_datetime(table["start"]), pd.to_datetime(table["end"])
        return table

    @property
    def sensors(self) -> list[str]:
        """Names of the SAR stacks."""
        return list(self.config.inputs.sar)

    def by_role(self, role: str) -> list[str]:
        """Names of the SAR stacks with this role (main, ascending, rate_prior, historical)."""
        return [name for name, sar in self.config.inputs.sar.items() if sar.role == role]

    @property
    def main_sensor(self) -> str:
        """The stack whose grid is the common grid of the site."""
        return self.by_role("main")[0]

    def lacks(self, needs: tuple[str, ...]) -> list[str]:
        """Say which of the named inputs the site file does not have."""
        inputs = self.config.inputs
        have = {
            "sar": bool(self.by_role("main")),
            "tracks": len(inputs.sar) > 1,
            "rate_prior": bool(self.by_role("rate_prior")),
            "discharge": bool(inputs.discharge),
            "climate": inputs.climate is not None,
            "drivers": bool(inputs.drivers),
            "areas": inputs.areas is not None,
        }
        return [need for need in needs if not have[need]]

    def start(self, notebook: str, needs: tuple[str, ...] = ()) -> Site:
        """Begin a notebook: connect to a cluster if one is named, or skip it where the site lacks an input.

        A site without an input the notebook needs ends it in one line: every later cell becomes a
        no-op, so nothing is drawn or written, by hand and under papermill alike.
        """
        self.notebook, self.outputs, self._started = notebook, [], time.monotonic()
        if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
            from distributed import Client

            # from here on dask computes there; `io.read` and `io.spread` ask for it
            self.client = Client(address)
            _say(f"{notebook}: heavy steps run on the workers of {address}")
        elif is_live():
            from dask.diagnostics import ProgressBar

            ProgressBar(minimum=3.0).register()  # a bar for whatever takes longer
        if missing := self.lacks(needs):
            self.leave(
                f"site {self.name!r} has no {', '.join(NEEDS.get(m, m) for m in missing)}",
                f"To supply it, name it under `inputs` in data/sites/{self.name}.yml (see template.yml).",
            )
        return self

    def leave(self, reason: str, remedy: str) -> None:
        """End the running notebook in one line, before it has drawn or written: later cells do nothing."""
        _say(f"{self.notebook}: {reason}; nothing done. {remedy}")
        self.finish()
        _skip_rest_of_notebook()

    def record(self, path: Path) -> Path:
        """Note a file as an output of the running notebook."""
        if path not in self.outputs:
            self.outputs.append(path)
        return path

    def finish(self) -> None:
        """End a notebook: list its outputs for make, once they are on the disk, and say what it took.

        A zarr store is listed file by file: to its readers a lost chunk would be no data.
        """
        import resource

        self.executed.mkdir(parents=True, exist_ok=True)
        files = []
        for path in self.outputs:
            files += sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        for file in files:
            _to_disk(file)
        listing = self.executed / f"{self.notebook}.outputs"
        part = listing.with_suffix(".outputs.part")
        part.write_text("".join(f"{os.path.relpath(f, ROOT)}\n" for f in files))
        part.replace(listing)
        if self.client is not None:
            self.client.close()
            self.client = None
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        _say(f"{self.notebook}: {time.monotonic() - self._started:.1f} s, peak memory {peak_gib:.2f} GiB")

    def __repr__(self) -> str:
        """Say what the site has, in a few lines."""
        inputs = self.config.inputs
        lines = [f"Site {self.name} ({self.kind}, {self.size}): {self.config.title}"]
        lines += [f"  SAR        {name:8s} {s.band} band, {s.role}" for name, s in inputs.sar.items()]
        lines += [
            f"  discharge  {n:8s} {g.drainage_area_km2:g} km2, {g.role}" for n, g in inputs.discharge.items()
        ]
        lines += [f"  climate    {inputs.climate.path}"] if inputs.climate else []
        lines += [f"  drivers    {', '.join(inputs.drivers)}"] if inputs.drivers else []
        lacking = self.lacks(("sar", "tracks", "rate_prior", "discharge", "climate", "drivers", "areas"))
        lines += [f"  not given  {', '.join(NEEDS.get(k, k) for k in lacking)}"] if lacking else []
        assumed = [f"{name}.looks" for name, s in inputs.sar.items() if s.looks is None and s.unwrapped]
        lines += [f"  assumed    {', '.join(assumed)}"] if assumed else []
        return "\n".join(lines)


def _to_disk(file: Path) -> None:
    """Wait until the content is on the disk, so that no stamp outlives its outputs when the power goes."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def is_live() -> bool:
    """Say whether someone sits before the running notebook: a kernel, and no batch run (make sets MPLBACKEND=agg)."""
    from IPython import get_ipython

    batch = os.environ.get("MPLBACKEND", "").lower() == "agg"
    return hasattr(get_ipython(), "kernel") and not batch


def progress(steps: Iterable, what: str) -> Iterable:
    """Go through the steps of a loop with a progress bar by hand, in silence in a batch run."""
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, disable=not is_live(), leave=False)


def _say(text: str) -> None:
    print(text)  # noqa: T201  a notebook's reader, by hand or in the executed copy, must see it


def _skip_rest_of_notebook() -> None:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError("the site lacks an input of this notebook")
    shell.input_transformers_cleanup.append(lambda lines: ["pass\n"])


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain values only: a file of a few lines must not grow by aliases, nor hide a key behind another."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"key given twice: {', '.join(twice)}")
        return super().construct_mapping(node, deep=deep)


def load_site(name_or_path: str | Path, size: str = "full", out: str | Path = "") -> Site:
    """Read and validate a site file.

    Parameters
    ----------
    name_or_path : str or Path
        A name of data/sites/<name>.yml, or the path of a site file.
    size : {"full", "quick"}
        Quick keeps everything it writes below build/quick.
    out : str, optional
        Folder (relative to the repository) that takes all the writes of a what-if run.

    Returns
    -------
    Site

    Raises
    ------
    FileNotFoundError
        No such site; the message lists the sites there are.
    ValueError
        A wrong key or value; the message names the file, the key and the valid ones.
    """
    if size not in ("full", "quick"):
        raise ValueError(f"size is {size!r}; it must be 'full' or 'quick'")
    path = Path(name_or_path)
    if path.suffix not in (".yml", ".yaml"):
        path = SITES / f"{name_or_path}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SITES.glob("*.yml") if p.stem != "template"))
        raise FileNotFoundError(
            f"no site file {path}; sites are: {known}. Copy data/sites/template.yml to make one."
        )
    if not re.fullmatch(r"[A-Za-z0-9_]+", path.stem):
        raise ValueError(f"{path}: a site's name has letters, digits and _ only, not {path.stem!r}")
    if path.stem in _TAKEN:
        raise ValueError(f"{path}: the name {path.stem!r} is that of a folder of build/; choose another")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable as YAML ({error}); compare data/sites/template.yml"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no keys; compare data/sites/template.yml")
    try:
        config = SiteConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(_explain(path, error)) from error
    return Site(path.stem, config, size, out)


def _explain(path: Path, error: ValidationError) -> str:
    """Turn pydantic's report into lines that name the file, the key and the valid keys."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        line = f"{path}: key `{key}`: {item['msg']}"
        if item["type"] == "extra_forbidden":
            model = SiteConfig
            for part in item["loc"][:-1]:
                model = _model_below(model, part)
            line = f"{path}: unknown key `{key}`; valid keys here: {', '.join(sorted(model.model_fields))}"
        lines.append(line)
    return "\n".join(lines)


def _model_below(model, part):
    if not isinstance(part, str) or part not in getattr(model, "model_fields", {}):
        return model
    annotation = model.model_fields[part].annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)


def registry(site_name: str) -> pd.DataFrame:
    """Give the public originals of a site: file, repository, commit, path, mirror, sha256."""
    table = pd.read_csv(SITES / "registry.csv", dtype=str)
    return table[table["site"] == site_name]


def fetch(site: Site) -> Site:
    """Make the raw inputs of a site exist: simulate the twin, or get the public originals.

    Originals come from the folder named by the environment variable DATA_MIRROR where it holds them,
    otherwise by download; both are checked against the registry's sha256. Inputs that only the user
    can supply are checked for, and what is missing is named.

    Raises
    ------
    FileNotFoundError
        An input is missing; the message names each file, its source and where to put it.
    """
    obtain(site)
    if absent := missing_inputs(site):
        lines = [f"  {key}: put {path} below {site.raw}; {how}" for key, path, how in absent]
        raise FileNotFoundError(
            f"site {site.name!r} lacks {len(absent)} inputs that data/sites/{site.name}.yml names; "
            "supply them or take them out of that file:\n" + "\n".join(lines)
        )
    return site


def obtain(site: Site) -> None:
    """Get what can be got without the user: simulate the twin, or fetch and convert the public originals."""
    if site.kind == "twin":
        _simulate(site)
        return
    for row in registry(site.name).itertuples():
        fetch_file(row, site.raw)
    _convert(site)


def _simulate(site: Site) -> None:
    """Simulate the twin, anew if its generator, its seed or its physics has changed since."""
    import twin

    sources = b"".join(path.read_bytes() for path in sorted(Path(twin.__file__).parent.glob("*.py")))
    wanted = f"{hashlib.sha256(sources).hexdigest()} {site.size} {site.seed} {site.config.physics}\n"
    made_by = site.raw / "made_by.txt"
    if made_by.is_file() and made_by.read_text() == wanted:
        return
    # what a generator made can be made again: the raw folder of a twin holds nothing of the user's
    if made_by.is_file() or (site.raw / "twin.json").is_file():
        # renamed first: a removal that is killed half-way must not leave a folder that looks whole
        old = site.raw.with_name(site.raw.name + ".old.part")
        shutil.rmtree(old, ignore_errors=True)
        site.raw.rename(old)
        shutil.rmtree(old)
    twin.simulate(site.raw, seed=site.seed, size=site.size, **site.config.physics)
    made_by.write_text(wanted)


def fetch_file(row, folder: Path) -> Path:
    """Get one file of the registry into ``folder``, from the mirror or the public original."""
    import pooch

    target = folder / row.file
    if target.is_file() and pooch.file_hash(str(target)) == row.sha256:
        return target
    mirror = os.environ.get("DATA_MIRROR", "")
    if mirror and (Path(mirror) / row.mirror).is_file():
        source = Path(mirror) / row.mirror
        if pooch.file_hash(str(source)) != row.sha256:
            raise ValueError(f"{source}: its sha256 is not that of data/sites/registry.csv; get it anew")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        shutil.copyfile(source, part)
        part.replace(target)
        return target
    url = f"https://github.com/{row.repository}/raw/{row.commit}/{row.path}"
    try:
        pooch.retrieve(url, known_hash=f"sha256:{row.sha256}", fname=target.name, path=target.parent)
    except OSError as error:
        raise FileNotFoundError(
            f"{target} is missing and {url} could not be reached ({error.__class__.__name__}); "
            "connect to the network or set DATA_MIRROR to a folder that holds the originals"
        ) from error
    return target


def _convert(site: Site) -> None:
    """Build the plain tables of inputs whose public original is a MATLAB file."""
    daily, annual = site.raw / "dailyflow_octave.mat", site.raw / "annualdata_octave.mat"
    if not daily.is_file():
        return
    from scipy.io import loadmat

    content = loadmat(daily, squeeze_me=True)
    when = pd.to_datetime(pd.DataFrame(content["T"][:, :3], columns=["year", "month", "day"]))
    table = pd.DataFrame({"date": when, "q_m3s": content["Q"] / 86400.0, "precipitation_mm": content["R"]})
    _write_csv(table, site.raw / "daily.csv")
    record = loadmat(annual, squeeze_me=True, variable_names=["Data"])["Data"]
    # the file stores MATLAB day numbers; day 719529 is 1970-01-01
    days = np.asarray(record["Time"].item(), dtype="int64") - 719529
    years = days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    thickness = {"active_layer_thickness_cm": record["Dc"].item(), "std_cm": record["sigDc"].item()}
    _write_csv(pd.DataFrame({"year": years, **thickness}), site.raw / "active_layer.csv")


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    table.to_csv(part, index=False, float_format="%.8g", lineterminator="\n")
    part.replace(path)


def missing_inputs(site: Site) -> list[tuple[str, str, str]]:
    """List the inputs of the site file that are not in the raw folder: key, path, how to get it."""
    inputs = site.config.inputs
    wanted = [
        (f"sar.{name}", sar.path or sar.unwrapped, sar.how_to_get()) for name, sar in inputs.sar.items()
    ]
    wanted += [(f"discharge.{name}", g.path, g.how_to_get()) for name, g in inputs.discharge.items()]
    wanted += [("climate", inputs.climate.path, inputs.climate.how_to_get())] if inputs.climate else []
    wanted += [(f"drivers.{name}", d.path, d.how_to_get()) for name, d in inputs.drivers.items()]
    wanted += [("areas", inputs.areas, "a GeoJSON you draw, see the site file")] if inputs.areas else []
    wanted += [(key, getattr(inputs, key), "") for key in ("active_layer", "gnssir") if getattr(inputs, key)]
    return [
        (key, path, how or "see the site file") for key, path, how in wanted if not any(site.raw.glob(path))
    ]
