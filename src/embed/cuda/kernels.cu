// The encoder's own kernels: everything of a forward pass but the matrix products, which cuBLAS computes.
//
// Activations are fp16, row-major, packed: the rows of all texts stand one after the other without padding. Biases,
// gains, shifts, sums, softmax, normalisation and pooling are fp32. Compiled by nvcc to PTX for compute_80, which the
// driver translates for the card (Ampere or newer), and by g++ for the emulated GPU of the tests (ALEXANDRIA_EMULATED):
// so every instruction without a C++ form stands in a wrapper below that has a twin there, and nothing else may differ.
//
// Never: read or write beyond a text's rows, let uninitialised shared memory reach a result (0 * NaN is NaN, so rows
// beyond a text's end are zeros), let a sum of finite numbers become infinite in fp16, index rows in 32 bits.

#ifdef ALEXANDRIA_EMULATED
#include "cuda_on_cpu.h"
#else
#include <cuda_fp16.h>
#include <stdint.h>

// Shared memory of a block, aligned so that the swizzle may be an exclusive or on the address.
#define SHARED_ARRAY(type, name, count) __shared__ __align__(128) type name[count]

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// `d += a * b`: a is 16x16 by rows, b 16x8 by columns, d 16x8. A lane's share is in the PTX ISA, "mma.m16n8k16".
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8x8 matrices of halves; lanes 8i..8i+7 name the rows of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&matrices)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(row)
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&matrices)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(row)
                 : "memory");
}

// Copies `bytes` (0 or 16) and fills up to 16 with zeros, in the background; past the L1 cache.
__device__ __forceinline__ void cp_async_16(uint32_t to, const void* from, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `PENDING` of this thread's groups are under way.
template <int PENDING>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void shared_store_4(uint32_t to, uint32_t value) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(value) : "memory");
}

__device__ __forceinline__ void shared_store_16(uint32_t to, uint4 value) {
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z),
                 "r"(value.w)
                 : "memory");
}

__device__ __forceinline__ uint4 shared_load_16(uint32_t from) {
    uint4 value;
    asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(from)
                 : "memory");
    return value;
}

// A load that is not merged with an earlier one of the same: what it reads need not be kept in a register until then.
__device__ __forceinline__ uint32_t load_again(const uint32_t* from) {
    uint32_t value;
    asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(value) : "l"(__cvta_generic_to_global(from)));
    return value;
}

// 2^x and 1/x to about 2 units in the last place of fp32.
__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float reciprocal_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two halves, rounded to the nearest even, beyond the largest finite half clamped to it.
__device__ __forceinline__ uint32_t pack_halves(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

__device__ __forceinline__ float2 unpack_halves(uint32_t packed) {
    return __half22float2(*reinterpret_cast<const __half2*>(&packed));
}

// Both halves clamped to the finite range: a matrix product that overflowed counts as the largest finite number.
__device__ __forceinline__ uint32_t clamp_halves(uint32_t packed) {
    const uint32_t largest = 0x7bff7bff, lowest = 0xfbfffbff;
    asm("min.f16x2 %0, %0, %1;" : "+r"(packed) : "r"(largest));
    asm("max.f16x2 %0, %0, %1;" : "+r"(packed) : "r"(lowest));
    return packed;
}
#endif

namespace {

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;
// Halves in a 16-byte access.
constexpr uint32_t CHUNK = 8;

__device__ __forceinline__ uint4 load_16(const void* from) {
    return *static_cast<const uint4*>(from);
}

__device__ __forceinline__ void store_16(void* to, uint4 value) {
    *static_cast<uint4*>(to) = value;
}

__device__ __forceinline__ void load_floats(float (&x)[CHUNK], const float* from) {
    const float4 low = *reinterpret_cast<const float4*>(from), high = *reinterpret_cast<const float4*>(from + 4);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

__device__ __forceinline__ void unpack_chunk(float (&x)[CHUNK], uint4 packed) {
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int word = 0; word < 4; ++word) {
        const float2 pair = unpack_halves(clamp_halves(words[word]));
        x[2 * word] = pair.x;
        x[2 * word + 1] = pair.y;
    }
}

__device__ __forceinline__ uint4 pack_chunk(const float (&x)[CHUNK]) {
    uint4 packed;
    packed.x = pack_halves(x[0], x[1]);
    packed.y = pack_halves(x[2], x[3]);
    packed.z = pack_halves(x[4], x[5]);
    packed.w = pack_halves(x[6], x[7]);
    return packed;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, distance);
    }
    return x;
}

