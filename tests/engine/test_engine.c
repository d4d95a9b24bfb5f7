/* How an engine behaves when things go wrong, and when much is asked of it: failing reads and allocations, budgets too
 * small, cancellation, rewinding, two engines at once, a thousand mixed operations. */
#include <math.h>
#include <stdint.h>
#include <unistd.h>

#include "base/os.h"
#include "engine/engine.h"
#include "test.h"

static char model_path[512];

static lamina_status first_folder(void *user, const char *name, lamina_error *err)
{
    (void)user, (void)err;
    char config[600], path[512];
    snprintf(path, sizeof path, "%s/golden/%.200s", TEST_DATA, name);
    snprintf(config, sizeof config, "%s/config.json", path);
    if (!model_path[0] && os_exists(config)) memcpy(model_path, path, sizeof path);
    return LAMINA_OK;
}

static const char *a_model(void)
{
    if (!model_path[0]) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/golden", TEST_DATA);
        (void)os_list_dir(folder, first_folder, NULL, NULL);
    }
    return model_path;
}

static const lamina_budget small = {
    .memory = UINT64_C(1) << 33, .context = 64, .rows = 8, .chunk = 4096, .ring = 32768, .pin_limit = 1};
static const int32_t prompt[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8};
enum { PROMPT = sizeof prompt / sizeof *prompt };

typedef struct run {
    lamina_status status;
    lamina_error err;
    float *logits;
    size_t vocab;
    uint64_t allocations, held;
} run;

/* Opens, feeds the prompt, keeps the logits. retry: after a failure of feeding, once more on the same engine. */
static run run_once(lamina_faults faults, bool retry)
{
    run r = {0};
    lamina_engine *e = NULL;
    lamina_session *s = NULL;
    lamina_options o = {.threads = 2, .no_tokenizer = true, .faults = faults};
    r.status = lamina_open(a_model(), &o, &e, &r.err);
    if (r.status == LAMINA_OK) r.status = lamina_start(e, &small, NULL, &r.err);
    if (r.status == LAMINA_OK) r.status = lamina_session_open(e, 0, &s, &r.err);
    if (r.status == LAMINA_OK) {
        r.status = lamina_feed(s, prompt, PROMPT, PROMPT, NULL, NULL, &r.err);
        if (r.status != LAMINA_OK && retry) {
            size_t have = lamina_session_length(s);
            r.status = lamina_feed(s, prompt + have, PROMPT - have, PROMPT, NULL, NULL, &r.err);
        }
    }
    if (r.status == LAMINA_OK) {
        r.vocab = e->model->vocab;
        r.logits = malloc(r.vocab * sizeof(float));
        if (r.logits) memcpy(r.logits, lamina_session_logits(s), r.vocab * sizeof(float));
    }
    if (e) r.allocations = memory_count(e->m);
    lamina_session_close(s);
    lamina_close(e);
    return r;
}

static void every_failing_read_is_reported_and_survived(void)
{
    run clean = run_once((lamina_faults){0}, false);
    REQUIRE(clean.status == LAMINA_OK, "%s", clean.err.text);
    int failed = 0;
    for (uint64_t n = 1; n <= 200; n++) {
        run plain = run_once((lamina_faults){.fail_read = n}, false);
        run again = run_once((lamina_faults){.fail_read = n}, true);
        if (plain.status != LAMINA_OK) {
            failed++;
            CHECK(plain.status == LAMINA_E_IO, "status %d", plain.status);
            CHECK(strstr(plain.err.text, ".safetensors") && strstr(plain.err.text, "offset"), "text: %s",
                  plain.err.text);
        }
        CHECK(again.status == LAMINA_OK, "read %d: %s", (int)n, again.err.text);
        CHECK(!again.logits || !memcmp(again.logits, clean.logits, clean.vocab * sizeof(float)), "read %d", (int)n);
        free(plain.logits);
        free(again.logits);
    }
    CHECK(failed > 10, "only %d reads failed: the fault is not injected", failed);
    free(clean.logits);
}

static void every_failing_allocation_is_a_clean_error(void)
{
    run clean = run_once((lamina_faults){0}, false);
    REQUIRE(clean.status == LAMINA_OK, "%s", clean.err.text);
    for (uint64_t n = 1; n <= clean.allocations; n++) {
        run r = run_once((lamina_faults){.fail_alloc = n}, false);
        bool spared =
            r.logits && !memcmp(r.logits, clean.logits, clean.vocab * sizeof(float)); /* it could do without */
        CHECK(r.status == LAMINA_E_MEMORY || spared, "allocation %d of %d: status %d %s", (int)n,
              (int)clean.allocations, r.status, r.err.text);
        free(r.logits);
    }
    free(clean.logits);
}

