"""The command `dynnotes`: the literature from the shell, and the models where PyTorch is installed.

Exit codes: 0 done, 1 nothing found, 2 wrong name, word or use, or a bibliography with problems (listed on stderr).
A question to the literature imports argparse and json, never torch, NetworkX, YAML or a LaTeX decoder.
"""

import argparse
import json
import os
import re
import sys

from .knowledge.problems import BibliographyError, LibraryError, printable
from .knowledge.query import UnknownName, UnknownWord
from .knowledge.schema import FACETS

EXAMPLES = """examples:
  dynnotes find --decision gating --training gumbel-softmax --since 2018
  dynnotes find token transformer --taxon spatial
  dynnotes show ConvNet-AIG
  dynnotes search skip layers of a transformer
  dynnotes path ResNet spatial/tokens
  dynnotes tree sample/depth
  dynnotes cite veit2018convolutional huang2018multi > refs.bib
  dynnotes export text --taxon spatial/tokens --style apa
  dynnotes list conditional-cv --json
  dynnotes run branchynet --input 3 --budget 0.5
  dynnotes train ConvNet-AIG --seeds 3

exit codes: 0 done, 1 nothing found, 2 wrong name, word or use"""
_RELATION_OF = {"extends": "extended by", "improves": "improved by", "compares": "compared by",
                "distils": "distilled by", "applies": "applied by", "survey-of": "surveyed by"}  # fmt: skip


class Mistake(Exception):
    """A wrong use that argparse can't see; the message says what to do."""


class _Left:
    """Takes the options of a command that nobody asked for."""

    def add_argument(self, *names, **facts) -> None:
        pass


