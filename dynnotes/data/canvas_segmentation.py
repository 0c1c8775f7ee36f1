"""canvas-segmentation: several handwritten digits on a canvas; which digit does every pixel belong to?

The canvases are those of canvas-detection for the same seed; their making, and the formula of `hard` (mean of four
parts in [0, 1]: how small, how cluttered, how noisy, how hidden), stand in _crowds.py:

    hard = ((LARGE - scale) / (LARGE - SMALL) + clutter / FRAGMENTS + noise / NOISE + hidden / HIDDEN) / 4   in [0, 1]

The target of a pixel is 1 + the digit whose ink is seen there, or 0: background, fragments of digits, and bars, also
where a bar hides ink. A pixel is hard, `informative` 1, where one of these holds, and else 0:

    edge       its target is not that of all its eight neighbours
    covered    a bar hides ink of a digit there
    cluttered  a fragment has ink there
"""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from . import Data, _crowds

SIZES = {"train": 4000, "validation": 500, "test": 1000}


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 1, 48, 48] in [0, 1], targets [N, 48, 48] of 0 to 10, informative [N, 48, 48] of 0 and 1."""
    found = _crowds.crowd(split, SIZES[split] if size is None else size, seed)
    hard_pixels = edges(found.seen) | found.covered | found.cluttered
    return Data("canvas-segmentation", split, (found.image,), found.seen, found.hard, found.difficulty,
                labels=("background", *"0123456789"), informative=hard_pixels.float())


def edges(target: Tensor) -> Tensor:
    """[N, H, W], True for pixels whose class [N, H, W] is not that of all their eight neighbours."""
    classes = target.float().unsqueeze(1)
    return (F.max_pool2d(classes, 3, 1, 1) != -F.max_pool2d(-classes, 3, 1, 1)).squeeze(1)
