"""The whole bibliography: every file read, every entry and relation checked, every problem raised at once."""

import re
from pathlib import Path
from unicodedata import normalize

from . import files
from .bibtex import BadValue, Entry, Source
from .latex import LatexError, decode
from .lists import read_lists
from .names import parse_names
from .problems import BibliographyError, Problem, suggestion
from .records import read_records
from .schema import (
    FACETS,
    LINK,
    LINKS,
    MANY,
    NEEDS_VENUE,
    OURS,
    REQUIRED,
    REQUIRED_OF_DYNAMIC,
    STANDARD,
    STATIC_KINDS,
    STATUS,
    TYPES,
    VENUE,
    WORDS,
)
from .taxonomy import Taxonomy, read_taxonomy

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # a key is also a page's and a file's name
_LOST = re.compile(rb"@\s*\w+|^[^%\n]*[={}]", re.MULTILINE)  # text between entries that looks like a piece of one
_HANDLED = {"title", "author", "year", "eprint", "doi", *LINKS}
_ARXIV = re.compile(r"(\d\d)(0[1-9]|1[0-2])\.(\d{4,5})|[a-z-]+(\.[A-Z]{2})?/(\d\d)(0[1-9]|1[0-2])\d{3}")
_DOI = re.compile(r"10\.\d{4,9}/\S+")


def read_bibliography(bib: Path) -> dict:
    """{"papers": [record], "taxonomy": record, "records": [record], "lists": [record]} of a folder.

    Raises BibliographyError listing the problems of all files, or FileNotFoundError where there is no taxonomy.
    """
    bib = Path(bib)
    base = bib.parent
    problems: list[Problem] = []
    taxonomy = _taxonomy(bib, base, problems)
    records, broken, lines = [], set(), {}
    for path in sorted(bib.rglob("*.bib")):
        file = path.relative_to(base).as_posix()
        text, wrong = files.decode(path.read_bytes(), file)
        source = Source(text.encode(), file)
        for entry in source.entries():
            record = _record(entry, taxonomy, problems)
            records.append(record)
            lines[id(record)] = {name: entry.line_of(name) for name in entry.fields}
        problems += wrong + source.problems + _lost(source)
        broken |= source.broken
    _check_unique(records, lines, problems)
    _check_relations(records, lines, broken, problems)
    others = read_records(bib, records, broken, taxonomy.records if taxonomy else None, problems)
    lists = read_lists(bib, records, lines, broken, taxonomy, problems)
    if problems:
        raise BibliographyError(problems)
    papers = sorted(records, key=lambda r: (r["year"], r["key"]))
    return {"papers": papers, "taxonomy": taxonomy.record(), "records": others, "lists": lists}


def _taxonomy(bib: Path, base: Path, problems: list[Problem]) -> Taxonomy | None:
    path = bib / "taxonomy.yml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a bibliography is a folder of .bib files and a taxonomy.yml")
    file = path.relative_to(base).as_posix()
    text, wrong = files.decode(path.read_bytes(), file)
    taxonomy, more = (None, []) if wrong else read_taxonomy(text, file)
    problems += wrong + more
    return taxonomy


def _lost(source: Source) -> list[Problem]:
    """Text between entries is a comment to BibTeX; report it where it looks like a piece of an entry."""
    found = []
    for start, end in source.outside:
        if lost := _LOST.search(source.data[start:end]):
            what = f"text outside any entry ({lost[0].strip().decode()[:40]!r})"
            remedy = "mend the entry it belongs to, or start the line with %"
            found.append(Problem(source.file, source.line(start + lost.start()), what, remedy))
    return found