def parser(only: str = "") -> argparse.ArgumentParser:
    """The whole command line; of the command `only` alone, if it is one: to make all takes as long as an answer."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="dynnotes", description="Dynamic neural networks, papers and code.", epilog=EXAMPLES, formatter_class=raw
    )
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("--bib", metavar="DIR", help="a folder of .bib files with a taxonomy.yml, instead of the own one")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, call, help: str, example: str = "") -> argparse.ArgumentParser | _Left:
        if only not in ("", name):
            return _Left()
        epilog = f"example: dynnotes {name} {example}" if example else None
        sub = commands.add_parser(name, help=help, description=help, epilog=epilog)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(call=call)
        return sub

    sub = command("find", find, "papers by words and facets", "--decision gating,policy --since 2018")
    sub.add_argument("words", nargs="*", metavar="WORD", help="must occur in title, names, authors or summary")
    _conditions(sub)
    sub.add_argument("--in", metavar="FILE", dest="library", help="in a .bib file of your own")

    sub = command("show", show, "one paper: facets, summary, relations, code", "ConvNet-AIG")
    sub.add_argument("name", metavar="KEY", help="key, method or other name")

    sub = command("search", search, "papers that speak of something, best first", "halting score for tokens")
    sub.add_argument("words", nargs="+", metavar="WORD", help="word stems are compared; the last may be unfinished")
    sub.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most so many, 20 by default")
    sub.add_argument("--in", metavar="FILE", dest="library", help="in a .bib file of your own")

    sub = command("import", import_library, "a .bib file of your own: what is known here, new, or in conflict",
                  "my-library.bib --write")  # fmt: skip
    sub.add_argument("file", metavar="FILE", help="BibTeX, as Zotero, JabRef and DBLP export it")
    sub.add_argument("--all", action="store_true", help="list new entries that have nothing to do with the field, too")
    sub.add_argument("--write", action="store_true", help="put facets into the keywords of the file; proposals get a ?")

    sub = command("lineage", lineage, "what a paper builds on, and what builds on it", "ResNet")
    sub.add_argument("name", metavar="KEY", help="key, method or other name")
    sub.add_argument("--svg", metavar="FILE", help="write it as a picture")

    sub = command("related", related, "the papers nearest to one, and why", "SkipNet --limit 5")
    sub.add_argument("name", metavar="KEY", help="key, method or other name")
    sub.add_argument("--limit", type=_positive, default=10, metavar="N", help="at most so many, 10 by default")

    sub = command("path", path, "what to read to get from one paper to another, or to a node", "ResNet spatial/tokens")
    sub.add_argument("start", metavar="FROM", help="key, method or other name")
    sub.add_argument("goal", metavar="TO", help="a paper, or a node of the tree")
    sub.add_argument("--most", type=_positive, default=5, metavar="N", help="at most so many papers, 5 by default")

    sub = command("compare", compare, "papers side by side, as a Markdown table", "ConvNet-AIG BlockDrop")
    sub.add_argument("names", nargs="+", metavar="KEY", help="key, method or other name")
    sub.add_argument("--latex", action="store_true", help="as a LaTeX tabular")

    sub = command("gaps", gaps, "combinations of facets, crowded and empty", "unit decision --empty")
    sub.add_argument("axes", nargs="*", metavar="FACET", help="unit, decision, training and executes by default")
    sub.add_argument("--empty", action="store_true", help="only those without a paper")

    sub = command("timeline", timeline, "the papers year by year")

    sub = command("tree", tree, "the taxonomy with the number of papers at or below each node", "sample/depth --zh")
    sub.add_argument("node", nargs="?", default="", metavar="NODE", help="start at this node")
    sub.add_argument("--zh", action="store_true", help="Chinese labels")

    sub = command("words", words, "the facets and their words, each explained in a line", "decision")
    sub.add_argument("facet", nargs="?", metavar="FACET", help="only this facet")

    sub = command("cite", cite, "BibTeX of papers", "ConvNet-AIG BranchyNet > refs.bib")
    sub.add_argument("names", nargs="+", metavar="KEY", help="key, method or other name")
    sub.add_argument("--full", action="store_true", help="with every field of this bibliography")

    sub = command("export", export, "papers in the formats of other programs", "csv --decision gating -o gating.csv")
    sub.add_argument("format", metavar="FORMAT", help="bibtex, csl-json, text, html, graphml, json-ld, csv or parquet")
    sub.add_argument("names", nargs="*", metavar="KEY", help="key, method or other name; without one all that fit")
    sub.add_argument("--words", metavar="TEXT", default="", help="words that title, names, authors or summary have")
    _conditions(sub)
    sub.add_argument("-o", "--out", metavar="FILE", help="write a file, whole or not at all")
    sub.add_argument("--full", action="store_true", help="of bibtex: with every field of this bibliography")
    sub.add_argument("--style", metavar="NAME", help="of text and html: ieee, apa, nature, ... or a .csl file")

    sub = command("list", founding, "the founding lists, or one in its own order and grouping", "conditional-cv")
    sub.add_argument("name", nargs="?", metavar="NAME", help="a founding list")
    sub.add_argument("--markdown", action="store_true", help="the list as a page of links")

    sub = command("records", records, "books, people, courses, events, systems, ...", "workshop")
    sub.add_argument("kind", nargs="?", metavar="KIND", help="only this kind")

    sub = command("run", run, "run a trained model on inputs: what it decided and what it cost", "BranchyNet --input 3")
    sub.add_argument("key", metavar="KEY", help="key, method or other name")
    sub.add_argument("images", nargs="*", metavar="IMAGE", help="image files, instead of --input")
    sub.add_argument("--input", type=int, metavar="N", help="the N-th input of the model's own task")
    sub.add_argument("--budget", type=float, metavar="V", help="the value of the model's one knob")
    sub.add_argument("--execute", choices=("sparse", "dense"), default="sparse", help="skip, or compute all and select")
    sub.add_argument("--trace", metavar="FILE", help="write the trace that the gate theatre plays")

    sub = command("train", train, "train a paper's recipe and write its results", "ConvNet-AIG --seeds 3")
    sub.add_argument("key", metavar="KEY", help="key, method or other name, or a folder such as sample/depth")
    sub.add_argument("--task", metavar="NAME", help="only the recipe for this task")
    sub.add_argument("--data", metavar="SOURCE", help="real images instead of the task's: cifar10:PATH, cifar100:PATH, "
                     "imagenet:PATH or hf:NAME, with options such as 'cifar10:PATH?gray=1&size=32'")  # fmt: skip
    sub.add_argument("--seeds", type=_positive, metavar="N", help="how many seeds")
    sub.add_argument("--epochs", type=_positive, metavar="N", help="instead of the recipe's own")
    sub.add_argument("--budgets", type=_numbers, metavar="A,B,...", help="budget values to measure")
    sub.add_argument("--out", metavar="DIR", help="where results go")
    sub.add_argument("--resume", action="store_true", help="go on from the last saved epoch")
    sub.add_argument("--device", metavar="NAME", help="cpu (the default), cuda, auto")
    sub.add_argument("--quick", action="store_true", help="seconds instead of a minute; the figures mean nothing")

    sub = command("sweep", sweep, "train the recipes of papers or folders, many trials at once",
                  "sample/depth --on ray --workers 2")  # fmt: skip
    sub.add_argument("names", nargs="+", metavar="KEY", help="key, method or other name, or a folder")
    sub.add_argument("--on", choices=("local", "ray"), default="local", help="this machine's cores, or a Ray cluster")
    sub.add_argument("--workers", type=_positive, metavar="N", help="trials at a time; as many as cores by default")
    sub.add_argument("--address", metavar="HOST:PORT", help="of a running Ray cluster; without it one is started here")
    sub.add_argument("--seeds", type=_positive, metavar="N", help="how many seeds, 3 by default")
    sub.add_argument("--epochs", type=_positive, metavar="N", help="instead of the recipe's own")
    sub.add_argument("--out", metavar="DIR", help="where trials are kept, runs/sweep by default")
    sub.add_argument("--resume", action="store_true", help="leave out trials that have finished")
    sub.add_argument("--quick", action="store_true", help="seconds instead of minutes; the figures mean nothing")

    sub = command("tasks", tasks, "the tasks that models are trained on, or the card of one", "canvas-digits")
    sub.add_argument("name", nargs="?", metavar="NAME", help="a task")

    sub = command("verdict", verdict, "what came of papers' claims here, by three rules", "FrameExit")
    sub.add_argument("key", nargs="?", metavar="KEY", help="key, method or other name; all implemented papers without")

    sub = command("new-paper", new_paper, "write the stub of a paper and its test into the checkout", "wang2018skipnet")
    sub.add_argument("key", metavar="KEY", help="key, method or other name")

    sub = command("open", open_chapter, "open the book, a chapter or a paper's page in a browser", "ConvNet-AIG")
    sub.add_argument("chapter", nargs="?", metavar="NAME", help="a chapter, or a paper")
    sub.add_argument("--print", action="store_true", dest="only_print", help="print the address and open nothing")
    return top if commands.choices else parser()


def _conditions(sub: argparse.ArgumentParser) -> None:
    """What `find` and `export` choose papers by."""
    sub.add_argument("--taxon", action="append", metavar="NODE", help="at or below this node of the tree")
    for facet in FACETS:
        sub.add_argument(f"--{facet}", action="append", metavar="WORD", help="any of these words")
    sub.add_argument("--list", action="append", metavar="NAME", dest="lists", help="on this founding list")
    sub.add_argument("--since", type=int, metavar="YEAR", help="from this year on")
    sub.add_argument("--until", type=int, metavar="YEAR", help="up to this year")
    sub.add_argument("--implemented", action=argparse.BooleanOptionalAction, help="whether its code is here")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not numbers joined by commas") from None


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code, and 0 to a pipe that was closed early."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that can't show Chinese is no error
    try:
        code = _main(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        return 0
    except KeyboardInterrupt:
        return 130
    except BibliographyError as error:
        print(printable(str(error), keep="\n"), file=sys.stderr)
    except (Mistake, UnknownName, UnknownWord, LibraryError, OSError) as error:
        print(f"dynnotes: {printable(str(error), keep=chr(10))}", file=sys.stderr)
    return 2


def _main(argv: list[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    top = parser(argv[0] if argv else "")
    args, more = top.parse_known_args(argv)
    if more and args.command == "export" and not any(word.startswith("-") for word in more):
        args.names += more  # keys behind an option, which argparse can't join to those before it
    elif more:
        top.error(f"unrecognized arguments: {' '.join(more)}")
    if args.version:
        import dynnotes

        print(f"dynnotes {dynnotes.__version__}")
        return 0
    if not args.command:
        top.print_help()
        return 2
    return args.call(args)


def _kb(args):
    import dynnotes

    return dynnotes.load(args.bib)


# ---------------------------------------------------------------- printing


def _json(value) -> int:
    text = json.dumps(value, ensure_ascii=False, indent=1, default=str)
    print(re.sub(r"[^\n -~]", _json_escape, text))
    return 0


def _json_escape(match: re.Match) -> str:
    c = match[0]
    return c if c.isprintable() else json.dumps(c)[1:-1]


def _bold(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[1m{text}\x1b[0m"


def _width() -> int | None:
    """Columns of the terminal; None in a pipe, where nothing is cut."""
    if not sys.stdout.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def _table(papers: list) -> None:
    """year, key, method, title; one line each."""
    keys = max((len(p.key) for p in papers), default=0)
    methods = max((min(len(p.method), 24) for p in papers), default=0)
    width = _width()
    for p in papers:
        line = printable(f"{p.year}  {p.key:{keys}}  {p.method:{methods}}  {p.title}")
        print(line if width is None or len(line) <= width else line[: width - 1] + "…")


def _papers(papers: list, args, none: str) -> int:
    if args.json:
        _json([p.record() for p in papers])
    else:
        _table(papers)
    if not papers:
        print(f"dynnotes: {none}", file=sys.stderr)
        return 1
    if not args.json and sys.stdout.isatty():
        print(f"{len(papers)} paper{'s' if len(papers) != 1 else ''}", file=sys.stderr)
    return 0


# ---------------------------------------------------------------- the literature


def _values(given: list[str] | None) -> list[str] | None:
    """`--unit layer,exit --unit token` to three words."""
    return None if given is None else [w.strip() for part in given for w in part.split(",") if w.strip()]


def _facets(args) -> dict[str, list[str] | None]:
    facets = {name: _values(getattr(args, name)) for name in (*FACETS, "lists")}
    for name, values in facets.items():
        if values == []:
            raise Mistake(f"--{name} has no word")
    return facets


def find(args) -> int:
    facets = _facets(args)
    if args.library:
        if args.implemented is not None or facets.pop("lists"):
            raise Mistake("--implemented and --list ask for papers of this literature; leave out --in")
        rows = _kb(args).library(args.library).find(
            args.words, args.since, args.until, _values(args.taxon) or (), **facets
        )
        return _rows(rows, args, "no entry fits; leave out a condition")
    papers = _kb(args).papers(
        _values(args.taxon), args.since, args.until, words=args.words, implemented=args.implemented, **facets
    )
    return _papers(papers, args, "no paper fits; leave out a condition, or see `dynnotes words`")


def _rows(rows: list, args, none: str) -> int:
    """Entries of a reader's own library, one line each."""
    if args.json:
        _json([row.record() for row in rows])
    else:
        keys = min(max((len(row.key) for row in rows), default=0), 40)
        for row in (row.record() for row in rows):
            here = f"  [{row['paper']}]" if row["state"] == "known" else ""
            print(printable(f"{row['year'] or '    '}  {row['key']:{keys}}  {row['title']}{here}"))
    if not rows:
        print(f"dynnotes: {none}", file=sys.stderr)
    return 0 if rows else 1


