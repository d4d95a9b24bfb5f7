/* The search for scales, for one level of instructions. The level's file defines VEC (lanes of a vector, a divisor of
 * LANES) and on vectors MOST(a, b), LEAST(a, b) as a > b ? a : b and a < b ? a : b, and CHOOSE(mask, a, b), and
 * beside(x, blocks, n, to), which puts element i of block b at to[i][b], and through_f16(x), which makes x [LANES] what
 * f16 makes of them; then it includes this and names what it got: FIT_OPS.
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
enum { AFFINE_STARTS = 9, SYMMETRIC_STARTS = 16, MANY_LEVELS = 100, STRIDE = 4, REFITS = 1, ROUNDS = 3 };

static inline float clampf(float x, float low, float high)
{
    x = x > low ? x : low;
    return x < high ? x : high;
}

static inline float rounded(float x)
{
    return x + MAGIC - MAGIC;
}

/* Each as the nearest number that f16 has. */
static void fit_all_f16(float x[LANES])
{
    for (int l = 0; l < LANES; l++) x[l] = clampf(x[l], -F16_MOST, F16_MOST);
    through_f16(x);
}

/* The same, but 0 only for 0: the least scale still says more than none. */
static void fit_scales_f16(float x[LANES])
{
    float was[LANES];
    memcpy(was, x, sizeof was);
    fit_all_f16(x);
    for (int l = 0; l < LANES; l++) x[l] = x[l] != 0 || was[l] == 0 ? x[l] : was[l] < 0 ? -0x1p-24f : 0x1p-24f;
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

ALWAYS_INLINE vec load(const float *x)
{
    vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

ALWAYS_INLINE vec all(float x)
{
    vec v;
    for (int i = 0; i < VEC; i++) v[i] = x;
    return v;
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
            memcpy(t->w[i] + l, &w, sizeof w);
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
                memcpy(t[k].w[i] + l, &w, sizeof w);
            }
}

/* ---- rounding ------------------------------------------------------------------------------------------------------- */

/* The nearest of the sixteen. Written out, so that lanes stay lanes. */
ALWAYS_INLINE vec nearest_of_nf4(vec x)
{
    vec v = all(nf4_levels[0]);
#define NEXT(k) v = CHOOSE(x > all(0.5f * (nf4_levels[k - 1] + nf4_levels[k])), all(nf4_levels[k]), v)
    NEXT(1), NEXT(2), NEXT(3), NEXT(4), NEXT(5), NEXT(6), NEXT(7), NEXT(8);
    NEXT(9), NEXT(10), NEXT(11), NEXT(12), NEXT(13), NEXT(14), NEXT(15);
#undef NEXT
    return v;
}

static uint8_t nearest_nf4_index(float x)
{
    uint8_t k = 0;
    while (k < 15 && x > 0.5f * (nf4_levels[k] + nf4_levels[k + 1])) k++;
    return k;
}

/* 1 / scale, or 0 where that says nothing: all elements then take level 0. */
static void inverses(const float scale[LANES], float inverse[LANES])
{
    for (int l = 0; l < LANES; l++) inverse[l] = fabsf(scale[l]) > 0x1p-60f ? 1.0f / scale[l] : 0.0f;
}

typedef struct sums { /* of each lane, over its elements; q: the nearest level, r = x - value */
    float q[LANES], qq[LANES], r[LANES], rq[LANES], rr[LANES]; /* w q, w q^2, w r, w r q, w r^2 */
} sums;

/* Rounds every element to its grid: what that costs, and what is needed to better the grid. Here the time goes. */
ALWAYS_INLINE void measure(const tile *t, const grid *g, levels of, bool affine, bool nf4, sums *out)
{
    float inverse[LANES];
    const vec low = all(of.low), high = all(of.high), magic = all(MAGIC);
    const uint32_t n = t->n;
    inverses(g->scale, inverse);
    for (int l = 0; l < LANES; l += VEC) {
        const vec scale = load(g->scale + l), minus = load(g->minus + l), over = load(inverse + l);
        vec q = all(0), qq = q, r = q, rq = q, rr = q;
        for (uint32_t i = 0; i < n; i++) {
            vec x = affine ? load(t->x[i] + l) + minus : load(t->x[i] + l), w = load(t->w[i] + l), at = x * over, level;
            if (nf4)
                level = nearest_of_nf4(at);
            else
                level = LEAST(MOST(at, low), high) + magic - magic;
            vec rest = x - scale * level, w_level = w * level, w_rest = w * rest;
            if (affine) q += w_level, r += w_rest;
            qq += w_level * level;
            rq += w_rest * level;
            rr += w_rest * rest;
        }
        memcpy(out->q + l, &q, sizeof q);
        memcpy(out->qq + l, &qq, sizeof q);
        memcpy(out->r + l, &r, sizeof q);
        memcpy(out->rq + l, &rq, sizeof q);
        memcpy(out->rr + l, &rr, sizeof q);
    }
}

/* Symmetric grids have no minus: then q and r of the sums are 0. */
static void fit_measure(const tile *t, const grid *g, levels of, sums *out)
{
    if (of.nf4)
        measure(t, g, of, false, true, out);
    else if (of.low < 0)
        measure(t, g, of, false, false, out);
    else
        measure(t, g, of, true, false, out);
}

static void nf4_levels_of(const tile *t, const float inverse[LANES], uint8_t q[BLOCK_MAX][LANES])
{
    for (uint32_t i = 0; i < t->n; i++)
        for (int l = 0; l < LANES; l++) q[i][l] = nearest_nf4_index(t->x[i][l] * inverse[l]);
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
    for (int l = 0; l < LANES; l++) {
        bool better = error[l] < best_error[l];
        best->scale[l] = better ? g->scale[l] : best->scale[l];
        best->minus[l] = better ? g->minus[l] : best->minus[l];
        best_error[l] = better ? error[l] : best_error[l];
    }
}

/* Least squares for the levels just measured: r = a q - b, b being added to minus, which stays >= 0. error: what would
 * be left with these levels. */
static void refit_affine(const float weight[LANES], const sums *s, grid *g, float error[LANES])
{
    for (int l = 0; l < LANES; l++) {
        float det = weight[l] * s->qq[l] - s->q[l] * s->q[l];
        bool plane = det > 0x1p-20f * weight[l] * s->qq[l]; /* else all are of one level */
        float a = plane ? (weight[l] * s->rq[l] - s->q[l] * s->r[l]) / det : 0.0f;
        float b = plane ? (s->q[l] * s->rq[l] - s->qq[l] * s->r[l]) / det : -s->r[l] / weight[l];
        bool inside = g->minus[l] + b >= 0.0f;
        b = inside ? b : -g->minus[l];
        float rq = s->rq[l] + b * s->q[l], rr = s->rr[l] + 2.0f * b * s->r[l] + b * b * weight[l];
        a = inside ? a : s->qq[l] > 0.0f ? rq / s->qq[l] : 0.0f;
        error[l] = rr - 2.0f * a * rq + a * a * s->qq[l];
        g->scale[l] += a;
        g->minus[l] += b;
    }
}

static void refit_symmetric(const sums *s, grid *g, float error[LANES])
{
    for (int l = 0; l < LANES; l++) {
        float a = s->qq[l] > 0.0f ? s->rq[l] / s->qq[l] : 0.0f;
        error[l] = s->rr[l] - a * s->rq[l];
        g->scale[l] += a;
    }
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
        memcpy(out->low + l, &low, sizeof low);
        memcpy(out->high + l, &high, sizeof low);
        memcpy(out->weight + l, &weight, sizeof low);
    }
    for (int l = 0; l < LANES; l++)
        if (!(out->weight[l] > 0)) out->weight[l] = 1; /* lanes that nobody heeds */
}

