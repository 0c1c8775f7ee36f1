"""Records of their own: read with lines, checked, part of the graph; and the real ones, every kind filled."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dynnotes
from dynnotes import cli
from dynnotes.knowledge import index
from dynnotes.knowledge.query import UnknownName, UnknownWord
from dynnotes.knowledge.records import acronym, same
from dynnotes.show import records as shown

from .conftest import TAXONOMY

KINDS = "records: {person: p, lab: a group, conference: c, event: e}\n"
PEOPLE = """\
- id: serge
  kind: person
  name: Serge Belongie
  about: Writes papers.
  papers: [two, one]
  at: [cornell]
  source: homepage
  status: checked
- {id: cornell, kind: lab, name: Cornell <b>, zh: 康奈尔, about: A lab., source: homepage, status: checked}
- {id: late, kind: event, name: Late, about: It happened., year: 2020, papers: [two], source: paper, status: checked}
- {id: early, kind: event, name: Early, about: It happened., year: 1999, source: paper, status: "unconfirmed: when"}
- {id: eccv, kind: conference, name: ECCV, about: A conference., source: venues, status: checked}
"""


@pytest.fixture
def people(bib, entry):
    bib.write("taxonomy.yml", TAXONOMY + KINDS)
    bib.write(
        "a.bib",
        entry("one", booktitle="European Conference (ECCV)")
        + entry("two", booktitle="European Conference (ECCV) Workshops")
        + entry("three", author="Bengio, Yoshua", booktitle="A Conference (ICCV-ECCV)"),
    )
    bib.write("records/people.yml", PEOPLE)
    return bib


def test_records_answer_by_kind_and_by_id(people):
    kb = people.read()
    assert [r.id for r in kb.records()] == ["serge", "cornell", "eccv", "early", "late"], "kinds as in the taxonomy"
    assert [r.id for r in kb.records("event")] == ["early", "late"], "oldest first"
    assert kb.record("cornell").zh == "康奈尔"
    assert (kb.record("late").year, kb.record("cornell").year) == (2020, 0)
    assert (kb.record("serge").file, kb.record("serge").line) == ("bib/records/people.yml", 1)
    assert kb.record_kinds["lab"] == "a group"
    with pytest.raises(UnknownWord, match="person"):
        kb.records("persn")
    with pytest.raises(UnknownName, match="cornell"):
        kb.record("cornel")


def test_papers_are_those_named_and_of_a_conference_those_that_appeared_there(people):
    kb = people.read()
    assert [p.key for p in kb.papers_of(kb.record("serge"))] == ["two", "one"]
    assert {p.key for p in kb.papers_of(kb.record("eccv"))} == {"one", "three"}, "a workshop is not the conference"
    assert kb.papers_of(kb.record("cornell")) == []


def test_acronyms():
    assert acronym("Conference on Empirical Methods (EMNLP-IJCNLP)") == ["emnlp", "ijcnlp"]
    assert acronym("USENIX Annual Technical Conference (USENIX ATC)") == ["usenix", "atc"]
    assert acronym("Conference (CVPR) Workshops") == []
    assert acronym("") == []


def test_the_graph_holds_records_beside_papers(people):
    net = people.read().graph()
    assert net.nodes["serge"]["kind"] == "person"
    assert net.nodes["cornell"]["name"] == "Cornell <b>"
    assert {(a, b) for a, b, key in net.edges(keys=True) if key == "papers"} == {
        ("serge", "one"), ("serge", "two"), ("late", "two"), ("eccv", "one"), ("eccv", "three")}  # fmt: skip
    assert [(a, b) for a, b, key in net.edges(keys=True) if key == "at"] == [("serge", "cornell")]
    assert net.edges["serge", "one", "papers"]["where"] == "homepage"


def test_without_records_nothing_changes(bib, entry):
    bib.write("a.bib", entry("one"))
    kb = bib.read()
    assert kb.records() == []
    assert list(kb.graph()) == ["one"]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("  kind: person\n", "  kind: persn\n", 2, ["serge: unknown kind 'persn'", "did you mean 'person'?"]),
        ("  about: Writes", "  abot: Writes", 4, ["unknown field 'abot'", "did you mean 'about'?"]),
        ("  about: Writes papers.\n", "", 1, ["serge: about missing", "add the field"]),
        ("  source: homepage\n  status: checked\n", "", 1, ["serge: source, status missing", "add the fields"]),
        ("  source: homepage\n", "  source:\n", 7, ["'source' of a record has no text"]),
        ("papers: [two, one]", "papers: [two, on]", 5, ["serge: unknown key 'on'", "did you mean 'one'?"]),
        ("papers: [two, one]", "papers: two", 5, ["'papers' of a record is not a list", "write `papers: [one, two]`"]),
        ("papers: [two, one]", "papers: [two, two]", 5, ["'two' stands twice in papers"]),
        ("papers: [two, one]", "papers: [three]", 5, ["three does not name Serge Belongie", "spell the name"]),
        ("at: [cornell]", "at: [cornel]", 6, ["serge: unknown record 'cornel'", "did you mean 'cornell'?"]),
        ("at: [cornell]", "at: [serge]", 6, ["'serge' is at itself"]),
        ("status: checked\n- {id: cornell", "status: seen\n- {id: cornell", 8, ["status 'seen' is neither"]),
        ("id: cornell", "id: serge", 9, ["id 'serge' is already taken (bib/records/people.yml:1)"]),
        ("id: cornell", "id: one", 9, ["id 'one' is already taken (bib/a.bib:1)"]),
        ("id: cornell", "id: Cor_nell", 9, ["bad id 'Cor_nell'", "lower-case"]),
        ("event, name: Late", "event, name: early", 11, ["name 'Early' is already taken"]),
        ("year: 2020", "year: 20", 10, ["late: year '20' is not a year", "four digits"]),
        ("year: 2020, ", "", 10, ["late: year missing"]),
        ("zh: 康奈尔", "url: cornell.edu", 9, ["url 'cornell.edu' is not a web address", "https://"]),
        ("- id: serge", "- {", 1, ["not YAML"]),
        ("- id: serge", "- just a word\n- id: serge", 1, ["a record is not a mapping"]),
    ],
)  # fmt: skip
def test_faults(people, old, new, line, words):
    assert PEOPLE.count(old) == 1
    people.write("records/people.yml", PEOPLE.replace(old, new))
    problems = people.problems()
    found = [p for p in problems if all(word in p for word in words)]
    assert found, problems
    if words != ["not YAML"]:
        assert found[0].startswith(f"bib/records/people.yml:{line}: "), found


def test_a_kind_is_known_to_the_taxonomy(people):
    people.write("taxonomy.yml", TAXONOMY)
    assert len([p for p in people.problems() if "unknown kind" in p]) == 5


def test_one_fault_brings_no_others(people):
    """A broken file or entry hides ids and keys; those who name them are not to blame."""
    people.write("records/labs.yml", "- {")
    people.write("records/people.yml", PEOPLE.replace("at: [cornell]", "at: [elsewhere]"))
    assert len(people.problems()) == 1
    people.write("records/labs.yml", "")
    people.write("records/people.yml", PEOPLE)
    people.write("a.bib", (people.path / "a.bib").read_text(encoding="utf-8").replace("ECCV) Workshops}", "ECCV) Wor"))
    assert not [p for p in people.problems() if "records" in p]


@pytest.mark.parametrize(
    "text", ["just text", "\tx: 1", "- [", "- {}", "- {id: [a]}", "- {? {a: b} : c}", "x: *y", "- - -", "- 1"]
)
def test_nonsense_is_a_problem_not_a_crash(people, text):
    people.write("records/more.yml", text)
    assert any(p.startswith("bib/records/more.yml:") for p in people.problems())


@given(st.lists(st.dictionaries(st.sampled_from(["id", "kind", "papers", "at", "year", "url"]), st.text(max_size=9))))
def test_no_file_breaks_the_reader(rows):
    import tempfile
    from pathlib import Path

    from dynnotes.knowledge.records import read_records

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bib" / "records" / "any.yml"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(rows), encoding="utf-8")
        problems = []
        read_records(file.parent.parent, [], set(), {"person": "p"}, problems)
        assert problems or not rows


@pytest.mark.parametrize(
    ("person", "author", "answer"),
    [
        ("Geoffrey Hinton", ["Hinton", "Geoffrey E."], True),
        ("Geoffrey Hinton", ["Hinton", "G."], True),
        ("Tomasz Trzcinski", ["Trzciński", "Tomasz"], True),
        ("Laurens van der Maaten", ["van der Maaten", "Laurens"], True),
        ("Yulin Wang", ["Wang", "Yunhe"], False),
        ("Shiji Song", ["Song", "Sen"], False),
        ("Kai Han", ["Chan", "Kai"], False),
        ("Kai Chan", ["Han", "Kai"], False),
        ("DeepSeek-AI", ["DeepSeek-AI"], True),
    ],
)
def test_names_are_compared_loosely(person, author, answer):
    assert same(person, author) is answer


def test_a_changed_record_rebuilds_the_index(people):
    assert len(index.knowledge_base(people.path).records("lab")) == 1
    people.write("records/people.yml", PEOPLE.replace("Cornell <b>", "Cornell <i>"))
    assert index.knowledge_base(people.path).record("cornell").name == "Cornell <i>"


def test_the_command(people, capsys):
    bib = ["--bib", str(people.path), "records"]
    assert cli.main([*bib, "person"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "person: p",
        "  Serge Belongie: Writes papers.",
        "    at: Cornell <b>",
        "    papers: Net-two, Net-one",
    ]
    assert cli.main([*bib, "event"]) == 0
    out = capsys.readouterr().out
    assert out.index("Early (1999)") < out.index("Late (2020)")
    assert "status: unconfirmed: when" in out
    assert cli.main([*bib, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {r["id"]: r["papers"] for r in rows}["eccv"] == ["one", "three"]
    assert cli.main([*bib, "persn"]) == 2
    assert "did you mean 'person'?" in capsys.readouterr().err


def test_nothing_of_a_kind(bib, entry, capsys):
    bib.write("taxonomy.yml", TAXONOMY + KINDS)
    bib.write("a.bib", entry("one"))
    assert cli.main(["--bib", str(bib.path), "records", "lab"]) == 1
    assert "no record" in capsys.readouterr().err


def test_the_page_escapes_what_it_shows(people):
    kb = people.read()
    labs = shown.records(kb, "lab")
    assert "Cornell &lt;b&gt;" in labs
    assert '<span lang="zh">康奈尔</span>' in labs
    person = shown.records(kb, "person")
    assert 'href="#record-cornell"' in person
    assert 'id="record-cornell"' in labs
    assert 'href="../papers/two.html"' in person
    assert "<summary>2 papers</summary>" in shown.records(kb, "conference"), "counted, not typed"
    events = shown.records(kb, "event")
    assert events.index("1999") < events.index("2020")
    assert "unconfirmed: when" in events


# ---------------------------------------------------------------- the records themselves

KB = dynnotes.load()
FOUNDING = ("book", "person", "lab", "course", "conference", "company", "event", "system", "compiler", "accelerator")


@pytest.mark.parametrize("kind", [*FOUNDING, "workshop"])
def test_every_heading_of_the_founding_list_is_filled(kind):
    assert len(KB.records(kind)) >= 8


def test_every_person_has_papers_that_name_them():
    for person in KB.records("person"):
        papers = KB.papers_of(person)
        assert papers, person.id
        assert all(any(same(person.name, list(n)) for n in p.names) for p in papers), person.id


def test_who_wrote_most_is_not_forgotten():
    """Those with five papers or more, but for a name that may be several people."""
    count = Counter(author for p in KB for author in p.authors)
    many = {author for author, papers in count.items() if papers >= 5}
    assert many - {r.name for r in KB.records("person")} == {"Yi Yang"}


def test_every_conference_had_papers_and_the_largest_are_there():
    """Conferences where four or more papers of the literature appeared."""
    ids = {r.id for r in KB.records("conference")}
    count = Counter(name for p in KB for name in acronym(p.venue))
    assert {name for name, papers in count.items() if papers >= 4} <= ids
    assert all(count[i] for i in ids)


def test_summaries_are_sentences_and_no_two_alike():
    about = [r.about for r in KB.records()]
    assert len(set(about)) == len(about)
    assert all(a.endswith(".") and 3 <= len(a.split()) <= 40 for a in about)


def test_every_record_of_a_runtime_or_chip_leads_somewhere():
    for kind in ("system", "compiler", "accelerator"):
        assert all(r.url or r.papers for r in KB.records(kind))