def import_library(args) -> int:
    kb = _kb(args)
    library = kb.library(args.file)
    counts, proposals = library.counts(), {row.key: found for row, found in library.proposals()}
    written = library.write() if args.write else None
    for problem in library.problems:
        print(printable(str(problem)), file=sys.stderr)
    if args.json:
        told = {key: [list(proposal) for proposal in found] for key, found in proposals.items()}
        rows = [row.record() for row in library.rows()]
        problems = [problem._asdict() for problem in library.problems]
        return _json({"file": args.file, "counts": counts, "entries": rows, "proposals": told, "problems": problems,
                      "written": written})  # fmt: skip
    for state in ("known", "conflict"):
        for row in library.rows(state):
            method = f"{kb[row.paper].method}, " if row.paper else ""
            print(printable(f"{state:<9} {row.key} (line {row.line}): {method}{row.why}"))
    for row in library.rows("new"):
        if row.key in proposals or args.all:
            print(printable(f"{'new':<9} {row.key} (line {row.line}): {row.record()['title']}"))
        for proposal in proposals.get(row.key, ()):
            print(printable(f"{'':<9}   {proposal.facet}: {proposal.word}, for {proposal.why}"))
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    print(f"{len(library):,} entries: {told}; {len(proposals):,} with facets proposed")
    if written is not None:
        print(f"{written:,} entries got keywords; nothing else in the file changed")
    elif counts["known"] or proposals:
        print("nothing was written; --write puts the facets into the file's keywords")
    return 0


