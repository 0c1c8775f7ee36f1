"""Who goes to which expert."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Routing(NamedTuple):
    """gate [..., E]: 1 for the chosen experts. weight [..., E]: their mixing weights, 0 elsewhere.
    load [..., E]: probability that a fresh draw of the noise would choose the expert; None without noise."""
    gate: Tensor
    weight: Tensor
    load: Tensor | None


class NoisyTopK(nn.Module):
    """Scores of `experts` experts for tokens [..., D], with trainable noise while training (Shazeer et al. 2017).

    forward: [..., D] -> clean scores x W_g [..., E]. Both matrices start at zero, so that load starts even (app. A).
    """
    def __init__(self, width: int, experts: int):
        super().__init__()
        self.score = nn.Linear(width, experts, bias=False)                 # W_g
        self.noise = nn.Linear(width, experts, bias=False)                 # W_noise
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)

    def choose(self, x: Tensor, clean: Tensor, k: int) -> Routing:
        """The top `k` experts by clean scores, or by noisy ones while training.

        Raises ValueError unless 1 <= k <= E.
        """
        experts = clean.shape[-1]
        if not 1 <= k <= experts:
            raise ValueError(f"k is between 1 and {experts} experts, not {k}")
        if not self.training:
            return self._keep(clean, k, None)
        std = F.softplus(self.noise(x))
        noisy = clean + torch.randn_like(clean) * std                      # eq. (4)
        return self._keep(noisy, k, _load(clean, noisy, std, k))

    @staticmethod
    def _keep(scores: Tensor, k: int, load: Tensor | None) -> Routing:
        gate = torch.zeros_like(scores).scatter_(-1, scores.topk(k, dim=-1).indices, 1.0)
        weight = scores.masked_fill(gate == 0, -torch.inf).softmax(-1)     # eq. (3), (5)
        return Routing(gate, weight, load)


def _load(clean: Tensor, noisy: Tensor, std: Tensor, k: int) -> Tensor:
    """P(x, i) of eq. (9): would expert i be among the top k under a new draw of its own noise?"""
    experts = clean.shape[-1]
    if k == experts:
        return torch.ones_like(clean)
    best = noisy.topk(k + 1, dim=-1).values
    kth, next_ = best[..., k - 1:k], best[..., k:k + 1]
    threshold = torch.where(noisy >= kth, next_, kth)                      # kth greatest, element i itself excluded
    return torch.special.ndtr((clean - threshold) / std)
