/* Every level of this machine against the scalar specification, bit for bit, operation by operation; the specification
 * against naive sums in double, within derived bounds. `test_backend_kernels --speed [level [threads]]` measures. */
#include "levels.h"

#include "base/os.h"
#include "speed.h"

/* ---- products ----------------------------------------------------------------------------------------------------- */

typedef struct product_case {
    dtype type;
    uint64_t rows, k;
    uint32_t n; /* token rows at most */
    bool special;
    uint32_t misalign; /* bytes between the end of the weights and the end of the page */
} product_case;

/* expected [n, rows], by the specification. */
static void product_reference(const product_case *c, const matrix_rows *w, const float *x, float *expected)
{
    float *row = take(c->k * 4);
    for (uint64_t r = 0; r < c->rows; r++) {
        for (uint64_t i = 0; i < c->k; i++) row[i] = spec_weight(w, r, i);
        for (uint32_t t = 0; t < c->n; t++) expected[t * c->rows + r] = spec_dot(row, x + t * c->k, c->k);
    }
    free(row);
}

/* n token rows from row t0 on, the weights' rows in chunks of `chunk`. */
static void product_once(backend *b, const product_case *c, const matrix_rows *w, const float *x, uint32_t t0,
                         uint32_t n, uint64_t chunk, const float *expected)
{
    uint64_t stride = c->rows + 3;
    float *y = take(n * stride * 4);
    void *packed = take(b->ops->packed_bytes(b, n, c->k));
    for (uint64_t i = 0; i < n * stride; i++) y[i] = 123.0f;
    b->ops->pack(b, x + t0 * c->k, n, c->k, packed);
    for (uint64_t r = 0; r < c->rows; r += chunk) {
        matrix_rows m = rows_from(w, r, c->rows - r < chunk ? c->rows - r : chunk);
        b->ops->apply(b, &m, packed, n, y + r, stride);
    }
    bool same = true, clean = true;
    for (uint32_t t = 0; t < n; t++) {
        same = same && first_difference(y + t * stride, expected + (t0 + t) * c->rows, c->rows) == c->rows;
        for (uint64_t i = c->rows; i < stride; i++) clean = clean && y[t * stride + i] == 123.0f;
    }
    CHECK(same && clean, "%s %s %llux%llu, %u rows from %u, chunks of %llu%s%s", backend_cpu_isa(b),
          dtype_name(c->type), (unsigned long long)c->rows, (unsigned long long)c->k, n, t0, (unsigned long long)chunk,
          c->special ? ", specials" : "", clean ? "" : ", wrote outside");
    free(y);
    free(packed);
}

static void product(const product_case *c)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 5, 6, 7, 13, 64, 270, 600};
    uint64_t bytes = dtype_row_bytes(c->type, c->k) * c->rows;
    guarded g = guarded_new(bytes + c->misalign);
    uint8_t *w = g.base + g.bytes - bytes - c->misalign;
    float *x = take(c->n * c->k * 4), *expected = take(c->n * c->rows * 4);
    fill_weights(c->type, w, bytes, c->special);
    fill_floats(x, c->n * c->k, c->special);
    matrix_rows m = {.type = c->type, .data = w, .n_rows = c->rows, .cols = c->k};
    beside side = beside_new(&m, c->special);
    product_reference(c, &m, x, expected);
    for (size_t i = 0; i < n_backends; i++)
        for (size_t j = 0; j < sizeof counts / sizeof *counts && counts[j] <= c->n; j++) {
            if (threads_of(i) != 2 && counts[j] != 3 && counts[j] != 13) continue;
            uint32_t t0 = random_below(c->n - counts[j] + 1);
            uint64_t chunk = random_below(2) ? c->rows : 1 + random_below((uint32_t)c->rows);
            product_once(backends[i], c, &m, x, t0, counts[j], chunk, expected);
        }
    guarded_free(g);
    beside_free(side);
    free(x);
    free(expected);
}

static void products_are_the_specification(void)
{
    static const uint64_t sizes[] = {1,   2,   15,  16,  17,  31,   32,   33,   47,   64,   96,  127,
                                     256, 480, 511, 512, 513, 1023, 1024, 1056, 1280, 2081, 2304};
    for (dtype type = 0; type < block_types; type++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            product_case c = {.type = type, .rows = 1 + random_below(41), .k = sizes[i], .n = 13};
            if (!dtype_row_ok(type, c.k)) continue;
            product(&c);
            c.special = true;
            c.misalign = 1;
            c.rows = 1 + random_below(9);
            product(&c);
        }
}

static void products_of_many_rows(void)
{
    for (dtype type = 0; type < block_types; type++) {
        bool of_32 = dtype_row_ok(type, 32);
        product(&(product_case){.type = type, .rows = 150, .k = of_32 ? 1056 : 1280, .n = 64, .misalign = 3});
        product(&(product_case){.type = type, .rows = 5, .k = of_32 ? 32 : 256, .n = 600});
    }
    product(&(product_case){.type = DT_BF16, .rows = 67, .k = 2079, .n = 64, .misalign = 1});
    product(&(product_case){.type = DT_F32, .rows = 300, .k = 40, .n = 270, .misalign = 2});
}

