r"""Exits for any sequential classifier: an input leaves after the first stage whose answer is sure enough.

Behind each named module stands a small classifier. An input leaves where the entropy (in nats) of its softmax is below
`threshold`, one for all exits, or at the model's own answer in any case. All exits are trained together on the sum of
their cross-entropies, as in BranchyNet (Teerapittayanon et al. 2016, sec. III-B, with every weight 1):

$$L = \sum_{n=1}^{N} L(\hat y_{\text{exit}_n}, y).$$
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..decide.confidence import entropy
from ..execute import Dynamic, Trace, run_while
from ..registry import Budget
from .features import Pooled, alike, passing
from .weave import AdaptError, chain


class Exit(nn.Module):
    """A stage of the model and the classifier behind it: (values,) -> ((features,), logits)."""
    def __init__(self, part: nn.Module, head: nn.Module):
        super().__init__()
        self.part, self.head = part, head

    def forward(self, values: tuple[Tensor, ...]) -> tuple[tuple[Tensor], Tensor]:
        values = self.part(*values)
        return values, self.head(values[0])


class Exits(Dynamic):
    """A classifier that its inputs may leave early, made by `with_exits`. Inputs: the model's own.

    `threshold`: an input leaves where the entropy of an exit's softmax is below it; at 0 the model itself answers.
    """
    def __init__(self, stages: Sequence[Exit], classes: int):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        most = math.log(classes)
        self.budget = Budget("threshold", 0.0, most, tuple(share * most for share in (0.1, 0.3, 0.5, 0.7, 0.9)),
                             cheaper="higher")
        self.threshold = most / 2

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Trace]:
        def leave(_, logits):
            return entropy(logits) < self.threshold
        return run_while(self.stages, leave, inputs, sparse=self.sparse)       # [B, classes]

    def exits(self, *inputs: Tensor) -> list[Tensor]:
        """Logits [B, classes] of every exit, whoever would have left before; the last are the model's own."""
        answers, values = [], inputs
        for stage in self.stages:
            values, logits = stage(values)
            answers.append(logits)
        return answers

    def loss(self, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        return sum(self.task(logits, target) for logits in self.exits(*inputs))


def with_exits(model: nn.Module, after: Sequence[str], inputs: tuple[Tensor, ...],
               head: Callable[[tuple[int, ...]], nn.Module] | None = None) -> Exits:
    """`model` with an exit behind each submodule named in `after`; the last exit is the model's own answer.

    inputs: a tuple of example tensors, for their shapes alone. head: makes the classifier behind features of a shape
    (without the batch axis); by default they are averaged over places or tokens (`Pooled`), then a linear layer to as
    many classes as the model has. Weights and submodules are shared with the model, which is not changed.
    Raises AdaptError unless the model is a classifier that takes such inputs and is sequential where it is cut.
    """
    if isinstance(after, str) or not after:
        raise AdaptError(f"after is a list of names of submodules, at least one, not {after!r}")
    stages = chain(model, after)
    if stages[-1][0]:
        raise AdaptError(f"nothing follows {stages[-1][0]!r} in {type(model).__name__}: the model's answer is the last "
                         "exit already; leave that name out")
    seen = passing(model, inputs)
    answer = seen[""].given
    if answer is None or len(answer) != 1 or answer[0] < 2:
        raise AdaptError(f"{type(model).__name__} answers with {_shape(answer)}; exits need a classifier, "
                         "[B, classes] with at least two classes")
    exits = []
    for name, part in stages[:-1]:
        size = seen[name].given
        if not size:
            raise AdaptError(f"{name!r} returns {_shape(size)}, not features [B, ...]; name another module")
        exits.append(Exit(part, _head(head or _default(answer[0]), name, size, answer, model)))
    return Exits([*exits, Exit(stages[-1][1], nn.Identity())], answer[0])


def _default(classes: int) -> Callable[[tuple[int, ...]], nn.Module]:
    def head(size):
        pooled = Pooled(size)
        return nn.Sequential(pooled, nn.Linear(pooled.channels, classes))
    return head


def _head(make, name, size, answer, model) -> nn.Module:
    """A head that answers as the model does, with weights where the model's are and of their dtype."""
    head = make(size)
    if not isinstance(head, nn.Module):
        raise AdaptError(f"head({size}) is {type(head).__name__}, not a module from features to logits")
    head, example = alike(head, model, size)
    given = passing(head, (example,))[""].given
    if given != answer:
        raise AdaptError(f"the head behind {name!r} answers with {_shape(given)}, the model with {_shape(answer)}; "
                         "make them the same")
    return head


def _shape(size) -> str:
    return "something other than one tensor" if size is None else "[" + ", ".join(["B", *map(str, size)]) + "]"
