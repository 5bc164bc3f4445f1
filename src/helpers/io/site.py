"""Sites: what a study area consists of, where its files lie, and which notebooks it can run."""

from __future__ import annotations

import os
import re
import time
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from helpers.io.run import MissingInput, is_live, say

ROOT = Path(__file__).resolve().parents[3]
SITES = ROOT / "data" / "sites"
DEFAULT_SITE = "datong_twin"
#: what each notebook needs of a site; 01 takes what there is
NEEDS = {
    "02_sbas": ("sar",),
    "03_constrained_sbas": ("sar", "rate_prior", "climate", "areas"),
    "04_merge": ("sar", "tracks"),
    "05_thaw_scaling": ("sar", "tracks", "climate", "areas"),
    "06_degradation": ("sar", "tracks", "areas"),
    "07_recession": ("discharge",),
    "08_attribution": ("sar", "tracks", "drivers", "areas"),
}
#: a need in words; the others are keys of the site file
NEED_WORDS = {
    "sar": "stack of role main (key sar)",
    "tracks": "second stack (key sar)",
    "rate_prior": "stack of role rate_prior (key sar)",
}
_TAKEN = ("quick", "try", "report", "raw", "derived", "results", "figures")


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
MonthDay = Annotated[str, Field(pattern=r"^\d\d-\d\d$")]
Positive = Annotated[float, Field(gt=0)]


# The models below hold the keys of a site file; data/sites/template.yml says what each means.
class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Input(_Strict):
    source: str = ""
    product: str = ""
    portal: str = ""
    order: str = ""
    licence: str = ""
    files: str = ""

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
    unwrapped: RawPath | None = None
    coherence: RawPath | None = None
    baselines: RawPath | None = None
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
    drainage_area_km2: float = Field(gt=0, lt=8e6)  # the Amazon has 7e6
    column: str | int | None = None
    date_column: str | int | None = None
    date_format: str | None = None
    station: str | None = None
    units: str | None = None
    to_daily: bool = False
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


class Displacement(_Input):
    """A displacement series that somebody else inverted: OPERA DISP-S1, one GeoTIFF a date."""

    path: RawPath
    los: RawPath | None = None


class Stations(_Input):
    """Daily records of stations in one file or folder."""

    path: RawPath
    names: dict[str, str] = {}  # what figures call a station


class Inputs(_Strict):
    """All inputs of a site; what is absent is absent from the study."""

    sar: dict[Name, Sar] = {}
    displacement: dict[Name, Displacement] = {}
    gnss: Stations | None = None  # tenv3 files
    ground_temperature: Stations | None = None  # daily, Aisori export
    discharge: dict[Name, Gauge] = {}
    climate: Climate | None = None
    drivers: dict[Name, Driver] = {}
    areas: RawPath | None = None
    active_layer: RawPath | None = None  # CSV: year, active_layer_thickness_cm, std_cm
    gnssir: RawPath | None = None  # daily GNSS-IR reflector heights


class Epoch(_Strict):
    """A period of the study; an open end is null."""

    label: str
    start: date | None
    end: date | None
    source: str

    @field_validator("start", "end", mode="before")
    @classmethod
    def _whole_date(cls, value):
        if isinstance(value, int):
            raise ValueError(f"{value} is no date; write {value}-01-01")
        return value

    @model_validator(mode="after")
    def _forward(self):
        if self.start and self.end and self.end < self.start:
            raise ValueError(f"epoch {self.label!r} ends on {self.end}, before it starts on {self.start}")
        return self


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
        if self.bounds and not (self.bounds[0] < self.bounds[2] and self.bounds[1] < self.bounds[3]):
            raise ValueError(f"bounds {list(self.bounds)} are not in the order west, south, east, north")
        return self


class Mine(_Strict):
    """What an open-cast mine took up, for the water its pits and the ground it opened may hold (07)."""

    area_km2: Positive
    pit_area_km2: Positive
    pit_volume_m3: Positive
    source: str

    @model_validator(mode="after")
    def _pits_are_part(self):
        if self.pit_area_km2 > self.area_km2:
            raise ValueError("`area_km2` counts pits and heaps: it cannot be below `pit_area_km2`")
        return self


