"""Answers that are more than a class: a class per pixel, boxes, a picture. What is lost, what is right, static nets.

A model for such a task inherits Segmenting, Detecting or Restoring in place of Dynamic: loss and score are the task's,
so all papers are judged alike.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..execute import Dynamic
from .backbones import plan, stem
from .layers import Residual


class Segmenting(Dynamic):
    """Answers y [B, C, H, W], a logit per class and pixel; target [B, H, W]."""

    def task(self, y: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy, half of it the mean over pixels, half the mean over the sample's classes: a digit weighs as
        much as the background, of which there is ten times more."""
        off = F.cross_entropy(y, target, reduction="none").flatten(1)                                    # [B, HW]
        there = F.one_hot(target, y.shape[1]).flatten(1, 2).to(off)                                      # [B, HW, C]
        count = there.sum(1)                                                                             # [B, C]
        share = (there / count.clamp_min(1).unsqueeze(1)).sum(2) / (count > 0).sum(1, keepdim=True)      # [B, HW]
        return (off.mean(1) + (share * off).sum(1)).mean() / 2

    def correct(self, y: Tensor, target: Tensor) -> Tensor:
        """[B]: intersection over union, the mean over the classes in the sample's target, background too.

        A class that is only in the answer counts by the pixels that it takes from others: one stray pixel does not
        cost as much as a digit that was missed.
        """
        there, chosen = (F.one_hot(c, y.shape[1]).flatten(1, -2).bool() for c in (target, y.argmax(1)))  # [B, HW, C]
        both, either = ((there & chosen).sum(1).double(), (there | chosen).sum(1).double())              # [B, C]
        asked = there.any(1).double()
        return (asked * both / either.clamp_min(1)).sum(1) / asked.sum(1).clamp_min(1)


class Detecting(Dynamic):
    """Answers y [B, P, 5 + C]: P boxes x0, y0, x1, y1 in [0, 1], a logit for "there is one", a logit per class.

    target: [B, K, 6], boxes, class, and 1 where there is one. `boxes` gives an answer the same form.
    """

    @staticmethod
    def boxes(y: Tensor) -> Tensor:
        """[B, P, 6]: boxes, the likeliest class, and the probability that there is one."""
        return torch.cat([y[..., :4], y[..., 5:].argmax(-1, keepdim=True).to(y), y[..., 4:5].sigmoid()], -1)

    def task(self, y: Tensor, target: Tensor) -> Tensor:
        """Every true box, one after another, is given to the nearest free answer (L1); that one shall have the box
        (L1, and 1 - IoU), the class (cross-entropy) and the score 1, all others the score 0."""
        rows = torch.arange(len(y), device=y.device)
        wanted = torch.zeros_like(y[..., 4])
        total = y.new_zeros(())
        for true in target.unbind(1):
            there = true[:, 5]
            far = (y[..., :4] - true[:, None, :4]).abs().sum(2).detach() + 1e3 * wanted      # [B, P]
            nearest = far.argmin(1)
            mine = y[rows, nearest]                                                          # [B, 5 + C]
            wanted = wanted.index_put((rows, nearest), torch.maximum(there, wanted[rows, nearest]))
            off = 5 * (mine[:, :4] - true[:, :4]).abs().sum(1) + 1 - iou(mine[:, :4], true[:, :4])
            off = off + F.cross_entropy(mine[:, 5:], true[:, 4].long(), reduction="none")
            total = total + (there * off).sum()
        scored = F.binary_cross_entropy_with_logits(y[..., 4], wanted, reduction="sum")
        return (total + scored) / target[..., 5].sum().clamp_min(1)

    def correct(self, y: Tensor, target: Tensor) -> Tensor:
        """[B]: F1 of the boxes whose score is above 1/2: right with IoU of at least 1/2 and the class.

        Answers choose in the order of their scores, each the nearest true box that is free; a second answer to the
        same box is wrong. Nothing there and nothing found is 1.
        """
        found = self.boxes(y)
        found = found.gather(1, found[..., 5:].argsort(1, descending=True).expand_as(found))
        free, claimed = target[..., 5].double(), (found[..., 5] > 0.5).double()
        right = torch.zeros_like(claimed[:, 0])
        for mine, shown in zip(found.unbind(1), claimed.unbind(1), strict=True):
            near = iou(mine[:, None, :4], target[..., :4])
            fits = (near >= 0.5) & (mine[:, None, 4] == target[..., 4]) & (free > 0) & (shown > 0).unsqueeze(1)
            best = F.one_hot((near * fits).argmax(1), free.shape[1]) * fits                 # [B, K], at most one 1
            free, right = free - best, right + best.sum(1)
        count = claimed.sum(1) + target[..., 5].double().sum(1)
        return torch.where(count > 0, 2 * right / count.clamp_min(1), 1.0)


