/* The stream of weights. The matrices of a pass are known and visited in the same order for ever, so the stream reads
 * ahead without end, across layers and across passes, into a ring; part of each matrix may be pinned in memory and is
 * then read once. The forward pass takes row chunks in order.
 *
 * Layout. Every matrix is cut by rows into a pinned prefix (possibly empty or whole) and streamed chunks. Pinning the
 * same share of each matrix, not whole matrices here and there, means that there is always something to compute
 * while the next chunk arrives and the disk never pauses. */
#ifndef LAMINA_STREAM_STREAM_H
#define LAMINA_STREAM_STREAM_H

#include "base/trace.h"
#include "stream/reader.h"

typedef struct stream_matrix { /* in the order of the pass */
    const char *name;          /* for traces and errors; must outlive stream and trace */
    int32_t layer;             /* -1: none */
    uint32_t file;
    uint64_t offset; /* of row 0 */
    uint64_t rows, row_bytes;
} stream_matrix;

typedef struct stream_layout {
    uint64_t chunk_bytes;    /* largest read; a slot of the ring has this size */
    uint64_t ring_bytes;     /* slots * chunk_bytes */
    uint64_t pinned_bytes;   /* memory for pinned prefixes, rounded to pages */
    uint64_t streamed_bytes; /* read by a pass that has the tail once, alignment included, after the first pass */
    uint64_t total_bytes;    /* of all matrices */
} stream_layout;

enum { STREAM_GATHER_BYTES = 1 << 20 /* memory of stream_gather(), beside the ring (MEM_RING) */ };

/* The least chunk that holds a row of every matrix, aligned. */
uint64_t stream_min_chunk(const stream_matrix *matrices, size_t n);
/* What a layout comes to: a pure function, also used to plan. chunk_bytes is a multiple of READ_ALIGN and at least
 * stream_min_chunk. pin_budget: bytes of memory for pinned prefixes; pinned_bytes never exceeds it; all is pinned
 * when it suffices (stream_pin_all). */
void stream_plan(const stream_matrix *matrices, size_t n, uint64_t chunk_bytes, uint64_t ring_bytes,
                 uint64_t pin_budget, stream_layout *layout);
uint64_t stream_pin_all(const stream_matrix *matrices, size_t n); /* pinned_bytes when everything is */

/* What a stream takes beside ring and pinned memory: request queues, the area for gathered rows. */
uint64_t stream_overhead(void);

typedef struct stream_config {
    memory *m;
    trace *trace; /* may be NULL */
    lamina_io io;
    lamina_faults faults;
    uint32_t n_files;
    const char *const *paths; /* must outlive the stream, as file_bytes */
    const uint64_t *file_bytes;
    size_t n_matrices;
    const stream_matrix *matrices; /* copied */
    size_t tail; /* index of the first matrix of the tail (the head), repeated or left out by a pass */
    uint64_t chunk_bytes, ring_bytes, pin_budget;
    bool tune; /* choose the read size (<= chunk_bytes) by a short measurement where it can pay */
} stream_config;

typedef struct stream stream;

typedef struct stream_chunk {
    size_t matrix;
    uint64_t row0, n_rows;
    const void *data; /* [n_rows] rows of row_bytes, not necessarily aligned */
} stream_chunk;

typedef struct stream_stats {
    uint64_t bytes_read;  /* whole blocks; what waits in the ring counts when it is taken or thrown away */
    double stall_seconds; /* waiting in stream_next and stream_gather */
    double first_read;    /* os_seconds of the first submission; 0: none yet */
} stream_stats;

/* Takes the memory (MEM_RING, MEM_PINNED, a few kilobytes of MEM_OTHER) and begins to read. A ring of less than one
 * chunk is an error unless all is pinned; with two or more, reading and computing overlap. */
lamina_status stream_new(const stream_config *config, stream **out, lamina_error *err);
void stream_free(stream *s); /* NULL is allowed */

/* A pass: begin, next until *more is false, end. tail_repeats: how often the matrices from `tail` on are delivered
 * (0: left out). A chunk is valid until the next call. Matrices come whole and in order; chunks of one matrix in
 * order of rows. After a failure, or to leave a pass, call stream_abort(): it waits for what is in flight; the next
 * pass starts afresh and pinned parts are kept. LAMINA_E_IO names file, offset and matrix. */
void stream_begin(stream *s, uint32_t tail_repeats);
lamina_status stream_next(stream *s, stream_chunk *chunk, bool *more, lamina_error *err);
void stream_abort(stream *s);

/* Random access, for embedding rows: n extents of `bytes` each at offsets[i] of `file` into data + i * bytes. Not
 * counted against the order of the pass; several in flight. */
lamina_status stream_gather(stream *s, uint32_t file, const uint64_t *offsets, size_t n, uint64_t bytes, void *data,
                            lamina_error *err);

/* Row 0 of a matrix's pinned prefix and how many of its rows have been read; NULL and 0: none. */
const void *stream_pinned(const stream *s, size_t matrix, uint64_t *n_rows);

/* Reads the model's own bytes with the stream's own reader for about `seconds`, in the order of the pass, nothing
 * else done and completions taken in any order: the device's ceiling. Between passes only (a pass under way is
 * aborted); the read-ahead is rebuilt. Where all is pinned, 0. Not counted in the statistics. */
lamina_status stream_measure(stream *s, double seconds, double *bytes_per_s, lamina_error *err);
/* The same as if nothing were pinned. */
lamina_status stream_measure_all(stream *s, double seconds, double *bytes_per_s, lamina_error *err);
void stream_get_stats(const stream *s, stream_stats *stats);
void stream_reset_stats(stream *s);
const reader *stream_reader(const stream *s);
uint64_t stream_read_bytes(const stream *s); /* bytes per read, after tuning */
uint32_t stream_depth(const stream *s);      /* streamed reads in flight at most */
stream_layout stream_get_layout(const stream *s);

#endif
