"""`dynnotes::experts` and its gradient as operators of torch: shapes, autograd, and MACs from the shapes.

The operators take the compact list of slots (`sorted_slots`), so what they cost can be read from their inputs by any
counter: len(order) times the size of one expert. What a backend really issued is the third result.

A backend is a module with
    takes(x) -> bool                  whether it is there on this machine, for inputs like x
    forward(x, order, offsets, k, weight, w1, b1, w2, b2, activation, keep) -> (y [T, D2], pre, issued: int)
        with `keep`, pre [R, H1] is what the activation got, row r for slot order[r]; else [0, H1]
    backward(g, x, order, offsets, k, weight, w1, b1, w2, b2, activation, pre, needs)
        -> the gradients of x, weight, w1, b1, w2, b2, None where `needs` (six bools, in that order) is false
Lists are checked before they get there; strides may be any.
"""
from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..masked_conv.operator import overheard
from . import grouped, native, reference, tiles

# From the slowest to the fastest: the last one that takes the inputs is `best`.
BACKENDS: dict[str, ModuleType] = {"reference": reference, "torch": grouped, "triton": tiles, "cpu": native}

_LIBRARY = torch.library.Library("dynnotes", "FRAGMENT")
_EXPERTS = ("Tensor x, Tensor order, Tensor offsets, int k, Tensor? weight, Tensor w1, Tensor? b1, Tensor w2, "
            "Tensor? b2, str activation")
_LIBRARY.define(f"experts({_EXPERTS}, bool keep, str backend) -> (Tensor, Tensor, Tensor)")
_LIBRARY.define(f"experts_backward(Tensor g, {_EXPERTS}, Tensor pre, bool[] needs, str backend) "
                "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")


def call(x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor, b1: Tensor | None,
         w2: Tensor, b2: Tensor | None, activation: str, backend: str) -> Tensor:
    """The experts' value, through torch's dispatcher where someone listens: a gradient, a counter, a compiler."""
    inputs = x, order, offsets, k, weight, w1, b1, w2, b2, activation
    if x.is_meta or overheard(x, w1, b1, weight) or overheard(x, w2, b2, None):
        learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, w1, b1, w2, b2))
        return torch.ops.dynnotes.experts(*inputs, learns, backend)[0]
    return BACKENDS[backend].forward(*inputs, False)[0]


def _check(x: Tensor, order: Tensor, offsets: Tensor, k: int, w1: Tensor, activation: str) -> None:
    """Kernels trust these lists. Raises ValueError where they would lead outside of the slots or the experts."""
    slots, count = len(x) * k, len(order)
    if order.dtype is not torch.int32 or not order.is_contiguous() or order.dim() != 1:
        raise ValueError("dynnotes::experts: order is a contiguous list of int32, as `sorted_slots` makes it")
    if offsets.dtype is not torch.int64 or not offsets.is_contiguous() or offsets.shape != (len(w1) + 1,):
        raise ValueError(f"dynnotes::experts: offsets are {len(w1) + 1} of int64, as `sorted_slots` makes them")
    fits = (offsets[0] == 0) & (offsets[-1] == count) & (offsets[1:] >= offsets[:-1]).all()
    if not fits:
        raise ValueError(f"dynnotes::experts: offsets ascend from 0 to {count}, the length of order")
    if count and (order.min() < 0 or order.max() >= slots or torch.bincount(order, minlength=slots).max() > 1):
        raise ValueError(f"dynnotes::experts: order holds slots from 0 to {slots - 1}, each at most once")


def _forward(x, order, offsets, k, weight, w1, b1, w2, b2, activation, keep, backend):
    _check(x, order, offsets, k, w1, activation)
    y, pre, issued = BACKENDS[backend].forward(x, order, offsets, k, weight, w1, b1, w2, b2, activation, keep)
    return y, pre, torch.tensor(issued, dtype=torch.int64)


def _gradients(g, x, order, offsets, k, weight, w1, b1, w2, b2, activation, pre, needs, backend):
    _check(x, order, offsets, k, w1, activation)
    if pre.shape != (len(order), w1.shape[1]):
        raise ValueError(f"dynnotes::experts_backward: pre is {list(pre.shape)}, not {[len(order), w1.shape[1]]}; the "
                         f"forward pass gives it with `keep`")
    found = BACKENDS[backend].backward(g, x, order, offsets, k, weight, w1, b1, w2, b2, activation, pre, needs)
    return tuple(g.new_empty(0) if t is None else t for t in found)


for _name, _function in (("experts", _forward), ("experts_backward", _gradients)):
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _function, _device)


@torch.library.register_fake("dynnotes::experts", lib=_LIBRARY)
def _(x, order, offsets, k, weight, w1, b1, w2, b2, activation, keep, backend):
    return (x.new_empty(x.shape[0], w2.shape[1]), x.new_empty(order.shape[0] if keep else 0, w1.shape[1]),
            torch.empty((), dtype=torch.int64))


@torch.library.register_fake("dynnotes::experts_backward", lib=_LIBRARY)
def _(g, x, order, offsets, k, weight, w1, b1, w2, b2, activation, pre, needs, backend):
    return tuple(torch.empty(t.shape if need else (0,), dtype=g.dtype, device=g.device)
                 for t, need in zip((x, weight, w1, b1, w2, b2), needs, strict=True))


def _remember(ctx, inputs, output):
    x, order, offsets, k, weight, w1, b1, w2, b2, activation, keep, backend = inputs
    if not keep:
        raise RuntimeError("dynnotes::experts: a gradient needs what the activation got; call it with keep=True")
    ctx.save_for_backward(x, order, offsets, weight, w1, b1, w2, b2, output[1])
    ctx.k, ctx.activation, ctx.backend = k, activation, backend
    ctx.mark_non_differentiable(output[1], output[2])


def _backward(ctx, g, *_):
    x, order, offsets, weight, w1, b1, w2, b2, pre = ctx.saved_tensors
    need = ctx.needs_input_grad
    needs = [need[0], *need[4:9]]
    found = torch.ops.dynnotes.experts_backward(g, x, order, offsets, ctx.k, weight, w1, b1, w2, b2, ctx.activation,
                                                pre, needs, ctx.backend)
    gx, *others = (t if wanted else None for t, wanted in zip(found, needs, strict=True))
    return gx, None, None, None, *others, None, None, None


def _no_second(ctx, *_):
    raise RuntimeError("dynnotes::experts: there is no second derivative")


torch.library.register_autograd("dynnotes::experts", _backward, setup_context=_remember, lib=_LIBRARY)
torch.library.register_autograd("dynnotes::experts_backward", _no_second, lib=_LIBRARY)


def _products(w1, w2) -> tuple[int, int]:
    """MACs of one slot in each of the two products."""
    return w1[1] * w1[2], w2[1] * w2[2]


@register_flop_formula(torch.ops.dynnotes.experts)
def _(x, order, offsets, k, weight, w1, b1, w2, *_, **__):
    return 2 * order[0] * sum(_products(w1, w2))


@register_flop_formula(torch.ops.dynnotes.experts_backward)
def _(g, x, order, offsets, k, weight, w1, b1, w2, b2, activation, pre, needs, *_, **__):
    """Each product has one gradient for what it got and one for its weights; only those that are asked for."""
    first, second = _products(w1, w2)
    to_x, to_weight, to_w1, to_b1, to_w2, _ = needs
    return 2 * order[0] * (second * ((to_x or to_weight or to_w1 or to_b1) + to_w2) + first * (to_x + to_w1))
