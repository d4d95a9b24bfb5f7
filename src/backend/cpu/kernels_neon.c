/* NEON of AArch64: sixteen lanes are four registers. Tails go through a copy on the stack: nothing outside of a row is
 * touched. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "grids.h"
#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

typedef struct v16 {
    float32x4_t a, b, c, d;
} v16;
typedef struct v32 {
    v16 lo, hi;
} v32;

#define EACH(f, x)     ((v16){f((x).a), f((x).b), f((x).c), f((x).d)})
#define EACH2(f, x, y) ((v16){f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)})
#define EACH3(f, x, y, z)                                                                                              \
    ((v16){f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c), f((x).d, (y).d, (z).d)})

INLINE v16 v16_set1(float f)
{
    float32x4_t x = vdupq_n_f32(f);
    return (v16){x, x, x, x};
}
INLINE v16 v16_zero(void)
{
    return v16_set1(0.0f);
}
INLINE v16 v16_load(const float *p)
{
    return (v16){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
INLINE void v16_store(float *p, v16 v)
{
    vst1q_f32(p, v.a);
    vst1q_f32(p + 4, v.b);
    vst1q_f32(p + 8, v.c);
    vst1q_f32(p + 12, v.d);
}
INLINE v16 v16_load_n(const float *p, uint32_t n)
{
    float copy[LANES] = {0};
    memcpy(copy, p, n * sizeof *p);
    return v16_load(copy);
}
INLINE void v16_store_n(float *p, v16 v, uint32_t n)
{
    float copy[LANES];
    v16_store(copy, v);
    memcpy(p, copy, n * sizeof *p);
}
INLINE uint16x8_t eight_halves(const void *p)
{
    return vreinterpretq_u16_u8(vld1q_u8(p));
}
INLINE float32x4_t widen_low(uint16x8_t h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(h)));
}
INLINE float32x4_t widen_high(uint16x8_t h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vget_high_u16(h)));
}
INLINE v16 v16_load_half(const void *p)
{
    uint16x8_t x = eight_halves(p), y = eight_halves((const uint8_t *)p + 16);
    return (v16){widen_low(x), widen_high(x), widen_low(y), widen_high(y)};
}
INLINE v16 v16_load_half_n(const void *p, uint32_t n)
{
    uint16_t copy[LANES] = {0};
    memcpy(copy, p, n * sizeof *copy);
    return v16_load_half(copy);
}
INLINE void v16_store_half(uint16_t *p, v16 v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v.a)));
    vst1_u16(p + 4, vreinterpret_u16_f16(vcvt_f16_f32(v.b)));
    vst1_u16(p + 8, vreinterpret_u16_f16(vcvt_f16_f32(v.c)));
    vst1_u16(p + 12, vreinterpret_u16_f16(vcvt_f16_f32(v.d)));
}
INLINE float32x4_t fma4(float32x4_t x, float32x4_t y, float32x4_t z)
{
    return vfmaq_f32(z, x, y);
}
INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return EACH3(fma4, x, y, z);
}
INLINE v16 v16_add(v16 x, v16 y)
{
    return EACH2(vaddq_f32, x, y);
}
INLINE v16 v16_sub(v16 x, v16 y)
{
    return EACH2(vsubq_f32, x, y);
}
INLINE v16 v16_mul(v16 x, v16 y)
{
    return EACH2(vmulq_f32, x, y);
}
INLINE v16 v16_div(v16 x, v16 y)
{
    return EACH2(vdivq_f32, x, y);
}
INLINE v16 v16_neg(v16 x)
{
    return EACH(vnegq_f32, x);
}
/* x > y ? x : y, and x < y ? x : y: a NaN in x gives y. */
INLINE float32x4_t max4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}
INLINE float32x4_t min4(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(x, y), x, y);
}
INLINE v16 v16_max(v16 x, v16 y)
{
    return EACH2(max4, x, y);
}
INLINE v16 v16_min(v16 x, v16 y)
{
    return EACH2(min4, x, y);
}
INLINE v16 v16_abs(v16 x)
{
    return EACH(vabsq_f32, x);
}
INLINE float32x4_t copysign4(float32x4_t size, float32x4_t sign)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, size);
}
INLINE v16 v16_copysign(v16 size, v16 sign)
{
    return EACH2(copysign4, size, sign);
}
INLINE v16 v16_less(v16 x, v16 y, v16 yes, v16 no)
{
    return (v16){vbslq_f32(vcltq_f32(x.a, y.a), yes.a, no.a), vbslq_f32(vcltq_f32(x.b, y.b), yes.b, no.b),
                 vbslq_f32(vcltq_f32(x.c, y.c), yes.c, no.c), vbslq_f32(vcltq_f32(x.d, y.d), yes.d, no.d)};
} /* x < y ? yes : no */
INLINE float v16_largest(v16 v)
{
    return vmaxvq_f32(max4(max4(v.a, v.b), max4(v.c, v.d)));
}

