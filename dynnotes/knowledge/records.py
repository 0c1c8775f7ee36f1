"""What the field has beside papers, from bib/records: books, people, labs, courses, conferences, events, systems."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from .problems import Problem, fold, suggestion
from .schema import LINK, STATUS

if TYPE_CHECKING:
    from .query import KnowledgeBase, Paper

_FIELDS = ("id", "kind", "name", "zh", "about", "url", "year", "papers", "at", "source", "status")
_REQUIRED = ("id", "kind", "name", "about", "source", "status")


@dataclass(frozen=True)
class Record:
    """A person, a course, an event, ...; `papers` are keys, `at` the ids of the records it belongs to.

    `about` is one sentence, `source` says where it was seen, `year` is 0 where none applies; `file` and `line` say
    where it stands.
    """

    id: str
    kind: str
    name: str
    about: str
    source: str
    status: str
    zh: str = ""
    url: str = ""
    year: int = 0
    papers: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @classmethod
    def from_record(cls, record: Mapping) -> Record:
        """A record of the index. Raises TypeError or KeyError for anything else."""
        return cls(**{**record, "papers": tuple(record["papers"]), "at": tuple(record["at"])})

    def record(self) -> dict:
        """Plain values for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def papers_of(kb: KnowledgeBase, record: Record) -> list[Paper]:
    """The papers that a record names; of a conference those of the literature that appeared there."""
    if record.kind == "conference":
        return [p for p in kb if record.id in acronym(p.venue)]
    return [kb[key] for key in record.papers]


def acronym(venue: str) -> list[str]:
    """`Conference on ... (EMNLP-IJCNLP)` to ["emnlp", "ijcnlp"]; [] where a venue ends otherwise, as workshops do."""
    found = re.search(r"\(([^()]+)\)$", venue)
    return re.split(r"[ -]", found[1].lower()) if found else []


def read_records(bib: Path, papers: list[dict], broken: set[str], kinds: dict | None, problems: list[Problem]) -> list:
    """The records of a bibliography's folder as the index keeps them, by kind and year; what is wrong to `problems`.

    `papers` are the entries read, `broken` the keys of those that could not be; `kinds` is None where the taxonomy
    could not be read, and kinds are then not looked up.
    """
    from . import files
    from .yamlnodes import Reader, compose

    found: list[_Item] = []
    whole = True
    for path in sorted((bib / "records").glob("*.yml")):
        file = path.relative_to(bib.parent).as_posix()
        text, more = files.decode(path.read_bytes(), file)
        before = len(problems)
        root = None if more else compose(text, file, problems)
        problems += more
        if root is not None:
            reader = Reader(file, problems)
            nodes = reader.items(root, "a file of records", "write `- {id: ..., kind: ..., name: ..., ...}`")
            found += [_Item(node, reader, kinds) for node in nodes]
        whole &= len(problems) == before
    _check_unique(found, {p["key"]: p for p in papers})
    _check_papers(found, {p["key"]: p for p in papers}, broken)
    if whole:  # else an id may stand in what could not be read
        _check_at(found)
    order = list(kinds or ())
    good = [item.values for item in found if item.values["kind"] in order]
    return sorted(good, key=lambda r: (order.index(r["kind"]), r["year"]))


