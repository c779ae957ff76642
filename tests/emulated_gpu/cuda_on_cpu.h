// What src/embed/cuda/kernels.cu needs to be compiled by g++: CUDA's words, and a twin of each wrapper around PTX.
//
// The twins do what the PTX ISA says ("mma.m16n8k16", "ldmatrix", "cp.async", "cvt"), and where the hardware leaves a
// choice they take the one that shows a mistake: shared memory starts as NaN; a store is seen by others only after the
// next barrier and a cp.async only after its wait_group, and until then the place holds NaN; warps run one after the
// other as far as they can get; a collective that not all lanes of a warp reach ends the process.
//
// Never: replace anything of the kernels themselves. Tests compile the very same source.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define SHARED_ARRAY(type, name, count) type* const name = emulated::shared_array<type>(count)

struct __half {
    uint16_t bits;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct uint3 {
    uint32_t x, y, z;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

namespace emulated {

constexpr int WARP_LANES = 32;
constexpr size_t MAX_SHARED = 48 << 10;

// Every lane of a warp comes to the same one, or the process ends.
enum class Collective { Exit, Barrier, WarpBarrier, Shuffle, Any, Mma, Ldmatrix, LdmatrixTransposed };

struct Exchange {
    // Of each lane of the warp: what it brings and what it takes away.
    uint32_t in[10][WARP_LANES];
    uint32_t out[4][WARP_LANES];
};

extern uint3 current_thread, current_block;
extern Exchange* current_exchange;
extern int current_lane;

// Waits for the other lanes of the warp (of the block at a barrier). `line` is the caller's, for comparison.
void meet(Collective collective, int line);

void* shared_bytes(size_t bytes, int line);
uint32_t shared_offset(const void* pointer);
void store_shared(uint32_t to, const void* from, uint32_t bytes, int line);
void load_shared(void* to, uint32_t from, uint32_t bytes, int line);
void start_copy(uint32_t to, const void* from, uint32_t bytes, int line);
void commit_copies();
void wait_for_copies(uint32_t pending_groups);

// Runs `body` as every thread of the grid. Not reentrant: the caller sees to it that one grid runs at a time.
struct Grid {
    uint3 blocks, threads;
    // Blocks before this one are left out: a test of the last rows of a huge grid.
    uint32_t first_block = 0;
};
void run(const Grid& grid, void (*body)(const void* arguments), const void* arguments);

// Shared-memory accesses since the start of the process that took more than the fewest possible cycles.
extern uint64_t bank_conflicts;

template <typename T>
inline T* shared_array(size_t count, int line = __builtin_LINE()) {
    return static_cast<T*>(shared_bytes(count * sizeof(T), line));
}

inline uint32_t exchange(Collective collective, uint32_t in0, uint32_t in1, int line) {
    Exchange* const all = current_exchange;
    const int lane = current_lane;
    all->in[0][lane] = in0;
    all->in[1][lane] = in1;
    meet(collective, line);
    return all->out[0][lane];
}

inline void load_matrices(Collective collective, uint32_t (&matrices)[4], uint32_t row, int line) {
    Exchange* const all = current_exchange;
    const int lane = current_lane;
    all->in[0][lane] = row;
    meet(collective, line);
    for (int i = 0; i < 4; ++i) {
        matrices[i] = all->out[i][lane];
    }
}

inline float from_half(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return static_cast<float>(half);
}

inline uint16_t to_half(float x) {
    const _Float16 half = static_cast<_Float16>(x);
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}

// cvt.rn.satfinite: beyond the largest finite half, infinity included, is clamped to it; NaN stays NaN.
inline uint16_t to_finite_half(float x) {
    const uint16_t bits = to_half(x);
    return (bits & 0x7fff) == 0x7c00 ? (bits & 0x8000) | 0x7bff : bits;
}

inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

}  // namespace emulated

#define threadIdx (emulated::current_thread)
#define blockIdx (emulated::current_block)

inline void __syncthreads(int line = __builtin_LINE()) {
    emulated::meet(emulated::Collective::Barrier, line);
}

inline void __syncwarp(int line = __builtin_LINE()) {
    emulated::meet(emulated::Collective::WarpBarrier, line);
}

inline float __shfl_xor_sync(uint32_t, float x, int distance, int line = __builtin_LINE()) {
    return emulated::float_of(
        emulated::exchange(emulated::Collective::Shuffle, emulated::bits_of(x), static_cast<uint32_t>(distance), line));
}

inline bool __any_sync(uint32_t, bool x, int line = __builtin_LINE()) {
    return emulated::exchange(emulated::Collective::Any, x, 0, line) != 0;
}

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

inline uint32_t shared_address(const void* pointer) {
    return emulated::shared_offset(pointer);
}

inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int line = __builtin_LINE()) {
    emulated::Exchange* const all = emulated::current_exchange;
    const int lane = emulated::current_lane;
    for (int i = 0; i < 4; ++i) {
        all->in[i][lane] = a[i];
        all->in[6 + i][lane] = emulated::bits_of(d[i]);
    }
    all->in[4][lane] = b0;
    all->in[5][lane] = b1;
    emulated::meet(emulated::Collective::Mma, line);
    for (int i = 0; i < 4; ++i) {
        d[i] = emulated::float_of(all->out[i][lane]);
    }
}

inline void ldmatrix_x4(uint32_t (&matrices)[4], uint32_t row, int line = __builtin_LINE()) {
    emulated::load_matrices(emulated::Collective::Ldmatrix, matrices, row, line);
}

inline void ldmatrix_x4_trans(uint32_t (&matrices)[4], uint32_t row, int line = __builtin_LINE()) {
    emulated::load_matrices(emulated::Collective::LdmatrixTransposed, matrices, row, line);
}

inline void cp_async_16(uint32_t to, const void* from, uint32_t bytes, int line = __builtin_LINE()) {
    emulated::start_copy(to, from, bytes, line);
}

inline void cp_async_commit() {
    emulated::commit_copies();
}

template <int PENDING>
inline void cp_async_wait() {
    emulated::wait_for_copies(PENDING);
}

inline void shared_store_4(uint32_t to, uint32_t value, int line = __builtin_LINE()) {
    emulated::store_shared(to, &value, sizeof value, line);
}

inline void shared_store_16(uint32_t to, uint4 value, int line = __builtin_LINE()) {
    emulated::store_shared(to, &value, sizeof value, line);
}

inline uint4 shared_load_16(uint32_t from, int line = __builtin_LINE()) {
    uint4 value;
    emulated::load_shared(&value, from, sizeof value, line);
    return value;
}

inline uint32_t load_again(const uint32_t* from) {
    return *from;
}

inline float exp2_fast(float x) {
    return exp2f(x);
}

inline float reciprocal_fast(float x) {
    return 1.0f / x;
}

inline uint32_t pack_halves(float low, float high) {
    return emulated::to_finite_half(low) | static_cast<uint32_t>(emulated::to_finite_half(high)) << 16;
}

inline float2 unpack_halves(uint32_t packed) {
    return {emulated::from_half(packed & 0xffff), emulated::from_half(packed >> 16)};
}

// min.f16x2, max.f16x2: of a number and a NaN they take the number.
inline uint32_t clamp_halves(uint32_t packed) {
    uint32_t clamped = 0;
    for (int shift = 0; shift < 32; shift += 16) {
        const float x = emulated::from_half(packed >> shift & 0xffff);
        const float finite = fmaxf(fminf(x, 65504.0f), -65504.0f);
        clamped |= static_cast<uint32_t>(emulated::to_half(finite)) << shift;
    }
    return clamped;
}
