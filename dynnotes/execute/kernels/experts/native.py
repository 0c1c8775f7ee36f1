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
from .activations import activate

SOURCE = Path(__file__).with_name("native.cpp")
NAMES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16"}
PIECE = 256                                                          # rows: what is between the products stays cached
_PRODUCTS = struct.Struct("14q")                                     # struct Products of native.cpp

backward = grouped.backward


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


def products(x: Tensor, w: Tensor, b: Tensor | None, offsets: Tensor, *, source: Tensor | None = None,
             target: Tensor | None = None, relu: bool = False, into: Tensor | None = None) -> tuple[Tensor, int]:
    """(row r of [R, O]: w[e] x[source[r]] + b[e], offsets[e] <= r < offsets[e + 1]; multiply-accumulates issued).

    x: [N, K]; w: [E, O, K]; b: [E, O]. source, target: int32, None for r itself; with a target, rows of `into` are
    written there.
    """
    x = x if x.stride(1) == 1 or x.shape[1] < 2 else x.contiguous()
    b = None if b is None else b.contiguous()
    if into is None:
        into = x.new_empty(int(offsets[-1]), w.shape[1])
    packed = kept(w, "experts", _packed, compiled.instructions())
    job = _PRODUCTS.pack(x.data_ptr(), packed.data_ptr(), *(0 if t is None else t.data_ptr() for t in (b, into, source,
                         target)), offsets.data_ptr(), len(w), w.shape[2], w.shape[1], x.stride(0), into.stride(0),
                         relu, torch.get_num_threads())
    return into, _function("products", x.dtype)(job)


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
    packed = torch.empty(experts * _function("packed", w.dtype)(outputs, channels), dtype=torch.uint8)
    _function("pack", w.dtype)(plain.data_ptr(), packed.data_ptr(), experts, outputs, channels)
    return packed