class SiteConfig(_Strict):
    """The content of a site file; see data/sites/template.yml for each key with its meaning."""

    title: str
    kind: Literal["twin", "real"]
    seed: int = Field(1, ge=0)
    epochs: list[Epoch] = []
    knots: list[date] = []
    reference_area: ReferenceArea | None = None
    permafrost_limit_m: float | None = None
    thaw_season: tuple[MonthDay, MonthDay] | None = None
    mine: Mine | None = None
    inputs: Inputs = Inputs()
    physics: dict[str, float | int | bool | str] = {}

    @model_validator(mode="after")
    def _season_of_one_year(self):
        for day in self.thaw_season or ():
            try:
                date.fromisoformat(f"2000-{day}")
            except ValueError:
                raise ValueError(f"thaw_season: {day!r} is no month and day (mm-dd)") from None
        if self.thaw_season and self.thaw_season[0] >= self.thaw_season[1]:
            first, last = self.thaw_season
            raise ValueError(
                f"thaw_season from {first} to {last} crosses New Year; seasons of the southern hemisphere are not read"
            )
        return self


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
            base = ROOT / "build" / "quick" / ("" if default else name)
            self.raw, self.derived = base / "raw", base / "derived"
            self.results, self.figures, self.executed = base / "results", base / "figures", base
        else:
            self.raw, self.derived = (ROOT / "data" / part / name for part in ("raw", "derived"))
            below = "" if default else name
            self.results, self.figures = ROOT / "data" / "results" / below, ROOT / "figures" / below
            self.executed = ROOT / "build" / name
        #: what is committed stays as it is where a rerun tells the same (`Results.write`, `plot.save`)
        self.keeps_committed = default and size == "full" and not out
        self.read_from = [self.derived]
        if out:
            # a what-if writes elsewhere and still reads what it did not change itself
            base = ROOT / out
            self.derived, self.results = base / "derived", base / "results"
            self.figures, self.executed = base / "figures", base
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

    def _given(self) -> dict[str, bool]:
        inputs = self.config.inputs
        counts = {
            "sar": self.by_role("main"),
            "tracks": len(inputs.sar) > 1,
            "rate_prior": self.by_role("rate_prior"),
        }
        return {k: bool(v) for k, v in counts.items()} | {
            key: bool(getattr(inputs, key)) for key in ("discharge", "climate", "drivers", "areas")
        }

    def lacks(self, needs: tuple[str, ...]) -> list[str]:
        """Say which of the named inputs the site file does not have."""
        given = self._given()
        return [need for need in needs if not given[need]]

    def cannot_run(self, notebook: str) -> str:
        """Say in one line what a notebook lacks on this site and how to supply it; empty where it can run."""
        missing = [NEED_WORDS.get(need, need) for need in self.lacks(NEEDS.get(notebook, ()))]
        if not missing:
            return ""
        return (
            f"{notebook}: site {self.name!r} has no {', '.join(missing)}; nothing done. "
            f"To supply it, name it under `inputs` in data/sites/{self.name}.yml (see template.yml)."
        )

    def start(self, notebook: str) -> Site:
        """Begin a notebook: connect to a cluster if one is named; MissingInput where the site lacks a need."""
        if reason := self.cannot_run(notebook):
            raise MissingInput(reason)
        self.notebook, self.outputs, self._started = notebook, [], time.monotonic()
        if address := os.environ.get("DASK_SCHEDULER_ADDRESS"):
            from distributed import Client

            # from here on dask computes there; `io.read` and `io.write_and_reopen` ask for it
            self.client = Client(address)
            say(f"{notebook}: heavy steps run on the workers of {address}")
        elif is_live():
            from dask.diagnostics import ProgressBar

            ProgressBar(minimum=3.0).register()  # a bar for whatever takes longer
        return self

    def leave(self, reason: str, remedy: str) -> None:
        """End a notebook whose data turn out to be too few, before it has drawn or written: raise MissingInput."""
        self._release()
        raise MissingInput(f"{self.notebook}: {reason}; nothing done. {remedy}")

    def _release(self):
        if self.client is not None:
            self.client.close()
            self.client = None

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
        for file in files:  # no stamp outlives its outputs when the power goes
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        listing = self.executed / f"{self.notebook}.outputs"
        part = listing.with_suffix(".outputs.part")
        part.write_text("".join(f"{os.path.relpath(f, ROOT)}\n" for f in files))
        part.replace(listing)
        self._release()
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        say(f"{self.notebook}: {time.monotonic() - self._started:.1f} s, peak memory {peak_gib:.2f} GiB")

    def __repr__(self) -> str:
        """Say what the site has, in a few lines."""
        inputs = self.config.inputs
        lines = [f"Site {self.name} ({self.kind}, {self.size}): {self.config.title}"]
        lines += [f"  SAR        {name:8s} {s.band} band, {s.role}" for name, s in inputs.sar.items()]
        for name, gauge in inputs.discharge.items():
            lines += [f"  discharge  {name:8s} {gauge.drainage_area_km2:g} km2, {gauge.role}"]
        lines += [f"  series     {name:8s} {d.path}" for name, d in inputs.displacement.items()]
        for key in ("gnss", "ground_temperature"):
            lines += [f"  {key:10s} {getattr(inputs, key).path}"] if getattr(inputs, key) else []
        lines += [f"  climate    {inputs.climate.path}"] if inputs.climate else []
        lines += [f"  drivers    {', '.join(inputs.drivers)}"] if inputs.drivers else []
        lacking = self.lacks(tuple(self._given()))
        lines += [f"  not given  {', '.join(NEED_WORDS.get(k, k) for k in lacking)}"] if lacking else []
        assumed = [f"{name}.looks" for name, s in inputs.sar.items() if s.looks is None and s.unwrapped]
        lines += [f"  assumed    {', '.join(assumed)}"] if assumed else []
        return "\n".join(lines)


