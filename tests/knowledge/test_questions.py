"""What the literature answers: search, lineage, relatives, paths, gaps, comparisons; and the page that shows it."""
import contextlib
import io
import math
import re
import shlex
from pathlib import Path

import pytest

import dynnotes
from dynnotes import cli
from dynnotes.knowledge.query import UnknownName, UnknownWord

PAGE = Path(__file__).parents[2] / "book" / "questions.md"


@pytest.fixture
def kb(bib, entry):
    bib.write(
        "a.bib",
        entry("root", kind="background", taxon="background", year="2010", method="Root")
        + entry("old", year="2015", extends="root: sec. 1", tldr="Halting scores add up.", unit="exit", tasks=None)
        + entry("mid", year="2016", improves="old: sec. 2", tldr="A gate skips layers.", decision="gating; confidence")
        + entry("young", year="2018", extends="mid: table 1", compares="old: sec. 4", taxon="sample/depth/exits",
                unit="channel", training="gumbel-softmax", title="Skipping {Channels}")
        + entry("lonely", year="2017", taxon="sample/depth/exits", decision="none", unit="channel", executes="unknown"),
    )
    return bib.read()


def keys(papers):
    return [p.key for p in papers]


def test_a_minus_excludes(kb):
    assert keys(kb.papers(decision="-none")) == ["old", "mid", "young"]
    assert keys(kb.papers(decision=["gating", "-confidence"])) == ["old", "young"]
    with pytest.raises(UnknownWord, match="gating"):
        kb.papers(decision="-gatng")


def test_search_ranks_all_words_before_some_and_titles_before_summaries(kb):
    assert keys(kb.search("skips")) == ["young", "mid"], "the stem is in a title and in a summary"
    assert keys(kb.search("skipping layers"))[0] == "mid", "it alone has both"
    assert keys(kb.search("hal")) == ["old"], "the last word may be unfinished"
    assert keys(kb.search("skip", limit=1)) == ["young"]
    assert kb.search("skip", limit=0) == []


HOSTILE = ["", "  ", "\"", "' OR 1=1 --", "NEAR(", "title:", "*", "(((", "\0", "\N{PARTY POPPER}", "x" * 10_000]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_search_breaks_the_engine(kb, text):
    assert isinstance(kb.search(text), list)


def test_lineage_goes_both_ways_in_order_of_year_and_says_where(kb):
    assert kb.lineage("Net-mid").splitlines() == [
        "Net-mid (2016)", "builds on:", "  Net-old (2015), old: sec. 2", "    Root (2010), root: sec. 1",
        "built on by:", "  Net-young (2018), young: table 1"]  # fmt: skip
    assert "nothing known" in kb.lineage("lonely")
    with pytest.raises(UnknownName, match="Net-mid"):
        kb.lineage("Net-mod")


def test_relatives_by_hand(kb):
    """log(5 papers / papers with the trait) over shared traits, and 3 for a stated relation."""
    have = {"gating": 4, "input": 5, "classification": 4, "image": 5, "channel": 2, "exits": 2, "refer to old": 2}
    both = {"mid": ["gating", "input", "classification", "image", "refer to old"],
            "lonely": ["channel", "exits", "input", "classification", "image"]}  # fmt: skip
    rows = {p.key: (score, why) for p, score, why in kb.relatives("young")}
    for key, stated in (("mid", 3), ("lonely", 0)):
        assert rows[key][0] == pytest.approx(stated + sum(math.log(5 / have[trait]) for trait in both[key]))
    assert rows["mid"][1][0] == "Net-young extends it (table 1)"
    assert "both refer to Net-old" in rows["mid"][1]
    assert rows["lonely"][1][:2] == ["both in sample/depth/exits", "same unit: channel"]
    assert list(rows) == sorted(rows, key=lambda key: -rows[key][0])
    assert "young" not in rows
    assert "root" not in rows, "a static ancestor that neither names the other"
    assert len(kb.relatives("young", 1)) == 1


