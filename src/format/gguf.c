/* Owns the reading of GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3,
 * little-endian). Promises that no count, length or offset of the file is believed before it is checked against the
 * bytes that are really there, that memory grows only with bytes that have been read, and that every accessor answers
 * without reading the file again.
 *
 * The metadata's bytes are kept as they stand, in one block: a vocabulary of 256k words is ten megabytes of text,
 * copied nowhere. Entries are sorted by key; an array of texts has a table of where each begins, so that any is found
 * in constant time. What follows the metadata (the directory of tensors) passes through the same block and is cut
 * off. */
#include "format/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "format/little.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64, N_TYPES };
static const uint8_t type_bytes[N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const type_names[N_TYPES] = {"uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                                "bool",  "string", "array",  "uint64", "int64",  "float64"};

enum {
    KEY_LIMIT = 65535, /* bytes, by the specification */
    NAME_LIMIT = 1024, /* bytes of a tensor's name; the reference stops at 64 */
    PIECE = 256 << 10, /* bytes of the first read */
    ALIGNMENT_LIMIT = 1 << 30,
    PARTS_LIMIT = 99999 /* the names of parts have five digits */
};
#define SECTION_LIMIT (UINT64_C(1) << 30) /* bytes of metadata and directory: positions fit into 32 bits */

typedef struct entry {
    uint32_t key, key_bytes; /* position in the blob */
    uint32_t at;             /* position of the value, or of an array's first element */
    uint32_t type, element;  /* element: of an ARRAY */
    uint64_t n;              /* elements of an ARRAY */
    uint32_t *starts;        /* [n] of an ARRAY of TEXT: position of each length */
} entry;

struct gguf {
    memory *m;
    unsigned char *blob;
    uint64_t bytes;
    entry *entries; /* sorted by key */
    size_t n, room;
};

static lamina_status memory_status(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

void gguf_free(gguf *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->n; i++) mem_free(g->m, g->entries[i].starts);
    mem_free(g->m, g->entries);
    mem_free(g->m, g->blob);
    mem_free(g->m, g);
}

/* ---- reading bytes as they are needed --------------------------------------------------------------------------- */

typedef struct reading {
    gguf *g;
    os_file file;
    const char *path;
    uint64_t size; /* of the file */
    uint64_t room; /* allocated for the blob */
    uint64_t at;   /* next byte, in the blob as in the file */
    uint64_t n_tensors, n_entries;
    uint64_t alignment;
} reading;

/* Sees to it that the next n bytes are in the blob. */
static lamina_status need(reading *r, uint64_t n, const char *what, lamina_error *err)
{
    gguf *g = r->g;
    if (n > r->size - r->at)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: the file of %" PRIu64 " bytes ends inside %s, which needs %" PRIu64
                         " bytes at offset %" PRIu64,
                         r->path, r->size, what, n, r->at);
    uint64_t end = r->at + n;
    if (end <= g->bytes) return LAMINA_OK;
    if (end > SECTION_LIMIT)
        return error_set(err, LAMINA_E_FORMAT, "%s: metadata and tensor directory exceed %" PRIu64 " bytes in %s",
                         r->path, SECTION_LIMIT, what);
    uint64_t want = g->bytes ? 2 * g->bytes : PIECE;
    if (want < end) want = end;
    if (want > r->size) want = r->size;
    if (want > r->room) {
        unsigned char *grown = mem_resize(g->m, MEM_MODEL, g->blob, (size_t)want, err);
        if (!grown) return memory_status(err);
        g->blob = grown;
        r->room = want;
    }
    TRY(os_read_at(&r->file, r->path, g->bytes, g->blob + g->bytes, (size_t)(want - g->bytes), err));
    g->bytes = want;
    return LAMINA_OK;
}

static lamina_status read_number(reading *r, unsigned width, const char *what, uint64_t *v, lamina_error *err)
{
    TRY(need(r, width, what, err));
    *v = little_number(r->g->blob + r->at, width);
    r->at += width;
    return LAMINA_OK;
}

/* A length and that many bytes; *begin is the position of the bytes. */
static lamina_status read_text(reading *r, const char *what, uint64_t *begin, uint64_t *bytes, lamina_error *err)
{
    TRY(read_number(r, 8, what, bytes, err));
    TRY(need(r, *bytes, what, err));
    *begin = r->at;
    r->at += *bytes;
    return LAMINA_OK;
}

/* ---- metadata --------------------------------------------------------------------------------------------------- */

static lamina_status read_value_type(reading *r, const char *what, uint32_t *type, lamina_error *err)
{
    uint64_t v;
    TRY(read_number(r, 4, what, &v, err));
    if (v >= N_TYPES)
        return error_set(err, LAMINA_E_FORMAT, "%s: %s: %" PRIu64 " is not a type of metadata", r->path, what, v);
    *type = (uint32_t)v;
    return LAMINA_OK;
}

static lamina_status read_texts(reading *r, entry *e, const char *what, lamina_error *err)
{
    if (e->n > (r->size - r->at) / 8)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: %s: %" PRIu64 " strings do not fit into the file of %" PRIu64 " bytes", r->path, what,
                         e->n, r->size);
    uint64_t room = 0;
    for (uint64_t i = 0; i < e->n; i++) {
        if (i == room) { /* grows with what has been read: a count alone takes no memory */
            room = room ? 2 * room : 1024;
            if (room > e->n) room = e->n;
            uint32_t *grown = mem_resize(r->g->m, MEM_MODEL, e->starts, (size_t)room * sizeof *grown, err);
            if (!grown) return memory_status(err);
            e->starts = grown;
        }
        uint64_t begin, bytes, start = r->at;
        TRY(read_text(r, what, &begin, &bytes, err));
        e->starts[i] = (uint32_t)start;
    }
    return LAMINA_OK;
}

