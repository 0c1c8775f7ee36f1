"""The literature drawn: who builds on whom, venues over the years, and the map of gaps.

The scripts `assets/js/lineage.js`, `timeline.js` and `gaps.js` draw from JSON that stands in the page; the list or
table below it is what there is without JavaScript. `layout` places papers, on that page and in the figure of one paper.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from dynnotes.knowledge.gaps import AXES
from dynnotes.knowledge.lineage import DESCENT, children, parents, tree

from .pages import RELATION, filtered, page_of, plural
from .tables import attribute, link, table, text, words

if TYPE_CHECKING:
    from dynnotes.knowledge.query import KnowledgeBase, Paper


def drawing(name: str, data: dict, plain: str) -> str:
    """HTML of a drawing: its data, and the plain form that stands there until (or unless) its script runs."""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")  # closes no element
    return (
        f'<div class="dyn-graph" id="dyn-{name}"><script type="application/json">{body}</script>'
        f'<div class="dyn-plain">{plain}</div></div>'
    )


def _address(paper: Paper, root: str = "../") -> str:
    """The paper's page; a static ancestor has none, and is read where it was published."""
    return attribute(paper.link) if paper.kind == "background" else page_of(paper.key, f"{root}papers/")


def _named(paper: Paper, root: str = "../") -> str:
    address, outside = _address(paper, root), "external noopener" if paper.kind == "background" else ""
    name = link(address, paper.method, title=paper.title, rel=outside) if address else text(paper.method)
    return f"{name} ({paper.year})"


def _roots(kb: KnowledgeBase) -> list[dict]:
    return [{"id": node.id, "label": node.label} for node in kb.children()]


# ---------------------------------------------------------------- places of papers and lines


def layout(years: dict[str, int], edges: Iterable[tuple[str, str]]) -> dict[tuple[str, int], int]:
    """{(key, year): line}: where a paper stands in the column of its year, and where its track crosses later ones.

    A line from an older paper to a newer one runs on the older one's track through the columns between, so that no line
    passes behind a box. A paper takes three lines, a track one. Every column is put, again and again, in the order of
    the mean line of its neighbours (barycentre), each as near to that line as the others let it; the arrangement with
    the shortest lines is kept. Equal input, equal result.
    """
    columns: dict[int, list[tuple[str, int]]] = {year: [] for year in sorted(set(years.values()))}
    near: dict[tuple[str, int], list[tuple[str, int]]] = {(key, year): [] for key, year in years.items()}
    pairs = {tuple(sorted(edge, key=lambda key: (years[key], key))) for edge in edges}
    joins = {join for older, newer in pairs for join in pairwise(_track(older, newer, years, columns))}
    for a, b in sorted(joins):
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    for node in _families(near):
        columns[node[1]].append(node)
    size = {node: 3 if years[node[0]] == node[1] else 1 for node in near}
    line = {node: at for column in columns.values()
            for node, at in zip(column, _apart([0] * len(column), [size[n] for n in column]), strict=True)}  # fmt: skip

    def length() -> int:
        return sum(abs(line[a] - line[b]) for a, b in joins)

    best, least = dict(line), length()
    for turn in range(24):
        for year in reversed(columns) if turn % 2 else columns:
            column, wanted = columns[year], {}
            for node in column:
                side = [line[n] for n in near[node] if (n[1] > year if turn % 2 else n[1] < year)]
                side = side or [line[n] for n in near[node]] or [line[node]]
                wanted[node] = sum(side) / len(side)
            column.sort(key=lambda node: (wanted[node], line[node], node))
            places = _apart([wanted[node] for node in column], [size[node] for node in column])
            line |= zip(column, places, strict=True)
        if length() < least:
            best, least = dict(line), length()
    taken = {best[node] + d for node in best for d in ((-1, 0, 1) if size[node] == 3 else (0,))}
    rank = {at: i for i, at in enumerate(sorted(taken))}
    return {node: rank[at] for node, at in best.items()}


def _track(older: str, newer: str, years: dict[str, int], order: Iterable[int]) -> list[tuple[str, int]]:
    """The places that a line from `older` to `newer` goes through, both ends included."""
    between = [(older, year) for year in order if years[older] < year < years[newer]]
    return [(older, years[older]), *between, (newer, years[newer])]


