/* The scalar specification of every primitive of the CPU backend, and the functions (exp, log, sine) behind it. */
#ifndef LAMINA_BACKEND_CPU_SPEC_H
#define LAMINA_BACKEND_CPU_SPEC_H

#include "backend/backend.h"

/* Numbers that every level's exp uses, see functions.c. */
#define EXP_LOW    -105.0f /* exp is 0 from here down */
#define EXP_HIGH   90.0f   /* and inf from here up */
#define EXP_LOG2E  0x1.715476p+0f
#define EXP_MAGIC  0x1.8p+23f   /* x + magic - magic rounds to an integer, whose bits are then the low ones */
#define EXP_LN2_HI 0x1.62e4p-1f /* 15 bits: n times it is exact */
#define EXP_LN2_LO 0x1.7f7d1cp-20f
#define EXP_C2     0x1.000000p-1f
#define EXP_C3     0x1.555556p-3f
#define EXP_C4     0x1.5554eap-5f
#define EXP_C5     0x1.1110e0p-7f
#define EXP_C6     0x1.6d4324p-10f
#define EXP_C7     0x1.a124f2p-13f
#define GELU_SCALE 0x1.988454p+0f /* 2 sqrt(2 / pi) */
#define GELU_CUBE  0x1.6e4e26p-5f /* 0.044715 */
#define QUICK_GELU 0x1.b3b646p+0f /* 1.702 */
#define SQRT_HALF  0x1.6a09e6p-1f

/* tanh: x + x z P(z), z = x^2, below TANH_SMALL; 1 - 2 / (1 + exp(2 |x|)) from there. */
#define TANH_SMALL 0.625f
#define TANH_C0    -0x1.555534p-2f
#define TANH_C1    0x1.110768p-3f
#define TANH_C2    -0x1.b84448p-5f
#define TANH_C3    0x1.5256cep-6f
#define TANH_C4    -0x1.76abf6p-8f

/* erf: x + x P(x^2) below ERF_SMALL; 1 - exp(-Q(|x|)) from there, 1 from ERF_HIGH on. */
#define ERF_SMALL 0.921875f
#define ERF_HIGH  4.0f
#define ERF_P0    0x1.06eba8p-3f
#define ERF_P1    -0x1.812744p-2f
#define ERF_P2    0x1.ce2e20p-4f
#define ERF_P3    -0x1.b8107cp-6f
#define ERF_P4    0x1.54dad8p-8f
#define ERF_P5    -0x1.aae984p-11f
#define ERF_P6    0x1.5f113cp-14f
#define ERF_Q0    -0x1.71dbb0p-13f
#define ERF_Q1    0x1.21286ep+0f
#define ERF_Q2    0x1.4443d2p-1f
#define ERF_Q3    0x1.bb97d8p-4f
#define ERF_Q4    -0x1.9bc30cp-6f
#define ERF_Q5    0x1.11ac04p-8f
#define ERF_Q6    -0x1.c8a1c2p-12f
#define ERF_Q7    0x1.6369b8p-16f

#define OVER_127 0x1.020408p-7f /* 1 / 127 in f32 */

typedef struct sine_cosine {
    float sin, cos;
} sine_cosine;
sine_cosine spec_sincosf(float x); /* |x| < 2^32, else NaN */
float spec_sigmoid(float x);
float spec_softcap(float x, float cap);
float spec_activation(act_kind act, float x, float limit);
float spec_gate(act_kind act, float gate, float up, float limit);

float spec_tree(const float lane[16]);
float spec_dot(const float *w, const float *x, uint64_t k);
float spec_sum_squares(const float *x, uint64_t k);
float spec_sum(const float *x, uint64_t k);
/* Element (r, c) of weights as stored. */
float spec_weight(const matrix_rows *w, uint64_t r, uint64_t c);
float spec_grid_weight(dtype type, const uint8_t *row, uint64_t i); /* of grids.h; NaN for other types */

/* One row: w, b [k] or NULL. */
typedef struct norm_row {
    const float *x, *w, *b;
    uint32_t k;
    float eps;
    float *out;
} norm_row;
void spec_rms_norm(const norm_row *a);
void spec_layer_norm(const norm_row *a);

/* One head of one row: q [head_dim], out [v_dim]; k, v: the cache of its KV head, v NULL: values are in the keys. */
typedef struct spec_attention_row {
    const float *q;
    float *out;
    const void *k, *v;
    uint32_t capacity, head_dim, v_dim, position, window;
    float scale, softcap, slope;
    const float *sink; /* or NULL */
    bool sloped, half;
} spec_attention_row;
void spec_attention(const spec_attention_row *a);

#endif
