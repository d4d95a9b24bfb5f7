/* Matrix products: weights as stored times packed token rows.
 *
 * Few token rows (decode): fused, weights are widened in registers and used at once; memory's speed is the limit. More:
 * a panel of weight rows by PANEL_K elements is widened into the thread's scratch and multiplied with all tiles of
 * token rows in register blocks. A dot product keeps sixteen lanes, so between blocks of k its sums are sixteen
 * numbers; they wait in scratch, and the tree is taken after the last block. The order of each lane's sum is that of
 * the specification in both, so they give the same bits.
 *
 * A task is a strip of weight rows by a panel of token rows. Strips of one task lie beside each other in memory. */
#include "backend_cpu.h"

#include <math.h>
#include <string.h>

size_t cpu_product_scratch(void)
{
    return ((size_t)PANEL_ROWS * PANEL_K + (size_t)PANEL_ROWS * PANEL_TOKENS * LANES) * sizeof(float);
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* ---- packing ------------------------------------------------------------------------------------------------------ */

size_t cpu_packed_bytes(backend *b, uint32_t n, uint64_t k)
{
    (void)b;
    return (size_t)(n * round_up(k, LANES) * sizeof(float));
}

typedef struct pack_job {
    const float *x;
    float *packed;
    uint64_t k;
    uint32_t n, tile;
} pack_job;

static void pack_tiles(void *arg, uint64_t from, uint64_t to)
{
    const pack_job *j = arg;
    uint64_t steps = round_up(j->k, LANES) / LANES;
    for (uint64_t i = from; i < to; i++) {
        uint64_t t0 = i * j->tile, rows = j->n - t0 < j->tile ? j->n - t0 : j->tile;
        float *tile = j->packed + t0 * steps * LANES;
        for (uint64_t t = 0; t < rows; t++) {
            const float *x = j->x + (t0 + t) * j->k;
            float *out = tile + t * LANES;
            uint64_t whole = j->k / LANES, rest = j->k % LANES;
            for (uint64_t s = 0; s < whole; s++) memcpy(out + s * rows * LANES, x + s * LANES, LANES * sizeof *out);
            if (!rest) continue;
            memset(out + whole * rows * LANES, 0, LANES * sizeof *out);
            memcpy(out + whole * rows * LANES, x + whole * LANES, rest * sizeof *out);
        }
    }
}

void cpu_pack(backend *b, const float *x, uint32_t n, uint64_t k, void *packed)
{
    uint32_t tile = cpu_of(b)->kernels.tile_tokens;
    pack_job j = {.x = x, .packed = packed, .k = k, .n = n, .tile = tile};
    cpu_items(cpu_of(b), pack_tiles, &j, (n + tile - 1) / tile, tile * k);
}

/* ---- applying ----------------------------------------------------------------------------------------------------- */

typedef struct apply_job {
    const cpu *c;
    const weight_kernels *weight;
    const matrix_rows *w;
    uint64_t row_bytes, k, n_rows, rows_per_task;
    const float *x;
    uint32_t n, strips, tiles_per_panel;
    float *y;
    uint64_t stride;
} apply_job;

static void dots_task(void *arg, uint32_t task, uint32_t thread)
{
    const apply_job *j = arg;
    (void)thread;
    uint64_t r = task * j->rows_per_task, rows = j->n_rows - r < j->rows_per_task ? j->n_rows - r : j->rows_per_task;
    dots_args a = {.w = j->w,
                   .row_bytes = j->row_bytes,
                   .row0 = r,
                   .n_rows = rows,
                   .x = j->x,
                   .n = j->n,
                   .y = j->y + r,
                   .stride = j->stride};
    j->weight->dots(&a);
}

/* One strip of at most PANEL_ROWS weight rows, one panel of tiles, one block of k. */
typedef struct strip {
    const apply_job *j;
    uint64_t row, rows; /* in the matrix */
    uint32_t tile, end_tile;
    uint64_t k0, k;
    float *panel, *acc;
} strip;

static void widen_strip(const strip *s)
{
    const apply_job *j = s->j;
    uint32_t height = j->c->kernels.panel_rows;
    uint64_t steps = round_up(s->k, LANES) / LANES;
    size_t step = (size_t)height * LANES;
    for (uint64_t r = 0; r < round_up(s->rows, height); r++) {
        float *out = s->panel + r / height * height * PANEL_K + r % height * LANES;
        if (r < s->rows) {
            weight_row row = weight_row_at(j->w, j->row_bytes, s->row + r);
            j->weight->panel(&row, s->k0, s->k, out, step);
        } else {
            for (uint64_t i = 0; i < steps; i++) memset(out + i * step, 0, LANES * sizeof *out);
        }
    }
}

static void multiply_strip(const strip *s)
{
    const apply_job *j = s->j;
    const kernels *k = &j->c->kernels;
    uint64_t steps = round_up(s->k, LANES) / LANES, k16 = round_up(j->k, LANES);
    block_args b = {.steps = steps, .stride = j->stride, .first = s->k0 == 0, .last = s->k0 + s->k == j->k};
    b.acc = s->acc;
    for (uint32_t tile = s->tile; tile < s->end_tile; tile++) {
        uint64_t t0 = (uint64_t)tile * k->tile_tokens;
        b.n = j->n - t0 < k->tile_tokens ? (uint32_t)(j->n - t0) : k->tile_tokens;
        b.x = j->x + t0 * k16 + s->k0 * b.n;
        for (uint64_t r = 0; r < s->rows; r += k->panel_rows) {
            b.w = s->panel + r * PANEL_K;
            b.rows_valid = (uint32_t)(s->rows - r < k->panel_rows ? s->rows - r : k->panel_rows);
            b.y = j->y + t0 * j->stride + s->row + r;
            k->block(&b);
            b.acc += (size_t)b.n * k->panel_rows * LANES;
        }
    }
}

static void panel_task(void *arg, uint32_t task, uint32_t thread)
{
    const apply_job *j = arg;
    uint32_t tile = j->c->kernels.tile_tokens, tiles = (j->n + tile - 1) / tile;
    uint32_t panel = task / j->strips, index = task % j->strips;
    uint64_t end = (index + 1) * j->rows_per_task;
    float *scratch = cpu_scratch(j->c, thread);
    strip s = {.j = j,
               .row = index * j->rows_per_task,
               .tile = panel * j->tiles_per_panel,
               .end_tile = (panel + 1) * j->tiles_per_panel,
               .panel = scratch,
               .acc = scratch + PANEL_ROWS * PANEL_K};
    if (end > j->n_rows) end = j->n_rows;
    if (s.end_tile > tiles) s.end_tile = tiles;
    s.rows = end - s.row;
    for (; s.k0 < j->k; s.k0 += PANEL_K) {
        s.k = j->k - s.k0 < PANEL_K ? j->k - s.k0 : PANEL_K;
        widen_strip(&s);
        multiply_strip(&s);
    }
}

/* Rows of a strip: as many as the panel holds, but enough strips for all threads to be busy to the end. */
static uint64_t strip_rows(const cpu *c, uint64_t n_rows, uint64_t most, uint32_t strips_per_thread)
{
    uint64_t step = c->kernels.panel_rows, fair = round_up(n_rows, (uint64_t)c->threads * strips_per_thread) /
                                                  ((uint64_t)c->threads * strips_per_thread);
    uint64_t rows = round_up(fair, step);
    return rows < most ? rows : most;
}

void cpu_apply(backend *b, const matrix_rows *w, const void *packed, uint32_t n, float *y, uint64_t stride)
{
    cpu *c = cpu_of(b);
    if (!n || !w->n_rows) return;
    apply_job j = {.c = c,
                   .weight = &c->kernels.weight[w->type],
                   .w = w,
                   .row_bytes = matrix_row_bytes(w),
                   .k = w->cols,
                   .n_rows = w->n_rows,
                   .x = packed,
                   .n = n,
                   .y = y,
                   .stride = stride};
    if (n <= c->kernels.fused_tokens) {
        j.rows_per_task = strip_rows(c, w->n_rows, UINT32_MAX, 8);
        pool_run(c->pool, dots_task, &j, (uint32_t)((w->n_rows + j.rows_per_task - 1) / j.rows_per_task));
        return;
    }
    uint32_t tile = c->kernels.tile_tokens, tiles = (n + tile - 1) / tile, most = PANEL_TOKENS / tile;
    uint32_t panels = (tiles + most - 1) / most; /* of about one size */
    j.tiles_per_panel = (tiles + panels - 1) / panels;
    panels = (tiles + j.tiles_per_panel - 1) / j.tiles_per_panel;
    j.rows_per_task = strip_rows(c, w->n_rows, PANEL_ROWS, 4);
    j.strips = (uint32_t)((w->n_rows + j.rows_per_task - 1) / j.rows_per_task);
    pool_run(c->pool, panel_task, &j, panels * j.strips);
}

/* ---- by columns ---------------------------------------------------------------------------------------------------- */

/* Columns of a strip, a multiple of GROUP, and rows that are widened at once: for few token rows so few that they stay
 * in the nearest cache beside the sums, for more token rows more, for the sums to be fetched less often. */
enum { COLUMNS = 256, FEW_COLUMN_ROWS = 16, COLUMN_ROWS = 32 };

typedef struct columns_job {
    const cpu *c;
    const matrix_rows *w;
    uint64_t row_bytes, per_task /* columns */, step /* rows */;
    const float *x;
    uint64_t x_stride;
    uint32_t n;
    float *y;
    uint64_t stride;
} columns_job;

/* Asks for memory before it is needed: pieces of rows are too short for the processor to see where they lead. */
static void fetch(const uint8_t *p, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

/* A strip of columns, over all rows; its sums rest in y between blocks of rows. */
static void columns_task(void *arg, uint32_t task, uint32_t thread)
{
    const columns_job *j = arg;
    const matrix_rows *w = j->w;
    const kernels *k = &j->c->kernels;
    uint64_t c0 = task * j->per_task, cols = w->cols - c0 < j->per_task ? w->cols - c0 : j->per_task;
    uint64_t at = dtype_row_bytes(w->type, c0), bytes = dtype_row_bytes(w->type, cols);
    float *panel = cpu_scratch(j->c, thread);
    axpy_args a = {.w = panel,
                   .width = round_up(cols, LANES) +
                            LANES, /* rows apart by a power of two would share their places in a cache */
                   .cols = cols,
                   .x_stride = j->x_stride,
                   .n = j->n,
                   .y = j->y + c0,
                   .stride = j->stride};
    for (uint64_t r = 0; r < w->n_rows; r += a.rows) {
        a.rows = w->n_rows - r < j->step ? w->n_rows - r : j->step;
        for (uint64_t i = 0; i < a.rows; i++) {
            weight_row row = weight_row_at(w, j->row_bytes, r + i);
            if (r + i + j->step < w->n_rows) fetch(row.data + j->step * j->row_bytes + at, bytes);
            k->weight[w->type].panel(&row, c0, cols, panel + i * a.width, LANES);
        }
        a.x = j->x + r;
        k->axpy(&a);
    }
}

void cpu_apply_columns(backend *b, const matrix_rows *w, const float *x, uint64_t x_stride, uint32_t n, float *y,
                       uint64_t stride)
{
    cpu *c = cpu_of(b);
    if (!n || !w->n_rows || !w->cols) return;
    columns_job j = {.c = c,
                     .w = w,
                     .row_bytes = matrix_row_bytes(w),
                     .step = n <= c->kernels.tile_tokens ? FEW_COLUMN_ROWS : COLUMN_ROWS,
                     .x = x,
                     .x_stride = x_stride,
                     .n = n,
                     .y = y,
                     .stride = stride};
    uint64_t fair = round_up((w->cols + c->threads - 1) / c->threads, GROUP);
    j.per_task = fair < COLUMNS ? fair : COLUMNS;
    pool_run(c->pool, columns_task, &j, (uint32_t)((w->cols + j.per_task - 1) / j.per_task));
}

/* ---- rows as numbers ------------------------------------------------------------------------------------------------ */

typedef struct rows_job {
    cpu *c;
    const matrix_rows *w;
    uint64_t row_bytes;
    float *out;
} rows_job;

static void widen_rows(void *arg, uint64_t from, uint64_t to)
{
    const rows_job *j = arg;
    for (uint64_t r = from; r < to; r++) {
        weight_row row = weight_row_at(j->w, j->row_bytes, r);
        j->c->kernels.weight[j->w->type].widen(&row, j->w->cols, j->out + r * j->w->cols);
    }
}

void cpu_widen(backend *b, const matrix_rows *w, float *x)
{
    rows_job j = {.c = cpu_of(b), .w = w, .row_bytes = matrix_row_bytes(w), .out = x};
    cpu_items(cpu_of(b), widen_rows, &j, w->n_rows, w->cols);
}

/* A task is one row. */
static void row_norm_task(void *arg, uint32_t task, uint32_t thread)
{
    const rows_job *j = arg;
    const kernels *k = &j->c->kernels;
    weight_row row = weight_row_at(j->w, j->row_bytes, task);
    float *piece = cpu_scratch(j->c, thread), lanes[LANES] = {0};
    for (uint64_t at = 0; at < j->w->cols; at += PANEL_K) {
        uint64_t n = j->w->cols - at < PANEL_K ? j->w->cols - at : PANEL_K;
        k->weight[j->w->type].panel(&row, at, n, piece, LANES);
        k->squares(piece, round_up(n, LANES) / LANES, lanes);
    }
    float norm = sqrtf(spec_tree(lanes));
    j->out[task] = norm < 1e-12f ? 1e-12f : norm;
}

void cpu_row_norms(backend *b, const matrix_rows *w, float *out)
{
    rows_job j = {.c = cpu_of(b), .w = w, .row_bytes = matrix_row_bytes(w), .out = out};
    pool_run(cpu_of(b)->pool, row_norm_task, &j, (uint32_t)w->n_rows);
}