// ---------------------------------------------------------------------------------------------- layer norm

constexpr uint32_t ROWS_PER_BLOCK = 8;
// 16-byte chunks of a row that a lane holds in registers: rows of up to 1024 numbers are read from memory once.
constexpr uint32_t HELD_CHUNKS = 4;

// `sum[i] = a[i] + b[i] + bias[i]` for one chunk.
__device__ __forceinline__ void add_chunk(float (&sum)[CHUNK], uint4 a, uint4 b, const float* bias) {
    float other[CHUNK], biases[CHUNK];
    unpack_chunk(sum, a);
    unpack_chunk(other, b);
    load_floats(biases, bias);
#pragma unroll
    for (uint32_t i = 0; i < CHUNK; ++i) {
        sum[i] += other[i] + biases[i];
    }
}

__device__ __forceinline__ float total(const float (&x)[CHUNK]) {
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

__device__ __forceinline__ float squared_distance(const float (&x)[CHUNK], float mean) {
    float squares = 0;
#pragma unroll
    for (uint32_t i = 0; i < CHUNK; ++i) {
        squares += (x[i] - mean) * (x[i] - mean);
    }
    return squares;
}

__device__ __forceinline__ void store_normalised(__half* to, const float (&x)[CHUNK], float mean, float scale,
                                                 const float* gain, const float* shift) {
    float gains[CHUNK], shifts[CHUNK], y[CHUNK];
    load_floats(gains, gain);
    load_floats(shifts, shift);
#pragma unroll
    for (uint32_t i = 0; i < CHUNK; ++i) {
        y[i] = (x[i] - mean) * scale * gains[i] + shifts[i];
    }
    store_16(to, pack_chunk(y));
}

// `out = layer_norm(a + b + bias) * gain + shift` for one row by one warp; `out` may be `a`. The variance is summed
// from the differences to the mean, not from the squares, which cancel in fp32.
__device__ __forceinline__ void layer_norm_row(__half* out, const __half* a, const __half* b, const float* parameters,
                                               uint32_t hidden, float eps) {
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t chunks = hidden / CHUNK;
    const float* gain = parameters + hidden;
    const float* shift = gain + hidden;
    const float share = 1.0f / static_cast<float>(hidden);
    float sum = 0, squares = 0;
    if (chunks <= HELD_CHUNKS * WARP) {
        uint4 first[HELD_CHUNKS], second[HELD_CHUNKS];
        float x[HELD_CHUNKS][CHUNK];
        // All loads before the first use, so that one latency covers them.
#pragma unroll
        for (uint32_t held = 0; held < HELD_CHUNKS; ++held) {
            const uint32_t chunk = lane + held * WARP;
            if (chunk < chunks) {
                first[held] = load_16(a + chunk * CHUNK);
                second[held] = load_16(b + chunk * CHUNK);
            }
        }
#pragma unroll
        for (uint32_t held = 0; held < HELD_CHUNKS; ++held) {
            const uint32_t chunk = lane + held * WARP;
            if (chunk < chunks) {
                add_chunk(x[held], first[held], second[held], parameters + chunk * CHUNK);
                sum += total(x[held]);
            }
        }
        const float mean = warp_sum(sum) * share;
#pragma unroll
        for (uint32_t held = 0; held < HELD_CHUNKS; ++held) {
            if (lane + held * WARP < chunks) {
                squares += squared_distance(x[held], mean);
            }
        }
        const float scale = rsqrtf(warp_sum(squares) * share + eps);
#pragma unroll
        for (uint32_t held = 0; held < HELD_CHUNKS; ++held) {
            const uint32_t chunk = lane + held * WARP;
            if (chunk < chunks) {
                store_normalised(out + chunk * CHUNK, x[held], mean, scale, gain + chunk * CHUNK,
                                 shift + chunk * CHUNK);
            }
        }
    } else {
        // Wider rows are read three times, from the cache; a lane writes only what it alone reads.
        float x[CHUNK];
        for (uint32_t at = lane * CHUNK; at < hidden; at += WARP * CHUNK) {
            add_chunk(x, load_16(a + at), load_16(b + at), parameters + at);
            sum += total(x);
        }
        const float mean = warp_sum(sum) * share;
        for (uint32_t at = lane * CHUNK; at < hidden; at += WARP * CHUNK) {
            add_chunk(x, load_16(a + at), load_16(b + at), parameters + at);
            squares += squared_distance(x, mean);
        }
        const float scale = rsqrtf(warp_sum(squares) * share + eps);
        for (uint32_t at = lane * CHUNK; at < hidden; at += WARP * CHUNK) {
            add_chunk(x, load_16(a + at), load_16(b + at), parameters + at);
            store_normalised(out + at, x, mean, scale, gain + at, shift + at);
        }
    }
}

// ---------------------------------------------------------------------------------------------- GELU

// `0.5 x (1 + erf(x / sqrt 2))` as `max(x, 0) - 0.5 |x| erfc(|x| / sqrt 2)`: no cancellation in either tail.
// erfc: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26, within 1.5e-7.
__device__ __forceinline__ float gelu(float x) {
    constexpr float HALF_LOG2_E = 0.72134752f;
    constexpr float P_OVER_SQRT_2 = 0.3275911f * 0.70710678f;
    const float size = fabsf(x);
    const float t = reciprocal_fast(1.0f + P_OVER_SQRT_2 * size);
    // The coefficients of 7.1.26, halved.
    float erfc = 0.5307027145f;
    erfc = erfc * t - 0.7265760135f;
    erfc = erfc * t + 0.7107068705f;
    erfc = erfc * t - 0.142248368f;
    erfc = erfc * t + 0.127414796f;
    erfc = erfc * t * exp2_fast(-HALF_LOG2_E * x * x);
    return fmaxf(x, 0.0f) - size * erfc;
}

// ---------------------------------------------------------------------------------------------- attention

constexpr uint32_t ATTENTION_THREADS = 128;
constexpr uint32_t TILE_KEYS = 32;
constexpr uint32_t WARP_QUERIES = 32;
// A warp's queries as operands of 16 rows: what is loaded of keys and values serves all of them.
constexpr uint32_t STRIPS = WARP_QUERIES / 16;

// One tile of 32 keys or values of one head in shared memory. The 16-byte chunks of a row are permuted so that the same
// chunk of eight consecutive rows, which is what ldmatrix reads, lies in eight different groups of four banks.
template <uint32_t HEAD>
struct Tile {
    static constexpr uint32_t ROW_BYTES = HEAD * 2;
    static constexpr uint32_t BYTES = TILE_KEYS * ROW_BYTES;
    static constexpr uint32_t ROW_CHUNKS = HEAD / CHUNK;

    static __device__ __forceinline__ uint32_t at(uint32_t row, uint32_t chunk) {
        // A row of 128 bytes covers the 32 banks, a row of 64 half of them.
        const uint32_t swizzle = HEAD == 64 ? row % 8 : row / 2 % 4;
        return row * ROW_BYTES + ((chunk ^ swizzle) * 16);
    }
};

// What a lane keeps of 16 queries: rows `lane / 4` and `lane / 4 + 8`.
template <uint32_t HEAD>
struct Attended {
    float context[HEAD / 8][4] = {};
    // In units of log2; a row's lanes agree on it.
    float maximum[2] = {-INFINITY, -INFINITY};
    // Over this lane's keys alone, until the end.
    float sum[2] = {0, 0};
};

// How far (in log2) a score may exceed the maximum that the sums are scaled by: weights stay under 2^8, far from
// fp16's end, and the sums are rescaled only when a score stands out, not at every new maximum (FlashAttention-4).
constexpr float MAXIMUM_SLACK = 8.0f;

// Scores beyond the `keys` that exist become minus infinity.
__device__ __forceinline__ void mask(float (&scores)[TILE_KEYS / 8][4], uint32_t keys) {
    const uint32_t column = threadIdx.x % 4 * 2;
#pragma unroll
    for (uint32_t tile = 0; tile < TILE_KEYS / 8; ++tile) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            if (tile * 8 + column + i % 2 >= keys) {
                scores[tile][i] = -INFINITY;
            }
        }
    }
}

