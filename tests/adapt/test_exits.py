"""Exits behind the modules of a model as it comes: who leaves where, at what price, and what is refused."""
import copy
import math
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from torch import nn

from dynnotes.adapt import AdaptError, with_exits
from dynnotes.adapt.features import Pooled
from tests import promises


def resnet():
    return torchvision.models.resnet18(num_classes=5)


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=5)


def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(),
                         nn.Flatten(), nn.Linear(8 * 15 * 15, 16), nn.ReLU(), nn.Linear(16, 5))


MODELS = {"resnet18": (resnet, ["layer3", "layer1"]), "vit": (vit, ["blocks.0", "blocks.2"]),
          "plain": (plain, ["1", "6"])}


def demo(name):
    """Untrained exits are all equally unsure: widen their last layers, and ask for the usual entropy of the first."""
    make, after = MODELS[name]
    x = torch.randn(8, 3, 32, 32) * torch.randn(8, 1, 1, 1).exp()
    net = with_exits(make(), after, (x,))
    for stage in net.stages[:-1]:
        nn.init.normal_(stage.head[-1].weight, std=1.0 if name != "vit" else 0.1)
    with torch.no_grad():
        first = net.eval().exits(x)[0].softmax(1)
    entropies = -(first * first.log()).sum(1)
    return net.at(float(entropies.median())), (x,), torch.randint(5, (8,))


def paper(name):
    return SimpleNamespace(key="teerapittayanon2016branchynet", demo=lambda: demo(name))


SOME = ["decisions_vary", "sparse_equals_dense", "the_bill_is_what_ran_to_the_last_mac"]
ALL = [p for p in promises.PROMISES if p not in ("the_demo_is_small", "the_bill_of_a_published_size")]


@pytest.mark.parametrize(("name", "promise"), [("plain", p) for p in ALL]
                         + [("resnet18", p) for p in SOME]
                         + [("vit", p) for p in [*SOME, "it_exports_with_its_trace"]])
def test_exits_keep_the_contract(name, promise):
    promises.PROMISES[promise](paper(name))


@pytest.mark.parametrize("name", MODELS)
def test_at_threshold_0_the_model_itself_answers(name):
    make, after = MODELS[name]
    model, x = make().eval(), torch.randn(3, 3, 32, 32)
    before = copy.deepcopy(model.state_dict())
    net = with_exits(model, after, (x,)).eval().at(0)
    with torch.no_grad():
        for how in ("dense", "sparse"):
            y, trace = net.execute(how)(x)
            assert torch.equal(y, model(x))
            assert torch.equal(trace.spent, trace.full)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert len(list(net.parameters())) == len(list(model.parameters())) + 2 * len(after)


def test_each_sample_leaves_at_the_first_exit_that_is_sure():
    torch.manual_seed(1)
    net, (x,), _ = demo("plain")
    net = net.double().eval()
    with torch.no_grad():
        exits = net.exits(x.double())
        y, trace = net.execute("sparse")(x.double())
    left = []
    for b in range(len(x)):
        for n, logits in enumerate(exits):
            e = [math.exp(v) for v in logits[b].tolist()]
            entropy = -sum(v / sum(e) * math.log(v / sum(e)) for v in e)
            if entropy < net.threshold or n == len(exits) - 1:
                break
        left.append(n)
        torch.testing.assert_close(y[b], exits[n][b], rtol=1e-12, atol=1e-12)
        assert trace.decisions[0].gate[b].tolist() == [1.0] * (n + 1) + [0.0] * (len(exits) - 1 - n)
    assert len(set(left)) > 1


