/* Every level of this machine against the scalar specification, bit for bit, operation by operation; the specification
 * against naive sums in double, within derived bounds. `test_backend_kernels --speed [level [threads]]` measures. */
#include "test.h"

#include "backend/cpu/kernels.h"
#include "base/os.h"
#include "speed.h"

#include <float.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static uint64_t seed = 1;

static uint32_t random_bits(void)
{
    seed += 0x9e3779b97f4a7c15u; /* splitmix64, Steele, Lea and Flood 2014 */
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static uint32_t random_below(uint32_t n)
{
    return random_bits() % n;
}

static float random_float(void)
{
    return ((float)(random_bits() >> 8) * 0x1p-23f - 1.0f) * (float)(1 + random_below(4));
}

static float of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static const float specials[] = {0.0f,     -0.0f,  INFINITY, -INFINITY, NAN, FLT_MIN,
                                 -FLT_MIN, 1e-40f, -1e-45f,  FLT_MAX,   1.0f};

static void fill_floats(float *x, size_t n, bool special)
{
    for (size_t i = 0; i < n; i++)
        x[i] = special && random_below(16) == 0 ? specials[random_below(sizeof specials / sizeof *specials)]
                                                : random_float();
}

/* A row of weights as stored. Special: all bits are random. */
static void fill_weights(dtype type, uint8_t *w, uint64_t bytes, bool special)
{
    for (uint64_t i = 0; i < bytes; i++) w[i] = (uint8_t)random_bits();
    if (special) return;
    uint32_t block = dtype_table[type].block_bytes;
    for (uint64_t at = 0; at + block <= bytes; at += block) {
        float f = random_float();
        uint16_t h = f16_from_f32(type == DT_Q8_0 ? f / 128 : f), m = f16_from_f32(random_float());
        uint16_t b = (uint16_t)(bits_of(f) >> 16);
        if (type == DT_F32)
            memcpy(w + at, &f, 4);
        else if (type == DT_BF16)
            memcpy(w + at, &b, 2);
        else if (type == DT_MXFP4)
            w[at] = (uint8_t)(124 + random_below(6));
        else if (type == DT_F8_E4M3 || type == DT_F8_E5M2)
            w[at] &= 0xbf; /* neither infinity nor NaN */
        else if (type != DT_MXFP4_PAIRS)
            memcpy(w + at, &h, 2);
        if (type == DT_Q4_1) memcpy(w + at + 2, &m, 2);
    }
}

/* What lies beside the weights: block scales of f8 (sometimes none), e8m0 scales of mxfp4_pairs. */
typedef struct beside {
    float *scales;
    uint8_t *side;
} beside;

static beside beside_new(matrix_rows *w, bool special)
{
    beside b = {0};
    if ((w->type == DT_F8_E4M3 || w->type == DT_F8_E5M2) && random_below(4)) {
        w->row0 = random_below(300);
        w->scale_rows = 1 + random_below(130);
        w->scale_cols = 32u << random_below(4);
        w->scales_stride = (w->cols + w->scale_cols - 1) / w->scale_cols + random_below(2);
        size_t n = ((w->row0 + w->n_rows) / w->scale_rows + 1) * w->scales_stride;
        w->scales = b.scales = malloc(n * sizeof *b.scales);
        if (!b.scales) abort();
        fill_floats(b.scales, n, special);
    } else if (w->type == DT_MXFP4_PAIRS) {
        size_t n = w->n_rows * (w->cols / 32);
        w->side = b.side = malloc(n);
        if (!b.side) abort();
        for (size_t i = 0; i < n; i++) b.side[i] = (uint8_t)(special ? random_bits() : 124 + random_below(6));
    }
    return b;
}

static void beside_free(beside b)
{
    free(b.scales), free(b.side);
}

/* Rows of w from r on. */
static matrix_rows rows_from(const matrix_rows *w, uint64_t r, uint64_t n)
{
    matrix_rows m = *w;
    m.data = (const uint8_t *)w->data + r * dtype_row_bytes(w->type, w->cols);
    m.n_rows = n;
    m.row0 += r;
    if (m.side) m.side += r * (w->cols / 32);
    return m;
}

static size_t first_difference(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bits_of(a[i]) != bits_of(b[i]) && !(isnan(a[i]) && isnan(b[i]))) return i;
    return n;
}

