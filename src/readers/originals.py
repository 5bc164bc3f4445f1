"""Public originals of a site's inputs: a file from a mirror or the network, and tables from MATLAB files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd


def fetch_file(row, folder: Path) -> Path:
    """Get one file of the registry into ``folder``, from the mirror or the public original.

    ``row`` has file, repository, commit, path, mirror (path below the folder named by DATA_MIRROR) and sha256.
    Without a path the mirror holds a part of the original, which cannot be downloaded: the whole one serves as well.
    """
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
    if not isinstance(row.path, str):
        if target.is_file():
            return target
        raise FileNotFoundError(
            f"{target} is missing: part of a file of {row.repository} at {row.commit[:8]}; "
            "set DATA_MIRROR to a folder that holds the part, or put the whole file there"
        )
    url = f"https://github.com/{row.repository}/raw/{row.commit}/{row.path}"
    try:
        pooch.retrieve(url, known_hash=f"sha256:{row.sha256}", fname=target.name, path=target.parent)
    except OSError as error:
        raise FileNotFoundError(
            f"{target} is missing and {url} could not be reached ({error.__class__.__name__}); "
            "connect to the network or set DATA_MIRROR to a folder that holds the originals"
        ) from error
    return target


def kuparuk_tables(raw: Path) -> None:
    """Build the plain tables of the Kuparuk, whose public originals are MATLAB files, where these are there."""
    daily, annual = raw / "dailyflow_octave.mat", raw / "annualdata_octave.mat"
    if not daily.is_file():
        return
    from scipy.io import loadmat

    content = loadmat(daily, squeeze_me=True)
    when = pd.to_datetime(pd.DataFrame(content["T"][:, :3], columns=["year", "month", "day"]))
    table = pd.DataFrame({"date": when, "q_m3s": content["Q"] / 86400.0, "precipitation_mm": content["R"]})
    _write_csv(table, raw / "daily.csv")
    record = loadmat(annual, squeeze_me=True, variable_names=["Data"])["Data"]
    # the file stores MATLAB day numbers; day 719529 is 1970-01-01
    days = np.asarray(record["Time"].item(), dtype="int64") - 719529
    years = days.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    thickness = {"active_layer_thickness_cm": record["Dc"].item(), "std_cm": record["sigDc"].item()}
    _write_csv(pd.DataFrame({"year": years, **thickness}), raw / "active_layer.csv")


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    table.to_csv(part, index=False, float_format="%.8g", lineterminator="\n")
    part.replace(path)
