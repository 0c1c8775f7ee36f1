r"""Between two LSTM layers stand many small experts, of which a noisy gate picks k for every time step.

$$y = \sum_i G(x)_i E_i(x), \qquad G(x) = \mathrm{softmax}(\mathrm{KeepTopK}(H(x), k)),$$
$$H(x)_i = (x W_g)_i + \mathrm{StandardNormal}() \cdot \mathrm{softplus}((x W_\text{noise})_i)$$

(eq. 1, 3, 4, 5). Two losses keep the experts equally busy (eq. 6, 7, 11),

$$L_\text{importance} = w_\text{importance} \, CV\Big(\sum_{x \in X} G(x)\Big)^2, \qquad
L_\text{load} = w_\text{load} \, CV\Big(\sum_{x \in X} P(x, \cdot)\Big)^2,$$

where $P(x, i)$ is the probability that expert $i$ would be chosen under a new draw of its own noise (eq. 8 to 10).
The network is that of appendix C.1: embedding, LSTM, experts with one ReLU layer and no bias, sigmoid, LSTM, output;
after every layer dropout, then the layer's input is added.

Claim: more experts make a language model better at nearly the same cost: perplexity after ten epochs of one billion
words falls from 46.0 (four LSTMs, no experts) to 39.7 with 32 experts and 35.7 with 256, at 8.4, 8.4 and 8.6 M
operations per time step, each a multiplication with its addition, our MAC (table 7). Read: that table. Smallest
setting: text, far more of it than one expert can hold; the recipe is not this setting: canvas-digits, read row by
row, with eight experts, shows the routing and its cost, not what capacity is worth.

Left out: the hierarchy of two gates (app. B), strictly balanced gating (app. F), mixing data and model parallelism
(sec. 3), importance-sampled softmax. The task here is to read an image row by row instead of a text word by
word; two small convolutions take the place of the word embedding.
The budget is the number of experts `k` used after training; the paper fixes it before.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ....decide.routers import NoisyTopK, Routing
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....learn.budgets import importance_loss, load_loss
from ....nets.layers import conv_bn
from ....registry import Budget, Published, Recipe, Stage, paper


class Recurrent(nn.Module):
    """One LSTM layer, outputs only: [B, T, D] -> [B, T, D]."""
    def __init__(self, width: int):
        super().__init__()
        self.cell = nn.LSTM(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class LastStep(nn.Module):
    """Classify from the last time step: [B, T, D] -> [B, classes]."""
    def __init__(self, width: int, classes: int):
        super().__init__()
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x[:, -1])


class Rows(nn.Module):
    """A map as a sequence of its rows, top to bottom, each of `size` values: [B, C, H, W] -> [B, H, D]."""
    def __init__(self, size: int, width: int):
        super().__init__()
        self.embed = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x.transpose(1, 2).flatten(2))


@paper("shazeer2017outrageously")
class SparselyGatedMoE(Dynamic):
    """`embed`: input -> [B, T, width]; `head`: [B, T, width] -> answer; `experts` of `hidden` units, `k` used."""
    budget = Budget("k", 1, 8, (1, 2, 3, 4, 8), cheaper="lower")

    def __init__(self, *, embed: nn.Module, head: nn.Module, width: int, experts: int, hidden: int, k: int,
                 dropout: float = 0.1, w_importance: float = 0.1, w_load: float = 0.1):
        super().__init__()
        self.embed, self.head, self.first, self.second = embed, head, Recurrent(width), Recurrent(width)
        self.router = NoisyTopK(width, experts)
        self.experts = FeedForwardExperts(experts, width, hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.k, self.w_importance, self.w_load = k, w_importance, w_load

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, Routing]:
        x, embedding = run(self.embed, x)                                      # [B, T, D]
        x = self.dropout(x)
        y, first = run(self.first, x)
        x = x + self.dropout(y)
        scores, scoring = run(self.router, x)                                  # [B, T, E]
        routing = self.router.choose(x, scores, int(self.k))
        y, mixing = run_experts(routing.gate, self.experts, x, name="experts",
                                sparse=self.sparse or self.training, weight=routing.weight)
        x = x + self.dropout(y.sigmoid())
        y, second = run(self.second, x)
        x = x + self.dropout(y)
        y, last = run(self.head, x)
        return y, embedding + first + scoring + mixing + second + last, routing

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routing = self._read(*inputs)
        loss = self.task(y, target) + self.w_importance * importance_loss(routing.weight)
        if routing.load is None:                                               # no noise outside training, no load
            return loss
        return loss + self.w_load * load_loss(routing.load)

    @staticmethod
    def demo():
        """The gate starts at zero, where every token scores all experts alike; here it is drawn at random."""
        model = SparselyGatedMoE(embed=Rows(12, 16), head=LastStep(16, 4), width=16, experts=8, hidden=8, k=2)
        nn.init.normal_(model.router.score.weight)
        return model, (torch.randn(10, 1, 6, 12),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = SparselyGatedMoE(embed=nn.Identity(), head=LastStep(256, 10), width=256, experts=16, hidden=512, k=2)
        nn.init.normal_(model.router.score.weight)
        return model.eval(), (torch.randn(32, 32, 256),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():                                                             # 32x32 pixels -> 8 rows of 8 x 32 values
            look = [*conv_bn(1, 16, 3, 2), nn.ReLU(), *conv_bn(16, 32, 3, 2), nn.ReLU(), Rows(8 * 32, 64)]
            return SparselyGatedMoE(embed=nn.Sequential(*look), head=LastStep(64, 10), width=64, experts=8, hidden=128,
                                    k=2)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=3e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        def inputs():
            return (torch.randn(2, 1, 512),)                                   # one time step
        where = "table 7"                                                      # one decimal printed: within 0.05
        return [Published("MoE-32", lambda: language_model(32), inputs, 37.8e6, 8.4e6, 0.05 / 8.4, where, "spent"),
                Published("MoE-256", lambda: language_model(256), inputs, 272.9e6, None, 0.05 / 272.9, where)]


def language_model(experts: int) -> SparselyGatedMoE:
    """The flat models of app. C.1, counted as table 7 does: without embedding and softmax layers."""
    return SparselyGatedMoE(embed=nn.Identity(), head=nn.Identity(), width=512, experts=experts, hidden=1024, k=4)
