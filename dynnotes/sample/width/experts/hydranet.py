r"""A wide network whose branches specialise in classes that look alike, of which a gate runs the few that matter.

$$y = b + \sum_{i \in \mathrm{top}_k(p)} p_i \, W_i \, f_i(s(x)), \qquad p = \mathrm{softmax}(g(s(x)))$$

with the four components of the template (sec. 3, fig. 1): a stem $s$ whose features all share, branches $f_i$, a gate
$g$ that chooses among them by the stem's features, and a combiner, the $W_i$ side by side, that makes the predictions.
While training the gate is soft (abstract): all branches run, weighted by $p$; afterwards only the best $k$ run. Before
training the classes are partitioned (sec. 3.1): a class is the mean, over training images, of the features of a
network's last fully connected layer; k-means finds one centroid per branch; each centroid takes the $C / n$ classes
nearest to it (`partition`). The gate learns which branch has the class $c$, beside the task:

$$L = -\log \mathrm{softmax}(y)_c - \log p_{\mathrm{branch}(c)}$$

Claim: on CIFAR-100 HydraNets of the ResNet and DenseNet families cost 2 to 4 times less at the accuracy of their
baselines; on ImageNet they are up to 2.5% more accurate at similar cost (abstract). Read: the abstract, parts of the
introduction and the related work, and what public reimplementations and a later paper (DynK-Hydra, 2022) say of the
third section, but not the whole text. Smallest setting: images of many classes, some of which look alike; the recipe is
not this setting: canvas-digits has ten classes, two for each of five branches.

Left out: sizes and schedules for CIFAR-100 and ImageNet, so nothing printed is counted here.
Different: classes belong to one branch each, a centroid finds only those that earlier ones left. Perhaps different, for
sec. 3 could not be read after its first part: the features of branches stand side by side before the combiner, zeros
where a branch does not run (so its columns are not computed, and each branch carries its own); $p_i$ weighs them; the
gate's loss has the form and the weight above.
The budget is the number of branches `k` that run after training.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....decide.routers import SoftmaxTopK
from ....execute import Dynamic, Trace, run, run_experts
from ....nets.layers import Residual, conv_bn
from ....registry import Budget, Recipe, Stage, paper


def partition(features: Tensor, branches: int) -> list[int]:
    """The branch of each class, from the classes' mean features [C, D]: as many classes for each (sec. 3.1).

    Where C is no multiple, the last branch gets the fewest. Raises ValueError for more branches than classes.
    """
    from sklearn.cluster import KMeans

    if not 1 <= branches <= len(features):
        raise ValueError(f"{len(features)} classes cannot be shared out to {branches} branches")
    centroids = KMeans(branches, n_init=10, random_state=0).fit(features.double().numpy()).cluster_centers_
    return nearest(features, torch.from_numpy(centroids))


def nearest(features: Tensor, centroids: Tensor) -> list[int]:
    """Each centroid [n, D] in turn takes the C / n classes nearest to it of those that are left."""
    away = torch.cdist(features.double(), centroids.double())                  # [C, n]
    branch = [-1] * len(features)
    for i in range(len(centroids)):
        left = [c for c in away[:, i].argsort(stable=True).tolist() if branch[c] < 0]
        share = -(-len(left) // (len(centroids) - i))                          # rounded up
        for c in left[:share]:
            branch[c] = i
    return branch


@paper("mullapudi2018hydranets")
class HydraNet(Dynamic):
    """`stem`: image -> map; `gate`: map -> [B, width]; `branches`: map -> [B, features]; `groups`: of classes."""
    budget = Budget("k", 1, 5, (1, 2, 3, 4, 5), cheaper="lower")

    def __init__(self, *, stem: nn.Module, gate: nn.Module, width: int, branches: Sequence[nn.Module], features: int,
                 groups: Sequence[int], k: int = 2):                           # the branch of each class
        super().__init__()
        self.stem, self.gate, self.router = stem, gate, SoftmaxTopK(width, len(branches))
        self.branches = nn.ModuleList(nn.Sequential(branch, nn.Linear(features, len(groups), bias=False))
                                      for branch in branches)
        self.bias = nn.Parameter(torch.zeros(len(groups)))
        self.register_buffer("groups", torch.tensor(groups))
        self.k = k

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        y, trace, _ = self._decided(x)
        return y, trace

    def _decided(self, x: Tensor) -> tuple[Tensor, Trace, Tensor]:
        x, trace = run(self.stem, x)
        seen, looking = run(self.gate, x)                                      # [B, width]
        scores, scoring = run(self.router, seen)                               # [B, branches]
        routing = self.router.choose(scores, len(self.branches) if self.training else int(self.k))
        y, running = run_experts(routing.gate, self.branches, x, name="branches", sparse=self.sparse,
                                 weight=routing.weight)
        return y + self.bias, trace + looking + scoring + running, scores     # [B, classes]

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, scores = self._decided(*inputs)
        return self.task(y, target) + F.cross_entropy(scores, self.groups[target])

    @staticmethod
    def demo():
        model = hydra_resnet(channels=1, widths=(4, 8, 8), groups=[0, 1, 2, 3, 4] * 2)
        nn.init.normal_(model.router.score.weight)
        bright = 3 * torch.randn(10, 1, 1, 1)                                  # gates see the mean of each map
        return model, (torch.randn(10, 1, 12, 12) + bright,), torch.randint(10, (10,))

    @staticmethod
    def timing():
        model = hydra_resnet(channels=3, widths=(32, 64, 128), groups=[0, 1, 2, 3, 4] * 20)
        nn.init.normal_(model.router.score.weight)
        return model.eval(), (torch.randn(32, 3, 56, 56) + 3 * torch.randn(32, 1, 1, 1),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return hydra_resnet(channels=1, widths=(8, 16, 32), groups=ALIKE)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)


# What `partition` makes of the ten digits by the logits of a static ResNet, averaged over the training split.
# Its widths are 8, 16, 32, its depths 1, 1, 1; it was trained for three epochs as the recipe trains, seed 0.
ALIKE = (4, 0, 0, 3, 2, 1, 4, 3, 2, 1)                                       # 1 2, 5 9, 4 8, 3 7, 0 6


def hydra_resnet(*, channels: int, widths: Sequence[int], groups: Sequence[int]) -> HydraNet:
    """A stem at half resolution and a branch of two residual blocks, each halving again, for every group of classes."""
    first, middle, last = widths
    trunk = nn.Sequential(*conv_bn(channels, first, 3, 2), nn.ReLU(), Residual(first, first))
    gate = nn.Sequential(*conv_bn(first, middle, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    branches = [nn.Sequential(Residual(first, middle, 2), Residual(middle, last, 2), nn.AdaptiveAvgPool2d(1),
                              nn.Flatten()) for _ in range(max(groups) + 1)]
    return HydraNet(stem=trunk, gate=gate, width=middle, branches=branches, features=last, groups=groups)
