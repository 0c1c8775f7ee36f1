"""Small networks that look at a layer's input and say which of its output pixels to compute."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskUnit(nn.Module):
    """One logit for every output pixel of a layer of that stride: [B, C, H, W] -> [B, 1, H/s, W/s].

    A 3x3 convolution looks at the place, a linear layer on pooled features at the whole image; their sum decides
    (Verelst and Tuytelaars 2020; `Squeeze` in the authors' code, dynconv/maskunit.py). Initial weights of the
    convolution as there: normal with variance 2 / 9, whatever the channels, so that untrained masks already vary.
    """
    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.place = nn.Conv2d(channels, 1, 3, stride, padding=1)
        nn.init.normal_(self.place.weight, std=math.sqrt(2 / 9))
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._look(x) + self.whole(x)[:, :, None, None]

    def _look(self, x: Tensor) -> Tensor:
        """`self.place`; at stride 1 as nine maps, one for each tap, shifted and summed: as many products, in half the
        time, for a convolution to a single channel leaves most of a processor's lanes empty."""
        if self.place.stride != (1, 1):
            return self.place(x)
        taps = self.place.weight[0].flatten(1).flip(1).T[:, :, None, None]     # folding adds where a tap is read from
        return F.fold(F.conv2d(x, taps).flatten(2), x.shape[2:], 3, padding=1) + self.place.bias[:, None, None]


@torch.no_grad()
def reads(mask: Tensor, conv: nn.Conv2d, grid: tuple[int, int]) -> Tensor:
    """Which pixels of its input, of size `grid`, `conv` reads to compute the output pixels in `mask` [B, 1, H, W].

    For a 3x3 convolution of stride 1 that is the mask dilated by one pixel. A constant: no gradient passes.
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    rows, columns = mask.shape[2:]
    corner = mask.new_zeros(len(mask), 1, grid[0] + 2 * ph, grid[1] + 2 * pw)     # of every window, in the padded input
    corner[:, :, :(rows - 1) * sh + 1:sh, :(columns - 1) * sw + 1:sw] = mask
    if len(mask):                                                                 # max pooling refuses an empty batch
        corner = F.max_pool2d(F.pad(corner, ((kw - 1) * dw, 0, (kh - 1) * dh, 0)), (kh, kw), 1, dilation=(dh, dw))
    return corner[:, :, ph:ph + grid[0], pw:pw + grid[1]]
