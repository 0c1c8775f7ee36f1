"""The triton programs of `tiles`, in a module of their own because decorating them needs triton.

Rows are slots grouped by expert: row r is slot order[r], of token order[r] // k; expert e has rows offsets[e] to
offsets[e + 1]. Rows are read from a map of tokens or of rows, both of any strides, and written to maps that lie dense.
A dtype SUM is that of all sums: float32, and float64 where the values are. BE is a power of two, E or more.
"""
import triton
import triton.language as tl


@triton.jit
def _sigmoid(t):
    return 1.0 / (1.0 + tl.exp(-t))


INTERPRETED = tl.constexpr(not isinstance(_sigmoid, triton.JITFunction))     # TRITON_INTERPRET=1 was set before


@triton.jit
def _dot(a, b, total, PRECISION: tl.constexpr):
    if INTERPRETED:                                                  # it has no arithmetic of bfloat16
        a, b = a.to(total.dtype), b.to(total.dtype)
    return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


# Between the products ------------------------------------------------------------------------------------------------

@triton.jit
def _activated(t, up, ACT: tl.constexpr):
    if ACT == "relu":
        t = tl.where(t < 0, 0.0, t)                                  # a comparison, not maximum: NaN stays NaN
    elif ACT == "gelu":
        t = 0.5 * t * (1.0 + tl.erf(t * 0.7071067811865476))
    elif ACT == "gelu_tanh":                                         # (1 + tanh(z)) / 2 = sigmoid(2z)
        t = t * _sigmoid(1.5957691216057308 * (t + 0.044715 * t * t * t))
    elif ACT == "silu":
        t = t * _sigmoid(t)
    elif ACT == "swiglu":
        t = t * _sigmoid(t) * up
    return t


@triton.jit
def _derived(g, t, up, ACT: tl.constexpr):
    """The gradient of `t`, for swiglu with `g` times `up`, from that of the activation's value."""
    if ACT == "relu":
        g = tl.where(t <= 0, 0.0, g)
    elif ACT == "gelu":
        g = g * (0.5 * (1.0 + tl.erf(t * 0.7071067811865476)) + t * 0.3989422804014327 * tl.exp(-0.5 * t * t))
    elif ACT == "gelu_tanh":
        s = _sigmoid(1.5957691216057308 * (t + 0.044715 * t * t * t))
        g = g * (s + t * s * (1.0 - s) * 1.5957691216057308 * (1.0 + 0.134145 * t * t))
    elif ACT == "silu":
        s = _sigmoid(t)
        g = g * (s + t * s * (1.0 - s))
    elif ACT == "swiglu":
        s = _sigmoid(t)
        g = g * up * (s + t * s * (1.0 - s))
    return g


# Where a program works -----------------------------------------------------------------------------------------------

@triton.jit
def _tile(offsets, experts, columns, BM: tl.constexpr, BN: tl.constexpr, BE: tl.constexpr):
    """(expert, rows [BM], which of them are its, columns [BN], which tile of columns) of this program.

    Each expert's rows begin a tile. The grid has as many tiles as there can be; those left over are expert `experts`.
    Eight tiles of rows share the columns of each other's weights before the next columns' turn.
    """
    across = tl.cdiv(columns, BN)
    high = tl.num_programs(0) // across
    turn, within = tl.program_id(0) // (8 * across), tl.program_id(0) % (8 * across)
    share = tl.minimum(high - turn * 8, 8)
    m, n = turn * 8 + within % share, within // share
    each = tl.arange(0, BE)
    begin = tl.load(offsets + each, mask=each < experts, other=0).to(tl.int32)
    end = tl.load(offsets + each + 1, mask=each < experts, other=0).to(tl.int32)
    tiles = (end - begin + BM - 1) // BM
    ends = tl.cumsum(tiles, 0)
    e = tl.minimum(tl.sum((ends <= m).to(tl.int32), 0), experts)
    mine = each == e
    start = tl.sum(tl.where(mine, begin + (m - ends + tiles) * BM, 0), 0)
    r = start + tl.arange(0, BM)
    return e, r, r < tl.sum(tl.where(mine, end, 0), 0), n * BN + tl.arange(0, BN), n


@triton.jit
def _span(offsets, columns, BN: tl.constexpr):
    """(expert, its first row, its last + 1, columns [BN]) of a program that works through all rows of one expert."""
    e, across = tl.program_id(0) // tl.cdiv(columns, BN), tl.cdiv(columns, BN)
    o = tl.program_id(0) % across * BN + tl.arange(0, BN)
    return e, tl.load(offsets + e).to(tl.int32), tl.load(offsets + e + 1).to(tl.int32), o


