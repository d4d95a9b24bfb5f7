/* What to push out of a pool of experts: the policies that were considered, on synthetic traces of a router. Prints the
 * share of wanted experts that was found, for each policy and size of the pool. The policy in use is the library's own
 * code. No files are read.
 *
 *   expert_policies [layers experts used tokens seed]
 *
 * Traces: "uniform"; "zipf" (each layer has its own popularities, 1/rank^s); "drift" (a topic, which changes every 300
 * tokens on average, has popularities of its own, half of the weight; a fifth of the experts is kept from token to
 * token); "chats" (prompts of 512 tokens in one pass, then 128 tokens one by one, each with a topic of its own); "scan"
 * (every pass wants all). */
#include "stream/experts_policy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOPICS = 12, NEVER_AGAIN = 0x7FFFFFFF };

typedef struct trace_of { /* wants in time order: pass by pass, layer by layer */
    uint32_t layers, experts, used, passes;
    uint32_t *first;      /* [passes * layers + 1] into ids */
    uint32_t *ids, *uses; /* ascending within a want */
    uint32_t *next;       /* the pass in which the expert is wanted next */
} trace_of;

static uint64_t seed = 1;

static double draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (double)(seed >> 11) / 9007199254740992.0;
}

/* ---- traces ------------------------------------------------------------------------------------------------------ */

typedef struct router {
    uint32_t layers, experts, used;
    double topic_share, stay;
    double *base;   /* [layers, experts] */
    double *topics; /* [TOPICS, layers, experts] */
    bool *before;   /* [layers, experts] chosen for the token before */
    uint32_t topic;
} router;

static void popularity(double *w, uint32_t n, double s)
{
    for (uint32_t i = 0; i < n; i++) w[i] = pow(i + 1, -s);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += w[i];
    for (uint32_t i = 0; i < n; i++) w[i] /= sum;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(draw() * i);
        double t = w[i - 1];
        w[i - 1] = w[j];
        w[j] = t;
    }
}

static router router_new(uint32_t layers, uint32_t experts, uint32_t used, double s)
{
    size_t n = (size_t)layers * experts;
    router r = {.layers = layers, .experts = experts, .used = used};
    r.base = malloc(n * sizeof(double));
    r.topics = malloc(n * TOPICS * sizeof(double));
    r.before = calloc(n, sizeof(bool));
    for (uint32_t l = 0; l < layers; l++) {
        popularity(r.base + l * experts, experts, s);
        for (uint32_t t = 0; t < TOPICS; t++) popularity(r.topics + (t * (size_t)layers + l) * experts, experts, s);
    }
    return r;
}

/* One token in one layer: adds to counts [experts]. */
static void route(router *r, uint32_t layer, uint32_t *counts)
{
    const double *base = r->base + layer * r->experts;
    const double *topic = r->topics + ((size_t)r->topic * r->layers + layer) * r->experts;
    bool *before = r->before + layer * r->experts, now[1024] = {false};
    uint32_t n = 0;
    for (uint32_t e = 0; e < r->experts && n < r->used; e++)
        if (before[e] && draw() < r->stay) now[e] = true, n++;
    while (n < r->used) {
        double at = draw();
        uint32_t e = 0;
        for (; e + 1 < r->experts; e++) {
            at -= (1 - r->topic_share) * base[e] + r->topic_share * topic[e];
            if (at < 0) break;
        }
        if (!now[e]) now[e] = true, n++;
    }
    for (uint32_t e = 0; e < r->experts; e++) {
        before[e] = now[e];
        counts[e] += now[e];
    }
}

static trace_of trace_begin(const router *r, uint32_t passes)
{
    size_t wants = (size_t)passes * r->layers;
    trace_of t = {.layers = r->layers, .experts = r->experts, .used = r->used, .passes = passes};
    t.first = calloc(wants + 1, sizeof(uint32_t));
    t.ids = malloc(wants * r->experts * sizeof(uint32_t));
    t.uses = malloc(wants * r->experts * sizeof(uint32_t));
    return t;
}

static void add_pass(trace_of *t, router *r, uint32_t pass, uint32_t rows)
{
    for (uint32_t l = 0; l < t->layers; l++) {
        uint32_t counts[1024] = {0}, want = pass * t->layers + l, n = t->first[want];
        for (uint32_t i = 0; i < rows; i++) route(r, l, counts);
        for (uint32_t e = 0; e < t->experts; e++) {
            if (rows > 0 && !counts[e]) continue;
            t->ids[n] = e;
            t->uses[n++] = rows ? counts[e] : 1;
        }
        t->first[want + 1] = n;
    }
}

