/* Block quantisers: never worse than rounding to the range, never beyond what is promised, the same bytes everywhere.
 */
#include "store/quantize.h"
#include "store/quantize_fit.h"

#include <math.h>
#include <stdint.h>
#include <xxhash.h>

#include "test.h"

enum { COLS = 1024, ROWS = 6, MANY = 17 };

static const dtype types[] = {DT_Q8_0, DT_Q6_K, DT_Q5_K, DT_Q4_K, DT_Q5_1, DT_Q5_0, DT_Q4_1, DT_Q4_0, DT_NF4};
enum { TYPES = sizeof types / sizeof *types };

static uint64_t state;

static float uniform(void) /* [-1, 1) */
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(state >> 32) * 0x1p-31f;
}

static float normal(void) /* about: no libm, the same everywhere */
{
    float x = 0;
    for (int i = 0; i < 6; i++) x += uniform();
    return x * 0.7f;
}

typedef enum kind {
    NORMAL,
    HEAVY,
    ONE_SIDED,
    LARGE_OFFSET,
    FEW_LEVELS,
    CONSTANT,
    ONE_HOT,
    SMALL,
    HUGE_ROWS,
    KINDS
} kind;
static const char *const kind_names[] = {"normal",   "heavy-tailed", "one-sided", "offset", "few levels",
                                         "constant", "one-hot",      "small",     "huge"};

static void make(kind k, float *x, uint64_t n, uint64_t seed)
{
    state = seed;
    for (uint64_t i = 0; i < n; i++) {
        float u = normal();
        switch (k) {
        case HEAVY:
            x[i] = u * u * u * 0.1f;
            break;
        case ONE_SIDED:
            x[i] = fabsf(u);
            break;
        case LARGE_OFFSET:
            x[i] = -1.0f + 0.1f * u;
            break;
        case FEW_LEVELS:
            x[i] = 0.037f * (float)(int)(3.0f * u);
            break;
        case CONSTANT:
            x[i] = -0.731f;
            break;
        case ONE_HOT:
            x[i] = i % 97 == 5 ? 1.7f : 0.0f;
            break;
        case SMALL:
            x[i] = 1e-5f * u;
            break;
        case HUGE_ROWS:
            x[i] = 12000.0f * u;
            break;
        default:
            x[i] = 0.03f * u;
        }
    }
}

/* ---- what any quantiser does: scales from the range, then rounding ------------------------------------------------- */

static float f16(float x)
{
    return f16_to_f32(f16_from_f32(x));
}

static float to_grid(float x, float scale, float low, float high)
{
    float q = scale != 0 ? nearbyintf(x / scale) : 0;
    return scale * (q < low ? low : q > high ? high : q);
}

static void range_of(const float *x, uint32_t n, float *low, float *high)
{
    *low = *high = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i] < *low) *low = x[i];
        if (x[i] > *high) *high = x[i];
    }
}

static void naive_symmetric(const float *x, uint32_t n, float low, float high, float *y)
{
    float least, most;
    range_of(x, n, &least, &most);
    float d = f16((most > -least ? most : least) / low);
    for (uint32_t i = 0; i < n; i++) y[i] = to_grid(x[i], d, low, high);
}

static void naive_affine(const float *x, uint32_t n, float high, float *y)
{
    float least, most;
    range_of(x, n, &least, &most);
    float d = f16((most - least) / high), m = f16(least);
    for (uint32_t i = 0; i < n; i++) y[i] = m + to_grid(x[i] - m, d, 0, high);
}

static void naive_super(const float *x, float high, float *y)
{
    float low[8], wide[8], most_low = 0, most_wide = 0;
    for (int b = 0; b < 8; b++) {
        float least, most;
        range_of(x + 32 * b, 32, &least, &most);
        low[b] = -least;
        wide[b] = (most - least) / high;
        most_low = low[b] > most_low ? low[b] : most_low;
        most_wide = wide[b] > most_wide ? wide[b] : most_wide;
    }
    float d = f16(most_wide / 63), dm = f16(most_low / 63);
    for (int b = 0; b < 8; b++) {
        float scale = to_grid(wide[b], d, 0, 63), minus = to_grid(low[b], dm, 0, 63);
        for (int i = 0; i < 32; i++) y[32 * b + i] = to_grid(x[32 * b + i] + minus, scale, 0, high) - minus;
    }
}

