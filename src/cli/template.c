/* Owns: `lamina template`, and conversations on their way to a prompt.
 *
 * Promises: the prompt comes out byte for byte, with nothing added, a terminal included, so that it can be compared and
 * fed back. Only the tokenizer is opened. */
#include "cli.h"

#include <string.h>

/* A file whose name may be NULL; the text is then NULL. Standard input can be read once. */
static int read_part(const char *option, const char *path, bool *standard, text_buffer *text, const char **out)
{
    if (!path) return EXIT_DONE;
    if (!strcmp(path, "-") && *standard)
        return fail_usage("%s: standard input is read for another option already", option);
    *standard = *standard || !strcmp(path, "-");
    int code = text_read_file(text, path);
    *out = text->data;
    if (code == EXIT_DONE && memchr(text->data, 0, text->n)) code = fail("%s: holds a zero byte", path);
    return code;
}

int render_messages(const work *w, text_buffer *out)
{
    const options *o = w->options;
    lamina_chat_options chat = {.no_generation_prompt = o->no_generation_prompt};
    const struct {
        const char *option, *path, **text;
    } parts[] = {
        {"--messages", o->messages, &chat.messages},
        {"--tools", o->tools, &chat.tools},
        {"--variables", o->variables, &chat.variables},
        {"--template", o->template_file, &chat.template_text},
    };
    enum { PARTS = sizeof parts / sizeof *parts };
    text_buffer texts[PARTS] = {{0}};
    bool standard = false;
    int code = EXIT_DONE;
    for (size_t i = 0; i < PARTS && code == EXIT_DONE; i++)
        code = read_part(parts[i].option, parts[i].path, &standard, &texts[i], parts[i].text);
    char *text = NULL;
    size_t n = 0;
    lamina_error err;
    if (code == EXIT_DONE && lamina_render_chat(w->engine, &chat, &text, &n, &err) != LAMINA_OK)
        code = fail_error(&err);
    if (code == EXIT_DONE && !text_append(out, text, n)) code = fail("out of memory");
    lamina_text_free(w->engine, text);
    for (size_t i = 0; i < PARTS; i++) text_free(&texts[i]);
    return code;
}

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
    if (code == EXIT_DONE) code = render_messages(&w, &text);
    if (code == EXIT_DONE) code = print_text(o, &text);
    text_free(&text);
    work_close(&w);
    return code;
}
