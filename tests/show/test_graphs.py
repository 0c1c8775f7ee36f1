"""Lineage, timeline and gaps as data and plain HTML: places worked out by hand, and text that stays text."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dynnotes
from dynnotes import cli
from dynnotes.knowledge.lineage import children, parents, tree
from dynnotes.knowledge.query import KnowledgeBase
from dynnotes.show import graphs, pages

KB = dynnotes.load()
EVIL = '</script><script>x</script> ``` <img src=x onerror="x"> & \x07 ]]> \n'
FACETS = {"unit": ("layer", "exit"), "decision": ("gating", "policy"), "training": ("soft", "none"),
          "executes": ("gpu", "cpu", "unknown")}  # fmt: skip
TAXONOMY = {
    "facets": {facet: {word: f"about {word}" for word in words} for facet, words in FACETS.items()},
    "relations": {"extends": "e", "improves": "i", "compares": "c"},
    "lists": {},
    "nodes": [{"id": id, "label": id.title(), "zh": "", "about": ""} for id in ("sample", "sample/depth", "spatial")],
}


def paper(key, year, *relations, **fields):
    record = {"key": key, "type": "inproceedings", "title": f"The paper {key}", "names": [("Doe", "Jane")],
              "year": year, "method": key.upper(), "kind": "method", "taxon": "sample/depth", "unit": ["layer"],
              "decision": ["gating"], "training": ["soft"], "executes": ["gpu"]}  # fmt: skip
    many = dict.fromkeys(("aka", "also", "adapts", "tasks", "modality", "lists", "extra"), ())
    return many | record | {"relations": relations} | fields


def base(*papers):
    return KnowledgeBase({"taxonomy": TAXONOMY, "papers": papers})


@pytest.fixture
def kb():
    """root <- old <- young; root <- mid <- young; `far` stands alone, `peer` builds on mid in mid's own year."""
    return base(
        paper("root", 2010, kind="background", url="https://example.org/root"),
        paper("old", 2015, ("extends", "root", "sec. 1"), venue="IEEE Conference on Things (CVPR)", unit=["exit"]),
        paper("mid", 2016, ("improves", "root", "sec. 2"), venue="CVPR", decision=["gating", "policy"]),
        paper("peer", 2016, ("extends", "mid", "eq. 3"), venue="Neural Computation", type="article", taxon="spatial"),
        paper("young", 2018, ("extends", "old", "sec. 4"), ("extends", "mid", "sec. 5"), ("compares", "root", "t. 1"),
              venue="CVPR Workshops", executes=["unknown"]),
        paper("far", 2018, venue="", eprint="1801.00001", training=["none"]),
    )  # fmt: skip


