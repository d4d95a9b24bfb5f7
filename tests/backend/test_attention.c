/* Attention at every level against the scalar specification, bit for bit, for any way of dividing rows into passes; the
 * specification against softmax in double, within a derived bound. */
#include "levels.h"

typedef struct story { /* a session's rows, and the truth about them */
    uint32_t heads, kv_heads, dim, v_dim, length, window;
    bool half, special, in_keys;
    float softcap;
    const float *sinks, *slopes;
    float *q, *k, *v, *expected; /* [length, heads or kv_heads, dim or v_dim] */
    void *cache_k, *cache_v;     /* all positions, written naively */
    uint32_t capacity;
} story;

static void put(void *cache, bool half, uint64_t at, float f)
{
    if (half)
        ((uint16_t *)cache)[at] = f16_from_f32(f);
    else
        ((float *)cache)[at] = f;
}

static void story_cache(story *s)
{
    size_t keys = (size_t)s->length * s->kv_heads * s->dim, values = (size_t)s->length * s->kv_heads * s->v_dim;
    size_t k_bytes = kv_layer_bytes(s->kv_heads, s->dim, s->capacity, s->half);
    size_t v_bytes = kv_layer_bytes(s->kv_heads, s->v_dim, s->capacity, s->half);
    s->cache_k = take(k_bytes), s->cache_v = take(v_bytes);
    memset(s->cache_k, 0xff, k_bytes);
    memset(s->cache_v, 0xff, v_bytes);
    for (uint64_t i = 0; i < keys; i++) {
        uint64_t p = i / s->dim / s->kv_heads, h = i / s->dim % s->kv_heads, d = i % s->dim;
        put(s->cache_k, s->half, ((h * s->capacity + p / 16 * 16) * s->dim) + d * 16 + p % 16, s->k[i]);
    }
    for (uint64_t i = 0; i < values; i++) {
        uint64_t p = i / s->v_dim / s->kv_heads, h = i / s->v_dim % s->kv_heads, d = i % s->v_dim;
        put(s->cache_v, s->half, (h * s->capacity + p) * s->v_dim + d, s->v[i]);
    }
}

static void story_new(story *s)
{
    size_t q = (size_t)s->length * s->heads * s->dim, out = (size_t)s->length * s->heads * s->v_dim;
    size_t keys = (size_t)s->length * s->kv_heads * s->dim, values = (size_t)s->length * s->kv_heads * s->v_dim;
    s->capacity = (s->length + 63) / 64 * 64;
    s->q = take(q * 4), s->expected = take(out * 4), s->k = take(keys * 4), s->v = take(values * 4);
    fill_floats(s->q, q, false);
    fill_floats(s->k, keys, false);
    fill_floats(s->v, values, s->special);
    story_cache(s);
    size_t head = (size_t)s->capacity * (s->half ? 2 : 4);
    for (uint32_t i = 0; i < s->length * s->heads; i++) {
        size_t kv_head = i % s->heads / (s->heads / s->kv_heads);
        spec_attention_row r = {.q = s->q + (size_t)i * s->dim,
                                .out = s->expected + (size_t)i * s->v_dim,
                                .k = (uint8_t *)s->cache_k + kv_head * head * s->dim,
                                .v = s->in_keys ? NULL : (uint8_t *)s->cache_v + kv_head * head * s->v_dim,
                                .capacity = s->capacity,
                                .head_dim = s->dim,
                                .v_dim = s->v_dim,
                                .position = i / s->heads,
                                .window = s->window,
                                .scale = 0.3f,
                                .softcap = s->softcap,
                                .slope = s->slopes ? s->slopes[i % s->heads] : 0.0f,
                                .sloped = s->slopes != NULL,
                                .sink = s->sinks ? &s->sinks[i % s->heads] : NULL,
                                .half = s->half};
        spec_attention(&r);
    }
}

static void story_free(story *s)
{
    free(s->q), free(s->k), free(s->v), free(s->expected), free(s->cache_k), free(s->cache_v);
}

typedef struct telling { /* a story told to a backend, a few rows a pass */
    story *s;
    kv_layer kv;
    uint32_t done;
} telling;

