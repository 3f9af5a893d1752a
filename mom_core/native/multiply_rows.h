/* Products of a matrix with a few rows, as fast as memory can be read. */
#pragma once
#include <omp.h>

#include "vectors.h"

#define TILE_ROWS 4

/* dots[r][k] = dot(w[k, :], x[r, :]) for `count` rows of the matrix (four or one, so that their
 * loads overlap) and up to four rows of x. */
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

/* As dot_tile, for any number of rows of x; a row of y has `outputs` elements. */
INLINE void dot_rows(const int count, const int is_bf16, const char *w, const float *x, int rows,
                     int64_t inputs, float *y, int64_t outputs) {
    float dots[TILE_ROWS][4];
    for (int r = 0; r < rows;) {
        const float *part = x + r * inputs;
        int taken = rows - r >= 4 ? 4 : rows - r >= 2 ? 2 : 1;
        /* The sums stay in registers only if the number of rows is a constant. */
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

/* y[r, o] = dot(w[o, :], x[r, :]) + bias[o] for from <= o < to; bias may be null. */
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

/* This thread's share of `rows`, in groups of four. */
INLINE void share_of(int64_t rows, int64_t *from, int64_t *to) {
    int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num(), fours = (rows + 3) / 4;
    *from = 4 * (fours * thread / threads);
    *to = 4 * (fours * (thread + 1) / threads);
    if (*to > rows) *to = rows;
    if (*from > rows) *from = rows;
}
