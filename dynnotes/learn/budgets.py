"""Losses that hold a network to a budget or spread its load."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def target_rate(gates: Sequence[Tensor], target: float | Sequence[float]) -> Tensor:
    """Mean over layers of (share of the batch that ran the layer - target)^2; each gate is [B]."""
    rates = torch.stack([g.mean() for g in gates])
    return (rates - torch.as_tensor(target, dtype=rates.dtype, device=rates.device)).square().mean()


def cv_squared(totals: Tensor) -> Tensor:
    """Squared coefficient of variation of `totals` [E]: variance (over the E values) / mean^2; 0 for one value."""
    if totals.numel() < 2:
        return totals.new_zeros(())
    return totals.var(unbiased=False) / totals.mean().square().clamp_min(torch.finfo(totals.dtype).tiny)
