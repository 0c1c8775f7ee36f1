"""What every paper must keep, whatever it adapts: a function per promise, raising AssertionError when it is broken.

Which promises apply follows from what the bibliography says the paper adapts (book/architecture.md, "What each kind
promises"). test_contract.py asks every registered paper; test_contract_catches.py asks papers that are broken on
purpose, and expects the right promise to fail.
"""
from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.utils import _pytree as pytree

import dynnotes
from dynnotes.execute import measured

VARIES = {"input": "gate", "place": "at", "weights": "weight"}   # what of a decision differs between samples
SAVES = {"input", "budget", "schedule"}           # some samples cost less than everything on
BUDGETED = {"input", "place", "budget", "schedule"}
PROMISES = {}


def promise(check):
    """Register a promise under its name; it is called with the paper's class."""
    PROMISES[check.__name__] = check
    return check


def adapts(paper) -> set[str]:
    return set(dynnotes.load()[paper.key].adapts)


def double(xs):
    return pytree.tree_map(lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, xs)


def constant(paper, trace) -> list[str]:
    """Of what should differ between the samples of a batch, that which does not."""
    def differs(t):
        return t is not None and bool((t != t[:1]).any())
    return [VARIES[word] for word in sorted(adapts(paper) & set(VARIES))
            if not any(differs(getattr(d, VARIES[word])) for d in trace.decisions)]


def demo(paper):
    """(model, inputs, target) in float64, from the first of ten seeds whose decisions differ within the batch."""
    for seed in range(10):
        torch.manual_seed(seed)
        model, inputs, target = paper.demo()
        model, inputs = model.double().eval(), double(inputs)
        with torch.no_grad():
            _, trace = model(*inputs)
        if not constant(paper, trace):
            return model, inputs, double(target)
    raise AssertionError(f"ten random demos, and no decision's {constant(paper, trace)} ever depended on the sample")


def budgets(model):
    """The model as its demo stands, then at its cheapest, its middle and its dearest budget."""
    yield model
    if model.budget:
        low, high = model.budget.low, model.budget.high
        cheap, dear = (low, high) if model.budget.cheaper == "lower" else (high, low)
        for value in (cheap, (cheap + dear) / 2, dear):
            yield model.at(value)


@promise
def the_demo_is_small(paper):
    assert sum(p.numel() for p in paper.demo()[0].parameters()) <= 200_000


@promise
def decisions_vary(paper):
    """Between samples, budgets or moments: as the bibliography says of this paper."""
    model, inputs, _ = demo(paper)
    if "schedule" in adapts(paper):
        with torch.no_grad():
            decisions = model(*inputs)[1].decisions
        assert any((d.gate != d.gate.flatten(1)[:, :1].view(-1, *[1] * (d.gate.dim() - 1))).any() for d in decisions), \
            "no decision changes over time"
    if "budget" in adapts(paper):
        with torch.no_grad():
            gates = [torch.cat([d.gate.flatten() for d in model.at(v)(*inputs)[1].decisions])
                     for v in model.budget.values]
        assert any((g != gates[0]).any() for g in gates), "no decision changes with the budget"


@promise
def decisions_can_be_read(paper):
    """At inference: gates of 0 or 1, a row per sample, names that differ, prices that fit, boxes inside the input."""
    model, inputs, _ = demo(paper)
    for setting in budgets(model):
        with torch.no_grad():
            decisions = setting(*inputs)[1].decisions
        assert len({d.name for d in decisions}) == len(decisions), "two decisions of one name"
        for d in decisions:
            assert len(d.gate) == len(inputs[0]), f"{d.name}: a gate row per sample"
            assert ((d.gate == 0) | (d.gate == 1)).all(), f"{d.name}: soft gates at inference"
            assert not isinstance(d.macs, tuple) or len(d.macs) == d.gate.shape[-1], f"{d.name}: a price per unit"
            assert d.at is None or (d.at.shape == (*d.gate.shape, 4) and ((d.at >= 0) & (d.at <= 1)).all()), d.name


@promise
def answers_can_be_repeated(paper):
    """Nothing is drawn at random at inference."""
    model, inputs, _ = demo(paper)
    with torch.no_grad():
        (first, a), (again, b) = model(*inputs), model(*inputs)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert (a.spent == b.spent).all()


