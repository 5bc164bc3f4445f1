"""The repository keeps its promises: clean notebooks, links that resolve, environments that agree."""

import ast
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = [ROOT / n for n in ("README.md", "REPRODUCING.md", "CONTRIBUTING.md", "data/README.md")]
MAKEFILE = (ROOT / "Makefile").read_text()
# names that IPython reads as a magic when an annotated assignment begins with them
MAGICS = """
    alias autocall automagic bookmark cd colors conda config debug dhist dirs edit env gui hist history
    logoff logon logstart logstate logstop ls lsmagic macro magic matplotlib notebook page paste
    pastebin pdb pdef pdoc pfile pinfo pip popd pprint precision prun psearch psource pushd pwd pycat
    pylab quickref recall rehashx reload_ext rerun reset run save sc set_env store sx system tb time
    timeit unalias unload_ext who who_ls whos xdel xmode
""".split()


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [("".join(c["source"]), c) for c in notebook["cells"] if c["cell_type"] == kind]


def ids(path):
    return path.stem


def test_there_are_eight_notebooks():
    """The eight questions of the study are there, in order."""
    assert [p.stem[:2] for p in NOTEBOOKS] == [f"{i:02d}" for i in range(1, 9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_notebook_is_clean(path):
    """No outputs, no execution counts, the plain python3 kernel: `make tidy` mends it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for text, cell in cells(path, "code"):
        assert not cell["outputs"] and cell["execution_count"] is None, f"run `make tidy`: {text[:60]!r}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_notebook_has_one_parameters_cell(path):
    """One tagged cell of typed scalars; its first name is no line magic, which IPython would run instead."""
    tagged = [text for text, cell in cells(path, "code") if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    body = ast.parse(tagged[0]).body
    assert all(isinstance(node, ast.AnnAssign) for node in body), "parameters are typed scalars"
    names = [node.target.id for node in body]
    assert names[:3] == ["site_name", "size", "out"]
    assert names[0] not in MAGICS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_notebook_works_anywhere(path):
    """No path of one machine, no change of directory, no filter that hides every warning."""
    text = "\n".join(t for t, _ in cells(path, "code"))
    for forbidden in (
        "/home/",
        "/root/",
        "os.chdir",
        "plt.show",
        'filterwarnings("ignore")',
        "%matplotlib inline",
    ):
        assert forbidden not in text, f"{path.name} has {forbidden}"
    assert "site.finish()" in text and re.search(rf'\.start\(\s*"{path.stem}"', text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_notebook_checks_before_it_draws(path):
    """Claims are asserted before the first figure is saved."""
    code = [t for t, _ in cells(path, "code")]
    draws = next(i for i, t in enumerate(code) if "plot.save(" in t)
    assert any(re.search(r"^\s*assert ", t, re.M) for t in code[:draws]), "no check before the first figure"


def test_every_figure_has_its_caption():
    """The cell that saves a figure stands below a text that says what it shows; the report takes it as its caption."""
    bare = []
    for path in NOTEBOOKS:
        for before, cell in itertools.pairwise(json.loads(path.read_text())["cells"]):
            saved = re.findall(r'plot\.save\(fig, site, "(\w+)"\)', "".join(cell["source"]))
            words = [line for line in before["source"] if not line.startswith("#")]
            bare += saved if before["cell_type"] != "markdown" or not words else []
    assert not bare, f"no text before the cell that saves {', '.join(bare)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_notebook_is_in_the_makefile(path):
    """Every notebook has its rule, and names only figures that carry its own number."""
    assert path.stem in MAKEFILE
    code = "\n".join(t for t, _ in cells(path, "code"))
    for name in re.findall(r'plot\.save\(\s*\w+,\s*site,\s*"([^"]+)"', code):
        assert name.startswith(path.stem[:2]), f"{path.name} saves {name}"


@pytest.mark.parametrize("path", [t for t in TEXTS if t.exists()], ids=ids)
def test_links_resolve(path):
    """Every link to a file of the repository leads somewhere."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_names_figures_that_notebooks_save():
    """Every figure of the README's table is saved by the notebook named beside it, and every saved one is there."""
    code = "\n".join(t for p in NOTEBOOKS for t, _ in cells(p, "code"))
    saved = set(re.findall(r'plot\.save\(\s*\w+,\s*site,\s*"([^"]+)"', code))
    named = set(re.findall(r"\bfigures/(\d\d_\w+)\.png", (ROOT / "README.md").read_text()))
    assert named == saved, f"README only: {named - saved}; notebooks only: {saved - named}"


def test_the_two_environments_agree():
    """environment.yml and pyproject.toml name the same packages, and the lock holds them all with hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {re.split(r"[<>=\[ ]", name)[0] for name in project}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    given = {re.split(r"[<>= ]", d)[0] for d in conda if isinstance(d, str)} - {"python", "pip", "make"}
    assert given == wanted
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9_.-]+)==", lock, re.M))
    assert wanted <= locked
    assert lock.count("--hash=sha256:") > len(locked)


#: numerals of the answers that are no results: names, dates, levels and bounds asked for by the placeholder beside them
NO_RESULT = re.compile(
    r"RC1|egusphere-2025-5611|Sentinel-1|ALOS-[12]|SG27|Fig\. \d+c?|line 255|95 %|80 %|\b(?:19|20)\d\d\b"
    r"|sd 2 \(in mm/yr\)|sd 2 mm/yr|at 5 mm/yr|\(1 yes, 0 no\)|below 0\b"
)


def typed_numbers(template):
    """Numerals of a template that neither a placeholder gives nor `NO_RESULT` allows."""
    text = re.sub(r"\{\{[^}]*\}\}|`[^`]*`|\]\([^)]*\)|\[\d\d_\w+", " ", template)  # placeholders, code, links
    text = re.sub(
        r"^#.*$|^\s*\d+\. |\*\*\d[a-d]\.", " ", text, flags=re.M
    )  # headings and the referee's numbering
    return re.findall(r"\d[\d.,]*(?:\s?[^\W\d]\S*)?", NO_RESULT.sub(" ", text))


def test_no_number_of_the_answers_is_typed():
    """Every number in the answers to the referee is a placeholder, filled from results or parameters."""
    text = (ROOT / "data" / "RC1.template.md").read_text(encoding="utf-8")
    assert not typed_numbers(text), f"typed by hand: {typed_numbers(text)}"
    assert len(re.findall(r"\{\{ \"\w+:", text)) >= 100


@pytest.mark.parametrize(
    "typed", ["a bias of 3.2 mm/yr", "in 16 seasons", "72 % of them", "k of 0.04", "| 5 days |"]
)
def test_a_typed_number_is_found(typed):
    """The check above can fail: with a unit or without, in prose or in a table."""
    assert typed_numbers(f'In 2016 Sentinel-1 found {{{{ "03_x:bias" | number }}}} and {typed}.')


def test_answers_are_those_of_the_results():
    """RC1.md is what the template and the committed results give: no number in it from anywhere else."""
    from helpers.io import answers, read_results

    template = (ROOT / "data" / "RC1.template.md").read_text(encoding="utf-8")
    assert (ROOT / "RC1.md").read_text(encoding="utf-8") == answers.fill(
        template, read_results(ROOT / "data" / "results")
    )


def test_a_what_if_cannot_touch_the_figures():
    """`make try` sends every write below build/try, whatever parameters it is given."""
    command = [
        "make",
        "-n",
        "try",
        "ONE=07_recession",
        "P=-p min_days 7 -p out ''",
        f"PYTHON={sys.executable}",
    ]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    given = re.findall(r"-p (\w+) (\S+)", said)
    assert ("min_days", "7") in given and given[-1] == ("out", "build/try"), given  # the last one counts


def test_make_b_makes_all_anew(tmp_path):
    """`make -B` asks for no newer prerequisite: the recipe behind the lock runs."""
    recipe = f"include Makefile\nprobe:\n\t@$(call LOCK,{tmp_path}/lock,probe); touch {tmp_path}/ran\n"
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-f", "-", "-B", "-j1", "probe"]
    subprocess.run(command, cwd=ROOT, input=recipe, text=True, check=True, env=outside)
    assert (tmp_path / "ran").exists()


def test_readme_table_is_complete():
    """Each figure's row names its notebook, its command and the time that REPRODUCING.md states."""
    took = dict(re.findall(r"^\| (\d\d_\w+) \| (\d+) \|", (ROOT / "REPRODUCING.md").read_text(), re.M))
    rows = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("|") and "](figures/" in line
    ]
    assert len(rows) > 30 and len(took) == 8
    for row in rows:
        figure, notebook = (
            re.search(r"figures/(\d\d)_", row)[1],
            re.search(r"notebooks/(\d\d_\w+)\.ipynb", row)[1],
        )
        assert notebook.startswith(figure) and row.endswith(f"| `make {notebook}` | {took[notebook]} s |"), (
            row
        )


def test_registry_pins_every_original():
    """Each public original has a repository, a commit and a sha256; no file is listed twice."""
    rows = list(csv.DictReader((ROOT / "data" / "sites" / "registry.csv").open()))
    assert len({(r["site"], r["file"]) for r in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"]) and re.fullmatch(r"[0-9a-f]{7,40}", row["commit"])


def labels_of(picture):
    """Every text a figure shows: `plot.save` keeps them in the PNG's keyword Description."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.text.get("Description", "").splitlines()


def misspelled(labels, known):
    """Words of some labels that the list of known ones lacks; numbers, symbols and single letters are no words."""
    words = {word for text in labels for word in re.findall(r"[^\W\d_]{2,}", re.sub(r"\$[^$]*\$", " ", text))}
    return sorted(word for word in words if word.lower() not in known)


KNOWN_WORDS = set((ROOT / "tests" / "words.txt").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("picture", sorted((ROOT / "figures").glob("*.png")), ids=ids)
def test_labels_are_spelled_right(picture):
    """Every word drawn in a figure is one of words.txt (RC1, specific comment 3); a new word enters it on purpose."""
    labels = labels_of(picture)
    assert labels, f"{picture.name} keeps no labels: draw it with plot.save (make all)"
    wrong = misspelled(labels, KNOWN_WORDS)
    assert not wrong, f"{picture.name}: misspelled, or missing from tests/words.txt: {', '.join(wrong)}"


def test_a_misspelling_is_found():
    """The list is no sieve with holes: the usual misspellings are not in it."""
    wrong = (
        "susidence subsidance defomation permfrost streamfow recesion coherance temperture seasonl velocty"
    )
    assert misspelled(wrong.split(), KNOWN_WORDS) == sorted(wrong.split())
    assert misspelled(["LOS displacement (mm)"], KNOWN_WORDS) == []


def public_functions():
    """The functions a reader meets by `help` of a room of helpers, of the engine, the readers or the twin."""
    import importlib
    import inspect

    rooms = (
        "attribution constrained contrasts io merge network plot recession sbas space thaw timefunc".split()
    )
    for name in (*(f"helpers.{room}" for room in rooms), "twin"):
        module = importlib.import_module(name)
        own = (n for n, o in vars(module).items() if getattr(o, "__module__", "").startswith(name))
        for key in getattr(module, "__all__", None) or own:
            function = getattr(module, key)
            if inspect.isfunction(function) and not key.startswith("_"):
                yield pytest.param(function, id=f"{name}.{key}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_public_functions_explain_themselves(function):
    """`help` shows what a function is for and the type of every argument and of what it returns."""
    import inspect

    signature = inspect.signature(function)
    bare = [
        p.name
        for p in signature.parameters.values()
        if p.annotation is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    assert not bare and signature.return_annotation is not signature.empty, (
        f"without a type: {bare or 'the result'}"
    )
    assert len(inspect.getdoc(function) or "") > 30
