"""The compiled backend: products of experts over the rows that chose them, where these stand (native.cpp)."""
from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from .. import compiled
from ..masked_conv.weights import kept
from . import grouped
from .activations import activate, derive
from .pages import fresh, in_large_pages

SOURCE = Path(__file__).with_name("native.cpp")
NAMES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
PIECE = 256                                                          # rows: what is between the products stays cached
_PRODUCTS = struct.Struct("14q")                                     # struct Products of native.cpp


@lru_cache
def _functions(library) -> dict:
    number, place = ctypes.c_int64, ctypes.c_void_p
    functions = {}
    for name in NAMES.values():
        for word, result, takes_ in (("packed", number, [number] * 2), ("pack", None, [place] * 2 + [number] * 3),
                                     ("products", number, [ctypes.c_char_p]),
                                     ("summed", None, [place] * 4 + [number] * 4)):
            function = functions[f"{word}_{name}"] = getattr(library, f"dyn_{word}_{name}")
            function.restype, function.argtypes = result, takes_
        for word in ("back", "outer") if name != "bf16" else ():
            function = functions[f"{word}_{name}"] = getattr(library, f"dyn_{word}_{name}")
            function.restype, function.argtypes = number, [ctypes.c_char_p]
    return functions


def _function(word: str, dtype: torch.dtype):
    return _functions(compiled.load(SOURCE))[f"{word}_{NAMES[dtype]}"]


def takes(x: Tensor) -> bool:
    return x.is_cpu and x.dtype in NAMES and compiled.load(SOURCE) is not None


def forward(x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor, b1: Tensor | None,
            w2: Tensor, b2: Tensor | None, activation: str, keep: bool) -> tuple[Tensor, Tensor, int]:
    """As in operator.py."""
    tokens, outputs = len(x), w2.shape[1]
    if not len(order):
        return x.new_zeros(tokens, outputs), x.new_empty(0, w1.shape[1]), 0
    relu = activation == "relu" and not keep                         # done where the sums are
    source, slots = order.div(k, rounding_mode="floor"), x.new_empty(tokens * k, outputs)
    pre = x.new_empty(len(order) if keep else 0, w1.shape[1])
    issued = 0
    for start in range(0, len(order), PIECE):
        own = slice(start, start + PIECE)
        some = offsets.clamp(start, min(start + PIECE, len(order))) - start
        before, first = products(x, w1, b1, some, source=source[own], relu=relu, into=pre[own] if keep else None)
        _, second = products(before if relu else activate(before, activation), w2, b2, some, target=order[own],
                             into=slots)
        issued += first + second
    return summed(slots, order, weight, k), pre, issued


def backward(g: Tensor, x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor,
             b1: Tensor | None, w2: Tensor, b2: Tensor | None, activation: str, pre: Tensor,
             needs: list[bool]) -> tuple[Tensor | None, ...]:
    """As in operator.py. Weights are read as they are, their gradients written where they stay."""
    inputs = x, order, offsets, k, weight, w1, b1, w2, b2, activation
    if x.dtype is torch.bfloat16 or not len(order):
        return grouped.backward(g, *inputs, pre, needs)
    to_x, to_weight, to_w1, to_b1, to_w2, to_b2 = needs
    through = to_x or to_w1 or to_b1                                 # the activation
    g, x, w1, w2 = g.contiguous(), _side_by_side(x), w1.contiguous(), w2.contiguous()
    source = order.div(k, rounding_mode="floor")
    scale = None if weight is None else weight.reshape(-1).index_select(0, order).unsqueeze(1)      # [R, 1]
    gw1, gw2 = (fresh(w) if need else None for w, need in ((w1, to_w1), (w2, to_w2)))
    gb1, gb2 = (torch.empty_like(b) if need else None for b, need in ((b1, to_b1), (b2, to_b2)))
    each = g.new_empty(len(order)) if to_weight else None            # [R]
    slots = x.new_empty(len(x) * k, x.shape[1]) if to_x else None
    for first, last, start, stop in _parts(offsets, PIECE):
        own, of = slice(start, stop), slice(first, last)
        some, where, before = offsets[first:last + 1] - start, source[own], pre[own]
        mix = None if scale is None else scale[own]
        gh = _run("back", g, w2[of], some, source=where) if through or to_weight else None          # [r, H]
        h = activate(before, activation) if to_weight or to_w2 else None
        gout = g.index_select(0, where) if b2 is not None and (to_weight or to_b2) else None        # [r, D2]
        if to_weight:
            each[own] = (h * gh).sum(1)
            if b2 is not None:
                each[own] += (gout * b2[of].repeat_interleave(some.diff(), 0)).sum(1)
        if to_w2:
            _run("outer", h if mix is None else h * mix, gw2[of], some, source=where, into=g)
        if to_b2:
            gb2[of] = torch.segment_reduce(gout if mix is None else gout * mix, "sum", offsets=some, axis=0)
        if not through:
            continue
        gbefore = derive(gh if mix is None else gh.mul_(mix), before, activation)                   # [r, H1]
        if to_w1:
            _run("outer", x.index_select(0, where), gw1[of], some, into=gbefore)
        if to_b1:
            gb1[of] = torch.segment_reduce(gbefore, "sum", offsets=some, axis=0)
        if to_x:
            _run("back", gbefore, w1[of], some, target=order[own], into=slots)
    gweight = None
    if to_weight:
        gweight = weight.new_zeros(weight.shape)
        gweight.view(-1).index_copy_(0, order.long(), each)
    return summed(slots, order, None, k) if to_x else None, gweight, gw1, gb1, gw2, gb2


