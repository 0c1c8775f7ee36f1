"""Ranked full-text search over the papers, by SQLite's FTS5."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .query import Paper

COMMON = 1_000  # rows
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

    The engine ranks by reading all that holds a word. So that time stays bounded in large tables, words that more than
    COMMON rows hold choose rows, but do not rank them: words that common say little. Where there are no others, rows
    come as they stand.
    """
    words = [f'"{word}"' for word in re.findall(r"[^\W_]+", text)[:LONGEST]]
    if not words or limit < 1:
        return []
    words[-1] += "*"
    match = f"from {table} where {table} match ?"

    def some(query: str, most: int) -> list[int]:
        return [row for (row,) in db.execute(f"select rowid {match} limit ?", (query, most))]

    def best(query: str, most: int) -> list[int]:
        ask = f"select rowid {match} order by bm25({table}, {', '.join(map(str, weights))}), rowid limit ?"
        return [row for (row,) in db.execute(ask, (query, most))]

    rare = [word for word in words if len(some(word, COMMON + 1)) <= COMMON]
    found: list[int] = []
    for join in (" AND ", " OR "):
        if len(found) >= limit:
            break
        if not rare:
            rows = some(join.join(words), limit)
        elif len(rare) < len(words) and join == " AND ":
            every = set(some(join.join(words), COMMON))  # all of them: no more rows than any rare word has
            rows = [row for row in best(join.join(rare), COMMON) if row in every]
        else:
            rows = best(join.join(rare), limit)
        found += [row for row in rows if row not in found]
    if len(found) < limit and len(rare) < len(words):
        found += [row for row in some(" OR ".join(words), 2 * limit) if row not in found]
    return found[:limit]
