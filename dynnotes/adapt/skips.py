r"""Gates for any residual network: each block decides from its own input whether it runs or leaves the input as it is.

$$x_l = z_l(x_{l-1})\, B_l(x_{l-1}) + \big(1 - z_l(x_{l-1})\big)\, x_{l-1}, \qquad z_l \in \{0, 1\}$$

for a block B that keeps its input's shape; with B(x) = x + F(x) this is ConvNet-AIG's x + z F(x) (Veit and Belongie
2018, sec. 3.1), and as it asks nothing of B, a block as it comes need not be taken apart. Where a block ends in an
activation, as ResNet's do, a skip leaves the input without a second activation. The gate is theirs, on pooled features
of any shape (sec. 3.2; `decide.gates.PooledGate`), and so is the loss (sec. 3.3, doubled as in the authors' code):

$$L = L_\text{class} + 2 \cdot \frac{1}{N} \sum_l (\bar z_l - t)^2.$$

Different: at inference the likelier choice or, with another `threshold`, a block runs where its probability to run
reaches it; the authors draw at random.
"""
from __future__ import annotations

import inspect
import operator
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..decide.gates import PooledGate
from ..execute import Dynamic, Trace, run, run_if
from ..learn.budgets import target_rate
from ..learn.estimators import gumbel_onehot
from ..registry import Budget
from .features import Passing, Pooled, alike, passing
from .weave import AdaptError, Woven, cut, in_eval_mode


class Skip(Dynamic):
    """A block that keeps its input's shape, and the gate that decides where it runs."""
    def __init__(self, name: str, block: nn.Module, gate: nn.Module):
        super().__init__()
        self.name, self.block, self.gate, self.threshold = name, block, gate, 0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:
        logits, gating = run(self.gate, x)                                     # [B, 2]
        chance = logits.softmax(1)[:, 1]                                       # [B]
        z = gumbel_onehot(logits, training=True)[:, 1] if self.training else (chance >= self.threshold).to(x)
        y, running = run_if(z, self.block, x, name=self.name, sparse=self.sparse, weight=chance)
        wide = z.view(-1, *[1] * (x.dim() - 1))
        if z.requires_grad:
            return y + (1 - wide) * x, gating + running                        # the gate learns from both
        return torch.where(wide > 0, y, x), gating + running


