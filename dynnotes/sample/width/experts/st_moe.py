r"""Two experts for a token at most, and a loss that keeps the router's scores small so that training stays stable.

The best expert always gets the token; each further one of the best n with a probability that falls with its share of
their scores (app. G; threshold 0.2, n = 2):

$$\text{gate}_i(x) \leftarrow \frac{\text{gate}_i(x)}{\sum_{j=1}^n \text{gate}_j(x)}, \qquad
P(\text{sent to } i > 1) = \min\Big(1, \frac{\text{gate}_i(x)}{\text{threshold}}\Big)$$

To the cross-entropy and the Switch Transformer's balance loss (eq. 7 to 9) comes the router z-loss of the scores x,

$$L_z(x) = \frac1B \sum_{i=1}^B \Big(\log \sum_{j=1}^N e^{x_j^{(i)}}\Big)^2, \qquad
L_{tot} = L_{CE} + c_B L_B + c_z L_Z$$

(eq. 5, 6; c_B = 0.01, c_z = 0.001). A dense layer follows each layer of experts. In an expert two projections are
multiplied with each other (GEGLU), and the product with a learned scale B, the multiplicative bias (app. C):

$$\text{FFN}(x) = [(\text{GELU}(x W_{11}) \odot x W_{12}) \odot B] \, W_2$$

Claim: the z-loss makes 3 of 3 trainings stable where 4 of 6 are without it, at a negative log perplexity of -1.741
against -1.755 (table 4), while removing multiplications costs quality: -1.849 without GEGLU, -2.020 without the scales
of RMS norms (table 2). A dense layer beside each of experts brings 0.014 (table 16), the scale B 0.008 (table 17). More
room than in training helps: top-2 trained at capacity factor 1.25 goes from -1.375 to -1.369 when run at 2.0 (table 8).
Read: tables 2, 4, 8, 11, 16, 17. Smallest setting: the gain of the second expert shows in large trainings only (sec.
5.2); what a small task can show, and the recipe, many-tongues, does, is what room is worth after training.

Left out: the encoder (a decoder alone reads the text here, by next words in place of masked spans), bfloat16, against
whose roundoff the z-loss is meant (sec. 3.4), update clipping (sec. 3.3), fine-tuning (sec. 4), batch prioritised
routing, which a decoder cannot use (app. D), input jitter (sec. 3.2: it costs quality at scale).
Different: layer norms and learned places around attention, in place of T5's RMS norms; a batch is one group of tokens.
At inference nothing is drawn: a second expert gets the token where its share is above the threshold. Capacity is
rounded down. The dense layer stands after the experts; the paper finds before as good.
The budget is the capacity factor after training, which the paper changes, too (sec. 5); training has its own.
Counted: ST-MoE-L, with the layers and heads of Dense-L, which costs as much (table 11), and 32 experts in every fourth
layer (sec. 4.1). ST-MoE-32B is not rebuilt.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....decide.routers import Linear, Routing, ranked, with_room
from ....execute import Dynamic, Trace, run, run_experts
from ....learn.budgets import balance_loss, z_loss
from ....nets.language import LookBack, Words, next_word
from ....nets.starting import start_small
from ....registry import Budget, Published, Recipe, Stage, paper


class TopN(Linear):
    """The best expert, and each of the next n - 1 with probability min(1, share / threshold) (app. G).

    A share is an expert's probability over the sum of the best n. Outside training nothing is random: an expert after
    the first gets the token where its share is above `threshold`.
    """
    def choose(self, scores: Tensor, n: int, capacity: int, threshold: float) -> Routing:
        """Lower ranks queue behind all higher ones; those that are not sent hold no place."""
        probs, ranks = scores.softmax(-1), ranked(scores, n)                   # [..., n, S, E]
        share = probs / (probs * ranks.sum(-3)).sum(-1, keepdim=True)          # [..., S, E]
        own = (share.unsqueeze(-3) * ranks).sum(-1)                            # [..., n, S]
        level = torch.rand_like(own) if self.training else torch.ones_like(own)
        sent = (own > threshold * level).to(ranks.dtype)
        sent = torch.cat([torch.ones_like(sent[..., :1, :]), sent[..., 1:, :]], -2).unsqueeze(-1)
        wanted = ranks * sent
        gate = with_room(wanted, capacity).sum(-3)
        return Routing(gate, share * gate, wanted.sum(-3), probs)


class GEGLU(nn.Module):
    """(GELU(x W11) * x W12) W2 (app. C): [..., D] -> [..., D]."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.into, self.out = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def inside(self, x: Tensor) -> Tensor:
        gate, up = self.into(x).chunk(2, -1)
        return F.gelu(gate) * up

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inside(x))


class Expert(GEGLU):
    """With the multiplicative bias B before the last product, which starts at 1 (app. C)."""
    def __init__(self, width: int, hidden: int):
        super().__init__(width, hidden)
        self.scale = nn.Parameter(torch.ones(hidden))

    def inside(self, x: Tensor) -> Tensor:
        return super().inside(x) * self.scale