// Each row's highest score; its four lanes get the same.
__device__ __forceinline__ void row_maxima(float (&highest)[2], const float (&scores)[TILE_KEYS / 8][4]) {
    highest[0] = scores[0][0];
    highest[1] = scores[0][2];
#pragma unroll
    for (uint32_t tile = 0; tile < TILE_KEYS / 8; ++tile) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            highest[i / 2] = fmaxf(highest[i / 2], scores[tile][i]);
        }
    }
#pragma unroll
    for (uint32_t row = 0; row < 2; ++row) {
        highest[row] = fmaxf(highest[row], __shfl_xor_sync(ALL_LANES, highest[row], 1));
        highest[row] = fmaxf(highest[row], __shfl_xor_sync(ALL_LANES, highest[row], 2));
    }
}

template <uint32_t HEAD>
__device__ __forceinline__ void raise_maximum(Attended<HEAD>& attended, const float (&highest)[2]) {
    float scale[2];
#pragma unroll
    for (uint32_t row = 0; row < 2; ++row) {
        const float maximum = fmaxf(attended.maximum[row], highest[row]);
        scale[row] = exp2_fast(attended.maximum[row] - maximum);
        attended.maximum[row] = maximum;
        attended.sum[row] *= scale[row];
    }
#pragma unroll
    for (uint32_t tile = 0; tile < HEAD / 8; ++tile) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            attended.context[tile][i] *= scale[i / 2];
        }
    }
}

