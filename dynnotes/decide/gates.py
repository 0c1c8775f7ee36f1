"""Small networks that look at a layer's input and say whether the layer should run."""
from __future__ import annotations

import torch
from torch import Tensor, nn


class PooledGate(nn.Module):
    """Two logits (skip, run) from globally pooled features: [B, C, H, W] -> [B, 2].

    Pooling, a hidden layer of 16 units with batch normalisation and ReLU, two outputs (Veit and Belongie 2018,
    sec. 3.2, fig. 3). The last layer starts near its bias (0.1, 2), so that gates open for about 85% of inputs:
    the initial values of the authors' code (github.com/andreasveit/convnet-aig). That code also has a bias before the
    batch normalisation, which cannot learn and is left out.
    """
    def __init__(self, channels: int, hidden: int = 16):
        super().__init__()
        self.hidden = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, hidden, bias=False),
                                    nn.BatchNorm1d(hidden), nn.ReLU())
        self.out = nn.Linear(hidden, 2)
        nn.init.normal_(self.out.weight, std=0.001)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([0.1, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x))
