"""`dynnotes::masked_conv` and its two gradients as operators of torch: shapes, autograd, and MACs from the shapes.

The operators take the compact list of pixels that are on, so what they cost can be read from their inputs by any
counter: len(rows) times the size of the weight. What a backend really issued is their second result.
"""
from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from . import dense, gathered, native, reference, tiles
from .geometry import Geometry

BACKENDS: dict[str, ModuleType] = {"reference": reference, "torch": gathered, "cpu": native, "triton": tiles,
                                   "dense": dense}

_LIBRARY = torch.library.Library("dynnotes", "FRAGMENT")
_WHERE = "int[] size, int[] kernel, int[] stride, int[] padding, int[] dilation, int groups, str backend"
_LIBRARY.define(f"masked_conv(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, Tensor rows, Tensor? inverse, "
                f"int relu, bool packed, {_WHERE}) -> (Tensor, Tensor)")
_LIBRARY.define(f"masked_conv_grad_input(Tensor g, Tensor weight, Tensor rows, {_WHERE}) -> Tensor")
_LIBRARY.define(f"masked_conv_grad_weight(Tensor g, Tensor x, Tensor rows, {_WHERE}) -> Tensor")


def call(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, rows: Tensor,
         inverse: Tensor | None, relu: int, packed: bool, backend: str, into: Tensor | None = None) -> Tensor:
    """The convolution's value, in `into` where that is given: its other pixels stay.

    Through torch's dispatcher where someone listens: a gradient, a counter, a compiler.
    """
    if overheard(x, weight, bias, residual):
        y = torch.ops.dynnotes.masked_conv(x, weight, bias, residual, rows, inverse, relu, packed, *_flat(geometry),
                                           backend)[0]
    elif backend == "cpu" and into is not None and into.is_contiguous(memory_format=torch.channels_last):
        native.forward(geometry, x, weight, bias, residual, rows, inverse, relu, packed, into)
        return into
    else:
        y = BACKENDS[backend].forward(geometry, x, weight, bias, residual, rows, inverse, relu, packed)[0]
    if into is None:
        return y
    n, i, j = torch.unravel_index(rows.long(), (geometry.batch, *geometry.out))
    into[n, :, i, j] = y[n, :, i, j]
    return into


def overheard(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> bool:
    """Whether someone has to see the operator: a gradient, a counter, a compiler, a subclass of tensors."""
    learns = torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad))
    return (learns or torch._C._len_torch_dispatch_stack() > 0 or torch.compiler.is_compiling()
            or type(x) is not Tensor)


def _flat(geometry: Geometry) -> tuple:
    return [geometry.batch, *geometry.size], *map(list, geometry[2:6]), geometry.groups


def _geometry(size, kernel, stride, padding, dilation, groups) -> Geometry:
    batch, *size = size
    return Geometry(batch, tuple(size), tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups)


def _check(geometry: Geometry, rows: Tensor, inverse: Tensor | None = None) -> None:
    """Kernels trust these lists. Raises ValueError where they would lead outside of a map."""
    if rows.dtype is not torch.int32 or not rows.is_contiguous() or rows.dim() != 1:
        raise ValueError("dynnotes::masked_conv: rows is a contiguous list of int32, as `active` makes it")
    if len(rows) and (rows[0] < 0 or rows[-1] >= geometry.pixels or not (rows[1:] > rows[:-1]).all()):
        raise ValueError(f"dynnotes::masked_conv: rows ascend from 0 to {geometry.pixels - 1}, each pixel at most once")
    if inverse is not None and (inverse.dtype is not torch.int32 or not inverse.is_contiguous() or
                                inverse.numel() != geometry.batch * geometry.size[0] * geometry.size[1]):
        raise ValueError("dynnotes::masked_conv: inverse has the rank of each input pixel, int32, as `active` makes it")


