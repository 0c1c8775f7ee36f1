"""Every backend of the experts against their definition in float64: values, all gradients, edges, errors."""
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from dynnotes.execute import measured
from dynnotes.execute.kernels import compiled, copies
from dynnotes.execute.kernels.experts import Slots, best, expert_ffn, grouped, pages, sorted_slots
from dynnotes.execute.kernels.experts.operator import BACKENDS

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
CASES = [(name, dtype) for name, module in BACKENDS.items() for dtype in DTYPES
         if module.takes(torch.zeros(1, dtype=dtype))]
HOW = [name for name, dtype in CASES if dtype is torch.float64]
LEAVES = ("x", "weight", "w1", "w2", "b1", "b2")
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"), "silu": F.silu,
               "swiglu": lambda t: F.silu(t[..., :t.shape[-1] // 2]) * t[..., t.shape[-1] // 2:], "none": lambda t: t}
ONEDNN = [0, 1] if torch.backends.mkldnn.is_available() else [0]     # ways of a product: grouped.WAYS

#         tokens, k, experts, width, hidden, outputs
SHAPES = [(13, 2, 4, 8, 16, 8), (5, 1, 1, 3, 7, 2), (9, 3, 3, 5, 6, 4), (0, 2, 4, 8, 16, 8), (1, 4, 9, 33, 17, 65),
          (70, 2, 3, 64, 128, 48), (300, 2, 2, 8, 8, 8), (6, 0, 3, 4, 4, 4), (37, 2, 40, 16, 32, 16)]
ROUTINGS = {"any": lambda t, k, e, g: torch.randint(-1, e, (t, k), generator=g),
            "all different": lambda t, k, e, g: torch.rand(t, e, generator=g).argsort(1)[:, :k],
            "one expert": lambda t, k, e, g: torch.full((t, k), e - 1),
            "twice the same": lambda t, k, e, g: torch.randint(0, e, (t, 1), generator=g).repeat(1, k),
            "all dropped": lambda t, k, e, g: torch.full((t, k), -1)}


def problem(shape, dtype=torch.float64, activation="relu", routing="any", seed=0):
    """Arguments of `expert_ffn` by name, for one of SHAPES."""
    tokens, k, experts, width, hidden, outputs = shape
    inner = 2 * hidden if activation == "swiglu" else hidden
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(dtype)

    return {"x": draw(tokens, width), "index": ROUTINGS[routing](tokens, k, experts, generator),
            "weight": draw(tokens, k), "w1": draw(experts, inner, width) / 4, "w2": draw(experts, outputs, hidden) / 4,
            "b1": draw(experts, inner), "b2": draw(experts, outputs), "activation": activation}


def mixture(index, weight, experts):
    """[T, E]: what each expert's answer counts for each token, float64."""
    chosen = F.one_hot(index.clamp_min(0), experts) * (index >= 0).unsqueeze(2)
    weight = torch.ones(index.shape) if weight is None else torch.where(index >= 0, weight, 0)
    return torch.einsum("tk,tke->te", weight.double(), chosen.double())


def definition(x, index, weight, w1, w2, b1=None, b2=None, activation="relu"):
    """Every expert on every token, in float64, times how often and how much it was chosen."""
    pre = torch.einsum("td,ehd->teh", x.double(), w1.double())
    out = ACTIVATIONS[activation](pre if b1 is None else pre + b1.double())
    out = torch.einsum("teh,eoh->teo", out, w2.double())
    out = out if b2 is None else out + b2.double()
    return torch.einsum("te,teo->to", mixture(index, weight, len(w1)), out)


def bound(x, index, weight, w1, w2, b1=None, b2=None, activation="relu"):
    """How far rounding may take the definition, elementwise: (terms + 8) eps of each sum's absolute values, carried
    through an activation whose slope is below 1.13, and 8 eps for the activation itself."""
    eps = torch.finfo(x.dtype).eps
    sums = torch.finfo(torch.float32).eps if x.dtype is torch.bfloat16 else eps   # summed in float32, rounded after

    def off(terms):
        return (terms + 8) * sums + (4 * eps if x.dtype is torch.bfloat16 else 0)

    x, w1, w2 = x.double(), w1.double(), w2.double()
    pre = torch.einsum("td,ehd->teh", x, w1) + (0 if b1 is None else b1.double())
    size = torch.einsum("td,ehd->teh", x.abs(), w1.abs()) + (0 if b1 is None else b1.double().abs())
    error, h = off(x.shape[1]) * size, ACTIVATIONS[activation](pre)
    if activation == "swiglu":
        (gate, up), (off_gate, off_up) = size.chunk(2, 2), error.chunk(2, 2)
        error = 1.13 * off_gate * (up + off_up) + gate * off_up + 8 * eps * gate * up
    else:
        error = 1.13 * error + 8 * eps * size
    error = torch.einsum("teh,eoh->teo", error, w2.abs())
    size = torch.einsum("teh,eoh->teo", h.abs(), w2.abs()) + (0 if b2 is None else b2.double().abs())
    error = error * 1.01 + off(w2.shape[2]) * size
    mix = mixture(index, None if weight is None else weight.abs(), len(w1))
    return torch.einsum("te,teo->to", mix, error + off(index.shape[1]) * (size + error))


def gradients(function, p, names, cotangent):
    """Of <function(**p), cotangent>, by name."""
    leaves = {name: p[name].detach().requires_grad_() for name in names}
    found = torch.autograd.grad(function(**p | leaves), list(leaves.values()), cotangent)
    return dict(zip(leaves, found, strict=True))


def exact(p):
    """The same problem in float64."""
    return {name: t.double() if name in LEAVES and t is not None else t for name, t in p.items()}


def same_gradients(p, backend, names=LEAVES, within=1e-12):
    """All gradients of a float64 problem are the definition's."""
    cotangent = torch.randn(len(p["x"]), p["w2"].shape[1], dtype=torch.float64)
    ours = gradients(lambda **a: expert_ffn(**a, backend=backend), p, names, cotangent)
    theirs = gradients(definition, p, names, cotangent)
    for name in names:
        scale = theirs[name].abs().max().item() if theirs[name].numel() else 0.0
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=within * scale + 1e-300), name


@pytest.fixture
def poisoned():
    """`torch.empty` holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def always(monkeypatch):
    """`always(way)`: products run that way of grouped.WAYS, whatever is faster."""
    return lambda way: monkeypatch.setattr(grouped, "_fastest", lambda *_: way)


@pytest.fixture
def at_once(monkeypatch):
    """What a GPU does, on this CPU: all experts in one product of torch."""
    monkeypatch.setattr(grouped, "_has_grouped", lambda *_: True)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("backend", "dtype"), CASES, ids=str)
def test_the_value_is_the_definition(backend, dtype, shape, activation, biased, poisoned):
    assert torch.empty(1).isnan()
    p = problem(shape, dtype, activation)
    if not biased:
        p |= {"b1": None, "b2": None, "weight": None}
    y = expert_ffn(**p, backend=backend)
    assert y.dtype is dtype and y.shape == (shape[0], shape[5])
    assert ((y.double() - definition(**p)).abs() <= bound(**p)).all()


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("backend", HOW)
def test_the_gradients_are_the_definitions(backend, activation, routing, poisoned):
    for shape in (SHAPES[0], SHAPES[2], SHAPES[4]):
        p = problem(shape, activation=activation, routing=routing)
        same_gradients(p, backend)
        assert torch.allclose(expert_ffn(**p, backend=backend), definition(**p), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", HOW)
def test_gradients_of_any_shape_with_and_without_biases_and_weights(backend, shape, poisoned):
    p = problem(shape, activation="gelu")
    same_gradients(p, backend)
    same_gradients(p | {"b1": None, "b2": None, "weight": None}, backend, ("x", "w1", "w2"))


@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("name", LEAVES)
@pytest.mark.parametrize("backend", HOW)
def test_each_gradient_alone(backend, name, activation, poisoned):
    same_gradients(problem(SHAPES[0], activation=activation), backend, (name,))


@pytest.mark.parametrize("activation", ["relu", "gelu", "swiglu"])
@pytest.mark.parametrize(("backend", "dtype"), [c for c in CASES if c[1] is not torch.float64], ids=str)
def test_gradients_in_lower_precision_are_near(backend, dtype, activation):
    p = problem(SHAPES[5], dtype, activation)
    cotangent = torch.randn(70, 48).to(dtype)
    ours = gradients(lambda **a: expert_ffn(**a, backend=backend), p, LEAVES, cotangent)
    theirs = gradients(definition, exact(p), LEAVES, cotangent.double())
    for name in LEAVES:                                              # sums of some hundred terms of random sign
        assert ours[name].dtype is dtype
        assert (ours[name].double() - theirs[name]).norm() <= 8 * torch.finfo(dtype).eps * theirs[name].norm(), name


@pytest.mark.parametrize("way", ONEDNN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_way_of_a_product_is_right(activation, dtype, way, always, poisoned):
    always(way)
    for shape in (SHAPES[5], SHAPES[8]):
        p = problem(shape, dtype, activation)
        with torch.inference_mode():
            y = expert_ffn(**p, backend="torch")
        assert ((y.double() - definition(**p)).abs() <= bound(**p)).all()
        cotangent = torch.randn(y.shape).to(dtype)
        ours = gradients(lambda **a: expert_ffn(**a, backend="torch"), p, LEAVES, cotangent)
        theirs = gradients(definition, exact(p), LEAVES, cotangent.double())
        for name in LEAVES:
            assert (ours[name].double() - theirs[name]).norm() <= 8 * torch.finfo(dtype).eps * theirs[name].norm(), name


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_experts_in_one_product_are_right(dtype, routing, at_once, poisoned):
    for shape in ((70, 2, 3, 64, 128, 48), (37, 2, 40, 16, 32, 16)):
        for activation in ("gelu", "swiglu"):
            p = problem(shape, dtype, activation, routing)
            y = expert_ffn(**p, backend="torch")
            assert ((y.double() - definition(**p)).abs() <= bound(**p)).all()
            cotangent = torch.randn(y.shape).to(dtype)
            ours = gradients(lambda **a: expert_ffn(**a, backend="torch"), p, LEAVES, cotangent)
            theirs = gradients(definition, exact(p), LEAVES, cotangent.double())
            for name in LEAVES:
                near = 8 * torch.finfo(dtype).eps * theirs[name].norm()
                assert (ours[name].double() - theirs[name]).norm() <= near, name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cpu", ["avx2", "generic"])
def test_lesser_instructions_compute_the_same(cpu, dtype):
    """Blocks of weights that are turned, few rows that meet them as they are, and what is left over of both."""
    if list(compiled.FLAGS).index(cpu) < list(compiled.FLAGS).index(compiled._best()):
        pytest.skip(f"this CPU has no {cpu}")                    # absent hardware: the code cannot run there
    shapes = (70, 2, 3, 64, 128, 48), (37, 2, 40, 16, 32, 16), (40, 2, 4, 33, 17, 65)
    for shape, activation in itertools.product(shapes, ("gelu", "swiglu")):
        p = problem(shape, dtype, activation, "all different")
        with compiled.only(cpu):
            y = expert_ffn(**p, backend="cpu")
            cotangent = torch.randn(y.shape).to(dtype)
            ours = gradients(lambda **a: expert_ffn(**a, backend="cpu"), p, LEAVES, cotangent)
        assert ((y.double() - definition(**p)).abs() <= bound(**p)).all()
        theirs = gradients(definition, exact(p), LEAVES, cotangent.double())
        for name in LEAVES:
            near = 8 * torch.finfo(dtype).eps * theirs[name].norm()
            assert (ours[name].double() - theirs[name]).norm() <= near, name


@pytest.mark.parametrize("backend", HOW)
def test_inputs_of_any_strides(backend):
    p = problem(SHAPES[0], activation="gelu")
    for view in (lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
                 lambda t: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0], lambda t: t[:1].expand_as(t)):
        q = p | {name: view(p[name]) for name in LEAVES}
        assert torch.allclose(expert_ffn(**q, backend=backend), definition(**q), rtol=0, atol=1e-12)
        same_gradients(q, backend)
    q = p | {"index": p["index"].t().contiguous().t()}
    assert torch.equal(expert_ffn(**q, backend=backend), expert_ffn(**p, backend=backend))
    wide = torch.randn(13, 16, dtype=torch.float64)[:, ::2]          # a cotangent with gaps
    ours = gradients(lambda **a: expert_ffn(**a, backend=backend), p, LEAVES, wide)
    again = gradients(lambda **a: expert_ffn(**a, backend=backend), p, LEAVES, wide.contiguous())
    assert all(torch.equal(ours[name], again[name]) for name in LEAVES)


@pytest.mark.parametrize("way", ONEDNN)
@pytest.mark.parametrize("backend", HOW)
def test_inputs_of_any_strides_in_lower_precision(backend, way, always):
    always(way)
    for dtype in (torch.float32, torch.bfloat16):
        p = problem(SHAPES[5], dtype, "gelu")
        for view in (lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
                     lambda t: torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0],
                     lambda t: torch.cat([torch.full_like(t[..., :1], torch.nan), t], -1)[..., 1:]):
            q = p | {name: view(p[name]) for name in LEAVES}
            assert ((expert_ffn(**q, backend=backend).double() - definition(**q)).abs() <= bound(**q)).all()
            cotangent = view(torch.randn(70, 48).to(dtype))
            ours = gradients(lambda **a: expert_ffn(**a, backend=backend), q, LEAVES, cotangent)
            theirs = gradients(definition, exact(q), LEAVES, cotangent.double())
            for name in LEAVES:
                near = 8 * torch.finfo(dtype).eps * theirs[name].norm()
                assert (ours[name].double() - theirs[name]).norm() <= near, name


@pytest.mark.parametrize("integer", [torch.int8, torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("backend", HOW)
def test_indices_of_any_integers(backend, integer):
    p = problem(SHAPES[0], routing="all different")
    assert torch.equal(expert_ffn(**p | {"index": p["index"].to(integer)}, backend=backend),
                       expert_ffn(**p, backend=backend))


@settings(deadline=None, max_examples=60)
@given(tokens=st.integers(0, 40), k=st.integers(0, 4), experts=st.integers(1, 9), width=st.integers(1, 40),
       hidden=st.integers(1, 40), outputs=st.integers(1, 40), activation=st.sampled_from(list(ACTIVATIONS)),
       routing=st.sampled_from(["any", "one expert", "twice the same", "all dropped"]), threads=st.sampled_from([1, 2]),
       seed=st.integers(0, 99))
def test_any_shape(tokens, k, experts, width, hidden, outputs, activation, routing, threads, seed):
    p = problem((tokens, k, experts, width, hidden, outputs), torch.float64, activation, routing, seed)
    torch.set_num_threads(threads)
    try:
        for backend in HOW:
            if backend == "reference" and tokens * k > 20:           # which is slow
                continue
            y = expert_ffn(**p, backend=backend)
            assert ((y - definition(**p)).abs() <= bound(**p)).all()
            same_gradients(p, backend, within=1e-11)
    finally:
        torch.set_num_threads(1)


@settings(deadline=None)
@given(tokens=st.integers(0, 30), k=st.integers(0, 5), experts=st.integers(1, 9), seed=st.integers(0, 99))
def test_slots_are_routed_or_dropped_and_each_once(tokens, k, experts, seed):
    index = ROUTINGS["any"](tokens, k, experts, torch.Generator().manual_seed(seed))
    order, offsets = sorted_slots(index, experts)
    assert order.dtype is torch.int32 and offsets.dtype is torch.int64
    counts = offsets.diff().tolist()
    assert sum(counts) + int((index < 0).sum()) == tokens * k
    groups = order.split(counts)
    assert len(groups) == experts
    for e, slots in enumerate(groups):                               # ascending, which makes the sort a stable one
        assert slots.tolist() == [s for s, chosen in enumerate(index.flatten().tolist()) if chosen == e]


@pytest.mark.parametrize("backend", HOW)
def test_macs_are_in_the_shapes_and_nothing_less_is_issued(backend):
    p = problem(SHAPES[0], torch.float32, "swiglu")
    routed, each = int((p["index"] >= 0).sum()), p["w1"][0].numel() + p["w2"][0].numel()
    with measured() as bill:
        expert_ffn(**p, backend=backend)
    assert bill.macs == routed * each > 0
    order, offsets = sorted_slots(p["index"], 4)
    lists = p["x"], order, offsets, 2, p["weight"], p["w1"], p["b1"], p["w2"], p["b2"], "swiglu"
    assert torch.ops.dynnotes.experts(*lists, False, backend)[2].item() >= bill.macs
    cotangent = torch.randn(13, 8)
    for names, share in ((LEAVES, 2 * each), (("x",), each), (("w2",), p["w2"][0].numel()), (("b2",), 0),
                         (("w1",), each), (("weight",), p["w2"][0].numel()), (("b1",), p["w2"][0].numel())):
        with measured() as bill:
            gradients(lambda **a: expert_ffn(**a, backend=backend), p, names, cotangent)
        assert bill.macs == routed * (each + share), names


def test_on_the_meta_device_every_slot_is_billed():
    p = {name: t.to("meta") if torch.is_tensor(t) else t for name, t in problem(SHAPES[0]).items()}
    with measured() as bill:
        y = expert_ffn(**p)
    assert y.shape == (13, 8) and y.is_meta
    assert bill.macs == 13 * 2 * (8 * 16 + 16 * 8)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("backend", HOW)
def test_what_the_activation_got_is_kept_when_asked(backend, keep):
    p = problem(SHAPES[0], activation="swiglu")
    order, offsets = sorted_slots(p["index"], 4)
    y, pre, _ = torch.ops.dynnotes.experts(p["x"], order, offsets, 2, p["weight"], p["w1"], p["b1"], p["w2"], p["b2"],
                                           "swiglu", keep, backend)
    experts = p["index"].flatten()[order.long()]
    expected = torch.einsum("rd,rhd->rh", p["x"][order.long() // 2], p["w1"][experts]) + p["b1"][experts]
    assert torch.allclose(pre, expected if keep else expected[:0], rtol=0, atol=1e-12)
    assert torch.allclose(y, definition(**p), rtol=0, atol=1e-12)


def test_what_is_kept_has_no_gradient_of_its_own():
    p = problem(SHAPES[0])
    order, offsets = sorted_slots(p["index"], 4)
    found = torch.ops.dynnotes.experts(p["x"].requires_grad_(), order, offsets, 2, p["weight"], p["w1"], p["b1"],
                                       p["w2"], p["b2"], "relu", True, "torch")
    assert [t.requires_grad for t in found] == [True, False, False]


@pytest.mark.parametrize("backend", HOW)
def test_bfloat16_is_summed_in_float32(backend):
    """600 times the same answer: a sum rounded at every step would stop growing at 256 of them."""
    p = problem((2, 600, 1, 4, 8, 4), torch.bfloat16, routing="one expert") | {"weight": None}
    y = expert_ffn(**p, backend=backend)
    assert ((y.double() - definition(**p)).abs() <= bound(**p)).all()
    ours = gradients(lambda **a: expert_ffn(**a, backend=backend), p, ("x", "b1", "b2"), torch.ones_like(y))
    theirs = gradients(definition, exact(p), ("x", "b1", "b2"), torch.ones(2, 4, dtype=torch.float64))
    for name, g in ours.items():
        assert (g.double() - theirs[name]).norm() <= 4 * torch.finfo(torch.bfloat16).eps * theirs[name].norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", HOW)
def test_two_runs_agree_to_the_last_bit(backend, dtype):
    p = problem(SHAPES[5], dtype, "gelu")
    cotangent = torch.randn(70, 48).to(dtype)
    runs = [gradients(lambda **a: expert_ffn(**a, backend=backend), p, LEAVES, cotangent) for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in LEAVES)
    assert torch.equal(expert_ffn(**p, backend=backend), expert_ffn(**p, backend=backend))


@pytest.mark.parametrize("backend", HOW)
def test_what_ran_in_inference_mode_trains_after(backend):
    p = problem(SHAPES[5], torch.float32)
    with torch.inference_mode():
        inferred = expert_ffn(**p, backend=backend)
    leaves = {name: p[name].requires_grad_() for name in LEAVES}
    y = expert_ffn(**p | leaves, backend=backend)
    assert ((y - inferred).abs() <= 2 * bound(**p)).all()
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(y.sum(), list(leaves.values())))
    with torch.inference_mode():                                     # weights and inputs that were made in it
        q = {name: t.clone() if torch.is_tensor(t) else t for name, t in p.items()}
        assert torch.equal(expert_ffn(**q, backend=backend), inferred)


@pytest.mark.parametrize("way", ONEDNN)
@pytest.mark.parametrize("backend", HOW)
def test_changed_weights_are_seen(backend, way, always):
    always(way)
    p = problem(SHAPES[0], torch.float32)

    def right():
        return ((expert_ffn(**p, backend=backend) - definition(**p)).abs() <= bound(**p)).all()

    assert right()
    p["w1"] += 1                                                     # its version changes
    assert right()
    p["w2"].data.mul_(2)                                             # its version does not
    assert right()
    p["w1"].data = torch.randn_like(p["w1"])                         # other storage
    assert right()
    with torch.inference_mode():                                     # no version at all
        p["w2"] = p["w2"].clone()
        assert right()
        p["w2"].neg_()
        assert right()
    for _ in range(3):                                               # a new tensor in the place of a dead one
        p["w1"] = torch.randn_like(p["w1"])
        assert right()


def test_copies_of_weights_are_kept_for_inference_and_die_with_them(always):
    always(ONEDNN[-1])
    p, before = problem(SHAPES[0], torch.float32), len(copies._copies)
    for name in ("w1", "w2"):
        p[name].requires_grad_()
    expert_ffn(**p, backend="torch").sum().backward()
    assert len(copies._copies) == before                            # in training they change at every step
    for _ in range(2):
        with torch.no_grad():
            expert_ffn(**p, backend="torch")
        assert len(copies._copies) == before + 2 * ONEDNN[-1]
    p.clear()
    assert len(copies._copies) == before


@pytest.mark.parametrize("backend", [name for name in HOW if name != "reference"])
def test_no_expert_gets_a_gradient_of_full_size(backend):
    """An expert picked as w1[e] would: autograd writes zeros for all the others, for each."""
    p = problem((64, 2, 64, 32, 64, 32), torch.float32)
    cotangent = torch.ones(64, 32)
    step = lambda: gradients(lambda **a: expert_ffn(**a, backend=backend), p, LEAVES, cotangent)
    step()                                                           # what is timed once has been timed
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    allocated = sum(max(0, event.self_cpu_memory_usage) for event in found.events())
    assert allocated < 4 * (p["w1"].nbytes + p["w2"].nbytes)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ONEDNN)
@pytest.mark.parametrize("backend", HOW)
def test_nan_and_infinity_reach_their_token_and_no_other(backend, way, dtype, activation, always):
    always(way)
    p = problem(SHAPES[0], dtype, activation, "all different")
    p["x"][3, 2], p["x"][5, 1], p["x"][6, 1] = float("nan"), float("inf"), float("-inf")
    p["weight"][8, 1] = float("nan")
    p["index"][9, 0], p["weight"][9, 0] = -1, float("nan")           # dropped: never read
    y = expert_ffn(**p, backend=backend)
    for t in range(13):
        chosen = p["index"][t][p["index"][t] >= 0]                   # an expert not chosen would be NaN, too, times 0
        some = {name: p[name][chosen] for name in ("w1", "w2", "b1", "b2")}
        expected = definition(p["x"][t:t + 1], torch.arange(len(chosen)).view(1, -1),
                              p["weight"][t:t + 1, p["index"][t] >= 0], activation=activation, **some)
        assert torch.equal(y[t].isnan(), expected[0].isnan()) and torch.equal(y[t].isinf(), expected[0].isinf()), t


@pytest.mark.parametrize("way", ONEDNN)
@pytest.mark.parametrize("backend", HOW)
def test_what_bfloat16_cannot_hold_is_infinite(backend, way, always):
    always(way)
    p = problem((4, 2, 3, 2, 8, 8), torch.bfloat16, "none", "all different")
    p |= {"b1": None, "b2": None, "weight": None}
    p["x"].fill_(3e38), p["w1"].fill_(1), p["w2"].fill_(1)
    p["w2"][:, 1] = -1
    p["x"][1] = 1.0
    y = expert_ffn(**p, backend=backend)
    assert (y[[0, 2, 3], 0] == float("inf")).all() and (y[[0, 2, 3], 1] == float("-inf")).all()
    assert (y[1, 0], y[1, 1]) == (32, -32)


def test_half_precision_runs_on_torch_operators():
    p = problem(SHAPES[5], torch.float16, "gelu")
    assert best(p["x"]) in BACKENDS
    assert (expert_ffn(**p).double() - definition(**p)).norm() < 1e-2 * definition(**p).norm()


@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("backend", HOW)
def test_the_operators_pass_torchs_own_checks(backend, activation):
    p = problem((6, 2, 3, 4, 5, 4), activation=activation)
    order, offsets = sorted_slots(p["index"], 3)

    def lists(q):
        return q["x"], order, offsets, 2, q["weight"], q["w1"], q["b1"], q["w2"], q["b2"], activation

    leaves = {name: p[name].detach().requires_grad_() for name in LEAVES}
    torch.library.opcheck(torch.ops.dynnotes.experts.default, (*lists(leaves), True, backend))
    torch.library.opcheck(torch.ops.dynnotes.experts.default, (*lists(p), False, backend))
    y, pre, _ = torch.ops.dynnotes.experts(*lists(p), True, backend)
    for needs in ([True] * 6, [True, False] * 3):
        torch.library.opcheck(torch.ops.dynnotes.experts_backward.default,
                              (torch.randn_like(y), *lists(p), pre, needs, backend))


def test_gradients_that_cannot_be_are_errors():
    p = problem(SHAPES[0])
    x = p["x"].clone().requires_grad_()
    order, offsets = sorted_slots(p["index"], 4)
    lists = x, order, offsets, 2, p["weight"], p["w1"], p["b1"], p["w2"], p["b2"], "relu"
    with pytest.raises(RuntimeError, match="call it with keep=True"):
        torch.ops.dynnotes.experts(*lists, False, "torch")
    g, = torch.autograd.grad(expert_ffn(**p | {"x": x}).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        g.sum().backward()
    with pytest.raises(ValueError, match=r"pre is \[0, 16\], not \[\d+, 16\]"):
        torch.ops.dynnotes.experts_backward(torch.randn(13, 8), *lists, torch.empty(0, 16), [True] * 6, "torch")


def test_large_buffers_are_of_the_shape_asked_for():
    for size in ((3, 5), (1 << 10, 1 << 11), (0, 7)):
        like = torch.zeros(size[::-1]).t()
        made = pages.fresh(like)
        assert made.shape == like.shape and made.is_contiguous() and made.dtype is like.dtype
        made.fill_(1)
        assert made.sum() == made.numel()


def test_ways_are_timed_once_and_no_counter_sees_it():
    p = problem((8, 1, 2, 11, 13, 17), torch.float32)
    macs, before = 8 * (11 * 13 + 13 * 17), grouped._fastest.cache_info().misses
    p |= {"index": p["index"].clamp_min(0)}
    for turn in range(3):
        with measured() as bill:
            gradients(lambda **a: expert_ffn(**a, backend="torch"), p, LEAVES, torch.ones(8, 17))
        assert bill.macs == 3 * macs
        after = grouped._fastest.cache_info().misses
        assert (after > before) if turn == 0 else (after == before)
        before = after


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: p | {"x": p["x"][0]}, r"x is \[T, D\], not \[8\]"),
    (lambda p: p | {"index": p["index"][1:]}, r"index is \[12, 2\], not \[13, 2\]"),
    (lambda p: p | {"weight": p["weight"][:, :1]}, r"weight is \[13, 1\], not \[13, 2\]"),
    (lambda p: p | {"w1": p["w1"][..., 1:]}, r"w1 is \[4, 16, 7\], not \[4, 16, 8\]"),
    (lambda p: p | {"w2": p["w2"][1:]}, r"w2 is \[3, 8, 16\], not \[4, 8, 16\]"),
    (lambda p: p | {"b1": p["b1"][:, 1:]}, r"b1 is \[4, 15\], not \[4, 16\]"),
    (lambda p: p | {"b2": p["b2"][1:]}, r"b2 is \[3, 8\], not \[4, 8\]"),
    (lambda p: p | {"activation": "swiglu"}, r"w2 is \[4, 8, 16\], not \[4, 8, 8\]"),
    (lambda p: p | {"activation": "swiglu", "w1": p["w1"][:, 1:]}, "15 is odd"),
    (lambda p: p | {"activation": "tanh"}, "no activation 'tanh'; one of relu, gelu"),
    (lambda p: p | {"backend": "cuda"}, "no backend 'cuda'; one of reference, torch"),
    (lambda p: p | {"w1": p["w1"].float()}, "w1 is torch.float32, x torch.float64"),
    (lambda p: p | {"weight": p["weight"].to("meta")}, "weight is on meta, x on cpu"),
    (lambda p: p | {"index": p["index"].double()}, "index is torch.float64, not of integers"),
    (lambda p: p | {"index": p["index"] >= 0}, "index is torch.bool, not of integers"),
    (lambda p: p | {"index": p["index"] + 2}, "index has [45]; there are experts 0 to 3"),
    (lambda p: p | {"index": p["index"] - 1}, "index has -2; there are experts 0 to 3"),
    (lambda p: {n: t.long() if n in LEAVES else t for n, t in p.items()}, "x is torch.int64, which has no activation"),
])
def test_what_does_not_fit_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        expert_ffn(**change(problem(SHAPES[0])))


def test_more_slots_than_int32_numbers_are_refused_before_anything_is_made():
    with pytest.raises(ValueError, match=r"\[2147483648, 1\] are 2147483648 slots"):
        sorted_slots(torch.zeros(1, 1, dtype=torch.int64).expand(2**31, 1), 2)


@pytest.mark.parametrize(("change", "message"), [
    (lambda order, offsets: (order.long(), offsets), "contiguous list of int32"),
    (lambda order, offsets: (order[::2], offsets), "contiguous"),
    (lambda order, offsets: (order, offsets.int()), "5 of int64"),
    (lambda order, offsets: (order, offsets[1:]), "5 of int64"),
    (lambda order, offsets: (order, offsets + 1), "ascend from 0 to"),
    (lambda order, offsets: (order, offsets.flip(0)), "ascend from 0 to"),
    (lambda order, offsets: (order, torch.cat([offsets[:2], offsets[1:2] - 1, offsets[3:]])), "ascend from 0 to"),
    (lambda order, offsets: (order + 100, offsets), "slots from 0 to 25"),
    (lambda order, offsets: (order - 100, offsets), "slots from 0 to 25"),
    (lambda order, offsets: (order.index_fill(0, torch.tensor([1]), int(order[0])), offsets), "at most once"),
])
def test_lists_that_would_lead_outside_are_refused(change, message):
    p = problem(SHAPES[0])
    order, offsets = change(*sorted_slots(p["index"], 4))
    with pytest.raises(ValueError, match=message):
        torch.ops.dynnotes.experts(p["x"], order, offsets, 2, p["weight"], p["w1"], p["b1"], p["w2"], p["b2"], "relu",
                                   False, "torch")


def test_slots_are_a_pair_with_names():
    slots = sorted_slots(torch.tensor([[1, 0], [-1, 1]]), 3)
    assert isinstance(slots, Slots)
    assert slots.order.tolist() == [1, 0, 3] and slots.offsets.tolist() == [0, 1, 3, 3]
