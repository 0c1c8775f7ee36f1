"""The triton backend against the definition, in triton's interpreter or on a GPU; run by test_masked_conv_triton.py.

    TRITON_INTERPRET=1 python -m pytest tests/execute/kernels/masked_conv_triton.py

The interpreter runs programs one after the other in numpy: it proves indexing and masking, not the absence of races,
nor anything of tensor cores.
"""
import os

import pytest
import torch

from dynnotes.execute import measured
from dynnotes.execute.kernels import copies
from dynnotes.execute.kernels.masked_conv import active, best, geometry_of, library, masked_conv2d, programs, tiles
from tests.execute.kernels.test_masked_conv import SHAPES, bound, definition, poisoned, problem  # noqa: F401

GPU = not programs.INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
EXACT = torch.float32 if GPU else torch.float64                      # tl.dot has no float64 on every GPU
DTYPES = [torch.float32, torch.bfloat16, torch.float16] if GPU else [torch.float64, torch.float32]


@pytest.fixture(params=[1, 256], ids=["high tiles", "low tiles"])
def tall(request, monkeypatch):
    """Tiles of many pixels, or as these small problems get them."""
    monkeypatch.setattr(tiles, "ENOUGH", request.param)


def run(x, mask, weight, bias, residual=None, **options):
    x, mask, weight, bias, residual = (t if t is None else t.to(DEVICE) for t in (x, mask, weight, bias, residual))
    return masked_conv2d(x, mask, weight, bias, residual=residual, **options, backend="triton").cpu()


def near(y, x, weight, bias, residual, mask, options, relu=0):
    expected = definition(x, mask, weight, bias, residual, options, relu)
    if x.dtype is torch.float16:                                     # summed in float32, rounded once
        wide = [t if t is None else t.float() for t in (x, weight, bias, residual)]
        allowed = bound(*wide, options) + 2 * torch.finfo(torch.float16).eps * (expected.abs() + 1e-3)
    else:
        allowed = bound(x, weight, bias, residual, options)
    return y.dtype is x.dtype and y.shape == expected.shape and bool(((y.double() - expected).abs() <= allowed).all())


def fewer(shape):
    """That shape with fewer pixels and outputs: the interpreter takes milliseconds for each step of each tile."""
    batch, channels, outputs, height, width, *rest = shape
    return (batch, channels, min(outputs, 34), min(height, 7), min(width, 7), *rest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_value_is_the_definition(shape, dtype, tall, poisoned):  # noqa: F811
    relu = 6 if dtype is torch.float32 else 1
    x, mask, weight, bias, residual, options = problem(shape, dtype, residual=True, channels_last=relu == 1)
    y = run(x, mask, weight, bias, residual, relu=relu, **options)
    assert (y[~mask.expand_as(y)] == 0).all()
    assert near(y, x, weight, bias, residual, mask, options, relu)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [fewer(shape) for shape in SHAPES], ids=str)
