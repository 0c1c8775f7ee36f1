"""A .bib file of the reader's own beside this literature: what is known here, what is new, what contradicts.

Reading matches every entry by DOI, arXiv id and title, and writes an SQLite index into the user's cache, from which
questions are answered until the file changes. LaTeX is decoded only for what is shown. The file itself is changed by
`write` alone: keywords go in, every other byte stays.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .bibtex import BadValue, Entry, Source
from .latex import LatexError, decode, plain
from .problems import LibraryError, Problem
from .propose import Proposal, proposals
from .schema import FACETS, VENUE
from .search import ranked

if TYPE_CHECKING:
    from .query import KnowledgeBase, Paper

FORMAT = "dynnotes.library/1"
STATES = ("known", "conflict", "new")
_DOI = re.compile(r"10\.\d{4,9}/[^\s{}\"]+")
_ARXIV = re.compile(r"(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?")
_ARXIV_IN = re.compile(r"(?:arxiv(?:\.org)?[.:/ ]+(?:abs/|pdf/)?|\babs/)" + _ARXIV.pattern, re.IGNORECASE)
_ARXIV_PLACES = ("journal", "volume", "howpublished", "arxivid")
_YEAR = re.compile(r"\d{4}")
_USED = {"title", "author", "year", "date", "doi", "eprint", "archiveprefix", "eprinttype", "url", "journaltitle",
         "volume", "arxivid", "keywords", "abstract", *VENUE.values()}  # fmt: skip
_SETTLED = 2_000_000_000  # ns; a file changed less than this before it was read may change again within one tick
_ORDER = ("taxon", *FACETS)
_NOT_LETTERS = re.compile(r"[\W_]+")
_TAG = re.compile(r"([a-z-]+):([a-z0-9/-]+)(\??)")
_SCHEMA = """
create table meta (name text primary key, value text);
create table entries (id integer primary key, key text, type text, title text, authors text, year integer, venue text,
  doi text, arxiv text, line integer, start integer, state text, paper text, why text);
