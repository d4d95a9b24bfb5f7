/* Removing what a store was made from.
 *
 * Owns the only deletions of files that this program did not make. Promises to remove a file only by the name under
 * which it was opened, only while size and time of change are those recorded when packing began, and to follow a
 * symbolic link in one case alone: the Hub's cache, where snapshots/REVISION/NAME points to ../../blobs/HASH. There the
 * link without the blob would free nothing, so the blob goes too, unless another link under snapshots/ leads to it. */
#include "store/original.h"

#include <string.h>

lamina_status original_check(const image_source *s, bool *there, lamina_error *err)
{
    os_identity id;
    TRY(os_identify(s->path, true, there, &id, err));
    if (!*there || (id.is_file && id.bytes == s->bytes && id.modified_ns == s->modified_ns)) return LAMINA_OK;
    return error_set(err, LAMINA_E_IO, "%s: changed since packing began (%llu bytes then, %llu now)", s->path,
                     (unsigned long long)s->bytes, (unsigned long long)id.bytes);
}

/* Cuts the last part of a path off; false: there is none. */
static bool cut(char *path, const char **last)
{
    char *slash = strrchr(path, '/');
    if (!slash || slash == path) return false;
    *slash = 0;
    *last = slash + 1;
    return true;
}

typedef struct search {
    memory *m;
    const char *folder;
    os_identity blob;
    uint32_t found, depth;
} search;

static lamina_status count_links(void *user, const char *name, lamina_error *err)
{
    search *s = user;
    bool exists;
    os_identity id, target;
    char *path = store_join(s->m, s->folder, name, err);
    if (!path) return NO_MEMORY(err);
    lamina_status status = os_identify(path, false, &exists, &id, err);
    if (status == LAMINA_OK && exists && id.is_link) {
        status = os_identify(path, true, &exists, &target, err);
        if (exists && target.device == s->blob.device && target.inode == s->blob.inode) s->found++;
    } else if (status == LAMINA_OK && exists && id.is_dir) {
        search inner = *s;
        inner.folder = path;
        inner.depth++;
        if (inner.depth > 16)
            inner.found += 2; /* too deep to look: take it as needed */
        else
            status = os_list_dir(path, count_links, &inner, err);
        s->found = inner.found;
    }
    mem_free(s->m, path);
    return status;
}

/* *blob: the file to remove with the link, mem_free(); NULL: none. */
static lamina_status blob_of(memory *m, const char *link, char **blob, lamina_error *err)
{
    char *real, *folder;
    const char *last;
    *blob = NULL;
    TRY(os_absolute(m, link, false, &real, err));
    lamina_status status = LAMINA_OK;
    folder = mem_strdup(m, MEM_OTHER, real, err);
    if (!folder) status = NO_MEMORY(err);
    bool cache = status == LAMINA_OK && cut(folder, &last) && cut(folder, &last) && strcmp(last, "blobs") == 0;
    size_t n = cache ? strlen(folder) : 0;
    if (cache && strncmp(link, folder, n) == 0 && strncmp(link + n, "/snapshots/", 11) == 0) {
        search s = {.m = m};
        bool exists;
        char *snapshots = store_join(m, folder, "snapshots", err);
        s.folder = snapshots;
        status = snapshots ? os_identify(real, true, &exists, &s.blob, err) : NO_MEMORY(err);
        if (status == LAMINA_OK) status = os_list_dir(snapshots, count_links, &s, err);
        mem_free(m, snapshots);
        if (status == LAMINA_OK && s.found == 1) {
            *blob = real;
            real = NULL;
        }
    }
    mem_free(m, folder);
    mem_free(m, real);
    return status;
}

lamina_status original_gain(const store_job *job, const image_source *s, uint64_t device, uint64_t *bytes,
                            lamina_error *err)
{
    bool exists;
    os_identity link, file;
    *bytes = 0;
    TRY(os_identify(s->path, false, &exists, &link, err));
    if (!exists) return LAMINA_OK;
    TRY(os_identify(s->path, true, &exists, &file, err));
    if (!exists || file.device != device || file.links > 1) return LAMINA_OK;
    if (link.is_link) {
        char *blob;
        TRY(blob_of(job->m, s->path, &blob, err));
        bool follows = blob != NULL;
        mem_free(job->m, blob);
        if (!follows) return LAMINA_OK;
    }
    *bytes = file.bytes;
    return LAMINA_OK;
}

/* Removes one name and makes that last. */
static lamina_status remove_name(const store_job *job, const char *path, lamina_error *err)
{
    const char *last;
    char *folder = mem_strdup(job->m, MEM_OTHER, path, err);
    if (!folder) return NO_MEMORY(err);
    store_step(job);
    lamina_status status = os_remove(path, err);
    store_step(job);
    if (status == LAMINA_OK && cut(folder, &last)) status = os_sync_dir(folder, err);
    mem_free(job->m, folder);
    return status;
}

lamina_status original_remove(const store_job *job, const image_source *s, lamina_error *err)
{
    bool there;
    os_identity link;
    TRY(original_check(s, &there, err));
    if (!there) return LAMINA_OK;
    TRY(os_identify(s->path, false, &there, &link, err));
    char *blob = NULL;
    if (link.is_link) TRY(blob_of(job->m, s->path, &blob, err));
    /* The blob first: a link to nothing is found and removed by the next run, a blob without a link by none. */
    lamina_status status = blob ? remove_name(job, blob, err) : LAMINA_OK;
    if (status == LAMINA_OK) status = remove_name(job, s->path, err);
    mem_free(job->m, blob);
    return status;
}
