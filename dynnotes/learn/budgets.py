"""Losses that hold a network to a budget or spread its load."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def target_rate(gates: Sequence[Tensor], target: float | Sequence[float]) -> Tensor:
    """Mean over layers of (share of the batch that ran the layer - target)^2; each gate is [B]."""
    rates = torch.stack([g.mean() for g in gates])
    return (rates - torch.as_tensor(target, dtype=rates.dtype, device=rates.device)).square().mean()


def cv_squared(totals: Tensor) -> Tensor:
    """Squared coefficient of variation of `totals` [E]: variance (over the E values) / mean^2; 0 for one value."""
    if totals.numel() < 2:
        return totals.new_zeros(())
    return totals.var(unbiased=False) / totals.mean().square().clamp_min(torch.finfo(totals.dtype).tiny)


def importance_loss(weight: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' total weights [..., E] (Shazeer et al. 2017, eq. 6, 7)."""
    return cv_squared(weight.flatten(0, -2).sum(0))


def load_loss(load: Tensor) -> Tensor:
    """Squared coefficient of variation of the experts' expected numbers of tokens (Shazeer et al. 2017, eq. 10, 11).

    load: [..., E], how probable it is that the expert gets the token.
    """
    return cv_squared(load.flatten(0, -2).sum(0))


def balance_loss(probs: Tensor, wanted: Tensor) -> Tensor:
    """E * sum over experts of f_e P_e, and of groups the mean: 1 where all experts are equally busy, E at a collapse.

    probs: [..., S, E], the router's probabilities of all experts, not its scores; wanted: [..., S, E], 1 for those
    chosen, before any were dropped. f_e: the share of a group's choices that are e, without gradient; P_e: the mean of
    probs. Fedus et al. 2022, eq. 4 to 6, without the factor alpha; Dai et al. 2024, eq. 12 to 14; with first choices
    alone in `wanted`, E^2 times l_aux of Lepikhin et al. 2021, alg. 1.
    Raises ValueError for scores in place of probabilities.
    """
    if not torch.compiler.is_compiling():
        sums = probs.detach().sum(-1)
        if not torch.allclose(sums, torch.ones_like(sums), atol=1e-2) or (probs.detach() < 0).any():
            raise ValueError("balance_loss takes probabilities, which sum to 1 over the experts; these are scores")
    choices = wanted.detach().mean(-2)
    share = choices / choices.sum(-1, keepdim=True).clamp_min(torch.finfo(choices.dtype).tiny)
    return probs.shape[-1] * (share * probs.mean(-2)).sum(-1).mean()


def z_loss(scores: Tensor) -> Tensor:
    """Mean over tokens of logsumexp(scores)^2: holds the router's scores [..., E] small (Zoph et al. 2022, eq. 5).

    Scores, not probabilities: for these it is a constant's neighbour, and has hardly a gradient.
    """
    return scores.logsumexp(-1).square().mean()


def bounded_share(spent: Sequence[Tensor], full: Sequence[Tensor], target: float, tight: float) -> Tensor:
    """(share of all MACs spent - target)^2, and the mean over blocks of how far each block's share is out of bounds.

    spent, full: the MACs [B] of each block. A block may spend between tight * target and 1 - tight * (1 - target) of
    its own MACs: with `tight` = 1 exactly the target, with 0 anything; its distance from there counts squared
    (the authors' code of Verelst and Tuytelaars 2020, dynconv/loss.py).
    """
    cost, most = torch.stack([s.sum() for s in spent]), torch.stack([f.sum() for f in full])
    share = cost / most
    above, below = (share - (1 - tight * (1 - target))).relu(), (tight * target - share).relu()
    return (cost.sum() / most.sum() - target).square() + (above.square() + below.square()).mean()
