/* Owns recipes: their text, and what it means for each tensor of a model.
 *
 * Promises that what cannot be done is said where the recipe is read or given a model, before anything is written; and
 * that every tensor has exactly one target, whatever the model. */
#include "store/recipe.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/packed.h"
#include "store/quantize.h"
#include "store/recipe_rules.h"

#define SHAPE "expected TYPE, PATTERN=TYPE, bits=NUMBER or size=SIZE"

enum { NAME_BYTES = 96 };

/* ---- text ----------------------------------------------------------------------------------------------------------- */

static bool read_type(const char *text, recipe_rule *rule)
{
    if (strcmp(text, "keep") == 0) return rule->form = RECIPE_KEEP, true;
    if (strcmp(text, "packed") == 0) return rule->form = RECIPE_PACKED, true;
    rule->form = RECIPE_BLOCKS;
    return dtype_from_name(text, &rule->type) && quantize_can(rule->type);
}

static lamina_status unknown_type(const char *part, const char *text, lamina_error *err)
{
    char known[160] = "keep, packed";
    for (int t = 0; t < DT_WEIGHTS; t++) {
        size_t n = strlen(known);
        if (quantize_can((dtype)t)) snprintf(known + n, sizeof known - n, ", %s", dtype_name((dtype)t));
    }
    return error_set(err, LAMINA_E_USAGE, "dtype: \"%s\": unknown type \"%s\"; expected one of %s", part, text, known);
}

static lamina_status read_bits(const char *part, const char *value, recipe *r, lamina_error *err)
{
    char *end;
    r->bits = strtod(value, &end);
    if (end == value || *end || !(r->bits >= 1 && r->bits <= 32))
        return error_set(err, LAMINA_E_USAGE, "dtype: \"%s\": expected a number of bits from 1 to 32, as bits=4.5",
                         part);
    return LAMINA_OK;
}