def search(args) -> int:
    if args.library:
        rows = _kb(args).library(args.library).search(" ".join(args.words), args.limit)
        return _rows(rows, args, "nothing speaks of that; try other words")
    return _papers(_kb(args).search(" ".join(args.words), args.limit), args, "nothing speaks of that; try other words")


def lineage(args) -> int:
    kb = _kb(args)
    if args.svg:
        return _lineage_picture(kb, args)
    if args.json:
        from .knowledge.lineage import children, parents

        p = kb[args.name]
        return _json({"key": p.key, "builds_on": parents(p), "built_on_by": children(kb, p.key)})
    print(printable(kb.lineage(args.name), keep="\n"))
    return 0


def _lineage_picture(kb, args) -> int:
    from .knowledge import files
    from .show.graphs import lineage_svg

    paper = kb[args.name]
    svg = lineage_svg(kb, paper.key, lambda p: p.link if p.kind == "background" else _site(f"papers/{p.key}.html"))
    if not svg:
        print(printable(f"dynnotes: nothing {paper.method} builds on, or that builds on it, is known"), file=sys.stderr)
        return 1
    files.write(args.svg, svg + "\n")
    if args.json:
        return _json({"svg": args.svg})
    print(printable(args.svg))
    return 0


def related(args) -> int:
    rows = _kb(args).relatives(args.name, args.limit)
    if args.json:
        return _json([{"key": p.key, "score": round(score, 3), "why": why} for p, score, why in rows])
    for p, score, why in rows:
        print(printable(f"{score:5.1f}  {p.year}  {p.key}  {p.method}: {'; '.join(why[:3])}"))
    return 0 if rows else 1


