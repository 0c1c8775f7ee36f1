r"""In some blocks of a vision transformer a patch goes to its few best of many perceptrons, the surest patches first.

$$\mathrm{MoE}(x) = \sum_{i=1}^{E} g(x)_i \, e_i(x), \qquad
g(x) = \mathrm{TOP}_k\big(\mathrm{softmax}(W x + \epsilon)\big), \quad \epsilon \sim \mathcal N(0, 1/E^2)$$

(sec. 2; the noise only while training). Of a batch of $N$ images with $P$ tokens each an expert takes at most

$$B_e = \mathrm{round}\Big(\frac{k N P C}{E}\Big)$$

tokens; a token without room keeps what it has. Who gets the room is decided by batch prioritised routing (sec. 4): all
first choices before any second, and in each round the token with the highest $s = \max_i g(x)_i$ first. A trained net
is then made cheaper by lowering the capacity ratio $C$, the budget here: images with fewer sure patches cost less.
Two losses keep the experts equally busy (app. A); the authors' code (github.com/google-research/vmoe) adds those of all
blocks up:

$$L_\text{aux} = \tfrac12 CV\Big(\sum_x \mathrm{softmax}(W x)\Big)^2 + \tfrac12 CV\Big(\sum_x p(x)\Big)^2, \qquad
p_i(x) = P\big((W x)_i + \epsilon_\text{new} \ge \mathrm{threshold}_k(x)\big),$$

where $\mathrm{threshold}_k(x)$ is the $k$-th largest of all entries of $W x + \epsilon$. Shazeer et al. (2017, eq. 8,
9) leave out entry $i$ itself there, so an expert that was chosen is held against the $(k+1)$-th; and their importance
sums the weights after the choice.

Claim: V-MoE-L/16 matches ViT-H/14 on JFT-300M, 56.76% to 56.68%, with 39% of its computation at inference; a model of
14.7 billion parameters reaches 90.35% on ImageNet (abstract; tables 7 and 9 by a reader's notes). Read: the abstract,
such notes, and the authors' code, from which the formulas above come; the paper's own pages were not at hand, so no
equation is cited by its number. Smallest setting: images, with more to tell apart than one perceptron can hold, and a
static transformer of the same cost beside; the recipe is canvas-digits, where patches differ much in what they show,
which tests the routing and the budget, not what capacity is worth.

Left out: dropout in the experts; equal initial weights of all experts of a block, as in the code; fine-tuning at a
higher resolution; routing by groups of a few images, here the whole batch is one group.
Different: the recipe trains with priorities, too, at $C = 1.05$; the authors' released nets were trained first come,
first served, and got the priorities at inference. The recipe's patches pass four small convolutions.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....decide.routers import BatchPrioritised, Routing
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....learn.budgets import importance_loss, load_loss
from ....nets.transformer import Look, Think, Tokens, classifier, patches, small_convolutions
from ....registry import Budget, Published, Recipe, Stage, paper


class Experts(nn.Module):
    """What takes the place of Think, in parts: norm, router and `experts` perceptrons."""
    def __init__(self, width: int, hidden: int, experts: int):
        super().__init__()
        self.norm, self.router = nn.LayerNorm(width, eps=1e-6), BatchPrioritised(width, experts)
        self.experts = FeedForwardExperts(experts, width, hidden, activation="gelu")


@paper("riquelme2021scaling", couples="capacity")
class VMoE(Dynamic):
    """`depth` blocks over the tokens of `embed`, class token first; those in `mixed`, counted from 1, have experts.

    `head`: class token [B, width] -> answer; `hidden`: of every perceptron; `k` of `experts` for each token;
    `capacity`: C; `balance`: weight of L_aux.
    """
    budget = Budget("capacity", 0.0, 4.0, (0.1, 0.25, 0.5, 1.05, 4.0), cheaper="lower")

    def __init__(self, *, embed: nn.Module, head: nn.Module, width: int, hidden: int, depth: int, heads: int,
                 mixed: Sequence[int], experts: int, k: int = 2, capacity: float = 1.05, balance: float = 0.01):
        super().__init__()
        self.embed, self.head = embed, head
        self.looks = nn.ModuleList(Look(width, heads) for _ in range(depth))
        self.thinks = nn.ModuleList(Experts(width, hidden, experts) if i + 1 in mixed else Think(width, hidden)
                                    for i in range(depth))
        self.experts, self.k, self.capacity, self.balance = experts, k, capacity, balance

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, list[Routing]]:
        x, trace = run(self.embed, x)                                          # [B, 1 + n, D]
        routings = []
        for i, (look, think) in enumerate(zip(self.looks, self.thinks, strict=True)):
            x, looking = run(look, x)
            if isinstance(think, Experts):
                x, thinking, routing = self._mix(think, x, f"block {i + 1} experts")
                routings.append(routing)
            else:
                x, thinking = run(think, x)
            trace = trace + looking + thinking
        y, reading = run(self.head, x[:, 0])                                   # [B, classes]
        return y, trace + reading, routings

    def _mix(self, think: Experts, x: Tensor, name: str) -> tuple[Tensor, Trace, Routing]:
        own = think.norm(x)                                                    # [B, n, D]
        scores, scoring = run(think.router, own)                               # [B, n, E]
        batch = scores.flatten(0, 1)                                           # [B n, E], room for all together
        room = round(self.k * len(batch) * self.capacity / self.experts)       # B_e
        routing = think.router.choose(batch, self.k, room)
        gate, weight = (t.view_as(scores) for t in (routing.gate, routing.weight))
        y, mixing = run_experts(gate, think.experts, own, name=name, sparse=self.sparse or self.training, weight=weight)
        return x + y, scoring + mixing, routing

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routings = self._read(*inputs)
        loss = self.task(y, target)
        for routing in routings:
            loss = loss + self.balance / 2 * importance_loss(routing.probs)
            if routing.load is not None:                                       # no noise outside training, no load
                loss = loss + self.balance / 2 * load_loss(routing.load)
        return loss

    def uncoupled(self) -> VMoE:
        """Room for every token in every expert: B_e = N P."""
        self.capacity = self.experts / self.k
        return self

    @staticmethod
    def demo():
        model = VMoE(embed=Tokens(patches(1, 4, 16), 16, 16), head=classifier(16, 4), width=16, hidden=24, depth=2,
                     heads=2, mixed=(1, 2), experts=8)
        return model, (torch.randn(10, 1, 16, 16),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = VMoE(embed=Tokens(patches(3, 16, 192), 196, 192), head=classifier(192, 10), width=192, hidden=768,
                     depth=4, heads=3, mixed=(2, 4), experts=8)
        return model.eval(), (torch.randn(16, 3, 224, 224),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            embed = Tokens(small_convolutions(1, 32), 64, 32)
            return VMoE(embed=embed, head=classifier(32, 10), width=32, hidden=64, depth=4, heads=2, mixed=(2, 4),
                        experts=8)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        # One decimal of a million is printed. 18,291: the classes of JFT-300M (Radford et al. 2021, sec. 1).
        def size(name, params, width, hidden, depth, heads, patch, mixed):
            def make():
                head = nn.Sequential(nn.LayerNorm(width, eps=1e-6), nn.Linear(width, width), nn.Tanh(),
                                     nn.Linear(width, 18291))
                return VMoE(embed=Tokens(patches(3, patch, width), (224 // patch) ** 2, width), head=head, width=width,
                            hidden=hidden, depth=depth, heads=heads, mixed=mixed, experts=32)
            return Published(name, make, lambda: (torch.randn(2, 3, 224, 224),), params, None, 0.05e6 / params,
                             "table 7, by a reader's notes")

        def every_second(depth, last=None):
            blocks = range(2, depth + 1, 2)
            return blocks if last is None else blocks[-last:]
        return [size("V-MoE-S/32, every 2", 296.9e6, 512, 2048, 8, 8, 32, every_second(8)),
                size("V-MoE-B/16, every 2", 979.0e6, 768, 3072, 12, 12, 16, every_second(12)),
                size("V-MoE-L/16, every 2", 3446.0e6, 1024, 4096, 24, 16, 16, every_second(24)),
                size("V-MoE-H/14, last 5", 2688.6e6, 1280, 5120, 32, 16, 14, every_second(32, 5)),
                size("V-MoE-H/14, every 2", 7160.8e6, 1280, 5120, 32, 16, 14, every_second(32))]
