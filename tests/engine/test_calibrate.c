/* What calibrating sees, against what transformers applies each matrix to (tools/golden_moments.py); the same bits
 * however rows come together; a text in windows; what cannot be done is said.
 *
 * Tolerance, as a part of the largest column of a matrix: inputs agree to 2e-6 of their largest (see test_golden.c), so
 * their squares to 4e-6 and, being means, not more: 1e-5 leaves room, and a wrong norm or a row too few makes 1e-2. */
#include <math.h>

#include "engine/calibrate.h"
#include "golden.h"
#include "test.h"

static const double tolerance = 1e-5;

static lamina_engine *open_engine(const char *name, uint32_t threads)
{
    char path[512];
    lamina_engine *e = NULL;
    lamina_error err = {0};
    lamina_options o = {.threads = threads, .no_tokenizer = true};
    snprintf(path, sizeof path, "%s/golden/%s", TEST_DATA, name);
    CHECK(lamina_open(path, &o, &e, &err) == LAMINA_OK, "%s", err.text);
    return e;
}

static float **see(lamina_engine *e, const calibration_tokens *t, uint32_t rows)
{
    lamina_error err = {0};
    float **out = calloc(e->ckpt->n_tensors, sizeof *out);
    calibration_run run = {.e = e, .memory = UINT64_C(4) << 30, .rows = rows};
    if (!out) abort();
    CHECK(calibrate_tokens(&run, t, out, &err) == LAMINA_OK, "%s", err.text);
    return out;
}

static void forget(lamina_engine *e, float **out)
{
    for (size_t i = 0; i < e->ckpt->n_tensors; i++) mem_free(e->m, out[i]);
    free(out);
}

static size_t index_of(const lamina_engine *e, const char *name, size_t n)
{
    for (size_t i = 0; i < e->ckpt->n_tensors; i++)
        if (strlen(e->ckpt->tensors[i].name) == n && !memcmp(e->ckpt->tensors[i].name, name, n)) return i;
    return SIZE_MAX;
}

static uint32_t take_u32(const unsigned char **at)
{
    uint32_t v;
    memcpy(&v, *at, 4);
    *at += 4;
    return v;
}

static void compare(const char *name, const lamina_engine *e, float *const *out)
{
    char path[512];
    size_t bytes = 0, others = 0;
    snprintf(path, sizeof path, "%s/golden/%s/moments.bin", TEST_DATA, name);
    unsigned char *data = golden_bytes(path, &bytes);
    REQUIRE(data && bytes > 12 && !memcmp(data, "LAMMOM01", 8), "%s", path);
    const unsigned char *at = data + 8;
    uint32_t n = take_u32(&at);
    double worst = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = take_u32(&at);
        size_t index = index_of(e, (const char *)at, length);
        CHECK(index != SIZE_MAX && out[index], "%s: nothing was seen of %.*s", name, (int)length, (const char *)at);
        at += length;
        uint32_t columns = take_u32(&at);
        double most = 0, apart = 0;
        for (uint32_t c = 0; c < columns && index != SIZE_MAX && out[index]; c++) {
            float theirs;
            memcpy(&theirs, at + 4 * c, 4);
            most = fmax(most, (double)theirs);
            apart = fmax(apart, fabs((double)theirs - (double)out[index][c]));
        }
        at += 4 * (size_t)columns;
        CHECK(apart <= tolerance * most, "%s: %g of the largest", name, apart / most);
        if (apart > worst * most) worst = apart / most;
    }
    for (size_t i = 0; i < e->ckpt->n_tensors; i++) {
        const char *t = e->ckpt->tensors[i].name;
        bool looked_up = strstr(t, "embed_tokens") && !e->model->tied_head, expert = strstr(t, ".experts.") != NULL;
        if (e->ckpt->tensors[i].n_dims == 2 && !looked_up && !expert) others++;
        if (!expert || strstr(t, "down_proj")) continue;
        char router[64];
        snprintf(router, sizeof router, "%.15smlp.gate.weight", t); /* of "model.layers.0." */
        size_t r = index_of(e, router, strlen(router));
        REQUIRE(r != SIZE_MAX && out[r] && out[i], "%s", t);
        CHECK(!memcmp(out[i], out[r], (size_t)e->ckpt->tensors[i].shape[1] * sizeof(float)), "%s: not its router's", t);
    }
    printf("  %s: %u matrices, worst %.2g of the largest (allowed %.2g)\n", name, n, worst, tolerance);
    CHECK(n >= others, "%u of %zu", n, others);
    free(data);
}

static const char *const names[] = {"llama-bf16", "cohere", "qwen3-moe"};
enum { NAMES = sizeof names / sizeof *names };

static bool read_ids(const char *name, golden *g)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/golden.bin", TEST_DATA, name);
    const char *wrong = golden_read(path, g);
    CHECK(!wrong, "%s %s", path, wrong);
    return !wrong;
}