// Scores of 16 keys become weights, as the operand of a product: the accumulators' layout of two tiles of 8 keys is
// the operand's layout of 16.
template <uint32_t HEAD>
__device__ __forceinline__ void weigh(uint32_t (&packed)[4], Attended<HEAD>& attended, const float (&low)[4],
                                      const float (&high)[4]) {
    float weights[2][4];
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
        weights[0][i] = exp2_fast(low[i] - attended.maximum[i / 2]);
        weights[1][i] = exp2_fast(high[i] - attended.maximum[i / 2]);
        attended.sum[i / 2] += weights[0][i] + weights[1][i];
    }
    packed[0] = pack_halves(weights[0][0], weights[0][1]);
    packed[1] = pack_halves(weights[0][2], weights[0][3]);
    packed[2] = pack_halves(weights[1][0], weights[1][1]);
    packed[3] = pack_halves(weights[1][2], weights[1][3]);
}

// One step: the warp's queries against 32 keys, of which `keys` exist. `LAST` masks and skips what is beyond.
// `keys_at` and `values_at` are this lane's ldmatrix rows of the tiles.
template <uint32_t HEAD, bool LAST>
__device__ __forceinline__ void attend(Attended<HEAD> (&attended)[STRIPS],
                                       const uint32_t (&query)[STRIPS][HEAD / 16][4], uint32_t keys_at,
                                       uint32_t values_at, uint32_t keys) {
    constexpr uint32_t GROUP_BYTES = 16 * Tile<HEAD>::ROW_BYTES;
    float scores[STRIPS][TILE_KEYS / 8][4] = {};
#pragma unroll
    for (uint32_t group = 0; group < TILE_KEYS / 16; ++group) {
        if (LAST && group * 16 >= keys) {
            continue;
        }
#pragma unroll
        for (uint32_t part = 0; part < HEAD / 16; ++part) {
            uint32_t key[4];
            ldmatrix_x4(key, (keys_at ^ (part * 32)) + group * GROUP_BYTES);
#pragma unroll
            for (uint32_t strip = 0; strip < STRIPS; ++strip) {
                mma_16x8x16(scores[strip][2 * group], query[strip][part], key[0], key[1]);
                mma_16x8x16(scores[strip][2 * group + 1], query[strip][part], key[2], key[3]);
            }
        }
    }
    float highest[STRIPS][2];
    bool exceeds = false;
#pragma unroll
    for (uint32_t strip = 0; strip < STRIPS; ++strip) {
        if (LAST) {
            mask(scores[strip], keys);
        }
        row_maxima(highest[strip], scores[strip]);
#pragma unroll
        for (uint32_t row = 0; row < 2; ++row) {
            // The difference, not the sum with the slack, which rounds where scores are huge.
            exceeds = exceeds || highest[strip][row] - attended[strip].maximum[row] > MAXIMUM_SLACK;
        }
    }
    if (__any_sync(ALL_LANES, exceeds)) {
#pragma unroll
        for (uint32_t strip = 0; strip < STRIPS; ++strip) {
            raise_maximum(attended[strip], highest[strip]);
        }
    }
#pragma unroll
    for (uint32_t group = 0; group < TILE_KEYS / 16; ++group) {
        if (LAST && group * 16 >= keys) {
            continue;
        }
        uint32_t weights[STRIPS][4];
#pragma unroll
        for (uint32_t strip = 0; strip < STRIPS; ++strip) {
            weigh(weights[strip], attended[strip], scores[strip][2 * group], scores[strip][2 * group + 1]);
        }
#pragma unroll
        for (uint32_t part = 0; part < HEAD / 16; ++part) {
            uint32_t value[4];
            ldmatrix_x4_trans(value, (values_at ^ (part * 32)) + group * GROUP_BYTES);
#pragma unroll
            for (uint32_t strip = 0; strip < STRIPS; ++strip) {
                mma_16x8x16(attended[strip].context[2 * part], weights[strip], value[0], value[1]);
                mma_16x8x16(attended[strip].context[2 * part + 1], weights[strip], value[2], value[3]);
            }
        }
    }
}

