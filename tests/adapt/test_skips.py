"""Gates on the residual blocks of a model as it comes: which are found, what a skip leaves, and what is refused."""
import copy
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dynnotes.adapt import AdaptError, with_skips
from dynnotes.adapt.skips import residual_blocks
from tests import promises


class Block(nn.Module):
    def __init__(self, width, in_place=False, layer=nn.Linear):
        super().__init__()
        self.act, self.layer = nn.ReLU(inplace=in_place), layer(width, width)

    def forward(self, x):
        return x + self.layer(self.act(x))


def resnet():
    return torchvision.models.resnet18(num_classes=5)


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=5)


def plain():
    def conv(i, o):
        return nn.Conv2d(i, o, 3, padding=1)
    return nn.Sequential(conv(3, 8), Block(8, layer=conv), Block(8, layer=conv), nn.Flatten(), nn.Linear(512, 16),
                         Block(16), nn.Linear(16, 5))


MODELS = {"resnet18": (resnet, 32, ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]),
          "vit": (vit, 32, [f"blocks.{i}" for i in range(4)]),
          "plain": (plain, 8, ["1", "2", "5"])}


def undecided(net):
    """New gates are almost constant and open. Draw them so that untrained ones already tell samples apart."""
    for skip in net.skips:
        nn.init.normal_(skip.gate[-1].out.weight, std=2.0)
        nn.init.zeros_(skip.gate[-1].out.bias)
    return net


def demo(name):
    make, size, _ = MODELS[name]
    x = torch.randn(8, 3, size, size) + 2 * torch.randn(8, 1, 1, 1)
    return undecided(with_skips(make(), (x,))), (x,), torch.randint(5, (8,))


def paper(name):
    return SimpleNamespace(key="veit2018convolutional", demo=lambda: demo(name))


SOME = ["decisions_vary", "sparse_equals_dense", "the_bill_is_what_ran_to_the_last_mac"]
ALL = [p for p in promises.PROMISES if p not in ("the_demo_is_small", "the_bill_of_a_published_size")]


@pytest.mark.parametrize(("name", "promise"), [("plain", p) for p in ALL]
                         + [(name, p) for name in ("resnet18", "vit") for p in SOME])
def test_skips_keep_the_contract(name, promise):
    promises.PROMISES[promise](paper(name))


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_are_found_and_at_threshold_0_the_model_itself_answers(name):
    make, size, blocks = MODELS[name]
    model, x = make().eval(), torch.randn(3, 3, size, size)
    before = copy.deepcopy(model.state_dict())
    net = with_skips(model, (x,)).eval().at(0)
    with torch.no_grad():
        for how in ("dense", "sparse"):
            y, trace = net.execute(how)(x)
            assert torch.equal(y, model(x))                          # to the last bit
            assert [d.name for d in trace.decisions] == blocks
            assert torch.equal(trace.spent, trace.full)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_each_sample_passes_the_blocks_that_its_gates_open_and_no_other(name):
    torch.manual_seed(0)
    make, size, _ = MODELS[name]
    model, x = make().eval(), torch.randn(6, 3, size, size) + 2 * torch.randn(6, 1, 1, 1)
    net = undecided(with_skips(model, (x,))).eval().execute("sparse")
    with torch.no_grad():
        y, trace = net(x)
        for b in range(len(x)):                                      # the sample's own model, without closed blocks
            own = copy.deepcopy(model)
            for decision in trace.decisions:
                if decision.gate[b] == 0:
                    own.set_submodule(decision.name, nn.Identity())
            torch.testing.assert_close(own(x[b:b + 1])[0], y[b], rtol=1e-4, atol=1e-4)
    gates = torch.stack([d.gate for d in trace.decisions], 1)
    assert 0.1 < gates.mean() < 0.9 and (gates != gates[:1]).any()


