"""A library of the reader's own: matched, asked, and given keywords without touching another byte."""

import os
import shutil
import stat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynnotes import cli
from dynnotes.knowledge import library as module
from dynnotes.knowledge.bibtex import Source
from dynnotes.knowledge.latex import decode, plain
from dynnotes.knowledge.library import identifiers, read_fields, title_key
from dynnotes.knowledge.problems import LibraryError
from dynnotes.knowledge.propose import _STEMS, BESIDE, FIELD, cues, proposals
from dynnotes.knowledge.query import UnknownName, UnknownWord
from dynnotes.knowledge.rewrite import replace_file, with_keywords

ZOTERO = """\
@inproceedings{veitConvolutional2018,
  title = {Convolutional {{Networks}} with {{Adaptive Inference Graphs}}},
  author = {Veit, Andreas and Belongie, Serge},
  date = {2018-09},
  url = {http://arxiv.org/abs/1711.11503v2},
  urldate = {2026-01-02},
  keywords = {Computer Science - Computer Vision and Pattern Recognition,to-read},
  file = {C\\:\\\\Users\\\\me\\\\Veit.pdf:application/pdf}
}
"""
JABREF = """\
% Encoding: UTF-8\r
\r
@Article{Mueller2019,\r
  author   = {J{\\"o}rg M{\\"u}ller},\r
  title    = {Token {P}runing for Vision Transformers, with a Policy Network},\r
  journal  = {TPAMI},\r
  year     = {2019},\r
  groups   = {mine},\r
}\r
\r
@Comment{jabref-meta: databaseType:bibtex;}\r
"""
DBLP = """\
@article{DBLP:journals/corr/abs-1612-02297,
  author       = {Andreas Veit and
                  Serge J. Belongie},
  title        = {Convolutional Networks with
                  Adaptive Inference Graphs},
  journal      = {CoRR},
  volume       = {abs/1711.11503},
  year         = {2017},
  bibsource    = {dblp computer science bibliography, https://dblp.org}
}
"""


@pytest.fixture
def kb(bib, entry):
    bib.write(
        "a.bib",
        entry("aig", title="Convolutional {Networks} with Adaptive Inference Graphs", eprint="1711.11503",
              doi="10.1007/978-3-030-01246-5_1", method="ConvNet-AIG")
        + entry("skip", title="SkipNet: Learning Dynamic Routing", eprint="1711.09485", unit="layer; exit", year="2018")
        + entry("old", title="An Old One", decision="confidence", taxon="sample/depth/exits", year="1999"),
    )  # fmt: skip
    return bib.read()


