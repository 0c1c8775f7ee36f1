"""Fidelity of DeepSeekMoE and of DeepSeek-V3's experts: their equations in plain loops, limits, and printed sizes."""
import math

import pytest
import torch

from dynnotes.execute import cost
from dynnotes.sample.width.experts.deepseek_moe import DeepSeekMoE, DeepSeekV3MoE, SwiGLU, deepseekmoe_2b
from dynnotes.sample.width.experts.deepseek_moe import deepseekmoe_16b as sixteen
from dynnotes.sample.width.experts.deepseek_moe import deepseekmoe_145b as largest

BOTH = pytest.mark.parametrize("cls", [DeepSeekMoE, DeepSeekV3MoE])
E, K, SHARED, HIDDEN = 8, 3, 2, 8                                              # of the demo


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def swiglu(gate, up, down, x):
    """FFN(x) of one expert: rows of its gate and of its other input layer, rows of its output layer."""
    hidden = [g / (1 + math.exp(-g)) * dot(u, x) for g, u in ((dot(r, x), u) for r, u in zip(gate, up, strict=True))]
    return [dot(row, hidden) for row in down]


def demo(cls):
    torch.manual_seed(0)
    model, (x,), target = cls.demo()
    for router in model.routers:                                               # scores that differ, a bias that matters
        torch.nn.init.normal_(router.score.weight)
        if cls is DeepSeekV3MoE:
            router.bias.uniform_(-0.2, 0.2)
    return model.double(), x, target


def tokens(model, x):
    """Per layer: what enters it after attention, and that normalised; then what the head gets."""
    seen, x = [], model.embed(x)
    for i, look in enumerate(model.look):
        x = look(x)
        u = model.norms[i](x)
        seen.append((x, u))
        gate = model.routers[i].choose(model.routers[i](u), int(model.k))
        x = x + model.shared[i](u) + (model.experts[i](u.flatten(0, 1)).unflatten(0, u.shape[:2])
                                      * gate.weight[..., None]).sum(2)
    return seen, x


def affinities(model, i, u):
    """s_{i,t} of one token: eq. (11), or V3's eq. (15)."""
    scores = [dot(e, u) for e in model.routers[i].score.weight.tolist()]
    if isinstance(model, DeepSeekV3MoE):
        return [1 / (1 + math.exp(-s)) for s in scores]
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


def best(values, k=K):
    return sorted(range(len(values)), key=lambda j: -values[j])[:k]


def gates(model, i, u):
    """g_{i,t} of one token: eq. (10), or V3's eq. (13) and (16)."""
    s = affinities(model, i, u)
    if not isinstance(model, DeepSeekV3MoE):
        chosen = best(s)
        return [s[j] if j in chosen else 0.0 for j in range(E)]
    chosen = best([a + b for a, b in zip(s, model.routers[i].bias.tolist(), strict=True)])
    total = sum(s[j] for j in chosen)
    return [s[j] / total if j in chosen else 0.0 for j in range(E)]


@BOTH
def test_equation_the_layer_by_hand(cls):
    """Eq. (9) to (11), V3's eq. (12), (13), (15), (16): shared experts one by one, gates, the residual."""
    model, x, _ = demo(cls)
    with torch.no_grad():
        seen, _ = tokens(model, x)
        entered = [h for h, _ in seen][1:] + [None]
        _, _, routings = model.eval()._read(x)
        for i, (h, u) in enumerate(seen):
            w1, w2, out = model.experts[i].w1, model.experts[i].w2, torch.zeros_like(h)
            gate_in, up_in = model.shared[i].w1.weight.chunk(2)
            common_out = model.shared[i].w2.weight
            for b in range(len(x)):
                for t in range(x.shape[1]):
                    token, g = u[b, t].tolist(), gates(model, i, u[b, t].tolist())
                    assert [abs(a - v) < 1e-12 for a, v in zip(g, routings[i].weight[b, t].tolist())] == [True] * E
                    total = h[b, t].tolist()
                    for s in range(SHARED):                                    # the wide layer, cut into its experts
                        mine = slice(s * HIDDEN, (s + 1) * HIDDEN)
                        y = swiglu(gate_in[mine].tolist(), up_in[mine].tolist(), common_out[:, mine].tolist(), token)
                        total = [a + v for a, v in zip(total, y, strict=True)]
                    for e in range(E):
                        if g[e]:
                            y = swiglu(w1[e, :HIDDEN].tolist(), w1[e, HIDDEN:].tolist(), w2[e].tolist(), token)
                            total = [a + g[e] * v for a, v in zip(total, y, strict=True)]
                    out[b, t] = torch.tensor(total, dtype=torch.float64)
            if entered[i] is None:
                torch.testing.assert_close(model(x)[0], model.head(out), rtol=1e-9, atol=1e-9)
            else:
                torch.testing.assert_close(entered[i], model.look[i + 1](out), rtol=1e-9, atol=1e-9)


