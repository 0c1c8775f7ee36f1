r"""Set a budget's knob on held-out data: to a number of multiply-accumulates, or to a risk that is kept.

`calibrate` finds the setting that spends a given mean. `guarantee` finds the cheapest setting whose expected loss on a
new input is at most $\alpha$, by conformal risk control (Angelopoulos et al., "Conformal Risk Control", ICLR 2024,
arXiv:2208.02814, sec. 1.1 and theorem 1). With the losses $L_i(\lambda) \in [0, 1]$ of n held-out inputs, and
$\lambda$ ordered from cheap to dear,

$$\hat\lambda = \min\Big\{\lambda : \frac{n}{n+1} \hat R_n(\lambda) + \frac{1}{n+1} \le \alpha\Big\}, \qquad
\hat R_n(\lambda) = \frac{1}{n} \sum_{i=1}^n L_i(\lambda),
\qquad\text{then}\qquad E[L_{n+1}(\hat\lambda)] \le \alpha.$$

The theorem needs losses that never rise towards dearer settings, for every input. A dynamic net breaks that: an input
may be right at an early exit and wrong at a later one. So each loss is replaced by its maximum over this and all dearer
settings, $\max_{\lambda' \ge \lambda} L_i(\lambda')$, which never rises and is never below it: the theorem holds for
the maximum, and hence for the loss. (Early exits with risk control: Jazbec et al., "Fast yet Safe", NeurIPS 2024,
arXiv:2405.20915, who control the gap to the full model and the disagreement with it, with one threshold for all exits,
and assume that losses fall on average; that is weaker than what the theorem asks.)

What is promised is the mean over draws of the held-out data *and* the new input, not for one held-out set, nor for a
group of inputs; both must be exchangeable: drawn alike, from the same source, one not repeated in the other, and used
neither in training nor to choose `values`. Where the dearest setting has no loss (disagreement), it is always safe.
Where it has (error), it may be that no setting is safe and nothing is answered; the promise then reads
$E[L(\hat\lambda); \text{answered}] \le \alpha$, which the theorem's proof gives as well. So never ask for a risk below
what the model itself errs: the few draws that answer are those that happened to be easy, and they are wrong.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..execute import Dynamic
from .weave import AdaptError

Loss = Callable[[Dynamic, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guarantee:
    """A setting of the knob and what is known of it: `net.at(found.value)`.

    risk: the expected loss on a new input is at most this. bound: of the held-out inputs, n/(n+1) times the mean of
    the losses made monotone, plus 1/(n+1); at most risk. measured: the mean of the losses themselves. macs, full: mean
    multiply-accumulates per input, as decided and with everything on.
    """
    value: float
    risk: float
    bound: float
    measured: float
    n: int
    macs: float
    full: float

    def __str__(self) -> str:
        return (f"{self.value:g}: expected loss at most {self.risk:g} ({self.measured:.4f} on {self.n} inputs, bound "
                f"{self.bound:.4f}), {self.macs:,.0f} of {self.full:,.0f} MACs per input")


def disagreement(net: Dynamic, y: Tensor, full: Tensor, target: Tensor) -> Tensor:
    """[B] in [0, 1]: how much of the answer `y` differs from `full`, that of the dearest setting. Needs no target."""
    return 1 - net.correct(y, full.argmax(-1))


def error(net: Dynamic, y: Tensor, full: Tensor, target: Tensor) -> Tensor:
    """[B] in [0, 1]: how much of each sample's target the answer `y` gets wrong."""
    return 1 - net.correct(y, target)


