/* What the device gives to this reader when nothing else is done: the ceiling that streaming is compared with, and the
 * choice of the read size. Reads are submitted in the order of the pass, into the slots of the ring, and a new one the
 * moment that any one returns. */
#include "stream/ring.h"

/* Tuning: how much faster a smaller size must be (a shared disk wanders by a tenth from one moment to the next), how
 * long each is tried, with how many bytes in flight (the queue must fill and drain in that time too), and what is
 * worth tuning for. About 0.15 s in all on a disk of 2 GB/s. */
#define TUNE_GAIN    1.2
#define TUNE_SECONDS 0.02
static const uint64_t tune_in_flight = 32 << 20, tune_least_read = 256 << 10;
static const uint64_t tune_least_streamed = UINT64_C(2) << 30;

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

static void put_idle(flight ***last, flight *f)
{
    f->next = NULL;
    **last = f;
    *last = &f->next;
}

static flight *take_idle(flight **first, flight ***last)
{
    flight *f = *first;
    *first = f->next;
    if (!*first) *last = first;
    return f;
}

lamina_status ring_rate(stream *s, const rate_job *job, size_t *matrix, double *bytes_per_s, lamina_error *err)
{
    walk w = {.parts = job->parts, .chunk_bytes = job->chunk_bytes, .matrix = matrix};
    uint64_t slots = s->config.ring_bytes / job->chunk_bytes, bytes = 0;
    uint64_t most = job->in_flight < job->chunk_bytes ? 1 : job->in_flight / job->chunk_bytes;
    if (most > MOST_DEPTH) most = MOST_DEPTH;
    uint32_t depth = (uint32_t)(slots < most ? slots : most);
    double seconds = job->seconds;
    lamina_status status = LAMINA_OK;
    *bytes_per_s = 0;
    flight *idle = NULL, **last_idle = &idle; /* slots in turn, as a pass uses them: the same memory, not less */
    for (uint64_t i = 0; i < slots && i < UINT32_MAX / 2; i++) {
        s->slots[i].request.data = s->ring + i * job->chunk_bytes;
        put_idle(&last_idle, &s->slots[i]);
    }
    for (uint32_t i = 0; i < depth; i++) submit(s, &w, take_idle(&idle, &last_idle));
    reader_flush(s->reader);
    /* The first arrivals are the fruit of a queue that was filled all at once: the clock starts after them. */
    uint64_t arrived = 0;
    double begin = 0, last = 0, give_up = os_seconds() + 2 * seconds + 1;
    read_request *q;
    while ((q = reader_wait(s->reader, true))) {
        flight *f = q->user;
        double now = os_seconds();
        put_idle(&last_idle, f);
        if (q->error && status == LAMINA_OK) status = ring_error(s, f, err);
        if (++arrived == depth)
            begin = now;
        else if (begin > 0 && now - begin <= seconds)
            bytes += q->bytes, last = now;
        if (status != LAMINA_OK || now >= give_up || (begin > 0 && now - begin >= seconds)) continue;
        submit(s, &w, take_idle(&idle, &last_idle));
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
        rate_job job = {.chunk_bytes = size, .seconds = TUNE_SECONDS, .in_flight = tune_in_flight};
        if (ring_rate(s, &job, &matrix, &rate, NULL) != LAMINA_OK) break; /* the pass will say */
        if (rate <= best_rate * TUNE_GAIN) continue;
        best = size;
        best_rate = rate;
    }
    return best;
}
