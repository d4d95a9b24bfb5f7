/* Recoding: what becomes of a row.
 *
 * Owns the ways from a source's type to the store's. Promises that what is packed has been decoded again and found
 * equal, bit for bit, before anybody writes it: bad memory and bad programs are found while the source is still there.
 * Works in memory that was laid out before, row by row, so that a row is the least that packing must hold. */
#include "store/recode.h"

#include <string.h>

recode_kind recode_kind_of(const image_tensor *x)
{
    const packed_form *to = packed_form_of(x->t.type), *from = packed_form_of(x->from);
    if (!image_recoded(x)) return RECODE_NONE;
    if (to && !from && x->from == x->t.of && (x->from == to->of || x->from == DT_F32)) return RECODE_PACK;
    if (from && !to && (x->t.type == from->of || x->t.type == DT_F32)) return RECODE_UNPACK;
    bool plain = x->from == DT_F32 || x->from == DT_F16 || x->from == DT_BF16;
    if ((plain || from || dtype_is_f8(x->from)) && quantize_can(x->t.type)) return RECODE_QUANTISE;
    return RECODE_IMPOSSIBLE;
}

static uint32_t bits_at(const uint8_t *from, uint64_t i)
{
    uint32_t u;
    memcpy(&u, from + 4 * i, sizeof u);
    return u;
}

static bool narrow_f16(const uint8_t *from, uint64_t n, uint8_t *to)
{
    for (uint64_t i = 0; i < n; i++) {
        union {
            uint32_t u;
            float f;
        } x = {.u = bits_at(from, i)}, y;
        uint16_t h = f16_from_f32(x.f);
        y.f = f16_to_f32(h);
        if (x.u != y.u) return false;
        memcpy(to + 2 * i, &h, sizeof h);
    }
    return true;
}

bool recode_narrow(dtype half, const uint8_t *from, uint64_t n, uint8_t *to)
{
    if (half == DT_F16) return narrow_f16(from, n, to);
    uint32_t rest = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t u = bits_at(from, i);
        uint16_t h = (uint16_t)(u >> 16);
        rest |= u << 16;
        memcpy(to + 2 * i, &h, sizeof h);
    }
    return rest == 0;
}

static void widen(dtype half, const uint8_t *from, uint64_t n, uint8_t *to)
{
    for (uint64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, from + 2 * i, sizeof h);
        float f = half == DT_F16 ? f16_to_f32(h) : bf16_to_f32(h);
        memcpy(to + 4 * i, &f, sizeof f);
    }
}

