"""Questions to the literature: `kb.papers(taxon="sample/depth", decision="gating")`, `kb["ConvNet-AIG"]`.

Everything here works on the records of the index and uses the standard library alone; NetworkX and torch are imported
by the methods that return a graph or a class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from .problems import fold, nearest
from .schema import FACETS, MANY

if TYPE_CHECKING:
    from .lists import ReadingList
    from .records import Record


class UnknownName(KeyError):
    """A paper, taxon, list or chapter that isn't there; `nearest` holds the names most like it."""

    def __init__(self, what: str, name: str, known: Iterable[str]):
        self.name, self.nearest = name, nearest(name, known)
        hint = f"did you mean {' or '.join(self.nearest)}?" if self.nearest else "nothing known is like it"
        self.message = f"no {what} '{name}'; {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would show the quoted repr
        return self.message


class UnknownWord(ValueError):
    """A facet, or a word of one, that the closed vocabulary doesn't have; the message lists those it has."""

    def __init__(self, what: str, word: str, known: Iterable[str]):
        known = list(known)
        self.word, self.nearest = word, nearest(word, known, 1)
        hint = f"did you mean '{self.nearest[0]}'? " if self.nearest else ""
        super().__init__(f"unknown {what} '{word}'; {hint}known: {', '.join(known)}")


@dataclass(frozen=True)
class Relation:
    """`kind` (extends, improves, ...) of the paper with key `target`, and `where` the paper says so."""

    kind: str
    target: str
    where: str


@dataclass(frozen=True)
class Node:
    """A node of the taxonomy; `id` is its path, `survey` the section(s) of the survey or None."""

    id: str
    label: str
    zh: str
    about: str
    survey: str | None = None

    @property
    def parent(self) -> str:
        return self.id.rpartition("/")[0]

    @property
    def depth(self) -> int:
        return self.id.count("/")