static lamina_status read_array(reading *r, entry *e, const char *what, lamina_error *err)
{
    TRY(read_value_type(r, what, &e->element, err));
    TRY(read_number(r, 8, what, &e->n, err));
    if (e->element == ARRAY) return error_set(err, LAMINA_E_UNSUPPORTED, "%s: %s: an array of arrays", r->path, what);
    e->at = (uint32_t)r->at;
    if (e->element == TEXT) return read_texts(r, e, what, err);
    unsigned width = type_bytes[e->element];
    if (e->n > (r->size - r->at) / width)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: %s: %" PRIu64 " elements of type %s do not fit into the file of %" PRIu64 " bytes",
                         r->path, what, e->n, type_names[e->element], r->size);
    TRY(need(r, e->n * width, what, err));
    r->at += e->n * width;
    return LAMINA_OK;
}

static lamina_status read_value(reading *r, entry *e, const char *what, lamina_error *err)
{
    TRY(read_value_type(r, what, &e->type, err));
    if (e->type == ARRAY) return read_array(r, e, what, err);
    e->at = (uint32_t)r->at;
    if (e->type == TEXT) {
        uint64_t begin, bytes;
        return read_text(r, what, &begin, &bytes, err);
    }
    unsigned width = type_bytes[e->type];
    TRY(need(r, width, what, err));
    if (e->type == BOOL && r->g->blob[r->at] > 1)
        return error_set(err, LAMINA_E_FORMAT, "%s: %s: expected a bool of 0 or 1, found %d", r->path, what,
                         r->g->blob[r->at]);
    r->at += width;
    return LAMINA_OK;
}

static lamina_status read_key(reading *r, entry *e, lamina_error *err)
{
    uint64_t begin, bytes;
    TRY(read_number(r, 8, "a metadata key", &bytes, err));
    if (bytes == 0 || bytes > KEY_LIMIT)
        return error_set(err, LAMINA_E_FORMAT, "%s: a metadata key of %" PRIu64 " bytes: expected 1 to %d", r->path,
                         bytes, KEY_LIMIT);
    r->at -= 8;
    TRY(read_text(r, "a metadata key", &begin, &bytes, err));
    for (uint64_t i = begin; i < begin + bytes; i++) {
        if (r->g->blob[i] < 0x20 || r->g->blob[i] > 0x7e)
            return error_set(err, LAMINA_E_FORMAT, "%s: the metadata key at offset %" PRIu64 " is not printable ASCII",
                             r->path, begin);
    }
    e->key = (uint32_t)begin;
    e->key_bytes = (uint32_t)bytes;
    return LAMINA_OK;
}

