/* Owns: means, quantiles and their standard errors, for numbers that come one after another from a text.
 *
 * Promises: neighbours in a text are not independent, so errors come from batch means: the n numbers in their order
 * make about sqrt(n) blocks of about sqrt(n), and the spread between the means of blocks gives the error of the whole
 * (Flegal and Jones, "Batch means and spectral variance estimators in Markov chain Monte Carlo", 2010: consistent for
 * that length). Taking tokens as independent makes errors look smaller than they are. A quantile's error is that of the
 * share of numbers below it, carried over to the axis of numbers (Woodruff, "Confidence intervals for medians and other
 * position measures", 1952). Sums are taken in double, in order: the same numbers give the same bits. */
#include "eval.h"

#include <math.h>

typedef struct blocks {
    size_t n, count;
} blocks;

static blocks blocks_of(size_t n)
{
    size_t length = (size_t)sqrt((double)n);
    return (blocks){n, length ? n / length : 1};
}

/* Where block k begins: sizes differ by one at most. */
static size_t block_begin(blocks b, size_t k)
{
    return b.n / b.count * k + (b.n % b.count) * k / b.count;
}

typedef double (*sample_fn)(double x, double parameter);

static double identity(double x, double parameter)
{
    (void)parameter;
    return x;
}
static double square(double x, double parameter)
{
    (void)parameter;
    return x * x;
}
static double not_above(double x, double parameter)
{
    return x <= parameter;
}

static double sum_between(const double *x, size_t begin, size_t end, sample_fn f, double parameter)
{
    double sum = 0;
    for (size_t i = begin; i < end; i++) sum += f(x[i], parameter);
    return sum;
}

static estimate mean_of(const double *x, size_t n, sample_fn f, double parameter)
{
    blocks b = blocks_of(n);
    double mean = sum_between(x, 0, n, f, parameter) / (double)n, spread = 0;
    for (size_t k = 0; k < b.count; k++) {
        size_t begin = block_begin(b, k), end = block_begin(b, k + 1);
        double off = sum_between(x, begin, end, f, parameter) - mean * (double)(end - begin);
        spread += off * off;
    }
    double count = (double)b.count;
    double error = b.count > 1 ? sqrt(spread * count / (count - 1)) / (double)n : NAN;
    return (estimate){mean, error};
}

estimate estimate_mean(const double *x, size_t n)
{
    return mean_of(x, n, identity, 0);
}

estimate estimate_rms(const double *x, size_t n)
{
    estimate e = mean_of(x, n, square, 0);
    double root = sqrt(e.value);
    return (estimate){root, root > 0 ? e.error / (2 * root) : e.error};
}

/* Between the two nearest, as NumPy's default does. */
static double quantile(const double *sorted, size_t n, double q)
{
    double place = (q < 0 ? 0 : q > 1 ? 1 : q) * (double)(n - 1);
    size_t low = (size_t)place;
    if (low + 1 >= n) return sorted[n - 1];
    return sorted[low] + (place - (double)low) * (sorted[low + 1] - sorted[low]);
}

estimate estimate_quantile(const double *x, const double *sorted, size_t n, double q)
{
    double value = quantile(sorted, n, q);
    double share = mean_of(x, n, not_above, value).error;
    return (estimate){value,
                      isnan(share) ? NAN : (quantile(sorted, n, q + share) - quantile(sorted, n, q - share)) / 2};
}
