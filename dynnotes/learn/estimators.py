"""Gradients through decisions that are not differentiable."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gumbel_onehot(logits: Tensor, *, training: bool, temperature: float = 1.0) -> Tensor:
    """One-hot choice over the last axis of `logits` [..., K].

    Training: a sample (Gumbel-max), whose gradient is that of the Gumbel-softmax at `temperature`
    (straight-through; Jang et al. 2017, sec. 2.2). Otherwise: the argmax, without noise.
    """
    if training:
        return F.gumbel_softmax(logits, tau=temperature, hard=True)
    return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
