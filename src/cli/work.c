/* Owns: an opened model from the first look to the last, as every command that computes needs it, and the signals that
 * end its work early.
 *
 * Promises: whatever fails has been printed and leaves nothing open. The first Ctrl-C (or SIGTERM) asks the library to
 * stop, which it does after the layer at hand; the second one finds the system's default and ends the process. The two
 * variables at the top are the program's only global state: a signal handler has no other way to its engine. */
#include "cli.h"

#include <signal.h>
#include <unistd.h>

static lamina_engine *volatile signalled_engine;
static volatile sig_atomic_t signal_came;

static void on_signal(int number)
{
    signal_came = number;
    lamina_engine *engine = signalled_engine;
    if (engine) lamina_cancel(engine);
}

static void watch_signals(lamina_engine *engine)
{
    signalled_engine = engine;
    if (!engine) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        return;
    }
    struct sigaction action = {.sa_handler = on_signal};
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupted(void)
{
    return signal_came != 0;
}

bool terminated(void)
{
    return signal_came == SIGTERM;
}

void work_signals_computing(work *w)
{
    if (!terminated()) signal_came = 0;
    lamina_cancel_clear(w->engine);
    watch_signals(w->engine);
}

void work_signals_waiting(work *w)
{
    struct sigaction action = {.sa_handler = on_signal}; /* stays, and interrupts a read */
    signalled_engine = NULL;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    lamina_cancel_clear(w->engine);
    if (!terminated()) signal_came = 0;
}

static lamina_options library_options(work *w, unsigned flags)
{
    const options *o = w->options;
    return (lamina_options){
        .threads = o->threads,
        .io = (lamina_io)o->io,
        .isa = (lamina_isa)o->isa,
        .trace_path = flags & WORK_NO_TRACE ? NULL : o->trace,
        .ignore_config = o->ignore_config,
        .progress = progress_show,
        .progress_user = &w->progress,
        .tokenizer_only = (flags & WORK_TOKENIZER_ONLY) != 0,
        .no_tokenizer = (flags & WORK_NO_TOKENIZER) != 0,
        .faults = o->faults,
    };
}

static lamina_status open_model(work *w, const options *o, const char *path, unsigned flags, lamina_error *err)
{
    *w = (work){.options = o};
    progress_begin(&w->progress, o, (flags & WORK_STREAMS_TEXT) != 0);
    lamina_options open = library_options(w, flags);
    lamina_status status = lamina_open(path, &open, &w->engine, err);
    if (status != LAMINA_OK) return status;
    watch_signals(w->engine);
    lamina_model(w->engine, &w->model);
    return LAMINA_OK;
}

int work_open_path(work *w, const options *o, const char *path, unsigned flags)
{
    lamina_error err;
    return open_model(w, o, path, flags, &err) == LAMINA_OK ? EXIT_DONE : fail_error(&err);
}

int work_open(work *w, const options *o, unsigned flags)
{
    return work_open_path(w, o, o->operands[0], flags);
}

int work_need_weights(const work *w)
{
    if (w->model.has_weights) return EXIT_DONE;
    return fail("%s: expected a model with weights, found its configuration only; lamina plan works with it",
                w->model.path);
}

int work_open_or_resume(work *w, const options *o, const lamina_pack_options *pack, lamina_pack_info *info)
{
    lamina_error err, why;
    if (open_model(w, o, o->operands[0], 0, &err) == LAMINA_OK) {
        if (w->model.has_weights) return EXIT_DONE;
        snprintf(err.text, sizeof err.text, "%s: expected a model with weights, found its configuration only",
                 o->operands[0]);
        watch_signals(NULL);
        lamina_close(w->engine);
        w->engine = NULL;
    }
    lamina_options open = library_options(w, 0);
    lamina_status status = lamina_pack_resume(o->output, o->operands[0], &open, pack, info, &why);
    progress_clear(&w->progress);
    if (status == LAMINA_OK) return EXIT_DONE;
    return fail_error(status == LAMINA_E_USAGE ? &err : &why); /* nothing to resume: why the model did not open */
}

int work_need_tokenizer(const work *w, const char *instead)
{
    if (w->model.has_tokenizer) return EXIT_DONE;
    lamina_error err = {.text = "expected a tokenizer, found none"};
    size_t n;
    lamina_tokenize(w->engine, "", 0, 0, NULL, 0, &n, &err); /* it fails, and says why there is none */
    return fail("%s; %s", err.text, instead);
}

lamina_budget work_budget(const options *o, uint32_t context)
{
    return (lamina_budget){
        .memory = o->memory,
        .context = o->context ? o->context : context,
        .rows = o->rows,
        .kv = (lamina_kv)o->kv,
        .ring = o->ring,
        .chunk = o->chunk,
        .device_bytes_per_s = (double)o->disk,
    };
}

/* Says once what was chosen where the user left it open, to whoever watches. */
static void say_choices(const work *w)
{
    lamina_stats stats;
    lamina_get_stats(w->engine, &stats);
    if (stats.io_note && stats.io_note[0]) fprintf(stderr, "lamina: note: %s\n", stats.io_note);
    if (w->plan.budget_chosen && (w->progress.terminal || w->options->stats))
        fprintf(stderr, "lamina: note: memory budget %s, what is free here less a margin; --memory sets it\n",
                human_bytes(w->plan.budget_bytes).text);
}

/* Rows of logits to hold at once. Each spares a trip of the head when many rows want logits; none may cost the budget
 * what pins weights, so they get at most an eighth of it. */
static uint32_t logit_rows_worth(const work *w, uint32_t wanted)
{
    uint64_t most = UINT64_C(64) << 20, row = 4 * (uint64_t)(w->model.vocab ? w->model.vocab : 1);
    if (w->options->memory && w->options->memory / 8 < most) most = w->options->memory / 8;
    uint64_t rows = most / row;
    if (rows > wanted) rows = wanted;
    return rows ? (uint32_t)rows : 1;
}

int work_start(work *w, uint32_t context, uint32_t logit_rows)
{
    lamina_budget budget = work_budget(w->options, context);
    lamina_error err;
    int code = work_need_weights(w);
    if (code != EXIT_DONE) return code;
    budget.logit_rows = logit_rows_worth(w, logit_rows);
    lamina_status status = lamina_start(w->engine, &budget, &w->plan, &err);
    while (status == LAMINA_E_BUDGET && budget.logit_rows > 1) {
        budget.logit_rows /= 2;
        status = lamina_start(w->engine, &budget, &w->plan, &err);
    }
    if (status == LAMINA_OK) status = lamina_session_open(w->engine, budget.context, &w->session, &err);
    if (status != LAMINA_OK) return fail_error(&err);
    say_choices(w);
    w->progress.began = now_seconds();
    return EXIT_DONE;
}

void work_stats(work *w, lamina_stats *stats)
{
    lamina_get_stats(w->engine, stats);
    bool shown = w->options->json || w->options->stats;
    if (!shown || interrupted() || !stats->streamed_bytes_per_pass || w->plan.device_bytes_per_s > 0) return;
    lamina_error ignored; /* what cannot be measured stays unknown */
    double rate = 0;
    if (lamina_measure(w->engine, LAMINA_MEASURE_DISK, 0.2, &rate, &ignored) == LAMINA_OK)
        w->plan.device_bytes_per_s = rate;
}

void work_close(work *w)
{
    progress_clear(&w->progress);
    watch_signals(NULL);
    if (w->session) lamina_session_close(w->session);
    lamina_close(w->engine);
    w->session = NULL;
    w->engine = NULL;
}
