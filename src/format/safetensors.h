/* The safetensors format: 8 bytes of header length, a JSON header, data. Every length and offset is checked. */
#ifndef LAMINA_FORMAT_SAFETENSORS_H
#define LAMINA_FORMAT_SAFETENSORS_H

#include "format/checkpoint.h"

/* Adds the tensors of one file to c (not sealed). */
lamina_status safetensors_read(checkpoint *c, const char *path, const char *name, lamina_error *err);

#endif
