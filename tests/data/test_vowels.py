"""The vowels: drawn around printed averages, with the exact probability of every answer."""
import math

import pytest
import torch

from dynnotes import data
from dynnotes.data import vowels


def test_the_same_seed_gives_the_same_samples_and_another_seed_others():
    one, again, other = (data.load("vowels", "test", 50, seed) for seed in (3, 3, 4))
    assert torch.equal(one.inputs[0], again.inputs[0])
    assert torch.equal(one.target, again.target)
    assert not torch.equal(one.inputs[0], other.inputs[0])


def test_no_speaker_is_in_two_splits():
    pools = [set(vowels.sources(split).tolist()) for split in data.SPLITS]
    assert sum(map(len, pools)) == len(set().union(*pools)) == vowels.SPEAKERS == len(vowels._speakers()[0])


@pytest.mark.parametrize("split", data.SPLITS)
def test_utterances_come_from_the_speakers_of_the_split_alone(split, monkeypatch):
    groups, tracts = vowels._speakers()
    poisoned = torch.full_like(tracts, float("nan"))
    poisoned[vowels.sources(split)] = tracts[vowels.sources(split)]
    monkeypatch.setattr(vowels, "_speakers", lambda: (groups, poisoned))
    assert data.load("vowels", split, 300).inputs[0].isfinite().all()


def test_default_sizes_are_the_tasks_own():
    for split in ("validation", "test"):
        found = data.load("vowels", split)
        assert len(found) == vowels.SIZES[split]
        assert found.inputs[0].shape == (len(found), 2)
        assert set(found.target.tolist()) == set(range(10))


def test_the_printed_averages_in_rows_of_the_table():
    """Peterson and Barney (1952), table II, some cells: men's i, women's hawed, children's hud and heard."""
    def cell(group, word):
        return vowels.AVERAGES[list(vowels.GROUPS).index(group), :, vowels.VOWELS.index(word)].tolist()
    assert cell("men", "heed") == [270, 2290]
    assert cell("women", "hawed") == [590, 920]
    assert cell("children", "hud") == [850, 1590]
    assert cell("children", "heard") == [560, 1820]
    lower, higher = vowels.AVERAGES[0], vowels.AVERAGES[2]
    assert (lower < higher).all(), "children's tracts are shorter, so all their formants are higher"


def test_formants_spread_around_the_averages_as_assumed():
    """In logarithms: the mean of a vowel and group, the variance of each formant, the covariance of the two."""
    found = data.load("vowels", "train", 60_000)
    groups = found.difficulty["group"].long()
    away = (1000 * found.inputs[0].double()).log() - vowels.AVERAGES[groups, :, found.target].log()
    assert away.mean(0).abs().max() < 0.01
    spread = away.T @ away / len(away)
    each, both = vowels.LENGTH ** 2 + vowels.OWN ** 2, vowels.LENGTH ** 2
    expected = torch.tensor([[each, both], [both, each]]).double()
    torch.testing.assert_close(spread, expected, rtol=0.15, atol=0)             # of 600 speakers


def test_the_posterior_by_plain_loops_with_densities_over_hertz():
    """Bayes' rule with the whole log-normal density, Jacobian and constants included, in plain numbers."""
    found = data.load("vowels", "test", 40)
    got = vowels.posterior(found.inputs[0])
    a, b = vowels.LENGTH ** 2 + vowels.OWN ** 2, vowels.LENGTH ** 2
    shares = [33 / 76, 28 / 76, 15 / 76]
    for n in range(40):
        f1, f2 = (1000 * v for v in found.inputs[0][n].double().tolist())
        joint = []
        for v in range(10):
            total = 0.0
            for g in range(3):
                m1, m2 = vowels.AVERAGES[g, :, v].tolist()
                u, w = math.log(f1 / m1), math.log(f2 / m2)
                det = a * a - b * b
                square = (a * u * u - 2 * b * u * w + a * w * w) / det
                total += shares[g] * math.exp(-square / 2) / (2 * math.pi * math.sqrt(det)) / (f1 * f2)
            joint.append(total)
        for v in range(10):
            assert abs(got[n, v].item() - joint[v] / sum(joint)) < 1e-9
        assert abs(found.hard[n].item() - (1 - joint[found.target[n]] / sum(joint))) < 1e-6


def test_the_posterior_means_what_it_says():
    """Of the answers given with probability near q, a share of about q is right."""
    found = data.load("vowels", "test", 20_000, seed=5)
    chance, answer = vowels.posterior(found.inputs[0]).max(1)
    right = (answer == found.target).double()
    for low, high in ((0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.0)):
        inside = (chance >= low) & (chance < high)
        assert inside.sum() > 300
        assert abs(right[inside].mean() - chance[inside].mean()) < 0.05
    assert abs(right.mean() - chance.mean()) < 0.03


def test_hard_is_made_of_what_is_said_of_it():
    found = data.load("vowels", "train", 2000)
    said, rival = found.difficulty["said"], found.difficulty["rival"]
    torch.testing.assert_close(found.hard, 1 - said, rtol=0, atol=1e-6)
    assert (rival <= found.hard + 1e-6).all()
    assert found.hard.min() < 0.01
    assert found.hard.max() > 0.9
    assert set(found.difficulty["group"].tolist()) == {0, 1, 2}


def test_error_rises_with_hard_for_a_classifier_that_has_only_seen_examples():
    from sklearn.neighbors import KNeighborsClassifier

    known, asked = data.load("vowels", "train", 4000), data.load("vowels", "test", 2000)
    guess = torch.from_numpy(KNeighborsClassifier(15).fit(known.inputs[0].log(), known.target)
                             .predict(asked.inputs[0].log()))
    wrong = (guess != asked.target).double()
    easy, middle, hard = (wrong[third].mean() for third in asked.hard.argsort().tensor_split(3))
    assert easy < 0.02 < hard
    assert easy <= middle < hard
    likeliest = (vowels.posterior(asked.inputs[0]).argmax(1) != asked.target).double()
    assert wrong.mean() > likeliest.mean() - 0.01, "nobody errs less often than the likeliest vowel"
    assert wrong.mean() < 0.35


def test_an_utterance_in_words():
    found = data.load("vowels", "test", 5)
    f1, f2 = found.inputs[0][0].tolist()
    assert found.spell(found.inputs[0][0]) == [f"F1 {round(1000 * f1)} Hz", f"F2 {round(1000 * f2)} Hz"]
    assert found.labels[0] == "heed"
