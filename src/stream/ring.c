/* The endless ring: which read comes next, where it goes, what happens when it has arrived. Promises that reads are
 * submitted in the order of the pass, each as soon as it has a place to go, and that nothing is read that will not be
 * delivered: beyond the last layer of a pass only the layers of the next one are sure to come, its tail is not. */
#include "stream/ring.h"

static bool piece_arrived(const stream *s, uint64_t bit)
{
    return s->arrived[bit / 64] >> (bit % 64) & 1;
}

static void submit(stream *s, flight *f, size_t matrix, uint64_t offset, uint64_t bytes, uint64_t needed)
{
    f->matrix = matrix;
    f->request.file = s->matrices[matrix].file;
    f->request.offset = offset;
    f->request.bytes = (uint32_t)bytes;
    f->request.needed = (uint32_t)needed;
    s->flying++;
    reader_submit(s->reader, &f->request);
    if (s->stats.first_read == 0) s->stats.first_read = f->request.submitted;
}

static void submit_piece(stream *s, size_t matrix)
{
    part *p = &s->parts[matrix];
    flight *f = s->free_pieces;
    s->free_pieces = f->next;
    uint64_t at = p->n_issued * s->layout.chunk_bytes, left = p->cut.pin_bytes - at;
    uint64_t bytes = left < s->layout.chunk_bytes ? left : s->layout.chunk_bytes;
    const stream_matrix *m = &s->matrices[matrix];
    uint64_t end = m->offset + p->cut.pinned_rows * m->row_bytes - p->cut.pin_begin; /* of the rows, in the span */
    f->piece = p->n_issued++;
    f->request.data = p->pin + at;
    s->pieces_left--;
    submit(s, f, matrix, p->cut.pin_begin + at, bytes, end - at < bytes ? end - at : bytes);
}

static void submit_chunk(stream *s, size_t matrix, uint64_t chunk)
{
    flight *f = &s->slots[s->issued++ % s->n_slots];
    layout_extent(&s->matrices[matrix], &s->parts[matrix].cut, chunk, &f->extent);
    f->ready = false;
    submit(s, f, matrix, f->extent.begin, f->extent.bytes, f->extent.needed);
}

/* Steps to the next matrix to read. false: what comes is not known before the next pass begins. */
static bool next_matrix(stream *s)
{
    reading *r = &s->reading;
    size_t n = s->config.n_matrices, tail = s->config.tail;
    if (r->ahead && r->matrix >= tail) return false;
    r->matrix++;
    r->chunk = 0;
    bool body_over = r->matrix == tail, tail_over = r->matrix == n && n > tail;
    if (r->ahead || (!body_over && !tail_over)) return true;
    if (r->tails > 0) {
        r->tails--;
        r->matrix = tail;
    } else {
        r->matrix = 0;
        r->ahead = true;
    }
    return true;
}

/* Submits the next read of the order. false: none can be submitted now. */
static bool submit_next(stream *s)
{
    for (;;) {
        reading *r = &s->reading;
        if (r->ahead && r->matrix >= s->config.tail) return false;
        part *p = &s->parts[r->matrix];
        while (p->n_issued < p->n_pieces && piece_arrived(s, p->piece0 + p->n_issued)) { /* kept over a failure */
            p->n_issued++;
            s->pieces_left--;
        }
        if (p->n_issued < p->n_pieces) return submit_piece(s, r->matrix), true;
        if (r->chunk < p->cut.n_streamed) {
            if (s->issued - s->taken >= s->n_slots) return false;
            return submit_chunk(s, r->matrix, r->chunk++), true;
        }
        if (!next_matrix(s)) return false;
    }
}

void ring_pump(stream *s)
{
    if (s->failed || (!s->streams && s->pieces_left == 0)) return;
    bool any = false;
    while (s->flying < MOST_DEPTH && submit_next(s)) any = true;
    if (any) reader_flush(s->reader);
}

/* A piece has come: extends the rows that have arrived without a gap. */
static void take_piece(stream *s, flight *f)
{
    part *p = &s->parts[f->matrix];
    const stream_matrix *m = &s->matrices[f->matrix];
    uint64_t bit = p->piece0 + f->piece;
    s->arrived[bit / 64] |= UINT64_C(1) << (bit % 64);
    s->stats.bytes_read += f->request.bytes;
    while (p->n_arrived < p->n_pieces && piece_arrived(s, p->piece0 + p->n_arrived)) p->n_arrived++;
    uint64_t bytes = p->n_arrived * s->layout.chunk_bytes, skew = m->offset - p->cut.pin_begin;
    if (p->n_arrived == p->n_pieces)
        p->rows_in = p->cut.pinned_rows;
    else
        p->rows_in = bytes > skew ? (bytes - skew) / m->row_bytes : 0;
}

lamina_status ring_error(const stream *s, const flight *f, lamina_error *err)
{
    const read_request *q = &f->request;
    const char *path = s->config.paths[q->file];
    const char *what = f->kind == FLIGHT_GATHER ? "embedding rows" : s->matrices[f->matrix].name;
    unsigned long long offset = q->offset;
    if (q->ended) /* with nothing of this read there, other reads may have been the first to miss their bytes */
        return error_set(err, LAMINA_E_IO,
                         "%s: the file ends %s offset %llu, %u bytes at offset %llu were expected (%s)", path,
                         q->done ? "at" : "at or before", offset + q->done, q->needed, offset, what);
    char text[128];
    return error_set(err, LAMINA_E_IO, "%s: reading %u bytes at offset %llu failed: %s (%s)", path, q->needed, offset,
                     os_error_text(q->error, text, sizeof text), what);
}

flight *ring_reap(stream *s, bool block, bool *any)
{
    read_request *q = reader_wait(s->reader, block);
    *any = q != NULL;
    if (!q) return NULL;
    flight *f = q->user;
    const char *name = f->kind == FLIGHT_GATHER ? "rows" : s->matrices[f->matrix].name;
    int32_t layer = f->kind == FLIGHT_GATHER ? -1 : s->matrices[f->matrix].layer;
    trace_span(s->config.trace, TRACE_READ + f->lane, name, layer, q->bytes, q->submitted, q->completed);
    if (f->kind == FLIGHT_GATHER) {
        s->gathering--;
        if (!q->error) s->stats.bytes_read += q->bytes;
        return f;
    }
    s->flying--;
    if (q->error && !s->failed) {
        s->failed = true;
        ring_error(s, f, &s->failure);
    }
    if (f->kind == FLIGHT_PIECE) {
        if (!q->error) take_piece(s, f);
        f->next = s->free_pieces;
        s->free_pieces = f;
    } else {
        f->ready = !q->error;
    }
    return NULL;
}

void ring_reset(stream *s)
{
    bool any;
    while (s->flying > 0) ring_reap(s, true, &any);
    for (; s->taken != s->issued; s->taken++) { /* read for nothing, but read */
        const flight *f = &s->slots[s->taken % s->n_slots];
        if (f->ready) s->stats.bytes_read += f->request.bytes;
    }
    for (size_t i = 0; i < s->config.n_matrices; i++) {
        part *p = &s->parts[i];
        s->pieces_left += p->n_issued - p->n_arrived;
        p->n_issued = p->n_arrived;
    }
    s->reading = (reading){.ahead = true};
    s->taking = (taking){0};
    s->failed = false;
}