INLINE float v16_sum(v16 v)
{
    float32x4_t s4 = vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d));
    float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

/* The trees of the two rows of a register block. */
INLINE void v16_sums(const v16 *v, float *out)
{
    out[0] = v16_sum(v[0]);
    out[1] = v16_sum(v[1]);
}

/* p * 2^n, n in the low bits of t = n + EXP_MAGIC, in two factors as spec_expf does. */
INLINE float32x4_t times_2n(float32x4_t p, float32x4_t t)
{
    int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(t), vreinterpretq_s32_f32(vdupq_n_f32(EXP_MAGIC)));
    int32x4_t half = vshrq_n_s32(n, 1), rest = vsubq_s32(n, half), bias = vdupq_n_s32(127);
    float32x4_t x = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    float32x4_t y = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
    return vmulq_f32(vmulq_f32(p, x), y);
}
INLINE v16 v16_times_2n(v16 p, v16 t)
{
    return EACH2(times_2n, p, t);
}

INLINE v32 v32_unzip(v32 p)
{
    float32x4x2_t x = vuzpq_f32(p.lo.a, p.lo.b), y = vuzpq_f32(p.lo.c, p.lo.d);
    float32x4x2_t z = vuzpq_f32(p.hi.a, p.hi.b), w = vuzpq_f32(p.hi.c, p.hi.d);
    return (v32){{x.val[0], y.val[0], z.val[0], w.val[0]}, {x.val[1], y.val[1], z.val[1], w.val[1]}};
}

INLINE v32 v32_zip(v32 p)
{
    float32x4x2_t x = vzipq_f32(p.lo.a, p.hi.a), y = vzipq_f32(p.lo.b, p.hi.b);
    float32x4x2_t z = vzipq_f32(p.lo.c, p.hi.c), w = vzipq_f32(p.lo.d, p.hi.d);
    return (v32){{x.val[0], x.val[1], y.val[0], y.val[1]}, {z.val[0], z.val[1], w.val[0], w.val[1]}};
}

typedef float32x4_t vec;
enum { VECS = 4, VEC_LANES = 4 };
INLINE vec vec_zero(void)
{
    return vdupq_n_f32(0.0f);
}
INLINE vec vec_load(const float *p)
{
    return vld1q_f32(p);
}
INLINE void vec_store(float *p, vec v)
{
    vst1q_f32(p, v);
}
INLINE vec vec_fma(vec x, vec y, vec z)
{
    return vfmaq_f32(z, x, y);
}
INLINE v16 v16_of(const vec *v)
{
    return (v16){v[0], v[1], v[2], v[3]};
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

INLINE float32x4_t floats(const uint8_t *p)
{
    return vreinterpretq_f32_u8(vld1q_u8(p));
}

INLINE v32 load32_f32(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 128;
    return (v32){{floats(p), floats(p + 16), floats(p + 32), floats(p + 48)},
                 {floats(p + 64), floats(p + 80), floats(p + 96), floats(p + 112)}};
}

INLINE v32 tail32_f32(weight_row w, uint64_t g, uint32_t n)
{
    uint8_t copy[128] = {0};
    memcpy(copy, w.data + g * 128, n * 4);
    return load32_f32((weight_row){.data = copy}, 0);
}

INLINE v32 load32_f16(weight_row w, uint64_t g)
{
    return (v32){v16_load_half(w.data + g * 64), v16_load_half(w.data + g * 64 + 32)};
}

INLINE v32 tail32_f16(weight_row w, uint64_t g, uint32_t n)
{
    uint8_t copy[64] = {0};
    memcpy(copy, w.data + g * 64, n * 2);
    return load32_f16((weight_row){.data = copy}, 0);
}

INLINE v16 widen_bf16_lanes(const uint8_t *p)
{
    uint16x8_t x = eight_halves(p), y = eight_halves(p + 16);
    return (v16){vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)),
                 vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(x), 16)),
                 vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(y), 16)),
                 vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(y), 16))};
}

