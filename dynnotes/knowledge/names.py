"""BibTeX names: `First von Last and von Last, Jr, First` to parts and back."""

from .latex import decode, encode

Name = tuple[str, ...]  # (last,), (last, first) or (last, jr, first)


def _split(text: str, at_word: str | None) -> list[str]:
    """Split outside braces: at the word `and`, at commas, or (None) at white space."""
    pieces, depth, current = [], 0, []
    tokens = _tokens(text, at_word)
    for token in tokens:
        depth += token.count("{") - token.count("}") if token in "{}" else 0
        separator = depth == 0 and (token.isspace() if at_word is None else token.lower() == at_word)
        if separator:
            pieces.append("".join(current))
            current = []
        else:
            current.append(token)
    return [*pieces, "".join(current)]


def _tokens(text: str, at_word: str | None) -> list[str]:
    import re

    if at_word == "and":
        return [t for t in re.split(r"(\\.|[{}]|(?<=\s)and(?=\s))", text, flags=re.I | re.S) if t]
    if at_word == ",":
        return [t for t in re.split(r"(\\.|[{},])", text, flags=re.S) if t]
    return [t for t in re.split(r"(\\.|[{}]|\s+)", text, flags=re.S) if t]


def parse_names(text: str) -> tuple[Name, ...]:
    """Names of a BibTeX author field, decoded. Raises ValueError naming the one that can't be split."""
    names = []
    for piece in _split(" ".join(text.split()), "and"):
        parts = [p.strip() for p in _split(piece, ",")]
        if not piece.strip():
            raise ValueError("an empty name")
        if len(parts) > 3:
            raise ValueError(f"'{decode(piece)}' has {len(parts) - 1} commas")
        if len(parts) == 1 and piece.strip() != "others":
            words = [w for w in _split(parts[0], None) if w]
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
