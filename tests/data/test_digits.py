"""What the tasks with handwritten digits share: splits, placing, levels, and the canvases with several digits."""
import pytest
import torch

from dynnotes import data
from dynnotes.data import _crowds, _digits, canvas_digits

DENSE = ("canvas-segmentation", "canvas-detection", "super-resolution", "denoising")


def test_the_same_digits_in_the_same_splits_as_the_older_tasks():
    assert torch.equal(_digits.digits()[0], canvas_digits._digits()[0])
    for split in data.SPLITS:
        assert torch.equal(_digits.sources(split), canvas_digits.sources(split))
    assert sum(len(_digits.sources(split)) for split in data.SPLITS) == 1797


@pytest.mark.parametrize("task", DENSE)
def test_every_split_draws_its_own_digits_alone(task, monkeypatch):
    images, classes = _digits.digits()
    for split in data.SPLITS:
        poisoned = torch.full_like(images, float("nan"))
        poisoned[_digits.sources(split)] = images[_digits.sources(split)]
        monkeypatch.setattr(_digits, "digits", lambda poisoned=poisoned: (poisoned, classes))
        found = data.load(task, split, 100)
        assert found.inputs[0].isfinite().all()
        assert found.target.isfinite().all()
    monkeypatch.setattr(_digits, "digits", lambda: (torch.full_like(images, float("nan")), classes))
    assert not data.load(task, "test", 5).inputs[0].isfinite().all(), "poison would be seen"


@pytest.mark.parametrize("task", DENSE)
def test_splits_and_seeds_give_other_samples_and_the_same_seed_the_same(task):
    one, again, other = (data.load(task, "test", 20, seed) for seed in (3, 3, 4))
    assert torch.equal(one.inputs[0], again.inputs[0])
    assert torch.equal(one.target, again.target)
    assert torch.equal(one.informative, again.informative)
    assert not torch.equal(one.inputs[0], other.inputs[0])
    assert not torch.equal(one.inputs[0], data.load(task, "validation", 20, 3).inputs[0])


@pytest.mark.parametrize("task", DENSE)
def test_easy_and_hard_samples_both_occur_and_the_factors_go_together(task):
    found = data.load(task, "train", 600)
    assert found.hard.min() < 0.1
    assert found.hard.max() > 0.9
    assert 0.4 < found.hard.mean() < 0.6
    free = {"digits"} if task.startswith("canvas") else {"noise"} if task == "denoising" else set()
    for name, values in found.difficulty.items():
        related = torch.corrcoef(torch.stack([values, found.hard]))[0, 1].abs()
        assert (related < 0.2) if name in free else (related > 0.8), name


def test_placing_is_bilinear_interpolation():
    random = torch.Generator().manual_seed(0)
    images, side = torch.rand(20, 1, 8, 8, generator=random), 8 + 16 * torch.rand(20, generator=random)
    corner = torch.rand(20, 2, generator=random) * (32 - side).unsqueeze(1)
    torch.testing.assert_close(_digits.placed(images, corner, side, 32), canvas_digits._placed(images, corner, side))
    assert torch.equal(_digits.inside(corner, side, 32).unsqueeze(1), canvas_digits._inside(corner, side))
    turn = torch.rand(20, generator=random)
    assert torch.equal(_digits.halves(turn), canvas_digits._halves(turn))


def test_a_dot_of_one_source_pixel_by_hand():
    dot = torch.zeros(1, 1, 8, 8)
    dot[0, 0, 2, 5] = 1.0                                              # row 2, column 5
    found = _digits.placed(dot, torch.tensor([[3.0, 1.0]]), torch.tensor([8.0]), 16)[0, 0]
    assert found[1 + 2, 3 + 5] == 1
    assert found.sum() == 1


def test_levels_stay_within_their_spread():
    found = _digits.levels(500, 3, torch.Generator().manual_seed(0))
    assert found.min() == 0
    assert found.max() == 1
    assert (found.max(1).values - found.min(1).values).max() <= 2 * _digits.SPREAD
    assert (found.max(1).values > found.min(1).values + 0.05).any()


def test_digits_of_a_crowd_are_apart_where_there_is_room():
    found = _crowds.crowd("train", 400, 0)
    number = found.difficulty["digits"]
    assert set(number.tolist()) == {1.0, 2.0, 3.0}
    assert torch.equal((found.digit >= 0).sum(1).float(), number)
    assert torch.equal(found.ink.flatten(2).any(2), found.digit >= 0)
    both = (found.ink.long().sum(1) > 1).flatten(1).any(1).double()
    assert both[number == 1].max() == 0
    assert both[number > 1].mean() < 0.15


def test_bars_hide_about_the_share_that_is_claimed():
    found = _crowds.crowd("train", 600, 1)
    share = found.covered.flatten(1).sum(1) / found.ink.any(1).flatten(1).sum(1)
    assert share[found.difficulty["hidden"] == 0].max() == 0
    most = found.difficulty["hidden"] > 0.9 * _crowds.HIDDEN
    assert 0.25 < share[most].mean() < 0.5                              # ink stands in the middle of a digit's square
