"""Parts of a language model whose attention knows places by turning: rotary positions, shared keys, RMS norms.

As in LLaMA, Mistral and their descendants: no bias anywhere, no embedding of places.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def turned(x: Tensor, base: float) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 34): [..., T, S] -> the same, S even.

    At place t the pair of features (i, i + S/2) turns by the angle t * base^(-2i/S), so that the product of a query
    and a key depends on how far apart they stand. The paper pairs neighbours, (2i, 2i + 1); halves are how weights are
    passed around (transformers), and only another order of the features.
    Angles are float32, or float64 for x of float64: at place 1000 bfloat16 would be whole turns off.
    """
    places, size = x.shape[-2:]
    exact = {"dtype": torch.promote_types(x.dtype, torch.float32), "device": x.device}
    speed = base ** (-torch.arange(0, size, 2, **exact) / size)                            # [S / 2]
    angle = torch.arange(places, **exact)[:, None] * speed                                 # [T, S / 2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class RotaryLookBack(nn.Module):
    """x + attention(norm(x)), where a place sees itself and those before it: [B, T, D] -> [B, T, D].

    heads: of the queries. groups: of the keys and values, each seen by heads / groups queries (Ainslie et al. 2023);
    as many as heads unless given. size: features of a head, width / heads unless given. base: of the rotary angles.
    Raises ValueError where heads do not divide the width, or groups the heads, or a head is odd.
    """
    def __init__(self, width: int, heads: int, groups: int | None = None, *, size: int | None = None,
                 base: float = 1e4, eps: float = 1e-5):
        super().__init__()
        groups = heads if groups is None else groups
        if size is None and width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        if heads % groups:
            raise ValueError(f"{heads} heads cannot share the keys of {groups} groups evenly")
        size = width // heads if size is None else size
        if size % 2:
            raise ValueError(f"rotary positions turn pairs of features; a head has {size}, which is odd")
        self.parts, self.size, self.base = (heads * size, groups * size, groups * size), size, base
        self.norm = nn.RMSNorm(width, eps=eps)
        self.query_key_value = nn.Linear(width, sum(self.parts), bias=False)
        self.out = nn.Linear(heads * size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (t.unflatten(2, (-1, self.size)).transpose(1, 2)           # [B, heads or groups, T, S]
                             for t in self.query_key_value(self.norm(x)).split(self.parts, 2))
        y = F.scaled_dot_product_attention(turned(query, self.base), turned(key, self.base), value, is_causal=True,
                                           enable_gqa=key.shape[1] != query.shape[1])
        return x + self.out(y.transpose(1, 2).flatten(2))


def words(number: int, width: int) -> nn.Embedding:
    """Embeddings of words, without their places: [B, T] integers -> [B, T, D]."""
    embed = nn.Embedding(number, width)
    nn.init.normal_(embed.weight, std=0.02)
    return embed


def next_word(width: int, number: int, *, eps: float = 1e-5) -> nn.Sequential:
    """The last norm and a linear layer: [B, T, D] -> logits [B, T, words]."""
    return nn.Sequential(nn.RMSNorm(width, eps=eps), nn.Linear(width, number, bias=False))
