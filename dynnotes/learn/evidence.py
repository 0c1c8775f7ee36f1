"""What a paper's recipe bought: result files, intervals, the static frontier, the verdict, and the receipt.

Result files hold single runs only. Everything that summarises them (means, 95% intervals, verdicts) is computed here;
torch is imported by `receipt` only.
"""
from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from .. import load, registry

FORMAT, STATIC_FORMAT = "dynnotes.results/1", "dynnotes.static/1"
SCHEMA = Path(__file__).with_name("results.schema.json")
QUIET = (0.95, 1.05)                                                 # a machine is quiet enough to time on


class ResultError(ValueError):
    """A result file that cannot be read or does not hold what it should; the message names the file and the field."""


# Files ---------------------------------------------------------------------------------------------------------------

def folder() -> Path:
    """Where result files stand: `results/` of the checkout, or of the current folder for an installed package."""
    root = registry.PACKAGE.parent
    return (root if (root / "bib").is_dir() else Path.cwd()) / "results"


def write_json(content, path: str | os.PathLike) -> Path:
    """Write `content` whole or not at all. Raises ValueError for a value that JSON cannot hold (NaN, infinity)."""
    path = Path(path)
    body = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_json(path: str | os.PathLike, expected: str) -> dict:
    """The content of a file whose `format` is `expected`. Raises ResultError, FileNotFoundError when there is none."""
    path = Path(path)
    remedy = "write it again with `dynnotes train`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise ResultError(f"{path}: cannot be read: {fault.strerror}") from None
    except ValueError as fault:
        raise ResultError(f"{path}: is not JSON ({fault}); {remedy}") from None
    found = str(content.get("format")) if isinstance(content, dict) else "no format"
    if found.split(".")[:2] != expected.split(".")[:2] and found != expected:
        raise ResultError(f"{path}: the format is {found}, this version of dynnotes reads {expected}; "
                          f"upgrade dynnotes, or {remedy}")
    return content


def load_result(path: str | os.PathLike) -> dict:
    """A checked result file. Raises ResultError naming file and field, FileNotFoundError when there is none."""
    try:
        return check(read_json(path, FORMAT))
    except ResultError as fault:
        message = str(fault)
        raise ResultError(message if message.startswith(str(path)) else f"{path}: {message}") from None


def check(result: dict) -> dict:
    """Return `result` if it is a result of this format; raise ResultError, naming the field, if not."""
    _fits(result, "result")
    for i, run in enumerate(result["runs"]):
        for name, value in run.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ResultError(f"runs.{i}.{name}: should be a finite number, is {value}")
        if run["macs_claimed"] != run["macs_executed"]:
            raise ResultError(f"runs.{i}: claims {run['macs_claimed']} MACs, executed {run['macs_executed']}")
    seen = [(run["seed"], run["budget"]) for run in result["runs"]]
    if len(set(seen)) != len(seen):
        raise ResultError("runs: a seed and budget occur twice")
    if result.get("clock"):
        check_clock(result["clock"], "budget", {run["budget"] for run in result["runs"]})
    return result


