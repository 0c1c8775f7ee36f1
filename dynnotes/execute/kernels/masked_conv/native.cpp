// Masked convolution on the CPU: an implicit GEMM over the output pixels that are on, with a plain C interface.
//
// A tile of 6 pixels by TILE_V vectors of output channels stays in registers over all taps and input channels; each
// pixel is a pointer to its row of channels, padding points to a row of zeros, so nothing is gathered. Weights are
// packed so that the tile reads them in order; while it computes, it prefetches the rows of the tile one chunk ahead.
// The same source serves every instruction set: vectors are as wide as the flags it is compiled with allow (tile.h).

#include "tile.h"

constexpr int CHUNK = 96;              // pixels whose pointers are made at once
constexpr int SWEEP = 4 * CHUNK;       // active pixels, zeroed at once with what lies between

enum Off { ZERO, KEPT, RESIDUAL };     // pixels of a map that are off: zero, as they were, relu(residual)

extern "C" {

// Sizes in elements. x: [batch, height, width, channels] by strides, or packed rows of `channels` when `inverse` (the
// row of each input pixel, -1 where there is none) is given. y, residual: [batch, out_height, out_width, outputs],
// or packed rows in the order of `rows` when `packed`. rows: flat output pixels that are on, ascending.
struct Conv {
    const void *x, *weight, *bias, *residual;
    void* y;
    const int32_t *rows, *inverse;
    int64_t count, batch, height, width, channels, out_height, out_width, outputs;
    int64_t stride_n, stride_h, stride_w, stride_c;
    int64_t kernel_h, kernel_w, step_h, step_w, pad_h, pad_w, dilate_h, dilate_w, groups;
    int64_t relu, packed, off, threads;  // relu: 0 none, 1 relu, 6 relu6; off: see Off
};
}

// Where a pixel reads -------------------------------------------------------------------------------------------------

template <class T> struct Pointers {   // at[t * CHUNK + p]: the row of channels that tap t of pixel p reads
    std::vector<const T*> at;
    std::vector<T> gathered;           // rows whose channels do not stand side by side in x
    explicit Pointers(int64_t taps) : at(taps * CHUNK) {}
};

template <class T>
static void point(const Conv& a, int64_t from, int64_t count, const T* zeros, Pointers<T>& to, bool copies = true) {
    const T* x = static_cast<const T*>(a.x);
    const int64_t taps = a.kernel_h * a.kernel_w, area = a.out_height * a.out_width;
    const int64_t high = (a.kernel_h - 1) * a.dilate_h, broad = (a.kernel_w - 1) * a.dilate_w;
    const bool gather = copies && a.stride_c != 1 && a.channels > 1;
    if (gather) to.gathered.resize(taps * CHUNK * a.channels);
    int64_t begin = 0, end = 0, n = 0, i = 0;                        // the row of output pixels where the last one was
    for (int64_t p = 0; p < count; p++) {
        const int64_t k = a.rows[from + p];
        if (k >= end) n = k / area, i = (k - n * area) / a.out_width, begin = n * area + i * a.out_width, end = begin + a.out_width;
        const int64_t top = i * a.step_h - a.pad_h, left = (k - begin) * a.step_w - a.pad_w;
        const bool inside = top >= 0 && top + high < a.height && left >= 0 && left + broad < a.width;
        if (inside && a.inverse) {
            const int32_t* ranks = a.inverse + (n * a.height + top) * a.width + left;
            const T** at = to.at.data() + p;
            for (int64_t u = 0; u < a.kernel_h; u++, ranks += a.dilate_h * a.width)
                for (int64_t v = 0; v < a.kernel_w; v++, at += CHUNK) {
                    const int64_t rank = ranks[v * a.dilate_w];
                    *at = rank >= 0 ? x + rank * a.channels : zeros;
                }
            continue;
        }
        if (inside && !gather) {
            const T* q = x + n * a.stride_n + top * a.stride_h + left * a.stride_w;  // all of it inside: no checks
            const T** at = to.at.data() + p;
            for (int64_t u = 0; u < a.kernel_h; u++, q += a.dilate_h * a.stride_h)
                for (int64_t v = 0; v < a.kernel_w; v++, at += CHUNK) *at = q + v * a.dilate_w * a.stride_w;
            continue;
        }
        for (int64_t u = 0, t = 0; u < a.kernel_h; u++) {
            const int64_t h = top + u * a.dilate_h;
            for (int64_t v = 0; v < a.kernel_w; v++, t++) {
                const int64_t w = left + v * a.dilate_w;
                const T*& q = to.at[t * CHUNK + p];
                q = zeros;
                if (h < 0 || h >= a.height || w < 0 || w >= a.width) continue;
                if (a.inverse) {
                    const int32_t row = a.inverse[(n * a.height + h) * a.width + w];
                    if (row >= 0) q = x + row * a.channels;
                    continue;
                }
                q = x + n * a.stride_n + h * a.stride_h + w * a.stride_w;
                if (gather) {
                    T* copy = to.gathered.data() + (t * CHUNK + p) * a.channels;
                    for (int64_t c = 0; c < a.channels; c++) copy[c] = q[c * a.stride_c];
                    q = copy;
                }
            }
        }
    }
}

