/* The forward pass: one for every family, switching on axes. It owns no memory and allocates none; matrices come from
 * the stream in the order of the schedule, in chunks of rows, and are applied as they come.
 *
 * A row's result depends on the tokens before it only: every operation works row by row in a fixed order of sums, so
 * how rows are grouped into passes, and with whose, does not change a bit. */
#include "engine/calibrate.h"
#include "engine/pass.h"

void pass_input(pass *p, const float *x, uint64_t k)
{
    p->input = x;
    p->input_k = k;
    p->packed = false;
}

static const weight *weight_of(const pass *p, const pass_matrix *m, const stream_matrix *s)
{
    return s->layer < 0 ? model_end(p->mo, m->role) : &p->mo->layers[s->layer].w[m->role];
}

/* What a kernel must know of the rows of a chunk. */
static matrix_rows rows_of(const pass *p, const pass_matrix *m, const stream_matrix *s, const stream_chunk *c)
{
    matrix_rows w = {.type = m->type, .data = c->data, .n_rows = c->n_rows, .cols = m->cols, .row_bytes = s->row_bytes};
    const weight *of = weight_of(p, m, s);
    w.scales = s->layer < 0 ? p->e->vectors.head_scales : p->e->vectors.layers[s->layer].v[m->role];
    w.scales_stride = of->grid.stride;
    w.scale_rows = of->grid.rows;
    w.scale_cols = of->grid.cols;
    w.row0 = of->grid.row0 + m->row0 + c->row0;
    return w;
}

void pass_apply(pass *p, const matrix_rows *w, bool transposed, uint64_t row0, uint32_t n, float *y, uint64_t stride)
{
    if (transposed) {
        p->ops->apply_columns(p->b, w, p->input + row0, p->input_k, n, y, stride);
        return;
    }
    if (!p->packed) p->ops->pack(p->b, p->input, n, p->input_k, p->a->packed);
    p->packed = true;
    p->ops->apply(p->b, w, p->a->packed, n, y + row0, stride);
}

lamina_status pass_product(pass *p, uint32_t n, float *y, uint64_t stride)
{
    lamina_engine *e = p->e;
    const pass_matrix *m = &e->schedule.matrix[p->matrix];
    const stream_matrix *s = &e->schedule.stream[p->matrix];
    if (e->moments) moments_add(p, weight_of(p, m, s), p->input, n, p->input_k);
    if (m->transposed && stride == m->cols) p->ops->zero(p->b, y, n * stride);
    for (uint64_t done = 0; done < s->rows;) {
        stream_chunk c;
        bool more = false;
        TRY(stream_next(e->stream, &c, &more, p->err));
        if (!more || c.matrix != p->matrix || c.row0 != done)
            return error_set(p->err, LAMINA_E_FORMAT, "%s: the stream delivered matrix %zu row %llu, expected row %llu",
                             s->name, c.matrix, (unsigned long long)c.row0, (unsigned long long)done);
        double begin = e->trace ? os_seconds() : 0;
        matrix_rows w = rows_of(p, m, s, &c);
        pass_apply(p, &w, m->transposed, done, n, y, stride);
        if (p->a->row_norms && s->layer < 0) p->ops->row_norms(p->b, &w, p->a->row_norms + done);
        if (e->trace)
            trace_span(e->trace, TRACE_COMPUTE, s->name, s->layer, c.n_rows * s->row_bytes, begin, os_seconds());
        done += c.n_rows;
        if (atomic_load_explicit(&e->cancel, memory_order_relaxed))
            return error_set(p->err, LAMINA_E_CANCELLED, "cancelled");
    }
    p->matrix++;
    return LAMINA_OK;
}

void pass_norm(pass *p, const float *x, norm_weights w, uint32_t n, uint32_t k, float *out)
{
    norm_args a = {.form = p->mo->layer_norm ? BACKEND_LAYER_NORM : BACKEND_RMS_NORM,
                   .x = x,
                   .w = w.w,
                   .b = w.bias,
                   .n = n,
                   .k = k,
                   .w_rows = w.w_rows ? w.w_rows : 1,
                   .eps = w.eps > 0 ? w.eps : p->mo->norm_eps,
                   .out = out};
    p->ops->norm(p->b, &a);
}

