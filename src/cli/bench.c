/* Owns: `lamina bench`: the device's ceiling, the stream's rate, and every term of a pass.
 *
 * Promises: what is compared is measured alternately in one run, since devices wander; medians are shown. The first
 * token of each round is not timed, so that what the ring read ahead while idle does not flatter the stream, nor is
 * what a mixture does until its memory for experts is full. The terms are
 * those of docs/how-it-works.md: T = max(bytes / device, 2 N n / F, traffic / RAM), each from this machine's own
 * measurements. Tokens are random (a fixed generator, --seed), so that any model will do, with a tokenizer or
 * without. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 1000 };

typedef struct rounds {
    double value[MAX_ROUNDS];
    size_t n;
} rounds;

typedef struct bench {
    work w;
    uint64_t random;
    rounds device, decode, stream, efficiency, prefill; /* bytes/s, tokens/s, bytes/s, 1, tokens/s */
    timing t;                                           /* of the timed tokens of all rounds */
    lamina_stats decoding;                              /* sums over the timed tokens */
    double ram, fma;                                    /* bytes/s, operations/s */
    double layer_parameters, head_parameters;
    double prompt_expert_bytes; /* read during the prompts of all rounds */
    uint64_t matrix_bytes;      /* what kernels read for a token */
} bench;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* -1 of none. */
static double median(rounds *r)
{
    if (!r->n) return -1;
    qsort(r->value, r->n, sizeof *r->value, compare);
    return r->n % 2 ? r->value[r->n / 2] : (r->value[r->n / 2 - 1] + r->value[r->n / 2]) / 2;
}

static void note(rounds *r, double value)
{
    if (r->n < MAX_ROUNDS && isfinite(value)) r->value[r->n++] = value;
}

/* splitmix64 (Steele, Lea, Flood 2014), bounded by multiplication. */
static int32_t random_token(bench *b)
{
    uint64_t z = b->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (int32_t)(((z >> 32) * b->w.model.vocab) >> 32);
}

/* Parameters and bytes of the matrices that a token is multiplied with: of experts those it uses. Of an embedding only
 * a row is read, unless it is the head as well. */
static void count_matrices(bench *b)
{
    double embed = 0;
    uint64_t embed_bytes = 0;
    for (size_t i = 0; i < b->w.model.n_tensors; i++) {
        lamina_tensor_info t;
        if (lamina_tensor(b->w.engine, i, &t) != LAMINA_OK || t.n_dims < 2 || !*t.role) continue;
        bool routed = !strncmp(t.role, "expert_", 7) && b->w.plan.experts;
        double n = 1, used = routed ? (double)b->w.plan.experts_per_token / b->w.plan.experts : 1;
        for (uint32_t d = 0; d < t.n_dims && d < 4; d++) n *= (double)t.shape[d];
        bool is_embed = !strcmp(t.role, "embed"), is_head = !strcmp(t.role, "head");
        if (is_embed)
            embed = n, embed_bytes = t.bytes;
        else
            b->matrix_bytes += (uint64_t)(used * (double)t.bytes);
        if (is_head)
            b->head_parameters = n;
        else if (!is_embed)
            b->layer_parameters += used * n;
    }
    if (b->head_parameters > 0) return;
    b->head_parameters = embed;
    b->matrix_bytes += embed_bytes;
}

/* ---- measurements ------------------------------------------------------------------------------------------------ */

static int measure(bench *b, lamina_measure_kind kind, double *value)
{
    lamina_error err;
    if (lamina_measure(b->w.engine, kind, b->w.options->seconds, value, &err) == LAMINA_OK) return EXIT_DONE;
    return fail_error(&err);
}

static int feed_random(bench *b, uint32_t n)
{
    lamina_error err;
    lamina_status status = LAMINA_OK;
    int32_t *ids = malloc(n * sizeof *ids);
    if (!ids) return fail("out of memory");
    for (uint32_t i = 0; i < n; i++) ids[i] = random_token(b);
    if (lamina_session_length(b->w.session) + n > b->w.plan.context)
        status = lamina_session_rewind(b->w.session, 0, &err);
    if (status == LAMINA_OK) status = lamina_feed(b->w.session, ids, n, 0, NULL, NULL, &err);
    free(ids);
    return status == LAMINA_OK ? EXIT_DONE : fail_error(&err);
}

/* Streamed by every pass, whatever is routed. */
static double dense_bytes(const bench *b)
{
    return (double)(b->w.plan.streamed_bytes_per_pass - b->w.plan.expert_read_bytes_per_pass);
}

