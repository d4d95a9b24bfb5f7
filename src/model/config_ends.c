/* Owns the tokens at which a text begins and ends. Promises ids that are in the vocabulary, each once, in ascending
 * order. */
#include <string.h>

#include "model/family.h"

enum { ENDS_LIMIT = 1024 };

typedef struct ends {
    const reading *r;
    int32_t *ids;
    size_t n;
    uint32_t vocab;
} ends;

/* One id. Negative ones mean none, and what is beyond the vocabulary is never sampled: neither ends anything. */
static lamina_status add_end(ends *e, const char *file, const json_t *value)
{
    char text[SHOWN_BYTES];
    if (!json_is_integer(value))
        return error_set(e->r->err, LAMINA_E_FORMAT, "%s: %s: key \"eos_token_id\": %s: expected token ids",
                         e->r->where, file, key_show(value, text));
    json_int_t id = json_integer_value(value);
    if (id < 0 || id >= (json_int_t)e->vocab) return LAMINA_OK;
    size_t at = 0;
    while (at < e->n && e->ids[at] < id) at++;
    if (at < e->n && e->ids[at] == id) return LAMINA_OK;
    if (e->n == ENDS_LIMIT)
        return error_set(e->r->err, LAMINA_E_FORMAT, "%s: %s: key \"eos_token_id\": expected at most %d ids",
                         e->r->where, file, ENDS_LIMIT);
    memmove(e->ids + at + 1, e->ids + at, (e->n - at) * sizeof *e->ids);
    e->ids[at] = (int32_t)id;
    e->n++;
    return LAMINA_OK;
}

static lamina_status add_ends(ends *e, const char *file, const json_t *value)
{
    if (!value || json_is_null(value)) return LAMINA_OK;
    if (!json_is_array(value)) return add_end(e, file, value);
    for (size_t i = 0; i < json_array_size(value); i++) TRY(add_end(e, file, json_array_get(value, i)));
    return LAMINA_OK;
}

static lamina_status collect_ends(ends *e, const settings *s)
{
    const json_t *own = json_object_get(e->r->config, "eos_token_id");
    if (e->r->config != e->r->c->config) {
        const json_t *outer = json_object_get(e->r->c->config, "eos_token_id");
        TRY(add_ends(e, "config.json", outer));
        if (!own) own = outer;
    }
    const json_t *other = json_object_get(e->r->c->generation, "eos_token_id");
    TRY(add_ends(e, "config.json", own));
    TRY(add_ends(e, "generation_config.json", other));
    if (!own && !other && s->eos >= 0 && (uint32_t)s->eos < e->vocab && e->r->c->dialect != DIALECT_GGUF)
        e->ids[e->n++] = s->eos;
    return LAMINA_OK;
}

/* The first id that is one; a list of them stands for its first. */
static bool find_bos(const json_t *object, uint32_t vocab, int32_t *bos)
{
    const json_t *value = json_object_get(object, "bos_token_id");
    if (json_is_array(value)) value = json_array_get(value, 0);
    if (!value) return false;
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    *bos = id >= 0 && id < (json_int_t)vocab ? (int32_t)id : -1;
    return true;
}

lamina_status config_ends(const reading *r, memory *m, const settings *s, int32_t *bos, int32_t **eos, size_t *n_eos)
{
    *bos = r->c->dialect == DIALECT_GGUF || s->bos >= (int32_t)s->vocab ? -1 : s->bos;
    if (!find_bos(r->config, s->vocab, bos) && !find_bos(r->c->config, s->vocab, bos))
        find_bos(r->c->generation, s->vocab, bos);
    ends e = {.r = r, .vocab = s->vocab};
    e.ids = mem_array(m, MEM_MODEL, ENDS_LIMIT, sizeof *e.ids, r->err);
    if (!e.ids) return LAMINA_E_MEMORY;
    lamina_status status = collect_ends(&e, s);
    if (status == LAMINA_OK) {
        int32_t *fit = mem_resize(m, MEM_MODEL, e.ids, (e.n + 1) * sizeof *e.ids, r->err);
        if (fit) {
            *eos = fit;
            *n_eos = e.n;
            return LAMINA_OK;
        }
        status = LAMINA_E_MEMORY;
    }
    mem_free(m, e.ids);
    return status;
}
