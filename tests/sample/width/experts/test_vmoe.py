"""Fidelity of V-MoE: routing with priorities and both losses in plain loops, its limits, and what is conserved."""
import math

import torch

from dynnotes.decide.routers import BatchPrioritised
from dynnotes.sample.width.experts.vmoe import VMoE


def dot(row, x):
    return sum(a * b for a, b in zip(row, x, strict=True))


def phi(v):
    return 0.5 * (1 + math.erf(v / math.sqrt(2)))


def softmax(scores):
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


def allocated(probs, k, room):
    """Batch prioritised routing (sec. 4): {(token, expert)} that get one of the `room` places of each expert."""
    left, chosen = [room] * len(probs[0]), set()
    ranks = [sorted(range(len(p)), key=lambda i, p=p: -p[i]) for p in probs]
    for choice in range(k):
        for token in sorted(range(len(probs)), key=lambda t: -max(probs[t])):
            expert = ranks[token][choice]
            if left[expert]:
                left[expert] -= 1
                chosen.add((token, expert))
    return chosen


def expert(experts, e, x):
    """w2 gelu(w1 x + b1) + b2."""
    hidden = [dot(row, x) + b for row, b in zip(experts.w1[e].tolist(), experts.b1[e].tolist(), strict=True)]
    hidden = [h * phi(h) for h in hidden]
    return [dot(row, hidden) + b for row, b in zip(experts.w2[e].tolist(), experts.b2[e].tolist(), strict=True)]


def demo(seed=0):
    torch.manual_seed(seed)
    model, (x,), target = VMoE.demo()
    return model.double().eval(), x.double(), target


def after_experts(think, x, k, room):
    """x + the experts' answers, as sec. 2 defines them, and who was chosen; x: [B, n, D]."""
    own = think.norm(x).flatten(0, 1).tolist()
    probs = [softmax([dot(w, token) for w in think.router.score.weight.tolist()]) for token in own]
    chosen = allocated(probs, k, room)
    y = [list(token) for token in x.flatten(0, 1).tolist()]
    for t, e in chosen:
        answer = expert(think.experts, e, own[t])
        y[t] = [a + probs[t][e] * b for a, b in zip(y[t], answer, strict=True)]
    return torch.tensor(y, dtype=torch.float64).view_as(x), chosen


def test_equation_the_whole_net_by_hand_at_three_capacities():
    """Sec. 2 and 4: g = TOP_k(softmax(W x)), B_e = round(k N P C / E), the surest first."""
    model, x, _ = demo()
    for capacity in (0.25, 0.6, 1.05):
        with torch.no_grad():
            y, trace = model.at(capacity)(x)
            tokens = model.embed(x)                                          # [10, 17, 16]
            room = round(2 * 10 * 17 * capacity / 8)
            for block in range(2):
                tokens = model.looks[block](tokens)
                tokens, chosen = after_experts(model.thinks[block], tokens, 2, room)
                found = trace.decisions[block].gate.flatten(0, 1).nonzero()
                assert {tuple(pair) for pair in found.tolist()} == chosen
            torch.testing.assert_close(y, model.head(tokens[:, 0]), rtol=1e-9, atol=1e-9)


def cv2(columns):
    mean = sum(columns) / len(columns)
    return sum((c - mean) ** 2 for c in columns) / len(columns) / mean ** 2


def test_equation_both_losses_by_hand():
    """App. A: importance of clean probabilities, load against the k-th largest noisy score; each with half of 0.01."""
    model, x, target = demo()
    model.train()
    torch.manual_seed(5)
    loss = model.loss((x,), target).item()
    seen = []
    for think in model.thinks:
        think.router.score.register_forward_hook(lambda _, __, scores: seen.append(scores.detach()))
    torch.manual_seed(5)
    y, _, routings = model._read(x)
    by_hand = model.task(y, target).item()
    torch.manual_seed(5)
    for scores, routing in zip(seen, routings, strict=True):
        clean = scores.flatten(0, 1).tolist()
        noise = torch.randn(len(clean), 8, dtype=torch.float64).tolist()     # the only random numbers of the pass
        importance, load = [0.0] * 8, [0.0] * 8
        for t, row in enumerate(clean):
            noisy = [c + n / 8 for c, n in zip(row, noise[t], strict=True)]
            threshold = sorted(noisy, reverse=True)[1]
            for i, p in enumerate(softmax(row)):
                importance[i] += p
                load[i] += 1 - phi((threshold - row[i]) * 8)
            for i, p in enumerate(softmax(noisy)):
                assert abs(routing.weight[t, i].item() - p * routing.gate[t, i].item()) < 1e-12
        assert abs(importance[3] - routing.probs.sum(0)[3].item()) < 1e-9
        assert abs(load[3] - routing.load.sum(0)[3].item()) < 1e-9
        by_hand += 0.005 * cv2(importance) + 0.005 * cv2(load)
    assert abs(loss - by_hand) < 1e-9