// What a thread copies of each step's keys and values: the same 16-byte chunk of every `ROWS`-th row.
template <uint32_t HEAD>
struct Copier {
    static constexpr uint32_t ROWS = ATTENTION_THREADS / Tile<HEAD>::ROW_CHUNKS;
    static_assert(ROWS % 8 == 0, "rows that a thread copies are permuted alike");

    // This thread's first chunk of the next step.
    const __half* from;

    __device__ __forceinline__ Copier(const __half* text_keys, size_t stride)
        : from(text_keys + row() * stride + chunk() * CHUNK) {}

    static __device__ __forceinline__ uint32_t row() {
        return threadIdx.x / Tile<HEAD>::ROW_CHUNKS;
    }

    static __device__ __forceinline__ uint32_t chunk() {
        return threadIdx.x % Tile<HEAD>::ROW_CHUNKS;
    }

    // Starts the next step's copies into a pair of tiles; there are `keys` keys left, and beyond them come zeros, for
    // which nothing is read.
    __device__ __forceinline__ void start(uint32_t pair, uint32_t keys, size_t stride, uint32_t hidden) {
        const uint32_t to = pair + Tile<HEAD>::at(row(), chunk());
#pragma unroll
        for (uint32_t turn = 0; turn < TILE_KEYS / ROWS; ++turn) {
            const uint32_t bytes = row() + turn * ROWS < keys ? 16 : 0;
            const __half* const key = from + turn * ROWS * stride;
            const uint32_t at = to + turn * ROWS * Tile<HEAD>::ROW_BYTES;
            cp_async_16(at, key, bytes);
            cp_async_16(at + Tile<HEAD>::BYTES, key + hidden, bytes);
        }
        cp_async_commit();
        from += TILE_KEYS * stride;
    }
};

// A chunk of a query as the products take it: bias added, in units of log2, so that softmax needs 2^x alone.
__device__ __forceinline__ uint4 biased_query(uint4 packed, const float (&biases)[CHUNK]) {
    constexpr float LOG2_E = 1.44269504f;
    float x[CHUNK];
    unpack_chunk(x, packed);
#pragma unroll
    for (uint32_t i = 0; i < CHUNK; ++i) {
        x[i] = (x[i] + biases[i]) * LOG2_E;
    }
    return pack_chunk(x);
}

