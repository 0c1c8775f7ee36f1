"""Experts over several processes of one machine: what the exchange of rows costs. Says nothing about a network.

    python -m benchmarks.expert_parallel                everything (minutes)
    python -m benchmarks.expert_parallel --quick        one width, fewer rounds
    python -m benchmarks.expert_parallel --json FILE    the same for a machine to read
    python -m benchmarks.expert_parallel --page         the table of book/expert-parallelism.md, from the shipped file

Weak scaling: every rank has T tokens and 4 experts of d_ff = 4 d with the tanh form of GELU, k = 2 of all experts per
token, chosen evenly at random; so with P ranks there are 4 P experts, and a rank computes as much as before, in the
mean. One step is a forward and a backward pass of the layer, in float32, one thread per process. Rows travel by gloo
over the loopback device. All forms take turns in the same four processes, in random order in every round, while those
that are not needed sleep.

Every time is wall time of the slowest rank over that of "alone", one process with 4 experts of its own and no exchange,
in the same round: median and quartiles over rounds. "at once" is P such processes side by side, without exchange: what
it costs that they share caches and memory. More ranks than cores is marked, and says little. "in exchange" is the
share of the time inside all_to_all_single, waiting for the slowest included. Bytes are those that leave a rank for
another, all ranks together, for one step: computed from the routing; counted from what was handed to
all_to_all_single; and as the loopback device saw them, with headers and whatever else was sent meanwhile.

The control is "alone" twice in each round; where it leaves 0.95 to 1.05 all is measured again, at most twice, and if it
still does, the rows are void. Exit code: 0, or 2 if void.
"""
from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from dynnotes.execute.expert_parallel import ParallelExperts
from dynnotes.execute.experts import FeedForwardExperts
from dynnotes.learn import evidence

from .common import cpu_name, rounded, shown

RANKS, WIDTHS, TOKENS, EACH, K = (1, 2, 4), (256, 512), 512, 4, 2
POOL, TARGET = 4, 0.3                                                # routings; seconds of one measurement
ROOT = Path(__file__).resolve().parent.parent
SHIPPED, PAGE = ROOT / "benchmarks" / "expert_parallel.json", ROOT / "book" / "expert-parallelism.md"
BEGIN, END = "% table: python -m benchmarks.expert_parallel --page\n", "% end of table\n"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# On each rank --------------------------------------------------------------------------------------------------------

class Spy:
    """Seconds inside dist.all_to_all_single, and bytes that it was given for other ranks."""
    def __init__(self):
        self.seconds, self.bytes, self.call = 0.0, 0, dist.all_to_all_single
        dist.all_to_all_single = self

    def __call__(self, output, given, got, sent, group):
        start = time.perf_counter()
        self.call(output, given, got, sent, group=group)
        self.seconds += time.perf_counter() - start
        row = given[:1].nbytes if len(given) else 0
        self.bytes += row * (sum(sent) - sent[dist.get_rank(group)])


class Layer:
    """This rank's tokens, a pool of routings over `ranks` ranks, and the layer; with 1 and no mesh, "alone"."""
    def __init__(self, d: int, ranks: int, mesh=None):
        torch.manual_seed(0)                                         # the same experts on all ranks
        self.whole = FeedForwardExperts(EACH * ranks, d, 4 * d, activation="gelu_tanh", bias=False)
        self.layer = self.whole if mesh is None else ParallelExperts.of(self.whole, mesh)
        self.d, self.ranks, self.pool = d, ranks, []
        source = torch.Generator().manual_seed(1 + dist.get_rank())
        self.x = torch.randn(TOKENS, d, generator=source).requires_grad_()
        self.g = torch.randn(TOKENS, d, generator=source)
        for _ in range(POOL):
            on = torch.zeros(TOKENS, EACH * ranks, dtype=torch.bool)
            on.scatter_(1, torch.rand(on.shape, generator=source).topk(K).indices, True)
            self.pool.append((on, (torch.rand(on.shape, generator=source) * on).requires_grad_()))
        self.turn = itertools.cycle(self.pool)

    def step(self) -> None:
        on, weight = next(self.turn)
        torch.autograd.grad(self.layer.chosen(self.x, on, weight), (self.x, weight, *self.layer.parameters()), self.g)

    def error(self) -> float:
        """The largest difference from one process that has all experts, over the largest value; then forgets it."""
        with torch.no_grad():
            expected = self.whole.chosen(self.x, *self.pool[0])
            found = (self.layer.chosen(self.x, *self.pool[0]) - expected).abs().max() / expected.abs().max()
        self.whole = None
        return float(found)

    def sent(self) -> float:
        """Bytes that a step makes travel for this rank's tokens, in the mean over the pool, by the formula."""
        own = slice(dist.get_rank() * EACH, (dist.get_rank() + 1) * EACH)
        away = statistics.fmean(int(on.sum() - on[:, own].sum()) for on, _ in self.pool)
        header = (self.ranks - 1) * (EACH + 3) * 8                   # counts and three facts, int64, to every other
        return 4 * away * self.d * self.x.element_size() + header    # rows and answers, and their gradients