// Set the pixels from behind row `from - 1` up to row `to - 1`, those that are on, too: in one sweep, as lines that are
// written whole need not be read, and just before they are computed, while they stay near.
template <class T> static void clear(const Conv& a, int64_t from, int64_t to) {
    const int64_t first = from ? a.rows[from - 1] + 1 : 0;
    const int64_t last = to == a.count ? a.batch * a.out_height * a.out_width : a.rows[to - 1] + 1;
    const int64_t at = first * a.outputs, n = (last - first) * a.outputs;
    if (a.packed || a.off == KEPT || last - first == to - from) return;
    T* y = static_cast<T*>(a.y) + at;
    const T* residual = static_cast<const T*>(a.residual) + at;
    if (a.off == ZERO) std::memset(static_cast<void*>(y), 0, n * sizeof(T));
    else if (!a.relu) std::memcpy(static_cast<void*>(y), residual, n * sizeof(T));
    else for (int64_t i = 0; i < n; i++) y[i] = T(clipped_one<Sum<T>>(Sum<T>(residual[i]), a.relu));
}

// Forward -------------------------------------------------------------------------------------------------------------

template <class T> static int64_t convolve(const Conv& a, int64_t from, int64_t to, int64_t block_from, int64_t block_to,
                                          bool clears) {
    using S = Sum<T>;
    constexpr int L = LANES<S>, OB = TILE_V * L;
    const int64_t taps = a.kernel_h * a.kernel_w, channels = a.channels / a.groups, outputs = a.outputs / a.groups;
    const int64_t blocks = in_blocks(outputs, OB), group = taps * deep<T>(channels) * wide<T>(outputs);
    const Packed<T>* weight = static_cast<const Packed<T>*>(a.weight);
    const T *bias = static_cast<const T*>(a.bias), *residual = static_cast<const T*>(a.residual);
    T* y = static_cast<T*>(a.y);
    std::vector<T> zeros(a.channels);
    std::memset(static_cast<void*>(zeros.data()), 0, a.channels * sizeof(T));
    Pointers<T> here(taps), next(taps);
    alignas(64) S sums[TILE_P * OB], start[OB];
    int64_t issued = 0;
    if (from < to) point(a, from, std::min<int64_t>(CHUNK, to - from), zeros.data(), here);
    for (int64_t at = from; at < to; at += CHUNK) {
        const int64_t count = std::min<int64_t>(CHUNK, to - at), more = std::min<int64_t>(CHUNK, std::max<int64_t>(0, to - at - CHUNK));
        if (more) point(a, at + CHUNK, more, zeros.data(), next);
        if (clears && (at - from) % SWEEP == 0) clear<T>(a, at, std::min<int64_t>(to, at + SWEEP));
        for (int64_t gb = block_from; gb < block_to; gb++) {
            const int64_t g = gb / blocks, o = gb % blocks * OB, left = outputs - o;
            const int vectors = int(std::min<int64_t>(TILE_V, in_blocks(left, L)));
            const int64_t valid = std::min<int64_t>(left, vectors * L), channel = g * outputs + o;
            const Packed<T>* w = weight + g * group + o * taps * deep<T>(channels);
            for (int64_t l = 0; l < vectors * L; l++) start[l] = bias && l < valid ? S(bias[channel + l]) : S(0);
            for (int64_t p = 0; p < count; p += TILE_P) {
                const int pixels = int(std::min<int64_t>(TILE_P, count - p));
                const Ahead<T> ahead{gb == block_from && p + pixels <= more ? next.at.data() + p : nullptr};
                Target<T> target;
                target.relu = a.relu, target.direct = std::is_same<T, S>::value && valid == vectors * L;
                for (int j = 0; j < pixels; j++) {
                    const int64_t row = a.packed ? at + p + j : a.rows[at + p + j];
                    target.y[j] = y + row * a.outputs + channel;
                    target.residual[j] = residual ? residual + row * a.outputs + channel : nullptr;
                }
                tile_of<T>(pixels, vectors)(here.at.data() + p, CHUNK, taps, g * channels, channels, w, start, sums, &target,
                                            ahead);
                issued += pixels * taps * deep<T>(channels) * vectors * L;
                for (int j = 0; j < pixels && !target.direct; j++)
                    finish<T>(sums + j * vectors * L, valid, target.residual[j], target.y[j], a.relu);
            }
        }
        std::swap(here, next);
    }
    return issued;
}

