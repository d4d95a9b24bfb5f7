/* Text in and out of an engine: thin, so that callers need no second handle. */
#include "engine/engine.h"
#include "format/template.h"

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

/* ---- chats ---------------------------------------------------------------------------------------------------- */

typedef struct chat_json {
    json_t *messages, *tools, *documents, *variables;
} chat_json;

static lamina_status read_json(const char *name, const char *text, json_t **out, lamina_error *err)
{
    json_error_t why;
    if (!text) return LAMINA_OK;
    *out = json_loads(text, JSON_ALLOW_NUL, &why);
    if (*out) return LAMINA_OK;
    if (json_error_code(&why) == json_error_out_of_memory)
        return error_set(err, LAMINA_E_MEMORY, "%s: no memory for its JSON", name);
    return error_set(err, LAMINA_E_USAGE, "%s: line %d, column %d: expected JSON, found: %s", name, why.line,
                     why.column, why.text);
}

static lamina_status read_chat(const lamina_chat_options *chat, chat_json *j, lamina_error *err)
{
    if (!chat->messages) return error_set(err, LAMINA_E_USAGE, "messages: expected JSON, found none");
    TRY(read_json("messages", chat->messages, &j->messages, err));
    TRY(read_json("tools", chat->tools, &j->tools, err));
    TRY(read_json("documents", chat->documents, &j->documents, err));
    return read_json("variables", chat->variables, &j->variables, err);
}

lamina_status lamina_render_chat(const lamina_engine *e, const lamina_chat_options *chat, char **text, size_t *bytes,
                                 lamina_error *err)
{
    *text = NULL;
    *bytes = 0;
    TRY(need_tokenizer(e, err));
    template_input in = {.add_generation_prompt = !chat->no_generation_prompt};
    in.texts = tokenizer_texts(e->tok, &in.n_texts);
    in.source = chat->template_text ? chat->template_text : template_choose(e->tok, chat->tools != NULL);
    if (!in.source)
        return error_set(err, LAMINA_E_UNSUPPORTED, "%s: has no chat template, and its family's form is not known",
                         e->path);
    in.bytes = strlen(in.source);
    chat_json j = {0};
    lamina_status status = read_chat(chat, &j, err);
    in.messages = j.messages;
    in.tools = j.tools;
    in.documents = j.documents;
    in.extra = j.variables;
    if (status == LAMINA_OK) status = template_render(e->m, &in, text, bytes, err);
    json_decref(j.messages);
    json_decref(j.tools);
    json_decref(j.documents);
    json_decref(j.variables);
    return status;
}

void lamina_text_free(const lamina_engine *e, char *text)
{
    mem_free(e->m, text);
}
