/* The kernels of one level, written once over `v16`, sixteen lanes of f32: one register of AVX-512, two of AVX2, four of
 * NEON. A level's .c file defines v16, its operations and how each type of weights is widened, then includes this.
 * Because each operation is one IEEE operation in each lane, all levels give the bits of spec.c.
 *
 * Loops over register blocks have constant bounds and are unrolled, so that the blocks live in registers.
 *
 * Before inclusion:
 *   LEVEL(name)                       name with the level's suffix, for the one function that is not static
 *   LEVEL_NAME                        "avx2"
 *   vec, VECS, VEC_LANES, vec_load ... the registers that a v16 is made of
 *   PANEL, TILE                       register block of products: weight rows by token rows
 *   FUSED                             most token rows of a fused product, at most TILE
 *   FUSED_ROWS(n)                     weight rows at a time for n of them
 *   SCORE_ROWS, SCORE_CHUNKS          register block of scores: rows by chunks of 16 positions (divides 4)
 *   VALUE_ROWS, VALUE_CHUNKS          register block of values: rows by chunks of 16 of a head */
#include "kernels.h"

#define DO_PRAGMA(x) _Pragma(#x)
/* A count makes clang unroll too late for register blocks to leave the stack: a third of the speed. */
#ifdef __clang__
#define UNROLL DO_PRAGMA(clang loop unroll(full))
#else
#define UNROLL DO_PRAGMA(GCC unroll 16)
#endif
#define LINE 64 /* bytes */
/* Keeps a value in its register: a compiler that loads it again for each use makes the loop wait for loads. */
#define KEEP(x) __asm__("" : VEC_CONSTRAINT(x))

/* ---- products ---------------------------------------------------------------------------------------------------- */

typedef v32 (*load32_fn)(const uint8_t *row, uint64_t group);             /* 32 elements from 32 * group */
typedef v32 (*tail32_fn)(const uint8_t *row, uint64_t group, uint32_t n); /* n < 32 of them, then zeros */

/* Types of whole blocks have no tail. */
INLINE v32 no_tail(const uint8_t *row, uint64_t group, uint32_t n)
{
    (void)row, (void)group, (void)n;
    return (v32){v16_zero(), v16_zero()};
}

INLINE void widen_row(load32_fn load, tail32_fn tail, const uint8_t *row, uint64_t k, float *out)
{
    uint64_t groups = k / GROUP;
    uint32_t rest = (uint32_t)(k % GROUP);
    for (uint64_t g = 0; g < groups; g++) {
        v32 w = load(row, g);
        v16_store(out + g * GROUP, w.lo);
        v16_store(out + g * GROUP + LANES, w.hi);
    }
    if (!rest) return;
    v32 w = tail(row, groups, rest);
    v16_store_n(out + groups * GROUP, w.lo, rest < LANES ? rest : LANES);
    if (rest > LANES) v16_store_n(out + groups * GROUP + LANES, w.hi, rest - LANES);
}

INLINE void widen_panel(load32_fn load, tail32_fn tail, const uint8_t *row, uint64_t group, uint64_t n, float *out,
                        size_t step)
{
    uint32_t rest = (uint32_t)(n % GROUP);
    for (uint64_t end = group + n / GROUP; group < end; group++, out += 2 * step) {
        v32 w = load(row, group);
        v16_store(out, w.lo);
        v16_store(out + step, w.hi);
    }
    if (!rest) return;
    v32 w = tail(row, group, rest);
    v16_store(out, w.lo);
    if (rest > LANES) v16_store(out + step, w.hi);
}

