/* safetensors files as they should be, and cut short or starved of memory everywhere. */
#include "format/safetensors.h"

#include "build.h"

static opened open_one(folder *f, const char *header, size_t data_bytes)
{
    write_text(f, "config.json", "{\"model_type\":\"llama\"}");
    write_safetensors(f, "model.safetensors", header, data_bytes);
    return open_path(f->path);
}

static void directory_is_read(void)
{
    folder f = folder_new();
    const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"z\":{\"dtype\":\"BF16\",\"shape\":[3,4],\"data_offsets\":[8,32]},"
                         "\"b\\u00e9\\n\":{\"data_offsets\":[0,4],\"shape\":[1],\"dtype\":\"F32\"},"
                         "\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[40,48]},"
                         "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[4,4]}}   \n";
    opened o = open_one(&f, header, 48);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(o.c->kind == CHECKPOINT_HF && o.c->dialect == DIALECT_HF && o.c->n_files == 1, "kind %d, %u files", o.c->kind,
          o.c->n_files);
    CHECK(o.c->n_tensors == 4, "%zu tensors", o.c->n_tensors);
    CHECK(o.c->files[0].bytes == 8 + strlen(header) + 48, "%llu bytes", (unsigned long long)o.c->files[0].bytes);
    for (size_t i = 1; i < o.c->n_tensors; i++)
        CHECK(strcmp(o.c->tensors[i - 1].name, o.c->tensors[i].name) < 0, "not sorted at %zu", i);
    const tensor *z = checkpoint_find(o.c, "z"), *b = checkpoint_find(o.c, "b\xc3\xa9\n");
    REQUIRE(z && b, "z %p, b %p", (const void *)z, (const void *)b);
    CHECK(z->type == DT_BF16 && z->n_dims == 2 && z->shape[0] == 3 && z->shape[1] == 4 && z->bytes == 24, "z");
    CHECK(z->offset == 8 + strlen(header) + 8, "offset %llu", (unsigned long long)z->offset);
    CHECK(b->type == DT_F32 && b->n_dims == 1 && b->bytes == 4, "b");
    const tensor *scalar = checkpoint_find(o.c, "scalar"), *empty = checkpoint_find(o.c, "empty");
    REQUIRE(scalar && empty, "scalar or empty is missing");
    CHECK(scalar->n_dims == 0 && scalar->bytes == 8 && scalar->type == DT_I64, "scalar");
    CHECK(empty->bytes == 0 && empty->shape[1] == 7, "empty");
    CHECK(!checkpoint_find(o.c, "nothing"), "found what is not there");
    close_opened(&o);
    folder_remove(&f);
}

static void foreign_types_and_many_dimensions(void)
{
    folder f = folder_new();
    const char *header = "{\"packed\":{\"dtype\":\"F4\",\"shape\":[5],\"data_offsets\":[0,3]},"
                         "\"strange\":{\"dtype\":\"A_TYPE_WITH_A_NAME_LONGER_THAN_ANY_OTHER\",\"shape\":[1],"
                         "\"data_offsets\":[3,4]},"
                         "\"five\":{\"dtype\":\"U8\",\"shape\":[2,3,1,2,2],\"data_offsets\":[4,28]}}";
    opened o = open_one(&f, header, 28);
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    const tensor *packed = checkpoint_find(o.c, "packed"), *five = checkpoint_find(o.c, "five");
    REQUIRE(packed && five, "packed or five is missing");
    CHECK(packed->type == DT_OTHER && packed->bytes == 3, "type %d, %llu bytes", packed->type,
          (unsigned long long)packed->bytes);
    CHECK(packed->foreign_name && strcmp(packed->foreign_name, "F4") == 0 && !five->foreign_name, "names of types");
    CHECK(five->n_dims == 4 && five->shape[0] == 6 && five->shape[1] == 1 && five->shape[3] == 2, "five is [%llu,..]",
          (unsigned long long)five->shape[0]);
    close_opened(&o);
    folder_remove(&f);
}

static void cut_short_at_every_byte(void)
{
    folder f = folder_new();
    bytes b = {0};
    put_number(&b, strlen(ONE_TENSOR), 8);
    put_text(&b, ONE_TENSOR);
    put_fill(&b, 1, 24);
    write_text(&f, "config.json", "{}");
    for (size_t n = 0; n < b.n; n++) {
        write_bytes(&f, "model.safetensors", b.data, n);
        expect_refusal(f.path, LAMINA_E_FORMAT, "model.safetensors");
        if (test_now.current_failed) break;
    }
    write_bytes(&f, "model.safetensors", b.data, b.n);
    expect_open(f.path);
    drop(&b);
    folder_remove(&f);
}

static void every_byte_changed(void)
{
    folder f = folder_new();
    bytes b = {0};
    put_number(&b, strlen(ONE_TENSOR), 8);
    put_text(&b, ONE_TENSOR);
    put_fill(&b, 1, 24);
    write_text(&f, "config.json", "{}");
    for (size_t i = 0; i < b.n; i++) {
        static const unsigned char flips[] = {1, 0x80, 0xff};
        for (size_t k = 0; k < sizeof flips; k++) {
            b.data[i] ^= flips[k];
            write_bytes(&f, "model.safetensors", b.data, b.n);
            b.data[i] ^= flips[k];
            opened o = open_path(f.path);
            CHECK(o.status == LAMINA_OK || (o.status == LAMINA_E_FORMAT && o.err.text[0]), "byte %zu: status %d", i,
                  o.status);
            close_opened(&o);
        }
    }
    drop(&b);
    folder_remove(&f);
}

static void every_allocation_fails(void)
{
    folder f = folder_new();
    opened o = open_one(&f, "{\"a\\n\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    CHECK(o.status == LAMINA_OK, "%s", o.err.text);
    close_opened(&o);
    unsigned n = fail_every_allocation(f.path);
    printf("  %u allocations failed in turn\n", n);
    CHECK(n >= 8, "only %u allocations", n);
    folder_remove(&f);
}

/* A giant's directory: time must grow with its length, not with its square. */
static void many_tensors(void)
{
    enum { N = 100000 };
    folder f = folder_new();
    bytes b = {0};
    char line[128];
    put_text(&b, "{");
    for (unsigned i = 0; i < N; i++) {
        unsigned k = i * 7919u % N; /* names in no order */
        snprintf(line, sizeof line, "%s\"t%u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%u,%u]}", i ? "," : "",
                 k, i, i + 1);
        put_text(&b, line);
    }
    put_text(&b, "}");
    put(&b, "", 1);
    double begin = os_seconds();
    opened o = open_one(&f, (char *)b.data, N);
    double seconds = os_seconds() - begin;
    REQUIRE(o.status == LAMINA_OK, "%s", o.err.text);
    CHECK(o.c->n_tensors == N && checkpoint_find(o.c, "t99999"), "%zu tensors", o.c->n_tensors);
    printf("  %d tensors in %.3f s, %.1f MB held, %.1f MB at most\n", N, seconds, 1e-6 * (double)memory_used(o.m),
           1e-6 * (double)memory_peak(o.m));
    CHECK(seconds < 10, "%.3f s; a quadratic search would take minutes", seconds);
    close_opened(&o);
    drop(&b);
    folder_remove(&f);
}

TEST_MAIN(T(directory_is_read), T(foreign_types_and_many_dimensions), T(cut_short_at_every_byte), T(every_byte_changed),
          T(every_allocation_fails), T(many_tensors))
