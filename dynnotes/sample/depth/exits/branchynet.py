r"""Side classifiers along the network let a sample leave as soon as one of them is sure enough.

A sample leaves at the first exit $n$ whose prediction $\hat y$ has little entropy (sec. III-C, fig. 2),

$$e_n = -\sum_{c \in C} \hat y_c \log \hat y_c < T_n, \qquad \hat y = \mathrm{softmax}(f_{\text{exit}_n}(x)),$$

and at the last exit in any case. All exits are trained together on the weighted sum of their cross-entropies
(sec. III-B),

$$L = \sum_{n=1}^{N} w_n L(\hat y_{\text{exit}_n}, y).$$

The paper prints the entropy without its minus sign; with it, the test of fig. 2 means what its text says.

Claim: samples that leave early make inference faster at much the same accuracy (table I, milliseconds per sample, no
MACs): B-LeNet 5.4 times on a CPU and 4.7 times on a GPU at 99.25% (LeNet 99.20%), B-AlexNet 1.5 and 2.4 times at
79.19% (AlexNet 78.38%), B-ResNet 1.9 and 1.9 times at 79.17% (ResNet-110 80.70%). Read: the full text. Smallest
setting: canvas-digits, where many digits are easy, and a residual net with an exit after each of its three groups;
the recipe is this setting.

Left out: starting from the weights of the trained network without branches (sec. IV); one threshold per exit, found
by a search on held-out data: here one `threshold` serves all exits; the branches of B-ResNet, three and two
convolutions in the paper, one here, since a branch should cost less than reaching the next exit (sec. V-C). In
B-AlexNet the first branch stands after the first convolution, as in fig. 1 and sec. IV; the authors' code
(github.com/kunglab/branchynet) has it after the second.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....decide.confidence import entropy
from ....execute import Dynamic, Trace, run_while
from ....nets.backbones import head, plan, stem
from ....nets.layers import Residual, conv_bn
from ....registry import Budget, Published, Recipe, Stage, paper


class Exit(nn.Module):
    """A piece of the trunk and the classifier behind it: features -> (features, logits)."""
    def __init__(self, trunk: nn.Module, branch: nn.Module):
        super().__init__()
        self.trunk, self.branch = trunk, branch

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return x, self.branch(x)


@paper("teerapittayanon2016branchynet")
class BranchyNet(Dynamic):
    """`trunks`: consecutive pieces of a network; `branches`: the classifier after each; `weights`: w_n of the loss."""
    budget = Budget("threshold", 0.0, math.log(10), (0.05, 0.2, 0.5, 1.0, 1.5), cheaper="higher")

    def __init__(self, trunks: Sequence[nn.Module], branches: Sequence[nn.Module], weights: Sequence[float]):
        super().__init__()
        if not len(trunks) == len(branches) == len(weights):
            counts = f"{len(trunks)} trunks, {len(branches)} branches, {len(weights)} weights"
            raise ValueError(f"one of each per exit, not {counts}")
        self.pieces = nn.ModuleList(Exit(t, b) for t, b in zip(trunks, branches, strict=True))
        self.weights, self.threshold = tuple(weights), 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        def leave(_, logits):
            return entropy(logits) < self.threshold
        return run_while(self.pieces, leave, x, sparse=self.sparse)            # [B, classes]

    def exits(self, x: Tensor) -> list[Tensor]:
        """Logits [B, classes] of every exit, whoever would have left before."""
        answers = []
        for piece in self.pieces:
            x, logits = piece(x)
            answers.append(logits)
        return answers

    def undecided(self) -> BranchyNet:
        """Untrained exits are never sure. Widen their last layer, so that their entropies spread."""
        for piece in self.pieces[:-1]:
            nn.init.normal_(piece.branch[-1].weight, std=1.0)
        return self

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        return sum(w * self.task(y, target) for w, y in zip(self.weights, self.exits(*inputs), strict=True))

    @staticmethod
    def demo():
        model = b_alexnet(channels=1, classes=4, width=0.125, side=16).undecided()
        contrast = torch.randn(10, 1, 1, 1).exp()
        return model.at(0.9), (torch.randn(10, 1, 16, 16) * contrast,), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = b_alexnet(channels=3, classes=10, width=1.0, side=32).undecided()
        return model.eval(), (torch.randn(32, 3, 32, 32) * torch.randn(32, 1, 1, 1).exp(),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return b_resnet(channels=1, classes=10, widths=(8, 16, 32), depths=(1, 2, 2))
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)

    @staticmethod
    def published() -> list[Published]:
        # Layer by layer from the authors' networks/lenet_mnist.py, which is B-LeNet as sec. IV describes it.
        params = (5 * 25 + 5) + (10 * 5 * 9 + 10) + (640 * 10 + 10) + (10 * 5 * 25 + 10) + (20 * 10 * 25 + 20) \
            + (720 * 84 + 84) + (84 * 10 + 10)
        macs = (30**2 * 5 * 25) + (15**2 * 10 * 5 * 9) + (640 * 10) + (17**2 * 10 * 5 * 25) + (11**2 * 20 * 10 * 25) \
            + (720 * 84) + (84 * 10)
        where = "sec. IV and the authors' code"
        return [Published("B-LeNet", b_lenet, lambda: (torch.randn(2, 1, 28, 28),), params, macs, 0, where)]


def _pool(size: int, stride: int) -> nn.Module:
    return nn.MaxPool2d(size, stride, ceil_mode=True)                         # a window over the edge counts


def b_lenet() -> BranchyNet:
    """B-LeNet for 28x28 digits: a branch of one convolution and one linear layer after the first convolution."""
    first = nn.Conv2d(1, 5, 5, padding=3)                                     # 28 -> 30
    branch = nn.Sequential(_pool(2, 2), nn.ReLU(), nn.Conv2d(5, 10, 3, padding=1), _pool(2, 2), nn.ReLU(),
                           nn.Flatten(), nn.Linear(640, 10))
    rest = nn.Sequential(_pool(2, 2), nn.ReLU(), nn.Conv2d(5, 10, 5, padding=3), _pool(2, 2), nn.ReLU(),
                         nn.Conv2d(10, 20, 5, padding=3), _pool(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(720, 84))
    return BranchyNet([first, rest], [branch, nn.Linear(84, 10)], [1.0, 0.3])


def b_alexnet(*, channels: int, classes: int, width: float = 1.0, side: int = 32) -> BranchyNet:
    """B-AlexNet for images of `side` pixels (a multiple of 8); `width` scales the channels of every layer."""
    if side % 8:
        raise ValueError(f"B-AlexNet halves its maps three times: {side} is not a multiple of 8")

    def w(n):
        return max(4, round(n * width))

    def norm():                                                               # Chainer's alpha is not divided by n
        return [nn.ReLU(), _pool(3, 2), nn.LocalResponseNorm(3, alpha=1.5e-4, beta=0.75, k=2.0)]

    def conv(i, o, size):
        return nn.Conv2d(w(i) if i else channels, w(o), size, padding=size // 2)

    half, quarter, eighth = side // 2, side // 4, side // 8
    trunks = [nn.Sequential(conv(0, 32, 5), *norm()),                         # side / 2
              nn.Sequential(conv(32, 64, 5), *norm()),                        # side / 4
              nn.Sequential(conv(64, 96, 3), nn.ReLU(), conv(96, 96, 3), nn.ReLU(), conv(96, 64, 3), nn.ReLU(),
                            _pool(3, 2), nn.Flatten(),
                            nn.Linear(w(64) * eighth**2, w(256)), nn.ReLU(), nn.Dropout(0.5),
                            nn.Linear(w(256), w(128)), nn.ReLU(), nn.Dropout(0.5))]
    branches = [nn.Sequential(conv(32, 64, 3), nn.ReLU(), _pool(3, 2), conv(64, 32, 3), nn.ReLU(), _pool(3, 2),
                              nn.Flatten(), nn.Linear(w(32) * (half // 4)**2, classes)),
                nn.Sequential(conv(64, 32, 3), nn.ReLU(), _pool(3, 2), nn.Flatten(),
                              nn.Linear(w(32) * (quarter // 2)**2, classes)),
                nn.Linear(w(128), classes)]
    return BranchyNet(trunks, branches, [1.0, 1.0, 1.0])


def b_resnet(*, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int]) -> BranchyNet:
    """A residual network (see nets.backbones.ResNet) with an exit after every group of blocks."""
    blocks = iter(plan(widths, depths, widths[0]))
    trunks = [nn.Sequential(*(Residual(*next(blocks)) for _ in range(depth))) for depth in depths]
    trunks[0] = nn.Sequential(stem("cifar", channels, widths[0]), *trunks[0])
    branches = [nn.Sequential(*conv_bn(width, widths[-1], 3, 2), nn.ReLU(), *head(widths[-1], classes))
                for width in widths[:-1]] + [head(widths[-1], classes)]
    return BranchyNet(trunks, branches, [1.0] * len(depths))
