/* Owns the table of stored number types and the exact conversions of half floats. The numbers are those of the
 * safetensors header and of GGUF (ggml's enum ggml_type); what is not a row of the table is DT_OTHER, known by name. */
#include "base/dtype.h"

#include <math.h>
#include <string.h>

const dtype_info dtype_table[DT_COUNT] = {
    [DT_F32] = {"f32", "F32", 0, 1, 4},
    [DT_F16] = {"f16", "F16", 1, 1, 2},
    [DT_BF16] = {"bf16", "BF16", 30, 1, 2},
    [DT_Q8_0] = {"q8_0", NULL, 8, 32, 34},
    [DT_Q4_0] = {"q4_0", NULL, 2, 32, 18},
    [DT_Q4_1] = {"q4_1", NULL, 3, 32, 20},
    [DT_Q5_0] = {"q5_0", NULL, 6, 32, 22},
    [DT_Q5_1] = {"q5_1", NULL, 7, 32, 24},
    [DT_Q2_K] = {"q2_k", NULL, 10, 256, 84},
    [DT_Q3_K] = {"q3_k", NULL, 11, 256, 110},
    [DT_Q4_K] = {"q4_k", NULL, 12, 256, 144},
    [DT_Q5_K] = {"q5_k", NULL, 13, 256, 176},
    [DT_Q6_K] = {"q6_k", NULL, 14, 256, 210},
    [DT_F8_E4M3] = {"f8_e4m3", "F8_E4M3", -1, 1, 1},
    [DT_F8_E5M2] = {"f8_e5m2", "F8_E5M2", -1, 1, 1},
    [DT_MXFP4] = {"mxfp4", NULL, 39, 32, 17},
    [DT_MXFP4_PAIRS] = {"mxfp4_pairs", NULL, -1, 32, 16},
    [DT_IQ4_NL] = {"iq4_nl", NULL, 20, 32, 18},
    [DT_IQ4_XS] = {"iq4_xs", NULL, 23, 256, 136},
    [DT_IQ2_XXS] = {"iq2_xxs", NULL, 16, 256, 66},
    [DT_IQ2_XS] = {"iq2_xs", NULL, 17, 256, 74},
    [DT_IQ2_S] = {"iq2_s", NULL, 22, 256, 82},
    [DT_IQ3_XXS] = {"iq3_xxs", NULL, 18, 256, 98},
    [DT_IQ3_S] = {"iq3_s", NULL, 21, 256, 110},
    [DT_IQ1_S] = {"iq1_s", NULL, 19, 256, 50},
    [DT_IQ1_M] = {"iq1_m", NULL, 29, 256, 56},
    [DT_TQ1_0] = {"tq1_0", NULL, 34, 256, 54},
    [DT_TQ2_0] = {"tq2_0", NULL, 35, 256, 66},
    [DT_NVFP4] = {"nvfp4", NULL, 40, 64, 36},
    [DT_BF16_PACKED3] = {"bf16_packed3", NULL, -1, 0, 0},
    [DT_BF16_PACKED4] = {"bf16_packed4", NULL, -1, 0, 0},
    [DT_F16_PACKED3] = {"f16_packed3", NULL, -1, 0, 0},
    [DT_NF4] = {"nf4", NULL, -1, 64, 34},
    [DT_NF4_PAIRS] = {"nf4_pairs", NULL, -1, 32, 16},
    [DT_FP4_PAIRS] = {"fp4_pairs", NULL, -1, 32, 16},
    [DT_INT8_ROWS] = {"int8_rows", NULL, -1, 1, 1},
    [DT_F64] = {"f64", "F64", 28, 1, 8},
    [DT_I64] = {"i64", "I64", 27, 1, 8},
    [DT_I32] = {"i32", "I32", 26, 1, 4},
    [DT_I16] = {"i16", "I16", 25, 1, 2},
    [DT_I8] = {"i8", "I8", 24, 1, 1},
    [DT_U64] = {"u64", "U64", -1, 1, 8},
    [DT_U32] = {"u32", "U32", -1, 1, 4},
    [DT_U16] = {"u16", "U16", -1, 1, 2},
    [DT_U8] = {"u8", "U8", -1, 1, 1},
    [DT_BOOL] = {"bool", "BOOL", -1, 1, 1},
    [DT_OTHER] = {"other", NULL, -1, 0, 0},
};

bool dtype_has_scales(dtype t)
{
    return t == DT_F8_E4M3 || t == DT_F8_E5M2 || t == DT_NF4_PAIRS || t == DT_FP4_PAIRS || t == DT_INT8_ROWS;
}

uint64_t dtype_row_bytes(dtype t, uint64_t k)
{
    const dtype_info *info = &dtype_table[t];
    if (info->block_elements == 0) return 0;
    uint64_t blocks = k / info->block_elements;
    if (blocks > UINT64_MAX / info->block_bytes) return 0;
    return blocks * info->block_bytes;
}

