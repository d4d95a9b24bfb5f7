/* The GGUF format, versions 2 and 3: metadata and a directory of tensors. Every count, length and offset is checked. */
#ifndef LAMINA_FORMAT_GGUF_H
#define LAMINA_FORMAT_GGUF_H

#include "format/checkpoint.h"

typedef struct gguf_string { const char *data; uint64_t bytes; } gguf_string; /* not NUL-terminated */

/* Opens path as a checkpoint (CHECKPOINT_GGUF, sealed), with config made of the metadata. */
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
int64_t gguf_int_at(const gguf *g, const char *key, uint64_t i);      /* 0 outside */
bool gguf_float_array(const gguf *g, const char *key, uint64_t *n);
float gguf_float_at(const gguf *g, const char *key, uint64_t i);

#endif
