/* The operations of a forward pass, as a struct of function pointers: one implementation per kind of device. The engine
 * never touches what activations point to; it may be memory of another device.
 *
 * Order of sums (the specification; every implementation for CPUs gives these bits, for any number of rows and threads):
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
    const void *data; /* [n_rows] rows of dtype_row_bytes(type, cols); host memory, any alignment */
    uint64_t n_rows, cols;
} matrix_rows;

typedef enum act_kind { BACKEND_SILU, BACKEND_GELU_TANH } act_kind;
typedef enum rotate_kind { ROTATE_HALF, ROTATE_INTERLEAVED } rotate_kind;

enum { KV_BLOCK = 16 /* positions in a block of the cache */, ATTENTION_BLOCK = 64 /* positions per softmax step */ };

/* Attention, the specification. For a query row at position p the visible positions j are max(0, p - window + 1) .. p
 * (from 0 without a window). They are taken in blocks [64 i, 64 i + 64) of absolute positions, ascending, with
 * m = -inf, l = 16 zeros, acc = head_dim zeros before the first:
 *   s_j = scale * x, x by x = fma(q[d], k_j[d], x) over d = 0, 1, ... from 0;
 *   if the block's largest visible s_j > m: l and acc are multiplied by exp(m - s_max) and m = s_max;
 *   p_j = exp(s_j - m); l[j % 16] += p_j; acc[d] = fma(p_j, v_j[d], acc[d]), over visible j, ascending.
 * out[d] = acc[d] / sum of l by the tree. So a row's bits depend on its position and the window alone, not on who shares
 * the pass, on the capacity or on threads. Positions that are not visible are not touched arithmetically: what lies in
 * their slots does not matter.
 *
 * Keys and values of one layer of one session. Position p lives in slot p % capacity; capacity is a multiple of
 * ATTENTION_BLOCK. K: [kv_heads][capacity / 16][head_dim][16] (16 positions side by side, so that lanes are
 * positions); V: [kv_heads][capacity][head_dim]. f32, or f16 rounded to nearest even. All rows of a part are written
 * before any attends, so capacity is at least position + n_rows, or window + n_rows - 1 if that is less. */
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
    const float *q;     /* [rows, heads, head_dim] */
    const float *k, *v; /* [rows, kv_heads, head_dim] */
    float *out;         /* [rows, heads, head_dim] */
    uint32_t heads, kv_heads, head_dim;
    float scale;
    uint32_t window; /* 0: all */
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

    /* Embedding: widens row i of rows [n] (as stored, type) into x [n, k]. */
    void (*widen)(backend *b, dtype type, const void *rows, uint32_t n, uint64_t k, float *x);
    /* out = (x * r) * w, r = 1 / sqrt(sum(x^2) / k + eps), over each of n rows of k. out may be x. */
    void (*rms_norm)(backend *b, const float *x, const float *w, uint32_t n, uint32_t k, float eps, float *out);
    void (*add)(backend *b, float *x, const float *y, uint64_t n);                     /* x += y */
    void (*add_bias)(backend *b, float *x, const float *bias, uint32_t n, uint32_t k); /* each row += bias */
    /* gate = act(gate) * up, n elements. silu(x) = x / (1 + exp(-x));
     * gelu_tanh(x) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3), which is its tanh form exactly. */
    void (*gate)(backend *b, act_kind act, float *gate, const float *up, uint64_t n);
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
    void (*close)(backend *b);
} backend_ops;

struct backend {
    const backend_ops *ops;
}; /* implementations extend it */

/* Bytes of one of K or V of a layer's cache. */
static inline uint64_t kv_layer_bytes(uint32_t kv_heads, uint32_t head_dim, uint32_t capacity, bool half)
{
    return (uint64_t)kv_heads * head_dim * capacity * (half ? 2 : 4);
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
 * but for ties nobody has met; log(0) = -inf, log(x < 0) = NaN. NaN gives NaN. */
float spec_expf(float x);
float spec_logf(float x);

#endif
