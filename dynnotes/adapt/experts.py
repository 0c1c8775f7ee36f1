r"""A feed-forward network becomes a mixture of experts: its own neurons in groups, or copies of it side by side.

**Split** (MoEfication, Zhang et al. 2022, arXiv 2110.01786). The neurons of $W_2 \, \sigma(W_1 x + b_1) + b_2$ stand in
$E$ groups of equal size, and a token computes the $k$ groups $S$ that its router names:

$$y = b_2 + \sum_{e \in S} W_2^e \, \sigma(W_1^e x + b_1^e), \qquad S = \mathrm{top}_k \, r(x).$$

With $k = E$ that is the network itself. As in the authors' code (github.com/thunlp/MoEfication): groups by balanced
k-means over the rows of $W_1$ at unit length (*parameter clustering split*); the router is $A \tanh(C x / |x|)$, where
$C$ starts as the groups' centres and $A$ as the identity, so that untrained it is *similarity selection*; it learns to
name the groups whose neurons fire most, by the sum of their positive activations. While training these truly most
active groups run (*groundtruth selection*) and the router learns from the network's inputs, without changing them.
Different: the target of a group is whether it is among the $k$ most active, there it is its sum, scaled to at most 1;
the centres are of unit length. Left out: splitting by co-activation; making a GELU network a ReLU one first, which the
paper does, since it is zeros that make groups dispensable.

**Copied** (sparse upcycling, Komatsuzaki et al. 2023, arXiv 2212.05055). $E$ copies of the network, and a router drawn
at random; a token computes the $k$ copies that score highest, weighted so that the weights add up to one (app. B.7):

$$y = \sum_{e \in S} w_e \, \mathrm{FFN}_e(x), \qquad w = \mathrm{softmax}_S(R x), \quad S = \mathrm{top}_k \, R x.$$

As long as the copies are equal, that is the network itself; training lets them differ. It costs $k$ times the network:
what grows is what the model can hold, not what it saves. Different: tokens choose experts, as in the paper's language
decoders; in its vision models experts choose tokens, of the whole batch, and samples would see each other. The experts
are kept equally busy by the importance loss of Shazeer et al. 2017 (eq. 6, 7).
"""
from __future__ import annotations

import copy
import sys
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..execute import Dynamic, Trace, run, run_experts
from ..learn.budgets import cv_squared
from ..registry import Budget
from .weave import AdaptError, Woven, cut


class Network(NamedTuple):
    """The parts of a feed-forward network; `inside` and `after` are the dropouts behind its two layers, if any."""
    first: nn.Linear
    act: nn.Module
    inside: tuple[nn.Module, ...]
    second: nn.Linear
    after: tuple[nn.Module, ...]


class Similarity(nn.Module):
    """How well each group of neurons suits a token: [..., D] -> [..., E], tanh(cosine to the group's centre) at first.

    centres: [E, D].
    """
    def __init__(self, centres: Tensor):
        super().__init__()
        self.net = nn.Sequential(_linear(F.normalize(centres, dim=1)), nn.Tanh(), _linear(torch.eye(len(centres)).to(
            centres)))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.normalize(x, dim=-1))


class SplitLayer(Dynamic):
    """A feed-forward network, its neurons in `experts` groups, of which each token computes `k`: [B, *, D]."""
    def __init__(self, network: Network, experts: int, k: int, name: str):
        super().__init__()
        first, act, inside, second, after = network
        rows = F.normalize(first.weight.detach(), dim=1)
        groups = balanced_groups(rows, experts)                                # [E, neurons of a group]
        self.experts = nn.ModuleList(
            nn.Sequential(_linear(first.weight[g], None if first.bias is None else first.bias[g]), act, *inside,
                          _linear(second.weight[:, g])) for g in groups)
        self.bias = None if second.bias is None else nn.Parameter(second.bias.detach().clone())
        self.after = nn.Sequential(*after)
        self.router = Similarity(rows[groups].mean(1))
        self.k, self.name = k, name

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, *, D]
        scores, routing = run(self.router, x.detach())                         # [B, *, E]
        gate = _top(self._truth(x) if self.training else scores, int(self.k))
        y, mixing = run_experts(gate, self.experts, x, name=self.name, sparse=self.sparse)
        one, = mixing.decisions
        y = y if self.bias is None else y + self.bias
        return self.after(y), routing + Trace(mixing.spent, mixing.full, (replace(one, weight=scores.sigmoid()),))

    @torch.no_grad()
    def _truth(self, x):
        """The sum of positive activations of each group: [B, *, E]. Not billed: only training asks for it."""
        return torch.stack([expert[1](expert[0](x)).relu().sum(-1) for expert in self.experts], -1)


