/* PyTorch's checkpoints: what torch.save() wrote, in both forms, read to the last byte; and files that lie, which must
 * be refused in words. The files of tests/data/pytorch come from tools/pytorch_golden.py; the liars are built here. */
#include <fcntl.h>
#include <sys/stat.h>

#include "build.h"
#include "format/pytorch.h"

#define GOLDEN TEST_DATA "/pytorch/"

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static opened read_path(const char *path)
{
    opened o = {.m = memory_new()};
    o.c = o.m ? checkpoint_new(o.m, CHECKPOINT_HF, "made", &o.err) : NULL;
    if (!o.c) abort();
    o.status = pytorch_read(o.c, path, "pytorch_model.bin", &o.err);
    if (o.status == LAMINA_OK) o.status = checkpoint_seal(o.c, &o.err);
    return o;
}

static void refused(const char *what, const char *path, lamina_status status, const char *words)
{
    opened o = read_path(path);
    CHECK(o.status == status, "%s: status %d (%s), expected %d with \"%s\"", what, o.status, o.err.text, status, words);
    CHECK(strstr(o.err.text, words) != NULL, "%s: \"%s\" does not say \"%s\"", what, o.err.text, words);
    CHECK(strncmp(o.err.text, path, strlen(path)) == 0, "%s: \"%s\" does not begin with the file", what, o.err.text);
    close_opened(&o);
}

static uint64_t fnv(const unsigned char *data, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) h = (h ^ data[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* One line of a list: type, shape, sum, name. */
static void expect_tensor(const checkpoint *c, const char *line)
{
    char type[32], shape[64], sum[32], found[64] = "-", name[64];
    REQUIRE(sscanf(line, "%31s %63s %31s %63[^\n]", type, shape, sum, name) == 4, "%s", line);
    const tensor *t = checkpoint_find(c, name);
    REQUIRE(t, "%s is missing", name);
    const uint64_t *d = t->shape;
    uint64_t dims[6] = {d[0], d[1], d[2], d[3]};
    uint32_t n = t->n_dims;
    if (strcmp(name, "six.dims") == 0) { /* the slowest three are one */
        CHECK(n == 4 && d[0] == 4, "%u dimensions, first %llu", n, (unsigned long long)d[0]);
        memcpy(dims, (uint64_t[]){2, 1, 2, d[1], d[2], d[3]}, sizeof dims);
        n = 6;
    }
    for (uint32_t i = 0, at = 0; i < n; i++)
        at += (uint32_t)snprintf(found + at, sizeof found - at, "%s%llu", i ? "x" : "", (unsigned long long)dims[i]);
    CHECK(strcmp(dtype_name(t->type), type) == 0, "%s: type %s, expected %s", name, dtype_name(t->type), type);
    CHECK(strcmp(found, shape) == 0, "%s: shape %s, expected %s", name, found, shape);
    unsigned char data[1024];
    os_file file;
    REQUIRE(t->bytes <= sizeof data, "%s: %llu bytes", name, (unsigned long long)t->bytes);
    REQUIRE(os_open(c->files[t->file].path, OS_READ, &file, NULL) == LAMINA_OK, "%s", c->files[t->file].path);
    lamina_status status = os_read_at(&file, name, t->offset, data, (size_t)t->bytes, NULL);
    os_close(&file);
    char hash[32];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)fnv(data, (size_t)t->bytes));
    CHECK(status == LAMINA_OK && strcmp(hash, sum) == 0, "%s: bytes %s, expected %s", name, hash, sum);
}

/* All tensors that the list names; returns how many. */
static size_t expect_list(const checkpoint *c, const char *path)
{
    char line[256];
    size_t n = 0;
    FILE *f = fopen(path, "r");
    if (!f) abort();
    for (; fgets(line, sizeof line, f); n++) expect_tensor(c, line);
    fclose(f);
    return n;
}

static const char *const golden[] = {"f32",          "f32-legacy",    "types",         "types-4", "types-5",
                                     "types-legacy", "newer",         "newer-legacy",  "shared",  "shared-legacy",
                                     "module",       "module-legacy", "types-legacy-4"};
enum { N_GOLDEN = sizeof golden / sizeof *golden };

static void what_torch_writes(void)
{
    for (size_t i = 0; i < N_GOLDEN; i++) {
        char path[512], list[512];
        snprintf(path, sizeof path, GOLDEN "%s.bin", golden[i]);
        snprintf(list, sizeof list, GOLDEN "%s.txt", golden[i]);
        opened o = read_path(path);
        CHECK(o.status == LAMINA_OK, "%s: %s", golden[i], o.err.text);
        size_t n = o.status == LAMINA_OK ? expect_list(o.c, list) : 0;
        CHECK(n == o.c->n_tensors && n > 0, "%s: %zu tensors, expected %zu", golden[i], o.c->n_tensors, n);
        close_opened(&o);
    }
}

static void shards(void)
{
    opened o = open_path(GOLDEN "sharded");
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(o.c->kind == CHECKPOINT_HF && o.c->n_files == 2 && o.c->n_tensors == 4, "%u files, %zu tensors", o.c->n_files,
          o.c->n_tensors);
    size_t n = expect_list(o.c, GOLDEN "sharded/pytorch_model-00001-of-00002.txt");
    n += expect_list(o.c, GOLDEN "sharded/pytorch_model-00002-of-00002.txt");
    CHECK(n == 4, "%zu lines", n);
    close_opened(&o);
    expect_open(GOLDEN "sharded/pytorch_model-00002-of-00002.bin");
    unsigned failed = fail_every_allocation(GOLDEN "sharded");
    printf("  %u allocations failed in turn\n", failed);
    CHECK(failed >= 30, "only %u allocations", failed);
}

static void copy(folder *f, const char *from, const char *name)
{
    static unsigned char data[64 << 10];
    char path[512];
    snprintf(path, sizeof path, GOLDEN "%s", from);
    FILE *file = fopen(path, "rb");
    if (!file) abort();
    size_t n = fread(data, 1, sizeof data, file);
    fclose(file);
    write_bytes(f, name, data, n);
}

