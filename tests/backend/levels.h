/* What the tests of kernels share: numbers, stored weights, memory that ends where reading ends, every level of this
 * machine with one, two and three threads. */
#ifndef LAMINA_TEST_LEVELS_H
#define LAMINA_TEST_LEVELS_H

#include "test.h"

#include "backend/cpu/kernels.h"

#include <float.h>
#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static uint64_t seed = 1;

static inline uint32_t random_bits(void)
{
    seed += 0x9e3779b97f4a7c15u; /* splitmix64, Steele, Lea and Flood 2014 */
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static inline uint32_t random_below(uint32_t n)
{
    return random_bits() % n;
}

static inline float random_float(void)
{
    return ((float)(random_bits() >> 8) * 0x1p-23f - 1.0f) * (float)(1 + random_below(4));
}

static inline float of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static const float specials[] = {0.0f,     -0.0f,  INFINITY, -INFINITY, NAN, FLT_MIN,
                                 -FLT_MIN, 1e-40f, -1e-45f,  FLT_MAX,   1.0f};

static inline void fill_floats(float *x, size_t n, bool special)
{
    for (size_t i = 0; i < n; i++)
        x[i] = special && random_below(16) == 0 ? specials[random_below(sizeof specials / sizeof *specials)]
                                                : random_float();
}

static const dtype block_types = DT_BF16_PACKED3; /* the types before it; test_packed.c has those after */

/* Where a block has its f16 numbers, plus 1, and by how many bits the first is to be less than a weight. */
typedef struct halves_of {
    uint8_t scale, least, bits;
} halves_of;
static const halves_of halves[DT_WEIGHTS] = {
    [DT_F16] = {1, 0, 0},     [DT_Q8_0] = {1, 0, 7},    [DT_Q4_0] = {1, 0, 0},    [DT_Q4_1] = {1, 3, 0},
    [DT_Q5_0] = {1, 0, 4},    [DT_Q5_1] = {1, 3, 4},    [DT_Q2_K] = {81, 83, 4},  [DT_Q3_K] = {109, 0, 6},
    [DT_Q4_K] = {1, 3, 8},    [DT_Q5_K] = {1, 3, 9},    [DT_Q6_K] = {209, 0, 11}, [DT_IQ4_NL] = {1, 0, 0},
    [DT_IQ4_XS] = {1, 0, 0},  [DT_IQ2_XXS] = {1, 0, 0}, [DT_IQ2_XS] = {1, 0, 0},  [DT_IQ2_S] = {1, 0, 0},
    [DT_IQ3_XXS] = {1, 0, 0}, [DT_IQ3_S] = {1, 0, 0},   [DT_IQ1_S] = {1, 0, 0},   [DT_TQ1_0] = {53, 0, 0},
    [DT_TQ2_0] = {65, 0, 0},
};

/* A row of weights as stored. Special: all bits are random. */
static inline void fill_weights(dtype type, uint8_t *w, uint64_t bytes, bool special)
{
    for (uint64_t i = 0; i < bytes; i++) w[i] = (uint8_t)random_bits();
    if (special) return;
    uint32_t block = dtype_table[type].block_bytes;
    halves_of at16 = halves[type];
    for (uint64_t at = 0; at + block <= bytes; at += block) {
        float f = random_float();
        uint16_t h = f16_from_f32(ldexpf(f, -at16.bits)), m = f16_from_f32(ldexpf(random_float(), -at16.bits / 2));
        uint16_t b = (uint16_t)(bits_of(f) >> 16);
        if (type == DT_F32)
            memcpy(w + at, &f, 4);
        else if (type == DT_BF16)
            memcpy(w + at, &b, 2);
        else if (type == DT_MXFP4)
            w[at] = (uint8_t)(124 + random_below(6));
        else if (type == DT_F8_E4M3 || type == DT_F8_E5M2)
            w[at] &= 0xbf;         /* neither infinity nor NaN */
        else if (type == DT_IQ1_M) /* in the upper nibbles of four words */
            for (uint32_t i = 0; i < 4; i++)
                w[at + 49 + 2 * i] = (uint8_t)((w[at + 49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
        else if (type == DT_NVFP4)
            for (uint32_t i = 0; i < 4; i++) w[at + i] = (uint8_t)(0x30 + random_below(16));
        if (at16.scale) memcpy(w + at + at16.scale - 1, &h, 2);
        if (at16.least) memcpy(w + at + at16.least - 1, &m, 2);
    }
}

/* What lies beside the weights: block scales of f8 (sometimes none), e8m0 scales of mxfp4_pairs. */
typedef struct beside {
    float *scales;
    uint8_t *side;
} beside;

static inline beside beside_new(matrix_rows *w, bool special)
{
    beside b = {0};
    if (dtype_has_scales(w->type) && random_below(4)) {
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

static inline void beside_free(beside b)
{
    free(b.scales), free(b.side);
}

/* Rows of w from r on. */
static inline matrix_rows rows_from(const matrix_rows *w, uint64_t r, uint64_t n)
{
    matrix_rows m = *w;
    m.data = (const uint8_t *)w->data + r * dtype_row_bytes(w->type, w->cols);
    m.n_rows = n;
    m.row0 += r;
    if (m.side) m.side += r * (w->cols / 32);
    return m;
}

static inline size_t first_difference(const float *a, const float *b, size_t n)
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

static inline guarded guarded_new(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    bytes = (bytes + page - 1) / page * page;
    uint8_t *p = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + bytes, page, PROT_NONE) != 0) abort();
    return (guarded){p, bytes};
}

static inline void guarded_free(guarded g)
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

static inline bool setup(void)
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

static inline bool teardown(void)
{
    for (size_t i = 0; i < n_backends; i++) backends[i]->ops->close(backends[i]);
    for (uint32_t t = 0; t < THREADS; t++) pool_free(pools[t]);
    return memory_free(mem) == 0;
}

static inline void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p) abort();
    return p;
}

static inline uint32_t threads_of(size_t backend_index)
{
    return (uint32_t)(backend_index % THREADS) + 1;
}

#endif
