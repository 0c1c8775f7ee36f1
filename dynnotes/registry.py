"""`@paper(key)` ties a model class to its BibTeX entry; `papers()` finds them all by walking the package.

Also here, free of torch, is what a paper declares about itself: its `Budget`, its `Published` sizes, its `Recipe`.
"""
from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FAMILIES = ("sample", "spatial", "temporal", "static", "systems")
PACKAGE = Path(__file__).parent
_papers: dict[str, type] = {}


@dataclass(frozen=True)
class Budget:
    """The one knob that a reader of this paper turns.

    `name`: the attribute of the model that `model.at(value)` sets, `low`..`high`: its legal range, `values`: where it
    is measured, `cheaper`: "lower" or "higher", which end of the range computes less, `retrain`: every value needs
    training of its own.
    """
    name: str
    low: float
    high: float
    values: tuple[float, ...]
    cheaper: str
    retrain: bool = False

    def __post_init__(self):
        if self.cheaper not in ("lower", "higher"):
            raise ValueError(f'budget {self.name}: cheaper is "lower" or "higher", not {self.cheaper!r}')
        if outside := [v for v in self.values if not self.low <= v <= self.high]:
            raise ValueError(f"budget {self.name}: {outside} outside {self.low}..{self.high}")


@dataclass(frozen=True)
class Published:
    """A size that the paper prints, to be rebuilt and counted.

    `make()` builds the model (the tests call it on the meta device, so nothing is allocated), `inputs()` one batch,
    `params` and `macs` are the paper's figures (None where it prints none), `counts` says which sum the paper's
    MACs are: "full" (everything on) or "spent" (what one input costs), `tolerance` is relative and follows from the
    digits printed, `where` is the table or section.
    """
    name: str
    make: Callable
    inputs: Callable
    params: float | None
    macs: float | None
    tolerance: float
    where: str
    counts: str = "full"


@dataclass(frozen=True)
class Stage:
    """One stage of training: `epochs` over the task with `optimizer` ("sgd" with momentum 0.9, or "adam")."""
    epochs: int
    lr: float
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    batch: int = 128
    settings: Mapping[str, float] = field(default_factory=dict)   # attributes of the model during this stage


@dataclass(frozen=True)
class Recipe:
    """How a paper is trained on one task: `net()` builds the model, `task` names a task of `dynnotes.data`.

    A paper's `recipes()` is a tuple of these; the first is the one whose weights ship and that the theatre plays.
    """
    task: str
    net: Callable
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Source:
    """Where a paper's class stands: importable module, class name, file and line."""
    module: str
    name: str
    file: Path
    line: int

    def load(self) -> type:
        return getattr(importlib.import_module(self.module), self.name)


def paper(key: str, *, waives: Mapping[str, str] | None = None, couples: str | None = None):
    """Register a model class under its BibTeX key.

    `waives`: {contract promise: why this algorithm cannot keep it}; each becomes a strict xfail.
    `couples`: what ties the samples of a batch together ("capacity"), if anything does; the class then has
    `uncoupled()`, which returns the model with room for every token.
    Raises KeyError when the key is taken by another class.
    """
    def register(cls):
        taken = _papers.get(key)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise KeyError(f"{key} is already {taken.__module__}.{taken.__qualname__}; one entry, one class")
        cls.key, cls.waives, cls.couples = key, dict(waives or {}), couples
        _papers[key] = cls
        return cls
    return register


def papers() -> dict[str, type]:
    """{BibTeX key: class} of every implemented paper; imports the families (and so torch)."""
    for family in FAMILIES:
        if not (PACKAGE / family).is_dir():
            continue
        package = importlib.import_module(f"dynnotes.{family}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return dict(sorted(_papers.items()))


def sources() -> dict[str, Source]:
    """{BibTeX key: Source} read from the syntax trees: nothing is imported, so torch need not be there."""
    found = {}
    for family in FAMILIES:
        for file in sorted((PACKAGE / family).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if "@paper(" not in text:
                continue
            module = ".".join(("dynnotes", *file.relative_to(PACKAGE).with_suffix("").parts))
            for node in ast.parse(text).body:
                for call in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                    if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "paper" and call.args:
                        found[ast.literal_eval(call.args[0])] = Source(module, node.name, file, node.lineno)
    return dict(sorted(found.items()))
