/* Attention of a chunk of queries over many keys in bf16, for CPUs that multiply pairs of bf16
 * (AVX512_BF16). In bf16, torch's flash kernel for the CPU is no faster than in fp32; at 8,000
 * tokens attention takes four fifths of a small model's prefill (docs/log.md). Scores, softmax and
 * sums are fp32; weights are rounded to bf16 before they multiply the values, as in torch's kernel.
 *
 * A task is one KV head with a block of queries from every head of its group. It reads keys and
 * values in blocks of BLOCK_KEYS and packs each block once, so that one instruction multiplies 16
 * keys (or 16 dims) by a pair. The block stays in the L1 cache while all rows of the task use it,
 * six at a time.
 */
#include "vectors.h"

#if defined(__AVX512BF16__) && defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#include <omp.h>

#define ROWS 6
#define VECTORS 4
#define PANEL (16 * VECTORS)
#define BLOCK_KEYS 128
/* Below this power of two a weight is zero in fp32. */
#define LOWEST_POWER -200.0f

/* One thread's buffers; `divide` has their sizes. */
typedef struct {
    uint16_t *queries, *keys, *values, *weights;
    float *scores, *out, *sums, *tops;
} room_t;

/* The arguments of a call that all its rows share. */
typedef struct {
    int64_t keys, dim, offset, window;
    float scale, softcap;
} call_t;

static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

static room_t divide(char *work, int64_t rows, int64_t dim, int64_t *bytes) {
    const int64_t sizes[] = {
        aligned(rows * dim * 2), aligned(BLOCK_KEYS * dim * 2), aligned(BLOCK_KEYS * dim * 2),
        aligned(ROWS * BLOCK_KEYS * 2), aligned(ROWS * BLOCK_KEYS * 4), aligned(rows * dim * 4),
        aligned(rows * 64), aligned(rows * 4),
    };
    char *at[8];
    int64_t used = 0;
    for (int i = 0; i < 8; i++) {
        at[i] = work + used;
        used += sizes[i];
    }
    if (bytes) *bytes = used;
    return (room_t){ (uint16_t *)at[0], (uint16_t *)at[1], (uint16_t *)at[2], (uint16_t *)at[3],
                     (float *)at[4],    (float *)at[5],    (float *)at[6],    (float *)at[7] };
}

/* 2^x for x <= 0, relative error about 1e-7; 0 for very low x. */
INLINE __m512 exp2_nonpositive(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(LOWEST_POWER));
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(x, whole);
    __m512 p = _mm512_set1_ps(1.535336188e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.339887440e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.618437357e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.550332548e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.402264791e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931472028e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, whole);
}

/* acc[r][v] += the sum over pairs of a[r] (row-major) * b (packed as [pairs][vectors][16][2]). */
INLINE void multiply(const int vectors, int64_t pairs, const uint16_t *a, int64_t a_stride,
                     const uint16_t *b, __m512 acc[ROWS][VECTORS]) {
    for (int64_t s = 0; s < pairs; s++) {
        __m512bh right[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            right[v] = (__m512bh)_mm512_loadu_si512(b + (s * vectors + v) * 32);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            int32_t pair;
            memcpy(&pair, a + r * a_stride + 2 * s, sizeof pair);
            __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                acc[r][v] = _mm512_dpbf16_ps(acc[r][v], left, right[v]);
        }
    }
}

/* Transposes a 16 x 16 matrix of four-byte elements. */
INLINE void transpose(__m512i x[16]) {
    __m512i y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd);
        x[i + 4] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88);
        x[i + 12] = _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd);
    }
}

/* Packs [count, dim] into panels of [dim / 2][PANEL keys][2]; keys beyond `count` become 0. */
static void pack_keys(const uint16_t *keys, int64_t count, int64_t dim, uint16_t *packed) {
    for (int64_t first = 0; first < BLOCK_KEYS; first += 16) {
        uint16_t *panel = packed + first / PANEL * PANEL * dim;
        int64_t place = first % PANEL * 2;
        if (first >= count + PANEL) break;
        for (int64_t d = 0; d < dim; d += 32) {
            const __mmask16 pairs = dim - d >= 32 ? 0xffff : 0x00ff;
            __m512i x[16];
            for (int i = 0; i < 16; i++)
                x[i] = first + i < count
                           ? _mm512_maskz_loadu_epi32(pairs, keys + (first + i) * dim + d)
                           : _mm512_setzero_si512();
            transpose(x);
            for (int i = 0; i < 16 && d + 2 * i < dim; i++)
                _mm512_storeu_si512(panel + (d / 2 + i) * PANEL * 2 + place, x[i]);
        }
    }
}