// P pixels by V vectors of a depthwise layer, at channel c.
template <class T, int P, int V>
static inline void lanes(const Conv& a, const T* const* q, const int64_t* row, int64_t c) {
    using S = Sum<T>;
    constexpr int L = LANES<S>;
    const int64_t taps = a.kernel_h * a.kernel_w;
    const S* weight = static_cast<const S*>(a.weight) + c;           // [taps][channels]
    const T *bias = static_cast<const T*>(a.bias), *residual = static_cast<const T*>(a.residual);
    T* y = static_cast<T*>(a.y);
    Vector<S> sum[P][V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++)
#pragma GCC unroll 8
        for (int j = 0; j < P; j++) sum[j][v] = bias ? load(bias + c + v * L) : Vector<S>{};
    for (int64_t t = 0; t < taps; t++) {
        Vector<S> w[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) w[v] = load(weight + t * a.channels + v * L);
#pragma GCC unroll 8
        for (int j = 0; j < P; j++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) sum[j][v] += load(q[t * CHUNK + j] + c + v * L) * w[v];
    }
#pragma GCC unroll 8
    for (int j = 0; j < P; j++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) {
            if (residual) sum[j][v] += load(residual + row[j] + c + v * L);
            store(y + row[j] + c + v * L, clipped<S>(sum[j][v], a.relu));
        }
}

// One input channel for each output: nothing to contract, so vectors run along the channels.
template <class T> static int64_t convolve_depthwise(const Conv& a, int64_t from, int64_t to) {
    using S = Sum<T>;
    constexpr int L = LANES<S>, P = 4, V = 2;                        // pixels that share the loads of the weights
    constexpr int64_t NEAR = 512 / sizeof(S);                        // channels whose rows stay in the first cache
    const int64_t taps = a.kernel_h * a.kernel_w, channels = a.channels;
    const S* weight = static_cast<const S*>(a.weight);
    const T *bias = static_cast<const T*>(a.bias), *residual = static_cast<const T*>(a.residual);
    T* y = static_cast<T*>(a.y);
    std::vector<T> zeros(channels);
    std::memset(static_cast<void*>(zeros.data()), 0, channels * sizeof(T));
    Pointers<T> here(taps);
    int64_t row[CHUNK];
    for (int64_t at = from; at < to; at += CHUNK) {
        const int64_t count = std::min<int64_t>(CHUNK, to - at);
        point(a, at, count, zeros.data(), here);
        for (int64_t p = 0; p < count; p++) row[p] = (a.packed ? at + p : int64_t(a.rows[at + p])) * channels;
        for (int64_t begin = 0; begin < channels; begin += NEAR) {
            const int64_t end = std::min(channels, begin + NEAR);
            for (int64_t p = 0; p < count;) {
                const T* const* q = here.at.data() + p;
                const int pixels = count - p < P ? 1 : P;
                int64_t c = begin;
                if constexpr (std::is_same<T, S>::value) {
                    if (pixels == P) {
                        for (; c + V * L <= end; c += V * L) lanes<T, P, V>(a, q, row + p, c);
                        for (; c + L <= end; c += L) lanes<T, P, 1>(a, q, row + p, c);
                    } else {
                        for (; c + V * L <= end; c += V * L) lanes<T, 1, V>(a, q, row + p, c);
                        for (; c + L <= end; c += L) lanes<T, 1, 1>(a, q, row + p, c);
                    }
                }
                for (int j = 0; j < pixels; j++)
                    for (int64_t o = c; o < end; o++) {
                        S sum = bias ? S(bias[o]) : S(0);
                        for (int64_t t = 0; t < taps; t++) sum += S(q[t * CHUNK + j][o]) * weight[t * channels + o];
                        finish<T>(&sum, 1, residual ? residual + row[p + j] + o : nullptr, y + row[p + j] + o, a.relu);
                    }
                p += pixels;
            }
        }
    }
    return (to - from) * taps * channels;
}

