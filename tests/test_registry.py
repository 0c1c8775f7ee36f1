"""Papers stand where the bibliography says, are documented as agreed, and are found without importing torch."""
import ast
import subprocess
import sys

import pytest

import dynnotes
from dynnotes.registry import FAMILIES, PACKAGE, Budget, paper, papers, sources

SOURCES = sources()


def test_sources_and_papers_agree():
    found = {key: (source.module, source.name) for key, source in SOURCES.items()}
    assert {key: (cls.__module__, cls.__name__) for key, cls in papers().items()} == found


def test_sources_need_no_torch():
    code = "import sys; from dynnotes.registry import sources; assert sources(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("key", SOURCES)
def test_the_folder_is_the_taxon(key):
    source = SOURCES[key]
    assert source.file.parent.relative_to(PACKAGE).as_posix() == dynnotes.load()[key].taxon
    assert key in dynnotes.load()[key].bibtex()


@pytest.mark.parametrize("key", SOURCES)
def test_the_docstring_says_what_it_does_and_what_it_leaves_out(key):
    text = sys.modules[papers()[key].__module__].__doc__
    first, *rest = text.split("\n\n")
    assert first.endswith(".") and "$" not in first, "one sentence first"
    assert any("$$" in part for part in rest), "then the paper's equation"
    assert "\nLeft out:" in text


@pytest.mark.parametrize("key", SOURCES)
def test_the_three_core_methods_stay_short(key):
    """`__init__`, `forward` and `loss` together: past 100 lines, something in them is a mechanism."""
    import inspect
    cls = papers()[key]
    assert sum(len(inspect.getsource(getattr(cls, m)).splitlines()) for m in ("__init__", "forward", "loss")) <= 100


def test_one_key_one_class():
    with pytest.raises(KeyError, match="one entry, one class"):
        paper("veit2018convolutional")(type("Other", (), {}))


def test_a_budget_checks_itself():
    with pytest.raises(ValueError, match="outside"):
        Budget("threshold", 0.0, 1.0, (0.5, 2.0), "higher")
    with pytest.raises(ValueError, match="cheaper"):
        Budget("threshold", 0.0, 1.0, (0.5,), "more")


def test_the_budget_of_a_model_checks_its_range():
    model = papers()["veit2018convolutional"].demo()[0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.at(2.0)
    with pytest.raises(ValueError, match="sparse"):
        model.execute("fast")


@pytest.mark.parametrize("key", SOURCES)
def test_no_paper_imports_another(key):
    source = SOURCES[key]
    package = source.module.split(".")[:-1]
    for node in ast.walk(ast.parse(source.file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = package[:len(package) - node.level + 1] if node.level else []
            target = ".".join([*start, *filter(None, [node.module])])
            assert not target.startswith(tuple(f"dynnotes.{family}" for family in FAMILIES)), target