static lamina_status read_entry(reading *r, lamina_error *err)
{
    gguf *g = r->g;
    if (g->n == g->room) {
        size_t room = g->room ? 2 * g->room : 64;
        entry *grown = mem_resize(g->m, MEM_MODEL, g->entries, room * sizeof *grown, err);
        if (!grown) return memory_status(err);
        g->entries = grown;
        g->room = room;
    }
    entry *e = &g->entries[g->n];
    *e = (entry){0};
    TRY(read_key(r, e, err));
    g->n++; /* from here on gguf_free() knows it */
    char what[128];
    snprintf(what, sizeof what, "metadata %.*s", e->key_bytes > 100 ? 100 : (int)e->key_bytes,
             (const char *)g->blob + e->key);
    return read_value(r, e, what, err);
}

/* Order of keys: by bytes, the shorter first. */
static int compare_texts(gguf_string a, gguf_string b)
{
    uint64_t n = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = n ? memcmp(a.data, b.data, (size_t)n) : 0;
    if (order) return order;
    return a.bytes < b.bytes ? -1 : a.bytes > b.bytes;
}

static gguf_string key_of(const gguf *g, const entry *e)
{
    return (gguf_string){(const char *)g->blob + e->key, e->key_bytes};
}

static const entry *find(const gguf *g, gguf_string key)
{
    size_t low = 0, high = g->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_texts(key_of(g, &g->entries[middle]), key);
        if (order == 0) return &g->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static const entry *find_text(const gguf *g, const char *key)
{
    return find(g, (gguf_string){key, strlen(key)});
}

/* Heap sort: qsort() has no portable way to know the blob. */
static void sift(gguf *g, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && compare_texts(key_of(g, &g->entries[child]), key_of(g, &g->entries[child + 1])) < 0)
            child++;
        if (compare_texts(key_of(g, &g->entries[root]), key_of(g, &g->entries[child])) >= 0) return;
        entry e = g->entries[root];
        g->entries[root] = g->entries[child];
        g->entries[child] = e;
    }
}

static lamina_status sort_entries(const reading *r, lamina_error *err)
{
    gguf *g = r->g;
    for (size_t i = g->n / 2; i-- > 0;) sift(g, i, g->n);
    for (size_t n = g->n; n > 1; n--) {
        entry e = g->entries[0];
        g->entries[0] = g->entries[n - 1];
        g->entries[n - 1] = e;
        sift(g, 0, n - 1);
    }
    for (size_t i = 1; i < g->n; i++) {
        gguf_string key = key_of(g, &g->entries[i]);
        if (compare_texts(key_of(g, &g->entries[i - 1]), key) == 0)
            return error_set(err, LAMINA_E_FORMAT, "%s: metadata %.*s stands twice", r->path,
                             key.bytes > 200 ? 200 : (int)key.bytes, key.data);
    }
    return LAMINA_OK;
}

static lamina_status read_head(reading *r, lamina_error *err)
{
    TRY(need(r, 4, "the magic", err));
    if (memcmp(r->g->blob, "GGUF", 4) != 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: expected a GGUF file, found other bytes at its beginning", r->path);
    r->at = 4;
    uint64_t version;
    TRY(read_number(r, 4, "the version", &version, err));
    if (version != 0 && (version & 0xffff) == 0)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: a big-endian GGUF file: expected little-endian", r->path);
    if (version != 2 && version != 3)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: GGUF version %" PRIu64 ": expected 2 or 3", r->path, version);
    TRY(read_number(r, 8, "the number of tensors", &r->n_tensors, err));
    TRY(read_number(r, 8, "the number of metadata entries", &r->n_entries, err));
    enum { LEAST_ENTRY = 8 + 1 + 4 + 1, LEAST_TENSOR = 8 + 1 + 4 + 4 + 8 };
    uint64_t left = r->size - r->at;
    if (r->n_entries > left / LEAST_ENTRY)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: %" PRIu64 " metadata entries do not fit into the file of %" PRIu64 " bytes", r->path,
                         r->n_entries, r->size);
    if (r->n_tensors > left / LEAST_TENSOR)
        return error_set(err, LAMINA_E_FORMAT, "%s: %" PRIu64 " tensors do not fit into the file of %" PRIu64 " bytes",
                         r->path, r->n_tensors, r->size);
    return LAMINA_OK;
}

