/* Damage and want: flipped bits, cut files, hostile manifests, full disks, memory that is refused. */
#include "store/fixture.h"

#include <sys/mount.h>
#include <xxhash.h>

static const recipe tiny = {.layers = 3, .shards = 2, .seed = 21};

static void make_store(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &tiny);
    CHECK(pack(UNDER("model"), UNDER("store"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
}

static lamina_status try_open(lamina_error *err)
{
    memory *m = memory_new();
    checkpoint *c = NULL;
    tokenizer *tok = NULL;
    *err = (lamina_error){0};
    lamina_status status = store_open(m, UNDER("store"), true, &c, &tok, err);
    checkpoint_free(c);
    tokenizer_free(tok);
    CHECK(memory_free(m) == 0, "leak");
    return status;
}

static void damage_is_named(void)
{
    static const char *const names[] = {"embed", "0000", "0002", "head"};
    lamina_error err;
    make_store();
    for (int i = 0; i < 4; i++) {
        char path[PATH_BYTES * 2], file[64];
        snprintf(file, sizeof file, "layers/%s.safetensors", names[i]);
        snprintf(path, sizeof path, "%s/%s", UNDER("store"), file);
        size_t n = 0;
        unsigned char *data = read_file(path, &n);
        for (size_t at = 0; at < 3; at++) { /* in the header, in the data, the last byte */
            size_t where = at == 0 ? 9 : at == 1 ? n / 2 + 7 : n - 1;
            data[where] ^= 4;
            write_file(path, data, n);
            CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_E_CORRUPT && strstr(err.text, file), "%s byte %zu: %s",
                  file, where, err.text);
            data[where] ^= 4;
        }
        write_file(path, data, n - 1);
        CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_E_CORRUPT && strstr(err.text, file), "cut: %s", err.text);
        CHECK(try_open(&err) == LAMINA_E_CORRUPT && strstr(err.text, file), "cut: %s", err.text);
        data = realloc(data, n + 1);
        data[n] = 0;
        write_file(path, data, n + 1);
        CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_E_CORRUPT && strstr(err.text, file), "longer: %s", err.text);
        unlink(path);
        CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_E_CORRUPT && strstr(err.text, "missing"), "%s", err.text);
        CHECK(try_open(&err) == LAMINA_E_CORRUPT && strstr(err.text, file), "missing: %s", err.text);
        write_file(path, data, n);
        free(data);
    }
    CHECK(verify(UNDER("store"), NULL, &err) == LAMINA_OK, "%s", err.text);
    end_scratch();
}

static void every_bit_of_the_manifest(void)
{
    lamina_error err;
    make_store();
    size_t n = 0;
    unsigned char *data = read_file(UNDER("store/manifest.json"), &n);
    size_t tried = 0;
    for (size_t at = 0; at < n; at += at + 80 < n ? 37 : 1, tried++) {
        data[at] ^= (unsigned char)(1 << at % 8);
        write_file(UNDER("store/manifest.json"), data, n);
        CHECK(try_open(&err) == LAMINA_E_CORRUPT && strstr(err.text, "manifest.json"), "byte %zu: %s", at, err.text);
        data[at] ^= (unsigned char)(1 << at % 8);
    }
    for (size_t cut = 0; cut < n; cut += n / 29 + 1) {
        write_file(UNDER("store/manifest.json"), data, cut);
        CHECK(try_open(&err) != LAMINA_OK, "cut at %zu is accepted", cut);
    }
    CHECK(tried > 100, "%zu bytes tried", tried);
    free(data);
    end_scratch();
}

/* Replaces the first `from` in the manifest by `to`, makes its checksum right and writes it as `path`. False: there is
 * no such text. */
