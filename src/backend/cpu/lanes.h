/* The kernels of one level, written once over `v16`, sixteen lanes of f32: one register of AVX-512, two of AVX2, four
 * of NEON. A level's .c file defines v16, its operations and how each type of weights is widened, then includes this.
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
 *   AXPY_TOKENS, AXPY_CHUNKS          register block of products by columns: token rows by chunks of 16 columns (not 1)
 *   SCORE_ROWS, SCORE_CHUNKS          register block of scores: rows by chunks of 16 positions (divides 4)
 *   VALUE_ROWS, VALUE_CHUNKS          register block of values: rows by chunks of 16 of a head
 *   PACKED_LEVEL                      the header that reads blocks of `packed`, see lanes_packed.h */
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

#include "lanes_weights.h"

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

/* T token rows by C chunks of columns, over all rows of the panel. A partial last chunk is its own call. */
INLINE void axpy_block(const axpy_args *a, uint32_t t0, uint64_t c0, uint32_t width, const uint32_t T, const uint32_t C)
{
    v16 acc[AXPY_TOKENS][2 * AXPY_CHUNKS];
    const bool part = C == 1;
    UNROLL for (uint32_t t = 0; t < T; t++) UNROLL for (uint32_t c = 0; c < C; c++)
    {
        const float *y = a->y + (t0 + t) * a->stride + c0 + c * LANES;
        acc[t][c] = part ? v16_load_n(y, width) : v16_load(y);
    }
    const float *w = a->w + c0, *x = a->x + t0 * a->x_stride;
    for (uint64_t r = 0; r < a->rows; r++, w += a->width, x++) {
        v16 row[2 * AXPY_CHUNKS];
        UNROLL for (uint32_t c = 0; c < C; c++) row[c] = v16_load(w + c * LANES);
        UNROLL for (uint32_t t = 0; t < T; t++)
        {
            v16 by = v16_set1(x[t * a->x_stride]);
            UNROLL for (uint32_t c = 0; c < C; c++) acc[t][c] = v16_fma(row[c], by, acc[t][c]);
        }
    }
    UNROLL for (uint32_t t = 0; t < T; t++) UNROLL for (uint32_t c = 0; c < C; c++)
    {
        float *y = a->y + (t0 + t) * a->stride + c0 + c * LANES;
        if (part)
            v16_store_n(y, acc[t][c], width);
        else
            v16_store(y, acc[t][c]);
    }
}

/* Fewer token rows take more columns at once, for as many sums in flight. */
INLINE void axpy_rows(const axpy_args *a, uint32_t t, const uint32_t T)
{
    const uint32_t C = T <= AXPY_TOKENS / 2 ? 2 * AXPY_CHUNKS : AXPY_CHUNKS;
    uint64_t c = 0;
    for (; c + C * LANES <= a->cols; c += C * LANES) axpy_block(a, t, c, LANES, T, C);
    for (; c < a->cols; c += LANES) axpy_block(a, t, c, a->cols - c < LANES ? (uint32_t)(a->cols - c) : LANES, T, 1);
}

