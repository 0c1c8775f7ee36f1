"""What stands between an expert's two products, and its derivative."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def _swiglu(pre: Tensor) -> Tensor:
    gate, up = pre.chunk(2, -1)
    return F.silu(gate) * up


def _swiglu_backward(g: Tensor, pre: Tensor) -> Tensor:
    gate, up = pre.chunk(2, -1)
    return torch.cat([aten.silu_backward(g * up, gate), g * F.silu(gate)], -1)


# name: (what the second product gets, the gradient of what the activation got from the gradient of that)
ACTIVATIONS = {
    "relu": (F.relu, lambda g, pre: aten.threshold_backward(g, pre, 0)),
    "gelu": (F.gelu, aten.gelu_backward),
    "gelu_tanh": (lambda pre: F.gelu(pre, approximate="tanh"),
                  lambda g, pre: aten.gelu_backward(g, pre, approximate="tanh")),
    "silu": (F.silu, aten.silu_backward),
    "swiglu": (_swiglu, _swiglu_backward),                           # the first half is the gate
    "none": (lambda pre: pre, lambda g, pre: g),
}


def activate(pre: Tensor, activation: str) -> Tensor:
    """[..., H1] to [..., H]."""
    return ACTIVATIONS[activation][0](pre)


def derive(g: Tensor, pre: Tensor, activation: str) -> Tensor:
    """The gradient of `pre` [..., H1] from that of `activate(pre, activation)` [..., H]."""
    return ACTIVATIONS[activation][1](g, pre)


def hidden(inner: int, activation: str) -> int:
    """H of H1."""
    return inner // 2 if activation == "swiglu" else inner
