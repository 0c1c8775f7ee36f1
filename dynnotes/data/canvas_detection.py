"""canvas-detection: several handwritten digits on a canvas; where is each of them, and which one is it?

The canvases are those of canvas-segmentation for the same seed; their making, and the formula of `hard` (mean of four
parts in [0, 1]: how small, how cluttered, how noisy, how hidden), stand in _crowds.py:

    hard = ((LARGE - scale) / (LARGE - SMALL) + clutter / FRAGMENTS + noise / NOISE + hidden / HIDDEN) / 4   in [0, 1]

The target has DIGITS rows, one per digit: x0, y0, x1, y1 in [0, 1], the class, and 1 for "there is one"; rows after
the last digit are zero. A box is the smallest that holds all ink of its digit, also what a bar hides.
A pixel is `informative` where a box holds it.
"""
from __future__ import annotations

import torch
from torch import Tensor

from . import Data, _crowds

SIZES = {"train": 4000, "validation": 500, "test": 1000}


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 1, 48, 48] in [0, 1], targets [N, 3, 6], informative [N, 48, 48] of 0 and 1."""
    found = _crowds.crowd(split, SIZES[split] if size is None else size, seed)
    there = found.digit >= 0
    columns = [boxes(found.ink), found.digit.clamp_min(0).unsqueeze(2), there.unsqueeze(2)]
    target = torch.cat([c.float() for c in columns], 2) * there.unsqueeze(2)
    return Data("canvas-detection", split, (found.image,), target, found.hard, found.difficulty,
                labels=tuple("0123456789"), informative=_held(target).float())


def boxes(ink: Tensor) -> Tensor:
    """The smallest boxes x0, y0, x1, y1 in [0, 1] [..., 4] that hold everything that is True in [..., H, W]."""
    ends = []
    for axis in (-2, -1):                                             # along x, then along y
        held = ink.any(axis).float()
        n = held.shape[-1]
        ends.append((held.argmax(-1) / n, 1 - held.flip(-1).argmax(-1) / n))
    (x0, x1), (y0, y1) = ends
    return torch.stack([x0, y0, x1, y1], -1)


def _held(target):
    """[N, 48, 48], True for pixels in a box."""
    pixel = (torch.arange(_crowds.SIDE) + 0.5) / _crowds.SIDE
    x0, y0, x1, y1 = target[..., :4].unsqueeze(-1).unbind(2)                            # [N, 3, 1] each
    across, down = (x0 < pixel) & (pixel < x1), (y0 < pixel) & (pixel < y1)             # [N, 3, 48]
    return (across.unsqueeze(2) & down.unsqueeze(3)).any(1)
