"""The definition: expert by expert, slot by slot. Any floating-point dtype, any device."""
from __future__ import annotations

import torch
from torch import Tensor

from .activations import activate, derive


def takes(x: Tensor) -> bool:
    return True


def forward(x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor, b1: Tensor | None,
            w2: Tensor, b2: Tensor | None, activation: str, keep: bool) -> tuple[Tensor, Tensor, int]:
    """As in operator.py; half precisions are computed in float32 and rounded once."""
    y, issued = wide(x).new_zeros(len(x), w2.shape[1]), 0
    pre = wide(x).new_empty(len(order) if keep else 0, w1.shape[1])
    for row, e, t, j in _slots(order, offsets, k):
        before = _with(b1, e, wide(w1[e]) @ wide(x[t]))
        out = _with(b2, e, wide(w2[e]) @ activate(before, activation))
        y[t] += out if weight is None else wide(weight[t, j]) * out
        issued += w1[e].numel() + w2[e].numel()
        if keep:
            pre[row] = before
    return y.to(x.dtype), pre.to(x.dtype), issued


def backward(g: Tensor, x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor,
             b1: Tensor | None, w2: Tensor, b2: Tensor | None, activation: str, pre: Tensor,
             needs: list[bool]) -> tuple[Tensor | None, ...]:
    """As in operator.py: all six are found, those not needed are left out."""
    inputs = x, weight, w1, b1, w2, b2
    gx, gweight, gw1, gb1, gw2, gb2 = (None if t is None else torch.zeros_like(wide(t)) for t in inputs)
    for row, e, t, j in _slots(order, offsets, k):
        before, gy = wide(pre[row]), wide(g[t])
        h = activate(before, activation)
        gout = gy if weight is None else wide(weight[t, j]) * gy
        gbefore = derive(wide(w2[e]).T @ gout, before, activation)
        gx[t] += wide(w1[e]).T @ gbefore
        gw1[e] += torch.outer(gbefore, wide(x[t]))
        gw2[e] += torch.outer(gout, h)
        if weight is not None:
            gweight[t, j] = gy @ _with(b2, e, wide(w2[e]) @ h)
        if b1 is not None:
            gb1[e] += gbefore
        if b2 is not None:
            gb2[e] += gout
    found = gx, gweight, gw1, gb1, gw2, gb2
    return tuple(t.to(x.dtype) if need else None for t, need in zip(found, needs, strict=True))


def _slots(order: Tensor, offsets: Tensor, k: int):
    """(row in `order`, expert, token, its slot j) of each slot."""
    bounds, slots = offsets.tolist(), order.tolist()
    for e in range(len(bounds) - 1):
        for row in range(bounds[e], bounds[e + 1]):
            yield row, e, *divmod(slots[row], k)


def _with(bias: Tensor | None, e: int, value: Tensor) -> Tensor:
    return value if bias is None else value + wide(bias[e])


def wide(t: Tensor) -> Tensor:
    """Half precisions as float32: sums are made in it."""
    return t.float() if t.dtype.itemsize < 4 else t
