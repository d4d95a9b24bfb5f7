/* The pool: every task once, on a thread of its range, for any number of threads and tasks, asleep or awake. */
#include "base/os.h"
#include "base/threads.h"
#include "test.h"

#include <pthread.h>
#include <stdatomic.h>

enum { MOST_TASKS = 1000, MOST_THREADS = 5 };

typedef struct job {
    _Atomic uint32_t runs[MOST_TASKS];
    uint32_t sum[MOST_THREADS][16]; /* a thread's own line, not atomic: two threads with one index would race */
    uint32_t n_threads;
    _Atomic uint32_t out_of_range;
    uint32_t plain[MOST_TASKS]; /* written by tasks, read by the caller afterwards without locks */
} job;

static void count_task(void *arg, uint32_t task, uint32_t thread)
{
    job *j = arg;
    atomic_fetch_add(&j->runs[task], 1);
    j->plain[task]++;
    if (thread >= j->n_threads)
        atomic_fetch_add(&j->out_of_range, 1);
    else
        j->sum[thread][0]++;
}

static void each_task_once(void)
{
    static const uint32_t counts[] = {0, 1, 2, 3, 4, 5, 17, 999};
    memory *m = memory_new();
    for (uint32_t n = 1; n <= MOST_THREADS; n++) {
        pool *p = NULL;
        lamina_error e = {0};
        REQUIRE(pool_new(m, n, &p, &e) == LAMINA_OK, "%s", e.text);
        CHECK(pool_threads(p) == n);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            job j = {.n_threads = n};
            for (uint32_t round = 1; round <= 20; round++) {
                pool_run(p, count_task, &j, counts[c]);
                uint32_t wrong = 0;
                for (uint32_t t = 0; t < MOST_TASKS; t++) {
                    wrong += j.plain[t] != (t < counts[c] ? round : 0);
                }
                CHECK(wrong == 0, "%u threads, %u tasks: %u wrong", n, counts[c], wrong);
            }
            uint32_t total = 0;
            for (uint32_t t = 0; t < MOST_THREADS; t++) total += j.sum[t][0];
            CHECK(total == 20 * counts[c] && j.out_of_range == 0);
        }
        pool_free(p);
    }
    pool_free(NULL);
    CHECK(memory_free(m) == 0);
}

/* Thousands of short jobs, whose fields change at once after each: a late worker that touched an old job would show
 * as a wrong count or to the thread sanitizer. Pauses let the workers fall asleep at every stage. */
static void stress(void)
{
    memory *m = memory_new();
    pool *p = NULL;
    REQUIRE(pool_new(m, 4, &p, NULL) == LAMINA_OK);
    uint32_t wrong = 0, random = 1;
    for (uint32_t round = 0; round < 3000; round++) {
        random = random * 1664525 + 1013904223;
        uint32_t n = 1 + random % 40;
        job j = {.n_threads = 4};
        pool_run(p, count_task, &j, n);
        for (uint32_t t = 0; t < n; t++) wrong += j.plain[t] != 1;
        if (random % 64 == 0) os_sleep_us(random >> 8 & 255);
    }
    CHECK(wrong == 0, "%u", wrong);
    pool_free(p);
    CHECK(memory_free(m) == 0);
}

static void *second_pool(void *arg)
{
    memory *m = arg;
    pool *p = NULL;
    if (pool_new(m, 2, &p, NULL) != LAMINA_OK) return NULL;
    bool right = true;
    for (int round = 0; round < 500; round++) {
        job j = {.n_threads = 2};
        pool_run(p, count_task, &j, 9);
        for (uint32_t t = 0; t < 9; t++) right = right && j.plain[t] == 1;
    }
    pool_free(p);
    return right ? arg : NULL;
}

static void two_pools(void)
{
    memory *m = memory_new();
    pthread_t a, b;
    void *ra = NULL, *rb = NULL;
    REQUIRE(pthread_create(&a, NULL, second_pool, m) == 0);
    REQUIRE(pthread_create(&b, NULL, second_pool, m) == 0);
    pthread_join(a, &ra);
    pthread_join(b, &rb);
    CHECK(ra && rb);
    CHECK(memory_free(m) == 0);
}

static void born_and_ended(void)
{
    memory *m = memory_new();
    for (int i = 0; i < 50; i++) {
        pool *p = NULL;
        REQUIRE(pool_new(m, 3, &p, NULL) == LAMINA_OK);
        if (i % 2) os_sleep_us(300); /* ended awake, and asleep */
        pool_free(p);
    }
    lamina_error e = {0};
    pool *p = NULL;
    CHECK(pool_new(m, 0, &p, &e) == LAMINA_E_USAGE && !p);
    CHECK(pool_new(m, 100000, &p, &e) == LAMINA_E_USAGE && !p);
    for (uint64_t n = 1; n <= 2; n++) {
        memory_fail_at(m, n);
        CHECK(pool_new(m, 2, &p, &e) == LAMINA_E_MEMORY && !p, "allocation %u", (unsigned)n);
    }
    CHECK(memory_free(m) == 0);
}

static void nothing(void *arg, uint32_t task, uint32_t thread)
{
    (void)arg;
    (void)task;
    (void)thread;
}

static void busy_20_us(void *arg, uint32_t task, uint32_t thread)
{
    (void)arg;
    (void)task;
    (void)thread;
    double until = os_seconds() + 20e-6;
    while (os_seconds() < until) {
    }
}

/* Measured, with a bound so wide (1 ms) that only a pool that sleeps through its jobs fails. */
static void latency(void)
{
    uint32_t n = 2;
    memory *m = memory_new();
    pool *p = NULL;
    REQUIRE(pool_new(m, n, &p, NULL) == LAMINA_OK);
    double begin = os_seconds();
    for (int i = 0; i < 2000; i++) pool_run(p, nothing, NULL, n);
    double empty = (os_seconds() - begin) / 2000;
    begin = os_seconds();
    for (int i = 0; i < 200; i++) pool_run(p, busy_20_us, NULL, 2 * n);
    double busy = (os_seconds() - begin) / 200;
    begin = os_seconds();
    double slept = 0;
    for (int i = 0; i < 50; i++) {
        os_sleep_us(1000);
        double from = os_seconds();
        pool_run(p, nothing, NULL, n);
        slept += (os_seconds() - from) / 50;
    }
    printf("  %u threads: empty job %.2f us, %u tasks of 20 us %.1f us, after a sleep %.1f us\n", n, empty * 1e6, 2 * n,
           busy * 1e6, slept * 1e6);
    CHECK(empty < 1e-3 && slept < 1e-2);
    pool_free(p);
    CHECK(memory_free(m) == 0);
}

TEST_MAIN(T(each_task_once), T(stress), T(two_pools), T(born_and_ended), T(latency))
