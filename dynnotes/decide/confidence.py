"""How sure a classifier is, from its logits alone."""
from __future__ import annotations

from torch import Tensor


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): [B, C] -> [B], 0 (sure) to log C (no idea)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