// The warp's queries as operands of the products. `staging` is 16 rows of shared memory that no other warp touches; of
// the queries `rows` exist, the others are zeros (with the bias, but nobody asks for them).
template <uint32_t HEAD>
__device__ __forceinline__ void load_queries(uint32_t (&query)[STRIPS][HEAD / 16][4], uint32_t staging,
                                             const __half* queries, const float* bias, uint32_t rows, size_t stride) {
    constexpr uint32_t ROW_CHUNKS = Tile<HEAD>::ROW_CHUNKS;
    constexpr uint32_t TURN_ROWS = WARP / ROW_CHUNKS;
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t lane_row = lane / ROW_CHUNKS, chunk = lane % ROW_CHUNKS;
    // All loads before the first use, so that one latency covers them.
    uint4 packed[WARP_QUERIES / TURN_ROWS];
#pragma unroll
    for (uint32_t turn = 0; turn < WARP_QUERIES / TURN_ROWS; ++turn) {
        const uint32_t row = lane_row + turn * TURN_ROWS;
        packed[turn] = {0, 0, 0, 0};
        if (row < rows) {
            packed[turn] = load_16(queries + row * stride + chunk * CHUNK);
        }
    }
    float biases[CHUNK];
    load_floats(biases, bias + chunk * CHUNK);
    const uint32_t row_at = staging + Tile<HEAD>::at(lane % 16, lane / 16);
#pragma unroll
    for (uint32_t strip = 0; strip < STRIPS; ++strip) {
#pragma unroll
        for (uint32_t turn = 0; turn < 16 / TURN_ROWS; ++turn) {
            shared_store_16(staging + Tile<HEAD>::at(lane_row + turn * TURN_ROWS, chunk),
                            biased_query(packed[strip * (16 / TURN_ROWS) + turn], biases));
        }
        __syncwarp();
#pragma unroll
        for (uint32_t part = 0; part < HEAD / 16; ++part) {
            ldmatrix_x4(query[strip][part], row_at ^ (part * 32));
        }
        // The staging may be written again.
        __syncwarp();
    }
}

// Divides by the sums and writes the `rows` of 16 queries that exist, in whole chunks by way of `staging`.
template <uint32_t HEAD>
__device__ __forceinline__ void store_context(__half* to, const Attended<HEAD>& attended, uint32_t staging,
                                              uint32_t rows, size_t hidden) {
    constexpr uint32_t ROW_CHUNKS = Tile<HEAD>::ROW_CHUNKS;
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (uint32_t row = 0; row < 2; ++row) {
        float sum = attended.sum[row];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        const float scale = reciprocal_fast(sum);
#pragma unroll
        for (uint32_t tile = 0; tile < HEAD / 8; ++tile) {
            const float* x = attended.context[tile] + 2 * row;
            shared_store_4(staging + Tile<HEAD>::at(lane / 4 + 8 * row, tile) + lane % 4 * 4,
                           pack_halves(x[0] * scale, x[1] * scale));
        }
    }
    __syncwarp();
#pragma unroll
    for (uint32_t turn = 0; turn < 16 * ROW_CHUNKS / WARP; ++turn) {
        const uint32_t row = (lane + turn * WARP) / ROW_CHUNKS, chunk = lane % ROW_CHUNKS;
        if (row < rows) {
            store_16(to + row * hidden + chunk * CHUNK, shared_load_16(staging + Tile<HEAD>::at(row, chunk)));
        }
    }
    // The staging may be written again.
    __syncwarp();
}

