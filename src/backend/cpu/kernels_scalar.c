/* The scalar level: the specification behind the kernels' interface, one weight row by one token row. Where the machine
 * has nothing better it is what runs; where it has, it is what the others are compared with. */
#include "grids.h"
#include "kernels.h"
#include "store/packed.h"

#include <math.h>
#include <string.h>

#define TYPE(name, stored)                                                                                             \
    static float at_##name(const weight_row *row, uint64_t i)                                                          \
    {                                                                                                                  \
        return weight_of(stored, row, i);                                                                              \
    }                                                                                                                  \
    static void widen_##name(const weight_row *row, uint64_t k, float *out)                                            \
    {                                                                                                                  \
        for (uint64_t i = 0; i < k; i++) out[i] = at_##name(row, i);                                                   \
    }                                                                                                                  \
    static void panel_##name(const weight_row *row, uint64_t k0, uint64_t n, float *out, size_t step)                  \
    {                                                                                                                  \
        for (uint64_t i = 0; i < (n + 15) / 16 * 16; i++)                                                              \
            out[i / 16 * step + i % 16] = i < n ? at_##name(row, k0 + i) : 0.0f;                                       \
    }

/* The specification reads elements of a matrix: here it is one row, with what belongs to it. */
static float weight_of(dtype type, const weight_row *row, uint64_t i)
{
    matrix_rows w = {.type = type,
                     .data = row->data,
                     .scales = dtype_has_scales(type) ? (const float *)row->side + (i / GROUP >> row->shift) : NULL,
                     .side = type == DT_MXFP4_PAIRS ? row->side : NULL,
                     .scale_rows = 1,
                     .scale_cols = UINT32_MAX};
    return spec_weight(&w, 0, i);
}
TYPE(f32, DT_F32)
TYPE(f16, DT_F16)
TYPE(bf16, DT_BF16)
TYPE(q8_0, DT_Q8_0)
TYPE(q4_0, DT_Q4_0)
TYPE(q4_1, DT_Q4_1)
TYPE(q5_0, DT_Q5_0)
TYPE(q5_1, DT_Q5_1)
TYPE(q2_k, DT_Q2_K)
TYPE(q3_k, DT_Q3_K)
TYPE(q4_k, DT_Q4_K)
TYPE(q5_k, DT_Q5_K)
TYPE(q6_k, DT_Q6_K)
TYPE(f8_e4m3, DT_F8_E4M3)
TYPE(f8_e5m2, DT_F8_E5M2)
TYPE(mxfp4, DT_MXFP4)
TYPE(mxfp4_pairs, DT_MXFP4_PAIRS)
TYPE(nf4_pairs, DT_NF4_PAIRS)
TYPE(fp4_pairs, DT_FP4_PAIRS)
TYPE(int8_rows, DT_INT8_ROWS)
TYPE(iq4_xs, DT_IQ4_XS)
GRID_TYPES(TYPE)

/* Rows of `packed` are read by the specification of their form. */
static void panel_packed(dtype type, const weight_row *row, uint64_t k0, uint64_t n, float *out, size_t step)
{
    const packed_form *f = packed_form_of(type);
    uint16_t some[PACKED_SECTION];
    for (uint64_t i = 0; i < n; i += PACKED_SECTION) {
        uint64_t count = n - i < PACKED_SECTION ? n - i : PACKED_SECTION;
        packed_decode(f, row->data, row->bytes, row->cols, k0 + i, count, some);
        for (uint64_t j = 0; j < count; j++)
            out[(i + j) / 16 * step + j % 16] = f->of == DT_BF16 ? bf16_to_f32(some[j]) : f16_to_f32(some[j]);
    }
    for (uint64_t i = n; i % 16; i++) out[i / 16 * step + i % 16] = 0.0f;
}

static void widen_packed(dtype type, const weight_row *row, uint64_t k, float *out)
{
    float last[16];
    panel_packed(type, row, 0, k / 16 * 16, out, 16);
    if (k % 16 == 0) return;
    panel_packed(type, row, k / 16 * 16, k % 16, last, 16);
    memcpy(out + k / 16 * 16, last, k % 16 * sizeof *out);
}

