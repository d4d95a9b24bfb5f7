/* Calibrating: an opened engine is started for a while, reads a text in windows, and keeps for each matrix how large
 * its inputs were.
 *
 * Owns the sums. Promises that they depend on the model and the text alone, not on budget, threads or how rows came
 * together in passes: inputs are the same bits, and each sum is taken in double, row after row in the order of the
 * text. Promises to leave the engine as it was. Windows are short, as sentences are, and each begins as the
 * tokenizer begins a text; their logits are not wanted, so that the head is not read, but what it would be applied to
 * is looked at. */
#include "engine/calibrate.h"

enum { WINDOW = 512 };

/* ---- the sums ----------------------------------------------------------------------------------------------------- */

static void moments_free(lamina_engine *e)
{
    moments *s = e->moments;
    e->moments = NULL;
    if (!s) return;
    for (size_t i = 0; s->sums && i < s->n; i++) mem_free(e->m, s->sums[i]);
    mem_free(e->m, s->sums);
    mem_free(e->m, s->rows);
    mem_free(e->m, s->like);
    mem_free(e->m, s);
}

/* Sums for a matrix that can be quantised. */
static lamina_status watch(lamina_engine *e, const weight *w, lamina_error *err)
{
    moments *s = e->moments;
    if (!w->rows || w->tensor == TENSOR_NONE || w->transposed || w->n_pieces || s->sums[w->tensor]) return LAMINA_OK;
    s->sums[w->tensor] = mem_array(e->m, MEM_OTHER, (size_t)w->cols, sizeof **s->sums, err);
    if (!s->sums[w->tensor]) return LAMINA_E_MEMORY;
    memset(s->sums[w->tensor], 0, (size_t)w->cols * sizeof **s->sums); /* resident before the plan counts */
    return LAMINA_OK;
}

static lamina_status watch_layer(lamina_engine *e, const model_layer *l, lamina_error *err)
{
    for (int r = 0; r < ROLE_MATRICES; r++) TRY(watch(e, &l->w[r], err));
    for (uint32_t i = 0; l->experts && i < e->model->experts.count; i++) {
        const weight *w = l->experts[i].w;
        TRY(watch(e, &w[EXPERT_MATRICES - 1], err));
        for (int k = 0; k < EXPERT_MATRICES - 1; k++)
            if (w[k].rows) e->moments->like[w[k].tensor] = l->w[ROLE_ROUTER].tensor;
    }
    return LAMINA_OK;
}

static lamina_status moments_new(lamina_engine *e, lamina_error *err)
{
    const model *mo = e->model;
    size_t n = e->ckpt->n_tensors;
    moments *s = e->moments = mem_alloc(e->m, MEM_OTHER, sizeof *s, err);
    if (!s) return LAMINA_E_MEMORY;
    s->n = n;
    s->sums = mem_array(e->m, MEM_OTHER, n, sizeof *s->sums, err);
    s->rows = s->sums ? mem_array(e->m, MEM_OTHER, n, sizeof *s->rows, err) : NULL;
    s->like = s->rows ? mem_array(e->m, MEM_OTHER, n, sizeof *s->like, err) : NULL;
    if (!s->like) return LAMINA_E_MEMORY;
    for (size_t i = 0; i < n; i++) s->like[i] = (uint32_t)i;
    for (uint32_t i = 0; i < mo->n_layers; i++) TRY(watch_layer(e, &mo->layers[i], err));
    return watch(e, model_end(mo, ROLE_HEAD), err);
}

void moments_add(pass *p, const weight *w, const float *x, uint32_t n, uint64_t k)
{
    moments *s = p->e->moments;
    if (w->tensor == TENSOR_NONE || !s->sums[w->tensor] || w->cols != k) return;
    p->ops->add_squares(p->b, x, n, k, s->sums[w->tensor]);
    s->rows[w->tensor] += n;
}

/* Means, where anything was seen; experts that no row chose are judged by their weights alone. */
static lamina_status moments_give(const lamina_engine *e, float **out, lamina_error *err)
{
    const moments *s = e->moments;
    for (size_t i = 0; i < s->n; i++) {
        uint32_t from = s->like[i];
        const tensor *t = &e->ckpt->tensors[i];
        if (!s->sums[from] || !s->rows[from] || !t->n_dims) continue;
        size_t k = (size_t)t->shape[t->n_dims - 1];
        if (k != (size_t)e->ckpt->tensors[from].shape[e->ckpt->tensors[from].n_dims - 1]) continue;
        out[i] = mem_array(e->m, MEM_OTHER, k, sizeof **out, err);
        if (!out[i]) return LAMINA_E_MEMORY;
        for (size_t c = 0; c < k; c++) out[i][c] = (float)(s->sums[from][c] / (double)s->rows[from]);
    }
    return LAMINA_OK;
}

/* ---- the text ----------------------------------------------------------------------------------------------------- */

