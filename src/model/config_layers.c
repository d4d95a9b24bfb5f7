/* Owns what differs from layer to layer: windows, rotation, experts. Promises that a list in the configuration
 * (layer_types and its like) agrees with what the family does with the other keys, or decides where the family lets
 * it. */
#include <stdio.h>
#include <string.h>

#include "model/family.h"

/* ---- lists of names ---------------------------------------------------------------------------------------------- */

typedef struct name_list {
    const char *key, *yes, *no; /* the two names that an item may have */
    const json_t *items;
} name_list;

static lamina_status read_name(const reading *r, const name_list *l, uint32_t index, bool *yes)
{
    const json_t *item = json_array_get(l->items, index);
    const char *name = json_string_value(item);
    char text[SHOWN_BYTES];
    *yes = name && strcmp(name, l->yes) == 0;
    if (*yes || (name && strcmp(name, l->no) == 0)) return LAMINA_OK;
    return error_set(r->err, LAMINA_E_UNSUPPORTED, "%s: key \"%s\": layer %u is %s: expected %s or %s", r->where,
                     l->key, index, key_show(item, text), l->no, l->yes);
}

static lamina_status check_length(const reading *r, const char *key, const json_t *list, uint32_t layers)
{
    if (json_is_array(list) && json_array_size(list) == layers) return LAMINA_OK;
    char expected[64];
    snprintf(expected, sizeof expected, "a list of num_hidden_layers = %u items", layers);
    return key_refuse(r, "", key, list, expected);
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static lamina_status read_layer_types(const reading *r, const settings *s, uint32_t window, model_layer *layers)
{
    window_rule rule = r->f->window;
    bool decides = rule == WINDOW_ABOVE || rule == WINDOW_PATTERN || rule == WINDOW_STILL;
    name_list l = {"layer_types", "sliding_attention", "full_attention", s->layer_types};
    TRY(check_length(r, l.key, l.items, s->layers));
    for (uint32_t i = 0; i < s->layers; i++) {
        bool slides;
        TRY(read_name(r, &l, i, &slides));
        if ((slides && !window) || (!decides && slides != (layers[i].window != 0)))
            return error_set(r->err, LAMINA_E_UNSUPPORTED,
                             "%s: key \"layer_types\": layer %u is %s, but the other keys give it %s", r->where, i,
                             slides ? l.yes : l.no, layers[i].window ? "a sliding window" : "no window");
        layers[i].window = slides ? window : 0;
    }
    return LAMINA_OK;
}

static lamina_status read_windows(const reading *r, const settings *s, model_layer *layers)
{
    uint32_t window = s->window;
    window_rule rule = r->f->window;
    if (rule == WINDOW_NONE ||
        ((rule == WINDOW_ABOVE || rule == WINDOW_STILL || rule == WINDOW_FLAG) && !s->use_window))
        window = 0;
    for (uint32_t i = 0; i < s->layers; i++) {
        bool slides = rule == WINDOW_ALL || rule == WINDOW_FLAG || (rule == WINDOW_ABOVE && i >= s->window_layers) ||
                      (rule == WINDOW_PATTERN && s->window_pattern && (i + 1) % s->window_pattern != 0);
        layers[i].window = slides ? window : 0;
    }
    if (!s->layer_types || reading_ignores(r, "layer_types")) return LAMINA_OK;
    return read_layer_types(r, s, window, layers);
}

/* ---- rotation ---------------------------------------------------------------------------------------------------- */

static lamina_status read_nope_list(const reading *r, const settings *s, model_layer *layers)
{
    TRY(check_length(r, "no_rope_layers", s->nope_layers, s->layers));
    for (uint32_t i = 0; i < s->layers; i++) {
        const json_t *item = json_array_get(s->nope_layers, i);
        if (!json_is(item, "0") && !json_is(item, "1"))
            return key_refuse(r, "", "no_rope_layers", item, "1 for a layer that is rotated, 0 for one that is not");
        if (json_is(item, "0")) layers[i].rope = -1;
    }
    return LAMINA_OK;
}

static lamina_status read_rotations(const reading *r, const settings *s, model_layer *layers)
{
    bool any = false;
    for (uint32_t i = 0; i < s->layers; i++) any = any || layers[i].window;
    for (uint32_t i = 0; i < s->layers; i++) {
        bool global = layers[i].window == 0;
        layers[i].rope = r->f->local != LOCAL_SAME && !global ? 1 : 0;
        if (r->f->position != POSITION_ROPE || (r->f->nope == NOPE_GLOBAL && global) ||
            (r->f->nope == NOPE_GLOBAL_IF_ANY && any && global))
            layers[i].rope = -1;
        if (r->f->nope == NOPE_LIST && !s->nope_layers && s->nope_interval && (i + 1) % s->nope_interval == 0)
            layers[i].rope = -1;
    }
    if (r->f->nope == NOPE_LIST && s->nope_layers) TRY(read_nope_list(r, s, layers));
    for (uint32_t i = 0; r->f->window == WINDOW_STILL && !s->layer_types && s->use_window && i < s->layers; i++)
        layers[i].window = layers[i].rope < 0 ? s->window : 0;
    return LAMINA_OK;
}

/* ---- experts ----------------------------------------------------------------------------------------------------- */

static lamina_status read_dense_layers(const reading *r, const settings *s, bool *moe)
{
    if (!s->dense_layers) return LAMINA_OK;
    if (!json_is_array(s->dense_layers))
        return key_refuse(r, "", "mlp_only_layers", s->dense_layers, "a list of layers");
    for (size_t i = 0; i < json_array_size(s->dense_layers); i++) {
        const json_t *item = json_array_get(s->dense_layers, i);
        json_int_t layer = json_is_integer(item) ? json_integer_value(item) : -1;
        if (layer < 0) return key_refuse(r, "", "mlp_only_layers", item, "the number of a layer");
        if (layer < (json_int_t)s->layers) moe[layer] = false;
    }
    return LAMINA_OK;
}

static lamina_status read_experts(const reading *r, const settings *s, bool *moe)
{
    for (uint32_t i = 0; i < s->layers; i++) {
        bool after = i >= s->first_dense && (!s->moe_step || i % s->moe_step == 0);
        bool step = !s->moe_step || (i + 1) % s->moe_step == 0;
        moe[i] = s->experts &&
                 (r->f->moe == MOE_ALL || (r->f->moe == MOE_AFTER && after) || (r->f->moe == MOE_STEP && step));
    }
    if (r->f->moe == MOE_STEP) TRY(read_dense_layers(r, s, moe));
    if (!s->mlp_types) return LAMINA_OK;
    name_list l = {"mlp_layer_types", "sparse", "dense", s->mlp_types};
    TRY(check_length(r, l.key, l.items, s->layers));
    for (uint32_t i = 0; i < s->layers; i++) {
        TRY(read_name(r, &l, i, &moe[i]));
        if (moe[i] && !s->experts) return key_refuse(r, "", l.key, json_array_get(l.items, i), "dense without experts");
    }
    return LAMINA_OK;
}

lamina_status config_layers(const reading *r, const settings *s, model_layer *layers, bool *moe)
{
    TRY(read_windows(r, s, layers));
    TRY(read_rotations(r, s, layers));
    return read_experts(r, s, moe);
}