INLINE v32 load32_bf16(weight_row w, uint64_t g)
{
    return (v32){widen_bf16_lanes(w.data + g * 64), widen_bf16_lanes(w.data + g * 64 + 32)};
}

INLINE v32 tail32_bf16(weight_row w, uint64_t g, uint32_t n)
{
    uint8_t copy[64] = {0};
    memcpy(copy, w.data + g * 64, n * 2);
    return load32_bf16((weight_row){.data = copy}, 0);
}

INLINE float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
INLINE float half_first(const uint8_t *p)
{
    return half_at(p);
}

INLINE v16 signed_lanes(int8x16_t q)
{
    int16x8_t x = vmovl_s8(vget_low_s8(q)), y = vmovl_s8(vget_high_s8(q));
    return (v16){vcvtq_f32_s32(vmovl_s16(vget_low_s16(x))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(x))),
                 vcvtq_f32_s32(vmovl_s16(vget_low_s16(y))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(y)))};
}
INLINE v16 v16_bytes(const uint8_t *p)
{
    return signed_lanes(vreinterpretq_s8_u8(vld1q_u8(p)));
}
INLINE v16 v16_of_bytes(uint64_t lo, uint64_t hi)
{
    return signed_lanes(vcombine_s8(vcreate_s8(lo), vcreate_s8(hi)));
}
INLINE v16 v16_halves(float lo, float hi)
{
    float32x4_t x = vdupq_n_f32(lo), y = vdupq_n_f32(hi);
    return (v16){x, x, y, y};
}

INLINE int8x16_t low_nibbles(uint8x16_t x)
{
    return vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15)));
}
INLINE int8x16_t high_nibbles(uint8x16_t x)
{
    return vreinterpretq_s8_u8(vshrq_n_u8(x, 4));
}

INLINE v32 centred_nibbles(const uint8_t *q, v16 scale)
{
    uint8x16_t x = vld1q_u8(q);
    int8x16_t eight = vdupq_n_s8(8);
    return (v32){v16_mul(scale, signed_lanes(vsubq_s8(low_nibbles(x), eight))),
                 v16_mul(scale, signed_lanes(vsubq_s8(high_nibbles(x), eight)))};
}

INLINE v32 scaled_nibbles(const uint8_t *q, v16 scale, v16 least)
{
    uint8x16_t x = vld1q_u8(q);
    return (v32){v16_fma(scale, signed_lanes(low_nibbles(x)), least),
                 v16_fma(scale, signed_lanes(high_nibbles(x)), least)};
}

INLINE v32 nibbles_k(const uint8_t *q, bool high, v16 scale, v16 least)
{
    uint8x16_t x = vld1q_u8(q), y = vld1q_u8(q + 16);
    int8x16_t a = high ? high_nibbles(x) : low_nibbles(x), b = high ? high_nibbles(y) : low_nibbles(y);
    return (v32){v16_fma(scale, signed_lanes(a), least), v16_fma(scale, signed_lanes(b), least)};
}

/* Bit i of h comes to byte i, as `bits`. */
INLINE uint8x16_t spread_bits(uint32_t h, uint8_t bits)
{
    const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t bytes = vcombine_u8(vdup_n_u8((uint8_t)h), vdup_n_u8((uint8_t)(h >> 8)));
    return vandq_u8(vtstq_u8(bytes, bit), vdupq_n_u8(bits));
}

INLINE void five_bits(const uint8_t *q, uint32_t h, uint8_t bits, uint8_t *out)
{
    uint8x16_t x = vld1q_u8(q);
    vst1q_u8(out, vorrq_u8(vandq_u8(x, vdupq_n_u8(15)), spread_bits(h, bits)));
    vst1q_u8(out + 16, vorrq_u8(vshrq_n_u8(x, 4), spread_bits(h >> 16, bits)));
}

