"""Pixels, boxes and pictures: the scores by hand, and nets that answer in the right form."""
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dynnotes import data
from dynnotes.execute import price
from dynnotes.learn.frontier import FAMILIES
from dynnotes.nets.dense import (
    Detecting,
    GridDetector,
    Restorer,
    Restoring,
    Segmenter,
    Segmenting,
    about_cells,
    iou,
    psnr,
)


def logits(classes, count):
    """[1, C, H, W] whose largest is at `classes` [H][W]."""
    return 9.0 * F.one_hot(torch.tensor([classes]), count).movedim(-1, 1)


def answer(*rows, classes=10):
    """[1, P, 5 + C] of (x0, y0, x1, y1, class, score)."""
    y = torch.zeros(1, len(rows), 5 + classes)
    for p, (*box, kind, score) in enumerate(rows):
        y[0, p, :4], y[0, p, 4], y[0, p, 5 + kind] = torch.tensor(box), math.log(score / (1 - score)), 9.0
    return y


def boxes(*rows):
    return torch.tensor([[[*row[:5], 1.0] if row else [0.0] * 6 for row in rows]])


# Pixels --------------------------------------------------------------------------------------------------------------

def test_the_mean_iou_of_six_pixels_by_hand():
    """Background: 2 of 4; class 1: 2 of 3. Class 2 is only answered and costs what it took; class 3 is nowhere."""
    target = torch.tensor([[[0, 0, 0], [0, 1, 1]]])
    y = logits([[0, 0, 2], [1, 1, 1]], 4)
    assert Segmenting().correct(y, target).tolist() == pytest.approx([(2 / 4 + 2 / 3) / 2])


def test_right_pixels_score_one_and_a_blank_answer_the_background_alone():
    target = torch.tensor([[[0, 0, 0], [0, 1, 2]]])
    assert Segmenting().correct(logits(target[0].tolist(), 3), target).tolist() == [1.0]
    assert Segmenting().correct(logits([[0] * 3] * 2, 3), target).tolist() == pytest.approx([4 / 6 / 3])


def test_equation_the_loss_of_pixels_in_plain_loops():
    random = torch.Generator().manual_seed(0)
    y = torch.randn(2, 3, 2, 4, generator=random, dtype=torch.float64)
    target = torch.randint(2, (2, 2, 4), generator=random)
    total = 0.0
    for n in range(2):
        off = {c: [] for c in range(3)}
        for i in range(2):
            for j in range(4):
                values = [math.exp(v) for v in y[n, :, i, j].tolist()]
                off[int(target[n, i, j])].append(-math.log(values[target[n, i, j]] / sum(values)))
        there = [part for part in off.values() if part]
        total += (sum(map(sum, there)) / 8 + sum(sum(p) / len(p) for p in there) / len(there)) / 2
    assert Segmenting().task(y, target).item() == pytest.approx(total / 2)


# Boxes ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("a", "b", "expected"), [
    ((0, 0, 2, 2), (0, 0, 2, 2), 1.0), ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7), ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
    ((0, 0, 1, 1), (1, 0, 2, 1), 0.0), ((0, 0, 4, 4), (1, 1, 3, 3), 4 / 16), ((1, 1, 1, 1), (2, 2, 2, 2), 0.0)])
def test_iou_by_hand(a, b, expected):
    a, b = torch.tensor(a).float(), torch.tensor(b).float()
    assert iou(a, b).item() == iou(b, a).item() == pytest.approx(expected)


def test_f1_with_one_wrong_class_by_hand():
    """Two true boxes; one is found, the other has the wrong class: precision 1/2, recall 1/2."""
    target = boxes((0.1, 0.1, 0.4, 0.4, 3), (0.5, 0.5, 0.9, 0.9, 7), None)
    y = answer((0.1, 0.1, 0.4, 0.4, 3, 0.9), (0.5, 0.5, 0.9, 0.9, 1, 0.9))
    assert Detecting().correct(y, target).tolist() == pytest.approx([0.5])


