"""Multiply-accumulates of convolutions, matrix products and attention; nothing else is billed.

`price(module, *xs)`: what a module costs per sample, found on the meta device, so nothing is computed.
`measured()`: what really ran. Both use one set of formulas: PyTorch's, and the ones it lacks (below).
Elementwise work, gathers and sorts are not billed; seconds are measured apart, never derived from MACs.
A contraction written as multiply-and-sum is elementwise work to any counter: write it as matmul or einsum.
"""
from __future__ import annotations

from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes  # private: see tests/execute/test_cost.py
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

aten = torch.ops.aten


class UncountedOperator(RuntimeError):
    """An operator that does real work has no formula: better no bill than a wrong one."""


# Operators that multiply and that neither PyTorch nor this file has a formula for.
HEAVY = frozenset((
    "_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_cdist_forward",
    "_euclidean_dist", "quantized_lstm", "quantized_gru", "_cudnn_rnn", "miopen_rnn", "_sparse_mm", "_sparse_addmm",
    "hspmm", "sspaddmm", "_sparse_semi_structured_linear", "_sparse_semi_structured_mm",
    "_sparse_semi_structured_addmm", "_cslt_sparse_mm", "_int_mm", "_weight_int8pack_mm", "_weight_int4pack_mm",
    "_dyn_quant_matmul_4bit", "_scaled_grouped_mm", "_fft_r2c", "_fft_c2c", "_fft_c2r", "linalg_inv_ex", "linalg_qr",
    "_linalg_svd", "_linalg_eigh", "linalg_lu_factor_ex", "cholesky", "linalg_cholesky_ex", "conv_tbc",
))


# Our own kernels, whose formulas stand with them in kernels/: which of their results says what they issued.
ISSUED = {"dynnotes.masked_conv": 1, "dynnotes.experts": 2}


def _packets(*names: str) -> list:
    """The operators of that name ("namespace.op") that this PyTorch has."""
    found = []
    for name in names:
        space, op = name.split(".")
        try:
            found.append(getattr(getattr(torch.ops, space), op))
        except AttributeError:
            continue
    return found


def _formula(*names: str):
    """Register MACs (not FLOPs) for operators PyTorch does not count; arguments arrive as shapes."""
    def register(macs):
        if targets := _packets(*names):
            register_flop_formula(targets)(lambda *a, out_shape=None, **k: 2 * macs(*a, out=out_shape, **k))
        return macs
    return register


@_formula("aten._scaled_dot_product_flash_attention_for_cpu", "aten._scaled_dot_product_fused_attention_overrideable")
def _attention(query, key, value, *_, out=None, **__):
    *lead, queries, width = query
    return prod(lead) * queries * key[-2] * (width + value[-1])


@_formula("aten._grouped_mm")
def _grouped_mm(a, b, *_, out=None, **__):
    """[T, K] x [E, K, N] by offsets (every row meets one expert), batched, or [M, T] x [T, N] -> [E, M, N]."""
    if len(a) == 2 and len(b) == 2:
        return a[0] * a[1] * b[1]
    if len(a) == 3 and len(b) == 3:
        return a[0] * a[1] * a[2] * b[2]
    rows, contracted, columns = (a[0], a[1], b[2]) if len(a) == 2 else (a[1], a[2], b[1])
    return rows * contracted * columns


@_formula("aten.mv")
def _mv(a, b, *_, out=None, **__):
    return prod(a)


@_formula("aten.addmv")
def _addmv(_, a, b, *__, out=None, **___):
    return prod(a)


@_formula("aten.dot", "aten.vdot")
def _dot(a, b, *_, out=None, **__):
    return prod(a)


@_formula("aten.addr")
def _addr(_, a, b, *__, out=None, **___):
    return prod(a) * prod(b)


@_formula("aten.addbmm")
def _addbmm(_, a, b, *__, out=None, **___):
    return a[0] * a[1] * a[2] * b[2]


@_formula("mkldnn._linear_pointwise", "aten.mkldnn_linear", "mkl._mkl_linear")
def _linear(x, weight, *_, out=None, **__):
    return prod(x) * out[-1]


@_formula("mkldnn._convolution_pointwise")
def _conv(x, weight, *_, out=None, **__):
    return prod(out) * prod(weight[1:])


@_formula("aten.mkldnn_rnn_layer")
def _lstm_layer(x, w_in, w_hidden, *_, out=None, **__):
    """One direction of one layer: [T, B, I] with weights [4H, I] and [4H, H]."""
    return x[0] * x[1] * (prod(w_in) + prod(w_hidden))


@_formula("aten._trilinear")
def _trilinear(a, b, c, expand_a, expand_b, expand_c, *_, out=None, **__):
    """nn.Bilinear: [B, I] x [O, I, J] x [B, J], each widened at its expanded axes; B * O * I * J."""
    def widened(shape, axes):
        shape = list(shape)
        for axis in sorted(axes):
            shape.insert(axis, 1)
        return shape
    return prod(map(max, widened(a, expand_a), widened(b, expand_b), widened(c, expand_c)))