static void widen_is_the_specification(void)
{
    for (dtype type = 0; type < block_types; type++)
        for (uint64_t k = 1; k <= 768; k += k < 160 ? 1 : 32) {
            enum { ROWS = 3, MOST = 768 };
            if (!dtype_row_ok(type, k)) continue;
            uint64_t row = dtype_row_bytes(type, k), bytes = row * ROWS;
            guarded g = guarded_new(bytes + 1), out = guarded_new(ROWS * k * 4);
            uint8_t *w = g.base + g.bytes - bytes - k % 2;
            float *x = (float *)(void *)(out.base + out.bytes) - ROWS * k, expected[ROWS * MOST];
            fill_weights(type, w, bytes, k % 3 == 0);
            matrix_rows m = {.type = type, .data = w, .n_rows = ROWS, .cols = k};
            beside side = beside_new(&m, k % 3 == 0);
            for (uint64_t i = 0; i < ROWS * k; i++) expected[i] = spec_weight(&m, i / k, i % k);
            for (size_t i = 0; i < n_backends; i++) {
                backends[i]->ops->widen(backends[i], &m, x);
                CHECK_SAME(x, expected, ROWS * k, "%s %s k %llu", backend_cpu_isa(backends[i]), dtype_name(type),
                           (unsigned long long)k);
            }
            guarded_free(g);
            guarded_free(out);
            beside_free(side);
        }
}

typedef struct columns_case {
    dtype type;
    uint64_t rows, cols;
    uint32_t n;
    bool special;
} columns_case;

/* Chains over rows, as apply_columns says. */
static void columns_reference(const matrix_rows *w, const float *x, uint64_t x_stride, uint32_t n, float *y,
                              uint64_t stride)
{
    for (uint64_t c = 0; c < w->cols; c++)
        for (uint64_t r = 0; r < w->n_rows; r++) {
            float element = spec_weight(w, r, c);
            for (uint32_t t = 0; t < n; t++) y[t * stride + c] = fmaf(element, x[t * x_stride + r], y[t * stride + c]);
        }
}

static void columns(const columns_case *c)
{
    uint64_t bytes = dtype_row_bytes(c->type, c->cols) * c->rows, x_stride = c->rows + 3, stride = c->cols + 5;
    guarded g = guarded_new(bytes + 1);
    uint8_t *w = g.base + g.bytes - bytes - c->n % 2;
    float *x = take(c->n * x_stride * 4), *begin = take(c->n * stride * 4), *want = take(c->n * stride * 4);
    guarded out = guarded_new(c->n * stride * 4);
    float *y = (float *)(void *)(out.base + out.bytes) - c->n * stride + 5;
    fill_weights(c->type, w, bytes, c->special);
    fill_floats(x, c->n * x_stride, c->special);
    fill_floats(begin, c->n * stride, false);
    matrix_rows m = {.type = c->type, .data = w, .n_rows = c->rows, .cols = c->cols};
    beside side = beside_new(&m, c->special);
    memcpy(want, begin, c->n * stride * 4);
    columns_reference(&m, x, x_stride, c->n, want, stride);
    for (size_t i = 0; i < n_backends; i++) {
        uint64_t chunk = random_below(2) ? c->rows : 1 + random_below((uint32_t)c->rows);
        memcpy(y, begin, (c->n * stride - 5) * 4);
        for (uint64_t r = 0; r < c->rows; r += chunk) {
            matrix_rows part = rows_from(&m, r, c->rows - r < chunk ? c->rows - r : chunk);
            backends[i]->ops->apply_columns(backends[i], &part, x + r, x_stride, c->n, y, stride);
        }
        CHECK_SAME(y, want, c->n * stride - 5, "columns of %s %llux%llu, %u rows on %s", dtype_name(c->type),
                   (unsigned long long)c->rows, (unsigned long long)c->cols, c->n, backend_cpu_isa(backends[i]));
    }
    guarded_free(g);
    guarded_free(out);
    beside_free(side);
    free(x), free(begin), free(want);
}

static void columns_are_the_specification(void)
{
    static const uint64_t sizes[] = {1, 15, 16, 17, 32, 63, 64, 96, 129, 256, 480, 512, 513, 768, 1056, 2048};
    static const uint32_t counts[] = {1, 2, 3, 5, 6, 7, 13};
    for (dtype type = 0; type < block_types; type++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            columns_case c = {.type = type, .rows = 1 + random_below(70), .cols = sizes[i]};
            c.n = counts[random_below(sizeof counts / sizeof *counts)];
            if (!dtype_row_ok(type, c.cols)) continue;
            columns(&c);
            c.n = 1;
            c.special = true;
            columns(&c);
        }
}

static void row_norms_are_the_specification(void)
{
    static const uint64_t sizes[] = {1, 17, 32, 96, 256, 1000, 1024, 1056, 1280, 2112, 2560};
    for (dtype type = 0; type < block_types; type++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            enum { ROWS = 9 };
            uint64_t k = sizes[i], row = dtype_row_bytes(type, k);
            if (!dtype_row_ok(type, k)) continue;
            guarded g = guarded_new(row * ROWS);
            uint8_t *w = g.base + g.bytes - row * ROWS;
            fill_weights(type, w, row * ROWS, i % 3 == 2);
            memset(w, type == DT_NF4_PAIRS ? 0x77 : 0, row); /* nothing but zeros, or least numbers */
            matrix_rows m = {.type = type, .data = w, .n_rows = ROWS, .cols = k};
            beside side = beside_new(&m, false);
            float *x = take(k * 4), want[ROWS], got[ROWS];
            for (uint64_t r = 0; r < ROWS; r++) {
                for (uint64_t c = 0; c < k; c++) x[c] = spec_weight(&m, r, c);
                want[r] = sqrtf(spec_sum_squares(x, k));
                if (want[r] < 1e-12f) want[r] = 1e-12f;
            }
            CHECK(want[0] == 1e-12f, "a row of zeros");
            for (size_t b = 0; b < n_backends; b++) {
                backends[b]->ops->row_norms(backends[b], &m, got);
                CHECK_SAME(got, want, ROWS, "norms of %s rows of %llu on %s", dtype_name(type), (unsigned long long)k,
                           backend_cpu_isa(backends[b]));
            }
            free(x);
            guarded_free(g);
            beside_free(side);
        }
}

