/* The forward pass: one for every family, switching on axes. It owns no memory and allocates none; matrices come from
 * the stream in the order of the schedule, in chunks of rows, and are applied as they come.
 *
 * A row's result depends on the tokens before it only: every operation works row by row in a fixed order of sums, so
 * how rows are grouped into passes, and with whose, does not change a bit. */
#include "engine/engine.h"

typedef struct pass {
    lamina_engine *e;
    const backend_ops *ops;
    backend *b;
    const model *mo;
    activations *a;
    const lamina_row *rows;
    uint32_t n, n_parts, n_wanted;
    size_t matrix; /* next in the schedule */
    double began;
    uint64_t read_before;
    lamina_error *err;
} pass;

/* y [n, stride] = input (packed in a->packed) times the next matrix of the schedule, transposed. */
static lamina_status product(pass *p, uint32_t n, float *y, uint64_t stride)
{
    lamina_engine *e = p->e;
    const pass_matrix *m = &e->schedule.matrix[p->matrix];
    const stream_matrix *s = &e->schedule.stream[p->matrix];
    for (uint64_t done = 0; done < s->rows;) {
        stream_chunk c;
        bool more = false;
        TRY(stream_next(e->stream, &c, &more, p->err));
        if (!more || c.matrix != p->matrix || c.row0 != done)
            return error_set(p->err, LAMINA_E_FORMAT, "%s: the stream delivered matrix %zu row %llu, expected row %llu",
                             s->name, c.matrix, (unsigned long long)c.row0, (unsigned long long)done);
        double begin = e->trace ? os_seconds() : 0;
        matrix_rows w = {.type = m->type, .data = c.data, .n_rows = c.n_rows, .cols = m->cols};
        p->ops->apply(p->b, &w, p->a->packed, n, y + done, stride);
        if (e->trace)
            trace_span(e->trace, TRACE_COMPUTE, s->name, s->layer, c.n_rows * s->row_bytes, begin, os_seconds());
        done += c.n_rows;
        if (atomic_load_explicit(&e->cancel, memory_order_relaxed))
            return error_set(p->err, LAMINA_E_CANCELLED, "cancelled");
    }
    p->matrix++;
    return LAMINA_OK;
}

/* Groups rows into parts: runs of rows of one session. */
static lamina_status group(pass *p)
{
    activations *a = p->a;
    p->n_parts = p->n_wanted = 0;
    for (uint32_t i = 0; i < p->n; i++) p->rows[i].session->fed = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        lamina_session *s = p->rows[i].session;
        if (p->rows[i].token < 0 || (uint32_t)p->rows[i].token >= p->mo->vocab)
            return error_set(p->err, LAMINA_E_USAGE, "token %d is not in the vocabulary of %u", (int)p->rows[i].token,
                             p->mo->vocab);
        uint32_t position = s->length + s->fed;
        if (position >= s->context)
            return error_set(p->err, LAMINA_E_USAGE,
                             "the session's context of %u tokens is full; open with a larger context", s->context);
        if (i == 0 || p->rows[i - 1].session != s) {
            a->part_session[p->n_parts] = s;
            a->parts[p->n_parts++] = (attention_rows){.row0 = i, .position = position};
        }
        a->parts[p->n_parts - 1].n_rows++;
        a->positions[i] = position;
        s->fed++;
        if (p->rows[i].want_logits) a->wanted[p->n_wanted++] = i;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        lamina_session *s = p->rows[i].session;
        if (s->high < s->length + s->fed) s->high = s->length + s->fed;
    }
    return LAMINA_OK;
}

/* The embedding's rows as far as they are resident: kept by the plan, or pinned because the head is tied to it. */
static const unsigned char *resident_embedding(const pass *p, uint64_t *n_rows)
{
    *n_rows = p->mo->vocab;
    if (p->e->embed_rows) return p->e->embed_rows;
    *n_rows = 0;
    return p->mo->tied_head ? stream_pinned(p->e->stream, p->e->schedule.tail, n_rows) : NULL;
}

/* x [n, hidden] = rows of the embedding. Those not resident are gathered from where the model lies, in one batch. */
static lamina_status embed(pass *p)
{
    const weight *w = &p->mo->embed;
    activations *a = p->a;
    uint64_t row = dtype_row_bytes(w->type, p->mo->hidden), resident;
    const unsigned char *rows = resident_embedding(p, &resident);
    uint32_t missing = 0;
    for (uint32_t i = 0; i < p->n; i++) missing += (uint64_t)p->rows[i].token >= resident;
    if (missing) {
        for (uint32_t i = 0; i < p->n; i++) a->offsets[i] = w->offset + (uint64_t)p->rows[i].token * row;
        TRY(stream_gather(p->e->stream, w->file, a->offsets, p->n, row, a->embed, p->err));
    } else {
        for (uint32_t i = 0; i < p->n; i++) memcpy(a->embed + i * row, rows + (uint64_t)p->rows[i].token * row, row);
    }
    matrix_rows m = {.type = w->type, .data = a->embed, .n_rows = p->n, .cols = p->mo->hidden};
    p->ops->widen(p->b, &m, a->x);
    return LAMINA_OK;
}

