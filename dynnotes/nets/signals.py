"""Static nets for signals and for images of many bands: what a net that chooses its steps or bands has to beat."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .sequence import EvenFrames


class EveryKthStep(nn.Module):
    """Read every k-th step of a signal with a GRU, take each feature's largest value: [B, T, C] -> [B, classes]."""
    def __init__(self, k: int, *, channels: int, hidden: int, classes: int):
        super().__init__()
        self.k = k
        self.gru, self.head = nn.GRU(channels, hidden, batch_first=True), nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(x[:, ::self.k])[0].amax(1))


class SignalNet(nn.Module):
    """Convolutions over time, each after the first halves it; each feature's largest value: [B, T, C] -> [B, classes].

    k: only every k-th step is read.
    """
    def __init__(self, k: int, *, channels: int, classes: int, widths: Sequence[int], kernel: int = 5):
        super().__init__()
        self.k = k
        self.layers = nn.Sequential()
        for i, width in enumerate(widths):
            self.layers += nn.Sequential(
                nn.Conv1d(channels, width, kernel, 2 if i else 1, kernel // 2, bias=False), nn.BatchNorm1d(width),
                nn.ReLU())
            channels = width
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x[:, ::self.k].transpose(1, 2)).amax(2))


class EvenBands(EvenFrames):
    """Look at `k` evenly spaced bands one by one, at half size and with the same weights, take each feature's largest
    value: image [B, bands, H, W] -> [B, classes].
    """
    def __init__(self, k: int, *, classes: int, widths: Sequence[int], depths: Sequence[int]):
        super().__init__(k, channels=1, classes=classes, widths=widths, depths=depths)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.avg_pool2d(x, 2).unsqueeze(2))
