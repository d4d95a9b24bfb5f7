/* Blocks of `packed` by NEON, in quarters of 16 places. Where an escape's exponent stands in the list is counted by
 * adding ever longer shifts. */
#define PACKED
#define PACKED_ROWS 2

/* Three bits of each of the places 16 i .. 16 i + 15. */
INLINE uint8x16_t packed_three(const uint8_t *p, const uint32_t i)
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t two = vandq_u8(vshlq_u8(vld1q_u8(p), vdupq_n_s8((int8_t)(-2 * (int)i))), vdupq_n_u8(3));
    uint8x16_t plane = vcombine_u8(vdup_n_u8(p[16 + 2 * i]), vdup_n_u8(p[17 + 2 * i]));
    return vorrq_u8(two, vandq_u8(vtstq_u8(plane, vld1q_u8(bits)), vdupq_n_u8(4)));
}

INLINE uint8x16_t packed_four(const uint8_t *p, const uint32_t i)
{
    uint8x16_t c = vld1q_u8(p + 16 * (i % 2));
    return i < 2 ? vandq_u8(c, vdupq_n_u8(15)) : vshrq_n_u8(c, 4);
}

/* e with exponents from the list where `is` has ones; *n is how many. */
INLINE uint8x16_t packed_insert(uint8x16_t e, uint8x16_t is, const uint8_t *list, uint32_t *n)
{
    const uint8x16_t zero = vdupq_n_u8(0);
    uint8x16_t count = vandq_u8(is, vdupq_n_u8(1));
    count = vaddq_u8(count, vextq_u8(zero, count, 15));
    count = vaddq_u8(count, vextq_u8(zero, count, 14));
    count = vaddq_u8(count, vextq_u8(zero, count, 12));
    count = vaddq_u8(count, vextq_u8(zero, count, 8));
    *n = vgetq_lane_u8(count, 15);
    return vbslq_u8(is, vqtbl1q_u8(vld1q_u8(list), vsubq_u8(count, vdupq_n_u8(1))), e);
}

INLINE float32x4_t packed_lower(uint8x16_t words)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(words), 16));
}

INLINE float32x4_t packed_upper(uint8x16_t words)
{
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(words), vdupq_n_u32(0xFFFF0000)));
}

INLINE void packed_put(v16 *out, const uint32_t i, float32x4_t x)
{
    switch (i) {
    case 0:
        out->a = x;
        break;
    case 1:
        out->b = x;
        break;
    case 2:
        out->c = x;
        break;
    default:
        out->d = x;
        break;
    }
}

/* Eight halves in order are half a v16. */
INLINE void packed_put_halves(v16 *out, const uint32_t i, uint8x16_t words)
{
    uint16x8_t h = vreinterpretq_u16_u8(words);
    packed_put(out, 2 * i, widen_low(h));
    packed_put(out, 2 * i + 1, widen_high(h));
}

INLINE uint32_t packed_numbers(const packed_kind kind, const packed_row *row, v16 *out)
{
    static const uint8_t rest[16] = {0, 1, 2, 3, 0x80, 0x81, 0x82, 0x83};
    const bool four = kind == PACKED_BF16_4, half = kind == PACKED_F16_3;
    const uint8x16_t top = vdupq_n_u8(0x80);
    uint32_t taken = 0, n;
    UNROLL for (uint32_t i = 0; i < 4; i++)
    {
        uint8x16_t code = four ? packed_four(row->codes, i) : packed_three(row->codes, i);
        uint8x16_t e = vqtbl1q_u8(vld1q_u8(row->palette), code);
        e = packed_insert(e, vceqq_u8(code, vdupq_n_u8(four ? 15 : 7)), row->escapes + taken, &n);
        taken += n;
        uint8x16_t low = vld1q_u8(row->low + 16 * i), high;
        if (half) {
            high = vandq_u8(vshlq_n_u8(e, 2), vdupq_n_u8(0x7C));
            high = vorrq_u8(high, vqtbl1q_u8(vld1q_u8(rest), packed_three(row->codes + 24, i)));
        } else {
            high = vbslq_u8(top, low, vshrq_n_u8(e, 1));
            low = vbslq_u8(top, vshlq_n_u8(e, 7), low);
        }
        uint8x16_t a = vzip1q_u8(low, high), b = vzip2q_u8(low, high);
        if (half) {
            packed_put_halves(&out[i / 2], i % 2, a);
            packed_put_halves(&out[2 + i / 2], i % 2, b);
        } else {
            packed_put(&out[0], i, packed_lower(a));
            packed_put(&out[1], i, packed_upper(a));
            packed_put(&out[2], i, packed_lower(b));
            packed_put(&out[3], i, packed_upper(b));
        }
    }
    return taken;
}