@pytest.fixture
def mine(kb, tmp_path):
    def make(text, name="mine.bib"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return kb.library(path)

    return make


def states(library):
    return [(row.key, row.state, row.paper) for row in library.rows()]


@pytest.mark.parametrize(("text", "by"), [(ZOTERO, "arXiv id, title"), (DBLP, "arXiv id, title")])
def test_exports_of_other_programs_are_matched(mine, text, by):
    library = mine(text)
    (row,) = library.rows("known")
    assert (row.paper, row.why) == ("aig", f"by {by}")
    assert not library.problems
    assert row.line == 1


def test_an_export_of_jabref_is_read_and_its_facets_are_proposed(mine):
    library = mine(JABREF)
    ((row, found),) = library.proposals()
    assert (row.key, row.state, row.year, row.line) == ("Mueller2019", "new", 2019, 3)
    assert row.record()["authors"] == "Jörg Müller"
    told = {(p.facet, p.word): p.why for p in found}
    assert told["unit", "token"] == '"token pruning" in the title'
    assert told["decision", "policy"] == '"policy network" in the title'
    assert ("modality", "image") in told


@pytest.mark.parametrize(
    ("fields", "state", "words"),
    [
        ("doi = {https://doi.org/10.1007/978-3-030-01246-5\\_1}", "known", "by DOI"),
        ("title = {Convolutional Networks with Adaptive Inference {G}raphs}, year = {2017}", "known", "by title"),
        ("eprint = {arXiv:1711.11503v1}, title = {Adaptive inference graphs}", "known", "by arXiv id"),
        ("doi = {10.48550/arXiv.1711.11503}", "known", "by arXiv id"),
        ("note = {see arXiv:1711.11503}", "new", ""),
        ("eprint = {1711.11503}, archiveprefix = {HAL}", "new", ""),
        ("eprint = {1711.11503}, title = {SkipNet: Learning Dynamic Routing}", "conflict",
         "its arXiv id that of aig and its title that of skip"),
        ("title = {SkipNet: learning dynamic routing}, eprint = {1801.00001}", "conflict",
         "its arXiv id 1801.00001 is not the one known here, 1711.09485"),
        ("eprint = {1711.11503}, title = {Something else entirely, about fish}", "conflict", "another title"),
        ("title = {An old one}, year = {2020}", "conflict", "2020 instead of 1999"),
        ("title = {An old one}, year = {2000}", "known", "by title"),
        ("title = {}", "new", ""),
    ],
)  # fmt: skip
def test_matching(mine, fields, state, words):
    (row,) = mine(f"@misc{{x, {fields}}}").rows()
    assert row.state == state
    assert words in row.why


def test_the_same_paper_twice_is_a_conflict_and_a_key_twice_a_problem(mine):
    library = mine("@misc{a, doi={10.1/x}} @misc{b, doi={10.1000/x}}\n@misc{c, doi={10.1000/X}}\n@misc{c, year=1999}")
    assert [row.state for row in library.rows()] == ["new", "new", "conflict", "new"]
    assert next(library.rows("conflict")).why == "same DOI as b in this file; keep one of the two"
    assert [(p.line, p.what) for p in library.problems] == [(3, "key 'c' stands twice")]


def test_mixed_encodings_cost_nothing_but_a_remark(mine):
    library = mine(b"\xef\xbb\xbf@misc{a, title = {Caf\xe9}}\n@misc{b, title = {Caf\xc3\xa9}, journal = jmlr}\n")
    assert [row.title for row in library.rows()] == ["Café", "Café"]
    assert [(p.line, p.what) for p in library.problems] == [
        (1, "a: title: not UTF-8 (byte 0xe9)"), (2, "b: journal: 'jmlr' is no @string")]  # fmt: skip


def test_a_broken_entry_does_not_take_the_next_one_along(mine):
    library = mine("@misc{a, title = {A\n@misc{b, title = {B}}\n")
    assert states(library) == [("b", "new", "")]
    assert library.problems[0].line == 1


def test_questions_to_a_library(mine):
    library = mine(ZOTERO + JABREF + "@misc{c, title={A Café for {\\'E}mile}, author={Erd{\\H o}s, P.}, year=1950, "
                   "keywords={unit:channel, unit:layer?}}")  # fmt: skip
    ask = lambda **kw: [row.key for row in library.find(**kw)]
    assert ask() == ["c", "veitConvolutional2018", "Mueller2019"]
    assert ask(unit=["layer"]) == ["veitConvolutional2018"]
    assert ask(unit=["channel", "layer"]) == ["c", "veitConvolutional2018"]
    assert ask(unit=["-layer"]) == ["c", "Mueller2019"]
    assert ask(taxon=["sample/depth"]) == ["veitConvolutional2018"]
    assert ask(since=2000, until=2018) == ["veitConvolutional2018"]
    assert ask(words=["emile", "cafe"]) == ask(words=["erdos"]) == ["c"]
    assert [row.key for row in library.search("prun")] == ["Mueller2019"]
    assert [row.key for row in library.search("graph")] == ["veitConvolutional2018"]
    with pytest.raises(UnknownWord, match="layer"):
        ask(unit=["layr"])
    with pytest.raises(UnknownName):
        ask(taxon=["sample/dpth"])


def test_an_index_is_used_again_until_the_file_changes(mine, kb, monkeypatch):
    path = mine(ZOTERO).path
    os.utime(path, (1_600_000_000, 1_600_000_000))  # long ago: what changed this second may change again
    assert len(kb.library(path)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module.Library, "read", lambda self: pytest.fail("read again"))
        assert len(kb.library(path)) == 1
    path.write_text(ZOTERO + DBLP)
    assert len(kb.library(path)) == 2


@pytest.mark.parametrize("damage", [b"", b"SQLite format 3\0 and then nothing", b"\0" * 5000])
def test_a_damaged_index_is_made_anew(mine, kb, damage):
    library = mine(ZOTERO)
    library._index.write_bytes(damage)
    assert len(kb.library(library.path)) == 1


def test_without_a_cache_the_index_stays_in_memory(mine, monkeypatch, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("DYNNOTES_CACHE", str(blocked))
    assert len(mine(ZOTERO).search("graphs")) == 1


def test_writing_adds_keywords_and_leaves_every_other_byte(mine):
    before = (ZOTERO + JABREF + "@misc{one, title={Dynamic Filters}}\n@misc{two,title={No}}").encode()
    library = mine(before)
    assert library.write() == 3
    after = library.path.read_bytes().decode()
    own = "kind:method, adapts:input, unit:layer, decision:gating, training:soft, executes:theoretical, modality:image"
    added = {
        f"Recognition,to-read, {own}, tasks:classification}}": "Recognition,to-read}",
        "{mine},\r\n  keywords = {adapts:input?, unit:token?, decision:policy?, modality:image?},": "{mine},",
    }
    for new, old in added.items():
        assert new in after
        after = after.replace(new, old)
    after = after.replace(", keywords={adapts:weights?, unit:weights?}", "")
    assert after.encode() == before
    assert library.write() == 0


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("@misc{a, title={x}}", "@misc{a, title={x}, keywords={t:a, t:b?}}"),
        ("@misc{a, title={x},}", "@misc{a, title={x}, keywords={t:a, t:b?},}"),
        ("@misc{a,\n\ttitle = {x}\n}", "@misc{a,\n\ttitle = {x},\n\tkeywords = {t:a, t:b?}\n}"),
        ("@misc{a,\r\n  year = 1999,\r\n}", "@misc{a,\r\n  year = 1999,\r\n  keywords = {t:a, t:b?},\r\n}"),
        ("@misc{a, keywords = {}}", "@misc{a, keywords = {t:a, t:b?}}"),
        ('@misc{a, keywords = "q; r"}', '@misc{a, keywords = "q; r; t:a; t:b?"}'),
        ("@misc{a, keywords = {q, }}", "@misc{a, keywords = {q, t:a, t:b? }}"),
        ("@misc{a, keywords = {T:A, t:b}}", "@misc{a, keywords = {T:A, t:b}}"),  # sure beats a guess
        ("@misc{a, keywords = kw}", "@misc{a, keywords = kw}"),
        ("@misc{a, keywords = {q} # {r}}", "@misc{a, keywords = {q} # {r}}"),
        ("@misc{a}", "@misc{a}"),
        ("@misc(a, x={1})", "@misc(a, x={1}, keywords={t:a, t:b?})"),
    ],
)
def test_where_keywords_go(text, result):
    new, changed = with_keywords(text.encode(), {0: ["t:a", "t:b?"]})
    assert new.decode() == result
    assert changed == (text != result)


