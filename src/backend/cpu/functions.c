/* exp, log, sine, cosine, tanh and erf of the specification, and the activations made of them. libm differs between
 * systems and versions; these use only operations that IEEE 754 rounds correctly, in a fixed order, so that every
 * machine gives the same bits. The vector levels repeat exp, tanh and erf operation by operation; where a function has
 * two forms they compute both and choose.
 *
 * exp: x = n ln 2 + r, |r| <= ln 2 / 2 (Cody and Waite's reduction in two parts); e^r = 1 + r + r^2 P(r) with P of
 * degree 5, a Chebyshev fit with an error of 2^-30; 2^n in two factors so that denormal results are rounded once. tanh,
 * erf: a polynomial where the other form would cancel, its coefficients a minimax fit with an error below 2^-27 of the
 * result. Q(x) = -log(erfc(x)) is smooth; where it is used erfc is at most 0.2, so that its error weighs little. */
#include "spec.h"

#include <math.h>
#include <string.h>

static float f32_of_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t bits_of_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

float spec_expf(float x)
{
    x = x < EXP_LOW ? EXP_LOW : x; /* NaN passes */
    x = x > EXP_HIGH ? EXP_HIGH : x;
    float t = fmaf(x, EXP_LOG2E, EXP_MAGIC), n = t - EXP_MAGIC;
    float r = fmaf(n, -EXP_LN2_HI, x);
    r = fmaf(n, -EXP_LN2_LO, r);
    float p = EXP_C7;
    p = fmaf(p, r, EXP_C6);
    p = fmaf(p, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(r * r, p, r);
    p = p + 1.0f;
    uint32_t i = bits_of_f32(t) - bits_of_f32(EXP_MAGIC);          /* n in two's complement */
    uint32_t half = (i >> 1) | (i & 0x80000000u), rest = i - half; /* n / 2 rounded down, and what is left */
    return p * f32_of_bits((half + 127u) << 23) * f32_of_bits((rest + 127u) << 23);
}

/* In double: x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), by its series. */
float spec_logf(float x)
{
    if (!(x > 0.0f)) return x == 0.0f ? -INFINITY : NAN;
    if (x > 0x1.fffffep+127f) return x;
    int e = 0;
    if (x < 0x1p-126f) {
        x *= 0x1p+24f;
        e = -24;
    }
    uint32_t u = bits_of_f32(x);
    e += (int)(u >> 23) - 127;
    double m = (double)f32_of_bits((u & 0x7fffffu) | 0x3f800000u);
    if (m > 0x1.6a09e667f3bcdp+0) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s, sum = 0.0;
    for (int i = 21; i >= 3; i -= 2) sum = (sum + 1.0 / i) * z;
    return (float)(2.0 * s * (1.0 + sum) + e * 0x1.62e42fefa39efp-1);
}

/* In double: pi / 2 in four parts of 21 bits and the rest, so that n times a part is exact for n < 2^32 and the
 * remainder keeps its relative precision near a multiple of pi / 2; then Taylor polynomials on [-pi/4, pi/4]. */
sine_cosine spec_sincosf(float xf)
{
    if (!(fabsf(xf) < 0x1p+32f)) return (sine_cosine){NAN, NAN};
    double x = (double)xf;
    double n = x * 0x1.45f306dc9c883p-1 + 0x1.8p+52;
    n -= 0x1.8p+52;
    double r = x - n * 0x1.921fbp+0;
    r -= n * 0x1.5110bp-22;
    r -= n * 0x1.18469p-44;
    r -= n * 0x1.13198a2e03707p-65;
    double z = r * r, s = 0.0, c = 0.0;
    for (int i = 17; i >= 3; i -= 2) s = (1.0 - s) * z / (double)(i * (i - 1));
    for (int i = 18; i >= 2; i -= 2) c = (1.0 - c) * z / (double)(i * (i - 1));
    s = r - r * s;
    c = 1.0 - c;
    switch ((int64_t)n & 3) {
    case 0:
        return (sine_cosine){(float)s, (float)c};
    case 1:
        return (sine_cosine){(float)c, (float)-s};
    case 2:
        return (sine_cosine){(float)-s, (float)-c};
    default:
        return (sine_cosine){(float)-c, (float)s};
    }
}

float spec_tanhf(float x)
{
    float a = fabsf(x), z = x * x, p = TANH_C4;
    if (a < TANH_SMALL) {
        p = fmaf(p, z, TANH_C3);
        p = fmaf(p, z, TANH_C2);
        p = fmaf(p, z, TANH_C1);
        p = fmaf(p, z, TANH_C0);
        return copysignf(fmaf(a, z * p, a), x);
    }
    return copysignf(1.0f - 2.0f / (1.0f + spec_expf(a + a)), x);
}

float spec_erff(float x)
{
    float z = x * x, a = fabsf(x), p = ERF_P6, q = ERF_Q7;
    if (a < ERF_SMALL) {
        p = fmaf(p, z, ERF_P5);
        p = fmaf(p, z, ERF_P4);
        p = fmaf(p, z, ERF_P3);
        p = fmaf(p, z, ERF_P2);
        p = fmaf(p, z, ERF_P1);
        p = fmaf(p, z, ERF_P0);
        return fmaf(x, p, x);
    }
    a = a > ERF_HIGH ? ERF_HIGH : a; /* NaN passes */
    q = fmaf(q, a, ERF_Q6);
    q = fmaf(q, a, ERF_Q5);
    q = fmaf(q, a, ERF_Q4);
    q = fmaf(q, a, ERF_Q3);
    q = fmaf(q, a, ERF_Q2);
    q = fmaf(q, a, ERF_Q1);
    q = fmaf(q, a, ERF_Q0);
    return copysignf(1.0f - spec_expf(-q), x);
}

float spec_sigmoid(float x)
{
    return 1.0f / (1.0f + spec_expf(-x));
}

float spec_softcap(float x, float cap)
{
    return cap * spec_tanhf(x / cap);
}

static float relu(float x)
{
    return 0.0f > x ? 0.0f : x; /* NaN passes */
}

static float quick_gelu(float x)
{
    return x / (1.0f + spec_expf(-(QUICK_GELU * x)));
}

float spec_activation(act_kind act, float x, float limit)
{
    float u;
    switch (act) {
    case BACKEND_SILU:
        return x / (1.0f + spec_expf(-x));
    case BACKEND_GELU_TANH:
        u = fmaf(GELU_CUBE * x * x, x, x); /* ((c x) x) x + x */
        return x / (1.0f + spec_expf(-(GELU_SCALE * u)));
    case BACKEND_GELU_ERF:
        return (0.5f * x) * (1.0f + spec_erff(x * SQRT_HALF));
    case BACKEND_RELU:
        return relu(x);
    case BACKEND_RELU2:
        return relu(x) * relu(x);
    case BACKEND_QUICK_GELU:
        return quick_gelu(x);
    case BACKEND_CLAMPED:
        return quick_gelu(limit < x ? limit : x);
    default:
        return NAN;
    }
}

float spec_gate(act_kind act, float gate, float up, float limit)
{
    if (act == BACKEND_CLAMPED) {
        up = limit < up ? limit : up; /* NaN passes */
        up = -limit > up ? -limit : up;
        up = up + 1.0f;
    }
    return spec_activation(act, gate, limit) * up;
}
