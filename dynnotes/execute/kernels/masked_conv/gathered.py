"""The backend of torch operators: patches gathered in chunks, one matrix product each, scattered back.

Masks of whole blocks take the blocks with what surrounds them instead, and convolve these. Depthwise layers run dense:
no gathering form of them is faster.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..copies import kept
from . import reference
from .geometry import Geometry
from .reference import clipped

CHUNK = 2048                                                         # pixels: their patches stay in the cache
PIECES = (2048, 1024, 512, 256, 128, 64, 32)                         # rows of one product: few sizes, see `_pieces`
BLOCKS = (8, 7, 4)                                                   # sides of blocks that are looked for


def forward(geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, rows: Tensor,
            inverse: Tensor | None, relu: int, packed: bool) -> tuple[Tensor, int]:
    """As `native.forward`, on any device and dtype."""
    outputs, groups, count = len(weight), geometry.groups, len(rows)
    if geometry.depthwise(weight):
        return reference.forward(geometry, x, weight, bias, residual, rows, inverse, relu, packed)
    if inverse is None and not packed and (found := _block_side(geometry, rows)):
        return _by_blocks(geometry, x, weight, bias, residual, *found, relu)
    source, places = _source(geometry, x, inverse), rows.long()
    where = _patches(geometry, places, inverse, source)              # [R, taps] rows of `source`
    multiply, issued = product(weight, x) if groups == 1 else None, 0
    y = x.new_zeros(count if packed else geometry.pixels, outputs)
    for start in range(0, count, CHUNK):
        own = slice(start, start + CHUNK)
        some = where[own]
        if multiply:
            pieces = _pieces(len(some))
            patches = _workspace(x, sum(pieces), some.shape[1] * x.shape[1])
            torch.index_select(source, 0, some.flatten(), out=patches[:len(some)].view(-1, x.shape[1]))
            values = [multiply(piece, bias) for piece in patches.split(pieces)]
            values = (torch.cat(values) if len(pieces) > 1 else values[0])[:len(some)]
            issued += sum(pieces)                                    # rows that only fill up are computed and dropped
        else:
            patches = source.index_select(0, some.flatten()).view(*some.shape, groups, -1)   # [r, taps, g, C/g]
            values = torch.bmm(patches.permute(2, 0, 1, 3).flatten(2), _by_group(weight, groups).transpose(1, 2))
            values = values.transpose(0, 1).flatten(1)
            values = values if bias is None else values.add_(bias)
            issued += len(some)
        if residual is not None:
            values = values + (residual[own] if packed else
                               residual.movedim(1, 3).reshape(-1, outputs)[places[own]])
        values = clipped(values, relu)
        if packed:
            y[own] = values
        else:
            y.index_copy_(0, places[own], values)
    return (y if packed else y.view(geometry.batch, *geometry.out, outputs).movedim(3, 1)), issued * weight.numel()


def _by_group(weight: Tensor, groups: int) -> Tensor:
    """[g, O / g, taps * C / g]."""
    return kept(weight, "gathered", lambda w: _in_rows(w, groups), groups)


def _in_rows(weight: Tensor, groups: int) -> Tensor:
    return weight.unflatten(0, (groups, -1)).permute(0, 1, 3, 4, 2).flatten(2).contiguous()


def _pieces(rows: int) -> list[int]:
    """Sizes that are at least `rows` together, each of PIECES.

    A product of a size not seen before is slow (oneDNN builds a primitive for it), so that masks of ever new counts
    would never be fast; of these few sizes all have soon been seen.
    """
    found = []
    for size in PIECES:
        number, rows = divmod(rows, size)
        found += [size] * number
    return found + [PIECES[-1]] * (rows > 0)


_own = threading.local()


def _workspace(like: Tensor, rows: int, width: int) -> Tensor:
    """[rows, width], the same memory in every call of a thread: fresh pages would cost as much as the product."""
    held = _own.__dict__.setdefault((like.device, like.dtype), like.new_empty(0))
    if held.numel() < rows * width:
        with torch.inference_mode(False):                            # it will serve training, too
            held = _own.__dict__[like.device, like.dtype] = like.new_empty(rows * width)
    return held[:rows * width].view(rows, width)


# Masks of whole blocks -----------------------------------------------------------------------------------------------

def _block_side(geometry: Geometry, rows: Tensor) -> tuple[int, Tensor] | None:
    """(side, active blocks [B, H / side, W / side]) where the active pixels are whole blocks of it; else None."""
    high, wide = geometry.out
    if geometry.stride != (1, 1) or geometry.kernel == (1, 1) or geometry.out != geometry.size or not len(rows):
        return None
    sides = [n for n in BLOCKS if high % n == 0 == wide % n and len(rows) % (n * n) == 0]
    if not sides:                                                    # as with most masks of single pixels
        return None
    mask = torch.zeros(geometry.pixels, dtype=torch.bool, device=rows.device).index_fill_(0, rows.long(), True)
    for side in sides:
        on = mask.view(geometry.batch, high // side, side, wide // side, side).any(4).any(2)
        if int(on.sum()) * side * side == len(rows):
            return side, on
    return None


def _by_blocks(geometry, x, weight, bias, residual, side, on, relu) -> tuple[Tensor, int]:
    (ph, pw), (h, w), outputs = geometry.padding, geometry.size, len(weight)
    reach = [side + d * (k - 1) for k, d in zip(geometry.kernel, geometry.dilation, strict=True)]
    padded = F.pad(x.movedim(1, 3), (0, 0, pw, pw, ph, ph))                             # [B, H + 2p, W + 2p, C]
    sn, sh, sw, sc = padded.stride()
    windows = padded.as_strided((len(x), h // side, w // side, *reach, x.shape[1]),
                                (sn, side * sh, side * sw, sh, sw, sc))
    n, i, j = on.nonzero().unbind(1)
    values = F.conv2d(windows[n, i, j].movedim(3, 1), weight, bias, 1, 0, geometry.dilation, geometry.groups)
    values = values.movedim(1, 3)                                                       # [blocks, side, side, O]
    y = x.new_zeros(geometry.batch, h, w, outputs)

    def blocks(t):
        return t.view(geometry.batch, h // side, side, w // side, side, outputs).transpose(2, 3)

    if residual is not None:
        values = values + blocks(residual.movedim(1, 3).contiguous())[n, i, j]
    blocks(y)[n, i, j] = clipped(values, relu)
    return y.movedim(3, 1), len(n) * side * side * weight.numel()


def grad_input(geometry: Geometry, g: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    groups, channels = geometry.groups, weight.shape[1]
    w = _by_group(weight, groups)
    high, wide = _padded(geometry)
    x = g.new_zeros(geometry.batch * high * wide, groups * channels)
    where = _patches(geometry, rows.long(), None, x)
    for start in range(0, len(rows), CHUNK):
        some = where[start:start + CHUNK]
        parts = torch.bmm(g[start:start + CHUNK].unflatten(1, (groups, -1)).transpose(0, 1), w)     # [g, r, taps * C/g]
        parts = parts.unflatten(2, (-1, channels)).permute(1, 2, 0, 3).flatten(2)      # [r, taps, C]
        x.index_add_(0, some.flatten(), parts.flatten(0, 1))
    (ph, pw), (h, w_) = geometry.padding, geometry.size
    x = x.view(geometry.batch, high, wide, x.shape[1])[:, ph:ph + h, pw:pw + w_].movedim(3, 1)
    return x.contiguous(memory_format=torch.channels_last)


def grad_weight(geometry: Geometry, g: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    groups, taps = geometry.groups, geometry.kernel[0] * geometry.kernel[1]
    source = _source(geometry, x, None)
    where = _patches(geometry, rows.long(), None, source)
    total = g.new_zeros(groups, g.shape[1] // groups, taps * x.shape[1] // groups)
    for start in range(0, len(rows), CHUNK):
        some = where[start:start + CHUNK]
        patches = source.index_select(0, some.flatten()).view(*some.shape, groups, -1)
        total.baddbmm_(g[start:start + CHUNK].unflatten(1, (groups, -1)).permute(1, 2, 0),
                       patches.permute(2, 0, 1, 3).flatten(2))
    return total.unflatten(2, (*geometry.kernel, -1)).permute(0, 1, 4, 2, 3).flatten(0, 1).contiguous()


def _padded(geometry: Geometry) -> tuple[int, int]:
    return tuple(n + 2 * p for n, p in zip(geometry.size, geometry.padding, strict=True))


def _source(geometry: Geometry, x: Tensor, inverse: Tensor | None) -> Tensor:
    """Rows of channels to gather from: the padded map, or the packed rows with a row of zeros behind."""
    if inverse is not None:
        return torch.cat([x, x.new_zeros(1, x.shape[1])])
    (ph, pw) = geometry.padding
    return F.pad(x.movedim(1, 3), (0, 0, pw, pw, ph, ph)).reshape(-1, x.shape[1])


def _patches(geometry: Geometry, rows: Tensor, inverse: Tensor | None, source: Tensor) -> Tensor:
    """[R, taps]: the row of the source that each tap of each active pixel reads."""
    if inverse is None:
        begin, step = _table(geometry, rows.device)
        return begin[rows].unsqueeze(1) + step
    (high, wide), (height, width) = geometry.out, geometry.size
    n, i, j = torch.unravel_index(rows, (geometry.batch, high, wide))
    h, w = (t.unsqueeze(1) + u for t, u in zip((i * geometry.stride[0] - geometry.padding[0],
                                                j * geometry.stride[1] - geometry.padding[1]),
                                               _taps(geometry, rows.device), strict=True))
    inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    at = (n.unsqueeze(1) * height + h.clamp(0, height - 1)) * width + w.clamp(0, width - 1)
    return torch.where(inside, inverse.long()[at], -1) % len(source)                    # -1: the row of zeros


def _taps(geometry: Geometry, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns from the first tap to each tap."""
    (kh, kw), (dh, dw) = geometry.kernel, geometry.dilation
    taps = torch.arange(kh * kw, device=device)
    return taps.div(kw, rounding_mode="floor") * dh, taps.remainder(kw) * dw


