/* Owns: one answer, from the prompt's rows to the last byte of text, for every command that generates.
 *
 * Promises: what is printed is final. Text that could be the beginning of a stop string is held back until it is known
 * not to be one, wherever tokens begin and end. A reader that goes away, or Ctrl-C, ends the answer after the layer at
 * hand. The last token is never fed: nobody asks what follows it. */
#include "generate.h"

#include <errno.h>
#include <string.h>

/* ---- text out ---------------------------------------------------------------------------------------------------- */

static int emit(generation *g, size_t end)
{
    if (g->silent || g->reader_gone || end <= g->emitted) return EXIT_DONE;
    progress_clear(&g->w->progress);
    errno = 0;
    size_t n = end - g->emitted;
    bool good = fwrite(g->text.data + g->emitted, 1, n, stdout) == n && fflush(stdout) == 0;
    g->emitted = end;
    if (good) return EXIT_DONE;
    if (errno != EPIPE) return fail("standard output: %s", strerror(errno));
    g->reader_gone = true;
    g->finish_reason = "interrupted";
    return EXIT_DONE;
}

/* The first stop string at or after `from`: its place, or SIZE_MAX. */
static size_t find_stop(const generation *g, size_t from)
{
    size_t first = SIZE_MAX;
    for (size_t i = 0; i < g->w->options->stops.n; i++) {
        const char *stop = g->w->options->stops.data[i];
        size_t n = strlen(stop), start = from > n ? from - n + 1 : 0;
        if (g->text.n < n || start > g->text.n - n) continue;
        const char *hit = memmem(g->text.data + start, g->text.n - start, stop, n);
        if (hit && (size_t)(hit - g->text.data) < first) first = (size_t)(hit - g->text.data);
    }
    return first;
}

/* Bytes at the end of the text that a stop string could begin with. */
static size_t held_back(const generation *g)
{
    size_t longest = 0;
    for (size_t i = 0; i < g->w->options->stops.n; i++) {
        const char *stop = g->w->options->stops.data[i];
        size_t n = strlen(stop) - 1;
        if (n > g->text.n) n = g->text.n;
        for (; n > longest; n--)
            if (!memcmp(g->text.data + g->text.n - n, stop, n)) longest = n;
    }
    return longest;
}

/* The text of one more id (-1: what is still incomplete), as far as it is certain. */
static int add_text(generation *g, int32_t id)
{
    size_t before = g->text.n;
    int code;
    if (g->w->model.has_tokenizer) {
        code = detokenize_id(g->w, &g->detokenizer, id, true, &g->text);
        if (code != EXIT_DONE) return code;
    } else if (id >= 0) {
        char number[16];
        int n = snprintf(number, sizeof number, "%s%d", g->ids.n > 1 ? " " : "", id);
        if (!text_append(&g->text, number, (size_t)n)) return fail("out of memory");
    }
    size_t stop = find_stop(g, before);
    if (stop != SIZE_MAX) {
        g->text.n = stop;
        g->text.data[stop] = '\0';
        g->finish_reason = "stop";
        g->cut = true;
    }
    return emit(g, g->text.n - (g->finish_reason ? 0 : held_back(g)));
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static bool is_end(const generation *g, int32_t id)
{
    for (size_t i = 0; i < g->w->model.n_eos; i++)
        if (g->w->model.eos_tokens[i] == id) return true;
    for (size_t i = 0; g->ends && i < g->ends->n; i++)
        if (g->ends->data[i] == id) return true;
    return false;
}

/* A failed pass: an interruption is a way to finish, the rest is an error. */
static int pass_failed(generation *g, lamina_status status, const lamina_error *err)
{
    progress_clear(&g->w->progress);
    if (status != LAMINA_E_CANCELLED) return fail_error(err);
    g->finish_reason = "interrupted";
    return EXIT_DONE;
}

static int choose(generation *g, int32_t *id)
{
    const options *o = g->w->options;
    lamina_sampling sampling = {
        .temperature = (float)o->temperature,
        .top_k = o->top_k,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .repetition_penalty = (float)o->repetition_penalty,
        .seed = g->seed,
    };
    lamina_error err;
    if (lamina_sample(g->w->session, &sampling, id, &err) != LAMINA_OK) return fail_error(&err);
    if (!ids_push(&g->ids, *id)) return fail("out of memory");
    return EXIT_DONE;
}

int generation_feed(generation *g, const int32_t *ids, size_t n)
{
    lamina_error err;
    progress_line *p = &g->w->progress;
    p->what = "prompt";
    p->total = n;
    p->rows_are_units = true;
    p->first = 0;
    p->began = now_seconds();
    double begin = now_seconds();
    lamina_status status = LAMINA_OK;
    size_t rows = g->w->plan.rows ? g->w->plan.rows : 1, before = lamina_session_length(g->w->session);
    for (size_t at = 0; at < n && status == LAMINA_OK; at += rows) { /* a pass each, so that progress knows */
        p->done = at;
        status = lamina_feed(g->w->session, ids + at, n - at < rows ? n - at : rows, 0, NULL, NULL, &err);
    }
    g->t.prefill_seconds = now_seconds() - begin;
    g->t.prompt_tokens = lamina_session_length(g->w->session) - before;
    return status == LAMINA_OK ? EXIT_DONE : pass_failed(g, status, &err);
}

int generation_run(generation *g)
{
    lamina_error err;
    progress_line *p = &g->w->progress;
    p->what = "token";
    p->total = g->most;
    p->rows_are_units = false;
    p->first = 1; /* the first token follows from the prompt's pass */
    p->began = now_seconds();
    double begin = now_seconds();
    int code = EXIT_DONE;
    while (code == EXIT_DONE && !g->finish_reason) {
        int32_t id;
        if (g->ids.n >= g->most) {
            g->finish_reason = "length";
            break;
        }
        code = choose(g, &id);
        if (code != EXIT_DONE) break;
        if (!g->w->options->ignore_eos && is_end(g, id)) {
            g->finish_reason = "stop";
            break;
        }
        g->n_said = g->ids.n;
        code = add_text(g, id);
        if (code != EXIT_DONE || g->finish_reason) break;
        g->context_full = lamina_session_length(g->w->session) >= g->w->plan.context;
        if (g->ids.n >= g->most || g->context_full) {
            g->finish_reason = "length";
            break;
        }
        if (interrupted()) {
            g->finish_reason = "interrupted";
            break;
        }
        p->done = g->ids.n;
        lamina_status status = lamina_feed(g->w->session, &id, 1, 0, NULL, NULL, &err);
        if (status != LAMINA_OK)
            code = pass_failed(g, status, &err);
        else
            g->t.decode_tokens++;
    }
    g->t.decode_seconds = now_seconds() - begin;
    return code;
}

int generation_finish(generation *g)
{
    if (g->reader_gone) return EXIT_DONE;
    int code = g->w->model.has_tokenizer && !g->cut ? add_text(g, -1) : EXIT_DONE;
    return code == EXIT_DONE ? emit(g, g->text.n) : code;
}

void generation_free(generation *g)
{
    text_free(&g->text);
    ids_free(&g->ids);
}