static void naive_q6_k(const float *x, float *y)
{
    float scale[16], most_scale = 0;
    for (int b = 0; b < 16; b++) {
        float least, most;
        range_of(x + 16 * b, 16, &least, &most);
        scale[b] = (most > -least ? most : least) / -32;
        if (fabsf(scale[b]) > most_scale) most_scale = fabsf(scale[b]);
    }
    float d = f16(most_scale / 127);
    for (int i = 0; i < 256; i++) y[i] = to_grid(x[i], to_grid(scale[i / 16], d, -128, 127), -32, 31);
}

static void naive_nf4(const float *x, float *y)
{
    static const float level[16] = {-1.0f,        -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f,
                                    -0.09105004f, 0.0f,         0.07958030f,  0.16093020f,  0.24611230f,  0.33791524f,
                                    0.44070983f,  0.56261700f,  0.72295684f,  1.0f};
    float least, most;
    range_of(x, 64, &least, &most);
    float d = f16(most > -least ? most : -least);
    for (int i = 0; i < 64; i++) {
        int best = 7;
        for (int k = 0; k < 16; k++)
            if (fabsf(x[i] - d * level[k]) < fabsf(x[i] - d * level[best])) best = k;
        y[i] = d * level[best];
    }
}

static void naive(dtype t, const float *x, float *y)
{
    uint32_t n = dtype_table[t].block_elements;
    for (uint32_t at = 0; at < COLS; at += n) {
        if (t == DT_Q8_0) naive_symmetric(x + at, n, -127, 127, y + at);
        if (t == DT_Q5_0) naive_symmetric(x + at, n, -16, 15, y + at);
        if (t == DT_Q4_0) naive_symmetric(x + at, n, -8, 7, y + at);
        if (t == DT_Q5_1) naive_affine(x + at, n, 31, y + at);
        if (t == DT_Q4_1) naive_affine(x + at, n, 15, y + at);
        if (t == DT_Q5_K) naive_super(x + at, 31, y + at);
        if (t == DT_Q4_K) naive_super(x + at, 15, y + at);
        if (t == DT_Q6_K) naive_q6_k(x + at, y + at);
        if (t == DT_NF4) naive_nf4(x + at, y + at);
    }
}

static double cost(const float *x, const float *y, const float *w)
{
    double sum = 0;
    for (int i = 0; i < COLS; i++) {
        double e = (double)x[i] - (double)y[i];
        sum += (w ? (double)w[i] : 1.0) * e * e;
    }
    return sum;
}

