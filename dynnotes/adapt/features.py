"""What passes through a model as it comes: the shapes of its modules' inputs and outputs, and features pooled to one
vector per input, whatever stands in them: pixels or tokens."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .weave import AdaptError


class Passing(NamedTuple):
    """What one module takes and gives, without the batch axis; None where that is not one tensor.

    taken: shape of its first argument. given: of its value. calls: how often it ran. overwrites: it changed its
    argument in place.
    """
    taken: tuple[int, ...] | None
    given: tuple[int, ...] | None
    calls: int
    overwrites: bool


def passing(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Passing]:
    """Of each module that runs when the model is called with tensors like `inputs`, by name ("" is the model itself).

    A copy of the model runs once, without weights (the meta device): nothing is computed, the model is not touched.
    Raises AdaptError where the model does not take such inputs.
    """
    if not isinstance(inputs, (tuple, list)) or not all(isinstance(x, Tensor) and x.dim() for x in inputs):
        raise AdaptError("inputs is a tuple of batch-first tensors, as the model is called with: inputs=(x,)")
    weights = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    buffers = {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    found: dict[str, Passing] = {}
    versions: dict[str, int] = {}
    try:
        ghost = copy.deepcopy(model, weights | buffers).eval()       # a copy of everything but the weights
        for name, module in ghost.named_modules():
            def before(_, args, name=name):
                if args and isinstance(args[0], Tensor):
                    versions[name] = args[0]._version

            def after(_, args, value, name=name):
                first = args[0] if args and isinstance(args[0], Tensor) else None
                calls = found[name].calls + 1 if name in found else 1
                found[name] = Passing(*(tuple(t.shape[1:]) if isinstance(t, Tensor) and t.dim() else None
                                        for t in (first, value)), calls,
                                      first is not None and first._version != versions[name])
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
        with torch.no_grad():
            ghost(*(torch.empty(2, *x.shape[1:], dtype=x.dtype, device="meta") for x in inputs))
    except Exception as fault:                                       # from the model's own Python may come anything
        shapes = ", ".join(f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in inputs)
        raise AdaptError(f"{type(model).__name__} does not run on inputs like {shapes} ({fault}); give a tuple of "
                         "tensors as the model is called with, of its dtype") from fault
    return found


class Pooled(nn.Module):
    """Features of one `size` [C], [N, C], [C, H, W] or [H, W, C], averaged over all places: [B, *size] -> [B, C].

    Two axes are tokens, channels last. Of three the first is the channels, unless the first two are equal and the
    third is not: a square map with its channels last, as in Swin.
    """
    def __init__(self, size: Sequence[int]):
        super().__init__()
        self.last = len(size) < 3 or (len(size) == 3 and size[0] == size[1] != size[2])
        self.channels = size[-1 if self.last else 0]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return x                                                 # [B, C]
        return x.flatten(1, -2).mean(1) if self.last else x.flatten(2).mean(2)


def alike(module: nn.Module, model: nn.Module, size: Sequence[int]) -> tuple[nn.Module, Tensor]:
    """`module` where the model's weights are and of their dtype, and features of that `size` for it, without values."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return (module.to(device=like.device, dtype=like.dtype),
            torch.empty(1, *size, device="meta", dtype=like.dtype))
