// Feed-forward experts on the CPU, with a plain C interface: rows sorted by expert, multiplied where they stand by the
// register tile (tile.h), activated while they are near, multiplied again, summed token by token; nothing is gathered.

#include <cmath>

#include "tile.h"

constexpr int CHUNK = 192;             // rows that one block of weights serves while it is near
constexpr int64_t DEPTH = 512;         // channels of it that are near at a time
constexpr int64_t PIECE = 512;         // rows between whose two products everything stays in the cache
constexpr int64_t FEW = 8;             // rows for which plain weights are not turned into packed ones
constexpr size_t KEPT = 16 << 20;      // bytes of work space that a thread keeps for its next call

extern "C" {

// y [tokens, outputs] of tokens x [tokens, channels] with k slots each. order: slots t * k + j by expert, expert e has
// order[offsets[e]] to order[offsets[e + 1]]. w1 [experts, inner, channels], w2 [experts, outputs, hidden]: packed, or
// as they are (plain); inner is hidden, or twice that for SWIGLU: packed as twice as many experts, gate and value in
// turn. b1, b2, weight [tokens, k] and pre [rows, inner], what the activation gets: or null.
struct Experts {
    const void *x, *w1, *b1, *w2, *b2, *weight;
    void *y, *pre;
    const int32_t* order;
    const int64_t* offsets;
    int64_t tokens, k, experts, channels, inner, hidden, outputs, stride_x, activation, plain, threads;
};

// Row r of an expert e, offsets[e] <= r < offsets[e + 1], reads row source[r] of x (r itself where source is null) and
// writes row target[r] of y. weight: [expert] as it is. Strides in elements.
struct Products {
    const void *x, *weight;
    void* y;
    const int32_t *source, *target;
    const int64_t* offsets;
    int64_t experts, channels, outputs, stride_x, stride_y, threads;
};
}

template <class T> static int64_t packed_size(int64_t outputs, int64_t channels) {
    return deep<T>(channels) * wide<T>(outputs);
}

// Activations ---------------------------------------------------------------------------------------------------------

enum { NONE, RELU, GELU, GELU_TANH, SILU, SWIGLU };  // as native.py numbers them

// e^x to two units in the last place, infinity past the largest, NaN of NaN (Cephes' polynomial of degree 6).
static inline Vector<float> exponential(Vector<float> x) {
    typedef int32_t Bits __attribute__((vector_size(BYTES)));
    constexpr float MAGIC = 12582912.f;                              // adding it rounds to a whole number
    const Vector<float> all = x;
    x = x < -87.3f ? Vector<float>{} - 87.3f : x;
    const Vector<float> shifted = x * 1.44269504f + MAGIC, n = shifted - MAGIC;
    const Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vector<float> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    const Bits power = ((Bits)shifted - (Bits)(Vector<float>{} + MAGIC)) << 23;
    const Vector<float> found = (Vector<float>)((Bits)p + power);
    return all > 88.f ? Vector<float>{} + INFINITY : all == all ? found : all;
}
static inline Vector<double> exponential(Vector<double> x) {
    for (int l = 0; l < LANES<double>; l++) x[l] = std::exp(x[l]);
    return x;
}

template <class S> static inline Vector<S> silu(Vector<S> x) { return x / (S(1) + exponential(-x)); }

// Half of erfc(-x / sqrt 2): in float by a fraction of relative error 1.2e-7 (Press et al. 1992, sec. 6.2).
static inline Vector<float> gelu_share(Vector<float> x) {
    const Vector<float> z = (x < 0.f ? -x : x) * 0.70710678f, t = 1.f / (1.f + 0.5f * z);
    Vector<float> p = t * 0.17087277f - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    const Vector<float> tail = 0.5f * t * exponential(p - z * z);
    return x < 0.f ? tail : 1.f - tail;
}
static inline Vector<double> gelu_share(Vector<double> x) {
    for (int l = 0; l < LANES<double>; l++) x[l] = 0.5 * std::erfc(-x[l] * M_SQRT1_2);
    return x;
}
template <class S> static inline Vector<S> gelu(Vector<S> x) { return x * gelu_share(x); }
template <class S> static inline Vector<S> gelu_tanh(Vector<S> x) {  // (1 + tanh u) / 2 = 1 / (1 + e^(-2 u))
    return x / (S(1) + exponential(S(-1.5957691216057308) * x * (S(1) + S(0.044715) * x * x)));
}

