/* From a SPEC to types: "original", what was packed as it was before, byte for byte; else a recipe (recipe.h).
 *
 * Owns the decision which tensors can be packed without loss: those that the pass applies row by row. Vectors are small
 * and read once; matrices stored [in, out] are applied by columns of another shape; tables of positions are added, not
 * applied; what no pass uses is not touched. */
#include "store/targets.h"

#include <string.h>

#include "store/packed.h"
#include "store/recipe.h"
#include "store/scales.h"
#include "store/sensitivity.h"
#include "store/survey.h"

static bool is_original(const char *spec)
{
    return spec && !strcmp(spec, "original");
}

lamina_status targets_check(memory *m, const char *spec, bool calibrated, lamina_error *err)
{
    recipe *r = NULL;
    if (spec && !is_original(spec)) TRY(recipe_parse(m, spec, &r, err));
    bool idle = calibrated && !(r && recipe_quantises(r));
    recipe_free(r);
    if (idle)
        return error_set(err, LAMINA_E_USAGE, "calibrate: nothing is quantised by dtype %.100s",
                         spec ? spec : "(none)");
    return LAMINA_OK;
}

/* ---- which tensors can be packed ---------------------------------------------------------------------------------- */

typedef enum use { USE_NONE, USE_ROWS, USE_OTHER } use;

static void note(const model *mo, const weight *w, bool apart, uint8_t *uses)
{
    if (!w->rows) return;
    for (uint32_t i = 0; i < w->n_pieces; i++) uses[w->pieces[i]] = USE_OTHER;
    if (w->scales != TENSOR_NONE) uses[w->scales] = USE_OTHER;
    const tensor *t = &mo->source->tensors[w->tensor];
    bool rows = !apart && w->row_bytes && !w->transposed && !w->n_pieces && w->cols == image_columns(t);
    if (uses[w->tensor] != USE_OTHER) uses[w->tensor] = rows ? USE_ROWS : USE_OTHER;
}

/* uses [n_tensors], zero. */
static void find_uses(const model *mo, uint8_t *uses)
{
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        const model_layer *layer = &mo->layers[i];
        for (int r = 0; r < ROLE_LAYER_COUNT; r++) note(mo, &layer->w[r], r >= ROLE_MATRICES, uses);
        for (uint32_t e = 0; layer->experts && e < mo->experts.count; e++)
            for (int j = 0; j < EXPERT_MATRICES; j++) note(mo, &layer->experts[e].w[j], false, uses);
    }
    for (int r = ROLE_EMBED; r < ROLE_COUNT; r++)
        note(mo, model_end(mo, (role)r), r != ROLE_EMBED && r != ROLE_HEAD, uses);
}

static bool is_half_wide(const tensor *t)
{
    return t->bytes && (t->type == DT_BF16 || t->type == DT_F16 || t->type == DT_F32);
}

/* The experts of a layer are read into slots of one size and applied alike: each of their matrices is packed in all of
 * them, in one form, or in none. */
static bool experts_agree(const model *mo, const model_layer *layer, int matrix, const uint8_t *uses)
{
    const tensor *first = &mo->source->tensors[layer->experts[0].w[matrix].tensor];
    for (uint32_t e = 0; e < mo->experts.count; e++) {
        uint32_t index = layer->experts[e].w[matrix].tensor;
        const tensor *t = &mo->source->tensors[index];
        if (uses[index] != USE_ROWS || t->type != first->type || image_columns(t) != image_columns(first)) return false;
    }
    return true;
}

/* like [n_tensors], each its own: becomes the first tensor of those that are packed in one form. */
static void join_experts(const model *mo, uint8_t *uses, size_t *like)
{
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        const model_layer *layer = &mo->layers[i];
        for (int j = 0; layer->experts && j < EXPERT_MATRICES; j++) {
            if (!layer->experts[0].w[j].rows) continue;
            bool agree = experts_agree(mo, layer, j, uses);
            for (uint32_t e = 0; e < mo->experts.count; e++) {
                uint32_t index = layer->experts[e].w[j].tensor;
                if (!agree) uses[index] = USE_OTHER;
                like[index] = layer->experts[0].w[j].tensor;
            }
        }
    }
}

/* Makes items of the tensors that can be packed; item_of [n_tensors] is scratch. */
static size_t list_items(const model *mo, const uint8_t *uses, const size_t *like, size_t *item_of, survey_item *items,
                         image_target *targets)
{
    const checkpoint *c = mo->source;
    size_t n = 0;
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (uses[i] != USE_ROWS || !is_half_wide(&c->tensors[i])) continue;
        item_of[i] = n;
        items[n++] = (survey_item){.t = &c->tensors[i], .target = &targets[i], .like = like[i]};
    }
    for (size_t i = 0; i < n; i++) items[i].like = item_of[items[i].like];
    return n;
}

