/* Owns the reading of rotation: rope_scaling with rope_theta beside it, or rope_parameters with all of it inside (as
 * transformers 5 writes it). Promises axes for which every formula of rope.c is finite, and that a parameter which the
 * chosen kind of scaling does not read is refused, not dropped. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

enum { LINEAR = 1, DYNAMIC = 2, YARN = 4, LLAMA3 = 8, LONG = 16, SECTIONS = 32 };

static const struct {
    const char *name;
    rope_scaling scaling;
    unsigned bit;
} kinds[] = {
    {"default", ROPE_PLAIN, 0}, {"linear", ROPE_LINEAR, LINEAR}, {"dynamic", ROPE_DYNAMIC, DYNAMIC},
    {"yarn", ROPE_YARN, YARN},  {"llama3", ROPE_LLAMA3, LLAMA3}, {"longrope", ROPE_LONG, LONG},
    {"su", ROPE_LONG, LONG},    {"mrope", ROPE_PLAIN, SECTIONS}, /* of text all three positions are the same: plain */
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

#define AT(field) offsetof(rope_axes, field)

/* Numbers: who reads them, who cannot do without. All are double. */
static const struct {
    const char *name;
    unsigned read_by, needed_by;
    size_t at;
    range in;
} numbers[] = {
    {"factor", LINEAR | DYNAMIC | YARN | LLAMA3 | LONG, LINEAR | DYNAMIC | LLAMA3, AT(factor), {1, 1e6}},
    {"low_freq_factor", LLAMA3, LLAMA3, AT(low_freq_factor), {1e-6, 1e6}},
    {"high_freq_factor", LLAMA3, LLAMA3, AT(high_freq_factor), {1e-6, 1e6}},
    {"beta_fast", YARN, 0, AT(beta_fast), {0, 1e6}},
    {"beta_slow", YARN, 0, AT(beta_slow), {0, 1e6}},
    {"attention_factor", YARN | LONG, 0, AT(attention_factor), {1e-6, 1e6}},
    {"mscale", YARN, 0, AT(mscale), {0, 1e3}},
    {"mscale_all_dim", YARN, 0, AT(mscale_all_dim), {0, 1e3}},
};
enum { N_NUMBERS = sizeof numbers / sizeof *numbers };

typedef struct rope_source {
    const reading *r;
    const settings *s;
    json_t *object; /* NULL: none */
    char path[64];  /* "rope_scaling.", "rope_parameters.full_attention." */
    unsigned bit;   /* of the kind */
} rope_source;

static const json_t *field(const rope_source *from, const char *name)
{
    const json_t *value = json_object_get(from->object, name);
    return json_is_null(value) ? NULL : value;
}

/* Of the two objects the one that says something; both only if they say the same. */
static lamina_status choose_object(rope_source *from)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    const reading *r = from->r;
    for (size_t i = 0; i < 2; i++) {
        json_t *value = json_object_get(r->config, names[i]);
        if (!value || json_is_null(value) || reading_ignores(r, names[i])) continue;
        if (!json_is_object(value)) return key_refuse(r, "", names[i], value, "an object");
        if (json_object_size(value) == 0) continue;
        if (from->object && !json_equal(from->object, value))
            return error_set(
                r->err, LAMINA_E_UNSUPPORTED,
                "%s: keys \"rope_scaling\" and \"rope_parameters\" differ: --ignore-config with one of them "
                "chooses the other",
                r->where);
        from->object = value;
        snprintf(from->path, sizeof from->path, "%s.", names[i]);
    }
    return LAMINA_OK;
}

static lamina_status read_kind(rope_source *from, rope_axes *rope)
{
    const json_t *new_name = field(from, "rope_type"), *old_name = field(from, "type");
    const json_t *value = new_name ? new_name : old_name;
    if (!value) return LAMINA_OK;
    if (new_name && old_name && !json_equal(new_name, old_name))
        return key_refuse(from->r, from->path, "type", old_name, "the same as rope_type");
    const char *name = json_string_value(value);
    for (size_t i = 0; name && i < N_KINDS; i++) {
        if (strcmp(name, kinds[i].name) != 0) continue;
        rope->scaling = kinds[i].scaling;
        from->bit = kinds[i].bit;
        return LAMINA_OK;
    }
    if (!name) return key_refuse(from->r, from->path, "rope_type", value, "a name");
    return error_set(from->r->err, LAMINA_E_UNSUPPORTED,
                     "%s: key \"%srope_type\" = \"%.64s\" is not computed for %s; known are default, linear, dynamic, "
                     "yarn, llama3",
                     from->r->where, from->path, name, from->r->f->name);
}

