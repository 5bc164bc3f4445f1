"""What libraries raise on damaged files, turned into what the readers state: the file, what is wrong, the remedy."""

from __future__ import annotations

import contextlib
from pathlib import Path


@contextlib.contextmanager
def damage_named(path, remedy: str = "get it anew"):
    """Turn whatever a library raises on the content of a file into a ValueError that names the file.

    Libraries raise what they meet (h5py KeyError and RuntimeError, numcodecs RuntimeError, pandas ParserError,
    zarr TypeError): this goes around calls of theirs, not around code of this project.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError | FileNotFoundError) and str(error).startswith(str(path)):
            raise  # said by this project
        told = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path}: cannot be read, it is damaged or of another format ({told}); {remedy}"
        ) from error


def regular_file(path) -> Path:
    """Give the path of a regular file; a pipe or a device in its place would wait for ever or have no end."""
    path = Path(path)
    if not path.is_file():
        if path.exists():
            raise ValueError(f"{path}: is no regular file")
        raise FileNotFoundError(f"{path}: no such file (or a link that leads nowhere)")
    return path


def regular_tree(path) -> Path:
    """Give the path of a folder that holds nothing but folders and regular files, for the same reason."""
    path = Path(path)
    for entry in path.rglob("*"):
        if not entry.is_dir():
            regular_file(entry)
    return path
