/* Reading of the files that a store is made from.
 *
 * Owns the descriptors. Everything is read past the page cache where the file system can, so that packing a large model
 * evicts nobody's memory; then places and sizes are whole pages and what is wanted lies inside of them. */
#include "store/sources.h"

#include <string.h>

lamina_status sources_new(const image *im, sources *s, lamina_error *err)
{
    *s = (sources){.im = im};
    s->files = mem_array(im->m, MEM_OTHER, im->n_sources, sizeof *s->files, err);
    if (!s->files) return NO_MEMORY(err);
    pthread_mutex_init(&s->lock, NULL);
    return LAMINA_OK;
}

void sources_free(sources *s)
{
    if (!s->files) return;
    for (uint32_t i = 0; i < s->im->n_sources; i++)
        if (s->files[i].open) os_close(&s->files[i].file);
    pthread_mutex_destroy(&s->lock);
    mem_free(s->im->m, s->files);
    s->files = NULL;
}

/* Whole pages from `from` on to `at`, at least `need` bytes. */
static lamina_status read_pages(const os_file *file, const char *name, uint64_t from, size_t need, uint8_t *at,
                                lamina_error *err)
{
    size_t ask = (need + SOURCE_PAGE - 1) / SOURCE_PAGE * SOURCE_PAGE, have = 0;
    while (have < need) {
        int64_t n = os_pread(file, at + have, ask - have, from + have);
        char reason[128];
        if (n < 0)
            return error_set(err, LAMINA_E_IO, "%s: reading at offset %llu: %s", name,
                             (unsigned long long)(from + have), os_error_text((int)-n, reason, sizeof reason));
        if (n == 0 || (have + (size_t)n < need && n % SOURCE_PAGE))
            return error_set(err, LAMINA_E_IO, "%s: ends at %llu, before the %zu bytes at %llu", name,
                             (unsigned long long)(from + have + (uint64_t)n), need, (unsigned long long)from);
        have += (size_t)n;
    }
    return LAMINA_OK;
}

lamina_status source_read(const os_file *file, const char *name, uint64_t offset, size_t bytes, uint8_t *bounce,
                          const uint8_t **at, lamina_error *err)
{
    *at = bounce;
    if (!file->direct) {
        TRY(os_read_at(file, name, offset, bounce, bytes, err));
        os_drop_cache(file, offset, bytes);
        return LAMINA_OK;
    }
    *at = bounce + offset % SOURCE_PAGE;
    return read_pages(file, name, offset - offset % SOURCE_PAGE, (size_t)(offset % SOURCE_PAGE) + bytes, bounce, err);
}

lamina_status source_copy(const os_file *file, const char *name, uint64_t offset, size_t bytes, uint8_t *bounce,
                          uint8_t *to, lamina_error *err)
{
    const uint8_t *at;
    bool straight =
        !file->direct || (offset % SOURCE_PAGE == 0 && (uintptr_t)to % SOURCE_PAGE == 0 && bytes % SOURCE_PAGE == 0);
    TRY(source_read(file, name, offset, bytes, straight ? to : bounce, &at, err));
    if (!straight) memcpy(to, at, bytes);
    return LAMINA_OK;
}

static lamina_status open_source(sources *s, uint32_t index, const os_file **out, lamina_error *err)
{
    source_file *f = &s->files[index];
    lamina_status status = LAMINA_OK;
    pthread_mutex_lock(&s->lock);
    if (!f->open) {
        status = os_open(s->im->sources[index].path, OS_DIRECT, &f->file, err);
        f->open = status == LAMINA_OK;
    }
    pthread_mutex_unlock(&s->lock);
    *out = &f->file;
    return status;
}

lamina_status sources_read(sources *s, uint32_t index, uint64_t offset, size_t bytes, uint8_t *bounce,
                           const uint8_t **at, lamina_error *err)
{
    const os_file *file;
    TRY(open_source(s, index, &file, err));
    return source_read(file, s->im->sources[index].path, offset, bytes, bounce, at, err);
}

lamina_status sources_copy(sources *s, uint32_t index, uint64_t offset, size_t bytes, uint8_t *bounce, uint8_t *to,
                           lamina_error *err)
{
    const os_file *file;
    TRY(open_source(s, index, &file, err));
    return source_copy(file, s->im->sources[index].path, offset, bytes, bounce, to, err);
}
