"""Keywords put into a .bib file without touching anything else of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from . import files
from .bibtex import Entry, Source
from .problems import LibraryError

_SEPARATOR = re.compile(r"\s*[,;]\s*")


def with_keywords(data: bytes, wanted: Mapping[int, list[str]]) -> tuple[bytes, int]:
    """A file with tags added to entries, {start of an entry: tags}, and how many entries changed.

    A tag that is there, or there without its `?`, is not added again. Every other byte stays. Raises LibraryError
    rather than return a file whose entries read differently in anything but their keywords.
    """
    pieces, done, changed = [], 0, 0
    for entry in Source(data, "").entries():
        tags = wanted.get(entry.start)
        place = _place(entry, tags) if tags else None
        if place:
            at, text = place
            pieces += [data[done:at], text]
            done, changed = at, changed + 1
    new = b"".join([*pieces, data[done:]])
    if _but_keywords(new) != _but_keywords(data):
        raise LibraryError("the edit would change more than keywords, so nothing was written; please report the file")
    return new, changed


def _place(entry: Entry, tags: list[str]) -> tuple[int, bytes] | None:
    """Where to insert what; None where nothing is missing, or where there is no plain place for it."""
    data = entry.source.data
    if "keywords" in entry.fields:
        start, end = entry.fields["keywords"]
        inside = data[start + 1 : end - 1]
        if data[start] not in b'{"' or entry.source.ends(start, end) != end:
            return None  # an @string, or values joined by `#`
        have = {word.strip().lower() for word in re.split(rb"[,;]", inside)}
        missing = [tag for tag in tags if not {tag.encode(), tag.rstrip("?").encode()} & have]
        if not missing:
            return None
        sign = b"; " if b";" in inside and b"," not in inside else b", "
        text = sign.join(tag.encode() for tag in missing)
        empty, ended = not inside.strip(), inside.rstrip().endswith((b",", b";"))
        at = end - 1 if empty else start + 1 + len(inside.rstrip())
        return at, text if empty else (b" " if ended else sign) + text
    if not entry.fields:
        return None
    start, end = max(entry.fields.values())
    line = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start)) + 1
    before = data[max(line, entry.start) : start]
    indent = before[: len(before) - len(before.lstrip())] if line > entry.start else b""
    newline = _line_end(data, line) if line > entry.start else b" "
    equals = b" = " if before.rstrip().endswith(b"=") and before.endswith(b" ") else b"="
    return end, b"," + newline + indent + b"keywords" + equals + b"{" + ", ".join(tags).encode() + b"}"


def _line_end(data: bytes, line: int) -> bytes:
    """How the line before ends: as the file does it."""
    return b"\r\n" if data[line - 2 : line] == b"\r\n" else data[line - 1 : line]


def _but_keywords(data: bytes) -> list:
    source = Source(data, "")
    found = [(e.type, e.key, [(name, data[a:b]) for name, (a, b) in e.fields.items() if name != "keywords"])
             for e in source.entries()]  # fmt: skip
    return [*found, len(source.problems)]


def replace_file(path: Path, old: bytes, new: bytes) -> None:
    """Put `new` in the place of a file that still holds `old`. Raises LibraryError if it changed meanwhile, OSError."""

    def unchanged() -> None:
        if path.read_bytes() != old:
            raise LibraryError(f"{path} changed while it was read; nothing was written, run it again")

    files.write(path, new, unchanged)
