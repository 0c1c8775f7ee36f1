"""Everything computed, then what is off set to zero: the fastest there is where nearly all pixels are on.

`crossover` says from which share of pixels on: the ratio of two timings, taken once per shape on this machine.
"""
from __future__ import annotations

import time
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes  # private: see tests/execute/test_cost.py

from ..copies import kept
from . import library, native, reference
from .gathered import product
from .geometry import Geometry
from .reference import clipped

grad_input, grad_weight = reference.grad_input, reference.grad_weight


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, rows: Tensor,
            inverse: Tensor | None, relu: int, packed: bool) -> tuple[Tensor, int]:
    """As `native.forward`, for maps on both sides."""
    if inverse is not None or packed:
        return reference.forward(geometry, x, weight, bias, residual, rows, inverse, relu, packed)
    if geometry.pointwise and geometry.groups == 1:
        flat = x.movedim(1, 3).reshape(-1, x.shape[1])
        y = product(weight, x)(flat, bias).view(geometry.batch, *geometry.out, len(weight)).movedim(3, 1)
    else:
        lasting = kept(weight, "dense", lambda w: w.contiguous(memory_format=torch.channels_last))
        y = F.conv2d(x, lasting, bias, geometry.stride, geometry.padding, geometry.dilation, geometry.groups)
    y = clipped(y if residual is None else y.add_(residual), relu).contiguous(memory_format=torch.channels_last)
    if len(rows) < geometry.pixels:                                  # NaN, too, becomes zero
        if y.is_cpu and library.available():
            native.clear(y, rows)
        else:
            off = torch.ones(geometry.pixels, dtype=torch.bool, device=x.device).index_fill_(0, rows.long(), False)
            y.masked_fill_(off.view(geometry.mask), 0)
    return y, geometry.pixels * weight.numel()


def worth_asking(depthwise: bool) -> float:
    """The share of pixels on below which no kernel here is slower than dense; depthwise layers are bound by memory."""
    return 0.1 if depthwise else 0.5


def limit(geometry: Geometry, x: Tensor, weight: Tensor, backend: str) -> int:
    """The number of pixels up to which `backend` is taken without asking."""
    share = _asked.get(_shape(geometry, x, weight, backend))
    return int((worth_asking(geometry.depthwise(weight)) if share is None else share) * geometry.pixels)


def faster(geometry: Geometry, x: Tensor, weight: Tensor, rows: Tensor, backend: str) -> bool:
    """Whether dense is faster than `backend` for so many rows."""
    if not len(rows) or len(rows) < worth_asking(geometry.depthwise(weight)) * geometry.pixels:
        return False
    shape = _shape(geometry, x, weight, backend)
    _asked[shape] = share = crossover(*shape)
    return len(rows) >= geometry.pixels * share


_asked: dict[tuple, float] = {}


def _shape(geometry: Geometry, x: Tensor, weight: Tensor, backend: str) -> tuple:
    return geometry, x.dtype, x.device, weight.shape, backend, torch.get_num_threads()


@lru_cache
def crossover(geometry: Geometry, dtype: torch.dtype, device: torch.device, weight: tuple[int, ...], backend: str,
              threads: int) -> float:
    """The share of pixels on from which dense is faster: its time over the backend's with all of them on but one.

    Above 1 it never is: the backend is faster even then.
    """
    from .operator import BACKENDS

    def some(*shape):                                                # not zeros, whose memory would be one page
        return torch.full(shape, 0.5, dtype=dtype, device=device)

    x = some(geometry.batch, *geometry.size, weight[1] * geometry.groups).movedim(3, 1)
    w = some(*weight)
    rows = torch.arange(min(1, geometry.pixels - 1), geometry.pixels, dtype=torch.int32, device=device)
    calls = [lambda m=module: m.forward(geometry, x, w, None, None, rows, None, 0, False)
             for module in (BACKENDS["dense"], BACKENDS[backend])]
    best, began, turn = [float("inf")] * 2, time.perf_counter(), 0
    with torch.no_grad(), _disable_current_modes():                  # no counter counts what is only timed
        while turn < 4 or (turn < 12 and time.perf_counter() - began < 0.1):
            for i, call in enumerate(calls):
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                start = time.perf_counter()
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:                                             # the first only warms up
                    best[i] = min(best[i], time.perf_counter() - start)
            turn += 1
    return best[0] / best[1]
