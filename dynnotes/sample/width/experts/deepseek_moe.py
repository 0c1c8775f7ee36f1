r"""Experts are cut into many small ones, of which a token takes several, and a few shared experts run for every token.

DeepSeekMoE: of the routed experts that a token likes best, $K'$ run beside the $K_s$ shared ones,

$$h_t = \sum_{i=1}^{K_s} \mathrm{FFN}_i(u_t) + \sum_{i=K_s+1}^{mN} g_{i,t} \, \mathrm{FFN}_i(u_t) + u_t, \qquad
g_{i,t} = \begin{cases} s_{i,t}, & s_{i,t} \in \mathrm{Topk}(\{s_{j,t}\}, K') \\ 0 & \text{otherwise} \end{cases},
\qquad s_{i,t} = \mathrm{Softmax}_i(u_t^T e_i)$$

(eq. 9, 10, 11; $m$ small experts are cut from each of $N$ common ones, $K' = mK - K_s$ of $N' = mN - K_s$ run). A loss
keeps the load of each sequence of $T$ tokens even (eq. 12, 13, 14):

$$L_\text{ExpBal} = \alpha_1 \sum_{i=1}^{N'} f_i P_i, \qquad
f_i = \frac{N'}{K' T} \sum_{t=1}^{T} \mathbb{1}(\text{token } t \text{ selects expert } i), \qquad
P_i = \frac{1}{T} \sum_{t=1}^{T} s_{i,t}.$$

DeepSeek-V3 changes the router ("V3": equations of that report): a bias $b_i$, which no gradient reaches, takes part in
the choice and not in the weights,

$$g_{i,t} = \frac{g'_{i,t}}{\sum_j g'_{j,t}}, \qquad
g'_{i,t} = \begin{cases} s_{i,t}, & s_{i,t} + b_i \in \mathrm{Topk}(\{s_{j,t} + b_j\}, K_r) \\
0 & \text{otherwise} \end{cases}, \qquad s_{i,t} = \mathrm{Sigmoid}(u_t^T e_i)$$

(V3, eq. 13, 16, 15). After every step of training $b_i$ falls by $\gamma$ where expert $i$ had more than its share of
the whole batch, and rises by $\gamma$ where it had less (V3, sec. 2.1.2). A small loss of the same form as above (V3,
eq. 17 to 20) takes $s_{i,t} / \sum_j s_{j,t}$ for the probabilities in $P_i$, and in $f_i$ counts who would be
selected without the bias.

Claim: DeepSeekMoE, with 2.0 B parameters of which 0.3 B are used, has a loss of 1.808 on the Pile where GShard of the
same size and cost has 1.867; GShard needs experts 1.5 times as large for 1.808 (tables 1, 2). The 16.4 B model, of
which 2.8 B are used, is on a par with LLaMA2 7B at 39.6% of its computation (table 4). V3: balancing by the bias
instead of by losses lowers the bits per byte of the Pile from 0.727 to 0.724 (15.7 B parameters) and from 0.656 to
0.652 (228.7 B; table 5). Read: sections 2 to 5 and 7, appendices A and B; of V3, sections 2 and 4. Smallest setting:
far more to remember than one expert holds, and something that all need; the recipe, many-tongues, has the first.

Left out: the balance of devices (eq. 15 to 17), which the 2B and 16B models do not use either; of V3 the multi-head
latent attention (sec. 2.1.1), the choice of at most four nodes per token, prediction of a second word (sec. 2.2), the
end of training with $\gamma = 0$, and the factor 2.5 on $g_{i,t}$ in the authors' code, which the report does not name.
Different: every parameter begins as PyTorch draws it, not with a standard deviation of 0.006. SwiGLU, RMS norms and
rotary positions are as in the authors' code; the first paper omits them. Shared experts run as one wider layer.
The budget is the number `k` of routed experts that run; the first paper changes it after training, too (fig. 5).
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....decide.routers import BalancedSigmoid, Routing, SoftmaxTopK, ranked
from ....execute import Dynamic, FeedForwardExperts, Trace, run, run_experts
from ....learn.budgets import balance_loss
from ....nets.rotary import RotaryLookBack, next_word
from ....nets.rotary import words as embedding
from ....registry import Budget, Published, Recipe, Stage, paper


class SwiGLU(nn.Module):
    """w2 (silu(gate x) * (up x)) without bias: [..., D] -> [..., D]; several experts side by side are a wider one."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w1(x).chunk(2, -1)
        return self.w2(F.silu(gate) * up)


