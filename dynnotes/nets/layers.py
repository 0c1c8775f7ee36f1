"""Static parts that several papers gate."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, same padding, then batch normalisation: [B, C, H, W] -> [B, C', H/s, W/s]."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs))


def basic(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """The residual branch F of a basic block (He et al. 2016, fig. 5 left), without shortcut and last ReLU."""
    return nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *conv_bn(outputs, outputs, 3))


def bottleneck(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """The residual branch F of a bottleneck block (He et al. 2016, fig. 5 right); the stride is in the 3x3."""
    width = outputs // 4
    return nn.Sequential(*conv_bn(inputs, width, 1), nn.ReLU(), *conv_bn(width, width, 3, stride), nn.ReLU(),
                         *conv_bn(width, outputs, 1))


def shortcut(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Identity, or a 1x1 projection where the shape changes."""
    return nn.Identity() if inputs == outputs and stride == 1 else conv_bn(inputs, outputs, 1, stride)


class Residual(nn.Module):
    """A whole basic block, as it stands in a static network: relu(shortcut(x) + F(x))."""
    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.branch, self.shortcut = basic(inputs, outputs, stride), shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:                        # [B, C, H, W] -> [B, C', H/s, W/s]
        return (self.shortcut(x) + self.branch(x)).relu()


class Attention(nn.Module):
    """Multi-head attention of queries `x` [B, n, D] over `context` [B, N, D] (default: x itself) -> [B, n, D].

    mask: [B, N], keys where it is 0 are not seen. A sample without any key gets zeros, not NaN.
    """
    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        def split(t):
            return t.unflatten(2, (self.heads, -1)).transpose(1, 2)                # [B, heads, n, D / heads]
        key, value = self.key_value(x if context is None else context).chunk(2, 2)
        if mask is None:
            y = F.scaled_dot_product_attention(split(self.query(x)), split(key), split(value))
        else:
            bias = torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask == 0, -torch.inf)[:, None, None]
            some = (mask != 0).any(1).view(-1, 1, 1, 1)
            y = F.scaled_dot_product_attention(split(self.query(x)), split(key), split(value),
                                               attn_mask=torch.where(some, bias, 0.0))
            y = torch.where(some, y, 0.0)
        return self.out(y.transpose(1, 2).flatten(2))
