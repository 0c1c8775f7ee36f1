"""Pictures of half the size: what the input tells, and what it cannot."""
import torch

from dynnotes import data
from dynnotes.data import _pictures, super_resolution
from dynnotes.nets.dense import psnr


def test_shapes_and_the_formula_of_hard():
    found = data.load("super-resolution", "train", 200)
    d = found.difficulty
    assert found.inputs[0].shape == (200, 1, 24, 24)
    assert found.target.shape == (200, 2, 48, 48)
    assert found.target.min() >= 0
    assert found.target.max() <= 1
    assert found.labels == ()
    by_hand = ((32 - d["scale"]) / 20 + (12 - d["wavelength"]) / 9 + d["noise"] / 0.06) / 3
    torch.testing.assert_close(found.hard, by_hand, rtol=0, atol=1e-6)


def test_the_input_is_the_mean_of_four_pixels_and_noise_of_the_known_strength():
    found = data.load("super-resolution", "test", 300)
    clean = found.target[:, 0]
    means = (clean[:, ::2, ::2] + clean[:, 1::2, ::2] + clean[:, ::2, 1::2] + clean[:, 1::2, 1::2]) / 4
    off = (found.inputs[0][:, 0] - means).flatten(1).std(1)
    torch.testing.assert_close(off, found.difficulty["noise"], rtol=0.15, atol=1e-6)


def test_the_naive_answer_follows_from_the_input_and_keeps_flat_regions():
    found = data.load("super-resolution", "test", 5)
    assert torch.equal(super_resolution.naive(found.inputs[0])[:, 0], found.target[:, 1])
    flat = super_resolution.naive(torch.full((1, 1, 24, 24), 0.4))
    torch.testing.assert_close(flat, torch.full((1, 1, 48, 48), 0.4))


def test_informative_is_what_the_naive_answer_misses_without_noise(monkeypatch):
    monkeypatch.setattr(super_resolution, "NOISE", 1e-9)
    found = data.load("super-resolution", "test", 50)
    off = (found.target[:, 0] - found.target[:, 1]).abs() / super_resolution.LOST
    torch.testing.assert_close(found.informative, off.clamp(max=1), rtol=0, atol=1e-5)


def test_the_naive_answer_is_worse_where_it_is_hard():
    found = data.load("super-resolution", "test", 600)
    ratio = psnr(found.target[:, 1:], found.target[:, :1])
    easy, middle, hard = (ratio[third].mean() for third in found.hard.argsort().tensor_split(3))
    assert easy > middle + 0.5 > hard + 1


def test_stripes_have_their_wavelength(monkeypatch):
    """Without digits and shades, and with stripes everywhere: the strongest frequency along the better axis."""
    monkeypatch.setattr(_pictures, "DIGITS", 0)
    monkeypatch.setattr(_pictures, "smooth", lambda knots, side: torch.full((len(knots), 1, side, side), 0.51))
    found = _pictures.pictures("train", 48, torch.full((40,), 16.0), torch.full((40,), 6.0),
                               torch.Generator().manual_seed(0))
    spectrum = torch.fft.fft2(found[:, 0] - found[:, 0].mean((1, 2), keepdim=True)).abs()
    down, across = torch.fft.fftfreq(48)[:, None], torch.fft.fftfreq(48)
    strongest = (down.square() + across.square()).sqrt().expand(40, 48, 48).flatten(1)
    frequency = strongest.gather(1, spectrum.flatten(1).argmax(1, keepdim=True))
    assert (frequency - 1 / 6).abs().max() < 0.02


def test_strokes_are_sharp():
    found = data.load("super-resolution", "test", 100)
    rise = found.target[:, 0].diff(dim=2).abs().flatten(1).max(1).values
    assert rise.min() > 0.3, "ink rises within about a pixel, whatever the size of the digit"
