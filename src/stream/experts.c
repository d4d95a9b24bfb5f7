/* What is wanted and what is delivered: owns the pool's memory and tables, answers a layer's wants in order, and keeps
 * the statistics. Promises that nothing is allocated after experts_new() and that reads of all that is missing are
 * under way, as far as the window allows, before the first piece is delivered. */
#include "stream/experts_pool.h"

#include "stream/layout.h"

#include <string.h>

enum {
    QUEUES = 128 << 10, /* bytes that a reader takes, as stream_overhead() has it */
    LANE = 128,         /* of traces, behind the ring's */
    WINDOW = 32,
    WINDOW_LEAST = 8, /* pieces read ahead of the consumer */
};

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Bytes of tables. */
static uint64_t tables(const experts_config *c, const expert_kinds *kinds, uint64_t n_slots)
{
    uint64_t all = (uint64_t)c->n_layers * c->n_experts;
    return all * (sizeof(expert_state) + kinds->most_pieces * sizeof(uint32_t)) +
           min64(all, n_slots) * sizeof(uint32_t) + n_slots * sizeof(expert_slot) +
           EXPERTS_DEPTH * sizeof(expert_flight) + policy_bytes(c->n_layers, c->n_experts) + c->n_layers +
           3 * (uint64_t)c->n_experts * sizeof(uint32_t) + sizeof(experts);
}

/* An expert as it is read and as it is stored, on average over the layers, by the first of each. */
static void as_read(const experts_config *c, const expert_kinds *kinds, const uint8_t *kind_of, experts_layout *l)
{
    for (uint32_t layer = 0; layer < c->n_layers; layer++) {
        const expert_cuts *cuts = &kinds->of[kind_of[layer]];
        for (uint32_t p = 0; p < cuts->n_pieces; p++) {
            expert_matrix m = c->locate(c->user, layer, 0, experts_matrix_of(cuts, p));
            expert_extent e;
            experts_extent(cuts, &m, p, &e);
            l->expert_bytes += (uint64_t)e.bytes + e.side_bytes;
            l->stored_bytes += e.stored;
        }
    }
    l->expert_bytes /= c->n_layers;
    l->stored_bytes /= c->n_layers;
}

static void plan(const experts_config *c, const expert_kinds *kinds, const uint8_t *kind_of, experts_layout *l)
{
    uint64_t pieces = 0;
    for (uint32_t i = 0; i < kinds->n; i++)
        pieces += (uint64_t)kinds->of[i].n_layers * c->n_experts * kinds->of[i].n_pieces;
    l->slot_bytes = kinds->slot_bytes;
    l->least_pool = 2 * kinds->slot_bytes;
    l->whole_pool = (pieces < 2 ? 2 : pieces) * kinds->slot_bytes; /* below 2^31 of at most 2^31 */
    uint64_t slots = min64(c->pool_bytes, l->whole_pool) / kinds->slot_bytes;
    l->pool_bytes = slots * kinds->slot_bytes;
    l->overhead = tables(c, kinds, slots) + QUEUES;
    as_read(c, kinds, kind_of, l);
}

static lamina_status lay_out(const experts_config *c, experts_layout *l, lamina_error *err)
{
    expert_kinds kinds;
    uint8_t kind_of[EXPERTS_MOST_LAYERS];
    *l = (experts_layout){0};
    if (c->n_layers > EXPERTS_MOST_LAYERS)
        return error_set(err, LAMINA_E_FORMAT, "experts: %u layers (at most %d)", c->n_layers, EXPERTS_MOST_LAYERS);
    TRY(experts_cut(c, &kinds, kind_of, err));
    plan(c, &kinds, kind_of, l);
    return LAMINA_OK;
}

void experts_plan(const experts_config *c, experts_layout *l)
{
    (void)lay_out(c, l, NULL);
}

/* ---- a life ------------------------------------------------------------------------------------------------------ */

static lamina_status check_part(const experts_config *c, uint32_t file, uint64_t offset, uint64_t bytes, uint32_t layer,
                                uint32_t expert, lamina_error *err)
{
    if (file >= c->n_files)
        return error_set(err, LAMINA_E_FORMAT, "layer %u, expert %u: there is no file %u", layer, expert, file);
    if (offset <= c->file_bytes[file] && bytes <= c->file_bytes[file] - offset) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT,
                     "%s: layer %u, expert %u needs %llu bytes at offset %llu, the file has %llu bytes", c->paths[file],
                     layer, expert, (unsigned long long)bytes, (unsigned long long)offset,
                     (unsigned long long)c->file_bytes[file]);
}

