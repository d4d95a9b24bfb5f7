/* Every family and every dialect against what a reference implementation (transformers, float32) answers for the same
 * weights: the prompt in one go, then step by step. tools/golden.py and tools/smollm2_golden.py make the answers.
 *
 * Tolerances, as parts of the largest logit. Both sides compute in float32 but sum in different orders, which leaves
 * up to 2e-6 in the tiny models (measured; two or three layers, widths to 160). 5e-6 is above that and below the
 * smallest mistake that was tried: an epsilon of the norms wrong by a factor of ten makes 1e-5, a base of rope off by a
 * tenth 4e-2, a window off by one 6e-1. Thirty layers of a real model are allowed more; its perplexity guards the
 * rest. */
#include <math.h>
#include <stdint.h>

#include "base/os.h"
#include "golden.h"
#include "lamina.h"
#include "test.h"

static const double tiny_tolerance = 5e-6, real_tolerance = 1e-4;

typedef struct answer {
    lamina_engine *engine;
    lamina_session *session;
    size_t vocab, rows, capacity;
    float *logits; /* [capacity, vocab] */
} answer;

static bool keep_row(void *user, size_t index, const float *logits)
{
    answer *a = user;
    (void)index;
    if (a->rows >= a->capacity) return false;
    memcpy(a->logits + a->rows++ * a->vocab, logits, a->vocab * sizeof(float));
    return true;
}

static void finish(answer *a)
{
    lamina_session_close(a->session);
    lamina_close(a->engine);
    free(a->logits);
    *a = (answer){0};
}

/* Opens path with a session of `context` tokens and room for as many rows of logits. */
static bool begin(answer *a, const char *path, uint32_t context, bool tokenizer, size_t vocab)
{
    lamina_error err = {0};
    lamina_options o = {.threads = 2, .no_tokenizer = !tokenizer};
    lamina_budget b = {.memory = UINT64_C(8) << 30, .context = context};
    lamina_model_info info;
    *a = (answer){.vocab = vocab, .capacity = context};
    CHECK(lamina_open(path, &o, &a->engine, &err) == LAMINA_OK, "%s", err.text);
    if (!a->engine) return false;
    lamina_model(a->engine, &info);
    CHECK(info.vocab == vocab, "%s: vocabulary of %u, expected %zu", path, (unsigned)info.vocab, vocab);
    if (info.vocab != vocab) return false;
    lamina_status s = lamina_start(a->engine, &b, NULL, &err);
    if (s == LAMINA_OK) s = lamina_session_open(a->engine, context, &a->session, &err);
    CHECK(s == LAMINA_OK, "%s: %s", path, err.text);
    a->logits = malloc(a->capacity * vocab * sizeof(float));
    return s == LAMINA_OK && a->logits;
}

static bool feed(answer *a, const int32_t *ids, size_t n)
{
    lamina_error err = {0};
    size_t before = a->rows;
    lamina_status s = lamina_feed(a->session, ids, n, 0, keep_row, a, &err);
    CHECK(s == LAMINA_OK, "%s", err.text);
    CHECK(s != LAMINA_OK || a->rows - before == n, "%zu rows of logits for %zu tokens", a->rows - before, n);
    return s == LAMINA_OK && a->rows - before == n;
}

static size_t best(const float *x, size_t n)
{
    size_t at = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

static double largest(const float *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, fabs((double)x[i]));
    return most;
}

/* Largest difference; infinite when anything is not finite. */
static double apart(const float *x, const float *y, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (!isfinite(d)) return INFINITY;
        most = fmax(most, d);
    }
    return most;
}

static void compare(const char *name, const answer *a, const golden *g)
{
    size_t n = (size_t)g->prompt + g->steps, worst = 0;
    double scale = largest(g->logits, n * g->vocab), most = 0;
    for (size_t i = 0; i < n; i++) {
        const float *ours = a->logits + i * a->vocab, *theirs = g->logits + i * a->vocab;
        double d = apart(ours, theirs, a->vocab) / scale;
        if (d > most) {
            most = d;
            worst = i;
        }
        CHECK(best(ours, a->vocab) == best(theirs, a->vocab), "%s: position %zu: argmax %zu, expected %zu", name, i,
              best(ours, a->vocab), best(theirs, a->vocab));
    }
    printf("  %-20s %.2e of the largest logit apart (allowed %.0e), most at position %zu\n", name, most, tiny_tolerance,
           worst);
    CHECK(most <= tiny_tolerance, "%s: %.3e apart", name, most);
}

static size_t models_seen;

static lamina_status one_model(void *user, const char *name, lamina_error *err)
{
    char folder[768], path[800], golden_path[800];
    (void)user, (void)err;
    snprintf(folder, sizeof folder, "%s/golden/%.100s", TEST_DATA, name);
    if (!os_is_dir(folder)) return LAMINA_OK;
    snprintf(golden_path, sizeof golden_path, "%s/golden.bin", folder);
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    if (!os_exists(path)) snprintf(path, sizeof path, "%s", folder);
    golden g;
    answer a = {0};
    const char *wrong = golden_read(golden_path, &g);
    CHECK(!wrong, "%s %s", golden_path, wrong ? wrong : "");
    if (wrong) return LAMINA_OK;
    bool ok = begin(&a, path, g.context, false, g.vocab) && feed(&a, g.ids, g.prompt);
    for (uint32_t i = 0; ok && i < g.steps; i++) ok = feed(&a, g.ids + g.prompt + i, 1);
    if (ok) compare(name, &a, &g);
    models_seen += ok;
    finish(&a);
    golden_free(&g);
    return LAMINA_OK;
}

