"""Fidelity of GShard: algorithm 1 line by line in plain loops, eq. (2) and (3), the loss, and its limits."""
import math

import torch

from dynnotes.decide.routers import RandomSecond
from dynnotes.sample.width.experts.gshard import GShard, l_aux


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def softmax(row):
    top = max(row)
    powers = [math.exp(v - top) for v in row]
    return [p / sum(powers) for p in powers]


def top_2(gates):
    """(g1, e1, g2, e2)"""
    e1, e2 = sorted(range(len(gates)), key=lambda e: -gates[e])[:2]
    return gates[e1], e1, gates[e2], e2


def algorithm_1(scores, capacity, random):
    """One group: (combine weights [S][E], l_aux, how often each of the algorithm's branches was taken)."""
    tokens, experts = len(scores), len(scores[0])
    combine, seen = [[0.0] * experts for _ in range(tokens)], {"full": 0, "second full": 0, "not sent": 0, "sent": 0}
    c = [0] * experts                                                          # line 1
    gates = [softmax(row) for row in scores]                                   # line 2
    m = [sum(g[e] for g in gates) / tokens for e in range(experts)]            # line 3
    for s in range(tokens):                                                    # lines 4 to 12
        g1, e1, g2, _ = top_2(gates[s])
        if c[e1] < capacity:
            combine[s][e1] = g1 / (g1 + g2)
        else:
            seen["full"] += 1
        c[e1] += 1
    aux = sum(c[e] / tokens * m[e] for e in range(experts)) / experts          # line 13
    for s in range(tokens):                                                    # lines 14 to 23
        g1, _, g2, e2 = top_2(gates[s])
        g2 = g2 / (g1 + g2)
        if c[e2] < capacity and 2 * g2 > random[s]:
            combine[s][e2] = g2
            seen["sent"] += 1
        else:
            seen["second full" if c[e2] >= capacity else "not sent"] += 1
        c[e2] += 1
    return combine, aux, seen


def test_equation_algorithm_1_line_by_line():
    torch.manual_seed(0)
    scores, total = torch.randn(5, 24, 4).double(), {}
    router = RandomSecond(1, 4).train()
    for capacity in (0, 3, 9, 24):
        torch.manual_seed(7)
        routing = router.choose(scores, capacity)
        torch.manual_seed(7)
        random = torch.rand(5, 24, dtype=torch.float64).tolist()
        aux = []
        for g in range(5):
            combine, one, seen = algorithm_1(scores[g].tolist(), capacity, random[g])
            combine = torch.tensor(combine, dtype=torch.float64)
            torch.testing.assert_close(routing.weight[g], combine, rtol=1e-12, atol=1e-12)
            assert ((routing.gate[g] > 0) == (combine > 0)).all()
            aux.append(one)
            total = {k: total.get(k, 0) + v for k, v in seen.items()}
        assert abs(l_aux(routing.probs).item() - sum(aux) / 5) < 1e-12
    assert min(total.values()) > 20, f"the example misses a branch: {total}"


def test_worked_example_choices_without_room_or_not_sent_hold_their_places(monkeypatch):
    """Lines 11 and 22 count every choice, whether it was sent or not."""
    first = [2.0, 1.0, -9.0]                                                   # expert 0, then 1; g_2 = 1 / (1 + e)
    scores = torch.tensor([[first, first, [-9.0, 1.0, 2.0], [1.0, -9.0, 2.0]]]).double()
    router = RandomSecond(1, 3).train()
    g2 = 1 / (1 + math.e)
    for capacity, random, expected in (
            (1, [0.0] * 4, [[1 - g2, g2, 0], [0, 0, 0], [0, 0, 1 - g2], [0, 0, 0]]),
            (1, [1.0, 0.0, 0.0, 0.0], [[1 - g2, 0, 0], [0, 0, 0], [0, 0, 1 - g2], [0, 0, 0]]),
            (2, [1.0, 0.0, 0.0, 0.0], [[1 - g2, 0, 0], [1 - g2, g2, 0], [0, 0, 1 - g2], [0, 0, 1 - g2]])):
        expected = torch.tensor(expected, dtype=torch.float64)
        combine, _, _ = algorithm_1(scores[0].tolist(), capacity, random)
        torch.testing.assert_close(torch.tensor(combine, dtype=torch.float64), expected)
        monkeypatch.setattr(torch, "rand_like", lambda t, r=random: torch.tensor([r], dtype=t.dtype))
        torch.testing.assert_close(router.choose(scores, capacity).weight[0], expected)