void pass_add(pass *p, const float *norm, float *t)
{
    uint64_t elements = (uint64_t)p->n * p->mo->hidden;
    if (norm) pass_norm(p, t, (norm_weights){.w = norm}, p->n, p->mo->hidden, t);
    if (p->mo->residual_scale == 1.0f)
        p->ops->add(p->b, p->a->x, t, elements);
    else
        p->ops->add_scaled(p->b, p->a->x, t, p->mo->residual_scale, elements);
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

/* Rows of a table of tokens or positions, gathered, to x [n, hidden]. */
static void widen_rows(const pass *p, const weight *w, float *x)
{
    matrix_rows rows = {
        .type = w->type, .data = p->a->embed, .n_rows = p->n, .cols = p->mo->hidden, .row_bytes = w->row_bytes};
    p->ops->widen(p->b, &rows, x);
}

/* x [n, hidden] = rows of the embedding. Those not resident are gathered from where the model lies, in one batch. */
static lamina_status embed(pass *p)
{
    const weight *w = model_end(p->mo, ROLE_EMBED);
    activations *a = p->a;
    uint64_t row = w->row_bytes, resident;
    const unsigned char *rows = resident_embedding(p, &resident);
    uint32_t missing = 0;
    for (uint32_t i = 0; i < p->n; i++) missing += (uint64_t)p->rows[i].token >= resident;
    if (missing) {
        for (uint32_t i = 0; i < p->n; i++) a->offsets[i] = w->offset + (uint64_t)p->rows[i].token * row;
        TRY(stream_gather(p->e->stream, w->file, a->offsets, p->n, row, a->embed, p->err));
    } else {
        for (uint32_t i = 0; i < p->n; i++) memcpy(a->embed + i * row, rows + (uint64_t)p->rows[i].token * row, row);
    }
    widen_rows(p, w, a->x);
    if (p->mo->embed_scale != 1.0f) p->ops->scale(p->b, a->x, p->mo->embed_scale, (uint64_t)p->n * p->mo->hidden);
    return LAMINA_OK;
}

/* Learned positions are rows like those of the embedding. */
static lamina_status add_positions(pass *p)
{
    const weight *w = model_end(p->mo, ROLE_POSITIONS);
    activations *a = p->a;
    if (!w->rows) return LAMINA_OK;
    uint64_t row = w->row_bytes;
    for (uint32_t i = 0; i < p->n; i++) {
        if (a->positions[i] >= w->rows)
            return error_set(p->err, LAMINA_E_USAGE, "position %u: this model has learned %llu positions",
                             a->positions[i], (unsigned long long)w->rows);
        a->offsets[i] = w->offset + a->positions[i] * row;
    }
    TRY(stream_gather(p->e->stream, w->file, a->offsets, p->n, row, a->embed, p->err));
    widen_rows(p, w, a->t);
    p->ops->add(p->b, a->x, a->t, (uint64_t)p->n * p->mo->hidden);
    return LAMINA_OK;
}

/* Angles of the rotation: each session has its own frequencies. */
static void angles(pass *p)
{
    activations *a = p->a;
    uint32_t half = p->mo->rope[0].dims / 2;
    for (uint32_t set = 0; set < p->mo->n_ropes; set++) {
        for (uint32_t i = 0; i < p->n_parts; i++) {
            const attention_rows *part = &a->parts[i];
            const lamina_session *s = a->part_session[i];
            size_t at = ((size_t)set * a->rows + part->row0) * half;
            p->ops->angles(p->b, s->inv_freq[set], s->rope_scale[set], 2 * half, a->positions + part->row0,
                           part->n_rows, a->cos + at, a->sin + at);
        }
    }
}

/* What each row's queries are multiplied by, which depends on its position alone. */
static void query_scales(pass *p)
{
    const model *mo = p->mo;
    activations *a = p->a;
    if (!a->query_scale) return;
    float *host = a->scales;
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t at = a->positions[i];
        if (mo->query_scaling == QUERY_LOG_N)
            host[i] = at + 1 > mo->query_context ? spec_logf((float)(at + 1)) / spec_logf((float)mo->query_context) : 1;
        else
            host[i] = 1.0f + mo->query_beta * spec_logf(1.0f + (float)(at / mo->query_context));
    }
    p->ops->upload(p->b, a->query_scale, host, p->n * sizeof *host);
}