/* Streamed for a decoded token. */
static double streamed_bytes(const bench *b)
{
    double tokens = (double)b->t.decode_tokens;
    return dense_bytes(b) + (tokens > 0 ? (double)b->decoding.expert_bytes_read / tokens : 0);
}

/* One untimed token; of a mixture more, until the memory for experts is full: what comes then is the rate that
 * lasts. */
static int warm_up(bench *b)
{
    enum { SECONDS = 60 /* at most */ };
    const uint64_t pool = b->w.plan.expert_pool_bytes;
    double begin = now_seconds();
    lamina_stats s;
    int code = EXIT_DONE;
    do {
        code = feed_random(b, 1);
        lamina_get_stats(b->w.engine, &s);
    } while (code == EXIT_DONE && s.expert_bytes_read < pool && s.experts_resident < b->w.plan.experts &&
             now_seconds() - begin < SECONDS);
    return code;
}

/* Untimed tokens, then timed ones until the time is up. */
static int decode_round(bench *b)
{
    lamina_error err;
    lamina_stats before, after;
    if (lamina_session_rewind(b->w.session, 0, &err) != LAMINA_OK) return fail_error(&err);
    int code = warm_up(b);
    if (code != EXIT_DONE) return code;
    uint64_t tokens = 0;
    lamina_get_stats(b->w.engine, &before);
    double begin = now_seconds(), seconds = 0;
    while (code == EXIT_DONE && (seconds < b->w.options->seconds || tokens < 2)) {
        code = feed_random(b, 1);
        tokens++;
        seconds = now_seconds() - begin;
    }
    if (code != EXIT_DONE) return code;
    lamina_get_stats(b->w.engine, &after);
    b->t.decode_tokens += tokens;
    b->t.decode_seconds += seconds;
    b->decoding.bytes_read += after.bytes_read - before.bytes_read;
    b->decoding.seconds += after.seconds - before.seconds;
    b->decoding.stall_seconds += after.stall_seconds - before.stall_seconds;
    b->decoding.compute_seconds += after.compute_seconds - before.compute_seconds;
    b->decoding.passes += after.passes - before.passes;
    uint64_t experts = after.expert_bytes_read - before.expert_bytes_read;
    b->decoding.expert_bytes_read += experts;
    b->decoding.expert_missed_bytes += after.expert_missed_bytes - before.expert_missed_bytes;
    b->decoding.experts_wanted += after.experts_wanted - before.experts_wanted;
    b->decoding.expert_hits += after.expert_hits - before.expert_hits;
    b->decoding.experts_resident = after.experts_resident;
    note(&b->decode, (double)tokens / seconds);
    /* What was used, not what was asked for: the same tokens' worth of streamed bytes, whatever the ring holds. */
    note(&b->stream, ((double)tokens * dense_bytes(b) + (double)experts) / seconds);
    return EXIT_DONE;
}

static int prefill_round(bench *b)
{
    lamina_error err;
    uint32_t n = b->w.options->prompt_tokens;
    if (!n) return EXIT_DONE;
    if (lamina_session_rewind(b->w.session, 0, &err) != LAMINA_OK) return fail_error(&err);
    lamina_stats before, after;
    lamina_get_stats(b->w.engine, &before);
    double begin = now_seconds();
    int code = feed_random(b, n);
    double seconds = now_seconds() - begin;
    lamina_get_stats(b->w.engine, &after);
    b->prompt_expert_bytes += (double)(after.expert_bytes_read - before.expert_bytes_read);
    if (code != EXIT_DONE) return code;
    b->t.prompt_tokens += n;
    b->t.prefill_seconds += seconds;
    note(&b->prefill, (double)n / seconds);
    return EXIT_DONE;
}

