"""Fidelity of Soft MoE: eq. (1), (2) and alg. 2 in plain loops, limits of app. A, and what the cost follows from."""
import math

import pytest
import torch

from dynnotes.sample.width.experts.soft_moe import MeanReader, Places, SoftMoE, vision


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def normalised(v):
    """Alg. 2: x / (|x| + 1e-6)."""
    norm = math.sqrt(dot(v, v))
    return [a / (norm + 1e-6) for a in v]


def expert(f, e, x):
    """w2 gelu(w1 x + b1) + b2."""
    hidden = [dot(row, x) + b for row, b in zip(f.w1[e].tolist(), f.b1[e].tolist(), strict=True)]
    hidden = [h * 0.5 * (1 + math.erf(h / math.sqrt(2))) for h in hidden]
    return [dot(row, hidden) + b for row, b in zip(f.w2[e].tolist(), f.b2[e].tolist(), strict=True)]


def layer(think, tokens, p):
    """Alg. 1 for the tokens of one sequence: (their new values, D, C)."""
    m, d = len(tokens), len(tokens[0])
    columns = [normalised(column) for column in think.scores.phi.T.tolist()]
    scale = think.scores.scale.item()
    scores = [[scale * dot(column, normalised(token)) for column in columns] for token in tokens]
    slots = len(columns)
    over_tokens = [sum(math.exp(scores[i][j]) for i in range(m)) for j in range(slots)]
    over_slots = [sum(math.exp(s) for s in row) for row in scores]
    dispatch = [[math.exp(scores[i][j]) / over_tokens[j] for j in range(slots)] for i in range(m)]           # eq. (1)
    combine = [[math.exp(scores[i][j]) / over_slots[i] for j in range(slots)] for i in range(m)]             # eq. (2)
    filled = [[sum(dispatch[i][j] * tokens[i][c] for i in range(m)) for c in range(d)] for j in range(slots)]
    answers = [expert(think.experts.experts, j // p, slot) for j, slot in enumerate(filled)]
    y = [[sum(combine[i][j] * answers[j][c] for j in range(slots)) for c in range(d)] for i in range(m)]
    return y, dispatch, combine


def demo():
    torch.manual_seed(0)
    model, (x,), _ = SoftMoE.demo()
    model, x = model.double().eval(), x[:3].double()
    with torch.no_grad():
        for k, think in enumerate(model.thinks):
            think.scores.scale.fill_(3.0 + k)                                # away from where training starts
    return model, x


def test_equation_the_whole_net_by_hand():
    """Eq. (1), (2), alg. 1 and 2; and the trace's weights are D and C, summed over the slots of an expert."""
    model, x = demo()
    with torch.no_grad():
        y, trace = model(x)
        tokens = model.embed(x)
        for block, (look, think) in enumerate(zip(model.looks, model.thinks, strict=True)):
            tokens = look(tokens)
            found = [layer(think, sequence, 2) for sequence in think.norm(tokens).tolist()]
            tokens = tokens + torch.tensor([y for y, _, _ in found], dtype=torch.float64)
            for which in (1, 2):
                by_hand = torch.tensor([f[which] for f in found], dtype=torch.float64)       # [3, 16, 8]
                by_expert = by_hand[..., 0::2] + by_hand[..., 1::2]
                torch.testing.assert_close(trace.decisions[2 * block + which - 1].weight, by_expert)
        torch.testing.assert_close(y, model.head(tokens), rtol=1e-9, atol=1e-9)


def test_limit_no_scale_is_the_uniform_mixture():
    """App. A, "Uniform": D is 1/m and C is 1/(np) everywhere, so every token gets the mean expert of the mean token."""
    model, x = demo()
    think = model.thinks[0]
    with torch.no_grad():
        think.scores.scale.zero_()
        tokens = model.looks[0](model.embed(x))
        y, _ = model._mix(think, tokens, "block 1")
        for b in range(len(x)):
            mean = think.norm(tokens[b]).mean(0).tolist()
            answers = torch.tensor([expert(think.experts.experts, e, mean) for e in range(4)], dtype=torch.float64)
            torch.testing.assert_close(y[b] - tokens[b], answers.mean(0).expand(16, -1))


def test_limit_slots_that_know_one_token_each_are_identity_routing():
    """App. A, "Identity": as many slots as tokens, each sure of its own; the first p tokens go to expert 1."""
    torch.manual_seed(0)
    model = SoftMoE(embed=Places(torch.nn.Identity(), 8, 16), head=MeanReader(16, 4), width=16, hidden=24, depth=1,
                    heads=2, mixed=(1,), experts=4, slots=2).double().eval()
    tokens, think = torch.randn(1, 8, 16).double(), model.thinks[0]
    with torch.no_grad():
        own = think.norm(tokens)[0]
        think.scores.phi.copy_(own.T)
        think.scores.scale.fill_(1e4)
        y, trace = model._mix(think, tokens, "block 1")
        for t in range(8):
            answer = torch.tensor(expert(think.experts.experts, t // 2, own[t].tolist()), dtype=torch.float64)
            torch.testing.assert_close(y[0, t] - tokens[0, t], answer)
    for decision in trace.decisions:
        torch.testing.assert_close(decision.weight[0], torch.eye(4).repeat_interleave(2, 0).double())


def test_conservation_slots_and_tokens_are_convex_combinations():
    """Each slot's dispatch weights sum to one over the tokens, each token's combine weights over the slots."""
    model, x = demo()
    with torch.no_grad():
        _, trace = model(x)
    for decision in trace.decisions:
        assert (decision.weight > 0).all()
        total = decision.weight.sum(1) / 2 if "dispatch" in decision.name else decision.weight.sum(2)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_equation_only_directions_are_scored():
    """Sec. 2.3: neither the length of a token nor that of a column of Phi changes a score."""
    model, _ = demo()
    scores = model.thinks[0].scores
    with torch.no_grad():
        tokens = torch.randn(2, 5, 16).double()
        before = scores(tokens)
        assert before.abs().max() <= scores.scale
        scores.phi.mul_(torch.rand(8).double() + 1)
        torch.testing.assert_close(scores(7 * tokens), before, rtol=1e-5, atol=1e-5)      # 1e-6 beside the norm


@pytest.mark.parametrize(("experts", "slots"), [(1, 8), (4, 2), (8, 1)])
def test_count_cost_follows_from_the_number_of_slots_alone(experts, slots):
    """Sec. 2.2, 2.3: m n p d for each of scores, dispatch and combine, and a perceptron for each slot."""
    torch.manual_seed(0)

    def cost(mixed):
        model = SoftMoE(embed=Places(torch.nn.Identity(), 16, 16), head=MeanReader(16, 4), width=16, hidden=24, depth=1,
                        heads=2, mixed=mixed, experts=experts, slots=slots).eval()
        with torch.no_grad():
            _, trace = model(torch.randn(2, 16, 4, 4))
        assert (trace.spent == trace.full).all()
        return trace.spent[0].item()
    assert cost((1,)) - cost(()) == 3 * 16 * 8 * 16 + (8 - 16) * 2 * 16 * 24


def test_count_cost_of_small_14_is_a_little_less_than_printed():
    """Table 8 prints 13.2 GFLOPs an image for S/14 with 256 slots: products alone are 13.1."""
    model = vision(384, 1536, 12, 6, 14, 6, 1, 256).eval()
    with torch.no_grad():
        _, trace = model(torch.randn(1, 3, 224, 224))
    assert 13.05e9 < 2 * trace.spent[0] < 13.15e9
