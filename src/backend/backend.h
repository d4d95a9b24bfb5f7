/* The operations of a forward pass, as a struct of function pointers: one implementation per kind of device. The engine
 * never touches what activations point to; it may be memory of another device.
 *
 * Order of sums (the specification; every implementation for CPUs gives these bits, for any number of rows and
 * threads):
 *   dot(w, x) over k elements: 16 lanes, lane l accumulates fma(w[i], x[i], lane) over i = l, l + 16, ...; both are
 *   taken as zero-padded to a multiple of 16; then s[i] += s[i + 8] (i < 8), s[i] += s[i + 4] (i < 4),
 *   s[0] += s[2], s[1] += s[3], s[0] + s[1].
 *   A sum of squares or of numbers is the same with x*x by fma, or with plain adds.
 * Activations are f32. Nothing here fails: shapes were checked when the model was bound. */
#ifndef LAMINA_BACKEND_BACKEND_H
#define LAMINA_BACKEND_BACKEND_H

#include "base/dtype.h"
#include "base/memory.h"
#include "base/threads.h"

typedef struct backend backend;

typedef struct matrix_rows { /* some rows of a weight matrix, as stored */
    dtype type;
    const void *data; /* [n_rows] rows of matrix_row_bytes(); host memory, any alignment */
    uint64_t n_rows, cols;
    uint64_t row_bytes; /* of packed types (store/packed.h); others: that, or 0 for what follows from type and cols */
    /* dtype_has_scales(type): element (r, c) is the stored number times scales[(row0 + r) / scale_rows *
     * scales_stride + c / scale_cols], rounded; below 2^120. NULL: the stored number. */
    const float *scales;
    uint64_t row0, scales_stride;
    uint32_t scale_rows, scale_cols; /* scale_cols: a power of two, at least 32 */
    /* DT_MXFP4_PAIRS: [n_rows][cols / 32] e8m0. */
    const uint8_t *side;
} matrix_rows;

static inline uint64_t matrix_row_bytes(const matrix_rows *w)
{
    return w->row_bytes ? w->row_bytes : dtype_row_bytes(w->type, w->cols);
}

typedef enum norm_form { BACKEND_RMS_NORM, BACKEND_LAYER_NORM } norm_form;

/* BACKEND_RMS_NORM:   r = 1 / sqrt(sum(x^2) / k + eps), out = (x * r) * w + b.
 * BACKEND_LAYER_NORM: m = sum(x) / k, r = 1 / sqrt(sum((x - m)^2) / k + eps), out = ((x - m) * r) * w + b
 *                     (torch.nn.functional.layer_norm).
 * Each step is rounded; where w or b is NULL its step is left out. */
typedef struct norm_args {
    norm_form form;
    const float *x;     /* [n, k] */
    const float *w, *b; /* [w_rows, k], row i takes row i % w_rows */
    uint32_t n, k, w_rows;
    float eps;
    float *out; /* [n, k]; may be x */
} norm_args;

/* With s(x) = 1 / (1 + exp(-x)), as quotients:
 *   SILU        x / (1 + exp(-x))
 *   GELU_TANH   x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3), which is its tanh form exactly
 *   GELU_ERF    (0.5 x) * (1 + erf(x / sqrt(2)))
 *   RELU, RELU2 max(x, 0) and its square
 *   QUICK_GELU  x / (1 + exp(-1.702 x))
 *   CLAMPED     gated: g = min(gate, limit), u = up within [-limit, limit]: QUICK_GELU(g) * (u + 1), gpt-oss's form;
 *               alone: QUICK_GELU(min(x, limit)) */
typedef enum act_kind {
    BACKEND_SILU,
    BACKEND_GELU_TANH,
    BACKEND_GELU_ERF,
    BACKEND_RELU,
    BACKEND_RELU2,
    BACKEND_QUICK_GELU,
    BACKEND_CLAMPED,
    BACKEND_ACTS
} act_kind;

/* For each of n rows, `groups` runs of `width` floats: from src + g * src_step to dst + g * dst_step. They do not
 * overlap. A step of 0 reads one run for all. */
typedef struct columns_args {
    const float *src;
    float *dst;
    uint64_t src_stride, dst_stride; /* floats from row to row */
    uint64_t src_step, dst_step;
    uint32_t n, groups, width;
} columns_args;

/* x[t] += y[index[t][0]] * weight[t][0] + ..., the sum taken by fma from 0 over slots ascending, then added. */
typedef struct combine_args {
    float *x;              /* [n, k] */
    const float *y;        /* [.., k] */
    const uint32_t *index; /* [n, slots] rows of y; UINT32_MAX: no such slot */
    const float *weight;   /* [n, slots] */
    uint32_t n, slots, k;
} combine_args;

