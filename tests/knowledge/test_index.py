"""The cache of the index: rebuilt when it must be, never believed when damaged, never in the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dynnotes
from dynnotes.knowledge import index
from dynnotes.knowledge.problems import BibliographyError

ROOT = Path(__file__).parents[2]
OLD = 1_500_000_000_000_000_000  # ns: long before the index was read, so size and time alone decide


@pytest.fixture
def builds(monkeypatch):
    """How often the .bib files were read."""
    count = []
    real = index.build
    monkeypatch.setattr(index, "build", lambda bib: count.append(bib) or real(bib))
    return count


@pytest.fixture
def one(bib, entry):
    file = bib.write("a.bib", entry("one"))
    for f in bib.path.rglob("*.*"):
        os.utime(f, ns=(OLD, OLD))
    assert [p.key for p in index.knowledge_base(bib.path)] == ["one"]
    return bib, file


def cached(bib) -> Path:
    (file,) = index.cache_dir().glob("*.json")
    return file


def test_read_once_then_cached(one, builds):
    bib, _ = one
    assert [p.key for p in index.knowledge_base(bib.path)] == ["one"]
    assert not builds


def test_a_touched_file_is_hashed_and_nothing_rebuilt(one, builds):
    bib, file = one
    os.utime(file, ns=(OLD + 5, OLD + 5))
    index.knowledge_base(bib.path)
    assert not builds
    stamps = {name: changed for name, _, changed in json.loads(cached(bib).read_text())["stamps"]}
    assert stamps["bib/a.bib"] == OLD + 5


@pytest.mark.parametrize("change", ["longer", "same size", "new file", "removed", "taxonomy"])
def test_any_change_rebuilds(one, entry, builds, change):
    bib, file = one
    bib.write("b.bib", entry("two")) if change == "new file" else None
    if change == "longer":
        bib.write("a.bib", entry("longer"))
    elif change == "same size":
        bib.write("a.bib", entry("two"))
        assert file.stat().st_size == len(entry("one"))
    elif change == "removed":
        file.unlink()
    elif change == "taxonomy":
        path = bib.path / "taxonomy.yml"
        path.write_text(path.read_text(encoding="utf-8").replace("Exits", "Ausgänge"), encoding="utf-8")
    kb = index.knowledge_base(bib.path)
    assert builds
    assert [p.key for p in kb] == {
        "longer": ["longer"],
        "same size": ["two"],
        "new file": ["one", "two"],
        "removed": [],
        "taxonomy": ["one"],
    }[change]
    assert kb.node("sample/depth/exits").label == ("Ausgänge" if change == "taxonomy" else "Exits")


def test_a_change_within_one_tick_of_the_clock_is_seen(bib, entry, builds):
    """Same size and same time, but changed right after the index was read: the hash decides."""
    file = bib.write("a.bib", entry("one"))
    before = file.stat().st_mtime_ns
    index.knowledge_base(bib.path)
    bib.write("a.bib", entry("two"))
    os.utime(file, ns=(before, before))
    assert [p.key for p in index.knowledge_base(bib.path)] == ["two"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b"[]",
        lambda b: b"null",
        lambda b: b"\xff\xfe\x00",
        lambda b: b.replace(b"dynnotes.index/1", b"dynnotes.index/9"),
        lambda b: b.replace(b'"names"', b'"nemas"'),
        lambda b: b'{"format":"dynnotes.index/1","papers":[],"taxonomy":{},"stamps":[],"digest":"","read":0}',
        lambda b: b"[" * 100_000,
    ],
)
def test_a_damaged_cache_is_rebuilt_silently(one, builds, capfd, damage):
    bib, _ = one
    file = cached(bib)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    assert [p.key for p in index.knowledge_base(bib.path)] == ["one"]
    assert len(builds) == 1
    assert capfd.readouterr() == ("", "")
    assert index.knowledge_base(bib.path)
    assert len(builds) == 1


@pytest.mark.parametrize("where", ["a file in the way", "no permission", "no home"])
def test_without_a_cache_everything_works_from_memory(bib, entry, monkeypatch, tmp_path, where):
    bib.write("a.bib", entry("one"))
    if where == "a file in the way":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "file" / "cache"))
    elif where == "no permission":  # root may write anywhere, so the refusal is simulated
        monkeypatch.setattr(index, "write_index", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    else:
        for name in ("DYNNOTES_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
        assert index.cache_dir() is None
    assert [p.key for p in index.knowledge_base(bib.path)] == ["one"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("DYNNOTES_CACHE", "/own")
    assert index.cache_dir() == Path("/own")
    monkeypatch.delenv("DYNNOTES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert index.cache_dir() == Path("/xdg/dynnotes")


def test_problems_leave_no_index_behind(one, builds):
    bib, _ = one
    before = cached(bib).read_bytes()
    bib.write("b.bib", "@article{broken, title = {}}")
    with pytest.raises(BibliographyError, match=r"bib/b\.bib:1: broken: .* missing"):
        index.knowledge_base(bib.path)
    assert cached(bib).read_bytes() == before
    with pytest.raises(BibliographyError):
        dynnotes.load(bib.path)


def test_a_write_that_breaks_off_leaves_the_old_file(one, monkeypatch):
    bib, _ = one
    before = cached(bib).read_bytes()

    def disk_full(handle):
        os.truncate(handle, 17)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        index.write_index(cached(bib), index.build(bib.path))
    assert cached(bib).read_bytes() == before
    assert [f.name for f in index.cache_dir().iterdir()] == [cached(bib).name]


def test_two_processes_at_once(one):
    """Readers and writers race over one cache file; each must see a whole bibliography."""
    bib, _ = one
    code = (
        "import sys, pathlib, dynnotes.knowledge.index as i\n"
        "bib = pathlib.Path(sys.argv[1])\n"
        "for n in range(40):\n"
        "    i.write_index(i._cache_path(bib), i.build(bib)) if n % 2 else None\n"
        "    assert [p.key for p in i.knowledge_base(bib)] == ['one']\n"
        "    assert i._read(i._cache_path(bib)) is not None, 'a torn file was seen'\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(bib.path)], env=env, stderr=subprocess.PIPE) for _ in "ab"
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error.decode()
    assert [f.name for f in index.cache_dir().iterdir()] == [cached(bib).name]


def test_load_gives_one_object_until_a_file_changes(one, entry):
    bib, _ = one
    first = dynnotes.load(bib.path)
    assert dynnotes.load(str(bib.path)) is first
    bib.write("b.bib", entry("two"))
    second = dynnotes.load(bib.path)
    assert [p.key for p in second] == ["one", "two"]
    assert dynnotes.load() is not second


def test_load_of_a_folder_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"taxonomy\.yml"):
        dynnotes.load(tmp_path / "nothing")


def test_a_bundled_index_names_no_time_and_no_place(bib, entry, tmp_path):
    bib.write("a.bib", entry("one"))
    index.bundle(bib.path, tmp_path / "w" / "index.json")
    first = (tmp_path / "w" / "index.json").read_bytes()
    os.utime(bib.path / "a.bib", ns=(OLD, OLD))
    index.bundle(bib.path, tmp_path / "w" / "index.json")
    assert (tmp_path / "w" / "index.json").read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert [p.key for p in index._read(tmp_path / "w" / "index.json")[1]] == ["one"]


@pytest.mark.parametrize("use", ["dynnotes.__version__", "dynnotes.load()['BranchyNet'].source"])
def test_importing_dynnotes_is_light(use):
    heavy = {"torch", "numpy", "networkx", "yaml", "pylatexenc", "plotly"}
    code = f"import sys, dynnotes; {use}; print(*({heavy!r} & set(sys.modules)))"
    for _ in range(2):  # the first may have to read the .bib files
        out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