/* Passes of up to `batch` rows of two stories at once, until both are told. */
static void tell(backend *b, story *stories, uint32_t n_stories, uint32_t batch)
{
    telling t[2];
    const story *s0 = &stories[0];
    size_t q_row = (size_t)s0->heads * s0->dim, out_row = (size_t)s0->heads * s0->v_dim;
    size_t k_row = (size_t)s0->kv_heads * s0->dim, v_row = (size_t)s0->kv_heads * s0->v_dim;
    for (uint32_t i = 0; i < n_stories; i++) {
        story *s = &stories[i];
        uint32_t need = s->window && s->window + batch - 1 < s->length ? s->window + batch - 1 : s->length;
        t[i] = (telling){.s = s, .kv = {.capacity = (need + 63) / 64 * 64, .half = s->half}};
        size_t bytes = kv_layer_bytes(s->kv_heads, s->dim, t[i].kv.capacity, s->half);
        t[i].kv.k = take(bytes);
        memset(t[i].kv.k, 0xff, bytes); /* NaN */
        if (s->in_keys) continue;
        bytes = kv_layer_bytes(s->kv_heads, s->v_dim, t[i].kv.capacity, s->half);
        t[i].kv.v = take(bytes);
        memset(t[i].kv.v, 0xff, bytes);
    }
    float *q = take(2 * batch * q_row * 4), *k = take(2 * batch * k_row * 4), *v = take(2 * batch * v_row * 4);
    float *out = take(2 * batch * out_row * 4);
    for (bool more = true; more;) {
        attention_rows parts[2];
        attention_args a = {.q = q,
                            .k = k,
                            .v = v,
                            .out = out,
                            .heads = s0->heads,
                            .kv_heads = s0->kv_heads,
                            .head_dim = s0->dim,
                            .v_dim = s0->v_dim,
                            .values_in_keys = s0->in_keys,
                            .scale = 0.3f,
                            .softcap = s0->softcap,
                            .sinks = s0->sinks,
                            .slopes = s0->slopes,
                            .window = s0->window,
                            .parts = parts};
        uint32_t rows = 0;
        for (uint32_t i = 0; i < n_stories; i++) {
            uint32_t left = t[i].s->length - t[i].done, n = 1 + random_below(batch);
            if (n > left) n = left;
            if (!n) continue;
            parts[a.n_parts++] = (attention_rows){.kv = t[i].kv, .row0 = rows, .n_rows = n, .position = t[i].done};
            memcpy(q + rows * q_row, t[i].s->q + t[i].done * q_row, n * q_row * 4);
            memcpy(k + rows * k_row, t[i].s->k + t[i].done * k_row, n * k_row * 4);
            memcpy(v + rows * v_row, t[i].s->v + t[i].done * v_row, n * v_row * 4);
            rows += n;
        }
        more = a.n_parts > 0;
        if (!more) break;
        b->ops->attention(b, &a);
        for (uint32_t i = 0, part = 0; i < n_stories; i++) {
            if (t[i].done == t[i].s->length) continue;
            const attention_rows *p = &parts[part++];
            size_t n = p->n_rows * out_row;
            size_t at = first_difference(out + p->row0 * out_row, t[i].s->expected + t[i].done * out_row, n);
            CHECK(at == n, "%s: heads %u/%u of %u and %u, window %u, %s, batch %u, position %zu, element %zu",
                  backend_cpu_isa(b), s0->heads, s0->kv_heads, s0->dim, s0->v_dim, s0->window, s0->half ? "f16" : "f32",
                  batch, t[i].done + at / out_row, at % out_row);
            t[i].done += p->n_rows;
        }
    }
    for (uint32_t i = 0; i < n_stories; i++) free(t[i].kv.k), free(t[i].kv.v);
    free(q), free(k), free(v), free(out);
}

/* Two stories like `like`, the second a third as long and with special values, told in every way. */
static void tell_all(const story *like)
{
    story s[2];
    for (int j = 0; j < 2; j++) {
        s[j] = *like;
        if (j) s[j].length = like->length / 3;
        s[j].special = j;
        story_new(&s[j]);
    }
    for (size_t b = 0; b < n_backends; b++) {
        if (threads_of(b) == 2) tell(backends[b], s, 1, 1);
        tell(backends[b], s, 2, 7);
        if (threads_of(b) == 2) tell(backends[b], s, 2, 150);
    }
    story_free(&s[0]);
    story_free(&s[1]);
}

static void attention_is_the_specification(void)
{
    static const struct {
        uint32_t heads, kv_heads, dim, length, window;
    } shapes[] = {{4, 2, 16, 150, 0},    {3, 1, 5, 200, 0},   {6, 2, 80, 140, 0},
                  {2, 2, 33, 131, 17},   {8, 1, 64, 300, 64}, {40, 1, 8, 70, 0},
                  {3, 3, 128, 260, 100}, {5, 1, 1, 129, 1},   {9, 3, 96, 70, 65}};
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++)
        tell_all(&(story){.heads = shapes[i / 2].heads,
                          .kv_heads = shapes[i / 2].kv_heads,
                          .dim = shapes[i / 2].dim,
                          .v_dim = shapes[i / 2].dim,
                          .length = shapes[i / 2].length,
                          .window = shapes[i / 2].window,
                          .half = i % 2});
}

static const float some_sinks[] = {0.5f, -3.0f, 40.0f, -INFINITY, 1.25f, 0.0f, 2.0f, -0.5f};
static const float some_slopes[] = {0.5f, 0.25f, 0.125f, 0.0625f, 0.3535534f, 0.7071068f, 0.0f, 1.0f};

