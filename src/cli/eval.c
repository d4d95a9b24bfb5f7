/* Owns: `lamina eval`: perplexity of a text.
 *
 * Promises: windows of `context` tokens begin every `stride` tokens; a token is scored once, in the first window that
 * holds it, given all that stands before it there (the strided evaluation of the transformers documentation, "Perplexity
 * of fixed-length models"). The sum over the vocabulary is taken in double. Logits are used as a pass delivers them and
 * never kept. Standard errors take the scores of tokens as independent, as others do. */
#include "cli.h"

#include <math.h>

typedef struct score {
    const int32_t *ids; /* the window's tokens */
    uint32_t vocab;
    uint64_t n;          /* tokens scored, in all windows */
    double mean, spread; /* running mean and sum of squared distances (Welford 1962) */
    bool broken;         /* a likelihood was not a number */
} score;

/* Negative log-likelihood of one token, in nats. */
static double token_nll(const float *logits, uint32_t vocab, int32_t id)
{
    float top = logits[0];
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > top) top = logits[i];
    double sum = 0;
    for (uint32_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - (double)top);
    return log(sum) + (double)top - (double)logits[id];
}

static bool on_logits(void *user, size_t index, const float *logits)
{
    score *s = user;
    double nll = token_nll(logits, s->vocab, s->ids[index + 1]);
    if (!isfinite(nll)) {
        s->broken = true;
        return false;
    }
    s->n++;
    double distance = nll - s->mean;
    s->mean += distance / (double)s->n;
    s->spread += distance * (nll - s->mean);
    return !interrupted();
}

typedef struct evaluation {
    work w;
    id_list ids;
    score s;
    uint32_t context, stride;
    uint64_t windows, windows_total, tokens_fed;
    double seconds;
    bool cut_short; /* by Ctrl-C */
} evaluation;

static int read_text(evaluation *e)
{
    const options *o = e->w.options;
    text_buffer text = {0};
    int code = text_read_file(&text, o->operands[1]);
    unsigned flags = (o->no_special ? (unsigned)LAMINA_NO_SPECIAL : 0) | (o->plain ? (unsigned)LAMINA_PLAIN : 0);
    if (code == EXIT_DONE) code = tokenize_text(&e->w, text.data, text.n, flags, &e->ids);
    text_free(&text);
    if (code != EXIT_DONE) return code;
    if (o->n && e->ids.n > o->n) e->ids.n = o->n;
    if (e->ids.n < 2) return fail("%s: expected a text of at least two tokens, found %zu", o->operands[1], e->ids.n);
    return EXIT_DONE;
}

static int choose_windows(evaluation *e)
{
    const options *o = e->w.options;
    uint32_t own = e->w.model.max_context;
    e->context = o->context ? o->context : own && own < 2048 ? own : 2048;
    if (e->context < 2) return fail_usage("--context: expected at least 2 tokens for eval, found %u", e->context);
    e->stride = o->stride ? o->stride : e->context / 2;
    if (e->stride > e->context)
        return fail_usage("--stride: expected at most the context's %u tokens, found %u", e->context, e->stride);
    size_t n = e->ids.n;
    e->windows_total = n <= e->context ? 1 : 1 + (n - e->context + e->stride - 1) / e->stride;
    return EXIT_DONE;
}

/* Scores the tokens [from, end) of the text in the window that begins at `begin`. */
static int score_window(evaluation *e, size_t begin, size_t from, size_t end)
{
    lamina_error err;
    if (from <= begin) from = begin + 1; /* the first token of a window has nothing before it */
    if (from >= end) return EXIT_DONE;
    e->s.ids = e->ids.data + begin;
    lamina_status status = lamina_session_rewind(e->w.session, 0, &err);
    if (status == LAMINA_OK)
        status = lamina_feed(e->w.session, e->s.ids, end - begin - 1, from - begin - 1, on_logits, &e->s, &err);
    e->tokens_fed += lamina_session_length(e->w.session);
    if (e->s.broken) return fail("the logits for token %zu are not finite numbers", from + (size_t)0);
    if (status == LAMINA_E_CANCELLED) {
        e->cut_short = true;
        return EXIT_DONE;
    }
    return status == LAMINA_OK ? EXIT_DONE : fail_error(&err);
}