static inline void store(bf16* at, Vector<float> v) {  // to nearest, ties to even; NaN stays NaN
    typedef uint32_t Wide __attribute__((vector_size(BYTES)));
    typedef uint16_t Half __attribute__((vector_size(BYTES / 2)));
    const Wide bits = (Wide)v, near = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Half half = __builtin_convertvector(v == v ? near : Wide{} + 0x7fc0, Half);
    std::memcpy(at, &half, sizeof half);
}

// to[r][l] = the activation of from[r * lanes + l], times other's for SWIGLU: `rows` rows, `valid` of the lanes.
template <class T, class S, class F>
static inline void map_rows(const S* from, int64_t rows, int64_t lanes, int64_t valid, T* to, int64_t ldt, F&& f) {
    constexpr int L = LANES<S>;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t l = 0; l < valid; l += L) {
            const Vector<S> v = f(load(from + r * lanes + l), r * lanes + l);
            T* at = to + r * ldt + l;
            if (l + L <= valid) {
                store(at, v);
                continue;
            }
            for (int64_t i = 0; i < valid - l; i++) at[i] = T(v[i]);
        }
}

template <class T, class S>
static void activate(int64_t activation, const S* from, const S* other, int64_t rows, int64_t lanes, int64_t valid,
                     T* to, int64_t ldt) {
    using V = Vector<S>;
    switch (activation) {
        case NONE: return map_rows(from, rows, lanes, valid, to, ldt, [](V v, int64_t) { return v; });
        case RELU: return map_rows(from, rows, lanes, valid, to, ldt, [](V v, int64_t) { return clipped<S>(v, 1); });
        case GELU: return map_rows(from, rows, lanes, valid, to, ldt, [](V v, int64_t) { return gelu<S>(v); });
        case GELU_TANH:
            return map_rows(from, rows, lanes, valid, to, ldt, [](V v, int64_t) { return gelu_tanh<S>(v); });
        case SILU: return map_rows(from, rows, lanes, valid, to, ldt, [](V v, int64_t) { return silu<S>(v); });
        default:
            return map_rows(from, rows, lanes, valid, to, ldt,
                            [other](V v, int64_t i) { return silu<S>(v) * load(other + i); });
    }
}

// Rows times weights --------------------------------------------------------------------------------------------------

