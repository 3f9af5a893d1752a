/* Decode on the CPU at the speed memory can be read: products of a matrix with a few rows, attention
 * of a few query rows over many keys, and a whole decoder layer for a few rows. torch's kernels for
 * these shapes reach half the memory bandwidth or less (docs/log.md). All sums are fp32. bf16 is
 * the upper half of an fp32, so widening it is a shift. Vectors are GCC's and clang's own
 * extension: no intrinsics, any CPU.
 */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

/* As wide as the CPU's registers: a wider vector is cut up, and its shuffles go lane by lane. */
#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
#define BLOCK_KEYS 64
#define TILE_ROWS 4
/* Bytes fetched ahead of use. The hardware's own prefetch stops at every page, and short rows and
 * blocks never let it get going; the distance hardly matters (docs/log.md). */
#define AHEAD 4096
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

/* dots[r][k] = dot(w[k, :], x[r, :]) for four rows (or one) of the matrix, whose loads are then
 * under way together, and up to four rows of x. */
INLINE void dot_tile(const int count, const int rows, const int is_bf16, const char *w,
                     const float *x, int64_t inputs, float dots[][4]) {
    const int size = is_bf16 ? 2 : 4;
    f32 sums[TILE_ROWS][4] = { { { 0 } } };
    int64_t whole = inputs / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        for (int k = 0; k < count; k++) {
            const char *at = w + (k * inputs + i) * size;
            __builtin_prefetch(at + AHEAD);
            f32 weight = load(at, is_bf16);
            for (int r = 0; r < rows; r++) sums[r][k] += weight * load_fp32(x + r * inputs + i);
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int k = 0; k < count; k++) {
            dots[r][k] = sum_of(sums[r][k]);
            for (int64_t i = whole; i < inputs; i++)
                dots[r][k] += scalar(w, k * inputs + i, is_bf16) * x[r * inputs + i];
        }
    }
}

/* The same for any number of rows of x; y has `outputs` elements a row. */
INLINE void dot_rows(const int count, const int is_bf16, const char *w, const float *x, int rows,
                     int64_t inputs, float *y, int64_t outputs) {
    float dots[TILE_ROWS][4];
    for (int r = 0; r < rows;) {
        const float *part = x + r * inputs;
        int taken = rows - r >= 4 ? 4 : rows - r >= 2 ? 2 : 1;
        /* The number of rows must be known to the compiler to stay in registers. */
        if (taken == 4)
            dot_tile(count, 4, is_bf16, w, part, inputs, dots);
        else if (taken == 2)
            dot_tile(count, 2, is_bf16, w, part, inputs, dots);
        else
            dot_tile(count, 1, is_bf16, w, part, inputs, dots);
        for (int i = 0; i < taken; i++, r++)
            for (int k = 0; k < count; k++) y[r * outputs + k] = dots[i][k];
    }
}

/* y[r, o] = dot(w[o, :], x[r, :]) + bias[o] for the outputs from `from` to `to`; bias may be null. */
INLINE void multiply_rows(const int is_bf16, const char *w, const char *bias, const float *x,
                          float *y, int rows, int64_t outputs, int64_t from, int64_t to,
                          int64_t inputs) {
    const int size = is_bf16 ? 2 : 4;
    int64_t o = from;
    for (; o + 4 <= to; o += 4)
        dot_rows(4, is_bf16, w + o * inputs * size, x, rows, inputs, y + o, outputs);
    for (; o < to; o++)
        dot_rows(1, is_bf16, w + o * inputs * size, x, rows, inputs, y + o, outputs);
    if (bias)
        for (int r = 0; r < rows; r++)
            for (o = from; o < to; o++) y[r * outputs + o] += scalar(bias, o, is_bf16);
}

/* This thread's share of `rows`, in fours. */
INLINE void share_of(int64_t rows, int64_t *from, int64_t *to) {
    int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num(), fours = (rows + 3) / 4;
    *from = 4 * (fours * thread / threads);
    *to = 4 * (fours * (thread + 1) / threads);
    if (*to > rows) *to = rows;
    if (*from > rows) *from = rows;
}