static void dots_packed(const dots_args *a)
{
    uint64_t k = a->w->cols;
    for (uint64_t r = 0; r < a->n_rows; r++) {
        weight_row row = weight_row_at(a->w, a->row_bytes, a->row0 + r);
        float lane[16] = {0}, w[PACKED_SECTION];
        for (uint64_t i = 0; i < k; i += PACKED_SECTION) {
            uint64_t n = k - i < PACKED_SECTION ? k - i : PACKED_SECTION;
            panel_packed(a->w->type, &row, i, n, w, 16);
            for (uint64_t j = 0; j < (n + 15) / 16 * 16; j++) lane[j % 16] = fmaf(w[j], a->x[i + j], lane[j % 16]);
        }
        a->y[r] = spec_tree(lane);
    }
}

#define PACKED(name, type)                                                                                             \
    static void widen_##name(const weight_row *row, uint64_t k, float *out)                                            \
    {                                                                                                                  \
        widen_packed(type, row, k, out);                                                                               \
    }                                                                                                                  \
    static void panel_##name(const weight_row *row, uint64_t k0, uint64_t n, float *out, size_t step)                  \
    {                                                                                                                  \
        panel_packed(type, row, k0, n, out, step);                                                                     \
    }
PACKED(bf16_packed3, DT_BF16_PACKED3)
PACKED(bf16_packed4, DT_BF16_PACKED4)
PACKED(f16_packed3, DT_F16_PACKED3)

static void dots(const dots_args *a)
{
    uint64_t k = a->w->cols;
    for (uint64_t r = 0; r < a->n_rows; r++) {
        weight_row row = weight_row_at(a->w, a->row_bytes, a->row0 + r);
        float lane[16] = {0};
        for (uint64_t i = 0; i < (k + 15) / 16 * 16; i++)
            lane[i % 16] = fmaf(i < k ? weight_of(a->w->type, &row, i) : 0.0f, a->x[i], lane[i % 16]);
        a->y[r] = spec_tree(lane);
    }
}

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

static void axpy(const axpy_args *a)
{
    for (uint32_t t = 0; t < a->n; t++)
        for (uint64_t r = 0; r < a->rows; r++)
            for (uint64_t c = 0; c < a->cols; c++) {
                float *y = a->y + t * a->stride + c;
                *y = fmaf(a->w[r * a->width + c], a->x[t * a->x_stride + r], *y);
            }
}

static void mix(const mix_args *a)
{
    for (uint32_t i = 0; i < a->k; i++) {
        float sum = 0.0f;
        for (uint32_t s = 0; s < a->slots; s++)
            if (a->index[s] != UINT32_MAX) sum = fmaf(a->weight[s], a->y[(uint64_t)a->index[s] * a->k + i], sum);
        a->x[i] += sum;
    }
}

static void squares(const float *x, uint64_t steps, float *lanes)
{
    for (uint64_t i = 0; i < steps * 16; i++) lanes[i % 16] = fmaf(x[i], x[i], lanes[i % 16]);
}

static void add(float *x, const float *y, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] += y[i];
}

static void add_scaled(float *x, const float *y, float s, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] += s * y[i];
}

static void scale(float *x, float s, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] *= s;
}

static void softcap(float *x, float cap, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] = spec_softcap(x[i], cap);
}

static void sigmoid(float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) x[i] = spec_sigmoid(x[i]);
}

#define ACTIVATION(name, act)                                                                                          \
    static void gate_##name(float *gate, const float *up, float limit, uint64_t n)                                     \
    {                                                                                                                  \
        for (uint64_t i = 0; i < n; i++) gate[i] = spec_gate(act, gate[i], up[i], limit);                              \
    }                                                                                                                  \
    static void activate_##name(float *x, float limit, uint64_t n)                                                     \
    {                                                                                                                  \
        for (uint64_t i = 0; i < n; i++) x[i] = spec_activation(act, x[i], limit);                                     \
    }
