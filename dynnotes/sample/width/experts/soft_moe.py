r"""Every expert works on a few slots, and every slot is a mixture of all tokens, so that nothing is chosen or dropped.

With tokens $X$, $m \times d$, and one column of $\Phi$, $d \times (n p)$, for each of the $p$ slots of the $n$ experts,

$$D_{ij} = \frac{\exp((X \Phi)_{ij})}{\sum_{i'=1}^{m} \exp((X \Phi)_{i'j})}, \qquad \tilde X = D^\top X$$

(eq. 1) fills the slots. Expert $\lfloor i / p \rfloor$ maps slot $i$ to $\tilde Y_i$, and each token gets a mixture of
all slots (eq. 2):

$$C_{ij} = \frac{\exp((X \Phi)_{ij})}{\sum_{j'=1}^{n p} \exp((X \Phi)_{ij'})}, \qquad Y = C \tilde Y.$$

In $X \Phi$ alone, each token is divided by its norm, each column of $\Phi$ too and then multiplied by a learned scalar
(sec. 2.3, alg. 2): else the softmaxes become one-hot as $d$ grows (app. E). The second half of a vision transformer's
perceptrons is replaced (sec. 2.1); the mean of all tokens answers, without class token, as in the authors' code
(github.com/google-research/vmoe, projects/soft_moe).

Claim: capacity without cost: Soft MoE S/16 with 128 experts of one slot reaches 58.1% precision on JFT-4B and 78.8% on
ImageNet from ten shots at 8.6 GFLOPs an image, half as many MACs; ViT S/16 51.3% and 67.6% at 9.2, with a 28th of the
parameters (table 8; S/16 costs what we count within its digits, S/14 with 256 experts 13.1 by our count and 13.2
there). Read: that table. Smallest setting: images, and a static transformer of the same cost beside; the recipe is
canvas-digits with 16 experts of two slots, half as many slots as tokens.

Left out: contrastive learning (sec. 4); normalised queries and keys in attention, which the authors' code has and the
paper does not name; noise on $X \Phi$ and dropout, both zero there. The code divides by $\sqrt{|x|^2 + 10^{-6}}$, the
paper and we by $|x| + 10^{-6}$. Different: the recipe's patches pass four small convolutions.
Nothing can be turned after training and nothing is skipped: what varies is how much each token counts for each expert
(dispatch) and each expert for each token (combine).
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....execute import Decision, Dynamic, FeedForwardExperts, Trace, run
from ....nets.transformer import Look, Think, patches, small_convolutions
from ....registry import Published, Recipe, Stage, paper


def unit(x: Tensor, dim: int) -> Tensor:
    """x over its norm along `dim` (alg. 2)."""
    return x / (torch.linalg.vector_norm(x, dim=dim, keepdim=True) + 1e-6)


class Scores(nn.Module):
    """X Phi, normalised (sec. 2.3): [B, m, D] -> [B, m, slots]."""
    def __init__(self, width: int, slots: int):
        super().__init__()
        self.phi, self.scale = nn.Parameter(torch.empty(width, slots)), nn.Parameter(torch.ones(()))
        nn.init.normal_(self.phi, std=width ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return unit(x, -1) @ (self.scale * unit(self.phi, 0))


class Mixture(nn.Module):
    """Weighted sums of rows: [B, r, n], [B, n, D] -> [B, r, D]."""
    def forward(self, weight: Tensor, x: Tensor) -> Tensor:
        return weight @ x


class SlotExperts(nn.Module):
    """Each expert on its own slots, which stand together: [B, E p, D] -> [B, E p, D]."""
    def __init__(self, experts: int, width: int, hidden: int):
        super().__init__()
        self.experts = FeedForwardExperts(experts, width, hidden, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        f, (batch, slots, _) = self.experts, x.shape
        x = x.unflatten(1, (len(f), -1)).transpose(0, 1).flatten(1, 2)         # [E, B p, D]
        x = F.gelu(torch.baddbmm(f.b1[:, None], x, f.w1.transpose(1, 2)))      # [E, B p, H]
        x = torch.baddbmm(f.b2[:, None], x, f.w2.transpose(1, 2))              # [E, B p, D]
        return x.unflatten(1, (batch, slots // len(f))).transpose(0, 1).flatten(1, 2)


class SoftExperts(nn.Module):
    """What takes the place of Think, in parts: norm, scores of tokens and slots, and the experts."""
    def __init__(self, width: int, hidden: int, experts: int, slots: int):
        super().__init__()
        self.norm, self.scores = nn.LayerNorm(width, eps=1e-6), Scores(width, experts * slots)
        self.mixture, self.experts = Mixture(), SlotExperts(experts, width, hidden)


class Places(nn.Module):
    """The patches of `project` row by row, with positions: [B, C, H, W] -> [B, count, width]."""
    def __init__(self, project: nn.Module, count: int, width: int):
        super().__init__()
        self.project, self.places = project, nn.Parameter(torch.empty(1, count, width))
        nn.init.normal_(self.places, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x).flatten(2).transpose(1, 2) + self.places


class MeanReader(nn.Module):
    """Classify from the mean of all tokens, normalised: [B, m, D] -> [B, classes]."""
    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x).mean(1))


@paper("puigcerver2024sparse")
class SoftMoE(Dynamic):
    """`depth` blocks over the tokens of `embed`; those in `mixed`, counted from 1, have `experts`.

    `slots`: of each expert; `head`: [B, m, width] -> answer; `hidden`: of every perceptron.
    """
    def __init__(self, *, embed: nn.Module, head: nn.Module, width: int, hidden: int, depth: int, heads: int,
                 mixed: Sequence[int], experts: int, slots: int):
        super().__init__()
        self.embed, self.head, self.experts = embed, head, experts
        self.looks = nn.ModuleList(Look(width, heads) for _ in range(depth))
        self.thinks = nn.ModuleList(SoftExperts(width, hidden, experts, slots) if i + 1 in mixed
                                    else Think(width, hidden) for i in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, channels, H, W]
        x, trace = run(self.embed, x)                                          # [B, m, D]
        for i, (look, think) in enumerate(zip(self.looks, self.thinks, strict=True)):
            x, looking = run(look, x)
            x, thinking = self._mix(think, x, f"block {i + 1}") if isinstance(think, SoftExperts) else run(think, x)
            trace = trace + looking + thinking
        y, reading = run(self.head, x)                                         # [B, classes]
        return y, trace + reading

    def _mix(self, think: SoftExperts, x: Tensor, name: str) -> tuple[Tensor, Trace]:
        own = think.norm(x)
        scores, scoring = run(think.scores, own)                               # [B, m, n p]
        dispatch, combine = scores.softmax(1), scores.softmax(2)               # eq. (1), (2)
        slots, filling = run(think.mixture, dispatch.transpose(1, 2), own)     # [B, n p, D]
        slots, working = run(think.experts, slots)
        y, giving = run(think.mixture, combine, slots)                         # [B, m, D]
        return x + y, (scoring + self._said(f"{name} dispatch", think, dispatch) + filling + working
                       + self._said(f"{name} combine", think, combine) + giving)

    def _said(self, name: str, think: SoftExperts, weight: Tensor) -> Trace:
        """How much a token and an expert have to do with each other, all slots of the expert together: [B, m, n]."""
        weight = weight.unflatten(2, (self.experts, -1))                       # [B, m, n, p]
        each = sum(w[0].numel() for w in (think.experts.experts.w1, think.experts.experts.w2))
        return Trace.decided(Decision(name, "weights", torch.ones_like(weight[..., 0]), weight=weight.sum(3),
                                      macs=each * weight.shape[3] / weight.shape[1]))   # an expert's cost, per token

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        return self.task(self(*inputs)[0], target)

    @staticmethod
    def demo():
        model = SoftMoE(embed=Places(patches(1, 4, 16), 16, 16), head=MeanReader(16, 4), width=16, hidden=24, depth=2,
                        heads=2, mixed=(1, 2), experts=4, slots=2)
        return model, (torch.randn(10, 1, 16, 16),), torch.randint(4, (10,))

    @staticmethod
    def timing():
        model = SoftMoE(embed=Places(patches(3, 16, 192), 196, 192), head=MeanReader(192, 10), width=192, hidden=768,
                        depth=4, heads=3, mixed=(3, 4), experts=16, slots=8)
        return model.eval(), (torch.randn(16, 3, 224, 224),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return SoftMoE(embed=Places(small_convolutions(1, 32), 64, 32), head=MeanReader(32, 10), width=32,
                           hidden=64, depth=4, heads=2, mixed=(3, 4), experts=16, slots=2)
        return (Recipe("canvas-digits", net, (Stage(epochs=8, lr=4e-3, optimizer="adam"),)),)

    @staticmethod
    def published() -> list[Published]:
        # Several figures are cut off, not rounded (933.7 M is printed as 933 M): within one of the last digit. 29,593
        # classes: the authors' pretrain_jft4b.py. Cost follows from the number of slots alone (sec. 2.2), so that of
        # S/16 is counted with one expert for all slots, which fits in memory.
        def size(name, params, last, width, hidden, depth, heads, patch, mixed, experts):
            return Published(name, lambda: vision(width, hidden, depth, heads, patch, mixed, experts, 1), images,
                             params, None, last / params, "table 8")

        def images():
            return (torch.randn(2, 3, 224, 224),)
        return [size("Soft MoE S/16 128E", 933e6, 1e6, 384, 1536, 12, 6, 16, 6, 128),
                size("Soft MoE S/14 256E", 1.8e9, 0.1e9, 384, 1536, 12, 6, 14, 6, 256),
                size("Soft MoE B/16 128E", 3.7e9, 0.1e9, 768, 3072, 12, 12, 16, 6, 128),
                size("Soft MoE L/16 128E", 13.1e9, 0.1e9, 1024, 4096, 24, 16, 16, 12, 128),
                size("Soft MoE H/14 128E", 27.3e9, 0.1e9, 1280, 5120, 32, 16, 14, 16, 128),
                size("Soft MoE H/14 256E", 54.1e9, 0.1e9, 1280, 5120, 32, 16, 14, 16, 256),
                Published("Soft MoE S/16, 128 slots", lambda: vision(384, 1536, 12, 6, 16, 6, 1, 128), images, None,
                          8.6e9 / 2, 0.05 / 8.6, "table 8, GFLOP/img")]


def vision(width: int, hidden: int, depth: int, heads: int, patch: int, mixed: int, experts: int,
           slots: int) -> SoftMoE:
    """For 224x224 images and the classes of JFT-4B; the last `mixed` blocks have experts."""
    return SoftMoE(embed=Places(patches(3, patch, width), (224 // patch) ** 2, width), head=MeanReader(width, 29593),
                   width=width, hidden=hidden, depth=depth, heads=heads, mixed=range(depth - mixed + 1, depth + 1),
                   experts=experts, slots=slots)
