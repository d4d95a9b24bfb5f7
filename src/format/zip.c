/* Owns the reading of zip directories (PKWARE's APPNOTE.TXT 6.3, its names of records in brackets). Promises that what
 * the central directory says of an entry is what stands in front of the entry's data, that all entries lie between the
 * file's begin and the directory, and that no two share a byte: so a tensor that points into one points at nothing
 * else.
 *
 * Sizes come from the central directory; a local header may leave them to a data descriptor behind the data (0 there),
 * which for stored entries says nothing new and is not read. 64-bit sizes and offsets are read in all places. */
#include "format/zip.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "format/little.h"

enum {
    LOCAL_BYTES = 30,   /* [local file header] */
    CENTRAL_BYTES = 46, /* [central directory header] */
    END_BYTES = 22,     /* [end of central directory record] */
    END64_BYTES = 56,
    LOCATOR_BYTES = 20, /* [zip64 end of central directory locator] */
    COMMENT_LIMIT = 65535,
    NAME_LIMIT = 512,
    EXTRA_BYTES = 1024,        /* looked through for 64-bit sizes, which stand first; padding may follow */
    DIRECTORY_LIMIT = 64 << 20 /* bytes: a million entries */
};
static const uint32_t IN_EXTRA = UINT32_MAX; /* a size or offset that stands in the zip64 extra field */

typedef struct reading {
    memory *m;
    const os_file *file;
    const char *path;
    uint64_t at, bytes, n; /* the central directory; its entries */
    zip *z;
    lamina_error *err;
} reading;

typedef struct header { /* of one entry, central or local */
    unsigned flags, method;
    uint64_t stored, whole, begin; /* bytes in the file, bytes uncompressed; begin: central only */
} header;

static lamina_status memory_status(const lamina_error *err)
{
    return err ? err->status : LAMINA_E_MEMORY;
}

/* ---- the end of the file ---------------------------------------------------------------------------------------- */

/* The 64-bit end record, when a locator stands before the 32-bit one at `end`, which must not say otherwise. */
static lamina_status read_end64(reading *r, uint64_t end)
{
    unsigned char raw[END64_BYTES];
    if (end < LOCATOR_BYTES) return LAMINA_OK;
    TRY(os_read_at(r->file, r->path, end - LOCATOR_BYTES, raw, LOCATOR_BYTES, r->err));
    if (memcmp(raw, "PK\6\7", 4) != 0) return LAMINA_OK;
    uint64_t at = little_number(raw + 8, 8);
    if (end < LOCATOR_BYTES + END64_BYTES || at > end - LOCATOR_BYTES - END64_BYTES)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: its 64-bit end record would lie behind its locator",
                         r->path);
    TRY(os_read_at(r->file, r->path, at, raw, END64_BYTES, r->err));
    if (memcmp(raw, "PK\6\6", 4) != 0)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: no 64-bit end record at offset %" PRIu64, r->path, at);
    uint64_t n = little_number(raw + 32, 8), bytes = little_number(raw + 40, 8), begin = little_number(raw + 48, 8);
    bool same = (r->n == UINT16_MAX || r->n == n) && (r->bytes == IN_EXTRA || r->bytes == bytes) &&
                (r->at == IN_EXTRA || r->at == begin);
    if (!same || little_number(raw + 16, 8) != 0 || little_number(raw + 24, 8) != n || begin > at || bytes > at - begin)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: its two end records contradict each other", r->path);
    r->n = n;
    r->bytes = bytes;
    r->at = begin;
    return LAMINA_OK;
}

/* tail: the last n bytes of the file of `size`. The end record is the last thing whose comment ends with the file. */
static lamina_status find_end(reading *r, const unsigned char *tail, size_t n, uint64_t size)
{
    for (size_t i = n - END_BYTES + 1; i-- > 0;) {
        const unsigned char *p = tail + i;
        if (memcmp(p, "PK\5\6", 4) != 0 || little_number(p + 20, 2) != n - i - END_BYTES) continue;
        uint64_t end = size - n + i;
        if (little_number(p + 4, 4) != 0 || little_number(p + 8, 2) != little_number(p + 10, 2))
            return error_set(r->err, LAMINA_E_UNSUPPORTED, "%s: zip: one part of several", r->path);
        r->n = little_number(p + 8, 2);
        r->bytes = little_number(p + 12, 4);
        r->at = little_number(p + 16, 4);
        TRY(read_end64(r, end));
        if (r->at > end || r->bytes > end - r->at)
            return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: its directory would lie behind its end record",
                             r->path);
        return LAMINA_OK;
    }
    return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: no end record (is it cut short?)", r->path);
}

