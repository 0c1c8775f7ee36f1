r"""In every other layer of a transformer, each token goes to its best expert and, by chance, to its second best.

$$y_s = \sum_{e=1}^{E} \mathcal{G}_{s,e} \, \mathrm{FFN}_e(x_s), \qquad
\mathrm{FFN}_e(x_s) = \mathrm{wo}_e \, \mathrm{ReLU}(\mathrm{wi}_e \, x_s)$$

(eq. 3, 2). Algorithm 1 fills $\mathcal{G}$ group by group. A group of $S$ tokens has the gates
$g = \mathrm{softmax}(\mathrm{wg} \, x)$; of a token's best two, over their sum, $g_1 + g_2 = 1$. First every token in
turn takes the next place at its best expert, then every token in turn the next place at its second best, and with $C$
places per expert

$$\mathcal{G}_{s,e_1} = g_1 \text{ if the place is below } C, \qquad
\mathcal{G}_{s,e_2} = g_2 \text{ if the place is below } C \text{ and } 2 g_2 > \mathrm{rnd} \sim U(0, 1)$$

A token that gets no place is passed on by the residual connection. With $c_e$ the number of tokens whose best expert is
$e$ (line 13 stands between the two rounds) and $m_e$ the mean gate of $e$,

$$\mathcal{L} = \ell_\text{nll} + k \, \ell_\text{aux}, \qquad
\ell_\text{aux} = \frac{1}{E} \sum_{e=1}^{E} \frac{c_e}{S} \, m_e, \qquad C = \frac{2 S}{E}$$

(sec. 2.2: $C = 2N / (G E)$ for $N$ tokens in $G$ groups).

Claim: translation from 100 languages gets better as experts are added, while cost grows less than linearly: 600 billion
weights, 44.3 BLEU on average after 4 days on 2048 TPU v3 cores (22.4 core years); a dense transformer of 96 layers
reaches 36.9 after about 42 days and 235.5 core years (table 3). Read: that table. Smallest setting: far more to
remember than one feed-forward layer holds; the recipe, many-tongues, is that in small, with eight experts, and shows no
scaling over devices.

Left out: the annotations and the compiler, which are what the paper is named for (sec. 3.2, 3.3); the encoder and
attention to it (one decoder here); dropout; Adafactor. No size of table 1 is rebuilt: they are encoder-decoders, and
their experts alone (app. A.2: 1024 x 8192, twice) come to more than is printed, 38.7 B of 37 B for MoE(128E, 36L).
Different: norms stand before the layers. The paper only says that the batch is split evenly into groups; here a group
is one place in all texts of the batch. Second choices queue behind all first choices of their group, so in a group
that held several places of a text, an early word would lose its second expert to later words. At inference nothing is
drawn: every second choice is sent. $C$ is rounded up.
Added: the value of $k$, which is not printed; 0.64 for 8 experts makes it 0.01 times a loss that is 1 at even load.
The budget is the capacity factor, `factor` in $C = \text{factor} \cdot S / E$; the paper's is 2.
"""
from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn

from ....decide.routers import RandomSecond, Routing, ranked
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....learn.budgets import balance_loss
from ....nets.language import FeedForward, LookBack, Words, next_word
from ....registry import Budget, Recipe, Stage, paper


@paper("lepikhin2021gshard", couples="capacity")
class GShard(Dynamic):
    """`pairs` times attention, feed-forward layer, attention, `experts` of `hidden` units; `k` weighs the balance.

    `embed`: input -> [B, T, width]; `head`: [B, T, width] -> answer.
    """
    budget = Budget("factor", 0, 8, (0, 0.5, 1, 2, 4), cheaper="lower")

    def __init__(self, *, embed: nn.Module, head: nn.Module, width: int, heads: int, hidden: int, experts: int,
                 pairs: int, k: float, factor: float = 2.0):
        super().__init__()
        self.embed, self.head, self.k, self.factor = embed, head, k, factor
        self.between = nn.ModuleList(nn.Sequential(LookBack(width, heads), FeedForward(width, hidden),
                                                   LookBack(width, heads)) for _ in range(pairs))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(pairs))
        self.routers = nn.ModuleList(RandomSecond(width, experts) for _ in range(pairs))
        self.experts = nn.ModuleList(FeedForwardExperts(experts, width, hidden, bias=False) for _ in range(pairs))

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, list[Routing]]:
        x, trace = run(self.embed, x)                                          # [B, T, D]
        routings = []
        for i, (between, norm, router, experts) in enumerate(zip(self.between, self.norms, self.routers, self.experts)):
            x, static = run(between, x)
            h = norm(x)
            scores, scoring = run(router, h)                                   # [B, T, E]
            capacity = ceil(self.factor * len(x) / len(experts))               # of an expert, at one place of the texts
            routing = router.choose(scores.transpose(0, 1), capacity)          # [T, B, E]: T groups of B tokens
            y, mixing = run_experts(routing.gate.transpose(0, 1), experts, h, name=f"layer {2 * i + 2} experts",
                                    sparse=self.sparse or self.training, weight=routing.weight.transpose(0, 1))
            x, trace = x + y, trace + static + scoring + mixing
            routings.append(routing)
        y, last = run(self.head, x)
        return y, trace + last, routings

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routings = self._read(*inputs)
        return self.task(y, target) + self.k * sum(l_aux(r.probs) for r in routings)

    def uncoupled(self) -> GShard:
        """With room for every token: a text's answer then does not depend on the others."""
        self.factor = len(self.experts[0])
        return self

    @staticmethod
    def demo():
        model = language_model(words=20, length=6, width=16, heads=2, hidden=16, experts=4, pairs=2, k=0.16)
        return model, (torch.randint(20, (10, 6)),), torch.randint(20, (10, 6))

    @staticmethod
    def timing():
        model = language_model(words=96, length=32, width=256, heads=4, hidden=1024, experts=16, pairs=2, k=2.56)
        return model.eval(), (torch.randint(96, (32, 32)),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return language_model(words=96, length=32, width=32, heads=2, hidden=64, experts=8, pairs=1, k=0.64)
        return (Recipe("many-tongues", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)


def l_aux(probs: Tensor) -> Tensor:
    """Line 13 of algorithm 1, its mean over groups: gates [..., S, E]; only best experts are counted."""
    return balance_loss(probs, ranked(probs, 1).sum(-3)) / probs.shape[-1] ** 2


def language_model(*, words: int, length: int, width: int, heads: int, hidden: int, experts: int, pairs: int,
                   k: float) -> GShard:
    return GShard(embed=Words(words, width, length), head=next_word(width, words), width=width, heads=heads,
                  hidden=hidden, experts=experts, pairs=pairs, k=k)
