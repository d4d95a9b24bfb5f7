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

typedef float (*weight_fn)(const uint8_t *row, uint64_t i);
static const weight_fn weight_at[DT_WEIGHTS] = {
    [DT_F32] = weight_f32,   [DT_F16] = weight_f16,   [DT_BF16] = weight_bf16,
    [DT_Q8_0] = weight_q8_0, [DT_Q4_0] = weight_q4_0, [DT_Q4_1] = weight_q4_1,
};

float spec_weight(dtype type, const uint8_t *row, uint64_t i)
{
    return weight_at[type](row, i);
}

void spec_rms_norm(const float *x, const float *w, uint32_t k, float eps, float *out)
{
    float r = 1.0f / sqrtf(spec_sum_squares(x, k) / (float)k + eps);
    for (uint32_t i = 0; i < k; i++) out[i] = (x[i] * r) * w[i];
}

static float cached(const void *p, bool half, uint64_t i)
{
    return half ? weight_f16(p, i) : weight_f32(p, i);
}

/* The scores of the visible positions j0 <= j < j1 of one block, s[j - j0]; returns the largest. */
static float scores(const spec_attention_row *a, uint64_t j0, uint64_t j1, float *s)
{
    float largest = -INFINITY;
    for (uint64_t j = j0; j < j1; j++) {
        uint64_t slot = j % a->capacity;
        float x = 0.0f;
        for (uint32_t d = 0; d < a->head_dim; d++)
            x = fmaf(a->q[d], cached(a->k, a->half, (slot / 16 * a->head_dim + d) * 16 + slot % 16), x);
        s[j - j0] = a->scale * x;
        if (s[j - j0] > largest) largest = s[j - j0];
    }
    return largest;
}

void spec_attention(const spec_attention_row *a)
{
    uint64_t end = (uint64_t)a->position + 1, begin = a->window && end > a->window ? end - a->window : 0;
    float m = -INFINITY, lane[16] = {0}, s[ATTENTION_BLOCK];
    for (uint32_t d = 0; d < a->head_dim; d++) a->out[d] = 0.0f;
    for (uint64_t j0 = begin, j1; j0 < end; j0 = j1) {
        j1 = (j0 / ATTENTION_BLOCK + 1) * ATTENTION_BLOCK;
        if (j1 > end) j1 = end;
        float largest = scores(a, j0, j1, s);
        if (largest > m) {
            float c = spec_expf(m - largest);
            for (int i = 0; i < 16; i++) lane[i] *= c;
            for (uint32_t d = 0; d < a->head_dim; d++) a->out[d] *= c;
            m = largest;
        }
        for (uint64_t j = j0; j < j1; j++) {
            float p = spec_expf(s[j - j0] - m);
            lane[j % 16] += p;
            for (uint32_t d = 0; d < a->head_dim; d++)
                a->out[d] = fmaf(p, cached(a->v, a->half, j % a->capacity * a->head_dim + d), a->out[d]);
        }
    }
    float l = spec_tree(lane);
    for (uint32_t d = 0; d < a->head_dim; d++) a->out[d] = a->out[d] / l;
}