def test_equation_the_load_of_a_chosen_expert_is_held_against_the_kth_score():
    """Shazeer et al. hold it against the (k+1)-th, so their load of a chosen expert is larger."""
    torch.manual_seed(0)
    scores, router = torch.randn(50, 6).double(), BatchPrioritised(4, 6).train()
    torch.manual_seed(1)
    routing = router.choose(scores, 2, 50)
    torch.manual_seed(1)
    noisy = scores + torch.randn(50, 6, dtype=torch.float64) / 6
    smaller = 0
    for t in range(50):
        second, third = sorted(noisy[t].tolist(), reverse=True)[1:3]
        for e in range(6):
            ours, theirs = (phi((scores[t, e].item() - other) * 6)
                            for other in (second, third if routing.wanted[t, e] else second))
            assert abs(routing.load[t, e].item() - ours) < 1e-12
            assert ours <= theirs if routing.wanted[t, e] else ours == theirs
            smaller += ours < theirs - 1e-3
    assert smaller > 50                                                        # of 100 that were chosen


def test_limit_no_capacity_leaves_the_tokens_as_they_are():
    model, x, _ = demo()
    with torch.no_grad():
        y, trace = model.at(0.0)(x)
        tokens = model.embed(x)
        for look in model.looks:
            tokens = look(tokens)
        torch.testing.assert_close(y, model.head(tokens[:, 0]), rtol=0, atol=1e-12)
    assert not any(d.gate.any() for d in trace.decisions)


def test_limit_every_expert_with_room_for_all_is_the_soft_mixture():
    """k = E and C = 1: softmax(W x) weighs all experts."""
    model, x, _ = demo()
    model.k = 8
    with torch.no_grad():
        y, trace = model.at(1.0)(x)
        tokens = model.embed(x)
        for look, think in zip(model.looks, model.thinks, strict=True):
            tokens = look(tokens)
            own = think.norm(tokens)
            weight = (own @ think.router.score.weight.T).softmax(-1)
            every = torch.stack([(own @ think.experts.w1[e].T + think.experts.b1[e]) for e in range(8)], 2)
            every = torch.nn.functional.gelu(every)
            answers = torch.stack([every[:, :, e] @ think.experts.w2[e].T + think.experts.b2[e] for e in range(8)], 2)
            tokens = tokens + (weight[..., None] * answers).sum(2)
        torch.testing.assert_close(y, model.head(tokens[:, 0]), rtol=1e-9, atol=1e-9)
    assert (trace.spent == trace.full).all()


def test_conservation_no_expert_takes_more_than_its_room_and_only_the_least_sure_go_without():
    model, x, _ = demo()
    for capacity in (0.1, 0.25, 0.5, 1.05, 4.0):
        with torch.no_grad():
            _, trace, routings = model.at(capacity)._read(x)
        room = round(2 * 170 * capacity / 8)
        for routing, decision in zip(routings, trace.decisions, strict=True):
            assert (routing.gate.sum(0) <= room).all()
            assert (routing.gate.sum(0) == routing.wanted.sum(0).clamp_max(room)).all()
            sure = routing.probs.amax(-1)
            first = torch.nn.functional.one_hot(routing.probs.argmax(-1), 8).bool()
            for e in range(8):
                served = sure[first[:, e] & routing.gate[:, e].bool()]
                without = sure[first[:, e] & ~routing.gate[:, e].bool()]
                assert not len(served) or not len(without) or served.min() >= without.max()
            assert decision.gate.sum() == routing.gate.sum()
        assert (routings[0].dropped.sum() == 0) == (capacity == 4.0 or (routings[0].wanted.sum(0) <= room).all())


def test_count_cost_of_the_experts_is_that_of_the_places_taken():
    """Each place costs one perceptron: 2 x 16 x 24 MACs in the demo; the router 16 x 8 for every token."""
    model, x, _ = demo()
    with torch.no_grad():
        _, none = model.at(0.0)(x)
        _, some = model.at(0.5)(x)
    places = sum(d.gate.sum((1, 2)) for d in some.decisions)
    assert (some.spent - none.spent == places * 2 * 16 * 24).all()
    assert none.full[0] - none.spent[0] == 2 * 17 * 8 * 2 * 16 * 24


def test_images_cost_differently():
    """Room is shared by the batch: an image of surer patches gets more of it (sec. 4)."""
    model, x, _ = demo()
    with torch.no_grad():
        _, trace, routings = model.at(0.25)._read(x)
    assert len(trace.spent.unique()) > 1
    first = routings[0]
    sure = first.probs.amax(-1).view(10, 17).mean(1)
    got = first.gate.view(10, 17, 8).sum((1, 2))
    assert torch.corrcoef(torch.stack([sure, got]))[0, 1] > 0
