"""The task of many bands: seeded, without leaks, ink in the bands that are said to show it, hard where it says so."""
import pytest
import torch
import torch.nn.functional as F

from dynnotes import data
from dynnotes.data import _digits, many_band_digits


@pytest.fixture
def clean(monkeypatch):
    """Images without noise, texture or anything that is not said, and the ink of each as it was drawn."""
    monkeypatch.setattr(many_band_digits, "NOISE", 1e-9)
    real, drawn = _digits.placed, []
    monkeypatch.setattr(_digits, "placed", lambda *a: drawn.append(real(*a)[:, 0]) or drawn[-1].unsqueeze(1))
    monkeypatch.setattr(F, "interpolate", lambda x, size, **_: torch.full((len(x), 1, size, size), 0.5))
    found = data.load("many-band-digits", "test", 200, seed=1)
    return found, drawn


def test_the_same_seed_gives_the_same_images_and_another_seed_others():
    one, again, other = (data.load("many-band-digits", "test", 20, seed) for seed in (3, 3, 4))
    assert torch.equal(one.inputs[0], again.inputs[0])
    assert torch.equal(one.target, again.target)
    assert not torch.equal(one.inputs[0], other.inputs[0])


@pytest.mark.parametrize("split", data.SPLITS)
def test_digits_and_fragments_come_from_the_split_alone(split, monkeypatch):
    images, classes = _digits.digits()
    poisoned = torch.full_like(images, float("nan"))
    poisoned[_digits.sources(split)] = images[_digits.sources(split)]
    monkeypatch.setattr(_digits, "digits", lambda: (poisoned, classes))
    assert data.load("many-band-digits", split, 200).inputs[0].isfinite().all()


def test_shapes_ranges_and_the_formula_of_hard():
    found = data.load("many-band-digits", "test", 1500)
    x, d = found.inputs[0], found.difficulty
    assert x.shape == (1500, 16, 24, 24)
    assert x.min() >= 0 and x.max() <= 1
    assert set(found.target.tolist()) == set(range(10))
    by_hand = ((8 - d["bands"]) / 7 + (0.4 - d["contrast"]) / 0.2 + d["distractors"] / 8 + d["noise"] / 0.12) / 4
    torch.testing.assert_close(found.hard, by_hand, rtol=0, atol=1e-6)
    assert found.hard.min() < 0.05
    assert found.hard.max() > 0.95
    for values in d.values():
        assert torch.corrcoef(torch.stack([values, found.hard]))[0, 1].abs() > 0.85, "the four go together"


def test_as_many_bands_are_informative_as_is_said_and_none_more_often_than_others():
    found = data.load("many-band-digits", "test", 1500)
    assert torch.equal(found.informative.sum(1), found.difficulty["bands"])
    assert set(found.difficulty["bands"].tolist()) == set(range(1, 9))
    assert set(found.difficulty["distractors"].tolist()) == set(range(9))
    share = found.informative.mean(0)
    assert (share - share.mean()).abs().max() < 0.06


def test_each_band_is_its_background_and_the_ink_that_it_is_said_to_show(clean):
    """Without noise and texture: flat, or flat and the digit, or flat and a fragment, at the contrast that is said."""
    found, (ink, first, second) = clean
    d = found.difficulty
    kinds = torch.zeros(3, len(found))
    for n in range(len(found)):
        for b in range(16):
            band = found.inputs[0][n, b]
            if found.informative[n, b]:
                shown = [ink[n]]
            else:
                shown = [torch.zeros(24, 24), first[n], second[n]]
            fits = [((band - d["contrast"][n] * s).std() < 1e-5).item() for s in shown]
            assert any(fits)
            kinds[0 if found.informative[n, b] else 2 if not fits[0] else 1, n] += 1
    assert torch.equal(kinds[0], d["bands"])
    assert torch.equal(kinds[2], d["distractors"])


