/* What chat templates need of a tokenizer: named texts.
 *
 * Owns the reading of them from tokenizer_config.json and the files beside it, and from GGUF metadata. Names:
 *
 *   bos_token, eos_token, ... (all that end in _token)   spellings, variables of a template
 *   chat_template, chat_template.NAME                     templates: the default one and others ("tool_use")
 *   tokenizer_class, model_type                           by which a known form is chosen where there is no template
 *
 * Which file wins is as in transformers: chat_template.jinja before tokenizer_config.json, which wins over
 * special_tokens_map.json. chat_template.json, which only processors read there, is the last resort. */
#include <string.h>

#include "format/gguf.h"
#include "format/jsonpull.h"
#include "format/tokenizer_internal.h"

const tokenizer_text *tokenizer_texts(const tokenizer *t, uint32_t *n)
{
    *n = t->n_texts;
    return t->texts;
}

const char *tokenizer_find_text(const tokenizer *t, const char *name)
{
    for (uint32_t i = 0; i < t->n_texts; i++)
        if (strcmp(t->texts[i].name, name) == 0) return t->texts[i].text;
    return NULL;
}

const char *tokenizer_chat_template(const tokenizer *t)
{
    return tokenizer_find_text(t, "chat_template");
}

lamina_status tokenizer_set_text(tokenizer *t, const char *name, const char *text, size_t bytes, lamina_error *err)
{
    if (bytes > TOKEN_MAX_TEXT)
        return error_set(err, LAMINA_E_FORMAT, "tokenizer: %s has %zu bytes, more than %d", name, bytes,
                         TOKEN_MAX_TEXT);
    char *copy = arena_strndup(t->strings, text, bytes, err);
    if (!copy) return no_memory(err);
    for (uint32_t i = 0; i < t->n_texts; i++) {
        if (strcmp(t->texts[i].name, name) != 0) continue;
        t->texts[i].text = copy;
        return LAMINA_OK;
    }
    if (t->n_texts == TOKEN_MAX_TEXTS)
        return error_set(err, LAMINA_E_FORMAT, "tokenizer: more than %d special tokens and templates", TOKEN_MAX_TEXTS);
    char *key = arena_strndup(t->strings, name, strlen(name), err);
    if (!key) return no_memory(err);
    if (!t->texts) t->texts = arena_array(t->strings, TOKEN_MAX_TEXTS, sizeof *t->texts, err);
    if (!t->texts) return no_memory(err);
    t->texts[t->n_texts++] = (tokenizer_text){key, copy};
    return LAMINA_OK;
}

/* ---- JSON --------------------------------------------------------------------------------------------------- */

static bool is_token_name(jp_text key)
{
    return key.bytes > 6 && key.bytes < TOKEN_TEXT_NAME && memcmp(key.data + key.bytes - 6, "_token", 6) == 0;
}

/* A string, or an object with "content", under a name; anything else is no text. */
static lamina_status read_spelling(tokenizer *t, const char *name, const jp *at, lamina_error *err)
{
    jp value = *at;
    bool found = true;
    jp_text text;
    if (jp_peek(&value) == JP_OBJECT) TRY(jp_member(at, "content", &found, &value, err));
    if (!found || jp_peek(&value) != JP_STRING) return LAMINA_OK;
    TRY(jp_string(&value, &text, err));
    return tokenizer_set_text(t, name, text.data, text.bytes, err);
}

/* Every member "..._token" of the object before `at`. */
static lamina_status read_spellings(tokenizer *t, const jp *at, lamina_error *err)
{
    jp in;
    if (jp_peek(at) != JP_OBJECT) return LAMINA_OK;
    TRY(jp_enter(at, JP_OBJECT, &in, err));
    for (;; jp_skip(&in)) {
        bool more;
        jp_text key;
        char name[TOKEN_TEXT_NAME];
        TRY(jp_next_key(&in, &more, &key, err));
        if (!more) return LAMINA_OK;
        if (!is_token_name(key)) continue;
        memcpy(name, key.data, key.bytes);
        name[key.bytes] = '\0';
        TRY(read_spelling(t, name, &in, err));
    }
}

/* {"name": ..., "template": ...} */
static lamina_status read_named_template(tokenizer *t, const jp *at, lamina_error *err)
{
    jp value;
    bool found;
    jp_text text;
    char name[TOKEN_TEXT_NAME] = "chat_template";
    TRY(jp_member(at, "name", &found, &value, err));
    if (!found || jp_peek(&value) != JP_STRING) return LAMINA_OK;
    TRY(jp_string(&value, &text, err));
    size_t n = strlen(name);
    if (n + 1 + text.bytes >= sizeof name) return LAMINA_OK;
    if (!jp_is(text, "default")) {
        name[n] = '.';
        memcpy(name + n + 1, text.data, text.bytes);
        name[n + 1 + text.bytes] = '\0';
    }
    TRY(jp_member(at, "template", &found, &value, err));
    return found ? read_spelling(t, name, &value, err) : LAMINA_OK;
}

