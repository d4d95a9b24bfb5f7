/* Owns the model: a row of the table of families with its axes filled in and its tensors bound. Promises that a model
 * that was bound can be computed: nothing about it is checked again by those who run it. */
#include "model/model.h"

#include <math.h>
#include <string.h>

#include "model/family.h"

const char *role_name(role r)
{
    static const char *const names[ROLE_COUNT] = {
        [ROLE_QKV] = "qkv",
        [ROLE_Q_A] = "q_a",
        [ROLE_Q_B] = "q_b",
        [ROLE_Q] = "q",
        [ROLE_K] = "k",
        [ROLE_V] = "v",
        [ROLE_KV_A] = "kv_a",
        [ROLE_KV_B] = "kv_b",
        [ROLE_K_B] = "k_b",
        [ROLE_V_B] = "v_b",
        [ROLE_O] = "o",
        [ROLE_GATE] = "gate",
        [ROLE_UP] = "up",
        [ROLE_DOWN] = "down",
        [ROLE_ROUTER] = "router",
        [ROLE_SHARED_ROUTER] = "shared_router",
        [ROLE_SHARED_GATE] = "shared_gate",
        [ROLE_SHARED_UP] = "shared_up",
        [ROLE_SHARED_DOWN] = "shared_down",
        [ROLE_ATTN_NORM] = "attn_norm",
        [ROLE_ATTN_NORM_BIAS] = "attn_norm_bias",
        [ROLE_QKV_BIAS] = "qkv_bias",
        [ROLE_Q_BIAS] = "q_bias",
        [ROLE_K_BIAS] = "k_bias",
        [ROLE_V_BIAS] = "v_bias",
        [ROLE_O_BIAS] = "o_bias",
        [ROLE_Q_A_BIAS] = "q_a_bias",
        [ROLE_KV_A_BIAS] = "kv_a_bias",
        [ROLE_Q_NORM] = "q_norm",
        [ROLE_K_NORM] = "k_norm",
        [ROLE_Q_NORM_BIAS] = "q_norm_bias",
        [ROLE_K_NORM_BIAS] = "k_norm_bias",
        [ROLE_Q_A_NORM] = "q_a_norm",
        [ROLE_KV_A_NORM] = "kv_a_norm",
        [ROLE_SINKS] = "sinks",
        [ROLE_POST_ATTN_NORM] = "post_attn_norm",
        [ROLE_FFN_NORM] = "ffn_norm",
        [ROLE_FFN_NORM_BIAS] = "ffn_norm_bias",
        [ROLE_GATE_BIAS] = "gate_bias",
        [ROLE_UP_BIAS] = "up_bias",
        [ROLE_DOWN_BIAS] = "down_bias",
        [ROLE_ROUTER_BIAS] = "router_bias",
        [ROLE_ROUTER_CORRECTION] = "router_correction",
        [ROLE_EXPERT_GATE_BIAS] = "expert_gate_bias",
        [ROLE_EXPERT_UP_BIAS] = "expert_up_bias",
        [ROLE_EXPERT_DOWN_BIAS] = "expert_down_bias",
        [ROLE_POST_FFN_NORM] = "post_ffn_norm",
        [ROLE_EXPERT_GATE] = "expert_gate",
        [ROLE_EXPERT_UP] = "expert_up",
        [ROLE_EXPERT_DOWN] = "expert_down",
        [ROLE_EMBED] = "embed",
        [ROLE_POSITIONS] = "positions",
        [ROLE_FINAL_NORM] = "final_norm",
        [ROLE_FINAL_NORM_BIAS] = "final_norm_bias",
        [ROLE_HEAD] = "head",
        [ROLE_HEAD_BIAS] = "head_bias",
        [ROLE_ROPE_FACTORS] = "rope_factors",
        [ROLE_ROPE_LONG] = "rope_long",
        [ROLE_ROPE_SHORT] = "rope_short",
    };
    return (unsigned)r < ROLE_COUNT ? names[r] : "";
}

static void fill_experts(const family *f, const settings *s, const reading *r, model *mo)
{
    if (!s->experts) return;
    mo->experts = (expert_axes){.count = s->experts,
                                .used = s->experts_used,
                                .ffn = s->expert_ffn,
                                .shared_ffn = s->shared_ffn,
                                .groups = s->groups,
                                .used_groups = s->used_groups,
                                .router = f->router,
                                .group_score = f->group_score,
                                .normalised = s->normalised,
                                .fused = f->fused_experts && r->c->dialect == DIALECT_HF,
                                .interleaved = f->interleaved_experts && r->c->dialect == DIALECT_HF,
                                .scale = s->routed_scale > 0 ? (float)s->routed_scale : 1.0f};
}

/* On q k. DeepSeek's yarn sharpens it once more for each of q and k (modeling_deepseek_v3.py, yarn_apply_mscale). */
static float attention_scale(const family *f, const settings *s)
{
    if (f->scale == SCALE_GIVEN && s->attention_scale > 0) return (float)s->attention_scale;
    double of = f->scale == SCALE_SCALAR && s->query_scalar > 0 ? s->query_scalar : s->head_dim;
    double scale = 1.0 / sqrt(of);
    const rope_axes *rope = &s->rope[0];
    if (f->mixer == MIXER_MLA && rope->scaling == ROPE_YARN && rope->mscale_all_dim != 0.0) {
        double m = rope_mscale(rope->factor, rope->mscale_all_dim);
        scale *= m * m;
    }
    return (float)scale;
}

