"""Data cards: what a task asks, how its samples get hard, what they look like, and what static nets make of it.

A card is made from what `Data` holds and from `results/static-TASK.json`, for every task of `dynnotes.data` alike: HTML
for the book (`card`), lines for the shell (`lines`), facts for programs (`facts`). PyTorch is needed as soon as samples
are drawn; the list of tasks (`about`) does without.
"""
from __future__ import annotations

import ast
import base64
import colorsys
import importlib
import io
import math
import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from .. import data
from ..learn import evidence
from .pages import interval, page_of, plural
from .tables import link, number, percent, preformatted, table, text

if TYPE_CHECKING:
    import numpy as np

    from ..data import Data

DRAWN = 600                                                    # test samples that histograms and correlations look at
ROW, BINS, LANE, GAP = 6, 20, 30, 3
BARS = "▁▂▃▄▅▆▇█"
WITHHELD = -100                                                # a target where nothing is asked
MATTERS = {
    "frames": "The bar under a frame says how much it matters.",
    "bands": "The bar under a band says how much it matters.",
    "words": "Marked tokens matter, the stronger the more.",
    "steps": "Shaded steps matter.",
    "pixels": "The last picture is brighter where a pixel matters more.",
}


# What is known of a task ----------------------------------------------------------------------------------------------

def docstring(task: str) -> str:
    """The docstring of a task's module, read without importing it, and those of the shared files that it names."""
    def read(stem):
        file = Path(data.__file__).parent / f"{stem}.py"
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    own = read(task.replace("-", "_"))
    shared = dict.fromkeys(re.findall(r"\b(_[a-z_]+)\.py\b", own))
    return "\n\n".join([own, *(f"{stem}.py: {read(stem)}" for stem in shared)])


def constants(task: str) -> dict[str, float]:
    """The values of names in capitals that a task's text speaks of: its own, or those of a file that it builds on."""
    modules = [importlib.import_module(data.module_of(task))]
    for module in modules:
        modules += [part for part in vars(module).values() if isinstance(part, ModuleType) and part not in modules
                    and part.__name__.startswith(f"{data.__name__}._")]
    found = {}
    for name in re.findall(r"\b[A-Z][A-Z_]+\b", docstring(task)):
        value = next((getattr(module, name) for module in modules if hasattr(module, name)), None)
        if isinstance(value, (int, float)):
            found[name] = value
    return found


def about(task: str) -> str:
    """The first sentences of a task's docstring on one line, without its name."""
    first = " ".join(docstring(task).partition("\n\n")[0].split())
    return first.removeprefix(f"{task}:").strip()


def asks(samples: Data) -> str:
    """What the target is: "class" or "number" [N], "parts" [N, T], "map" [N, H, W], "boxes" [N, K, 6], "picture"."""
    whole = not samples.target.is_floating_point()
    return {1: "class" if whole else "number", 2: "parts", 3: "map" if whole else "boxes"}.get(
        samples.target.dim(), "picture")


def units(samples: Data) -> str:
    """The units that `informative` speaks of: a key of MATTERS, or "" where it says nothing that can be drawn."""
    if samples.informative is None:
        return ""
    if samples.kind == "image":
        if samples.informative.dim() == 3:
            return "pixels"
        return "bands" if samples.informative.shape[1] == samples.inputs[0].shape[1] > 1 else ""
    return {"video": "frames", "tokens": "words", "signal": "steps"}.get(samples.kind, "")


def statics(task: str, folder: Path) -> dict | None:
    """{"nets": [(net, MACs, accuracy)], "seeds", "stale"} of the static nets trained on a task; None without any.

    Raises evidence.ResultError.
    """
    try:
        content = evidence.read_json(folder / f"static-{task}.json", evidence.STATIC_FORMAT)
    except FileNotFoundError:
        return None
    from ..learn.frontier import FAMILIES

    now = task in FAMILIES and evidence.source_hash(FAMILIES[task].module, data.module_of(task))
    return {"nets": evidence.static_points(content["runs"]), "seeds": len({run["seed"] for run in content["runs"]}),
            "stale": now != content.get("source_hash")}


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's, rounded; None where one side is constant."""
    found = evidence.spearman(a, b)
    return None if found is None else round(found, 2) + 0.0


