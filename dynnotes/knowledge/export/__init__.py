"""Papers out again, in the formats of other programs; nothing that an entry says is lost, unless a format says so.

What needs more than the standard library (NetworkX, pyarrow, citeproc-py) is imported when its format is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..query import UnknownWord
from .entry import bibtex

if TYPE_CHECKING:
    from ..query import KnowledgeBase, Paper

FORMATS = {
    "bibtex": "facets as keywords; full=True with every field of this bibliography",
    "csl-json": "for Zotero and other reference managers; what CSL has no field for stands under custom",
    "text": "formatted references; style= any CSL style by name, or the path of a .csl file",
    "html": "the same as a list in HTML",
    "graphml": "papers, their relations and their records, for Gephi, yEd or NetworkX",
    "json-ld": "linked data in the words of schema.org",
    "csv": "a row per paper, for spreadsheets",
    "parquet": "the same with typed columns and lists",
}
OPTIONS = {"full": ("bibtex",), "style": ("text", "html")}  # and the formats that know them


class CannotExport(ValueError):
    """Why nothing was exported, and what to do about it."""


def export(kb: KnowledgeBase, papers: Iterable[Paper], format: str, **options) -> str | bytes:
    """Papers in one of FORMATS; bytes for parquet. Raises UnknownWord, or CannotExport naming what is missing."""
    papers = list(papers)
    if format not in FORMATS:
        raise UnknownWord("format", format, FORMATS)
    for name in options:
        if format not in OPTIONS.get(name, ()):
            known = f"it goes with {' and '.join(OPTIONS[name])}" if name in OPTIONS else "leave it out"
            raise CannotExport(f"{format} has no option '{name}'; {known}")
    try:
        return _write(kb, papers, format, **options)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing == "dynnotes":
            raise
        raise CannotExport(f'{format} needs {missing}; install it with: pip install "dynnotes[export]"') from error


def _write(kb: KnowledgeBase, papers: list[Paper], format: str, full: bool = False, style: str = "ieee") -> str | bytes:
    if format == "bibtex":
        return "\n".join(bibtex(p, full) for p in papers)
    if format == "csl-json":
        from .csl import item

        return json.dumps([item(p) for p in papers], ensure_ascii=False, indent=1) + "\n"
    if format == "json-ld":
        from .jsonld import document

        text = json.dumps(document(papers), ensure_ascii=False, indent=1) + "\n"
        return text.replace("<", "\\u003c")  # it may be put into a page, where </script> would end it
    if format == "graphml":
        from .graphml import graphml

        return graphml(kb, papers)
    if format in ("text", "html"):
        from . import references

        return getattr(references, format)(papers, style)
    from . import table

    return getattr(table, format)(papers)


def read(data: str | bytes, format: str) -> list[Paper]:
    """The papers of an export again; BibTeX is read as a bibliography, and references are not read at all."""
    if format == "csl-json":
        from .csl import paper

        return [paper(item) for item in json.loads(data)]
    if format == "json-ld":
        from .jsonld import read

        return read(json.loads(data))
    if format == "graphml":
        from .graphml import read

        return read(data)
    if format not in ("csv", "parquet"):
        raise UnknownWord("format to read", format, ("csl-json", "graphml", "json-ld", "csv", "parquet"))
    from . import table

    return table.read_csv(data) if format == "csv" else table.read_parquet(data)
