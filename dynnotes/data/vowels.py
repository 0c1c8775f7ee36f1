"""vowels: two formants of one vowel, said by somebody; which of ten vowels was it?

The task of Jacobs et al. (1991, sec. 3), with all ten vowels of its source in place of four. Source: Peterson and
Barney (1952), "Control methods used in a study of the vowels", J. Acoust. Soc. Am. 24, 175-184, of which table II
prints the average first and second formant of ten American English vowels between h and d, as said by 33 men, 28 women
and 15 children. Only these averages are used (AVERAGES), none of the single measurements. So the speakers here are
DRAWN, and this is ASSUMED of them, for table II is one of averages without spread:

    a formant   ln F = ln(average of the vowel and the group) + LENGTH * t + OWN * e
    t           standard normal, one for each speaker: the length of the vocal tract, which scales both formants alike
    e           standard normal, for each formant of each utterance
    the group   men, women and children in the proportions above; vowels are equally likely

The speakers are drawn once and for all (SPEAKERS), and no two splits share one. As all densities are known, so is the
probability of each vowel v given the two formants alone, exactly, for a listener who does not know the speaker:

    P(v | F) proportional to the sum over groups g of share_g N(ln F; ln average_gv, LENGTH^2 + OWN^2 on the diagonal,
                                                                LENGTH^2 beside it)
    hard = 1 - P(the vowel that was said | F)                                                      in [0, 1]

Who answers with the likeliest vowel errs as seldom as anyone can: there is no better net than `posterior`.
"""
from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from . import Data

VOWELS = ("heed", "hid", "head", "had", "hod", "hawed", "hood", "who'd", "hud", "heard")
GROUPS = {"men": 33, "women": 28, "children": 15}
AVERAGES = torch.tensor([                                            # table II, in Hz: [groups, formants, vowels]
    [[270, 390, 530, 660, 730, 570, 440, 300, 640, 490],
     [2290, 1990, 1840, 1720, 1090, 840, 1020, 870, 1190, 1350]],
    [[310, 430, 610, 860, 850, 590, 470, 370, 760, 500],
     [2790, 2480, 2330, 2050, 1220, 920, 1160, 950, 1400, 1640]],
    [[370, 530, 690, 1010, 1030, 680, 560, 430, 850, 560],
     [3200, 2730, 2610, 2320, 1370, 1060, 1410, 1170, 1590, 1820]]], dtype=torch.float64)
LENGTH, OWN = 0.05, 0.08
SIZES = {"train": 8000, "validation": 1000, "test": 2000}
STARTS = {"train": 0, "validation": 600, "test": 700}                # of the speakers
SPEAKERS = 1000


@lru_cache(maxsize=1)
def _speakers() -> tuple[Tensor, Tensor]:
    """Group and t of all speakers, drawn once: no seed changes them."""
    random = torch.Generator().manual_seed(1952)
    share = torch.tensor(list(GROUPS.values()), dtype=torch.float64)
    return (torch.multinomial(share, SPEAKERS, replacement=True, generator=random),
            torch.randn(SPEAKERS, generator=random, dtype=torch.float64))


def sources(split: str) -> Tensor:
    """The speakers of a split, as indices: no two splits share one."""
    ends = [*list(STARTS.values())[1:], SPEAKERS]
    return torch.arange(STARTS[split], ends[list(STARTS).index(split)])


def load(split: str, size: int | None, seed: int) -> Data:
    """Inputs [N, 2], the two formants in kHz, targets [N]."""
    count = SIZES[split] if size is None else size
    random = torch.Generator().manual_seed(3 * seed + list(STARTS).index(split))
    pool, (groups, tracts) = sources(split), _speakers()
    who = pool[torch.randint(len(pool), (count,), generator=random)]
    vowel = torch.randint(len(VOWELS), (count,), generator=random)
    own = torch.randn(count, 2, generator=random, dtype=torch.float64)
    spoken = AVERAGES[groups[who], :, vowel].log() + LENGTH * tracts[who].unsqueeze(1) + OWN * own
    x = (spoken.exp() / 1000).float()
    chances = posterior(x)                                                  # [N, 10]
    said = chances.gather(1, vowel.unsqueeze(1)).squeeze(1)
    rival = chances.scatter(1, vowel.unsqueeze(1), 0).amax(1)
    return Data("vowels", split, (x,), vowel, (1 - said).clamp(0, 1).float(),
                {"said": said.float(), "rival": rival.float(), "group": groups[who].float()}, labels=VOWELS,
                kind="tokens", spell=spell)


def posterior(x: Tensor) -> Tensor:
    """The probability of each vowel given the two formants in kHz, [N, 2] -> [N, 10] in float64, by Bayes' rule."""
    share = torch.tensor(list(GROUPS.values()), dtype=torch.float64)
    away = (1000 * x.double()).log()[:, None, :, None] - AVERAGES.log()    # [N, groups, formants, vowels]
    both = LENGTH ** 2 + OWN ** 2                                          # the inverse of [[both, L^2], [L^2, both]]
    square = both * away.square().sum(2) - 2 * LENGTH ** 2 * away.prod(2)
    density = -square / (2 * (both ** 2 - LENGTH ** 4))                    # less a constant
    return (density + share.log().unsqueeze(1)).logsumexp(1).softmax(1)


def spell(x: Tensor) -> list[str]:
    """One utterance as words."""
    return [f"F{i + 1} {math.floor(1000 * f + 0.5)} Hz" for i, f in enumerate(x.tolist())]
