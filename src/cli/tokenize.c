/* Owns: `lamina tokenize` and `lamina detokenize`: text to ids and back, one text or a stream of JSON lines.
 *
 * Promises: only the tokenizer is opened. A line in gives a line out at once, so that another program can hold a
 * conversation with it; a line that is not what it should be ends the command and is named by its number. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static unsigned flags_of(const options *o)
{
    return (o->no_special ? (unsigned)LAMINA_NO_SPECIAL : 0) | (o->plain ? (unsigned)LAMINA_PLAIN : 0);
}

static void print_ids(const id_list *ids, bool brackets)
{
    if (brackets) putchar('[');
    for (size_t i = 0; i < ids->n; i++) printf("%s%d", i ? "," : "", ids->data[i]);
    if (brackets) putchar(']');
    putchar('\n');
}

static json_t *json_of_ids(const id_list *ids)
{
    json_t *array = json_array();
    for (size_t i = 0; array && i < ids->n; i++) json_array_append_new(array, json_integer(ids->data[i]));
    return array;
}

/* All ids of a list as one text. */
static int detokenize_all(const work *w, const id_list *ids, text_buffer *text)
{
    lamina_detokenizer state = {.keep_special = w->options->special && !w->options->no_special};
    text->n = 0;
    int code = text_append(text, "", 0) ? EXIT_DONE : fail("out of memory");
    for (size_t i = 0; i <= ids->n && code == EXIT_DONE; i++)
        code = detokenize_id(w, &state, i < ids->n ? ids->data[i] : -1, false, text);
    return code;
}

/* ---- a line of JSON ---------------------------------------------------------------------------------------------- */

static int tokenize_line(const work *w, const json_t *value, size_t number, id_list *ids, text_buffer *text)
{
    (void)text;
    if (!json_is_string(value)) return fail("standard input, line %zu: expected a JSON string", number);
    int code = tokenize_text(w, json_string_value(value), json_string_length(value), flags_of(w->options), ids);
    if (code == EXIT_DONE) print_ids(ids, true);
    return code;
}

static int detokenize_line(const work *w, const json_t *value, size_t number, id_list *ids, text_buffer *text)
{
    if (!json_is_array(value)) return fail("standard input, line %zu: expected a JSON array of ids", number);
    size_t i;
    const json_t *element;
    ids->n = 0;
    json_array_foreach(value, i, element)
    {
        json_int_t id = json_is_integer(element) ? json_integer_value(element) : -1;
        if (id < 0 || id > INT32_MAX) return fail("standard input, line %zu: element %zu is not a token id", number, i);
        if (!ids_push(ids, (int32_t)id)) return fail("out of memory");
    }
    int code = detokenize_all(w, ids, text);
    if (code != EXIT_DONE) return code;
    json_t *string = json_stringn(text->data, text->n);
    if (!string) return fail("standard input, line %zu: its text is not UTF-8", number);
    bool bad = json_dumpf(string, stdout, JSON_COMPACT | JSON_ENCODE_ANY) != 0;
    json_decref(string);
    putchar('\n');
    return bad && !ferror(stdout) ? fail("out of memory") : EXIT_DONE;
}

typedef int (*line_fn)(const work *w, const json_t *value, size_t number, id_list *ids, text_buffer *text);

static int each_line(const work *w, line_fn handle)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    id_list ids = {0};
    text_buffer text = {0};
    int code = EXIT_DONE;
    for (size_t number = 1; code == EXIT_DONE && !interrupted() && (n = getline(&line, &capacity, stdin)) >= 0;
         number++) {
        size_t length = (size_t)n;
        while (length && (line[length - 1] == '\n' || line[length - 1] == '\r')) length--;
        if (!length) continue;
        json_error_t why;
        json_t *value = json_loadb(line, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        if (!value)
            code = fail("standard input, line %zu: not JSON: %s", number, why.text);
        else
            code = handle(w, value, number, &ids, &text);
        json_decref(value);
        if (code == EXIT_DONE && fflush(stdout) != 0) break; /* finish_stdout() says why */
    }
    free(line);
    ids_free(&ids);
    text_free(&text);
    return code == EXIT_DONE ? finish_stdout() : code;
}

/* ---- one text ---------------------------------------------------------------------------------------------------- */

static int tokenize_once(const work *w)
{
    const options *o = w->options;
    text_buffer text = {0};
    id_list ids = {0};
    int code = EXIT_DONE;
    if (o->prompt && o->file)
        code = fail_usage("tokenize: expected one of -p and -f, found both");
    else if (o->prompt)
        code = text_append(&text, o->prompt, strlen(o->prompt)) ? EXIT_DONE : fail("out of memory");
    else
        code = text_read_file(&text, o->file ? o->file : "-");
    if (code == EXIT_DONE) code = tokenize_text(w, text.data, text.n, flags_of(o), &ids);
    if (code == EXIT_DONE && o->json) {
        json_t *object = json_object();
        if (object) json_object_set_new(object, "ids", json_of_ids(&ids));
        if (object) json_set_bytes(object, "tokens", ids.n);
        code = json_print(object);
    } else if (code == EXIT_DONE) {
        print_ids(&ids, false);
        code = finish_stdout();
    }
    text_free(&text);
    ids_free(&ids);
    return code;
}

/* The ids of --ids, or of a file or standard input. */
static int given_ids(const options *o, id_list *ids)
{
    if (o->ids.n && o->file) return fail_usage("detokenize: expected one of --ids and -f, found both");
    for (size_t i = 0; i < o->ids.n; i++)
        if (!ids_push(ids, o->ids.data[i])) return fail("out of memory");
    if (o->ids.n) return EXIT_DONE;
    text_buffer text = {0};
    const char *path = o->file ? o->file : "-";
    int code = text_read_file(&text, path);
    bool no_memory = false;
    const char *bad = code == EXIT_DONE ? ids_parse(text.data, ids, &no_memory) : NULL;
    if (no_memory) code = fail("out of memory");
    if (bad) code = fail("%s: expected token ids, found '%.20s'", path, bad);
    text_free(&text);
    return code;
}

static int detokenize_once(const work *w)
{
    text_buffer text = {0};
    id_list ids = {0};
    int code = given_ids(w->options, &ids);
    if (code == EXIT_DONE) code = detokenize_all(w, &ids, &text);
    if (code == EXIT_DONE && w->options->json) {
        json_t *object = json_object();
        if (object) json_object_set_new(object, "text", json_stringn(text.data, text.n));
        if (object) json_set_bytes(object, "tokens", ids.n);
        code = json_print(object);
    } else if (code == EXIT_DONE) {
        fwrite(text.data, 1, text.n, stdout);
        if (isatty(STDOUT_FILENO)) putchar('\n');
        code = finish_stdout();
    }
    text_free(&text);
    ids_free(&ids);
    return code;
}

static int with_tokenizer(const options *o, int (*once)(const work *), line_fn line)
{
    if (o->jsonl && (o->prompt || o->file || o->ids.n))
        return fail_usage("--jsonl: expected its lines on standard input, found another input too");
    work w;
    int code = work_open(&w, o, WORK_TOKENIZER_ONLY);
    if (code == EXIT_DONE) code = work_need_tokenizer(&w, "nothing to tokenize with");
    if (code == EXIT_DONE) code = o->jsonl ? each_line(&w, line) : once(&w);
    work_close(&w);
    return code;
}

int tokenize_command(const options *o)
{
    return with_tokenizer(o, tokenize_once, tokenize_line);
}

int detokenize_command(const options *o)
{
    return with_tokenizer(o, detokenize_once, detokenize_line);
}
