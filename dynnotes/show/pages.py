"""One page per paper, and the parts of the map: Markdown and HTML made from the knowledge base, never committed.

Every string that comes from BibTeX, results or traces is data: it goes through `tables.text` (HTML) or `markdown`
(headings), so a title holding `<script>` or `{{ }}` is shown, not run.
"""

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote, urlencode

from dynnotes.learn import evidence

from . import claims, figures
from .tables import FACETS, authors, link, number, percent, preformatted, table, text, words

MAP = "../book/map.html"
YES = '<span class="dyn-badge dyn-yes">implemented</span>'
RELATION = {  # kind: (as read on the citing paper, as read on the cited one)
    "extends": ("Extends", "Extended by"),
    "improves": ("Improves", "Improved by"),
    "compares": ("Compares with", "Compared in"),
    "distils": ("Distils", "Distilled by"),
    "applies": ("Applies", "Applied by"),
    "survey-of": ("Surveys", "Surveyed in"),
}


def markdown(value) -> str:
    """Text as one line of Markdown in which nothing is markup: every ASCII punctuation mark gets its backslash."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", re.sub(r"\s+", " ", str(value)).strip())


def raw(html: str) -> str:
    """A MyST block that puts `html` on the page as it is (its fence is longer than any run of backticks in it)."""
    return f"{fence(html)}{{raw}} html\n{html}\n{fence(html)}\n"


def fence(body: str) -> str:
    """A fence of backticks longer than any run in `body`."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", body)), default=0))


def filtered(**query) -> str:
    """Address of the map, opened with these filters (from a paper's page)."""
    return f"{MAP}?{urlencode(query, quote_via=quote, safe='/,')}"


def page_of(key: str, root: str = "") -> str:
    """Address of a paper's page, relative to the folder of all papers (or below `root`)."""
    return f"{root}{quote(key)}.html"


def explain(kb, facet: str, word: str) -> str:
    """The line of the vocabulary that explains a facet's word; empty when the word has none."""
    return kb.facets.get(facet, {}).get(word) or ""


# ---- the parts of a paper's page, each a string of HTML or Markdown, empty when there is nothing to say


def badges(paper, implemented: bool) -> str:
    """Implemented, planned or a reference, and whether the entry was checked against the paper."""
    marks = [YES if implemented else f'<span class="dyn-badge">{paper.standing}</span>']
    if paper.kind != "method":
        marks.append(f'<span class="dyn-badge">{text(paper.kind)}</span>')
    if not str(paper.status).startswith("checked"):
        doubt = str(paper.status).partition(":")[2].strip() or "not yet checked against the paper"
        marks.append(f'<span class="dyn-badge dyn-doubt">unconfirmed: {text(doubt)}</span>')
    return " ".join(marks)


def breadcrumb(paper, kb) -> str:
    """Where the paper sits in the taxonomy, each step a link to the map; `also` places below it."""
    names = {node.id: node for node in kb.nodes}

    def trail(place: str) -> str:
        parts, steps = place.split("/"), []
        for i in range(len(parts)):
            node = names.get("/".join(parts[: i + 1]))
            if node:
                steps.append(link(filtered(taxon=node.id), node.label, title=node.about or ""))
        return ' <span aria-hidden="true">›</span> '.join(steps)

    also = "".join(f'<br><span class="dyn-muted">also</span> {trail(place)}' for place in paper.also)
    return f'<nav class="dyn-crumbs" aria-label="Place in the taxonomy">{trail(paper.node)}{also}</nav>'


def facets(paper, kb) -> str:
    """The eight facets; each word opens the map filtered by it."""
    cells = []
    for facet in FACETS:
        chips = [
            f'<a class="dyn-chip" href="{text(filtered(**{facet: word}))}" title="{text(explain(kb, facet, word))}">'
            f"{text(word)}</a>"
            for word in words(paper, facet)
        ]
        cells.append(f"<div><dt>{facet}</dt><dd>{' '.join(chips) or '–'}</dd></div>")
    return f'<dl class="dyn-facets">{"".join(cells)}</dl>'


