/* Folders as Hugging Face's transformers writes them: config.json, generation_config.json, safetensors or
 * PyTorch's files. */
#ifndef LAMINA_FORMAT_HUGGINGFACE_H
#define LAMINA_FORMAT_HUGGINGFACE_H

#include "format/checkpoint.h"

/* Opens a folder, sealed. As transformers does, model.safetensors is preferred to an index, both to pytorch_model.bin
 * and that to its index; without any of them a single file or index of another name will do. Other copies of the
 * weights beside them (consolidated.safetensors) are not read. A tensor that the index lists comes from the shard it
 * names; one that it does not list comes from where it stands. */
lamina_status huggingface_open(memory *m, const char *folder, checkpoint **out, lamina_error *err);
/* A config.json alone: CHECKPOINT_CONFIG. */
lamina_status huggingface_open_config(memory *m, const char *path, checkpoint **out, lamina_error *err);

#endif
