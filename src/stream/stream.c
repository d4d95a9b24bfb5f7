/* Passes over the weights: owns the memory of ring and pinned parts and hands out chunks in order. Promises that
 * nothing is allocated after stream_new(), that a slot is refilled the moment its chunk is given back, and that what is
 * pinned costs a few nanoseconds a matrix. */
#include "stream/ring.h"

#include <string.h>

static lamina_status check_matrix(const stream_config *c, const stream_matrix *m, lamina_error *err)
{
    if (m->rows == 0 || m->row_bytes == 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: a matrix without rows or columns", m->name);
    if (m->file >= c->n_files) return error_set(err, LAMINA_E_FORMAT, "%s: there is no file %u", m->name, m->file);
    uint64_t size = c->file_bytes[m->file];
    if (m->offset > size || m->rows > (size - m->offset) / m->row_bytes)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: %s needs %llu rows of %llu bytes at offset %llu, the file has %llu bytes",
                         c->paths[m->file], m->name, (unsigned long long)m->rows, (unsigned long long)m->row_bytes,
                         (unsigned long long)m->offset, (unsigned long long)size);
    return LAMINA_OK;
}

static lamina_status check_config(const stream_config *c, lamina_error *err)
{
    if (c->n_matrices == 0 || c->tail > c->n_matrices)
        return error_set(err, LAMINA_E_USAGE, "stream: %zu matrices with the tail from %zu on", c->n_matrices, c->tail);
    for (size_t i = 0; i < c->n_matrices; i++) TRY(check_matrix(c, &c->matrices[i], err));
    uint64_t least = stream_min_chunk(c->matrices, c->n_matrices), most = UINT64_C(1) << 30;
    if (c->chunk_bytes < least || c->chunk_bytes > most || c->chunk_bytes % READ_ALIGN != 0)
        return error_set(err, LAMINA_E_USAGE, "chunk of %llu bytes: expected a multiple of %d from %llu to %llu",
                         (unsigned long long)c->chunk_bytes, READ_ALIGN, (unsigned long long)least,
                         (unsigned long long)most);
    if (c->ring_bytes < c->chunk_bytes && c->pin_budget < stream_pin_all(c->matrices, c->n_matrices))
        return error_set(err, LAMINA_E_USAGE, "ring of %llu bytes: expected at least one chunk of %llu",
                         (unsigned long long)c->ring_bytes, (unsigned long long)c->chunk_bytes);
    return LAMINA_OK;
}

static void init_flight(flight *f, flight_kind kind, uint32_t lane)
{
    f->kind = kind;
    f->lane = lane;
    f->request.user = f;
}

/* What the reader needs: the flights, the ring, the gather area. */
static lamina_status take_ring(stream *s, lamina_error *err)
{
    stream_config *c = &s->config;
    uint64_t smallest = c->tune ? c->chunk_bytes / 4 : c->chunk_bytes; /* of the reads that tuning may choose */
    uint64_t slots = c->ring_bytes / smallest;
    if (slots > UINT32_MAX / 2) slots = UINT32_MAX / 2;
    s->n_slots = (uint32_t)slots;
    s->slots = mem_array(c->m, MEM_OTHER, s->n_slots, sizeof *s->slots, err);
    if (!s->slots) return LAMINA_E_MEMORY;
    s->pieces = mem_array(c->m, MEM_OTHER, MOST_DEPTH, sizeof *s->pieces, err);
    if (!s->pieces) return LAMINA_E_MEMORY;
    s->gathers = mem_array(c->m, MEM_OTHER, GATHER_FLIGHTS, sizeof *s->gathers, err);
    if (!s->gathers) return LAMINA_E_MEMORY;
    for (uint32_t i = 0; i < MOST_DEPTH; i++) {
        init_flight(&s->pieces[i], FLIGHT_PIECE, s->n_slots + i);
        s->pieces[i].next = s->free_pieces;
        s->free_pieces = &s->pieces[i];
    }
    for (uint32_t i = 0; i < GATHER_FLIGHTS; i++)
        init_flight(&s->gathers[i], FLIGHT_GATHER, s->n_slots + MOST_DEPTH + i);
    for (uint32_t i = 0; i < s->n_slots; i++) init_flight(&s->slots[i], FLIGHT_SLOT, i);
    s->gather = mem_pages(c->m, MEM_RING, STREAM_GATHER_BYTES, err);
    if (!s->gather) return LAMINA_E_MEMORY;
    if (c->ring_bytes == 0) return LAMINA_OK;
    s->ring = mem_pages(c->m, MEM_RING, c->ring_bytes, err);
    return s->ring ? LAMINA_OK : LAMINA_E_MEMORY;
}

