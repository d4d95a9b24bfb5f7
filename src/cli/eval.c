/* Owns: `lamina eval`: perplexity of a text, and with --against how far the model is from a reference.
 *
 * Promises: windows of `context` tokens begin every `stride` tokens; a token is scored once, in the first window that
 * holds it, given all that stands before it there (the strided evaluation of the transformers documentation,
 * "Perplexity of fixed-length models"). The sum over the vocabulary is taken in double. The two models never share the
 * memory: the reference goes first and leaves its distributions on disk, then the model is opened. What cannot work
 * (another vocabulary, another tokenization, a budget too small for the model, a full disk) is refused before the first
 * pass. All that grows with the text is taken before the plan is made, so that the budget bounds it too. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static void count_windows(evaluation *e)
{
    size_t n = e->ids.n;
    e->windows = n <= e->context ? 1 : 1 + (n - e->context + e->stride - 1) / e->stride;
    e->positions =
        n - (e->stride == e->context ? (size_t)e->windows : 1); /* a window's first token is not scored there */
}

/* own: the tokens that the model was trained for, of two models the fewer; 0: not said */
static int choose_windows(evaluation *e, uint32_t own)
{
    const options *o = e->options;
    e->context = o->context ? o->context : own && own < 2048 ? own : 2048;
    if (e->context < 2) return fail_usage("--context: expected at least 2 tokens for eval, found %u", e->context);
    e->stride = o->stride ? o->stride : e->context / 2;
    if (e->stride > e->context)
        return fail_usage("--stride: expected at most the context's %u tokens, found %u", e->context, e->stride);
    count_windows(e);
    return EXIT_DONE;
}

/* ---- a pass over the text ---------------------------------------------------------------------------------------- */

static bool on_logits(void *user, size_t index, const float *logits)
{
    scoring *s = user;
    evaluation *e = s->e;
    int32_t id = s->window[index + 1];
    size_t at = s->n;
    double nll;
    if (s->is_reference) {
        s->code = cache_append(&e->cache, logits, id, &nll);
        e->reference_nll[at] = nll;
    } else if (e->compares) {
        s->code = cache_next(&e->cache);
        comparison c = {0};
        if (s->code == EXIT_DONE) c = cache_compare(&e->cache, logits, e->common, id);
        nll = c.nll + c.kl; /* either may be infinite */
        if (isfinite(nll)) nll = c.nll;
        e->reference_nll[at] = c.reference_nll;
        e->kl[at] = c.kl;
        e->same_top[at] = c.same_top;
        e->rounding_variance += c.rounding_variance;
        e->rounding_bias += c.rounding_bias;
    } else {
        uint32_t top;
        nll = token_nll(logits, s->w.model.vocab, id, &top, NULL);
    }
    if (s->code != EXIT_DONE) return false;
    s->broken = !isfinite(nll);
    if (s->broken) return false;
    if (!s->is_reference) e->nll[at] = nll;
    s->n++;
    return !interrupted();
}

/* Scores the tokens [from, end) of the text in the window that begins at `begin`. */
static int score_window(scoring *s, size_t begin, size_t from, size_t end)
{
    lamina_error err;
    if (from <= begin) from = begin + 1;
    if (from >= end) return EXIT_DONE;
    s->window = s->e->ids.data + begin;
    lamina_status status = lamina_session_rewind(s->w.session, 0, &err);
    size_t before = s->n;
    if (status == LAMINA_OK)
        status = lamina_feed(s->w.session, s->window, end - begin - 1, from - begin - 1, on_logits, s, &err);
    s->tokens_fed += lamina_session_length(s->w.session);
    if (s->code != EXIT_DONE) return s->code;
    if (s->broken)
        return fail("%s: the logits for token %zu are not finite numbers", s->w.model.path, from + s->n - before);
    if (status == LAMINA_E_CANCELLED) {
        s->cut_short = true;
        return EXIT_DONE;
    }
    return status == LAMINA_OK ? EXIT_DONE : fail_error(&err);
}

static int score_all(scoring *s)
{
    evaluation *e = s->e;
    progress_line *p = &s->w.progress;
    const char *slash = strrchr(s->w.model.path, '/'), *name = slash && slash[1] ? slash + 1 : s->w.model.path;
    char what[80];
    snprintf(what, sizeof what, e->compares ? "%.60s: window" : "window", name);
    p->what = what;
    p->total = e->windows * (e->compares && !e->reused ? 2 : 1);
    p->first = e->compares && !e->reused && !s->is_reference ? e->windows : 0;
    size_t scored = 0;
    int code = EXIT_DONE;
    double start = now_seconds();
    for (size_t begin = 0; code == EXIT_DONE && !s->cut_short && scored < e->ids.n; begin += e->stride) {
        size_t end = e->ids.n - begin < e->context ? e->ids.n : begin + e->context;
        p->done = p->first + s->windows;
        code = score_window(s, begin, scored, end);
        scored = end;
        if (!s->cut_short) s->windows++;
    }
    s->seconds = now_seconds() - start;
    progress_clear(p);
    p->what = NULL;
    return code;
}

