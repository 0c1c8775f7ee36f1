"""Masked convolution against the best dense one: how much of the skipped work is time saved.

    python -m benchmarks.masked_conv                everything (about half an hour)
    python -m benchmarks.masked_conv --quick        the goals' rows alone, fewer rounds (minutes)
    python -m benchmarks.masked_conv --only blocks  one part: conv, pointwise, depthwise, half, first, blocks,
                                                    networks, training, avx2, threads
    python -m benchmarks.masked_conv --json FILE    the same for a machine to read

Every figure is time over that of the fastest dense implementation found on this machine for that shape (named, with
its GF/s), one thread, CPU time, candidates interleaved in one process. A row whose control leaves 0.95 to 1.05 is void
and meets or misses no goal; one that misses it by up to 15% is near, as machines differ that much. A density has a pool
of 8 masks, another one in every call. Indexing the mask and zeroing the rest of the output are inside the time, packing
the weights is not. Exit code: 0, 1 when a goal is missed by more, 2 when a row of a goal is void.
"""
from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dynnotes.execute.kernels import compiled
from dynnotes.execute.kernels.masked_conv import masked_conv2d
from dynnotes.execute.kernels.masked_conv.branch import layers_of, masked_branch, plan
from dynnotes.learn import evidence

from . import common
from .common import TARGET, best_dense, cycled, heading, kernel_of, shown

MAPS = {"56x64": (56, 64), "28x128": (28, 128), "14x256": (14, 256), "256x64": (256, 64)}   # side x channels
BLOCK = {56: 8, 256: 8, 28: 7, 14: 7}
DENSITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
BACKEND = {"ours": None, "torch": "torch"}                           # None: the best there is, dense where it is faster
POOL = 8                                                             # masks

# (part, map, batch, mask, density): at most this ratio
GOALS = {
    **{("conv", m, 1, "random", 0.1): 0.11 for m in ("56x64", "28x128", "14x256")},
    **{("conv", m, b, k, 0.25): 0.27 for m in ("28x128", "14x256") for b in (1, 8) for k in ("random", "blob")},
    ("conv", "56x64", 8, "block", 0.25): 0.28, ("conv", "256x64", 1, "random", 0.25): 0.30,
    **{("conv", m, b, "random", 0.5): 0.55 for m in ("56x64", "28x128", "14x256") for b in (1, 8)},
    **{("conv", m, 1, "random", 1.0): 1.05 for m in MAPS},
    **{("pointwise", m, 1, "random", 0.25): 0.28 for m in ("28x128", "14x256")},
    **{("half", m, 1, "random", 0.25): 0.35 for m in ("56x64", "28x128", "14x256")},
    ("blocks", "basic 64@56", 1, "blob", 0.25): 0.33, ("blocks", "basic 64@56", 8, "blob", 0.25): 0.35,
    ("blocks", "bottleneck 256@56", 1, "blob", 0.25): 0.32, ("blocks", "bottleneck 256@56", 8, "blob", 0.25): 0.36,
    ("blocks", "inverted 64@28", 1, "blob", 0.25): 0.38, ("blocks", "inverted 64@28", 8, "blob", 0.25): 0.42,
    **{("training", m, 8, "random", 0.25): 0.40 for m in ("56x64", "28x128", "14x256")},
}
REALISED = {1: 0.85, 8: 0.75, 32: 0.85}                              # batch: of a network's saved MACs, as time
TORCH_GOALS = {("conv", m, 1, "random", 0.25): 0.45 for m in ("56x64", "28x128", "14x256")}  # without a compiler


