/* A bounded reader of Python pickles, as far as a dictionary of tensors needs them. Nothing is executed: a name is a
 * number that the client gives it, a call is a question to the client, and what the client does not know is refused. */
#ifndef LAMINA_FORMAT_PICKLE_H
#define LAMINA_FORMAT_PICKLE_H

#include "base/memory.h"
#include "base/os.h"

typedef enum pickle_kind {
    PICKLE_MARK, /* on the stack only */
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_LONG,  /* an integer of more than 64 bits: its bytes, little-endian two's complement */
    PICKLE_FLOAT, /* its value is of no use here */
    PICKLE_TEXT,
    PICKLE_BYTES,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_NAME,  /* module.name */
    PICKLE_OBJECT /* made by the client */
} pickle_kind;

typedef struct pickle_list pickle_list;
typedef struct pickle_value {
    pickle_kind kind;
    uint32_t n; /* TEXT, BYTES, LONG: bytes; TUPLE: items; NAME: the client's number; OBJECT: the client's kind */
    union {
        int64_t number;                   /* INT, BOOL */
        const char *text;                 /* TEXT, BYTES, LONG: NUL-terminated beyond its bytes */
        const struct pickle_value *items; /* TUPLE */
        pickle_list *list;                /* LIST; DICT: keys and values in turn, as they came */
        void *object;                     /* OBJECT */
    };
} pickle_value;

struct pickle_list {
    pickle_value *items;
    size_t n, room;
};

typedef struct pickle pickle;

/* What gives a pickle its meaning. Each fills *out or fails with a text that need not name the file or the place. */
typedef struct pickle_client {
    void *user;
    lamina_status (*name)(void *user, const char *module, const char *name, uint32_t *number, lamina_error *err);
    lamina_status (*call)(void *user, pickle *p, const pickle_value *callee,
                          const pickle_value *arguments /* a TUPLE */, pickle_value *out, lamina_error *err);
    lamina_status (*persistent)(void *user, pickle *p, const pickle_value *id, pickle_value *out, lamina_error *err);
    lamina_status (*set_state)(void *user, const pickle_value *object, const pickle_value *state, lamina_error *err);
} pickle_client;

/* Reads pickles one after the other out of bytes [begin, end) of a file. path is for errors. */
lamina_status pickle_new(memory *m, const os_file *file, const char *path, uint64_t begin, uint64_t end,
                         const pickle_client *client, pickle **out, lamina_error *err);
void pickle_free(pickle *p); /* with all values; NULL is allowed */
/* The next pickle. Its value lives until pickle_free(). */
lamina_status pickle_load(pickle *p, pickle_value *out, lamina_error *err);
uint64_t pickle_at(const pickle *p); /* offset in the file behind the last pickle */

/* For clients: the reader's account of memory, which has an end; zeroed memory of it. */
lamina_status pickle_count(pickle *p, size_t bytes, lamina_error *err);
void *pickle_take(pickle *p, size_t bytes, lamina_error *err);
lamina_status pickle_push_item(pickle *p, pickle_list *list, const pickle_value *v, lamina_error *err);
const char *pickle_kind_name(pickle_kind kind); /* "a tuple" */

#endif