def relations(paper, kb) -> str:
    """Typed relations both ways, each with where the paper says so."""
    known = {other.key: other for other in kb.entries}
    groups: dict[str, list] = defaultdict(list)

    def item(key: str, where: str) -> str:
        other = known.get(key)
        if other is None:
            name = text(key)
        elif other.kind == "background":  # static ancestors have no page
            name = link(other.link, f"{other.method} ({other.year})", title=other.title, rel="external noopener")
        else:
            name = link(page_of(key), f"{other.method} ({other.year})", title=other.title)
        place = f' <span class="dyn-muted">{text(where)}</span>' if where else ""
        return f"<li>{name}{place}</li>"

    for relation in paper.relations:
        groups[RELATION.get(relation.kind, (relation.kind,) * 2)[0]].append(item(relation.target, relation.where))
    for other in known.values():
        for relation in other.relations:
            if relation.target == paper.key:
                groups[RELATION.get(relation.kind, (relation.kind,) * 2)[1]].append(item(other.key, relation.where))
    if not groups:
        return '<p class="dyn-muted">No relation to another paper of this book is recorded yet.</p>'
    lists = "".join(f"<div><dt>{text(kind)}</dt><dd><ul>{''.join(r)}</ul></dd></div>" for kind, r in groups.items())
    return f'<dl class="dyn-relations">{lists}</dl>'


def near(paper, kb, count: int = 5) -> str:
    """HTML: the papers nearest to this one that have a page, each with the three weightiest reasons."""
    found = kb.relatives(paper.key, len(kb.entries)) if paper in kb else []
    rows = "".join(
        f"<li>{link(page_of(other.key), other.method)} ({other.year}): {text('; '.join(why[:3]))}</li>"
        for other, why in [(other, why) for other, _, why in found if other.kind != "background"][:count]
    )
    return f'<h3 class="dyn-near">Nearest, and why</h3><ul>{rows}</ul>' if rows else ""


def outside(paper) -> str:
    """Links that leave the book: arXiv, DOI, the paper's own address and its authors' code."""
    found = []
    if paper.eprint:
        found.append((f"https://arxiv.org/abs/{quote(paper.eprint, safe='/.')}", f"arXiv {paper.eprint}"))
    if paper.doi:
        found.append((f"https://doi.org/{quote(paper.doi, safe='/.()-_;:')}", "DOI"))
    if paper.url and paper.url.rstrip("/") not in {url for url, _ in found}:
        found.append((paper.url, "paper"))
    if paper.code:
        found.append((paper.code, "authors’ code"))
    return " ".join(link(url, name, **{"class": "dyn-out", "rel": "external noopener"}) for url, name in found)


def bibtex(paper) -> str:
    """The entry with a button that copies it; `assets/js/book.js` shows the button, without it one selects the text."""
    return (
        '<div class="dyn-bibtex"><button type="button" class="dyn-copy" hidden>Copy BibTeX</button>'
        f'<pre tabindex="0" aria-label="BibTeX entry">{preformatted(paper.bibtex().strip())}</pre></div>'
    )


def idea(source) -> str:
    """Markdown: the docstring of the paper's module, with its equations, without its claim, which is on the card."""
    return claims.without_claim(ast.get_docstring(ast.parse(Path(source.file).read_text(encoding="utf-8"))) or "")


def code(source, repository: str = "", branch: str = "main") -> str:
    """Markdown: the paper's module without its docstring (that is `idea`), highlighted, with the lines of the file."""
    path = Path(source.file)
    body = path.read_text(encoding="utf-8")
    lines, start = body.split("\n"), 0
    tree = ast.parse(body)
    if ast.get_docstring(tree):
        start = tree.body[0].end_lineno
    while start < len(lines) and not lines[start].strip():
        start += 1
    shown = "\n".join(lines[start:]).rstrip()
    inside = source.module.replace(".", "/") + ".py"
    where = link(f"{repository}/blob/{branch}/{inside}", inside) if repository else text(inside)
    mark = fence(shown)
    return (
        raw(f'<p class="dyn-file">{where}, class <code>{text(source.name)}</code></p>')
        + f"\n{mark}{{code-block}} python\n:lineno-start: {start + 1}\n\n{shown}\n{mark}\n"
    )