/* Packs [count, dim] into panels of [BLOCK_KEYS / 2][PANEL dims][2]; a missing odd key is 0. */
static void pack_values(const uint16_t *values, int64_t count, int64_t dim, uint16_t *packed) {
    const __m512i interleave = _mm512_set_epi16(
        47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35,
        3, 34, 2, 33, 1, 32, 0);
    for (int64_t k = 0; k < (count + 1) / 2 * 2; k += 2) {
        for (int64_t d = 0; d < dim; d += 16) {
            int64_t panel = d / PANEL * PANEL, width = dim - panel < PANEL ? dim - panel : PANEL;
            const uint16_t *at = values + k * dim + d;
            __m512i even = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)at));
            __m512i odd = k + 1 < count ? _mm512_castsi256_si512(
                                              _mm256_loadu_si256((const void *)(at + dim)))
                                        : _mm512_setzero_si512();
            _mm512_storeu_si512(packed + panel * BLOCK_KEYS + (k / 2 * width + d - panel) * 2,
                                _mm512_permutex2var_epi16(even, interleave, odd));
        }
    }
}

/* The scores of six rows with one block of keys, times log2(e), so that weights are 2^score. */
INLINE void score(const call_t *call, const uint16_t *queries, const uint16_t *keys, int64_t panels,
                  float *scores) {
    const float log2e = 1.44269504088896f;
    for (int64_t p = 0; p < panels; p++) {
        __m512 acc[ROWS][VECTORS];
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) acc[r][v] = _mm512_setzero_ps();
        multiply(VECTORS, call->dim / 2, queries, call->dim, keys + p * PANEL * call->dim, acc);
        if (call->softcap > 0.0f) {
            /* cap * tanh(x / cap), with tanh computed from 2^-|2 x log2(e)|. */
            const __m512 in = _mm512_set1_ps(call->scale / call->softcap * 2.0f * log2e);
            const __m512 cap = _mm512_set1_ps(call->softcap * log2e), one = _mm512_set1_ps(1.0f);
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < VECTORS; v++) {
                    __m512 x = _mm512_mul_ps(acc[r][v], in);
                    __m512 e = exp2_nonpositive(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
                    __m512 t = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
                    __mmask16 is_negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
                    t = _mm512_mask_sub_ps(t, is_negative, _mm512_setzero_ps(), t);
                    _mm512_storeu_ps(scores + r * BLOCK_KEYS + p * PANEL + v * 16,
                                     _mm512_mul_ps(t, cap));
                }
        } else {
            const __m512 factor = _mm512_set1_ps(call->scale * log2e);
#pragma GCC unroll 6
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++)
                    _mm512_storeu_ps(scores + r * BLOCK_KEYS + p * PANEL + v * 16,
                                     _mm512_mul_ps(acc[r][v], factor));
        }
    }
}

/* Sets scores to -inf outside the keys that row r sees: lows[r] <= key < highs[r]. */
INLINE void hide(float *scores, int64_t width, const int64_t *lows, const int64_t *highs) {
    const __m512 hidden = _mm512_set1_ps(-INFINITY);
    const __m512i lanes =
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int r = 0; r < ROWS; r++) {
        __m512i low = _mm512_set1_epi32((int)lows[r]), high = _mm512_set1_epi32((int)highs[r]);
        for (int64_t k = 0; k < width; k += 16) {
            __m512i key = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)k));
            __mmask16 is_hidden =
                _mm512_cmplt_epi32_mask(key, low) | _mm512_cmpge_epi32_mask(key, high);
            _mm512_mask_storeu_ps(scores + r * BLOCK_KEYS + k, is_hidden, hidden);
        }
    }
}

