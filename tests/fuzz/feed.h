/* Hands bytes to code that opens paths: a file in memory, reused from input to input. Linux only, as libFuzzer is
 * here. */
#ifndef LAMINA_FUZZ_FEED_H
#define LAMINA_FUZZ_FEED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The path of a file that holds exactly data [n]; valid until the next call. Not thread-safe, as a fuzzer is not. */
static inline const char *feed(const uint8_t *data, size_t n)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        if (fd < 0) abort();
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) != 0) abort();
    for (size_t at = 0; at < n;) {
        ssize_t k = pwrite(fd, data + at, n - at, (off_t)at);
        if (k <= 0) abort();
        at += (size_t)k;
    }
    return path;
}

#endif