static lamina_status open_reader(stream *s, lamina_error *err)
{
    const stream_config *c = &s->config;
    reader_config rc = {.m = c->m,
                        .io = c->io,
                        .depth = MOST_DEPTH + GATHER_FLIGHTS,
                        .n_files = c->n_files,
                        .paths = c->paths,
                        .fixed = s->ring,
                        .fixed_bytes = s->ring ? c->ring_bytes : 0,
                        .faults = c->faults};
    return reader_new(&rc, &s->reader, err);
}

/* Cuts the matrices for the chosen read size and takes the pinned memory. */
static lamina_status take_parts(stream *s, uint64_t chunk_bytes, lamina_error *err)
{
    const stream_config *c = &s->config;
    stream_plan(s->matrices, c->n_matrices, chunk_bytes, c->ring_bytes, c->pin_budget, &s->layout);
    s->n_slots = (uint32_t)(s->layout.ring_bytes / chunk_bytes);
    for (uint32_t i = 0; i < s->n_slots; i++) s->slots[i].request.data = s->ring + i * chunk_bytes;
    if (s->layout.pinned_bytes > 0) {
        s->pinned = mem_pages(c->m, MEM_PINNED, s->layout.pinned_bytes, err);
        if (!s->pinned) return LAMINA_E_MEMORY;
    }
    pinning pins = {.budget = c->pin_budget, .total = stream_pin_all(s->matrices, c->n_matrices)};
    uint64_t at = 0;
    for (size_t i = 0; i < c->n_matrices; i++) {
        part *p = &s->parts[i];
        layout_cut(&s->matrices[i], chunk_bytes, &pins, &p->cut);
        p->pin = p->cut.pin_bytes ? s->pinned + at : NULL;
        at += p->cut.pin_bytes;
        p->piece0 = s->n_pieces;
        p->n_pieces = (p->cut.pin_bytes + chunk_bytes - 1) / chunk_bytes;
        s->n_pieces += p->n_pieces;
        if (p->cut.n_streamed > 0) s->streams = true;
    }
    s->pieces_left = s->n_pieces;
    s->arrived = mem_array(c->m, MEM_OTHER, s->n_pieces / 64 + 1, sizeof *s->arrived, err);
    return s->arrived ? LAMINA_OK : LAMINA_E_MEMORY;
}

static lamina_status build(stream *s, lamina_error *err)
{
    stream_config *c = &s->config;
    s->matrices = mem_array(c->m, MEM_OTHER, c->n_matrices, sizeof *s->matrices, err);
    if (!s->matrices) return LAMINA_E_MEMORY;
    memcpy(s->matrices, c->matrices, c->n_matrices * sizeof *s->matrices);
    c->matrices = s->matrices;
    s->parts = mem_array(c->m, MEM_OTHER, c->n_matrices, sizeof *s->parts, err);
    if (!s->parts) return LAMINA_E_MEMORY;
    TRY(take_ring(s, err));
    TRY(open_reader(s, err));
    TRY(take_parts(s, c->tune ? ring_tune(s) : c->chunk_bytes, err));
    ring_reset(s);
    ring_pump(s);
    return LAMINA_OK;
}