/* Values of another width, in the keys, and what scores may become. */
static void variants_are_the_specification(void)
{
    static const story shapes[] = {
        {.heads = 4, .kv_heads = 2, .dim = 24, .v_dim = 16, .length = 150},
        {.heads = 3, .kv_heads = 1, .dim = 17, .v_dim = 40, .length = 90, .softcap = 2.0f},
        {.heads = 8, .kv_heads = 2, .dim = 64, .v_dim = 64, .length = 200, .window = 30, .sinks = some_sinks},
        {.heads = 8, .kv_heads = 8, .dim = 16, .v_dim = 16, .length = 170, .slopes = some_slopes},
        {.heads = 8,
         .kv_heads = 4,
         .dim = 16,
         .v_dim = 16,
         .length = 70,
         .sinks = some_sinks,
         .slopes = some_slopes,
         .softcap = 1.5f},
        {.heads = 8, .kv_heads = 1, .dim = 72, .v_dim = 64, .length = 150, .in_keys = true},
        {.heads = 5, .kv_heads = 1, .dim = 23, .v_dim = 19, .length = 140, .in_keys = true, .window = 50},
        {.heads = 6, .kv_heads = 2, .dim = 40, .v_dim = 40, .length = 75, .in_keys = true, .softcap = 3.0f},
        {.heads = 2, .kv_heads = 1, .dim = 1090, .v_dim = 1063, .length = 70, .in_keys = true},
    };
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        story s = shapes[i / 2];
        s.half = i % 2;
        tell_all(&s);
    }
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* The specification against softmax in double, as transformers' eager attention has it: scale, softcap, position, the
 * sink among the logits, the sink's share dropped. With e = 2^-24, a score errs by ds = (dim + 2) e scale sum |q k|,
 * four roundings of the softcap and two of the slope's product, its exponential by that, the rounding of s - m and 1.5
 * ulp; n positions are summed in l and in acc, with two roundings for each rescaling. */
static double softmax_error(const story *s)
{
    enum { LENGTH = 333, V_MOST = 64 };
    double worst = 0, e = 0x1p-24;
    for (uint32_t r = 0; r < s->length * s->heads; r++) {
        uint32_t n = r / s->heads + 1, h = r % s->heads;
        double score[LENGTH], m = s->sinks ? (double)s->sinks[h] : -INFINITY, l = 0, out[V_MOST] = {0};
        double size = 0, v_max = 0, slope = s->slopes ? (double)s->slopes[h] : 0, cap = (double)s->softcap;
        for (uint32_t j = 0; j < n; j++) {
            double x = 0, abs_x = 0;
            for (uint32_t d = 0; d < s->dim; d++) {
                double product = (double)s->q[r * s->dim + d] * (double)s->k[j * s->dim + d];
                x += product;
                abs_x += fabs(product);
            }
            x *= (double)0.3f;
            if (cap != 0) x = cap * tanh(x / cap);
            score[j] = x - slope * (n - 1 - j);
            size = larger(size, abs_x * (double)0.3f + 2 * cap + 2 * slope * n);
            m = larger(m, score[j]);
        }
        if (s->sinks) l = exp((double)s->sinks[h] - m);
        for (uint32_t j = 0; j < n; j++) {
            const float *v = s->in_keys ? s->k + j * s->dim : s->v + j * s->v_dim;
            double p = exp(score[j] - m);
            l += p;
            for (uint32_t d = 0; d < s->v_dim; d++) {
                out[d] += p * (double)v[d];
                v_max = larger(v_max, fabs((double)v[d]));
            }
        }
        double one = (s->dim + 6) * e * size + 2 * larger(size, fabs(m)) * e + 3 * e;
        double bound = v_max * (4 * one + (n + n / 16 + 4 * (n / 64 + 1) * 2 + 8) * e);
        for (uint32_t d = 0; d < s->v_dim; d++)
            worst = larger(worst, fabs((double)s->expected[r * s->v_dim + d] - out[d] / l) / bound);
    }
    return worst;
}

static void attention_is_softmax(void)
{
    static const story stories[] = {
        {.heads = 2, .kv_heads = 1, .dim = 24, .v_dim = 24, .length = 333},
        {.heads = 2, .kv_heads = 1, .dim = 24, .v_dim = 24, .length = 200, .softcap = 2.0f},
        {.heads = 5, .kv_heads = 1, .dim = 24, .v_dim = 30, .length = 200, .sinks = some_sinks},
        {.heads = 8, .kv_heads = 1, .dim = 24, .v_dim = 8, .length = 200, .slopes = some_slopes},
        {.heads = 2, .kv_heads = 1, .dim = 36, .v_dim = 32, .length = 200, .in_keys = true},
    };
    double worst = 0;
    for (size_t i = 0; i < sizeof stories / sizeof *stories; i++) {
        story s = stories[i];
        story_new(&s);
        double error = softmax_error(&s);
        CHECK(error <= 1, "story %zu is not softmax: %g of its bound", i, error);
        worst = larger(worst, error);
        story_free(&s);
    }
    printf("  worst error over its bound: %.4f\n", worst);
}

int main(int argc, char **argv)
{
    static const test_case cases[] = {T(attention_is_softmax), T(attention_is_the_specification),
                                      T(variants_are_the_specification)};
    if (!setup()) return 1;
    int result = test_main(argc, argv, cases, sizeof cases / sizeof *cases);
    return teardown() ? result : 1;
}