def path(args) -> int:
    rows = _kb(args).reading_path(args.start, args.goal, args.most)
    if args.json:
        _json([{"key": p.key, "why": why} for p, why in rows])
    for number, (p, why) in enumerate(() if args.json else rows, 1):
        print(printable(f"{number}. {p.title} ({p.year}), {p.key}: {why}"))
    if not rows:
        print(f"dynnotes: no way in {args.most} papers; allow more with --most", file=sys.stderr)
    return 0 if rows else 1


def compare(args) -> int:
    table = _kb(args).compare(*args.names)
    if args.json:
        return _json({"papers": [p.key for p in table.papers], "rows": table.rows})
    print(printable(table.latex() if args.latex else table.markdown(), keep="\n"))
    return 0


def gaps(args) -> int:
    cells = _kb(args).gaps(*args.axes)
    empty = [cell for cell in cells if not cell.papers]
    shown = empty if args.empty else [cell for cell in cells if cell.papers]
    if args.json:
        return _json([{**cell.where, "papers": [p.key for p in cell.papers]} for cell in shown])
    for where, papers in shown:
        print(printable(f"{len(papers):4}  {', '.join(where.values())}"))
    print(f"{len(cells)} combinations, {len(empty)} without a paper", file=sys.stderr)
    return 0


def timeline(args) -> int:
    years = _kb(args).timeline()
    if args.json:
        return _json({str(year): [p.key for p in papers] for year, papers in years.items()})
    for year, papers in years.items():
        print(printable(f"{year}  {', '.join(p.method for p in papers)}"))
    return 0


