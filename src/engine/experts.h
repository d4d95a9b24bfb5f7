/* Mixtures of experts in a pass: the router's choice and the buffers that the chosen need. */
#ifndef LAMINA_ENGINE_EXPERTS_H
#define LAMINA_ENGINE_EXPERTS_H

#include "model/model.h"
#include "stream/experts.h"

typedef struct router_scratch {   /* host memory */
    float *choice, *group_scores; /* [experts], [groups] */
    uint8_t *taken, *group_taken; /* [experts], [groups] */
} router_scratch;

/* One row: logits [e->count] become scores; ids [e->used] ascending, and their weights. correction [e->count] or
 * NULL. */
void router_choose(const expert_axes *e, float *logits, const float *correction, router_scratch *s, uint32_t *ids,
                   float *weights);

/* Buffers of a pass for its layers with experts, for at most `rows` rows. */
typedef struct expert_buffers {
    uint32_t rows;
    /* backend memory */
    float *logits;  /* [rows, experts] */
    float *out;     /* [rows, hidden] what the layer adds */
    float *x;       /* [rows, hidden] rows of the expert at hand; the shared expert's output */
    float *gate;    /* [rows, 2 * widest]: or gate and up together, as one matrix makes them */
    float *up;      /* [rows, widest] */
    float *y;       /* [rows * used, hidden] outputs of experts, one expert after the other */
    float *factors; /* [rows] of the shared expert */
    float *side;    /* scales of a piece, widened */
    /* host memory */
    float *scores;     /* [rows, experts] */
    float *correction; /* [experts] */
    uint32_t *ids;     /* [rows, used] */
    float *weights;    /* [rows, used] */
    uint32_t *index;   /* [rows, used]: where in y */
    uint32_t *members; /* [rows * used] rows of each wanted expert, one expert after the other */
    uint32_t *first;   /* [experts + 1]: of wanted expert i in members */
    uint32_t *wanted;  /* [experts]: its number */
    uint32_t *uses;    /* [experts] */
    uint32_t *place;   /* [experts] its place among the wanted */
    router_scratch router;
} expert_buffers;

uint64_t expert_buffers_bytes(lamina_engine *e, uint32_t rows);
lamina_status expert_buffers_new(lamina_engine *e, uint32_t rows, lamina_error *err);
void expert_buffers_free(lamina_engine *e);

/* The pool of experts of an engine's model; what experts_plan() and experts_new() are told. */
experts_config expert_pool_config(lamina_engine *e);

#endif
