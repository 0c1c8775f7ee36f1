"""Feed-forward experts of which each token takes a few, in time proportional to the few.

    y = expert_ffn(x, index, weight, w1, w2, b1=b1, b2=b2, activation="gelu")

`index` [T, k] says which experts each token goes to, `weight` [T, k] what each answer counts. Nothing is dropped that
`index` does not drop (-1), and nothing is padded. Backends compute the same: `reference` (the definition), `torch`
(slots sorted by expert, one product per expert), `cpu` (compiled on first use: the rows of all experts where they
stand, in one call), `triton` (grouped products on a GPU).
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .activations import ACTIVATIONS, hidden
from .operator import BACKENDS, call

__all__ = ["ACTIVATIONS", "Slots", "best", "expert_ffn", "sorted_slots"]

MOST = 2**31 - 1                                                     # slots: lists of them are int32


class Slots(NamedTuple):
    """Slots t * k + j that are not dropped, grouped by expert and ascending within each: what kernels work through.

    order: [R] int32; offsets: [E + 1] int64, expert e has order[offsets[e]:offsets[e + 1]]. Dropped: T * k - R.
    """
    order: Tensor
    offsets: Tensor


def expert_ffn(x: Tensor, index: Tensor, weight: Tensor | None, w1: Tensor, w2: Tensor, *, b1: Tensor | None = None,
               b2: Tensor | None = None, activation: str = "relu", backend: str | None = None) -> Tensor:
    """The sum over each token's slots j of weight[t, j] * (w2_e act(w1_e x_t + b1_e) + b2_e), e = index[t, j]: [T, D2].

    x: [T, D]; index: [T, k], integers: an expert, or -1 where the slot is dropped; weight: [T, k], or None for ones;
    w1: [E, H1, D] and w2: [E, D2, H], each expert's as nn.Linear stores it; b1: [E, H1]; b2: [E, D2].
    activation: "relu", "gelu", "gelu_tanh", "silu", "none", with H1 = H; or "swiglu", with H1 = 2H: silu of the first
    half of w1's outputs times the second half. A token may take the same expert twice, or none: then its row is zero.
    What `weight` holds at a dropped slot is never read, and its gradient there is zero.
    float32, float64, bfloat16 (summed in float32), and what else torch has, by the "torch" backend.
    Gradients reach x, weight, w1, w2, b1 and b2. backend: None for the best there is.
    Raises ValueError for shapes, devices, dtypes or indices that do not fit; the message says which.
    """
    _check(x, index, weight, w1, w2, b1, b2, activation, backend)
    order, offsets = sorted_slots(index, len(w1))
    return call(x, order, offsets, index.shape[1], weight, w1, b1, w2, b2, activation, backend or best(x))


def sorted_slots(index: Tensor, experts: int) -> Slots:
    """The slots of `index` [T, k] by expert. On the meta device, where no value is known, as if none were dropped.

    Raises ValueError for an index that is neither an expert nor -1, and for more slots than int32 can number.
    """
    if index.numel() > MOST:
        raise ValueError(f"experts: {list(index.shape)} are {index.numel()} slots; lists of them are int32, which ends "
                         f"at {MOST}: split the tokens")
    if index.is_meta:
        return Slots(index.new_empty(index.numel(), dtype=torch.int32), index.new_empty(experts + 1, dtype=torch.int64))
    found = native.sorted_slots(index, experts)
    if isinstance(found, tuple):
        return Slots(*found)
    flat = index.flatten()
    if len(flat):
        low, high = (int(end) for end in flat.aminmax())
        if low < -1 or high >= experts:
            raise ValueError(f"experts: index has {low if low < -1 else high}; there are experts 0 to {experts - 1}, "
                             f"and -1 for a slot that is dropped")
    counts = torch.bincount(flat.long() + 1, minlength=experts + 1)  # of the dropped, then of each expert
    ends = counts.cumsum(0)
    order = flat.argsort(stable=True)
    return Slots(order[int(counts[0]):].int(), ends - ends[0])


def best(x: Tensor) -> str:
    """The fastest backend for inputs like `x`; triton's interpreter, which is for tests, only where it is asked for."""
    return next(name for name in reversed(BACKENDS) if BACKENDS[name].takes(x) and (x.is_cuda or name != "triton"))


def _check(x, index, weight, w1, w2, b1, b2, activation, backend) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"experts: no activation {activation!r}; one of {', '.join(ACTIVATIONS)}")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"experts: no backend {backend!r}; one of {', '.join(BACKENDS)}")
    for name, t, axes in (("x", x, "[T, D]"), ("index", index, "[T, k]"), ("w1", w1, "[E, H1, D]"),
                          ("w2", w2, "[E, D2, H]")):
        if t.dim() != len(axes.split()):
            raise ValueError(f"experts: {name} is {axes}, not {list(t.shape)}")
    tokens, width = x.shape
    experts, inner, outputs = len(w1), w1.shape[1], w2.shape[1]
    if activation == "swiglu" and inner % 2:
        raise ValueError(f"experts: swiglu halves what w1 gives, and {inner} is odd")
    for name, t, shape in (("index", index, [tokens, index.shape[1]]), ("weight", weight, [tokens, index.shape[1]]),
                           ("w1", w1, [experts, inner, width]), ("b1", b1, [experts, inner]),
                           ("w2", w2, [experts, outputs, hidden(inner, activation)]), ("b2", b2, [experts, outputs])):
        if t is None:
            continue
        if list(t.shape) != shape:
            raise ValueError(f"experts: {name} is {list(t.shape)}, not {shape}")
        if t.device != x.device:
            raise ValueError(f"experts: {name} is on {t.device}, x on {x.device}")
        if t is not index and t.dtype is not x.dtype:
            raise ValueError(f"experts: {name} is {t.dtype}, x {x.dtype}")
    if not x.is_floating_point():
        raise ValueError(f"experts: x is {x.dtype}, which has no activation; use a floating-point dtype")
    if index.is_floating_point() or index.is_complex() or index.dtype is torch.bool:
        raise ValueError(f"experts: index is {index.dtype}, not of integers")
    if backend is not None and not BACKENDS[backend].takes(x):
        raise ValueError(f"experts: the {backend} backend is not there on this machine, or does not take {x.dtype} on "
                         f"{x.device}")
