"""`dynnotes run KEY`: a trained model on inputs: what it decided, what that cost, and whether it was right."""
from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import dynnotes

from .. import data, registry
from ..execute import Dynamic, Trace, measured
from ..learn.train import TrainingError, load_model
from . import traces

SHOWN = 12                                                      # inputs of a recorded trace: a theatre's strip
BARS = " ▁▂▃▄▅▆▇█"


class PlayError(ValueError):
    """An input that cannot be played; the message names it and the remedy."""


@dataclass(frozen=True)
class Played:
    """One run: answers [B], the trace, and the multiply-accumulates that were really executed."""
    answers: Tensor
    trace: Trace
    executed: int


def play(model: Dynamic, inputs: tuple[Tensor, ...], how: str = "sparse") -> Played:
    """Run `model` on `inputs`, "sparse" or "dense", and count what runs."""
    with torch.no_grad(), measured() as bill:
        y, trace = model.eval().execute(how)(*inputs)
    return Played(y.argmax(1), trace, bill.macs)


def record(key: str, samples: data.Data, model: Dynamic | None = None) -> dict:
    """The trace file of a trained model over `samples` at every value of its budget."""
    model = model or load_model(key)
    runs = []
    for value in model.budget.values:
        played = play(model.at(value), samples.inputs)
        runs.append((value, played.trace, played.answers, played.answers == samples.target))
    inputs = [traces.image(samples.inputs[0][i], label=samples.target[i].item(), hard=samples.hard[i].item(),
                           box=None if samples.box is None else samples.box[i],
                           difficulty={name: v[i] for name, v in samples.difficulty.items()})
              for i in range(len(samples))]
    return traces.build(key, dynnotes.load()[key].method, samples.task, model.budget, runs, inputs,
                        runs[0][1].full, samples.labels)


def spread(samples: data.Data, count: int = SHOWN) -> data.Data:
    """`count` samples from the easiest to the hardest, evenly."""
    order = samples.hard.argsort()
    return samples[order[torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()]]


def export(keys=None, folder: str | Path = "assets/traces") -> list[Path]:
    """Write the recordings that the book plays, one per trained paper; returns the files."""
    written = []
    for key in keys or registry.sources():
        task = registry.sources()[key].load().recipe().task
        path = Path(folder) / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        written.append(traces.save(record(key, spread(data.load(task, "test", 400))), path))
    return written


def images(paths, side: int) -> Tensor:
    """Image files (or .npy arrays) as [N, 1, side, side] in [0, 1]: grey, light strokes on a dark ground."""
    rows = []
    for path in paths:
        try:
            if str(path).endswith(".npy"):
                import numpy as np
                picture = torch.from_numpy(np.load(path, allow_pickle=False)).double()
                picture = picture.mean(-1) if picture.dim() == 3 else picture
                picture = picture / 255 if (picture > 1).any() else picture
            else:
                from PIL import Image
                with Image.open(path) as file:
                    grey = file.convert("L")
                    picture = torch.frombuffer(bytearray(grey.tobytes()), dtype=torch.uint8)
                    picture = picture.view(grey.height, grey.width).double() / 255
        except ModuleNotFoundError:
            raise PlayError(f"{path}: reading pictures needs Pillow: pip install pillow") from None
        except (OSError, ValueError, SyntaxError) as fault:
            raise PlayError(f"{path}: not a picture that can be read ({str(fault).splitlines()[0]})") from None
        if picture.dim() != 2 or not picture.numel() or not picture.isfinite().all():
            raise PlayError(f"{path}: a picture is two axes of finite values, not {list(picture.shape)}")
        if picture.mean() > 0.5:                                # dark ink on paper, as most scans are
            picture = 1 - picture
        rows.append(torch.nn.functional.interpolate(picture[None, None], (side, side), mode="bilinear",
                                                    antialias=True)[0].float())
    return torch.stack(rows)


def run_command(args) -> int:
    """`dynnotes run KEY [IMAGE ...]`; returns the exit code, prints problems without a traceback."""
    try:
        return _run(args)
    except (PlayError, TrainingError, traces.TraceFileError, ValueError, OSError) as fault:
        print(f"dynnotes: {fault}", file=sys.stderr)
        return 2


