"""One .bib file to raw entries: bibtexparser splits the blocks, this module reads the values and reports what broke.

bibtexparser runs with an empty parse stack (its own LaTeX decoding costs thirty times the parse) and is imported only
when the index is rebuilt. Nothing is repaired silently: an entry that can't be read whole is a Problem.
"""

import logging
import re
from dataclasses import dataclass, field

from .problems import Problem, suggestion
from .schema import TYPES

MONTHS = {m: m for m in ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")}
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # a key is also a page's and a file's name
_KEY_IN_BROKEN = re.compile(r"@\w+\s*[{(]\s*([A-Za-z0-9][A-Za-z0-9_-]*)")
_LOST = re.compile(r"@\s*\w+|^[^%\n]*[={}]", re.MULTILINE)  # text between entries that looks like a piece of one


@dataclass
class Entry:
    """An entry as written: `fields` maps lower-case names to (value without its outer braces, line)."""

    type: str
    key: str
    file: str
    line: int
    fields: dict[str, tuple[str, int]] = field(default_factory=dict)


def decode_file(data: bytes, file: str) -> tuple[str, list[Problem]]:
    """Text of a file with or without a BOM, any line ends; a Problem for anything that is not UTF-8."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return "", [Problem(file, line, f"not UTF-8 (byte 0x{data[error.start]:02x})", "save the file as UTF-8")]
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        return "", [Problem(file, line, "a zero byte, as in UTF-16 or a damaged file", "save the file as UTF-8")]
    return text.replace("\r\n", "\n").replace("\r", "\n"), []


def parse(text: str, file: str) -> tuple[list[Entry], set[str], list[Problem]]:
    """Entries of a BibTeX text, keys of entries too broken to read, and every problem found."""
    import bibtexparser
    from bibtexparser import model
    from bibtexparser.exceptions import ParsingException

    entries: list[Entry] = []
    broken: set[str] = set()
    problems: list[Problem] = []
    log = logging.getLogger("bibtexparser.splitter")  # its warnings repeat what we report with a remedy
    was, log.disabled = log.disabled, True
    try:
        blocks = bibtexparser.parse_string(text, parse_stack=[]).blocks
    except ParsingException as error:
        return [], set(), [Problem(file, 1, f"unreadable BibTeX ({error})", "look for unbalanced braces or quotes")]
    finally:
        log.disabled = was

    strings, after_failure = dict(MONTHS), False
    for block in blocks:
        line = (block.start_line or 0) + 1
        if isinstance(block, model.DuplicateBlockKeyBlock):  # a key twice: the check over all files reports it
            block = block.ignore_error_block
        if isinstance(block, model.DuplicateFieldKeyBlock):
            names = ", ".join(sorted(block.duplicate_keys))
            problems.append(Problem(file, line, f"field {names} stands twice in one entry", "remove one of the two"))
            block = block.ignore_error_block
        if isinstance(block, model.String):
            name = block.key.lower()
            if name in strings and name not in MONTHS:
                problems.append(Problem(file, line, f"@string {name} is defined twice", "remove one of the two"))
            try:
                strings[name] = _value(block.value, strings)
            except _BadValue as error:
                problems.append(Problem(file, line + error.lines, f"@string {name}: {error}", error.remedy))
        elif isinstance(block, model.Entry):
            entries.append(_entry(block, file, strings, problems))
        elif isinstance(block, model.ParsingFailedBlock):
            reason = str(getattr(block.error, "abort_reason", block.error)).replace("\n", " ").strip()
            found = _KEY_IN_BROKEN.match(block.raw or "")
            what = f"entry {found[1]} can't be read" if found else "a block that can't be read"
            broken |= {found[1]} if found else set()
            remedy = "check its braces, quotes and commas"
            problems.append(Problem(file, line, f"{what} ({reason.rstrip('. ')})", remedy))
        elif isinstance(block, model.ImplicitComment) and not after_failure:
            _report_lost(block.comment, file, line, problems)
        after_failure = isinstance(block, model.ParsingFailedBlock)
    return entries, broken, problems


def _report_lost(comment: str, file: str, line: int, problems: list[Problem]) -> None:
    """Text between entries is a comment to BibTeX; report it where it looks like a piece of an entry."""
    if lost := _LOST.search(comment):
        line += comment[: lost.start()].count("\n")
        what = f"text outside any entry ({lost[0].strip()[:40]!r})"
        problems.append(Problem(file, line, what, "mend the entry it belongs to, or start the line with %"))


def _entry(block, file: str, strings: dict[str, str], problems: list[Problem]) -> Entry:
    entry = Entry(block.entry_type.lower(), block.key.strip(), file, block.start_line + 1)
    if not _KEY.fullmatch(entry.key):
        remedy = "use letters, digits, '-' and '_', like huang2018multi"
        problems.append(Problem(file, entry.line, f"bad key '{entry.key}'", remedy))
    if entry.type not in TYPES:
        what = f"unknown entry type @{entry.type}"
        problems.append(Problem(file, entry.line, what, suggestion(entry.type, TYPES)))
    for item in block.fields:
        name, line = item.key.strip().lower(), item.start_line + 1
        if name in entry.fields and name != item.key:
            what = f"field {name} stands twice in one entry"
            problems.append(Problem(file, line, what, "remove one of the two"))
        try:
            value = _value(item.value, strings)
        except _BadValue as error:
            problems.append(Problem(file, line + error.lines, f"{entry.key}: {name}: {error}", error.remedy))
            value = ""
        entry.fields.setdefault(name, (value, line))
    return entry


class _BadValue(ValueError):
    def __init__(self, what: str, remedy: str, lines: int = 0):
        super().__init__(what)
        self.remedy, self.lines = remedy, lines


def _value(raw: str, strings: dict[str, str]) -> str:
    """`{a} # "b" # name # 12` to its text. Raises _BadValue for anything else, such as two values without a comma."""
    parts, at = [], 0
    while True:
        while at < len(raw) and raw[at].isspace():
            at += 1
        if at == len(raw):
            raise _BadValue("no value", "write {...}")
        start = at
        if raw[at] in '{"':
            at = _closing(raw, at)
            parts.append(raw[start + 1 : at - 1])
        else:
            while at < len(raw) and not raw[at].isspace() and raw[at] not in '#{}"':
                at += 1
            word = raw[start:at]
            if word.isdigit():
                parts.append(word)
            elif word.lower() in strings:
                parts.append(strings[word.lower()])
            else:
                raise _BadValue(f"'{word}' is no @string", "put the value into braces")
        while at < len(raw) and raw[at].isspace():
            at += 1
        if at == len(raw):
            return "".join(parts)
        if raw[at] != "#":
            rest = raw[at:].split("\n")[0].strip()
            lines = raw[:at].count("\n")
            raise _BadValue(f"a comma is missing before '{rest[:40]}'", "end each field with a comma", lines)
        at += 1


def _closing(raw: str, at: int) -> int:
    """Index after the brace or quote that closes the one at `at`; a backslash escapes, as in bibtexparser."""
    quoted, depth, start = raw[at] == '"', 0, at
    while at < len(raw):
        c = raw[at]
        if at == start or raw[at - 1] != "\\":
            if c == "{":
                depth += 1
            elif c == "}":
                depth -= 1
            done = depth == 0 and (c == '"' if quoted else c == "}")
            if done and at > start:
                return at + 1
        at += 1
    raise _BadValue("unbalanced braces or quotes", "close each { and each quote")
