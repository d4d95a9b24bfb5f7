/* The search for scales, for one level of instructions. The level's file defines VEC (lanes of a vector, a divisor of
 * LANES) and on vectors MOST(a, b), LEAST(a, b) as a > b ? a : b and a < b ? a : b, and CHOOSE(mask, a, b), and
 * beside(x, blocks, n, to), which puts element i of block b at to[i][b], and through_f16(x), which makes x [LANES] what
 * f16 makes of them; then it includes this and names what it got: FIT_OPS. Where registers hold LANES twice, two grids
 * are measured at once: the file defines WIDE (2 * LANES) and for such vectors, `wide`, WIDE_MOST, WIDE_LEAST,
 * take(a, b) and give(v, a, b), first half and second half, twice(a), both halves the same, and nearest_of_nf4(x).
 *
 * A grid is bettered as in k-means: round to it, then fit scale and offset to the levels by weighted least squares;
 * several starting grids, because that stops at the nearest optimum. What is rounded itself (a super-block's multiples,
 * f16) is rounded first and then fitted around: levels again, neighbours tried, d and m by least squares over the whole
 * super-block.
 *
 * Promises the same bits at every level: each lane is a fixed order of single operations, no contraction, no function
 * of libm but fabsf. Inputs are finite and far from the ends of f32's range. */
#ifndef LAMINA_STORE_QUANTIZE_FIT_LANES_H
#define LAMINA_STORE_QUANTIZE_FIT_LANES_H

#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "store/quantize_fit.h"

#define MAGIC    0x1.8p+23f /* x + MAGIC - MAGIC rounds |x| < 2^22 to even */
#define NOTHING  0x1p-40f   /* a block of less is zero: a quarter of f16's least number times 2^-14 */
#define F16_MOST 65504.0f

#define MULTIPLE_MOST 63.0f
#define SIGNED_MOST   127.0f
/* Starting grids: how many levels the outermost elements lie beyond the outermost levels. Measured on matrices of a
 * trained model: weighted errors of 4 bits gain 3 % by starts up to 2 instead of 1, symmetric ones of 8 bits 3 to 10 %
 * by 6; with five times as many starts everywhere 1 to 2 % are left. */
#define AFFINE_FIRST    2.0f
#define AFFINE_STEP     0.4f
#define SYMMETRIC_FIRST 6.0f
#define SYMMETRIC_STEP  0.5f
#define NF4_STEP        0.1f /* of a level's distance, about */

typedef float vec __attribute__((vector_size(4 * VEC)));
typedef int32_t mask __attribute__((vector_size(4 * VEC)));
typedef uint8_t bytes __attribute__((vector_size(VEC)));
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* STRIDE: of the symmetric starts, where there are so many levels that any start is near. */
enum {
    AFFINE_STARTS = 9,
    SYMMETRIC_STARTS = 16,
    STARTS_MOST = SYMMETRIC_STARTS > AFFINE_STARTS ? SYMMETRIC_STARTS : AFFINE_STARTS,
    MANY_LEVELS = 100,
    STRIDE = 4,
    REFITS = 1,
    ROUNDS = 3
};

