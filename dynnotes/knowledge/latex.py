"""LaTeX to Unicode and back, for the text fields of BibTeX. pylatexenc is loaded only for fields that need it."""

import functools
import re
from unicodedata import normalize

_NEEDS = re.compile(r"[\\{}$~]|--|``|''")  # what LaTeX would set differently from what is written
_MACRO = re.compile(r"\\([a-zA-Z]+)")
_BARE = re.compile(r"(?<!\\)((?:\\\\)*)([%&#])")  # characters people forget to escape; a bare % would hide the rest
_ABOUT = re.compile(r"(?<![\S\\])~|(?<!\\)~(?!\S)")  # "~2x": about, not a tie
_OWN = {  # missing from pylatexenc, or not the plain character there
    "textbraceleft": "{",
    "textbraceright": "}",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textquotedbl": '"',
}


class LatexError(ValueError):
    """Text that LaTeX commands make unreadable; the message says which."""


@functools.cache
def _decoder():
    from pylatexenc.latex2text import LatexNodes2Text, MacroTextSpec, get_default_latex_context_db
    from pylatexenc.latexwalker import get_default_latex_context_db as get_parser_db

    texts, parser = get_default_latex_context_db(), get_parser_db()
    texts.add_context_category("own", macros=[MacroTextSpec(k, v) for k, v in _OWN.items()], prepend=True)

    def known(name: str) -> bool:
        return texts.get_macro_spec(name) is not None or parser.get_macro_spec(name) is not None

    return LatexNodes2Text(latex_context=texts, math_mode="text"), known


def squeeze(text: str) -> str:
    """One line, single spaces, no space at the ends."""
    return " ".join(text.split())


def decode(text: str) -> str:
    """Unicode of a BibTeX text value on one line. Raises LatexError for braces or commands it can't read."""
    if not _NEEDS.search(text):
        return squeeze(text)
    from pylatexenc.latexwalker import LatexWalkerError

    decoder, known = _decoder()
    for name in _MACRO.findall(text):
        if not known(name):
            raise LatexError(f"unknown LaTeX command \\{name}")
    text = _ABOUT.sub(r"\\textasciitilde{}", _BARE.sub(r"\1\\\2", text))
    try:
        return squeeze(decoder.latex_to_text(text, tolerant_parsing=False))
    except RecursionError as error:
        raise LatexError("braces nested too deep") from error
    except LatexWalkerError as error:
        raise LatexError(f"LaTeX that can't be read ({squeeze(str(error.msg))})") from error


_ACCENT = r"""\\(?:[`'^"~=.]|[uvHtcdbkr](?![a-zA-Z]))\s*"""  # before the letter it stands on
_ROUGH = re.compile(_ACCENT + r"|\\([a-zA-Z]+)\s*|\\(.)|[{}$]|~", re.DOTALL)
_LETTERS = {"ss": "ss", "ae": "ae", "AE": "AE", "oe": "oe", "OE": "OE", "aa": "a", "AA": "A", "o": "o", "O": "O",
            "l": "l", "L": "L", "i": "i", "j": "j"}  # fmt: skip
_MARKS = re.compile(r"[\u0300-\u036f]")


def plain(text: str) -> str:
    """Roughly what a reader would type: without commands, braces and accents. Never fails; for matching and search."""
    if not text.isascii():
        text = _MARKS.sub("", normalize("NFKD", text))
    if _NEEDS.search(text):
        text = _ROUGH.sub(lambda m: _LETTERS.get(m[1], "") if m[1] else m[2] or " " * (m[0] == "~"), text)
    return text


_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "—": "---",
    **{c: "\\" + c for c in "&%$#_"},
}
_SPECIAL = re.compile(r"[\\{}~^&%$#_]|[-–—](?=[-–—])|[–—]|`(?=`)|'(?=')|[!?](?=`)")


def encode(text: str) -> str:
    """Text as a LaTeX value: `decode(encode(text)) == squeeze(text)`; letters stay Unicode."""
    return _SPECIAL.sub(_escape, squeeze(text))


def _escape(match: re.Match) -> str:
    found = _ESCAPES.get(match[0], match[0])
    ligature = match[0] in "-–—`'!?" and match.string[match.end() : match.end() + 1] in set("-–—`'")
    return found + "{}" if ligature else found


def protect(text: str) -> str:
    """`encode`, with braces around words whose capitals BibTeX styles would lower: `{BranchyNet}`."""
    words = []
    for i, word in enumerate(squeeze(text).split(" ")):
        inner = any(c.isupper() for c in word[1:])
        single = i > 0 and len(word) == 1 and word.isupper()
        words.append("{" + encode(word) + "}" if inner or single else encode(word))
    return " ".join(words)
