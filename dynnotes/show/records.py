"""The records of one kind as HTML: people, meetings, events, systems, each with its papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pages import page_of, plural
from .tables import link, table, text

if TYPE_CHECKING:
    from dynnotes.knowledge.query import KnowledgeBase, Paper
    from dynnotes.knowledge.records import Record

SHOWN = 12  # a record with more papers than this counts them and shows them when asked


def records(kb: KnowledgeBase, kind: str, root: str = "../") -> str:
    """A list of all records of a kind. Years go from old to new; without years, most papers come first.

    Raises UnknownWord.
    """
    found = [(record, kb.papers_of(record)) for record in kb.records(kind)]
    found.sort(key=lambda pair: (pair[0].year or 9999, 0 if pair[0].year else -len(pair[1])))
    items = "".join(item(kb, record, papers, root) for record, papers in found)
    about = kb.record_kinds[kind]
    return f'<p class="dyn-muted">{text(about[:1].upper() + about[1:])}.</p><ul class="dyn-records">{items}</ul>'


def most_cited(kb: KnowledgeBase, root: str = "../", count: int = 12) -> str:
    """The papers that most others here refer to, counted from the relations, never typed."""
    rows = [[_paper(p, root), str(p.year), str(number)] for p, number in kb.most_cited(count)]
    caption = "Most referred to: papers here that extend, improve, apply, distil or compare with it"
    return table(["paper", "year", "papers"], rows, caption=caption)


def item(kb: KnowledgeBase, record: Record, papers: list, root: str) -> str:
    """One record, with the id that others link to."""
    name = link(record.url, record.name, rel="external noopener") if record.url else text(record.name)
    zh = f' <span lang="zh">{text(record.zh)}</span>' if record.zh else ""
    year = f"{record.year}: " if record.kind == "event" else ""
    when = f" ({record.year})" if record.year and not year else ""
    doubt = "" if record.status == "checked" else f' <span class="dyn-badge dyn-doubt">{text(record.status)}</span>'
    at = ", ".join(link(f"#record-{other.id}", other.name) for other in map(kb.record, record.at))
    notes = [at, text(f"seen: {record.source}")]
    return (
        f'<li id="record-{record.id}"><strong>{year}{name}</strong>{zh}{when}{doubt}<br>{text(record.about)}'
        f"{_papers(papers, root, closed=record.kind == 'conference' or len(papers) > SHOWN)}"
        f'<p class="dyn-muted dyn-small">{"; ".join(filter(None, notes))}</p></li>'
    )


def _papers(papers: list, root: str, closed: bool) -> str:
    if not papers:
        return ""
    links = [_paper(p, root) for p in papers]
    if closed:
        return f"<details><summary>{plural(len(links), 'paper')}</summary>{', '.join(links)}</details>"
    return f"<br>{', '.join(links)}"


def _paper(paper: Paper, root: str) -> str:
    """A link to a paper's page; a static ancestor has none."""
    if paper.kind == "background":
        return link(paper.link, paper.method, title=paper.title, rel="external noopener")
    return link(page_of(paper.key, f"{root}papers/"), paper.method, title=paper.title)