static lamina_status read_size(const char *part, const char *value, recipe *r, lamina_error *err)
{
    static const char units[] = "KMGT";
    char *end;
    double x = strtod(value, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    for (const char *u = units; unit && u <= unit; u++) x *= 1024;
    if (end == value || (*end && (!unit || end[1])) || !(x >= 1 && x < 0x1p62))
        return error_set(err, LAMINA_E_USAGE, "dtype: \"%s\": expected a size, as size=3.5G", part);
    r->size = (uint64_t)x;
    return LAMINA_OK;
}

/* One part, NUL-terminated; `whole` is the same for errors. */
static lamina_status read_part(char *part, const char *whole, recipe *r, lamina_error *err)
{
    char *equals = strchr(part, '=');
    if (!*part || equals == part || (equals && !equals[1]))
        return error_set(err, LAMINA_E_USAGE, "dtype: \"%s\": " SHAPE, whole);
    if (equals) *equals = '\0';
    const char *value = equals ? equals + 1 : part;
    bool bits = equals && strcmp(part, "bits") == 0, size = equals && strcmp(part, "size") == 0;
    if ((bits || size || !equals) && (r->bits > 0 || r->size || r->base.form != RECIPE_OPEN))
        return error_set(err, LAMINA_E_USAGE, "dtype: \"%s\": only one of TYPE, bits= and size= is for all", whole);
    if (bits) return read_bits(whole, value, r, err);
    if (size) return read_size(whole, value, r, err);
    recipe_rule *rule = equals ? &r->rules[r->n_rules] : &r->base;
    if (!read_type(value, rule)) return unknown_type(whole, value, err);
    if (!equals) return LAMINA_OK;
    if (!pattern_ok(part))
        return error_set(
            err, LAMINA_E_USAGE,
            "dtype: \"%s\": expected a name such as layers[0-3].down, *.experts.up or head before the \"=\"", whole);
    rule->pattern = part;
    r->n_rules++;
    return LAMINA_OK;
}

lamina_status recipe_parse(memory *m, const char *spec, recipe **out, lamina_error *err)
{
    *out = NULL;
    size_t bytes = strlen(spec) + 1, parts = 1;
    for (const char *s = spec; *s; s++) parts += *s == ',';
    recipe *r = mem_alloc(m, MEM_OTHER, sizeof *r, err);
    if (!r) return LAMINA_E_MEMORY;
    r->m = m;
    r->base.form = RECIPE_OPEN;
    r->text = mem_alloc(m, MEM_OTHER, 2 * bytes, err);
    r->rules = r->text ? mem_array(m, MEM_OTHER, parts, sizeof *r->rules, err) : NULL;
    lamina_status status = r->rules ? LAMINA_OK : LAMINA_E_MEMORY;
    for (size_t at = 0; status == LAMINA_OK && at < bytes;) { /* two copies: one is cut at each "=" */
        size_t n = strcspn(spec + at, ",");
        memcpy(r->text + at, spec + at, n);
        memcpy(r->text + bytes + at, spec + at, n);
        status = read_part(r->text + at, r->text + bytes + at, r, err);
        at += n + 1;
    }
    if (status != LAMINA_OK) {
        recipe_free(r);
        return status;
    }
    if (r->base.form == RECIPE_OPEN && !recipe_surveys(r)) r->base.form = RECIPE_KEEP;
    *out = r;
    return LAMINA_OK;
}

void recipe_free(recipe *r)
{
    if (!r) return;
    mem_free(r->m, r->rules);
    mem_free(r->m, r->text);
    mem_free(r->m, r);
}

bool recipe_surveys(const recipe *r)
{
    return r->bits > 0 || r->size;
}

static bool rounds(const recipe_rule *rule)
{
    return rule->form == RECIPE_BLOCKS || rule->form == RECIPE_OPEN;
}

bool recipe_quantises(const recipe *r)
{
    bool any = rounds(&r->base);
    for (size_t i = 0; i < r->n_rules; i++) any = any || rounds(&r->rules[i]);
    return any;
}

/* ---- patterns ------------------------------------------------------------------------------------------------------- */

/* "[7]", "[0-3]", "[*]" against a number in brackets: both move behind theirs. */
static bool match_number(const char **pattern, const char **name)
{
    char *end;
    if (**name != '[') return false;
    unsigned long number = strtoul(*name + 1, &end, 10), low = 0, high = ULONG_MAX;
    *name = end + 1;
    const char *p = *pattern + 1;
    if (*p == '*') {
        p++;
    } else {
        low = high = strtoul(p, &end, 10);
        if (*end == '-') high = strtoul(end + 1, &end, 10);
        p = end;
    }
    *pattern = p + 1;
    return number >= low && number <= high;
}

bool pattern_ok(const char *p)
{
    for (; *p; p++) {
        if (*p == ']') return false;
        if (*p != '[') continue;
        size_t n = strspn(++p, "0123456789"), to = 0;
        bool any = n == 0 && *p == '*';
        p += any ? 1 : n;
        if (n && *p == '-') p += 1 + (to = strspn(p + 1, "0123456789")), n = to;
        if ((!any && n == 0) || *p != ']') return false;
    }
    return true;
}

bool pattern_matches(const char *pattern, const char *name)
{
    const char *star = NULL, *back = NULL; /* behind the last "*", and where its text may still end */
    while (*name) {
        const char *p = pattern, *n = name;
        if (*p == '*') {
            star = ++pattern;
            back = name;
        } else if (*p == '[' && match_number(&p, &n)) {
            pattern = p;
            name = n;
        } else if (*p != '[' && *p == *n) {
            pattern++;
            name++;
        } else if (!*pattern && *name == '.') {
            return true; /* "layers[0]" is all that is in it */
        } else if (star) {
            pattern = star;
            name = ++back;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

/* ---- a model -------------------------------------------------------------------------------------------------------- */

typedef struct matching {
    const recipe *r;
    const model *mo;
    recipe_target *targets;
    int32_t *rules; /* [n_tensors] the last rule that names the tensor, plus 1; 0: none; -1: no matrix of the pass */
    bool *used;     /* [n_rules] */
} matching;

static void name_it(matching *t, const weight *w, const char *name)
{
    if (!w->rows || w->tensor == TENSOR_NONE) return;
    int32_t *found = &t->rules[w->tensor];
    if (*found < 0) *found = 0;
    for (size_t i = 0; i < t->r->n_rules; i++) {
        if (!pattern_matches(t->r->rules[i].pattern, name)) continue;
        t->used[i] = true;
        if ((int32_t)i + 1 > *found) *found = (int32_t)i + 1;
    }
}

static void name_layer(matching *t, uint32_t i)
{
    const model_layer *l = &t->mo->layers[i];
    char name[NAME_BYTES];
    for (int r = 0; r < ROLE_MATRICES; r++) {
        if (r == ROLE_ROUTER || r == ROLE_SHARED_ROUTER) continue;
        snprintf(name, sizeof name, "layers[%u].%s", i, role_name((role)r));
        name_it(t, &l->w[r], name);
    }
    for (int k = 0; l->experts && k < EXPERT_MATRICES; k++) {
        const char *of = role_name((role)(ROLE_EXPERT_GATE + k));
        snprintf(name, sizeof name, "layers[%u].experts.%s", i, of + strlen("expert_"));
        for (uint32_t e = 0; e < t->mo->experts.count; e++) name_it(t, &l->experts[e].w[k], name);
    }
}

static const char *why_kept(const tensor *t, const weight *w)
{
    bool numbers = t->type == DT_F32 || t->type == DT_F16 || t->type == DT_BF16 || packed_form_of(t->type);
    if (!numbers && !dtype_is_f8(t->type)) return "is quantised already";
    if (t->n_dims < 2) return "is a vector";
    if (w->transposed) return "is stored [in, out]";
    if (numbers && w->scales != TENSOR_NONE) return "has scales of its own";
    return NULL;
}

static dtype of_32(dtype type)
{
    switch (type) {
    case DT_Q6_K:
        return DT_Q8_0;
    case DT_Q5_K:
        return DT_Q5_1;
    case DT_Q4_K:
        return DT_Q5_0;
    default:
        return type == DT_NF4 ? DT_Q4_0 : type;
    }
}

/* What rule asks of a matrix, as far as its rows allow. */
static recipe_target target_of(const recipe_rule *rule, const tensor *t, const weight *w)
{
    recipe_target target = {.form = rule->form, .type = t->type};
    uint64_t cols = t->n_dims ? t->shape[t->n_dims - 1] : 0;
    if (rule->form == RECIPE_KEEP || rule->form == RECIPE_PACKED) return target;
    target.why = why_kept(t, w);
    if (!target.why && cols % 32) target.why = "has rows that are not whole blocks of 32";
    if (target.why) {
        target.form = RECIPE_KEEP;
        return target;
    }
    if (dtype_is_f8(t->type)) target.codes = w;
    if (rule->form == RECIPE_OPEN) return target;
    target.type = dtype_row_ok(rule->type, cols) ? rule->type : of_32(rule->type);
    if (target.type != rule->type) target.why = "has rows that are not whole blocks of the type";
    return target;
}

static void settle(matching *t, const weight *w)
{
    if (!w->rows || w->tensor == TENSOR_NONE || t->rules[w->tensor] < 0) return;
    int32_t rule = t->rules[w->tensor];
    t->targets[w->tensor] =
        target_of(rule ? &t->r->rules[rule - 1] : &t->r->base, &t->mo->source->tensors[w->tensor], w);
}

static void settle_all(matching *t)
{
    const model *mo = t->mo;
    for (uint32_t i = 0; i < mo->n_layers; i++) {
        for (int r = 0; r < ROLE_MATRICES; r++) settle(t, &mo->layers[i].w[r]);
        for (uint32_t e = 0; mo->layers[i].experts && e < mo->experts.count; e++)
            for (int k = 0; k < EXPERT_MATRICES; k++) settle(t, &mo->layers[i].experts[e].w[k]);
    }
    settle(t, model_end(mo, ROLE_EMBED));
    settle(t, model_end(mo, ROLE_HEAD));
}

lamina_status recipe_targets(const recipe *r, const model *mo, recipe_target *targets, lamina_error *err)
{
    size_t n = mo->source->n_tensors;
    matching t = {.r = r, .mo = mo, .targets = targets};
    t.rules = mem_array(r->m, MEM_OTHER, n, sizeof *t.rules, err);
    t.used = t.rules ? mem_array(r->m, MEM_OTHER, r->n_rules, sizeof *t.used, err) : NULL;
    lamina_status status = t.used ? LAMINA_OK : LAMINA_E_MEMORY;
    if (t.used) {
        for (size_t i = 0; i < n; i++) {
            t.rules[i] = -1;
            bool packs = r->base.form == RECIPE_PACKED; /* loses nothing: whatever the tensor is for */
            targets[i] =
                (recipe_target){.form = packs ? RECIPE_PACKED : RECIPE_KEEP, .type = mo->source->tensors[i].type};
        }
        for (uint32_t i = 0; i < mo->n_layers; i++) name_layer(&t, i);
        name_it(&t, model_end(mo, ROLE_EMBED), "embed");
        name_it(&t, model_end(mo, ROLE_HEAD), "head");
        settle_all(&t);
    }
    for (size_t i = 0; status == LAMINA_OK && i < r->n_rules; i++)
        if (!t.used[i])
            status = error_set(err, LAMINA_E_USAGE,
                               "dtype: \"%s\" names no matrix of this model; names are layers[0].%s, embed, head",
                               r->rules[i].pattern, mo->layers[0].w[ROLE_Q].rows ? "q" : "o");
    mem_free(r->m, t.used);
    mem_free(r->m, t.rules);
    return status;
}
