r"""A recurrent net repeats its cell on each input until learned halting scores, added up over the repeats, reach one.

At input $t$ the state is updated $N(t)$ times (eq. 3); a flag $\delta_{n,1}$ tells the cell whether the input is new:

$$s_t^n = S(s_t^{n-1}, x_t + \delta_{n,1}), \quad s_t^0 = s_{t-1}, \qquad h_t^n = \sigma(W_h s_t^n + b_h),$$

(eq. 3, 5). The scores are the weights of the updates, the last one gets what is missing to one (eq. 6 to 8, 13):

$$N(t) = \min\Big\{M, \min\Big\{n' : \sum_{n=1}^{n'} h_t^n \ge 1 - \epsilon\Big\}\Big\}, \quad
R(t) = 1 - \sum_{n=1}^{N(t)-1} h_t^n, \quad p_t^n = h_t^n \text{ or, at } n = N(t), R(t).$$

State and output are means under these weights (eq. 9), and thinking has a price (eq. 10 to 12):

$$s_t = \sum_n p_t^n s_t^n, \qquad y_t = \sum_n p_t^n (W_y s_t^n + b_y), \qquad
\hat L = L + \tau \sum_t N(t) + R(t).$$

The gradient takes $N(t)$ for a constant (sec. 2.2). As $\sum_n p_t^n = 1$, $y_t = W_y s_t + b_y$: one product per input
instead of $N(t)$. Likewise $W_x x_t$ is the same at every update and is computed once.

Claim: a net that sees a vector of 64 elements at once errs on its parity nearly 40% of the time; with ACT and a time
penalty of 0.03 or less below 5% (sec. 3.1, fig. 4), and between too small and too large a penalty it ponders about in
proportion to the number of bits (fig. 6). Updates are counted, not operations. Read: the full text. Smallest setting:
parity of shorter vectors with the paper's net, one hidden layer; the recipe is this setting, with 10 elements and 64
units. toy-text stands for the paper's text of Wikipedia, where ACT brings no large gain (abstract).

Left out: asynchronous training (sec. 3); the logic and sort tasks (sec. 3.2, 3.4). Different: $L$ and the ponder cost
are means over the inputs of a sequence, not sums, which scales $\hat L$ alone; parity has two softmax outputs, not one
sigmoid (sec. 3.1). Added: `threshold`, $1 - \epsilon$, is the budget to turn after training; the paper keeps it at
0.99, and its own knob is $\tau$, which needs a new training for each value.
"""
from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from ....decide.halting import halt
from ....execute import Dynamic, Trace, run, run_while
from ....nets.recurrent import Drive, LSTMCell, TanhCell, start
from ....registry import Budget, Recipe, Stage, paper


class Ponder(nn.Module):
    """One update. It carries (drive now, drive later, s, mean, before): before = h_1 + ... + h_{n-1}, mean = their
    weighted states; the answer is (s, mean, before, h), all that is needed to stop here."""
    def __init__(self, cell: nn.Module, bias: float):
        super().__init__()
        self.cell, self.halting = cell, nn.Linear(cell.width, 1)
        nn.init.constant_(self.halting.bias, bias)

    def forward(self, carried):
        now, later, state, mean, before = carried
        state = self.cell(now, state)
        h = self.halting(state[0]).sigmoid()                                   # [B, 1]
        mixed = tuple(m + h * s for m, s in zip(mean, state, strict=True))
        return (later, later, state, mixed, before + h), (state, mean, before, h)


@paper("graves2016adaptive")
class ACT(Dynamic):
    """At most `steps` updates of `cell` per input; `project` and `head` as in nets.recurrent.FixedSteps.

    One vector [B, n] gives one answer [B, C], a sequence [B, T, ...] gives [B, T, V]; `tau` prices an update, `bias`
    starts b_h.
    """
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.5, 0.8, 0.9, 0.99), cheaper="lower")

    def __init__(self, *, project: nn.Module, cell: nn.Module, head: nn.Module, steps: int, tau: float,
                 bias: float = 1.0):
        super().__init__()
        self.drive, self.ponder, self.head = Drive(project, cell), Ponder(cell, bias), head
        self.steps, self.tau, self.threshold = steps, tau, 0.99

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, n] or [B, T, ...]
        y, trace, _ = self._read(x)
        return y, trace

    def _read(self, x: Tensor) -> tuple[Tensor, Trace, Tensor]:
        def leave(_, answer):
            _, _, before, h = answer
            return halt(before, h, self.threshold, last=False)[2][:, 0]        # eq. 7; eq. 13: run_while ends at M

        (first, later), driving = run(self.drive, x)
        if alone := first.dim() == 2:
            first, later = first.unsqueeze(1), later.unsqueeze(1)              # [B, T, gates * width]
        mean, states, traces, remainders = start(self.ponder.cell, first), [], [], []
        for t in range(first.shape[1]):
            nothing = tuple(map(torch.zeros_like, mean))
            carried = first[:, t], later[:, t], mean, nothing, first.new_zeros(len(first), 1)
            (state, mixed, before, _), pondering = run_while([self.ponder] * self.steps, leave, carried, kind="step",
                                                             name=f"input {t + 1}", sparse=self.sparse)
            rest = 1 - before                                                  # R(t) [B, 1]
            mean = tuple(m + rest * s for m, s in zip(mixed, state, strict=True))      # eq. 9
            states, traces, remainders = [*states, mean[0]], [*traces, pondering], [*remainders, rest]
        seen = torch.stack(states, 1)                                          # [B, T, width]
        y, last = run(self.head, seen[:, 0] if alone else seen)
        return y, driving + reduce(add, traces).stacked("ponder") + last, torch.cat(remainders, 1)

    def loss(self, inputs: tuple[Tensor], target: Tensor) -> Tensor:
        y, trace, remainder = self._read(*inputs)                              # remainder [B, T]
        cost = trace.decisions[0].gate.sum(2) + remainder                      # N(t) + R(t)
        return self.task(y, target) + self.tau * cost.mean()

    def undecided(self) -> ACT:
        """The halting unit hardly looks at the state at first. Draw it so that untrained it tells inputs apart."""
        nn.init.normal_(self.ponder.halting.weight, std=2.0)
        return self

    @staticmethod
    def demo():
        model = ACT(project=nn.Linear(6, 16), cell=TanhCell(16), head=nn.Linear(16, 4), steps=5, tau=0.01).undecided()
        return model, (2 * torch.randn(10, 4, 6),), torch.randint(4, (10, 4))

    @staticmethod
    def timing():
        model = ACT(project=nn.Linear(64, 4 * 256), cell=LSTMCell(256), head=nn.Linear(256, 10), steps=8, tau=0.01)
        return model.undecided().eval(), (2 * torch.randn(32, 8, 64),)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def parity():
            return ACT(project=nn.Linear(10, 64), cell=TanhCell(64), head=nn.Linear(64, 2), steps=8, tau=0.001)

        def text():                                                            # 24 characters
            return ACT(project=nn.Embedding(24, 64), cell=TanhCell(64), head=nn.Linear(64, 24), steps=3, tau=0.003)

        return (Recipe("parity", parity, (Stage(epochs=15, lr=5e-3, optimizer="adam"),)),
                Recipe("toy-text", text, (Stage(epochs=10, lr=5e-3, optimizer="adam"),)))
