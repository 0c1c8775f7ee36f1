"""The Sphinx extension of the book: generated pages, directives, offline scripts, Plotly output.

Building the book needs no step beforehand: when Sphinx starts, this module
1. writes `papers/KEY.md` for every paper of the knowledge base (git ignores them), and removes those of papers gone;
2. stages the scripts that live elsewhere (plotly.min.js in its wheel, the widgets beside their Python) for `_static/`;
3. hands every `.bib` file to sphinxcontrib-bibtex, so that `{cite}` works in pages and notebooks.

Directives: `{field-map}`, `{field-facts}`, `{field-plot}`, `{lineage-graph}`, `{timeline}`, `{gaps-map}`,
`{reading-list} NAME`, `{records} KIND`, `{most-cited}`, `{theatre} KEY`, `{task-cards}`, `{task-card} NAME`.
Role: {paper}`KEY`, a link to a paper's page.
"""

import json
import shutil
from importlib import resources
from pathlib import Path

from docutils import nodes

from dynnotes import data, registry
from dynnotes.learn import evidence

from . import cards, field, figures, graphs, lists, pages, proofs, records, tables, traces

PLOTLY = "application/vnd.plotly.v1+json"


class PlotlyMime:
    """Puts the JSON of a notebook's Plotly figure into the page (found by myst-nb through its entry point)."""

    mime_priority_overrides = (("html", PLOTLY, 1), ("dirhtml", PLOTLY, 1), ("linkcheck", PLOTLY, 1))

    @staticmethod
    def handle_mime(renderer, data, inline):
        if inline or data.mime_type != PLOTLY:
            return None
        figure = data.content if isinstance(data.content, dict) else json.loads(data.content)
        return [nodes.raw("", figures.embed(figure, figures.label_of(figure)), format="html")]


def _root(app) -> Path:
    return Path(app.confdir)


def _kb(app):
    """The knowledge base, read once per build; a fault in it stops the build with its own message, not a traceback."""
    if not hasattr(app, "dynnotes_kb"):
        from sphinx.errors import ExtensionError

        import dynnotes
        from dynnotes.knowledge.problems import BibliographyError

        try:
            app.dynnotes_kb = dynnotes.load(_root(app) / "bib")
        except BibliographyError as fault:
            raise ExtensionError(str(fault)) from None
    return app.dynnotes_kb


def _file(path: Path, load):
    """What `load` reads from a file of ours, None when there is none; a fault stops the build with its own words."""
    from sphinx.errors import ExtensionError

    if not path.is_file():
        return None
    try:
        return load(path)
    except (evidence.ResultError, traces.TraceFileError) as fault:
        raise ExtensionError(str(fault)) from None


def _results(folder: Path, key: str) -> str:
    """HTML of a paper's result files, KEY.json first and one KEY.TASK.json for each further task; empty without any."""
    sections = []
    for path in [folder / f"{key}.json", *sorted(folder.glob(f"{key}.*.json"))]:
        result = _file(path, evidence.load_result)
        if result is not None:
            times = evidence.times(result, evidence.static_clock(result, folder))
            static, stale = evidence.load_static(result, folder), evidence.is_stale(result)
            section = pages.results_section(result, static, stale, times)
            sections.append((result["task"], section))
    return pages.results_sections(sections)


def configure(app, config):
    """`.bib` files, staged scripts, and generated pages let past `only_build_toc_files`."""
    root = _root(app)
    config.exclude_patterns = [p for p in config.exclude_patterns if not p.startswith("papers/")]
    config.bibtex_bibfiles = sorted(p.relative_to(root).as_posix() for p in (root / "bib").rglob("*.bib"))

    from .widgets.theatre import write_assets

    staged = Path(app.outdir).parent / "staged"
    write_assets(staged / "dynnotes")
    with resources.as_file(resources.files("plotly") / "package_data" / "plotly.min.js") as source:
        shutil.copy2(source, staged / "dynnotes" / "plotly.min.js")
    config.html_static_path = [*config.html_static_path, str(staged)]


