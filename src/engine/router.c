/* The choice of experts, row by row, as the references make it: scores of all experts, groups of them if the model has
 * groups, the best by score (ties to the lower number), their weights. All of it happens here in host memory, in a
 * fixed order, so that a row's choice depends on that row alone.
 *
 * Sources: Mixtral, Qwen2-MoE and OLMoE (softmax over all, Shazeer et al. 2017), gpt-oss (softmax over the chosen),
 * DeepSeek-V2 (arXiv:2405.04434, groups by their best), DeepSeek-V3 (arXiv:2412.19437, sigmoid, correction bias, groups
 * by their two best); as transformers computes them. */
#include <math.h>

#include "engine/engine.h"

static void softmax(float *x, uint32_t n)
{
    float most = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        if (x[i] > most) most = x[i];
    for (uint32_t i = 0; i < n; i++) {
        x[i] = spec_expf(x[i] - most);
        sum += x[i];
    }
    for (uint32_t i = 0; i < n; i++) x[i] /= sum;
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + spec_expf(-x));
}

/* What a group is judged by. */
static float judge_group(const expert_axes *e, const float *choice, uint32_t group)
{
    uint32_t size = e->count / e->groups;
    float best = -INFINITY, second = -INFINITY;
    for (uint32_t i = group * size; i < (group + 1) * size; i++) {
        if (choice[i] > best) {
            second = best;
            best = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return e->group_score == GROUP_BEST ? best : best + second;
}

/* The place of the largest of x [n] that is not taken; ties to the lower one. Where nothing compares (NaN), the
 * first. */
static uint32_t take_best(const float *x, uint32_t n, uint8_t *taken)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (!taken[i] && (best == UINT32_MAX || x[i] > x[best])) best = i;
    taken[best] = 1;
    return best;
}

/* Experts outside the best groups count as taken. */
static void close_groups(const expert_axes *e, const float *choice, router_scratch *s)
{
    uint32_t size = e->count / e->groups;
    memset(s->taken, e->groups > e->used_groups, e->count);
    if (e->groups <= e->used_groups) return;
    memset(s->group_taken, 0, e->groups);
    for (uint32_t g = 0; g < e->groups; g++) s->group_scores[g] = judge_group(e, choice, g);
    for (uint32_t i = 0; i < e->used_groups; i++) {
        uint32_t g = take_best(s->group_scores, e->groups, s->group_taken);
        memset(s->taken + (size_t)g * size, 0, size);
    }
}

static void sort(uint32_t *ids, float *weights, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t id = ids[i], at = i;
        float w = weights[i];
        for (; at > 0 && ids[at - 1] > id; at--) {
            ids[at] = ids[at - 1];
            weights[at] = weights[at - 1];
        }
        ids[at] = id;
        weights[at] = w;
    }
}

static void normalise(float *weights, uint32_t n, float epsilon)
{
    float sum = 0.0f;
    for (uint32_t i = 0; i < n; i++) sum += weights[i];
    for (uint32_t i = 0; i < n; i++) weights[i] /= sum + epsilon;
}

void router_choose(const expert_axes *e, float *logits, const float *correction, router_scratch *s, uint32_t *ids,
                   float *weights)
{
    const float *choice = logits;
    if (e->router == ROUTER_SOFTMAX) softmax(logits, e->count);
    if (e->router == ROUTER_SIGMOID) {
        for (uint32_t i = 0; i < e->count; i++) {
            logits[i] = sigmoid(logits[i]);
            s->choice[i] = logits[i] + (correction ? correction[i] : 0.0f);
        }
        choice = s->choice;
    }
    close_groups(e, choice, s);
    for (uint32_t i = 0; i < e->used; i++) {
        ids[i] = take_best(choice, e->count, s->taken);
        weights[i] = logits[ids[i]];
    }
    if (e->router == ROUTER_SOFTMAX_LATE) softmax(weights, e->used);
    if (e->normalised && e->router != ROUTER_SOFTMAX_LATE)
        normalise(weights, e->used, e->router == ROUTER_SIGMOID ? 1e-20f : 0.0f);
    for (uint32_t i = 0; i < e->used; i++) weights[i] *= e->scale;
    sort(ids, weights, e->used);
}
