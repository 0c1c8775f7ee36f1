"""Rotary positions and grouped-query attention against plain loops in float64, and the bill."""
import math

import pytest
import torch

from dynnotes.execute import measured, run
from dynnotes.nets.rotary import RotaryLookBack, next_word, turned, words


def rotated(v, place, base):
    """Su et al. 2021, eq. (34): pair i of features turned by place * base^(-2i / size)."""
    half, out = len(v) // 2, [0.0] * len(v)
    for i in range(half):
        angle = place * base ** (-2 * i / len(v))
        out[i] = v[i] * math.cos(angle) - v[i + half] * math.sin(angle)
        out[i + half] = v[i] * math.sin(angle) + v[i + half] * math.cos(angle)
    return out


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def times(matrix, x):
    return [dot(row, x) for row in matrix.tolist()]


def look_back(block, x, heads, groups, size):
    """One sample [T, D] through the block, in loops."""
    weight, gain = block.query_key_value.weight, block.norm.weight.tolist()
    q_rows, k_rows = heads * size, groups * size
    queries, keys, values = [], [], []
    for t, token in enumerate(x.tolist()):
        scale = 1 / math.sqrt(dot(token, token) / len(token) + block.norm.eps)
        own = times(weight, [g * v * scale for g, v in zip(gain, token, strict=True)])
        queries.append([rotated(own[h * size:(h + 1) * size], t, block.base) for h in range(heads)])
        key, value = own[q_rows:q_rows + k_rows], own[q_rows + k_rows:]
        keys.append([rotated(key[g * size:(g + 1) * size], t, block.base) for g in range(groups)])
        values.append([value[g * size:(g + 1) * size] for g in range(groups)])
    answers = []
    for t, token in enumerate(x.tolist()):
        mixed = []
        for h in range(heads):
            g = h // (heads // groups)
            shares = [math.exp(dot(queries[t][h], keys[s][g]) / math.sqrt(size)) for s in range(t + 1)]
            mixed += [sum(p * values[s][g][i] for s, p in enumerate(shares)) / sum(shares) for i in range(size)]
        answers.append([v + y for v, y in zip(token, times(block.out.weight, mixed), strict=True)])
    return torch.tensor(answers, dtype=torch.float64)


def test_turned_is_equation_34_by_hand():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    y = turned(x, 100.0)
    for b in range(3):
        for t in range(5):
            expected = torch.tensor(rotated(x[b, t].tolist(), t, 100.0), dtype=torch.float64)
            torch.testing.assert_close(y[b, t], expected, rtol=1e-12, atol=1e-12)


def test_products_of_turned_vectors_depend_on_their_distance_alone():
    torch.manual_seed(0)
    q, k = (torch.randn(8, dtype=torch.float64) for _ in range(2))
    products = turned(q.expand(9, 8), 1e4) @ turned(k.expand(9, 8), 1e4).T
    for distance in range(-8, 9):
        same = products.diagonal(distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-12, atol=1e-12)
    assert (products[0] != products[0, 0]).sum() == 8


def test_half_precision_far_away_is_turned_by_the_right_angle():
    """Angles of places in bfloat16 would be off by whole turns; only the result is rounded."""
    x = torch.zeros(5000, 2, dtype=torch.bfloat16)
    x[:, 0] = 1
    t = torch.arange(5000, dtype=torch.float64)
    eps = torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(turned(x, 1e4).double(), torch.stack((t.cos(), t.sin()), -1), rtol=0, atol=eps)


@pytest.mark.parametrize(("heads", "groups", "size"), [(4, 4, None), (4, 2, None), (4, 1, 6), (1, 1, None)])
def test_the_block_by_hand(heads, groups, size):
    torch.manual_seed(1)
    block = RotaryLookBack(8, heads, groups, size=size, base=50.0).double()
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.query_key_value.weight)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    expected = torch.stack([look_back(block, sample, heads, groups, size or 8 // heads) for sample in x])
    torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)


def test_a_place_sees_none_after_it():
    torch.manual_seed(2)
    block = RotaryLookBack(8, 4, 2).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    other = torch.cat((x[:, :3], torch.randn(2, 3, 8, dtype=torch.float64)), 1)
    torch.testing.assert_close(block(other)[:, :3], block(x)[:, :3], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(block(other)[:, 3:], block(x)[:, 3:])


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_the_bill_is_what_ran(groups):
    """Projections for all heads and groups, and products of all queries with all keys, before the mask."""
    block = RotaryLookBack(8, 4, groups)
    x = torch.randn(3, 5, 8)
    with torch.no_grad(), measured() as bill:
        _, trace = run(block, x)
    by_hand = 5 * 8 * 8 * 2 + 5 * 8 * 2 * (2 * groups) + 2 * 4 * 5 * 5 * 2
    assert trace.spent.tolist() == [by_hand] * 3
    assert bill.macs == 3 * by_hand


def test_words_in_and_logits_out_have_no_bias():
    net = torch.nn.Sequential(words(11, 8), RotaryLookBack(8, 2), next_word(8, 11))
    assert net(torch.tensor([[1, 2, 10]])).shape == (1, 3, 11)
    assert not [name for name, _ in net.named_parameters() if "bias" in name]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="width 10 is not divisible by 4 heads"):
        RotaryLookBack(10, 4)
    with pytest.raises(ValueError, match="4 heads cannot share the keys of 3 groups"):
        RotaryLookBack(8, 4, 3)
    with pytest.raises(ValueError, match="has 3, which is odd"):
        RotaryLookBack(12, 4)
