/* Owns the part of the seam that POSIX describes: files, folders, the clock. Promises that short transfers and EINTR
 * never reach a caller, that a full disk is always LAMINA_E_SPACE, and that every failure names its path. What each
 * system does in its own way is in os_linux.c, or in os_other.c for a system that has no file of its own yet. */
#include "base/os.h"

#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BYTES_AT_ONCE = 1 << 30, MOST_NAMES = 1 << 20 };

static lamina_status failed(lamina_error *err, const char *name, const char *doing, int code)
{
    char text[128];
    bool full = code == ENOSPC || code == EDQUOT;
    return error_set(err, full ? LAMINA_E_SPACE : LAMINA_E_IO, "%s: %s: %s", name, doing,
                     os_error_text(code, text, sizeof text));
}

void os_close(os_file *file)
{
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
}

int64_t os_pread(const os_file *file, void *data, size_t bytes, uint64_t offset)
{
    if (offset > INT64_MAX) return -EINVAL;
    if (bytes > MOST_BYTES_AT_ONCE) bytes = MOST_BYTES_AT_ONCE;
    ssize_t n;
    do {
        n = pread(file->fd, data, bytes, (off_t)offset);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

lamina_status os_read_at(const os_file *file, const char *name, uint64_t offset, void *data, size_t bytes,
                         lamina_error *err)
{
    unsigned char *to = data;
    while (bytes > 0) {
        int64_t n = os_pread(file, to, bytes, offset);
        if (n < 0) {
            char doing[64];
            snprintf(doing, sizeof doing, "reading at offset %llu", (unsigned long long)offset);
            return failed(err, name, doing, (int)-n);
        }
        if (n == 0) {
            return error_set(err, LAMINA_E_IO, "%s: ends at offset %llu where %zu more bytes are expected", name,
                             (unsigned long long)offset, bytes);
        }
        to += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return LAMINA_OK;
}

lamina_status os_file_size(const os_file *file, const char *name, uint64_t *bytes, lamina_error *err)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0) return failed(err, name, "asking its size", errno);
    *bytes = (uint64_t)st.st_size;
    return LAMINA_OK;
}

lamina_status os_read_file(struct memory *m, const char *path, size_t limit, char **text, size_t *bytes,
                           lamina_error *err)
{
    os_file file;
    uint64_t size = 0;
    *text = NULL;
    *bytes = 0;
    TRY(os_open(path, OS_READ, &file, err));
    lamina_status status = os_file_size(&file, path, &size, err);
    if (status == LAMINA_OK && size > limit) {
        status = error_set(err, LAMINA_E_FORMAT, "%s: expected at most %zu bytes, found %llu", path, limit,
                           (unsigned long long)size);
    }
    char *data = NULL;
    if (status == LAMINA_OK) {
        lamina_error why = {0};
        data =
            mem_alloc(m, MEM_OTHER, (size_t)size + 1, &why); /* size <= limit, so that + 1 can only wrap at the top */
        if (!data) status = error_set(err, why.status, "%s: %s", path, why.text);
    }
    if (status == LAMINA_OK) status = os_read_at(&file, path, 0, data, (size_t)size, err);
    os_close(&file);
    if (status != LAMINA_OK) {
        mem_free(m, data);
        return status;
    }
    data[size] = '\0';
    *text = data;
    *bytes = (size_t)size;
    return LAMINA_OK;
}

lamina_status os_create(const char *path, os_file *file, lamina_error *err)
{
    file->direct = false;
    do {
        file->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    } while (file->fd < 0 && errno == EINTR);
    if (file->fd < 0) return failed(err, path, "creating", errno);
    return LAMINA_OK;
}

lamina_status os_write_at(const os_file *file, const char *name, uint64_t offset, const void *data, size_t bytes,
                          lamina_error *err)
{
    const unsigned char *from = data;
    while (bytes > 0) {
        if (offset > INT64_MAX) return failed(err, name, "writing", EFBIG);
        size_t part = bytes < MOST_BYTES_AT_ONCE ? bytes : MOST_BYTES_AT_ONCE;
        ssize_t n = pwrite(file->fd, from, part, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            char doing[64];
            snprintf(doing, sizeof doing, "writing at offset %llu", (unsigned long long)offset);
            return failed(err, name, doing, n < 0 ? errno : ENOSPC);
        }
        from += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return LAMINA_OK;
}

lamina_status os_sync(const os_file *file, const char *name, lamina_error *err)
{
    int code;
    do {
        code = fsync(file->fd);
    } while (code != 0 && errno == EINTR);
    if (code != 0) return failed(err, name, "syncing", errno);
    return LAMINA_OK;
}

/* A rename is durable when its folder is. Some file systems cannot sync folders and say EINVAL. */
static lamina_status sync_folder_of(const char *path, lamina_error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof folder) return failed(err, path, "naming its folder", ENAMETOOLONG);
    if (!slash) {
        memcpy(folder, ".", 2);
    } else if (n == 0) {
        memcpy(folder, "/", 2);
    } else {
        memcpy(folder, path, n);
        folder[n] = '\0';
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno == EACCES ? LAMINA_OK : failed(err, folder, "opening", errno);
    int code = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    if (code && code != EINVAL) return failed(err, folder, "syncing", code);
    return LAMINA_OK;
}

lamina_status os_rename(const char *from, const char *to, lamina_error *err)
{
    if (rename(from, to) != 0) {
        char doing[PATH_MAX];
        snprintf(doing, sizeof doing, "renaming to %s", to);
        return failed(err, from, doing, errno);
    }
    return sync_folder_of(to, err);
}

lamina_status os_remove(const char *path, lamina_error *err)
{
    if (remove(path) != 0 && errno != ENOENT) return failed(err, path, "removing", errno);
    return LAMINA_OK;
}

lamina_status os_make_dir(const char *path, lamina_error *err)
{
    if (mkdir(path, 0777) == 0) return LAMINA_OK;
    int code = errno;
    if (code == EEXIST && os_is_dir(path)) return LAMINA_OK;
    return failed(err, path, "creating the folder", code);
}

lamina_status os_free_space(const char *path, uint64_t *bytes, lamina_error *err)
{
    struct statvfs st;
    int code;
    do {
        code = statvfs(path, &st);
    } while (code != 0 && errno == EINTR);
    if (code != 0) return failed(err, path, "asking the free space", errno);
    uint64_t unit = st.f_frsize ? st.f_frsize : st.f_bsize, blocks = st.f_bavail;
    *bytes = unit && blocks > UINT64_MAX / unit ? UINT64_MAX : unit * blocks;
    return LAMINA_OK;
}

bool os_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool os_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The names of a folder, all of them before the first call, since the caller may remove files as it goes. They live
 * for the length of os_list_dir() and outside of any engine's account. */
typedef struct name_list {
    char **names;
    size_t n, room;
} name_list;

static bool name_add(name_list *list, const char *name)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        char **more = realloc(list->names, room * sizeof *more);
        if (!more) return false;
        list->names = more;
        list->room = room;
    }
    list->names[list->n] = strdup(name);
    return list->names[list->n] && ++list->n;
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static lamina_status name_read(const char *path, name_list *list, lamina_error *err)
{
    DIR *dir = opendir(path);
    if (!dir) return failed(err, path, "opening the folder", errno);
    lamina_status status = LAMINA_OK;
    while (status == LAMINA_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno) status = failed(err, path, "listing", errno);
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (list->n == MOST_NAMES) {
            status = error_set(err, LAMINA_E_FORMAT, "%s: more than %d files in one folder", path, (int)MOST_NAMES);
        } else if (!name_add(list, entry->d_name)) {
            status = error_set(err, LAMINA_E_MEMORY, "%s: no memory to list the folder", path);
        }
    }
    closedir(dir);
    return status;
}

lamina_status os_list_dir(const char *path, os_dir_fn fn, void *user, lamina_error *err)
{
    name_list list = {0};
    lamina_status status = name_read(path, &list, err);
    if (status == LAMINA_OK && list.n > 1) qsort(list.names, list.n, sizeof *list.names, name_order);
    for (size_t i = 0; i < list.n; i++) {
        if (status == LAMINA_OK) status = fn(user, list.names[i], err);
        free(list.names[i]);
    }
    free(list.names);
    return status;
}

double os_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

size_t os_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void os_sleep_us(uint32_t us)
{
    struct timespec left = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}