class _Fields:
    """Reads the fields of one entry; each problem goes to the list with the field's own line."""

    def __init__(self, entry: Entry, problems: list[Problem]):
        self.entry, self.problems = entry, problems
        self.values: dict[str, str] = {}
        for name in entry.fields:
            try:
                self.values[name] = " ".join(entry.text(name).split())
            except BadValue as error:
                self.wrong(name, f"{name}: {error}", error.remedy)

    def wrong(self, name: str, what: str, remedy: str) -> None:
        line = self.entry.line_of(name)
        self.problems.append(Problem(self.entry.source.file, line, f"{self.entry.key}: {what}", remedy))

    def raw(self, name: str) -> str:
        return self.values.get(name, "")

    def text(self, name: str, value: str | None = None) -> str:
        try:
            return decode(self.raw(name) if value is None else value)
        except LatexError as error:
            self.wrong(name, f"{name}: {error}", "write the character itself; the files are UTF-8")
            return ""

    def many(self, name: str) -> list[str]:
        """Values between semicolons, each once. Words, nodes and keys are taken as written, other names decoded."""
        parts = [part.strip() for part in self.raw(name).split(";") if part.strip()]
        return list(dict.fromkeys(self.text(name, part) if name == "aka" else part for part in parts))

    def word(self, name: str, word: str, known, what: str) -> None:
        if known is not None and word not in known:
            self.wrong(name, f"unknown {what} '{word}'", suggestion(word, known))


def _record(entry: Entry, taxonomy: Taxonomy | None, problems: list[Problem]) -> dict:
    """What the index keeps of an entry: the fields of `query.Paper`."""
    get = _Fields(entry, problems)
    relations = tuple(taxonomy.relations) if taxonomy else ()
    if not _FILE_NAME.fullmatch(entry.key):
        get.wrong("", f"bad key '{entry.key}'", "use letters, digits, '-' and '_', like huang2018multi")
    if entry.type not in TYPES:
        get.wrong("", f"unknown entry type @{entry.type}", suggestion(entry.type, TYPES))
    _check_fields(entry, get, taxonomy, relations)

    record = {"key": entry.key, "type": entry.type, "title": get.text("title")}
    record["names"] = _names(get)
    year = get.raw("year")
    if year and not re.fullmatch(r"(19|20)\d\d", year):
        get.wrong("year", f"year '{year}' is not a year", "write four digits, like 2018")
    record["year"] = int(year) if re.fullmatch(r"\d{4}", year) else 0
    venue = VENUE.get(entry.type, "")
    record["venue"] = get.text(venue) if venue else ""
    record |= {"eprint": _eprint(get), "doi": _doi(get)}
    for name in LINKS:
        record[name] = re.sub(r"\\([%_&#~])", r"\1", get.raw(name))
        if record[name] and not re.fullmatch(LINK, record[name]):
            what = f"{name} '{record[name]}' is not a web address"
            get.wrong(name, what, "start it with https:// and leave no spaces")
    for name in OURS:
        read = get.many if name in MANY else get.raw if name in WORDS else get.text
        record[name] = read(name)
    record["relations"] = _relations(get, relations)
    record["extra"] = [
        [name, get.text(name)]
        for name in entry.fields
        if name in STANDARD and name not in _HANDLED and name not in (venue, "keywords", "archiveprefix")
    ]
    keywords = [k.strip() for k in get.text("keywords").split(",")]
    if own := [k for k in keywords if k and k.partition(":")[0] not in ("dynnotes", *FACETS)]:
        record["extra"].append(["keywords", ", ".join(own)])
    record["extra"] = [pair for pair in record["extra"] if pair[1]]
    return record | {"file": entry.source.file, "line": entry.line}