static bool edit_file(const char *path, const unsigned char *manifest, size_t bytes, const char *from, const char *to)
{
    char *found = strstr((const char *)manifest, from);
    CHECK(found, "\"%s\" is not in the manifest", from);
    if (!found) return false;
    size_t before = (size_t)(found - (const char *)manifest), body = bytes - 29;
    char *text = malloc(bytes + strlen(to) + 64);
    memcpy(text, manifest, before);
    strcpy(text + before, to);
    size_t n = before + strlen(to);
    memcpy(text + n, found + strlen(from), body - before - strlen(from));
    n += body - before - strlen(from);
    unsigned long long sum = XXH3_64bits(text, n);
    n += (size_t)sprintf(text + n, "\"xxh3\": \"%016llx\"\n}\n", sum);
    write_file(path, text, n);
    free(text);
    return true;
}

/* The same of the store's, and opens it. */
static lamina_status edit(const unsigned char *manifest, size_t bytes, const char *from, const char *to,
                          lamina_error *err)
{
    bool edited = edit_file(UNDER("store/manifest.json"), manifest, bytes, from, to);
    return edited ? try_open(err) : LAMINA_OK;
}

static void hostile_manifests(void)
{
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"version\": 1", "\"version\": 2", "version 2"},
        {"\"version\": 1", "\"version\": -1", "version"},
        {"\"version\": 1", "\"version\": \"1\"", "version"},
        {"lamina-store", "lamina-stone", "lamina-stone"},
        {"\"dialect\": \"hf\"", "\"dialect\": \"xx\"", "dialect"},
        {"\"name\": \"layers/0000.safetensors\"", "\"name\": \"layers/../../x.safetensors\"", "not a name"},
        {"\"name\": \"layers/0000.safetensors\"", "\"name\": \"/etc/passwd\"", "not a name"},
        {"\"name\": \"layers/0000.safetensors\"", "\"name\": \"layers/.safetensors\"", "not a name"},
        {"\"name\": \"layers/0000.safetensors\"", "\"name\": \"layers/0001.safetensors\"", "twice"},
        {"\"name\": \"layers/0000.safetensors\"", "\"name\": 7", "not a string"},
        {"\"name\": \"layers/0000.safetensors\"", "\"name\": \"layers/00\\u0000.safetensors\"", ""},
        {"\"name\": \"model.embed_tokens.weight\"", "\"name\": \"\"", "name is 0"},
        {"\"name\": \"model.layers.0.self_attn.q_proj.weight\"", "\"name\": \"model.embed_tokens.weight\"", "embed"},
        {"\"offset\": 4096", "\"offset\": 4095", "multiple"},
        {"\"offset\": 4096", "\"offset\": 0", "multiple"},
        {"\"offset\": 4096", "\"offset\": 9223372036854775807", ""},
        {"\"offset\": 4096", "\"offset\": 8192", ""},
        {"\"offset\": 4096", "\"offset\": 18446744073709551616", ""},
        {"\"offset\": 12288", "\"offset\": 12287", "begins at"},
        {"\"shape\": [501,64]", "\"shape\": [501,65]", "bytes"},
        {"\"shape\": [501,64]", "\"shape\": [4611686018427387904,4611686018427387904]", "too large"},
        {"\"shape\": [501,64]", "\"shape\": [-1,64]", "dimension"},
        {"\"shape\": [501,64]", "\"shape\": [1,1,1,501,64]", "shape"},
        {"\"shape\": [501,64]", "\"shape\": {}", "shape"},
        {"\"dtype\": \"bf16\"", "\"dtype\": \"bf17\"", "bf17"},
        {"\"dtype\": \"bf16\"", "\"dtype\": \"f32\"", "bytes"},
        {"\"dtype\": \"bf16\"", "\"dtype\": \"other\"", "gguf_type"},
        {"\"file\": \"layers/0000.safetensors\"", "\"file\": \"layers/0002.safetensors\"", "next"},
        {"\"file\": \"layers/embed.safetensors\"", "\"file\": \"nowhere\"", "next"},
        {"\"config\": {", "\"config\": [], \"x\": {", "config"},
        {"\"generation\": null", "\"generation\": 3", "generation"},
        {"\"files\": [\n {\"name\": \"layers", "\"files\": 3, \"y\": [\n {\"name\": \"layers", "files"},
        {"\"tensors\": [", "\"tensors\": [3, ", ""},
        {"\"tensors\": [", "\"tensors\": [], \"z\": [", "no tensors"},
        {"\"family\": ", "\"family\": \"llama\", \"family\": ", "duplicate"},
    };
    lamina_error err;
    make_store();
    size_t n = 0;
    unsigned char *manifest = read_file(UNDER("store/manifest.json"), &n);
    CHECK(edit(manifest, n, "lamina-store", "lamina-store", &err) == LAMINA_OK, "unchanged: %s", err.text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_status status = edit(manifest, n, cases[i].from, cases[i].to, &err);
        CHECK(status != LAMINA_OK, "%s -> %s is accepted", cases[i].from, cases[i].to);
        CHECK(status == LAMINA_OK || strstr(err.text, cases[i].says), "%s -> %s: %s", cases[i].from, cases[i].to,
              err.text);
    }
    char *deep = malloc(200000), *at = deep;
    at += sprintf(at, "\"generation\": ");
    memset(at, '[', 90000), at += 90000;
    memset(at, ']', 90000), at += 90000;
    *at = 0;
    CHECK(edit(manifest, n, "\"generation\": null", deep, &err) == LAMINA_E_FORMAT, "deep JSON: %s", err.text);
    free(deep);
    free(manifest);
    end_scratch();
}