class Skips(Woven):
    """A residual network whose blocks are skipped, made by `with_skips`. Inputs: the model's own.

    `threshold`: a block runs where its gate's probability to run reaches it; at 0 all run, and the model itself
    answers. `target`: the share of inputs that shall run each block, held by the loss.
    """
    budget = Budget("threshold", 0.0, 1.0, (0.1, 0.3, 0.5, 0.7, 0.9), cheaper="higher")

    def __init__(self, model: nn.Module, gates: Mapping[str, nn.Module], target: float):
        inside = dict(model.named_modules())
        super().__init__(model, {name: Skip(name, inside[name], gate) for name, gate in gates.items()})
        self.target = target

    @property
    def skips(self) -> list[Skip]:
        """The blocks, in order."""
        return [part for part in self.parts if isinstance(part, Skip)]

    @property
    def threshold(self) -> float:
        return self.skips[0].threshold

    @threshold.setter
    def threshold(self, value: float):
        for skip in self.skips:
            skip.threshold = value

    def loss(self, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        y, trace = self(*inputs)
        return self.task(y, target) + 2 * target_rate([d.gate for d in trace.decisions], self.target)


def with_skips(model: nn.Module, inputs: tuple[Tensor, ...], blocks: Sequence[str] | None = None,
               target: float = 0.6) -> Skips:
    """`model` with a gate on each of its `blocks`, named submodules that return what has the shape of their input.

    inputs: a tuple of example tensors, for their shapes alone. blocks: by default those of `residual_blocks`. Weights
    and submodules are shared with the model, which is not changed. New gates are open for almost every input: train,
    or find the `threshold` of a budget with `calibrate`.
    Raises AdaptError where there is no such block, or a named one cannot be skipped.
    """
    if isinstance(blocks, str) or (blocks is not None and not blocks):
        raise AdaptError(f"blocks is a list of names of submodules, at least one, not {blocks!r}")
    if not 0 <= target <= 1:
        raise AdaptError(f"target is the share of inputs that run a block, between 0 and 1, not {target}")
    seen = passing(model, inputs)
    if blocks is None:
        blocks = _found(model, seen)
        if not blocks:
            raise AdaptError(f"{type(model).__name__} has no submodule that keeps its input's shape and adds its input "
                             "to its result; name blocks to skip: blocks=[...]")
    cut(model, blocks)                                                         # refuses names that it cannot reach
    gates = {}
    for name in blocks:
        _check(name, seen[name])
        gates[name] = _gate(model, seen[name].taken)
    return Skips(model, gates, target)


def residual_blocks(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[str]:
    """Names of the submodules that are residual: the largest ones that run once, return one tensor of the shape of
    their input, and whose forward, traced, hands that input through sums alone to its result.

    A last activation, a dropout or a new arrangement of the axes on the way is allowed, a shortcut with weights is not.
    """
    return _found(model, passing(model, inputs))


def _found(model: nn.Module, seen: Mapping[str, Passing]) -> list[str]:
    found: list[str] = []
    for name, module in model.named_modules():                                 # outer modules come first
        if name in seen and not any(name.startswith(outer + ".") for outer in found):
            step = seen[name]
            if name and step.taken and step.taken == step.given and step.calls == 1 and not step.overwrites \
                    and _adds_its_input(module):
                found.append(name)
    return found


def _check(name: str, step: Passing) -> None:
    if not step.taken or step.taken != step.given:
        def shape(size):
            return "something other than one tensor" if size is None else list(size)
        raise AdaptError(f"{name!r} turns {shape(step.taken)} into {shape(step.given)}: only what keeps its input's "
                         "shape can be skipped")
    if step.overwrites:
        raise AdaptError(f"{name!r} overwrites its input, so there is nothing left to go on with where it is skipped; "
                         "make its first operation not in place (inplace=False)")


def _gate(model: nn.Module, size: tuple[int, ...]) -> nn.Module:
    pooled = Pooled(size)
    return alike(nn.Sequential(pooled, nn.Unflatten(1, (pooled.channels, 1, 1)), PooledGate(pooled.channels)),
                 model, size)[0]


# The way of a block's input to its result ----------------------------------------------------------------------------

SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
PASSES = {F.relu, torch.relu, torch.relu_, F.gelu, F.silu, F.dropout, torch.reshape, "relu", "relu_", "reshape", "view",
          "contiguous", "permute"}
PASSING = (nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish)


class _Shallow(fx.Tracer):
    def is_leaf_module(self, module, name):
        return True


def _adds_its_input(module: nn.Module) -> bool:
    parameters = inspect.signature(module.forward).parameters
    fixed = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    try:
        with in_eval_mode(module):
            graph = _Shallow().trace(module, concrete_args=fixed)
    except Exception:  # noqa: BLE001  from the module's own Python may come anything: it is then not found by itself
        return False
    sums: dict[fx.Node, int] = {}                                    # on the way from the input to here
    for node in graph.nodes:
        if node.op == "placeholder" and not sums:
            sums[node] = 0
        known = [sums[n] for n in node.all_input_nodes if n in sums]
        if not known:
            continue
        if node.op in ("call_function", "call_method") and node.target in SUMS:
            sums[node] = 1 + max(known)
        elif node.op == "output" and isinstance(node.args[0], fx.Node):
            return known[0] > 0
        elif node.args and node.args[0] in sums and (
                (node.op == "call_module" and isinstance(module.get_submodule(node.target), PASSING))
                or (node.op in ("call_function", "call_method") and node.target in PASSES)):
            sums[node] = sums[node.args[0]]
    return False