def masks(kind: str, batch: int, side: int, density: float, seed: int = 0) -> list[Tensor]:
    """A pool of masks [B, 1, side, side] of that density: single pixels, soft-edged blobs, or aligned blocks."""
    random, found = torch.Generator().manual_seed(seed), []
    for _ in range(POOL):
        if kind == "block":
            n = side // BLOCK[side]
            score = torch.rand(batch, 1, n, n, generator=random)
        else:
            score = torch.rand(batch, 1, side, side, generator=random)
        if kind == "blob":
            width = max(3, side // 8) | 1
            for _ in range(3):
                score = F.avg_pool2d(score, width, 1, width // 2, count_include_pad=False)
        on = score <= score.flatten().kthvalue(max(1, round(density * score.numel()))).values
        if kind == "block":
            on = on.repeat_interleave(BLOCK[side], 2).repeat_interleave(BLOCK[side], 3)
        found.append(on)
    return found


def share_of(kind: str, batch: int, side: int, density: float) -> float:
    """The share of pixels that masks of that nominal density have on; whole blocks cannot have any."""
    return float(masks(kind, batch, side, density)[0].float().mean())


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1 convolution as oneDNN's product of rows, which `F.conv2d` does not use for small batches on one thread."""
    rows = x.movedim(1, 3).reshape(-1, x.shape[1])
    y = torch.ops.mkldnn._linear_pointwise(rows, weight.flatten(1), bias, "none", [], "")
    return y.view(len(x), *x.shape[2:], -1).movedim(3, 1)


class Report(common.Report):
    """Rows as they are measured, printed at once, and the goals that they meet."""
    def measure(self, part, shape, batch, kind, candidates, densities, macs, calls_of, error=None, **also):
        """One row per density: `calls_of(density, dense)` gives {method: call}. macs: of the dense layers."""
        name, dense = best_dense(candidates)
        base = kernel_of(dense)
        for density in densities:
            calls = calls_of(density, dense)
            row = evidence.race(dense, calls, rounds=self.rounds, target=TARGET)
            seconds = row.seconds["base"]
            record = {"part": part, "shape": shape, **also, "batch": batch, "mask": kind, "density": density,
                      "share": share_of(kind, batch, also["side"], density), "macs": macs, "base": name,
                      "operator": base, "base_seconds": seconds, "base_gflops": 2 * macs / seconds / 1e9,
                      "ratios": row.ratios, "noise": row.noise, "void": row.void,
                      "goal": GOALS.get((part, shape, batch, kind, density)), "error": error}
            self.rows.append(record)
            said = ""
            for method, goals in (("ours", GOALS), ("torch", TORCH_GOALS)):
                goal = goals.get((part, shape, batch, kind, density))
                if goal is None or method not in row.ratios:
                    continue
                over = row.ratios[method][0] / goal - 1
                said += f"{method} <= {goal:.2f}: "
                said += self.judge(over, row.void, method, part, shape, batch, kind, density)
            print(f"{part:<10}{shape:<18}N{batch:<3}{kind:<7}{density:5.0%}  "
                  + "  ".join(f"{n} {shown(*r)}" for n, r in row.ratios.items())
                  + f"   ({name} {record['base_gflops']:4.0f} GF/s, A/A {row.noise:.3f}"
                  + f"{', void' if row.void else ''})  {said}", flush=True)


def submanifold(x: Tensor, weight: Tensor):
    """spconv's submanifold layer as a call of the mask, where spconv is installed and right; else None.

    Another operation: inputs that are off count as zero, so at random 25% it does a third of the products. What it
    gives are rows, not a map. On two threads some of them were seen to be wrong (spconv 2.3.8), so it is held to the
    definition of its operation first.
    """
    try:
        import spconv.pytorch as spconv
    except ImportError:                                              # none of our dependencies
        return None
    layer = spconv.SubMConv2d(x.shape[1], len(weight), weight.shape[2], padding=weight.shape[2] // 2, bias=False)
    layer.weight.data = weight.permute(0, 2, 3, 1).contiguous()
    rows, size = x.movedim(1, 3), list(x.shape[2:])

    def run(mask):
        places = mask[:, 0].nonzero()
        return layer(spconv.SparseConvTensor(rows[places.unbind(1)], places.int().contiguous(), size, len(x))).features

    mask = masks("random", len(x), x.shape[2], 0.25)[0]
    exact = F.conv2d(x * mask, weight, None, 1, weight.shape[2] // 2).movedim(1, 3)[mask[:, 0]]
    if not torch.allclose(run(mask), exact, rtol=0, atol=1e-3):
        print("spconv does not agree with the definition of its own operation: left out")
        return None
    return run


def convolution(report: Report, part: str, kernel: int, dtype=torch.float32, depthwise: bool = False, quick=False,
                maps=MAPS, peers=("ours", "torch")):
    """3x3, 1x1 or depthwise layers of the usual maps."""
    for (name, (side, channels)), batch in itertools.product(maps.items(), (1, 8)):
        if side == 256 and batch == 8:
            continue
        groups = channels if depthwise else 1
        torch.manual_seed(0)
        x = torch.randn(batch, channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels // groups, kernel, kernel).to(dtype)
        across = weight.contiguous(memory_format=torch.channels_last)
        dense = {"conv2d": lambda x=x, w=across, g=groups: F.conv2d(x, w, None, 1, kernel // 2, 1, g)}
        if kernel == 1 and dtype is torch.float32:
            dense["oneDNN linear"] = lambda x=x, w=weight: onednn(x, w)
        with torch.inference_mode():
            other = submanifold(x, weight) if part == "conv" and "torch" in peers else None
        for kind in ("random", "blob", "block"):
            wanted = [d for d in DENSITIES if not quick or (part, name, batch, kind, d) in GOALS]
            if not wanted or (kind == "block" and kernel == 1):
                continue
            run = partial(masked_conv2d, x, weight=weight, bias=None, padding=kernel // 2, groups=groups)

            def calls(density, base, run=run, kind=kind, side=side, batch=batch, other=other):
                pool = masks(kind, batch, side, density)
                found = {b: cycled(lambda m, b=b: run(mask=m, backend=BACKEND[b]), pool) for b in peers}
                if other:
                    found["spconv, inputs off are zero"] = cycled(other, pool)
                return found | {"dense times mask": cycled(lambda m: base() * m, pool)}
            with torch.inference_mode():
                mask = masks(kind, batch, side, 0.25)[0]
                exact = torch.where(mask, F.conv2d(x.double(), weight.double(), None, 1, kernel // 2, 1, groups), 0.0)
                error = float((run(mask=mask).double() - exact).abs().max() / exact.abs().max())
                report.measure(part, name, batch, kind, dense, wanted, batch * side * side * weight.numel(), calls,
                               error=error, side=side, channels=channels, kernel=kernel)


def first_sight(report: Report):
    """A mask never seen before against one seen already, in a layer in use: 60 masks of 15% to 35%, once each, then
    again, after 60 others."""
    import time
    for name in ("56x64", "28x128", "14x256"):
        side, channels = MAPS[name]
        x = torch.randn(1, channels, side, side).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3)
        random = torch.Generator().manual_seed(1)
        others, pool = ([torch.rand(1, 1, side, side, generator=random) < 0.15 + 0.2 * i / 59 for i in range(60)]
                        for _ in range(2))
        with torch.inference_mode():
            for backend in ("cpu", "torch") if compiled.instructions() != "none" else ("torch",):
                passes = []
                for masks_ in (others, pool, pool):
                    start = time.thread_time()
                    for mask in masks_:
                        masked_conv2d(x, mask, weight, padding=1, backend=backend)
                    passes.append(time.thread_time() - start)
                report.rows.append({"part": "first", "shape": name, "method": backend, "ratio": passes[1] / passes[2]})
                print(f"first     {name:<18}{backend:<6} first sight over warm {passes[1] / passes[2]:.3f}", flush=True)


BLOCKS = {
    "basic 64@56": (56, lambda: nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1)),
                    64, 1),
    "basic 256@14": (14, lambda: nn.Sequential(nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 256, 3, 1, 1)),
                     256, 1),
    "bottleneck 256@56": (56, lambda: nn.Sequential(nn.Conv2d(256, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1),
                                                    nn.ReLU(), nn.Conv2d(64, 256, 1)), 256, 1),
    "inverted 64@28": (28, lambda: nn.Sequential(nn.Conv2d(64, 384, 1), nn.ReLU6(), nn.Conv2d(384, 384, 3, 1, 1,
                                                 groups=384), nn.ReLU6(), nn.Conv2d(384, 64, 1)), 64, 0),
}


def blocks(report: Report, quick=False):
    """Whole residual blocks on one mask, first layers on the dilated one, the residual included on both sides."""
    for (name, (side, make, channels, relu)), batch in itertools.product(BLOCKS.items(), (1, 8)):
        torch.manual_seed(0)
        branch = make().eval().to(memory_format=torch.channels_last)
        x = torch.randn(batch, channels, side, side).relu().contiguous(memory_format=torch.channels_last)

        def whole(product, branch=branch, x=x, relu=relu):
            h = x
            for layer in branch:
                if isinstance(layer, nn.ReLU):
                    h = h.relu_()
                elif isinstance(layer, nn.ReLU6):
                    h = F.hardtanh_(h, 0, 6)
                elif product and layer.kernel_size == (1, 1):
                    h = onednn(h, layer.weight, layer.bias)
                else:
                    h = layer(h)
            h = h.add_(x)
            return h.relu_() if relu else h

        dense = {"conv2d": lambda w=whole: w(False), "conv2d and oneDNN linear": lambda w=whole: w(True)}
        for kind in ("blob", "random", "block"):
            wanted = [d for d in (0.1, 0.25, 0.5, 1.0) if not quick or ("blocks", name, batch, kind, d) in GOALS]
            if not wanted:
                continue

            def run(mask, backend=None, branch=branch, x=x, relu=relu):
                return masked_branch(x, mask, layers_of(branch), residual=x, relu=relu, everywhere=True,
                                     backend=backend)[0]

            def calls(density, base, run=run, kind=kind, side=side, batch=batch):
                pool = masks(kind, batch, side, density)
                return {name: cycled(partial(run, backend=b), pool) for name, b in BACKEND.items()}
            with torch.inference_mode():
                mask = masks(kind, batch, side, 0.25)[0]
                exact, layers = torch.where(mask, whole(False), x), layers_of(branch)
                error = float((run(mask) - exact).abs().max() / exact.abs().max())
                steps = plan(x, mask, layers)
                share = sum(len(s.rows) * s.layer.weight.numel() for s in steps) / \
                    sum(s.geometry.pixels * s.layer.weight.numel() for s in steps)
                print(f"blocks    {name}: {share:.2f} of the MACs at 25% {kind}, error {error:.1e}")
                macs = sum(s.geometry.pixels * s.layer.weight.numel() for s in steps)
                report.measure("blocks", name, batch, kind, dense, wanted, macs, calls, error=error, side=side,
                               channels=channels, kernel=3)


def training(report: Report, quick=False):
    """Forward and backward of one layer, for input and weight, over dense autograd."""
    for name in ("56x64", "28x128", "14x256"):
        side, channels = MAPS[name]
        x = torch.randn(8, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(channels, channels, 3, 3).requires_grad_()
        across = weight.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        g = torch.randn(8, channels, side, side).contiguous(memory_format=torch.channels_last)

        def dense(x=x, w=across, g=g):
            torch.autograd.grad(F.conv2d(x, w, None, 1, 1), (x, w), g)

        def run(mask, backend, x=x, w=weight, g=g):
            torch.autograd.grad(masked_conv2d(x, mask, w, padding=1, backend=backend), (x, w), g)

        def calls(density, base, run=run, side=side):
            pool = masks("random", 8, side, density)
            return {name: cycled(partial(run, backend=b), pool) for name, b in BACKEND.items()}
        wanted = [d for d in (0.1, 0.25, 0.5) if not quick or ("training", name, 8, "random", d) in GOALS]
        report.measure("training", name, 8, "random", {"conv2d": dense}, wanted, 3 * 8 * side * side * weight.numel(),
                       calls, side=side, channels=channels, kernel=3)


def networks(report: Report):
    """Whole DynConv networks, deciding as often as the trained one: the receipt, sparse against dense, and the time
    over that of the fastest network without masks: no mask units, batch normalisation folded away.
    """
    from dynnotes import registry
    from dynnotes.learn import recipes
    cls = registry.sources()["verelst2020dynamic"].load()
    path = evidence.folder() / "verelst2020dynamic.json"
    share = None
    if path.is_file():
        result = evidence.load_result(path)
        share = evidence.trained_share(result["runs"], result["full"])
    model, (x,) = recipes.timing_net(cls, share)
    static = without_masks(model)

    def run(net, batch):
        return [net(group) for group in (x.split(1) if batch == 1 else (x[:batch],))]

    for batch, goal in REALISED.items():
        receipt = evidence.receipt(model, (x,), batch, rounds=report.rounds)
        with torch.inference_mode():
            row = evidence.race(partial(run, static, batch), {"ours": partial(run, model.execute("sparse"), batch)},
                                rounds=report.rounds)
        realised = receipt.realised
        report.rows.append({"part": "networks", "shape": "DynConv timing net", **receipt.record(), "realised": realised,
                            "goal": goal, "over_static": row.ratios["ours"], "static_noise": row.noise})
        over = 0 if realised is None else goal / realised - 1
        met = report.judge(over, realised is None, "networks", "DynConv", batch)
        print(f"networks  DynConv N{batch}: saved {receipt.saving_macs:.1%} of the MACs, {receipt.saving_time:.1%} "
              f"of the time: realised {'-' if realised is None else format(realised, '.0%')} "
              f"(A/A {receipt.noise:.3f})  goal {goal:.0%} {met}; over the fastest static network "
              f"{shown(*row.ratios['ours'])} (A/A {row.noise:.3f})", flush=True)


def without_masks(model: nn.Module):
    """The network of a DynConv without its masks, as fast as it gets: x -> answer."""
    def folded(net):
        found = []
        for module in net:
            if isinstance(module, nn.BatchNorm2d) and isinstance(found[-1], nn.Conv2d):
                found[-1] = fuse_conv_bn_eval(found[-1], module)
            else:
                found.append(module)
        return nn.Sequential(*found).to(memory_format=torch.channels_last)

    stem, branches = folded(model.stem), [folded(branch) for branch in model.branches]
    shortcuts = [folded(short) if isinstance(short, nn.Sequential) else short for short in model.shortcuts]

    def forward(x):
        x = stem(x.contiguous(memory_format=torch.channels_last))
        for branch, short in zip(branches, shortcuts, strict=True):
            x = branch(x).add_(short(x)).relu_()
        return model.head(x)

    return forward


def threads(report: Report):
    """Two threads, wall clock: for information, as other processes enter it."""
    import time
    if (os.cpu_count() or 1) < 2:
        return
    torch.set_num_threads(2)
    try:
        for name in ("56x64", "28x128"):
            side, channels = MAPS[name]
            x = torch.randn(8, channels, side, side).contiguous(memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3)
            across = weight.contiguous(memory_format=torch.channels_last)
            pool = masks("blob", 8, side, 0.25)
            with torch.inference_mode():
                calls = {"dense": lambda x=x, w=across: F.conv2d(x, w, None, 1, 1),
                         "cpu": cycled(lambda m, x=x, w=weight: masked_conv2d(x, m, w, padding=1), pool)}
                fastest = dict.fromkeys(calls, float("inf"))
                for _ in range(60):
                    for method, call in calls.items():
                        start = time.perf_counter()
                        call()
                        fastest[method] = min(fastest[method], time.perf_counter() - start)
            ratio = fastest["cpu"] / fastest["dense"]
            report.rows.append({"part": "threads", "shape": name, "batch": 8, "density": 0.25, "ratio": ratio,
                                "load": os.getloadavg()[0]})
            print(f"threads   {name:<18}N8  blob 25%, 2 threads, wall, fastest of 60: {ratio:.3f} "
                  f"(load {os.getloadavg()[0]:.1f})", flush=True)
    finally:
        torch.set_num_threads(1)


def lesser(report: Report, rounds: int):
    """The AVX2 path against dense on AVX2, in a process where oneDNN is held to it, too."""
    if compiled.instructions() != "avx512":
        return
    env = {**os.environ, "DYNNOTES_CPU": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    code = ("from benchmarks.masked_conv import *; torch.set_num_threads(1); "
            f"r = Report({rounds}); three = ('56x64', '28x128', '14x256'); "
            "convolution(r, 'conv', 3, maps={k: MAPS[k] for k in three}, peers=('ours',), "
            "quick=True); import json; print('JSON' + json.dumps(r.rows))")
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=Path(__file__).parents[1], capture_output=True,
                          text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("JSON"):
            report.rows += [row | {"part": "avx2"} for row in json.loads(line[4:])]
        else:
            print("avx2: " + line, flush=True)
    if done.returncode:
        print("avx2: " + done.stderr.strip().splitlines()[-1])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     epilog="example: python -m benchmarks.masked_conv --quick --only conv")
    parser.add_argument("--quick", action="store_true", help="only the rows that have a goal, fewer rounds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there")
    parts = {"conv": lambda: convolution(report, "conv", 3, quick=args.quick),
             "pointwise": lambda: convolution(report, "pointwise", 1, quick=args.quick),
             "depthwise": lambda: convolution(report, "depthwise", 3, depthwise=True, quick=args.quick),
             "half": lambda: convolution(report, "half", 3, torch.bfloat16, quick=args.quick, peers=("ours",)),
             "first": lambda: first_sight(report), "blocks": lambda: blocks(report, args.quick),
             "networks": lambda: networks(report), "training": lambda: training(report, args.quick),
             "avx2": lambda: lesser(report, report.rounds), "threads": lambda: threads(report)}
    parser.add_argument("--only", choices=parts, action="append", help="one part; may be given again")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    report = Report(5 if args.quick else 9)
    print(heading(), flush=True)
    for part in args.only or parts:
        parts[part]()
    return report.close("python -m benchmarks.masked_conv", args.json)


if __name__ == "__main__":
    sys.exit(main())