typedef enum rotate_kind { ROTATE_HALF, ROTATE_INTERLEAVED } rotate_kind;

enum { KV_BLOCK = 16 /* positions in a block of the cache */, ATTENTION_BLOCK = 64 /* positions per softmax step */ };

/* Attention, the specification. For a query row at position p the visible positions j are max(0, p - window + 1) .. p
 * (from 0 without a window). They are taken in blocks [64 i, 64 i + 64) of absolute positions, ascending, with m =
 * -inf, l = 16 zeros, acc = v_dim zeros before the first (with sinks m = sink of the head, l[0] = 1: one more logit,
 * without a value):
 *   s_j = scale * x, x by x = fma(q[d], k_j[d], x) over d = 0, 1, ... from 0;
 *   with a softcap s_j = softcap * tanh(s_j / softcap); with slopes s_j += slope * (float)(j - p), the product rounded;
 *   if the block's largest visible s_j > m: l and acc are multiplied by exp(m - s_max) and m = s_max;
 *   p_j = exp(s_j - m); l[j % 16] += p_j; acc[d] = fma(p_j, v_j[d], acc[d]), over visible j, ascending.
 * out[d] = acc[d] / sum of l by the tree. So a row's bits depend on its position and the window alone, not on who
 * shares the pass, on the capacity or on threads. Positions that are not visible are not touched arithmetically: what
 * lies in their slots does not matter.
 *
 * Keys and values of one layer of one session. Position p lives in slot p % capacity; capacity is a multiple of
 * ATTENTION_BLOCK. K: [kv_heads][capacity / 16][head_dim][16] (16 positions side by side, so that lanes are positions);
 * V: [kv_heads][capacity][v_dim], none where values are in the keys. f32, or f16 rounded to nearest even. All rows of a
 * part are written before any attends, so capacity is at least position + n_rows, or window + n_rows - 1 if that is
 * less. */
typedef struct kv_layer {
    void *k, *v;
    uint32_t capacity;
    bool half; /* f16 */
} kv_layer;

typedef struct attention_rows { /* consecutive rows of one session */
    kv_layer kv;
    uint32_t row0, n_rows; /* rows of the pass */
    uint32_t position;     /* of row0; the following rows follow */
} attention_rows;

typedef struct attention_args {
    const float *q; /* [rows, heads, head_dim] */
    const float *k; /* [rows, kv_heads, head_dim] */
    const float *v; /* [rows, kv_heads, v_dim]; unused where values are in the keys */
    float *out;     /* [rows, heads, v_dim] */
    uint32_t heads, kv_heads, head_dim, v_dim;
    bool values_in_keys; /* v_j is the first v_dim elements of k_j; the cache has no V */
    float scale;
    float softcap;       /* 0: none */
    const float *sinks;  /* [heads], or NULL */
    const float *slopes; /* [heads], or NULL */
    uint32_t window;     /* 0: all */
    const attention_rows *parts;
    uint32_t n_parts;
} attention_args;

