"""BibTeX as bytes: entries, and where each of their values stands. Values are decoded when they are asked for.

Bytes, because an edit must leave every other byte of a file alone, because broken encodings must not cost more than
the value they are in, and because all that parts an entry is ASCII. Braces are counted as BibTeX counts them, escaped
ones too. Nothing is repaired silently: what can't be read whole is a Problem, and reading goes on at the next line
that begins an entry, so that time grows with the size of the file whatever is in it.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator

from .problems import Problem

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LONGEST = 1_000_000  # characters of an @string: definitions that double each other grow without end

_LINE = re.compile(rb"\r\n?|\n")
_START = re.compile(rb"@[ \t]*([A-Za-z]+)\s*+([{(])")
_NEXT = re.compile(rb"[\r\n][ \t]*@[ \t]*[A-Za-z]+\s*+[{(]")
_KEY = re.compile(rb"\s*+([^\s,{}=]*+)\s*+")
_NAME = re.compile(rb"[\s,]*+([^\s=,{}\"#@]++)\s*+=\s*+")
_END = re.compile(rb"[\s,]*+([})])")
_BRACED = rb"\{[^{}]*+(?:\{[^{}]*+(?:\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}[^{}]*+)*+\}[^{}]*+)*+\}"
_QUOTED = rb'"[^"{}]*+(?:' + _BRACED + rb'[^"{}]*+)*+"'
_WORD = rb'[^\s,#{}()"=]++'
_FIELD = re.compile(  # a name and a single value; what is longer goes the slow way, through _Reader.value
    _NAME.pattern + rb"(" + _BRACED + rb"|" + _QUOTED + rb"|" + _WORD + rb")\s*+(?:,|(?=[})]))"
)
_PART = re.compile(rb"(" + _BRACED + rb"|" + _QUOTED + rb"|" + _WORD + rb")")
_BRACE = re.compile(rb"[{}]")
_BRACE_OR_QUOTE = re.compile(rb'[{}"]')


class BadValue(ValueError):
    """A value that can't be read; `at` is the place in the file, `remedy` what to do."""

    def __init__(self, what: str, remedy: str, at: int):
        super().__init__(what)
        self.remedy, self.at = remedy, at


class Entry:
    """An entry as written. `fields`: {lower-case name: (start, end) of its value, with braces or quotes}."""

    __slots__ = ("end", "fields", "key", "source", "start", "type")

    def __init__(self, source: "Source", type: str, key: str, start: int, end: int, fields: dict[str, tuple[int, int]]):
        self.source, self.type, self.key = source, type, key
        self.start, self.end, self.fields = start, end, fields

    @property
    def line(self) -> int:
        return self.source.line(self.start)

    def line_of(self, name: str) -> int:
        """The line of a field's value; that of the entry where it has no such field."""
        return self.source.line(self.fields[name][0]) if name in self.fields else self.line

    def text(self, name: str) -> str:
        """The value without its outer braces or quotes, @strings put in; "" without one. Raises BadValue."""
        span = self.fields.get(name)
        return self.source.text(*span) if span else ""


