"""The triton programs of `tiles`, in a module of their own because decorating them needs triton.

What all of them take. `place` = (height, width of the map that is read; height, width of the map of `rows`; kernel;
stride; padding; dilation): a pixel of `rows` and a tap give the pixel that is read, by the convolution, or with BACK by
its transpose. `inverse`, where given, turns that pixel into a row of packed values, or -1. Strides are in elements.
All sums are in SUM: float32, and float64 where the values are.
"""
import triton
import triton.language as tl


@triton.jit
def _pixels(rows, m, count, place):
    """(sample, y, x) of the m-th pixels of the list, or of all pixels where there is no list."""
    high, wide = place[2], place[3]
    if rows is None:
        p = m
    else:
        p = tl.load(rows + m, mask=m < count, other=0)
    return p // (high * wide), p // wide % high, p % wide


@triton.jit
def _read(n, i, j, tap, inverse, place, strides, BACK: tl.constexpr):
    """(offset, whether there is one) of what pixels (n, i, j) read through a tap."""
    high, wide, _, _, _, kernel_x, step_y, step_x, pad_y, pad_x, dilate_y, dilate_x = place
    u, v = tap // kernel_x * dilate_y, tap % kernel_x * dilate_x
    if BACK:                                                         # the outputs in which these inputs took part
        y, x = i + pad_y - u, j + pad_x - v
        there = (y >= 0) & (x >= 0) & (y % step_y == 0) & (x % step_x == 0)
        y, x = y // step_y, x // step_x
        there = there & (y < high) & (x < wide)
    else:
        y, x = i * step_y - pad_y + u, j * step_x - pad_x + v
        there = (y >= 0) & (x >= 0) & (y < high) & (x < wide)
    if inverse is None:
        at = n.to(tl.int64) * strides[0] + y.to(tl.int64) * strides[1] + x.to(tl.int64) * strides[2]
    else:
        rank = tl.load(inverse + (n * high + y) * wide + x, mask=there, other=-1)
        there = rank >= 0
        at = rank.to(tl.int64) * strides[0]
    return at, there


@triton.jit
def _finish(total, bias, residual, y, m, n, i, j, o, valid, place, across, beside, RELU: tl.constexpr,
            PACKED: tl.constexpr):
    """Bias, residual and relu on sums [BM, BN] of outputs o, written to rows m, or to the pixels of those."""
    if bias is not None:
        total += tl.load(bias + o, mask=o < across, other=0.0).to(total.dtype)[None, :]
    if residual is not None:
        if PACKED:
            at = m.to(tl.int64) * beside[0]
        else:
            at = n.to(tl.int64) * beside[0] + i.to(tl.int64) * beside[1] + j.to(tl.int64) * beside[2]
        at = at[:, None] + (o.to(tl.int64) * beside[3])[None, :]
        total += tl.load(residual + at, mask=valid, other=0.0).to(total.dtype)
    if RELU > 0:                                                     # comparisons, not maximum: NaN stays NaN
        total = tl.where(total < 0, 0.0, total)
    if RELU == 6:
        total = tl.where(total > 6, 6.0, total)
    if PACKED:
        row = m
    else:
        row = (n * place[2] + i) * place[3] + j
    tl.store(y + row.to(tl.int64)[:, None] * across + o[None, :], total.to(y.dtype.element_ty), mask=valid)


