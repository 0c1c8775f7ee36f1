"""Fidelity of the mixture of local experts: eq. (1.1) to (1.5) in plain loops, what the paper says of them, limits."""
import math

import pytest
import torch

from dynnotes.sample.width.experts.local_experts import (
    LocalExperts,
    blended_error,
    competitive_error,
    expected_error,
)

ERRORS = {"1.1": blended_error, "1.2": expected_error, "1.3": competitive_error}


def case(experts=4, classes=3, batch=5):
    """Shares, outputs that need not be distributions, desired outputs."""
    torch.manual_seed(0)
    p = torch.randn(batch, experts).double().softmax(1)
    return p, torch.randn(batch, experts, classes).double().requires_grad_(), torch.randn(batch, classes).double()


def distances(o, d):
    return [sum((a - b) ** 2 for a, b in zip(d, row, strict=True)) for row in o]


def by_hand(number, p, o, d):
    """The error of one case, by its equation."""
    if number == "1.1":
        return sum((d[c] - sum(p[i] * o[i][c] for i in range(len(p)))) ** 2 for c in range(len(d)))
    far = distances(o, d)
    if number == "1.2":
        return sum(p[i] * far[i] for i in range(len(p)))
    return -math.log(sum(p[i] * math.exp(-far[i] / 2) for i in range(len(p))))


def gradient_by_hand(number, p, o, d):
    """Its derivative with respect to every output: eq. (1.4), (1.5), and of (1.1) the residual all experts share."""
    experts, far = range(len(p)), distances(o, d)
    if number == "1.1":
        blend = [sum(p[i] * o[i][c] for i in experts) for c in range(len(d))]
        return [[-2 * p[i] * (d[c] - blend[c]) for c in range(len(d))] for i in experts]
    if number == "1.2":
        return [[-2 * p[i] * (d[c] - o[i][c]) for c in range(len(d))] for i in experts]
    total = sum(p[j] * math.exp(-far[j] / 2) for j in experts)
    return [[-p[i] * math.exp(-far[i] / 2) / total * (d[c] - o[i][c]) for c in range(len(d))] for i in experts]


@pytest.mark.parametrize("number", ERRORS)
def test_equation_errors_and_their_gradients_by_hand(number):
    """Eq. (1.1), (1.2), (1.3); with respect to an expert's output, (1.2) gives (1.4) and (1.3) gives (1.5)."""
    p, o, d = case()
    errors = ERRORS[number](p, o, d)
    errors.sum().backward()
    for b in range(len(p)):
        args = (number, p[b].tolist(), o[b].tolist(), d[b].tolist())
        assert abs(errors[b].item() - by_hand(*args)) < 1e-12
        wanted = torch.tensor(gradient_by_hand(*args), dtype=torch.float64)
        torch.testing.assert_close(o.grad[b], wanted, rtol=1e-12, atol=1e-12)


def test_equation_responsibilities_grow_where_an_expert_does_better_than_the_average():
    """Sec. 1: under (1.2) the share of an expert grows exactly where its error is below the mean of all, by shares."""
    _, o, d = case()
    scores = torch.randn(5, 4).double().requires_grad_()
    expected_error(scores.softmax(1), o.detach(), d).sum().backward()
    for b in range(5):
        powers = [math.exp(v) for v in scores[b].tolist()]
        p = [v / sum(powers) for v in powers]
        far = distances(o[b].tolist(), d[b].tolist())
        mean = sum(a * e for a, e in zip(p, far, strict=True))
        for i in range(4):
            assert abs(scores.grad[b, i].item() - p[i] * (far[i] - mean)) < 1e-12


def test_worked_example_the_best_expert_learns_slowest_by_one_and_fastest_by_the_other():
    """Sec. 1: equal shares and every ||d - o_i|| > 1: (1.4) adapts the best-fitting expert slowest, (1.5) fastest."""
    o = torch.tensor([[[1.2, 0.0], [0.0, 1.6], [-2.0, 0.0], [0.0, -3.0]]]).double()
    speeds = {}
    for error in (expected_error, competitive_error):
        out = o.clone().requires_grad_()
        error(torch.full((1, 4), 0.25).double(), out, torch.zeros(1, 2).double()).sum().backward()
        speeds[error] = out.grad[0].norm(dim=1)
    assert speeds[expected_error].argsort().tolist() == [0, 1, 2, 3]
    assert speeds[competitive_error].argsort().tolist() == [3, 2, 1, 0]


def test_equation_the_whole_network_by_hand():
    """Fig. 1 and table 1: p_j = exp(x_j) / sum exp(x_i), each expert a distribution over the classes, their blend."""
    torch.manual_seed(1)
    model, (x,), target = LocalExperts.demo()
    model, x = model.double(), x.double()
    y, trace = model(x)
    loss = 0.0
    gate, linear = model.gate.score, model.experts.linear
    for b, row in enumerate(x.tolist()):
        def weigh(layer, unit, row=row):
            return sum(w * v for w, v in zip(layer.weight[unit].tolist(), row, strict=True)) + layer.bias[unit].item()

        def softmax(values):
            powers = [math.exp(v) for v in values]
            return [v / sum(powers) for v in powers]
        p = softmax([weigh(gate, i) for i in range(4)])
        o = [softmax([weigh(linear, 3 * i + c) for c in range(3)]) for i in range(4)]
        for i in range(4):
            assert abs(trace.decisions[0].weight[b, i].item() - p[i]) < 1e-12
        for c in range(3):
            assert abs(y[b, c].exp().item() - sum(p[i] * o[i][c] for i in range(4))) < 1e-12
        loss += by_hand("1.3", p, o, [float(c == target[b]) for c in range(3)]) / len(x)
    assert abs(model.loss((x,), target).item() - loss) < 1e-12


def test_limit_one_expert_alone_makes_all_errors_one():
    """With one expert (1.1) is (1.2), and (1.3) half of it."""
    _, o, d = case(experts=1)
    one = torch.ones(5, 1).double()
    torch.testing.assert_close(blended_error(one, o, d), expected_error(one, o, d))
    torch.testing.assert_close(2 * competitive_error(one, o, d), expected_error(one, o, d))


def test_limit_equal_experts_do_not_need_a_gate():
    p, o, d = case()
    same = o[:, :1].expand_as(o)
    torch.testing.assert_close(blended_error(p, same, d), expected_error(p, same, d))
    torch.testing.assert_close(2 * competitive_error(p, same, d), expected_error(p, same, d))


def test_the_gate_starts_with_equal_shares_in_all_cases():
    """Sec. 3: the system begins in an unbiased state."""
    torch.manual_seed(0)
    _, trace = LocalExperts(inputs=2, classes=10, experts=8)(torch.randn(6, 2))
    assert (trace.decisions[0].weight == 1 / 8).all()


def test_conservation_shares_and_answers_are_distributions():
    model, (x,), _ = LocalExperts.demo()
    y, trace = model.double()(x.double())
    torch.testing.assert_close(trace.decisions[0].weight.sum(1), torch.ones(10).double())
    torch.testing.assert_close(y.exp().sum(1), torch.ones(10).double())
    assert (trace.spent == trace.full).all()


def test_count_every_product():
    """2 inputs, 8 experts, 10 classes: the gate 2 * 8, the experts 2 * 80, the blend 8 * 10."""
    _, trace = LocalExperts(inputs=2, classes=10, experts=8)(torch.randn(3, 2))
    assert trace.spent.tolist() == [2 * 8 + 2 * 80 + 8 * 10] * 3