/* Angles of the rotation: each session has its own frequencies. */
static void angles(pass *p)
{
    activations *a = p->a;
    uint32_t half = p->mo->rope.dims / 2;
    for (uint32_t i = 0; i < p->n_parts; i++) {
        const attention_rows *part = &a->parts[i];
        const lamina_session *s = a->part_session[i];
        size_t at = (size_t)part->row0 * half;
        p->ops->angles(p->b, s->inv_freq, s->rope_scale, p->mo->rope.dims, a->positions + part->row0, part->n_rows,
                       a->cos + at, a->sin + at);
    }
}

/* out [n, k] = the norm of x, which may be out. */
static void norm(pass *p, const float *x, const float *weights, uint32_t n, uint32_t k, float *out)
{
    norm_args a = {.form = BACKEND_RMS_NORM,
                   .x = x,
                   .w = weights,
                   .n = n,
                   .k = k,
                   .w_rows = 1,
                   .eps = p->mo->norm_eps,
                   .out = out};
    p->ops->norm(p->b, &a);
}

static void norm_and_pack(pass *p, const float *weights)
{
    activations *a = p->a;
    norm(p, a->x, weights, p->n, p->mo->hidden, a->t);
    p->ops->pack(p->b, a->t, p->n, p->mo->hidden, a->packed);
}

static lamina_status attention(pass *p, uint32_t index)
{
    const model *mo = p->mo;
    const model_layer *l = &mo->layers[index];
    const float *const *v = p->e->vectors.layers[index].v;
    activations *a = p->a;
    uint32_t n = p->n, wq = mo->heads * mo->head_dim, wkv = mo->kv_heads * mo->head_dim;
    float *q = a->wide, *k = q + (size_t)n * wq, *val = k + (size_t)n * wkv, *out = val + (size_t)n * wkv;

    norm_and_pack(p, v[ROLE_ATTN_NORM]);
    TRY(product(p, n, q, wq));
    TRY(product(p, n, k, wkv));
    TRY(product(p, n, val, wkv));
    if (v[ROLE_Q_BIAS]) p->ops->add_bias(p->b, q, v[ROLE_Q_BIAS], n, wq);
    if (v[ROLE_K_BIAS]) p->ops->add_bias(p->b, k, v[ROLE_K_BIAS], n, wkv);
    if (v[ROLE_V_BIAS]) p->ops->add_bias(p->b, val, v[ROLE_V_BIAS], n, wkv);
    if (mo->qk_norm) {
        norm(p, q, v[ROLE_Q_NORM], n * mo->heads, mo->head_dim, q);
        norm(p, k, v[ROLE_K_NORM], n * mo->kv_heads, mo->head_dim, k);
    }
    if (l->rope) {
        rotate_kind kind = mo->rope.style == ROPE_HALF ? ROTATE_HALF : ROTATE_INTERLEAVED;
        p->ops->rotate(p->b, kind, q, n, mo->heads, mo->head_dim, mo->rope.dims, a->cos, a->sin);
        p->ops->rotate(p->b, kind, k, n, mo->kv_heads, mo->head_dim, mo->rope.dims, a->cos, a->sin);
    }
    for (uint32_t i = 0; i < p->n_parts; i++) a->parts[i].kv = a->part_session[i]->kv[index];
    attention_args args = {.q = q,
                           .k = k,
                           .v = val,
                           .out = out,
                           .heads = mo->heads,
                           .kv_heads = mo->kv_heads,
                           .head_dim = mo->head_dim,
                           .v_dim = mo->head_dim,
                           .scale = mo->attention_scale,
                           .window = l->window,
                           .parts = a->parts,
                           .n_parts = p->n_parts};
    double begin = p->e->trace ? os_seconds() : 0;
    p->ops->attention(p->b, &args);
    if (p->e->trace) trace_span(p->e->trace, TRACE_COMPUTE, "attention", (int32_t)index, 0, begin, os_seconds());

    p->ops->pack(p->b, out, n, wq, a->packed);
    TRY(product(p, n, a->t, mo->hidden));
    if (v[ROLE_O_BIAS]) p->ops->add_bias(p->b, a->t, v[ROLE_O_BIAS], n, mo->hidden);
    p->ops->add(p->b, a->x, a->t, (uint64_t)n * mo->hidden);
    return LAMINA_OK;
}

