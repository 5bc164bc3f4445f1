"""One folder that tells the whole run and opens from disk without a network."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
import sys
from pathlib import Path

import pandas as pd

from helpers.io.results import read_results
from helpers.io.site import load_site

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
img{max-width:100%}table{border-collapse:collapse;font-size:13px}
td,th{border:1px solid #ccc;padding:2px 6px;text-align:right}
td:first-child,td:nth-last-child(-n+3),th{text-align:left}td{vertical-align:top}pre{overflow-x:auto;background:#f5f5f5;padding:.5rem}
figure{margin:1rem 0}figcaption{font-size:13px;color:#555}nav a{margin-right:1rem}.jp-InputPrompt,.jp-OutputPrompt,
.prompt,.anchor-link{display:none}.highlight{background:#f5f5f5;border-left:3px solid #0072B2}
.jp-OutputArea-output pre{background:none}"""


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
    target.mkdir(parents=True, exist_ok=True)
    executed = sorted(
        p for p in run.glob("[0-9][0-9]_*.ipynb") if ".part" not in p.name and ".failed" not in p.name
    )
    if not executed:
        raise FileNotFoundError(f"{run} holds no executed notebook; run `make all` first")
    for path in executed:
        back = '<nav><a href="index.html">figures, results and the other notebooks</a></nav>'
        _put(target / f"{path.stem}.html", path.stem, back + _notebook(path))
    told = answers is not None and answers.is_file()
    sections = (["answers"] if told else []) + ["figures", "results"]
    parts = ["<nav>", *(f'<a href="#{name}">{name}</a>' for name in sections), "<br>executed notebooks:"]
    parts += [*(f'<a href="{p.stem}.html">{p.stem}</a>' for p in executed), "</nav>"]
    if told:
        parts += [
            '<h2 id="answers">Answers to the referee</h2>',
            _markdown(answers.read_text(encoding="utf-8")),
        ]
    parts.append('<h2 id="figures">Figures</h2>')
    captions = _captions(executed)
    parts += [_figure(picture, executed, captions) for picture in sorted(figures.glob("*.png"))]
    parts.append('<h2 id="results">Results</h2>')
    for notebook, table in read_results(results).groupby("notebook"):
        parts += [f'<h3><a href="{notebook}.html">{notebook}</a></h3>', _table(table)]
    return _put(target / "index.html", title, "\n".join([f"<h1>{html.escape(title)}</h1>", *parts]))


def _captions(executed: list[Path]) -> dict[str, str]:
    """Figure to caption, as HTML: the paragraph before the cell that saves it."""
    out = {}
    for path in executed:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for before, cell in itertools.pairwise(cells):
            for name in re.findall(r'plot\.save\(fig, site, "(\w+)"\)', "".join(cell["source"])):
                if before["cell_type"] == "markdown":
                    text = "".join(before["source"]).split("\n")
                    out[name] = _markdown("\n".join(line for line in text if not line.startswith("#")))
    return out


def _figure(picture: Path, executed: list[Path], captions: dict[str, str]) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    page = next((p.stem for p in executed if p.stem[:2] == picture.stem[:2]), None)
    source = f' (from <a href="{page}.html">{page}</a>)' if page else ""
    return (
        f'<figure id="{picture.stem}"><img alt="{picture.stem}" src="data:image/png;base64,{data}">'
        f"<figcaption><b>{picture.stem}</b>{source}{captions.get(picture.stem, '')}</figcaption></figure>"
    )


def _put(path: Path, title: str, body: str) -> Path:
    part = path.with_suffix(".html.part")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    part.write_text(f"{head}<style>{_STYLE}</style>{body}</html>", encoding="utf-8")
    part.replace(path)
    return path


def _notebook(path: Path) -> str:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter(template_name="basic", embed_images=True).from_filename(str(path))
    # equations stay as text: a page that opens without a network loads no script
    return re.sub(r"<script\b.*?</script>", "", body, flags=re.S)


def _markdown(text: str) -> str:
    from nbconvert.filters import markdown2html

    page = re.sub(r"<h1\b.*?</h1>", "", markdown2html(text), flags=re.S)
    # a figure named in the text is on the same page
    return re.sub(r'href="figures/(\w+)\.png"', r'href="#\1"', page)


def _table(results: pd.DataFrame) -> str:
    columns = ["name", "value", "lower", "upper", "unit", "truth", "method"]
    return results[columns].to_html(index=False, na_rep="", float_format=lambda v: f"{v:.5g}")


if __name__ == "__main__":
    site_title = load_site(sys.argv[1]).config.title
    run_folder, figure_folder, result_folder, answer_file, target_folder = map(Path, sys.argv[2:])
    build(site_title, run_folder, figure_folder, result_folder, answer_file, target_folder)