@BOTH
def test_equation_the_loss_by_hand(cls):
    """Eq. (12) to (14), V3's eq. (17) to (20): per sequence, and V3 counts who would be chosen without the bias."""
    model, x, target = demo(cls)
    with torch.no_grad():
        seen, _ = tokens(model, x)
        loss, task = model.eval().loss((x,), target).item(), model.task(model(x)[0], target).item()
    length, balance, differs = x.shape[1], 0.0, False
    for i, (_, u) in enumerate(seen):
        for row in u.tolist():
            s = [affinities(model, i, token) for token in row]
            chosen = [best(a) for a in s]
            differs |= any(set(c) != {j for j, g in enumerate(gates(model, i, token)) if g}
                           for c, token in zip(chosen, row, strict=True))
            for e in range(E):
                f = E / (K * length) * sum(e in c for c in chosen)
                p = sum(a[e] / sum(a) for a in s) / length
                balance += f * p / len(x)
    assert abs(loss - (task + model.alpha * balance)) < 1e-9 and abs(loss - task) > 1e-5
    assert differs == (cls is DeepSeekV3MoE), "the bias of the demo must change some choice"


def test_equation_one_step_of_the_bias_by_hand():
    """V3, sec. 2.1.2: down by gamma where overloaded, up where underloaded, by the load of the whole batch."""
    model, x, target = demo(DeepSeekV3MoE)
    with torch.no_grad():
        seen, _ = tokens(model, x)
    expected, moved = [], set()
    for i, (_, u) in enumerate(seen):
        load = [0] * E
        for token in u.flatten(0, 1).tolist():
            for e, g in enumerate(gates(model, i, token)):
                load[e] += g > 0
        even = x.numel() * K / E
        steps = [-1 if n > even else 1 if n < even else 0 for n in load]
        moved |= set(steps)
        expected.append([b + 0.001 * s for b, s in zip(model.routers[i].bias.tolist(), steps, strict=True)])
    model.eval().loss((x,), target)
    before = [r.bias.clone() for r in model.routers]
    model.train().loss((x,), target)
    for router, old, new in zip(model.routers, before, expected, strict=True):
        assert not router.bias.requires_grad and not torch.equal(router.bias, old)
        torch.testing.assert_close(router.bias, torch.tensor(new, dtype=torch.float64), rtol=0, atol=1e-12)
    assert {-1, 1} <= moved


def test_the_bias_is_saved_with_the_weights():
    """A buffer that training moved comes back with the state, and with it the same choices."""
    model, x, target = demo(DeepSeekV3MoE)
    model.train().loss((x,), target)
    other = DeepSeekV3MoE.demo()[0].double()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        (_, a), (_, b) = model.eval()(x), other.eval()(x)
    for i in range(2):
        assert torch.equal(model.routers[i].bias, other.routers[i].bias) and other.routers[i].bias.abs().min() > 0
        assert torch.equal(a.decisions[i].gate, b.decisions[i].gate)


def test_the_bias_evens_a_load_that_was_not():
    """The same tokens again and again: from one expert far above the others to all within a fifth of their share."""
    torch.manual_seed(0)
    router = DeepSeekV3MoE.router(6, E).double()
    u = torch.randn(400, 6).double()
    u[:, 0] = 2
    torch.nn.init.normal_(router.score.weight, std=0.3)
    router.score.weight.data[0, 0] += 1                                        # one that all like
    scores = router(u).detach()

    def uneven():
        load = router.choose(scores, K).gate.sum(0)
        return (load.max() / load.mean()).item()
    before = uneven()
    for _ in range(1000):
        router.rebalance(router.choose(scores, K).wanted)
    assert before > 2 and uneven() < 1.2


