/* Products with rows of `packed` (store/packed.h), written once over `v16`; a part of lanes.h. A level says how the
 * next block of 64 elements becomes numbers:
 *
 *   packed_numbers(kind, row, out)   the block at row's places to out [4]; returns how many escapes it took
 *   PACKED                           attribute of functions that do so
 *   PACKED_ROWS                      weight rows at a time
 *
 * A row is read from its beginning on, since its list of escapes has no order but that. Sums go into the lanes of their
 * elements as everywhere. */
#include "store/packed.h"

#include PACKED_LEVEL

/* Of a block. */
INLINE uint32_t packed_code_bytes(const packed_kind kind)
{
    return kind == PACKED_BF16_3 ? 24 : kind == PACKED_BF16_4 ? 32 : 48;
}

/* Bytes of R rows that are asked for in the time of a block: codes, low bytes and a share of what stands before them.
 */
INLINE uint32_t packed_ahead(const packed_kind kind, const uint32_t R)
{
    return (R * (packed_code_bytes(kind) + PACKED_BLOCK + 4) + LINE - 1) / LINE * LINE;
}

/* Keeps a place to be counted on as it is written: compilers make a pointer of each row's, more than there are
 * registers. */
#define HIDE(p) __asm__("" : "+r"(p))

/* The places of block number `block`, a multiple of PACKED_BLOCKS_IN_SECTION. */
PACKED INLINE packed_row packed_begin(const packed_kind kind, weight_row row, uint64_t block)
{
    const uint32_t palette = kind == PACKED_BF16_4 ? 16 : 8;
    uint64_t blocks = packed_blocks(row.cols), section = block / PACKED_BLOCKS_IN_SECTION, before = 0;
    uint64_t sections = (blocks + PACKED_BLOCKS_IN_SECTION - 1) / PACKED_BLOCKS_IN_SECTION;
    if (section) {
        const uint8_t *start = row.data + palette + 2 * (section - 1);
        before = (uint64_t)start[0] | (uint64_t)start[1] << 8;
        if (before > block * PACKED_BLOCK) before = block * PACKED_BLOCK; /* wrong, and yet inside the row */
    }
    const uint8_t *low = row.data + row.bytes - (blocks - block) * PACKED_BLOCK;
    const uint8_t *codes = row.data + row.bytes - blocks * PACKED_BLOCK - (blocks - block) * packed_code_bytes(kind);
    return (packed_row){row.data, row.data + palette + 2 * (sections - 1) + before, codes, low};
}

PACKED INLINE void packed_next(const packed_kind kind, packed_row *row, v16 *out)
{
    row->escapes += packed_numbers(kind, row, out);
    row->codes += packed_code_bytes(kind);
    row->low += PACKED_BLOCK;
}

/* The last k % 64 elements, then zeros. */
PACKED INLINE void packed_last(const packed_kind kind, packed_row *row, uint32_t rest, float *out)
{
    v16 w[4];
    packed_next(kind, row, w);
    for (uint32_t i = 0; i < 4; i++) v16_store(out + i * LANES, w[i]);
    memset(out + rest, 0, (PACKED_BLOCK - rest) * sizeof *out);
}

/* R weight rows by N of a tile of `stride` floats for each step. */
PACKED INLINE void packed_block(const packed_kind kind, const dots_args *a, uint64_t r0, uint32_t t0, const uint32_t R,
                                const uint32_t N)
{
    v16 acc[MAX_PANEL][MAX_TILE];
    const uint8_t *escapes[MAX_PANEL];
    const uint64_t bytes = a->row_bytes;
    packed_row row = packed_begin(kind, weight_row_at(a->w, bytes, a->row0 + r0), 0);
    UNROLL for (uint32_t r = 0; r < R; r++) escapes[r] = row.escapes + r * bytes;
    UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] = v16_zero();
    const float *x = a->x + (size_t)t0 * LANES;
    size_t step = (size_t)a->n * LANES;
    const uint32_t ahead = packed_ahead(kind, R);
    const uint8_t *next = row.palette + R * bytes;
    for (uint64_t b = a->w->cols / PACKED_BLOCK; b; b--, x += 4 * step, next += ahead) {
        UNROLL for (uint32_t i = 0; i < ahead; i += LINE) __builtin_prefetch(next + i, 0, 2);
        UNROLL for (uint32_t r = 0; r < R; r++)
        {
            v16 w[4];
            packed_row p = {row.palette + r * bytes, escapes[r], row.codes + r * bytes, row.low + r * bytes};
            escapes[r] += packed_numbers(kind, &p, w);
            UNROLL for (uint32_t i = 0; i < 4; i++) UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] =
                v16_fma(w[i], v16_load(x + i * step + LANES * t), acc[r][t]);
        }
        row.codes += packed_code_bytes(kind);
        row.low += PACKED_BLOCK;
        HIDE(row.codes);
        HIDE(row.low);
    }
    uint32_t rest = (uint32_t)(a->w->cols % PACKED_BLOCK);
    for (uint32_t r = 0; rest && r < R; r++) {
        float w[PACKED_BLOCK];
        packed_row p = {row.palette + r * bytes, escapes[r], row.codes + r * bytes, row.low + r * bytes};
        packed_last(kind, &p, rest, w);
        for (uint32_t i = 0; i * LANES < rest; i++)
            for (uint32_t t = 0; t < N; t++)
                acc[r][t] = v16_fma(v16_load(w + i * LANES), v16_load(x + i * step + LANES * t), acc[r][t]);
    }
    UNROLL for (uint32_t t = 0; t < N; t++) UNROLL for (uint32_t r = 0; r < R; r++)
        a->y[(t0 + t) * a->stride + r0 + r] = v16_sum(acc[r][t]);
}

