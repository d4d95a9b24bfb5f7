/* Owns the reading of rotation: rope_scaling with rope_theta beside it, or rope_parameters with all of it inside (as
 * transformers 5 writes it). Promises axes for which every formula of rope.c is finite, and that a parameter which the
 * chosen kind of scaling does not read is refused, not dropped. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/family.h"

enum { LINEAR = 1, DYNAMIC = 2, YARN = 4, LLAMA3 = 8 };

static const struct {
    const char *name;
    rope_scaling scaling;
    unsigned bit;
} kinds[] = {
    {"default", ROPE_PLAIN, 0}, {"linear", ROPE_LINEAR, LINEAR}, {"dynamic", ROPE_DYNAMIC, DYNAMIC},
    {"yarn", ROPE_YARN, YARN},  {"llama3", ROPE_LLAMA3, LLAMA3},
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
    {"factor", LINEAR | DYNAMIC | YARN | LLAMA3, LINEAR | DYNAMIC | LLAMA3, AT(factor), {1, 1e6}},
    {"low_freq_factor", LLAMA3, LLAMA3, AT(low_freq_factor), {1e-6, 1e6}},
    {"high_freq_factor", LLAMA3, LLAMA3, AT(high_freq_factor), {1e-6, 1e6}},
    {"beta_fast", YARN, 0, AT(beta_fast), {0, 1e6}},
    {"beta_slow", YARN, 0, AT(beta_slow), {0, 1e6}},
    {"attention_factor", YARN, 0, AT(attention_factor), {1e-6, 1e6}},
    {"mscale", YARN, 0, AT(mscale), {0, 1e3}},
    {"mscale_all_dim", YARN, 0, AT(mscale_all_dim), {0, 1e3}},
};
enum { N_NUMBERS = sizeof numbers / sizeof *numbers };

typedef struct rope_source {
    const reading *r;
    json_t *object; /* NULL: none */
    char path[32];  /* "rope_scaling." */
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
        json_t *value = json_object_get(r->c->config, names[i]);
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
    value = json_object_get(from->r->c->config, "rope_theta");
    if (!value || json_is_null(value)) return LAMINA_OK;
    return key_number(from->r, "", "rope_theta", value, in, &rope->theta);
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
    rope->original_context = context;
    if (!value || !(from->bit & (YARN | LLAMA3 | DYNAMIC))) return LAMINA_OK;
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
    if (strcmp(name, "original_max_position_embeddings") == 0) return (from->bit & (YARN | LLAMA3 | DYNAMIC)) != 0;
    if (strcmp(name, "truncate") == 0) return (from->bit & YARN) != 0;
    return strcmp(name, "partial_rotary_factor") == 0 && json_is_number(value) && json_number_value(value) == 1.0;
}

static lamina_status judge_others(const rope_source *from)
{
    const char *name;
    json_t *value;
    json_object_foreach(from->object, name, value)
    {
        char whole[128];
        snprintf(whole, sizeof whole, "%s%.80s", from->path, name);
        if (is_understood(from, name, value) || reading_ignores(from->r, whole)) continue;
        return key_unknown(from->r, from->path, name, value);
    }
    return LAMINA_OK;
}

/* What the formulas divide by. */
static lamina_status check(const rope_source *from, const settings *s, rope_axes *rope)
{
    if (rope->scaling == ROPE_LLAMA3 && !(rope->high_freq_factor > rope->low_freq_factor))
        return key_refuse(from->r, from->path, "high_freq_factor", field(from, "high_freq_factor"),
                          "more than low_freq_factor");
    if (rope->scaling == ROPE_DYNAMIC && rope->dims < 4)
        return error_set(from->r->err, LAMINA_E_FORMAT, "%s: head_dim %u: dynamic scaling expects at least 4",
                         from->r->where, rope->dims);
    if (rope->scaling != ROPE_YARN) return LAMINA_OK;
    if (rope->factor == 0) rope->factor = (double)s->context / rope->original_context; /* null: the reference's rule */
    if (rope->factor < 1)
        return key_refuse(from->r, from->path, "factor", field(from, "factor"), "a number from 1 to 1000000");
    if (rope->beta_fast == 0) rope->beta_fast = 32; /* as the reference: zero and absent are the same */
    if (rope->beta_slow == 0) rope->beta_slow = 1;
    if (rope->beta_fast < 1e-6)
        return key_refuse(from->r, from->path, "beta_fast", field(from, "beta_fast"), "0 or at least 1e-6");
    if (rope->beta_slow < 1e-6)
        return key_refuse(from->r, from->path, "beta_slow", field(from, "beta_slow"), "0 or at least 1e-6");
    return LAMINA_OK;
}

lamina_status config_rope(const reading *r, settings *s)
{
    rope_source from = {.r = r};
    rope_axes rope = {.style = r->f->style[r->c->dialect], .dims = s->head_dim, .theta = s->theta, .truncate = true};
    TRY(choose_object(&from));
    TRY(read_kind(&from, &rope));
    TRY(read_theta(&from, &rope));
    TRY(read_numbers(&from, &rope));
    TRY(read_original(&from, s->context, &rope));
    TRY(read_truncate(&from, &rope));
    if (from.object) TRY(judge_others(&from));
    TRY(check(&from, s, &rope));
    s->theta = rope.theta;
    s->rope = rope;
    return LAMINA_OK;
}
