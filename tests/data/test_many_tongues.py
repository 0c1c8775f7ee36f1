"""The task of many tongues: texts keep to their tongue's pairs, uncertainty is exact, hard is where it says so."""
import math
from itertools import pairwise

import torch

from dynnotes import data
from dynnotes.data import many_tongues as task
from dynnotes.learn.evidence import spearman

COUNT, LISTS = (t.tolist() for t in task.followers())


def texts(split="test", size=None, seed=0):
    found = data.load("many-tongues", split, size, seed)
    return found, torch.cat([found.inputs[0], found.target[:, -1:]], 1)


def chance(tongue, word, following):
    """Of the next word given all before, written from the task's description."""
    if word >= task.SHARED:                                          # a mark: any shared word
        return 1 / task.SHARED if following < task.SHARED else 0.0
    if following >= task.SHARED:                                     # another tongue begins
        return task.END / (task.TONGUES - 1) if following - task.SHARED != tongue else 0.0
    own = LISTS[tongue][word][:COUNT[tongue][word]]
    return (1 - task.END) / len(own) if following in own else 0.0


def test_the_same_seed_gives_the_same_texts_and_another_seed_or_split_others():
    (_, one), (_, again), (_, other) = (texts(size=50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, texts("validation", 50, 3)[1])


def test_every_step_is_legal_and_costs_in_the_mean_the_bits_that_the_task_says():
    found, ids = texts(size=600)
    bits, spent = found.informative * math.log2(len(task.WORDS)), 0.0
    for text, expected in zip(ids.tolist(), bits.tolist(), strict=True):
        tongue = None
        for i, (word, following) in enumerate(pairwise(text)):
            tongue = word - task.SHARED if word >= task.SHARED else tongue
            p = chance(tongue, word, following)
            assert p > 0, f"{task.spell(torch.tensor(text))}: place {i}"
            spent -= math.log2(p)
            options = [chance(tongue, word, w) for w in range(len(task.WORDS))] if i < 3 else None
            if options:
                assert abs(sum(options) - 1) < 1e-9
                assert abs(-sum(q * math.log2(q) for q in options if q) - expected[i]) < 1e-4
    assert abs(spent / bits.sum().item() - 1) < 0.02                 # 19,200 places: two thousandths of noise


def test_tongues_are_those_of_the_latest_mark():
    _, ids = texts(size=100)
    for text, found in zip(ids.tolist(), task.tongues(ids).tolist(), strict=True):
        tongue = None
        for word, g in zip(text, found, strict=True):
            tongue = word - task.SHARED if word >= task.SHARED else tongue
            assert g == tongue


def test_a_word_alone_says_little_and_with_its_tongue_nearly_all():
    """Knowing the tongue must matter: the best guess from the word alone is right far less often."""
    _, ids = texts("train", 4000)
    tongue, word, following = task.tongues(ids)[:, :-1].flatten(), ids[:, :-1].flatten(), ids[:, 1:].flatten()
    inside = (word < task.SHARED) & (following < task.SHARED)
    pairs = torch.zeros(task.SHARED, task.SHARED).index_put((word[inside], following[inside]), torch.tensor(1.0), True)
    alone = (pairs.max(1).values.sum() / pairs.sum()).item()
    places = zip(tongue[inside].tolist(), word[inside].tolist(), strict=True)
    with_tongue = sum(1 / COUNT[g][w] for g, w in places) / int(inside.sum())
    assert 3 * alone < with_tongue


def test_hard_texts_are_guessed_less_well_by_the_best_of_guessers():
    found, ids = texts()
    tongue = task.tongues(ids)
    right = [sum(f < task.SHARED and w < task.SHARED and f == LISTS[g][w][0] for g, (w, f) in zip(gs, pairwise(ws)))
             for gs, ws in zip(tongue.tolist(), ids.tolist(), strict=True)]
    assert spearman(found.hard.tolist(), right) < -0.5
    assert found.hard.min() < 0.1
    assert found.hard.max() > 0.9