bool dtype_row_ok(dtype t, uint64_t k)
{
    uint32_t block = dtype_table[t].block_elements;
    return block != 0 && k % block == 0;
}

bool dtype_from_safetensors(const char *name, dtype *t)
{
    for (unsigned i = 0; i < DT_COUNT; i++) {
        if (dtype_table[i].safetensors_name && strcmp(name, dtype_table[i].safetensors_name) == 0) {
            *t = (dtype)i;
            return true;
        }
    }
    return false;
}

bool dtype_from_gguf(uint32_t type, dtype *t)
{
    if (type > 1000) return false;
    *t = DT_OTHER;
    for (unsigned i = 0; i < DT_COUNT; i++) {
        if (dtype_table[i].gguf_type == (int32_t)type) *t = (dtype)i;
    }
    return true;
}

const char *dtype_gguf_name(uint32_t type)
{
    static const char *const names[] = {
        [0] = "F32",     [1] = "F16",    [2] = "Q4_0",     [3] = "Q4_1",    [6] = "Q5_0",     [7] = "Q5_1",
        [8] = "Q8_0",    [9] = "Q8_1",   [10] = "Q2_K",    [11] = "Q3_K",   [12] = "Q4_K",    [13] = "Q5_K",
        [14] = "Q6_K",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
        [20] = "IQ4_NL", [21] = "IQ3_S", [22] = "IQ2_S",   [23] = "IQ4_XS", [24] = "I8",      [25] = "I16",
        [26] = "I32",    [27] = "I64",   [28] = "F64",     [29] = "IQ1_M",  [30] = "BF16",    [34] = "TQ1_0",
        [35] = "TQ2_0",  [39] = "MXFP4", [40] = "NVFP4",   [41] = "Q1_0",
    };
    const char *name = type < sizeof names / sizeof *names ? names[type] : NULL;
    return name ? name : "unknown";
}

bool dtype_from_name(const char *name, dtype *t)
{
    static const struct {
        const char *name;
        dtype t;
    } aliases[] = {
        {"float32", DT_F32},         {"float", DT_F32},   {"float16", DT_F16}, {"half", DT_F16},
        {"bfloat16", DT_BF16},       {"float64", DT_F64}, {"double", DT_F64},  {"float8_e4m3fn", DT_F8_E4M3},
        {"float8_e5m2", DT_F8_E5M2},
    };
    for (unsigned i = 0; i < DT_OTHER; i++) {
        if (strcmp(name, dtype_table[i].name) == 0) {
            *t = (dtype)i;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (strcmp(name, aliases[i].name) == 0) {
            *t = aliases[i].t;
            return true;
        }
    }
    return false;
}

typedef union bits32 {
    uint32_t u;
    float f;
} bits32;

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3FF;
    bits32 x;
    if (exponent == 31) {
        x.u = sign | 0x7F800000 | fraction << 13;
    } else if (exponent == 0) {
        x.f = (float)fraction * 0x1p-24f; /* exact: ten bits and a power of two */
        x.u |= sign;
    } else {
        x.u = sign | (exponent + 112) << 23 | fraction << 13;
    }
    return x.f;
}

float f8_e4m3_to_f32(uint8_t c)
{
    if ((c & 0x7f) == 0x7f) return NAN;
    return f16_to_f32((uint16_t)((c & 0x80) << 8 | (c & 0x7f) << 7)) * 0x1p+8f;
}

float f8_e5m2_to_f32(uint8_t c)
{
    return f16_to_f32((uint16_t)(c << 8));
}

uint16_t f16_from_f32(float f)
{
    bits32 x = {.f = f};
    uint32_t sign = x.u >> 16 & 0x8000, u = x.u & 0x7FFFFFFF;
    uint32_t h;
    if (u > 0x7F800000) {
        h = 0x7E00 | (u >> 13 & 0x3FF); /* a quiet NaN that keeps what fits of its payload */
    } else if (u >= 0x477FF000) {
        h = 0x7C00; /* 65520 and above, half way to 2^16, rounds to infinity */
    } else if (u < 0x33000000) {
        h = 0;                   /* below 2^-25, half of the least denormal */
    } else if (u < 0x38800000) { /* denormal: the significand is shifted until its unit is 2^-24 */
        uint32_t shift = 126 - (u >> 23), m = (u & 0x7FFFFF) | 0x800000;
        uint32_t rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
        h = m >> shift;
        h += rest > half || (rest == half && (h & 1));
    } else {
        uint32_t rest = u & 0x1FFF;
        h = (u - 0x38000000) >> 13;
        h += rest > 0x1000 || (rest == 0x1000 && (h & 1)); /* a carry into the exponent is right */
    }
    return (uint16_t)(sign | h);
}
