/* Owns: `lamina run`: a prompt in, text out as it comes (generate.h).
 *
 * Promises: a reader that goes away, or Ctrl-C, ends the run after the layer at hand, with its statistics. */
#include "generate.h"

#include <string.h>
#include <unistd.h>

static int report_json(const generation *g, const lamina_stats *stats)
{
    json_t *object = json_object(), *ids = json_array();
    if (!object || !ids) return fail("out of memory");
    json_set_text(object, "model", g->w->options->operands[0]);
    if (g->w->model.has_tokenizer)
        json_set_text(object, "text", g->text.data ? g->text.data : "");
    else
        json_object_set_new(object, "text", json_null());
    for (size_t i = 0; i < g->ids.n; i++) json_array_append_new(ids, json_integer(g->ids.data[i]));
    json_object_set_new(object, "ids", ids);
    json_set_text(object, "finish_reason", g->finish_reason);
    json_set_bytes(object, "generated_tokens", g->ids.n);
    json_set_stats(object, g->w, stats, &g->t);
    return json_print(object);
}

static int report(generation *g)
{
    lamina_stats stats;
    work_stats(g->w, &stats);
    bool stopped = !strcmp(g->finish_reason, "interrupted") && !g->reader_gone;
    int code = EXIT_DONE;
    if (g->w->options->json)
        code = report_json(g, &stats);
    else if (isatty(STDOUT_FILENO) && g->text.n)
        putchar('\n'), fflush(stdout);
    if (g->w->options->stats || (stopped && !g->w->options->json)) {
        fprintf(stderr, "finish     %s after %zu tokens\n", g->reader_gone ? "reader gone" : g->finish_reason,
                g->ids.n);
        print_stats(g->w, &stats, &g->t);
    } else if (g->w->progress.terminal && !g->w->options->json && g->t.decode_tokens) {
        double rate = (double)g->t.decode_tokens / g->t.decode_seconds;
        fprintf(stderr, "[%zu tokens, %.3g tokens/s, %.0f %% of it waiting for the disk; peak %s of %s]\n", g->ids.n,
                rate, stats.seconds > 0 ? 100 * stats.stall_seconds / stats.seconds : 0,
                human_bytes(stats.peak_rss_bytes).text, human_bytes(stats.budget_bytes).text);
    }
    return code == EXIT_DONE && stopped ? EXIT_FAILED : code;
}

int run_command(const options *o)
{
    work w;
    id_list prompt = {0}, ends = {0};
    generation g = {
        .w = &w, .most = o->n, .seed = o->seed, .silent = o->json, .ends = &ends, .detokenizer = {.begun = true}};
    int code = work_open(&w, o, WORK_STREAMS_TEXT);
    if (code == EXIT_DONE) code = prompt_ids(&w, &prompt, &ends);
    if (code == EXIT_DONE && prompt.n + o->n > INT32_MAX)
        code = fail_usage("-n: expected prompt and -n together below 2^31 tokens, found %zu", prompt.n + o->n);
    if (code == EXIT_DONE && o->context && prompt.n > o->context)
        code = fail_usage("--context: expected at least the prompt's %zu tokens, found %u", prompt.n, o->context);
    if (code == EXIT_DONE) code = work_start(&w, (uint32_t)(prompt.n + o->n), 1);
    if (code == EXIT_DONE) code = generation_feed(&g, prompt.data, prompt.n);
    if (code == EXIT_DONE && !g.finish_reason) code = generation_run(&g);
    if (code == EXIT_DONE) code = generation_finish(&g);
    if (code == EXIT_DONE) code = report(&g);
    generation_free(&g);
    ids_free(&prompt);
    ids_free(&ends);
    work_close(&w);
    return code;
}
