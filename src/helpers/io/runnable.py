"""Which notebooks a site can run: make asks before it starts any."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from helpers.io.run import say
from helpers.io.site import NEEDS, Site, load_site


def skip(site: Site, folder: Path) -> None:
    """Say in one line what each notebook lacks that the site cannot run, and write its copy with that line.

    The copies, <notebook>.skipped.ipynb, are what make takes for executed ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in NEEDS:
        if reason := site.cannot_run(notebook):
            cells = [nbformat.v4.new_markdown_cell(f"# {notebook}\n{reason}", id="skipped")]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{notebook}.skipped.ipynb")
            say(reason)


if __name__ == "__main__":
    skip(load_site(*sys.argv[1:3]), Path(sys.argv[3]))
