"""Clean pictures for tasks that damage them: flat regions, stripes, and strokes of real handwritten digits.

A picture has a shade that changes slowly, SHADE up to 1/2, a region with stripes of one wavelength and a random
direction, STRIPES strong, and two digits of one size, whose edges are sharp: ink rises within about a pixel. Where is
what is left to chance.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _digits

SHADE, STRIPES, DIGITS = 0.15, 0.2, 2


def pictures(split: str, side: int, scale: Tensor, wavelength: Tensor, random: torch.Generator) -> Tensor:
    """[N, 1, side, side] in [0, 1]: digits of `scale` [N] pixels, stripes of `wavelength` [N] pixels."""
    count = len(scale)
    images, _ = _digits.digits()
    pool = _digits.sources(split)

    def uniform(*shape):
        return torch.rand(*shape, generator=random)

    clean = SHADE + (0.5 - SHADE) * smooth(uniform(count, 1, 3, 3), side)
    angle, phase = 2 * math.pi * uniform(2, count, 1, 1)
    pixel = torch.arange(side).float() + 0.5
    along = pixel * angle.cos() + pixel.unsqueeze(1) * angle.sin()                      # [N, side, side]
    stripes = (2 * math.pi * along / wavelength.view(-1, 1, 1) + phase).sin().unsqueeze(1)
    clean = clean + STRIPES * stripes * (smooth(uniform(count, 1, 3, 3), side) > 0.5)
    for _ in range(DIGITS):
        chosen = pool[torch.randint(len(pool), (count,), generator=random)]
        corner = uniform(count, 2) * (side - scale).unsqueeze(1)
        ink = _digits.placed(images[chosen], corner, scale, side)
        sharp = (0.5 + (ink - 0.5) * (scale / 8).view(-1, 1, 1, 1)).clamp(0, 1)         # a source pixel has scale / 8
        clean = torch.maximum(clean, sharp)
    return clean.clamp_(0, 1)


def smooth(knots: Tensor, side: int) -> Tensor:
    """A surface [N, 1, side, side] that passes from knot to knot [N, 1, n, n], bilinear."""
    return F.interpolate(knots, size=(side, side), mode="bilinear", align_corners=True)