static void folders(void)
{
    folder f = folder_new();
    write_text(&f, "config.json", "{}");
    copy(&f, "types-legacy.bin", "pytorch_model.bin");
    unsigned failed = fail_every_allocation(f.path);
    CHECK(failed >= 15, "only %u allocations", failed);
    expect_open(f.path);
    expect_open(in(&f, "pytorch_model.bin"));
    write_text(&f, "training_args.bin", "?");
    expect_refusal(in(&f, "training_args.bin"), LAMINA_E_UNSUPPORTED, "not a file that the checkpoint");
    copy(&f, "f32.bin", "pytorch_model.fp16.bin");
    opened o = open_path(f.path);
    CHECK(o.status == LAMINA_OK && strcmp(o.c->files[0].name, "pytorch_model.bin") == 0, "%s", o.err.text);
    close_opened(&o);
    write_safetensors(&f, "weights.safetensors", ONE_TENSOR, 24); /* transformers does not read this name */
    o = open_path(f.path);
    CHECK(o.status == LAMINA_OK && strcmp(o.c->files[0].name, "pytorch_model.bin") == 0, "%s", o.err.text);
    close_opened(&o);
    write_safetensors(&f, "model.safetensors", ONE_TENSOR, 24);
    o = open_path(f.path);
    CHECK(o.status == LAMINA_OK && strcmp(o.c->files[0].name, "model.safetensors") == 0, "%s", o.err.text);
    close_opened(&o);
    folder_empty(&f);
    write_text(&f, "config.json", "{}");
    write_text(&f, "pytorch_model.bin.index.json", "{\"weight_map\":{\"weight\":\"model.safetensors\"}}");
    write_safetensors(&f, "model.safetensors.x", ONE_TENSOR, 24);
    expect_refusal(f.path, LAMINA_E_FORMAT, "not named *.bin");
    write_text(&f, "pytorch_model.bin.index.json",
               "{\"weight_map\":{\"weight\":\"pytorch_model-00001-of-00001.bin\"}}");
    expect_refusal(f.path, LAMINA_E_IO, "is missing from the folder");
    copy(&f, "types.bin", "pytorch_model-00001-of-00001.bin");
    expect_refusal(f.path, LAMINA_E_FORMAT, "tensor weight is not in pytorch_model-00001-of-00001.bin");
    copy(&f, "f32.bin", "pytorch_model-00001-of-00001.bin");
    expect_open(f.path);
    folder_remove(&f);
}

static void shared_storages(void)
{
    opened o = read_path(GOLDEN "shared.bin");
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    const tensor *embed = checkpoint_find(o.c, "embed"), *head = checkpoint_find(o.c, "head");
    const tensor *qkv = checkpoint_find(o.c, "qkv"), *k = checkpoint_find(o.c, "k");
    REQUIRE(embed && head && qkv && k, "a tensor is missing");
    CHECK(embed->offset == head->offset && embed->bytes == head->bytes, "tied tensors are two");
    CHECK(k->offset == qkv->offset + qkv->bytes / 3 && k->bytes == qkv->bytes / 3, "a view is not inside");
    o.c->shares = false; /* of another format it would be an attack */
    CHECK(checkpoint_seal(o.c, &o.err) == LAMINA_E_FORMAT && strstr(o.err.text, "overlap"), "%s", o.err.text);
    close_opened(&o);
}

static void what_torch_writes_and_we_refuse(void)
{
    static const struct {
        const char *name, *words;
    } cases[] = {
        {"transposed", "tensor weight: of shape (6, 4) with strides (1, 6), whose rows do not follow one another: save "
                       "it as contiguous() gives it"},
        {"transposed-legacy", "strides (1, 6)"},
        {"expanded", "of shape (3, 6) with strides (0, 1)"},
        {"strided", "of shape (4, 3) with strides (6, 2)"},
        {"nested", "\"state_dict\" is a dict, not a tensor: expected a state dict alone"},
        {"number", "\"step\" is an integer, not a tensor"},
        {"tensor", "holds an object: expected a state dict"},
        {"module", "names torch.nn.modules.linear.Linear, which is not a part of a state dict"},
        {"conjugated", "conjugated"},
        {"sparse", "names torch._utils._rebuild_sparse_tensor, which is not a part of a state dict"},
        {"deflated", "compressed (method 8)"},
        {"script", "compressed (method 8)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN "refused-%s.bin", cases[i].name);
        refused(cases[i].name, path, LAMINA_E_UNSUPPORTED, cases[i].words);
    }
}

/* ---- damage ----------------------------------------------------------------------------------------------------- */

/* Opens a file of which something is damaged: read or refused, and then in words. What is read keeps its promise. */
static bool survives(const char *path, const char *what, size_t at)
{
    opened o = read_path(path);
    uint64_t size = o.c->n_files ? o.c->files[0].bytes : 0;
    bool read = o.status == LAMINA_OK;
    CHECK(read || o.err.text[0], "%s %zu: refused without a word", what, at);
    CHECK(!strchr(o.err.text, '\n'), "%s %zu: %s", what, at, o.err.text);
    for (size_t i = 0; read && i < o.c->n_tensors; i++) {
        const tensor *t = &o.c->tensors[i];
        CHECK(t->offset <= size && t->bytes <= size - t->offset, "%s %zu: %s lies outside", what, at, t->name);
    }
    close_opened(&o);
    return read;
}

static void every_truncation(void)
{
    folder f = folder_new();
    for (size_t i = 0; i < N_GOLDEN; i++) {
        char name[64];
        struct stat st;
        snprintf(name, sizeof name, "%s.bin", golden[i]);
        copy(&f, name, "x.bin");
        if (stat(in(&f, "x.bin"), &st) != 0) abort();
        bool last_empty = strstr(golden[i], "types-legacy") != NULL; /* a storage of nothing may stand last */
        for (off_t n = st.st_size - 1; n >= 0; n--) {
            if (truncate(in(&f, "x.bin"), n) != 0) abort();
            bool read = survives(in(&f, "x.bin"), golden[i], (size_t)n);
            CHECK(!read || last_empty, "%s: read although cut to %lld bytes", golden[i], (long long)n);
            if (test_now.current_failed) break;
        }
    }
    folder_remove(&f);
}

static void every_byte(void)
{
    static const char *const some[] = {"f32", "f32-legacy", "types-5", "newer-legacy", "shared"};
    static const unsigned char flips[] = {0xff, 0x01, 0x80};
    folder f = folder_new();
    unsigned read = 0, all = 0;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        char name[64];
        struct stat st;
        snprintf(name, sizeof name, "%s.bin", some[i]);
        copy(&f, name, "x.bin");
        int fd = open(in(&f, "x.bin"), O_RDWR);
        if (fd < 0 || fstat(fd, &st) != 0) abort();
        for (off_t at = 0; at < st.st_size; at++) {
            unsigned char right, wrong;
            if (pread(fd, &right, 1, at) != 1) abort();
            for (size_t k = 0; k < sizeof flips; k++, all++) {
                wrong = right ^ flips[k];
                if (pwrite(fd, &wrong, 1, at) != 1) abort();
                read += survives(f.joined, some[i], (size_t)at);
            }
            if (pwrite(fd, &right, 1, at) != 1) abort();
            if (test_now.current_failed) break;
        }
        close(fd);
    }
    printf("  %u flips, %u of them in what is not read\n", all, read);
    folder_remove(&f);
}

