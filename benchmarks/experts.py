"""Mixture of experts against one dense expert of equal active MACs: what routing costs, and what the hardware allows.

    python -m benchmarks.experts                everything (half an hour)
    python -m benchmarks.experts --quick        smaller sizes, fewer rounds and fewer peers (minutes)
    python -m benchmarks.experts --only half    one part: forward, half, training, skew, transformers
    python -m benchmarks.experts --json FILE    the same for a machine to read

A feed-forward network of d_ff = 4 d with the tanh form of GELU, k = 2 of E experts per token, one thread, CPU time, all
candidates interleaved in one process. Every figure is time over that of the fastest dense implementation found for this
shape: T * k rows through one expert, by `F.linear`, by oneDNN (plain weights; reordered once, with and without its own
GELU), or by 1x1 convolution of one image and of 16; named, with the operator that takes its time and its GF/s. Every
call gets another routing from a pool of 8; sorting it is inside the time, putting weights in a kernel's order is not,
except in training, where they change at every step. Nothing is dropped: the padded forms have room for the busiest
expert. "Over roofline" is time over the larger of the dense time (MACs at the measured dense rate) and the time to read
the weights of the experts hit, at the rate at which `torch.sum` reads all experts' in the same rounds; in training it
is for information: weights are read twice and their gradients written once. Memory that is freed stays with the
process, so that no form pays for new pages at every call. From 4,096 tokens on only the faster forms run. The error is
the largest against float64, over the largest value. In "skew" an expert's popularity falls as one over its rank; a skew
that makes us faster meets the goal. In "transformers" whole blocks run, router included on all sides; transformers is
none of our dependencies.

A row whose control leaves 0.95 to 1.05 is void and meets or misses no goal; one that misses it by up to 15% is near, as
machines differ that much. Exit code: 0, 1 when a goal is missed by more, 2 when a row of a goal is void.
"""
from __future__ import annotations

import argparse
import importlib
import itertools
import statistics
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dynnotes.execute.kernels.experts import expert_ffn
from dynnotes.learn import evidence

from . import common
from .common import TARGET, best_dense, cycled, heading, keep_memory, kernel_of, shown

WIDTHS, EXPERTS, TOKENS, K = (256, 512, 1024), (8, 64), (64, 512, 4096), 2
POOL = 8                                                             # routings
MOST = 2**30                                                         # bytes of one tensor of the one-hot form

# (part, d, E, T): at most this ratio over the best dense
GOALS = {
    **{("forward", d, 8, t): 1.10 for d in WIDTHS for t in (512, 4096)},                   # 128 rows per expert or more
    **{("forward", d, 8, 64): 1.7 for d in WIDTHS}, **{("forward", d, 64, 512): 1.8 for d in WIDTHS},
    **{("half", d, 8, 512): 1.2 for d in WIDTHS},
    **{("training", d, 8, 512): 1.15 for d in WIDTHS},
}
FUSED = ", its GELU"                                                 # of a dense form's name: oneDNN does it on the way
ROOFLINE, GROUPED, FASTER, SKEW = 1.5, 1.0, 1.3, 1.15                # forward; training; transformers' best over ours


# Networks and routings -----------------------------------------------------------------------------------------------

def gelu(h: Tensor) -> Tensor:
    return F.gelu(h, approximate="tanh")


def swiglu(h: Tensor) -> Tensor:
    gate, up = h.chunk(2, -1)
    return F.silu(gate) * up


class Layer:
    """Random tokens, experts and a pool of routings. inner: rows of w1, over those of its input."""
    def __init__(self, d: int, experts: int, tokens: int, dtype=torch.float32, inner: int = 4, act=gelu):
        random = torch.Generator().manual_seed(0)
        self.d, self.experts, self.tokens, self.act = d, experts, tokens, act
        self.x = torch.randn(tokens, d, generator=random).to(dtype)
        self.w1 = torch.randn(experts, inner * d, d, generator=random).mul_(d**-0.5).to(dtype)
        self.w2 = torch.randn(experts, d, 4 * d, generator=random).mul_((4 * d)**-0.5).to(dtype)
        self.pool = self.routings()

    @property
    def name(self) -> str:
        return f"d{self.d} E{self.experts} T{self.tokens}"

    @property
    def macs(self) -> int:
        return self.tokens * K * (self.w1[0].numel() + self.w2[0].numel())

    def routings(self, skewed: bool = False) -> list[tuple[Tensor, Tensor]]:
        """(index [T, k], weight [T, k]); experts of a token differ. skewed: popular as one over the rank."""
        random = torch.Generator().manual_seed(1)
        wanted = torch.arange(1, self.experts + 1).float().reciprocal() if skewed else torch.ones(self.experts)
        return [(torch.multinomial(wanted.expand(self.tokens, -1), K, generator=random),
                 torch.rand(self.tokens, K, generator=random).softmax(1).to(self.x.dtype)) for _ in range(POOL)]

    def hit(self, pool) -> float:
        """The share of experts that a routing needs, in the mean."""
        return statistics.fmean(len(index.unique()) for index, _ in pool) / self.experts