static float or_one(double x)
{
    return x > 0 ? (float)x : 1.0f;
}

static void fill_attention(const family *f, const settings *s, model *mo)
{
    mo->heads = s->heads;
    mo->kv_heads = s->kv_heads;
    mo->head_dim = s->head_dim;
    mo->v_dim = s->v_dim;
    mo->mixer = f->mixer;
    mo->q_lora = s->q_lora;
    mo->kv_lora = s->kv_lora;
    mo->nope_dim = s->nope_dim;
    mo->rope_dim = s->rope_dim;
    mo->qkv = f->qkv;
    mo->qk_norm = (f->keys & KEYS_QK_NORM) && !s->qk_norm ? QK_NORM_NONE : f->qk_norm;
    mo->qk_norm_late = f->qk_norm_late;
    mo->position = f->position;
    mo->attention_scale = attention_scale(f, s);
    mo->attention_softcap = (float)s->attention_softcap;
    mo->scale_by_layer = s->layer_scale;
    mo->clip_qkv = (float)s->clip_qkv;
    mo->query_scaling = s->query_scaling;
    mo->query_beta = (float)s->query_beta;
    mo->query_context = s->query_context;
    mo->n_ropes = f->position != POSITION_ROPE ? 0 : f->local != LOCAL_SAME ? 2 : 1;
    memcpy(mo->rope, s->rope, sizeof mo->rope);
}

static void fill_axes(const reading *r, const settings *s, model *mo)
{
    const family *f = r->f;
    mo->family = f->name;
    mo->model_type = r->model_type;
    mo->n_layers = s->layers;
    mo->hidden = s->hidden;
    mo->vocab = s->vocab;
    mo->ffn = s->ffn;
    mo->max_context = s->context;
    mo->layer_norm = f->layer_norm;
    mo->norm_offset = f->norm_offset && r->c->dialect == DIALECT_HF; /* GGUF has the sum */
    mo->norm_eps = (float)s->eps;
    mo->parallel = f->keys & KEYS_PARALLEL ? s->parallel : f->parallel;
    mo->act = s->act;
    mo->act_limit = (float)s->act_limit;
    mo->gated = !f->ungated;
    mo->normalised_head = f->normalised_head;
    mo->logit_softcap = (float)s->logit_softcap;
    mo->embed_scale = f->embed_by_hidden ? (float)sqrt((double)s->hidden) : or_one(s->embed_scale);
    mo->residual_scale = or_one(s->residual_scale);
    mo->logit_scale = or_one(s->logit_scale) / or_one(s->logit_divisor);
    fill_attention(f, s, mo);
    fill_experts(f, s, r, mo);
}

static lamina_status make_layers(const reading *r, const settings *s, model *mo, bool **moe)
{
    mo->layers = mem_array(mo->m, MEM_MODEL, s->layers, sizeof *mo->layers, r->err);
    if (!mo->layers) return LAMINA_E_MEMORY;
    *moe = mem_array(mo->m, MEM_OTHER, s->layers, sizeof **moe, r->err);
    if (!*moe) return LAMINA_E_MEMORY;
    return config_layers(r, s, mo->layers, *moe);
}

static lamina_status fill_layers(reading *r, checkpoint *c, const settings *s, model *mo)
{
    bool *moe = NULL;
    lamina_status status = make_layers(r, s, mo, &moe);
    if (status == LAMINA_OK) status = bind_tensors(r, c, s, moe, mo);
    mem_free(mo->m, moe);
    return status;
}

static lamina_status fill(reading *r, checkpoint *c, model *mo)
{
    settings s = {0};
    lamina_status status = config_read(r, &s);
    memcpy(mo->rope, s.rope, sizeof mo->rope); /* the lists of factors are the model's, also after a failure */
    TRY(status);
    fill_axes(r, &s, mo);
    TRY(config_ends(r, mo->m, &s, &mo->bos, &mo->eos, &mo->n_eos));
    TRY(fill_layers(r, c, &s, mo));
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
    reading r = {.m = m, .c = c, .ignore = ignore_config, .err = err ? err : &own};
    mo->small = arena_new(m, MEM_MODEL, r.err);
    lamina_status status = mo->small ? fill(&r, c, mo) : LAMINA_E_MEMORY;
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
    for (uint32_t i = 0; mo->layers && i < mo->n_layers; i++) {
        mem_free(mo->m, mo->layers[i].experts);
        for (int r = ROLE_MATRICES; r < ROLE_LAYER_COUNT; r++) mem_free(mo->m, mo->layers[i].w[r].pieces);
    }
    for (uint32_t i = 0; i < ROPE_SETS; i++) config_rope_free(mo->m, &mo->rope[i]);
    mem_free(mo->m, mo->layers);
    mem_free(mo->m, mo->eos);
    mem_free(mo->m, mo->tensor_roles);
    mem_free(mo->m, mo->tensor_types);
    mem_free(mo->m, mo->tensor_layers);
    mem_free(mo->m, mo->tensor_codes);
    mem_free(mo->m, mo->axis_names);
    mem_free(mo->m, mo->axis_values);
    arena_free(mo->small);
    mem_free(mo->m, mo);
}
