r"""From MACs to seconds: what masked convolution costs against the best dense one, measured, and a cost model between.

`benchmarks/masked_conv.json` holds the measurements. For each kind of layer and shape of mask the time of a form that
leaves pixels out is fitted as a sum of few costs, none of them negative,

$$ t(s) = c_0 + c_1\, s\, M + c_2\, B + c_3\, s\, B + c_4\, W, $$

with the share $s$ of pixels that are on, the MACs $M$ of the dense layer, the bytes $B$ of the map that is read and
written, and the bytes $W$ of its weights; dense is the same with all pixels on. What the package runs by default falls
back to dense from half of the pixels on, where that is faster; what this costs is learned from rows in which it did.
`explorer` draws measurements and fit on a page that needs no kernel.

Left out: caches (a byte costs the same wherever it lies), frequencies, threads, and blocks of several layers, whose
masks widen from layer to layer: those are shown as measured.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from dynnotes.execute.kernels.masked_conv.dense import worth_asking
from dynnotes.learn import evidence

from .figures import BLUE, ORANGE
from .tables import number, table, text

METHODS = {  # of the file: (in words, colour)
    "ours": ("masked, compiled", BLUE),
    "torch": ("masked, torch operators", ORANGE),
    "dense times mask": ("dense times mask", "#a05bc0"),
}
MASKS = {"random": "single pixels", "blob": "blobs", "block": "aligned blocks"}
TERMS = ("fixed", "work", "map", "moved", "weights")
DENSE_TERMS = ("fixed", "work", "map", "weights")  # all pixels are on: what is moved is the map
EXTRA_TERMS = ("fixed", "work", "map")  # beyond dense: of a product with the mask, of falling back
SHOWN = ("shape", "side", "channels", "batch", "mask", "density", "share", "macs", "base", "operator", "base_gflops",
         "base_seconds", "noise", "void")  # fields of a row that the page holds


@dataclass(frozen=True)
class Layer:
    """A kind of layer of the file. times: MACs in multiples of those of one pass."""

    part: str
    label: str
    kernel: int = 3
    depthwise: bool = False
    bytes: int = 4
    times: int = 1
    fitted: bool = True

    def sizes(self, side: float, channels: float, batch: float) -> dict[str, float]:
        """MACs, bytes of the map in and out, and bytes of the weights."""
        weights = channels * (1 if self.depthwise else channels) * self.kernel**2
        return {
            "macs": self.times * batch * side**2 * weights,
            "map": 2 * batch * side**2 * channels * self.bytes,
            "weights": weights * self.bytes,
        }


LAYERS = {
    layer.part: layer
    for layer in (
        Layer("conv", "3×3"),
        Layer("pointwise", "1×1", kernel=1),
        Layer("depthwise", "depthwise 3×3", depthwise=True),
        Layer("half", "3×3 in bfloat16", bytes=2),
        Layer("blocks", "residual blocks", fitted=False),
        Layer("training", "3×3, forward and backward", times=3),
    )
}


# ---------------------------------------------------------------- the file


def shipped() -> Path:
    """Where the measurements stand: in the checkout, or below the current folder for an installed package."""
    return evidence.folder().parent / "benchmarks" / "masked_conv.json"


def load(path: str | Path | None = None) -> dict:
    """The measurements, checked. Raises ValueError that names file, row and field, and FileNotFoundError."""
    path = Path(path or shipped())
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; `python -m benchmarks.masked_conv --json FILE` makes it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as fault:
        raise ValueError(f"{path}: not JSON: {fault}") from None
    try:
        return check(content)
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from None


def _refuse(word: str):
    raise ValueError(f"{word} is no number")


def check(content: dict) -> dict:
    """`content` itself. Raises ValueError that names the row and the field."""
    _is(isinstance(content, dict), "", "an object", content)
    for name in ("machine", "instructions", "date", "command"):
        _is(isinstance(content.get(name), str), name, "a text", content.get(name))
    versions = content.get("versions")
    named = isinstance(versions, dict) and all(isinstance(v, str) for v in versions.values())
    _is(named, "versions", "texts", versions)
    _is(isinstance(content.get("rows"), list), "rows", "a list", content.get("rows"))
    seen = set()
    for i, row in enumerate(content["rows"]):
        _is(isinstance(row, dict) and isinstance(row.get("part"), str), f"rows[{i}].part", "a text", row)
        if row["part"] not in LAYERS:
            continue
        for name in ("shape", "mask", "base", "operator"):
            _is(isinstance(row.get(name), str), f"rows[{i}].{name}", "a text", row.get(name))
        for name in ("side", "channels", "batch"):
            _is(_whole(row.get(name)), f"rows[{i}].{name}", "a whole number above zero", row.get(name))
        for name in ("density", "share", "macs", "base_seconds", "noise"):
            _is(_positive(row.get(name)), f"rows[{i}].{name}", "a number above zero", row.get(name))
        _is(row["share"] <= 1, f"rows[{i}].share", "at most 1", row["share"])
        _is(isinstance(row.get("void"), bool), f"rows[{i}].void", "true or false", row.get("void"))
        rate = row.get("base_gflops")
        _is(rate is None or _positive(rate), f"rows[{i}].base_gflops", "null or a number above zero", rate)
        ratios = row.get("ratios")
        _is(isinstance(ratios, dict) and "ours" in ratios, f"rows[{i}].ratios", "an object with `ours`", ratios)
        for name, values in ratios.items():
            three = isinstance(values, list) and len(values) == 3 and all(map(_positive, values))
            ordered = three and values[1] <= values[0] <= values[2]
            _is(ordered, f"rows[{i}].ratios.{name}", "[median, low, high]", values)
        key = tuple(row[name] for name in ("part", "shape", "batch", "mask", "density"))
        _is(key not in seen, f"rows[{i}]", "measured once", " ".join(map(str, key)))
        seen.add(key)
    _is(seen, "rows", f"a list with rows of {', '.join(LAYERS)}", content["rows"])
    return content


def _is(good, where: str, wanted: str, found) -> None:
    if not good:
        told = json.dumps(found, ensure_ascii=False, default=str)
        raise ValueError(f"{where or 'the file'}: should be {wanted}, is {told[:80]}")


def _positive(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _whole(value) -> bool:
    return isinstance(value, int) and _positive(value)


def rows_of(measured: Mapping, part: str) -> list[dict]:
    return [row for row in measured["rows"] if row["part"] == part]


# ---------------------------------------------------------------- the fit


def columns(layer: Layer, terms: Sequence[str], side, channels, batch, share) -> list[float]:
    """What each cost is paid for. In billions, so that no coefficient is lost beside another."""
    size = layer.sizes(side, channels, batch)
    paid = {"fixed": 1e-3, "work": share * size["macs"] / 1e9, "map": size["map"] / 1e9,
            "moved": share * size["map"] / 1e9, "weights": size["weights"] / 1e9}
    return [paid[term] for term in terms]


def _fit(paid, seconds, scale=None) -> list[float]:
    """Costs, none negative, with the least squares of (predicted - seconds) / scale; scale: the seconds themselves."""
    scale = np.asarray(seconds if scale is None else scale)
    return nnls(np.asarray(paid) / scale[:, None], np.asarray(seconds) / scale)[0].tolist()


@dataclass
class Fit:
    """Costs of one kind of layer: of dense, beyond it of a product with the mask and of falling back (None: no row
    fell back), and of each method for each shape of mask."""

    layer: Layer
    dense: list[float]
    extra: list[float]
    back: list[float] | None = None
    masks: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def seconds(self, method: str, side, channels, batch, share: float, mask: str) -> float:
        """Predicted seconds of a call; method: a word of METHODS, or "dense". KeyError where nothing was fitted."""

        def cost(terms, costs, share=1.0):
            return float(np.dot(columns(self.layer, terms, side, channels, batch, share), costs))

        if method in ("dense", "dense times mask"):
            return cost(DENSE_TERMS, self.dense) + (cost(EXTRA_TERMS, self.extra) if method != "dense" else 0.0)
        own = cost(TERMS, self.masks[mask][method], share)
        if method == "ours" and share > worth_asking(self.layer.depthwise) and self.back is not None:
            own = min(own, cost(DENSE_TERMS, self.dense) + cost(EXTRA_TERMS, self.back))
        return own

    def ratio(self, method: str, side, channels, batch, share: float, mask: str) -> float:
        """Predicted time over that of the best dense form."""
        return self.seconds(method, side, channels, batch, share, mask) / self.seconds(
            "dense", side, channels, batch, 1.0, mask)

    def break_even(self, method: str, side, channels, batch, mask: str) -> float | None:
        """The share of pixels at which leaving the others out takes as long as dense: above it nothing is saved.

        None: the method is faster at any share, or (its ratio at a share near 0 tells) at none.
        """
        if method not in self.masks.get(mask, {}):
            return None
        costs = self.masks[mask][method]
        start, end = (np.dot(columns(self.layer, TERMS, side, channels, batch, s), costs) for s in (0.0, 1.0))
        dense = self.seconds("dense", side, channels, batch, 1.0, mask)
        found = (dense - start) / (end - start) if end > start else math.inf  # a line: it crosses once
        return float(found) if 0 < found <= 1 else None


def fit(layer: Layer, rows: Iterable[Mapping]) -> Fit | None:
    """Costs from the rows of one kind of layer that are not void. None where there is nothing to fit."""
    rows = [row for row in rows if not row["void"]]
    if not layer.fitted or not rows:
        return None
    dense = _dense_seconds(rows)
    costs = _fit([columns(layer, DENSE_TERMS, *key, 1.0) for key in dense], list(dense.values()))
    found = Fit(layer, costs, [0.0] * len(EXTRA_TERMS))
    masked = [row for row in rows if "dense times mask" in row["ratios"]]
    if masked:
        found.extra = _beyond(layer, masked, "dense times mask", dense)
    for kind in dict.fromkeys(row["mask"] for row in rows):
        found.masks[kind] = {}
        for method in ("ours", "torch"):
            own = [row for row in rows if row["mask"] == kind and method in row["ratios"]
                   and not (method == "ours" and row["share"] > worth_asking(layer.depthwise))]
            if own:
                paid = [columns(layer, TERMS, *_place(row), row["share"]) for row in own]
                seconds = [row["ratios"][method][0] * dense[_place(row)] for row in own]
                found.masks[kind][method] = _fit(paid, seconds)
    fell = [row for row in rows if row["share"] > worth_asking(layer.depthwise) and "ours" in found.masks[row["mask"]]
            and evidence.QUIET[1] * row["ratios"]["ours"][0]
            < found.ratio("ours", *_place(row), row["share"], row["mask"])]
    if fell:  # measured below what the kernel itself would take: so it was not the kernel
        found.back = _beyond(layer, fell, "ours", dense)
    return found


def _beyond(layer: Layer, rows: Sequence[Mapping], method: str, dense: Mapping[tuple, float]) -> list[float]:
    """What a method costs more than dense, whatever the share."""
    base = [dense[_place(row)] for row in rows]
    seconds = [row["ratios"][method][0] * b for row, b in zip(rows, base, strict=True)]
    paid = [columns(layer, EXTRA_TERMS, *_place(row), 1.0) for row in rows]
    return _fit(paid, [t - b for t, b in zip(seconds, base, strict=True)], seconds)


def _place(row: Mapping) -> tuple[int, int, int]:
    return row["side"], row["channels"], row["batch"]


def _dense_seconds(rows: Iterable[Mapping]) -> dict[tuple, float]:
    """{(side, channels, batch): seconds of the best dense form}: no mask enters it, so the median over all rows."""
    found: dict[tuple, list[float]] = {}
    for row in rows:
        found.setdefault(_place(row), []).append(row["base_seconds"])
    return {key: statistics.median(values) for key, values in found.items()}


def errors(layer: Layer, rows: Sequence[Mapping]) -> dict[str, dict[str, float]]:
    """{method: what its predictions of the ratio are worth}: |predicted / measured - 1|, median and worst.

    `median`, `worst`: over the rows it was fitted to. `left_median`, `left_worst`: each map predicted by a fit that has
    not seen it, as a reader's own map would be; None with a single map.
    """
    rows = [row for row in rows if not row["void"]]
    maps = sorted({_place(row)[:2] for row in rows})
    found: dict[str, dict[str, list[float]]] = {}

    def enter(model: Fit | None, some: Iterable[Mapping], which: str) -> None:
        for row, method in itertools.product(some, METHODS):
            if method in row["ratios"] and (method == "dense times mask" or method in model.masks.get(row["mask"], {})):
                wrong = model.ratio(method, *_place(row), row["share"], row["mask"]) / row["ratios"][method][0] - 1
                found.setdefault(method, {"fit": [], "left": []})[which].append(abs(wrong))

    if layer.fitted and rows:
        enter(fit(layer, rows), rows, "fit")
        for own in maps if len(maps) > 1 else ():
            enter(fit(layer, [row for row in rows if _place(row)[:2] != own]),
                  [row for row in rows if _place(row)[:2] == own], "left")
    return {method: {"rows": len(e["fit"]), "median": statistics.median(e["fit"]), "worst": max(e["fit"]),
                     "left_median": statistics.median(e["left"]) if e["left"] else None,
                     "left_worst": max(e["left"], default=None)} for method, e in found.items()}


# ---------------------------------------------------------------- what was measured


def measured_line(rows: Iterable[Mapping], method: str) -> list[tuple[float, float]]:
    """[(share, ratio)] of the rows that are not void, one per share (masks of few blocks cannot have every density)."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if not row["void"] and method in row["ratios"]:
            found.setdefault(row["share"], []).append(row["ratios"][method][0])
    return [(share, statistics.mean(found[share])) for share in sorted(found)]


