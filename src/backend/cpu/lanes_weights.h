/* Weights as stored: how each type is read, and the two things done with it: widened into memory, or in registers for
 * fused products with few token rows. Included by lanes.h. */
#include "lanes_blocks.h"
#include "lanes_grids.h"

enum { NEAR_BYTES = 10 << 10 /* of weights ahead that leave room in the nearest cache */ };

/* Keeps what was stored in memory: a compiler that sees through it permutes registers where a load would do. */
#define SETTLE(x) __asm__("" : "+m"(x))

/* How a type is read. Where it has no `ready` its groups stand alone. Where it has no `load` they do not, and a row is
 * whole stretches. Passed as a constant, so that all of it is inlined. */
typedef struct reader {
    v32 (*load)(weight_row row, uint64_t group);             /* 32 elements from 32 * group */
    v32 (*tail)(weight_row row, uint64_t group, uint32_t n); /* n < 32 of them, then zeros; NULL: whole blocks */
    uint32_t bytes; /* of a stretch; what lies beside the row is not in reach of these two */
    void (*ready)(const uint8_t *p, stretch *s);
    v32 (*part)(const uint8_t *p, const stretch *s, uint32_t i);
} reader;

/* Groups [g, end) of the row: 16 elements to out, the next to out + step, ... */
INLINE void widen_groups(const reader *type, weight_row row, uint64_t g, uint64_t end, float *out, size_t step)
{
    while (type->ready && g < end) {
        uint64_t first = g % STRETCH, g0 = g - first, n = end - g0 < STRETCH ? end - g0 : STRETCH;
        if (type->load && (first || n < STRETCH)) break;
        const uint8_t *p = row.data + g0 / STRETCH * type->bytes;
        stretch s;
        type->ready(p, &s);
        SETTLE(s);
        for (uint32_t i = (uint32_t)first; i < n; i++, g++, out += 2 * step) {
            v32 w = type->part(p, &s, i);
            v16_store(out, w.lo);
            v16_store(out + step, w.hi);
        }
    }
    if (!type->load) return;
    for (; g < end; g++, out += 2 * step) {
        v32 w = type->load(row, g);
        v16_store(out, w.lo);
        v16_store(out + step, w.hi);
    }
}

INLINE void widen_row(const reader *type, weight_row row, uint64_t k, float *out)
{
    uint64_t groups = k / GROUP;
    uint32_t rest = (uint32_t)(k % GROUP);
    widen_groups(type, row, 0, groups, out, LANES);
    if (!type->tail || !rest) return;
    v32 w = type->tail(row, groups, rest);
    v16_store_n(out + groups * GROUP, w.lo, rest < LANES ? rest : LANES);
    if (rest > LANES) v16_store_n(out + groups * GROUP + LANES, w.hi, rest - LANES);
}

INLINE void widen_panel(const reader *type, weight_row row, uint64_t group, uint64_t n, float *out, size_t step)
{
    uint64_t end = group + n / GROUP;
    uint32_t rest = (uint32_t)(n % GROUP);
    widen_groups(type, row, group, end, out, step);
    if (!type->tail || !rest) return;
    v32 w = type->tail(row, end, rest);
    out += 2 * step * (end - group);
    v16_store(out, w.lo);
    if (rest > LANES) v16_store(out + step, w.hi);
}

/* R weight rows by N token rows. */
typedef struct row_sums {
    v16 acc[MAX_PANEL][MAX_TILE];
    weight_row row[MAX_PANEL];
} row_sums;

/* One group of weight row r, at x. */
INLINE void add_group(row_sums *s, uint32_t r, v32 w, const float *x, const uint32_t N)
{
    UNROLL for (uint32_t t = 0; t < N; t++) s->acc[r][t] = v16_fma(w.lo, v16_load(x + LANES * t), s->acc[r][t]);
    UNROLL for (uint32_t t = 0; t < N; t++) s->acc[r][t] = v16_fma(w.hi, v16_load(x + LANES * (N + t)), s->acc[r][t]);
}

