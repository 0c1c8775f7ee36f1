"""BibTeX out and in again gives the same paper, whatever its text."""

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dynnotes.knowledge.bibtex import Source
from dynnotes.knowledge.check import _record
from dynnotes.knowledge.latex import LatexError, decode, encode, squeeze
from dynnotes.knowledge.names import format_names, parse_names
from dynnotes.knowledge.query import Paper, Relation
from dynnotes.knowledge.schema import VENUE
from dynnotes.knowledge.taxonomy import read_taxonomy

CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\0")
NASTY = st.sampled_from(list("\\{}$%&#_^~-–—`'\"!?,;:@=<>|/ ") + ["--", "---", "``", "''", "?`", " and ", "\\'e", "~2"])
TEXT = st.lists(st.one_of(st.text(CHARACTERS, max_size=4), NASTY), max_size=12).map("".join).map(squeeze)
SOME = TEXT.filter(bool)
PART = SOME.filter(lambda t: t.casefold() not in ("and", "others"))
NAME = st.one_of(st.tuples(PART), st.tuples(PART, PART), st.tuples(PART, PART, PART))
ONE_VALUE = SOME.filter(lambda t: ";" not in t)


@given(TEXT)
@example("a--b---c ``q'' ?` {x} \\textbackslash $5 100% ~2x –-— A&B #1 ^ _")
@settings(deadline=None)
def test_text_survives_latex(text):
    assert decode(encode(text)) == text
    assert decode("{" + encode(text) + "}") == text


@given(
    st.lists(
        st.one_of(NASTY, st.text(CHARACTERS, max_size=3), st.sampled_from(["\\emph", "\\begin", "{x}"])), max_size=9
    )
)
@settings(deadline=None)
def test_any_text_decodes_or_says_why_not(pieces):
    try:
        text = decode("".join(pieces))
    except LatexError:  # anything else would be a crash
        return
    assert decode(encode(text)) == text


@given(st.lists(NAME, min_size=1, max_size=4).map(tuple))
@example((("\\AND",), ("a and",), ("and b", "and")))
@example((("Google and Co, Inc.",), ("van der Maaten", "Laurens"), ("King", "Jr.", "Martin Luther"), ("{", "}")))
@settings(deadline=None)
def test_names_survive(names):
    assert parse_names(format_names(names)) == names


TREE = """\
facets: {kind: {method: m}, adapts: {input: i, place: p}, unit: {layer: l, exit: e}, decision: {gating: g},
  training: {soft: s}, executes: {gpu: g, cpu: c}, modality: {image: i, text: t}, tasks: {classification: c}}
relations: {extends: e, survey-of: s}
lists: {materials: m, survey-list: s}
nodes: [{id: a, label: A, zh: A, about: a}, {id: a/b, label: A, zh: A, about: a},
  {id: a/b/c, label: A, zh: A, about: a}]
"""
KEY = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)
some = lambda *words: st.lists(st.sampled_from(words), unique=True, min_size=1).map(tuple)
LINK = st.sampled_from(["", "https://x.org/a_b~c?d=%20&e#f", "http://y.org"])
PAPERS = st.builds(
    Paper,
    key=KEY,
    type=st.sampled_from(sorted(VENUE)),
    title=SOME,
    names=st.lists(NAME, min_size=1, max_size=3).map(tuple),
    year=st.integers(1900, 2099),
    method=SOME,
    venue=SOME,
    eprint=st.sampled_from(["", "1711.11503", "cs/0112017"]),
    doi=st.sampled_from(["", "10.1109/5.72_67<91>;2-3"]),
    url=LINK,
    code=LINK,
    kind=st.just("method"),
    aka=st.lists(ONE_VALUE, unique=True, max_size=3).map(tuple),
    taxon=st.just("a/b"),
    leaf=st.sampled_from(["", "c"]),
    also=st.sampled_from([(), ("a",), ("a", "a/b/c")]),
    adapts=some("input", "place"),
    unit=some("layer", "exit"),
    decision=some("gating"),
    training=some("soft"),
    executes=some("gpu", "cpu"),
    tasks=some("classification"),
    modality=some("image", "text"),
    tldr=SOME,
    headline=TEXT,
    lists=st.sampled_from([(), ("materials", "survey-list")]),
    status=st.one_of(st.just("checked"), SOME.map("unconfirmed: ".__add__)),
    relations=st.lists(
        st.builds(Relation, st.sampled_from(["extends", "survey-of"]), KEY, ONE_VALUE),
        max_size=3,
        unique_by=lambda r: (r.kind, r.target),
    ).map(lambda rs: tuple(sorted(rs, key=lambda r: r.kind))),
    extra=st.dictionaries(st.sampled_from(["pages", "note", "volume"]), SOME).map(lambda d: tuple(d.items())),
)


