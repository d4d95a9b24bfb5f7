/* Owns the model: a row of the table of families with its axes filled in and its tensors bound. Promises that a model
 * that was bound can be computed: nothing about it is checked again by those who run it. */
#include "model/model.h"

#include <math.h>

#include "model/family.h"

const char *role_name(role r)
{
    static const char *const names[ROLE_COUNT] = {
        [ROLE_Q] = "q",
        [ROLE_K] = "k",
        [ROLE_V] = "v",
        [ROLE_O] = "o",
        [ROLE_GATE] = "gate",
        [ROLE_UP] = "up",
        [ROLE_DOWN] = "down",
        [ROLE_ATTN_NORM] = "attn_norm",
        [ROLE_Q_BIAS] = "q_bias",
        [ROLE_K_BIAS] = "k_bias",
        [ROLE_V_BIAS] = "v_bias",
        [ROLE_O_BIAS] = "o_bias",
        [ROLE_Q_NORM] = "q_norm",
        [ROLE_K_NORM] = "k_norm",
        [ROLE_FFN_NORM] = "ffn_norm",
        [ROLE_EMBED] = "embed",
        [ROLE_FINAL_NORM] = "final_norm",
        [ROLE_HEAD] = "head",
        [ROLE_ROPE_FACTORS] = "rope_factors",
    };
    return (unsigned)r < ROLE_COUNT ? names[r] : "";
}

static void fill_axes(const family *f, const settings *s, model *mo)
{
    mo->family = f->name;
    mo->n_layers = s->layers;
    mo->hidden = s->hidden;
    mo->vocab = s->vocab;
    mo->heads = s->heads;
    mo->kv_heads = s->kv_heads;
    mo->head_dim = s->head_dim;
    mo->ffn = s->ffn;
    mo->max_context = s->context;
    mo->norm = NORM_RMS;
    mo->norm_place = NORM_BEFORE;
    mo->mixer = MIXER_GQA;
    mo->qkv = QKV_SEPARATE;
    mo->ffn_kind = FFN_GATED;
    mo->act = s->act;
    mo->qk_norm = f->qk_norm;
    mo->norm_eps = (float)s->eps;
    mo->attention_scale = (float)(1.0 / sqrt((double)s->head_dim));
    mo->rope = s->rope;
}

static lamina_status make_layers(const reading *r, const settings *s, model *mo)
{
    mo->layers = mem_array(mo->m, MEM_MODEL, s->layers, sizeof *mo->layers, r->err);
    if (!mo->layers) return LAMINA_E_MEMORY;
    uint32_t *windows = mem_array(mo->m, MEM_OTHER, s->layers, sizeof *windows, r->err);
    if (!windows) return LAMINA_E_MEMORY;
    lamina_status status = config_windows(r, s, windows);
    for (uint32_t i = 0; i < s->layers; i++) {
        mo->layers[i].window = windows[i];
        mo->layers[i].rope = true;
    }
    mem_free(mo->m, windows);
    return status;
}

static lamina_status fill(reading *r, checkpoint *c, model *mo)
{
    settings s;
    TRY(config_read(r, &s));
    fill_axes(r->f, &s, mo);
    TRY(config_ends(r, mo->m, &s, &mo->bos, &mo->eos, &mo->n_eos));
    TRY(make_layers(r, &s, mo));
    TRY(bind_tensors(r, c, &s, mo));
    return describe_axes(mo, r->err);
}

lamina_status model_bind(memory *m, checkpoint *c, const char *ignore_config, model **out, lamina_error *err)
{
    *out = NULL;
    model *mo = mem_alloc(m, MEM_MODEL, sizeof *mo, err);
    if (!mo) return err ? err->status : LAMINA_E_MEMORY;
    mo->m = m;
    mo->source = c;
    lamina_error own = {0}; /* so that a failed allocation's own status is what is returned */
    reading r = {.c = c, .ignore = ignore_config, .err = err ? err : &own};
    lamina_status status = fill(&r, c, mo);
    if (status != LAMINA_OK) {
        model_free(mo);
        return status == LAMINA_E_MEMORY ? r.err->status : status;
    }
    *out = mo;
    return LAMINA_OK;
}

void model_free(model *mo)
{
    if (!mo) return;
    mem_free(mo->m, mo->layers);
    mem_free(mo->m, mo->eos);
    mem_free(mo->m, mo->tensor_roles);
    mem_free(mo->m, mo->tensor_layers);
    mem_free(mo->m, mo->axis_names);
    mem_free(mo->m, mo->axis_values);
    mem_free(mo->m, mo);
}
