"""The line that a dynamic network has to beat: static nets of several sizes, trained on the same task."""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .. import data as tasks
from ..data import Data
from ..execute import Dynamic, Trace, run
from ..nets.backbones import ResNet
from ..nets.dense import Detecting, GridDetector, Restorer, Restoring, Segmenter, Segmenting
from ..nets.language import LanguageModel
from ..nets.perceptron import Perceptron
from ..nets.recurrent import FixedSteps, TanhCell
from ..nets.sequence import EvenFrames, EveryKth
from ..nets.signals import EvenBands, EveryKthStep, SignalNet
from ..nets.tree import ChildSumTreeLSTM, PaddedTree, SequenceLSTM
from ..registry import Recipe, Stage
from . import evidence
from .measure import measure
from .train import TrainingError, build, facts_of, train


class Static(Dynamic):
    """A static net under the dynamic ones' contract: it decides nothing."""
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Trace]:
        return run(self.net, *inputs)

    def loss(self, inputs, target: Tensor) -> Tensor:
        return self.task(self.net(*inputs), target)


class StaticSegmenter(Segmenting, Static):
    """A static net that answers a class per pixel."""


class StaticDetector(Detecting, Static):
    """A static net that answers boxes."""


class StaticRestorer(Restoring, Static):
    """A static net that answers a picture."""


@dataclass(frozen=True)
class Family:
    """Static nets for one task: {name: a function of the data that builds one}, the module they come from, a stage.

    wrap: what brings them under the contract, with the loss and the score of the task.
    """
    module: str
    stage: Stage
    nets: Mapping[str, Callable[[Data], nn.Module]]
    wrap: type[Static] = Static


def _resnet(width, depths):
    return lambda data: ResNet(channels=data.inputs[0].shape[1], classes=len(data.labels),
                               widths=(width, 2 * width, 4 * width), depths=depths)


def _fixed(steps, width, classes):
    def make(data):
        x = data.inputs[0]
        project = nn.Linear(x.shape[1], width) if x.is_floating_point() else nn.Embedding(classes, width)
        return FixedSteps(project=project, cell=TanhCell(width), head=nn.Linear(width, classes), steps=steps)
    return make


def _language(width, hidden):
    return lambda data: LanguageModel(words=len(data.labels), length=data.inputs[0].shape[1], width=width, depth=2,
                                      heads=2, hidden=hidden)


def _perceptron(*hidden):
    return lambda data: Perceptron(data.inputs[0].shape[1], hidden, len(data.labels))


def _words(k, width):
    return lambda data: EveryKth(k, words=28, embed=16, hidden=width, classes=len(data.labels))


def _frames(k, width):
    return lambda data: EvenFrames(k, channels=1, classes=len(data.labels), widths=(width, 2 * width, 4 * width),
                                   depths=(1, 1, 1))


def _steps(k, width):
    return lambda data: SignalNet(k, channels=data.inputs[0].shape[2], classes=len(data.labels),
                                  widths=(width, 2 * width, 4 * width))


def _bands(k, width):
    return lambda data: EvenBands(k, classes=len(data.labels), widths=(width, 2 * width, 4 * width), depths=(1, 1, 1))


def _segmenter(width, fold):
    return lambda data: Segmenter(channels=1, classes=len(data.labels), fold=fold,
                                  widths=(width, 2 * width, 4 * width, 8 * width))


def _detector(*widths):
    return lambda data: GridDetector(channels=1, classes=len(data.labels), widths=widths, depths=(1, 1, 1, 1))


def _restorer(width, depth, factor=1, fold=1):
    return lambda data: Restorer(channels=1, width=width, depth=depth, factor=factor, fold=fold)