static lamina_status check_matrix(const experts *x, uint32_t at, uint32_t matrix, lamina_error *err)
{
    const experts_config *c = &x->config;
    const expert_cut *first = &cuts_of(x, at)->cut[matrix];
    expert_matrix m = pool_locate(x, at, matrix);
    uint32_t layer = at / c->n_experts, expert = at % c->n_experts;
    if (c->layer_numbers) layer = c->layer_numbers[layer];
    if (m.rows != first->rows || m.row_bytes != first->row_bytes || m.side_row_bytes != first->side_row_bytes ||
        (m.side_row_bytes && m.side_rows != first->side_rows))
        return error_set(
            err, LAMINA_E_FORMAT,
            "layer %u, expert %u: matrix %u has %llu rows of %llu bytes, that of expert 0 has %llu of %llu", layer,
            expert, matrix, (unsigned long long)m.rows, (unsigned long long)m.row_bytes,
            (unsigned long long)first->rows, (unsigned long long)first->row_bytes);
    TRY(check_part(c, m.file, m.offset, m.rows * m.row_bytes, layer, expert, err)); /* the product: as it was cut */
    if (m.side_row_bytes == 0) return LAMINA_OK;
    uint64_t groups = m.rows / m.side_rows + (m.rows % m.side_rows != 0);
    return check_part(c, m.side_file, m.side_offset, groups * m.side_row_bytes, layer, expert, err);
}

static lamina_status check(experts *x, lamina_error *err)
{
    const experts_config *c = &x->config;
    if (c->pool_bytes < x->layout.least_pool)
        return error_set(err, LAMINA_E_USAGE, "a pool of %llu bytes for experts: expected at least two pieces, %llu",
                         (unsigned long long)c->pool_bytes, (unsigned long long)x->layout.least_pool);
    for (uint32_t at = 0; at < c->n_layers * c->n_experts; at++)
        for (uint32_t i = 0; i < c->n_matrices; i++) TRY(check_matrix(x, at, i, err));
    return LAMINA_OK;
}

/* A table of the experts. */
static void *table(const experts *x, uint64_t n, size_t size, lamina_error *err)
{
    return mem_array(x->config.m, MEM_OTHER, n, size, err);
}

static lamina_status take_tables(experts *x, lamina_error *err)
{
    uint64_t pieces = (uint64_t)x->n_experts * x->kinds.most_pieces;
    if (!(x->slots = table(x, x->n_slots, sizeof *x->slots, err))) return LAMINA_E_MEMORY;
    if (!(x->where = table(x, pieces, sizeof *x->where, err))) return LAMINA_E_MEMORY;
    if (!(x->state = table(x, x->n_experts, sizeof *x->state, err))) return LAMINA_E_MEMORY;
    if (!(x->kept = table(x, min64(x->n_experts, x->n_slots), sizeof *x->kept, err))) return LAMINA_E_MEMORY;
    if (!(x->flights = table(x, EXPERTS_DEPTH, sizeof *x->flights, err))) return LAMINA_E_MEMORY;
    if (!(x->want.ids = table(x, x->config.n_experts, sizeof(uint32_t), err))) return LAMINA_E_MEMORY;
    if (!(x->want.order = table(x, x->config.n_experts, sizeof(uint32_t), err))) return LAMINA_E_MEMORY;
    TRY(policy_new(x->config.m, x->config.n_layers, x->config.n_experts, &x->policy, err));
    x->pool = mem_pages(x->config.m, MEM_EXPERTS, x->layout.pool_bytes, err);
    return x->pool ? LAMINA_OK : LAMINA_E_MEMORY;
}

static void fill_tables(experts *x)
{
    memset(x->where, 0xFF, (size_t)x->n_experts * x->kinds.most_pieces * sizeof *x->where); /* NONE */
    for (uint32_t i = 0; i < x->n_experts; i++) x->state[i].order = NONE;
    x->free_slot = x->victim = x->held = NONE;
    for (uint32_t i = x->n_slots; i-- > 0;) {
        x->slots[i] = (expert_slot){.piece = NONE, .next = x->free_slot};
        x->free_slot = i;
    }
    for (uint32_t i = EXPERTS_DEPTH; i-- > 0;) {
        x->flights[i] = (expert_flight){.lane = LANE + i, .next = x->free_flight};
        x->flights[i].request.user = &x->flights[i];
        x->free_flight = &x->flights[i];
    }
    x->n_free_flights = EXPERTS_DEPTH;
}