def test_a_skip_is_the_identity_and_its_gate_learns_from_what_the_block_adds():
    torch.manual_seed(0)
    net = undecided(with_skips(plain(), (torch.randn(4, 3, 8, 8),))).double()
    skip, x = net.skips[2].train(), torch.randn(16, 16, dtype=torch.float64)
    y, trace = skip(x)
    z = trace.decisions[0].gate.detach().round()
    assert 0 < z.sum() < len(x)
    for b in range(len(x)):
        torch.testing.assert_close(y[b], skip.block(x)[b] if z[b] else x[b])
    probe = torch.randn_like(x)
    g, = torch.autograd.grad((y * probe).sum(), trace.decisions[0].gate)     # d/dz of z B(x) + (1 - z) x
    torch.testing.assert_close(g, (probe * (skip.block(x) - x)).sum(1))


def test_the_loss_holds_each_block_to_its_share():                            # ConvNet-AIG, sec. 3.3, twice the mean
    torch.manual_seed(3)
    net, (x,), target = demo("plain")
    net.target = 0.25
    torch.manual_seed(4)
    loss = net.train().loss((x,), target)
    torch.manual_seed(4)
    y, trace = net(x)
    rates = [sum(d.gate.tolist()) / len(x) for d in trace.decisions]
    expected = F.cross_entropy(y, target).item() + 2 * sum((r - 0.25)**2 for r in rates) / len(rates)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("make", "size", "count"), [
    (lambda: torchvision.models.mobilenet_v3_small(), 64, 6),
    (lambda: torchvision.models.swin_t(), 64, 12),
    (lambda: timm.create_model("resnet10t"), 64, 1),                          # three shortcuts of four have weights
    (lambda: timm.create_model("convnext_atto"), 64, 12),
])
def test_which_blocks_are_residual(make, size, count):
    with torch.device("meta"):
        model = make()
    assert len(residual_blocks(model, (torch.empty(1, 3, size, size),))) == count


def test_a_shortcut_with_weights_or_a_product_is_no_sum():
    class Projected(Block):
        def forward(self, x):
            return self.layer(x) + self.layer(self.act(x))

    class Gated(Block):
        def forward(self, x):
            return x * self.layer(x)
    model = nn.Sequential(Block(4), Projected(4), Gated(4), nn.Linear(4, 4))
    assert residual_blocks(model, (torch.randn(1, 4),)) == ["0"]


def test_named_blocks_need_not_be_residual():
    model, x = plain().eval(), torch.randn(2, 3, 8, 8)
    net = with_skips(model, (x,), ["2", "5.layer"]).eval().at(0)
    with torch.no_grad():
        assert torch.equal(net(x)[0], model(x))
    assert [skip.name for skip in net.skips] == ["2", "5.layer"]


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.block = nn.Linear(4, 4), Masking()

    def forward(self, x):
        x = self.first(x)
        return self.block(x, x > 0)


class Masking(nn.Module):
    def forward(self, x, mask):
        return x + x * mask


X = torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: with_skips(resnet(), (X,), "layer1.0"), "blocks is a list of names"),
    (lambda: with_skips(resnet(), (X,), []), "blocks is a list of names"),
    (lambda: with_skips(resnet(), (X,), ["layer2.0"]), r"'layer2.0' turns \[64, 8, 8\] into \[128, 4, 4\]"),
    (lambda: with_skips(resnet(), (X,), ["layer9"]), "no module 'layer9'; did you mean"),
    (lambda: with_skips(resnet(), (X,), target=2), "target is the share"),
    (lambda: with_skips(nn.Sequential(nn.Linear(4, 4)), (torch.randn(1, 4),)), "has no submodule that keeps.*blocks="),
    (lambda: with_skips(nn.Sequential(nn.Linear(4, 4), Block(4, in_place=True)), (torch.randn(1, 4),), ["1"]),
     "'1' overwrites its input.*inplace=False"),
    (lambda: with_skips(Masked(), (torch.randn(1, 4),), ["block"]), r"called with more than one value \(x, mask\)"),
    (lambda: with_skips(resnet(), X), "inputs is a tuple"),
])
def test_what_cannot_be_skipped_is_said(make, message):
    with pytest.raises(AdaptError, match=message):
        make()
