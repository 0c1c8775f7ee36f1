"""Hostile and broken BibTeX, made by the thousand, and what must hold for each: `python -m tests.knowledge.fuzz`.

Inputs are real entries, entries in the manner of Zotero, JabRef and DBLP, and hostile pieces, joined and then damaged
byte by byte. Whatever comes in: a located problem or a clean entry; no crash, no partial write, nothing lost.
"""

import argparse
import functools
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import dynnotes
from dynnotes.knowledge.bibtex import BadValue, Source
from dynnotes.knowledge.check import read_bibliography
from dynnotes.knowledge.problems import BibliographyError
from dynnotes.knowledge.query import KnowledgeBase

BIB = Path(__file__).parents[2] / "bib"
WILD = (
    "% Encoding: UTF-8\r\n\r\n@Article{Mueller2019,\r\n"
    "  author   = {J{\\\"o}rg M{\\\"u}ller and {van der} Maaten, L.},\r\n"
    "  title    = {Early {E}xits},\r\n  journal  = jmlr,\r\n  year     = {2019},\r\n  groups   = {a\\;b},\r\n}\r\n"
    "\r\n@Comment{jabref-meta: databaseType:bibtex;}\r\n",
    "@inproceedings{heDeepResidual2016,\n  title = {Deep {{Residual Learning}}},\n  author = {He, Kaiming},\n"
    "  date = {2016-06},\n  doi = {10.1109/CVPR.2016.90},\n  keywords = {vision; resnet},\n"
    "  file = {C\\:\\\\Users\\\\x\\\\He.pdf:application/pdf}\n}\n",
    "@article{DBLP:journals/corr/abs-1711-11503,\n  author    = {Andreas Veit and\n               Serge J. Belongie},\n"
    "  title     = {Convolutional Networks with Adaptive Inference Graphs},\n  journal   = {CoRR},\n"
    "  volume    = {abs/1711.11503},\n  year      = {2017},\n  eprinttype = {arXiv},\n  eprint    = {1711.11503},\n}\n",
    "@string{cvpr = {CVPR}}\n@string(eccv = \"ECCV \" # {20} # \"18\")\n@preamble{\"\\newcommand{\\x}[1]{}\"}\n",
    "@book(key,\n title = \"Quotes with {\"}braces{\"} # not joined\", year = 1999 # \"\", month = jan)\n",
)  # fmt: skip
PIECES = (
    "{", "}", "{{{{{{{{", "}}}}}}}}", '"', "@", "@article{", "@string{a = a # a}\n", "@string{a = b}@string{b = a}\n",
    "@comment{", "@article{x", "@article{x,", ",", "=", "#", "%", "\\", "\\{", "\\\"", "\n", "\r", "\r\n", "\t", "\0",
    "\ufeff", "\u202e", "\u0301" * 9, "\u200b", "عنوان", "标题", "🎉", "\ud7ff", "<script>alert(1)</script>",
    "url = {javascript:alert(1)},", "title = {<img src=x onerror=alert(1)>},", "]]>", "-->", "{{ 7*7 }}", "${x}",
    "'; --",
    "title = {a}, title = {b},", "keywords = {},", "keywords = kw # {x},", "keywords = {unit:token?, decision:gating},",
    "year = {20x8},", "doi = {10.1/x},", "eprint = {cs/0112017},", "author = {and and and},", "author = {a, b, c, d},",
    "\\'", "\\" * 7, "$x^2$", "~", "--", "{\\\"o}", "\\nosuch{", "\\begin{x}", "% comment\n", "@ARTICLE (", ")",
)  # fmt: skip
BYTES = (b"\xff", b"\xfe\xff", b"\xe9", b"\xc3", b"\x80", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b[31m", b"\x07")


@functools.cache
def _entries() -> tuple[bytes, ...]:
    found = []
    for path in sorted(BIB.rglob("*.bib")):
        data = path.read_bytes()
        found += [data[e.start : e.end] + b"\n" for e in Source(data, "").entries()]
    return tuple(found)


def make(seed: int) -> bytes:
    """The input with this number."""
    r = random.Random(seed)
    parts = [r.choice(r.choice([_entries(), _wild(), _pieces()])) for _ in range(r.randint(1, 6))]
    data = bytearray(b"".join(parts))
    for _ in range(r.choice([0, 1, 1, 2, 4, 16])):
        at = r.randrange(len(data) + 1)
        kind = r.randrange(5)
        if kind == 0:
            data[at:at] = r.choice(_pieces())
        elif kind == 1:
            data[at:at] = r.choice(BYTES)
        elif kind == 2:
            del data[at : at + r.choice([1, 1, 3, 40])]
        elif kind == 3:
            data[at:at] = data[r.randrange(len(data) + 1) :][: r.randint(1, 200)]
        else:
            data[at : at + 1] = bytes([r.randrange(256)])
    return bytes(data)


@functools.cache
def _wild() -> tuple[bytes, ...]:
    return tuple(text.encode() for text in WILD)


@functools.cache
def _pieces() -> tuple[bytes, ...]:
    return tuple(text.encode() for text in PIECES)


def check(number: int, folder: Path, kb: KnowledgeBase) -> str:
    """Ask everything of the input with this number, in a folder that has bib/taxonomy.yml; says how it was taken."""
    data = make(number)
    outcome = read(data)
    library(data, folder / "library.bib", kb)
    if number % 10:  # the bibliography's own reader parses the taxonomy each time, ten times the cost of the rest
        return outcome
    (folder / "bib" / "x.bib").write_bytes(data)
    try:
        read_bibliography(folder / "bib")
        return outcome
    except BibliographyError as error:
        problems = error.problems
    last = Source(data, "").line(len(data))
    assert problems
    assert all(p.what and p.remedy and p.line >= 1 for p in problems)
    assert all(p.line <= last for p in problems if p.file.endswith("x.bib"))
    return outcome


def read(data: bytes) -> str:
    """What must hold for the reader: entries in order, apart, whole; every value is text, or says where it is not."""
    source = Source(data, "x")
    entries, end = list(source.entries()), 0
    for e in entries:
        assert end <= e.start < e.end <= len(data)
        assert data[e.start : e.start + 1] == b"@"
        assert data[e.end - 1 : e.end] in (b"}", b")")
        end = e.end
        for name, (a, b) in e.fields.items():
            assert e.start < a < b < e.end
            try:
                e.text(name)
                continue
            except BadValue as error:
                fault = error
            assert a <= fault.at <= b
            assert fault.remedy
    outside = b"".join(data[a:b] for a, b in source.outside)
    assert b"\n@article{" not in outside.lower() or b"\0" in data, "an entry was passed over in silence"
    again = Source(b"\n".join(data[e.start : e.end] for e in entries), "x")
    same = [e.key for e in again.entries()] == [e.key for e in entries]
    assert same or source.problems, "an entry reads otherwise alone"
    return "problems" if source.problems else "clean" if entries else "nothing"


def library(data: bytes, path: Path, kb: KnowledgeBase) -> None:
    """What must hold for the importer: every entry is there once, questions are answered, a write changes keywords."""
    path.write_bytes(data)
    own = kb.library(path)
    count = len(list(Source(data, "").entries()))
    assert len(own) == count == sum(own.counts().values()) == len(list(own.rows()))
    own.search("early exits \" * OR")
    own.find(["graph"], since=1900, decision=["gating", "-policy"], taxon=["sample"])
    for row in own.rows():
        row.record()
    changed = own.write()
    after = path.read_bytes()
    assert (after != data) == bool(changed)
    assert _without_keywords(after) == _without_keywords(data)
    assert own.write() == 0, "a second write finds nothing to do"
    assert path.read_bytes() == after
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == [path.name], "no file is left beside it"


def _without_keywords(data: bytes) -> list:
    return [(e.type, e.key, {n: data[a:b] for n, (a, b) in e.fields.items() if n != "keywords"})
            for e in Source(data, "").entries()]  # fmt: skip


def main() -> int:
    ask = argparse.ArgumentParser(prog="python -m tests.knowledge.fuzz", description=__doc__.partition("\n")[0])
    ask.add_argument("--inputs", type=int, default=10_000)
    ask.add_argument("--first", type=int, default=0, help="number of the first input")
    args = ask.parse_args()
    os.environ["XDG_CACHE_HOME"] = "none"  # relative, so there is no cache: indexes stay in memory
    os.environ.pop("DYNNOTES_CACHE", None)
    kb, taken = dynnotes.load(), Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bib").mkdir()
        (folder / "bib" / "taxonomy.yml").write_bytes((BIB / "taxonomy.yml").read_bytes())
        for seed in range(args.first, args.first + args.inputs):
            try:
                taken[check(seed, folder, kb)] += 1
            except Exception as error:
                print(f"input {seed}: {type(error).__name__}: {error}", file=sys.stderr)
                raise
            if seed % 1000 == 999:
                print(f"up to {seed}: {sum(taken.values()):,} inputs: {dict(taken)}", flush=True)
    print(f"{sum(taken.values()):,} inputs, no failure: {dict(taken)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