/* Memory is asked for in the order of its addresses, the next R rows while these are used, so that the processor's own
 * prefetching joins in: asked for row by row, as they are used, it comes at two thirds of the speed. A few lines at a
 * time: many would keep loads waiting. Rows that would fill the nearest cache wait in the second. Lines [from, to). */
INLINE void fetch_next(const uint8_t *next, const uint32_t from, const uint32_t to, uint64_t block_bytes)
{
    if (block_bytes <= NEAR_BYTES)
        UNROLL for (uint32_t i = from; i < to; i++) __builtin_prefetch(next + i * LINE);
    else
        UNROLL for (uint32_t i = from; i < to; i++) __builtin_prefetch(next + i * LINE, 0, 2);
}

/* Whole stretches; returns how many groups they are. */
INLINE uint64_t dots_stretches(const reader *type, row_sums *s, const dots_args *a, const uint32_t R, const uint32_t N)
{
    const uint32_t TOGETHER = N == 1 ? STRETCH : 2; /* unrolled: all where time is in it, the less code the rest */
    const uint32_t lines = (R * type->bytes + LINE - 1) / LINE;
    stretch made[MAX_PANEL];
    uint64_t g = 0, at = 0, groups = a->w->cols / GROUP;
    const uint8_t *next = s->row[0].data + R * a->row_bytes;
    const float *x = a->x;
    for (; g + STRETCH <= groups; g += STRETCH, at += type->bytes, next += R * type->bytes) {
        UNROLL for (uint32_t r = 0; r < R; r++)
        {
            type->ready(s->row[r].data + at, &made[r]);
            SETTLE(made[r]);
        }
        for (uint32_t i = 0; i < STRETCH; i += TOGETHER)
            UNROLL for (uint32_t j = 0; j < TOGETHER; j++, x += (size_t)GROUP * N)
            {
                fetch_next(next, lines * (i + j) / STRETCH, lines * (i + j + 1) / STRETCH, R * a->row_bytes);
                UNROLL for (uint32_t r = 0; r < R; r++)
                    add_group(s, r, type->part(s->row[r].data + at, &made[r], i + j), x, N);
            }
    }
    return g;
}

/* Widened in registers. */
INLINE void dots_block(const reader *type, const dots_args *a, uint64_t r0, const uint32_t R, const uint32_t N)
{
    row_sums s;
    UNROLL for (uint32_t r = 0; r < R; r++) s.row[r] = weight_row_at(a->w, a->row_bytes, a->row0 + r0 + r);
    UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t t = 0; t < N; t++) s.acc[r][t] = v16_zero();
    uint64_t groups = a->w->cols / GROUP, g = 0;
    uint32_t rest = (uint32_t)(a->w->cols % GROUP);
    uint64_t group_bytes = groups ? a->row_bytes / groups : 0; /* about: it places a hint only */
    if (type->ready) g = dots_stretches(type, &s, a, R, N);
    const float *x = a->x + g * GROUP * N;
    if (type->load) {
        const uint8_t *next = s.row[0].data + R * (a->row_bytes + g * group_bytes), *asked = next;
        for (; g < groups; g++, x += (size_t)GROUP * N) {
            for (next += R * group_bytes; asked < next; asked += LINE) __builtin_prefetch(asked, 0, 2);
            UNROLL for (uint32_t r = 0; r < R; r++) add_group(&s, r, type->load(s.row[r], g), x, N);
        }
    }
    if (type->tail && rest) {
        UNROLL for (uint32_t r = 0; r < R; r++)
        {
            v32 w = type->tail(s.row[r], groups, rest);
            UNROLL for (uint32_t t = 0; t < N; t++) s.acc[r][t] = v16_fma(w.lo, v16_load(x + LANES * t), s.acc[r][t]);
            if (rest > LANES)
                UNROLL for (uint32_t t = 0; t < N; t++) s.acc[r][t] =
                    v16_fma(w.hi, v16_load(x + LANES * (N + t)), s.acc[r][t]);
        }
    }
    UNROLL for (uint32_t t = 0; t < N; t++) UNROLL for (uint32_t r = 0; r < R; r++) a->y[t * a->stride + r0 + r] =
        v16_sum(s.acc[r][t]);
}

