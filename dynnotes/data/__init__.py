"""Seeded tasks whose difficulty is known for every sample: `load("canvas-digits", "test", 2000, seed=0)`.

A task is generated in memory from real material or from a grammar, never downloaded. The task "canvas-digits" is the
module canvas_digits.py in this folder, found by its name: it has `load(split, size, seed) -> Data`. Nothing is imported
until it is loaded.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Data:
    """Samples of one task, batch first, with what makes each of them hard.

    inputs: what the model is called with. target: [N], or [N, T] with -100 where nothing is asked;
    a class per pixel [N, H, W]; boxes [N, K, 6] (x0, y0, x1, y1 in [0, 1], class, 1 where there is one); pictures.
    hard: [N] in [0, 1]; its formula is in the task's module. difficulty: {name: [N]}, what `hard` is made of.
    box: [N, 4], x0, y0, x1, y1 in [0, 1], the informative part of an image. informative: [N, ...units] in [0, 1], how
    much each frame, token, step, band or pixel matters. kind: how a viewer shows an input, "image" [C, H, W], "video"
    [T, C, H, W], "signal" [T, C] or "tokens".
    spell: for tokens, the words of one sample, from its inputs without the batch axis. labels: of the classes.
    """
    task: str
    split: str
    inputs: tuple[Tensor, ...]
    target: Tensor
    hard: Tensor
    difficulty: Mapping[str, Tensor] = field(default_factory=dict)
    box: Tensor | None = None
    labels: tuple[str, ...] = ()
    informative: Tensor | None = None
    kind: str = "image"
    spell: Callable[..., list[str]] | None = None

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows) -> Data:
        """The samples at `rows`, a slice or an index tensor."""
        return replace(self, inputs=tuple(x[rows] for x in self.inputs), target=self.target[rows],
                       hard=self.hard[rows], difficulty={k: v[rows] for k, v in self.difficulty.items()},
                       box=None if self.box is None else self.box[rows],
                       informative=None if self.informative is None else self.informative[rows])

    def to(self, device) -> Data:
        """The same samples with every tensor on `device`."""
        def move(t):
            return None if t is None else t.to(device)
        return replace(self, inputs=tuple(map(move, self.inputs)), target=move(self.target), hard=move(self.hard),
                       difficulty={k: move(v) for k, v in self.difficulty.items()}, box=move(self.box),
                       informative=move(self.informative))

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """(inputs, target) of at most `size` samples each, all of them once, in `order` (indices) or as they stand."""
        for start in range(0, len(self), size):
            rows = slice(start, start + size) if order is None else order[start:start + size]
            yield tuple(x[rows] for x in self.inputs), self.target[rows]


def tasks() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(sorted(file.stem.replace("_", "-") for file in Path(__file__).parent.glob("[a-z]*.py")))


def load(task: str, split: str = "train", size: int | None = None, seed: int = 0) -> Data:
    """`size` samples (default: the task's own number) of a task's split; the same seed gives the same samples.

    Raises ValueError for an unknown task or split, with the nearest known one, and for a size below 1.
    """
    for what, word, known in (("task", task, tasks()), ("split", split, SPLITS)):
        if word not in known:
            close = get_close_matches(str(word), known, 1, 0.4)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"no {what} {word!r}; {hint}known: {', '.join(known)}")
    if size is not None and size < 1:
        raise ValueError(f"size is at least 1, not {size}")
    return importlib.import_module(module_of(task)).load(split, size, seed)


def module_of(task: str) -> str:
    """The module that generates a task: results depend on it as they do on the paper's."""
    return f"{__name__}.{task.replace('-', '_')}"