/* R weight rows by N token rows, widened in registers. */
INLINE void dots_block(load32_fn load, tail32_fn tail, const dots_args *a, uint64_t r0, const uint32_t R,
                       const uint32_t N)
{
    v16 acc[MAX_PANEL][MAX_TILE];
    const uint8_t *row[MAX_PANEL];
    UNROLL for (uint32_t r = 0; r < R; r++) row[r] = a->w + (r0 + r) * a->row_bytes;
    UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] = v16_zero();
    const float *x = a->x;
    uint64_t groups = a->k / GROUP;
    uint32_t rest = (uint32_t)(a->k % GROUP);
    uint64_t group_bytes = groups ? a->row_bytes / groups : 0; /* about: it places a hint only */
    for (uint64_t g = 0; g < groups; g++, x += (size_t)GROUP * N) {
        UNROLL for (uint32_t r = 0; r < R; r++)
        {
            __builtin_prefetch(row[r] + g * group_bytes + PREFETCH_BYTES);
            v32 w = load(row[r], g);
            UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] = v16_fma(w.lo, v16_load(x + LANES * t), acc[r][t]);
            UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] = v16_fma(w.hi, v16_load(x + LANES * (N + t)), acc[r][t]);
        }
    }
    if (rest) {
        UNROLL for (uint32_t r = 0; r < R; r++)
        {
            v32 w = tail(row[r], groups, rest);
            UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] = v16_fma(w.lo, v16_load(x + LANES * t), acc[r][t]);
            if (rest > LANES)
                UNROLL for (uint32_t t = 0; t < N; t++) acc[r][t] =
                    v16_fma(w.hi, v16_load(x + LANES * (N + t)), acc[r][t]);
        }
    }
    UNROLL for (uint32_t t = 0; t < N; t++) UNROLL for (uint32_t r = 0; r < R; r++) a->y[t * a->stride + r0 + r] =
        v16_sum(acc[r][t]);
}

INLINE void dots_rows(load32_fn load, tail32_fn tail, const dots_args *a, const uint32_t N)
{
    uint64_t r = 0;
    for (; r + FUSED_ROWS(N) <= a->n_rows; r += FUSED_ROWS(N)) dots_block(load, tail, a, r, FUSED_ROWS(N), N);
    for (; r < a->n_rows; r++) dots_block(load, tail, a, r, 1, N);
}

INLINE void dots_any(load32_fn load, tail32_fn tail, const dots_args *a)
{
    switch (a->n) { /* FUSED of them can happen */
    case 1:
        dots_rows(load, tail, a, 1);
        break;
    case 2:
        dots_rows(load, tail, a, 2);
        break;
    case 3:
        dots_rows(load, tail, a, FUSED < 3 ? FUSED : 3);
        break;
    default:
        dots_rows(load, tail, a, FUSED < 4 ? FUSED : 4);
        break;
    }
}