static lamina_status read_metadata(reading *r, lamina_error *err)
{
    TRY(read_head(r, err));
    for (uint64_t i = 0; i < r->n_entries; i++) TRY(read_entry(r, err));
    TRY(sort_entries(r, err));
    r->alignment = 32;
    if (find_text(r->g, "general.alignment") &&
        (!gguf_u64(r->g, "general.alignment", &r->alignment) || r->alignment == 0 || r->alignment > ALIGNMENT_LIMIT ||
         (r->alignment & (r->alignment - 1)) != 0))
        return error_set(err, LAMINA_E_FORMAT, "%s: general.alignment: expected a power of two up to %d", r->path,
                         ALIGNMENT_LIMIT);
    return LAMINA_OK;
}

/* ---- the directory of tensors ------------------------------------------------------------------------------------ */

static lamina_status read_dims(reading *r, tensor *t, lamina_error *err)
{
    uint64_t v;
    TRY(read_number(r, 4, "a tensor's dimensions", &v, err));
    if (v > TENSOR_MAX_DIMS)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: expected at most %d dimensions, found %" PRIu64, r->path,
                         t->name, TENSOR_MAX_DIMS, v);
    t->n_dims = (uint32_t)v;
    for (uint32_t i = t->n_dims; i-- > 0;) TRY(read_number(r, 8, "a tensor's dimensions", &t->shape[i], err));
    return LAMINA_OK;
}

static lamina_status tensor_bytes(const reading *r, tensor *t, lamina_error *err)
{
    t->bytes = 0;
    if (t->type == DT_OTHER) return LAMINA_OK;
    uint64_t row = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    if (!dtype_row_ok(t->type, row))
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: rows of %" PRIu64 " elements are not whole blocks of %" PRIu32 " (%s)",
                         r->path, t->name, row, dtype_table[t->type].block_elements, dtype_name(t->type));
    uint64_t total = dtype_row_bytes(t->type, row);
    bool overflow = total == 0 && row != 0;
    for (uint32_t i = 0; i + 1 < t->n_dims && !overflow; i++) {
        overflow = t->shape[i] && total > UINT64_MAX / t->shape[i];
        total *= t->shape[i];
    }
    if (overflow)
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: its shape has more than 64 bits of bytes", r->path,
                         t->name);
    t->bytes = total;
    return LAMINA_OK;
}

/* One line of the directory; its offset still counts from where the data begin. */
static lamina_status read_tensor(reading *r, checkpoint *c, uint32_t file, lamina_error *err)
{
    char name[NAME_LIMIT + 1];
    tensor t = {.name = name, .file = file};
    uint64_t bytes, begin, type;
    TRY(read_number(r, 8, "a tensor's name", &bytes, err));
    if (bytes == 0 || bytes > NAME_LIMIT)
        return error_set(err, LAMINA_E_FORMAT, "%s: a tensor's name of %" PRIu64 " bytes: expected 1 to %d", r->path,
                         bytes, NAME_LIMIT);
    r->at -= 8;
    TRY(read_text(r, "a tensor's name", &begin, &bytes, err));
    memcpy(name, r->g->blob + begin, (size_t)bytes);
    name[bytes] = '\0';
    if (strlen(name) != bytes)
        return error_set(err, LAMINA_E_FORMAT, "%s: the name of a tensor holds a zero byte: %s", r->path, name);
    TRY(read_dims(r, &t, err));
    TRY(read_number(r, 4, "a tensor's type", &type, err));
    TRY(read_number(r, 8, "a tensor's offset", &t.offset, err));
    if (!dtype_from_gguf((uint32_t)type, &t.type))
        return error_set(err, LAMINA_E_FORMAT, "%s: tensor %s: %" PRIu64 " is not a type of tensor", r->path, name,
                         type);
    if (t.type == DT_OTHER) {
        t.foreign_type = (uint32_t)type;
        t.foreign_name = dtype_gguf_name(t.foreign_type);
    }
    if (t.offset % r->alignment)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: tensor %s: offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, r->path, name,
                         t.offset, r->alignment);
    TRY(tensor_bytes(r, &t, err));
    return checkpoint_add_tensor(c, &t, err);
}

