/* Owns threads for the length of one call. Promises that `take`, `done` and `say` are never called at the same time,
 * that every thread has ended when crew_run() returns, and that the error is that of the first piece that failed. */
#include "store/crew.h"

#include <pthread.h>
#include <time.h>

#include "base/os.h"

typedef struct crew {
    const store_job *job;
    const crew_work *w;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t running;
    bool stop;
    lamina_status status;
    lamina_error error;
} crew;

typedef struct member {
    crew *c;
    uint32_t number;
    pthread_t thread;
} member;

/* The lock is held. */
static void stop(crew *c, lamina_status status, const lamina_error *error)
{
    if (!c->stop) {
        c->status = status;
        c->error = *error;
    }
    c->stop = true;
}

static void *work(void *arg)
{
    const member *me = arg;
    crew *c = me->c;
    const crew_work *w = c->w;
    pthread_mutex_lock(&c->lock);
    while (!c->stop && w->take(w->user, me->number)) {
        lamina_error error = {0};
        pthread_mutex_unlock(&c->lock);
        lamina_status status = w->work(w->user, me->number, &error);
        pthread_mutex_lock(&c->lock);
        if (status != LAMINA_OK)
            stop(c, status, &error);
        else if (w->done)
            w->done(w->user, me->number);
    }
    c->running--;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

uint32_t crew_threads(const store_job *job, uint64_t bytes, uint64_t each)
{
    uint32_t n = job->threads ? job->threads : 2 * os_cores();
    if (n > CREW_MOST) n = CREW_MOST;
    while (n > CREW_LEAST && n * each > bytes) n--;
    return n < CREW_LEAST ? CREW_LEAST : n;
}

static lamina_status report(const store_job *job, const lamina_progress *p, lamina_error *err)
{
    if (job->cancel && atomic_load(job->cancel)) return error_set(err, LAMINA_E_CANCELLED, "cancelled");
    if (!job->progress || job->progress(job->progress_user, p)) return LAMINA_OK;
    return error_set(err, LAMINA_E_CANCELLED, "cancelled by the caller");
}

/* Waits for the threads, reporting; the lock is held and let go for each report. */
static void watch(crew *c, double began)
{
    while (c->running) {
        lamina_error error = {0};
        struct timespec until;
        timespec_get(&until, TIME_UTC);
        until.tv_nsec += 50 * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&c->changed, &c->lock, &until);
        lamina_progress p = {.phase = c->w->phase, .seconds = os_seconds() - began};
        c->w->say(c->w->user, &p);
        pthread_mutex_unlock(&c->lock);
        lamina_status status = report(c->job, &p, &error);
        pthread_mutex_lock(&c->lock);
        if (status != LAMINA_OK) stop(c, status, &error);
    }
}

lamina_status crew_run(const store_job *job, const crew_work *w, uint32_t threads, lamina_error *err)
{
    member members[CREW_MOST];
    uint32_t n = 0;
    double began = os_seconds();
    crew c = {.job = job, .w = w};
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.changed, NULL);
    pthread_mutex_lock(&c.lock);
    for (; n < threads && n < CREW_MOST && !c.stop; n++) {
        members[n] = (member){.c = &c, .number = n};
        int code = pthread_create(&members[n].thread, NULL, work, &members[n]);
        if (code) {
            char reason[128];
            lamina_error error = {0};
            stop(
                &c,
                error_set(&error, LAMINA_E_IO, "cannot start a thread: %s", os_error_text(code, reason, sizeof reason)),
                &error);
            break;
        }
        c.running++;
    }
    watch(&c, began);
    pthread_mutex_unlock(&c.lock);
    for (uint32_t i = 0; i < n; i++) pthread_join(members[i].thread, NULL);
    pthread_cond_destroy(&c.changed);
    pthread_mutex_destroy(&c.lock);
    if (c.status != LAMINA_OK && err) *err = c.error;
    return c.status;
}