static lamina_status read_theta(const rope_source *from, rope_axes *rope)
{
    const range in = {1.0 + 1e-6, 1e30};
    const json_t *value = field(from, "rope_theta");
    if (value) return key_number(from->r, from->path, "rope_theta", value, in, &rope->theta);
    value = config_get(from->r, "rope_theta");
    if (!value) return LAMINA_OK;
    return key_number(from->r, "", config_spelling(from->r, "rope_theta"), value, in, &rope->theta);
}

static lamina_status read_numbers(const rope_source *from, rope_axes *rope)
{
    for (size_t i = 0; i < N_NUMBERS; i++) {
        const json_t *value = field(from, numbers[i].name);
        if (value && (numbers[i].read_by & from->bit)) {
            double *at = (double *)(void *)((char *)rope + numbers[i].at);
            TRY(key_number(from->r, from->path, numbers[i].name, value, numbers[i].in, at));
        } else if (!value && (numbers[i].needed_by & from->bit)) {
            return key_refuse(from->r, from->path, numbers[i].name, NULL, "a number");
        }
    }
    return LAMINA_OK;
}

/* The length that was trained before scaling. Dynamic scaling takes it from max_position_embeddings alone. */
static lamina_status read_original(const rope_source *from, uint32_t context, rope_axes *rope)
{
    const json_t *value = field(from, "original_max_position_embeddings");
    if (!value && (from->bit & LONG)) value = config_get(from->r, "original_max_position_embeddings");
    rope->original_context = context;
    if (!value || !(from->bit & (YARN | LLAMA3 | DYNAMIC | LONG))) return LAMINA_OK;
    TRY(key_whole(from->r, from->path, "original_max_position_embeddings", value, (range){1, INT32_MAX},
                  &rope->original_context));
    if ((from->bit & DYNAMIC) && rope->original_context != context)
        return key_refuse(from->r, from->path, "original_max_position_embeddings", value,
                          "max_position_embeddings, which dynamic scaling begins at");
    return LAMINA_OK;
}

static lamina_status read_truncate(const rope_source *from, rope_axes *rope)
{
    const json_t *value = field(from, "truncate");
    rope->truncate = true;
    if (!value || !(from->bit & YARN)) return LAMINA_OK;
    if (!json_is_boolean(value)) return key_refuse(from->r, from->path, "truncate", value, "true or false");
    rope->truncate = json_is_true(value);
    return LAMINA_OK;
}

static bool is_understood(const rope_source *from, const char *name, const json_t *value)
{
    static const char *const always[] = {"rope_type", "type", "rope_theta", "finetuned" /* a remark */};
    if (json_is_null(value)) return true;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strcmp(name, always[i]) == 0) return true;
    for (size_t i = 0; i < N_NUMBERS; i++)
        if (strcmp(name, numbers[i].name) == 0) return (numbers[i].read_by & from->bit) != 0;
    if (strcmp(name, "original_max_position_embeddings") == 0)
        return (from->bit & (YARN | LLAMA3 | DYNAMIC | LONG)) != 0;
    if (strcmp(name, "truncate") == 0) return (from->bit & YARN) != 0;
    if (strcmp(name, "long_factor") == 0 || strcmp(name, "short_factor") == 0) return (from->bit & LONG) != 0;
    if (strcmp(name, "mrope_section") == 0 || strcmp(name, "mrope_interleaved") == 0) return true;
    if (strcmp(name, "llama_4_scaling_beta") == 0) return json_is_number(value);
    if (strcmp(name, "max_position_embeddings") == 0) return json_is_number(value); /* a copy */
    if (strcmp(name, "partial_rotary_factor") == 0) return (from->r->f->keys & KEYS_PARTIAL) || json_is(value, "1");
    return false;
}

static lamina_status judge_others(const rope_source *from)
{
    const char *name;
    json_t *value;
    json_object_foreach(from->object, name, value)
    {
        char whole[160];
        snprintf(whole, sizeof whole, "%s%.80s", from->path, name);
        if (is_understood(from, name, value) || reading_ignores(from->r, whole)) continue;
        return key_unknown(from->r, from->path, name, value);
    }
    return LAMINA_OK;
}

