/* Random access to rows of the embedding. They are read with the stream's own reader, many at once, into a small area
 * of their own, and copied out; the ring goes on being filled meanwhile. Repeated rows (prompts repeat tokens) are read
 * once. */
#include "stream/ring.h"

#include <string.h>

enum { LOOK_BACK = 1024 /* rows searched for the same offset: bounds the search, not the answer */ };

typedef struct gather {
    uint32_t file;
    const uint64_t *offsets;
    size_t n;
    uint64_t bytes;
    unsigned char *data;
    uint64_t stride; /* area of one flight */
    size_t row;      /* next to read */
    uint64_t row_at; /* bytes of it already asked for */
} gather;

/* The place of an earlier row at the same offset, or i. */
static size_t same_as(const uint64_t *offsets, size_t i)
{
    for (size_t j = i; j > 0 && i - j < LOOK_BACK;)
        if (offsets[--j] == offsets[i]) return j;
    return i;
}

static void submit(stream *s, const gather *g, flight *f, uint64_t *asked)
{
    uint64_t at = g->offsets[g->row] + g->row_at, begin = block_floor(at), left = g->bytes - g->row_at;
    uint64_t most = g->stride - (at - begin);
    *asked = left < most ? left : most;
    read_request *q = &f->request;
    q->file = g->file;
    q->offset = begin;
    q->needed = (uint32_t)(at - begin + *asked);
    q->bytes = (uint32_t)block_ceil(q->needed);
    f->row = g->row;
    f->row_at = g->row_at;
    s->gathering++;
    if (s->stats.first_read == 0) s->stats.first_read = os_seconds();
    reader_submit(s->reader, q);
}

/* Copies out what a finished read brought. */
static void deliver(const gather *g, const flight *f)
{
    uint64_t at = g->offsets[f->row] + f->row_at, skew = at - f->request.offset;
    memcpy(g->data + f->row * g->bytes + f->row_at, (unsigned char *)f->request.data + skew, f->request.needed - skew);
}

static lamina_status check(const stream *s, const gather *g, lamina_error *err)
{
    const stream_config *c = &s->config;
    if (g->file >= c->n_files) return error_set(err, LAMINA_E_USAGE, "gather: there is no file %u", g->file);
    for (size_t i = 0; i < g->n; i++)
        if (g->bytes > c->file_bytes[g->file] || g->offsets[i] > c->file_bytes[g->file] - g->bytes)
            return error_set(err, LAMINA_E_FORMAT, "%s: a row of %llu bytes at offset %llu is outside of the file",
                             c->paths[g->file], (unsigned long long)g->bytes, (unsigned long long)g->offsets[i]);
    return LAMINA_OK;
}

static flight *wait_one(stream *s)
{
    bool any;
    flight *f = ring_reap(s, false, &any);
    if (any) return f;
    double begin = os_seconds();
    f = ring_reap(s, true, &any);
    double end = os_seconds();
    s->stats.stall_seconds += end - begin;
    trace_span(s->config.trace, TRACE_WAIT, "wait for rows", -1, 0, begin, end);
    return f;
}

lamina_status stream_gather(stream *s, uint32_t file, const uint64_t *offsets, size_t n, uint64_t bytes, void *data,
                            lamina_error *err)
{
    gather g = {.file = file, .offsets = offsets, .n = n, .bytes = bytes, .data = data};
    if (n == 0 || bytes == 0) return LAMINA_OK;
    TRY(check(s, &g, err));
    g.stride = bytes < STREAM_GATHER_BYTES - READ_ALIGN ? block_ceil(bytes + READ_ALIGN - 1) : STREAM_GATHER_BYTES;
    uint32_t lanes = (uint32_t)(STREAM_GATHER_BYTES / g.stride);
    if (lanes > GATHER_FLIGHTS) lanes = GATHER_FLIGHTS;
    flight *free_ones = NULL;
    for (uint32_t i = 0; i < lanes; i++) {
        s->gathers[i].request.data = s->gather + i * g.stride;
        s->gathers[i].next = free_ones;
        free_ones = &s->gathers[i];
    }
    lamina_status status = LAMINA_OK;
    while (g.row < n || s->gathering > 0) {
        bool more = status == LAMINA_OK && g.row < n;
        if (!more && s->gathering == 0) break;
        if (more && g.row_at == 0 && same_as(offsets, g.row) != g.row) {
            g.row++;
        } else if (more && free_ones) {
            uint64_t asked;
            flight *f = free_ones;
            free_ones = f->next;
            submit(s, &g, f, &asked);
            g.row_at += asked;
            if (g.row_at == bytes) g.row++, g.row_at = 0;
        } else {
            reader_flush(s->reader);
            flight *f = wait_one(s);
            ring_pump(s);
            if (!f) continue;
            if (f->request.error && status == LAMINA_OK) status = ring_error(s, f, err);
            if (!f->request.error) deliver(&g, f);
            f->next = free_ones;
            free_ones = f;
        }
    }
    for (size_t i = 0; status == LAMINA_OK && i < n; i++) {
        size_t j = same_as(offsets, i);
        if (j != i) memcpy(g.data + i * bytes, g.data + j * bytes, bytes);
    }
    return status;
}
