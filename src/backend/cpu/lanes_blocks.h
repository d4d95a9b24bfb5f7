/* How blocks with scales of their own become lanes: included by lanes.h, written once over the level's registers. A row
 * of them is read a stretch of eight groups at a time: `ready` makes the scales into f32 and, where the bits of a
 * number lie apart, puts them together, many to an instruction, into the nearest cache; `part` widens one group of it.
 *
 * A level gives, besides v16 and v32:
 *   half_at(p), half_first(p)  the f16 at p; the same where eight bytes can be read
 *   v16_bytes(p)               sixteen int8
 *   v16_of_bytes(lo, hi)       sixteen int8, those of two words
 *   v16_halves(lo, hi)         lo in lanes 0 to 7, hi in the others
 *   centred_nibbles(q, s)      of 16 bytes q: s * (nibble - 8), the low ones, then the high ones
 *   scaled_nibbles(q, s, m)    s * nibble + m of them
 *   nibbles_k(q, high, s, m)   s * nibble + m of the low or the high ones of 32 bytes
 *   five_bits(q, h, bits, out) 32 bytes: nibbles as above, with `bits` where h has ones
 *   SCALES_K                   scales_by_words below, or the level's own
 *   b64                        sixty-four bytes: one register of AVX-512, two of AVX2, four of NEON
 *   b64_load, b64_twice        64 bytes; 32 bytes, twice
 *   b64_left, b64_right        (x, lo, hi): the lower and the upper half shifted; what came from a neighbouring byte is
 *                              to be masked out */

enum { STRETCH = 8 };

/* Element i of the stretch is scale[] * q[] + least[]; which of them belong together is the type's. */
typedef struct stretch {
    _Alignas(LINE) float scale[LANES];
    float least[LANES];
    uint8_t q[STRETCH * GROUP];
} stretch;