FAMILIES = {
    # by first width and by depth, which is cheapest where maps are small
    "canvas-digits": Family("dynnotes.nets.backbones", Stage(epochs=8, lr=0.1, weight_decay=5e-4), {
        f"ResNet {width}: {'-'.join(map(str, depths))}": _resnet(width, depths)
        for width, depths in ((2, (1, 1, 1)), (4, (1, 1, 1)), (8, (1, 1, 1)), (8, (1, 2, 2)), (8, (1, 3, 3)),
                              (16, (1, 1, 1)))}),
    # the cell of the dynamic net, run for a fixed number of steps
    "parity": Family("dynnotes.nets.recurrent", Stage(epochs=15, lr=5e-3, optimizer="adam"), {
        f"{steps} step{'s' if steps > 1 else ''}": _fixed(steps, 64, 2) for steps in (1, 2, 3, 5, 8)}),
    "toy-text": Family("dynnotes.nets.recurrent", Stage(epochs=10, lr=5e-3, optimizer="adam"), {
        f"{steps} step{'s' if steps > 1 else ''}, width {width}": _fixed(steps, width, 24)
        for steps, width in ((1, 32), (1, 64), (1, 96), (2, 64))}),
    # transformers by width, and by what stands between two attentions
    "many-tongues": Family("dynnotes.nets.language", Stage(epochs=8, lr=4e-3, optimizer="adam"), {
        f"Transformer {width}, {hidden} hidden": _language(width, hidden)
        for width, hidden in ((16, 32), (32, 64), (32, 128), (64, 128), (64, 256))}),
    # by width, and with a second hidden layer
    "vowels": Family("dynnotes.nets.perceptron", Stage(epochs=20, lr=0.02, optimizer="adam"), {
        f"perceptron {'-'.join(map(str, hidden))}": _perceptron(*hidden)
        for hidden in ((4,), (6,), (12,), (24,), (24, 24))}),
    # every word read, or every k-th
    "needles": Family("dynnotes.nets.sequence", Stage(epochs=7, lr=5e-3, optimizer="adam"), {
        f"GRU {width}" + f", one word in {k}" * (k > 1): _words(k, width)
        for k, width in ((1, 16), (1, 24), (1, 48), (2, 48), (4, 48))}),
    # evenly spaced frames
    "digit-video": Family("dynnotes.nets.sequence", Stage(epochs=8, lr=5e-3, optimizer="adam"), {
        f"{k} frame{'s' if k > 1 else ''}, width {width}": _frames(k, width)
        for k, width in ((1, 8), (2, 8), (4, 8), (8, 4), (8, 8))}),
    # every step read by convolutions, or every k-th; a recurrence beside them
    "sensor-activity": Family("dynnotes.nets.signals", Stage(epochs=12, lr=5e-3, optimizer="adam"), {
        f"convolutions {width}" + f", one step in {k}" * (k > 1): _steps(k, width)
        for k, width in ((4, 8), (4, 16), (2, 16), (1, 16))} | {
        "GRU 32, one step in 4": lambda data: EveryKthStep(4, channels=6, hidden=32, classes=len(data.labels))}),
    # all bands at once, or evenly spaced ones one by one
    "many-band-digits": Family("dynnotes.nets.signals", Stage(epochs=8, lr=5e-3, optimizer="adam"), {
        "ResNet 4, all bands": _resnet(4, (1, 1, 1)), "ResNet 8, all bands": _resnet(8, (1, 1, 1))} | {
        f"{k} bands, width {width}": _bands(k, width) for k, width in ((4, 4), (8, 4), (16, 4), (16, 6))}),
    # every slot of a padded tree computed, or its words read one after another
    "arithmetic-trees": Family("dynnotes.nets.tree", Stage(epochs=24, lr=4e-3, optimizer="adam"), {
        "LSTM 32": lambda data: SequenceLSTM(13, 32, 10), "LSTM 64": lambda data: SequenceLSTM(13, 64, 10),
        "padded Tree-LSTM 16": lambda data: PaddedTree(13, ChildSumTreeLSTM(16, 16), 10),
        "padded Tree-LSTM 32": lambda data: PaddedTree(13, ChildSumTreeLSTM(32, 32), 10),
        "padded Tree-LSTM 48": lambda data: PaddedTree(13, ChildSumTreeLSTM(48, 48), 10)}),
    # by width, and by resolution: whole, or folded to half
    "canvas-segmentation": Family("dynnotes.nets.dense", Stage(epochs=8, lr=5e-3, optimizer="adam", batch=32), {
        f"Segmenter {width}" + ", half size" * (fold == 2): _segmenter(width, fold)
        for width, fold in ((4, 2), (4, 1), (8, 2), (6, 1), (12, 2))}, StaticSegmenter),
    # by width, early and late
    "canvas-detection": Family("dynnotes.nets.dense", Stage(epochs=10, lr=5e-3, optimizer="adam", batch=32), {
        f"GridDetector {'-'.join(map(str, widths))}": _detector(*widths)
        for widths in ((2, 4, 8, 16), (2, 4, 16, 32), (4, 8, 16, 32), (4, 8, 24, 48), (4, 8, 32, 64))},
        StaticDetector),
    # by width and depth
    "super-resolution": Family("dynnotes.nets.dense", Stage(epochs=15, lr=5e-3, optimizer="adam", batch=16), {
        f"Restorer {width}, {depth} block{'s' if depth > 1 else ''}": _restorer(width, depth, factor=2)
        for width, depth in ((8, 1), (8, 2), (16, 1), (16, 2), (16, 3))}, StaticRestorer),
    # by width, depth, and resolution: whole, or folded to half
    "denoising": Family("dynnotes.nets.dense", Stage(epochs=15, lr=5e-3, optimizer="adam", batch=32), {
        f"Restorer {width}, {depth} block{'s' if depth > 1 else ''}" + ", half size" * (fold == 2):
        _restorer(width, depth, fold=fold)
        for width, depth, fold in ((8, 1, 2), (8, 1, 1), (16, 1, 2), (8, 2, 1), (16, 2, 2))}, StaticRestorer),
}


