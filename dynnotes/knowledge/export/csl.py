"""CSL-JSON: the items that Zotero, Pandoc and citation processors read.

What CSL has no field for, or holds less exactly, stands under `custom` by the names of `query.Paper`, and only that:
`paper(item(p)) == p`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..bibtex import MONTHS
from ..latex import LatexError, encode
from ..names import parse_names
from ..schema import FACETS, VENUE
from .fields import paper_of, rest

if TYPE_CHECKING:
    from ..query import Paper

_TYPES = {  # the first of several with one CSL type is what that type is read as
    "article": "article-journal", "inproceedings": "paper-conference", "conference": "paper-conference",
    "incollection": "chapter", "inbook": "chapter", "book": "book", "proceedings": "book", "booklet": "pamphlet",
    "phdthesis": "thesis", "mastersthesis": "thesis", "thesis": "thesis", "techreport": "report", "report": "report",
    "manual": "report", "software": "software", "dataset": "dataset", "online": "webpage",
    "unpublished": "manuscript", "misc": "document",
}  # fmt: skip
_PREPRINT = "article"  # what CSL calls an article that nobody published
_GENRES = {"phdthesis": "PhD thesis", "mastersthesis": "Master's thesis"}
_PARTS = ("journal", "booktitle")  # venues that contain the paper; other venues publish it
_EXTRA = {
    "volume": "volume", "number": "issue", "pages": "page", "publisher": "publisher", "address": "publisher-place",
    "series": "collection-title", "edition": "edition", "chapter": "chapter-number", "isbn": "ISBN", "issn": "ISSN",
    "language": "language", "note": "note", "abstract": "abstract", "shorttitle": "title-short", "type": "genre",
}  # fmt: skip
START, END = '<span class="nocase">', "</span>"


def item(paper: Paper) -> dict:
    """One paper as a CSL-JSON item."""
    out = fields(paper)
    return out | {"custom": rest(paper, _told(out))}


def paper(item: dict) -> Paper:
    """The paper that an item was made of."""
    return paper_of({**_told(item), **item["custom"]})


def fields(paper: Paper) -> dict:
    """What CSL has fields for."""
    extra = dict(paper.extra)
    preprint = paper.type == "misc" and paper.eprint
    month = _month(extra.get("month", ""))
    out = {
        "id": paper.key,
        "type": _PREPRINT if preprint else _TYPES.get(paper.type, "document"),
        "title": protect(paper.title),
        "author": [_name(name) for name in paper.names],
        "issued": {"date-parts": [[paper.year, month] if month else [paper.year]]},
    }
    if not preprint:
        out["container-title" if VENUE.get(paper.type) in _PARTS else "publisher"] = paper.venue
    out["genre"] = _GENRES.get(paper.type, "")
    for name, variable in _EXTRA.items():
        if not out.get(variable):
            out[variable] = extra.get(name, "")
    out["page"] = re.sub(r"(?<=\w)–(?=\w)", "-", out["page"])  # processors want a hyphen, and set a dash
    if "editor" in extra:
        out["editor"] = [_name(name) for name in _editors(extra["editor"])]
    if preprint:
        out |= {"archive": "arXiv", "number": f"arXiv:{paper.eprint}"}
    elif paper.eprint:
        out |= {"archive": "arXiv", "archive_location": paper.eprint}
    out |= {"DOI": paper.doi, "URL": paper.link}
    out["keyword"] = ", ".join(filter(None, [*paper.tags, extra.get("keywords")]))
    return {name: value for name, value in out.items() if value}


def _told(item: dict) -> dict:
    """What the CSL fields of an item say, as values of a paper."""
    preprint = item["type"] == _PREPRINT
    types = [ours for ours, csl in _TYPES.items() if csl == item["type"]]
    type = "misc" if preprint else next((t for t in types if _GENRES.get(t) == item.get("genre")), types[0])
    venue = "container-title" if VENUE.get(type) in _PARTS else "publisher"
    said = {
        name: item[variable]
        for name, variable in _EXTRA.items()
        if variable in item and not (variable == venue or (variable == "genre" and type in _GENRES))
    }
    if "pages" in said:
        said["pages"] = re.sub(r"(?<=\w)-(?=\w)", "–", said["pages"])
    date = item["issued"]["date-parts"][0]
    if len(date) > 1:
        said["month"] = MONTHS[date[1] - 1]
    if "editor" in item:
        said["editor"] = " and ".join(", ".join(_parts(name)) for name in item["editor"])
    tags = item.get("keyword", "").split(", ")
    if own := [tag for tag in tags if tag and tag.partition(":")[0] not in FACETS]:
        said["keywords"] = ", ".join(own)
    return {
        "key": item["id"],
        "type": type,
        "title": item["title"].replace(START, "").replace(END, "") if "title" in item else "",
        "names": tuple(_parts(name) for name in item.get("author", ())),
        "year": date[0],
        "venue": "" if preprint else item.get(venue, ""),
        "eprint": item["number"].removeprefix("arXiv:") if preprint else item.get("archive_location", ""),
        "doi": item.get("DOI", ""),
        "url": item.get("URL", ""),
        "extra": said,
    }


def protect(title: str) -> str:
    """A title whose names and abbreviations keep their capitals in styles that lower the rest: whole words, spaces
    apart, as processors recase word by word."""
    words = title.split(" ")
    return " ".join(f"{START}{w}{END}" if _fixed(w) or (i and len(w) == 1 and w.isupper()) else w
                    for i, w in enumerate(words))  # fmt: skip


def _fixed(word: str) -> bool:
    """`ResNet-50` and `3D`, but not `Multi-Scale`."""
    return any(c.isupper() for part in re.split("[-–/]", word) for c in part[1:])


def _month(text: str) -> int:
    """1 to 12 for `jun`, `June` or `6`; 0 for anything else."""
    if text.isascii() and text.isdigit():
        return int(text) if 1 <= int(text[:3]) <= 12 and len(text) < 3 else 0
    return MONTHS.index(text[:3].lower()) + 1 if text[:3].lower() in MONTHS else 0


def _editors(text: str) -> tuple[tuple[str, ...], ...]:
    try:
        return parse_names(encode(text))
    except (LatexError, ValueError):
        return ((text,),)


def _name(name: tuple[str, ...]) -> dict[str, str]:
    """A name whose last part may begin with particles in small letters; one that is not split is a body's."""
    if len(name) == 1:
        return {"literal": "et al." if name == ("others",) else name[0]}
    words = name[0].split(" ")
    last = next((i for i, word in enumerate(words) if not word[:1].islower()), len(words) - 1)
    particle = {"non-dropping-particle": " ".join(words[:last])} if last else {}
    suffix = {"suffix": name[1]} if len(name) == 3 else {}
    return {"family": " ".join(words[last:]), "given": name[-1], **particle, **suffix}


def _parts(name: dict[str, str]) -> tuple[str, ...]:
    """The inverse of `_name`."""
    if "literal" in name:
        return ("others",) if name["literal"] == "et al." else (name["literal"],)
    last = " ".join(filter(None, [name.get("non-dropping-particle"), name["family"]]))
    return (last, *([name["suffix"]] if "suffix" in name else []), name["given"])