class CopiedLayer(Dynamic):
    """`experts` copies of a feed-forward network, of which each token computes `k` and mixes them: [B, *, D]."""
    def __init__(self, network: nn.Module, width: int, experts: int, k: int, name: str):
        super().__init__()
        self.experts = nn.ModuleList(copy.deepcopy(network) for _ in range(experts))
        self.router = nn.Linear(width, experts, bias=False).to(next(network.parameters()))
        nn.init.normal_(self.router.weight, std=0.02)
        self.k, self.name = k, name

    def forward(self, x: Tensor) -> tuple[Tensor, Trace]:                      # [B, *, D]
        scores, routing = run(self.router, x)                                  # [B, *, E]
        gate = _top(scores.detach(), int(self.k))
        weight = scores.masked_fill(gate == 0, -torch.inf).softmax(-1)         # app. B.7
        y, mixing = run_experts(gate, self.experts, x, name=self.name, sparse=self.sparse, weight=weight)
        return y, routing + mixing


class Experts(Woven):
    """A model with experts in the place of feed-forward networks; `k`: how many of them each token computes."""
    def __init__(self, model: nn.Module, layers: dict[str, SplitLayer | CopiedLayer], experts: int):
        super().__init__(model, layers)
        values = sorted({1, experts // 4, experts // 2, 3 * experts // 4, experts} - {0})
        self.budget = Budget("k", 1, experts, tuple(values), cheaper="lower")

    @property
    def k(self) -> int:
        return self._layers()[0].k

    @k.setter
    def k(self, count: int):
        for layer in self._layers():
            layer.k = count

    def _layers(self):
        return [part for part in self.parts if isinstance(part, (SplitLayer, CopiedLayer))]


class SplitExperts(Experts):
    """See `with_split_experts`."""
    def loss(self, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        """The task's own, and for each router the cross-entropy to which groups were most active, mean over layers.

        In training mode; in evaluation mode the routers would be their own teachers.
        """
        y, trace = self(*inputs)
        routing = [F.binary_cross_entropy(d.weight, d.gate) for d in trace.decisions]
        return self.task(y, target) + torch.stack(routing).mean()


class CopiedExperts(Experts):
    """See `with_copied_experts`. `w_importance`: weight of the loss that keeps the experts equally busy."""
    w_importance: float = 0.01

    def loss(self, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        y, trace = self(*inputs)
        uneven = [cv_squared(d.weight.flatten(0, -2).sum(0)) for d in trace.decisions]
        return self.task(y, target) + self.w_importance * torch.stack(uneven).mean()


def with_split_experts(model: nn.Module, ffns: Collection[str], experts: int, k: int) -> SplitExperts:
    """`model` with the neurons of each feed-forward network named in `ffns` in `experts` groups; a token computes `k`.

    A network is a timm Mlp, a torchvision MLPBlock, or an nn.Sequential of Linear, activation, Linear, with dropout
    or without. Its weights are copied, in the order of their groups; all others are shared with `model`, which is not
    changed. k = experts is the model itself. Raises AdaptError for another network, for neurons that cannot be split
    evenly, and as Woven.
    """
    networks = _networks(model, ffns, experts, k)
    layers = {}
    for name, network in networks.items():
        neurons = network.first.out_features
        if neurons % experts:
            near = [n for n in range(2, neurons + 1) if neurons % n == 0]
            near = sorted(near, key=lambda n: abs(n - experts))[:3]
            raise AdaptError(f"{name!r}: {neurons} neurons cannot be split into {experts} equal groups; "
                             f"{', '.join(map(str, sorted(near)))} would do")
        layers[name] = SplitLayer(network, experts, k, name)
    return SplitExperts(model, layers, experts)


def with_copied_experts(model: nn.Module, ffns: Collection[str], experts: int, k: int) -> CopiedExperts:
    """`model` with `experts` copies of each feed-forward network named in `ffns`, of which a token computes `k`.

    Untrained it answers as the model does, at any k. Networks as for `with_split_experts`; what is not copied is shared
    with `model`, which is not changed. With k = 1 the weight is always one, and the router learns nothing: train with
    2 or more. Raises AdaptError for another network, and as Woven.
    """
    inside = dict(model.named_modules())
    layers = {name: CopiedLayer(inside[name], network.first.in_features, experts, k, name)
              for name, network in _networks(model, ffns, experts, k).items()}
    return CopiedExperts(model, layers, experts)


@torch.no_grad()
def balanced_groups(rows: Tensor, count: int, rounds: int = 10) -> Tensor:
    """`rows` [N, D] of unit length in `count` groups that point in like directions: indices [count, N / count].

    k-means in which a group that is full accepts no more: in each round every row that is still free asks the group
    whose centre is nearest among those with room, which takes the nearest of those that ask.
    """
    size = len(rows) // count
    centres = rows[::size]
    for _ in range(rounds):
        near = rows @ centres.T                                                # [N, count]
        groups = [[] for _ in range(count)]
        free = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        while free.any():
            full = torch.tensor([len(g) == size for g in groups], device=rows.device)
            wanted = near.masked_fill(full, -torch.inf).argmax(1)
            for e in full.logical_not().nonzero().flatten().tolist():
                asking = (free & (wanted == e)).nonzero().flatten()
                taken = asking[near[asking, e].argsort(descending=True, stable=True)[:size - len(groups[e])]]
                groups[e] += taken.tolist()
                free[taken] = False
        found = torch.tensor([sorted(g) for g in groups], device=rows.device)
        centres = F.normalize(rows[found].mean(1), dim=1)
    return found


def _networks(model, ffns, experts, k) -> dict[str, Network]:
    if isinstance(ffns, str) or not ffns:
        raise AdaptError(f"ffns: the names of feed-forward networks in {type(model).__name__}, at least one in a list, "
                         f"not {ffns!r}")
    if not (isinstance(experts, int) and isinstance(k, int) and 1 <= k <= experts):
        raise AdaptError(f"k is between 1 and the number of experts, whole numbers both, not {k} of {experts}")
    cut(model, ffns)                                                           # names what is not there to be replaced
    inside = dict(model.named_modules())
    return {name: _network(name, inside[name]) for name in ffns}


def _network(name, module) -> Network:
    mlp = getattr(sys.modules.get("timm.layers.mlp"), "Mlp", None)             # no timm, no Mlp of timm
    if mlp is not None and type(module) is mlp:
        parts = [module.fc1, module.act, module.drop1, module.norm, module.fc2, module.drop2]
    elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        parts = list(module)                                                   # torchvision's MLPBlock is one
    else:
        parts = [module]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    core = [i for i, part in enumerate(parts) if not isinstance(part, nn.Dropout)]
    if len(core) == 3 and core[:2] == [0, 1]:
        (first, act), second = parts[:2], parts[core[2]]
        if isinstance(first, nn.Linear) and isinstance(second, nn.Linear) and _elementwise(act) \
                and first.out_features == second.in_features:
            return Network(first, act, tuple(parts[2:core[2]]), second, tuple(parts[core[2] + 1:]))
    raise AdaptError(f"{name!r} is a {type(module).__name__} of {', '.join(type(p).__name__ for p in parts)}; "
                     "experts are made from a timm Mlp, a torchvision MLPBlock or an nn.Sequential of Linear, "
                     "activation (entry by entry, without parameters), [Dropout,] Linear[, Dropout]")


@torch.no_grad()
def _elementwise(act) -> bool:
    """Is it a function of each entry alone, so that neurons can be taken apart?"""
    if any(True for _ in act.parameters()):
        return False
    x = torch.tensor([-2.0, -0.5, 0.25, 3.0], dtype=torch.float64)
    try:
        return torch.allclose(act(x.clone()), torch.cat([act(x[i:i + 1].clone()) for i in range(len(x))]))
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False


def _top(scores: Tensor, k: int) -> Tensor:
    return torch.zeros_like(scores).scatter_(-1, scores.topk(k, -1).indices, 1.0)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A layer of its own with these weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer
