/* Rows of `packed`: coding gives every bit back, and every level of this machine computes with them what it computes
 * with the numbers as they were, also where the bytes are foreign. `test_backend_packed --speed [level]` measures. */
#include "levels.h"

#include "base/os.h"
#include "store/packed.h"

static const dtype types[] = {DT_BF16_PACKED3, DT_BF16_PACKED4, DT_F16_PACKED3};
enum { TYPES = sizeof types / sizeof *types };

typedef enum content { NORMAL, ANY_BITS, EQUAL, FEW_ODD, CONTENTS } content;

static uint16_t number(const packed_form *f, content c, uint64_t i)
{
    static const uint16_t odd[] = {0, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0x0001, 0x7c00, 0xfc00, 0x7e01, 0xffff};
    if (c == ANY_BITS) return (uint16_t)random_bits();
    if (c == EQUAL) return 0x3c01;
    if (c == FEW_ODD && random_below(9) == 0) return odd[random_below(sizeof odd / sizeof *odd)];
    float x = 0.02f * (random_float() + random_float() + random_float() + (float)(i % 7) * 1e-3f);
    return f->of == DT_BF16 ? (uint16_t)(bits_of(x) >> 16) : f16_from_f32(x);
}

/* A matrix of numbers and the same coded, which ends at the end of its pages. */
typedef struct pair {
    const packed_form *f;
    uint64_t rows, k, row_bytes;
    uint16_t *plain;
    guarded g;
    uint8_t *packed;
} pair;

static void pair_new(pair *p, dtype type, uint64_t rows, uint64_t k, content c)
{
    *p = (pair){.f = packed_form_of(type), .rows = rows, .k = k, .plain = take(rows * k * 2)};
    uint64_t capacity = random_below(3);
    for (uint64_t i = 0; i < rows * k; i++) p->plain[i] = number(p->f, c, i);
    for (uint64_t r = 0; r < rows; r++) {
        uint64_t n = packed_escapes(p->f, p->plain + r * k, k);
        if (n > capacity) capacity = n;
    }
    p->row_bytes = packed_row_bytes(p->f, k, capacity);
    p->g = guarded_new(rows * p->row_bytes);
    p->packed = p->g.base + p->g.bytes - rows * p->row_bytes;
    for (uint64_t r = 0; r < rows; r++)
        packed_encode(p->f, p->plain + r * k, k, capacity, p->packed + r * p->row_bytes);
}

/* Foreign bytes: what they mean is what decoding says. */
static void pair_foreign(pair *p, dtype type, uint64_t rows, uint64_t k)
{
    *p = (pair){.f = packed_form_of(type), .rows = rows, .k = k, .plain = take(rows * k * 2)};
    p->row_bytes = packed_row_bytes(p->f, k, random_below(40) % (k + 1));
    p->g = guarded_new(rows * p->row_bytes);
    p->packed = p->g.base + p->g.bytes - rows * p->row_bytes;
    uint8_t all = random_below(3) ? 0 : 0xFF; /* as many escapes as there can be */
    for (uint64_t i = 0; i < rows * p->row_bytes; i++) p->packed[i] = (uint8_t)random_bits() | all;
    for (uint64_t r = 0; r < rows; r++) /* section by section, as kernels that begin there do */
        for (uint64_t i = 0; i < k; i += PACKED_SECTION)
            packed_decode(p->f, p->packed + r * p->row_bytes, p->row_bytes, k, i,
                          k - i < PACKED_SECTION ? k - i : PACKED_SECTION, p->plain + r * k + i);
}

static void pair_free(pair *p)
{
    free(p->plain);
    guarded_free(p->g);
}

static matrix_rows plain_of(const pair *p)
{
    return (matrix_rows){.type = p->f->of, .data = p->plain, .n_rows = p->rows, .cols = p->k};
}

static matrix_rows packed_of(const pair *p)
{
    return (matrix_rows){
        .type = p->f->type, .data = p->packed, .n_rows = p->rows, .cols = p->k, .row_bytes = p->row_bytes};
}

