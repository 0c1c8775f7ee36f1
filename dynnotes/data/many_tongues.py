"""many-tongues: the next word of texts that switch between 32 tongues, each with its own pairs to remember.

A text is a row of stretches, each a mark (the word that names its tongue) and then some words. All tongues share 64
words; what differs is which may follow which. After the mark of tongue g any word may come; after the word w of tongue
g come FOLLOWERS[g, w] words, equally likely, one or two, drawn once for g and w. So there is nothing to infer, only
much to remember: 32 * 64 lists, of which a word alone says nothing without its tongue. After each word the stretch ends
with probability END, and the mark of another tongue follows, any of the other 31 alike.

The distribution of the next word given all before is exact; its entropy in bits, H_t, is what makes a place hard:

    informative_t = H_t / log2(words)
    hard = (mean of H_t over the text - LOW) / (HIGH - LOW), clipped to [0, 1]

Splits differ in their texts alone: what is to be remembered is the same in all. `tongues` tells each place's tongue.
"""
from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from . import Data

TONGUES, SHARED, END = 32, 64, 0.08
LENGTH, LOW, HIGH = 32, 1.2, 2.2
SIZES = {"train": 8000, "validation": 500, "test": 1000}
SYLLABLES = tuple(c + v for c in "bdfgklmnprstvxyz" for v in "aeiou")[:SHARED]
WORDS = (*SYLLABLES, *(f"<{g + 1}>" for g in range(TONGUES)))         # the shared words, then the marks


@cache
def followers() -> tuple[Tensor, Tensor]:
    """(FOLLOWERS [32, 64], the words that may follow [32, 64, 2], of which the first FOLLOWERS count)."""
    random = torch.Generator().manual_seed(20)
    count = torch.randint(1, 3, (TONGUES, SHARED), generator=random)
    lists = torch.rand(TONGUES, SHARED, SHARED, generator=random).argsort(-1)[..., :2]
    return count, lists


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 32] and targets [N, 32], the words one later, as indices into WORDS."""
    number = SIZES[split] if size is None else size
    random = torch.Generator().manual_seed(3 * seed + list(SIZES).index(split))
    count, lists = followers()
    tongue = torch.randint(TONGUES, (number,), generator=random)
    text, bits, marks = [SHARED + tongue], [], torch.ones(number)
    for _ in range(LENGTH):
        last = text[-1]
        mark, own = last >= SHARED, last.clamp(max=SHARED - 1)
        choices = count[tongue, own]
        word = lists[tongue, own, (torch.rand(number, generator=random) * choices).long()]
        word = torch.where(mark, torch.randint(SHARED, (number,), generator=random), word)
        other = (tongue + torch.randint(1, TONGUES, (number,), generator=random)) % TONGUES
        end = ~mark & (torch.rand(number, generator=random) < END)
        inside = torch.where(mark, torch.tensor(float(SHARED)), choices.float()).log2()
        bits.append(torch.where(mark, inside, (1 - END) * inside + _switch()))
        text.append(torch.where(end, SHARED + other, word))
        tongue, marks = torch.where(end, other, tongue), marks + end
    ids, bits = torch.stack(text, 1), torch.stack(bits, 1)
    return Data("many-tongues", split, (ids[:, :-1],), ids[:, 1:], ((bits.mean(1) - LOW) / (HIGH - LOW)).clamp(0, 1),
                {"bits": bits.mean(1), "tongues": marks}, labels=WORDS,
                informative=bits / torch.tensor(float(len(WORDS))).log2(), kind="tokens", spell=spell)


def _switch() -> Tensor:
    """Bits of whether the stretch ends, and of which tongue then follows."""
    end = torch.tensor(END)
    return -end * end.log2() - (1 - end) * (1 - end).log2() + end * torch.tensor(TONGUES - 1.0).log2()


def tongues(ids: Tensor) -> Tensor:
    """Which tongue each place is in: words [N, T] that begin with a mark -> [N, T], 0 to 31."""
    mark = ids >= SHARED
    latest = torch.where(mark, torch.arange(ids.shape[1]), 0).cummax(1).values
    return ids.gather(1, latest) - SHARED


def spell(ids: Tensor) -> list[str]:
    """One text [T] as words."""
    return [WORDS[i] for i in ids.tolist()]
