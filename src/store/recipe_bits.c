/* Distributes bits: which of its candidates each matrix becomes, so that the whole has the size asked for and the
 * divergence from the source is least.
 *
 * The model of the loss: it adds up over matrices, each giving its relative squared error (weighted by the importance
 * of its columns, where that is known) times how much the answer depends on it. That dependence has been measured once,
 * by role; a matrix counts by role and not by size, since a relative error in what a layer adds to the residual does as
 * much whether the matrix is wide or narrow. Then every next step is the one that gains most for
 * its bytes: steps along the lower hull of (bytes, loss), which is what a Lagrange multiplier finds. */
#include <stdio.h>
#include <string.h>

#include "store/recipe_rules.h"

dtype recipe_candidate(uint64_t cols, int i)
{
    static const dtype of_256[RECIPE_CANDIDATES] = {DT_NF4, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_Q8_0};
    static const dtype of_32[RECIPE_CANDIDATES] = {DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1, DT_Q8_0};
    return cols % 256 ? of_32[i] : of_256[i];
}

/* What a relative error of 1 in all of a role's matrices would cost in nats, were errors small: measured on
 * SmolLM2-135M with one role at a time in q4_0, calibrated, 5000 tokens, and again with its channels mixed (within 15 %
 * of each other; the roles' losses add up to what all together lose within 10 %). */
static double dependence(role r)
{
    switch (r) {
    case ROLE_Q:
    case ROLE_Q_A:
    case ROLE_Q_B:
        return 1.4;
    case ROLE_O:
        return 1.9;
    case ROLE_K:
    case ROLE_K_B:
        return 2.3;
    case ROLE_GATE:
    case ROLE_SHARED_GATE:
    case ROLE_EXPERT_GATE:
        return 3.3;
    case ROLE_EMBED:
    case ROLE_HEAD:
        return 3.7; /* tied; each alone is not known */
    case ROLE_UP:
    case ROLE_SHARED_UP:
    case ROLE_EXPERT_UP:
        return 4.4;
    case ROLE_DOWN:
    case ROLE_SHARED_DOWN:
    case ROLE_EXPERT_DOWN:
        return 7.5;
    default:
        return 4; /* v, and what holds it */
    }
}

typedef struct unit { /* what takes one type: a tensor, or a role's matrices of all experts of a layer */
    uint64_t elements, bytes[RECIPE_CANDIDATES];
    double loss[RECIPE_CANDIDATES];
    double error[RECIPE_CANDIDATES], power;
    role r;
    int choice;
} unit;

typedef struct sharing {
    const recipe *r;
    const model *mo;
    recipe_target *targets;
    unit *units; /* [n_units] */
    size_t n_units;
    uint32_t *of;         /* [n_tensors] the unit of an open tensor */
    uint32_t *of_experts; /* [n_layers][EXPERT_MATRICES] unit + 1; 0: none yet */
    uint64_t open_elements, kept_bytes;
} sharing;

static bool is_expert(role r)
{
    return r >= ROLE_EXPERT_GATE && r < ROLE_LAYER_END;
}

static uint64_t elements_of(const tensor *t)
{
    uint64_t n = 1; /* sizes were checked against the file: no overflow */
    for (uint32_t i = 0; i < t->n_dims; i++) n *= t->shape[i];
    return n;
}

static unit *unit_of(sharing *s, size_t tensor_index)
{
    role r = (role)(s->mo->tensor_roles[tensor_index] - 1);
    uint32_t *shared = NULL;
    if (is_expert(r)) {
        size_t layer = (size_t)s->mo->tensor_layers[tensor_index];
        shared = &s->of_experts[layer * EXPERT_MATRICES + (size_t)(r - ROLE_EXPERT_GATE)];
    }
    uint32_t at = shared && *shared ? *shared - 1 : (uint32_t)s->n_units++;
    if (shared) *shared = at + 1;
    s->of[tensor_index] = at;
    s->units[at].r = r;
    return &s->units[at];
}

static bool rounded(const recipe_target *t)
{
    return t->form == RECIPE_OPEN || t->form == RECIPE_BLOCKS;
}