def test_every_gradient_is_the_definitions(shape, dtype, monkeypatch, poisoned):  # noqa: F811
    monkeypatch.setattr(tiles, "ENOUGH", 4)                          # parts of the weight's gradient: several, not many
    relu = 1 if dtype in (torch.float32, torch.float64) else 0       # rounding may take a value across zero
    x, mask, weight, bias, residual, options = problem(shape, dtype, residual=True, channels_last=relu == 0)
    leaves = [t.requires_grad_() for t in (x, weight, bias, residual)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    expected = definition(exact[0], mask, *exact[1:], options, relu)
    cotangent = torch.randn(expected.shape).to(dtype)
    wanted = torch.autograd.grad(expected, exact, cotangent.double())
    got = torch.autograd.grad(run(x, mask, weight, bias, residual, relu=relu, **options), leaves, cotangent)
    for name, ours, theirs in zip(("x", "weight", "bias", "residual"), got, wanted, strict=True):
        assert ours.dtype is dtype and ours.shape == theirs.shape, name
        assert (ours.double() - theirs).norm() <= 8 * torch.finfo(dtype).eps * theirs.norm(), name


@pytest.mark.parametrize("shape", [(3, 17, 18, 13, 13, 1, 1, 0, 1, 1), (3, 18, 16, 13, 13, 3, 2, 3, 1, 2),
                                   (3, 9, 18, 13, 13, 3, 1, 1, 1, 9)], ids=["dot", "groups", "depthwise"])
def test_the_weights_gradient_is_added_up_from_parts(shape, monkeypatch):
    monkeypatch.setattr(tiles, "ENOUGH", 64)
    x, mask, weight, bias, _, options = problem(shape, EXACT, share=0.75)
    geometry, (rows, _) = geometry_of(x.shape, weight.shape, **options), active(mask)
    g = torch.randn(len(rows), len(weight), dtype=EXACT)
    assert len(rows) > 128 and len(rows) % 32                        # more than one part, the last one ragged
    w = weight.double().requires_grad_()
    y = definition(x, mask, w, bias, None, options).movedim(1, 3).reshape(-1, len(weight))[rows.long()]
    wanted, = torch.autograd.grad(y, w, g.double())
    ours = tiles.grad_weight(geometry, g.to(DEVICE), x.to(DEVICE), rows.to(DEVICE)).cpu()
    assert (ours.double() - wanted).norm() <= 8 * torch.finfo(EXACT).eps * wanted.norm()


@pytest.mark.parametrize("shape", [fewer(SHAPES[0]), fewer(SHAPES[4])], ids=["dot", "depthwise"])
@pytest.mark.parametrize("on", ["none", "one", "all"])
def test_empty_single_and_full_masks(on, shape, poisoned):  # noqa: F811
    x, mask, weight, bias, _, options = problem(shape, EXACT)
    mask.fill_(on == "all")
    if on == "one":
        mask[1, 0, 6, 5] = True
    x.requires_grad_(), weight.requires_grad_()
    y = run(x, mask, weight, bias, **options)
    assert near(y, x.detach(), weight.detach(), bias, None, mask, options)
    wanted = torch.autograd.grad(definition(x, mask, weight, bias, None, options).sum(), (x, weight))
    for ours, theirs in zip(torch.autograd.grad(y.sum(), (x, weight)), wanted, strict=True):
        assert bool((ours != 0).any()) == (on != "none")
        assert ((ours == 0) == (theirs == 0)).all()                  # what no active pixel read gets exactly nothing
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-4 if GPU else 1e-11)


def test_strides_of_all_that_is_read():
    x, mask, weight, bias, residual, options = problem((2, 20, 18, 7, 6, 3, 1, 1, 1, 1), EXACT, residual=True,
                                                       channels_last=False)
    wide = torch.randn(2, 40, 14, 12, dtype=EXACT)
    for view in (x, wide[:, ::2, ::2, ::2], wide[:, 20:, 7:, :6], x[:1].expand(2, -1, -1, -1),
                 x.transpose(2, 3).contiguous().transpose(2, 3), x.to(memory_format=torch.channels_last)):
        assert near(run(view, mask, weight, bias, **options), view, weight, bias, None, mask, options)
    sliced = torch.randn(36, 20, 3, 6, dtype=EXACT)[::2, :, :, ::2]
    for w in (weight.to(memory_format=torch.channels_last), sliced, weight[:, :, :1, :1].expand_as(weight)):
        assert near(run(x, mask, w, bias[:1].expand_as(bias), **options), x, w, bias[:1].expand_as(bias), None, mask,
                    options)
    for r in (residual.to(memory_format=torch.channels_last), residual[:1, :, :, :1].expand_as(residual)):
        assert near(run(x, mask, weight, bias, r, **options), x, weight, bias, r, mask, options)


@pytest.mark.parametrize("shape", [(2, 20, 18, 7, 6, 3, 1, 1, 1, 1), (2, 5, 7, 7, 6, 3, 2, 1, 1, 1),
                                   (2, 9, 9, 7, 6, 3, 1, 1, 1, 9)], ids=["dot", "flat", "depthwise"])
