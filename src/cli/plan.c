/* Owns: `lamina plan`: every term of the plan, for one budget or a ladder of them.
 *
 * Promises: it asks the library the question that a run would ask, and shows all of the answer. Nothing is started and
 * no weights are needed. */
#include "cli.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = MAX_BUDGETS };

typedef struct column {
    lamina_plan_info info;
    lamina_status status; /* LAMINA_E_BUDGET: too small, info.minimum_bytes is set */
    lamina_error err;
    uint64_t asked; /* 0: what is free here */
} column;

static bool ask(const work *w, uint64_t memory, double disk, column *c)
{
    lamina_budget budget = work_budget(w->options, 0);
    budget.memory = memory;
    if (disk > 0) budget.device_bytes_per_s = disk;
    *c = (column){.asked = memory};
    c->status = lamina_plan(w->engine, &budget, &c->info, &c->err);
    if (c->status == LAMINA_E_BUDGET) c->info.budget_bytes = memory;
    return c->status == LAMINA_OK || c->status == LAMINA_E_BUDGET;
}

/* A budget that reads well: the next multiple of a sixteenth of its power of two. */
static uint64_t rounded(double bytes)
{
    uint64_t step = 1u << 20;
    while ((double)step * 16 < bytes) step *= 2;
    return ((uint64_t)(bytes / (double)step) + 1) * step;
}

/* From the least budget to the one with everything resident. The number of columns, or 0 after printing why not. */
static size_t ladder(const work *w, double disk, column *c, int *code)
{
    column probe;
    if (!ask(w, 1, disk, &probe) || !ask(w, UINT64_MAX / 4, disk, &c[0])) {
        *code = fail_error(probe.status == LAMINA_OK || probe.status == LAMINA_E_BUDGET ? &c[0].err : &probe.err);
        return 0;
    }
    double least = (double)probe.info.minimum_bytes, all = (double)c[0].info.predicted_peak_bytes;
    enum { STEPS = 6 };
    size_t n = 0;
    for (size_t i = 0; i < STEPS; i++) { /* equal ratios: a step is worth as much at 4 GiB as at 400 */
        double bytes = least * pow(all / least, (double)i / (STEPS - 1));
        uint64_t memory =
            i == 0 ? probe.info.minimum_bytes + (UINT64_C(1) << 20) : rounded(bytes); /* asking grows it */
        if (n && memory <= c[n - 1].asked) continue;
        if (!ask(w, memory, disk, &c[n])) {
            *code = fail_error(&c[n].err);
            return 0;
        }
        n++;
    }
    return n;
}

/* ---- as a table -------------------------------------------------------------------------------------------------- */

typedef enum row_kind { ROW_BYTES, ROW_RATE, ROW_SECONDS, ROW_COUNT, ROW_SPEED, ROW_SHARE } row_kind;

typedef struct row {
    const char *name;
    row_kind kind;
    size_t offset;
} row;

#define FIELD(f) offsetof(lamina_plan_info, f)
static const row rows[] = {
    {"budget", ROW_BYTES, FIELD(budget_bytes)},
    {"least that works", ROW_BYTES, FIELD(minimum_bytes)},
    {"predicted peak", ROW_BYTES, FIELD(predicted_peak_bytes)},
    {"  process", ROW_BYTES, FIELD(process_bytes)},
    {"  norms and biases", ROW_BYTES, FIELD(vector_bytes)},
    {"  keys and values", ROW_BYTES, FIELD(kv_bytes)},
    {"  activations", ROW_BYTES, FIELD(activation_bytes)},
    {"  ring", ROW_BYTES, FIELD(ring_bytes)},
    {"  pinned weights", ROW_BYTES, FIELD(pinned_bytes)},
    {"read per pass", ROW_BYTES, FIELD(streamed_bytes_per_pass)},
    {"bytes per read", ROW_BYTES, FIELD(chunk_bytes)},
    {"context, tokens", ROW_COUNT, FIELD(context)},
    {"sessions", ROW_COUNT, FIELD(sessions)},
    {"rows per pass", ROW_COUNT, FIELD(rows)},
    {"rows with logits", ROW_COUNT, FIELD(logit_rows)},
    {"device", ROW_RATE, FIELD(device_bytes_per_s)},
    {"time per token", ROW_SECONDS, FIELD(seconds_per_token)},
    {"prompt, tokens/s", ROW_SPEED, FIELD(prompt_tokens_per_s)},
};
static const row expert_rows[] = {
    {"pool of experts", ROW_BYTES, FIELD(expert_pool_bytes)},
    {"experts kept", ROW_COUNT, FIELD(experts_resident)},
    {"expected found", ROW_SHARE, FIELD(expert_hit_rate)},
    {"experts read a token", ROW_BYTES, FIELD(expert_read_bytes_per_pass)},
    {"used by a token", ROW_BYTES, FIELD(active_bytes_per_token)},
};

static label cell(const row *r, const column *c)
{
    const char *field = (const char *)&c->info + r->offset;
    label l = {"-"};
    bool known = c->status == LAMINA_OK || r->offset == FIELD(minimum_bytes) || r->offset == FIELD(budget_bytes);
    if (!known) return l;
    uint64_t bytes = 0;
    uint32_t count = 0;
    double real = 0;
    switch (r->kind) {
    case ROW_BYTES:
        memcpy(&bytes, field, sizeof bytes);
        return human_bytes(bytes);
    case ROW_COUNT:
        memcpy(&count, field, sizeof count);
        snprintf(l.text, sizeof l.text, "%u", count);
        return l;
    case ROW_RATE:
        memcpy(&real, field, sizeof real);
        return human_rate(real);
    case ROW_SECONDS:
        memcpy(&real, field, sizeof real);
        return human_seconds(real > 0 ? real : -1);
    case ROW_SPEED:
        memcpy(&real, field, sizeof real);
        if (real > 0)
            snprintf(l.text, sizeof l.text, "%.3g", real);
        else
            snprintf(l.text, sizeof l.text, "unknown");
        return l;
    case ROW_SHARE:
        memcpy(&real, field, sizeof real);
        snprintf(l.text, sizeof l.text, "%.3g %%", 100 * real);
        return l;
    }
    return l;
}