// One matrix of all experts: blocks of outputs as the tile reads them, packed before or, if plain, when asked for.
template <class T> struct Matrix {
    using S = Sum<T>;
    static constexpr int L = LANES<S>, OB = TILE_V * L;
    const void* all;
    const T* bias;                     // or null
    int64_t outputs, channels, plain;

    // Lanes that a block of so many outputs takes.
    static int lanes(int64_t valid) { return int(in_blocks(valid, L)) * L; }

    const Packed<T>* block(int64_t expert, int64_t o, int64_t valid, std::vector<Packed<T>>& space) const {
        if (!plain)
            return static_cast<const Packed<T>*>(all) + expert * packed_size<T>(outputs, channels) +
                   o * deep<T>(channels);
        space.resize(OB * deep<T>(channels));
        pack<T>(static_cast<const T*>(all) + (expert * outputs + o) * channels, space.data(), valid, channels, 1, 1);
        return space.data();
    }

    // Outputs o to o + valid of `count` rows: sums [count][lanes], while `later`, as much as a block, is fetched.
    // Returns the multiply-accumulates issued.
    int64_t multiply(const Packed<T>* w, int64_t expert, int64_t o, int64_t valid, const T* const* rows, int64_t count,
                     S* sums, const Packed<T>* later) const {
        constexpr int64_t LINE = 64 / sizeof(T), SLOTS = 64 / sizeof(Packed<T>);     // values of a cache line
        alignas(64) S start[OB];
        const int n = lanes(valid);
        for (int64_t l = 0; l < n; l++) start[l] = bias && l < valid ? S(bias[expert * outputs + o + l]) : S(0);
        int64_t left = later ? deep<T>(channels) * n / SLOTS : 0;    // lines to fetch, some with each line of channels
        const int64_t some = in_blocks(left, in_blocks(count, TILE_P) * in_blocks(channels, LINE));
        for (int64_t from = 0; from < channels; from += DEPTH)
            for (int64_t p = 0; p < count; p += TILE_P) {
                const int64_t here = std::min(DEPTH, channels - from), now = some * in_blocks(here, LINE);
                const Ahead<T> ahead{nullptr, later, left > 0 ? some : 0};
                tile_of<T>(int(std::min<int64_t>(TILE_P, count - p)), n / L)(
                    rows + p, TILE_P, 1, from, here, w + from * n, from ? nullptr : start, sums + p * n, nullptr, ahead);
                left -= now, later += later ? now * SLOTS : 0;
            }
        return count * deep<T>(channels) * n;
    }

    // Whether so many rows meet the weights as they are.
    bool direct(int64_t count) const {
#ifdef TURNS
        return plain && count <= FEW && std::is_same_v<T, S>;
#else
        return false;
#endif
    }

    // As multiply, for few rows, straight from plain weights: turning these would take longer than using them.
    int64_t dots(int64_t expert, int64_t o, int64_t valid, const T* const* rows, int64_t count, S* sums) const {
#ifdef TURNS
        if constexpr (std::is_same_v<T, S>)
            for (int64_t l = 0; l < valid; l += L) {
                Vector<S> part[FEW][L];                              // of each row and output: to be summed over lanes
                for (int64_t i = 0; i < L; i++) {
                    const T* w = static_cast<const T*>(all) +
                        (expert * outputs + o + std::min(l + i, valid - 1)) * channels;
                    for (int64_t r = 0; r < count; r++) {
                        Vector<S> sum{};
                        int64_t c = 0;
                        for (; c + L <= channels; c += L) sum += load(w + c) * load(rows[r] + c);
                        for (; c < channels; c++) sum[c % L] += w[c] * rows[r][c];
                        part[r][i] = sum;
                    }
                }
                alignas(64) S start[L];
                for (int64_t i = 0; i < L; i++) start[i] = bias && l + i < valid ? S(bias[expert * outputs + o + l + i]) : S(0);
                for (int64_t r = 0; r < count; r++) {
                    turned<S>(part[r]);
                    Vector<S> sum = load(start);
                    for (int64_t i = 0; i < L; i++) sum += part[r][i];
                    store(sums + r * lanes(valid) + l, sum);
                }
            }
#endif
        return count * channels * lanes(valid);
    }
};

// y [tokens, width] = the sum over a token's `k` slots of z [tokens * k, width], each times its weight (null: 1), where
// it has a row (`on`; null: everywhere), in the order of the slots.
template <class T, class Z>
static void summed(const Z* z, const T* weight, const uint8_t* on, T* y, int64_t tokens, int64_t k, int64_t width,
                   int64_t threads) {
    using S = Sum<T>;
    constexpr int64_t SOME = 256;
    parallel(threads, tokens, [&](int64_t from, int64_t to) {
        alignas(64) S sum[SOME];
        for (int64_t t = from; t < to; t++)
            for (int64_t c = 0; c < width; c += SOME) {
                const int64_t n = std::min(SOME, width - c);
                std::fill_n(sum, n, S(0));
                for (int64_t j = t * k; j < (t + 1) * k; j++) {
                    if (on && !on[j]) continue;
                    const S w = weight ? S(weight[j]) : S(1);
                    const Z* row = z + j * width + c;
                    for (int64_t i = 0; i < n; i++) sum[i] += w * S(row[i]);
                }
                for (int64_t i = 0; i < n; i++) y[t * width + c + i] = T(sum[i]);
            }
    });
}

