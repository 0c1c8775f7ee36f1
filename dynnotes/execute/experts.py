"""Feed-forward experts whose weights are stacked, as the kernel takes them."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .kernels.experts import ACTIVATIONS, expert_ffn
from .kernels.experts.activations import activate


class FeedForwardExperts(nn.Module):
    """`experts` networks w2 act(w1 x + b1) + b2 of one shape, for `run_experts`: [T, D] -> [T, E, D2], all of them.

    width: D; hidden: H; outputs: D2 (D unless given); activation: as in `expert_ffn`; with "swiglu" w1 has 2H rows, the
    gate's first. Initial values as those of nn.Linear.
    Raises ValueError for an unknown activation.
    """
    def __init__(self, experts: int, width: int, hidden: int, *, outputs: int | None = None, activation: str = "relu",
                 bias: bool = True):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"experts: no activation {activation!r}; one of {', '.join(ACTIVATIONS)}")
        inner, outputs = hidden * (1 + (activation == "swiglu")), width if outputs is None else outputs
        self.activation = activation
        self.w1 = nn.Parameter(torch.empty(experts, inner, width))
        self.w2 = nn.Parameter(torch.empty(experts, outputs, hidden))
        self.b1 = nn.Parameter(torch.empty(experts, inner)) if bias else None
        self.b2 = nn.Parameter(torch.empty(experts, outputs)) if bias else None
        for t, fan in ((self.w1, width), (self.b1, width), (self.w2, hidden), (self.b2, hidden)):
            if t is not None:
                nn.init.uniform_(t, -1 / math.sqrt(fan), 1 / math.sqrt(fan))

    def __len__(self) -> int:
        return len(self.w1)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():     # indices have no values there
            h = torch.einsum("td,ehd->teh", x, self.w1)
            h = activate(h if self.b1 is None else h + self.b1, self.activation)
            y = torch.einsum("teh,edh->ted", h, self.w2)
            return y if self.b2 is None else y + self.b2
        rows = x.repeat_interleave(len(self), 0)                               # by the kernel, as what is chosen: else
        every = torch.arange(len(self), device=x.device).repeat(len(x))        # a slower form would flatter the saving
        y = expert_ffn(rows, every[:, None], None, self.w1, self.w2, b1=self.b1, b2=self.b2, activation=self.activation)
        return y.unflatten(0, (len(x), len(self)))

    def chosen(self, x: Tensor, on: Tensor, weight: Tensor | None) -> Tensor:
        """The sum over each row's chosen experts of weight times answer, and nothing else computed: [T, D2].

        x: [T, D]; on: [T, E] bool; weight: [T, E], or None for ones. By the kernel, so in training, too.
        """
        token, expert = on.nonzero(as_tuple=True)                          # in the order of the tokens
        count = on.sum(1)
        k = int(count.max()) if len(on) else 0
        if len(token) == len(on) * k:
            index = expert.view(len(on), k)
        else:
            place = torch.arange(len(token), device=x.device) - (count.cumsum(0) - count)[token]
            index = expert.new_full((len(on), k), -1).index_put((token, place), expert)
        mix = None if weight is None else weight.gather(1, index.clamp_min(0)).to(x.dtype)
        return expert_ffn(x, index, mix, self.w1, self.w2, b1=self.b1, b2=self.b2, activation=self.activation)

    def extra_repr(self) -> str:
        experts, inner, width = self.w1.shape
        return f"{experts} experts, {width} -> {inner} -> {self.w2.shape[1]}, {self.activation}"
