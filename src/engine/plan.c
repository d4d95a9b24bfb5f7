/* The plan: what a budget buys. The whole process is bounded, so the plan starts from what is resident already and
 * divides the rest: vectors, KV and the least activations first (without them nothing runs), then read-ahead, then rows
 * per pass, and everything left keeps weights: those that every token uses first, then routed experts, of which only
 * some are used. It is a pure function of the model, the budget and the rates measured;
 * lamina_start() takes exactly what it says. */
#include "engine/engine.h"

#include <math.h>

enum {
    CHUNK = 2 << 20, /* a read that any device serves at full speed */
    CHUNK_LEAST = 128 << 10,
    RING_CHUNKS = 16,
    RING_CHUNKS_LEAST = 2,
    PIECE_LEAST = 256 << 10, /* of experts: what is read beside it at its ends is below 2 % */
    POOL_PIECES = 16,        /* of experts, so that reading them does not pause */
    MARGIN = 256 << 10,      /* of the accountant's limit: what is allocated beside it while a pass runs */
    ROWS_MOST = 512,         /* beyond this a pass is bound by arithmetic on any machine with a disk */
    SLACK = 1280 << 10       /* stacks, kernels' code paged in, small allocations of libraries */
};

typedef struct draft {
    lamina_engine *e;
    lamina_plan_info *p;
    lamina_kv kv;
    uint64_t least_chunk, least_experts, available, rest;
} draft;

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t align_up(uint64_t bytes)
{
    return (bytes + READ_ALIGN - 1) / READ_ALIGN * READ_ALIGN;
}

/* Resident already, less what an engine that has started holds for its plan. */
static uint64_t process_bytes(const lamina_engine *e)
{
    static const mem_tag planned[] = {MEM_VECTOR, MEM_KV, MEM_ACTIVATION, MEM_RING, MEM_PINNED, MEM_EXPERTS};
    uint64_t bytes = os_resident_bytes(), taken = 0;
    for (size_t i = 0; i < sizeof planned / sizeof *planned; i++) taken += memory_used_tag(e->m, planned[i]);
    return (bytes > taken ? bytes - taken : 0) + SLACK;
}

static experts_layout experts_at(lamina_engine *e, uint64_t piece, uint64_t bytes)
{
    experts_layout layout;
    experts_config config = expert_pool_config(e);
    config.piece_bytes = piece;
    config.pool_bytes = bytes;
    experts_plan(&config, &layout);
    return layout;
}