/* What packed tensors say of themselves, in manifests and drafts. */
static void hostile_packed_manifests(void)
{
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"row_bytes\": ", "\"row_bytes\": 1", "bytes in bf16_packed3"},
        {"\"row_bytes\": ", "\"row_bytes\": -", "row_bytes"},
        {"\"row_bytes\": ", "\"row_byte\": ", "row_bytes"},
        {"\"row_bytes\": 10", "\"row_bytes\": 9", "bytes"},
        {"\"row_bytes\": 10", "\"row_bytes\": 11", "found"},
        {"\"of\": \"bf16\"", "\"of\": \"f16\"", "expected bf16 or f32"},
        {"\"of\": \"bf16\"", "\"of\": \"q8_0\"", "expected bf16 or f32"},
        {"\"of\": \"bf16\"", "\"of\": 7", "not a string"},
        {"\"of\": \"bf16\"", "\"off\": 7", "not a string"},
        {"\"dtype\": \"bf16_packed3\"", "\"dtype\": \"bf16\"", "bytes"},
        {"\"dtype\": \"bf16_packed3\"", "\"dtype\": \"bf16_packed4\"", "bytes"},
        {"\"dtype\": \"bf16_packed3\"", "\"dtype\": \"bf16_packed5\"", "is not known"},
        {"\"dtype\": \"packed\"", "\"dtype\": 3", "not a string"},
        {"\"shape\": [501,64]", "\"shape\": [501,0]", "bytes"},
        {"\"shape\": [501,64]", "\"shape\": [501,640]", "bytes"},
        {"\"shape\": [501,64]", "\"shape\": [501,9223372036854775807]", "bytes"},
        {"\"shape\": [501,64]", "\"shape\": [9223372036854775807,64]", "too large"},
    };
    lamina_error err = {0};
    lamina_pack_options options = {.dtype = "packed"};
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 2, .seed = 22, .fill = FILL_NORMAL});
    REQUIRE(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    size_t n = 0;
    unsigned char *manifest = read_file(UNDER("store/manifest.json"), &n);
    CHECK(edit(manifest, n, "lamina-store", "lamina-store", &err) == LAMINA_OK, "unchanged: %s", err.text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lamina_status status = edit(manifest, n, cases[i].from, cases[i].to, &err);
        CHECK(status != LAMINA_OK, "%s -> %s is accepted", cases[i].from, cases[i].to);
        CHECK(status == LAMINA_OK || strstr(err.text, cases[i].says), "%s -> %s: %s", cases[i].from, cases[i].to,
              err.text);
    }
    free(manifest);
    end_scratch();
}

