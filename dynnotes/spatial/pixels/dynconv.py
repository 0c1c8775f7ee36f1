r"""Every residual block has a small mask unit that decides, pixel by pixel, where in the image the block runs.

$$X_{b+1} = r\big(F(X_b) \circ G_b + X_b\big), \qquad G_b \in \{0, 1\}^{H \times W}$$

(sec. 3.1): $r$ is the ReLU, $F$ the residual branch, and the shortcut alone passes where $G_b$ is off. The mask unit
scores every pixel of $X_b$ (decide/masks.py); in training the hard mask $G_b$ is drawn by the binary Gumbel-softmax
with a straight-through gradient. The branch's last convolutions run on $G_b$, the first ones on what those read: the
dilated mask (sec. 3.2).

A sparsity loss holds the share of operations near the budget $\theta$, for the network and, early in training, for
each block. With $c_b$ the multiply-accumulates that block $b$ spent on the batch and $t_b$ those of everything on,

$$L = L_\text{task} + 10 \Big[ \Big(\frac{\sum_b c_b}{\sum_b t_b} - \theta\Big)^2 + \frac{1}{B} \sum_{b=1}^{B}
\max\Big(0, \frac{c_b}{t_b} - \big(1 - p (1 - \theta)\big)\Big)^2 + \max\Big(0, p \, \theta - \frac{c_b}{t_b}\Big)^2
\Big],$$

where $p = \cos^2(\frac{\pi}{2} q)$ falls from 1 to 0 while $q$ goes from 0 to 1 over the first third of training. This
loss, its weight and its schedule are those of the authors' code (github.com/thomasverelst/dynconv, classification),
as are the batch statistics, taken over all pixels, executed or not, and the dilated mask, through which no gradient
passes.

Claim: leaving out pixels costs little: pose estimation is 60% faster without a loss (abstract); at budget 0.7
ResNet-32 reaches 93.58% on CIFAR-10 with 55.4 M MACs, at 0.3 ResNet-101 reaches 75.71% top-1 on ImageNet with 3.0 G
MACs (README of the authors' code, which says "FLOPS" and counts MACs). Read: the abstract and that README. Smallest
setting: canvas-digits, where the digit fills a small part of the canvas, and a residual net; the recipe is this
setting, but for the speed, which the paper shows with a CUDA kernel for depthwise convolutions.

Left out: pose estimation and the networks of depthwise convolutions (MobileNetV2, ShuffleNetV2), whose sparse
execution is the paper's CUDA contribution; the higher Gumbel temperatures at the start of the ImageNet runs.
Different: the schedule moves with every step, not with every epoch; a pixel at the threshold is off, so that 1 is
all off. Added: `threshold`, the budget to turn after training: a pixel is computed where its soft mask exceeds it;
0.5 is the paper's decision, its own knob is $\theta$, here `target`, which needs a new training for each value.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...decide.masks import MaskUnit
from ...execute import Dynamic, Trace, run
from ...learn.budgets import bounded_share
from ...learn.estimators import gumbel_sigmoid
from ...nets.backbones import head, plan, stem
from ...nets.layers import basic, bottleneck, shortcut
from ...nets.masked import run_masked
from ...registry import Budget, Published, Recipe, Stage, paper


@paper("verelst2020dynamic")
class DynConv(Dynamic):
    """A residual network (see nets.backbones.ResNet for the arguments) with a mask unit in every block.

    target: the budget theta. relax: the share of training after which a block may spend what it likes. noise: the share
    during which masks are drawn at random, not in the authors' last fifth.
    """
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9), cheaper="higher")

    def __init__(self, *, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int],
                 first: int | None = None, kind: str = "cifar", branch: Callable[..., nn.Module] = basic,
                 target: float = 0.5, relax: float = 1 / 3, noise: float = 0.8):
        super().__init__()
        blocks = plan(widths, depths, first or widths[0])
        self.stem = stem(kind, channels, first or widths[0])
        self.masks = nn.ModuleList(MaskUnit(inputs, stride) for inputs, _, stride in blocks)
        self.branches = nn.ModuleList(branch(*b) for b in blocks)
        self.shortcuts = nn.ModuleList(shortcut(*b) for b in blocks)
        self.head = head(widths[-1], classes)
        self.target, self.relax, self.noise, self.threshold = target, relax, noise, 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        y, static, branches = self.parts(x)
        return y, sum(branches, static)                                        # [B, classes]

    def parts(self, x: Tensor) -> tuple[Tensor, Trace, list[Trace]]:
        """The answer, the bill of what always runs, and that of every block's branch: the loss needs them apart."""
        x, static = run(self.stem, x)
        x, branches = x.contiguous(memory_format=torch.channels_last), []      # as sparse execution reads it
        for i, (unit, branch, short) in enumerate(zip(self.masks, self.branches, self.shortcuts, strict=True)):
            logits, looking = run(unit, x)                                     # [B, 1, H', W']
            soft = logits.sigmoid()
            noisy = self.progress < self.noise
            mask = gumbel_sigmoid(logits, noise=noisy) if self.training else (soft > self.threshold).to(x)
            x_short, passing = run(short, x)
            x, running = run_masked(mask, branch, x, name=f"block {i + 1}", sparse=self.sparse, weight=soft,
                                    residual=x_short)                          # [B, C', H', W']
            static = static + looking + passing
            branches.append(running)
        y, last = run(self.head, x)
        return y, static + last, branches

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, branches = self.parts(*inputs)
        tight = math.cos(math.pi / 2 * min(1.0, self.progress / self.relax)) ** 2
        spent, full = [t.spent for t in branches], [t.full for t in branches]
        return self.task(y, target) + 10 * bounded_share(spent, full, self.target, tight)

    @staticmethod
    def demo():
        model = DynConv(channels=1, classes=4, widths=(8, 16), depths=(2, 2))
        return model, (torch.randn(10, 1, 12, 12),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = DynConv(channels=3, classes=10, widths=(32, 64, 128), depths=(3, 3, 3))
        return model.eval().at(0.9), (torch.randn(32, 3, 28, 28),)             # about a third of all operations

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return DynConv(channels=1, classes=10, widths=(8, 16, 32), depths=(2, 2, 2), target=0.5)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)

    @staticmethod
    def published() -> list[Published]:
        where = "counted on the authors' code, classification/models"
        return [Published("DynConv ResNet-32", dynconv_32, lambda: (torch.randn(2, 3, 32, 32),), params=472_056,
                          macs=None, tolerance=0, where=where),
                Published("DynConv ResNet-101", dynconv_101, lambda: (torch.randn(1, 3, 224, 224),), params=44_854_506,
                          macs=None, tolerance=0, where=where)]


def dynconv_32(target: float = 0.5) -> DynConv:
    """For 32x32 images: three groups of five basic blocks."""
    return DynConv(channels=3, classes=10, widths=(16, 32, 64), depths=(5, 5, 5), target=target)


def dynconv_101(target: float = 0.5) -> DynConv:
    """For 224x224 images: ResNet-101 with a mask unit in each of its 33 bottlenecks."""
    return DynConv(channels=3, classes=1000, widths=(256, 512, 1024, 2048), depths=(3, 4, 23, 3), first=64,
                   kind="imagenet", branch=bottleneck, target=target)
