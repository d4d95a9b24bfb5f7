/* The buffers of a pass and of a session, and what they cost. The plan asks the costs here, so that what is predicted
 * and what is taken come from the same lines. */
#include "engine/engine.h"

static uint64_t round64(uint64_t bytes)
{
    return (bytes + 63) & ~UINT64_C(63);
}

static uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

typedef struct sizes { /* bytes */
    uint64_t x, held, wide, packed, angle, query, logits, norms, embed;
} sizes;

/* Floats of a row that attention takes of `wide`: see attention.c. */
static uint64_t attention_floats(const model *mo)
{
    uint64_t q = (uint64_t)mo->heads * mo->head_dim, kv = (uint64_t)mo->kv_heads * mo->head_dim;
    if (mo->mixer == MIXER_GQA) return 2 * q + 2 * kv + (mo->qkv == QKV_SEPARATE ? 0 : q + 2 * kv);
    uint64_t key = (uint64_t)mo->kv_lora + mo->rope_dim;
    return mo->q_lora + q + mo->nope_dim + 3 * key + mo->heads * (key + mo->kv_lora + mo->v_dim) +
           (uint64_t)mo->heads * mo->rope_dim;
}

static uint64_t widest_input(const model *mo)
{
    uint64_t most = max64(mo->hidden, max64(mo->ffn, (uint64_t)mo->heads * max64(mo->head_dim, mo->v_dim)));
    most = max64(most, max64(mo->experts.ffn, mo->experts.shared_ffn));
    return max64(most, max64(mo->q_lora, mo->kv_lora));
}

static sizes sizes_of(lamina_engine *e, uint32_t rows, uint32_t logit_rows)
{
    const model *mo = e->model;
    const backend_ops *ops = e->backend->ops;
    const weight *embed = model_end(mo, ROLE_EMBED), *positions = model_end(mo, ROLE_POSITIONS);
    uint64_t n = rows, ffn = (mo->gated ? 2 : 1) * (uint64_t)mo->ffn;
    uint64_t embed_row = embed->row_bytes;
    if (positions->rows) embed_row = max64(embed_row, positions->row_bytes);
    return (sizes){
        .x = round64(n * mo->hidden * sizeof(float)),
        .held = mo->parallel ? round64(n * mo->hidden * sizeof(float)) : 0,
        .wide = round64(n * max64(attention_floats(mo), ffn) * sizeof(float)),
        .packed = round64(ops->packed_bytes(e->backend, rows, widest_input(mo))),
        .angle = round64(mo->n_ropes * n * (mo->rope[0].dims / 2) * sizeof(float)),
        .query = mo->query_scaling == QUERY_PLAIN ? 0 : round64(n * sizeof(float)),
        .logits = round64((uint64_t)logit_rows * mo->vocab * sizeof(float)),
        .norms = mo->normalised_head ? round64(mo->vocab * sizeof(float)) : 0,
        .embed = round64(n * embed_row),
    };
}

enum {
    PER_ROW = sizeof(float) + sizeof(uint64_t) + 2 * sizeof(uint32_t) + sizeof(attention_rows) +
              sizeof(lamina_session *) + sizeof(lamina_row)
};

uint64_t activations_bytes(lamina_engine *e, uint32_t rows, uint32_t logit_rows)
{
    sizes s = sizes_of(e, rows, logit_rows);
    uint64_t vocab = e->model->vocab;
    return expert_buffers_bytes(e, rows) + 2 * s.x + s.held + s.wide + s.packed + 2 * s.angle + s.query + s.logits +
           2 * s.norms + s.embed + (uint64_t)rows * PER_ROW + vocab * (sizeof(float) + sizeof(candidate)) + 16384 +
           backend_cpu_scratch(pool_threads(e->pool));
}

static lamina_status take(lamina_engine *e, void *slot, uint64_t bytes, lamina_error *err)
{
    if (!bytes) return LAMINA_OK;
    void *p = e->backend->ops->alloc(e->backend, MEM_ACTIVATION, bytes, err);
    if (!p) return err ? err->status : LAMINA_E_MEMORY;
    memcpy(slot, &p, sizeof p);
    return LAMINA_OK;
}

static lamina_status take_host(lamina_engine *e, void *slot, uint64_t n, size_t size, lamina_error *err)
{
    void *p = mem_array(e->m, MEM_ACTIVATION, n, size, err);
    if (!p) return err ? err->status : LAMINA_E_MEMORY;
    memcpy(slot, &p, sizeof p);
    return LAMINA_OK;
}

