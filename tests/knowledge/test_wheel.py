"""The built wheel, outside the checkout and without PyTorch: the bibliography is inside and answers."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dynnotes

ROOT = Path(__file__).parents[2]


def build(source: Path, out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What a clone has, without what was built in it."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    for name in ("dynnotes", "bib"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "index.json"))
    return root


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory):
    """The wheel unpacked, as pip would, into an empty folder."""
    place = tmp_path_factory.mktemp("site")
    made = build(checkout, place / "dist")
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = (place / "dist").glob("dynnotes-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "lib")
    assert not list(checkout.rglob("index.json"))[1:]  # only the build folder has it
    return place


def python(place: Path, *args: str) -> subprocess.CompletedProcess:
    """Python with the unpacked wheel and no PyTorch, no checkout, no writable home."""
    (place / "none").mkdir(exist_ok=True)
    (place / "none" / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DYNNOTES", "PYTHON", "XDG"))}
    env |= {"PYTHONPATH": os.pathsep.join([str(place / "lib"), str(place / "none")]), "HOME": "/nonexistent"}
    return subprocess.run([sys.executable, *args], cwd=place, env=env, capture_output=True, text=True)


def test_the_wheel_answers(installed):
    code = (
        "import dynnotes, sys; kb = dynnotes.load(); print(len(kb), dynnotes.__file__); p = kb['ConvNet-AIG'];"
        "print(p.bibtex(), p.source and p.source.name, kb.taxonomy().number_of_nodes(), dynnotes.__version__)"
    )
    out = python(installed, "-c", code)
    assert out.returncode == 0, out.stderr
    kb = dynnotes.load()
    assert out.stdout.startswith(f"{len(kb)} {installed / 'lib'}")
    assert kb["ConvNet-AIG"].bibtex() in out.stdout
    assert out.stdout.endswith(f" {len(kb.nodes)} {dynnotes.__version__}\n")
    found = python(installed, "-m", "dynnotes", "find", "--decision", "gating")
    assert len(found.stdout.splitlines()) == len(kb.papers(decision="gating"))
    assert (
        "https://dynnotes.github.io/dynnotes/papers/"
        in python(installed, "-m", "dynnotes", "open", "AIG", "--print").stdout
    )


def test_a_model_without_torch_is_a_clear_error(installed):
    out = python(installed, "-c", "import dynnotes; dynnotes.load_model('BranchyNet')")
    assert 'pip install "dynnotes[models]"' in out.stderr.splitlines()[-1]


def test_a_damaged_index_says_to_install_again(installed):
    file = installed / "lib" / "dynnotes" / "knowledge" / "index.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    try:
        out = python(installed, "-m", "dynnotes", "find")
    finally:
        file.write_bytes(whole)
    assert out.returncode == 2
    assert "install dynnotes again" in out.stderr
    assert "Traceback" not in out.stderr


def test_a_bibliography_with_problems_stops_the_build(checkout, tmp_path):
    shutil.copytree(checkout, tmp_path / "clone")
    (tmp_path / "clone" / "bib" / "broken.bib").write_text("@article{broken, title = {A}}")
    made = build(tmp_path / "clone", tmp_path / "dist")
    assert made.returncode != 0
    assert "bib/broken.bib:1: broken: " in made.stdout + made.stderr
    assert not list(tmp_path.glob("dist/*.whl"))
