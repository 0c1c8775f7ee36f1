"""Noise that is stronger here than there, by a known map."""
import torch

from dynnotes import data
from dynnotes.data import denoising


def test_shapes_and_the_formula_of_hard():
    found = data.load("denoising", "train", 200)
    d = found.difficulty
    assert found.inputs[0].shape == (200, 1, 48, 48)
    assert torch.equal(found.target[:, 1:], found.inputs[0]), "the naive answer is the input"
    by_hand = ((32 - d["scale"]) / 20 + (12 - d["wavelength"]) / 9 + d["grain"] / 1.0) / 3
    torch.testing.assert_close(found.hard, by_hand, rtol=0, atol=1e-6)
    torch.testing.assert_close(d["noise"], denoising.NOISE * found.informative.mean((1, 2)))


def test_the_noise_is_as_strong_as_the_map_says():
    found = data.load("denoising", "test", 500)
    noise, strength = found.inputs[0][:, 0] - found.target[:, 0], found.informative
    assert noise[strength == 0].abs().max() == 0
    for low in (0.1, 0.4, 0.7):
        some = (strength > low) & (strength < low + 0.1)
        ratio = noise[some].std() / (denoising.NOISE * strength[some].square().mean().sqrt())
        assert abs(ratio - 1) < 0.05
    assert (strength == 0).any(2).any(1).double().mean() > 0.7, "most pictures have a part without noise"
    assert 0.3 < strength.mean() < 0.7


def test_grain_makes_neighbours_err_alike_and_keeps_the_strength():
    white = torch.randn(4, 96, 96, generator=torch.Generator().manual_seed(0))
    found = denoising.grained(white, torch.tensor([0.0, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(found[0], white[0])
    near = [(f[:, 1:] * f[:, :-1]).mean().item() for f in found]
    assert near[0] < 0.05
    assert near[1] < near[2]
    assert abs(near[2] - 0.78) < 0.06                                   # exp(-1 / (4 * 1 ** 2)) for a Gaussian blur
    torch.testing.assert_close(found.flatten(1).std(1), torch.ones(4), rtol=0.05, atol=0)


def test_a_blur_removes_less_of_the_noise_where_it_is_hard():
    """Three by three means where there is noise, the input elsewhere: for one who is told the map."""
    found = data.load("denoising", "test", 600)
    seen, clean = found.inputs[0][:, 0], found.target[:, 0]
    means = torch.nn.functional.avg_pool2d(seen.unsqueeze(1), 3, 1, 1, count_include_pad=False)[:, 0]
    answer = torch.where(found.informative > 0.4, means, seen)
    left = (answer - clean).square().mean((1, 2)) / (seen - clean).square().mean((1, 2))
    easy, middle, hard = (left[third].median() for third in found.hard.argsort().tensor_split(3))
    assert easy + 0.05 < middle < hard - 0.05
