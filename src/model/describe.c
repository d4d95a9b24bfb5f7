/* Owns the axes as text, for those who look at a model. Promises one line for every axis of the architecture, in the
 * order of the flow, so that two models that print the same compute the same function of their weights. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

enum { AXES_MAX = 40, VALUE_BYTES = 128 };

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

static const char *norm_text(norm_kind n)
{
    static const char *const names[] = {[NORM_RMS] = "rms"};
    return names[n];
}

static const char *place_text(norm_place n)
{
    static const char *const names[] = {[NORM_BEFORE] = "before"};
    return names[n];
}

static const char *mixer_text(mixer_kind n)
{
    static const char *const names[] = {[MIXER_GQA] = "gqa"};
    return names[n];
}

static const char *layout_text(qkv_layout n)
{
    static const char *const names[] = {[QKV_SEPARATE] = "separate"};
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
        [ROPE_PLAIN] = "none", [ROPE_LINEAR] = "linear", [ROPE_DYNAMIC] = "dynamic ntk",
        [ROPE_YARN] = "yarn",  [ROPE_LLAMA3] = "llama3", [ROPE_FACTORS] = "a factor for each frequency, from a tensor",
    };
    return names[n];
}

static const char *ffn_text(ffn_kind n)
{
    static const char *const names[] = {[FFN_GATED] = "gated"};
    return names[n];
}

static const char *activation_text(activation n)
{
    static const char *const names[] = {[ACT_SILU] = "silu", [ACT_GELU_TANH] = "gelu (tanh)"};
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

static void say_scaling(page *p)
{
    const rope_axes *r = &p->mo->rope;
    say(p, "rope scaling", "%s", scaling_text(r->scaling));
    if (r->scaling == ROPE_PLAIN || r->scaling == ROPE_FACTORS) return;
    say(p, "rope factor", "%.10g", r->factor);
    if (r->scaling == ROPE_LINEAR) return;
    say(p, "rope original context", "%" PRIu32, r->original_context);
    if (r->scaling == ROPE_LLAMA3)
        say(p, "rope low and high factor", "%.10g, %.10g", r->low_freq_factor, r->high_freq_factor);
    if (r->scaling != ROPE_YARN) return;
    say(p, "rope betas", "%.10g, %.10g%s", r->beta_fast, r->beta_slow, r->truncate ? "" : ", not truncated");
    say(p, "rope attention factor", "%.9g", rope_attention_factor(r));
}

static void say_all(page *p)
{
    const model *mo = p->mo;
    say(p, "layers", "%" PRIu32, mo->n_layers);
    say(p, "hidden", "%" PRIu32, mo->hidden);
    say(p, "vocabulary", "%" PRIu32, mo->vocab);
    say(p, "norm", "%s", norm_text(mo->norm));
    say(p, "norm epsilon", "%.7g", (double)mo->norm_eps);
    say(p, "norm placement", "%s", place_text(mo->norm_place));
    say(p, "mixer", "%s", mixer_text(mo->mixer));
    say(p, "heads", "%" PRIu32, mo->heads);
    say(p, "kv heads", "%" PRIu32, mo->kv_heads);
    say(p, "head size", "%" PRIu32, mo->head_dim);
    say(p, "attention scale", "%.7g", (double)mo->attention_scale);
    say(p, "qkv layout", "%s", layout_text(mo->qkv));
    say(p, "qkv bias", "%s", mo->qkv_bias ? "yes" : "no");
    say(p, "output bias", "%s", mo->o_bias ? "yes" : "no");
    say(p, "qk norm", "%s", mo->qk_norm ? "each head" : "none");
    say_windows(p);
    say(p, "positions", "%s", style_text(mo->rope.style));
    say(p, "rope dimensions", "%" PRIu32, mo->rope.dims);
    say(p, "rope theta", "%.10g", mo->rope.theta);
    say_scaling(p);
    say(p, "feed-forward", "%s", ffn_text(mo->ffn_kind));
    say(p, "feed-forward size", "%" PRIu32, mo->ffn);
    say(p, "activation", "%s", activation_text(mo->act));
    say(p, "head", "%s", mo->tied_head ? "tied to the embedding" : "its own");
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
