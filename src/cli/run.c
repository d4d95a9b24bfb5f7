/* Owns: `lamina run`: a prompt in, text out as it comes.
 *
 * Promises: what is printed is final. Text that could be the beginning of a stop string is held back until it is known
 * not to be one, wherever tokens begin and end. A reader that goes away, or Ctrl-C, ends the run after the layer at
 * hand, with its statistics. The last token is never fed: nobody asks what follows it. */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

typedef struct generation {
    work w;
    const options *o;
    id_list prompt, ids;
    lamina_detokenizer detokenizer; /* the text goes on after the prompt: its leading space stays */
    text_buffer text;               /* all that was generated, stop strings cut off */
    size_t emitted;                 /* bytes of it on standard output */
    bool reader_gone;               /* standard output is closed */
    const char *finish_reason;      /* NULL: goes on */
    bool cut;                       /* a stop string was found: nothing is added any more */
    timing t;
} generation;

/* ---- text out ------------------------------------------------------------------------------------------------------- */

static int emit(generation *g, size_t end)
{
    if (g->o->json || g->reader_gone || end <= g->emitted) return EXIT_DONE;
    progress_clear(&g->w.progress);
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
    for (size_t i = 0; i < g->o->stops.n; i++) {
        const char *stop = g->o->stops.data[i];
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
    for (size_t i = 0; i < g->o->stops.n; i++) {
        const char *stop = g->o->stops.data[i];
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
    if (g->w.model.has_tokenizer) {
        code = detokenize_id(&g->w, &g->detokenizer, id, true, &g->text);
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

/* ---- tokens --------------------------------------------------------------------------------------------------------- */

static bool is_end(const generation *g, int32_t id)
{
    for (size_t i = 0; i < g->w.model.n_eos; i++)
        if (g->w.model.eos_tokens[i] == id) return true;
    return false;
}

/* A failed pass: an interruption is a way to finish, the rest is an error. */
static int pass_failed(generation *g, lamina_status status, const lamina_error *err)
{
    progress_clear(&g->w.progress);
    if (status != LAMINA_E_CANCELLED) return fail_error(err);
    g->finish_reason = "interrupted";
    return EXIT_DONE;
}

static int choose(generation *g, int32_t *id)
{
    const options *o = g->o;
    lamina_sampling sampling = {
        .temperature = (float)o->temperature,
        .top_k = o->top_k,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .repetition_penalty = (float)o->repetition_penalty,
        .seed = o->seed,
    };
    lamina_error err;
    if (lamina_sample(g->w.session, &sampling, id, &err) != LAMINA_OK) return fail_error(&err);
    if (!ids_push(&g->ids, *id)) return fail("out of memory");
    return EXIT_DONE;
}

static int feed_prompt(generation *g)
{
    lamina_error err;
    g->w.progress.what = "prompt";
    g->w.progress.total = g->prompt.n;
    g->w.progress.rows_are_units = true;
    double begin = now_seconds();
    lamina_status status = LAMINA_OK;
    size_t rows = g->w.plan.rows ? g->w.plan.rows : 1;
    for (size_t at = 0; at < g->prompt.n && status == LAMINA_OK; at += rows) { /* a pass each, so that progress knows */
        size_t n = g->prompt.n - at < rows ? g->prompt.n - at : rows;
        g->w.progress.done = at;
        status = lamina_feed(g->w.session, g->prompt.data + at, n, 0, NULL, NULL, &err);
    }
    g->t.prefill_seconds = now_seconds() - begin;
    g->t.prompt_tokens = lamina_session_length(g->w.session);
    return status == LAMINA_OK ? EXIT_DONE : pass_failed(g, status, &err);
}

static int generate(generation *g)
{
    lamina_error err;
    progress_line *p = &g->w.progress;
    p->what = "token";
    p->total = g->o->n;
    p->rows_are_units = false;
    p->first = 1; /* the first token follows from the prompt's pass */
    p->began = now_seconds();
    double begin = now_seconds();
    int code = EXIT_DONE;
    while (code == EXIT_DONE && !g->finish_reason) {
        int32_t id;
        if (g->ids.n >= g->o->n) {
            g->finish_reason = "length";
            break;
        }
        code = choose(g, &id);
        if (code != EXIT_DONE) break;
        if (!g->o->ignore_eos && is_end(g, id)) {
            g->finish_reason = "stop";
            break;
        }
        code = add_text(g, id);
        if (code != EXIT_DONE || g->finish_reason) break;
        if (g->ids.n >= g->o->n || lamina_session_length(g->w.session) >= g->w.plan.context) {
            g->finish_reason = "length";
            break;
        }
        if (interrupted()) {
            g->finish_reason = "interrupted";
            break;
        }
        p->done = g->ids.n;
        lamina_status status = lamina_feed(g->w.session, &id, 1, 0, NULL, NULL, &err);
        if (status != LAMINA_OK)
            code = pass_failed(g, status, &err);
        else
            g->t.decode_tokens++;
    }
    g->t.decode_seconds = now_seconds() - begin;
    return code;
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */

static int report_json(generation *g, const lamina_stats *stats)
{
    json_t *object = json_object(), *ids = json_array();
    if (!object || !ids) return fail("out of memory");
    json_set_text(object, "model", g->o->operands[0]);
    if (g->w.model.has_tokenizer)
        json_set_text(object, "text", g->text.data ? g->text.data : "");
    else
        json_object_set_new(object, "text", json_null());
    for (size_t i = 0; i < g->ids.n; i++) json_array_append_new(ids, json_integer(g->ids.data[i]));
    json_object_set_new(object, "ids", ids);
    json_set_text(object, "finish_reason", g->finish_reason);
    json_set_bytes(object, "generated_tokens", g->ids.n);
    json_set_stats(object, &g->w, stats, &g->t);
    return json_print(object);
}

static int report(generation *g)
{
    lamina_stats stats;
    work_stats(&g->w, &stats);
    bool stopped = !strcmp(g->finish_reason, "interrupted") && !g->reader_gone;
    int code = EXIT_DONE;
    if (g->o->json)
        code = report_json(g, &stats);
    else if (isatty(STDOUT_FILENO) && g->text.n)
        putchar('\n'), fflush(stdout);
    if (g->o->stats || (stopped && !g->o->json)) {
        fprintf(stderr, "finish     %s after %zu tokens\n", g->reader_gone ? "reader gone" : g->finish_reason,
                g->ids.n);
        print_stats(&g->w, &stats, &g->t);
    } else if (g->w.progress.terminal && !g->o->json && g->t.decode_tokens) {
        double rate = (double)g->t.decode_tokens / g->t.decode_seconds;
        fprintf(stderr, "[%zu tokens, %.3g tokens/s, %.0f %% of it waiting for the disk; peak %s of %s]\n", g->ids.n,
                rate, stats.seconds > 0 ? 100 * stats.stall_seconds / stats.seconds : 0,
                human_bytes(stats.peak_rss_bytes).text, human_bytes(stats.budget_bytes).text);
    }
    return code == EXIT_DONE && stopped ? EXIT_FAILED : code;
}

int run_command(const options *o)
{
    generation g = {.o = o, .detokenizer = {.begun = true}};
    int code = work_open(&g.w, o, WORK_STREAMS_TEXT);
    if (code == EXIT_DONE) code = prompt_ids(&g.w, &g.prompt);
    if (code == EXIT_DONE && g.prompt.n + o->n > INT32_MAX)
        code = fail_usage("-n: expected prompt and -n together below 2^31 tokens, found %zu", g.prompt.n + o->n);
    if (code == EXIT_DONE && o->context && g.prompt.n > o->context)
        code = fail_usage("--context: expected at least the prompt's %zu tokens, found %u", g.prompt.n, o->context);
    if (code == EXIT_DONE) code = work_start(&g.w, (uint32_t)(g.prompt.n + o->n), 1);
    if (code == EXIT_DONE) code = feed_prompt(&g);
    if (code == EXIT_DONE && !g.finish_reason) code = generate(&g);
    if (code == EXIT_DONE && !g.reader_gone) {
        if (g.w.model.has_tokenizer && !g.cut) code = add_text(&g, -1);
        if (code == EXIT_DONE) code = emit(&g, g.text.n);
    }
    if (code == EXIT_DONE) code = report(&g);
    text_free(&g.text);
    ids_free(&g.prompt);
    ids_free(&g.ids);
    work_close(&g.w);
    return code;
}
