/* The table of types and the half-float conversions, over all 65536 values and both neighbours of every boundary. */
#include "base/dtype.h"
#include "test.h"

#include <math.h>

static void table_is_whole(void)
{
    for (unsigned i = 0; i < DT_COUNT; i++) {
        dtype t = (dtype)i, found;
        const dtype_info *info = &dtype_table[i];
        REQUIRE(info->name, "%u", i);
        if (t == DT_OTHER) continue;
        bool packed = t >= DT_BF16_PACKED3 && t < DT_WEIGHTS; /* rows without blocks */
        CHECK(packed ? !dtype_row_ok(t, 64) : info->block_elements && info->block_bytes, "%s", info->name);
        CHECK(dtype_from_name(info->name, &found) && found == t, "%s", info->name);
        if (info->safetensors_name) {
            CHECK(dtype_from_safetensors(info->safetensors_name, &found) && found == t, "%s", info->name);
        }
        if (info->gguf_type >= 0) {
            CHECK(dtype_from_gguf((uint32_t)info->gguf_type, &found) && found == t, "%s", info->name);
        }
    }
}

static void gguf_numbers(void)
{
    static const struct {
        uint32_t number;
        dtype t;
        const char *name;
    } known[] = {
        {0, DT_F32, "F32"},          {1, DT_F16, "F16"},    {2, DT_Q4_0, "Q4_0"},   {3, DT_Q4_1, "Q4_1"},
        {8, DT_Q8_0, "Q8_0"},        {30, DT_BF16, "BF16"}, {28, DT_F64, "F64"},    {24, DT_I8, "I8"},
        {25, DT_I16, "I16"},         {26, DT_I32, "I32"},   {27, DT_I64, "I64"},    {14, DT_Q6_K, "Q6_K"},
        {12, DT_Q4_K, "Q4_K"},       {6, DT_Q5_0, "Q5_0"},  {15, DT_OTHER, "Q8_K"}, {4, DT_OTHER, "unknown"},
        {1000, DT_OTHER, "unknown"},
    };
    dtype t;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        CHECK(dtype_from_gguf(known[i].number, &t) && t == known[i].t, "%u", known[i].number);
        CHECK(strcmp(dtype_gguf_name(known[i].number), known[i].name) == 0, "%u", known[i].number);
    }
    CHECK(!dtype_from_gguf(1001, &t));
    CHECK(!dtype_from_gguf(UINT32_MAX, &t));
}

static void names(void)
{
    dtype t;
    CHECK(dtype_from_name("bfloat16", &t) && t == DT_BF16);
    CHECK(dtype_from_name("float16", &t) && t == DT_F16);
    CHECK(dtype_from_name("float32", &t) && t == DT_F32);
    CHECK(!dtype_from_name("other", &t));
    CHECK(!dtype_from_name("", &t));
    CHECK(!dtype_from_safetensors("bf16", &t));
    CHECK(!dtype_from_safetensors("", &t));
}

static void row_bytes(void)
{
    CHECK(dtype_row_bytes(DT_F32, 10) == 40);
    CHECK(dtype_row_bytes(DT_Q4_1, 64) == 40);
    CHECK(dtype_row_bytes(DT_Q8_0, 576) == 612);
    CHECK(dtype_row_ok(DT_Q8_0, 576) && !dtype_row_ok(DT_Q8_0, 577));
    CHECK(dtype_row_bytes(DT_F32, UINT64_MAX / 4 + 1) == 0);
    CHECK(dtype_row_bytes(DT_Q8_0, UINT64_MAX / 34 * 32) != 0);
    CHECK(dtype_row_bytes(DT_Q8_0, UINT64_MAX) == 0);
    CHECK(!dtype_row_ok(DT_OTHER, 32) && dtype_row_bytes(DT_OTHER, 32) == 0);
}

/* IEEE 754 binary16 by its definition. */
static float half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) v = fraction ? NAN : INFINITY;
    return (float)(h & 0x8000 ? -v : v);
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static void every_half(void)
{
    int wrong_out = 0, wrong_back = 0;
    for (uint32_t u = 0; u < 65536; u++) {
        uint16_t h = (uint16_t)u;
        float want = half_value(h), got = f16_to_f32(h);
        if (isnan(want)) {
            wrong_out += !isnan(got);
            uint16_t back = f16_from_f32(got);
            wrong_back += (back & 0x7C00) != 0x7C00 || !(back & 0x3FF) || (back & 0x8000) != (h & 0x8000);
        } else {
            wrong_out += bits_of(want) != bits_of(got);
            wrong_back += f16_from_f32(got) != h;
        }
    }
    CHECK(wrong_out == 0, "%d values", wrong_out);
    CHECK(wrong_back == 0, "%d values", wrong_back);
}

/* Between any two neighbours: the middle goes to the even one, and the floats beside the middle to their own side. */
static void every_boundary(void)
{
    int wrong = 0;
    for (uint32_t u = 0; u < 0x7C00; u++) {
        double low = half_value((uint16_t)u), high = u == 0x7BFF ? 65536.0 : half_value((uint16_t)(u + 1));
        float middle = (float)((low + high) / 2); /* exact: one bit more than a half has */
        for (uint32_t sign = 0; sign < 2; sign++) {
            float s = sign ? -1.0f : 1.0f;
            uint32_t top = sign << 15, even = u & 1 ? u + 1 : u;
            wrong += f16_from_f32(s * middle) != (top | even);
            wrong += f16_from_f32(s * nextafterf(middle, 0)) != (top | u);
            wrong += f16_from_f32(s * nextafterf(middle, INFINITY)) != (top | (u + 1));
        }
    }
    CHECK(wrong == 0, "%d of %d", wrong, 0x7C00 * 6);
    CHECK(f16_from_f32(3e38f) == 0x7C00 && f16_from_f32(-INFINITY) == 0xFC00);
    CHECK(f16_from_f32(1e-45f) == 0 && f16_from_f32(-1e-45f) == 0x8000);
}

static void bf16(void)
{
    CHECK(bf16_to_f32(0x3F80) == 1.0f);
    CHECK(bf16_to_f32(0xC000) == -2.0f);
    CHECK(isnan(bf16_to_f32(0x7FC0)) && isinf(bf16_to_f32(0x7F80)));
}

TEST_MAIN(T(table_is_whole), T(gguf_numbers), T(names), T(row_bytes), T(every_half), T(every_boundary), T(bf16))
