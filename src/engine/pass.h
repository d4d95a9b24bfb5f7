/* One pass of the forward computation, for the files that make it up: forward.c (from tokens to logits), attention.c
 * and feed_forward.c (the two halves of a layer). */
#ifndef LAMINA_ENGINE_PASS_H
#define LAMINA_ENGINE_PASS_H

#include "engine/engine.h"

typedef struct pass {
    lamina_engine *e;
    const backend_ops *ops;
    backend *b;
    const model *mo;
    activations *a;
    const lamina_row *rows;
    uint32_t n, n_parts, n_wanted;
    size_t matrix;      /* next in the schedule */
    const float *input; /* [rows, input_k] of the next products */
    uint64_t input_k;
    bool packed; /* a->packed holds it */
    double began;
    uint64_t read_before;
    lamina_error *err;
} pass;

/* What the following products are applied to: x [n, k] with rows one after the other; it must stay as it is until they
 * are done. */
void pass_input(pass *p, const float *x, uint64_t k);
/* y [n, stride] = the input times the next matrix of the schedule. One that is stored [in, out] adds to y where stride
 * is more than its columns: the caller has zeroed it. */
lamina_status pass_product(pass *p, uint32_t n, float *y, uint64_t stride);
/* Each of n rows of x [n, k] normed, as the model norms; weights repeat after w_rows rows. bias may be NULL. */
typedef struct norm_weights {
    const float *w, *bias;
    uint32_t w_rows; /* 0: 1 */
    float eps;       /* 0: the model's */
} norm_weights;
void pass_norm(pass *p, const float *x, norm_weights w, uint32_t n, uint32_t k, float *out);

lamina_status pass_attention(pass *p, uint32_t layer);
lamina_status pass_feed_forward(pass *p, uint32_t layer);
/* A layer's experts on input [n, hidden]: what they add is in e->moe.out. */
lamina_status pass_experts(pass *p, uint32_t layer, const float *input);
/* y [n, stride] from row0 on (or, stored [in, out], added from input row0 on) = the input times some rows of a
 * matrix. */
void pass_apply(pass *p, const matrix_rows *w, bool transposed, uint64_t row0, uint32_t n, float *y, uint64_t stride);
act_kind pass_act(activation a);
/* What a half of a layer adds to the residual: t [n, hidden], by the model's norms and scales behind it. */
void pass_add(pass *p, const float *norm, float *t);

#endif
