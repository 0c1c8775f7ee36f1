"""JSON-LD in the words of schema.org, its context included, so that nothing is fetched to read it.

A paper is a node of the document only (`_:key`); `sameAs` says which one it is to the world. What schema.org has no
property for, or holds less exactly, stands under `custom` by the names of `query.Paper`: `paper(node(p)) == p`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from ..about import url
from ..schema import FACETS, MANY, VENUE
from .fields import paper_of, rest

if TYPE_CHECKING:
    from ..query import Paper

_TYPES = {
    "book": "Book", "proceedings": "Book", "booklet": "Book", "inbook": "Chapter", "phdthesis": "Thesis",
    "mastersthesis": "Thesis", "thesis": "Thesis", "techreport": "Report", "report": "Report", "dataset": "Dataset",
    "software": "SoftwareApplication", "online": "WebPage", "manual": "TechArticle",
}  # fmt: skip
_HOLDERS = {"journal": "Periodical", "booktitle": "Book"}  # venues the paper is part of; others publish it
_HELD = {"Periodical": "article", "Book": "inproceedings"}
_DOI, _ARXIV = "https://doi.org/", "https://arxiv.org/abs/"


def document(papers: list[Paper]) -> dict:
    """One JSON-LD document."""
    context = {
        "@vocab": "https://schema.org/",
        "author": {"@container": "@list"},  # their order counts
        "sameAs": {"@type": "@id"},
        "url": {"@type": "@id"},
        "custom": {"@id": f"{url('Book')}/book/questions.html#custom", "@type": "@json"},
    }
    return {"@context": context, "@graph": [node(p) for p in papers]}


def read(document: dict) -> list[Paper]:
    """The papers of a document."""
    return [paper(node) for node in document["@graph"]]


def node(paper: Paper) -> dict:
    """One paper."""
    out = fields(paper)
    return out | {"custom": rest(paper, _told(out))}


def paper(node: dict) -> Paper:
    """The paper that a node was made of."""
    return paper_of({**_told(node), **node["custom"]})


def fields(paper: Paper) -> dict:
    """What schema.org has properties for."""
    extra = dict(paper.extra)
    tags = [(facet, word) for facet in FACETS for word in _many(getattr(paper, facet)) if word]
    holder = _HOLDERS.get(VENUE.get(paper.type, ""))
    same = [_DOI + quote(paper.doi, safe="/:;().-_")] if paper.doi else []
    same += [_ARXIV + paper.eprint] if paper.eprint else []
    out = {
        "@id": f"_:{paper.key}",
        "@type": _TYPES.get(paper.type, "ScholarlyArticle"),
        "identifier": paper.key,
        "name": paper.title,
        "author": [_person(name) for name in paper.names if name != ("others",)],
        "datePublished": str(paper.year),
        "isPartOf": _part(holder, paper.venue, extra) if holder and paper.venue else None,
        "publisher": {"@type": "Organization", "name": paper.venue} if not holder and paper.venue else None,
        "pagination": extra.get("pages"),
        "alternateName": [paper.method, *paper.aka],
        "description": paper.tldr,
        "url": paper.url,
        "sameAs": same,
        "keywords": [_term(*tag) for tag in tags],
        "citation": [_citation(r.kind, r.target, r.where) for r in paper.relations],
    }
    return {name: value for name, value in out.items() if value}


def _told(node: dict) -> dict:
    """What the properties of a node say, as values of a paper."""
    part, extra = node.get("isPartOf", {}), {}
    while "isPartOf" in part:
        extra |= {"volume": part["volumeNumber"]} if "volumeNumber" in part else {"number": part["issueNumber"]}
        part = part["isPartOf"]
    extra = {name: extra[name] for name in ("volume", "number") if name in extra}
    if "pagination" in node:
        extra["pages"] = node["pagination"]
    types = [ours for ours, theirs in _TYPES.items() if theirs == node["@type"]]
    names = node.get("alternateName", [""])
    tags = [(k["inDefinedTermSet"]["name"], k["name"]) for k in node.get("keywords", ())]
    words = {facet: tuple(word for of, word in tags if of == facet) for facet in FACETS}
    same = node.get("sameAs", ())
    return {
        **{name: value if name in MANY else "".join(value) for name, value in words.items()},
        "key": node["identifier"],
        "type": types[0] if types else _HELD.get(part.get("@type"), "misc"),
        "title": node.get("name", ""),
        "names": tuple(_name(person) for person in node.get("author", ())),
        "year": int(node["datePublished"]),
        "method": names[0],
        "aka": tuple(names[1:]),
        "venue": (part or node.get("publisher", {})).get("name", ""),
        "eprint": next((s.removeprefix(_ARXIV) for s in same if s.startswith(_ARXIV)), ""),
        "doi": next((unquote(s.removeprefix(_DOI)) for s in same if s.startswith(_DOI)), ""),
        "url": node.get("url", ""),
        "tldr": node.get("description", ""),
        "relations": [
            {"kind": c["roleName"], "target": c["citation"]["identifier"], "where": c.get("description", "")}
            for c in node.get("citation", ())
        ],
        "extra": extra,
    }


def _part(holder: str, venue: str, extra: dict[str, str]) -> dict:
    """A journal or proceedings, with the volume and the issue of it."""
    part = {"@type": holder, "name": venue}
    if "volume" in extra:
        part = {"@type": "PublicationVolume", "volumeNumber": extra["volume"], "isPartOf": part}
    if "number" in extra:
        part = {"@type": "PublicationIssue", "issueNumber": extra["number"], "isPartOf": part}
    return part


def _term(facet: str, word: str) -> dict:
    return {"@type": "DefinedTerm", "name": word, "inDefinedTermSet": {"@type": "DefinedTermSet", "name": facet}}


def _citation(kind: str, target: str, where: str) -> dict:
    """schema.org says more about a property by a Role between its two ends."""
    cited = {"@id": f"_:{target}", "identifier": target}
    return {"@type": "Role", "roleName": kind, "description": where, "citation": cited}


def _person(name: tuple[str, ...]) -> dict:
    """A name that is not split may be a body's: it gets no type."""
    if len(name) == 1:
        return {"name": name[0]}
    parts = {"familyName": name[0], "givenName": name[-1]} | ({"honorificSuffix": name[1]} if len(name) == 3 else {})
    return {"@type": "Person", "name": " ".join(filter(None, [name[-1], name[0], *name[1:-1]])), **parts}


def _name(person: dict) -> tuple[str, ...]:
    """The inverse of `_person`."""
    if "familyName" not in person:
        return (person["name"],)
    suffix = [person["honorificSuffix"]] if "honorificSuffix" in person else []
    return (person["familyName"], *suffix, person["givenName"])


def _many(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
