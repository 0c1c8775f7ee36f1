"""Attribution against answers known by hand, shares of boxes, and what happens where there is nothing to share."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from dynnotes.show.explain import Share, attribute, cover, inside_box, overlay, randomised, reading

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])


@pytest.fixture
def weight():
    return torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(1))


def linear(weight):
    return lambda x: (x * weight).flatten(1).sum(1)


@pytest.mark.parametrize("baseline", [0.0, 0.25])
def test_linear_decision_is_known_by_hand(weight, baseline):
    x = torch.rand(5, 1, 4, 6)
    torch.testing.assert_close(attribute(linear(weight), x, baseline), weight * (x - baseline), rtol=1e-5, atol=1e-6)


def test_local_attribution_of_a_linear_decision_is_its_weights(weight):
    found = attribute(linear(weight), torch.rand(3, 1, 4, 6), local=True)
    torch.testing.assert_close(found, weight.expand(3, 1, 4, 6), rtol=1e-5, atol=1e-6)


def test_attribution_adds_up_to_what_the_input_changed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.Softplus(), nn.Linear(8, 1), nn.Flatten(0)).double()
    x = torch.rand(4, 1, 4, 6, dtype=torch.float64)
    change = (net(x) - net(torch.zeros_like(x))).detach()
    torch.testing.assert_close(attribute(net, x).flatten(1).sum(1), change, rtol=1e-6, atol=1e-8)


def test_samples_do_not_see_each_other_and_batches_do_not_matter(weight):
    def decision(x):
        return (x * weight).flatten(1).sum(1) ** 3

    x = torch.rand(7, 1, 4, 6)
    torch.testing.assert_close(attribute(decision, x, batch=2), attribute(decision, x, batch=7))


def test_a_baseline_of_the_shape_of_an_input(weight):
    base = torch.rand(1, 4, 6)
    x = torch.rand(2, 1, 4, 6)
    torch.testing.assert_close(attribute(linear(weight), x, base), weight * (x - base), rtol=1e-5, atol=1e-6)


def test_the_callers_tensor_is_left_alone(weight):
    x = torch.rand(2, 1, 4, 6, requires_grad=True)
    assert not attribute(linear(weight), x).requires_grad
    assert x.grad is None


def test_no_samples(weight):
    assert attribute(linear(weight), torch.zeros(0, 1, 4, 6)).shape == (0, 1, 4, 6)


def test_a_decision_that_is_not_one_number_per_sample_is_named():
    with pytest.raises(ValueError, match=r"one number per sample, not \[\d+, 24\]"):
        attribute(lambda x: x.flatten(1), torch.rand(2, 1, 4, 6))


def test_shares_counted_by_hand():
    why = torch.zeros(1, 1, 4, 4)
    why[0, 0, 0, 0], why[0, 0, 3, 3] = -3.0, 1.0                      # three quarters in the upper left quarter
    share = inside_box(why, torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
    assert share.found.item() == pytest.approx(0.75)
    assert share.area.item() == pytest.approx(0.25)


def test_pixels_on_the_edge_count_in_part():
    box = torch.tensor([[0.125, 0.25, 0.5, 1.0]])                     # x: half of pixel 0 and all of pixel 1
    row = torch.tensor([0.5, 1, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(cover(box, 4, 4)[0], torch.stack([row * 0, row, row, row]))


def test_the_area_of_random_boxes():
    corners = torch.rand(50, 2, 2, dtype=torch.float64).sort(1).values
    found = inside_box(torch.ones(50, 3, 7, 9), corners.flatten(1))
    torch.testing.assert_close(found.area, (corners[:, 1] - corners[:, 0]).prod(1))
    torch.testing.assert_close(found.found, found.area)              # even attribution: nothing but area


def test_what_was_not_seen_counts_nowhere():
    seen = torch.zeros(1, 4, 4)
    seen[:, :2] = 1
    share = inside_box(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0.0, 0.5, 1.0]]), seen)
    assert share == (0.5, 0.5)
    below = torch.zeros(1, 1, 4, 4)
    below[0, 0, 3] = 1                                                # all of it where nothing was seen
    assert math.isnan(inside_box(below, WHOLE, seen).found)


def test_no_attribution_is_no_share():
    share = inside_box(torch.zeros(2, 1, 4, 4), WHOLE.expand(2, 4))
    assert share.found.isnan().all()
    assert (share.area == 1).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_attribution_that_is_not_finite_names_its_sample(value):
    why = torch.ones(3, 1, 4, 4)
    why[2, 0, 1, 1] = value
    with pytest.raises(ValueError, match="sample 2 is not finite"):
        inside_box(why, WHOLE.expand(3, 4))


def test_a_box_without_area_holds_nothing():
    share = inside_box(torch.ones(1, 1, 4, 4), torch.tensor([[0.5, 0.0, 0.5, 1.0]]))
    assert share == (0.0, 0.0)


@pytest.mark.parametrize("box", [[0.5, 0.0, 0.2, 1.0], [0.0, 0.0, 1.5, 1.0], [math.nan, 0.0, 1.0, 1.0]])
def test_a_bad_box_is_refused(box):
    with pytest.raises(ValueError, match="x0 <= x1"):
        inside_box(torch.ones(1, 1, 4, 4), torch.tensor([box]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="boxes"):
        inside_box(torch.ones(2, 1, 4, 4), WHOLE)


class Odd(nn.Module):
    """A convolution, statistics, and a parameter that no module draws."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.own = nn.Parameter(torch.arange(40.0))


