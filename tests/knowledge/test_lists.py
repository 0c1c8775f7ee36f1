"""The founding lists: nothing of them is lost, every fault has a line, and what is shown is escaped."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import dynnotes
from dynnotes import cli
from dynnotes.knowledge.lists import Group, Listed, Note, ReadingList, escaped
from dynnotes.knowledge.query import KnowledgeBase, UnknownName
from dynnotes.show.lists import reading_list

ROOT = Path(__file__).parents[2]
FOUNDING = json.loads((ROOT / "tests" / "data" / "lists.json").read_text(encoding="utf-8"))
EVIL = "</li><script>x</script> *a* _b_ `c` [d](javascript:x) | # e ~~f~~ $g$ {h} \\i &amp; !j"
LIST = """\
title: Materials
about: What it is.
source: https://example.org/list
tags: {VID: processes video}
notes:
  - {title: A note, text: It says so., link: https://example.org/note}
groups:
  - title: Outline
    groups:
      - {title: Depth, zh: 深度, node: sample/depth, about: A remark.}
  - title: Papers
    papers: [one]
    groups:
      - title: Again
        papers:
          - {key: two, tags: [VID], date: 2018 ECCV, focus: gates, note: Ours.}
          - one
"""


@pytest.fixture
def two(bib, entry):
    bib.write("a.bib", entry("one", lists="materials") + entry("two", lists="materials", code="https://example.org/c"))
    bib.write("lists/materials.yml", LIST)
    return bib


# ---------------------------------------------------------------- the real lists


@pytest.mark.parametrize("name", FOUNDING)
def test_every_work_of_a_founding_list_stands_in_its_order(name):
    """The file beside was made from the lists themselves: each work with its line, first words and key."""
    reading = dynnotes.load().list(name)
    assert list(reading.keys) == [work["key"] for work in FOUNDING[name]]


def test_the_works_beside_are_all_and_in_the_order_of_their_lines():
    assert {name: len(works) for name, works in FOUNDING.items()} == {
        "sparsely-activated": 16, "materials": 4, "survey-note": 12, "survey-list": 15, "conditional-cv": 77,
    }  # fmt: skip
    assert set(FOUNDING) == set(dynnotes.load().lists)
    words = re.compile(r"\w+")
    for works in FOUNDING.values():
        assert [w["position"] for w in works] == sorted(w["position"] for w in works)
        for work in works:
            title = words.findall(dynnotes.load()[work["key"]].title.casefold())
            first = words.findall(work["title"].casefold())[:2]
            assert first == title[:2] or work["key"] in ("schmidt2022d2conv3d", "wang2022adafocus"), work


def groups(name):
    """{title of group: keys right below it}; titles within one list may repeat, so the path to each is its name."""
    found = {}

    def walk(group, path):
        path = f"{path}/{group.title}".strip("/")
        found[path] = [listed.key for listed in group.papers]
        for below in group.groups:
            walk(below, path)

    for group in dynnotes.load().list(name).groups:
        walk(group, "")
    return found


def test_the_works_stand_in_the_groups_of_their_lists():
    cv = groups("conditional-cv")
    assert {title: len(keys) for title, keys in cv.items()} == {
        "Survey": 1, "Early exits": 10, "Layer skipping": 8, "Recursive layers": 2, "Channels": 14, "Space": 0,
        "Space/Pixels": 10, "Space/Blocks and regions": 5, "Space/Zooming by saliency": 1,
        "Space/Crops and glimpses": 7, "Space/Dilation": 1, "Resolution": 4, "Transformers": 6,
        "Dynamic filters": 5, "Quantization": 1, "Routing and experts": 2, "Other work on video": 0}  # fmt: skip
    assert "hou2022multidimensional" in cv["Channels"]
    assert "hou2022multidimensional" in cv["Resolution"]
    assert groups("sparsely-activated")["Language/Built on recurrent networks (LSTM)"] == ["shazeer2017outrageously"]
    assert groups("survey-list")["Surveys/Compatibility"] == ["li2020learning", "wang2018skipnet"]
    assert groups("survey-note")["To read next, techniques/Architecture search"] == ["zoph2017neural", "liu2019darts"]
    assert groups("materials")["Papers/Early exit"] == ["huang2018multi", "liu2020fastbert"]


def test_the_tag_for_video_is_on_the_works_that_had_it():
    tagged = [p.key for g in dynnotes.load().list("conditional-cv").walk() for p in g.papers if "VID" in p.tags]
    assert tagged == [
        "ghodrati2021frameexit", "habibian2021skipconvolutions", "verelst2021blockcopy", "wang2021adaptive",
        "wang2022adafocus", "schmidt2022d2conv3d", "li2021spatiotemporal"]  # fmt: skip


def test_the_chinese_classification_is_whole_and_leads_to_the_taxonomy():
    (tree,) = (g for g in dynnotes.load().list("materials").groups if g.title == "Classification")
    assert [(g.zh, g.node) for g in tree.walk()][1:] == [
        ("样本自适应动态网络", "sample"), ("动态网络结构", ""), ("动态网络深度", "sample/depth"),
        ("早退机制", "sample/depth/exits"), ("多模型串联", "sample/depth/exits/cascades"),
        ("单模型增加中间层分类器", "sample/depth/exits/intermediate-classifiers"),
        ("多尺度密集连接网络", "sample/depth/exits/multi-scale"), ("跳层机制", "sample/depth/skips"),
        ("", "sample/depth/halting"), ("动态网络宽度", "sample/width"), ("动态网络参数", "sample/parameters"),
        ("动态参数调节", ""), ("参数加权调节", "sample/parameters/mixing"),
        ("自适应卷积核形状", "sample/parameters/kernels")]  # fmt: skip
    assert tree.outline


def test_the_empty_sections_of_the_materials_point_to_records():
    kb = dynnotes.load()
    kinds = [kind for g in kb.list("materials").walk() for kind in g.records]
    assert kinds == ["book", "person", "lab", "course", "conference", "workshop", "company", "event", "system",
                     "compiler", "accelerator"]  # fmt: skip
    assert set(kinds) == set(kb.record_kinds)
    text = kb.list("materials").text(kb)
    for kind in kinds:
        assert all(record.name in text for record in kb.records(kind))


def test_the_page_shows_every_list_under_its_title():
    page = (ROOT / "book" / "lists.md").read_text(encoding="utf-8")
    shown = re.findall(r"^## (.*)\n\n```\{reading-list\} ([\w-]+)\n```$", page, re.M)
    kb = dynnotes.load()
    assert sorted(name for _, name in shown) == sorted(kb.lists)
    assert all(kb.list(name).title == title for title, name in shown)
    for _, name in shown:
        body = reading_list(kb, name)
        linked = re.findall(r'href="\.\./papers/(\w+)\.html"', body)
        assert linked == [key for key in kb.list(name).keys if kb[key].kind != "background"]


# ---------------------------------------------------------------- reading


def test_a_list_is_read_as_it_stands(two):
    kb = two.read()
    reading = kb.list("materials")
    assert reading == ReadingList(
        "materials", "Materials", "What it is.", "https://example.org/list", {"VID": "processes video"},
        (Note("A note", "It says so.", "https://example.org/note"),),
        (Group("Outline", groups=(Group("Depth", "A remark.", "深度", "sample/depth"),)),
         Group("Papers", papers=(Listed("one"),), groups=(
             Group("Again", papers=(Listed("two", ("VID",), "2018 ECCV", "gates", "Ours."), Listed("one"))),))),
    )  # fmt: skip
    assert reading.keys == ("one", "two", "one")
    assert ReadingList.from_record(json.loads(json.dumps(reading.record()))) == reading


def test_as_text(two):
    kb = two.read()
    assert kb.list("materials").text(kb).split("\n") == [
        "Materials", "What it is.", "https://example.org/list", "[VID] processes video",
        "", "A note", "  It says so.", "  https://example.org/note",
        "", "Outline", "  Depth / 深度  (sample/depth)", "    A remark.",
        "", "Papers", "  2018  one  The paper one", "  Again",
        "    2018  two  The paper two  [VID]", "          2018 ECCV: gates. Ours.", "    2018  one  The paper one",
    ]  # fmt: skip


def test_as_markdown(two):
    kb = two.read()
    assert kb.list("materials").markdown(kb) == """\
# Materials

What it is.

[The list itself](https://example.org/list)

- `VID`: processes video

## A note

It says so. [example.org/note](https://example.org/note)

## Outline

- Depth / 深度 (`sample/depth`): A remark.

## Papers

- The paper one (ECCV 2018). Andreas Veit, Serge Belongie.

### Again

- The paper two (ECCV 2018). Andreas Veit, Serge Belongie. [code](https://example.org/c) `VID` 2018 ECCV: gates. Ours.
- The paper one (ECCV 2018). Andreas Veit, Serge Belongie.
"""


@pytest.mark.parametrize("name", FOUNDING)
def test_a_real_list_as_markdown_names_every_work_and_is_no_html(name):
    kb = dynnotes.load()
    tokens = MarkdownIt("commonmark").parse(kb.list(name).markdown(kb))
    items = [t for t in tokens if t.type == "inline"]
    assert not [t for t in tokens if t.type == "html_block"]
    text = "\n".join("".join(c.content for c in t.children if c.type == "text") for t in items)
    assert all(kb[key].title in text for key in kb.list(name).keys)
    links = [c.attrs["href"] for t in items for c in t.children if c.type == "link_open"]
    assert all(link.startswith("http") for link in links)


def test_records_stand_under_the_heading_that_points_to_their_kind(two):
    two.write("taxonomy.yml", two.path.joinpath("taxonomy.yml").read_text(encoding="utf-8") + "records: {lab: l}\n")
    two.write(
        "records/a.yml",
        "- {id: a, kind: lab, name: A <b> lab, zh: 实验室, about: It works., source: s, status: checked,"
        " url: 'https://example.org/l'}\n- {id: c, kind: lab, name: C, about: So does it., source: s, status: checked}",
    )
    two.write("lists/materials.yml", LIST.replace("papers: [one]", "papers: [one]\n    records: [lab]"))
    kb = two.read()
    reading = kb.list("materials")
    lines = reading.text(kb).split("\n")
    assert lines[lines.index("Papers") + 2 :][:2] == ["  A <b> lab / 实验室: It works.", "  C: So does it."]
    assert "- [A \\<b\\> lab / 实验室](https://example.org/l): It works.\n- C: So does it.\n" in reading.markdown(kb)
    page = reading_list(kb, "materials")
    assert '>A &lt;b&gt; lab</a> <span lang="zh">实验室</span>: It works.</li><li>C: So' in page


def test_a_bibliography_without_lists_shows_the_papers_that_name_one(bib, entry):
    bib.write("a.bib", entry("one", lists="materials", year="2019") + entry("two", lists="materials") + entry("three"))
    kb = bib.read()
    assert kb.list("materials").keys == ("two", "one")
    assert kb.list("survey-list").keys == ()
    with pytest.raises(UnknownName, match="did you mean materials"):
        kb.list("material")


def test_an_index_without_lists_answers(two):
    from dynnotes.knowledge.check import read_bibliography

    index = read_bibliography(two.path)
    del index["lists"]
    assert KnowledgeBase(index).list("materials").keys == ("one", "two")


def test_a_changed_list_is_noticed(two):
    assert dynnotes.load(two.path).list("materials").title == "Materials"
    two.write("lists/materials.yml", LIST.replace("title: Materials", "title: Stuff"))
    assert dynnotes.load(two.path).list("materials").title == "Stuff"


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[one]", "[oen]", 12, ["unknown key 'oen'", "did you mean 'one'?"]),
        ("{key: two", "{key: twoo", 16, ["unknown key 'twoo'", "did you mean 'two'?"]),
        ("tags: [VID]", "tags: [VIS]", 16, ["unknown tag 'VIS'", "did you mean 'VID'?"]),
        ("tags: [VID]", "tags: VID", 16, ["'tags' of a paper is not a list"]),
        ("tags: {VID:", "tags: {V D:", 4, ["bad tag 'V D'"]),
        ("node: sample/depth", "node: sample/dept", 10, ["unknown node 'sample/dept'", "sample/depth"]),
        ("  - title: Outline", "  - titel: Outline", 8, ["unknown field 'titel' of a group", "did you mean 'title'?"]),
        ("  - title: Outline", "  - about: Outline", 8, ["a group without 'title'"]),
        ("title: Materials", "name: Materials", 1, ["unknown field 'name' of a list"]),
        ("title: Materials", "name: Materials", 1, ["a list without 'title'"]),
        ("about: What it is.", "about:", 2, ["'about' of a list has no text"]),
        ("https://example.org/list", "example.org", 3, ["source 'example.org' is not a web address"]),
        ("https://example.org/note", "javascript:x", 6, ["link 'javascript:x' is not a web address"]),
        ("text: It says so.", "txt: It says so.", 6, ["unknown field 'txt' of a note", "did you mean 'text'?"]),
        ("text: It says so., ", "", 6, ["a note without 'text'"]),
        ("papers: [one]", "papers: one", 12, ["'papers' of a group is not a list"]),
        ("papers: [one]", "papers: [[one]]", 12, ["a paper is not a mapping"]),
        ("papers: [one]", "papers: [{}]", 12, ["a paper without 'key'"]),
        ("papers: [one]", "papers: [one, '']", 12, ["'key' of a paper has no text"]),
        ("papers: [one]", "papers: [one]\n    records: [persn]", 13, ["unknown kind of record 'persn'"]),
        ("key: two,", "key: two, key: one,", 16, ["'key' stands twice in a paper"]),
        ("title: Materials", "title: [Materials", 2, ["not YAML"]),
    ],
)
def test_faults(two, old, new, line, words):
    assert LIST.count(old) == 1
    two.write("lists/materials.yml", LIST.replace(old, new))
    found = [p for p in two.problems() if all(word in p for word in words)]
    assert found, two.problems()
    assert all(re.match(rf"bib/lists/materials\.yml:{line}: .+; \S", p) for p in found), found


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just text", "\tx: 1", "x: *unknown", "[" * 20_000, "{}",
                                  "title: t\nabout: a\ngroups: &a [{title: x, groups: *a}]\n", b"\xff\xfe\x00"])
def test_nonsense_is_a_problem_not_a_crash(two, text):
    two.write("lists/materials.yml", text)
    problems = two.problems()
    assert all(p.startswith("bib/lists/materials.yml:") for p in problems)
    assert all("; " in p for p in problems)


def test_a_group_that_stands_in_itself_or_twice_is_told(two):
    two.write("lists/materials.yml", LIST.replace("- title: Papers", "- &a\n    title: Papers") + "          - two\n")
    assert two.read().list("materials").keys == ("one", "two", "one", "two")
    two.write("lists/materials.yml", LIST.replace("- title: Papers", "- &a\n    title: Papers") + "  - *a\n")
    assert ["a group stands twice, by an alias" in p for p in two.problems()] == [True]


def test_a_list_and_its_entries_must_agree(two, entry):
    two.write("b.bib", entry("three", lists="materials") + entry("four"))
    (problem,) = two.problems()
    line = entry("three", lists="materials").split("\n").index("  lists = {materials}") + 1
    assert problem == (
        f"bib/b.bib:{line}: three: it names the list materials, where it does not stand; "
        "add it to bib/lists/materials.yml, or remove the word"
    )
    two.write("lists/materials.yml", LIST + "          - three\n          - four\n")
    (problem,) = two.problems()
    assert problem.startswith("bib/lists/materials.yml:19: four stands here, but its entry (bib/b.bib:")
    assert problem.endswith("does not name this list; add 'materials' to its lists, or remove it here")


def test_a_list_that_the_taxonomy_does_not_know(two):
    two.path.joinpath("lists", "materials.yml").rename(two.path / "lists" / "material.yml")
    (problem,) = two.problems()
    assert problem.startswith("bib/lists/material.yml:1: no list 'material' in taxonomy.yml; did you mean 'materials'?")


def test_a_broken_entry_or_taxonomy_does_not_bury_the_reader(two, entry):
    two.write("a.bib", entry("one", lists="materials") + "@article{two, title = {x\n")
    assert not [p for p in two.problems() if "lists/materials.yml" in p]
    two.write("taxonomy.yml", "facets: [")
    assert not [p for p in two.problems() if "lists/materials.yml" in p]


# ---------------------------------------------------------------- what is shown


def test_hostile_text_is_shown_and_not_run(bib, entry):
    title = EVIL.replace("\\", "").replace("{", "").replace("}", "").replace("$", "").replace("&amp;", "\\&")
    title = title.replace("_", "\\_").replace("#", "\\#").replace("~", "")
    bib.write("a.bib", entry("one", lists="materials", title=title, url="https://example.org/a_(b)?c=1&d=*"))
    quoted = json.dumps(EVIL)
    bib.write(
        "lists/materials.yml",
        f"title: {quoted}\nabout: {quoted}\nnotes: [{{title: {quoted}, text: {quoted}}}]\n"
        f"groups: [{{title: {quoted}, zh: {quoted}, about: {quoted}, papers: [{{key: one, note: {quoted}}}],"
        f" groups: [{{title: {quoted}, about: {quoted}}}]}}]\n",
    )
    kb = bib.read()
    reading = kb.list("materials")
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(reading.markdown(kb))
    assert not re.search(r"<(script|em|strong|code|table|s|img)\b", html)
    assert re.findall(r'href="([^"]*)"', html) == ["https://example.org/a_%28b%29?c=1&amp;d=*"]
    assert html.count("&lt;script&gt;") == 11
    page = reading_list(kb, "materials")
    assert not re.search(r"<(script|em|code|table|s|img)\b", page)
    assert "javascript:x\"" not in page
    assert "`" not in page


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_escaped_text_is_read_back_as_it_was(text):
    plain = " ".join(text.split())
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(escaped(text))
    assert [t.type for t in tokens] == (["paragraph_open", "inline", "paragraph_close"] if plain else [])
    if plain:
        assert {c.type for c in tokens[1].children} <= {"text", "text_special"}
        assert "".join(c.content for c in tokens[1].children) == plain


words = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1).map(lambda s: " ".join(s.split()) or "x")
texts = words | st.just("")
trees = st.recursive(
    st.builds(Group, words, texts, texts, papers=st.lists(st.builds(Listed, words, note=texts)).map(tuple)),
    lambda below: st.builds(Group, words, groups=st.lists(below, max_size=3).map(tuple)),
    max_leaves=8,
)


@given(st.lists(trees, max_size=3))
def test_lists_survive_the_index(groups):
    reading = ReadingList("n", "t", "a", groups=tuple(groups))
    assert ReadingList.from_record(json.loads(json.dumps(reading.record()))) == reading
    assert len(reading.keys) == sum(len(g.papers) for top in groups for g in top.walk())


# ---------------------------------------------------------------- in the shell


def test_the_command(two, capsys):
    where = ["--bib", str(two.path)]
    kb = two.read()
    for flags, expected in (([], kb.list("materials").text(kb) + "\n"),
                            (["--markdown"], kb.list("materials").markdown(kb))):  # fmt: skip
        assert cli.main([*where, "list", "materials", *flags]) == 0
        assert capsys.readouterr().out == expected
    assert cli.main([*where, "list", "materials", "--json"]) == 0
    assert ReadingList.from_record(json.loads(capsys.readouterr().out)) == kb.list("materials")
    assert cli.main([*where, "list", "--json"]) == 0
    assert [(row["name"], row["papers"]) for row in json.loads(capsys.readouterr().out)] == [
        ("materials", 2), ("survey-list", 0)]  # fmt: skip
    assert cli.main([*where, "list", "material"]) == 2
    assert "did you mean materials" in capsys.readouterr().err
    assert cli.main([*where, "list", "--markdown"]) == 2
    assert "--markdown needs the name of a list" in capsys.readouterr().err