def generate(app):
    """Write the page of every paper, touching only those that changed."""
    root, kb, sources = _root(app), _kb(app), registry.sources()
    folder = root / "papers"
    folder.mkdir(exist_ok=True)
    options = app.config.html_theme_options
    stale = set(folder.glob("*.md"))
    for paper in kb:
        page = folder / f"{paper.key}.md"
        body = pages.paper_page(
            paper,
            kb,
            source=sources.get(paper.key),
            results=_results(root / "results", paper.key) if paper.key in sources else "",
            trace=_file(root / "assets" / "traces" / f"{paper.key}.json", traces.load),
            lineage=graphs.lineage_figure(kb, paper),
            repository=options.get("repository_url", ""),
            branch=options.get("repository_branch", "main"),
        )
        if not page.is_file() or page.read_text(encoding="utf-8") != body:
            page.write_text(body, encoding="utf-8")
        stale.discard(page)
    for page in stale:
        page.unlink()


def _directives(app):
    from sphinx.util.docutils import ReferenceRole, SphinxDirective

    class PaperLink(ReferenceRole):
        """{paper}`key` or {paper}`words <key>`, in pages and notebooks; the key may be a method's name."""

        def run(self):
            from dynnotes.knowledge.query import UnknownName

            try:
                paper = _kb(self.env.app)[self.target]
            except UnknownName as fault:
                message = self.inliner.reporter.error(str(fault), line=self.lineno)
                return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
            name = self.title if self.has_explicit_title else paper.method
            if paper.kind == "background":  # no page of its own
                return [nodes.reference(self.rawtext, name, refuri=paper.link)], []
            target = self.env.app.builder.get_relative_uri(self.env.docname, f"papers/{paper.key}")
            return [nodes.reference(self.rawtext, name, refuri=target, internal=True)], []

    class Generated(SphinxDirective):
        """A directive whose body comes from the knowledge base; its page is read again when the literature changes."""

        def run(self):
            root = _root(self.env.app)
            for path in (root / "bib").rglob("*.*"):
                self.env.note_dependency(str(path))
            return [nodes.raw("", self.html(), format="html")]

    class FieldMap(Generated):
        def html(self):
            return pages.field_map(_kb(self.env.app), registry.sources())

    class FieldFacts(Generated):
        def html(self):
            return pages.field_facts(_kb(self.env.app), registry.sources())

    class ReadingList(Generated):
        required_arguments = 1

        def html(self):
            from dynnotes.knowledge.query import UnknownName

            try:
                return lists.reading_list(_kb(self.env.app), self.arguments[0])
            except UnknownName as fault:
                raise self.error(str(fault)) from None

    class Records(Generated):
        required_arguments = 1

        def html(self):
            from dynnotes.knowledge.query import UnknownWord

            try:
                return records.records(_kb(self.env.app), self.arguments[0])
            except UnknownWord as fault:
                raise self.error(str(fault)) from None

    class LineageGraph(Generated):
        def html(self):
            return graphs.lineage_graph(_kb(self.env.app))

    class Timeline(Generated):
        def html(self):
            return graphs.timeline(_kb(self.env.app))

    class GapsMap(Generated):
        def html(self):
            return graphs.gaps_map(_kb(self.env.app))

    class FieldPlot(Generated):
        """All results on one plot; its page is read again when a result, a recording or the code changes."""

        def html(self):
            from sphinx.errors import ExtensionError

            root = _root(self.env.app)
            for folder, ending in ((root / "results", "json"), (root / "assets" / "traces", "json"),
                                   (registry.PACKAGE, "py")):
                for path in (folder, *folder.rglob(f"*.{ending}")):  # the folder, for files that come and go
                    self.env.note_dependency(str(path))
            try:
                return field.field_plot(_kb(self.env.app), root)
            except evidence.ResultError as fault:
                raise ExtensionError(str(fault)) from None

    class MostCited(Generated):
        def html(self):
            return records.most_cited(_kb(self.env.app))

    class ProofTable(Generated):
        def html(self):
            return proofs.proof_table(_kb(self.env.app), registry.sources(), _root(self.env.app))

    class TaskCard(SphinxDirective):
        """The card of a task, and its page is read again when the task or a result changes."""

        required_arguments = 1

        def run(self):
            if self.arguments[0] not in data.tasks():
                raise self.error(f"no task {self.arguments[0]!r}; known: {', '.join(data.tasks())}")
            return [nodes.raw("", self.html(self.arguments[0]), format="html")]

        def html(self, task):
            results = _root(self.env.app) / "results"
            for path in [*Path(data.__file__).parent.glob("*.py"), *results.glob("*.json"),
                         results / f"static-{task}.json"]:
                self.env.note_dependency(str(path))
            try:
                return cards.card(task, results, _kb(self.env.app))
            except evidence.ResultError as fault:
                raise self.error(str(fault)) from None

    class TaskCards(TaskCard):
        """The cards of all tasks, each a section of the page."""

        required_arguments = 0

        def run(self):
            found = []
            for task in data.tasks():
                section = nodes.section(ids=[f"task-{task}"], names=[f"task-{task}"])
                section += [nodes.title("", task), nodes.raw("", self.html(task), format="html")]
                found.append(section)
            return found

    class Theatre(SphinxDirective):
        """The gate theatre over `assets/traces/KEY.json`. With no such trace the page shows the body instead."""

        required_arguments = 1
        has_content = True

        def run(self):
            path = _root(self.env.app) / "assets" / "traces" / f"{self.arguments[0]}.json"
            self.env.note_dependency(str(path))
            trace = _file(path, traces.load)
            if trace is None:
                return self.parse_content_to_nodes()
            return [nodes.raw("", pages.theatre(trace), format="html")]

    app.add_role("paper", PaperLink())
    app.add_directive("field-map", FieldMap)
    app.add_directive("field-facts", FieldFacts)
    app.add_directive("reading-list", ReadingList)
    app.add_directive("records", Records)
    app.add_directive("most-cited", MostCited)
    app.add_directive("lineage-graph", LineageGraph)
    app.add_directive("timeline", Timeline)
    app.add_directive("gaps-map", GapsMap)
    app.add_directive("field-plot", FieldPlot)
    app.add_directive("proof-table", ProofTable)
    app.add_directive("task-card", TaskCard)
    app.add_directive("task-cards", TaskCards)
    app.add_directive("theatre", Theatre)


