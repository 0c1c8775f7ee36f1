"""Fidelity of ST-MoE: routing (app. G), losses (eq. 5 to 9), experts (app. C) in plain loops, and its limits."""
import copy
import math

import pytest
import torch

from dynnotes.nets.starting import start_small
from dynnotes.sample.width.experts.st_moe import Dense, Expert, SparseLayer, STMoE, TopN


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def rms(x, scale, eps=1e-6):
    root = math.sqrt(sum(v * v for v in x) / len(x) + eps)
    return [v / root * g for v, g in zip(x, scale, strict=True)]


def gelu(v):
    return v * 0.5 * (1 + math.erf(v / math.sqrt(2)))


def geglu(part, x, scale=None):
    """App. C: [(GELU(x W11) * x W12) * B] W2."""
    into = part.into.weight.tolist()
    half = len(into) // 2
    inner = [gelu(dot(into[j], x)) * dot(into[half + j], x) for j in range(half)]
    if scale is not None:
        inner = [v * b for v, b in zip(inner, scale, strict=True)]
    return [dot(w, inner) for w in part.out.weight.tolist()]


def top_n(scores, n, capacity, threshold, draws=None):
    """App. G: per token a list of (expert, share, rank) that were sent, and of those that found room.

    draws: [rank][token] from [0, 1), or None where a share above the threshold decides.
    """
    lists, sent = [], []
    for t, row in enumerate(scores):
        total = sum(math.exp(v) for v in row)
        p = [math.exp(v) / total for v in row]
        best = sorted(range(len(row)), key=lambda e: -p[e])[:n]
        mass = sum(p[e] for e in best)
        lists.append([(e, p[e] / mass) for e in best])
        sent.append([rank == 0 or (p[e] / mass > threshold if draws is None else
                                   draws[rank][t] < min(1.0, p[e] / mass / threshold))
                     for rank, e in enumerate(best)])
    used, served = [0] * len(scores[0]), [[False] * n for _ in scores]
    for rank in range(n):
        for t, ranks in enumerate(lists):
            e = ranks[rank][0]
            if sent[t][rank] and used[e] < capacity:
                used[e] += 1
                served[t][rank] = True
    return lists, sent, served


def same(routing, lists, sent, served):
    for t, ranks in enumerate(lists):
        gate, wanted = [0.0] * routing.gate.shape[-1], [0.0] * routing.gate.shape[-1]
        weight = [0.0] * len(gate)
        for rank, (e, share) in enumerate(ranks):
            wanted[e], gate[e] = float(sent[t][rank]), float(served[t][rank])
            weight[e] = share if served[t][rank] else 0.0
        assert routing.gate[t].tolist() == gate and routing.wanted[t].tolist() == wanted
        assert max(abs(a - b) for a, b in zip(routing.weight[t].tolist(), weight, strict=True)) < 1e-12


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("capacity", [2, 6, 40])
def test_equation_routing_by_hand(n, capacity):
    """App. G: shares of the best n sum to 1, the first is always sent, the rest by their share over the threshold."""
    torch.manual_seed(0)
    router = TopN(5, 6).double()
    scores = 2 * torch.randn(40, 6).double()
    for threshold in (0.2, 0.4):
        by_hand = top_n(scores.tolist(), n, capacity, threshold)
        same(router.eval().choose(scores, n, capacity, threshold), *by_hand)
        torch.manual_seed(7)
        routing = router.train().choose(scores, n, capacity, threshold)
        torch.manual_seed(7)
        draws = torch.rand(n, 40, dtype=torch.float64).tolist()
        drawn = top_n(scores.tolist(), n, capacity, threshold, draws)
        same(routing, *drawn)
        if n > 1:
            further = [s[1] for s in by_hand[1]]
            assert drawn[1] != by_hand[1] and any(further) and not all(further)


def test_equation_how_often_the_second_is_sent():
    """App. G: with probability min(1, share / threshold), here 0.15 / 0.2."""
    router = TopN(2, 3).train()
    scores = torch.tensor([0.85, 0.15, 1e-9]).log().expand(20000, 3)
    torch.manual_seed(0)
    often = router.choose(scores, 2, 20000, 0.2).gate[:, 1].mean().item()
    assert abs(often - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 20000)
    assert router.choose(scores, 2, 20000, 0.15 - 1e-3).gate[:, 1].all()


