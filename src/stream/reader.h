/* Readers: engines that fill buffers from files, many reads in flight. Two kinds behind one interface: io_uring
 * (Linux) and a few threads calling pread (everywhere). A reader has one owner thread. */
#ifndef LAMINA_STREAM_READER_H
#define LAMINA_STREAM_READER_H

#include "base/memory.h"
#include "base/os.h"

typedef struct reader reader;

typedef struct read_request { /* owned by the caller until it comes back from reader_wait() */
    uint32_t file;            /* index into the reader's files */
    uint64_t offset;          /* direct files: a multiple of READ_ALIGN, as are `bytes` and `data` */
    uint32_t bytes;           /* asked for; the file may end before, see `needed` */
    uint32_t needed;          /* at least this many must arrive */
    void *data;
    void *user;
    double submitted, completed; /* os_seconds; io_uring: when the owner saw it */
    int error;                   /* after completion: 0 or errno (EIO for an unexpected end of file) */
    bool ended;                  /* the error is that the file ended `done` bytes after `offset` */
    uint32_t done;               /* bytes that have arrived */
    struct read_request *next;   /* the rest is private */
    double due;
    uint32_t tries;
    bool plain, cut_short;
} read_request;

enum { READ_ALIGN = 4096 };

typedef struct reader_config {
    memory *m;
    lamina_io io;
    uint32_t depth; /* requests in flight at most */
    uint32_t n_files;
    const char *const *paths;
    void *fixed;
    size_t fixed_bytes; /* memory most reads go to: registered where possible; NULL: none */
    lamina_faults faults;
} reader_config;

/* The paths must live as long as the reader. */
lamina_status reader_new(const reader_config *config, reader **out, lamina_error *err);
void reader_free(reader *r);              /* waits for what is in flight; NULL is allowed */
const char *reader_name(const reader *r); /* "io_uring", "pread", "buffered" */
const char *reader_note(const reader *r); /* why not what was asked for, or "" */
uint32_t reader_in_flight(const reader *r);

/* Queues one request; at most `depth` in flight. Short reads, EINTR and EAGAIN are retried inside. */
void reader_submit(reader *r, read_request *request);
void reader_flush(reader *r); /* hand what is queued to the kernel (submission may be batched) */
/* The next completed request, or NULL: none in flight, or (block false) none completed yet. */
read_request *reader_wait(reader *r, bool block);

#endif