/* Turns scores into bf16 weights, and rescales earlier sums to the new highest score. */
INLINE void weigh(const room_t *room, int64_t row, int64_t width, int64_t dim) {
    for (int r = 0; r < ROWS; r++) {
        float *scores = room->scores + r * BLOCK_KEYS;
        __m512 highest = _mm512_loadu_ps(scores);
        for (int64_t k = 16; k < width; k += 16)
            highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + k));
        float before = room->tops[row + r], top = _mm512_reduce_max_ps(highest);
        if (top > before) {
            float *out = room->out + (row + r) * dim;
            __m512 shrink = before == -INFINITY ? _mm512_setzero_ps()
                                                : _mm512_set1_ps(exp2f(before - top));
            for (int64_t d = 0; d < dim; d += 16)
                _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), shrink));
            float *sums = room->sums + (row + r) * 16;
            _mm512_storeu_ps(sums, _mm512_mul_ps(_mm512_loadu_ps(sums), shrink));
            room->tops[row + r] = top;
        } else {
            top = before;
        }
        const __m512 base = _mm512_set1_ps(top == -INFINITY ? 0.0f : top);
        __m512 sum = _mm512_loadu_ps(room->sums + (row + r) * 16);
        for (int64_t k = 0; k < width; k += 32) {
            __m512 low = exp2_nonpositive(_mm512_sub_ps(_mm512_loadu_ps(scores + k), base));
            __m512 high = exp2_nonpositive(_mm512_sub_ps(_mm512_loadu_ps(scores + k + 16), base));
            sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
            _mm512_storeu_si512(room->weights + r * BLOCK_KEYS + k,
                                (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
        _mm512_storeu_ps(room->sums + (row + r) * 16, sum);
    }
}

INLINE void add_panel(const int vectors, const room_t *room, int64_t row, int64_t panel,
                      int64_t pairs, int64_t dim) {
    __m512 acc[ROWS][VECTORS];
    float *out = room->out + row * dim + panel;
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) acc[r][v] = _mm512_loadu_ps(out + r * dim + v * 16);
    multiply(vectors, pairs, room->weights, BLOCK_KEYS, room->values + panel * BLOCK_KEYS, acc);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) _mm512_storeu_ps(out + r * dim + v * 16, acc[r][v]);
}