def exact(layer: Layer, index: Tensor, weight: Tensor, g: Tensor | None = None) -> list[Tensor]:
    """[y], and with the gradient `g` of y those of x, weight, w1 and w2: float64, expert by expert."""
    x, weight = layer.x.detach().double(), weight.detach().double()
    found = [torch.zeros_like(x)] + ([] if g is None else [torch.zeros(t.shape, dtype=torch.float64) for t in
                                                            (x, weight, layer.w1, layer.w2)])
    for e in index.unique().tolist():
        tokens, slots = torch.where(index == e)
        inputs = [t.detach().double().requires_grad_(g is not None)
                  for t in (x[tokens], weight[tokens, slots], layer.w1[e], layer.w2[e])]
        rows, scale, w1, w2 = inputs
        out = scale[:, None] * (layer.act(rows @ w1.T) @ w2.T)
        found[0].index_add_(0, tokens, out.detach())
        if g is not None:
            gx, gweight, gw1, gw2 = torch.autograd.grad(out, inputs, g[tokens].double())
            found[1].index_add_(0, tokens, gx)
            found[2][tokens, slots] = gweight
            found[3][e], found[4][e] = gw1, gw2
    return found


def error_of(found, expected) -> float:
    """The largest, over the largest value of that tensor."""
    return max(float((f.double() - e).abs().max() / e.abs().max()) for f, e in zip(found, expected, strict=True))


# Ways to compute them: (layer, index, weight) -> y -------------------------------------------------------------------

NAMES = {gelu: "gelu_tanh", swiglu: "swiglu"}


def ours(layer: Layer, index: Tensor, weight: Tensor, backend: str | None = None) -> Tensor:
    return expert_ffn(layer.x, index, weight, layer.w1, layer.w2, activation=NAMES[layer.act], backend=backend)


def naive(layer: Layer, index: Tensor, weight: Tensor) -> Tensor:
    """For every expert: who wants it? As most tutorials and model files have it."""
    y = torch.zeros_like(layer.x)
    for e in range(layer.experts):
        tokens, slots = torch.where(index == e)
        if len(tokens):
            h = layer.act(F.linear(layer.x[tokens], layer.w1[e]))
            y.index_add_(0, tokens, F.linear(h, layer.w2[e]) * weight[tokens, slots, None])
    return y


def by_expert(layer: Layer, index: Tensor) -> tuple[Tensor, Tensor]:
    """Slots grouped by expert [T * k], and where each expert's end [E]."""
    flat = index.flatten()
    return flat.argsort(stable=True), torch.bincount(flat, minlength=layer.experts).cumsum(0)


def mixed(out: Tensor, order: Tensor, weight: Tensor) -> Tensor:
    """Rows in `order` back at their tokens, weighted and summed."""
    back = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))
    return (out.index_select(0, back).unflatten(0, weight.shape) * weight[..., None]).sum(1)


