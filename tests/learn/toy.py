"""A small dynamic net and a small task for the tests of training."""
import torch
from torch import nn

from dynnotes.data import Data
from dynnotes.execute import Dynamic, run, run_if
from dynnotes.registry import Budget, Recipe, Stage


class Toy(Dynamic):
    """A branch that runs where the input is loud; batch normalisation and dropout, so that state and chance matter."""
    budget = Budget("threshold", 0.0, 4.0, (0.0, 0.5, 1.0, 2.0, 4.0), cheaper="higher")

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.branch, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.threshold, self.extra = 0.5, 0.0

    def forward(self, x):
        h, trace = run(self.stem, x)
        y, running = run_if((x[:, 0].abs() > self.threshold).to(x), self.branch, h, name="branch", sparse=self.sparse)
        y, last = run(self.head, (h + y).relu())
        return y, trace + running + last

    def loss(self, inputs, target):
        return self.task(self(*inputs)[0], target) + self.extra


def samples(count=60, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=random)
    return Data("toy", "train", (x,), x[:, 1:].argmax(1), x[:, 0].abs().clamp(max=1), labels=("a", "b", "c"))


RECIPE = Recipe("toy", Toy, (Stage(2, 0.1, weight_decay=1e-3, batch=16), Stage(3, 1e-2, "adam", batch=16)))