class _Item:
    """One record as it stands in its file: `values`, as the index keeps them, and the node of each field."""

    def __init__(self, node, reader, kinds: dict | None):
        self.node, self.reader = node, reader
        before = len(reader.problems)
        self.fields = reader.mapping(node, "a record")
        mapping = len(reader.problems) == before
        for name, (key, _) in self.fields.items():
            if name not in _FIELDS:
                reader.wrong(key, f"unknown field '{name}' of a record", suggestion(name, _FIELDS))
        self.values = {
            name: self.many(name) if name in ("papers", "at") else self.text(name) for name in _FIELDS
        }
        self.values |= {"year": self.year(), "file": reader.file, "line": node.start_mark.line + 1}
        missing = [name for name in _REQUIRED if name not in self.fields]
        if self.values["kind"] == "event" and "year" not in self.fields:
            missing.append("year")
        if missing and mapping:  # else it is reported already
            self.wrong("", f"{', '.join(missing)} missing", "add the field" + "s" * (len(missing) > 1))
        self.check(kinds)

    def wrong(self, name: str, what: str, remedy: str) -> None:
        node = self.fields[name][0] if name in self.fields else self.node
        self.reader.wrong(node, f"record {self.values['id'] or '(no id)'}: {what}", remedy)

    def text(self, name: str) -> str:
        return self.reader.text(self.fields[name][1], f"'{name}' of a record") or "" if name in self.fields else ""

    def many(self, name: str) -> list[str]:
        if name not in self.fields:
            return []
        nodes = self.reader.items(self.fields[name][1], f"'{name}' of a record", f"write `{name}: [one, two]`")
        return [text for node in nodes if (text := self.reader.text(node, f"'{name}' of a record"))]

    def year(self) -> int:
        year = self.text("year")
        if year and not re.fullmatch(r"(19|20)\d\d", year):
            self.wrong("year", f"year '{year}' is not a year", "write four digits, like 2018")
            return 0
        return int(year or 0)

    def check(self, kinds: dict | None) -> None:
        """What can be seen in the record alone."""
        values = self.values
        if values["id"] and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", values["id"]):
            self.wrong("id", f"bad id '{values['id']}'", "use lower-case words joined by '-'")
        if values["kind"] and kinds is not None and values["kind"] not in kinds:
            self.wrong("kind", f"unknown kind '{values['kind']}'", suggestion(values["kind"], kinds))
        if values["url"] and not re.fullmatch(LINK, values["url"]):
            what = f"url '{values['url']}' is not a web address"
            self.wrong("url", what, "start it with https:// and leave no spaces")
        if values["status"] and not re.fullmatch(STATUS, values["status"]):
            self.wrong("status", f"status '{values['status']}' is neither", "write 'checked' or 'unconfirmed: what'")
        for name in ("papers", "at"):
            for twice in sorted({v for v in values[name] if values[name].count(v) > 1}):
                self.wrong(name, f"'{twice}' stands twice in {name}", "remove one of the two")


def _check_unique(found: list[_Item], papers: Mapping[str, dict]) -> None:
    """Ids, which share one space with the keys of papers, and names within a kind."""
    seen: dict[tuple, dict] = {("id", key): paper for key, paper in papers.items()}
    for item in found:
        values = item.values
        for name, space in (("id", ("id", values["id"])), ("name", (values["kind"], values["name"].casefold()))):
            if not values[name]:
                continue
            other = seen.setdefault(space, values)
            if other is not values:
                place = f"{other['file']}:{other['line']}"
                what = f"{name} '{values[name]}' is already taken ({place})"
                item.wrong(name, what, "rename one of the two, or remove the copy")
                break  # one report is enough


def _check_papers(found: list[_Item], papers: Mapping[str, dict], broken: set[str]) -> None:
    """Papers exist, and those of a person name them as author."""
    for item in found:
        values = item.values
        for key in values["papers"]:
            if key not in papers:
                if key not in broken:
                    remedy = f"{suggestion(key, papers)}; add an entry where there is none"
                    item.wrong("papers", f"unknown key '{key}'", remedy)
            elif values["kind"] == "person" and not any(same(values["name"], n) for n in papers[key]["names"]):
                item.wrong("papers", f"{key} does not name {values['name']}", "remove it, or spell the name as there")


def _check_at(found: list[_Item]) -> None:
    ids = {item.values["id"] for item in found}
    for item in found:
        for id_ in item.values["at"]:
            if id_ == item.values["id"]:
                item.wrong("at", f"'{id_}' is at itself", "name another record, or remove it")
            elif id_ not in ids:
                item.wrong("at", f"unknown record '{id_}'", f"{suggestion(id_, ids)}; add a record where there is none")


def same(person: str, author: list[str]) -> bool:
    """Whether `Geoffrey Hinton` may be this (last, ..., first): last names equal, one first name begins the other.

    Accents, capitals and points are ignored, so initials agree with the names they stand for.
    """
    name, last = fold(person), fold(author[0])
    if not f" {name}".endswith(f" {last}"):
        return False
    mine, theirs = (re.sub(r"\W", "", first) for first in (name.removesuffix(last), fold("".join(author[1:][-1:]))))
    return mine.startswith(theirs) or theirs.startswith(mine)
