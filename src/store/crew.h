/* A few threads that take pieces of work until none are left, while the caller waits, reports and may cancel. */
#ifndef LAMINA_STORE_CREW_H
#define LAMINA_STORE_CREW_H

#include "store/store.h"

typedef struct crew_work {
    void *user;
    lamina_phase phase; /* of reports */
    /* Under the crew's lock: the next piece becomes worker's, who is < threads; false: none is left. */
    bool (*take)(void *user, uint32_t worker);
    /* Without the lock: works on it. The first failure ends all. */
    lamina_status (*work)(void *user, uint32_t worker, lamina_error *err);
    void (*done)(void *user, uint32_t worker);   /* under the lock, behind each piece that succeeded; NULL: nothing */
    void (*say)(void *user, lamina_progress *p); /* under the lock: fills in unit, done, total, bytes */
} crew_work;

enum { CREW_LEAST = 4, CREW_MOST = 16 };

/* How many threads move and change bytes: two for each core, so that some compute while others wait for the disk, in
 * these bounds; and above the least only as many as of `bytes` each may have `each`. */
uint32_t crew_threads(const store_job *job, uint64_t bytes, uint64_t each);

/* threads: 1 to CREW_MOST. On an error pieces that were taken have been worked on or not. */
lamina_status crew_run(const store_job *job, const crew_work *w, uint32_t threads, lamina_error *err);

#endif
