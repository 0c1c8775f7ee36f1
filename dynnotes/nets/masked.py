"""Residual branches that compute some of their output pixels only."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..decide.masks import reads
from ..execute import Decision, Trace, price
from ..execute.kernels.masked_conv.branch import layers_of, masked_branch


def run_masked(mask: Tensor, branch: nn.Sequential, x: Tensor, *, name: str, sparse: bool,
               weight: Tensor | None = None, residual: Tensor | None = None) -> tuple[Tensor, Trace]:
    """Run `branch` for the output pixels where `mask` [B, 1, H, W] is on; zero elsewhere.

    branch: convolutions, each with batch normalisation and ReLU behind it or not. The last convolution computes the
    mask, each one before it what the next one reads; each is billed on its own mask. The trace has one decision, the
    mask itself with its soft `weight`. With a `residual` [B, C, H, W] the value is relu(residual + branch), everywhere.

    Dense: every pixel is computed, so that batch normalisation learns from all of them, and the mask multiplies the
    last layer's output. Sparse: the branch runs as one kernel (execute/kernels/masked_conv/branch.py).
    Raises RuntimeError for sparse training, ValueError for a sparse mask that is soft, TypeError for other layers.
    """
    if sparse and branch.training:
        raise RuntimeError(f'run_masked {name!r}: batch normalisation learns from every pixel; train with '
                           'execute("dense")')
    y, spent, full = (_sparse if sparse else _dense)(mask, branch, x, residual)
    decision = Decision(name, "pixel", mask, full / mask.shape[2:].numel(), weight, shape=tuple(mask.shape[2:]))
    return y, Trace(spent, torch.full_like(spent, full), (decision,))


def _sparse(mask, branch, x, residual):
    if not torch.equal(mask, mask * mask):
        raise ValueError("run_masked: sparse execution needs a mask of exactly 0 or 1 (found soft values or NaN)")
    adds = residual is not None
    y, steps = masked_branch(x, mask, layers_of(branch), residual=residual, relu=int(adds), everywhere=adds)
    spent = full = 0
    for step in steps:
        macs = step.layer.weight.numel()                                       # of one output pixel
        spent = step.mask.sum((1, 2, 3), dtype=torch.float64).mul_(macs).add_(spent)
        full += step.geometry.pixels // max(len(x), 1) * macs
    return y, spent, full


def _dense(mask, branch, x, residual):
    spent = full = 0
    gates = _gates(mask, branch, x)
    for layer in branch:
        if isinstance(layer, nn.Conv2d):
            gate, macs = gates.pop(0), price(layer, x).macs
            spent, full = spent + gate.double().flatten(1).sum(1) * (macs / gate.shape[2:].numel()), full + macs
        x = layer(x)
    if mask.requires_grad and torch.is_grad_enabled():
        y = mask * x                                                 # the mask learns from pixels where it is off, too
    else:
        y = torch.where(mask != 0, x, torch.zeros((), dtype=x.dtype, device=x.device))
    return (y if residual is None else (residual + y).relu()), spent, full


def _gates(mask: Tensor, branch: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The mask of every convolution of `branch`, first to last."""
    convs, grids = [layer for layer in branch if isinstance(layer, nn.Conv2d)], [tuple(x.shape[2:])]
    for c in convs[:-1]:                                                                    # sizes of what each reads
        grids.append(tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in
                           zip(grids[-1], c.kernel_size, c.stride, c.padding, c.dilation, strict=True)))
    gates = [mask]
    for conv, grid in zip(convs[:0:-1], grids[:0:-1], strict=True):
        gates.insert(0, reads(gates[0], conv, grid))
    return gates