inline bool depthwise(const Conv& a) { return a.groups > 1 && a.groups == a.channels && a.groups == a.outputs; }

template <class T> static inline int64_t blocks_of(const Conv& a) {
    return in_blocks(a.outputs / a.groups, TILE_V * LANES<Sum<T>>) * a.groups;
}

// The rows from `from` to `to`, and what is off to their left.
template <class T> static int64_t some(const Conv& a, int64_t from, int64_t to) {
    if (!depthwise(a)) return convolve<T>(a, from, to, 0, blocks_of<T>(a), true);
    if (from < to) clear<T>(a, from, to);
    return convolve_depthwise<T>(a, from, to);
}

// Runs the convolution; returns the multiply-accumulates issued, lanes that pad included. ran: threads that had work.
template <class T> static int64_t forward(const Conv& a, int64_t* ran) {
    const int64_t blocks = blocks_of<T>(a), tiles = in_blocks(a.count, TILE_P);
    const double work = double(a.count) * a.kernel_h * a.kernel_w * (a.channels / a.groups) * a.outputs;
    int64_t threads = std::max<int64_t>(1, std::min<int64_t>(a.threads, int64_t(work / 5e4)));  // below, waking costs more
    int64_t issued = 0, used = 0;
    auto add = [&](int64_t n) {
#pragma omp atomic
        issued += n;
#pragma omp atomic
        used += 1;
    };
    if (a.count == 0) {
        clear<T>(a, 0, 0);
    } else if (depthwise(a) || tiles >= 4 * threads || blocks < threads) {  // share out the pixels
        parallel(threads, tiles, [&](int64_t from, int64_t to) {
            add(some<T>(a, from * TILE_P, std::min(a.count, to * TILE_P)));
        });
    } else {                                                         // or, where they are few, the output channels
        clear<T>(a, 0, a.count);
        parallel(threads, blocks, [&](int64_t from, int64_t to) { add(convolve<T>(a, 0, a.count, from, to, false)); });
    }
    if (ran) *ran = used;
    return issued;
}