/* What the formulas divide by. */
static lamina_status check_yarn(const rope_source *from, rope_axes *rope)
{
    if (rope->beta_fast == 0) rope->beta_fast = 32; /* as the reference: zero and absent are the same */
    if (rope->beta_slow == 0) rope->beta_slow = 1;
    if (rope->beta_fast < 1e-6)
        return key_refuse(from->r, from->path, "beta_fast", field(from, "beta_fast"), "0 or at least 1e-6");
    if (rope->beta_slow < 1e-6)
        return key_refuse(from->r, from->path, "beta_slow", field(from, "beta_slow"), "0 or at least 1e-6");
    return LAMINA_OK;
}

static lamina_status check(const rope_source *from, rope_axes *rope)
{
    if (rope->scaling == ROPE_LLAMA3 && !(rope->high_freq_factor > rope->low_freq_factor))
        return key_refuse(from->r, from->path, "high_freq_factor", field(from, "high_freq_factor"),
                          "more than low_freq_factor");
    if (rope->scaling == ROPE_DYNAMIC && rope->dims < 4)
        return error_set(from->r->err, LAMINA_E_FORMAT, "%s: head_dim %u: dynamic scaling expects at least 4",
                         from->r->where, rope->dims);
    if (rope->scaling != ROPE_YARN && rope->scaling != ROPE_LONG) return LAMINA_OK;
    if (rope->factor == 0) /* null: the reference's rule */
        rope->factor = (double)from->s->context / rope->original_context;
    if (rope->scaling == ROPE_LONG) return LAMINA_OK;
    if (rope->factor < 1)
        return key_refuse(from->r, from->path, "factor", field(from, "factor"), "a number from 1 to 1000000");
    return check_yarn(from, rope);
}

/* One list of longrope: a divisor for each frequency. */
static lamina_status read_factors(const rope_source *from, const char *key, uint32_t n, const float **out)
{
    const json_t *list = field(from, key);
    char expected[64];
    snprintf(expected, sizeof expected, "a list of %u numbers from 1e-6 to 1e6", n);
    if (!json_is_array(list) || json_array_size(list) != n) return key_refuse(from->r, from->path, key, list, expected);
    float *factors = mem_array(from->r->m, MEM_MODEL, n, sizeof *factors, from->r->err);
    if (!factors) return LAMINA_E_MEMORY;
    *out = factors; /* the settings' from here on: config_rope_free() */
    for (uint32_t i = 0; i < n; i++) {
        double v = json_number_value(json_array_get(list, i));
        if (!(v >= 1e-6 && v <= 1e6)) return key_refuse(from->r, from->path, key, json_array_get(list, i), expected);
        factors[i] = (float)v;
    }
    return LAMINA_OK;
}

static lamina_status read_dims(const rope_source *from, rope_axes *rope)
{
    double share = from->s->rotary;
    const json_t *value = from->r->f->keys & KEYS_PARTIAL ? field(from, "partial_rotary_factor") : NULL;
    if (value) TRY(key_number(from->r, from->path, "partial_rotary_factor", value, (range){1e-3, 1}, &share));
    uint32_t head = from->r->f->mixer == MIXER_MLA ? from->s->rope_dim : from->s->head_dim;
    rope->dims = share > 0 ? (uint32_t)((double)head * share) : head;
    if (rope->dims >= 2 && rope->dims % 2 == 0) return LAMINA_OK;
    return error_set(from->r->err, LAMINA_E_FORMAT,
                     "%s: partial_rotary_factor %g of head_dim %u: expected an even number of rotated dimensions",
                     from->r->where, share, head);
}

/* Hunyuan: "dynamic" with an alpha means a base that is larger once and for all, and nothing else that stands beside it
 * (modeling_hunyuan_v1_dense.py). */
static lamina_status read_alpha(rope_source *from, rope_axes *rope)
{
    const json_t *value = field(from, "alpha");
    double alpha;
    if (!value || !(from->r->f->keys & KEYS_ALPHA) || rope->scaling != ROPE_DYNAMIC) return LAMINA_OK;
    TRY(key_number(from->r, from->path, "alpha", value, (range){1, 1e9}, &alpha));
    if (rope->dims < 4) return key_refuse(from->r, from->path, "alpha", value, "a head_dim of at least 4");
    rope->theta = rope_grown_base(rope->theta, alpha, rope->dims);
    rope->scaling = ROPE_PLAIN;
    from->object = NULL;
    return LAMINA_OK;
}

