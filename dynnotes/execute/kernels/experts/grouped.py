"""The backend of torch operators: slots sorted by expert, one product per expert, summed token by token.

On a CPU each product runs the fastest way that this machine has, found by timing (`_fastest`), with weights in that
way's own order, kept until they change. In training they change at every step, so there nothing is kept. On a GPU all
experts go into one grouped product, which needs no count on the host.
"""
from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..copies import kept
from .activations import activate, derive
from .pages import fresh
from .reference import wide

PIECE = 256                                                          # rows: what is between the products stays cached
GROUP = 64                                                           # rows below which experts share elementwise work
SIZES = (4, 16, 64, 256)                                             # rows for which ways are timed: the next larger


def takes(x: Tensor) -> bool:
    return x.is_floating_point()


def forward(x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor, b1: Tensor | None,
            w2: Tensor, b2: Tensor | None, activation: str, keep: bool) -> tuple[Tensor, Tensor, int]:
    """As in operator.py, on any device."""
    none = x.new_empty(0, w1.shape[1])
    if not len(order):
        return x.new_zeros(len(x), w2.shape[1]), none, 0
    rows = x.index_select(0, order // k)                             # [R, D]
    parts = _parts(offsets, len(order), w1, w2, PIECE)
    first, second = _Linear(w1, b1, not keep, None if keep else activation), _Linear(w2, b2, not keep)
    pres, outs = [], []
    for part in parts:
        h = part.product(rows[part.own], first)                      # [r, H]; with `keep` [r, H1]
        if keep:
            pres.append(h)
            h = activate(h, activation)
        outs.append(part.product(h, second))
    y = _summed(_joined(outs), order, k, weight, len(x))
    return y, _joined(pres) if keep else none, len(order) * (w1[0].numel() + w2[0].numel())


def backward(g: Tensor, x: Tensor, order: Tensor, offsets: Tensor, k: int, weight: Tensor | None, w1: Tensor,
             b1: Tensor | None, w2: Tensor, b2: Tensor | None, activation: str, pre: Tensor,
             needs: list[bool]) -> tuple[Tensor | None, ...]:
    """As in operator.py, on any device. Each expert's gradients are written where they stay."""
    to_x, to_weight, to_w1, to_b1, to_w2, to_b2 = needs
    through = to_x or to_w1 or to_b1                                 # the activation
    if not len(order):
        return tuple(torch.zeros_like(t) if need else None for t, need in zip((x, weight, w1, b1, w2, b2), needs))
    tokens = order // k
    parts = _parts(offsets, len(order), w1, w2)
    gy, rows = g.index_select(0, tokens), x.index_select(0, tokens) if to_w1 else None              # [R, D2], [R, D]
    scale = None if weight is None else weight.reshape(-1).index_select(0, order).unsqueeze(1)      # [R, 1]
    gw1, gb1, gw2, gb2 = (_unwritten(t, offsets, parts) if need else None
                          for t, need in zip((w1, b1, w2, b2), (to_w1, to_b1, to_w2, to_b2)))
    each = wide(gy).new_empty(len(order)) if to_weight else None     # [R]
    back2, back1, gxs = _Back(w2), _Back(w1), []
    for part in parts:
        before, gout = pre[part.own], gy[part.own]                   # [r, H1], [r, D2]
        gh = part.product(gout, back2) if through or to_weight else None                            # [r, H]
        h = activate(before, activation) if to_weight or to_w2 else None
        if to_weight:
            each[part.own] = torch.sum(h * gh, 1, dtype=each.dtype)
            if b2 is not None:
                each[part.own] += (wide(gout) * part.spread(b2)).sum(1)
        if scale is not None:
            own = scale[part.own]
            gh = gh.mul_(own) if through else None
            h = h * own if to_w2 else None
            gout = gout * own if to_b2 else gout
        if to_w2:
            part.outer(gy[part.own], h, gw2)
        if to_b2:
            part.sums(gout, gb2)
        gbefore = derive(gh, before, activation) if through else None                               # [r, H1]
        if to_w1:
            part.outer(gbefore, rows[part.own], gw1)
        if to_b1:
            part.sums(gbefore, gb1)
        if to_x:
            gxs.append(part.product(gbefore, back1))
    gx = _summed(_joined(gxs), order, k, None, len(x)) if to_x else None
    gweight = None
    if to_weight:
        gweight = weight.new_zeros(weight.shape)
        gweight.view(-1).index_copy_(0, order.long(), each.to(weight.dtype))
    return gx, gweight, gw1, gb1, gw2, gb2


def _summed(out: Tensor, order: Tensor, k: int, weight: Tensor | None, tokens: int) -> Tensor:
    """Rows [R, D2] of slots, each times its weight, summed over their tokens [T, D2] in the order of the slots."""
    slots, places = order.sort()                                     # [R], and at which row each is
    starts = torch.searchsorted(slots, torch.arange(tokens, device=order.device, dtype=torch.int32) * k)
    mix = None if weight is None else weight.reshape(-1).index_select(0, slots)
    return F.embedding_bag(places, out, starts, mode="sum", per_sample_weights=mix)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


# Rows of some experts ------------------------------------------------------------------------------------------------

class _EachExpert:
    """Neighbouring rows in `order`, worked through expert by expert: (expert, first row, last row + 1), none empty."""

    def __init__(self, segments: list[tuple[int, int, int]]):
        begin = segments[0][1]
        self.own = slice(begin, segments[-1][2])
        self.segments = [(e, slice(start - begin, stop - begin)) for e, start, stop in segments]

    def product(self, rows: Tensor, one: Callable[[Tensor, int], Tensor]) -> Tensor:
        """`one(rows, e)` of each expert's rows."""
        return _joined([one(rows[own], e) for e, own in self.segments])

    def outer(self, g: Tensor, rows: Tensor, out: Tensor) -> None:
        """out[e] = g^T rows."""
        for e, own in self.segments:
            WAYS["outer"][_way("outer", own.stop - own.start, out)](g[own], rows[own], out[e])

    def sums(self, g: Tensor, out: Tensor) -> None:
        for e, own in self.segments:
            torch.sum(g[own], 0, out=out[e])

    def spread(self, bias: Tensor) -> Tensor:
        """Each row's expert's [r, O] of [E, O]."""
        return _joined([bias[e].expand(own.stop - own.start, -1) for e, own in self.segments])


def _parts(offsets: Tensor, count: int, w1: Tensor, w2: Tensor, most: int = 0) -> list:
    """All rows in parts: an expert's rows, at most so many; neighbouring experts with few rows make one part, lest what
    is done to every row be done in crumbs."""
    if _has_grouped(w1, w2):
        return [_AtOnce(offsets, count)]
    bounds, parts, rows = offsets.tolist(), [], GROUP
    for e, (start, stop) in enumerate(pairwise(bounds)):
        step = most or max(1, stop - start)
        for at in range(start, stop, step):
            if rows >= GROUP:
                parts.append([])
                rows = 0
            parts[-1].append((e, at, min(at + step, stop)))
            rows += parts[-1][-1][2] - at
    return [_EachExpert(part) for part in parts]


def _unwritten(w: Tensor, offsets: Tensor, parts: list) -> Tensor:
    """Like `w`, to be written by each part; zero already for experts that no row has."""
    out = fresh(w)
    if not isinstance(parts[0], _AtOnce):
        for e in (offsets[1:] == offsets[:-1]).nonzero().flatten().tolist():
            out[e].zero_()
    return out


class _AtOnce:
    """All rows in one grouped product of torch, which needs no count on the host."""

    def __init__(self, offsets: Tensor, count: int):
        self.own, self.offsets, self.ends, self.count = slice(0, count), offsets, offsets[1:].int(), count

    def product(self, rows: Tensor, one: Callable) -> Tensor:
        """What `one` says of itself, done to all rows."""
        out = F.grouped_mm(rows, one.matrices, offs=self.ends)
        out = out if one.b is None else out.add_(self.spread(one.b))
        return activate(out, one.then) if one.then else out

    def outer(self, g: Tensor, rows: Tensor, out: Tensor) -> None:
        out.copy_(F.grouped_mm(g.t(), rows, offs=self.ends))
        out[self.offsets[1:] == self.offsets[:-1]] = 0

    def sums(self, g: Tensor, out: Tensor) -> None:
        out.copy_(torch.segment_reduce(wide(g), "sum", offsets=self.offsets, axis=0))

    def spread(self, bias: Tensor) -> Tensor:
        return bias.repeat_interleave(self.offsets.diff(), 0, output_size=self.count)


# Products ------------------------------------------------------------------------------------------------------------

def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none", how: str = "") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, then, [], how)


FUSED = {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "silu": ("swish", "")}   # its relu makes NaN a zero


def _reordered(weight: Tensor) -> Tensor:
    """[O, K] in oneDNN's own order, so that its products need not make it each time."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


# kind of product: how torch does it, how oneDNN does it. rows [r, K], weight [O, K], g [r, O]
WAYS: dict[str, tuple[Callable, Callable]] = {
    "kept": (F.linear, _onednn),                                     # oneDNN with its own order of weights
    "linear": (F.linear, _onednn),
    "back": (torch.mm, lambda g, weight: _onednn(g, weight.t())),
    "outer": (lambda g, rows, out: torch.mm(g.t(), rows, out=out),
              lambda g, rows, out: out.copy_(_onednn(g.t(), rows.t()))),
}


class _Linear:
    """(rows [r, K], e) -> then(rows w[e]^T + b[e]) [r, O]. steady: weights will be seen again, so are kept."""

    def __init__(self, w: Tensor, b: Tensor | None, steady: bool, then: str | None = None):
        self.w, self.b, self.then, self.matrices = w, b, then, w.transpose(1, 2)
        self.kind = "kept" if steady and w.is_contiguous() else "linear"
        self.weights, self.biases = w.unbind(0), [None] * len(w) if b is None else b.unbind(0)

    def __call__(self, rows: Tensor, e: int) -> Tensor:
        way = _way(self.kind, len(rows), self.w)
        weight = (self.own if way and self.kind == "kept" else self.weights)[e]
        if way and self.then in FUSED:
            return _onednn(rows, weight, self.biases[e], *FUSED[self.then])
        out = WAYS[self.kind][way](rows, weight, self.biases[e])
        return activate(out, self.then) if self.then else out

    @cached_property
    def own(self) -> list[Tensor]:
        return kept(self.w, "experts oneDNN", _all_reordered)


class _Back:
    """(g [r, O], e) -> g w[e] [r, K]."""
    b = then = None

    def __init__(self, w: Tensor):
        self.matrices, self.weights = w, w.unbind(0)

    def __call__(self, g: Tensor, e: int) -> Tensor:
        return WAYS["back"][_way("back", len(g), self.matrices)](g, self.weights[e])


def _all_reordered(w: Tensor) -> list[Tensor]:
    return [_reordered(each) for each in w]


def _has_grouped(w1: Tensor, w2: Tensor) -> bool:
    """Whether torch multiplies these by groups faster than one by one: half precision on a GPU, rows of 16 bytes."""
    return (w1.is_cuda and w1.dtype in (torch.bfloat16, torch.float16) and hasattr(F, "grouped_mm")
            and all(w.is_contiguous() and w.shape[1] % 8 == 0 == w.shape[2] % 8 for w in (w1, w2)))


def _way(kind: str, rows: int, like: Tensor) -> int:
    """Which of WAYS[kind] is the faster one for so many rows and weights [..., O, K] like these."""
    if like.device.type != "cpu" or like.dtype is torch.float64:     # which oneDNN does not have
        return 0
    size = next((size for size in SIZES if rows <= size), SIZES[-1])
    return _fastest(kind, size, *like.shape[-2:], like.dtype, torch.get_num_threads())


@lru_cache(None)
def _fastest(kind: str, rows: int, outputs: int, depth: int, dtype: torch.dtype, threads: int) -> int:
    """Timed once, over several weights, so that they come from as far as they do in use."""
    def some(*shape):                                                # not zeros, whose memory would be one page
        return torch.full(shape, 0.5, dtype=dtype)

    best = [float("inf")] * 2
    with torch.inference_mode(False), torch.no_grad():
        x, g, weights = some(rows, depth), some(rows, outputs), some(8, outputs, depth)
        try:
            own = [weights, _all_reordered(weights) if kind == "kept" else weights]
            args = {"back": lambda w: (g, w), "outer": lambda w: (g, x, w)}.get(kind, lambda w: (x, w, None))
            for turn in range(4):
                for way, call in enumerate(WAYS[kind]):
                    start = time.perf_counter()
                    for w in own[way]:
                        call(*args(w))
                    if turn:                                         # the first only warms up
                        best[way] = min(best[way], time.perf_counter() - start)
        except (RuntimeError, AttributeError):                       # a torch or a dtype without oneDNN
            return 0
    return best.index(min(best))