def crossing(line: Sequence[tuple[float, float]]) -> float | None:
    """Where a line of (share, ratio) first rises to 1; None if it never does, or starts there."""
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        if y0 < 1 <= y1:
            return x0 + (1 - y0) / (y1 - y0) * (x1 - x0)
    return None


# ---------------------------------------------------------------- the page


def explorer_data(measured: Mapping) -> dict:
    """What `breakeven.js` draws: for each kind of layer its rows, the fit, and what the fit is worth."""
    layers = []
    for part, layer in LAYERS.items():
        rows = rows_of(measured, part)
        if not rows:
            continue
        model = fit(layer, rows)
        layers.append({
            "part": part, "label": layer.label, "kernel": layer.kernel, "depthwise": layer.depthwise,
            "asked": worth_asking(layer.depthwise),
            "bytes": layer.bytes, "times": layer.times,
            "fit": model and {"dense": model.dense, "extra": model.extra, "back": model.back, "masks": model.masks},
            "errors": errors(layer, rows),
            "rows": [{name: row.get(name) for name in SHOWN}
                     | {"ratios": {m: row["ratios"][m] for m in METHODS if m in row["ratios"]}} for row in rows],
        })
    return {
        "machine": {name: measured[name] for name in ("machine", "instructions", "date", "command")}
        | {"torch": measured["versions"].get("torch", "")},
        "methods": {m: label for m, (label, _) in METHODS.items()}
        | ({"ours": "masked, as it runs without a compiler"} if measured["instructions"] == "none" else {}),
        "masks": MASKS,
        "terms": {"all": TERMS, "dense": DENSE_TERMS, "extra": EXTRA_TERMS},
        "layers": layers,
    }


