/* A decoder layer for a few rows, in two parts: before attention and after it. */
#include "multiply_rows.h"

/* A decoder layer of the plain shape: its weights, all in one dtype, null where it has none.
 * The fields and their order match `_Layer` in library.py. */
typedef struct {
    const char *norm_in, *q, *q_bias, *k, *k_bias, *v, *v_bias, *q_norm, *k_norm, *o, *o_bias,
        *norm_mid, *gate, *gate_bias, *up, *up_bias, *down, *down_bias;
    int64_t hidden, mlp, heads, kv_heads, head_dim, is_bf16;
    double norm_in_eps, q_norm_eps, k_norm_eps, norm_mid_eps;
} mom_layer;

/* y = x / rms(x) * weight, in place if y is x. */
INLINE void rms_norm(const int is_bf16, const float *x, const char *weight, double eps,
                     int64_t width, float *y) {
    float squares = 0.0f;
    for (int64_t i = 0; i < width; i++) squares += x[i] * x[i];
    float inverse = 1.0f / sqrtf(squares / (float)width + (float)eps);
    for (int64_t i = 0; i < width; i++) y[i] = x[i] * inverse * scalar(weight, i, is_bf16);
}

/* Applies the norm (if any) and rotary positions to heads [R, n, D], and writes them as [n, R, D]
 * in the layer's dtype. */
INLINE void finish_heads(const int is_bf16, float *x, int rows, int64_t heads, int64_t dim,
                         const char *norm, double eps, const char *cos, const char *sin,
                         char *out) {
    const int64_t half = dim / 2;
    for (int64_t n = 0; n < rows * heads; n++) {
        float *head = x + n * dim;
        int64_t r = n / heads, h = n % heads, at = r * dim;
        if (norm) rms_norm(is_bf16, head, norm, eps, dim, head);
        /* Rotary position: element i and element i + half form a pair that is rotated. */
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

/* The layer up to attention, for R rows. hidden [R, E]; cos, sin [R, D]; q [H, R, D]; k, v
 * [G, R, D]; all in the layer's dtype. work is scratch of R (E + (H + 2 G) D) floats. */
void mom_layer_before(const mom_layer *l, int rows, const char *hidden, const char *cos,
                      const char *sin, char *q, char *k, char *v, float *work) {
    if (l->is_bf16)
        layer_before(1, l, rows, hidden, cos, sin, q, k, v, work);
    else
        layer_before(0, l, rows, hidden, cos, sin, q, k, v, work);
}

/* The layer after attention. attended [H, R, D]; out [R, E]; work is scratch of
 * R (2 E + 2 F + H D) floats. */
void mom_layer_after(const mom_layer *l, int rows, const char *hidden, const char *attended,
                     char *out, float *work) {
    if (l->is_bf16)
        layer_after(1, l, rows, hidden, attended, out, work);
    else
        layer_after(0, l, rows, hidden, attended, out, work);
}