static lamina_status feed_forward(pass *p, uint32_t index)
{
    const model *mo = p->mo;
    activations *a = p->a;
    uint32_t n = p->n;
    float *gate = a->wide, *up = gate + (size_t)n * mo->ffn;
    norm_and_pack(p, p->e->vectors.layers[index].v[ROLE_FFN_NORM]);
    TRY(product(p, n, gate, mo->ffn));
    TRY(product(p, n, up, mo->ffn));
    p->ops->gate(p->b, mo->act == ACT_SILU ? BACKEND_SILU : BACKEND_GELU_TANH, 0.0f, gate, up, (uint64_t)n * mo->ffn);
    p->ops->pack(p->b, gate, n, mo->ffn, a->packed);
    TRY(product(p, n, a->t, mo->hidden));
    p->ops->add(p->b, a->x, a->t, (uint64_t)n * mo->hidden);
    return LAMINA_OK;
}

/* The head over the wanted rows, in groups of logit_rows; the head's matrix passes by once for each group. */
static lamina_status head(pass *p, deliver_fn deliver, void *user)
{
    const model *mo = p->mo;
    activations *a = p->a;
    for (uint32_t done = 0; done < p->n_wanted;) {
        uint32_t n = p->n_wanted - done < a->logit_rows ? p->n_wanted - done : a->logit_rows;
        p->matrix = p->e->schedule.tail;
        p->ops->take_rows(p->b, a->x, a->wanted + done, n, mo->hidden, a->t);
        norm(p, a->t, p->e->vectors.final_norm, n, mo->hidden, a->t);
        p->ops->pack(p->b, a->t, n, mo->hidden, a->packed);
        TRY(product(p, n, a->logits, mo->vocab));
        for (uint32_t i = 0; i < n; i++) {
            p->ops->download(p->b, a->host_logits, a->logits + (size_t)i * mo->vocab, mo->vocab * sizeof(float));
            TRY(deliver(user, a->wanted[done + i], a->host_logits, p->err));
        }
        done += n;
    }
    return LAMINA_OK;
}

static lamina_status report(pass *p, uint32_t layers_done)
{
    lamina_engine *e = p->e;
    if (!e->options.progress) return LAMINA_OK;
    stream_stats s;
    stream_get_stats(e->stream, &s);
    char unit[32] = "head";
    if (layers_done < p->mo->n_layers) snprintf(unit, sizeof unit, "layer %u", layers_done);
    lamina_progress g = {.phase = LAMINA_PHASE_PASS,
                         .unit = unit,
                         .done = layers_done,
                         .total = p->mo->n_layers + 1,
                         .bytes = s.bytes_read - p->read_before,
                         .seconds = os_seconds() - p->began,
                         .rows = p->n};
    if (e->options.progress(e->options.progress_user, &g)) return LAMINA_OK;
    return error_set(p->err, LAMINA_E_CANCELLED, "cancelled");
}

static lamina_status run(pass *p, deliver_fn deliver, void *user)
{
    TRY(embed(p));
    angles(p);
    for (uint32_t i = 0; i < p->mo->n_layers; i++) {
        TRY(report(p, i));
        TRY(attention(p, i));
        TRY(feed_forward(p, i));
    }
    TRY(report(p, p->mo->n_layers));
    TRY(head(p, deliver, user));
    stream_chunk none;
    bool more; /* asking once more gives the last chunk back: from here on the next pass is read */
    TRY(stream_next(p->e->stream, &none, &more, p->err));
    if (more) return error_set(p->err, LAMINA_E_FORMAT, "the stream goes on after the end of the pass");
    return LAMINA_OK;
}

lamina_status forward(lamina_engine *e, const lamina_row *rows, uint32_t n, deliver_fn deliver, void *user,
                      lamina_error *err)
{
    pass p = {.e = e,
              .ops = e->backend->ops,
              .b = e->backend,
              .mo = e->model,
              .a = &e->act,
              .rows = rows,
              .n = n,
              .err = err,
              .began = os_seconds()};
    TRY(group(&p));
    stream_stats before, after;
    stream_get_stats(e->stream, &before);
    p.read_before = before.bytes_read;
    stream_begin(e->stream, (p.n_wanted + e->act.logit_rows - 1) / e->act.logit_rows);
    lamina_status status = run(&p, deliver, user);
    if (status != LAMINA_OK) stream_abort(e->stream);
    if (status == LAMINA_E_CANCELLED) atomic_store(&e->cancel, false);
    stream_get_stats(e->stream, &after);
    double seconds = os_seconds() - p.began, stall = after.stall_seconds - before.stall_seconds;
    e->stats.seconds += seconds;
    e->stats.compute_seconds += seconds > stall ? seconds - stall : 0;
    if (status == LAMINA_OK) {
        e->stats.passes++;
        e->stats.rows += n;
    }
    return status;
}
