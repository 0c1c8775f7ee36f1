"""The perceptron in plain loops, and its cost."""
import torch

from dynnotes.execute import measured, price
from dynnotes.nets.perceptron import Perceptron


def test_equation_by_hand():
    torch.manual_seed(0)
    net, x = Perceptron(3, (5, 4), 2).double(), torch.randn(6, 3).double()
    for row, y in zip(x.tolist(), net(x).tolist(), strict=True):
        layers = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
        for i, layer in enumerate(layers):
            row = [sum(w * v for w, v in zip(weights, row, strict=True)) + bias
                   for weights, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]
            row = [max(0.0, v) for v in row] if i < len(layers) - 1 else row
        assert all(abs(a - b) < 1e-12 for a, b in zip(row, y, strict=True))


def test_count_and_price():
    net, x = Perceptron(2, (6,), 10), torch.randn(4, 2)
    with torch.no_grad(), measured() as bill:
        net(x)
    assert bill.macs == 4 * price(net, x).macs == 4 * (2 * 6 + 6 * 10)
    assert len(Perceptron(2, (), 10)) == 1
