"""What every task keeps, whatever it is about."""
import pytest
import torch

from dynnotes import data


@pytest.mark.parametrize("task", data.tasks())
def test_a_task_is_seeded_known_and_shown(task):
    one, again, other = (data.load(task, "train", 12, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.inputs, again.inputs, strict=True))
    assert torch.equal(one.target, again.target)
    assert any(not torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))
    assert one.task == task
    assert len(one) == 12 == len(one.hard) == len(one.inputs[0])
    assert ((one.hard >= 0) & (one.hard <= 1)).all()
    assert one.hard.unique().numel() > 1
    assert all(len(part) == 12 and part.isfinite().all() for part in one.difficulty.values())
    assert all(x.isfinite().all() for x in one.inputs)
    if one.kind == "tokens":
        words = one.spell(*(x[0] for x in one.inputs))
        assert words
        assert all(isinstance(word, str) for word in words)
    else:
        assert one.inputs[0].dim() == {"image": 4, "video": 5, "signal": 3}[one.kind]
    if one.informative is not None:
        assert one.informative.shape[0] == 12
        assert ((one.informative >= 0) & (one.informative <= 1)).all()
    assert one.target.isfinite().all()
    if one.target.is_floating_point() and one.labels:                           # boxes, class, "there is one"
        there = one.target[..., 5] > 0
        assert there.any(1).all()
        asked = one.target[..., 4][there]
    elif one.labels:
        asked = one.target[one.target != -100]
    else:                                                                       # pictures have no classes
        assert one.target.is_floating_point()
        return
    assert int(asked.min()) >= 0
    assert len(one.labels) > int(asked.max())


@pytest.mark.parametrize("task", data.tasks())
def test_splits_differ(task):
    found = [data.load(task, split, 6).inputs[0] for split in data.SPLITS]
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
