/* Owns: what `lamina eval` says.
 *
 * Promises: every mean and quantile comes with its standard error; differences between two models are taken token by
 * token, so that what is hard in the text for both does not blur them. The maximum has no error: it is one token's. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>

typedef struct findings {
    size_t n;
    estimate nll, reference_nll, difference; /* model - reference */
    estimate kl, median, p90, p99;
    double most, rounding;
    estimate same_top;
    estimate shift, shift_rms; /* of the probability of the token that came: model - reference */
} findings;

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static findings find(const evaluation *e)
{
    size_t n = e->model.n;
    double *x = e->scratch;
    findings f = {.n = n, .nll = estimate_mean(e->nll, n)};
    if (!e->compares) return f;
    f.reference_nll = estimate_mean(e->reference_nll, n);
    f.same_top = estimate_mean(e->same_top, n);
    for (size_t i = 0; i < n; i++) x[i] = e->nll[i] - e->reference_nll[i];
    f.difference = estimate_mean(x, n);
    for (size_t i = 0; i < n; i++) x[i] = exp(-e->nll[i]) - exp(-e->reference_nll[i]);
    f.shift = estimate_mean(x, n);
    f.shift_rms = estimate_rms(x, n);
    for (size_t i = 0; i < n; i++) x[i] = e->kl[i];
    qsort(x, n, sizeof *x, by_size);
    f.kl = estimate_mean(e->kl, n);
    f.median = estimate_quantile(e->kl, x, n, 0.5);
    f.p90 = estimate_quantile(e->kl, x, n, 0.9);
    f.p99 = estimate_quantile(e->kl, x, n, 0.99);
    f.most = x[n - 1];
    f.rounding = (sqrt(e->rounding_variance) + e->rounding_bias) / (double)n;
    return f;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void set_signed(json_t *object, const char *name, double value)
{
    json_object_set_new(object, name, isfinite(value) ? json_real(value) : json_null());
}

static void set_estimate(json_t *object, const char *name, estimate x)
{
    char error[64];
    snprintf(error, sizeof error, "%s_stderr", name);
    set_signed(object, name, x.value);
    set_signed(object, error, x.error);
}

static void set_perplexity(json_t *object, estimate nll)
{
    double perplexity = exp(nll.value);
    set_estimate(object, "nll", nll);
    set_estimate(object, "perplexity", (estimate){perplexity, perplexity * nll.error});
}

static void set_comparison(json_t *object, const evaluation *e, const findings *f)
{
    json_t *reference = json_object();
    const scoring *s = &e->reference;
    json_set_text(object, "against", e->options->against ? e->options->against : e->cache.head.reference);
    set_perplexity(reference, f->reference_nll);
    if (!e->reused) {
        timing t = {.prompt_tokens = s->tokens_fed, .prefill_seconds = s->seconds};
        json_set_stats(reference, &s->w, &s->stats, &t);
    }
    json_object_set_new(object, "reference", reference);
    set_estimate(object, "nll_difference", f->difference);
    set_estimate(object, "kl_mean", f->kl);
    set_estimate(object, "kl_median", f->median);
    set_estimate(object, "kl_p90", f->p90);
    set_estimate(object, "kl_p99", f->p99);
    set_signed(object, "kl_max", f->most);
    set_signed(object, "kl_rounding", f->rounding);
    set_estimate(object, "top1_agreement", f->same_top);
    set_estimate(object, "probability_difference_mean", f->shift);
    set_estimate(object, "probability_difference_rms", f->shift_rms);
    json_set_bytes(object, "vocab_compared", e->common);
    json_set_bytes(object, "logits_cache_bytes",
                   cache_bytes(e->cache.head.vocab, e->cache.head.n_ids, e->cache.head.positions));
    json_object_set_new(object, "logits_cache_reused", json_boolean(e->reused));
}

static int report_json(const evaluation *e, const findings *f)
{
    const scoring *s = &e->model;
    json_t *object = json_object();
    timing t = {.prompt_tokens = s->tokens_fed, .prefill_seconds = s->seconds};
    json_set_text(object, "model", e->options->operands[0]);
    json_set_text(object, "file", e->options->operands[1]);
    json_set_bytes(object, "tokens", e->ids.n);
    json_set_bytes(object, "scored_tokens", f->n);
    set_perplexity(object, f->nll);
    if (e->compares) set_comparison(object, e, f);
    json_set_bytes(object, "context", e->context);
    json_set_bytes(object, "stride", e->stride);
    json_set_bytes(object, "windows", s->windows);
    json_object_set_new(object, "interrupted", json_boolean(s->cut_short));
    json_set_real(object, "tokens_per_s", s->seconds > 0 ? (double)s->tokens_fed / s->seconds : -1);
    json_set_stats(object, &s->w, &s->stats, &t);
    return json_print(object);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* "0.1234 +- 0.0012", without the second where it is not known. */
static label with_error(estimate x, int digits)
{
    label l;
    int n = snprintf(l.text, sizeof l.text, "%.*f", digits, x.value);
    size_t used = n > 0 && (size_t)n < sizeof l.text ? (size_t)n : sizeof l.text - 1;
    if (isfinite(x.error)) snprintf(l.text + used, sizeof l.text - used, " +- %.*f", digits, x.error);
    return l;
}

static estimate percent(estimate x)
{
    return (estimate){100 * x.value, 100 * x.error};
}

static void print_perplexity(const char *whose, estimate nll)
{
    estimate perplexity = {exp(nll.value), exp(nll.value) * nll.error};
    printf("%snll %s\n", whose, with_error(nll, 6).text);
    printf("%sperplexity %s\n", whose, with_error(perplexity, 4).text);
}

static void print_comparison(const findings *f)
{
    print_perplexity("reference ", f->reference_nll);
    printf("nll difference %s\n", with_error(f->difference, 6).text);
    printf("kl mean %s (the reference's rounding: %.1g)\n", with_error(f->kl, 6).text, f->rounding);
    printf("kl median %s\n", with_error(f->median, 6).text);
    printf("kl 90 %% %s\n", with_error(f->p90, 6).text);
    printf("kl 99 %% %s\n", with_error(f->p99, 6).text);
    printf("kl maximum %.6f\n", f->most);
    printf("top-1 agreement %s %%\n", with_error(percent(f->same_top), 3).text);
    printf("probability difference mean %s %%\n", with_error(percent(f->shift), 4).text);
    printf("probability difference rms %s %%\n", with_error(percent(f->shift_rms), 4).text);
}

static int report_text(const evaluation *e, const findings *f)
{
    const scoring *s = &e->model;
    print_perplexity("", f->nll);
    if (e->compares) print_comparison(f);
    printf("%zu tokens scored of %zu, %llu windows of %u by %u, %.4g tokens/s%s\n", f->n, e->ids.n,
           (unsigned long long)s->windows, e->context, e->stride,
           s->seconds > 0 ? (double)s->tokens_fed / s->seconds : 0, s->cut_short ? " (interrupted)" : "");
    return finish_stdout();
}

int eval_report(evaluation *e)
{
    const options *o = e->options;
    if (!e->model.n) return fail("interrupted before a token was scored");
    findings f = find(e);
    int code = o->json ? report_json(e, &f) : report_text(e, &f);
    for (int i = 0; o->stats && i < 2; i++) {
        const scoring *s = i ? &e->model : &e->reference;
        timing t = {.prompt_tokens = s->tokens_fed, .prefill_seconds = s->seconds};
        if (!s->windows && !i) continue; /* no reference, or its logits were there */
        if (e->compares) fprintf(stderr, "%s\n", i ? o->operands[0] : o->against);
        print_stats(&s->w, &s->stats, &t);
    }
    return code == EXIT_DONE && e->model.cut_short ? EXIT_FAILED : code;
}
