"""Every method measured here on one plot: accuracy against its price, beside static nets, and time against MACs.

`assets/js/field.js` draws from JSON that stands in the page; the tables below it are what there is without JavaScript.
Nothing is stored: means, intervals, frontiers and verdicts are computed from the runs in `results/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from dynnotes.learn import evidence

from .claims import VERDICT
from .graphs import drawing
from .pages import interval, page_of, plural
from .tables import link, number, percent, table, text, words

if TYPE_CHECKING:
    from dynnotes.knowledge.query import KnowledgeBase

FACETS = ("unit", "decision", "training", "adapts")
MEANS = {  # a word of `evidence.verdict`
    "reproduced": "every claim that could be judged holds",
    "partly": "some claims hold and some do not",
    "not": "no claim that could be judged holds",
    "open": "no claim could be judged",
}
STEPS = 12  # places on the frontier from one net to the next: its interval bends between them


def measured(folder: Path) -> Iterator[tuple[str, dict]]:
    """(name of the file, checked result) for each result of a method. Raises ResultError."""
    for path in sorted(folder.glob("*.json")):
        if not path.name.startswith("static-"):
            yield path.name.removesuffix(".json"), evidence.load_result(path)


def frontier(static: Sequence[Mapping], until: float = 0.0, by: str = "macs") -> list[list[float | None]]:
    """[price, mean, low, high] along the frontier of static nets, from the cheapest net to `until` or the dearest.

    Each seed's frontier is `evidence.static_accuracy_at` (gains are paired with it), the interval is over seeds. by:
    what a net's price is, "macs" or "params".
    """
    best: dict[tuple[int, float], Mapping] = {}  # nets may cost the same
    for run in static:
        place = run["seed"], float(run[by])
        if place not in best or run["accuracy"] > best[place]["accuracy"]:
            best[place] = {**run, "macs": place[1]}
    runs = list(best.values())
    nets = sorted({run["macs"] for run in runs})
    places = [x0 * (x1 / x0) ** (step / STEPS) for x0, x1 in pairwise(nets) for step in range(STEPS)] + nets[-1:]
    line = []
    for x in [*places, *([until] if nets and until > nets[-1] else [])]:
        seeds = (evidence.static_accuracy_at(x, runs, seed) for seed in sorted({run["seed"] for run in runs}))
        line.append([x, *evidence.interval(a for a in seeds if a is not None)])
    return line


def field_data(kb: KnowledgeBase, checkout: Path, root: str = "../") -> dict:
    """What `field.js` needs: tasks, those with most methods first, their static nets, and the methods with all figures.

    Raises ResultError for a result file that is broken or belongs to no paper.
    """
    papers, folder = {p.key: p for p in kb.entries}, checkout / "results"
    methods: list[dict] = []
    lines: dict[tuple[str, str, int], list[dict]] = {}  # the static nets that results of a task refer to
    for name, result in measured(folder):
        paper = papers.get(result["paper"])
        if paper is None:
            raise evidence.ResultError(
                f"{folder / name}.json: paper: no entry of bib/ has the key {result['paper']!r}; "
                "write the entry, or remove the file"
            )
        static = evidence.load_static(result, folder)
        if static:
            lines[result["task"], result["static"]["file"], result["static"]["epochs"]] = static
        methods.append(_method(name, paper, result, static, checkout, root))
    methods.sort(key=lambda m: (m["year"], m["key"], m["task"]))
    sizes = Counter(m["task"] for m in methods)
    tasks = []
    for task in sorted(sizes, key=lambda task: (-sizes[task], task)):
        own = [m for m in methods if m["task"] == task]
        dearest = max(p["macs"][0] for m in own for p in m["points"])
        largest = max(m["params"] for m in own)
        tasks.append({
            "name": task,
            "static": [
                {
                    "epochs": epochs,
                    "nets": _nets(static),
                    "macs": frontier(static, dearest),
                    "params": frontier(static, largest, "params"),
                }
                for (of, _, epochs), static in sorted(lines.items()) if of == task
            ],
        })  # fmt: skip
    used = {facet: {word for m in methods for word in m["facets"][facet]} for facet in (*FACETS, "verdict")}
    verdicts = {VERDICT[word][0]: about for word, about in MEANS.items()}
    known = {facet: kb.facets[facet] for facet in FACETS} | {"verdict": verdicts}
    return {
        "tasks": tasks,
        "methods": methods,
        "facets": {facet: {w: about for w, about in known[facet].items() if w in used[facet]} for facet in known},
        "batches": sorted({r["batch"] for m in methods for r in m["receipts"]}),
    }


def _method(name: str, paper, result: Mapping, static: Sequence[Mapping], checkout: Path, root: str) -> dict:
    """One result file: its budgets, cheapest first, its receipts and its verdict."""
    found, gains = evidence.verdict(result, static), dict(evidence.gains(result, static))
    verdict, tone = VERDICT[found["verdict"]]
    page = page_of(paper.key, f"{root}papers/")
    return {
        "id": name,
        "key": paper.key,
        "method": paper.method,
        "title": paper.title,
        "year": paper.year,
        "task": result["task"],
        "net": result["recipe"]["net"],
        "url": page,
        "receipt": f"{page}#what-it-claims-and-what-it-does-here",
        "trace": f"{page}#watch-it-decide" if (checkout / "assets" / "traces" / f"{paper.key}.json").is_file() else "",
        "knob": result["budget"]["name"] if result["budget"] else "",
        "params": result["params"],
        "full": result["full"],
        "verdict": verdict,
        "tone": tone,
        "said": [claim.text for claim in found["claims"]],
        "stale": _stale(result),
        "facets": {facet: list(words(paper, facet)) for facet in FACETS} | {"verdict": [verdict]},
        "points": [
            {"budget": p.budget, "seeds": p.seeds, "accuracy": list(p.accuracy), "macs": list(p.macs),
             "gain": list(gains[p.budget]) if p.budget in gains else None}
            for p in evidence.summary(result)
        ],
        "receipts": [
            {"batch": r["batch"], "share": r["executed"] / r["full"], "time": [r["time_ratio"], *r["time_spread"]],
             "ms": [r["ms_dense"], r["ms_sparse"]], "void": r["void"]}
            for r in result["receipts"]
        ],
    }  # fmt: skip


def _stale(result: Mapping) -> bool:
    try:
        return evidence.is_stale(result)
    except KeyError:  # its code is gone
        return True


def _nets(static: Sequence[Mapping]) -> list[dict]:
    params = {run["net"]: run["params"] for run in static}
    seeds = Counter(run["net"] for run in static)
    return [{"net": net, "macs": macs, "params": params[net], "seeds": seeds[net], "accuracy": list(accuracy)}
            for net, macs, accuracy in evidence.static_points(static)]  # fmt: skip


# ---------------------------------------------------------------- the plain form


def field_sentence(data: Mapping) -> str:
    """How many methods, tasks and settings were measured, and what came of their claims: counted, never typed."""
    methods = data["methods"]
    if not methods:
        return '<p class="dyn-lead">No method has been measured yet.</p>'
    counts = Counter(m["verdict"] for m in methods)
    told = ", ".join(f"{counts[name]} {name}" for name, _ in VERDICT.values() if counts[name])
    papers, points = len({m["key"] for m in methods}), sum(len(m["points"]) for m in methods)
    sets = f", {len(methods)} sets of results in all" if len(methods) != papers else ""
    return (
        f'<p class="dyn-lead">{plural(papers, "paper")} measured here on {plural(len(data["tasks"]), "task")} '
        f"at {plural(points, 'setting')}{sets}: {told}.</p>"
    )


def field_tables(data: Mapping) -> str:
    """A table per task: the methods at each budget, then the static nets."""
    batches = data["batches"]
    head = ["paper", "budget", "accuracy", "executed MACs", "of everything on", "parameters",
            *(f"time, batch {batch}" for batch in batches), "verdict"]  # fmt: skip
    parts = []
    for task in data["tasks"]:
        rows = []
        for m in data["methods"]:
            times = {r["batch"]: "void" if r["void"] else f"{r['time'][0]:.2f}" for r in m["receipts"]}
            verdict = text(m["verdict"] + (", stale" if m["stale"] else ""))
            for p in m["points"] if m["task"] == task["name"] else ():
                rows.append([
                    link(m["url"], m["method"], title=m["title"]),
                    "–" if p["budget"] is None else text(f"{m['knob']} {p['budget']:g}"),
                    interval(evidence.Interval(*p["accuracy"]), percent),
                    number(p["macs"][0]),
                    percent(p["macs"][0] / m["full"]),
                    number(m["params"]),
                    *(times.get(batch, "–") for batch in batches),
                    verdict,
                ])  # fmt: skip
        for line in task["static"]:
            rows += [
                [text(f"static: {net['net']}"), text(f"{line['epochs']} epochs"),
                 interval(evidence.Interval(*net["accuracy"]), percent), number(net["macs"]), percent(1),
                 number(net["params"]), *("–" for _ in batches), "static"]
                for net in line["nets"]
            ]  # fmt: skip
        caption = (f"On {task['name']}: means over seeds, in brackets the 95 % interval; time is sparse over dense of "
                   "the larger net of the receipt.")  # fmt: skip
        parts.append(table(head, rows, caption=caption))
    return "\n".join(parts)


def field_plot(kb: KnowledgeBase, checkout: Path, root: str = "../") -> str:
    """The plot as HTML, its figures in a sentence above it. Raises ResultError for a broken result file."""
    data = field_data(kb, checkout, root)
    return field_sentence(data) + (drawing("field", data, field_tables(data)) if data["methods"] else "")
