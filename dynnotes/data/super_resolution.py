"""super-resolution: a picture of half the height and width, with noise; what does it look like in full?

A picture is made as _pictures.py says; a pixel of the input is the mean of FACTOR x FACTOR of its pixels, with noise.
Three things are drawn for each sample, and known:

    scale       side of the digits in pixels of the full picture, LARGE down to SMALL
    wavelength  of the stripes in the same pixels, COARSE down to FINE; below 2 * FACTOR the input cannot show them
    noise       standard deviation of Gaussian noise on the input, 0 to NOISE

    hard = ((LARGE - scale) / (LARGE - SMALL) + (COARSE - wavelength) / (COARSE - FINE) + noise / NOISE) / 3   in [0, 1]

The three go together: each is drawn within SPREAD of one latent difficulty, uniform in [0, 1] (and clipped).
The target has two pictures: target[:, 0] is the full picture, target[:, 1] the naive answer, bicubic interpolation of
the input, which the score compares with. What the naive answer would miss without noise makes a pixel hard:

    informative = |full picture - bicubic interpolation of the input without noise| / LOST, at most 1
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Data, _digits, _pictures

SIDE, FACTOR, SMALL, LARGE, FINE, COARSE, NOISE, LOST = 48, 2, 12.0, 32.0, 3.0, 12.0, 0.06, 0.25
SIZES = {"train": 4000, "validation": 500, "test": 1000}


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 1, 24, 24], targets [N, 2, 48, 48] in [0, 1], informative [N, 48, 48] in [0, 1]."""
    count, random = SIZES[split] if size is None else size, _digits.generator(split, seed)
    level = _digits.levels(count, 3, random)
    scale, wavelength = LARGE - level[:, 0] * (LARGE - SMALL), COARSE - level[:, 1] * (COARSE - FINE)
    noise = level[:, 2] * NOISE
    clean = _pictures.pictures(split, SIDE, scale, wavelength, random)
    small = F.avg_pool2d(clean, FACTOR)
    seen = small + noise.view(-1, 1, 1, 1) * torch.randn(small.shape, generator=random)
    hard = ((LARGE - scale) / (LARGE - SMALL) + (COARSE - wavelength) / (COARSE - FINE) + noise / NOISE) / 3
    lost = (clean - naive(small)).abs().squeeze(1) / LOST
    return Data("super-resolution", split, (seen,), torch.cat([clean, naive(seen)], 1), hard.clamp(0, 1),
                {"scale": scale, "wavelength": wavelength, "noise": noise}, informative=lost.clamp_(max=1))


def naive(seen: Tensor) -> Tensor:
    """The bicubic answer [N, 1, 48, 48] in [0, 1] to an input [N, 1, 24, 24]."""
    return F.interpolate(seen, scale_factor=FACTOR, mode="bicubic", align_corners=False).clamp_(0, 1)