def plain(data: Mapping) -> str:
    """A table per kind of layer: every measured ratio and where it meets 1."""
    parts = []
    for layer in data["layers"]:
        densities = sorted({row["density"] for row in layer["rows"]})
        lines = []
        groups: dict[tuple, list[dict]] = {}
        for row in layer["rows"]:
            groups.setdefault((row["shape"], row["batch"], row["mask"]), []).append(row)
        for (shape, batch, mask), rows in groups.items():
            at = {row["density"]: row for row in rows}
            for method, label in data["methods"].items():
                if not any(method in row["ratios"] for row in rows):
                    continue
                cells = [_cell(at.get(d), method) for d in densities]
                meets = crossing(measured_line(rows, method))
                rate = statistics.median(r["base_gflops"] or 0 for r in rows)
                lines.append([text(f"{shape}, batch {batch}, {data['masks'].get(mask, mask)}: {label}"), *cells,
                              "–" if meets is None else f"{meets:.0%}", text(rows[0]["base"]), number(rate or None)])
        caption = (f"{layer['label']}: time over that of the best dense form, by the share of pixels asked for; "
                   "void where the machine was not quiet")
        head = ["map, mask and form", *(f"{d:.0%}" for d in densities), "meets 1 at", "dense form", "its GF/s"]
        parts.append(table(head, lines, caption=caption))
    where = data["machine"]
    parts.append(f'<p class="be-small">{text(_circumstances(where))}</p>')
    return "\n".join(parts)


def _cell(row: Mapping | None, method: str) -> str:
    if row is None or method not in row["ratios"]:
        return "–"
    return "void" if row["void"] else f"{row['ratios'][method][0]:.2f}"


def _circumstances(where: Mapping) -> str:
    return (f"Measured on {where['machine']} (kernels for {where['instructions']}), torch {where['torch']}, "
            f"{where['date']}, one thread: {where['command']}.")


def explorer(measured: Mapping) -> str:
    """The explorer as HTML that stands alone: its figures, style and script are in it, its tables are there without."""
    data, here = explorer_data(measured), Path(__file__).parent
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    style, script = ((here / f"breakeven.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return (
        f'<div class="dyn-breakeven"><style>{style}</style><script type="application/json">{body}</script>'
        f'<div class="be-plain">{plain(data)}</div><script>{script}</script></div>'
    )