// Layers one behind the other, each reading the packed rows of the one before it (its `inverse` says where); the last
// writes a map. Samples go through all of them in groups that fit the cache, so that what is between stays there.
template <class T> static int64_t branch(const Conv* layers, int64_t depth) {
    constexpr int64_t NEAR = 1 << 19;                                // bytes
    const Conv& last = layers[depth - 1];
    if (last.count == 0) return forward<T>(last, nullptr);
    std::vector<std::vector<int64_t>> first(depth);                  // of each layer and sample: its first row
    for (int64_t l = 0; l < depth; l++) {
        const Conv& a = layers[l];
        for (int64_t n = 0; n <= a.batch; n++)
            first[l].push_back(std::lower_bound(a.rows, a.rows + a.count, n * a.out_height * a.out_width) - a.rows);
    }
    auto bytes = [&](int64_t from, int64_t to) {                     // the largest of what is between layers
        int64_t most = 0;
        for (int64_t l = 0; l + 1 < depth; l++)
            most = std::max(most, (first[l][to] - first[l][from]) * layers[l].outputs * int64_t(sizeof(T)));
        return most;
    };
    std::vector<int64_t> groups{0};
    for (int64_t n = 1; n <= last.batch; n++)
        if (n == last.batch || bytes(groups.back(), n + 1) > NEAR) groups.push_back(n);
    const int64_t threads = last.threads, tasks = int64_t(groups.size()) - 1;
    int64_t issued = 0;
    auto run = [&](int64_t from, int64_t to, bool alone) {           // samples, by this thread alone or by all
        std::unique_ptr<T[]> between[2];
        int64_t own = 0;
        for (int64_t l = 0; l < depth; l++) {
            Conv a = layers[l];
            const int64_t begin = first[l][from], end = first[l][to];
            if (l) a.x = between[(l - 1) % 2].get() - first[l - 1][from] * a.channels;
            if (l + 1 < depth) {
                between[l % 2].reset(new T[(end - begin) * a.outputs]);
                a.y = between[l % 2].get() - begin * a.outputs;
            }
            own += alone ? some<T>(a, begin, end) : forward<T>(a, nullptr);
        }
#pragma omp atomic
        issued += own;
    };
    if (threads > 1 && tasks < 2 * threads)
        run(0, last.batch, false);
    else
        parallel(threads, tasks, [&](int64_t from, int64_t to) {
            for (int64_t i = from; i < to; i++) run(groups[i], groups[i + 1], true);
        });
    return issued;
}

// Backward ------------------------------------------------------------------------------------------------------------

