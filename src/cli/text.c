/* Owns: ids and text on their way in and out: lists of ids, whole files, the prompt, tokens to text.
 *
 * Promises: sizes are checked before they are multiplied; a file that is not there, or not a list of ids, is named. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool ids_push(id_list *list, int32_t id)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        if (capacity > SIZE_MAX / sizeof *list->data) return false;
        int32_t *data = realloc(list->data, capacity * sizeof *data);
        if (!data) return false;
        list->data = data;
        list->capacity = capacity;
    }
    list->data[list->n++] = id;
    return true;
}

void ids_free(id_list *list)
{
    free(list->data);
    *list = (id_list){0};
}

const char *ids_parse(const char *text, id_list *list, bool *no_memory)
{
    static const char space[] = " \t\r\n";
    *no_memory = false;
    list->n = 0;
    const char *at = text + strspn(text, space);
    if (*at == '[') at += 1 + strspn(at + 1, space); /* a JSON array is a list as well */
    while (*at && *at != ']') {
        if (*at < '0' || *at > '9') return at;
        char *end;
        errno = 0;
        unsigned long long id = strtoull(at, &end, 10);
        if (errno || id > INT32_MAX || (*end && !strchr(" \t\r\n,]", *end))) return at;
        if (!ids_push(list, (int32_t)id)) {
            *no_memory = true;
            return NULL;
        }
        at = end + strspn(end, space);
        if (*at == ',') {
            at += 1 + strspn(at + 1, space);
            if (!*at || *at == ']' || *at == ',') return at;
        }
    }
    if (*at == ']') at++;
    at += strspn(at, space);
    return *at ? at : NULL;
}

bool text_append(text_buffer *b, const char *data, size_t n)
{
    if (n >= SIZE_MAX / 2 - b->n) return false;
    if (b->n + n + 1 > b->capacity) {
        size_t capacity = b->capacity ? b->capacity : 256;
        while (capacity < b->n + n + 1) capacity *= 2;
        char *bigger = realloc(b->data, capacity);
        if (!bigger) return false;
        b->data = bigger;
        b->capacity = capacity;
    }
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = '\0';
    return true;
}

void text_free(text_buffer *b)
{
    free(b->data);
    *b = (text_buffer){0};
}

int text_read_file(text_buffer *b, const char *path)
{
    bool standard = !strcmp(path, "-");
    FILE *f = standard ? stdin : fopen(path, "rb");
    if (!f) return fail("%s: %s", path, strerror(errno));
    char block[65536];
    int code = text_append(b, "", 0) ? EXIT_DONE : fail("out of memory");
    for (size_t n; code == EXIT_DONE && (n = fread(block, 1, sizeof block, f)) > 0;)
        if (!text_append(b, block, n)) code = fail("%s: out of memory", path);
    if (code == EXIT_DONE && ferror(f)) code = fail("%s: %s", path, strerror(errno));
    if (!standard) fclose(f);
    return code;
}

int whole_file_create(whole_file *f, const char *path)
{
    size_t n = strlen(path) + 32;
    f->temporary = malloc(n);
    if (!f->temporary) return fail("out of memory");
    snprintf(f->temporary, n, "%s.part.%ld", path, (long)getpid());
    f->file = fopen(f->temporary, "wb");
    return f->file ? EXIT_DONE : whole_file_failed(f);
}

int whole_file_failed(const whole_file *f)
{
    return fail("%s: %s", f->temporary, strerror(errno));
}

int whole_file_close(whole_file *f, const char *path, bool good)
{
    int code = EXIT_DONE;
    if (f->file) {
        bool whole = fflush(f->file) == 0 && fsync(fileno(f->file)) == 0;
        if (!whole && (errno == EINVAL || errno == EROFS)) whole = !ferror(f->file); /* a device cannot be synced */
        int error = errno;
        if (fclose(f->file) != 0 && whole) whole = false, error = errno;
        if (good && !whole) code = fail("%s: %s", f->temporary, strerror(error));
        if (good && whole && rename(f->temporary, path) != 0) code = fail("%s: %s", path, strerror(errno));
        if (!good || code != EXIT_DONE) unlink(f->temporary);
    }
    free(f->temporary);
    *f = (whole_file){0};
    return code;
}

