"""The founding lists, from bib/lists: which papers each holds, in its own order and grouping, and what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .problems import Problem, suggestion
from .schema import LINK
from .yamlnodes import Reader, compose

if TYPE_CHECKING:
    from .query import KnowledgeBase, Paper
    from .taxonomy import Taxonomy


@dataclass(frozen=True)
class Listed:
    """A paper on a list: its key, the list's tags for it, its columns date and focus, and a note of ours."""

    key: str
    tags: tuple[str, ...] = ()
    date: str = ""
    focus: str = ""
    note: str = ""

    @property
    def remark(self) -> str:
        """Date, focus and note as one text."""
        return ". ".join(filter(None, [": ".join(filter(None, [self.date, self.focus])), self.note]))


@dataclass(frozen=True)
class Group:
    """A heading of a list with what stands below it: papers, kinds of records, and further groups.

    `node` is the place in the taxonomy that means the same, `zh` the list's own heading where that is Chinese.
    """

    title: str
    about: str = ""
    zh: str = ""
    node: str = ""
    records: tuple[str, ...] = ()
    papers: tuple[Listed, ...] = ()
    groups: tuple[Group, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping) -> Group:
        values = dict(record)
        values["records"] = tuple(values["records"])
        values["papers"] = tuple(Listed(**{**p, "tags": tuple(p["tags"])}) for p in values["papers"])
        values["groups"] = tuple(map(cls.from_record, values["groups"]))
        return cls(**values)

    @property
    def heading(self) -> str:
        """Title and Chinese title."""
        return " / ".join(filter(None, [self.title, self.zh]))

    @property
    def outline(self) -> bool:
        """Whether only headings stand below it; these are shown as a nested list."""
        return not any(g.papers or g.records for g in self.walk())

    def walk(self) -> Iterator[Group]:
        """Itself and all groups below it, in order."""
        yield self
        for group in self.groups:
            yield from group.walk()


@dataclass(frozen=True)
class Note:
    """What a list says beside its papers, in our own words."""

    title: str
    text: str
    link: str = ""


