/* Sessions: one timeline of tokens each, with its keys and values. Tokens are committed when their pass has succeeded;
 * a failed or cancelled pass leaves the session as it was. */
#include "engine/engine.h"

static void kv_free(lamina_session *s)
{
    lamina_engine *e = s->engine;
    const model *mo = e->model;
    kv_shape shape = kv_shape_of(mo);
    if (!s->kv) return;
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        kv_layer *l = &s->kv[i];
        uint64_t k = kv_layer_bytes(shape.heads, shape.k_dim, l->capacity, l->half);
        uint64_t v = kv_layer_bytes(shape.heads, shape.v_dim, l->capacity, l->half);
        if (l->k) e->backend->ops->free(e->backend, MEM_KV, l->k, k);
        if (l->v) e->backend->ops->free(e->backend, MEM_KV, l->v, v);
    }
    mem_free(e->m, s->kv);
}

static lamina_status kv_new(lamina_session *s, lamina_error *err)
{
    lamina_engine *e = s->engine;
    const model *mo = e->model;
    kv_shape shape = kv_shape_of(mo);
    s->kv = mem_array(e->m, MEM_KV, mo->n_layers, sizeof *s->kv, err);
    if (!s->kv) return LAMINA_E_MEMORY;
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        kv_layer *l = &s->kv[i];
        l->capacity = kv_capacity(&mo->layers[i], s->context, e->plan.rows);
        l->half = e->kv == LAMINA_KV_F16;
        uint64_t k = kv_layer_bytes(shape.heads, shape.k_dim, l->capacity, l->half);
        uint64_t v = kv_layer_bytes(shape.heads, shape.v_dim, l->capacity, l->half);
        l->k = e->backend->ops->alloc(e->backend, MEM_KV, k, err);
        if (!l->k) return err ? err->status : LAMINA_E_MEMORY;
        if (!v) continue;
        l->v = e->backend->ops->alloc(e->backend, MEM_KV, v, err);
        if (!l->v) return err ? err->status : LAMINA_E_MEMORY;
    }
    return LAMINA_OK;
}

static lamina_status frequencies(lamina_session *s, uint32_t set, lamina_error *err)
{
    lamina_engine *e = s->engine;
    const rope_axes *rope = &e->model->rope[set];
    size_t n = rope->dims / 2;
    float *host = mem_array(e->m, MEM_OTHER, n, sizeof *host, err);
    if (!host) return LAMINA_E_MEMORY;
    s->inv_freq[set] = e->backend->ops->alloc(e->backend, MEM_OTHER, n * sizeof *host, err);
    if (s->inv_freq[set]) {
        const float *factors = rope->scaling != ROPE_LONG            ? e->vectors.rope_factors
                               : s->context > rope->original_context ? e->vectors.rope_long
                                                                     : e->vectors.rope_short;
        rope_frequencies(rope, s->context, factors, host, &s->rope_scale[set]);
        e->backend->ops->upload(e->backend, s->inv_freq[set], host, n * sizeof *host);
    }
    mem_free(e->m, host);
    return s->inv_freq[set] ? LAMINA_OK : LAMINA_E_MEMORY;
}

static lamina_status fill(lamina_session *s, lamina_error *err)
{
    lamina_engine *e = s->engine;
    s->tokens = mem_array(e->m, MEM_KV, s->context, sizeof *s->tokens, err);
    if (!s->tokens) return LAMINA_E_MEMORY;
    s->logits = mem_array(e->m, MEM_KV, e->model->vocab, sizeof *s->logits, err);
    if (!s->logits) return LAMINA_E_MEMORY;
    TRY(kv_new(s, err));
    for (uint32_t i = 0; i < e->model->n_ropes; i++) TRY(frequencies(s, i, err));
    return LAMINA_OK;
}

lamina_status lamina_session_open(lamina_engine *e, uint32_t context, lamina_session **session, lamina_error *err)
{
    *session = NULL;
    if (!e->started) return error_set(err, LAMINA_E_USAGE, "%s: lamina_start() comes before sessions", e->path);
    if (context == 0) context = e->plan.context;
    if (context > e->plan.context)
        return error_set(err, LAMINA_E_USAGE, "a session's context of %u tokens: the plan holds %u", context,
                         e->plan.context);
    if (e->n_sessions >= e->plan.sessions)
        return error_set(err, LAMINA_E_BUDGET, "the plan has memory for %u sessions and all are open",
                         e->plan.sessions);
    lamina_session *s = mem_alloc(e->m, MEM_OTHER, sizeof *s, err);
    if (!s) return err ? err->status : LAMINA_E_MEMORY;
    s->engine = e;
    s->context = context;
    e->n_sessions++;
    lamina_status status = fill(s, err);
    if (status != LAMINA_OK) {
        lamina_session_close(s);
        return status;
    }
    *session = s;
    return LAMINA_OK;
}

