"""A paper as plain values, and what of them a format's own fields do not hold."""

from __future__ import annotations

from collections.abc import Mapping

from ..query import Paper

_DERIVED = ("authors", "node", "link", "file", "line")  # said by other fields, or no part of what the entry says


def values(paper: Paper) -> dict:
    """{field: value} as in `Paper.record`, without what is derived."""
    return {name: value for name, value in paper.record().items() if name not in _DERIVED}


EMPTY = values(Paper("", "", "", (), 0, ""))


def rest(paper: Paper, told: Mapping) -> dict:
    """The fields that `told` lacks or has otherwise; `paper_of({**told, **rest})` is the paper."""
    told = {**EMPTY, **told}
    wrong = {name: value for name, value in values(paper).items() if told[name] != value}
    if list(told["extra"]) != [name for name, _ in paper.extra]:  # their order counts, which a comparison leaves out
        wrong["extra"] = dict(paper.extra)
    return wrong


def paper_of(told: Mapping) -> Paper:
    """The paper with these values; a field that is missing is empty."""
    told = {**EMPTY, **told}
    relations = [(r["kind"], r["target"], r["where"]) for r in told["relations"]]
    return Paper.from_record({**told, "relations": relations, "extra": list(told["extra"].items())})
