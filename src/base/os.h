/* The seam to the operating system: everything that is not C11 or POSIX threads passes through here (and through the
 * io_uring reader). os_linux.c implements it; os_posix.c holds the portable part. */
#ifndef LAMINA_BASE_OS_H
#define LAMINA_BASE_OS_H

#include "base/error.h"

typedef struct os_file {
    int fd;
    bool direct;
} os_file; /* fd -1: closed */

enum { OS_READ = 0, OS_DIRECT = 1 /* past the page cache; falls back, see os_file.direct */ };
lamina_status os_open(const char *path, unsigned flags, os_file *file, lamina_error *err);
void os_close(os_file *file);
/* Reads exactly `bytes` at `offset` (EINTR and short reads handled); end of file is LAMINA_E_IO. `name` is for the
 * error's text. */
lamina_status os_read_at(const os_file *file, const char *name, uint64_t offset, void *data, size_t bytes,
                         lamina_error *err);
/* One pread: bytes read (0 at the end), or -errno. EINTR retried. */
int64_t os_pread(const os_file *file, void *data, size_t bytes, uint64_t offset);
lamina_status os_file_size(const os_file *file, const char *name, uint64_t *bytes, lamina_error *err);
void os_drop_cache(const os_file *file, uint64_t offset, uint64_t bytes); /* a hint */

/* Whole small files. The text is NUL-terminated; free with mem_free(). Larger than `limit`: LAMINA_E_FORMAT. */
struct memory;
lamina_status os_read_file(struct memory *m, const char *path, size_t limit, char **text, size_t *bytes,
                           lamina_error *err);

/* Writing. */
lamina_status os_create(const char *path, os_file *file, lamina_error *err); /* truncates; mode 0666 */
lamina_status os_write_at(const os_file *file, const char *name, uint64_t offset, const void *data, size_t bytes,
                          lamina_error *err); /* LAMINA_E_SPACE on ENOSPC */
lamina_status os_sync(const os_file *file, const char *name, lamina_error *err);
lamina_status os_rename(const char *from, const char *to, lamina_error *err); /* and syncs the folder */
lamina_status os_remove(const char *path, lamina_error *err);                 /* absent is fine */
lamina_status os_make_dir(const char *path, lamina_error *err);               /* existing is fine */
lamina_status os_free_space(const char *path, uint64_t *bytes, lamina_error *err);

bool os_exists(const char *path);
bool os_is_dir(const char *path);
/* Calls fn for each name in a folder (not . and ..), in sorted order; stops at the first failure. */
typedef lamina_status (*os_dir_fn)(void *user, const char *name, lamina_error *err);
lamina_status os_list_dir(const char *path, os_dir_fn fn, void *user, lamina_error *err);

double os_seconds(void);          /* monotonic */
uint32_t os_cores(void);          /* that this process may use (affinity, cgroup quota) */
uint64_t os_resident_bytes(void); /* of this process, now */
uint64_t os_peak_resident_bytes(void);
uint64_t os_available_memory(void); /* free for this process: system and cgroup, the lesser */
void os_trim_heap(void);            /* give freed pages back to the system */
size_t os_page_size(void);
void *os_pages(size_t bytes); /* zero pages; NULL on failure. Large ones are advised huge. */
void os_pages_free(void *p, size_t bytes);
void os_sleep_us(uint32_t us);
const char *os_error_text(int code, char *buffer, size_t bytes); /* strerror, thread-safe */

#endif
