"""GraphML: the selected papers, what they refer to, and the records that name them. Imported when asked for: NetworkX.

Every node has a `class`: paper, reference (only referred to by the selected papers) or record. Several values in one
attribute are joined as in table.py. A backslash is written twice, and a character that XML can't hold as \\u and four
digits; `read` undoes both.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import networkx as nx

from ..query import Relation
from .table import of_row, row

if TYPE_CHECKING:
    from ..query import KnowledgeBase, Paper
    from ..records import Record

_NOT_XML = re.compile("[\\\\\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_NOT_OURS = ("class", "label")  # of a node: for the programs that draw it


def graphml(kb: KnowledgeBase, papers: list[Paper]) -> str:
    """The graph as XML; its edges go as those of `kb.graph()`, each with `kind` and `where`."""
    net = nx.MultiDiGraph()
    for p in papers:
        net.add_node(p.key, **_paper(p, "paper"))
    for p in papers:
        for r in p.relations:
            if r.target not in net:
                net.add_node(r.target, **(_paper(kb[r.target], "reference") if r.target in kb else {}))
            _edge(net, p.key, r.target, r.kind, r.where)
    records = _records(kb, {p.key for p in papers})
    for record in records:
        told = {name: value for name, value in record.record().items() if isinstance(value, str) and name != "file"}
        net.add_node(record.id, **_attributes({"class": "record", "label": record.name, **told}), year=record.year)
    for record in records:
        for p in kb.papers_of(record):
            if p.key in net:
                _edge(net, record.id, p.key, "papers", record.source)
        for other in record.at:
            _edge(net, record.id, other, "at", record.source)
    out = io.BytesIO()
    nx.write_graphml_xml(net, out)  # the plain writer; nx.write_graphml takes lxml where it finds it
    return out.getvalue().decode()


def read(text: str) -> list[Paper]:
    """The selected papers of a graph."""
    net = nx.read_graphml(io.BytesIO(text.encode()), force_multigraph=True)
    found = []
    for key, told in net.nodes(data=True):
        if told.get("class") == "paper":
            edges = sorted(net.out_edges(key, data=True), key=lambda edge: edge[2]["order"])
            relations = tuple(Relation(e["kind"], target, _undo(e.get("where", ""))) for _, target, e in edges)
            cells = {name: _undo(str(value)) for name, value in told.items() if name not in _NOT_OURS}
            found.append(replace(of_row(cells), relations=relations))
    return found


def _records(kb: KnowledgeBase, keys: set[str]) -> list[Record]:
    """Records that name one of the papers, and those that these belong to."""
    found = {r.id: r for r in kb.records() if any(p.key in keys for p in kb.papers_of(r))}
    todo = list(found.values())
    while todo:
        for id_ in todo.pop().at:
            if id_ not in found:
                found[id_] = kb.record(id_)
                todo.append(found[id_])
    return list(found.values())


def _paper(paper: Paper, what: str) -> dict:
    cells = {name: text for name, text in row(paper).items() if name not in ("relations", "year")}
    return {**_attributes({"class": what, "label": paper.method, **cells}), "year": paper.year}


def _attributes(told: dict[str, str]) -> dict[str, str]:
    return {name: _xml(text) for name, text in told.items() if text}


def _edge(net: nx.MultiDiGraph, source: str, target: str, kind: str, where: str) -> None:
    """Its id is unique, as GraphML wants it; `order` is its place among those of its source."""
    order = net.out_degree(source)
    net.add_edge(source, target, key=f"{source}-{order}", kind=kind, where=_xml(where), order=order)


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda m: "\\\\" if m[0] == "\\" else f"\\u{ord(m[0]):04x}", text)


def _undo(text: str) -> str:
    return re.sub(r"\\(\\|u[0-9a-f]{4})", lambda m: "\\" if m[1] == "\\" else chr(int(m[1][1:], 16)), text)
