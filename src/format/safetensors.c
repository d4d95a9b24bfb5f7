/* Owns the reading of safetensors headers (as its documentation has it: 8 bytes of length, little-endian; a
 * JSON object; data). Promises that a header is walked in place, without a tree, in memory that the accountant knows:
 * a giant's directory has 10^5 entries, and a tree would cost twenty times its text. What can be said of one entry is
 * checked here; duplicates, overlaps and extents are checkpoint_seal()'s. Holes between tensors are allowed. */
#include "format/safetensors.h"

#include <inttypes.h>
#include <string.h>

#include "base/os.h"
#include "format/jsonpull.h"
#include "format/little.h"

enum { HEADER_LIMIT = 100000000 }; /* bytes, as the reference implementation */
enum { DIMS_LIMIT = 64 };

typedef struct reading {
    checkpoint *c;
    const char *path;
    uint32_t file;
    uint64_t data;       /* where the data begin */
    uint64_t data_bytes; /* and how many there are */
} reading;

typedef struct entry {
    bool has_type, has_shape, has_offsets;
    tensor t;
    char type_name[32]; /* cut */
    uint64_t begin, end;
} entry;

static lamina_status read_count(const reading *r, const char *tensor_name, const char *what, jp *p, uint64_t *out,
                                lamina_error *err)
{
    int64_t v = -1;
    if (jp_peek(p) != JP_NUMBER || jp_integer(p, &v, NULL) != LAMINA_OK || v < 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: \"%s\": expected integers from 0 to 2^63 - 1", r->path,
                         tensor_name, what);
    *out = (uint64_t)v;
    return LAMINA_OK;
}

static lamina_status read_shape(const reading *r, entry *e, jp *p, lamina_error *err)
{
    jp in;
    tensor *t = &e->t;
    if (jp_enter(p, JP_ARRAY, &in, NULL) != LAMINA_OK)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: \"shape\" is not an array", r->path, t->name);
    uint64_t dims[DIMS_LIMIT];
    uint32_t n = 0;
    while (jp_next_item(&in)) {
        if (n == DIMS_LIMIT)
            return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: more than %d dimensions", r->path, t->name,
                             DIMS_LIMIT);
        TRY(read_count(r, t->name, "shape", &in, &dims[n++], err));
    }
    if (!tensor_set_shape(t, dims, n))
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: more than 64 bits of elements", r->path, t->name);
    return LAMINA_OK;
}

static lamina_status read_type(const reading *r, entry *e, jp *p, lamina_error *err)
{
    jp_text text;
    if (jp_peek(p) != JP_STRING)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: \"dtype\" is not a string", r->path, e->t.name);
    TRY(jp_string(p, &text, err));
    size_t room = sizeof e->type_name - 1, n = text.bytes < room ? text.bytes : room;
    memcpy(e->type_name, text.data, n);
    if (text.bytes <= room && dtype_from_safetensors(e->type_name, &e->t.type)) return LAMINA_OK;
    e->t.type = DT_OTHER;
    e->t.foreign_name = e->type_name;
    return LAMINA_OK;
}

static lamina_status read_offsets(const reading *r, entry *e, jp *p, lamina_error *err)
{
    jp in;
    uint64_t pair[2] = {0};
    uint32_t n = 0;
    if (jp_enter(p, JP_ARRAY, &in, NULL) == LAMINA_OK) {
        while (jp_next_item(&in)) {
            uint64_t v = 0;
            TRY(read_count(r, e->t.name, "data_offsets", &in, &v, err));
            if (n < 2) pair[n] = v;
            n++;
            if (n > 2) break;
        }
    }
    if (n != 2 || pair[0] > pair[1])
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: \"data_offsets\": expected a begin and an end after it",
                         r->path, e->t.name);
    if (pair[1] > r->data_bytes)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: ends at byte %" PRIu64 " of the data, of which there are %" PRIu64
                         " (is the file cut short?)",
                         r->path, e->t.name, pair[1], r->data_bytes);
    e->begin = pair[0];
    e->end = pair[1];
    return LAMINA_OK;
}

static lamina_status read_member(const reading *r, entry *e, jp_text key, jp *p, lamina_error *err)
{
    bool *seen = jp_is(key, "dtype")          ? &e->has_type
                 : jp_is(key, "shape")        ? &e->has_shape
                 : jp_is(key, "data_offsets") ? &e->has_offsets
                                              : NULL;
    if (!seen || *seen)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: the key \"%.*s\" %s", r->path, e->t.name,
                         key.bytes > 64 ? 64 : (int)key.bytes, key.data, seen ? "stands twice" : "is unknown");
    *seen = true;
    jp value = *p;
    jp_skip(p);
    if (seen == &e->has_type) return read_type(r, e, &value, err);
    return seen == &e->has_shape ? read_shape(r, e, &value, err) : read_offsets(r, e, &value, err);
}