/* ---- zips that lie ---------------------------------------------------------------------------------------------- */

typedef struct part { /* an entry; what is 0 is as it should be */
    const char *name;
    const void *data;
    size_t n;
    unsigned method, flags;
    const char *local_name;
    uint64_t local_bytes, central_bytes, stored_bytes, begin; /* lies, plus 1 */
    bool zip64, no_extra;
} part;

enum { MAX_PARTS = 8 };

static void put_part(bytes *b, const part *p)
{
    uint64_t n = p->local_bytes ? p->local_bytes - 1 : p->n;
    put_text(b, "PK\3\4");
    put_number(b, 20, 2);
    put_number(b, p->flags, 2);
    put_number(b, p->method, 2);
    put_number(b, 0, 8);
    put_number(b, p->zip64 ? UINT32_MAX : n, 4);
    put_number(b, p->zip64 ? UINT32_MAX : n, 4);
    const char *name = p->local_name ? p->local_name : p->name;
    put_number(b, strlen(name), 2);
    put_number(b, p->zip64 ? 20 + 6 : 0, 2);
    put_text(b, name);
    if (p->zip64) {
        put_text(b, "FB\2");
        put_fill(b, 0, 3);
        put_number(b, 1, 2);
        put_number(b, 16, 2);
        put_number(b, n, 8);
        put_number(b, n, 8);
    }
    put(b, p->data, p->n);
}

static void put_central(bytes *b, const part *p, uint64_t begin)
{
    uint64_t n = p->central_bytes ? p->central_bytes - 1 : p->n, stored = p->stored_bytes ? p->stored_bytes - 1 : n;
    if (p->begin) begin = p->begin - 1;
    put_text(b, "PK\1\2");
    put_number(b, 0, 4);
    put_number(b, p->flags, 2);
    put_number(b, p->method, 2);
    put_number(b, 0, 8);
    put_number(b, p->zip64 ? UINT32_MAX : stored, 4);
    put_number(b, p->zip64 ? UINT32_MAX : n, 4);
    put_number(b, strlen(p->name), 2);
    put_number(b, p->zip64 && !p->no_extra ? 28 : 0, 2);
    put_number(b, 0, 8);
    put_number(b, 0, 2);
    put_number(b, p->zip64 ? UINT32_MAX : begin, 4);
    put_text(b, p->name);
    if (!p->zip64 || p->no_extra) return;
    put_number(b, 1, 2);
    put_number(b, 24, 2);
    put_number(b, n, 8);
    put_number(b, stored, 8);
    put_number(b, begin, 8);
}

static void put_end(bytes *b, size_t n, uint64_t at, uint64_t size)
{
    put_text(b, "PK\5\6");
    put_number(b, 0, 4);
    put_number(b, n, 2);
    put_number(b, n, 2);
    put_number(b, size, 4);
    put_number(b, at, 4);
    put_number(b, 0, 2);
}

static void put_end64(bytes *b, uint64_t record, size_t n, uint64_t at, uint64_t size)
{
    put_text(b, "PK\6\6");
    put_number(b, 44, 8);
    put_number(b, 0, 4);
    put_number(b, 0, 8);
    put_number(b, n, 8);
    put_number(b, n, 8);
    put_number(b, size, 8);
    put_number(b, at, 8);
    put_text(b, "PK\6\7");
    put_number(b, 0, 4);
    put_number(b, record, 8);
    put_number(b, 1, 4);
}

/* The parts, up to the first without a name. */
static bytes zip_of(const part *parts)
{
    bytes b = {0};
    uint64_t begins[MAX_PARTS];
    size_t n = 0;
    for (; n < MAX_PARTS && parts[n].name; n++) {
        begins[n] = b.n;
        put_part(&b, &parts[n]);
    }
    uint64_t at = b.n;
    for (size_t i = 0; i < n; i++) put_central(&b, &parts[i], begins[i]);
    put_end(&b, n, at, b.n - at);
    return b;
}

#define BYTES_OF(text) text, sizeof text - 1
#define BYTES(text)    .data = text, .n = sizeof text - 1

/* A pickle: what stands between PROTO and STOP. */
#define PICKLE(body)           BYTES("\200\2" body ".")
#define STORAGE(class, key, n) "(X\7\0\0\0storagectorch\n" class "\nX\1\0\0\0" key "X\3\0\0\0cpu" n "tQ"
#define REBUILD(storage, offset, size, stride)                                                                         \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset "(" size "t(" stride "t\211}tR"
#define ITEM(tensor)  "X\1\0\0\0w" tensor "s"
#define SOUND_STORAGE STORAGE("FloatStorage", "0", "K\6")
#define SOUND         REBUILD(SOUND_STORAGE, "K\0", "K\2K\3", "K\3K\1")

