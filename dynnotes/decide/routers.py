"""Who goes to which expert.

A router is called on tokens [..., S, D] and gives scores [..., S, E], which cost MACs; its `choose` turns scores into a
`Routing`, which costs none. Where experts have room for so many tokens only, room is shared out within the last group
of S tokens: one sequence, or a whole batch that was flattened before. Equal scores are won by the lower expert.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Routing(NamedTuple):
    """What a router decided for tokens [..., S].

    gate [..., S, E]: 1 where the expert runs on the token. weight [..., S, E]: what its answer counts, 0 elsewhere.
    wanted [..., S, E]: the gate before any token was dropped for want of room. probs [..., S, E]: the router's
    probabilities of all experts, for losses; None where it has none. load [..., S, E]: probability that a fresh draw of
    the noise would choose the expert; None without noise.
    """
    gate: Tensor
    weight: Tensor
    wanted: Tensor
    probs: Tensor | None = None
    load: Tensor | None = None

    @property
    def dropped(self) -> Tensor:
        """Choices of each token that no expert had room for: [..., S]."""
        return (self.wanted - self.gate).sum(-1)


# What routers share --------------------------------------------------------------------------------------------------

def ranked(scores: Tensor, k: int) -> Tensor:
    """One-hot of each token's best, second, ... k-th expert: [..., S, E] -> [..., k, S, E].

    Raises ValueError unless 1 <= k <= E, and for scores of NaN, which have no order.
    """
    experts = scores.shape[-1]
    if not 1 <= k <= experts:
        raise ValueError(f"k is between 1 and {experts} experts, not {k}")
    return F.one_hot(_by_score(scores)[..., :k], experts).to(scores.dtype).movedim(-2, -3)


def _by_score(scores: Tensor) -> Tensor:
    """Indices along the last axis, the highest score first, of equal ones the first. Raises ValueError for NaN."""
    if not torch.compiler.is_compiling() and not torch.compiler.is_exporting() and scores.isnan().any():
        raise ValueError("the router's scores have NaN: look at its input and its weights")
    return scores.detach().sort(dim=-1, descending=True, stable=True).indices


def with_room(wanted: Tensor, capacity: int, priority: Tensor | None = None) -> Tensor:
    """Of what each token wants first, second, ... [..., k, S, E], that for which experts have room, as [..., k, S, E].

    An expert takes the first `capacity` that want it: all first choices before any second, each in the order of the
    tokens, or of `priority` [..., S], highest first. 0 leaves nothing.
    Raises ValueError for a negative capacity.
    """
    if capacity < 0:
        raise ValueError(f"an expert's capacity is 0 or more tokens, not {capacity}")
    if priority is None:
        return wanted * (wanted.flatten(-3, -2).cumsum(-2).view_as(wanted) <= capacity)
    order = priority.detach().sort(dim=-1, descending=True, stable=True).indices[..., None, :, None].expand_as(wanted)
    kept = with_room(wanted.gather(-2, order), capacity)
    return torch.zeros_like(kept).scatter(-2, order, kept)


class Linear(nn.Module):
    """Scores x W of `experts` experts, without bias: [..., D] -> [..., E]."""
    def __init__(self, width: int, experts: int):
        super().__init__()
        self.score = nn.Linear(width, experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)


# Routers -------------------------------------------------------------------------------------------------------------

class Soft(Linear):
    """Every expert, by its probability (Jacobs et al. 1991, p. 81)."""
    def choose(self, scores: Tensor) -> Routing:
        probs, all_ = scores.softmax(-1), torch.ones_like(scores)
        return Routing(all_, probs, all_, probs)


class NoisyTopK(nn.Module):
    """Scores of `experts` experts for tokens [..., D], with trainable noise while training (Shazeer et al. 2017).

    forward: [..., D] -> clean scores x W_g [..., E]. Both matrices start at zero, so that load starts even (app. A).
    """
    def __init__(self, width: int, experts: int):
        super().__init__()
        self.score = nn.Linear(width, experts, bias=False)                 # W_g
        self.noise = nn.Linear(width, experts, bias=False)                 # W_noise
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)

    def choose(self, x: Tensor, clean: Tensor, k: int) -> Routing:
        """The top `k` experts by clean scores, or by noisy ones while training; weights sum to 1 over these."""
        scores, load = clean, None
        if self.training:
            std = F.softplus(self.noise(x))
            scores = clean + torch.randn_like(clean) * std                 # eq. (4)
            load = _load(clean, scores, std, k)
        gate = ranked(scores, k).sum(-3)
        weight = scores.masked_fill(gate == 0, -torch.inf).softmax(-1)     # eq. (3), (5)
        return Routing(gate, weight, gate, clean.softmax(-1), load)


def _load(clean: Tensor, noisy: Tensor, std: Tensor, k: int) -> Tensor:
    """P(x, i) of eq. (9): would expert i be among the top k under a new draw of its own noise?"""
    experts = clean.shape[-1]
    if k >= experts:
        return torch.ones_like(clean)
    best = noisy.topk(k + 1, dim=-1).values
    kth, next_ = best[..., k - 1:k], best[..., k:k + 1]
    threshold = torch.where(noisy >= kth, next_, kth)                      # kth greatest, element i itself excluded
    return torch.special.ndtr((clean - threshold) / std)


class SwitchTop1(Linear):
    """The best expert alone, weighted by its probability p = softmax(x W) (Fedus et al. 2022, sec. 2.1).

    While training the router's input is multiplied by noise from [1 - jitter, 1 + jitter] (app. C).
    """
    def __init__(self, width: int, experts: int, jitter: float = 1e-2):
        super().__init__(width, experts)
        self.jitter = jitter

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        return self.score(x)

    def choose(self, scores: Tensor, capacity: int) -> Routing:
        """A token whose expert has no room gets none."""
        probs, wanted = scores.softmax(-1), ranked(scores, 1)
        gate = with_room(wanted, capacity).sum(-3)
        return Routing(gate, probs * gate, wanted.sum(-3), probs)


class RandomSecond(Linear):
    """The best two experts, the second only with probability min(1, 2 g_2) (Lepikhin et al. 2021, alg. 1).

    g_1 and g_2 are the probabilities of the two over their sum. Outside training nothing is random: the second runs
    where 2 g_2 > `threshold`.
    """
    def choose(self, scores: Tensor, capacity: int, threshold: float = 0.0) -> Routing:
        """Second choices queue behind all first choices; those that are not sent still hold their place."""
        probs, ranks = scores.softmax(-1), ranked(scores, 2)
        pair = (probs[..., None, :, :] * ranks).sum(-1)                    # [..., 2, S]
        share = pair[..., 1, :] / pair.sum(-2)                             # g_2
        level = torch.rand_like(share) if self.training else torch.full_like(share, threshold)
        sent = torch.stack([torch.ones_like(share), (2 * share > level).to(share.dtype)], -2)[..., None]
        gate = (with_room(ranks, capacity) * sent).sum(-3)
        wanted = (ranks * sent).sum(-3)
        weight = probs / (probs * ranks.sum(-3)).sum(-1, keepdim=True) * gate
        return Routing(gate, weight, wanted, probs)


class BatchPrioritised(Linear):
    """The best `k` experts by noisy probabilities; the surest tokens are served first (Riquelme et al. 2021, V-MoE).

    While training normal noise of standard deviation 1 / E is added to the scores. Room goes to all first choices
    before any second, in each round to the tokens whose best probability is highest.
    """
    def choose(self, scores: Tensor, k: int, capacity: int) -> Routing:
        """Weights are the noisy probabilities themselves, of all experts, so they sum to less than 1.

        `load`, while training: the probability that a new draw of an expert's noise lifts it to the k-th greatest of
        all noisy scores. Shazeer et al. leave the expert itself out of these.
        """
        noisy, load, std = scores, None, 1 / scores.shape[-1]
        if self.training:
            noisy = scores + torch.randn_like(scores) * std
            threshold = noisy.topk(min(k, scores.shape[-1]), dim=-1).values[..., -1:]
            load = torch.special.ndtr((scores - threshold) / std)
        probs, ranks = noisy.softmax(-1), ranked(noisy, k)
        gate = with_room(ranks, capacity, probs.amax(-1)).sum(-3)
        return Routing(gate, probs * gate, ranks.sum(-3), scores.softmax(-1), load)


class ExpertChoice(Linear):
    """Each expert takes the `capacity` tokens that score it highest (Zhou et al. 2022, eq. 2).

    Scores are probabilities over the experts; a token may be taken by many experts, or by none.
    """
    def choose(self, scores: Tensor, capacity: int) -> Routing:
        """Raises ValueError unless an expert can take so many of the S tokens."""
        probs, tokens = scores.softmax(-1), scores.shape[-2]
        if not 0 <= capacity <= tokens:
            raise ValueError(f"an expert's capacity is between 0 and {tokens} tokens, not {capacity}")
        own = probs.transpose(-1, -2)                                      # [..., E, S]
        gate = torch.zeros_like(own).scatter(-1, _by_score(own)[..., :capacity], 1.0).transpose(-1, -2)
        return Routing(gate, probs * gate, gate, probs)


class TopKSoftmax(Linear):
    """The best `k` experts, weighted by a softmax over their scores alone (Jiang et al. 2024, sec. 2.1)."""
    def choose(self, scores: Tensor, k: int) -> Routing:
        gate = ranked(scores, k).sum(-3)
        weight = scores.masked_fill(gate == 0, -torch.inf).softmax(-1)
        return Routing(gate, weight, gate, scores.softmax(-1))


class SoftmaxTopK(Linear):
    """The best `k` experts, weighted by their probabilities among all (Dai et al. 2024, eq. 10, 11)."""
    def choose(self, scores: Tensor, k: int) -> Routing:
        gate, probs = ranked(scores, k).sum(-3), scores.softmax(-1)
        return Routing(gate, probs * gate, gate, probs)


class BalancedSigmoid(Linear):
    """Affinities sigmoid(x W), each expert judged by its affinity plus a bias that balances (DeepSeek-AI 2024).

    The bias takes part in the choice, not in the weights, and no gradient reaches it: `rebalance` raises that of
    experts with too few tokens and lowers that of experts with too many (sec. 2.1.2, eq. 16).
    """
    def __init__(self, width: int, experts: int, speed: float = 1e-3):
        super().__init__(width, experts)
        self.speed = speed
        self.register_buffer("bias", torch.zeros(experts))

    def _apply(self, fn, recurse: bool = True):
        """The bias stays float32 in a half-precision module: its steps are too small to add up in eight bits."""
        held = self.bias
        super()._apply(fn, recurse)
        if self.bias.itemsize < held.itemsize and held.dtype is torch.float32:
            self.bias = held.to(self.bias.device)
        return self

    def choose(self, scores: Tensor, k: int) -> Routing:
        """Weights are affinities over the sum of the chosen ones (eq. 13); `probs`, over the sum of all (eq. 19).

        `wanted` is the choice with the bias; the report's own loss counts who would be chosen without it (eq. 18).
        """
        affinity = scores.sigmoid()
        gate = ranked(affinity + self.bias, k).sum(-3).to(affinity.dtype)
        own = affinity * gate
        return Routing(gate, own / own.sum(-1, keepdim=True), gate, affinity / affinity.sum(-1, keepdim=True))

    @torch.no_grad()
    def rebalance(self, wanted: Tensor) -> None:
        """One step of `speed` against the load of `wanted` [..., E]; call it once for each step of training."""
        load = wanted.flatten(0, -2).sum(0, dtype=self.bias.dtype)         # bfloat16 cannot count beyond 256
        self.bias += self.speed * (load.mean() - load).sign()


class Hash(nn.Module):
    """One expert for each word of a vocabulary, drawn once and never learned (Roller et al. 2021, sec. 3.1).

    No scores: `choose` takes the words themselves.
    """
    def __init__(self, words: int, experts: int, seed: int = 0):
        super().__init__()
        even = torch.arange(words) % experts                               # as many words for each
        self.register_buffer("expert", even[torch.randperm(words, generator=torch.Generator().manual_seed(seed))])
        self.experts = experts

    def choose(self, words: Tensor) -> Routing:
        """words: [..., S], integers. Raises ValueError for one that is not in the vocabulary."""
        if len(words.flatten()) and not 0 <= int(words.min()) <= int(words.max()) < len(self.expert):
            raise ValueError(f"words are numbers from 0 to {len(self.expert) - 1}")
        gate = F.one_hot(self.expert[words], self.experts).to(torch.get_default_dtype())
        return Routing(gate, gate, gate)
