"""Fidelity of the Switch Transformer: eq. (1) to (6) in plain loops, its starting values, and its limits."""
import copy
import math

import pytest
import torch

from dynnotes.nets.language import FeedForward
from dynnotes.nets.starting import start_small
from dynnotes.sample.width.experts.switch_transformer import SwitchLayer, SwitchTransformer


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def norm(x, scale, shift, eps=1e-5):
    mean = sum(x) / len(x)
    var = sum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / math.sqrt(var + eps) * a + b for v, a, b in zip(x, scale, shift, strict=True)]


def switch_layer(layer, rows, factor):
    """Eq. (1), (2) with one expert, (3): (answers, choices, probabilities, who was dropped) of tokens in one row."""
    w_r = layer.router.score.weight.tolist()
    w1, w2 = layer.experts.w1.tolist(), layer.experts.w2.tolist()
    experts = len(w_r)
    capacity = math.floor(len(rows) / experts * factor + 1e-9)
    used, answers, choices, probabilities, dropped = [0] * experts, [], [], [], []
    for row in rows:
        x = norm(row, layer.norm.weight.tolist(), layer.norm.bias.tolist())
        h = [dot(w, x) for w in w_r]
        total = sum(math.exp(v) for v in h)
        p = [math.exp(v) / total for v in h]
        i = max(range(experts), key=lambda e: p[e])
        choices.append(i)
        probabilities.append(p)
        dropped.append(used[i] >= capacity)
        if dropped[-1]:
            answers.append([0.0] * len(x))
        else:
            used[i] += 1
            hidden = [max(0.0, dot(w, x)) for w in w1[i]]
            answers.append([p[i] * dot(w, hidden) for w in w2[i]])
    return answers, choices, probabilities, dropped


def balance(choices, probabilities, alpha):
    """Eq. (4), (5), (6)."""
    n, t = len(probabilities[0]), len(choices)
    f = [sum(c == i for c in choices) / t for i in range(n)]
    p = [sum(row[i] for row in probabilities) / t for i in range(n)]
    return alpha * n * sum(a * b for a, b in zip(f, p, strict=True))


def demo():
    torch.manual_seed(0)
    model, (x,), target = SwitchTransformer.demo()
    start_small(model, 10.0)                                      # far from even, so that experts overflow
    return model.double().eval(), x, target


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25, 2.0])
def test_equation_the_layer_by_hand(factor):
    """Eq. (1), (2), (3): probabilities, the choice, room by the order of tokens over the whole batch, the answers."""
    torch.manual_seed(1)
    layer = SwitchLayer(6, 5, 4).double().eval()
    torch.nn.init.normal_(layer.router.score.weight)
    torch.nn.init.normal_(layer.norm.weight)
    x = torch.randn(3, 7, 6).double()
    answers, choices, probabilities, dropped = switch_layer(layer, x.flatten(0, 1).tolist(), factor)
    assert any(dropped) == (factor < 2) and not all(dropped)
    for sparse in (False, True):
        y, trace, routing = layer.mix(x, factor, name="experts", sparse=sparse)
        torch.testing.assert_close(y.flatten(0, 1), torch.tensor(answers, dtype=torch.float64), rtol=1e-12, atol=1e-12)
        for t in range(21):
            for e in range(4):
                assert routing.wanted[t, e].item() == (choices[t] == e)
                assert routing.gate[t, e].item() == (choices[t] == e and not dropped[t])
                assert abs(routing.probs[t, e].item() - probabilities[t][e]) < 1e-12
        assert routing.dropped.tolist() == [float(d) for d in dropped]
        for b in range(3):                                        # 24 for the router, 60 for each token served
            assert trace.spent[b].item() == 7 * 24 + 60 * sum(not d for d in dropped[7 * b:7 * b + 7])


def test_equation_the_whole_objective_by_hand():
    """Eq. (4), (5), (6), added to the cross-entropy for each Switch layer (sec. 2.2); two of them here."""
    torch.manual_seed(0)
    model = SwitchTransformer(words=11, length=6, width=8, depth=2, heads=2, hidden=6, experts=4, every=1,
                              capacity_factor=1.0, jitter=0.0, scale=10.0).double()
    x, target = torch.randint(11, (5, 6)), torch.randint(11, (5, 6))
    with torch.no_grad():
        h, extra = model.embed(x), 0.0
        for look, then in zip(model.look, model.then):
            h = look(h)
            answers, choices, probabilities, dropped = switch_layer(then, h.flatten(0, 1).tolist(), 1.0)
            assert any(dropped)
            h = h + torch.tensor(answers, dtype=torch.float64).view_as(h)
            extra += balance(choices, probabilities, 0.01)
        logits = model.head(h)
        entropy = 0.0
        for row, word in zip(logits.flatten(0, 1).tolist(), target.flatten().tolist(), strict=True):
            entropy += math.log(sum(math.exp(v) for v in row)) - row[word]
        y, _ = model.eval()(x)
        torch.testing.assert_close(y, logits, rtol=1e-11, atol=1e-11)
    assert abs(model.train().loss((x,), target).item() - (entropy / 30 + extra)) < 1e-11


