"""The compiled backend: an implicit GEMM over the pixels that are on (native.cpp), for the instructions there are."""
from __future__ import annotations

import ctypes
import struct
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .. import compiled
from ..copies import kept
from .geometry import Geometry
from .library import NAMES, function

_CONV = struct.Struct("32q")                                         # struct Conv of native.cpp
ZERO, KEPT, RESIDUAL = range(3)                                      # enum Off: pixels of a map that are off


def takes(x: Tensor) -> bool:
    return x.is_cpu and x.dtype in NAMES


def rows_of(mask: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor | None]:
    """(flat places of `mask` that are on, as int32; the rank of each place or -1, if asked for)."""
    mask = mask.contiguous()
    rows = torch.empty(mask.numel() + 1, dtype=torch.int32)          # one to spare: the loop has no branch
    ranks = torch.empty(mask.numel(), dtype=torch.int32) if inverse else None
    count = function("rows")(mask.data_ptr(), mask.numel(), rows.data_ptr(), 0 if ranks is None else ranks.data_ptr())
    return rows[:count], ranks


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, rows: Tensor,
            inverse: Tensor | None, relu: int, packed: bool, into: Tensor | None = None) -> tuple[Tensor, int]:
    """(output, multiply-accumulates issued). x: [B, C, H, W], or packed rows [R, C] where `inverse` is given; output:
    [B, O, H', W'], zero where off, or packed rows [len(rows), O]. into: a channels_last map to write to, which keeps
    what it holds where off."""
    outputs, name = weight.shape[0], NAMES[x.dtype]
    high, wide = geometry.out
    if inverse is not None:
        x = x.contiguous()
    elif x.stride(1) != 1 and x.shape[1] > 1 and x.numel():
        _warn_of_layout()
    bias = None if bias is None else bias.contiguous()
    if residual is not None:
        residual = residual.contiguous() if packed else residual.contiguous(memory_format=torch.channels_last)
    if into is not None:
        y = into.movedim(1, 3)
    else:
        y = torch.empty((len(rows), outputs) if packed else (geometry.batch, high, wide, outputs), dtype=x.dtype)
    job = _job(geometry, x, _packed(weight, geometry, "pack"), bias, residual, y, rows, inverse, outputs, relu, packed,
               ZERO if into is None else KEPT)
    issued = function(f"conv_{name}")(job, None)
    return (y if packed else y.movedim(3, 1)), issued


def masked(geometry: Geometry, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None,
           relu: int, limit: int) -> Tensor | None:
    """The output where `mask` (bool) is on, in one call; None where more than `limit` pixels are."""
    if x.stride(1) != 1 and x.shape[1] > 1 and x.numel():
        _warn_of_layout()
    if bias is not None:
        bias = bias.contiguous()
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    outputs = weight.shape[0]
    y = torch.empty((geometry.batch, outputs, *geometry.out), dtype=x.dtype, memory_format=torch.channels_last)
    job = _job(geometry, x, _packed(weight, geometry, "pack"), bias, residual, y, None, None, outputs, relu, False)
    done = function(f"masked_{NAMES[x.dtype]}")(job, mask.contiguous().data_ptr(), limit)
    return None if done < 0 else y


def threads_of(geometry: Geometry, x: Tensor, weight: Tensor, rows: Tensor) -> int:
    """How many threads had a share of this convolution, counted in the kernel while it runs."""
    y = torch.empty(geometry.batch, *geometry.out, weight.shape[0], dtype=x.dtype)
    job = _job(geometry, x, _packed(weight, geometry, "pack"), None, None, y, rows, None, weight.shape[0], 0, False)
    ran = ctypes.c_int64()
    function(f"conv_{NAMES[x.dtype]}")(job, ctypes.addressof(ran))
    return ran.value