@BOTH
def test_limit_all_experts_are_the_soft_mixture(cls):
    model, x, _ = demo(cls)
    model.eval().k = E
    with torch.no_grad():
        _, trace, routings = model._read(x)
        seen, _ = tokens(model, x)
        for i, (_, u) in enumerate(seen):
            scores = model.routers[i](u)
            soft = scores.softmax(-1) if cls is DeepSeekMoE else scores.sigmoid() / scores.sigmoid().sum(-1, True)
            torch.testing.assert_close(routings[i].weight, soft)
    assert (trace.spent == trace.full).all()


@BOTH
def test_limit_silent_routed_experts_leave_the_shared_ones(cls):
    """Routed experts that answer 0 leave a dense transformer with the shared experts as its feed-forward layers."""
    model, x, _ = demo(cls)
    with torch.no_grad():
        for experts in model.experts:
            experts.w2.zero_()
        h = model.embed(x)
        for look, norm, shared in zip(model.look, model.norms, model.shared, strict=True):
            h = look(h)
            h = h + shared(norm(h))
        torch.testing.assert_close(model.eval()(x)[0], model.head(h))


@BOTH
@pytest.mark.parametrize("k", [1, 3, 8])
def test_conservation_k_experts_per_token(cls, k):
    """V3's weights sum to 1 (eq. 13); the first paper's are probabilities among all experts, so less, unless k = E."""
    model, x, _ = demo(cls)
    with torch.no_grad():
        _, _, routings = model.eval().at(k)._read(x)
    for routing in routings:
        total = routing.weight.sum(-1)
        assert (routing.gate.sum(-1) == k).all() and not routing.weight[routing.gate == 0].any()
        if cls is DeepSeekV3MoE or k == E:
            torch.testing.assert_close(total, torch.ones_like(total))
        else:
            assert (total < 1).all()


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def used(model):
    """(parameters of all experts, of those that a token uses)."""
    shared = sum(map(parameters, model.shared))
    routed = sum(map(parameters, model.experts))
    return shared + routed, shared + routed * model.k // len(model.experts[0])


def test_count_experts_in_all_and_in_use():
    """Table 2: 1.89B and 0.24B of the 2B model; tables 3 and sec. 7.1: 2.8B and 22.2B in use of the larger ones."""
    with torch.device("meta"):
        models = deepseekmoe_2b(), sixteen(), largest()
    everything, active = used(models[0])
    assert abs(everything - 1.89e9) <= 0.005e9 and abs(active - 0.24e9) <= 0.005e9
    for model, printed in zip(models[1:], (2.8e9, 22.2e9), strict=True):
        everything, active = used(model)
        assert abs(parameters(model) - everything + active - printed) <= 0.05e9


def test_count_computation():
    """Table 1: 4.3T FLOPs per 2K tokens, which are forward and backward: six for each of our MACs."""
    with torch.device("meta"):
        model, ids, u = deepseekmoe_2b(), torch.zeros(1, 2048).long(), torch.zeros(1, 2048, 1280)
    layer = cost.price(model.look[0], u).macs + cost.price(model.shared[0], u).macs
    layer += 2048 * model.k * cost.price(model.experts[0], u[0]).macs // len(model.experts[0])
    macs = cost.price(model.embed, ids).macs + 9 * layer + cost.price(model.head, u).macs
    assert abs(6 * macs - 4.3e12) <= 0.05e12


def test_count_cutting_experts_keeps_parameters_and_cost():
    """Sec. 3.1, 3.2: m times as many, m times smaller, and shared ones among them, cost what they did before."""
    whole = DeepSeekMoE(words=20, width=16, depth=1, heads=2, hidden=32, shared=1, routed=3, k=1)
    cut = DeepSeekMoE(words=20, width=16, depth=1, heads=2, hidden=8, shared=4, routed=12, k=4)
    assert used(whole) == used(cut)
    wide = SwiGLU(16, 32)
    assert parameters(wide) == 4 * parameters(SwiGLU(16, 8))