/* The specification against sums in double. The bound: each lane adds ceil(k / 16) rounded terms, the tree 4 more. */
static void dot_is_a_dot_product(void)
{
    double worst = 0;
    for (int round = 0; round < 200; round++) {
        uint64_t k = 1 + random_below(3000);
        float *w = take(k * 4), *x = take(k * 4);
        double sum = 0, size = 0;
        fill_floats(w, k, false);
        fill_floats(x, k, false);
        for (uint64_t i = 0; i < k; i++) {
            sum += (double)w[i] * (double)x[i];
            size += fabs((double)w[i] * (double)x[i]);
        }
        double error = fabs((double)spec_dot(w, x, k) - sum);
        double bound = ((double)((k + 15) / 16) + 4) * 0x1p-24 * size * 1.01;
        if (error / bound > worst) worst = error / bound;
        CHECK(error <= bound, "k %llu: error %g, bound %g", (unsigned long long)k, error, bound);
        free(w);
        free(x);
    }
    printf("  worst error over its bound: %.3f\n", worst);
}

static float element(dtype type, const uint8_t *row, uint64_t i)
{
    return spec_weight(&(matrix_rows){.type = type, .data = row}, 0, i);
}

/* Known blocks of the quantised types, by their definition. */
static void blocks_have_their_values(void)
{
    uint8_t q8[34] = {0}, q40[18] = {0}, q41[20] = {0};
    uint16_t d = f16_from_f32(0.5f), m = f16_from_f32(-3.0f);
    memcpy(q8, &d, 2);
    memcpy(q40, &d, 2);
    memcpy(q41, &d, 2);
    memcpy(q41 + 2, &m, 2);
    q8[2] = 0x80, q8[33] = 127;
    q40[2] = 0xf0, q40[17] = 0x3c;
    q41[4] = 0xf0, q41[19] = 0x3c;
    CHECK(element(DT_Q8_0, q8, 0) == -64.0f && element(DT_Q8_0, q8, 31) == 63.5f, "q8_0");
    CHECK(element(DT_Q4_0, q40, 0) == -4.0f && element(DT_Q4_0, q40, 16) == 3.5f, "q4_0 ends of the first byte");
    CHECK(element(DT_Q4_0, q40, 15) == 2.0f && element(DT_Q4_0, q40, 31) == -2.5f, "q4_0 last byte");
    CHECK(element(DT_Q4_1, q41, 0) == -3.0f && element(DT_Q4_1, q41, 16) == 4.5f, "q4_1 first byte");
    CHECK(element(DT_Q4_1, q41, 15) == 3.0f && element(DT_Q4_1, q41, 31) == -1.5f, "q4_1 last byte");
}

/* Every code of the 8-bit types and every code by every scale of mxfp4, by the formats' definitions (OCP OFP8 and OCP
 * Microscaling Formats 1.0). */