def grad_input(geometry: Geometry, g: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """Gradient [B, C, H, W] of the input from that of the active outputs, g [len(rows), O]."""
    if g.dtype is torch.bfloat16:
        return grad_input(geometry, g.float(), weight.float(), rows).bfloat16()
    channels = weight.shape[1] * geometry.groups
    x = torch.zeros(geometry.batch, *geometry.size, channels, dtype=g.dtype).movedim(3, 1)
    g = g.contiguous()
    job = _job(geometry, x, _packed(weight, geometry, "pack_back"), None, None, g, rows, None, weight.shape[0], 0, True)
    function(f"grad_input_{NAMES[g.dtype]}")(job)
    return x


def grad_weight(geometry: Geometry, g: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """Gradient [O, C / groups, kh, kw] of the weight from that of the active outputs, g [len(rows), O]."""
    if g.dtype is torch.bfloat16:
        return grad_weight(geometry, g.float(), x.float(), rows).bfloat16()
    outputs, channels, taps = g.shape[1], x.shape[1] // geometry.groups, geometry.kernel[0] * geometry.kernel[1]
    each = outputs // geometry.groups
    weight = torch.zeros(geometry.groups, taps, channels, each, dtype=g.dtype)
    g = g.contiguous()
    job = _job(geometry, x, weight, None, None, g, rows, None, outputs, 0, True)
    function(f"grad_weight_{NAMES[g.dtype]}")(job)
    return weight.permute(0, 3, 2, 1).reshape(outputs, channels, *geometry.kernel).contiguous()


def clear(y: Tensor, rows: Tensor) -> None:
    """Zero the pixels of a channels_last map that are not in `rows`."""
    pixels = y.shape[0] * y.shape[2] * y.shape[3]
    function("clear")(rows.data_ptr(), len(rows), pixels, y.shape[1] * y.element_size(), y.data_ptr())


def reads(geometry: Geometry, mask: Tensor) -> Tensor:
    """[B, 1, H, W] bool: which input pixels the output pixels where `mask` (bool) is on read."""
    read = torch.zeros(geometry.batch, 1, *geometry.size, dtype=torch.bool)
    job = _job(geometry, read, read, None, None, None, None, None, 1, 0, False)
    function("reads")(job, mask.contiguous().data_ptr(), read.data_ptr())
    return read


def branch(steps: Sequence, x: Tensor, residual: Tensor | None, relu: int, into: Tensor | None,
           everywhere: bool) -> Tensor:
    """The steps of a branch (branch.py) in one call, sample by sample, so that what is between them stays in the cache.

    Where the last step's mask is on: relu(branch + residual). Elsewhere what `into` (channels_last) holds, or without
    it zero, or relu(residual) with `everywhere`.
    """
    if x.stride(1) != 1 and x.shape[1] > 1 and x.numel():
        _warn_of_layout()
    *_, (final, shape, *_) = steps
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    if into is None:
        y = torch.empty((shape.batch, *shape.out, len(final.weight)), dtype=x.dtype)
    else:
        y = into.movedim(1, 3)
    jobs, held = [], []
    for i, (layer, geometry, _, rows, inverse) in enumerate(steps):
        last = i == len(steps) - 1
        tensors = (_packed(layer.weight, geometry, "pack"), None if layer.bias is None else layer.bias.contiguous(),
                   residual if last else None)
        held.append(tensors)
        off = (ZERO if not everywhere else RESIDUAL) if into is None else KEPT
        jobs.append(_job(geometry, None if i else x, *tensors, y if last else None, rows, inverse, len(layer.weight),
                         relu or layer.relu if last else layer.relu, not last, off,
                         layer.weight.shape[1] * geometry.groups))
    function(f"branch_{NAMES[x.dtype]}")(b"".join(jobs), len(jobs))
    return y.movedim(3, 1) if into is None else into


def _job(geometry, x, weight, bias, residual, y, rows, inverse, outputs, relu, packed, off=ZERO, channels=0) -> bytes:
    batch, (height, width), kernel, step, pad, dilate, groups = geometry
    n, c, h, w = (0, 1, 0, 0) if x is None or inverse is not None else x.stride()
    return _CONV.pack(_at(x), weight.data_ptr(), _at(bias), _at(residual), _at(y), _at(rows), _at(inverse),
                      0 if rows is None else len(rows), batch, height, width, channels or x.shape[1],
                      *geometry.out, outputs, n, h, w, c, *kernel, *step, *pad, *dilate, groups, relu, packed,
                      off, torch.get_num_threads())


def _at(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


@lru_cache
def _warn_of_layout() -> None:
    warnings.warn("masked convolution: channels do not stand side by side in this input, every patch is copied; "
                  "model.to(memory_format=torch.channels_last) makes it faster", stacklevel=6)


# Packed weights ------------------------------------------------------------------------------------------------------

def _packed(weight: Tensor, geometry: Geometry, how: str) -> Tensor:
    """`weight` in the kernel's order, for the instructions it is compiled for."""
    def pack(weight: Tensor) -> Tensor:
        outputs, channels, *kernel = weight.shape
        sizes = (outputs, channels, kernel[0] * kernel[1], geometry.groups)
        name, plain = NAMES[weight.dtype], weight.contiguous()
        packed = torch.empty(function(f"packed{how[4:]}_{name}")(*sizes), dtype=torch.uint8)
        function(f"{how}_{name}")(plain.data_ptr(), packed.data_ptr(), *sizes)
        return packed

    return kept(weight, how, pack, geometry.groups, compiled.instructions())
