"""Parts of a vision transformer: patches become tokens, blocks mix them, the class token answers."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Attention, conv_bn


def patches(channels: int, size: int, width: int) -> nn.Module:
    """One linear map per patch of `size` pixels (Dosovitskiy et al. 2021): [B, C, H, W] -> [B, width, H/s, W/s]."""
    return nn.Conv2d(channels, width, size, size)


def small_convolutions(channels: int, width: int) -> nn.Module:
    """Patches of 4 pixels seen through four small convolutions (Xiao et al. 2021: transformers then learn sooner).

    [B, C, H, W] -> [B, width, H/4, W/4].
    """
    half = width // 2
    return nn.Sequential(*conv_bn(channels, half, 3, 2), nn.ReLU(), *conv_bn(half, half, 3), nn.ReLU(),
                         *conv_bn(half, width, 3, 2), nn.ReLU(), *conv_bn(width, width, 3))


class Tokens(nn.Module):
    """[B, C, H, W] -> [B, 1 + n, width]: the class token, then the n patches of `project` row by row, with positions.

    `project`: image -> [B, width, rows, columns]; n = rows * columns.
    """
    def __init__(self, project: nn.Module, count: int, width: int):
        super().__init__()
        self.project = project
        self.first = nn.Parameter(torch.zeros(1, 1, width))                        # the class token
        self.places = nn.Parameter(torch.zeros(1, 1 + count, width))
        nn.init.trunc_normal_(self.first, std=0.02)
        nn.init.trunc_normal_(self.places, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x).flatten(2).transpose(1, 2)                             # [B, n, width]
        return torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places


class Block(nn.Module):
    """A pre-norm encoder block: x + attention(norm(x)), then x + perceptron(norm(x)); [B, n, D] -> [B, n, D].

    context: [B, N, D], the tokens that are seen (default: x itself). mask: [B, N], those where it is 0 are not. So it
    is called by run_kept in each of its forms.
    """
    def __init__(self, width: int, heads: int, ratio: int = 4):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)
        self.then = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, ratio * width), nn.GELU(),
                                  nn.Linear(ratio * width, width))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        own = self.norm(x)
        seen = own if context is None or context is x else self.norm(context)
        x = x + self.attention(own, seen, mask)
        return x + self.then(x)


class Look(nn.Module):
    """The first half of such a block, alone: x + attention(norm(x)), [B, n, D] -> [B, n, D]."""
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width, eps=1e-6), Attention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Think(nn.Module):
    """The second half: x + perceptron(norm(x)), [B, n, D] -> [B, n, D]; what experts take the place of."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.then = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, hidden), nn.GELU(),
                                  nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.then(x)


def classifier(width: int, classes: int) -> nn.Sequential:
    """The last norm and a linear layer, for the class token: [B, width] -> [B, classes]."""
    return nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes))


class ViT(nn.Module):
    """The static vision transformer (Dosovitskiy et al. 2021): [B, C, H, W] -> logits [B, classes]."""
    def __init__(self, *, embed: nn.Module, width: int, depth: int, heads: int, classes: int):
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = classifier(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])
