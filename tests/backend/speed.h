/* The driver's speed mode: GB/s of weights for few token rows beside a plain read of the same bytes, GFLOP/s for many
 * beside the multiply-add peak, measured alternately, for each level. */
#ifndef LAMINA_TEST_SPEED_H
#define LAMINA_TEST_SPEED_H

#include "base/os.h"

typedef struct bench {
    memory *m;
    pool *pool;
    backend *b;
    double ram, peak; /* bytes/s, operations/s */
} bench;

static double best_of(double a, double b)
{
    return a > b ? a : b;
}

/* What a type has beside its weights: block scales of 128 x 128, or e8m0 for every 32. */
static bool speed_beside(bench *s, matrix_rows *m)
{
    uint64_t blocks = (m->n_rows + 127) / 128 * ((m->cols + 127) / 128), groups = m->n_rows * (m->cols / 32);
    if (dtype_has_scales(m->type)) {
        float *scales = mem_alloc(s->m, MEM_OTHER, blocks * sizeof *scales, NULL);
        for (uint64_t i = 0; scales && i < blocks; i++) scales[i] = 0.01f;
        m->scales = scales;
        m->scale_rows = m->scale_cols = 128;
        m->scales_stride = (m->cols + 127) / 128;
        return scales != NULL;
    }
    if (m->type == DT_MXFP4_PAIRS) {
        uint8_t *side = mem_alloc(s->m, MEM_OTHER, groups, NULL);
        if (side) memset(side, 120, groups);
        m->side = side;
        return side != NULL;
    }
    return true;
}

static void speed_beside_free(bench *s, matrix_rows *m)
{
    mem_free(s->m, (void *)(uintptr_t)m->scales);
    mem_free(s->m, (void *)(uintptr_t)m->side);
}

/* Many matrices of [rows, k], more than the caches hold, applied in turn to n rows, as decoding does. */
static void speed_decode(bench *s, dtype type, uint64_t rows, uint64_t k, uint32_t n, size_t total)
{
    uint64_t row = dtype_row_bytes(type, k), bytes = row * rows, count = total / bytes;
    uint8_t *w = mem_pages(s->m, MEM_OTHER, total, NULL);
    float *x = mem_alloc(s->m, MEM_OTHER, n * k * 4, NULL), *y = mem_alloc(s->m, MEM_OTHER, n * rows * 4, NULL);
    void *packed = mem_alloc(s->m, MEM_OTHER, s->b->ops->packed_bytes(s->b, n, k), NULL);
    matrix_rows m = {.type = type, .n_rows = rows, .cols = k};
    if (!w || !x || !y || !packed || !speed_beside(s, &m)) {
        printf("no memory\n");
        return;
    }
    memset(w, 0x3c, total); /* an ordinary number in every type */
    for (uint64_t i = 0; i < n * k; i++) x[i] = 1.0f;
    s->b->ops->pack(s->b, x, n, k, packed);
    double apply = 0, ram = 0;
    for (int round = 0; round < 3; round++) {
        double t = os_seconds();
        for (uint64_t i = 0; i < count; i++) {
            m.data = w + i * bytes;
            s->b->ops->apply(s->b, &m, packed, n, y, rows);
        }
        apply = best_of(apply, (double)(count * bytes) / (os_seconds() - t));
        ram = best_of(ram, backend_cpu_measure_ram(s->b, 0.1));
    }
    speed_beside_free(s, &m);
    printf("  %-11s %u row%s  %6.2f GB/s  read %6.2f GB/s  ratio %.3f  %6.2f Gweights/s\n", dtype_name(type), n,
           n == 1 ? " " : "s", apply / 1e9, ram / 1e9, apply / ram, apply / (double)row * (double)k / 1e9);
    mem_pages_free(s->m, MEM_OTHER, w, total);
    mem_free(s->m, x);
    mem_free(s->m, y);
    mem_free(s->m, packed);
}

