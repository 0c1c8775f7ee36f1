"""Hostile and broken BibTeX: the thousand that run each time (`python -m tests.knowledge.fuzz` runs more)."""

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import dynnotes
from dynnotes.knowledge.bibtex import LONGEST, BadValue, Source

from . import fuzz


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "none")
    monkeypatch.delenv("DYNNOTES_CACHE", raising=False)
    (tmp_path / "bib").mkdir()
    (tmp_path / "bib" / "taxonomy.yml").write_bytes((fuzz.BIB / "taxonomy.yml").read_bytes())
    return tmp_path


@pytest.mark.slow
def test_a_thousand_damaged_libraries(folder):
    kb = dynnotes.load()
    taken = [fuzz.check(number, folder, kb) for number in range(1_000_000, 1_001_000)]
    assert {"problems", "clean"} <= set(taken)
    assert taken.count("nothing") < 200


PIECE = st.sampled_from(fuzz.PIECES).map(str.encode)
ANY = st.lists(st.one_of(PIECE, st.sampled_from(fuzz.BYTES), st.binary(max_size=9)))


@given(ANY.map(b"".join))
@example(b"")
@example(b"@")
@example(b"@a{")
@example(b"@a{b,c=d}")
@example(b'@a(b, c = "{)}" # {(})')
@settings(deadline=None, max_examples=1000)
def test_any_bytes_are_read_or_refused(data):
    fuzz.read(data)


PLAIN = st.text(st.characters(exclude_characters='{}"@#\0\r', codec="utf-8"), max_size=6)
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3).map(lambda p: "{" + "".join(p) + "}"))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), NESTED, max_size=6), st.sampled_from("{("))
@settings(deadline=None)
def test_every_value_comes_back_as_written(values, opening):
    """Balanced braces of any depth, in braces and in quotes."""
    body = ",\n".join(f"  {name} = {{{text}}}" for name, text in values.items())
    quoted = ",\n".join(f'  {name} = "{text}"' for name, text in values.items())
    closing = {"{": "}", "(": ")"}[opening]
    source = Source(f"@misc{opening}one,\n{body}\n{closing}\n@misc{{two,\n{quoted}\n}}".encode(), "x")
    for entry in source.entries():
        assert {name: entry.text(name) for name in entry.fields} == values
    assert not source.problems


def test_definitions_that_double_each_other_stop():
    text = "@string{a = {0123456789}}\n" + "@string{a = a # a}\n" * 60 + "@misc{x, title = a}\n"
    source = Source(text.encode(), "x")
    (entry,) = source.entries()
    assert len(entry.text("title")) <= LONGEST
    assert any("longer than" in p.what for p in source.problems)


def test_an_undefined_or_circular_string_is_named():
    source = Source(b"@string{a = b}\n@string{b = a}\n@misc{x,\n title = c}", "x")
    (entry,) = source.entries()
    assert [(p.line, p.what) for p in source.problems] == [(1, "@string a: 'b' is no @string")]
    with pytest.raises(BadValue, match="'c' is no @string"):
        entry.text("title")


def test_a_string_holds_from_its_definition_on():
    source = Source(b"@string{v={1}} @misc{x, t=v} @string{v={2}} @misc{y, t=v}", "x")
    assert [e.text("t") for e in source.entries()] == ["1", "2"]


HUGE = {  # the reader must get through ten megabytes of each; a reader that goes back again and again never would
    "one value": "b'@misc{x, title = {' + b'a {b} ' * 1_700_000 + b'}}'",
    "deep": "b'@misc{x, title = ' + b'{' * 5_000_000 + b'}' * 5_000_000 + b'}'",
    "never closed": "b'@misc{x, title = {a' * 500_000",
    "never closed, lines": "b'@misc{x, title = {a\\n' * 500_000",
    "comments never closed": "b'@comment{\\n' * 900_000",
    "quotes never closed": "b'@misc{x, title = \"a\\n' * 500_000",
    "one entry, many fields": "b'@misc{x' + b', f = {v}' * 1_100_000 + b'}'",
    "no commas": "b'@misc{x, ' + b'f = {v} ' * 1_200_000 + b'}'",
    "many strings": "b'@string{a = {b}}\\n' * 600_000 + b'@misc{x, t = a}'",
    "joined": "b'@misc{x, t = {a}' + b' # {a}' * 1_600_000 + b'}'",
    "equals signs": "b'@misc{x' + b'=' * 10_000_000",
    "at signs": "b'@' * 10_000_000",
    "spaces": "b'@misc{x,' + b' ' * 10_000_000",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", HUGE)
def test_ten_megabytes_of_one_thing(what):
    """In a process of its own with two minutes, which only a hang uses up (each takes a few seconds)."""
    code = f"""if True:
        from dynnotes.knowledge.bibtex import Source
        source = Source({HUGE[what]}, "x")
        entries = list(source.entries())
        for e in entries[:10]:
            [e.text(name) for name in e.fields]
        print(len(source.data), len(entries), len(source.problems))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not done.stderr
    size, entries, problems = map(int, done.stdout.split())
    assert size >= 9_000_000
    assert entries + problems > 0 or what == "at signs"
