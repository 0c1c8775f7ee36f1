"""BibTeX names: `First von Last and von Last, Jr, First` to parts and back."""

import re

from .latex import decode, encode

Name = tuple[str, ...]  # (last,), (last, first) or (last, jr, first)


AND, COMMA, SPACE = r"(?<=\s)and(?=\s)", ",", r"\s+"


def _split(text: str, separator: str) -> list[str]:
    """Split at a separator that stands outside braces and is not part of a LaTeX command."""
    pieces, depth, start = [], 0, 0
    for found in re.finditer(rf"\\.|[{{}}]|(?P<separator>{separator})", text, re.IGNORECASE | re.DOTALL):
        depth += (found[0] == "{") - (found[0] == "}")
        if found["separator"] and depth == 0:
            pieces.append(text[start : found.start()])
            start = found.end()
    return [*pieces, text[start:]]


def parse_names(text: str) -> tuple[Name, ...]:
    """Names of a BibTeX author field, decoded. Raises ValueError naming the one that can't be split."""
    names = []
    for piece in _split(" ".join(text.split()), AND):
        parts = [p.strip() for p in _split(piece, COMMA)]
        if not piece.strip():
            raise ValueError("an empty name")
        if len(parts) > 3:
            raise ValueError(f"'{decode(piece)}' has {len(parts) - 1} commas")
        if len(parts) == 1 and piece.strip() != "others":
            words = [w for w in _split(parts[0], SPACE) if w]
            von = next((i for i, w in enumerate(words[:-1]) if w[0].islower()), len(words) - 1)
            parts = [" ".join(words[von:]), " ".join(words[:von])]
        names.append(tuple(d for p in parts if (d := decode(p))))
    if not all(names):
        raise ValueError("an empty name")
    return tuple(names)


def display(name: Name) -> str:
    """`First Last`, `First Last Jr`."""
    if len(name) == 3:
        return f"{name[2]} {name[0]} {name[1]}"
    return " ".join(reversed(name))


def format_names(names: tuple[Name, ...]) -> str:
    """A BibTeX author field that `parse_names` reads back."""
    return " and ".join(", ".join(_guard(part, len(name) == 1) for part in name) for name in names)


def _guard(part: str, alone: bool) -> str:
    """Braces where BibTeX would split the part, or take it for a macro word."""
    plain = encode(part)
    splits = "," in part or " and " in f" {part.lower()} " or (alone and " " in part)
    return "{" + plain + "}" if splits else plain
