"""Questions: facets combine with AND, lists mean any of, names are forgiving, mistakes name the nearest."""

from dataclasses import replace

import pytest

import dynnotes
from dynnotes.knowledge.query import UnknownName, UnknownWord


@pytest.fixture
def kb(bib, entry):
    bib.write(
        "a.bib",
        "".join(
            [
                entry("resnet2016", year="2016", method="ResNet", kind="background", taxon="background", adapts="none"),
                entry(
                    "aig2018", method="ConvNet-AIG", aka="AIG", training="gumbel-softmax", extends="resnet2016: sec. 3"
                ),
                entry(
                    "branchy2016",
                    year="2016",
                    method="BranchyNet",
                    taxon="sample/depth/exits",
                    leaf="cascades",
                    unit="exit",
                    decision="confidence",
                    training="none",
                    lists="materials; survey-list",
                ),
                entry(
                    "both2020",
                    year="2020",
                    method="Dual",
                    unit="layer; exit",
                    also="sample/depth/exits",
                    tldr="Gates and exits, both.",
                    compares="aig2018: table 1; branchy2016: table 1",
                ),
            ]
        ),
    )
    return bib.read()


def keys(papers):
    return [p.key for p in papers]


def test_facets_combine(kb):
    assert keys(kb.papers()) == ["branchy2016", "aig2018", "both2020"]
    assert keys(kb.papers(decision="gating")) == ["aig2018", "both2020"]
    assert keys(kb.papers(decision="gating", training="gumbel-softmax")) == ["aig2018"]
    assert keys(kb.papers(unit=["exit", "channel"])) == ["branchy2016", "both2020"]
    assert keys(kb.papers(unit="exit", decision="gating")) == ["both2020"]
    assert keys(kb.papers(unit=[])) == []
    assert keys(kb.papers(lists="materials")) == ["branchy2016"]


def test_taxon_matches_descendants_and_also(kb):
    assert keys(kb.papers(taxon="sample")) == ["branchy2016", "aig2018", "both2020"]
    assert keys(kb.papers(taxon="sample/depth/exits/")) == ["branchy2016", "both2020"]
    assert keys(kb.papers(taxon="sample/depth/exits/cascades")) == ["branchy2016"]
    assert keys(kb.papers(taxon=["sample/depth/exits/cascades", "sample/depth/skips"], until=2018)) == [
        "branchy2016",
        "aig2018",
    ]


def test_a_node_is_not_its_longer_named_neighbour(kb):
    assert replace(kb["AIG"], taxon="sample/depth/exits-all", also=()).within("sample/depth")
    assert not replace(kb["AIG"], taxon="sample/depth/exits-all", also=()).within("sample/depth/exits")


def test_years_are_inclusive(kb):
    assert keys(kb.papers(since=2018, until=2018)) == ["aig2018"]


def test_background_only_when_asked(kb):
    assert keys(kb.papers(kind="background")) == ["resnet2016"]
    assert len(kb) == 3
    assert "resnet2016" not in keys(kb)
    assert "resnet2016" in kb
    assert len(kb.entries) == 4


def test_words_must_all_occur(kb):
    assert keys(kb.papers(words="GATES exits")) == ["both2020"]
    assert keys(kb.papers(words=["belongie", "2016"])) == ["branchy2016"]
    assert keys(kb.papers(words="BÉLONGIE 2016")) == ["branchy2016"]


@pytest.mark.parametrize("name", ["aig2018", "ConvNet-AIG", "AIG", "convnet aig", "CONVNETAIG"])
def test_names(kb, name):
    assert kb[name].key == "aig2018"
    assert name in kb


def test_unknown_names_suggest_the_nearest(kb):
    with pytest.raises(UnknownName, match="did you mean BranchyNet") as caught:
        kb["BranchNet"]
    assert isinstance(caught.value, KeyError)
    with pytest.raises(UnknownName, match="did you mean sample/depth"):
        kb.papers(taxon="sample/dept")
    with pytest.raises(UnknownName, match="nothing known"):
        kb["qqqqqqqq"]
    assert 3 not in kb


def test_unknown_facets_and_words_name_the_known(kb):
    with pytest.raises(UnknownWord, match=r"facet 'decison'; did you mean 'decision'\? known: kind, adapts"):
        kb.papers(decison="gating")
    with pytest.raises(UnknownWord, match=r"'gate'.*known: gating, confidence, none"):
        kb.papers(decision="gate")
    with pytest.raises(UnknownWord, match="known: materials, survey-list"):
        kb.papers(lists="material")


def test_tree_and_graph(kb):
    tree = kb.taxonomy()
    assert list(tree.successors("sample/depth")) == ["sample/depth/exits", "sample/depth/skips"]
    assert tree.nodes["sample/depth/exits"]["papers"] == 2
    assert tree.nodes["background"]["papers"] == 0
    net = kb.graph()
    assert net["aig2018"]["resnet2016"]["extends"] == {"kind": "extends", "where": "sec. 3"}
    assert net.number_of_nodes() == 4
    assert net.number_of_edges() == 3
    assert [(p.key, r.kind) for p, r in kb.cited_by("aig2018")] == [("both2020", "compares")]


def test_papers_are_frozen_and_hashable(kb):
    with pytest.raises(AttributeError):
        kb["AIG"].year = 2000
    assert len({kb["AIG"], kb["aig2018"]}) == 1


def test_implementation_comes_from_the_registry(kb, monkeypatch):
    from dynnotes import registry

    source = registry.Source("dynnotes.knowledge.query", "Paper", registry.PACKAGE / "x.py", 1)
    monkeypatch.setattr(registry, "sources", lambda: {"aig2018": source})
    assert kb["AIG"].source is source
    assert kb["AIG"].implementation is type(kb["AIG"])
    assert kb["Dual"].implementation is None
    assert keys(kb.papers(implemented=True)) == ["aig2018"]
    assert keys(kb.papers(implemented=False)) == ["branchy2016", "both2020"]


def test_every_entry_is_implemented_planned_or_a_reference():
    kb = dynnotes.load()
    assert kb["ConvNet-AIG"].standing == "implemented"
    assert {p.standing for p in kb.entries} == {"implemented", "planned", "reference"}
    assert all(p.standing == "reference" for p in kb.entries if p.kind in ("survey", "background"))


def test_the_most_cited_are_counted_from_relations(bib, entry):
    bib.write(
        "a.bib",
        entry("root", year="2010")
        + entry("two", year="2015", extends="root: sec. 1", compares="root: table 2")
        + entry("three", year="2016", compares="root: sec. 1; two: sec. 2")
        + entry("survey", year="2020", kind="survey", survey_of="root: sec. 1; three: sec. 2"),
    )
    kb = bib.read()
    assert [(p.key, n) for p, n in kb.most_cited()] == [("root", 2), ("two", 1)]
    assert len(kb.most_cited(1)) == 1
