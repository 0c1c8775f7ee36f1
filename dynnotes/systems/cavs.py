r"""A network with another shape for every input is one function of a vertex and a graph, run where inputs are ready.

The dynamic network is split in two: a static vertex function $\mathcal F$, declared once, and a graph $G_b$ per sample,
which is data. $\mathcal F$ speaks to the graph by four words: it gathers the states of a vertex's children $C(v)$,
pulls the vertex's input from outside, scatters its own state to its parents and pushes it outside,

$$s_v = \mathcal F\big(\mathrm{pull}(v), \{s_w : w \in C(v)\}\big), \qquad s_w = 0 \text{ where a child is missing.}$$

The scheduler evaluates it in rounds. In round $t$ it takes all vertices, of all graphs of the batch, that are not
evaluated and whose children all are,

$$V_t = \Big\{ v \in G_1 \cup \dots \cup G_B : v \notin V_{<t}, \; C(v) \subseteq V_{<t} \Big\}, \qquad
V_{<t} = V_1 \cup \dots \cup V_{t-1},$$

in one call; the gradient runs through the rounds in reverse. The paper's text was not at hand while this was written:
the rounds follow `BatchGraphScheduler`, one vertex at a time `SerialGraphScheduler` in the authors' code
(github.com/zhisbug/Cavs, cavs/midend/graph_scheduler.cc), the vertex function its apps/paper/tree-lstm-cavs.cc, a
Child-Sum Tree-LSTM. An earlier version is arXiv 1712.04048, "Cavs: A Vertex-centric Programming Interface for Dynamic
Neural Networks".

Nothing is saved but time. Here `execute("dense")` is a program written per sample, one vertex after another,
`execute("sparse")` the rounds; both compute the same vertices, and no padding. In training it is always rounds.

Claim: training dynamic networks is nearly one order of magnitude faster than in TensorFlow Fold, PyTorch and DyNet,
on a GPU (abstract). Time is measured, no MACs are saved. Read: the abstract. Smallest setting: arithmetic-trees,
where every input has a tree of its own, and a Tree-LSTM; the recipe is this setting in small: what is timed is
inference on a CPU, against one vertex at a time in the same framework.

Left out: everything below the rounds, that is fusing the operators of the vertex function, streaming, laying states
out in memory in the order of rounds so that gathering needs no copy. Different: the authors' Tree-LSTM answers at every
vertex, here a head answers at the last one, the root; there is one embedding per token, leaves and operators alike.
"""
from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..data import arithmetic_trees
from ..execute import Decision, Dynamic, Trace, run
from ..execute.cost import price
from ..nets.tree import ChildSumTreeLSTM
from ..registry import Recipe, Stage, paper


def rounds(present: Tensor, children: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The vertices of each round, as (sample, slot): all whose children are done and that are not done themselves.

    present: [B, N], slots that hold a vertex. children: [B, N, k], slots or -1.
    Raises ValueError when vertices are left and none of them is ready.
    """
    done = torch.cat([~present, torch.ones_like(present[:, :1])], 1)           # -1, no child, is always done
    sample = torch.arange(len(present), device=present.device).view(-1, 1, 1)
    while not done.all():
        ready = ~done[:, :-1] & done[sample, children].all(2)
        if not ready.any():
            raise ValueError("a cycle: the vertices that are left wait for each other")
        yield ready.nonzero(as_tuple=True)
        done[:, :-1] |= ready


@paper("xu2018cavs", waives={"it_exports_with_its_trace": "its loops follow the graph of each sample"})
class Cavs(Dynamic):
    """`embed`: token -> what a vertex pulls; `vertex`: F, with `state` numbers per vertex; `head`: pushed -> answer."""
    def __init__(self, *, embed: nn.Module, vertex: nn.Module, head: nn.Module):
        super().__init__()
        self.embed, self.vertex, self.head = embed, vertex, head

    def forward(self, tokens: Tensor, children: Tensor) -> tuple[Tensor, Trace]:   # [B, N], [B, N, k]
        present = tokens >= 0
        if not present[:, :1].all():
            raise ValueError("a graph without a vertex; nets.tree.check_graphs finds what is wrong with a batch")
        states = self._rounds if self.sparse or self.training else self._one_by_one
        root = states(tokens, children, present)                               # [B, state]
        y, answering = run(self.head, self.vertex.push(root))                  # [B, classes]
        return y, self._bill(tokens, children, present) + answering

    def _rounds(self, tokens, children, present):
        """States of the last vertices [B, state]: one call of F per round."""
        slot = torch.arange(tokens.numel(), device=tokens.device).view_as(tokens)
        states = self._state(tokens.numel() + 1)                               # the last one is of no child: zeros
        below = torch.where(children < 0, tokens.numel(), children + slot[:, :1].unsqueeze(2))
        for b, v in rounds(present, children):
            kids = below[b, v]                                                 # [V, k]
            gathered = states.index_select(0, kids.flatten()).view(*kids.shape, -1)
            states.index_copy_(0, slot[b, v], self.vertex(self.embed(tokens[b, v]), gathered))
        return states[slot[:, 0] + present.sum(1) - 1]

    def _one_by_one(self, tokens, children, present):
        """The same, sample by sample and vertex by vertex."""
        roots = [self._state(0)]
        for words, below, count in zip(tokens, children.tolist(), present.sum(1).tolist(), strict=True):
            none, states = self._state(1)[0], []
            for pulled, kids in zip(self.embed(words[:count].unsqueeze(1)), below, strict=False):
                gathered = torch.stack([states[k] if k >= 0 else none for k in kids]).unsqueeze(0)
                states.append(self.vertex(pulled, gathered)[0])
            roots.append(states[-1].unsqueeze(0))
        return torch.cat(roots)

    def _state(self, rows: int) -> Tensor:
        return next(self.vertex.parameters()).new_zeros(rows, self.vertex.state)

    def _bill(self, tokens, children, present) -> Trace:
        x = self.embed(tokens[:0, 0])
        gathered = x.new_zeros(0, children.shape[2], self.vertex.state)
        each = price(self.embed, tokens[:, 0]).macs + price(self.vertex, x, gathered).macs
        gate = present.to(x.dtype)
        spent = gate.double().sum(1) * each
        full = torch.full_like(spent, float(each * tokens.shape[1]))
        return Trace(spent, full, (Decision("vertices", "step", gate, each),))

    def loss(self, inputs: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        return self.task(self(*inputs)[0], target)

    @staticmethod
    def demo():
        found = arithmetic_trees.load("train", 10, int(torch.randint(10**6, ())))
        return tree_lstm(16), found.inputs, found.target

    @staticmethod
    def timing():
        """32 expressions of 31 vertices each."""
        draw = random.Random(0)
        trees = [arithmetic_trees.grow(16, 0.0, 0.5, draw) for _ in range(32)]
        return tree_lstm(128).eval(), arithmetic_trees.stack(trees)

    @staticmethod
    def recipes() -> tuple[Recipe, ...]:
        def net():
            return tree_lstm(64)
        return (Recipe("arithmetic-trees", net, (Stage(epochs=24, lr=4e-3, optimizer="adam"),)),)


def tree_lstm(width: int) -> Cavs:
    """For the expressions of the task arithmetic-trees."""
    return Cavs(embed=nn.Embedding(len(arithmetic_trees.WORDS), width), vertex=ChildSumTreeLSTM(width, width),
                head=nn.Linear(width, 10))