#define CHECK_SAME(a, b, n, ...)                                                                                       \
    do {                                                                                                               \
        size_t at_ = first_difference(a, b, n);                                                                        \
        if (at_ < (n)) {                                                                                               \
            printf("  " __VA_ARGS__);                                                                                  \
            printf("\n");                                                                                              \
            CHECK(false, "element %zu of %zu: %a, expected %a", at_, (size_t)(n), (double)(a)[at_], (double)(b)[at_]); \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

/* ---- memory that ends where reading ends -------------------------------------------------------------------------- */

typedef struct guarded {
    uint8_t *base;
    size_t bytes;
} guarded; /* the page after base + bytes cannot be touched */

static guarded guarded_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (bytes + page - 1) / page * page;
    uint8_t *p = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + bytes, page, PROT_NONE) != 0) abort();
    return (guarded){p, bytes};
}

static void guarded_free(guarded g)
{
    munmap(g.base, g.bytes + (size_t)sysconf(_SC_PAGESIZE));
}

/* ---- levels ------------------------------------------------------------------------------------------------------- */

static const lamina_isa all_levels[] = {LAMINA_ISA_SCALAR, LAMINA_ISA_AVX2, LAMINA_ISA_AVX512, LAMINA_ISA_NEON};
enum { LEVELS = 4, THREADS = 3 };

static memory *mem;
static pool *pools[THREADS];
static backend *backends[THREADS * LEVELS]; /* each level there is, with one, two and three threads */
static size_t n_backends;
static kernels levels[LEVELS];
static size_t n_levels;

static bool setup(void)
{
    mem = memory_new();
    if (!mem) return false;
    for (uint32_t t = 0; t < THREADS; t++)
        if (pool_new(mem, t + 1, &pools[t], NULL) != LAMINA_OK) return false;
    for (size_t i = 0; i < LEVELS; i++) {
        kernels k;
        kernels_scalar(&k);
        kernels_ladder(&k, all_levels[i]);
        if (i > 0 && !strcmp(k.name, "scalar")) continue; /* another machine's */
        if (i > 1 && n_levels && !strcmp(k.name, levels[n_levels - 1].name)) continue;
        levels[n_levels++] = k;
        for (uint32_t t = 0; t < THREADS; t++) {
            if (backend_cpu_new(mem, pools[t], all_levels[i], &backends[n_backends++], NULL) != LAMINA_OK) return false;
            if (strcmp(backend_cpu_isa(backends[n_backends - 1]), k.name) != 0) return false;
        }
        printf("level %s\n", k.name);
    }
    return true;
}

static bool teardown(void)
{
    for (size_t i = 0; i < n_backends; i++) backends[i]->ops->close(backends[i]);
    for (uint32_t t = 0; t < THREADS; t++) pool_free(pools[t]);
    return memory_free(mem) == 0;
}

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p) abort();
    return p;
}

static uint32_t threads_of(size_t backend_index)
{
    return (uint32_t)(backend_index % THREADS) + 1;
}

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
    static const uint64_t sizes[] = {1,   2,   15,  16,  17,  31,   32,   33,   47,  96,
                                     127, 480, 511, 512, 513, 1023, 1024, 1056, 2081};
    for (dtype type = 0; type < DT_WEIGHTS; type++)
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
    for (dtype type = 0; type < DT_WEIGHTS; type++) {
        product(&(product_case){.type = type, .rows = 150, .k = 1056, .n = 64, .misalign = 3});
        product(&(product_case){.type = type, .rows = 5, .k = 32, .n = 600});
    }
    product(&(product_case){.type = DT_BF16, .rows = 67, .k = 2079, .n = 64, .misalign = 1});
    product(&(product_case){.type = DT_F32, .rows = 300, .k = 40, .n = 270, .misalign = 2});
}

