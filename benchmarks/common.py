"""What the kernels' benchmarks share: the fastest dense base, the verdict on a goal, the words around the rows."""
from __future__ import annotations

import ctypes
import itertools
import json
import os
import platform
import sys
from pathlib import Path

import torch

from dynnotes.execute.kernels import compiled
from dynnotes.learn import evidence

TARGET = 0.01                                                        # seconds of one measurement
NEAR = 0.15                                                          # how far over a goal is not yet a miss


def cycled(call, pool):
    """`call(one)` with another one of the pool every time."""
    turn = itertools.cycle(pool)
    return lambda: call(next(turn))


def best_dense(candidates: dict, rounds: int = 5) -> tuple[str, object]:
    """(name, call) of the fastest of several dense implementations."""
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    first, *others = candidates
    found = evidence.race(candidates[first], {name: candidates[name] for name in others}, rounds=rounds, target=TARGET,
                          attempts=1)
    name = min(candidates, key=lambda n: 1.0 if n == first else found.ratios[n][0])
    return name, candidates[name]


def kernel_of(call) -> str:
    """The operator that takes most of a call's time, by the profiler: is the base what it is said to be?"""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        call()
    return max(found.key_averages(), key=lambda e: e.self_cpu_time_total).key


def keep_memory() -> bool:
    """From here on memory that is freed stays with this process; False where the C library cannot be told (not glibc).

    By default the system takes large tensors back and hands out zeroed pages at the next call: a dense layer of 4,096
    tokens then loses a quarter of its time to that, and the gradients of many experts most of it. It would count as
    saved by whoever needs less memory, and differ with what the process did before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    largest_mapped, trim_threshold = -4, -1                          # M_MMAP_MAX, M_TRIM_THRESHOLD
    return mallopt is not None and all([mallopt(largest_mapped, 0), mallopt(trim_threshold, 2**31 - 1)])


def cpu_name() -> str:
    """What this CPU calls itself."""
    known = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in known.read_text().splitlines()
             if line.startswith("model name")] if known.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def rounded(value):
    """Four digits of every float: what was measured is not better than that."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: rounded(v) for name, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, (list, tuple)) else value


def shown(median: float, low: float, high: float) -> str:
    """A ratio, with its quartiles where they are far apart."""
    return f"{median:.3f}" + (f" [{low:.2f}, {high:.2f}]" if high - low > 0.1 * median else "")


def heading() -> str:
    """On what it all runs."""
    return (f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, kernels for {compiled.instructions()}, "
            f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}; time over the best dense, one thread")


class Report:
    """Rows as they are measured, and the goals that they meet."""
    def __init__(self, rounds: int):
        self.rounds, self.rows, self.missed, self.near, self.void = rounds, [], [], [], []

    def judge(self, over: float, void: bool, *row) -> str:
        """What to say of a row that is `over` its goal by that share; noted, unless it meets it."""
        if not void and over <= 0:
            return "met "
        (self.void if void else self.near if over <= NEAR else self.missed).append(row)
        return "void " if void else f"{'near' if over <= NEAR else 'MISSED'} (by {over:.0%}) "

    def close(self, command: str, path: Path | None, parts: tuple[str, ...] = ()) -> int:
        """The last words, everything in a file if there is to be one, and the exit code.

        Where only some `parts` were measured, rows of the others that the file has stay. Every row says of which commit
        it is.
        """
        print(f"\n{len(self.missed)} goals missed, {len(self.near)} near, {len(self.void)} void")
        for what, rows in (("missed", self.missed), ("near", self.near), ("void", self.void)):
            for row in rows:
                print(f"  {what}: {' '.join(map(str, row))}")
        if path:
            found = {"machine": cpu_name(), "instructions": compiled.instructions(), **evidence.circumstances(command)}
            rows = [row | {"commit": found["commit"]} for row in rounded(self.rows)]
            if parts and path.is_file():
                rows = _others(path, found, parts) + rows
            evidence.write_json({**found, "rows": rows}, path)
        return 1 if self.missed else 2 if self.void else 0


def _others(path: Path, found: dict, parts: tuple[str, ...]) -> list[dict]:
    """Rows of `path` that belong to no part of these. Raises SystemExit where they do not go together."""
    before = json.loads(path.read_text(encoding="utf-8"))
    for name in ("machine", "instructions", "versions"):
        if before[name] != found[name]:
            raise SystemExit(f"{path}: was measured with {name} {before[name]}, not {found[name]}; give another file")
    return [{"commit": before["commit"], **row} for row in before["rows"] if row["part"] not in parts]