def facts(task: str, folder: Path | None = None, samples: Data | None = None) -> dict:
    """Everything a card says in figures, as JSON can hold it."""
    samples = samples or data.load(task, "test", DRAWN)
    parts = {"hard": samples.hard.tolist()} | {name: v.tolist() for name, v in samples.difficulty.items()}
    static = statics(task, folder or evidence.folder())
    return {
        "task": task, "about": about(task), "text": docstring(task), "constants": constants(task),
        "module": data.module_of(task), "kind": samples.kind, "inputs": [list(x.shape[1:]) for x in samples.inputs],
        "asks": asks(samples), "target": list(samples.target.shape[1:]), "labels": list(samples.labels),
        "informative": units(samples) or None, "splits": dict(importlib.import_module(data.module_of(task)).SIZES),
        "drawn": len(samples),
        "difficulty": {name: {"min": min(v), "median": statistics.median(v), "max": max(v), "counts": counts(v),
                              "correlation": {other: correlation(v, w) for other, w in parts.items() if other != name}}
                       for name, v in parts.items()},
        "static": static and {
            "seeds": static["seeds"], "stale": static["stale"],
            "nets": [{"net": net, "macs": macs, "accuracy": a.mean, "low": a.low, "high": a.high}
                     for net, macs, a in static["nets"]]},
    }


def counts(values: Sequence[float]) -> list[int]:
    """How many values fall into each bin: a bin per whole number where there are few of them, else BINS equal ones."""
    low, high = min(values), max(values)
    whole = all(v == int(v) for v in values) and 0 < high - low < BINS + 5
    many = int(high - low) + 1 if whole else BINS
    span = high - low + 1 if whole else (high - low) or 1.0
    found = [0] * many
    for v in values:
        found[min(many - 1, int((v - low) / span * many))] += 1
    return found


# In the shell ---------------------------------------------------------------------------------------------------------

def shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes)) or "one value"


def target_in_words(known: dict) -> str:
    """What is asked: 'one of 10 classes: 0, 1, ...'."""
    labels, size, given = known["labels"], known["target"], known["inputs"][0]
    if known["asks"] == "picture":
        naive = ", and a naive answer that the score compares with" if size[0] == 2 * given[0] else ""
        return f"a picture, {shape([given[0], *size[1:]])}{naive}"
    classes = f"{len(labels)} classes: {', '.join(labels)}"
    return {
        "class": f"one of {classes}",
        "number": "a number",
        "parts": f"{shape(size)} answers, each one of {classes}",
        "map": f"{shape(size)} pixels, each one of {classes}",
        "boxes": f"up to {size[0] if size else 0} boxes, each of one of {classes}",
    }[known["asks"]]


def lines(known: dict) -> list[str]:
    """A card as text: what `facts` knows, but for the samples."""
    splits = ", ".join(f"{name} {size:,}" for name, size in known["splits"].items())
    found = [known["text"], "", f"input    {known['kind']}, {', '.join(map(shape, known['inputs']))}",
             f"target   {target_in_words(known)}", f"samples  {splits}"]
    if known["constants"]:
        values = (f"{name} = {value:g}" for name, value in known["constants"].items())
        found.append(f"where    {', '.join(values)}")
    found.append("")
    width = max(map(len, known["difficulty"]))
    found.append(f"{'difficulty':<{width}} {'min':>8} {'median':>8} {'max':>8} {'with hard':>10}   "
                 f"of {known['drawn']} test samples")
    for name, part in known["difficulty"].items():
        along = part["correlation"].get("hard")
        most = max(part["counts"])
        bars = "".join(" " if not n else BARS[math.ceil(n / most * 8) - 1] for n in part["counts"])
        found.append(f"{name:<{width}} {part['min']:>8.3g} {part['median']:>8.3g} {part['max']:>8.3g} "
                     f"{'' if along is None else f'{along:+.2f}':>10}   {bars}")
    if known["static"]:
        nets = known["static"]["nets"]
        width = max(len(net["net"]) for net in nets)
        found += ["", f"{'static net':<{width}} {'MACs':>10} {score(known):>10}   over "
                      f"{plural(known['static']['seeds'], 'seed')}" + ", stale" * known["static"]["stale"]]
        for net in nets:
            half = "" if net["low"] is None else f" ± {100 * (net['high'] - net['accuracy']):.1f}"
            found.append(f"{net['net']:<{width}} {number(net['macs']):>10} {percent(net['accuracy']):>10}{half}")
    return found