/* The grid whose outermost levels are `stretch` levels beyond the outermost elements; negative: within. */
static void grid_across(const ranges *r, levels of, float stretch, grid *g)
{
    for (int l = 0; l < LANES; l++) {
        float range = r->high[l] - r->low[l];
        g->scale[l] = range > NOTHING ? range / (of.high - stretch) : 0.0f;
        g->minus[l] = -r->low[l];
    }
}

/* The same around 0: the farthest element takes the lowest level, which is the farthest. */
static void grid_around(const ranges *r, levels of, float stretch, grid *g)
{
    for (int l = 0; l < LANES; l++) {
        float most = r->high[l] > -r->low[l] ? r->high[l] : r->low[l];
        g->scale[l] = fabsf(most) > NOTHING ? most / (of.low + stretch) : 0.0f;
        g->minus[l] = 0;
    }
}

static void forget(grid *best, float error[LANES])
{
    for (int l = 0; l < LANES; l++) {
        best->scale[l] = best->minus[l] = 0;
        error[l] = INFINITY;
    }
}

/* The best grids of any scale and minus. */
static void fit_affine(const tile *t, const ranges *r, levels of, grid *best)
{
    grid g;
    sums s;
    float e[LANES], error[LANES];
    forget(best, error);
    for (int k = 0; k < AFFINE_STARTS; k++) {
        grid_across(r, of, AFFINE_FIRST - AFFINE_STEP * (float)k, &g);
        fit_measure(t, &g, of, &s);
        refit_affine(r->weight, &s, &g, e);
        keep_better(&g, e, best, error);
    }
    g = *best;
    for (int k = 0; k < REFITS; k++) {
        fit_measure(t, &g, of, &s);
        refit_affine(r->weight, &s, &g, e);
        keep_better(&g, e, best, error);
    }
}

