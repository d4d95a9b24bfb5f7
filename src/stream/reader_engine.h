/* Between reader.c, which owns files, faults and the retry rule, and the engines that move bytes: io_uring
 * (reader_uring.c; reader_uring_none.c where there is none) and threads (reader_pread.c). */
#ifndef LAMINA_STREAM_READER_ENGINE_H
#define LAMINA_STREAM_READER_ENGINE_H

#include "stream/reader.h"

typedef struct reader_engine {
    const char *name;
    /* LAMINA_E_UNSUPPORTED: this system does not permit the engine, another may be tried. */
    lamina_status (*start)(reader *r, lamina_error *err);
    void (*submit)(reader *r, read_request *q);
    void (*flush)(reader *r);
    read_request *(*wait)(reader *r, bool block); /* NULL also when nothing is in flight */
    void (*stop)(reader *r);                      /* nothing is in flight */
} reader_engine;

typedef struct reader_file {
    os_file main;  /* as opened: direct where possible */
    os_file plain; /* through the page cache, opened when direct reads turn out to be refused */
} reader_file;

struct reader {
    reader_config config;
    const reader_engine *engine;
    void *state; /* the engine's */
    reader_file *files;
    uint32_t in_flight;
    uint64_t n_reads;   /* for the faults that count */
    read_request *late; /* arrived, but not to be seen before .due (simulated slow disk) */
    char note[512];
};

extern const reader_engine reader_engine_uring, reader_engine_pread;

static inline const os_file *reader_file_of(const reader *r, const read_request *q)
{
    const reader_file *f = &r->files[q->file];
    return q->plain ? &f->plain : &f->main;
}

/* Takes the result of one system call for q (bytes, or -errno). true: the request is finished; false: ask for
 * [done, bytes) again. */
bool reader_step(read_request *q, int64_t result, bool direct);

#endif