class Restoring(Dynamic):
    """Answers y [B, C, H, W], a picture; target [B, 2 C, H, W], the true one and, behind it, the naive answer."""

    def task(self, y: Tensor, target: Tensor) -> Tensor:
        """What share of the naive answer's squared error is left, the mean over samples: 1 for the naive answer."""
        return _left(y, target).mean()

    def correct(self, y: Tensor, target: Tensor) -> Tensor:
        """[B]: the share of the naive answer's squared error that is removed, 0 for an answer that is worse."""
        return (1 - _left(y.double(), target.double())).clamp(0, 1)


def _left(y, target):
    true, naive = target.chunk(2, 1)
    return (y - true).square().flatten(1).sum(1) / (naive - true).square().flatten(1).sum(1).clamp_min(1e-6)


def psnr(y: Tensor, true: Tensor) -> Tensor:
    """[B]: peak signal-to-noise ratio in dB of pictures [B, C, H, W] whose values go from 0 to 1."""
    return -10 * (y.double() - true.double()).square().flatten(1).mean(1).log10()


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union [...] of boxes x0, y0, x1, y1 [..., 4]; 0 where both are empty."""
    def area(low, high):
        return (high - low).clamp_min(0).prod(-1)
    shared = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    return shared / (area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - shared).clamp_min(1e-9)


# Static nets ---------------------------------------------------------------------------------------------------------

class Segmenter(nn.Module):
    """An encoder of residual blocks that halve the map, each followed by logits of its own; coarse ones are enlarged
    and added to finer ones (Long et al. 2015): [B, channels, H, W] -> logits [B, classes, H, W].

    fold: pixels are first folded into channels, fold x fold to one, and unfolded at the end: a coarser, cheaper net.
    """
    def __init__(self, *, channels: int, classes: int, widths: Sequence[int], fold: int = 1):
        super().__init__()
        self.fold, self.unfold = nn.PixelUnshuffle(fold), nn.PixelShuffle(fold)
        self.stem = stem("cifar", channels * fold ** 2, widths[0])
        self.blocks = nn.ModuleList(Residual(*b) for b in plan(widths, [1] * len(widths), widths[0]))
        self.heads = nn.ModuleList(nn.Conv2d(width, classes * fold ** 2, 1) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        x, logits = self.stem(self.fold(x)), []
        for block, head in zip(self.blocks, self.heads, strict=True):
            x = block(x)
            logits.append(head(x))
        y = logits[-1]
        for finer in logits[-2::-1]:
            y = finer + F.interpolate(y, size=finer.shape[2:], mode="bilinear", align_corners=False)
        return self.unfold(y)


class GridDetector(nn.Module):
    """Residual blocks, and one answer per cell of the last map, a box about that cell: [B, channels, H, W] ->
    [B, cells, 5 + classes], as Detecting says."""
    def __init__(self, *, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int]):
        super().__init__()
        self.stem = stem("cifar", channels, widths[0])
        self.blocks = nn.Sequential(*(Residual(*b) for b in plan(widths, depths, widths[0])))
        self.head = nn.Conv2d(widths[-1], 5 + classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return about_cells(self.head(self.blocks(self.stem(x))))


def about_cells(x: Tensor) -> Tensor:
    """[B, 5 + C, h, w] -> [B, h * w, 5 + C]: every box has its centre in its own cell, so that one cell is nearest."""
    h, w = x.shape[2:]
    row, column = torch.arange(h, device=x.device).view(h, 1), torch.arange(w, device=x.device)
    across, down = (column + x[:, 0].sigmoid()) / w, (row + x[:, 1].sigmoid()) / h                    # [B, h, w]
    wide, high = (x[:, 2] - 1).sigmoid(), (x[:, 3] - 1).sigmoid()
    box = torch.stack([across - wide / 2, down - high / 2, across + wide / 2, down + high / 2], 1).clamp(0, 1)
    return torch.cat([box, x[:, 4:]], 1).flatten(2).transpose(1, 2)


class Restorer(nn.Module):
    """What is added to the bicubic answer, by residual blocks: [B, channels, H, W] -> [B, channels, factor * H, ...].

    There is no batch normalisation: a picture's own shades are what is asked (Lim et al. 2017). fold: as for Segmenter.
    """
    def __init__(self, *, channels: int, width: int, depth: int, factor: int = 1, fold: int = 1):
        super().__init__()
        self.factor = factor
        self.fold, self.unfold = nn.PixelUnshuffle(fold), nn.PixelShuffle(factor * fold)
        self.stem = nn.Sequential(nn.Conv2d(channels * fold ** 2, width, 3, 1, 1), nn.ReLU())
        self.branches = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(),
                                                    nn.Conv2d(width, width, 3, 1, 1)) for _ in range(depth))
        self.head = nn.Conv2d(width, channels * (factor * fold) ** 2, 3, 1, 1)
        nn.init.zeros_(self.head.weight)                             # begins as the bicubic answer
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(self.fold(x))
        for branch in self.branches:
            y = y + branch(y)
        y = self.unfold(self.head(y))
        if self.factor > 1:
            x = F.interpolate(x, scale_factor=self.factor, mode="bicubic", align_corners=False)
        return x + y
