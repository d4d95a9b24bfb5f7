/* The GGUF format, versions 2 and 3: metadata and a directory of tensors. Every count, length and offset is checked. */
#ifndef LAMINA_FORMAT_GGUF_H
#define LAMINA_FORMAT_GGUF_H

#include "format/checkpoint.h"

typedef struct gguf_string {
    const char *data;
    uint64_t bytes;
} gguf_string; /* not NUL-terminated */

/* Opens path as a checkpoint (CHECKPOINT_GGUF, sealed), with config made of the metadata. Of a split file (split.count)
 * path is the first part; the others stand beside it. Metadata are the first part's. A tensor of a type that this
 * version does not know is DT_OTHER with foreign_type and 0 bytes: only where it begins is checked. The metadata are
 * for the tokenizer: once that is made, c->metadata may be given to gguf_free() and set to NULL. */
lamina_status gguf_open(memory *m, const char *path, checkpoint **out, lamina_error *err);
void gguf_free(gguf *g);

/* Metadata. false: absent or of another type. Numbers of any width are converted when they fit. */
bool gguf_u64(const gguf *g, const char *key, uint64_t *v);
bool gguf_f64(const gguf *g, const char *key, double *v);
bool gguf_bool(const gguf *g, const char *key, bool *v);
bool gguf_text(const gguf *g, const char *key, gguf_string *v);
/* Arrays: the number of elements; then one by one in constant time. */
bool gguf_text_array(const gguf *g, const char *key, uint64_t *n);
gguf_string gguf_text_at(const gguf *g, const char *key, uint64_t i); /* {NULL, 0} outside */
bool gguf_int_array(const gguf *g, const char *key, uint64_t *n);
int64_t gguf_int_at(const gguf *g, const char *key, uint64_t i); /* 0 outside */
bool gguf_float_array(const gguf *g, const char *key, uint64_t *n);
float gguf_float_at(const gguf *g, const char *key, uint64_t i);

/* Entry i in the order of keys; {NULL, 0} outside. Keys are printable ASCII. */
gguf_string gguf_key(const gguf *g, size_t i);
/* The value as JSON: a new reference. NULL with *err set: text that is not UTF-8, a number that JSON has not, an array
 * of more than 65536 elements, no memory. */
json_t *gguf_json(const gguf *g, gguf_string key, const char *path, lamina_error *err);

/* Makes c->config of c->metadata and the directory of tensors (sealed). Keys of the architecture that have no name in
 * Hugging Face's dialect are passed on under their own, so that what changes the mathematics can be refused. */
lamina_status gguf_config(checkpoint *c, lamina_error *err);

#endif
