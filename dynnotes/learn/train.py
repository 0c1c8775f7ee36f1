"""Train a paper's recipe, save it so that nothing is lost, and measure it beside static nets of equal cost.

On the CPU the same seed gives the same weights: every epoch draws its own random numbers from (seed, epoch), so that a
resumed run ends where an uninterrupted one does.
"""
from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import data as tasks
from .. import registry
from ..data import Data
from ..execute import Dynamic, Trace, measured, run
from ..nets.backbones import ResNet
from ..registry import Recipe, Stage
from . import evidence

CHECKPOINTS = registry.PACKAGE / "checkpoints"
SHIPPED, TRAINING = "dynnotes.checkpoint/1", "dynnotes.training/1"
LIMIT = 1_000_000                                                    # bytes of a checkpoint that ships with the package


class TrainingError(RuntimeError):
    """Training or measuring stopped; the message says where, why and what to do."""


class NonFinite(TrainingError):
    """The loss or a weight is NaN or infinite."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged, or belongs to something else."""


class BillError(TrainingError):
    """The MACs that ran are not those that the trace claims."""


# Training ------------------------------------------------------------------------------------------------------------

def build(net: Callable, seed: int, device="cpu") -> Dynamic:
    """A fresh net: the same seed gives the same initial weights."""
    torch.manual_seed(seed)
    return net().to(device)


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    """The recipe with `epochs` in all, shared over its stages as before, at least one each; None changes nothing."""
    if epochs is None:
        return recipe
    total = sum(stage.epochs for stage in recipe.stages)
    return replace(recipe, stages=tuple(replace(stage, epochs=max(1, round(stage.epochs * epochs / total)))
                                        for stage in recipe.stages))


def train(model: Dynamic, recipe: Recipe, data: Data, *, seed: int = 0, epochs: int | None = None,
          out: str | os.PathLike | None = None, resume: bool = False, check: Data | None = None,
          progress: bool | None = False) -> list[dict]:
    """Train `model` in place by the stages of `recipe`; returns one {epoch, loss, accuracy, macs} per epoch.

    out: folder for `checkpoint.pt`, written whole after every epoch. resume: go on from it, if it is there.
    check: data for the accuracy and MACs shown while training (dense, at the model's present budget).
    progress: True, False, or None for a bar only on a terminal.
    Raises NonFinite, CheckpointError; KeyboardInterrupt passes through, the last epoch's checkpoint stays.
    """
    recipe = with_epochs(recipe, epochs)
    facts = {"seed": seed, "samples": len(data), "task": data.task, "stages": [_facts(s) for s in recipe.stages],
             "shapes": {n: list(t.shape) for n, t in model.state_dict().items()},
             "budget": getattr(model, model.budget.name) if model.budget else None}
    path = None if out is None else Path(out) / "checkpoint.pt"
    history, optimizer_state = _restore(path, model, facts) if path is not None and resume else ([], None)
    steps = [math.ceil(len(data) / stage.batch) for stage in recipe.stages]
    bar = _Bar(sum(s.epochs * n for s, n in zip(recipe.stages, steps)), progress, f"seed {seed}")
    epoch = 0
    for stage, per_epoch in zip(recipe.stages, steps):
        optimizer = _optimizer(model, stage)
        with _settings(model, stage.settings):
            for e in range(stage.epochs):
                epoch += 1
                if epoch <= len(history):
                    bar.skip(per_epoch)
                    continue
                if optimizer_state is not None:                            # of the same stage, unless it has just ended
                    if e:
                        optimizer.load_state_dict(optimizer_state)
                    optimizer_state = None
                torch.manual_seed(seed * 1_000_003 + epoch)
                loss = _epoch(model, stage, data, optimizer, e, per_epoch, epoch, bar)
                shown = {} if check is None else glance(model, check)
                history.append({"epoch": epoch, "loss": loss, **shown})
                bar.note(loss=f"{loss:.3f}", **{name: f"{value:,.3f}" if value < 1 else f"{value:,.0f}"
                                                for name, value in shown.items()})
                if path is not None:
                    _save(path, {"format": TRAINING, "facts": facts, "history": history, "model": model.state_dict(),
                                 "optimizer": optimizer.state_dict()})
    bar.close()
    model.eval()
    return history