static lamina_status locate_directory(reading *r)
{
    uint64_t size = 0;
    TRY(os_file_size(r->file, r->path, &size, r->err));
    if (size < END_BYTES)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: %" PRIu64 " bytes are not one (is it cut short?)", r->path,
                         size);
    size_t n = size < END_BYTES + COMMENT_LIMIT ? (size_t)size : END_BYTES + COMMENT_LIMIT;
    unsigned char *tail = mem_alloc(r->m, MEM_OTHER, n, r->err);
    if (!tail) return memory_status(r->err);
    lamina_status status = os_read_at(r->file, r->path, size - n, tail, n, r->err);
    if (status == LAMINA_OK) status = find_end(r, tail, n, size);
    mem_free(r->m, tail);
    if (status != LAMINA_OK) return status;
    if (r->bytes > DIRECTORY_LIMIT || r->n > r->bytes / CENTRAL_BYTES)
        return error_set(r->err, LAMINA_E_FORMAT,
                         "%s: zip: a directory of %" PRIu64 " entries in %" PRIu64 " bytes: expected at most %d bytes, "
                         "at least %d each",
                         r->path, r->n, r->bytes, DIRECTORY_LIMIT, CENTRAL_BYTES);
    return LAMINA_OK;
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

/* Fills in what the header left to its zip64 extra field, where it stands in the order of the header. false: it is not
 * there. */
static bool read_extra(const unsigned char *extra, size_t bytes, header *h)
{
    uint64_t *fields[] = {&h->whole, &h->stored, &h->begin};
    size_t wanted = 0;
    for (size_t i = 0; i < 3; i++) wanted += *fields[i] == IN_EXTRA;
    for (size_t at = 0; wanted && bytes - at >= 4;) {
        size_t n = (size_t)little_number(extra + at + 2, 2);
        bool zip64 = little_number(extra + at, 2) == 1;
        at += 4;
        if (n > bytes - at) return false;
        if (zip64) {
            if (n / 8 < wanted) return false;
            for (size_t i = 0; i < 3; i++) {
                if (*fields[i] != IN_EXTRA) continue;
                *fields[i] = little_number(extra + at, 8);
                at += 8;
            }
            return true;
        }
        at += n;
    }
    return wanted == 0;
}

static lamina_status wrong(const reading *r, const char *name, const char *what)
{
    return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: entry %s: %s", r->path, name, what);
}

static lamina_status check_header(const reading *r, const char *name, const header *h)
{
    if (h->flags & 0x41) return error_set(r->err, LAMINA_E_UNSUPPORTED, "%s: zip: entry %s: encrypted", r->path, name);
    if (h->method != 0)
        return error_set(r->err, LAMINA_E_UNSUPPORTED,
                         "%s: zip: entry %s: compressed (method %u): expected it stored, as torch.save() writes it",
                         r->path, name, h->method);
    return LAMINA_OK;
}

/* The local header says the same; behind it are the data. */
static lamina_status read_local(const reading *r, zip_entry *e, const header *central)
{
    unsigned char raw[LOCAL_BYTES + NAME_LIMIT], extra[EXTRA_BYTES];
    size_t n = strlen(e->name);
    if (e->begin > r->at || LOCAL_BYTES + n > r->at - e->begin) return wrong(r, e->name, "begins behind the directory");
    TRY(os_read_at(r->file, r->path, e->begin, raw, LOCAL_BYTES + n, r->err));
    if (memcmp(raw, "PK\3\4", 4) != 0) return wrong(r, e->name, "no header where the directory says it is");
    if (little_number(raw + 26, 2) != n || memcmp(raw + LOCAL_BYTES, e->name, n) != 0)
        return wrong(r, e->name, "named otherwise in its own header");
    header h = {.flags = (unsigned)little_number(raw + 6, 2),
                .method = (unsigned)little_number(raw + 8, 2),
                .stored = little_number(raw + 18, 4),
                .whole = little_number(raw + 22, 4)};
    size_t extra_bytes = (size_t)little_number(raw + 28, 2);
    uint64_t room = r->at - e->begin - LOCAL_BYTES - n;
    if (extra_bytes > room) return wrong(r, e->name, "its header reaches into the directory");
    size_t looked = extra_bytes < EXTRA_BYTES ? extra_bytes : EXTRA_BYTES;
    if (h.stored == IN_EXTRA || h.whole == IN_EXTRA)
        TRY(os_read_at(r->file, r->path, e->begin + LOCAL_BYTES + n, extra, looked, r->err));
    if (!read_extra(extra, looked, &h)) return wrong(r, e->name, "its header lacks 64-bit sizes");
    TRY(check_header(r, e->name, &h));
    bool later = (h.flags & 8) && h.stored == 0 && h.whole == 0; /* sizes in a data descriptor */
    if (!later && (h.stored != central->stored || h.whole != central->whole))
        return wrong(r, e->name, "of another size in its own header");
    if (e->bytes > room - extra_bytes) return wrong(r, e->name, "reaches into the directory");
    e->offset = e->begin + LOCAL_BYTES + n + extra_bytes;
    return LAMINA_OK;
}

