/* Attention: writes keys and values into the caches, then divides (row, head) pairs among threads. A tile is up to
 * ATTEND_ROWS pairs that share a KV head, so that a block of K and V is read once for all of them. How pairs are
 * grouped does not change a row's bits. */
#include "backend_cpu.h"

#include <string.h>

typedef struct attention_job {
    const cpu *c;
    const attention_args *a;
    uint32_t group;          /* query heads of a KV head */
    uint32_t tile;           /* pairs of a tile */
    uint64_t tiles_per_head; /* of all parts */
} attention_job;

/* ---- writing ------------------------------------------------------------------------------------------------------ */

/* K of one head, positions of one chunk of 16: the rows' elements side by side. */
static void write_keys(const cpu *c, const attention_args *a, const attention_rows *p, uint32_t head, uint32_t row,
                       uint32_t n, uint64_t slot)
{
    uint64_t row_elements = (uint64_t)a->kv_heads * a->head_dim;
    const float *k = a->k + (p->row0 + row) * row_elements + (uint64_t)head * a->head_dim;
    uint64_t at = ((uint64_t)head * p->kv.capacity + slot / KV_BLOCK * KV_BLOCK) * a->head_dim + slot % KV_BLOCK;
    for (uint32_t d = 0; d < a->head_dim; d++, at += KV_BLOCK) {
        float side[KV_BLOCK];
        for (uint32_t i = 0; i < n; i++) side[i] = k[i * row_elements + d];
        if (p->kv.half)
            c->kernels.narrow(side, (uint16_t *)p->kv.k + at, n);
        else
            memcpy((float *)p->kv.k + at, side, n * sizeof *side);
    }
}

static void write_values(const cpu *c, const attention_args *a, const attention_rows *p, uint32_t head, uint32_t row,
                         uint32_t n, uint64_t slot)
{
    for (uint32_t i = 0; i < n; i++) {
        const float *v = a->v + ((uint64_t)(p->row0 + row + i) * a->kv_heads + head) * a->v_dim;
        uint64_t at = ((uint64_t)head * p->kv.capacity + slot + i) * a->v_dim;
        if (p->kv.half)
            c->kernels.narrow(v, (uint16_t *)p->kv.v + at, a->v_dim);
        else
            memcpy((float *)p->kv.v + at, v, a->v_dim * sizeof *v);
    }
}

/* Items are KV heads of parts. */
static void write_heads(void *arg, uint64_t from, uint64_t to)
{
    const attention_job *j = arg;
    const attention_args *a = j->a;
    for (uint64_t item = from; item < to; item++) {
        const attention_rows *p = &a->parts[item / a->kv_heads];
        uint32_t head = (uint32_t)(item % a->kv_heads);
        for (uint32_t row = 0, n; row < p->n_rows; row += n) {
            uint64_t slot = ((uint64_t)p->position + row) % p->kv.capacity;
            n = KV_BLOCK - (uint32_t)(slot % KV_BLOCK);
            if (n > p->n_rows - row) n = p->n_rows - row;
            write_keys(j->c, a, p, head, row, n, slot);
            if (!a->values_in_keys) write_values(j->c, a, p, head, row, n, slot);
        }
    }
}

/* ---- attending ---------------------------------------------------------------------------------------------------- */

static uint64_t tiles_of(const attention_job *j, const attention_rows *p)
{
    return ((uint64_t)p->n_rows * j->group + j->tile - 1) / j->tile;
}

/* Pair i of a part and a KV head is query head i % group of row i / group. */
static void attend_tile(const attention_job *j, const attention_rows *p, uint32_t head, uint64_t tile, float *scratch)
{
    const attention_args *a = j->a;
    uint64_t bytes = (uint64_t)head * p->kv.capacity * (p->kv.half ? 2 : 4); /* times elements of a position */
    uint64_t pairs = (uint64_t)p->n_rows * j->group, from = tile * j->tile;
    attend_args t = {.head_dim = a->head_dim,
                     .v_dim = a->v_dim,
                     .capacity = p->kv.capacity,
                     .window = a->window,
                     .scale = a->scale,
                     .softcap = a->softcap,
                     .sinks = a->sinks != NULL,
                     .sloped = a->slopes != NULL,
                     .k = (const uint8_t *)p->kv.k + bytes * a->head_dim,
                     .v = a->values_in_keys ? NULL : (const uint8_t *)p->kv.v + bytes * a->v_dim,
                     .half = p->kv.half,
                     .scratch = scratch};
    for (uint64_t i = from; i < from + j->tile && i < pairs; i++, t.n++) {
        uint32_t row = (uint32_t)(i / j->group);
        uint32_t of = (uint32_t)(head * j->group + i % j->group); /* query head */
        uint64_t pair = (uint64_t)(p->row0 + row) * a->heads + of;
        t.q[t.n] = a->q + pair * a->head_dim;
        t.out[t.n] = a->out + pair * a->v_dim;
        t.sink[t.n] = a->sinks ? a->sinks[of] : 0.0f;
        t.slope[t.n] = a->slopes ? a->slopes[of] : 0.0f;
        t.position[t.n] = p->position + row;
    }
    j->c->kernels.attend(&t);
}

/* Tasks are tiles by KV heads, the last rows of a part first: they see most and take longest. */
static void attend_task(void *arg, uint32_t task, uint32_t thread)
{
    const attention_job *j = arg;
    uint64_t tile = task / j->a->kv_heads;
    const attention_rows *p = j->a->parts;
    while (tile >= tiles_of(j, p)) tile -= tiles_of(j, p++);
    attend_tile(j, p, task % j->a->kv_heads, tiles_of(j, p) - 1 - tile, cpu_scratch(j->c, thread));
}

void cpu_attention(backend *b, const attention_args *a)
{
    cpu *c = cpu_of(b);
    uint64_t rows = 0;
    for (uint32_t i = 0; i < a->n_parts; i++) rows += a->parts[i].n_rows;
    if (!rows) return;
    attention_job j = {.c = c, .a = a, .group = a->heads / a->kv_heads, .tile = ATTEND_ROWS};
    cpu_items(c, write_heads, &j, (uint64_t)a->n_parts * a->kv_heads, rows * a->head_dim / a->n_parts + 1);
    /* Smaller tiles where there are too few for the threads; each reads the cache for itself. */
    while (j.tile > 1 && rows * j.group * a->kv_heads < (uint64_t)j.tile * c->threads) j.tile /= 2;
    uint64_t tiles = 0;
    for (uint32_t i = 0; i < a->n_parts; i++) tiles += tiles_of(&j, &a->parts[i]);
    pool_run(c->pool, attend_task, &j, (uint32_t)(tiles * a->kv_heads));
}