def _epoch(model, stage, data, optimizer, e, steps, epoch, bar) -> float:
    """One pass over the data in a fresh order; returns the mean loss."""
    model.train()
    device = data.target.device
    order = torch.randperm(len(data)).to(device)
    total = 0.0
    for i, (inputs, target) in enumerate(data.batches(stage.batch, order)):
        for group in optimizer.param_groups:                                   # cosine, from lr down to almost nothing
            group["lr"] = stage.lr * 0.5 * (1 + math.cos(math.pi * (e * steps + i) / (stage.epochs * steps)))
        random = torch.get_rng_state()
        loss = model.loss(inputs, target)
        if not torch.isfinite(loss):
            torch.set_rng_state(random)
            raise NonFinite(f"epoch {epoch}, step {i + 1}: the loss is {loss.item()}; first non-finite tensor: "
                            f"{_culprit(model, inputs, target)}. Lower the learning rate ({stage.lr:g})")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(target)
        bar.step()
    if bad := _not_finite(model.named_parameters()) or _not_finite(model.named_buffers()):
        raise NonFinite(f"epoch {epoch}, step {steps}: {bad} after the update. Lower the learning rate ({stage.lr:g})")
    return total / len(data)


def _optimizer(model: nn.Module, stage: Stage):
    """Weight decay for matrices and kernels only: biases, norms and other vectors are left free."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": stage.weight_decay},
              {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=stage.lr, momentum=0.9)
    if stage.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=stage.lr)
    raise ValueError(f'optimizer is "sgd" or "adam", not {stage.optimizer!r}')


@contextmanager
def _settings(model, settings: Mapping[str, float]):
    """Set attributes of the model for one stage."""
    if missing := [name for name in settings if not hasattr(model, name)]:
        raise AttributeError(f"{type(model).__name__} has no {missing[0]!r} for this stage to set")
    before = {name: getattr(model, name) for name in settings}
    for name, value in settings.items():
        setattr(model, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)


def _facts(stage: Stage) -> dict:
    return asdict(replace(stage, settings=dict(stage.settings)))


def _not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first tensor with a NaN or an infinity, and which of them."""
    for name, t in named:
        if t.is_floating_point() and not t.is_meta and not torch.isfinite(t).all():
            return f"{name} ({'NaN' if torch.isnan(t).any() else 'infinite'})"
    return None


def _culprit(model, inputs, target) -> str:
    """Where a non-finite loss comes from: an input, a weight, or the first module whose output is not finite."""
    named = [(f"input {i}", x) for i, x in enumerate(inputs)]
    if bad := _not_finite(named) or _not_finite(model.named_parameters()) or _not_finite(model.named_buffers()):
        return bad
    found: list[str] = []

    def look(name):
        def hook(_, __, y):
            leaves = torch.utils._pytree.tree_leaves(y)
            if not found and (bad := _not_finite((name, t) for t in leaves if isinstance(t, Tensor))):
                found.append(f"output of {bad}")
        return hook

    hooks = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        with torch.no_grad():
            model.loss(inputs, target)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else "the loss itself"


class _Bar:
    """A tqdm bar over steps with an ETA, or nothing."""
    def __init__(self, steps: int, wanted: bool | None, title: str):
        self.bar = None
        if wanted is None or wanted:
            from tqdm import tqdm

            self.bar = tqdm(total=steps, desc=title, unit="step", disable=None if wanted is None else False)

    def step(self):
        if self.bar is not None:
            self.bar.update()

    def skip(self, steps):
        if self.bar is not None:
            self.bar.update(steps)

    def note(self, **shown):
        if self.bar is not None:
            self.bar.set_postfix(shown)

    def close(self):
        if self.bar is not None:
            self.bar.close()


# Checkpoints of a training -------------------------------------------------------------------------------------------

