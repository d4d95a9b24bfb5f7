/* The scalar level: the specification behind the kernels' interface, one weight row by one token row. Where the machine
 * has nothing better it is what runs; where it has, it is what the others are compared with. */
#include "kernels.h"

#include <math.h>
#include <string.h>

#define TYPE(name, type)                                                                                               \
    static void widen_##name(const uint8_t *row, uint64_t k, float *out)                                               \
    {                                                                                                                  \
        for (uint64_t i = 0; i < k; i++) out[i] = spec_weight(type, row, i);                                           \
    }                                                                                                                  \
    static void panel_##name(const uint8_t *row, uint64_t k0, uint64_t n, float *out, size_t step)                     \
    {                                                                                                                  \
        for (uint64_t i = 0; i < (n + 15) / 16 * 16; i++)                                                              \
            out[i / 16 * step + i % 16] = i < n ? spec_weight(type, row, k0 + i) : 0.0f;                               \
    }                                                                                                                  \
    static void dots_##name(const dots_args *a)                                                                        \
    {                                                                                                                  \
        for (uint64_t r = 0; r < a->n_rows; r++) {                                                                     \
            float lane[16] = {0};                                                                                      \
            for (uint64_t i = 0; i < (a->k + 15) / 16 * 16; i++)                                                       \
                lane[i % 16] =                                                                                         \
                    fmaf(i < a->k ? spec_weight(type, a->w + r * a->row_bytes, i) : 0.0f, a->x[i], lane[i % 16]);      \
            a->y[r] = spec_tree(lane);                                                                                 \
        }                                                                                                              \
    }
TYPE(f32, DT_F32)
TYPE(f16, DT_F16)
TYPE(bf16, DT_BF16)
TYPE(q8_0, DT_Q8_0)
TYPE(q4_0, DT_Q4_0)
TYPE(q4_1, DT_Q4_1)

static void block(const block_args *a)
{
    float lane[16] = {0};
    if (!a->first) memcpy(lane, a->acc, sizeof lane);
    for (uint64_t i = 0; i < a->steps * 16; i++) lane[i % 16] = fmaf(a->w[i], a->x[i], lane[i % 16]);
    if (a->last) {
        a->y[0] = spec_tree(lane);
    } else {
        memcpy(a->acc, lane, sizeof lane);
    }
}

static void add(float *x, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] += y[i];
}

static void silu(float *gate, const float *up, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) gate[i] = spec_silu(gate[i]) * up[i];
}

static void gelu_tanh(float *gate, const float *up, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) gate[i] = spec_gelu_tanh(gate[i]) * up[i];
}

static void exps(const float *x, float *out, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) out[i] = spec_expf(x[i]);
}

static void narrow(const float *x, uint16_t *out, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) out[i] = f16_from_f32(x[i]);
}

static void rotate_pair(float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = x * c - y * s;
    *b = y * c + x * s;
}

static void rotate_half(float *x, uint32_t dims, const float *cos, const float *sin)
{
    for (uint32_t i = 0; i < dims / 2; i++) rotate_pair(x + i, x + dims / 2 + i, cos[i], sin[i]);
}

static void rotate_pairs(float *x, uint32_t dims, const float *cos, const float *sin)
{
    for (uint32_t i = 0; i < dims / 2; i++) rotate_pair(x + 2 * i, x + 2 * i + 1, cos[i], sin[i]);
}

static void attend(const attend_args *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        spec_attention_row row = {.q = a->q[i],
                                  .out = a->out[i],
                                  .k = a->k,
                                  .v = a->v,
                                  .capacity = a->capacity,
                                  .head_dim = a->head_dim,
                                  .position = a->position[i],
                                  .window = a->window,
                                  .scale = a->scale,
                                  .half = a->half};
        spec_attention(&row);
    }
}

static float read_all(const float *x, uint64_t n)
{
    float sum = 0.0f;
    for (uint64_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

static double multiply_adds(uint64_t n, float *sink)
{
    float acc[16];
    for (int i = 0; i < 16; i++) acc[i] = (float)i;
    for (uint64_t j = 0; j < n; j++)
        for (int i = 0; i < 16; i++) acc[i] = fmaf(acc[i], 0.5f, 1.0f);
    *sink = spec_tree(acc);
    return 32.0 * (double)n;
}

#define ROW(name)                                                                                                      \
    {                                                                                                                  \
        .widen = widen_##name, .panel = panel_##name, .dots = dots_##name                                              \
    }

void kernels_scalar(kernels *k)
{
    *k = (kernels){.name = "scalar",
                   .panel_rows = 1,
                   .tile_tokens = 1,
                   .fused_tokens = 1,
                   .weight = {[DT_F32] = ROW(f32),
                              [DT_F16] = ROW(f16),
                              [DT_BF16] = ROW(bf16),
                              [DT_Q8_0] = ROW(q8_0),
                              [DT_Q4_0] = ROW(q4_0),
                              [DT_Q4_1] = ROW(q4_1)},
                   .block = block,
                   .rms_norm = spec_rms_norm,
                   .add = add,
                   .silu = silu,
                   .gelu_tanh = gelu_tanh,
                   .exp = exps,
                   .narrow = narrow,
                   .rotate_half = rotate_half,
                   .rotate_pairs = rotate_pairs,
                   .attend = attend,
                   .read = read_all,
                   .fma = multiply_adds};
}