static void codes_have_their_values(void)
{
    static const double fp4[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    const float two = 2.0f;
    for (uint32_t code = 0; code < 256; code++) {
        uint8_t c = (uint8_t)code;
        double sign = code & 128 ? -1 : 1;
        int e = code >> 3 & 15, m = code & 7, e5 = code >> 2 & 31, m2 = code & 3;
        double e4m3 = e ? ldexp(1 + m / 8.0, e - 7) : ldexp(m / 8.0, -6);
        double e5m2 = e5 ? ldexp(1 + m2 / 4.0, e5 - 15) : ldexp(m2 / 4.0, -14);
        matrix_rows w = {.type = DT_F8_E4M3, .data = &c, .n_rows = 1, .cols = 1, .scale_rows = 1, .scale_cols = 32};
        float plain = spec_weight(&w, 0, 0);
        w.scales = &two;
        float twice = spec_weight(&w, 0, 0);
        if (e == 15 && m == 7)
            CHECK(isnan(plain) && isnan(twice), "e4m3 %02x", code);
        else
            CHECK((double)plain == sign * e4m3 && (double)twice == 2 * sign * e4m3, "e4m3 %02x is %a", code,
                  (double)plain);
        plain = element(DT_F8_E5M2, &c, 0);
        if (e5 == 31)
            CHECK(m2 ? isnan(plain) : plain == (float)sign * INFINITY, "e5m2 %02x", code);
        else
            CHECK((double)plain == sign * e5m2, "e5m2 %02x is %a", code, (double)plain);
        for (uint32_t q = 0; q < 16; q++) {
            uint8_t block[17] = {c, (uint8_t)q, (uint8_t)(q << 4)}, pairs[16] = {(uint8_t)q, (uint8_t)(q << 4)};
            matrix_rows p = {.type = DT_MXFP4_PAIRS, .data = pairs, .n_rows = 1, .cols = 32, .side = &c};
            float want = (float)ldexp(q & 8 ? -fp4[q & 7] : fp4[q & 7], (int)code - 127);
            CHECK(element(DT_MXFP4, block, 0) == want && element(DT_MXFP4, block, 17) == want, "mxfp4 %u %u", code, q);
            CHECK(spec_weight(&p, 0, 0) == want && spec_weight(&p, 0, 3) == want, "pairs %u %u", code, q);
        }
    }
}

/* ---- functions ---------------------------------------------------------------------------------------------------- */

/* The distance of `got` from the true value in units of the last place of its f32. */
static double ulps(float got, double truth)
{
    int e;
    frexp(truth, &e);
    return fabs((double)got - truth) / ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

static void exp_is_within_an_ulp(void)
{
    double worst = 0;
    for (uint64_t u = 0; u < 1ull << 32; u += 4099) {
        float x = of_bits((uint32_t)u);
        float y = spec_expf(x);
        if (isnan(x)) {
            CHECK(isnan(y), "exp(NaN)");
        } else if (x > 88.722839f) {
            CHECK(y == INFINITY, "exp(%a) = %a", (double)x, (double)y);
        } else if (ulps(y, exp((double)x)) > worst) {
            worst = ulps(y, exp((double)x));
        }
    }
    printf("  exp: %.4f ulp, bound 1\n", worst);
    CHECK(worst <= 1.0, "exp is off by %g ulp", worst);
    CHECK(spec_expf(0.0f) == 1.0f && spec_expf(-INFINITY) == 0.0f && spec_expf(INFINITY) == INFINITY, "ends");
    CHECK(spec_expf(-103.0f) > 0.0f && spec_expf(-104.1f) == 0.0f, "denormals");
}

static void log_and_angles_are_rounded(void)
{
    double worst_log = 0, worst_angle = 0;
    for (uint64_t u = 1; u < 0x7f800000u; u += 4099) {
        float x = of_bits((uint32_t)u);
        double l = x == 1.0f ? 0 : ulps(spec_logf(x), log((double)x));
        if (l > worst_log) worst_log = l;
        sine_cosine v = spec_sincosf(x);
        if (!(x < 0x1p+32f)) {
            CHECK(isnan(v.sin) && isnan(v.cos), "sin(%a)", (double)x);
            continue;
        }
        double s = ulps(v.sin, sin((double)x)), c = ulps(v.cos, cos((double)x));
        if (s > worst_angle) worst_angle = s;
        if (c > worst_angle) worst_angle = c;
    }
    /* half an ulp, and what the double's own error adds */
    printf("  log: %.6f ulp, sin and cos: %.6f ulp, bound 0.501\n", worst_log, worst_angle);
    CHECK(worst_log <= 0.501 && worst_angle <= 0.501, "more than half an ulp");
    CHECK(spec_logf(1.0f) == 0.0f && spec_logf(0.0f) == -INFINITY && isnan(spec_logf(-1.0f)), "ends of log");
    CHECK(spec_logf(INFINITY) == INFINITY && isnan(spec_logf(NAN)), "log of infinity and NaN");
    sine_cosine zero = spec_sincosf(0.0f);
    CHECK(zero.sin == 0.0f && zero.cos == 1.0f, "angle 0");
}

static void tanh_and_erf_are_within_bounds(void)
{
    double worst_tanh = 0, worst_erf = 0;
    for (uint64_t u = 0; u < 0x7f800000u; u += 1021) {
        float x = of_bits((uint32_t)u), t = spec_tanhf(x), e = spec_erff(x);
        double of_t = x == 0.0f ? 0 : ulps(t, tanh((double)x)), of_e = x == 0.0f ? 0 : ulps(e, erf((double)x));
        if (of_t > worst_tanh) worst_tanh = of_t;
        if (of_e > worst_erf) worst_erf = of_e;
        CHECK(bits_of(spec_tanhf(-x)) == bits_of(-t) && bits_of(spec_erff(-x)) == bits_of(-e), "odd at %a", (double)x);
    }
    printf("  tanh: %.4f ulp, erf: %.4f ulp, bound 1.5\n", worst_tanh, worst_erf);
    CHECK(worst_tanh <= 1.5 && worst_erf <= 1.5, "beyond their bounds");
    CHECK(spec_tanhf(INFINITY) == 1.0f && spec_erff(-INFINITY) == -1.0f, "ends");
    CHECK(isnan(spec_tanhf(NAN)) && isnan(spec_erff(NAN)), "NaN");
    CHECK(bits_of(spec_tanhf(-0.0f)) == 0x80000000u && bits_of(spec_erff(-0.0f)) == 0x80000000u, "zero's sign");
}

static void exp_is_the_same_on_every_level(void)
{
    enum { N = 4096 + 7 };
    float *x = take(N * 4), *y = take(N * 4), *expected = take(N * 4);
    for (int round = 0; round < 40; round++) {
        for (size_t i = 0; i < N; i++)
            x[i] = round % 2 ? of_bits(random_bits()) : (float)(random_bits() >> 8) * (200.0f / 16777216.0f) - 108.0f;
        for (size_t i = 0; i < N; i++) expected[i] = spec_expf(x[i]);
        for (size_t l = 0; l < n_levels; l++) {
            levels[l].exp(x, y, N);
            CHECK_SAME(y, expected, N, "exp on %s", levels[l].name);
        }
    }
    free(x), free(y), free(expected);
}

static void narrow_is_the_same_on_every_level(void)
{
    enum { N = 1027 };
    float x[N];
    uint16_t y[N];
    for (int round = 0; round < 100; round++) {
        for (size_t i = 0; i < N; i++)
            x[i] = round % 2 ? of_bits(random_bits()) : ldexpf(random_float(), (int)random_below(40) - 26);
        for (size_t l = 0; l < n_levels; l++) {
            levels[l].narrow(x, y, N);
            for (size_t i = 0; i < N; i++)
                CHECK(isnan(x[i]) ? isnan(f16_to_f32(y[i])) : y[i] == f16_from_f32(x[i]), "%s: %a", levels[l].name,
                      (double)x[i]);
        }
    }
}

/* silu and gelu against double: exp's ulp, a sum, a quotient; gelu's argument errs by 5 roundings, amplified by it.
 * Where exp overflows, what should have been |x| / 2^128 or less is 0. */
static void activations_are_right(void)
{
    double worst = 0, bound = 1;
    for (float x = -30.0f; x < 30.0f; x += 0.00137f) {
        double d = (double)x, u = 0.7978845608028654 * (d + 0.044715 * d * d * d);
        double silu = d / (1 + exp(-d)), gelu = d / (1 + exp(-2 * u));
        double es = fabs((double)spec_activation(BACKEND_SILU, x, 0) - silu),
               eg = fabs((double)spec_activation(BACKEND_GELU_TANH, x, 0) - gelu);
        double over = fabs(d) * 0x1p-128 + 0x1p-149;
        double bs = fabs(silu) * 6 * 0x1p-24 + over, bg = fabs(gelu) * (6 + 12 * fabs(u)) * 0x1p-24 + over;
        if (es / bs > worst) worst = es / bs;
        if (eg / bg > worst) worst = eg / bg;
    }
    printf("  worst error over its bound: %.3f\n", worst);
    CHECK(worst <= bound, "activation off");
    CHECK(fabs((double)spec_activation(BACKEND_GELU_TANH, 1.0f, 0) - 0.5 * (1 + tanh(0.7978845608028654 * 1.044715))) <
              1e-7,
          "tanh form");
}

/* The others by their definitions in double, the error beside what an ulp of x would be, or of gelu's 1 + erf. */
static void other_activations_are_right(void)
{
    double worst = 0;
    for (float x = -30.0f; x < 30.0f; x += 0.00137f) {
        double d = (double)x, over = fabs(d) * 0x1p-126, quick = d / (1 + exp(-1.702 * d)), least = x < 7 ? d : 7;
        double want[] = {0.5 * d * (1 + erf(d / sqrt(2))), quick, least / (1 + exp(-1.702 * least))};
        double got[] = {(double)spec_activation(BACKEND_GELU_ERF, x, 0),
                        (double)spec_activation(BACKEND_QUICK_GELU, x, 0),
                        (double)spec_activation(BACKEND_CLAMPED, x, 7)};
        double bound[] = {fabs(d) * 3 * 0x1p-24 + over, fabs(want[1]) * (6 + 4 * fabs(d)) * 0x1p-24 + over,
                          fabs(want[2]) * (6 + 4 * fabs(d)) * 0x1p-24 + over};
        for (int i = 0; i < 3; i++)
            if (fabs(got[i] - want[i]) / bound[i] > worst) worst = fabs(got[i] - want[i]) / bound[i];
        float r = x > 0 ? x : 0;
        CHECK(spec_activation(BACKEND_RELU, x, 0) == r && spec_activation(BACKEND_RELU2, x, 0) == r * r, "relu");
    }
    printf("  worst error over its bound: %.3f\n", worst);
    CHECK(worst <= 1, "activation off");
    /* gpt-oss: (up + 1) * g * sigmoid(1.702 g), both clamped */
    double g = 7 / (1 + exp(-1.702 * 7));
    CHECK(fabs((double)spec_gate(BACKEND_CLAMPED, 9, -8, 7) - -6 * g) < 1e-5, "both clamped");
    CHECK(fabs((double)spec_gate(BACKEND_CLAMPED, -1, 3, 7) - -4 / (1 + exp(1.702))) < 1e-6, "neither");
}

/* ---- rows and elements -------------------------------------------------------------------------------------------- */

static void elements_are_the_specification(void)
{
    static const uint64_t sizes[] = {1, 3, 15, 16, 17, 100, 1023, 1025, 70001};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t n = sizes[s];
        float *x = take(n * 4), *y = take(n * 4), *got = take(n * 4), *want = take(n * 4);
        fill_floats(x, n, true);
        fill_floats(y, n, true);
        for (size_t i = 0; i < n_backends; i++) {
            backend *b = backends[i];
            memcpy(got, x, n * 4);
            b->ops->add(b, got, y, n);
            for (uint64_t j = 0; j < n; j++) want[j] = x[j] + y[j];
            CHECK_SAME(got, want, n, "add on %s", backend_cpu_isa(b));
            memcpy(got, x, n * 4);
            b->ops->add_scaled(b, got, y, 0.3f, n);
            for (uint64_t j = 0; j < n; j++) want[j] = x[j] + 0.3f * y[j];
            CHECK_SAME(got, want, n, "add_scaled on %s", backend_cpu_isa(b));
            memcpy(got, x, n * 4);
            b->ops->scale(b, got, -1.7f, n);
            for (uint64_t j = 0; j < n; j++) want[j] = x[j] * -1.7f;
            CHECK_SAME(got, want, n, "scale on %s", backend_cpu_isa(b));
            memcpy(got, x, n * 4);
            for (uint64_t j = 0; j < n; j += 3) got[j] = of_bits(random_bits());
            for (uint64_t j = 0; j < n; j++) want[j] = spec_softcap(got[j], 1.5f);
            b->ops->softcap(b, got, 1.5f, n);
            CHECK_SAME(got, want, n, "softcap on %s", backend_cpu_isa(b));
            memcpy(got, x, n * 4);
            b->ops->sigmoid(b, got, n);
            for (uint64_t j = 0; j < n; j++) want[j] = spec_sigmoid(x[j]);
            CHECK_SAME(got, want, n, "sigmoid on %s", backend_cpu_isa(b));
            b->ops->zero(b, got, n);
            memset(want, 0, n * 4);
            CHECK_SAME(got, want, n, "zero on %s", backend_cpu_isa(b));
        }
        free(x), free(y), free(got), free(want);
    }
}

static void activations_are_the_specification(void)
{
    static const uint64_t sizes[] = {1, 15, 16, 17, 100, 1025, 30001};
    for (size_t s = 0; s < 2 * sizeof sizes / sizeof *sizes; s++) {
        uint64_t n = sizes[s / 2];
        float *x = take(n * 4), *y = take(n * 4), *got = take(n * 4), *want = take(n * 4);
        fill_floats(x, n, true);
        fill_floats(y, n, true);
        for (uint64_t j = 0; j < n; j++)
            x[j] = s % 2 ? of_bits(random_bits()) : x[j] * (float)(1 + random_below(20)); /* all forms of erf */
        for (size_t i = 0; i < n_backends * BACKEND_ACTS; i++) {
            backend *b = backends[i / BACKEND_ACTS];
            act_kind act = i % BACKEND_ACTS;
            memcpy(got, x, n * 4);
            b->ops->gate(b, act, 1.25f, got, y, n);
            for (uint64_t j = 0; j < n; j++) want[j] = spec_gate(act, x[j], y[j], 1.25f);
            CHECK_SAME(got, want, n, "gate %d on %s", (int)act, backend_cpu_isa(b));
            memcpy(got, x, n * 4);
            b->ops->activate(b, act, 1.25f, got, n);
            for (uint64_t j = 0; j < n; j++) want[j] = spec_activation(act, x[j], 1.25f);
            CHECK_SAME(got, want, n, "activation %d on %s", (int)act, backend_cpu_isa(b));
        }
        free(x), free(y), free(got), free(want);
    }
}

static void rows_are_the_specification(void)
{
    static const uint32_t sizes[] = {1, 5, 16, 33, 64, 80, 576, 1000, 3072};
    for (size_t s = 0; s < 2 * sizeof sizes / sizeof *sizes; s++) {
        uint32_t k = sizes[s / 2], n = 11;
        float *x = take(n * k * 4), *w = take(k * 4), *got = take(n * k * 4), *want = take(n * k * 4);
        uint32_t index[11];
        fill_floats(x, n * k, s % 2);
        fill_floats(w, k, s % 2);
        for (uint32_t r = 0; r < n; r++) index[r] = random_below(n);
        for (size_t i = 0; i < n_backends; i++) {
            backend *b = backends[i];
            memcpy(got, x, n * k * 4);
            b->ops->add_bias(b, got, w, n, k);
            for (uint32_t j = 0; j < n * k; j++) want[j] = x[j] + w[j % k];
            CHECK_SAME(got, want, n * k, "add_bias of %u on %s", k, backend_cpu_isa(b));
            b->ops->take_rows(b, x, index, n, k, got);
            for (uint32_t r = 0; r < n; r++) memcpy(want + r * k, x + index[r] * k, k * 4);
            CHECK_SAME(got, want, n * k, "take_rows of %u on %s", k, backend_cpu_isa(b));
        }
        free(x), free(w), free(got), free(want);
    }
}

static void norms_are_the_specification(void)
{
    static const uint32_t sizes[] = {1, 5, 16, 33, 64, 80, 576, 1000, 3072};
    enum { ROWS = 11, PERIOD = 3 };
    for (size_t s = 0; s < 2 * sizeof sizes / sizeof *sizes; s++) {
        uint32_t k = sizes[s / 2], n = ROWS;
        guarded gx = guarded_new(n * k * 4), gw = guarded_new(PERIOD * k * 4), gb = guarded_new(PERIOD * k * 4);
        float *got = (float *)(void *)(gx.base + gx.bytes) - n * k,
              *w = (float *)(void *)(gw.base + gw.bytes) - PERIOD * k;
        float *b = (float *)(void *)(gb.base + gb.bytes) - PERIOD * k, *x = take(n * k * 4), *want = take(n * k * 4);
        fill_floats(x, n * k, s % 2);
        fill_floats(w, PERIOD * k, s % 2);
        fill_floats(b, PERIOD * k, s % 2);
        for (uint32_t i = 0; i < n_backends * 16; i++) {
            backend *on = backends[i / 16];
            uint32_t rows = i & 1 ? PERIOD : 1;
            norm_args a = {.form = i & 2 ? BACKEND_RMS_NORM : BACKEND_LAYER_NORM,
                           .x = got,
                           .w = i & 4 ? w + (PERIOD - rows) * k : NULL,
                           .b = i & 8 ? b + (PERIOD - rows) * k : NULL,
                           .n = n,
                           .k = k,
                           .w_rows = rows,
                           .eps = 1e-5f,
                           .out = got};
            for (uint32_t r = 0; r < n; r++) {
                norm_row row = {.x = x + r * k, .k = k, .eps = a.eps, .out = want + r * k};
                if (a.w) row.w = a.w + r % rows * k;
                if (a.b) row.b = a.b + r % rows * k;
                (i & 2 ? spec_rms_norm : spec_layer_norm)(&row);
            }
            memcpy(got, x, n * k * 4);
            on->ops->norm(on, &a);
            CHECK_SAME(got, want, n * k, "norm %u of %u on %s", i % 16, k, backend_cpu_isa(on));
        }
        guarded_free(gx), guarded_free(gw), guarded_free(gb);
        free(x), free(want);
    }
}

/* Against double: the sum's and the square's roundings, (k / 16 + 8) 2^-24 of the largest |x - m| / deviation. */
static void layer_norm_is_a_layer_norm(void)
{
    enum { K = 1000 };
    float x[K], w[K], b[K], out[K];
    double mean = 0, variance = 0, worst = 0;
    fill_floats(x, K, false);
    fill_floats(w, K, false);
    fill_floats(b, K, false);
    for (int i = 0; i < K; i++) x[i] += 10.0f;
    for (int i = 0; i < K; i++) mean += (double)x[i];
    mean /= K;
    for (int i = 0; i < K; i++) {
        double off = (double)x[i] - mean;
        variance += off * off;
    }
    variance /= K;
    spec_layer_norm(&(norm_row){.x = x, .w = w, .b = b, .k = K, .eps = 1e-5f, .out = out});
    for (int i = 0; i < K; i++) {
        double want = ((double)x[i] - mean) / sqrt(variance + 1e-5) * (double)w[i] + (double)b[i];
        if (fabs((double)out[i] - want) > worst) worst = fabs((double)out[i] - want);
    }
    double bound = (K / 16 + 8) * 0x1p-24 * 14 / sqrt(variance) * 4;
    printf("  worst error over its bound: %.3f\n", worst / bound);
    CHECK(worst <= bound, "off by %g", worst);
}

static void rows_are_mixed_by_the_specification(void)
{
    static const uint32_t sizes[] = {1, 16, 33, 100, 2048};
    enum { N = 9, M = 7, SLOTS = 4 };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t k = sizes[s], index[N * SLOTS];
        float *x = take(N * k * 4), *y = take(M * k * 4), *got = take(N * k * 4), *want = take(N * k * 4);
        float weight[N * SLOTS];
        fill_floats(x, N * k, true);
        fill_floats(y, M * k, true);
        fill_floats(weight, N * SLOTS, true);
        for (uint32_t i = 0; i < N * SLOTS; i++) index[i] = random_below(4) ? random_below(M) : UINT32_MAX;
        for (size_t i = 0; i < n_backends; i++) {
            backend *b = backends[i];
            memcpy(got, x, N * k * 4);
            combine_args a = {.x = got, .y = y, .index = index, .weight = weight, .n = N, .slots = SLOTS, .k = k};
            b->ops->combine(b, &a);
            for (uint32_t j = 0; j < N * k; j++) {
                float sum = 0.0f;
                for (uint32_t at = j / k * SLOTS; at < (j / k + 1) * SLOTS; at++)
                    if (index[at] != UINT32_MAX) sum = fmaf(weight[at], y[index[at] * k + j % k], sum);
                want[j] = x[j] + sum;
            }
            CHECK_SAME(got, want, N * k, "combine of %u on %s", k, backend_cpu_isa(b));
            memcpy(got, x, N * k * 4);
            b->ops->scale_rows(b, got, weight, N, k);
            for (uint32_t j = 0; j < N * k; j++) want[j] = x[j] * weight[j / k];
            CHECK_SAME(got, want, N * k, "scale_rows of %u on %s", k, backend_cpu_isa(b));
        }
        free(x), free(y), free(got), free(want);
    }
}