@dataclass(frozen=True)
class ReadingList:
    """A founding list; `tags` explains those of its papers, `source` is where it can be read."""

    name: str
    title: str
    about: str
    source: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    groups: tuple[Group, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping) -> ReadingList:
        """A list of the index."""
        values = dict(record)
        values["notes"] = tuple(Note(**note) for note in values["notes"])
        values["groups"] = tuple(map(Group.from_record, values["groups"]))
        return cls(**values)

    def record(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)

    def walk(self) -> Iterator[Group]:
        """All groups, in order."""
        for group in self.groups:
            yield from group.walk()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its papers in its order; one that it names twice stands here twice."""
        return tuple(listed.key for group in self.walk() for listed in group.papers)

    def text(self, kb: KnowledgeBase) -> str:
        """The list for a terminal: a line per paper, groups indented."""
        lines = [self.title, self.about, *filter(None, [self.source])]
        lines += [f"[{tag}] {meaning}" for tag, meaning in self.tags.items()]
        for note in self.notes:
            lines += ["", note.title, *(f"  {part}" for part in (note.text, note.link) if part)]
        for group in self.groups:
            lines += ["", *_text(kb, group, "")]
        return "\n".join(lines)

    def markdown(self, kb: KnowledgeBase) -> str:
        """The list as a Markdown page of links; everything that is data is escaped."""
        parts = [f"# {escaped(self.title)}", escaped(self.about)]
        if self.source:
            parts.append(_link("The list itself", self.source))
        if self.tags:
            parts.append("\n".join(f"- `{tag}`: {escaped(meaning)}" for tag, meaning in self.tags.items()))
        for note in self.notes:
            link = f" {_link(bare(note.link), note.link)}" if note.link else ""
            parts += [f"## {escaped(note.title)}", escaped(note.text) + link]
        for group in self.groups:
            parts += _markdown(kb, group, 2)
        return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------- for a terminal and as Markdown


def _text(kb: KnowledgeBase, group: Group, pad: str) -> Iterator[str]:
    yield pad + group.heading + (f"  ({group.node})" if group.node else "")
    pad += "  "
    if group.about:
        yield pad + group.about
    width = max((len(listed.key) for listed in group.papers), default=0)
    for listed in group.papers:
        paper, tags = kb[listed.key], "".join(f"  [{tag}]" for tag in listed.tags)
        yield f"{pad}{paper.year}  {paper.key:{width}}  {paper.title}{tags}"
        if listed.remark:
            yield f"{pad}      {listed.remark}"
    for kind in group.records:
        for record in kb.records(kind):
            yield f"{pad}{' / '.join(filter(None, [record.name, record.zh]))}: {record.about}"
    for below in group.groups:
        yield from _text(kb, below, pad)


def _markdown(kb: KnowledgeBase, group: Group, level: int) -> list[str]:
    parts = [f"{'#' * min(level, 6)} {escaped(group.heading)}"]
    if group.about:
        parts.append(escaped(group.about))
    if group.node:
        parts.append(f"In the taxonomy: `{group.node}`")
    lines = [_paper(kb[listed.key], listed) for listed in group.papers]
    for record in (r for kind in group.records for r in kb.records(kind)):
        name = " / ".join(filter(None, [record.name, record.zh]))
        lines.append(f"- {_link(name, record.url)}: {escaped(record.about)}")
    if group.outline:
        lines += [line for below in group.groups for line in _bullets(below, "")]
    if lines:
        parts.append("\n".join(lines))
    if not group.outline:
        for below in group.groups:
            parts += _markdown(kb, below, level + 1)
    return parts


def _bullets(group: Group, pad: str) -> Iterator[str]:
    node = f" (`{group.node}`)" if group.node else ""
    about = f": {escaped(group.about)}" if group.about else ""
    yield f"{pad}- {escaped(group.heading)}{node}{about}"
    for below in group.groups:
        yield from _bullets(below, pad + "  ")


def _paper(paper: Paper, listed: Listed) -> str:
    place = " ".join(filter(None, [paper.venue, str(paper.year)]))
    parts = [f"- {_link(paper.title, paper.link)} ({escaped(place)})."]
    parts.append(escaped(", ".join(paper.authors)) + ".")
    if paper.code:
        parts.append(_link("code", paper.code))
    parts += [f"`{tag}`" for tag in listed.tags]
    if listed.remark:
        parts.append(escaped(listed.remark))
    return " ".join(parts)


def _link(label: str, url: str) -> str:
    """A Markdown link, or the label alone where there is no address."""
    return f"[{escaped(label)}]({quote(url, safe='/:?#@!$&*+,;=%~-._')})" if url else escaped(label)


def bare(url: str) -> str:
    """An address as a reader says it."""
    return re.sub(r"^https?://(www\.)?|/$", "", url)


def escaped(text: str) -> str:
    """Text as one line of Markdown in which nothing is markup; ordinary punctuation stays legible."""
    text = re.sub(r"([\\`*_{}\[\]<>#|&!~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)  # what would begin a list or underline a heading


# ---------------------------------------------------------------- reading and checking


_OF_LIST = ("title", "about", "source", "tags", "notes", "groups")
_OF_NOTE = ("title", "text", "link")
_OF_GROUP = ("title", "about", "zh", "node", "records", "papers", "groups")
_OF_PAPER = ("key", "tags", "date", "focus", "note")


def read_lists(
    bib: Path, papers: list[dict], lines: dict, broken: set[str], taxonomy: Taxonomy | None, problems: list[Problem]
) -> list[dict]:
    """The lists of a bibliography's folder as the index keeps them; what is wrong with them goes to `problems`.

    `papers` are the entries read, `lines` the lines of their fields by the entry's id(), `broken` the keys of entries
    that could not be read. Without a taxonomy nothing can be looked up, and nothing is read.
    """
    from . import files

    if taxonomy is None:
        return []
    found = []
    by_key = {p["key"]: p for p in papers}
    for path in sorted((bib / "lists").glob("*.yml")):
        file = path.relative_to(bib.parent).as_posix()
        if path.stem not in taxonomy.lists:
            remedy = f"{suggestion(path.stem, taxonomy.lists)}; rename the file, or explain it under lists there"
            problems.append(Problem(file, 1, f"no list '{path.stem}' in taxonomy.yml", remedy))
            continue
        text, wrong = files.decode(path.read_bytes(), file)
        problems += wrong
        before = len(problems)
        root = None if wrong else compose(text, file, problems)
        if root is None:
            if not wrong and len(problems) == before:
                problems.append(Problem(file, 1, "an empty list", "write its title, about and groups"))
            continue
        reader = _ListReader(file, problems, by_key, broken, taxonomy)
        reading = reader.reading_list(root, path.stem)
        if len(problems) == before:  # else a paper may stand in what could not be read
            _check_named(reading, papers, lines, file, problems)
        found.append(reading.record())
    return found


def _check_named(reading: ReadingList, papers: list[dict], lines: dict, file: str, problems: list[Problem]) -> None:
    """Entries that name a list stand on it."""
    keys = set(reading.keys)
    for paper in papers:
        if reading.name in paper["lists"] and paper["key"] not in keys:
            what = f"{paper['key']}: it names the list {reading.name}, where it does not stand"
            remedy = f"add it to {file}, or remove the word"
            problems.append(Problem(paper["file"], lines[id(paper)]["lists"], what, remedy))


class _ListReader(Reader):
    """Reads one file of bib/lists; each problem has the line of its node."""

    def __init__(self, file: str, problems: list[Problem], by_key: dict, broken: set[str], taxonomy: Taxonomy):
        super().__init__(file, problems)
        self.by_key, self.broken, self.taxonomy = by_key, broken, taxonomy
        self.nodes = {node["id"] for node in taxonomy.nodes}
        self.tags: dict[str, str] = {}
        self.seen: set[int] = set()

    def reading_list(self, root, name: str) -> ReadingList:
        fields = self.fields(root, "a list", _OF_LIST, ("title", "about", "groups"))
        if "tags" in fields:
            self.tags = self.words(fields["tags"], "tags")
            for tag in self.tags:
                if not re.fullmatch(r"[\w-]+", tag):
                    self.wrong(fields["tags"], f"bad tag '{tag}'", "use letters, digits and '-'")
        self.name = name
        notes = [self.note(node) for node in self.many(fields, "notes", "a list")]
        return ReadingList(
            name, self.one(fields, "title", "a list"), self.one(fields, "about", "a list"),
            self.link(fields, "source", "a list"), self.tags, tuple(notes), self.groups(fields, "a list"),
        )  # fmt: skip

    def fields(self, node, what: str, known: tuple, required: tuple) -> dict:
        """{name: value node}; reports unknown and missing fields."""
        before = len(self.problems)
        found = self.mapping(node, what)
        a_mapping = found or len(self.problems) == before
        for name, (key, _) in found.items():
            if name not in known:
                self.wrong(key, f"unknown field '{name}' of {what}", suggestion(name, known))
        for name in required:
            if a_mapping and name not in found:
                self.wrong(node, f"{what} without '{name}'", "add it")
        return {name: value for name, (_, value) in found.items()}

    def one(self, fields: dict, name: str, what: str) -> str:
        return self.text(fields[name], f"'{name}' of {what}") or "" if name in fields else ""

    def many(self, fields: dict, name: str, what: str) -> list:
        if name not in fields:
            return []
        return self.items(fields[name], f"'{name}' of {what}", f"write `{name}:` with `- ` lines below it")

    def link(self, fields: dict, name: str, what: str) -> str:
        url = self.one(fields, name, what)
        if url and not re.fullmatch(LINK, url):
            self.wrong(fields[name], f"{name} '{url}' is not a web address", "start it with https:// and no spaces")
        return url

    def known(self, fields: dict, name: str, what: str, word: str, vocabulary) -> tuple[str, ...]:
        """The words of a field that stand in a vocabulary; reports the others as an unknown `word`."""
        found = []
        for node in self.many(fields, name, what):
            value = self.text(node, f"'{name}' of {what}")
            if value and value not in vocabulary:
                self.wrong(node, f"unknown {word} '{value}'", suggestion(value, vocabulary))
            elif value:
                found.append(value)
        return tuple(found)

    def note(self, node) -> Note:
        what = "a note"
        fields = self.fields(node, what, _OF_NOTE, ("title", "text"))
        return Note(self.one(fields, "title", what), self.one(fields, "text", what), self.link(fields, "link", what))

    def groups(self, fields: dict, what: str) -> tuple[Group, ...]:
        found = []
        for node in self.many(fields, "groups", what):
            if id(node) in self.seen:  # a YAML alias, which may even stand inside what it stands for
                self.wrong(node, "a group stands twice, by an alias", "write it out where it stands again")
            else:
                self.seen.add(id(node))
                found.append(self.group(node))
        return tuple(found)

    def group(self, node) -> Group:
        fields = self.fields(node, "a group", _OF_GROUP, ("title",))
        title, about, zh, place = (self.one(fields, name, "a group") for name in ("title", "about", "zh", "node"))
        if place and place not in self.nodes:
            self.wrong(fields["node"], f"unknown node '{place}'", suggestion(place, self.nodes))
        records = self.known(fields, "records", "a group", "kind of record", self.taxonomy.records)
        papers = [self.paper(item) for item in self.many(fields, "papers", "a group")]
        return Group(title, about, zh, place, records, tuple(filter(None, papers)), self.groups(fields, "a group"))

    def paper(self, node) -> Listed | None:
        """A key, or a mapping with one."""
        import yaml

        what = "a paper"
        fields = {"key": node}
        if not isinstance(node, yaml.ScalarNode):
            fields = self.fields(node, what, _OF_PAPER, ("key",))
        key, date, focus, note = (self.one(fields, name, what) for name in ("key", "date", "focus", "note"))
        tags = self.known(fields, "tags", what, "tag", self.tags)
        if not key or key in self.broken:
            return None
        if key not in self.by_key:
            self.wrong(fields["key"], f"unknown key '{key}'", f"{suggestion(key, self.by_key)}; add an entry if none")
            return None
        entry = self.by_key[key]
        if self.name not in entry["lists"]:
            what = f"{key} stands here, but its entry ({entry['file']}:{entry['line']}) does not name this list"
            self.wrong(fields["key"], what, f"add '{self.name}' to its lists, or remove it here")
        return Listed(key, tags, date, focus, note)
