"""The grammar of skipping: each verb runs a module where a gate is on and returns (value, Trace).

Every verb has two forms that give the same value. Dense computes everything and selects: the form to train in.
Sparse computes only what the gate keeps: the form to measure. Nothing kept gives zeros in both.
Gates are 0 or 1 at inference; soft gates are for training, in the dense form.
"""
from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .cost import outline, price, zeros
from .dynamic import Dynamic
from .experts import FeedForwardExperts
from .kernels.masked_conv import masked_conv2d
from .trace import Decision, Trace


def run(module: nn.Module, *xs) -> tuple:
    """Run `module` on every sample. A Dynamic is just called and brings its own trace."""
    if isinstance(module, Dynamic):
        return module(*xs)
    return module(*xs), Trace.static(_first(xs), price(module, *xs).macs)


def run_if(gate: Tensor, module: nn.Module, *xs, name: str, sparse: bool, kind: str = "layer",
           weight: Tensor | None = None) -> tuple:
    """Run `module` on the samples whose `gate` [B] is on; the others get zeros.

    `weight` [B]: the soft value behind the gate, kept in the trace. `module` may be a Dynamic: its own decisions are
    then off for the samples that skip it.
    Sparse: gather the rows, call, scatter.
    """
    if not isinstance(module, Dynamic):
        cost = price(module, *xs)
        bill = gate.double() * cost.macs
        trace = Trace(bill, torch.full_like(bill, cost.macs), (Decision(name, kind, gate, cost.macs, weight),))
        if not sparse:
            return _select(gate, module(*xs)), trace
        on = _hard(gate, "run_if").nonzero().squeeze(1)
        if len(on) == 0:
            return zeros(cost.shapes, len(gate), gate.device), trace
        return _scatter(module(*_rows(xs, on)), on, len(gate)), trace

    on = _hard(gate, "run_if").nonzero().squeeze(1) if sparse else None
    if not sparse:
        y, inner = module(*xs)
        y, spent, full = _select(gate, y), gate.double() * inner.spent, inner.full
        inside = tuple(replace(d, gate=d.gate * _over(gate, d.gate).to(d.gate.dtype)) for d in inner.decisions)
    elif len(on):
        y, inner = module(*_rows(xs, on))
        y, spent = _scatter(y, on, len(gate)), _scatter(inner.spent, on, len(gate))
        full = inner.full[:1].expand(len(gate))
        inside = tuple(_scatter_decision(d, on, len(gate)) for d in inner.decisions)
    else:
        shapes, inner = outline(module, *xs)
        y, full = zeros(shapes, len(gate), gate.device), inner.full.expand(len(gate))
        spent = torch.zeros_like(full)
        inside = tuple(replace(d, gate=d.gate.new_zeros(len(gate), *d.gate.shape[1:])) for d in inner.decisions)
    each = float(full[0]) if len(full) else 0.0
    return y, Trace(spent, full, (Decision(name, kind, gate, each, weight), *inside))


def run_while(stages, leave, x, *, name: str = "exit", sparse: bool, kind: str = "exit") -> tuple:
    """Run `stages` one after another until each sample leaves.

    A stage maps the carried state (any pytree of batch-first tensors) to (state, answer). `leave(i, answer)` -> [B]
    bool says who leaves after stage i; after the last stage everyone does. The value is each sample's answer where it
    left; the decision's gate [B, stages] is 1 where the stage ran.
    Sparse: rows that leave are written once; the rest stay packed, never scattered between stages. Stages after the
    last sample left are not run, nor in the dense form while a gradient is recorded: they would add nothing to it.
    Raises TypeError for a stage that is itself a Dynamic: gate inside the stage with another verb, and add the traces.
    """
    if any(isinstance(stage, Dynamic) for stage in stages):
        raise TypeError(f"run_while {name!r}: a stage is static, a module (state) -> (state, answer)")
    batch = len(_first((x,)))
    device = _first((x,)).device
    alive = torch.arange(batch, device=device)                       # original row of each row still inside
    inside = torch.ones(batch, dtype=torch.bool, device=device)
    gates, macs, y = [], [], None
    for i, stage in enumerate(stages):
        cost = price(stage, x)
        macs.append(cost.macs)
        gates.append(inside)
        if y is None:
            y = zeros(cost.shapes[1], batch, device)            # a stage returns (state, answer)
        if (sparse or torch.is_grad_enabled()) and not inside.any():     # no one to compute or to learn from, but the
            x = zeros(cost.shapes[0], 0 if sparse else batch, device)    # next price needs a shape
            continue
        x, answer = stage(x)
        last = i == len(stages) - 1
        out = torch.ones(len(_first((answer,))), dtype=torch.bool, device=device) if last else leave(i, answer).bool()
        if sparse:
            y = pytree.tree_map(lambda all_, new, out=out, alive=alive: all_.index_copy(0, alive[out], new[out]),
                                y, answer)
            inside = inside.index_fill(0, alive[out], False)
            x, alive = pytree.tree_map(lambda t, out=out: t[~out], x), alive[~out]
        else:
            now = inside & out
            y = pytree.tree_map(lambda all_, new, now=now: torch.where(_over(now, new), new, all_), y, answer)
            inside = inside & ~out
    gate = torch.stack(gates, 1).double()                            # [B, stages]
    bill = (gate * gate.new_tensor(macs)).sum(1)                     # elementwise: a product would bill itself
    return y, Trace(bill, torch.full_like(bill, sum(macs)), (Decision(name, kind, gate, tuple(macs)),))


