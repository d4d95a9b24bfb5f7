/* Types of stored numbers. A type is a row of a table: elements per block, bytes per block, names. */
#ifndef LAMINA_BASE_DTYPE_H
#define LAMINA_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dtype {
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_Q8_0, /* 32 elements: f16 scale d, 32 int8 q; value d * q */
    DT_Q4_0, /* 32 elements: f16 scale d, 16 bytes; value d * (nibble - 8); byte j: elements j (low), j + 16 (high) */
    DT_Q4_1, /* 32 elements: f16 scale d, f16 minimum m, 16 bytes as Q4_0; value d * nibble + m */
    DT_Q5_0, /* 32 elements: f16 d, 32 high bits (bit i: element i), 16 bytes as Q4_0; value d * (q - 16) */
    DT_Q5_1, /* 32 elements: f16 d, f16 m, 32 high bits, 16 bytes as Q4_0; value d * q + m */
    /* Super-blocks of 256 elements, i the element. Their products are exact in f32, so a value is rounded once at most,
     * by the subtraction. */
    DT_Q2_K, /* 16 scale bytes s, 64 bytes, f16 d, f16 dmin: byte 32 * (i / 128) + i % 32, bits 2 * (i / 32 % 4), is q;
                value d * (s & 15) * q - dmin * (s >> 4), s of i / 16 */
    DT_Q3_K, /* 32 bytes of high bits (byte i % 32, bit i / 32), 64 bytes as Q2_K, 12 bytes of 16 6-bit scales s, f16 d:
                value d * (s - 32) * (q + 4 * high - 4), s of i / 16 */
    DT_Q4_K, /* f16 d, f16 dmin, 12 bytes of 8 6-bit scales s and minimums m, 128 bytes: byte 32 * (i / 64) + i % 32, low
                nibble where i / 32 is even, is q; value d * s * q - dmin * m, s and m of i / 32 */
    DT_Q5_K, /* f16 d, f16 dmin, 12 bytes as Q4_K, 32 bytes of high bits as Q3_K, 128 bytes as Q4_K */
    DT_Q6_K, /* 128 bytes: byte 64 * (i / 128) + i % 64, low nibble where i / 64 is even; 64 bytes: byte 32 * (i / 128) +
                i % 32, bits 2 * (i / 32 % 4), are bits 4 and 5 of q; 16 int8 scales s, f16 d; value d * s * (q - 32) */
    DT_F8_E4M3,     /* OCP OFP8: 4 bits of exponent, no infinity, NaN 0x7f and 0xff */
    DT_F8_E5M2,     /* the upper half of an f16 */
    DT_MXFP4,       /* 32 elements: e8m0 scale e, 16 bytes as Q4_0; value fp4(nibble) * 2^(e - 127) */
    DT_MXFP4_PAIRS, /* 32 elements: 16 bytes, byte j: elements 2j (low), 2j + 1 (high); the scales lie elsewhere */
    /* GGUF's types of levels, codebooks and ternary digits. Scales in order of their use; every product is exact in f32
     * unless it passes its range. Nibbles of IQ4_NL and IQ4_XS lie as in Q4_0, NVFP4's within 16 elements. A sign is a
     * bit, the first element's the lowest, set: negative; where seven bits stand for eight signs, the eighth makes the
     * number of negative ones even. A grid's entry is 8 elements (IQ2, IQ1) or 4 (IQ3). Words are little-endian. */
    DT_IQ4_NL,  /* 32 elements: f16 d, 16 bytes; value d * level[nibble], levels -127 .. 113 */
    DT_IQ4_XS,  /* 256: f16 d, u16 h, 4 bytes l, 128 bytes; of each 32: s = nibble of l | two bits of h << 4,
                 * value d * (s - 32) * level[nibble] */
    DT_IQ2_XXS, /* 256: f16 d; of each 32: 4 bytes of index, u32 of 4 x 7 signs and 4 bits s; d * (s + 1/2) / 4 * grid */
    DT_IQ2_XS,  /* 256: f16 d, 32 u16 of 9 bits of index and 7 signs, 8 bytes s, a nibble for each 16; as IQ2_XXS */
    DT_IQ2_S,   /* 256: f16 d, 32 bytes of index, 32 of signs, 8 of two more bits of index, 8 bytes s; as IQ2_XS */
    DT_IQ3_XXS, /* 256: f16 d, 64 bytes of index, 8 u32 as in IQ2_XXS; d * (s + 1/2) / 2 * grid */
    DT_IQ3_S,   /* 256: f16 d, 64 bytes of index, 8 of one more bit, 32 of signs, 4 bytes s; d * (2 s + 1) * grid */
    DT_IQ1_S,   /* 256: f16 d, 32 bytes of index, 8 u16: 4 x 3 more bits, 3 bits s, the sign of 1/8;
                 * d * (2 s + 1) * (grid +- 1/8) */
    DT_IQ1_M,   /* 256: 32 bytes of index, 16 of 2 x 3 more bits and the sign of 1/8, 4 u16 of 4 x 3 bits s, for each
                 * 16, and a nibble of f16 d; as IQ1_S */
    DT_TQ1_0,   /* 256: 48 bytes of five ternary digits, 4 of four, f16 d; value d * (digit - 1): byte q's digit n is
                 * (q * 3^n mod 256) * 3 / 256; digits lie apart by 32 bytes, by 16, by 4 */
    DT_TQ2_0,   /* 256: 64 bytes, f16 d; value d * (two bits - 1), which lie apart by 32 */
    DT_NVFP4,   /* 64: 4 bytes e4m3 without a sign s, one for each 16, 32 bytes; value fp4(nibble) * s */
    DT_NF4,     /* 64: f16 d, 32 bytes as NF4_PAIRS; value d * nf4[nibble]. 4.25 bits: an f16 scale is exact to 2^-12,
                 * the levels are a tenth apart */
    /* bitsandbytes, whose scales lie elsewhere, one f32 for a run of a row's elements */
    DT_NF4_PAIRS, /* 32 elements: 16 bytes, byte j: elements 2j (high), 2j + 1 (low); value nf4[nibble] * s */
    DT_FP4_PAIRS, /* the same; value fp4[nibble] * s, bitsandbytes' own: 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4 and -. */
    DT_INT8_ROWS, /* int8 q; value (q * s) * (1 / 127), each rounded */
    DT_BF16_PACKED3, /* half floats coded by rows, see store/packed.h: exponents of three bits, of four */
    DT_BF16_PACKED4,
    DT_F16_PACKED3,
    DT_WEIGHTS, /* types above can be weights that kernels apply */
    /* seen in files, never applied */
    DT_F64 = DT_WEIGHTS,
    DT_I64,
    DT_I32,
    DT_I16,
    DT_I8,
    DT_U64,
    DT_U32,
    DT_U16,
    DT_U8,
    DT_BOOL,
    DT_OTHER, /* a GGUF type that this version does not compute; its number is kept beside it */
    DT_COUNT
} dtype;