static void speed_prefill(bench *s, dtype type, uint64_t rows, uint64_t k, uint32_t n)
{
    uint64_t bytes = dtype_row_bytes(type, k) * rows;
    uint8_t *w = mem_pages(s->m, MEM_OTHER, bytes, NULL);
    float *x = mem_alloc(s->m, MEM_OTHER, n * k * 4, NULL), *y = mem_pages(s->m, MEM_OTHER, n * rows * 4, NULL);
    void *packed = mem_pages(s->m, MEM_OTHER, s->b->ops->packed_bytes(s->b, n, k), NULL);
    matrix_rows m = {.type = type, .data = w, .n_rows = rows, .cols = k};
    if (!w || !x || !y || !packed || !speed_beside(s, &m)) {
        printf("no memory\n");
        return;
    }
    memset(w, 0x3c, bytes);
    for (uint64_t i = 0; i < n * k; i++) x[i] = 1.0f;
    double flops = 0, peak = 0, pack = 1e9;
    for (int round = 0; round < 4; round++) {
        double t = os_seconds();
        s->b->ops->pack(s->b, x, n, k, packed);
        double u = os_seconds();
        s->b->ops->apply(s->b, &m, packed, n, y, rows);
        flops = best_of(flops, 2.0 * (double)(rows * k * n) / (os_seconds() - u));
        if (u - t < pack) pack = u - t;
        peak = best_of(peak, backend_cpu_measure_fma(s->b, 0.05));
    }
    speed_beside_free(s, &m);
    printf("  %-11s %5ux%llux%llu  %7.1f GFLOP/s  peak %7.1f  ratio %.3f  (pack %.2f ms)\n", dtype_name(type), n,
           (unsigned long long)rows, (unsigned long long)k, flops / 1e9, peak / 1e9, flops / peak, pack * 1e3);
    mem_pages_free(s->m, MEM_OTHER, w, bytes);
    mem_free(s->m, x);
    mem_pages_free(s->m, MEM_OTHER, y, n * rows * 4);
    mem_pages_free(s->m, MEM_OTHER, packed, s->b->ops->packed_bytes(s->b, n, k));
}

/* Matrices stored [in, out], n token rows; more of them than the caches hold. */
static void speed_columns(bench *s, dtype type, uint64_t rows, uint64_t k, uint32_t n, size_t total)
{
    uint64_t bytes = dtype_row_bytes(type, k) * rows, count = total / bytes;
    uint8_t *w = mem_pages(s->m, MEM_OTHER, total, NULL);
    float *x = mem_alloc(s->m, MEM_OTHER, n * rows * 4, NULL), *y = mem_alloc(s->m, MEM_OTHER, n * k * 4, NULL);
    matrix_rows m = {.type = type, .n_rows = rows, .cols = k};
    if (!w || !x || !y || !speed_beside(s, &m)) {
        printf("no memory\n");
        return;
    }
    memset(w, 0x3c, total);
    for (uint64_t i = 0; i < n * rows; i++) x[i] = 1e-3f;
    double apply = 0, ram = 0, peak = 0;
    for (int round = 0; round < 3; round++) {
        double t = os_seconds();
        for (uint64_t i = 0; i < count; i++) {
            m.data = w + i * bytes;
            s->b->ops->apply_columns(s->b, &m, x, rows, n, y, k);
        }
        apply = best_of(apply, (double)count / (os_seconds() - t));
        ram = best_of(ram, backend_cpu_measure_ram(s->b, 0.1));
        peak = best_of(peak, backend_cpu_measure_fma(s->b, 0.05));
    }
    double flops = 2.0 * apply * (double)(rows * k * n);
    printf("  %-11s columns %4ux%llux%llu  %6.2f GB/s of %.2f  %7.1f GFLOP/s of %.1f\n", dtype_name(type), n,
           (unsigned long long)rows, (unsigned long long)k, apply * (double)bytes / 1e9, ram / 1e9, flops / 1e9,
           peak / 1e9);
    speed_beside_free(s, &m);
    mem_pages_free(s->m, MEM_OTHER, w, total);
    mem_free(s->m, x);
    mem_free(s->m, y);
}

