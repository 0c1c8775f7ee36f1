r"""Frames are looked at in a fixed coarse-to-fine order, and a gate after each one says whether they suffice.

Features of the frames seen so far are pooled into one vector by their maximum; a gate compares it with the one before:

$$z_t = \max(z_{t-1}, \Phi(x_{\pi(t)})), \qquad \text{leave at the first } t \text{ where } g_t(z_{t-1}, z_t) > 0.5,
\qquad y = f_t(z_t)$$

(fig. 2; $g_1$ sees $z_1$ alone). The order $\pi$ starts with the middle, the first and the last frame, then halves what
lies between (app. A, algorithm 1). Every step's classifier $f_t$ is trained, and its gate learns to foretell whether
that classifier's loss is small enough, more is forgiven the later it is:

$$L = \frac{1}{T} \sum_t \ell(f_t(z_t), y) + \frac{1}{T} \sum_t \mathrm{BCE}(g_t(z_{t-1}, z_t), h_t), \qquad
h_t = [\ell(f_t(z_t), y) \leq \epsilon_t], \qquad \epsilon_t = \beta \exp(t / 2).$$

The gate is that of the authors' code (github.com/Qualcomm-AI-research/FrameExit): two layers shared by $z_{t-1}$ and
$z_t$, one linear layer over both. Its 1 means "go on", ours "leave", as in the loss. The code holds no
training: the weights of the two losses, both 1, and $\epsilon_t$ are not confirmed by it, nor by an equation's number.

Claim: 1.3 times fewer GFLOPs on ActivityNet1.3 and 2.1 times fewer on Mini-Kinetics than the best efficient methods
before it, at higher accuracy (abstract). The authors' README gives 76.1% mAP with 24.7 GFLOPs and 73.3% top-1 with
19.7; it calls the same figures GMACs in the names of its files, so FLOPs are MACs here. Read: the abstract and that
README. Smallest setting: digit-video, where some videos show the digit in every frame and others in one, and a small
net per frame; the recipe is this setting.

Left out: weights from ImageNet, multi-label targets, the biases before batch normalisation, which cannot learn.
Different: the code leaves after the first frame when the classifier's confidence passes 0.99, we ask the gate $g_1$
that fig. 2 shows. For ten frames the code lists the order 5 0 9 2 7 4 6 3 8 1, which `published` uses; halving gives
4 0 9 2 6 1 3 5 7 8. The last step has no gate, since everything leaves there.
Added: `threshold`, the budget to turn after training: leave where the gate's probability exceeds it. 0.5 is the
paper's; its own knob is $\beta$, which needs a new training for each value.
"""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...execute import Dynamic, Trace, run_while
from ...nets.backbones import resnet50
from ...nets.sequence import Pixels
from ...registry import Budget, Published, Recipe, Stage, paper


class Gate(nn.Module):
    """Pooled features after each of the last `steps` frames, each [B, width] -> logit of leaving [B]."""
    def __init__(self, width: int, hidden: tuple[int, int], steps: int):
        super().__init__()
        layers, sizes = [], (width, *hidden)
        for i, o in pairwise(sizes):
            layers += [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()]
        self.hidden, self.out = nn.Sequential(*layers), nn.Linear(steps * hidden[-1], 1)

    def forward(self, *z: Tensor) -> Tensor:
        return self.out(torch.cat([self.hidden(one) for one in z], 1)).squeeze(1)