static void columns_are_copied(void)
{
    static const columns_args shapes[] = {
        {.groups = 1, .width = 40, .src_stride = 100, .dst_stride = 40},
        {.groups = 24, .width = 1, .src_step = 2, .dst_step = 1, .src_stride = 48, .dst_stride = 24},
        {.groups = 5, .width = 7, .src_step = 20, .dst_step = 9, .src_stride = 107, .dst_stride = 50},
        {.groups = 4, .width = 8, .src_step = 0, .dst_step = 11, .src_stride = 8, .dst_stride = 44}};
    enum { N = 300, MOST = 110 };
    float *x = take(N * MOST * 4), *got = take(N * MOST * 4), *want = take(N * MOST * 4);
    fill_floats(x, N * MOST, true);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < n_backends; i++) {
            columns_args a = shapes[s];
            a.src = x, a.dst = got, a.n = N;
            memset(got, 0, N * MOST * 4);
            memset(want, 0, N * MOST * 4);
            backends[i]->ops->copy_columns(backends[i], &a);
            for (uint32_t j = 0; j < N * a.groups * a.width; j++) {
                uint32_t t = j / (a.groups * a.width), g = j / a.width % a.groups, c = j % a.width;
                want[t * a.dst_stride + g * a.dst_step + c] = x[t * a.src_stride + g * a.src_step + c];
            }
            CHECK_SAME(got, want, N * MOST, "shape %zu", s);
        }
    free(x), free(got), free(want);
}