def _save(path: Path, content: dict):
    """Write a checkpoint whole or not at all: a full disk or a killed process leaves the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as fault:                              # torch reports a full disk as RuntimeError
        raise CheckpointError(f"{path}: cannot be written ({fault}); free some space or choose another --out, then "
                              "--resume: the epoch before is kept") from fault
    finally:
        part.unlink(missing_ok=True)


def _restore(path: Path, model, facts) -> tuple[list[dict], dict | None]:
    """(history, optimizer's state) of the last saved epoch, its weights put into `model`; ([], None) without one."""
    if not path.exists():
        return [], None
    try:
        content = torch.load(path, weights_only=True)
        if content["format"] != TRAINING:
            raise KeyError("format")
        found, history, state, optimizer = (content[k] for k in ("facts", "history", "model", "optimizer"))
    except Exception as fault:  # noqa: BLE001  a damaged pickle raises anything
        raise CheckpointError(f"{path}: is damaged or no checkpoint ({type(fault).__name__}); delete it, or train "
                              "without --resume, which starts again") from None
    if different := [name for name in facts if found.get(name) != facts[name]]:
        raise CheckpointError(f"{path}: is of another training (another {', '.join(different)}); choose another --out, "
                              "or train without --resume, which overwrites it")
    model.load_state_dict(state)
    return history, optimizer


# Measuring -----------------------------------------------------------------------------------------------------------

def glance(model: Dynamic, data: Data) -> dict:
    """Accuracy and mean MACs of a dense run, in eval mode; the model's mode is put back."""
    training, right, spent = model.training, 0, 0.0
    model.eval()
    with torch.no_grad():
        for inputs, target in data.batches(250):
            y, trace = model(*inputs)
            right, spent = right + int((y.argmax(1) == target).sum()), spent + float(trace.spent.sum())
    model.train(training)
    return {"accuracy": right / len(data), "macs": spent / len(data)}


def measure(model: Dynamic, data: Data, budgets: Sequence[float] | None = None, batch: int = 250) -> list[dict]:
    """Accuracy, claimed and executed MACs of a sparse run at each budget (default: the model's own five).

    Raises BillError unless what ran is what the trace claims, to the last MAC.
    """
    values = budgets if budgets is not None else model.budget.values
    before = getattr(model, model.budget.name)
    model.eval().execute("sparse")
    try:
        return [_measured(model.at(value), data, batch) | {"budget": value} for value in values]
    finally:
        setattr(model, model.budget.name, before)
        model.execute("dense")


def _measured(model, data, batch) -> dict:
    right, executed, spent, on = 0, 0, [], {}
    with torch.no_grad():
        for inputs, target in data.batches(batch):
            with measured() as bill:
                y, trace = model(*inputs)
            claimed = float(trace.spent.sum())
            if bill.macs != claimed:
                raise BillError(f"{type(model).__name__}: the trace claims {claimed:,.0f} MACs for {len(target)} "
                                f"samples, {bill.macs:,} were executed")
            right, executed = right + int((y.argmax(1) == target).sum()), executed + bill.macs
            spent += trace.spent.tolist()
            for d in trace.decisions:
                on[d.name] = on.get(d.name, 0.0) + float(d.gate.double().mean()) * len(target)
    return {"accuracy": right / len(data), "macs_claimed": math.fsum(spent) / len(data),
            "macs_executed": executed / len(data), "hard_correlation": evidence.spearman(spent, data.hard.tolist()),
            "rates": {name: min(1.0, total / len(data)) for name, total in on.items()}}


# Static nets of equal cost -------------------------------------------------------------------------------------------

class Static(Dynamic):
    """A static net under the dynamic ones' contract: it decides nothing."""
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        return run(self.net, x)

    def loss(self, inputs, target: Tensor) -> Tensor:
        return self.task(self.net(*inputs), target)


# Residual networks by first width and by depth, which is cheapest where maps are small: {name: (widths, depths)}.
FAMILY = {f"ResNet {width}: {'-'.join(map(str, depths))}": ((width, 2 * width, 4 * width), depths)
          for width, depths in ((4, (1, 1, 1)), (8, (1, 1, 1)), (8, (1, 2, 2)), (8, (1, 3, 3)), (16, (1, 1, 1)))}
STATIC_STAGE = Stage(epochs=1, lr=0.1, weight_decay=5e-4)


def static_family(task: str, epochs: int, seeds: Iterable[int], sizes: tuple[int | None, int | None] = (None, None), *,
                  file: Path | None = None, progress: bool | None = None, device="cpu",
                  family: Mapping[str, tuple] = FAMILY) -> dict:
    """The content of `static-TASK.json`; nets, epochs and seeds that it lacks are trained first, saved one by one."""
    path = file or evidence.folder() / f"static-{task}.json"
    train_data = tasks.load(task, "train", sizes[0])
    test = tasks.load(task, "test", sizes[1])
    now = {"format": evidence.STATIC_FORMAT, "task": task, "samples": len(train_data), "test_samples": len(test),
           "recipe": {k: v for k, v in _facts(STATIC_STAGE).items() if k != "epochs"},
           "source_hash": evidence.source_hash("dynnotes.nets.backbones", tasks.module_of(task))}
    try:
        held = evidence.read_json(path, evidence.STATIC_FORMAT)
        runs = held["runs"] if all(held.get(k) == v for k, v in now.items()) else []
    except FileNotFoundError:
        runs = []
    except evidence.ResultError as fault:                          # `dynnotes train` alone would meet it again
        raise TrainingError(f"{fault}; first move {path.name} away: its nets are then trained again") from None
    content = now | _circumstances(f"static nets of {task}") | {"runs": runs}
    missing = [(name, seed) for name in family for seed in seeds
               if not any((r["net"], r["seed"], r["epochs"]) == (name, seed, epochs) for r in runs)]
    if missing:
        train_data, test = _on(train_data, device), _on(test, device)
    for name, seed in missing:
        widths, depths = family[name]
        model = build(lambda w=widths, d=depths: Static(ResNet(
            channels=train_data.inputs[0].shape[1], classes=len(train_data.labels), widths=w, depths=d)), seed, device)
        stage = replace(STATIC_STAGE, epochs=epochs)
        print(f"static: {name}, seed {seed}", file=sys.stderr)
        train(model, Recipe(task, Static, (stage,)), train_data, seed=seed, progress=progress)
        found = _measured(model.eval(), test, 250)
        runs.append({"net": name, "widths": list(widths), "depths": list(depths), "epochs": epochs, "seed": seed,
                     "params": sum(p.numel() for p in model.parameters()), "macs": found["macs_executed"],
                     "accuracy": found["accuracy"]})
        runs.sort(key=lambda r: (r["epochs"], r["macs"], r["seed"]))
        evidence.write_json(content, path)
    return content


# The trained model that ships ----------------------------------------------------------------------------------------

def save_model(model: Dynamic, path: str | os.PathLike, about: Mapping) -> Path:
    """Write weights and `about` (plain JSON) as safetensors, whole or not at all. Raises CheckpointError above 1 MB."""
    from safetensors.torch import save

    raw = save({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()},
               {"format": SHIPPED, "about": json.dumps(about, ensure_ascii=False, allow_nan=False)})
    path = Path(path)
    if len(raw) > LIMIT:
        raise CheckpointError(f"{path.name}: {len(raw):,} bytes, a shipped checkpoint holds at most {LIMIT:,}; "
                              "make the recipe's net smaller")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(raw)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """(weights, what is said about them) of a shipped checkpoint. Raises CheckpointError naming the file."""
    from safetensors import SafetensorError, safe_open

    remedy = "write it again with `dynnotes train`, or get the file again"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError, ValueError) as fault:
        raise CheckpointError(f"{path}: is damaged or no checkpoint ({fault}); {remedy}") from None
    if about.get("format") != SHIPPED:
        raise CheckpointError(f"{path}: the format is {about.get('format', 'missing')}, not {SHIPPED}; {remedy}")
    try:
        return state, json.loads(about["about"])
    except (KeyError, ValueError):
        raise CheckpointError(f"{path}: says nothing readable about its weights; {remedy}") from None