class Text(HTMLParser):
    """Tags and text of a piece of HTML; `depth` of lists around each piece of text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.rows, self._depth = [], [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._depth += tag == "ul"
        if tag == "a":
            self.links.append(dict(attrs)["href"])
            self.rows.append([self._depth, ""])

    def handle_endtag(self, tag):
        self._depth -= tag == "ul"

    def handle_data(self, data):
        if self.rows and not self.rows[-1][1]:
            self.rows[-1][1] = data


def data_of(html):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])


# ---------------------------------------------------------------- layout


def test_a_chain_runs_level():
    places = graphs.layout({"a": 2000, "b": 2001, "c": 2005}, [("b", "a"), ("c", "b")])
    assert places == {("a", 2000): 1, ("b", 2001): 1, ("c", 2005): 1}


def test_a_long_line_gets_a_track_of_its_own_beside_the_box_it_passes():
    places = graphs.layout({"a": 2000, "b": 2001, "c": 2002}, [("b", "a"), ("c", "a")])
    assert set(places) == {("a", 2000), ("b", 2001), ("c", 2002), ("a", 2001)}
    assert abs(places["a", 2001] - places["b", 2001]) == 2  # half a box and half a track


def test_two_families_do_not_cross_though_their_names_interleave():
    years = {"a": 2000, "b": 2000, "c": 2001, "d": 2001, "e": 2001, "f": 2001}
    edges = [("c", "b"), ("e", "b"), ("d", "a"), ("f", "a")]
    line = {key: at for (key, _), at in graphs.layout(years, edges).items()}
    assert not any((line[a] - line[c]) * (line[b] - line[d]) < 0 for (a, b), (c, d) in combinations(edges, 2))


@given(st.data())
def test_nothing_overlaps_and_every_line_has_its_way(data):
    keys = [f"p{i}" for i in range(data.draw(st.integers(1, 10)))]
    years = {key: data.draw(st.integers(2000, 2005)) for key in keys}
    edges = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(keys)).filter(lambda e: e[0] != e[1])))
    places = graphs.layout(years, edges)
    size = {at: 3 if years[at[0]] == at[1] else 1 for at in places}
    for a, b in combinations(places, 2):
        assert a[1] != b[1] or abs(places[a] - places[b]) >= (size[a] + size[b]) // 2, (a, b)
    columns = sorted(set(years.values()))
    for a, b in edges:
        older, newer = sorted((a, b), key=lambda key: (years[key], key))
        assert all((older, year) in places for year in columns if years[older] <= year < years[newer])
    assert min(places[at] - size[at] // 2 for at in places) == 0, "the picture starts at its first line"
    assert places == graphs.layout(dict(reversed(years.items())), edges[::-1]), "the order of the input shows"


def test_the_sweeps_shorten_the_lines_of_the_literature():
    """Against papers stacked by name, the lines of descent become less than half as long."""
    papers = {p.key: p for p in KB.entries}
    edges = [(p.key, key) for p in KB.entries for key in parents(p)]
    years = {key: papers[key].year for edge in edges for key in edge}
    stacked = {}
    for key in sorted(years):
        stacked[key] = sum(years[k] == years[key] for k in stacked) * 3
    line = graphs.layout(years, edges)
    before = sum(abs(stacked[a] - stacked[b]) for a, b in edges)
    after = sum(abs(line[a, years[a]] - line[b, years[b]]) for a, b in edges)
    assert after < before / 2


# ---------------------------------------------------------------- lineage


def test_lineage_data(kb):
    found = graphs.lineage_data(kb)
    assert [p["key"] for p in found["papers"]] == ["root", "old", "mid", "peer", "young"]  # `far` has no relation
    root, old, _, peer, _ = found["papers"]
    assert (root["static"], root["url"], old["url"]) == (True, "https://example.org/root", "../papers/old.html")
    assert (peer["root"], old["root"]) == ("spatial", "sample")
    assert {(e["from"], e["to"], e["kind"], e["where"]) for e in found["edges"]} == {
        (1, 0, "extends", "sec. 1"), (2, 0, "improves", "sec. 2"), (3, 2, "extends", "eq. 3"),
        (4, 1, "extends", "sec. 4"), (4, 2, "extends", "sec. 5"), (4, 0, "compares", "t. 1")}  # fmt: skip
    assert set(root["lines"][0]) == {2010, 2015}  # descent: past old's column to mid
    assert set(root["lines"][1]) == {2010, 2015, 2016}  # with the comparison also past mid's to young
    assert set(found["kinds"]) == {"extends", "improves", "compares"}
    found = graphs.lineage_data(KB)
    years = [p["year"] for p in found["papers"]]
    assert all(years[e["from"]] >= years[e["to"]] for e in found["edges"]), "a line goes forward in time"


def test_lineage_as_a_list_nests_what_was_built_on_what(kb):
    found = Text(graphs.lineage_list(kb))
    assert found.rows == [[1, "ROOT"], [2, "OLD"], [3, "YOUNG"], [2, "MID"], [3, "PEER"]]
    assert found.tags.count("ul") == 4
    assert "sec. 5" not in graphs.lineage_list(kb)  # young is shown where it is met first


def test_papers_that_build_on_each_other_are_listed_too():
    html = graphs.lineage_list(base(paper("a", 2020, ("extends", "b", "x")), paper("b", 2020, ("extends", "a", "y"))))
    assert Text(html).rows == [[1, "A"], [2, "B"]]


def test_every_paper_with_a_descent_is_on_the_plain_list_of_the_book():
    html = graphs.lineage_list(KB)
    for p in KB.entries:
        if parents(p) or children(KB, p.key):
            assert f">{pages.text(p.method)}</a> ({p.year})" in html, p.key
    assert html.count("<ul>") == html.count("</ul>")
    assert html.count("<li>") == html.count("</li>")


def test_the_figure_of_one_paper_holds_its_ancestors_and_descendants_and_no_others(kb):
    svg = ET.fromstring(graphs.lineage_svg(kb, "mid"))
    space = {"s": "http://www.w3.org/2000/svg"}
    boxes = {t.text: t for t in svg.findall(".//s:g/s:text", space)}
    assert set(boxes) == {"ROOT", "MID", "PEER", "YOUNG"}
    assert {p.find("s:title", space).text for p in svg.findall("s:path", space)} == {
        "MID improves ROOT: sec. 2", "PEER extends MID: eq. 3", "YOUNG extends MID: sec. 5"}  # fmt: skip
    assert [a.get("href") for a in svg.findall(".//s:a", space)] == [
        "https://example.org/root", "peer.html", "young.html"]  # fmt: skip
    assert "1 ancestor and 2 descendants" in svg.find("s:desc", space).text
    ids = {e.get("id") for e in svg.iter() if e.get("id")}
    assert set(svg.get("aria-labelledby").split()) == ids
    x = {name: float(t.get("x")) for name, t in boxes.items()}
    assert x["ROOT"] < x["MID"] == x["PEER"] < x["YOUNG"]


def test_no_figure_without_a_relation(kb):
    assert graphs.lineage_svg(kb, "far") == graphs.lineage_figure(kb, kb["far"]) == ""
    with pytest.raises(KeyError, match="no paper"):
        graphs.lineage_svg(kb, "nobody")


def test_figures_of_the_literature_are_xml_with_every_relative():
    drawn = 0
    for p in KB.entries:
        svg = graphs.lineage_svg(KB, p.key)
        relatives = {q.key for step in (lambda k: parents(KB[k]), lambda k: children(KB, k))
                     for _, q, _ in tree(KB, p.key, step)}  # fmt: skip
        assert bool(svg) == bool(relatives)
        if svg:
            drawn += 1
            boxes = ET.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}g")
            assert len(boxes) == 1 + len(relatives)
    assert drawn > 100


def test_the_command_writes_the_figure(kb, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dynnotes, "load", lambda bib=None: kb)
    file = tmp_path / "mid.svg"
    assert cli.main(["lineage", "MID", "--svg", str(file)]) == 0
    assert ET.fromstring(file.read_text(encoding="utf-8")).tag.endswith("svg")
    assert 'href="https://' in file.read_text(encoding="utf-8"), "outside the book a box leads to the public page"
    assert list(tmp_path.iterdir()) == [file]
    assert capsys.readouterr().out == f"{file}\n"
    assert cli.main(["lineage", "far", "--svg", str(tmp_path / "far.svg")]) == 1
    assert "FAR" in capsys.readouterr().err
    assert cli.main(["lineage", "mid", "--svg", str(tmp_path / "no" / "such.svg")]) == 2
    assert "make it first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_a_papers_page_shows_its_lineage(kb):
    assert "<svg" in graphs.lineage_figure(kb, kb["mid"])
    assert "../book/lineage.html?paper=mid" in graphs.lineage_figure(kb, kb["mid"])
    p = KB["ConvNet-AIG"]
    assert "<svg" in pages.paper_page(p, KB, lineage=graphs.lineage_figure(KB, p))


# ---------------------------------------------------------------- timeline


@pytest.mark.parametrize(("name", "type", "eprint", "row"), [
    ("IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)", "inproceedings", "", "CVPR"),
    ("CVPR", "inproceedings", "", "CVPR"), ("CVPR 2019", "inproceedings", "", "CVPR"),
    ("Conference on This and That (EMNLP-IJCNLP)", "inproceedings", "", "EMNLP"),
    ("Advances in Neural Information Processing Systems (NIPS)", "inproceedings", "", "NeurIPS"),
    ("IEEE Conference (CVPR) Workshops", "inproceedings", "", "Workshops"),
    ("International Conference (ICLR), Workshop Track", "inproceedings", "", "Workshops"),
    ("IEEE Transactions on Things", "article", "", "Journals"), ("arXiv preprint", "article", "1", "arXiv"),
    ("", "misc", "1234.5678", "arXiv"), ("", "misc", "", "Elsewhere"), ("A University", "phdthesis", "", "Elsewhere"),
    ("Some Conference", "inproceedings", "", "Other conferences"),
])  # fmt: skip
def test_venues_that_are_one_have_one_name(name, type, eprint, row):
    assert graphs.venue(base(paper("x", 2020, venue=name, type=type, eprint=eprint))["x"]) == row


def test_timeline_data(kb):
    found = graphs.timeline_data(kb)
    assert found["years"] == [2015, 2016, 2018]
    assert found["rows"] == ["CVPR", "Workshops", "Journals", "arXiv"]
    assert [(p["key"], p["row"]) for p in found["papers"]] == [
        ("old", "CVPR"), ("mid", "CVPR"), ("peer", "Journals"), ("far", "arXiv"), ("young", "Workshops")]  # fmt: skip
    assert [n["id"] for n in found["nodes"]] == ["sample", "sample/depth", "spatial"]


def test_only_the_largest_conferences_have_a_row_of_their_own():
    many = [paper(f"{c}{i}", 2020, venue=f"Conference ({c})") for n, c in enumerate("ABCDEFGHIJ") for i in range(n + 1)]
    assert graphs.timeline_data(base(*many))["rows"] == [*"JIHGFEDC", "Other conferences"]


def test_the_timeline_of_the_book_holds_every_paper_once():
    found = graphs.timeline_data(KB)
    assert sorted(p["key"] for p in found["papers"]) == sorted(p.key for p in KB)
    assert {p["row"] for p in found["papers"]} == set(found["rows"])
    assert all(p["year"] in found["years"] for p in found["papers"])


def test_timeline_as_a_table(kb):
    html = graphs.timeline(kb)
    assert Text(html).links == [f"../papers/{k}.html" for k in ("young", "far", "mid", "peer", "old")]
    assert '<th scope="row">2018</th><td></td><td><a href="../papers/young.html"' in html


def test_events_stand_on_the_timeline():
    event = {"id": "e1", "kind": "event", "name": "A <b>first</b>", "about": "It began.", "source": "s",
             "status": "checked", "zh": "", "url": "", "year": 2012, "papers": ["old"], "at": [], "file": "", "line": 0}
    records = [event, event | {"id": "p", "kind": "person"}, event | {"id": "undated", "year": 0},
               event | {"id": "e2", "papers": [], "url": "https://example.org/", "status": "unconfirmed: the month"}]
    kb = KnowledgeBase({"taxonomy": TAXONOMY, "papers": [paper("old", 2015)], "records": records})
    found = graphs.timeline_data(kb)
    assert found["events"] == [
        {"name": "A <b>first</b>", "about": "It began.", "year": 2012, "url": "../papers/old.html"},
        {"name": "A <b>first</b>", "about": "It began. Unconfirmed: the month.", "year": 2012,
         "url": "https://example.org/"}]  # fmt: skip
    assert found["years"] == [2012, 2015]
    assert "A &lt;b&gt;first" in graphs.timeline_table(found)


# ---------------------------------------------------------------- gaps


def test_gaps_in_a_sentence(kb):
    # on all four axes: old (exit gating soft gpu), mid (layer, gating and policy, soft gpu), peer (layer gating soft
    # gpu), far (layer gating none gpu); young says nothing of where it was faster. 2 x 2 x 2 x 1 = 8 combinations.
    said = graphs.gaps_sentence(kb)
    assert "(2 of unit, 2 of decision, 2 of training, 1 of executes) make 8 combinations" in said
    assert "4 hold no paper" in said
    assert "3 hold one, and the most crowded, layer × gating × soft × gpu, holds 2." in said
    assert "Of the 4 pairs of unit and decision alone, 1 are empty" in said
    assert graphs.gaps_sentence(base()) == '<p class="dyn-lead">No paper has a word on every axis.</p>'


def test_gaps_data_leaves_out_unknown_and_background(kb):
    found = graphs.gaps_data(kb)
    assert [p["method"] for p in found["papers"]] == ["OLD", "MID", "PEER", "FAR", "YOUNG"]
    assert found["papers"][-1]["words"]["executes"] == []
    assert {axis: list(words) for axis, words in found["axes"].items()} == {
        "unit": ["layer", "exit"], "decision": ["gating", "policy"], "training": ["soft", "none"],
        "executes": ["gpu"]}  # fmt: skip


def test_gaps_as_a_table(kb):
    html = graphs.gaps_table(kb)
    assert "unit=layer&amp;decision=gating" in html
    assert ">4 papers</a>, 0 empty inside" in html  # mid, peer, far and young; soft and none, both on a gpu
    assert ">1 paper</a>, 1 empty inside" in html
    assert html.count(">none</span>") == 1  # exit by policy


# ---------------------------------------------------------------- hostile text


def test_hostile_text_stays_text():
    evil = {"title": EVIL, "method": EVIL, "venue": EVIL, "tldr": EVIL}
    kb = base(paper("a", 2020, **evil), paper("b", 2021, ("extends", "a", EVIL), **evil))
    for html in (graphs.lineage_graph(kb), graphs.timeline(kb), graphs.gaps_map(kb)):
        assert html.count("<script") == 1
        assert EVIL.strip() in json.dumps(data_of(html), ensure_ascii=False).encode().decode("unicode_escape")
        assert not {"img", "b"} & set(Text(html).tags)
    svg = ET.fromstring(graphs.lineage_svg(kb, "a"))  # raises unless it is XML
    assert {e.tag.rpartition("}")[2] for e in svg.iter()} == {
        "svg", "title", "desc", "style", "text", "path", "g", "rect", "a"}  # fmt: skip
