/* Checkpoints as torch.save() writes them: a zip of stored entries with one pickle, or, before PyTorch 1.6, pickles
 * followed by the storages. The pickle is read, never run; tensors stay where they are in the file. */
#ifndef LAMINA_FORMAT_PYTORCH_H
#define LAMINA_FORMAT_PYTORCH_H

#include "format/checkpoint.h"

/* Adds one file and its tensors to c (not sealed). path opens it, name is what c calls it. Expected is a state dict: a
 * dict of names to tensors and parameters, nothing else. Tensors may share a storage (tied weights), see
 * checkpoint.shares. Of more than TENSOR_MAX_DIMS dimensions the slowest are multiplied into one. LAMINA_E_UNSUPPORTED:
 * a name or an opcode that no state dict has, rows that do not follow one another, a big-endian file, a tar. */
lamina_status pytorch_read(checkpoint *c, const char *path, const char *name, lamina_error *err);

#endif
