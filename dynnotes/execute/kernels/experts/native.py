"""The compiled backend: products of experts over the rows that chose them, where these stand (native.cpp)."""
from __future__ import annotations

import ctypes
import struct
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from .. import compiled
from ..copies import kept
from . import grouped
from .activations import activate, hidden
from .pages import fresh, in_large_pages

SOURCE = Path(__file__).with_name("native.cpp")
NAMES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
NUMBERS = {"none": 0, "relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4, "swiglu": 5}
PIECE = 256                                                          # rows: what is between the products stays cached
_EXPERTS, _PRODUCTS = struct.Struct("21q"), struct.Struct("12q")     # structs of native.cpp
_BETWEEN = struct.Struct("9q")


@lru_cache
def _functions(library) -> dict:
    number, place = ctypes.c_int64, ctypes.c_void_p
    library.dyn_sorted.restype, library.dyn_sorted.argtypes = number, [place] + [number] * 2 + [place] * 2
    functions = {"sorted": library.dyn_sorted}
    for name in NAMES.values():
        for word, result, takes_ in (("packed", number, [number] * 2), ("pack", None, [place] * 2 + [number] * 3),
                                     ("experts", number, [ctypes.c_char_p]),
                                     ("summed", None, [place] * 4 + [number] * 4)):
            function = functions[f"{word}_{name}"] = getattr(library, f"dyn_{word}_{name}")
            function.restype, function.argtypes = result, takes_
        for word in ("back", "outer", "between") if name != "bf16" else ():
            function = functions[f"{word}_{name}"] = getattr(library, f"dyn_{word}_{name}")
            function.restype, function.argtypes = None if word == "between" else number, [ctypes.c_char_p]
    return functions


def _function(word: str, dtype: torch.dtype):
    return _functions(compiled.load(SOURCE))[f"{word}_{NAMES[dtype]}"]


def takes(x: Tensor) -> bool:
    return x.is_cpu and x.dtype in NAMES and compiled.load(SOURCE) is not None


def sorted_slots(index: Tensor, experts: int) -> tuple[Tensor, Tensor] | None:
    """As `sorted_slots` of this package, in one pass; None where that cannot be done.

    So for another device, without a compiler, for indices that do not stand side by side or are no experts.
    """
    if not index.is_cpu or index.dtype is not torch.int64 or not index.is_contiguous() \
            or (library := compiled.load(SOURCE)) is None:
        return None
    slots = index.numel()
    order, offsets = torch.empty(slots, dtype=torch.int32), torch.empty(experts + 1, dtype=torch.int64)
    count = _functions(library)["sorted"](index.data_ptr(), slots, experts, order.data_ptr(), offsets.data_ptr())
    return None if count < 0 else (order if count == slots else order[:count].clone(), offsets)


def forward(x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor, b1: Tensor | None,
            w2: Tensor, b2: Tensor | None, activation: str, keep: bool) -> tuple[Tensor, Tensor, int]:
    """As in operator.py, in one call. With `keep`, so in training, weights are read as they are, else packed, once."""
    (tokens, channels), (experts, inner, _), outputs = x.shape, w1.shape, w2.shape[1]
    if not len(order):
        return x.new_zeros(tokens, outputs), x.new_empty(0, inner), 0
    y, pre = x.new_empty(tokens, outputs), x.new_empty(len(order) if keep else 0, inner)
    x, weight, b1, b2 = _side_by_side(x), *(None if t is None else t.contiguous() for t in (weight, b1, b2))
    if keep:
        w1, w2 = w1.contiguous(), w2.contiguous()
    else:
        halves = 2 if activation == "swiglu" else 1
        w1 = kept(w1, "experts", partial(_packed, halves=halves), compiled.instructions(), halves)
        w2 = kept(w2, "experts", _packed, compiled.instructions())
    places = (0 if t is None else t.data_ptr() for t in (x, w1, b1, w2, b2, weight, y, pre if keep else None, order,
                                                         offsets))
    job = _EXPERTS.pack(*places, tokens, k, experts, channels, inner, hidden(inner, activation), outputs, x.stride(0),
                        NUMBERS[activation], keep, torch.get_num_threads())
    return y, pre, _function("experts", x.dtype)(job)


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
        some, where = offsets[first:last + 1] - start, source[own]
        mix = None if scale is None else scale[own]
        gout = g.index_select(0, where) if b2 is not None and (to_weight or to_b2) else None        # [r, D2]
        if through or to_weight:
            h = _run("back", g, w2[of], some, source=where)          # [r, H]: its gradient, then itself
            gbefore = _between(pre[own], h, mix, each[own] if to_weight else None, activation)      # [r, H1]
        elif to_w2:
            h = activate(pre[own], activation)
            h = h if mix is None else h * mix
        if to_weight and b2 is not None:
            each[own] += (gout * b2[of].repeat_interleave(some.diff(), 0)).sum(1)
        if to_w2:
            _run("outer", h, gw2[of], some, source=where, into=g)
        if to_b2:
            gb2[of] = torch.segment_reduce(gout if mix is None else gout * mix, "sum", offsets=some, axis=0)
        if not through:
            continue
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


def _run(word: str, x: Tensor, w: Tensor, offsets: Tensor, source: Tensor | None = None,
         target: Tensor | None = None, into: Tensor | None = None) -> Tensor:
    """`word` of native.cpp: "back", rows [N, O] to `into` [., K]; "outer", rows [R, K] and `into` [N, O] to `w`."""
    into = x.new_empty(int(offsets[-1]), w.shape[2]) if into is None else into
    x = _side_by_side(x)
    experts, outputs, channels = w.shape
    places = (0 if t is None else t.data_ptr() for t in (x, w, into, source, target, offsets))
    _function(word, x.dtype)(_PRODUCTS.pack(*places, experts, channels, outputs, x.stride(0), into.stride(0),
                                            torch.get_num_threads()))
    return into


def _between(pre: Tensor, gh: Tensor, mix: Tensor | None, each: Tensor | None, activation: str) -> Tensor:
    """The gradient of `pre` [r, H1]; `gh` [r, H] becomes h times the slot's weight, `each` [r] the sums of h * gh."""
    back = torch.empty_like(pre)
    places = (0 if t is None else t.data_ptr() for t in (pre, mix, gh, each, back))
    _function("between", pre.dtype)(_BETWEEN.pack(*places, *gh.shape, NUMBERS[activation], torch.get_num_threads()))
    return back


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


def _packed(w: Tensor, halves: int = 1) -> Tensor:
    """[E, O, K] in the kernel's order; with two halves as 2E matrices of half the outputs."""
    experts, outputs, channels = len(w) * halves, w.shape[1] // halves, w.shape[2]
    plain = w.contiguous()
    packed = in_large_pages(torch.empty(experts * _function("packed", w.dtype)(outputs, channels), dtype=torch.uint8))
    _function("pack", w.dtype)(plain.data_ptr(), packed.data_ptr(), experts, outputs, channels)
    return packed