def _check_fields(entry: Entry, get: _Fields, taxonomy: Taxonomy | None, relations: tuple[str, ...]) -> None:
    """Field names, required fields, and words of the closed vocabularies."""
    known = {*STANDARD, *OURS, *LINKS, *relations}
    for name in entry.fields:
        if taxonomy and name not in known:
            get.wrong(name, f"unknown field '{name}'", suggestion(name, known))
    kind = get.raw("kind")
    required = REQUIRED if kind in STATIC_KINDS else REQUIRED + REQUIRED_OF_DYNAMIC
    missing = [name for name in required if not get.raw(name)]
    if entry.type in NEEDS_VENUE and not get.raw(VENUE[entry.type]):
        missing.append(VENUE[entry.type])
    if missing:
        get.wrong("", f"{', '.join(missing)} missing", "add the field" + "s" * (len(missing) > 1))
    if ";" in kind:
        get.wrong("kind", f"kind '{kind}' is more than one word", "a paper has one kind")
    status = get.raw("status")
    if status and not re.fullmatch(STATUS, status):
        get.wrong("status", f"status '{status}' is neither", "write 'checked' or 'unconfirmed: what'")
    if taxonomy is None:
        return
    for facet in FACETS:
        for word in get.many(facet):
            get.word(facet, word, taxonomy.facets.get(facet), facet)
    for word in get.many("lists"):
        get.word("lists", word, taxonomy.lists, "list")
    nodes = {node["id"] for node in taxonomy.nodes}
    taxon, leaf = get.raw("taxon"), get.raw("leaf")
    if taxon:
        get.word("taxon", taxon, nodes, "taxon")
    if leaf and taxon in nodes and f"{taxon}/{leaf}" not in nodes:
        below = [n.removeprefix(f"{taxon}/") for n in nodes if n.startswith(f"{taxon}/")]
        get.wrong("leaf", f"no node '{leaf}' below {taxon}", suggestion(leaf, below) if below else "leave it empty")
    for node in get.many("also"):
        get.word("also", node, nodes, "taxon")


def _names(get: _Fields) -> list[list[str]]:
    if not get.raw("author"):
        return []
    try:
        return [list(name) for name in parse_names(get.raw("author"))]
    except LatexError as error:
        get.wrong("author", f"author: {error}", "write the character itself; the files are UTF-8")
    except ValueError as error:
        get.wrong("author", f"author: {error}", "write `Last, First and Last, First`")
    return []


def _eprint(get: _Fields) -> str:
    eprint = get.raw("eprint")
    archive = (get.raw("archiveprefix") or get.raw("eprinttype") or "arXiv").lower()
    if archive != "arxiv":
        get.wrong("archiveprefix", f"archive '{archive}' is not known", "use archiveprefix = {arXiv}, or a url")
    if eprint and not _ARXIV.fullmatch(eprint):
        bare = _ARXIV.search(eprint)
        remedy = f"write eprint = {{{bare[0]}}}" if bare else "write it like 1711.11503 or cs/0102003"
        get.wrong("eprint", f"bad arXiv id '{eprint}'", remedy)
        return ""
    return eprint


def _doi(get: _Fields) -> str:
    doi = re.sub(r"\\([%_&#])", r"\1", get.raw("doi"))
    if doi and not _DOI.fullmatch(doi):
        bare = _DOI.search(doi)
        get.wrong("doi", f"bad DOI '{doi}'", f"write doi = {{{bare[0]}}}" if bare else "write it like 10.1109/5.771073")
        return ""
    return doi


def _relations(get: _Fields, kinds: tuple[str, ...]) -> list[list[str]]:
    """[[kind, target, where]] of `extends = {key: where; key: where}`."""
    found = []
    for kind in kinds:
        for part in get.many(kind):
            target, _, where = (s.strip() for s in part.partition(":"))
            if not where:
                what = f"{kind} {target or '(nothing)'} without a place"
                get.wrong(kind, what, f"write `{target or 'key'}: where it says so`")
            if [kind, target] in [f[:2] for f in found]:
                get.wrong(kind, f"{kind} {target} twice", "join the two")
            found.append([kind, target, get.text(kind, where)])
    return found


def first_year(record: dict) -> int:
    """When a paper was first public: its year, or that of its arXiv id where that is earlier."""
    match = _ARXIV.fullmatch(record["eprint"])
    if not match:
        return record["year"]
    two = int(match[1] or match[5])
    return min(record["year"], two + (1900 if two > 90 else 2000))


