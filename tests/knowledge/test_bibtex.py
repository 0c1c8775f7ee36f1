"""BibTeX as found in the wild: what is legal is read, what is broken is named with its line."""

import pytest

LEGAL = """\
@string{eccv = "European Conference " # {on Computer Vision}}
@STRING(who = {Veit, Andreas and Belongie, Serge})
@comment{jabref-meta: databaseType:bibtex; {nested {braces}} and @article{x, title={y}}}
@preamble{"\\newcommand{\\noop}[1]{}"}
Zotero writes a line like this one.
@InProceedings(wild2018,
  TITLE = "Nested {B{r}aces}, a {"}quote{"} and 100\\% {\\'e}t{\\'e} -- $\\alpha$",
  Author = who # { and M{\\"u}ller, J{\\"o}rg},  booktitle=eccv, YEAR = 2018 , month = jan,
  pages = {12--34}, method = {Wild}, kind = {method}, taxon = {sample/depth/skips}, adapts = {input},
  unit = {layer;exit;},
  decision = {gating}, training = {soft}, executes = {theoretical}, modality = {3d}, tasks = {no},
  tldr = {Costs ~2x less, saves 50% & more
          over two lines.}, status = {checked},
)
"""


@pytest.mark.parametrize("form", ["lf", "crlf", "cr", "bom"])
def test_legal_bibtex_of_the_wild(bib, form):
    data = LEGAL.encode("utf-8")
    data = {
        "lf": data,
        "crlf": data.replace(b"\n", b"\r\n"),
        "cr": data.replace(b"\n", b"\r"),
        "bom": b"\xef\xbb\xbf" + data,
    }[form]
    bib.write("a.bib", data)
    p = bib.read()["wild"]
    assert p.title == 'Nested Braces, a "quote" and 100% été – α'
    assert p.authors == ("Andreas Veit", "Serge Belongie", "Jörg Müller")
    assert p.venue == "European Conference on Computer Vision"
    assert (p.year, p.unit, p.modality, p.tasks) == (2018, ("layer", "exit"), ("3d",), ("no",))
    assert dict(p.extra) == {"month": "jan", "pages": "12–34"}
    assert p.tldr == "Costs ~2x less, saves 50% & more over two lines."
    assert (p.file, p.line) == ("bib/a.bib", 6)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("@article{a,\n title = {A}\n year = {2018}}\n", 3, ["comma is missing", "year = {2018}"]),
        (
            "@article{a,\n title = {A}, year = {2018\n}\n\n@article{b, title = {B}}\n",
            1,
            ["entry a can't be read", "braces"],
        ),
        ("\n\n@article{a\n title = {A}}\n", 3, ["can't be read", "commas"]),
        ("@article{a, title = {A},\n title = {B}}\n", 2, ["title stands twice"]),
        ("@article{a, title = {A},\n Title = {B}}\n", 2, ["title stands twice"]),
        ("@article{a,\n title = {A}, journal = nips}\n", 2, ["'nips' is no @string", "braces"]),
        ("@article{a,\n title = }\n", 2, ["no value"]),
        ("@article{, title = {A}}\n", 1, ["bad key ''"]),
        ("@article{../evil, title = {A}}\n", 1, ["bad key '../evil'"]),
        ("@artcle{a, title = {A}}\n", 1, ["unknown entry type @artcle", "did you mean 'article'?"]),
        ("@string{x = {1}}\n@string{x = {2}}\n", 2, ["@string x is defined twice"]),
        ("@article{a, title = {A}}}\n", 1, ["text outside any entry"]),
        ("hello\narticle{a,\n title = {A}}\n", 2, ["text outside any entry"]),
        ("@ article of mine {a, title={A}}\n", 1, ["text outside any entry"]),
        ("@article{a,\n title = {\\nonsense{A}}}\n", 2, ["unknown LaTeX command \\nonsense"]),
        ("@article{a,\n title = {costs $5}}\n", 2, ["title: LaTeX that can't be read"]),
    ],
)
def test_malformed_input_is_named_with_its_line(bib, text, line, words):
    bib.write("x/broken.bib", text)
    found = [p for p in bib.problems() if p.startswith(f"bib/x/broken.bib:{line}: ")]
    assert any(all(w in p for w in words) for p in found), bib.problems()
    assert all("; " in p for p in found)


@pytest.mark.parametrize(
    ("data", "line"),
    [(b"@article{a,\n title = {\xe9t\xe9}}\n", 2), ("@article{a,}".encode("utf-16-le"), 1), (b"\xff\xfe@\0a\0", 1)],
)
def test_files_that_are_not_utf8(bib, data, line):
    bib.write("a.bib", data)
    (problem,) = bib.problems()
    assert problem.startswith(f"bib/a.bib:{line}: ")
    assert "save the file as UTF-8" in problem


def test_text_of_an_entry_that_stops_early_is_reported_once(bib, entry):
    bib.write("a.bib", entry("one") + "@article{two, title = {Two\n\n" + entry("three"))
    problems = bib.problems()
    assert len(problems) == 1
    assert "bib/a.bib:19: entry two can't be read" in problems[0]


def test_every_problem_of_every_file_at_once_and_nothing_loaded(bib, entry):
    bib.write("a.bib", entry("one", year="20x8") + entry("two", decision="gateing"))
    bib.write("b.bib", entry("one", method="Other"))
    bib.write("c.bib", "@article{c, title = {C}\n year = {2000}}")
    bib.write("taxonomy.yml", bib.path.joinpath("taxonomy.yml").read_text() + "  - {id: new/node, label: N}\n")
    text = "\n".join(bib.problems())
    for expected in (
        "bib/a.bib:5: one: year '20x8'",
        "did you mean 'gating'?",
        "key 'one' is already taken (bib/a.bib:1)",
        "bib/c.bib:2: ",
        "bib/taxonomy.yml:19: a taxonomy node without 'zh'",
    ):
        assert expected in text