@dataclass(frozen=True)
class Paper:
    """One entry of the bibliography. Multi-valued fields are tuples; empty text where the entry says nothing.

    `names` are (last, first) or (last, jr, first) parts, `extra` further standard BibTeX fields as (name, value),
    `venue` the journal, proceedings or school, `eprint` the arXiv id, `file` and `line` where the entry stands.
    """

    key: str
    type: str
    title: str
    names: tuple[tuple[str, ...], ...]
    year: int
    method: str
    venue: str = ""
    eprint: str = ""
    doi: str = ""
    url: str = ""
    code: str = ""
    aka: tuple[str, ...] = ()
    taxon: str = ""
    leaf: str = ""
    also: tuple[str, ...] = ()
    kind: str = ""
    adapts: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    decision: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    executes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    tldr: str = ""
    headline: str = ""
    lists: tuple[str, ...] = ()
    status: str = ""
    relations: tuple[Relation, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()
    file: str = field(default="", compare=False)  # where it stands is no part of what it says
    line: int = field(default=0, compare=False)

    @classmethod
    def from_record(cls, record: Mapping) -> Paper:
        """A paper of an index record. Raises TypeError, KeyError or ValueError for anything else."""
        values = dict(record)
        for name in MANY:
            values[name] = tuple(values[name])
        values["names"] = tuple(tuple(n) for n in values["names"])
        values["extra"] = tuple((k, v) for k, v in values["extra"])
        values["relations"] = tuple(Relation(*r) for r in values["relations"])
        return cls(**values)

    @property
    def authors(self) -> tuple[str, ...]:
        """`First Last` of each author."""
        return tuple(f"{n[2]} {n[0]} {n[1]}" if len(n) == 3 else " ".join(reversed(n)) for n in self.names)

    @property
    def node(self) -> str:
        """The deepest taxonomy node it stands at."""
        return f"{self.taxon}/{self.leaf}" if self.leaf else self.taxon

    @property
    def nodes(self) -> tuple[str, ...]:
        """All taxonomy nodes it belongs to, its own first."""
        return (self.node, *self.also)

    @property
    def link(self) -> str:
        """The best address to read it at: its url, arXiv page or DOI; empty where none is known."""
        arxiv = f"https://arxiv.org/abs/{self.eprint}" if self.eprint else ""
        return self.url or arxiv or (f"https://doi.org/{self.doi}" if self.doi else "")

    @property
    def tags(self) -> list[str]:
        """Its facets as tags, which Zotero and JabRef show: `decision:gating`."""
        return [f"{facet}:{word}" for facet in FACETS for word in _many(getattr(self, facet)) if word]

    def within(self, taxon: str) -> bool:
        """Whether it stands at this node or below it, by its own taxon or by `also`."""
        return any(n == taxon or n.startswith(taxon + "/") for n in self.nodes)

    def bibtex(self, full: bool = False) -> str:
        """A BibTeX entry fit to cite, facets as `keywords`; `full` adds every field of this bibliography."""
        from .export import bibtex

        return bibtex(self, full)

    def record(self) -> dict:
        """Plain lists and dicts for JSON, with `authors`, `node` and `link` spelt out."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["relations"] = [{"kind": r.kind, "target": r.target, "where": r.where} for r in self.relations]
        values["extra"] = dict(self.extra)
        return values | {"authors": self.authors, "node": self.node, "link": self.link}

    @property
    def source(self):
        """Where its implementation stands (`registry.Source`), or None. Imports no torch."""
        from dynnotes import registry

        return registry.sources().get(self.key)

    @property
    def standing(self) -> str:
        """"implemented", "planned" (a method or system without code here) or "reference" (what is only cited)."""
        return "implemented" if self.source else "planned" if self.kind in ("method", "system") else "reference"

    @property
    def implementation(self):
        """Its model class, or None where there is none yet. Imports torch."""
        source = self.source
        return source.load() if source else None


class KnowledgeBase:
    """The papers, their relations, and the tree they hang on.

    `len` and iteration are over the literature proper; static ancestors (kind "background") answer by name and to
    `papers(kind="background")`, and `entries` holds all.
    """

    def __init__(self, index: Mapping):
        taxonomy = index["taxonomy"]
        self.facets: dict[str, dict[str, str]] = taxonomy["facets"]
        self.relations: dict[str, str] = taxonomy["relations"]
        self.lists: dict[str, str] = taxonomy["lists"]
        self.record_kinds: dict[str, str] = taxonomy.get("records", {})
        self.nodes: tuple[Node, ...] = tuple(Node(**n) for n in taxonomy["nodes"])
        self.entries: tuple[Paper, ...] = tuple(Paper.from_record(r) for r in index["papers"])
        self.chapters: tuple[str, ...] = tuple(index.get("chapters", ()))  # pages of the book, in an installed package
        self.digest: str = index.get("digest", "")  # of the files it was read from
        self._nodes = {n.id: n for n in self.nodes}
        self._names: dict[str, Paper] = {}
        loose: dict[str, set[str]] = {}
        for paper in self.entries:
            for name in (paper.key, paper.method, *paper.aka):
                self._names.setdefault(name.casefold(), paper)
                loose.setdefault(_loose(name), set()).add(paper.key)
        self._by_key = {p.key: p for p in self.entries}
        self._records = {r["id"]: r for r in index.get("records", ())}
        self._lists = {r["name"]: r for r in index.get("lists", ())}
        self._engine = None  # of the full-text search, made when it is first asked
        self._loose = {name: keys.pop() for name, keys in loose.items() if len(keys) == 1 and name}

    def __repr__(self) -> str:
        return f"<KnowledgeBase: {len(self)} papers, {len(self.nodes)} taxonomy nodes>"

    def __len__(self) -> int:
        return sum(p.kind != "background" for p in self.entries)

    def __iter__(self) -> Iterator[Paper]:
        return (p for p in self.entries if p.kind != "background")

    def __contains__(self, name: object) -> bool:
        if isinstance(name, Paper):
            return self._by_key.get(name.key) == name
        return isinstance(name, str) and self._find(name) is not None

    def __getitem__(self, name: str) -> Paper:
        """The paper with this key, method or other name; capitals, spaces and hyphens are forgiven."""
        if paper := self._find(name):
            return paper
        known = [n for p in self.entries for n in (p.key, p.method, *p.aka)]
        raise UnknownName("paper", str(name), known)

    def _find(self, name: str) -> Paper | None:
        exact = self._by_key.get(name) or self._names.get(name.casefold())
        return exact or self._by_key.get(self._loose.get(_loose(name), ""))

    def node(self, id: str) -> Node:
        """The taxonomy node with this path. Raises UnknownName."""
        id = str(id).strip("/")
        if id in self._nodes:
            return self._nodes[id]
        raise UnknownName("taxon", id, self._nodes)

    def children(self, id: str = "") -> tuple[Node, ...]:
        """The nodes right below one, or the roots, in display order."""
        return tuple(n for n in self.nodes if n.parent == id)

    def papers(
        self,
        taxon: str | Iterable[str] | None = None,
        since: int | None = None,
        until: int | None = None,
        *,
        words: str | Iterable[str] = (),
        implemented: bool | None = None,
        **facets: str | Iterable[str],
    ) -> list[Paper]:
        """Papers that meet every condition, oldest first; a list of values means any of them.

        `taxon` matches descendants, `since` and `until` are years and inclusive, `words` must all occur in title,
        names, authors, venue or summary. Facets are those of `kb.facets`, and `lists`. Raises UnknownName for a taxon
        and UnknownWord for a facet or a word of one. A word with a minus before it excludes: decision="-policy".
        """
        asked = {name: _signed(values) for name, values in facets.items() if values is not None}
        wanted = {name: self.known_words(name, yes) for name, (yes, _) in asked.items() if yes or not asked[name][1]}
        unwanted = {name: self.known_words(name, no) for name, (_, no) in asked.items()}
        taxa = None if taxon is None else [self.node(t).id for t in _many(taxon)]
        words = [fold(w) for part in _many(words) for w in part.split()]
        have = None
        if implemented is not None:
            from dynnotes import registry

            have = registry.sources()

        def fits(p: Paper) -> bool:
            return (
                (p.kind != "background" or "kind" in wanted)
                and (since is None or p.year >= since)
                and (until is None or p.year <= until)
                and (taxa is None or any(p.within(t) for t in taxa))
                and all(any(v in _many(getattr(p, name)) for v in values) for name, values in wanted.items())
                and not any(v in _many(getattr(p, name)) for name, values in unwanted.items() for v in values)
                and (have is None or (p.key in have) == implemented)
                and (not words or _matches(p, words))
            )

        return [p for p in self.entries if fits(p)]

    def known_words(self, name: str, values: str | Iterable[str]) -> list[str]:
        """The values asked of a facet, each in its vocabulary. Raises UnknownWord."""
        if name == "lists":
            vocabulary: Mapping[str, str] = self.lists
        elif name in self.facets:
            vocabulary = self.facets[name]
        else:
            raise UnknownWord("facet", name, [*self.facets, "lists", "taxon", "since", "until", "words", "implemented"])
        values = _many(values)
        for value in values:
            if value not in vocabulary:
                raise UnknownWord(f"word of facet {name}" if name != "lists" else "list", str(value), vocabulary)
        return values

    def records(self, kind: str | None = None) -> list[Record]:
        """What the field has beside papers, of one of `record_kinds` or all, each kind by year. Raises UnknownWord."""
        if kind is not None and kind not in self.record_kinds:
            raise UnknownWord("kind of record", kind, self.record_kinds)
        return [self.record(id) for id, r in self._records.items() if kind is None or r["kind"] == kind]

    def record(self, id: str) -> Record:
        """The record with this id. Raises UnknownName."""
        from .records import Record

        if id in self._records:
            return Record.from_record(self._records[id])
        raise UnknownName("record", id, self._records)

    def papers_of(self, record: Record) -> list[Paper]:
        """The papers that a record names; of a conference those of the literature that appeared there."""
        from .records import papers_of

        return papers_of(self, record)

    def list(self, name: str) -> ReadingList:
        """The founding list of this name in its own order and grouping; its papers by year where it has no file.

        Raises UnknownName.
        """
        from .lists import Group, Listed, ReadingList

        if name in self._lists:
            return ReadingList.from_record(self._lists[name])
        if name not in self.lists:
            raise UnknownName("list", name, self.lists)
        papers = tuple(Listed(p.key) for p in self.entries if name in p.lists)
        return ReadingList(name, name, self.lists[name], groups=(Group("Papers", papers=papers),))

    def most_cited(self, count: int = 10) -> list[tuple[Paper, int]]:
        """[(paper, how many papers here state a relation to it)], most first; what surveys survey does not count."""
        by: dict[str, set[str]] = {}
        for p in self.entries:
            for r in p.relations:
                if r.kind != "survey-of":
                    by.setdefault(r.target, set()).add(p.key)
        found = [(self._by_key[key], len(who)) for key, who in by.items()]
        return sorted(found, key=lambda pair: (-pair[1], pair[0].year, pair[0].key))[:count]

    def cited_by(self, key: str) -> list[tuple[Paper, Relation]]:
        """Relations that point at a paper: (the paper that has it, the relation)."""
        return [(p, r) for p in self.entries for r in p.relations if r.target == key]

    def search(self, text: str, limit: int = 20) -> list[Paper]:
        """Papers that speak of `text`, best first: title, names, authors, summary, venue and facets, by word stems.

        Papers with all words come before papers with some; the last word may be unfinished.
        """
        from .search import COLUMNS, engine, ranked

        if self._engine is None:
            self._engine = engine(self.entries)
        return [self.entries[row] for row in ranked(self._engine, "papers", COLUMNS.values(), text, limit)]

    def lineage(self, name: str) -> str:
        """What a paper builds on and what builds on it, as a text tree with the places that say so."""
        from .lineage import lineage

        return lineage(self, name)

    def relatives(self, name: str, count: int = 10) -> list[tuple[Paper, float, list[str]]]:
        """[(paper, score, why it is near)], nearest first."""
        from .relatives import relatives

        return relatives(self, name, count)

    def reading_path(self, start: str, goal: str, most: int = 5) -> list[tuple[Paper, str]]:
        """[(paper, why it follows)] from a paper to another, or to the nearest below a taxonomy node; [] if too far."""
        from .lineage import reading_path

        return reading_path(self, start, goal, most)

    def export(self, papers: Iterable[Paper], format: str, **options) -> str | bytes:
        """Papers in one of `dynnotes.knowledge.export.FORMATS`: kb.export(kb.papers(unit="token"), "csv")."""
        from .export import export

        return export(self, papers, format, **options)

    def compare(self, *names: str):
        """Papers side by side: `print` it, or ask it for markdown(), latex() or frame()."""
        from .compare import Comparison

        return Comparison(self, names)

    def gaps(self, *axes: str):
        """Every combination of unit, decision, training and execution (or of other facets) with its papers."""
        from .gaps import AXES, cells

        return cells(self, axes or AXES)

    def timeline(self) -> dict[int, list[Paper]]:
        """{year: papers}, oldest first."""
        years: dict[int, list[Paper]] = {}
        for p in sorted(self, key=lambda p: (p.year, p.key)):
            years.setdefault(p.year, []).append(p)
        return years

    def library(self, path):
        """A .bib file of your own beside this literature (`library.Library`): what is known, new or in conflict."""
        from .library import Library

        return Library(self, path)

    def taxonomy(self):
        """The tree as a networkx.DiGraph, parent to child; nodes carry label, zh, about, survey and papers."""
        from .graph import taxonomy

        return taxonomy(self)

    def graph(self):
        """Papers and typed relations as a networkx.MultiDiGraph; an edge's key is the relation's kind."""
        from .graph import graph

        return graph(self)


def _many(values: str | Iterable[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _signed(values: str | Iterable[str]) -> tuple[list[str], list[str]]:
    """Words asked for, and words excluded by a minus."""
    values = _many(values)
    return [v for v in values if not v.startswith("-")], [v[1:] for v in values if v.startswith("-")]


def _loose(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _matches(p: Paper, words: list[str]) -> bool:
    text = fold("\n".join([p.key, p.title, p.method, *p.aka, *p.authors, p.venue, p.tldr, str(p.year), p.eprint]))
    return all(w in text for w in words)
