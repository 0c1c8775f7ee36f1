"""denoising: a picture with noise, more of it here and none there; what is the picture?

A picture is made as _pictures.py says, and gets Gaussian noise. How strong it is goes from 0 to NOISE over the picture,
by a surface that is known; nobody tells the model. Three things are drawn for each sample, and known:

    scale       side of the digits in pixels, LARGE down to SMALL
    wavelength  of the stripes in pixels, COARSE down to FINE
    grain       standard deviation in pixels of the blur that noise passes before it is scaled, 0 to GRAIN: neighbours
                then err alike, and noise looks like detail

    hard = ((LARGE - scale) / (LARGE - SMALL) + (COARSE - wavelength) / (COARSE - FINE) + grain / GRAIN) / 3   in [0, 1]

The three go together: each is drawn within SPREAD of one latent difficulty, uniform in [0, 1] (and clipped). The mean
of the noise over the picture, `noise`, is left to chance: more noise leaves more to win, it is not harder.
The target has two pictures: target[:, 0] is the clean one, target[:, 1] the naive answer, the input itself, which the
score compares with. Effort is due where the noise is:

    informative = standard deviation of the noise at that pixel / NOISE
"""
from __future__ import annotations

import torch
from torch import Tensor

from . import Data, _digits, _pictures

SIDE, SMALL, LARGE, FINE, COARSE, NOISE, GRAIN, REACH = 48, 12.0, 32.0, 3.0, 12.0, 0.3, 1.0, 3
SIZES = {"train": 4000, "validation": 500, "test": 1000}


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 1, 48, 48], targets [N, 2, 48, 48], informative [N, 48, 48] in [0, 1]; only inputs leave [0, 1]."""
    count, random = SIZES[split] if size is None else size, _digits.generator(split, seed)
    level = _digits.levels(count, 3, random)
    scale, wavelength = LARGE - level[:, 0] * (LARGE - SMALL), COARSE - level[:, 1] * (COARSE - FINE)
    grain = level[:, 2] * GRAIN
    clean = _pictures.pictures(split, SIDE, scale, wavelength, random)
    strength = _spread(_pictures.smooth(torch.rand(count, 1, 4, 4, generator=random), SIDE))
    noise = grained(torch.randn(count, SIDE, SIDE, generator=random), grain).unsqueeze(1)
    seen = clean + NOISE * strength * noise
    hard = ((LARGE - scale) / (LARGE - SMALL) + (COARSE - wavelength) / (COARSE - FINE) + grain / GRAIN) / 3
    return Data("denoising", split, (seen,), torch.cat([clean, seen], 1), hard.clamp(0, 1),
                {"scale": scale, "wavelength": wavelength, "grain": grain,
                 "noise": NOISE * strength.flatten(1).mean(1)}, informative=strength.squeeze(1))


def _spread(surface: Tensor) -> Tensor:
    """The middle half of [0, 1] stretched to all of it: some of a picture has no noise, some has the most."""
    return (2 * surface - 0.5).clamp_(0, 1)


def grained(noise: Tensor, grain: Tensor) -> Tensor:
    """White noise [N, H, W] of unit variance, blurred by a Gaussian of `grain` [N] pixels; the variance stays 1.

    The picture goes round at its borders, so that they have the same variance.
    """
    reach = torch.arange(-REACH, REACH + 1)
    kernel = (-(reach ** 2) / (2 * grain.unsqueeze(1) ** 2).clamp_min(1e-6)).exp()      # [N, 7]
    kernel = (kernel / kernel.square().sum(1, keepdim=True).sqrt())
    for axis in (1, 2):
        noise = sum(w.view(-1, 1, 1) * noise.roll(int(r), axis) for w, r in zip(kernel.T, reach, strict=True))
    return noise
