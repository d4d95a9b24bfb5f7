/* A pool of compute threads. The caller is thread 0. Workers spin briefly for the next job (a layer is a train of
 * short jobs), then sleep: an idle engine costs no power. */
#ifndef LAMINA_BASE_THREADS_H
#define LAMINA_BASE_THREADS_H

#include "base/memory.h"

typedef struct pool pool;
typedef void (*pool_fn)(void *arg, uint32_t task, uint32_t thread);

lamina_status pool_new(memory *m, uint32_t n_threads, pool **out, lamina_error *err);
void pool_free(pool *p); /* NULL is allowed */
uint32_t pool_threads(const pool *p);
/* Runs fn(arg, task, thread) for every task in [0, n_tasks), each once, on any thread; returns when all are done. */
void pool_run(pool *p, pool_fn fn, void *arg, uint32_t n_tasks);

#endif
