/* Decode on the CPU at the speed memory can be read: products of a matrix with one row, and
 * attention of a few query rows over many keys. torch's kernels for these shapes reach half the
 * memory bandwidth or less (docs/log.md). All sums are fp32. bf16 is the upper half of an fp32,
 * so widening it is a shift. Vectors are GCC's and clang's own extension: no intrinsics, any CPU.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK_KEYS 64
#define GROUP_ROWS 4
#define MAX_GROUPS 8
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
/* clang's own shuffle wants its lanes as constants; it sees through this all the same. */
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

/* Round to nearest even, as torch does; NaN stays NaN. */
INLINE uint16_t narrow(float x) {
    union { float value; uint32_t bits; } u = { x };
    if ((u.bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (uint16_t)((u.bits + 0x7fffu + ((u.bits >> 16) & 1u)) >> 16);
}

INLINE float sum_of(f32 x) {
    float sum = 0.0f;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* exp for x <= 0 to about 2e-7 relative: 2^n times a polynomial. */
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

/* Four rows of the matrix at a time: their loads are under way together. */
INLINE void linear_rows(const int count, const uint16_t *w, const float *x, const uint16_t *bias,
                        uint16_t *y, int64_t o, int64_t inputs) {
    f32 sums[4] = { { 0 } };
    int64_t whole = inputs / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        f32 part = load_fp32(x + i);
        for (int k = 0; k < count; k++) sums[k] += load_bf16(w + (o + k) * inputs + i) * part;
    }
    for (int k = 0; k < count; k++) {
        float sum = sum_of(sums[k]);
        for (int64_t i = whole; i < inputs; i++) sum += widen(w[(o + k) * inputs + i]) * x[i];
        y[o + k] = narrow(bias ? sum + widen(bias[o + k]) : sum);
    }
}

/* y[o] = dot(w[o, :], x) + bias[o]; w [outputs, inputs] row by row, bias may be null. */
void mom_linear_row_bf16(const uint16_t *w, const float *x, const uint16_t *bias, uint16_t *y,
                         int64_t outputs, int64_t inputs) {
    int64_t fours = outputs / 4;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < fours; o++) linear_rows(4, w, x, bias, y, 4 * o, inputs);
    for (int64_t o = 4 * fours; o < outputs; o++) linear_rows(1, w, x, bias, y, o, inputs);
}

/* Sums of four vectors at once: lane i of every quarter holds part of the sum of vector i. */
INLINE f32 sums_of_four(f32 a, f32 b, f32 c, f32 d) {
    const i32 even = { 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30 };
    const i32 odd = { 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31 };
    const i32 low = { 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29 };
    const i32 high = { 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31 };
    f32 ab = SHUFFLE(a, b, even) + SHUFFLE(a, b, odd);
    f32 cd = SHUFFLE(c, d, even) + SHUFFLE(c, d, odd);
    return SHUFFLE(ab, cd, low) + SHUFFLE(ab, cd, high);
}

/* The quarters of four such vectors added up: lane 4 j + i is sum i of vector j. */
INLINE f32 sums_of_quarters(f32 a, f32 b, f32 c, f32 d) {
    const i32 low = { 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27 };
    const i32 high = { 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31 };
    const i32 first = { 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23 };
    const i32 second = { 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31 };
    f32 ab = SHUFFLE(a, b, low) + SHUFFLE(a, b, high);
    f32 cd = SHUFFLE(c, d, low) + SHUFFLE(c, d, high);
    return SHUFFLE(ab, cd, first) + SHUFFLE(ab, cd, second);
}

/* scores[r][k] = dot(q[r], key[k]) for one block of keys, sixteen keys at a time: adding up the
 * lanes of a vector costs more than its products, so sixteen vectors are added up together. */
INLINE void score_block(const int rows, const int is_bf16, const float *q, const char *keys,
                        int count, int dim, float scores[][BLOCK_KEYS]) {
    const int size = is_bf16 ? 2 : 4;
    int whole = count / LANES * LANES;
    for (int k = 0; k < whole; k += LANES) {
        f32 quarters[GROUP_ROWS][4];
        for (int j = 0; j < 4; j++) {
            const char *key = keys + (int64_t)(k + 4 * j) * dim * size;
            f32 sums[GROUP_ROWS][4] = { { { 0 } } };
            for (int d = 0; d < dim; d += LANES) {
                for (int i = 0; i < 4; i++) {
                    f32 part = load(key + ((int64_t)i * dim + d) * size, is_bf16);
                    for (int r = 0; r < rows; r++) sums[r][i] += part * load_fp32(q + r * dim + d);
                }
            }
            for (int r = 0; r < rows; r++)
                quarters[r][j] = sums_of_four(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        }
        for (int r = 0; r < rows; r++) {
            f32 sums = sums_of_quarters(quarters[r][0], quarters[r][1], quarters[r][2], quarters[r][3]);
            memcpy(scores[r] + k, &sums, sizeof sums);
        }
    }
    for (int k = whole; k < count; k++) {
        const char *key = keys + (int64_t)k * dim * size;
        for (int r = 0; r < rows; r++) {
            f32 sums = { 0 };
            for (int d = 0; d < dim; d += LANES)
                sums += load(key + d * size, is_bf16) * load_fp32(q + r * dim + d);
            scores[r][k] = sum_of(sums);
        }
    }
}

/* out[r] = shrink[r] * out[r] + sum over k of weights[r][k] * value[k]. */
INLINE void add_values(const int rows, const int is_bf16, const float *shrink, const char *values,
                       int count, int dim, float weights[][BLOCK_KEYS], float *out) {
    const int size = is_bf16 ? 2 : 4;
    for (int d = 0; d < dim; d += LANES) {
        f32 sums[GROUP_ROWS];
        for (int r = 0; r < rows; r++) sums[r] = load_fp32(out + r * dim + d) * shrink[r];
        for (int k = 0; k < count; k++) {
            f32 value = load(values + ((int64_t)k * dim + d) * size, is_bf16);
            for (int r = 0; r < rows; r++) sums[r] += value * weights[r][k];
        }
        for (int r = 0; r < rows; r++) memcpy(out + r * dim + d, &sums[r], sizeof(f32));
    }
}

/* Turns scores into weights exp(score - top); returns how much what was summed before shrinks. */
INLINE float weigh(float *scores, int count, float *top, float *total) {
    float new_top = *top;
    for (int k = 0; k < count; k++) new_top = scores[k] > new_top ? scores[k] : new_top;
    for (int k = count; k < BLOCK_KEYS; k++) scores[k] = -INFINITY;
    f32 sum = { 0 };
    for (int k = 0; k < BLOCK_KEYS; k += LANES) {
        f32 weight = exp_nonpositive(load_fp32(scores + k) - new_top);
        memcpy(scores + k, &weight, sizeof weight);
        if (k + LANES <= count)
            sum += weight;
        else
            for (int i = 0; i < count - k; i++) sum[i] += weight[i];
    }
    float shrink = *top == -INFINITY ? 0.0f : expf(*top - new_top);
    *total = *total * shrink + sum_of(sum);
    *top = new_top;
    return shrink;
}

INLINE void attend_group(const int rows, const int is_bf16, const float *q, const char *keys,
                         const char *values, int count, int dim, float *top, float *total,
                         float *out) {
    float scores[GROUP_ROWS][BLOCK_KEYS], shrink[GROUP_ROWS];
    score_block(rows, is_bf16, q, keys, count, dim, scores);
    for (int r = 0; r < rows; r++) shrink[r] = weigh(scores[r], count, &top[r], &total[r]);
    add_values(rows, is_bf16, shrink, values, count, dim, scores, out);
}

/* One task: all rows of a KV head against `count` keys, the softmax kept running. */
INLINE void attend_task(const int is_bf16, const float *q, const char *keys, const char *values,
                        int64_t tokens, int rows, int dim, float *out, float *lse) {
    const int size = is_bf16 ? 2 : 4;
    float top[GROUP_ROWS * MAX_GROUPS], total[GROUP_ROWS * MAX_GROUPS];
    for (int r = 0; r < rows; r++) { top[r] = -INFINITY; total[r] = 0.0f; }
    memset(out, 0, sizeof(float) * rows * dim);
    for (int64_t start = 0; start < tokens; start += BLOCK_KEYS) {
        int count = (int)(tokens - start < BLOCK_KEYS ? tokens - start : BLOCK_KEYS);
        const char *k = keys + start * dim * size, *v = values + start * dim * size;
        for (int r = 0; r < rows; r += GROUP_ROWS) {
            const float *group_q = q + r * dim;
            float *group_out = out + r * dim;
            /* The number of rows must be known to the compiler to stay in registers. */
            switch (rows - r) {
            case 1: attend_group(1, is_bf16, group_q, k, v, count, dim, top + r, total + r, group_out); break;
            case 2: attend_group(2, is_bf16, group_q, k, v, count, dim, top + r, total + r, group_out); break;
            case 3: attend_group(3, is_bf16, group_q, k, v, count, dim, top + r, total + r, group_out); break;
            default: attend_group(4, is_bf16, group_q, k, v, count, dim, top + r, total + r, group_out); break;
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int d = 0; d < dim; d++) out[r * dim + d] /= total[r];
        lse[r] = top[r] + logf(total[r]);
    }
}

/* The partial results of one head's pieces, merged by their log-sum-exp into the first. */
static void merge_pieces(float *parts, float *part_lse, int pieces, int rows, int dim, float *out,
                         float *lse) {
    for (int r = 0; r < rows; r++) {
        float top = -INFINITY, total = 0.0f;
        for (int p = 0; p < pieces; p++)
            top = part_lse[p * rows + r] > top ? part_lse[p * rows + r] : top;
        memset(out + r * dim, 0, sizeof(float) * dim);
        for (int p = 0; p < pieces; p++) {
            float weight = expf(part_lse[p * rows + r] - top);
            total += weight;
            for (int d = 0; d < dim; d++)
                out[r * dim + d] += weight * parts[((int64_t)p * rows + r) * dim + d];
        }
        for (int d = 0; d < dim; d++) out[r * dim + d] /= total;
        lse[r] = top + logf(total);
    }
}

/* Heads x pieces of the keys are shared out over the threads, then merged. q [heads, rows, dim]
 * fp32, already scaled; keys and values [heads, tokens, dim], bf16 or fp32, with `stride` elements
 * between heads; work holds heads * pieces * rows * (dim + 1) floats; out [heads, rows, dim],
 * lse [heads, rows]. dim is a multiple of LANES, rows at most GROUP_ROWS * MAX_GROUPS,
 * pieces <= tokens. */
void mom_attend_rows(const float *q, const char *keys, const char *values, int64_t key_stride,
                     int64_t value_stride, int64_t tokens, int heads, int rows, int dim, int pieces,
                     int is_bf16, float *work, float *out, float *lse) {
    int tasks = heads * pieces;
    float *task_lse = work + (int64_t)tasks * rows * dim;
    const int size = is_bf16 ? 2 : 4;
#pragma omp parallel for schedule(static)
    for (int t = 0; t < tasks; t++) {
        int h = t / pieces, p = t % pieces;
        int64_t from = tokens * p / pieces, count = tokens * (p + 1) / pieces - from;
        const float *head_q = q + (int64_t)h * rows * dim;
        const char *k = keys + (h * key_stride + from * dim) * size;
        const char *v = values + (h * value_stride + from * dim) * size;
        float *task_out = work + (int64_t)t * rows * dim;
        if (is_bf16)
            attend_task(1, head_q, k, v, count, rows, dim, task_out, task_lse + t * rows);
        else
            attend_task(0, head_q, k, v, count, rows, dim, task_out, task_lse + t * rows);
    }
    for (int h = 0; h < heads; h++)
        merge_pieces(work + (int64_t)h * pieces * rows * dim, task_lse + h * pieces * rows, pieces,
                     rows, dim, out + (int64_t)h * rows * dim, lse + h * rows);
}
