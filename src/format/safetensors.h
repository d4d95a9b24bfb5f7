/* The safetensors format: 8 bytes of header length, a JSON header, data. Every length and offset is checked. */
#ifndef LAMINA_FORMAT_SAFETENSORS_H
#define LAMINA_FORMAT_SAFETENSORS_H

#include "format/checkpoint.h"

/* Adds one file and its tensors to c (not sealed). path opens it, name is what c calls it. A dtype that this version
 * does not know is DT_OTHER with its extent. Of more than TENSOR_MAX_DIMS dimensions the slowest are multiplied into
 * one: the number of elements stays right, and no role of a model has that many. */
lamina_status safetensors_read(checkpoint *c, const char *path, const char *name, lamina_error *err);

#endif