lamina_status stream_new(const stream_config *config, stream **out, lamina_error *err)
{
    *out = NULL;
    TRY(check_config(config, err));
    stream *s = mem_alloc(config->m, MEM_OTHER, sizeof *s, err);
    if (!s) return LAMINA_E_MEMORY;
    s->config = *config;
    s->config.ring_bytes = config->ring_bytes / config->chunk_bytes * config->chunk_bytes;
    lamina_status status = build(s, err);
    if (status != LAMINA_OK) {
        stream_free(s);
        return status;
    }
    *out = s;
    return LAMINA_OK;
}

void stream_free(stream *s)
{
    if (!s) return;
    memory *m = s->config.m;
    reader_free(s->reader); /* first: reads in flight write to the memory below */
    if (s->ring) mem_pages_free(m, MEM_RING, s->ring, s->config.ring_bytes);
    if (s->gather) mem_pages_free(m, MEM_RING, s->gather, STREAM_GATHER_BYTES);
    if (s->pinned) mem_pages_free(m, MEM_PINNED, s->pinned, s->layout.pinned_bytes);
    mem_free(m, s->arrived);
    mem_free(m, s->gathers);
    mem_free(m, s->pieces);
    mem_free(m, s->slots);
    mem_free(m, s->parts);
    mem_free(m, s->matrices);
    mem_free(m, s);
}

/* Takes what has arrived, and reads on. */
static void collect(stream *s)
{
    if (s->flying == 0) return;
    bool any = true;
    while (any && s->flying > 0) ring_reap(s, false, &any);
    ring_pump(s);
}

void stream_begin(stream *s, uint32_t tail_repeats)
{
    if (s->taking.active) stream_abort(s);
    size_t n = s->config.n_matrices, tail = s->config.tail;
    if (tail == n) tail_repeats = 0;
    taking *t = &s->taking;
    *t = (taking){.active = true, .tails = tail_repeats};
    if (tail == 0) { /* nothing but a tail */
        if (tail_repeats == 0)
            t->matrix = n;
        else
            t->tails--;
    }
    reading *r = &s->reading;
    r->tails = tail_repeats;
    r->ahead = false;
    if (r->matrix >= tail) { /* all of the layers are read or being read */
        r->ahead = tail_repeats == 0;
        r->matrix = tail_repeats == 0 ? 0 : tail;
        r->chunk = 0;
        if (tail_repeats > 0) r->tails--;
    }
    ring_pump(s);
}

/* Steps to the next matrix to deliver. false: the pass is over. */
static bool next_matrix(stream *s)
{
    taking *t = &s->taking;
    size_t n = s->config.n_matrices, tail = s->config.tail;
    t->row = t->chunk = 0;
    t->matrix++;
    if (t->matrix != tail && t->matrix != n) return true;
    if (t->tails == 0 || tail == n) return false;
    t->tails--;
    t->matrix = tail;
    return true;
}

static void end_pass(stream *s)
{
    s->taking.active = false;
    /* All of the pass has been delivered, so if the reading cursor has stopped in it there is nothing left there. */
    if (!s->reading.ahead) s->reading = (reading){.ahead = true};
    ring_pump(s);
}

/* Fills *chunk if the next rows are there. */
static bool take(stream *s, stream_chunk *chunk)
{
    taking *t = &s->taking;
    const part *p = &s->parts[t->matrix];
    const stream_matrix *m = &s->matrices[t->matrix];
    *chunk = (stream_chunk){.matrix = t->matrix, .row0 = t->row};
    if (t->row < p->cut.pinned_rows) {
        if (p->rows_in <= t->row) return false;
        chunk->n_rows = p->rows_in - t->row;
        chunk->data = p->pin + (m->offset - p->cut.pin_begin) + t->row * m->row_bytes;
        t->row = p->rows_in;
        return true;
    }
    flight *f = &s->slots[s->taken % s->n_slots];
    if (s->taken == s->issued || !f->ready) return false;
    chunk->n_rows = f->extent.n_rows;
    chunk->data = (unsigned char *)f->request.data + f->extent.skew;
    t->row += f->extent.n_rows;
    t->holding = true;
    s->stats.bytes_read += f->request.bytes;
    return true;
}

