/* Owns the seam on a POSIX system that has no file of its own yet: everything works, and what such a system does not
 * say is answered with caution. No direct I/O, so that reads pass through the cache and are dropped behind where the
 * system knows how; no control groups; the resident size now is not known and its peak stands in for it. A port
 * replaces this file, function by function. It is built on Linux too, by -DLAMINA_PORTABLE=ON, so that it stays
 * whole. */
#undef _GNU_SOURCE /* the POSIX strerror_r() */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#define _DEFAULT_SOURCE  1 /* MAP_ANONYMOUS, getrusage's fields */
#define _DARWIN_C_SOURCE 1

#include "base/os.h"
#include "base/os_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

const char *os_error_text(int code, char *buffer, size_t bytes)
{
    if (strerror_r(code, buffer, bytes) != 0) snprintf(buffer, bytes, "error %d", code);
    return buffer;
}

lamina_status os_open(const char *path, unsigned flags, os_file *file, lamina_error *err)
{
    (void)flags; /* OS_DIRECT: never here */
    *file = (os_file){.fd = -1, .direct = false};
    int fd;
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not be waited for */
    } while (fd < 0 && errno == EINTR);
    char text[128];
    if (fd < 0) return error_set(err, LAMINA_E_IO, "%s: opening: %s", path, os_error_text(errno, text, sizeof text));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return error_set(err, LAMINA_E_IO, "%s: expected a regular file", path);
    }
    file->fd = fd;
    return LAMINA_OK;
}

void os_drop_cache(const os_file *file, uint64_t offset, uint64_t bytes)
{
#ifdef POSIX_FADV_DONTNEED
    if (offset <= INT64_MAX && bytes <= INT64_MAX) {
        posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
    }
#else
    (void)file;
    (void)offset;
    (void)bytes;
#endif
}

bool os_pass_cache(const os_file *file, bool on)
{
    (void)file;
    return !on;
}

void os_write_behind(const os_file *file, uint64_t offset, uint64_t bytes)
{
    (void)file;
    (void)offset;
    (void)bytes;
}

uint32_t os_cores(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (uint32_t)cores : 1;
}

uint64_t os_peak_resident_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#ifdef __APPLE__
    return (uint64_t)usage.ru_maxrss; /* bytes */
#else
    return (uint64_t)usage.ru_maxrss * 1024;
#endif
}

uint64_t os_resident_bytes(void)
{
    return os_peak_resident_bytes();
}

/* Half of the memory there is: POSIX does not say what is free. */
uint64_t os_available_memory(void)
{
#ifdef _SC_PHYS_PAGES
    long pages = sysconf(_SC_PHYS_PAGES);
    return pages > 0 ? (uint64_t)pages / 2 * os_page_size() : 0;
#else
    return (uint64_t)2 << 30;
#endif
}

void os_trim_heap(void)
{
}

static size_t whole_pages(size_t bytes)
{
    size_t page = os_page_size();
    return bytes > SIZE_MAX - page ? 0 : (bytes + page - 1) / page * page;
}

enum { ALIGN = 2 << 20, ALIGN_LEAST = 8 << 20 }; /* large ones begin where a large page can */

void *os_pages(size_t bytes)
{
    size_t whole = whole_pages(bytes), spare = whole >= ALIGN_LEAST ? ALIGN : 0;
    if (!whole || whole > SIZE_MAX - spare) return NULL;
    unsigned char *p = mmap(NULL, whole + spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t over = spare ? (uintptr_t)p % ALIGN : 0, front = over ? ALIGN - over : 0;
    if (front) munmap(p, front);
    if (spare > front) munmap(p + front + whole, spare - front);
    return p + front;
}

void os_pages_free(void *p, size_t bytes)
{
    if (p) munmap(p, whole_pages(bytes));
}
