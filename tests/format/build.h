/* Builds files of every format, right or wrong on purpose, in a folder of their own, and opens them. */
#ifndef LAMINA_TEST_FORMAT_BUILD_H
#define LAMINA_TEST_FORMAT_BUILD_H

#include <stdint.h>
#include <unistd.h>

#include "base/os.h"
#include "format/checkpoint.h"
#include "test.h"

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

typedef struct bytes {
    unsigned char *data;
    size_t n, room;
} bytes;

static inline void put(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->room) {
        b->room = 2 * (b->n + n) + 64;
        b->data = realloc(b->data, b->room);
        if (!b->data) abort();
    }
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
}

static inline void put_text(bytes *b, const char *text)
{
    put(b, text, strlen(text));
}

/* width bytes, little-endian */
static inline void put_number(bytes *b, uint64_t v, unsigned width)
{
    unsigned char raw[8];
    for (unsigned i = 0; i < width; i++) raw[i] = (unsigned char)(v >> (8 * i));
    put(b, raw, width);
}

static inline void put_fill(bytes *b, unsigned char value, size_t n)
{
    for (size_t i = 0; i < n; i++) put(b, &value, 1);
}

static inline void drop(bytes *b)
{
    free(b->data);
    *b = (bytes){0};
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

typedef struct folder {
    char path[256];
    char joined[512]; /* the last name made by in() */
} folder;

static inline folder folder_new(void)
{
    folder f;
    const char *base = getenv("TMPDIR");
    snprintf(f.path, sizeof f.path, "%s/lamina-test-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    if (!mkdtemp(f.path)) abort();
    return f;
}

static inline const char *in(folder *f, const char *name)
{
    snprintf(f->joined, sizeof f->joined, "%s/%s", f->path, name);
    return f->joined;
}

static inline void write_bytes(folder *f, const char *name, const void *data, size_t n)
{
    FILE *file = fopen(in(f, name), "wb");
    if (!file || fwrite(data, 1, n, file) != n || fclose(file) != 0) abort();
}

static inline void write_text(folder *f, const char *name, const char *text)
{
    write_bytes(f, name, text, strlen(text));
}

static inline lamina_status remove_name(void *user, const char *name, lamina_error *err)
{
    (void)err;
    (void)remove(in(user, name));
    return LAMINA_OK;
}

static inline void folder_empty(folder *f)
{
    (void)os_list_dir(f->path, remove_name, f, NULL);
}

static inline void folder_remove(folder *f)
{
    folder_empty(f);
    (void)rmdir(f->path);
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

typedef struct opened {
    memory *m;
    checkpoint *c;
    lamina_status status;
    lamina_error err;
} opened;

static inline opened open_path(const char *path)
{
    opened o = {.m = memory_new()};
    if (!o.m) abort();
    o.status = checkpoint_open(o.m, path, &o.c, &o.err);
    return o;
}

/* Closes; what is left in the accountant fails the test. */
static inline void close_opened(opened *o)
{
    checkpoint_free(o->c);
    uint64_t left = memory_free(o->m);
    CHECK(left == 0, "%llu bytes are still held", (unsigned long long)left);
}

static inline void expect_open(const char *path)
{
    opened o = open_path(path);
    CHECK(o.status == LAMINA_OK, "%s", o.err.text);
    close_opened(&o);
}

/* Opening must fail with this status and with these words in the text. */
static inline void expect_refusal(const char *path, lamina_status status, const char *words)
{
    opened o = open_path(path);
    CHECK(o.status == status, "status %d (%s), expected %d with \"%s\"", o.status, o.err.text, status, words);
    CHECK(strstr(o.err.text, words) != NULL, "\"%s\" does not say \"%s\"", o.err.text, words);
    CHECK(o.c == NULL, "a checkpoint was returned");
    close_opened(&o);
}

/* Opens again and again, each time with a later allocation failing, until one succeeds. Every failure must be a memory
 * error with a text and leave nothing behind. Returns how many failed. */
static inline unsigned fail_every_allocation(const char *path)
{
    for (unsigned n = 1; n < 100000; n++) {
        memory *m = memory_new();
        checkpoint *c = NULL;
        lamina_error err = {0};
        memory_fail_at(m, n);
        lamina_status status = checkpoint_open(m, path, &c, &err);
        CHECK(status == LAMINA_OK || (status == LAMINA_E_MEMORY && err.text[0]), "allocation %u: status %d: %s", n,
              status, err.text);
        CHECK((status == LAMINA_OK) == (c != NULL), "allocation %u: status %d, checkpoint %p", n, status, (void *)c);
        checkpoint_free(c);
        uint64_t left = memory_free(m);
        CHECK(left == 0, "allocation %u: %llu bytes are still held", n, (unsigned long long)left);
        if (status != LAMINA_E_MEMORY || test_now.current_failed) return n - 1;
    }
    return 0;
}

/* ---- safetensors ------------------------------------------------------------------------------------------------ */

static inline void write_safetensors(folder *f, const char *name, const char *header, size_t data_bytes)
{
    bytes b = {0};
    put_number(&b, strlen(header), 8);
    put_text(&b, header);
    put_fill(&b, 0x3f, data_bytes);
    write_bytes(f, name, b.data, b.n);
    drop(&b);
}

#define ONE_TENSOR "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}"

/* ---- GGUF ------------------------------------------------------------------------------------------------------- */

enum { G_U8, G_I8, G_U16, G_I16, G_U32, G_I32, G_F32, G_BOOL, G_TEXT, G_ARRAY, G_U64, G_I64, G_F64 };

static inline void g_text(bytes *b, const char *text)
{
    put_number(b, strlen(text), 8);
    put_text(b, text);
}

static inline void g_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_entries)
{
    put_text(b, "GGUF");
    put_number(b, version, 4);
    put_number(b, n_tensors, 8);
    put_number(b, n_entries, 8);
}

static inline void g_key(bytes *b, const char *key, uint32_t type)
{
    g_text(b, key);
    put_number(b, type, 4);
}

static inline void g_entry_text(bytes *b, const char *key, const char *text)
{
    g_key(b, key, G_TEXT);
    g_text(b, text);
}

static inline void g_entry_u32(bytes *b, const char *key, uint32_t v)
{
    g_key(b, key, G_U32);
    put_number(b, v, 4);
}

static inline void g_entry_f32(bytes *b, const char *key, float v)
{
    uint32_t raw;
    memcpy(&raw, &v, sizeof raw);
    g_key(b, key, G_F32);
    put_number(b, raw, 4);
}

static inline void g_array(bytes *b, const char *key, uint32_t element, uint64_t n)
{
    g_key(b, key, G_ARRAY);
    put_number(b, element, 4);
    put_number(b, n, 8);
}

/* dims in GGUF's order, fastest-varying first */
static inline void g_tensor(bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                            uint64_t offset)
{
    g_text(b, name);
    put_number(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) put_number(b, dims[i], 8);
    put_number(b, type, 4);
    put_number(b, offset, 8);
}

static inline void g_align(bytes *b, size_t alignment)
{
    while (b->n % alignment) put_fill(b, 0, 1);
}

#endif
