/* Packed weights compute what the weights compute: every golden model, its f32 made widened bf16 first so that there is
 * something to pack in all of them, against the store that is packed of it, also where that saves nothing: the same
 * logits, bit for bit; and the store unpacked again is the model. */
#include <stdint.h>
#include <unistd.h>

#include "base/os.h"
#include "engine/engine.h"
#include "lamina.h"
#include "store/store.h"
#include "test.h"

enum { PROMPT = 11, STEPS = 2, TOTAL = PROMPT + STEPS };

static size_t models_seen, models_packed, roles_packed[ROLE_COUNT];

static bool shell(const char *format, const char *a, const char *b)
{
    char command[1400];
    snprintf(command, sizeof command, format, a, b);
    return system(command) == 0;
}

/* Clears the low halves of all matrices of f32 in a model's files. */
static bool make_widened(const char *path)
{
    lamina_error err = {0};
    memory *m = memory_new();
    checkpoint *c = NULL;
    bool ok = checkpoint_open(m, path, &c, &err) == LAMINA_OK;
    CHECK(ok, "%s", err.text);
    for (size_t i = 0; ok && i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        if (t->type != DT_F32 || t->n_dims < 2) continue; /* vectors are copied; tables of codes mean themselves */
        FILE *f = fopen(c->files[t->file].path, "r+b");
        unsigned char *data = malloc((size_t)t->bytes + 1);
        ok = f && data && fseek(f, (long)t->offset, SEEK_SET) == 0 && fread(data, 1, t->bytes, f) == t->bytes;
        for (uint64_t j = 0; ok && j < t->bytes; j += 4) data[j] = data[j + 1] = 0;
        ok = ok && fseek(f, (long)t->offset, SEEK_SET) == 0 && fwrite(data, 1, t->bytes, f) == t->bytes;
        free(data);
        if (f && fclose(f)) ok = false;
        CHECK(ok, "%s: %s", path, t->name);
    }
    checkpoint_free(c);
    memory_free(m);
    return ok;
}

static bool pack_as(const char *from, const char *to, const char *dtype_asked)
{
    lamina_error err = {0};
    memory *m = memory_new();
    checkpoint *c = NULL;
    model *mo = NULL;
    tokenizer *tok = NULL;
    lamina_pack_options options = {.dtype = dtype_asked};
    store_job job = {.m = m, .pack_all = true};
    lamina_status s = store_is(from) ? store_open(m, from, false, &c, &tok, &err) : checkpoint_open(m, from, &c, &err);
    if (s == LAMINA_OK) s = model_bind(m, c, NULL, &mo, &err);
    if (s == LAMINA_OK) s = store_pack(mo, NULL, to, &options, NULL, &job, NULL, &err);
    CHECK(s == LAMINA_OK, "%s: %s", from, err.text);
    model_free(mo);
    checkpoint_free(c);
    CHECK(memory_free(m) == 0, "leak");
    return s == LAMINA_OK;
}

/* Notes which roles are packed; how many tensors. */
static size_t note_roles(const lamina_engine *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->ckpt->n_tensors; i++) {
        if (!e->ckpt->tensors[i].row_bytes) continue;
        if (e->model->tensor_roles[i]) roles_packed[e->model->tensor_roles[i] - 1]++;
        n++;
    }
    return n;
}

static bool keep(void *user, size_t index, const float *logits)
{
    float **out = user;
    size_t vocab = (size_t)out[1][0];
    memcpy(out[0] + index * vocab, logits, vocab * sizeof *logits);
    return true;
}