#define WEIGHT(type, tail)                                                                                             \
    static void widen_##type(const uint8_t *row, uint64_t k, float *out)                                               \
    {                                                                                                                  \
        widen_row(load32_##type, tail, row, k, out);                                                                   \
    }                                                                                                                  \
    static void panel_##type(const uint8_t *row, uint64_t k0, uint64_t n, float *out, size_t step)                     \
    {                                                                                                                  \
        widen_panel(load32_##type, tail, row, k0 / GROUP, n, out, step);                                               \
    }                                                                                                                  \
    static void dots_##type(const dots_args *a)                                                                        \
    {                                                                                                                  \
        dots_any(load32_##type, tail, a);                                                                              \
    }
WEIGHT(f32, tail32_f32)
WEIGHT(f16, tail32_f16)
WEIGHT(bf16, tail32_bf16)
WEIGHT(q8_0, no_tail)
WEIGHT(q4_0, no_tail)
WEIGHT(q4_1, no_tail)
#define WEIGHT_ROW(type)                                                                                               \
    {                                                                                                                  \
        .widen = widen_##type, .panel = panel_##type, .dots = dots_##type                                              \
    }

/* Registers rather than v16, so that between two loads of a weight's register lie only its own products: with sixteen
 * registers there is no room for more. */
INLINE void block_n(const block_args *a, const uint32_t N)
{
    vec acc[MAX_TILE][PANEL][VECS];
    const float *w = a->w, *x = a->x;
    UNROLL for (uint32_t t = 0; t < N; t++) UNROLL for (uint32_t r = 0; r < PANEL; r++)
        UNROLL for (uint32_t i = 0; i < VECS; i++) acc[t][r][i] = vec_zero();
    if (!a->first)
        UNROLL for (uint32_t t = 0; t < N; t++) UNROLL for (uint32_t r = 0; r < PANEL; r++)
            UNROLL for (uint32_t i = 0; i < VECS; i++) acc[t][r][i] =
                vec_load(a->acc + (t * PANEL + r) * LANES + i * VEC_LANES);
    for (uint64_t s = a->steps; s; s--, w += PANEL * LANES, x += (size_t)N * LANES) {
        UNROLL for (uint32_t i = 0; i < VECS; i++)
        {
            vec rows[PANEL];
            UNROLL for (uint32_t r = 0; r < PANEL; r++) rows[r] = vec_load(w + r * LANES + i * VEC_LANES);
            UNROLL for (uint32_t t = 0; t < N; t++)
            {
                vec token = vec_load(x + t * LANES + i * VEC_LANES);
                KEEP(token);
                UNROLL for (uint32_t r = 0; r < PANEL; r++) acc[t][r][i] = vec_fma(rows[r], token, acc[t][r][i]);
            }
        }
    }
    if (!a->last) {
        UNROLL for (uint32_t t = 0; t < N; t++) UNROLL for (uint32_t r = 0; r < PANEL; r++)
            UNROLL for (uint32_t i = 0; i < VECS; i++)
                vec_store(a->acc + (t * PANEL + r) * LANES + i * VEC_LANES, acc[t][r][i]);
        return;
    }
    UNROLL for (uint32_t t = 0; t < N; t++)
    {
        float sums[PANEL];
        v16 lanes[PANEL];
        UNROLL for (uint32_t r = 0; r < PANEL; r++) lanes[r] = v16_of(acc[t][r]);
        v16_sums(lanes, sums);
        float *y = a->y + t * a->stride;
        if (a->rows_valid == PANEL)
            memcpy(y, sums, sizeof sums);
        else
            for (uint32_t r = 0; r < a->rows_valid; r++) y[r] = sums[r];
    }
}

static void block(const block_args *a)
{
    switch (a->n) {
    case 1:
        block_n(a, 1);
        break;
    case 2:
        block_n(a, 2);
        break;
    case 3:
        block_n(a, 3);
        break;
    case 4:
        block_n(a, TILE < 4 ? TILE : 4);
        break;
    case 5:
        block_n(a, TILE < 5 ? TILE : 5);
        break;
    default:
        block_n(a, TILE);
        break;
    }
}

/* ---- one element at a time ---------------------------------------------------------------------------------------- */

INLINE v16 v16_exp(v16 x)
{
    x = v16_max(v16_set1(EXP_LOW), x);
    x = v16_min(v16_set1(EXP_HIGH), x);
    v16 t = v16_fma(x, v16_set1(EXP_LOG2E), v16_set1(EXP_MAGIC)), n = v16_sub(t, v16_set1(EXP_MAGIC));
    v16 r = v16_fma(n, v16_set1(-EXP_LN2_HI), x);
    r = v16_fma(n, v16_set1(-EXP_LN2_LO), r);
    v16 p = v16_set1(EXP_C7);
    p = v16_fma(p, r, v16_set1(EXP_C6));
    p = v16_fma(p, r, v16_set1(EXP_C5));
    p = v16_fma(p, r, v16_set1(EXP_C4));
    p = v16_fma(p, r, v16_set1(EXP_C3));
    p = v16_fma(p, r, v16_set1(EXP_C2));
    p = v16_fma(v16_mul(r, r), p, r);
    return v16_times_2n(v16_add(p, v16_set1(1.0f)), t);
}

INLINE v16 v16_silu(v16 x)
{
    v16 one = v16_set1(1.0f);
    return v16_div(x, v16_add(one, v16_exp(v16_neg(x))));
}

INLINE v16 v16_gelu_tanh(v16 x)
{
    v16 u = v16_fma(v16_mul(v16_mul(v16_set1(GELU_CUBE), x), x), x, x), one = v16_set1(1.0f);
    return v16_div(x, v16_add(one, v16_exp(v16_neg(v16_mul(v16_set1(GELU_SCALE), u)))));
}

static void add(float *x, const float *y, uint64_t n)
{
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(x + i, v16_add(v16_load(x + i), v16_load(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

typedef v16 (*lanes_fn)(v16 x);

INLINE void gate_any(lanes_fn act, float *gate, const float *up, uint64_t n)
{
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(gate + i, v16_mul(act(v16_load(gate + i)), v16_load(up + i)));
    uint32_t rest = (uint32_t)(n - i);
    if (rest) v16_store_n(gate + i, v16_mul(act(v16_load_n(gate + i, rest)), v16_load_n(up + i, rest)), rest);
}

static void silu(float *gate, const float *up, uint64_t n)
{
    gate_any(v16_silu, gate, up, n);
}

static void gelu_tanh(float *gate, const float *up, uint64_t n)
{
    gate_any(v16_gelu_tanh, gate, up, n);
}

static void exps(const float *x, float *out, uint64_t n)
{
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(out + i, v16_exp(v16_load(x + i)));
    uint32_t rest = (uint32_t)(n - i);
    if (rest) v16_store_n(out + i, v16_exp(v16_load_n(x + i, rest)), rest);
}

static void narrow(const float *x, uint16_t *out, uint64_t n)
{
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store_half(out + i, v16_load(x + i));
    for (; i < n; i++) out[i] = f16_from_f32(x[i]);
}

static void rms_norm(const float *x, const float *w, uint32_t k, float eps, float *out)
{
    v16 sum = v16_zero();
    uint32_t whole = k / LANES * LANES, rest = k - whole;
    for (uint32_t i = 0; i < whole; i += LANES) sum = v16_fma(v16_load(x + i), v16_load(x + i), sum);
    if (rest) {
        v16 tail = v16_load_n(x + whole, rest);
        sum = v16_fma(tail, tail, sum);
    }
    float scale = 1.0f / sqrtf(v16_sum(sum) / (float)k + eps);
    v16 r = v16_set1(scale);
    for (uint32_t i = 0; i < whole; i += LANES)
        v16_store(out + i, v16_mul(v16_mul(v16_load(x + i), r), v16_load(w + i)));
    for (uint32_t i = whole; i < k; i++) out[i] = (x[i] * scale) * w[i];
}

static void rotate_half(float *x, uint32_t dims, const float *cos, const float *sin)
{
    uint32_t half = dims / 2, i = 0;
    float *y = x + half;
    for (; i + LANES <= half; i += LANES) {
        v16 a = v16_load(x + i), b = v16_load(y + i), c = v16_load(cos + i), s = v16_load(sin + i);
        v16_store(x + i, v16_sub(v16_mul(a, c), v16_mul(b, s)));
        v16_store(y + i, v16_add(v16_mul(b, c), v16_mul(a, s)));
    }
    for (; i < half; i++) {
        float a = x[i], b = y[i];
        x[i] = a * cos[i] - b * sin[i];
        y[i] = b * cos[i] + a * sin[i];
    }
}

static void rotate_pairs(float *x, uint32_t dims, const float *cos, const float *sin)
{
    uint32_t half = dims / 2, i = 0;
    for (; i + LANES <= half; i += LANES) {
        v32 pairs = {v16_load(x + 2 * i), v16_load(x + 2 * i + LANES)}, p = v32_unzip(pairs);
        v16 c = v16_load(cos + i), s = v16_load(sin + i);
        p = (v32){v16_sub(v16_mul(p.lo, c), v16_mul(p.hi, s)), v16_add(v16_mul(p.hi, c), v16_mul(p.lo, s))};
        pairs = v32_zip(p);
        v16_store(x + 2 * i, pairs.lo);
        v16_store(x + 2 * i + LANES, pairs.hi);
    }
    for (; i < half; i++) {
        float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = a * cos[i] - b * sin[i];
        x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

/* Where a row begins and ends to see, relative to a block of positions. */
typedef struct seen {
    uint32_t from, to;
} seen;

INLINE seen seen_of(const attend_args *a, uint32_t r, uint64_t block)
{
    uint64_t end = (uint64_t)a->position[r] + 1, begin = a->window && end > a->window ? end - a->window : 0;
    uint64_t from = begin > block ? begin - block : 0, to = end > block ? end - block : 0;
    if (to > ATTENTION_BLOCK) to = ATTENTION_BLOCK;
    return (seen){(uint32_t)(from < to ? from : to), (uint32_t)to};
}

INLINE v16 cached(const void *p, uint64_t i, const bool half)
{
    return half ? v16_load_half((const uint16_t *)p + i) : v16_load((const float *)p + i);
}

INLINE v16 cached_n(const void *p, uint64_t i, uint32_t n, const bool half)
{
    return half ? v16_load_half_n((const uint16_t *)p + i, n) : v16_load_n((const float *)p + i, n);
}

/* Scores of R rows against the 64 positions of the block at `slot`; s [R][64]. */
INLINE void scores(const attend_args *a, uint32_t r0, uint64_t slot, float *s, const uint32_t R, const bool half)
{
    const uint64_t chunk = (uint64_t)a->head_dim * KV_BLOCK;
    for (uint32_t c0 = 0; c0 < ATTENTION_BLOCK / KV_BLOCK; c0 += SCORE_CHUNKS) {
        v16 acc[SCORE_ROWS][SCORE_CHUNKS];
        uint64_t at = (slot / KV_BLOCK + c0) * chunk;
        UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t c = 0; c < SCORE_CHUNKS; c++) acc[r][c] =
            v16_zero();
        for (uint32_t d = 0; d < a->head_dim; d++, at += KV_BLOCK) {
            v16 k[SCORE_CHUNKS];
            UNROLL for (uint32_t c = 0; c < SCORE_CHUNKS; c++) k[c] = cached(a->k, at + c * chunk, half);
            UNROLL for (uint32_t r = 0; r < R; r++)
            {
                v16 q = v16_set1(a->q[r0 + r][d]);
                UNROLL for (uint32_t c = 0; c < SCORE_CHUNKS; c++) acc[r][c] = v16_fma(q, k[c], acc[r][c]);
            }
        }
        UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t c = 0; c < SCORE_CHUNKS; c++)
            v16_store(s + r * ATTENTION_BLOCK + (c0 + c) * LANES, v16_mul(v16_set1(a->scale), acc[r][c]));
    }
}

/* Adds p_j v_j of positions [from, to) to the sums of R rows, `width` elements (at most 16 VALUE_CHUNKS) from d. A
 * partial last chunk is its own call with one chunk. */
INLINE void values(const attend_args *a, uint32_t r0, uint64_t v0, const float *p, seen j, uint32_t d, uint32_t width,
                   const uint32_t R, const uint32_t C, const bool half)
{
    v16 acc[VALUE_ROWS][VALUE_CHUNKS];
    const bool part = C == 1;
    UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t c = 0; c < C; c++)
    {
        const float *out = a->out[r0 + r] + d + c * LANES;
        acc[r][c] = part ? v16_load_n(out, width) : v16_load(out);
    }
    for (uint32_t i = j.from; i < j.to; i++) {
        v16 v[VALUE_CHUNKS];
        uint64_t at = v0 + (uint64_t)i * a->head_dim + d;
        UNROLL for (uint32_t c = 0; c < C; c++) v[c] =
            part ? cached_n(a->v, at, width, half) : cached(a->v, at + c * LANES, half);
        UNROLL for (uint32_t r = 0; r < R; r++)
        {
            v16 w = v16_set1(p[r * ATTENTION_BLOCK + i]);
            UNROLL for (uint32_t c = 0; c < C; c++) acc[r][c] = v16_fma(w, v[c], acc[r][c]);
        }
    }
    UNROLL for (uint32_t r = 0; r < R; r++) UNROLL for (uint32_t c = 0; c < C; c++)
    {
        float *out = a->out[r0 + r] + d + c * LANES;
        if (part)
            v16_store_n(out, acc[r][c], width);
        else
            v16_store(out, acc[r][c]);
    }
}

INLINE void values_all(const attend_args *a, uint32_t r, uint64_t v0, const float *p, seen j, const uint32_t R,
                       const bool half)
{
    uint32_t d = 0;
    if (j.from >= j.to) return;
    for (; d + VALUE_CHUNKS * LANES <= a->head_dim; d += VALUE_CHUNKS * LANES)
        values(a, r, v0, p, j, d, VALUE_CHUNKS * LANES, R, VALUE_CHUNKS, half);
    for (; d < a->head_dim; d += LANES)
        values(a, r, v0, p, j, d, a->head_dim - d < LANES ? a->head_dim - d : LANES, R, 1, half);
}

/* VALUE_ROWS rows: what all of them see together, what some see before and after it one by one. */
INLINE void values_rows(const attend_args *a, uint32_t r, uint64_t block, uint64_t v0, const float *p, const bool half)
{
    seen all = {0, ATTENTION_BLOCK}, one[VALUE_ROWS];
    for (uint32_t i = 0; i < VALUE_ROWS; i++) {
        one[i] = seen_of(a, r + i, block);
        if (one[i].from > all.from) all.from = one[i].from;
        if (one[i].to < all.to) all.to = one[i].to;
    }
    if (all.from >= all.to) {
        for (uint32_t i = 0; i < VALUE_ROWS; i++) values_all(a, r + i, v0, p + i * ATTENTION_BLOCK, one[i], 1, half);
        return;
    }
    for (uint32_t i = 0; i < VALUE_ROWS; i++)
        values_all(a, r + i, v0, p + i * ATTENTION_BLOCK, (seen){one[i].from, all.from}, 1, half);
    values_all(a, r, v0, p, all, VALUE_ROWS, half);
    for (uint32_t i = 0; i < VALUE_ROWS; i++)
        values_all(a, r + i, v0, p + i * ATTENTION_BLOCK, (seen){all.to, one[i].to}, 1, half);
}

/* Turns the scores of one row into weights; keeps m, l and the sums in step. */
INLINE void soften(const attend_args *a, uint32_t r, seen j, float *s, float *l, float *m)
{
    for (uint32_t i = 0; i < j.from; i++) s[i] = -INFINITY;
    for (uint32_t i = j.to; i < ATTENTION_BLOCK; i++) s[i] = -INFINITY;
    v16 x[ATTENTION_BLOCK / LANES];
    UNROLL for (uint32_t c = 0; c < ATTENTION_BLOCK / LANES; c++) x[c] = v16_load(s + c * LANES);
    float largest = v16_largest(v16_max(v16_max(x[0], x[1]), v16_max(x[2], x[3])));
    v16 sum = v16_load(l);
    if (largest > *m) {
        v16 c = v16_exp(v16_set1(*m - largest));
        sum = v16_mul(sum, c);
        float *out = a->out[r];
        uint32_t d = 0;
        for (; d + LANES <= a->head_dim; d += LANES) v16_store(out + d, v16_mul(v16_load(out + d), c));
        if (d < a->head_dim) v16_store_n(out + d, v16_mul(v16_load_n(out + d, a->head_dim - d), c), a->head_dim - d);
        *m = largest;
    }
    UNROLL for (uint32_t c = 0; c < ATTENTION_BLOCK / LANES; c++)
    {
        v16 p = v16_exp(v16_sub(x[c], v16_set1(*m)));
        v16_store(s + c * LANES, p);
        sum = v16_add(sum, p);
    }
    v16_store(l, sum);
}

INLINE void attend_block(const attend_args *a, uint64_t block, float *s, float *l, float *m, const bool half)
{
    uint32_t r0 = 0, r1 = a->n; /* rows that see something of this block: a run, since positions ascend */
    while (r0 < r1 && seen_of(a, r0, block).from >= seen_of(a, r0, block).to) r0++;
    while (r1 > r0 && seen_of(a, r1 - 1, block).from >= seen_of(a, r1 - 1, block).to) r1--;
    uint64_t slot = block % a->capacity, v0 = slot * a->head_dim;
    uint32_t r = r0;
    for (; r + SCORE_ROWS <= r1; r += SCORE_ROWS) scores(a, r, slot, s + r * ATTENTION_BLOCK, SCORE_ROWS, half);
    for (; r < r1; r++) scores(a, r, slot, s + r * ATTENTION_BLOCK, 1, half);
    for (r = r0; r < r1; r++) soften(a, r, seen_of(a, r, block), s + r * ATTENTION_BLOCK, l + r * LANES, m + r);
    for (r = r0; r + VALUE_ROWS <= r1; r += VALUE_ROWS) values_rows(a, r, block, v0, s + r * ATTENTION_BLOCK, half);
    for (; r < r1; r++) values_all(a, r, v0, s + r * ATTENTION_BLOCK, seen_of(a, r, block), 1, half);
}

INLINE void attend_any(const attend_args *a, const bool half)
{
    float *s = a->scratch, *l = s + ATTEND_ROWS * ATTENTION_BLOCK, m[ATTEND_ROWS];
    memset(l, 0, sizeof(float) * ATTEND_ROWS * LANES);
    for (uint32_t r = 0; r < a->n; r++) {
        m[r] = -INFINITY;
        memset(a->out[r], 0, sizeof(float) * a->head_dim);
    }
    uint64_t end = (uint64_t)a->position[a->n - 1] + 1, first = (uint64_t)a->position[0] + 1;
    first = a->window && first > a->window ? first - a->window : 0;
    for (uint64_t b = first / ATTENTION_BLOCK * ATTENTION_BLOCK; b < end; b += ATTENTION_BLOCK)
        attend_block(a, b, s, l, m, half);
    for (uint32_t r = 0; r < a->n; r++) {
        float sum = v16_sum(v16_load(l + r * LANES)), *out = a->out[r];
        uint32_t d = 0;
        for (; d + LANES <= a->head_dim; d += LANES) v16_store(out + d, v16_div(v16_load(out + d), v16_set1(sum)));
        for (; d < a->head_dim; d++) out[d] = out[d] / sum;
    }
}

static void attend(const attend_args *a)
{
    if (a->half)
        attend_any(a, true);
    else
        attend_any(a, false);
}

/* ---- measures ----------------------------------------------------------------------------------------------------- */

static float read_all(const float *x, uint64_t n)
{
    v16 s[4] = {v16_zero(), v16_zero(), v16_zero(), v16_zero()};
    for (uint64_t i = 0; i + 4 * LANES <= n; i += 4 * LANES) {
        __builtin_prefetch((const char *)(x + i) + PREFETCH_BYTES);
        __builtin_prefetch((const char *)(x + i) + PREFETCH_BYTES + LINE);
        __builtin_prefetch((const char *)(x + i) + PREFETCH_BYTES + 2 * LINE);
        __builtin_prefetch((const char *)(x + i) + PREFETCH_BYTES + 3 * LINE);
        UNROLL for (uint32_t j = 0; j < 4; j++) s[j] = v16_add(s[j], v16_load(x + i + j * LANES));
    }
    return v16_sum(v16_add(v16_add(s[0], s[1]), v16_add(s[2], s[3])));
}

static double multiply_adds(uint64_t n, float *sink)
{
    enum { CHAINS = FMA_CHAINS };
    float start[LANES]; /* all different, or a compiler computes equal lanes once */
    for (uint32_t i = 0; i < LANES; i++) start[i] = *sink + (float)i;
    v16 acc[CHAINS], half = v16_set1(0.5f), one = v16_load(start);
    UNROLL for (uint32_t j = 0; j < CHAINS; j++) acc[j] = v16_set1((float)j);
    for (uint64_t i = 0; i < n; i++) UNROLL for (uint32_t j = 0; j < CHAINS; j++) acc[j] = v16_fma(acc[j], half, one);
    v16 sum = v16_zero();
    UNROLL for (uint32_t j = 0; j < CHAINS; j++) sum = v16_add(sum, acc[j]);
    *sink = v16_sum(sum);
    return (double)n * CHAINS * LANES * 2;
}

void LEVEL(kernels)(kernels *k)
{
    *k = (kernels){.name = LEVEL_NAME,
                   .panel_rows = PANEL,
                   .tile_tokens = TILE,
                   .fused_tokens = FUSED,
                   .weight = {[DT_F32] = WEIGHT_ROW(f32),
                              [DT_F16] = WEIGHT_ROW(f16),
                              [DT_BF16] = WEIGHT_ROW(bf16),
                              [DT_Q8_0] = WEIGHT_ROW(q8_0),
                              [DT_Q4_0] = WEIGHT_ROW(q4_0),
                              [DT_Q4_1] = WEIGHT_ROW(q4_1)},
                   .block = block,
                   .rms_norm = rms_norm,
                   .add = add,
                   .silu = silu,
                   .gelu_tanh = gelu_tanh,
                   .exp = exps,
                   .narrow = narrow,
                   .rotate_half = rotate_half,
                   .rotate_pairs = rotate_pairs,
                   .attend = attend,
                   .read = read_all,
                   .fma = multiply_adds};
}