def gathered(value) -> list:
    """Of all ranks."""
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def loopback() -> int | None:
    """Bytes that the loopback device has sent."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
        return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))
    except (OSError, StopIteration):
        return None


def run(ranks: int, layer: Layer | None, repeats: int, spy: Spy) -> dict:
    """`repeats` steps on the first `ranks` ranks, while the others wait; the same answer on all."""
    seconds = spy.seconds = spy.bytes = 0
    before = gathered(loopback())[0]
    dist.barrier()
    if dist.get_rank() < ranks:
        start = time.perf_counter()
        for _ in range(repeats):
            layer.step()
        seconds = time.perf_counter() - start
    dist.barrier()
    after = loopback()
    found = gathered((seconds, spy.seconds, spy.bytes))[:ranks]
    return {"seconds": max(s for s, *_ in found) / repeats, "bytes": sum(b for *_, b in found) / repeats,
            "share": statistics.fmean(inside / s for s, inside, _ in found),
            "loopback": None if before is None else (after - before) / repeats}


def measure(d: int, rounds: int, attempts: int, meshes: dict, spy: Spy) -> list[dict]:
    """The rows of one width; all ranks call it, rank 0 gets them whole."""
    rank, alone = dist.get_rank(), Layer(d, 1)
    forms = {"alone": (1, alone), "again": (1, alone)}
    errors = {}
    for ranks, mesh in meshes.items():
        layer = Layer(d, ranks, mesh) if rank < ranks else None
        errors[ranks] = max(gathered(layer.error() if layer else 0.0))
        forms[f"over {ranks}"] = ranks, layer
        if ranks > 1:
            forms[f"{ranks} at once"] = ranks, alone
    dist.barrier()
    if rank == 0:
        alone.step()
        start = time.perf_counter()
        alone.step()
        spent = time.perf_counter() - start
    repeats = gathered(max(1, round(TARGET / spent / POOL)) * POOL if rank == 0 else 0)[0]     # the pool whole
    for ranks, layer in forms.values():                              # first calls build and cache
        if rank < ranks:
            layer.step()
    order = random.Random(0)
    for _ in range(attempts):
        taken = {name: [] for name in forms}
        for _ in range(rounds):
            for name in order.sample(list(forms), len(forms)):
                taken[name].append(run(*forms[name], repeats, spy))
        noise = statistics.median(a["seconds"] / b["seconds"]
                                  for a, b in zip(taken["again"], taken["alone"], strict=True))
        void = not evidence.QUIET[0] <= noise <= evidence.QUIET[1]   # all ranks know the same
        if not void:
            break

    def over(name: str) -> list[float]:
        found = sorted(a["seconds"] / b["seconds"] for a, b in zip(taken[name], taken["alone"], strict=True))
        return [statistics.median(found), found[len(found) // 4], found[-1 - len(found) // 4]]
    rows = []
    for ranks in meshes:
        computed = sum(gathered(forms[f"over {ranks}"][1].sent() if rank < ranks else 0))
        runs = taken[f"over {ranks}"]
        counted, seen = runs[0]["bytes"], [run["loopback"] for run in runs]
        if rank == 0 and abs(counted - computed) > 1e-9 * computed:
            raise RuntimeError(f"{ranks} ranks, d {d}: {counted} bytes were sent, the formula says {computed}")
        rows.append({
            "part": "weak scaling", "d": d, "ranks": ranks, "oversubscribed": ranks > cores(),
            "tokens_per_rank": TOKENS, "experts_per_rank": EACH, "k": K, "macs_per_rank": 3 * TOKENS * K * 8 * d * d,
            "steps": repeats,
            "rounds": rounds, "seconds": statistics.median(run["seconds"] for run in runs),
            "alone_seconds": statistics.median(run["seconds"] for run in taken["alone"]),
            "ratio": over(f"over {ranks}"), "at_once": over(f"{ranks} at once") if ranks > 1 else None,
            "in_exchange": statistics.median(run["share"] for run in runs), "bytes_computed": round(computed),
            "bytes_counted": round(counted), "bytes_loopback": None if None in seen else statistics.median(seen),
            "error": errors[ranks], "noise": noise, "void": void})
    return rows


def work(widths, rounds: int, attempts: int, path: Path) -> None:
    """One rank."""
    torch.set_num_threads(1)
    alone = FeedForwardExperts(1, 8, 8)
    alone.chosen(torch.zeros(1, 8), torch.ones(1, 1, dtype=torch.bool), None)        # compiles, before anyone waits
    dist.init_process_group("gloo", timeout=timedelta(minutes=5))
    world = init_device_mesh("cpu", (dist.get_world_size(),))
    meshes = {ranks: world if ranks == dist.get_world_size() else
              init_device_mesh("cpu", (dist.get_world_size() // ranks, ranks), mesh_dim_names=("copy", "experts"))[
                  "experts"] for ranks in RANKS}
    spy, rows = Spy(), []
    for d in widths:
        found = measure(d, rounds, attempts, meshes, spy)
        rows += found
        if dist.get_rank() == 0:
            for row in found:
                print(said(row), flush=True)
    if dist.get_rank() == 0:
        path.write_text(json.dumps(rows))
    dist.barrier()
    dist.destroy_process_group()


# What is said of it --------------------------------------------------------------------------------------------------

def said(row: dict) -> str:
    lo = f", {row['bytes_loopback'] / 1e6:.2f} on the loopback device" if row["bytes_loopback"] else ""
    return (f"d{row['d']:<5}{row['ranks']} rank{'s' * (row['ranks'] > 1)}{' (more than cores)' * row['oversubscribed']}"
            f": {shown(*row['ratio'])} of alone ({row['alone_seconds'] * 1e3:.1f} ms)"
            + (f", at once {shown(*row['at_once'])}" if row["at_once"] else "")
            + f", in exchange {row['in_exchange']:.0%}, {row['bytes_counted'] / 1e6:.2f} MB a step as computed{lo}, "
              f"error {row['error']:.0e}, A/A {row['noise']:.3f}{', void' * row['void']}")


def table(content: dict) -> str:
    """The rows as the page shows them."""
    lines = ["| width | ranks | MACs of a rank | MB sent in a step | time over alone | the same without exchange | "
             "in exchange |", "|---|---|---|---|---|---|---|"]
    for row in content["rows"]:
        at_once = "–" if row["at_once"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row["at_once"])
        lines.append(f"| {row['d']} | {row['ranks']}{', more than cores' * row['oversubscribed']} | "
                     f"{row['macs_per_rank'] / 1e9:.2f} G | {row['bytes_counted'] / 1e6:.2f} | "
                     f"{'{:.2f} [{:.2f}, {:.2f}]'.format(*row['ratio'])}{', void' * row['void']} | {at_once} | "
                     f"{row['in_exchange']:.0%} |")
    noise = ", ".join(f"{row['noise']:.3f}" for row in content["rows"] if row["ranks"] == 1)
    alone = " and ".join(f"{row['alone_seconds'] * 1e3:.0f} ms at width {row['d']}" for row in content["rows"]
                         if row["ranks"] == 1)
    return "\n".join([*lines, "", f"{content['transport']}; {content['machine']}, {content['cores']} cores, a load of "
                      f"{content['load']:g} from other work at the start, torch {content['versions']['torch']}, "
                      f"{content['date']}. Alone takes {alone}; alone over alone (the control): {noise}.", ""])


def fill(page: str, content: dict) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n" + table(content) + "\n" + END + rest.partition(END)[2]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     epilog="example: python -m benchmarks.expert_parallel --quick")
    parser.add_argument("--quick", action="store_true", help="one width, fewer rounds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there")
    parser.add_argument("--page", action="store_true", help="write the shipped rows into the book's page, measure none")
    parser.add_argument("--rank-of", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    size = (WIDTHS[:1], 5, 1) if args.quick else (WIDTHS, 15, 3)      # widths, rounds, attempts to meet the control
    if args.page:
        PAGE.write_text(fill(PAGE.read_text("utf-8"), json.loads(SHIPPED.read_text("utf-8"))), "utf-8")
        return 0
    if args.rank_of:
        work(*size, args.rank_of)
        return 0
    transport = "One machine, gloo over its loopback device, one thread per process, float32, forward and backward"
    load = round(os.getloadavg()[0], 1)
    print(f"{transport}; {platform.machine()}, {cores()} cores, torch {torch.__version__}, load {load}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={max(RANKS)}",
                        "--module", "benchmarks.expert_parallel", *["--quick"] * args.quick, f"--rank-of={path}"],
                       check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        rows = json.loads(path.read_text())
    void = sum(row["void"] for row in rows)
    print(f"\n{void} of {len(rows)} rows void")
    if args.json:
        evidence.write_json({"machine": cpu_name(), "cores": cores(), "load": load, "transport": transport,
                             **evidence.circumstances("python -m benchmarks.expert_parallel"), "rows": rounded(rows)},
                            args.json)
    return 2 if void else 0


if __name__ == "__main__":
    sys.exit(main())