// a.y: packed rows of the output's gradient [count, outputs]; a.x: where the input's gradient is added, NHWC, zeroed.
// a.weight: packed by `pack_back`: [group][tap][block of channels][output][lanes].
template <class T> static int64_t gradient_of_input(const Conv& a) {
    constexpr int L = LANES<T>, CB = TILE_V * L;
    const int64_t taps = a.kernel_h * a.kernel_w, channels = a.channels / a.groups, outputs = a.outputs / a.groups;
    const int64_t blocks = in_blocks(channels, CB), width = wide<T>(channels), area = a.out_height * a.out_width;
    const T *weight = static_cast<const T*>(a.weight), *g = static_cast<const T*>(a.y);
    std::vector<int64_t> first(a.batch + 1);                         // rows of each sample
    for (int64_t n = 0; n <= a.batch; n++) first[n] = std::lower_bound(a.rows, a.rows + a.count, n * area) - a.rows;
    int64_t issued = 0;
    parallel(a.threads, a.batch * a.groups * blocks, [&](int64_t from, int64_t to) {  // no two write to one place
        alignas(64) T sums[TILE_P * CB], nothing[CB] = {};
        int64_t own = 0;
        Pointers<T> targets(taps);
        for (int64_t task = from; task < to; task++) {
            const int64_t n = task / (a.groups * blocks), group = task / blocks % a.groups, c = task % blocks * CB;
            const int vectors = int(std::min<int64_t>(TILE_V, in_blocks(channels - c, L)));
            const int64_t valid = std::min<int64_t>(channels - c, vectors * L);
            for (int64_t at = first[n]; at < first[n + 1]; at += CHUNK) {
                const int64_t count = std::min<int64_t>(CHUNK, first[n + 1] - at);
                point<T>(a, at, count, nullptr, targets, false);
                for (int64_t t = 0; t < taps; t++) {
                    const T* w = weight + ((group * taps + t) * width + c) * outputs;
                    for (int64_t p = 0; p < count; p += TILE_P) {
                        const int pixels = int(std::min<int64_t>(TILE_P, count - p));
                        const T* rows[TILE_P];
                        for (int j = 0; j < pixels; j++) rows[j] = g + (at + p + j) * a.outputs;
                        tile_of<T>(pixels, vectors)(rows, TILE_P, 1, group * outputs, outputs, w, nothing, sums, nullptr,
                                                {});
                        own += pixels * outputs * vectors * L;
                        for (int j = 0; j < pixels; j++)
                            if (T* to_row = const_cast<T*>(targets.at[t * CHUNK + p + j])) {
                                to_row += group * channels + c;
                                for (int64_t l = 0; l < valid; l++) to_row[l] += sums[j * vectors * L + l];
                            }
                    }
                }
            }
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
}

// a.y: packed rows of the output's gradient; a.weight: where the weights' gradient goes, [group][tap][channel][output].
template <class T> static int64_t gradient_of_weight(const Conv& a) {
    constexpr int L = LANES<T>, OB = TILE_V * L;
    const int64_t taps = a.kernel_h * a.kernel_w, channels = a.channels / a.groups, outputs = a.outputs / a.groups;
    const int64_t blocks = in_blocks(channels, TILE_P), o_blocks = in_blocks(outputs, OB);
    const T* g = static_cast<const T*>(a.y);
    T* to = static_cast<T*>(const_cast<void*>(a.weight));
    int64_t issued = 0;
    parallel(a.threads, a.groups * taps, [&](int64_t from, int64_t until) {
        std::vector<T> zeros(a.channels + TILE_P), x(CHUNK * TILE_P), few(CHUNK * OB);
        Pointers<T> here(taps);
        const T* q[CHUNK];
        int64_t own = 0;
        for (int64_t at = 0; at < a.count; at += CHUNK) {
            const int64_t count = std::min<int64_t>(CHUNK, a.count - at);
            point(a, at, count, zeros.data(), here);
            for (int64_t task = from; task < until; task++) {
                const int64_t group = task / taps, t = task % taps;
                for (int64_t ob = 0; ob < o_blocks; ob++) {
                    const int64_t o = ob * OB, valid = std::min<int64_t>(OB, outputs - o);
                    const T* rows = g + at * a.outputs + group * outputs + o;
                    int64_t ldg = a.outputs;
                    if (valid < OB) {                                // a whole block, zeros behind
                        for (int64_t i = 0; i < count; i++) {
                            std::fill(few.begin() + i * OB, few.begin() + (i + 1) * OB, T(0));
                            std::copy(rows + i * ldg, rows + i * ldg + valid, few.begin() + i * OB);
                        }
                        rows = few.data(), ldg = OB;
                    }
                    for (int64_t b = 0; b < blocks; b++) {
                        const int64_t c = b * TILE_P, some = std::min<int64_t>(TILE_P, channels - c);
                        for (int64_t i = 0; i < count; i++) q[i] = here.at[t * CHUNK + i] + group * channels + c;
                        if (some < TILE_P) {
                            for (int64_t i = 0; i < count; i++) {
                                for (int64_t l = 0; l < TILE_P; l++) x[i * TILE_P + l] = l < some ? q[i][l] : T(0);
                                q[i] = x.data() + i * TILE_P;
                            }
                        }
                        outer<T, TILE_P, TILE_V>(q, 0, rows, ldg, count,
                                                 to + ((group * taps + t) * channels + c) * outputs + o,
                                                 outputs, some, valid, true);
                        own += count * TILE_P * OB;
                    }
                }
            }
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
}

extern "C" {

// Flat places that are on, ascending; with `inverse`, also the rank of each place or -1. Returns how many.
int64_t dyn_rows(const uint8_t* mask, int64_t n, int32_t* rows, int32_t* inverse) {
    int32_t count = 0;                                               // no branches: rows has a place to spare
    if (inverse)
        for (int64_t i = 0; i < n; i++) {
            rows[count] = int32_t(i);
            inverse[i] = mask[i] ? count : -1;
            count += mask[i] != 0;
        }
    else
        for (int64_t i = 0; i < n; i++) {
            rows[count] = int32_t(i);
            count += mask[i] != 0;
        }
    return count;
}

// Zeroes what lies between `rows`, `count` of `pixels` rows of a map, each of so many bytes.
void dyn_clear(const int32_t* rows, int64_t count, int64_t pixels, int64_t bytes, char* map) {
    for (int64_t i = 0, next = 0; i <= count; i++) {
        const int64_t row = i < count ? rows[i] : pixels;
        if (row > next) std::memset(map + next * bytes, 0, (row - next) * bytes);
        next = row + 1;
    }
}

// Marks what the output pixels `on` [batch, out_height, out_width] read of the input, in `read` [batch, height, width]:
// on maps with the padding around them, every tap is a shift of the whole map, first along rows, then along columns.
void dyn_reads(const Conv* a, const uint8_t* on, uint8_t* read) {
    const int64_t wide = a->width + 2 * a->pad_w, size = (a->height + 2 * a->pad_h) * wide;
    std::vector<uint8_t> corners(size), rows(size), all(size);
    auto shifted = [size](const uint8_t* __restrict from, uint8_t* __restrict to, int64_t by) {
        for (int64_t k = 0; k < size - by; k++) to[k + by] |= from[k];
    };
    for (int64_t n = 0; n < a->batch; n++) {
        for (auto* map : {&corners, &rows, &all}) std::fill(map->begin(), map->end(), 0);
        for (int64_t i = 0; i < a->out_height; i++, on += a->out_width)
            for (int64_t j = 0; j < a->out_width; j++) corners[i * a->step_h * wide + j * a->step_w] = on[j];
        for (int64_t v = 0; v < a->kernel_w; v++) shifted(corners.data(), rows.data(), v * a->dilate_w);
        for (int64_t u = 0; u < a->kernel_h; u++) shifted(rows.data(), all.data(), u * a->dilate_h * wide);
        for (int64_t h = 0; h < a->height; h++, read += a->width)
            std::memcpy(read, all.data() + (h + a->pad_h) * wide + a->pad_w, a->width);
    }
}

}

// The convolution where `mask` is on, its rows found on the way; -1, and nothing done, where they are more than `limit`.
template <class T> static int64_t masked(const Conv& a, const uint8_t* mask, int64_t limit) {
    static thread_local std::vector<int32_t> rows;
    const int64_t pixels = a.batch * a.out_height * a.out_width;
    rows.resize(pixels + 1);
    Conv here = a;
    here.count = dyn_rows(mask, pixels, rows.data(), nullptr), here.rows = rows.data();
    return here.count > limit ? -1 : forward<T>(here, nullptr);
}

extern "C" {

// Bytes of packed weights.
#define SIZES(NAME, T)                                                                                              \
    int64_t dyn_packed_##NAME(int64_t outputs, int64_t channels, int64_t taps, int64_t groups) {                    \
        if (groups > 1 && groups == outputs && channels == 1) return taps * outputs * int64_t(sizeof(Sum<T>));      \
        return groups * taps * deep<T>(channels) * wide<T>(outputs / groups) * int64_t(sizeof(Packed<T>));          \
    }                                                                                                               \
    void dyn_pack_##NAME(const void* from, void* to, int64_t outputs, int64_t channels, int64_t taps,               \
                         int64_t groups) {                                                                          \
        pack<T>(static_cast<const T*>(from), static_cast<Packed<T>*>(to), outputs, channels, taps, groups);         \
    }                                                                                                               \
    int64_t dyn_conv_##NAME(const Conv* a, int64_t* ran) { return forward<T>(*a, ran); }                            \
    int64_t dyn_branch_##NAME(const Conv* layers, int64_t depth) { return branch<T>(layers, depth); }               \
    int64_t dyn_masked_##NAME(const Conv* a, const uint8_t* mask, int64_t limit) {                                  \
        return masked<T>(*a, mask, limit);                                                                          \
    }
SIZES(f32, float)
SIZES(f64, double)
SIZES(bf16, bf16)

#define BACK(NAME, T)                                                                                               \
    int64_t dyn_packed_back_##NAME(int64_t outputs, int64_t channels, int64_t taps, int64_t groups) {               \
        return groups * taps * (outputs / groups) * wide<T>(channels) * int64_t(sizeof(T));                         \
    }                                                                                                               \
    void dyn_pack_back_##NAME(const void* from, void* to, int64_t outputs, int64_t channels, int64_t taps,          \
                              int64_t groups) {                                                                     \
        pack_back<T>(static_cast<const T*>(from), static_cast<T*>(to), outputs, channels, taps, groups);            \
    }                                                                                                               \
    int64_t dyn_grad_input_##NAME(const Conv* a) { return gradient_of_input<T>(*a); }                               \
    int64_t dyn_grad_weight_##NAME(const Conv* a) { return gradient_of_weight<T>(*a); }
BACK(f32, float)
BACK(f64, double)
}