def score(known: dict) -> str:
    """What a static net is judged by: accuracy, or for other targets the score that the task defines."""
    return "accuracy" if known["asks"] in ("class", "parts") else "score"


def listed(names: Sequence[str]) -> list[str]:
    """The tasks, one line each."""
    width = max(map(len, names))
    return [f"{name:<{width}}  {about(name)}" for name in names]


# On the page ----------------------------------------------------------------------------------------------------------

def card(task: str, folder: Path, kb=None, papers: str = "../papers/") -> str:
    """HTML of one card, without its heading. `kb`: names the papers that were trained on the task.

    Raises evidence.ResultError.
    """
    samples = data.load(task, "test", DRAWN)
    known = facts(task, folder, samples)
    sizes = [("input", text(f"{known['kind']}, {', '.join(map(shape, known['inputs']))}")),
             ("target", text(target_in_words(known))),
             ("samples", text(", ".join(f"{name} {size:,}" for name, size in known["splits"].items())))]
    if kb is not None and (keys := trained_on(task, folder)):
        sizes.append(("trained on it", ", ".join(link(page_of(key, papers), kb[key].method) for key in keys)))
    if known["constants"]:
        values = (f"<code>{name} = {value:g}</code>" for name, value in known["constants"].items())
        sizes.insert(0, ("where", ", ".join(values)))
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in sizes)
    return "\n".join([
        f'<div class="dyn-card" data-task="{text(task)}">', prose(known["text"], task),
        f'<dl class="dyn-card-sizes">{rows}</dl>', shots(samples), difficulty(known, samples), frontier(known),
        "</div>"])


def trained_on(task: str, folder: Path) -> list[str]:
    """Keys of the papers with a result on a task. Raises evidence.ResultError."""
    found = [evidence.read_json(file, evidence.FORMAT) for file in sorted(folder.glob("*.json"))
             if not file.name.startswith("static-")]
    return [result["paper"] for result in found if result["task"] == task]


def prose(written: str, task: str) -> str:
    """A docstring as HTML: paragraphs, indented `name  explanation` lines as definitions, other indented lines as they
    stand."""
    found = []
    for block in re.split(r"\n\s*\n", written):
        rows = block.split("\n")
        while rows:
            indented = rows[0].startswith("    ")
            end = next((i for i, row in enumerate(rows) if row.startswith("    ") != indented), len(rows))
            found.append(_definitions(rows[:end]) if indented else _paragraph(rows[:end], task if not found else ""))
            rows = rows[end:]
    return "\n".join(found)


def _paragraph(rows: Sequence[str], task: str) -> str:
    """A paragraph; the first one of a card leads it and leaves out the task's name."""
    words = " ".join(rows)
    if task:
        words = words.removeprefix(f"{task}:").strip()
        words = words[:1].upper() + words[1:]
    marked = re.sub(r"&#96;([^&]+)&#96;", r"<code>\1</code>", text(words))
    return f'<p class="dyn-lead">{marked}</p>' if task else f"<p>{marked}</p>"


def _definitions(rows: Sequence[str]) -> str:
    """A list of definitions where every line begins one or goes on with one, else the lines in one width."""
    pairs: list[list[str]] = []
    for row in rows:
        begun = re.fullmatch(r"    (\w[\w-]*(?: [\w-]+)?) {2,}([^ =].*)", row)
        if begun:
            pairs.append(list(begun.groups()))
        elif pairs and row.startswith("      "):
            pairs[-1][1] += " " + row.strip()
        else:
            pairs = []
            break
    if not pairs:
        body = "\n".join(re.sub(r" {4,}(?=in \[)", "   ", row[4:]) for row in rows)
        return f'<pre class="dyn-formula" tabindex="0" aria-label="formula">{preformatted(body)}</pre>'
    inside = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="dyn-card-words">{inside}</dl>'


def difficulty(known: dict, samples: Data) -> str:
    """Histograms of `hard` and of each factor, and how the factors go together."""
    parts = known["difficulty"]
    drawn = "".join(histogram(name, part) for name, part in parts.items())
    head = ["", *map(text, parts)]
    rows = [[text(name), *("" if other == name else "–" if (r := part["correlation"][other]) is None else f"{r:+.2f}"
                           for other in parts)] for name, part in parts.items()]
    together = table(head, rows, caption=f"Spearman’s correlation over {known['drawn']} test samples")
    return f'<h3>How hard its samples are</h3><div class="dyn-histograms">{drawn}</div>{together}'


