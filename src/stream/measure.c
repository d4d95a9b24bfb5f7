/* What the device gives to this reader when nothing else is done: the ceiling that streaming is compared with, and the
 * choice of the read size. Reads are submitted in the order of the pass, into the slots of the ring, and a new one the
 * moment that any one returns. */
#include "stream/ring.h"

/* Tuning: a size must be this much faster than the next larger one; and what is worth tuning for. */
#define TUNE_GAIN    1.10
#define TUNE_SECONDS 0.04
static const uint64_t tune_least_read = 256 << 10, tune_least_streamed = UINT64_C(2) << 30;

typedef struct walk {
    const part *parts; /* NULL: nothing is pinned */
    uint64_t chunk_bytes;
    size_t *matrix; /* where it has come to */
    uint64_t chunk;
} walk;

static void next_extent(const stream *s, walk *w, extent *e, size_t *matrix)
{
    for (;;) {
        const stream_matrix *m = &s->matrices[*w->matrix];
        cut c;
        pinning none = {0, 1, 0, 0};
        if (w->parts)
            c = w->parts[*w->matrix].cut;
        else
            layout_cut(m, w->chunk_bytes, &none, &c);
        if (w->chunk < c.n_streamed) {
            layout_extent(m, &c, w->chunk++, e);
            *matrix = *w->matrix;
            return;
        }
        *w->matrix = (*w->matrix + 1) % s->config.n_matrices;
        w->chunk = 0;
    }
}

static void submit(stream *s, walk *w, flight *f)
{
    next_extent(s, w, &f->extent, &f->matrix);
    f->request.file = s->matrices[f->matrix].file;
    f->request.offset = f->extent.begin;
    f->request.bytes = (uint32_t)f->extent.bytes;
    f->request.needed = f->extent.needed;
    reader_submit(s->reader, &f->request);
    if (s->stats.first_read == 0) s->stats.first_read = f->request.submitted;
}

lamina_status ring_rate(stream *s, uint64_t chunk_bytes, const part *parts, size_t *matrix, double seconds,
                        double *bytes_per_s, lamina_error *err)
{
    walk w = {.parts = parts, .chunk_bytes = chunk_bytes, .matrix = matrix};
    uint64_t slots = s->config.ring_bytes / chunk_bytes, bytes = 0;
    uint32_t depth = slots < MOST_DEPTH ? (uint32_t)slots : MOST_DEPTH;
    lamina_status status = LAMINA_OK;
    *bytes_per_s = 0;
    for (uint32_t i = 0; i < depth; i++) {
        s->slots[i].request.data = s->ring + i * chunk_bytes;
        submit(s, &w, &s->slots[i]);
    }
    reader_flush(s->reader);
    /* The first arrivals are the fruit of a queue that was filled all at once: the clock starts after them. */
    uint64_t arrived = 0;
    double begin = 0, last = 0, give_up = os_seconds() + 2 * seconds + 1;
    read_request *q;
    while ((q = reader_wait(s->reader, true))) {
        flight *f = q->user;
        double now = os_seconds();
        if (q->error && status == LAMINA_OK) status = ring_error(s, f, err);
        if (++arrived == depth)
            begin = now;
        else if (begin > 0 && now - begin <= seconds)
            bytes += q->bytes, last = now;
        if (status != LAMINA_OK || now >= give_up || (begin > 0 && now - begin >= seconds)) continue;
        submit(s, &w, f);
        reader_flush(s->reader);
    }
    if (last > begin) *bytes_per_s = (double)bytes / (last - begin);
    return status;
}

uint64_t ring_tune(stream *s)
{
    const stream_config *c = &s->config;
    stream_layout plan;
    stream_plan(s->matrices, c->n_matrices, c->chunk_bytes, c->ring_bytes, c->pin_budget, &plan);
    uint64_t least = stream_min_chunk(s->matrices, c->n_matrices), best = c->chunk_bytes;
    if (plan.streamed_bytes < tune_least_streamed) return best;
    double rate, best_rate = 0;
    size_t matrix = 0;
    for (uint64_t size = c->chunk_bytes; size >= c->chunk_bytes / 4 && size >= least; size /= 2) {
        if (size % READ_ALIGN != 0 || size < tune_least_read) break;
        if (ring_rate(s, size, NULL, &matrix, TUNE_SECONDS, &rate, NULL) != LAMINA_OK) break; /* the pass will say */
        if (rate <= best_rate * TUNE_GAIN) continue;
        best = size;
        best_rate = rate;
    }
    return best;
}