def test_nothing_is_written_over_a_file_that_changed(mine):
    path = mine(ZOTERO).path
    with pytest.raises(LibraryError, match="changed while"):
        replace_file(path, b"other", b"new")
    assert path.read_text() == ZOTERO
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["mine.bib"]


def test_a_write_keeps_permissions_and_links(mine, kb, tmp_path):
    path = mine(ZOTERO).path
    path.chmod(0o640)
    link = tmp_path / "link.bib"
    link.symlink_to(path)
    assert kb.library(link).write() == 1
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "decision:gating" in path.read_text()


def test_a_write_that_fails_leaves_the_file_alone(mine, monkeypatch):
    library = mine(ZOTERO)
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        library.write()
    assert library.path.read_text() == ZOTERO
    assert [p.name for p in library.path.parent.iterdir() if p.is_file()] == ["mine.bib"]


# ---------------------------------------------------------------- proposals


def test_every_word_that_is_proposed_is_known():
    import dynnotes

    kb = dynnotes.load()
    for pattern, tags in [*cues(FIELD), *cues(BESIDE)]:
        for facet, word in tags:
            assert word in ({n.id for n in kb.nodes} if facet == "taxon" else kb.facets[facet]), pattern.pattern


def test_the_quick_look_misses_nothing():
    """Each alternative of each cue, made into a text, passes it."""
    for line in FIELD.strip().splitlines():
        if line.startswith(" "):
            for cue in line.strip().split("    "):
                assert any(stem in cue.lower() for stem in _STEMS) or "moe" in cue, cue


