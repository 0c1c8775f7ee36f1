"""What is wrong in the bibliography, collected over all files and raised together."""

from collections.abc import Iterable
from typing import NamedTuple
from unicodedata import combining, normalize


class Problem(NamedTuple):
    """One thing to repair: where it stands, what is wrong, and what to do about it."""

    file: str
    line: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}; {self.remedy}"


class BibliographyError(ValueError):
    """The bibliography has problems, all of them listed in `problems`; nothing of it was loaded."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the bibliography, nothing was loaded:"
        super().__init__("\n".join([head, *map(str, self.problems)]))


class LibraryError(ValueError):
    """A reader's own .bib file can't be read or written; the message names it and says what to do."""


def nearest(word: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The known words most like `word`, best first, ignoring case; empty when none is close."""
    import difflib  # only needed when something is wrong

    by_fold: dict[str, str] = {}
    for k in known:
        by_fold.setdefault(k.casefold(), k)
    fold = word.casefold()
    found = difflib.get_close_matches(fold, by_fold, n=n, cutoff=0.6)
    if len(fold) >= 3:
        found += [k for k in by_fold if fold in k and k not in found]
    return [by_fold[k] for k in found[:n]]


def suggestion(word: str, known: Iterable[str], limit: int = 16) -> str:
    """A remedy for an unknown word: the nearest known one, and the whole list where it is short."""
    known = sorted(set(known))
    close = nearest(word, known, 1)
    listed = f"known: {', '.join(known)}" if len(known) <= limit else f"{len(known)} words are known"
    return f"did you mean '{close[0]}'? ({listed})" if close else listed


def printable(text: str, keep: str = "") -> str:
    """Text safe for a terminal: control, bidirectional and other invisible characters become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def fold(text: str) -> str:
    """Without accents and capitals, to compare what readers type."""
    return "".join(c for c in normalize("NFKD", text.casefold()) if not combining(c))
