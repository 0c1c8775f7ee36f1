"""many-band-digits: a digit seen in 16 spectral bands, whose ink shows in only a few of them; which digit is it?

Source: the 1,797 digits of 8x8 pixels that come with scikit-learn (the test set of the UCI "Optical Recognition of
Handwritten Digits" data), which are real; the spectra are made up. Splits share no source digit. An image has 16 bands
of 24x24 pixels, like a small hyperspectral image: neighbouring bands look alike, for the background has a smooth
spectrum and one texture for all bands. The ink is of a material that reflects like it but for a few narrow lines,
where it is brighter: other lines in every image, so that no choice of bands is good for all images. Some bands show
fragments, halves of two other digits of other materials, which look like ink and tell nothing. Four things are drawn
for each image, and known:

    bands         number of bands that show the ink, MANY down to 1
    contrast      by how much the ink is brighter than what is behind it, STRONG down to WEAK, the same in all of them
    distractors   number of bands that show fragments instead, at the same contrast, 0 to DISTRACTORS
    noise         standard deviation of Gaussian noise, the mean of the bands; one band has up to thrice that of another

    hard = ((MANY - bands) / (MANY - 1) + (STRONG - contrast) / (STRONG - WEAK)
            + distractors / DISTRACTORS + noise / NOISE) / 4                                          in [0, 1]

The four go together: each is drawn within SPREAD of one latent difficulty, uniform in [0, 1] (and clipped).
`informative` [N, 16] is 1 on bands that show the ink, else 0; the box holds the digit.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Data, _digits

BANDS, SIDE, SMALL, LARGE = 16, 24, 14.0, 20.0
MANY, STRONG, WEAK, DISTRACTORS, NOISE = 8, 0.4, 0.2, 8, 0.12
SIZES = {"train": 6000, "validation": 1000, "test": 2000}


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 16, 24, 24] in [0, 1], targets [N]."""
    count = SIZES[split] if size is None else size
    random = _digits.generator(split, seed)
    images, classes = _digits.digits()
    pool = _digits.sources(split)

    def uniform(*shape):
        return torch.rand(*shape, generator=random)

    level = _digits.levels(count, 4, random)
    bands = MANY - (level[:, 0] * (MANY - 1)).round()
    contrast = STRONG - level[:, 1] * (STRONG - WEAK)
    distractors = (level[:, 2] * DISTRACTORS).round()
    noise = level[:, 3] * NOISE
    rank = uniform(count, BANDS).argsort(1).argsort(1)                       # first the ink's bands, then fragments'
    shows_ink = rank < bands.unsqueeze(1)
    shows_fragment = ~shows_ink & (rank < (bands + distractors).unsqueeze(1))

    chosen, *others = (pool[torch.randint(len(pool), (count,), generator=random)] for _ in range(3))
    side = SMALL + uniform(count) * (LARGE - SMALL)
    corner, at, elsewhere = (uniform(count, 2) * (SIDE - side).unsqueeze(1) for _ in range(3))
    ink = _digits.placed(images[chosen], corner, side, SIDE)[:, 0]           # [N, 24, 24] in [0, 1], as all below
    first, second = (_digits.placed(images[other] * _digits.halves(uniform(count)), place, side, SIDE)[:, 0]
                     for other, place in zip(others, (at, elsewhere), strict=True))
    texture = F.interpolate(uniform(count, 1, 6, 6), SIDE, mode="bicubic", align_corners=False)[:, 0].clamp(0, 1)
    spectrum = _spectra(uniform(count, 3))                                   # [N, 16]
    which = uniform(count, BANDS) < 0.5
    grain = 0.5 + uniform(count, BANDS)
    grain = noise.unsqueeze(1) * grain / grain.mean(1, keepdim=True)

    cube = torch.empty(count, BANDS, SIDE, SIDE)
    for b in range(BANDS):                                                   # band by band: whole cubes are large
        shown = torch.where(which[:, b].view(-1, 1, 1), first, second)
        cube[:, b] = (spectrum[:, b].view(-1, 1, 1) + 0.1 * (texture - 0.5)
                      + (contrast * shows_ink[:, b]).view(-1, 1, 1) * ink
                      + (contrast * shows_fragment[:, b]).view(-1, 1, 1) * shown
                      + grain[:, b].view(-1, 1, 1) * torch.randn(ink.shape, generator=random))
    hard = ((MANY - bands) / (MANY - 1) + (STRONG - contrast) / (STRONG - WEAK)
            + distractors / DISTRACTORS + noise / NOISE) / 4
    box = torch.cat([corner, corner + side.unsqueeze(1)], 1) / SIDE
    return Data("many-band-digits", split, (cube.clamp_(0, 1),), classes[chosen], hard.clamp(0, 1),
                {"bands": bands, "contrast": contrast, "distractors": distractors, "noise": noise}, box.clamp(0, 1),
                tuple("0123456789"), informative=shows_ink.float())


def _spectra(turns: Tensor) -> Tensor:
    """Smooth spectra [N, 16] between 0.1 and 0.3, so that ink of any contrast stays in [0, 1]: one wave each."""
    band = torch.arange(BANDS) / BANDS
    wave = torch.sin(2 * math.pi * ((0.3 + turns[:, :1]) * band + turns[:, 1:2]))
    return 0.2 + 0.1 * turns[:, 2:] * wave