def calibrate(net: Dynamic, batches: Iterable, macs: float, steps: int = 16) -> float:
    """The setting of `net`'s knob that on held-out data spends at most `macs` per input on average, and nearest to it.

    batches: pairs (inputs, target), inputs a tensor or a tuple of them, held in memory; targets are not used. The
    knob's ends and own values are tried, then a stretch where the spending crosses `macs` is halved, `steps` times.
    Where spending does not follow the knob this is the best of what was tried. `net` is left as it was.
    Raises AdaptError where even the cheapest setting tried spends more, and for a net without a knob to turn.
    """
    held, budget = _held(batches), _knob(net)
    whole = all(isinstance(v, int) for v in (budget.low, budget.high, *budget.values))
    spent: dict[float, float] = {}

    def spend(value):
        if value not in spent:
            spent[value] = _spent(net.at(value), held)
        return spent[value]

    with _evaluating(net):
        for value in sorted({budget.low, *budget.values, budget.high}):
            spend(value)
        for _ in range(steps):
            crossings = [(max(a, b, key=spent.get), min(a, b, key=spent.get)) for a, b in pairwise(sorted(spent))]
            crossings = [(spent[cheap], abs(dear - cheap), middle) for dear, cheap in crossings
                         if spent[cheap] < macs < spent[dear]
                         and (middle := (dear + cheap) // 2 if whole else (dear + cheap) / 2) not in spent]
            if not crossings:
                break
            spend(max(crossings)[2])                                           # where it comes nearest so far
    best = max((v for v in spent if spent[v] <= macs), key=spent.get, default=None)
    if best is None:
        cheapest = min(spent, key=spent.get)
        raise AdaptError(f"{type(net).__name__} spends {spent[cheapest]:,.0f} MACs per input on these data at its "
                         f"cheapest ({budget.name} {cheapest:g}): it cannot keep to {macs:,.0f}")
    return best


def guarantee(net: Dynamic, batches: Iterable, risk: float, values: Sequence[float] | None = None,
              loss: Loss = disagreement) -> Guarantee:
    """The cheapest of `values` of `net`'s knob whose expected loss on a new input is at most `risk` (see above).

    batches: pairs (inputs, target) of held-out data, drawn as the new inputs will be. values: chosen before these data
    are seen; by default the knob's own values and 21 between its ends; the dearest end always belongs to them. loss:
    `disagreement` with the net at its dearest end, `error`, or a function like these with values in [0, 1].
    `net` is left as it was. Raises AdaptError where nothing can be promised: fewer than 1/risk - 1 inputs, no setting
    safe, or answers that depend on what else is in the batch (`couples`).
    """
    if not 0 < risk < 1:
        raise AdaptError(f"risk is an expected loss between 0 and 1, not {risk}")
    held, budget = _held(batches), _knob(net)
    if any(getattr(module, "couples", None) for module in net.modules()):
        raise AdaptError(f"{type(net).__name__} decides about the samples of a batch together, so what one of them "
                         "gets depends on the others, and no expectation over single inputs can be promised")
    low, high = budget.low, budget.high
    if values is None:
        values = (*budget.values, *(low + (high - low) * i / 20 for i in range(21))) \
            if not all(isinstance(v, int) for v in (low, high, *budget.values)) else range(low, high + 1)
    dearest = high if budget.cheaper == "lower" else low
    order = sorted({dearest, *values}, reverse=budget.cheaper == "lower")      # from dear to cheap
    if outside := [v for v in order if not low <= v <= high]:
        raise AdaptError(f"{budget.name} is between {low:g} and {high:g}, not {outside[0]:g}")
    losses, spent, reference = [], [], []
    with _evaluating(net):
        for value in order:
            net.at(value)
            rows = []
            macs = everything = 0.0
            for i, (inputs, target) in enumerate(held):
                y, trace = net(*inputs)
                reference += [y] if value == dearest else []
                rows.append(_checked(loss(net, y, reference[i], target), len(inputs[0])))
                macs, everything = macs + float(trace.spent.sum()), everything + float(trace.full.sum())
            losses.append(torch.cat(rows))
            spent.append((macs / len(losses[0]), everything / len(losses[0])))
    table = torch.stack(losses)                                                # [values, n], from dear to cheap
    chosen, bounds = conformal(table, risk)
    n = table.shape[1]
    if 1 / (n + 1) > risk:
        raise AdaptError(f"{n} held-out inputs cannot promise a risk of {risk:g}, whatever happens on them: it takes "
                         f"{_enough(risk)} or more, or a risk of at least {1 / (n + 1):.3g}")
    if chosen is None:
        raise AdaptError(f"{type(net).__name__} keeps no risk of {risk:g}: even at its dearest ({budget.name} "
                         f"{dearest:g}) the bound is {bounds[0]:.3g}; promise that or more, or improve the model")
    return Guarantee(order[chosen], risk, float(bounds[chosen]), float(table[chosen].mean()), n, *spent[chosen])


def conformal(losses: Tensor, risk: float) -> tuple[int | None, Tensor]:
    """(row, bounds): the last row of `losses` [settings, n], from dear to cheap, that is safe, or None; and the bound
    n/(n+1) R + 1/(n+1) of each, of losses made monotone by the maximum over dearer settings."""
    n = losses.shape[1]
    bounds = (losses.double().cummax(0).values.sum(1) + 1) / (n + 1)           # never falls towards cheaper settings
    safe = int((bounds <= risk).sum())
    return (safe - 1 if safe else None), bounds


# What both share -----------------------------------------------------------------------------------------------------

def _held(batches: Iterable) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    held = []
    for pair in batches:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise AdaptError("batches are pairs (inputs, target), as a DataLoader or Data.batches(size) gives them")
        inputs, target = pair
        inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
        if not inputs or not all(isinstance(x, Tensor) for x in inputs):
            raise AdaptError("the inputs of a batch are a tensor, or a tuple of tensors")
        held.append((inputs, target))
    if not sum(len(inputs[0]) for inputs, _ in held):
        raise AdaptError("no held-out data: batches is empty (an iterator can be used only once)")
    return held


def _knob(net: Dynamic):
    budget = getattr(net, "budget", None)
    if budget is None:
        raise AdaptError(f"{type(net).__name__} has no budget to turn")
    if budget.retrain:
        raise AdaptError(f"{type(net).__name__} is trained anew for each value of its {budget.name}: train one per "
                         "value and compare these")
    return budget


@contextmanager
def _evaluating(net: Dynamic) -> Iterator[None]:
    """Sparse, in eval mode, without gradients; afterwards everything is as before, the knob too."""
    modes = [(m, m.training, getattr(m, "sparse", None)) for m in net.modules()]
    value = getattr(net, net.budget.name)
    net.eval().execute("sparse")
    try:
        with torch.no_grad():
            yield
    finally:
        setattr(net, net.budget.name, value)
        for module, training, sparse in modes:
            module.training = training
            if isinstance(module, Dynamic):
                module.sparse = sparse


def _spent(net: Dynamic, held) -> float:
    traces = [net(*inputs)[1] for inputs, _ in held]
    return math.fsum(float(t.spent.sum()) for t in traces) / sum(len(t.spent) for t in traces)


def _checked(losses: Tensor, count: int) -> Tensor:
    if losses.shape != (count,):
        raise AdaptError(f"a loss is one number per sample: [{count}], not {list(losses.shape)}")
    if not ((losses >= 0) & (losses <= 1)).all():
        raise AdaptError(f"a loss is in [0, 1] for every sample, not from {losses.min():g} to {losses.max():g}")
    return losses.double().cpu()


def _enough(risk: float) -> int:
    """The fewest inputs that can promise `risk`: 1/(n+1) <= risk."""
    n = math.ceil(1 / risk) - 1
    return n if 1 / (n + 1) <= risk else n + 1