def test_the_box_holds_the_ink(clean):
    found, (ink, *_) = clean
    pixel = (torch.arange(24) + 0.5) / 24
    x0, y0, x1, y1 = (b[:, None, None] for b in found.box.T)
    inside = (pixel > x0) & (pixel < x1) & (pixel[:, None] > y0) & (pixel[:, None] < y1)
    border = F.max_pool2d(inside[:, None].float(), 5, 1, 2)[:, 0].bool()     # half a source pixel is up to 1.25 here
    assert ink.masked_fill(border, 0).max() == 0
    assert (ink.masked_fill(~inside, 0).sum((1, 2)) > 0.8 * ink.sum((1, 2))).all()


def test_neighbouring_bands_look_alike_behind_the_ink(clean):
    found, (ink, first, second) = clean
    clear = (ink + first + second).flatten(1).argmin(1)
    behind = found.inputs[0].flatten(2).gather(2, clear.view(-1, 1, 1).expand(-1, 16, 1)).squeeze(2)
    assert behind.min() >= 0.1 - 1e-6
    assert behind.max() <= 0.3 + 1e-6
    assert (behind[:, 1:] - behind[:, :-1]).abs().max() < 0.06


def test_noise_is_the_mean_of_the_bands_and_one_has_up_to_thrice_that_of_another(monkeypatch):
    monkeypatch.setattr(many_band_digits, "_spectra", lambda turns: torch.full((len(turns), 16), 0.5))
    monkeypatch.setattr(many_band_digits, "STRONG", 1e-6)
    monkeypatch.setattr(many_band_digits, "WEAK", 0.0)
    monkeypatch.setattr(F, "interpolate", lambda x, size, **_: torch.full((len(x), 1, size, size), 0.5))
    found = data.load("many-band-digits", "test", 300)
    grain = found.inputs[0].std((2, 3))
    torch.testing.assert_close(grain.mean(1), found.difficulty["noise"], rtol=0, atol=0.003)
    loud = found.difficulty["noise"] > 0.03
    ratio = grain[loud].amax(1) / grain[loud].amin(1)
    assert 2 < ratio.median() < 3.2


def read(found, weight):
    """The box's 8x8 pixels of the weighted mean of the bands, free of brightness and contrast."""
    bands = found.inputs[0]
    image = (bands * weight[:, :, None, None]).sum(1, keepdim=True)
    x0, y0, x1, y1 = found.box.T
    zero = torch.zeros_like(x0)
    across, down = [x1 - x0, zero, x0 + x1 - 1], [zero, y1 - y0, y0 + y1 - 1]
    grid = F.affine_grid(torch.stack([torch.stack(across, 1), torch.stack(down, 1)], 1), (len(found), 1, 8, 8),
                         align_corners=False)
    return F.normalize(F.layer_norm(F.grid_sample(image, grid, align_corners=False).flatten(1), (64,)))


def test_who_knows_the_bands_reads_the_digit_who_sees_the_others_guesses():
    """A nearest neighbour that knows where to look: all depends on the bands that it looks at."""
    known, asked = data.load("many-band-digits", "train", 2000), data.load("many-band-digits", "test", 1000)

    def right(weight):
        nearest = torch.cdist(read(asked, weight(asked)), read(known, weight(known))).argmin(1)
        return (known.target[nearest] == asked.target).double()

    told, one, every, others = map(right, (
        lambda found: found.informative, lambda found: F.one_hot(found.informative.argmax(1), 16),
        lambda found: torch.ones_like(found.informative), lambda found: 1 - found.informative))
    assert told.mean() > 0.9
    assert one.mean() > 0.85, "one of them is almost enough"
    assert every.mean() < 0.65
    assert others.mean() < 0.15
    easy, middle, hard = (every[third].mean() for third in asked.hard.argsort().tensor_split(3))
    assert easy > middle + 0.1 > hard + 0.2
    easy, _, hard = (told[third].mean() for third in asked.hard.argsort().tensor_split(3))
    assert easy > hard
