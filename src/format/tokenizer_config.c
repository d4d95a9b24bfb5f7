/* tokenizer_config.json: what it adds to a vocabulary, as transformers applies it.
 *
 * Tokens of "added_tokens_decoder" are added, or give one that is there their flags. They have the ids that are written
 * there, in place of a piece if need be: [UNUSED_TOKEN_146] of InternLM 2 is <|im_start|>, and ChatGLM3's begin behind
 * a gap. (A fast tokenizer of transformers would number them anew and leave the model's rows; the models' own code does
 * not.) The named special tokens
 * (bos_token, ...) become special where the vocabulary has them as mere pieces. A named token that the vocabulary does
 * not have at all is left out: it would have an id for which no model has a row. add_bos_token and add_eos_token mean
 * nothing beside a tokenizer.json, whose post-processor says it all (transformers 5 drops them too). */
#include <stdlib.h>
#include <string.h>

#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"

static const char config_name[] = "tokenizer_config.json";

/* ---- one token ---------------------------------------------------------------------------------------------- */

static lamina_status read_flag(const jp *at, const char *key, bool *out, lamina_error *err)
{
    jp value;
    bool found;
    TRY(jp_member(at, key, &found, &value, err));
    return found ? jp_bool(&value, out, err) : LAMINA_OK;
}

/* {"content": "<s>", "special": true, ...}; *found is false without a content. Its text dies with the next string. */
lamina_status json_read_added_token(const jp *at, added_token *token, bool *found, lamina_error *err)
{
    jp value;
    jp_text text;
    *token = (added_token){0};
    TRY(read_flag(at, "special", &token->special, err));
    token->normalized = !token->special;
    TRY(read_flag(at, "normalized", &token->normalized, err));
    TRY(read_flag(at, "lstrip", &token->lstrip, err));
    TRY(read_flag(at, "rstrip", &token->rstrip, err));
    TRY(read_flag(at, "single_word", &token->single_word, err));
    TRY(jp_member(at, "content", found, &value, err));
    if (!*found) return LAMINA_OK;
    TRY(jp_string(&value, &text, err));
    if (text.bytes > TOKEN_MAX_PATTERN)
        return error_set(err, LAMINA_E_FORMAT, "%s: an added token of %zu bytes", at->document->name, text.bytes);
    token->text = (text_span){text.data, (uint32_t)text.bytes};
    return LAMINA_OK;
}

/* ---- added_tokens_decoder ----------------------------------------------------------------------------------- */

typedef struct numbered {
    uint32_t id;
    jp at;
} numbered;

static int compare_numbered(const void *a, const void *b)
{
    const numbered *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool read_number(jp_text key, uint32_t *out)
{
    uint32_t n = 0;
    if (key.bytes == 0 || key.bytes > 8) return false;
    for (size_t i = 0; i < key.bytes; i++) {
        if (key.data[i] < '0' || key.data[i] > '9') return false;
        n = n * 10 + (uint32_t)(key.data[i] - '0');
    }
    *out = n;
    return n < TOKEN_MAX_IDS;
}

static lamina_status list_tokens(builder *b, const jp *tokens, numbered **list, size_t *n, lamina_error *err)
{
    jp in;
    size_t capacity = 0;
    TRY(jp_enter(tokens, JP_OBJECT, &in, err));
    for (;; jp_skip(&in)) {
        bool more;
        jp_text key;
        numbered one;
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) break;
        if (!read_number(key, &one.id) || *n >= 1u << 16)
            return error_set(err, LAMINA_E_FORMAT, "%s: added_tokens_decoder has a token id \"%.*s\"", config_name,
                             (int)(key.bytes < 60 ? key.bytes : 60), key.data);
        one.at = in;
        TRY(array_grow(b->m, (void **)list, *n, &capacity, sizeof **list, err));
        (*list)[(*n)++] = one;
    }
    qsort(*list, *n, sizeof **list, compare_numbered);
    return LAMINA_OK;
}