INLINE uint64_t word_at(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

INLINE uint64_t half_word_at(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* Thirty-two int8, a scale for each half. */
INLINE v32 scaled_bytes32(const uint8_t *q, float lo, float hi)
{
    return (v32){v16_mul(v16_set1(lo), v16_bytes(q)), v16_mul(v16_set1(hi), v16_bytes(q + LANES))};
}

/* ---- 32 elements with a scale -------------------------------------------------------------------------------------- */

INLINE void ready_q8_0(const uint8_t *p, stretch *s)
{
    UNROLL for (uint32_t i = 0; i < STRETCH; i++) s->scale[i] = half_first(p + 34 * i);
}

INLINE v32 part_q8_0(const uint8_t *p, const stretch *s, uint32_t i)
{
    return scaled_bytes32(p + 34 * i + 2, s->scale[i], s->scale[i]);
}

INLINE v32 load32_q8_0(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 34;
    return scaled_bytes32(p + 2, half_at(p), half_at(p));
}

INLINE void ready_q4_0(const uint8_t *p, stretch *s)
{
    UNROLL for (uint32_t i = 0; i < STRETCH; i++) s->scale[i] = half_first(p + 18 * i);
}

INLINE v32 part_q4_0(const uint8_t *p, const stretch *s, uint32_t i)
{
    return centred_nibbles(p + 18 * i + 2, v16_set1(s->scale[i]));
}

INLINE v32 load32_q4_0(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 18;
    return centred_nibbles(p + 2, v16_set1(half_at(p)));
}

INLINE void ready_q4_1(const uint8_t *p, stretch *s)
{
    UNROLL for (uint32_t i = 0; i < STRETCH; i++)
    {
        s->scale[i] = half_first(p + 20 * i);
        s->least[i] = half_first(p + 20 * i + 2);
    }
}

INLINE v32 part_q4_1(const uint8_t *p, const stretch *s, uint32_t i)
{
    return scaled_nibbles(p + 20 * i + 4, v16_set1(s->scale[i]), v16_set1(s->least[i]));
}

INLINE v32 load32_q4_1(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 20;
    return scaled_nibbles(p + 4, v16_set1(half_at(p)), v16_set1(half_at(p + 2)));
}

/* A nibble less 16 is the nibble below four ones: where the fifth bit is not. */
INLINE void bits_q5_0(const uint8_t *p, uint8_t *q)
{
    five_bits(p + 6, ~(uint32_t)half_word_at(p + 2), 0xf0, q);
}

INLINE void ready_q5_0(const uint8_t *p, stretch *s)
{
    UNROLL for (uint32_t i = 0; i < STRETCH; i++)
    {
        s->scale[i] = half_first(p + 22 * i);
        bits_q5_0(p + 22 * i, s->q + GROUP * i);
    }
}

INLINE v32 part_q5_0(const uint8_t *p, const stretch *s, uint32_t i)
{
    (void)p;
    return scaled_bytes32(s->q + GROUP * i, s->scale[i], s->scale[i]);
}

INLINE v32 load32_q5_0(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 22;
    uint8_t q[GROUP];
    bits_q5_0(p, q);
    return scaled_bytes32(q, half_at(p), half_at(p));
}

INLINE v32 raised_bytes32(const uint8_t *q, float scale, float least)
{
    v16 d = v16_set1(scale), m = v16_set1(least);
    return (v32){v16_fma(d, v16_bytes(q), m), v16_fma(d, v16_bytes(q + LANES), m)};
}

INLINE void bits_q5_1(const uint8_t *p, uint8_t *q)
{
    five_bits(p + 8, (uint32_t)half_word_at(p + 4), 0x10, q);
}

INLINE void ready_q5_1(const uint8_t *p, stretch *s)
{
    UNROLL for (uint32_t i = 0; i < STRETCH; i++)
    {
        s->scale[i] = half_first(p + 24 * i);
        s->least[i] = half_first(p + 24 * i + 2);
        bits_q5_1(p + 24 * i, s->q + GROUP * i);
    }
}

INLINE v32 part_q5_1(const uint8_t *p, const stretch *s, uint32_t i)
{
    (void)p;
    return raised_bytes32(s->q + GROUP * i, s->scale[i], s->least[i]);
}

INLINE v32 load32_q5_1(weight_row w, uint64_t g)
{
    const uint8_t *p = w.data + g * 24;
    uint8_t q[GROUP];
    bits_q5_1(p, q);
    return raised_bytes32(q, half_at(p), half_at(p + 2));
}

/* ---- 256 elements with eight or sixteen scales --------------------------------------------------------------------- */

/* Q2_K and Q3_K: byte j holds two bits each of element j % 32 of groups 0 to 3, and from byte 32 on 4 to 7. Bytes of
 * group i begin here when the groups of each pair of bits are stored together. */
INLINE uint32_t quarter_place(uint32_t i)
{
    return i % 4 * 64 + i / 4 * 32;
}

INLINE void ready_q2_k(const uint8_t *p, stretch *s)
{
    const uint64_t four = UINT64_C(0x0f0f0f0f0f0f0f0f);
    uint64_t lo = word_at(p), hi = word_at(p + 8);
    b64 two = b64_set1(3), q = b64_load(p + 16);
    v16_store(s->scale, v16_mul(v16_set1(half_at(p + 80)), v16_of_bytes(lo & four, hi & four)));
    v16_store(s->least, v16_mul(v16_set1(-half_at(p + 82)), v16_of_bytes(lo >> 4 & four, hi >> 4 & four)));
    b64_store(s->q, b64_and(q, two));
    b64_store(s->q + 64, b64_and(b64_right(q, 2, 2), two));
    b64_store(s->q + 128, b64_and(b64_right(q, 4, 4), two));
    b64_store(s->q + 192, b64_and(b64_right(q, 6, 6), two));
}

INLINE v32 part_q2_k(const uint8_t *p, const stretch *s, uint32_t i)
{
    const uint8_t *q = s->q + quarter_place(i);
    const float *scale = s->scale + 2 * i, *least = s->least + 2 * i;
    (void)p;
    return (v32){v16_fma(v16_set1(scale[0]), v16_bytes(q), v16_set1(least[0])),
                 v16_fma(v16_set1(scale[1]), v16_bytes(q + LANES), v16_set1(least[1]))};
}

/* The high bit of group i is bit i of byte j % 32; it is worth 4, and 4 are taken from all. */
INLINE void ready_q3_k(const uint8_t *p, stretch *s)
{
    const uint64_t four = UINT64_C(0x0f0f0f0f0f0f0f0f), two = UINT64_C(0x0303030303030303);
    uint64_t low = word_at(p + 96), high = half_word_at(p + 104);
    high |= high << 30; /* bits 2 and 3 of each byte of the upper four come to where 0 and 1 are */
    v16 scale = v16_of_bytes((low & four) | (high & two) << 4, (low >> 4 & four) | (high >> 4 & two) << 4);
    v16_store(s->scale, v16_mul(v16_set1(half_at(p + 108)), v16_sub(scale, v16_set1(32.0f))));
    b64 q = b64_load(p + 32), h = b64_right(b64_twice(p), 0, 4), bits = b64_set1(3), bit = b64_set1(4);
    b64_store(s->q, b64_sub(b64_or(b64_and(q, bits), b64_and(b64_left(h, 2, 2), bit)), bit));
    b64_store(s->q + 64, b64_sub(b64_or(b64_and(b64_right(q, 2, 2), bits), b64_and(b64_left(h, 1, 1), bit)), bit));
    b64_store(s->q + 128, b64_sub(b64_or(b64_and(b64_right(q, 4, 4), bits), b64_and(h, bit)), bit));
    b64_store(s->q + 192, b64_sub(b64_or(b64_and(b64_right(q, 6, 6), bits), b64_and(b64_right(h, 1, 1), bit)), bit));
}

INLINE v32 part_q3_k(const uint8_t *p, const stretch *s, uint32_t i)
{
    (void)p;
    return scaled_bytes32(s->q + quarter_place(i), s->scale[2 * i], s->scale[2 * i + 1]);
}

/* Of a block of Q4_K or Q5_K: d * scale of the eight groups, then -(dmin * minimum) of them. */
INLINE v16 scales_by_words(const uint8_t *p)
{
    const uint64_t six = 0x3f3f3f3f, two = 0x30303030, four = 0x0f0f0f0f;
    uint64_t a = half_word_at(p + 4), b = half_word_at(p + 8), c = half_word_at(p + 12);
    uint64_t scale = (a & six) | ((c & four) | (a >> 2 & two)) << 32;
    uint64_t least = (b & six) | ((c >> 4 & four) | (b >> 2 & two)) << 32;
    return v16_mul(v16_halves(half_first(p), -half_first(p + 2)), v16_of_bytes(scale, least));
}

INLINE void ready_q4_k(const uint8_t *p, stretch *s)
{
    v16_store(s->scale, SCALES_K(p));
}

INLINE v32 part_q4_k(const uint8_t *p, const stretch *s, uint32_t i)
{
    return nibbles_k(p + 16 + i / 2 * 32, i % 2, v16_set1(s->scale[i]), v16_set1(s->scale[8 + i]));
}

INLINE void ready_q5_k(const uint8_t *p, stretch *s)
{
    b64 x = b64_load(p + 48), y = b64_load(p + 112), h = b64_twice(p + 16), four = b64_set1(15), bit = b64_set1(16);
    v16_store(s->scale, SCALES_K(p));
    b64_store(s->q, b64_or(b64_and(x, four), b64_and(b64_left(h, 4, 2), bit)));
    b64_store(s->q + 64, b64_or(b64_and(b64_right(x, 4, 4), four), b64_and(b64_left(h, 3, 1), bit)));
    b64_store(s->q + 128, b64_or(b64_and(y, four), b64_and(b64_right(h, 0, 2), bit)));
    b64_store(s->q + 192, b64_or(b64_and(b64_right(y, 4, 4), four), b64_and(b64_right(h, 1, 3), bit)));
}

INLINE v32 part_q5_k(const uint8_t *p, const stretch *s, uint32_t i)
{
    const uint8_t *q = s->q + i / 4 * 128 + i % 2 * 64 + i / 2 % 2 * 32;
    (void)p;
    return raised_bytes32(q, s->scale[i], s->scale[8 + i]);
}

INLINE void ready_q6_k(const uint8_t *p, stretch *s)
{
    b64 four = b64_set1(15), two = b64_set1(0x30), middle = b64_set1(32);
    v16_store(s->scale, v16_mul(v16_set1(half_at(p + 208)), v16_bytes(p + 192)));
    UNROLL for (uint32_t i = 0; i < 2; i++)
    {
        b64 q = b64_load(p + 64 * i), h = b64_twice(p + 128 + 32 * i);
        b64 x = b64_or(b64_and(q, four), b64_and(b64_left(h, 4, 2), two));
        b64 y = b64_or(b64_and(b64_right(q, 4, 4), four), b64_and(b64_right(h, 0, 2), two));
        b64_store(s->q + 128 * i, b64_sub(x, middle));
        b64_store(s->q + 128 * i + 64, b64_sub(y, middle));
    }
}

INLINE v32 part_q6_k(const uint8_t *p, const stretch *s, uint32_t i)
{
    (void)p;
    return scaled_bytes32(s->q + 32 * i, s->scale[2 * i], s->scale[2 * i + 1]);
}
