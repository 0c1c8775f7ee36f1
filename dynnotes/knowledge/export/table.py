"""A row per paper: CSV, in which every cell is text that can be taken apart again, and Parquet with lists.

Several values are joined with "; ", the parts of a name with ", "; where a value has ; , or \\ itself, a \\ stands
before it. A cell that a spreadsheet would take for a formula begins with ', and one that begins with ' gets another.
"""

from __future__ import annotations

import csv as csv_
import io
import re
from typing import TYPE_CHECKING

from ..schema import MANY
from .fields import EMPTY, paper_of, values

if TYPE_CHECKING:
    from ..query import Paper

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def csv(papers: list[Paper]) -> str:
    """A table with a head line."""
    out = io.StringIO(newline="")
    writer = csv_.DictWriter(out, list(EMPTY), lineterminator="\n")
    writer.writeheader()
    for p in papers:
        writer.writerow({name: "'" + cell if cell.startswith(_FORMULA) else cell for name, cell in row(p).items()})
    return out.getvalue()


def read_csv(text: str) -> list[Paper]:
    rows = csv_.DictReader(io.StringIO(text, newline=""))
    return [of_row({name: cell.removeprefix("'") for name, cell in r.items()}) for r in rows]


def parquet(papers: list[Paper]) -> bytes:
    """A file with lists and structs."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    text = pa.string()
    types = dict.fromkeys(EMPTY, text) | dict.fromkeys(MANY, pa.list_(text))
    types |= {"year": pa.int32(), "names": pa.list_(pa.list_(text)), "extra": pa.map_(text, text)}
    types["relations"] = pa.list_(pa.struct([("kind", text), ("target", text), ("where", text)]))
    rows = [values(p) | {"extra": list(p.extra)} for p in papers]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(types)), out)
    return out.getvalue()


def read_parquet(data: bytes) -> list[Paper]:
    from pyarrow import parquet as pq

    return [paper_of(row | {"extra": dict(row["extra"])}) for row in pq.read_table(io.BytesIO(data)).to_pylist()]


def row(paper: Paper) -> dict[str, str]:
    """{field: text} of a paper."""
    out = values(paper) | {"year": str(paper.year)}
    for name in MANY:
        out[name] = "; ".join(map(_escape, out[name]))
    out["names"] = "; ".join(", ".join(map(_escape, name)) for name in paper.names)
    out["relations"] = "; ".join(f"{r.kind} {r.target}: {_escape(r.where)}" for r in paper.relations)
    out["extra"] = "; ".join(f"{name}: {_escape(value)}" for name, value in paper.extra)
    return out


def of_row(row: dict[str, str]) -> Paper:
    """The paper that a row was made of; a column that is missing is empty."""
    row = dict.fromkeys(EMPTY, "") | row
    told = row | {name: [_plain(part) for part in _split(row[name], ";")] for name in MANY}
    told["year"] = int(row["year"])
    told["names"] = [[_plain(part) for part in _split(name, ",")] for name in _split(row["names"], ";")]
    told["extra"] = {}
    for part in _split(row["extra"], ";"):
        name, _, value = part.partition(": ")
        told["extra"][name] = _plain(value)
    told["relations"] = []
    for part in _split(row["relations"], ";"):
        said, _, where = part.partition(": ")
        kind, _, target = said.partition(" ")
        told["relations"].append({"kind": kind, "target": target, "where": _plain(where)})
    return paper_of(told)


def _escape(text: str) -> str:
    return re.sub(r"([\\;,])", r"\\\1", text)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _split(text: str, mark: str) -> list[str]:
    """The parts between marks that no backslash stands before, still escaped."""
    parts = re.findall(rf"(?:[^\\{mark}]|\\.)+", text, re.DOTALL)
    return [part.removeprefix(" ") if i else part for i, part in enumerate(parts)]
