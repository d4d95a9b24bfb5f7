/* The CPU backend: the skeleton around the kernels. It owns the scratch of each thread and the division of work; which
 * instructions run is the kernels' struct alone. Rows are divided among threads, never a sum, so that threads do not
 * change a bit. Nothing is allocated after creation. */
#include "backend_cpu.h"

#include <string.h>

enum { BIG_ALLOCATION = 1 << 20, SMALL_WORK = 16384 /* elements that are not worth waking a thread for */ };

/* ---- memory ------------------------------------------------------------------------------------------------------- */

static void *cpu_alloc(backend *b, mem_tag tag, size_t bytes, lamina_error *err)
{
    memory *m = cpu_of(b)->m;
    return bytes >= BIG_ALLOCATION ? mem_pages(m, tag, bytes, err) : mem_alloc(m, tag, bytes, err);
}

static void cpu_free(backend *b, mem_tag tag, void *p, size_t bytes)
{
    memory *m = cpu_of(b)->m;
    if (bytes >= BIG_ALLOCATION)
        mem_pages_free(m, tag, p, bytes);
    else
        mem_free(m, p);
}

static void copy(backend *b, void *dst, const void *src, size_t bytes)
{
    (void)b;
    if (bytes) memcpy(dst, src, bytes);
}

/* ---- dividing work ------------------------------------------------------------------------------------------------ */

typedef struct items_job {
    items_fn fn;
    void *arg;
    uint64_t n, per_task;
} items_job;

static void items_task(void *arg, uint32_t task, uint32_t thread)
{
    const items_job *j = arg;
    (void)thread;
    uint64_t from = task * j->per_task, to = from + j->per_task;
    j->fn(j->arg, from, to < j->n ? to : j->n);
}

void cpu_items(cpu *c, items_fn fn, void *arg, uint64_t n, uint64_t elements)
{
    if (!n) return;
    if (n * elements <= SMALL_WORK || c->threads == 1) {
        fn(arg, 0, n);
        return;
    }
    uint64_t least = (SMALL_WORK / 2 + elements - 1) / elements, fair = (n + 4 * c->threads - 1) / (4 * c->threads);
    items_job j = {.fn = fn, .arg = arg, .n = n, .per_task = least > fair ? least : fair};
    pool_run(c->pool, items_task, &j, (uint32_t)((n + j.per_task - 1) / j.per_task));
}

/* ---- operations on rows and elements ------------------------------------------------------------------------------ */

enum { STRIP = 1024 /* elements of an elementwise operation that go together */ };

typedef struct rows_args {
    const cpu *c;
    const float *x, *w;
    const uint8_t *stored;
    float *out, *out2;
    uint64_t k, n;
    uint32_t heads, head_dim, dims;
    float eps;
    dtype type;
    rotate_kind rotate;
    act_kind act;
    const uint32_t *index;
} rows_args;

static void widen_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    uint64_t bytes = dtype_row_bytes(a->type, a->k);
    for (uint64_t r = from; r < to; r++)
        a->c->kernels.weight[a->type].widen(a->stored + r * bytes, a->k, a->out + r * a->k);
}

static void cpu_widen(backend *b, dtype type, const void *rows, uint32_t n, uint64_t k, float *x)
{
    rows_args a = {.c = cpu_of(b), .type = type, .stored = rows, .k = k, .out = x};
    cpu_items(cpu_of(b), widen_rows, &a, n, k);
}

static void norm_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    for (uint64_t r = from; r < to; r++)
        a->c->kernels.rms_norm(a->x + r * a->k, a->w, (uint32_t)a->k, a->eps, a->out + r * a->k);
}

static void cpu_rms_norm(backend *b, const float *x, const float *w, uint32_t n, uint32_t k, float eps, float *out)
{
    rows_args a = {.c = cpu_of(b), .x = x, .w = w, .k = k, .eps = eps, .out = out};
    cpu_items(cpu_of(b), norm_rows, &a, n, k);
}

static void add_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    uint64_t i = from * STRIP, end = to * STRIP < a->n ? to * STRIP : a->n;
    a->c->kernels.add(a->out + i, a->x + i, end - i);
}

static void cpu_add(backend *b, float *x, const float *y, uint64_t n)
{
    rows_args a = {.c = cpu_of(b), .x = y, .out = x, .n = n};
    cpu_items(cpu_of(b), add_strips, &a, (n + STRIP - 1) / STRIP, STRIP);
}

static void bias_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    for (uint64_t r = from; r < to; r++) a->c->kernels.add(a->out + r * a->k, a->x, a->k);
}

static void cpu_add_bias(backend *b, float *x, const float *bias, uint32_t n, uint32_t k)
{
    rows_args a = {.c = cpu_of(b), .x = bias, .out = x, .k = k};
    cpu_items(cpu_of(b), bias_rows, &a, n, k);
}

static void gate_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    uint64_t i = from * STRIP, end = to * STRIP < a->n ? to * STRIP : a->n;
    if (a->act == BACKEND_SILU)
        a->c->kernels.silu(a->out + i, a->x + i, end - i);
    else
        a->c->kernels.gelu_tanh(a->out + i, a->x + i, end - i);
}

