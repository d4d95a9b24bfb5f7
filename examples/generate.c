/* The whole of lamina in one screen: open a model, give it a budget, feed a prompt, sample, print.
 *
 *     example_generate MODEL MEGABYTES "Once upon a time" [TOKENS]
 *
 * Whatever fails arrives as a value with one line of text; nothing in the library prints or exits. */
#include <lamina.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const lamina_error *err)
{
    fprintf(stderr, "example_generate: %s\n", err->text);
    return 1;
}

/* Prints the text that one id completes; whole UTF-8 characters only. */
static lamina_status print_token(const lamina_engine *engine, lamina_detokenizer *text, int32_t id, lamina_error *err)
{
    char piece[512];
    size_t bytes;
    lamina_status status = lamina_detokenize(engine, text, id, piece, sizeof piece, &bytes, err);
    if (status == LAMINA_OK) fwrite(piece, 1, bytes, stdout);
    fflush(stdout);
    return status;
}

static bool ends(const lamina_model_info *model, int32_t id)
{
    for (size_t i = 0; i < model->n_eos; i++)
        if (model->eos_tokens[i] == id) return true;
    return false;
}

static lamina_status generate(lamina_engine *engine, lamina_session *session, size_t n, lamina_error *err)
{
    lamina_model_info model;
    lamina_detokenizer text = {.begun = true}; /* the text goes on after the prompt: keep its leading space */
    lamina_sampling sampling = {.temperature = 0.8f, .top_p = 0.95f, .seed = 1};
    lamina_status status = LAMINA_OK;
    lamina_model(engine, &model);
    for (size_t i = 0; i < n && status == LAMINA_OK; i++) {
        int32_t id;
        status = lamina_sample(session, &sampling, &id, err);
        if (status != LAMINA_OK || ends(&model, id)) break;
        status = print_token(engine, &text, id, err);
        if (status == LAMINA_OK && i + 1 < n) status = lamina_feed(session, &id, 1, 0, NULL, NULL, err);
    }
    printf("\n");
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: example_generate MODEL MEGABYTES PROMPT [TOKENS]\n");
        return 2;
    }
    enum { PROMPT_TOP = 4096 };
    static int32_t prompt[PROMPT_TOP];
    size_t n_prompt, n = argc > 4 ? (size_t)strtoul(argv[4], NULL, 10) : 32;
    lamina_error err;
    lamina_engine *engine;
    lamina_session *session = NULL;
    lamina_plan_info plan;

    if (lamina_open(argv[1], NULL, &engine, &err) != LAMINA_OK) return fail(&err);
    lamina_status status = lamina_tokenize(engine, argv[3], strlen(argv[3]), 0, prompt, PROMPT_TOP, &n_prompt, &err);
    if (status == LAMINA_OK && n_prompt > PROMPT_TOP) n_prompt = PROMPT_TOP;

    /* The budget bounds the resident size of this whole process; the plan says what it bought. */
    lamina_budget budget = {.memory = (uint64_t)strtoul(argv[2], NULL, 10) << 20, .context = (uint32_t)(n_prompt + n)};
    if (status == LAMINA_OK) status = lamina_start(engine, &budget, &plan, &err);
    if (status == LAMINA_OK) status = lamina_session_open(engine, 0, &session, &err);
    if (status == LAMINA_OK) status = lamina_feed(session, prompt, n_prompt, 0, NULL, NULL, &err);
    if (status == LAMINA_OK) status = generate(engine, session, n, &err);
    if (status == LAMINA_OK) {
        lamina_stats stats;
        lamina_get_stats(engine, &stats);
        fprintf(stderr, "read %.1f MB in %.2f s, %.2f s of it waiting; peak %.1f MB of %.1f\n",
                (double)stats.bytes_read / 1e6, stats.seconds, stats.stall_seconds,
                (double)stats.peak_rss_bytes / 1048576.0, (double)stats.budget_bytes / 1048576.0);
    }
    if (session) lamina_session_close(session);
    lamina_close(engine);
    return status == LAMINA_OK ? 0 : fail(&err);
}
