"""Fidelity of expert choice: eq. (1) to (4) in plain loops, alone and in the whole network, and its limits."""
import math

import torch

from dynnotes.decide.routers import ExpertChoice
from dynnotes.sample.width.experts.expert_choice import ExpertChoiceTransformer, GatedFeedForward


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def softmax(row):
    top = max(row)
    powers = [math.exp(v - top) for v in row]
    return [p / sum(powers) for p in powers]


def gelu(v):
    return 0.5 * v * (1 + math.erf(v / math.sqrt(2)))


def chosen(scores, k):
    """Eq. (2) for tokens [n][e]: (G [e][k], I [e][k])."""
    affinity = [softmax(row) for row in scores]
    index = [sorted(range(len(scores)), key=lambda t: -affinity[t][i])[:k] for i in range(len(scores[0]))]
    return [[affinity[t][i] for t in row] for i, row in enumerate(index)], index


def test_equation_2_each_expert_takes_its_k_best_tokens():
    torch.manual_seed(0)
    scores = 2 * torch.randn(3, 12, 5).double()
    for k in (0, 1, 4, 12):
        routing = ExpertChoice(1, 5).choose(scores, k)
        for g in range(3):
            weights, index = chosen(scores[g].tolist(), k)
            expected = torch.zeros(12, 5).double()
            for i in range(5):
                for j in range(k):
                    expected[index[i][j], i] = weights[i][j]
            torch.testing.assert_close(routing.weight[g], expected, rtol=1e-12, atol=1e-12)
            assert ((expected > 0) == routing.gate[g].bool()).all()


def by_hand(model, x):
    """Logits: eq. (1) to (4) in loops, and sec. 3.4's gated layer between."""
    h = model.embed(x)
    texts, places, width = h.shape
    for i, between in enumerate(model.between):
        attention, gated, again = between
        h = again(gated_by_hand(gated, attention(h)))
        tokens, rows = model.norms[i](h).tolist(), model.routers[i].score.weight.tolist()
        w1, b1, w2, b2 = (getattr(model.experts[i], n).tolist() for n in ("w1", "b1", "w2", "b2"))
        out = torch.zeros(texts, places, width).double()
        for t in range(places):                                                # n: the texts of the batch
            k = math.ceil(texts * model.c / len(rows))                         # eq. (1)
            weights, index = chosen([[dot(row, tokens[b][t]) for row in rows] for b in range(texts)], k)
            for e in range(len(rows)):
                for j in range(k):
                    x_in = tokens[index[e][j]][t]                              # eq. (3)
                    hidden = [gelu(dot(row, x_in) + b) for row, b in zip(w1[e], b1[e], strict=True)]
                    x_e = [dot(row, hidden) + b for row, b in zip(w2[e], b2[e], strict=True)]
                    out[index[e][j], t] += weights[e][j] * torch.tensor(x_e, dtype=torch.float64)          # eq. (4)
        h = h + out
    return model.head(h)


def gated_by_hand(layer, x):
    """Sec. 3.4: the product of two linear maps, one through GELU, in place of the first map and its activation."""
    w, b = layer.first.weight.tolist(), layer.first.bias.tolist()
    half, y = len(w) // 2, x.clone()
    for at in ((i, t) for i in range(x.shape[0]) for t in range(x.shape[1])):
        token = layer.norm(x[at]).tolist()
        maps = [dot(row, token) + c for row, c in zip(w, b, strict=True)]
        hidden = [gelu(maps[i]) * maps[half + i] for i in range(half)]
        last = zip(layer.last.weight.tolist(), layer.last.bias.tolist(), strict=True)
        y[at] += torch.tensor([dot(row, hidden) + c for row, c in last], dtype=torch.float64)
    return y


def test_equation_the_gated_feed_forward_layer():
    torch.manual_seed(0)
    layer, x = GatedFeedForward(6, 5).double(), torch.randn(2, 3, 6).double()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), gated_by_hand(layer, x), rtol=1e-12, atol=1e-12)