def load_model(key: str, path: str | os.PathLike | None = None) -> Dynamic:
    """The trained model of a paper (by BibTeX key) in eval mode, with what is known about it in `model.about`.

    Raises CheckpointError: not implemented, no checkpoint, damaged, or made for another net.
    """
    source = registry.sources().get(key)
    if source is None:
        raise CheckpointError(f"{key}: not implemented; implemented: {', '.join(registry.sources()) or 'none'}")
    path = Path(path or CHECKPOINTS / f"{key}.safetensors")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint; make one with `dynnotes train {key}`")
    state, about = read_checkpoint(path)
    model = source.load().recipe().net()
    wanted = model.state_dict()
    different = [name for name in {**wanted, **state}
                 if name not in state or name not in wanted or state[name].shape != wanted[name].shape]
    if about.get("paper") != key or different:
        what = f"is of {about.get('paper')}" if about.get("paper") != key else f"has other weights ({different[0]})"
        raise CheckpointError(f"{path}: {what} than the recipe of {key} builds; train it again: `dynnotes train {key}`")
    if bad := _not_finite(state.items()):
        raise CheckpointError(f"{path}: {bad}; train it again: `dynnotes train {key}`")
    model.load_state_dict(state)
    model.about = about
    return model.eval()


# The command ---------------------------------------------------------------------------------------------------------

