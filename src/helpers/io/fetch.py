"""How the raw inputs of a site come to be there: simulated, fetched, or named as missing."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pandas as pd

from helpers.io.site import SITES, Site
from readers.originals import fetch_file, kuparuk_tables


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
    kuparuk_tables(site.raw)


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


def missing_inputs(site: Site) -> list[tuple[str, str, str]]:
    """List the inputs of the site file that are not in the raw folder: key, path, how to get it."""
    inputs = site.config.inputs
    wanted = [
        (f"sar.{name}", sar.path or sar.unwrapped, sar.how_to_get()) for name, sar in inputs.sar.items()
    ]
    wanted += [(f"discharge.{name}", g.path, g.how_to_get()) for name, g in inputs.discharge.items()]
    wanted += [(f"displacement.{name}", d.path, d.how_to_get()) for name, d in inputs.displacement.items()]
    for key in ("gnss", "ground_temperature"):
        wanted += [(key, stations.path, stations.how_to_get())] if (stations := getattr(inputs, key)) else []
    wanted += [("climate", inputs.climate.path, inputs.climate.how_to_get())] if inputs.climate else []
    wanted += [(f"drivers.{name}", d.path, d.how_to_get()) for name, d in inputs.drivers.items()]
    wanted += [("areas", inputs.areas, "a GeoJSON you draw, see the site file")] if inputs.areas else []
    wanted += [(key, getattr(inputs, key), "") for key in ("active_layer", "gnssir") if getattr(inputs, key)]
    return [
        (key, path, how or "see the site file") for key, path, how in wanted if not any(site.raw.glob(path))
    ]
