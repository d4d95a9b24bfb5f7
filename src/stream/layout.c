/* Where the cuts fall. A chunk is a group of rows whose surrounding blocks fit into one slot of the ring. Pinning keeps
 * one account through the pass: after each matrix the pinned bytes so far are the budget's share of the bytes so far,
 * rounded down to a chunk, and what rounding leaves is carried on. So the budget holds by construction, no search is
 * needed, and pinned and streamed parts alternate as evenly as chunks allow. */
#include "stream/layout.h"

enum { ROW_GROUP = 16 /* kernels take rows in small blocks */ };

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t div_ceil(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* The largest power of two up to READ_ALIGN that divides x. */
static uint64_t alignment(uint64_t x)
{
    x |= READ_ALIGN;
    return x & (~x + 1);
}

static bool is_empty(const stream_matrix *m)
{
    return m->rows == 0 || m->row_bytes == 0;
}

/* Bytes that may lie in a chunk's first block before its first row. */
static uint64_t most_skew(const stream_matrix *m)
{
    return READ_ALIGN - alignment(m->offset | m->row_bytes);
}

/* Whole blocks around rows [row0, row0 + n). */
static uint64_t blocks(const stream_matrix *m, uint64_t row0, uint64_t n)
{
    uint64_t begin = m->offset + row0 * m->row_bytes;
    return n ? block_ceil(begin + n * m->row_bytes) - block_floor(begin) : 0;
}

uint64_t stream_min_chunk(const stream_matrix *matrices, size_t n)
{
    uint64_t least = READ_ALIGN;
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = block_ceil(most_skew(&matrices[i]) + matrices[i].row_bytes);
        if (!is_empty(&matrices[i]) && bytes > least) least = bytes;
    }
    return least;
}

uint64_t stream_pin_all(const stream_matrix *matrices, size_t n)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (!is_empty(&matrices[i])) bytes += blocks(&matrices[i], 0, matrices[i].rows);
    return bytes;
}

/* Rows of a chunk: as many as surely fit, made even over the matrix so that the last read is not a scrap, and where it
 * costs little a number that ends chunks on blocks, since a block that two chunks share is read twice. */
static uint64_t chunk_rows(const stream_matrix *m, uint64_t chunk_bytes)
{
    uint64_t most = (chunk_bytes - most_skew(m)) / m->row_bytes;
    if (most >= m->rows) return m->rows;
    uint64_t even = div_ceil(m->rows, div_ceil(m->rows, most));
    uint64_t unit = READ_ALIGN / alignment(m->row_bytes);
    if (unit < ROW_GROUP && most >= 8 * ROW_GROUP) unit = ROW_GROUP;
    uint64_t up = div_ceil(even, unit) * unit, down = most / unit * unit;
    if (up <= most) return min_u64(up, m->rows);
    return down >= most - most / 16 && down > 0 ? down : even;
}

void layout_cut(const stream_matrix *m, uint64_t chunk_bytes, pinning *pins, cut *out)
{
    *out = (cut){0};
    if (is_empty(m)) return;
    out->chunk_rows = chunk_rows(m, chunk_bytes);
    uint64_t whole = blocks(m, 0, m->rows);
    pins->seen += whole;
    double share = pins->total ? (double)pins->seen / (double)pins->total : 0;
    uint64_t target = min_u64((uint64_t)(share * (double)pins->budget), pins->budget);
    if (pins->budget >= pins->total) target = pins->seen;
    uint64_t room = target > pins->used ? target - pins->used : 0;
    uint64_t rows = m->rows;
    if (whole > room) {
        rows = room / (out->chunk_rows * m->row_bytes) * out->chunk_rows;
        if (rows >= m->rows) rows = (m->rows - 1) / out->chunk_rows * out->chunk_rows;
        while (rows > 0 && blocks(m, 0, rows) > room) rows -= out->chunk_rows;
    }
    out->pinned_rows = rows;
    out->pin_bytes = blocks(m, 0, rows);
    out->pin_begin = block_floor(m->offset);
    out->n_streamed = div_ceil(m->rows - rows, out->chunk_rows);
    pins->used += out->pin_bytes;
}

void layout_extent(const stream_matrix *m, const cut *c, uint64_t index, extent *out)
{
    out->row0 = c->pinned_rows + index * c->chunk_rows;
    out->n_rows = min_u64(c->chunk_rows, m->rows - out->row0);
    uint64_t at = m->offset + out->row0 * m->row_bytes;
    out->begin = block_floor(at);
    out->bytes = blocks(m, out->row0, out->n_rows);
    out->skew = (uint32_t)(at - out->begin);
    out->needed = out->skew + (uint32_t)(out->n_rows * m->row_bytes);
}

static uint64_t streamed_bytes(const stream_matrix *m, const cut *c)
{
    uint64_t bytes = 0, index = 0;
    extent e;
    if (c->n_streamed > 1 && c->chunk_rows * m->row_bytes % READ_ALIGN == 0) { /* all but the last are alike */
        layout_extent(m, c, 0, &e);
        index = c->n_streamed - 1;
        bytes = index * e.bytes;
    }
    for (; index < c->n_streamed; index++) {
        layout_extent(m, c, index, &e);
        bytes += e.bytes;
    }
    return bytes;
}

void stream_plan(const stream_matrix *matrices, size_t n, uint64_t chunk_bytes, uint64_t ring_bytes,
                 uint64_t pin_budget, stream_layout *layout)
{
    *layout = (stream_layout){.chunk_bytes = chunk_bytes, .ring_bytes = ring_bytes / chunk_bytes * chunk_bytes};
    pinning pins = {.budget = pin_budget, .total = stream_pin_all(matrices, n)};
    for (size_t i = 0; i < n; i++) {
        cut c;
        layout_cut(&matrices[i], chunk_bytes, &pins, &c);
        layout->streamed_bytes += streamed_bytes(&matrices[i], &c);
        layout->total_bytes += matrices[i].rows * matrices[i].row_bytes;
    }
    layout->pinned_bytes = pins.used;
}
