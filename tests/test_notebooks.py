"""The chapters' structure: alike in all, free of outputs and typed figures, ready for Colab. `make test` runs them."""

from __future__ import annotations

import json
import re
import sys
import types
import urllib.request
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import dynnotes
from dynnotes import adapt, registry
from dynnotes.knowledge.about import project, url

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GUIDES = [path for path in NOTEBOOKS if path.stem == "08-bring-your-own-model"]  # about the reader's model, not a paper
MEASURED = [path for path in NOTEBOOKS if path.stem == "09-from-macs-to-seconds"]  # about the kernels, no trained net
CHAPTERS = [path for path in NOTEBOOKS if path not in GUIDES + MEASURED]
HEADINGS = ["Play with it first", "The idea", "In your own module", "What the trained network decided",
            "Why did it decide so?", "Force it the other way", "Exercises", "Live", "Further reading"]
EXTRA = {"03-mixture-of-experts": ["Room, load, and what is dropped", "Collapse, and the way back",
                                   "From the museum: the double softmax"]}
READS = {"03-mixture-of-experts": ["fedus2022switch.json", "static-many-tongues.json"]}  # results beside its own
OF_A_GUIDE = ["Play with it first", "The idea", "One call each", "Keep to a budget", "The receipts", "Turn the knob",
              "Promise a risk", "What is refused", "A model of your own family", "Exercises", "Live", "Further reading"]
OF_SECONDS = ["Play with it first", "The idea", "The baseline has a speed of its own", "What is fixed", "What is moved",
              "Seen for the first time", "Above the crossover", "The mask's shape", "The batch",
              "Experts instead of pixels", "On your machine", "What a prediction is worth", "Exercises",
              "Further reading"]
TAGS = {"remove-cell", "hide-cell", "hide-input"}
VERB = re.compile(r"\brun_(if|while|channels|where|kept|experts)\(")
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
every_measured = pytest.mark.parametrize("path", MEASURED, ids=lambda p: p.stem)
every_guide = pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind=None):
    """{id without the chapter's own word: cell}, in order."""
    found = [c for c in read(path).cells if kind in (None, c.cell_type)]
    return {c.id.partition("-")[2]: c for c in found}


def python(cell) -> str:
    """The cell's source with IPython's magics turned into calls."""
    return TransformerManager().transform_cell(cell.source)


def test_every_chapter_is_about_an_implemented_paper_of_its_own():
    found = [re.search(r'KEY = "(.+)"', cells(path)["setup"].source)[1] for path in CHAPTERS]
    assert len(set(found)) == len(found) >= 3
    assert set(found) <= set(registry.sources())


@every
def test_valid_and_stripped(path):
    book = read(path)
    nbformat.validate(book)
    assert book.metadata == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert len({c.id for c in book.cells}) == len(book.cells)
    for cell in book.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.id
            compile(python(cell), f"{path.name}:{cell.id}", "exec")


@every
def test_same_headings_in_the_same_order(path):
    text = "\n".join(c.source for c in cells(path, "markdown").values())
    own = HEADINGS.index("Exercises")
    of_a_chapter = HEADINGS[:own] + EXTRA.get(path.stem, []) + HEADINGS[own:]
    assert re.findall(r"^## (.+)$", text, re.M) == (
        OF_A_GUIDE if path in GUIDES else OF_SECONDS if path in MEASURED else of_a_chapter)
    title = cells(path)["title"].source
    assert re.fullmatch(r"# [^\n]+\n\n[^\n.]+\.", title), "a title and one sentence"


def test_same_cells_and_tags_in_every_chapter():
    shapes = [{name: tuple(c.metadata.get("tags", ())) for name, c in cells(path).items()} for path in CHAPTERS]
    common = [name for name in shapes[0] if all(name in shape for shape in shapes)]
    assert len(common) >= 25
    for shape in shapes:
        assert [name for name in shape if name in common] == common
        assert {name: shape[name] for name in common} == {name: shapes[0][name] for name in common}
        assert {tag for tags in shape.values() for tag in tags} <= TAGS


@every
def test_one_plays_before_one_reads(path):
    names = list(cells(path))
    played, call = ("explorer", "HTML(breakeven.explorer(") if path in MEASURED else ("theatre", "Theatre(")
    assert names.index(played) < names.index("idea")
    assert names[:2] == ["colab", "title"]
    assert cells(path)[played].source.rstrip().splitlines()[-1].startswith(call)


@every_chapter
def test_the_mechanism_is_short_visible_and_has_a_receipt(path):
    code, receipt = cells(path)["code"], cells(path)["receipt"]
    assert not code.metadata.get("tags")
    assert not receipt.metadata.get("tags")
    lines = [line for line in code.source.splitlines() if line.strip()]
    assert len(lines) <= 25
    assert VERB.search(code.source)
    assert "measured()" in receipt.source
    assert ".spent.sum()" in receipt.source
    assert max(map(len, (code.source + "\n" + receipt.source).splitlines())) <= 82, "it would not fit the page"


