"""The GPU backend: an implicit GEMM over the pixels that are on, in triton (`programs`, imported when first needed).

Gather, product and scatter are one program: BM active pixels x BN outputs, which read the map where it lies, whatever
its strides, multiply tap by tap, and write only their own rows; no patches are stored. The number of programs follows
from len(rows), so nothing waits for the GPU. Sums are in float32, with no TF32. Gradients are sums in a fixed order, no
atomics: that of the input by the same program over input pixels, each looking up the active outputs it took part in;
that of the weight in parts over rows, added up afterwards.

Checked so far: under triton's interpreter, on a CPU, which proves indexing and masking (float16, float32, float64), and
by compiling for compute capability 8.0 and 9.0, with triton 3.6 and 3.9. Not yet run on a GPU: speed, races, rounding
of tensor cores, bfloat16. The sizes of tiles are first guesses, not measured.
"""
from __future__ import annotations

import math
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from ..copies import kept
from .geometry import Geometry

HALF = (torch.bfloat16, torch.float16)
ENOUGH = 256                                                         # programs that keep a large GPU busy
PRECISION = "ieee"                                                   # of float32 in tl.dot; "tf32" would round
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}

# Launches ------------------------------------------------------------------------------------------------------------


def takes(x: Tensor) -> bool:
    """Whether this backend can run on `x`: on a GPU that triton knows, or on a CPU in triton's interpreter, which has
    no bfloat16."""
    if find_spec("triton") is None:
        return False
    if x.is_cuda:
        return x.dtype in (torch.float32, *HALF) and _supported(x.device)
    return x.is_cpu and x.dtype in (torch.float16, torch.float32, torch.float64) and _interpreted()


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, rows: Tensor,
            inverse: Tensor | None, relu: int, packed: bool) -> tuple[Tensor, int]:
    """As `native.forward`. Issued are all multiply-accumulates of all tiles, their padding too."""
    outputs = len(weight)
    y = x.new_empty(len(rows), outputs) if packed else x.new_zeros(geometry.batch, *geometry.out, outputs)
    issued = _launch(geometry, False, x, weight, bias, residual, y, rows, inverse, len(rows), relu, packed)
    return (y if packed else y.movedim(3, 1)), issued