def histogram(name: str, part: dict) -> str:
    """A small histogram from the counts of a factor; its caption says from where to where it goes."""
    found = part["counts"]
    wide, most = 120 / len(found), max(found)
    path = "".join(f"M{i * wide:.4g} 40v-{38 * n / most:.3g}h{wide * .86:.3g}v{38 * n / most:.3g}z"
                   for i, n in enumerate(found) if n)
    return (f'<figure class="dyn-histogram"><svg viewBox="0 0 120 41" preserveAspectRatio="none" role="img" '
            f'aria-label="histogram of {text(name)}"><path class="dyn-bars" d="{path}"/>'
            f'<path class="dyn-ground" d="M0 40.5h120"/></svg><figcaption><b>{text(name)}</b> {part["min"]:.3g} to '
            f'{part["max"]:.3g}, half of them up to {part["median"]:.3g}</figcaption></figure>')


def frontier(known: dict) -> str:
    """The table of the static nets; empty where none was trained."""
    static = known["static"]
    if not static:
        return ""
    rows = [[text(net["net"]), number(net["macs"]),
             interval(evidence.Interval(net["accuracy"], net["low"], net["high"]), percent)] for net in static["nets"]]
    over = plural(static["seeds"], "seed") + (", in brackets the 95 % interval" if static["seeds"] > 1 else "")
    badge = '<p class="dyn-badges"><span class="dyn-badge dyn-doubt">stale: the code changed since this was measured' \
            "</span></p>" if static["stale"] else ""
    return "<h3>What static nets make of it</h3>" + badge + table(
        ["static net", "MACs per input", score(known)], rows, caption=f"On {known['task']}, {over}.")


# Samples --------------------------------------------------------------------------------------------------------------