@lru_cache(32)
@torch.inference_mode(False)
def _table(geometry: Geometry, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of the padded map: the place that the first tap of each output pixel reads, and how far from it each tap is."""
    (high, wide), (hp, wp), (sh, sw) = geometry.out, _padded(geometry), geometry.stride
    n, i, j = (torch.arange(count, device=device) for count in (geometry.batch, high, wide))
    begin = (n.view(-1, 1, 1) * hp + i.view(-1, 1) * sh) * wp + j * sw
    u, v = _taps(geometry, device)
    return begin.flatten(), u * wp + v


# The fastest product -------------------------------------------------------------------------------------------------

def product(weight: Tensor, like: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """(rows [R, taps * C], bias [O]) -> [R, O], with `weight` [O, C, kh, kw], the fastest way of this machine, timed
    once."""
    outputs, depth = len(weight), weight[0].numel()
    if like.device.type == "cpu" and like.dtype is torch.float32 and \
            _timed(outputs, depth, torch.get_num_threads()) == "oneDNN":
        return partial(_onednn, kept(weight, "oneDNN", lambda w: _reordered(_in_rows(w, 1)[0])))
    return partial(_linear, _by_group(weight, 1)[0])


def _linear(weight: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(rows, weight, bias)


def _reordered(weight: Tensor) -> Tensor:
    """[O, K] in oneDNN's own order, so that its products need not make it each time."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def _onednn(weight: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


@lru_cache
def _timed(outputs: int, depth: int, threads: int) -> str:
    import time

    rows, weight = torch.zeros(512, depth), torch.zeros(outputs, depth)
    calls = {"F.linear": partial(_linear, weight, rows, None)}
    seconds = {}
    with torch.no_grad():
        try:
            calls["oneDNN"] = partial(_onednn, _reordered(weight), rows, None)
            calls["oneDNN"]()
        except (RuntimeError, AttributeError):                       # a torch without oneDNN
            return "F.linear"
        for _ in range(4):                                           # the first of each only warms up
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                seconds.setdefault(name, []).append(time.perf_counter() - begin)
    return min(seconds, key=lambda name: min(seconds[name][1:]))
