"""What a notebook needs of the run around it: is somebody watching, what is done, what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable


class MissingInput(Exception):
    """The site lacks an input of this notebook: it ends here and has written nothing; make takes it as skipped."""

    def _render_traceback_(self) -> list[str]:
        """Show one line in a notebook: where the exception was raised says nothing to its reader."""
        return [f"MissingInput: {self}"]


def is_live() -> bool:
    """Say whether someone sits before the running notebook: a kernel, and no batch run (make sets MPLBACKEND=agg)."""
    from IPython import get_ipython

    batch = os.environ.get("MPLBACKEND", "").lower() == "agg"
    return hasattr(get_ipython(), "kernel") and not batch


def progress(steps: Iterable, what: str) -> Iterable:
    """Go through the steps of a loop with a progress bar by hand, in silence in a batch run."""
    from tqdm.auto import tqdm

    return tqdm(steps, desc=what, disable=not is_live(), leave=False)


def say(text: object) -> None:
    """Print a line for whoever reads the notebook, its executed copy, or what make says."""
    print(text)  # noqa: T201
