"""Several real handwritten digits on one canvas, for questions about where they are and which.

A canvas has 1 to DIGITS digits, placed where they overlap least, all of one size; how many is left to chance. Where
two meet, the stronger ink is seen. Four things are drawn for each canvas, and known:

    scale    side of the digits in pixels, LARGE down to SMALL
    clutter  number of fragments, half of another digit each, 0 to FRAGMENTS; never on a digit's square
    noise    standard deviation of Gaussian noise, 0 to NOISE
    hidden   share of every digit's square that a grey bar covers, upright or lying, 0 to HIDDEN

    hard = ((LARGE - scale) / (LARGE - SMALL) + clutter / FRAGMENTS + noise / NOISE + hidden / HIDDEN) / 4   in [0, 1]

The four go together: each is drawn within SPREAD of one latent difficulty, uniform in [0, 1] (and clipped).
A pixel has ink of a digit where the drawn digit, before bars and noise, is above INK.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import _digits

SIDE, SMALL, LARGE, DIGITS, TRIES = 48, 11.0, 20.0, 3, 24
FRAGMENTS, NOISE, HIDDEN, INK, BAR = 5, 0.25, 0.35, 0.3, 0.5


@dataclass(frozen=True)
class Crowd:
    """N canvases: what is seen, and what was drawn."""
    image: Tensor                                                     # [N, 1, 48, 48] in [0, 1]
    digit: Tensor                                                     # [N, 3], classes 0 to 9, -1 where there is none
    ink: Tensor                                                       # [N, 3, 48, 48], True where that digit has ink
    seen: Tensor                                                      # [N, 48, 48], 1 + class of the ink seen, or 0
    covered: Tensor                                                   # [N, 48, 48], True where a bar hides ink
    cluttered: Tensor                                                 # [N, 48, 48], True where a fragment has ink
    hard: Tensor
    difficulty: dict[str, Tensor]


def crowd(split: str, count: int, seed: int) -> Crowd:
    """`count` canvases of a split; the same seed gives the same ones."""
    random = _digits.generator(split, seed)
    images, classes = _digits.digits()
    pool = _digits.sources(split)

    def uniform(*shape):
        return torch.rand(*shape, generator=random)

    def drawn(*shape):
        return pool[torch.randint(len(pool), shape, generator=random)]

    level = _digits.levels(count, 4, random)
    scale = LARGE - level[:, 0] * (LARGE - SMALL)
    clutter = (level[:, 1] * FRAGMENTS).round()
    noise, hidden = level[:, 2] * NOISE, level[:, 3] * HIDDEN
    number = torch.randint(1, DIGITS + 1, (count,), generator=random)
    there = torch.arange(DIGITS) < number.unsqueeze(1)                                 # [N, 3]
    chosen = drawn(count, DIGITS)
    corner = _corners(scale, uniform(DIGITS, count, TRIES, 2))                         # [N, 3, 2]

    canvas = torch.zeros(count, SIDE, SIDE)
    seen = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    ink = torch.zeros(count, DIGITS, SIDE, SIDE, dtype=torch.bool)
    bars, squares = torch.zeros_like(seen, dtype=torch.bool), torch.zeros_like(seen, dtype=torch.bool)
    for k in range(DIGITS):
        on = there[:, k].view(-1, 1, 1)
        drawing = _digits.placed(images[chosen[:, k]], corner[:, k], scale, SIDE)[:, 0] * on
        ink[:, k] = drawing > INK
        seen = torch.where(ink[:, k] & (drawing > canvas), 1 + classes[chosen[:, k]].view(-1, 1, 1), seen)
        canvas = torch.maximum(canvas, drawing)
        upright = torch.arange(2) == (uniform(count, 1) < 0.5)                         # which axis the bar is thin in
        start = upright * uniform(count, 1) * ((1 - hidden) * scale).unsqueeze(1)
        thick = torch.where(upright, hidden.unsqueeze(1), 1.0) * scale.unsqueeze(1)
        bars |= _digits.inside(corner[:, k] + start, thick, SIDE) & on
        squares |= _digits.inside(corner[:, k], scale, SIDE) & on
    cluttered = torch.zeros_like(bars)
    for k in range(FRAGMENTS):
        side = SMALL + uniform(count) * (scale - SMALL)                                # no larger than the digits
        at, turn, fragment = uniform(count, 2) * (SIDE - side).unsqueeze(1), uniform(count), drawn(count)
        on = (clutter > k).nonzero().squeeze(1)
        half = images[fragment[on]] * _digits.halves(turn[on])
        shown = _digits.placed(half, at[on], side[on], SIDE)[:, 0] * ~squares[on]
        canvas[on] = torch.maximum(canvas[on], shown)
        cluttered[on] |= shown > INK
    covered = bars & ink.any(1)
    canvas = canvas.masked_fill(bars, BAR).unsqueeze(1)
    canvas += noise.view(-1, 1, 1, 1) * torch.randn(canvas.shape, generator=random)
    hard = ((LARGE - scale) / (LARGE - SMALL) + clutter / FRAGMENTS + noise / NOISE + hidden / HIDDEN) / 4
    return Crowd(canvas.clamp_(0, 1), classes[chosen].masked_fill(~there, -1), ink, seen.masked_fill_(bars, 0),
                 covered, cluttered, hard.clamp(0, 1),
                 {"scale": scale, "clutter": clutter, "noise": noise, "hidden": hidden, "digits": number.float()})


def _corners(scale: Tensor, draws: Tensor) -> Tensor:
    """Upper left corners [N, K, 2]: of every digit's draws [K, N, TRIES, 2] the one that overlaps the others least."""
    found: list[Tensor] = []
    for tries in draws * (SIDE - scale).view(1, -1, 1, 1):
        shared = torch.zeros(tries.shape[:2])
        for other in found:
            shared += (scale.view(-1, 1, 1) - (tries - other.unsqueeze(1)).abs()).clamp_min(0).prod(2)
        found.append(tries[torch.arange(len(tries)), shared.argmin(1)])
    return torch.stack(found, 1)
