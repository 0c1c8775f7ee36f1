"""The triton backend of the experts against their definition, in triton's interpreter or on a GPU; run by
test_experts_triton.py.

    TRITON_INTERPRET=1 python -m pytest tests/execute/kernels/experts_triton.py

The interpreter runs programs one after the other in numpy: it proves indexing and masking, not the absence of races,
nor anything of tensor cores.
"""
import os

import pytest
import torch

from dynnotes.execute import measured
from dynnotes.execute.kernels.experts import best, expert_ffn, native, operator, programs, sorted_slots, tiles
from tests.execute.kernels.test_experts import (
    ACTIVATIONS,
    LEAVES,
    ROUTINGS,
    SHAPES,
    bound,
    definition,
    exact,
    gradients,
    poisoned,  # noqa: F401
    problem,
)

GPU = not programs.INTERPRETED.value
DEVICE = "cuda" if GPU else "cpu"
EXACT = torch.float32 if GPU else torch.float64                      # tl.dot has no float64 on every GPU
DTYPES = [EXACT, torch.float32, torch.bfloat16] if not GPU else [torch.float32, torch.bfloat16]
MORE = [(300, 2, 2, 8, 40, 70), (20, 3, 3, 40, 33, 17)]              # many tiles of rows and columns; every expert
RAGGED = [SHAPES[0], SHAPES[2], MORE[1]]


def run(backend="triton", **p):
    """expert_ffn there, and its value here."""
    return expert_ffn(**{name: t.to(DEVICE) if torch.is_tensor(t) else t for name, t in p.items()},
                      backend=backend).cpu()


def near(p):
    y = run(**p)
    return y.dtype is p["x"].dtype and bool(((y.double() - definition(**p)).abs() <= bound(**p)).all())


def same_gradients(p, names=LEAVES, cotangent=None):
    dtype = p["x"].dtype
    if cotangent is None:
        cotangent = torch.randn(len(p["x"]), p["w2"].shape[1], dtype=torch.float64).to(dtype)
    ours = gradients(run, p, names, cotangent)
    theirs = gradients(definition, exact(p), names, cotangent.double())
    for name in names:
        assert ours[name].dtype is dtype and ours[name].shape == theirs[name].shape, name
        within = 16 * torch.finfo(dtype).eps * theirs[name].norm()   # sums of some hundred terms of random sign
        assert (ours[name].double() - theirs[name]).norm() <= within, name


def launch(p, keep=False):
    """(y, pre, issued) of the backend itself."""
    p = {name: t.to(DEVICE) if torch.is_tensor(t) else t for name, t in p.items()}
    slots = sorted_slots(p["index"], len(p["w1"]))
    return tiles.forward(p["x"], *slots, p["index"].shape[1], p["weight"], p["w1"], p["b1"], p["w2"], p["b2"],
                         p["activation"], keep)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES[:6], SHAPES[7], *MORE], ids=str)
def test_the_value_is_the_definition(shape, dtype, activation, poisoned):  # noqa: F811
    assert near(problem(shape, dtype, activation))


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_gradient_is_the_definitions(activation, routing, poisoned):  # noqa: F811
    for shape in RAGGED if activation in ("gelu", "swiglu") else RAGGED[:1]:
        p = problem(shape, EXACT, activation, routing)
        assert near(p)
        same_gradients(p)


@pytest.mark.parametrize(("shape", "activation"), [
    *((shape, "gelu") for shape in (*SHAPES[:8], (9, 2, 20, 8, 8, 8), MORE[0])), (SHAPES[0], "swiglu"),
    (SHAPES[4], "swiglu")], ids=str)
def test_with_and_without_biases_and_weights(shape, activation, poisoned):  # noqa: F811
    p = problem(shape, EXACT, activation)
    if activation == "gelu":
        same_gradients(p)
    for missing in (("b1", "b2", "weight"), ("b1",)) if shape == SHAPES[0] else (("b1", "b2", "weight"),):
        q = p | dict.fromkeys(missing)
        assert near(q)
        same_gradients(q, [name for name in LEAVES if name not in missing])


