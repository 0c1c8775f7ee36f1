// Products of experts on the CPU, with a plain C interface: each expert multiplies the rows that chose it, where they
// stand, by weights packed as the register tile reads them (tile.h). Rows come sorted by expert; nothing is gathered.

#include "tile.h"

constexpr int CHUNK = 96;              // rows that one block of weights serves while it is near

extern "C" {

// Row r of an expert e, offsets[e] <= r < offsets[e + 1], reads row source[r] of x (r itself where source is null) and
// writes row target[r] of y. weight: [expert] packed; bias: [experts, outputs] or null. Strides in elements.
struct Products {
    const void *x, *weight, *bias;
    void* y;
    const int32_t *source, *target;
    const int64_t* offsets;
    int64_t experts, channels, outputs, stride_x, stride_y, relu, threads;
};
}

template <class T> static int64_t packed_size(int64_t outputs, int64_t channels) {
    return deep<T>(channels) * wide<T>(outputs);
}

// Rows from `from` to `to` of one expert, for its blocks of outputs from `first` to `last`.
template <class T>
static int64_t multiply(const Products& a, int64_t expert, int64_t from, int64_t to, int64_t first, int64_t last) {
    using S = Sum<T>;
    constexpr int L = LANES<S>, OB = TILE_V * L;
    const T *x = static_cast<const T*>(a.x), *bias = static_cast<const T*>(a.bias);
    const Packed<T>* weight = static_cast<const Packed<T>*>(a.weight) + expert * packed_size<T>(a.outputs, a.channels);
    T* y = static_cast<T*>(a.y);
    const T *rows[CHUNK + TILE_P];
    T* targets[CHUNK];
    alignas(64) S sums[TILE_P * OB], start[OB];
    int64_t issued = 0;
    const int64_t count = to - from;
    for (int64_t r = 0; r < count; r++) {
        rows[r] = x + (a.source ? a.source[from + r] : from + r) * a.stride_x;
        targets[r] = y + (a.target ? a.target[from + r] : from + r) * a.stride_y;
    }
    for (int64_t block = first; block < last; block++) {
        const int64_t o = block * OB, left = a.outputs - o;
        const int vectors = int(std::min<int64_t>(TILE_V, in_blocks(left, L)));
        const int64_t valid = std::min<int64_t>(left, vectors * L);
        const Packed<T>* w = weight + o * deep<T>(a.channels);
        for (int64_t l = 0; l < vectors * L; l++)
            start[l] = bias && l < valid ? S(bias[expert * a.outputs + o + l]) : S(0);
        for (int64_t p = 0; p < count; p += TILE_P) {
            const int some = int(std::min<int64_t>(TILE_P, count - p));
            Target<T> target;
            target.relu = a.relu, target.direct = std::is_same<T, S>::value && valid == vectors * L;
            for (int j = 0; j < some; j++) target.y[j] = targets[p + j] + o, target.residual[j] = nullptr;
            tile_of<T>(some, vectors)(rows + p, TILE_P, 1, 0, a.channels, w, start, sums, &target, nullptr);
            issued += some * deep<T>(a.channels) * vectors * L;
            for (int j = 0; j < some && !target.direct; j++)
                finish<T>(sums + j * vectors * L, valid, nullptr, target.y[j], a.relu);
        }
    }
    return issued;
}