def test_packed_rows_in_and_out(shape):
    x, mask, weight, bias, residual, options = problem(shape, EXACT, residual=True)
    geometry, (rows, _) = geometry_of(x.shape, weight.shape, **options), active(mask)
    some, ranks = active(torch.rand(2, 1, 7, 6) < 0.7, inverse=True)
    packed = x.movedim(1, 3).reshape(-1, x.shape[1])[some.long()]
    where = torch.zeros(2 * 7 * 6, dtype=torch.bool).index_fill(0, some.long(), True).view(2, 1, 7, 6)

    def at_rows(t):
        return t.movedim(1, 3).reshape(-1, t.shape[1])[rows.long()]

    expected = definition(x * where, mask, weight, bias, residual, options, 1)
    allowed = bound(x, weight, bias, residual, options)
    packed, weight, bias, residual, rows_, ranks = (t.to(DEVICE) for t in (packed, weight, bias, residual, rows, ranks))
    y, _ = tiles.forward(geometry, packed, weight, bias, residual, rows_, ranks, 1, False)
    assert ((y.cpu() - expected).abs() <= allowed).all()
    y, _ = tiles.forward(geometry, packed, weight, bias, at_rows(residual.cpu()).to(DEVICE), rows_, ranks, 1, True)
    assert y.shape == (len(rows), len(weight)) and ((y.cpu() - at_rows(expected)).abs() <= at_rows(allowed)).all()


def test_what_tiles_hold_is_issued():
    """64 pixels, 64 outputs, 32 channels fill their tiles; one pixel more is a tile more; few channels share one."""
    def issued(shape, on):
        x, _, weight, _, _, options = problem(shape, torch.float32)
        rows = torch.arange(on, dtype=torch.int32)
        geometry = geometry_of(x.shape, weight.shape, **options)
        x, weight, rows = x.to(DEVICE), weight.to(DEVICE), rows.to(DEVICE)
        with measured() as bill:
            torch.ops.dynnotes.masked_conv(x, weight, None, None, rows, None, 0, False, [len(x), *x.shape[2:]],
                                           *map(list, geometry[2:6]), geometry.groups, "triton")
        assert bill.macs == on * weight.numel()
        return tiles.forward(geometry, x, weight, None, None, rows, None, 0, False)[1]

    assert issued((1, 32, 64, 9, 9, 3, 1, 1, 1, 1), 64) == 64 * 64 * 32 * 9
    assert issued((1, 32, 64, 9, 9, 3, 1, 1, 1, 1), 65) == 80 * 64 * 32 * 9
    assert issued((1, 32, 60, 9, 9, 3, 1, 1, 1, 1), 64) == 64 * 64 * 32 * 9
    assert issued((1, 3, 64, 9, 9, 3, 1, 1, 1, 1), 16) == 16 * 64 * 32                   # 27 of 32, not 9 times 3 of 16
    assert issued((1, 32, 64, 9, 9, 3, 1, 1, 1, 2), 64) == 64 * 32 * 16 * 9 * 2
    assert issued((1, 64, 64, 9, 9, 3, 1, 1, 1, 64), 16) == 16 * 64 * 9
    assert issued((1, 32, 64, 9, 9, 3, 1, 1, 1, 1), 0) == 0