def test_equation_1_to_4_the_whole_network_and_its_loss():
    """Sec. 4.1: no auxiliary loss."""
    torch.manual_seed(0)
    model, (x,), target = ExpertChoiceTransformer.demo()
    model = model.double().eval()
    for c in (0.5, 1, 2):
        with torch.no_grad():
            y, trace = model.at(c)(x)
            expected = by_hand(model, x)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
        log = expected.log_softmax(-1)
        right = [log[b, t, target[b, t]].item() for b in range(len(x)) for t in range(x.shape[1])]
        for mode in (model.eval(), model.train()):
            assert abs(mode.loss((x,), target).item() + sum(right) / len(right)) < 1e-10
        model.eval()
    assert {0, 1, 3} <= {int(n) for d in trace.decisions for n in d.gate.sum(-1).unique()}, "tokens should differ"


def test_conservation_every_expert_is_equally_busy():
    """Sec. 3.2: k tokens of each group for each expert, c experts per token in the mean."""
    torch.manual_seed(0)
    model, (x,), _ = ExpertChoiceTransformer.demo()
    x = torch.randint(20, (16, 6))
    for c in (0.5, 1, 2, 3):
        with torch.no_grad():
            _, trace = model.eval().at(c)(x)
        for d in trace.decisions:
            assert (d.gate.sum(0) == 16 * c / 4).all()
            assert d.gate.sum(-1).mean() == c


def test_limit_without_capacity_the_layer_is_the_identity():
    torch.manual_seed(0)
    model, (x,), _ = ExpertChoiceTransformer.demo()
    with torch.no_grad():
        y, _ = model.eval().at(0)(x)
        h = model.embed(x)
        for between in model.between:
            h = between(h)
        torch.testing.assert_close(y, model.head(h), rtol=0, atol=0)


def test_limit_all_tokens_for_all_is_the_soft_mixture():
    """c = e: X_out is the mean of all experts, weighted by the softmax; that is also what a text alone gets."""
    torch.manual_seed(0)
    model, (x,), _ = ExpertChoiceTransformer.demo()
    model = model.double().eval()
    with torch.no_grad():
        y, trace = model.at(4)(x)
        h = model.embed(x)
        for between, norm, router, experts in zip(model.between, model.norms, model.routers, model.experts,
                                                  strict=True):
            h = between(h)
            share = (norm(h) @ router.score.weight.T).softmax(-1)
            h = h + (experts(norm(h).flatten(0, 1)).unflatten(0, h.shape[:2]) * share[..., None]).sum(2)
        torch.testing.assert_close(y, model.head(h))
        torch.testing.assert_close(model.at(1)(x[:1])[0], y[:1])
    assert (trace.spent == trace.full).all()


def test_limit_no_word_sees_a_later_one():
    """Sec. 6: tokens of one text in separate groups; other words after a place change nothing before it."""
    torch.manual_seed(0)
    model, (x,), _ = ExpertChoiceTransformer.demo()
    model.double().eval().at(1)
    other = torch.cat([x[:, :3], torch.randint(20, (len(x), 3))], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(other)[0][:, :3], model(x)[0][:, :3], rtol=1e-12, atol=1e-12)


def test_count_what_table_1_prints_and_cannot_be_rebuilt():
    """Without embeddings: 113 M for the dense net and 524 M with 16 experts, printed 130 M and 548 M."""
    def parameters(experts):
        with torch.device("meta"):
            model = ExpertChoiceTransformer(embed=torch.nn.Identity(), head=torch.nn.Identity(), width=768, heads=12,
                                            hidden=3072, experts=experts, pairs=6)
        return sum(p.numel() for p in model.parameters())
    dense = 12 * (4 * 768 ** 2 + 3 * 768 * 3072)                               # every layer gated, no bias, no norm
    assert round(dense / 1e6) == 113 and round(parameters(16) / 1e6) == 524