@triton.jit(do_not_specialize=["count"])
def product(x, w, bias, residual, y, rows, inverse, count, channels, outputs, across, place, strides, filters, beside,
            BACK: tl.constexpr, RELU: tl.constexpr, PACKED: tl.constexpr, FLAT: tl.constexpr, SUM: tl.constexpr,
            PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """BM pixels x BN outputs of one group: gathered rows times weights, tap after tap, BK channels at a time.

    filters: strides of the weight (kernel y, kernel x, summed channel, output, group). across: width of a row of y.
    FLAT: taps and channels are one axis, so that few channels do not each pad to BK. BACK: y is the gradient of the
    input, x that of the outputs; programs of which no pixel took part in any output only write zeros.
    """
    tiles = tl.cdiv(outputs, BN)
    m = tl.program_id(0) // tiles * BM + tl.arange(0, BM)
    o = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    group = tl.program_id(1)
    live = m < count
    n, i, j = _pixels(rows, m, count, place)
    kernel_x, taps = place[5], place[4] * place[5]
    x += group.to(tl.int64) * channels * strides[3]
    w += group * filters[4]
    blocks = tl.cdiv(channels, BK)
    steps = taps * blocks
    if FLAT:
        steps = tl.cdiv(taps * channels, BK)
    if BACK:
        any_tap = tl.zeros((BM,), tl.int32)
        for tap in range(taps):
            _, there = _read(n, i, j, tap, inverse, place, strides, BACK)
            any_tap = tl.where(there & live, 1, any_tap)
        steps = steps * tl.max(any_tap, 0)
    total = tl.zeros((BM, BN), SUM)
    for s in range(steps):                                           # one loop, so that loads run ahead across taps
        if FLAT:
            k = s * BK + tl.arange(0, BK)
            tap, c = k // channels, k % channels
            inside = tap < taps
            at, there = _read(n[:, None], i[:, None], j[:, None], tap[None, :], inverse, place, strides, BACK)
            at = at + (c.to(tl.int64) * strides[3])[None, :]
            there = there & live[:, None] & inside[None, :]
        else:
            tap, c = s // blocks, s % blocks * BK + tl.arange(0, BK)
            inside = c < channels
            at, there = _read(n, i, j, tap, inverse, place, strides, BACK)
            at = at[:, None] + (c.to(tl.int64) * strides[3])[None, :]
            there = (there & live)[:, None] & inside[None, :]
        a = tl.load(x + at, mask=there, other=0.0)
        at = tap // kernel_x * filters[0] + tap % kernel_x * filters[1] + c * filters[2]
        at = at[:, None] + (o * filters[3])[None, :]
        b = tl.load(w + at, mask=inside[:, None] & (o < outputs)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=SUM)
    valid = live[:, None] & (o < outputs)[None, :]
    _finish(total, bias, residual, y, m, n, i, j, group * outputs + o, valid, place, across, beside, RELU, PACKED)


@triton.jit(do_not_specialize=["count"])
def lanes(x, w, bias, residual, y, rows, inverse, count, each, across, place, strides, filters, beside,
          BACK: tl.constexpr, RELU: tl.constexpr, PACKED: tl.constexpr, SUM: tl.constexpr, BM: tl.constexpr,
          BN: tl.constexpr):
    """As `product` where a group has one input channel and `each` outputs: nothing to multiply by tl.dot."""
    tiles = tl.cdiv(across, BN)
    m = tl.program_id(0) // tiles * BM + tl.arange(0, BM)
    o = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    valid = (m < count)[:, None] & (o < across)[None, :]
    n, i, j = _pixels(rows, m, count, place)
    kernel_x = place[5]
    total = tl.zeros((BM, BN), SUM)
    for tap in range(place[4] * kernel_x):
        at, there = _read(n, i, j, tap, inverse, place, strides, BACK)
        own = w + tap // kernel_x * filters[0] + tap % kernel_x * filters[1]
        valid_there = valid & there[:, None]
        if BACK:
            for e in range(each):
                c = o * each + e
                a = tl.load(x + at[:, None] + (c.to(tl.int64) * strides[3])[None, :], mask=valid_there, other=0.0)
                b = tl.load(own + c * filters[3], mask=o < across, other=0.0)
                total += a.to(SUM) * b.to(SUM)[None, :]
        else:
            c = o // each
            a = tl.load(x + at[:, None] + (c.to(tl.int64) * strides[3])[None, :], mask=valid_there, other=0.0)
            b = tl.load(own + o * filters[3], mask=o < across, other=0.0)
            total += a.to(SUM) * b.to(SUM)[None, :]
    _finish(total, bias, residual, y, m, n, i, j, o, valid, place, across, beside, RELU, PACKED)


@triton.jit(do_not_specialize=["count", "chunk"])
def product_weight(x, g, parts, rows, count, channels, outputs, across, chunk, place, strides, SUM: tl.constexpr,
                   PRECISION: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr, BR: tl.constexpr):
    """One tap, BC channels x BO outputs of one group, summed over `chunk` rows: a part [taps, C / groups, O] of the
    weight's gradient. g [count, O] lies dense; across is O."""
    tiles = tl.cdiv(outputs, BO)
    taps, blocks = place[4] * place[5], tl.cdiv(channels, BC)
    tap = tl.program_id(0) // (tiles * blocks)
    c = tl.program_id(0) // tiles % blocks * BC + tl.arange(0, BC)
    o = tl.program_id(0) % tiles * BO + tl.arange(0, BO)
    group, part = tl.program_id(1), tl.program_id(2)
    total = tl.zeros((BC, BO), SUM)
    for start in range(part * chunk, tl.minimum(part * chunk + chunk, count), BR):
        m = start + tl.arange(0, BR)
        n, i, j = _pixels(rows, m, count, place)
        at, there = _read(n, i, j, tap, None, place, strides, False)
        a = tl.load(x + at[:, None] + ((group * channels + c).to(tl.int64) * strides[3])[None, :],
                    mask=(there & (m < count))[:, None] & (c < channels)[None, :], other=0.0)
        b = tl.load(g + m.to(tl.int64)[:, None] * across + (group * outputs + o)[None, :],
                    mask=(m < count)[:, None] & (o < outputs)[None, :], other=0.0)
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION, out_dtype=SUM)
    row = (part.to(tl.int64) * taps + tap) * channels + c
    tl.store(parts + row[:, None] * across + (group * outputs + o)[None, :], total,
             mask=(c < channels)[:, None] & (o < outputs)[None, :])


@triton.jit(do_not_specialize=["count", "chunk"])
def lanes_weight(x, g, parts, rows, count, each, across, chunk, place, strides, SUM: tl.constexpr, BM: tl.constexpr,
                 BN: tl.constexpr):
    """As `product_weight` where a group has one input channel and `each` outputs: a part [taps, O]."""
    tiles = tl.cdiv(across, BN)
    tap, part = tl.program_id(0) // tiles, tl.program_id(1)
    o = tl.program_id(0) % tiles * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), SUM)
    for start in range(part * chunk, tl.minimum(part * chunk + chunk, count), BM):
        m = start + tl.arange(0, BM)
        n, i, j = _pixels(rows, m, count, place)
        at, there = _read(n, i, j, tap, None, place, strides, False)
        valid = (m < count)[:, None] & (o < across)[None, :]
        at = at[:, None] + ((o // each).to(tl.int64) * strides[3])[None, :]
        a = tl.load(x + at, mask=valid & there[:, None], other=0.0)
        b = tl.load(g + m.to(tl.int64)[:, None] * across + o[None, :], mask=valid, other=0.0)
        total += a.to(SUM) * b.to(SUM)
    row = part.to(tl.int64) * place[4] * place[5] + tap
    tl.store(parts + row * across + o, tl.sum(total, 0), mask=o < across)


INTERPRETED = not isinstance(product, triton.JITFunction)            # TRITON_INTERPRET=1 was set before
