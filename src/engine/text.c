/* Text in and out of an engine: thin, so that callers need no second handle. */
#include "engine/engine.h"

static lamina_status need_tokenizer(const lamina_engine *e, lamina_error *err)
{
    if (e->tok) return LAMINA_OK;
    return error_set(err, LAMINA_E_UNSUPPORTED, "%s",
                     e->no_tokenizer.text[0] ? e->no_tokenizer.text : "the model was opened without its tokenizer");
}

lamina_status lamina_tokenize(const lamina_engine *e, const char *text, size_t bytes, unsigned flags, int32_t *ids,
                              size_t capacity, size_t *n_ids, lamina_error *err)
{
    *n_ids = 0;
    TRY(need_tokenizer(e, err));
    int32_t *all = NULL;
    TRY(tokenizer_encode(e->tok, e->m, text, bytes, flags, &all, n_ids, err));
    size_t n = *n_ids < capacity ? *n_ids : capacity;
    if (n) memcpy(ids, all, n * sizeof *ids);
    mem_free(e->m, all);
    return LAMINA_OK;
}

lamina_status lamina_detokenize(const lamina_engine *e, lamina_detokenizer *state, int32_t id, char *out,
                                size_t capacity, size_t *bytes, lamina_error *err)
{
    *bytes = 0;
    TRY(need_tokenizer(e, err));
    return tokenizer_decode(e->tok, state, id, out, capacity, bytes, err);
}
