/* Text to token ids and back. A tokenizer is read from tokenizer.json, from a GGUF vocabulary or from the compact form
 * that a store carries; after that it is immutable and may be used by many threads. */
#ifndef LAMINA_FORMAT_TOKENIZER_H
#define LAMINA_FORMAT_TOKENIZER_H

#include "format/checkpoint.h"

typedef struct tokenizer tokenizer;

/* Finds and reads the tokenizer of a checkpoint. A checkpoint without a readable one is not an error here:
 * *out = NULL and *err says why (status LAMINA_OK is returned). */
lamina_status tokenizer_of(memory *m, const checkpoint *c, tokenizer **out, lamina_error *err);
/* From the files in a folder (tokenizer.json, tokenizer_config.json): all that tokenize needs. */
lamina_status tokenizer_from_folder(memory *m, const char *path, tokenizer **out, lamina_error *err);
lamina_status tokenizer_from_gguf(memory *m, const gguf *g, tokenizer **out, lamina_error *err);
/* The compact form: loads without parsing JSON. `name` is for the error's text. */
lamina_status tokenizer_load(memory *m, const void *data, size_t bytes, const char *name, tokenizer **out,
                             lamina_error *err);
/* *data is the caller's: mem_free(). The same tokenizer gives the same bytes. */
lamina_status tokenizer_save(memory *m, const tokenizer *t, void **data, size_t *bytes, lamina_error *err);
void tokenizer_free(tokenizer *t); /* NULL is allowed */

uint32_t tokenizer_vocab(const tokenizer *t); /* ids are below this */
int32_t tokenizer_bos(const tokenizer *t);    /* -1: none */
int32_t tokenizer_eos(const tokenizer *t);
const char *tokenizer_chat_template(const tokenizer *t); /* the default one; NULL: none */

/* Texts for chat templates, by name: spellings ("bos_token"), templates ("chat_template", "chat_template.tool_use"),
 * "tokenizer_class", "model_type" (tokenizer_chat.c). They live as long as the tokenizer. */
typedef struct tokenizer_text {
    const char *name, *text;
} tokenizer_text;
const tokenizer_text *tokenizer_texts(const tokenizer *t, uint32_t *n);
const char *tokenizer_find_text(const tokenizer *t, const char *name); /* NULL: none */

/* flags: LAMINA_NO_SPECIAL, LAMINA_PLAIN. *ids is the caller's: mem_free(). text may hold any bytes: what is not
 * UTF-8 is treated as U+FFFD. */
lamina_status tokenizer_encode(const tokenizer *t, memory *m, const char *text, size_t bytes, unsigned flags,
                               int32_t **ids, size_t *n_ids, lamina_error *err);
/* As lamina_detokenize(). */
lamina_status tokenizer_decode(const tokenizer *t, lamina_detokenizer *state, int32_t id, char *out, size_t capacity,
                               size_t *bytes, lamina_error *err);

#endif
