/* Placement and company never change the answer: the logits of every golden model, bit for bit, over the whole product
 * of rows per pass, threads, residency, readers, instruction sets and form on disk, against one row at a time on one
 * thread with the scalar specification; and of a session alone against the same among others. */
#include <stdint.h>
#include <unistd.h>

#include "base/os.h"
#include "lamina.h"
#include "test.h"

enum { PROMPT = 19, STEPS = 4, TOTAL = PROMPT + STEPS, MODELS = 256 };

typedef struct setting {
    const char *path;
    uint32_t rows, threads;
    uint64_t pin;
    lamina_io io;
    lamina_isa isa;
    lamina_kv kv;
} setting;

typedef struct collected {
    float *logits; /* [TOTAL, vocab] */
    size_t vocab;
} collected;

static bool collect(void *user, size_t index, const float *logits)
{
    collected *c = user;
    memcpy(c->logits + index * c->vocab, logits, c->vocab * sizeof(float));
    return true;
}

static int32_t token_at(size_t i, size_t vocab)
{
    return (int32_t)((i * 2654435761u + 12345) % vocab);
}

/* Logits of a fixed text: a prompt in passes of `rows`, then steps of one token. NULL on failure, which is reported. */
static float *logits_of(const setting *s, size_t *vocab)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_session *session = NULL;
    lamina_options o = {.threads = s->threads, .io = s->io, .isa = s->isa, .no_tokenizer = true};
    lamina_budget b = {.memory = UINT64_C(1) << 33,
                       .context = TOTAL + 1,
                       .rows = s->rows,
                       .logit_rows = 3,
                       .chunk = 4096,
                       .ring = 65536,
                       .pin_limit = s->pin,
                       .kv = s->kv};
    collected c = {0};
    lamina_model_info info;
    if (lamina_open(s->path, &o, &e, &err)) goto failed;
    lamina_model(e, &info);
    *vocab = c.vocab = info.vocab;
    c.logits = calloc(TOTAL * c.vocab, sizeof(float));
    if (!c.logits || lamina_start(e, &b, NULL, &err) || lamina_session_open(e, 0, &session, &err)) goto failed;
    int32_t ids[TOTAL];
    for (size_t i = 0; i < TOTAL; i++) ids[i] = token_at(i, c.vocab);
    if (lamina_feed(session, ids, PROMPT, 0, collect, &c, &err)) goto failed;
    for (size_t i = PROMPT; i < TOTAL; i++) {
        if (lamina_feed(session, ids + i, 1, 1, NULL, NULL, &err)) goto failed;
        collect(&c, i, lamina_session_logits(session));
    }
    lamina_session_close(session);
    lamina_close(e);
    return c.logits;
failed:
    CHECK(false, "%s", err.text);
    free(c.logits);
    lamina_session_close(session);
    lamina_close(e);
    return NULL;
}

typedef struct models {
    char path[MODELS][512];
    size_t n;
} models;

static lamina_status note_model(void *user, const char *name, lamina_error *err)
{
    models *m = user;
    (void)err;
    if (m->n == MODELS) return LAMINA_OK;
    char folder[400], *path = m->path[m->n];
    snprintf(folder, sizeof folder, "%.200s/golden/%.150s", TEST_DATA, name);
    if (os_is_dir(folder)) { /* a folder, or a folder that holds a GGUF file */
        snprintf(path, sizeof m->path[0], "%s/model.gguf", folder);
        if (!os_exists(path)) snprintf(path, sizeof m->path[0], "%s", folder);
        m->n++;
    }
    return LAMINA_OK;
}

static models find_models(void)
{
    static models m;
    m.n = 0;
    char folder[512];
    snprintf(folder, sizeof folder, "%s/golden", TEST_DATA);
    lamina_error err = {0};
    if (os_list_dir(folder, note_model, &m, &err)) CHECK(false, "%s", err.text);
    return m;
}

/* Packs a model into a fresh folder under the temporary directory. */
static bool pack(const char *from, char *to, size_t bytes)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    snprintf(to, bytes, "/tmp/lamina-exact-XXXXXX");
    if (!mkdtemp(to)) return false;
    bool ok = lamina_open(from, &(lamina_options){.no_tokenizer = true}, &e, &err) == LAMINA_OK &&
              lamina_pack(e, to, NULL, NULL, &err) == LAMINA_OK;
    lamina_close(e);
    CHECK(ok, "%s", err.text);
    return ok;
}

static void remove_tree(const char *path)
{
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    if (system(command)) printf("  %s stays\n", path);
}

static int compare(const setting *s, const float *reference)
{
    size_t vocab = 0;
    float *got = logits_of(s, &vocab);
    if (!got) return 1;
    int wrong = memcmp(got, reference, TOTAL * vocab * sizeof(float)) != 0;
    CHECK(!wrong, "%s rows %u threads %u pin %llu io %d isa %d kv %d differ", s->path, s->rows, s->threads,
          (unsigned long long)s->pin, s->io, s->isa, s->kv);
    free(got);
    return wrong;
}

/* Two models meet every setting; the others a sample that still has every value of every factor. */
enum { SETTINGS = 2 * 3 * 3 * 3 * 3 * 3 };
#if defined(TEST_SANITIZED) || defined(TEST_EMULATED)
enum { SAMPLE = 61, WHOLE = 23 };
#else
enum { SAMPLE = 23, WHOLE = 1 };
#endif

static int stride_of(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    return strcmp(name, "llama-bf16") == 0 || strcmp(name, "qwen3-window") == 0 ? WHOLE : SAMPLE;
}