def test_a_reading_path_is_short_and_gives_reasons(kb):
    path = kb.reading_path("Root", "old")
    assert [(p.key, why) for p, why in path] == [("root", "where you are"), ("old", "it extends Root (sec. 1)")]
    assert keys(p for p, _ in kb.reading_path("old", "Root")) == ["old", "root"], "relations are read both ways"
    for goal in ("young", "sample/depth/exits"):
        path = kb.reading_path("Root", goal)
        assert path[0][0].key == "root"
        assert path[-1][0].taxon == "sample/depth/exits"
        assert len(path) <= 3
        assert all(why for _, why in path)
    assert keys(p for p, _ in kb.reading_path("young", "young")) == ["young"]
    assert kb.reading_path("Root", "young", most=1) == []
    with pytest.raises(UnknownName):
        kb.reading_path("Root", "sample/nowhere")


def test_gaps_hold_every_combination_that_words_in_use_allow(kb):
    cells = {tuple(c.where.values()): keys(c.papers) for c in kb.gaps("unit", "decision")}
    assert len(cells) == 3 * 3
    assert cells["layer", "gating"] == cells["layer", "confidence"] == ["mid"]
    assert cells["exit", "confidence"] == []
    assert keys(kb.gaps("unit")[0].papers) == ["lonely", "young"], "the most crowded comes first"
    assert not any("unknown" in c.where.values() for c in kb.gaps()), "unknown is no place"
    with pytest.raises(UnknownWord, match="unit"):
        kb.gaps("units")


def test_a_comparison_escapes_what_it_shows(bib, entry):
    bib.write("a.bib", entry("one", tldr="a | b <script> \\& 100\\%", method="A\\_B") + entry("two"))
    table = bib.read().compare("one", "two")
    assert "a \\| b &lt;script> & 100%" in table.markdown()
    assert {line.replace("\\|", "").count("|") for line in table.markdown().splitlines()} == {4}
    assert "A\\_B" in table.latex()
    assert "100\\%" in table.latex()
    frame = table.frame() if pytest.importorskip("pandas") else None
    assert list(frame.index) == ["one", "two"]
    assert frame.loc["two", "year"] == "2018"
    with pytest.raises(ValueError, match="at least one"):
        bib.read().compare()


def test_the_timeline_leaves_out_ancestors(kb):
    assert {year: keys(p) for year, p in kb.timeline().items()} == {
        2015: ["old"], 2016: ["mid"], 2017: ["lonely"], 2018: ["young"]}  # fmt: skip


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


LIBRARY = """\
@article{mine, title = {SkipNet: Learning Dynamic Routing in Convolutional Networks},
  eprint = {1711.09485}, year = {2018}}
@misc{new, title = {Dynamic Routing of Tokens by Token Pruning}, year = {2025}}
"""


def test_every_python_example_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my-library.bib").write_text(LIBRARY)
    monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "cache"))
    space = {}
    for source in blocks("python"):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, PAGE.name, "exec"), space)
    assert space["empty"]


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines()])
def test_every_command_of_the_page_answers(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files, some read this one
    Path("my-library.bib").write_text(LIBRARY)
    monkeypatch.setenv("DYNNOTES_CACHE", str(tmp_path / "cache"))
    program, *args = shlex.split(line)
    assert program == "dynnotes"
    assert cli.main(args) == 0
    assert capsys.readouterr().out.strip()
    assert cli.main([*args, "--json"]) == 0


def test_ten_questions_of_the_field_have_answers():
    kb = dynnotes.load()
    assert kb["A-ViT"] in kb.search("tokens halt in a vision transformer", 3)
    assert "SACT" in kb.lineage("ACT")
    assert kb["CoDiNet"] in [p for p, _, _ in kb.relatives("SkipNet", 3)]
    assert len(kb.reading_path("ResNet", "spatial/tokens")) <= 5
