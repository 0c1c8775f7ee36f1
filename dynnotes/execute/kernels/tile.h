// The register tile of the compiled kernels, for whatever vectors the flags allow: a few rows times packed weights, and
// a few rows times a few others; with the types, the packing and the threads that all of them share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int BYTES = 64, TILE_V = 4;  // 24 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int BYTES = 32, TILE_V = 2;  // 12 of 16
#else
constexpr int BYTES = 16, TILE_V = 2;
#endif
constexpr int TILE_P = 6;              // pixels of a tile

struct bf16 {
    uint16_t bits;
    operator float() const {
        uint32_t wide = uint32_t(bits) << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        return value;
    }
    bf16() = default;
    explicit bf16(float value) {       // to nearest, ties to even; NaN stays NaN
        uint32_t wide;
        std::memcpy(&wide, &value, 4);
        bits = value != value ? 0x7fc0 : uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
    }
};

// Sum: what a type is summed in. PAIR: input channels that one instruction multiplies.
template <class T> struct Kind { using Sum = T; using Packed = T; static constexpr int PAIR = 1; };
#ifdef __AVX512BF16__
template <> struct Kind<bf16> { using Sum = float; using Packed = bf16; static constexpr int PAIR = 2; };
#else
template <> struct Kind<bf16> { using Sum = float; using Packed = float; static constexpr int PAIR = 1; };
#endif
template <class T> using Sum = typename Kind<T>::Sum;
template <class T> using Packed = typename Kind<T>::Packed;
template <class S> constexpr int LANES = BYTES / int(sizeof(S));
template <class S> struct Vectors {
    typedef S full __attribute__((vector_size(BYTES)));
    typedef S loose __attribute__((vector_size(BYTES), aligned(sizeof(S)), may_alias));  // loads from anywhere
};
template <class S> using Vector = typename Vectors<S>::full;
template <class S> inline Vector<S> load(const S* at) { return *reinterpret_cast<const typename Vectors<S>::loose*>(at); }
template <class S> inline void store(S* at, Vector<S> v) { *reinterpret_cast<typename Vectors<S>::loose*>(at) = v; }

inline int64_t in_blocks(int64_t n, int64_t of) { return (n + of - 1) / of; }

// Output channels of one group, rounded up to whole vectors; and one packed group's size.
template <class T> inline int64_t wide(int64_t outputs) { return in_blocks(outputs, LANES<Sum<T>>) * LANES<Sum<T>>; }
template <class T> inline int64_t deep(int64_t channels) { return in_blocks(channels, Kind<T>::PAIR) * Kind<T>::PAIR; }

template <class F> static void parallel(int64_t threads, int64_t tasks, F&& work) {  // work(from, to), ranges of tasks
    threads = std::max<int64_t>(1, std::min(threads, tasks));
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(int(threads))
        {
            int64_t n = omp_get_num_threads(), i = omp_get_thread_num();
            int64_t from = tasks * i / n, to = tasks * (i + 1) / n;
            if (from < to) work(from, to);
        }
        return;
    }
#endif
    if (tasks > 0) work(0, tasks);
}

// Rows times packed weights -------------------------------------------------------------------------------------------

// Where the results of a tile go: straight to the output, if its lanes are whole and sums are of the output's type.
template <class T> struct Target {
    T* y[TILE_P];
    const T* residual[TILE_P];         // or null
    int64_t relu;
    bool direct;
};

template <class S> static inline Vector<S> clipped(Vector<S> v, int64_t relu) {  // NaN passes, as in torch
    if (relu) v = v < S(0) ? Vector<S>{} : v;
    if (relu == 6) v = v > S(6) ? Vector<S>{} + S(6) : v;
    return v;
}

// What is read later, to be fetched a line at a time, as between products it costs nothing: of each row that stands where
// the present ones do (or null), and `lines` of weights in the time of one line of channels.
template <class T> struct Ahead {
    const T* const* rows = nullptr;
    const Packed<T>* weights = nullptr;
    int64_t lines = 0;
};