static void widen_is_the_specification(void)
{
    for (dtype type = 0; type < DT_WEIGHTS; type++)
        for (uint64_t k = 1; k <= 160; k++) {
            enum { ROWS = 3 };
            if (!dtype_row_ok(type, k)) continue;
            uint64_t row = dtype_row_bytes(type, k), bytes = row * ROWS;
            guarded g = guarded_new(bytes + 1), out = guarded_new(ROWS * k * 4);
            uint8_t *w = g.base + g.bytes - bytes - k % 2;
            float *x = (float *)(void *)(out.base + out.bytes) - ROWS * k, expected[ROWS * 160];
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

/* silu and gelu against double: exp's ulp, a sum, a quotient; gelu's argument errs by 5 roundings, amplified by it. Where
 * exp overflows, what should have been |x| / 2^128 or less is 0. */
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
            b->ops->softcap(b, got, 1.5f, n);
            for (uint64_t j = 0; j < n; j++) want[j] = spec_softcap(x[j], 1.5f);
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

/* ---- attention ---------------------------------------------------------------------------------------------------- */

typedef struct story { /* a session's rows, and the truth about them */
    uint32_t heads, kv_heads, dim, length, window;
    bool half, special;
    float *q, *k, *v, *expected; /* [length, heads or kv_heads, dim] */
    void *cache_k, *cache_v;     /* all positions, written naively */
    uint32_t capacity;
} story;

static void put(void *cache, bool half, uint64_t at, float f)
{
    if (half)
        ((uint16_t *)cache)[at] = f16_from_f32(f);
    else
        ((float *)cache)[at] = f;
}

static void story_new(story *s)
{
    size_t q = (size_t)s->length * s->heads * s->dim, kv = (size_t)s->length * s->kv_heads * s->dim;
    s->capacity = (s->length + 63) / 64 * 64;
    size_t bytes = kv_layer_bytes(s->kv_heads, s->dim, s->capacity, s->half);
    s->q = take(q * 4), s->expected = take(q * 4), s->k = take(kv * 4), s->v = take(kv * 4);
    s->cache_k = take(bytes), s->cache_v = take(bytes);
    fill_floats(s->q, q, false);
    fill_floats(s->k, kv, false);
    fill_floats(s->v, kv, s->special);
    memset(s->cache_k, 0xff, bytes);
    memset(s->cache_v, 0xff, bytes);
    for (uint64_t i = 0; i < kv; i++) {
        uint64_t p = i / s->dim / s->kv_heads, h = i / s->dim % s->kv_heads, d = i % s->dim;
        put(s->cache_k, s->half, ((h * s->capacity + p / 16 * 16) * s->dim) + d * 16 + p % 16, s->k[i]);
        put(s->cache_v, s->half, (h * s->capacity + p) * s->dim + d, s->v[i]);
    }
    size_t head = (size_t)s->capacity * s->dim * (s->half ? 2 : 4);
    for (uint32_t i = 0; i < s->length * s->heads; i++) {
        size_t kv_head = i % s->heads / (s->heads / s->kv_heads);
        spec_attention_row r = {.q = s->q + (size_t)i * s->dim,
                                .out = s->expected + (size_t)i * s->dim,
                                .k = (uint8_t *)s->cache_k + kv_head * head,
                                .v = (uint8_t *)s->cache_v + kv_head * head,
                                .capacity = s->capacity,
                                .head_dim = s->dim,
                                .v_dim = s->dim,
                                .position = i / s->heads,
                                .window = s->window,
                                .scale = 0.3f,
                                .half = s->half};
        spec_attention(&r);
    }
}

static void story_free(story *s)
{
    free(s->q), free(s->k), free(s->v), free(s->expected), free(s->cache_k), free(s->cache_v);
}

typedef struct telling { /* a story told to a backend, a few rows a pass */
    story *s;
    kv_layer kv;
    uint32_t done;
} telling;

/* Passes of up to `batch` rows of two stories at once, until both are told. */
static void tell(backend *b, story *stories, uint32_t n_stories, uint32_t batch)
{
    telling t[2];
    const story *s0 = &stories[0];
    size_t q_row = (size_t)s0->heads * s0->dim, kv_row = (size_t)s0->kv_heads * s0->dim;
    for (uint32_t i = 0; i < n_stories; i++) {
        story *s = &stories[i];
        uint32_t need = s->window && s->window + batch - 1 < s->length ? s->window + batch - 1 : s->length;
        t[i] = (telling){.s = s, .kv = {.capacity = (need + 63) / 64 * 64, .half = s->half}};
        size_t bytes = kv_layer_bytes(s->kv_heads, s->dim, t[i].kv.capacity, s->half);
        t[i].kv.k = take(bytes), t[i].kv.v = take(bytes);
        memset(t[i].kv.k, 0xff, bytes); /* NaN */
        memset(t[i].kv.v, 0xff, bytes);
    }
    float *q = take(2 * batch * q_row * 4), *k = take(2 * batch * kv_row * 4), *v = take(2 * batch * kv_row * 4);
    float *out = take(2 * batch * q_row * 4);
    for (bool more = true; more;) {
        attention_rows parts[2];
        attention_args a = {.q = q,
                            .k = k,
                            .v = v,
                            .out = out,
                            .heads = s0->heads,
                            .kv_heads = s0->kv_heads,
                            .head_dim = s0->dim,
                            .v_dim = s0->dim,
                            .scale = 0.3f,
                            .window = s0->window,
                            .parts = parts};
        uint32_t rows = 0;
        for (uint32_t i = 0; i < n_stories; i++) {
            uint32_t left = t[i].s->length - t[i].done, n = 1 + random_below(batch);
            if (n > left) n = left;
            if (!n) continue;
            parts[a.n_parts++] = (attention_rows){.kv = t[i].kv, .row0 = rows, .n_rows = n, .position = t[i].done};
            memcpy(q + rows * q_row, t[i].s->q + t[i].done * q_row, n * q_row * 4);
            memcpy(k + rows * kv_row, t[i].s->k + t[i].done * kv_row, n * kv_row * 4);
            memcpy(v + rows * kv_row, t[i].s->v + t[i].done * kv_row, n * kv_row * 4);
            rows += n;
        }
        more = a.n_parts > 0;
        if (!more) break;
        b->ops->attention(b, &a);
        for (uint32_t i = 0, part = 0; i < n_stories; i++) {
            if (t[i].done == t[i].s->length) continue;
            const attention_rows *p = &parts[part++];
            size_t at =
                first_difference(out + p->row0 * q_row, t[i].s->expected + t[i].done * q_row, p->n_rows * q_row);
            CHECK(at == p->n_rows * q_row, "%s: heads %u/%u of %u, window %u, %s, batch %u, position %zu, element %zu",
                  backend_cpu_isa(b), s0->heads, s0->kv_heads, s0->dim, s0->window, s0->half ? "f16" : "f32", batch,
                  t[i].done + at / q_row, at % q_row);
            t[i].done += p->n_rows;
        }
    }
    for (uint32_t i = 0; i < n_stories; i++) free(t[i].kv.k), free(t[i].kv.v);
    free(q), free(k), free(v), free(out);
}

static void attention_is_the_specification(void)
{
    static const struct {
        uint32_t heads, kv_heads, dim, length, window;
    } shapes[] = {{4, 2, 16, 150, 0},    {3, 1, 5, 200, 0},   {6, 2, 80, 140, 0},
                  {2, 2, 33, 131, 17},   {8, 1, 64, 300, 64}, {40, 1, 8, 70, 0},
                  {3, 3, 128, 260, 100}, {5, 1, 1, 129, 1},   {9, 3, 96, 70, 65}};
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        story s[2] = {{0}, {0}};
        for (int j = 0; j < 2; j++) {
            s[j] = (story){.heads = shapes[i / 2].heads,
                           .kv_heads = shapes[i / 2].kv_heads,
                           .dim = shapes[i / 2].dim,
                           .length = j ? shapes[i / 2].length / 3 : shapes[i / 2].length,
                           .window = shapes[i / 2].window,
                           .half = i % 2,
                           .special = j};
            story_new(&s[j]);
        }
        for (size_t b = 0; b < n_backends; b++) {
            if (threads_of(b) == 2) tell(backends[b], s, 1, 1);
            tell(backends[b], s, 2, 7);
            if (threads_of(b) == 2) tell(backends[b], s, 2, 150);
        }
        story_free(&s[0]);
        story_free(&s[1]);
    }
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* The specification against softmax in double. With e = 2^-24, a score errs by ds = (dim + 2) e scale sum |q k|, its
 * exponential by that, the rounding of s - m and 1.5 ulp; n positions are summed in l and in acc, with two roundings
 * for each rescaling. */
static void attention_is_softmax(void)
{
    enum { DIM = 24, LENGTH = 333 };
    story s = {.heads = 2, .kv_heads = 1, .dim = DIM, .length = LENGTH};
    story_new(&s);
    double worst = 0;
    for (uint32_t r = 0; r < LENGTH * 2; r++) {
        double score[LENGTH], m = -INFINITY, l = 0, out[DIM] = {0}, size = 0, v_max = 0;
        uint32_t n = r / 2 + 1;
        for (uint32_t j = 0; j < n; j++) {
            double x = 0, abs_x = 0;
            for (uint32_t d = 0; d < DIM; d++) {
                x += (double)s.q[r * DIM + d] * (double)s.k[j * DIM + d];
                abs_x += fabs((double)s.q[r * DIM + d] * (double)s.k[j * DIM + d]);
                v_max = larger(v_max, fabs((double)s.v[j * DIM + d]));
            }
            score[j] = x * (double)0.3f;
            size = larger(size, abs_x * (double)0.3f);
            m = larger(m, score[j]);
        }
        for (uint32_t j = 0; j < n; j++) {
            double p = exp(score[j] - m);
            l += p;
            for (uint32_t d = 0; d < DIM; d++) out[d] += p * (double)s.v[j * DIM + d];
        }
        double e = 0x1p-24, one = (DIM + 2) * e * size + 2 * size * e + 3 * e;
        double bound = v_max * (4 * one + (n + n / 16 + 4 * (n / 64 + 1) * 2 + 8) * e);
        for (uint32_t d = 0; d < DIM; d++) {
            double error = fabs((double)s.expected[r * DIM + d] - out[d] / l);
            worst = larger(worst, error / bound);
        }
    }
    printf("  worst error over its bound: %.4f\n", worst);
    CHECK(worst <= 1, "attention is not softmax");
    story_free(&s);
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
    static const test_case cases[] = {
        T(dot_is_a_dot_product),           T(blocks_have_their_values),        T(products_are_the_specification),
        T(products_of_many_rows),          T(widen_is_the_specification),      T(exp_is_within_an_ulp),
        T(log_and_angles_are_rounded),     T(exp_is_the_same_on_every_level),  T(narrow_is_the_same_on_every_level),
        T(activations_are_right),          T(elements_are_the_specification),  T(activations_are_the_specification),
        T(rows_are_the_specification),     T(rotations_are_the_specification), T(attention_is_softmax),
        T(attention_is_the_specification), T(memory_is_zeroed_and_counted),    T(creation_fails_cleanly),
        T(measures_are_positive)};
    if (argc > 1 && !strcmp(argv[1], "--speed")) return speed_main(argc, argv);
    if (!setup()) return 1;
    int result = test_main(argc, argv, cases, sizeof cases / sizeof *cases);
    return teardown() ? result : 1;
}