/* The next rows are not there: waits for them. */
static lamina_status wait_for(stream *s, stream_chunk *chunk, lamina_error *err)
{
    const stream_matrix *m = &s->matrices[s->taking.matrix];
    double begin = os_seconds();
    lamina_status status = LAMINA_OK;
    while (status == LAMINA_OK && !take(s, chunk)) {
        bool any;
        if (s->failed && s->flying == 0)
            status = error_set(err, s->failure.status, "%s", s->failure.text);
        else
            ring_reap(s, true, &any);
        ring_pump(s);
    }
    double end = os_seconds();
    s->stats.stall_seconds += end - begin;
    trace_span(s->config.trace, TRACE_WAIT, "wait", m->layer, 0, begin, end);
    return status;
}

lamina_status stream_next(stream *s, stream_chunk *chunk, bool *more, lamina_error *err)
{
    taking *t = &s->taking;
    *more = false;
    if (t->holding) { /* its slot is free: read on at once */
        t->holding = false;
        s->taken++;
        ring_pump(s);
    }
    collect(s);
    if (!t->active) return LAMINA_OK;
    while (t->matrix == s->config.n_matrices || t->row == s->matrices[t->matrix].rows) {
        if (t->matrix == s->config.n_matrices || !next_matrix(s)) {
            end_pass(s);
            return LAMINA_OK;
        }
    }
    if (!take(s, chunk)) TRY(wait_for(s, chunk, err));
    *more = true;
    return LAMINA_OK;
}

void stream_abort(stream *s)
{
    ring_reset(s);
}

static lamina_status rate_of(stream *s, const part *parts, double seconds, double *bytes_per_s, lamina_error *err)
{
    ring_reset(s);
    size_t matrix = 0;
    rate_job job = {.chunk_bytes = s->layout.chunk_bytes, .parts = parts, .seconds = seconds, .in_flight = UINT64_MAX};
    lamina_status status = ring_rate(s, &job, &matrix, bytes_per_s, err);
    ring_pump(s);
    return status;
}

lamina_status stream_measure(stream *s, double seconds, double *bytes_per_s, lamina_error *err)
{
    *bytes_per_s = 0;
    return s->streams ? rate_of(s, s->parts, seconds, bytes_per_s, err) : LAMINA_OK;
}

lamina_status stream_measure_all(stream *s, double seconds, double *bytes_per_s, lamina_error *err)
{
    *bytes_per_s = 0;
    return s->n_slots ? rate_of(s, NULL, seconds, bytes_per_s, err) : LAMINA_OK;
}

void stream_get_stats(const stream *s, stream_stats *stats)
{
    *stats = s->stats;
}

void stream_reset_stats(stream *s)
{
    double first_read = s->stats.first_read;
    s->stats = (stream_stats){.first_read = first_read};
}

const reader *stream_reader(const stream *s)
{
    return s->reader;
}

uint64_t stream_read_bytes(const stream *s)
{
    return s->layout.chunk_bytes;
}

uint32_t stream_depth(const stream *s)
{
    return s->n_slots < MOST_DEPTH ? s->n_slots : MOST_DEPTH;
}

stream_layout stream_get_layout(const stream *s)
{
    return s->layout;
}

uint64_t stream_overhead(void)
{
    return STREAM_GATHER_BYTES + (UINT64_C(128) << 10); /* queues and directories are small beside the gather area */
}

const void *stream_pinned(const stream *s, size_t matrix, uint64_t *n_rows)
{
    const part *p = &s->parts[matrix];
    *n_rows = p->rows_in;
    return p->rows_in ? p->pin + (s->matrices[matrix].offset - p->cut.pin_begin) : NULL;
}
