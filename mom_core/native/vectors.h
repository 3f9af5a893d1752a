/* Vectors as wide as the CPU's registers: loads, conversions, sums and exp.
 *
 * The kernels for a few rows use them, because torch's kernels for these shapes reach at most half
 * the memory bandwidth (docs/log.md). All sums are fp32. bf16 is the upper half of an fp32, so
 * widening it is a shift. The vectors are an extension of GCC and clang, not intrinsics, so they
 * work on any CPU.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

/* A vector wider than a register is split, and its shuffles then run lane by lane. */
#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
/* Bytes to prefetch ahead. The hardware prefetcher stops at every page, and short rows and blocks
 * never give it time to start; the exact distance hardly matters (docs/log.md). */
#define AHEAD 4096
#if defined(__clang__)
#define SHUFFLE(a, b, lanes) shuffle(a, b, lanes)
#else
#define SHUFFLE(a, b, lanes) __builtin_shuffle(a, b, lanes)
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float f32 __attribute__((vector_size(4 * LANES)));
typedef int32_t i32 __attribute__((vector_size(4 * LANES)));
typedef uint32_t u32 __attribute__((vector_size(4 * LANES)));
typedef uint16_t u16 __attribute__((vector_size(2 * LANES)));

#if defined(__clang__)
/* clang's own shuffle needs constant lanes; it optimises this loop into one anyway. */
INLINE f32 shuffle(f32 a, f32 b, i32 lanes) {
    f32 x;
    for (int i = 0; i < LANES; i++) x[i] = lanes[i] < LANES ? a[lanes[i]] : b[lanes[i] - LANES];
    return x;
}
#endif

INLINE f32 load_fp32(const void *at) {
    f32 x;
    memcpy(&x, at, sizeof x);
    return x;
}

INLINE f32 load_bf16(const void *at) {
    u16 x;
    memcpy(&x, at, sizeof x);
    return (f32)(__builtin_convertvector(x, u32) << 16);
}

INLINE f32 load(const char *at, int is_bf16) { return is_bf16 ? load_bf16(at) : load_fp32(at); }

INLINE float widen(uint16_t x) {
    union { uint32_t bits; float value; } u = { (uint32_t)x << 16 };
    return u.value;
}

/* Rounds to nearest even, as torch does; NaN stays NaN. */
INLINE uint16_t narrow(float x) {
    union { float value; uint32_t bits; } u = { x };
    if ((u.bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (uint16_t)((u.bits + 0x7fffu + ((u.bits >> 16) & 1u)) >> 16);
}

INLINE float scalar(const char *at, int64_t i, int is_bf16) {
    return is_bf16 ? widen(((const uint16_t *)at)[i]) : ((const float *)at)[i];
}

INLINE void store(char *at, int64_t i, float x, int is_bf16) {
    if (is_bf16)
        ((uint16_t *)at)[i] = narrow(x);
    else
        ((float *)at)[i] = x;
}

INLINE float sum_of(f32 x) {
    float sum = 0.0f;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* exp(x) for x <= 0, relative error about 2e-7: 2^n times a polynomial. */
INLINE f32 exp_nonpositive(f32 x) {
    const f32 lowest = (f32){ 0 } - 87.0f;
    i32 is_low = x < lowest;
    x = (f32)((is_low & (i32)lowest) | (~is_low & (i32)x));
    i32 n = __builtin_convertvector(x * 1.44269504f - 0.5f, i32);
    f32 whole = __builtin_convertvector(n, f32);
    f32 r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    f32 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (f32)((n + 127) << 23);
}
