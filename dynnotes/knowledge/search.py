"""Ranked full-text search over the papers, by SQLite's FTS5."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .query import Paper

MOST = 2_000
LONGEST = 50  # words of a question; more than that is a paste
COLUMNS = {"title": 8.0, "names": 8.0, "tldr": 3.0, "authors": 4.0, "venue": 1.0, "facets": 2.0}  # and their weights


def engine(papers: Iterable[Paper]) -> sqlite3.Connection:
    """An index in memory; the row of a paper is its place among `papers`. Word stems are compared, accents ignored."""
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.execute(f"create virtual table papers using fts5({', '.join(COLUMNS)}, tokenize='porter unicode61')")
    rows = (
        (i, p.title, " ".join((p.key, p.method, *p.aka)), p.tldr, " ".join(p.authors), f"{p.venue} {p.year}",
         " ".join((p.kind, *p.adapts, *p.unit, *p.decision, *p.training, *p.tasks, *p.modality)))
        for i, p in enumerate(papers)
    )  # fmt: skip
    db.executemany("insert into papers(rowid, title, names, tldr, authors, venue, facets) values (?, ?, ?, ?, ?, ?, ?)",
                   rows)  # fmt: skip
    return db


def ranked(db: sqlite3.Connection, table: str, weights: Iterable[float], text: str, limit: int) -> list[int]:
    """Rows that hold the words of `text`, best first: those with all words before those with some; the last word may
    be unfinished. What is no letter or digit only parts words, so no query can break the engine's syntax.

    Where more than MOST rows fit, the first MOST are ranked: words that common rank nothing, and time stays bounded.
    """
    words = [f'"{word}"' for word in re.findall(r"[^\W_]+", text)[:LONGEST]]
    if not words or limit < 1:
        return []
    words[-1] += "*"
    score = f"bm25({table}, {', '.join(map(str, weights))}) score"
    some = f"select rowid, {score} from {table} where {table} match ? limit {MOST}"
    ask = f"select rowid from ({some}) order by score, rowid limit ?"
    found: list[int] = []
    for join in (" AND ", " OR "):
        if len(found) < limit:
            rows = [row for (row,) in db.execute(ask, (join.join(words), limit))]
            found += [row for row in rows if row not in found]
    return found[:limit]
