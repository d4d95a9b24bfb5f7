/* The flow: files of a store, block by block, many reads and writes in flight, each file hashed in order.
 *
 * FLOW_WRITE makes files from their sources: read -> hash -> write, then sync, rename, a line in the journal.
 * FLOW_CHECK reads files of the store past the page cache and compares size and checksum. */
#ifndef LAMINA_STORE_FLOW_H
#define LAMINA_STORE_FLOW_H

#include "store/journal.h"

typedef enum flow_mode { FLOW_WRITE, FLOW_CHECK } flow_mode;

typedef struct flow flow;

enum { FLOW_LEAST_MEMORY = 1 << 20, FLOW_MEMORY = 64 << 20 };

/* buffers: bytes, 0: 64 MiB; below FLOW_LEAST_MEMORY, or too little for a row of
 * what is recoded: LAMINA_E_BUDGET. j may be NULL for FLOW_CHECK. */
lamina_status flow_new(const store_job *job, uint64_t buffers, image *im, journal *j, flow **out, lamina_error *err);
void flow_free(flow *f); /* NULL is allowed */

/* Moves the files [n]. total: bytes of the whole operation, for progress; what has been moved counts on from run to
 * run. On success every file is marked written (and its xxh3 set) or, by FLOW_CHECK, verified; FLOW_CHECK with a
 * journal records it. On an error what is complete stays marked. */
lamina_status flow_run(flow *f, flow_mode mode, const uint32_t *files, size_t n, uint64_t total, lamina_error *err);
uint64_t flow_bytes(const flow *f, flow_mode mode); /* moved so far */

#endif
