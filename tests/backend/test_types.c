/* Types of files against the reference that others wrote: blocks of random bytes and their elements, from
 * tests/data/types.bin (tools/golden_types.py). The specification and every level must give each bit. */
#include "levels.h"

typedef struct type_case {
    dtype type;
    uint32_t elements, bytes;
    const uint8_t *data;
    float *expected;
} type_case;

enum { HEAD = 24 };

static uint8_t *load(size_t *bytes)
{
    FILE *f = fopen(TEST_DATA "/types.bin", "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) abort();
    *bytes = (size_t)ftell(f);
    uint8_t *all = take(*bytes);
    rewind(f);
    if (fread(all, 1, *bytes, f) != *bytes) abort();
    fclose(f);
    return all;
}

/* The case at `at`, which moves behind it; false at the end. */
static bool next_case(const uint8_t *all, size_t bytes, size_t *at, type_case *c)
{
    char name[17] = {0};
    if (*at == bytes) return false;
    if (bytes - *at < HEAD) abort();
    memcpy(name, all + *at, 16);
    memcpy(&c->elements, all + *at + 16, 4);
    memcpy(&c->bytes, all + *at + 20, 4);
    if (!dtype_from_name(name, &c->type) || bytes - *at - HEAD < c->bytes + 4 * (size_t)c->elements) abort();
    c->data = all + *at + HEAD;
    c->expected = take(4 * (size_t)c->elements);
    memcpy(c->expected, c->data + c->bytes, 4 * (size_t)c->elements);
    *at += HEAD + c->bytes + 4 * (size_t)c->elements;
    return true;
}

static void check_case(const type_case *c)
{
    float *x = take(4 * (size_t)c->elements);
    matrix_rows w = {.type = c->type, .data = c->data, .n_rows = 1, .cols = c->elements};
    CHECK(dtype_row_bytes(c->type, c->elements) == c->bytes, "%s: bytes of a block", dtype_name(c->type));
    for (uint32_t i = 0; i < c->elements; i++) x[i] = spec_weight(&w, 0, i);
    CHECK_SAME(x, c->expected, c->elements, "%s", dtype_name(c->type));
    for (size_t i = 0; i < n_backends; i++) {
        backends[i]->ops->widen(backends[i], &w, x);
        CHECK_SAME(x, c->expected, c->elements, "%s on %s", dtype_name(c->type), backend_cpu_isa(backends[i]));
    }
    free(x);
}

static void elements_are_the_reference(void)
{
    size_t bytes, at = 0;
    uint32_t n = 0;
    uint8_t *all = load(&bytes);
    for (type_case c; next_case(all, bytes, &at, &c); n++) {
        check_case(&c);
        free(c.expected);
    }
    CHECK(n >= 23, "%u types", n);
    free(all);
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(elements_are_the_reference)};
    if (!setup()) return 1;
    int result = test_main(argc, argv, cases, sizeof cases / sizeof *cases);
    return teardown() ? result : 1;
}