def _check_unique(records: list[dict], lines: dict, problems: list[Problem]) -> None:
    """Keys, arXiv ids, DOIs, titles and names (method and aka share one space, as `kb[name]` answers to both)."""
    seen: dict[tuple, dict] = {}

    def claim(record: dict, space: str, value: str, name: str, remedy: str) -> bool:
        other = seen.setdefault((space, value.casefold()), record)
        if other is not record:
            line = lines[id(record)].get(name, record["line"])
            place = f"{other['file']}:{other['line']}"
            what = f"{name} '{value}' is already that of {other['key']} ({place})"
            if space == "key":
                what = f"key '{value}' is already taken ({place})"
            elif space == "title":
                what = f"title '{record['title']}' is already that of {other['key']} ({place})"
            problems.append(Problem(record["file"], line, what, remedy))
        return other is record

    for record in records:
        alone = claim(record, "key", record["key"], "key", "rename one of the two, or remove the copy")
        for name in ("eprint", "doi"):
            if record[name]:
                alone &= claim(record, name, record[name], name, "correct one of the two, or remove the copy")
        if alone and (title := re.sub(r"[\W_]+", "", normalize("NFKC", record["title"]))):    # one report is enough
            claim(record, "title", title, "title", "remove the copy, or complete the title of one of the two")
        if record["method"]:
            claim(record, "name", record["method"], "method", "make it unique, for example with the author's name")
    for record in records:
        for name in record["aka"]:
            claim(record, "name", name, "aka", "remove it from one of the two")


def _check_relations(records: list[dict], lines: dict, broken: set[str], problems: list[Problem]) -> None:
    """Targets exist, nothing extends or improves what came later, and `extends` has no circle."""
    by_key = {r["key"]: r for r in records}
    for record in records:
        for kind, target, _ in record["relations"]:
            line = lines[id(record)][kind]
            at = (record["file"], line)
            if target == record["key"]:
                problems.append(Problem(*at, f"{target} {kind} itself", "name another paper, or remove it"))
            elif target not in by_key:
                if target not in broken:
                    problems.append(Problem(*at, f"{record['key']}: {kind} unknown key '{target}'",
                                            _key_remedy(target, by_key)))  # fmt: skip
            elif kind in ("extends", "improves") and record["year"] and first_year(by_key[target]) > record["year"]:
                later = f"{target}, which appeared in {first_year(by_key[target])}"
                what = f"{record['key']} ({record['year']}) {kind} {later}"
                problems.append(Problem(*at, what, "turn the relation round, or correct a year"))
    for circle in _circles({r["key"]: [t for k, t, _ in r["relations"] if k == "extends"] for r in records}):
        record = by_key[circle[0]]
        what = f"extends goes in a circle: {' -> '.join([*circle, circle[0]])}"
        problems.append(Problem(record["file"], lines[id(record)]["extends"], what, "remove one of these relations"))


def _key_remedy(target: str, by_key: dict[str, dict]) -> str:
    method = next((k for k, r in by_key.items() if r["method"].casefold() == target.casefold()), None)
    if method:
        return f"use its key, {method}"
    return f"{suggestion(target, by_key)}; relations go by key, so add an entry where there is none"


def _circles(edges: dict[str, list[str]]) -> list[list[str]]:
    """Circles of two or more, each once and beginning with its smallest key."""
    found, done = [], set()
    for root in sorted(edges):
        path, stack = [], [(root, iter(edges[root]))] if root not in done else []
        path = [root] if stack else []
        while stack:
            node, targets = stack[-1]
            for target in targets:
                if target in path:
                    circle = path[path.index(target) :]
                    turn = circle.index(min(circle))
                    circle = circle[turn:] + circle[:turn]
                    if len(circle) > 1 and circle not in found:
                        found.append(circle)
                elif target in edges and target not in done:
                    path.append(target)
                    stack.append((target, iter(edges[target])))
                    break
            else:
                done.add(node)
                stack.pop()
                path.pop()
    return found
