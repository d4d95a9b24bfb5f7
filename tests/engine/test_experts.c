/* Mixtures of experts under every kind of budget: the pool, what is in it and what is read ahead change no bit; what is
 * planned is taken; the statistics add up; a failed read is an error once. */
#include <stdint.h>
#include <unistd.h>

#include "lamina.h"
#include "test.h"

static const char *const mixtures[] = {"mixtral",     "olmoe",           "qwen2-moe",     "qwen3-moe", "deepseek-v2",
                                       "deepseek-v3", "deepseek-v3-fp8", "gpt-oss-mxfp4", "glm4-moe"};
enum { MIXTURES = sizeof mixtures / sizeof *mixtures, CONTEXT = 24, ROUNDS = 3, MOST_LOGITS = 1 << 16 };

typedef struct answer {
    size_t n;
    float logits[MOST_LOGITS];
} answer;

static bool keep(void *user, size_t index, const float *logits)
{
    (void)index, (void)logits;
    ++*(size_t *)user;
    return true;
}

/* A prompt, then single tokens, ROUNDS times over; the logits of the last row of each call. */
static lamina_status run(lamina_engine *e, answer *a, lamina_error *err)
{
    lamina_model_info info;
    lamina_session *s = NULL;
    lamina_status status = lamina_session_open(e, CONTEXT, &s, err);
    lamina_model(e, &info);
    a->n = 0;
    for (int round = 0; round < ROUNDS && status == LAMINA_OK; round++) {
        int32_t ids[12];
        size_t told = 0;
        for (int i = 0; i < 12; i++) ids[i] = (int32_t)((uint32_t)(7 * i + 13 * round) % info.vocab);
        status = lamina_session_rewind(s, 0, err);
        for (size_t at = 0, n = 8; at < 12 && status == LAMINA_OK; at += n, n = 1) {
            status = lamina_feed(s, ids + at, n, 0, keep, &told, err);
            if (status != LAMINA_OK || a->n + info.vocab > MOST_LOGITS) break;
            memcpy(a->logits + a->n, lamina_session_logits(s), info.vocab * sizeof(float));
            a->n += info.vocab;
        }
    }
    lamina_session_close(s);
    return status;
}

static lamina_engine *start(const char *name, const lamina_options *o, const lamina_budget *b, bool ask,
                            lamina_plan_info *plan)
{
    char path[512];
    lamina_error err = {0};
    lamina_engine *e = NULL;
    snprintf(path, sizeof path, TEST_DATA "/golden/%s", name);
    CHECK(lamina_open(path, o, &e, &err) == LAMINA_OK, "%s", err.text);
    if (!e) return NULL;
    lamina_plan_info asked = {0};
    if (ask) CHECK(lamina_plan(e, b, &asked, &err) == LAMINA_OK, "%s: %s", name, err.text);
    CHECK(lamina_start(e, b, plan, &err) == LAMINA_OK, "%s: %s", name, err.text);
    CHECK(asked.expert_pool_bytes <= plan->expert_pool_bytes + (1 << 20), "%s: planned otherwise than taken", name);
    return e;
}

static void check_stats(const char *name, lamina_engine *e, const lamina_plan_info *p)
{
    lamina_stats s;
    lamina_get_stats(e, &s);
    CHECK(s.experts_wanted > 0 && s.expert_hits <= s.experts_wanted && s.experts_resident <= p->experts, "%s", name);
    CHECK(s.expert_bytes_read <= s.bytes_read && s.expert_missed_bytes <= s.expert_bytes_read, "%s", name);
    CHECK(p->expert_bytes > 0 && p->experts_per_token <= p->experts && p->experts_resident <= p->experts, "%s", name);
    CHECK(p->expert_hit_rate >= 0 && p->expert_hit_rate <= 1, "%s: %g", name, p->expert_hit_rate);
    CHECK(p->expert_read_bytes_per_pass <= p->streamed_bytes_per_pass, "%s", name);
}