static const unsigned char six[24] = {1};

/* b is dropped. */
static void refused_bytes(const char *what, bytes b, lamina_status status, const char *words)
{
    folder f = folder_new();
    write_bytes(&f, "x.bin", b.data, b.n);
    if (words)
        refused(what, in(&f, "x.bin"), status, words);
    else
        CHECK(survives(in(&f, "x.bin"), what, 0), "%s", what);
    drop(&b);
    folder_remove(&f);
}

static void refused_zip(const char *what, const part *parts, lamina_status status, const char *words)
{
    refused_bytes(what, zip_of(parts), status, words);
}

static void lying_zips(void)
{
    static const struct {
        const char *what;
        part parts[MAX_PARTS];
        lamina_status status;
        const char *words; /* NULL: is read */
    } cases[] = {
#define DATA {.name = "a/data.pkl", PICKLE("}" ITEM(SOUND))}
#define WITH(...)                                                                                                      \
    {                                                                                                                  \
        DATA,                                                                                                          \
        {                                                                                                              \
            .name = "a/data/0", .data = six, .n = 24, __VA_ARGS__                                                      \
        }                                                                                                              \
    }
        {"a sound one", WITH(.method = 0), LAMINA_OK, NULL},
        {"64-bit sizes of a small one", WITH(.zip64 = true), LAMINA_OK, NULL},
        {"sizes behind the data", WITH(.flags = 8, .local_bytes = 1), LAMINA_OK, NULL},
        {"no sizes and none behind", WITH(.local_bytes = 1), LAMINA_E_FORMAT, "of another size in its own header"},
        {"another size", WITH(.local_bytes = 24), LAMINA_E_FORMAT, "of another size in its own header"},
        {"64-bit sizes that are not there", WITH(.zip64 = true, .no_extra = true), LAMINA_E_FORMAT, "lacks 64-bit"},
        {"two sizes", WITH(.stored_bytes = 24), LAMINA_E_FORMAT, "stored, yet of two sizes"},
        {"a size beyond the directory", WITH(.local_bytes = 101, .central_bytes = 101), LAMINA_E_FORMAT,
         "reaches into the directory"},
        {"a begin beyond the directory", WITH(.begin = 4001), LAMINA_E_FORMAT, "begins behind the directory"},
        {"a begin of almost 2^64", WITH(.zip64 = true, .begin = UINT64_MAX), LAMINA_E_FORMAT, "begins behind"},
        {"a size of almost 2^64", WITH(.zip64 = true, .local_bytes = UINT64_MAX, .central_bytes = UINT64_MAX),
         LAMINA_E_FORMAT, "reaches into the directory"},
        {"a begin in the middle", WITH(.begin = 3), LAMINA_E_FORMAT, "no header where the directory says"},
        {"another name", WITH(.local_name = "a/data/1"), LAMINA_E_FORMAT, "named otherwise in its own header"},
        {"a compressed entry", WITH(.method = 8), LAMINA_E_UNSUPPORTED, "entry a/data/0: compressed (method 8)"},
        {"an encrypted entry", WITH(.flags = 1), LAMINA_E_UNSUPPORTED, "entry a/data/0: encrypted"},
        {"a storage too short",
         {DATA, {.name = "a/data/0", .data = six, .n = 20}},
         LAMINA_E_FORMAT,
         "storage 0: expected 24 bytes, found 20"},
        {"no storage", {DATA}, LAMINA_E_FORMAT, "there is no storage 0"},
        {"a storage of another archive",
         {DATA, {.name = "b/data/0", .data = six, .n = 24}},
         LAMINA_E_FORMAT,
         "there is no storage 0"},
        {"an entry twice",
         {DATA, {.name = "a/data/0", .data = six, .n = 24}, {.name = "a/data/0"}},
         LAMINA_E_FORMAT,
         "entry a/data/0: stands twice"},
        {"two entries at one place",
         {DATA, {.name = "a/data/0", .data = six, .n = 24}, {.name = "a/data/1", .begin = 1, .local_name = ""}},
         LAMINA_E_FORMAT,
         "named otherwise"},
        {"no pickle", {{.name = "a/data/0", .data = six, .n = 24}}, LAMINA_E_FORMAT, "a zip without ARCHIVE/data.pkl"},
        {"another byte order",
         {DATA, {.name = "a/byteorder", .data = "big", .n = 3}},
         LAMINA_E_UNSUPPORTED,
         "byte order \"big\""},
        {"a later version", {DATA, {.name = "a/version", .data = "11\n", .n = 3}}, LAMINA_E_UNSUPPORTED, "version 11"},
        {"a program", {DATA, {.name = "a/constants.pkl"}}, LAMINA_E_UNSUPPORTED, "TorchScript"},
        {"an empty pickle", {{.name = "a/data.pkl"}}, LAMINA_E_FORMAT, "ends in the middle"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused_zip(cases[i].what, cases[i].parts, cases[i].status, cases[i].words);
    bytes b = zip_of(cases[0].parts);
    b.data[b.n - 22 + 4] = 1; /* of the end record: the number of this part */
    refused_bytes("the second of two parts", b, LAMINA_E_UNSUPPORTED, "zip: one part of several");
}

/* An entry inside of another: its header and its name stand in the other's data. */
static void overlapping_entries(void)
{
    folder f = folder_new();
    bytes inner = {0}, b;
    const part hidden = {.name = "a/data/1", .data = six, .n = 4};
    put_part(&inner, &hidden);
    const part outer = {.name = "a/data/0", .data = inner.data, .n = inner.n};
    b = zip_of((const part[MAX_PARTS]){outer});
    size_t at = 30 + strlen(outer.name) + inner.n;
    b.n = at;
    put_central(&b, &outer, 0);
    put_central(&b, &hidden, 30 + strlen(outer.name));
    put_end(&b, 2, at, b.n - at);
    write_bytes(&f, "x.bin", b.data, b.n);
    refused("an entry in another", in(&f, "x.bin"), LAMINA_E_FORMAT, "entries a/data/0 and a/data/1 overlap");
    drop(&b);
    drop(&inner);
    folder_remove(&f);
}

static void lying_ends(void)
{
    static const struct {
        const char *what;
        uint64_t record, n, at, size; /* of the 64-bit end, relative to what is right */
        uint64_t small_n;             /* of the 32-bit one, plus 1 */
        const char *words;            /* NULL: is read */
    } cases[] = {
        {"both right", 0, 0, 0, 0, 0, NULL},
        {"the small one full", 0, 0, 0, 0, 65536, NULL},
        {"a record behind its locator", 100, 0, 0, 0, 0, "behind its locator"},
        {"a record of 2^64", UINT64_MAX / 2, 0, 0, 0, 0, "behind its locator"},
        {"no record there", UINT64_MAX, 0, 0, 0, 0, "no 64-bit end record"},
        {"other counts", 0, 1, 0, 0, 0, "contradict"},
        {"another begin", 0, 0, 1, 0, 0, "contradict"},
        {"another size", 0, 0, 0, 1, 0, "contradict"},
        {"more entries than bytes", 0, 1000, 0, 0, 65536, "a directory of 1002 entries"},
    };
    static const part parts[MAX_PARTS] = {DATA, {.name = "a/data/0", .data = six, .n = 24}};
    folder f = folder_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = zip_of(parts);
        uint64_t at = 0, size = 0;
        for (unsigned k = 0; k < 4; k++) {
            size |= (uint64_t)b.data[b.n - 10 + k] << (8 * k);
            at |= (uint64_t)b.data[b.n - 6 + k] << (8 * k);
        }
        b.n -= 22;
        put_end64(&b, b.n + cases[i].record, (size_t)(2 + cases[i].n), at + cases[i].at, size + cases[i].size);
        put_end(&b, cases[i].small_n ? (size_t)(cases[i].small_n - 1) : 2, at, size);
        write_bytes(&f, "x.bin", b.data, b.n);
        if (cases[i].words)
            refused(cases[i].what, in(&f, "x.bin"), LAMINA_E_FORMAT, cases[i].words);
        else
            CHECK(survives(in(&f, "x.bin"), cases[i].what, 0), "%s", cases[i].what);
        drop(&b);
    }
    write_text(&f, "x.bin", "PK\3\4");
    refused("four bytes", in(&f, "x.bin"), LAMINA_E_FORMAT, "4 bytes are not one");
    folder_remove(&f);
}

/* A tensor of 5 GiB and one behind it, in a file of holes: sizes and offsets of 64 bits where they are needed. */
static void beyond_four_gigabytes(void)
{
    static const uint64_t large = UINT64_C(5) << 30;
    static const part data = {
        "a/data.pkl",
        PICKLE("}" ITEM(REBUILD(STORAGE("CharStorage", "0", "\212\5\0\0\0\100\1"), "K\0", "K\5J\0\0\0\100",
                                "J\0\0\0\100K\1")) "X\1\0\0\0v" REBUILD(STORAGE("CharStorage", "1", "K\30"), "K\2",
                                                                        "K\3", "K\1") "s")};
    part first = {.name = "a/data/0", .zip64 = true, .local_bytes = large + 1, .central_bytes = large + 1};
    part second = {.name = "a/data/1", .data = six, .n = 24, .zip64 = true};
    folder f = folder_new();
    bytes head = {0}, tail = {0};
    put_part(&head, &data);
    uint64_t begins[2] = {head.n};
    put_part(&head, &first);
    begins[1] = head.n + large;
    put_part(&tail, &second);
    uint64_t directory = begins[1] + tail.n, before = tail.n;
    put_central(&tail, &data, 0);
    put_central(&tail, &first, begins[0]);
    put_central(&tail, &second, begins[1]);
    uint64_t size = tail.n - before;
    put_end64(&tail, begins[1] + tail.n, 3, directory, size);
    put_end(&tail, 3, UINT32_MAX, size);
    write_bytes(&f, "x.bin", head.data, head.n);
    int fd = open(in(&f, "x.bin"), O_WRONLY);
    bool room = fd >= 0 && pwrite(fd, tail.data, tail.n, (off_t)begins[1]) == (ssize_t)tail.n;
    close(fd);
    opened o = read_path(in(&f, "x.bin"));
    if (room) {
        CHECK(o.status == LAMINA_OK, "%s", o.err.text);
        const tensor *w = checkpoint_find(o.c, "w"), *v = checkpoint_find(o.c, "v");
        CHECK(w && w->bytes == large && w->shape[0] == 5 && w->offset == head.n, "the large tensor");
        CHECK(v && v->bytes == 3 && v->offset == directory - 22, "the one behind it");
    }
    close_opened(&o);
    drop(&head);
    drop(&tail);
    folder_remove(&f);
    if (!room) SKIP("no file of 5 GiB can be made here");
}

/* ---- pickles that lie ------------------------------------------------------------------------------------------- */

#define RUN_ARGUMENTS "X\4\0\0\0true\205"

static const struct {
    const char *what;
    const char *data;
    size_t n;
    lamina_status status;
    const char *words;
} pickles[] = {
    {"a command", PICKLE("cos\nsystem\n" RUN_ARGUMENTS "R"), LAMINA_E_UNSUPPORTED,
     "GLOBAL: names os.system, which is not a part of a state dict"},
    {"a command by another name", PICKLE("cposix\nsystem\n" RUN_ARGUMENTS "R"), LAMINA_E_UNSUPPORTED, "posix.system"},
    {"a command from the stack", PICKLE("X\2\0\0\0osX\6\0\0\0system\223" RUN_ARGUMENTS "R"), LAMINA_E_UNSUPPORTED,
     "STACK_GLOBAL: names os.system"},
    {"a command as a class", PICKLE("(X\4\0\0\0trueios\nsystem\n"), LAMINA_E_UNSUPPORTED, "INST: not a part"},
    {"a command as an object",
     PICKLE("(cbuiltins\neval\nX\1\0\0\0"
            "1o"),
     LAMINA_E_UNSUPPORTED, "builtins.eval"},
    {"an extension", PICKLE("\202\1)R"), LAMINA_E_UNSUPPORTED, "EXT1: not a part"},
    {"a name inside a known module", PICKLE("ctorch\nload\n)R"), LAMINA_E_UNSUPPORTED, "names torch.load"},
    {"a dotted name", PICKLE("X\5\0\0\0torchX\12\0\0\0_utils.sys\223"), LAMINA_E_UNSUPPORTED, "torch._utils.sys"},
    {"a zero in a name", PICKLE("X\5\0\0\0torchX\6\0\0\0Size\0x\223"), LAMINA_E_FORMAT, "a zero byte in a name"},
    {"a call of a class of storages", PICKLE("ctorch\nFloatStorage\n)R"), LAMINA_E_UNSUPPORTED, "calls torch.FloatSto"},
    {"a call of a value",
     PICKLE("}"
            ")R"),
     LAMINA_E_FORMAT, "expected a class name on the stack, found a dict"},
    {"a call without arguments", PICKLE("ctorch\nSize\nR"), LAMINA_E_FORMAT, "expected a tuple on the stack"},
    {"state of a tensor", PICKLE("}X\1\0\0\0w" SOUND "}bs"), LAMINA_E_UNSUPPORTED, "attributes of an object"},
    {"state with a tensor", PICKLE("}}X\1\0\0\0w" SOUND "sb"), LAMINA_E_UNSUPPORTED, "expected only \"_metadata\""},
    {"protocol 0", BYTES("(dp0\n."), LAMINA_E_FORMAT, "begins with the byte 0x28"},
    {"protocol 6", BYTES("\200\6}."), LAMINA_E_UNSUPPORTED, "protocol 6: expected 2 to 5"},
    {"no opcode", PICKLE("\377"), LAMINA_E_FORMAT, "0xff is none"},
    {"nothing", PICKLE(""), LAMINA_E_FORMAT, "expected a value on the stack, found none"},
    {"a mark alone", PICKLE("("), LAMINA_E_FORMAT, "found a mark"},
    {"no end", BYTES("\200\2}"), LAMINA_E_FORMAT, "ends in the middle"},
    {"no mark", PICKLE("}u"), LAMINA_E_FORMAT, "no mark on the stack"},
    {"a mark in a tuple", PICKLE("(\205"), LAMINA_E_FORMAT, "found a mark"},
    {"a mark remembered", PICKLE("(q\0"), LAMINA_E_FORMAT, "found a mark"},
    {"a key without a value", PICKLE("}(X\1\0\0\0wu"), LAMINA_E_FORMAT, "a key without a value"},
    {"an item of no list", PICKLE("}X\1\0\0\0wa"), LAMINA_E_FORMAT, "expected a list on the stack, found a dict"},
    {"a memo that is empty", PICKLE("h\7"), LAMINA_E_FORMAT, "nothing was put into memo 7"},
    {"a memo of 4 billion", PICKLE("}r\377\377\377\377"), LAMINA_E_FORMAT, "memo 4294967295 after"},
    {"a string of 4 GB", PICKLE("X\377\377\377\377"), LAMINA_E_FORMAT, "4294967295 bytes: expected at most 65536"},
    {"a string of 2^64", PICKLE("\215\377\377\377\377\377\377\377\377"), LAMINA_E_FORMAT, "expected at most 65536"},
    {"a string beyond the end", PICKLE("X\100\0\0\0short"), LAMINA_E_FORMAT, "ends in the middle"},
    {"a number of 2^31 bytes", PICKLE("\213\377\377\377\377"), LAMINA_E_FORMAT, "expected at most 65536"},
    {"a tensor alone", PICKLE(SOUND), LAMINA_E_UNSUPPORTED, "holds an object: expected a state dict"},
    {"a key that is a number", PICKLE("}K\1" SOUND "s"), LAMINA_E_FORMAT, "a key of the state dict: expected UTF-8"},
    {"an empty key", PICKLE("}X\0\0\0\0" SOUND "s"), LAMINA_E_FORMAT, "another string"},
    {"a key with a zero", PICKLE("}X\2\0\0\0w\0" SOUND "s"), LAMINA_E_FORMAT, "another string"},
    {"a key that is not UTF-8", PICKLE("}X\2\0\0\0w\300" SOUND "s"), LAMINA_E_FORMAT, "another string"},
    {"a name twice", PICKLE("}" ITEM(SOUND) ITEM(SOUND)), LAMINA_E_FORMAT, "tensor w stands twice"},
    {"a storage alone", PICKLE("}" ITEM(SOUND_STORAGE)), LAMINA_E_UNSUPPORTED, "\"w\" is an object, not a tensor"},
    {"a dict in itself", PICKLE("}q\0X\1\0\0\0wh\0s"), LAMINA_E_UNSUPPORTED, "\"w\" is a dict, not a tensor"},
    {"a persistent number", PICKLE("K\1Q"), LAMINA_E_FORMAT, "found another persistent id"},
    {"a persistent id of another kind",
     PICKLE("(X\6\0\0\0modulectorch\nFloatStorage\nX\1\0\0\0"
            "0NK\6tQ"),
     LAMINA_E_FORMAT, "found another persistent id"},
    {"a storage of no class",
     PICKLE("(X\7\0\0\0storagectorch\nSize\nX\1\0\0\0"
            "0NK\6tQ"),
     LAMINA_E_FORMAT, "found another persistent id"},
    {"a storage of fewer than none", PICKLE(STORAGE("FloatStorage", "0", "J\377\377\377\377")), LAMINA_E_FORMAT,
     "found another persistent id"},
    {"a storage of 2^63 numbers", PICKLE(STORAGE("FloatStorage", "0", "\212\10\377\377\377\377\377\377\377\177")),
     LAMINA_E_FORMAT, "more than 64 bits of bytes"},
    {"a storage larger than its entry",
     PICKLE("}" ITEM(REBUILD(STORAGE("FloatStorage", "0", "K\7"), "K\0", "K\7", "K\1"))), LAMINA_E_FORMAT,
     "storage 0: expected 28 bytes, found 24"},
    {"a storage of another type", PICKLE("}" ITEM(REBUILD(STORAGE("DoubleStorage", "0", "K\6"), "K\0", "K\6", "K\1"))),
     LAMINA_E_FORMAT, "storage 0: expected 48 bytes, found 24"},
    {"a storage that is elsewhere", PICKLE("}" ITEM(REBUILD(STORAGE("FloatStorage", "/", "K\6"), "K\0", "K\6", "K\1"))),
     LAMINA_E_FORMAT, "there is no storage /"},
    {"a tensor too long", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0", "K\7", "K\1"))), LAMINA_E_FORMAT,
     "7 elements from element 0 on do not lie inside storage 0 of 6"},
    {"a tensor too far", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\1", "K\6", "K\1"))), LAMINA_E_FORMAT,
     "6 elements from element 1 on"},
    {"an offset below zero", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "J\377\377\377\377", "K\1", "K\1"))),
     LAMINA_E_FORMAT, "from element -1 on"},
    {"an offset of 2^63",
     PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "\212\10\377\377\377\377\377\377\377\177", "K\1", "K\1"))), LAMINA_E_FORMAT,
     "from element 9223372036854775807 on"},
    {"an offset of 2^64", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "\212\11\0\0\0\0\0\0\0\0\1", "K\1", "K\1"))),
     LAMINA_E_FORMAT, "_rebuild_tensor_v2: expected a storage, an offset"},
    {"a dimension below zero", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0", "J\377\377\377\377", "K\1"))),
     LAMINA_E_FORMAT, "a dimension of -1"},
    {"dimensions that wrap to 4",
     PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0", "\212\5\0\0\0\0\1\212\5\1\0\0\0\1K\4", "\212\5\4\0\0\0\4K\4K\1"))),
     LAMINA_E_FORMAT, "more than 64 bits of elements"},
    {"strides backwards", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0", "K\6", "J\377\377\377\377"))),
     LAMINA_E_UNSUPPORTED, "with strides (-1)"},
    {"a stride of none", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0", "K\6", "K\0"))), LAMINA_E_UNSUPPORTED,
     "strides (0)"},
    {"strides of another number", PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0", "K\6", "K\6K\1"))), LAMINA_E_FORMAT,
     "expected a storage, an offset, a size and as many strides"},
    {"a size in words",
     PICKLE("}" ITEM(REBUILD(SOUND_STORAGE, "K\0",
                             "X\1\0\0\0"
                             "6",
                             "K\1"))),
     LAMINA_E_FORMAT, "expected a storage, an offset"},
    {"a tensor of no storage", PICKLE("}" ITEM(REBUILD("N", "K\0", "K\6", "K\1"))), LAMINA_E_FORMAT,
     "expected a storage, an offset"},
    {"a tensor of a tensor", PICKLE("}" ITEM(REBUILD(SOUND, "K\0", "K\6", "K\1"))), LAMINA_E_FORMAT,
     "expected a storage, an offset"},
    {"a parameter of a storage", PICKLE("}" ITEM("ctorch._utils\n_rebuild_parameter\n" SOUND_STORAGE "\210}\207R")),
     LAMINA_E_FORMAT, "called with other arguments"},
    {"a dict of something", PICKLE("ccollections\nOrderedDict\n]\205R"), LAMINA_E_FORMAT,
     "called with other arguments"},
};

