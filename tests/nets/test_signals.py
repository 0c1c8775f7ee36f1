"""Nets for signals and for many bands: which part they read, against plain loops, and what that costs."""
import pytest
import torch
import torch.nn.functional as F

from dynnotes.execute import measured, price
from dynnotes.nets.signals import EvenBands, EveryKthStep, SignalNet


@pytest.mark.parametrize("k", [1, 2, 4])
def test_every_kth_step_is_read_and_each_features_largest_value_classified(k):
    torch.manual_seed(0)
    net = EveryKthStep(k, channels=3, hidden=5, classes=2).double()
    cell = torch.nn.GRUCell(3, 5).double()
    cell.load_state_dict({name.removesuffix("_l0"): p for name, p in net.gru.state_dict().items()})
    x = torch.randn(4, 10, 3).double()
    h, states = torch.zeros(4, 5).double(), []
    for t in range(0, 10, k):
        h = cell(x[:, t], h)
        states.append(h)
    by_hand = net.head(torch.stack(states).amax(0))
    torch.testing.assert_close(net(x), by_hand, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("net", [SignalNet(4, channels=3, classes=2, widths=(4, 8)),
                                 EveryKthStep(4, channels=3, hidden=5, classes=2)])
def test_steps_between_are_not_read(net):
    net.eval()
    x = torch.randn(2, 16, 3)
    other = x.clone()
    other[:, [t for t in range(16) if t % 4]] = 0
    assert torch.equal(net(x), net(other))
    other[:, 8] += 1
    assert not torch.equal(net(x), net(other))


def test_a_movement_counts_wherever_it_is():
    """Convolutions and largest values: a step moved in time by a whole stride gives the same answer."""
    torch.manual_seed(0)
    net = SignalNet(1, channels=2, classes=3, widths=(4, 8)).eval()
    x = torch.zeros(1, 64, 2)
    x[0, 20:28] = torch.randn(8, 2)
    torch.testing.assert_close(net(x), net(x.roll(10, 1)))


def test_bands_are_looked_at_one_by_one_at_half_size():
    torch.manual_seed(0)
    net = EvenBands(2, classes=3, widths=(2, 4), depths=(1, 1)).double().eval()
    x = torch.randn(3, 8, 12, 12).double()
    with torch.no_grad():
        two, six = (net.features(F.avg_pool2d(x[:, b:b + 1], 2)) for b in (2, 6))
        torch.testing.assert_close(net(x), net.head(torch.maximum(two, six)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("net", "x"), [
    (EveryKthStep(2, channels=3, hidden=5, classes=2), torch.randn(4, 10, 3)),
    (SignalNet(2, channels=3, classes=2, widths=(4, 8)), torch.randn(4, 10, 3)),
    (EvenBands(4, classes=3, widths=(2, 4), depths=(1, 1)), torch.randn(4, 8, 12, 12))])
def test_the_price_is_what_runs(net, x):
    net.eval()
    with torch.no_grad(), measured() as bill:
        net(x)
    assert bill.macs == 4 * price(net, x).macs


def test_macs_by_hand():
    """A signal of 12 steps, one in 2: 6, then 3 of them; kernels of 5."""
    net = SignalNet(2, channels=3, classes=2, widths=(4, 8))
    assert price(net, torch.zeros(1, 12, 3)).macs == 6 * 5 * 3 * 4 + 3 * 5 * 4 * 8 + 8 * 2
    assert price(EveryKthStep(4, channels=6, hidden=5, classes=2), torch.zeros(1, 128, 6)).macs == \
        32 * 3 * 5 * (6 + 5) + 5 * 2