static void axpy(const axpy_args *a)
{
    uint32_t t = 0;
    for (; t + AXPY_TOKENS <= a->n; t += AXPY_TOKENS) axpy_rows(a, t, AXPY_TOKENS);
    switch (a->n - t) {
    case 1:
        axpy_rows(a, t, 1);
        break;
    case 2:
        axpy_rows(a, t, 2);
        break;
    case 3:
        axpy_rows(a, t, AXPY_TOKENS < 3 ? AXPY_TOKENS : 3);
        break;
    case 4:
        axpy_rows(a, t, AXPY_TOKENS < 4 ? AXPY_TOKENS : 4);
        break;
    case 5:
        axpy_rows(a, t, AXPY_TOKENS < 5 ? AXPY_TOKENS : 5);
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

/* Both forms, then the one that is meant: see functions.c. */
INLINE v16 v16_tanh(v16 x)
{
    v16 one = v16_set1(1.0f), a = v16_abs(x), z = v16_mul(x, x), p = v16_set1(TANH_C4);
    p = v16_fma(p, z, v16_set1(TANH_C3));
    p = v16_fma(p, z, v16_set1(TANH_C2));
    p = v16_fma(p, z, v16_set1(TANH_C1));
    p = v16_fma(p, z, v16_set1(TANH_C0));
    v16 small = v16_fma(a, v16_mul(z, p), a);
    v16 large = v16_sub(one, v16_div(v16_set1(2.0f), v16_add(one, v16_exp(v16_add(a, a)))));
    return v16_copysign(v16_less(a, v16_set1(TANH_SMALL), small, large), x);
}

INLINE v16 v16_erf(v16 x)
{
    v16 a = v16_abs(x), z = v16_mul(x, x), p = v16_set1(ERF_P6), q = v16_set1(ERF_Q7);
    p = v16_fma(p, z, v16_set1(ERF_P5));
    p = v16_fma(p, z, v16_set1(ERF_P4));
    p = v16_fma(p, z, v16_set1(ERF_P3));
    p = v16_fma(p, z, v16_set1(ERF_P2));
    p = v16_fma(p, z, v16_set1(ERF_P1));
    p = v16_fma(p, z, v16_set1(ERF_P0));
    v16 b = v16_min(v16_set1(ERF_HIGH), a);
    q = v16_fma(q, b, v16_set1(ERF_Q6));
    q = v16_fma(q, b, v16_set1(ERF_Q5));
    q = v16_fma(q, b, v16_set1(ERF_Q4));
    q = v16_fma(q, b, v16_set1(ERF_Q3));
    q = v16_fma(q, b, v16_set1(ERF_Q2));
    q = v16_fma(q, b, v16_set1(ERF_Q1));
    q = v16_fma(q, b, v16_set1(ERF_Q0));
    v16 large = v16_sub(v16_set1(1.0f), v16_exp(v16_neg(q)));
    return v16_less(a, v16_set1(ERF_SMALL), v16_fma(x, p, x), v16_copysign(large, x));
}

INLINE v16 v16_sigmoid(v16 x, v16 y)
{
    v16 one = v16_set1(1.0f);
    (void)y;
    return v16_div(one, v16_add(one, v16_exp(v16_neg(x))));
}

INLINE v16 v16_softcap(v16 x, v16 cap)
{
    return v16_mul(cap, v16_tanh(v16_div(x, cap)));
}

INLINE v16 v16_silu(v16 x, v16 limit)
{
    v16 one = v16_set1(1.0f);
    (void)limit;
    return v16_div(x, v16_add(one, v16_exp(v16_neg(x))));
}

INLINE v16 v16_gelu_tanh(v16 x, v16 limit)
{
    v16 u = v16_fma(v16_mul(v16_mul(v16_set1(GELU_CUBE), x), x), x, x), one = v16_set1(1.0f);
    (void)limit;
    return v16_div(x, v16_add(one, v16_exp(v16_neg(v16_mul(v16_set1(GELU_SCALE), u)))));
}

INLINE v16 v16_gelu_erf(v16 x, v16 limit)
{
    (void)limit;
    return v16_mul(v16_mul(v16_set1(0.5f), x), v16_add(v16_set1(1.0f), v16_erf(v16_mul(x, v16_set1(SQRT_HALF)))));
}

INLINE v16 v16_relu(v16 x, v16 limit)
{
    (void)limit;
    return v16_max(v16_zero(), x);
}

INLINE v16 v16_relu2(v16 x, v16 limit)
{
    v16 y = v16_relu(x, limit);
    return v16_mul(y, y);
}

INLINE v16 v16_quick_gelu(v16 x, v16 limit)
{
    v16 one = v16_set1(1.0f);
    (void)limit;
    return v16_div(x, v16_add(one, v16_exp(v16_neg(v16_mul(v16_set1(QUICK_GELU), x)))));
}

INLINE v16 v16_clamped(v16 x, v16 limit)
{
    return v16_quick_gelu(v16_min(limit, x), limit);
}

/* What an activation is multiplied with. */
INLINE v16 v16_same(v16 up, v16 limit)
{
    (void)limit;
    return up;
}

INLINE v16 v16_clamped_up(v16 up, v16 limit)
{
    return v16_add(v16_max(v16_neg(limit), v16_min(limit, up)), v16_set1(1.0f));
}

typedef v16 (*lanes_fn)(v16 x, v16 y);

/* x = fn(x, y) */
INLINE void map(lanes_fn fn, float *x, v16 y, uint64_t n)
{
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(x + i, fn(v16_load(x + i), y));
    uint32_t rest = (uint32_t)(n - i);
    if (rest) v16_store_n(x + i, fn(v16_load_n(x + i, rest), y), rest);
}

INLINE void gate_any(lanes_fn act, lanes_fn other, float *gate, const float *up, float limit, uint64_t n)
{
    v16 most = v16_set1(limit);
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v16_store(gate + i, v16_mul(act(v16_load(gate + i), most), other(v16_load(up + i), most)));
    uint32_t rest = (uint32_t)(n - i);
    if (!rest) return;
    v16 y = v16_mul(act(v16_load_n(gate + i, rest), most), other(v16_load_n(up + i, rest), most));
    v16_store_n(gate + i, y, rest);
}

#define ACTIVATION(name, other)                                                                                        \
    static void gate_##name(float *gate, const float *up, float limit, uint64_t n)                                     \
    {                                                                                                                  \
        gate_any(v16_##name, other, gate, up, limit, n);                                                               \
    }                                                                                                                  \
    static void activate_##name(float *x, float limit, uint64_t n)                                                     \
    {                                                                                                                  \
        map(v16_##name, x, v16_set1(limit), n);                                                                        \
    }
ACTIVATION(silu, v16_same)
ACTIVATION(gelu_tanh, v16_same)
ACTIVATION(gelu_erf, v16_same)
ACTIVATION(relu, v16_same)
ACTIVATION(relu2, v16_same)
ACTIVATION(quick_gelu, v16_same)
ACTIVATION(clamped, v16_clamped_up)

static void add(float *x, const float *y, uint64_t n)
{
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(x + i, v16_add(v16_load(x + i), v16_load(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

static void add_scaled(float *x, const float *y, float s, uint64_t n)
{
    v16 by = v16_set1(s);
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) v16_store(x + i, v16_add(v16_load(x + i), v16_mul(by, v16_load(y + i))));
    uint32_t rest = (uint32_t)(n - i);
    if (rest) v16_store_n(x + i, v16_add(v16_load_n(x + i, rest), v16_mul(by, v16_load_n(y + i, rest))), rest);
}

static void scale(float *x, float s, uint64_t n)
{
    map(v16_mul, x, v16_set1(s), n);
}

static void softcap(float *x, float cap, uint64_t n)
{
    map(v16_softcap, x, v16_set1(cap), n);
}

static void sigmoid(float *x, uint64_t n)
{
    map(v16_sigmoid, x, v16_zero(), n);
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

/* Lanes of x - mean; zeros beyond the row. */
INLINE v16 centred_n(const float *x, v16 mean, uint32_t n)
{
    float copy[LANES];
    v16_store(copy, v16_sub(v16_load_n(x, n), mean));
    return v16_load_n(copy, n);
}

/* out = ((x - mean) * r) * w + b; a mean of 0 changes no bit. */
INLINE void finish_norm(const norm_row *a, float mean, float scale)
{
    const v16 m = v16_set1(mean), r = v16_set1(scale);
    for (uint32_t i = 0; i < a->k; i += LANES) {
        uint32_t n = a->k - i;
        bool part = n < LANES;
        v16 x = v16_mul(v16_sub(part ? v16_load_n(a->x + i, n) : v16_load(a->x + i), m), r);
        if (a->w) x = v16_mul(x, part ? v16_load_n(a->w + i, n) : v16_load(a->w + i));
        if (a->b) x = v16_add(x, part ? v16_load_n(a->b + i, n) : v16_load(a->b + i));
        if (part)
            v16_store_n(a->out + i, x, n);
        else
            v16_store(a->out + i, x);
    }
}

static void rms_norm(const norm_row *a)
{
    v16 sum = v16_zero();
    uint32_t whole = a->k / LANES * LANES, rest = a->k - whole;
    for (uint32_t i = 0; i < whole; i += LANES) sum = v16_fma(v16_load(a->x + i), v16_load(a->x + i), sum);
    if (rest) {
        v16 tail = v16_load_n(a->x + whole, rest);
        sum = v16_fma(tail, tail, sum);
    }
    finish_norm(a, 0.0f, 1.0f / sqrtf(v16_sum(sum) / (float)a->k + a->eps));
}

static void layer_norm(const norm_row *a)
{
    v16 sum = v16_zero(), square = v16_zero();
    uint32_t whole = a->k / LANES * LANES, rest = a->k - whole;
    for (uint32_t i = 0; i < whole; i += LANES) sum = v16_add(sum, v16_load(a->x + i));
    if (rest) sum = v16_add(sum, v16_load_n(a->x + whole, rest));
    float mean = v16_sum(sum) / (float)a->k;
    const v16 m = v16_set1(mean);
    for (uint32_t i = 0; i < whole; i += LANES) {
        v16 x = v16_sub(v16_load(a->x + i), m);
        square = v16_fma(x, x, square);
    }
    if (rest) {
        v16 x = centred_n(a->x + whole, m, rest);
        square = v16_fma(x, x, square);
    }
    finish_norm(a, mean, 1.0f / sqrtf(v16_sum(square) / (float)a->k + a->eps));
}

static void squares(const float *x, uint64_t steps, float *lanes)
{
    v16 sum = v16_load(lanes);
    for (uint64_t i = 0; i < steps; i++, x += LANES) sum = v16_fma(v16_load(x), v16_load(x), sum);
    v16_store(lanes, sum);
}

/* The sum of one chunk of 16 (or n) elements over all slots. */
INLINE v16 mixed(const mix_args *a, uint32_t at, uint32_t n)
{
    v16 sum = v16_zero();
    for (uint32_t s = 0; s < a->slots; s++) {
        if (a->index[s] == UINT32_MAX) continue;
        const float *y = a->y + (uint64_t)a->index[s] * a->k + at;
        sum = v16_fma(v16_set1(a->weight[s]), n < LANES ? v16_load_n(y, n) : v16_load(y), sum);
    }
    return sum;
}

static void mix(const mix_args *a)
{
    uint32_t i = 0;
    for (; i + LANES <= a->k; i += LANES) v16_store(a->x + i, v16_add(v16_load(a->x + i), mixed(a, i, LANES)));
    uint32_t rest = a->k - i;
    if (rest) v16_store_n(a->x + i, v16_add(v16_load_n(a->x + i, rest), mixed(a, i, rest)), rest);
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

/* Elements [d0, d1) of the values of a block: that of position i begins at v + i * stride, in elements. */
typedef struct value_block {
    const void *v;
    uint64_t stride;
    uint32_t d0, d1;
} value_block;

/* Adds p_j v_j of positions [from, to) to the sums of R rows, `width` elements (at most 16 VALUE_CHUNKS) from d. A
 * partial last chunk is its own call with one chunk. */
INLINE void values(const attend_args *a, uint32_t r0, value_block b, const float *p, seen j, uint32_t d, uint32_t width,
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
        uint64_t at = i * b.stride + (d - b.d0);
        UNROLL for (uint32_t c = 0; c < C; c++) v[c] =
            part ? cached_n(b.v, at, width, half) : cached(b.v, at + c * LANES, half);
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

INLINE void values_all(const attend_args *a, uint32_t r, value_block b, const float *p, seen j, const uint32_t R,
                       const bool half)
{
    uint32_t d = b.d0;
    if (j.from >= j.to) return;
    for (; d + VALUE_CHUNKS * LANES <= b.d1; d += VALUE_CHUNKS * LANES)
        values(a, r, b, p, j, d, VALUE_CHUNKS * LANES, R, VALUE_CHUNKS, half);
    for (; d < b.d1; d += LANES) values(a, r, b, p, j, d, b.d1 - d < LANES ? b.d1 - d : LANES, R, 1, half);
}

/* VALUE_ROWS rows: what all of them see together, what some see before and after it one by one. */
INLINE void values_rows(const attend_args *a, uint32_t r, uint64_t block, value_block b, const float *p,
                        const bool half)
{
    seen all = {0, ATTENTION_BLOCK}, one[VALUE_ROWS];
    for (uint32_t i = 0; i < VALUE_ROWS; i++) {
        one[i] = seen_of(a, r + i, block);
        if (one[i].from > all.from) all.from = one[i].from;
        if (one[i].to < all.to) all.to = one[i].to;
    }
    if (all.from >= all.to) {
        for (uint32_t i = 0; i < VALUE_ROWS; i++) values_all(a, r + i, b, p + i * ATTENTION_BLOCK, one[i], 1, half);
        return;
    }
    for (uint32_t i = 0; i < VALUE_ROWS; i++)
        values_all(a, r + i, b, p + i * ATTENTION_BLOCK, (seen){one[i].from, all.from}, 1, half);
    values_all(a, r, b, p, all, VALUE_ROWS, half);
    for (uint32_t i = 0; i < VALUE_ROWS; i++)
        values_all(a, r + i, b, p + i * ATTENTION_BLOCK, (seen){all.to, one[i].to}, 1, half);
}

/* Rows [r0, r1) by one part of the values. */
INLINE void values_part(const attend_args *a, uint32_t r0, uint32_t r1, uint64_t block, value_block b, const float *s,
                        const bool half)
{
    uint32_t r = r0;
    for (; r + VALUE_ROWS <= r1; r += VALUE_ROWS) values_rows(a, r, block, b, s + r * ATTENTION_BLOCK, half);
    for (; r < r1; r++) values_all(a, r, b, s + r * ATTENTION_BLOCK, seen_of(a, r, block), 1, half);
}

/* Sixteen vectors of sixteen, rows become columns: in each round the first half is interleaved with the second. */
INLINE void turn(v16 *x)
{
    for (uint32_t round = 0; round < 4; round++) {
        v16 y[LANES];
        UNROLL for (uint32_t i = 0; i < LANES / 2; i++)
        {
            v32 z = v32_zip((v32){x[i], x[i + LANES / 2]});
            y[2 * i] = z.lo;
            y[2 * i + 1] = z.hi;
        }
        UNROLL for (uint32_t i = 0; i < LANES; i++) x[i] = y[i];
    }
}

/* Elements [d0, d1) of the 64 keys of the block at `slot`, as values: out [64][ATTEND_VALUES]. */
INLINE void turn_keys(const attend_args *a, uint64_t slot, uint32_t d0, uint32_t d1, float *out, const bool half)
{
    for (uint32_t c = 0; c < ATTENTION_BLOCK / KV_BLOCK; c++)
        for (uint32_t d = d0; d < d1; d += LANES) {
            uint32_t n = d1 - d < LANES ? d1 - d : LANES;
            uint64_t at = ((slot / KV_BLOCK + c) * a->head_dim + d) * KV_BLOCK;
            v16 x[LANES];
            for (uint32_t i = 0; i < LANES; i++)
                x[i] = i < n ? cached(a->k, at + (uint64_t)i * KV_BLOCK, half) : v16_zero();
            turn(x);
            float *to = out + (size_t)c * KV_BLOCK * ATTEND_VALUES + (d - d0);
            for (uint32_t i = 0; i < LANES; i++) v16_store(to + (size_t)i * ATTEND_VALUES, x[i]);
        }
}

/* The values of rows [r0, r1) where they lie in the keys. Apart, so that the other case stays small. */
static __attribute__((noinline)) void values_in_keys(const attend_args *a, uint32_t r0, uint32_t r1, uint64_t block,
                                                     const float *s)
{
    uint64_t slot = block % a->capacity;
    float *turned = a->scratch + ATTEND_ROWS * (ATTENTION_BLOCK + LANES);
    for (uint32_t d = 0; d < a->v_dim; d += ATTEND_VALUES) {
        uint32_t end = a->v_dim - d < ATTEND_VALUES ? a->v_dim : d + ATTEND_VALUES;
        if (a->half)
            turn_keys(a, slot, d, end, turned, true);
        else
            turn_keys(a, slot, d, end, turned, false);
        values_part(a, r0, r1, block, (value_block){turned, ATTEND_VALUES, d, end}, s, false);
    }
}

/* What scores become besides their scale; positions that are not visible are masked afterwards. */
static __attribute__((noinline)) void adjust(const attend_args *a, uint32_t r, uint64_t block, float *s)
{
    if (a->softcap != 0.0f) map(v16_softcap, s, v16_set1(a->softcap), ATTENTION_BLOCK);
    if (!a->sloped) return;
    float distance[ATTENTION_BLOCK];
    int64_t first = (int64_t)block - (int64_t)a->position[r];
    for (uint32_t i = 0; i < ATTENTION_BLOCK; i++) distance[i] = (float)(first + i);
    add_scaled(s, distance, a->slope[r], ATTENTION_BLOCK);
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
        for (; d + LANES <= a->v_dim; d += LANES) v16_store(out + d, v16_mul(v16_load(out + d), c));
        if (d < a->v_dim) v16_store_n(out + d, v16_mul(v16_load_n(out + d, a->v_dim - d), c), a->v_dim - d);
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
    uint64_t slot = block % a->capacity;
    uint32_t r = r0;
    for (; r + SCORE_ROWS <= r1; r += SCORE_ROWS) scores(a, r, slot, s + r * ATTENTION_BLOCK, SCORE_ROWS, half);
    for (; r < r1; r++) scores(a, r, slot, s + r * ATTENTION_BLOCK, 1, half);
    for (r = r0; r < r1; r++) {
        if (a->softcap != 0.0f || a->sloped) adjust(a, r, block, s + r * ATTENTION_BLOCK);
        soften(a, r, seen_of(a, r, block), s + r * ATTENTION_BLOCK, l + r * LANES, m + r);
    }
    if (!a->v) {
        if (r0 < r1) values_in_keys(a, r0, r1, block, s);
        return;
    }
    const uint8_t *v = (const uint8_t *)a->v + slot * a->v_dim * (half ? sizeof(uint16_t) : sizeof(float));
    values_part(a, r0, r1, block, (value_block){v, a->v_dim, 0, a->v_dim}, s, half);
}

INLINE void attend_any(const attend_args *a, const bool half)
{
    float *s = a->scratch, *l = s + ATTEND_ROWS * ATTENTION_BLOCK, m[ATTEND_ROWS];
    memset(l, 0, sizeof(float) * ATTEND_ROWS * LANES);
    for (uint32_t r = 0; r < a->n; r++) {
        m[r] = a->sinks ? a->sink[r] : -INFINITY;
        l[r * LANES] = a->sinks ? 1.0f : 0.0f;
        memset(a->out[r], 0, sizeof(float) * a->v_dim);
    }
    uint64_t end = (uint64_t)a->position[a->n - 1] + 1, first = (uint64_t)a->position[0] + 1;
    first = a->window && first > a->window ? first - a->window : 0;
    for (uint64_t b = first / ATTENTION_BLOCK * ATTENTION_BLOCK; b < end; b += ATTENTION_BLOCK)
        attend_block(a, b, s, l, m, half);
    for (uint32_t r = 0; r < a->n; r++) {
        float sum = v16_sum(v16_load(l + r * LANES)), *out = a->out[r];
        uint32_t d = 0;
        for (; d + LANES <= a->v_dim; d += LANES) v16_store(out + d, v16_div(v16_load(out + d), v16_set1(sum)));
        for (; d < a->v_dim; d++) out[d] = out[d] / sum;
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
                              [DT_Q4_1] = WEIGHT_ROW(q4_1),
                              [DT_Q5_0] = WEIGHT_ROW(q5_0),
                              [DT_Q5_1] = WEIGHT_ROW(q5_1),
                              [DT_Q2_K] = WEIGHT_ROW(q2_k),
                              [DT_Q3_K] = WEIGHT_ROW(q3_k),
                              [DT_Q4_K] = WEIGHT_ROW(q4_k),
                              [DT_Q5_K] = WEIGHT_ROW(q5_k),
                              [DT_Q6_K] = WEIGHT_ROW(q6_k),
                              [DT_F8_E4M3] = WEIGHT_ROW(f8_e4m3),
                              [DT_F8_E5M2] = WEIGHT_ROW(f8_e5m2),
                              [DT_MXFP4] = WEIGHT_ROW(mxfp4),
                              [DT_MXFP4_PAIRS] = WEIGHT_ROW(mxfp4_pairs),
                              [DT_BF16_PACKED3] = WEIGHT_ROW(bf16_packed3),
                              [DT_BF16_PACKED4] = WEIGHT_ROW(bf16_packed4),
                              [DT_F16_PACKED3] = WEIGHT_ROW(f16_packed3),
                              [DT_NF4_PAIRS] = WEIGHT_ROW(nf4_pairs),
                              [DT_FP4_PAIRS] = WEIGHT_ROW(fp4_pairs),
                              [DT_INT8_ROWS] = WEIGHT_ROW(int8_rows),
                              [DT_IQ4_XS] = WEIGHT_ROW(iq4_xs),
                              GRID_TYPES(GRID_ROW)},
                   .block = block,
                   .axpy = axpy,
                   .mix = mix,
                   .rms_norm = rms_norm,
                   .layer_norm = layer_norm,
                   .squares = squares,
                   .add = add,
                   .add_scaled = add_scaled,
                   .scale = scale,
                   .softcap = softcap,
                   .sigmoid = sigmoid,
                   .gate = {[BACKEND_SILU] = gate_silu,
                            [BACKEND_GELU_TANH] = gate_gelu_tanh,
                            [BACKEND_GELU_ERF] = gate_gelu_erf,
                            [BACKEND_RELU] = gate_relu,
                            [BACKEND_RELU2] = gate_relu2,
                            [BACKEND_QUICK_GELU] = gate_quick_gelu,
                            [BACKEND_CLAMPED] = gate_clamped},
                   .activate = {[BACKEND_SILU] = activate_silu,
                                [BACKEND_GELU_TANH] = activate_gelu_tanh,
                                [BACKEND_GELU_ERF] = activate_gelu_erf,
                                [BACKEND_RELU] = activate_relu,
                                [BACKEND_RELU2] = activate_relu2,
                                [BACKEND_QUICK_GELU] = activate_quick_gelu,
                                [BACKEND_CLAMPED] = activate_clamped},
                   .exp = exps,
                   .narrow = narrow,
                   .rotate_half = rotate_half,
                   .rotate_pairs = rotate_pairs,
                   .attend = attend,
                   .read = read_all,
                   .fma = multiply_adds};
}
