"""Every backend of the masked convolution against its definition in float64: values, all gradients, edges, errors."""
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from dynnotes.execute import measured
from dynnotes.execute.kernels import compiled, copies
from dynnotes.execute.kernels.masked_conv import active, dense, gathered, geometry_of, masked_conv2d, native
from dynnotes.execute.kernels.masked_conv.operator import BACKENDS

CPUS = list(compiled.FLAGS)[list(compiled.FLAGS).index(compiled._best()):]         # what this machine can run
HOW = ["reference", "dense", "torch", *(f"cpu {cpu}" for cpu in CPUS)]
PAIR = lambda each: st.tuples(each, each)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]

#          batch, channels, outputs, height, width, kernel, stride, padding, dilation, groups
SHAPES = [(2, 64, 64, 13, 11, 3, 1, 1, 1, 1), (1, 5, 7, 9, 8, 3, 2, 1, 1, 1), (3, 32, 70, 7, 7, 1, 1, 0, 1, 1),
          (2, 24, 40, 10, 10, 5, 1, 4, 2, 2), (2, 32, 32, 9, 9, 3, 1, 1, 1, 32), (2, 31, 31, 9, 9, 3, 2, 1, 1, 31),
          (1, 8, 16, 9, 9, 3, 1, 1, 1, 8), (1, 3, 130, 20, 20, 7, 2, 3, 1, 1), (2, 4, 4, 1, 1, 3, 1, 1, 1, 1),
          (0, 4, 4, 5, 5, 3, 1, 1, 1, 1), (1, 2, 3, 5, 5, 3, 1, 40, 40, 1), (1, 1, 1, 4, 6, 1, 1, 0, 1, 1)]


def run(how, *args, **options):
    """masked_conv2d on a backend; "cpu avx2" compiles for those instructions."""
    backend, _, cpu = how.partition(" ")
    if not cpu:
        return masked_conv2d(*args, **options, backend=backend)
    with compiled.only(cpu):
        return masked_conv2d(*args, **options, backend=backend)


