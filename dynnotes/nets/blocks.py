"""Residual branches that compute whole blocks of their output, as accelerators and dense kernels like them."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..execute import Dynamic, Trace
from .masked import run_masked


def whole_blocks(mask: Tensor, side: int) -> Tensor:
    """`mask` [B, 1, H, W] grown to whole blocks of `side` pixels: a block with any pixel on is on, the last may be cut.

    That is how a mask becomes a list of tiles (Ren et al. 2018, SBNet, sec. 3).
    """
    tiles = F.max_pool2d(mask, side, ceil_mode=True) if len(mask) else mask[:, :, ::side, ::side]
    return tiles.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :mask.shape[2], :mask.shape[3]]


class BlockSparse(Dynamic):
    """relu(x + branch(x)) in blocks of the mask, relu(x) elsewhere: [B, C, H, W] and mask [B, 1, H, W] -> [B, C, H, W].

    branch: as for `run_masked`, keeps the shape. side: of a block, in pixels. The mask comes from elsewhere: a road
    map, a coarse detector, the last frame.
    """
    def __init__(self, branch: nn.Sequential, side: int):
        super().__init__()
        self.branch, self.side = branch, side

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Trace]:
        return run_masked(whole_blocks(mask, self.side), self.branch, x, name="blocks", sparse=self.sparse, residual=x)
