"""Boxes: each holds its digit and no more."""
import torch

from dynnotes import data
from dynnotes.data import _crowds, canvas_detection


def test_shapes_rows_and_the_formula_of_hard():
    found = data.load("canvas-detection", "train", 300)
    d = found.difficulty
    assert found.target.shape == (300, 3, 6)
    there = found.target[..., 5] > 0
    assert torch.equal(there.sum(1).float(), d["digits"])
    assert (found.target[~there] == 0).all()
    box = found.target[there][:, :4]
    assert box.min() >= 0
    assert box.max() <= 1
    assert (box[:, :2] < box[:, 2:]).all()
    assert set(found.target[there][:, 4].tolist()) == set(range(10))
    by_hand = ((20 - d["scale"]) / 9 + d["clutter"] / 5 + d["noise"] / 0.25 + d["hidden"] / 0.35) / 4
    torch.testing.assert_close(found.hard, by_hand, rtol=0, atol=1e-6)


def test_the_two_canvas_tasks_ask_about_the_same_pictures():
    boxes, pixels = (data.load(task, "test", 40, 2) for task in ("canvas-detection", "canvas-segmentation"))
    assert torch.equal(boxes.inputs[0], pixels.inputs[0])
    for n in range(40):
        classes = set(pixels.target[n].unique().tolist()) - {0}
        assert classes <= {int(row[4]) + 1 for row in boxes.target[n] if row[5]}


def test_a_box_by_hand():
    ink = torch.zeros(1, 8, 16, dtype=torch.bool)
    ink[0, 2, 4], ink[0, 5, 11] = True, True
    assert canvas_detection.boxes(ink).tolist() == [[4 / 16, 2 / 8, 12 / 16, 6 / 8]]


def test_a_box_holds_all_ink_of_its_digit_and_touches_it_on_every_side():
    found, crowd = data.load("canvas-detection", "test", 60), _crowds.crowd("test", 60, 0)
    for n in range(60):
        for row, ink in zip(found.target[n], crowd.ink[n], strict=True):
            if not row[5]:
                assert not ink.any()
                continue
            x0, y0, x1, y1 = (48 * row[:4]).round().long().tolist()
            assert ink[y0:y1, x0:x1].sum() == ink.sum()
            assert ink[y0].any() and ink[y1 - 1].any() and ink[:, x0].any() and ink[:, x1 - 1].any()
            assert (found.informative[n, y0:y1, x0:x1] == 1).all()
        inside = found.informative[n] > 0
        assert (crowd.ink[n].any(0) <= inside).all()
    assert 0.02 < found.informative.mean() < 0.5


def test_a_box_that_is_told_apart_by_brightness_fits_worse_where_it_is_hard():
    """One digit on the canvas: the box of all that is bright, against the true one."""
    from dynnotes.nets.dense import iou

    found = data.load("canvas-detection", "test", 900)
    found = found[(found.difficulty["digits"] == 1).nonzero().squeeze(1)]
    fit = iou(canvas_detection.boxes(found.inputs[0][:, 0] > 0.5), found.target[:, 0, :4])
    easy, middle, hard = (fit[third].mean() for third in found.hard.argsort().tensor_split(3))
    assert easy > middle + 0.1 > hard + 0.2