def results_section(result: dict, static=(), stale: bool = False, times=()) -> str:
    """What the recipe measured, as HTML: the verdict by its rules, a figure, a table, times, the receipt, its origin.

    `result`: a checked `dynnotes.results/1` file; `static`: runs of the static nets beside it; `stale`: whether the
    code changed since; `times`: those of the trained net (`evidence.times`). Every mean, interval and verdict is
    computed here from the single runs.
    A paper without a budget (None) has one setting; the figure then has one point per seed.
    """
    points = evidence.summary(result)
    full = result.get("full")
    seeds = len({run["seed"] for run in result["runs"]})
    knob = result["budget"] and result["budget"]["name"]
    parts = [claims.judgement(result, evidence.verdict(result, static), stale)]

    net = result["recipe"]["net"]
    if knob is None:
        parts.append(f'<p class="dyn-note">{without_budget(result)}</p>')
        seen = [(r["macs_executed"], evidence.interval([r["accuracy"]]), f"seed {r['seed']}") for r in result["runs"]]
        curves, settings = [{**_curve(net, seen), "points": True}], plural(seeds, "seed")
    else:
        curves = [_curve(net, [(p.macs.mean, p.accuracy, f"{knob} {p.budget:g}") for p in points])]
        settings = plural(len(points), "budget")
    if static:
        line = [(macs, accuracy, net) for net, macs, accuracy in evidence.static_points(static)]
        curves.append({**_curve("static nets", line), "dash": True})
    label = f"{net} on {result['task']}: accuracy against executed MACs at {settings}"
    parts.append(figures.embed(figures.tradeoff(curves), label))

    head = [text(knob or "setting"), "accuracy", "executed MACs", "of everything on", "MACs follow difficulty"]
    rows = [
        [
            "the only one" if p.budget is None else f"{p.budget:g}",
            interval(p.accuracy, percent),
            number(p.macs.mean),
            percent(p.macs.mean / full) if full else "–",
            "–" if p.correlation is None else interval(p.correlation, "{:+.2f}".format),
        ]
        for p in points
    ]
    over = f"{seeds} seeds, in brackets the 95 % interval" if seeds > 1 else "one seed, so no interval"
    parts.append(table(head, rows, caption=f"On {result['task']}, {over}. Claimed and executed MACs are equal."))
    if times:
        parts.append(time_table(times, knob))
    if result["receipts"]:
        parts.append(receipt_table(result["receipts"]))
    recipe, versions = result["recipe"], result["versions"]
    parts.append(
        '<p class="dyn-muted dyn-small">'
        + text(
            f"{net}, {result['params']:,} parameters, {recipe['samples']:,} training and "
            f"{recipe['test_samples']:,} test samples, {recipe['epochs']} epochs. {result['date']}, "
            + ", ".join(f"{what} {version}" for what, version in versions.items())
            + "."
        )
        + f" Again: <code>{text(result['command'])}</code></p>"
    )
    return "\n".join(parts)


def results_sections(sections) -> str:
    """The results of a paper on several tasks, [(task, HTML)], each below its task's name; a single one needs none."""
    if len(sections) == 1:
        return sections[0][1]
    return "\n".join(f'<h3 class="dyn-task">On {text(task)}</h3>\n{section}' for task, section in sections)


def without_budget(result) -> str:
    """HTML: why the results of a paper without a budget have one setting only."""
    costs = {run["macs_executed"] for run in result["runs"]}
    said = "There is no knob to turn here: one setting, and a point for every seed."
    if costs == {result["full"]}:
        return f"{said} Every input runs the whole net, so nothing is saved; what counts is the accuracy at this cost."
    return f"{said} What an input costs follows from the input alone."


def plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _curve(name: str, points) -> dict:
    """A curve for `figures.tradeoff` from (MACs, accuracy interval, label)."""
    known = [(macs, a.mean if a.low is None else a.low, a.mean, a.mean if a.high is None else a.high, label)
             for macs, a, label in points]
    x, low, y, high, labels = map(list, zip(*known, strict=True))
    return {"name": name, "x": x, "y": y, "low": low, "high": high, "labels": labels}


def interval(value, form) -> str:
    """A mean with its interval, where there is one: '93.1 % (92.0 % to 94.2 %)'."""
    if value.low is None:
        return form(value.mean)
    return f'{form(value.mean)} <span class="dyn-muted">({form(value.low)} to {form(value.high)})</span>'