typedef struct b64 {
    uint8x16_t a, b, c, d;
} b64;
INLINE b64 b64_load(const uint8_t *p)
{
    return (b64){vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)};
}
INLINE b64 b64_twice(const uint8_t *p)
{
    uint8x16_t x = vld1q_u8(p), y = vld1q_u8(p + 16);
    return (b64){x, y, x, y};
}
INLINE void b64_store(uint8_t *p, b64 x)
{
    vst1q_u8(p, x.a), vst1q_u8(p + 16, x.b), vst1q_u8(p + 32, x.c), vst1q_u8(p + 48, x.d);
}
INLINE b64 b64_set1(uint8_t n)
{
    uint8x16_t x = vdupq_n_u8(n);
    return (b64){x, x, x, x};
}
INLINE b64 b64_and(b64 x, b64 y)
{
    return (b64){vandq_u8(x.a, y.a), vandq_u8(x.b, y.b), vandq_u8(x.c, y.c), vandq_u8(x.d, y.d)};
}
INLINE b64 b64_or(b64 x, b64 y)
{
    return (b64){vorrq_u8(x.a, y.a), vorrq_u8(x.b, y.b), vorrq_u8(x.c, y.c), vorrq_u8(x.d, y.d)};
}
INLINE b64 b64_sub(b64 x, b64 y)
{
    return (b64){vsubq_u8(x.a, y.a), vsubq_u8(x.b, y.b), vsubq_u8(x.c, y.c), vsubq_u8(x.d, y.d)};
}
INLINE b64 b64_left(b64 x, int8_t lo, int8_t hi)
{
    int8x16_t m = vdupq_n_s8(lo), n = vdupq_n_s8(hi);
    return (b64){vshlq_u8(x.a, m), vshlq_u8(x.b, m), vshlq_u8(x.c, n), vshlq_u8(x.d, n)};
}
INLINE b64 b64_right(b64 x, int8_t lo, int8_t hi)
{
    return b64_left(x, (int8_t)-lo, (int8_t)-hi);
}

/* e4m3 as f16 bits, of 2^-8 times the number: its bits are moved up beside the sign. A carry out of seven ones, which
 * are NaN, fills the exponent. */
INLINE uint16x8_t f16_of_e4m3(const uint8_t *p)
{
    uint16x8_t x = vreinterpretq_u16_s16(vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)))),
               carry = vaddq_u16(x, vdupq_n_u16(1));
    return vshlq_n_u16(veorq_u16(x, vandq_u16(carry, vdupq_n_u16(0x80))), 7);
}

INLINE v16 scaled_halves(uint16x8_t x, uint16x8_t y, float scale)
{
    return v16_mul((v16){widen_low(x), widen_high(x), widen_low(y), widen_high(y)}, v16_set1(scale));
}

INLINE uint16x8_t upper_bytes(const uint8_t *p)
{
    return vshlq_n_u16(vmovl_u8(vld1_u8(p)), 8);
}

INLINE float scale_of(weight_row w, uint64_t g)
{
    return ((const float *)w.side)[g >> w.shift];
}

INLINE v32 load32_f8_e4m3(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 32;
    float scale = scale_of(w, g) * 256.0f;
    return (v32){scaled_halves(f16_of_e4m3(p), f16_of_e4m3(p + 8), scale),
                 scaled_halves(f16_of_e4m3(p + 16), f16_of_e4m3(p + 24), scale)};
}

INLINE v32 load32_f8_e5m2(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 32;
    float scale = scale_of(w, g);
    return (v32){scaled_halves(upper_bytes(p), upper_bytes(p + 8), scale),
                 scaled_halves(upper_bytes(p + 16), upper_bytes(p + 24), scale)};
}

INLINE v16 int8_lanes(const uint8_t *p, v16 scale)
{
    return v16_mul(v16_mul(signed_lanes(vreinterpretq_s8_u8(vld1q_u8(p))), scale), v16_set1(OVER_127));
}

INLINE v32 load32_int8_rows(weight_row w, uint64_t g)
{
    v16 scale = v16_set1(scale_of(w, g));
    return (v32){int8_lanes(w.data + g * 32, scale), int8_lanes(w.data + g * 32 + 16, scale)};
}