def chosen(samples: Data, count: int = ROW) -> list[tuple[str, list[int]]]:
    """(name, indices) of easy, middle and hard samples: from the tenth at either end of `hard` and that in its middle.

    One row of any samples where they are all equally hard, or fewer than three. No sample is chosen twice.
    """
    order = samples.hard.argsort(stable=True).tolist()
    if len(order) < 3 or samples.hard.unique().numel() < 2:
        return [("samples", order[:count])]
    count = min(count, len(order) // 3)
    wide = max(count, len(order) // 10)
    starts = {"easy": 0, "middle": (len(order) - wide) // 2, "hard": len(order) - wide}
    return [(name, [order[start + round(k * (wide - 1) / max(1, count - 1))] for k in range(count)])
            for name, start in starts.items()]


def shots(samples: Data) -> str:
    """Rows of samples from easy to hard, drawn by their kind, with their targets and what matters in them."""
    groups = chosen(samples)
    draw = {"tokens": _words, "signal": _signal}.get(samples.kind, _picture)
    ranges = _ranges(samples) if samples.kind == "signal" else None
    asked = asks(samples)
    pictured = samples.kind in ("image", "video")
    said = ["The figure below a sample is its difficulty, hard."]
    if len(panels := _panels_of(samples)) > 1:
        said.append(f"From top to bottom: {', '.join(panels)}.")
    said += [MATTERS[units(samples)]] if units(samples) else []
    said += ["The dashed box holds the informative part."] if samples.box is not None and pictured else []
    if samples.kind == "signal":
        said.append(f"One line per channel, {samples.inputs[0].shape[2]} of them; time runs to the right.")
    if samples.kind == "video":
        said.append("A video plays under the pointer, and when it has the focus.")
    found = ["<h3>Samples</h3>", f'<p class="dyn-muted">{" ".join(said)}</p>']
    if asked == "map":
        keys = "".join(f'<li><i style="background:rgb{colour}"></i>{text(name)}</li>'
                       for name, colour in zip(samples.labels, palette(samples), strict=False))
        found.append(f'<ul class="dyn-legend">{keys}</ul>')
    wide = "dyn-shots"
    if samples.kind == "tokens":
        letters = max(len(" ".join(_spelled(samples, i))) for _, rows in groups for i in rows)
        wide += " dyn-shots-long" if letters > 30 else " dyn-shots-short"
    for name, rows in groups:
        low, high = (samples.hard[[rows[0], rows[-1]]]).tolist()
        items = "".join(f"<li>{draw(samples, i, ranges)}<p>{_caption(samples, i)}</p></li>" for i in rows)
        found.append(f'<p class="dyn-shots-name"><b>{name}</b> <span class="dyn-muted">{low:.2f} to {high:.2f}</span>'
                     f'</p><ul class="{wide}" aria-label="{name} samples">{items}</ul>')
    return "\n".join(found)


def answer(samples: Data, i: int) -> str:
    """The target of a sample in words; empty for a picture."""
    target, asked = samples.target[i], asks(samples)

    def name(label: int) -> str:
        return samples.labels[label] if label < len(samples.labels) else str(label)
    if asked == "class":
        return name(int(target))
    if asked == "number":
        return f"{float(target):.3g}"
    if asked == "parts":
        names = [name(y) for y in target.tolist() if y != WITHHELD]
        return ("" if max(map(len, names), default=0) == 1 else " ").join(names).strip()
    if asked == "map":
        return ", ".join(name(y) for y in target.unique().tolist() if y != WITHHELD and (y or not _grounded(samples)))
    if asked == "boxes":
        return ", ".join(name(int(box[4])) for box in target.tolist() if box[5] > 0)
    return ""


def _caption(samples: Data, i: int) -> str:
    said = answer(samples, i)
    shown = said if len(said) <= 24 else said[:23] + "…"
    return (f"<b>{text(shown)}</b> " if said else "") + f'<span class="dyn-muted">{samples.hard[i]:.2f}</span>'


def _alt(samples: Data, i: int) -> str:
    said = answer(samples, i)
    return ": ".join(filter(None, [f"{samples.kind} sample, {samples.hard[i]:.2f} hard", said]))


def _spelled(samples: Data, i: int) -> list[str]:
    return samples.spell(*(x[i] for x in samples.inputs))


def _words(samples: Data, i: int, _) -> str:
    """The words of a sample; neighbours that matter equally share one mark."""
    words = _spelled(samples, i)
    share = [0] * len(words)
    if samples.informative is not None:
        share = [round(10 * v) for v in samples.informative[i].tolist()[:len(words)]]
    between = "" if all(len(word) == 1 for word in words) and len(words) > 24 else " "
    found, at = [], 0
    while at < len(words):
        end = next((j for j in range(at, len(words)) if share[j] != share[at]), len(words))
        run = text(between.join(words[at:end]))
        found.append(f'<mark style="--share:{share[at] / 10:g}">{run}</mark>' if share[at] else run)
        at = end
    return f'<div class="dyn-shot dyn-shot-words">{between.join(found)}</div>'


def _ranges(samples: Data) -> list[tuple[float, float]]:
    """Per channel of signals, the values between which nearly all lie: all samples are drawn to one scale."""
    values = samples.inputs[0].flatten(0, 1).sort(0).values
    cut = len(values) // 500
    return list(zip(values[cut].tolist(), values[-1 - cut].tolist(), strict=True))


def _signal(samples: Data, i: int, ranges: Sequence[tuple[float, float]]) -> str:
    """The channels of a signal [T, C] as lines below each other, with the steps that matter shaded."""
    x = samples.inputs[0][i]
    tall, parts = LANE * x.shape[1], []
    if units(samples):
        share, at = [round(10 * v) for v in samples.informative[i].tolist()], 0
        while at < len(share):
            end = next((j for j in range(at, len(share)) if share[j] != share[at]), len(share))
            if share[at]:
                parts.append(f'<rect class="dyn-matters" x="{at - .5:g}" y="0" width="{end - at}" height="{tall}" '
                             f'opacity="{share[at] * .03:.2g}"/>')
            at = end
    for lane, (low, high) in enumerate(ranges):
        level = ((x[:, lane] - low) / ((high - low) or 1.0)).clamp(0, 1)
        y = [round(v) for v in (LANE * (lane + .95 - .9 * level)).tolist()]
        steps = "".join(f"l1 {b - a}" for a, b in pairwise(y))
        parts.append(f'<path class="dyn-wave" d="M0 {y[0]}{steps}"/>')
    return (f'<svg class="dyn-shot dyn-shot-signal" viewBox="-1 0 {len(x) + 1} {tall}" preserveAspectRatio="none" '
            f'role="img" aria-label="{text(_alt(samples, i))}">{"".join(parts)}</svg>')


class Panel(NamedTuple):
    """One picture of a sample: a PNG as an address, its size in its own pixels, and SVG that lies over it."""
    png: str
    width: int
    height: int
    over: str = ""


def _panels_of(samples: Data) -> list[str]:
    """What the pictures of a sample show, from top to bottom."""
    if samples.kind not in ("image", "video"):
        return []
    targets = ["target"] if asks(samples) == "map" else []
    if asks(samples) == "picture":
        targets = ["target", "naive answer"][:len(_pictures(samples))]
    return ["input", *targets, *["what matters"] * (units(samples) == "pixels")]


def _pictures(samples: Data) -> tuple:
    """Targets that are pictures: the true ones, then, where there are any, naive answers that are not the input."""
    x = samples.inputs[0]
    true, *naive = samples.target.split(x.shape[1], 1)
    return true, *(answers for answers in naive if answers.shape != x.shape or not answers.equal(x))


def _picture(samples: Data, i: int, _) -> str:
    """The pictures of a sample, one below the other, in one SVG."""
    found = [_input(samples, i)]
    if asks(samples) == "map":
        colours = palette(samples)
        indices = samples.target[i].numpy().astype("int64")
        indices[(indices < 0) | (indices >= len(colours))] = len(colours)               # where nothing is asked
        found.append(Panel(_indexed(indices, [*colours, None]), indices.shape[1], indices.shape[0]))
    elif asks(samples) == "picture":
        found += [_shown(pictures[i].numpy()) for pictures in _pictures(samples)]
    if units(samples) == "pixels":
        share = samples.informative[i].clamp(0, 1).mul(14).round().numpy().astype("int64")
        ramp = [(17 * k, 12 * k, 3 * k) for k in range(15)]
        found.append(Panel(_indexed(share, ramp), share.shape[1], share.shape[0]))
    film = f"film_{samples.task.replace('-', '_')}_{i}" if samples.kind == "video" else ""     # times can't name a "-"
    name = f' id="{film}_all"' if film else ""
    parts, y = [], 0.0
    for panel in found:
        size = 100 / panel.width
        parts.append(f'<g transform="translate(0 {y:.5g}) scale({size:.5g})"><image{name} href="{panel.png}" '
                     f'width="{panel.width}" height="{panel.height}"/>{panel.over}</g>')
        y += panel.height * size + GAP
    if film:
        parts.append(_film(film, samples.inputs[0][i].shape, found[0]))
    focus = f' id="{film}" tabindex="0"' if film else ""
    return (f'<svg class="dyn-shot"{focus} viewBox="0 0 100 {y - GAP:.5g}" role="img" '
            f'aria-label="{text(_alt(samples, i))}">{"".join(parts)}</svg>')


def _film(name: str, sizes: Sequence[int], panel: Panel) -> str:
    """The frames [T, C, H, W] of a montage one after another, over it, while the drawing `name` is looked at."""
    count, _, tall, wide = sizes
    columns, high = _columns(count), 100 * panel.height / panel.width
    steps = ";".join(f"{-(k % columns) * (wide + GAP)} {-(k // columns) * (tall + GAP)}" for k in range(count))
    while_seen = f'begin="{name}.mouseover;{name}.focusin" end="{name}.mouseout;{name}.focusout"'
    return (f'<g visibility="hidden" pointer-events="none"><set attributeName="visibility" to="visible" {while_seen}/>'
            f'<rect class="dyn-behind" width="100" height="{high:.5g}"/>'
            f'<svg width="100" height="{high:.5g}" viewBox="0 0 {wide} {tall}"><clipPath id="{name}_frame">'
            f'<rect width="{wide}" height="{tall}"/></clipPath><g clip-path="url(#{name}_frame)"><g>'
            f'<animateTransform attributeName="transform" type="translate" calcMode="discrete" values="{steps}" '
            f'dur="{count / 4:g}s" repeatCount="indefinite" {while_seen}/><use href="#{name}_all"/></g></g></svg></g>')


def _input(samples: Data, i: int) -> Panel:
    """The input of an image or a video, with boxes over it and bars below frames or bands that matter."""
    x = samples.inputs[0][i].numpy()
    if samples.kind == "image" and len(x) in (1, 3):
        shown = _shown(x)
        marks = []
        if asks(samples) == "boxes":
            marks = [_box(shown, box, samples.labels[int(box[4])] if int(box[4]) < len(samples.labels) else "")
                     for box in samples.target[i].tolist() if box[5] > 0]
        if samples.box is not None:
            marks.append(_box(shown, samples.box[i].tolist(), ""))
        return shown._replace(over="".join(marks))
    frames = x if samples.kind == "video" else x[:, None]
    columns = _columns(len(frames))
    shown = _shown(montage(frames, columns))
    if units(samples) not in ("frames", "bands"):
        return shown
    tall, wide = frames.shape[2] + GAP, frames.shape[3] + GAP
    bars = "".join(f'<rect class="dyn-matters" x="{k % columns * wide}" y="{(k // columns + 1) * tall - GAP + .5}" '
                   f'width="{wide - GAP}" height="{GAP - 1}" opacity="{share:.2g}"/>'
                   for k, share in enumerate(samples.informative[i].tolist()) if share >= .01)
    return shown._replace(over=bars)


def _columns(count: int) -> int:
    """How many frames or bands stand in a row."""
    return min(count, max(4, math.ceil(math.sqrt(count))))


def _box(panel: Panel, box: Sequence[float], label: str) -> str:
    """A box over a picture, from x0, y0, x1, y1 in [0, 1]; dashed without a label."""
    x0, y0, x1, y1 = (v * side for v, side in zip(box[:4], (panel.width, panel.height) * 2, strict=True))
    size = panel.height / 8
    name = f'<text x="{x0 + .15 * size:.3g}" y="{y0 + size:.3g}" font-size="{size:.3g}">{text(label)}</text>' if label \
        else ""
    dashed = "" if label else " dyn-dashes"
    return (f'<rect class="dyn-over{dashed}" x="{x0:.4g}" y="{y0:.4g}" width="{x1 - x0:.4g}" '
            f'height="{y1 - y0:.4g}"/>{name}')


def montage(frames: np.ndarray, columns: int) -> np.ndarray:
    """Frames [n, C, H, W] side by side, `columns` in a row, as [C, rows * (H + GAP), columns * (W + GAP) - GAP].

    NaN, which stands for nothing, right of each frame but the last and below each.
    """
    import numpy as np

    count, channels, tall, wide = frames.shape
    rows = math.ceil(count / columns)
    sheet = np.full((channels, rows * (tall + GAP), columns * (wide + GAP) - GAP), np.nan, dtype="float64")
    for k, frame in enumerate(frames):
        y, x = k // columns * (tall + GAP), k % columns * (wide + GAP)
        sheet[:, y:y + tall, x:x + wide] = frame
    return sheet


def _shown(pixels: np.ndarray) -> Panel:
    """Values [1 or 3, H, W], clipped to [0, 1], as a picture: 15 greys (half the bytes, no eye tells), or colours."""
    import numpy as np
    from PIL import Image

    tall, wide = pixels.shape[1:]
    nothing = np.isnan(pixels[0])
    values = np.nan_to_num(pixels).clip(0, 1)
    if len(pixels) == 3:
        colours = np.concatenate([(255 * values).round(), 255.0 * ~nothing[None]]).astype("uint8")
        return Panel(_address(Image.fromarray(colours.transpose(1, 2, 0).copy())), wide, tall)
    greys = [(round(255 * k / 14),) * 3 for k in range(15)]
    return Panel(_indexed(np.where(nothing, 15, (14 * values[0]).round()).astype("int64"), [*greys, None]), wide, tall)


def _indexed(indices: np.ndarray, colours: Sequence[tuple[int, int, int] | None]) -> str:
    """A PNG of few colours, [H, W] indices of them; None is nothing."""
    from PIL import Image

    image = Image.frombytes("P", indices.shape[::-1], indices.astype("uint8").tobytes())
    image.putpalette([part for colour in colours for part in colour or (0, 0, 0)])
    clear = {"transparency": len(colours) - 1} if colours[-1] is None else {}
    return _address(image, bits=4 if len(colours) <= 16 else 8, **clear)


def _address(image, **options) -> str:
    """A picture as a data address."""
    with io.BytesIO() as file:
        image.save(file, "PNG", optimize=True, **options)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _grounded(samples: Data) -> bool:
    """Whether class 0 of a map is what lies behind things."""
    return samples.labels[:1] == ("background",)


def palette(samples: Data) -> list[tuple[int, int, int]]:
    """A colour per class of a map, around the circle and in turns light and dark; the background is nearly black."""
    count, ground = len(samples.labels), _grounded(samples)
    things = [colorsys.hls_to_rgb(k / max(1, count - ground), (.66, .5)[k % 2], .7) for k in range(count - ground)]
    return [(24, 26, 30)] * ground + [tuple(round(255 * part) for part in colour) for colour in things]