/* What errors cost where nobody says: quantize.h. */
static void judge(dtype t, const float *x, float *w)
{
    int n = t == DT_Q6_K ? 16 : t == DT_NF4 ? 64 : 32;
    for (int at = 0; at < COLS; at += n) {
        double mean = 0;
        for (int i = 0; i < n; i++) mean += (double)x[at + i] * (double)x[at + i] / n;
        for (int i = 0; i < n; i++) w[at + i] = (float)(mean + (double)x[at + i] * (double)x[at + i]);
    }
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static float x[ROWS * COLS], y[COLS], z[COLS], importance[COLS], judged[COLS];
static uint8_t blocks[ROWS * COLS * 4], other[ROWS * COLS * 4];

static void never_worse(void)
{
    state = 5;
    for (int i = 0; i < COLS; i++) importance[i] = 0.001f + fabsf(normal() * normal());
    for (int i = 0; i < TYPES; i++) {
        dtype t = types[i];
        REQUIRE(quantize_can(t), "%s", dtype_name(t));
        for (int k = 0; k < KINDS; k++) {
            for (int weighted = 0; weighted < 2; weighted++) {
                double ours = 0, theirs = 0, plain = 0;
                quantize_cost c = {0};
                const float *w = weighted ? importance : NULL;
                make((kind)k, x, ROWS * COLS, 11 + (uint64_t)k);
                CHECK(quantize_rows(t, x, ROWS, COLS, w, blocks) == ROWS);
                for (int r = 0; r < ROWS; r++) {
                    quantize_widen(t, blocks + (size_t)r * dtype_row_bytes(t, COLS), COLS, y);
                    naive(t, x + r * COLS, z);
                    if (!weighted) judge(t, x + r * COLS, judged);
                    ours += cost(x + r * COLS, y, weighted ? w : judged);
                    theirs += cost(x + r * COLS, z, weighted ? w : judged);
                    plain += cost(x + r * COLS, y, w);
                }
                CHECK(ours <= theirs * (1 + 1e-6) + 1e-30, "%s, %s: %g is worse than %g", dtype_name(t), kind_names[k],
                      ours, theirs);
                CHECK(quantize_error(t, x, ROWS, COLS, w, other, &c) == ROWS);
                CHECK(fabs(c.error - plain) <= 1e-9 * plain, "%s: %g, reported %g", dtype_name(t), plain, c.error);
                if (k == NORMAL)
                    CHECK(ours < 0.93 * theirs, "%s: %g of %g: the search finds too little", dtype_name(t), ours,
                          theirs);
            }
        }
    }
}

/* Importance is what is heeded: with it the weighted error is less than without, and never the other way round. */
static void heeds_importance(void)
{
    state = 8;
    for (int i = 0; i < COLS; i++) {
        float u = normal();
        importance[i] = 0.001f + u * u * u * u;
    }
    make(NORMAL, x, COLS, 3);
    for (int i = 0; i < TYPES; i++) {
        CHECK(quantize_rows(types[i], x, 1, COLS, NULL, blocks) == 1);
        quantize_widen(types[i], blocks, COLS, y);
        CHECK(quantize_rows(types[i], x, 1, COLS, importance, other) == 1);
        quantize_widen(types[i], other, COLS, z);
        double with = cost(x, z, importance), without = cost(x, y, importance);
        CHECK(with < 0.95 * without, "%s: %g of %g", dtype_name(types[i]), with, without);
        CHECK(cost(x, z, NULL) > cost(x, y, NULL), "%s", dtype_name(types[i]));
        /* what multiplies all says nothing; nothing but zeros neither */
        for (int j = 0; j < COLS; j++) z[j] = importance[j] * 0x1p-60f;
        CHECK(quantize_rows(types[i], x, 1, COLS, z, blocks) == 1);
        CHECK(memcmp(blocks, other, dtype_row_bytes(types[i], COLS)) == 0, "%s", dtype_name(types[i]));
        memset(z, 0, sizeof z);
        CHECK(quantize_rows(types[i], x, 1, COLS, z, blocks) == 1);
        CHECK(quantize_rows(types[i], x, 1, COLS, NULL, other) == 1);
        CHECK(memcmp(blocks, other, dtype_row_bytes(types[i], COLS)) == 0, "%s", dtype_name(types[i]));
    }
}

static void extremes(void)
{
    for (int i = 0; i < TYPES; i++) {
        dtype t = types[i];
        memset(x, 0, sizeof x);
        CHECK(quantize_rows(t, x, 1, COLS, NULL, blocks) == 1);
        quantize_widen(t, blocks, COLS, y);
        for (int j = 0; j < COLS; j++) CHECK(y[j] == 0, "%s", dtype_name(t));
        for (int e = -149; e < 16; e++) { /* from the least denormal on */
            state = 77;
            float most = 0;
            for (int j = 0; j < COLS; j++) {
                x[j] = ldexpf(uniform(), e);
                most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
            }
            CHECK(quantize_rows(t, x, 1, COLS, NULL, blocks) == 1, "%s 2^%d", dtype_name(t), e);
            quantize_widen(t, blocks, COLS, y);
            float worst = 0;
            for (int j = 0; j < COLS; j++) worst = fabsf(y[j] - x[j]) > worst ? fabsf(y[j] - x[j]) : worst;
            CHECK(worst <= most * 0.2f + 0x1p-24f, "%s 2^%d: %g of %g", dtype_name(t), e, (double)worst, (double)most);
        }
    }
}

static void refuses(void)
{
    static const float wrong[] = {NAN, -NAN, INFINITY, -INFINITY, 3e38f, -1e12f};
    for (int i = 0; i < TYPES; i++) {
        for (int k = 0; k < (int)(sizeof wrong / sizeof *wrong); k++) {
            quantize_cost c = {0};
            make(NORMAL, x, ROWS * COLS, 1);
            x[3 * COLS + (k == 0 ? COLS - 1 : k * 7)] = wrong[k];
            CHECK(quantize_rows(types[i], x, ROWS, COLS, NULL, blocks) == 3, "%s %g", dtype_name(types[i]),
                  (double)wrong[k]);
            CHECK(quantize_error(types[i], x, ROWS, COLS, NULL, blocks, &c) == 3);
            CHECK(isfinite(c.error) && isfinite(c.power));
        }
    }
    CHECK(!quantize_can(DT_F32) && !quantize_can(DT_I8) && !quantize_can(DT_OTHER) && !quantize_can(DT_COUNT));
}

/* Rows alone or together, any number of blocks, any alignment: the same bytes; and the bytes are these, whatever the
 * machine and the compiler. */
static void same_everywhere(void)
{
    static const uint64_t expected[TYPES] = {0x25b25f44932120c3, 0xfcab54c66ec903c8, 0x0d7a6f17f9d7c88d,
                                             0x1459ab08f1549427, 0x19e3581ff2527b97, 0x4e86b7f3338fe616,
                                             0xa2a1056e96ba8e75, 0xbd3b5c565d408150, 0xf0d8ab36295f8d8a};
    static float shifted[ROWS * COLS + 1];
    for (int i = 0; i < TYPES; i++) {
        dtype t = types[i];
        uint32_t n = dtype_table[t].block_elements;
        size_t row_bytes = (size_t)dtype_row_bytes(t, COLS);
        XXH3_state_t *hash = XXH3_createState();
        REQUIRE(hash != NULL);
        XXH3_64bits_reset(hash);
        for (int k = 0; k < KINDS; k++) {
            make((kind)k, x, ROWS * COLS, 23 + (uint64_t)k);
            memcpy(shifted + 1, x, sizeof x);
            CHECK(quantize_rows(t, x, ROWS, COLS, k % 2 ? importance : NULL, blocks) == ROWS);
            for (int r = 0; r < ROWS; r++)
                CHECK(quantize_rows(t, shifted + 1 + r * COLS, 1, COLS, k % 2 ? importance : NULL,
                                    other + (size_t)r * row_bytes + 1) == 1);
            CHECK(memcmp(blocks, other + 1, ROWS * row_bytes) == 0, "%s", dtype_name(t));
            XXH3_64bits_update(hash, blocks, ROWS * row_bytes);
        }
        uint64_t found = XXH3_64bits_digest(hash);
        XXH3_freeState(hash);
        CHECK(found == expected[i], "%s: 0x%016llx", dtype_name(t), (unsigned long long)found);
        for (uint32_t blocks_of_row = 1; blocks_of_row < MANY && blocks_of_row * n <= COLS; blocks_of_row++) {
            CHECK(quantize_rows(t, x, 1, blocks_of_row * n, NULL, blocks) == 1);
            CHECK(quantize_rows(t, x, 1, n, NULL, other) == 1);
            CHECK(memcmp(blocks, other, dtype_table[t].block_bytes) == 0, "%s: a block depends on its neighbours",
                  dtype_name(t));
        }
    }
}

static void agrees(const fit_ops *level, const fit_ops *base)
{
    static const levels kinds[] = {{-127, 127, false}, {-32, 31, false}, {-8, 7, false}, {0, 15, false}, {-1, 1, true}};
    for (int round = 0; round < 200; round++) {
        static tile t[2];
        levels of = kinds[round % 5];
        bool affine = of.low == 0;
        state = 1000 + (uint64_t)round;
        for (int k = 0; k < 2; k++) {
            t[k].n = round % 5 == 1 ? 16 : 32;
            for (uint32_t i = 0; i < t[k].n; i++) {
                for (int l = 0; l < LANES; l++) {
                    t[k].x[i][l] = l == round % 9 ? 0 : normal() * ldexpf(1, round % 40 - 30);
                    t[k].w[i][l] = fabsf(normal());
                }
            }
        }
        grid a, b;
        uint8_t p[BLOCK_MAX][LANES], q[BLOCK_MAX][LANES];
        base->scales(t, of, affine, &a);
        level->scales(t, of, affine, &b);
        CHECK(!memcmp(&a, &b, sizeof a), "round %d", round);
        base->levels(t, &a, of, p);
        level->levels(t, &a, of, q);
        CHECK(!memcmp(p, q, t->n * sizeof *p), "round %d", round);
        if (of.nf4) continue;
        super one, two;
        memset(&one, 0, sizeof one);
        memset(&two, 0, sizeof two);
        (affine ? base->super_affine : base->super_symmetric)(t, of, &one);
        (affine ? level->super_affine : level->super_symmetric)(t, of, &two);
        CHECK(!memcmp(&one, &two, sizeof one), "round %d", round);
        base->super_grid(&one, 0, &a);
        level->super_grid(&one, 0, &b);
        CHECK(!memcmp(&a, &b, sizeof a), "round %d", round);
    }
}

/* What each level of instructions finds is what the slowest finds. */
static void levels_agree(void)
{
    const fit_ops *best = fit_best();
    agrees(best, &fit_baseline);
#if defined(__x86_64__)
    if (best == &fit_avx512) agrees(&fit_avx2, &fit_baseline);
    printf("  here: %s\n", best == &fit_avx512 ? "AVX-512, AVX2" : best == &fit_avx2 ? "AVX2" : "no AVX2");
#endif
}

TEST_MAIN(T(never_worse), T(heeds_importance), T(extremes), T(refuses), T(same_everywhere), T(levels_agree))