class Look(nn.Module):
    """One step: (frames not seen yet [B, n, C, H, W], pooled features [B, D]) -> (the same, a frame later; answer).

    How many frames are left tells which step it is. The answer: logits [B, classes], the gate's logit [B].
    """
    def __init__(self, features: nn.Module, width: int, frames: int, classes: int, hidden: tuple[int, int]):
        super().__init__()
        self.features, self.frames = features, frames
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for _ in range(frames))
        self.gates = nn.ModuleList(Gate(width, hidden, min(t + 1, 2)) for t in range(frames - 1))

    def forward(self, state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        left, before = state
        t = self.frames - left.shape[1]
        phi = self.features(left[:, 0])                                        # [B, D]
        z = torch.maximum(before, phi) if t else phi
        return (left[:, 1:], z), self.answer(t, before, z)

    def answer(self, t: int, before: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        if t == self.frames - 1:
            return self.classifiers[t](z), z.new_zeros(len(z))
        return self.classifiers[t](z), self.gates[t](before, z) if t else self.gates[t](z)


@paper("ghodrati2021frameexit")
class FrameExit(Dynamic):
    """`features`: frame [B, C, H, W] -> [B, width]; `hidden`: the gates' two layers; `order`: frames as looked at."""
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9), cheaper="lower")

    def __init__(self, *, features: nn.Module, width: int, frames: int, classes: int, hidden: tuple[int, int],
                 beta: float = 0.05, order: Sequence[int] | None = None):
        super().__init__()
        self.look = Look(features, width, frames, classes, hidden)
        self.order, self.beta, self.threshold = list(order or coarse_to_fine(frames)), beta, 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, T, C, H, W]
        def leave(_, answer):
            return answer[1].sigmoid() > self.threshold
        state = x[:, self.order], x.new_zeros(len(x), self.look.classifiers[0].in_features)
        (y, _), trace = run_while([self.look] * len(self.order), leave, state, name="frames looked at",
                                  sparse=self.sparse, kind="frame")
        return y, replace(trace, decisions=(replace(trace.decisions[0], at=self.places(x)),))    # [B, classes]

    def places(self, x: Tensor) -> Tensor:
        """Which part of the video each step looks at: [B, T, 4], x0 to x1 in [0, 1]."""
        start = x.new_tensor(self.order) / len(self.order)
        box = torch.stack([start, 0 * start, start + 1 / len(self.order), 0 * start + 1], 1).clamp(0, 1)
        return box.expand(len(x), -1, -1)

    def steps(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every step's answer, whoever would have left before: logits [B, classes] and the gate's logit [B]."""
        x = x[:, self.order]
        phi = self.look.features(x.flatten(0, 1)).unflatten(0, x.shape[:2])    # [B, T, D]
        z = phi.cummax(1).values.unbind(1)
        return [self.look.answer(t, z[max(t - 1, 0)], z[t]) for t in range(len(z))]

    def undecided(self) -> FrameExit:
        """Untrained gates all say one half. Widen their last layer, so that they tell samples apart."""
        for gate in self.look.gates:
            nn.init.normal_(gate.out.weight, std=3.0)
        return self

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        total = 0
        for t, (y, gate) in enumerate(self.steps(*inputs), 1):
            each = F.cross_entropy(y, target, reduction="none")
            total = total + each.mean()
            if t < len(self.order):
                enough = (each.detach() <= self.beta * math.exp(t / 2)).to(gate)
                total = total + F.binary_cross_entropy_with_logits(gate, enough)
        return total / len(self.order)

    @staticmethod
    def demo():
        model = FrameExit(features=Pixels(channels=1, widths=(4, 8), depths=(1, 1)), width=8, frames=4, classes=3,
                          hidden=(8, 6)).undecided()
        return model, (torch.randn(10, 4, 1, 8, 8) + 3 * torch.randn(10, 4, 1, 1, 1),), torch.randint(3, (10,))

    @staticmethod
    def timing():
        model = FrameExit(features=Pixels(channels=3, widths=(32, 64, 128), depths=(1, 1, 1)), width=128, frames=8,
                          classes=10, hidden=(64, 32)).undecided()
        return model.eval(), (torch.randn(32, 8, 3, 28, 28) + 3 * torch.randn(32, 8, 1, 1, 1),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return FrameExit(features=Pixels(channels=1, widths=(8, 16, 32), depths=(1, 1, 1)), width=32, frames=8,
                             classes=10, hidden=(32, 16))
        return (Recipe("digit-video", net, (Stage(epochs=8, lr=5e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        backbone = 23_508_032                                                  # ResNet-50 without its classifier
        gate = 4096 * 128 + 2 * 128 + 128 * 64 + 2 * 64                        # without biases before the normalisation
        params = backbone + (2048 * 4096 + 2 * 4096) + 10 * (4096 * 200 + 200) + 9 * gate + (64 + 1) + 8 * (128 + 1)
        return [Published("FrameExit, ResNet-50, ActivityNet", frameexit_resnet50,
                          lambda: (torch.randn(1, 10, 3, 224, 224),), params, None, 0,
                          "the authors' adaptive_models.py and activitynet_inference_2d.yml, with fig. 2's first gate")]


def coarse_to_fine(frames: int) -> list[int]:
    """Algorithm 1 of app. A, counting from 0: middle, first, last, then the middles of halves, quarters, ..."""
    order, parts = list(dict.fromkeys([(frames + 1) // 2, 1, frames])), 2
    while len(order) < frames:
        ends = [1 + (frames - 1) * i // parts for i in range(parts + 1)]
        order += [m for a, b in pairwise(ends) if (m := (a + b) // 2) not in order]
        order, parts = list(dict.fromkeys(order)), 2 * parts
    return [i - 1 for i in order]


def frameexit_resnet50() -> FrameExit:
    """For ten frames of 224x224 pixels and the 200 classes of ActivityNet: ResNet-50, one layer of 4096, ten exits."""
    net = resnet50()
    net.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 4096, bias=False),
                             nn.BatchNorm1d(4096), nn.ReLU())
    return FrameExit(features=net, width=4096, frames=10, classes=200, hidden=(128, 64),
                     order=(5, 0, 9, 2, 7, 4, 6, 3, 8, 1))