@every
def test_exercises_have_hidden_solutions_that_are_checked(path):
    found = cells(path)
    numbers = [int(name[2:-4]) for name in found if re.fullmatch(r"ex\d-try", name)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 2
    for n in numbers:
        assert not found[f"ex{n}-try"].metadata.get("tags")
        name = re.search(r"def (check_\w+)\(", found[f"ex{n}-check"].source)[1]
        assert "assert " in found[f"ex{n}-check"].source
        assert found[f"ex{n}-solution"].metadata.tags == ["hide-cell"]
        assert f"assert {name}(solution)" in found[f"ex{n}-solution"].source


@every
def test_figures_are_computed_never_typed(path):
    """What was measured may change; so prose about it holds no digit."""
    of_a_guide = ("play", "heads-text", "mechanism", "training", "calibrate", "refused", "live", "reading")
    of_seconds = ("play", "baseline", "fixed", "first", "crossover", "batch", "experts", "experts-here", "yours",
                  "worth", "reading")
    of_a_chapter = ("play", "decided", "cost", "why", "force", "live", "reading")
    of_a_chapter += tuple(name for name in cells(path, "markdown") if name.startswith(("room", "collapse")))
    for name in of_a_guide if path in GUIDES else of_seconds if path in MEASURED else of_a_chapter:
        prose = re.sub(r"\{cite\}`[^`]+`", "", cells(path)[name].source)  # keys have years
        assert not re.search(r"\d", prose), name
    assert "FLOP" not in path.read_text(encoding="utf-8")


@every
def test_citations_are_in_the_bibliography(path):
    known = {p.key for p in dynnotes.load().entries}
    cited = re.findall(r"\{cite(?::\w)?\}`([^`]+)`", "\n".join(c.source for c in cells(path, "markdown").values()))
    assert cited
    assert set(cited) <= known


@every
def test_is_in_the_book(path):
    assert f"file: notebooks/{path.stem}\n" in (ROOT / "_toc.yml").read_text(encoding="utf-8") + "\n"


@every
def test_colab_cell_does_nothing_elsewhere(path):
    cell = cells(path)["colab"]
    assert cell.metadata.tags == ["remove-cell"]
    space = {}
    exec(compile(python(cell), "colab", "exec"), space)
    assert {name for name in space if not name.startswith("__")} == {"sys", "REPOSITORY", "TAG"}
    assert url("Repository") == space["REPOSITORY"]
    assert space["TAG"] == f"v{project()['version']}"


@every
def test_colab_cell_sets_colab_up(path, monkeypatch, tmp_path):
    """Colab itself is not here: what the cell would ask of it is written down instead."""
    asked, widgets, fetched = [], [], []
    colab = types.ModuleType("google.colab")
    colab.output = types.ModuleType("google.colab.output")
    colab.output.enable_custom_widget_manager = lambda: widgets.append(True)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(urllib.request, "urlretrieve", lambda source, target: fetched.append((source, target)))
    monkeypatch.chdir(tmp_path)
    shell = types.SimpleNamespace(run_line_magic=lambda name, line: asked.append((name, line)))
    space = {"get_ipython": lambda: shell}
    exec(compile(python(cells(path)["colab"]), "colab", "exec"), space)
    kept = (tmp_path / "keep.txt").read_text()
    assert re.findall(r"^(\w+)==", kept, re.M) == ["torch", "numpy"], "Colab's own torch and numpy stay"
    ((magic, line),) = asked
    assert (magic, line.split()[:4]) == ("pip", ["install", "-q", "-c", "keep.txt"])
    assert '"dynnotes[models] @ git+{REPOSITORY}@{TAG}"' in line
    assert widgets == ([] if path in MEASURED else [True])
    if path in GUIDES:
        assert line.split()[-2:] == ["torchvision", "timm"], "installed where Colab lacks them"
        assert not fetched, "it reads no results"
        return
    if path in MEASURED:
        names = ["benchmarks/masked_conv.json", "benchmarks/experts.json"]
        assert fetched == [(f"{space['REPOSITORY']}/raw/{space['TAG']}/{name}", name) for name in names]
        return
    key = re.search(r'KEY = "(.+)"', cells(path)["setup"].source)[1]
    names = [f"{key}.json", "static-canvas-digits.json", *READS.get(path.stem, [])]
    base = f"{space['REPOSITORY']}/raw/{space['TAG']}/results"
    assert fetched == [(f"{base}/{name}", f"results/{name}") for name in names]
    assert (tmp_path / "results").is_dir()


@every
def test_written_as_git_wants_it(path):
    """The form that nbstripout leaves, so that running a chapter does not change it."""
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


@every_guide
def test_a_guide_shows_every_way_to_adapt_and_to_set_the_knob(path):
    """Each public function of dynnotes.adapt is at least named; those of the four decisions are called in the open."""
    text = "\n".join(c.source for c in cells(path).values())
    functions = [name for name in adapt.__all__ if name[0].islower() and name not in ("disagreement", "error")]
    assert len(functions) >= 7
    assert not [name for name in functions if name not in text]
    shown = "\n".join(c.source for c in cells(path, "code").values() if not c.metadata.get("tags"))
    for name in ("with_exits", "with_skips", "with_fewer_tokens", "with_split_experts", "guarantee", "Woven"):
        assert f"{name}(" in shown, name
    assert "found.claimed == found.executed" in shown, "the bill is asserted"
    open_cells = [c.source for c in cells(path, "code").values() if not c.metadata.get("tags")]
    assert max(len(line) for source in open_cells for line in source.splitlines()) <= 82, "it would not fit the page"


@every_guide
def test_a_guide_loads_pretrained_weights_in_colab_alone(path):
    setup = cells(path)["setup"].source
    assert 'pretrained = "google.colab" in sys.modules' in setup
    assert 'weights="DEFAULT" if pretrained else None' in setup
    assert "pretrained=pretrained" in setup


@every_measured
def test_a_measured_chapter_measures_in_the_open_and_says_how_noisy_it_was(path):
    found = cells(path)
    for name in ("rivals", "first-live", "experts-live", "yours-measure"):
        assert not found[name].metadata.get("tags"), name
        assert max(map(len, found[name].source.splitlines())) <= 82, "it would not fit the page"
    assert "breakeven.load()" in found["setup"].source
    for name in ("rivals-table", "fixed-live", "crossover-live", "experts-words", "yours-table"):
        assert "quiet(" in found[name].source, name
