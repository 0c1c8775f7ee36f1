"""Routers, one and all: room is shared out as said, nothing is lost, ties and NaN are met, and equations by hand.

The fidelity of a router inside its paper's layer is tested with the paper.
"""
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynnotes.decide import routers
from dynnotes.decide.routers import ranked, with_room

E, S, D = 6, 11, 5


def scores(seed=0, shape=(2, S, E)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# name: (router, how it chooses from scores [..., S, E])
ROUTERS = {
    "soft": (routers.Soft(D, E), lambda r, s: r.choose(s)),
    "noisy top-2": (routers.NoisyTopK(D, E), lambda r, s: r.choose(torch.zeros(*s.shape[:-1], D).double(), s, 2)),
    "switch": (routers.SwitchTop1(D, E), lambda r, s: r.choose(s, 2)),
    "random second": (routers.RandomSecond(D, E), lambda r, s: r.choose(s, 3)),
    "batch prioritised": (routers.BatchPrioritised(D, E), lambda r, s: r.choose(s, 2, 3)),
    "expert choice": (routers.ExpertChoice(D, E), lambda r, s: r.choose(s, min(3, s.shape[-2]))),
    "top-2 softmax": (routers.TopKSoftmax(D, E), lambda r, s: r.choose(s, 2)),
    "softmax top-2": (routers.SoftmaxTopK(D, E), lambda r, s: r.choose(s, 2)),
    "balanced sigmoid": (routers.BalancedSigmoid(D, E), lambda r, s: r.choose(s, 2)),
}
for _router, _ in ROUTERS.values():
    _router.double()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ROUTERS)
def test_conservation_what_was_wanted_is_routed_or_dropped(name, training):
    router, choose = ROUTERS[name]
    torch.manual_seed(1)
    routing = choose(router.train(training), scores())
    gate, wanted = routing.gate, routing.wanted
    assert ((gate == 0) | (gate == 1)).all() and ((wanted == 0) | (wanted == 1)).all()
    assert (gate <= wanted).all()
    assert (routing.dropped == wanted.sum(-1) - gate.sum(-1)).all() and (routing.dropped >= 0).all()
    assert not routing.weight[gate == 0].any() and (routing.weight >= 0).all()
    torch.testing.assert_close(routing.probs.sum(-1), torch.ones(2, S).double())


@pytest.mark.parametrize("name", ROUTERS)
def test_outside_training_nothing_is_drawn_and_groups_do_not_see_each_other(name):
    router, choose = ROUTERS[name]
    together, apart = choose(router.eval(), scores()), choose(router, scores()[1:])
    for both, one in zip(together[:3], apart[:3], strict=True):
        assert torch.equal(both[1:], one)


@pytest.mark.parametrize("name", ROUTERS)
def test_scores_of_nan_are_refused(name):
    router, choose = ROUTERS[name]
    bad = scores()
    bad[0, 3, 2] = float("nan")
    if name == "soft":                                               # nothing is chosen, so nothing to go wrong with
        assert choose(router, bad).weight[0, 3].isnan().all()
        return
    with pytest.raises(ValueError, match="NaN"):
        choose(router.eval(), bad)


@pytest.mark.parametrize("name", ROUTERS)
def test_no_tokens_and_equal_scores(name):
    router, choose = ROUTERS[name]
    if name != "expert choice":
        assert choose(router.eval(), scores()[:, :0]).gate.shape == (2, 0, E)
    even = choose(router.eval(), torch.zeros(1, S, E).double())
    again = choose(router, torch.zeros(1, S, E).double())
    assert torch.equal(even.gate, again.gate)
    if name in ("noisy top-2", "top-2 softmax", "softmax top-2", "balanced sigmoid"):
        assert even.gate[0].tolist() == [[1, 1, 0, 0, 0, 0]] * S     # the lower experts win
    if name == "expert choice":
        assert even.gate[0].sum(0).tolist() == [3] * E


@pytest.mark.parametrize("k", [0, E + 1])
def test_k_is_between_one_and_all(k):
    with pytest.raises(ValueError, match="k is between 1 and 6 experts"):
        ranked(scores(), k)


def test_k_of_all_takes_all_in_order():
    found = ranked(scores(), E)
    assert (found.sum(-3) == 1).all()
    order = found.argmax(-1).movedim(-2, -1)                         # [2, S, E]
    assert torch.equal(order, scores().argsort(-1, descending=True))


# Room ----------------------------------------------------------------------------------------------------------------

def room_by_hand(wanted, capacity, priority):
    """wanted: [k][S] experts. All first choices before any second, each by priority, or in the order of the tokens."""
    tokens = list(range(len(wanted[0])))
    if priority is not None:
        tokens.sort(key=lambda t: -priority[t])                      # Python's sort is stable
    taken, kept = [0] * E, [[False] * len(tokens) for _ in wanted]
    for rank, experts in enumerate(wanted):
        for t in tokens:
            kept[rank][t] = taken[experts[t]] < capacity
            taken[experts[t]] += 1
    return kept


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), k=st.integers(1, 3), tokens=st.integers(0, 12), capacity=st.integers(0, 14),
       by_priority=st.booleans())
def test_room_is_shared_out_as_by_hand(seed, k, tokens, capacity, by_priority):
    s = scores(seed, (tokens, E))
    s[:, 0] += 1                                                     # a favourite
    wanted, priority = ranked(s, k), (s.amax(-1) * 2).round() if by_priority else None      # with ties
    kept = with_room(wanted, capacity, priority)
    by_hand = room_by_hand(wanted.argmax(-1).tolist() if tokens else [[] for _ in range(k)], capacity,
                           None if priority is None else priority.tolist())
    assert kept.sum(-1).bool().tolist() == by_hand
    assert (kept <= wanted).all()
    assert (kept.flatten(0, 1).sum(0) <= capacity).all()