static void gather(sharing *s, const recipe_survey *survey)
{
    const checkpoint *c = s->mo->source;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        const recipe_target *target = &s->targets[i];
        uint32_t codes = s->mo->tensor_codes[i];
        if (codes != TENSOR_NONE && rounded(&s->targets[codes])) continue; /* not stored */
        if (target->form != RECIPE_OPEN) {
            uint64_t cols = t->n_dims ? t->shape[t->n_dims - 1] : 1;
            bool blocks = target->form == RECIPE_BLOCKS && cols;
            s->kept_bytes += blocks ? elements_of(t) / cols * dtype_row_bytes(target->type, cols) : t->bytes;
            continue;
        }
        uint64_t cols = t->shape[t->n_dims - 1], rows = cols ? elements_of(t) / cols : 0;
        unit *u = unit_of(s, i);
        u->elements += rows * cols;
        s->open_elements += rows * cols;
        u->power += survey[i].power;
        for (int k = 0; k < RECIPE_CANDIDATES; k++) {
            u->bytes[k] += rows * dtype_row_bytes(recipe_candidate(cols, k), cols);
            u->error[k] += survey[i].error[k];
        }
    }
    for (size_t i = 0; i < s->n_units; i++) {
        unit *u = &s->units[i];
        double factor = u->power > 0 ? dependence(u->r) / u->power : 0;
        if (u->r < ROLE_LAYER_END) factor /= s->mo->n_layers;
        for (int k = 0; k < RECIPE_CANDIDATES; k++) u->loss[k] = factor * u->error[k];
    }
}

/* The step up that gains most for its bytes; 0: none gains. */
static double best_step(const unit *u, int *to)
{
    double best = 0;
    for (int k = u->choice + 1; k < RECIPE_CANDIDATES; k++) {
        double gain = (u->loss[u->choice] - u->loss[k]) / (double)(u->bytes[k] - u->bytes[u->choice]);
        if (gain > best) {
            best = gain;
            *to = k;
        }
    }
    return best;
}

static void spend(sharing *s, uint64_t left)
{
    for (;;) {
        unit *best_unit = NULL;
        double best = 0;
        int best_to = 0;
        for (size_t i = 0; i < s->n_units; i++) {
            unit *u = &s->units[i];
            int to = 0;
            double gain = best_step(u, &to);
            if (gain <= best || u->bytes[to] - u->bytes[u->choice] > left) continue;
            best = gain;
            best_to = to;
            best_unit = u;
        }
        if (!best_unit) return;
        left -= best_unit->bytes[best_to] - best_unit->bytes[best_unit->choice];
        best_unit->choice = best_to;
    }
}

static lamina_status share(sharing *s, const recipe_survey *survey, lamina_error *err)
{
    gather(s, survey);
    uint64_t least = 0, budget = s->r->size;
    for (size_t i = 0; i < s->n_units; i++) least += s->units[i].bytes[0];
    if (s->r->bits > 0) {
        budget = (uint64_t)(s->r->bits / 8.0 * (double)s->open_elements);
        if (budget < least)
            return error_set(err, LAMINA_E_USAGE, "dtype: bits=%g is too few for this model; the least is bits=%.3f",
                             s->r->bits, 8.0 * (double)least / (double)s->open_elements + 0.0005);
    } else {
        if (budget < least || budget - least < s->kept_bytes)
            return error_set(err, LAMINA_E_USAGE,
                             "dtype: size=%lluM is too little for this model; the least is size=%lluM",
                             (unsigned long long)(budget >> 20),
                             (unsigned long long)((least + s->kept_bytes + (1 << 20) - 1) >> 20));
        budget -= s->kept_bytes;
    }
    spend(s, budget - least);
    for (size_t i = 0; i < s->mo->source->n_tensors; i++) {
        const tensor *t = &s->mo->source->tensors[i];
        if (s->targets[i].form != RECIPE_OPEN) continue;
        s->targets[i].form = RECIPE_BLOCKS;
        s->targets[i].type = recipe_candidate(t->shape[t->n_dims - 1], s->units[s->of[i]].choice);
    }
    return LAMINA_OK;
}

lamina_status recipe_distribute(const recipe *r, const model *mo, const recipe_survey *survey, recipe_target *targets,
                                lamina_error *err)
{
    if (!recipe_surveys(r)) return LAMINA_OK;
    sharing s = {.r = r, .mo = mo, .targets = targets};
    size_t n = mo->source->n_tensors;
    s.units = mem_array(r->m, MEM_OTHER, n, sizeof *s.units, err);
    s.of = s.units ? mem_array(r->m, MEM_OTHER, n, sizeof *s.of, err) : NULL;
    s.of_experts = s.of ? mem_array(r->m, MEM_OTHER, (size_t)mo->n_layers * EXPERT_MATRICES, sizeof *s.of, err) : NULL;
    lamina_status status = s.of_experts ? share(&s, survey, err) : LAMINA_E_MEMORY;
    mem_free(r->m, s.of_experts);
    mem_free(r->m, s.of);
    mem_free(r->m, s.units);
    return status;
}
