"""Run the recipes of papers: train every seed, measure, compare with static nets, keep the result and the weights."""
from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from .. import data as tasks
from .. import registry
from ..data import real
from ..execute import Dynamic
from ..registry import Recipe
from . import clock, evidence, shipped
from .frontier import FAMILIES, static_nets
from .measure import measure
from .train import TrainingError, build, facts_of, train, with_epochs


def recipes_of(key: str, task: str | None = None) -> tuple[Recipe, ...]:
    """The recipes of a paper, or the one for `task`. Raises TrainingError naming what there is."""
    source = registry.sources().get(key)
    if source is None:
        raise TrainingError(f"{key}: not implemented; implemented: {', '.join(registry.sources()) or 'none'}")
    found = source.load().recipes()
    if task is None:
        return found
    if not any(recipe.task == task for recipe in found):
        raise TrainingError(f"{key}: no recipe for {task!r}; it has {', '.join(recipe.task for recipe in found)}")
    return tuple(recipe for recipe in found if recipe.task == task)


def result_path(key: str, task: str) -> Path:
    """results/KEY.json for the task of the paper's first recipe, results/KEY.TASK.json for others."""
    return evidence.folder() / (f"{key}.json" if recipes_of(key)[0].task == task else f"{key}.{task}.json")


def run_recipe(key: str, recipe: Recipe, *, seeds: Iterable[int] = (0,), epochs: int | None = None,
               budgets: Sequence[float] | None = None, out: str | os.PathLike | None = None, resume: bool = False,
               device: str = "cpu", sizes: tuple[int | None, int | None] = (None, None), static: bool = True,
               timing: bool = True, progress: bool | None = None, command: str = "",
               dataset: real.Dataset | None = None) -> tuple[dict, list[dict], Dynamic]:
    """Train and measure a paper on one task: (result, the static nets' runs, the model of the first seed).

    dataset: real images instead of the task's (`data.real`); difficulty is then unknown, no static nets are compared.
    Writes no result.
    """
    cls, seeds, recipe = registry.sources()[key].load(), list(seeds), with_epochs(recipe, epochs)
    budget = cls.budget
    if budget is None and budgets:
        raise TrainingError(f"{key}: has no budget to set; leave --budgets out")
    values = tuple(budgets or budget.values) if budget else ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise TrainingError(f"{key}: seeds are one or more different numbers from 0 on, not {seeds}")
    if len(set(values)) != len(values):
        raise TrainingError(f"{key}: a {budget.name} is given twice; give each once")
    for value in values:
        if not budget.low <= value <= budget.high:
            raise TrainingError(f"{key}: {budget.name} is between {budget.low:g} and {budget.high:g}, not {value:g}")
    load = partial(tasks.load, recipe.task)
    if dataset is not None:
        dataset = dataset.for_recipe(recipe)
        recipe, load = replace(recipe, task=dataset.name), dataset.load
        print(dataset.about(), file=sys.stderr)
    train_data = load("train", sizes[0]).to(device)
    check = load("validation", None if sizes[0] is None else sizes[1]).to(device)
    test = load("test", sizes[1]).to(device)
    out = Path(out or Path("runs") / key)
    runs, first = [], None
    for seed in seeds:
        for value in values if budget and budget.retrain else (None,):
            model = build(recipe.net, seed, device)
            if value is not None:
                model.at(value)
            print(f"{key}, seed {seed}" + ("" if value is None else f", {budget.name} {value:g}"), file=sys.stderr)
            where = out / f"seed-{seed}" / ("" if value is None else f"{budget.name}-{value:g}")
            train(model, recipe, train_data, seed=seed, out=where, resume=resume, check=check, progress=progress)
            points = measure(model, test, None if budget is None else values if value is None else (value,))
            runs += [{"seed": seed} | point for point in points]
            if first is None or (seed == runs[0]["seed"] and value == values[len(values) // 2]):
                first = model
    total = sum(stage.epochs for stage in recipe.stages)
    nets, reference = [], None
    if static and recipe.task in FAMILIES:
        nets = static_nets(recipe.task, seeds, sizes, progress=progress, device=device)["runs"]
        reference = {"file": f"static-{recipe.task}.json", "epochs": nets[0]["epochs"]}
    with torch.no_grad():
        full = float(first(*test[:1].inputs)[1].full[0])
    result = {
        "format": evidence.FORMAT, "paper": key, "task": recipe.task,
        "recipe": {"net": cls.__name__, "samples": len(train_data), "test_samples": len(test), "epochs": total,
                   "stages": [facts_of(s) for s in recipe.stages]},
        "budget": budget and {"name": budget.name, "cheaper": budget.cheaper, "retrain": budget.retrain},
        "params": sum(p.numel() for p in first.parameters()), "full": full, "runs": runs,
        "receipts": [r.record() for r in timing_receipts(cls, evidence.trained_share(runs, full))] if timing else [],
        "static": reference,
        **evidence.circumstances(command or f"dynnotes train {key}"), "source_hash": evidence.hash_of(key, recipe.task)}
    return evidence.check(result), nets, first


def timing_receipts(cls, share: float | None = None, batches: Sequence[int] = (1, 32),
                    rounds: int = 9) -> list[evidence.Receipt]:
    """Receipts of a paper's `timing_net`, one per batch size."""
    model, inputs = timing_net(cls, share)
    return [evidence.receipt(model, inputs, batch, rounds=rounds) for batch in batches]


def timing_net(cls, share: float | None = None) -> tuple:
    """A paper's `timing()` net and its inputs.

    share: turn the budget until the net spends this share of its full MACs, or as near as it gets: its weights are
    random, but its decisions are as frequent as a trained net's. None leaves the budget as `timing()` sets it.
    """
    torch.manual_seed(0)
    model, inputs = cls.timing()
    if share is not None and cls.budget:
        dear, cheap = cls.budget.low, cls.budget.high                            # spending falls from one to the other
        if cls.budget.cheaper == "lower":
            dear, cheap = cheap, dear
        misses = {}
        with torch.no_grad():
            for value in (dear, cheap, *[None] * 8):                              # halving, eight times
                value = (dear + cheap) / 2 if value is None else value
                trace = model.eval().at(value)(*inputs)[1]
                over = float(trace.spent.sum() / trace.full.sum()) - share
                misses[value] = abs(over)
                if len(misses) > 2:
                    dear, cheap = (value, cheap) if over > 0 else (dear, value)
        model.at(min(misses, key=misses.get))
    return model, inputs


def merged(result: dict, before: dict | None) -> dict:
    """`result` with what it lacks, seeds or the clock, of an earlier one that was measured in the same way."""
    same = ("paper", "task", "recipe", "budget", "source_hash")
    if before is None or any(before[k] != result[k] for k in same) or \
            {r["budget"] for r in before["runs"]} != {r["budget"] for r in result["runs"]}:
        return result
    if "clock" in before:
        result = {"clock": before["clock"]} | result
    seeds = {r["seed"] for r in result["runs"]}
    runs = [r for r in before["runs"] if r["seed"] not in seeds] + result["runs"]
    return result | {"runs": sorted(runs, key=lambda r: (r["seed"], r["budget"] or 0.0))}


def report(result: Mapping, static: Sequence[Mapping]) -> str:
    """The table that `dynnotes train` prints: accuracy against executed MACs beside static nets, verdict, receipts."""
    def shown(x, scale=100, digits=1):
        half = "" if x.half is None else f" ± {scale * x.half:.{digits}f}"
        return f"{scale * x.mean:.{digits}f}{half}"
    seeds = len({run["seed"] for run in result["runs"]})
    full, budget = result["full"], result["budget"]["name"] if result["budget"] else "no budget"
    lines = [f"{result['paper']} on {result['task']}, {seeds} seed{'s' if seeds > 1 else ''}, {result['params']:,} "
             f"parameters, {result['recipe']['epochs']} epochs of {result['recipe']['samples']:,}",
             f"{budget:>12} {'MACs executed':>15} {'of full':>8} {'accuracy %':>14} {'static %':>9} "
             f"{'harder costs more':>18}"]
    same = "all cost the same" if evidence.difficulty_is_known(result["task"]) else "not known"
    for p in evidence.summary(result):
        line = evidence.static_accuracy_at(p.macs.mean, static) if static else None
        value = "-" if p.budget is None else f"{p.budget:g}"
        lines.append(f"{value:>12} {p.macs.mean:>15,.0f} {p.macs.mean / full:>8.0%} {shown(p.accuracy):>14} "
                     f"{'-' if line is None else f'{100 * line:.1f}':>9} "
                     f"{same if p.correlation is None else shown(p.correlation, 1, 2):>18}")
    if static:
        lines.append(f"static nets, {static[0]['epochs']} epochs:")
        lines += [f"{'':>12} {macs:>15,.0f} {'':>8} {shown(accuracy):>14}  {net}"
                  for net, macs, accuracy in evidence.static_points(static)]
    lines.append(evidence.verdict(result, static)["text"])
    lines += [str(evidence.Receipt.of(r)) for r in result["receipts"]]
    return "\n".join(lines)


def train_command(args) -> int:
    """`dynnotes train KEY`; every option is optional. Returns the exit code, prints problems without a traceback."""
    def option(name, default=None):
        value = getattr(args, name, None)
        return default if value is None else value

    keys = option("keys") or [args.key]
    seeds = option("seeds", 1)
    seeds = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    quick, device = bool(option("quick", False)), option("device", "cpu")
    results = []
    try:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        device = str(torch.device(device))
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise TrainingError(f"--device {device}: PyTorch sees no such device here; leave the option out")
        dataset = None if option("data") is None else real.read(option("data"))
        for key, recipe in _chosen(keys, option("task"), dataset):
            out = Path(option("out", "runs")) / (result_path(key, recipe.task).stem if dataset is None else
                                                 f"{key}.{dataset.slug}")
            result, static, model = run_recipe(
                key, recipe, seeds=seeds, epochs=option("epochs", 1 if quick else None), budgets=option("budgets"),
                out=out, resume=bool(option("resume", False)), device=device,
                sizes=(512, 256) if quick else (None, None), static=not quick,
                command=_command(key, recipe.task, args, seeds), dataset=dataset)
            altered = dataset is not None or quick or option("epochs") is not None or option("budgets") is not None
            results.append(keep(result, model, out, altered))
            if not option("json", False):
                print(report(results[-1], static))
    except (TrainingError, evidence.ResultError, ValueError, OSError) as fault:
        print(f"dynnotes: {fault}", file=sys.stderr)
        return 2
    except RuntimeError as fault:                                          # a device that is not there, out of memory
        print(f"dynnotes: {str(fault).splitlines()[0]}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndynnotes: stopped; the last whole epoch is saved, the same command with --resume goes on from it",
              file=sys.stderr)
        return 130
    if option("json", False):
        print(json.dumps(results if len(results) > 1 else results[0], indent=1))
    return 0


def _chosen(keys, task, dataset) -> list[tuple[str, Recipe]]:
    """All recipes to run; with real data the first one of each paper, refused before anything is trained."""
    if dataset is None:
        return [(key, recipe) for key in keys for recipe in recipes_of(key, task)]
    found = [(key, recipes_of(key, task)[0]) for key in keys]
    for key, recipe in found:
        try:
            dataset.for_recipe(recipe)
        except real.DataError as fault:
            raise TrainingError(f"{key}: {fault}") from None
    return found


def _command(key, task, args, seeds) -> str:
    words = ["dynnotes train", key, f"--seeds {len(seeds)}"]
    words += [f"--task {task}"] if len(recipes_of(key)) > 1 else []
    words += [f"--data {shlex.quote(args.data)}"] if getattr(args, "data", None) else []
    words += [f"--epochs {args.epochs}"] if getattr(args, "epochs", None) else []
    words += ["--budgets " + ",".join(f"{b:g}" for b in args.budgets)] if getattr(args, "budgets", None) else []
    words += ["--quick"] if getattr(args, "quick", False) else []
    return " ".join(words)


def keep(result: dict, model: Dynamic, out: Path, altered: bool) -> dict:
    """Write the result and seed 0's weights, and time these, to their places; below `out` if the recipe was altered."""
    if altered:
        evidence.write_json(result, out / "result.json")
        print(f"not the recipe as it stands, so written to {out / 'result.json'} only", file=sys.stderr)
        return result
    path = result_path(result["paper"], result["task"])
    if result["runs"][0]["seed"] == 0:                                        # `model` is of the first seed
        if path.stem == result["paper"]:
            save_checkpoint(result, model)
        if result["static"]:
            taken = clock.time_trained(model, result, clock.static_clock(result["task"]), command=result["command"])
            result = evidence.check(result | {"clock": taken})
    try:
        before = evidence.load_result(path)
    except FileNotFoundError:
        before = None
    except evidence.ResultError as fault:                                 # perhaps of a newer dynnotes: lose nothing
        before, aside = None, path.with_name(f"{path.name}.bak")
        path.replace(aside)
        print(f"dynnotes: {fault}; it is kept as {aside}", file=sys.stderr)
    result = merged(result, before)
    evidence.write_json(result, path)
    return result


def save_checkpoint(result: Mapping, model: Dynamic) -> Path:
    """Ship the weights of seed 0 (never the best seed), with what was measured on them."""
    measured_ = [{k: run[k] for k in ("budget", "accuracy", "macs_executed")}
                 for run in result["runs"] if run["seed"] == 0]
    about = {k: result[k] for k in ("paper", "task", "recipe", "budget", "versions", "commit", "date", "source_hash")}
    path = shipped.CHECKPOINTS / f"{result['paper']}.safetensors"
    return shipped.save_model(model, path, about | {"seed": 0, "measured": measured_})
