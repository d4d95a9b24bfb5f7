/* Chat templates: a bounded interpreter of the Jinja that transformers accepts in them.
 *
 * Rendering is what transformers does: an immutable sandbox with trim_blocks and lstrip_blocks, loop controls, the
 * `generation` tag, tojson, raise_exception, strftime_now, dict and namespace as it defines them. What it refuses is
 * refused here. No file is opened. Limits hold whatever the template says: TEMPLATE_MAX_... */
#ifndef LAMINA_FORMAT_TEMPLATE_H
#define LAMINA_FORMAT_TEMPLATE_H

#include <jansson.h>
#include <time.h>

#include "base/memory.h"
#include "format/tokenizer.h"

enum {
    TEMPLATE_MAX_SOURCE = 1 << 20,  /* bytes of a template */
    TEMPLATE_MAX_OUTPUT = 64 << 20, /* bytes rendered, and of any one string on the way */
    TEMPLATE_MAX_VALUES = 256 << 20 /* bytes of all values made on the way */
};

typedef struct template_input {
    const char *source; /* the template: UTF-8, [bytes] */
    size_t bytes;
    const json_t *messages;  /* an array of objects */
    const json_t *tools;     /* an array of objects; NULL: none */
    const json_t *documents; /* the same */
    const json_t *extra;     /* an object: further variables, which win over special tokens; NULL: none */
    bool add_generation_prompt;
    const tokenizer_text *texts; /* [n_texts]: those whose names end in _token become variables */
    uint32_t n_texts;
    const struct tm *now; /* for strftime_now; NULL: the local time */
} template_input;

/* Renders: *text is the caller's, mem_free(), [*bytes] and a NUL. LAMINA_E_FORMAT: one line that begins with "chat
 * template, line N: "; also when the template itself raises an exception. */
lamina_status template_render(memory *m, const template_input *in, char **text, size_t *bytes, lamina_error *err);

/* The template for a model: its own (the one for tools, if it has one and tools are given) or the known form of its
 * family. NULL: none. The text lives as long as the tokenizer. */
const char *template_choose(const tokenizer *t, bool tools);

/* The template that models without one were trained with; NULL: not known. template_known.c */
const char *template_known(const tokenizer *t);

#endif