def test_a_weight_is_copied_once_until_it_changes():
    x, mask, weight, bias, _, options = problem((1, 18, 16, 5, 5, 3, 1, 1, 1, 1), EXACT)
    x, mask, weight, bias = (t.to(DEVICE) for t in (x, mask, weight, bias))

    def right():
        y = masked_conv2d(x, mask, weight, bias, **options, backend="triton")
        return near(y.cpu(), x.cpu(), weight.cpu(), bias.cpu(), None, mask.cpu(), options)

    assert right()
    copy = copies._copies[id(weight), "tiles"][2]
    assert right() and copies._copies[id(weight), "tiles"][2] is copy
    weight += 1
    assert right() and copies._copies[id(weight), "tiles"][2] is not copy
    weight.data = torch.randn_like(weight)
    assert right()
    with torch.inference_mode():                                     # no version: nothing is kept on a GPU
        weight = weight.clone()
        assert right()
        weight.neg_()
        assert right() and (not GPU or (id(weight), "tiles") not in copies._copies)
    weight = torch.randn_like(x[:1].expand(16, -1, -1, -1)[:, :, :3, :3]).contiguous()
    assert right()
    held = len(copies._copies)
    del weight
    assert len(copies._copies) == held - 1
    weight = torch.randn(16, 18, 3, 3, dtype=EXACT, device=DEVICE).to(memory_format=torch.channels_last)
    assert right() and len(copies._copies) == held - 1                 # read in place
    weight.data.mul_(2)
    assert right()


def test_nan_and_infinity_pass_where_they_are_read_and_nowhere_else():
    x, mask, weight, bias, _, options = problem((2, 18, 20, 7, 7, 3, 1, 1, 1, 1), torch.float32)
    x[0, 0, 0, 0], x[1, 3, 4, 4] = float("nan"), float("inf")
    mask[0, 0, :2, :2] = True
    expected = definition(x, mask, weight, bias, None, options, 1)
    y = run(x, mask, weight, bias, relu=1, **options)
    assert expected.isnan().any() and expected.isinf().any()
    assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf())


@pytest.mark.parametrize("shape", [fewer(SHAPES[0]), SHAPES[1], fewer(SHAPES[4])], ids=["dot", "flat", "depthwise"])
def test_half_precision_is_summed_in_float32(shape):
    x, mask, weight, bias, residual, options = problem(shape, torch.float16, residual=True)
    y = run(x, mask, weight, bias, residual, relu=1, **options)
    assert near(y, x, weight, bias, residual, mask, options, 1)


def test_what_it_does_not_take_is_said():
    x, mask, weight, bias, _, options = problem((1, 4, 4, 5, 5, 3, 1, 1, 1, 1), torch.complex64)
    assert not tiles.takes(x)
    assert best(x) == "torch"
    with pytest.raises(ValueError, match=r"does not take torch\.complex64 on cpu; .* take backend=\"torch\""):
        masked_conv2d(x, mask, weight, bias, **options, backend="triton")


def test_the_programs_are_interpreted_as_asked():
    assert programs.INTERPRETED is (os.environ.get("TRITON_INTERPRET") == "1")
    x = torch.zeros(1, 1, 1, 1)
    assert tiles.takes(x) is not GPU and best(x) == ("cpu" if library.available() else "torch")


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(8, 64, 64, 56, 56, 3, 1, 1, 1, 1), (8, 256, 256, 14, 14, 3, 1, 1, 1, 1),
                                   (8, 64, 64, 56, 56, 3, 1, 1, 1, 64), (8, 3, 64, 112, 112, 7, 2, 3, 1, 1)], ids=str)
def test_sizes_that_fill_a_gpu(shape, dtype):
    x, mask, weight, bias, residual, options = problem(shape, dtype, share=0.25, residual=True)
    y = run(x, mask, weight, bias, residual, relu=1, **options)
    assert near(y, x, weight, bias, residual, mask, options, 1)
    assert torch.equal(y, run(x, mask, weight, bias, residual, relu=1, **options))
    assert best(x.to(DEVICE)) == "triton"
    leaves = [t.requires_grad_() for t in (x, weight)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    cotangent = torch.randn(y.shape).to(dtype)
    wanted = torch.autograd.grad(definition(exact[0], mask, exact[1], bias, None, options), exact, cotangent.double())
    got, again = (torch.autograd.grad(run(x, mask, weight, bias, **options), leaves, cotangent) for _ in range(2))
    for ours, repeated, theirs in zip(got, again, wanted, strict=True):
        assert torch.equal(ours, repeated)                           # no atomics: sums have one order
        assert (ours.double() - theirs).norm() <= 32 * torch.finfo(dtype).eps * theirs.norm()
