"""The founding lists as HTML: headings and papers in the order of the list, each paper a link to its page."""

from __future__ import annotations

from dynnotes.knowledge.lists import bare

from .pages import filtered, page_of
from .tables import link, text


def reading_list(kb, name: str, papers: str = "../papers/") -> str:
    """HTML of a founding list, its headings from h3 on; `papers` is the way to the folder of the papers' pages."""
    found = kb.list(name)
    source = f" {_out(found.source, 'The list itself')}" if found.source else ""
    parts = [f"<p>{text(found.about)}{source}</p>"]
    parts += [f"<p>{_tag(tag)} {text(meaning)}</p>" for tag, meaning in found.tags.items()]
    for note in found.notes:
        more = f" {_out(note.link, bare(note.link))}" if note.link else ""
        parts.append(f"<p><strong>{text(note.title)}.</strong> {text(note.text)}{more}</p>")
    return "\n".join(parts + [_group(kb, group, 3, papers) for group in found.groups])


def _group(kb, group, level: int, papers: str) -> str:
    parts = [f"<h{min(level, 6)}>{text(group.title)}{_chinese(group.zh)}</h{min(level, 6)}>"]
    place = f'<span class="dyn-muted">On the map: {_place(kb, group)}</span>' if group.node else ""
    if told := " ".join(filter(None, [text(group.about), place])):
        parts.append(f"<p>{told}</p>")
    rows = [_paper(kb, listed, papers) for listed in group.papers]
    rows += [_record(record) for kind in group.records for record in kb.records(kind)]
    if rows:
        parts.append(f"<ul>{''.join(rows)}</ul>")
    if group.outline:
        parts.append(_outline(kb, group.groups))
    else:
        parts += [_group(kb, below, level + 1, papers) for below in group.groups]
    return "\n".join(filter(None, parts))


def _outline(kb, groups) -> str:
    """Headings without papers, as a nested list; each leads to the map where it has a place there."""
    rows = ""
    for group in groups:
        name = _place(kb, group, group.title) if group.node else text(group.title)
        about = f": {text(group.about)}" if group.about else ""
        rows += f"<li>{name}{_chinese(group.zh)}{about}{_outline(kb, group.groups)}</li>"
    return f"<ul>{rows}</ul>" if rows else ""


def _chinese(zh: str) -> str:
    return f' <span lang="zh">{text(zh)}</span>' if zh else ""


def _place(kb, group, label: str = "") -> str:
    """A link to the map at the place in the taxonomy that means the same."""
    node = kb.node(group.node)
    return link(filtered(taxon=node.id), label or node.label, title=node.about)


def _paper(kb, listed, papers: str) -> str:
    paper = kb[listed.key]
    if paper.kind == "background":  # no page of its own
        name = _out(paper.link, paper.title)
    else:
        name = link(page_of(paper.key, papers), paper.title)
    tags = "".join(f" {_tag(tag)}" for tag in listed.tags)
    remark = f'<br><span class="dyn-muted">{text(listed.remark)}</span>' if listed.remark else ""
    return f'<li>{name} <span class="dyn-muted">{text(paper.method)}, {paper.year}</span>{tags}{remark}</li>'


def _record(record) -> str:
    return f"<li>{_out(record.url, record.name)}{_chinese(record.zh)}: {text(record.about)}</li>"


def _tag(tag: str) -> str:
    return f'<span class="dyn-badge">{text(tag)}</span>'


def _out(url: str, label: str) -> str:
    """A link that leaves the book; the label alone where there is no address."""
    return link(url, label, rel="external noopener") if url else text(label)
