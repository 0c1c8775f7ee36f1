"""A residual branch on one mask: several convolutions, each only where the next one reads, packed from first to last.

The last convolution runs where the mask is on, each one before it on what the next one reads (the dilated mask), so
the result is exact. Between them stand rows of active pixels, not maps: one gather, one scatter for the whole branch.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..copies import sample
from . import active, best, library, native, reference
from .geometry import Geometry, geometry_of
from .operator import call, overheard


class Layer(NamedTuple):
    """A convolution with what follows it at every pixel alike. relu: 0 none, 1 relu, 6 relu6."""
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    relu: int


class Step(NamedTuple):
    """Where one layer of a branch runs: its output pixels as mask and as rows, and the rank of each input pixel."""
    layer: Layer
    geometry: Geometry
    mask: Tensor
    rows: Tensor
    inverse: Tensor | None


def plan(x: Tensor, mask: Tensor, layers: Sequence[Layer]) -> list[Step]:
    """The steps of a branch that is wanted where `mask` [B, 1, H', W'] is on. Raises ValueError where sizes differ."""
    shape, geometries = x.shape, []
    for layer in layers:
        geometries.append(geometry_of(shape, layer.weight.shape, *layer[2:6]))
        shape = len(x), len(layer.weight), *geometries[-1].out
    if mask.shape != (len(x), 1, *shape[2:]):
        raise ValueError(f"masked branch: the mask is {list(mask.shape)}, the output needs {[len(x), 1, *shape[2:]]}")
    mask = mask if mask.dtype is torch.bool else mask != 0
    steps: list[Step] = []
    rows, ranks = active(mask, inverse=True)
    for i in reversed(range(len(layers))):
        geometry, own = geometries[i], rows
        if i == 0:
            before = ranks = None
        elif geometry.pointwise:                                     # reads what it writes: the same rows
            before = mask
        else:
            before = read_by(geometry, mask)
            rows, ranks = active(before, inverse=True)
        steps.append(Step(layers[i], geometry, mask, own, ranks))
        mask = before
    return steps[::-1]


def read_by(geometry: Geometry, mask: Tensor) -> Tensor:
    """[B, 1, H, W] bool: which input pixels the output pixels where `mask` (bool) is on read."""
    if mask.is_cpu and library.available():
        return native.reads(geometry, mask)
    kernel, shape = torch.ones(1, 1, *geometry.kernel, device=mask.device), (geometry.batch, 1, *geometry.size)
    return torch.nn.grad.conv2d_input(shape, kernel, mask.float(), geometry.stride, geometry.padding,
                                      geometry.dilation) > 0


@torch.no_grad()
def masked_branch(x: Tensor, mask: Tensor, layers: Sequence[Layer], *, residual: Tensor | None = None, relu: int = 0,
                  into: Tensor | None = None, everywhere: bool = False,
                  backend: str | None = None) -> tuple[Tensor, list[Step]]:
    """(the branch's value, its steps), without gradients.

    Where `mask` is on: relu(branch(x) + residual); `relu` comes after the sum, in place of the last layer's.
    Elsewhere zero; with `everywhere` relu(residual), as if the branch were zero there; or what `into` [B, O, H', W']
    holds, which is then written to and returned.
    Raises ValueError for a mask that does not fit, or `everywhere` without a residual.
    """
    if everywhere and (residual is None or into is not None):
        raise ValueError("masked branch: everywhere takes a residual, and no map to write into")
    backend, steps, value = backend or best(x), plan(x, mask, layers), x
    ready = into is None or into.is_contiguous(memory_format=torch.channels_last)
    if backend == "cpu" and ready and not overheard(x, layers[0].weight, None, None):
        return native.branch(steps, x, residual, relu, into, everywhere), steps
    if everywhere:
        into = reference.clipped(residual.clone(memory_format=torch.channels_last), relu)
    for i, (layer, geometry, _, rows, inverse) in enumerate(steps):
        last = i == len(steps) - 1
        value = call(geometry, value, layer.weight, layer.bias, residual if last else None, rows, inverse,
                     relu or layer.relu if last else layer.relu, not last, backend, into if last else None)
    return value, steps


def layers_of(branch: nn.Sequential) -> list[Layer]:
    """The layers of a branch in eval mode: convolutions with batch normalisation folded in and ReLUs fused.

    Kept until a weight changes, as packed weights are (native.py). Raises TypeError for any other module, naming it.
    """
    tensors = [t for module in branch for t in (*module._parameters.values(), *module._buffers.values())
               if t is not None]
    state = (*(module.training for module in branch),
             *((None if t.is_inference() else t._version, t.data_ptr()) for t in tensors),
             *(sample(t) for t in tensors if t.dim() == 4))
    held = _layers.get(branch)
    if held is None or held[0] != state or None in state:
        _layers[branch] = held = state, _read(branch)
    return held[1]


_layers: WeakKeyDictionary[nn.Module, tuple] = WeakKeyDictionary()


def _read(branch: nn.Sequential) -> list[Layer]:
    found: list[Layer] = []
    for module in branch:
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            found.append(Layer(module.weight, module.bias, module.stride, module.padding, module.dilation,
                               module.groups, 0))
        elif isinstance(module, nn.BatchNorm2d) and found and not module.training and not found[-1].relu:
            found[-1] = _folded(found[-1], module)
        elif isinstance(module, (nn.ReLU, nn.ReLU6)) and found:
            found[-1] = found[-1]._replace(relu=6 if isinstance(module, nn.ReLU6) else 1)
        elif not isinstance(module, nn.Identity):
            raise TypeError("a masked branch holds convolutions, batch normalisation in eval mode and ReLUs, "
                            f"not {module}")
    return found


def _folded(layer: Layer, norm: nn.BatchNorm2d) -> Layer:
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean * scale if layer.bias is None else (layer.bias - norm.running_mean) * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    return layer._replace(weight=(layer.weight * scale.view(-1, 1, 1, 1)).detach(), bias=bias.detach())