static void lying_pickles(void)
{
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        const part parts[MAX_PARTS] = {{.name = "a/data.pkl", .data = pickles[i].data, .n = pickles[i].n},
                                       {.name = "a/data/0", .data = six, .n = 24}};
        refused_zip(pickles[i].what, parts, pickles[i].status, pickles[i].words);
    }
    printf("  %zu pickles\n", sizeof pickles / sizeof *pickles);
}

/* Work and memory stay in proportion to the bytes that are there. */
static void bombs(void)
{
    static const struct {
        const char *what, *data; /* repeated */
        size_t n, times;
        const char *words;
    } cases[] = {
        {"a tuple of two of the last, and so on", BYTES("h\0h\0\206q\0"), 200000, "holds a tuple"},
        {"lists inside of lists", BYTES("]"), 1000000, "holds a list"},
        {"tuples inside of tuples", BYTES("\205"), 1000000, "holds a tuple"},
        {"marks", BYTES("("), 4000000, "found a mark"},
        {"empty dicts", BYTES("}"), 10000000, "takes more than 256 MiB"},
        {"strings", BYTES("X\1\0\0\0a"), 300000, "holds a string"},
        {"frames", BYTES("\225\0\0\0\0\0\0\0\0"), 300000, "tensor www"},
        {"one long name many times", BYTES("h\1h\2s"), 250000, "takes more than 256 MiB"},
        {"one storage many times", BYTES("h\3Q"), 1000000, "holds an object"},
    };
    bytes begin = {
        0}; /* memo 0: (), 1: a long name, 2: a tensor, 3: a persistent id; on top a dict of the tensor twice */
    put(&begin, BYTES_OF("\200\2)q\0X\350\3\0\0"));
    put_fill(&begin, 'w', 1000);
    put(&begin, BYTES_OF("q\1" SOUND "q\2(X\7\0\0\0storagectorch\nByteStorage\nX\1\0\0\0"
                         "0NK\1tq\3}h\1h\2sh\1h\2s"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = {0};
        put(&b, begin.data, begin.n);
        for (size_t k = 0; k < cases[i].times; k++) put(&b, cases[i].data, cases[i].n);
        put_text(&b, ".");
        folder f = folder_new();
        const part parts[MAX_PARTS] = {{.name = "a/data.pkl", .data = b.data, .n = b.n},
                                       {.name = "a/data/0", .data = six, .n = 24}};
        bytes z = zip_of(parts);
        write_bytes(&f, "x.bin", z.data, z.n);
        opened o = read_path(in(&f, "x.bin"));
        CHECK(o.status != LAMINA_OK && strstr(o.err.text, cases[i].words), "%s: %s", cases[i].what, o.err.text);
        uint64_t peak = memory_peak(o.m), limit = (UINT64_C(1) << 20) + 64 * (uint64_t)z.n;
        if (strstr(cases[i].words, "256 MiB")) limit = UINT64_C(320) << 20;
        CHECK(peak <= limit, "%s: %llu bytes for %zu", cases[i].what, (unsigned long long)peak, z.n);
        close_opened(&o);
        folder_remove(&f);
        drop(&z);
        drop(&b);
    }
    drop(&begin);
}

/* ---- the older form that lies ----------------------------------------------------------------------------------- */

#define PREAMBLE "\200\2\212\12l\374\234F\371 j\250P\31.\200\2M\351\3.\200\2}X\15\0\0\0little_endian\210s."
#define LEGACY(body, keys, count)                                                                                      \
    BYTES(PREAMBLE "\200\2" body ".\200\2" keys "." count "\0\0\0\0\0\0\0"                                             \
                   "abcdabcdabcdabcdabcdabcd")

static const struct {
    const char *what, *data;
    size_t n;
    lamina_status status;
    const char *words; /* NULL: is read */
} legacy[] = {
    {"a sound one",
     LEGACY("}" ITEM(SOUND),
            "]X\1\0\0\0"
            "0a",
            "\6"),
     LAMINA_OK, NULL},
    {"a count too small",
     LEGACY("}" ITEM(SOUND),
            "]X\1\0\0\0"
            "0a",
            "\5"),
     LAMINA_E_FORMAT, "expected 6 elements at offset"},
    {"a count too large",
     LEGACY("}" ITEM(SOUND),
            "]X\1\0\0\0"
            "0a",
            "\7"),
     LAMINA_E_FORMAT, "found 7"},
    {"no keys", LEGACY("}" ITEM(SOUND), "]", "\6"), LAMINA_E_FORMAT, "there is no storage 0"},
    {"another key",
     LEGACY("}" ITEM(SOUND),
            "]X\1\0\0\0"
            "1a",
            "\6"),
     LAMINA_E_FORMAT, "that no tensor names: 1"},
    {"a key that is none", LEGACY("}" ITEM(SOUND), "]Na", "\6"), LAMINA_E_FORMAT, "that no tensor names: None"},
    {"a key twice",
     LEGACY("}" ITEM(SOUND),
            "](X\1\0\0\0"
            "0X\1\0\0\0"
            "0e",
            "\6"),
     LAMINA_E_FORMAT, "cut short"},
    {"keys that are no list", LEGACY("}" ITEM(SOUND), "}", "\6"), LAMINA_E_FORMAT, "expected a list of the storage"},
    {"a storage of two sizes",
     LEGACY("}" ITEM(SOUND) "X\1\0\0\0v" REBUILD(STORAGE("FloatStorage", "0", "K\5"), "K\0", "K\5", "K\1") "s",
            "]X\1\0\0\0"
            "0a",
            "\6"),
     LAMINA_E_FORMAT, "storage 0 is said to have two sizes"},
    {"a storage that is not there",
     LEGACY("}" ITEM(REBUILD(STORAGE("FloatStorage", "0", "K\7"), "K\0", "K\7", "K\1")),
            "]X\1\0\0\0"
            "0a",
            "\7"),
     LAMINA_E_FORMAT, "do not lie inside the file"},
    {"a view of a storage",
     LEGACY("(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"
            "0NK\6(K\1K\1K\1ttQ",
            "]", "\6"),
     LAMINA_E_FORMAT, "found another persistent id"},
    {"a pickle of another program", BYTES("\200\2}X\1\0\0\0wK\1s."), LAMINA_E_FORMAT, "PyTorch's magic number"},
    {"another version", BYTES("\200\2\212\12l\374\234F\371 j\250P\31.\200\2M\352\3."), LAMINA_E_UNSUPPORTED,
     "expected version 1001"},
    {"a big-endian machine",
     BYTES("\200\2\212\12l\374\234F\371 j\250P\31.\200\2M\351\3.\200\2}X\15\0\0\0little_endian\211s."),
     LAMINA_E_UNSUPPORTED, "big-endian"},
    {"only the preamble", BYTES(PREAMBLE), LAMINA_E_FORMAT, "ends in the middle"},
    {"a pointer", BYTES("version https://git-lfs.github.com/spec/v1\n"), LAMINA_E_FORMAT, "git lfs pull"},
    {"a text", BYTES("weights"), LAMINA_E_FORMAT, "begins otherwise: expected what torch.save() writes"},
    {"nothing", "", 0, LAMINA_E_FORMAT, "is empty"},
};

static void lying_legacy(void)
{
    folder f = folder_new();
    for (size_t i = 0; i < sizeof legacy / sizeof *legacy; i++) {
        write_bytes(&f, "x.bin", legacy[i].data, legacy[i].n);
        if (legacy[i].words)
            refused(legacy[i].what, in(&f, "x.bin"), legacy[i].status, legacy[i].words);
        else
            CHECK(survives(in(&f, "x.bin"), legacy[i].what, 0), "%s", legacy[i].what);
    }
    bytes tar = {0};
    put_text(&tar, "storages");
    put_fill(&tar, 0, 257 - tar.n);
    put_text(&tar, "ustar");
    put_fill(&tar, 0, 600);
    write_bytes(&f, "x.bin", tar.data, tar.n);
    refused("a tar", in(&f, "x.bin"), LAMINA_E_UNSUPPORTED, "a tar of PyTorch 0.1: convert it with torch.save");
    drop(&tar);
    folder_remove(&f);
}

TEST_MAIN(T(what_torch_writes), T(shards), T(folders), T(shared_storages), T(what_torch_writes_and_we_refuse),
          T(every_truncation), T(every_byte), T(lying_zips), T(overlapping_entries), T(lying_ends),
          T(beyond_four_gigabytes), T(lying_pickles), T(bombs), T(lying_legacy))