// Work space of a thread, kept for its next call unless it is large. USE: what for, as several live at once.
template <class T, int USE> struct Space {
    T* data;
    explicit Space(size_t size) {
        if (held().size() < size) held().resize(size);
        data = held().data();
    }
    ~Space() {
        if (held().size() * sizeof(T) > KEPT) std::vector<T>().swap(held());
    }
    static std::vector<T>& held() {
        static thread_local std::vector<T> one;
        return one;
    }
};

struct Rows { int64_t expert, from, to; };

template <class T> struct Layer {
    using S = Sum<T>;
    static constexpr int OB = Matrix<T>::OB;
    struct Scratch {                   // of one thread
        alignas(64) S sums[2][CHUNK * OB];
        std::vector<Packed<T>> space[2];
    };
    const Experts& a;
    const Matrix<T> first, second;     // first has 1 or, for SWIGLU, 2 halves of each expert
    const int halves;

    explicit Layer(const Experts& a)
        : a(a), first{a.w1, static_cast<const T*>(a.b1), a.hidden, a.channels, a.plain},
          second{a.w2, static_cast<const T*>(a.b2), a.outputs, a.hidden, a.plain},
          halves(a.activation == SWIGLU ? 2 : 1) {}

    // Hidden values o to o + OB of an expert's rows, written to h [rows, hidden].
    int64_t hide(const Rows& t, int64_t o, T* h, Scratch& s) const {
        const int64_t valid = std::min<int64_t>(OB, a.hidden - o), lanes = Matrix<T>::lanes(valid);
        const bool direct = first.direct(t.to - t.from);
        const Packed<T>* w[2];
        for (int part = 0; part < halves && !direct; part++)
            w[part] = first.block(t.expert * halves + part, o, valid, s.space[part]);
        const Packed<T>* then = a.plain ? nullptr : o + OB < a.hidden
            ? first.block(t.expert * halves, o + OB, OB, s.space[0]) : second.block(t.expert, 0, OB, s.space[0]);
        T* pre = static_cast<T*>(a.pre);
        const T *x = static_cast<const T*>(a.x), *rows[CHUNK + TILE_P];
        int64_t issued = 0;
        for (int64_t at = t.from; at < t.to; at += CHUNK) {
            const int64_t count = std::min<int64_t>(CHUNK, t.to - at);
            for (int64_t r = 0; r < count; r++) rows[r] = x + a.order[at + r] / a.k * a.stride_x;
            for (int part = 0; part < halves; part++)
                issued += direct
                    ? first.dots(t.expert * halves + part, o, valid, rows, count, s.sums[part])
                    : first.multiply(w[part], t.expert * halves + part, o, valid, rows, count, s.sums[part],
                                     at + count < t.to ? nullptr : part + 1 < halves ? w[part + 1] : then);
            activate<T, S>(a.activation, s.sums[0], s.sums[1], count, lanes, valid, h + (at - t.from) * a.hidden + o,
                           a.hidden);
            for (int part = 0; pre && part < halves; part++)
                activate<T, S>(NONE, s.sums[part], nullptr, count, lanes, valid,
                               pre + at * a.inner + part * a.hidden + o, a.inner);
        }
        return issued;
    }

    // Outputs o to o + OB of those rows, written to their slots. next: the expert that comes after.
    int64_t answer(const Rows& t, int64_t o, const T* h, S* slots, Scratch& s, int64_t next) const {
        const int64_t valid = std::min<int64_t>(OB, a.outputs - o), lanes = Matrix<T>::lanes(valid);
        const bool direct = second.direct(t.to - t.from);
        const Packed<T>* w = direct ? nullptr : second.block(t.expert, o, valid, s.space[0]);
        const Packed<T>* then = a.plain ? nullptr : o + OB < a.outputs
            ? second.block(t.expert, o + OB, OB, s.space[0]) : first.block(next * halves, 0, OB, s.space[0]);
        const T* rows[CHUNK + TILE_P];
        int64_t issued = 0;
        for (int64_t at = t.from; at < t.to; at += CHUNK) {
            const int64_t count = std::min<int64_t>(CHUNK, t.to - at);
            for (int64_t r = 0; r < count; r++) rows[r] = h + (at - t.from + r) * a.hidden;
            issued += direct ? second.dots(t.expert, o, valid, rows, count, s.sums[0])
                             : second.multiply(w, t.expert, o, valid, rows, count, s.sums[0],
                                               at + count < t.to ? nullptr : then);
            for (int64_t r = 0; r < count; r++)
                std::copy_n(s.sums[0] + r * lanes, valid, slots + a.order[at + r] * a.outputs + o);
        }
        return issued;
    }

    // All rows of every expert in parts of at most `most`, of even size, in whole tiles.
    std::vector<Rows> parts(int64_t most) const {
        std::vector<Rows> found;
        for (int64_t e = 0; e < a.experts; e++) {
            const int64_t begin = a.offsets[e], end = a.offsets[e + 1], n = in_blocks(end - begin, most);
            for (int64_t i = 0, from = begin; i < n; i++) {
                const int64_t to = i + 1 < n ? begin + in_blocks((end - begin) * (i + 1) / n, TILE_P) * TILE_P : end;
                found.push_back({e, from, std::min(to, end)});
                from = std::min(to, end);
            }
        }
        return found;
    }

    // Both products of some rows one after the other, each thread its own rows.
    int64_t by_rows(const std::vector<Rows>& tasks, S* slots) const {
        int64_t issued = 0;
        parallel(a.threads, int64_t(tasks.size()), [&](int64_t i, int64_t end) {
            Space<T, 0> h(CHUNK * a.hidden);
            auto scratch = std::make_unique<Scratch>();
            int64_t own = 0;
            for (; i < end; i++) {
                for (int64_t o = 0; o < a.hidden; o += OB) own += hide(tasks[i], o, h.data, *scratch);
                for (int64_t o = 0; o < a.outputs; o += OB)
                    own += answer(tasks[i], o, h.data, slots, *scratch, tasks[i + 1 < end ? i + 1 : i].expert);
            }
#pragma omp atomic
            issued += own;
        });
        return issued;
    }

    // The first product of up to PIECE rows, then the second, each shared out by its outputs: few rows keep many
    // threads busy, and plain weights are packed once for all of an expert's rows.
    int64_t by_outputs(const std::vector<Rows>& tasks, S* slots) const {
        int64_t issued = 0;
        for (size_t begin = 0, end; begin < tasks.size(); begin = end) {
            for (end = begin + 1; end < tasks.size() && tasks[end].to - tasks[begin].from <= PIECE;) end++;
            const int64_t base = tasks[begin].from;
            Space<T, 0> h((tasks[end - 1].to - base) * a.hidden);
            for (bool then : {false, true}) {
                const int64_t blocks = in_blocks(then ? a.outputs : a.hidden, OB);
                parallel(a.threads, int64_t(end - begin) * blocks, [&](int64_t i, int64_t last) {
                    auto scratch = std::make_unique<Scratch>();
                    int64_t own = 0;
                    for (; i < last; i++) {
                        const Rows& t = tasks[begin + i / blocks];
                        T* own_h = h.data + (t.from - base) * a.hidden;
                        own += then ? answer(t, i % blocks * OB, own_h, slots, *scratch, t.expert)
                                    : hide(t, i % blocks * OB, own_h, *scratch);
                    }
#pragma omp atomic
                    issued += own;
                });
            }
        }
        return issued;
    }

    int64_t run() const {
        const int64_t count = a.offsets[a.experts], all = a.tokens * a.k;
        const double work = double(count) * (double(a.inner) * a.channels + double(a.hidden) * a.outputs);
        const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(a.threads, int64_t(work / 1e5)));
        Space<S, 1> slots(all * a.outputs);
        std::vector<uint8_t> on(count < all ? all : 0);
        for (int64_t r = 0; r < count && count < all; r++) on[a.order[r]] = 1;
        Experts few = a;
        few.threads = threads;
        const Layer<T> layer(few);
        const auto tasks = layer.parts(CHUNK);
        const bool by_rows = !a.plain && (threads == 1 || int64_t(tasks.size()) >= 4 * threads);
        const int64_t issued = by_rows ? layer.by_rows(tasks, slots.data)
                                       : layer.by_outputs(layer.parts(PIECE), slots.data);
        summed<T, S>(slots.data, static_cast<const T*>(a.weight), on.empty() ? nullptr : on.data(),
                     static_cast<T*>(a.y), a.tokens, a.k, a.outputs, threads);
        return issued;
    }
};

