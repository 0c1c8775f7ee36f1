"""The command line: what it prints, what it refuses, how it leaves, and what it imports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dynnotes
from dynnotes import cli

ROOT = Path(__file__).parents[1]
HOSTILE = (
    r"""
@article{evil2020, title = {<script>alert(1)</script> """
    + "\x1b[31mred\x07 \u202elanigiro"
    + r"""}, author = {Doe, Jane},
  journal = {J"""
    + "\x9b"
    + r"""}, year = {2020}, method = {Evil}, kind = {method}, taxon = {sample}, adapts = {input}, unit = {layer},
  decision = {gating}, training = {none}, executes = {unknown}, modality = {image}, tldr = {x}, status = {checked}}
"""
)


def dyn(*args, **kwargs):
    """The command in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | kwargs.pop("env", {})
    return subprocess.run([sys.executable, "-m", "dynnotes", *args], capture_output=True, text=True, env=env, **kwargs)


@pytest.fixture
def run(capsys):
    """Call the command in this process: (exit code, stdout, stderr)."""

    def call(*args):
        try:
            code = cli.main([*args])
        except SystemExit as leave:  # argparse
            code = leave.code
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_find_gives_what_the_query_gives(run):
    kb = dynnotes.load()
    code, out, _ = run(
        "find", "--taxon", "sample/depth", "--decision", "gating", "--training", "gumbel-softmax", "--since", "2018"
    )
    expected = kb.papers(taxon="sample/depth", decision="gating", training="gumbel-softmax", since=2018)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == [p.key for p in expected]
    assert "veit2018convolutional" in out


def test_lists_of_words_mean_any_of(run):
    kb = dynnotes.load()
    _, commas, _ = run("find", "--unit", "layer,exit", "--json")
    _, twice, _ = run("find", "--unit", "layer", "--unit", "exit", "--json")
    assert [p["key"] for p in json.loads(commas)] == [p.key for p in kb.papers(unit=["layer", "exit"])]
    assert commas == twice


def test_free_words_and_lists(run):
    _, out, _ = run("find", "adaptive", "inference", "graphs", "--json")
    assert [p["key"] for p in json.loads(out)] == ["veit2018convolutional"]
    _, found, _ = run("find", "--list", "materials", "--json")
    _, listed, _ = run("list", "materials", "--json")
    (papers,) = (g["groups"] for g in json.loads(listed)["groups"] if g["title"] == "Papers")
    listed = [p["key"] for group in papers for p in group["papers"]]
    assert sorted(p["key"] for p in json.loads(found)) == sorted(listed)
    assert len(listed) == len(dynnotes.load().papers(lists="materials")) > 0


def test_implemented_papers_are_those_of_the_registry(run):
    from dynnotes import registry

    code, out, _ = run("find", "--implemented", "--json")
    keys = {p["key"] for p in json.loads(out)}
    assert keys == set(registry.sources())
    assert code == (0 if keys else 1)
    _, others, _ = run("find", "--no-implemented", "--json")
    assert {p["key"] for p in json.loads(others)} == {p.key for p in dynnotes.load()} - keys


def test_show(run):
    code, out, _ = run("show", "convnet-aig")
    assert code == 0
    for text in (
        "Andreas Veit, Serge Belongie",
        "1711.11503",
        "gumbel-softmax",
        "ResNet [he2016deep]",
        "sample/depth/skips",
        "/papers/veit2018convolutional.html",
    ):
        assert text in out
    _, out, _ = run("show", "AIG", "--json")
    paper = json.loads(out)
    assert paper["authors"] == ["Andreas Veit", "Serge Belongie"]
    assert {"kind": "extends", "target": "he2016deep"}.items() <= paper["relations"][0].items()
    assert any(c["key"] == "han2022dynamic" for c in paper["cited_by"])


def test_tree_counts(run):
    kb = dynnotes.load()
    _, out, _ = run("tree", "sample/depth", "--json")
    rows = json.loads(out)
    assert rows[0]["id"] == "sample/depth"
    assert rows[0]["papers"] == len(kb.papers(taxon="sample/depth"))
    _, english, _ = run("tree")
    assert len(english.splitlines()) == len(kb.nodes)
    _, chinese, _ = run("tree", "sample/depth", "--zh")
    assert chinese.startswith(kb.node("sample/depth").zh)
    assert "\n  早退" in chinese


