/* A timeline in Chrome's trace-event format: open the file in a browser's trace viewer (chrome://tracing, Perfetto).
 * Spans are kept in a fixed buffer and written when it fills and at the end; a NULL trace costs one test. */
#ifndef LAMINA_BASE_TRACE_H
#define LAMINA_BASE_TRACE_H

#include "base/memory.h"

typedef struct trace trace;
enum { TRACE_COMPUTE = 1, TRACE_WAIT = 2, TRACE_READ = 16 /* + slot */ }; /* lanes: rows of the timeline */

lamina_status trace_new(memory *m, const char *path, trace **out, lamina_error *err);
/* One span on a lane from `begin` to `end` (os_seconds). name must be static or outlive the trace; layer -1: none.
 * bytes 0: none. Thread-safe. */
void trace_span(trace *t, uint32_t lane, const char *name, int32_t layer, uint64_t bytes, double begin, double end);
/* Writes the rest and closes. The first failure to write is reported here. NULL is allowed. */
lamina_status trace_close(trace *t, lamina_error *err);

#endif