void lamina_session_close(lamina_session *s)
{
    if (!s) return;
    lamina_engine *e = s->engine;
    kv_free(s);
    for (uint32_t i = 0; i < ROPE_SETS; i++)
        if (s->inv_freq[i])
            e->backend->ops->free(e->backend, MEM_OTHER, s->inv_freq[i], e->model->rope[i].dims / 2 * sizeof(float));
    mem_free(e->m, s->logits);
    mem_free(e->m, s->tokens);
    mem_free(e->m, s);
    e->n_sessions--;
}

size_t lamina_session_length(const lamina_session *s)
{
    return s->length;
}

const int32_t *lamina_session_tokens(const lamina_session *s)
{
    return s->tokens;
}

const float *lamina_session_logits(const lamina_session *s)
{
    return s->has_logits ? s->logits : NULL;
}

lamina_status lamina_session_rewind(lamina_session *s, size_t length, lamina_error *err)
{
    if (length > s->length)
        return error_set(err, LAMINA_E_USAGE, "rewinding to %zu tokens: the session holds %u", length, s->length);
    const model *mo = s->engine->model;
    for (uint32_t i = 0; i < mo->n_layers && length > 0; i++) {
        uint32_t window = mo->layers[i].window, capacity = s->kv[i].capacity;
        if (window && s->high > capacity && length + 1 < (uint64_t)window + (s->high - capacity))
            return error_set(err, LAMINA_E_USAGE,
                             "rewinding to %zu tokens: a window of %u keys in layer %u has let go of "
                             "what would be needed",
                             length, window, i);
    }
    if (length != s->length) s->has_logits = false;
    s->length = (uint32_t)length;
    if (length == 0) s->high = 0;
    return LAMINA_OK;
}

/* What a pass delivers goes to the session that asked, and to the caller's callback. */
typedef struct delivery {
    const lamina_row *rows;
    lamina_logits_fn fn; /* NULL: nobody */
    void *user;
    size_t index0, from; /* index of row 0 in the caller's numbering; rows below `from` are not told */
    uint32_t vocab;
} delivery;

static lamina_status deliver(void *user, uint32_t row, const float *logits, lamina_error *err)
{
    delivery *d = user;
    lamina_session *s = d->rows[row].session;
    memcpy(s->logits, logits, d->vocab * sizeof *logits);
    s->has_logits = true;
    if (d->fn && d->index0 + row >= d->from && !d->fn(d->user, d->index0 + row, logits))
        return error_set(err, LAMINA_E_CANCELLED, "stopped by the caller");
    return LAMINA_OK;
}

static lamina_status pass_rows(lamina_engine *e, delivery *d, uint32_t n, lamina_error *err)
{
    for (uint32_t i = 0; i < n; i++) d->rows[i].session->has_logits = false;
    TRY(forward(e, d->rows, n, deliver, d, err));
    for (uint32_t i = 0; i < n; i++) {
        lamina_session *s = d->rows[i].session;
        s->tokens[s->length++] = d->rows[i].token;
        s->has_logits = d->rows[i].want_logits;
    }
    return LAMINA_OK;
}

lamina_status lamina_pass(lamina_engine *e, const lamina_row *rows, size_t n, lamina_logits_fn on_logits, void *user,
                          lamina_error *err)
{
    if (!e->started) return error_set(err, LAMINA_E_USAGE, "%s: not started", e->path);
    if (n == 0 || n > e->plan.rows)
        return error_set(err, LAMINA_E_USAGE, "a pass of %zu rows: the plan allows 1 to %u", n, e->plan.rows);
    for (size_t i = 0; i < n; i++)
        if (!rows[i].session || rows[i].session->engine != e)
            return error_set(err, LAMINA_E_USAGE, "row %zu has no session of this engine", i);
    delivery d = {.rows = rows, .fn = on_logits, .user = user, .vocab = e->model->vocab};
    return pass_rows(e, &d, (uint32_t)n, err);
}

lamina_status lamina_feed(lamina_session *s, const int32_t *tokens, size_t n, size_t logits_from,
                          lamina_logits_fn on_logits, void *user, lamina_error *err)
{
    lamina_engine *e = s->engine;
    if (n > s->context - s->length)
        return error_set(err, LAMINA_E_USAGE, "%zu tokens do not fit: the session holds %u of its context of %u", n,
                         s->length, s->context);
    if (!on_logits) logits_from = n;
    for (size_t done = 0; done < n;) {
        uint32_t rows = n - done < e->plan.rows ? (uint32_t)(n - done) : e->plan.rows;
        lamina_row *list = e->act.rows_of_feed;
        for (uint32_t i = 0; i < rows; i++)
            list[i] = (lamina_row){s, tokens[done + i], done + i >= logits_from || done + i + 1 == n};
        delivery d = {
            .rows = list, .fn = on_logits, .user = user, .index0 = done, .from = logits_from, .vocab = e->model->vocab};
        TRY(pass_rows(e, &d, rows, err));
        done += rows;
    }
    return LAMINA_OK;
}

void lamina_cancel(lamina_engine *e)
{
    atomic_store_explicit(&e->cancel, true, memory_order_relaxed);
}

void lamina_cancel_clear(lamina_engine *e)
{
    atomic_store_explicit(&e->cancel, false, memory_order_relaxed);
}