int tokenize_text(const work *w, const char *text, size_t n, unsigned flags, id_list *ids)
{
    lamina_error err;
    size_t needed = 0;
    ids->n = 0;
    if (!ids->capacity) { /* about four bytes a token; what is missing is asked for once more */
        ids->data = calloc(n / 3 + 16, sizeof *ids->data);
        if (!ids->data) return fail("out of memory");
        ids->capacity = n / 3 + 16;
    }
    lamina_status status = lamina_tokenize(w->engine, text, n, flags, ids->data, ids->capacity, &needed, &err);
    if (status == LAMINA_OK && needed > ids->capacity) {
        int32_t *data = needed > SIZE_MAX / sizeof *data ? NULL : realloc(ids->data, needed * sizeof *data);
        if (!data) return fail("out of memory");
        ids->data = data;
        ids->capacity = needed;
        status = lamina_tokenize(w->engine, text, n, flags, ids->data, ids->capacity, &needed, &err);
    }
    if (status != LAMINA_OK) return fail_error(&err);
    ids->n = needed;
    return EXIT_DONE;
}

int detokenize_id(const work *w, lamina_detokenizer *state, int32_t id, bool lenient, text_buffer *out)
{
    char small[512], *piece = small;
    size_t n = 0, room = sizeof small;
    lamina_error err;
    lamina_status status = lamina_detokenize(w->engine, state, id, piece, room, &n, &err);
    if (status == LAMINA_E_USAGE && n >= room && n < SIZE_MAX / 2) {
        room = n + 1;
        piece = malloc(room);
        if (!piece) return fail("out of memory");
        status = lamina_detokenize(w->engine, state, id, piece, room, &n, &err);
    }
    int code = EXIT_DONE;
    if (lenient && status == LAMINA_E_USAGE && n == 0)
        code = EXIT_DONE;
    else if (status != LAMINA_OK)
        code = fail_error(&err);
    else if (!text_append(out, piece, n))
        code = fail("out of memory");
    if (piece != small) free(piece);
    return code;
}

static unsigned text_flags(const options *o)
{
    return (o->no_special ? (unsigned)LAMINA_NO_SPECIAL : 0) | (o->plain ? (unsigned)LAMINA_PLAIN : 0);
}

int prompt_ids(const work *w, id_list *ids, id_list *ends)
{
    const options *o = w->options;
    const char *name = commands[o->command].name;
    bool chat = o->messages != NULL;
    if ((o->prompt != NULL) + (o->file != NULL) + (o->ids.n > 0) + chat != 1)
        return fail_usage("%s: expected one of -p, -f%s, found %s", name,
                          o->command == CMD_RUN ? ", --ids and --messages" : " and --ids",
                          o->prompt || o->file || o->ids.n || chat ? "several" : "none");
    if (o->ids.n) {
        for (size_t i = 0; i < o->ids.n; i++) {
            if (w->model.vocab && (uint32_t)o->ids.data[i] >= w->model.vocab)
                return fail_usage("--ids: expected ids below the vocabulary's %u, found %d", w->model.vocab,
                                  o->ids.data[i]);
            if (!ids_push(ids, o->ids.data[i])) return fail("out of memory");
        }
        return EXIT_DONE;
    }
    int code = work_need_tokenizer(w, "give the prompt as --ids");
    if (code != EXIT_DONE) return code;
    text_buffer text = {0};
    unsigned flags = text_flags(o);
    if (chat) {
        code = render_messages(w, &text, ends);
        flags |= LAMINA_NO_SPECIAL; /* the template has written BOS where it belongs */
    } else if (o->file) {
        code = text_read_file(&text, o->file);
    } else if (!text_append(&text, o->prompt, strlen(o->prompt))) {
        code = fail("out of memory");
    }
    if (code == EXIT_DONE) code = tokenize_text(w, text.data, text.n, flags, ids);
    text_free(&text);
    if (code == EXIT_DONE && !ids->n) code = fail_usage("%s: the prompt has no tokens", name);
    return code;
}
