"""Each verb: sparse equals dense to 1e-9 in float64, runs exactly what its trace bills, and survives the edges."""
import pytest
import torch
from torch import nn

from dynnotes.execute import Dynamic, measured, run, run_channels, run_experts, run_if, run_kept, run_where, run_while
from dynnotes.nets.layers import Attention

B = 6


def gates(*shape):
    """Nothing on, everything on, one on, and random."""
    torch.manual_seed(len(shape))
    one = torch.zeros(shape)
    one.view(-1)[one.numel() // 2] = 1
    return {"none": torch.zeros(shape), "all": torch.ones(shape), "one": one, "some": (torch.rand(shape) > 0.5).float()}


class Inner(Dynamic):
    """A Dynamic inside a Dynamic: a gated layer that is itself skipped for some samples."""
    def __init__(self):
        super().__init__()
        self.stem, self.branch = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x):
        y, t = run(self.stem, x)
        z, u = run_if((x[:, 0] > 0).to(x), self.branch, y, name="inner", sparse=self.sparse)
        return y + z, t + u


class Stage(nn.Module):
    """Its state changes shape, as a network's maps do."""
    def __init__(self, inputs):
        super().__init__()
        self.body, self.head = nn.Linear(inputs, inputs + 1), nn.Linear(inputs + 1, 3)

    def forward(self, x):
        x = self.body(x).tanh()
        return x, self.head(x)


CASES = {
    "run_if": ((B,), lambda g, s: run_if(g, conv, image, name="layer", sparse=s)),
    "run_if of a Dynamic": ((B,), lambda g, s: run_if(g, inner.execute("sparse" if s else "dense"), vector,
                                                      name="layer", sparse=s)),
    "run_channels of a convolution": ((B, 4), lambda g, s: run_channels(g, conv, image, name="c", sparse=s)),
    "run_channels of a depthwise": ((B, 3), lambda g, s: run_channels(g, depthwise, image, name="c", sparse=s)),
    "run_channels of a linear": ((B, 4), lambda g, s: run_channels(g, linear, vector, name="c", sparse=s)),
    "run_where": ((B, 1, 4, 4), lambda g, s: run_where(g, conv, image, name="p", sparse=s)),
    "run_where grouped and dilated": ((B, 1, 7, 7), lambda g, s: run_where(g, grouped, image, name="p", sparse=s)),
    "run_kept, tokens alone": ((B, 7), lambda g, s: run_kept(g, token, tokens, name="t", sparse=s, keys=None)),
    "run_kept, kept keys": ((B, 7), lambda g, s: run_kept(g, attention, tokens, name="t", sparse=s)),
    "run_kept, all keys": ((B, 7), lambda g, s: run_kept(g, attention, tokens, name="t", sparse=s, keys="all")),
    "run_experts of tokens": ((B, 7, 3), lambda g, s: run_experts(g, experts, tokens, name="e", sparse=s, weight=mix)),
    "run_experts as branches": ((B, 3), lambda g, s: run_experts(g, branches, image, name="e", sparse=s)),
}

