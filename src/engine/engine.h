/* The engine's insides: what lamina_engine and lamina_session hold.
 *
 * Life: open (describe) -> plan (a pure question) -> start (memory, threads, stream) -> passes -> close. Everything an
 * engine owns hangs on this struct and is accounted in its `m`. */
#ifndef LAMINA_ENGINE_ENGINE_H
#define LAMINA_ENGINE_ENGINE_H

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "engine/experts.h"
#include "format/tokenizer.h"
#include "model/model.h"
#include "stream/stream.h"

/* A matrix of the pass, beside its stream_matrix: what a kernel must know. */
typedef struct pass_matrix {
    dtype type;
    uint64_t cols;
    bool transposed; /* stored [in, out] */
    role role;
    uint64_t row0; /* of its weight: the row that row 0 is */
} pass_matrix;

/* The order in which a pass visits matrices. The forward pass and the stream both follow it. */
typedef struct schedule {
    size_t n, tail;        /* matrices; index of the first of the tail (the head) */
    stream_matrix *stream; /* [n] */
    pass_matrix *matrix;   /* [n] */
} schedule;

typedef struct layer_vectors {        /* backend memory, f32; NULL: absent */
    const float *v[ROLE_LAYER_COUNT]; /* of matrices: their scales */
} layer_vectors;

/* Norms, biases and scales, read once. */
typedef struct vectors {
    layer_vectors *layers; /* [n_layers] */
    const float *final_norm, *final_norm_bias, *head_bias, *head_scales;
    float *slopes;       /* [heads]: alibi; backend memory; NULL: none */
    float *rope_factors; /* host memory; NULL: none */
    float *rope_long, *rope_short;
    float *block;   /* backend memory that holds them all */
    uint64_t bytes; /* of block */
} vectors;

/* Buffers of a pass over at most `rows` rows; sizes in activations_bytes(). */
typedef struct activations {
    uint32_t rows, logit_rows;
    float *x;                      /* [rows, hidden] the residual stream */
    float *t;                      /* [rows, hidden] normed input, or a product on its way into x */
    float *held;                   /* [rows, hidden] what attention adds, where feed-forward is parallel; or NULL */
    float *wide;                   /* what attention, or feed-forward, needs: carved by those */
    void *packed;                  /* the input of the product under way */
    float *cos, *sin;              /* [n_ropes, rows, rope dims / 2] */
    float *query_scale;            /* [rows]; NULL: queries are not scaled by position */
    float *logits;                 /* [logit_rows, vocab] */
    float *host_logits;            /* [vocab] host memory, for callbacks */
    float *scales;                 /* [rows] host memory, on its way to query_scale */
    float *row_norms, *host_norms; /* [vocab] of a normalised head, on the device and here; or NULL */
    unsigned char *embed;          /* [rows] embedding rows as stored, host memory */
    uint64_t *offsets;             /* [rows] */
    uint32_t *positions;           /* [rows] */
    uint32_t *wanted;              /* [rows] rows that want logits */
    attention_rows *parts;         /* [rows] */
    lamina_session **part_session; /* [rows] */
    lamina_row *rows_of_feed;      /* [rows] */
    uint64_t bytes;                /* of all of them */
} activations;

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct lamina_engine {
    memory *m;
    char *path;
    lamina_options options; /* strings copied */
    double opened_at;       /* os_seconds */
    checkpoint *ckpt;       /* NULL when only a tokenizer was opened */
    tokenizer *tok;         /* NULL: none; then no_tokenizer says why */
    lamina_error no_tokenizer;
    model *model;
    schedule schedule;
    uint32_t *moe_layers, n_moe_layers; /* the layers that have experts */
    const char **paths;                 /* [files] of the checkpoint, for readers; with `sizes`, in bytes */
    uint64_t *sizes;
    trace *trace;
    pool *pool;
    backend *backend;
    double disk_rate, ram_rate, fma_rate; /* measured for plans; 0: not yet */

    /* from lamina_start() on */
    bool started;
    uint64_t limit; /* of the accountant, bytes */
    lamina_plan_info plan;
    lamina_kv kv;
    vectors vectors;
    activations act;
    expert_buffers moe;
    stream *stream;
    experts *experts;          /* NULL: a dense model */
    unsigned char *embed_rows; /* the whole embedding as stored, if the plan keeps it; else NULL */
    candidate *candidates;     /* [vocab] for the sampler */
    struct moments *moments;   /* while a text is looked at (calibrate.h); else NULL */
    uint32_t n_sessions;
    atomic_bool cancel;
    lamina_stats stats; /* the running part */
};

struct lamina_session {
    lamina_engine *engine;
    uint32_t context, length;
    uint32_t high;              /* one past the highest position ever written: what a window may have overwritten */
    int32_t *tokens;            /* [context] */
    kv_layer *kv;               /* [n_layers] */
    float *inv_freq[ROPE_SETS]; /* [rope dims / 2] backend memory */
    float rope_scale[ROPE_SETS];
    float *logits; /* [vocab] host memory */
    bool has_logits;
    uint32_t fed; /* rows of the pass under way */
};

/* open.c */
lamina_status engine_backend(lamina_engine *e, lamina_error *err); /* makes pool and backend once */

/* Gives back what lamina_start() took; no session is open. It may be started again. */
void engine_stop(lamina_engine *e);

/* A stream over the engine's files in the order of its schedule. */
lamina_status engine_stream(lamina_engine *e, uint64_t chunk, uint64_t ring, uint64_t pin_budget, bool tune,
                            stream **out, lamina_error *err);

/* schedule.c */
lamina_status schedule_make(memory *m, const model *mo, schedule *out, lamina_error *err);
void schedule_free(memory *m, schedule *s);

/* inspect.c: what stream and experts have read, and for how long they were waited for. */
void engine_reading(const lamina_engine *e, uint64_t *bytes, double *stall_seconds);

/* vectors.c */
uint64_t vectors_bytes(lamina_engine *e);
lamina_status vectors_load(lamina_engine *e, lamina_error *err);
void vectors_free(lamina_engine *e);

/* activations.c */
typedef struct kv_shape {         /* of a layer's cache */
    uint32_t heads, k_dim, v_dim; /* v_dim 0: values are the beginnings of keys */
} kv_shape;
uint64_t activations_bytes(lamina_engine *e, uint32_t rows, uint32_t logit_rows);
lamina_status activations_new(lamina_engine *e, uint32_t rows, uint32_t logit_rows, lamina_error *err);
void activations_free(lamina_engine *e);
uint64_t session_bytes(const lamina_engine *e, uint32_t context, uint32_t rows, lamina_kv kv);
kv_shape kv_shape_of(const model *mo);
uint32_t kv_capacity(const model_layer *l, uint32_t context, uint32_t rows); /* positions a layer's cache holds */

/* plan.c */
lamina_status plan_make(lamina_engine *e, const lamina_budget *b, bool measure, lamina_plan_info *p, lamina_error *err);

/* From now on the accountant refuses what would take the process beyond `budget`, counting what is resident now. */
void plan_limit(lamina_engine *e, uint64_t budget);

/* forward.c: one pass over rows [n]; positions of sessions are committed by the caller. `deliver` is called for each
 * wanted row in order with the row's index and host logits. */
typedef lamina_status (*deliver_fn)(void *user, uint32_t row, const float *logits, lamina_error *err);
lamina_status forward(lamina_engine *e, const lamina_row *rows, uint32_t n, deliver_fn deliver, void *user,
                      lamina_error *err);

#endif