class Source:
    """One file. Go through `entries()` once; `problems`, `broken` and `outside` are filled on the way.

    broken: keys of entries too damaged to read; outside: (start, end) of text between entries, a comment to BibTeX.
    """

    def __init__(self, data: bytes, file: str):
        self.data, self.file = data, file
        self.problems: list[Problem] = []
        self.broken: set[str] = set()
        self.outside: list[tuple[int, int]] = []
        self._strings: dict[str, list[tuple[int, str]]] = {}  # every definition with the place from which it holds
        self._lines: array | None = None
        self._names: dict[bytes, str] = {}

    def line(self, at: int) -> int:
        """The line of a place, from 1, whatever the file's line ends."""
        if self._lines is None:
            self._lines = array("Q", (m.end() for m in _LINE.finditer(self.data)))
        return bisect_right(self._lines, at) + 1

    def wrong(self, at: int, what: str, remedy: str) -> None:
        self.problems.append(Problem(self.file, self.line(at), what, remedy))

    def decode(self, start: int, end: int) -> str:
        """UTF-8 text of a part. Raises BadValue naming the first byte that is none."""
        try:
            return self.data[start:end].decode("utf-8")
        except UnicodeDecodeError as error:
            at = start + error.start
            what = f"not UTF-8 (byte 0x{self.data[at]:02x})"
            raise BadValue(what, "save the file as UTF-8", at) from None

    def text(self, start: int, end: int) -> str:
        """The value that stands at (start, end). Raises BadValue."""
        first = self.data[start : start + 1]
        if first in (b"{", b'"') and self.data.find(b"#", start, end) < 0:
            return self.decode(start + 1, end - 1)
        return "".join(self._part(a, b) for a, b in self._parts(start, end))

    def ends(self, start: int, end: int) -> int:
        """Where the first of the values that stand at (start, end) ends: at `end` unless `#` joins several."""
        return self._value_end(start, end)

    def _parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Places of the values that `#` joins. Raises BadValue."""
        at = start
        while True:
            stop = self._value_end(at, end)
            yield at, stop
            at = _space(self.data, stop, end)
            if at == end or self.data[at] != ord("#"):
                return
            at = _space(self.data, at + 1, end)

    def _part(self, start: int, end: int) -> str:
        """Text of one braced, quoted or bare value."""
        if self.data[start] in b'{"':
            return self.decode(start + 1, end - 1)
        word = self.decode(start, end)
        if word.isdigit():
            return word
        name = word.lower()
        defined = self._strings.get(name, ())
        latest = bisect_right(defined, (start, "\U0010ffff")) - 1
        if latest >= 0:
            return defined[latest][1]
        if name in MONTHS:
            return name
        raise BadValue(f"'{word}' is no @string", "put the value into braces", start)

    def _value_end(self, at: int, bound: int) -> int:
        """Where the single value at `at` ends. Raises BadValue."""
        data = self.data
        if found := _PART.match(data, at, bound):
            return found.end()
        first = data[at : min(at + 1, bound)]
        if first == b"{":
            depth = 0
            for brace in _BRACE.finditer(data, at, bound):  # deeper than _BRACED looks
                depth += 1 if brace[0] == b"{" else -1
                if not depth:
                    return brace.end()
        elif first == b'"':
            depth = 0
            for mark in _BRACE_OR_QUOTE.finditer(data, at + 1, bound):
                if mark[0] == b'"' and not depth:
                    return mark.end()
                depth += {b"{": 1, b"}": -1}.get(mark[0], 0)
        else:
            raise BadValue("no value", "write {...}", at)
        raise BadValue("unbalanced braces or quotes", "close each { and each quote", at)

    def entries(self) -> Iterator[Entry]:
        """The entries of the file, in order; those that can't be read whole are left out, and are problems."""
        data = self.data
        if (zero := data.find(b"\0")) >= 0:
            self.wrong(zero, "a zero byte, as in UTF-16 or a damaged file", "save the file as UTF-8")
            return
        at = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        comments_close = True
        following = _NEXT.search(data, at)
        while found := _START.search(data, at):
            start, kind = found.start(), found[1].lower()
            self.outside.append((at, start))
            while following and following.start() < found.end():
                following = _NEXT.search(data, found.end())
            bound = following.start() if following else len(data)
            try:
                if kind == b"comment":  # whole entries may stand in it, so the next one is no bound
                    try:
                        at = self._value_end(found.end() - 1, len(data) if comments_close else bound)
                    except BadValue:
                        comments_close = False
                        raise
                elif kind == b"preamble":
                    at = self._close(self._value(_space(data, found.end(), bound), bound), bound)
                elif kind == b"string":
                    at = self._string(found.end(), bound)
                else:
                    entry = self._entry(found, bound)
                    at = entry.end
                    yield entry
            except BadValue as error:
                self._failed(found, bound, error)
                at = bound
        self.outside.append((at, len(data)))

    def _failed(self, found: re.Match, bound: int, error: BadValue) -> None:
        key = _KEY.match(self.data, found.end(), bound)[1].decode("utf-8", "backslashreplace")
        kind = found[1].decode().lower()
        named = kind not in ("comment", "preamble", "string") and key
        if named:
            self.broken.add(key)
        line = self.line(error.at)
        there = f", line {line}" if line != self.line(found.start()) else ""
        what = f"entry {key} can't be read" if named else f"@{kind} can't be read"
        self.wrong(found.start(), f"{what} ({error}{there})", error.remedy)

    def _string(self, at: int, bound: int) -> int:
        """Remember an @string; returns where it ends."""
        named = _NAME.match(self.data, at, bound)
        if not named:
            raise BadValue("no name", "write @string{name = {text}}", at)
        name = self.decode(*named.span(1)).lower()
        end = self._value(named.end(), bound)
        stop = self._close(end, bound)
        try:
            text = "".join(self._part(a, b) for a, b in self._parts(named.end(), end))
        except BadValue as error:
            self.wrong(error.at, f"@string {name}: {error}", error.remedy)
            text = ""
        if len(text) > LONGEST:
            self.wrong(at, f"@string {name} is longer than {LONGEST:,} characters", "shorten it")
            text = ""
        if name in self._strings:
            self.wrong(at, f"@string {name} is defined twice", "remove one of the two")
        self._strings.setdefault(name, []).append((stop, text))
        return stop

    def _value(self, at: int, bound: int) -> int:
        """Where a value of one or more parts ends. Raises BadValue."""
        for _, end in self._parts(at, bound):
            at = end
        return at

    def _close(self, at: int, bound: int) -> int:
        """The place behind the closing brace. Raises BadValue."""
        if end := _END.match(self.data, at, bound):
            return end.end()
        raise BadValue("no closing brace", "close each {", at)

    def _entry(self, found: re.Match, bound: int) -> Entry:
        """The entry whose `@type{` was found. Raises BadValue."""
        data, names, fields = self.data, self._names, {}
        key = _KEY.match(data, found.end(), bound)
        entry = Entry(self, self._lower(found[1]), key[1].decode("utf-8", "backslashreplace"), found.start(), 0, fields)
        at = key.end()
        if data[at : at + 1] == b"," and at < bound:
            at += 1
        elif not _END.match(data, at, bound):
            remedy = "check its braces, quotes and commas"
            raise BadValue("no comma after the key", remedy, key.end(1))
        while True:
            field = _FIELD.match(data, at, bound)
            if field:
                name = names.get(field[1]) or self._lower(field[1])
                if name in fields:
                    self.wrong(field.start(1), f"field {name} stands twice in one entry", "remove one of the two")
                else:
                    fields[name] = field.span(2)
                at = field.end()
                continue
            if end := _END.match(data, at, bound):
                entry.end = end.end()
                return entry
            at = self._slow_field(entry, at, bound)

    def _slow_field(self, entry: Entry, at: int, bound: int) -> int:
        """A field that isn't one plain value and a comma; returns where the next one begins. Raises BadValue."""
        named = _NAME.match(self.data, at, bound)
        if not named:
            at = _space(self.data, at, bound)
            rest = self.data[at : min(at + 30, bound)].decode("utf-8", "backslashreplace").split("\n")[0].strip()
            what = f"no field at '{rest}'" if rest else "no closing brace"
            raise BadValue(what, "check its braces, quotes and commas", at)
        name = self._lower(named[1])
        start = end = named.end()
        try:
            end = self._value(start, bound)
        except BadValue as error:
            if str(error) != "no value":
                raise
            self.wrong(start, f"{entry.key}: {name}: {error}", error.remedy)
        if name in entry.fields:
            self.wrong(named.start(1), f"field {name} stands twice in one entry", "remove one of the two")
        elif end > start:
            entry.fields[name] = (start, end)
        at = _space(self.data, end, bound)
        if self.data[at : min(at + 1, bound)] == b",":
            return at + 1
        if at < bound and not _END.match(self.data, at, bound):
            rest = self.data[at : min(at + 40, bound)].decode("utf-8", "backslashreplace").split("\n")[0].strip()
            what = f"{entry.key}: {name}: a comma is missing before '{rest}'"
            self.wrong(at, what, "end each field with a comma")
        return at

    def _lower(self, name: bytes) -> str:
        """A field's or type's name, the same object each time: a hundred thousand entries share a few names."""
        return self._names.setdefault(bytes(name), name.decode("utf-8", "backslashreplace").lower())


_SPACE = re.compile(rb"\s*+")


def _space(data: bytes, at: int, bound: int) -> int:
    """The next place that is no space."""
    return _SPACE.match(data, at, bound).end()
