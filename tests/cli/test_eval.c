/* What eval is made of: estimates against numbers that are known, and distributions as they are kept against themselves
 * in full precision. */
#include "eval.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 1;

static double uniform(void)
{
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(state >> 11) * 0x1p-53;
}

static double normal(void)
{
    return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform());
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void estimates_of_few_numbers(void)
{
    const double x[] = {3, 1, 2, 5, 4, 9};
    double sorted[] = {1, 2, 3, 4, 5, 9};
    estimate one = estimate_mean(x, 1);
    CHECK(one.value == 3 && isnan(one.error));
    estimate mean = estimate_mean(x, 6); /* three blocks of two: 2, 3.5, 6.5 */
    CHECK(mean.value == 4);
    CHECK(fabs(mean.error - sqrt((4 + 0.25 + 6.25) / 2 / 3)) < 1e-12);
    CHECK(fabs(estimate_rms(x, 6).value - sqrt(136.0 / 6)) < 1e-12);
    CHECK(estimate_quantile(x, sorted, 6, 0.5).value == 3.5);
    CHECK(fabs(estimate_quantile(x, sorted, 6, 0.9).value - 7) < 1e-12);
    CHECK(estimate_quantile(x, sorted, 6, 1).value == 9);
    const double same[] = {2, 2, 2, 2, 2};
    CHECK(estimate_mean(same, 5).error == 0 && estimate_quantile(same, same, 5, 0.5).error == 0);
}

/* The spread of the estimates themselves over many texts is the error that each of them claims, for numbers that hang
 * together from one to the next as well. */
static void errors_are_what_they_claim(void)
{
    enum { N = 4000, TEXTS = 300 };
    double *x = malloc(N * sizeof *x), *sorted = malloc(N * sizeof *sorted);
    for (int dependent = 0; dependent < 2; dependent++) {
        double sum[3] = {0}, squares[3] = {0}, claimed[3] = {0};
        for (int t = 0; t < TEXTS; t++) {
            double before = 0;
            for (int i = 0; i < N; i++) {
                before = dependent ? 0.7 * before + normal() : normal();
                x[i] = sorted[i] = before;
            }
            qsort(sorted, N, sizeof *sorted, by_size);
            estimate e[3] = {estimate_mean(x, N), estimate_quantile(x, sorted, N, 0.9), estimate_rms(x, N)};
            for (int k = 0; k < 3; k++) {
                sum[k] += e[k].value;
                squares[k] += e[k].value * e[k].value;
                claimed[k] += e[k].error / TEXTS;
            }
        }
        for (int k = 0; k < 3; k++) {
            double mean = sum[k] / TEXTS, spread = sqrt(squares[k] / TEXTS - mean * mean);
            CHECK(claimed[k] > 0.8 * spread && claimed[k] < 1.2 * spread, "%d %d: %g of %g", dependent, k, claimed[k],
                  spread);
        }
    }
    free(x);
    free(sorted);
}

enum { VOCAB = 5000, ROWS = 60 };

typedef struct pair {
    float p[VOCAB], q[VOCAB];
} pair;

static double exact_kl(const pair *x)
{
    uint32_t top;
    double zp = token_nll(x->p, VOCAB, 0, &top, NULL) + x->p[0], zq = token_nll(x->q, VOCAB, 0, &top, NULL) + x->q[0];
    double kl = 0;
    for (int i = 0; i < VOCAB; i++) kl += exp(x->p[i] - zp) * (x->p[i] - zp - (x->q[i] - zq));
    return kl;
}

/* Logits of any sharpness, and another model's beside them. */
static void make_pair(pair *x, double sharpness, double apart)
{
    for (int i = 0; i < VOCAB; i++) {
        x->p[i] = (float)(sharpness * normal());
        x->q[i] = (float)((double)x->p[i] + apart * normal());
    }
}

static void kept_distributions(void)
{
    static const double sharpness[] = {0, 0.1, 1, 3, 8, 30}, apart[] = {0, 0.01, 0.1, 0.5, 3};
    pair *x = malloc(sizeof *x);
    cache_head head = {
        .vocab = VOCAB, .tokens = VOCAB, .context = 64, .stride = 32, .n_ids = ROWS + 1, .positions = ROWS};
    int32_t ids[ROWS + 1] = {0};
    for (size_t s = 0; s < sizeof sharpness / sizeof *sharpness; s++) {
        for (size_t a = 0; a < sizeof apart / sizeof *apart; a++) {
            logits_cache c;
            REQUIRE(cache_create(&c, NULL, &head, ids) == EXIT_DONE);
            uint64_t seed = state;
            double nll[ROWS], off = 0, variance = 0, bias = 0;
            for (int i = 0; i < ROWS; i++) {
                make_pair(x, sharpness[s], apart[a]);
                REQUIRE(cache_append(&c, x->p, i * 7, &nll[i]) == EXIT_DONE);
            }
            REQUIRE(cache_finish(&c, NULL) == EXIT_DONE);
            state = seed;
            for (int i = 0; i < ROWS; i++) {
                make_pair(x, sharpness[s], apart[a]);
                uint32_t top_p, top_q;
                token_nll(x->p, VOCAB, 0, &top_p, NULL);
                REQUIRE(cache_next(&c) == EXIT_DONE);
                comparison k = cache_compare(&c, x->q, VOCAB, i * 7);
                CHECK(k.reference_nll == nll[i]);
                CHECK(k.nll == token_nll(x->q, VOCAB, i * 7, &top_q, NULL));
                CHECK(k.same_top == (top_p == top_q));
                off += (k.kl - exact_kl(x)) / ROWS;
                variance += k.rounding_variance;
                bias += k.rounding_bias / ROWS;
            }
            double expected = sqrt(variance) / ROWS + bias + 1e-12;
            CHECK(fabs(off) < 4 * expected, "%g %g: %g, %g", sharpness[s], apart[a], off, expected);
            CHECK(apart[a] > 0.5 || fabs(off) < 1e-6, "%g %g: %g", sharpness[s], apart[a], off);
            CHECK(cache_next(&c) == EXIT_FAILED); /* there are no more */
            cache_close(&c);
        }
    }
    free(x);
}

static void extremes(void)
{
    uint32_t top;
    uint16_t codes[4];
    float far[4] = {0, -1e30f, -INFINITY, -40};
    CHECK(token_nll(far, 4, 0, &top, codes) == log(1 + exp(-40)) && top == 0);
    CHECK(codes[0] == 65535 && codes[1] == 0 && codes[2] == 0 && codes[3] == 3);
    float two[4] = {1, 5, 5, 0};
    token_nll(two, 4, 0, &top, codes);
    CHECK(top == 1 && codes[1] == 65535 && codes[2] == 65535);
    float bad[4] = {1, NAN, 0, 2};
    CHECK(!isfinite(token_nll(bad, 4, 0, &top, codes)));
    bad[1] = INFINITY;
    CHECK(!isfinite(token_nll(bad, 4, 0, &top, codes)));
}

TEST_MAIN(T(estimates_of_few_numbers), T(errors_are_what_they_claim), T(kept_distributions), T(extremes))