def time_table(times, knob: str | None) -> str:
    """Milliseconds per input of the trained net, dense and sparse, one row per budget and batch size."""
    rows = []
    for row in sorted(times, key=lambda row: row["batch"]):
        low, high = (row["ms"] * quartile / row["sparse"][0] for quartile in row["sparse"][1:])
        sparse = f'{row["ms"]:.3g} <span class="dyn-muted">({low:.3g} to {high:.3g})</span>'
        if row["void"]:
            sparse += ' <span class="dyn-muted">void: the machine was not quiet</span>'
        rows.append([str(row["batch"]), "the only one" if row["budget"] is None else f"{row['budget']:g}",
                     f"{row['ms_dense']:.3g}", sparse, f"{row['noise']:.2f}"])
    caption = ("Times of the trained net, ms per input, in brackets the quartiles. It is small, so overhead weighs "
               "more than arithmetic: these times are shown, never judged. Noise: a static net beside it, over itself.")
    return table(["batch", text(knob or "setting"), "ms dense", "ms sparse", "noise"], rows, caption=caption)


def receipt_table(receipts) -> str:
    """Needed, claimed, executed and issued MACs per input, and milliseconds, one row per batch size.

    Where nothing can be skipped all these MACs are one number, and only the two ways of running it are compared.
    """
    skips = any(receipt["executed"] != receipt["full"] for receipt in receipts)
    counts = ("full", "needed", "claimed", "executed", "issued") if skips else ("executed",)
    names = {"full": "everything on"} if skips else {"executed": "MACs"}
    head = ["batch", *(names.get(name, name) for name in counts), "ms dense", "ms sparse", "time"]
    rows = []
    for receipt in receipts:
        low, high = receipt["time_spread"]
        time = f'{receipt["time_ratio"]:.2f} <span class="dyn-muted">({low:.2f} to {high:.2f})</span>'
        if receipt["void"]:
            time = '<span class="dyn-muted">void: the machine was not quiet</span>'
        macs = [number(receipt[name]) for name in counts]
        rows.append([str(receipt["batch"]), *macs, f"{receipt['ms_dense']:.3g}", f"{receipt['ms_sparse']:.3g}", time])
    caption = "Receipt of a larger net, MACs and ms per input; time is sparse over dense."
    if not skips:
        caption = ("Receipt of a larger net, MACs and ms per input. Nothing is skipped: both ways of running it, dense "
                   "and sparse, compute the same, in another order if at all; time is sparse over dense.")
    return table(head, rows, caption=caption)


def theatre(trace: dict | None) -> str:
    """The gate theatre over a trace, as HTML; empty without one."""
    if trace is None:
        return ""
    from .widgets.theatre import static_html

    return static_html(trace)


def paper_page(
    paper, kb, *, source=None, results: str = "", trace=None, lineage: str = "", repository: str = "",
    branch: str = "main",
) -> str:
    """The whole page of one paper, as MyST Markdown.

    `source`: where its class stands (`registry.Source`) or None; `results`: HTML of `results_section`; `trace`: its
    trace file, read, or None; `lineage`: HTML of its ancestors and descendants.
    """
    venue = ", ".join(str(part) for part in (paper.venue, paper.year) if part)
    aka = f' <span class="dyn-muted">also called {text(", ".join(paper.aka))}</span>' if paper.aka else ""
    head = [
        f'<p class="dyn-byline">{text(authors(paper))}<br><span class="dyn-muted">{text(venue)}</span></p>',
        f'<p class="dyn-badges"><strong>{text(paper.method)}</strong>{aka} {badges(paper, source is not None)}</p>',
        f'<p class="dyn-lead">{text(paper.tldr)}</p>' if paper.tldr else "",
        f'<p class="dyn-headline"><span>The paper’s own headline</span> {text(paper.headline)}</p>'
        if paper.headline
        else "",
        f'<p class="dyn-links">{outside(paper)}</p>',
        breadcrumb(paper, kb),
        facets(paper, kb),
    ]
    about = re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd]", " ", paper.tldr or paper.title)  # what YAML can hold
    about = json.dumps(about, ensure_ascii=False)
    wide = "html_theme.sidebar_secondary.remove: true\n" if trace is not None else ""  # the theatre wants the width
    parts = [
        f"---\norphan: true\n{wide}myst:\n  html_meta:\n    description: {about}\n---",
        f"# {markdown(paper.title)}",
        raw("\n".join(part for part in head if part)),
    ]
    if trace is not None:
        parts += ["## Watch it decide", raw(theatre(trace))]
    if source is not None:
        parts += ["## How it works", idea(source)]
        if card := claims.card(claims.said_by(source)) + results:
            parts += ["## What it claims, and what it does here", raw(card)]
        parts += ["## Code", code(source, repository, branch)]
    elif paper.standing == "reference":
        note = "A survey has no code of its own; the papers it covers do." if paper.kind == "survey" else (
            "A reference: papers here build on it or are compared with it. Code for it is not planned.")
        parts += ["## Code", raw(f'<p class="dyn-note">{note}</p>')]
    else:
        guide = link(f"{repository}/blob/{branch}/CONTRIBUTING.md", "six steps") if repository else "six steps"
        parts += [
            "## Code",
            raw(
                '<p class="dyn-note">Planned: there is no code, no receipt and no result here, because '
                f"nobody has written them. You can, in {guide}; the third is "
                f"<code>make new-paper KEY={text(paper.key)}</code>.</p>"
            ),
        ]
    parts += ["## Related papers", raw(lineage + relations(paper, kb) + near(paper, kb)), "## Cite", raw(bibtex(paper))]
    return "\n\n".join(parts) + "\n"


