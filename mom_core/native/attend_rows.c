/* Attention of a few query rows over many keys, as fast as memory can be read. */
#include "vectors.h"

#define BLOCK_KEYS 64
#define GROUP_ROWS 4
#define MAX_GROUPS 8

/* Sums four vectors at once: lane i of each quarter holds part of vector i's sum. */
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

/* Adds up the quarters of QUARTERS such vectors: lane 4 j + i becomes sum i of vector j. */
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

/* scores[r][k] = dot(q[r], key[k]) for one block of keys. Summing the lanes of a vector costs more
 * than computing its products, so the vectors of LANES keys are summed together. */
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

/* out[r] = shrink[r] * out[r] + the sum over k of weights[r][k] * value[k]. */
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

/* Turns scores into weights exp(score - top); returns the factor for all earlier sums. */
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

/* One task: all rows of a KV head against `tokens` keys, with a running softmax. */
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
            /* The sums stay in registers only if the number of rows is a constant. */
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

/* Merges the partial results of one head's pieces by their log-sum-exp into `out` and `lse`. */
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

/* Each head's keys are cut into pieces; the threads share the pieces, whose results are merged.
 * q [heads, rows, dim] is fp32, already scaled; keys and values [heads, tokens, dim] are bf16 or
 * fp32, with strides in elements between heads; out [heads, rows, dim] and lse [heads, rows] are
 * fp32. work is scratch of heads * pieces * rows * (dim + 1) floats. dim is a multiple of LANES,
 * rows is at most GROUP_ROWS * MAX_GROUPS, and pieces <= tokens. */
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
