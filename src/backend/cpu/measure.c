/* Measures of the machine: how fast memory is read and how many multiply-adds its cores do, with the kernels' own
 * instructions on all threads. They are ceilings to hold the rest against. */
#include "backend_cpu.h"

#include "base/os.h"

enum {
    RAM_BYTES = 256 << 20,
    RAM_LEAST = 1 << 20,
    RAM_STRIP = 1 << 18 /* floats a task reads */,
    FMA_ROUNDS = 1 << 14
};

typedef struct ram_job {
    const cpu *c;
    const float *data;
} ram_job;

static void ram_task(void *arg, uint32_t task, uint32_t thread)
{
    const ram_job *j = arg;
    volatile float sink = j->c->kernels.read(j->data + (size_t)task * RAM_STRIP, RAM_STRIP);
    (void)sink;
    (void)thread;
}

double backend_cpu_measure_ram(backend *b, double seconds)
{
    cpu *c = cpu_of(b);
    float *data = NULL;
    size_t bytes = RAM_BYTES;
    while (bytes >= RAM_LEAST && !(data = mem_pages(c->m, MEM_OTHER, bytes, NULL))) bytes /= 2;
    if (!data) return 0;
    for (size_t i = 0; i < bytes / sizeof *data; i += 1024) data[i] = 1.0f; /* untouched pages may all be one */
    ram_job j = {.c = c, .data = data};
    uint64_t rounds = 0;
    double begin = os_seconds(), now;
    do {
        pool_run(c->pool, ram_task, &j, (uint32_t)(bytes / (RAM_STRIP * sizeof *data)));
        rounds++;
        now = os_seconds();
    } while (now - begin < seconds);
    mem_pages_free(c->m, MEM_OTHER, data, bytes);
    return (double)rounds * (double)bytes / (now - begin);
}

static void fma_task(void *arg, uint32_t task, uint32_t thread)
{
    const cpu *c = arg;
    float sink = 1.0f;
    (void)task;
    c->kernels.fma(FMA_ROUNDS, &sink);
    *(volatile float *)cpu_scratch(c, thread) = sink;
}

double backend_cpu_measure_fma(backend *b, double seconds)
{
    cpu *c = cpu_of(b);
    float sink = 1.0f;
    double operations = 0, begin = os_seconds(), now, each = c->kernels.fma(1, &sink) * FMA_ROUNDS;
    uint32_t tasks = c->threads * 8;
    do {
        pool_run(c->pool, fma_task, c, tasks);
        operations += each * tasks;
        now = os_seconds();
    } while (now - begin < seconds);
    return operations / (now - begin);
}
