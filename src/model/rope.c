/* Frequencies of the rotary embedding. Formulas and their order of rounding are those of transformers'
 * modeling_rope_utils.py: what is a tensor there is rounded to f32 here, what is a Python number there is double here.
 * Logarithm and power are our own, for libm's differ between systems and the design wants the same bits everywhere. */
#include <math.h>

#include "model/model.h"

static const double LN2_HIGH = 0x1.62e42fefa3800p-1, LN2_LOW = 0x1.ef35793c76730p-45;
static const double PI = 3.14159265358979323846;

/* ln x for finite x > 0: x = 2^e m with m in [sqrt(1/2), sqrt 2), ln m = 2 artanh((m - 1) / (m + 1)) as a series.
 * Error below 1e-15 relative to max(1, |ln x|). */
static double natural_log(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752440) {
        m *= 2;
        e--;
    }
    double s = (m - 1) / (m + 1), s2 = s * s, sum = 0;
    for (int k = 23; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
    return (double)e * LN2_HIGH + (2 * s * sum + (double)e * LN2_LOW);
}

/* e^y: y = n ln 2 + r, |r| <= 0.35, the series of e^r to its 17th term. Relative error below 1e-15. */
static double exponential(double y)
{
    if (y > 700 || y < -700) return y > 0 ? INFINITY : 0;
    double n = floor(y / (LN2_HIGH + LN2_LOW) + 0.5);
    double r = (y - n * LN2_HIGH) - n * LN2_LOW, sum = 1;
    for (int k = 17; k >= 1; k--) sum = 1 + sum * r / k;
    return ldexp(sum, (int)n);
}

static double power(double base, double exponent)
{
    return exponential(exponent * natural_log(base));
}

/* 1 / base^(2i / dims), each step rounded to f32. */
static float plain_frequency(double base, uint32_t i, uint32_t dims)
{
    float exponent = (float)(2 * i) / (float)dims;
    return 1.0f / (float)power((double)(float)base, (double)exponent);
}

/* NTK-aware base for a context beyond the trained one (bloc97, emozilla 2023). */
static double dynamic_base(const rope_axes *r, uint32_t context)
{
    double trained = r->original_context, length = context > r->original_context ? context : trained;
    double dims = r->dims;
    return r->theta * power(r->factor * length / trained - (r->factor - 1), dims / (dims - 2));
}

/* Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between interpolated. */
static float llama3_frequency(const rope_axes *r, float f)
{
    float factor = (float)r->factor, trained = (float)r->original_context;
    float low = (float)r->low_freq_factor, band = (float)(r->high_freq_factor - r->low_freq_factor);
    float wavelength = (float)(2 * PI) / f;
    bool slow = wavelength > (float)((double)r->original_context / r->low_freq_factor);
    bool fast = wavelength < (float)((double)r->original_context / r->high_freq_factor);
    if (slow) return f / factor;
    if (fast) return f;
    float smooth = (trained / wavelength - low) / band;
    return (1.0f - smooth) * f / factor + smooth * f;
}

/* The dimension that turns `turns` times within the trained context (YaRN, Peng et al. 2023, section 3.2). */
static double correction_dim(const rope_axes *r, double turns)
{
    return r->dims * natural_log(r->original_context / (turns * 2 * PI)) / (2 * natural_log(r->theta));
}

static void yarn(const rope_axes *r, float *inv_freq)
{
    double low = correction_dim(r, r->beta_fast), high = correction_dim(r, r->beta_slow);
    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    if (low < 0) low = 0;
    if (high > r->dims - 1.0) high = r->dims - 1.0;
    if (low == high) high += 0.001;
    for (uint32_t i = 0; i < r->dims / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1.0f - ramp;
        float p = (float)power((double)(float)r->theta, (double)((float)(2 * i) / (float)r->dims));
        float extrapolated = 1.0f / p, interpolated = 1.0f / ((float)r->factor * p);
        inv_freq[i] = interpolated * (1.0f - keep) + extrapolated * keep;
    }
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * natural_log(factor) + 1;
}

static double yarn_attention(const rope_axes *r)
{
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->mscale != 0 && r->mscale_all_dim != 0)
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    return yarn_mscale(r->factor, 1);
}

void rope_frequencies(const rope_axes *r, uint32_t context, const float *factors, float *inv_freq, float *scale)
{
    double base = r->scaling == ROPE_DYNAMIC ? dynamic_base(r, context) : r->theta;
    *scale = r->scaling == ROPE_YARN ? (float)yarn_attention(r) : 1.0f;
    if (r->scaling == ROPE_YARN) {
        yarn(r, inv_freq);
        return;
    }
    for (uint32_t i = 0; i < r->dims / 2; i++) {
        float f = plain_frequency(base, i, r->dims);
        if (r->scaling == ROPE_LINEAR) f /= (float)r->factor;
        if (r->scaling == ROPE_LLAMA3) f = llama3_frequency(r, f);
        if (factors) f /= factors[i];
        inv_freq[i] = f;
    }
}