def test_randomised_forgets_everything_and_touches_nothing():
    torch.manual_seed(3)
    model = Odd()
    model.norm(torch.randn(8, 4, 5, 5))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    other = randomised(model, 5)
    assert torch.equal(torch.get_rng_state(), state)
    for name, t in model.state_dict().items():
        assert torch.equal(t, before[name]), name
    assert not torch.equal(other.conv.weight, model.conv.weight)
    assert not torch.equal(other.own, model.own)
    assert torch.equal(other.own.sort().values, model.own.sort().values)
    assert (other.norm.running_mean == 0).all()
    assert other.training == model.training


def test_randomised_is_seeded():
    model = Odd()
    one, same, another = (randomised(model, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.conv.weight, another.conv.weight)


def test_a_decision_that_looks_in_the_box_scores_above_its_area_and_random_weights_do_not():
    """The check that the chapters make, where the truth is known."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False), nn.Flatten(0))
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5]]).expand(20, 4)
    with torch.no_grad():
        net[1].weight.copy_(cover(boxes[:1], 8, 8).view(1, 64))
    x = torch.rand(20, 1, 8, 8)
    assert inside_box(attribute(net, x), boxes).found.min() > 0.999
    chance = torch.stack([inside_box(attribute(randomised(net, s), x), boxes).found.mean() for s in range(20)])
    assert chance.mean().item() == pytest.approx(0.25, abs=0.03)


def test_overlay_draws_images_attribution_and_boxes():
    images, why = torch.rand(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    captions = ["<b>one</b>", "two", "three"]
    figure = overlay(images, why, WHOLE.expand(3, 4), captions, title="<script>", sign=("stay", "go"))
    drawn = json.loads(figure.to_json())
    assert [t["type"] for t in drawn["data"]] == ["heatmap"] * 9       # each image twice, each attribution once
    assert len(drawn["layout"]["shapes"]) == 6
    assert drawn["layout"]["title"]["text"] == "&lt;script>"
    words = [a["text"] for a in drawn["layout"]["annotations"]]
    assert words[0] == "&lt;b>one&lt;/b>"
    assert "red stay, blue go" in words[-1]
    top = [max(abs(v) for row in t["z"] for v in row) for t in drawn["data"][2::3]]
    assert top == [1, 1, 1]                                            # each scaled by its own largest value


def test_overlay_of_nothing_attributed_is_drawn_plain():
    drawn = json.loads(overlay(torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)).to_json())
    assert {v for row in drawn["data"][2]["z"] for v in row} == {0}


def test_overlay_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="images and attribution"):
        overlay(torch.rand(2, 1, 4, 4), torch.rand(2, 1, 5, 5))
    with pytest.raises(ValueError, match="images and attribution"):
        overlay(torch.rand(0, 1, 4, 4), torch.rand(0, 1, 4, 4))


def shares(found, area):
    """Twenty samples near these shares."""
    wobble = torch.linspace(-0.02, 0.02, 20, dtype=torch.float64)
    return Share(found + wobble, torch.full((20,), area, dtype=torch.float64))


@pytest.mark.parametrize(
    ("trained", "random", "expected"),
    [
        (0.7, 0.31, ["70%", "30% of the pixels", "+40 points", "more than to the rest", "the area's share, or nearly"]),
        (0.7, 0.5, ["more than to the rest", "between the two, *not* the area's share"]),
        (0.7, 0.7, ["more than to the rest", "not something that training taught"]),
        (0.33, 0.3, ["slightly more than to the rest"]),
        (0.3, 0.3, ["no preference can be told", "not something that training taught"]),
        (0.1, 0.3, ["*less* than to the rest", "the difference was learned"]),
        (0.4, 0.6, ["more than to the rest", "*not* the area's share", "training lowered it"]),
    ],
)
def test_reading_says_what_the_shares_say(trained, random, expected):
    text = reading(shares(trained, 0.3), [shares(random, 0.3)] * 2)
    assert all(words in text for words in expected), text


def test_reading_leaves_out_samples_without_attribution():
    trained = shares(0.7, 0.3)
    trained.found[:5] = math.nan
    assert "15 images" in reading(trained, [shares(0.3, 0.3)])
    trained.found[:] = math.nan
    assert "nothing to read" in reading(trained, [shares(0.3, 0.3)])


def test_reading_of_one_sample_has_no_interval():
    text = reading(*(lambda s: (s, [s]))(Share(torch.tensor([0.5]), torch.tensor([0.25]))))
    assert "+25 points" in text
    assert "interval" not in text