def run_channels(gate: Tensor, module: nn.Module, x: Tensor, *, name: str, sparse: bool,
                 inputs: Tensor | None = None) -> tuple:
    """Compute the output channels whose `gate` [B, C] is on; the others are zero, bias included.

    `module`: nn.Linear (channels last: [B, *, C]), or a convolution (channels first) with groups 1 or depthwise.
    `inputs` [B, C_in]: which input channels are on (zero where off), so that a layer after a gated layer skips on both
    sides. Sparse: samples with the same channels share one sliced product.
    """
    depthwise = _check_channels(module)
    cost, axis = price(module, x), -1 if isinstance(module, nn.Linear) else 1
    each = cost.macs / gate.shape[1]
    bill = gate.double().sum(1) * each
    if inputs is not None and not depthwise:                         # whole numbers first: the bill stays exact
        bill = gate.double().sum(1) * inputs.double().sum(1) * (cost.macs / (gate.shape[1] * inputs.shape[1]))
    trace = Trace(bill, torch.full_like(bill, cost.macs), (Decision(name, "channel", gate, each),))
    if not sparse:
        return _select(gate, module(x).movedim(axis, 1)).movedim(1, axis), trace
    keep = _hard(gate, "run_channels")
    feed = torch.ones(len(x), x.shape[axis], dtype=torch.bool, device=x.device) if inputs is None \
        else _hard(inputs, "run_channels")
    y = zeros(cost.shapes, len(x), x.device).movedim(axis, 1)
    patterns, owner = torch.unique(torch.cat([keep, feed], 1), dim=0, return_inverse=True)
    for p, pattern in enumerate(patterns):
        some_out, some_in = pattern[:keep.shape[1]], pattern[keep.shape[1]:]
        outs, rows = _some(some_out), _some(owner == p)
        if not some_out.any():
            continue
        if some_in.any():
            few = _sliced(module, x[rows], outs, _some(some_in), depthwise)
        elif module.bias is not None:
            few = module.bias[outs].view(-1, *[1] * (y.dim() - 2))
        else:
            continue
        if isinstance(rows, slice):
            y[rows, outs] = few
        else:
            y[rows[:, None], some_out.nonzero().squeeze(1)] = few
    return y.movedim(1, axis), trace


def run_where(gate: Tensor, module: nn.Conv2d, x: Tensor, *, name: str, sparse: bool) -> tuple:
    """Compute the output pixels of one convolution where `gate` [B, 1, H_out, W_out] is on; zero elsewhere.

    Sparse: the masked-convolution kernel (kernels/masked_conv). Its gradient reaches `x`, the weights, and the gate
    where it is on.
    Raises TypeError unless `module` is an nn.Conv2d with zero padding, ValueError if the mask has another size.
    """
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise TypeError("run_where takes an nn.Conv2d with numeric zero padding")
    cost = price(module, x)
    _, *grid = cost.shapes.size
    if list(gate.shape[1:]) != [1, *grid]:
        raise ValueError(f"run_where {name!r}: the gate is {list(gate.shape)}, "
                         f"the output needs [B, 1, {grid[0]}, {grid[1]}]")
    each = cost.macs / (grid[0] * grid[1])
    bill = gate.double().flatten(1).sum(1) * each
    trace = Trace(bill, torch.full_like(bill, cost.macs), (Decision(name, "pixel", gate, each, shape=tuple(grid)),))
    if not sparse:
        return _select(gate, module(x)), trace
    y = masked_conv2d(x, _hard(gate.detach(), "run_where"), module.weight, module.bias, stride=module.stride,
                      padding=module.padding, dilation=module.dilation, groups=module.groups)
    return (y * gate.to(y.dtype) if gate.requires_grad else y), trace


