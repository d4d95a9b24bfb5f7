/* Owns the compute threads. Promises that a job is never held up by a worker that is late: the caller begins at once,
 * tasks go to whoever asks next, and a worker that wakes after the last task was taken simply misses the job. So a
 * sleeping or descheduled worker costs its help and nothing else.
 *
 * One word, `state`, says all: the job's number, whether it may be joined, and how many workers are inside. Workers
 * join by compare-and-swap only while it is open; the caller closes it when the tasks are gone and waits until
 * nobody is inside. Only then can the job's fields change, so they need no locks. */
#include "base/threads.h"

#include "base/os.h"
#include "base/relax.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#define STATE_OPEN       (UINT64_C(1) << 31)
#define STATE_INSIDE     (STATE_OPEN - 1)
#define STATE_JOB(state) ((uint32_t)((state) >> 32))

enum {
    LINE = 64,
    SPINS_PER_LOOK = 16, /* between two looks at the clock */
    WORKER_STACK = 1 << 20,
    MOST_THREADS = 1024
};
static const double SPIN_SECONDS = 100e-6; /* longer than the gap between two jobs of a layer */

typedef struct worker {
    pool *p;
    pthread_t thread;
    uint32_t index; /* 1 .. n_threads - 1 */
} worker;

struct pool {
    memory *m;
    uint32_t n_threads, n_started;
    bool crowded; /* more threads than cores: waiting gives the core away at once */
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;

    /* the job; written only while nobody is inside */
    pool_fn fn;
    void *arg;
    uint32_t n_tasks;

    _Alignas(LINE) _Atomic uint64_t state;
    _Alignas(LINE) _Atomic uint64_t next; /* task */
    _Alignas(LINE) _Atomic uint32_t sleepers;
    _Atomic bool stop;
};

static void run_tasks(pool *p, uint32_t thread)
{
    uint64_t n = p->n_tasks;
    for (;;) {
        uint64_t task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= n) return;
        p->fn(p->arg, (uint32_t)task, thread);
    }
}

/* Is there a job to join that this worker has not seen, or an end to all? */
static bool something_new(pool *p, uint32_t seen)
{
    uint64_t state = atomic_load(&p->state);
    return (STATE_JOB(state) != seen && (state & STATE_OPEN)) || atomic_load(&p->stop);
}

static void wait_for_job(pool *p, uint32_t seen)
{
    double until = os_seconds() + SPIN_SECONDS;
    do {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            if (something_new(p, seen)) return;
            if (p->crowded)
                sched_yield();
            else
                relax();
        }
    } while (os_seconds() < until);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1); /* before the look at the state: the caller does the two in the other order */
    while (!something_new(p, seen)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    const worker *w = arg;
    pool *p = w->p;
    uint32_t seen = 0;
    for (;;) {
        wait_for_job(p, seen);
        if (atomic_load(&p->stop)) return NULL;
        uint64_t state = atomic_load(&p->state);
        if (!(state & STATE_OPEN) || STATE_JOB(state) == seen) continue; /* missed it */
        if (!atomic_compare_exchange_weak(&p->state, &state, state + 1)) continue;
        seen = STATE_JOB(state);
        run_tasks(p, w->index);
        atomic_fetch_sub(&p->state, 1);
    }
}

void pool_run(pool *p, pool_fn fn, void *arg, uint32_t n_tasks)
{
    if (p->n_threads == 1 || n_tasks <= 1) {
        for (uint32_t task = 0; task < n_tasks; task++) fn(arg, task, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_tasks = n_tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    uint32_t job = STATE_JOB(atomic_load_explicit(&p->state, memory_order_relaxed)) + 1;
    atomic_store(&p->state, (uint64_t)job << 32 | STATE_OPEN);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    run_tasks(p, 0);
    uint64_t state = atomic_fetch_and(&p->state, ~STATE_OPEN);
    for (uint32_t spins = 0; state & STATE_INSIDE; spins++) {
        if (p->crowded || spins > 4096)
            sched_yield();
        else
            relax();
        state = atomic_load(&p->state);
    }
}

uint32_t pool_threads(const pool *p)
{
    return p->n_threads;
}

/* Starts the workers with every signal blocked, so that signals reach the threads of the program. */
static lamina_status start_workers(pool *p, lamina_error *err)
{
    pthread_attr_t attributes;
    int code = pthread_attr_init(&attributes);
    if (code) return error_set(err, LAMINA_E_MEMORY, "threads: no attributes (error %d)", code);
    pthread_attr_setstacksize(&attributes, WORKER_STACK);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (p->n_started + 1 < p->n_threads) {
        worker *w = &p->workers[p->n_started];
        *w = (worker){.p = p, .index = p->n_started + 1};
        code = pthread_create(&w->thread, &attributes, worker_main, w);
        if (code) break;
        p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!code) return LAMINA_OK;
    char text[128];
    return error_set(err, LAMINA_E_MEMORY, "threads: could not start thread %u of %u: %s", p->n_started + 2,
                     p->n_threads, os_error_text(code, text, sizeof text));
}

lamina_status pool_new(memory *m, uint32_t n_threads, pool **out, lamina_error *err)
{
    *out = NULL;
    if (n_threads == 0 || n_threads > MOST_THREADS) {
        return error_set(err, LAMINA_E_USAGE, "threads: expected 1 to %d, found %u", (int)MOST_THREADS, n_threads);
    }
    pool *p = mem_alloc(m, MEM_OTHER, sizeof *p, err);
    if (!p) return LAMINA_E_MEMORY;
    p->m = m;
    p->n_threads = n_threads;
    p->crowded = n_threads > os_cores();
    p->workers = mem_array(m, MEM_OTHER, n_threads, sizeof *p->workers, err);
    if (!p->workers) {
        mem_free(m, p);
        return LAMINA_E_MEMORY;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    lamina_status status = start_workers(p, err);
    if (status == LAMINA_OK)
        *out = p;
    else
        pool_free(p);
    return status;
}

void pool_free(pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->m, p->workers);
    mem_free(p->m, p);
}