// sums[p][v] = bias + sum over taps and channels of pixel p's row times the packed weights; or to the target, finished.
// start: the bias, or null to go on from what is in sums.
template <class T, int P, int V>
static __attribute__((noinline)) void tile(const T* const* q, int64_t ldq, int64_t taps, int64_t first, int64_t channels,
                                           const Packed<T>* w, const Sum<T>* start, Sum<T>* sums, const Target<T>* to,
                                           const Ahead<T>& ahead) {
    using S = Sum<T>;
    constexpr int L = LANES<S>;
    constexpr int64_t LINE = 64 / sizeof(T);  // channels of a cache line
    Vector<S> acc[P][V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) acc[p][v] = load(start ? start + v * L : sums + (p * V + v) * L);
    const T* const* const later_rows = ahead.rows;
    const Packed<T>* later = ahead.weights;
    const int64_t lines = ahead.lines;
    for (int64_t t = 0; t < taps; t++) {
        const T* row[P];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) row[p] = q[t * ldq + p] + first;
        for (int64_t from = 0; from < channels; from += LINE) {
            const int64_t until = std::min(channels, from + LINE);
            if (later_rows)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) __builtin_prefetch(later_rows[t * ldq + p] + first + from, 0, 2);
            for (int64_t i = 0; i < lines; i++, later += 64 / sizeof(Packed<T>)) __builtin_prefetch(later, 0, 2);
            if constexpr (Kind<T>::PAIR == 2) {
#ifdef __AVX512BF16__
                for (int64_t c = from; c < until; c += 2, w += 2 * V * L) {
                    __m512bh wv[V];
#pragma GCC unroll 8
                    for (int v = 0; v < V; v++) wv[v] = (__m512bh)_mm512_loadu_si512(w + v * 2 * L);
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) {
                        uint32_t two = row[p][c].bits;
                        if (c + 1 < channels) std::memcpy(&two, row[p] + c, 4);
                        __m512bh x = (__m512bh)_mm512_set1_epi32(int(two));
#pragma GCC unroll 8
                        for (int v = 0; v < V; v++) acc[p][v] = _mm512_dpbf16_ps(acc[p][v], wv[v], x);
                    }
                }
#endif
            } else {
#pragma GCC unroll 4
                for (int64_t c = from; c < until; c++, w += V * L) {
                    Vector<S> wv[V];
#pragma GCC unroll 8
                    for (int v = 0; v < V; v++) wv[v] = load(reinterpret_cast<const S*>(w) + v * L);
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) {
                        S x = S(row[p][c]);
#pragma GCC unroll 8
                        for (int v = 0; v < V; v++) acc[p][v] += x * wv[v];
                    }
                }
            }
        }
    }
    if constexpr (std::is_same<T, S>::value)
        if (to && to->direct) {
            if (to->residual[0])
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
#pragma GCC unroll 8
                    for (int v = 0; v < V; v++) acc[p][v] += load(to->residual[p] + v * L);
            if (to->relu)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
#pragma GCC unroll 8
                    for (int v = 0; v < V; v++) acc[p][v] = clipped<S>(acc[p][v], 1);
            if (to->relu == 6)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++)
#pragma GCC unroll 8
                    for (int v = 0; v < V; v++) acc[p][v] = acc[p][v] > S(6) ? Vector<S>{} + S(6) : acc[p][v];
#pragma GCC unroll 8
            for (int p = 0; p < P; p++)
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) store(to->y[p] + v * L, acc[p][v]);
            return;
        }
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) store(sums + (p * V + v) * L, acc[p][v]);
}

template <class T> using Tile = void (*)(const T* const*, int64_t, int64_t, int64_t, int64_t, const Packed<T>*,
                                         const Sum<T>*, Sum<T>*, const Target<T>*, const Ahead<T>&);
template <class T> static Tile<T> tile_of(int pixels, int vectors) {
#define ROW(P) {tile<T, P, 1>, tile<T, P, 2>, tile<T, P, TILE_V < 3 ? TILE_V : 3>, tile<T, P, TILE_V>}
    static const Tile<T> table[TILE_P][4] = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6)};
#undef ROW
    return table[pixels - 1][vectors - 1];
}

template <class S> static inline S clipped_one(S value, int64_t relu) {
    if (relu && value < S(0)) value = S(0);
    if (relu == 6 && value > S(6)) value = S(6);
    return value;
}

// Sums to values: residual, relu, type; `valid` of the tile's lanes are outputs.
template <class T>
static inline void finish(const Sum<T>* sums, int64_t valid, const T* residual, T* y, int64_t relu) {
    using S = Sum<T>;
    if (!residual && !relu) {
        for (int64_t o = 0; o < valid; o++) y[o] = T(sums[o]);
    } else if (!residual) {
        for (int64_t o = 0; o < valid; o++) y[o] = T(clipped_one<S>(sums[o], relu));
    } else {
        for (int64_t o = 0; o < valid; o++) y[o] = T(clipped_one<S>(sums[o] + S(residual[o]), relu));
    }
}

// Rows times rows -------------------------------------------------------------------------------------------------------

// to[p][o] = sum over i of q[i][first + p] g[i][o], or += with `add`: `channels` of P rows, `valid` of the lanes.
template <class T, int P, int V>
static __attribute__((noinline)) void outer(const T* const* q, int64_t first, const T* g, int64_t ldg, int64_t count,
                                            T* to, int64_t ldt, int64_t channels, int64_t valid, bool add) {
    constexpr int L = LANES<T>;
    Vector<T> acc[P][V];
#pragma GCC unroll 8
    for (int p = 0; p < P; p++)
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) acc[p][v] = Vector<T>{};
    for (int64_t i = 0; i < count; i++) {
        Vector<T> gv[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) gv[v] = load(g + i * ldg + v * L);
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            T x = q[i][first + p];
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) acc[p][v] += x * gv[v];
        }
    }
    if (channels >= P && valid == V * L) {
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) {
                T* at = to + p * ldt + v * L;
                store(at, add ? load<T>(at) + acc[p][v] : acc[p][v]);
            }
        return;
    }
    alignas(64) T sums[V * L];
    for (int p = 0; p < P && p < channels; p++) {
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) store(sums + v * L, acc[p][v]);
        for (int64_t l = 0; l < valid; l++) to[p * ldt + l] = add ? to[p * ldt + l] + sums[l] : sums[l];
    }
}