/* out += weights * values for six rows. */
INLINE void add_values(const room_t *room, int64_t row, int64_t pairs, int64_t dim) {
    for (int64_t panel = 0; panel < dim; panel += PANEL) {
        /* The sums stay in registers only if the number of vectors is a constant. */
        switch (dim - panel) {
        case 16: add_panel(1, room, row, panel, pairs, dim); break;
        case 32: add_panel(2, room, row, panel, pairs, dim); break;
        case 48: add_panel(3, room, row, panel, pairs, dim); break;
        default: add_panel(4, room, row, panel, pairs, dim); break;
        }
    }
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Attention of all rows of a task over all keys they see. The rows are `heads` heads one after
 * another, each padded to `padded` rows, starting at query `first`. */
static void attend_task(const call_t *call, const room_t *room, const uint16_t *keys,
                        const uint16_t *values, int64_t first, int64_t queries, int64_t padded,
                        int64_t heads) {
    const int64_t dim = call->dim, rows = heads * padded;
    memset(room->out, 0, rows * dim * sizeof(float));
    memset(room->sums, 0, rows * 16 * sizeof(float));
    for (int64_t r = 0; r < rows; r++) room->tops[r] = -INFINITY;
    int64_t begin = call->window ? most(0, call->offset + first - call->window + 1) : 0;
    int64_t end = least(call->keys, call->offset + first + queries);
    for (int64_t start = begin; start < end; start += BLOCK_KEYS) {
        int64_t count = least(BLOCK_KEYS, end - start), panels = (count + PANEL - 1) / PANEL;
        pack_keys(keys + start * dim, count, dim, room->keys);
        pack_values(values + start * dim, count, dim, room->values);
        for (int64_t row = 0; row < rows; row += ROWS) {
            int64_t lows[ROWS], highs[ROWS], lowest = count, highest = 0;
            int is_masked = count < panels * PANEL;
            for (int r = 0; r < ROWS; r++) {
                int64_t at = call->offset + first + least(row % padded + r, queries - 1) - start;
                highs[r] = most(0, least(count, at + 1));
                lows[r] = call->window ? most(0, at - call->window + 1) : 0;
                is_masked |= highs[r] < count || lows[r] > 0;
                lowest = least(lowest, lows[r]);
                highest = most(highest, highs[r]);
            }
            if (lowest >= highest) continue;
            score(call, room->queries + row * dim, room->keys, panels, room->scores);
            if (is_masked) hide(room->scores, panels * PANEL, lows, highs);
            weigh(room, row, panels * PANEL, dim);
            add_values(room, row, (count + 1) / 2, dim);
        }
    }
}

/* Rows per head in a task: small enough to keep all threads busy, large enough to pack rarely. */
static int64_t block_rows(int64_t queries, int64_t group, int64_t kv_heads, int64_t threads) {
    int64_t rows = 96;
    while (rows > ROWS && (rows * group > 512 || (queries + rows - 1) / rows * kv_heads < 4 * threads))
        rows /= 2;
    return (rows + ROWS - 1) / ROWS * ROWS;
}

/* Size of `work` for mom_attend_chunk, in bytes. */
int64_t mom_chunk_work_bytes(int64_t queries, int64_t heads, int64_t kv_heads, int64_t dim) {
    int64_t bytes, threads = omp_get_max_threads(), group = heads / kv_heads;
    divide(0, block_rows(queries, group, kv_heads, threads) * group, dim, &bytes);
    return threads * bytes + 64;
}

/* Query i has position offset + i among the keys and sees the keys up to that position; with a
 * window, only the last `window` of them. q [heads, queries, dim], k and v [kv_heads, keys, dim] are
 * bf16, with strides in elements between heads (and between rows of q); out [queries, heads, dim]
 * is fp32 or bf16; lse [heads, queries] is fp32. softcap and window are 0 for none. dim is a
 * multiple of 16; offset may lie beyond the keys. */
void mom_attend_chunk(const uint16_t *q, const uint16_t *k, const uint16_t *v, int64_t q_head_stride,
                      int64_t q_row_stride, int64_t k_stride, int64_t v_stride, int64_t queries,
                      int64_t keys, int64_t heads, int64_t kv_heads, int64_t dim, int64_t offset,
                      int64_t window, float scale, float softcap, int is_bf16_out, char *work,
                      char *out, float *lse) {
    const call_t call = { keys, dim, offset, window, scale, softcap };
    const int64_t group = heads / kv_heads;
    const int64_t block = block_rows(queries, group, kv_heads, omp_get_max_threads());
    const int64_t blocks = (queries + block - 1) / block, tasks = blocks * kv_heads;
    int64_t bytes;
    divide(0, block * group, dim, &bytes);
    char *start = (char *)(((uintptr_t)work + 63) / 64 * 64);
#pragma omp parallel
    {
        const room_t room = divide(start + omp_get_thread_num() * bytes, block * group, dim, 0);
#pragma omp for schedule(dynamic)
        for (int64_t t = 0; t < tasks; t++) {
            /* Causal attention makes the last blocks the longest, so they start first. */
            int64_t g = t % kv_heads, first = (blocks - 1 - t / kv_heads) * block;
            int64_t count = least(block, queries - first), padded = (count + ROWS - 1) / ROWS * ROWS;
            for (int64_t h = 0; h < group; h++)
                for (int64_t r = 0; r < padded; r++)
                    memcpy(room.queries + (h * padded + r) * dim,
                           q + (g * group + h) * q_head_stride +
                               (first + least(r, count - 1)) * q_row_stride,
                           dim * sizeof *q);
            attend_task(&call, &room, k + g * k_stride, v + g * v_stride, first, count, padded, group);
            for (int64_t h = 0; h < group; h++) {
                for (int64_t r = 0; r < count; r++) {
                    int64_t row = h * padded + r, head = g * group + h;
                    float sum = _mm512_reduce_add_ps(_mm512_loadu_ps(room.sums + row * 16));
                    lse[head * queries + first + r] =
                        sum > 0.0f ? 0.693147180559945f * (room.tops[row] + log2f(sum)) : -INFINITY;
                    const __m512 share = _mm512_set1_ps(sum > 0.0f ? 1.0f / sum : 0.0f);
                    int64_t place = ((first + r) * heads + head) * dim;
                    for (int64_t d = 0; d < dim; d += 16) {
                        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(room.out + row * dim + d), share);
                        if (is_bf16_out)
                            _mm256_storeu_si256((void *)((uint16_t *)out + place + d),
                                                (__m256i)_mm512_cvtneps_pbh(x));
                        else
                            _mm512_storeu_ps((float *)out + place + d, x);
                    }
                }
            }
        }
    }
}

int mom_has_chunk_attention(void) { return 1; }
#else
int mom_has_chunk_attention(void) { return 0; }
#endif