/* A string, or [{"name": ..., "template": ...}, ...]. */
static lamina_status read_templates(tokenizer *t, const jp *root, lamina_error *err)
{
    jp value, in;
    bool found;
    TRY(jp_member(root, "chat_template", &found, &value, err));
    if (!found) return LAMINA_OK;
    if (jp_peek(&value) != JP_ARRAY) return read_spelling(t, "chat_template", &value, err);
    TRY(jp_enter(&value, JP_ARRAY, &in, err));
    for (; jp_next_item(&in); jp_skip(&in)) TRY(read_named_template(t, &in, err));
    return LAMINA_OK;
}

static lamina_status read_member(tokenizer *t, const jp *root, const char *key, lamina_error *err)
{
    jp value;
    bool found;
    TRY(jp_member(root, key, &found, &value, err));
    return found ? read_spelling(t, key, &value, err) : LAMINA_OK;
}

static lamina_status read_special_map(tokenizer *t, const jp *root, lamina_error *err)
{
    return read_spellings(t, root, err);
}

static lamina_status read_config(tokenizer *t, const jp *root, lamina_error *err)
{
    jp value;
    bool found;
    TRY(read_spellings(t, root, err));
    TRY(jp_member(root, "extra_special_tokens", &found, &value, err));
    if (found) TRY(read_spellings(t, &value, err));
    return read_member(t, root, "tokenizer_class", err);
}

static lamina_status read_model(tokenizer *t, const jp *root, lamina_error *err)
{
    return read_member(t, root, "model_type", err);
}

typedef lamina_status read_fn(tokenizer *t, const jp *root, lamina_error *err);

static lamina_status read_with(tokenizer *t, const char *name, const char *text, size_t bytes, read_fn *read,
                               lamina_error *err)
{
    jp_document document;
    jp root;
    if (!text) return LAMINA_OK;
    TRY(jp_open(t->m, MEM_TOKENIZER, name, text, bytes, &document, &root, err));
    lamina_status status = read(t, &root, err);
    jp_close(&document);
    return status;
}

lamina_status tokenizer_read_texts(tokenizer *t, const tokenizer_files *f, lamina_error *err)
{
    TRY(read_with(t, "special_tokens_map.json", f->special, f->special_bytes, read_special_map, err));
    TRY(read_with(t, "tokenizer_config.json", f->config, f->config_bytes, read_config, err));
    TRY(read_with(t, "config.json", f->model, f->model_bytes, read_model, err));
    if (f->chat)
        TRY(tokenizer_set_text(t, "chat_template", f->chat, f->chat_bytes, err));
    else
        TRY(read_with(t, "tokenizer_config.json", f->config, f->config_bytes, read_templates, err));
    if (f->tool_use) TRY(tokenizer_set_text(t, "chat_template.tool_use", f->tool_use, f->tool_use_bytes, err));
    if (tokenizer_chat_template(t)) return LAMINA_OK;
    return read_with(t, "chat_template.json", f->chat_json, f->chat_json_bytes, read_templates, err);
}

/* ---- GGUF --------------------------------------------------------------------------------------------------- */

static lamina_status copy_text(tokenizer *t, const char *name, const gguf *g, const char *key, lamina_error *err)
{
    gguf_string text;
    if (!gguf_text(g, key, &text)) return LAMINA_OK;
    return tokenizer_set_text(t, name, text.data, text.bytes > SIZE_MAX ? SIZE_MAX : (size_t)text.bytes, err);
}

lamina_status tokenizer_read_texts_gguf(tokenizer *t, const gguf *g, lamina_error *err)
{
    static const char *const ids[][2] = {
        {"bos_token", "tokenizer.ggml.bos_token_id"},       {"eos_token", "tokenizer.ggml.eos_token_id"},
        {"unk_token", "tokenizer.ggml.unknown_token_id"},   {"pad_token", "tokenizer.ggml.padding_token_id"},
        {"sep_token", "tokenizer.ggml.seperator_token_id"}, {"cls_token", "tokenizer.ggml.cls_token_id"},
        {"mask_token", "tokenizer.ggml.mask_token_id"},
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        uint64_t id;
        if (!gguf_u64(g, ids[i][1], &id)) continue;
        gguf_string text = gguf_text_at(g, "tokenizer.ggml.tokens", id);
        if (text.data) TRY(tokenizer_set_text(t, ids[i][0], text.data, (size_t)text.bytes, err));
    }
    TRY(copy_text(t, "chat_template", g, "tokenizer.chat_template", err));
    TRY(copy_text(t, "chat_template.tool_use", g, "tokenizer.chat_template.tool_use", err));
    return copy_text(t, "model_type", g, "general.architecture", err);
}
