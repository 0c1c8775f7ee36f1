"""The definition: the dense convolution, of which the pixels that are on are kept. Any dtype, any device."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .geometry import Geometry


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, rows: Tensor,
            inverse: Tensor | None, relu: int, packed: bool) -> tuple[Tensor, int]:
    """As `native.forward`; everything is computed and issued."""
    rows, (high, wide) = rows.long(), geometry.out
    y = F.conv2d(unpacked(geometry, x, inverse), weight, bias, geometry.stride, geometry.padding, geometry.dilation,
                 geometry.groups)
    values = y.movedim(1, 3).flatten(0, 2)[rows]                     # [R, O]
    if residual is not None:
        values = values + (residual if packed else residual.movedim(1, 3).flatten(0, 2)[rows])
    values = clipped(values, relu)
    if not packed:
        values = values.new_zeros(geometry.pixels, len(weight)).index_put((rows,), values)
        values = values.view(geometry.batch, high, wide, len(weight)).movedim(3, 1)
    return values, geometry.pixels * weight.numel()


def grad_input(geometry: Geometry, g: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    shape = geometry.batch, weight.shape[1] * geometry.groups, *geometry.size
    x = torch.nn.grad.conv2d_input(shape, weight, spread(geometry, g, rows), geometry.stride, geometry.padding,
                                   geometry.dilation, geometry.groups)
    return x.contiguous(memory_format=torch.channels_last)


def grad_weight(geometry: Geometry, g: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    shape = g.shape[1], x.shape[1] // geometry.groups, *geometry.kernel
    return torch.nn.grad.conv2d_weight(x, shape, spread(geometry, g, rows), geometry.stride, geometry.padding,
                                       geometry.dilation, geometry.groups).contiguous()


def spread(geometry: Geometry, values: Tensor, rows: Tensor) -> Tensor:
    """Rows [R, O] at their output pixels [B, O, H', W'], zero elsewhere."""
    y = values.new_zeros(geometry.pixels, values.shape[1]).index_copy(0, rows.long(), values)
    return y.view(geometry.batch, *geometry.out, values.shape[1]).movedim(3, 1)


def unpacked(geometry: Geometry, x: Tensor, inverse: Tensor | None) -> Tensor:
    """Packed rows [R, C] as the input [B, C, H, W] that they stand for."""
    if inverse is None:
        return x
    padded = torch.cat([x, x.new_zeros(1, x.shape[1])])              # -1 is the last row: zeros
    return padded[inverse.long()].view(geometry.batch, *geometry.size, x.shape[1]).movedim(3, 1)


def clipped(values: Tensor, relu: int) -> Tensor:
    """relu: 0 none, 1 relu, 6 relu6."""
    return values.clamp(0, 6) if relu == 6 else values.relu() if relu else values