def show(args) -> int:
    kb = _kb(args)
    p = kb[args.name]
    cited_by, source = kb.cited_by(p.key), p.source
    page = _site(f"papers/{p.key}.html")
    if args.json:
        back = [{"key": q.key, "kind": r.kind, "where": r.where} for q, r in cited_by]
        code = source and {"module": source.module, "name": source.name, "file": str(source.file), "line": source.line}
        return _json(p.record() | {"cited_by": back, "implementation": code, "page": page})
    print(_bold(printable(p.title)))
    print(printable(", ".join(p.authors)))
    print(printable(", ".join(filter(None, [p.venue, str(p.year)]))))
    rows = [("key", p.key), ("method", "; ".join((p.method, *p.aka))), ("arXiv", p.eprint), ("doi", p.doi)]
    rows += [("url", p.link), ("code", p.code), ("page", page), ("node", "; ".join(filter(None, p.nodes)))]
    for facet in FACETS:
        value = getattr(p, facet)
        rows.append((facet, value if isinstance(value, str) else "; ".join(value)))
    rows += [("lists", "; ".join(p.lists)), ("status", p.status if p.status != "checked" else "")]
    here = f"{source.name}, {source.file}:{source.line}" if source else p.standing
    rows += [("headline", p.headline), ("here", here)]
    rows += [(r.kind, f"{_called(kb, r.target)} ({r.where})") for r in p.relations]
    rows += [(_RELATION_OF.get(r.kind, f"{r.kind} of"), f"{_called(kb, q.key)} ({r.where})") for q, r in cited_by]
    if p.tldr:
        print(f"\n{printable(p.tldr)}")
    print()
    for name, value in rows:
        if value:
            print(f"{name:<13} {printable(value)}")
    return 0


def _called(kb, key: str) -> str:
    return f"{kb[key].method} [{key}]"


def tree(args) -> int:
    kb = _kb(args)
    root = kb.node(args.node).id if args.node.strip("/") else ""
    papers = list(kb)
    nodes = [n for n in kb.nodes if not root or n.id == root or n.id.startswith(root + "/")]
    counts = {n.id: sum(p.within(n.id) for p in papers) for n in nodes}
    ordered = _in_order(kb, root)
    if args.json:
        rows = [{"id": n.id, "label": n.label, "zh": n.zh, "about": n.about, "survey": n.survey} for n in ordered]
        return _json([row | {"papers": counts[row["id"]]} for row in rows])
    top = root.count("/")
    for n in ordered:
        label = n.zh if args.zh else n.label
        print(printable(f"{'  ' * (n.depth - top)}{label}  {counts[n.id]}  ({n.id})"))
    return 0


def _in_order(kb, root: str) -> list:
    """A node and all below it, parents first, siblings in display order."""
    own = [kb.node(root)] if root else []
    return own + [n for child in kb.children(root) for n in _in_order(kb, child.id)]


def words(args) -> int:
    kb = _kb(args)
    if args.facet is not None and args.facet not in kb.facets:
        raise UnknownWord("facet", args.facet, kb.facets)
    facets = kb.facets if args.facet is None else {args.facet: kb.facets[args.facet]}
    if args.json:
        return _json(facets)
    for facet, vocabulary in facets.items():
        print(_bold(facet))
        for word, about in vocabulary.items():
            print(printable(f"  {word:<22} {about}"))
    return 0


def cite(args) -> int:
    kb = _kb(args)
    papers = list(dict.fromkeys(kb[name] for name in args.names))  # all names are looked up before any is printed
    if args.json:
        return _json([{"key": p.key, "bibtex": p.bibtex(args.full)} for p in papers])
    print(printable("\n".join(p.bibtex(args.full) for p in papers), keep="\n"), end="")
    return 0


