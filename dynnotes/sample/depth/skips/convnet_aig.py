r"""Every residual block has a small gate that decides, from the block's own input, whether the block runs.

$$x_l = x_{l-1} + z_l(x_{l-1}) \, F_l(x_{l-1}), \qquad z_l \in \{0, 1\}$$

(sec. 3.1). The gate pools its input, scores *skip* and *run* with a two-layer network, and draws its decision with the
Gumbel-max trick, whose gradient is that of the Gumbel-softmax (sec. 3.2). A loss holds the share of the batch that
runs each block, $\bar z_l$, near a target rate $t$ (sec. 3.3); it is averaged over blocks and doubled, as in the
authors' code (github.com/andreasveit/convnet-aig):

$$L = L_\text{class} + 2 \cdot \frac{1}{N} \sum_l (\bar z_l - t_l)^2.$$

Claim: leaving out blocks makes a residual net cheaper and better: on ImageNet, ConvNet-AIG 50 and 101 err less than
ResNet-50 and 101 with 20% and 33% less computation (abstract; 38% instead of 33% in the later version on arXiv and in
the journal, IJCV 2019). The abstract gives no MACs. Read: the abstracts. Smallest setting: canvas-digits and a
residual net with many more blocks than it needs; the recipe comes near it, with nine gated blocks where ConvNet-AIG
50 has 16 and ConvNet-AIG 110 has 54.

Left out: the ImageNet schedule in which some target rates are 1; the larger learning rate for the gates' last layer.
Different: at test time the authors draw the gates at random, we take the likelier choice, so that an answer can be
repeated. Added: `threshold`, the budget to turn after training: a block runs where its probability to run exceeds it;
0.5 is the likelier choice, the paper's own knob is the target rate, which needs a new training for each value.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ....decide.gates import PooledGate
from ....execute import Dynamic, Trace, run, run_if
from ....learn.budgets import target_rate
from ....learn.estimators import gumbel_onehot
from ....nets.backbones import head, plan, stem
from ....nets.layers import basic, bottleneck, shortcut
from ....registry import Budget, Published, Recipe, Stage, paper


@paper("veit2018convolutional")
class ConvNetAIG(Dynamic):
    """A residual network (see nets.backbones.ResNet for the arguments) with a gate on every block."""
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9), cheaper="higher")

    def __init__(self, *, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int],
                 first: int | None = None, kind: str = "cifar", branch: Callable[..., nn.Module] = basic,
                 target: float | Sequence[float] = 0.6):
        super().__init__()
        blocks = plan(widths, depths, first or widths[0])
        self.stem = stem(kind, channels, first or widths[0])
        self.gates = nn.ModuleList(PooledGate(inputs) for inputs, _, _ in blocks)
        self.branches = nn.ModuleList(branch(*b) for b in blocks)
        self.shortcuts = nn.ModuleList(shortcut(*b) for b in blocks)
        self.head = head(widths[-1], classes)
        self.target, self.threshold = target, 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        x, trace = run(self.stem, x)
        for i, (gate, branch, short) in enumerate(zip(self.gates, self.branches, self.shortcuts, strict=True)):
            logits, gating = run(gate, x)                                      # [B, 2]
            chance = logits.softmax(1)[:, 1]                                   # [B]
            z = gumbel_onehot(logits, training=True)[:, 1] if self.training else (chance > self.threshold).to(x)
            y, running = run_if(z, branch, x, name=f"block {i + 1}", sparse=self.sparse, weight=chance)
            x, passing = run(short, x)
            x, trace = (x + y).relu(), trace + gating + running + passing
        y, last = run(self.head, x)                                            # [B, classes]
        return y, trace + last

    def undecided(self) -> ConvNetAIG:
        """Gates start almost constant and open. Draw them so that untrained ones already tell samples apart."""
        for gate in self.gates:
            nn.init.normal_(gate.out.weight)
            nn.init.zeros_(gate.out.bias)
        return self

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, trace = self(*inputs)
        return self.task(y, target) + 2 * target_rate([d.gate for d in trace.decisions], self.target)

    @staticmethod
    def demo():
        model = ConvNetAIG(channels=1, classes=4, widths=(8, 16), depths=(2, 2)).undecided()
        bright = 3 * torch.randn(10, 1, 1, 1)                                  # gates see the mean of each map
        return model, (torch.randn(10, 1, 12, 12) + bright,), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = ConvNetAIG(channels=3, classes=10, widths=(32, 64, 128), depths=(3, 3, 3)).undecided()
        return model.eval(), (torch.randn(32, 3, 28, 28) + 3 * torch.randn(32, 1, 1, 1),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return ConvNetAIG(channels=1, classes=10, widths=(8, 16, 32), depths=(3, 3, 3), target=0.5)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=0.1, weight_decay=5e-4),)),)

    @staticmethod
    def published() -> list[Published]:
        # Parameters of the authors' convnet_aig.py, less the 16 biases per gate that cannot learn (decide/gates.py).
        where = "the authors' code, convnet_aig.py"
        return [Published("ConvNet-AIG 110", convnet_aig_110, lambda: (torch.randn(2, 3, 32, 32),),
                          params=1_766_630 - 54 * 16, macs=None, tolerance=0, where=where),
                Published("ConvNet-AIG 50", convnet_aig_50, lambda: (torch.randn(2, 3, 224, 224),),
                          params=25_768_264 - 16 * 16, macs=None, tolerance=0, where=where)]


def convnet_aig_110() -> ConvNetAIG:
    """For 32x32 images: three groups of 18 basic blocks."""
    return ConvNetAIG(channels=3, classes=10, widths=(16, 32, 64), depths=(18, 18, 18))


def convnet_aig_50() -> ConvNetAIG:
    """For 224x224 images: ResNet-50 with a gate on each of its 16 bottlenecks."""
    return ConvNetAIG(channels=3, classes=1000, widths=(256, 512, 1024, 2048), depths=(3, 4, 6, 3), first=64,
                      kind="imagenet", branch=bottleneck)