def _forward(x, weight, bias, residual, rows, inverse, relu, packed, *where):
    *where, backend = where
    _check(_geometry(*where), rows, inverse)
    if inverse is not None and len(inverse) and inverse.max() >= len(x):
        raise ValueError(f"dynnotes::masked_conv: a rank in inverse is beyond the {len(x)} packed rows")
    y, issued = BACKENDS[backend].forward(_geometry(*where), x, weight, bias, residual, rows, inverse, relu, packed)
    return y, torch.tensor(issued, dtype=torch.int64)


def _grad_input(g, weight, rows, *where):
    *where, backend = where
    _check(_geometry(*where), rows)
    return BACKENDS[backend].grad_input(_geometry(*where), g, weight, rows)


def _grad_weight(g, x, rows, *where):
    *where, backend = where
    _check(_geometry(*where), rows)
    return BACKENDS[backend].grad_weight(_geometry(*where), g, x, rows)


for _name, _function in (("masked_conv", _forward), ("masked_conv_grad_input", _grad_input),
                         ("masked_conv_grad_weight", _grad_weight)):
    for _device in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _function, _device)


@torch.library.register_fake("dynnotes::masked_conv", lib=_LIBRARY)
def _(x, weight, bias, residual, rows, inverse, relu, packed, *where):
    geometry = _geometry(*where[:-1])
    if packed:
        y = x.new_empty(rows.shape[0], weight.shape[0])
    else:
        y = x.new_empty(geometry.batch, *geometry.out, weight.shape[0]).movedim(3, 1)
    return y, torch.empty((), dtype=torch.int64)


@torch.library.register_fake("dynnotes::masked_conv_grad_input", lib=_LIBRARY)
def _(g, weight, rows, *where):
    geometry = _geometry(*where[:-1])
    return g.new_empty(geometry.batch, *geometry.size, weight.shape[1] * geometry.groups).movedim(3, 1)


@torch.library.register_fake("dynnotes::masked_conv_grad_weight", lib=_LIBRARY)
def _(g, x, rows, *where):
    geometry = _geometry(*where[:-1])
    return g.new_empty(g.shape[1], x.shape[1] // geometry.groups, *geometry.kernel)


def _remember(ctx, inputs, output):
    x, weight, _, _, rows, inverse, relu, packed, *where = inputs
    if inverse is not None or packed:
        raise RuntimeError("masked convolution: packed rows have no gradient; train on maps, or run under no_grad")
    ctx.save_for_backward(x, weight, rows, output[0] if relu else None)
    ctx.relu, ctx.where = relu, where
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, gradient, _):
    (x, weight, rows, y), where = ctx.saved_tensors, ctx.where
    needs_x, needs_weight, needs_bias, needs_residual = ctx.needs_input_grad[:4]
    places = rows.long()

    def at_rows(t):
        return t.movedim(1, 3).reshape(-1, t.shape[1])[places]

    g = at_rows(gradient)                                            # [R, O]
    if y is not None:
        value = at_rows(y)
        g = g * ((value > 0) & (value < 6) if ctx.relu == 6 else value > 0)
    ops = torch.ops.dynnotes
    return (ops.masked_conv_grad_input(g, weight, rows, *where) if needs_x else None,
            ops.masked_conv_grad_weight(g, x, rows, *where) if needs_weight else None,
            g.sum(0) if needs_bias else None,
            reference.spread(_geometry(*where[:-1]), g, rows) if needs_residual else None, *[None] * (4 + len(where)))


torch.library.register_autograd("dynnotes::masked_conv", _backward, setup_context=_remember, lib=_LIBRARY)


@register_flop_formula(torch.ops.dynnotes.masked_conv)
def _(x, weight, bias, residual, rows, *_, **__):
    return 2 * rows[0] * weight[0] * weight[1] * weight[2] * weight[3]


@register_flop_formula(torch.ops.dynnotes.masked_conv_grad_input)
def _(g, weight, rows, *_, **__):
    return 2 * rows[0] * weight[0] * weight[1] * weight[2] * weight[3]


@register_flop_formula(torch.ops.dynnotes.masked_conv_grad_weight)
def _(g, x, rows, *_, out_shape=None, **__):
    return 2 * rows[0] * out_shape[0] * out_shape[1] * out_shape[2] * out_shape[3]