static void sees_what_transformers_sees(void)
{
    for (int i = 0; i < NAMES; i++) {
        golden g;
        lamina_engine *e = open_engine(names[i], 2);
        REQUIRE(e && read_ids(names[i], &g), "%s", names[i]);
        calibration_tokens t = {.id = g.ids, .n = (size_t)g.prompt + g.steps};
        float **out = see(e, &t, 0);
        compare(names[i], e, out);
        CHECK(!e->started && !e->moments, "the engine is not as it was");
        forget(e, out);
        lamina_close(e);
        golden_free(&g);
    }
}

static void same_bits(const char *name, const float *const *a, const float *const *b, const lamina_engine *e)
{
    for (size_t i = 0; i < e->ckpt->n_tensors; i++) {
        const tensor *t = &e->ckpt->tensors[i];
        CHECK(!a[i] == !b[i], "%s: %s", name, t->name);
        if (a[i] && b[i])
            CHECK(!memcmp(a[i], b[i], (size_t)t->shape[t->n_dims - 1] * sizeof(float)), "%s: %s", name, t->name);
    }
}

static void rows_and_threads_change_nothing(void)
{
    static const uint32_t rows[] = {1, 3, 0}, threads[] = {1, 2, 3};
    for (int i = 0; i < NAMES; i++) {
        golden g;
        float **first = NULL;
        lamina_engine *of_first = NULL;
        REQUIRE(read_ids(names[i], &g), "%s", names[i]);
        calibration_tokens t = {.id = g.ids, .n = (size_t)g.prompt + g.steps};
        for (int k = 0; k < 3; k++) {
            lamina_engine *e = open_engine(names[i], threads[k]);
            REQUIRE(e != NULL, "%s", names[i]);
            float **out = see(e, &t, rows[k]);
            if (!first) {
                first = out;
                of_first = e;
                continue;
            }
            same_bits(names[i], (const float *const *)first, (const float *const *)out, e);
            forget(e, out);
            lamina_close(e);
        }
        forget(of_first, first);
        lamina_close(of_first);
        golden_free(&g);
    }
}

/* Windows are texts of their own: what two windows show is the mean of what each shows alone. llama-bf16 has 256
 * positions, so its windows are of 256. */
static void windows_are_texts(void)
{
    enum { WINDOW = 256, ALL = 2 * WINDOW - 1 };
    static int32_t ids[ALL], second[WINDOW];
    lamina_engine *e = open_engine("llama-bf16", 2);
    REQUIRE(e != NULL, "llama-bf16");
    REQUIRE(e->model->max_context == WINDOW, "%u", e->model->max_context);
    for (int i = 0; i < ALL; i++) ids[i] = 3 + i * 7 % 60;
    memcpy(second + 1, ids + WINDOW, (WINDOW - 1) * sizeof *ids);
    second[0] = ids[0];
    float **both = see(e, &(calibration_tokens){.id = ids, .n = ALL, .opens = true}, 0);
    float **one = see(e, &(calibration_tokens){.id = ids, .n = WINDOW, .opens = true}, 0);
    float **two = see(e, &(calibration_tokens){.id = second, .n = WINDOW, .opens = true}, 0);
    for (size_t i = 0; i < e->ckpt->n_tensors; i++) {
        const tensor *t = &e->ckpt->tensors[i];
        for (uint64_t c = 0; both[i] && c < t->shape[t->n_dims - 1]; c++) {
            double mean = ((double)one[i][c] + (double)two[i][c]) / 2;
            CHECK(fabs((double)both[i][c] - mean) <= 1e-6 * mean, "%s: column %llu: %g, expected %g", t->name,
                  (unsigned long long)c, (double)both[i][c], mean);
        }
    }
    forget(e, both);
    forget(e, one);
    forget(e, two);
    lamina_close(e);
}

static void refuses(void)
{
    lamina_error err = {0};
    lamina_engine *e = open_engine("llama-bf16", 1);
    REQUIRE(e != NULL, "llama-bf16");
    float **out = calloc(e->ckpt->n_tensors, sizeof *out);
    int32_t id = 3;
    calibration_run run = {.e = e, .text = "a", .bytes = 1, .memory = UINT64_C(4) << 30};
    CHECK(calibrate_tokens(&run, &(calibration_tokens){.id = &id, .n = 1}, out, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "2 tokens"),
          "%s", err.text);
    CHECK(calibrate(&run, out, &err) == LAMINA_E_UNSUPPORTED && strstr(err.text, "tokenizer"), "%s", err.text);
    int32_t wrong[2] = {3, 1 << 20};
    CHECK(calibrate_tokens(&run, &(calibration_tokens){.id = wrong, .n = 2}, out, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "vocabulary"),
          "%s", err.text);
    run.memory = 1 << 20;
    CHECK(calibrate_tokens(&run, &(calibration_tokens){.id = wrong, .n = 2}, out, &err) == LAMINA_E_BUDGET, "%s",
          err.text);
    CHECK(!e->started && !e->moments, "the engine is not as it was");
    REQUIRE(lamina_start(e, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    CHECK(calibrate_tokens(&run, &(calibration_tokens){.id = wrong, .n = 2}, out, &err) == LAMINA_E_USAGE &&
              strstr(err.text, "started"),
          "%s", err.text);
    free(out);
    lamina_close(e);
}

TEST_MAIN(T(sees_what_transformers_sees), T(rows_and_threads_change_nothing), T(windows_are_texts), T(refuses))