def test_equation_jitter_is_for_the_router_alone():
    """App. C: while training the router's input is multiplied by noise from [0.99, 1.01]; what experts see is not."""
    torch.manual_seed(2)
    layer = SwitchLayer(6, 5, 4).double().train()
    x = torch.randn(1, 9, 6).double()
    torch.manual_seed(5)
    y, _, routing = layer.mix(x, 4, name="experts", sparse=True)
    torch.manual_seed(5)
    noise = torch.empty(1, 9, 6, dtype=torch.float64).uniform_(0.99, 1.01).flatten(0, 1).tolist()
    assert min(min(n) for n in noise) < 0.995 and max(max(n) for n in noise) > 1.005
    for t, row in enumerate(x[0].tolist()):
        seen = norm(row, [1.0] * 6, [0.0] * 6)
        h = [dot(w, [a * n for a, n in zip(seen, noise[t], strict=True)]) for w in layer.router.score.weight.tolist()]
        p = [math.exp(v) / sum(math.exp(u) for u in h) for v in h]
        i = max(range(4), key=lambda e: p[e])
        hidden = [max(0.0, dot(w, seen)) for w in layer.experts.w1[i].tolist()]
        for d, w in enumerate(layer.experts.w2[i].tolist()):
            assert abs(y[0, t, d].item() - p[i] * dot(w, hidden)) < 1e-12
        assert abs(routing.probs[t, i].item() - p[i]) < 1e-12
    quiet = layer.eval().mix(x, 4, name="experts", sparse=True)[2]
    assert (quiet.probs - routing.probs).abs().max() > 1e-5


def test_equation_starting_values():
    """Sec. 2.4: std sqrt(s / fan-in), nothing beyond two of it; s = 0.1 where 1.0 is usual.

    A normal distribution cut off at two standard deviations keeps 0.8796 of its own, sqrt(1 - 4 phi(2) / erf(sqrt 2)).
    """
    kept = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
    torch.manual_seed(0)
    model = SwitchTransformer(words=9, length=4, width=128, depth=1, heads=2, hidden=64, experts=8, every=1)
    layer, look = model.then[0], model.look[0]
    for w, fan in ((layer.experts.w1, 128), (layer.experts.w2, 64), (look.query_key_value.weight, 128),
                   (look.out.weight, 128)):
        std = math.sqrt(0.1 / fan)
        assert w.abs().max().item() <= 2 * std * (1 + 1e-6)
        assert abs(w.std().item() / (kept * std) - 1) < 4 / math.sqrt(2 * w.numel())
        assert abs(w.mean().item()) < 4 * std / math.sqrt(w.numel())
    assert layer.router.score.weight.abs().max().item() <= 2 * math.sqrt(0.1 / 128) * (1 + 1e-6)


def test_limit_no_room_is_the_residual_alone():
    model, x, _ = demo()
    with torch.no_grad():
        y, trace = model.at(0)(x)
        h = model.look[1](model.then[0](model.look[0](model.embed(x))))
        torch.testing.assert_close(y, model.head(h), rtol=0, atol=0)
        dearer = copy.deepcopy(model).at(1)(x)[1]
    assert not trace.decisions[0].gate.any() and (trace.spent < dearer.spent).any()


def test_limit_room_for_all_drops_none_and_no_more_room_changes_it():
    model, x, _ = demo()
    with torch.no_grad():
        full, _, routings = model.at(8)._read(x)
        assert not routings[0].dropped.any()
        alone = torch.cat([model(row[None])[0] for row in x])
        tight, _, routings = model.at(1)._read(x)
    torch.testing.assert_close(full, alone, rtol=1e-12, atol=1e-12)
    assert routings[0].dropped.any() and (tight - full).abs().max() > 1e-6


def test_limit_one_expert_is_the_dense_layer():
    """One expert has probability 1: its answer is that of a feed-forward layer of the same weights."""
    torch.manual_seed(0)
    layer, dense = SwitchLayer(6, 5, 1).double().eval(), FeedForward(6, 5).double()
    with torch.no_grad():
        dense.then[1].weight.copy_(layer.experts.w1[0])
        dense.then[3].weight.copy_(layer.experts.w2[0])
        dense.then[1].bias.zero_()
        dense.then[3].bias.zero_()
        x = torch.randn(2, 4, 6).double()
        y, _, _ = layer.mix(x, 1, name="experts", sparse=True)
        torch.testing.assert_close(x + y, dense(x), rtol=1e-12, atol=1e-12)


def test_conservation_each_token_wants_one_expert_and_none_serves_more_than_its_room():
    model, x, _ = demo()
    for factor in (0.5, 1, 1.25, 2, 8):
        _, trace, (routing,) = model.at(factor)._read(x)
        assert (routing.wanted.sum(-1) == 1).all() and (routing.gate <= routing.wanted).all()
        room = math.floor(factor * 48 / 8)
        assert (routing.gate.sum(0) == routing.wanted.sum(0).clamp(max=room)).all()
        assert trace.decisions[0].gate.sum() == routing.gate.sum()