static void widen_codes(dtype codes, const uint8_t *from, uint64_t n, float *to)
{
    float numbers[256];
    for (int c = 0; c < 256; c++)
        numbers[c] = codes == DT_F8_E4M3 ? f8_e4m3_to_f32((uint8_t)c) : f8_e5m2_to_f32((uint8_t)c);
    for (uint64_t i = 0; i < n; i++) to[i] = numbers[from[i]];
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

typedef struct extents {
    uint64_t row, columns, source_row, scales;
} extents;

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static extents extents_of(const image *im)
{
    extents e = {0};
    for (size_t i = 0; i < im->n_tensors; i++) {
        const image_tensor *x = &im->tensors[i];
        if (recode_kind_of(x) == RECODE_NONE) continue;
        uint64_t columns = image_columns(&x->t);
        e.columns = larger(e.columns, columns);
        e.row = larger(e.row, tensor_row_bytes(&x->t, columns));
        e.source_row = larger(e.source_row, image_source_row(x));
        e.scales = larger(e.scales, scales_window_bytes(&x->scales));
    }
    e.row = (e.row + 63) / 64 * 64;
    e.columns = (e.columns + 31) / 32 * 32;
    return e;
}

uint64_t recoder_bytes(const image *im, uint64_t *longest_source_row)
{
    extents e = extents_of(im);
    *longest_source_row = e.source_row;
    return e.scales + e.row + 12 * e.columns;
}

void recoder_place(recoder *r, const store_job *job, sources *s, const image *im, uint8_t *at)
{
    extents e = extents_of(im);
    uint8_t *row = at + e.scales, *half = row + e.row, *wide = half + 4 * e.columns;
    *r = (recoder){.job = job,
                   .sources = s,
                   .row = row,
                   .half = half,
                   .again = half + 2 * e.columns,
                   .wide = (float *)(void *)wide,
                   .seen = (float *)(void *)(wide + 4 * e.columns)};
    scales_window_place(&r->scales, at, e.scales);
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

static lamina_status pack_row(recoder *r, const image_tensor *x, uint64_t row, const uint8_t *from, uint8_t *to,
                              lamina_error *err)
{
    const packed_form *f = packed_form_of(x->t.type);
    uint64_t k = image_columns(&x->t), capacity = x->t.row_bytes - packed_row_bytes(f, k, 0);
    const uint8_t *half = from;
    bool fits = true;
    if (x->from == DT_F32) {
        fits = recode_narrow(f->of, from, k, r->half);
        half = r->half;
    }
    if (!fits || !packed_encode(f, half, k, capacity, to))
        return error_set(err, LAMINA_E_CORRUPT, "%s: row %llu is not what it was when it was surveyed", x->t.name,
                         (unsigned long long)row);
    if (r->job->damage) r->job->damage(r->job->step_user, to, x->t.row_bytes);
    if (packed_is(f, to, x->t.row_bytes, half, k)) return LAMINA_OK;
    return error_set(err, LAMINA_E_CORRUPT, "%s: row %llu, packed, decodes to other bits", x->t.name,
                     (unsigned long long)row);
}

static void unpack_row(recoder *r, const image_tensor *x, const uint8_t *from, uint8_t *to)
{
    const packed_form *f = packed_form_of(x->from);
    uint64_t k = image_columns(&x->t);
    packed_decode(f, from, x->from_row_bytes, k, 0, k, (uint16_t *)(void *)r->again);
    if (x->t.type == f->of)
        memcpy(to, r->again, 2 * k);
    else
        widen(f->of, r->again, k, to);
}

void recode_widen(dtype from, uint64_t row_bytes, const uint8_t *row, uint64_t k, uint8_t *half, float *to)
{
    const packed_form *f = packed_form_of(from);
    if (f) packed_decode(f, row, row_bytes, k, 0, k, (uint16_t *)(void *)half);
    if (from == DT_F32)
        memcpy(to, row, 4 * k);
    else if (dtype_is_f8(from))
        widen_codes(from, row, k, to);
    else
        widen(f ? f->of : from, f ? half : row, k, (uint8_t *)to);
}

lamina_status recode_cannot_hold(const char *name, uint64_t row, dtype to, lamina_error *err)
{
    return error_set(err, LAMINA_E_UNSUPPORTED,
                     "%s: row %llu has a number that %s cannot hold (NaN, infinite or too large)", name,
                     (unsigned long long)row, dtype_name(to));
}

/* Rows are whole blocks, so whole lines of eight: two vectors. */
static void add_cost(const float *x, const float *seen, uint64_t k, quantize_cost *cost)
{
    enum { LINE = 8, STRETCH = 32 * LINE };
    typedef float four __attribute__((vector_size(16)));
    for (uint64_t at = 0; at < k; at += STRETCH) {
        four error[2] = {{0}}, power[2] = {{0}};
        uint64_t end = k - at < STRETCH ? k : at + STRETCH;
        for (uint64_t i = at; i < end; i += LINE) {
            four v[2], is[2];
            memcpy(v, x + i, sizeof v);
            memcpy(is, seen + i, sizeof is);
            for (int h = 0; h < 2; h++) {
                four d = v[h] - is[h];
                error[h] += d * d;
                power[h] += v[h] * v[h];
            }
        }
        for (int l = 0; l < LINE; l++) {
            cost->error += (double)error[l / 4][l % 4];
            cost->power += (double)power[l / 4][l % 4];
        }
    }
}

static lamina_status quantise_row(recoder *r, const image_tensor *x, uint64_t row, const uint8_t *from, uint8_t *to,
                                  lamina_error *err)
{
    uint64_t k = image_columns(&x->t);
    recode_widen(x->from, x->from_row_bytes, from, k, r->again, r->wide);
    TRY(scales_apply(&r->scales, r->sources, &x->scales, row, image_rows(&x->t), k, r->wide, err));
    if (quantize_rows(x->t.type, r->wide, 1, k, x->importance, to) != 1)
        return recode_cannot_hold(x->t.name, row, x->t.type, err);
    quantize_widen(x->t.type, to, k, r->seen);
    add_cost(r->wide, r->seen, k, &r->cost);
    return LAMINA_OK;
}

lamina_status recode_row(recoder *r, const image_tensor *x, uint64_t row, const uint8_t *from, uint8_t *to,
                         lamina_error *err)
{
    switch (recode_kind_of(x)) {
    case RECODE_PACK:
        return pack_row(r, x, row, from, to, err);
    case RECODE_QUANTISE:
        return quantise_row(r, x, row, from, to, err);
    default:
        unpack_row(r, x, from, to);
        return LAMINA_OK;
    }
}