static void slow_and_short_reads_change_nothing(void)
{
    run clean = run_once((lamina_faults){0}, false);
    run slow = run_once((lamina_faults){.read_delay_us = 300, .short_read_every = 2}, false);
    REQUIRE(clean.status == LAMINA_OK && slow.status == LAMINA_OK, "%s %s", clean.err.text, slow.err.text);
    CHECK(!memcmp(clean.logits, slow.logits, clean.vocab * sizeof(float)), "logits differ");
    free(clean.logits);
    free(slow.logits);
}

static void a_budget_too_small_is_refused_with_the_least(void)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_plan_info p;
    REQUIRE(!lamina_open(a_model(), &(lamina_options){.no_tokenizer = true}, &e, &err), "%s", err.text);
    lamina_status s = lamina_start(e, &(lamina_budget){.memory = 1 << 20}, &p, &err);
    CHECK(s == LAMINA_E_BUDGET, "%d %s", s, err.text);
    CHECK(p.minimum_bytes > 1 << 20, "%llu", (unsigned long long)p.minimum_bytes);
    CHECK(strstr(err.text, "1.0 MiB") && strstr(err.text, "at least"), "%s", err.text);
    s = lamina_start(e, &(lamina_budget){.memory = p.minimum_bytes + (1 << 20)}, &p, &err);
    CHECK(s == LAMINA_OK, "%s", err.text);
    s = lamina_start(e, NULL, &p, &err);
    CHECK(s == LAMINA_E_USAGE, "a second start: %d", s);
    lamina_close(e);
}

static bool stop_at_layer_one(void *user, const lamina_progress *p)
{
    int *calls = user;
    return !(p->done == 1 && (*calls)++ == 0);
}

static void cancelling_leaves_the_session_as_it_was(void)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_session *s = NULL;
    int calls = 0;
    lamina_options o = {.no_tokenizer = true, .progress = stop_at_layer_one, .progress_user = &calls};
    REQUIRE(!lamina_open(a_model(), &o, &e, &err) && !lamina_start(e, &small, NULL, &err) &&
                !lamina_session_open(e, 0, &s, &err),
            "%s", err.text);
    lamina_status status = lamina_feed(s, prompt, 4, 4, NULL, NULL, &err);
    CHECK(status == LAMINA_E_CANCELLED && lamina_session_length(s) == 0, "%d, %zu tokens", status,
          lamina_session_length(s));
    CHECK(lamina_session_logits(s) == NULL, "logits of a failed pass");
    lamina_cancel(e);
    status = lamina_feed(s, prompt, 4, 4, NULL, NULL, &err);
    CHECK(status == LAMINA_E_CANCELLED, "%d", status);
    status = lamina_feed(s, prompt, 4, 4, NULL, NULL, &err);
    CHECK(status == LAMINA_OK && lamina_session_length(s) == 4, "%s", err.text);
    lamina_session_close(s);
    lamina_close(e);
}

/* Wrong use, said in these words. */
#define MISUSE(call, words)                                                                                            \
    do {                                                                                                               \
        err = (lamina_error){0};                                                                                       \
        CHECK((call) == LAMINA_E_USAGE && strstr(err.text, words), "expected \"%s\", found \"%s\"", words, err.text);  \
    } while (0)