def static_nets(task: str, seeds: Iterable[int], sizes: tuple[int | None, int | None] = (None, None), *,
                file: Path | None = None, progress: bool | None = None, device="cpu",
                family: Family | None = None) -> dict:
    """The content of `static-TASK.json`; nets and seeds that it lacks are trained first, saved one by one."""
    family = family or FAMILIES[task]
    path = file or evidence.folder() / f"static-{task}.json"
    train_data = tasks.load(task, "train", sizes[0])
    test = tasks.load(task, "test", sizes[1])
    now = {"format": evidence.STATIC_FORMAT, "task": task, "samples": len(train_data), "test_samples": len(test),
           "recipe": facts_of(family.stage),
           "source_hash": evidence.source_hash(family.module, tasks.module_of(task))}
    try:
        held = evidence.read_json(path, evidence.STATIC_FORMAT)
        same = all(held.get(k) == v for k, v in now.items())
        runs = held["runs"] if same else []
        timed = {"clock": held["clock"]} if same and "clock" in held else {}
    except FileNotFoundError:
        runs, timed = [], {}
    except evidence.ResultError as fault:                          # `dynnotes train` alone would meet it again
        raise TrainingError(f"{fault}; first move {path.name} away: its nets are then trained again") from None
    content = now | evidence.circumstances(f"static nets of {task}") | {"runs": runs} | timed
    missing = [(name, seed) for name in family.nets for seed in seeds
               if not any((r["net"], r["seed"]) == (name, seed) for r in runs)]
    if missing:
        train_data, test = train_data.to(device), test.to(device)
    for name, seed in missing:
        model = build(lambda make=family.nets[name]: family.wrap(make(train_data)), seed, device)
        print(f"static: {name}, seed {seed}", file=sys.stderr)
        train(model, Recipe(task, family.wrap, (family.stage,)), train_data, seed=seed, progress=progress)
        found = measure(model, test)[0]
        runs.append({"net": name, "epochs": family.stage.epochs, "seed": seed,
                     "params": sum(p.numel() for p in model.parameters()), "macs": found["macs_executed"],
                     "accuracy": found["accuracy"]})
        runs.sort(key=lambda r: (r["macs"], r["seed"]))
        evidence.write_json(content, path)
    return content