static int score_all(evaluation *e)
{
    progress_line *p = &e->w.progress;
    p->what = "window";
    p->total = e->windows_total;
    size_t scored = 0;
    int code = EXIT_DONE;
    double start = now_seconds();
    for (size_t begin = 0; code == EXIT_DONE && !e->cut_short && scored < e->ids.n; begin += e->stride) {
        size_t end = e->ids.n - begin < e->context ? e->ids.n : begin + e->context;
        p->done = e->windows;
        code = score_window(e, begin, scored, end);
        scored = end;
        if (!e->cut_short) e->windows++;
    }
    e->seconds = now_seconds() - start;
    progress_clear(p);
    return code;
}

static int report(evaluation *e)
{
    const score *s = &e->s;
    if (!s->n) return fail("interrupted before a token was scored");
    double error = s->n > 1 ? sqrt(s->spread / (double)(s->n - 1) / (double)s->n) : 0;
    double perplexity = exp(s->mean), speed = e->seconds > 0 ? (double)e->tokens_fed / e->seconds : -1;
    lamina_stats stats;
    timing t = {.prompt_tokens = e->tokens_fed, .prefill_seconds = e->seconds};
    work_stats(&e->w, &stats);
    int code;
    if (e->w.options->json) {
        json_t *object = json_object();
        json_set_text(object, "model", e->w.options->operands[0]);
        json_set_text(object, "file", e->w.options->operands[1]);
        json_set_bytes(object, "tokens", e->ids.n);
        json_set_bytes(object, "scored_tokens", s->n);
        json_set_real(object, "nll", s->mean);
        json_set_real(object, "nll_stderr", error);
        json_set_real(object, "perplexity", perplexity);
        json_set_real(object, "perplexity_stderr", perplexity * error);
        json_set_bytes(object, "context", e->context);
        json_set_bytes(object, "stride", e->stride);
        json_set_bytes(object, "windows", e->windows);
        json_object_set_new(object, "interrupted", json_boolean(e->cut_short));
        json_set_real(object, "tokens_per_s", speed);
        json_set_stats(object, &e->w, &stats, &t);
        code = json_print(object);
    } else {
        printf("nll %.6f +- %.6f\nperplexity %.4f +- %.4f\n", s->mean, error, perplexity, perplexity * error);
        printf("%llu tokens scored of %zu, %llu windows of %u by %u, %.4g tokens/s%s\n", (unsigned long long)s->n,
               e->ids.n, (unsigned long long)e->windows, e->context, e->stride, speed,
               e->cut_short ? " (interrupted)" : "");
        code = finish_stdout();
    }
    if (e->w.options->stats) print_stats(&e->w, &stats, &t);
    return code == EXIT_DONE && e->cut_short ? EXIT_FAILED : code;
}

int eval_command(const options *o)
{
    evaluation e = {0};
    int code = work_open(&e.w, o, 0);
    if (code == EXIT_DONE) code = work_need_tokenizer(&e.w, "eval reads text");
    if (code == EXIT_DONE) code = read_text(&e);
    if (code == EXIT_DONE) code = choose_windows(&e);
    if (code == EXIT_DONE) {
        e.s.vocab = e.w.model.vocab;
        uint32_t held = e.ids.n < e.context ? (uint32_t)e.ids.n : e.context;
        code = work_start(&e.w, held, held);
    }
    if (code == EXIT_DONE) code = score_all(&e);
    if (code == EXIT_DONE) code = report(&e);
    ids_free(&e.ids);
    work_close(&e.w);
    return code;
}