INLINE void dots_rows(const reader *type, const dots_args *a, const uint32_t N)
{
    uint64_t r = 0;
    for (; r + FUSED_ROWS(N) <= a->n_rows; r += FUSED_ROWS(N)) dots_block(type, a, r, FUSED_ROWS(N), N);
    for (; r < a->n_rows; r++) dots_block(type, a, r, 1, N);
}

INLINE void dots_any(const reader *type, const dots_args *a)
{
    switch (a->n) { /* FUSED of them can happen */
    case 1:
        dots_rows(type, a, 1);
        break;
    case 2:
        dots_rows(type, a, 2);
        break;
    case 3:
        dots_rows(type, a, FUSED < 3 ? FUSED : 3);
        break;
    default:
        dots_rows(type, a, FUSED < 4 ? FUSED : 4);
        break;
    }
}

#define READ_AS(type, ...)                                                                                             \
    static const reader read_##type = {__VA_ARGS__};                                                                   \
    static void widen_##type(const weight_row *row, uint64_t k, float *out)                                            \
    {                                                                                                                  \
        widen_row(&read_##type, *row, k, out);                                                                         \
    }                                                                                                                  \
    static void panel_##type(const weight_row *row, uint64_t k0, uint64_t n, float *out, size_t step)                  \
    {                                                                                                                  \
        widen_panel(&read_##type, *row, k0 / GROUP, n, out, step);                                                     \
    }                                                                                                                  \
    static void dots_##type(const dots_args *a)                                                                        \
    {                                                                                                                  \
        dots_any(&read_##type, a);                                                                                     \
    }
/* Groups that stand alone; blocks of 32; blocks of 256. */
#define WEIGHT(type, tail32)   READ_AS(type, .load = load32_##type, .tail = tail32)
#define BLOCKS_32(type, bytes) READ_AS(type, load32_##type, NULL, STRETCH *bytes, ready_##type, part_##type)
#define BLOCKS_256(type, size) READ_AS(type, .bytes = size, .ready = ready_##type, .part = part_##type)
WEIGHT(f32, tail32_f32)
WEIGHT(f16, tail32_f16)
WEIGHT(bf16, tail32_bf16)
BLOCKS_32(q8_0, 34)
BLOCKS_32(q4_0, 18)
BLOCKS_32(q4_1, 20)
BLOCKS_32(q5_0, 22)
BLOCKS_32(q5_1, 24)
BLOCKS_256(q2_k, 84)
BLOCKS_256(q3_k, 110)
BLOCKS_256(q4_k, 144)
BLOCKS_256(q5_k, 176)
BLOCKS_256(q6_k, 210)
BLOCKS_256(iq4_xs, 136)
WEIGHT(f8_e4m3, tail32_f8_e4m3)
WEIGHT(f8_e5m2, tail32_f8_e5m2)
WEIGHT(mxfp4, NULL)
WEIGHT(mxfp4_pairs, NULL)
WEIGHT(nf4_pairs, NULL)
WEIGHT(fp4_pairs, NULL)
WEIGHT(int8_rows, tail32_int8_rows)
#define GRID_WEIGHT(name, type) WEIGHT(name, NULL)
GRID_TYPES(GRID_WEIGHT)
#include "lanes_packed.h"
#define WEIGHT_ROW(type)                                                                                               \
    {                                                                                                                  \
        .widen = widen_##type, .panel = panel_##type, .dots = dots_##type                                              \
    }
#define GRID_ROW(name, type) [type] = WEIGHT_ROW(name),
