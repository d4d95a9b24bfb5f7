/* Which expert to push out: how much each is worth keeping. */
#ifndef LAMINA_STREAM_EXPERTS_POLICY_H
#define LAMINA_STREAM_EXPERTS_POLICY_H

#include "base/memory.h"

typedef struct policy_layer {
    double clock, total; /* wants so far, in half-lives; log2 of the weighted uses of all its experts */
} policy_layer;

typedef struct policy {
    memory *m;
    uint32_t n_layers, n_experts;
    double half_life; /* wants of a layer until a use counts half */
    double distance;  /* log2: what a whole pass until the next use takes off */
    double *score;    /* [n_layers * n_experts] log2 of the weighted uses of an expert */
    policy_layer *layer;
} policy;

uint64_t policy_bytes(uint32_t n_layers, uint32_t n_experts);
lamina_status policy_new(memory *m, uint32_t n_layers, uint32_t n_experts, policy *out, lamina_error *err);
void policy_free(policy *p);
/* Layer wants ids [n], each for uses[i] rows (uses NULL: one each). */
void policy_want(policy *p, uint32_t layer, const uint32_t *ids, const uint32_t *uses, uint32_t n);
/* While `now` is the layer that works: more is worth more. About log2 of the share of its layer's uses that the expert
 * has had of late. */
double policy_worth(const policy *p, uint32_t layer, uint32_t expert, uint32_t now);

#endif