ALWAYS_INLINE vec load(const float *x)
{
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

ALWAYS_INLINE void store(float *x, vec v)
{
    memcpy(x, &v, sizeof v);
}

ALWAYS_INLINE vec all(float x)
{
    vec v;
    for (int i = 0; i < VEC; i++) v[i] = x;
    return v;
}

ALWAYS_INLINE vec clamp(vec x, float low, float high)
{
    return LEAST(MOST(x, all(low)), all(high));
}

ALWAYS_INLINE vec rounded(vec x)
{
    return x + all(MAGIC) - all(MAGIC);
}

ALWAYS_INLINE vec magnitude(vec x)
{
    return MOST(x, -x);
}

#ifndef WIDE
#define WIDE             VEC
#define WIDE_MOST(a, b)  MOST(a, b)
#define WIDE_LEAST(a, b) LEAST(a, b)
typedef vec wide;

ALWAYS_INLINE wide take(const float *a, const float *b)
{
    (void)b;
    return load(a);
}

ALWAYS_INLINE wide twice(const float *a)
{
    return load(a);
}

ALWAYS_INLINE void give(wide v, float *a, float *b)
{
    (void)b;
    store(a, v);
}

/* The nearest of the sixteen. Written out, so that lanes stay lanes. */
ALWAYS_INLINE wide nearest_of_nf4(wide x)
{
    wide v = all(nf4_levels[0]);
#define NEXT(k) v = CHOOSE(x > all(NF4_BETWEEN(k)), all(nf4_levels[k]), v)
    NEXT(1), NEXT(2), NEXT(3), NEXT(4), NEXT(5), NEXT(6), NEXT(7), NEXT(8);
    NEXT(9), NEXT(10), NEXT(11), NEXT(12), NEXT(13), NEXT(14), NEXT(15);
#undef NEXT
    return v;
}
#endif

ALWAYS_INLINE wide wide_all(float x)
{
    wide v;
    for (int i = 0; i < WIDE; i++) v[i] = x;
    return v;
}

/* Each as the nearest number that f16 has. */
static void fit_all_f16(float x[LANES])
{
    for (int l = 0; l < LANES; l += VEC) store(x + l, clamp(load(x + l), -F16_MOST, F16_MOST));
    through_f16(x);
}

/* The same, but 0 only for 0: the least scale still says more than none. */
static void fit_scales_f16(float x[LANES])
{
    float was[LANES];
    memcpy(was, x, sizeof was);
    fit_all_f16(x);
    for (int l = 0; l < LANES; l += VEC) {
        vec from = load(was + l), least = CHOOSE(from < all(0), all(-0x1p-24f), all(0x1p-24f)), to = load(x + l);
        store(x + l, CHOOSE((to == all(0)) & (from != all(0)), least, to));
    }
}

static float fit_f16(float x)
{
    float one[LANES] = {x};
    fit_all_f16(one);
    return one[0];
}

static float scale_f16(float x)
{
    float one[LANES] = {x};
    fit_scales_f16(one);
    return one[0];
}

/* ---- laying blocks side by side ------------------------------------------------------------------------------------ */

static void fit_fill(tile *t, uint32_t blocks, const float *x, const float *importance)
{
    const uint32_t n = t->n;
    if (blocks < LANES) {
        memset(t->x, 0, sizeof t->x);
        memset(t->w, 0, sizeof t->w);
    }
    beside(x, blocks, n, t->x);
    if (importance) {
        beside(importance, blocks, n, t->w);
        return;
    }
    /* Nobody knows what errors cost: the block's mean square and the element's own, as though large weights stood where
     * large inputs come. Measured on SmolLM2, with that instead of equal weights the divergence in q4_k is 0.83 to 0.93
     * of what it was, in q4_0 0.77. */
    for (int l = 0; l < LANES; l += VEC) {
        vec mean = all(0);
        for (uint32_t i = 0; i < n; i++) {
            vec v = load(t->x[i] + l);
            mean += v * v;
        }
        mean /= all((float)n);
        for (uint32_t i = 0; i < n; i++) {
            vec v = load(t->x[i] + l), w = mean + v * v;
            store(t->w[i] + l, w);
        }
    }
}

static void fit_level_weights(tile *t, int n)
{
    vec most = all(0);
    float each[VEC], top = 0;
    union {
        uint32_t u;
        float f;
    } by;
    for (int k = 0; k < n; k++)
        for (uint32_t i = 0; i < t[k].n; i++)
            for (int l = 0; l < LANES; l += VEC) most = MOST(load(t[k].w[i] + l), most);
    memcpy(each, &most, sizeof each);
    for (int l = 0; l < VEC; l++) top = each[l] > top ? each[l] : top;
    by.f = top;
    uint32_t exponent = by.u >> 23;
    by.u = exponent < 254 ? (254 - (exponent ? exponent : 1)) << 23 : UINT32_C(1) << 22;
    const vec factor = all(by.f), one = all(1);
    for (int k = 0; k < n; k++)
        for (uint32_t i = 0; i < t[k].n; i++)
            for (int l = 0; l < LANES; l += VEC) {
                vec w = top > 0 ? load(t[k].w[i] + l) * factor : one;
                store(t[k].w[i] + l, w);
            }
}

/* ---- rounding ------------------------------------------------------------------------------------------------------- */

/* 1 / scale, or 0 where that says nothing: all elements then take level 0. */
static void inverses(const float scale[LANES], float inverse[LANES])
{
    for (int l = 0; l < LANES; l += VEC) {
        vec x = load(scale + l);
        store(inverse + l, CHOOSE(magnitude(x) > all(0x1p-60f), all(1) / x, all(0)));
    }
}

typedef struct sums { /* of each lane, over its elements; q: the nearest level, r = x - value */
    float q[LANES], qq[LANES], r[LANES], rq[LANES], rr[LANES]; /* w q, w q^2, w r, w r q, w r^2 */
} sums;

/* Rounds every element to each of the grids [n]: what that costs, and what is needed to better the grid. Here the time
 * goes. */
ALWAYS_INLINE void measure(const tile *t, const grid *g, int n, levels of, bool affine, bool nf4, sums *out)
{
    const wide low = wide_all(of.low), high = wide_all(of.high), magic = wide_all(MAGIC);
    const int at_once = WIDE > LANES ? 2 : 1;
    for (int k = 0; k < n; k += at_once) {
        const int j = k + at_once - 1 < n ? k + at_once - 1 : k; /* an odd one is measured twice */
        float inverse[2][LANES];
        inverses(g[k].scale, inverse[0]);
        if (at_once == 2) inverses(g[j].scale, inverse[1]);
        for (int l = 0; l < LANES; l += WIDE) {
            const wide scale = take(g[k].scale + l, g[j].scale + l), minus = take(g[k].minus + l, g[j].minus + l);
            const wide over = take(inverse[0] + l, inverse[1] + l);
            wide q = wide_all(0), qq = q, r = q, rq = q, rr = q;
            for (uint32_t i = 0; i < t->n; i++) {
                wide x = affine ? twice(t->x[i] + l) + minus : twice(t->x[i] + l), w = twice(t->w[i] + l);
                wide at = x * over;
                wide level = nf4 ? nearest_of_nf4(at) : WIDE_LEAST(WIDE_MOST(at, low), high) + magic - magic;
                wide rest = x - scale * level, w_level = w * level, w_rest = w * rest;
                if (affine) q += w_level, r += w_rest;
                qq += w_level * level;
                rq += w_rest * level;
                rr += w_rest * rest;
            }
            give(q, out[k].q + l, out[j].q + l);
            give(qq, out[k].qq + l, out[j].qq + l);
            give(r, out[k].r + l, out[j].r + l);
            give(rq, out[k].rq + l, out[j].rq + l);
            give(rr, out[k].rr + l, out[j].rr + l);
        }
    }
}

/* Symmetric grids have no minus: then q and r of the sums are 0. */
static void fit_measure(const tile *t, const grid *g, int n, levels of, sums *out)
{
    if (of.nf4)
        measure(t, g, n, of, false, true, out);
    else if (of.low < 0)
        measure(t, g, n, of, false, false, out);
    else
        measure(t, g, n, of, true, false, out);
}

static void nf4_levels_of(const tile *t, const float inverse[LANES], uint8_t q[BLOCK_MAX][LANES])
{
    for (uint32_t i = 0; i < t->n; i++)
        for (int l = 0; l < LANES; l += VEC) {
            vec at = load(t->x[i] + l) * load(inverse + l);
            mask index = {0};
            for (int k = 1; k < 16; k++) index -= at > all(NF4_BETWEEN(k)); /* true is -1 */
            bytes b = __builtin_convertvector(index, bytes);
            memcpy(q[i] + l, &b, sizeof b);
        }
}

static void fit_levels(const tile *t, const grid *g, levels of, uint8_t q[BLOCK_MAX][LANES])
{
    float inverse[LANES];
    inverses(g->scale, inverse);
    if (of.nf4) {
        nf4_levels_of(t, inverse, q);
        return;
    }
    const vec low = all(of.low), high = all(of.high), magic = all(MAGIC);
    for (uint32_t i = 0; i < t->n; i++)
        for (int l = 0; l < LANES; l += VEC) {
            vec at = (load(t->x[i] + l) + load(g->minus + l)) * load(inverse + l);
            vec level = LEAST(MOST(at, low), high) + magic - magic - low;
            bytes b = __builtin_convertvector(__builtin_convertvector(level, mask), bytes);
            memcpy(q[i] + l, &b, sizeof b);
        }
}

/* Where `error` is less than the best so far, g becomes the best. */
static void keep_better(const grid *g, const float error[LANES], grid *best, float best_error[LANES])
{
    for (int l = 0; l < LANES; l += VEC) {
        vec e = load(error + l), least = load(best_error + l);
        mask better = e < least;
        store(best->scale + l, CHOOSE(better, load(g->scale + l), load(best->scale + l)));
        store(best->minus + l, CHOOSE(better, load(g->minus + l), load(best->minus + l)));
        store(best_error + l, CHOOSE(better, e, least));
    }
}

/* Least squares for the levels just measured: r = a q - b, b being added to minus, which stays >= 0. error: what would
 * be left with these levels. */
static void refit_affine(const float weight[LANES], const sums *s, grid *g, float error[LANES])
{
    const vec zero = all(0);
    for (int l = 0; l < LANES; l += VEC) {
        vec w = load(weight + l), minus = load(g->minus + l);
        vec q = load(s->q + l), qq = load(s->qq + l), r = load(s->r + l), rq = load(s->rq + l), rr = load(s->rr + l);
        vec det = w * qq - q * q;
        mask plane = det > all(0x1p-20f) * w * qq; /* else all are of one level */
        vec a = CHOOSE(plane, (w * rq - q * r) / det, zero);
        vec b = CHOOSE(plane, (q * rq - qq * r) / det, -r / w);
        mask inside = minus + b >= zero;
        b = CHOOSE(inside, b, -minus);
        vec left_q = rq + b * q, left = rr + all(2) * b * r + b * b * w;
        a = CHOOSE(inside, a, CHOOSE(qq > zero, left_q / qq, zero));
        store(error + l, left - all(2) * a * left_q + a * a * qq);
        store(g->scale + l, load(g->scale + l) + a);
        store(g->minus + l, minus + b);
    }
}

static void refit_symmetric(const sums *s, grid *g, float error[LANES])
{
    for (int l = 0; l < LANES; l += VEC) {
        vec qq = load(s->qq + l), rq = load(s->rq + l), a = CHOOSE(qq > all(0), rq / qq, all(0));
        store(error + l, load(s->rr + l) - a * rq);
        store(g->scale + l, load(g->scale + l) + a);
    }
}

ALWAYS_INLINE void refit(const float weight[LANES], const sums *s, bool affine, grid *g, float error[LANES])
{
    if (affine)
        refit_affine(weight, s, g, error);
    else
        refit_symmetric(s, g, error);
}

typedef struct ranges {
    float low[LANES], high[LANES]; /* 0 included */
    float weight[LANES];           /* the sum */
} ranges;

static void find_ranges(const tile *t, ranges *out)
{
    for (int l = 0; l < LANES; l += VEC) {
        vec low = all(0), high = low, weight = low;
        for (uint32_t i = 0; i < t->n; i++) {
            low = LEAST(load(t->x[i] + l), low);
            high = MOST(load(t->x[i] + l), high);
            weight += load(t->w[i] + l);
        }
        store(out->low + l, low);
        store(out->high + l, high);
        store(out->weight + l, CHOOSE(weight > all(0), weight, all(1))); /* 1: lanes that nobody heeds */
    }
}

/* The grid whose outermost levels are `stretch` levels beyond the outermost elements; negative: within. */
static void grid_across(const ranges *r, levels of, float stretch, grid *g)
{
    for (int l = 0; l < LANES; l += VEC) {
        vec low = load(r->low + l), range = load(r->high + l) - low;
        store(g->scale + l, CHOOSE(range > all(NOTHING), range / all(of.high - stretch), all(0)));
        store(g->minus + l, -low);
    }
}

/* The same around 0: the farthest element takes the lowest level, which is the farthest. */
static void grid_around(const ranges *r, levels of, float stretch, grid *g)
{
    for (int l = 0; l < LANES; l += VEC) {
        vec low = load(r->low + l), high = load(r->high + l), most = CHOOSE(high > -low, high, low);
        store(g->scale + l, CHOOSE(magnitude(most) > all(NOTHING), most / all(of.low + stretch), all(0)));
        store(g->minus + l, all(0));
    }
}

static void forget(grid *best, float error[LANES])
{
    *best = (grid){0};
    for (int l = 0; l < LANES; l += VEC) store(error + l, all(INFINITY));
}

/* The best grids of any scale and minus, from the starts g [n], which are changed. */
static void fit_from(const tile *t, const ranges *r, levels of, bool affine, grid *g, int n, grid *best)
{
    sums s[STARTS_MOST];
    float e[LANES], error[LANES];
    forget(best, error);
    for (int round = 0; round <= REFITS; round++) {
        fit_measure(t, g, n, of, s);
        for (int k = 0; k < n; k++) {
            refit(r->weight, &s[k], affine, &g[k], e);
            keep_better(&g[k], e, best, error);
        }
        g[0] = *best;
        n = 1;
    }
}

static void fit_affine(const tile *t, const ranges *r, levels of, grid *best)
{
    grid g[AFFINE_STARTS];
    for (int k = 0; k < AFFINE_STARTS; k++) grid_across(r, of, AFFINE_FIRST - AFFINE_STEP * (float)k, &g[k]);
    fit_from(t, r, of, true, g, AFFINE_STARTS, best);
}

static void fit_symmetric(const tile *t, const ranges *r, levels of, grid *best)
{
    grid g[SYMMETRIC_STARTS];
    const int step = of.high > MANY_LEVELS ? STRIDE : 1;
    int n = 0;
    for (int k = 0; k < SYMMETRIC_STARTS; k += step, n++) {
        float stretch = SYMMETRIC_FIRST - SYMMETRIC_STEP * (float)k;
        if (of.nf4) stretch *= NF4_STEP;
        grid_around(r, of, stretch, &g[n]);
        if (of.nf4 && k % 2) /* its levels are not as many on both sides */
            for (int l = 0; l < LANES; l += VEC) store(g[n].scale + l, -load(g[n].scale + l));
    }
    fit_from(t, r, of, false, g, n, best);
}

/* Rounds the grids [n] to f16 and measures them: s [n]. */
static void try_rounded(const tile *t, levels of, bool affine, grid *g, int n, sums *s, grid *best, float least[LANES])
{
    for (int k = 0; k < n; k++) {
        fit_scales_f16(g[k].scale);
        if (affine) fit_all_f16(g[k].minus);
    }
    fit_measure(t, g, n, of, s);
    for (int k = 0; k < n; k++) keep_better(&g[k], s[k].rr, best, least);
}

/* The grid of the range and the fitted one, rounded to f16, and what the latter becomes when it is fitted again. */
static void fit_scales(const tile *t, levels of, bool affine, grid *best)
{
    grid g[2];
    ranges r;
    sums s[2];
    float error[LANES], least[LANES];
    find_ranges(t, &r);
    if (affine) {
        grid_across(&r, of, 0, &g[0]);
        fit_affine(t, &r, of, &g[1]);
    } else {
        grid_around(&r, of, 0, &g[0]);
        fit_symmetric(t, &r, of, &g[1]);
    }
    forget(best, least);
    try_rounded(t, of, affine, g, 2, s, best, least);
    refit(r.weight, &s[1], affine, &g[1], error);
    try_rounded(t, of, affine, &g[1], 1, s, best, least);
}

/* ---- super-blocks --------------------------------------------------------------------------------------------------- */

static float sum_of(const float x[LANES])
{
    float a[4];
    for (int l = 0; l < 4; l++) a[l] = x[l] + x[l + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}

static float most_of(const float x[LANES])
{
    float most = 0;
    for (int l = 0; l < LANES; l++) most = fabsf(x[l]) > most ? fabsf(x[l]) : most;
    return most;
}

static void fit_super_grid(const super *s, int tile_index, grid *g)
{
    for (int l = 0; l < LANES; l += VEC) {
        store(g->scale + l, all(s->d) * load(s->scale[tile_index] + l));
        store(g->minus + l, all(s->m) * load(s->minus[tile_index] + l));
    }
}

/* For each lane the best multiples near s->scale: levels with the scale moved by -1, 0, 1, then the best minus for
 * those levels. */
static void better_multiples(const tile *t, const float weight[LANES], levels of, super *s)
{
    enum { MOVES = 3 };
    const vec zero = all(0), m = all(s->m), inverse_m = all(s->m > 0 ? 1.0f / s->m : 0.0f);
    super tried[MOVES];
    grid g[MOVES];
    sums sum[MOVES];
    for (int k = 0; k < MOVES; k++) {
        tried[k] = *s;
        for (int l = 0; l < LANES; l += VEC)
            store(tried[k].scale[0] + l, clamp(load(s->scale[0] + l) + all((float)(k - 1)), 0.0f, MULTIPLE_MOST));
        fit_super_grid(&tried[k], 0, &g[k]);
    }
    fit_measure(t, g, MOVES, of, sum);
    for (int l = 0; l < LANES; l += VEC) {
        vec best = all(INFINITY), scale = zero, minus = zero, w = load(weight + l);
        for (int k = 0; k < MOVES; k++) {
            vec r = load(sum[k].r + l), was = load(g[k].minus + l), b = CHOOSE(w > zero, -r / w, zero);
            vec multiple = rounded(clamp((was + b) * inverse_m, 0.0f, MULTIPLE_MOST));
            b = m * multiple - was;
            vec error = load(sum[k].rr + l) + all(2) * b * r + b * b * w;
            mask better = error < best;
            best = CHOOSE(better, error, best);
            scale = CHOOSE(better, load(tried[k].scale[0] + l), scale);
            minus = CHOOSE(better, multiple, minus);
        }
        store(s->scale[0] + l, scale);
        store(s->minus[0] + l, minus);
    }
}

/* Least squares for d and m over all lanes; the levels are those measured. */
static void refit_super_affine(const float weight[LANES], const sums *sum, super *s)
{
    float a[LANES], b[LANES], c[LANES], p[LANES], q[LANES];
    for (int l = 0; l < LANES; l += VEC) {
        vec scale = load(s->scale[0] + l), minus = load(s->minus[0] + l);
        store(a + l, scale * scale * load(sum->qq + l));
        store(b + l, scale * minus * load(sum->q + l));
        store(c + l, minus * minus * load(weight + l));
        store(p + l, scale * load(sum->rq + l));
        store(q + l, minus * load(sum->r + l));
    }
    float A = sum_of(a), B = sum_of(b), C = sum_of(c), P = sum_of(p), Q = sum_of(q), det = A * C - B * B;
    if (det > 0x1p-20f * A * C) {
        s->d += (P * C - B * Q) / det;
        s->m += (B * P - A * Q) / det;
    } else if (A > 0) {
        s->d += P / A;
    }
    s->d = scale_f16(s->d > 0 ? s->d : 0.0f);
    s->m = fit_f16(s->m > 0 ? s->m : 0.0f);
}

/* The multiples nearest to a grid. */
static void start_super(const grid *g, float low, float high, int tile_index, super *s)
{
    const vec inverse_d = all(s->d > 0 ? 1.0f / s->d : 0.0f), inverse_m = all(s->m > 0 ? 1.0f / s->m : 0.0f);
    for (int l = 0; l < LANES; l += VEC) {
        store(s->scale[tile_index] + l, rounded(clamp(load(g->scale + l) * inverse_d, low, high)));
        store(s->minus[tile_index] + l, rounded(clamp(load(g->minus + l) * inverse_m, 0.0f, high)));
    }
}

static void fit_super_affine(const tile *t, levels of, super *out)
{
    grid g[2];
    ranges r;
    float best = INFINITY;
    find_ranges(t, &r);
    grid_across(&r, of, 0, &g[0]);
    fit_affine(t, &r, of, &g[1]);
    *out = (super){0};
    for (int k = 0; k < 2; k++) {
        super s = {.d = scale_f16(most_of(g[k].scale) / MULTIPLE_MOST),
                   .m = scale_f16(most_of(g[k].minus) / MULTIPLE_MOST)};
        start_super(&g[k], 0.0f, MULTIPLE_MOST, 0, &s);
        for (int round = 0; round <= (k ? ROUNDS : 0); round++) {
            grid now;
            sums sum;
            if (k && round < ROUNDS) better_multiples(t, r.weight, of, &s);
            fit_super_grid(&s, 0, &now);
            fit_measure(t, &now, 1, of, &sum);
            float total = sum_of(sum.rr);
            if (total < best) {
                best = total;
                *out = s;
            }
            refit_super_affine(r.weight, &sum, &s);
        }
    }
}

/* Measures s; with `moves` first takes for each lane the best of its multiple and its neighbours. The cost; and for the
 * levels found the sums for a better d. */
static float measure_super(const tile *t, levels of, int moves, super *s, float *rq, float *qq)
{
    enum { TRIED_MOST = 3 };
    float total = 0;
    *rq = *qq = 0;
    for (int i = 0; i < 2; i++) {
        float multiple[TRIED_MOST][LANES], least[LANES], best_qq[LANES], best_rq[LANES];
        grid g[TRIED_MOST] = {0};
        sums sum[TRIED_MOST];
        const int n = 2 * moves + 1;
        for (int k = 0; k < n; k++)
            for (int l = 0; l < LANES; l += VEC) {
                vec to = clamp(load(s->scale[i] + l) + all((float)(k - moves)), -SIGNED_MOST - 1, SIGNED_MOST);
                store(multiple[k] + l, to);
                store(g[k].scale + l, all(s->d) * to);
            }
        fit_measure(&t[i], g, n, of, sum);
        for (int l = 0; l < LANES; l += VEC) {
            vec best = all(INFINITY), scale = all(0), b_qq = scale, b_rq = scale;
            for (int k = 0; k < n; k++) {
                vec error = load(sum[k].rr + l), x = load(multiple[k] + l);
                mask better = error < best;
                best = CHOOSE(better, error, best);
                scale = CHOOSE(better, x, scale);
                b_qq = CHOOSE(better, x * x * load(sum[k].qq + l), b_qq);
                b_rq = CHOOSE(better, x * load(sum[k].rq + l), b_rq);
            }
            store(least + l, best);
            store(s->scale[i] + l, scale);
            store(best_qq + l, b_qq);
            store(best_rq + l, b_rq);
        }
        total += sum_of(least);
        *qq += sum_of(best_qq);
        *rq += sum_of(best_rq);
    }
    return total;
}

static void fit_super_symmetric(const tile *t, levels of, super *out)
{
    grid g[2][2];
    float best = INFINITY;
    for (int i = 0; i < 2; i++) {
        ranges r;
        find_ranges(&t[i], &r);
        grid_around(&r, of, 0, &g[0][i]);
        fit_symmetric(&t[i], &r, of, &g[1][i]);
    }
    *out = (super){0};
    for (int k = 0; k < 2; k++) {
        float a = most_of(g[k][0].scale), b = most_of(g[k][1].scale);
        super s = {.d = scale_f16((a > b ? a : b) / SIGNED_MOST)};
        for (int i = 0; i < 2; i++) start_super(&g[k][i], -SIGNED_MOST - 1, SIGNED_MOST, i, &s);
        for (int round = 0; round < (k ? ROUNDS + 1 : 1); round++) {
            float rq, qq, total = measure_super(t, of, k && round < ROUNDS ? 1 : 0, &s, &rq, &qq);
            if (total < best) {
                best = total;
                *out = s;
            }
            if (qq > 0) s.d = scale_f16(s.d + rq / qq);
        }
    }
}

#define FIT_OPS                                                                                                        \
    {                                                                                                                  \
        fit_fill, fit_level_weights, fit_levels, fit_scales, fit_super_grid, fit_super_affine, fit_super_symmetric     \
    }

#endif