/* The least that experts need. */
static lamina_status least_experts(draft *d, const lamina_budget *b, lamina_error *err)
{
    lamina_engine *e = d->e;
    if (e->n_moe_layers == 0) return LAMINA_OK;
    uint64_t piece = b->chunk ? align_up(b->chunk) : PIECE_LEAST;
    experts_layout l = experts_at(e, piece, 0);
    if (l.slot_bytes == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: the matrices of experts cannot be read in pieces", e->path);
    d->least_experts = l.least_pool + experts_at(e, piece, l.least_pool).overhead;
    return LAMINA_OK;
}

static uint64_t row_costs(const draft *d, uint32_t rows)
{
    return activations_bytes(d->e, rows, d->p->logit_rows) +
           d->p->sessions * session_bytes(d->e, d->p->context, rows, d->kv);
}

static lamina_status fill_defaults(draft *d, const lamina_budget *b, lamina_error *err)
{
    lamina_plan_info *p = d->p;
    const model *mo = d->e->model;
    uint32_t trained = mo->max_context ? mo->max_context : 2048;
    p->context = b->context ? b->context : (trained < 2048 ? trained : 2048);
    p->sessions = b->sessions ? b->sessions : 1;
    p->logit_rows = b->logit_rows ? b->logit_rows : 1;
    d->kv = b->kv;
    if (p->context > 1u << 26 || p->sessions > 1u << 16 || p->logit_rows > 1u << 20)
        return error_set(err, LAMINA_E_USAGE,
                         "context %u, sessions %u or logit rows %u is too large (at most 67108864, 65536, 1048576)",
                         p->context, p->sessions, p->logit_rows);
    if (b->chunk > 1u << 30 || (b->chunk && b->chunk < READ_ALIGN))
        return error_set(err, LAMINA_E_USAGE, "chunk of %llu bytes: expected 4096 to 1G", (unsigned long long)b->chunk);
    p->budget_chosen = b->memory == 0;
    p->budget_bytes = b->memory;
    if (p->budget_chosen) {
        uint64_t free_here = os_available_memory() + os_resident_bytes();
        uint64_t margin =
            free_here / 10 > UINT64_C(256) << 20 ? free_here / 10 : min64(free_here / 4, UINT64_C(256) << 20);
        p->budget_bytes = free_here - margin;
    }
    p->weight_bytes = mo->weight_bytes;
    p->vector_bytes = vectors_bytes(d->e);
    p->process_bytes = process_bytes(d->e);
    d->least_chunk = stream_min_chunk(d->e->schedule.stream, d->e->schedule.n);
    if (d->least_chunk < CHUNK_LEAST && !b->chunk) d->least_chunk = CHUNK_LEAST;
    return least_experts(d, b, err);
}

static lamina_status check_least(draft *d, lamina_error *err)
{
    lamina_plan_info *p = d->p;
    uint64_t fixed = p->process_bytes + p->vector_bytes;
    uint64_t least =
        fixed + row_costs(d, 1) + stream_overhead() + RING_CHUNKS_LEAST * d->least_chunk + d->least_experts;
    uint64_t peak = d->e->started ? 0 : os_peak_resident_bytes(); /* opening the model may have needed more */
    p->minimum_bytes = least > peak ? least : peak;
    if (p->budget_bytes < p->minimum_bytes)
        return error_set(
            err, LAMINA_E_BUDGET,
            "memory budget of %.1f MiB is too small: this model with a context of %u tokens needs at least "
            "%.1f MiB",
            (double)p->budget_bytes / 1048576, p->context, (double)p->minimum_bytes / 1048576 + 0.05);
    d->available = p->budget_bytes - fixed;
    return LAMINA_OK;
}

static void choose_ring(draft *d, const lamina_budget *b)
{
    lamina_plan_info *p = d->p;
    uint64_t least_rows = row_costs(d, 1), spare = d->available - least_rows - d->least_experts;
    uint64_t most = b->ring || b->chunk ? spare : spare / 4 > RING_CHUNKS_LEAST * d->least_chunk ? spare / 4 : spare;
    uint64_t chunk = b->chunk ? align_up(b->chunk) : CHUNK;
    uint64_t count = b->ring && !b->chunk ? 8 : RING_CHUNKS_LEAST;
    if (b->ring && b->ring < most) most = b->ring;
    if (chunk * count + stream_overhead() > most && most / count > stream_overhead())
        chunk = (most - stream_overhead()) / count / READ_ALIGN * READ_ALIGN;
    if (!b->ring && !b->chunk && chunk * 8 > most) chunk = most / 8 / READ_ALIGN * READ_ALIGN;
    if (chunk < d->least_chunk) chunk = d->least_chunk;
    uint64_t slots = b->ring ? b->ring / chunk : RING_CHUNKS;
    uint64_t fit = most > stream_overhead() ? (most - stream_overhead()) / chunk : 0;
    if (slots > fit) slots = fit;
    if (slots < RING_CHUNKS_LEAST) slots = RING_CHUNKS_LEAST;
    p->chunk_bytes = chunk;
    p->ring_bytes = slots * chunk;
}

/* Bytes of experts' pool and tables that go with pieces of this size; *bytes: of the pool. */
static uint64_t working_pool(const draft *d, uint64_t piece, uint64_t pieces, uint64_t *bytes)
{
    experts_layout l = experts_at(d->e, piece, 0);
    *bytes = min64(pieces * l.slot_bytes, l.whole_pool);
    return *bytes + experts_at(d->e, piece, *bytes).overhead;
}

/* What experts need to be read without a pause, of a quarter of what is left; the largest pieces that allow it. */
static void choose_pieces(draft *d, const lamina_budget *b)
{
    lamina_plan_info *p = d->p;
    if (d->e->n_moe_layers == 0) return;
    uint64_t used = p->ring_bytes + stream_overhead() + row_costs(d, 1), piece = CHUNK, bytes;
    uint64_t spare = d->available > used ? d->available - used : 0;
    if (b->chunk) piece = align_up(b->chunk);
    while (!b->chunk && piece > PIECE_LEAST && working_pool(d, piece, POOL_PIECES, &bytes) > spare / 4) piece /= 2;
    uint64_t pieces = POOL_PIECES;
    while (pieces > 2 && working_pool(d, piece, pieces, &bytes) > spare / 2) pieces--;
    d->least_experts = working_pool(d, piece, pieces, &bytes);
    p->expert_piece_bytes = piece;
    p->expert_pool_bytes = bytes;
}

/* The most rows whose cost fits in `most` bytes, at most `limit`; cost grows with rows. */
static uint32_t fit_rows(const draft *d, uint32_t limit, uint64_t most)
{
    uint32_t low = 1, high = limit;
    while (low < high) {
        uint32_t mid = low + (high - low + 1) / 2;
        if (row_costs(d, mid) <= most)
            low = mid;
        else
            high = mid - 1;
    }
    return low;
}

static void choose_rows(draft *d, const lamina_budget *b)
{
    lamina_plan_info *p = d->p;
    uint64_t rest = d->available - p->ring_bytes - stream_overhead() - d->least_experts, least = row_costs(d, 1);
    uint32_t limit = p->context < ROWS_MOST ? p->context : ROWS_MOST;
    uint64_t most = least + (rest - least) / 4;
    if (b->rows) {
        limit = b->rows < p->context * (uint64_t)p->sessions ? b->rows : p->context * p->sessions;
        most = rest;
    } else if (p->sessions > 1 && limit < ROWS_MOST) {
        limit = (uint32_t)min64((uint64_t)p->context * p->sessions, ROWS_MOST);
    }
    p->rows = fit_rows(d, limit, most);
    p->activation_bytes = activations_bytes(d->e, p->rows, p->logit_rows);
    p->kv_bytes = p->sessions * session_bytes(d->e, p->context, p->rows, d->kv);
    d->rest = rest - row_costs(d, p->rows);
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

typedef struct routed { /* all experts of all layers */
    uint64_t bytes;     /* as stored, without scales that lie apart */
    double elements;
} routed;

static routed routed_of(const lamina_engine *e)
{
    routed r = {0};
    for (uint32_t i = 0; i < e->n_moe_layers; i++) {
        const weight *w = e->model->layers[e->moe_layers[i]].experts[0].w;
        for (uint32_t j = 0; j < EXPERT_MATRICES; j++) {
            r.bytes += w[j].bytes * e->model->experts.count; /* of files that exist, or within 2^62 */
            r.elements += (double)w[j].rows * (double)w[j].cols * e->model->experts.count;
        }
    }
    return r;
}

/* Matrix elements of a pass that a row uses: each costs a multiply and an add. */
static double elements(const lamina_engine *e)
{
    const schedule *s = &e->schedule;
    double n = 0;
    for (size_t i = 0; i < s->n; i++) n += (double)s->stream[i].rows * (double)s->matrix[i].cols;
    return n + routed_of(e).elements / larger(e->model->experts.count, 1) * e->model->experts.used;
}

/* Gives the experts what is left, within `most` bytes more than they have. */
static void grow_pool(draft *d, uint64_t most)
{
    lamina_plan_info *p = d->p;
    uint64_t room = d->least_experts + most;
    experts_layout l = experts_at(d->e, p->expert_piece_bytes, room);
    for (int i = 0; i < 4 && l.pool_bytes + l.overhead > room; i++)
        l = experts_at(d->e, p->expert_piece_bytes, room - l.overhead);
    if (l.pool_bytes + l.overhead > room || l.pool_bytes < p->expert_pool_bytes) return;
    d->rest -= l.pool_bytes + l.overhead - d->least_experts;
    d->least_experts = l.pool_bytes + l.overhead;
    p->expert_pool_bytes = l.pool_bytes;
}

/* What the pool comes to: an expert is found in it as often as others were, or as if all were used alike. */
static void expect_experts(draft *d)
{
    lamina_engine *e = d->e;
    lamina_plan_info *p = d->p;
    const expert_axes *axes = &e->model->experts;
    experts_layout l = experts_at(e, p->expert_piece_bytes, p->expert_pool_bytes);
    experts_stats seen = {0};
    double share = (double)l.pool_bytes / (double)l.whole_pool;
    if (e->experts) experts_get_stats(e->experts, &seen);
    p->expert_bytes = routed_of(e).bytes;
    p->experts = e->n_moe_layers * axes->count;
    p->experts_per_token = e->n_moe_layers * axes->used;
    p->experts_resident = (uint32_t)(share * p->experts);
    p->expert_hit_rate = seen.wanted ? (double)seen.hits / (double)seen.wanted : share;
    p->expert_read_bytes_per_pass =
        (uint64_t)((1 - p->expert_hit_rate) * p->experts_per_token * (double)l.expert_bytes);
    p->streamed_bytes_per_pass += p->expert_read_bytes_per_pass;
}

/* Experts that some of n rows use, of those that all rows together use, if all are used alike: bytes read for them. */
static double read_by_rows(const draft *d, uint32_t n)
{
    const lamina_plan_info *p = d->p;
    const expert_axes *axes = &d->e->model->experts;
    if (p->experts == 0) return 0;
    double one = (double)axes->used / axes->count, any = 1 - pow(1 - one, n);
    return (double)p->expert_read_bytes_per_pass * any / one;
}

static void predict(draft *d)
{
    lamina_plan_info *p = d->p;
    double work = 2 * elements(d->e), disk = 0, disk_many = 0, one = 0, many = 0;
    uint64_t dense = p->streamed_bytes_per_pass - p->expert_read_bytes_per_pass;
    if (p->device_bytes_per_s > 0) {
        disk = (double)p->streamed_bytes_per_pass / p->device_bytes_per_s;
        disk_many = ((double)dense + read_by_rows(d, p->rows)) / p->device_bytes_per_s;
    } else if (p->streamed_bytes_per_pass)
        return;
    if (p->flops_per_s > 0) {
        one = work / p->flops_per_s;
        many = one * p->rows;
    }
    if (d->e->ram_rate > 0) one = larger(one, (double)p->active_bytes_per_token / d->e->ram_rate);
    p->seconds_per_token = larger(disk, one);
    if (larger(disk_many, many) > 0) p->prompt_tokens_per_s = p->rows / larger(disk_many, many);
}

/* Reads the model for a moment, with the plan's ring and nothing pinned. */
static lamina_status measure_disk(lamina_engine *e, uint64_t chunk, uint64_t ring, lamina_error *err)
{
    stream *s = NULL;
    TRY(engine_stream(e, chunk, ring, 0, false, &s, err));
    lamina_status status = stream_measure(s, 0.25, &e->disk_rate, err);
    stream_free(s);
    return status;
}

void plan_limit(lamina_engine *e, uint64_t budget)
{
    uint64_t resident = os_resident_bytes() + MARGIN;
    uint64_t room = budget > resident ? budget - resident : 0;
    e->limit = memory_used(e->m) + (room ? room : 1);
    memory_set_limit(e->m, e->limit);
}

static lamina_status measure_rates(draft *d, const lamina_budget *b, lamina_error *err)
{
    lamina_engine *e = d->e;
    if (e->fma_rate == 0) e->fma_rate = backend_cpu_measure_fma(e->backend, 0.05);
    if (e->ram_rate == 0) e->ram_rate = backend_cpu_measure_ram(e->backend, 0.05);
    if (e->disk_rate != 0 || b->device_bytes_per_s != 0 || e->ckpt->n_files == 0 || e->started) return LAMINA_OK;
    return measure_disk(e, d->p->chunk_bytes, d->p->ring_bytes, err);
}

static lamina_status rates(draft *d, const lamina_budget *b, bool measure, lamina_error *err)
{
    lamina_engine *e = d->e;
    if (measure) {
        if (!e->started) plan_limit(e, d->p->budget_bytes); /* measuring keeps to the budget, too */
        lamina_status status = measure_rates(d, b, err);
        if (!e->started) memory_set_limit(e->m, 0);
        TRY(status);
    }
    d->p->flops_per_s = e->fma_rate;
    d->p->device_bytes_per_s = b->device_bytes_per_s > 0 ? b->device_bytes_per_s : e->disk_rate;
    return LAMINA_OK;
}

/* What stays in memory: first what every token uses, then experts, last the embedding, of which a token touches one row
 * (tied, it is the head). */
static void choose_residents(draft *d, const lamina_budget *b)
{
    lamina_engine *e = d->e;
    lamina_plan_info *p = d->p;
    stream_layout dense;
    if (b->pin_limit && b->pin_limit < d->rest) d->rest = b->pin_limit;
    stream_plan(e->schedule.stream, e->schedule.n, p->chunk_bytes, p->ring_bytes, d->rest, &dense);
    p->pinned_bytes = dense.pinned_bytes;
    p->streamed_bytes_per_pass = dense.streamed_bytes;
    p->active_bytes_per_token = dense.total_bytes;
    d->rest -= dense.pinned_bytes;
    bool all = dense.streamed_bytes == 0;
    if (e->n_moe_layers) {
        const expert_axes *axes = &e->model->experts;
        if (all) grow_pool(d, d->rest);
        expect_experts(d);
        p->active_bytes_per_token += p->expert_bytes / axes->count * axes->used;
        all = all && p->experts_resident == p->experts;
    }
    uint64_t embed = align_up(model_end(e->model, ROLE_EMBED)->bytes);
    if (!e->model->tied_head && all && d->rest >= embed) p->embedding_bytes = embed;
}

lamina_status plan_make(lamina_engine *e, const lamina_budget *b, bool measure, lamina_plan_info *p, lamina_error *err)
{
    draft d = {.e = e, .p = p};
    *p = (lamina_plan_info){0};
    TRY(fill_defaults(&d, b, err));
    TRY(check_least(&d, err));
    choose_ring(&d, b);
    choose_pieces(&d, b);
    choose_rows(&d, b);
    choose_residents(&d, b);
    p->predicted_peak_bytes = p->process_bytes + p->vector_bytes + p->kv_bytes + p->activation_bytes + p->ring_bytes +
                              stream_overhead() + p->pinned_bytes + d.least_experts + p->embedding_bytes;
    uint64_t peak = e->started ? 0 : os_peak_resident_bytes();
    if (p->predicted_peak_bytes < peak) p->predicted_peak_bytes = peak;
    TRY(rates(&d, b, measure, err));
    predict(&d);
    return LAMINA_OK;
}