def _parts(offsets: Tensor, most: int) -> list[tuple[int, int, int, int]]:
    """Neighbouring experts, together with at most so many rows, or one: (first, last + 1, first row, last + 1)."""
    bounds, parts, first = offsets.tolist(), [], 0
    for e in range(1, len(bounds)):
        if e == len(bounds) - 1 or bounds[e + 1] - bounds[first] > most:
            parts.append((first, e, bounds[first], bounds[e]))
            first = e
    return parts


def products(x: Tensor, w: Tensor, b: Tensor | None, offsets: Tensor, *, source: Tensor | None = None,
             target: Tensor | None = None, relu: bool = False, into: Tensor | None = None) -> tuple[Tensor, int]:
    """(row r of [R, O]: w[e] x[source[r]] + b[e], offsets[e] <= r < offsets[e + 1]; multiply-accumulates issued).

    x: [N, K]; w: [E, O, K]; b: [E, O]. source, target: int32, None for r itself; with a target, rows of `into` are
    written there.
    """
    if into is None:
        into = x.new_empty(int(offsets[-1]), w.shape[1])
    packed, b = kept(w, "experts", _packed, compiled.instructions()), None if b is None else b.contiguous()
    x = _side_by_side(x)
    return into, _function("products", x.dtype)(_job(x, packed, b, into, source, target, offsets, w.shape, relu))


def _run(word: str, x: Tensor, w: Tensor, offsets: Tensor, source: Tensor | None = None,
         target: Tensor | None = None, into: Tensor | None = None) -> Tensor:
    """`word` of native.cpp: "back", rows [N, O] to `into` [., K]; "outer", rows [R, K] and `into` [N, O] to `w`."""
    into = x.new_empty(int(offsets[-1]), w.shape[2]) if into is None else into
    x = _side_by_side(x)
    _function(word, x.dtype)(_job(x, w, None, into, source, target, offsets, w.shape, False))
    return into


def _job(x, w, b, y, source, target, offsets, shape, relu) -> bytes:
    experts, outputs, channels = shape
    places = (0 if t is None else t.data_ptr() for t in (b, y, source, target))
    return _PRODUCTS.pack(x.data_ptr(), w.data_ptr(), *places,
                          offsets.data_ptr(), experts, channels, outputs, x.stride(0), y.stride(0), relu,
                          torch.get_num_threads())


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 or x.shape[1] < 2 else x.contiguous()


def summed(slots: Tensor, order: Tensor, weight: Tensor | None, k: int) -> Tensor:
    """[T, O]: rows [T * k, O] summed over each token's slots, those in `order` only, each times its weight [T, k]."""
    tokens, width = len(slots) // k, slots.shape[1]
    if k == 1 and weight is None and len(order) == len(slots):
        return slots
    on = torch.zeros(len(slots), dtype=torch.bool).index_fill_(0, order.long(), True)
    y = slots.new_empty(tokens, width)
    weight = None if weight is None else weight.contiguous()
    _function("summed", slots.dtype)(slots.data_ptr(), 0 if weight is None else weight.data_ptr(), on.data_ptr(),
                                     y.data_ptr(), tokens, k, width, torch.get_num_threads())
    return y


def _packed(w: Tensor) -> Tensor:
    experts, outputs, channels = w.shape
    plain = w.contiguous()
    packed = in_large_pages(torch.empty(experts * _function("packed", w.dtype)(outputs, channels), dtype=torch.uint8))
    _function("pack", w.dtype)(plain.data_ptr(), packed.data_ptr(), experts, outputs, channels)
    return packed