def test_f1_counts_doubles_misses_and_low_scores_by_hand():
    target = boxes((0.1, 0.1, 0.4, 0.4, 3), (0.5, 0.5, 0.9, 0.9, 7), None)
    hit, other = (0.1, 0.1, 0.4, 0.4, 3, 0.8), (0.5, 0.5, 0.9, 0.9, 7, 0.9)
    f1 = Detecting().correct
    assert f1(answer(hit, other), target).item() == 1
    assert f1(answer(hit, hit, other), target).item() == pytest.approx(2 * 2 / (3 + 2)), "a double is wrong"
    assert f1(answer(hit, (*other[:5], 0.4)), target).item() == pytest.approx(2 * 1 / (1 + 2)), "not claimed, missed"
    assert f1(answer((0.19, 0.1, 0.49, 0.4, 3, 0.8), other), target).item() == 1, "IoU 0.21 / 0.39"
    assert f1(answer((0.21, 0.1, 0.51, 0.4, 3, 0.8), other), target).item() == pytest.approx(0.5), "IoU 0.19 / 0.41"
    assert f1(answer((*hit[:5], 0.1)), boxes(None, None)).item() == 1, "nothing there, nothing claimed"
    assert f1(answer(hit), boxes(None, None)).item() == 0


def test_the_surer_answer_chooses_first():
    """Both fit; were the second counted first, one box would go to neither."""
    target = boxes((0.0, 0.0, 0.4, 0.4, 3), (0.1, 0.0, 0.5, 0.4, 3))
    y = answer((0.0, 0.0, 0.4, 0.4, 3, 0.7), (0.08, 0.0, 0.48, 0.4, 3, 0.9))
    assert Detecting().correct(y, target).item() == 1


def test_boxes_have_a_class_and_a_score():
    y = answer((0.1, 0.2, 0.3, 0.4, 6, 0.75))
    torch.testing.assert_close(Detecting.boxes(y), torch.tensor([[[0.1, 0.2, 0.3, 0.4, 6.0, 0.75]]]))


def test_the_loss_of_boxes_by_hand():
    """One true box, two answers: the nearer has to move by 0.1 twice, and says nothing of class or score."""
    target = boxes((0.2, 0.2, 0.6, 0.6, 1))
    y = torch.zeros(1, 2, 5 + 4)
    y[0, :, :4] = torch.tensor([[0.8, 0.8, 1.0, 1.0], [0.3, 0.2, 0.7, 0.6]])
    overlap = 0.3 * 0.4 / (2 * 0.16 - 0.12)
    expected = 5 * 0.2 + (1 - overlap) + math.log(4) + 2 * math.log(2)
    assert Detecting().task(y, target).item() == pytest.approx(expected)


def test_two_true_boxes_never_share_an_answer_and_missing_ones_ask_for_nothing():
    y = torch.zeros(1, 2, 5 + 4)
    y[0, :, :4] = torch.tensor([[0.1, 0.1, 0.3, 0.3], [0.7, 0.7, 0.9, 0.9]])
    y.requires_grad_()
    same = (0.1, 0.1, 0.3, 0.3, 2)
    Detecting().task(y, boxes(same, same)).backward()
    assert (y.grad[0, :, 4] < 0).all(), "both are told to score"
    y.grad = None
    Detecting().task(y, boxes(same, None, None)).backward()
    assert y.grad[0, 0, 4] < 0 < y.grad[0, 1, 4]
    assert (y.grad[0, 1, 5:] == 0).all()


@given(st.integers(0, 2 ** 31), st.integers(0, 3))
def test_scores_lie_between_none_and_all_right(seed, count):
    random = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 3, 2, generator=random) * 0.5
    there = (torch.arange(3) < count).float().expand(2, 3)
    target = torch.cat([low, low + 0.1 + 0.3 * torch.rand(2, 3, 2, generator=random),
                        torch.randint(4, (2, 3, 1), generator=random), there.unsqueeze(2)], 2) * there.unsqueeze(2)
    y = torch.randn(2, 6, 9, generator=random)
    f1 = Detecting().correct(y, target)
    assert ((f1 >= 0) & (f1 <= 1)).all()
    assert f1.dtype == torch.float64
    assert Detecting().task(y, target).isfinite()
    perfect = torch.cat([target[..., :4], 9 * (2 * target[..., 5:] - 1),
                         9.0 * F.one_hot(target[..., 4].long(), 4)], 2)
    assert (Detecting().correct(perfect, target) == 1).all()