static const uint64_t widths[] = {1,   31,  32,   33,   63,   64,   65,   96,   100,
                                  128, 576, 1000, 1024, 1025, 1088, 2048, 3072, 4200};

static void every_bit_comes_back(void)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int t = 0; t < TYPES; t++)
            for (content c = 0; c < CONTENTS; c++) {
                pair p;
                pair_new(&p, types[t], 3, widths[i], c);
                uint16_t *got = take(p.k * 2);
                for (uint64_t r = 0; r < p.rows; r++) {
                    uint64_t k0 = random_below((uint32_t)p.k), n = 1 + random_below((uint32_t)(p.k - k0));
                    packed_decode(p.f, p.packed + r * p.row_bytes, p.row_bytes, p.k, 0, p.k, got);
                    CHECK(!memcmp(got, p.plain + r * p.k, p.k * 2), "%s of %llu, content %d", dtype_name(types[t]),
                          (unsigned long long)p.k, (int)c);
                    packed_decode(p.f, p.packed + r * p.row_bytes, p.row_bytes, p.k, k0, n, got);
                    CHECK(!memcmp(got, p.plain + r * p.k + k0, n * 2), "a part of %s", dtype_name(types[t]));
                }
                free(got);
                pair_free(&p);
            }
}

/* What packing asks of each row that it has made. */
static void turned_bits_are_seen(void)
{
    size_t seen = 0, tried = 0;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int t = 0; t < TYPES; t++)
            for (content c = 0; c < CONTENTS; c++) {
                pair p;
                pair_new(&p, types[t], 1, widths[i], c);
                uint16_t *got = take(p.k * 2);
                CHECK(packed_is(p.f, p.packed, p.row_bytes, p.plain, p.k), "%s of %llu, content %d",
                      dtype_name(types[t]), (unsigned long long)p.k, (int)c);
                for (uint64_t at = random_below(7); at < p.row_bytes; at += 1 + random_below(19), tried++) {
                    uint8_t bit = (uint8_t)(1u << random_below(8));
                    p.packed[at] ^= bit;
                    for (uint64_t k = 0; k < p.k; k += PACKED_SECTION)
                        packed_decode(p.f, p.packed, p.row_bytes, p.k, k,
                                      p.k - k < PACKED_SECTION ? p.k - k : PACKED_SECTION, got + k);
                    bool is = packed_is(p.f, p.packed, p.row_bytes, p.plain, p.k);
                    CHECK(!is || !memcmp(got, p.plain, p.k * 2), "%s of %llu, content %d: byte %llu",
                          dtype_name(types[t]), (unsigned long long)p.k, (int)c, (unsigned long long)at);
                    seen += !is;
                    p.packed[at] ^= bit;
                }
                free(got);
                pair_free(&p);
            }
    CHECK(seen > tried / 2, "%zu of %zu", seen, tried);
}

static void every_pattern_comes_back(void)
{
    uint16_t *all = take(65536 * 2), *got = take(65536 * 2);
    for (uint32_t i = 0; i < 65536; i++) all[i] = (uint16_t)i;
    for (int t = 0; t < TYPES; t++) {
        const packed_form *f = packed_form_of(types[t]);
        uint32_t capacity = packed_escapes(f, all, 65536);
        REQUIRE(capacity != UINT32_MAX, "%s has room", dtype_name(types[t]));
        uint64_t bytes = packed_row_bytes(f, 65536, capacity);
        uint8_t *row = take(bytes);
        packed_encode(f, all, 65536, capacity, row);
        CHECK(packed_is(f, row, bytes, all, 65536), "%s", dtype_name(types[t]));
        packed_decode(f, row, bytes, 65536, 0, 65536, got);
        CHECK(!memcmp(all, got, 65536 * 2), "%s loses bits", dtype_name(types[t]));
        CHECK(packed_row_ok(f, 65536, bytes), "a row it made");
        CHECK(!packed_row_ok(f, 65536, packed_row_bytes(f, 65536, 0) - 1), "a row too short");
        CHECK(!packed_row_ok(f, 0, 100) && !packed_row_ok(f, 64, 100000), "impossible rows");
        free(row);
    }
    free(all), free(got);
}