@promise
def sparse_equals_dense(paper):
    model, inputs, _ = demo(paper)
    for setting in budgets(model):
        with torch.no_grad():
            sparse, a = setting.execute("sparse")(*inputs)
            dense, b = setting.execute("dense")(*inputs)
        torch.testing.assert_close(sparse, dense, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close([a.spent, a.full, *[d.gate for d in a.decisions]],
                                   [b.spent, b.full, *[d.gate for d in b.decisions]])


@promise
def the_bill_is_what_ran_to_the_last_mac(paper):
    model, inputs, _ = demo(paper)
    for setting in budgets(model):
        with torch.no_grad(), measured() as bill:
            _, trace = setting.execute("sparse")(*inputs)
        assert bill.macs == trace.spent.sum(), f"executed {bill.macs:,}, claimed {trace.spent.sum():,.0f}"
        assert (trace.spent > 0).all() and (trace.spent <= trace.full).all()
        assert trace.spent.dtype == torch.float64


@promise
def everything_on_costs_the_same_for_all(paper):
    """`full` depends on the shape of the input, never on a decision or the budget."""
    model, inputs, _ = demo(paper)
    with torch.no_grad():
        full = torch.cat([setting(*inputs)[1].full for setting in budgets(model)])
    assert (full == full[0]).all(), f"from {full.min():,.0f} to {full.max():,.0f}"


@promise
def the_bill_of_a_published_size(paper):
    """The largest printed size below 50 M parameters, for real."""
    def parameters(published):
        with torch.device("meta"):
            return sum(p.numel() for p in published.make().parameters())
    sizes = [p for p in paper.published() if parameters(p) < 50e6] if hasattr(paper, "published") else []
    if not sizes:
        return
    published = max(sizes, key=parameters)
    model = published.make().eval()
    with torch.no_grad(), measured() as bill:
        _, trace = model.execute("sparse")(*published.inputs())
    assert bill.macs == trace.spent.sum()


@promise
def some_sample_spends_less(paper):
    if not adapts(paper) & SAVES:
        return
    model, inputs, _ = demo(paper)
    values = model.budget.values if "budget" in adapts(paper) else [None]
    with torch.no_grad():
        traces = [(model if v is None else model.at(v))(*inputs)[1] for v in values]
    assert any((t.spent < t.full).any() for t in traces)


@promise
def spending_falls_with_the_budget(paper):
    if not adapts(paper) & BUDGETED:
        return
    model, inputs, _ = demo(paper)
    with torch.no_grad():
        _, *spent = [setting(*inputs)[1].spent.mean().item() for setting in budgets(model)]
    assert spent[0] <= spent[1] <= spent[2] and spent[0] < spent[2]


@promise
def every_parameter_learns(paper):
    """A gradient that is more than rounding noise, summed over four batches of training."""
    torch.manual_seed(0)
    model = paper.demo()[0].double().train()
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for seed in range(4):
        torch.manual_seed(seed)
        _, inputs, target = paper.demo()
        model.zero_grad()
        model.loss(double(inputs), double(target)).backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), f"{name} has no finite gradient"
            total[name] += p.grad.abs()
    largest = max(t.max() for t in total.values())
    silent = [n for n, t in total.items() if t.max() < 1e-8 * largest]
    assert not silent, f"these never learn: {silent}"


@promise
def samples_do_not_see_each_other(paper):
    """Where they share the room of experts (`couples`), with so much of it that none goes without."""
    model, inputs, _ = demo(paper)
    if getattr(paper, "couples", None):                              # a network that was adapted declares none
        model = model.uncoupled()
    apart = pytree.tree_map(lambda *rows: torch.cat(rows), *[
        model(*pytree.tree_map(lambda x, i=i: x[i:i + 1], inputs))[0] for i in range(len(inputs[0]))])
    together, _ = model(*inputs)
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-9)


@promise
def state_dict_round_trip(paper):
    model, inputs, _ = demo(paper)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pt")
        state = torch.load(Path(folder) / "weights.pt", weights_only=True)
    torch.manual_seed(99)
    other = paper.demo()[0].double().eval()
    if model.budget:
        value = getattr(model, model.budget.name)
        other.at(value)
    other.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(other(*inputs)[0], model(*inputs)[0], rtol=0, atol=0)


@promise
def the_task_is_learned(paper):
    """The task's own loss falls in twenty steps on one batch: the median of three seeds."""
    falls = []
    for seed in range(3):
        torch.manual_seed(seed)
        model, inputs, target = paper.demo()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        def task(model=model, inputs=inputs, target=target):
            with torch.no_grad():
                return model.task(model(*inputs)[0], target).item()
        model.train()
        before = task()
        for _ in range(20):
            optimizer.zero_grad()
            model.loss(inputs, target).backward()
            optimizer.step()
        falls.append(task() / before)
    assert sorted(falls)[1] < 0.9, f"task loss after / before: {falls}"


@promise
def no_samples_at_all(paper):
    """An empty batch is an empty answer, in both forms."""
    model, inputs, _ = demo(paper)
    none = pytree.tree_map(lambda x: x[:0], inputs)
    for how in ("dense", "sparse"):
        with torch.no_grad():
            y, trace = model.execute(how)(*none)
        assert all(len(t) == 0 for t in pytree.tree_leaves(y)) and len(trace.spent) == 0


@promise
def it_exports_with_its_trace(paper):
    """torch.export takes the model whole, trace and all, in the dense form."""
    model, inputs, _ = demo(paper)
    with torch.no_grad():
        y, trace = model(*inputs)
        exported = torch.export.export(model, inputs, strict=False)
        z, again = exported.module()(*inputs)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(again.spent, trace.spent)
    assert [d.name for d in again.decisions] == [d.name for d in trace.decisions]
