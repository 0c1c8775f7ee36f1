"""Milliseconds of trained nets and of the static nets beside them, on one axis that does not drift with the machine.

A machine is faster on one day than on another, so no two milliseconds of different processes compare. Each net is
therefore timed as a ratio to one static net of its task, the reference, in the same process and the same rounds:

$$ \\text{ms} = \\text{median over rounds of } \\frac{t_\\text{net}}{t_\\text{reference}} \\cdot \\text{ms}_0 $$

with $\\text{ms}_0$ the reference's own milliseconds per input, the quietest of its times beside the static nets, which
`static-TASK.json` keeps. The axis is in milliseconds; all of a task share the factor, so it compares what the ratios
compare. The reference is the task's dearest static net, with random weights: its time does not depend on them. Its time
over its own, measured alike, is the noise; a row where that leaves 0.95 to 1.05 is void.

What is timed: the shipped weights of seed 0, at each budget, dense and sparse, on test inputs evenly spread over
difficulty, one by one and in batches of 32; one thread, its CPU time. These times are shown and never judged: the nets
are small, so that overhead outweighs arithmetic. The rule about time looks at the larger nets of the receipts.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .. import data as tasks
from ..data import Data
from ..execute import Dynamic
from . import evidence
from .frontier import FAMILIES, Static
from .train import build

INPUTS, ROUNDS = 64, 15


def timed_inputs(data: Data, count: int = INPUTS) -> tuple[Tensor, ...]:
    """Inputs at evenly spaced ranks of difficulty, shuffled, so that they cost what all of them cost on average."""
    ranks = ((torch.arange(count) + 0.5) * len(data) / count).long()
    rows = data.hard.argsort(stable=True)[ranks]
    rows = rows[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    return tuple(x[rows] for x in data.inputs)


def time_static(task: str, *, rounds: int = ROUNDS, held: Sequence[Mapping] = (), write: bool = True,
                command: str = "") -> dict:
    """The clock of the static nets that `static-TASK.json` holds, written into it. held: rows that are kept.

    Raises FileNotFoundError without that file, ResultError if it is broken.
    """
    path = evidence.folder() / f"static-{task}.json"
    content, data = evidence.read_json(path, evidence.STATIC_FORMAT), tasks.load(task, "test")
    reference, inputs, rows = reference_of(task, content), timed_inputs(data), []
    base = _static(task, reference["net"], data)
    for name in dict.fromkeys(run["net"] for run in content["runs"] if run["net"] in FAMILIES[task].nets):
        net = _static(task, name, data)
        for batch in evidence.BATCHES:
            row = _kept(held, "net", name, batch)
            if row is None:
                found = _race(base, inputs, batch, {"ratio": (net, "sparse")}, rounds)
                row = {"net": name, "batch": batch, **_record(found, len(inputs[0]))}
            rows.append(row)
    clock = evidence.check_clock(_clock(reference, rounds, rows, command or f"static nets of {task}"), "net",
                                 FAMILIES[task].nets)
    if write:
        evidence.write_json(content | {"clock": clock}, path)
    return clock


def time_trained(model: Dynamic, result: Mapping, static: Mapping, *, rounds: int = ROUNDS,
                 held: Sequence[Mapping] = (), command: str = "") -> dict:
    """The clock of a result's trained net, on the CPU, beside the reference of the static nets' clock `static`.

    Weights that were trained for one budget are timed at that alone, the middle one. The model is left as it was.
    """
    data, task = tasks.load(result["task"], "test"), result["task"]
    inputs, base, rows = timed_inputs(data), _static(task, static["reference"]["net"], data), []
    values, knob = [p.budget for p in evidence.summary(result)], model.budget and model.budget.name
    if model.budget and model.budget.retrain:
        values = [sorted(values)[len(values) // 2]]
    before = knob and getattr(model, knob)
    sparse, training, device = model.sparse, model.training, next(model.parameters()).device
    model.eval().to("cpu")
    try:
        for value in values:
            if value is not None:
                model.at(value)
            for batch in evidence.BATCHES:
                row = _kept(held, "budget", value, batch)
                if row is None:
                    with torch.no_grad():
                        spent = model.execute("sparse")(*inputs)[1].spent
                    found = _race(base, inputs, batch, {"sparse": (model, "sparse"), "dense": (model, "dense")}, rounds)
                    row = {"budget": value, "batch": batch, "macs": float(spent.mean()),
                           **_record(found, len(inputs[0]))}
                rows.append(row)
    finally:
        if knob:
            setattr(model, knob, before)
        model.execute("sparse" if sparse else "dense").train(training).to(device)
    return _clock(static["reference"], rounds, rows, command or f"dynnotes train {result['paper']}")


def reference_of(task: str, content: Mapping) -> dict:
    """The static net that times of a task are ratios to: the dearest of a file that the code still has."""
    nets = [run for run in content["runs"] if run["net"] in FAMILIES[task].nets]
    return {"net": max(nets, key=lambda run: (run["macs"], run["net"]))["net"], "source_hash": content["source_hash"]}


def is_complete(clock: Mapping | None, of: str, wanted, reference: Mapping) -> bool:
    """Whether a clock has a row for each of `wanted` at each batch size, beside this reference."""
    return clock is not None and clock["reference"] == reference and \
        {(row[of], row["batch"]) for row in clock["rows"]} >= {(w, b) for w in wanted for b in evidence.BATCHES}


def static_clock(task: str, *, rounds: int = ROUNDS, write: bool = True) -> dict:
    """The clock in `static-TASK.json`, measured first where it is not there or of other nets."""
    content = evidence.read_json(evidence.folder() / f"static-{task}.json", evidence.STATIC_FORMAT)
    wanted = {run["net"] for run in content["runs"]} & set(FAMILIES[task].nets)
    clock = content.get("clock")
    if is_complete(clock, "net", wanted, reference_of(task, content)):
        return clock
    return time_static(task, rounds=rounds, write=write)


def _static(task: str, name: str, data: Data) -> Static:
    family = FAMILIES[task]
    return build(lambda: family.wrap(family.nets[name](data)), 0).eval()


def _kept(held, of, value, batch):
    return next((dict(row) for row in held if (row[of], row["batch"]) == (value, batch)), None)


def _race(base, inputs, batch, others, rounds) -> evidence.Race:
    """All inputs in batches of `batch`, by `base` and by the others, each a model and the form in which it runs."""
    groups = [tuple(x[i:i + batch] for x in inputs) for i in range(0, len(inputs[0]), batch)]

    def player(model, how):
        def play():
            model.execute(how)
            for group in groups:
                model(*group)
        return play

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return evidence.race(player(base, "sparse"), {name: player(*who) for name, who in others.items()},
                                 rounds=rounds)
    finally:
        torch.set_num_threads(threads)


def _record(found: evidence.Race, count: int) -> dict:
    return {"reference_ms": 1e3 * found.seconds["base"] / count, **{name: list(r) for name, r in found.ratios.items()},
            "noise": found.noise, "void": found.void}


def _clock(reference, rounds, rows, command) -> dict:
    return {"reference": dict(reference), "inputs": INPUTS, "rounds": rounds, "rows": rows,
            **evidence.circumstances(command)}
