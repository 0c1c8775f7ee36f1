"""Pixels and their classes: what is labelled is what is seen."""
import torch

from dynnotes import data
from dynnotes.data import _crowds, canvas_segmentation


def test_shapes_labels_and_the_formula_of_hard():
    found = data.load("canvas-segmentation", "train", 300)
    d = found.difficulty
    assert found.inputs[0].shape == (300, 1, 48, 48)
    assert found.target.shape == found.informative.shape == (300, 48, 48)
    assert found.target.dtype == torch.long
    assert set(found.target.unique().tolist()) == set(range(11))
    assert found.labels[8] == "7"
    by_hand = ((20 - d["scale"]) / 9 + d["clutter"] / 5 + d["noise"] / 0.25 + d["hidden"] / 0.35) / 4
    torch.testing.assert_close(found.hard, by_hand, rtol=0, atol=1e-6)
    assert set(found.informative.unique().tolist()) == {0.0, 1.0}
    assert len(data.load("canvas-segmentation", "validation")) == 500


def test_a_pixel_labelled_seven_has_ink_of_a_seven():
    found, crowd = data.load("canvas-segmentation", "test", 300), _crowds.crowd("test", 300, 0)
    seven = (crowd.ink & (crowd.digit == 7)[:, :, None, None]).any(1)
    assert (found.target == 8).any()
    assert seven[found.target == 8].all()
    only = seven & (crowd.ink.long().sum(1) == 1) & ~crowd.covered
    assert (found.target[only] == 8).all(), "and ink of a seven alone, in sight, is labelled so"
    assert (found.target[crowd.covered] == 0).all()


def test_without_noise_labelled_pixels_are_bright_and_others_are_not(monkeypatch):
    monkeypatch.setattr(_crowds, "NOISE", 1e-9)
    clean = data.load("canvas-segmentation", "test", 200, 1)
    bright = clean.inputs[0][:, 0] > _crowds.INK
    assert bright[clean.target > 0].all()
    elsewhere = bright & (clean.target == 0)
    crowd = _crowds.crowd("test", 200, 1)
    bar = clean.inputs[0][:, 0] == _crowds.BAR
    assert (crowd.cluttered | bar)[elsewhere].double().mean() > 0.999, "bright background is clutter or a bar"


def test_edges_by_hand():
    target = torch.zeros(1, 5, 5, dtype=torch.long)
    target[0, :, 3:] = 4                                                 # the border is between columns 2 and 3
    assert canvas_segmentation.edges(target)[0].long().tolist() == [[0, 0, 1, 1, 0]] * 5


def test_a_hard_pixel_is_an_edge_or_covered_or_cluttered():
    found, crowd = data.load("canvas-segmentation", "test", 50), _crowds.crowd("test", 50, 0)
    hard = found.informative > 0
    assert hard[crowd.covered].all()
    assert hard[crowd.cluttered].all()
    for n, row, column in (hard & ~crowd.covered & ~crowd.cluttered).nonzero()[::97].tolist():
        around = found.target[n, max(0, row - 1):row + 2, max(0, column - 1):column + 2]
        assert around.unique().numel() > 1
    assert 0.02 < found.informative.mean() < 0.3


def test_one_who_labels_what_is_bright_errs_more_where_it_is_hard():
    """Which pixels have ink, by a threshold: the classes are not even asked."""
    found = data.load("canvas-segmentation", "test", 600)
    ink, guess = found.target > 0, found.inputs[0][:, 0] > 0.5
    union = (ink | guess).flatten(1).sum(1)
    wrong = 1 - (ink & guess).flatten(1).sum(1) / union
    easy, middle, hard = (wrong[third].mean() for third in found.hard.argsort().tensor_split(3))
    assert easy + 0.1 < middle < hard - 0.1
    off = (ink != guess)
    assert off[found.informative > 0].double().mean() > 3 * off[found.informative == 0].double().mean()