static bool cut_off(void *user, const lamina_progress *p)
{
    (void)user;
    return p->phase == LAMINA_PHASE_SURVEY;
}

/* What a draft says of scales, which are read when packing goes on. */
static void hostile_drafts(void)
{
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"scales\": {", "\"scales\": 3, \"x\": {", "not an object"},
        {"\"block\": [128, 128]", "\"block\": [0,128]", "rows and columns"},
        {"\"block\": [128, 128]", "\"block\": [128,0]", "rows and columns"},
        {"\"block\": [128, 128]", "\"block\": [128,4294967296]", "rows and columns"},
        {"\"block\": [128, 128]", "\"block\": [128]", "rows and columns"},
        {"\"block\": [128, 128]", "\"block\": [128,128,128]", "entries"},
        {"\"block\": [128, 128]", "\"block\": [1,1]", "cannot"},
        {"\"scales\": {\"source\": 0", "\"scales\": {\"source\": 2", "cannot have"},
        {"\"scales\": {\"source\": 0", "\"scales\": {\"source\": -1", "source"},
        {"\"scales\": {\"source\": 0, \"offset\": ", "\"scales\": {\"source\": 0, \"offset\": 9223372036854770", ""},
        {"\"scales\": {\"source\": 0, \"offset\": ", "\"scales\": {\"source\": 0, \"offset\": 9000", "cannot have"},
        {"\"dtype\": \"f32\", \"block\": [128, 128]", "\"dtype\": \"q8_0\", \"block\": [128, 128]", "cannot have"},
        {"\"from\": \"f8_e4m3\"", "\"from\": \"bf16\"", "cannot have"},
        {"\"from\": \"f8_e4m3\"", "\"from\": \"i8\"", "cannot come from"},
    };
    lamina_error err = {0};
    lamina_pack_options options = {.dtype = "q8_0"};
    begin_scratch();
    make_model("model", &(recipe){.layers = 3, .shards = 2, .seed = 23, .fill = FILL_NORMAL, .codes = CODES_FP8});
    store_job job = {.progress = cut_off};
    CHECK(pack_by(UNDER("model"), UNDER("store"), &options, job, NULL, &err) == LAMINA_E_CANCELLED, "%s", err.text);
    size_t n = 0;
    unsigned char *draft = read_file(UNDER("store/pack.json"), &n);
    REQUIRE(draft != NULL, "no draft");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!edit_file(UNDER("store/pack.json"), draft, n, cases[i].from, cases[i].to)) continue;
        err = (lamina_error){0};
        lamina_status status = pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err);
        CHECK(status != LAMINA_OK && strstr(err.text, cases[i].says), "%s -> %s: %d %s", cases[i].from, cases[i].to,
              (int)status, err.text);
    }
    edit_file(UNDER("store/pack.json"), draft, n, "f8_e4m3", "f8_e4m3");
    CHECK(pack(UNDER("model"), UNDER("store"), &options, NULL, NULL, NULL, &err) == LAMINA_OK, "unchanged: %s",
          err.text);
    free(draft);
    end_scratch();
}

