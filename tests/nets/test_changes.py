"""A video's changed pixels: exact against the net on every frame, and billed pixel by pixel."""
import pytest
import torch
from torch import nn

from dynnotes.execute import measured
from dynnotes.nets.changes import ChangedPixels


def net():
    torch.manual_seed(0)
    found = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
                          nn.Conv2d(6, 4, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 3, 1)).double().eval()
    for t in (found[1].running_mean, found[1].bias):
        nn.init.uniform_(t, -1, 1)
    return found


def moving(frames=5, batch=3):
    """A square that moves over a still texture, and one sample in which nothing moves."""
    torch.manual_seed(1)
    video = torch.rand(batch, 1, 2, 16, 18).double().repeat(1, frames, 1, 1, 1)
    for t in range(frames):
        video[:-1, t, :, 4:7, 2 * t:2 * t + 3] = 1
    return video


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_sparse_is_dense_and_runs_what_it_bills(threshold):
    model, video = ChangedPixels(net(), threshold).eval(), moving()
    with torch.no_grad():
        expected, dense = model.execute("dense")(video)
        with measured() as bill:
            found, sparse = model.execute("sparse")(video)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert bill.macs == float(sparse.spent.sum()) and torch.equal(sparse.spent, dense.spent)
    assert (sparse.spent < sparse.full).all()


def test_at_threshold_zero_every_frame_is_the_nets_own():
    model, video = ChangedPixels(net()).eval().execute("sparse"), moving()
    with torch.no_grad():
        found, _ = model(video)
        for t in range(video.shape[1]):
            torch.testing.assert_close(found[:, t], model.net(video[:, t]), rtol=1e-12, atol=1e-12)


def test_what_does_not_move_is_paid_for_once():
    model = ChangedPixels(net()).eval().execute("sparse")
    with torch.no_grad():
        _, trace = model(moving(frames=4))
        _, still = model(moving(frames=1))
    assert trace.spent[-1] == still.full[-1] == trace.full[-1] / 4
    assert trace.spent[0] > trace.spent[-1]
    (decision,) = trace.decisions
    assert decision.gate.shape == (3, 4, 1, 8, 9) and decision.gate[-1, 1:].sum() == 0


def test_one_changed_pixel_is_billed_by_hand():
    video = torch.zeros(1, 2, 2, 9, 9).double()
    video[0, 1, 1, 4, 4] = 1
    with torch.no_grad():
        _, trace = ChangedPixels(net()).eval()(video)
    first, second, third = 81 * 6 * 2 * 9, 25 * 4 * 3 * 9, 25 * 3 * 4
    # 3x3 outputs read it; then, at stride 2, outputs 1 to 3 of 5 on each axis read rows 3 to 5
    changed = 9 * 6 * 2 * 9 + 9 * 4 * 3 * 9 + 9 * 3 * 4
    assert trace.spent.item() == first + second + third + changed


def test_a_slow_drift_is_seen_in_the_end():
    """Each step is below the threshold; the cache keeps the old value until the sum is above it."""
    video = (torch.arange(6.0).double() * 0.1).view(1, 6, 1, 1, 1).expand(1, 6, 2, 4, 4)
    with torch.no_grad():
        _, trace = ChangedPixels(net(), 0.25).eval()(video)
    assert trace.decisions[0].gate.flatten(2).amax(2).tolist() == [[1, 0, 0, 1, 0, 0]]


def test_sparse_training_and_empty_batches():
    model = ChangedPixels(net())
    with pytest.raises(RuntimeError, match="every pixel"):
        model.train().execute("sparse")(moving())
    with torch.no_grad():
        y, trace = model.eval().execute("sparse")(moving()[:0])
    assert y.shape == (0, 5, 3, 8, 9) and trace.spent.shape == (0,)