static lamina_status read_directory(reading *r, checkpoint *c, uint32_t file, lamina_error *err)
{
    size_t first = c->n_tensors;
    for (uint64_t i = 0; i < r->n_tensors; i++) TRY(read_tensor(r, c, file, err));
    uint64_t data = (r->at + r->alignment - 1) & ~(r->alignment - 1);
    for (size_t i = first; i < c->n_tensors; i++) {
        tensor *t = &c->tensors[i];
        if (t->offset > UINT64_MAX - data || t->offset + data > r->size)
            return error_set(err, LAMINA_E_FORMAT,
                             "%s: tensor %s begins at byte %" PRIu64 " of the data, beyond the file of %" PRIu64
                             " bytes (is it cut short?)",
                             r->path, t->name, t->offset, r->size);
        t->offset += data;
    }
    return LAMINA_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static lamina_status read_open_file(reading *r, checkpoint *c, lamina_error *err)
{
    uint32_t file;
    TRY(os_file_size(&r->file, r->path, &r->size, err));
    TRY(checkpoint_add_file(c, r->path, base_name(r->path), r->size, &file, err));
    TRY(read_metadata(r, err));
    uint64_t end = r->at;
    TRY(read_directory(r, c, file, err));
    unsigned char *cut = mem_resize(r->g->m, MEM_MODEL, r->g->blob, (size_t)end, err);
    if (!cut) return memory_status(err);
    r->g->blob = cut;
    r->g->bytes = end;
    return LAMINA_OK;
}

/* Adds one file's tensors to c; *out holds its metadata. */
static lamina_status read_file(checkpoint *c, const char *path, gguf **out, lamina_error *err)
{
    gguf *g = mem_alloc(c->m, MEM_MODEL, sizeof *g, err);
    if (!g) return memory_status(err);
    g->m = c->m;
    reading r = {.g = g, .path = path};
    lamina_status status = os_open(path, OS_READ, &r.file, err);
    if (status == LAMINA_OK) {
        status = read_open_file(&r, c, err);
        os_close(&r.file);
    }
    if (status != LAMINA_OK) {
        gguf_free(g);
        return status;
    }
    *out = g;
    return LAMINA_OK;
}

/* Checks that part `i` of n says that it is that. */
static lamina_status check_part(const gguf *g, const char *path, uint64_t i, uint64_t n, lamina_error *err)
{
    uint64_t no = UINT64_MAX, count = 0;
    if (gguf_u64(g, "split.no", &no) && gguf_u64(g, "split.count", &count) && no == i && count == n) return LAMINA_OK;
    return error_set(err, LAMINA_E_FORMAT,
                     "%s: expected part %" PRIu64 " of %" PRIu64
                     " by split.no (from 0) and split.count, found part %" PRIu64 " of %" PRIu64 "%s",
                     path, i, n, no, count, i == 0 ? ": open the first part" : "");
}

static lamina_status read_parts(checkpoint *c, uint64_t n, lamina_error *err)
{
    char ending[32];
    if (n > PARTS_LIMIT)
        return error_set(err, LAMINA_E_FORMAT, "%s: split.count: expected at most %d parts, found %" PRIu64, c->path,
                         PARTS_LIMIT, n);
    TRY(check_part(c->metadata, c->path, 0, n, err));
    snprintf(ending, sizeof ending, "-00001-of-%05u.gguf", (unsigned)n);
    size_t length = strlen(c->path), k = strlen(ending);
    if (length < k || strcmp(c->path + length - k, ending) != 0)
        return error_set(err, LAMINA_E_FORMAT, "%s: the first of %" PRIu64 " parts: expected a name that ends with %s",
                         c->path, n, ending);
    char *path = arena_strndup(c->strings, c->path, length, err);
    if (!path) return memory_status(err);
    for (uint64_t i = 1; i < n; i++) {
        gguf *part = NULL;
        snprintf(path + length - k, k + 1, "-%05u-of-%05u.gguf", (unsigned)(i + 1), (unsigned)n);
        TRY(read_file(c, path, &part, err));
        lamina_status status = check_part(part, path, i, n, err);
        gguf_free(part);
        if (status != LAMINA_OK) return status;
    }
    uint64_t total;
    if (gguf_u64(c->metadata, "split.tensors.count", &total) && total != c->n_tensors)
        return error_set(err, LAMINA_E_FORMAT,
                         "%s: split.tensors.count: expected %" PRIu64 " tensors in all parts, found %zu", c->path,
                         total, c->n_tensors);
    return LAMINA_OK;
}

static lamina_status open_all(checkpoint *c, lamina_error *err)
{
    TRY(read_file(c, c->path, &c->metadata, err));
    uint64_t parts = 1;
    if (gguf_u64(c->metadata, "split.count", &parts) && parts > 1) TRY(read_parts(c, parts, err));
    TRY(checkpoint_seal(c, err));
    return gguf_config(c, err);
}

lamina_status gguf_open(memory *m, const char *path, checkpoint **out, lamina_error *err)
{
    *out = NULL;
    checkpoint *c = checkpoint_new(m, CHECKPOINT_GGUF, path, err);
    if (!c) return memory_status(err);
    lamina_status status = open_all(c, err);
    if (status != LAMINA_OK) {
        checkpoint_free(c);
        return status;
    }
    *out = c;
    return LAMINA_OK;
}

/* ---- looking up -------------------------------------------------------------------------------------------------- */

/* A number as it is stored. */
typedef struct number {
    enum { NOT_A_NUMBER, UNSIGNED, SIGNED, REAL } kind;
    uint64_t u;
    int64_t i;
    double f;
} number;

static number number_at(const gguf *g, uint32_t type, uint64_t position)
{
    const unsigned char *p = g->blob + position;
    union {
        uint32_t u;
        float f;
    } single;
    union {
        uint64_t u;
        double f;
    } twice;
    uint64_t raw = little_number(p, type_bytes[type]);
    switch (type) {
    case U8:
    case U16:
    case U32:
    case U64:
        return (number){.kind = UNSIGNED, .u = raw};
    case I8:
        return (number){.kind = SIGNED, .i = raw & 0x80 ? (int64_t)raw - 0x100 : (int64_t)raw};
    case I16:
        return (number){.kind = SIGNED, .i = raw & 0x8000 ? (int64_t)raw - 0x10000 : (int64_t)raw};
    case I32:
        return (number){.kind = SIGNED, .i = raw & 0x80000000u ? (int64_t)raw - 0x100000000 : (int64_t)raw};
    case I64:
        return (number){.kind = SIGNED, .i = raw >> 63 ? -(int64_t)(~raw) - 1 : (int64_t)raw};
    case F32:
        single.u = (uint32_t)raw;
        return (number){.kind = REAL, .f = (double)single.f};
    case F64:
        twice.u = raw;
        return (number){.kind = REAL, .f = twice.f};
    default:
        return (number){.kind = NOT_A_NUMBER};
    }
}

static gguf_string text_at(const gguf *g, uint64_t position)
{
    return (gguf_string){(const char *)g->blob + position + 8, little_number(g->blob + position, 8)};
}

bool gguf_u64(const gguf *g, const char *key, uint64_t *v)
{
    const entry *e = find_text(g, key);
    if (!e) return false;
    number n = number_at(g, e->type, e->at);
    if (n.kind == SIGNED && n.i >= 0) n = (number){.kind = UNSIGNED, .u = (uint64_t)n.i};
    if (n.kind != UNSIGNED) return false;
    *v = n.u;
    return true;
}

bool gguf_f64(const gguf *g, const char *key, double *v)
{
    const entry *e = find_text(g, key);
    if (!e) return false;
    number n = number_at(g, e->type, e->at);
    if (n.kind == NOT_A_NUMBER) return false;
    *v = n.kind == REAL ? n.f : n.kind == SIGNED ? (double)n.i : (double)n.u;
    return true;
}

bool gguf_bool(const gguf *g, const char *key, bool *v)
{
    const entry *e = find_text(g, key);
    if (!e || e->type != BOOL) return false;
    *v = g->blob[e->at] != 0;
    return true;
}

bool gguf_text(const gguf *g, const char *key, gguf_string *v)
{
    const entry *e = find_text(g, key);
    if (!e || e->type != TEXT) return false;
    *v = text_at(g, e->at);
    return true;
}

static bool is_whole(uint32_t type)
{
    return type != F32 && type != F64 && type != TEXT && type != ARRAY;
}

/* The array under key if its elements are of the kind asked for; else NULL. */
static const entry *find_array(const gguf *g, const char *key, bool text, bool whole)
{
    const entry *e = find_text(g, key);
    if (!e || e->type != ARRAY) return NULL;
    bool fits = text ? e->element == TEXT : whole ? is_whole(e->element) : e->element == F32 || e->element == F64;
    return fits ? e : NULL;
}

bool gguf_text_array(const gguf *g, const char *key, uint64_t *n)
{
    const entry *e = find_array(g, key, true, false);
    if (e) *n = e->n;
    return e != NULL;
}

gguf_string gguf_text_at(const gguf *g, const char *key, uint64_t i)
{
    const entry *e = find_array(g, key, true, false);
    return e && i < e->n ? text_at(g, e->starts[i]) : (gguf_string){NULL, 0};
}

bool gguf_int_array(const gguf *g, const char *key, uint64_t *n)
{
    const entry *e = find_array(g, key, false, true);
    if (e) *n = e->n;
    return e != NULL;
}

int64_t gguf_int_at(const gguf *g, const char *key, uint64_t i)
{
    const entry *e = find_array(g, key, false, true);
    if (!e || i >= e->n) return 0;
    uint64_t at = e->at + i * type_bytes[e->element];
    if (e->element == BOOL) return g->blob[at] != 0;
    number v = number_at(g, e->element, at);
    if (v.kind == SIGNED) return v.i;
    return v.u > INT64_MAX ? INT64_MAX : (int64_t)v.u;
}

bool gguf_float_array(const gguf *g, const char *key, uint64_t *n)
{
    const entry *e = find_array(g, key, false, false);
    if (e) *n = e->n;
    return e != NULL;
}

float gguf_float_at(const gguf *g, const char *key, uint64_t i)
{
    const entry *e = find_array(g, key, false, false);
    if (!e || i >= e->n) return 0;
    return (float)number_at(g, e->element, e->at + i * type_bytes[e->element]).f;
}

gguf_string gguf_key(const gguf *g, size_t i)
{
    return i < g->n ? key_of(g, &g->entries[i]) : (gguf_string){NULL, 0};
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

static json_t *scalar_json(const gguf *g, uint32_t type, uint64_t position)
{
    if (type == TEXT) {
        gguf_string s = text_at(g, position);
        return json_stringn(s.data, (size_t)s.bytes);
    }
    if (type == BOOL) return json_boolean(g->blob[position] != 0);
    number v = number_at(g, type, position);
    if (v.kind == REAL) return json_real(v.f);
    if (v.kind == SIGNED) return json_integer(v.i);
    return v.u > INT64_MAX ? NULL : json_integer((json_int_t)v.u);
}

enum { JSON_ARRAY_LIMIT = 65536 };

json_t *gguf_json(const gguf *g, gguf_string key, const char *path, lamina_error *err)
{
    const entry *e = find(g, key);
    json_t *out = NULL;
    if (e && e->type != ARRAY) out = scalar_json(g, e->type, e->at);
    if (e && e->type == ARRAY && e->n <= JSON_ARRAY_LIMIT) {
        out = json_array();
        for (uint64_t i = 0; out && i < e->n; i++) {
            uint64_t at = e->element == TEXT ? e->starts[i] : e->at + i * type_bytes[e->element];
            if (json_array_append_new(out, scalar_json(g, e->element, at)) == 0) continue;
            json_decref(out);
            out = NULL;
        }
    }
    if (!out)
        error_set(err, LAMINA_E_FORMAT,
                  "%s: metadata %.*s: expected finite numbers below 2^63, UTF-8, at most %d elements", path,
                  key.bytes > 200 ? 200 : (int)key.bytes, key.data, JSON_ARRAY_LIMIT);
    return out;
}