PACKED INLINE void packed_rows(const packed_kind kind, const dots_args *a, uint32_t t0, const uint32_t N)
{
    uint64_t r = 0;
    for (; r + PACKED_ROWS <= a->n_rows; r += PACKED_ROWS) packed_block(kind, a, r, t0, PACKED_ROWS, N);
    for (; r < a->n_rows; r++) packed_block(kind, a, r, t0, 1, N);
}

/* Any number of token rows: another level's skeleton may ask. */
PACKED INLINE void packed_dots(const packed_kind kind, const dots_args *a)
{
    uint32_t t = 0;
    for (; t + 4 <= a->n; t += 4) packed_rows(kind, a, t, 4);
    for (; t + 2 <= a->n; t += 2) packed_rows(kind, a, t, 2);
    if (t < a->n) packed_rows(kind, a, t, 1);
}

/* Elements [k0, k0 + n), 16 to each step of out. */
PACKED INLINE void packed_panel(const packed_kind kind, weight_row row, uint64_t k0, uint64_t n, float *out,
                                size_t step)
{
    uint64_t at = k0 / PACKED_SECTION * PACKED_SECTION, end = k0 + n;
    packed_row p = packed_begin(kind, row, at / PACKED_BLOCK);
    v16 w[4];
    for (; at + PACKED_BLOCK <= k0; at += PACKED_BLOCK) packed_next(kind, &p, w);
    for (; at < end; at += PACKED_BLOCK) {
        if (at >= k0 && at + PACKED_BLOCK <= end) {
            packed_next(kind, &p, w);
            for (uint32_t i = 0; i < 4; i++, out += step) v16_store(out, w[i]);
            continue;
        }
        float some[PACKED_BLOCK];
        packed_last(kind, &p, end - at < PACKED_BLOCK ? (uint32_t)(end - at) : PACKED_BLOCK, some);
        for (uint64_t i = at < k0 ? k0 - at : 0; i < PACKED_BLOCK && at + i < end; i += LANES, out += step)
            memcpy(out, some + i, LANES * sizeof *out);
    }
}

PACKED INLINE void packed_widen(const packed_kind kind, weight_row row, float *out)
{
    uint64_t whole = row.cols / PACKED_BLOCK * PACKED_BLOCK;
    float last[PACKED_BLOCK];
    if (whole) packed_panel(kind, row, 0, whole, out, LANES);
    if (whole == row.cols) return;
    packed_panel(kind, row, whole, row.cols - whole, last, LANES);
    memcpy(out + whole, last, (row.cols - whole) * sizeof *out);
}

#define PACKED_WEIGHT(name, kind)                                                                                      \
    PACKED static void widen_##name(const weight_row *row, uint64_t k, float *out)                                     \
    {                                                                                                                  \
        (void)k;                                                                                                       \
        packed_widen(kind, *row, out);                                                                                 \
    }                                                                                                                  \
    PACKED static void panel_##name(const weight_row *row, uint64_t k0, uint64_t n, float *out, size_t step)           \
    {                                                                                                                  \
        packed_panel(kind, *row, k0, n, out, step);                                                                    \
    }                                                                                                                  \
    PACKED static void dots_##name(const dots_args *a)                                                                 \
    {                                                                                                                  \
        packed_dots(kind, a);                                                                                          \
    }
PACKED_WEIGHT(bf16_packed3, PACKED_BF16_3)
PACKED_WEIGHT(bf16_packed4, PACKED_BF16_4)
PACKED_WEIGHT(f16_packed3, PACKED_F16_3)