/* From products with the head to logits. */
static void finish_logits(pass *p, uint32_t n)
{
    const model *mo = p->mo;
    activations *a = p->a;
    uint64_t elements = (uint64_t)n * mo->vocab;
    if (p->e->vectors.head_bias) p->ops->add_bias(p->b, a->logits, p->e->vectors.head_bias, n, mo->vocab);
    if (mo->logit_scale != 1.0f) p->ops->scale(p->b, a->logits, mo->logit_scale, elements);
    if (mo->logit_softcap > 0) p->ops->softcap(p->b, a->logits, mo->logit_softcap, elements);
}

/* The head over the wanted rows, in groups of logit_rows; the head's matrix passes by once for each group. */
static lamina_status head(pass *p, deliver_fn deliver, void *user)
{
    const model *mo = p->mo;
    const vectors *v = &p->e->vectors;
    activations *a = p->a;
    for (uint32_t done = 0; done < p->n_wanted;) {
        uint32_t n = p->n_wanted - done < a->logit_rows ? p->n_wanted - done : a->logit_rows;
        p->matrix = p->e->schedule.tail;
        p->ops->take_rows(p->b, a->x, a->wanted + done, n, mo->hidden, a->t);
        pass_norm(p, a->t, (norm_weights){.w = v->final_norm, .bias = v->final_norm_bias}, n, mo->hidden, a->t);
        pass_input(p, a->t, mo->hidden);
        TRY(pass_product(p, n, a->logits, mo->vocab));
        finish_logits(p, n);
        if (a->row_norms) p->ops->download(p->b, a->host_norms, a->row_norms, mo->vocab * sizeof(float));
        for (uint32_t i = 0; i < n; i++) {
            p->ops->download(p->b, a->host_logits, a->logits + (size_t)i * mo->vocab, mo->vocab * sizeof(float));
            for (uint32_t k = 0; a->row_norms && k < mo->vocab; k++) a->host_logits[k] /= a->host_norms[k];
            TRY(deliver(user, a->wanted[done + i], a->host_logits, p->err));
        }
        done += n;
    }
    return LAMINA_OK;
}

/* What the head would be applied to, were all rows wanted. */
static void look_at_head(pass *p)
{
    const vectors *v = &p->e->vectors;
    activations *a = p->a;
    pass_norm(p, a->x, (norm_weights){.w = v->final_norm, .bias = v->final_norm_bias}, p->n, p->mo->hidden, a->t);
    moments_add(p, model_end(p->mo, ROLE_HEAD), a->t, p->n, p->mo->hidden);
}

static lamina_status report(pass *p, uint32_t layers_done)
{
    lamina_engine *e = p->e;
    if (!e->options.progress) return LAMINA_OK;
    uint64_t bytes;
    double stall;
    engine_reading(e, &bytes, &stall);
    char unit[32] = "head";
    if (layers_done < p->mo->n_layers) snprintf(unit, sizeof unit, "layer %u", layers_done);
    lamina_progress g = {.phase = LAMINA_PHASE_PASS,
                         .unit = unit,
                         .done = layers_done,
                         .total = p->mo->n_layers + 1,
                         .bytes = bytes - p->read_before,
                         .seconds = os_seconds() - p->began,
                         .rows = p->n};
    if (e->options.progress(e->options.progress_user, &g)) return LAMINA_OK;
    return error_set(p->err, LAMINA_E_CANCELLED, "cancelled");
}

static lamina_status run(pass *p, deliver_fn deliver, void *user)
{
    TRY(embed(p));
    TRY(add_positions(p));
    angles(p);
    query_scales(p);
    for (uint32_t i = 0; i < p->mo->n_layers; i++) {
        TRY(report(p, i));
        TRY(pass_attention(p, i));
        TRY(pass_feed_forward(p, i));
    }
    TRY(report(p, p->mo->n_layers));
    if (p->e->moments) look_at_head(p);
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
    uint64_t bytes;
    double before, after;
    engine_reading(e, &p.read_before, &before);
    stream_begin(e->stream, (p.n_wanted + e->act.logit_rows - 1) / e->act.logit_rows);
    lamina_status status = run(&p, deliver, user);
    if (status != LAMINA_OK) stream_abort(e->stream);
    if (status != LAMINA_OK && e->experts) experts_abort(e->experts);
    if (status == LAMINA_E_CANCELLED) atomic_store(&e->cancel, false);
    engine_reading(e, &bytes, &after);
    double seconds = os_seconds() - p.began, stall = after - before;
    e->stats.seconds += seconds;
    e->stats.compute_seconds += seconds > stall ? seconds - stall : 0;
    if (status == LAMINA_OK) {
        e->stats.passes++;
        e->stats.rows += n;
    }
    return status;
}
