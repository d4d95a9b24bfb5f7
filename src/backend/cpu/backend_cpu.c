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

typedef struct norm_job {
    const norm_args *a;
    void (*norm)(const norm_row *row);
} norm_job;

typedef struct rows_args {
    cpu *c;
    const float *x, *w;
    float *out, *out2;
    uint64_t k, n;
    uint32_t heads, head_dim, dims;
    float factor;
    rotate_kind rotate;
    act_kind act;
    const uint32_t *index;
} rows_args;

/* Elements of a run of strips. */
typedef struct span {
    uint64_t at, n;
} span;

static span span_of(const rows_args *a, uint64_t from, uint64_t to)
{
    uint64_t end = to * STRIP < a->n ? to * STRIP : a->n;
    return (span){from * STRIP, end - from * STRIP};
}

/* cost: of an element, as that of so many that are only added. */
static void strips(items_fn fn, rows_args *a, uint64_t cost)
{
    cpu_items(a->c, fn, a, (a->n + STRIP - 1) / STRIP, STRIP * cost);
}

static void norm_rows(void *arg, uint64_t from, uint64_t to)
{
    const norm_job *j = arg;
    const norm_args *a = j->a;
    for (uint64_t i = from; i < to; i++) {
        uint64_t at = a->w_rows > 1 ? i % a->w_rows * a->k : 0;
        norm_row row = {.x = a->x + i * a->k,
                        .w = a->w ? a->w + at : NULL,
                        .b = a->b ? a->b + at : NULL,
                        .k = a->k,
                        .eps = a->eps,
                        .out = a->out + i * a->k};
        j->norm(&row);
    }
}

static void cpu_norm(backend *b, const norm_args *a)
{
    const kernels *k = &cpu_of(b)->kernels;
    norm_job j = {.a = a, .norm = a->form == BACKEND_RMS_NORM ? k->rms_norm : k->layer_norm};
    cpu_items(cpu_of(b), norm_rows, &j, a->n, a->k);
}

static void zero_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    memset(a->out + s.at, 0, s.n * sizeof(float));
}

static void cpu_zero(backend *b, float *x, uint64_t n)
{
    strips(zero_strips, &(rows_args){.c = cpu_of(b), .out = x, .n = n}, 1);
}

static void add_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.add(a->out + s.at, a->x + s.at, s.n);
}

static void cpu_add(backend *b, float *x, const float *y, uint64_t n)
{
    strips(add_strips, &(rows_args){.c = cpu_of(b), .x = y, .out = x, .n = n}, 1);
}

static void add_scaled_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.add_scaled(a->out + s.at, a->x + s.at, a->factor, s.n);
}

static void cpu_add_scaled(backend *b, float *x, const float *y, float factor, uint64_t n)
{
    strips(add_scaled_strips, &(rows_args){.c = cpu_of(b), .x = y, .out = x, .factor = factor, .n = n}, 1);
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

typedef struct squares_args {
    const float *x;
    double *sums;
    uint64_t k;
    uint32_t n;
} squares_args;

static void square_columns(void *arg, uint64_t from, uint64_t to)
{
    const squares_args *a = arg;
    for (uint32_t t = 0; t < a->n; t++) {
        const float *x = a->x + t * a->k;
        for (uint64_t c = from; c < to; c++) a->sums[c] += (double)x[c] * (double)x[c];
    }
}

static void cpu_add_squares(backend *b, const float *x, uint32_t n, uint64_t k, double *sums)
{
    cpu_items(cpu_of(b), square_columns, &(squares_args){.x = x, .sums = sums, .k = k, .n = n}, k, n);
}

static void scale_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.scale(a->out + s.at, a->factor, s.n);
}

static void cpu_scale(backend *b, float *x, float factor, uint64_t n)
{
    strips(scale_strips, &(rows_args){.c = cpu_of(b), .out = x, .factor = factor, .n = n}, 1);
}

/* Comparisons and copies: the same bits however a compiler does it. */
static void clamp_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    float *x = a->out + s.at, limit = a->factor;
    for (uint64_t i = 0; i < s.n; i++) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
}

static void cpu_clamp(backend *b, float *x, float limit, uint64_t n)
{
    strips(clamp_strips, &(rows_args){.c = cpu_of(b), .out = x, .factor = limit, .n = n}, 1);
}

static void scaled_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    for (uint64_t r = from; r < to; r++) a->c->kernels.scale(a->out + r * a->k, a->x[r], a->k);
}

static void cpu_scale_rows(backend *b, float *x, const float *factors, uint32_t n, uint32_t k)
{
    rows_args a = {.c = cpu_of(b), .x = factors, .out = x, .k = k};
    cpu_items(cpu_of(b), scaled_rows, &a, n, k);
}