def export(args) -> int:
    from .knowledge import export as formats
    from .knowledge import files

    kb, facets = _kb(args), _facets(args)
    conditions = [*facets.values(), args.taxon, args.since, args.until, args.words or None, args.implemented]
    if args.names and any(condition is not None for condition in conditions):
        raise Mistake("give keys or conditions, not both")
    papers = list(dict.fromkeys(kb[name] for name in args.names)) or kb.papers(
        _values(args.taxon), args.since, args.until, words=args.words, implemented=args.implemented, **facets
    )
    file = None if args.out == "-" else args.out
    if args.format == "parquet" and not file:
        raise Mistake("parquet is no text; name a file with -o")
    if not papers:
        print("dynnotes: no paper fits; leave out a condition, or see `dynnotes words`", file=sys.stderr)
        return 1
    try:
        options = {name: getattr(args, name) for name in ("full", "style") if getattr(args, name)}
        data = formats.export(kb, papers, args.format, **options)
        if file:
            files.write(file, data)
    except formats.CannotExport as error:
        raise Mistake(str(error)) from error
    if args.json:
        told = {"format": args.format, "papers": [p.key for p in papers]}
        return _json(told | ({"file": file} if file else {"text": data}))
    if file:
        print(printable(f"{file}: {len(papers)} paper{'s' if len(papers) != 1 else ''}"))
    elif sys.stdout.isatty():
        print(printable(data, keep="\n"), end="")
    else:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", newline="")  # what goes into a file is the same everywhere
        sys.stdout.write(data)
    return 0


def founding(args) -> int:
    kb = _kb(args)
    if args.name is not None:
        found = kb.list(args.name)
        if args.json:
            return _json(found.record())
        print(printable(found.markdown(kb).rstrip() if args.markdown else found.text(kb), keep="\n"))
        return 0
    if args.markdown:
        raise Mistake("--markdown needs the name of a list; `dynnotes list` prints their names")
    counts = {name: len(set(kb.list(name).keys)) for name in kb.lists}
    if args.json:
        return _json([{"name": n, "about": about, "papers": counts[n]} for n, about in kb.lists.items()])
    for name, about in kb.lists.items():
        print(printable(f"{name:<20} {counts[name]:>4}  {about}"))
    return 0


def records(args) -> int:
    kb = _kb(args)
    found = kb.records(args.kind)
    if args.json:
        _json([r.record() | {"papers": [p.key for p in kb.papers_of(r)]} for r in found])
    kinds = {r.kind: [] for r in found}
    for r in found:
        kinds[r.kind].append(r)
    for kind, rows in () if args.json else kinds.items():
        print(_bold(printable(f"{kind}: {kb.record_kinds[kind]}")))
        for r in rows:
            name = " / ".join(filter(None, [r.name, r.zh])) + (f" ({r.year})" if r.year else "")
            print(printable(f"  {name}: {r.about}"))
            parts = [("at", [kb.record(id).name for id in r.at]), ("papers", [p.method for p in kb.papers_of(r)])]
            parts += [("url", [r.url] if r.url else []), ("status", [r.status] if r.status != "checked" else [])]
            for what, values in parts:
                if values:
                    print(printable(f"    {what}: {', '.join(values)}"))
    if not found:
        print("dynnotes: no record of that kind", file=sys.stderr)
    return 0 if found else 1


# ---------------------------------------------------------------- the models


def _models(module: str):
    """A module that needs PyTorch, imported only now."""
    import importlib
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise Mistake('this needs PyTorch; install it with: pip install "dynnotes[models]"')
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "dynnotes":
            raise
        raise Mistake(f'this needs {error.name}; install it with: pip install "dynnotes[models]"') from error


def _implemented(args, name: str, folders: bool = False) -> list[str]:
    """Keys of the implemented papers that a name means: one paper, or all of a folder."""
    from . import registry

    kb, have = _kb(args), registry.sources()
    name = name.strip("/")
    if folders and name not in kb and any(n.id == name for n in kb.nodes):
        if keys := [p.key for p in kb.papers(taxon=name) if p.key in have]:
            return keys
        raise Mistake(f"no paper in {name} is implemented yet; implemented: {', '.join(have) or 'none'}")
    paper = kb[name]
    if paper.key not in have:
        raise Mistake(f"{paper.method} ({paper.key}) is not implemented yet; implemented: {', '.join(have) or 'none'}")
    return [paper.key]


def run(args) -> int:
    if args.input is not None and args.images:
        raise Mistake("give either --input N or image files, not both")
    if args.input is not None and args.input < 0:
        raise Mistake("--input counts from 0")
    for path in args.images:
        if not os.path.isfile(path):
            raise Mistake(f"{path}: no such image file")
    (args.key,) = _implemented(args, args.key)
    return _models("dynnotes.show.play").run_command(args)