static lamina_status build(experts *x, lamina_error *err)
{
    const experts_config *c = &x->config;
    TRY(lay_out(c, &x->layout, err));
    if (!(x->kind_of = table(x, c->n_layers, sizeof *x->kind_of, err))) return LAMINA_E_MEMORY;
    TRY(experts_cut(c, &x->kinds, x->kind_of, err));
    TRY(check(x, err));
    x->n_experts = c->n_layers * c->n_experts;
    x->n_slots = (uint32_t)(x->layout.pool_bytes / x->layout.slot_bytes);
    x->window = x->n_slots / 4 < WINDOW_LEAST ? WINDOW_LEAST : x->n_slots / 4 > WINDOW ? WINDOW : x->n_slots / 4;
    TRY(take_tables(x, err));
    fill_tables(x);
    reader_config rc = {.m = c->m,
                        .io = c->io,
                        .depth = EXPERTS_DEPTH,
                        .n_files = c->n_files,
                        .paths = c->paths,
                        .faults = c->faults}; /* registering the pool would make all of it resident at once */
    return reader_new(&rc, &x->reader, err);
}

lamina_status experts_new(const experts_config *config, experts **out, lamina_error *err)
{
    *out = NULL;
    experts *x = mem_alloc(config->m, MEM_OTHER, sizeof *x, err);
    if (!x) return LAMINA_E_MEMORY;
    x->config = *config;
    x->policy.m = config->m;
    lamina_status status = build(x, err);
    if (status != LAMINA_OK) {
        experts_free(x);
        return status;
    }
    *out = x;
    return LAMINA_OK;
}

void experts_free(experts *x)
{
    if (!x) return;
    memory *m = x->config.m;
    reader_free(x->reader); /* first: reads in flight write to the memory below */
    if (x->pool) mem_pages_free(m, MEM_EXPERTS, x->pool, x->layout.pool_bytes);
    policy_free(&x->policy);
    mem_free(m, x->want.order);
    mem_free(m, x->want.ids);
    mem_free(m, x->flights);
    mem_free(m, x->kept);
    mem_free(m, x->state);
    mem_free(m, x->where);
    mem_free(m, x->slots);
    mem_free(m, x->kind_of);
    mem_free(m, x);
}

/* ---- wanting ----------------------------------------------------------------------------------------------------- */

static void end_want(experts *x)
{
    expert_wants *w = &x->want;
    for (uint32_t i = 0; i < w->n; i++) x->state[w->layer * x->config.n_experts + w->ids[i]].order = NONE;
    w->active = false;
    for (uint32_t i = 0; w->ahead > 0 && i < x->n_slots; i++) x->slots[i].fresh = false;
    w->n = w->at = w->piece = w->read_at = w->read_piece = w->ahead = 0;
    x->held = NONE;
}

/* 0: whole in memory; 1: all there or on its way; 2: pieces are missing. */
static int class_of(const experts *x, uint32_t at)
{
    const expert_state *s = &x->state[at];
    uint32_t all = cuts_of(x, at)->n_pieces;
    return s->here == all ? 0 : s->slots == all ? 1 : 2;
}

static void count_missing(experts *x, uint32_t at)
{
    for (uint32_t p = 0; p < cuts_of(x, at)->n_pieces; p++) {
        if (x->where[piece_number(x, at, p)] != NONE) continue;
        expert_extent e;
        pool_extent(x, at, p, &e);
        x->stats.missed_bytes += e.stored;
    }
}

/* The order of delivery: what is there first. */
static void put_in_order(experts *x)
{
    expert_wants *w = &x->want;
    uint32_t placed = 0;
    for (int class = 0; class <= 2; class ++) {
        for (uint32_t i = 0; i < w->n; i++) {
            uint32_t at = w->layer * x->config.n_experts + w->ids[i];
            if (class_of(x, at) != class) continue;
            x->state[at].order = placed;
            w->order[placed++] = i;
            if (class == 0) x->stats.hits++;
            if (class == 2) count_missing(x, at);
        }
    }
}