static lamina_status tokens_of(const calibration_run *c, calibration_tokens *out, lamina_error *err)
{
    lamina_engine *e = c->e;
    int32_t *bare = NULL;
    size_t n_bare = 0;
    if (!e->tok)
        return error_set(err, LAMINA_E_UNSUPPORTED, "calibrate: %s",
                         e->no_tokenizer.text[0] ? e->no_tokenizer.text : "the model was opened without its tokenizer");
    TRY(tokenizer_encode(e->tok, e->m, c->text, c->bytes, LAMINA_NO_SPECIAL, &bare, &n_bare, err));
    lamina_status status = tokenizer_encode(e->tok, e->m, c->text, c->bytes, 0, &out->id, &out->n, err);
    out->opens = status == LAMINA_OK && out->n > n_bare && (n_bare == 0 || out->id[0] != bare[0]);
    mem_free(e->m, bare);
    return status;
}

/* A pass's report as one of the whole text. */
typedef struct telling {
    lamina_progress_fn fn;
    void *user;
    uint64_t passes_done, passes, bytes_before, bytes;
    double began;
} telling;

static bool tell(void *user, const lamina_progress *now)
{
    telling *t = user;
    lamina_progress p = *now;
    if (now->done == 0) t->bytes_before += t->bytes;
    t->bytes = now->bytes;
    p.phase = LAMINA_PHASE_CALIBRATE;
    p.done += t->passes_done * now->total;
    p.total *= t->passes;
    p.bytes += t->bytes_before;
    p.seconds = os_seconds() - t->began;
    return t->fn(t->user, &p);
}

typedef struct span {
    size_t from, n;
} span;

/* One window, in as many passes as the plan's rows want. */
static lamina_status read_window(lamina_session *s, const calibration_tokens *t, span w, telling *progress,
                                 lamina_error *err)
{
    lamina_engine *e = s->engine;
    bool add = t->opens && w.from > 0;
    for (size_t done = 0; done < w.n + add;) {
        size_t rows = w.n + add - done < e->plan.rows ? w.n + add - done : e->plan.rows;
        lamina_row *list = e->act.rows_of_feed;
        for (size_t i = 0; i < rows; i++) {
            size_t at = done + i;
            list[i] = (lamina_row){.session = s, .token = add && at == 0 ? t->id[0] : t->id[w.from + at - add]};
        }
        TRY(lamina_pass(e, list, rows, NULL, NULL, err));
        done += rows;
        progress->passes_done++;
    }
    return LAMINA_OK;
}

/* Tokens of the text that the window from `from` on holds. */
static size_t window_at(const lamina_engine *e, const calibration_tokens *t, size_t from)
{
    size_t most = e->plan.context - (t->opens && from > 0);
    return t->n - from < most ? t->n - from : most;
}

static uint64_t passes_of(const lamina_engine *e, const calibration_tokens *t)
{
    uint64_t n = 0;
    for (size_t from = 0, tokens; from < t->n; from += tokens) {
        tokens = window_at(e, t, from);
        n += (tokens + (t->opens && from > 0) + e->plan.rows - 1) / e->plan.rows;
    }
    return n;
}

static lamina_status read_text(lamina_engine *e, const calibration_tokens *t, telling *progress, lamina_error *err)
{
    lamina_session *s;
    TRY(lamina_session_open(e, 0, &s, err));
    lamina_status status = LAMINA_OK;
    for (size_t from = 0; from < t->n && status == LAMINA_OK;) {
        size_t n = window_at(e, t, from);
        status = read_window(s, t, (span){from, n}, progress, err);
        from += n;
        if (status == LAMINA_OK) status = lamina_session_rewind(s, 0, err);
    }
    lamina_session_close(s);
    return status;
}

static lamina_status read_started(lamina_engine *e, const calibration_tokens *t, lamina_error *err)
{
    telling progress = {.fn = e->options.progress, .user = e->options.progress_user, .began = os_seconds()};
    progress.passes = passes_of(e, t);
    if (progress.fn) {
        e->options.progress = tell;
        e->options.progress_user = &progress;
    }
    lamina_status status = read_text(e, t, &progress, err);
    e->options.progress = progress.fn;
    e->options.progress_user = progress.user;
    return status;
}

lamina_status calibrate_tokens(const calibration_run *c, const calibration_tokens *t, float **out, lamina_error *err)
{
    lamina_engine *e = c->e;
    uint32_t longest = e->model->max_context;
    lamina_budget budget = {.memory = c->memory, .rows = c->rows};
    budget.context = longest && longest < WINDOW ? longest : WINDOW;
    if (t->n < budget.context) budget.context = (uint32_t)t->n;
    if (e->started)
        return error_set(err, LAMINA_E_USAGE, "%s: calibrating wants an engine that has not been started", e->path);
    if (t->n < 2)
        return error_set(err, LAMINA_E_USAGE, "calibrate: expected a text of at least 2 tokens, found %zu", t->n);
    lamina_status status = moments_new(e, err); /* before the plan, which counts what is resident */
    if (status == LAMINA_OK) status = lamina_start(e, &budget, NULL, err);
    if (status == LAMINA_OK) {
        status = read_started(e, t, err);
        engine_stop(e);
    }
    if (status == LAMINA_OK) status = moments_give(e, out, err);
    moments_free(e);
    os_trim_heap();
    return status;
}

lamina_status calibrate(void *calibration, float **out, lamina_error *err)
{
    const calibration_run *c = calibration;
    calibration_tokens t = {0};
    lamina_status status = tokens_of(c, &t, err);
    if (status == LAMINA_OK) status = calibrate_tokens(c, &t, out, err);
    mem_free(c->e->m, t.id);
    return status;
}