/* [TOTAL, vocab]; free(). NULL on failure, which is reported. */
static float *logits_of(const char *path, uint32_t rows, lamina_isa isa, size_t *vocab, size_t *packed)
{
    lamina_error err = {0};
    lamina_engine *e = NULL;
    lamina_session *session = NULL;
    lamina_model_info info;
    float *logits = NULL;
    lamina_options o = {.threads = 2, .isa = isa, .no_tokenizer = true};
    lamina_budget b = {.memory = UINT64_C(1) << 32,
                       .context = TOTAL + 1,
                       .rows = rows,
                       .chunk = 4096,
                       .ring = 65536,
                       .pin_limit = rows == 1 ? 1 : 0};
    lamina_status s = lamina_open(path, &o, &e, &err);
    if (s == LAMINA_OK) {
        lamina_model(e, &info);
        *vocab = info.vocab;
        *packed = note_roles(e);
        logits = calloc(TOTAL * *vocab, sizeof *logits);
        s = lamina_start(e, &b, NULL, &err);
    }
    if (s == LAMINA_OK) s = lamina_session_open(e, 0, &session, &err);
    int32_t ids[TOTAL];
    float wide = (float)*vocab, *out[2] = {logits, &wide};
    for (size_t i = 0; i < TOTAL; i++) ids[i] = (int32_t)((i * 2654435761u + 99) % *vocab);
    if (s == LAMINA_OK) s = lamina_feed(session, ids, PROMPT, 0, keep, out, &err);
    for (size_t i = PROMPT; s == LAMINA_OK && i < TOTAL; i++) {
        s = lamina_feed(session, ids + i, 1, 1, NULL, NULL, &err);
        if (s == LAMINA_OK) keep(out, i, lamina_session_logits(session));
    }
    CHECK(s == LAMINA_OK, "%s: %s", path, err.text);
    lamina_session_close(session);
    lamina_close(e);
    if (s == LAMINA_OK) return logits;
    free(logits);
    return NULL;
}

static void compare_logits(const char *name, const char *plain, const char *packed)
{
    size_t vocab = 1, n = 0, none;
    float *want = logits_of(plain, 8, LAMINA_ISA_BEST, &vocab, &none);
    for (int way = 0; want && way < 3; way++) { /* many rows, one row, the specification */
        float *got = logits_of(packed, way == 1 ? 1 : 8, way == 2 ? LAMINA_ISA_SCALAR : LAMINA_ISA_BEST, &vocab, &n);
        if (got) CHECK(!memcmp(want, got, TOTAL * vocab * sizeof *got), "%s, way %d: other logits", name, way);
        free(got);
    }
    models_packed += n > 0;
    if (!n) printf("  nothing to pack in %s\n", name);
    free(want);
}

static lamina_status one_model(void *user, const char *name, lamina_error *err)
{
    (void)err;
    const char *scratch = user;
    char from[400], copy[300], packed[300], back[300], plain[300], path[400];
    snprintf(from, sizeof from, "%.200s/golden/%.150s", TEST_DATA, name);
    if (!os_is_dir(from)) return LAMINA_OK;
    snprintf(copy, sizeof copy, "%.100s/model", scratch);
    snprintf(packed, sizeof packed, "%.100s/packed", scratch);
    snprintf(plain, sizeof plain, "%.100s/plain", scratch);
    snprintf(back, sizeof back, "%.100s/back", scratch);
    if (!shell("cp -r '%s' '%s'", from, copy)) return LAMINA_E_IO;
    snprintf(path, sizeof path, "%.280s/model.gguf", copy);
    if (!os_exists(path)) snprintf(path, sizeof path, "%.280s", copy);
    models_seen++;
    if (make_widened(path) && pack_as(path, packed, "packed")) {
        compare_logits(name, path, packed);
        if (pack_as(path, plain, NULL) && pack_as(packed, back, "original"))
            CHECK(shell("diff -rq '%s/layers' '%s/layers'", plain, back), "%s: does not come back", name);
    }
    return shell("rm -rf '%s'/*%s", scratch, "") ? LAMINA_OK : LAMINA_E_IO;
}

static void packed_logits_are_the_same(void)
{
    static const role wanted[] = {ROLE_QKV,         ROLE_Q_A,       ROLE_Q_B,         ROLE_Q,     ROLE_K,
                                  ROLE_V,           ROLE_KV_A,      ROLE_KV_B,        ROLE_K_B,   ROLE_V_B,
                                  ROLE_O,           ROLE_GATE,      ROLE_UP,          ROLE_DOWN,  ROLE_SHARED_GATE,
                                  ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN, ROLE_EMBED, ROLE_HEAD};
    char scratch[] = "/tmp/lamina-packed-XXXXXX", folder[400];
    lamina_error err = {0};
    REQUIRE(mkdtemp(scratch), "no temporary folder");
    snprintf(folder, sizeof folder, "%.300s/golden", TEST_DATA);
    CHECK(os_list_dir(folder, one_model, scratch, &err) == LAMINA_OK, "%s", err.text);
    (void)shell("rm -rf '%s'%s", scratch, "");
    printf("  %zu models, packed: %zu\n", models_seen, models_packed);
    CHECK(models_packed >= 140, "too few"); /* some are quantised throughout */
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK(roles_packed[wanted[i]], "no %s is packed", role_name(wanted[i]));
}

TEST_MAIN(T(packed_logits_are_the_same))