def page(app, pagename, templatename, context, doctree):
    """Give each page only the scripts it needs, and mend what the theme gets wrong.

    sphinx-thebe puts `const THEBE_JS_URL` on a page twice, which throws; its button is not used here. An empty default
    mode makes the theme complain in the console. It prints the title unescaped into a heading for paper.
    """
    context["default_mode"] = context.get("default_mode") or "auto"
    context["pagetitle"] = tables.text(context.get("pagetitle", ""))
    html = [node.astext() for node in doctree.findall(nodes.raw)] if doctree is not None else []

    def uses(mark):
        return any(mark in part for part in html)

    if uses("dyn-plotly"):
        app.add_js_file("js/plotly-lazy.js", loading_method="defer")
    if uses('id="dyn-explorer"'):
        app.add_js_file("js/explorer.js", loading_method="defer")
    for name in ("lineage", "timeline", "gaps", "field"):
        if uses(f'id="dyn-{name}"'):
            app.add_js_file("js/drawing.js", loading_method="defer")
            app.add_js_file(f"js/{name}.js", loading_method="defer")
    if 'role="doc-biblioentry"' in context.get("body", ""):  # docutils writes roles that WAI-ARIA has withdrawn
        context["body"] = context["body"].replace(' role="doc-biblioentry"', "").replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )
    here = {str(getattr(script, "filename", "")) for script in context.get("script_files", [])}
    if uses("dyn-theatre") and not any("dynnotes/host.js" in name for name in here):  # where widgets are, myst-nb did
        app.add_js_file("dynnotes/host.js")
    context["script_files"][:] = [
        script
        for script in context.get("script_files", [])
        if "THEBE_JS_URL" not in ((getattr(script, "attributes", {}) or {}).get("body") or "")
        and "thebe" not in str(getattr(script, "filename", "") or "")
    ]


def bibliography_links(app, doctree, docname):
    """Each entry of the bibliography ends with a link to the paper's page, where it has one."""
    key_of = {entry.citation_id: entry.key for entry in app.env.get_domain("cite").citations}
    papers = {paper.key: paper for paper in _kb(app)}
    for entry in doctree.findall(nodes.citation):
        key = next((key_of[name] for name in entry["ids"] if name in key_of), None)
        if key in papers:
            target = app.builder.get_relative_uri(docname, f"papers/{key}")
            entry[-1] += [nodes.Text(" → "), nodes.reference("", papers[key].method, refuri=target, internal=True)]


def setup(app):
    app.connect("config-inited", configure, priority=900)  # after sphinx-external-toc has excluded generated pages
    app.connect("builder-inited", generate)
    app.connect("doctree-resolved", bibliography_links)
    app.connect("html-page-context", page, priority=900)
    app.add_css_file("css/book.css")
    app.add_js_file("js/book.js", loading_method="defer")
    _directives(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
