r"""Every input gets kernels of its own, mixed from a few expert kernels before one convolution is run with them.

$$y = \sigma\big((\alpha_1 W_1 + \dots + \alpha_n W_n) * x\big), \qquad
\alpha = r(x) = \mathrm{Sigmoid}\big(\mathrm{GlobalAveragePool}(x) \, R\big)$$

(sec. 3). Since convolution is linear, this equals a mixture of experts, $\sum_i \alpha_i (W_i * x)$, which would run
$n$ convolutions where here is one (sec. 3, fig. 1). As in the authors' code (github.com/tensorflow/tpu, efficientnet/
condconv), the convolutions of one block share one routing function, which reads the block's input and has a bias.

Claim: more capacity at nearly the same cost: EfficientNet-B0 with eight experts reaches 78.3% ImageNet top-1 with 413
M multiply-adds (our MACs), with four 77.8% with 402 M, without experts 77.3% with 391 M (abstract; table in the
authors' README). Read: the abstract and that README. Smallest setting: canvas-digits and a residual net whose last
two groups mix four experts, beside static nets of the same MACs; the recipe is this setting.

Left out: dropout on the routing, mixed biases (batch normalisation follows every convolution), CondConv in the
classifier. EfficientNet is here without stochastic depth, and without TensorFlow's uneven padding.
Different: in the small residual networks the shortcuts' 1x1 projections stay static.
Nothing can be turned after training and nothing is skipped: mixing buys capacity, at `experts` MACs per weight.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....execute import Decision, Dynamic, Trace, run
from ....nets.backbones import head, plan, stem
from ....nets.layers import Residual, conv_bn, shortcut
from ....nets.mixed import MixedConv2d, MixedSequential
from ....registry import Published, Recipe, Stage, paper


class MixedBlock(nn.Module):
    """A branch of mixed convolutions, to which `shortcut` of the input is added unless it is None."""
    def __init__(self, branch: MixedSequential, shortcut: nn.Module | None, last: nn.Module):
        super().__init__()
        self.branch, self.shortcut, self.last = branch, shortcut, last

    def experts(self) -> list[Tensor]:
        """The kernels [experts, C', C / groups, k, k] of every mixed convolution."""
        return [layer.experts for layer in self.branch if isinstance(layer, MixedConv2d)]

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:                    # [B, C, H, W], [B, experts]
        y = self.branch(x, weight)
        return self.last(y if self.shortcut is None else self.shortcut(x) + y)


@paper("yang2019condconv")
class CondConv(Dynamic):
    """A static `trunk`, then `blocks` of mixed convolutions for `inputs` channels each, then a static `head`."""
    def __init__(self, trunk: nn.Module, blocks: Sequence[MixedBlock], inputs: Sequence[int], head: nn.Module):
        super().__init__()
        self.trunk, self.blocks, self.head = trunk, nn.ModuleList(blocks), head
        self.routes = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, len(block.experts()[0])), nn.Sigmoid())
            for c, block in zip(inputs, blocks, strict=True))

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        x, trace = run(self.trunk, x)
        for i, (route, block) in enumerate(zip(self.routes, self.blocks, strict=True)):
            alpha, routing = run(route, x)                                     # [B, experts]
            mixed = Decision(f"block {i + 1}", "weights", torch.ones_like(alpha), weight=alpha,
                             macs=sum(w[0].numel() for w in block.experts()))  # to add one expert to the mixture
            x, running = run(block, x, alpha)
            trace = trace + routing + Trace.decided(mixed) + running
        y, last = run(self.head, x)
        return y, trace + last                                                 # [B, classes]

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        return self.task(self(*inputs)[0], target)

    @staticmethod
    def demo():
        model = condconv_resnet(channels=1, classes=4, widths=(8, 16), depths=(1, 1), mixed=1, experts=4)
        return model, (torch.randn(10, 1, 12, 12) + 3 * torch.randn(10, 1, 1, 1),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = condconv_resnet(channels=3, classes=10, widths=(32, 64, 128), depths=(2, 2, 2), mixed=2, experts=8)
        return model.eval(), (torch.randn(32, 3, 28, 28),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return condconv_resnet(channels=1, classes=10, widths=(8, 16, 32), depths=(1, 1, 1), mixed=2, experts=4)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)

    @staticmethod
    def published() -> list[Published]:
        # One decimal of a million is printed. The MADDs beside (402 M, 413 M, static 391 M) bill more than products:
        # tests/sample/parameters/mixing/test_condconv.py compares what mixing adds to them.
        def one(experts, params):
            return Published(f"EfficientNet-CondConv-B0, {experts} experts", lambda: condconv_efficientnet_b0(experts),
                             lambda: (torch.randn(2, 3, 224, 224),), params, None, 0.05e6 / params,
                             "table in the README of the authors' code")
        return [one(4, 13.3e6), one(8, 24.0e6)]


def condconv_resnet(*, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int], mixed: int,
                    experts: int) -> CondConv:
    """A residual network (see nets.backbones.ResNet) whose last `mixed` groups have mixed 3x3 convolutions."""
    blocks = plan(widths, depths, widths[0])
    static = sum(depths[:len(depths) - mixed])
    trunk = nn.Sequential(stem("cifar", channels, widths[0]), *(Residual(*b) for b in blocks[:static]))

    def block(inputs, outputs, stride):
        branch = MixedSequential(MixedConv2d(experts, inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU(),
                                 MixedConv2d(experts, outputs, outputs, 3), nn.BatchNorm2d(outputs))
        return MixedBlock(branch, shortcut(inputs, outputs, stride), nn.ReLU())
    return CondConv(trunk, [block(*b) for b in blocks[static:]], [b[0] for b in blocks[static:]],
                    head(widths[-1], classes))


class SqueezeExcite(nn.Module):
    """Scale every channel by what a small net makes of all channels' means."""
    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, squeezed, 1), nn.SiLU(),
                                   nn.Conv2d(squeezed, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


class StaticBlock(nn.Module):
    """A branch, to which its input is added where the shape stays."""
    def __init__(self, branch: nn.Module, residual: bool):
        super().__init__()
        self.branch, self.residual = branch, residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.residual else self.branch(x)


def mbconv(inputs: int, outputs: int, kernel: int, stride: int, expand: int, experts: int | None = None) -> nn.Module:
    """The inverted bottleneck of EfficientNet (Tan and Le 2019): a MixedBlock, or static without `experts`."""
    width, residual = inputs * expand, stride == 1 and inputs == outputs

    def conv(i, o, k, s=1, groups=1):
        return nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False) if experts is None \
            else MixedConv2d(experts, i, o, k, s, groups)
    widen = [conv(inputs, width, 1), nn.BatchNorm2d(width), nn.SiLU()] if expand > 1 else []
    branch = [*widen, conv(width, width, kernel, stride, width), nn.BatchNorm2d(width), nn.SiLU(),
              SqueezeExcite(width, inputs // 4), conv(width, outputs, 1), nn.BatchNorm2d(outputs)]
    if experts is None:
        return StaticBlock(nn.Sequential(*branch), residual)
    return MixedBlock(MixedSequential(*branch), nn.Identity() if residual else None, nn.Identity())


def condconv_efficientnet_b0(experts: int) -> CondConv:
    """EfficientNet-CondConv-B0 for 224x224 images: the last three of seven groups of blocks are mixed."""
    blocks, inputs = [], 32
    for repeats, kernel, stride, expand, outputs in ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40),
                                                     (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
                                                     (1, 3, 1, 6, 320)):
        for r in range(repeats):
            blocks.append((inputs, outputs, kernel, stride if r == 0 else 1, expand))
            inputs = outputs
    static, mixed = blocks[:8], blocks[8:]
    trunk = nn.Sequential(*conv_bn(3, 32, 3, 2), nn.SiLU(), *(mbconv(*b) for b in static))
    last = nn.Sequential(*conv_bn(320, 1280, 1), nn.SiLU(), *head(1280, 1000))
    return CondConv(trunk, [mbconv(*b, experts) for b in mixed], [b[0] for b in mixed], last)
