/* Owns the frequencies of rotary positions and of their scalings. Promises the formulas of transformers'
 * modeling_rope_utils, step by step in the precision in which it computes each (Python's double or torch's f32), and
 * the same bits on every machine: pow and log are our own, of operations that IEEE 754 rounds correctly.
 *
 * pow is taken in double and rounded once to f32, so it is the correctly rounded f32 but for cases closer to a tie than
 * 1e-7 of a unit; torch's vector pow is within 1 ulp of the true value, so the two differ by at most one f32.
 *
 * Sources: linear (kaiokendev 2023), dynamic NTK (bloc97, emozilla 2023), YaRN (Peng et al. 2023, arXiv:2309.00071),
 * Llama 3.1 (Meta's reference implementation). */
#include <math.h>
#include <string.h>

#include "model/family.h"

/* ---- log and pow ------------------------------------------------------------------------------------------------- */

static const double LN2_HIGH = 0x1.62e42fefa38p-1; /* 42 bits: times an exponent it is exact */
static const double LN2_LOW = 0x1.ef35793c7673p-45;

/* Natural logarithm of a finite x > 0. x = m 2^e, m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1),
 * by its series to s^27 (|s| <= 0.1716: what is left out is below 1e-22). Error below 4e-16 of the value or of 1. */
static double own_log(double x)
{
    int e;
    double m = frexp(x, &e); /* exact */
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2.0;
        e--;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s, sum = 0.0;
    for (int i = 27; i >= 3; i -= 2) sum = (sum + 1.0 / i) * z;
    return (double)e * LN2_HIGH + (2.0 * s * (1.0 + sum) + (double)e * LN2_LOW);
}

/* e^x for |x| < 700. x = n ln 2 + r, |r| <= 0.35; the series of e^r to r^16 (what is left out is below 1e-22). Relative
 * error below 4e-16. */
static double own_exp(double x)
{
    double n = floor(x * 0x1.71547652b82fep+0 + 0.5);
    double r = (x - n * LN2_HIGH) - n * LN2_LOW, sum = 1.0;
    for (int i = 16; i >= 1; i--) sum = 1.0 + sum * r / i;
    return ldexp(sum, (int)n); /* exact: far from denormals */
}

/* base^exponent as torch.pow of f32: both operands f32, the result rounded to f32. base > 0, exponent >= 0; the base
 * of dynamic scaling may have grown to infinity. */
static float power(float base, float exponent)
{
    if (exponent == 0.0f) return 1.0f;
    if (isinf(base)) return INFINITY;
    double x = (double)exponent * own_log((double)base);
    if (x > 88.73) return INFINITY;
    if (x < -104.0) return 0.0f;
    return (float)own_exp(x);
}

/* ---- each kind of scaling ---------------------------------------------------------------------------------------- */

/* base^(2 i / dims): arange, division and power in f32. */
static float wave(float base, uint32_t i, uint32_t dims)
{
    return power(base, (float)(2 * i) / (float)dims);
}

static void plain(float base, uint32_t dims, float *inv_freq)
{
    for (uint32_t i = 0; i < dims / 2; i++) inv_freq[i] = 1.0f / wave(base, i, dims);
}

/* The base grows with the context beyond what was trained. In a forward pass the reference has the length as a tensor,
 * so this is f32. */
static float dynamic_base(const rope_axes *rope, uint32_t context)
{
    float base = (float)rope->theta;
    if (context <= rope->original_context) return base;
    float grown = (float)rope->factor * (float)context / (float)rope->original_context - (float)(rope->factor - 1.0);
    double exponent = (double)rope->dims / (double)(rope->dims - 2);
    return base * power(grown, (float)exponent);
}

/* QWen 1 (modeling_qwen.py, get_ntk_alpha): the base grows in powers of two of the trained length. */
static float qwen_base(const rope_axes *rope, uint32_t context)
{
    double base = rope->theta;
    if (context <= rope->original_context) return (float)base;
    int steps = 1; /* ceil(log2(context / original)) + 1 */
    for (uint64_t length = rope->original_context; length < context; length *= 2) steps++;
    double alpha = ldexp(1.0, steps) - 1.0;
    return (float)base * power((float)alpha, (float)((double)rope->dims / (double)(rope->dims - 2)));
}

/* LongRoPE (Ding et al. 2024), as modeling_rope_utils computes it. factors: the list that a tensor
 * gives, or NULL. */
static void longrope(const rope_axes *rope, uint32_t context, const float *factors, float *inv_freq)
{
    const float *list = context > rope->original_context ? rope->long_factors : rope->short_factors;
    if (!list) list = factors;
    for (uint32_t i = 0; i < rope->dims / 2; i++)
        inv_freq[i] = 1.0f / ((list ? list[i] : 1.0f) * wave((float)rope->theta, i, rope->dims));
}