/* y[r, o] = dot(w[o, :], x[r, :]) + bias[o]; w [outputs, inputs], bias may be null; all in one
 * dtype. x and y may not overlap; wide holds rows * (inputs + outputs) floats. */
void mom_linear_rows(const char *w, const char *bias, const char *x, char *y, int rows,
                     int64_t outputs, int64_t inputs, int is_bf16, float *wide) {
    float *sums = wide + rows * inputs;
    for (int64_t i = 0; i < rows * inputs; i++) wide[i] = scalar(x, i, is_bf16);
#pragma omp parallel
    {
        int64_t from, to;
        share_of(outputs, &from, &to);
        if (is_bf16)
            multiply_rows(1, w, bias, wide, sums, rows, outputs, from, to, inputs);
        else
            multiply_rows(0, w, bias, wide, sums, rows, outputs, from, to, inputs);
        for (int r = 0; r < rows; r++)
            for (int64_t o = r * outputs + from; o < r * outputs + to; o++)
                store(y, o, sums[o], is_bf16);
    }
}

/* Sums of four vectors at once: lane i of every quarter holds part of the sum of vector i. */
INLINE f32 sums_of_four(f32 a, f32 b, f32 c, f32 d) {
#if LANES == 16
    const i32 even = { 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30 };
    const i32 odd = { 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31 };
    const i32 low = { 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29 };
    const i32 high = { 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31 };
#else
    const i32 even = { 0, 8, 2, 10, 4, 12, 6, 14 }, odd = { 1, 9, 3, 11, 5, 13, 7, 15 };
    const i32 low = { 0, 1, 8, 9, 4, 5, 12, 13 }, high = { 2, 3, 10, 11, 6, 7, 14, 15 };
#endif
    f32 ab = SHUFFLE(a, b, even) + SHUFFLE(a, b, odd);
    f32 cd = SHUFFLE(c, d, even) + SHUFFLE(c, d, odd);
    return SHUFFLE(ab, cd, low) + SHUFFLE(ab, cd, high);
}

/* The quarters of such vectors added up, as many vectors as there are quarters: lane 4 j + i is
 * sum i of vector j. */
#define QUARTERS (LANES / 4)
INLINE f32 sums_of_quarters(const f32 *parts) {
#if LANES == 16
    const i32 low = { 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27 };
    const i32 high = { 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31 };
    const i32 first = { 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23 };
    const i32 second = { 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31 };
    f32 ab = SHUFFLE(parts[0], parts[1], low) + SHUFFLE(parts[0], parts[1], high);
    f32 cd = SHUFFLE(parts[2], parts[3], low) + SHUFFLE(parts[2], parts[3], high);
    return SHUFFLE(ab, cd, first) + SHUFFLE(ab, cd, second);
#else
    const i32 low = { 0, 1, 2, 3, 8, 9, 10, 11 }, high = { 4, 5, 6, 7, 12, 13, 14, 15 };
    return SHUFFLE(parts[0], parts[1], low) + SHUFFLE(parts[0], parts[1], high);
#endif
}

/* scores[r][k] = dot(q[r], key[k]) for one block of keys, LANES keys at a time: adding up the
 * lanes of a vector costs more than its products, so that many vectors are added up together. */