/* A copy of the last bytes, with the scale they have. */
#define TAIL_BYTES(type)                                                                                               \
    INLINE v32 tail32_##type(weight_row w, uint64_t g, uint32_t n)                                                     \
    {                                                                                                                  \
        uint8_t copy[32] = {0};                                                                                        \
        memcpy(copy, w.data + g * 32, n);                                                                              \
        return load32_##type((weight_row){.data = copy, .side = (const float *)w.side + (g >> w.shift), .shift = 63},  \
                             0);                                                                                       \
    }
TAIL_BYTES(f8_e4m3)
TAIL_BYTES(f8_e5m2)
TAIL_BYTES(int8_rows)

/* Twice the fp4 numbers of 16 codes. */
INLINE int8x16_t fp4(uint8x16_t code)
{
    const int8x16_t twice = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return vqtbl1q_s8(twice, code);
}

INLINE v32 load32_mxfp4(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 17;
    uint8x16_t q = vld1q_u8(p + 1);
    v16 scale = v16_set1(half_e8m0(p[0]));
    return (v32){v16_mul(scale, signed_lanes(fp4(vandq_u8(q, vdupq_n_u8(15))))),
                 v16_mul(scale, signed_lanes(fp4(vshrq_n_u8(q, 4))))};
}

INLINE v32 load32_mxfp4_pairs(weight_row w, uint64_t g)
{
    uint8x16_t q = vld1q_u8(w.data + g * 16);
    int8x16_t low = fp4(vandq_u8(q, vdupq_n_u8(15))), high = fp4(vshrq_n_u8(q, 4));
    v16 scale = v16_set1(half_e8m0(((const uint8_t *)w.side)[g]));
    return (v32){v16_mul(scale, signed_lanes(vzip1q_s8(low, high))),
                 v16_mul(scale, signed_lanes(vzip2q_s8(low, high)))};
}

/* Sixteen levels are 64 bytes: codes 4 n .. of sixteen become the places of their levels' bytes. */
INLINE float32x4_t level_of(uint8x16_t codes, uint8_t n, uint8x16x4_t levels)
{
    const uint8x16_t four = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const uint8x16_t byte = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
    uint8x16_t code = vqtbl1q_u8(codes, vaddq_u8(four, vdupq_n_u8((uint8_t)(4 * n))));
    return vreinterpretq_f32_u8(vqtbl4q_u8(levels, vaddq_u8(vshlq_n_u8(code, 2), byte)));
}

INLINE v16 levels_of(uint8x16_t codes, uint8x16x4_t levels)
{
    return (v16){level_of(codes, 0, levels), level_of(codes, 1, levels), level_of(codes, 2, levels),
                 level_of(codes, 3, levels)};
}