static void any_pool_same_bits(void)
{
    static answer first, again;
    for (size_t i = 0; i < MIXTURES; i++) {
        for (int kind = 0; kind < 6; kind++) {
            lamina_options o = {.threads = 1 + (uint32_t)kind % 2, .no_tokenizer = true};
            lamina_budget b = {.memory = UINT64_C(2) << 30, .context = CONTEXT};
            lamina_plan_info p = {0};
            lamina_error err = {0};
            if (kind > 0) b.chunk = 4096;
            if (kind > 1) b.pin_limit = 1; /* the least pool */
            if (kind == 2) b.rows = 1;
            if (kind == 3) o.io = LAMINA_IO_PREAD;
            if (kind == 4) o.io = LAMINA_IO_BUFFERED, b.rows = 3;
            if (kind == 5) o.faults = (lamina_faults){.short_read_every = 2, .read_delay_us = 20};
            lamina_engine *e = start(mixtures[i], &o, &b, kind == 0, &p);
            if (!e) return;
            answer *a = kind ? &again : &first;
            CHECK(run(e, a, &err) == LAMINA_OK, "%s: %s", mixtures[i], err.text);
            check_stats(mixtures[i], e, &p);
            if (kind == 0) CHECK(p.experts_resident == p.experts && p.expert_read_bytes_per_pass == 0, "not all fits");
            if (kind == 0) { /* all is resident: nothing more is read */
                lamina_stats_reset(e);
                CHECK(run(e, &again, &err) == LAMINA_OK, "%s", err.text);
                lamina_stats s;
                lamina_get_stats(e, &s);
                CHECK(s.expert_hits == s.experts_wanted && s.expert_bytes_read == 0, "%s: read again", mixtures[i]);
            }
            CHECK(again.n == first.n && !memcmp(again.logits, first.logits, first.n * sizeof(float)),
                  "%s, budget %d: other bits", mixtures[i], kind);
            lamina_close(e);
        }
    }
}

static void failing_reads(void)
{
    static answer first, again;
    for (uint64_t n = 1; n < 60; n += 1 + n / 4) {
        lamina_options o = {.threads = 1, .no_tokenizer = true, .faults = {.fail_read = n}};
        lamina_budget b = {.memory = UINT64_C(2) << 30, .context = CONTEXT, .chunk = 4096, .pin_limit = 1};
        lamina_plan_info p = {0};
        lamina_error err = {0};
        char path[512];
        snprintf(path, sizeof path, TEST_DATA "/golden/%s", "qwen3-moe");
        lamina_engine *e = NULL;
        REQUIRE(lamina_open(path, &o, &e, &err) == LAMINA_OK, "%s", err.text);
        lamina_status status = lamina_start(e, &b, &p, &err);
        CHECK(status == LAMINA_OK || status == LAMINA_E_IO, "%s", err.text);
        for (int i = 0; i < 4 && status == LAMINA_OK; i++) { /* the stream's n-th read, and the experts' */
            answer *a = first.n ? &again : &first;
            lamina_status now = run(e, a, &err);
            CHECK(now == LAMINA_OK || now == LAMINA_E_IO, "%s", err.text);
            if (now != LAMINA_OK) a->n = 0;
            if (now == LAMINA_OK && a == &again)
                CHECK(again.n == first.n && !memcmp(again.logits, first.logits, first.n * sizeof(float)), "other bits");
            CHECK(i < 2 || now == LAMINA_OK, "fails for ever: %s", err.text);
        }
        lamina_close(e);
    }
    CHECK(first.n > 0, "never ran");
}

/* More memory never reads more; dense parts are kept before experts; nothing exceeds the budget. */
static void plans(void)
{
    static const char *const configs[] = {"DeepSeek-V3", "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1"};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        char path[512];
        snprintf(path, sizeof path, TEST_SHARED "/configs/%s.json", configs[i]);
        if (access(path, R_OK) != 0) SKIP("no %s", path);
        lamina_error err = {0};
        lamina_engine *e = NULL;
        REQUIRE(lamina_open(path, NULL, &e, &err) == LAMINA_OK, "%s", err.text);
        uint64_t before = UINT64_MAX;
        for (uint64_t memory = UINT64_C(1) << 30; memory <= UINT64_C(1) << 40; memory *= 2) {
            lamina_budget b = {.memory = memory, .context = 512, .rows = 64, .device_bytes_per_s = 2e9};
            lamina_plan_info p;
            REQUIRE(lamina_plan(e, &b, &p, &err) == LAMINA_OK, "%s", err.text);
            CHECK(p.predicted_peak_bytes <= memory, "%s: %llu", configs[i], (unsigned long long)memory);
            CHECK(p.streamed_bytes_per_pass <= before, "%s: more memory, more reading", configs[i]);
            bool dense = p.streamed_bytes_per_pass == p.expert_read_bytes_per_pass;
            CHECK(dense || p.experts_resident * UINT64_C(100) <= p.experts, "%s: experts before dense parts",
                  configs[i]);
            CHECK(p.active_bytes_per_token < p.weight_bytes && p.seconds_per_token > 0, "%s", configs[i]);
            CHECK(p.expert_bytes <= p.weight_bytes, "%s", configs[i]);
            before = p.streamed_bytes_per_pass;
        }
        CHECK(before == 0, "%s: a terabyte holds it", configs[i]);
        lamina_close(e);
    }
}

TEST_MAIN(T(any_pool_same_bits), T(failing_reads), T(plans))