def problem(shape, dtype=torch.float64, share=0.4, residual=False, channels_last=True, seed=0):
    """(x, mask, weight, bias, residual or None, options) of one of SHAPES, values of that dtype."""
    batch, channels, outputs, height, width, kernel, stride, padding, dilation, groups = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    x, bias = draw(batch, channels, height, width), draw(outputs)
    weight = draw(outputs, channels // groups, kernel, kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = F.conv2d(x, weight, None, **options).shape
    mask = torch.rand(batch, 1, *size[2:], generator=generator) < share
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    return x, mask, weight, bias, draw(*size) if residual else None, options


def definition(x, mask, weight, bias, residual, options, relu=0):
    """What a masked convolution is, in float64."""
    y = F.conv2d(x.double(), weight.double(), bias.double(), **options)
    y = y if residual is None else y + residual.double()
    y = y.relu() if relu == 1 else y.clamp(0, 6) if relu == 6 else y
    return torch.where(mask, y, 0.0)


def bound(x, weight, bias, residual, options):
    """How far rounding may take a sum of that length: (terms + 8) eps of the sum of absolute values, elementwise."""
    terms = weight[0].numel() + 8
    size = F.conv2d(x.double().abs(), weight.double().abs(), bias.double().abs(), **options)
    size = size if residual is None else size + residual.double().abs()
    if x.dtype is torch.bfloat16:                                    # summed in float32, rounded a few times
        return (terms * torch.finfo(torch.float32).eps + 4 * torch.finfo(torch.bfloat16).eps) * size
    return terms * torch.finfo(x.dtype).eps * size


@pytest.fixture
def poisoned():
    """`torch.empty` holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("relu", [0, 1, 6])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("how", HOW)
def test_the_value_is_the_definition(how, shape, dtype, relu, poisoned):
    assert torch.empty(1).isnan()
    x, mask, weight, bias, residual, options = problem(shape, dtype, residual=relu > 0, channels_last=relu != 6)
    y = run(how, x, mask, weight, bias, residual=residual, relu=relu, **options)
    expected = definition(x, mask, weight, bias, residual, options, relu)
    assert y.dtype is dtype and y.shape == expected.shape
    assert (y[~mask.expand_as(y)] == 0).all()
    assert ((y.double() - expected).abs() <= bound(x, weight, bias, residual, options)).all()


@pytest.mark.parametrize("relu", [0, 1, 6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("how", HOW)
def test_every_gradient_is_the_definitions(how, shape, relu):
    x, mask, weight, bias, residual, options = problem(shape, residual=True, channels_last=relu == 0)
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias, residual)]
    expected = definition(leaves[0], mask, *leaves[1:], options, relu)
    cotangent = torch.randn(expected.shape, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, leaves, cotangent)
    y = run(how, leaves[0], mask, *leaves[1:3], residual=leaves[3], relu=relu, **options)
    got = torch.autograd.grad(y, leaves, cotangent)
    for name, ours, theirs in zip(("x", "weight", "bias", "residual"), got, wanted, strict=True):
        scale = theirs.abs().max().item() if theirs.numel() else 0.0
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 * scale + 1e-300), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", HOW)
def test_gradients_in_lower_precision_are_near(how, dtype):
    x, mask, weight, bias, _, options = problem(SHAPES[0], dtype)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    expected = definition(exact[0], mask, *exact[1:], None, options)
    cotangent = torch.randn(expected.shape).to(dtype)
    wanted = torch.autograd.grad(expected, exact, cotangent.double())
    got = torch.autograd.grad(run(how, leaves[0], mask, *leaves[1:], **options), leaves, cotangent)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.dtype is dtype                                   # a sum of at most 600 terms of random sign
        assert (ours.double() - theirs).norm() <= 8 * torch.finfo(dtype).eps * theirs.norm()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("on", ["none", "one", "all"])
def test_empty_single_and_full_masks(how, on, poisoned):
    x, mask, weight, bias, _, options = problem(SHAPES[0])
    mask.fill_(on == "all")
    if on == "one":
        mask[1, 0, 12, 10] = True
    x, weight = x.requires_grad_(), weight.requires_grad_()
    y = run(how, x, mask, weight, bias, **options)
    assert torch.allclose(y, definition(x, mask, weight, bias, None, options), rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(y.sum(), (x, weight))
    assert all(bool((g != 0).any()) == (on != "none") for g in gradients)


@pytest.mark.parametrize("how", HOW)
def test_inputs_of_any_strides(how):
    x, mask, weight, bias, _, options = problem(SHAPES[0], channels_last=False)
    wide = torch.randn(2, 128, 26, 22, dtype=torch.float64)
    for view in (x, wide[:, ::2, ::2, ::2], wide[:, 64:, 13:, :11], x.flip(0), x[:1].expand(2, -1, -1, -1),
                 x.transpose(2, 3).contiguous().transpose(2, 3), x.to(memory_format=torch.channels_last)[:, :, :, :]):
        y = run(how, view, mask, weight, bias, **options)
        assert torch.allclose(y, definition(view, mask, weight, bias, None, options), rtol=0, atol=1e-12)
    across = weight.to(memory_format=torch.channels_last)
    assert torch.allclose(run(how, x, mask, across, bias, **options), run(how, x, mask, weight, bias, **options),
                          rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(batch=st.integers(0, 3), channels=st.integers(1, 9), each=st.integers(1, 20), height=st.integers(1, 12),
       groups=st.sampled_from([1, 1, 2, 3]), width=st.integers(1, 12), kernel=PAIR(st.sampled_from([1, 3, 5, 2])),
       stride=PAIR(st.integers(1, 3)), dilation=PAIR(st.integers(1, 3)), padding=PAIR(st.integers(0, 4)),
       share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), threads=st.sampled_from([1, 2]), seed=st.integers(0, 99))
def test_any_shape(batch, channels, each, groups, height, width, kernel, stride, dilation, padding, share, threads,
                   seed):
    generator = torch.Generator().manual_seed(seed)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = torch.randn(batch, channels * groups, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(each * groups, channels, *kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(len(weight), generator=generator, dtype=torch.float64)
    try:
        geometry = geometry_of(x.shape, weight.shape, **options)
    except ValueError:                                               # the kernel is larger than the input: torch agrees
        with pytest.raises(RuntimeError):
            F.conv2d(x, weight, None, **options)
        return
    mask = torch.rand(batch, 1, *geometry.out, generator=generator) < share
    torch.set_num_threads(threads)
    try:
        for backend in ("torch", "cpu"):
            x.requires_grad_(), weight.requires_grad_()
            y = masked_conv2d(x, mask, weight, bias, **options, backend=backend)
            expected = definition(x, mask, weight, bias, None, options)
            assert torch.allclose(y, expected, rtol=0, atol=1e-11)
            cotangent = torch.randn(y.shape, generator=generator, dtype=torch.float64)
            for ours, theirs in zip(torch.autograd.grad(y, (x, weight), cotangent),
                                    torch.autograd.grad(expected, (x, weight), cotangent), strict=True):
                assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("backend", ["reference", "dense", "torch", "cpu"])
def test_macs_are_in_the_shapes_and_nothing_less_is_issued(backend):
    x, mask, weight, bias, _, options = problem(SHAPES[3], torch.float32)
    with measured() as bill:
        masked_conv2d(x, mask, weight, bias, **options, backend=backend)
    needed = int(mask.sum()) * weight.numel()
    assert bill.macs == needed
    geometry, rows = geometry_of(x.shape, weight.shape, **options), active(mask)[0]
    issued = BACKENDS[backend].forward(geometry, x, weight, bias, None, rows, None, 0, False)[1]
    assert issued >= needed


def test_gradients_are_billed_like_a_convolutions():
    x, mask, weight, bias, _, options = problem(SHAPES[0], torch.float32)
    x.requires_grad_(), weight.requires_grad_()
    ours, theirs = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with ours:
        masked_conv2d(x, torch.ones_like(mask), weight, bias, **options).sum().backward()
    with theirs:
        F.conv2d(x, weight, bias, **options).sum().backward()
    assert ours.get_total_flops() == theirs.get_total_flops() > 0


def test_the_compiled_kernel_issues_what_its_lanes_hold():
    """64 outputs are whole vectors: not one multiplication more than asked. 65 pad to the next vector."""
    for outputs, cpu in itertools.product((64, 65), CPUS):
        x, mask, weight, bias, _, options = problem((1, 16, outputs, 9, 9, 3, 1, 1, 1, 1), torch.float32)
        geometry, rows = geometry_of(x.shape, weight.shape, **options), active(mask)[0]
        with compiled.only(cpu):
            issued = native.forward(geometry, x, weight, bias, None, rows, None, 0, False)[1]
        lanes = {"avx512": 16, "avx2": 8, "generic": 4}[cpu]
        assert issued == len(rows) * 16 * 9 * (-(-outputs // lanes) * lanes)


def test_two_threads_share_the_work():
    x, mask, weight, _, _, options = problem((2, 64, 64, 28, 28, 3, 1, 1, 1, 1), torch.float32)
    few = torch.zeros_like(mask)
    few[0, 0, 3, :3] = True
    wide = torch.randn(512, 64, 3, 3)
    torch.set_num_threads(2)
    try:
        geometry, rows = geometry_of(x.shape, weight.shape, **options), active(mask)[0]
        assert native.threads_of(geometry, x, weight, rows) == 2                 # shared by pixels
        assert native.threads_of(geometry, x, wide, active(few)[0]) == 2         # few pixels: by outputs
        assert native.threads_of(geometry, x, weight[:1], active(few)[0]) == 1   # not worth waking one
        y = masked_conv2d(x, few, wide, **options)
        assert torch.allclose(y, torch.where(few, F.conv2d(x, wide, **options), 0.0), rtol=0, atol=1e-3)
    finally:
        torch.set_num_threads(1)


def test_changed_weights_are_packed_again():
    x, mask, weight, bias, _, options = problem(SHAPES[0])

    def right(weight):
        y = masked_conv2d(x, mask, weight, bias, **options)
        return torch.allclose(y, definition(x, mask, weight, bias, None, options), rtol=0, atol=1e-12)

    assert right(weight)
    weight += 1                                                      # its version changes
    assert right(weight)
    weight.data.mul_(2)                                              # its version does not
    assert right(weight)
    weight.data = torch.randn_like(weight)                           # other storage
    assert right(weight)
    with torch.inference_mode():                                     # no version at all
        weight = weight.clone()
        assert right(weight)
        weight.neg_()
        assert right(weight)
    for _ in range(3):                                               # a new tensor in the place of a dead one
        weight = torch.randn_like(weight)
        assert right(weight)
    held = len(copies._copies)
    del weight
    assert len(copies._copies) == held - 1


def test_packed_rows_in_and_out():
    """What fused blocks are made of: rows instead of maps, on either side."""
    x, mask, weight, bias, residual, options = problem(SHAPES[0], residual=True)
    geometry, (rows, _) = geometry_of(x.shape, weight.shape, **options), active(mask)
    some, ranks = active(torch.rand(2, 1, 13, 11) < 0.7, inverse=True)
    packed = x.movedim(1, 3).reshape(-1, 64)[some.long()]
    where = torch.zeros(2 * 13 * 11, dtype=torch.bool).index_fill(0, some.long(), True).view(2, 1, 13, 11)
    expected = definition(x * where, mask, weight, bias, residual, options, 1)
    at = residual.movedim(1, 3).reshape(-1, 64)[rows.long()]
    for how in HOW:
        backend, _, cpu = how.partition(" ")
        with compiled.only(cpu or compiled.instructions()):
            module = BACKENDS[backend]
            y, _ = module.forward(geometry, packed, weight, bias, residual, rows, ranks, 1, False)
            assert torch.allclose(y, expected, rtol=0, atol=1e-12), how
            y, _ = module.forward(geometry, packed, weight, bias, at, rows, ranks, 1, True)
            assert torch.allclose(y, expected.movedim(1, 3).reshape(-1, 64)[rows.long()], rtol=0, atol=1e-12), how


def test_nan_and_infinity_pass_where_they_are_read_and_nowhere_else():
    x, mask, weight, bias, _, options = problem(SHAPES[0], torch.float32)
    x[0, 0, 0, 0], x[1, 3, 6, 6] = float("nan"), float("inf")
    expected = definition(x, mask, weight, bias, None, options, 1)
    for how in HOW:
        y = run(how, x, mask, weight, bias, relu=1, **options)
        assert torch.equal(y.isnan(), expected.isnan()) and torch.equal(y.isinf(), expected.isinf()), how


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p | {"mask": p["mask"][:, :, 1:]}, r"the mask is \[2, 1, 12, 11\], the output needs \[2, 1, 13, 11\]"),
    (lambda p: p | {"mask": p["mask"].to("meta")}, "mask is on meta, x on cpu"),
    (lambda p: p | {"weight": p["weight"].float()}, "weight is torch.float32, x torch.float64"),
    (lambda p: p | {"bias": p["bias"][:3]}, r"bias is \[3\], not \[64\]"),
    (lambda p: p | {"weight": p["weight"][:, :3]}, "does not take 64 channels"),
    (lambda p: p | {"x": p["x"][0]}, r"x is \[B, C, H, W\]"),
    (lambda p: p | {"dilation": 9, "padding": 0}, "is larger than the padded input"),
    (lambda p: p | {"residual": p["x"][:1]}, r"residual is \[1, 64, 13, 11\]"),
    (lambda p: p | {"relu": 2}, "relu is 0, 1 or 6, not 2"),
    (lambda p: p | {"backend": "cuda"}, "no backend 'cuda'; one of reference, torch, cpu, triton, dense"),
    (lambda p: {k: v.half() if k in ("x", "weight", "bias") else v for k, v in p.items()} | {"backend": "cpu"},
     "the cpu backend .* does not take torch.float16"),
])
def test_what_does_not_fit_is_said(change, message):
    x, mask, weight, bias, _, options = problem(SHAPES[0])
    with pytest.raises(ValueError, match=message):
        masked_conv2d(**change({"x": x, "mask": mask, "weight": weight, "bias": bias, **options}))


def test_half_precision_runs_on_torch_operators():
    x, mask, weight, bias, _, options = problem(SHAPES[0])
    y = masked_conv2d(x.half(), mask, weight.half(), bias.half(), **options)
    expected = definition(x.half(), mask, weight.half(), bias.half(), None, options)
    assert (y.double() - expected).norm() < 1e-2 * expected.norm()


def test_a_mask_of_numbers_is_a_mask():
    x, mask, weight, bias, _, options = problem(SHAPES[0])
    assert torch.equal(masked_conv2d(x, mask.double(), weight, bias, **options),
                       masked_conv2d(x, mask, weight, bias, **options))


def test_the_operators_pass_torchs_own_checks():
    x, mask, weight, bias, residual, options = problem((1, 4, 6, 5, 5, 3, 1, 1, 1, 1), residual=True)
    geometry, (rows, _) = geometry_of(x.shape, weight.shape, **options), active(mask)
    where = ([1, 5, 5], [3, 3], [1, 1], [1, 1], [1, 1], 1)
    for backend in ("reference", "torch", "cpu"):
        leaves = [t.detach().requires_grad_() for t in (x, weight, bias, residual)]
        torch.library.opcheck(torch.ops.dynnotes.masked_conv.default, (*leaves, rows, None, 0, False, *where, backend))
        g = torch.randn(len(rows), 6, dtype=torch.float64)
        torch.library.opcheck(torch.ops.dynnotes.masked_conv_grad_input.default, (g, weight, rows, *where, backend))
        torch.library.opcheck(torch.ops.dynnotes.masked_conv_grad_weight.default, (g, x, rows, *where, backend))
    assert geometry.pixels == 25


def test_packed_rows_have_no_gradient_and_say_so():
    x, mask, weight, bias, _, _ = problem(SHAPES[0])
    rows, ranks = active(mask, inverse=True)
    packed = x.movedim(1, 3).reshape(-1, 64)[rows.long()].requires_grad_()
    with pytest.raises(RuntimeError, match="packed rows have no gradient"):
        torch.ops.dynnotes.masked_conv(packed, weight, bias, None, rows, ranks, 0, False, [2, 13, 11], [3, 3], [1, 1],
                                       [1, 1], [1, 1], 1, "cpu")


@pytest.mark.parametrize(("side", "block", "kernel", "dilation"), [(16, 8, 3, 1), (14, 7, 3, 1), (12, 4, 5, 1),
                                                                   (16, 8, 3, 2)])
@pytest.mark.parametrize("groups", [1, 2])
def test_masks_of_whole_blocks_are_convolved_by_the_block(side, block, kernel, dilation, groups, monkeypatch):
    shape = (2, 6, 8, side, side, kernel, 1, dilation * (kernel // 2), dilation, groups)
    x, mask, weight, bias, residual, options = problem(shape, residual=True)
    blocks = torch.rand(2, 1, side // block, side // block) < 0.5
    blocks[0, 0, 0, 0] = True
    mask = blocks.repeat_interleave(block, 2).repeat_interleave(block, 3)
    taken = []
    by_blocks = gathered._by_blocks
    monkeypatch.setattr(gathered, "_by_blocks", lambda *args: taken.append(args[5]) or by_blocks(*args))
    y = masked_conv2d(x, mask, weight, bias, residual=residual, relu=1, backend="torch", **options)
    torch.testing.assert_close(y, definition(x, mask, weight, bias, residual, options, 1), rtol=0, atol=1e-12)
    assert taken == [block]
    mask[0, 0, 1, 1] = False                                         # no longer whole
    y = masked_conv2d(x, mask, weight, bias, residual=residual, relu=1, backend="torch", **options)
    torch.testing.assert_close(y, definition(x, mask, weight, bias, residual, options, 1), rtol=0, atol=1e-12)
    assert taken == [block]


def test_threads_of_python_have_workspaces_of_their_own():
    from concurrent.futures import ThreadPoolExecutor
    cases = [problem((1, 16, 16, 40, 40, 3, 1, 1, 1, 1), torch.float32, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for backend in ("torch", "cpu"):
            found = list(pool.map(lambda c, b=backend: masked_conv2d(*c[:4], **c[5], backend=b), cases * 4))
            for case, y in zip(cases * 4, found, strict=True):
                torch.testing.assert_close(y.double(), definition(*case), rtol=0, atol=1e-3)


def test_a_full_mask_runs_dense_where_that_is_faster_and_an_emptier_one_never(monkeypatch):
    x, mask, weight, bias, _, options = problem(SHAPES[0], torch.float32)
    taken = []
    for name, module in BACKENDS.items():
        monkeypatch.setattr(module, "forward",
                            lambda *args, f=module.forward, name=name: taken.append(name) or f(*args), raising=False)

    def masked(*args, f=native.masked):
        found = f(*args)
        taken.extend([] if found is None else ["cpu"])
        return found

    monkeypatch.setattr(native, "masked", masked)
    monkeypatch.setattr(dense, "_asked", {})
    for slower, backend in ((0.9, "dense"), (1.5, "cpu")):
        monkeypatch.setattr(dense, "crossover", lambda *_, slower=slower: slower)
        masked_conv2d(x, torch.ones_like(mask), weight, bias, **options)
        masked_conv2d(x, mask, weight, bias, **options)              # 40% on
        assert taken == [backend, "cpu"]
        taken.clear()


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_what_ran_in_inference_mode_trains_after(backend):
    if backend in ("cpu", "triton") and not BACKENDS[backend].takes(torch.zeros(1)):
        backend = None
    x, mask, weight, bias, _, options = problem((2, 13, 17, 23, 23, 3, 1, 1, 1, 1), torch.float32)
    with torch.inference_mode():
        inferred = masked_conv2d(x, mask, weight, bias, **options, backend=backend)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    y = masked_conv2d(x, mask, weight, bias, **options, backend=backend)
    assert torch.equal(y, inferred)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(y.sum(), leaves))


def test_the_crossover_is_timed_once_per_shape():
    x, mask, weight, bias, _, options = problem((1, 7, 9, 11, 11, 3, 1, 1, 1, 1), torch.float32)
    before = dense.crossover.cache_info()
    for _ in range(3):
        with measured() as bill:
            masked_conv2d(x, torch.ones_like(mask), weight, bias, **options)
        assert bill.macs == mask.numel() * weight.numel()            # the timing is no work of the caller's
    after = dense.crossover.cache_info()
    assert after.misses - before.misses == 1                         # and where it is above 1, not asked again
    geometry = geometry_of(x.shape, weight.shape, **options)
    assert dense.crossover(geometry, x.dtype, x.device, tuple(weight.shape), "cpu", 1) > 0


def test_a_backend_that_is_faster_with_all_on_is_not_left(monkeypatch):
    """Seconds are the clock's, so that the choice and not the machine is tested."""
    x, _, weight, _, _, options = problem(SHAPES[0], torch.float32)
    geometry, now = geometry_of(x.shape, weight.shape, **options), [0.0]
    rows = torch.arange(geometry.pixels, dtype=torch.int32)
    monkeypatch.setattr(dense.time, "perf_counter", lambda: now[0])
    for module, seconds in ((dense, 3.0), (native, 2.0)):
        monkeypatch.setattr(module, "forward", lambda *_, s=seconds: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(dense, "crossover", dense.crossover.__wrapped__)
    monkeypatch.setattr(dense, "_asked", {})
    assert not dense.faster(geometry, x, weight, rows, "cpu")
    monkeypatch.setattr(dense, "forward", lambda *_: now.__setitem__(0, now[0] + 1.5))
    assert dense.faster(geometry, x, weight, rows, "cpu")             # from three quarters of the pixels on
    assert dense.faster(geometry, x, weight, rows[:-(-geometry.pixels * 3 // 4)], "cpu")
    assert dense.limit(geometry, x, weight, "cpu") == geometry.pixels * 3 // 4      # known from now on
    assert not dense.faster(geometry, x, weight, rows[:geometry.pixels * 7 // 10], "cpu")


@pytest.mark.parametrize(("change", "message"), [
    (lambda rows, ranks: (rows.long(), ranks), "contiguous list of int32"),
    (lambda rows, ranks: (rows[::2], ranks), "contiguous"),
    (lambda rows, ranks: (rows.flip(0), ranks), "rows ascend"),
    (lambda rows, ranks: (rows + 1000, ranks), "from 0 to 285"),
    (lambda rows, ranks: (rows - 1000, ranks), "from 0 to 285"),
    (lambda rows, ranks: (rows, ranks[:9]), "rank of each input"),
    (lambda rows, ranks: (rows, ranks + 1000), "beyond the"),
])
def test_lists_that_would_lead_outside_of_a_map_are_refused(change, message):
    x, mask, weight, bias, _, _ = problem(SHAPES[0])
    rows, ranks = active(mask, inverse=True)
    packed = x.movedim(1, 3).reshape(-1, 64)[rows.long()]
    rows, ranks = change(rows, ranks)
    with pytest.raises(ValueError, match=message):
        torch.ops.dynnotes.masked_conv(packed, weight, bias, None, rows, ranks, 0, True, [2, 13, 11], [3, 3], [1, 1],
                                       [1, 1], [1, 1], 1, "cpu")


@pytest.mark.parametrize("how", HOW)
def test_a_bias_with_gaps(how):
    x, mask, weight, bias, _, options = problem(SHAPES[0])
    wide = torch.stack([bias, torch.full_like(bias, torch.nan)], 1)[:, 0]
    assert torch.equal(run(how, x, mask, weight, wide, **options), run(how, x, mask, weight, bias, **options))
