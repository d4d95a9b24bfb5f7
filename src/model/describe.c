/* Owns the axes as text, for those who look at a model. Promises one line for every axis of the architecture, in the
 * order of the flow, so that two models that print the same compute the same function of their weights. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

enum { AXES_MAX = 64, VALUE_BYTES = 128 };

typedef struct page {
    model *mo;
    char (*text)[VALUE_BYTES];
} page;

static void say(page *p, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void say(page *p, const char *name, const char *format, ...)
{
    model *mo = p->mo;
    if (mo->n_axes == AXES_MAX) return;
    va_list args;
    va_start(args, format);
    vsnprintf(p->text[mo->n_axes], VALUE_BYTES, format, args);
    va_end(args);
    mo->axis_names[mo->n_axes] = name;
    mo->axis_values[mo->n_axes] = p->text[mo->n_axes];
    mo->n_axes++;
}

static const char *layout_text(qkv_layout n)
{
    static const char *const names[] = {[QKV_SEPARATE] = "separate",
                                        [QKV_GROUPED] = "grouped by kv head",
                                        [QKV_COLUMNS] = "one after the other, stored [in, out]"};
    return names[n];
}

static const char *qk_norm_text(qk_norm_kind n)
{
    static const char *const names[] = {[QK_NORM_NONE] = "none",
                                        [QK_NORM_HEAD] = "each head",
                                        [QK_NORM_HEADS] = "each head with its own weights",
                                        [QK_NORM_WHOLE] = "all heads together"};
    return names[n];
}

static const char *style_text(rope_style n)
{
    static const char *const names[] = {[ROPE_HALF] = "rope, halves", [ROPE_INTERLEAVED] = "rope, interleaved"};
    return names[n];
}

static const char *scaling_text(rope_scaling n)
{
    static const char *const names[] = {
        [ROPE_PLAIN] = "none",
        [ROPE_LINEAR] = "linear",
        [ROPE_DYNAMIC] = "dynamic ntk",
        [ROPE_YARN] = "yarn",
        [ROPE_LLAMA3] = "llama3",
        [ROPE_LONG] = "longrope",
        [ROPE_QWEN] = "dynamic ntk in powers of two",
        [ROPE_FACTORS] = "a factor for each frequency, from a tensor",
    };
    return names[n];
}

static const char *activation_text(activation n)
{
    static const char *const names[] = {[ACT_SILU] = "silu",
                                        [ACT_GELU_TANH] = "gelu (tanh)",
                                        [ACT_GELU] = "gelu",
                                        [ACT_RELU] = "relu",
                                        [ACT_RELU2] = "relu squared",
                                        [ACT_QUICK_GELU] = "quick gelu",
                                        [ACT_CLAMPED] = "clamped swish, (up + 1)"};
    return names[n];
}

static const char *router_text(router_kind n)
{
    static const char *const names[] = {[ROUTER_SOFTMAX] = "softmax, then the best",
                                        [ROUTER_SOFTMAX_LATE] = "the best, then softmax",
                                        [ROUTER_SIGMOID] = "sigmoid"};
    return names[n];
}

static void say_windows(page *p)
{
    const model *mo = p->mo;
    uint32_t n = 0, first = 0, window = 0;
    for (uint32_t i = mo->n_layers; i-- > 0;) {
        if (!mo->layers[i].window) continue;
        n++;
        first = i;
        window = mo->layers[i].window;
    }
    if (n == 0)
        say(p, "window", "none");
    else if (n == mo->n_layers)
        say(p, "window", "%" PRIu32, window);
    else if (n == mo->n_layers - first)
        say(p, "window", "%" PRIu32 " from layer %" PRIu32 " on", window, first);
    else
        say(p, "window", "%" PRIu32 " in %" PRIu32 " of %" PRIu32 " layers", window, n, mo->n_layers);
}

static void say_scaling(page *p, const rope_axes *r)
{
    say(p, "rope scaling", "%s", scaling_text(r->scaling));
    if (r->scaling == ROPE_PLAIN || r->scaling == ROPE_FACTORS) return;
    if (r->scaling != ROPE_QWEN) say(p, "rope factor", "%.10g", r->factor);
    if (r->scaling == ROPE_LINEAR) return;
    say(p, "rope original context", "%" PRIu32, r->original_context);
    if (r->scaling == ROPE_LLAMA3)
        say(p, "rope low and high factor", "%.10g, %.10g", r->low_freq_factor, r->high_freq_factor);
    if (r->scaling != ROPE_YARN && r->scaling != ROPE_LONG) return;
    if (r->scaling == ROPE_YARN)
        say(p, "rope betas", "%.10g, %.10g%s", r->beta_fast, r->beta_slow, r->truncate ? "" : ", not truncated");
    say(p, "rope attention factor", "%.9g", rope_attention_factor(r));
}

static void say_positions(page *p)
{
    const model *mo = p->mo;
    uint32_t still = 0;
    for (uint32_t i = 0; i < mo->n_layers; i++) still += mo->layers[i].rope < 0;
    if (mo->position != POSITION_ROPE) {
        say(p, "positions", "%s", mo->position == POSITION_ALIBI ? "alibi" : "learned");
        return;
    }
    say(p, "positions", "%s", style_text(mo->rope[0].style));
    if (still) say(p, "layers without rope", "%" PRIu32 " of %" PRIu32, still, mo->n_layers);
    say(p, "rope dimensions", "%" PRIu32, mo->rope[0].dims);
    say(p, "rope theta", "%.10g", mo->rope[0].theta);
    say_scaling(p, &mo->rope[0]);
    if (mo->n_ropes > 1) say(p, "rope theta in windows", "%.10g", mo->rope[1].theta);
    if (mo->query_scaling == QUERY_LOG_N) say(p, "query scaling", "log n beyond %" PRIu32, mo->query_context);
    if (mo->query_scaling == QUERY_LLAMA4)
        say(p, "query scaling", "1 + %.6g log(1 + p / %" PRIu32 ")", (double)mo->query_beta, mo->query_context);
}

static void say_experts(page *p)
{
    const model *mo = p->mo;
    const expert_axes *e = &mo->experts;
    uint32_t n = 0;
    for (uint32_t i = 0; i < mo->n_layers; i++) n += mo->layers[i].experts != NULL;
    if (!e->count) return;
    say(p, "experts", "%" PRIu32 " of %" PRIu32 " in %" PRIu32 " of %" PRIu32 " layers", e->used, e->count, n,
        mo->n_layers);
    say(p, "expert size", "%" PRIu32, e->ffn);
    say(p, "shared expert size", "%" PRIu32, e->shared_ffn);
    say(p, "router", "%s%s", router_text(e->router), e->normalised ? ", normalised" : "");
    if (e->groups > 1)
        say(p, "expert groups", "%" PRIu32 " of %" PRIu32 ", by %s", e->used_groups, e->groups,
            e->group_score == GROUP_BEST ? "their best" : "their two best");
    if (e->scale != 1.0f) say(p, "expert scale", "%.7g", (double)e->scale);
}

static const char *placement_text(const model *mo)
{
    const weight *w = mo->layers[0].w;
    if (mo->parallel) return w[ROLE_FFN_NORM].rows ? "before each, parallel" : "before both, parallel";
    if (!w[ROLE_ATTN_NORM].rows) return "after";
    return w[ROLE_POST_ATTN_NORM].rows ? "before and after" : "before";
}

static const char *yes(bool x)
{
    return x ? "yes" : "no";
}

static void say_attention(page *p)
{
    const model *mo = p->mo;
    const weight *w = mo->layers[0].w;
    say(p, "mixer", "%s", mo->mixer == MIXER_GQA ? "gqa" : "mla");
    say(p, "heads", "%" PRIu32, mo->heads);
    if (mo->mixer == MIXER_GQA) say(p, "kv heads", "%" PRIu32, mo->kv_heads);
    if (mo->mixer == MIXER_MLA)
        say(p, "latent sizes", "q %" PRIu32 ", kv %" PRIu32 ", rope %" PRIu32, mo->q_lora, mo->kv_lora, mo->rope_dim);
    say(p, "head size", "%" PRIu32, mo->head_dim);
    say(p, "attention scale", "%.7g", (double)mo->attention_scale);
    if (mo->scale_by_layer) say(p, "attention scale", "divided by the layer's number from 1");
    if (mo->attention_softcap > 0) say(p, "attention softcap", "%.7g", (double)mo->attention_softcap);
    if (mo->clip_qkv > 0) say(p, "q, k, v clipped at", "%.7g", (double)mo->clip_qkv);
    if (w[ROLE_SINKS].rows) say(p, "attention sinks", "yes");
    say(p, "qkv layout", "%s", layout_text(mo->qkv));
    say(p, "qkv bias", "%s", yes(w[ROLE_Q_BIAS].rows || w[ROLE_QKV_BIAS].rows));
    say(p, "output bias", "%s", yes(w[ROLE_O_BIAS].rows));
    say(p, "qk norm", "%s%s", qk_norm_text(mo->qk_norm), mo->qk_norm_late ? ", behind the rotation" : "");
    say_windows(p);
}

static void say_all(page *p)
{
    model *mo = p->mo;
    if (strcmp(mo->family, mo->model_type) != 0) say(p, "model type", "%.100s", mo->model_type);
    say(p, "layers", "%" PRIu32, mo->n_layers);
    say(p, "hidden", "%" PRIu32, mo->hidden);
    say(p, "vocabulary", "%" PRIu32, mo->vocab);
    say(p, "norm", "%s%s", mo->layer_norm ? "layer" : "rms", mo->norm_offset ? ", times 1 + weight" : "");
    say(p, "norm epsilon", "%.7g", (double)mo->norm_eps);
    say(p, "norm placement", "%s", placement_text(mo));
    say_attention(p);
    say_positions(p);
    say(p, "feed-forward", "%s", mo->gated ? "gated" : "plain");
    say(p, "feed-forward size", "%" PRIu32, mo->ffn);
    say(p, "activation", "%s", activation_text(mo->act));
    say_experts(p);
    if (mo->embed_scale != 1.0f) say(p, "embedding scale", "%.7g", (double)mo->embed_scale);
    if (mo->residual_scale != 1.0f) say(p, "residual scale", "%.7g", (double)mo->residual_scale);
    if (mo->logit_scale != 1.0f) say(p, "logit scale", "%.7g", (double)mo->logit_scale);
    if (mo->logit_softcap > 0) say(p, "logit softcap", "%.7g", (double)mo->logit_softcap);
    say(p, "head", "%s%s", mo->tied_head ? "tied to the embedding" : "its own",
        mo->normalised_head ? ", rows normalised" : "");
    if (mo->left_bytes) say(p, "left on disk", "%" PRIu64 " bytes, not of the language model", mo->left_bytes);
}

lamina_status describe_axes(model *mo, lamina_error *err)
{
    page p = {.mo = mo};
    mo->axis_names = mem_array(mo->m, MEM_MODEL, AXES_MAX, sizeof *mo->axis_names, err);
    if (!mo->axis_names) return LAMINA_E_MEMORY;
    size_t pointers = AXES_MAX * sizeof *mo->axis_values; /* one block: the pointers, then what they point to */
    mo->axis_values = mem_alloc(mo->m, MEM_MODEL, pointers + AXES_MAX * VALUE_BYTES, err);
    if (!mo->axis_values) return LAMINA_E_MEMORY;
    p.text = (char(*)[VALUE_BYTES])(void *)((char *)(void *)mo->axis_values + pointers);
    say_all(&p);
    return LAMINA_OK;
}
