/* The portable engine: a few threads that call pread. Equal in function to io_uring; each read costs one thread for
 * its time, so the number of threads is the depth that the device sees. Requests wait in one list, first come first
 * served, under one lock: at a megabyte a read the lock is taken a few thousand times a second. */
#include "stream/reader_engine.h"

#include <pthread.h>
#include <signal.h>

enum { MOST_THREADS = 8, STACK_BYTES = 256 * 1024 };

typedef struct list {
    read_request *head, **tail;
} list;

typedef struct threads {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    list pending, finished; /* under the lock, as is `stopping` */
    bool stopping;
    uint32_t flying; /* the owner's */
    uint32_t n;
    pthread_t thread[MOST_THREADS];
} threads;

static void list_clear(list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static void list_push(list *l, read_request *q)
{
    q->next = NULL;
    *l->tail = q;
    l->tail = &q->next;
}

static read_request *list_pop(list *l)
{
    read_request *q = l->head;
    if (!q) return NULL;
    l->head = q->next;
    if (!l->head) l->tail = &l->head;
    return q;
}

static void *read_thread(void *arg)
{
    reader *r = arg;
    threads *t = r->state;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        read_request *q = list_pop(&t->pending);
        if (!q && t->stopping) break;
        if (!q) {
            pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        const os_file file = *reader_file_of(r, q);
        pthread_mutex_unlock(&t->lock);
        int64_t got;
        do got = os_pread(&file, (unsigned char *)q->data + q->done, q->bytes - q->done, q->offset + q->done);
        while (!reader_step(q, got, file.direct));
        q->completed = os_seconds();
        pthread_mutex_lock(&t->lock);
        list_push(&t->finished, q);
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void pread_stop(reader *r)
{
    threads *t = r->state;
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->n; i++) pthread_join(t->thread[i], NULL);
    pthread_cond_destroy(&t->done);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    mem_free(r->config.m, t);
    r->state = NULL;
}

/* Signals are for the program's own threads. */
static int start_thread(pthread_t *thread, const pthread_attr_t *attr, reader *r)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(thread, attr, read_thread, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

static lamina_status pread_start(reader *r, lamina_error *err)
{
    threads *t = mem_alloc(r->config.m, MEM_OTHER, sizeof *t, err);
    if (!t) return LAMINA_E_MEMORY;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    list_clear(&t->pending);
    list_clear(&t->finished);
    r->state = t;
    uint32_t want = r->config.depth < MOST_THREADS ? r->config.depth : MOST_THREADS;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int code = 0;
    while (t->n < want && (code = start_thread(&t->thread[t->n], &attr, r)) == 0) t->n++;
    pthread_attr_destroy(&attr);
    if (t->n > 0) return LAMINA_OK; /* fewer threads than wished only read less at once */
    pread_stop(r);
    char text[128];
    return error_set(err, LAMINA_E_MEMORY, "cannot start a reader thread: %s", os_error_text(code, text, sizeof text));
}

static void pread_submit(reader *r, read_request *q)
{
    threads *t = r->state;
    t->flying++;
    pthread_mutex_lock(&t->lock);
    list_push(&t->pending, q);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

static void pread_flush(reader *r)
{
    (void)r;
}

static read_request *pread_wait(reader *r, bool block)
{
    threads *t = r->state;
    if (t->flying == 0) return NULL;
    pthread_mutex_lock(&t->lock);
    read_request *q = list_pop(&t->finished);
    while (!q && block) {
        pthread_cond_wait(&t->done, &t->lock);
        q = list_pop(&t->finished);
    }
    pthread_mutex_unlock(&t->lock);
    if (q) t->flying--;
    return q;
}

const reader_engine reader_engine_pread = {
    .name = "pread",
    .start = pread_start,
    .submit = pread_submit,
    .flush = pread_flush,
    .wait = pread_wait,
    .stop = pread_stop,
};
