"""Is a result still true? One seed is trained again, and what it says now is held against what was recorded."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import evidence, recipes
from .train import TrainingError


@dataclass(frozen=True)
class Recheck:
    """left: budgets whose new accuracy lies outside of the recorded interval over seeds, in words; verdicts."""
    left: tuple[str, ...]
    before: str
    after: str

    @property
    def failed(self) -> bool:
        """A value that moved may be another machine's rounding; a verdict that turns with it is a fault."""
        return bool(self.left) and self.before != self.after


def choose(paths: Sequence[Path], commit: str) -> Path:
    """One of the results, by a commit's hash: over many commits each gets its turn."""
    return sorted(paths)[int(commit[:12] or "0", 16) % len(paths)]


def recheck(path: Path, *, progress: bool | None = None) -> Recheck:
    """Train the first seed of a result again by its recipe. Raises TrainingError if it is stale."""
    result = evidence.load_result(path)
    if evidence.is_stale(result):
        raise TrainingError(f"{path.name} is stale: the code changed since; measure it again: {result['command']}")
    (recipe,) = recipes.recipes_of(result["paper"], result["task"])
    seed = min(run["seed"] for run in result["runs"])
    budgets = sorted({run["budget"] for run in result["runs"] if run["budget"] is not None}) or None
    fresh, _, _ = recipes.run_recipe(
        result["paper"], recipe, seeds=[seed], epochs=result["recipe"]["epochs"], budgets=budgets,
        sizes=(result["recipe"]["samples"], result["recipe"]["test_samples"]), out=Path("runs") / "recheck" / path.stem,
        static=False, timing=False, progress=progress)
    return held_against(result, fresh["runs"], evidence.load_static(result, path.parent))


def held_against(result: Mapping, runs: Sequence[Mapping], static: Sequence[Mapping]) -> Recheck:
    """New runs in the place of those of their seed."""
    seeds = {run["seed"] for run in runs}
    now = {**result, "runs": [run for run in result["runs"] if run["seed"] not in seeds] + list(runs)}
    left = []
    for point in evidence.summary(result):
        for run in runs:
            low, high = point.accuracy.low, point.accuracy.high
            if run["budget"] == point.budget and low is not None and not low <= run["accuracy"] <= high:
                at = "" if point.budget is None else f" at {point.budget:g}"
                left.append(f"seed {run['seed']}{at}: {run['accuracy']:.4f} is not in {low:.4f} to {high:.4f}")
    return Recheck(tuple(left), evidence.verdict(result, static)["verdict"], evidence.verdict(now, static)["verdict"])