def test_words_of_the_field_must_stand_first():
    assert proposals({"title": "Object detection with a policy network on GPUs"}) == []
    assert proposals({"title": ""}) == []
    found = proposals({"title": "Early-Exit Networks", "abstract": "A policy network, trained by reinforcement."})
    told = {(p.facet, p.word): p.why for p in found}
    assert told["unit", "exit"] == '"early-exit" in the title'
    assert told["training", "reinforcement"] == '"reinforcement" in the abstract'


# ---------------------------------------------------------------- parts


@given(st.text(max_size=60))
@example("{\\\"O}zg{\\\"u}r \\ss{} \\o \\'\\i $x$ a~b \\& 50\\%")
def test_plain_never_fails_and_keeps_no_markup(text):
    assert not set("{}$~") & set(plain(text)) or "\\" in text
    assert title_key(text) == title_key(text.upper()) or text.upper().lower() != text.lower() or "\\" in text


TITLES = ["{\\\"O}zg{\\\"u}r", "\\'{E}mile", "Erd\\H{o}s", "Stra{\\ss}e", "S{\\o}ren",
          "{{Deep}} {L}earning", "A \\& B"]


@pytest.mark.parametrize("text", TITLES)
def test_a_title_is_the_same_in_latex_and_in_unicode(text):
    assert title_key(text) == title_key(decode(text).replace("ß", "ss").replace("ø", "o"))


def test_identifiers_in_their_bare_forms():
    text = "@misc{a, doi={https://dx.doi.org/10.1109/CVPR.2016.90}, url={https://arxiv.org/pdf/cs/0112017v3.pdf}}"
    (entry,) = Source(text.encode(), "x").entries()
    assert identifiers(read_fields(entry)) == {"doi": "10.1109/cvpr.2016.90", "arxiv": "cs/0112017"}


# ---------------------------------------------------------------- the shell


def test_import_from_the_shell(mine, bib, capsys):
    library = mine(ZOTERO + JABREF)
    base = ["--bib", str(bib.path)]
    assert cli.main([*base, "import", str(library.path)]) == 0
    out = capsys.readouterr().out
    assert "known     veitConvolutional2018 (line 1): ConvNet-AIG, by arXiv id, title" in out
    assert 'unit: token, for "token pruning" in the title' in out
    assert "2 entries: 1 known, 0 conflict, 1 new; 1 with facets proposed" in out
    assert "--write" in out
    assert cli.main([*base, "import", str(library.path), "--write"]) == 0
    assert "2 entries got keywords" in capsys.readouterr().out
    assert cli.main([*base, "find", "--in", str(library.path), "--unit", "layer"]) == 0
    assert "[aig]" in capsys.readouterr().out
    assert cli.main([*base, "search", "--in", str(library.path), "token", "--json"]) == 0
    assert '"key": "Mueller2019"' in capsys.readouterr().out
    assert cli.main([*base, "find", "--in", str(library.path), "nothingofthekind"]) == 1
    assert cli.main([*base, "find", "--in", str(library.path), "--implemented"]) == 2
    assert cli.main([*base, "import", str(library.path.parent / "nope.bib")]) == 2
    assert "nope.bib is not there; name a .bib file" in capsys.readouterr().err


def test_import_shows_control_characters_as_escapes(mine, bib, capsys):
    library = mine("@misc{a\x1b[31m, title = {Early exits \u202e\x1b[31m <script>}}")
    assert cli.main(["--bib", str(bib.path), "import", str(library.path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_copy_elsewhere_has_an_index_of_its_own(mine, kb, tmp_path):
    library = mine(ZOTERO)
    other = tmp_path / "other" / "mine.bib"
    other.parent.mkdir()
    shutil.copy(library.path, other)
    assert kb.library(other)._index != library._index
