"""What tasks with handwritten digits share: the source, its splits, how a digit is placed, how difficulty is drawn.

Source: the 1,797 digits of 8x8 pixels that come with scikit-learn (the test set of the UCI "Optical Recognition of
Handwritten Digits" data). Splits share no source digit.
"""
from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SPREAD = 0.25
STARTS = {"train": 0, "validation": 1197, "test": 1497}              # in one fixed shuffle of the 1,797 digits


@lru_cache(maxsize=1)
def digits() -> tuple[Tensor, Tensor]:
    """All digits [1797, 1, 8, 8] in [0, 1] and their classes, in one fixed order."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(1797))
    images = torch.from_numpy(found.images).float().div(16).unsqueeze(1)
    return images[order], torch.from_numpy(found.target).long()[order]


def sources(split: str) -> Tensor:
    """The source digits of a split, as indices: no two splits share one."""
    ends = [*list(STARTS.values())[1:], len(digits()[1])]
    return torch.arange(STARTS[split], ends[list(STARTS).index(split)])


def generator(split: str, seed: int) -> torch.Generator:
    """Random numbers of their own for every split and seed."""
    return torch.Generator().manual_seed(3 * seed + list(STARTS).index(split))


def levels(count: int, factors: int, random: torch.Generator) -> Tensor:
    """[count, factors] in [0, 1]: each within SPREAD of its sample's latent difficulty, uniform in [0, 1] (clipped)."""
    latent = torch.rand(count, 1, generator=random)
    return (latent + SPREAD * (2 * torch.rand(count, factors, generator=random) - 1)).clamp(0, 1)


def placed(images: Tensor, corner: Tensor, side: Tensor, size: int) -> Tensor:
    """Each image [N, 1, n, n] scaled to `side` [N] pixels, its upper left at `corner` [N, 2], on a black canvas.

    Bilinear: a pixel half a source pixel outside of the image still has a little of its ink.
    """
    down, across = (_weights(corner[:, axis], side, images.shape[2], size) for axis in (1, 0))
    return (down @ images[:, 0] @ across.transpose(1, 2)).unsqueeze(1)


def _weights(start, side, n, size):
    """[N, size, n]: how much of every source pixel each pixel reads, along one axis."""
    pixel = torch.arange(size).float() + 0.5
    source = (pixel - start[:, None]) / side[:, None] * n - 0.5                         # [N, size]
    return (1 - (source.unsqueeze(2) - torch.arange(n)).abs()).clamp_min(0)


def inside(corner: Tensor, side: Tensor, size: int) -> Tensor:
    """[N, size, size], True for pixels whose centre is in the square (side [N]) or rectangle (side [N, 2])."""
    pixel = torch.arange(size).float() + 0.5
    high = corner + (side.unsqueeze(1) if side.dim() == 1 else side)
    within = (pixel > corner.unsqueeze(2)) & (pixel < high.unsqueeze(2))                # [N, 2, size]
    return within[:, 0].unsqueeze(1) & within[:, 1].unsqueeze(2)


def halves(turn: Tensor) -> Tensor:
    """Masks [N, 1, 8, 8] that keep one half of an image: left, right, upper or lower, by `turn` in [0, 1)."""
    ramp = torch.arange(8).expand(8, 8)
    four = torch.stack([ramp < 4, ramp >= 4, ramp.T < 4, ramp.T >= 4]).float()
    return four[(turn * 4).long().clamp(max=3)].unsqueeze(1)