def measure_paper(key: str, *, seeds: Iterable[int] = (0,), epochs: int | None = None,
                  budgets: Sequence[float] | None = None, out: str | os.PathLike | None = None, resume: bool = False,
                  device: str = "cpu", sizes: tuple[int | None, int | None] = (None, None), static: bool = True,
                  progress: bool | None = None, command: str = "") -> tuple[dict, list[dict], Dynamic]:
    """Train and measure a paper: (result, the static nets' runs, the model of the first seed). Writes no result."""
    source, seeds = registry.sources().get(key), list(seeds)
    if source is None:
        raise TrainingError(f"{key}: not implemented; implemented: {', '.join(registry.sources()) or 'none'}")
    cls = source.load()
    recipe = with_epochs(cls.recipe(), epochs)
    budget, values = cls.budget, tuple(budgets or cls.budget.values)
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise TrainingError(f"{key}: seeds are one or more different numbers from 0 on, not {seeds}")
    if len(set(values)) != len(values):
        raise TrainingError(f"{key}: a {budget.name} is given twice; give each once")
    for value in values:
        if not budget.low <= value <= budget.high:
            raise TrainingError(f"{key}: {budget.name} is between {budget.low:g} and {budget.high:g}, not {value:g}")
    train_data = _on(tasks.load(recipe.task, "train", sizes[0]), device)
    check = _on(tasks.load(recipe.task, "validation", None if sizes[0] is None else sizes[1]), device)
    test = _on(tasks.load(recipe.task, "test", sizes[1]), device)
    out = Path(out or Path("runs") / key)
    runs, first = [], None
    for seed in seeds:
        for value in values if budget.retrain else (None,):
            model = build(recipe.net, seed, device)
            if value is not None:
                model.at(value)
            print(f"{key}, seed {seed}" + ("" if value is None else f", {budget.name} {value:g}"), file=sys.stderr)
            where = out / f"seed-{seed}" / ("" if value is None else f"{budget.name}-{value:g}")
            train(model, recipe, train_data, seed=seed, out=where, resume=resume, check=check, progress=progress)
            runs += [{"seed": seed} | found for found in measure(model, test, values if value is None else (value,))]
            if first is None or (seed == runs[0]["seed"] and value == values[len(values) // 2]):
                first = model
    total = sum(stage.epochs for stage in recipe.stages)
    nets, reference = [], None
    if static:
        family = static_family(recipe.task, total, list(seeds), sizes, progress=progress, device=device)
        nets = [r for r in family["runs"] if r["epochs"] == total]
        reference = {"file": f"static-{recipe.task}.json", "epochs": total}
    with torch.no_grad():
        full = float(first(*test[:1].inputs)[1].full[0])
    result = {
        "format": evidence.FORMAT, "paper": key, "task": recipe.task,
        "recipe": {"net": cls.__name__, "samples": len(train_data), "test_samples": len(test), "epochs": total,
                   "stages": [_facts(s) for s in recipe.stages]},
        "budget": {"name": budget.name, "cheaper": budget.cheaper, "retrain": budget.retrain},
        "params": sum(p.numel() for p in first.parameters()), "full": full, "runs": runs,
        "receipts": [r.record() for r in timing_receipts(cls, trained_share(runs, full))], "static": reference,
        **_circumstances(command or f"dynnotes train {key}"), "source_hash": evidence.hash_of(key, recipe.task)}
    return evidence.check(result), nets, first


def timing_receipts(cls, share: float | None = None, batches: Sequence[int] = (1, 32),
                    rounds: int = 9) -> list[evidence.Receipt]:
    """Receipts of a paper's `timing()` net, one per batch size.

    share: turn the budget until the net spends this share of its full MACs, or as near as it gets: its weights are
    random, but its decisions are as frequent as a trained net's. None leaves the budget as `timing()` sets it.
    """
    torch.manual_seed(0)
    model, inputs = cls.timing()
    if share is not None:
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
    return [evidence.receipt(model, inputs, batch, rounds=rounds) for batch in batches]


def trained_share(runs: Sequence[Mapping], full: float) -> float | None:
    """Executed over full MACs at the middle one of the budgets where inputs differ in cost; None where none is."""
    costs = sorted(run["macs_executed"] for run in runs if run["hard_correlation"] is not None)
    return costs[len(costs) // 2] / full if costs else None


def _on(data: Data, device) -> Data:
    def move(t):
        return t if t is None else t.to(device)
    return replace(data, inputs=tuple(map(move, data.inputs)), target=move(data.target), hard=move(data.hard))


def _circumstances(command: str) -> dict:
    """When, by which command, and with which versions something was measured."""
    import dynnotes

    try:
        found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=registry.PACKAGE, capture_output=True,
                               text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = None                                                          # not a checkout, or no git
    return {"versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                         "dynnotes": dynnotes.__version__},
            "date": datetime.now(UTC).date().isoformat(), "commit": found, "command": command}


def merged(result: dict, before: dict | None) -> dict:
    """`result` with the seeds of an earlier one that was measured in the same way and that it lacks."""
    same = ("paper", "task", "recipe", "budget", "source_hash")
    if before is None or any(before[k] != result[k] for k in same) or \
            {r["budget"] for r in before["runs"]} != {r["budget"] for r in result["runs"]}:
        return result
    seeds = {r["seed"] for r in result["runs"]}
    runs = [r for r in before["runs"] if r["seed"] not in seeds] + result["runs"]
    return result | {"runs": sorted(runs, key=lambda r: (r["seed"], r["budget"]))}


def report(result: Mapping, static: Sequence[Mapping]) -> str:
    """The table that `dynnotes train` prints: accuracy against executed MACs beside static nets, verdict, receipts."""
    def shown(x, scale=100, digits=1):
        half = "" if x.half is None else f" ± {scale * x.half:.{digits}f}"
        return f"{scale * x.mean:.{digits}f}{half}"
    seeds = len({run["seed"] for run in result["runs"]})
    full, budget = result["full"], result["budget"]["name"]
    lines = [f"{result['paper']} on {result['task']}, {seeds} seed{'s' if seeds > 1 else ''}, {result['params']:,} "
             f"parameters, {result['recipe']['epochs']} epochs of {result['recipe']['samples']:,}",
             f"{budget:>12} {'MACs executed':>15} {'of full':>8} {'accuracy %':>14} {'static %':>9} "
             f"{'harder costs more':>18}"]
    for p in evidence.summary(result):
        line = evidence.static_accuracy_at(p.macs.mean, static) if static else None
        lines.append(f"{p.budget:>12g} {p.macs.mean:>15,.0f} {p.macs.mean / full:>8.0%} {shown(p.accuracy):>14} "
                     f"{'-' if line is None else f'{100 * line:.1f}':>9} "
                     f"{'all cost the same' if p.correlation is None else shown(p.correlation, 1, 2):>18}")
    if static:
        lines.append("static nets, trained alike:")
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
        for key in keys:
            out = Path(option("out", "runs")) / key
            result, static, model = measure_paper(
                key, seeds=seeds, epochs=option("epochs", 1 if quick else None), budgets=option("budgets"), out=out,
                resume=bool(option("resume", False)), device=device, sizes=(512, 256) if quick else (None, None),
                static=not quick, command=_command(key, args, seeds))
            altered = quick or option("epochs") is not None or option("budgets") is not None
            results.append(_keep(result, model, out, altered))
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


def _command(key, args, seeds) -> str:
    words = ["dynnotes train", key, f"--seeds {len(seeds)}"]
    words += [f"--epochs {args.epochs}"] if getattr(args, "epochs", None) else []
    words += ["--budgets " + ",".join(f"{b:g}" for b in args.budgets)] if getattr(args, "budgets", None) else []
    words += ["--quick"] if getattr(args, "quick", False) else []
    return " ".join(words)


def _keep(result: dict, model: Dynamic, out: Path, altered: bool) -> dict:
    """Write the result and seed 0's weights to their places; below `out` if the recipe was altered."""
    if altered:
        evidence.write_json(result, out / "result.json")
        print(f"not the recipe as it stands, so written to {out / 'result.json'} only", file=sys.stderr)
        return result
    path = evidence.folder() / f"{result['paper']}.json"
    if result["runs"][0]["seed"] == 0:                                        # `model` is of the first seed
        save_checkpoint(result, model)
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
    return save_model(model, CHECKPOINTS / f"{result['paper']}.safetensors", about | {"seed": 0, "measured": measured_})


def digest(model: nn.Module) -> str:
    """A short hash of all weights: equal weights, equal digest."""
    found = hashlib.sha256()
    for name, t in model.state_dict().items():
        found.update(name.encode() + t.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
