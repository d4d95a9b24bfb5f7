/* The plan: what a budget buys. The whole process is bounded, so the plan starts from what is resident already and
 * divides the rest: vectors, KV and the least activations first (without them nothing runs), then read-ahead, then rows
 * per pass, and everything left pins weights. It is a pure function of the model, the budget and the rates measured;
 * lamina_start() takes exactly what it says. */
#include "engine/engine.h"

enum {
    CHUNK = 2 << 20, /* a read that any device serves at full speed */
    CHUNK_LEAST = 128 << 10,
    RING_CHUNKS = 16,
    RING_CHUNKS_LEAST = 2,
    MARGIN = 256 << 10, /* of the accountant's limit: what is allocated beside it while a pass runs */
    ROWS_MOST = 512,    /* beyond this a pass is bound by arithmetic on any machine with a disk */
    SLACK = 1280 << 10  /* stacks, kernels' code paged in, small allocations of libraries */
};

typedef struct draft {
    lamina_engine *e;
    lamina_plan_info *p;
    lamina_kv kv;
    uint64_t least_chunk, available, rest;
    experts_layout experts; /* zeros: a dense model */
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
    if (d->e->n_moe_layers) {
        experts_config config = expert_pool_config(d->e);
        experts_plan(&config, &d->experts);
    }
    d->least_chunk = stream_min_chunk(d->e->schedule.stream, d->e->schedule.n);
    if (d->least_chunk < CHUNK_LEAST && !b->chunk) d->least_chunk = CHUNK_LEAST;
    return LAMINA_OK;
}

static lamina_status check_least(draft *d, lamina_error *err)
{
    lamina_plan_info *p = d->p;
    uint64_t fixed = p->process_bytes + p->vector_bytes + d->experts.overhead + d->experts.least_pool;
    uint64_t least = fixed + row_costs(d, 1) + stream_overhead() + RING_CHUNKS_LEAST * d->least_chunk;
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
    uint64_t least_rows = row_costs(d, 1), spare = d->available - least_rows;
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
    uint64_t rest = d->available - p->ring_bytes - stream_overhead(), least = row_costs(d, 1);
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

/* Matrix elements of a pass: each costs a multiply and an add per row. */
static double elements(const schedule *s)
{
    double n = 0;
    for (size_t i = 0; i < s->n; i++) n += (double)s->stream[i].rows * (double)s->matrix[i].cols;
    return n;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void predict(draft *d, const stream_layout *layout)
{
    lamina_plan_info *p = d->p;
    double work = 2 * elements(&d->e->schedule), disk = 0, one = 0, many = 0;
    if (p->device_bytes_per_s > 0)
        disk = (double)p->streamed_bytes_per_pass / p->device_bytes_per_s;
    else if (p->streamed_bytes_per_pass)
        return;
    if (p->flops_per_s > 0) {
        one = work / p->flops_per_s;
        many = one * p->rows;
    }
    if (d->e->ram_rate > 0) one = larger(one, (double)layout->total_bytes / d->e->ram_rate);
    p->seconds_per_token = larger(disk, one);
    if (larger(disk, many) > 0) p->prompt_tokens_per_s = p->rows / larger(disk, many);
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

lamina_status plan_make(lamina_engine *e, const lamina_budget *b, bool measure, lamina_plan_info *p, lamina_error *err)
{
    draft d = {.e = e, .p = p};
    stream_layout layout;
    *p = (lamina_plan_info){0};
    TRY(fill_defaults(&d, b, err));
    TRY(check_least(&d, err));
    choose_ring(&d, b);
    choose_rows(&d, b);
    if (b->pin_limit && b->pin_limit < d.rest) d.rest = b->pin_limit;
    stream_plan(e->schedule.stream, e->schedule.n, p->chunk_bytes, p->ring_bytes, d.rest, &layout);
    p->pinned_bytes = layout.pinned_bytes;
    p->streamed_bytes_per_pass = layout.streamed_bytes;
    uint64_t embed =
        align_up(model_end(e->model, ROLE_EMBED)->bytes); /* kept last: a token touches one row; tied, it is the head */
    if (!e->model->tied_head && layout.streamed_bytes == 0 && d.rest - layout.pinned_bytes >= embed)
        p->embedding_bytes = embed;
    /* Dense parts first: every pass reads them; experts share what is left. */
    uint64_t spare = d.rest - layout.pinned_bytes - p->embedding_bytes;
    p->expert_pool_bytes = d.experts.least_pool + spare / READ_ALIGN * READ_ALIGN;
    if (p->expert_pool_bytes > d.experts.whole_pool) p->expert_pool_bytes = d.experts.whole_pool;
    p->predicted_peak_bytes = d.experts.overhead + p->expert_pool_bytes + p->process_bytes + p->vector_bytes +
                              p->kv_bytes + p->activation_bytes + p->ring_bytes + stream_overhead() + p->pinned_bytes +
                              p->embedding_bytes;
    uint64_t peak = e->started ? 0 : os_peak_resident_bytes();
    if (p->predicted_peak_bytes < peak) p->predicted_peak_bytes = peak;
    TRY(rates(&d, b, measure, err));
    predict(&d, &layout);
    return LAMINA_OK;
}