def train(args) -> int:
    args.keys = _implemented(args, args.key, folders=True)
    if len(args.keys) == 1:
        args.key = args.keys[0]
    return _models("dynnotes.learn.recipes").train_command(args)


def sweep(args) -> int:
    args.keys = list(dict.fromkeys(key for name in args.names for key in _implemented(args, name, folders=True)))
    return _models("dynnotes.learn.sweep").sweep_command(args)


def tasks(args) -> int:
    from . import data
    from .show import cards

    if args.name is None:
        if args.json:
            return _json([{"task": name, "about": cards.about(name)} for name in data.tasks()])
        print(printable("\n".join(cards.listed(data.tasks())), keep="\n"))
        return 0
    if args.name not in data.tasks():
        raise UnknownWord("task", args.name, data.tasks())
    known = _models("dynnotes.show.cards").facts(args.name)
    if args.json:
        return _json(known)
    print(printable("\n".join(cards.lines(known)), keep="\n"))
    return 0


def verdict(args) -> int:
    from . import registry
    from .learn import evidence
    from .show import claims

    key = _implemented(args, args.key)[0] if args.key else None
    try:
        rows = claims.records(_kb(args), registry.sources(), evidence.folder(), key)
    except evidence.ResultError as error:
        raise Mistake(str(error)) from error
    except ModuleNotFoundError as error:  # SciPy, for the intervals
        raise Mistake(f'this needs {error.name}; install it with: pip install "dynnotes[models]"') from error
    if args.json:
        _json(rows)
    else:
        print(printable("\n".join(claims.told(rows) if key else claims.listed(rows)), keep="\n"))
    if any(row["verdict"] for row in rows):
        return 0
    here = printable(str(evidence.folder()))
    print(f"dynnotes: no result in {here}; `dynnotes train KEY` writes one", file=sys.stderr)
    return 1


def new_paper(args) -> int:
    from .knowledge import index
    from .new_paper import NotPossible, write

    checkout = index.bibliography()
    if checkout is None:
        raise Mistake("this is an installed dynnotes; clone the repository and run it there")
    try:
        written = write(_kb(args), args.key, checkout.parent)
    except NotPossible as error:
        raise Mistake(str(error)) from error
    if args.json:
        return _json([str(path) for path in written])
    print(printable("\n".join(map(str, written)), keep="\n"))
    return 0


# ---------------------------------------------------------------- the book


def _site(page: str = "") -> str:
    from .knowledge.about import url

    return f"{url('Book')}/{page}" if url("Book") else ""


def open_chapter(args) -> int:
    """A page of the local book where it is built, else of the public one."""
    address = _address(args)
    if args.json:
        return _json({"address": address})
    print(printable(address))
    if not args.only_print:
        import webbrowser

        if not webbrowser.open(address):
            raise Mistake("no browser answered; open the address above yourself")
    return 0


def _address(args) -> str:
    from .knowledge import index

    kb, checkout = _kb(args), index.bibliography()
    html = checkout.parent / "_build" / "html" if checkout else None
    chapters = {_chapter(n): n for n in (index.chapters(checkout.parent) if checkout else kb.chapters)}
    if not args.chapter:
        page = ""
    elif (wanted := _chapter(args.chapter)) in chapters:
        page = chapters[wanted]
    elif args.chapter in kb:
        page = f"papers/{kb[args.chapter].key}.html"
    else:
        known = [*chapters, *(n for p in kb.entries for n in (p.key, p.method))]
        raise UnknownName("chapter or paper", args.chapter, known)
    if html and (local := html / (page or "index.html")).is_file():
        return local.as_uri()
    if address := _site(page):
        return address
    raise Mistake("the book is neither built here (make book) nor is its address known")


def _chapter(name: str) -> str:
    """`notebooks/03-early-exits.ipynb` and `early exits` are the same chapter."""
    stem = re.sub(r"\.(ipynb|md|html)$", "", name.strip().rsplit("/", 1)[-1])
    return re.sub(r"[\s_]+", "-", re.sub(r"^\d+-", "", stem)).casefold()


if __name__ == "__main__":
    sys.exit(main())