typedef struct dtype_info {
    const char *name;             /* "bf16", "q4_1" */
    const char *safetensors_name; /* "BF16"; NULL: not a safetensors type */
    int32_t gguf_type;            /* -1: none */
    uint32_t block_elements;      /* 0: not known, or packed */
    uint32_t block_bytes;
} dtype_info;

extern const dtype_info dtype_table[DT_COUNT];

static inline const char *dtype_name(dtype t)
{
    return dtype_table[t].name;
}
/* Bytes of a row of k elements; k must be a multiple of block_elements (dtype_row_ok). 0 on overflow. Of packed types
 * 0: their tensors say how long rows are. */
uint64_t dtype_row_bytes(dtype t, uint64_t k);
bool dtype_row_ok(dtype t, uint64_t k);
static inline bool dtype_is_f8(dtype t)
{
    return t == DT_F8_E4M3 || t == DT_F8_E5M2;
}
bool dtype_has_scales(dtype t);                          /* f32 that lie elsewhere */
bool dtype_from_safetensors(const char *name, dtype *t); /* false: unknown */
bool dtype_from_gguf(uint32_t type, dtype *t);           /* unknown numbers give DT_OTHER and true up to 1000 */
const char *dtype_gguf_name(uint32_t type);              /* ggml's name for a number, "Q6_K"; "unknown" */
bool dtype_from_name(const char *name, dtype *t);        /* "bf16", "float16", "bfloat16", "float32" too */

/* Levels of bitsandbytes' two types of four bits (bitsandbytes/functional.py, get_4bit_type). */
#define LEVELS_NF4                                                                                                     \
    -1.0f, -0x1.647362p-1f, -0x1.0cd660p-1f, -0x1.946540p-2f, -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f, \
        0x1.45f5fep-4f, 0x1.4995c6p-3f, 0x1.f809bap-3f, 0x1.5a0674p-2f, 0x1.c34970p-2f, 0x1.200f56p-1f,                \
        0x1.722766p-1f, 1.0f
#define LEVELS_BNB_FP4                                                                                                 \
    0.0f, 0x1.555556p-8f, 0x1.555556p-1f, 1.0f, 0x1.555556p-2f, 0.5f, 0x1.555556p-3f, 0.25f, 0.0f, -0x1.555556p-8f,    \
        -0x1.555556p-1f, -1.0f, -0x1.555556p-2f, -0.5f, -0x1.555556p-3f, -0.25f

/* Exact conversions (f16: IEEE 754 binary16, round to nearest even). */
float f16_to_f32(uint16_t h);
uint16_t f16_from_f32(float f);
float f8_e4m3_to_f32(uint8_t c); /* the OCP's FP8 (Micikevicius et al. 2022): e4m3 has no infinities, e5m2 is IEEE's */
float f8_e5m2_to_f32(uint8_t c);
static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } x = {(uint32_t)h << 16};
    return x.f;
}

#endif
