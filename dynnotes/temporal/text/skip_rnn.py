r"""A recurrent network carries, from step to step, how urgently it wants a new input, and skips inputs until it does.

$$u_t = \mathrm{round}(\tilde u_t), \qquad s_t = u_t \, S(s_{t-1}, x_t) + (1 - u_t) \, s_{t-1}$$
$$\Delta\tilde u_t = \sigma(W_p s_t + b_p), \qquad
\tilde u_{t+1} = u_t \, \Delta\tilde u_t + (1 - u_t)(\tilde u_t + \min(\Delta\tilde u_t, 1 - \tilde u_t))$$

(eq. 2 to 5). After an update the next one comes as soon as the increments add up to one half (eq. 6); in between
nothing is computed, since $\Delta\tilde u_t$ does not change (fig. 1d). Rounding has the gradient of the identity
(eq. 7), and each update costs $\lambda$ (eq. 8): $L_\text{budget} = \lambda \sum_t u_t$. The first input is always read
($\tilde u_1 = 1$), $b_p$ starts at 1, so that all inputs are read at first, and $s_0$ is learned (sec. 4).
$S$ is a stack of GRU or LSTM cells; $\Delta\tilde u_t$ looks at the topmost, an LSTM's cell state as in the authors'
code (github.com/imatge-upc/skiprnn-2017-telecombcn). Gradients through $\tilde u$ follow that code, too.

Claim: half of the updates suffice: Skip GRU solves the adding task with 50.7% of the updates and 0.94 M FLOPs, a GRU
needs 1.85 M (table 1); on MNIST pixel by pixel it reaches 97.6% with 393 of 784 updates and 14.4 M FLOPs, a GRU 96.8%
with 28.7 M (table 2). These FLOPs are MACs by our count (`published`). Read: the full text. Smallest setting:
needles, a long text of which few words matter, as few pairs do in the adding task, and one GRU; the recipe is this
setting.

Left out: an answer at every step (sec. 4.3), drawing $u_t$ at random, layer normalisation, clipping gradients.
Different: PyTorch's GRU resets the state after its product with the weights, the authors' before.
Added: an embedding inside the skipped step, so that words that are not read are not even looked up; `threshold`, the
budget to turn after training: an input is read once $\tilde u_t$ reaches it. 0.5 is the paper's rounding; its own knob
is $\lambda$, which needs a new training for each value. In the recipe the first epochs read everything (threshold 0),
which steadies training where the paper clips gradients.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...execute import Dynamic, Trace, run, run_if
from ...learn.estimators import straight_through
from ...registry import Budget, Published, Recipe, Stage, paper

Cell = nn.GRUCell | nn.LSTMCell


class Step(nn.Module):
    """All that an update computes: (input, state) -> (new state, its increment of the update probability [B]).

    A state is a tuple of [B, width], one for each GRU cell, two (h, c) for each LSTM cell.
    """
    def __init__(self, embed: nn.Module, cells: Sequence[Cell]):
        super().__init__()
        self.embed, self.cells = embed, nn.ModuleList(cells)
        self.urge = nn.Linear(cells[-1].hidden_size, 1)                        # W_p, b_p
        nn.init.ones_(self.urge.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
        x, old, new = self.embed(x), iter(state), []
        for cell in self.cells:
            if isinstance(cell, nn.LSTMCell):
                new += cell(x, (next(old), next(old)))
                x = new[-2]
            else:
                new += [cell(x, next(old))]
                x = new[-1]
        return tuple(new), self.urge(new[-1]).sigmoid().squeeze(1)             # eq. (4)


@paper("campos2018skip")
class SkipRNN(Dynamic):
    """Classify a sequence. `embed`: one input [B] or [B, D] -> what the first of `cells` takes; `cost`: lambda."""
    budget = Budget("threshold", 0.0, 1.0, (0.3, 0.4, 0.5, 0.6, 0.8), cheaper="higher")

    def __init__(self, *, embed: nn.Module, cells: Sequence[Cell], classes: int, cost: float = 1e-4):
        super().__init__()
        self.step, self.head = Step(embed, cells), nn.Linear(cells[-1].hidden_size, classes)
        self.start = nn.ParameterList(torch.randn(1, cell.hidden_size) for cell in cells
                                      for _ in range(1 + isinstance(cell, nn.LSTMCell)))
        self.h = -2 if isinstance(cells[-1], nn.LSTMCell) else -1              # which tensor of the state is the output
        self.cost, self.threshold = cost, 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, T] words or [B, T, D]
        state = tuple(s.expand(len(x), -1) for s in self.start)
        urge = state[0].new_ones(len(x))                                       # u~, [B]
        growth, trace = torch.zeros_like(urge), None
        for t in range(x.shape[1]):
            u = straight_through(urge, self.threshold)                         # eq. (2)
            (new, grown), running = run_if(u, self.step, x[:, t], state, name=f"read {t + 1}", kind="step",
                                           sparse=self.sparse, weight=urge)
            rest = 1 - u
            state = pytree.tree_map(lambda y, s, rest=rest: y + rest.unsqueeze(1) * s, new, state)     # eq. (3)
            growth = grown + rest * growth
            urge = (rest * urge + growth).clamp(max=1)                         # eq. (5)
            trace = running if trace is None else trace + running
        y, last = run(self.head, state[self.h])                                # [B, classes]
        return y, trace.stacked("read") + last

    def undecided(self) -> SkipRNN:
        """Untrained nets read everything. Draw W_p wide and b_p low, so that the state makes a difference."""
        nn.init.normal_(self.step.urge.weight, std=2.0)
        nn.init.constant_(self.step.urge.bias, -1.0)
        return self

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, trace = self(*inputs)
        return self.task(y, target) + self.cost * trace.decisions[0].gate.sum(1).mean()                # eq. (8)

    @staticmethod
    def demo():
        cells = [nn.LSTMCell(6, 8), nn.GRUCell(8, 8)]
        model = SkipRNN(embed=nn.Embedding(12, 6), cells=cells, classes=3).undecided()
        return model, (torch.randint(12, (10, 9)),), torch.randint(3, (10,))

    @staticmethod
    def timing():
        model = SkipRNN(embed=nn.Embedding(1000, 256), cells=[nn.GRUCell(256, 512)], classes=10).undecided()
        return model.eval(), (torch.randint(1000, (32, 64)),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return SkipRNN(embed=nn.Embedding(28, 16), cells=[nn.GRUCell(16, 48)], classes=4)
        everything = {"cost": 0.0, "threshold": 0.0}                           # skipping from the start is unsteady
        return (Recipe("needles", net, (Stage(epochs=2, lr=5e-3, optimizer="adam", settings=everything),
                                        Stage(epochs=5, lr=2e-3, optimizer="adam", settings={"cost": 0.004}))),)

    @staticmethod
    def published() -> list[Published]:
        def adding():
            return (torch.rand(2, 50, 2),)
        params = 3 * 110 * (2 + 110 + 2) + (110 + 1) + (110 + 1) + 110         # cell, W_p and b_p, output, s_0
        return [Published("Skip GRU, adding task", adding_task, adding, params, 1.85e6, 0.005 / 1.85,
                          "sec. 4.1, table 1: a GRU that updates always")]


def adding_task() -> SkipRNN:
    """Sec. 4.1: 110 GRU units read 50 pairs (value, marker), one output."""
    return SkipRNN(embed=nn.Identity(), cells=[nn.GRUCell(2, 110)], classes=1, cost=1e-5)
