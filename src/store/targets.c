/* From a SPEC to types.
 *
 *   packed    matrices of bf16, f16 and f32 without loss in fewer bytes, where that makes them smaller
 *   original  what was packed as it was before, byte for byte
 *
 * Owns the decision which tensors can be packed: those that the pass applies row by row. Vectors are small and read once;
 * matrices stored [in, out] are applied by columns of another shape; tables of positions are added, not applied; what
 * no pass uses is not touched. */
#include "store/targets.h"

#include <string.h>

#include "store/packed.h"
#include "store/survey.h"

lamina_status targets_check(const char *spec, lamina_error *err)
{
    if (!spec || !strcmp(spec, "packed") || !strcmp(spec, "original")) return LAMINA_OK;
    return error_set(err, LAMINA_E_USAGE, "dtype: expected packed or original, found '%.200s'", spec);
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

static lamina_status pack_what_pays(const store_job *job, const image *im, const model *from, uint64_t buffers,
                                    image_target *targets, lamina_error *err)
{
    const checkpoint *c = from->source;
    uint8_t *uses = mem_alloc(job->m, MEM_OTHER, c->n_tensors, err);
    survey_item *items = uses ? mem_array(job->m, MEM_OTHER, c->n_tensors, sizeof *items, err) : NULL;
    lamina_status status = items ? LAMINA_OK : NO_MEMORY(err);
    if (status == LAMINA_OK) {
        size_t n = 0;
        find_uses(from, uses);
        for (size_t i = 0; i < c->n_tensors; i++) {
            const tensor *t = &c->tensors[i];
            bool half = t->type == DT_BF16 || t->type == DT_F16 || t->type == DT_F32;
            if (uses[i] == USE_ROWS && half && t->bytes) items[n++] = (survey_item){t, &targets[i]};
        }
        status = survey_packed(job, im, buffers, items, n, err);
    }
    mem_free(job->m, items);
    mem_free(job->m, uses);
    return status;
}

lamina_status targets_choose(const store_job *job, const image *im, const model *from, const char *spec,
                             uint64_t buffers, image_target *targets, lamina_error *err)
{
    const checkpoint *c = from->source;
    TRY(targets_check(spec, err));
    for (size_t i = 0; i < c->n_tensors; i++) {
        const tensor *t = &c->tensors[i];
        targets[i] = (image_target){t->type, t->row_bytes, t->of};
        if (spec && !strcmp(spec, "original") && packed_form_of(t->type)) targets[i] = (image_target){.type = t->of};
    }
    if (spec && !strcmp(spec, "packed")) return pack_what_pays(job, im, from, buffers, targets, err);
    return LAMINA_OK;
}