def test_equation_the_layer_by_hand():
    """Eq. (4) and app. C, G: RMS norm with its scale, GEGLU experts with B, shares as weights; then the dense layer."""
    torch.manual_seed(1)
    layer, dense = SparseLayer(6, 5, 4).double().eval(), Dense(6, 5).double()
    for p in (*layer.parameters(), *dense.parameters()):
        torch.nn.init.normal_(p)
    x = torch.randn(3, 7, 6).double()
    rows = [rms(row, layer.norm.weight.tolist()) for row in x.flatten(0, 1).tolist()]
    scores = [[dot(w, row) for w in layer.router.score.weight.tolist()] for row in rows]
    for factor, room in ((0.5, 2), (1.25, 6), (2, 10)):                        # factor * 21 / 4, rounded down
        lists, sent, served = top_n(scores, 2, room, 0.2)
        answers = []
        for t, row in enumerate(rows):
            y = [0.0] * 6
            for rank, (e, share) in enumerate(lists[t]):
                if served[t][rank]:
                    out = geglu(layer.experts[e], row, layer.experts[e].scale.tolist())
                    y = [a + share * b for a, b in zip(y, out, strict=True)]
            answers.append(y)
        for sparse in (False, True):
            y, trace, routed = layer.mix(x, 2, factor, 0.2, name="experts", sparse=sparse)
            by_hand = torch.tensor(answers, dtype=torch.float64).view_as(y)
            torch.testing.assert_close(y, by_hand, rtol=1e-11, atol=1e-11)
            same(routed.routing, lists, sent, served)
            for b in range(3):                                                 # 24 for the router, 90 for each expert
                assert trace.spent[b].item() == 7 * 24 + 90 * sum(map(sum, served[7 * b:7 * b + 7]))
    for row in x.flatten(0, 1).tolist():
        by_hand = [a + b for a, b in zip(row, geglu(dense.then, rms(row, dense.norm.weight.tolist())), strict=True)]
        out = dense(torch.tensor(row, dtype=torch.float64)).tolist()
        assert max(abs(a - b) for a, b in zip(out, by_hand, strict=True)) < 1e-11


def test_equation_the_whole_objective_by_hand():
    """Eq. (6): cross-entropy + 0.01 L_B (eq. 7 to 9, the best expert alone counts) + 0.001 L_z (eq. 5), per layer."""
    torch.manual_seed(0)
    model = STMoE(words=11, length=6, width=8, depth=2, heads=2, hidden=6, experts=4, every=1, train_factor=1.0,
                  threshold=1e-9, scale=10.0).double().train()
    x, target = torch.randint(11, (5, 6)), torch.randint(11, (5, 6))
    with torch.no_grad():
        h, extra = model.embed(x), 0.0
        for i in range(2):
            h, layer = model.look[i](h), model.sparse_layers[str(i)]
            rows = [rms(row, layer.norm.weight.tolist()) for row in h.flatten(0, 1).tolist()]
            scores = [[dot(w, row) for w in layer.router.score.weight.tolist()] for row in rows]
            lists, _, served = top_n(scores, 2, 7, 1e-9)                       # 30 / 4, rounded down
            assert not all(s[0] for s in served)
            answers = []
            for t, row in enumerate(rows):
                y = [0.0] * 8
                for rank, (e, share) in enumerate(lists[t]):
                    if served[t][rank]:
                        y = [a + share * b for a, b in zip(y, geglu(layer.experts[e], row), strict=True)]
                answers.append(y)
            h = model.dense[i](h + torch.tensor(answers, dtype=torch.float64).view_as(h))
            sums = [sum(math.exp(v) for v in row) for row in scores]
            f = [sum(ranks[0][0] == e for ranks in lists) / 30 for e in range(4)]
            p = [sum(math.exp(row[e]) / s for row, s in zip(scores, sums, strict=True)) / 30 for e in range(4)]
            extra += 0.01 * 4 * dot(f, p) + 0.001 * sum(math.log(s) ** 2 for s in sums) / 30
        entropy = 0.0
        for row, word in zip(model.head(h).flatten(0, 1).tolist(), target.flatten().tolist(), strict=True):
            entropy += math.log(sum(math.exp(v) for v in row)) - row[word]
    assert abs(model.loss((x,), target).item() - (entropy / 30 + extra)) < 1e-10


