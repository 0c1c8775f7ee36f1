r"""A policy network looks at the image once and says which residual blocks of a trained network are kept.

It gives every block $k$ of $K$ a chance $s_k$ of being kept; whether it is, $u_k \in \{0, 1\}$, is drawn:

$$\pi_W(u \mid x) = \prod_{k=1}^{K} s_k^{u_k} (1 - s_k)^{1 - u_k}, \qquad s = f_\text{pn}(x; W).$$

A dropped block is its shortcut. The reward favours few blocks and punishes a wrong answer by $\gamma$,

$$R(u) = 1 - \Big(\frac{|u|_0}{K}\Big)^2 \text{ if right, else } -\gamma,$$

and the policy climbs its expectation, with the reward of the likeliest choice $\tilde u_k = [s_k > 0.5]$ as baseline:

$$\nabla_W J = E\Big[\big(R(u) - R(\tilde u)\big) \, \nabla_W \sum_{k=1}^{K}
\log\big(s_k u_k + (1 - s_k)(1 - u_k)\big)\Big],$$

where draws and logarithm use $\alpha s_k + (1 - \alpha)(1 - s_k)$ for $s_k$, so that they stay away from 0 and 1.
First the network is trained alone. Then the policy alone: it decides the last blocks only, later more and more of them
(curriculum). Then both: the network by the cross-entropy of the drawn policy's answer, the policy by its reward.

The equations are of sec. 3 of the paper; we have not seen their numbers. Details are those of the authors' code
(github.com/Tushar-N/blockdrop): no ReLU after a dropped block; batch statistics of the network frozen while the policy
learns alone; alpha = 0.8; gamma = 1 while the policy learns alone, 5 or 10 when both learn.

Claim: ResNet-101 on ImageNet keeps its 76.4% top-1 accuracy at a speed-up of 20% on average, of 36% for some images
(abstract). The abstract gives no MACs. Read: the abstract. Smallest setting: canvas-digits, a residual net with many
more blocks than it needs, and a policy network that costs little beside it; the recipe comes near it, with nine
blocks where ResNet-101 has 33.

Left out: the entropy bonus of that code while the policy learns alone; its value head, which no loss uses; one block
more per epoch in the curriculum, here a third of them per stage; the policy network's start from a trained ResNet-18.
Different: shortcuts that change the shape are projections here, as in the paper's ResNet-101, also in small networks;
the policy network sees the image at half its size, in the paper only on ImageNet.
Added: `threshold`, the budget to turn after training: a block is kept where its chance exceeds it. 0.5 is the likelier
choice; the paper's own knob is gamma, which needs a new training for each value.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ....decide.policies import BernoulliPolicy
from ....execute import Dynamic, Trace, run, run_if
from ....learn.reinforce import reinforce
from ....nets.backbones import ResNet
from ....nets.layers import basic, bottleneck
from ....registry import Budget, Published, Recipe, Stage, paper


@paper("wu2018blockdrop")
class BlockDrop(Dynamic):
    """A residual network (see nets.backbones.ResNet for the arguments), and a policy network: one basic block of each
    of `looks` channels, on the image at half its size. `gamma`: what a wrong answer costs, `bound`: alpha.

    `joint`: whether network and policy learn together; else the policy alone, or with `decides` = 0 the network.
    `decides`: how many of the last blocks the policy may drop; the others are kept.
    """
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9), cheaper="higher")

    def __init__(self, *, channels: int, classes: int, widths: Sequence[int], depths: Sequence[int],
                 looks: Sequence[int], first: int | None = None, kind: str = "cifar",
                 branch: Callable[..., nn.Module] = basic, gamma: float = 5.0, bound: float = 0.8):
        super().__init__()
        self.net = ResNet(channels=channels, classes=classes, widths=widths, depths=depths, first=first, kind=kind,
                          branch=branch)
        look = ResNet(channels=channels, classes=sum(depths), widths=looks, depths=(1,) * len(looks), kind=kind)
        self.policy = nn.Sequential(nn.AvgPool2d(2), look, BernoulliPolicy(bound))
        self.gamma, self.threshold, self.decides, self.joint = gamma, 0.5, sum(depths), 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        chance, looking = run(self.policy, x)                                  # [B, K]
        u, log_prob = self.policy[-1].choose(chance, self.threshold)           # [B, K]
        y, trace = self.under(x, u, chance, log_prob)
        return y, looking + trace

    def under(self, x: Tensor, u: Tensor, chance: Tensor, log_prob: Tensor) -> tuple[Tensor, Trace]:
        """Logits [B, classes] and trace when the last blocks follow `u` [B, K] and those before are kept."""
        free = torch.arange(u.shape[1], device=u.device) >= u.shape[1] - self.decides     # [K]
        u, log_prob = torch.where(free, u, 1), torch.where(free, log_prob, 0)
        x, trace = run(self.net.stem, x)
        for k, (branch, short) in enumerate(zip(self.net.branches, self.net.shortcuts, strict=True)):
            y, running = run_if(u[:, k], branch, x, name=f"block {k + 1}", sparse=self.sparse, weight=chance[:, k])
            decision = replace(running.decisions[0], log_prob=log_prob[:, k])
            x, passing = run(short, x)
            x = torch.where(u[:, k, None, None, None] > 0, (x + y).relu(), x)
            trace = trace + replace(running, decisions=(decision,)) + passing
        y, last = run(self.net.head, x)                                        # [B, classes]
        return y, trace + last

    def reward(self, y: Tensor, trace: Trace, target: Tensor) -> Tensor:
        """R(u) [B] of the answer `y` and the blocks that were kept for it."""
        kept = torch.stack([d.gate for d in trace.decisions], 1).mean(1)
        return torch.where(self.correct(y, target) > 0.5, 1 - kept.square(), -self.gamma)

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        if not self.decides:
            return self.task(self.net(*inputs), target)
        self.net.train(self.training and bool(self.joint))
        chance = self.policy(*inputs)
        u, log_prob = self.policy[-1].choose(chance)
        with torch.no_grad():
            baseline = self.reward(*self.under(*inputs, (chance > 0.5).to(u), chance, log_prob), target)
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self.joint)):   # no graph that nobody asks for
            y, trace = self.under(*inputs, u, chance.detach(), log_prob.detach())
        self.net.train(self.training)
        reward = self.reward(y, trace, target)
        policy = reinforce(log_prob[:, -int(self.decides):], reward, baseline)
        return policy + self.task(y, target) if self.joint else policy

    def undecided(self) -> BlockDrop:
        """Untrained policies say about 0.5 to all. Widen their last layer, so that they tell samples apart."""
        nn.init.normal_(self.policy[1].head[-1].weight)
        return self

    @staticmethod
    def demo():
        model = BlockDrop(channels=1, classes=4, widths=(8, 16), depths=(2, 2), looks=(8, 16)).undecided()
        bright = 3 * torch.randn(10, 1, 1, 1)                                  # the policy sees the mean of each map
        return model, (torch.randn(10, 1, 12, 12) + bright,), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = BlockDrop(channels=3, classes=10, widths=(32, 64, 128), depths=(3, 3, 3), looks=(16, 32, 64))
        return model.undecided().eval(), (torch.randn(32, 3, 28, 28) + 3 * torch.randn(32, 1, 1, 1),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return BlockDrop(channels=1, classes=10, widths=(8, 16, 32), depths=(3, 3, 3), looks=(8, 16, 32))
        alone = Stage(epochs=4, lr=0.1, weight_decay=5e-4, settings={"decides": 0})
        curriculum = [Stage(epochs=1, lr=2e-3, optimizer="adam", batch=64,
                            settings={"decides": last, "joint": 0.0, "gamma": 1.0}) for last in (3, 6, 9)]
        joint = Stage(epochs=3, lr=1e-3, optimizer="adam", batch=64, settings={"gamma": 2.0})
        return (Recipe("canvas-digits", net, (alone, *curriculum, joint)),)

    @staticmethod
    def published() -> list[Published]:
        # Parameters and MACs of the authors' models/resnet.py, less the value head: 513 weights, 512 MACs.
        return [Published("BlockDrop 101", blockdrop_101, lambda: (torch.randn(1, 3, 224, 224),),
                          params=49_472_394 - 513, macs=8_037_364_736 - 512, tolerance=0,
                          where="the authors' code, models/resnet.py")]


def blockdrop_101() -> BlockDrop:
    """For 224x224 images: ResNet-101, its 33 bottlenecks decided by a ResNet-10."""
    return BlockDrop(channels=3, classes=1000, widths=(256, 512, 1024, 2048), depths=(3, 4, 23, 3), first=64,
                     kind="imagenet", branch=bottleneck, looks=(64, 128, 256, 512))