static void fit_symmetric(const tile *t, const ranges *r, levels of, grid *best)
{
    grid g;
    sums s;
    float e[LANES], error[LANES];
    forget(best, error);
    for (int k = 0; k<SYMMETRIC_STARTS; k += of.high> MANY_LEVELS ? STRIDE : 1) {
        float stretch = SYMMETRIC_FIRST - SYMMETRIC_STEP * (float)k;
        if (of.nf4) stretch *= NF4_STEP;
        grid_around(r, of, stretch, &g);
        if (of.nf4 && k % 2) /* its levels are not as many on both sides */
            for (int l = 0; l < LANES; l++) g.scale[l] = -g.scale[l];
        fit_measure(t, &g, of, &s);
        refit_symmetric(&s, &g, e);
        keep_better(&g, e, best, error);
    }
    g = *best;
    for (int k = 0; k < REFITS; k++) {
        fit_measure(t, &g, of, &s);
        refit_symmetric(&s, &g, e);
        keep_better(&g, e, best, error);
    }
}

/* The fitted grid and that of the range, rounded to f16, the better one fitted again. */
static void fit_scales(const tile *t, levels of, bool affine, grid *best)
{
    grid fitted, g;
    ranges r;
    float error[LANES], least[LANES];
    find_ranges(t, &r);
    if (affine)
        fit_affine(t, &r, of, &fitted);
    else
        fit_symmetric(t, &r, of, &fitted);
    forget(best, least);
    if (affine)
        grid_across(&r, of, 0, &g);
    else
        grid_around(&r, of, 0, &g);
    for (int k = 0; k < 3; k++) {
        sums s;
        fit_scales_f16(g.scale);
        if (affine) fit_all_f16(g.minus);
        fit_measure(t, &g, of, &s);
        keep_better(&g, s.rr, best, least);
        if (affine)
            refit_affine(r.weight, &s, &g, error);
        else
            refit_symmetric(&s, &g, error);
        if (k == 0) g = fitted;
    }
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
    for (int l = 0; l < LANES; l++) {
        g->scale[l] = s->d * s->scale[tile_index][l];
        g->minus[l] = s->m * s->minus[tile_index][l];
    }
}

