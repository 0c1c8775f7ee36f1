"""NetworkX views of the literature. Imported by `KnowledgeBase.taxonomy` and `.graph` alone: NetworkX costs 0.1 s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

if TYPE_CHECKING:
    from .query import KnowledgeBase


def taxonomy(kb: KnowledgeBase) -> nx.DiGraph:
    """Parent to child; node attributes label, zh, about, survey and `papers`, the count at the node or below it."""
    tree = nx.DiGraph()
    for n in kb.nodes:
        count = sum(p.within(n.id) for p in kb)
        tree.add_node(n.id, label=n.label, zh=n.zh, about=n.about, survey=n.survey, papers=count)
    tree.add_edges_from((n.parent, n.id) for n in kb.nodes if n.parent)
    return tree


def graph(kb: KnowledgeBase) -> nx.MultiDiGraph:
    """Every entry, static ancestors included, and every record.

    An edge goes from the paper that says so, with `kind` and `where`; from a record to its papers (key "papers") and to
    the records it belongs to (key "at").
    """
    net = nx.MultiDiGraph()
    for p in kb.entries:
        net.add_node(p.key, paper=p, title=p.title, method=p.method, year=p.year, taxon=p.taxon, kind=p.kind)
    for p in kb.entries:
        for r in p.relations:
            net.add_edge(p.key, r.target, key=r.kind, kind=r.kind, where=r.where)
    for record in kb.records():
        net.add_node(record.id, record=record, kind=record.kind, name=record.name, year=record.year)
    for record in kb.records():
        for p in kb.papers_of(record):
            net.add_edge(record.id, p.key, key="papers", kind="papers", where=record.source)
        for other in record.at:
            net.add_edge(record.id, other, key="at", kind="at", where=record.source)
    return net