def grad_input(geometry: Geometry, g: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """As `native.grad_input`. What no active output read stays zero, in tiles that do no more than look that up."""
    count = geometry.batch * geometry.size[0] * geometry.size[1]
    x = g.new_empty(geometry.batch, *geometry.size, weight.shape[1] * geometry.groups)
    ranks = rows.new_full((geometry.pixels,), -1)
    ranks[rows.long()] = torch.arange(len(rows), dtype=rows.dtype, device=rows.device)
    _launch(geometry, True, g, weight, None, None, x, None, ranks, count, 0, True)
    return x.movedim(3, 1)


def grad_weight(geometry: Geometry, g: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """As `native.grad_weight`."""
    programs, sums, count, outputs = _programs(x), _sums(x), len(rows), g.shape[1]
    channels, each, taps = x.shape[1] // geometry.groups, outputs // geometry.groups, _taps(geometry)
    bm, bn, bc = 32, _wide(each), _wide(channels)
    if channels == 1:
        bn = _wide(outputs)
        grid = (taps * _tiles(outputs, bn),)
    else:
        grid = taps * _tiles(channels, bc) * _tiles(each, bn), geometry.groups
    split = max(1, min(_tiles(ENOUGH, math.prod(grid)), _tiles(count, 4 * bm)))
    chunk = _tiles(_tiles(count, split), bm) * bm
    parts = x.new_empty(split, *geometry.kernel, channels, outputs, dtype=sums)
    start = x, g.contiguous(), parts, rows, count
    end = outputs, chunk, _place(geometry), _strides(x), getattr(programs.tl, str(sums)[6:])
    with torch.cuda.device_of(x):
        if channels == 1:
            programs.lanes_weight[*grid, split](*start, each, *end, bm, bn, **OPTIONS)
        else:
            programs.product_weight[*grid, split](*start, channels, each, *end, PRECISION, bc, bn, bm, **OPTIONS)
    return parts.sum(0).permute(3, 2, 0, 1).to(x.dtype)


def _launch(geometry, back, x, weight, bias, residual, y, rows, inverse, count, relu, packed) -> int:
    """Write the convolution of `x`, or with `back` its transpose, into `y`; the multiply-accumulates of all tiles."""
    programs, sums, taps, groups = _programs(x), _sums(x), _taps(geometry), geometry.groups
    (outputs, channels), each = weight.shape[:2], len(weight) // groups
    across = channels * groups if back else outputs
    if count == 0 or across == 0:
        return 0
    weight = _packed(weight)
    by_output, by_channel, *by_tap = weight.stride()
    if bias is not None:
        bias = bias.contiguous()
    start = x, weight, bias, residual, y, rows, inverse, count
    end = across, _place(geometry, back), _strides(x)
    flags = (0,) * 4 if residual is None else _strides(residual), back, relu, packed
    sum_in = getattr(programs.tl, str(sums)[6:])
    with torch.cuda.device_of(x):
        if channels == 1:
            bn = _wide(across)
            bm = _high(count, _tiles(across, bn), 2048 // bn)
            grid = (_tiles(count, bm) * _tiles(across, bn),)
            strides = *by_tap, by_channel, by_output
            programs.lanes[grid](*start, each, *end, strides, *flags, sum_in, bm, bn, **OPTIONS)
            return grid[0] * bm * bn * taps * (each if back else 1)
        summed, wide = (each, channels) if back else (channels, each)
        strides = (by_output, by_channel) if back else (by_channel, by_output)
        flat = summed < 16                                           # tl.dot takes no fewer
        depth = taps * summed if flat else summed
        bn = _wide(wide)
        bm = _high(count, _tiles(wide, bn) * groups, 128 if x.dtype in HALF else 64)
        bk = min((64, 32, 16) if x.dtype in HALF else (32, 16), key=lambda b: _tiles(depth, b) * b)     # pads least
        grid = _tiles(count, bm) * _tiles(wide, bn), groups
        programs.product[grid](*start, summed, wide, *end, (*by_tap, *strides, each * by_output), *flags, flat, sum_in,
                               PRECISION, bm, bn, bk, **OPTIONS)
        return math.prod(grid) * bm * bn * _tiles(depth, bk) * bk * (1 if flat else taps)


def _place(geometry: Geometry, back: bool = False) -> tuple[int, ...]:
    maps = (geometry.out, geometry.size) if back else (geometry.size, geometry.out)
    return tuple(n for pair in (*maps, *geometry[2:6]) for n in pair)


def _strides(t: Tensor) -> tuple[int, ...]:
    """(sample, y, x, channel) of a map; packed rows are samples of one pixel."""
    return (t.stride(0), t.stride(2), t.stride(3), t.stride(1)) if t.dim() == 4 else (t.stride(0), 0, 0, t.stride(1))


def _taps(geometry: Geometry) -> int:
    return math.prod(geometry.kernel)


def _sums(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype is torch.float64 else torch.float32


# Sizes of tiles: a table for now, to be measured ---------------------------------------------------------------------

def _tiles(n: int, size: int) -> int:
    return -(-n // size)


def _wide(n: int) -> int:
    """Outputs of a tile: few tiles, little padding; what a tile gathers counts like 16 outputs more."""
    return min((64, 32, 16), key=lambda b: _tiles(n, b) * (b + 16))


def _high(count: int, others: int, most: int) -> int:
    """Pixels of a tile: as many as leave enough programs."""
    return next((b for b in (128, 64, 32) if b <= most and _tiles(count, b) * others >= ENOUGH), 16)


# What is needed first ------------------------------------------------------------------------------------------------

def _programs(x: Tensor) -> ModuleType:
    """The module of programs. Raises ImportError without triton, ValueError where it does not take `x`."""
    if find_spec("triton") is None:
        raise ImportError("masked convolution: the triton backend needs triton, which is not installed: "
                          'pip install triton, or take backend="torch"')
    if not takes(x):
        raise ValueError(f"masked convolution: the triton backend does not take {x.dtype} on {x.device}; it takes "
                         "float32, bfloat16 and float16 on a GPU of compute capability 8.0 or newer; elsewhere take "
                         'backend="torch"')
    from . import programs
    return programs


@lru_cache
def _interpreted() -> bool:
    """Whether triton was told to interpret (TRITON_INTERPRET=1) when the programs were first needed."""
    from . import programs
    return programs.INTERPRETED


@lru_cache
def _supported(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def _packed(weight: Tensor) -> Tensor:
    """`weight` with input or output channels side by side: itself, as models in torch.channels_last have it, or a copy
    that is kept."""
    if weight.stride(1 if weight.shape[1] > 1 else 0) == 1:
        return weight.detach()
    return kept(weight, "tiles", lambda w: w.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1))