INLINE void score_block(const int rows, const int is_bf16, const float *q, const char *keys,
                        int count, int dim, float scores[][BLOCK_KEYS]) {
    const int size = is_bf16 ? 2 : 4;
    int whole = count / LANES * LANES;
    for (int k = 0; k < whole; k += LANES) {
        f32 quarters[GROUP_ROWS][QUARTERS];
        for (int j = 0; j < QUARTERS; j++) {
            const char *key = keys + (int64_t)(k + 4 * j) * dim * size;
            f32 sums[GROUP_ROWS][4] = { { { 0 } } };
            for (int d = 0; d < dim; d += LANES) {
                for (int i = 0; i < 4; i++) {
                    const char *at = key + ((int64_t)i * dim + d) * size;
                    __builtin_prefetch(at + AHEAD);
                    f32 part = load(at, is_bf16);
                    for (int r = 0; r < rows; r++) sums[r][i] += part * load_fp32(q + r * dim + d);
                }
            }
            for (int r = 0; r < rows; r++)
                quarters[r][j] = sums_of_four(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
        }
        for (int r = 0; r < rows; r++) {
            f32 sums = sums_of_quarters(quarters[r]);
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
            const char *at = values + ((int64_t)k * dim + d) * size;
            __builtin_prefetch(at + AHEAD);
            f32 value = load(at, is_bf16);
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

/* What one decoder layer of the plain shape is made of: weights in one dtype, null where there is
 * none. The same fields, in the same order, as `_Layer` in __init__.py. */
typedef struct {
    const char *norm_in, *q, *q_bias, *k, *k_bias, *v, *v_bias, *q_norm, *k_norm, *o, *o_bias,
        *norm_mid, *gate, *gate_bias, *up, *up_bias, *down, *down_bias;
    int64_t hidden, mlp, heads, kv_heads, head_dim, is_bf16;
    double norm_in_eps, q_norm_eps, k_norm_eps, norm_mid_eps;
} mom_layer;

/* y = x / rms(x) * weight; y may be x. */
INLINE void rms_norm(const int is_bf16, const float *x, const char *weight, double eps,
                     int64_t width, float *y) {
    float squares = 0.0f;
    for (int64_t i = 0; i < width; i++) squares += x[i] * x[i];
    float inverse = 1.0f / sqrtf(squares / (float)width + (float)eps);
    for (int64_t i = 0; i < width; i++) y[i] = x[i] * inverse * scalar(weight, i, is_bf16);
}

/* Norms (where there are any) and turns heads [R, n, D], and writes them out as [n, R, D] in the
 * layer's dtype. */
INLINE void finish_heads(const int is_bf16, float *x, int rows, int64_t heads, int64_t dim,
                         const char *norm, double eps, const char *cos, const char *sin,
                         char *out) {
    const int64_t half = dim / 2;
    for (int64_t n = 0; n < rows * heads; n++) {
        float *head = x + n * dim;
        int64_t r = n / heads, h = n % heads, at = r * dim;
        if (norm) rms_norm(is_bf16, head, norm, eps, dim, head);
        /* Rotary position: the two halves of a head turn against each other. */
        for (int64_t i = 0; i < half; i++) {
            float a = head[i], b = head[i + half];
            head[i] = a * scalar(cos, at + i, is_bf16) - b * scalar(sin, at + i, is_bf16);
            head[i + half] =
                b * scalar(cos, at + i + half, is_bf16) + a * scalar(sin, at + i + half, is_bf16);
        }
        for (int64_t i = 0; i < dim; i++) store(out, (h * rows + r) * dim + i, head[i], is_bf16);
    }
}

INLINE void layer_before(const int is_bf16, const mom_layer *l, int rows, const char *hidden,
                         const char *cos, const char *sin, char *q, char *k, char *v,
                         float *work) {
    const int64_t dim = l->head_dim, width = l->hidden;
    const int64_t q_width = l->heads * dim, kv_width = l->kv_heads * dim;
    float *x = work, *new_q = x + rows * width, *new_k = new_q + rows * q_width;
    float *new_v = new_k + rows * kv_width;
    for (int64_t i = 0; i < rows * width; i++) x[i] = scalar(hidden, i, is_bf16);
    for (int r = 0; r < rows; r++)
        rms_norm(is_bf16, x + r * width, l->norm_in, l->norm_in_eps, width, x + r * width);
#pragma omp parallel
    {
        int64_t from, to;
        share_of(q_width, &from, &to);
        multiply_rows(is_bf16, l->q, l->q_bias, x, new_q, rows, q_width, from, to, width);
        share_of(kv_width, &from, &to);
        multiply_rows(is_bf16, l->k, l->k_bias, x, new_k, rows, kv_width, from, to, width);
        multiply_rows(is_bf16, l->v, l->v_bias, x, new_v, rows, kv_width, from, to, width);
    }
    finish_heads(is_bf16, new_q, rows, l->heads, dim, l->q_norm, l->q_norm_eps, cos, sin, q);
    finish_heads(is_bf16, new_k, rows, l->kv_heads, dim, l->k_norm, l->k_norm_eps, cos, sin, k);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < l->kv_heads; h++)
            for (int64_t i = 0; i < dim; i++)
                store(v, (h * rows + r) * dim + i, new_v[r * kv_width + h * dim + i], is_bf16);
}

INLINE void layer_after(const int is_bf16, const mom_layer *l, int rows, const char *hidden,
                        const char *attended, char *out, float *work) {
    const int64_t dim = l->head_dim, q_width = l->heads * dim, width = l->hidden, mlp = l->mlp;
    float *sum = work, *x = sum + rows * width, *gate = x + rows * width;
    float *up = gate + rows * mlp, *wide = up + rows * mlp;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t h = 0; h < l->heads; h++)
            for (int64_t i = 0; i < dim; i++)
                wide[r * q_width + h * dim + i] = scalar(attended, (h * rows + r) * dim + i, is_bf16);
#pragma omp parallel
    {
        int64_t from, to;
        share_of(width, &from, &to);
        multiply_rows(is_bf16, l->o, l->o_bias, wide, sum, rows, width, from, to, q_width);
        for (int r = 0; r < rows; r++)
            for (int64_t i = r * width + from; i < r * width + to; i++)
                sum[i] += scalar(hidden, i, is_bf16);
#pragma omp barrier
#pragma omp for
        for (int r = 0; r < rows; r++)
            rms_norm(is_bf16, sum + r * width, l->norm_mid, l->norm_mid_eps, width, x + r * width);
        share_of(mlp, &from, &to);
        multiply_rows(is_bf16, l->gate, l->gate_bias, x, gate, rows, mlp, from, to, width);
        multiply_rows(is_bf16, l->up, l->up_bias, x, up, rows, mlp, from, to, width);
        for (int r = 0; r < rows; r++)
            for (int64_t i = r * mlp + from; i < r * mlp + to; i++)
                gate[i] *= up[i] / (1.0f + expf(-gate[i]));
#pragma omp barrier
        share_of(width, &from, &to);
        multiply_rows(is_bf16, l->down, l->down_bias, gate, x, rows, width, from, to, mlp);
        for (int r = 0; r < rows; r++)
            for (int64_t i = r * width + from; i < r * width + to; i++)
                store(out, i, sum[i] + x[i], is_bf16);
    }
}

/* The layer up to attention, for R rows: hidden [R, E]; cos, sin [R, D]; q [H, R, D]; k, v
 * [G, R, D], all in the layer's dtype; work holds R (E + (H + 2 G) D) floats. */
void mom_layer_before(const mom_layer *l, int rows, const char *hidden, const char *cos,
                      const char *sin, char *q, char *k, char *v, float *work) {
    if (l->is_bf16)
        layer_before(1, l, rows, hidden, cos, sin, q, k, v, work);
    else
        layer_before(0, l, rows, hidden, cos, sin, q, k, v, work);
}

/* The layer from attention on: attended [H, R, D]; out [R, E]; work holds R (2 E + 2 F + H D)
 * floats. */
void mom_layer_after(const mom_layer *l, int rows, const char *hidden, const char *attended,
                     char *out, float *work) {
    if (l->is_bf16)
        layer_after(1, l, rows, hidden, attended, out, work);
    else
        layer_after(0, l, rows, hidden, attended, out, work);
}