def _families(near: dict[tuple[str, int], list[tuple[str, int]]]) -> list[tuple[str, int]]:
    """All places, each followed by what hangs on it, oldest first: a first order that keeps families together."""
    found: dict[tuple[str, int], None] = {}

    def by_year(place: tuple[str, int]) -> tuple[int, str]:
        return place[1], place[0]

    for first in sorted(near, key=by_year):
        stack = [first]
        while stack:
            place = stack.pop()
            if place not in found:
                found[place] = None
                stack += sorted(near[place], key=by_year, reverse=True)
    return list(found)


def _apart(wanted: list[float], sizes: list[int]) -> list[int]:
    """Lines in this order, as near to the wanted ones as the sizes let them (least squares: pooled violators)."""
    starts = [0, *accumulate((a + b) // 2 for a, b in pairwise(sizes))]  # sizes are odd
    pools: list[tuple[float, int]] = []  # (sum, count) of neighbours that stand shoulder to shoulder
    for start, want in zip(starts, wanted, strict=False):
        pools.append((want - start, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            (total, count), (more, others) = pools[-2:]
            pools[-2:] = [(total + more, count + others)]
    shifts = [round(total / count) for total, count in pools for _ in range(count)]
    return [shift + start for shift, start in zip(shifts, starts, strict=False)]


# ---------------------------------------------------------------- who builds on whom


def lineage_data(kb: KnowledgeBase, root: str = "../") -> dict:
    """What `lineage.js` needs: papers with a relation, edges, and two layouts, for descent alone and for all kinds."""
    everybody = {p.key: p for p in kb.entries}
    edges = [(p.key, r) for p in kb.entries for r in p.relations if r.target in everybody]
    related = {key for key, _ in edges} | {r.target for _, r in edges}
    papers = sorted((everybody[key] for key in related), key=lambda p: (p.year, p.key))
    place = {p.key: i for i, p in enumerate(papers)}
    used = [kind for kind in kb.relations if any(r.kind == kind for _, r in edges)]
    years = {p.key: p.year for p in papers}
    # a survey pulls at everything alike, so surveys have no say in the layout and their lines no tracks
    layouts = [
        layout(years, [(key, r.target) for key, r in edges if r.kind in DESCENT]),
        layout(years, [(key, r.target) for key, r in edges if r.kind != "survey-of"]),
    ]
    return {
        "papers": [
            {
                "key": p.key,
                "method": p.method,
                "title": p.title,
                "year": p.year,
                "tldr": p.tldr,
                "url": _address(p, root),
                "root": p.taxon.split("/")[0],
                "static": p.kind == "background",
                "lines": [{year: lines[key, year] for key, year in lines if key == p.key} for lines in layouts],
            }
            for p in papers
        ],
        "edges": [{"from": place[key], "to": place[r.target], "kind": r.kind, "where": r.where} for key, r in edges],
        "kinds": {kind: {"read": RELATION.get(kind, (kind,) * 2), "about": kb.relations[kind]} for kind in used},
        "descent": list(DESCENT),
        "roots": _roots(kb),
    }


def lineage_list(kb: KnowledgeBase, root: str = "../") -> str:
    """Every paper that nothing here precedes, with all that was built on it, as nested lists."""
    shown: set[str] = set()
    parts = []
    for paper in sorted(kb.entries, key=lambda p: (bool(parents(p)), p.year, p.key)):
        if (parents(paper) and paper.key in shown) or not children(kb, paper.key):
            continue
        rows = tree(kb, paper.key, lambda key: children(kb, key))
        shown |= {paper.key, *(p.key for _, p, _ in rows)}
        html, level = f"<li>{_named(paper, root)}", 0
        for depth, other, where in rows:
            html += "<ul>" if depth > level else "</li>" + "</ul></li>" * (level - depth)
            html += f'<li>{_named(other, root)} <span class="dyn-muted">{text(where)}</span>'
            level = depth
        parts.append(html + "</li></ul>" * level + "</li>")
    return f"<ul>{''.join(parts)}</ul>" if parts else '<p class="dyn-note">No descent is stated between papers.</p>'


def lineage_graph(kb: KnowledgeBase, root: str = "../") -> str:
    """The lineage of the field as HTML."""
    return drawing("lineage", lineage_data(kb, root), lineage_list(kb, root))


WIDTH, COLUMN, LINE, HEAD = 126, 172, 9, 26  # of a box; from column to column, line to line; above the first line
STYLE = """
.dyn-lineage-svg text { font: 12px system-ui, sans-serif; fill: var(--pst-color-text-base, #222832); }
.dyn-lineage-svg .year { fill: var(--dyn-muted, #5b6470); }
.dyn-lineage-svg .paper rect { fill: var(--pst-color-background, #fff); stroke: var(--dyn-muted, #5b6470); }
.dyn-lineage-svg .static rect { stroke-dasharray: 4 3; }
.dyn-lineage-svg .chosen rect { stroke: var(--dyn-accent, #0b6a8f); stroke-width: 2.5; }
.dyn-lineage-svg a:hover rect, .dyn-lineage-svg a:focus rect { stroke: var(--dyn-accent, #0b6a8f); stroke-width: 2; }
.dyn-lineage-svg path { fill: none; stroke: var(--dyn-muted, #5b6470); stroke-width: 1.3; }
.dyn-lineage-svg .improves { stroke-dasharray: 7 3; }
"""


def lineage_svg(kb: KnowledgeBase, name: str, address=None) -> str:
    """The ancestors and descendants of a paper as one SVG; empty where none is stated. Raises UnknownName.

    `address`: a function from a paper to where its box leads, by default its page beside that of `name`. Boxes with a
    dashed frame are static ancestors, dashed lines are improvements; each line says where the newer paper states it.
    """
    chosen = kb[name]
    steps = (lambda key: parents(kb[key])), (lambda key: children(kb, key))
    before, after = ([p for _, p, _ in tree(kb, chosen.key, step)] for step in steps)
    papers = {p.key: p for p in (chosen, *before, *after)}
    if len(papers) == 1:
        return ""
    edges = [(p, r) for p in papers.values() for r in p.relations if r.kind in DESCENT and r.target in papers]
    years = {key: p.year for key, p in papers.items()}
    place = layout(years, [(p.key, r.target) for p, r in edges])
    order = sorted(set(years.values()))
    width = len(order) * COLUMN - (COLUMN - WIDTH) + 26
    height = HEAD + LINE * (2 + max(place.values()))

    def middle(at: tuple[str, int]) -> tuple[int, int]:
        return 2 + order.index(at[1]) * COLUMN, HEAD + LINE * place[at]

    lines = []
    for p, r in edges:
        says = f"{p.method} {r.kind} {papers[r.target].method}: {r.where}"
        older, newer = sorted((p.key, r.target), key=lambda key: (years[key], key))
        path = _path([middle(at) for at in _track(older, newer, years, order)])
        lines.append(f'<path class="{_plain(r.kind)}" d="{path}"><title>{_plain(says)}</title></path>')
    boxes = []
    for key, p in sorted(papers.items(), key=lambda item: (item[1].year, place[item[0], item[1].year])):
        x, y = middle((key, p.year))
        marks = ["paper", *(["chosen"] if p is chosen else ()), *(["static"] if p.kind == "background" else ())]
        box = (
            f'<g class="{" ".join(marks)}"><title>{_plain(f"{p.title} ({p.year})")}</title>'
            f'<rect x="{x}" y="{y - 11}" width="{WIDTH}" height="22" rx="5"/>'
            f'<text x="{x + 7}" y="{y + 4}">{_plain(_short(p.method))}</text></g>'
        )
        target = attribute((address or (lambda p: p.link if p.kind == "background" else page_of(p.key)))(p))
        boxes.append(f'<a href="{target}">{box}</a>' if target and p is not chosen else box)
    heads = "".join(
        f'<text class="year" x="{2 + column * COLUMN}" y="14">{year}</text>' for column, year in enumerate(order)
    )
    said = f"{plural(len(before), 'ancestor')} and {plural(len(after), 'descendant')}, by year"
    mark = re.sub(r"[^\w-]", "-", chosen.key)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="dyn-lineage-svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="group" aria-labelledby="lineage-{mark} lineage-{mark}-desc">'
        f'<title id="lineage-{mark}">The lineage of {_plain(chosen.method)}</title>'
        f'<desc id="lineage-{mark}-desc">{said}. Lines lead from what a paper builds on.</desc>'
        f"<style>{STYLE}</style>{heads}{''.join(lines)}{''.join(boxes)}</svg>"
    )


def lineage_figure(kb: KnowledgeBase, paper: Paper) -> str:
    """HTML for a paper's page: its lineage, and the way to that of all; empty where none is stated."""
    svg = lineage_svg(kb, paper.key)
    if not svg:
        return ""
    whole = link(f"../book/lineage.html?{urlencode({'paper': paper.key})}", "in the lineage of the whole field")
    label = text(f"Lineage of {paper.method}")
    return (
        f'<div class="dyn-scroll dyn-canvas" tabindex="0" role="region" aria-label="{label}">{svg}</div>'
        f'<p class="dyn-small dyn-muted">What it builds on and what was built on it; the same {whole}.</p>'
    )


def _path(points: list[tuple[int, int]]) -> str:
    """The line through these places, from the right end of the first box; to its right, too, in the same year."""
    (x, y), *rest = points
    x += WIDTH
    path = f"M{x},{y}"
    for x1, y1 in rest:
        if x1 < x:
            return f"{path}C{x + 24},{y} {x + 24},{y1} {x},{y1}"
        path += f"C{(x + x1) // 2},{y} {(x + x1) // 2},{y1} {x1},{y1}"
        if x1 != points[-1][0]:
            path += f"H{x1 + WIDTH}"
        x, y = x1 + WIDTH, y1
    return path


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def _plain(value) -> str:
    """Escaped text that XML can hold: it has no place for control characters."""
    return text(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", " ", str(value)))


# ---------------------------------------------------------------- venues over the years

MOST = 8  # rows of their own, for the conferences with most papers
OTHERS = ("Other conferences", "Workshops", "Journals", "arXiv", "Elsewhere")


def venue(paper: Paper) -> str:
    """The short name of a conference, or one of OTHERS: "IEEE/CVF Conference on ... (CVPR)" and "CVPR" are one."""
    name = re.sub(r"\s+", " ", paper.venue).strip()
    if "workshop" in name.casefold():
        return "Workshops"
    if "arxiv" in name.casefold() or (not name and paper.eprint):
        return "arXiv"
    if paper.type == "article":
        return "Journals"
    known = re.search(r"\(([^()]+)\)", name) or re.fullmatch(r"([A-Z][A-Za-z]*[A-Z])(?: \d{4})?", name)
    if not known:
        return "Other conferences" if paper.type == "inproceedings" and name else "Elsewhere"
    short = known[1].split("-")[0]  # EMNLP-IJCNLP is EMNLP, held with another
    return {"NIPS": "NeurIPS"}.get(short, short)


def timeline_data(kb: KnowledgeBase, root: str = "../") -> dict:
    """What `timeline.js` needs: papers with their row, years, rows, taxonomy, and events where there are any."""
    at = {p.key: venue(p) for p in kb}
    counts = Counter(row for row in at.values() if row not in OTHERS)
    own = [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:MOST]
    row = {key: name if name in own or name in OTHERS else OTHERS[0] for key, name in at.items()}
    papers = [
        {
            "key": p.key,
            "method": p.method,
            "title": p.title,
            "year": year,
            "venue": p.venue,
            "row": row[p.key],
            "url": page_of(p.key, f"{root}papers/"),
            "places": list(p.nodes),
        }
        for year, some in kb.timeline().items()
        for p in some
    ]
    events = _events(kb, root)
    return {
        "papers": papers,
        "years": sorted({p["year"] for p in papers} | {e["year"] for e in events}),
        "rows": [name for name in (*own, *OTHERS) if name in row.values()],
        "nodes": [{"id": n.id, "label": n.label} for n in kb.nodes if any(p.within(n.id) for p in kb)],
        "events": events,
        "roots": _roots(kb),
    }


def _events(kb: KnowledgeBase, root: str) -> list[dict]:
    """Events of the field that have a year, each leading to the page of its first paper or to its own address."""
    found = []
    for event in sorted(kb.records(), key=lambda r: (r.year, r.id)):
        if event.kind == "event" and event.year:
            first = kb[event.papers[0]] if event.papers else None
            url = _address(first, root) if first else attribute(event.url)
            doubt = "" if event.status == "checked" else f" {event.status[0].upper()}{event.status[1:]}."
            found.append({"name": event.name, "about": event.about + doubt, "year": event.year, "url": url})
    return found


def timeline_table(data: dict) -> str:
    """Years by venues, each cell with its papers; the newest year first."""
    cells: dict[tuple[int, str], list[str]] = defaultdict(list)
    for p in data["papers"]:
        cells[p["year"], p["row"]].append(link(p["url"], p["method"], title=p["title"]))
    for e in data["events"]:
        cells[e["year"], "Events"].append(link(e["url"], e["name"], title=e["about"]) if e["url"] else text(e["name"]))
    columns = [*data["rows"], *(["Events"] if data["events"] else ())]
    rows = [[str(year), *(", ".join(cells[year, c]) for c in columns)] for year in reversed(data["years"])]
    return table(["year", *map(text, columns)], rows, caption="Papers by year and venue", classes="dyn-table dyn-wrap")


def timeline(kb: KnowledgeBase, root: str = "../") -> str:
    """The timeline as HTML."""
    data = timeline_data(kb, root)
    return drawing("timeline", data, timeline_table(data))


# ---------------------------------------------------------------- crowded and empty combinations


def gaps_data(kb: KnowledgeBase, root: str = "../") -> dict:
    """What `gaps.js` needs: the words in use on each axis, and each paper's words. "unknown" is no place to be."""
    papers = [
        {
            "method": p.method,
            "title": p.title,
            "year": p.year,
            "url": page_of(p.key, f"{root}papers/"),
            "words": {axis: [w for w in words(p, axis) if w != "unknown"] for axis in AXES},
        }
        for p in sorted(kb, key=lambda p: (p.year, p.key))
    ]
    used = {axis: {word for p in papers for word in p["words"][axis]} for axis in AXES}
    axes = {axis: {w: about for w, about in kb.facets[axis].items() if w in used[axis]} for axis in AXES}
    return {"papers": papers, "axes": axes, "map": f"{root}book/map.html"}


def gaps_sentence(kb: KnowledgeBase) -> str:
    """How many combinations there are, how many are empty, and which is the most crowded: counted, never typed."""
    cells = kb.gaps()
    if not cells:
        return '<p class="dyn-lead">No paper has a word on every axis.</p>'
    empty = sum(not cell.papers for cell in cells)
    sizes = [f"{len({cell.where[axis] for cell in cells})} of {axis}" for axis in AXES]
    few = sum(len(cell.papers) == 1 for cell in cells)
    crowded = " × ".join(cells[0].where.values())
    pairs = kb.gaps("unit", "decision")
    bare = sum(not cell.papers for cell in pairs)
    return (
        f'<p class="dyn-lead">The words in use ({text(", ".join(sizes))}) make {len(cells):,} combinations: {empty:,} '
        f"hold no paper of this book, {few:,} hold one, and the most crowded, {text(crowded)}, holds "
        f"{len(cells[0].papers)}. Of the {len(pairs)} pairs of unit and decision alone, {bare} are empty.</p>"
    )


def gaps_table(kb: KnowledgeBase, root: str = "../") -> str:
    """Unit by decision: papers in each cell, and how many of the pairs of training and executes inside it are empty."""
    cells = kb.gaps()
    inside = len({(c.where["training"], c.where["executes"]) for c in cells})
    filled = Counter((c.where["unit"], c.where["decision"]) for c in cells if c.papers)
    pairs = {(c.where["unit"], c.where["decision"]): c.papers for c in kb.gaps("unit", "decision")}
    units, decisions = ([w for w in kb.facets[axis] if any(w == key[i] for key in pairs)]
                        for i, axis in enumerate(("unit", "decision")))  # fmt: skip

    def cell(unit: str, decision: str) -> str:
        papers = pairs[unit, decision]
        if not papers:
            return '<span class="dyn-muted">none</span>'
        url = filtered(unit=unit, decision=decision)
        return link(url, plural(len(papers), "paper")) + f", {inside - filled[unit, decision]} empty inside"

    rows = [[text(unit), *(cell(unit, decision) for decision in decisions)] for unit in units]
    caption = f"What is skipped (rows), who decides (columns); inside each, {inside} pairs of training and executes"
    return table(["", *map(text, decisions)], rows, caption=caption, classes="dyn-table dyn-wrap")


def gaps_map(kb: KnowledgeBase, root: str = "../") -> str:
    """The map of gaps as HTML, its figures in a sentence above it."""
    return gaps_sentence(kb) + drawing("gaps", gaps_data(kb, root), gaps_table(kb, root))