def test_equation_starting_values():
    """Sec. 6.2: as Fedus et al. 2022, std sqrt(0.1 / fan-in), cut off at two of it; app. C: B starts at 1."""
    torch.manual_seed(0)
    model = STMoE(words=9, length=4, width=128, depth=1, heads=2, hidden=64, experts=4, every=1)
    expert = model.sparse_layers["0"].experts[0]
    assert (expert.scale == 1).all()
    for w, fan in ((expert.into.weight, 128), (expert.out.weight, 64), (model.look[0].query_key_value.weight, 128)):
        std = math.sqrt(0.1 / fan)
        assert w.abs().max().item() <= 2 * std * (1 + 1e-6)
        assert abs(w.std().item() / (0.8796 * std) - 1) < 4 / math.sqrt(2 * w.numel()) + 1e-4


def demo():
    torch.manual_seed(0)
    model, (x,), target = STMoE.demo()
    start_small(model, 10.0)                                      # far from even, so that experts overflow
    return model.double().eval(), x, target


def test_limit_no_room_leaves_the_dense_layer_alone():
    model, x, _ = demo()
    with torch.no_grad():
        y, trace = model.at(0)(x)
        h = model.dense[0](model.look[0](model.embed(x)))
        torch.testing.assert_close(y, model.head(model.dense[1](model.look[1](h))), rtol=0, atol=0)
    assert not trace.decisions[0].gate.any()


def test_limit_room_for_all_drops_none_and_keeps_samples_apart():
    model, x, _ = demo()
    with torch.no_grad():
        full, _, ((_, routing),) = model.at(8)._read(x)
        alone = torch.cat([model(row[None])[0] for row in x])
        _, _, ((_, tight),) = copy.deepcopy(model).at(1)._read(x)
    assert not routing.dropped.any() and tight.dropped.any()
    torch.testing.assert_close(full, alone, rtol=1e-12, atol=1e-12)


def test_limit_all_experts_and_no_threshold_are_the_soft_mixture():
    torch.manual_seed(0)
    layer = SparseLayer(6, 5, 4).double().eval()
    x = torch.randn(2, 3, 6).double()
    with torch.no_grad():
        y, trace, _ = layer.mix(x, 4, 4, 0.0, name="experts", sparse=True)
        seen = layer.norm(x)
        probs = layer.router(seen).softmax(-1)
        soft = sum(probs[..., e, None] * expert(seen) for e, expert in enumerate(layer.experts))
    torch.testing.assert_close(y, soft, rtol=1e-12, atol=1e-12)
    assert (trace.spent == trace.full).all()


def test_limit_a_threshold_of_one_is_one_expert_with_all_the_weight():
    """No share after the first is above 1/2: the first expert runs alone, with its share of the two as its weight."""
    torch.manual_seed(0)
    router, scores = TopN(5, 6).eval(), torch.randn(50, 6)
    routing = router.choose(scores, 2, 50, 1.0)
    assert (routing.gate.sum(-1) == 1).all() and (routing.gate.argmax(-1) == scores.argmax(-1)).all()
    assert (routing.weight.sum(-1) > 0.5).all() and (routing.weight.sum(-1) < 1).all()


def test_conservation_one_or_two_experts_each_within_its_room_and_shares_sum_to_one():
    model, x, _ = demo()
    for factor in (0.5, 1, 1.25, 2, 8):
        _, _, ((_, routing),) = model.at(factor)._read(x)
        wanted = routing.wanted.sum(-1)
        assert ((wanted == 1) | (wanted == 2)).all() and (wanted == 1).any() and (wanted == 2).any()
        assert (routing.gate <= routing.wanted).all()
        assert (routing.gate.sum(0) == routing.wanted.sum(0).clamp(max=math.floor(factor * 96 / 4))).all()
    both = wanted == 2
    torch.testing.assert_close(routing.weight[both].sum(-1), torch.ones(int(both.sum())).double())


def test_the_multiplicative_bias_can_be_folded_into_the_last_matrix():
    """App. C: [h * B] W2 = h [diag(B) W2], so B costs no product."""
    torch.manual_seed(0)
    expert = Expert(6, 5).double()
    torch.nn.init.normal_(expert.scale)
    folded = copy.deepcopy(expert)
    with torch.no_grad():
        folded.out.weight.mul_(expert.scale)
        folded.scale.fill_(1)
        x = torch.randn(4, 6).double()
        torch.testing.assert_close(expert(x), folded(x), rtol=1e-12, atol=1e-12)