@triton.jit
def _read(t, row, live, c, width, strides):
    """[rows, columns] of a map, zero where there is none."""
    at = row.to(tl.int64)[:, None] * strides[0] + (c * strides[1])[None, :]
    return tl.load(t + at, mask=live[:, None] & (c < width)[None, :], other=0.0)


@triton.jit
def _write(t, value, row, live, c, width, first, wide):
    """Columns `first` and on of a map `wide` columns wide."""
    at = row.to(tl.int64)[:, None] * wide + (first + c)[None, :]
    tl.store(t + at, value.to(t.dtype.element_ty), mask=live[:, None] & (c < width)[None, :])


@triton.jit
def _products(x, row, live, w, o, outputs, depth, strides, filters, PAIR: tl.constexpr, SUM: tl.constexpr,
              PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Sums [BM, BN] over `depth` of rows of x times outputs o of w, and with PAIR times outputs o + outputs."""
    total, other = tl.zeros((BM, BN), SUM), tl.zeros((BM, BN), SUM)
    for s in range(0, depth, BK):
        c = s + tl.arange(0, BK)
        a = _read(x, row, live, c, depth, strides)
        at = (c * filters[2])[:, None] + (o * filters[1])[None, :]
        inside = (c < depth)[:, None] & (o < outputs)[None, :]
        total = _dot(a, tl.load(w + at, mask=inside, other=0.0), total, PRECISION)
        if PAIR:
            b = tl.load(w + outputs * filters[1] + at, mask=inside, other=0.0)
            other = _dot(a, b, other, PRECISION)
    return total, other


# Products of rows ----------------------------------------------------------------------------------------------------

@triton.jit
def product(x, w, bias, scale, y, pre, order, offsets, experts, k, depth, outputs, strides, filters,
            SCATTER: tl.constexpr, ACT: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr,
            BN: tl.constexpr, BK: tl.constexpr, BE: tl.constexpr):
    """act(w[e] x + bias[e]) of each row, times its slot's scale; what the activation got goes to `pre`, if given.

    filters: strides of w (expert, output, summed). Tokens are read and rows written; or with SCATTER, rows and slots.
    """
    e, r, live, o, _ = _tile(offsets, experts, outputs, BM, BN, BE)
    if e == experts:
        return
    slot = tl.load(order + r, mask=live, other=0)
    PAIR: tl.constexpr = ACT == "swiglu"
    row = r if SCATTER else slot // k
    total, up = _products(x, row, live, w + e.to(tl.int64) * filters[0], o, outputs, depth, strides, filters, PAIR, SUM,
                          PRECISION, BM, BN, BK)
    inner = outputs * 2 if PAIR else outputs
    if bias is not None:
        own = bias + e.to(tl.int64) * inner + o
        total += tl.load(own, mask=o < outputs, other=0.0).to(SUM)[None, :]
        if PAIR:
            up += tl.load(own + outputs, mask=o < outputs, other=0.0).to(SUM)[None, :]
    if pre is not None:
        _write(pre, total, r, live, o, outputs, 0, inner)
        if PAIR:
            _write(pre, up, r, live, o, outputs, outputs, inner)
    value = _activated(total, up, ACT)
    if scale is not None:
        value *= tl.load(scale + slot, mask=live, other=0.0).to(SUM)[:, None]
    _write(y, value, slot if SCATTER else r, live, o, outputs, 0, outputs)


@triton.jit(do_not_specialize=["count"])
def product_back(g, w, scale, pre, to_pre, h, parts, order, offsets, experts, k, count, depth, outputs, strides,
                 filters, befores, ACT: tl.constexpr, SUM: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr,
                 BN: tl.constexpr, BK: tl.constexpr, BE: tl.constexpr):
    """From the gradient `g` of tokens through w and the activation; `pre` has strides `befores`. Written if given:

    to_pre: the gradient of `pre`; h: the activation's value times the slot's scale; parts [tiles of columns, count]:
    of the scale's gradient, what these columns add. A depth of 0 leaves the product out: only h is right then.
    """
    e, r, live, o, n = _tile(offsets, experts, outputs, BM, BN, BE)
    if e == experts:
        return
    slot = tl.load(order + r, mask=live, other=0)
    total, up = _products(g, slot // k, live, w + e.to(tl.int64) * filters[0], o, outputs, depth, strides, filters,
                          False, SUM, PRECISION, BM, BN, BK)
    PAIR: tl.constexpr = ACT == "swiglu"
    before = _read(pre, r, live, o, outputs, befores).to(SUM)
    if PAIR:
        up = _read(pre + outputs * befores[1], r, live, o, outputs, befores).to(SUM)
    value = _activated(before, up, ACT)
    if parts is not None:
        each = tl.sum(tl.where((o < outputs)[None, :], value * total, 0.0), 1)
        tl.store(parts + n.to(tl.int64) * count + r, each, mask=live)
    if scale is not None:
        factor = tl.load(scale + slot, mask=live, other=0.0).to(SUM)[:, None]
        total, value = total * factor, value * factor
    if to_pre is not None:
        inner = outputs * 2 if PAIR else outputs
        _write(to_pre, _derived(total, before, up, ACT), r, live, o, outputs, 0, inner)
        if PAIR:
            _write(to_pre, total * before * _sigmoid(before), r, live, o, outputs, outputs, inner)
    if h is not None:
        _write(h, value, r, live, o, outputs, 0, outputs)


# Sums over rows and slots --------------------------------------------------------------------------------------------

@triton.jit
def outer(a, b, y, order, offsets, k, outputs, depth, strides, others, TOKENS: tl.constexpr, SUM: tl.constexpr,
          PRECISION: tl.constexpr, BO: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr):
    """The gradient [E, outputs, depth] of a weight: a^T b over each expert's rows. With TOKENS `a` is of tokens and `b`
    of rows; without, the other way round."""
    e, begin, end, o = _span(offsets, outputs, BO)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros((BO, BC), SUM)
    for s in range(begin, end, BR):
        r = s + tl.arange(0, BR)
        live = r < end
        token = tl.load(order + r, mask=live, other=0) // k
        left = _read(a, token if TOKENS else r, live, o, outputs, strides)
        right = _read(b, r if TOKENS else token, live, c, depth, others)
        total = _dot(tl.trans(left), right, total, PRECISION)
    y += e.to(tl.int64) * outputs * depth
    _write(y, total, o, o < outputs, c, depth, 0, depth)


@triton.jit
def bias_sums(g, scale, y, order, offsets, k, outputs, strides, TOKENS: tl.constexpr, SUM: tl.constexpr,
              BR: tl.constexpr, BN: tl.constexpr):
    """The gradient [E, outputs] of a bias: the sum of an expert's rows, or of its tokens, times their slots' scale."""
    e, begin, end, o = _span(offsets, outputs, BN)
    total = tl.zeros((BR, BN), SUM)
    for s in range(begin, end, BR):
        r = s + tl.arange(0, BR)
        slot = tl.load(order + r, mask=r < end, other=0)
        value = _read(g, slot // k if TOKENS else r, r < end, o, outputs, strides).to(SUM)
        if scale is not None:
            value *= tl.load(scale + slot, mask=r < end, other=0.0).to(SUM)[:, None]
        total += value
    tl.store(y + e.to(tl.int64) * outputs + o, tl.sum(total, 0).to(y.dtype.element_ty), mask=o < outputs)


@triton.jit(do_not_specialize=["count", "tiles"])
def scale_sums(g, bias, parts, y, order, offsets, experts, k, count, tiles, outputs, strides, SUM: tl.constexpr,
               BM: tl.constexpr, BN: tl.constexpr, BE: tl.constexpr):
    """The gradient of each slot's scale: its parts, and what its token's gradient and its expert's bias add."""
    e, r, live, _, _ = _tile(offsets, experts, 1, BM, 1, BE)
    if e == experts:
        return
    slot = tl.load(order + r, mask=live, other=0)
    total = tl.zeros((BM,), SUM)
    for n in range(tiles):
        total += tl.load(parts + r.to(tl.int64) + tl.cast(n, tl.int64) * count, mask=live, other=0.0)
    if bias is not None:
        for s in range(0, outputs, BN):
            c = s + tl.arange(0, BN)
            own = tl.load(bias + e.to(tl.int64) * outputs + c, mask=c < outputs, other=0.0).to(SUM)
            total += tl.sum(_read(g, slot // k, live, c, outputs, strides).to(SUM) * own[None, :], 1)
    tl.store(y + slot, total.to(y.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["tokens"])
def token_sums(slots, on, y, tokens, k, columns, SUM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """[tokens, columns]: the sum of each token's k slots, of those that are `on` where that is given."""
    across = tl.cdiv(columns, BN)
    t = tl.program_id(0) // across * BM + tl.arange(0, BM)
    c = tl.program_id(0) % across * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), SUM)
    for j in range(k):
        slot = t.to(tl.int64) * k + j
        live = t < tokens
        if on is not None:
            live = tl.load(on + slot, mask=live, other=0) != 0
        total += _read(slots, slot, live, c, columns, (columns, 1)).to(SUM)
    _write(y, total, t, t < tokens, c, columns, 0, columns)
