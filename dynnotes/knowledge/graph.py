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
    """Every entry, static ancestors included; an edge goes from the paper that says so, with `kind` and `where`."""
    net = nx.MultiDiGraph()
    for p in kb.entries:
        net.add_node(p.key, paper=p, title=p.title, method=p.method, year=p.year, taxon=p.taxon, kind=p.kind)
    for p in kb.entries:
        for r in p.relations:
            net.add_edge(p.key, r.target, key=r.kind, kind=r.kind, where=r.where)
    return net
