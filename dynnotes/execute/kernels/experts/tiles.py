"""The GPU backend: grouped products with their gather, activation and scatter, in triton (`programs`, imported when
first needed).

A tile is BM rows of one expert x BN outputs. Each program finds its expert and rows from `offsets` by itself, and the
grid has as many tiles as there can be, so that nothing waits for the GPU. The first product reads rows of x where they
stand and makes gate and up in one pass; the second weighs each slot's answer and writes it to the slot's place; a third
program adds up each token's slots, dropped ones not read. Gradients: rows by the same programs with weights transposed;
of weights, biases and scales by programs of their own. All sums have one order, no atomics. They are made in float32,
without TF32 unless torch's own switch for products allows it (float64 for float64, under the interpreter only).

Checked so far: under triton's interpreter, on a CPU, which proves indexing and masking and rounds to bfloat16 by
cutting off; and by compiling for compute capability 8.0 and 9.0, with triton 3.9. Not yet run on a GPU: speed, races,
rounding of tensor cores. The sizes of tiles are first guesses, not measured.
"""
from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from .activations import hidden
from .pages import fresh

HALF = (torch.bfloat16, torch.float16)
MOST = 2**31 - 1                                                     # programs count within a row or matrix in int32
OPTIONS = {"enable_fp_fusion": True}


def takes(x: Tensor) -> bool:
    """Whether this backend can run on `x`: on a GPU that triton knows, or on a CPU in triton's interpreter."""
    if find_spec("triton") is None:
        return False
    if x.is_cuda:
        return x.dtype in (torch.float32, *HALF) and _supported(x.device)
    return x.is_cpu and x.dtype in (torch.float32, torch.float64, *HALF) and _interpreted()


def forward(x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor, b1: Tensor | None,
            w2: Tensor, b2: Tensor | None, activation: str, keep: bool) -> tuple[Tensor, Tensor, Issued | int]:
    """As in operator.py. Issued are all multiply-accumulates of all tiles, their padding too."""
    count, inner, outputs = len(order), w1.shape[1], w2.shape[1]
    if not count:
        return x.new_zeros(len(x), outputs), x.new_empty(0, inner), 0
    tiles = Tiles(x, order, offsets, k)
    pre = x.new_empty(count, inner) if keep else None
    h = x.new_empty(count, hidden(inner, activation))
    slots = x.new_empty(len(x) * k, outputs)
    first = tiles.product(x, w1, h, b1, pre=pre, act=activation)
    second = tiles.product(h, w2, slots, b2, scale=weight, scatter=True)
    issued = Issued(offsets, tiles.high, first + second)
    return tiles.summed(slots), x.new_empty(0, inner) if pre is None else pre, issued


def backward(g: Tensor, x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor,
             b1: Tensor | None, w2: Tensor, b2: Tensor | None, activation: str, pre: Tensor,
             needs: list[bool]) -> tuple[Tensor | None, ...]:
    """As in operator.py."""
    if not len(order):
        return tuple(torch.zeros_like(t) if need else None for t, need in zip((x, weight, w1, b1, w2, b2), needs))
    to_x, to_weight, to_w1, to_b1, to_w2, to_b2 = needs
    tiles = Tiles(x, order, offsets, k)
    through = to_x or to_w1 or to_b1                                 # the activation
    to_pre = x.new_empty(pre.shape) if through else None             # [R, H1]
    h = x.new_empty(len(order), w2.shape[2]) if to_w2 else None      # [R, H]
    gx = gweight = gw1 = gb1 = gw2 = gb2 = None
    if through or to_weight or to_w2:
        parts = tiles.product_back(g, w2, weight, pre, to_pre, h, to_weight, activation)
    if to_weight:
        gweight = tiles.scale_sums(g, b2, parts, weight)
    if to_w2:
        gw2 = tiles.outer(g, h, w2, tokens=True)
    if to_b2:
        gb2 = tiles.bias_sums(g, weight, b2, tokens=True)
    if to_w1:
        gw1 = tiles.outer(to_pre, x, w1, tokens=False)
    if to_b1:
        gb1 = tiles.bias_sums(to_pre, None, b1, tokens=False)
    if to_x:
        slots = x.new_empty(len(x) * k, x.shape[1])
        tiles.product(to_pre, w1.transpose(1, 2), slots, scatter=True)
        gx = tiles.summed(slots)
    return gx, gweight, gw1, gb1, gw2, gb2