static void tiny_models_match_transformers(void)
{
    lamina_error err = {0};
    REQUIRE(os_list_dir(TEST_DATA "/golden", one_model, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(models_seen >= 100, "only %zu models were compared", models_seen);
}

/* ---- a real model ------------------------------------------------------------------------------------------------ */

typedef struct top_golden { /* tools/smollm2_golden.py describes the file */
    unsigned char *data;
    uint32_t n, keep, vocab;
    float largest;
    const unsigned char *ids, *best, *logits, *nll; /* i32 [n], i32 [n, keep], f32 [n, keep], f64 [n - 1] */
} top_golden;

static bool top_golden_read(const char *path, top_golden *g)
{
    enum { MAGIC = 8, HEADER = MAGIC + 4 * 4, MOST = 1 << 20 };
    size_t bytes = 0;
    *g = (top_golden){.data = golden_bytes(path, &bytes)};
    if (!g->data || bytes < HEADER || memcmp(g->data, "LAMTOP01", MAGIC) != 0) return false;
    void *const fields[] = {&g->n, &g->keep, &g->vocab, &g->largest};
    for (size_t i = 0; i < 4; i++) memcpy(fields[i], g->data + MAGIC + 4 * i, 4);
    if (g->n < 2 || g->n > MOST || !g->keep || g->keep > 64 || !g->vocab) return false;
    size_t kept = (size_t)g->n * g->keep;
    g->ids = g->data + HEADER;
    g->best = g->ids + 4 * (size_t)g->n;
    g->logits = g->best + 4 * kept;
    g->nll = g->logits + 4 * kept;
    return bytes == HEADER + 4 * (size_t)g->n + 8 * kept + 8 * ((size_t)g->n - 1);
}

static double surprise(const float *logits, size_t n, int32_t token)
{
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, (double)logits[i]);
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - most);
    return most + log(sum) - (double)logits[token];
}

/* Our ids of the text must be those of the reference's tokenizer. */
static bool same_ids(const answer *a, const top_golden *g, int32_t *ids)
{
    lamina_error err = {0};
    size_t bytes = 0, n = 0;
    unsigned char *text = golden_bytes(TEST_DATA "/text/gettysburg.txt", &bytes);
    CHECK(text, "%s/text/gettysburg.txt cannot be read", TEST_DATA);
    if (!text) return false;
    lamina_status s = lamina_tokenize(a->engine, (const char *)text, bytes, LAMINA_NO_SPECIAL, ids, g->n, &n, &err);
    free(text);
    CHECK(s == LAMINA_OK && n == g->n, "%zu ids, expected %u %s", n, (unsigned)g->n, err.text);
    bool same = s == LAMINA_OK && n == g->n && memcmp(ids, g->ids, 4 * n) == 0;
    CHECK(same, "the ids of the text are not the reference's");
    return same;
}

static void compare_top(const answer *a, const top_golden *g, const int32_t *ids)
{
    const double ppl_tolerance = 1e-5;
    double most = 0, ours = 0, theirs = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        const float *row = a->logits + (size_t)i * a->vocab;
        for (uint32_t k = 0; k < g->keep; k++) {
            size_t at = (size_t)i * g->keep + k;
            int32_t id;
            float logit;
            memcpy(&id, g->best + 4 * at, 4);
            memcpy(&logit, g->logits + 4 * at, 4);
            if (id < 0 || (size_t)id >= a->vocab) {
                CHECK(false, "golden.bin: id %d", (int)id);
                return;
            }
            most = fmax(most, apart(row + id, &logit, 1) / (double)g->largest);
            CHECK(k || best(row, a->vocab) == (size_t)id, "position %u: argmax %zu, expected %d", (unsigned)i,
                  best(row, a->vocab), (int)id);
        }
        if (i + 1 == g->n) break;
        double nll;
        memcpy(&nll, g->nll + 8 * (size_t)i, 8);
        theirs += nll;
        ours += surprise(row, a->vocab, ids[i + 1]);
    }
    ours = exp(ours / (g->n - 1));
    theirs = exp(theirs / (g->n - 1));
    double off = fabs(ours / theirs - 1);
    printf("  largest %u logits at %u positions: %.2e of the largest apart (allowed %.0e)\n", (unsigned)g->keep,
           (unsigned)g->n, most, real_tolerance);
    printf("  perplexity %.6f, expected %.6f: %.1e off (allowed %.0e)\n", ours, theirs, off, ppl_tolerance);
    CHECK(most <= real_tolerance, "%.3e apart", most);
    CHECK(off <= ppl_tolerance, "%.3e off", off);
}

static void smollm2_matches_transformers(void)
{
    if (!os_exists(TEST_SMOLLM2)) SKIP("%s is not there; make demo fetches it", TEST_SMOLLM2);
    top_golden g;
    answer a = {0};
    bool whole = top_golden_read(TEST_DATA "/smollm2/golden.bin", &g);
    int32_t *ids = whole ? malloc(4 * (size_t)g.n) : NULL;
    CHECK(whole, "%s/smollm2/golden.bin cannot be read, or is not of the size its counts say", TEST_DATA);
    if (ids && begin(&a, TEST_SMOLLM2, g.n, true, g.vocab) && same_ids(&a, &g, ids) && feed(&a, ids, g.n))
        compare_top(&a, &g, ids);
    finish(&a);
    free(ids);
    free(g.data);
}

TEST_MAIN(T(tiny_models_match_transformers), T(smollm2_matches_transformers))