class Plain(nn.Module):
    """x + SwiGLU(norm(x)): the feed-forward layer of a block without experts."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.norm, self.feed = nn.RMSNorm(width, eps=1e-6), SwiGLU(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.feed(self.norm(x))


@paper("dai2024deepseekmoe")
class DeepSeekMoE(Dynamic):
    """A language model with `shared` and `routed` experts of `hidden` units in each block, `k` of the routed ones used.

    plain: hidden units of the first blocks, which have one feed-forward layer each and no experts; `depth` counts them.
    """
    budget = Budget("k", 1, 8, (1, 2, 3, 5, 7), cheaper="lower")
    router = SoftmaxTopK
    alpha = 0.01                                                           # alpha_1 of the 2B model, sec. 4.1.3

    def __init__(self, *, words: int, width: int, depth: int, heads: int, hidden: int, shared: int, routed: int, k: int,
                 plain: Sequence[int] = ()):
        super().__init__()
        layers = depth - len(plain)
        first = [part for h in plain for part in (RotaryLookBack(width, heads, eps=1e-6), Plain(width, h))]
        self.embed = nn.Sequential(embedding(words, width), *first)
        self.look = nn.ModuleList(RotaryLookBack(width, heads, eps=1e-6) for _ in range(layers))
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-6) for _ in range(layers))
        self.shared = nn.ModuleList(SwiGLU(width, shared * hidden) for _ in range(layers))
        self.routers = nn.ModuleList(self.router(width, routed) for _ in range(layers))
        self.experts = nn.ModuleList(FeedForwardExperts(routed, width, hidden, activation="swiglu", bias=False)
                                     for _ in range(layers))
        self.head, self.k = next_word(width, words, eps=1e-6), k

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, T]
        y, trace, _ = self._read(x)
        return y, trace                                                        # [B, T, words]

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, list[Routing]]:
        x, trace = run(self.embed, x)                                          # [B, T, D]
        routings = []
        for i, look in enumerate(self.look):
            x, looking = run(look, x)
            u = self.norms[i](x)
            common, sharing = run(self.shared[i], u)
            scores, scoring = run(self.routers[i], u)                          # [B, T, E]
            routing = self.routers[i].choose(scores, int(self.k))
            own, mixing = run_experts(routing.gate, self.experts[i], u, name=f"layer {i + 1} experts",
                                      sparse=self.sparse or self.training, weight=routing.weight)
            x = x + common + own                                               # eq. (9)
            trace = trace + looking + sharing + scoring + mixing
            routings.append(routing)
        y, last = run(self.head, x)
        return y, trace + last, routings

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routings = self._read(*inputs)
        return self.task(y, target) + self.alpha * sum(balance_loss(r.probs, r.wanted) for r in routings)

    @classmethod
    def demo(cls):
        model = cls(words=20, width=16, depth=2, heads=2, hidden=8, shared=2, routed=8, k=3)
        return model, (torch.randint(20, (10, 6)),), torch.randint(20, (10, 6))

    @classmethod
    def timing(cls):
        model = cls(words=96, width=256, depth=2, heads=4, hidden=256, shared=1, routed=31, k=3)
        return model.eval(), (torch.randint(96, (32, 32)),)

    @classmethod
    def recipes(cls) -> tuple[Recipe, ...]:
        def net():
            return cls(words=96, width=32, depth=2, heads=2, hidden=16, shared=1, routed=31, k=3)
        return (Recipe("many-tongues", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        """Sec. 4.1.3, 5.1.2, 7.1, table 7; what they leave open follows from three rules that fit all the sizes.

        A standard feed-forward layer is SwiGLU of 8/3 width; hidden units are rounded up to a multiple of 64 (said of
        the largest, sec. 7.2; not done in the smallest); a first layer without experts is as wide as those that run,
        which is two standard ones. Vocabularies of 8K and 100K are taken as 8192 and, from the code, 102400.
        """
        def inputs():
            return (torch.randint(8192, (1, 2048)),)
        return [Published("DeepSeekMoE 2B", deepseekmoe_2b, inputs, 2.0e9, None, 0.05 / 2.0, "table 7"),
                Published("DeepSeekMoE 16B", deepseekmoe_16b, inputs, 16.4e9, None, 0.05 / 16.4, "table 7"),
                Published("DeepSeekMoE 145B", deepseekmoe_145b, inputs, 144.6e9, None, 0.05 / 144.6, "table 7")]


@paper("deepseekai2024deepseekv3")
class DeepSeekV3MoE(DeepSeekMoE):
    """The same network, its load held even by a bias in the router (V3, sec. 2.1.2).

    The bias is a buffer, so it is saved with the weights. One call of `loss` in training mode is one step: it moves the
    bias, after the choices of that batch were made.
    """
    router = BalancedSigmoid                                               # gamma 0.001, V3 sec. 4.2
    alpha = 1e-4                                                           # V3 sec. 4.2

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, _, routings = self._read(*inputs)
        best = [ranked(r.probs, int(self.k)).sum(-3) for r in routings]        # V3, eq. (18): without the bias
        uneven = sum(balance_loss(r.probs, wanted) for r, wanted in zip(routings, best, strict=True))
        if self.training:
            for router, routing in zip(self.routers, routings, strict=True):
                router.rebalance(routing.wanted)
        return self.task(y, target) + self.alpha * uneven

    @staticmethod
    def published() -> list[Published]:
        """None: the sizes of V3, 671 B with 37 B in use, count its latent attention, which is left out."""
        return []


def deepseekmoe_2b() -> DeepSeekMoE:
    """Experts of 1280 * 8 / 3 / 4 = 853 units in every block."""
    return DeepSeekMoE(words=8192, width=1280, depth=9, heads=10, hidden=853, shared=1, routed=63, k=7)


def deepseekmoe_16b() -> DeepSeekMoE:
    """Experts of 1408 units, 2048 * 8 / 3 / 4 rounded up; the first block has twice 2048 * 8 / 3."""
    return DeepSeekMoE(words=102_400, width=2048, depth=28, heads=16, hidden=1408, shared=2, routed=64, k=6,
                       plain=(10_944,))


def deepseekmoe_145b() -> DeepSeekMoE:
    """Experts of 1408 units, 4096 * 8 / 3 / 8 rounded up; the first block has twice 4096 * 8 / 3."""
    return DeepSeekMoE(words=102_400, width=4096, depth=62, heads=32, hidden=1408, shared=4, routed=128, k=12,
                       plain=(21_888,))