# ---- the map of the field


def field_data(kb, root: str = "../") -> dict:
    """What `assets/js/explorer.js` needs: papers, taxonomy and vocabularies, as plain JSON."""
    papers = [
        {
            "key": paper.key,
            "title": paper.title,
            "method": paper.method,
            "aka": list(paper.aka),
            "authors": list(paper.authors),
            "year": paper.year,
            "venue": paper.venue,
            "eprint": paper.eprint,
            "places": list(paper.nodes),
            "tldr": paper.tldr,
            "url": page_of(paper.key, f"{root}papers/"),
            "status": paper.standing,
            "facets": {facet: list(words(paper, facet)) for facet in (*FACETS, "lists")},
        }
        for paper in kb
    ]
    known = {**{facet: kb.facets[facet] for facet in FACETS}, "lists": kb.lists}
    used = {facet: {word for paper in papers for word in paper["facets"][facet]} for facet in known}
    vocabulary = {
        facet: {word: about for word, about in explained.items() if word in used[facet]}
        for facet, explained in known.items()
    }
    nodes = [
        {"id": n.id, "label": n.label, "zh": n.zh or "", "about": n.about or "", "survey": sections(n)}
        for n in kb.nodes
    ]
    return {"papers": papers, "nodes": nodes, "facets": vocabulary}


def sections(node) -> str:
    """The survey's section(s) of a node, as text."""
    return ", ".join([node.survey] if isinstance(node.survey, str) else node.survey or ())


def field_list(kb, sources, root: str = "../") -> str:
    """All papers by taxonomy as plain HTML: the map without JavaScript."""
    at: dict[str, list] = defaultdict(list)
    for paper in kb:
        at[paper.node].append(paper)
    lines = []
    for node in kb.nodes:
        if not any(place == node.id or place.startswith(f"{node.id}/") for place in at):
            continue
        level = min(6, 2 + node.id.count("/"))
        chinese = f' <small lang="zh">{text(node.zh)}</small>' if node.zh else ""
        lines.append(f"<h{level}>{text(node.label)}{chinese}</h{level}>")
        lines.append(f'<p class="dyn-muted">{text(node.about)}</p>' if node.about else "")
        rows = [
            f"<li>{link(page_of(paper.key, f'{root}papers/'), paper.method)} ({text(paper.year)}). {text(paper.tldr)} "
            f"{YES if paper.key in sources else ''}</li>"
            for paper in at.get(node.id, ())
        ]
        lines.append(f"<ul>{''.join(rows)}</ul>" if rows else "")
    return "\n".join(lines)


def field_map(kb, sources, root: str = "../") -> str:
    """The map as HTML: data for the script, and the list that stands there until (or unless) the script runs."""
    data = json.dumps(field_data(kb, root), ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # so that no title can close the script element
    return (
        f'<div class="dyn-explorer" id="dyn-explorer"><script type="application/json">{data}</script>'
        f'<div class="dyn-explorer-plain">{field_list(kb, sources, root)}</div></div>'
    )


def field_facts(kb, sources) -> str:
    """The size of the field, counted: never typed by hand."""
    facts = [
        (len(kb), "papers"),
        (sum(paper.key in sources for paper in kb), "runnable here"),
        (len(kb.nodes), "places in the taxonomy"),
        (sum(len(paper.relations) for paper in kb), "typed relations"),
    ]
    cells = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for value, name in facts)
    return f'<dl class="dyn-facts">{cells}</dl>'