class _PlainLoader(yaml.SafeLoader):
    """YAML of plain values only: a file of a few lines must not grow by aliases, nor hide a key behind another."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read: write the value out")
        return super().compose_node(parent, index)

    def construct_scalar(self, node):
        # YAML 1.1 reads 0100 as 64 and 4:20 as 260: neither is what was meant
        if node.style is None and re.fullmatch(r"[-+]?(0\d+|\d+(:\d+)+(\.\d*)?)", str(node.value)):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: write {node.value} in quotes or as a plain number")
        return super().construct_scalar(node)

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise yaml.YAMLError(f"key given twice: {', '.join(twice)}")
        return super().construct_mapping(node, deep=deep)


def load_site(name_or_path: str | Path, size: str = "full", out: str | Path = "") -> Site:
    """Read and validate a site file: a name of data/sites/<name>.yml or a path.

    Parameters
    ----------
    size : {"full", "quick"}
        Quick keeps everything it writes below build/quick.
    out : str, optional
        Folder (relative to the repository) that takes all the writes of a what-if run.

    Raises
    ------
    FileNotFoundError, ValueError
        No such site, with those there are; a wrong key or value, with file, key and the valid ones.
    """
    if size not in ("full", "quick"):
        raise ValueError(f"size is {size!r}; it must be 'full' or 'quick'")
    path = Path(name_or_path)
    if path.suffix not in (".yml", ".yaml"):
        path = SITES / f"{name_or_path}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SITES.glob("*.yml") if p.stem != "template"))
        template = "Copy data/sites/template.yml to make one."
        raise FileNotFoundError(f"no site file {path}; sites are: {known}. {template}")
    if not re.fullmatch(r"[A-Za-z0-9_]+", path.stem):
        raise ValueError(f"{path}: a site's name has letters, digits and _ only, not {path.stem!r}")
    if path.stem in _TAKEN:
        raise ValueError(f"{path}: the name {path.stem!r} is that of a folder of build/; choose another")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        told = f"{path}: not readable as YAML ({error}); compare data/sites/template.yml"
        raise ValueError(told) from error
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