ACTIVATION(silu, BACKEND_SILU)
ACTIVATION(gelu_tanh, BACKEND_GELU_TANH)
ACTIVATION(gelu_erf, BACKEND_GELU_ERF)
ACTIVATION(relu, BACKEND_RELU)
ACTIVATION(relu2, BACKEND_RELU2)
ACTIVATION(quick_gelu, BACKEND_QUICK_GELU)
ACTIVATION(clamped, BACKEND_CLAMPED)

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
                                  .v_dim = a->v_dim,
                                  .position = a->position[i],
                                  .window = a->window,
                                  .scale = a->scale,
                                  .softcap = a->softcap,
                                  .slope = a->slope[i],
                                  .sloped = a->sloped,
                                  .sink = a->sinks ? &a->sink[i] : NULL,
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

#define PACKED_ROW(name)                                                                                               \
    {                                                                                                                  \
        .widen = widen_##name, .panel = panel_##name, .dots = dots_packed                                              \
    }
#define ROW(name)                                                                                                      \
    {                                                                                                                  \
        .widen = widen_##name, .panel = panel_##name, .dots = dots                                                     \
    }
#define GRID_ROW(name, type) [type] = ROW(name),

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
                              [DT_Q4_1] = ROW(q4_1),
                              [DT_Q5_0] = ROW(q5_0),
                              [DT_Q5_1] = ROW(q5_1),
                              [DT_Q2_K] = ROW(q2_k),
                              [DT_Q3_K] = ROW(q3_k),
                              [DT_Q4_K] = ROW(q4_k),
                              [DT_Q5_K] = ROW(q5_k),
                              [DT_Q6_K] = ROW(q6_k),
                              [DT_F8_E4M3] = ROW(f8_e4m3),
                              [DT_F8_E5M2] = ROW(f8_e5m2),
                              [DT_MXFP4] = ROW(mxfp4),
                              [DT_MXFP4_PAIRS] = ROW(mxfp4_pairs),
                              [DT_BF16_PACKED3] = PACKED_ROW(bf16_packed3),
                              [DT_BF16_PACKED4] = PACKED_ROW(bf16_packed4),
                              [DT_F16_PACKED3] = PACKED_ROW(f16_packed3),
                              [DT_NF4_PAIRS] = ROW(nf4_pairs),
                              [DT_FP4_PAIRS] = ROW(fp4_pairs),
                              [DT_INT8_ROWS] = ROW(int8_rows),
                              [DT_IQ4_XS] = ROW(iq4_xs),
                              GRID_TYPES(GRID_ROW)},
                   .block = block,
                   .axpy = axpy,
                   .mix = mix,
                   .rms_norm = spec_rms_norm,
                   .layer_norm = spec_layer_norm,
                   .squares = squares,
                   .add = add,
                   .add_scaled = add_scaled,
                   .scale = scale,
                   .softcap = softcap,
                   .sigmoid = sigmoid,
                   .gate = {[BACKEND_SILU] = gate_silu,
                            [BACKEND_GELU_TANH] = gate_gelu_tanh,
                            [BACKEND_GELU_ERF] = gate_gelu_erf,
                            [BACKEND_RELU] = gate_relu,
                            [BACKEND_RELU2] = gate_relu2,
                            [BACKEND_QUICK_GELU] = gate_quick_gelu,
                            [BACKEND_CLAMPED] = gate_clamped},
                   .activate = {[BACKEND_SILU] = activate_silu,
                                [BACKEND_GELU_TANH] = activate_gelu_tanh,
                                [BACKEND_GELU_ERF] = activate_gelu_erf,
                                [BACKEND_RELU] = activate_relu,
                                [BACKEND_RELU2] = activate_relu2,
                                [BACKEND_QUICK_GELU] = activate_quick_gelu,
                                [BACKEND_CLAMPED] = activate_clamped},
                   .exp = exps,
                   .narrow = narrow,
                   .rotate_half = rotate_half,
                   .rotate_pairs = rotate_pairs,
                   .attend = attend,
                   .read = read_all,
                   .fma = multiply_adds};
}
