"""Starting values that differ from PyTorch's."""
from __future__ import annotations

import math

from torch import nn

from ..execute import FeedForwardExperts


def start_small(model: nn.Module, scale: float) -> None:
    """Draw every weight matrix anew, embeddings apart: normal, cut off at two standard deviations of sqrt(scale / n).

    n: the matrix's inputs (Fedus et al. 2022, sec. 2.4, with scale 0.1; 1 is usual).
    """
    for part in model.modules():
        matrices = (part.w1, part.w2) if isinstance(part, FeedForwardExperts) else \
            (part.weight,) if isinstance(part, nn.Linear) else ()
        for w in matrices:
            std = math.sqrt(scale / w.shape[-1])
            nn.init.trunc_normal_(w, std=std, a=-2 * std, b=2 * std)