/* The escapes of a row of a million elements of all kinds cannot be counted in its starts. */
static void too_many_escapes_are_refused(void)
{
    uint16_t *row = take(1000000 * 2);
    for (uint32_t i = 0; i < 1000000; i++) row[i] = (uint16_t)random_bits();
    CHECK(packed_escapes(packed_form_of(DT_BF16_PACKED3), row, 1000000) == UINT32_MAX, "accepted");
    CHECK(packed_form_of(DT_BF16) == NULL, "bf16 is not packed");
    free(row);
}

static void compare(const pair *p, backend *b, const char *what)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 7, 40};
    matrix_rows plain = plain_of(p), packed = packed_of(p);
    const backend_ops *o = b->ops;
    float *x = take(40 * p->k * 4), *want = take(40 * p->rows * 4), *got = take(40 * p->rows * 4);
    fill_floats(x, 40 * p->k, false);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        void *in = take(o->packed_bytes(b, counts[i], p->k));
        o->pack(b, x, counts[i], p->k, in);
        o->apply(b, &plain, in, counts[i], want, p->rows);
        o->apply(b, &packed, in, counts[i], got, p->rows);
        CHECK_SAME(got, want, counts[i] * p->rows, "%s %s %llux%llu by %u on %s", what, dtype_name(p->f->type),
                   (unsigned long long)p->rows, (unsigned long long)p->k, counts[i], backend_cpu_isa(b));
        free(in);
    }
    float *wide = take(p->rows * p->k * 4), *wide_got = take(p->rows * p->k * 4);
    o->widen(b, &plain, wide);
    o->widen(b, &packed, wide_got);
    CHECK_SAME(wide_got, wide, p->rows * p->k, "%s widened on %s", what, backend_cpu_isa(b));
    o->row_norms(b, &plain, want);
    o->row_norms(b, &packed, got);
    CHECK_SAME(got, want, p->rows, "%s norms on %s", what, backend_cpu_isa(b));
    memset(wide, 0, 3 * p->k * 4), memset(wide_got, 0, 3 * p->k * 4);
    o->apply_columns(b, &plain, x, p->rows, 3, wide, p->k);
    o->apply_columns(b, &packed, x, p->rows, 3, wide_got, p->k);
    CHECK_SAME(wide_got, wide, 3 * p->k, "%s by columns on %s", what, backend_cpu_isa(b));
    free(x), free(want), free(got), free(wide), free(wide_got);
}

static void levels_compute_the_numbers(void)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int t = 0; t < TYPES; t++) {
            pair p;
            content c = (content)random_below(CONTENTS);
            pair_new(&p, types[t], 3 + random_below(20), widths[i], c);
            for (size_t b = 0; b < n_backends; b++) compare(&p, backends[b], "made");
            pair_free(&p);
        }
}

static void foreign_bytes_stay_inside(void)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (int t = 0; t < TYPES; t++) {
            pair p;
            pair_foreign(&p, types[t], 3 + random_below(6), widths[i]);
            if (p.k <= PACKED_SECTION) /* beyond it products go on from the list's own place, panels from the starts */
                for (size_t b = 0; b < n_backends; b++) compare(&p, backends[b], "foreign");
            float *x = take(p.k * 4), *y = take(p.rows * 4);
            matrix_rows m = packed_of(&p);
            fill_floats(x, p.k, false);
            for (size_t b = 0; b < n_backends; b++) {
                void *in = take(backends[b]->ops->packed_bytes(backends[b], 1, p.k));
                backends[b]->ops->pack(backends[b], x, 1, p.k, in);
                backends[b]->ops->apply(backends[b], &m, in, 1, y, p.rows); /* the guard is behind the last row */
                free(in);
            }
            free(x), free(y);
            pair_free(&p);
        }
}

