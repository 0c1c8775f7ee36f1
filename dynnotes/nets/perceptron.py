"""Multilayer perceptrons: what a mixture of very simple networks has to beat."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class Perceptron(nn.Sequential):
    """Linear layers with ReLU between them: [B, inputs] -> [B, classes]; `hidden`: units of each hidden layer."""
    def __init__(self, inputs: int, hidden: Sequence[int], classes: int):
        super().__init__()
        for i, o in pairwise((inputs, *hidden)):
            self += nn.Sequential(nn.Linear(i, o), nn.ReLU())
        self.append(nn.Linear((inputs, *hidden)[-1], classes))
