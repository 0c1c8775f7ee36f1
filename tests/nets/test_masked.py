"""Masked branches: the bill of fused convolutions, both forms, and what training sees."""
import pytest
import torch
from torch import nn

from dynnotes.execute import measured
from dynnotes.nets.layers import basic, bottleneck
from dynnotes.nets.masked import run_masked

BRANCHES = [basic(3, 5), basic(3, 5, 2), bottleneck(4, 8), bottleneck(4, 8, 2),
            nn.Sequential(nn.Conv2d(2, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1, groups=4),
                          nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=2, dilation=2))]


def case(branch, side=9):
    torch.manual_seed(0)
    branch = branch.double().eval()
    for bn in (m for m in branch if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(bn.running_mean, -1, 1)
        nn.init.uniform_(bn.bias, -1, 1)
    for conv in (m for m in branch if isinstance(m, nn.Conv2d)):
        conv.bias = nn.Parameter(torch.rand(conv.out_channels).double())      # no pixel that was computed is exactly 0
    x = torch.randn(6, branch[0].in_channels, side, side).double()
    with torch.no_grad():
        y = branch(x)
    mask = (torch.rand(6, 1, *y.shape[2:]) < 0.3).double()
    mask[0], mask[1] = 0, 1
    return branch, x, y, mask


@pytest.mark.parametrize("branch", BRANCHES)
def test_both_forms_are_the_branch_under_the_mask(branch):
    branch, x, y, mask = case(branch)
    for sparse in (False, True):
        with torch.no_grad():
            found, trace = run_masked(mask, branch, x, name="b", sparse=sparse)
        torch.testing.assert_close(found, y * mask, rtol=1e-12, atol=1e-12)
        assert torch.equal(trace.decisions[0].gate, mask) and len(trace.decisions) == 1


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_bill_is_what_ran_in_both_forms(branch):
    branch, x, _, mask = case(branch)
    with torch.no_grad(), measured() as bill:
        _, sparse = run_masked(mask, branch, x, name="b", sparse=True)
    with torch.no_grad(), measured() as all_of_it:
        _, dense = run_masked(mask, branch, x, name="b", sparse=False)
    assert bill.macs == sparse.spent.sum() and all_of_it.macs == dense.full.sum()
    assert torch.equal(sparse.spent, dense.spent) and torch.equal(sparse.full, dense.full)
    assert sparse.spent[0] == 0 and sparse.spent[1] == sparse.full[1] > sparse.spent[2]


@pytest.mark.parametrize("branch", BRANCHES)
def test_with_a_residual_both_forms_are_the_block(branch):
    branch, x, y, mask = case(branch)
    residual = torch.randn_like(y)
    for sparse in (False, True):
        with torch.no_grad():
            found, _ = run_masked(mask, branch, x, name="b", sparse=sparse, residual=residual)
        torch.testing.assert_close(found, (residual + y * mask).relu(), rtol=1e-12, atol=1e-12)


def test_a_soft_mask_cannot_skip():
    branch, x, _, mask = case(basic(3, 5))
    for soft in (mask * 0.5, mask / mask):
        with pytest.raises(ValueError, match="exactly 0 or 1"), torch.no_grad():
            run_masked(soft, branch, x, name="b", sparse=True)


def test_an_infinite_pixel_outside_the_mask_stays_outside():
    branch, x, _, mask = case(nn.Sequential(nn.Conv2d(1, 1, 1)))
    x[:, :, 0, 0], mask[:, :, 0, 0] = torch.inf, 0
    for sparse in (False, True):
        with torch.no_grad():
            assert run_masked(mask, branch, x, name="b", sparse=sparse)[0].isfinite().all()


def test_training_normalises_over_every_pixel():
    """The authors' code: statistics do not depend on the mask, and the gradient reaches the mask where it is off."""
    branch, x, _, mask = case(basic(3, 5))
    seen = []
    for gate in (mask, torch.ones_like(mask)):
        for bn in (branch[1], branch[4]):
            bn.reset_running_stats()
        gate = gate.clone().requires_grad_()
        y, trace = run_masked(gate, branch.train(), x, name="b", sparse=False)
        seen.append(torch.cat([bn.running_mean for bn in (branch[1], branch[4])]))
        (slope,) = torch.autograd.grad(y.square().sum() + y.sum(), gate, retain_graph=True)
        assert (slope != 0).all()
        (price,) = torch.autograd.grad(trace.spent.sum(), gate)
        assert (price == 5 * 5 * 9).all()                       # of the last convolution; the dilated mask is fixed
    assert torch.equal(*seen)


def test_sparse_training_is_refused():
    branch, x, _, mask = case(basic(3, 5))
    with pytest.raises(RuntimeError, match="every pixel"):
        run_masked(mask, branch.train(), x, name="b", sparse=True)