def _run(args) -> int:
    key, how = args.key, getattr(args, "execute", None) or "sparse"
    model = load_model(key)
    task = type(model).recipe().task
    samples = data.load(task, "test", 400)
    names, wanted = samples.labels, None
    if getattr(args, "images", None):
        pictures = images(args.images, samples.inputs[0].shape[-1])
        zeros = torch.zeros(len(pictures))
        samples = data.Data(task, "test", (pictures,), zeros.long(), zeros, labels=names)
        titles = [Path(p).name for p in args.images]
    else:
        number = getattr(args, "input", None)
        if number is not None and number >= len(samples):
            raise PlayError(f"--input {number}: {task} has test inputs 0 to {len(samples) - 1} here")
        samples = spread(samples, 8) if number is None else samples[number:number + 1]
        wanted = samples.target
        titles = [f"hard {h:.2f}" for h in samples.hard.tolist()]
    if getattr(args, "trace", None):
        if wanted is None:
            raise PlayError("--trace records test inputs, whose answers are known: leave the images out")
        value = getattr(model, model.budget.name)
        traces.save(record(key, samples, model), args.trace)
        model.at(value)
    if getattr(args, "budget", None) is not None:
        model.at(args.budget)
    played = play(model, samples.inputs, how)
    if getattr(args, "json", False):
        print(json.dumps(_facts(key, model, how, played, titles, names, wanted), indent=1))
    else:
        print("\n".join(_lines(key, model, how, played, titles, names, wanted)))
    return 0


def _facts(key, model, how, played, titles, names, wanted) -> dict:
    trace = played.trace
    return {"paper": key, "execute": how, "budget": {model.budget.name: getattr(model, model.budget.name)},
            "inputs": [{"name": title, "predicted": names[played.answers[i]],
                        "label": None if wanted is None else names[wanted[i]],
                        "spent": trace.spent[i].item(), "full": trace.full[i].item(),
                        "decisions": {d.name: d.gate[i].double().tolist() for d in trace.decisions}}
                       for i, title in enumerate(titles)],
            "needed": trace.spent.sum().item(), "full": trace.full.sum().item(), "executed": played.executed}


def _lines(key, model, how, played, titles, names, wanted):
    trace, budget = played.trace, model.budget
    yield f"{dynnotes.load()[key].method} ({key}), {budget.name} = {getattr(model, budget.name):g}, {how}"
    width = max(map(len, titles))
    for i, title in enumerate(titles):
        answer = names[played.answers[i]]
        mark = "" if wanted is None else " ok   " if played.answers[i] == wanted[i] else f" not {names[wanted[i]]}"
        bars = "  ".join(_bar(d, i) for d in trace.decisions)
        yield f"  {title:<{width}}  says {answer}{mark}  {trace.spent[i] / trace.full[i]:>5.0%} of the MACs  {bars}"
    count = len(titles)
    full, needed = trace.full.sum().item(), trace.spent.sum().item()
    yield "receipt, multiply-accumulates per input"
    yield f"  everything on  {full / count:>14,.0f}"
    yield f"  needed         {needed / count:>14,.0f}  {needed / full:.0%}: what the decisions cost"
    agrees = "to the last one" if how == "sparse" and played.executed == needed else "dense computes all, then selects"
    yield f"  executed       {played.executed / count:>14,.0f}  counted on the operators that ran: {agrees}"
    yield "  issued                      -  no kernel of our own ran, so there is no second count"


def _bar(decision, i) -> str:
    """The decision of one input: a filled or empty block for each unit; for tokens, each expert's share of them."""
    gate = decision.gate[i].double()
    if decision.kind == "expert" and gate.dim() > 1:
        gate = gate.flatten(0, -2).mean(0)
    gate = gate.flatten()
    if len(gate) > 64:
        return f"{decision.name} {gate.mean():.0%}"
    if decision.kind in ("expert", "channel"):
        return decision.name + " " + "".join(BARS[round(g * 8)] for g in gate.tolist())
    return "".join("■" if g else "□" for g in gate.tolist())