template <class T> static int64_t products(const Products& a) {
    struct Task { int64_t expert, from, to; };
    std::vector<Task> tasks;
    for (int64_t e = 0; e < a.experts; e++) {
        const int64_t begin = a.offsets[e], end = a.offsets[e + 1], parts = in_blocks(end - begin, CHUNK);
        auto cut = [&](int64_t i) {                                  // of even size, in whole tiles
            return i < parts ? begin + in_blocks((end - begin) * i / parts, TILE_P) * TILE_P : end;
        };
        for (int64_t i = 0; i < parts; i++) tasks.push_back({e, cut(i), cut(i + 1)});
    }
    const int64_t blocks = in_blocks(a.outputs, TILE_V * LANES<Sum<T>>), number = int64_t(tasks.size());
    const double work = double(a.offsets[a.experts] - a.offsets[0]) * a.channels * a.outputs;
    const int64_t threads = std::max<int64_t>(1, std::min<int64_t>(a.threads, int64_t(work / 5e4)));
    const bool split = threads > 1 && number < 4 * threads;          // share out the outputs, too
    int64_t issued = 0;
    parallel(threads, split ? number * blocks : number, [&](int64_t from, int64_t to) {
        int64_t own = 0;
        for (int64_t i = from; i < to; i++) {
            const Task& task = tasks[split ? i / blocks : i];
            const int64_t first = split ? i % blocks : 0, last = split ? first + 1 : blocks;
            own += multiply<T>(a, task.expert, task.from, task.to, first, last);
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
}

// The other direction, for gradients: rows [outputs] times weights as they are, [experts, outputs, channels], give rows
// [channels]. a.channels: of the weights, so of y. A block of columns is copied together, then meets all of its rows.
template <class T> static int64_t products_back(const Products& a) {
    constexpr int L = LANES<T>, CB = TILE_V * L;
    const int64_t blocks = in_blocks(a.channels, CB), outputs = a.outputs;
    const T *x = static_cast<const T*>(a.x), *weight = static_cast<const T*>(a.weight);
    T* y = static_cast<T*>(a.y);
    int64_t issued = 0;
    parallel(a.threads, a.experts * blocks, [&](int64_t from, int64_t to) {
        std::vector<T> columns(outputs * CB);
        std::vector<const T*> rows;
        alignas(64) T sums[TILE_P * CB], nothing[CB] = {};
        int64_t own = 0;
        for (int64_t task = from; task < to; task++) {
            const int64_t e = task / blocks, c = task % blocks * CB;
            const int64_t begin = a.offsets[e], count = a.offsets[e + 1] - begin;
            if (!count) continue;
            const int vectors = int(std::min<int64_t>(TILE_V, in_blocks(a.channels - c, L)));
            const int64_t wide_ = vectors * L, valid = std::min<int64_t>(a.channels - c, wide_);
            for (int64_t o = 0; o < outputs; o++) {
                const T* row = weight + (e * outputs + o) * a.channels + c;
                std::copy(row, row + valid, columns.begin() + o * wide_);
                std::fill(columns.begin() + o * wide_ + valid, columns.begin() + (o + 1) * wide_, T(0));
            }
            rows.resize(count);
            for (int64_t r = 0; r < count; r++)
                rows[r] = x + (a.source ? a.source[begin + r] : begin + r) * a.stride_x;
            for (int64_t p = 0; p < count; p += TILE_P) {
                const int some = int(std::min<int64_t>(TILE_P, count - p));
                Target<T> target;
                target.relu = 0, target.direct = valid == wide_;
                for (int j = 0; j < some; j++) {
                    const int64_t r = begin + p + j;
                    target.y[j] = y + (a.target ? a.target[r] : r) * a.stride_y + c, target.residual[j] = nullptr;
                }
                tile_of<T>(some, vectors)(rows.data() + p, TILE_P, 1, 0, outputs, columns.data(), nothing, sums,
                                          &target, nullptr);
                own += some * outputs * wide_;
                for (int j = 0; j < some && !target.direct; j++)
                    finish<T>(sums + j * wide_, valid, nullptr, target.y[j], 0);
            }
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
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
                for (int64_t r = 0; r < count; r++) {
                    here[r] = rows[r] + o;
                    if (some == TILE_P) continue;
                    for (int64_t l = 0; l < TILE_P; l++) few[r * TILE_P + l] = l < some ? here[r][l] : T(0);
                    here[r] = few.data() + r * TILE_P;
                }
                outer<T, TILE_P, TILE_V>(here.data(), columns.data(), CB, count, out + o * a.channels, a.channels, some,
                                         valid, false);
                own += count * TILE_P * CB;
            }
        }
#pragma omp atomic
        issued += own;
    });
    return issued;
}

// y [tokens, width] = the sum over a token's `k` slots of z [tokens * k, width], each times its weight (null: 1), where
// it has a row (`on`), in the order of the slots.
template <class T>
static void summed(const T* z, const T* weight, const uint8_t* on, T* y, int64_t tokens, int64_t k, int64_t width,
                   int64_t threads) {
    using S = Sum<T>;
    parallel(threads, tokens, [&](int64_t from, int64_t to) {
        std::vector<S> sum(width);
        for (int64_t t = from; t < to; t++) {
            std::fill(sum.begin(), sum.end(), S(0));
            for (int64_t j = t * k; j < (t + 1) * k; j++) {
                if (!on[j]) continue;
                const S w = weight ? S(weight[j]) : S(1);
                const T* row = z + j * width;
                for (int64_t c = 0; c < width; c++) sum[c] += w * S(row[c]);
            }
            for (int64_t c = 0; c < width; c++) y[t * width + c] = T(sum[c]);
        }
    });
}

extern "C" {
#define KERNELS(NAME, T)                                                                                            \
    int64_t dyn_packed_##NAME(int64_t outputs, int64_t channels) {                                                  \
        return packed_size<T>(outputs, channels) * int64_t(sizeof(Packed<T>));                                      \
    }                                                                                                               \
    void dyn_pack_##NAME(const void* from, void* to, int64_t experts, int64_t outputs, int64_t channels) {          \
        for (int64_t e = 0; e < experts; e++)                                                                       \
            pack<T>(static_cast<const T*>(from) + e * outputs * channels,                                           \
                    static_cast<Packed<T>*>(to) + e * packed_size<T>(outputs, channels), outputs, channels, 1, 1);  \
    }                                                                                                               \
    int64_t dyn_products_##NAME(const Products* a) { return products<T>(*a); }                                      \
    void dyn_summed_##NAME(const void* z, const void* weight, const uint8_t* on, void* y, int64_t tokens,           \
                           int64_t k, int64_t width, int64_t threads) {                                             \
        summed<T>(static_cast<const T*>(z), static_cast<const T*>(weight), on, static_cast<T*>(y), tokens, k,       \
                  width, threads);                                                                                  \
    }
KERNELS(f32, float)
KERNELS(f64, double)
KERNELS(bf16, bf16)

#define BACK(NAME, T)                                                                                               \
    int64_t dyn_back_##NAME(const Products* a) { return products_back<T>(*a); }                                     \
    int64_t dyn_outer_##NAME(const Products* a) { return outer_products<T>(*a); }
BACK(f32, float)
BACK(f64, double)
}