torch.manual_seed(0)
conv = nn.Conv2d(3, 4, 3, 2, 1).double()
depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3).double()
grouped = nn.Conv2d(3, 6, 3, 1, 2, dilation=2, groups=3, bias=False).double()
linear, token = nn.Linear(5, 4).double(), nn.Linear(5, 2).double()
attention = Attention(5, heads=1).double()
experts = nn.ModuleList(nn.Sequential(nn.Linear(5, h), nn.ReLU(), nn.Linear(h, 2)) for h in (3, 4, 5)).double()
branches = nn.ModuleList(nn.Conv2d(3, 2, k, padding=k // 2) for k in (1, 3, 5)).double()
inner = Inner().double().eval()
image, vector, tokens = torch.randn(B, 3, 7, 7).double(), torch.randn(B, 5).double(), torch.randn(B, 7, 5).double()
mix = torch.rand(B, 7, 3).double()


@pytest.mark.parametrize("which", ["none", "all", "one", "some"])
@pytest.mark.parametrize("verb", CASES)
def test_sparse_equals_dense_and_costs_what_the_trace_says(verb, which):
    shape, call = CASES[verb]
    gate = gates(*shape)[which].double()
    with torch.no_grad():
        dense, claimed = call(gate, False)
        with measured() as bill:
            sparse, trace = call(gate, True)
        with measured() as everything:
            call(gate, False)
    torch.testing.assert_close(sparse, dense, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(trace.spent, claimed.spent)
    torch.testing.assert_close([d.gate for d in trace.decisions], [d.gate for d in claimed.decisions])
    assert bill.macs == trace.spent.sum()
    assert (trace.spent <= trace.full).all()
    if "inner" not in [d.name for d in trace.decisions]:
        assert everything.macs == trace.full.sum()
    if which == "none":
        assert not sparse.any() and bill.macs == 0


@pytest.mark.parametrize("verb", CASES)
def test_the_dense_form_has_no_nan_where_the_gate_is_off(verb, monkeypatch):
    shape, call = CASES[verb]
    for weight in (p for m in (conv, depthwise, grouped, linear, token) for p in m.parameters()):
        monkeypatch.setattr(weight, "data", torch.full_like(weight, float("inf")))
    with torch.no_grad():
        y, _ = call(torch.zeros(shape).double(), False)
    assert torch.equal(y, torch.zeros_like(y))


@pytest.mark.parametrize("verb", CASES)
def test_no_samples_and_soft_gates(verb):
    shape, call = CASES[verb]
    soft = torch.full(shape, 0.5).double()
    with pytest.raises(ValueError, match="0 or 1"):
        call(soft, True)
    with pytest.raises(ValueError, match="0 or 1"):
        call(soft * float("nan"), True)
    gate = soft.clone().requires_grad_()
    y, trace = call(gate, False)
    (y.sum() + trace.spent.sum()).backward()
    assert gate.grad.isfinite().all() and gate.grad.any(), "a soft gate learns from the value and from the bill"


@pytest.mark.parametrize("left", [0, 1, 2])
def test_run_while_writes_each_row_once_where_it_left(left):
    torch.manual_seed(0)
    stages = nn.ModuleList(Stage(n) for n in (5, 6, 7)).double()
    x = torch.randn(B, 5).double()
    leaves_at = torch.full((B,), left) if left < 2 else torch.tensor([0, 1, 2, 2, 1, 0])
    answers, h = [], x
    with torch.no_grad():
        for s in stages:
            h, y = s(h)
            answers.append(y)
    expected = torch.stack([answers[k][i] for i, k in enumerate(leaves_at)])

    def leave(i, answer):                                     # finds each row by its value: rows move when packed
        row = torch.cdist(answer, answers[i]).argmin(1)
        return leaves_at[row] == i

    for sparse in (False, True):
        with torch.no_grad():
            y, trace = run_while(stages, leave, x, sparse=sparse)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(trace.decisions[0].gate.sum(1), leaves_at + 1.0)
    with torch.no_grad(), measured() as bill:
        _, trace = run_while(stages, lambda i, a: torch.zeros(len(a), dtype=torch.bool), x, sparse=True)
    assert bill.macs == trace.spent.sum() == trace.full.sum()


def test_sparse_refuses_to_lose_a_gradient_and_says_the_verb():
    gate = torch.ones(B).double().requires_grad_()
    for call, verb in ((lambda: run_if(gate, conv, image, name="x", sparse=True), "run_if"),
                       (lambda: run_kept(gate[:, None].expand(B, 7), token, tokens, name="x", sparse=True, keys=None),
                        "run_kept")):
        with pytest.raises(RuntimeError, match=verb):
            call()


def test_run_channels_also_skips_inputs_that_are_off():
    feed, keep = gates(B, 3)["some"].double(), gates(B, 4)["some"].double()
    x = image * feed[:, :, None, None]
    with torch.no_grad(), measured() as bill:
        y, trace = run_channels(keep, conv, x, name="c", sparse=True, inputs=feed)
    with torch.no_grad():
        dense, _ = run_channels(keep, conv, x, name="c", sparse=False, inputs=feed)
    torch.testing.assert_close(y, dense, rtol=1e-9, atol=1e-9)
    assert bill.macs == trace.spent.sum() < trace.full.sum()


def test_wrong_uses_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"\[B, 1, 4, 4\]"):
        run_where(torch.ones(B, 1, 7, 7), conv, image, name="p", sparse=True)
    reflect = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
    with pytest.raises(TypeError, match="zero padding"):
        run_where(torch.ones(B, 1, 7, 7), reflect, image, name="p", sparse=True)
    with pytest.raises(TypeError, match="depthwise"):
        run_channels(torch.ones(B, 4), nn.LSTM(3, 4), image, name="c", sparse=True)
    with pytest.raises(ValueError, match="keys"):
        run_kept(torch.ones(B, 7), token, tokens, name="t", sparse=True, keys="some")