@given(PAPERS)
@example(
    Paper(
        "a",
        "misc",
        "T",
        (("A",),),
        2000,
        "M",
        tldr="t",
        kind="method",
        taxon="a",
        status="checked",
        adapts=("input",),
        unit=("layer",),
        decision=("gating",),
        training=("soft",),
        executes=("gpu",),
        modality=("image",),
        relations=(Relation("extends", "b--c_d", "eqs. 1–2"),),
    )
)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_reading_a_full_entry_gives_the_same_paper(paper):
    taxonomy, wrong = read_taxonomy(TREE, "t.yml")
    source = Source(("% before\n" + paper.bibtex(full=True) + paper.bibtex()).encode(), "x.bib")
    entries, problems = list(source.entries()), []
    assert not wrong + source.problems
    assert not source.broken
    again = Paper.from_record(_record(entries[0], taxonomy, problems))
    assert again == paper
    assert (again.file, again.line) == ("x.bib", 2)
    assert not problems


def test_every_paper_of_the_bibliography_survives(bib):
    """The real entries, written in full and read as a bibliography of their own, are the same papers."""
    import dynnotes
    from dynnotes.knowledge import index

    kb = dynnotes.load()
    bib.write("taxonomy.yml", (index.CHECKOUT / "taxonomy.yml").read_bytes())
    bib.write("all.bib", "\n".join(p.bibtex(full=True) for p in kb.entries))
    assert set(bib.read().entries) == set(kb.entries)
    assert len(kb) > 100


def test_publishable_entries_carry_facets_as_keywords_and_nothing_private(bib, entry):
    bib.write(
        "a.bib", entry("one", title="A {BranchyNet} for 50\\% & all", unit="layer; exit", keywords="mine, unit:old")
    )
    text = bib.read()["one"].bibtex()
    assert text.startswith("@inproceedings{one,\n  title = {A {BranchyNet} for 50\\% \\& all},\n")
    assert "unit:layer, unit:exit" in text
    assert text.count("mine") == 1
    assert "unit:old" not in text
    assert not re.search(r"^  (tldr|taxon|decision|status|method) =", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Veit, Andreas and Belongie, Serge", ["Andreas Veit", "Serge Belongie"]),
        ("Laurens van der Maaten", ["Laurens van der Maaten"]),
        ("{Google Research} and others", ["Google Research", "others"]),
        ("{Barnes and Noble, Inc.}", ["Barnes and Noble, Inc."]),
        ("King, Jr., Martin Luther", ["Martin Luther King Jr."]),
        ("{\\L}ukasz Kaiser AND Fern{\\'a}ndez, Jos{\\'e}", ["Łukasz Kaiser", "José Fernández"]),
        ("Ferdinand Andrew", ["Ferdinand Andrew"]),
        ("Aristotle", ["Aristotle"]),
    ],
)
def test_names_of_the_wild(text, names):
    from dynnotes.knowledge.names import display

    assert [display(n) for n in parse_names(text)] == names


def test_van_is_part_of_the_last_name():
    assert parse_names("Laurens van der Maaten") == (("van der Maaten", "Laurens"),)


@pytest.mark.parametrize("text", ["\\nosuchcommand x", "{a", "a}", "$a"])
def test_unreadable_latex_raises(text):
    with pytest.raises(LatexError):
        decode(text)
