/* The scalar specification of every primitive. It says what each operation computes, rounding by rounding; every other
 * level must give these bits. It is never optimised: it is read, compared against, and run where nothing better is. */
#include "kernels.h"

#include <math.h>
#include <string.h>

float spec_tree(const float lane[16])
{
    float s[16];
    memcpy(s, lane, sizeof s);
    for (int i = 0; i < 8; i++) s[i] += s[i + 8];
    for (int i = 0; i < 4; i++) s[i] += s[i + 4];
    s[0] += s[2];
    s[1] += s[3];
    return s[0] + s[1];
}

float spec_dot(const float *w, const float *x, uint64_t k)
{
    float lane[16] = {0};
    for (uint64_t i = 0; i < (k + 15) / 16 * 16; i++)
        lane[i % 16] = i < k ? fmaf(w[i], x[i], lane[i % 16]) : fmaf(0.0f, 0.0f, lane[i % 16]);
    return spec_tree(lane);
}

float spec_sum_squares(const float *x, uint64_t k)
{
    return spec_dot(x, x, k);
}

float spec_sum(const float *x, uint64_t k)
{
    float lane[16] = {0};
    for (uint64_t i = 0; i < (k + 15) / 16 * 16; i++) lane[i % 16] += i < k ? x[i] : 0.0f;
    return spec_tree(lane);
}

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}

static float nibble(const uint8_t *q, uint64_t i)
{
    return (float)(i < 16 ? q[i] & 15 : q[i - 16] >> 4);
}

static float weight_f32(const uint8_t *row, uint64_t i)
{
    float f;
    memcpy(&f, row + 4 * i, sizeof f);
    return f;
}

static float weight_f16(const uint8_t *row, uint64_t i)
{
    return half_at(row + 2 * i);
}

static float weight_bf16(const uint8_t *row, uint64_t i)
{
    uint16_t h;
    memcpy(&h, row + 2 * i, sizeof h);
    return bf16_to_f32(h);
}

static float weight_q8_0(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 34;
    return half_at(b) * (float)(int8_t)b[2 + i % 32];
}

static float weight_q4_0(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 18;
    return half_at(b) * (nibble(b + 2, i % 32) - 8.0f);
}

static float weight_q4_1(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 20;
    return fmaf(half_at(b), nibble(b + 4, i % 32), half_at(b + 2));
}

/* The quantised types with more than one scale a block: see dtype.h. Products are exact, so that fma rounds as a
 * product and a difference do. */
static float high_bit(const uint8_t *bits, uint64_t i)
{
    return (float)(bits[i / 8] >> i % 8 & 1);
}

static float weight_q5_0(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 22;
    return half_at(b) * (nibble(b + 6, i % 32) + 16.0f * high_bit(b + 2, i % 32) - 16.0f);
}

static float weight_q5_1(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 24;
    return fmaf(half_at(b), nibble(b + 8, i % 32) + 16.0f * high_bit(b + 4, i % 32), half_at(b + 2));
}