class _NoTracker:
    """In place of PyTorch's module tracker, which hooks every module to keep sums apart that we do not need, and trips
    over views of parameters under no_grad."""
    parents = ("Global",)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


class _Counter(FlopCounterMode):
    def __init__(self):
        super().__init__(display=False)
        self.mod_tracker = _NoTracker()
        self.issued: int | None = None

    def _count_flops(self, packet, out, args, kwargs):
        if (where := ISSUED.get(str(packet))) is not None and not out[where].is_meta:
            self.issued = (self.issued or 0) + int(out[where])
        if packet not in self.flop_registry and str(packet).rpartition(".")[2] in HEAVY:
            raise UncountedOperator(f"no formula for {packet}: register one in dynnotes/execute/cost.py, "
                                    "or write the product as a matmul")
        return super()._count_flops(packet, out, args, kwargs)


class measured:
    """`with measured() as bill: ...` leaves the MACs that really ran in `bill.macs`.

    `bill.issued`: what kernels of this project issued, counted in their loops, what pads their lanes included; None
    where none ran. It speaks of those kernels alone, `macs` of everything.

    The fused multi-head path of nn.MultiheadAttention is switched off meanwhile: it hides its products from any
    counter. Raises UncountedOperator on a heavy operator without a formula.
    """
    macs: int = 0
    issued: int | None = None

    def __enter__(self):
        self._fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._counter = _Counter()
        self._counter.__enter__()
        return self

    def __exit__(self, *exc):
        self._counter.__exit__(*exc)
        torch.backends.mha.set_fastpath_enabled(self._fast)
        self.macs, self.issued = self._counter.get_total_flops() // 2, self._counter.issued


class Shape(NamedTuple):
    """Shape of one sample (no batch axis) and dtype of one output tensor."""
    size: tuple[int, ...]
    dtype: torch.dtype


class Price(NamedTuple):
    """`macs` per sample and the outputs' `shapes` (a pytree of Shape)."""
    macs: int
    shapes: Any


def zeros(shapes, batch: int, device):
    """Tensors of those `shapes` (a pytree of Shape) for `batch` samples, all zeros."""
    return pytree.tree_map(lambda s: torch.zeros(batch, *s.size, dtype=s.dtype, device=device), shapes,
                           is_leaf=lambda s: isinstance(s, Shape))


_prices: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()
_outlines: WeakKeyDictionary[nn.Module, dict] = WeakKeyDictionary()


def price(module: nn.Module, *xs) -> Price:
    """MACs per sample and output shapes of `module` on inputs like `xs` (batch-first tensors, or pytrees of them).

    Runs once on the meta device in eval mode with a batch of one, then remembers by module, shapes and dtypes
    (of inputs and of parameters). A module whose MACs depend on *values* cannot be priced: split it at the gate.
    """
    key, one = _kind_of(module, xs), _one(xs, "meta")
    prices = _prices.setdefault(module, {})
    if key not in prices:
        state = {n: torch.empty_like(t, device="meta")
                 for n, t in (*module.named_parameters(), *module.named_buffers())}
        with _evaluating(module), _disable_current_modes(), measured() as bill:
            y = functional_call(module, state, one)
        prices[key] = Price(bill.macs, _shapes(y))
    return prices[key]


def outline(module: nn.Module, *xs) -> tuple:
    """(output shapes, Trace of one sample) of a Dynamic on inputs like `xs`, for when no sample reaches it.

    Found once by a run on a sample of zeros that no counter sees, then remembered like a price.
    """
    key = _kind_of(module, xs)
    outlines = _outlines.setdefault(module, {})
    if key not in outlines:
        with _evaluating(module), _disable_current_modes():
            y, trace = module(*_one(xs, None))
        outlines[key] = _shapes(y), trace
    return outlines[key]


def _kind_of(module, xs):
    """What a price depends on: shapes and dtypes of inputs and parameters. Found before every call, so in a hurry."""
    if all(isinstance(x, torch.Tensor) for x in xs):
        leaves, spec = xs, len(xs)
    else:
        leaves, spec = pytree.tree_flatten(xs)
        spec = str(spec)
    inputs = tuple((x.shape[1:], x.dtype) if isinstance(x, torch.Tensor) else x for x in leaves)
    return inputs, spec, tuple(_sizes(module))


def _sizes(module) -> list:
    """Shapes of all parameters: as `parameters()`, without its search for those that are shared."""
    found = [p.shape for p in module._parameters.values() if p is not None]
    for inner in module._modules.values():
        if inner is not None:
            found += _sizes(inner)
    return found


def _one(xs, device):
    """Zeros like one sample of each tensor."""
    return pytree.tree_map(lambda x: torch.zeros(1, *x.shape[1:], dtype=x.dtype, device=device or x.device)
                           if isinstance(x, torch.Tensor) else x, tuple(xs))


def _shapes(y):
    return pytree.tree_map(lambda t: Shape(tuple(t.shape[1:]), t.dtype), y)


@contextmanager
def _evaluating(module):
    """Eval mode without gradients; every submodule gets its own mode back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training
