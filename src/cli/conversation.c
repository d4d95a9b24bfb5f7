/* Owns: the messages of a conversation and the tokens that were said.
 *
 * Promises: the messages are what --messages takes and what the template sees, nothing beside them. What the session
 * computed is kept wherever the conversation still says the same.
 *
 * Which tokens can be kept. The conversation is rendered and tokenized whole each time, so that the template decides
 * what the model sees (some drop earlier reasoning). The ids that come out need not be those that were generated: a
 * model may spell a word in pieces that the tokenizer would have joined. Common ids alone would then end at the first
 * such word, and all after it would be computed again, to say the same. So both lists are spelled out by the same
 * detokenizer, and the longest text that both spell, up to a place where a token ends in both, is taken as said: the
 * tokens before it stay as they were fed or generated, those behind it are the prompt's. An id that spells nothing ends
 * the likeness, since text cannot tell that it is there. */
#include "conversation.h"

#include <stdlib.h>
#include <string.h>

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static const char *role_of(const json_t *messages, size_t i)
{
    const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
    return role ? role : "";
}

static json_t *new_message(const char *role, const char *text, size_t n)
{
    json_t *message = json_object(), *content = json_stringn(text, n);
    bool good = message && content && json_object_set(message, "content", content) == 0 &&
                json_object_set_new(message, "role", json_string(role)) == 0;
    json_decref(content);
    if (good) return message;
    json_decref(message);
    return NULL;
}

static int push(json_t *messages, const char *role, const char *text, size_t n)
{
    json_t *valid = json_stringn(text, n);
    if (!valid) return fail("the text of a message: expected UTF-8");
    json_decref(valid);
    json_t *message = new_message(role, text, n);
    return message && json_array_append_new(messages, message) == 0 ? EXIT_DONE : fail("out of memory");
}

static void replace_messages(conversation *c, json_t *messages)
{
    json_decref(c->messages);
    json_decref(c->unanswered);
    c->messages = messages;
    c->unanswered = NULL;
}

/* An array of objects, each with a role. NULL after printing what was found. */
static json_t *parse_messages(const char *name, const char *text, size_t n)
{
    json_error_t why;
    json_t *messages = json_loadb(text, n, JSON_ALLOW_NUL, &why);
    if (!messages) {
        fail("%s: line %d, column %d: expected JSON, found: %s", name, why.line, why.column, why.text);
        return NULL;
    }
    bool good = json_is_array(messages);
    if (!good) fail("%s: expected an array of messages", name);
    for (size_t i = 0; good && i < json_array_size(messages); i++) {
        good = json_is_string(json_object_get(json_array_get(messages, i), "role"));
        if (!good) fail("%s: message %zu: expected an object with a role", name, i);
    }
    if (good) return messages;
    json_decref(messages);
    return NULL;
}

int conversation_system(conversation *c, const char *text, size_t n)
{
    json_t *messages = json_array();
    if (!messages) return fail("out of memory");
    int code = n ? push(messages, "system", text, n) : EXIT_DONE;
    if (code == EXIT_DONE)
        replace_messages(c, messages);
    else
        json_decref(messages);
    return code;
}

int conversation_reset(conversation *c)
{
    json_t *messages = json_array();
    if (!messages) return fail("out of memory");
    if (!strcmp(role_of(c->messages, 0), "system") &&
        json_array_append(messages, json_array_get(c->messages, 0)) != 0) {
        json_decref(messages);
        return fail("out of memory");
    }
    replace_messages(c, messages);
    return EXIT_DONE;
}

int conversation_load(conversation *c, const char *path)
{
    text_buffer text = {0};
    int code = text_read_file(&text, path);
    if (code == EXIT_DONE) {
        json_t *messages = parse_messages(path, text.data, text.n);
        if (messages)
            replace_messages(c, messages);
        else
            code = EXIT_FAILED;
    }
    text_free(&text);
    return code;
}

int conversation_save(const conversation *c, const char *path)
{
    char *text = json_dumps(c->messages, JSON_INDENT(2));
    if (!text) return fail("out of memory");
    whole_file f = {0};
    int code = whole_file_create(&f, path);
    size_t n = strlen(text);
    text[n] = '\n'; /* in the place of the final zero: n + 1 bytes are written */
    if (code == EXIT_DONE && fwrite(text, 1, n + 1, f.file) != n + 1) code = whole_file_failed(&f);
    int closed = whole_file_close(&f, path, code == EXIT_DONE);
    free(text);
    return code == EXIT_DONE ? closed : code;
}

int conversation_ask(conversation *c, const char *text, size_t n)
{
    return push(c->messages, "user", text, n);
}

int conversation_answer(conversation *c, const char *text, size_t n)
{
    json_decref(c->unanswered);
    c->unanswered = NULL;
    return push(c->messages, "assistant", text, n);
}

static size_t last_question(const conversation *c)
{
    size_t i = json_array_size(c->messages);
    while (i && strcmp(role_of(c->messages, i - 1), "user")) i--;
    return i;
}

bool conversation_undo(conversation *c)
{
    size_t at = last_question(c);
    if (!at) return false;
    while (json_array_size(c->messages) >= at) json_array_remove(c->messages, json_array_size(c->messages) - 1);
    return true;
}

void conversation_take_back(conversation *c)
{
    size_t n = json_array_size(c->messages);
    if (!n) return;
    json_decref(c->unanswered);
    c->unanswered = json_incref(json_array_get(c->messages, n - 1));
    json_array_remove(c->messages, n - 1);
}