static bool ascending(const experts *x, uint32_t layer, const uint32_t *ids, uint32_t n)
{
    if (layer >= x->config.n_layers || n > x->config.n_experts) return false;
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= x->config.n_experts || (i && ids[i] <= ids[i - 1])) return false;
    return true;
}

void experts_want(experts *x, uint32_t layer, const uint32_t *ids, const uint32_t *uses, uint32_t n)
{
    expert_wants *w = &x->want;
    end_want(x);
    while (pool_reap(x, false)) continue;
    w->active = true;
    if (!ascending(x, layer, ids, n)) {
        if (!x->failed) error_set(&x->failure, LAMINA_E_USAGE, "experts: layer %u wants what it has not", layer);
        x->failed = true;
        return;
    }
    policy_want(&x->policy, layer, ids, uses, n);
    w->layer = layer;
    w->n = n;
    if (n) memcpy(w->ids, ids, n * sizeof *ids);
    x->stats.wanted += n;
    put_in_order(x);
    x->victim = NONE;
    pool_pump(x);
}

/* ---- delivering -------------------------------------------------------------------------------------------------- */

/* The slot of the next piece, if it is there; else NONE. */
static uint32_t ready(const experts *x)
{
    const expert_wants *w = &x->want;
    uint32_t slot = x->where[piece_number(x, wanted_expert(x, w->at), w->piece)];
    return slot != NONE && x->slots[slot].waiting == 0 ? slot : NONE;
}

static lamina_status wait_for(experts *x, lamina_error *err)
{
    double begin = os_seconds();
    lamina_status status = LAMINA_OK;
    while (status == LAMINA_OK && ready(x) == NONE) {
        if (!pool_reap(x, true)) {
            if (x->failed)
                status = error_set(err, x->failure.status, "%s", x->failure.text);
            else
                pool_make_room(x);
        }
        pool_pump(x);
    }
    double end = os_seconds();
    x->stats.stall_seconds += end - begin;
    const experts_config *c = &x->config;
    uint32_t number = c->layer_numbers ? c->layer_numbers[x->want.layer] : x->want.layer;
    trace_span(c->trace, TRACE_WAIT, "wait for experts", (int32_t)number, 0, begin, end);
    return status;
}

static void deliver(experts *x, uint32_t slot, expert_piece *out)
{
    expert_wants *w = &x->want;
    uint32_t expert = wanted_expert(x, w->at);
    expert_extent e;
    pool_extent(x, expert, w->piece, &e);
    const unsigned char *data = x->pool + slot * x->kinds.slot_bytes;
    *out = (expert_piece){.item = w->order[w->at],
                          .matrix = e.matrix,
                          .row0 = e.row0,
                          .n_rows = e.n_rows,
                          .data = data + e.skew,
                          .side = e.side_bytes ? data + e.bytes + e.side_skew : NULL};
    x->held = slot;
    w->ahead -= x->slots[slot].fresh;
    x->slots[slot].fresh = false;
    if (++w->piece < cuts_of(x, expert)->n_pieces) return;
    w->piece = 0;
    w->at++;
}

lamina_status experts_next(experts *x, expert_piece *piece, bool *more, lamina_error *err)
{
    expert_wants *w = &x->want;
    *more = false;
    x->held = NONE;
    while (pool_reap(x, false)) continue;
    pool_pump(x);
    if (!w->active) return LAMINA_OK;
    if (x->failed && w->n == 0) return error_set(err, x->failure.status, "%s", x->failure.text);
    if (w->at == w->n) {
        end_want(x);
        pool_pump(x);
        return LAMINA_OK;
    }
    if (ready(x) == NONE) TRY(wait_for(x, err));
    deliver(x, ready(x), piece);
    *more = true;
    return LAMINA_OK;
}

void experts_abort(experts *x)
{
    while (pool_reap(x, true)) continue;
    end_want(x);
    x->failed = false;
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

void experts_get_stats(const experts *x, experts_stats *stats)
{
    *stats = x->stats;
    for (uint32_t i = 0; i < x->n_kept; i++) stats->resident += class_of(x, x->kept[i]) == 0;
}

void experts_reset_stats(experts *x)
{
    x->stats = (experts_stats){0};
}