def test_words(run):
    code, out, _ = run("words", "decision")
    assert code == 0
    assert "gating" in out
    assert run("words", "decison")[0] == 2


def test_cite_can_be_read_again(run):
    from dynnotes.knowledge.bibtex import Source

    code, out, _ = run("cite", "ConvNet-AIG", "BranchyNet", "veit2018convolutional")
    source = Source(out.encode(), "refs.bib")
    assert code == 0
    assert [e.key for e in source.entries()] == ["veit2018convolutional", "teerapittayanon2016branchynet"]
    assert not source.broken
    assert not source.problems
    assert "decision:gating" in out
    assert "tldr" not in out
    assert "tldr" in run("cite", "AIG", "--full")[1]


def test_one_wrong_name_and_nothing_is_cited(run):
    code, out, err = run("cite", "ConvNet-AIG", "BranchNet")
    assert (code, out) == (2, "")
    assert "did you mean BranchyNet" in err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["find", "qwertyuiop"], 1, "no paper fits"),
        (["find", "--decision", "gateing"], 2, "did you mean 'gating'?"),
        (["find", "--decision", ","], 2, "--decision has no word"),
        (["find", "--taxon", "sample/dept"], 2, "did you mean sample/depth"),
        (["find", "--since", "soon"], 2, "invalid int value"),
        (["find", "--decison", "gating"], 2, "unrecognized arguments"),
        (["show", "BranchNet"], 2, "did you mean BranchyNet"),
        (["tree", "smaple"], 2, "no taxon 'smaple'; did you mean sample"),
        (["list", "material"], 2, "did you mean materials"),
        (["open", "no-such-chapter-qq"], 2, "no chapter or paper"),
        (["run", "BranchNet"], 2, "did you mean BranchyNet"),
        (["run", "ResNet"], 2, "is not implemented yet; implemented:"),
        (["run", "BranchyNet", "x.png", "--input", "1"], 2, "not both"),
        (["run", "BranchyNet", "no/such.png"], 2, "no/such.png: no such image file"),
        (["run", "BranchyNet", "--input", "-1"], 2, "--input"),
        (["train", "background/surveys"], 2, "no paper in background/surveys is implemented yet"),
        (["train", "BranchyNet", "--seeds", "0"], 2, "'0' is not a whole number above 0"),
        (["train", "BranchyNet", "--budgets", "1,x"], 2, "'1,x' is not numbers joined by commas"),
        (["frobnicate"], 2, "invalid choice"),
        (["new-paper", "han2022dynamic"], 2, "is of kind survey"),
        (["--bib", "/nowhere", "tree"], 2, "taxonomy.yml"),
        ([], 2, ""),
    ],
)
def test_mistakes_are_named_and_leave_no_traceback(run, args, code, words):
    got, out, err = run(*args)
    assert got == code
    assert words in err
    assert "Traceback" not in out + err


def test_help_has_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "dynnotes find --decision gating" in out
    assert "exit codes" in out


def test_version_is_that_of_pyproject(run):
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert run("--version")[1] == f"dynnotes {version}\n"
    assert dynnotes.__version__ == version


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "cache"))
    bib = tmp_path / "bib"
    bib.mkdir()
    (bib / "taxonomy.yml").write_bytes((ROOT / "bib" / "taxonomy.yml").read_bytes())
    (bib / "evil.bib").write_text(HOSTILE, encoding="utf-8")
    return str(bib)


@pytest.mark.parametrize(
    "args",
    [
        ["find"],
        ["find", "--json"],
        ["show", "Evil"],
        ["show", "Evil", "--json"],
        ["cite", "Evil"],
        ["cite", "Evil", "--json"],
    ],
)
def test_hostile_titles_cannot_drive_a_terminal(run, hostile, args):
    code, out, _ = run("--bib", hostile, *args)
    assert code == 0
    assert "script" in out
    assert all(c.isprintable() or c == "\n" for c in out), ascii(out)
    if "--json" in args and "cite" not in args:
        found = json.loads(out)
        assert "\x1b[31mred\x07 \u202e" in (found[0] if isinstance(found, list) else found)["title"]