/* device, decode, device, decode, ..., device: each decode is held against the mean of its neighbours. */
static int all_rounds(bench *b)
{
    double before = 0, after = 0;
    bool streams = b->w.plan.streamed_bytes_per_pass > 0;
    int code = streams ? measure(b, LAMINA_MEASURE_DISK, &before) : EXIT_DONE;
    if (streams && code == EXIT_DONE) note(&b->device, before);
    for (uint32_t r = 0; code == EXIT_DONE && r < b->w.options->rounds && r < MAX_ROUNDS - 1; r++) {
        b->w.progress.what = "round";
        b->w.progress.done = r;
        b->w.progress.total = b->w.options->rounds;
        code = decode_round(b);
        if (code == EXIT_DONE && streams) code = measure(b, LAMINA_MEASURE_DISK, &after);
        if (code == EXIT_DONE && streams) {
            note(&b->device, after);
            note(&b->efficiency, b->stream.value[b->stream.n - 1] / ((before + after) / 2));
            before = after;
        }
        if (code == EXIT_DONE) code = prefill_round(b);
    }
    if (code == EXIT_DONE) code = measure(b, LAMINA_MEASURE_RAM, &b->ram);
    if (code == EXIT_DONE) code = measure(b, LAMINA_MEASURE_FMA, &b->fma);
    progress_clear(&b->w.progress);
    return code;
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

typedef struct terms {
    double disk, arithmetic, traffic; /* seconds a token; -1 where nothing is known */
    double token;                     /* seconds, measured */
    const char *binding;
    double device, decode, prefill, efficiency;
    double prompt_disk, prompt_arithmetic, prompt; /* seconds of the prompt; -1: none */
} terms;

static terms make_terms(bench *b)
{
    double streamed = streamed_bytes(b), n = b->w.options->prompt_tokens;
    terms t = {.device = median(&b->device),
               .decode = median(&b->decode),
               .prefill = median(&b->prefill),
               .efficiency = median(&b->efficiency),
               .prompt = -1};
    t.token = 1 / t.decode;
    t.disk = t.device > 0 ? streamed / t.device : 0;
    t.arithmetic = 2 * (b->layer_parameters + b->head_parameters) / b->fma;
    t.traffic = b->ram > 0 ? ((double)b->matrix_bytes + streamed) / b->ram
                           : -1; /* the device writes what the kernels then read */
    t.binding = t.disk >= t.arithmetic && t.disk >= t.traffic ? "disk"
                : t.traffic >= t.arithmetic                   ? "memory"
                                                              : "arithmetic";
    if (n < 1) return t;
    double passes = ceil(n / (double)(b->w.plan.rows ? b->w.plan.rows : 1));
    t.prompt = n / t.prefill;
    double prompt_bytes = dense_bytes(b) * passes + b->prompt_expert_bytes / (double)b->prefill.n;
    t.prompt_disk = t.device > 0 ? prompt_bytes / t.device : 0;
    t.prompt_arithmetic = 2 * (b->layer_parameters * n + b->head_parameters * passes) / b->fma;
    return t;
}

static int report_json(const bench *b, const terms *t, lamina_stats *all)
{
    json_t *object = json_object(), *parts = json_object();
    timing none = {0};
    json_set_text(object, "model", b->w.options->operands[0]);
    json_set_stats(object, &b->w, all, &none);
    json_set_real(object, "decode_tokens_per_s", t->decode);
    json_set_real(object, "prefill_tokens_per_s", t->prefill);
    json_set_bytes(object, "prompt_tokens", b->w.options->prompt_tokens);
    json_set_real(object, "prefill_seconds", b->t.prefill_seconds);
    json_set_real(object, "decode_seconds", b->t.decode_seconds);
    json_set_bytes(object, "decode_tokens", b->t.decode_tokens);
    json_set_bytes(object, "bytes_read", b->decoding.bytes_read);
    json_set_real(object, "seconds", b->decoding.seconds);
    json_set_real(object, "stall_seconds", b->decoding.stall_seconds);
    json_set_real(object, "compute_seconds", b->decoding.compute_seconds);
    json_set_bytes(object, "passes", b->decoding.passes);
    if (b->w.plan.experts) json_set_experts(object, &b->decoding);
    json_set_real(object, "device_bytes_per_s", t->device);
    json_set_real(object, "stream_efficiency", t->efficiency);
    json_set_real(object, "ram_bytes_per_s", b->ram);
    json_set_real(object, "flops_per_s", b->fma);
    json_set_bytes(object, "rounds", b->decode.n);
    json_set_bytes(object, "rows", b->w.plan.rows);
    json_set_bytes(object, "active_bytes_per_token", b->w.plan.active_bytes_per_token);
    json_set_real(parts, "disk", t->disk);
    json_set_real(parts, "arithmetic", t->arithmetic);
    json_set_real(parts, "memory", t->traffic);
    json_set_real(parts, "measured", t->token);
    json_set_text(parts, "binding", t->binding);
    json_object_set_new(object, "token_seconds", parts);
    if (t->prompt > 0) {
        json_t *prompt = json_object();
        json_set_real(prompt, "disk", t->prompt_disk);
        json_set_real(prompt, "arithmetic", t->prompt_arithmetic);
        json_set_real(prompt, "measured", t->prompt);
        json_object_set_new(object, "prompt_seconds", prompt);
        json_set_real(object, "prefill_over_flops", t->prompt_arithmetic / t->prompt);
    }
    return json_print(object);
}

static void print_term(const char *name, double seconds, const char *binding, const char *what)
{
    printf("  %-11s %12s  %s%s\n", name, human_seconds(seconds).text, what, !strcmp(name, binding) ? "  <- binds" : "");
}

static int report_text(const bench *b, const terms *t, const lamina_stats *all)
{
    char what[160];
    printf("device      %s (its own ceiling, nothing computed)\n",
           t->device > 0 ? human_rate(t->device).text : "not needed: all is resident");
    printf("memory      %s, arithmetic %sFLOP/s, %u thread%s, %s\n", human_rate(b->ram).text, human_count(b->fma).text,
           all->threads, all->threads == 1 ? "" : "s", all->isa);
    printf("decode      %.4g tokens/s, median of %zu rounds, %llu tokens\n", t->decode, b->decode.n,
           (unsigned long long)b->t.decode_tokens);
    if (t->efficiency > 0)
        printf("stream      %.3f of the device's ceiling (%s, depth %u, chunks of %s)\n", t->efficiency, all->io,
               all->io_depth, human_bytes(all->chunk_bytes).text);
    if (b->w.plan.experts) {
        printf("experts     ");
        print_experts(stdout, &b->w, &b->decoding);
    }
    double inside = b->decoding.seconds > 0 ? b->decoding.seconds : 1;
    printf("waiting     %.1f %% of the time for the disk, %.1f %% computing\n",
           100 * b->decoding.stall_seconds / inside, 100 * b->decoding.compute_seconds / inside);
    printf("a token\n");
    snprintf(what, sizeof what, "%s streamed / device", human_bytes((uint64_t)streamed_bytes(b)).text);
    print_term("disk", t->disk, t->binding, what);
    snprintf(what, sizeof what, "2 x %s parameters / FLOP/s",
             human_count(b->layer_parameters + b->head_parameters).text);
    print_term("arithmetic", t->arithmetic, t->binding, what);
    snprintf(what, sizeof what, "%s read and %s written / memory", human_bytes(b->matrix_bytes).text,
             human_bytes((uint64_t)streamed_bytes(b)).text);
    print_term("memory", t->traffic, t->binding, what);
    print_term("measured", t->token, "", "");
    if (t->prompt > 0) {
        double larger = t->prompt_disk > t->prompt_arithmetic ? t->prompt_disk : t->prompt_arithmetic;
        printf("a prompt of %u tokens, %u rows a pass\n", b->w.options->prompt_tokens, b->w.plan.rows);
        print_term("disk", t->prompt_disk, t->prompt_disk >= larger ? "disk" : "", "");
        print_term("arithmetic", t->prompt_arithmetic, t->prompt_arithmetic >= larger ? "arithmetic" : "", "");
        snprintf(what, sizeof what, "%.4g tokens/s, %.2f times the larger term", t->prefill, t->prompt / larger);
        print_term("measured", t->prompt, "", what);
    }
    printf("peak        %s of %s (%.3f; predicted %s)\n", human_bytes(all->peak_rss_bytes).text,
           human_bytes(all->budget_bytes).text, (double)all->peak_rss_bytes / (double)all->budget_bytes,
           human_bytes(all->predicted_peak_bytes).text);
    return finish_stdout();
}

int bench_command(const options *o)
{
    bench *b = calloc(1, sizeof *b);
    if (!b) return fail("out of memory");
    int code = work_open(&b->w, o, WORK_NO_TOKENIZER);
    if (code == EXIT_DONE) {
        b->random = o->seed;
        uint32_t context = o->prompt_tokens > 128 ? o->prompt_tokens : 128;
        code = work_start(&b->w, context, 1);
        if (code == EXIT_DONE && b->w.plan.context < o->prompt_tokens)
            code = fail_usage("--context: expected at least the %u tokens of --prompt-tokens, found %u",
                              o->prompt_tokens, b->w.plan.context);
    }
    if (code == EXIT_DONE) {
        count_matrices(b);
        code = all_rounds(b);
    }
    if (code == EXIT_DONE) {
        lamina_stats all;
        terms t = make_terms(b);
        lamina_get_stats(b->w.engine, &all);
        code = o->json ? report_json(b, &t, &all) : report_text(b, &t, &all);
    }
    work_close(&b->w);
    free(b);
    return code;
}
