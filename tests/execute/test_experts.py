"""Stacked experts: all of them, the chosen ones, what both cost, and the verb over them."""
import pytest
import torch

from dynnotes.execute import FeedForwardExperts, measured, price, run_experts
from dynnotes.execute.kernels.experts import ACTIVATIONS
from dynnotes.execute.kernels.experts.activations import activate

E, T, D, H, OUT = 5, 7, 6, 4, 3


def made(activation="gelu", bias=True):
    torch.manual_seed(0)
    experts = FeedForwardExperts(E, D, H, outputs=OUT, activation=activation, bias=bias).double()
    return experts, torch.randn(T, D).double()


def one(experts, e, row):
    h = experts.w1[e] @ row
    h = activate(h if experts.b1 is None else h + experts.b1[e], experts.activation)
    y = experts.w2[e] @ h
    return y if experts.b2 is None else y + experts.b2[e]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_answers_and_the_chosen_ones_expert_by_expert(activation, bias):
    experts, x = made(activation, bias)
    by_hand = torch.stack([torch.stack([one(experts, e, row) for e in range(E)]) for row in x])
    torch.testing.assert_close(experts(x), by_hand, rtol=1e-12, atol=1e-12)
    on = torch.rand(T, E) < 0.4
    on[0], on[1] = False, True                                       # none, and all
    weight = torch.rand(T, E).double()
    for scale in (weight, None):
        mixed = (by_hand * (on if scale is None else on * scale)[..., None]).sum(1)
        torch.testing.assert_close(experts.chosen(x, on, scale), mixed, rtol=1e-12, atol=1e-12)


def test_the_verb_gives_the_same_values_gradients_and_bill_in_both_forms():
    experts, x = made()
    x = x.view(1, T, D).requires_grad_()
    gate = (torch.rand(1, T, E) < 0.4).double()
    weight = torch.rand(1, T, E).double().requires_grad_()
    found = []
    for sparse in (False, True):
        with measured() as bill:
            y, trace = run_experts(gate, experts, x, name="experts", sparse=sparse, weight=weight)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, weight, *experts.parameters()))))
        each = D * H + H * OUT
        assert trace.full.item() == T * E * each
        assert trace.spent.item() == gate.sum().item() * each
        assert bill.macs == (trace.spent if sparse else trace.full).sum()
        assert bill.issued is not None and bill.issued >= bill.macs
    for dense, sparse in zip(*found, strict=True):
        torch.testing.assert_close(sparse * (gate if sparse.shape == gate.shape else 1),
                                   dense * (gate if dense.shape == gate.shape else 1), rtol=1e-11, atol=1e-11)


def test_what_is_off_may_be_infinite():
    experts, x = made("relu")
    with torch.no_grad():
        experts.w1[2].fill_(float("inf"))
    gate = torch.ones(1, T, E).double()
    gate[..., 2] = 0
    for sparse in (False, True):
        y, _ = run_experts(gate, experts, x[None], name="experts", sparse=sparse)
        assert y.isfinite().all()


def test_the_price_is_of_all_experts_and_no_tokens_are_legal():
    experts, x = made()
    assert price(experts, x).macs == E * (D * H + H * OUT)
    assert experts(x[:0]).shape == (0, E, OUT)
    assert experts.chosen(x[:0], torch.ones(0, E, dtype=torch.bool), None).shape == (0, OUT)
    assert len(experts) == E


def test_exported_it_gives_the_same():
    experts, x = made("swiglu")
    exported = torch.export.export(experts, (x,), strict=False)
    torch.testing.assert_close(exported.module()(x), experts(x), rtol=1e-12, atol=1e-12)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="no activation 'tanh'; one of relu"):
        FeedForwardExperts(2, 3, 4, activation="tanh")