/* asked [n_tensors]: those that are to be packed. */
static lamina_status pack_what_pays(const store_job *job, const image *im, const model *from, uint64_t buffers,
                                    const recipe_target *asked, image_target *targets, lamina_error *err)
{
    size_t n = from->source->n_tensors;
    memory *m = job->m;
    uint8_t *uses = mem_alloc(m, MEM_OTHER, n, err);
    size_t *like = uses ? mem_array(m, MEM_OTHER, n, sizeof *like, err) : NULL;
    size_t *item_of = like ? mem_array(m, MEM_OTHER, n, sizeof *item_of, err) : NULL;
    survey_item *items = item_of ? mem_array(m, MEM_OTHER, n, sizeof *items, err) : NULL;
    lamina_status status = items ? LAMINA_OK : NO_MEMORY(err);
    if (status == LAMINA_OK) {
        for (size_t i = 0; i < n; i++) like[i] = i;
        find_uses(from, uses);
        for (size_t i = 0; i < n; i++)
            if (asked[i].form != RECIPE_PACKED) uses[i] = USE_OTHER;
        join_experts(from, uses, like);
        size_t n_items = list_items(from, uses, like, item_of, items, targets);
        status = survey_packed(job, im, buffers, items, n_items, err);
    }
    mem_free(m, items);
    mem_free(m, item_of);
    mem_free(m, like);
    mem_free(m, uses);
    return status;
}

typedef struct choice { /* what targets are chosen from */
    const store_job *job;
    const image *im;
    const model *from;
    const float *const *moments;
    uint64_t buffers;
} choice;

/* bits=, size=: every type that is left open. */
static lamina_status distribute(const choice *c, const recipe *r, recipe_target *asked, lamina_error *err)
{
    if (!recipe_surveys(r)) return LAMINA_OK;
    memory *m = c->job->m;
    recipe_survey *survey = mem_array(m, MEM_OTHER, c->from->source->n_tensors, sizeof *survey, err);
    if (!survey) return NO_MEMORY(err);
    lamina_status status = sensitivity_survey(c->job, c->im, c->from, c->buffers, asked, c->moments, survey, err);
    if (status == LAMINA_OK) status = recipe_distribute(r, c->from, survey, asked, err);
    mem_free(m, survey);
    return status;
}

static void count_kept(const checkpoint *c, const recipe_target *asked, targets_kept *kept)
{
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (asked[i].form != RECIPE_KEEP || !asked[i].why) continue;
        if (!kept->n++) {
            kept->first = i;
            kept->why = asked[i].why;
        }
        kept->bytes += c->tensors[i].bytes;
    }
}

static lamina_status follow(const choice *c, const recipe *r, recipe_target *asked, image_target *targets,
                            targets_kept *kept, lamina_error *err)
{
    TRY(recipe_targets(r, c->from, asked, err));
    count_kept(c->from->source, asked, kept);
    TRY(distribute(c, r, asked, err));
    for (size_t i = 0; i < c->from->source->n_tensors; i++) {
        const recipe_target *to = &asked[i];
        if (to->form != RECIPE_BLOCKS || !c->from->source->tensors[i].bytes) continue;
        targets[i] = (image_target){.type = to->type, .importance = c->moments ? c->moments[i] : NULL};
        if (to->codes) targets[i].scales = scales_of(c->from, to->codes);
    }
    return pack_what_pays(c->job, c->im, c->from, c->buffers, asked, targets, err);
}

lamina_status targets_choose(const store_job *job, const image *im, const model *from, const char *spec,
                             const float *const *moments, uint64_t buffers, image_target *targets, targets_kept *kept,
                             lamina_error *err)
{
    const checkpoint *c = from->source;
    *kept = (targets_kept){0};
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        targets[i] = (image_target){.type = t->type, .row_bytes = t->row_bytes, .of = t->of};
        if (is_original(spec) && packed_form_of(t->type)) targets[i] = (image_target){.type = t->of};
    }
    if (!spec || is_original(spec)) return LAMINA_OK;
    recipe *r;
    TRY(recipe_parse(job->m, spec, &r, err));
    const choice ch = {.job = job, .im = im, .from = from, .moments = moments, .buffers = buffers};
    recipe_target *asked = mem_array(job->m, MEM_OTHER, c->n_tensors, sizeof *asked, err);
    lamina_status status = asked ? follow(&ch, r, asked, targets, kept, err) : NO_MEMORY(err);
    mem_free(job->m, asked);
    recipe_free(r);
    return status;
}