enum { EXP_COST = 4 };

static void softcap_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.softcap(a->out + s.at, a->factor, s.n);
}

static void cpu_softcap(backend *b, float *x, float cap, uint64_t n)
{
    strips(softcap_strips, &(rows_args){.c = cpu_of(b), .out = x, .factor = cap, .n = n}, EXP_COST);
}

static void sigmoid_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.sigmoid(a->out + s.at, s.n);
}

static void cpu_sigmoid(backend *b, float *x, uint64_t n)
{
    strips(sigmoid_strips, &(rows_args){.c = cpu_of(b), .out = x, .n = n}, EXP_COST);
}

static void gate_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.gate[a->act](a->out + s.at, a->x + s.at, a->factor, s.n);
}

static void cpu_gate(backend *b, act_kind act, float limit, float *gate, const float *up, uint64_t n)
{
    rows_args a = {.c = cpu_of(b), .act = act, .factor = limit, .x = up, .out = gate, .n = n};
    strips(gate_strips, &a, EXP_COST);
}

static void activate_strips(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    span s = span_of(a, from, to);
    a->c->kernels.activate[a->act](a->out + s.at, a->factor, s.n);
}

static void cpu_activate(backend *b, act_kind act, float limit, float *x, uint64_t n)
{
    rows_args a = {.c = cpu_of(b), .act = act, .factor = limit, .out = x, .n = n};
    strips(activate_strips, &a, EXP_COST);
}

static void angle_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_args *a = arg;
    uint64_t half = a->dims / 2;
    for (uint64_t r = from; r < to; r++)
        for (uint64_t i = 0; i < half; i++) {
            sine_cosine v = spec_sincosf((float)a->index[r] * a->x[i]);
            a->out[r * half + i] = v.cos * a->factor;
            a->out2[r * half + i] = v.sin * a->factor;
        }
}

static void cpu_angles(backend *b, const float *inv_freq, float scale, uint32_t dims, const uint32_t *positions,
                       uint32_t n, float *cos, float *sin)
{
    rows_args a = {.x = inv_freq, .factor = scale, .dims = dims, .index = positions, .out = cos, .out2 = sin};
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

static void copy_runs(void *arg, uint64_t from, uint64_t to)
{
    const columns_args *a = arg;
    for (uint64_t r = from; r < to; r++) {
        const float *src = a->src + r * a->src_stride;
        float *dst = a->dst + r * a->dst_stride;
        for (uint32_t g = 0; g < a->groups; g++, src += a->src_step, dst += a->dst_step) {
            if (a->width == 1)
                *dst = *src;
            else
                memcpy(dst, src, a->width * sizeof *dst);
        }
    }
}

static void cpu_copy_columns(backend *b, const columns_args *a)
{
    columns_args copy = *a;
    cpu_items(cpu_of(b), copy_runs, &copy, a->n, (uint64_t)a->groups * a->width + 1);
}

typedef struct combine_job {
    const cpu *c;
    const combine_args *a;
} combine_job;

static void combine_rows(void *arg, uint64_t from, uint64_t to)
{
    const combine_job *j = arg;
    const combine_args *a = j->a;
    for (uint64_t t = from; t < to; t++) {
        mix_args row = {.x = a->x + t * a->k,
                        .y = a->y,
                        .index = a->index + t * a->slots,
                        .weight = a->weight + t * a->slots,
                        .slots = a->slots,
                        .k = a->k};
        j->c->kernels.mix(&row);
    }
}

static void cpu_combine(backend *b, const combine_args *a)
{
    combine_job j = {.c = cpu_of(b), .a = a};
    cpu_items(cpu_of(b), combine_rows, &j, a->n, (uint64_t)a->slots * a->k + 1);
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
                                    .apply_columns = cpu_apply_columns,
                                    .widen = cpu_widen,
                                    .row_norms = cpu_row_norms,
                                    .add_squares = cpu_add_squares,
                                    .norm = cpu_norm,
                                    .zero = cpu_zero,
                                    .add = cpu_add,
                                    .add_scaled = cpu_add_scaled,
                                    .add_bias = cpu_add_bias,
                                    .scale = cpu_scale,
                                    .clamp = cpu_clamp,
                                    .scale_rows = cpu_scale_rows,
                                    .softcap = cpu_softcap,
                                    .sigmoid = cpu_sigmoid,
                                    .gate = cpu_gate,
                                    .activate = cpu_activate,
                                    .angles = cpu_angles,
                                    .rotate = cpu_rotate,
                                    .attention = cpu_attention,
                                    .take_rows = cpu_take_rows,
                                    .copy_columns = cpu_copy_columns,
                                    .combine = cpu_combine,
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