static void rotations_are_the_specification(void)
{
    static const struct {
        uint32_t head_dim, dims;
    } shapes[] = {{2, 2}, {64, 64}, {80, 20}, {96, 96}, {128, 128}, {66, 34}, {7, 6}};
    enum { N = 9, HEADS = 3 };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        uint32_t dim = shapes[s].head_dim, dims = shapes[s].dims, half = dims / 2, total = N * HEADS * dim;
        float *freq = take(half * 4), *c = take(N * half * 4), *sn = take(N * half * 4);
        float *x = take(total * 4), *got = take(total * 4), *want = take(total * 4);
        uint32_t positions[N] = {0, 1, 2, 1000, 131071, 16777217, 5, 4000000000u, 77};
        for (uint32_t i = 0; i < half; i++) freq[i] = (float)pow(10000.0, -2.0 * i / dims);
        fill_floats(x, total, true);
        for (size_t i = 0; i < 2 * n_backends; i++) {
            backend *b = backends[i / 2];
            b->ops->angles(b, freq, 1.25f, dims, positions, N, c, sn);
            for (uint32_t j = 0; j < N * half; j++) {
                sine_cosine v = spec_sincosf((float)positions[j / half] * freq[j % half]);
                CHECK(c[j] == v.cos * 1.25f && sn[j] == v.sin * 1.25f, "angle");
            }
            memcpy(got, x, total * 4);
            memcpy(want, x, total * 4);
            b->ops->rotate(b, i % 2 ? ROTATE_HALF : ROTATE_INTERLEAVED, got, N, HEADS, dim, dims, c, sn);
            for (uint32_t h = 0; h < N * HEADS; h++)
                for (uint32_t j = 0; j < half; j++) {
                    uint32_t p = h * dim + (i % 2 ? j : 2 * j), q = i % 2 ? p + half : p + 1, a = h / HEADS * half + j;
                    want[p] = x[p] * c[a] - x[q] * sn[a];
                    want[q] = x[q] * c[a] + x[p] * sn[a];
                }
            CHECK_SAME(got, want, total, "rotate %u of %u on %s", dims, dim, backend_cpu_isa(b));
        }
        free(freq), free(c), free(sn), free(x), free(got), free(want);
    }
}

