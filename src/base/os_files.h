/* More of the seam to the operating system: what writing, replacing and removing large files needs. */
#ifndef LAMINA_BASE_OS_FILES_H
#define LAMINA_BASE_OS_FILES_H

#include "base/memory.h"
#include "base/os.h"

typedef struct os_identity {
    uint64_t bytes;
    int64_t modified_ns;
    uint64_t device, inode, links; /* links: names that the same file has */
    bool is_link, is_file, is_dir; /* is_link: only when not followed */
} os_identity;

/* What `path` names; follow: through a symbolic link. *exists false (LAMINA_OK, *id zero) when there is nothing. */
lamina_status os_identify(const char *path, bool follow, bool *exists, os_identity *id, lamina_error *err);
/* The absolute name without symbolic links; of the folder only (the last part as it is) with keep_last, which may
 * then be absent. Free with mem_free(). */
lamina_status os_absolute(memory *m, const char *path, bool keep_last, char **out, lamina_error *err);

/* Creates or truncates, past the page cache where the file system can (then offsets, sizes and addresses of writes
 * must be multiples of 4096). */
lamina_status os_create_direct(const char *path, os_file *file, lamina_error *err);
/* Opens for writing without truncating; created when absent. */
lamina_status os_open_append(const char *path, os_file *file, lamina_error *err);
lamina_status os_truncate(const os_file *file, const char *name, uint64_t bytes, lamina_error *err);
/* Switches direct I/O of an open file on or off; false: refused, nothing has changed. */
bool os_pass_cache(const os_file *file, bool on);
void os_write_behind(const os_file *file, uint64_t offset, uint64_t bytes); /* begin writing to the device: a hint */
lamina_status os_sync_dir(const char *path, lamina_error *err);

#endif