/* Latent attention: 128 query heads over one latent of 512 and 64 rotated, the values in the keys. */
static void speed_latent(bench *s, uint32_t n, uint32_t position, bool half)
{
    enum { HEADS = 128, DIM = 576, V_DIM = 512 };
    uint32_t capacity = (position + n + 63) / 64 * 64;
    size_t cache = kv_layer_bytes(1, DIM, capacity, half), rows = (size_t)n * DIM * 4;
    attention_rows part = {.kv = {.capacity = capacity, .half = half}, .n_rows = n, .position = position};
    part.kv.k = mem_pages(s->m, MEM_OTHER, cache, NULL);
    float *q = mem_pages(s->m, MEM_OTHER, rows * HEADS, NULL), *out = mem_pages(s->m, MEM_OTHER, rows * HEADS, NULL);
    float *k = mem_pages(s->m, MEM_OTHER, rows, NULL);
    if (!part.kv.k || !q || !out || !k) {
        printf("no memory\n");
        return;
    }
    memset(part.kv.k, 0x11, cache);
    attention_args a = {.q = q,
                        .k = k,
                        .out = out,
                        .heads = HEADS,
                        .kv_heads = 1,
                        .head_dim = DIM,
                        .v_dim = V_DIM,
                        .values_in_keys = true,
                        .scale = 0.1f,
                        .parts = &part,
                        .n_parts = 1};
    double seconds = 1e9, visible = 0;
    for (uint32_t i = 0; i < n; i++) visible += position + i + 1;
    for (int round = 0; round < 4; round++) {
        double t = os_seconds();
        s->b->ops->attention(s->b, &a);
        t = os_seconds() - t;
        if (t < seconds) seconds = t;
    }
    printf("  latent    %4u rows at %6u %s  %8.3f ms  %6.1f GFLOP/s\n", n, position, half ? "f16" : "f32",
           seconds * 1e3, 2.0 * visible * HEADS * (DIM + V_DIM) / seconds / 1e9);
    mem_pages_free(s->m, MEM_OTHER, part.kv.k, cache);
    mem_pages_free(s->m, MEM_OTHER, q, rows * HEADS);
    mem_pages_free(s->m, MEM_OTHER, out, rows * HEADS);
    mem_pages_free(s->m, MEM_OTHER, k, rows);
}

/* 24 query heads over 8 KV heads of 128. */
static void speed_attention(bench *s, uint32_t n, uint32_t position, bool half)
{
    enum { HEADS = 24, KV_HEADS = 8, DIM = 128 };
    uint32_t capacity = (position + n + 63) / 64 * 64;
    size_t cache = kv_layer_bytes(KV_HEADS, DIM, capacity, half), rows = (size_t)n * DIM * 4;
    attention_rows part = {.kv = {.capacity = capacity, .half = half}, .n_rows = n, .position = position};
    part.kv.k = mem_pages(s->m, MEM_OTHER, cache, NULL);
    part.kv.v = mem_pages(s->m, MEM_OTHER, cache, NULL);
    float *q = mem_pages(s->m, MEM_OTHER, rows * HEADS, NULL), *out = mem_pages(s->m, MEM_OTHER, rows * HEADS, NULL);
    float *k = mem_pages(s->m, MEM_OTHER, rows * KV_HEADS, NULL),
          *v = mem_pages(s->m, MEM_OTHER, rows * KV_HEADS, NULL);
    if (!part.kv.k || !part.kv.v || !q || !out || !k || !v) {
        printf("no memory\n");
        return;
    }
    memset(part.kv.k, 0x11, cache);
    memset(part.kv.v, 0x11, cache);
    attention_args a = {.q = q,
                        .k = k,
                        .v = v,
                        .out = out,
                        .heads = HEADS,
                        .kv_heads = KV_HEADS,
                        .head_dim = DIM,
                        .v_dim = DIM,
                        .scale = 0.1f,
                        .parts = &part,
                        .n_parts = 1};
    double seconds = 1e9, visible = 0;
    for (uint32_t i = 0; i < n; i++) visible += position + i + 1;
    for (int round = 0; round < 4; round++) {
        double t = os_seconds();
        s->b->ops->attention(s->b, &a);
        t = os_seconds() - t;
        if (t < seconds) seconds = t;
    }
    printf("  attention %4u rows at %6u %s  %8.3f ms  %6.1f GFLOP/s  cache %6.2f GB/s\n", n, position,
           half ? "f16" : "f32", seconds * 1e3, 4.0 * visible * HEADS * DIM / seconds / 1e9,
           2.0 * (double)cache / seconds / 1e9);
    mem_pages_free(s->m, MEM_OTHER, part.kv.k, cache);
    mem_pages_free(s->m, MEM_OTHER, part.kv.v, cache);
    mem_pages_free(s->m, MEM_OTHER, q, rows * HEADS);
    mem_pages_free(s->m, MEM_OTHER, out, rows * HEADS);
    mem_pages_free(s->m, MEM_OTHER, k, rows * KV_HEADS);
    mem_pages_free(s->m, MEM_OTHER, v, rows * KV_HEADS);
}

