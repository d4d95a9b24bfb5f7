/* A checkpoint: what a model on disk consists of, whoever wrote it. Hugging Face folders, GGUF files and lamina's own
 * stores all become this: files, a directory of tensors that points into them, a configuration, a tokenizer's source.
 * No tensor data are read. */
#ifndef LAMINA_FORMAT_CHECKPOINT_H
#define LAMINA_FORMAT_CHECKPOINT_H

#include <jansson.h>

#include "base/dtype.h"
#include "base/memory.h"

typedef enum checkpoint_kind { CHECKPOINT_HF, CHECKPOINT_GGUF, CHECKPOINT_STORE, CHECKPOINT_CONFIG } checkpoint_kind;
/* How tensors are named (and GGUF's "llama" permutes q and k): a store keeps the names of what it was made from. */
typedef enum tensor_dialect { DIALECT_HF, DIALECT_GGUF } tensor_dialect;

enum { TENSOR_MAX_DIMS = 4 };

typedef struct tensor {
    const char *name;
    dtype type;
    uint32_t n_dims;
    uint64_t shape[TENSOR_MAX_DIMS]; /* slowest-varying first (GGUF's order reversed) */
    uint32_t file;                   /* index into files; no weights (CHECKPOINT_CONFIG): 0 of 0 files */
    uint64_t offset, bytes;          /* in the file; checked to lie inside it, not overlapping others (but: shares) */
    uint64_t row_bytes;              /* of packed types, whose rows say themselves how long they are; else 0 */
    dtype of;                        /* of packed types: what was packed, DT_BF16, DT_F16, or DT_F32 of such values */
    uint32_t foreign_type;           /* DT_OTHER: the number or 0 */
    const char *foreign_name;        /* DT_OTHER: what the file calls the type, for errors; may be NULL */
} tensor;

/* Bytes of a row of the tensor: its last dimension of k elements. */
static inline uint64_t tensor_row_bytes(const tensor *t, uint64_t k)
{
    return t->row_bytes ? t->row_bytes : dtype_row_bytes(t->type, k);
}

typedef struct checkpoint_file {
    const char *path; /* to open it */
    const char *name; /* within the checkpoint */
    uint64_t bytes;
} checkpoint_file;

typedef struct gguf gguf;

typedef struct checkpoint {
    memory *m;
    arena *strings;
    checkpoint_kind kind;
    tensor_dialect dialect;
    const char *path; /* the folder or file */
    uint32_t n_files;
    checkpoint_file *files;
    size_t n_tensors;
    tensor *tensors;    /* sorted by name (strcmp), no two alike */
    json_t *config;     /* an object in Hugging Face's dialect; from GGUF: made of its metadata, "model_type" being
                           general.architecture, keys named as Hugging Face names them */
    json_t *generation; /* generation_config.json or NULL */
    gguf *metadata;     /* CHECKPOINT_GGUF: for the tokenizer; else NULL */
    bool shares; /* tensors may share bytes: PyTorch's, of one storage (tied weights). The reader has judged it */
    uint32_t file_room; /* allocated */
    size_t tensor_room;
} checkpoint;

/* path: a folder with config.json and safetensors or pytorch_model.bin, a .gguf file (of a split one: the first part),
 * or a config.json (or a folder with only that: CHECKPOINT_CONFIG, no tensors). One of a folder's own .safetensors or
 * .bin stands for the folder.
 * Stores are opened by store_open(). */
lamina_status checkpoint_open(memory *m, const char *path, checkpoint **out, lamina_error *err);
void checkpoint_free(checkpoint *c);                                  /* NULL is allowed */
const tensor *checkpoint_find(const checkpoint *c, const char *name); /* NULL: none */

/* For those who build a checkpoint (readers of formats, the store). */
checkpoint *checkpoint_new(memory *m, checkpoint_kind kind, const char *path, lamina_error *err);
lamina_status checkpoint_add_file(checkpoint *c, const char *path, const char *name, uint64_t bytes, uint32_t *index,
                                  lamina_error *err);
lamina_status checkpoint_add_tensor(checkpoint *c, const tensor *t, lamina_error *err); /* copies the name */
/* Sets the dimensions [n]; of more than TENSOR_MAX_DIMS the slowest are multiplied into one: the number of elements
 * stays right, and no role of a model has that many. false: more than 64 bits of elements. */
bool tensor_set_shape(tensor *t, const uint64_t *dims, uint32_t n);
/* Sorts, then refuses duplicates, extents outside their file, overlaps (but: shares), sizes that do not follow from the
 * shape (of DT_OTHER neither size nor shape is judged, only the extent). Without files no extent is judged. May be
 * called again after more has been added. */
lamina_status checkpoint_seal(checkpoint *c, lamina_error *err);

#endif