def test_every_cell_answers_about_itself():
    """All zero: boxes of the same size, their centres in the middle of 2 x 3 cells, in the order of the cells."""
    found = about_cells(torch.zeros(1, 5 + 2, 2, 3))
    assert found.shape == (1, 6, 7)
    middle = (found[0, :, :2] + found[0, :, 2:4]) / 2
    side = torch.tensor(-1.0).sigmoid().item()
    assert middle[4].tolist() == pytest.approx([0.5, 0.75])
    assert (found[0, 4, 2] - found[0, 4, 0]).item() == pytest.approx(side)
    assert found.min() >= 0
    assert found[..., :4].max() <= 1


# Pictures ------------------------------------------------------------------------------------------------------------

def test_the_share_of_the_error_that_is_removed_by_hand():
    """The naive answer is off by 0.2 at two pixels of four; an answer off by 0.1 at one leaves an eighth of it."""
    true, naive = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.2, 0.2], [0.0, 0.0]]]])
    target = torch.cat([true, naive], 1)
    y = torch.tensor([[[[0.1, 0.0], [0.0, 0.0]]]])
    model = Restoring()
    assert model.task(y, target).item() == pytest.approx(1 / 8)
    assert model.correct(y, target).tolist() == pytest.approx([7 / 8])
    assert model.correct(naive, target).tolist() == pytest.approx([0.0], abs=1e-6)
    assert model.correct(true, target).tolist() == [1.0]
    assert model.correct(3 * naive, target).tolist() == [0.0], "worse than naive is 0"
    assert model.task(3 * naive, target).item() == pytest.approx(9)


def test_psnr_by_hand():
    true = torch.zeros(2, 1, 4, 4)
    assert psnr(true + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1), true).tolist() == pytest.approx([20, 40])


def test_a_restorer_begins_as_the_naive_answer():
    for task, factor in (("super-resolution", 2), ("denoising", 1)):
        found = data.load(task, "test", 8)
        y = Restorer(channels=1, width=4, depth=1, factor=factor)(*found.inputs)
        torch.testing.assert_close(y.clamp(0, 1), found.target[:, 1:].clamp(0, 1))


# Nets ----------------------------------------------------------------------------------------------------------------

def test_folding_keeps_every_pixel_in_its_place():
    """One convolution that copies the centre: what is folded comes back where it was."""
    net = Restorer(channels=1, width=4, depth=1, fold=2)
    with torch.no_grad():
        for part in net.parameters():
            part.zero_()
        for c in range(4):
            net.stem[0].weight[c, c, 1, 1] = net.head.weight[c, c, 1, 1] = 1.0
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(net(x), 2 * x)


def test_shapes_of_answers():
    x = torch.randn(2, 1, 48, 48)
    assert Segmenter(channels=1, classes=11, widths=(2, 4, 4))(x).shape == (2, 11, 48, 48)
    assert Segmenter(channels=1, classes=11, widths=(2, 4), fold=2)(x).shape == (2, 11, 48, 48)
    assert GridDetector(channels=1, classes=10, widths=(2, 4), depths=(1, 1))(x).shape == (2, 24 * 24, 15)
    assert Restorer(channels=1, width=2, depth=1, factor=2)(x).shape == (2, 1, 96, 96)


@pytest.mark.parametrize("task", ["canvas-segmentation", "canvas-detection", "super-resolution", "denoising"])
def test_the_static_nets_of_a_task_are_under_the_contract_and_span_a_range_of_costs(task):
    family, found = FAMILIES[task], data.load(task, "train", 6)
    costs = []
    for make in family.nets.values():
        model = family.wrap(make(found))
        loss = model.loss(found.inputs, found.target)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        y, trace = model.eval()(*found.inputs)
        score = model.correct(y, found.target)
        assert score.shape == (6,)
        assert ((score >= 0) & (score <= 1)).all()
        costs.append(trace.spent[0].item())
        assert costs[-1] == price(model.net, *found.inputs).macs
    assert costs == sorted(costs), "from cheap to dear"
    assert costs[-1] > 5 * costs[0]


def test_a_detector_learns_four_canvases_by_heart():
    """That the loss leads to the score: boxes, classes and scores of four canvases."""
    torch.manual_seed(0)
    found, det = data.load("canvas-detection", "train", 4), Detecting()
    net = nn.Sequential(nn.Flatten(), nn.Linear(48 * 48, 36 * 15), nn.Unflatten(1, (15, 6, 6)))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(150):
        loss = det.task(about_cells(net(found.inputs[0])), found.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert det.correct(about_cells(net(found.inputs[0])), found.target).mean() > 0.95
