"""`dynnotes new-paper KEY`: the file of a paper and its test, to fill in.

The stub is a working gated layer that keeps the contract; its test fails until the paper's own equations replace it.
"""
from __future__ import annotations

import re
import textwrap
from pathlib import Path

from .knowledge.query import KnowledgeBase

MODULE = '''r"""ONE SENTENCE THAT A READER COULD REPEAT.

$$y = x + z(x) \\, F(x)$$

(eq. NUMBER). WHAT THE SYMBOLS ARE.

Claim: WHAT THE PAPER CLAIMS, WITH ITS NUMBERS AND THEIR PLACE (TABLE N). Read: WHAT YOU COULD READ OF IT. Smallest
setting: THE TASK AND NET WHERE THAT SHOULD SHOW; WHETHER THE RECIPE IS THIS SETTING.

Left out: EVERY SIMPLIFICATION.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from {dots}execute import Dynamic, Trace, run, run_if
from {dots}registry import Budget, Recipe, Stage, paper


@paper("{key}")
class {name}(Dynamic):
    """`pixels` of the image, `width` of the layer, `classes`."""
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9), cheaper="higher")

    def __init__(self, *, pixels: int, width: int, classes: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU())
        self.gate, self.branch, self.head = nn.Linear(width, 1), nn.Linear(width, width), nn.Linear(width, classes)
        self.threshold = 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, 1, H, W]
        x, trace = run(self.stem, x)                                           # [B, width]
        logit, gating = run(self.gate, x)
        chance = logit[:, 0].sigmoid()                                         # [B]
        z = chance if self.training else (chance > self.threshold).to(x)
        y, running = run_if(z, self.branch, x, name="layer 1", sparse=self.sparse, weight=chance)
        y, last = run(self.head, (x + y).relu())                               # [B, classes]
        return y, trace + gating + running + last

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _ = self(*inputs)
        return self.task(y, target)

    @staticmethod
    def demo():
        model = {name}(pixels=64, width=16, classes=4)
        return model, (torch.randn(10, 1, 8, 8),), torch.randint(4, (10,))

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return {name}(pixels=32 * 32, width=64, classes=10)
        return (Recipe("canvas-digits", net, (Stage(epochs=10, lr=1e-3, optimizer="adam"),)),)
'''

TEST = '''"""Fidelity of {method}:
its equations in plain loops that share no code with the implementation, and its limits.
"""
import pytest
import torch

from {module} import {name}


def test_equation_by_hand():
    pytest.fail("compute the demo with plain Python loops from eq. (1) of the paper, then compare")


def test_limit_all_on():
    torch.manual_seed(0)
    model, (x,), _ = {name}.demo()
    with torch.no_grad():
        _, trace = model.eval().at(model.budget.low)(x)
    assert (trace.spent == trace.full).all()
'''


class NotPossible(ValueError):
    """Why no stub was written, and what to do."""


def write(kb: KnowledgeBase, key: str, root: Path) -> list[Path]:
    """Write the stub and its test below the checkout `root`; returns the files written.

    Raises NotPossible for a paper that has code or is no method, and never overwrites a file.
    """
    paper = kb[key]
    if not (root / "tests").is_dir() or not (root / "dynnotes").is_dir():
        raise NotPossible(f"{root} is no checkout of dynnotes: clone the repository, then run this inside it")
    if paper.source:
        raise NotPossible(f"{paper.method} is implemented already: {paper.source.file}:{paper.source.line}")
    if paper.kind not in ("method", "technique", "system"):
        raise NotPossible(f"{paper.method} is of kind {paper.kind}: it has an entry and a paragraph, no code")
    method = paper.method.replace("+", " Plus")
    stem = re.sub(r"[^a-z0-9]+", "_", method.lower()).strip("_")
    stem = stem if stem[:1].isalpha() else f"net_{stem}"
    name = re.sub(r"[^A-Za-z0-9]+", "", method)
    name = name if name[:1].isalpha() else f"Net{name}"
    folder = root / "dynnotes" / paper.taxon
    module, test = folder / f"{stem}.py", root / "tests" / paper.taxon / f"test_{stem}.py"
    if taken := [p for p in (module, test) if p.exists()]:
        raise NotPossible(f"{taken[0]} is there already; nothing was written")
    words = {"key": paper.key, "name": name, "method": paper.method.replace('"', "'"),
             "dots": "." * (len(paper.taxon.split("/")) + 1),
             "module": ".".join(("dynnotes", *paper.taxon.split("/"), stem))}
    written = []
    for depth in range(len(paper.taxon.split("/"))):                           # packages on the way, each with its line
        node = "/".join(paper.taxon.split("/")[:depth + 1])
        init = root / "dynnotes" / node / "__init__.py"
        if not init.exists():
            _write(init, f'"""{textwrap.fill(kb.node(node).about, 110)}"""\n', written)
    _write(module, MODULE.format(**words), written)
    _write(test, TEST.format(**words), written)
    return written


def _write(path: Path, text: str, written: list[Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    written.append(path)