/* In the order of their ids. ids: tokens keep the ids that they have here, unless they are pieces. */
static lamina_status add_tokens(builder *b, const jp *root, bool ids, lamina_error *err)
{
    jp tokens;
    bool found;
    numbered *list = NULL;
    size_t n = 0;
    TRY(jp_member(root, "added_tokens_decoder", &found, &tokens, err));
    if (!found) return LAMINA_OK;
    lamina_status status = list_tokens(b, &tokens, &list, &n, err);
    for (size_t i = 0; i < n && status == LAMINA_OK; i++) {
        added_token token;
        status = json_read_added_token(&list[i].at, &token, &found, err);
        if (status != LAMINA_OK || !found || token.text.bytes == 0) continue;
        token.id = list[i].id;
        bool known = builder_token(b, token.text.data, token.text.bytes) >= 0;
        status = ids && !known ? builder_added_at(b, &token, err) : builder_added_again(b, &token, err);
    }
    mem_free(b->m, list);
    return status;
}

/* ---- named special tokens ----------------------------------------------------------------------------------- */

/* "<s>", or an object with "content": special now, if it is a piece. *id (may be NULL): of the token. */
static lamina_status add_named(builder *b, const jp *value, int32_t *id, lamina_error *err)
{
    added_token token = {.special = true};
    jp copy = *value;
    jp_text text;
    bool found = true;
    if (jp_peek(value) == JP_OBJECT) {
        TRY(json_read_added_token(value, &token, &found, err));
        token.special = true;
    } else if (jp_peek(value) == JP_STRING) {
        TRY(jp_string(&copy, &text, err));
        if (text.bytes > TOKEN_MAX_PATTERN) return LAMINA_OK;
        token.text = (text_span){text.data, (uint32_t)text.bytes};
    } else {
        return LAMINA_OK;
    }
    int32_t known = found && token.text.bytes ? builder_token(b, token.text.data, token.text.bytes) : -1;
    if (id) *id = known;
    return known >= 0 ? builder_added(b, &token, err) : LAMINA_OK;
}

static lamina_status read_named(builder *b, const jp *root, lamina_error *err)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    jp value, in;
    bool found;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        TRY(jp_member(root, names[i], &found, &value, err));
        if (found) TRY(add_named(b, &value, i == 0 ? &b->t->bos : i == 1 ? &b->t->eos : NULL, err));
    }
    for (size_t i = 0; i < 2; i++) {
        TRY(jp_member(root, lists[i], &found, &value, err));
        if (!found || jp_peek(&value) != JP_ARRAY) continue;
        TRY(jp_enter(&value, JP_ARRAY, &in, err));
        for (; jp_next_item(&in); jp_skip(&in)) TRY(add_named(b, &in, NULL, err));
    }
    return LAMINA_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------- */

static lamina_status read_document(builder *b, const char *name, const char *text, size_t bytes, bool ids,
                                   lamina_error *err)
{
    jp_document document;
    jp root;
    TRY(jp_open(b->m, MEM_TOKENIZER, name, text, bytes, &document, &root, err));
    lamina_status status = add_tokens(b, &root, ids, err);
    if (status == LAMINA_OK) status = read_named(b, &root, err);
    jp_close(&document);
    return status;
}

lamina_status tokenizer_read_config(builder *b, const tokenizer_files *files, bool ids, lamina_error *err)
{
    if (files->config) TRY(read_document(b, config_name, files->config, files->config_bytes, ids, err));
    if (files->config || !files->special) return LAMINA_OK;
    return read_document(b, "special_tokens_map.json", files->special, files->special_bytes, ids, err);
}

lamina_status tokenizer_config_class(memory *m, const tokenizer_files *files, char *out, size_t capacity,
                                     lamina_error *err)
{
    jp_document document;
    jp root, value;
    jp_text text = {0};
    bool found;
    out[0] = '\0';
    if (!files->config) return LAMINA_OK;
    TRY(jp_open(m, MEM_TOKENIZER, config_name, files->config, files->config_bytes, &document, &root, err));
    lamina_status status = jp_member(&root, "tokenizer_class", &found, &value, err);
    if (status == LAMINA_OK && found) status = jp_string(&value, &text, err);
    if (status == LAMINA_OK && text.bytes) {
        size_t n = text.bytes < capacity - 1 ? text.bytes : capacity - 1;
        memcpy(out, text.data, n);
        out[n] = '\0';
    }
    jp_close(&document);
    return status;
}