lamina_status activations_new(lamina_engine *e, uint32_t rows, uint32_t logit_rows, lamina_error *err)
{
    sizes s = sizes_of(e, rows, logit_rows);
    activations *a = &e->act;
    a->rows = rows;
    a->logit_rows = logit_rows;
    TRY(expert_buffers_new(e, rows, err));
    TRY(take(e, &a->x, s.x, err));
    TRY(take(e, &a->t, s.x, err));
    TRY(take(e, &a->held, s.held, err));
    TRY(take(e, &a->wide, s.wide, err));
    TRY(take(e, &a->packed, s.packed, err));
    TRY(take(e, &a->cos, s.angle, err));
    TRY(take(e, &a->sin, s.angle, err));
    TRY(take(e, &a->query_scale, s.query, err));
    TRY(take(e, &a->logits, s.logits, err));
    TRY(take(e, &a->row_norms, s.norms, err));
    if (s.norms) TRY(take_host(e, &a->host_norms, e->model->vocab, sizeof(float), err));
    TRY(take_host(e, &a->host_logits, e->model->vocab, sizeof(float), err));
    TRY(take_host(e, &a->scales, rows, sizeof *a->scales, err));
    TRY(take_host(e, &a->embed, s.embed, 1, err));
    TRY(take_host(e, &a->offsets, rows, sizeof *a->offsets, err));
    TRY(take_host(e, &a->positions, rows, sizeof *a->positions, err));
    TRY(take_host(e, &a->wanted, rows, sizeof *a->wanted, err));
    TRY(take_host(e, &a->parts, rows, sizeof *a->parts, err));
    TRY(take_host(e, &a->part_session, rows, sizeof *a->part_session, err));
    TRY(take_host(e, &a->rows_of_feed, rows, sizeof *a->rows_of_feed, err));
    return take_host(e, &e->candidates, e->model->vocab, sizeof *e->candidates, err);
}

void activations_free(lamina_engine *e)
{
    activations *a = &e->act;
    expert_buffers_free(e);
    if (e->backend) {
        sizes s = a->rows ? sizes_of(e, a->rows, a->logit_rows) : (sizes){0};
        const backend_ops *ops = e->backend->ops;
        struct {
            void *p;
            uint64_t bytes;
        } device[] = {{a->x, s.x},
                      {a->t, s.x},
                      {a->held, s.held},
                      {a->wide, s.wide},
                      {a->cos, s.angle},
                      {a->sin, s.angle},
                      {a->query_scale, s.query},
                      {a->packed, s.packed},
                      {a->logits, s.logits},
                      {a->row_norms, s.norms}};
        for (size_t i = 0; i < sizeof device / sizeof *device; i++)
            if (device[i].p) ops->free(e->backend, MEM_ACTIVATION, device[i].p, device[i].bytes);
    }
    void *host[] = {a->host_logits, a->host_norms, a->scales,       a->embed,        a->offsets,   a->positions,
                    a->wanted,      a->parts,      a->part_session, a->rows_of_feed, e->candidates};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) mem_free(e->m, host[i]);
    e->candidates = NULL;
    *a = (activations){0};
}

kv_shape kv_shape_of(const model *mo)
{
    if (mo->mixer == MIXER_MLA) return (kv_shape){1, mo->kv_lora + mo->rope_dim, 0};
    return (kv_shape){mo->kv_heads, mo->head_dim, mo->head_dim};
}

/* A windowed layer keeps its window and room for the rows of a pass, which are written before the first is read. */
uint32_t kv_capacity(const model_layer *l, uint32_t context, uint32_t rows)
{
    uint64_t need = context;
    if (l->window && (uint64_t)l->window + rows < need) need = (uint64_t)l->window + rows;
    return (uint32_t)((need + ATTENTION_BLOCK - 1) / ATTENTION_BLOCK * ATTENTION_BLOCK);
}

uint64_t session_bytes(const lamina_engine *e, uint32_t context, uint32_t rows, lamina_kv kv)
{
    const model *mo = e->model;
    uint64_t page = os_page_size(), bytes = 0;
    kv_shape shape = kv_shape_of(mo);
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        uint32_t capacity = kv_capacity(&mo->layers[i], context, rows);
        uint64_t k = kv_layer_bytes(shape.heads, shape.k_dim, capacity, kv == LAMINA_KV_F16);
        uint64_t v = kv_layer_bytes(shape.heads, shape.v_dim, capacity, kv == LAMINA_KV_F16);
        bytes += (k + page - 1) / page * page + (v + page - 1) / page * page;
    }
    return bytes + (uint64_t)context * sizeof(int32_t) + (uint64_t)mo->vocab * sizeof(float) +
           (uint64_t)mo->n_layers * sizeof(kv_layer) + 4096;
}