/* For each lane the best multiples near s->scale: levels with the scale moved by -1, 0, 1, then the best minus for
 * those levels. */
static void better_multiples(const tile *t, const float weight[LANES], levels of, super *s)
{
    float best[LANES], inverse_m = s->m > 0 ? 1.0f / s->m : 0.0f;
    super start = *s;
    for (int l = 0; l < LANES; l++) best[l] = INFINITY;
    for (int move = -1; move <= 1; move++) {
        super tried = start;
        grid g;
        sums sum;
        for (int l = 0; l < LANES; l++)
            tried.scale[0][l] = clampf(start.scale[0][l] + (float)move, 0.0f, MULTIPLE_MOST);
        fit_super_grid(&tried, 0, &g);
        fit_measure(t, &g, of, &sum);
        for (int l = 0; l < LANES; l++) {
            float b = weight[l] > 0 ? -sum.r[l] / weight[l] : 0.0f;
            float minus = rounded(clampf((g.minus[l] + b) * inverse_m, 0.0f, MULTIPLE_MOST));
            b = s->m * minus - g.minus[l];
            float error = sum.rr[l] + 2.0f * b * sum.r[l] + b * b * weight[l];
            bool better = error < best[l];
            best[l] = better ? error : best[l];
            s->scale[0][l] = better ? tried.scale[0][l] : s->scale[0][l];
            s->minus[0][l] = better ? minus : s->minus[0][l];
        }
    }
}

/* Least squares for d and m over all lanes; the levels are those measured. */
static void refit_super_affine(const float weight[LANES], const sums *sum, super *s)
{
    float a[LANES], b[LANES], c[LANES], p[LANES], q[LANES];
    for (int l = 0; l < LANES; l++) {
        float scale = s->scale[0][l], minus = s->minus[0][l];
        a[l] = scale * scale * sum->qq[l];
        b[l] = scale * minus * sum->q[l];
        c[l] = minus * minus * weight[l];
        p[l] = scale * sum->rq[l];
        q[l] = minus * sum->r[l];
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
    float inverse_d = s->d > 0 ? 1.0f / s->d : 0.0f, inverse_m = s->m > 0 ? 1.0f / s->m : 0.0f;
    for (int l = 0; l < LANES; l++) {
        s->scale[tile_index][l] = rounded(clampf(g->scale[l] * inverse_d, low, high));
        s->minus[tile_index][l] = rounded(clampf(g->minus[l] * inverse_m, 0.0f, high));
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
            fit_measure(t, &now, of, &sum);
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
    float total = 0;
    *rq = *qq = 0;
    super start = *s;
    for (int i = 0; i < 2; i++) {
        float least[LANES], best_qq[LANES] = {0}, best_rq[LANES] = {0};
        for (int l = 0; l < LANES; l++) least[l] = INFINITY;
        for (int move = -moves; move <= moves; move++) {
            grid g = {0};
            sums sum;
            float multiple[LANES];
            for (int l = 0; l < LANES; l++) {
                multiple[l] = clampf(start.scale[i][l] + (float)move, -SIGNED_MOST - 1, SIGNED_MOST);
                g.scale[l] = s->d * multiple[l];
            }
            fit_measure(&t[i], &g, of, &sum);
            for (int l = 0; l < LANES; l++) {
                bool better = sum.rr[l] < least[l];
                least[l] = better ? sum.rr[l] : least[l];
                s->scale[i][l] = better ? multiple[l] : s->scale[i][l];
                best_qq[l] = better ? multiple[l] * multiple[l] * sum.qq[l] : best_qq[l];
                best_rq[l] = better ? multiple[l] * sum.rq[l] : best_rq[l];
            }
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