static int two_bits(const uint8_t *q, uint64_t i)
{
    return q[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
}

static float weight_q2_k(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 256 * 84;
    int scale = b[i % 256 / 16];
    float d = half_at(b + 80) * (float)(scale & 15), m = half_at(b + 82) * (float)(scale >> 4);
    return fmaf(d, (float)two_bits(b + 16, i % 256), -m);
}

static float weight_q3_k(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 256 * 110, *scales = b + 96;
    i %= 256;
    uint64_t j = i / 16;
    int scale = (j < 8 ? scales[j] & 15 : scales[j - 8] >> 4) | (scales[8 + j % 4] >> j / 4 * 2 & 3) << 4;
    int q = two_bits(b + 32, i) + 4 * (b[i % 32] >> i / 32 & 1) - 4;
    return half_at(b + 108) * (float)(scale - 32) * (float)q;
}

/* Of group j: its scale is bits 0 to 5 of byte j, or 0 to 3 of byte 8 + j % 4 below 6 and 7 of byte j - 4; its minimum
 * lies four bytes further, and in the upper four bits. */
static float scaled_k(const uint8_t *b, uint64_t j, int q)
{
    const uint8_t *p = b + 4;
    int scale = j < 4 ? p[j] & 63 : (p[4 + j] & 15) | p[j - 4] >> 6 << 4;
    int least = j < 4 ? p[4 + j] & 63 : p[4 + j] >> 4 | p[j] >> 6 << 4;
    return fmaf(half_at(b) * (float)scale, (float)q, -(half_at(b + 2) * (float)least));
}

static int nibble_k(const uint8_t *q, uint64_t i)
{
    return q[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
}

static float weight_q4_k(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 256 * 144;
    return scaled_k(b, i % 256 / 32, nibble_k(b + 16, i % 256));
}

static float weight_q5_k(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 256 * 176;
    i %= 256;
    return scaled_k(b, i / 32, nibble_k(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4);
}

static float weight_q6_k(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 256 * 210;
    i %= 256;
    int q = (b[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15) | two_bits(b + 128, i) << 4;
    return half_at(b + 208) * (float)(int8_t)b[192 + i / 16] * (float)(q - 32);
}

/* 2^-8 times the number: what is left when its bits are moved to where an f16 has them. */
static float weight_e4m3(uint8_t code)
{
    if ((code & 0x7f) == 0x7f) return NAN;
    return f16_to_f32((uint16_t)((code & 0x80) << 8 | (code & 0x7f) << 7));
}

static float weight_e5m2(uint8_t code)
{
    return f16_to_f32((uint16_t)(code << 8));
}

/* Twice the fp4 numbers are integers. */
static const int8_t twice_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static float weight_mxfp4(const uint8_t *row, uint64_t i)
{
    const uint8_t *b = row + i / 32 * 17;
    return half_e8m0(b[0]) * (float)twice_fp4[(int)nibble(b + 1, i % 32)];
}

static float weight_mxfp4_pairs(const uint8_t *row, const uint8_t *side, uint64_t i)
{
    return half_e8m0(side[i / 32]) * (float)twice_fp4[i % 2 ? row[i / 2] >> 4 : row[i / 2] & 15];
}

static float weight_nf4(const uint8_t *row, uint64_t i)
{
    static const float levels[16] = {LEVELS_NF4};
    return levels[i % 2 ? row[i / 2] & 15 : row[i / 2] >> 4];
}

static float weight_fp4(const uint8_t *row, uint64_t i)
{
    static const float levels[16] = {LEVELS_BNB_FP4};
    return levels[i % 2 ? row[i / 2] & 15 : row[i / 2] >> 4];
}

float spec_weight(const matrix_rows *w, uint64_t r, uint64_t c)
{
    const uint8_t *row = (const uint8_t *)w->data + r * matrix_row_bytes(w);
    float scale = w->scales ? w->scales[(w->row0 + r) / w->scale_rows * w->scales_stride + c / w->scale_cols] : 1.0f;
    switch (w->type) {
    case DT_F32:
        return weight_f32(row, c);
    case DT_F16:
        return weight_f16(row, c);
    case DT_BF16:
        return weight_bf16(row, c);
    case DT_Q8_0:
        return weight_q8_0(row, c);
    case DT_Q4_0:
        return weight_q4_0(row, c);
    case DT_Q4_1:
        return weight_q4_1(row, c);
    case DT_Q5_0:
        return weight_q5_0(row, c);
    case DT_Q5_1:
        return weight_q5_1(row, c);
    case DT_Q2_K:
        return weight_q2_k(row, c);
    case DT_Q3_K:
        return weight_q3_k(row, c);
    case DT_Q4_K:
        return weight_q4_k(row, c);
    case DT_Q5_K:
        return weight_q5_k(row, c);
    case DT_Q6_K:
        return weight_q6_k(row, c);
    case DT_F8_E4M3:
        return weight_e4m3(row[c]) * (scale * 0x1p+8f);
    case DT_F8_E5M2:
        return weight_e5m2(row[c]) * scale;
    case DT_MXFP4:
        return weight_mxfp4(row, c);
    case DT_MXFP4_PAIRS:
        return weight_mxfp4_pairs(row, w->side + r * (w->cols / 32), c);
    case DT_NF4_PAIRS:
        return weight_nf4(row, c) * scale;
    case DT_FP4_PAIRS:
        return weight_fp4(row, c) * scale;
    case DT_INT8_ROWS:
        return (float)(int8_t)row[c] * scale * OVER_127;
    default:
        return spec_grid_weight(w->type, row, c);
    }
}

static void finish_norm(const norm_row *a, float mean, float r)
{
    for (uint32_t i = 0; i < a->k; i++) {
        float x = (a->x[i] - mean) * r;
        if (a->w) x *= a->w[i];
        if (a->b) x += a->b[i];
        a->out[i] = x;
    }
}

void spec_rms_norm(const norm_row *a)
{
    finish_norm(a, 0.0f, 1.0f / sqrtf(spec_sum_squares(a->x, a->k) / (float)a->k + a->eps));
}

void spec_layer_norm(const norm_row *a)
{
    float mean = spec_sum(a->x, a->k) / (float)a->k, lane[16] = {0};
    for (uint32_t i = 0; i < a->k; i++) lane[i % 16] = fmaf(a->x[i] - mean, a->x[i] - mean, lane[i % 16]);
    finish_norm(a, mean, 1.0f / sqrtf(spec_tree(lane) / (float)a->k + a->eps));
}

static float cached(const void *p, bool half, uint64_t i)
{
    return half ? weight_f16(p, i) : weight_f32(p, i);
}

static float key(const spec_attention_row *a, uint64_t j, uint32_t d)
{
    uint64_t slot = j % a->capacity;
    return cached(a->k, a->half, (slot / 16 * a->head_dim + d) * 16 + slot % 16);
}

static float value(const spec_attention_row *a, uint64_t j, uint32_t d)
{
    return a->v ? cached(a->v, a->half, j % a->capacity * a->v_dim + d) : key(a, j, d);
}

/* The scores of the visible positions j0 <= j < j1 of one block, s[j - j0]; returns the largest. */
static float scores(const spec_attention_row *a, uint64_t j0, uint64_t j1, float *s)
{
    float largest = -INFINITY;
    for (uint64_t j = j0; j < j1; j++) {
        float x = 0.0f;
        for (uint32_t d = 0; d < a->head_dim; d++) x = fmaf(a->q[d], key(a, j, d), x);
        x = a->scale * x;
        if (a->softcap != 0.0f) x = spec_softcap(x, a->softcap);
        if (a->sloped) x += a->slope * (float)((int64_t)j - (int64_t)a->position);
        s[j - j0] = x;
        if (x > largest) largest = x;
    }
    return largest;
}

void spec_attention(const spec_attention_row *a)
{
    uint64_t end = (uint64_t)a->position + 1, begin = a->window && end > a->window ? end - a->window : 0;
    float m = a->sink ? *a->sink : -INFINITY, lane[16] = {a->sink ? 1.0f : 0.0f}, s[ATTENTION_BLOCK];
    for (uint32_t d = 0; d < a->v_dim; d++) a->out[d] = 0.0f;
    for (uint64_t j0 = begin, j1; j0 < end; j0 = j1) {
        j1 = (j0 / ATTENTION_BLOCK + 1) * ATTENTION_BLOCK;
        if (j1 > end) j1 = end;
        float largest = scores(a, j0, j1, s);
        if (largest > m) {
            float c = spec_expf(m - largest);
            for (int i = 0; i < 16; i++) lane[i] *= c;
            for (uint32_t d = 0; d < a->v_dim; d++) a->out[d] *= c;
            m = largest;
        }
        for (uint64_t j = j0; j < j1; j++) {
            float p = spec_expf(s[j - j0] - m);
            lane[j % 16] += p;
            for (uint32_t d = 0; d < a->v_dim; d++) a->out[d] = fmaf(p, value(a, j, d), a->out[d]);
        }
    }
    float l = spec_tree(lane);
    for (uint32_t d = 0; d < a->v_dim; d++) a->out[d] = a->out[d] / l;
}