// 128 queries of one text and head against all its keys, 32 at a time, by online softmax (FlashAttention-2). A warp has
// 32 queries, so each operand that it loads from shared memory, which is what the tensor cores of sm_80 and sm_90 would
// otherwise wait for, serves four products. Two pairs of tiles: one is computed on while the other fills.
template <uint32_t HEAD>
__device__ __forceinline__ void attention(__half* context, const __half* qkv, const float* query_bias,
                                          const uint32_t* tiles, uint32_t heads) {
    using T = Tile<HEAD>;
    constexpr uint32_t PAIR_BYTES = 2 * T::BYTES;
    SHARED_ARRAY(unsigned char, memory, 2 * PAIR_BYTES);
    const uint32_t pairs = shared_address(memory);
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint32_t* const tile = tiles + 3 * blockIdx.x;
    const uint32_t text_row = tile[0], length = tile[1];
    const uint32_t query = tile[2] + warp * WARP_QUERIES;
    const uint32_t hidden = heads * HEAD, column = blockIdx.y * HEAD;
    const size_t stride = 3 * hidden;
    // A quarter of a pair, in which a warp turns 16 of its rows from memory's layout to the operands' or back.
    const uint32_t staging = warp * 16 * T::ROW_BYTES;
    // A warp beyond the text's end only helps to copy.
    const bool has_queries = query < length;

    Copier<HEAD> copier(qkv + text_row * stride + hidden + column, stride);
    copier.start(pairs, length, stride, hidden);
    uint32_t operands[STRIPS][HEAD / 16][4];
    if (has_queries) {
        // Staged where the second pair comes later, after the first barrier.
        load_queries<HEAD>(operands, pairs + PAIR_BYTES + staging, qkv + (text_row + query) * stride + column,
                           query_bias + column, length - query, stride);
    }
    Attended<HEAD> attended[STRIPS];
    const uint32_t key_row = T::at(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    const uint32_t value_row = T::at(lane % 16, lane / 16) + T::BYTES;
    // Of the pair that is computed on, from the first; the other's is what it is not.
    uint32_t offset = 0;
    for (uint32_t keys = length;; keys -= TILE_KEYS) {
        cp_async_wait<0>();
        // Everyone's copies have arrived, and everyone is done with the other pair.
        __syncthreads();
        const bool last = keys <= TILE_KEYS;
        if (!last) {
            copier.start(pairs + (offset ^ PAIR_BYTES), keys - TILE_KEYS, stride, hidden);
        }
        if (has_queries) {
            const uint32_t pair = pairs + offset;
            if (keys >= TILE_KEYS) {
                attend<HEAD, false>(attended, operands, pair + key_row, pair + value_row, TILE_KEYS);
            } else {
                attend<HEAD, true>(attended, operands, pair + key_row, pair + value_row, keys);
            }
        }
        offset ^= PAIR_BYTES;
        if (last) {
            break;
        }
    }
    if (has_queries) {
        const uint32_t first = load_again(tile + 2) + warp * WARP_QUERIES;
        const uint32_t row = load_again(tile) + first, rows = load_again(tile + 1) - first;
        // The pair that the last step did not use is free since that step's barrier.
#pragma unroll
        for (uint32_t strip = 0; strip < STRIPS; ++strip) {
            store_context<HEAD>(context + static_cast<size_t>(row + 16 * strip) * hidden + column, attended[strip],
                                pairs + offset + staging, rows > 16 * strip ? rows - 16 * strip : 0, hidden);
        }
    }
}

// ---------------------------------------------------------------------------------------------- pooling

constexpr uint32_t POOL_THREADS = 256;
constexpr uint32_t MAX_HIDDEN = 4096;

// The sum of `x` over a block; every thread gets it.
__device__ __forceinline__ float block_sum(float x) {
    SHARED_ARRAY(float, sums, POOL_THREADS / WARP);
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        sums[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    float sum = 0;
    for (uint32_t warp = 0; warp < POOL_THREADS / WARP; ++warp) {
        sum += sums[warp];
    }
    return sum;
}

}  // namespace

// Grid ceil(tokens / 8), block 256. out[t] = layer_norm(words[ids[t]] + positions[position_ids[t]] + bias).
// `parameters` is [3, hidden]: bias, gain, shift. hidden: a multiple of 8.
extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    embed_layer_norm(__half* __restrict__ out, const __half* __restrict__ words, const __half* __restrict__ positions,
                     const uint32_t* __restrict__ ids, const uint32_t* __restrict__ position_ids,
                     const float* __restrict__ parameters, uint32_t tokens, uint32_t hidden, float eps) {
    const uint32_t token = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (token < tokens) {
        layer_norm_row(out + static_cast<size_t>(token) * hidden, words + static_cast<size_t>(ids[token]) * hidden,
                       positions + static_cast<size_t>(position_ids[token]) * hidden, parameters, hidden, eps);
    }
}

// Grid ceil(tokens / 8), block 256. x = layer_norm(x + bias + residual) * gain + shift.
extern "C" __global__ void __launch_bounds__(ROWS_PER_BLOCK* WARP)
    bias_residual_layer_norm(__half* x, const __half* __restrict__ residual, const float* __restrict__ parameters,
                             uint32_t tokens, uint32_t hidden, float eps) {
    const uint32_t token = blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / WARP;
    if (token < tokens) {
        __half* row = x + static_cast<size_t>(token) * hidden;
        layer_norm_row(row, row, residual + static_cast<size_t>(token) * hidden, parameters, hidden, eps);
    }
}

// Grid ceil(rows * columns / 8 / 256), block 256. x = gelu(x + bias). columns: a multiple of 8.
extern "C" __global__ void __launch_bounds__(256)
    bias_gelu(__half* x, const float* __restrict__ bias, uint32_t rows, uint32_t columns) {
    // Chunks, not numbers, are counted in 32 bits: 2^35 numbers are more than any card holds.
    const uint32_t row_chunks = columns / CHUNK;
    const uint32_t chunk = blockIdx.x * 256 + threadIdx.x;
    if (chunk < rows * row_chunks) {
        __half* at = x + static_cast<size_t>(chunk) * CHUNK;
        float values[CHUNK], biases[CHUNK];
        unpack_chunk(values, load_16(at));
        load_floats(biases, bias + chunk % row_chunks * CHUNK);
#pragma unroll
        for (uint32_t i = 0; i < CHUNK; ++i) {
            values[i] = gelu(values[i] + biases[i]);
        }
        store_16(at, pack_chunk(values));
    }
}

// Grid (tiles, heads), block 128. context[t] = softmax(q k^T) v over the text's own tokens; qkv is [tokens, 3 hidden].
// A tile is 128 queries of a text, as three numbers: the text's first row, its length, the first query in the text.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 4)
    attention_head32(__half* __restrict__ context, const __half* __restrict__ qkv,
                     const float* __restrict__ query_bias, const uint32_t* __restrict__ tiles, uint32_t heads) {
    attention<32>(context, qkv, query_bias, tiles, heads);
}

extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS, 3)
    attention_head64(__half* __restrict__ context, const __half* __restrict__ qkv,
                     const float* __restrict__ query_bias, const uint32_t* __restrict__ tiles, uint32_t heads) {
    attention<64>(context, qkv, query_bias, tiles, heads);
}

