/* A cursor over JSON text: for files of many megabytes of which a tree would cost twenty times their size.
 *
 * A document is checked whole by jp_open (grammar, UTF-8, escapes, depth); cursors then walk it any number of times,
 * cheaply copied, each standing before a value. Strings are handed out in place, or, when they hold escapes, from the
 * document's one scratch buffer: such a string lives until the next one is read. */
#ifndef LAMINA_FORMAT_JSONPULL_H
#define LAMINA_FORMAT_JSONPULL_H

#include "base/memory.h"

typedef enum jp_kind { JP_OBJECT, JP_ARRAY, JP_STRING, JP_NUMBER, JP_BOOL, JP_NULL, JP_BAD } jp_kind;

typedef struct jp_document {
    memory *m;
    mem_tag tag;
    const char *name; /* of the file, for errors */
    const char *text;
    size_t bytes;
    char *scratch;
    size_t scratch_bytes;
} jp_document;

typedef struct jp {
    jp_document *document;
    size_t at;  /* of the value */
    bool first; /* inside a container, before its first member */
} jp;

typedef struct jp_text {
    const char *data;
    size_t bytes;
} jp_text; /* UTF-8, not NUL-terminated */

enum { JP_MAX_DEPTH = 96 };

/* text [bytes] must outlive the document. LAMINA_E_FORMAT names the byte offset of what is wrong. */
lamina_status jp_open(memory *m, mem_tag tag, const char *name, const char *text, size_t bytes, jp_document *document,
                      jp *root, lamina_error *err);
void jp_close(jp_document *document);

jp_kind jp_peek(const jp *p); /* of the value the cursor stands before */

/* Each reads the value before the cursor and moves behind it. LAMINA_E_FORMAT if it is of another kind. */
lamina_status jp_string(jp *p, jp_text *text, lamina_error *err);
lamina_status jp_integer(jp *p, int64_t *value, lamina_error *err); /* no fraction, no exponent, 64 bits */
lamina_status jp_number(jp *p, double *value, lamina_error *err);
lamina_status jp_bool(jp *p, bool *value, lamina_error *err);
void jp_skip(jp *p);

/* Enters an object or array: *inside stands before the first member; p does not move. */
lamina_status jp_enter(const jp *p, jp_kind kind, jp *inside, lamina_error *err);
/* Next member of the container that `inside` walks: true when there is one, the cursor then before its value (and *key
 * set, in an object). The value must be read or skipped before the next call. *key dies with the next string. */
lamina_status jp_next_key(jp *inside, bool *more, jp_text *key, lamina_error *err);
bool jp_next_item(jp *inside);

/* A member of the object before p by name; the first of that name. *found is false when there is none or it is null,
 * or p is not an object. */
lamina_status jp_member(const jp *p, const char *key, bool *found, jp *value, lamina_error *err);

bool jp_is(jp_text text, const char *word);

#endif