def _fits(content, name: str, part: str = "") -> None:
    """Raise ResultError, naming the field, unless `content` fits the schema, or its definition `part`."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    if part:
        schema = schema["$defs"][part] | {"$defs": schema["$defs"]}
    try:
        import jsonschema
    except ImportError:                                              # not needed to train: the tests have it
        if missing := [field for field in schema["required"] if field not in content]:
            raise ResultError(f"{name}: {missing[0]!r} is a required property") from None
    else:
        faults = sorted(jsonschema.Draft202012Validator(schema).iter_errors(content),
                        key=lambda fault: [str(part) for part in fault.absolute_path])
        if faults:
            where = ".".join(map(str, faults[0].absolute_path)) or name
            raise ResultError(f"{where}: {faults[0].message[:300]}")


def check_clock(clock: dict, of: str, known: Iterable) -> dict:
    """Return `clock` if all its rows can be believed; raise ResultError, naming the row, if not.

    of: what a row is of, "budget" or "net"; known: which of these there are.
    """
    known, seen = set(known), set()
    for i, row in enumerate(clock["rows"]):
        where, place = f"clock.rows.{i}", (row[of], row["batch"])
        if row[of] not in known:
            raise ResultError(f"{where}.{of}: {row[of]!r} was not measured, only {sorted(known, key=str)}")
        if place in seen:
            raise ResultError(f"{where}: {of} {row[of]!r} at batch {row['batch']} occurs twice")
        seen.add(place)
        for name in ("reference_ms", "noise", "macs", "sparse", "dense", "ratio"):
            values = row.get(name, ())
            values = values if isinstance(values, (list, tuple)) else (values,)
            if not all(math.isfinite(v) and v > 0 for v in values):
                raise ResultError(f"{where}.{name}: should be finite and above zero, is {row[name]}")
            if len(values) == 3 and not values[1] <= values[0] <= values[2]:
                raise ResultError(f"{where}.{name}: the median {values[0]} is not between the quartiles {values[1:]}")
        if row["void"] != (not QUIET[0] <= row["noise"] <= QUIET[1]):
            raise ResultError(f"{where}.void: is {row['void']}, with a noise of {row['noise']}")
    return clock


def circumstances(command: str) -> dict:
    """When, by which command, and with which versions something was measured."""
    import torch

    import dynnotes

    try:
        found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=registry.PACKAGE, capture_output=True,
                               text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = None                                                          # not a checkout, or no git
    return {"versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                         "dynnotes": dynnotes.__version__},
            "date": datetime.now(UTC).date().isoformat(), "commit": found, "command": command}


# Statistics ----------------------------------------------------------------------------------------------------------

class Interval(NamedTuple):
    """A mean with its 95% confidence interval over seeds; low and high are None for a single seed."""
    mean: float
    low: float | None
    high: float | None

    @property
    def half(self) -> float | None:
        return None if self.low is None else self.high - self.mean


def interval(values: Iterable[float]) -> Interval:
    """Mean and t-based 95% interval of independent values."""
    values = list(values)
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None, None)
    from scipy import stats
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def spearman(a: Iterable[float], b: Iterable[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None when one side is constant."""
    a, b = list(a), list(b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    from scipy import stats
    return float(stats.spearmanr(a, b).statistic)


@dataclass(frozen=True)
class Point:
    """All seeds of one budget."""
    budget: float | None
    seeds: int
    accuracy: Interval
    macs: Interval
    correlation: Interval | None


def summary(result: Mapping) -> tuple[Point, ...]:
    """One Point per budget, cheapest first."""
    points = []
    for budget in dict.fromkeys(run["budget"] for run in result["runs"]):
        runs = [run for run in result["runs"] if run["budget"] == budget]
        related = [run["hard_correlation"] for run in runs if run["hard_correlation"] is not None]
        points.append(Point(budget, len(runs), interval(run["accuracy"] for run in runs),
                            interval(run["macs_executed"] for run in runs), interval(related) if related else None))
    return tuple(sorted(points, key=lambda p: p.macs.mean))


# The static line -----------------------------------------------------------------------------------------------------

def load_static(result: Mapping, beside: str | os.PathLike | None = None) -> list[dict]:
    """The runs of the static nets that a result refers to; empty when it refers to none, or the file is not there."""
    reference = result.get("static")
    if not reference:
        return []
    try:
        content = read_json(Path(beside or folder()) / reference["file"], STATIC_FORMAT)
    except FileNotFoundError:
        return []
    return [run for run in content["runs"] if run["epochs"] == reference["epochs"]]


def static_clock(result: Mapping, beside: str | os.PathLike | None = None) -> dict | None:
    """The times of the static nets that a result refers to (`learn.clock`), checked; None where there are none.

    Raises ResultError naming the file.
    """
    reference = result.get("static")
    path = Path(beside or folder()) / reference["file"] if reference else None
    if path is None or not path.is_file():
        return None
    content = read_json(path, STATIC_FORMAT)
    if not content.get("clock"):
        return None
    try:
        _fits(content["clock"], "clock", "static_clock")
        return check_clock(content["clock"], "net", (run["net"] for run in content["runs"]))
    except ResultError as fault:
        raise ResultError(f"{path}: {fault}") from None


def reference_ms(clock: Mapping) -> dict[int, float]:
    """{batch: milliseconds per input} of the reference, from the clock of the static nets: what a ratio of 1 is.

    It ran beside each of them; this is the quietest of these times, the least of the medians that are not void.
    """
    found: dict[int, list[float]] = {}
    for row in sorted(clock["rows"], key=lambda row: row["void"]):
        if not row["void"] or row["batch"] not in found:
            found.setdefault(row["batch"], []).append(row["reference_ms"])
    return {batch: min(found[batch]) for batch in sorted(found)}


def times(result: Mapping, static: Mapping | None) -> list[dict]:
    """The rows of a result's clock, each with `ms`, of its sparse form, and `ms_dense`; static: `static_clock`.

    Empty where either was not measured, or each beside another reference: their ratios then do not compare.
    """
    clock = result.get("clock")
    if not clock or not static or clock["reference"] != static["reference"]:
        return []
    unit = reference_ms(static)
    return [row | {"ms": row["sparse"][0] * unit[row["batch"]], "ms_dense": row["dense"][0] * unit[row["batch"]]}
            for row in clock["rows"] if row["batch"] in unit]


def static_points(static: Iterable[Mapping]) -> list[tuple[str, float, Interval]]:
    """(net, MACs, accuracy over seeds) of each static net, cheapest first."""
    nets: dict[str, list[Mapping]] = {}
    for run in static:
        nets.setdefault(run["net"], []).append(run)
    return sorted(((net, runs[0]["macs"], interval(run["accuracy"] for run in runs)) for net, runs in nets.items()),
                  key=lambda point: point[1])


def static_accuracy_at(macs: float, static: Iterable[Mapping], seed: int | None = None) -> float | None:
    """Accuracy of the static frontier at `macs`: the best net so far, interpolated over log MACs.

    seed: this seed's nets alone (default: means over seeds). Flat above the dearest net; None below the cheapest, where
    no static net was trained.
    """
    runs = [run for run in static if seed is None or run["seed"] == seed]
    line = _frontier(runs)
    if not line or macs < line[0][0]:
        return None
    for (x0, y0), (x1, y1) in pairwise(line):
        if macs <= x1:
            return y0 + (y1 - y0) * math.log(macs / x0) / math.log(x1 / x0) if x1 > x0 else y1
    return line[-1][1]


def static_macs_at(accuracy: float, static: Iterable[Mapping]) -> float | None:
    """MACs of the static frontier at `accuracy`, means over seeds, the inverse of `static_accuracy_at`.

    None above the best net; at or below the cheapest net's accuracy, the price of that net, the least that is known.
    """
    line = _frontier(static)
    if not line or accuracy > line[-1][1]:
        return None
    for (x0, y0), (x1, y1) in pairwise(line):
        if y0 < accuracy <= y1:
            return x0 * (x1 / x0) ** ((accuracy - y0) / (y1 - y0))
    return line[0][0]


def _frontier(runs: Iterable[Mapping]) -> list[tuple[float, float]]:
    """(MACs, the best accuracy so far) of static nets, cheapest first."""
    line: list[tuple[float, float]] = []
    for _, price, accuracy in static_points(runs):
        line.append((price, max(accuracy.mean, line[-1][1] if line else 0.0)))
    return line


def gains(result: Mapping, static: Sequence[Mapping]) -> list[tuple[float, Interval]]:
    """(budget, accuracy above the static frontier at the same executed MACs), paired by seed, where both exist."""
    found = []
    for point in summary(result):
        pairs = [(run["accuracy"], static_accuracy_at(run["macs_executed"], static, run["seed"]))
                 for run in result["runs"] if run["budget"] == point.budget]
        differences = [ours - theirs for ours, theirs in pairs if theirs is not None]
        if differences:
            found.append((point.budget, interval(differences)))
    return found


@dataclass(frozen=True)
class Claim:
    """One rule applied: `holds` is None where that cannot be told, and `text` says why.

    rule: a name in RULES. applies: False where a paper of this kind cannot show it at all.
    """
    rule: str
    holds: bool | None
    text: str
    applies: bool = True


REALISED, REALISED_CHANNELS = 0.75, 0.60          # of the saved MACs, as saved time; channels chosen for each sample
BATCHES = (1, 32)                                 # at both

RULES = {
    "cheaper": "At some budget it costs fewer executed MACs than static nets of the same accuracy. Their frontier "
               "never falls, so this is to lie above it at equal MACs: the 95% interval of the difference in "
               "accuracy, paired by seed, is above zero.",
    "harder": "At most budgets where inputs differ in cost, MACs rise with difficulty: the 95% interval over seeds of "
              "Spearman's correlation is above zero.",
    "realised": "On a larger net that decides as often as the trained one, the saved time is at least "
                f"{REALISED:.0%} of the saved MACs, at batch {BATCHES[0]} and at batch {BATCHES[1]}, even at the upper "
                f"quartile of the time; {REALISED_CHANNELS:.0%} where channels are chosen for each sample. Receipts of "
                "a machine that was not quiet do not count.",
    "sooner": "For a system, which claims time and no accuracy: the same answers for the same MACs take less time at "
              "every batch size measured, the upper quartile of the ratio is below one.",
}

FIXED = {                                         # what a paper adapts, where that is not how much an input costs
    "place": "where it computes follows the input, how much does not",
    "weights": "its weights follow the input, its cost does not",
    "budget": "its user sets the cost, the same for every input",
    "schedule": "what it computes follows a schedule, not the input",
    "none": "nothing in it changes after training",
}


def verdict(result: Mapping, static: Sequence[Mapping] | None = None) -> dict:
    """{"verdict", "claims": [Claim], "text"}; "reproduced", "partly", "not", or "open" when nothing can be judged.

    Three claims, in one order for all papers: cheaper than static nets, more for harder inputs, time saved as well.
    static: the static nets' runs (default: those the result refers to).
    """
    static = load_static(result) if static is None else static
    entry = next((p for p in load().entries if p.key == result["paper"]), None)
    receipts = [Receipt.of(r) for r in result["receipts"]]
    if entry is not None and entry.kind == "system":
        claims = [Claim("cheaper", None, "A system claims no accuracy of its own.", applies=False),
                  Claim("harder", None, "A system decides nothing about an input's cost.", applies=False),
                  _sooner(receipts)]
    else:
        adapts = entry.adapts if entry is not None and entry.adapts else ("input",)
        fixed = "" if "input" in adapts else FIXED[adapts[0]]
        channels = entry is not None and not fixed and "channel" in entry.unit
        claims = [_cheaper(result, static),
                  _harder(summary(result), fixed, difficulty_is_known(result["task"])),
                  _realised(receipts, trained_share(result["runs"], result["full"]), fixed,
                            REALISED_CHANNELS if channels else REALISED)]
    judged = [claim.holds for claim in claims if claim.holds is not None]
    word = "open" if not judged else "reproduced" if all(judged) else "partly" if any(judged) else "not"
    opening = {"reproduced": "Reproduced here.", "partly": "Partly reproduced here.", "not": "Not reproduced here.",
               "open": "Not judged."}[word]
    return {"verdict": word, "claims": claims, "text": " ".join([opening, *(claim.text for claim in claims)])}


def trained_share(runs: Sequence[Mapping], full: float) -> float | None:
    """Executed over full MACs at the middle one of the budgets where inputs differ in cost; None where none is."""
    costs = sorted(run["macs_executed"] for run in runs if run["hard_correlation"] is not None)
    return costs[len(costs) // 2] / full if costs else None


def _cheaper(result, static) -> Claim:
    rule = "cheaper"
    if not static:
        return Claim(rule, None, "No static nets were trained beside it.")
    judged = [(budget, gain) for budget, gain in gains(result, static) if gain.low is not None]
    if not judged:
        return Claim(rule, None, "Too few seeds, or no static net as cheap, to compare with.")
    budget, best = max(judged, key=lambda pair: pair[1].low)
    above = sum(gain.low > 0 for _, gain in judged)
    start = (f"Above the static nets at {above} of {len(judged)} budgets; at its best, budget {budget:g}, by"
             if budget is not None else "Against the static nets at the same cost")
    text = f"{start} {100 * best.mean:+z.1f} points ({100 * best.low:+z.1f} to {100 * best.high:+z.1f})."
    point = next(p for p in summary(result) if p.budget == budget)
    return Claim(rule, above > 0, f"{text} {_at_equal_accuracy(point, static)}")


def _at_equal_accuracy(point, static) -> str:
    price = static_macs_at(point.accuracy.mean, static)
    if price is None:
        return "No static net trained here is as accurate."
    bound = "at most " if price <= min(run["macs"] for run in static) else ""
    return f"A static net as accurate costs {bound}{price / point.macs.mean:.2f} times as much."


def difficulty_is_known(task: str) -> bool:
    """Whether `hard` means something: it does for the tasks of `data`, not for a real dataset, `KIND:WHERE`."""
    return ":" not in task


def _harder(points, fixed, known) -> Claim:
    rule = "harder"
    if fixed:
        return Claim(rule, None, f"No input costs more by its decision: {fixed}.", applies=False)
    if not known:
        return Claim(rule, None, "How hard each of these inputs is, is not known.")
    varied = [p for p in points if p.correlation is not None]
    if not varied:
        return Claim(rule, None, "Every input costs the same, whatever its difficulty.", applies=False)
    judged = [p for p in varied if p.correlation.low is not None]
    if not judged:
        return Claim(rule, None, "Too few seeds to judge whether harder inputs cost more.")
    rising = sum(p.correlation.low > 0 for p in judged)
    best = max(judged, key=lambda p: p.correlation.mean)
    text = (f"Harder inputs cost more at {rising} of {len(judged)} budgets; rank correlation at most "
            f"{best.correlation.mean:+z.2f} ({best.correlation.low:+z.2f} to {best.correlation.high:+z.2f}).")
    return Claim(rule, 2 * rising > len(judged), text)


def _realised(receipts, share, fixed, needed) -> Claim:
    """share: of its full MACs, what the trained net runs; None where that is not its decision."""
    rule = "realised"
    if not receipts:
        return Claim(rule, None, "No receipt was taken.")
    if all(r.saving_macs <= 0 for r in receipts):
        why = f" ({fixed})" if fixed else ""
        return Claim(rule, None, f"Nothing is skipped{why}, so there is no saving to realise.", applies=False)
    rows = {r.batch: r for r in receipts if r.batch in BATCHES and not r.void and r.saving_macs > 0}
    missing = ", ".join(f"batch {batch}" for batch in BATCHES if batch not in rows)
    if not rows:
        return Claim(rule, None, f"No receipt of a quiet machine for {missing}.")
    parts, enough = [], []
    for batch, r in sorted(rows.items()):
        low, high = sorted((1 - ratio) / r.saving_macs for ratio in r.time_spread)
        parts.append(f"{r.realised:.0%} ({low:.0%} to {high:.0%}) at batch {batch}")
        enough.append(low >= needed)
    r = rows[min(rows)]
    rate = "" if share is None else f" (a trained net {1 - share:.0%})"
    text = (f"The timing net saves {r.saving_macs:.0%} of its MACs{rate}. Saved time over saved MACs: "
            f"{', '.join(parts)}; {needed:.0%} is asked for.")
    if any(r.saving_time < 0 for r in rows.values()):
        text += " Below zero it takes longer than to skip nothing."
    if missing:
        text += f" No receipt of a quiet machine for {missing}."
    return Claim(rule, False if not all(enough) else None if missing else True, text)


def _sooner(receipts) -> Claim:
    rule = "sooner"
    if not receipts or any(r.void for r in receipts):
        return Claim(rule, None, "No receipt, or the machine was not quiet enough, to compare times.")
    times = ", ".join(f"{r.time_ratio:.2f} ({r.time_spread[0]:.2f} to {r.time_spread[1]:.2f}) of the time at batch "
                      f"{r.batch}" for r in receipts)
    return Claim(rule, all(r.time_spread[1] < 1 for r in receipts), f"The same answers for the same MACs take {times}.")


# Staleness -----------------------------------------------------------------------------------------------------------

UNHASHED = ("dynnotes.show", "dynnotes.execute.kernels")


def source_hash(*modules: str) -> str:
    """Hash of the syntax trees, without docstrings, of these dynnotes modules and all that they import.

    It changes when code changes, not when a comment, a docstring or the layout does. Nothing is imported. Left out:
    show, and execute.kernels, which may compute faster but nothing else (tests hold every backend to one definition).
    """
    todo, codes = list(modules), {}
    while todo:
        name = todo.pop()
        file = _file_of(name)
        if name in codes or file is None or name.startswith(UNHASHED) or name == "dynnotes":
            continue
        codes[name], imports = _read(file.read_text(encoding="utf-8"), name, file.name == "__init__.py")
        todo += imports
    digest = hashlib.sha256()
    for name in sorted(codes):
        digest.update(f"{name}\n{codes[name]}\n".encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=512)
def _read(text: str, module: str, is_package: bool) -> tuple[str, frozenset[str]]:
    """The canonical form of a module's code, and the modules it imports; most results share most modules."""
    tree = ast.parse(text)
    return _canonical(tree), frozenset(_imports(tree, module, is_package))


def is_stale(result: Mapping) -> bool:
    """Whether the code of a result's paper or task changed since it was measured."""
    return result["source_hash"] != hash_of(result["paper"], result["task"])


def hash_of(key: str, task: str) -> str:
    """`source_hash` of a paper and its task or dataset. Raises KeyError when the paper is not implemented."""
    if difficulty_is_known(task):
        from .. import data as found
    else:
        from ..data import real as found
    return source_hash(registry.sources()[key].module, found.module_of(task))


def _file_of(module: str) -> Path | None:
    path = registry.PACKAGE.parent.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _imports(tree, module, is_package) -> set[str]:
    """dynnotes modules that a module names in its import statements."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[:len(module.split(".")) - node.level + is_package] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "dynnotes"}


def _canonical(node) -> str:
    """A tree as text that does not depend on layout, docstrings or the version of Python."""
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    body = fields.get("body")
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body \
            and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) \
            and isinstance(body[0].value.value, str):
        fields["body"] = body[1:]
    inside = ",".join(f"{name}={_canonical(value)}" for name, value in fields.items()
                      if value not in (None, []) and name not in ("ctx", "type_ignores", "kind"))
    return f"{type(node).__name__}({inside})"


# The receipt ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Receipt:
    """One batch size on one net: MACs per input, milliseconds per input, and whether the clock could be trusted.

    full: everything on. needed: what the decisions ask for, from a dense run's trace. claimed: the sparse run's trace.
    executed: counted from the operators that ran in it. issued: counted in the loop of a kernel of this project, None
    where none ran. time_ratio: sparse over dense, median over rounds, with its quartiles. noise: dense over dense,
    timed the same way. void: the noise left 0.95..1.05.
    """
    batch: int
    full: float
    needed: float
    claimed: float
    executed: float
    issued: float | None
    ms_dense: float
    ms_sparse: float
    time_ratio: float
    time_spread: tuple[float, float]
    noise: float
    void: bool

    @property
    def saving_macs(self) -> float:
        return 1 - self.executed / self.full

    @property
    def saving_time(self) -> float:
        return 1 - self.time_ratio

    @property
    def realised(self) -> float | None:
        """Saved time over saved MACs: 1 when all that was not computed was not waited for. None if void or unsaved."""
        return None if self.void or self.saving_macs <= 0 else self.saving_time / self.saving_macs

    def record(self) -> dict:
        return asdict(self) | {"time_spread": list(self.time_spread)}

    @classmethod
    def of(cls, record: Mapping) -> Receipt:
        return cls(**{**record, "time_spread": tuple(record["time_spread"])})

    def __str__(self) -> str:
        low, high = self.time_spread
        issued = "no kernel of ours ran" if self.issued is None else f"{self.issued:>14,.0f}"
        times = "void: the machine was not quiet" if self.void else f"saved {self.saving_time:.1%}"
        rows = [("full", f"{self.full:>14,.0f}", "MACs per input, everything on"),
                ("needed", f"{self.needed:>14,.0f}", "MACs that the decisions ask for"),
                ("claimed", f"{self.claimed:>14,.0f}", "MACs in the trace"),
                ("executed", f"{self.executed:>14,.0f}", f"MACs counted while it ran: saved {self.saving_macs:.1%}"),
                ("issued", issued, "MACs in the loops of our kernels, lanes that pad included" if self.issued else ""),
                ("dense", f"{self.ms_dense:>14.3f}", "ms per input"),
                ("sparse", f"{self.ms_sparse:>14.3f}", f"ms per input: {times}"),
                ("ratio", f"{self.time_ratio:>14.3f}", f"quartiles {low:.3f} to {high:.3f}"),
                ("noise", f"{self.noise:>14.3f}", "dense over dense, timed alike"),
                ("realised", "             -" if self.realised is None else f"{self.realised:>14.0%}",
                 "saved time over saved MACs")]
        return "\n".join([f"receipt, batch {self.batch}", *(f"  {name:<9}{value} {note}".rstrip()
                                                           for name, value, note in rows)])


class Timing(NamedTuple):
    """Seconds of two calls and of the control, from interleaved rounds."""
    base: float
    other: float
    ratio: float
    spread: tuple[float, float]
    noise: float
    void: bool


class Race(NamedTuple):
    """Seconds of each call, and the ratios of all others to the base: median, lower and upper quartile over rounds."""
    seconds: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]
    noise: float
    void: bool


def race(base: Callable, others: Mapping[str, Callable], *, rounds: int = 9, target: float = 0.02, attempts: int = 3,
         clock: Callable[[], float] = time.thread_time) -> Race:
    """Time `others` against `base` in one process: base, the others and base again in every round, in random order.

    Each measurement begins with a call that is not timed, so that it does not pay for what the one before it left in
    the caches. Ratios are per round, so slow drift cancels. When base over base leaves 0.95..1.05 it all happens
    again, at most `attempts` times; if the last is still noisy, the timing is void. `target`: seconds per measurement,
    by repeating.
    """
    calls = {"base": base, **others, "again": base}
    for call in (base, *others.values()):
        call()                                                            # first calls build and cache

    def seconds(call, repeats):
        call()
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats

    repeats = {name: max(1, min(1000, round(target / max(seconds(call, 1), 1e-9)))) for name, call in calls.items()}
    names, order = list(calls), random.Random(0)
    for _ in range(attempts):
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in order.sample(names, len(names)):
                taken[name].append(seconds(calls[name], repeats[name]))
        noise = statistics.median(a / b for a, b in zip(taken["again"], taken["base"], strict=True))
        void = not QUIET[0] <= noise <= QUIET[1]
        if not void:
            break
    ratios = {}
    for name in others:
        found = sorted(o / b for o, b in zip(taken[name], taken["base"], strict=True))
        ratios[name] = (statistics.median(found), found[len(found) // 4], found[-1 - len(found) // 4])
    return Race({name: statistics.median(taken[name]) for name in ("base", *others)}, ratios, noise, void)


def compare(base: Callable, other: Callable, *, rounds: int = 9, target: float = 0.02, attempts: int = 3,
            clock: Callable[[], float] = time.thread_time) -> Timing:
    """A `race` of one call against one other."""
    found = race(base, {"other": other}, rounds=rounds, target=target, attempts=attempts, clock=clock)
    ratio, low, high = found.ratios["other"]
    return Timing(found.seconds["base"], found.seconds["other"], ratio, (low, high), found.noise, found.void)


def receipt(model, inputs, batch: int | None = None, *, rounds: int = 9,
            clock: Callable[[], float] = time.thread_time) -> Receipt:
    """What `model` saves on `inputs` (a tuple of batch-first tensors), in batches of `batch` (default: all at once).

    Single-threaded, on the CPU. For batch 1 up to 32 inputs run one after another and the figures are their means:
    one input alone would make its own luck. A batch larger than the inputs repeats them.
    """
    import torch

    from ..execute import measured

    held = len(inputs[0])
    batch = batch or held
    rows = torch.arange(min(32, held) if batch == 1 else batch) % held
    groups = [tuple(x[rows[i:i + batch]] for x in inputs) for i in range(0, len(rows), batch)]
    sparse, training, threads = model.sparse, model.training, torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1)

    def play(how):
        model.execute(how)
        return [model(*group)[1] for group in groups]

    try:
        with torch.no_grad():
            needed = play("dense")
            with measured() as bill:
                claimed = play("sparse")
            timing = compare(lambda: play("dense"), lambda: play("sparse"), rounds=rounds, clock=clock)
    finally:
        torch.set_num_threads(threads)
        model.execute("sparse" if sparse else "dense").train(training)

    def each(traces, name):
        return float(sum(getattr(t, name).sum() for t in traces)) / len(rows)

    issued = None if bill.issued is None else bill.issued / len(rows)
    return Receipt(batch, each(needed, "full"), each(needed, "spent"), each(claimed, "spent"), bill.macs / len(rows),
                   issued, 1e3 * timing.base / len(rows), 1e3 * timing.other / len(rows), timing.ratio, timing.spread,
                   timing.noise, timing.void)