static void speed_level(bench *s, bool quick)
{
    static const dtype types[] = {
        DT_BF16,      DT_F16,       DT_F32,    DT_Q8_0,   DT_Q4_0,    DT_Q4_1,    DT_Q5_0,  DT_Q5_1,
        DT_Q2_K,      DT_Q3_K,      DT_Q4_K,   DT_Q5_K,   DT_Q6_K,    DT_F8_E4M3, DT_MXFP4, DT_MXFP4_PAIRS,
        DT_NF4_PAIRS, DT_INT8_ROWS, DT_IQ4_NL, DT_IQ4_XS, DT_IQ2_XXS, DT_IQ2_XS,  DT_IQ2_S, DT_IQ3_XXS,
        DT_IQ3_S,     DT_IQ1_S,     DT_IQ1_M,  DT_TQ1_0,  DT_TQ2_0,   DT_NVFP4,   DT_NF4};
    size_t total = (size_t)(quick ? 64 : 768) << 20;
    printf("%s, %u threads\n", backend_cpu_isa(s->b), pool_threads(s->pool));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) speed_decode(s, types[i], 3072, 3072, 1, total);
    for (uint32_t n = 2; n <= 6; n++) speed_decode(s, DT_BF16, 3072, 3072, n, total);
    speed_prefill(s, DT_BF16, 3072, 3072, 16);
    speed_prefill(s, DT_BF16, 3072, 3072, 64);
    speed_prefill(s, DT_BF16, 3072, 3072, 256);
    speed_prefill(s, DT_BF16, 8192, 3072, 256);
    speed_prefill(s, DT_BF16, 3072, 8192, 256);
    speed_prefill(s, DT_Q8_0, 3072, 3072, 256);
    speed_prefill(s, DT_Q4_0, 3072, 3072, 256);
    speed_prefill(s, DT_Q4_K, 3072, 3072, 256);
    speed_prefill(s, DT_Q6_K, 3072, 3072, 256);
    speed_prefill(s, DT_F8_E4M3, 3072, 3072, 256);
    speed_prefill(s, DT_MXFP4_PAIRS, 3072, 3072, 256);
    speed_columns(s, DT_BF16, 3072, 3072, 1, total);
    speed_columns(s, DT_F8_E4M3, 3072, 3072, 1, total);
    speed_columns(s, DT_BF16, 3072, 3072, 4, total / 4);
    speed_columns(s, DT_BF16, 3072, 3072, 256, total / 16);
    speed_columns(s, DT_F8_E4M3, 3072, 3072, 256, total / 16);
    speed_columns(s, DT_BF16, 128, 512, 1, total / 4);
    speed_latent(s, 1, 8192, false);
    speed_latent(s, 1, 8192, true);
    speed_latent(s, 16, 1024, false);
    speed_attention(s, 1, 100000, false);
    speed_attention(s, 1, 100000, true);
    speed_attention(s, 256, 0, false);
    speed_attention(s, 1024, 0, false);
    speed_attention(s, 256, 4096, true);
}

static int speed_main(int argc, char **argv)
{
    static const struct {
        const char *name;
        lamina_isa isa;
    } known[] = {{"scalar", LAMINA_ISA_SCALAR},
                 {"avx2", LAMINA_ISA_AVX2},
                 {"avx512", LAMINA_ISA_AVX512},
                 {"neon", LAMINA_ISA_NEON}};
    bench s = {.m = memory_new()};
    uint32_t threads = argc > 3 ? (uint32_t)atoi(argv[3]) : os_cores();
    if (!s.m || pool_new(s.m, threads, &s.pool, NULL) != LAMINA_OK) return 1;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (argc > 2 ? strcmp(argv[2], known[i].name) != 0 : i == 0) continue; /* scalar only when asked for */
        if (backend_cpu_new(s.m, s.pool, known[i].isa, &s.b, NULL) != LAMINA_OK) return 1;
        if (!strcmp(backend_cpu_isa(s.b), known[i].name)) speed_level(&s, i == 0);
        s.b->ops->close(s.b);
    }
    pool_free(s.pool);
    return memory_free(s.m) == 0 ? 0 : 1;
}

#endif