/* ---- the backend's own ---------------------------------------------------------------------------------------------- */

static void memory_is_zeroed_and_counted(void)
{
    backend *b = backends[0];
    uint64_t before = memory_used(mem);
    static const size_t sizes[] = {0, 1, 4096, (1 << 20) - 1, 1 << 20, (5 << 20) + 3};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *p = b->ops->alloc(b, MEM_ACTIVATION, sizes[i], NULL);
        REQUIRE(p && (uintptr_t)p % 64 == 0, "alloc of %zu", sizes[i]);
        for (size_t j = 0; j < sizes[i]; j += 509) CHECK(p[j] == 0, "not zero");
        b->ops->free(b, MEM_ACTIVATION, p, sizes[i]);
    }
    CHECK(memory_used(mem) == before, "not all given back");
}

static void creation_fails_cleanly(void)
{
    for (uint64_t at = 1; at <= 3; at++) {
        lamina_error err;
        backend *b = NULL;
        uint64_t before = memory_used(mem);
        memory_fail_at(mem, at);
        lamina_status status = backend_cpu_new(mem, pools[1], LAMINA_ISA_BEST, &b, &err);
        memory_fail_at(mem, 0);
        CHECK((at <= 2) == (status != LAMINA_OK), "allocation %d", (int)at);
        if (status == LAMINA_OK) b->ops->close(b);
        CHECK(memory_used(mem) == before, "leaked");
    }
    CHECK(backend_cpu_scratch(2) == 2 * backend_cpu_scratch(1), "scratch is per thread");
}

