r"""Experts choose their tokens: each takes the k that score it highest, so all are equally busy and tokens differ.

$$k = \frac{n \cdot c}{e}, \qquad S = \mathrm{Softmax}(X \cdot W_g), \qquad G, I = \mathrm{TopK}(S^\top, k), \qquad
P = \mathrm{Onehot}(I)$$

(eq. 1, 2) for $n$ tokens $X$, $e$ experts and the capacity factor $c$, the mean number of experts per token. The
softmax is over the experts, the choice over the tokens: one gets several experts, one none. Then (eq. 3, 4)

$$X_\text{in} = P \cdot X, \qquad X_e[i] = \mathrm{GeLU}(X_\text{in}[i] \cdot W_1[i]) \cdot W_2[i]^\top, \qquad
X_\text{out}[l, d] = \sum_{i,j} P[i, j, l] \, G[i, j] \, X_e[i, j, d]$$

Every other feed-forward layer is replaced so; in the others the first linear map and its activation become a gated
linear unit with GELU (sec. 3.4). There is no auxiliary loss (sec. 4.1).

Claim: training converges more than twice as fast as with top-2 gating at equal cost, c = 2 (sec. 4.2, fig. 2a), and
8B/64E, fine-tuned on eleven tasks, gets 92.6 on average where top-2 gating gets 90.3 and top-1 gating 88.9. Read:
table 2. Smallest setting: many words, many experts, and large batches to choose from; the recipe, many-tongues, has
eight experts and shows the choice and its cost, not the speed of convergence.

Left out: a limit on the experts of one token (sec. 3.3); positions as a bias in each layer, learned ones here;
Adafactor; fine-tuning.
Different: sec. 6 says that the method may not apply to text that is generated word by word, since the choice sees later
tokens as well, and proposes to put the tokens of one text into separate groups and to choose within each group. That is
done here: a group is one place in all texts of the batch, n is the number of texts, and no word looks ahead. But texts
see each other, and with few of them (sec. 6 names that limit, too) there is little to choose: k is rounded up, so a
text that is alone gets every expert, at full price.
Of the sizes in table 1, 0.1B/32E, 0.1B/64E, 0.1B/128E and 8B/64E are rebuilt, without embeddings, to the digits
printed. Two can't be: so counted, 0.1B has 113 M of the 130 M printed, and 0.1B/16E 524 M of 548 M.
The budget is the capacity factor `c` after training; the paper sets it before, 2 unless it says 1 or 0.5 (sec. 4.7).
"""
from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....decide.routers import ExpertChoice
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....nets.language import LookBack, Words, next_word
from ....registry import Budget, Published, Recipe, Stage, paper


class GatedFeedForward(nn.Module):
    """x + w2 (gelu(w1 norm(x)) * w3 norm(x)): [B, T, D] -> [B, T, D] (sec. 3.4)."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norm, self.first, self.last = nn.LayerNorm(width), nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.first(self.norm(x)).chunk(2, -1)
        return x + self.last(F.gelu(gate) * up)


@paper("zhou2022mixtureofexperts", couples="capacity")
class ExpertChoiceTransformer(Dynamic):
    """`pairs` times attention, gated feed-forward layer, attention, `experts` of `hidden` units.

    `embed`: input -> [B, T, width]; `head`: [B, T, width] -> answer.
    """
    budget = Budget("c", 0, 8, (0, 0.5, 1, 2, 4), cheaper="lower")

    def __init__(self, *, embed: nn.Module, head: nn.Module, width: int, heads: int, hidden: int, experts: int,
                 pairs: int, c: float = 2.0):
        super().__init__()
        self.embed, self.head, self.c = embed, head, c
        self.between = nn.ModuleList(nn.Sequential(LookBack(width, heads), GatedFeedForward(width, hidden),
                                                   LookBack(width, heads)) for _ in range(pairs))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(pairs))
        self.routers = nn.ModuleList(ExpertChoice(width, experts) for _ in range(pairs))
        self.experts = nn.ModuleList(FeedForwardExperts(experts, width, hidden, activation="gelu")
                                     for _ in range(pairs))

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        x, trace = run(self.embed, x)                                          # [B, T, D]
        for i, (between, norm, router, experts) in enumerate(zip(self.between, self.norms, self.routers, self.experts)):
            x, static = run(between, x)
            h = norm(x)
            scores, scoring = run(router, h)                                   # [B, T, E]
            k = min(ceil(self.c * len(x) / len(experts)), len(x))              # eq. (1), of one place of the texts
            choice = router.choose(scores.transpose(0, 1), k)                  # [T, B, E]: T groups of B tokens
            y, mixing = run_experts(choice.gate.transpose(0, 1), experts, h, name=f"layer {2 * i + 2} experts",
                                    sparse=self.sparse or self.training, weight=choice.weight.transpose(0, 1))
            x, trace = x + y, trace + static + scoring + mixing
        y, last = run(self.head, x)
        return y, trace + last                                                 # [B, T, words], Trace

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        return self.task(self(*inputs)[0], target)

    def uncoupled(self) -> ExpertChoiceTransformer:
        """Every expert takes every token: a text's answer then does not depend on the others."""
        self.c = len(self.experts[0])
        return self

    @staticmethod
    def demo():
        model = language_model(words=20, length=6, width=16, heads=2, hidden=16, experts=4, pairs=2)
        return model, (torch.randint(20, (10, 6)),), torch.randint(20, (10, 6))

    @staticmethod
    def timing():
        model = language_model(words=96, length=32, width=256, heads=4, hidden=1024, experts=16, pairs=2)
        return model.eval(), (torch.randint(96, (32, 32)),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return language_model(words=96, length=32, width=32, heads=2, hidden=64, experts=8, pairs=1)
        return (Recipe("many-tongues", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        def size(experts, width=768, hidden=3072, heads=12, pairs=6):
            return lambda: ExpertChoiceTransformer(embed=nn.Identity(), head=nn.Identity(), width=width, heads=heads,
                                                   hidden=hidden, experts=experts, pairs=pairs)

        def inputs():
            return (torch.randn(2, 1, 768),)
        where = "table 1"                                                      # within half of the last digit
        return [Published("0.1B/32E", size(32), inputs, 1.0e9, None, 0.05 / 1.0, where),
                Published("0.1B/64E", size(64), inputs, 1.9e9, None, 0.05 / 1.9, where),
                Published("0.1B/128E", size(128), inputs, 3.7e9, None, 0.05 / 3.7, where),
                Published("8B/64E", size(64, 4096, 16384, 32, 16), inputs, 143e9, None, 0.5 / 143, where)]


def language_model(*, words: int, length: int, width: int, heads: int, hidden: int, experts: int,
                   pairs: int) -> ExpertChoiceTransformer:
    return ExpertChoiceTransformer(embed=Words(words, width, length), head=next_word(width, words), width=width,
                                   heads=heads, hidden=hidden, experts=experts, pairs=pairs)