double rope_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * own_log(factor) + 1.0;
}

double rope_grown_base(double base, double alpha, uint32_t dims)
{
    return base * own_exp(own_log(alpha) * (double)dims / (double)(dims - 2));
}

double rope_attention_factor(const rope_axes *rope)
{
    if (rope->attention_factor != 0.0) return rope->attention_factor;
    if (rope->scaling == ROPE_LONG)
        return rope->factor <= 1.0 ? 1.0 : sqrt(1.0 + own_log(rope->factor) / own_log((double)rope->original_context));
    if (rope->mscale != 0.0 && rope->mscale_all_dim != 0.0)
        return rope_mscale(rope->factor, rope->mscale) / rope_mscale(rope->factor, rope->mscale_all_dim);
    return rope_mscale(rope->factor, 1.0);
}

/* The dimension that turns `rotations` times within the trained context. */
static double correction(const rope_axes *rope, double rotations)
{
    const double pi = 0x1.921fb54442d18p+1;
    return (double)rope->dims * own_log((double)rope->original_context / (rotations * 2.0 * pi)) /
           (2.0 * own_log(rope->theta));
}

static void yarn(const rope_axes *rope, float *inv_freq)
{
    double low = correction(rope, rope->beta_fast), high = correction(rope, rope->beta_slow);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0.0 ? low : 0.0;
    double last = (double)(rope->dims - 1);
    high = high < last ? high : last;
    if (low == high) high += 0.001;
    float from = (float)low, span = (float)(high - low);
    for (uint32_t i = 0; i < rope->dims / 2; i++) {
        float w = wave((float)rope->theta, i, rope->dims);
        float extrapolated = 1.0f / w, interpolated = 1.0f / ((float)rope->factor * w);
        float ramp = ((float)i - from) / span;
        ramp = ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp;
        float keep = 1.0f - ramp;
        inv_freq[i] = interpolated * (1.0f - keep) + extrapolated * keep;
    }
}

static void llama3(const rope_axes *rope, float *inv_freq)
{
    float context = (float)rope->original_context, factor = (float)rope->factor;
    float low = (float)rope->low_freq_factor;
    float long_wave = (float)((double)rope->original_context / rope->low_freq_factor);
    float short_wave = (float)((double)rope->original_context / rope->high_freq_factor);
    float span = (float)(rope->high_freq_factor - rope->low_freq_factor);
    plain((float)rope->theta, rope->dims, inv_freq);
    for (uint32_t i = 0; i < rope->dims / 2; i++) {
        float f = inv_freq[i], length = 0x1.921fb6p+2f /* 2 pi */ / f;
        if (length > long_wave) {
            inv_freq[i] = f / factor;
        } else if (!(length < short_wave)) {
            float smooth = (context / length - low) / span;
            inv_freq[i] = (1.0f - smooth) * f / factor + smooth * f;
        }
    }
}

void rope_frequencies(const rope_axes *rope, uint32_t context, const float *factors, float *inv_freq, float *scale)
{
    uint32_t half = rope->dims / 2;
    *scale = 1.0f;
    switch (rope->scaling) {
    case ROPE_PLAIN:
        plain((float)rope->theta, rope->dims, inv_freq);
        break;
    case ROPE_LINEAR:
        plain((float)rope->theta, rope->dims, inv_freq);
        for (uint32_t i = 0; i < half; i++) inv_freq[i] /= (float)rope->factor;
        break;
    case ROPE_DYNAMIC:
        plain(dynamic_base(rope, context), rope->dims, inv_freq);
        break;
    case ROPE_YARN:
        yarn(rope, inv_freq);
        *scale = (float)rope_attention_factor(rope);
        break;
    case ROPE_LLAMA3:
        llama3(rope, inv_freq);
        break;
    case ROPE_QWEN:
        plain(qwen_base(rope, context), rope->dims, inv_freq);
        break;
    case ROPE_LONG:
        longrope(rope, context, factors, inv_freq);
        *scale = (float)rope_attention_factor(rope);
        break;
    case ROPE_FACTORS:
        plain((float)rope->theta, rope->dims, inv_freq);
        for (uint32_t i = 0; factors && i < half; i++) inv_freq[i] /= factors[i];
        break;
    }
}

float alibi_slope(uint32_t heads, uint32_t h)
{
    const double ln2 = 0x1.62e42fefa39efp-1;
    uint32_t below = 1;
    while (below * 2 <= heads) below *= 2;
    double exponent = h < below ? -8.0 * (h + 1) / below : -4.0 * (2 * (h - below) + 1) / below;
    return (float)own_exp(exponent * ln2);
}