def run_kept(gate: Tensor, module: nn.Module, x: Tensor, *, name: str, sparse: bool,
             keys: str | None = "kept") -> tuple:
    """Run `module` on the tokens of `x` [B, N, D] whose `gate` [B, N] is on; the others get zeros.

    `keys` says what a kept token sees. None: only itself; the module is called as m(x).
    "kept": the other kept tokens; called as m(x) on kept tokens, m(x, x, mask) in the dense form.
    "all": every token, those that left stay as keys (and their projections are billed); called as m(x, context).
    Sparse: samples that keep equally many tokens run together, so no padding is computed or billed.
    """
    if keys not in (None, "kept", "all"):
        raise ValueError(f'run_kept {name!r}: keys is "kept", "all" or None, not {keys!r}')
    tokens = x.shape[1]

    def cost_of(n):
        return price(module, x[:, :n], x) if keys == "all" else price(module, x[:, :n])

    full = cost_of(tokens)
    count = gate.double().sum(1)
    bill = _polynomial(count, cost_of, tokens, name)
    trace = Trace(bill, torch.full_like(bill, full.macs),
                  (Decision(name, "token", gate, full.macs / max(tokens, 1)),))
    if not sparse:
        y = module(x) if keys is None else module(x, x) if keys == "all" else module(x, x, gate)
        return _select(gate, y), trace
    keep = _hard(gate, "run_kept")
    y = zeros(full.shapes, len(x), x.device)
    lengths = keep.sum(1)
    for n in lengths.unique().tolist():
        if n == 0:
            continue
        rows = (lengths == n).nonzero().squeeze(1)
        where = keep[rows].nonzero()[:, 1].view(len(rows), n)
        kept = x[rows[:, None], where]
        y[rows[:, None], where] = module(kept, x[rows]) if keys == "all" else module(kept)
    return y, trace


