/* Files seen from outside (identity, absolute names) and writing past the page cache.
 *
 * Owns what packing needs beyond os.h, as far as POSIX goes (os_linux.c and os_other.c hold the rest): syncing a folder
 * so that a rename or a removal in it survives a power cut, writing past the page cache where that is possible.
 * Promises that every failure names the path and the system's reason, that EINTR is retried, and that a file system
 * without direct I/O is a slower path, never an error. */
#include "base/os_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static lamina_status refuse(lamina_error *err, const char *path, const char *doing, int code)
{
    char reason[128];
    lamina_status status = code == ENOSPC || code == EDQUOT || code == EFBIG ? LAMINA_E_SPACE : LAMINA_E_IO;
    return error_set(err, status, "%s: cannot %s: %s", path, doing, os_error_text(code, reason, sizeof reason));
}

lamina_status os_identify(const char *path, bool follow, bool *exists, os_identity *id, lamina_error *err)
{
    struct stat st;
    *id = (os_identity){0};
    *exists = false;
    if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return LAMINA_OK;
        return refuse(err, path, "look at it", errno);
    }
    *exists = true;
    id->bytes = st.st_size > 0 ? (uint64_t)st.st_size : 0;
    id->modified_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + (int64_t)st.st_mtim.tv_nsec;
    id->device = (uint64_t)st.st_dev;
    id->inode = (uint64_t)st.st_ino;
    id->links = (uint64_t)st.st_nlink;
    id->is_link = S_ISLNK(st.st_mode);
    id->is_file = S_ISREG(st.st_mode);
    id->is_dir = S_ISDIR(st.st_mode);
    return LAMINA_OK;
}

lamina_status os_absolute(memory *m, const char *path, bool keep_last, char **out, lamina_error *err)
{
    *out = NULL;
    char *copy = mem_strdup(m, MEM_OTHER, path, err);
    if (!copy) return err ? err->status : LAMINA_E_MEMORY;
    const char *last = NULL;
    if (keep_last) {
        size_t n = strlen(copy);
        while (n > 1 && copy[n - 1] == '/') copy[--n] = 0;
        char *slash = strrchr(copy, '/');
        last = slash ? path + (slash - copy) + 1 : path;
        if (!slash)
            strcpy(copy, *path ? "." : "");
        else
            slash[slash == copy] = 0;
    }
    char *real = realpath(copy, NULL);
    int code = errno;
    mem_free(m, copy);
    if (!real) return refuse(err, path, "find it", code);
    size_t n = strlen(real), n_last = last ? strlen(last) : 0;
    while (n_last && last[n_last - 1] == '/') n_last--;
    char *whole = mem_alloc(m, MEM_OTHER, n + n_last + 2, err);
    if (whole) {
        memcpy(whole, real, n);
        if (n_last) {
            if (whole[n - 1] != '/') whole[n++] = '/';
            memcpy(whole + n, last, n_last);
        }
    }
    free(real);
    *out = whole;
    return whole ? LAMINA_OK : err ? err->status : LAMINA_E_MEMORY;
}

/* Tried with a page of zeros: some file systems accept the flag and refuse the writes. */
lamina_status os_create_direct(const char *path, os_file *file, lamina_error *err)
{
    static const _Alignas(4096) unsigned char probe[4096];
    TRY(os_create(path, file, err));
    if (!os_pass_cache(file, true)) return LAMINA_OK;
    ssize_t n;
    do n = pwrite(file->fd, probe, sizeof probe, 0);
    while (n < 0 && errno == EINTR);
    file->direct = n == (ssize_t)sizeof probe || !os_pass_cache(file, false);
    return LAMINA_OK;
}

lamina_status os_open_append(const char *path, os_file *file, lamina_error *err)
{
    file->direct = false;
    do file->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    while (file->fd < 0 && errno == EINTR);
    return file->fd >= 0 ? LAMINA_OK : refuse(err, path, "open for writing", errno);
}

lamina_status os_truncate(const os_file *file, const char *name, uint64_t bytes, lamina_error *err)
{
    int failed;
    if (bytes > (uint64_t)INT64_MAX) return refuse(err, name, "set the size", EFBIG);
    do failed = ftruncate(file->fd, (off_t)bytes);
    while (failed && errno == EINTR);
    return failed ? refuse(err, name, "set the size", errno) : LAMINA_OK;
}

lamina_status os_sync_dir(const char *path, lamina_error *err)
{
    int fd, failed;
    do fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return refuse(err, path, "open", errno);
    do failed = fsync(fd);
    while (failed && errno == EINTR);
    int code = errno;
    close(fd);
    if (failed && code != EINVAL) return refuse(err, path, "sync", code); /* EINVAL: a file system without */
    return LAMINA_OK;
}