/* ---- speed ------------------------------------------------------------------------------------------------------- */

enum { SPEED_ROWS = 8192, SPEED_K = 3072, SPEED_MATRICES = 8 };

static double speed_once(backend *b, matrix_rows *m, uint64_t row_bytes, const uint8_t *data, uint32_t n,
                         const void *in, float *y)
{
    double best = 0;
    for (int round = 0; round < 5; round++) {
        double t = os_seconds();
        for (int i = 0; i < SPEED_MATRICES; i++) {
            m->data = data + (uint64_t)i * SPEED_ROWS * row_bytes;
            b->ops->apply(b, m, in, n, y, SPEED_ROWS);
        }
        double rate = (double)SPEED_MATRICES * SPEED_ROWS * SPEED_K / (os_seconds() - t);
        if (rate > best) best = rate;
    }
    return best;
}

static int speed(int argc, char **argv)
{
    if (!setup()) return 1;
    for (size_t i = 0; i < n_backends; i++) {
        backend *b = backends[i];
        if (threads_of(i) > 2 || (argc > 2 && strcmp(argv[2], backend_cpu_isa(b)))) continue;
        double plain = 0;
        for (int t = -1; t < TYPES; t++) {
            const packed_form *f = packed_form_of(types[t < 0 ? 0 : t]);
            uint64_t total = (uint64_t)SPEED_MATRICES * SPEED_ROWS, row_bytes = SPEED_K * 2, capacity = 0;
            uint16_t *row = take(SPEED_K * 2);
            for (uint64_t j = 0; j < SPEED_K; j++) row[j] = number(f, NORMAL, j);
            capacity = packed_escapes(f, row, SPEED_K);
            if (t >= 0) row_bytes = packed_row_bytes(f, SPEED_K, capacity);
            uint8_t *data = take(total * row_bytes);
            if (t < 0)
                memcpy(data, row, SPEED_K * 2);
            else
                packed_encode(f, row, SPEED_K, capacity, data);
            for (uint64_t j = 1; j < total; j++) memcpy(data + j * row_bytes, data, row_bytes);
            matrix_rows m = {.type = t < 0 ? DT_BF16 : types[t], .n_rows = SPEED_ROWS, .cols = SPEED_K};
            m.row_bytes = row_bytes;
            for (uint32_t n = 1; n <= 256; n *= 4) {
                float *x = take(n * SPEED_K * 4), *y = take(n * SPEED_ROWS * 4);
                void *in = take(b->ops->packed_bytes(b, n, SPEED_K));
                fill_floats(x, n * SPEED_K, false);
                b->ops->pack(b, x, n, SPEED_K, in);
                double rate = speed_once(b, &m, row_bytes, data, n, in, y);
                if (t < 0 && n == 1) plain = rate;
                printf("%-7s %u threads %-13s n %3u  %6.2f Gweights/s, %6.2f GB/s of %.3f, over bf16 n 1: %.2f\n",
                       backend_cpu_isa(b), threads_of(i), dtype_name(m.type), n, rate / 1e9,
                       rate / SPEED_K * (double)row_bytes / 1e9, (double)row_bytes / (2 * SPEED_K), rate / plain);
                free(x), free(y), free(in);
            }
            free(row), free(data);
        }
    }
    return teardown() ? 0 : 1;
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(every_bit_comes_back),       T(turned_bits_are_seen),
                                      T(every_pattern_comes_back),   T(too_many_escapes_are_refused),
                                      T(levels_compute_the_numbers), T(foreign_bytes_stay_inside)};
    if (argc > 1 && !strcmp(argv[1], "--speed")) return speed(argc, argv);
    if (!setup()) return 1;
    int result = test_main(argc, argv, cases, sizeof cases / sizeof *cases);
    return teardown() ? result : 1;
}