@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("name", LEAVES)
def test_each_gradient_alone(name, activation, poisoned):  # noqa: F811
    same_gradients(problem(SHAPES[0], EXACT, activation), (name,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradients_in_lower_precision_are_near(dtype, activation):
    p = problem(SHAPES[5], dtype, activation)
    if dtype is not torch.float16:
        assert near(p)
    same_gradients(p)


@pytest.mark.parametrize("high", [16, 128])
def test_tiles_of_any_height(high, monkeypatch, poisoned):  # noqa: F811
    monkeypatch.setattr(tiles, "_high", lambda *_: high)
    for shape, routing in (((40, 2, 3, 20, 18, 17), "any"), ((65, 2, 2, 8, 8, 8), "one expert"),
                           ((64, 2, 4, 8, 8, 8), "all different")):
        p = problem(shape, EXACT, "swiglu", routing)
        assert near(p)
        same_gradients(p)


@pytest.mark.parametrize("counts", [(16, 32, 0, 48), (0, 0, 1, 0), (17, 0, 15, 16), (0, 64, 0, 0), (33, 1, 1, 1)],
                         ids=str)
def test_tiles_that_are_full_ragged_or_of_no_expert(counts, poisoned):  # noqa: F811
    p = problem((sum(counts), 1, 4, 8, 8, 8), EXACT)
    places = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0))
    p["index"] = torch.arange(4).repeat_interleave(torch.tensor(counts))[places].unsqueeze(1)
    assert near(p)
    same_gradients(p)


@pytest.mark.parametrize("zero", ["width", "hidden", "outputs"])
def test_axes_of_no_elements(zero, poisoned):  # noqa: F811
    p = problem((5, 2, 3, *(0 if zero == name else 4 for name in ("width", "hidden", "outputs"))), EXACT, "gelu")
    assert near(p)
    same_gradients(p)


def test_inputs_of_any_strides():
    p = problem(SHAPES[0], EXACT, "swiglu")
    for view in (lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0), lambda t: t[:1].expand_as(t),
                 lambda t: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0],
                 lambda t: torch.cat([torch.full_like(t[..., :1], torch.nan), t], -1)[..., 1:]):
        q = p | {name: view(p[name]) for name in LEAVES}
        assert near(q)
        same_gradients(q, cotangent=view(torch.randn(13, 8, dtype=EXACT)))
    kept = launch(p, keep=True)[1]
    slots = sorted_slots(p["index"].to(DEVICE), 4)
    inputs = [p[name].to(DEVICE) for name in ("x", "weight", "w1", "b1", "w2", "b2")]
    found = [tiles.backward(torch.ones(13, 8, dtype=EXACT, device=DEVICE), inputs[0], *slots, 2, *inputs[1:], "swiglu",
                            pre, [True] * 6) for pre in (kept, kept.t().contiguous().t())]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("keep", [True, False])