static void wrong_use_is_an_error(void)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_session *s = NULL, *second = NULL;
    int32_t bad[] = {-1, 1 << 24}, many[17] = {0}, token;
    lamina_row row = {0}, rows[64] = {{0}};
    uint64_t bytes;
    double rate;
    MISUSE(lamina_open(NULL, NULL, &e, &err), "no path to a model was given");
    MISUSE(lamina_open("", NULL, &e, &err), "no path to a model was given");
    MISUSE(lamina_pack_resume("/nowhere/at/all", NULL, NULL, NULL, NULL, &err), "is not an interrupted store");
    REQUIRE(!lamina_open(a_model(), &(lamina_options){.no_tokenizer = true}, &e, &err), "%s", err.text);
    MISUSE(lamina_session_open(e, 0, &s, &err), "lamina_start() comes before sessions");
    MISUSE(lamina_pass(e, &row, 1, NULL, NULL, &err), "not started");
    MISUSE(lamina_measure(e, LAMINA_MEASURE_DISK, 0.1, &rate, &err), "measuring the disk needs a started engine");
    MISUSE(lamina_measure(e, (lamina_measure_kind)77, 0.1, &rate, &err), "unknown kind of measurement 77");
    MISUSE(lamina_measure(e, LAMINA_MEASURE_FMA, 0, &rate, &err), "0 seconds: expected 0 to 3600");
    MISUSE(lamina_verify(e, &bytes, &err), "is not a store; only stores carry checksums");
    MISUSE(lamina_pack(e, "", NULL, NULL, &err), "no path for the store was given");
    REQUIRE(!lamina_start(e, &small, NULL, &err) && !lamina_session_open(e, 16, &s, &err), "%s", err.text);
    MISUSE(lamina_start(e, &small, NULL, &err), "already started");
    MISUSE(lamina_session_open(e, 1 << 20, &second, &err), "a session's context of 1048576 tokens: the plan holds");
    CHECK(lamina_session_open(e, 0, &second, &err) == LAMINA_E_BUDGET, "%s", err.text);
    MISUSE(lamina_pass(e, &row, 0, NULL, NULL, &err), "a pass of 0 rows: the plan allows 1 to");
    MISUSE(lamina_pass(e, rows, 64, NULL, NULL, &err), "a pass of 64 rows: the plan allows 1 to");
    MISUSE(lamina_pass(e, &row, 1, NULL, NULL, &err), "row 0 has no session of this engine");
    MISUSE(lamina_feed(s, bad, 1, 1, NULL, NULL, &err), "-1");
    MISUSE(lamina_feed(s, bad + 1, 1, 1, NULL, NULL, &err), "16777216");
    MISUSE(lamina_feed(s, many, 17, 17, NULL, NULL, &err), "17 tokens do not fit: the session holds 0 of its context");
    MISUSE(lamina_sample(s, &(lamina_sampling){0}, &token, &err), "the session has no logits: feed it first");
    MISUSE(lamina_session_rewind(s, 1, &err), "rewinding to 1 tokens: the session holds 0");
    CHECK(lamina_feed(s, many, 16, 16, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    MISUSE(lamina_sample(s, &(lamina_sampling){.top_p = 2}, &token, &err), "top-p 2: expected 0 to 1");
    size_t n;
    CHECK(lamina_tokenize(e, "a", 1, 0, NULL, 0, &n, &err) != LAMINA_OK, "there is no tokenizer");
    lamina_session_close(s);
    lamina_close(e);
    CHECK(lamina_open("/nowhere/at/all", NULL, &e, &err) != LAMINA_OK && strstr(err.text, "/nowhere/at/all"), "%s",
          err.text);
    CHECK(e == NULL, "an engine of a failed opening");
}

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Two engines, sessions opened, fed, rewound, sampled and closed in a random order: what a session computes stays what
 * it was, and the account returns to where it began. */
static void a_thousand_mixed_operations(void)
{
    lamina_error err = {0};
    lamina_engine *e[2] = {0};
    lamina_session *s[2][3] = {{0}};
    uint64_t before[2];
    uint32_t seed = 7;
    lamina_budget b = small;
    b.sessions = 3;
    for (int i = 0; i < 2; i++) {
        lamina_options o = {
            .no_tokenizer = true, .threads = (uint32_t)i + 1, .io = i ? LAMINA_IO_PREAD : LAMINA_IO_AUTO};
        REQUIRE(!lamina_open(a_model(), &o, &e[i], &err) && !lamina_start(e[i], &b, NULL, &err), "%s", err.text);
        before[i] = memory_used(e[i]->m);
    }
    run clean = run_once((lamina_faults){0}, false);
    for (int k = 0; k < 1000; k++) {
        uint32_t i = random_next(&seed) % 2, j = random_next(&seed) % 3, what = random_next(&seed) % 8;
        lamina_session **at = &s[i][j];
        int32_t token;
        if (!*at)
            REQUIRE(!lamina_session_open(e[i], 0, at, &err), "%s", err.text);
        else if (what == 0)
            lamina_session_close(*at), *at = NULL;
        else if (what == 1)
            (void)lamina_session_rewind(*at, random_next(&seed) % (lamina_session_length(*at) + 1), &err);
        else if (what == 2 && lamina_session_logits(*at))
            REQUIRE(!lamina_sample(*at, &(lamina_sampling){.temperature = 1, .top_k = 5, .seed = seed}, &token, &err),
                    "%s", err.text);
        else if (what == 3) {
            REQUIRE(!lamina_session_rewind(*at, 0, &err) && !lamina_feed(*at, prompt, PROMPT, PROMPT, NULL, NULL, &err),
                    "%s", err.text);
            CHECK(!memcmp(lamina_session_logits(*at), clean.logits, clean.vocab * sizeof(float)), "operation %d", k);
        } else if (lamina_session_length(*at) < 60)
            REQUIRE(!lamina_feed(*at, prompt, 1 + random_next(&seed) % 4, PROMPT, NULL, NULL, &err), "%s", err.text);
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 3; j++) lamina_session_close(s[i][j]);
        CHECK(memory_used(e[i]->m) == before[i], "%lld bytes more than before",
              (long long)(memory_used(e[i]->m) - before[i]));
        lamina_close(e[i]);
    }
    free(clean.logits);
}

