"""Parts of a language model: words become tokens, attention looks back only, every place answers the next word."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Words(nn.Module):
    """Embeddings of words and of their places: [B, T] integers -> [B, T, D], T <= length."""
    def __init__(self, words: int, width: int, length: int):
        super().__init__()
        self.word = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        nn.init.normal_(self.word.weight, std=0.02)
        nn.init.normal_(self.places, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.word(x) + self.places[:x.shape[1]]


class LookBack(nn.Module):
    """x + attention(norm(x)), where a place sees itself and those before it: [B, T, D] -> [B, T, D]."""
    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.norm, self.query_key_value = nn.LayerNorm(width), nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (t.unflatten(2, (self.heads, -1)).transpose(1, 2)          # [B, heads, T, D / heads]
                             for t in self.query_key_value(self.norm(x)).chunk(3, 2))
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """x + w2 relu(w1 norm(x)): [B, T, D] -> [B, T, D]; what experts take the place of."""
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.then = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.then(x)


def next_word(width: int, words: int) -> nn.Sequential:
    """The last norm and a linear layer: [B, T, D] -> logits [B, T, words]."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, words))


class LanguageModel(nn.Module):
    """The static transformer: words [B, T] -> logits of the next word [B, T, words]."""
    def __init__(self, *, words: int, length: int, width: int, depth: int, heads: int, hidden: int):
        super().__init__()
        blocks = [layer for _ in range(depth) for layer in (LookBack(width, heads), FeedForward(width, hidden))]
        self.net = nn.Sequential(Words(words, width, length), *blocks, next_word(width, words))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