class Dense(nn.Module):
    """x + GEGLU(norm(x)): [B, T, D] -> [B, T, D]; norm divides by the root mean square and scales (eq. 4)."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norm, self.then = nn.RMSNorm(width, eps=1e-6), GEGLU(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.then(self.norm(x))


class Routed(NamedTuple):
    """What the losses need of one layer, all tokens of the batch in one row: scores [S, E], and the routing."""
    scores: Tensor
    routing: Routing


class SparseLayer(nn.Module):
    """Norm, router and experts: what stands where another block has its first dense layer."""
    def __init__(self, width: int, hidden: int, experts: int):
        super().__init__()
        self.norm, self.router = nn.RMSNorm(width, eps=1e-6), TopN(width, experts)
        self.experts = nn.ModuleList(Expert(width, hidden) for _ in range(experts))

    def mix(self, x: Tensor, n: int, factor: float, threshold: float, *, name: str,
            sparse: bool) -> tuple[Tensor, Trace, Routed]:
        """The answers of the experts, what they cost, and what was decided."""
        x = self.norm(x)                                                       # [B, T, D]
        scores, scoring = run(self.router, x)                                  # [B, T, E]
        tokens = scores.flatten(0, 1)                                          # [B * T, E]: room is the batch's
        routing = self.router.choose(tokens, n, int(factor * len(tokens) / len(self.experts)), threshold)
        gate, weight = routing.gate.view_as(scores), routing.weight.view_as(scores)
        y, mixing = run_experts(gate, self.experts, x, name=name, sparse=sparse, weight=weight)
        return y, scoring + mixing, Routed(tokens, routing)                    # [B, T, D]


@paper("zoph2022stmoe", couples="capacity")
class STMoE(Dynamic):
    """Words [B, T] -> logits of the next [B, T, words]; every `every`-th of `depth` blocks has experts, then all a
    dense layer of `hidden` units."""
    budget = Budget("capacity_factor", 0, 8, (0, 0.5, 1, 1.25, 2), cheaper="lower")

    def __init__(self, *, words: int, length: int, width: int, depth: int, heads: int, hidden: int, experts: int,
                 every: int = 4, n: int = 2, threshold: float = 0.2, capacity_factor: float = 2.0,
                 train_factor: float = 1.25, c_b: float = 1e-2, c_z: float = 1e-3, scale: float = 0.1):
        super().__init__()
        self.embed, self.head = Words(words, width, length), next_word(width, words)
        self.look = nn.ModuleList(LookBack(width, heads) for _ in range(depth))
        self.sparse_layers = nn.ModuleDict({str(i): SparseLayer(width, hidden, experts) for i in range(depth)
                                            if (i + 1) % every == 0})
        self.dense = nn.ModuleList(Dense(width, hidden) for _ in range(depth))
        self.n, self.threshold, self.experts = n, threshold, experts
        self.capacity_factor, self.train_factor, self.c_b, self.c_z = capacity_factor, train_factor, c_b, c_z
        start_small(self, scale)

    def uncoupled(self) -> STMoE:
        """With room for all tokens of a batch at every expert."""
        self.capacity_factor = self.experts
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, list[Routed]]:
        factor = self.train_factor if self.training else self.capacity_factor
        x, trace = run(self.embed, x)                                          # [B, T, D]
        found = []
        for i, (look, dense) in enumerate(zip(self.look, self.dense)):
            x, t = run(look, x)
            trace = trace + t
            if str(i) in self.sparse_layers:
                y, t, routed = self.sparse_layers[str(i)].mix(
                    x, self.n, factor, self.threshold, name=f"layer {i + 1} experts",
                    sparse=self.sparse or self.training)
                x, trace = x + y, trace + t                                    # dropped tokens pass as they are
                found.append(routed)
            x, t = run(dense, x)                                               # one layer at least for every token
            trace = trace + t
        y, t = run(self.head, x)                                               # [B, T, words]
        return y, trace + t, found

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, found = self._read(*inputs)
        loss = self.task(y, target)
        for scores, routing in found:
            first = ranked(scores, 1).squeeze(-3)                              # eq. (8) counts the best expert alone
            loss = loss + self.c_b * balance_loss(routing.probs, first) + self.c_z * z_loss(scores)
        return loss                                                            # eq. (6)

    @staticmethod
    def demo():
        """Words start so alike that some experts get none and learn nothing; here they are drawn further apart."""
        model = STMoE(words=11, length=6, width=16, depth=2, heads=2, hidden=12, experts=4, every=2)
        nn.init.normal_(model.embed.word.weight)
        return model, (torch.randint(11, (16, 6)),), torch.randint(11, (16, 6))

    @staticmethod
    def timing():
        model = STMoE(words=256, length=128, width=256, depth=4, heads=4, hidden=704, experts=16)
        return model.eval(), (torch.randint(256, (16, 128)),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return STMoE(words=96, length=32, width=32, depth=2, heads=2, hidden=44, experts=8, every=2)
        return (Recipe("many-tongues", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        def large():
            return weights(width=1024, inner=16 * 64, hidden=2816, layers=27, experts=32, every=4)
        return [Published("ST-MoE-L", large, lambda: (), 4.1e9, None, 0.05 / 4.1, "table 11")]


def weights(*, width: int, inner: int, hidden: int, layers: int, experts: int, every: int) -> nn.Module:
    """All weights of an encoder and a decoder of `layers` each, to be counted, not run.

    T5 has no biases, one table of 32,128 words for input and output, and in the decoder attention to the encoder, too.
    """
    def attention():
        return nn.ModuleList([*(nn.Linear(width, inner, bias=False) for _ in range(3)),
                              nn.Linear(inner, width, bias=False)])
    found: list[nn.Module] = [nn.Embedding(32128, width)]
    for attentions in (1, 2):
        for i in range(layers):
            found += [attention() for _ in range(attentions)]
            found.append(Dense(width, hidden) if (i + 1) % every else SparseLayer(width, hidden, experts))
    return nn.ModuleList(found)
