"""A knob set on held-out data: to a number of multiply-accumulates, and to a risk that is really kept."""
import math

import pytest
import torch
from torch import nn

from dynnotes.adapt import AdaptError, calibrate, disagreement, error, guarantee, with_exits, with_skips
from dynnotes.adapt.calibrate import conformal
from dynnotes.execute import Dynamic, Trace
from dynnotes.registry import Budget


def clouds(n, seed):
    """Twelve noisy clouds of points around a circle, of four classes in turn: some points lie between."""
    g = torch.Generator().manual_seed(seed)
    place = torch.randint(12, (n,), generator=g)
    angle = place * (math.pi / 6)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.4 * torch.randn(n, 2, generator=g), place % 4


@pytest.fixture(scope="module")
def net():
    torch.set_num_threads(1)                                         # made before any test sets it
    torch.manual_seed(0)
    layers = [nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)]
    x, target = clouds(512, 0)
    net = with_exits(nn.Sequential(*layers), ["1", "3"], (x,)).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        net.loss((x,), target).backward()
        optimizer.step()
    return net.eval()


def batches(n, seed, size=100):
    x, target = clouds(n, seed)
    return list(zip(x.split(size), target.split(size), strict=True))


# To a number of multiply-accumulates ---------------------------------------------------------------------------------

def every_spending(net, x):
    """Mean MACs at every threshold that makes a difference, found from the entropies of all exits, by loops."""
    with torch.no_grad():
        exits = [y.double().softmax(1) for y in net.exits(x)]
        full = net.at(0)(x)[1].decisions[0].macs
    entropies = [[-sum(p * math.log(p) for p in row) for row in y.tolist()] for y in exits[:-1]]
    found = []
    for threshold in sorted({0.0, *(e for exit_ in entropies for e in exit_), 2.0}):
        total = 0
        for b in range(len(x)):
            stages = next((n + 1 for n in range(len(entropies)) if entropies[n][b] < threshold), len(exits))
            total += sum(full[:stages])
        found.append(total / len(x))
    return found


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
def test_the_setting_found_spends_at_most_what_was_asked_and_nearest_to_it(net, share):
    held = batches(300, 1)
    x = torch.cat([x for x, _ in held])
    net.at(0.3)
    with torch.no_grad():
        full = float(net(x)[1].full[0])
    value = calibrate(net, held, share * full, steps=40)
    assert net.threshold == 0.3 and not net.sparse                   # left as it was
    with torch.no_grad():
        spent = float(net.at(value)(x)[1].spent.mean())
    possible = [s for s in every_spending(net, x) if s <= share * full * (1 + 1e-12)]
    assert spent == pytest.approx(max(possible), rel=1e-9)


def test_inputs_may_be_tuples_and_batches_an_iterator(net):
    held = batches(100, 2)
    macs = 0.6 * float(net(held[0][0])[1].full[0])
    assert calibrate(net, iter([((x,), None) for x, _ in held]), macs) == calibrate(net, held, macs)


class Waves(Dynamic):
    """Spending that neither rises nor falls with the knob."""
    budget = Budget("knob", 0.0, 1.0, (0.2, 0.5, 0.8), cheaper="lower")
    knob = 0.5

    def forward(self, x):
        return x, Trace.static(x, 100 + 50 * math.sin(9 * self.knob))


class Count(Dynamic):
    """A knob that only whole numbers turn."""
    budget = Budget("k", 1, 12, (1, 4, 12), cheaper="lower")
    k = 4

    def forward(self, x):
        assert isinstance(self.k, int)
        return x, Trace.static(x, 10 * self.k)


def test_spending_that_does_not_follow_the_knob():
    for macs in (60, 90, 100, 110, 140):
        value = calibrate(Waves(), batches(10, 0), macs, steps=30)
        assert macs - 1e-3 < 100 + 50 * math.sin(9 * value) <= macs


def test_whole_numbers_stay_whole():
    assert [calibrate(Count(), batches(10, 0), macs) for macs in (10, 79, 80, 500)] == [1, 7, 8, 12]


# To a risk -----------------------------------------------------------------------------------------------------------

def test_the_formula_by_hand():                                      # Angelopoulos et al., sec. 1.1: B = 1, n = 3
    losses = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]])       # from dear to cheap
    monotone = [[0, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 1]]
    by_hand = [3 / 4 * (sum(row) / 3) + 1 / 4 for row in monotone]            # 0.25, 0.5, 0.5, 1
    for risk, row in ((0.24, None), (0.25, 0), (0.49, 0), (0.5, 2), (0.99, 2), (1.0, 3)):
        chosen, bounds = conformal(losses, risk)
        assert bounds.tolist() == pytest.approx(by_hand)
        assert chosen == row


def table(net, loss, n=2000):
    """[settings, n] losses, from dear to cheap."""
    x, target = clouds(n, 7)
    with torch.no_grad():
        full, _ = net.at(0)(x)
        return torch.stack([loss(net, net.at(t)(x)[0], full, target) for t in torch.linspace(0, 1.386, 41).tolist()])


@pytest.mark.parametrize(("loss", "risk", "n"), [(disagreement, 0.04, 40), (disagreement, 0.02, 100),
                                                 (error, 0.3, 40), (error, 0.24, 60)])