/* The product for one model; stops at the first difference. Returns how many settings were compared. */
static int product(const char *const paths[2], int stride)
{
    static const uint32_t rows[] = {1, 7, 64}, threads[] = {1, 2, 3};
    static const uint64_t pins[] = {1, 40960, 0};
    static const lamina_io ios[] = {LAMINA_IO_AUTO, LAMINA_IO_PREAD, LAMINA_IO_BUFFERED};
    static const lamina_isa isas[] = {LAMINA_ISA_SCALAR, LAMINA_ISA_AVX2, LAMINA_ISA_BEST};
    setting first = {
        .path = paths[0], .rows = 1, .threads = 1, .pin = 1, .io = LAMINA_IO_PREAD, .isa = LAMINA_ISA_SCALAR};
    size_t vocab = 0;
    float *reference = logits_of(&first, &vocab);
    if (!reference) return 0;
    int n = 0;
    for (int i = 0; i < SETTINGS; i += stride) {
        int k = i / 2;
        setting s = {.path = paths[i % 2],
                     .rows = rows[k % 3],
                     .threads = threads[k / 3 % 3],
                     .pin = pins[k / 9 % 3],
                     .io = ios[k / 27 % 3],
                     .isa = isas[k / 81 % 3]};
        if (compare(&s, reference)) break;
        n++;
    }
    free(reference);
    return n;
}

static void placement_never_changes_the_answer(void)
{
    models m = find_models();
    REQUIRE(m.n > 0, "no golden models under %s", TEST_DATA);
    for (size_t i = 0; i < m.n; i++) {
        char store[64];
        if (!pack(m.path[i], store, sizeof store)) continue;
        const char *paths[2] = {m.path[i], store};
        int stride = stride_of(m.path[i]), n = product(paths, stride);
        CHECK(n == (SETTINGS + stride - 1) / stride, "%s", m.path[i]);
        printf("  %s: %d settings, every logit the same bits\n", strrchr(m.path[i], '/') + 1, n);
        remove_tree(store);
    }
}

/* With an f16 cache the bits differ from f32, but not among placements. */
static void half_kv_is_as_steady(void)
{
    models m = find_models();
    REQUIRE(m.n > 0, "no golden models");
    setting first = {.path = m.path[0], .rows = 1, .threads = 1, .isa = LAMINA_ISA_SCALAR, .kv = LAMINA_KV_F16};
    size_t vocab = 0;
    float *reference = logits_of(&first, &vocab);
    REQUIRE(reference, "no reference");
    setting others[] = {{.path = m.path[0], .rows = 7, .threads = 3, .kv = LAMINA_KV_F16},
                        {.path = m.path[0], .rows = 64, .threads = 2, .isa = LAMINA_ISA_AVX2, .kv = LAMINA_KV_F16}};
    for (size_t i = 0; i < 2; i++) compare(&others[i], reference);
    free(reference);
}

/* Three sessions in shared passes, of different lengths and beginnings, against each alone. */
static void company(const char *path)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_model_info info;
    lamina_session *s[3] = {0}, *alone = NULL;
    lamina_budget b = {.memory = UINT64_C(1) << 33, .context = 32, .sessions = 4, .rows = 40, .chunk = 4096};
    REQUIRE(!lamina_open(path, &(lamina_options){.no_tokenizer = true, .threads = 2}, &e, &err), "%s", err.text);
    lamina_model(e, &info);
    REQUIRE(!lamina_start(e, &b, NULL, &err), "%s", err.text);
    for (int i = 0; i < 3; i++) REQUIRE(!lamina_session_open(e, 0, &s[i], &err), "%s", err.text);
    REQUIRE(!lamina_session_open(e, 0, &alone, &err), "%s", err.text);
    lamina_row rows[40];
    for (int round = 0; round < 5; round++) { /* session i gets round + i + 1 rows, interleaved by turns */
        size_t n = 0;
        size_t at[3] = {lamina_session_length(s[0]), lamina_session_length(s[1]), lamina_session_length(s[2])};
        for (int turn = 0; turn < 3; turn++)
            for (int i = 0; i < 3; i++)
                if (turn <= (round + i) % 3)
                    rows[n++] =
                        (lamina_row){s[i], token_at(at[i]++ + (size_t)i * 100, info.vocab), turn == (round + i) % 3};
        REQUIRE(!lamina_pass(e, rows, n, NULL, NULL, &err), "%s", err.text);
    }
    for (int i = 0; i < 3; i++) {
        REQUIRE(!lamina_session_rewind(alone, 0, &err), "%s", err.text);
        size_t n = lamina_session_length(s[i]);
        for (size_t k = 0; k < n; k++) {
            int32_t id = token_at(k + (size_t)i * 100, info.vocab);
            REQUIRE(!lamina_feed(alone, &id, 1, 1, NULL, NULL, &err), "%s", err.text);
        }
        CHECK(!memcmp(lamina_session_logits(alone), lamina_session_logits(s[i]), info.vocab * sizeof(float)),
              "%s: session %d of %zu tokens differs from the same alone", path, i, n);
    }
    for (int i = 0; i < 3; i++) lamina_session_close(s[i]);
    lamina_session_close(alone);
    lamina_close(e);
}

static void company_never_changes_the_answer(void)
{
    models m = find_models();
    REQUIRE(m.n > 0, "no golden models");
    for (size_t i = 0; i < m.n; i++) company(m.path[i]);
}

TEST_MAIN(T(placement_never_changes_the_answer), T(half_kv_is_as_steady), T(company_never_changes_the_answer))
