"""Fidelity of the sparsely-gated mixture of experts: eq. (1) to (11) in plain loops, and its limits."""
import math

import torch

from dynnotes.decide.routers import NoisyTopK
from dynnotes.learn.budgets import cv_squared
from dynnotes.sample.width.experts.shazeer_moe import SparselyGatedMoE


def softplus(v):
    return math.log1p(math.exp(v))


def phi(v):
    return 0.5 * (1 + math.erf(v / math.sqrt(2)))


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def router(width=5, experts=6):
    torch.manual_seed(0)
    r = NoisyTopK(width, experts).double()
    torch.nn.init.normal_(r.score.weight)
    torch.nn.init.normal_(r.noise.weight)
    return r, torch.randn(7, width).double()


def test_equation_noisy_top_k_and_load_by_hand():
    """Eq. (3), (4), (5) and (8), (9): gate, weights, and the probability of being chosen under fresh noise."""
    r, x = router()
    k = 2
    torch.manual_seed(3)
    routing = r.train().choose(x, r(x), k)
    torch.manual_seed(3)
    noise = torch.randn(7, 6, dtype=torch.float64).tolist()
    w_g, w_noise = r.score.weight.tolist(), r.noise.weight.tolist()
    for t, token in enumerate(x.tolist()):
        clean = [dot(w, token) for w in w_g]
        std = [softplus(dot(w, token)) for w in w_noise]
        h = [c + n * s for c, n, s in zip(clean, noise[t], std, strict=True)]
        top = sorted(range(6), key=lambda i: -h[i])[:k]
        total = sum(math.exp(h[i]) for i in top)
        for i in range(6):
            assert routing.gate[t, i].item() == (i in top)
            assert abs(routing.weight[t, i].item() - (math.exp(h[i]) / total if i in top else 0)) < 1e-12
            others = sorted((h[j] for j in range(6) if j != i), reverse=True)
            assert abs(routing.load[t, i].item() - phi((clean[i] - others[k - 1]) / std[i])) < 1e-12


def test_equation_the_whole_layer_and_both_losses_by_hand():
    """Eq. (1): the weighted sum of the chosen experts; eq. (6), (7), (10), (11): squared coefficients of variation."""
    torch.manual_seed(0)
    model, (x,), target = SparselyGatedMoE.demo()
    model, x = model.double(), x.double()
    model.dropout.p = 0.0
    model.train()
    torch.manual_seed(4)
    y, _, routing = model._read(x)
    with torch.no_grad():
        tokens = model.embed(x)
        tokens = tokens + model.first(tokens)
        mixed = torch.zeros_like(tokens)
        for b in range(tokens.shape[0]):
            for t in range(tokens.shape[1]):
                for e in range(8):
                    if routing.gate[b, t, e]:
                        a, c = model.experts.w1[e], model.experts.w2[e]
                        hidden = [max(0.0, dot(row, tokens[b, t].tolist())) for row in a.tolist()]
                        out = torch.tensor([dot(row, hidden) for row in c.tolist()], dtype=torch.float64)
                        mixed[b, t] += routing.weight[b, t, e] * out
        h = tokens + mixed.sigmoid()
        h = h + model.second(h)
        torch.testing.assert_close(y, model.head(h), rtol=1e-9, atol=1e-9)

    def cv2(columns):
        mean = sum(columns) / len(columns)
        return sum((c - mean) ** 2 for c in columns) / len(columns) / mean ** 2
    importance = [sum(routing.weight[..., e].flatten().tolist()) for e in range(8)]
    load = [sum(routing.load[..., e].flatten().tolist()) for e in range(8)]
    by_hand = model.task(y, target).item() + 0.1 * cv2(importance) + 0.1 * cv2(load)
    torch.manual_seed(4)
    assert abs(model.loss((x,), target).item() - by_hand) < 1e-9


def test_limit_k_equal_to_all_is_the_soft_mixture():
    torch.manual_seed(0)
    model, (x,), _ = SparselyGatedMoE.demo()
    model, x = model.double().eval().at(8), x.double()
    with torch.no_grad():
        _, trace, routing = model._read(x)
        tokens = model.embed(x)
        tokens = tokens + model.first(tokens)
        torch.testing.assert_close(routing.weight, model.router(tokens).softmax(-1))
    assert (trace.spent == trace.full).all()


def test_conservation_every_token_uses_k_experts_and_its_weights_sum_to_one():
    r, x = router()
    for k in (1, 3, 6):
        for mode in (r.train(), r.eval()):
            routing = mode.choose(x, r(x), k)
            assert (routing.gate.sum(-1) == k).all()
            torch.testing.assert_close(routing.weight.sum(-1), torch.ones(7).double())
            assert not routing.weight[routing.gate == 0].any()


def test_load_starts_even():
    """App. A: both matrices start at zero, so every expert is equally likely."""
    r = NoisyTopK(5, 6).double().train()
    x = torch.randn(2000, 5).double()
    load = r.choose(x, r(x), 2).load.detach().mean(0)
    torch.testing.assert_close(load, torch.full((6,), load.mean().item()).double(), rtol=0.1, atol=0)


def test_cv_squared_of_equal_and_single_values_is_zero():
    assert cv_squared(torch.ones(4)) == 0 and cv_squared(torch.tensor([3.0])) == 0
    assert torch.isfinite(cv_squared(torch.zeros(4)))
