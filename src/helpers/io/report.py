"""One folder that tells the whole run and opens from disk without a network."""

from __future__ import annotations

import base64
import itertools
import re
import sys
from pathlib import Path

import jinja2
import nbformat
from markupsafe import Markup

from helpers.io.results import RESULT_COLUMNS, read_results
from helpers.io.site import load_site


def build(title: str, run: Path, figures: Path, results: Path, answers: Path | None, target: Path) -> Path:
    """Write index.html (answers, gallery, results) and a page for each executed notebook.

    Parameters
    ----------
    title : str
        Of the site.
    run : Path
        Folder of the executed notebooks. A figure's caption is the text that stands before its cell.
    figures, results : Path
        Folders of the PNG files and of the results tables.
    answers : Path or None
        The answers to the referee, in Markdown.
    target : Path
        Folder to write; pages hold their pictures, nothing is loaded from elsewhere.
    """
    executed = {p.stem: p for p in sorted(run.glob("[0-9][0-9]_*.ipynb")) if p.name.count(".") == 1}
    if not executed:
        raise FileNotFoundError(f"{run} holds no executed notebook; run `make all` first")
    for name, path in executed.items():
        _write(target / f"{name}.html", title=name, notebook=_notebook(path))
    captions = {name: text for path in executed.values() for name, text in _captions(path)}
    gallery = [
        {
            "name": picture.stem,
            "data": base64.b64encode(picture.read_bytes()).decode(),
            "page": next((name for name in executed if name[:2] == picture.stem[:2]), None),
            "caption": captions.get(picture.stem, ""),
        }
        for picture in sorted(figures.glob("*.png"))
    ]
    tables = read_results(results).groupby("notebook")[RESULT_COLUMNS]
    return _write(
        target / "index.html",
        title=title,
        notebooks=list(executed),
        answers=_markdown(answers.read_text(encoding="utf-8")) if answers and answers.is_file() else None,
        figures=gallery,
        results=[
            (name, Markup(t.to_html(index=False, na_rep="", float_format="%.5g"))) for name, t in tables
        ],
    )


def _write(page: Path, **content) -> Path:
    page.parent.mkdir(parents=True, exist_ok=True)
    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    part = page.with_suffix(".html.part")
    part.write_text(jinja2.Environment(autoescape=True).from_string(template).render(content), "utf-8")
    part.replace(page)
    return page


def _captions(path: Path):
    """Give figure and caption, as HTML: the paragraph before the cell that saves it."""
    for before, cell in itertools.pairwise(nbformat.read(path, as_version=4).cells):
        for name in re.findall(r'plot\.save\(fig, site, "(\w+)"\)', cell.source):
            if before.cell_type == "markdown":
                yield name, _markdown(re.sub(r"^#.*\n?", "", before.source, flags=re.M))


def _notebook(path: Path) -> Markup:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="basic", embed_images=True).from_filename(str(path))
    # equations stay as text: a page that opens without a network loads no script
    return Markup(re.sub(r"<script\b.*?</script>", "", body, flags=re.S))


def _markdown(text: str) -> Markup:
    from nbconvert.filters import markdown2html

    page = re.sub(r"<h1\b.*?</h1>", "", markdown2html(text), flags=re.S)
    # a figure named in the text is on the same page
    return Markup(re.sub(r'href="figures/(\w+)\.png"', r'href="#\1"', page))


if __name__ == "__main__":
    build(load_site(sys.argv[1]).config.title, *map(Path, sys.argv[2:]))
