"""Every method measured here on one plot: accuracy against its price in MACs, milliseconds or parameters, beside static
nets, and time against MACs of receipts.

`assets/js/field.js` draws from JSON that stands in the page; the tables below it are what there is without JavaScript.
Nothing is stored: means, intervals, frontiers and verdicts are computed from the runs in `results/`.
"""

from __future__ import annotations

import math
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
    what a net's price is, "macs", "params" or "ms".
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
    clocks: dict[tuple[str, str], dict | None] = {}  # and how long they take
    for name, result in measured(folder):
        paper = papers.get(result["paper"])
        if paper is None:
            raise evidence.ResultError(
                f"{folder / name}.json: paper: no entry of bib/ has the key {result['paper']!r}; "
                "write the entry, or remove the file"
            )
        static, clock = evidence.load_static(result, folder), evidence.static_clock(result, folder)
        if static:
            lines[result["task"], result["static"]["file"], result["static"]["epochs"]] = static
            clocks[result["task"], result["static"]["file"]] = clock
        methods.append(_method(name, paper, result, static, clock, checkout, root))
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
                    "nets": _nets(static, clocks[of, file]),
                    "macs": frontier(static, dearest),
                    "params": frontier(static, largest, "params"),
                    **_clocked(static, clocks[of, file], own),
                }
                for (of, file, epochs), static in sorted(lines.items()) if of == task
            ],
        })  # fmt: skip
    used = {facet: {word for m in methods for word in m["facets"][facet]} for facet in (*FACETS, "verdict")}
    verdicts = {VERDICT[word][0]: about for word, about in MEANS.items()}
    known = {facet: kb.facets[facet] for facet in FACETS} | {"verdict": verdicts}
    return {
        "tasks": tasks,
        "methods": methods,
        "facets": {facet: {w: about for w, about in known[facet].items() if w in used[facet]} for facet in known},
        "batches": sorted({r["batch"] for m in methods for r in [*m["receipts"], *_times_of(m)]}),
    }


def _method(name: str, paper, result: Mapping, static, clock, checkout: Path, root: str) -> dict:
    """One result file: its budgets, cheapest first, with their times, its receipts and its verdict."""
    times = evidence.times(result, clock)
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
             "gain": list(gains[p.budget]) if p.budget in gains else None,
             "times": [_time(row, row["ms"] / row["sparse"][0]) for row in times if row["budget"] == p.budget]}
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


def _nets(static: Sequence[Mapping], clock: Mapping | None) -> list[dict]:
    params = {run["net"]: run["params"] for run in static}
    seeds = Counter(run["net"] for run in static)
    unit = evidence.reference_ms(clock) if clock else {}
    times: dict[str, list[dict]] = {net: [] for net in params}
    for row in clock["rows"] if clock else ():
        if row["net"] in times and row["batch"] in unit:
            times[row["net"]].append(_time(row, unit[row["batch"]]))
    return [{"net": net, "macs": macs, "params": params[net], "seeds": seeds[net], "accuracy": list(accuracy),
             "times": times[net]}
            for net, macs, accuracy in evidence.static_points(static)]  # fmt: skip


def _time(row: Mapping, unit: float) -> dict:
    """A row of a clock in milliseconds, of the sparse form with its quartiles and of the dense one; unit: of a 1."""
    sparse = row["sparse"] if "sparse" in row else row["ratio"]
    dense = {"dense": row["dense"][0] * unit} if "dense" in row else {}
    return {"batch": row["batch"], "ms": [ratio * unit for ratio in sparse], **dense, "ratio": sparse[0],
            "noise": row["noise"], "void": row["void"]}  # fmt: skip


def _times_of(method: Mapping) -> list[dict]:
    return [t for p in method["points"] for t in p["times"]]


def _clocked(static: Sequence[Mapping], clock: Mapping | None, methods: Sequence[Mapping]) -> dict:
    """The net that times are ratios to, and {batch: frontier over milliseconds} of the nets whose time is not void."""
    unit, lines = evidence.reference_ms(clock) if clock else {}, {}
    for batch, one in unit.items():
        ms = {r["net"]: r["ratio"][0] * one for r in clock["rows"] if r["batch"] == batch and not r["void"]}
        slowest = max((t["ms"][0] for m in methods for t in _times_of(m) if t["batch"] == batch), default=0.0)
        timed = [{**run, "ms": ms[run["net"]]} for run in static if run["net"] in ms]
        lines[str(batch)] = frontier(timed, slowest, "ms")
    return {"reference": clock["reference"]["net"] if clock else "", "ms": lines}


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
            *(f"ms, batch {batch}" for batch in batches), *(f"receipt, batch {batch}" for batch in batches),
            "verdict"]  # fmt: skip
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
                    *(_told(p["times"], batch) for batch in batches),
                    *(times.get(batch, "–") for batch in batches),
                    verdict,
                ])  # fmt: skip
        for line in task["static"]:
            rows += [
                [text(f"static: {net['net']}"), text(f"{line['epochs']} epochs"),
                 interval(evidence.Interval(*net["accuracy"]), percent), number(net["macs"]), percent(1),
                 number(net["params"]), *(_told(net["times"], batch) for batch in batches), *("–" for _ in batches),
                 "static"]
                for net in line["nets"]
            ]  # fmt: skip
        references = ", ".join(dict.fromkeys(line["reference"] for line in task["static"] if line["reference"]))
        beside = f", timed beside {references}" if references else ""
        caption = (f"On {task['name']}: means over seeds, in brackets the 95 % interval; milliseconds per input of the "
                   f"weights of seed 0, sparse{beside}, then dense and the noise of the clock, 1 where the machine was "
                   "quiet; the receipt is time, sparse over dense, of a larger net.")  # fmt: skip
        parts.append(table(head, rows, caption=caption))
    return "\n".join(parts)


def _told(times: Sequence[Mapping], batch: int) -> str:
    """Milliseconds of one batch size, the dense form and the noise beside."""
    for t in times:
        if t["batch"] == batch:
            noise = f"noise {t['noise']:.2f}"
            dense = f"dense {milliseconds(t['dense'])}, " if "dense" in t else ""
            return f"void ({noise})" if t["void"] else f"{milliseconds(t['ms'][0])} ({dense}{noise})"
    return "–"


def milliseconds(value: float) -> str:
    """Three digits that count: 12.3, 0.0456."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def field_plot(kb: KnowledgeBase, checkout: Path, root: str = "../") -> str:
    """The plot as HTML, its figures in a sentence above it. Raises ResultError for a broken result file."""
    data = field_data(kb, checkout, root)
    return field_sentence(data) + (drawing("field", data, field_tables(data)) if data["methods"] else "")