static void measures_are_positive(void)
{
    backend *b = backends[n_backends - 2];
    double ram = backend_cpu_measure_ram(b, 0.01), fma = backend_cpu_measure_fma(b, 0.01);
    printf("  %s: %.1f GB/s, %.1f GFLOP/s\n", backend_cpu_isa(b), ram / 1e9, fma / 1e9);
    CHECK(ram > 0 && fma > 0, "no measure");
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(dot_is_a_dot_product),
                                      T(blocks_have_their_values),
                                      T(codes_have_their_values),
                                      T(products_are_the_specification),
                                      T(products_of_many_rows),
                                      T(widen_is_the_specification),
                                      T(columns_are_the_specification),
                                      T(row_norms_are_the_specification),
                                      T(exp_is_within_an_ulp),
                                      T(log_and_angles_are_rounded),
                                      T(tanh_and_erf_are_within_bounds),
                                      T(exp_is_the_same_on_every_level),
                                      T(narrow_is_the_same_on_every_level),
                                      T(activations_are_right),
                                      T(other_activations_are_right),
                                      T(elements_are_the_specification),
                                      T(activations_are_the_specification),
                                      T(rows_are_the_specification),
                                      T(norms_are_the_specification),
                                      T(layer_norm_is_a_layer_norm),
                                      T(rows_are_mixed_by_the_specification),
                                      T(columns_are_copied),
                                      T(rotations_are_the_specification),
                                      T(memory_is_zeroed_and_counted),
                                      T(creation_fails_cleanly),
                                      T(measures_are_positive)};
    if (argc > 1 && !strcmp(argv[1], "--speed")) return speed_main(argc, argv);
    if (!setup()) return 1;
    int result = test_main(argc, argv, cases, sizeof cases / sizeof *cases);
    return teardown() ? result : 1;
}
