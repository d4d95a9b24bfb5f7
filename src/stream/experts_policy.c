/* The worth of an expert: its share of its layer's uses, where a use loses half of its weight each half_life times that
 * the layer works. Shares, not counts, so that layers that have not worked yet in this pass compare with those that
 * have; a scan over all experts, which gives all of them the same, therefore pushes out what it brought itself: the
 * layer that will work again last. Chosen by measurement among LRU, LFU and others, see bench/LOG.md.
 *
 * Weights are kept as logarithms in units that grow with the layer's clock (Lee et al. 2001, LRFU), so that nothing is
 * touched that is not used: with w = 2^clock for a use now, the ratio of two sums is the same at any time. */
#include "stream/experts_policy.h"

#include <math.h>

static const double half_life = 32, distance = 0.25, never = -1e300;

uint64_t policy_bytes(uint32_t n_layers, uint32_t n_experts)
{
    return (uint64_t)n_layers * n_experts * sizeof(double) + n_layers * sizeof(policy_layer);
}

lamina_status policy_new(memory *m, uint32_t n_layers, uint32_t n_experts, policy *out, lamina_error *err)
{
    size_t n = (size_t)n_layers * n_experts;
    *out = (policy){.m = m, .n_layers = n_layers, .n_experts = n_experts, .half_life = half_life, .distance = distance};
    out->score = mem_array(m, MEM_OTHER, n, sizeof *out->score, err);
    if (!out->score) return LAMINA_E_MEMORY;
    out->layer = mem_array(m, MEM_OTHER, n_layers, sizeof *out->layer, err);
    if (!out->layer) return LAMINA_E_MEMORY;
    for (size_t i = 0; i < n; i++) out->score[i] = never;
    for (uint32_t i = 0; i < n_layers; i++) out->layer[i].total = never;
    return LAMINA_OK;
}

void policy_free(policy *p)
{
    mem_free(p->m, p->score);
    mem_free(p->m, p->layer);
}

/* log2(2^a + 2^b) */
static double add(double a, double b)
{
    double high = a > b ? a : b, low = a > b ? b : a;
    return low < high - 60 ? high : high + log2(1 + exp2(low - high));
}

void policy_want(policy *p, uint32_t layer, const uint32_t *ids, const uint32_t *uses, uint32_t n)
{
    policy_layer *l = &p->layer[layer];
    double *score = p->score + (size_t)layer * p->n_experts;
    double all = 0;
    l->clock += 1 / p->half_life;
    for (uint32_t i = 0; i < n; i++) {
        double u = uses ? uses[i] : 1;
        if (u < 1) continue;
        score[ids[i]] = add(score[ids[i]], l->clock + log2(u));
        all += u;
    }
    if (all > 0) l->total = add(l->total, l->clock + log2(all));
}

double policy_worth(const policy *p, uint32_t layer, uint32_t expert, uint32_t now)
{
    uint32_t layers = layer > now ? layer - now : layer + p->n_layers - now; /* layers until it works again */
    double score = p->score[(size_t)layer * p->n_experts + expert];
    if (score <= never) return never; /* wanted by no row */
    return score - p->layer[layer].total - p->distance * layers / p->n_layers;
}