def test_a_broken_bibliography_lists_every_problem(run, hostile):
    Path(hostile, "broken.bib").write_text(
        "@article{a,\n title = {A}\n year = 1}\n@article{\x1b[2J, x = {}}", encoding="utf-8"
    )
    code, out, err = run("--bib", hostile, "find")
    assert (code, out) == (2, "")
    assert "bib/broken.bib:3: " in err
    assert "bib/broken.bib:4: " in err
    assert "\x1b" not in err
    assert "Traceback" not in err


def test_a_pipe_closed_early_is_no_error():
    for args in (["find", "--json"], ["tree"]):
        command = [sys.executable, "-m", "dynnotes", *args]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 0


def test_an_ascii_terminal_gets_escapes_instead_of_a_crash():
    out = dyn("tree", "sample", "--zh", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert out.returncode == 0
    assert "\\u" in out.stdout


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize(
    ("env", "bold"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_colour_only_on_a_terminal_that_wants_it(env, bold):
    import pty

    ours, theirs = pty.openpty()
    full = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm", "PYTHONPATH": str(ROOT)} | env
    subprocess.run([sys.executable, "-m", "dynnotes", "show", "AIG"], stdout=theirs, env=full, check=True)
    os.close(theirs)
    text = os.read(ours, 65536)
    os.close(ours)
    assert (b"\x1b[1m" in text) == bold
    assert b"\x1b" not in dyn("show", "AIG").stdout.encode()


@pytest.mark.parametrize(
    "args",
    [
        ["find", "--decision", "gating"],
        ["find", "--implemented"],
        ["show", "BranchyNet"],
        ["tree"],
        ["words"],
        ["list"],
        ["cite", "BranchyNet"],
        ["list", "materials"],
        ["open", "BranchyNet", "--print"],
        ["run", "ResNet"],
        ["train", "ResNet"],
    ],
)
def test_the_literature_side_imports_nothing_heavy(args):
    heavy = {"torch", "numpy", "networkx", "yaml", "pylatexenc", "plotly", "difflib"}
    code = (
        "import sys; from dynnotes.cli import main; main(sys.argv[1:]);"
        f"print(*({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    dyn("tree")  # the index is fresh, as at the second query
    out = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stderr.splitlines()[-1] == ""


def test_without_torch_the_models_say_what_to_install(run, monkeypatch):
    from importlib import util

    from dynnotes import registry

    source = registry.Source("x", "X", ROOT / "x.py", 1)
    monkeypatch.setattr(registry, "sources", lambda: {"teerapittayanon2016branchynet": source})
    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a))
    for command in ("run", "train"):
        code, _, err = run(command, "BranchyNet")
        assert code == 2
        assert 'pip install "dynnotes[models]"' in err


def test_run_and_train_hand_over_what_was_asked(run, monkeypatch):
    from types import SimpleNamespace

    from dynnotes import registry

    seen = []
    take = lambda args: seen.append(vars(args)) or 0
    source = registry.Source("x", "X", ROOT / "x.py", 1)
    have = {"teerapittayanon2016branchynet": source, "veit2018convolutional": source}
    monkeypatch.setattr(registry, "sources", lambda: have)
    monkeypatch.setattr(cli, "_models", lambda _: SimpleNamespace(run_command=take, train_command=take))
    assert (
        run(
            "run", "BranchyNet", "--input", "3", "--budget", "0.5", "--execute", "dense", "--trace", "t.json", "--json"
        )[0]
        == 0
    )
    asked = {
        "key": "teerapittayanon2016branchynet",
        "input": 3,
        "images": [],
        "budget": 0.5,
        "execute": "dense",
        "trace": "t.json",
        "json": True,
    }
    assert asked.items() <= seen[-1].items()
    run(
        "train",
        "aig",
        "--seeds",
        "3",
        "--epochs",
        "2",
        "--budgets",
        "0.1,0.5",
        "--out",
        "o",
        "--resume",
        "--device",
        "cpu",
        "--quick",
    )
    asked = {
        "key": "veit2018convolutional",
        "keys": ["veit2018convolutional"],
        "seeds": 3,
        "epochs": 2,
        "budgets": [0.1, 0.5],
        "out": "o",
        "resume": True,
        "device": "cpu",
        "quick": True,
        "json": False,
    }
    assert asked.items() <= seen[-1].items()
    run("train", "sample/depth/")
    assert seen[-1]["keys"] == ["teerapittayanon2016branchynet", "veit2018convolutional"]


def test_verdict_prints_a_table_one_paper_or_json(run, tmp_path, monkeypatch):
    code, out, _ = run("verdict")
    assert code == 0
    assert out.splitlines()[0].split() == ["paper", "task", "verdict", "cheaper", "harder", "realised"]
    assert any(line.startswith("FrameExit ") for line in out.splitlines())
    code, out, _ = run("verdict", "FrameExit", "--json")
    (row,) = json.loads(out)
    assert (code, row["key"], row["task"]) == (0, "ghodrati2021frameexit", "digit-video")
    assert [rule["rule"] for rule in row["rules"]] == ["cheaper", "harder", "realised"]
    code, out, _ = run("verdict", "frameexit")
    assert code == 0
    assert all(rule["why"] in out for rule in row["rules"])
    code, _, err = run("verdict", "FrameEx")
    assert code == 2
    assert "FrameExit" in err
    from dynnotes.learn import evidence

    monkeypatch.setattr(evidence, "folder", lambda: tmp_path)
    code, out, err = run("verdict", "FrameExit")
    assert code == 1
    assert "not measured" in out
    assert "no result in" in err
    (tmp_path / "ghodrati2021frameexit.json").write_text("{")
    code, _, err = run("verdict")
    assert code == 2
    assert "is not JSON" in err
    assert "Traceback" not in err


def test_verdict_needs_no_torch():
    script = "import sys; from dynnotes.cli import main; sys.exit(main(['verdict']) + 7 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    script = script.replace("import sys;", "import sys; sys.modules['scipy'] = None;")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "this needs scipy" in done.stderr
    assert "Traceback" not in done.stderr


def test_open_prefers_the_local_book(run, tmp_path, monkeypatch):
    from dynnotes.knowledge import index

    code, _, _ = run("open", "--print")
    assert code == 0
    root = tmp_path / "checkout"
    (root / "book").mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "notebooks" / "03-early-exits.ipynb").write_text("{}")
    html = root / "_build" / "html" / "notebooks" / "03-early-exits.html"
    (root / "bib").mkdir()
    (root / "bib" / "taxonomy.yml").write_bytes((ROOT / "bib" / "taxonomy.yml").read_bytes())
    monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "CHECKOUT", root / "bib")
    for name in ("early exits", "early-exits", "03-early-exits", "notebooks/03-early-exits.ipynb"):
        assert run("open", name, "--print")[1] == "https://dynnotes.github.io/dynnotes/notebooks/03-early-exits.html\n"
    html.parent.mkdir(parents=True)
    html.write_text("")
    assert run("open", "early exits", "--print")[1] == html.as_uri() + "\n"
    code, _, err = run("open", "early-exit", "--print")
    assert code == 2
    assert "did you mean early-exits" in err


def test_new_paper_writes_into_the_checkout_and_nowhere_else(run, tmp_path, monkeypatch):
    from dynnotes.knowledge import index

    for name in ("dynnotes", "tests", "bib"):
        (tmp_path / name).mkdir()
    for path in ROOT.joinpath("bib").rglob("*.*"):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "CHECKOUT", tmp_path / "bib")
    missing = next(p for p in dynnotes.load().papers(kind="method") if p.source is None)
    code, out, _ = run("new-paper", missing.key, "--json")
    assert code == 0
    files = [Path(f) for f in json.loads(out)]
    assert all(f.is_file() and f.is_relative_to(tmp_path) for f in files)
    code, _, err = run("new-paper", missing.key)
    assert code == 2
    assert "nothing was written" in err