static lamina_status read_query_scaling(const rope_source *from, const rope_axes *rope, settings *s)
{
    const json_t *beta = field(from, "llama_4_scaling_beta");
    if (!beta) return LAMINA_OK;
    s->query_scaling = QUERY_LLAMA4;
    s->query_context = rope->original_context;
    return key_number(from->r, from->path, "llama_4_scaling_beta", beta, (range){0, 1e3}, &s->query_beta);
}

static lamina_status read_set(rope_source *from, settings *s, rope_axes *rope)
{
    *rope = (rope_axes){.style = from->r->f->style[from->r->c->dialect], .theta = rope->theta, .truncate = true};
    TRY(read_kind(from, rope));
    TRY(read_theta(from, rope));
    if (s->rope_ratio > 0) rope->theta *= s->rope_ratio;
    TRY(read_dims(from, rope));
    TRY(read_alpha(from, rope));
    if (rope->scaling == ROPE_PLAIN && from->bit == DYNAMIC) return LAMINA_OK;
    TRY(read_numbers(from, rope));
    TRY(read_original(from, s->context, rope));
    TRY(read_truncate(from, rope));
    if (rope->scaling == ROPE_LONG && from->r->c->dialect == DIALECT_HF) {
        TRY(read_factors(from, "long_factor", rope->dims / 2, &rope->long_factors));
        TRY(read_factors(from, "short_factor", rope->dims / 2, &rope->short_factors));
    }
    TRY(read_query_scaling(from, rope, s));
    if (from->object) TRY(judge_others(from));
    return check(from, rope);
}

/* QWen 1 says by flags what others say by a scaling. */
static void read_flags(settings *s)
{
    if (s->dynamic_ntk) s->rope[0].scaling = ROPE_QWEN;
    s->rope[0].original_context = s->dynamic_ntk ? s->context : s->rope[0].original_context;
    if (!s->log_n) return;
    s->query_scaling = QUERY_LOG_N;
    s->query_context = s->context;
}

/* Since transformers 5: a set for each of the layer types. */
static bool descend(rope_source *from, const char *name)
{
    json_t *inner = json_object_get(from->object, name);
    if (!json_is_object(inner)) return false;
    from->object = inner;
    size_t n = strlen(from->path);
    snprintf(from->path + n, sizeof from->path - n, "%s.", name);
    return true;
}

lamina_status config_rope(const reading *r, settings *s)
{
    if (r->f->position != POSITION_ROPE) return LAMINA_OK;
    rope_source whole = {.r = r, .s = s};
    TRY(choose_object(&whole));
    rope_source global = whole, local = whole;
    bool nested = descend(&global, "full_attention");
    if (descend(&local, "sliding_attention") != nested || (nested && json_object_size(whole.object) != 2))
        return key_refuse(r, "", "rope_parameters", whole.object, "one set, or full_attention and sliding_attention");
    s->rope[0].theta = s->theta;
    TRY(read_set(&global, s, &s->rope[0]));
    if (r->f->keys & KEYS_DYNAMIC_FLAGS) read_flags(s);
    if (r->f->local == LOCAL_SAME) {
        if (nested && !json_equal(global.object, local.object))
            return key_refuse(r, "", "rope_parameters", whole.object, "the same for all layers");
        return LAMINA_OK;
    }
    s->rope[1].theta = s->theta_local > 0 ? s->theta_local : s->rope[0].theta;
    if (nested) {
        TRY(read_set(&local, s, &s->rope[1]));
        if (s->rope[1].dims == s->rope[0].dims) return LAMINA_OK;
        return key_refuse(r, local.path, "partial_rotary_factor", field(&local, "partial_rotary_factor"),
                          "the same for all layers");
    }
    s->rope[1] = (rope_axes){.style = s->rope[0].style,
                             .theta = s->rope[1].theta,
                             .dims = s->rope[0].dims,
                             .original_context = s->context,
                             .truncate = true};
    return LAMINA_OK;
}

void config_rope_free(memory *m, rope_axes *rope)
{
    mem_free(m, (void *)(uintptr_t)rope->long_factors);
    mem_free(m, (void *)(uintptr_t)rope->short_factors);
    rope->long_factors = rope->short_factors = NULL;
}
