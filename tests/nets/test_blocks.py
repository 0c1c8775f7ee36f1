"""Blocks: what they are, and that only they run."""
import pytest
import torch

from dynnotes.execute import measured
from dynnotes.nets.blocks import BlockSparse, whole_blocks
from dynnotes.nets.layers import basic


@pytest.mark.parametrize("side", [1, 3, 4, 20])
def test_a_block_is_on_where_any_of_its_pixels_is(side):
    mask = (torch.rand(3, 1, 9, 11) < 0.05).float()
    found = whole_blocks(mask, side)
    for b in range(3):
        for i in range(9):
            for j in range(11):
                top, left = i // side * side, j // side * side
                assert found[b, 0, i, j] == mask[b, 0, top:top + side, left:left + side].max()


def test_the_layer_runs_its_blocks_and_no_more():
    torch.manual_seed(0)
    layer = BlockSparse(basic(5, 5), 4).double().eval()
    x, mask = torch.randn(2, 5, 12, 12).double(), torch.zeros(2, 1, 12, 12).double()
    mask[0, 0, 5, 5] = 1
    with torch.no_grad():
        dense, _ = layer.execute("dense")(x, mask)
        with measured() as bill:
            sparse, trace = layer.execute("sparse")(x, mask)
        expected = torch.where(whole_blocks(mask, 4) > 0, x + layer.branch(x), x).relu()
    torch.testing.assert_close(sparse, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dense, expected, rtol=1e-12, atol=1e-12)
    assert bill.macs == trace.spent.sum() == (36 + 16) * 5 * 5 * 9   # 6x6 for what the 4x4 block reads
    assert trace.spent[1] == 0