/* Opens a model, scores the text, and leaves it open for the report. */
static int score_model(scoring *s)
{
    evaluation *e = s->e;
    const char *path = s->is_reference ? e->options->against : e->options->operands[0];
    unsigned flags = WORK_NO_TOKENIZER | (s->is_reference ? (unsigned)WORK_NO_TRACE : 0);
    uint32_t held = e->ids.n < e->context ? (uint32_t)e->ids.n : e->context;
    int code = work_open_path(&s->w, e->options, path, flags);
    if (code == EXIT_DONE) code = work_start(&s->w, held, held);
    if (code == EXIT_DONE) code = score_all(s);
    if (code == EXIT_DONE) work_stats(&s->w, &s->stats);
    return code;
}

/* ---- before the first pass --------------------------------------------------------------------------------------- */

/* Ids from here on are padding: the tokenizer has no spelling for them, or the one that converters give to padding. */
static uint32_t count_tokens(const work *w)
{
    uint32_t n = w->model.vocab;
    for (; n > 1; n--) {
        lamina_detokenizer state = {.keep_special = true};
        lamina_error err;
        char text[64], padding[64];
        size_t bytes = 0;
        lamina_status status = lamina_detokenize(w->engine, &state, (int32_t)(n - 1), text, sizeof text, &bytes, &err);
        snprintf(padding, sizeof padding, "[PAD%u]", n - 1);
        bool none = status == LAMINA_E_USAGE && bytes == 0;
        if (!none && (status != LAMINA_OK || strcmp(text, padding))) break;
    }
    return n;
}

/* What is to be known of a model before the first pass. */
typedef struct look {
    const char *path;
    uint32_t vocab, tokens, max_context; /* tokens: ids from here on are padding */
    uint64_t fingerprint;                /* of a reference */
} look;

/* Opens a model, asks it for its ids of the text, and closes it. */
static int look_at(evaluation *e, const char *path, const text_buffer *text, id_list *ids, look *l)
{
    const options *o = e->options;
    work w;
    int code = work_open_path(&w, o, path, WORK_NO_TRACE);
    if (code == EXIT_DONE) code = work_need_weights(&w);
    if (code == EXIT_DONE) code = work_need_tokenizer(&w, "eval reads text");
    unsigned flags = (o->no_special ? (unsigned)LAMINA_NO_SPECIAL : 0) | (o->plain ? (unsigned)LAMINA_PLAIN : 0);
    if (code == EXIT_DONE) code = tokenize_text(&w, text->data, text->n, flags, ids);
    if (code == EXIT_DONE) {
        if (o->n && ids->n > o->n) ids->n = o->n;
        *l = (look){.path = path, .vocab = w.model.vocab, .max_context = w.model.max_context};
        if (e->compares) l->tokens = count_tokens(&w);
    }
    if (code == EXIT_DONE && ids != &e->ids) code = model_fingerprint(&w, &l->fingerprint);
    work_close(&w);
    if (code == EXIT_DONE && ids->n < 2)
        code = fail("%s: expected a text of at least two tokens, found %zu", o->operands[1], ids->n);
    return code;
}

/* Both models have the same tokens, but for padding, and call the text by the same ids. */
static int check_alike(evaluation *e, const look *model, const look *reference, const id_list *other)
{
    const char *a = model->path, *b = reference->path;
    e->common = model->vocab < reference->vocab ? model->vocab : reference->vocab;
    if (model->vocab != reference->vocab && (model->tokens > e->common || reference->tokens > e->common))
        return fail("%s, %s: expected the same vocabulary, found %u ids and %u", a, b, model->vocab, reference->vocab);
    size_t n = other->n < e->ids.n ? other->n : e->ids.n;
    for (size_t i = 0; i < n; i++)
        if (e->ids.data[i] != other->data[i])
            return fail("%s, %s: expected the same tokenization of %s, found %d and %d as token %zu", a, b,
                        e->options->operands[1], e->ids.data[i], other->data[i], i);
    if (other->n != e->ids.n)
        return fail("%s, %s: expected the same tokenization of %s, found %zu tokens and %zu", a, b,
                    e->options->operands[1], e->ids.n, other->n);
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)e->ids.data[i] >= e->common)
            return fail("%s: token %zu is %d, the vocabulary has %u", a, i, e->ids.data[i], e->common);
    return EXIT_DONE;
}

/* Is the budget large enough for the model? Else the reference's passes would have been for nothing. */
static int check_budget(evaluation *e)
{
    work w;
    lamina_error err;
    lamina_plan_info plan;
    uint32_t held = e->ids.n < e->context ? (uint32_t)e->ids.n : e->context;
    int code = work_open_path(&w, e->options, e->options->operands[0], WORK_NO_TOKENIZER | WORK_NO_TRACE);
    if (code == EXIT_DONE) {
        lamina_budget budget = work_budget(e->options, held);
        budget.memory = 1; /* refused with the least that would do, before anything is measured */
        lamina_status status = lamina_plan(w.engine, &budget, &plan, &err);
        budget.memory = e->options->memory;
        if (status == LAMINA_E_BUDGET && (!budget.memory || budget.memory >= plan.minimum_bytes))
            status = LAMINA_OK;
        else if (status == LAMINA_E_BUDGET)
            status = lamina_plan(w.engine, &budget, &plan, &err);
        if (status != LAMINA_OK) code = fail_error(&err);
    }
    work_close(&w);
    return code;
}

