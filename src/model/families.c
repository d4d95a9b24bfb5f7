/* Owns the finding of a row in the table of families. Promises that nothing outside the table's own files
 * (families_*.c) knows a family by name: a new one of known mechanisms is a new row there and a golden model
 * (docs/adding-a-family.md). */
#include "model/families.h"

#include <string.h>

const family *family_at(size_t index)
{
    const struct {
        const family *rows;
        size_t n;
    } parts[] = {{families_llama, n_families_llama},
                 {families_plain, n_families_plain},
                 {families_fused, n_families_fused},
                 {families_experts, n_families_experts}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (index < parts[i].n) return &parts[i].rows[index];
        index -= parts[i].n;
    }
    return NULL;
}

static bool is_called(const family *f, const char *model_type)
{
    if (strcmp(f->name, model_type) == 0) return true;
    for (const char *const *also = f->also; also && *also; also++)
        if (strcmp(*also, model_type) == 0) return true;
    return false;
}

static bool all_hold(const key_value *where, const json_t *config)
{
    for (const key_value *w = where; w && w->key; w++)
        if (!json_is(json_object_get(config, w->key), w->value)) return false;
    return true;
}

static bool fits(const family *f, const json_t *config)
{
    return all_hold(f->where, config) || (f->or_where && all_hold(f->or_where, config));
}

/* GGUF says by its numbers what Hugging Face says by a name: its name of an architecture may mean several families. */
static bool fits_metadata(const family *f, const json_t *config)
{
    bool experts = json_number_value(json_object_get(config, "num_experts")) > 0;
    const json_t *scores = json_object_get(config, "scoring_func");
    if (json_is_number(json_object_get(config, "sliding_window")) && !(f->keys & KEYS_WINDOW)) return false;
    if (scores && f->moe != MOE_NONE) return json_is(scores, f->router == ROUTER_SIGMOID ? "sigmoid" : "softmax");
    return experts == (f->moe != MOE_NONE);
}

/* Where none fits whole the first of the name says what is wrong. */
static const family *find_architecture(const json_t *config, const char *architecture)
{
    const family *f, *first = NULL;
    for (size_t i = 0; (f = family_at(i)); i++) {
        if (!f->architecture || strcmp(f->architecture, architecture) != 0) continue;
        if (fits_metadata(f, config)) return f;
        if (!first) first = f;
    }
    return first;
}

const family *family_find(const json_t *config, const char *model_type, tensor_dialect dialect)
{
    if (dialect == DIALECT_GGUF) return find_architecture(config, model_type);
    const family *f;
    for (size_t i = 0; (f = family_at(i)); i++)
        if (is_called(f, model_type) && fits(f, config)) return f;
    return NULL;
}

/* Buffers that old versions of transformers saved; they are computed, not read. */
static const char *const idle_tensors[] = {
    "*.rotary_emb.inv_freq",
    "*.rotary_emb.cos_cached",
    "*.rotary_emb.sin_cached",
};

bool tensor_is_idle(const family *f, const char *name)
{
    for (size_t i = 0; i < sizeof idle_tensors / sizeof *idle_tensors; i++)
        if (glob_match(idle_tensors[i], name)) return true;
    for (const char *const *pattern = f->idle; pattern && *pattern; pattern++)
        if (glob_match(*pattern, name)) return true;
    return false;
}

/* Backtracks to the last star only: the first match of what stands between two stars is as good as any later one. */
bool glob_match(const char *pattern, const char *text)
{
    const char *star = NULL, *from = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            from = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star;
            text = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}
