"""Fixtures: the folder of real data, and a quick twin simulated once per session."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of real data; the test skips, saying why, where it is not to be had."""
    folder = os.environ.get("DATA_MIRROR", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data not to be had: set DATA_MIRROR to a folder that holds the public originals")
    return Path(folder)


@pytest.fixture(scope="session")
def quick_twin(tmp_path_factory) -> Path:
    """Raw inputs of a quick twin with a seed that no notebook uses."""
    import twin

    folder = tmp_path_factory.mktemp("twin") / "raw"
    twin.simulate(folder, seed=11, size="quick")
    return folder