create table tags (tag text, entry integer, sure integer, why text, primary key (tag, entry)) without rowid;
create table problems (line integer, what text, remedy text);
create virtual table texts using fts5(title, authors, more, content='', prefix='2 3 4', tokenize='porter unicode61');
"""
_WEIGHTS = (8.0, 4.0, 1.0)  # of title, authors and the rest in the ranking
_BATCH = 5_000


class Row(NamedTuple):
    """One entry of a library, LaTeX as it stands in the file, where it begins at `line` and byte `start`.

    `state` is known, conflict or new, `paper` the key of the paper here, `why` how that was found.
    """

    key: str
    type: str
    title: str
    authors: str
    year: int
    venue: str
    doi: str
    arxiv: str
    line: int
    start: int
    state: str
    paper: str
    why: str

    def record(self) -> dict:
        """Plain values, LaTeX decoded."""
        return {**self._asdict(), **{name: _shown(getattr(self, name)) for name in ("title", "authors", "venue")}}


def title_key(title: str) -> str:
    """A title without LaTeX, capitals, accents, spaces and punctuation: equal for equal papers."""
    return _NOT_LETTERS.sub("", plain(title).casefold())


def read_fields(entry: Entry) -> dict[str, str]:
    """The fields that matter here, as written, each on one line; what can't be read right is a problem of the file.

    What is not UTF-8 is read as Windows-1252, the usual other encoding; a name that is no @string as a word.
    """
    found = {}
    for name in _USED.intersection(entry.fields):
        try:
            text = entry.text(name)
        except BadValue as error:
            start, end = entry.fields[name]
            text = entry.source.data[start:end].decode("cp1252", "replace").strip('{}"')
            entry.source.wrong(error.at, f"{entry.key}: {name}: {error}", error.remedy)
        found[name] = " ".join(text.split()) if "\n" in text or "  " in text or "\r" in text else text.strip()
    return found


def identifiers(fields: dict[str, str]) -> dict[str, str]:
    """{"doi": ..., "arxiv": ..., "title": title_key} of an entry, as far as it has them, in their bare forms."""
    found = {}
    if "doi" in fields and (bare := _DOI.search(fields["doi"].replace("\\_", "_"))):
        found["doi"] = bare[0].lower()
    if "eprint" in fields:
        archive = fields.get("archiveprefix") or fields.get("eprinttype") or "arxiv"
        if archive.lower() == "arxiv" and (bare := _ARXIV.search(fields["eprint"])):
            found["arxiv"] = bare[1]
    url = fields.get("url", "")
    if "doi" not in found and "doi.org/" in url and (bare := _DOI.search(url)):
        found["doi"] = bare[0].lower()
    if "arxiv" not in found:
        places = (found.get("doi", ""), url, *(fields.get(name, "") for name in _ARXIV_PLACES))
        for text in places:
            if ("rxiv" in text or "abs/" in text or "RXIV" in text) and (bare := _ARXIV_IN.search(text)):
                found["arxiv"] = bare[1]
                break
    if found.get("doi", "").startswith("10.48550/"):  # that of an arXiv page says no more than the id
        del found["doi"]
    if title := title_key(fields.get("title", "")):
        found["title"] = title
    return found


def _shown(text: str) -> str:
    try:
        return decode(text)
    except LatexError:
        return plain(text)


class Matcher:
    """Says which paper of the knowledge base an entry is."""

    def __init__(self, papers: Iterable[Paper]):
        self.papers = {p.key: p for p in papers}
        self._by = {
            "doi": {p.doi.lower(): p.key for p in self.papers.values() if p.doi},
            "arxiv": {p.eprint: p.key for p in self.papers.values() if p.eprint},
            "title": {title_key(p.title): p.key for p in self.papers.values()},
        }

    def match(self, found: dict[str, str], year: int) -> tuple[str, str, str]:
        """(state, key here or "", why) of an entry with these identifiers."""
        hits = {name: self._by[name][value] for name, value in found.items() if value in self._by[name]}
        if not hits:
            return "new", "", ""
        keys = list(dict.fromkeys(hits.values()))
        if len(keys) > 1:
            told = " and ".join(f"its {_NAMES[name]} that of {key}" for name, key in hits.items())
            return "conflict", keys[0], f"{told}; correct one of the two"
        paper, by = self.papers[keys[0]], ", ".join(_NAMES[name] for name in hits)
        own = {"doi": paper.doi.lower(), "arxiv": paper.eprint}
        for name, value in own.items():
            if value and found.get(name, value) != value:
                here = "is not the one known here" if name == "arxiv" else "differs from the one known here"
                told = f"same {by} as {paper.key}, but its {_NAMES[name]} {found[name]} {here}, {value}"
                return "conflict", paper.key, f"{told}; another version, or a slip"
        if "title" in found and "title" not in hits and not _alike(found["title"], title_key(paper.title)):
            return "conflict", paper.key, f"same {by} as {paper.key}, but another title; correct one of the two"
        if list(hits) == ["title"] and year and abs(year - paper.year) > 2:
            told = f"same title as {paper.key}, but {year} instead of {paper.year}"
            return "conflict", paper.key, f"{told}; another paper, or a slip"
        return "known", paper.key, f"by {by}"


_NAMES = {"doi": "DOI", "arxiv": "arXiv id", "title": "title"}


def _alike(one: str, other: str) -> bool:
    """Whether two title keys may be one title, cut or reworded."""
    from difflib import SequenceMatcher

    return one in other or other in one or SequenceMatcher(None, one, other, autojunk=False).ratio() > 0.6


def tags_of(paper: Paper) -> list[str]:
    """Facets of a paper as tags, and the nodes it stands at or below: `decision:gating`, `taxon:sample/depth`."""
    nodes = {"/".join(node.split("/")[: i + 1]) for node in paper.nodes for i in range(node.count("/") + 1)}
    return [*paper.tags, *(f"taxon:{node}" for node in sorted(nodes))]


class Library:
    """A reader's .bib file. Opening it reads the index, or the file where that is missing or out of date.

    Raises LibraryError or OSError.
    """

    def __init__(self, kb: KnowledgeBase, path: str | os.PathLike):
        self.kb, self.path = kb, Path(path)
        if not self.path.is_file():
            what = "is a folder" if self.path.is_dir() else "is not there" if not self.path.exists() else "is no file"
            raise LibraryError(f"{self.path} {what}; name a .bib file")
        self._index = _index_path(self.path)
        self._db = self._open()
        if self._db is None:
            self.read()

    # ------------------------------------------------------------ the index

    def _open(self) -> sqlite3.Connection | None:
        """The index, if it is there, whole, and of this very file and knowledge base."""
        if self._index is None or not self._index.is_file():
            return None
        try:
            db = sqlite3.connect(f"{self._index.as_uri()}?mode=ro", uri=True)
            meta = dict(db.execute("select name, value from meta"))
        except sqlite3.Error:
            return None
        if meta.get("format") == FORMAT and meta.get("stamp") == self._stamp() and meta.get("kb") == _mark(self.kb):
            return db
        db.close()
        return None

    def _stamp(self) -> str:
        """What tells one state of the file from another; never the same twice while it may be in the making."""
        info, now = self.path.stat(), time.time_ns()
        return json.dumps([info.st_size, info.st_mtime_ns, info.st_ino, max(0, info.st_mtime_ns + _SETTLED - now)])

    def read(self) -> None:
        """Read the file, match every entry, and write the index anew: whole, or not at all."""
        stamp, data = self._stamp(), self.path.read_bytes()
        target = self._index
        if target:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                new = target.with_name(f"{target.name}.{os.getpid()}.tmp")
                new.unlink(missing_ok=True)
                db = sqlite3.connect(new)
                db.execute("pragma journal_mode = off")
            except (OSError, sqlite3.Error):
                target = None
        if not target:  # no cache: the index lives as long as this object
            db = sqlite3.connect(":memory:")
        try:
            db.execute("pragma synchronous = off")
            db.executescript(_SCHEMA)
            problems = self._fill(db, data)
            db.executemany("insert into problems values (?, ?, ?)", [(p.line, p.what, p.remedy) for p in problems])
            db.executemany("insert into meta values (?, ?)",
                           [("format", FORMAT), ("stamp", stamp), ("kb", _mark(self.kb))])  # fmt: skip
            db.commit()
            if target:
                db.close()
                os.replace(new, target)
                db = sqlite3.connect(f"{target.as_uri()}?mode=ro", uri=True)
        except BaseException:
            db.close()
            if target:
                new.unlink(missing_ok=True)
            raise
        self._db = db

    def _fill(self, db: sqlite3.Connection, data: bytes) -> list[Problem]:
        """Read the entries into an empty index; returns the problems of the file."""
        source, matcher = Source(data, str(self.path)), Matcher(self.kb.entries)
        seen: dict[tuple[str, str], str] = {}  # who was first with an identifier
        keys: set[str] = set()
        tags = {p.key: tags_of(p) for p in self.kb.entries}
        summary = {p.key: f"{p.method} {p.tldr}" for p in self.kb.entries}
        batch: list[tuple[list, list, list]] = [([], [], [])]

        def flush() -> None:
            rows, texts, marks = batch.pop()
            db.executemany("insert into entries values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.executemany("insert into texts(rowid, title, authors, more) values (?, ?, ?, ?)", texts)
            db.executemany("insert or ignore into tags values (?, ?, ?, ?)", marks)
            batch.append(([], [], []))

        for number, entry in enumerate(source.entries(), 1):
            fields = read_fields(entry)
            found, year = identifiers(fields), _year(fields)
            state, paper, why = matcher.match(found, year)
            if state != "conflict":
                for name in ("doi", "arxiv"):
                    first = seen.setdefault((name, found[name]), entry.key) if name in found else entry.key
                    if first != entry.key:
                        state, why = "conflict", f"same {_NAMES[name]} as {first} in this file; keep one of the two"
                        break
            if entry.key in keys:
                source.wrong(entry.start, f"key '{entry.key}' stands twice", "rename one of the two")
            keys.add(entry.key)
            rows, texts, marks = batch[-1]
            title, authors, venue = fields.get("title", ""), fields.get("author", ""), _venue(entry.type, fields)
            rows.append((number, entry.key, entry.type, title, authors, year, venue, found.get("doi", ""),
                         found.get("arxiv", ""), entry.line, entry.start, state, paper, why))  # fmt: skip
            keywords = plain(fields.get("keywords", ""))
            more = " ".join((entry.key, plain(venue), keywords, summary.get(paper, "")))
            texts.append((number, plain(title), plain(authors), more))
            if state == "known":
                marks += [(tag, number, 1, "") for tag in tags[paper]]
            elif state == "new":
                marks += [(f"{p.facet}:{p.word}", number, 0, p.why) for p in proposed(fields)]
            if keywords:  # tags that were put in by hand, or by `write`
                own = [f"{f}:{w}" for f, w, doubt in _TAG.findall(keywords) if f in FACETS and not doubt]
                marks += [(tag, number, 1, "") for tag in own]
            if len(rows) == _BATCH:
                flush()
        flush()
        return list(dict.fromkeys(source.problems))

    # ------------------------------------------------------------ questions

    @property
    def problems(self) -> list[Problem]:
        """What is wrong in the file."""
        return [Problem(str(self.path), *row) for row in self._db.execute("select * from problems")]

    def __len__(self) -> int:
        return self._db.execute("select count(*) from entries").fetchone()[0]

    def counts(self) -> dict[str, int]:
        """{state: number of entries}."""
        found = dict(self._db.execute("select state, count(*) from entries group by state"))
        return {state: found.get(state, 0) for state in STATES}

    def rows(self, state: str | None = None) -> Iterator[Row]:
        """Entries in the order of the file; all, or those of one state."""
        ask = "select * from entries where (?1 is null or state = ?1) order by id"
        for _, *values in self._db.execute(ask, (state,)):
            yield Row(*values)

    def search(self, text: str, limit: int = 20) -> list[Row]:
        """Entries that speak of `text`, best first, as `KnowledgeBase.search`."""
        return self._get(ranked(self._db, "texts", _WEIGHTS, text, limit))

    def find(
        self,
        words: Iterable[str] = (),
        since: int | None = None,
        until: int | None = None,
        taxon: Iterable[str] = (),
        **facets: Iterable[str],
    ) -> list[Row]:
        """Entries that meet every condition, oldest first; conditions as in `KnowledgeBase.papers`.

        Facets are those of papers known here, tags in the file's keywords, and proposals. Raises UnknownWord and
        UnknownName.
        """
        where, values = ["1"], []
        if since is not None:
            where, values = [*where, "year >= ?"], [*values, since]
        if until is not None:
            where, values = [*where, "year <= ?"], [*values, until]
        asked = {"taxon": [self.kb.node(node).id for node in taxon]} if taxon else {}
        for name, wanted in {**asked, **{k: list(v) for k, v in facets.items() if v}}.items():
            yes, no = [w for w in wanted if not w.startswith("-")], [w[1:] for w in wanted if w.startswith("-")]
            if name != "taxon":
                self.kb.known_words(name, [*yes, *no])
            for some, which in ((yes, "in"), (no, "not in")):
                if some:
                    where.append(f"id {which} (select entry from tags where tag in ({', '.join('?' * len(some))}))")
                    values += [f"{name}:{word}" for word in some]
        quoted = " ".join(f'"{w}"' for part in words for w in re.findall(r"[^\W_]+", part))
        if quoted:
            where, values = [*where, "id in (select rowid from texts where texts match ?)"], [*values, quoted]
        rows = self._db.execute(f"select * from entries where {' and '.join(where)} order by year, key", values)
        return [Row(*row[1:]) for row in rows]

    def _get(self, ids: list[int]) -> list[Row]:
        marks = ", ".join("?" * len(ids))
        found = {row[0]: Row(*row[1:]) for row in self._db.execute(f"select * from entries where id in ({marks})", ids)}
        return [found[i] for i in ids]

    # ------------------------------------------------------------ writing

    def proposals(self) -> Iterator[tuple[Row, list[Proposal]]]:
        """New entries that speak of dynamic networks, in the file's order, with what is proposed for them and why."""
        ask = "select e.*, t.tag, t.why from tags t join entries e on e.id = t.entry where not t.sure order by e.id"
        for (_, *values), found in groupby(self._db.execute(ask), key=lambda row: row[:-2]):
            guesses = [Proposal(*tag.split(":", 1), why) for *_, tag, why in found]
            yield Row(*values), sorted(guesses, key=lambda p: _ORDER.index(p.facet))

    def write(self) -> int:
        """Put facets into the keywords of the file: those of papers known here, and proposals, marked by `?`.

        Returns the number of entries that changed. Nothing else changes, not one byte; entries in conflict are left
        alone. The file is replaced whole or not at all. Raises LibraryError if it changed meanwhile.
        """
        from .rewrite import replace_file, with_keywords

        if self._meta("stamp") != self._stamp():
            self.read()
        data = self.path.read_bytes()
        wanted = {row.start: [f"{p.facet}:{p.word}?" for p in found if p.facet in FACETS]
                  for row, found in self.proposals()}  # fmt: skip
        for row in self.rows("known"):
            tags = self.kb[row.paper].tags
            wanted[row.start] = [tag for tag in tags if not tag.endswith((":none", ":unknown"))]
        new, changed = with_keywords(data, wanted)
        if changed:
            replace_file(self.path, data, new)
            self.read()
        return changed

    def _meta(self, name: str) -> str:
        (value,) = self._db.execute("select value from meta where name = ?", (name,)).fetchone() or ("",)
        return value


def proposed(fields: dict[str, str]) -> list[Proposal]:
    """What an entry's title, keywords and abstract suggest."""
    texts = {name: plain(fields[name]) for name in ("title", "abstract") if name in fields}
    if "keywords" in fields:
        texts["keywords"] = _TAG.sub(" ", plain(fields["keywords"]))  # tags of ours are no evidence for themselves
    return proposals(texts)


def _venue(type: str, fields: dict[str, str]) -> str:
    names = (VENUE.get(type, ""), "booktitle", "journal", "journaltitle")
    return next((fields[name] for name in names if fields.get(name)), "")


def _year(fields: dict[str, str]) -> int:
    found = _YEAR.search(fields.get("year") or fields.get("date", ""))
    return int(found[0]) if found else 0


def _mark(kb: KnowledgeBase) -> str:
    """A short mark of what entries are matched against: another knowledge base, another index."""
    return kb.digest or f"{zlib.crc32(repr(kb.entries).encode()):08x}"


def _index_path(path: Path) -> Path | None:
    from .index import cache_dir

    folder = cache_dir()
    whole = os.fsencode(path.resolve())
    return folder / f"library-{zlib.crc32(whole):08x}-{path.stem[:40]}.sqlite" if folder else None
