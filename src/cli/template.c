/* Owns: `lamina template`, and conversations on their way to a prompt: the files of the options, the rendering, and the
 * tokens that end an answer.
 *
 * Promises: the prompt comes out byte for byte, with nothing added, a terminal included, so that it can be compared and
 * fed back. `lamina template` opens only the tokenizer. */
#include "cli.h"

#include <string.h>

/* ---- the files --------------------------------------------------------------------------------------------------- */

/* A file whose name may be NULL; the text is then NULL. Standard input can be read once. */
static int read_part(const char *option, const char *path, const char **standard, text_buffer *text)
{
    if (!path) return EXIT_DONE;
    bool is_standard = !strcmp(path, "-");
    if (is_standard && *standard) return fail_usage("%s: standard input is read for %s already", option, *standard);
    if (is_standard) *standard = option;
    int code = text_read_file(text, path);
    if (code == EXIT_DONE && memchr(text->data, 0, text->n)) code = fail("%s: holds a zero byte", path);
    return code;
}

int chat_files_read(const options *o, const char *standard, chat_files *f)
{
    const struct {
        const char *option, *path;
        text_buffer *text;
    } parts[] = {
        {"--messages", o->messages, &f->messages},
        {"--tools", o->tools, &f->tools},
        {"--variables", o->variables, &f->variables},
        {"--template", o->template_file, &f->template_text},
    };
    int code = EXIT_DONE;
    for (size_t i = 0; i < sizeof parts / sizeof *parts && code == EXIT_DONE; i++)
        code = read_part(parts[i].option, parts[i].path, &standard, parts[i].text);
    return code;
}

void chat_files_free(chat_files *f)
{
    text_free(&f->messages);
    text_free(&f->tools);
    text_free(&f->variables);
    text_free(&f->template_text);
}

/* ---- rendering --------------------------------------------------------------------------------------------------- */

lamina_status chat_render(const work *w, const chat_files *f, const char *messages, bool generation_prompt,
                          text_buffer *out, lamina_error *err)
{
    lamina_chat_options chat = {.messages = messages,
                                .tools = f->tools.data,
                                .variables = f->variables.data,
                                .template_text = f->template_text.data,
                                .no_generation_prompt = !generation_prompt};
    char *text = NULL;
    size_t n = 0;
    lamina_status status = lamina_render_chat(w->engine, &chat, &text, &n, err);
    if (status == LAMINA_OK && !text_append(out, text, n)) {
        status = err->status = LAMINA_E_MEMORY;
        snprintf(err->text, sizeof err->text, "out of memory");
    }
    lamina_text_free(w->engine, text);
    return status;
}

int render_messages(const work *w, text_buffer *out, id_list *ends)
{
    lamina_error err;
    chat_files f = {0};
    int code = chat_files_read(w->options, NULL, &f);
    if (code == EXIT_DONE &&
        chat_render(w, &f, f.messages.data, !w->options->no_generation_prompt, out, &err) != LAMINA_OK)
        code = fail_error(&err);
    if (code == EXIT_DONE && ends) code = chat_ends(w, &f, ends);
    chat_files_free(&f);
    return code;
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static const char probe_word[] = "xyzzy";
static const char probe_one[] = "[{\"role\":\"user\",\"content\":\"?\"},"
                                "{\"role\":\"assistant\",\"content\":\"xyzzy\"}]";
static const char probe_two[] = "[{\"role\":\"user\",\"content\":\"?\"},"
                                "{\"role\":\"assistant\",\"content\":\"xyzzy\"},"
                                "{\"role\":\"user\",\"content\":\"?\"}]";

/* One token that is no text: hidden from readers, or spelled <like this> all in one. */
static int is_control(const work *w, int32_t id, bool *yes)
{
    text_buffer shown = {0}, whole = {0};
    lamina_detokenizer hiding = {.begun = true}, keeping = {.begun = true, .keep_special = true};
    int code = detokenize_id(w, &hiding, id, true, &shown);
    if (code == EXIT_DONE) code = detokenize_id(w, &keeping, id, true, &whole);
    if (code == EXIT_DONE)
        *yes = whole.n && !keeping.n_pending && !keeping.space &&
               (!shown.n || (whole.n > 2 && whole.data[0] == '<' && whole.data[whole.n - 1] == '>'));
    text_free(&shown);
    text_free(&whole);
    return code;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i]) return false;
    return true;
}

/* The control token that follows the last probe word of a rendered conversation, with nothing but white space between
 * them; *end stays where there is none. */
static int end_after_probe(const work *w, const text_buffer *rendered, int32_t *end)
{
    enum { PROBE = sizeof probe_word - 1 };
    id_list ids = {0};
    text_buffer text = {0}; /* spelled so far, from the last probe word on once that has been seen */
    lamina_detokenizer d = {.keep_special = true};
    bool seen = false;
    int32_t found = -1;
    int code = tokenize_text(w, rendered->data, rendered->n, LAMINA_NO_SPECIAL, &ids);
    for (size_t i = 0; i < ids.n && code == EXIT_DONE; i++) {
        bool control = false;
        if (seen && found < 0 && is_blank(text.data, text.n)) code = is_control(w, ids.data[i], &control);
        if (control) found = ids.data[i];
        if (code == EXIT_DONE) code = detokenize_id(w, &d, ids.data[i], true, &text);
        const char *at = text.n ? memmem(text.data, text.n, probe_word, PROBE) : NULL;
        if (!at) continue;
        seen = true;
        found = -1;
        size_t rest = text.n - (size_t)(at - text.data) - PROBE;
        memmove(text.data, at + PROBE, rest);
        text.n = rest;
    }
    if (found >= 0) *end = found;
    ids_free(&ids);
    text_free(&text);
    return code;
}

int chat_ends(const work *w, const chat_files *f, id_list *ends)
{
    const char *const probes[] = {probe_one, probe_two};
    int32_t end = -1;
    int code = EXIT_DONE;
    for (size_t i = 0; i < 2 && end < 0 && code == EXIT_DONE; i++) {
        lamina_error err;
        text_buffer text = {0};
        lamina_status status = chat_render(w, f, probes[i], false, &text, &err);
        if (status == LAMINA_OK)
            code = end_after_probe(w, &text, &end);
        else if (status == LAMINA_E_UNSUPPORTED)
            code = fail("%s; --template FILE gives one", err.text);
        else if (status == LAMINA_E_MEMORY)
            code = fail_error(&err);
        text_free(&text);
    }
    if (code == EXIT_DONE && end >= 0 && !ids_push(ends, end)) code = fail("out of memory");
    return code;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int print_text(const options *o, const text_buffer *text)
{
    if (!o->json) {
        fwrite(text->data, 1, text->n, stdout);
        return finish_stdout();
    }
    json_t *object = json_object();
    if (object) json_object_set_new(object, "text", json_stringn(text->data, text->n));
    return json_print(object);
}

int template_command(const options *o)
{
    if (!o->messages) return fail_usage("template: expected --messages FILE, found none");
    work w;
    text_buffer text = {0};
    int code = work_open(&w, o, WORK_TOKENIZER_ONLY);
    if (code == EXIT_DONE) code = work_need_tokenizer(&w, "nothing to render with");
    if (code == EXIT_DONE) code = render_messages(&w, &text, NULL);
    if (code == EXIT_DONE) code = print_text(o, &text);
    text_free(&text);
    work_close(&w);
    return code;
}