def test_no_room_drops_everything_and_less_than_none_is_an_error():
    wanted = ranked(scores(), 2)
    assert not with_room(wanted, 0).any()
    assert torch.equal(with_room(wanted, 2 * S), wanted)
    with pytest.raises(ValueError, match="capacity is 0 or more tokens, not -1"):
        with_room(wanted, -1)


def test_without_room_a_switch_layer_is_the_identity_in_its_residual():
    routing = routers.SwitchTop1(D, E).double().eval().choose(scores(), 0)
    assert not routing.gate.any() and not routing.weight.any()
    assert (routing.dropped == 1).all()


# One by one ----------------------------------------------------------------------------------------------------------

def test_equation_soft_is_a_softmax_over_all():
    routing = ROUTERS["soft"][0].choose(scores())
    for row, found in zip(scores().flatten(0, 1).tolist(), routing.weight.flatten(0, 1).tolist(), strict=True):
        total = sum(map(math.exp, row))
        assert all(abs(w - math.exp(s) / total) < 1e-12 for s, w in zip(row, found, strict=True))
    assert (routing.gate == 1).all()


def test_equation_sigmoid_with_bias_chooses_by_both_and_weighs_without():
    """DeepSeek-V3, eq. (13), (15), (16); one step of the bias by hand."""
    router = routers.BalancedSigmoid(D, E, speed=0.25).double()
    router.bias.copy_(torch.tensor([0.0, 0.5, -0.5, 0.25, 0.0, -1.0]))
    bias, loads = router.bias.tolist(), [0] * E
    routing = router.choose(scores(), 2)
    for row, gate, weight in zip(*(t.flatten(0, 1).tolist() for t in (scores(), routing.gate, routing.weight)),
                                 strict=True):
        s = [1 / (1 + math.exp(-v)) for v in row]
        best = sorted(range(E), key=lambda i: -(s[i] + bias[i]))[:2]
        for i in range(E):
            assert gate[i] == (i in best)
            assert abs(weight[i] - (s[i] / sum(s[j] for j in best) if i in best else 0)) < 1e-12
            loads[i] += i in best
    router.rebalance(routing.wanted)
    mean = sum(loads) / E
    assert len({load > mean for load in loads}) == 2
    for i in range(E):
        step = 0.25 if loads[i] < mean else -0.25 if loads[i] > mean else 0
        assert abs(router.bias[i].item() - bias[i] - step) < 1e-12


def test_the_bias_is_saved_and_never_learned():
    router = routers.BalancedSigmoid(D, E)
    assert "bias" in router.state_dict() and "bias" not in dict(router.named_parameters())
    router.rebalance(torch.eye(E)[:2])
    assert router.bias.tolist() == pytest.approx([-1e-3, -1e-3, 1e-3, 1e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("tokens", [200, 2000])
def test_the_bias_tells_loads_apart_that_bfloat16_cannot(tokens):
    router = routers.BalancedSigmoid(D, 2).bfloat16()
    first = tokens // 2 + 1
    wanted = torch.eye(2, dtype=torch.bfloat16).repeat_interleave(torch.tensor([first, tokens - first]), 0)
    for _ in range(500):                                                   # half a step of bfloat16 at 0.25 is 0.0005
        router.rebalance(wanted)
    assert router.bias.dtype is torch.float32 and router.score.weight.dtype is torch.bfloat16
    assert router.bias.tolist() == pytest.approx([-0.5, 0.5], rel=1e-4)
    routing = router.choose(torch.zeros(3, 2, dtype=torch.bfloat16), 1)
    assert routing.gate.tolist() == [[0, 1]] * 3 and routing.gate.dtype is torch.bfloat16


def test_the_bias_follows_its_module_elsewhere():
    router = routers.BalancedSigmoid(D, E)
    assert router.double().bias.dtype is torch.float64
    with torch.device("meta"):
        router = routers.BalancedSigmoid(D, E).bfloat16()
    assert router.bias.is_meta and router.bias.dtype is torch.float32
    assert router.to_empty(device="cpu").bias.device.type == "cpu"


def test_hash_gives_each_word_one_expert_as_many_words_to_each():
    router = routers.Hash(20, 4, seed=3)
    words = torch.arange(20).view(4, 5)
    gate = router.choose(words).gate
    assert gate.shape == (4, 5, 4)
    assert (gate.sum(-1) == 1).all() and (gate.flatten(0, 1).sum(0) == 5).all()
    assert torch.equal(gate, routers.Hash(20, 4, seed=3).choose(words).gate)
    assert not torch.equal(gate, routers.Hash(20, 4, seed=4).choose(words).gate)
    assert router.choose(words[:0]).gate.shape == (0, 5, 4)
    for bad in (-1, 20):
        with pytest.raises(ValueError, match="numbers from 0 to 19"):
            router.choose(torch.tensor([3, bad]))


def test_expert_choice_is_full_and_refuses_more_than_there_are():
    routing = ROUTERS["expert choice"][0].choose(scores(), 4)
    assert (routing.gate.sum(-2) == 4).all()                         # every expert takes just so many
    assert len(routing.gate.sum(-1).unique()) > 1                    # tokens differ
    with pytest.raises(ValueError, match="between 0 and 11 tokens, not 12"):
        ROUTERS["expert choice"][0].choose(scores(), S + 1)