def by_hand(model, x, random):
    """(logits, l_aux of every layer): eq. (1) to (3) in loops; random: per layer numbers [T][B], or zeros."""
    h, aux = model.embed(x), []
    texts, places, width = h.shape
    for i, (between, norm) in enumerate(zip(model.between, model.norms, strict=True)):
        h = between(h)
        tokens, rows = norm(h).tolist(), model.routers[i].score.weight.tolist()
        wi, wo = model.experts[i].w1.tolist(), model.experts[i].w2.tolist()
        y, one = torch.zeros(texts, places, width).double(), 0.0
        for t in range(places):                                                # a group: one place in all texts
            scores = [[dot(row, tokens[b][t]) for row in rows] for b in range(texts)]
            combine, aux_t, _ = algorithm_1(scores, math.ceil(model.factor * texts / len(rows)), random[i][t])
            one += aux_t / places
            for b in range(texts):
                for e, share in enumerate(combine[b]):
                    if share:
                        hidden = [max(0.0, dot(row, tokens[b][t])) for row in wi[e]]           # eq. (2)
                        y[b, t] += share * torch.tensor([dot(row, hidden) for row in wo[e]], dtype=torch.float64)
        h = h + y                                                              # eq. (3)
        aux.append(one)
    return model.head(h), aux


def test_equation_the_whole_network_and_its_loss():
    """Eq. (1) to (3), and L = l_nll + k l_aux (sec. 2.2), while training and at inference."""
    torch.manual_seed(0)
    model, (x,), target = GShard.demo()
    model = model.double().eval()
    for factor in (0.5, 2):
        with torch.no_grad():
            y, _ = model.at(factor)(x)
            expected, _ = by_hand(model, x, [[[0.0] * len(x)] * x.shape[1]] * 2)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    model.train().at(1)
    torch.manual_seed(5)
    random = [torch.rand(x.shape[1], len(x), dtype=torch.float64).tolist() for _ in range(2)]
    with torch.no_grad():
        expected, aux = by_hand(model, x, random)
    log = expected.log_softmax(-1)
    right = [log[b, t, target[b, t]].item() for b in range(len(x)) for t in range(x.shape[1])]
    torch.manual_seed(5)
    assert abs(model.loss((x,), target).item() - (-sum(right) / len(right) + 0.16 * sum(aux))) < 1e-10


def test_limit_without_room_the_layer_is_the_identity():
    """Sec. 2.2: overflowed tokens are passed on via residual connections."""
    torch.manual_seed(0)
    model, (x,), _ = GShard.demo()
    model.eval().at(0)
    with torch.no_grad():
        y, trace = model(x)
        h = model.embed(x)
        for between in model.between:
            h = between(h)
        torch.testing.assert_close(y, model.head(h), rtol=0, atol=0)
    assert not any(d.gate.any() for d in trace.decisions)


def test_limit_with_room_for_all_every_token_has_two_experts_whose_weights_sum_to_one():
    torch.manual_seed(0)
    model, (x,), _ = GShard.demo()
    with torch.no_grad():
        _, trace, routings = model.double().eval().uncoupled()._read(x)
    assert all((d.gate.sum(-1) == 2).all() for d in trace.decisions)
    for routing in routings:
        torch.testing.assert_close(routing.weight.sum(-1), torch.ones_like(routing.weight[..., 0]))
        assert not routing.dropped.any()


def test_conservation_no_expert_has_more_tokens_of_a_group_than_its_capacity():
    torch.manual_seed(0)
    model, (x,), _ = GShard.demo()
    dropped = 0
    for factor in (0.5, 1, 2):
        with torch.no_grad():
            _, trace, routings = model.eval().at(factor)._read(x)
        assert all((d.gate.sum(0) <= math.ceil(factor * len(x) / 4)).all() for d in trace.decisions)
        dropped += sum(r.dropped.sum().item() for r in routings)
    assert dropped > 0


def test_limit_no_word_sees_a_later_one():
    """Other words after a place change nothing before it, however small the room."""
    torch.manual_seed(0)
    model, (x,), _ = GShard.demo()
    model.double().eval().at(0.5)
    other = torch.cat([x[:, :3], torch.randint(20, (len(x), 3))], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(other)[0][:, :3], model(x)[0][:, :3], rtol=1e-12, atol=1e-12)


def test_random_second_is_sent_with_probability_twice_its_share():
    """Line 18: 2 g_2 > rnd, uniform in (0, 1)."""
    scores = torch.tensor([1.0, 0.0, -5.0]).expand(4000, 3).double()
    torch.manual_seed(0)
    sent = RandomSecond(1, 3).train().choose(scores, 4000).gate[:, 1].mean().item()
    expected = 2 / (1 + math.e)
    assert abs(sent - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)