typedef struct backend_ops {
    const char *name;
    /* Memory for activations: bytes zeroed, aligned to 64. */
    void *(*alloc)(backend *b, mem_tag tag, size_t bytes, lamina_error *err);
    void (*free)(backend *b, mem_tag tag, void *p, size_t bytes);
    void (*upload)(backend *b, void *dst, const void *src, size_t bytes);
    void (*download)(backend *b, void *dst, const void *src, size_t bytes);

    /* Input of matrix products in the backend's own layout. x [n, k]; packed has packed_bytes(n, k). */
    size_t (*packed_bytes)(backend *b, uint32_t n, uint64_t k);
    void (*pack)(backend *b, const float *x, uint32_t n, uint64_t k, void *packed);
    /* y[t * stride + r] = dot(w row r, x row t) for r < w->n_rows, t < n. */
    void (*apply)(backend *b, const matrix_rows *w, const void *packed, uint32_t n, float *y, uint64_t stride);

    /* y[t * stride + c] = fma(w[r][c], x[t * x_stride + r], y) over the rows r of w ascending, for c < w->cols, t < n:
     * the product with a matrix stored [in, out]. Chunks of rows in order add up; y holds what was there before. */
    void (*apply_columns)(backend *b, const matrix_rows *w, const float *x, uint64_t x_stride, uint32_t n, float *y,
                          uint64_t stride);
    /* Elements of w to x [n_rows, cols]: embeddings, vectors. */
    void (*widen)(backend *b, const matrix_rows *w, float *x);
    /* out[r] = max(sqrt(sum of squares of row r), 1e-12), r < n_rows. */
    void (*row_norms)(backend *b, const matrix_rows *w, float *out);

    /* sums[c] += x[t][c]^2 in double, t ascending; sums [k] in host memory. */
    void (*add_squares)(backend *b, const float *x, uint32_t n, uint64_t k, double *sums);

    void (*norm)(backend *b, const norm_args *a);
    void (*zero)(backend *b, float *x, uint64_t n);
    void (*add)(backend *b, float *x, const float *y, uint64_t n);                     /* x += y */
    void (*add_scaled)(backend *b, float *x, const float *y, float s, uint64_t n);     /* x += s * y, both rounded */
    void (*add_bias)(backend *b, float *x, const float *bias, uint32_t n, uint32_t k); /* each row += bias */
    void (*scale)(backend *b, float *x, float s, uint64_t n);                          /* x *= s */
    void (*clamp)(backend *b, float *x, float limit, uint64_t n); /* to [-limit, limit]; NaN stays */
    void (*scale_rows)(backend *b, float *x, const float *factors, uint32_t n, uint32_t k); /* row t *= factors[t] */
    void (*softcap)(backend *b, float *x, float cap, uint64_t n); /* x = cap * tanh(x / cap) */
    void (*sigmoid)(backend *b, float *x, uint64_t n);            /* x = 1 / (1 + exp(-x)) */
    /* gate = act(gate) * up, n elements; limit is for BACKEND_CLAMPED alone. activate: x = act(x). */
    void (*gate)(backend *b, act_kind act, float limit, float *gate, const float *up, uint64_t n);
    void (*activate)(backend *b, act_kind act, float limit, float *x, uint64_t n);
    /* cos, sin [n, dims / 2] of position[t] * inv_freq[i] (the product in f32, as the reference does), rounded to f32,
     * times scale. A product that is not below 2^32 gives NaN. */
    void (*angles)(backend *b, const float *inv_freq, float scale, uint32_t dims, const uint32_t *positions, uint32_t n,
                   float *cos, float *sin);
    /* Rotates the first `dims` of each head of x [n, heads, head_dim]: pairs (i, i + dims / 2), or (2i, 2i + 1):
     * a' = a * cos - b * sin, b' = b * cos + a * sin, each product and sum rounded. */
    void (*rotate)(backend *b, rotate_kind kind, float *x, uint32_t n, uint32_t heads, uint32_t head_dim, uint32_t dims,
                   const float *cos, const float *sin);
    /* Writes k and v of all parts to their caches, then attends: causal, softmax over visible positions. */
    void (*attention)(backend *b, const attention_args *a);
    /* Rows index[i] of x [.., k] to out [n, k]. */
    void (*take_rows)(backend *b, const float *x, const uint32_t *index, uint32_t n, uint32_t k, float *out);
    void (*copy_columns)(backend *b, const columns_args *a);
    void (*combine)(backend *b, const combine_args *a);
    void (*close)(backend *b);
} backend_ops;

struct backend {
    const backend_ops *ops;
}; /* implementations extend it */

/* Bytes of one of K (dim: head_dim) or V (dim: v_dim) of a layer's cache. */
static inline uint64_t kv_layer_bytes(uint32_t kv_heads, uint32_t dim, uint32_t capacity, bool half)
{
    return (uint64_t)kv_heads * dim * capacity * (half ? 2 : 4);
}

/* The CPU. cap: the best level of this machine not above it (a level of another architecture: scalar). The pool must
 * outlive the backend; one thread at a time uses a backend. */
lamina_status backend_cpu_new(memory *m, pool *threads, lamina_isa cap, backend **out, lamina_error *err);
const char *backend_cpu_isa(const backend *b); /* "scalar", "avx2", "avx512", "neon" */
/* Bytes of scratch the CPU backend allocates, for planning (it depends on threads, not on the model). */
uint64_t backend_cpu_scratch(uint32_t threads);
/* Measures: RAM read bytes/s and f32 FMA operations/s (multiply and add counted as two) over all threads, for about
 * `seconds`. RAM takes a buffer of 256 MiB from the accountant, or a half, a quarter, ... of that where the limit is
 * tighter, for as long as it measures; 0 if none is to be had. */
double backend_cpu_measure_ram(backend *b, double seconds);
double backend_cpu_measure_fma(backend *b, double seconds);

/* The same bits everywhere. exp: within 1 ulp, 0 below -104, denormals kept, inf above 88.73. log: correctly rounded
 * but for ties nobody has met; log(0) = -inf, log(x < 0) = NaN. tanh, erf: within 1.5 ulp. NaN gives NaN. */
float spec_expf(float x);
float spec_logf(float x);
float spec_tanhf(float x);
float spec_erff(float x);

#endif