static void cpu_gate(backend *b, act_kind act, float *gate, const float *up, uint64_t n)
{
    rows_args a = {.c = cpu_of(b), .act = act, .x = up, .out = gate, .n = n};
    cpu_items(cpu_of(b), gate_strips, &a, (n + STRIP - 1) / STRIP, (uint64_t)STRIP * 4 /* exp costs */);
}

static void angle_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    uint64_t half = a->dims / 2;
    for (uint64_t r = from; r < to; r++)
        for (uint64_t i = 0; i < half; i++) {
            sine_cosine v = spec_sincosf((float)a->index[r] * a->x[i]);
            a->out[r * half + i] = v.cos * a->eps;
            a->out2[r * half + i] = v.sin * a->eps;
        }
}

static void cpu_angles(backend *b, const float *inv_freq, float scale, uint32_t dims, const uint32_t *positions,
                       uint32_t n, float *cos, float *sin)
{
    rows_args a = {.x = inv_freq, .eps = scale, .dims = dims, .index = positions, .out = cos, .out2 = sin};
    cpu_items(cpu_of(b), angle_rows, &a, n, (uint64_t)dims * 16);
}

static void rotate_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    uint64_t half = a->dims / 2;
    for (uint64_t r = from; r < to; r++)
        for (uint32_t h = 0; h < a->heads; h++) {
            float *x = a->out + (r * a->heads + h) * a->head_dim;
            if (a->rotate == ROTATE_HALF)
                a->c->kernels.rotate_half(x, a->dims, a->x + r * half, a->w + r * half);
            else
                a->c->kernels.rotate_pairs(x, a->dims, a->x + r * half, a->w + r * half);
        }
}

static void cpu_rotate(backend *b, rotate_kind kind, float *x, uint32_t n, uint32_t heads, uint32_t head_dim,
                       uint32_t dims, const float *cos, const float *sin)
{
    rows_args a = {.c = cpu_of(b),
                   .rotate = kind,
                   .out = x,
                   .heads = heads,
                   .head_dim = head_dim,
                   .dims = dims,
                   .x = cos,
                   .w = sin};
    cpu_items(cpu_of(b), rotate_rows, &a, n, (uint64_t)heads * head_dim);
}

static void copy_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    for (uint64_t r = from; r < to; r++) memcpy(a->out + r * a->k, a->x + a->index[r] * a->k, a->k * sizeof(float));
}

static void cpu_take_rows(backend *b, const float *x, const uint32_t *index, uint32_t n, uint32_t k, float *out)
{
    rows_args a = {.x = x, .index = index, .k = k, .out = out};
    cpu_items(cpu_of(b), copy_rows, &a, n, k);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

static size_t scratch_bytes(void)
{
    size_t products = cpu_product_scratch(), attention = ATTEND_SCRATCH * sizeof(float);
    size_t bytes = products > attention ? products : attention;
    return (bytes + 4095) / 4096 * 4096;
}

uint64_t backend_cpu_scratch(uint32_t threads)
{
    return (uint64_t)threads * scratch_bytes();
}

static void cpu_close(backend *b)
{
    cpu *c = cpu_of(b);
    mem_pages_free(c->m, MEM_ACTIVATION, c->scratch, backend_cpu_scratch(c->threads));
    mem_free(c->m, c);
}

static const backend_ops cpu_ops = {.name = "cpu",
                                    .alloc = cpu_alloc,
                                    .free = cpu_free,
                                    .upload = copy,
                                    .download = copy,
                                    .packed_bytes = cpu_packed_bytes,
                                    .pack = cpu_pack,
                                    .apply = cpu_apply,
                                    .widen = cpu_widen,
                                    .rms_norm = cpu_rms_norm,
                                    .add = cpu_add,
                                    .add_bias = cpu_add_bias,
                                    .gate = cpu_gate,
                                    .angles = cpu_angles,
                                    .rotate = cpu_rotate,
                                    .attention = cpu_attention,
                                    .take_rows = cpu_take_rows,
                                    .close = cpu_close};

lamina_status backend_cpu_new(memory *m, pool *threads, lamina_isa cap, backend **out, lamina_error *err)
{
    cpu *c = mem_alloc(m, MEM_OTHER, sizeof *c, err);
    if (!c) return err ? err->status : LAMINA_E_MEMORY;
    c->base.ops = &cpu_ops;
    c->m = m;
    c->pool = threads;
    c->threads = pool_threads(threads);
    c->scratch_bytes = scratch_bytes();
    c->scratch = mem_pages(m, MEM_ACTIVATION, backend_cpu_scratch(c->threads), err);
    if (!c->scratch) {
        mem_free(m, c);
        return err ? err->status : LAMINA_E_MEMORY;
    }
    kernels_scalar(&c->kernels);
    kernels_ladder(&c->kernels, cap);
    *out = &c->base;
    return LAMINA_OK;
}

const char *backend_cpu_isa(const backend *b)
{
    return ((const cpu *)b)->kernels.name;
}