/* Scaled numbers of sixteen bytes of two codes, the first in the upper half. */
INLINE v32 pairs_of(const uint8_t *q, const float levels[16], float scale)
{
    uint8x16_t x = vld1q_u8(q), a = vshrq_n_u8(x, 4), b = vandq_u8(x, vdupq_n_u8(15));
    const uint8_t *p = (const uint8_t *)levels;
    uint8x16x4_t l = {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
    return (v32){v16_mul(levels_of(vzip1q_u8(a, b), l), v16_set1(scale)),
                 v16_mul(levels_of(vzip2q_u8(a, b), l), v16_set1(scale))};
}

static const float levels_nf4[16] = {LEVELS_NF4}, levels_fp4[16] = {LEVELS_BNB_FP4};

INLINE v32 load32_nf4_pairs(weight_row w, uint64_t g)
{
    return pairs_of(w.data + g * 16, levels_nf4, scale_of(w, g));
}

INLINE v32 load32_fp4_pairs(weight_row w, uint64_t g)
{
    return pairs_of(w.data + g * 16, levels_fp4, scale_of(w, g));
}

/* ---- looking up, see lanes_grids.h --------------------------------------------------------------------------------- */

typedef int8x16_t levels, wide_levels;

INLINE levels levels_4(int8_t a, int8_t b, int8_t c, int8_t d)
{
    return (levels){a, b, c, d};
}
INLINE levels levels_8(int8_t a, int8_t b, int8_t c, int8_t d, int8_t e, int8_t f, int8_t g, int8_t h)
{
    return (levels){a, b, c, d, e, f, g, h};
}
#define levels_16(...) ((wide_levels){__VA_ARGS__})

INLINE float half_float(uint16_t h)
{
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0);
}
INLINE v16 look_up(uint8x16_t codes, levels l, float scale)
{
    return v16_mul(v16_set1(scale), signed_lanes(vqtbl1q_s8(l, codes)));
}
INLINE v16 codes_2(uint32_t codes, levels l, float scale)
{
    const uint8x16_t byte = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const int8x16_t at = {0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6};
    uint8x16_t x = vqtbl1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(codes)), byte);
    return look_up(vandq_u8(vshlq_u8(x, at), vdupq_n_u8(3)), l, scale);
}
INLINE v16 codes_4(uint64_t codes, levels l, float scale)
{
    uint8x16_t x = vreinterpretq_u8_u64(vdupq_n_u64(codes));
    return look_up(vzip1q_u8(vandq_u8(x, vdupq_n_u8(7)), vshrq_n_u8(x, 4)), l, scale);
}
INLINE v16 bytes_2(const uint8_t *q, uint32_t shift, levels l, float scale)
{
    uint8x16_t x = vshlq_u8(vld1q_u8(q), vdupq_n_s8((int8_t) - (int32_t)shift));
    return look_up(vandq_u8(x, vdupq_n_u8(3)), l, scale);
}
INLINE v32 nibbles_of(const uint8_t *q, wide_levels l, float scale)
{
    uint8x16_t x = vld1q_u8(q);
    return (v32){look_up(vandq_u8(x, vdupq_n_u8(15)), l, scale), look_up(vshrq_n_u8(x, 4), l, scale)};
}
INLINE v16 trits(const uint8_t *q, uint32_t power, float scale)
{
    uint8x16_t x = vmulq_u8(vld1q_u8(q), vdupq_n_u8((uint8_t)power)); /* of 256: thirds begin at 86 and 171 */
    uint8x16_t thirds = vaddq_u8(vcgeq_u8(x, vdupq_n_u8(86)), vcgeq_u8(x, vdupq_n_u8(171)));
    return v16_mul(v16_set1(scale), signed_lanes(vsubq_s8(vdupq_n_s8(-1), vreinterpretq_s8_u8(thirds))));
}
INLINE v16 v16_two(float a, float b)
{
    float32x4_t x = vdupq_n_f32(a), y = vdupq_n_f32(b);
    return (v16){x, x, y, y};
}
INLINE float32x4_t flip4(float32x4_t x, uint32x4_t signs, uint32x4_t bits)
{
    uint32x4_t sign = vandq_u32(vtstq_u32(signs, bits), vdupq_n_u32(0x80000000u));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), sign));
}
INLINE v16 v16_flip(v16 x, uint32_t signs)
{
    const uint32x4_t bits = {1, 2, 4, 8};
    uint32x4_t s = vdupq_n_u32(signs);
    return (v16){flip4(x.a, s, bits), flip4(x.b, s, vshlq_n_u32(bits, 4)), flip4(x.c, s, vshlq_n_u32(bits, 8)),
                 flip4(x.d, s, vshlq_n_u32(bits, 12))};
}
INLINE v32 v32_cross(v32 x)
{
    return (v32){{x.lo.a, x.lo.b, x.hi.a, x.hi.b}, {x.lo.c, x.lo.d, x.hi.c, x.hi.d}};
}

#define LEVEL(name)       name##_neon
#define LEVEL_NAME        "neon"
#define PANEL             2
#define TILE              3
#define FUSED             3
#define FUSED_ROWS(n)     ((n) == 1 ? 4 : 2)
#define AXPY_TOKENS       3
#define AXPY_CHUNKS       2
#define SCORE_ROWS        2
#define SCORE_CHUNKS      2
#define VALUE_ROWS        2
#define VALUE_CHUNKS      2
#define VEC_CONSTRAINT(r) "+w"(r)
#define PREFETCH_BYTES    512
#define FMA_CHAINS        6
#define PACKED_LEVEL      "packed_neon.h"
#define SCALES_K          scales_by_words

#include "lanes.h"