def test_the_promise_is_kept_over_many_draws_of_calibration_and_test_data(net, loss, risk, n):
    losses = table(net, loss).double()
    g, means, chosen = torch.Generator().manual_seed(0), [], []
    for _ in range(600):
        order = torch.randperm(losses.shape[1], generator=g)
        row, _ = conformal(losses[:, order[:n]], risk)
        chosen.append(row)
        means.append(0.0 if row is None else float(losses[row, order[n:]].mean()))
    means = torch.tensor(means)
    assert means.mean() <= risk + 2 * means.std() / len(means)**0.5
    assert means.mean() > risk / 5 and len(set(chosen)) > 1          # nor is it kept by never daring anything


def test_without_the_maximum_over_dearer_settings_the_promise_breaks():
    """The counterexample of Angelopoulos et al., proposition 1: losses drawn anew for every setting."""
    g = torch.Generator().manual_seed(0)
    risk, n, chance = 0.4, 20, 0.6
    plain, ours = [], []
    for _ in range(300):
        losses = (torch.rand(401, n + 1, generator=g) < chance).double()
        losses[0] = 0                                                # the dearest is always right
        bounds = (losses[:, :n].sum(1) + 1) / (n + 1)
        plain.append(losses[int((bounds <= risk).nonzero().max()), n])
        ours.append(losses[conformal(losses[:, :n], risk)[0], n])
    assert torch.stack(plain).mean() > risk + 0.1
    assert torch.stack(ours).mean() <= risk


def test_a_guarantee_says_what_it_rests_on(net):
    held = batches(200, 3, size=64)
    net.at(0.7).train()
    found = guarantee(net, held, 0.1)
    assert net.threshold == 0.7 and net.training and not net.sparse
    net.eval()
    values = sorted({*net.budget.values, *(net.budget.high * i / 20 for i in range(21))})
    x = torch.cat([x for x, _ in held])
    worst, expected = [0] * len(x), None
    with torch.no_grad():
        full = net.at(0)(x)[0].argmax(1).tolist()
        for value in values:
            y, trace = net.at(value)(x)
            now = [int(a != b) for a, b in zip(y.argmax(1).tolist(), full, strict=True)]
            worst = [max(a, b) for a, b in zip(worst, now, strict=True)]
            bound = len(x) / (len(x) + 1) * (sum(worst) / len(x)) + 1 / (len(x) + 1)
            if bound <= 0.1:
                expected = (value, 0.1, bound, sum(now) / len(x), len(x), float(trace.spent.mean()))
    assert (found.value, found.risk, found.bound, found.measured, found.n, found.macs) == pytest.approx(expected)
    assert found.macs < found.full
    assert "expected loss at most 0.1" in str(found)


def test_ones_own_values_and_loss(net):
    held = batches(100, 4)
    found = guarantee(net, held, 0.9, values=[0.1, 0.4], loss=lambda net, y, full, target: torch.zeros(len(y)))
    assert found.value == 0.4 and found.measured == 0


def test_what_cannot_be_promised_is_said(net):
    held = batches(30, 5)
    with pytest.raises(AdaptError, match=r"30 held-out inputs cannot promise a risk of 0.02.*it takes 49 or more"):
        guarantee(net, held, 0.02)
    guarantee(net, batches(49, 5), 0.02)
    with pytest.raises(AdaptError, match=r"keeps no risk of 0\.04: even at its dearest"):
        guarantee(net, held, 0.04, loss=error)
    for bad in (0, 1, -1):
        with pytest.raises(AdaptError, match="between 0 and 1"):
            guarantee(net, held, bad)
    with pytest.raises(AdaptError, match=r"in \[0, 1\] for every sample, not from 2 to 2"):
        guarantee(net, held, 0.1, loss=lambda net, y, full, target: torch.full((len(y),), 2.0))
    with pytest.raises(AdaptError, match=r"per sample: \[30\], not \[\]"):
        guarantee(net, held, 0.1, loss=lambda net, y, full, target: y.mean())
    with pytest.raises(AdaptError, match=r"threshold is between 0 and 1\.38"):
        guarantee(net, held, 0.1, values=[7.0])

    class Coupled(Count):
        couples = "capacity"
    with pytest.raises(AdaptError, match="decides about the samples of a batch together"):
        guarantee(Coupled(), held, 0.1)


def test_what_cannot_be_calibrated_is_said(net):
    held = batches(20, 6)
    with pytest.raises(AdaptError, match=r"Exits spends \d+ MACs per input .* at its cheapest \(threshold 1\."):
        calibrate(net, held, 10)
    with pytest.raises(AdaptError, match="no held-out data"):
        calibrate(net, [], 1e3)
    with pytest.raises(AdaptError, match="pairs"):
        calibrate(net, [torch.zeros(3, 2)], 1e3)
    with pytest.raises(AdaptError, match="a tensor, or a tuple of tensors"):
        calibrate(net, [(["a"], None)], 1e3)

    class Fixed(Count):
        budget = None

    class Retrained(Count):
        budget = Budget("k", 1, 2, (1,), cheaper="lower", retrain=True)
    with pytest.raises(AdaptError, match="no budget to turn"):
        calibrate(Fixed(), held, 1e3)
    with pytest.raises(AdaptError, match="trained anew for each value of its k"):
        calibrate(Retrained(), held, 1e3)


def test_skips_can_be_calibrated():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return x + self.layer(x)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), *(Block() for _ in range(6)), nn.Linear(8, 4))
    net = with_skips(model, (torch.randn(1, 2),))
    held = batches(100, 8)
    full = float(net.eval()(held[0][0])[1].full[0])
    value = calibrate(net, held, 0.8 * full, steps=30)               # new gates are nearly alike, and yet
    spent = float(net.at(value)(held[0][0])[1].spent.mean())
    assert 0.75 * full < spent <= 0.8 * full