/* The sampler on logits put into a session, against frequencies worked out here in double. */
static void sampling_follows_the_distribution(void)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_session *s = NULL;
    REQUIRE(!lamina_open(a_model(), &(lamina_options){.no_tokenizer = true}, &e, &err) &&
                !lamina_start(e, &small, NULL, &err) && !lamina_session_open(e, 0, &s, &err),
            "%s", err.text);
    uint32_t vocab = e->model->vocab;
    for (uint32_t i = 0; i < vocab; i++) s->logits[i] = -50;
    static const float logits[] = {1.0f, 3.0f, 2.0f, 2.5f, -1.0f};
    memcpy(s->logits, logits, sizeof logits);
    s->has_logits = true;
    struct {
        lamina_sampling o;
        int kept[5];
    } cases[] = {
        {{.temperature = 1}, {1, 1, 1, 1, 1}},
        {{.temperature = 0.7f, .top_k = 3}, {0, 1, 1, 1, 0}},
        {{.temperature = 1, .top_p = 0.7f}, {0, 1, 0, 1, 0}}, /* shares 0.477, 0.289: two reach 0.7 */
        {{.temperature = 1, .min_p = 0.3f}, {0, 1, 1, 1, 0}}, /* exp(-1) = 0.368 */
        {{.temperature = 0}, {0, 1, 0, 0, 0}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        enum { DRAWS = 20000 };
        double share[5], sum = 0;
        int seen[5] = {0};
        for (int i = 0; i < 5; i++) {
            double t = cases[c].o.temperature > 0 ? (double)cases[c].o.temperature : 1;
            sum += share[i] = cases[c].kept[i] ? exp((double)logits[i] / t) : 0;
        }
        for (int i = 0; i < DRAWS; i++) {
            int32_t token = -1;
            cases[c].o.seed = (uint64_t)i;
            REQUIRE(!lamina_sample(s, &cases[c].o, &token, &err), "%s", err.text);
            REQUIRE(token >= 0 && token < 5 && cases[c].kept[token], "case %zu chose %d", c, token);
            seen[token]++;
        }
        for (int i = 0; i < 5; i++) { /* five standard deviations of a binomial count */
            double p = share[i] / sum, tolerance = 5 * sqrt(p * (1 - p) / DRAWS) + 1e-9, got = (double)seen[i] / DRAWS;
            CHECK(fabs(got - p) <= tolerance, "case %zu token %d: %g, expected %g within %g", c, i, got, p, tolerance);
        }
    }
    int32_t token;
    s->tokens[s->length++] = 1; /* a penalty of 2 halves the best logit: 1.5 is below 2.5 */
    REQUIRE(!lamina_sample(s, &(lamina_sampling){.repetition_penalty = 2}, &token, &err), "%s", err.text);
    CHECK(token == 3, "%d", token);
    s->logits[2] = NAN;
    CHECK(lamina_sample(s, &(lamina_sampling){0}, &token, &err) == LAMINA_E_FORMAT, "%s", err.text);
    s->length = 0;
    lamina_session_close(s);
    lamina_close(e);
}

TEST_MAIN(T(every_failing_read_is_reported_and_survived), T(every_failing_allocation_is_a_clean_error),
          T(slow_and_short_reads_change_nothing), T(a_budget_too_small_is_refused_with_the_least),
          T(cancelling_leaves_the_session_as_it_was), T(wrong_use_is_an_error), T(a_thousand_mixed_operations),
          T(sampling_follows_the_distribution))