def run_experts(gate: Tensor, modules, x: Tensor, *, name: str, sparse: bool, weight: Tensor | None = None) -> tuple:
    """Sum the outputs of the experts that each token chose, each times its `weight`.

    gate, weight: [*lead, E] for x: [*lead, *features]; lead is [B] (branches) or [B, N] (tokens). Each expert maps
    [tokens, *features] to [tokens, *features_out]. Sparse: each expert runs once on the tokens that chose it;
    FeedForwardExperts in one kernel (kernels/experts).
    Its gradient reaches x, the experts and `weight`, so sparse is legal in training.
    """
    lead = gate.dim() - 1
    flat, chosen = x.flatten(0, lead - 1), gate.flatten(0, lead - 1)           # [T, ...], [T, E]
    mix = chosen if weight is None else weight.flatten(0, lead - 1) * chosen
    stacked = isinstance(modules, FeedForwardExperts)
    costs = [price(m, flat) for m in ([modules] if stacked else modules)]
    macs = (costs[0].macs // len(modules),) * len(modules) if stacked else tuple(c.macs for c in costs)
    each = gate.double() * torch.tensor(macs, dtype=torch.float64, device=gate.device)
    bill, places = each.flatten(1).sum(1), prod(gate.shape[1:-1])
    trace = Trace(bill, torch.full_like(bill, sum(macs) * places), (Decision(name, "expert", gate, macs, weight),))
    hard = _hard(chosen.detach(), "run_experts") if sparse else None
    if stacked:
        y = modules.chosen(flat, hard, mix) if sparse else _select(mix, modules(flat)).sum(1)
        return y.unflatten(0, gate.shape[:lead]), trace
    y = zeros(costs[0].shapes, len(flat), x.device)
    for e, module in enumerate(modules):
        if sparse:
            on = hard[:, e].nonzero().squeeze(1)
            if len(on):
                out = module(flat[on])
                y = y.index_add(0, on, out * _over(mix[on, e], out).to(out.dtype))
        else:
            y = y + _select(mix[:, e], module(flat))
    return y.unflatten(0, gate.shape[:lead]), trace


# What the verbs share ------------------------------------------------------------------------------------------------

def _first(xs) -> Tensor:
    """The first tensor of a pytree: it tells batch size and device."""
    if xs and isinstance(xs[0], Tensor):
        return xs[0]
    for leaf in pytree.tree_leaves(xs):
        if isinstance(leaf, Tensor):
            return leaf
    raise TypeError("no tensor among the inputs")


def _rows(xs, on):
    return pytree.tree_map(lambda x: x[on] if isinstance(x, Tensor) else x, xs)


def _scatter(y, on, batch):
    """Rows `on` of a batch of zeros become `y`."""
    return pytree.tree_map(lambda t: t.new_zeros(batch, *t.shape[1:]).index_copy(0, on, t), y)


def _over(gate: Tensor, y: Tensor) -> Tensor:
    """`gate` with trailing axes of one, so that it broadcasts over `y`."""
    return gate.view(*gate.shape, *[1] * (y.dim() - gate.dim()))


def _select(gate: Tensor, y):
    """gate * y, where a gate of 0 gives 0 even over inf or NaN, unless a gradient must pass through the gate."""
    def one(t):
        g = _over(gate, t).to(t.dtype)
        if gate.requires_grad and torch.is_grad_enabled():
            return g * t                                # a straight-through gate learns from y where it is off
        return torch.where(g != 0, g * t, torch.zeros((), dtype=t.dtype, device=t.device))
    return pytree.tree_map(one, y)


def _hard(gate: Tensor, verb: str) -> Tensor:
    """The gate as bool. Raises when a gradient would be lost or a value is neither 0 nor 1."""
    if gate.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(f'{verb}: execute("sparse") has no gradient for the gate; train with execute("dense"), '
                           "or run under torch.no_grad()")
    if not torch.all((gate == 0) | (gate == 1)):
        raise ValueError(f"{verb}: sparse execution needs gates of exactly 0 or 1 (found soft values or NaN)")
    return gate.bool()


def _scatter_decision(d: Decision, on: Tensor, batch: int) -> Decision:
    def wide(t):
        return None if t is None else _scatter(t, on, batch)
    return replace(d, gate=wide(d.gate), weight=wide(d.weight), at=wide(d.at), log_prob=wide(d.log_prob))


def _polynomial(count: Tensor, cost_of, tokens: int, name: str) -> Tensor:
    """Cost of keeping `count` [B] tokens: exact at integers, smooth between them. Attention is quadratic, no more."""
    if tokens == 0:
        return torch.zeros_like(count)
    p = [cost_of(min(n, tokens)).macs for n in (1, 2, 3)]
    square = (p[2] - 2 * p[1] + p[0]) / 2 if tokens > 2 else 0
    slope = (p[1] - p[0] - 3 * square) if tokens > 1 else 0
    start = p[0] - slope - square
    if start + slope * tokens + square * tokens ** 2 != cost_of(tokens).macs:
        raise ValueError(f"run_kept {name!r}: the module's cost is not quadratic in the number of tokens")
    return torch.where(count > 0, start + slope * count + square * count ** 2, torch.zeros_like(count))


def _check_channels(module) -> bool:
    """True if depthwise. Raises TypeError for a module whose output channels cannot be sliced."""
    if isinstance(module, nn.Linear):
        return False
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.padding_mode == "zeros":
        if module.groups == 1:
            return False
        if module.groups == module.in_channels == module.out_channels:
            return True
    raise TypeError(f"run_channels takes nn.Linear or a convolution with groups 1 or depthwise, not {module}")


def _some(on: Tensor) -> Tensor | slice:
    """Where `on` [N] is true: a slice where those stand together at the front (a view, no copy), else indices."""
    count = int(on.sum())
    return slice(0, count) if bool(on[:count].all()) else on.nonzero().squeeze(1)


def _sliced(module, x, outs, ins, depthwise):
    """`module` with only those output and input channels; the channels of the value stand second."""
    bias = None if module.bias is None else module.bias[outs]
    weight = module.weight[outs]
    if isinstance(module, nn.Linear):
        return F.linear(x[..., ins], weight[:, ins], bias).movedim(-1, 1)
    conv = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}[type(module)]
    geometry = (module.stride, module.padding, module.dilation)
    if depthwise:
        return conv(x[:, outs], weight, bias, *geometry, len(weight))
    return conv(x[:, ins], weight[:, ins], bias, *geometry, 1)
