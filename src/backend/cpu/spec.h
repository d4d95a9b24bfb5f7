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

typedef struct sine_cosine {
    float sin, cos;
} sine_cosine;
sine_cosine spec_sincosf(float x); /* |x| < 2^32, else NaN */
float spec_silu(float x);
float spec_gelu_tanh(float x);

float spec_tree(const float lane[16]);
float spec_dot(const float *w, const float *x, uint64_t k);
float spec_sum_squares(const float *x, uint64_t k);
/* Element i of a row of weights as stored. */
float spec_weight(dtype type, const uint8_t *row, uint64_t i);

void spec_rms_norm(const float *x, const float *w, uint32_t k, float eps, float *out);

/* One head of one row: q, out [head_dim]; k, v: the cache of its KV head. */
typedef struct spec_attention_row {
    const float *q;
    float *out;
    const void *k, *v;
    uint32_t capacity, head_dim, position, window;
    float scale;
    bool half;
} spec_attention_row;
void spec_attention(const spec_attention_row *a);

#endif