// Weights -------------------------------------------------------------------------------------------------------------

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TURNS
// L vectors of L values: lane l of vector i becomes lane i of vector l, in log2(L) rounds that swap blocks.
template <class S, int STEP, size_t... I> static inline void swapped(Vector<S>* v, std::index_sequence<I...>) {
    constexpr int L = LANES<S>;
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
        if (i & STEP) continue;
        const Vector<S> a = v[i], b = v[i + STEP];
        v[i] = __builtin_shufflevector(a, b, (int(I) & STEP ? L + int(I) - STEP : int(I))...);
        v[i + STEP] = __builtin_shufflevector(a, b, (int(I) & STEP ? L + int(I) : int(I) + STEP)...);
    }
}
template <class S, int STEP = 1> static inline void turned(Vector<S>* v) {
    if constexpr (STEP < LANES<S>) {
        swapped<S, STEP>(v, std::make_index_sequence<LANES<S>>());
        turned<S, 2 * STEP>(v);
    }
}
#endif
#endif

// [outputs, channels / groups, taps] to [group][block of outputs][tap][channel][lanes], zeros in lanes that pad.
template <class T> static void pack(const T* from, Packed<T>* to, int64_t outputs, int64_t channels, int64_t taps, int64_t groups) {
    constexpr int L = LANES<Sum<T>>, OB = TILE_V * L, PAIR = Kind<T>::PAIR;
    const int64_t og = outputs / groups;
    if (groups > 1 && groups == outputs && channels == 1) {          // depthwise: [tap][channel], in the type of sums
        Sum<T>* plain = reinterpret_cast<Sum<T>*>(to);
        for (int64_t t = 0; t < taps; t++)
            for (int64_t o = 0; o < outputs; o++) plain[t * outputs + o] = Sum<T>(from[o * taps + t]);
        return;
    }
    constexpr int64_t SOME = 16;                                     // channels at once: read by the line, turned nearby
    const int64_t depth = deep<T>(channels);
    alignas(64) Packed<T> block[OB * SOME];
    for (int64_t g = 0; g < groups; g++)
        for (int64_t o = 0; o < og; o += OB) {
            const int64_t lanes = std::min<int64_t>(OB, in_blocks(og - o, L) * L), valid = std::min(lanes, og - o);
            for (int64_t t = 0; t < taps; t++) {
                int64_t c = 0;
#ifdef TURNS
                if constexpr (std::is_same_v<T, Packed<T>>)          // pairs move as one, as wide as a sum
                    if (taps == 1 && valid == lanes) {
                        const int64_t whole = channels / (L * PAIR) * (L * PAIR);
                        for (int64_t l = 0; l < lanes; l += L)
                            for (c = 0; c < whole; c += L * PAIR) {
                                Vector<Sum<T>> square[L];
                                const T* row = from + (g * og + o + l) * channels + c;
                                for (int i = 0; i < L; i++) std::memcpy(square + i, row + i * channels, BYTES);
                                turned<Sum<T>>(square);
                                for (int i = 0; i < L; i++)
                                    std::memcpy(to + c * lanes + (i * lanes + l) * PAIR, square + i, BYTES);
                            }
                        to += whole * lanes;
                    }
#endif
                for (; c < depth; c += SOME) {
                    const int64_t some = std::min(SOME, depth - c), there = std::min(SOME, channels - c);
                    if (valid < lanes || there < SOME) std::fill(block, block + OB * SOME, Packed<T>(0.f));
                    for (int64_t l = 0; l < valid; l++) {
                        const T* row = from + ((g * og + o + l) * channels + c) * taps + t;
                        if (taps == 1 && there == SOME)
                            for (int64_t i = 0; i < SOME; i++) block[l * SOME + i] = Packed<T>(row[i]);
                        else
                            for (int64_t i = 0; i < there; i++) block[l * SOME + i] = Packed<T>(row[i * taps]);
                    }
                    for (int64_t i = 0; i < some; i += PAIR, to += lanes * PAIR)
                        for (int64_t l = 0; l < lanes; l++)
                            for (int64_t k = 0; k < PAIR; k++) to[l * PAIR + k] = block[l * SOME + i + k];
                }
            }
        }
}

// [outputs, channels, taps] to [group][tap][block of channels][output][lanes].
template <class T> static void pack_back(const T* from, T* to, int64_t outputs, int64_t channels, int64_t taps, int64_t groups) {
    constexpr int L = LANES<T>, CB = TILE_V * L;
    const int64_t og = outputs / groups;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t t = 0; t < taps; t++)
            for (int64_t c = 0; c < channels; c += CB) {
                const int64_t lanes = std::min<int64_t>(CB, in_blocks(channels - c, L) * L);
                for (int64_t o = 0; o < og; o++)
                    for (int64_t l = 0; l < lanes; l++)
                        *to++ = c + l < channels ? from[((g * og + o) * channels + c + l) * taps + t] : T(0);
            }
}
