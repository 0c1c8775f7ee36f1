"""Papers as BibTeX. Works from the index alone, so it does not need the .bib files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..latex import encode, protect
from ..names import format_names
from ..schema import MANY, VENUE, WORDS

if TYPE_CHECKING:
    from ..query import Paper


def bibtex(paper: Paper, full: bool = False) -> str:
    """One entry, UTF-8 with LaTeX's special characters escaped; reading a `full` one gives the same paper."""
    extra = dict(paper.extra)
    own = [k.strip() for k in extra.pop("keywords", "").split(",") if k.strip()]
    out: dict[str, str] = {"title": protect(paper.title), "author": format_names(paper.names)}
    if paper.venue:
        out[VENUE[paper.type]] = encode(paper.venue)
    out["year"] = str(paper.year)
    out |= {name: encode(value) for name, value in extra.items()}
    if paper.eprint:
        out |= {"eprint": paper.eprint, "archiveprefix": "arXiv"}
    out |= {"doi": paper.doi, "url": paper.url}
    out["keywords"] = encode(", ".join([*paper.tags, *own]))
    if full:
        out |= _ours(paper)
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in out.items() if value)
    return f"@{paper.type}{{{paper.key},\n{body}\n}}\n"


def _ours(paper: Paper) -> dict[str, str]:
    """The fields that only this bibliography has."""
    out = {"code": paper.code}
    for name in ("method", "tldr", "headline", "status"):
        out[name] = encode(getattr(paper, name))
    for name in WORDS:
        out[name] = getattr(paper, name)
    for name in MANY:
        out[name] = "; ".join(encode(v) if name == "aka" else v for v in getattr(paper, name))
    for r in paper.relations:
        out[r.kind] = "; ".join(filter(None, [out.get(r.kind), f"{r.target}: {encode(r.where)}"]))
    return out