// Grid texts, block 256. out[b] = the mean over rows starts[b] .. starts[b + 1] (with `cls` the first row), scaled to
// unit length; a zero vector stays zero. hidden: a multiple of 8, at most 4096.
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
    pool_normalise(float* __restrict__ out, const __half* __restrict__ hidden_states,
                   const uint32_t* __restrict__ starts, uint32_t hidden, uint32_t cls) {
    SHARED_ARRAY(float, partial, MAX_HIDDEN);
    const uint32_t start = starts[blockIdx.x];
    const uint32_t rows = cls ? 1 : starts[blockIdx.x + 1] - start;
    const __half* text = hidden_states + static_cast<size_t>(start) * hidden;
    // Threads that a narrow row leaves over take other rows: at most 256 chunks of partial sums, or one wide row.
    const uint32_t chunks = hidden / CHUNK;
    const uint32_t groups = chunks < POOL_THREADS ? POOL_THREADS / chunks : 1;
    const uint32_t group = chunks < POOL_THREADS ? threadIdx.x / chunks : 0;
    if (group < groups) {
        for (uint32_t chunk = threadIdx.x - group * chunks; chunk < chunks; chunk += POOL_THREADS) {
            float sum[CHUNK] = {};
#pragma unroll 8
            for (uint32_t row = group; row < rows; row += groups) {
                float x[CHUNK];
                unpack_chunk(x, load_16(text + static_cast<size_t>(row) * hidden + chunk * CHUNK));
#pragma unroll
                for (uint32_t i = 0; i < CHUNK; ++i) {
                    sum[i] += x[i];
                }
            }
#pragma unroll
            for (uint32_t i = 0; i < CHUNK; ++i) {
                partial[group * hidden + chunk * CHUNK + i] = sum[i];
            }
        }
    }
    __syncthreads();
    float squares = 0;
    for (uint32_t column = threadIdx.x; column < hidden; column += POOL_THREADS) {
        float mean = 0;
        for (uint32_t other = 0; other < groups; ++other) {
            mean += partial[other * hidden + column];
        }
        mean /= static_cast<float>(rows);
        partial[column] = mean;
        squares += mean * mean;
    }
    const float norm = sqrtf(block_sum(squares));
    const float scale = norm > 0 ? 1.0f / norm : 0.0f;
    for (uint32_t column = threadIdx.x; column < hidden; column += POOL_THREADS) {
        out[static_cast<size_t>(blockIdx.x) * hidden + column] = partial[column] * scale;
    }
}