def test_the_loss_is_the_sum_of_the_cross_entropies_of_all_exits():                # BranchyNet, sec. III-B, w_n = 1
    net, (x,), target = demo("plain")
    net, total = net.double(), 0.0
    for logits in net.exits(x.double()):
        for row, t in zip(logits.tolist(), target.tolist(), strict=True):
            total += (math.log(sum(math.exp(v) for v in row)) - row[t]) / len(target)
    assert net.loss((x.double(),), target).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(("size", "channels", "at"), [
    ((6,), 6, lambda x, b, c: [x[b, c]]),
    ((3, 6), 6, lambda x, b, c: [x[b, n, c] for n in range(3)]),                   # tokens
    ((6, 4, 4), 6, lambda x, b, c: [x[b, c, i, j] for i in range(4) for j in range(4)]),
    ((6, 2, 4), 6, lambda x, b, c: [x[b, c, i, j] for i in range(2) for j in range(4)]),
    ((4, 4, 6), 6, lambda x, b, c: [x[b, i, j, c] for i in range(4) for j in range(4)]),  # as in Swin
    ((6, 2, 3, 4), 6, lambda x, b, c: [x[b, c, t, i, j] for t in range(2) for i in range(3) for j in range(4)]),
])
def test_features_are_averaged_over_places(size, channels, at):
    x, pooled = torch.randn(2, *size, dtype=torch.float64), Pooled(size)
    y = pooled(x)
    assert pooled.channels == channels
    for b in range(2):
        for c in range(channels):
            values = [float(v) for v in at(x, b, c)]
            assert y[b, c].item() == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_a_head_of_ones_own():
    sizes = []

    def head(size):
        sizes.append(size)
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(size), 5))
    x = torch.randn(2, 3, 32, 32)
    net = with_exits(plain(), ["1", "6"], (x,), head)
    assert sizes == [(8, 32, 32), (16,)]
    assert [tuple(y.shape) for y in net.exits(x)] == [(2, 5)] * 3


def test_heads_follow_the_weights_of_the_model():
    net = with_exits(plain().double(), ["1"], (torch.randn(1, 3, 32, 32, dtype=torch.float64),))
    assert {p.dtype for p in net.parameters()} == {torch.float64}


class Two(nn.Module):
    """A model of two inputs."""
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(2, 8), nn.Linear(8, 3)
        self.both = nn.ReLU()

    def forward(self, x, z, scale=1.0):
        return self.out(self.both(self.a(x) + scale * self.b(z)))


def test_a_model_of_two_inputs():
    model, x, z = Two().eval(), torch.randn(6, 4), torch.randn(6, 2)
    net = with_exits(model, ["both"], (x, z)).eval().at(0)
    with torch.no_grad():
        assert torch.equal(net.execute("sparse")(x, z)[0], model(x, z))
        assert net.at(net.budget.high)(x, z)[1].spent.mean() < net.at(0)(x, z)[1].spent.mean()


X = torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: with_exits(resnet(), "layer1", (X,)), "after is a list of names"),
    (lambda: with_exits(resnet(), [], (X,)), "after is a list of names"),
    (lambda: with_exits(resnet(), ["layer7"], (X,)), "no module 'layer7'; did you mean 'layer"),
    (lambda: with_exits(resnet(), ["layer1", "fc"], (X,)), "nothing follows 'fc'.*leave that name out"),
    (lambda: with_exits(resnet(), ["layer1.0.conv1"], (X,)), "more than one value passes"),
    (lambda: with_exits(resnet(), ["layer1"], X), "inputs is a tuple of batch-first tensors"),
    (lambda: with_exits(resnet(), ["layer1"], (X[:, :1],)),
     r"ResNet does not run on inputs like \[2, 1, 32, 32\] float32"),
    (lambda: with_exits(plain(), ["1"], (X.double(),)), "does not run on inputs like .* float64.*of its dtype"),
    (lambda: with_exits(resnet(), ["layer1"], None), "inputs is a tuple of batch-first tensors"),
    (lambda: with_exits(resnet(), [1], (X,)), "no module 1"),
    (lambda: with_exits(resnet(), ["layer1"], ()), "ResNet does not run on inputs like"),
    (lambda: with_exits(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)), ["0"], (X,)),
     r"answers with \[B, 3, 32, 32\]; exits need a classifier"),
    (lambda: with_exits(nn.Sequential(nn.Flatten(), nn.Linear(3072, 1)), ["0"], (X,)), "at least two classes"),
    (lambda: with_exits(plain(), ["1"], (X,), lambda size: nn.Flatten()),
     r"head behind '1' answers with \[B, 8192\], the model with \[B, 5\]"),
    (lambda: with_exits(plain(), ["1"], (X,), lambda size: nn.Linear(9, 5)), "Linear does not run on inputs like"),
    (lambda: with_exits(plain(), ["1"], (X,), lambda size: None), "is NoneType, not a module"),
])
def test_what_cannot_have_exits_is_said(make, message):
    with pytest.raises(AdaptError, match=message):
        make()
