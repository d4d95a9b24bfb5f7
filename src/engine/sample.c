/* Choosing the next token. Deterministic: exponentials are the specified polynomial, sums run in a fixed order in
 * double, and randomness is a hash of seed and position, so that the same logits give the same text on every machine.
 *
 * Order of the steps, as transformers has it: repetition penalty, temperature, top-k, top-p, min-p. */
#include <math.h>
#include <stdlib.h>

#include "engine/engine.h"

/* Larger logit first, then lower id: a total order, so that any sort gives the same result. */
static bool before(candidate a, candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static int compare(const void *a, const void *b)
{
    candidate x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return before(x, y) ? -1 : before(y, x) ? 1 : 0;
}

/* splitmix64 (Steele, Lea, Flood 2014) of seed and position: uniform in [0, 1). */
static double uniform(uint64_t seed, uint64_t position)
{
    uint64_t z = seed + (position + 1) * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

/* Every token of the session once: positive logits are divided by the penalty, negative ones multiplied. */
static void penalise(const lamina_session *s, candidate *c, float penalty)
{
    for (uint32_t i = 0; i < s->length; i++) {
        int32_t id = s->tokens[i];
        float plain = s->logits[id];
        c[id].logit = plain > 0 ? plain / penalty : plain * penalty;
    }
}

static void sift(candidate *heap, size_t n, size_t i)
{
    for (;;) { /* the root is the last in order */
        size_t child = 2 * i + 1;
        if (child >= n) return;
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (!before(heap[i], heap[child])) return;
        candidate t = heap[i];
        heap[i] = heap[child];
        heap[child] = t;
        i = child;
    }
}

/* Brings the first k of the order to the front, sorted. */
static void select_first(candidate *c, size_t n, size_t k)
{
    if (k < n) {
        for (size_t i = k / 2; i-- > 0;) sift(c, k, i);
        for (size_t i = k; i < n; i++) {
            if (!before(c[i], c[0])) continue;
            candidate t = c[0];
            c[0] = c[i];
            c[i] = t;
            sift(c, k, 0);
        }
    }
    qsort(c, k < n ? k : n, sizeof *c, compare);
}

static double weight_of(candidate c, float top, float temperature)
{
    return (double)spec_expf((c.logit - top) / temperature);
}

static double total_weight(const candidate *c, size_t n, float top, float temperature)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += weight_of(c[i], top, temperature);
    return sum;
}

/* How many candidates top-p keeps: the fewest whose share reaches p. Sorts only as many as that takes. */
static size_t nucleus(candidate *c, size_t n, float top, const lamina_sampling *o, bool sorted)
{
    double goal = (double)o->top_p * total_weight(c, n, top, o->temperature);
    for (size_t k = sorted ? n : 256;; k *= 8) {
        if (k > n) k = n;
        if (!sorted) select_first(c, n, k);
        double sum = 0;
        for (size_t i = 0; i < k; i++) {
            sum += weight_of(c[i], top, o->temperature);
            if (sum >= goal) return i + 1;
        }
        if (k == n) return n;
    }
}

static int32_t draw(const lamina_session *s, candidate *c, size_t n, float top, const lamina_sampling *o)
{
    bool sorted = false;
    if (o->top_k && o->top_k < n) {
        select_first(c, n, o->top_k);
        n = o->top_k;
        sorted = true;
    }
    if (o->top_p > 0 && o->top_p < 1) n = nucleus(c, n, top, o, sorted);
    if (o->min_p > 0) {
        size_t kept = 0;
        for (size_t i = 0; i < n; i++)
            if (weight_of(c[i], top, o->temperature) >= (double)o->min_p) c[kept++] = c[i];
        n = kept;
    }
    double at = uniform(o->seed, s->length) * total_weight(c, n, top, o->temperature), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += weight_of(c[i], top, o->temperature);
        if (at < sum) return c[i].id;
    }
    for (size_t i = n; i-- > 0;) /* the sum was rounded: the last that has weight */
        if (weight_of(c[i], top, o->temperature) > 0) return c[i].id;
    return c[0].id;
}

static lamina_status check(const lamina_sampling *o, lamina_error *err)
{
    struct {
        const char *name;
        float value, most;
    } ranges[] = {{"temperature", o->temperature, 1e6f},
                  {"top-p", o->top_p, 1},
                  {"min-p", o->min_p, 1},
                  {"repetition penalty", o->repetition_penalty, 1e6f}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value >= 0 && ranges[i].value <= ranges[i].most))
            return error_set(err, LAMINA_E_USAGE, "%s %g: expected 0 to %g", ranges[i].name, (double)ranges[i].value,
                             (double)ranges[i].most);
    return LAMINA_OK;
}

lamina_status lamina_sample(lamina_session *s, const lamina_sampling *o, int32_t *token, lamina_error *err)
{
    *token = -1;
    if (!s->has_logits) return error_set(err, LAMINA_E_USAGE, "the session has no logits: feed it first");
    TRY(check(o, err));
    candidate *c = s->engine->candidates;
    uint32_t n = s->engine->model->vocab;
    for (uint32_t i = 0; i < n; i++) c[i] = (candidate){s->logits[i], (int32_t)i};
    if (o->repetition_penalty > 0 && o->repetition_penalty != 1) penalise(s, c, o->repetition_penalty);
    candidate best = {-INFINITY, -1};
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(c[i].logit)) return error_set(err, LAMINA_E_FORMAT, "the logit of token %u is not a number", i);
        if (best.id < 0 || before(c[i], best)) best = c[i];
    }
    *token = best.id;
    if (o->temperature > 0 && !isinf(best.logit)) *token = draw(s, c, n, best.logit, o);
    return LAMINA_OK;
}
