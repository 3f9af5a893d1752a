/* A linear layer for a few rows. */
#include "multiply_rows.h"

/* y[r, o] = dot(w[o, :], x[r, :]) + bias[o], all in one dtype. w is [outputs, inputs]; bias may be
 * null; x and y must not overlap; wide is scratch of rows * (inputs + outputs) floats. */
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