bool conversation_again(conversation *c)
{
    if (c->unanswered) {
        if (json_array_append(c->messages, c->unanswered) != 0) return false;
        json_decref(c->unanswered);
        c->unanswered = NULL;
        return true;
    }
    size_t at = last_question(c);
    if (!at) return false;
    while (json_array_size(c->messages) > at) json_array_remove(c->messages, json_array_size(c->messages) - 1);
    return true;
}

bool conversation_waits(const conversation *c)
{
    size_t n = json_array_size(c->messages);
    if (!n) return false;
    const char *role = role_of(c->messages, n - 1);
    return strcmp(role, "assistant") && strcmp(role, "system");
}

int conversation_open(conversation *c, work *w)
{
    const options *o = w->options;
    *c = (conversation){.w = w};
    c->messages = json_array();
    int code = c->messages ? chat_files_read(o, "the conversation", &c->files) : fail("out of memory");
    if (code == EXIT_DONE && o->messages) {
        json_t *messages = parse_messages("--messages", c->files.messages.data, c->files.messages.n);
        if (!messages) return EXIT_FAILED;
        replace_messages(c, messages);
        if (o->system && !strcmp(role_of(messages, 0), "system"))
            return fail_usage("--system: the conversation of --messages has a system message already");
    }
    if (code == EXIT_DONE && o->system) { /* before what --messages gave */
        json_t *system = new_message("system", o->system, strlen(o->system));
        if (!system) return fail("--system: expected UTF-8");
        if (json_array_insert_new(c->messages, 0, system) != 0) return fail("out of memory");
    }
    return code == EXIT_DONE ? chat_ends(w, &c->files, &c->ends) : code;
}

void conversation_close(conversation *c)
{
    chat_files_free(&c->files);
    json_decref(c->messages);
    json_decref(c->unanswered);
    ids_free(&c->said);
    ids_free(&c->ends);
    *c = (conversation){0};
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

int conversation_prompt(const conversation *c, id_list *ids)
{
    char *messages = json_dumps(c->messages, JSON_COMPACT);
    if (!messages) return fail("out of memory");
    text_buffer text = {0};
    lamina_error err;
    int code = EXIT_DONE;
    if (chat_render(c->w, &c->files, messages, true, &text, &err) != LAMINA_OK) code = fail_error(&err);
    if (code == EXIT_DONE) code = tokenize_text(c->w, text.data, text.n, LAMINA_NO_SPECIAL, ids);
    if (code == EXIT_DONE && !ids->n) code = fail("the template makes a prompt without tokens of the conversation");
    text_free(&text);
    free(messages);
    return code;
}

/* Ids spelled out, special tokens too. */
typedef struct spelling {
    text_buffer text;
    struct place {
        size_t end;   /* bytes spelled after this id */
        bool whole;   /* nothing waits for the next id */
        bool nothing; /* it is whole and spelled nothing */
    } * at;           /* [ids] */
} spelling;

static int spell(const work *w, const id_list *ids, spelling *s)
{
    lamina_detokenizer d = {.keep_special = true};
    s->at = calloc(ids->n ? ids->n : 1, sizeof *s->at);
    if (!s->at) return fail("out of memory");
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = s->text.n;
        int code = detokenize_id(w, &d, ids->data[i], true, &s->text);
        if (code != EXIT_DONE) return code;
        bool whole = !d.n_pending && !d.space;
        s->at[i] = (struct place){s->text.n, whole, whole && s->text.n == before};
    }
    return EXIT_DONE;
}

static void spelling_free(spelling *s)
{
    text_free(&s->text);
    free(s->at);
}

/* From ids that are the same on: the last place where a token ends in both and the same text has been spelled. */
static overlap same_text(const spelling *a, size_t n_a, const spelling *b, size_t n_b, size_t same_ids)
{
    overlap best = {same_ids, same_ids};
    size_t same = 0, i = same_ids, j = same_ids;
    while (same < a->text.n && same < b->text.n && a->text.data[same] == b->text.data[same]) same++;
    while (i < n_a && j < n_b) {
        const struct place *p = &a->at[i], *q = &b->at[j];
        if (p->end > same || q->end > same || p->nothing || q->nothing) break;
        if (p->end == q->end && p->whole && q->whole) best = (overlap){i + 1, j + 1};
        bool both = p->end == q->end, first = p->end < q->end;
        if (both || first) i++;
        if (both || !first) j++;
    }
    return best;
}

int conversation_overlap(const conversation *c, const id_list *prompt, overlap *o)
{
    size_t n = prompt->n - 1, same = 0; /* the last one is always fed: its logits are wanted */
    while (same < n && same < c->said.n && c->said.data[same] == prompt->data[same]) same++;
    *o = (overlap){same, same};
    if (same == n || same == c->said.n) return EXIT_DONE;
    spelling said = {0}, wanted = {0};
    int code = spell(c->w, &c->said, &said);
    if (code == EXIT_DONE) code = spell(c->w, prompt, &wanted);
    if (code == EXIT_DONE) *o = same_text(&said, c->said.n, &wanted, n, same);
    spelling_free(&said);
    spelling_free(&wanted);
    return code;
}

int conversation_said(conversation *c, const generation *g, size_t fed)
{
    const int32_t *tokens = lamina_session_tokens(c->w->session);
    size_t n = lamina_session_length(c->w->session);
    bool good = true;
    c->said.n = 0;
    for (size_t i = 0; i < n && good; i++) good = ids_push(&c->said, tokens[i]);
    for (size_t i = fed; i < g->n_said && good; i++) good = ids_push(&c->said, g->ids.data[i]);
    return good ? EXIT_DONE : fail("out of memory");
}