def test_what_the_activation_got_is_kept_when_asked(keep):
    p = problem(SHAPES[0], EXACT, "swiglu")
    order, _ = sorted_slots(p["index"], 4)
    experts = p["index"].flatten()[order.long()]
    expected = torch.einsum("rd,rhd->rh", p["x"][order.long() // 2], p["w1"][experts]) + p["b1"][experts]
    assert torch.allclose(launch(p, keep)[1].cpu(), expected if keep else expected[:0], rtol=0,
                          atol=1e-5 if GPU else 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_and_infinity_reach_their_token_and_no_other(dtype, activation):
    p = problem(SHAPES[0], dtype, activation, "all different")
    p["x"][3, 2], p["x"][5, 1], p["x"][6, 1] = float("nan"), float("inf"), float("-inf")
    p["weight"][8, 1] = float("nan")
    p["index"][9, 0], p["weight"][9, 0] = -1, float("nan")           # dropped: never read
    y = run(**p)
    for t in range(13):
        chosen = p["index"][t][p["index"][t] >= 0]                   # an expert not chosen would be NaN, too, times 0
        some = {name: p[name][chosen] for name in ("w1", "w2", "b1", "b2")}
        expected = definition(p["x"][t:t + 1], torch.arange(len(chosen)).view(1, -1),
                              p["weight"][t:t + 1, p["index"][t] >= 0], activation=activation, **some)
        assert torch.equal(y[t].isnan(), expected[0].isnan()) and torch.equal(y[t].isinf(), expected[0].isinf()), t


def test_bfloat16_is_summed_in_float32():
    """300 times the same answer: a sum rounded at every step would stop growing at 256 of them."""
    p = problem((2, 300, 1, 4, 8, 4), torch.bfloat16, routing="one expert") | {"weight": None}
    assert near(p)
    ones = torch.ones(2, 4, dtype=torch.bfloat16)
    ours, theirs = gradients(run, p, ("x", "b1", "b2"), ones), gradients(definition, exact(p), ("x", "b1", "b2"),
                                                                         ones.double())
    for name, g in ours.items():
        assert (g.double() - theirs[name]).norm() <= 4 * torch.finfo(torch.bfloat16).eps * theirs[name].norm(), name


def test_what_tiles_hold_is_issued():
    """16 rows, 32 inputs, 64 hidden and 32 outputs fill their tiles; a row or an expert more is a tile more."""
    def issued(shape, index, activation="relu"):
        return int(launch(problem(shape, torch.float32, activation) | {"index": torch.tensor(index)})[2].__index__())

    each = 32 * 64 + 64 * 32
    assert issued((16, 1, 1, 32, 64, 32), [[0]] * 16) == 16 * each
    assert issued((17, 1, 2, 32, 64, 32), [[0]] * 17) == 32 * each
    assert issued((16, 1, 4, 32, 64, 32), [[0]] * 8 + [[2]] * 8) == 32 * each
    assert issued((16, 1, 4, 32, 64, 32), [[0]] * 8 + [[-1]] * 8) == 16 * each
    assert issued((16, 1, 4, 31, 50, 20), [[0]] * 16) == 16 * each
    assert issued((16, 1, 4, 32, 64, 32), [[0]] * 16, "swiglu") == 16 * (each + 32 * 64)


def test_the_bill_is_exact_and_issued_is_seen_only_by_who_listens(monkeypatch):
    p = problem(SHAPES[0], torch.float32, "swiglu")
    routed, each = int((p["index"] >= 0).sum()), p["w1"][0].numel() + p["w2"][0].numel()
    with measured() as bill:
        run(**p)
    assert bill.macs == routed * each > 0
    slots, (x, weight, w1, b1, w2, b2) = sorted_slots(p["index"].to(DEVICE), 4), (
        p[name].to(DEVICE) for name in ("x", "weight", "w1", "b1", "w2", "b2"))
    found = torch.ops.dynnotes.experts(x, *slots, 2, weight, w1, b1, w2, b2, "swiglu", False, "triton")[2]
    assert found.item() == launch(p)[2].__index__() >= bill.macs

    def looked(self):
        raise AssertionError("to count tiles is to wait for the GPU")

    monkeypatch.setattr(tiles.Issued, "__index__", looked)
    with torch.no_grad():
        assert near(p)


def test_two_runs_agree_to_the_last_bit():
    p = problem(SHAPES[5], torch.bfloat16, "gelu")
    cotangent = torch.randn(70, 48).bfloat16()
    runs = [gradients(run, p, LEAVES, cotangent) | {"y": run(**p)} for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_the_operators_pass_torchs_own_checks():
    p = problem((6, 2, 3, 4, 5, 4), torch.float32, "swiglu")
    slots, leaves = sorted_slots(p["index"].to(DEVICE), 3), {name: p[name].to(DEVICE) for name in LEAVES}

    def lists(q):
        return q["x"], *slots, 2, q["weight"], q["w1"], q["b1"], q["w2"], q["b2"], "swiglu"

    torch.library.opcheck(torch.ops.dynnotes.experts.default,
                          (*lists({name: t.requires_grad_() for name, t in leaves.items()}), True, "triton"))


@pytest.mark.parametrize(("most", "message"), [(41, "42 slots"), (61, "80 elements of a row"), (79, "80 elements"),
                                               (600, "640 elements of an expert"), (640, None)])
def test_what_int32_does_not_number_is_refused(most, message, monkeypatch):
    monkeypatch.setattr(tiles, "MOST", most)
    p = problem((13, 2, 4, 80, 8, 8), EXACT)
    if message is None:
        assert near(p)
        return
    with pytest.raises(ValueError, match=rf'experts: {message}.* ends at {most}: .* take backend="torch"'):
        run(**p)


def test_too_many_programs_are_refused(monkeypatch):
    p = problem((2, 20, 9, 1, 1, 8), EXACT)
    monkeypatch.setattr(tiles, "MOST", 60)
    monkeypatch.setattr(tiles, "_wide", lambda n, most: 16 if n == 1 else 1)     # 10 tiles of rows, 8 of columns
    with pytest.raises(ValueError, match=r"\d+ programs; the triton backend numbers them in int32"):
        run(**p)


def test_no_more_tiles_are_launched_than_there_can_be():
    for count in (1, 5, 31, 32, 33, 200):
        for experts in (1, 3, 40):
            fullest = [1] * min(count, experts)                      # as many ragged tiles as possible
            fullest[0] += count - len(fullest)
            offsets = torch.tensor([0, *fullest, *[0] * (experts - len(fullest))]).cumsum(0)
            found = tiles.Tiles(torch.zeros(count, 1, dtype=EXACT, device=DEVICE),
                                torch.arange(count, dtype=torch.int32, device=DEVICE), offsets.to(DEVICE), 1)
            needed = sum(-(-n // found.high) for n in fullest)
            assert needed <= found.most <= -(-count // found.high) + experts


def test_tf32_is_torchs_choice():
    x = torch.zeros(1, 1, device=DEVICE)
    lists = torch.zeros(1, dtype=torch.int32, device=DEVICE), torch.tensor([0, 1], device=DEVICE), 1
    before = torch.get_float32_matmul_precision()
    try:
        for allowed, precision in (("highest", "ieee"), ("high", "tf32")):
            torch.set_float32_matmul_precision(allowed)
            assert tiles.Tiles(x, *lists).precision == precision
            assert tiles.Tiles(x.bfloat16(), *lists).precision == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_it_does_not_take_is_said():
    p = problem(SHAPES[0], torch.float64)
    wrong = p["x"].to(torch.float8_e4m3fn)
    assert not tiles.takes(wrong)
    with pytest.raises(ValueError, match=r"does not take torch\.float8_e4m3fn on cpu; .* take backend=\"torch\""):
        tiles.Tiles(wrong, *sorted_slots(p["index"], 4), 2)


def test_the_programs_are_interpreted_as_asked():
    assert programs.INTERPRETED.value is (os.environ.get("TRITON_INTERPRET") == "1")
    x, names = torch.zeros(1, 1), list(operator.BACKENDS)
    assert tiles.takes(x) is not GPU and names.index("torch") < names.index("triton") < names.index("cpu")
    assert not native.takes(x) or best(x) == "cpu"                   # which nobody interprets unasked


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("activation", ["gelu_tanh", "swiglu"])
@pytest.mark.parametrize("shape", [(2048, 2, 8, 512, 1024, 512), (512, 4, 64, 256, 512, 264), (64, 1, 2, 1024, 64, 72)],
                         ids=str)
def test_sizes_that_fill_a_gpu(shape, activation, dtype):
    p = problem(shape, dtype, activation)
    p = p | {"w1": p["w1"] / shape[3]**0.5, "w2": p["w2"] / shape[4]**0.5}
    y, expected = run(**p), definition(**p)
    assert (y.double() - expected).norm() <= 4 * torch.finfo(dtype).eps * expected.norm()
    assert best(p["x"].to(DEVICE)) == "triton"
    cotangent = torch.randn(y.shape).to(dtype)
    same_gradients(p, cotangent=cotangent)
    runs = [gradients(run, p, LEAVES, cotangent) | {"y": run(**p)} for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])    # no atomics: sums have one order