def sorted_linear(layer: Layer, index: Tensor, weight: Tensor) -> Tensor:
    order, ends = by_expert(layer, index)
    rows, w1, w2 = layer.x.index_select(0, order // K), layer.w1.unbind(0), layer.w2.unbind(0)
    out = [F.linear(layer.act(F.linear(rows[start:stop], w1[e])), w2[e])
           for e, (start, stop) in enumerate(pairwise([0, *ends.tolist()])) if stop > start]
    return mixed(torch.cat(out), order, weight)


def grouped(layer: Layer, index: Tensor, weight: Tensor) -> Tensor:
    order, ends = by_expert(layer, index)
    rows, ends = layer.x.index_select(0, order // K), ends.int()
    h = layer.act(F.grouped_mm(rows, layer.w1.transpose(1, 2), offs=ends))
    return mixed(F.grouped_mm(h, layer.w2.transpose(1, 2), offs=ends), order, weight)


def padded(layer: Layer, index: Tensor, weight: Tensor) -> Tensor:
    """As many rows for each expert as the busiest has, in one batched product."""
    order, ends = by_expert(layer, index)
    counts = ends.diff(prepend=ends.new_zeros(1))
    room, e = int(counts.max()), index.flatten()[order]
    place = e * room + torch.arange(len(order)) - (ends - counts)[e]
    rows = layer.x.new_zeros(layer.experts * room, layer.d).index_copy(0, place, layer.x.index_select(0, order // K))
    h = layer.act(torch.bmm(rows.view(layer.experts, room, -1), layer.w1.transpose(1, 2)))
    out = torch.bmm(h, layer.w2.transpose(1, 2)).flatten(0, 1)
    return mixed(out.index_select(0, place), order, weight)


def one_hot(layer: Layer, index: Tensor, weight: Tensor) -> Tensor:
    """GShard's: dispatch and combine as products with one-hot masks [T, E, C]."""
    flat = F.one_hot(index.flatten(), layer.experts)                 # [T * k, E]
    place = ((flat.cumsum(0) - 1) * flat).sum(1)                     # [T * k]
    room = int(place.max()) + 1
    combine = (flat.to(weight.dtype).unflatten(0, index.shape) * weight[..., None]).transpose(1, 2)          # [T, E, k]
    combine = combine @ F.one_hot(place, room).to(weight.dtype).unflatten(0, index.shape)                    # [T, E, C]
    rows = torch.einsum("tec,td->ecd", (combine != 0).to(weight.dtype), layer.x)
    h = layer.act(torch.einsum("ecd,ehd->ech", rows, layer.w1))
    return torch.einsum("tec,ecd->td", combine, torch.einsum("ech,edh->ecd", h, layer.w2))


def one_hot_bytes(layer: Layer, pool) -> int:
    """Of its largest tensor."""
    room = max(int(torch.bincount(index.flatten()).max()) for index, _ in pool)
    return layer.x.element_size() * room * layer.experts * max(layer.tokens, layer.w1.shape[1])


def peers_of(layer: Layer, pool, training: bool = False, quick: bool = False) -> dict:
    """Everything to be raced, ours first. quick: where a call takes long, without the slowest."""
    found = {"ours": ours, "torch": partial(ours, backend="torch"), "naive": naive, "sorted": sorted_linear,
             "grouped_mm": grouped, "padded": padded, "one-hot": one_hot}
    if not hasattr(F, "grouped_mm"):
        del found["grouped_mm"]
    if one_hot_bytes(layer, pool) > MOST:
        del found["one-hot"]
    if training and layer.experts > 8:
        del found["naive"]                                           # writes a zero gradient of all experts for each
    if quick and (training or layer.d == 1024):
        found = {name: peer for name, peer in found.items() if name not in ("naive", "one-hot")}
    return {name: found[name] for name in ("ours", "torch", "grouped_mm") if name in found} \
        if layer.tokens >= 4096 else found


# The dense base ------------------------------------------------------------------------------------------------------

def product(rows: Tensor, weight: Tensor, then: str = "none", how: str = "") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, None, then, [], how)


def convolved(rows: Tensor, w1: Tensor, w2: Tensor, act, images: int) -> Tensor:
    """1x1 convolutions; torch has oneDNN do them on one thread only if there are many images."""
    h = rows.view(images, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)  # [N, d, rows / N, 1], channels last
    h = act(F.conv2d(h, w1[:, :, None, None]).movedim(1, 3)).movedim(3, 1)
    return F.conv2d(h, w2[:, :, None, None]).movedim(1, 3).reshape(rows.shape)


def dense_forms(layer: Layer, training: bool = False) -> dict:
    """{name: call} of T * k rows through one expert."""
    random = torch.Generator().manual_seed(2)
    rows = torch.randn(layer.tokens * K, layer.d, generator=random).to(layer.x.dtype).requires_grad_(training)
    w1, w2 = (w[0].detach().clone().requires_grad_(training) for w in (layer.w1, layer.w2))
    act = layer.act
    found = {"F.linear": lambda: F.linear(act(F.linear(rows, w1)), w2),
             "1x1 conv2d": lambda: convolved(rows, w1, w2, act, 1),
             "1x1 conv2d of 16 images": lambda: convolved(rows, w1, w2, act, 16)}
    if training:
        g = torch.randn(rows.shape, generator=random)

        def learning(forward):
            torch.autograd.grad(forward(), (rows, w1, w2), g)
        return {name: partial(learning, forward) for name, forward in found.items()}
    found["oneDNN linear"] = lambda: product(act(product(rows, w1)), w2)
    own1, own2 = (torch.ops.mkldnn._reorder_linear_weight(w, None) for w in (w1, w2))
    found["oneDNN linear, reordered once"] = lambda: product(act(product(rows, own1)), own2)
    if act is gelu:
        found["oneDNN linear, reordered once" + FUSED] = lambda: product(product(rows, own1, "gelu", "tanh"), own2)
    return found


# Rows ----------------------------------------------------------------------------------------------------------------

class Report(common.Report):
    """Rows as they are measured, printed at once, and the goals that they meet."""
    def __init__(self, quick: bool):
        super().__init__(5 if quick else 9)
        self.quick = quick

    def race(self, base, calls: dict) -> evidence.Race:
        return evidence.race(base, calls, rounds=self.rounds, target=TARGET, attempts=2 if self.quick else 3)

    def measure(self, part: str, layer: Layer, calls: dict, error: float, pool=None, passes: int = 1) -> None:
        """One row. passes: 3 with the backward pass, both for MACs and for bytes."""
        forms = dense_forms(layer, passes > 1)
        base, dense = best_dense(forms, 3 if self.quick else 5)
        operator = kernel_of(dense)
        weights = [w.detach().view(-1) for w in (layer.w1, layer.w2)]
        if base.endswith(FUSED):                                     # for information: how much that is
            calls = calls | {"dense, GELU apart": forms[base.removesuffix(FUSED)]}
        row = self.race(dense, {**calls, "reading": lambda: [w.sum() for w in weights]})
        reading, hit = row.ratios.pop("reading")[0], layer.hit(pool or layer.pool)
        held, seconds = sum(w.nbytes for w in weights), row.seconds["base"]
        floor = max(1.0, passes * hit * reading)
        over = {name: ratio[0] / floor for name, ratio in row.ratios.items()}
        goals = self.goals(part, layer, {name: ratio[0] for name, ratio in row.ratios.items()}, over["ours"])
        self.rows.append({
            "part": part, "shape": layer.name, "d": layer.d, "experts": layer.experts, "tokens": layer.tokens, "k": K,
            "dtype": str(layer.x.dtype).removeprefix("torch."), "macs": passes * layer.macs, "bytes": held,
            "bytes_hit": held * hit, "read_gb_per_s": held / (reading * seconds) / 1e9, "base": base,
            "operator": operator, "base_seconds": seconds, "base_gflops": 2 * passes * layer.macs / seconds / 1e9,
            "ratios": row.ratios, "roofline": floor, "over_roofline": over, "noise": row.noise, "void": row.void,
            "error": error, "goals": goals})
        kept = self.rows[-1]
        self.show(kept, f"roofline {floor:.2f}: {kept['macs'] / 1e6:.0f}M MACs or {'3 x ' * (passes > 1)}"
                        f"{kept['bytes_hit'] / 1e6:.0f} MB at {kept['read_gb_per_s']:.0f} GB/s, "
                        f"over roofline {over['ours']:.2f}; error {error:.0e}; ")

    def goals(self, part: str, layer: Layer, ratio: dict, over: float) -> list[dict]:
        found, goal = [], GOALS.get((part, layer.d, layer.experts, layer.tokens))
        if goal:
            found.append({"of": "over dense", "value": ratio["ours"], "goal": goal})
        if part == "forward":
            found.append({"of": "over roofline", "value": over, "goal": ROOFLINE})
        if part == "training" and "grouped_mm" in ratio:
            found.append({"of": "over grouped_mm", "value": ratio["ours"] / ratio["grouped_mm"], "goal": GROUPED})
        if part == "transformers":
            best = min(ratio["eager"], ratio["grouped_mm"])
            found.append({"of": "over transformers' best", "value": ratio["ours"] / best, "goal": 1 / FASTER})
        return found

    def show(self, row: dict, said: str) -> None:
        print(f"{row['part']:<13}{row['shape']:<16}"
              + "  ".join(f"{name} {shown(*ratio)}" for name, ratio in row["ratios"].items()))
        verdicts = "".join(
            f"{g['of']} {g['value']:.2f} <= {g['goal']:.2f}: "
            + self.judge(g["value"] / g["goal"] - 1, row["void"], row["part"], row["shape"], g["of"])
            for g in row["goals"])
        print(f"{'':<13}{said}{row['base']} ({row['operator']}) {row['base_gflops']:.0f} GF/s, A/A {row['noise']:.3f}"
              f"{', void' if row['void'] else ''}\n{'':<13}{verdicts or 'no goal'}", flush=True)


def calls_of(layer: Layer, pool, peers: dict) -> dict:
    return {name: cycled(lambda routing, peer=peer: peer(layer, *routing), pool) for name, peer in peers.items()}


def same(layer: Layer, pool, peers: dict, expected: Tensor) -> None:
    """Raises RuntimeError where a peer does not compute what it is compared for."""
    most = 0.05 if layer.x.dtype is torch.bfloat16 else 1e-4
    for name, peer in peers.items():
        if not (error := error_of([peer(layer, *pool[0])], [expected])) < most:
            raise RuntimeError(f"{layer.name}: {name} is off by {error:.1e}")


def forward(report: Report, part: str = "forward", dtype=torch.float32) -> None:
    for d, experts, tokens in itertools.product(WIDTHS, EXPERTS, TOKENS):
        wanted = (part, d, experts, tokens) in GOALS or (part == "forward" and d == 256)
        if report.quick and (not wanted or tokens > 512 or (d == 1024 and (experts > 8 or part == "half"))):
            continue
        layer = Layer(d, experts, tokens, dtype)
        peers = peers_of(layer, layer.pool, quick=report.quick)
        with torch.inference_mode():
            (expected,) = exact(layer, *layer.pool[0])
            same(layer, layer.pool, peers, expected)
            error = error_of([ours(layer, *layer.pool[0])], [expected])
            report.measure(part, layer, calls_of(layer, layer.pool, peers), error)


def training(report: Report) -> None:
    for d, experts, tokens in itertools.product(WIDTHS, EXPERTS, (64, 512)):
        if (d == 1024 and experts > 8) or (report.quick and ("training", d, experts, tokens) not in GOALS
                                           and (d, experts, tokens) != (256, 64, 512)) or (report.quick and d == 1024):
            continue
        layer = Layer(d, experts, tokens)
        layer.pool = [(index, weight.requires_grad_()) for index, weight in layer.pool]
        learnt = [t.requires_grad_() for t in (layer.x, layer.w1, layer.w2)]
        g = torch.randn(tokens, d, generator=torch.Generator().manual_seed(3))

        def both(peer, layer, index, weight, learnt=learnt, g=g):
            y = peer(layer, index, weight)
            gx, gw1, gw2, gweight = torch.autograd.grad(y, (*learnt, weight), g)
            return y.detach(), gx, gweight, gw1, gw2

        peers = peers_of(layer, layer.pool, True, report.quick)
        expected = exact(layer, *layer.pool[0], g)
        error = error_of(both(ours, layer, *layer.pool[0]), expected)
        same(layer, layer.pool, {n: (lambda *a, p=p: p(*a).detach()) for n, p in peers.items()}, expected[0])
        report.measure("training", layer, calls_of(layer, layer.pool, {n: partial(both, p) for n, p in peers.items()}),
                       error, passes=3)


def skew(report: Report) -> None:
    """Balanced against skewed routing, same sizes; the base is ours with balanced routing."""
    for d, experts, tokens in itertools.product(WIDTHS, EXPERTS, TOKENS):
        if tokens == 64 or (d == 1024 and experts > 8) or (report.quick and (d > 256 or tokens > 512)):
            continue
        layer = Layer(d, experts, tokens)
        pools = {"balanced": layer.pool, "skewed": layer.routings(skewed=True)}
        with torch.inference_mode():
            calls = {}
            for how, pool in pools.items():
                peers = {n: p for n, p in peers_of(layer, pool).items() if n not in ("naive", "one-hot")}
                same(layer, pool, peers, exact(layer, *pool[0])[0])
                calls |= {f"{name} {how}": call for name, call in calls_of(layer, pool, peers).items()}
            base = calls.pop("ours balanced")
            found = report.race(base, calls)
        busiest = {how: max(int(torch.bincount(index.flatten()).max()) for index, _ in pool)
                   for how, pool in pools.items()}
        row = {"part": "skew", "shape": layer.name, "d": d, "experts": experts, "tokens": tokens, "k": K,
               "busiest": busiest, "hit": {how: layer.hit(pool) for how, pool in pools.items()},
               "base": "ours balanced", "operator": kernel_of(base), "base_seconds": found.seconds["base"],
               "base_gflops": 2 * layer.macs / found.seconds["base"] / 1e9, "ratios": found.ratios,
               "noise": found.noise, "void": found.void,
               "goals": [{"of": "skewed over balanced", "value": found.ratios["ours skewed"][0], "goal": SKEW}]}
        report.rows.append(row)
        report.show(row, f"busiest expert {busiest['balanced']} and {busiest['skewed']} rows, experts hit "
                         f"{row['hit']['balanced']:.0%} and {row['hit']['skewed']:.0%}; ")


def against_transformers(report: Report) -> None:
    """Mixtral's block: router, softmax over all experts, the two best weighed anew, SwiGLU experts."""
    try:
        importlib.import_module("tests.cpu_torchvision")             # transformers imports torchvision where it is
        from transformers import MixtralConfig, __version__
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    except (ImportError, RuntimeError) as error:                     # not there, or what it imports does not load
        print(f"transformers: not measured, as it is none of our dependencies and cannot be imported here "
              f"({type(error).__name__}: {str(error).splitlines()[0]})", flush=True)
        return
    print(f"transformers {__version__} (none of our dependencies): MixtralSparseMoeBlock, the same weights", flush=True)
    for d, experts, tokens in itertools.product(WIDTHS, EXPERTS, (64, 512)):
        if (d == 1024 and experts > 8) or (
                report.quick and (d, experts, tokens) not in ((256, 8, 64), (256, 8, 512), (256, 64, 512),
                                                              (512, 8, 512))):
            continue
        layer = Layer(d, experts, tokens, inner=8, act=swiglu)
        pool = [torch.randn(1, tokens, d, generator=torch.Generator().manual_seed(i)) for i in range(POOL)]
        blocks = {}
        with torch.inference_mode():
            gate = torch.randn(experts, d, generator=torch.Generator().manual_seed(4)).mul_(d**-0.5)
            for how in ("eager", "grouped_mm"):
                with torch.device("meta"):
                    block = MixtralSparseMoeBlock(MixtralConfig(
                        hidden_size=d, intermediate_size=4 * d, num_local_experts=experts, num_experts_per_tok=K,
                        experts_implementation=how))
                block.load_state_dict({"gate.weight": gate, "experts.gate_up_proj": layer.w1,
                                       "experts.down_proj": layer.w2}, assign=True)
                blocks[how] = block.eval()

            def routed(x, gate=gate):
                weight, index = F.linear(x, gate).softmax(1).topk(K)
                return index, weight / weight.sum(1, keepdim=True)

            def block_of_ours(x, layer=layer, routed=routed, backend=None):
                x = x.flatten(0, 1)
                index, weight = routed(x)
                return expert_ffn(x, index, weight, layer.w1, layer.w2, activation="swiglu", backend=backend)

            layer.x = pool[0][0]
            (expected,) = exact(layer, *routed(layer.x))
            for how, block in blocks.items():
                if not (error := error_of([block(pool[0])[0]], [expected])) < 1e-4:
                    raise RuntimeError(f"{layer.name}: transformers' {how} is off by {error:.1e}")
            calls = {"ours": block_of_ours, "torch": partial(block_of_ours, backend="torch"), **blocks}
            report.measure("transformers", layer, {name: cycled(call, pool) for name, call in calls.items()},
                           error_of([block_of_ours(pool[0])], [expected]), [routed(x[0]) for x in pool])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0],
                                     epilog="example: python -m benchmarks.experts --quick --only forward")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows there")
    parts = {"forward": forward, "half": partial(forward, part="half", dtype=torch.bfloat16), "training": training,
             "skew": skew, "transformers": against_transformers}
    parser.add_argument("--only", choices=parts, action="append",
                        help="one part; may be given again; rows of other parts that FILE has stay")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    report = Report(args.quick)
    print(heading() + ("" if keep_memory() else ", freed memory goes back to the system"), flush=True)
    for part in args.only or parts:
        parts[part](report)
    return report.close("python -m benchmarks.experts", args.json, tuple(args.only or ()))


if __name__ == "__main__":
    sys.exit(main())
