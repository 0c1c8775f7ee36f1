"""Convolution evaluated only where an output mask is on, in time proportional to how much of it is.

    y = masked_conv2d(x, mask, conv.weight, conv.bias, padding=1)

`mask` [B, 1, H', W'] says which output pixels are wanted; the others are zero. Backends compute the same: `reference`
(the definition), `torch` (gathered patches), `cpu` (compiled on first use), `triton` (GPU), `dense` (everything, for
masks that leave almost nothing out). Maps whose channels stand
side by side (torch.channels_last) are read in place; the output is channels_last.
"""
from __future__ import annotations

import torch
from torch import Tensor

from . import dense, library, native
from .geometry import Geometry, geometry_of
from .operator import BACKENDS, call, overheard

__all__ = ["Geometry", "active", "best", "geometry_of", "masked_conv2d"]


def masked_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride=1, padding=0,
                  dilation=1, groups: int = 1, relu: int = 0, residual: Tensor | None = None,
                  backend: str | None = None) -> Tensor:
    """relu(conv2d(x) + residual) where `mask` is on, zero elsewhere: [B, O, H', W'].

    x: [B, C, H, W]; mask: [B, 1, H', W'], bool, or 0 and 1; weight: [O, C / groups, kh, kw]; residual like the output.
    relu: 0 none, 1 relu, 6 relu6. float32, float64, bfloat16 (and what else torch has, by the "torch" backend).
    Gradients reach x, weight, bias and residual. backend: None for the best there is, and dense where that is faster.
    Raises ValueError for shapes, devices, dtypes or masks that do not fit; the message says which.
    """
    geometry = geometry_of(x.shape, weight.shape, stride, padding, dilation, groups)
    _check(geometry, x, mask, weight, bias, residual, relu, backend)
    if backend in (None, "cpu") and best(x) == "cpu" and not overheard(x, weight, bias, residual):
        most = geometry.pixels if backend else dense.limit(geometry, x, weight, "cpu")
        on = mask if mask.dtype is torch.bool else mask != 0
        y = native.masked(geometry, x, on, weight, bias, residual, relu, most)
        if y is not None:                                            # in one call, for little else takes long here
            return y
    rows, _ = active(mask)
    if backend is None:
        backend = best(x)
        if dense.faster(geometry, x, weight, rows, backend):
            backend = "dense"
    return call(geometry, x, weight, bias, residual, rows, None, relu, False, backend)


def active(mask: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor | None]:
    """(flat places where `mask` is on, ascending, int32; with `inverse` the rank of each place or -1, int32)."""
    on = mask if mask.dtype is torch.bool else mask != 0
    if on.is_cpu and library.available():
        return native.rows_of(on, inverse)
    flat = on.flatten()
    ranks = torch.where(flat, flat.cumsum(0) - 1, -1).int() if inverse else None
    return flat.nonzero().squeeze(1).int(), ranks


def best(x: Tensor) -> str:
    """The fastest backend for inputs like `x`."""
    if x.is_cuda and BACKENDS["triton"].takes(x):
        return "triton"
    return "cpu" if native.takes(x) and library.available() else "torch"


def _check(geometry, x, mask, weight, bias, residual, relu, backend) -> None:
    if mask.shape != geometry.mask:
        raise ValueError(f"masked convolution: the mask is {list(mask.shape)}, the output needs {list(geometry.mask)}")
    device, dtype = x.device, x.dtype
    for name, t in (("mask", mask), ("weight", weight), ("bias", bias), ("residual", residual)):
        if t is None:
            continue
        if t.device != device:
            raise ValueError(f"masked convolution: {name} is on {t.device}, x on {device}")
        if t.dtype is not dtype and t is not mask:
            raise ValueError(f"masked convolution: {name} is {t.dtype}, x {dtype}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"masked convolution: bias is {list(bias.shape)}, not {list(weight.shape[:1])}")
    if residual is not None and residual.shape != (geometry.batch, len(weight), *geometry.out):
        raise ValueError(f"masked convolution: residual is {list(residual.shape)}, "
                         f"not {[geometry.batch, len(weight), *geometry.out]}")
    if relu not in (0, 1, 6):
        raise ValueError(f"masked convolution: relu is 0, 1 or 6, not {relu!r}")
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"masked convolution: no backend {backend!r}; one of {', '.join(BACKENDS)}")
    if backend == "cpu" and not (native.takes(x) and library.available()):
        raise ValueError(f"masked convolution: the cpu backend is not compiled here, or does not take {x.dtype} on "
                         f"{x.device}")