/* p stands before the value of the entry `name`. */
static lamina_status read_entry(const reading *r, const char *name, jp *p, lamina_error *err)
{
    entry e = {.t = {.name = name, .file = r->file}};
    jp in;
    if (jp_enter(p, JP_OBJECT, &in, NULL) != LAMINA_OK)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: expected an object with dtype, shape, data_offsets",
                         r->path, name);
    for (;;) {
        bool more;
        jp_text key;
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) break;
        TRY(read_member(r, &e, key, &in, err));
    }
    if (!e.has_type || !e.has_shape || !e.has_offsets)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: \"%s\" is missing", r->path, name,
                         !e.has_type    ? "dtype"
                         : !e.has_shape ? "shape"
                                        : "data_offsets");
    e.t.offset = r->data + e.begin;
    e.t.bytes = e.end - e.begin;
    return checkpoint_add_tensor(r->c, &e.t, err);
}

enum { NAME_LIMIT = 1024 };

static lamina_status read_entries(const reading *r, jp *root, lamina_error *err)
{
    jp in;
    char name[NAME_LIMIT + 1];
    TRY(jp_enter(root, JP_OBJECT, &in, err));
    for (;;) {
        bool more;
        jp_text key;
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) return LAMINA_OK;
        if (jp_is(key, "__metadata__")) {
            if (jp_peek(&in) != JP_OBJECT)
                return error_set(err, LAMINA_E_FORMAT, "%s: \"__metadata__\" is not an object", r->path);
            jp_skip(&in);
            continue;
        }
        if (key.bytes == 0 || key.bytes > NAME_LIMIT || memchr(key.data, '\0', key.bytes))
            return error_set(err, LAMINA_E_FORMAT,
                             "%s: a tensor's name of %zu bytes: expected 1 to %d without a zero byte", r->path,
                             key.bytes, NAME_LIMIT);
        memcpy(name, key.data, key.bytes);
        name[key.bytes] = '\0';
        jp value = in;
        jp_skip(&in);
        TRY(read_entry(r, name, &value, err));
    }
}

static lamina_status walk_header(const reading *r, const char *text, size_t bytes, lamina_error *err)
{
    jp_document document;
    jp root;
    lamina_status status = jp_open(r->c->m, MEM_OTHER, r->path, text, bytes, &document, &root, err);
    if (status == LAMINA_OK) status = read_entries(r, &root, err);
    jp_close(&document);
    return status;
}

static lamina_status read_header(checkpoint *c, const os_file *file, const char *path, const char *name,
                                 lamina_error *err)
{
    uint64_t size = 0;
    unsigned char length[8];
    TRY(os_file_size(file, path, &size, err));
    if (size < sizeof length)
        return error_set(err, LAMINA_E_FORMAT, "%s: expected a safetensors file, found %" PRIu64 " bytes", path, size);
    TRY(os_read_at(file, path, 0, length, sizeof length, err));
    uint64_t bytes = little_number(length, sizeof length);
    if (bytes > HEADER_LIMIT)
        return error_set(err, LAMINA_E_FORMAT, "%s: a safetensors header of %" PRIu64 " bytes: expected at most %d",
                         path, bytes, HEADER_LIMIT);
    if (bytes > size - sizeof length || bytes < 2)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: a safetensors header of %" PRIu64 " bytes in a file of %" PRIu64
                         " bytes (is it cut short?)",
                         path, bytes, size);
    reading r = {.c = c, .path = path, .data = sizeof length + bytes, .data_bytes = size - sizeof length - bytes};
    TRY(checkpoint_add_file(c, path, name, size, &r.file, err));
    char *text = mem_alloc(c->m, MEM_OTHER, (size_t)bytes, err);
    if (!text) return err ? err->status : LAMINA_E_MEMORY;
    lamina_status status = os_read_at(file, path, sizeof length, text, (size_t)bytes, err);
    if (status == LAMINA_OK && text[0] != '{')
        status = error_set(err, LAMINA_E_FORMAT, "%s: the safetensors header does not begin with '{'", path);
    if (status == LAMINA_OK) status = walk_header(&r, text, (size_t)bytes, err);
    mem_free(c->m, text);
    return status;
}

lamina_status safetensors_read(checkpoint *c, const char *path, const char *name, lamina_error *err)
{
    os_file file;
    TRY(os_open(path, OS_READ, &file, err));
    lamina_status status = read_header(c, &file, path, name, err);
    os_close(&file);
    return status;
}
