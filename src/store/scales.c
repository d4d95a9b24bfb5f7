/* Owns what is read of scales: some rows of blocks at a time, as many as a window holds, since rows come in order. */
#include "store/scales.h"

#include <string.h>

enum { LEAST_WINDOW = 16 << 10 };

image_scales scales_of(const model *mo, const weight *w)
{
    if (w->scales == TENSOR_NONE) return (image_scales){0};
    const tensor *t = &mo->source->tensors[w->scales];
    return (image_scales){.source = t->file,
                          .offset = t->offset,
                          .type = t->type,
                          .rows = w->grid.rows,
                          .cols = w->grid.cols,
                          .stride = w->grid.stride};
}

static uint64_t line_bytes(const image_scales *x)
{
    return x->stride * dtype_row_bytes(x->type, 1);
}

bool scales_extent(const image_scales *x, uint64_t rows, uint64_t columns, uint64_t *bytes)
{
    bool wide = x->type == DT_F32 || x->type == DT_BF16 || x->type == DT_F16;
    if (!wide || !x->rows || !x->cols || !rows || !columns) return false;
    if (x->stride != (columns - 1) / x->cols + 1 || x->stride > INT64_MAX / 4) return false;
    return !__builtin_mul_overflow((rows - 1) / x->rows + 1, line_bytes(x), bytes) && *bytes <= INT64_MAX;
}

uint64_t scales_window_bytes(const image_scales *x)
{
    const uint64_t page = SOURCE_PAGE;
    if (!x->rows) return 0;
    uint64_t line = line_bytes(x);
    return (line > LEAST_WINDOW ? (line + page - 1) / page * page : LEAST_WINDOW) + 2 * page;
}

void scales_window_place(scales_window *w, uint8_t *at, uint64_t bytes)
{
    *w = (scales_window){.bounce = at, .capacity = bytes ? bytes - (uint64_t)(2 * SOURCE_PAGE) : 0};
}

static bool holds(const scales_window *w, const image_scales *x, uint64_t line)
{
    return w->n && w->source == x->source && w->offset == x->offset && line >= w->first && line - w->first < w->n;
}

/* Row of blocks `line`, and those behind it of `lines` that there is room for. */
static lamina_status read_from(scales_window *w, sources *s, const image_scales *x, uint64_t line, uint64_t lines,
                               lamina_error *err)
{
    uint64_t each = line_bytes(x), n = w->capacity / each;
    if (n > lines - line) n = lines - line;
    w->n = 0;
    TRY(sources_read(s, x->source, x->offset + line * each, (size_t)(n * each), w->bounce, &w->at, err));
    w->source = x->source;
    w->offset = x->offset;
    w->first = line;
    w->n = n;
    return LAMINA_OK;
}

static float number_at(dtype type, const uint8_t *line, uint64_t i)
{
    union {
        uint32_t u;
        float f;
    } x;
    uint16_t h;
    if (type == DT_F32) {
        memcpy(&x.u, line + 4 * i, sizeof x.u);
        return x.f;
    }
    memcpy(&h, line + 2 * i, sizeof h);
    return type == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

lamina_status scales_apply(scales_window *w, sources *s, const image_scales *x, uint64_t row, uint64_t rows,
                           uint64_t columns, float *values, lamina_error *err)
{
    if (!x->rows) return LAMINA_OK;
    uint64_t line = row / x->rows, lines = (rows - 1) / x->rows + 1;
    if (!holds(w, x, line)) TRY(read_from(w, s, x, line, lines, err));
    const uint8_t *at = w->at + (line - w->first) * line_bytes(x);
    for (uint64_t b = 0, i = 0; i < columns; b++) {
        float scale = number_at(x->type, at, b);
        uint64_t end = columns - i > x->cols ? i + x->cols : columns;
        for (; i < end; i++) values[i] *= scale;
    }
    return LAMINA_OK;
}