// The other direction, for gradients: rows [outputs] times weights as they are, [experts, outputs, channels], give rows
// [channels]. a.channels: of the weights, so of y. A block of columns, DEPTH deep, is copied, then meets all of its rows.
template <class T> static int64_t products_back(const Products& a) {
    constexpr int L = LANES<T>, CB = TILE_V * L;
    const int64_t blocks = in_blocks(a.channels, CB);
    const T *x = static_cast<const T*>(a.x), *weight = static_cast<const T*>(a.weight);
    T* y = static_cast<T*>(a.y);
    int64_t issued = 0;
    parallel(a.threads, a.experts * blocks, [&](int64_t task, int64_t last) {
        std::vector<T> columns(DEPTH * CB), sums;
        std::vector<const T*> rows;
        const T nothing[CB] = {};
        int64_t own = 0;
        for (; task < last; task++) {
            const int64_t e = task / blocks, c = task % blocks * CB;
            const int64_t begin = a.offsets[e], count = a.offsets[e + 1] - begin;
            if (!count) continue;
            const int64_t valid = std::min<int64_t>(a.channels - c, CB), lanes = in_blocks(valid, L) * L;
            rows.resize(count), sums.resize(count * lanes);
            for (int64_t r = 0; r < count; r++)
                rows[r] = x + (a.source ? a.source[begin + r] : begin + r) * a.stride_x;
            for (int64_t from = 0; from < a.outputs; from += DEPTH) {
                const int64_t here = std::min(DEPTH, a.outputs - from);
                for (int64_t o = 0; o < here; o++) {
                    const T* row = weight + (e * a.outputs + from + o) * a.channels + c;
                    std::copy_n(row, valid, columns.begin() + o * lanes);
                    std::fill_n(columns.begin() + o * lanes + valid, lanes - valid, T(0));
                }
                for (int64_t p = 0; p < count; p += TILE_P)
                    tile_of<T>(int(std::min<int64_t>(TILE_P, count - p)), int(lanes / L))(
                        rows.data() + p, TILE_P, 1, from, here, columns.data(), from ? nullptr : nothing,
                        sums.data() + p * lanes, nullptr, {});
            }
            own += count * a.outputs * lanes;
            for (int64_t r = 0; r < count; r++)
                std::copy_n(sums.begin() + r * lanes, valid,
                            y + (a.target ? a.target[begin + r] : begin + r) * a.stride_y + c);
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
}

// Between the two products on the way back: from what the activation got, pre [rows, inner], and the gradient of what it
// gave before the slot's weight, gh [rows, hidden]: each row's sum of h * gh (null: not wanted), h times the weight in
// place of gh, and the gradient of pre. mix: each row's weight, null for ones.
extern "C" {
struct Between {
    const void *pre, *mix;
    void *gh, *each, *back;
    int64_t rows, hidden, activation, threads;
};
}

// (what the activation gives, its derivative) of x.
template <class S> static inline void value_and_slope(int64_t activation, Vector<S> x, Vector<S>& h, Vector<S>& slope) {
    const Vector<S> one = Vector<S>{} + S(1);
    if (activation == NONE) {
        h = x, slope = one;
    } else if (activation == RELU) {
        h = clipped<S>(x, 1), slope = x <= S(0) ? Vector<S>{} : one;
    } else if (activation == GELU) {
        const Vector<S> density = S(0.3989422804014327) * exponential(S(-0.5) * x * x);
        const Vector<S> share = gelu_share(x);
        h = x * share, slope = share + x * density;
    } else if (activation == GELU_TANH) {
        const Vector<S> s = one / (S(1) + exponential(S(-1.5957691216057308) * x * (S(1) + S(0.044715) * x * x)));
        h = x * s, slope = s + h * (S(1) - s) * S(1.5957691216057308) * (S(1) + S(3 * 0.044715) * x * x);
    } else {
        const Vector<S> s = one / (S(1) + exponential(-x));
        h = x * s, slope = s + h * (S(1) - s);
    }
}

template <class T> static void between(const Between& a) {
    constexpr int L = LANES<T>;
    const bool swiglu = a.activation == SWIGLU;
    const int64_t inner = a.hidden * (1 + swiglu);
    auto some = [&](const T* at, int64_t n) {                        // n lanes, zeros beyond
        Vector<T> v{};
        if (n == L) return load(at);
        for (int64_t i = 0; i < n; i++) v[i] = at[i];
        return v;
    };
    auto put = [&](T* at, Vector<T> v, int64_t n) {
        if (n == L) return store(at, v);
        for (int64_t i = 0; i < n; i++) at[i] = v[i];
    };
    parallel(a.threads, a.rows, [&](int64_t from, int64_t to) {
        for (int64_t r = from; r < to; r++) {
            const T* pre = static_cast<const T*>(a.pre) + r * inner;
            T *gh = static_cast<T*>(a.gh) + r * a.hidden, *back = static_cast<T*>(a.back) + r * inner;
            const T mix = a.mix ? static_cast<const T*>(a.mix)[r] : T(1);
            Vector<T> sum{};
            for (int64_t c = 0; c < a.hidden; c += L) {
                const int64_t n = std::min<int64_t>(L, a.hidden - c);
                const Vector<T> g = some(gh + c, n);
                Vector<T> h, slope;
                value_and_slope<T>(a.activation, some(pre + c, n), h, slope);
                if (swiglu) {
                    const Vector<T> up = some(pre + a.hidden + c, n);
                    put(back + a.hidden + c, g * mix * h, n);
                    slope *= up, h *= up;
                }
                sum += h * g;
                put(back + c, g * mix * slope, n);
                put(gh + c, h * mix, n);
            }
            if (!a.each) continue;
            T total = 0;
            for (int l = 0; l < L; l++) total += sum[l];
            static_cast<T*>(a.each)[r] = total;
        }
    });
}

// Gradients of weights: of each expert the sum over its rows of g[source[r]] (outputs) times x[r] (channels), written
// to a.weight [experts, outputs, channels]; zeros where an expert has no row. a.y holds g, with stride_y.
template <class T> static int64_t outer_products(const Products& a) {
    constexpr int L = LANES<T>, CB = TILE_V * L;
    const int64_t blocks = in_blocks(a.channels, CB), tiles = in_blocks(a.outputs, TILE_P);
    const T *x = static_cast<const T*>(a.x), *g = static_cast<const T*>(a.y);
    T* weight = static_cast<T*>(const_cast<void*>(a.weight));
    int64_t issued = 0;
    parallel(a.threads, a.experts * blocks, [&](int64_t from, int64_t to) {
        std::vector<T> columns, few;
        std::vector<const T*> rows, here;
        int64_t own = 0;
        for (int64_t task = from; task < to; task++) {
            const int64_t e = task / blocks, c = task % blocks * CB;
            const int64_t begin = a.offsets[e], count = a.offsets[e + 1] - begin;
            const int64_t valid = std::min<int64_t>(a.channels - c, CB);
            T* out = weight + e * a.outputs * a.channels + c;
            if (!count) {
                for (int64_t o = 0; o < a.outputs; o++) std::fill_n(out + o * a.channels, valid, T(0));
                continue;
            }
            columns.assign(count * CB, T(0)), rows.resize(count), here.resize(count), few.resize(count * TILE_P);
            for (int64_t r = 0; r < count; r++) {
                const T* row = x + (begin + r) * a.stride_x + c;
                std::copy(row, row + valid, columns.begin() + r * CB);
                rows[r] = g + (a.source ? a.source[begin + r] : begin + r) * a.stride_y;
            }
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t o = t * TILE_P, some = std::min<int64_t>(TILE_P, a.outputs - o);
                for (int64_t r = 0; r < count && some < TILE_P; r++) {
                    for (int64_t l = 0; l < TILE_P; l++) few[r * TILE_P + l] = l < some ? rows[r][o + l] : T(0);
                    here[r] = few.data() + r * TILE_P;
                }
                const bool whole = some == TILE_P;
                outer<T, TILE_P, TILE_V>(whole ? rows.data() : here.data(), whole ? o : 0, columns.data(), CB, count,
                                         out + o * a.channels, a.channels, some, valid, false);
                own += count * TILE_P * CB;
            }
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
}

extern "C" {
// The slots of index [slots] by expert, ascending within each; -1 is dropped. Returns how many are left, or -1 where a
// value is no expert.
int64_t dyn_sorted(const int64_t* index, int64_t slots, int64_t experts, int32_t* order, int64_t* offsets) {
    std::fill_n(offsets, experts + 1, int64_t(0));
    for (int64_t s = 0; s < slots; s++) {
        if (index[s] < -1 || index[s] >= experts) return -1;
        if (index[s] >= 0) offsets[index[s] + 1]++;
    }
    for (int64_t e = 0; e < experts; e++) offsets[e + 1] += offsets[e];
    std::vector<int64_t> next(offsets, offsets + experts);
    for (int64_t s = 0; s < slots; s++)
        if (index[s] >= 0) order[next[index[s]]++] = int32_t(s);
    return offsets[experts];
}

#define KERNELS(NAME, T)                                                                                            \
    int64_t dyn_packed_##NAME(int64_t outputs, int64_t channels) {                                                  \
        return packed_size<T>(outputs, channels) * int64_t(sizeof(Packed<T>));                                      \
    }                                                                                                               \
    void dyn_pack_##NAME(const void* from, void* to, int64_t experts, int64_t outputs, int64_t channels) {          \
        for (int64_t e = 0; e < experts; e++)                                                                       \
            pack<T>(static_cast<const T*>(from) + e * outputs * channels,                                           \
                    static_cast<Packed<T>*>(to) + e * packed_size<T>(outputs, channels), outputs, channels, 1, 1);  \
    }                                                                                                               \
    int64_t dyn_experts_##NAME(const Experts* a) { return Layer<T>(*a).run(); }                                     \
    void dyn_summed_##NAME(const void* z, const void* weight, const uint8_t* on, void* y, int64_t tokens,           \
                           int64_t k, int64_t width, int64_t threads) {                                             \
        summed<T, T>(static_cast<const T*>(z), static_cast<const T*>(weight), on, static_cast<T*>(y), tokens, k,    \
                     width, threads);                                                                               \
    }
KERNELS(f32, float)
KERNELS(f64, double)
KERNELS(bf16, bf16)

#define BACK(NAME, T)                                                                                               \
    int64_t dyn_back_##NAME(const Products* a) { return products_back<T>(*a); }                                     \
    int64_t dyn_outer_##NAME(const Products* a) { return outer_products<T>(*a); }                                   \
    void dyn_between_##NAME(const Between* a) { between<T>(*a); }
BACK(f32, float)
BACK(f64, double)
}