/* Every N-th allocation refused: a clean error, nothing held, and the store is finished by the next run. */
static void allocations_fail(const char *as, fill filled)
{
    begin_scratch();
    lamina_error err = {0};
    recipe small = tiny;
    small.fill = filled;
    make_model("model", &small);
    opened o;
    REQUIRE(open_model(UNDER("model"), &o, &err) == LAMINA_OK, "%s", err.text);
    uint64_t n = 1;
    bool ended = false;
    for (; n < 2000 && !ended; n++) {
        store_job job = {.m = memory_new()};
        lamina_pack_options options = {.memory = 1 << 20, .dtype = as};
        memory_fail_at(job.m, n);
        err = (lamina_error){0};
        lamina_status status = store_pack(o.model, NULL, UNDER("store"), &options, NULL, &job, NULL, &err);
        CHECK(status == LAMINA_OK || (status == LAMINA_E_MEMORY && err.text[0]), "allocation %llu: %d %s",
              (unsigned long long)n, (int)status, err.text);
        ended = status == LAMINA_OK;
        if (!ended) remove_tree(UNDER("store")); /* every failure at its earliest place */
        CHECK(memory_free(job.m) == 0, "allocation %llu leaks", (unsigned long long)n);
    }
    CHECK(ended && n > 50, "%llu allocations", (unsigned long long)n);
    close_model(&o);
    for (n = 1, ended = false; n < 2000 && !ended; n++) {
        store_job job = {.m = memory_new()};
        checkpoint *c = NULL;
        tokenizer *tok = NULL;
        memory_fail_at(job.m, n);
        lamina_status status = store_verify(UNDER("store"), &job, NULL, &err);
        if (status == LAMINA_OK) {
            memory_fail_at(job.m, n);
            status = store_open(job.m, UNDER("store"), true, &c, &tok, &err);
        }
        ended = status == LAMINA_OK;
        CHECK(ended || status == LAMINA_E_MEMORY, "allocation %llu: %d %s", (unsigned long long)n, (int)status,
              err.text);
        checkpoint_free(c);
        CHECK(memory_free(job.m) == 0, "allocation %llu leaks", (unsigned long long)n);
    }
    CHECK(ended && n > 20, "%llu allocations", (unsigned long long)n);
    end_scratch();
}

static void every_allocation_fails(void)
{
    allocations_fail(NULL, FILL_RANDOM);
    allocations_fail("packed", FILL_NORMAL);
}

/* Fills the disk at the step that *user counts down to. */
static void fill_disk(void *user)
{
    static char block[4096];
    if (atomic_fetch_sub((atomic_int *)user, 1) != 1) return;
    int fd = open(UNDER("disk/filler"), O_WRONLY | O_CREAT, 0666);
    while (fd >= 0 && write(fd, block, sizeof block) > 0) {
    }
    if (fd >= 0) close(fd);
}

static void full_disk(void)
{
    lamina_error err = {0};
    begin_scratch();
    make_model("model", &tiny);
    CHECK(pack(UNDER("model"), UNDER("whole"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "%s", err.text);
    mkdir(UNDER("disk"), 0777);
    if (mount("tmpfs", UNDER("disk"), "tmpfs", 0, "size=128k") != 0) {
        end_scratch();
        SKIP("mounting a small disk is not permitted here");
    }
    CHECK(pack(UNDER("model"), UNDER("disk/store"), NULL, NULL, NULL, NULL, &err) == LAMINA_E_SPACE, "%s", err.text);
    CHECK(access(UNDER("disk/store"), F_OK) != 0, "something was written to a disk that is too small");
    umount(UNDER("disk"));
    int full = 0;
    REQUIRE(mount("tmpfs", UNDER("disk"), "tmpfs", 0, "size=4m") == 0, "mount");
    for (int step = 1; step < 120; step += 7) {
        atomic_int left = step;
        lamina_status status = pack(UNDER("model"), UNDER("disk/store"), NULL, fill_disk, &left, NULL, &err);
        full += status == LAMINA_E_SPACE;
        CHECK(status == LAMINA_E_SPACE || status == LAMINA_OK, "step %d: %s", step, err.text);
        unlink(UNDER("disk/filler"));
        if (status != LAMINA_OK)
            CHECK(pack(UNDER("model"), UNDER("disk/store"), NULL, NULL, NULL, NULL, &err) == LAMINA_OK, "step %d: %s",
                  step, err.text);
        CHECK(trees_equal(UNDER("whole"), UNDER("disk/store")), "after a full disk at step %d", step);
        remove_tree(UNDER("disk/store"));
    }
    CHECK(full >= 5, "the disk was full only %d times", full);
    umount(UNDER("disk"));
    end_scratch();
}

TEST_MAIN(T(damage_is_named), T(every_bit_of_the_manifest), T(hostile_manifests), T(hostile_packed_manifests),
          T(hostile_drafts), T(every_allocation_fails), T(full_disk))
