"""taxonomy.yml: words stay the words they are, and every fault has a line."""

import pytest

from dynnotes.knowledge.taxonomy import read_taxonomy


def test_yaml_s_own_ideas_of_words_are_ignored(bib, entry):
    bib.write("a.bib", entry("one", tasks="no", modality="3d", adapts="none"))
    kb = bib.read()
    assert kb.facets["tasks"]["no"] == "a word that YAML would turn into false"
    assert kb.node("sample/depth/exits").survey == "2.10"
    assert kb.node("sample").survey == "2, 2.10"
    assert kb.node("sample/depth/skips").survey is None
    assert kb.node("sample").zh == "样本"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("  unit:", "  units:", 4, ["unknown facet 'units'", "did you mean 'unit'?"]),
        ("lists: {", "list: {", 11, ["unknown section 'list'", "did you mean 'lists'?"]),
        ("layer: l, ", "layer: l, layer: m, ", 4, ["'layer' stands twice in facet unit"]),
        ("gating: g", "gating:", 5, ["'gating' in facet decision has no text"]),
        ("  unit: {layer: l, exit: e, channel: c}", "  unit: [layer, exit]", 4, ["facet unit is not a mapping"]),
        ("id: sample/depth/skips", "id: sample/width/skips", 17, ["no parent 'sample/width'"]),
        ("id: sample/depth/skips", "id: sample/depth/exits", 17, ["'sample/depth/exits' stands twice"]),
        ("id: sample/depth/skips", "id: Sample/Depth", 17, ["bad node id 'Sample/Depth'", "lower-case"]),
        ("id: background", "name: background", 18, ["without 'id'"]),
        ("zh: 背景", "cn: 背景", 18, ["unknown field 'cn'"]),
        ("zh: 背景, ", "", 18, ["without 'zh'"]),
        ("relations: {", "relations: {{", 1, ["not YAML"]),
        ("nodes:", "nodes: x\nmore:", 12, ["nodes is not a list"]),
    ],
)
def test_faults(bib, old, new, line, words):
    text = bib.path.joinpath("taxonomy.yml").read_text(encoding="utf-8")
    assert old in text
    _, problems = read_taxonomy(text.replace(old, new), "bib/taxonomy.yml")
    found = [str(p) for p in problems if all(w in str(p) for w in words)]
    assert found, [str(p) for p in problems]
    if words != ["not YAML"]:
        assert any(p.startswith(f"bib/taxonomy.yml:{line}: ") for p in found), found


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "\tx: 1", "a: [", "? {a: b}\n: c\n", "x: *unknown"])
def test_nonsense_is_a_problem_not_a_crash(text):
    _, problems = read_taxonomy(text, "t.yml")
    assert problems
    assert all(str(p).startswith("t.yml:") for p in problems)


def test_a_broken_taxonomy_does_not_bury_the_reader_in_unknown_words(bib, entry):
    bib.write("taxonomy.yml", "facets: [")
    bib.write("a.bib", entry("one", year="20"))
    problems = bib.problems()
    assert len(problems) == 2
    assert "not YAML" in problems[1]


def test_no_taxonomy(tmp_path):
    from dynnotes.knowledge.check import read_bibliography

    with pytest.raises(FileNotFoundError, match=r"taxonomy\.yml"):
        read_bibliography(tmp_path)