static void trace_end(trace_of *t)
{
    size_t all = (size_t)t->layers * t->experts;
    uint32_t *seen = malloc(all * sizeof *seen);
    for (size_t i = 0; i < all; i++) seen[i] = NEVER_AGAIN;
    t->next = malloc(t->first[t->passes * t->layers] * sizeof(uint32_t));
    for (uint32_t w = t->passes * t->layers; w-- > 0;) {
        for (uint32_t i = t->first[w]; i < t->first[w + 1]; i++) {
            uint32_t *s = &seen[(w % t->layers) * t->experts + t->ids[i]];
            t->next[i] = *s;
            *s = w;
        }
    }
    free(seen);
}

typedef enum kind { UNIFORM, ZIPF, DRIFT, CHATS, SCAN, KINDS } kind;
static const char *const kind_names[] = {"uniform", "zipf", "drift", "chats", "scan"};

static trace_of trace_make(kind k, uint32_t layers, uint32_t experts, uint32_t used, uint32_t tokens)
{
    router r = router_new(layers, experts, used, k == UNIFORM ? 0 : 0.8);
    r.topic_share = k == DRIFT || k == CHATS ? 0.5 : 0;
    r.stay = k == DRIFT || k == CHATS ? 0.2 : 0;
    uint32_t passes = k == SCAN ? 40 : tokens;
    trace_of t = trace_begin(&r, passes);
    for (uint32_t p = 0; p < passes; p++) {
        bool prompt = k == CHATS && p % 129 == 0;
        if (prompt || (k == DRIFT && draw() < 1.0 / 300)) r.topic = (uint32_t)(draw() * TOPICS);
        add_pass(&t, &r, p, k == SCAN ? 0 : prompt ? 512 : 1);
    }
    trace_end(&t);
    free(r.base);
    free(r.topics);
    free(r.before);
    return t;
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

typedef enum rule { LRU, LFU, QUOTA_LRU, QUOTA_LFU, DECAYED, DECAYED_ONCE, DECAYED_ROOT, BEST, RULES } rule;

typedef struct cache {
    rule rule;
    uint32_t capacity, n;
    uint32_t *kept;  /* [n] layer * experts + expert */
    uint32_t *place; /* [all] in kept, or UINT32_MAX */
    double *last, *count;
    uint32_t *of_layer; /* how many of each layer are kept */
    policy p;
    uint32_t *wanted; /* [all] the want in which it is still to be delivered, + 1 */
} cache;

static double worth(const cache *c, const trace_of *t, uint32_t at, uint32_t layer)
{
    switch (c->rule) {
    case LRU:
    case QUOTA_LRU:
        return c->last[at];
    case LFU:
    case QUOTA_LFU:
        return c->count[at] + 1e-9 * c->last[at];
    case BEST:
        return -c->count[at]; /* the next use */
    default:
        return policy_worth(&c->p, at / t->experts, at % t->experts, layer);
    }
}

static void evict(cache *c, const trace_of *t, uint32_t want)
{
    uint32_t layer = want % t->layers, best = UINT32_MAX, quota = c->capacity / t->layers;
    bool quotas = (c->rule == QUOTA_LRU || c->rule == QUOTA_LFU) && c->of_layer[layer] >= quota && quota > 0;
    double least = INFINITY;
    for (int turn = 0; turn < 2 && best == UINT32_MAX; turn++) {
        for (uint32_t i = 0; i < c->n; i++) {
            uint32_t at = c->kept[i];
            if (c->wanted[at] == want + 1 || (turn == 0 && quotas && at / t->experts != layer)) continue;
            double w = worth(c, t, at, layer);
            if (w >= least) continue;
            least = w;
            best = at;
        }
    }
    if (best == UINT32_MAX) return;
    uint32_t last = c->kept[--c->n];
    c->kept[c->place[best]] = last;
    c->place[last] = c->place[best];
    c->place[best] = UINT32_MAX;
    c->of_layer[best / t->experts]--;
}

static uint32_t step(cache *c, const trace_of *t, uint32_t want)
{
    uint32_t from = t->first[want], n = t->first[want + 1] - from, layer = want % t->layers, hits = 0;
    uint32_t uses[1024] = {0};
    for (uint32_t i = 0; i < n; i++)
        uses[i] = c->rule == DECAYED        ? t->uses[from + i]
                  : c->rule == DECAYED_ROOT ? (uint32_t)(16 * sqrt(t->uses[from + i]))
                                            : 1;
    policy_want(&c->p, layer, t->ids + from, uses, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = layer * t->experts + t->ids[from + i];
        c->last[at] = want;
        c->count[at] = c->rule == BEST ? t->next[from + i] : c->count[at] + t->uses[from + i];
        c->wanted[at] = c->place[at] == UINT32_MAX ? want + 1 : 0; /* those there are delivered first */
        hits += c->place[at] != UINT32_MAX;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = layer * t->experts + t->ids[from + i];
        if (c->wanted[at] != want + 1) continue;
        if (c->n == c->capacity) evict(c, t, want);
        c->place[at] = c->n;
        c->kept[c->n++] = at;
        c->of_layer[layer]++;
        c->wanted[at] = 0; /* delivered before the next is read: the narrowest window */
    }
    return hits;
}

static double simulate(const trace_of *t, rule how, double half_life, double distance, uint32_t capacity)
{
    uint32_t all = t->layers * t->experts;
    memory *m = memory_new();
    cache c = {.rule = how, .capacity = capacity};
    c.kept = malloc((capacity + 1) * sizeof *c.kept);
    c.place = malloc(all * sizeof *c.place);
    c.last = calloc(all, sizeof *c.last);
    c.count = calloc(all, sizeof *c.count);
    c.of_layer = calloc(t->layers, sizeof *c.of_layer);
    c.wanted = calloc(all, sizeof *c.wanted);
    memset(c.place, 0xFF, all * sizeof *c.place);
    if (policy_new(m, t->layers, t->experts, &c.p, NULL) != LAMINA_OK) exit(1);
    if (half_life > 0) c.p.half_life = half_life, c.p.distance = distance;
    uint64_t hits = 0, wanted = 0;
    uint32_t warm = t->passes / 4;
    for (uint32_t w = 0; w < t->passes * t->layers; w++) {
        uint32_t h = step(&c, t, w);
        if (w < warm * t->layers) continue;
        hits += h;
        wanted += t->first[w + 1] - t->first[w];
    }
    policy_free(&c.p);
    memory_free(m);
    free(c.kept);
    free(c.place);
    free(c.last);
    free(c.count);
    free(c.of_layer);
    free(c.wanted);
    return 100 * (double)hits / (double)wanted;
}

typedef struct candidate {
    const char *name;
    rule rule;
    double half_life, distance;
} candidate;

static const candidate candidates[] = {
    {"least recently used", LRU, 0, 0},
    {"least often used", LFU, 0, 0},
    {"a quota a layer, recent", QUOTA_LRU, 0, 0},
    {"a quota a layer, often", QUOTA_LFU, 0, 0},
    {"decayed 8", DECAYED, 8, 0.25},
    {"decayed 32", DECAYED, 32, 0.25},
    {"decayed 64", DECAYED, 64, 0.25},
    {"decayed 128", DECAYED, 128, 0.25},
    {"decayed 512", DECAYED, 512, 0.25},
    {"decayed 64, distance 0", DECAYED, 64, 0},
    {"decayed 64, distance 1", DECAYED, 64, 1},
    {"decayed 64, uses once", DECAYED_ONCE, 64, 0.25},
    {"decayed 64, roots", DECAYED_ROOT, 64, 0.25},
    {"as it is", DECAYED, 0, 0},
    {"the future known", BEST, 0, 0},
};

int main(int argc, char **argv)
{
    uint32_t a[5] = {24, 128, 8, 900, 1};
    for (int i = 1; i < argc && i <= 5; i++) a[i - 1] = (uint32_t)strtoul(argv[i], NULL, 10);
    if (a[0] == 0 || a[1] == 0 || a[1] > 1024 || a[2] == 0 || a[2] > a[1] || a[3] == 0) return 2;
    static const double parts[] = {0.05, 0.1, 0.25, 0.5, 0.75};
    enum { PARTS = sizeof parts / sizeof *parts };
    for (kind k = 0; k < KINDS; k++) {
        seed = a[4] * 0x9E3779B97F4A7C15u | 1;
        trace_of t = trace_make(k, a[0], a[1], a[2], a[3]);
        printf("%s: %u layers of %u experts, %u used; %% found with room for", kind_names[k], a[0], a[1], a[2]);
        for (int i = 0; i < PARTS; i++) printf(" %g", parts[i]);
        printf(" of all\n");
        for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
            const candidate *c = &candidates[i];
            printf("  %-26s", c->name);
            for (int j = 0; j < PARTS; j++)
                printf(" %6.1f", simulate(&t, c->rule, c->half_life, c->distance, (uint32_t)(parts[j] * a[0] * a[1])));
            printf("\n");
            fflush(stdout);
        }
        free(t.first);
        free(t.ids);
        free(t.uses);
        free(t.next);
    }
    return 0;
}
