"""Branches on one mask: every backend equals the dense branch, and no pixel is read that was not computed."""
import itertools

import pytest
import torch
from torch import nn

from dynnotes.execute.kernels.masked_conv import active
from dynnotes.execute.kernels.masked_conv.branch import layers_of, masked_branch, plan, read_by
from dynnotes.execute.kernels.masked_conv.operator import call
from dynnotes.nets.layers import basic, bottleneck


def inverted(inputs, outputs, stride=1):
    wide = 3 * inputs
    return nn.Sequential(nn.Conv2d(inputs, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6(),
                         nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6(),
                         nn.Conv2d(wide, outputs, 1), nn.BatchNorm2d(outputs))


MAKERS = {"basic": lambda: basic(6, 7), "basic, stride 2": lambda: basic(6, 7, 2),
          "bottleneck": lambda: bottleneck(8, 12),
          "bottleneck, stride 2": lambda: bottleneck(8, 12, 2), "inverted": lambda: inverted(5, 5),
          "inverted, stride 2": lambda: inverted(5, 4, 2), "one": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)),
          "wide": lambda: nn.Sequential(nn.Conv2d(2, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1, groups=4),
                                        nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=2, dilation=2))}
BACKENDS = ["reference", "torch", "cpu"]


def case(name, share=0.2, batch=3):
    torch.manual_seed(0)
    branch = MAKERS[name]().double().eval()
    for norm in (m for m in branch if isinstance(m, nn.BatchNorm2d)):
        for t in (norm.running_mean, norm.bias, norm.running_var, norm.weight):
            nn.init.uniform_(t, 0.5, 1.5)
    x = torch.randn(batch, branch[0].in_channels, 9, 11, dtype=torch.float64).contiguous(
        memory_format=torch.channels_last)
    with torch.no_grad():
        y = branch(x)
    mask = torch.rand(batch, 1, *y.shape[2:]) < share
    return branch, x, y, mask


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_branch_is_the_dense_one_under_the_mask(name, backend, share):
    branch, x, y, mask = case(name, share)
    found, _ = masked_branch(x, mask, layers_of(branch), backend=backend)
    torch.testing.assert_close(found, torch.where(mask, y, 0.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_block_writes_its_active_pixels_into_a_map(name, backend):
    branch, x, y, mask = case(name)
    residual, base = torch.randn_like(y), torch.randn_like(y)
    for into in (base.clone(), base.contiguous(memory_format=torch.channels_last)):
        found, _ = masked_branch(x, mask, layers_of(branch), residual=residual, relu=1, into=into, backend=backend)
        assert found is into
        torch.testing.assert_close(found, torch.where(mask, (y + residual).relu(), base), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("relu", [0, 1, 6])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_a_residual_goes_through_where_the_branch_is_off(name, backend, share, relu):
    branch, x, y, mask = case(name, share)
    residual = 4 * torch.randn_like(y)
    wanted = residual + torch.where(mask, y, 0.0)
    wanted = wanted.clamp(0, 6) if relu == 6 else wanted.relu() if relu else wanted
    before = residual.clone()
    found, _ = masked_branch(x, mask, layers_of(branch), residual=residual, relu=relu, everywhere=True,
                             backend=backend)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(residual, before)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_groups_of_samples_and_threads_do_not_change_a_value(dtype, batch, threads):
    """Rows between the layers of more than a group's bytes; samples where all is off, the first and the last, too."""
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Conv2d(5, 96, 1), nn.ReLU6(), nn.Conv2d(96, 96, 3, 1, 1, groups=96), nn.ReLU6(),
                           nn.Conv2d(96, 5, 1)).to(dtype).eval()
    x = torch.randn(batch, 5, 40, 37).to(dtype).contiguous(memory_format=torch.channels_last)
    mask = torch.rand(batch, 1, 40, 37) < 0.4
    mask[[i for i in (0, 3, 6) if i < batch > 1]] = False
    torch.set_num_threads(threads)
    try:
        found, steps = masked_branch(x, mask, layers_of(branch), residual=x, relu=1, everywhere=True, backend="cpu")
    finally:
        torch.set_num_threads(1)
    assert batch < 7 or len(steps[0].rows) * 96 * x.element_size() > 2 * 2 ** 19
    value = x
    with torch.no_grad():                                            # the same kernel, layer by layer
        for i, step in enumerate(steps):
            value = call(step.geometry, value, step.layer.weight, step.layer.bias, x if i == 2 else None, step.rows,
                         step.inverse, 1 if i == 2 else step.layer.relu, i < 2, "cpu")
    assert torch.equal(found, torch.where(mask, value, x.relu()))


def test_everywhere_needs_a_residual():
    branch, x, _, mask = case("one")
    with pytest.raises(ValueError, match="everywhere takes a residual"):
        masked_branch(x, mask, layers_of(branch), everywhere=True)


@pytest.mark.parametrize("name", MAKERS)
def test_each_layer_runs_where_the_next_one_reads(name):
    """Loops over every active pixel and tap, from the last layer back."""
    branch, x, _, mask = case(name)
    steps = plan(x, mask, layers_of(branch))
    wanted = {tuple(p) for p in mask[:, 0].nonzero().tolist()}
    for step in reversed(steps):
        layer, (height, width) = step.layer, step.geometry.size
        assert {tuple(p) for p in step.mask[:, 0].nonzero().tolist()} == wanted
        assert len(step.rows) == len(wanted)
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = layer.weight.shape[2:], layer.stride, layer.padding, layer.dilation
        places = ((n, i * sh - ph + u * dh, j * sw - pw + v * dw)
                  for (n, i, j), u, v in itertools.product(wanted, range(kh), range(kw)))
        wanted = {(n, h, w) for n, h, w in places if 0 <= h < height and 0 <= w < width}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MAKERS)
def test_what_is_not_read_may_be_poison(name, backend):
    branch, x, y, mask = case(name, 0.05)
    first = plan(x, mask, layers_of(branch))[0]
    read = read_by(first.geometry, first.mask)
    assert not read.all()
    found, _ = masked_branch(torch.where(read, x, torch.nan), mask, layers_of(branch), backend=backend)
    if backend != "reference":                                       # which computes everything, then selects
        torch.testing.assert_close(found, torch.where(mask, y, 0.0), rtol=1e-12, atol=1e-12)


def test_the_reads_of_torch_and_of_the_compiled_loop_agree():
    for name in MAKERS:
        branch, x, _, mask = case(name)
        for step in plan(x, mask, layers_of(branch)):
            kernel = torch.ones(1, 1, *step.geometry.kernel)
            on = torch.nn.grad.conv2d_input((3, 1, *step.geometry.size), kernel, step.mask.float(),
                                            step.geometry.stride, step.geometry.padding, step.geometry.dilation) > 0
            assert torch.equal(read_by(step.geometry, step.mask), on)


def test_layers_follow_the_weights():
    branch, x, _, mask = case("basic")

    def right():
        with torch.no_grad():
            y = branch(x)
        return torch.allclose(masked_branch(x, mask, layers_of(branch))[0], torch.where(mask, y, 0.0), atol=1e-12)

    assert right() and layers_of(branch) is layers_of(branch)
    norm, conv = branch[1], branch[0]
    with torch.no_grad():
        norm.running_mean += 1
    assert right()
    with torch.no_grad():
        norm.weight *= 2
    assert right()
    conv.weight.data.mul_(3)                                         # without a new version
    assert right()
    branch.load_state_dict(MAKERS["basic"]().double().state_dict())
    assert right()
    branch[3] = nn.Conv2d(7, 7, 3, padding=1, bias=True).double()
    assert right()


@pytest.mark.parametrize(("branch", "what"), [
    (nn.Sequential(nn.Conv2d(3, 3, 1), nn.GELU()), "GELU"),
    (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), "BatchNorm2d"),
    (nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)), "BatchNorm2d"),
    (nn.Sequential(nn.Conv2d(3, 3, 3, padding="same")), "Conv2d"),
    (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")), "Conv2d"),
])
def test_other_layers_are_refused_by_name(branch, what):
    with pytest.raises(TypeError, match=what):
        layers_of(branch.eval())


def test_training_statistics_are_refused():
    with pytest.raises(TypeError, match="BatchNorm2d"):
        layers_of(basic(3, 3).train())


def test_a_mask_of_another_size_is_refused():
    branch, x, _, mask = case("basic, stride 2")
    with pytest.raises(ValueError, match=r"the mask is \[3, 1, 9, 11\], the output needs \[3, 1, 5, 6\]"):
        masked_branch(x, torch.ones(3, 1, 9, 11), layers_of(branch))
    assert len(active(mask)[0]) == mask.sum()