static void print_rows(const row *list, size_t n_rows, const column *c, size_t n)
{
    for (size_t r = 0; r < n_rows; r++) {
        printf("%-20s", list[r].name);
        for (size_t i = 0; i < n; i++) printf("  %12s", cell(&list[r], &c[i]).text);
        printf("\n");
    }
}

static void print_table(const work *w, const column *c, size_t n)
{
    const lamina_model_info *m = &w->model;
    const lamina_plan_info *last = &c[n - 1].info;
    printf("%s: %s, %u layers, %s parameters, %s of weights%s\n\n", m->path, m->family, m->n_layers,
           human_count((double)m->n_parameters).text, human_bytes(m->weight_bytes).text,
           m->has_weights ? "" : " (a configuration only)");
    print_rows(rows, sizeof rows / sizeof *rows, c, n);
    if (last->experts) {
        printf("\n%s of the weights are %u experts, of which a token uses %u\n\n", human_bytes(last->expert_bytes).text,
               last->experts, last->experts_per_token);
        print_rows(expert_rows, sizeof expert_rows / sizeof *expert_rows, c, n);
    }
    if (n == 1 && c->info.budget_chosen) printf("\nThe budget is what is free here less a margin; --memory sets it.\n");
    for (size_t i = 0; i < n; i++)
        if (c[i].status != LAMINA_OK) {
            printf("\nA budget of %s is too small: %s\n", human_bytes(c[i].asked).text, c[i].err.text);
            break;
        }
    if (!(c[n - 1].info.device_bytes_per_s > 0))
        printf("\nThe device's speed is not known here; --disk RATE predicts with one.\n");
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static void json_set_column(json_t *object, const column *c)
{
    if (c->status == LAMINA_OK) {
        json_set_plan(object, &c->info);
        return;
    }
    json_set_bytes(object, "budget_bytes", c->asked);
    json_set_bytes(object, "minimum_bytes", c->info.minimum_bytes);
    json_set_text(object, "error", c->err.text);
}

static json_t *json_plans(const column *c, size_t n)
{
    json_t *plans = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *object = json_object();
        json_set_column(object, &c[i]);
        json_array_append_new(plans, object);
    }
    return plans;
}

/* here: the plan at the top of the object, or NULL; its budgets stand under "plans" unless it is the only one. */
static int print_json(const work *w, const column *here, const column *c, size_t n)
{
    const lamina_model_info *m = &w->model;
    json_t *object = json_object();
    json_set_text(object, "model", m->path);
    json_set_text(object, "family", m->family);
    json_set_bytes(object, "layers", m->n_layers);
    json_set_bytes(object, "parameters", m->n_parameters);
    json_object_set_new(object, "has_weights", json_boolean(m->has_weights));
    json_set_bytes(object, "weight_bytes", m->weight_bytes);
    if (here) json_set_column(object, here);
    if (n) json_object_set_new(object, "plans", json_plans(c, n));
    return json_print(object);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int plan_given(const work *w, column *c)
{
    const size_list *memories = &w->options->memories;
    bool any = false;
    double disk = (double)w->options->disk;
    for (size_t i = 0; i < memories->n; i++) {
        if (!ask(w, memories->data[i], disk, &c[i])) return fail_error(&c[i].err);
        if (c[i].info.device_bytes_per_s > 0) disk = c[i].info.device_bytes_per_s; /* one measurement serves all */
        any = any || c[i].status == LAMINA_OK;
    }
    bool one = memories->n == 1;
    int code = EXIT_DONE;
    if (w->options->json)
        code = print_json(w, one ? c : NULL, c, one ? 0 : memories->n);
    else if (any)
        print_table(w, c, memories->n);
    if (!any) return fail_error(&c[0].err);
    return code == EXIT_DONE && !w->options->json ? finish_stdout() : code;
}

static int plan_ladder(const work *w, column *c)
{
    column here;
    int code = EXIT_DONE;
    if (!ask(w, 0, (double)w->options->disk, &here)) return fail_error(&here.err);
    size_t n = ladder(w, here.info.device_bytes_per_s, c, &code);
    if (!n) return code;
    if (w->options->json) return print_json(w, &here, c, n);
    print_table(w, c, n);
    if (here.status == LAMINA_OK)
        printf("\nHere, without --memory: %s, what is free less a margin; %s read per pass, %s per token.\n",
               human_bytes(here.info.budget_bytes).text, human_bytes(here.info.streamed_bytes_per_pass).text,
               human_seconds(here.info.seconds_per_token > 0 ? here.info.seconds_per_token : -1).text);
    else
        printf("\nHere, without --memory: %s\n", here.err.text);
    return finish_stdout();
}

int plan_command(const options *o)
{
    work w;
    column c[COLUMNS];
    int code = work_open(&w, o, 0);
    if (code == EXIT_DONE) code = o->memories.n ? plan_given(&w, c) : plan_ladder(&w, c);
    work_close(&w);
    return code;
}