/* An array of n numbers, touched. */
static double *numbers(size_t n)
{
    double *x = malloc(n * sizeof *x);
    for (size_t i = 0; x && i < n; i++) x[i] = NAN;
    return x;
}

static int take_arrays(evaluation *e)
{
    size_t n = e->positions;
    bool good = (e->nll = numbers(n)) != NULL;
    if (e->compares) {
        e->reference_nll = numbers(n);
        e->kl = numbers(n);
        e->scratch = numbers(n);
        e->same_top = numbers(n);
        good = good && e->reference_nll && e->kl && e->scratch && e->same_top;
    }
    return good ? EXIT_DONE : fail("out of memory");
}

/* The kept file is of this text, these windows and, where one is named, this reference. */
static int reuse_cache(evaluation *e, const look *model, const look *reference)
{
    const options *o = e->options;
    int code = cache_open(&e->cache, o->logits_cache, &e->ids);
    if (code != EXIT_DONE) return code;
    const cache_head *h = &e->cache.head;
    if (o->against && reference->fingerprint != h->fingerprint)
        return fail("%s: expected the logits of %s, found those of another model, then called %s", o->logits_cache,
                    o->against, h->reference);
    e->context = o->context ? o->context : h->context;
    e->stride = o->stride ? o->stride : h->stride;
    if (e->context != h->context || e->stride != h->stride)
        return fail("%s: expected logits of windows of %u tokens every %u, found %u every %u", o->logits_cache,
                    e->context, e->stride, h->context, h->stride);
    count_windows(e);
    if (e->positions != h->positions) return fail("%s: damaged: what its head says cannot be", o->logits_cache);
    look stored = {.path = h->reference, .vocab = h->vocab, .tokens = h->tokens};
    e->reused = true;
    return check_alike(e, model, &stored, &e->ids);
}

static int new_cache(evaluation *e, const look *reference)
{
    cache_head head = {.vocab = reference->vocab,
                       .tokens = reference->tokens,
                       .context = e->context,
                       .stride = e->stride,
                       .fingerprint = reference->fingerprint,
                       .n_ids = e->ids.n,
                       .positions = e->positions};
    snprintf(head.reference, sizeof head.reference, "%s", reference->path);
    return cache_create(&e->cache, e->options->logits_cache, &head, e->ids.data);
}

/* Everything that can be refused is refused here, and all that grows with the text is taken. */
static int prepare(evaluation *e)
{
    const options *o = e->options;
    text_buffer text = {0};
    id_list other = {0};
    look model = {0}, reference = {0};
    bool kept = o->logits_cache && access(o->logits_cache, F_OK) == 0;
    e->compares = o->against || o->logits_cache;
    if (e->compares && !o->against && !kept)
        return fail_usage("--logits-cache: expected --against, which makes %s, or that file; found neither",
                          o->logits_cache);
    int code = text_read_file(&text, o->operands[1]);
    if (code == EXIT_DONE) code = look_at(e, o->operands[0], &text, &e->ids, &model);
    if (code == EXIT_DONE && o->against) code = look_at(e, o->against, &text, &other, &reference);
    text_free(&text);
    if (code == EXIT_DONE && o->against) code = check_alike(e, &model, &reference, &other);
    ids_free(&other);
    uint32_t own = model.max_context;
    if (reference.max_context && (!own || reference.max_context < own)) own = reference.max_context;
    if (code == EXIT_DONE) code = kept ? reuse_cache(e, &model, &reference) : choose_windows(e, own);
    if (code == EXIT_DONE) code = take_arrays(e);
    if (code == EXIT_DONE && e->compares && !kept) code = check_budget(e);
    if (code == EXIT_DONE && e->compares && !kept) code = new_cache(e, &reference);
    return code;
}

int eval_command(const options *o)
{
    evaluation e = {.options = o};
    e.model.e = e.reference.e = &e;
    e.reference.is_reference = true;
    int code = prepare(&e);
    if (code == EXIT_DONE && e.compares && !e.reused) {
        code = score_model(&e.reference);
        if (code == EXIT_DONE && e.reference.cut_short) code = fail("interrupted before the reference was done");
        if (code == EXIT_DONE) code = cache_finish(&e.cache, o->logits_cache);
        work_close(&e.reference.w);
        e.reference.stats.io_note = ""; /* has gone with the engine, and was said when it began */
    }
    if (code == EXIT_DONE) code = score_model(&e.model);
    if (code == EXIT_DONE) code = eval_report(&e);
    work_close(&e.model.w);
    cache_close(&e.cache);
    ids_free(&e.ids);
    free(e.nll);
    free(e.reference_nll);
    free(e.kl);
    free(e.scratch);
    free(e.same_top);
    return code;
}
