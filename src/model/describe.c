/* Every axis of a model as a name and a text, for those who look. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

enum { AXES = 40 };

/* Adds one axis; the text is cut at 160 bytes. */
__attribute__((format(printf, 4, 5))) static lamina_status axis(model *m, lamina_error *err, const char *name,
                                                                const char *format, ...)
{
    char text[160];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (m->n_axes == AXES) return LAMINA_OK;
    m->axis_names[m->n_axes] = name;
    m->axis_values[m->n_axes] = arena_strndup(m->strings, text, strlen(text), err);
    if (!m->axis_values[m->n_axes]) return err ? err->status : LAMINA_E_MEMORY;
    m->n_axes++;
    return LAMINA_OK;
}

static lamina_status describe_rope(model *m, lamina_error *err)
{
    static const char *const kinds[] = {"none", "linear", "dynamic", "yarn", "llama3", "factors"};
    const rope_axes *r = &m->rope;
    TRY(axis(m, err, "rope", "%s, %u of %u dimensions", r->style == ROPE_HALF ? "half-split" : "interleaved", r->dims,
             m->head_dim));
    TRY(axis(m, err, "rope_theta", "%.17g", r->theta));
    TRY(axis(m, err, "rope_scaling", "%s", kinds[r->scaling]));
    if (r->scaling == ROPE_PLAIN || r->scaling == ROPE_FACTORS) return LAMINA_OK;
    TRY(axis(m, err, "rope_factor", "%.9g", r->factor));
    if (r->scaling != ROPE_LINEAR) TRY(axis(m, err, "rope_original_context", "%u", r->original_context));
    if (r->scaling == ROPE_LLAMA3)
        TRY(axis(m, err, "rope_frequency_factors", "low %.9g, high %.9g", r->low_freq_factor, r->high_freq_factor));
    if (r->scaling == ROPE_YARN)
        TRY(axis(m, err, "rope_yarn", "beta %.9g to %.9g, attention factor %.9g, mscale %.9g and %.9g, %s",
                 r->beta_fast, r->beta_slow, r->attention_factor, r->mscale, r->mscale_all_dim,
                 r->truncate ? "truncated" : "not truncated"));
    return LAMINA_OK;
}

static lamina_status describe_windows(model *m, lamina_error *err)
{
    uint32_t n = 0, window = 0, first = 0;
    for (uint32_t i = m->n_layers; i-- > 0;)
        if (m->layers[i].window) {
            n++;
            window = m->layers[i].window;
            first = i;
        }
    if (n == 0) return axis(m, err, "window", "none");
    return axis(m, err, "window", "%u keys in %u of %u layers, from layer %u", window, n, m->n_layers, first);
}

lamina_status describe_axes(model *m, lamina_error *err)
{
    m->strings = arena_new(m->m, MEM_MODEL, err);
    if (!m->strings) return err ? err->status : LAMINA_E_MEMORY;
    m->axis_names = arena_array(m->strings, AXES, sizeof *m->axis_names, err);
    if (!m->axis_names) return err ? err->status : LAMINA_E_MEMORY;
    m->axis_values = arena_array(m->strings, AXES, sizeof *m->axis_values, err);
    if (!m->axis_values) return err ? err->status : LAMINA_E_MEMORY;
    const weight *w = m->layers[0].w;
    TRY(axis(m, err, "norm", "rms, eps %.9g", (double)m->norm_eps));
    TRY(axis(m, err, "norm_placement", "before"));
    TRY(axis(m, err, "mixer", "gqa, %u heads, %u key/value heads of %u", m->heads, m->kv_heads, m->head_dim));
    TRY(axis(m, err, "attention_scale", "%.9g", (double)m->attention_scale));
    TRY(axis(m, err, "qkv_layout", "separate"));
    TRY(axis(m, err, "attention_biases", "%s",
             w[ROLE_O_BIAS].rows   ? "q, k, v, o"
             : w[ROLE_Q_BIAS].rows ? "q, k, v"
                                   : "none"));
    TRY(axis(m, err, "qk_norm", "%s", m->qk_norm ? "rms over each head" : "none"));
    TRY(describe_windows(m, err));
    TRY(describe_rope(m, err));
    TRY(axis(m, err, "feed_forward", "gated, %u wide", m->ffn));
    TRY(axis(m, err, "activation", "%s", m->act == ACT_SILU ? "silu" : "gelu_tanh"));
    TRY(axis(m, err, "experts", "none"));
    return axis(m, err, "head", "%s", m->tied_head ? "tied to the embedding" : "own matrix");
}