class Issued:
    """How many multiply-accumulates all tiles of `high` rows hold, each `macs`: looked up where someone asks, for that
    waits for the GPU."""

    def __init__(self, offsets: Tensor, high: int, macs: int):
        self.offsets, self.high, self.macs = offsets, high, macs

    def __index__(self) -> int:
        return int(_tiles(self.offsets.diff(), self.high).sum()) * self.macs


class Tiles:
    """Launches of programs over the rows of one list of slots."""

    def __init__(self, x: Tensor, order: Tensor, offsets: Tensor, k: int):
        self.programs = _programs(x)
        self.tokens, self.count, self.experts, self.k = len(x), len(order), len(offsets) - 1, k
        self.order, self.offsets, self.half = order, offsets, x.dtype in HALF
        self.high = _high(self.count, self.experts, 128 if self.half else 64)
        # each expert's last tile may have but one row
        self.most = (self.count + min(self.count, self.experts) * (self.high - 1)) // self.high
        self.sums = getattr(self.programs.tl, "float64" if x.dtype is torch.float64 else "float32")
        self.precision = "tf32" if x.dtype is torch.float32 and _tf32() else "ieee"
        _fits("slots", self.tokens * k + self.high)

    def product(self, x: Tensor, w: Tensor, y: Tensor, bias: Tensor | None = None, scale: Tensor | None = None,
                pre: Tensor | None = None, act: str = "none", scatter: bool = False) -> int:
        """y = scale * act(w[e] x + bias[e]) for w [E, O, K], by tokens to rows, or with `scatter` by rows to slots; the
        multiply-accumulates of one tile of rows."""
        outputs, depth, pair = y.shape[1], w.shape[2], act == "swiglu"
        bn, bk = _wide(outputs, self._widest // (2 if pair else 1)), self._deep(depth)
        _fits("elements of a row", _extent(x[0]))
        _fits("elements of an expert", _extent(w[0]))
        self._launch(self.programs.product, (self.most * _tiles(outputs, bn),), bn,
                     x, w, _dense(bias), _dense(scale), y, pre, self.order, self.offsets, self.experts, self.k, depth,
                     outputs, x.stride(), w.stride(), scatter, act, self.sums, self.precision, self.high, bn, bk,
                     self._each)
        return self.high * _tiles(outputs, bn) * bn * _tiles(depth, bk) * bk * (2 if pair else 1)

    def product_back(self, g: Tensor, w: Tensor, scale: Tensor | None, pre: Tensor, to_pre: Tensor | None,
                     h: Tensor | None, to_scale: bool, act: str) -> Tensor | None:
        """From tokens' gradients g through w [E, O, H] to those of `pre`, and the scaled values `h` again; with
        `to_scale`, what each tile of columns adds to the gradient of the scales [tiles, R]."""
        outputs, depth = w.shape[2], w.shape[1] if to_pre is not None or to_scale else 0
        bn, bk = _wide(outputs, self._widest // 2), self._deep(depth)                # what follows the sums needs room
        parts = g.new_empty(_tiles(outputs, bn), self.count, dtype=_sums(g)) if to_scale else None
        _fits("elements of a row", max(_extent(g[0]), _extent(pre[0])))
        _fits("elements of an expert", _extent(w[0]))
        self._launch(self.programs.product_back, (self.most * _tiles(outputs, bn),), bn,
                     g, w, _dense(scale), pre, to_pre, h, parts, self.order, self.offsets, self.experts, self.k,
                     self.count, depth, outputs, g.stride(), w.transpose(1, 2).stride(), pre.stride(), act, self.sums,
                     self.precision, self.high, bn, bk, self._each)
        return parts

    def outer(self, a: Tensor, b: Tensor, w: Tensor, tokens: bool) -> Tensor:
        """The gradient of w [E, O, K] from that of its outputs `a` and what it multiplied, `b`; of which `a` is by
        tokens, or else `b`."""
        y = fresh(w)
        bo, bc = _wide(w.shape[1], self._widest), _wide(w.shape[2], self._widest)
        _fits("elements of a row", max(_extent(a[0]), _extent(b[0])))
        self._launch(self.programs.outer, (self.experts * _tiles(w.shape[1], bo), _tiles(w.shape[2], bc)), bc,
                     a, b, y, self.order, self.offsets, self.k, *w.shape[1:], a.stride(), b.stride(), tokens, self.sums,
                     self.precision, bo, bc, min(self.high, 64 if self.half else 32))
        return y

    def bias_sums(self, g: Tensor, scale: Tensor | None, bias: Tensor, tokens: bool) -> Tensor:
        """The gradient of `bias` from that of rows, or of tokens times their slots' scale."""
        y, bn = fresh(bias), _wide(bias.shape[1], 64)
        self._launch(self.programs.bias_sums, (self.experts * _tiles(bias.shape[1], bn),), bn,
                     g, _dense(scale), y, self.order, self.offsets, self.k, bias.shape[1], g.stride(), tokens,
                     self.sums, 32, bn)
        return y

    def scale_sums(self, g: Tensor, bias: Tensor | None, parts: Tensor, scale: Tensor) -> Tensor:
        """The gradient of `scale` [T, k]: zero where slots were dropped."""
        y, bn = scale.new_zeros(scale.shape), _wide(g.shape[1], 64)
        self._launch(self.programs.scale_sums, (self.most,), bn,
                     g, _dense(bias), parts, y, self.order, self.offsets, self.experts, self.k, self.count, len(parts),
                     g.shape[1], g.stride(), self.sums, self.high, bn, self._each)
        return y

    def summed(self, slots: Tensor) -> Tensor:
        """[T, O]: rows [T * k, O] summed over each token's slots, those in the list only."""
        whole, columns = self.count == len(slots), slots.shape[1]
        if self.k == 1 and whole:
            return slots
        on = None if whole else slots.new_zeros(len(slots), dtype=torch.int8).index_fill_(0, self.order.long(), 1)
        y, bn = slots.new_empty(self.tokens, columns), _wide(columns, 128)
        self._launch(self.programs.token_sums, (_tiles(self.tokens, 16) * _tiles(columns, bn),), bn,
                     slots, on, y, self.tokens, self.k, columns, self.sums, 16, bn)
        return y

    def _launch(self, program, grid: tuple[int, ...], wide: int, *arguments) -> None:
        _fits("programs", grid[0])
        if all(grid):                                                # a map may have no columns
            with torch.cuda.device_of(self.order):
                program[grid](*arguments, num_warps=8 if self.high * wide >= 128 * 64 else 4, **OPTIONS)

    @property
    def _each(self) -> int:
        """Experts that a program looks through for its own."""
        return _power(self.experts)

    @property
    def _widest(self) -> int:
        return 128 if self.half else 64

    def _deep(self, depth: int) -> int:
        return _wide(depth, 64 if self.half else 32)


# Sizes of tiles: a table for now, to be measured ---------------------------------------------------------------------

def _tiles(n, size: int):
    return (n + size - 1) // size


def _power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()


def _wide(n: int, most: int) -> int:
    """Columns of a tile; tl.dot takes no fewer than 16."""
    return max(16, min(most, _power(n)))


def _high(count: int, experts: int, most: int) -> int:
    """Rows of a tile: where experts have many, about half of the last one is padding; where few, one tile is all."""
    each = _tiles(count, experts)
    return min(most, max(16, _power(each) if each <= 64 else 64 if each < 256 else 128))


# What is needed first ------------------------------------------------------------------------------------------------

def _dense(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def _sums(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype is torch.float64 else torch.float32


def _extent(t: Tensor) -> int:
    """Elements from the first to the last."""
    return sum((n - 1) * stride for n, stride in zip(t.shape, t.stride())) + 1


def _fits(what: str, n: int) -> None:
    if n > MOST:
        raise ValueError(f"experts: {n} {what}; the triton backend numbers them in int32, which ends at {MOST}: split "
                         'the tokens, or take backend="torch"')


def _tf32() -> bool:
    """Whether torch may round float32 to TF32 in its own products."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32


def _programs(x: Tensor) -> ModuleType:
    """The module of programs. Raises ImportError without triton, ValueError where it does not take `x`."""
    if find_spec("triton") is None:
        raise ImportError("experts: the triton backend needs triton, which is not installed: pip install triton, or "
                          'take backend="torch"')
    if not takes(x):
        raise ValueError(f"experts: the triton backend does not take {x.dtype} on {x.device}; it takes float32, "
                         "bfloat16 and float16 on a GPU of compute capability 8.0 or newer; elsewhere take "
                         'backend="torch"')
    from . import programs
    return programs


@lru_cache
def _interpreted() -> bool:
    """Whether triton was told to interpret (TRITON_INTERPRET=1) when the programs were first needed."""
    from . import programs
    return programs.INTERPRETED.value


@lru_cache
def _supported(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