/* The entry at directory[*at]. */
static lamina_status read_entry(const reading *r, const unsigned char *directory, size_t *at, zip_entry *e)
{
    const unsigned char *p = directory + *at;
    size_t left = (size_t)r->bytes - *at;
    if (left < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4) != 0)
        return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: no directory entry at offset %" PRIu64, r->path,
                         r->at + *at);
    size_t name = (size_t)little_number(p + 28, 2), extra = (size_t)little_number(p + 30, 2);
    size_t all = CENTRAL_BYTES + name + extra + (size_t)little_number(p + 32, 2);
    if (all > left || name == 0 || name > NAME_LIMIT || memchr(p + CENTRAL_BYTES, '\0', name))
        return error_set(r->err, LAMINA_E_FORMAT,
                         "%s: zip: the directory entry at offset %" PRIu64
                         ": expected a name of 1 to %d bytes inside the directory",
                         r->path, r->at + *at, NAME_LIMIT);
    e->name = arena_strndup(r->z->names, (const char *)p + CENTRAL_BYTES, name, r->err);
    if (!e->name) return memory_status(r->err);
    header h = {.flags = (unsigned)little_number(p + 8, 2),
                .method = (unsigned)little_number(p + 10, 2),
                .stored = little_number(p + 20, 4),
                .whole = little_number(p + 24, 4),
                .begin = little_number(p + 42, 4)};
    if (!read_extra(p + CENTRAL_BYTES + name, extra, &h)) return wrong(r, e->name, "lacks 64-bit sizes");
    TRY(check_header(r, e->name, &h));
    if (h.stored != h.whole) return wrong(r, e->name, "stored, yet of two sizes");
    e->begin = h.begin;
    e->bytes = h.stored;
    *at += all;
    return read_local(r, e, &h);
}

static int by_place(const void *a, const void *b)
{
    const zip_entry *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const zip_entry *)a)->name, ((const zip_entry *)b)->name);
}

static lamina_status read_directory(const reading *r, const unsigned char *directory)
{
    zip *z = r->z;
    for (size_t at = 0; z->n < r->n; z->n++) TRY(read_entry(r, directory, &at, &z->entries[z->n]));
    if (z->n > 1) qsort(z->entries, z->n, sizeof *z->entries, by_place);
    for (size_t i = 1; i < z->n; i++) {
        const zip_entry *before = &z->entries[i - 1], *e = &z->entries[i];
        if (e->begin < before->offset + before->bytes)
            return error_set(r->err, LAMINA_E_FORMAT, "%s: zip: entries %s and %s overlap", r->path, before->name,
                             e->name);
    }
    if (z->n > 1) qsort(z->entries, z->n, sizeof *z->entries, by_name);
    for (size_t i = 1; i < z->n; i++)
        if (strcmp(z->entries[i - 1].name, z->entries[i].name) == 0)
            return wrong(r, z->entries[i].name, "stands twice");
    return LAMINA_OK;
}

lamina_status zip_open(memory *m, const os_file *file, const char *path, zip *z, lamina_error *err)
{
    *z = (zip){.m = m};
    reading r = {.m = m, .file = file, .path = path, .z = z, .err = err};
    TRY(locate_directory(&r));
    unsigned char *directory = NULL;
    z->names = arena_new(m, MEM_OTHER, err);
    if (z->names) z->entries = mem_array(m, MEM_OTHER, (size_t)r.n, sizeof *z->entries, err);
    if (z->entries) directory = mem_alloc(m, MEM_OTHER, (size_t)r.bytes, err);
    lamina_status status = directory ? LAMINA_OK : memory_status(err);
    if (status == LAMINA_OK) status = os_read_at(file, path, r.at, directory, (size_t)r.bytes, err);
    if (status == LAMINA_OK) status = read_directory(&r, directory);
    mem_free(m, directory);
    if (status != LAMINA_OK) zip_close(z);
    return status;
}

void zip_close(zip *z)
{
    mem_free(z->m, z->entries);
    arena_free(z->names);
    *z = (zip){.m = z->m};
}

const zip_entry *zip_find(const zip *z, const char *name)
{
    zip_entry key = {.name = name};
    return z->n ? bsearch(&key, z->entries, z->n, sizeof *z->entries, by_name) : NULL;
}
